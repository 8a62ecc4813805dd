//! What the process-level tests share: running the command, and a small model folder made on the spot.
#![allow(dead_code)]

use std::collections::HashMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Runs the command with arguments, without a terminal.
pub fn tacit(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_tacit"))
        .args(args)
        .stdin(Stdio::null())
        .env_remove("TACIT_LOG")
        .output()
        .expect("the command starts")
}

pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts a failure with this exit code whose message holds all of `words`, without a panic.
#[track_caller]
pub fn fails(output: &Output, code: i32, words: &[&str]) {
    let text = stderr(output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains("RUST_BACKTRACE"), "{text}");
    for word in words {
        assert!(text.contains(word), "no \"{word}\" in: {text}");
    }
}

pub const HIDDEN: usize = 32;
pub const FFN: usize = 64;
pub const LAYERS: usize = 1;
pub const VOCAB: usize = 64;

/// Writes a tiny BitNet with sigmoid attention: config, packed weights, tokenizer.
pub fn tiny_model(folder: &Path) {
    std::fs::create_dir_all(folder).unwrap();
    let config = serde_json::json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "num_key_value_heads": 2,
        "hidden_act": "relu2", "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true, "torch_dtype": "float16",
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"},
        "tacit": {"attention": "sigmoid", "context": 16, "attn_sub_norm_eps": [0.001]}
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), weights()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer(VOCAB)).unwrap();
}

/// A word tokenizer of `size` words w0, w1, ….
pub fn tokenizer(size: usize) -> String {
    let vocab: HashMap<String, usize> = (0..size).map(|i| (format!("w{i}"), i)).collect();
    serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": {"type": "Whitespace"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "w0"}
    })
    .to_string()
}

fn weights() -> Vec<u8> {
    let mut state = 1u64;
    let mut next = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let mut tensors: Vec<(String, &str, Vec<usize>, Vec<u8>)> = Vec::new();
    let floats = |v: Vec<f32>| v.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    let table = (0..VOCAB * HIDDEN)
        .map(|_| next() as f32 / u32::MAX as f32 * 4.0 - 1.0)
        .collect();
    tensors.push((
        "model.embed_tokens.weight".into(),
        "F32",
        vec![VOCAB, HIDDEN],
        floats(table),
    ));
    tensors.push((
        "model.norm.weight".into(),
        "F32",
        vec![HIDDEN],
        floats(vec![1.0; HIDDEN]),
    ));
    for l in 0..LAYERS {
        let p = format!("model.layers.{l}");
        for (name, size) in [
            ("input_layernorm", HIDDEN),
            ("post_attention_layernorm", HIDDEN),
            ("self_attn.attn_sub_norm", HIDDEN),
            ("mlp.ffn_sub_norm", FFN),
        ] {
            tensors.push((
                format!("{p}.{name}.weight"),
                "F32",
                vec![size],
                floats(vec![1.0; size]),
            ));
        }
        tensors.push((
            format!("{p}.self_attn.head_bias"),
            "F32",
            vec![2],
            floats(vec![-0.5, 0.25]),
        ));
        for (name, out, inp) in [
            ("self_attn.q_proj", HIDDEN, HIDDEN),
            ("self_attn.k_proj", HIDDEN, HIDDEN),
            ("self_attn.v_proj", HIDDEN, HIDDEN),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
            ("mlp.gate_proj", FFN, HIDDEN),
            ("mlp.up_proj", FFN, HIDDEN),
            ("mlp.down_proj", HIDDEN, FFN),
        ] {
            // Codes 0, 1, 2 in two bits each, four rows (a quarter of the matrix apart) in a byte.
            let bytes = (0..out / 4 * inp)
                .map(|_| (0..4).fold(0u8, |b, i| b | (((next() % 3) as u8) << (2 * i))))
                .collect();
            tensors.push((
                format!("{p}.{name}.weight"),
                "U8",
                vec![out / 4, inp],
                bytes,
            ));
            tensors.push((
                format!("{p}.{name}.weight_scale"),
                "F32",
                vec![1],
                floats(vec![0.25]),
            ));
        }
    }
    let mut header = serde_json::Map::new();
    let mut offset = 0;
    for (name, dtype, shape, data) in &tensors {
        header.insert(name.clone(), serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + data.len()]}));
        offset += data.len();
    }
    let mut head = serde_json::Value::Object(header).to_string().into_bytes();
    while !head.len().is_multiple_of(8) {
        head.push(b' ');
    }
    let mut file = (head.len() as u64).to_le_bytes().to_vec();
    file.extend(head);
    for (_, _, _, data) in &tensors {
        file.extend(data);
    }
    file
}
