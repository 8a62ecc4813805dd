//! Hugging Face folders in every form, and every way in which they are known to be damaged.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use common::{config_json, ids, rescale};
use half::{bf16, f16};
use proptest::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tacit_bitnet::checkpoint::WeightForm;
use tacit_bitnet::{ForwardOptions, LoadReport, Model, TernaryMatrix, checkpoint};

/// A random model; head biases are only stored for sigmoid attention.
fn model(config: &Value, seed: u64) -> Model {
    let mut model = common::model(config, seed);
    if model.config.attention == tacit_bitnet::Attention::Softmax {
        for layer in &mut model.layers {
            layer.head_bias.fill(0.0);
        }
    }
    model
}

/// Tensors to be written: type, shape, bytes.
type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

fn f32s(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn f16s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|v| f16::from_f32(*v).to_le_bytes())
        .collect()
}

fn bf16s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|v| bf16::from_f32(*v).to_le_bytes())
        .collect()
}

/// Packing as transformers' `pack_weights` does it, written from its description: row `i * R + r` goes to bits 2i of row r.
fn pack(w: &TernaryMatrix) -> (Dtype, Vec<usize>, Vec<u8>) {
    let block = w.rows().div_ceil(4);
    let mut bytes = vec![0u8; block * w.cols()];
    for row in 0..w.rows() {
        for col in 0..w.cols() {
            bytes[(row % block) * w.cols() + col] |=
                ((w.get(row, col) + 1) as u8) << (2 * (row / block));
        }
    }
    (Dtype::U8, vec![block, w.cols()], bytes)
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// u8 codes; scale multiplies.
    PackedMultiply,
    /// u8 codes; scale divides.
    PackedDivide,
    /// Masters whose absmean ternarisation is the model.
    Masters,
    /// scale x code as f32.
    TernaryFloats,
}

/// A master matrix whose absmean ternarisation has these codes and about this scale.
fn master(w: &TernaryMatrix) -> Vec<f32> {
    let spread = |i: usize| 1.0 + 0.3 * ((i * 7919 % 101) as f32 / 50.0 - 1.0);
    w.dequantise()
        .iter()
        .enumerate()
        .map(|(i, v)| {
            if *v == 0.0 {
                0.2 * w.scale() * (spread(i) - 1.0)
            } else {
                1.6 * v * spread(i)
            }
        })
        .collect()
}

fn tensors(model: &Model, form: Form, microsoft_names: bool) -> Tensors {
    let mut t = Tensors::new();
    let c = &model.config;
    let table = |m: &tacit_bitnet::DenseMatrix| {
        let values: Vec<f32> = (0..m.rows()).flat_map(|r| m.row(r)).collect();
        (Dtype::F16, vec![m.rows(), m.cols()], f16s(&values))
    };
    t.insert("model.embed_tokens.weight".into(), table(&model.embeddings));
    if let Some(head) = &model.head {
        t.insert("lm_head.weight".into(), table(head));
    }
    let vector = |v: &[f32]| (Dtype::F32, vec![v.len()], f32s(v));
    t.insert("model.norm.weight".into(), vector(&model.final_norm));
    for (n, l) in model.layers.iter().enumerate() {
        let mut put = |name: &str, value: (Dtype, Vec<usize>, Vec<u8>)| {
            t.insert(format!("model.layers.{n}.{name}"), value);
        };
        put("input_layernorm.weight", vector(&l.input_norm));
        put(
            "post_attention_layernorm.weight",
            vector(&l.post_attention_norm),
        );
        let (attn, ffn) = if microsoft_names {
            ("self_attn.attn_sub_norm", "mlp.ffn_sub_norm")
        } else {
            ("self_attn.inner_attn_ln", "mlp.ffn_layernorm")
        };
        if let Some(g) = &l.attn_sub_norm {
            put(&format!("{attn}.weight"), vector(g));
        }
        if let Some(g) = &l.ffn_sub_norm {
            put(&format!("{ffn}.weight"), vector(g));
        }
        if c.attention == tacit_bitnet::Attention::Sigmoid {
            put("self_attn.head_bias", vector(&l.head_bias));
        }
        for (name, w) in [
            ("self_attn.q_proj", &l.q),
            ("self_attn.k_proj", &l.k),
            ("self_attn.v_proj", &l.v),
            ("self_attn.o_proj", &l.o),
            ("mlp.gate_proj", &l.gate),
            ("mlp.up_proj", &l.up),
            ("mlp.down_proj", &l.down),
        ] {
            let shape = vec![w.rows(), w.cols()];
            match form {
                Form::PackedMultiply => {
                    put(&format!("{name}.weight"), pack(w));
                    put(
                        &format!("{name}.weight_scale"),
                        (Dtype::F32, vec![1], f32s(&[w.scale()])),
                    );
                }
                Form::PackedDivide => {
                    put(&format!("{name}.weight"), pack(w));
                    put(
                        &format!("{name}.weight_scale"),
                        (Dtype::BF16, vec![1], bf16s(&[1.0 / w.scale()])),
                    );
                }
                Form::Masters => put(
                    &format!("{name}.weight"),
                    (Dtype::BF16, shape, bf16s(&master(w))),
                ),
                Form::TernaryFloats => put(
                    &format!("{name}.weight"),
                    (Dtype::F32, shape, f32s(&w.dequantise())),
                ),
            }
        }
    }
    t
}

