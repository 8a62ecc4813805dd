//! From logits to the next token: greedy, temperature, top-k, top-p.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::error::BitnetError;
use crate::forward::unit;

/// How the next token is picked.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingOptions {
    /// 0 picks the largest logit; otherwise logits are divided by it.
    pub temperature: f64,
    /// Only this many of the most probable tokens are candidates (`None`: all).
    pub top_k: Option<usize>,
    /// Only the most probable tokens that together reach this probability are candidates (`None`: all).
    pub top_p: Option<f64>,
    /// Seed of the choice.
    pub seed: u64,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: None,
            seed: 0,
        }
    }
}

/// Picks tokens; the same seed and logits give the same tokens.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplingOptions,
    rng: ChaCha20Rng,
}

impl Sampler {
    /// A sampler.
    ///
    /// # Errors
    /// When the temperature is negative or not finite, top-k is 0, or top-p is outside of (0, 1].
    pub fn new(options: SamplingOptions) -> Result<Self, BitnetError> {
        if !(options.temperature.is_finite() && options.temperature >= 0.0) {
            return Err(BitnetError::input(
                format!(
                    "temperature {}: expected a number from 0 up",
                    options.temperature
                ),
                "0 picks the most probable token, 0.7 is a common choice",
            ));
        }
        if options.top_k == Some(0) {
            return Err(BitnetError::input(
                "top-k 0 leaves no token",
                "give 1 or more",
            ));
        }
        if options.top_p.is_some_and(|p| !(p > 0.0 && p <= 1.0)) {
            return Err(BitnetError::input(
                format!(
                    "top-p {:?}: expected a number above 0 and up to 1",
                    options.top_p
                ),
                "0.9 is a common choice",
            ));
        }
        Ok(Self {
            options,
            rng: ChaCha20Rng::seed_from_u64(options.seed),
        })
    }

    /// The next token of one position's logits.
    ///
    /// # Errors
    /// When there are no logits or one is NaN.
    pub fn sample(&mut self, logits: &[f32]) -> Result<u32, BitnetError> {
        let best = argmax(logits)?;
        if self.options.temperature == 0.0 || logits[best as usize] == f32::INFINITY {
            return Ok(best);
        }
        let top = f64::from(logits[best as usize]);
        let mut candidates: Vec<(usize, f64)> = logits
            .iter()
            .enumerate()
            .map(|(i, l)| (i, ((f64::from(*l) - top) / self.options.temperature).exp()))
            .filter(|(_, p)| *p > 0.0)
            .collect();
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if let Some(k) = self.options.top_k {
            candidates.truncate(k);
        }
        if let Some(p) = self.options.top_p {
            let sum: f64 = candidates.iter().map(|c| c.1).sum();
            let mut reached = 0.0;
            let keep = candidates.iter().take_while(|c| {
                let needed = reached < p * sum;
                reached += c.1;
                needed
            });
            let keep = keep.count().max(1);
            candidates.truncate(keep);
        }
        let sum: f64 = candidates.iter().map(|c| c.1).sum();
        let mut left = unit(&mut self.rng) * sum;
        for (i, p) in &candidates {
            left -= p;
            if left < 0.0 {
                return Ok(*i as u32);
            }
        }
        Ok(candidates.last().map_or(best, |c| c.0 as u32))
    }
}

/// Position of the largest logit, the first of equals.
///
/// # Errors
/// When there are no logits or one is NaN.
pub fn argmax(logits: &[f32]) -> Result<u32, BitnetError> {
    if let Some(p) = logits.iter().position(|l| l.is_nan()) {
        return Err(BitnetError::input(
            format!("the logit of token {p} is NaN"),
            "a polynomial left its interval or the weights are damaged: calibrate the model again",
        ));
    }
    let best =
        logits
            .iter()
            .enumerate()
            .fold(None, |best: Option<(usize, f32)>, (i, l)| match best {
                Some((_, top)) if *l <= top => best,
                _ => Some((i, *l)),
            });
    best.map(|(i, _)| i as u32)
        .ok_or_else(|| BitnetError::input("there are no logits", "the model has no vocabulary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(options: SamplingOptions) -> Sampler {
        Sampler::new(options).unwrap()
    }

    #[test]
    fn greedy_takes_the_first_largest() {
        let mut s = sampler(SamplingOptions::default());
        assert_eq!(s.sample(&[0.5, 2.0, 2.0, -1.0]).unwrap(), 1);
        assert!(s.sample(&[0.0, f32::NAN]).is_err());
        assert!(s.sample(&[]).is_err());
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0f32, 1.0, 2.0];
        let mut s = sampler(SamplingOptions {
            temperature: 0.5,
            ..Default::default()
        });
        let mut counts = [0usize; 3];
        for _ in 0..20_000 {
            counts[s.sample(&logits).unwrap() as usize] += 1;
        }
        let weights = [0.0f64, 2.0, 4.0].map(f64::exp);
        let sum: f64 = weights.iter().sum();
        for (count, weight) in counts.iter().zip(weights) {
            assert!((*count as f64 / 20_000.0 - weight / sum).abs() < 0.01);
        }
    }

    #[test]
    fn top_k_and_top_p_cut_the_tail() {
        let logits = [0.0f32, 0.1, 0.2, 3.0, 2.9];
        let mut k = sampler(SamplingOptions {
            temperature: 1.0,
            top_k: Some(2),
            ..Default::default()
        });
        let mut p = sampler(SamplingOptions {
            temperature: 1.0,
            top_p: Some(0.4),
            ..Default::default()
        });
        for _ in 0..200 {
            assert!(k.sample(&logits).unwrap() >= 3);
            assert_eq!(p.sample(&logits).unwrap(), 3);
        }
    }

    #[test]
    fn seeds_repeat_and_options_are_checked() {
        let logits: Vec<f32> = (0..50).map(|i| (i as f32 * 0.37).sin()).collect();
        let run = |seed| -> Vec<u32> {
            let mut s = sampler(SamplingOptions {
                temperature: 1.0,
                seed,
                ..Default::default()
            });
            (0..20).map(|_| s.sample(&logits).unwrap()).collect()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        for bad in [
            SamplingOptions {
                temperature: -1.0,
                ..Default::default()
            },
            SamplingOptions {
                temperature: f64::NAN,
                ..Default::default()
            },
            SamplingOptions {
                top_k: Some(0),
                ..Default::default()
            },
            SamplingOptions {
                top_p: Some(1.5),
                ..Default::default()
            },
        ] {
            assert!(Sampler::new(bad).is_err());
        }
    }
}
