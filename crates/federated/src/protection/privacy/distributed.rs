//! The distributed discrete Gaussian mechanism: each client adds its part of the noise before secure aggregation, so that nobody holds a sum
//! without noise (Kairouz, Liu and Steinke, *The Distributed Discrete Gaussian Mechanism for Federated Learning with Secure Aggregation*, ICML 2021).
//!
//! ```text
//! client:  x → clip to c → scale by 1/γ → flatten by H·D/√d → round at random until the norm is ≤ Δ → + N_ℤ(0, σ²) → mod 2^k → secure aggregation
//! server:  centred residues → flatten back → × γ / clients
//! ```
//!
//! `H D` is a Hadamard matrix after random signs that all clients share: every coordinate becomes small, so that fewer bits wrap around less.
//! `Δ² = min{c²/γ² + d/4 + √(2 ln(1/β)) (c/γ + √d/2), (c/γ + √d)²}` (equation 3) bounds the norm after rounding. With `n` honest survivors the sum is
//! `ε²/2`-concentrated private, `ε = min{√(Δ²/(nσ²) + τd/2), Δ/(√n σ) + τ√d}`, `τ = 10 Σ_{k=1}^{n−1} e^{−2π²σ² k/(k+1)}` (theorem 1): a sum of
//! discrete Gaussians is not one, and `τ` says how far off it is.
//!
//! **Assumptions.** At least `honest` of the clients in the sum add their noise and keep it secret. One that does not costs privacy of
//! all in proportion; calibrate with survivors minus the colluders feared.

use super::STAGE;
use super::discrete_gaussian::DiscreteGaussian;
use super::event::{Event, Mechanism};
use crate::protection::ProtectionError;
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};
use std::f64::consts::PI;

/// Probability with which rounding may be repeated: it enters the norm bound, not the privacy.
const LOG_INVERSE_BETA: f64 = 0.5;

/// A distributed discrete Gaussian mechanism. All clients and the coordinator of a round hold the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct DistributedGaussian {
    dimension: usize,
    padded: usize,
    clip: f64,
    granularity: f64,
    sigma: f64,
    bits: u32,
    clients: usize,
    honest: usize,
    rotation_seed: [u8; 32],
}

