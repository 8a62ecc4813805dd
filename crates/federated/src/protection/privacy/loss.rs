//! The privacy loss accountant: distributions of the privacy loss on a grid, composed by FFT.
//!
//! For a pair `P, Q` the loss is `L = ln dP/dQ` under `P`, and `δ(ε) = E[(1 − e^{ε − L})_+]`. A distribution on the grid `h ℤ` that has
//! the same `δ(ε)` at all grid points and interpolates it between them ("connect the dots", Doroshenko et al. 2022) is an upper bound of the
//! true one, and so is every composition of such distributions. A cell `(ε_j, ε_{j+1}]` with masses `p` under `P` and `r` under `Q` puts
//! `(p − r e^{ε_j}) / (1 − e^{−h})` on `ε_{j+1}` and the rest of `p` on `ε_j`: both masses are kept.

use super::STAGE;
use super::renyi::check_delta;
use crate::protection::ProtectionError;
use realfft::RealFftPlanner;
use realfft::num_complex::Complex;

/// Mass that truncation may move to an infinite loss, on each side of each composition.
const TAIL: f64 = 1e-16;
/// Longest transform.
const MAX_POINTS: usize = 1 << 23;

/// The distribution of a privacy loss on the grid `interval · ℤ`, with a mass at infinity.
#[derive(Clone, Debug, PartialEq)]
pub struct Pld {
    interval: f64,
    /// Grid index of the first mass.
    low: i64,
    masses: Vec<f64>,
    infinity: f64,
}

impl Pld {
    /// Of a release that says nothing.
    pub fn identity(interval: f64) -> Self {
        Self {
            interval,
            low: 0,
            masses: vec![1.0],
            infinity: 0.0,
        }
    }

    /// From cells: `cell(a, b)` gives the masses of a loss in `(a, b]` under `P` and `Q`. Losses below `low` are rounded up to it, losses
    /// above `high` become infinite.
    pub(crate) fn from_cells(
        interval: f64,
        low: f64,
        high: f64,
        cell: impl Fn(f64, f64) -> (f64, f64),
    ) -> Self {
        let first = (low / interval).floor() as i64;
        let last = ((high / interval).ceil() as i64).max(first + 1);
        let at = |j: i64| j as f64 * interval;
        let mut masses = vec![0.0; (last - first + 1) as usize];
        masses[0] = cell(f64::NEG_INFINITY, at(first)).0;
        let spread = -(-interval).exp_m1();
        for j in first..last {
            let (p, r) = cell(at(j), at(j + 1));
            let up = ((p - r * at(j).exp()) / spread).clamp(0.0, p);
            let i = (j - first) as usize;
            masses[i] += p - up;
            masses[i + 1] += up;
        }
        Self {
            interval,
            low: first,
            masses,
            infinity: cell(at(last), f64::INFINITY).0,
        }
    }

    /// From atoms `(loss, mass under P)`, whose masses under `Q` are `e^{−loss}` as much; `rest` is the mass that the list leaves out.
    pub(crate) fn from_atoms(interval: f64, atoms: &[(f64, f64)], rest: f64) -> Self {
        let index = |loss: f64| (loss / interval).floor() as i64;
        let first = atoms.iter().map(|a| index(a.0)).min().unwrap_or(0);
        let last = atoms.iter().map(|a| index(a.0)).max().unwrap_or(0) + 1;
        let mut masses = vec![0.0; (last - first + 1) as usize];
        for &(loss, p) in atoms {
            let j = index(loss);
            let up = p * (j as f64 * interval - loss).exp_m1() / (-interval).exp_m1();
            let i = (j - first) as usize;
            masses[i] += p - up;
            masses[i + 1] += up;
        }
        Self {
            interval,
            low: first,
            masses,
            infinity: rest,
        }
    }

    /// Distance between grid points.
    pub fn interval(&self) -> f64 {
        self.interval
    }

    fn loss(&self, i: usize) -> f64 {
        (self.low + i as i64) as f64 * self.interval
    }

    /// `(ln E[e^{λL}; L < ∞])` bounded from above by bins of many grid points at their worse end.
    fn log_moment(&self, lambda: f64) -> f64 {
        let bin = self.masses.len().div_ceil(2048);
        let mut most = f64::NEG_INFINITY;
        let terms: Vec<f64> = self
            .masses
            .chunks(bin)
            .enumerate()
            .filter_map(|(b, chunk)| {
                let mass: f64 = chunk.iter().sum();
                let end = if lambda > 0.0 {
                    b * bin + chunk.len() - 1
                } else {
                    b * bin
                };
                (mass > 0.0).then(|| mass.ln() + lambda * self.loss(end))
            })
            .inspect(|&t| most = most.max(t))
            .collect();
        most + terms.iter().map(|t| (t - most).exp()).sum::<f64>().ln()
    }

