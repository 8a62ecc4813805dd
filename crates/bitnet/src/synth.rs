//! Checkpoints of a published shape with random weights: for plans, timings and error measurements without a download.
//!
//! The weights are ternary with a third of zeros, scaled such that activations keep the size that a trained model's have: every
//! projection keeps the variance of normalised inputs, and the two outputs that are added to the residual stream are damped by
//! `1/sqrt(2 layers)`, so that the stream's variance doubles over all layers. The text that such a model writes is noise; its shapes, its file
//! format and what its layers cost are the real ones.

use rand_chacha::{
    ChaCha20Rng,
    rand_core::{RngCore, SeedableRng},
};
use serde_json::json;

use crate::{
    checkpoint::{LayerWeights, Model},
    config::{Activation, Attention, Config, LinearClass, Quantization},
    error::BitnetError,
    ternary::{DenseMatrix, DenseValues, TernaryMatrix},
};

/// A published shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// What the command line calls it.
    pub name: &'static str,
    /// Hidden size.
    pub hidden: usize,
    /// Feed-forward size.
    pub ffn: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads.
    pub kv_heads: usize,
    /// Layers.
    pub layers: usize,
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Gate function.
    pub activation: Activation,
    /// Base of the rotary positions.
    pub rope_theta: f64,
    /// Longest sequence.
    pub context: usize,
}

/// The shapes known by name: 1bitLLM's `bitnet_b1_58-large` (0.7 billion parameters) and Microsoft's BitNet b1.58 2B4T.
pub const SHAPES: [Shape; 2] = [
    Shape {
        name: "bitnet-large",
        hidden: 1536,
        ffn: 4096,
        heads: 16,
        kv_heads: 16,
        layers: 24,
        vocab: 32002,
        activation: Activation::Silu,
        rope_theta: 10_000.0,
        context: 2048,
    },
    Shape {
        name: "bitnet-2b-4t",
        hidden: 2560,
        ffn: 6912,
        heads: 20,
        kv_heads: 5,
        layers: 30,
        vocab: 128_256,
        activation: Activation::SquaredRelu,
        rope_theta: 500_000.0,
        context: 4096,
    },
];

/// The shape of this name.
pub fn shape(name: &str) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.name == name)
}

/// Approximately normal numbers: the sum of twelve uniform ones less six, variance 1, never beyond 6.
fn normal(rng: &mut ChaCha20Rng) -> f32 {
    (0..6)
        .map(|_| {
            let word = rng.next_u64();
            ((word >> 40) as f32 + (word as u32 >> 8) as f32) / (1u32 << 24) as f32
        })
        .sum::<f32>()
        - 6.0
}

/// A ternary matrix of equally frequent codes that multiplies the standard deviation of its inputs by `gain`.
fn ternary(
    rng: &mut ChaCha20Rng,
    rows: usize,
    cols: usize,
    gain: f64,
) -> Result<TernaryMatrix, BitnetError> {
    let codes: Vec<i8> = (0..rows * cols)
        .map(|_| (rng.next_u32() % 3) as i8 - 1)
        .collect();
    let scale = gain / (cols as f64 * 2.0 / 3.0).sqrt();
    TernaryMatrix::from_codes(rows, cols, &codes, scale as f32)
}

fn gains(rng: &mut ChaCha20Rng, n: usize) -> Vec<f32> {
    (0..n).map(|_| 1.0 + 0.1 * normal(rng)).collect()
}

