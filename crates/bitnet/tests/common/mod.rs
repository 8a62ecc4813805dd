//! Small models for the tests of this crate, and an independent, naive f64 implementation of the forward pass.
#![allow(dead_code)]

use serde_json::{Value, json};
use tacit_bitnet::{Activation, Attention, Config, Model, TernaryMatrix};

/// A `config.json` of a tiny model: hidden 32, 2 layers, 4 heads, feed-forward 48, vocabulary 64.
pub fn config_json() -> Value {
    json!({
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet", "vocab_size": 64, "hidden_size": 32,
        "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
        "hidden_act": "relu2", "max_position_embeddings": 24, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": true,
        "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    })
}

pub fn config(value: &Value) -> Config {
    Config::from_json(&value.to_string(), "config.json").unwrap()
}

/// A random model with gains that are not 1, so that a forgotten gain shows.
pub fn model(value: &Value, seed: u64) -> Model {
    let mut model = Model::random(config(value), seed).unwrap();
    let wave = |n: usize, phase: f32| -> Vec<f32> {
        (0..n)
            .map(|i| 1.0 + 0.4 * (i as f32 * 0.7 + phase).sin())
            .collect()
    };
    for (n, layer) in model.layers.iter_mut().enumerate() {
        layer.input_norm = wave(layer.input_norm.len(), n as f32);
        layer.post_attention_norm = wave(layer.post_attention_norm.len(), 1.0 + n as f32);
        if let Some(gain) = &mut layer.attn_sub_norm {
            *gain = wave(gain.len(), 2.0 + n as f32);
        }
        if let Some(gain) = &mut layer.ffn_sub_norm {
            *gain = wave(gain.len(), 3.0 + n as f32);
        }
    }
    model.final_norm = wave(model.final_norm.len(), 9.0);
    model
}

pub fn ids(n: usize, vocab: usize, seed: u64) -> Vec<u32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..n)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as usize % vocab) as u32
        })
        .collect()
}

type Rows = Vec<Vec<f64>>;

fn linear(w: &TernaryMatrix, x: &Rows) -> Rows {
    x.iter()
        .map(|row| {
            (0..w.rows())
                .map(|r| {
                    let sum: f64 = (0..w.cols()).map(|c| f64::from(w.get(r, c)) * row[c]).sum();
                    sum * f64::from(w.scale())
                })
                .collect()
        })
        .collect()
}

fn norm(x: &Rows, gain: &[f32], eps: f64) -> Rows {
    x.iter()
        .map(|row| {
            let ms = row.iter().map(|v| v * v).sum::<f64>() / row.len() as f64;
            row.iter()
                .zip(gain)
                .map(|(v, g)| v / (ms + eps).sqrt() * f64::from(*g))
                .collect()
        })
        .collect()
}

fn rope(x: &Rows, d: usize, theta: f64) -> Rows {
    x.iter()
        .enumerate()
        .map(|(p, row)| {
            (0..row.len())
                .map(|i| {
                    let (head, j) = (i / d * d, i % d);
                    let angle = p as f64 * theta.powf(-2.0 * (j % (d / 2)) as f64 / d as f64);
                    let partner = if j < d / 2 {
                        -row[head + j + d / 2]
                    } else {
                        row[head + j - d / 2]
                    };
                    row[i] * angle.cos() + partner * angle.sin()
                })
                .collect()
        })
        .collect()
}

