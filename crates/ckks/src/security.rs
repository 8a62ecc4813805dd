//! The 128-bit ceilings: which modulus a published key may have in which ring with which secret.
//!
//! A key is safe or not by three numbers: the ring dimension `N`, `log2` of the modulus the key lives under (with its special primes),
//! and the distribution of the secret. [`check_128`] knows no more than that, so every key that leaves the client is put through it by
//! its own numbers: a ceiling for dense secrets says nothing about a sparse one.
//!
//! Dense ternary: the table of the homomorphic-encryption security guidelines (Bossuat et al., ePrint 2024/463), recomputed with the
//! Lattice Estimator (primal, BDD and dual attacks, MATZOV cost model, sigma = 3.2). The older list 54, 109, 218, 438, 881, 1772 gives 125
//! to 126.5 bits in that model and is not used. Sparse ternary at `N = 2^16`: the strictest of three models (hybrid attacks,
//! Meet-LWE of ePrint 2022/1473, Meet-LWE reusing one lattice basis for all rotations of the secret).

use crate::error::CkksError;
use std::fmt;

/// How a secret polynomial is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SecretDistribution {
    /// Every coefficient uniform in `{-1, 0, 1}`.
    DenseTernary,
    /// Exactly this many coefficients are `+1` or `-1`, the others 0.
    FixedWeight(usize),
}

impl fmt::Display for SecretDistribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DenseTernary => f.write_str("dense ternary"),
            Self::FixedWeight(h) => write!(f, "sparse ternary (weight {h})"),
        }
    }
}

/// What the security of one published key depends on.
#[derive(Clone, Debug, PartialEq)]
pub struct KeyDescription {
    /// Name of the key, for lists and messages.
    pub name: String,
    /// Ring dimension `N`.
    pub ring_dimension: usize,
    /// `log2` of the whole modulus of the key, special primes included.
    pub log2_modulus: f64,
    /// Distribution of the secret that protects the key (the secret switched *to*).
    pub secret: SecretDistribution,
}

impl fmt::Display for KeyDescription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: N = {}, log2 modulus = {:.1}, {} secret",
            self.name, self.ring_dimension, self.log2_modulus, self.secret
        )
    }
}

/// `(log2 N, ceiling)` for dense ternary secrets.
const DENSE: [(u32, f64); 7] = [
    (10, 26.0),
    (11, 53.0),
    (12, 106.0),
    (13, 214.0),
    (14, 430.0),
    (15, 868.0),
    (16, 1747.0),
];

/// `(weight, ceiling)` for sparse ternary secrets at `N = 2^16`.
const SPARSE_2_16: [(usize, f64); 3] = [(22, 59.0), (24, 92.0), (32, 245.0)];

/// The largest `log2` modulus with 128-bit security; 0 where no estimate supports any modulus.
///
/// Rings larger than `2^16` get the ceiling of `2^16` (they are at least as hard; no larger figure has been computed here). A fixed
/// weight of at least `N/2` counts as dense; smaller weights have a ceiling from `N = 2^16` up only, at the nearest smaller weight tabulated.
pub fn ceiling_128(ring_dimension: usize, secret: SecretDistribution) -> f64 {
    let dense = |n: usize| {
        DENSE
            .iter()
            .rev()
            .find(|(log_n, _)| n >= 1 << log_n)
            .map_or(0.0, |(_, c)| *c)
    };
    match secret {
        SecretDistribution::DenseTernary => dense(ring_dimension),
        SecretDistribution::FixedWeight(h) if h <= ring_dimension && 2 * h >= ring_dimension => {
            dense(ring_dimension)
        }
        SecretDistribution::FixedWeight(h) if ring_dimension >= 1 << 16 => SPARSE_2_16
            .iter()
            .rev()
            .find(|(weight, _)| h >= *weight)
            .map_or(0.0, |(_, c)| *c),
        SecretDistribution::FixedWeight(_) => 0.0,
    }
}

/// Refuses a key whose modulus is above the 128-bit ceiling of its ring and secret.
///
/// # Errors
/// [`CkksError::AboveCeiling`] naming the key, its modulus and the ceiling.
///
/// ```
/// use tacit_ckks::security::{KeyDescription, SecretDistribution, check_128};
/// let key = KeyDescription { name: "relinearisation".into(), ring_dimension: 1 << 16, log2_modulus: 1705.0, secret: SecretDistribution::DenseTernary };
/// assert!(check_128(&key).is_ok());
/// assert!(check_128(&KeyDescription { secret: SecretDistribution::FixedWeight(32), ..key }).is_err());
/// ```
pub fn check_128(key: &KeyDescription) -> Result<(), CkksError> {
    let ceiling = ceiling_128(key.ring_dimension, key.secret);
    // Written so that NaN is refused too.
    if key.log2_modulus <= ceiling {
        return Ok(());
    }
    Err(CkksError::AboveCeiling {
        name: key.name.clone(),
        ring_dimension: key.ring_dimension,
        log2_modulus: key.log2_modulus,
        secret: key.secret.to_string(),
        ceiling,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ceilings_are_those_of_the_table() {
        use SecretDistribution::*;
        for (log_n, ceiling) in [
            (11, 53.0),
            (12, 106.0),
            (13, 214.0),
            (14, 430.0),
            (15, 868.0),
            (16, 1747.0),
            (17, 1747.0),
        ] {
            assert_eq!(ceiling_128(1 << log_n, DenseTernary), ceiling);
        }
        assert_eq!(ceiling_128(1 << 16, FixedWeight(32)), 245.0);
        assert_eq!(ceiling_128(1 << 16, FixedWeight(31)), 92.0);
        assert_eq!(ceiling_128(1 << 16, FixedWeight(21)), 0.0);
        assert_eq!(ceiling_128(1 << 15, FixedWeight(32)), 0.0);
        assert_eq!(ceiling_128(1 << 16, FixedWeight(1 << 15)), 1747.0);
        assert_eq!(ceiling_128(512, DenseTernary), 0.0);
    }

    #[test]
    fn old_ceilings_are_refused() {
        for (log_n, log_q) in [
            (11, 54.0),
            (12, 109.0),
            (13, 218.0),
            (14, 438.0),
            (15, 881.0),
            (16, 1772.0),
        ] {
            let key = KeyDescription {
                name: "key".into(),
                ring_dimension: 1 << log_n,
                log2_modulus: log_q,
                secret: SecretDistribution::DenseTernary,
            };
            assert!(
                matches!(check_128(&key), Err(CkksError::AboveCeiling { .. })),
                "{key}"
            );
        }
        let nan = KeyDescription {
            name: "key".into(),
            ring_dimension: 1 << 16,
            log2_modulus: f64::NAN,
            secret: SecretDistribution::DenseTernary,
        };
        assert!(check_128(&nan).is_err());
    }
}