/// A model of this shape with `layers` layers, sigmoid attention, and weights from `seed`. Every layer has its own stream of random
/// numbers: the first layers of a shorter model are those of a longer one, but for the damping of the residual outputs.
///
/// # Errors
/// None for the shapes of [`SHAPES`] and at least one layer.
pub fn model(shape: &Shape, layers: usize, seed: u64) -> Result<Model, BitnetError> {
    if layers == 0 {
        return Err(BitnetError::input(
            "a model without layers",
            "ask for at least one layer",
        ));
    }
    let stream = |number: u64| {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        rng.set_stream(number);
        rng
    };
    let config = Config {
        vocab_size: shape.vocab,
        hidden_size: shape.hidden,
        intermediate_size: shape.ffn,
        layers,
        heads: shape.heads,
        kv_heads: shape.kv_heads,
        head_dim: shape.hidden / shape.heads,
        activation: shape.activation,
        context: shape.context,
        rms_norm_eps: 1e-5,
        rope_theta: shape.rope_theta,
        tied_embeddings: true,
        bos_token: None,
        eos_tokens: Vec::new(),
        attention: Attention::Sigmoid,
        attn_sub_norm_eps: vec![ATTENTION_EPSILON; layers],
        row_sum_eps: Vec::new(),
        quantization: Quantization {
            linear_class: LinearClass::AutoBitLinear,
            online: false,
            declared: true,
            modules_to_not_convert: vec!["lm_head".into()],
        },
        sub_norms: true,
        model_type: "bitnet".into(),
    };
    let (d, kv) = (shape.hidden, shape.kv_heads * config.head_dim);
    let damped = (1.0 / (2.0 * layers as f64)).sqrt();
    let weights = (0..layers)
        .map(|layer| {
            let rng = &mut stream(1 + layer as u64);
            Ok(LayerWeights {
                input_norm: gains(rng, d),
                q: ternary(rng, d, d, 1.0)?,
                k: ternary(rng, kv, d, 1.0)?,
                v: ternary(rng, kv, d, 1.0)?,
                o: ternary(rng, d, d, damped)?,
                attn_sub_norm: Some(gains(rng, d)),
                head_bias: (0..shape.heads).map(|_| 0.3 * normal(rng) - 0.5).collect(),
                post_attention_norm: gains(rng, d),
                gate: ternary(rng, shape.ffn, d, 1.0)?,
                up: ternary(rng, shape.ffn, d, 1.0)?,
                down: ternary(rng, d, shape.ffn, damped)?,
                ffn_sub_norm: Some(gains(rng, shape.ffn)),
            })
        })
        .collect::<Result<Vec<_>, BitnetError>>()?;
    let rng = &mut stream(0);
    let embeddings: Vec<half::f16> = (0..shape.vocab * d)
        .map(|_| half::f16::from_f32(normal(rng)))
        .collect();
    Ok(Model {
        config,
        embeddings: DenseMatrix::new(shape.vocab, d, DenseValues::F16(embeddings))?,
        head: None,
        layers: weights,
        final_norm: gains(rng, d),
    })
}

/// Epsilon of the attention sub-norm. The mean square of attention outputs falls from one at the first token to some thousandths where
/// a hundred values are averaged; a hundredth of its median keeps the inverse root's interval short.
const ATTENTION_EPSILON: f64 = 1e-4;

/// A `tokenizer.json` of single bytes, its vocabulary filled up to `vocab` entries that no text produces.
pub fn tokenizer_json(vocab: usize) -> String {
    // the printable stand-ins of bytes that byte-level tokenizers use
    let mut next = 256u32;
    let mut entries = serde_json::Map::new();
    for byte in 0..=255u32 {
        let printable = matches!(byte, 33..=126 | 161..=172 | 174..=255);
        let code = if printable {
            byte
        } else {
            next += 1;
            next - 1
        };
        let name = char::from_u32(code).map(String::from).unwrap_or_default();
        entries.insert(name, json!(byte));
    }
    for id in 256..vocab {
        entries.insert(format!("<unused {id}>"), json!(id));
    }
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    format!(
        "{:#}\n",
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": null,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": entries, "merges": [],
            },
        })
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tokenizer, checkpoint};

    #[test]
    fn a_synthetic_checkpoint_reads_back_and_keeps_its_scale() {
        let shape = Shape {
            hidden: 96,
            ffn: 160,
            heads: 4,
            kv_heads: 2,
            vocab: 400,
            context: 32,
            ..SHAPES[1].clone()
        };
        let made = model(&shape, 2, 7).unwrap();
        let folder = tempfile::tempdir().unwrap();
        checkpoint::save(&made, folder.path()).unwrap();
        std::fs::write(
            folder.path().join("tokenizer.json"),
            tokenizer_json(shape.vocab),
        )
        .unwrap();
        let (read, _) = checkpoint::load(folder.path()).unwrap();
        assert_eq!(read.config.kv_heads, 2);
        assert_eq!(read.layers[1].down, made.layers[1].down);
        let tokenizer = Tokenizer::from_file(&folder.path().join("tokenizer.json")).unwrap();
        tokenizer.check(&read.config).unwrap();
        let ids = tokenizer.encode("ab é\n", false).unwrap();
        assert_eq!(ids, [97, 98, 32, 0xc3, 0xa9, 10]);
        assert_eq!(tokenizer.decode(&ids).unwrap(), "ab é\n");

        let options = crate::ForwardOptions::new(read.exact_functions());
        let states = read.hidden_states(&ids, &options).unwrap().last;
        let ms =
            states.data.iter().map(|v| f64::from(v * v)).sum::<f64>() / states.data.len() as f64;
        assert!((0.8..6.0).contains(&ms), "mean square {ms}");
    }

    #[test]
    fn no_layers_is_refused() {
        assert!(model(&SHAPES[0], 0, 1).is_err());
    }
}