/// Hidden states after the last layer and logits, in f64, one value at a time.
pub fn naive(model: &Model, ids: &[u32], sigmoid: bool) -> (Rows, Rows) {
    let c = &model.config;
    let d = c.head_dim;
    let as_f64 = |v: Vec<f32>| -> Vec<f64> { v.into_iter().map(f64::from).collect() };
    let mut x: Rows = ids
        .iter()
        .map(|id| as_f64(model.embeddings.row(*id as usize)))
        .collect();
    for (n, layer) in model.layers.iter().enumerate() {
        let h = norm(&x, &layer.input_norm, c.rms_norm_eps);
        let q = rope(&linear(&layer.q, &h), d, c.rope_theta);
        let k = rope(&linear(&layer.k, &h), d, c.rope_theta);
        let v = linear(&layer.v, &h);
        let mut attn = vec![vec![0.0; c.hidden_size]; ids.len()];
        for head in 0..c.heads {
            let kv = head * c.kv_heads / c.heads;
            for i in 0..ids.len() {
                let z: Vec<f64> = (0..=i)
                    .map(|j| {
                        (0..d)
                            .map(|f| q[i][head * d + f] * k[j][kv * d + f])
                            .sum::<f64>()
                            / (d as f64).sqrt()
                    })
                    .collect();
                let a: Vec<f64> = if sigmoid {
                    let bias = f64::from(layer.head_bias[head]) - ((i + 1) as f64).ln();
                    let a: Vec<f64> = z
                        .iter()
                        .map(|z| 1.0 / (1.0 + (-(z + bias)).exp()))
                        .collect();
                    let (sum, eps) = (a.iter().sum::<f64>(), c.row_sum_eps(n));
                    let divisor = match c.attention {
                        Attention::NormalisedSigmoid => (sum * sum + eps * eps).sqrt(),
                        _ => 1.0,
                    };
                    a.iter().map(|a| a / divisor).collect()
                } else {
                    let sum: f64 = z.iter().map(|z| z.exp()).sum();
                    z.iter().map(|z| z.exp() / sum).collect()
                };
                for f in 0..d {
                    attn[i][head * d + f] = (0..=i).map(|j| a[j] * v[j][kv * d + f]).sum();
                }
            }
        }
        if let Some(gain) = &layer.attn_sub_norm {
            attn = norm(&attn, gain, c.attn_sub_norm_eps(n));
        }
        let add = |x: &mut Rows, y: Rows| {
            for (a, b) in x.iter_mut().flatten().zip(y.into_iter().flatten()) {
                *a += b;
            }
        };
        add(&mut x, linear(&layer.o, &attn));
        let h = norm(&x, &layer.post_attention_norm, c.rms_norm_eps);
        let (gate, up) = (linear(&layer.gate, &h), linear(&layer.up, &h));
        let mut gated: Rows = gate
            .iter()
            .zip(&up)
            .map(|(g, u)| {
                g.iter()
                    .zip(u)
                    .map(|(g, u)| match c.activation {
                        Activation::SquaredRelu => g.max(0.0).powi(2) * u,
                        Activation::Silu => g / (1.0 + (-g).exp()) * u,
                    })
                    .collect()
            })
            .collect();
        if let Some(gain) = &layer.ffn_sub_norm {
            gated = norm(&gated, gain, c.rms_norm_eps);
        }
        add(&mut x, linear(&layer.down, &gated));
    }
    let logits = norm(&x, &model.final_norm, c.rms_norm_eps)
        .iter()
        .map(|row| {
            (0..c.vocab_size)
                .map(|t| {
                    model
                        .head()
                        .row(t)
                        .iter()
                        .zip(row)
                        .map(|(w, v)| f64::from(*w) * v)
                        .sum()
                })
                .collect()
        })
        .collect();
    (x, logits)
}

/// Gives every linear matrix of a model another scale.
pub fn rescale(model: &mut Model, scale: impl Fn(f32) -> f32) {
    for layer in &mut model.layers {
        for w in [
            &mut layer.q,
            &mut layer.k,
            &mut layer.v,
            &mut layer.o,
            &mut layer.gate,
            &mut layer.up,
            &mut layer.down,
        ] {
            let codes: Vec<i8> = (0..w.rows()).flat_map(|r| w.row_codes(r)).collect();
            *w = TernaryMatrix::from_codes(w.rows(), w.cols(), &codes, scale(w.scale())).unwrap();
        }
    }
}