    /// The composition of each part with itself `count` times, and of all of these.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] if the parts' grids differ or the composed losses span more than 2^23 grid points.
    pub fn compose(parts: &[(&Self, u64)]) -> Result<Self, ProtectionError> {
        let parts: Vec<(&Self, u64)> = parts.iter().copied().filter(|p| p.1 > 0).collect();
        let Some(&(first, _)) = parts.first() else {
            return Ok(Self::identity(1e-4));
        };
        let interval = first.interval;
        if parts.iter().any(|p| p.0.interval != interval) {
            return Err(ProtectionError::setting(
                STAGE,
                "interval",
                interval,
                "the same grid for all parts",
                "make all distributions with one interval",
            ));
        }
        // Chernoff: P[Σ L > b] ≤ exp(Σ n K(λ) − λ b).
        let moments = |lambda: f64| -> f64 {
            parts
                .iter()
                .map(|(p, n)| *n as f64 * p.log_moment(lambda))
                .sum()
        };
        let (mut low_end, mut high_end) = parts.iter().fold((0.0, 0.0), |(l, h), (p, n)| {
            let n = *n as f64;
            (l + n * p.loss(0), h + n * p.loss(p.masses.len() - 1))
        });
        for step in -24..=24 {
            let lambda = (f64::from(step) / 2.0).exp2();
            high_end = f64::min(high_end, (moments(lambda) - TAIL.ln()) / lambda);
            low_end = f64::max(low_end, -(moments(-lambda) - TAIL.ln()) / lambda);
        }
        let low = (low_end / interval).floor() as i64;
        let high = ((high_end / interval).ceil() as i64).max(low);
        let points = (high - low + 1) as usize;
        if points > MAX_POINTS {
            return Err(ProtectionError::setting(
                STAGE,
                "interval",
                interval,
                format!("at most {MAX_POINTS} grid points, not {points}"),
                "use a wider grid, or more noise",
            ));
        }
        let size = points.next_power_of_two().max(2);
        let mut planner = RealFftPlanner::<f64>::new();
        let forward = planner.plan_fft_forward(size);
        let mut product = vec![Complex::new(1.0, 0.0); size / 2 + 1];
        let mut offset = 0i64;
        let mut log_finite = 0.0;
        for (part, count) in &parts {
            offset += part.low * *count as i64;
            log_finite += *count as f64 * (-part.infinity).ln_1p();
            let mut buffer = vec![0.0; size];
            for (i, m) in part.masses.iter().enumerate() {
                buffer[i % size] += m;
            }
            let mut spectrum = forward.make_output_vec();
            forward
                .process(&mut buffer, &mut spectrum)
                .expect("buffers of the planned lengths");
            for (x, y) in product.iter_mut().zip(&spectrum) {
                *x *= power(*y, *count);
            }
        }
        // A real signal's spectrum is real at both ends; repeated multiplication may leave a rounding error there.
        product[0].im = 0.0;
        product[size / 2].im = 0.0;
        let mut buffer = vec![0.0; size];
        planner
            .plan_fft_inverse(size)
            .process(&mut product, &mut buffer)
            .expect("buffers of the planned lengths");
        let masses: Vec<f64> = (0..points)
            .map(|i| {
                let at = (low + i as i64 - offset).rem_euclid(size as i64) as usize;
                (buffer[at] / size as f64).max(0.0)
            })
            .collect();
        Ok(Self {
            interval,
            low,
            masses,
            infinity: (-log_finite.exp_m1() + 2.0 * TAIL).min(1.0),
        })
    }

    /// `δ(ε)`.
    pub fn delta(&self, epsilon: f64) -> f64 {
        let finite: f64 = (0..self.masses.len())
            .filter(|&i| self.loss(i) > epsilon)
            .map(|i| -self.masses[i] * (epsilon - self.loss(i)).exp_m1())
            .sum();
        (self.infinity + finite).min(1.0)
    }

