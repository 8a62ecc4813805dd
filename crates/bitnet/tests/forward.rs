//! The forward pass against a naive f64 implementation, and its own laws.

mod common;

use std::collections::BTreeMap;

use common::{config_json, ids, model, naive};
use serde_json::json;
use tacit_bitnet::{
    BitnetError, ForwardOptions, Functions, KvCache, Matrix, Model, Noise, Probe, Quantity,
};

fn assert_close(found: &Matrix, wanted: &[Vec<f64>], bound: f64) {
    let size = wanted.iter().flatten().fold(0.0f64, |m, v| m.max(v.abs()));
    for (t, row) in wanted.iter().enumerate() {
        for (i, w) in row.iter().enumerate() {
            let f = f64::from(found.row(t)[i]);
            assert!(
                (f - w).abs() <= bound * size,
                "token {t}, value {i}: {f} against {w}"
            );
        }
    }
}

fn variants() -> Vec<(&'static str, Model)> {
    let base = config_json();
    let mut grouped = base.clone();
    grouped["num_key_value_heads"] = json!(2);
    let mut plain = base.clone();
    plain["model_type"] = json!("llama");
    plain["architectures"] = json!(["LlamaForCausalLM"]);
    plain["hidden_act"] = json!("silu");
    plain["tie_word_embeddings"] = json!(false);
    let mut sigmoid = base.clone();
    sigmoid["tacit"] =
        json!({"attention": "sigmoid", "context": 24, "attn_sub_norm_eps": [0.05, 0.2]});
    let mut normalised = base.clone();
    normalised["tacit"] =
        json!({"attention": "normalised-sigmoid", "context": 24, "row_sum_eps": [0.3, 0.1]});
    vec![
        ("base", model(&base, 1)),
        ("grouped queries", model(&grouped, 2)),
        ("silu, no sub-norms, untied", model(&plain, 3)),
        ("sigmoid", model(&sigmoid, 4)),
        ("normalised sigmoid", model(&normalised, 4)),
    ]
}

#[test]
fn agrees_with_the_naive_implementation() {
    for (name, model) in variants() {
        for (functions, sigmoid) in [
            (Functions::ExactSoftmax, false),
            (Functions::ExactSigmoid, true),
        ] {
            for length in [1, 3, 17] {
                let ids = ids(length, 64, length as u64);
                let options = ForwardOptions::new(functions);
                let (hidden, logits) = naive(&model, &ids, sigmoid);
                println!("{name}, sigmoid {sigmoid}, {length} tokens");
                assert_close(
                    &model.hidden_states(&ids, &options).unwrap().last,
                    &hidden,
                    1e-5,
                );
                assert_close(&model.logits(&ids, &options).unwrap(), &logits, 1e-5);
            }
        }
    }
}

#[test]
fn variants_differ_from_each_other() {
    // The comparison above would pass on models that ignore their parts; these must not be ignored.
    let (_, mut model) = variants().remove(3);
    let ids = ids(9, 64, 5);
    let options = ForwardOptions::new(Functions::ExactSigmoid);
    let reference = model.logits(&ids, &options).unwrap();
    let softmax = ForwardOptions::new(Functions::ExactSoftmax);
    assert_ne!(reference, model.logits(&ids, &softmax).unwrap());
    model.layers[1].head_bias[2] += 1.0;
    let biased = model.logits(&ids, &options).unwrap();
    assert_ne!(reference, biased);
    model.config.attn_sub_norm_eps[1] = 2.0;
    assert_ne!(biased, model.logits(&ids, &options).unwrap());
}