fn serialise(tensors: &Tensors) -> Vec<u8> {
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, (dtype, shape, bytes))| {
            (
                name.as_str(),
                TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
            )
        })
        .collect();
    safetensors::serialize(views, None).unwrap()
}

fn write(folder: &Path, config: &Value, tensors: &Tensors) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("model.safetensors"), serialise(tensors)).unwrap();
}

fn load(config: &Value, tensors: &Tensors) -> Result<(Model, LoadReport), String> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), config, tensors);
    checkpoint::load(folder.path()).map_err(|e| e.to_string())
}

fn fails(config: &Value, tensors: &Tensors) -> String {
    load(config, tensors).expect_err("this checkpoint must be refused")
}

#[test]
fn packed_weights_in_both_scale_directions() {
    let mut config = config_json();
    // 33 rows: the last of four row blocks is shorter.
    config["intermediate_size"] = json!(33);
    let wanted = model(&config, 1);
    let (found, report) = load(&config, &tensors(&wanted, Form::PackedMultiply, true)).unwrap();
    assert_eq!(found, wanted);
    assert_eq!(report.forms, [WeightForm::Packed]);
    assert_eq!(report.types, [("U8".to_string(), 14)]);
    assert!(report.warnings.is_empty(), "{report}");
    assert!((report.zero_share - 0.4).abs() < 0.05);

    config["quantization_config"]["linear_class"] = json!("bitlinear");
    let wanted = {
        let mut m = model(&config, 1);
        m.config = common::config(&config);
        m
    };
    let (found, _) = load(&config, &tensors(&wanted, Form::PackedDivide, false)).unwrap();
    for (a, b) in found.layers.iter().zip(&wanted.layers) {
        assert_eq!(a.gate.row_codes(32), b.gate.row_codes(32));
        assert!((a.down.scale() / b.down.scale() - 1.0).abs() < 0.01);
        assert_eq!(a.attn_sub_norm, b.attn_sub_norm);
    }
}

#[test]
fn masters_are_ternarised_and_it_is_said() {
    let mut config = config_json();
    let model = model(&config, 2);
    let stored = tensors(&model, Form::Masters, true);
    for (mode, warned) in [("online", false), ("offline", true)] {
        config["quantization_config"]["quantization_mode"] = json!(mode);
        let (found, report) = load(&config, &stored).unwrap();
        assert_eq!(report.forms, [WeightForm::Masters]);
        let warning = report
            .warnings
            .iter()
            .any(|w| w.contains("ternarised while loading"));
        assert_eq!(warning, warned, "{report}");
        for (a, b) in found.layers.iter().zip(&model.layers) {
            let codes = |w: &TernaryMatrix| -> Vec<i8> {
                (0..w.rows()).flat_map(|r| w.row_codes(r)).collect()
            };
            assert_eq!(codes(&a.q), codes(&b.q));
            assert_eq!(codes(&a.down), codes(&b.down));
            // The scale is the mean absolute value of the stored (bf16) master.
            let stored: Vec<f32> = master(&b.q)
                .iter()
                .map(|v| bf16::from_f32(*v).to_f32())
                .collect();
            let mean = stored.iter().map(|v| f64::from(v.abs())).sum::<f64>() / stored.len() as f64;
            assert!((f64::from(a.q.scale()) / mean - 1.0).abs() < 1e-6);
        }
    }
}

