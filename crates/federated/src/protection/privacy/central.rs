//! The central mechanism: clip each unit's update, sum, add Gaussian noise at the coordinator (McMahan et al. 2018, DP-FedAvg).
//!
//! The coordinator is trusted with the clipped updates (or, under secure aggregation, with their sum). The noise is drawn as 64-bit floating point;
//! against an adversary who studies the last bits of released values use [`super::distributed`], which is exact on integers.

use super::STAGE;
use crate::protection::ProtectionError;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Scales a vector to norm at most `max_norm` and gives the factor (1 if nothing was changed).
///
/// # Errors
/// [`ProtectionError::Setting`] for a bound that is not positive, [`ProtectionError::Input`] for a vector that is not finite.
pub fn clip(update: &mut [f32], max_norm: f64) -> Result<f64, ProtectionError> {
    if !(max_norm > 0.0 && max_norm.is_finite()) {
        return Err(ProtectionError::setting(
            STAGE,
            "max_norm",
            max_norm,
            "a positive number",
            "the median norm of a few updates is a good first value",
        ));
    }
    let norm = update
        .iter()
        .map(|&x| f64::from(x) * f64::from(x))
        .sum::<f64>()
        .sqrt();
    if !norm.is_finite() {
        return Err(ProtectionError::input(
            STAGE,
            "the update has values that are not finite",
            "lower the learning rate",
        ));
    }
    // Rounding of the scaled values to f32 must not lift the norm above the bound again.
    let target = max_norm * (1.0 - 1e-6);
    if norm <= target {
        return Ok(1.0);
    }
    let factor = target / norm;
    for x in update {
        *x = (f64::from(*x) * factor) as f32;
    }
    Ok(factor)
}

/// Gaussian noise from a ChaCha20 stream (Box and Muller).
pub struct GaussianNoise {
    rng: ChaCha20Rng,
    spare: Option<f64>,
}

impl GaussianNoise {
    /// Noise from the operating system's randomness: what a real run uses.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] if the operating system has none to give.
    pub fn new() -> Result<Self, ProtectionError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|e| {
            ProtectionError::input(
                STAGE,
                format!("the operating system gives no randomness: {e}"),
                "see its log",
            )
        })?;
        Ok(Self::from_known_seed(seed))
    }

    /// Noise that whoever knows the seed can take away again: for repeatable experiments only.
    pub fn from_known_seed(seed: [u8; 32]) -> Self {
        Self {
            rng: ChaCha20Rng::from_seed(seed),
            spare: None,
        }
    }

    /// A standard normal value.
    pub fn standard(&mut self) -> f64 {
        if let Some(x) = self.spare.take() {
            return x;
        }
        let mut unit = || (self.rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let r = (-2.0 * (1.0 - unit()).ln()).sqrt();
        let (sin, cos) = (std::f64::consts::TAU * unit()).sin_cos();
        self.spare = Some(r * sin);
        r * cos
    }

    /// Adds noise of standard deviation `sigma` to each value.
    pub fn add(&mut self, values: &mut [f32], sigma: f64) {
        for v in values {
            *v = (f64::from(*v) + sigma * self.standard()) as f32;
        }
    }
}

/// `(Σ x_i + noise_multiplier · max_norm · N(0, I)) / expected`, with `x_i` the updates clipped in place. `expected` is the expected number of units in
/// the sample, not the number that came: dividing by the latter would reveal it.
///
/// # Errors
/// As [`clip`]; [`ProtectionError::Setting`] for an expected number that is not positive; [`ProtectionError::Input`] for updates of unequal length.
pub fn noisy_mean(
    updates: &mut [Vec<f32>],
    dimension: usize,
    max_norm: f64,
    noise_multiplier: f64,
    expected: f64,
    noise: &mut GaussianNoise,
) -> Result<Vec<f32>, ProtectionError> {
    if !(expected > 0.0 && expected.is_finite()) {
        return Err(ProtectionError::setting(
            STAGE,
            "expected units",
            expected,
            "a positive number",
            "it is the sampling rate times the number of units",
        ));
    }
    let mut sum = vec![0.0f64; dimension];
    for (i, update) in updates.iter_mut().enumerate() {
        if update.len() != dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "update {i} has {} coordinates, the model {dimension}",
                    update.len()
                ),
                "all clients must train the same tensors",
            ));
        }
        clip(update, max_norm)?;
        for (s, &x) in sum.iter_mut().zip(update.iter()) {
            *s += f64::from(x);
        }
    }
    let sigma = noise_multiplier * max_norm;
    Ok(sum
        .into_iter()
        .map(|s| ((s + sigma * noise.standard()) / expected) as f32)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert, proptest};

    proptest! {
        #[test]
        fn clipped_vectors_are_within_the_bound(mut v in prop::collection::vec(-1e3f32..1e3, 1..50), bound in 1e-3f64..1e3) {
            let before = v.clone();
            let factor = clip(&mut v, bound).unwrap();
            let norm = v.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
            prop_assert!(norm <= bound);
            if factor == 1.0 {
                prop_assert!(v == before);
            }
        }
    }

    #[test]
    fn noise_has_the_stated_deviation() {
        let mut noise = GaussianNoise::from_known_seed([4; 32]);
        let mut updates = vec![vec![3.0f32, 4.0]; 2];
        let mean = noisy_mean(&mut updates, 2, 5.0, 1e-9, 4.0, &mut noise).unwrap();
        assert!((mean[0] - 1.5).abs() < 1e-5 && (mean[1] - 2.0).abs() < 1e-5);
        let n = 200_000;
        let values: Vec<f64> = (0..n).map(|_| noise.standard()).collect();
        let m = values.iter().sum::<f64>() / f64::from(n);
        let v = values.iter().map(|x| x * x).sum::<f64>() / f64::from(n);
        let k = values.iter().map(|x| x.powi(4)).sum::<f64>() / f64::from(n);
        assert!(m.abs() < 0.01 && (v - 1.0).abs() < 0.02 && (k - 3.0).abs() < 0.1);
        assert!(clip(&mut [f32::NAN], 1.0).is_err() && clip(&mut [1.0], 0.0).is_err());
    }
}
