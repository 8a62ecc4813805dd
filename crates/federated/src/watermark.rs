//! Ownership: a mark in the weights for each recipient of a model, found again with a p-value.
//!
//! White box, spread spectrum: the owner's secret and the recipient's name give a sequence of signs `s ∈ {±1}^d`, and
//!
//! ```text
//! embed:   w' = w + α rms(w) s                verify:   z = Σ s_i w_i / ‖w‖,     p ≤ exp(−z²/2)
//! ```
//!
//! For weights made without the secret the signs are independent of `w`, so that Hoeffding's inequality bounds the probability of a score of at least
//! `z` whatever the weights are: the p-value is a bound, not an approximation. Marked weights score about `α √d`; pruning small weights, ternarising and
//! fine-tuning leave most of that, averaging `k` recipients' copies divides it by `k`.
//!
//! **Assumed:** the secret stays secret until the dispute, and was committed to before (say, by publishing its hash); HKDF-SHA256 and ChaCha20 are
//! pseudo-random. **Not promised:** a mark that survives an adversary who retrains or distils the model, or who knows the secret.
//!
//! ```
//! use tacit_federated::watermark::Watermark;
//! let mark = Watermark::new([7; 32], 0.1).unwrap();
//! let mut weights: Vec<f32> = (0..50_000).map(|i| ((i * 37 % 101) as f32 - 50.0) / 50.0).collect();
//! mark.embed(&mut weights, "hospital A");
//! assert!(mark.verify(&weights, "hospital A").p_value < 1e-30);
//! assert!(mark.verify(&weights, "hospital B").p_value > 1e-6);
//! ```

use crate::FederatedError;
use hkdf::Hkdf;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use sha2::Sha256;
use zeroize::Zeroizing;

/// An owner's secret and the strength of its marks.
pub struct Watermark {
    secret: Zeroizing<[u8; 32]>,
    strength: f32,
}

/// What a verification found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Verdict {
    /// `Σ s_i w_i / ‖w‖`: a random variable of variance 1 for weights without the mark.
    pub score: f64,
    /// Bound on the probability of such a score without the mark; 1 for scores that are not positive.
    pub p_value: f64,
}

impl Watermark {
    /// Marks of `strength` times the weights' root mean square, from 0.001 to 0.5; 0.02 to 0.1 suits models of 10⁵ weights and more.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] for a strength out of range.
    pub fn new(secret: [u8; 32], strength: f32) -> Result<Self, FederatedError> {
        if !(0.001..=0.5).contains(&strength) {
            return Err(FederatedError::setting(
                "watermark.strength",
                "0.001 to 0.5",
                strength,
                "0.05 is invisible and survives ternarising",
            ));
        }
        Ok(Self {
            secret: Zeroizing::new(secret),
            strength,
        })
    }

    /// The signs of a recipient, one bit a weight.
    fn signs(&self, recipient: &str) -> ChaCha20Rng {
        let mut seed = Zeroizing::new([0; 32]);
        Hkdf::<Sha256>::new(Some(b"tacit watermark 1"), self.secret.as_slice())
            .expand(recipient.as_bytes(), seed.as_mut_slice())
            .expect("32 bytes are below HKDF's limit");
        ChaCha20Rng::from_seed(*seed)
    }

    fn for_each(
        &self,
        recipient: &str,
        weights: &mut dyn ExactSizeIterator<Item = usize>,
        mut f: impl FnMut(usize, bool),
    ) {
        let mut rng = self.signs(recipient);
        let mut word = 0;
        for i in weights {
            if i % 64 == 0 {
                word = rng.next_u64();
            }
            f(i, word >> (i % 64) & 1 == 1);
        }
    }

    /// Puts a recipient's mark into its copy of the weights.
    pub fn embed(&self, weights: &mut [f32], recipient: &str) {
        let square: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
        let step = self.strength * (square / weights.len().max(1) as f64).sqrt() as f32;
        self.for_each(recipient, &mut (0..weights.len()), |i, plus| {
            weights[i] += if plus { step } else { -step };
        });
    }

    /// Looks for a recipient's mark. The original is not needed; weights must be in the order in which they were marked.
    pub fn verify(&self, weights: &[f32], recipient: &str) -> Verdict {
        let (mut sum, mut square) = (0.0, 0.0);
        self.for_each(recipient, &mut (0..weights.len()), |i, plus| {
            let w = f64::from(weights[i]);
            sum += if plus { w } else { -w };
            square += w * w;
        });
        let score = if square > 0.0 {
            sum / square.sqrt()
        } else {
            0.0
        };
        Verdict {
            score,
            p_value: if score > 0.0 {
                (-score * score / 2.0).exp()
            } else {
                1.0
            },
        }
    }