#[test]
fn reads_1bitllm_form_and_names() {
    let mut config = config_json();
    config["model_type"] = json!("llama");
    config["architectures"] = json!(["BitnetForCausalLM"]);
    config["hidden_act"] = json!("silu");
    config["weight_bits"] = json!(1);
    config
        .as_object_mut()
        .unwrap()
        .remove("quantization_config");
    let wanted = model(&config, 3);
    let mut stored = tensors(&wanted, Form::TernaryFloats, false);
    stored.insert(
        "model.layers.0.self_attn.rotary_emb.inv_freq".into(),
        (Dtype::F32, vec![4], f32s(&[1.0; 4])),
    );
    let (found, report) = load(&config, &stored).unwrap();
    assert_eq!(report.forms, [WeightForm::TernaryFloats]);
    assert!(report.warnings.is_empty(), "{report}");
    assert_eq!(found, wanted);
}

#[test]
fn untied_head_and_models_without_sub_norms() {
    let mut config = config_json();
    config["model_type"] = json!("llama");
    config["architectures"] = json!(["LlamaForCausalLM"]);
    config["tie_word_embeddings"] = json!(false);
    config["num_key_value_heads"] = json!(1);
    let wanted = model(&config, 4);
    let (found, _) = load(&config, &tensors(&wanted, Form::PackedMultiply, true)).unwrap();
    assert_eq!(found, wanted);
    let options = ForwardOptions::new(found.exact_functions());
    let ids = ids(5, 64, 1);
    assert_eq!(
        found.logits(&ids, &options).unwrap(),
        wanted.logits(&ids, &options).unwrap()
    );

    let mut stored = tensors(&wanted, Form::PackedMultiply, true);
    stored.remove("lm_head.weight");
    let message = fails(&config, &stored);
    assert!(
        message.contains("lm_head.weight") && message.contains("tie_word_embeddings"),
        "{message}"
    );
}

#[test]
fn sharded_checkpoints() {
    let config = config_json();
    let wanted = model(&config, 5);
    let all = tensors(&wanted, Form::PackedMultiply, true);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("config.json"), config.to_string()).unwrap();
    let name_of = |i: usize| format!("model-0000{}-of-00002.safetensors", i % 2 + 1);
    let mut map = serde_json::Map::new();
    let mut parts = [Tensors::new(), Tensors::new()];
    for (i, (name, tensor)) in all.iter().enumerate() {
        map.insert(name.clone(), json!(name_of(i)));
        parts[i % 2].insert(name.clone(), tensor.clone());
    }
    for (i, part) in parts.iter().enumerate() {
        std::fs::write(at(&name_of(i)), serialise(part)).unwrap();
    }
    let index = |map: &serde_json::Map<String, Value>| {
        std::fs::write(
            at("model.safetensors.index.json"),
            json!({"weight_map": map}).to_string(),
        )
        .unwrap();
        checkpoint::load(folder.path())
    };
    let (found, report) = index(&map).unwrap();
    assert_eq!(found, wanted);
    assert_eq!(report.files.len(), 2);

    let first = all.keys().next().unwrap().clone();
    for outside in [
        "../model.safetensors",
        "/etc/passwd",
        "a/../../b",
        "..\\b",
        "",
    ] {
        let mut bad = map.clone();
        bad.insert(first.clone(), json!(outside));
        let message = index(&bad).unwrap_err().to_string();
        assert!(
            message.contains("outside of the model folder"),
            "{outside}: {message}"
        );
    }
    let mut bad = map.clone();
    bad.insert(first.clone(), json!("model-00009-of-00002.safetensors"));
    assert!(index(&bad).unwrap_err().to_string().contains("model-00009"));
    let mut bad = map.clone();
    bad.insert(first.clone(), json!(name_of(1)));
    assert!(index(&bad).unwrap_err().to_string().contains(&first));
}