    /// The smallest `ε ≥ 0` with `δ(ε) ≤ delta`; infinite if the mass at infinity is above `delta`.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] unless `0 < delta < 1`.
    pub fn epsilon(&self, delta: f64) -> Result<f64, ProtectionError> {
        check_delta(delta)?;
        if self.infinity > delta {
            return Ok(f64::INFINITY);
        }
        // Downwards: above = Σ p, tilted = Σ p e^{−(loss − loss_i)} over the losses from loss_i up.
        let (mut above, mut tilted) = (0.0, 0.0);
        let decay = (-self.interval).exp();
        for i in (0..self.masses.len()).rev() {
            above += self.masses[i];
            tilted = self.masses[i] + tilted * decay;
            if self.infinity + above - decay * tilted >= delta {
                let excess = (self.infinity + above - delta) / tilted;
                return Ok((self.loss(i) + excess.ln()).max(0.0));
            }
            if self.loss(i) <= 0.0 {
                break;
            }
        }
        Ok(0.0)
    }
}

fn power(mut base: Complex<f64>, mut exponent: u64) -> Complex<f64> {
    let mut out = Complex::new(1.0, 0.0);
    while exponent > 0 {
        if exponent & 1 == 1 {
            out *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::loss_pairs::{Direction, gaussian};
    use super::*;

    /// `δ(ε) = Φ(−εσ + 1/2σ) − e^ε Φ(−εσ − 1/2σ)` (Balle and Wang 2018, theorem 8).
    fn exact_delta(sigma: f64, epsilon: f64) -> f64 {
        let phi = |x: f64| 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        phi(-epsilon * sigma + 0.5 / sigma) - epsilon.exp() * phi(-epsilon * sigma - 0.5 / sigma)
    }

    #[test]
    fn the_gaussian_mechanism_is_exact_alone_and_composed() {
        for (sigma, steps) in [(1.0, 1u64), (4.0, 16), (10.0, 400)] {
            let one = gaussian(sigma, 1.0, 1e-4, Direction::Remove);
            let all = Pld::compose(&[(&one, steps)]).unwrap();
            let total = sigma / (steps as f64).sqrt();
            for epsilon in [0.1, 1.0, 3.0, 6.0] {
                let (got, want) = (all.delta(epsilon), exact_delta(total, epsilon));
                assert!(
                    got >= want * (1.0 - 1e-9) && got <= want * (1.0 + 1e-3) + 1e-12,
                    "{sigma} {steps} {epsilon}: {got} {want}"
                );
                let back = all.epsilon(want.max(1e-14)).unwrap();
                assert!(
                    (back - epsilon).abs() < 2e-3 * epsilon || want < 1e-12,
                    "{back} {epsilon}"
                );
            }
        }
    }

    #[test]
    fn composition_of_different_parts_is_that_of_the_joint_noise() {
        let a = gaussian(2.0, 1.0, 1e-4, Direction::Add);
        let b = gaussian(3.0, 1.0, 1e-4, Direction::Add);
        let both = Pld::compose(&[(&a, 3), (&b, 5)]).unwrap();
        let total = 1.0 / (3.0f64 / 4.0 + 5.0 / 9.0).sqrt();
        assert!((both.delta(2.0) / exact_delta(total, 2.0) - 1.0).abs() < 1e-3);
        assert!(Pld::compose(&[(&a, 1), (&gaussian(3.0, 1.0, 2e-4, Direction::Add), 1)]).is_err());
    }

    #[test]
    fn randomised_response_by_hand() {
        // Losses ±ln 3 with masses 3/4 and 1/4; two of them: 2 ln 3, 0, −2 ln 3 with 9/16, 6/16, 1/16.
        let l = 3f64.ln();
        let one = Pld::from_atoms(1e-4, &[(l, 0.75), (-l, 0.25)], 0.0);
        let two = Pld::compose(&[(&one, 2)]).unwrap();
        let want = |e: f64| {
            9.0 / 16.0 * (1.0 - (e - 2.0 * l).exp()).max(0.0)
                + 6.0 / 16.0 * (1.0 - e.exp()).max(0.0)
        };
        for e in [0.0, 0.5, 1.0, 2.0] {
            assert!((two.delta(e) - want(e)).abs() < 1e-4, "{e}");
        }
        assert_eq!(two.epsilon(0.9).unwrap(), 0.0);
        let leaky = Pld::from_atoms(1e-4, &[(0.0, 0.99)], 0.01);
        assert_eq!(leaky.epsilon(1e-3).unwrap(), f64::INFINITY);
    }
}
