//! Models with random weights, for tests and benchmarks where only shapes and magnitudes matter.

use half::f16;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use super::{LayerWeights, Model};
use crate::config::Config;
use crate::error::BitnetError;
use crate::ternary::{DenseMatrix, DenseValues, TernaryMatrix};

impl Model {
    /// A model of this configuration with random weights: 40 % zeros, each linear layer of gain 1 (so that activations stay
    /// near 1), embeddings uniform in [-1.7, 1.7], norm gains 1, head biases in [-1.5, -0.5]. Sub-norms as the configuration
    /// says. It computes what a trained model of this shape computes, and says nothing sensible.
    ///
    /// # Errors
    /// When the configuration is impossible.
    pub fn random(config: Config, seed: u64) -> Result<Self, BitnetError> {
        let mut rng = ChaCha20Rng::seed_from_u64(seed);
        let mut uniform = move || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        let (hidden, ffn, kv) = (
            config.hidden_size,
            config.intermediate_size,
            config.kv_size(),
        );
        let mut linear = |rows: usize, cols: usize| {
            let codes: Vec<i8> = (0..rows * cols)
                .map(|_| match uniform() {
                    u if u < 0.3 => -1,
                    u if u < 0.6 => 1,
                    _ => 0,
                })
                .collect();
            TernaryMatrix::from_codes(rows, cols, &codes, 1.0 / (0.6 * cols as f32).sqrt())
        };
        let mut layers = Vec::new();
        for _ in 0..config.layers {
            layers.push(LayerWeights {
                input_norm: vec![1.0; hidden],
                q: linear(hidden, hidden)?,
                k: linear(kv, hidden)?,
                v: linear(kv, hidden)?,
                o: linear(hidden, hidden)?,
                attn_sub_norm: config.sub_norms.then(|| vec![1.0; hidden]),
                head_bias: Vec::new(),
                post_attention_norm: vec![1.0; hidden],
                gate: linear(ffn, hidden)?,
                up: linear(ffn, hidden)?,
                down: linear(hidden, ffn)?,
                ffn_sub_norm: config.sub_norms.then(|| vec![1.0; ffn]),
            });
        }
        let mut rng = ChaCha20Rng::seed_from_u64(seed ^ 0x7461_6369_745f_656d);
        let mut uniform = move || (rng.next_u32() >> 8) as f32 / (1u32 << 24) as f32;
        for layer in &mut layers {
            layer.head_bias = (0..config.heads).map(|_| uniform() - 1.5).collect();
        }
        let mut table = || {
            let values = (0..config.vocab_size * hidden)
                .map(|_| f16::from_f32(3.4 * uniform() - 1.7))
                .collect();
            DenseMatrix::new(config.vocab_size, hidden, DenseValues::F16(values))
        };
        let embeddings = table()?;
        let head = if config.tied_embeddings {
            None
        } else {
            Some(table()?)
        };
        Ok(Self {
            embeddings,
            head,
            layers,
            final_norm: vec![1.0; hidden],
            config,
        })
    }
}