#[test]
fn damaged_weights_are_refused() {
    let config = config_json();
    let model = model(&config, 6);
    let good = tensors(&model, Form::PackedMultiply, true);
    let gate = "model.layers.1.mlp.gate_proj";
    let change = |f: &dyn Fn(&mut Tensors)| {
        let mut t = good.clone();
        f(&mut t);
        fails(&config, &t)
    };
    let expect = |message: String, parts: &[&str]| {
        for part in parts {
            assert!(message.contains(part), "`{part}` is not in: {message}");
        }
    };
    let weight = format!("{gate}.weight");
    let scale = format!("{gate}.weight_scale");
    let bytes =
        |t: &mut Tensors, name: &str, f: &dyn Fn(&mut Vec<u8>)| f(&mut t.get_mut(name).unwrap().2);

    // All zeros: every field is code 1.
    let zeros = change(&|t| bytes(t, &weight, &|b| b.fill(0b0101_0101)));
    expect(zeros, &[&weight, "zeros only", "first release"]);
    // Code 3 in row 12 * 2 + 1 (48 rows, blocks of 12), column 5.
    let code3 = change(&|t| bytes(t, &weight, &|b| b[32 + 5] |= 0b0011_0000));
    expect(code3, &[&weight, "code 3 at row 25, column 5"]);
    expect(
        change(&|t| drop(t.remove(&scale))),
        &[&scale, "scale", "nothing"],
    );
    for bad in [f32::NAN, 0.0, -1.0, f32::INFINITY] {
        let message = change(&|t| bytes(t, &scale, &|b| b.copy_from_slice(&bad.to_le_bytes())));
        expect(message, &[&scale, "positive"]);
    }
    let two = change(&|t| drop(t.insert(scale.clone(), (Dtype::F32, vec![2], f32s(&[1.0, 1.0])))));
    expect(two, &[&scale, "2 values"]);
    expect(change(&|t| drop(t.remove(&weight))), &[&weight, "nothing"]);
    let shape = change(&|t| t.get_mut(&weight).unwrap().1 = vec![32, 12]);
    expect(shape, &[&weight, "[12, 32]", "[32, 12]"]);
    for name in ["self_attn.attn_sub_norm", "mlp.ffn_sub_norm"] {
        let name = format!("model.layers.1.{name}.weight");
        expect(change(&|t| drop(t.remove(&name))), &[&name, "sub-norm"]);
    }
    // Missing everywhere, although the family has them.
    let none = change(&|t| t.retain(|n, _| !n.contains("sub_norm")));
    expect(none, &["model.layers.0", "sub-norm"]);
    let both = change(&|t| {
        let twin = t["model.layers.0.mlp.ffn_sub_norm.weight"].clone();
        t.insert("model.layers.0.mlp.ffn_layernorm.weight".into(), twin);
    });
    expect(both, &["ffn_layernorm"]);
    for name in ["model.norm.weight", "model.layers.0.input_layernorm.weight"] {
        let message = change(&|t| bytes(t, name, &|b| b[4..8].copy_from_slice(&f32s(&[f32::NAN]))));
        expect(message, &[name, "NaN"]);
    }
    let table = change(&|t| {
        bytes(t, "model.embed_tokens.weight", &|b| {
            b[70..72].copy_from_slice(&f16::INFINITY.to_le_bytes())
        })
    });
    expect(table, &["embed_tokens", "row 1, column 3"]);
    let unpacked = change(&|t| {
        let w = t.get_mut(&weight).unwrap();
        *w = (Dtype::U8, vec![48, 32], vec![1; 48 * 32]);
    });
    expect(unpacked, &[&weight, "packed"]);
    let kind = change(&|t| t.get_mut(&weight).unwrap().0 = Dtype::BOOL);
    expect(kind, &[&weight, "BOOL"]);
    let nan = {
        let mut t = tensors(&model, Form::Masters, true);
        let w = t.get_mut(&weight).unwrap();
        w.2[..2].copy_from_slice(&bf16::NAN.to_le_bytes());
        fails(&config, &t)
    };
    expect(nan, &[&weight, "NaN"]);
    let scaled_masters = {
        let mut t = tensors(&model, Form::Masters, true);
        t.insert(scale.clone(), (Dtype::F32, vec![1], f32s(&[0.5])));
        fails(&config, &t)
    };
    expect(scaled_masters, &["masters carry no weight_scale"]);
}

#[test]
fn inverted_scales_are_refused() {
    // Masters of a usual size, mean |W| about 0.005: taken the wrong way round, gains are far from those of any model.
    let mut config = config_json();
    let mut model = model(&config, 7);
    rescale(&mut model, |_| 0.01);
    let stored = tensors(&model, Form::PackedMultiply, true);
    assert!(load(&config, &stored).is_ok());
    config["quantization_config"]["linear_class"] = json!("bitlinear");
    let message = fails(&config, &stored);
    assert!(
        message.contains("inverted") && message.contains("autobitlinear"),
        "{message}"
    );
}

