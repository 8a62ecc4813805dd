//! GGUF files of BitNets in every ternary type, and damaged ones.

mod common;

use std::path::Path;

use common::ids;
use half::f16;
use proptest::prelude::*;
use serde_json::{Value, json};
use tacit_bitnet::checkpoint::gguf::{self, I2sLayout};
use tacit_bitnet::checkpoint::{self, WeightForm};
use tacit_bitnet::{Activation, Model, TernaryMatrix};

/// Types of linear weights a test file is written in.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Tq1,
    Tq2,
    I2sX86,
    I2sArm,
    F16,
    Q4_0,
}

enum Meta {
    Text(String),
    Int(u32),
    Float(f32),
    Bool(bool),
    Texts(Vec<String>),
    Ints(Vec<i32>),
}

struct File {
    metadata: Vec<(String, Meta)>,
    tensors: Vec<Tensor>,
}

/// Name, ggml type, shape (outermost first), bytes.
type Tensor = (String, u32, Vec<usize>, Vec<u8>);

fn text(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as u64).to_le_bytes());
    out.extend(s.as_bytes());
}

impl File {
    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(3u32.to_le_bytes());
        out.extend((self.tensors.len() as u64).to_le_bytes());
        out.extend((self.metadata.len() as u64).to_le_bytes());
        for (key, value) in &self.metadata {
            text(&mut out, key);
            match value {
                Meta::Int(v) => out.extend([4u32.to_le_bytes(), v.to_le_bytes()].concat()),
                Meta::Float(v) => out.extend([6u32.to_le_bytes(), v.to_le_bytes()].concat()),
                Meta::Bool(v) => {
                    out.extend(7u32.to_le_bytes());
                    out.push(u8::from(*v));
                }
                Meta::Text(v) => {
                    out.extend(8u32.to_le_bytes());
                    text(&mut out, v);
                }
                Meta::Texts(v) => {
                    out.extend([9u32.to_le_bytes(), 8u32.to_le_bytes()].concat());
                    out.extend((v.len() as u64).to_le_bytes());
                    v.iter().for_each(|s| text(&mut out, s));
                }
                Meta::Ints(v) => {
                    out.extend([9u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
                    out.extend((v.len() as u64).to_le_bytes());
                    v.iter().for_each(|i| out.extend(i.to_le_bytes()));
                }
            }
        }
        let mut offset = 0usize;
        for (name, kind, shape, bytes) in &self.tensors {
            text(&mut out, name);
            out.extend((shape.len() as u32).to_le_bytes());
            shape
                .iter()
                .rev()
                .for_each(|d| out.extend((*d as u64).to_le_bytes()));
            out.extend(kind.to_le_bytes());
            out.extend((offset as u64).to_le_bytes());
            offset += bytes.len().next_multiple_of(32);
        }
        for (_, _, _, bytes) in &self.tensors {
            out.resize(out.len().next_multiple_of(32), 0);
            out.extend(bytes);
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out
    }
}

/// Five trits in a byte, most significant first, as llama.cpp rounds them.
fn base3(trits: impl Iterator<Item = i8>) -> u8 {
    let (q, n) = trits.fold((0u16, 0), |(q, n), t| (3 * q + (t + 1) as u16, n + 1));
    (q * 3u16.pow(5 - n) * 256).div_ceil(243) as u8
}

fn encode(w: &TernaryMatrix, kind: Kind) -> (u32, Vec<u8>) {
    let codes: Vec<i8> = (0..w.rows()).flat_map(|r| w.row_codes(r)).collect();
    let d = f16::from_f32(w.scale()).to_le_bytes();
    let field = |c: i8| (c + 1) as u8;
    let mut out = Vec::new();
    match kind {
        Kind::Tq1 => {
            for b in codes.chunks(256) {
                out.extend((0..32).map(|m| base3((0..5).map(|n| b[32 * n + m]))));
                out.extend((0..16).map(|m| base3((0..5).map(|n| b[160 + 16 * n + m]))));
                out.extend((0..4).map(|m| base3((0..4).map(|n| b[240 + 4 * n + m]))));
                out.extend(d);
            }
            (34, out)
        }
        Kind::Tq2 => {
            for b in codes.chunks(256) {
                for j in [0, 128] {
                    out.extend((0..32).map(|m| {
                        (0..4)
                            .map(|l| field(b[j + 32 * l + m]) << (2 * l))
                            .sum::<u8>()
                    }));
                }
                out.extend(d);
            }
            (35, out)
        }
        Kind::I2sX86 | Kind::I2sArm => {
            let run = if kind == Kind::I2sX86 { 32 } else { 16 };
            for b in codes.chunks(4 * run) {
                out.extend((0..run).map(|p| {
                    (0..4)
                        .map(|l| field(b[p + run * l]) << (6 - 2 * l))
                        .sum::<u8>()
                }));
            }
            out.extend(w.scale().to_le_bytes());
            out.extend([0; 28]);
            (36, out)
        }
        Kind::F16 => {
            let values = w.dequantise();
            (
                1,
                values
                    .iter()
                    .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                    .collect(),
            )
        }
        Kind::Q4_0 => (2, vec![0; codes.len() / 32 * 18]),
    }
}

fn config(architecture: &str) -> Value {
    let mut config = common::config_json();
    config["hidden_size"] = json!(256);
    config["intermediate_size"] = json!(512);
    config["num_key_value_heads"] = json!(2);
    config["vocab_size"] = json!(300);
    config["rope_theta"] = json!(500_000.0);
    config["rms_norm_eps"] = json!(2.0f64.powi(-17));
    if architecture == "bitnet" {
        config["hidden_act"] = json!("silu");
    }
    config
}

/// A random model whose scales are f16 numbers, without head biases.
fn model(config: &Value, seed: u64) -> Model {
    let mut model = common::model(config, seed);
    for layer in &mut model.layers {
        layer.head_bias.fill(0.0);
    }
    common::rescale(&mut model, |scale| f16::from_f32(scale).to_f32());
    model
}

fn file(model: &Model, architecture: &str, kind: Kind) -> File {
    let c = &model.config;
    let key = |name: &str| format!("{architecture}.{name}");
    let metadata = vec![
        (
            "general.architecture".into(),
            Meta::Text(architecture.into()),
        ),
        (key("vocab_size"), Meta::Int(c.vocab_size as u32)),
        (key("context_length"), Meta::Int(c.context as u32)),
        (key("embedding_length"), Meta::Int(c.hidden_size as u32)),
        (key("block_count"), Meta::Int(c.layers as u32)),
        (
            key("feed_forward_length"),
            Meta::Int(c.intermediate_size as u32),
        ),
        (key("rope.dimension_count"), Meta::Int(c.head_dim as u32)),
        (key("attention.head_count"), Meta::Int(c.heads as u32)),
        (key("attention.head_count_kv"), Meta::Int(c.kv_heads as u32)),
        (
            key("attention.layer_norm_rms_epsilon"),
            Meta::Float(c.rms_norm_eps as f32),
        ),
        (key("rope.freq_base"), Meta::Float(c.rope_theta as f32)),
    ];
    let mut tensors = Vec::new();
    let mut vector = |name: String, v: &[f32]| {
        tensors.push((
            name,
            0,
            vec![v.len()],
            v.iter().flat_map(|x| x.to_le_bytes()).collect(),
        ));
    };
    vector("output_norm.weight".into(), &model.final_norm);
    for (n, l) in model.layers.iter().enumerate() {
        for (name, v) in [
            ("attn_norm", &l.input_norm),
            ("ffn_norm", &l.post_attention_norm),
            ("attn_sub_norm", l.attn_sub_norm.as_ref().unwrap()),
            ("ffn_sub_norm", l.ffn_sub_norm.as_ref().unwrap()),
        ] {
            vector(format!("blk.{n}.{name}.weight"), v);
        }
    }
    for (n, l) in model.layers.iter().enumerate() {
        for (name, w) in [
            ("attn_q", &l.q),
            ("attn_k", &l.k),
            ("attn_v", &l.v),
            ("attn_output", &l.o),
            ("ffn_gate", &l.gate),
            ("ffn_up", &l.up),
            ("ffn_down", &l.down),
        ] {
            let (number, bytes) = encode(w, kind);
            tensors.push((
                format!("blk.{n}.{name}.weight"),
                number,
                vec![w.rows(), w.cols()],
                bytes,
            ));
        }
    }
    let table: Vec<u8> = (0..c.vocab_size)
        .flat_map(|r| model.embeddings.row(r))
        .flat_map(|v| f16::from_f32(v).to_le_bytes())
        .collect();
    tensors.push((
        "token_embd.weight".into(),
        1,
        vec![c.vocab_size, c.hidden_size],
        table,
    ));
    File { metadata, tensors }
}

fn written(bytes: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    (folder, path)
}

fn fails(file: &File) -> String {
    let (_folder, path) = written(&file.bytes());
    checkpoint::load(&path)
        .expect_err("this file must be refused")
        .to_string()
}

fn assert_same(found: &Model, wanted: &Model) {
    assert_eq!(found.layers, wanted.layers);
    assert_eq!(found.embeddings, wanted.embeddings);
    assert_eq!(found.final_norm, wanted.final_norm);
    let options = tacit_bitnet::ForwardOptions::new(found.exact_functions());
    let ids = ids(7, 300, 3);
    assert_eq!(
        found.logits(&ids, &options).unwrap(),
        wanted.logits(&ids, &options).unwrap()
    );
}

#[test]
fn every_ternary_type_and_architecture() {
    for (architecture, kind, form) in [
        ("bitnet-25", Kind::I2sX86, WeightForm::Packed),
        ("bitnet-b1.58", Kind::Tq1, WeightForm::Packed),
        ("bitnet-25", Kind::Tq2, WeightForm::Packed),
        ("bitnet", Kind::F16, WeightForm::TernaryFloats),
    ] {
        let wanted = model(&config(architecture), 21);
        let (folder, path) = written(&file(&wanted, architecture, kind).bytes());
        let (found, report) = checkpoint::load(&path).unwrap();
        assert_same(&found, &wanted);
        assert_eq!(report.forms, [form]);
        let silu = architecture == "bitnet";
        assert_eq!(found.config.activation == Activation::Silu, silu);
        assert_eq!(
            report.to_string().contains("I2_S does not say"),
            kind == Kind::I2sX86
        );
        // The folder is enough when it holds one file.
        assert_eq!(checkpoint::load(folder.path()).unwrap().0, found);
    }
}

#[test]
fn the_layout_of_i2_s_can_be_chosen() {
    let wanted = model(&config("bitnet-25"), 22);
    let (_folder, path) = written(&file(&wanted, "bitnet-25", Kind::I2sArm).bytes());
    assert_same(&gguf::load(&path, I2sLayout::Blocks64).unwrap().0, &wanted);
    assert_ne!(
        gguf::load(&path, I2sLayout::Blocks128).unwrap().0.layers,
        wanted.layers
    );
}

#[test]
fn scales_beside_the_codes_are_used() {
    let wanted = model(&config("bitnet"), 23);
    let mut f = file(&wanted, "bitnet", Kind::F16);
    let at = |f: &File, name: &str| f.tensors.iter().position(|t| t.0 == name).unwrap();
    let up = at(&f, "blk.1.ffn_up.weight");
    let scale = wanted.layers[1].up.scale();
    for pair in f.tensors[up].3.chunks_mut(2) {
        let v = f16::from_le_bytes([pair[0], pair[1]]).to_f32() / scale;
        pair.copy_from_slice(&f16::from_f32(v.round()).to_le_bytes());
    }
    let bytes = scale.to_le_bytes().to_vec();
    f.tensors
        .push(("blk.1.ffn_up.scale".into(), 0, vec![1], bytes));
    let (_folder, path) = written(&f.bytes());
    let (found, report) = checkpoint::load(&path).unwrap();
    assert_same(&found, &wanted);
    assert!(report.warnings.is_empty(), "{report}");
}

#[test]
fn damaged_files_are_refused() {
    let wanted = model(&config("bitnet-25"), 24);
    let fresh = |kind| file(&wanted, "bitnet-25", kind);
    let edit = |kind, name: &str, change: &dyn Fn(&mut Tensor)| {
        let mut f = fresh(kind);
        let i = f.tensors.iter().position(|t| t.0 == name).unwrap();
        change(&mut f.tensors[i]);
        fails(&f)
    };
    let expect = |message: String, parts: &[&str]| {
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    let down = "blk.0.ffn_down.weight";
    expect(fails(&fresh(Kind::Q4_0)), &["blk.0", "Q4_0", "TQ1_0"]);
    expect(edit(Kind::Tq2, down, &|t| t.3[3] |= 3), &[down, "code 3"]);
    expect(
        edit(Kind::I2sX86, down, &|t| t.3[0] = 255),
        &[down, "code 3"],
    );
    let zeros = edit(Kind::I2sX86, down, &|t| {
        let n = t.2[0] * t.2[1] / 4;
        t.3[..n].fill(0b0101_0101);
    });
    expect(zeros, &[down, "zeros only"]);
    let scale = edit(Kind::Tq1, down, &|t| {
        t.3[52..54].copy_from_slice(&f16::from_f32(3.0).to_le_bytes())
    });
    expect(scale, &[down, "one positive scale"]);
    let tail = edit(Kind::I2sX86, down, &|t| {
        let n = t.2[0] * t.2[1] / 4;
        t.3[n..n + 4].fill(0xff);
    });
    expect(tail, &[down, "positive scale"]);
    expect(
        edit(Kind::Tq1, down, &|t| t.2.swap(0, 1)),
        &[down, "[256, 512]", "[512, 256]"],
    );
    let sub_norm = "blk.1.ffn_sub_norm.weight";
    expect(
        edit(Kind::Tq1, sub_norm, &|t| t.0 = "other".into()),
        &["ffn_sub_norm", "layers.1"],
    );
    let short = edit(Kind::Tq1, "token_embd.weight", &|t| t.3.truncate(100));
    expect(short, &["token_embd.weight", "room for"]);
    for (key, value, part) in [
        (
            "general.architecture",
            Meta::Text("llama".into()),
            "bitnet-25",
        ),
        (
            "bitnet-25.embedding_length",
            Meta::Float(256.0),
            "embedding_length",
        ),
        ("bitnet-25.block_count", Meta::Int(0), "block_count"),
        (
            "bitnet-25.rope.dimension_count",
            Meta::Int(32),
            "rope.dimension_count",
        ),
        (
            "bitnet-25.attention.head_count_kv",
            Meta::Int(3),
            "head_count_kv",
        ),
        (
            "bitnet-25.rope.freq_base",
            Meta::Float(f32::NAN),
            "freq_base",
        ),
    ] {
        let mut f = fresh(Kind::Tq1);
        f.metadata.retain(|m| m.0 != key);
        f.metadata.push((key.into(), value));
        expect(fails(&f), &[part, "model.gguf"]);
    }
    let (_folder, path) = written(b"GGML\0\0\0\0");
    assert!(
        checkpoint::load(&path)
            .unwrap_err()
            .to_string()
            .contains("GGUF")
    );
    // An absurd count is refused before anything is allocated.
    let mut bytes = fresh(Kind::Tq1).bytes();
    bytes[8..16].copy_from_slice(&(u64::MAX / 2).to_le_bytes());
    let (_folder, path) = written(&bytes);
    assert!(
        checkpoint::load(&path)
            .unwrap_err()
            .to_string()
            .contains("announces")
    );
}

fn byte_tokens() -> Vec<String> {
    // The byte alphabet of byte-level BPE: printable bytes stand for themselves, the others follow from U+0100 on.
    let printable =
        |b: u32| (33..=126).contains(&b) || (161..=172).contains(&b) || (174..=255).contains(&b);
    let mut next = 256;
    (0..256)
        .map(|b| {
            let c = if printable(b) {
                b
            } else {
                next += 1;
                next - 1
            };
            char::from_u32(c).unwrap().to_string()
        })
        .collect()
}

fn with_tokenizer(model: &Model) -> File {
    let mut f = file(model, "bitnet-25", Kind::Tq2);
    let mut tokens = byte_tokens();
    tokens.extend(["th", "the", "\u{120}the", "<|end|>"].map(String::from));
    let mut types = vec![1; tokens.len()];
    types[259] = 3;
    f.metadata.extend([
        ("tokenizer.ggml.model".into(), Meta::Text("gpt2".into())),
        ("tokenizer.ggml.pre".into(), Meta::Text("llama-bpe".into())),
        ("tokenizer.ggml.tokens".into(), Meta::Texts(tokens)),
        ("tokenizer.ggml.token_type".into(), Meta::Ints(types)),
        (
            "tokenizer.ggml.merges".into(),
            Meta::Texts(["t h", "th e", "\u{120} the"].map(String::from).to_vec()),
        ),
        ("tokenizer.ggml.bos_token_id".into(), Meta::Int(259)),
        ("tokenizer.ggml.add_bos_token".into(), Meta::Bool(true)),
    ]);
    f
}

#[test]
fn the_embedded_tokenizer() {
    let wanted = model(&config("bitnet-25"), 25);
    let (_folder, path) = written(&with_tokenizer(&wanted).bytes());
    let config = checkpoint::load(&path).unwrap().0.config;
    assert_eq!(config.bos_token, Some(259));
    let tokenizer = checkpoint::load_tokenizer(&path, &config).unwrap();
    assert_eq!(tokenizer.encode("the the", true).unwrap(), [259, 257, 258]);
    let text = "the caf\u{e9}, \u{1f600} 12345\n";
    let ids = tokenizer.encode(text, false).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert_eq!(tokenizer.token_id("<|end|>"), Some(259));

    let mut f = with_tokenizer(&wanted);
    f.metadata
        .iter_mut()
        .find(|m| m.0 == "tokenizer.ggml.model")
        .unwrap()
        .1 = Meta::Text("llama".into());
    let (_folder, path) = written(&f.bytes());
    let message = checkpoint::load_tokenizer(&path, &config)
        .unwrap_err()
        .to_string();
    assert!(message.contains("tokenizer.json"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        in_header in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let mut small = config("bitnet-25");
        small["num_hidden_layers"] = json!(1);
        small["hidden_size"] = json!(256);
        small["intermediate_size"] = json!(256);
        let f = with_tokenizer(&model(&small, 26));
        let mut bytes = f.bytes();
        let data: usize = f.tensors.iter().map(|t| t.3.len().next_multiple_of(32)).sum();
        let reach = if in_header { bytes.len() - data } else { bytes.len() };
        for (place, value) in &edits {
            bytes[place.index(reach)] = *value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len() - 64));
        }
        let (_folder, path) = written(&bytes);
        let result = checkpoint::load(Path::new(&path));
        let _ = gguf::tokenizer(&path);
        prop_assert!(!truncate || result.is_err());
    }
}
