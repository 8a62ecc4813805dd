//! Writing text with a network in training.

use super::model::Network;
use super::{END_OF_TEXT, TrainError};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use tokenizers::Tokenizer;

impl Network {
    /// Continues `prompt` by up to `tokens` tokens at `temperature` (0 = greedy), until the end-of-text token or the context is
    /// full. Returns prompt and continuation as text.
    ///
    /// # Errors
    /// [`TrainError::Tokenizer`] when the prompt cannot be encoded, [`TrainError::Config`] when it does not fit the context.
    pub fn continue_text(
        &self,
        tokenizer: &Tokenizer,
        prompt: &str,
        tokens: usize,
        temperature: f64,
        seed: u64,
    ) -> Result<String, TrainError> {
        let fail = |e: tokenizers::Error| TrainError::Tokenizer(e.to_string());
        let mut ids = tokenizer
            .encode(prompt, true)
            .map_err(fail)?
            .get_ids()
            .to_vec();
        let end = tokenizer.token_to_id(END_OF_TEXT).unwrap_or(0);
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..tokens {
            if ids.len() >= self.sizes.context {
                break;
            }
            let logits = self.logits(&ids, ids.len())?;
            let last = &logits[logits.len() - self.sizes.vocab..];
            let best = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f64> = last
                .iter()
                .map(|&z| {
                    if temperature > 0.0 {
                        (f64::from(z - best) / temperature).exp()
                    } else {
                        f64::from(u8::from(z == best))
                    }
                })
                .collect();
            let mut left =
                (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64 * weights.iter().sum::<f64>();
            let next = weights.iter().position(|w| {
                left -= w;
                left < 0.0
            });
            let next = next.unwrap_or(self.sizes.vocab - 1) as u32;
            if next == end {
                break;
            }
            ids.push(next);
        }
        tokenizer.decode(&ids, true).map_err(fail)
    }
}
