//! Seeded randomness: one independent stream per purpose, so that nothing depends on the order in which things run.

use rand_chacha::ChaCha12Rng;
use rand_core::{RngCore, SeedableRng};

/// A generator for one purpose: the seed is BLAKE3 of the run's seed, the purpose and the numbers (round, client, …).
///
/// For sampling, initial values and rounding. Keys, masks and noise that protect someone come from the operating system.
pub fn stream(seed: u64, purpose: &str, numbers: &[u64]) -> ChaCha12Rng {
    let mut hasher = blake3::Hasher::new_derive_key("tacit federated 2026 seeded streams");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for n in numbers {
        hasher.update(&n.to_le_bytes());
    }
    ChaCha12Rng::from_seed(*hasher.finalize().as_bytes())
}

/// Uniform in (0, 1).
pub fn unit(rng: &mut impl RngCore) -> f64 {
    ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64
}

/// Uniform in `0..n`.
pub fn below(rng: &mut impl RngCore, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Standard normal (Box-Muller).
pub fn normal(rng: &mut impl RngCore) -> f64 {
    let (u, v) = (unit(rng), unit(rng));
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

/// A random order of `0..n` (Fisher-Yates).
pub fn permutation(rng: &mut impl RngCore, n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, below(rng, i + 1));
    }
    order
}

/// Gamma with shape `k` and scale 1 (Marsaglia and Tsang 2000; for `k < 1` boosted by `u^(1/k)`).
fn gamma(rng: &mut impl RngCore, k: f64) -> f64 {
    if k < 1.0 {
        let u = unit(rng);
        return gamma(rng, k + 1.0) * u.powf(1.0 / k);
    }
    let d = k - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        let x = normal(rng);
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && unit(rng).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
            return d * v;
        }
    }
}

/// A point of the symmetric Dirichlet distribution over `n` shares with concentration `alpha`.
pub fn dirichlet(rng: &mut impl RngCore, n: usize, alpha: f64) -> Vec<f64> {
    let draws: Vec<f64> = (0..n).map(|_| gamma(rng, alpha)).collect();
    let sum: f64 = draws.iter().sum();
    if sum <= 0.0 {
        // All shares underflowed: the limit of tiny alpha puts everything on one.
        let mut one = vec![0.0; n];
        let i = below(rng, n);
        one[i] = 1.0;
        return one;
    }
    draws.into_iter().map(|x| x / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_repeat_and_differ_by_every_label() {
        let first =
            |seed, purpose: &str, numbers: &[u64]| stream(seed, purpose, numbers).next_u64();
        assert_eq!(first(1, "a", &[2]), first(1, "a", &[2]));
        let all = [
            first(1, "a", &[2]),
            first(2, "a", &[2]),
            first(1, "b", &[2]),
            first(1, "a", &[3]),
            first(1, "a", &[2, 0]),
        ];
        for i in 0..all.len() {
            assert!(!all[..i].contains(&all[i]));
        }
    }

    #[test]
    fn distributions_have_their_moments() {
        let mut rng = stream(3, "moments", &[]);
        let n = 20_000;
        for k in [0.3, 1.0, 4.5] {
            let xs: Vec<f64> = (0..n).map(|_| gamma(&mut rng, k)).collect();
            let mean = xs.iter().sum::<f64>() / f64::from(n);
            let var = xs.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / f64::from(n);
            assert!((mean - k).abs() < 0.05 * k + 0.01, "{k}: {mean}");
            assert!((var - k).abs() < 0.12 * k, "{k}: {var}");
        }
        let (mut concentrated, mut spread) = (0.0, 0.0);
        for _ in 0..200 {
            let max = |v: Vec<f64>| v.into_iter().fold(0.0, f64::max);
            concentrated += max(dirichlet(&mut rng, 10, 0.05)) / 200.0;
            spread += max(dirichlet(&mut rng, 10, 50.0)) / 200.0;
        }
        assert!(
            concentrated > 0.8 && spread < 0.2,
            "{concentrated} {spread}"
        );
        let tiny = dirichlet(&mut rng, 4, 1e-300);
        assert!((tiny.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        let mut p = permutation(&mut rng, 100);
        assert_ne!(p, (0..100).collect::<Vec<_>>());
        p.sort_unstable();
        assert_eq!(p, (0..100).collect::<Vec<_>>());
    }
}