#[test]
fn odd_but_usable_checkpoints_are_warned_about() {
    let config = config_json();
    let model = model(&config, 8);
    let mut t = tensors(&model, Form::PackedMultiply, true);
    t.insert("model.extra".into(), (Dtype::F32, vec![1], f32s(&[0.0])));
    let mut other = t["model.embed_tokens.weight"].clone();
    other.2[0] ^= 1;
    t.insert("lm_head.weight".into(), other);
    let up = t.get_mut("model.layers.0.mlp.up_proj.weight").unwrap();
    up.2.fill(0b0101_0101);
    up.2[7] = 0b0101_0110;
    let (found, report) = load(&config, &t).unwrap();
    let text = report.to_string();
    assert!(found.head.is_none());
    for part in ["model.extra", "lm_head.weight differs", "up_proj"] {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}

#[test]
fn sigmoid_models_need_their_head_biases() {
    let mut config = config_json();
    config["tacit"] =
        json!({"attention": "sigmoid", "context": 24, "attn_sub_norm_eps": [0.01, 0.02]});
    let wanted = model(&config, 9);
    let mut t = tensors(&wanted, Form::PackedMultiply, true);
    assert_eq!(load(&config, &t).unwrap().0, wanted);
    t.remove("model.layers.1.self_attn.head_bias");
    assert!(fails(&config, &t).contains("head_bias"));
    config["tacit"] = json!({"attention": "normalised-sigmoid", "context": 24});
    assert!(fails(&config, &t).contains("row_sum_eps"));
    config["tacit"]["row_sum_eps"] = json!([0.1]);
    assert!(fails(&config, &t).contains("one a layer"));
    config["tacit"]["row_sum_eps"] = json!([0.1, 0.2]);
    assert!(fails(&config, &t).contains("head_bias"));
}

#[test]
fn saved_models_are_read_back_unchanged() {
    let mut silu = config_json();
    silu["model_type"] = json!("llama");
    silu["architectures"] = json!(["LlamaForCausalLM"]);
    silu["hidden_act"] = json!("silu");
    silu["tie_word_embeddings"] = json!(false);
    silu["eos_token_id"] = json!([3, 4]);
    let mut sigmoid = config_json();
    sigmoid["tacit"] =
        json!({"attention": "sigmoid", "context": 24, "attn_sub_norm_eps": [0.01, 0.02]});
    sigmoid["bos_token_id"] = json!(0);
    let mut normalised = sigmoid.clone();
    normalised["tacit"]["attention"] = json!("normalised-sigmoid");
    normalised["tacit"]["row_sum_eps"] = json!([0.25, 0.5]);
    for config in [config_json(), silu, sigmoid, normalised] {
        let wanted = model(&config, 31);
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("new");
        checkpoint::save(&wanted, &inner).unwrap();
        let (found, report) = checkpoint::load(&inner).unwrap();
        assert_eq!(found, wanted);
        assert!(report.warnings.is_empty(), "{report}");
    }
}

#[test]
fn folders_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let message = |p: &Path| checkpoint::load(p).unwrap_err().to_string();
    assert!(message(&folder.path().join("nowhere")).contains("nowhere"));
    assert!(message(folder.path()).contains("config.json"));
    std::fs::write(folder.path().join("config.json"), config_json().to_string()).unwrap();
    assert!(message(folder.path()).contains("model.safetensors"));
    let file = folder.path().join("notes.txt");
    std::fs::write(&file, "text").unwrap();
    assert!(message(&file).contains("notes.txt"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        in_header in any::<bool>(),
        cut in any::<prop::sample::Index>(),
        truncate in any::<bool>(),
    ) {
        let config = config_json();
        let mut bytes = serialise(&tensors(&model(&config, 10), Form::PackedMultiply, true));
        let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let reach = if in_header { header } else { bytes.len() };
        for (place, value) in &edits {
            bytes[place.index(reach)] = *value;
        }
        if truncate {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        std::fs::write(folder.path().join("model.safetensors"), &bytes).unwrap();
        let result = checkpoint::load(folder.path());
        prop_assert!(!truncate || result.is_err());
    }
}
