//! Exact samples of the discrete Gaussian `P[x] ∝ exp(−x² / 2σ²)` on the integers.
//!
//! Canonne, Kamath and Steinke, *The Discrete Gaussian for Differential Privacy* (NeurIPS 2020), algorithms 1 to 3: rejection from a discrete
//! Laplace by integer arithmetic and fair bits only, so that no floating-point rounding shapes the distribution.

use super::STAGE;
use crate::protection::ProtectionError;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Denominator of the rational `σ²`.
const DENOMINATOR: u128 = 1 << 10;

/// A sampler of the discrete Gaussian whose `σ²` is a multiple of `2^−10`.
#[derive(Clone, Debug)]
pub struct DiscreteGaussian {
    /// `σ²` times the denominator.
    numerator: u128,
    /// `⌊σ⌋ + 1`.
    scale: u64,
    rng: ChaCha20Rng,
}

impl DiscreteGaussian {
    /// A sampler of parameter at least `sigma` (`σ²` is rounded up), from 1/32 to 2^20, on the stream of `seed`.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for a parameter out of range.
    pub fn new(sigma: f64, seed: [u8; 32]) -> Result<Self, ProtectionError> {
        if !((1.0 / 32.0)..=f64::from(1 << 20)).contains(&sigma) {
            return Err(ProtectionError::setting(
                STAGE,
                "sigma",
                sigma,
                "1/32 to 2^20 in integer steps",
                "change the granularity",
            ));
        }
        let numerator = (sigma * sigma * DENOMINATOR as f64).ceil() as u128;
        Ok(Self {
            numerator,
            scale: (numerator as f64 / DENOMINATOR as f64).sqrt().floor() as u64 + 1,
            rng: ChaCha20Rng::from_seed(seed),
        })
    }

    /// The parameter after rounding.
    pub fn sigma(&self) -> f64 {
        (self.numerator as f64 / DENOMINATOR as f64).sqrt()
    }

    fn below(&mut self, bound: u128) -> u128 {
        if let Ok(bound) = u64::try_from(bound) {
            let zone = u64::MAX - (u64::MAX - bound + 1) % bound;
            loop {
                let x = self.rng.next_u64();
                if x <= zone {
                    return u128::from(x % bound);
                }
            }
        }
        let zone = u128::MAX - (u128::MAX - bound + 1) % bound;
        loop {
            let x = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
            if x <= zone {
                return x % bound;
            }
        }
    }

    /// 1 with probability `exp(−top/bottom)` (algorithm 1).
    fn bernoulli_exp(&mut self, mut top: u128, bottom: u128) -> bool {
        while top > bottom {
            if !self.bernoulli_exp_unit(1, 1) {
                return false;
            }
            top -= bottom;
        }
        self.bernoulli_exp_unit(top, bottom)
    }

    /// The same for `top ≤ bottom`: von Neumann's series.
    fn bernoulli_exp_unit(&mut self, top: u128, bottom: u128) -> bool {
        let mut k = 1;
        while self.below(bottom * k) < top {
            k += 1;
        }
        k % 2 == 1
    }

    /// A discrete Laplace value of integer scale (algorithm 2).
    fn laplace(&mut self) -> i64 {
        let scale = u128::from(self.scale);
        loop {
            let u = self.below(scale);
            if !self.bernoulli_exp_unit(u, scale) {
                continue;
            }
            let mut v = 0u64;
            while self.bernoulli_exp_unit(1, 1) {
                v += 1;
            }
            let x = (u as u64).saturating_add(self.scale.saturating_mul(v));
            let negative = self.rng.next_u32() & 1 == 1;
            if negative && x == 0 {
                continue;
            }
            let x = i64::try_from(x).unwrap_or(i64::MAX);
            return if negative { -x } else { x };
        }
    }

    /// One value (algorithm 3): accepts a Laplace value `y` with probability `exp(−(|y| − σ²/t)² / 2σ²)`.
    pub fn sample(&mut self) -> i64 {
        let t = u128::from(self.scale);
        loop {
            let y = self.laplace();
            // |y| beyond 2^40 has probability below e^(−2^19) and would overflow below.
            if y.unsigned_abs() >= 1 << 40 {
                continue;
            }
            // With σ² = n/d: (|y| d t − n)² / (2 n d t²).
            let difference =
                (u128::from(y.unsigned_abs()) * DENOMINATOR * t).abs_diff(self.numerator);
            let Some(top) = difference.checked_mul(difference) else {
                continue;
            };
            let bottom = 2 * self.numerator * DENOMINATOR * t * t;
            if top / bottom > 200 {
                // Accepted with probability below e^-200.
                continue;
            }
            if self.bernoulli_exp(top, bottom) {
                return y;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frequencies_are_those_of_the_distribution() {
        for sigma in [0.3, 1.0, 2.7, 9.0] {
            let mut sampler = DiscreteGaussian::new(sigma, [8; 32]).unwrap();
            let two = 2.0 * sampler.sigma().powi(2);
            let reach = (6.0 * sigma).ceil() as i64 + 1;
            let norm: f64 = (-10 * reach..=10 * reach)
                .map(|x| (-(x * x) as f64 / two).exp())
                .sum();
            let n = 100_000;
            let mut counts = std::collections::BTreeMap::<i64, f64>::new();
            for _ in 0..n {
                *counts.entry(sampler.sample()).or_default() += 1.0;
            }
            let (mut chi, mut df) = (0.0, 0.0f64);
            for x in -reach..=reach {
                let expected = f64::from(n) * (-(x * x) as f64 / two).exp() / norm;
                if expected > 10.0 {
                    chi += (counts.get(&x).copied().unwrap_or(0.0) - expected).powi(2) / expected;
                    df += 1.0;
                }
            }
            assert!(
                chi < df + 5.0 * (2.0 * df).sqrt() + 3.0,
                "sigma {sigma}: {chi} at {df}"
            );
        }
    }

    #[test]
    fn wide_ones_have_the_right_moments() {
        let mut sampler = DiscreteGaussian::new(5000.0, [3; 32]).unwrap();
        let n = 40_000;
        let values: Vec<f64> = (0..n).map(|_| sampler.sample() as f64 / 5000.0).collect();
        let mean = values.iter().sum::<f64>() / f64::from(n);
        let variance = values.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        assert!(
            mean.abs() < 0.025 && (variance - 1.0).abs() < 0.04,
            "{mean} {variance}"
        );
        assert!(DiscreteGaussian::new(0.0, [0; 32]).is_err());
        assert!(DiscreteGaussian::new(f64::NAN, [0; 32]).is_err());
    }
}