impl DistributedGaussian {
    /// A mechanism for sums of up to `clients` updates of `dimension` coordinates, clipped to norm `clip`, in a ring modulo `2^bits`, such that
    /// the sum over at least `honest` noisy clients has noise of at least `noise_multiplier · clip` on every coordinate.
    ///
    /// The granularity `γ` is the smallest with which the sum stays inside `±2^(bits−1)` by six standard deviations (Kairouz et al., section 4.1).
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] if values are out of range, or if so few bits are left that rounding would cost more than a tenth of the noise.
    pub fn new(
        dimension: usize,
        clip: f64,
        noise_multiplier: f64,
        bits: u32,
        clients: usize,
        honest: usize,
        rotation_seed: [u8; 32],
    ) -> Result<Self, ProtectionError> {
        let refuse = |setting, found: String, expected: &str, remedy| {
            Err(ProtectionError::setting(
                STAGE, setting, found, expected, remedy,
            ))
        };
        if dimension == 0 || dimension > 1 << 30 {
            return refuse(
                "dimension",
                dimension.to_string(),
                "1 to 2^30",
                "send the update in parts",
            );
        }
        if !(clip > 0.0 && clip.is_finite()) {
            return refuse(
                "clip",
                clip.to_string(),
                "a positive number",
                "the median norm of a few updates",
            );
        }
        if !(noise_multiplier > 0.0 && noise_multiplier.is_finite()) {
            return refuse(
                "noise_multiplier",
                noise_multiplier.to_string(),
                "a positive number",
                "no noise is no privacy",
            );
        }
        if honest == 0 || honest > clients {
            return refuse(
                "honest",
                honest.to_string(),
                "1 to the number of clients",
                "count survivors minus feared colluders",
            );
        }
        if !(8..=32).contains(&bits) {
            return refuse("bits", bits.to_string(), "8 to 32", "use more bits");
        }
        let padded = dimension.next_power_of_two();
        let d = padded as f64;
        let n = clients as f64;
        // In units of γ = 1: standard deviation of a flattened coordinate of the sum plus noise of all clients, and what rounding adds.
        let local = noise_multiplier * clip / (honest as f64).sqrt();
        let spread = (n * n * clip * clip / d + n * local * local).sqrt();
        let room = 2f64.powi(bits as i32 - 1);
        // 6 √(spread²/γ² + n/4) ≤ room.
        let left = (room / 6.0).powi(2) - n / 4.0;
        if left <= 0.0 {
            return refuse(
                "bits",
                bits.to_string(),
                "room for the sum of so many clients",
                "use more bits",
            );
        }
        let mut granularity = spread / left.sqrt();
        // The sampler's range; finer than this gains nothing.
        granularity = granularity.max(local / f64::from(1 << 19));
        let sigma = local / granularity;
        if sigma < 0.5 {
            return refuse(
                "bits",
                bits.to_string(),
                "noise of at least half an integer step a client",
                "use more bits, fewer clients, or more noise",
            );
        }
        let mechanism = Self {
            dimension,
            padded,
            clip,
            granularity,
            sigma,
            bits,
            clients,
            honest,
            rotation_seed,
        };
        let inflation = mechanism.norm_bound() * granularity / clip;
        if inflation > 1.1 {
            return refuse(
                "bits",
                bits.to_string(),
                "a norm after rounding of at most 1.1 times the clipping norm",
                "use more bits or split the update",
            );
        }
        Ok(mechanism)
    }

    /// The length of encoded vectors: the dimension filled up to a power of two.
    pub fn encoded_len(&self) -> usize {
        self.padded
    }

    /// Bits of the ring.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The real size of an integer step.
    pub fn granularity(&self) -> f64 {
        self.granularity
    }

    /// `Δ`, the norm bound after rounding, in integer steps.
    pub fn norm_bound(&self) -> f64 {
        let (c, d) = (self.clip / self.granularity, self.padded as f64);
        let random = c * c + d / 4.0 + (2.0 * LOG_INVERSE_BETA).sqrt() * (c + 0.5 * d.sqrt());
        random.sqrt().min(c + d.sqrt())
    }

    /// The privacy of `steps` sums with every client present, or each with probability `sampling`.
    pub fn event(&self, sampling: f64, steps: u64) -> Event {
        let (n, sigma, d) = (self.honest as f64, self.sigma, self.padded as f64);
        let tau: f64 = 10.0
            * (1..self.honest)
                .map(|k| {
                    let k = k as f64;
                    (-2.0 * PI * PI * sigma * sigma * k / (k + 1.0)).exp()
                })
                .sum::<f64>();
        let norm = self.norm_bound();
        let epsilon = (norm * norm / (n * sigma * sigma) + tau * d / 2.0)
            .sqrt()
            .min(norm / (n.sqrt() * sigma) + tau * d.sqrt());
        Event {
            mechanism: Mechanism::Concentrated {
                rho: epsilon * epsilon / 2.0,
            },
            sampling,
            steps,
        }
    }

    /// What a client hands to secure aggregation. `secret` is fresh randomness of this client for this round.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for an update of another length or with values that are not finite.
    pub fn encode(&self, update: &[f32], secret: [u8; 32]) -> Result<Vec<u32>, ProtectionError> {
        if update.len() != self.dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "the update has {} coordinates, the mechanism {}",
                    update.len(),
                    self.dimension
                ),
                "all clients must train the same tensors",
            ));
        }
        let mut clipped = update.to_vec();
        super::central::clip(&mut clipped, self.clip)?;
        let mut x: Vec<f64> = clipped
            .iter()
            .map(|&v| f64::from(v) / self.granularity)
            .collect();
        x.resize(self.padded, 0.0);
        self.flatten(&mut x);
        let mut rng = ChaCha20Rng::from_seed(secret);
        let bound = self.norm_bound();
        let rounded = loop {
            let candidate: Vec<i64> = x
                .iter()
                .map(|&v| {
                    let unit = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                    v.floor() as i64 + i64::from(unit < v - v.floor())
                })
                .collect();
            let norm = candidate
                .iter()
                .map(|&v| v as f64 * v as f64)
                .sum::<f64>()
                .sqrt();
            if norm <= bound {
                break candidate;
            }
        };
        let mut noise_seed = [0; 32];
        rng.fill_bytes(&mut noise_seed);
        let mut noise = DiscreteGaussian::new(self.sigma, noise_seed)?;
        let mask = u32::MAX >> (32 - self.bits);
        Ok(rounded
            .into_iter()
            .map(|v| (v + noise.sample()) as u32 & mask)
            .collect())
    }

    /// The noisy mean of `clients` updates from their sum modulo `2^bits`.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for a sum of another length or of more clients than planned.
    pub fn decode_mean(&self, sum: &[u32], clients: usize) -> Result<Vec<f32>, ProtectionError> {
        if sum.len() != self.padded || clients == 0 || clients > self.clients {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "a sum of {} coordinates from {clients} clients; {} from 1 to {} were planned",
                    sum.len(),
                    self.padded,
                    self.clients
                ),
                "use the mechanism of this round",
            ));
        }
        let shift = 32 - self.bits;
        let mut x: Vec<f64> = sum
            .iter()
            .map(|&v| f64::from((v << shift) as i32 >> shift))
            .collect();
        self.unflatten(&mut x);
        Ok(x[..self.dimension]
            .iter()
            .map(|v| (v * self.granularity / clients as f64) as f32)
            .collect())
    }

    fn signs(&self, x: &mut [f64]) {
        let mut rng = ChaCha20Rng::from_seed(self.rotation_seed);
        for chunk in x.chunks_mut(64) {
            let word = rng.next_u64();
            for (i, v) in chunk.iter_mut().enumerate() {
                if word >> i & 1 == 1 {
                    *v = -*v;
                }
            }
        }
    }

    fn flatten(&self, x: &mut [f64]) {
        self.signs(x);
        hadamard(x);
    }

    fn unflatten(&self, x: &mut [f64]) {
        hadamard(x);
        self.signs(x);
    }
}