#[test]
fn cache_equals_full_recompute() {
    for (name, model) in variants() {
        let options = ForwardOptions::new(model.exact_functions());
        let ids = ids(13, 64, 8);
        let full = model.hidden_states(&ids, &options).unwrap().last;
        let mut cache = KvCache::new(&model.config);
        let mut rows = Vec::new();
        for piece in [&ids[..5], &ids[5..6], &ids[6..8], &ids[8..9], &ids[9..]] {
            let part = model.forward(piece, &options, &mut cache, None).unwrap();
            rows.extend(part.last.data);
        }
        assert_eq!(cache.len(), 13);
        for (a, b) in rows.iter().zip(&full.data) {
            assert!((a - b).abs() < 2e-5 * full.max_abs(), "{name}: {a} {b}");
        }
        // Forgetting tokens and reading them again gives the same.
        cache.truncate(9);
        let again = model
            .forward(&ids[9..], &options, &mut cache, None)
            .unwrap();
        assert_eq!(again.last.data, rows[9 * 32..]);
    }
}

#[test]
fn bad_calls_are_errors() {
    let model = model(&config_json(), 1);
    let options = ForwardOptions::new(Functions::ExactSoftmax);
    let message = |ids: &[u32]| model.logits(ids, &options).unwrap_err().to_string();
    assert!(message(&[]).contains("0 tokens"));
    assert!(message(&[3, 64]).contains("token id 64 at position 1"));
    assert!(message(&[0; 25]).contains("25 tokens are too many"));
    let mut grouped = config_json();
    grouped["num_key_value_heads"] = json!(2);
    let mut foreign = KvCache::new(&common::config(&grouped));
    let error = model.forward(&[1], &options, &mut foreign, None);
    assert!(matches!(error, Err(BitnetError::Input { .. })));
}

#[test]
fn int8_activations_change_little_but_something() {
    let model = model(&config_json(), 6);
    let ids = ids(12, 64, 6);
    let mut options = ForwardOptions::new(Functions::ExactSoftmax);
    let exact = model.logits(&ids, &options).unwrap();
    options.int8_activations = true;
    let rounded = model.logits(&ids, &options).unwrap();
    let worst = exact
        .data
        .iter()
        .zip(&rounded.data)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    assert!(worst > 1e-4 * exact.max_abs() && worst < 0.2 * exact.max_abs());
}

#[test]
fn noise_has_its_deviation_and_repeats() {
    struct Collect(BTreeMap<(usize, Quantity), Matrix>);
    impl Probe for Collect {
        fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
            self.0.insert((layer, quantity), values.clone());
        }
    }
    let model = model(&config_json(), 7);
    let ids = ids(20, 64, 7);
    let run = |noise| {
        let mut options = ForwardOptions::new(Functions::ExactSigmoid);
        options.noise = noise;
        let mut seen = Collect(BTreeMap::new());
        let mut cache = KvCache::new(&model.config);
        model
            .forward(&ids, &options, &mut cache, Some(&mut seen))
            .unwrap();
        seen.0
    };
    let noise = Some(Noise { bits: 8.0, seed: 3 });
    let (clean, noisy) = (run(None), run(noise));
    assert_eq!(
        noisy[&(1, Quantity::Down)],
        run(noise)[&(1, Quantity::Down)]
    );
    let (a, b) = (&clean[&(0, Quantity::Q)], &noisy[&(0, Quantity::Q)]);
    let variance = a
        .data
        .iter()
        .zip(&b.data)
        .map(|(a, b)| f64::from(a - b).powi(2))
        .sum::<f64>()
        / a.data.len() as f64;
    let wanted = f64::from(a.max_abs()) / 256.0;
    assert!((variance.sqrt() / wanted - 1.0).abs() < 0.15);
    // The probe sees every quantity of both layers, with the shapes it promises.
    assert_eq!(clean.len(), 2 * 23);
    assert_eq!(
        (clean[&(0, Quantity::Z)].rows, clean[&(0, Quantity::Z)].cols),
        (4 * 20, 20)
    );
    assert_eq!(clean[&(1, Quantity::MsGated)].rows, 20);
    assert_eq!(clean[&(0, Quantity::Weights)].row(0)[1], 0.0);
}