    /// The recipient among these whose mark stands out, with its p-value times their number (Bonferroni), if that is below `threshold`.
    pub fn trace<'r>(
        &self,
        weights: &[f32],
        recipients: impl IntoIterator<Item = &'r str>,
        threshold: f64,
    ) -> Option<(&'r str, f64)> {
        let all: Vec<(&str, f64)> = recipients
            .into_iter()
            .map(|r| (r, self.verify(weights, r).p_value))
            .collect();
        let count = all.len() as f64;
        all.into_iter()
            .min_by(|a, b| a.1.total_cmp(&b.1))
            .map(|(r, p)| (r, (p * count).min(1.0)))
            .filter(|(_, p)| *p < threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};

    const WEIGHTS: usize = 100_000;

    fn weights() -> Vec<f32> {
        let mut rng = stream(1, "watermark test", &[]);
        (0..WEIGHTS)
            .map(|_| 0.02 * normal(&mut rng) as f32)
            .collect()
    }

    /// `sign · mean |w|` where `|w| > mean/2`, as BitNet b1.58.
    fn ternary(w: &[f32]) -> Vec<f32> {
        let mean = w.iter().map(|x| x.abs()).sum::<f32>() / w.len() as f32;
        w.iter()
            .map(|x| (x / mean).round().clamp(-1.0, 1.0) * mean)
            .collect()
    }

    fn pruned(w: &[f32], share: f64) -> Vec<f32> {
        let mut sizes: Vec<f32> = w.iter().map(|x| x.abs()).collect();
        sizes.sort_unstable_by(f32::total_cmp);
        let least = sizes[(share * w.len() as f64) as usize];
        w.iter()
            .map(|&x| if x.abs() < least { 0.0 } else { x })
            .collect()
    }

    #[test]
    fn marks_survive_pruning_ternarising_fine_tuning_and_averaging() {
        let mark = Watermark::new([3; 32], 0.05).unwrap();
        let plain = weights();
        let mut a = plain.clone();
        mark.embed(&mut a, "a");
        let change = a
            .iter()
            .zip(&plain)
            .map(|(x, y)| (x - y).powi(2))
            .sum::<f32>()
            .sqrt()
            / plain.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((change - 0.05).abs() < 1e-3);
        let mut rng = stream(2, "fine-tuning", &[]);
        let tuned: Vec<f32> = a
            .iter()
            .map(|w| w + 0.01 * normal(&mut rng) as f32)
            .collect();
        let mut b = plain.clone();
        mark.embed(&mut b, "b");
        let averaged: Vec<f32> = a.iter().zip(&b).map(|(x, y)| (x + y) / 2.0).collect();
        for (what, w) in [
            ("as marked", a.clone()),
            ("30 % pruned", pruned(&a, 0.3)),
            ("ternary", ternary(&a)),
            ("pruned and ternary", ternary(&pruned(&a, 0.3))),
            ("fine-tuned by half its size", tuned),
            ("averaged with another copy", averaged),
        ] {
            let v = mark.verify(&w, "a");
            println!(
                "watermark, {what}: score {:.1}, p {:.1e}",
                v.score, v.p_value
            );
            assert!(v.p_value < 1e-10, "{what}: {v:?}");
            assert!(mark.verify(&w, "c").p_value > 1e-5, "{what}");
            assert!(
                Watermark::new([4; 32], 0.05)
                    .unwrap()
                    .verify(&w, "a")
                    .p_value
                    > 1e-5
            );
        }
        assert!(mark.verify(&plain, "a").p_value > 1e-5);
        assert_eq!(
            mark.trace(&ternary(&b), ["a", "b", "c"], 1e-6).unwrap().0,
            "b"
        );
        assert_eq!(mark.trace(&plain, ["a", "b", "c"], 1e-6), None);
    }

    #[test]
    fn p_values_of_unmarked_weights_are_bounds() {
        // Of 2000 unmarked (secret, weights) pairs about 2000 · p score below p at most.
        let w: Vec<f32> = weights()[..500].to_vec();
        let low = (0..2000u32)
            .filter(|i| {
                let mut secret = [0; 32];
                secret[..4].copy_from_slice(&i.to_le_bytes());
                Watermark::new(secret, 0.05)
                    .unwrap()
                    .verify(&w, "a")
                    .p_value
                    < 0.01
            })
            .count();
        assert!(low <= 20, "{low}");
        assert!(Watermark::new([0; 32], 0.9).is_err());
        assert_eq!(
            Watermark::new([0; 32], 0.1)
                .unwrap()
                .verify(&[], "x")
                .p_value,
            1.0
        );
    }
}