/// The orthonormal Walsh-Hadamard transform, its own inverse.
fn hadamard(x: &mut [f64]) {
    let mut half = 1;
    while half < x.len() {
        for block in x.chunks_exact_mut(2 * half) {
            let (low, high) = block.split_at_mut(half);
            for (a, b) in low.iter_mut().zip(high) {
                (*a, *b) = (*a + *b, *a - *b);
            }
        }
        half *= 2;
    }
    let scale = 1.0 / (x.len() as f64).sqrt();
    x.iter_mut().for_each(|v| *v *= scale);
}

#[cfg(test)]
mod tests {
    use super::super::{Accounting, epsilon};
    use super::*;

    fn update(client: u64, dimension: usize) -> Vec<f32> {
        let mut rng = ChaCha20Rng::seed_from_u64(client);
        let v: Vec<f32> = (0..dimension)
            .map(|_| rng.next_u32() as f32 / u32::MAX as f32 - 0.4)
            .collect();
        let norm = v.iter().map(|x| x * x).sum::<f32>().sqrt();
        v.iter().map(|x| x / norm).collect()
    }

    #[test]
    fn the_sum_is_the_sum_plus_noise_of_the_stated_size() {
        let (n, d) = (12, 3000);
        let m = DistributedGaussian::new(d, 1.0, 0.8, 24, n, n, [2; 32]).unwrap();
        let mut sum = vec![0u32; m.encoded_len()];
        let mut mean = vec![0.0f64; d];
        for c in 0..n {
            let u = update(c as u64, d);
            for (s, v) in sum.iter_mut().zip(m.encode(&u, [c as u8 + 1; 32]).unwrap()) {
                *s = s.wrapping_add(v) & 0xff_ffff;
            }
            for (s, v) in mean.iter_mut().zip(&u) {
                *s += f64::from(*v) / n as f64;
            }
        }
        let got = m.decode_mean(&sum, n).unwrap();
        let off = got
            .iter()
            .zip(&mean)
            .map(|(a, b)| (f64::from(*a) - b).powi(2))
            .sum::<f64>()
            / d as f64;
        let expected = 0.8 / n as f64;
        assert!(
            (off.sqrt() / expected - 1.0).abs() < 0.06,
            "{} {expected}",
            off.sqrt()
        );
    }

    #[test]
    fn privacy_is_that_of_the_gaussian_and_degrades_with_missing_noise() {
        let at = |honest| {
            let m = DistributedGaussian::new(1 << 16, 1.0, 2.0, 24, 40, honest, [2; 32]).unwrap();
            epsilon(Accounting::Rdp, &[m.event(1.0, 10)], 1e-5).unwrap()
        };
        let gaussian = epsilon(Accounting::Rdp, &[Event::gaussian(2.0, 1.0, 10)], 1e-5).unwrap();
        assert!(
            at(40) >= gaussian && at(40) < 1.01 * gaussian,
            "{} {gaussian}",
            at(40)
        );
        // The same noise a client, calibrated for 40 but with 20 noisy ones.
        let mut m = DistributedGaussian::new(1 << 16, 1.0, 2.0, 24, 40, 40, [2; 32]).unwrap();
        m.honest = 20;
        assert!(epsilon(Accounting::Rdp, &[m.event(1.0, 10)], 1e-5).unwrap() > 1.3 * at(40));
        // Sampling helps.
        let sampled = epsilon(Accounting::Rdp, &[m.event(0.1, 10)], 1e-5).unwrap();
        assert!(sampled < 0.6 * at(40), "{sampled}");
    }

    #[test]
    fn too_few_bits_are_refused() {
        assert!(DistributedGaussian::new(1000, 1.0, 1.0, 8, 100, 100, [0; 32]).is_err());
        assert!(DistributedGaussian::new(1 << 20, 1.0, 1.0, 10, 100, 100, [0; 32]).is_err());
        assert!(DistributedGaussian::new(1000, 1.0, 1.0, 20, 100, 101, [0; 32]).is_err());
        let m = DistributedGaussian::new(1000, 1.0, 1.0, 20, 10, 8, [0; 32]).unwrap();
        assert!(m.encode(&[0.0; 999], [0; 32]).is_err());
        assert!(m.encode(&vec![f32::INFINITY; 1000], [0; 32]).is_err());
        assert!(m.decode_mean(&vec![0; 1024], 11).is_err());
    }
}
