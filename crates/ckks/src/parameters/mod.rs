//! Parameters twice: the *literal* a person writes, and the *checked* form made from it.
//!
//! The modulus chain, bottom to top (limb 0 first):
//!
//! ```text
//! q0 | StC primes | user primes | EvalMod primes | CtS primes          and, outside the chain, the special primes P
//! ```
//!
//! *Level* `l` means the limbs `q_0..=q_l`. User work happens from [`Parameters::top_user_level`] (where a bootstrapping ends) down to
//! [`Parameters::bottom_user_level`] (where the next one, SlotsToCoeffs, begins).

mod literal;

pub use literal::ParametersLiteral;

use crate::error::CkksError;
use crate::security::{KeyDescription, SecretDistribution, check_128};
use std::collections::BTreeMap;
use std::sync::Arc;
use tacit_ring::{Modulus, ntt_primes};

/// More limbs than any sensible chain: bounds allocations on outside input.
const MAX_LIMBS: usize = 96;

struct Inner {
    literal: ParametersLiteral,
    q: Vec<Modulus>,
    p: Vec<Modulus>,
    log_qp: f64,
    fingerprint: [u8; 32],
    insecure: bool,
}

/// Checked parameters: primes chosen, sizes consistent, and (unless made by [`InsecureParameters`]) every key kind below its 128-bit ceiling.
///
/// Cheap to clone (shared inside).
///
/// ```
/// use tacit_ckks::parameters::Parameters;
/// let parameters = Parameters::default_128();
/// assert_eq!((parameters.n(), parameters.max_level(), parameters.alpha()), (65536, 26, 9));
/// assert!(parameters.log_qp() < 1747.0);
/// ```
#[derive(Clone)]
pub struct Parameters(Arc<Inner>);

impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parameters")
            .field("literal", self.literal())
            .field("log_qp", &self.log_qp())
            .field("insecure", &self.is_insecure())
            .finish()
    }
}

impl PartialEq for Parameters {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || self.0.fingerprint == other.0.fingerprint
    }
}

impl Eq for Parameters {}

/// The door for parameters below 128 bits of security: small rings in tests. The result is marked, and key generators report the mark.
pub struct InsecureParameters;

impl InsecureParameters {
    /// Like [`Parameters::new`] without the security ceilings.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] for a literal that cannot work at all.
    #[allow(clippy::new_ret_no_self)]
    pub fn new(literal: ParametersLiteral) -> Result<Parameters, CkksError> {
        Parameters::build(literal, true)
    }
}

impl Parameters {
    /// Checks a literal, picks its primes and verifies the 128-bit ceilings of every key kind it implies: keys under the main secret (modulus
    /// `QP`), under the ephemeral sparse secret (`q_0` times one special prime), and under the small ring's secret (`q_0`).
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] or [`CkksError::AboveCeiling`].
    pub fn new(literal: ParametersLiteral) -> Result<Self, CkksError> {
        Self::build(literal, false)
    }

    /// The default preset: see [`ParametersLiteral::default_128`].
    pub fn default_128() -> Self {
        Self::new(ParametersLiteral::default_128())
            .expect("the default preset is valid: a test asserts it")
    }

    fn build(literal: ParametersLiteral, insecure: bool) -> Result<Self, CkksError> {
        validate(&literal)?;
        let n = 1usize << literal.log_n;
        let chain_bits = literal.chain_bits();

        // Count the primes of each size, generate each size once, and deal them out in order.
        let mut needed: BTreeMap<u32, usize> = BTreeMap::new();
        for &bits in chain_bits.iter().chain(&literal.special_bits) {
            *needed.entry(bits).or_default() += 1;
        }
        let mut pools = BTreeMap::new();
        let mut taken: Vec<u64> = Vec::new();
        for (&bits, &count) in needed.iter().rev() {
            let primes = ntt_primes(bits, n, count, &taken)?;
            taken.extend(&primes);
            pools.insert(bits, primes.into_iter());
        }
        let mut deal = |bits: &[u32]| -> Result<Vec<Modulus>, CkksError> {
            bits.iter()
                .map(|b| {
                    let prime = pools.get_mut(b).and_then(Iterator::next).ok_or_else(|| {
                        CkksError::InvalidParameters {
                            field: "bits",
                            found: format!("no prime of {b} bits left"),
                            expected: "a size with enough primes".into(),
                        }
                    })?;
                    Ok(Modulus::new(prime)?)
                })
                .collect()
        };
        let q = deal(&chain_bits)?;
        let p = deal(&literal.special_bits)?;

        let log_qp = log2_product(&q) + log2_product(&p);
        let log_p = log2_product(&p);
        for (digit, limbs) in q.chunks(p.len()).enumerate() {
            let log_digit = log2_product(limbs);
            if log_digit > log_p + 1.0 {
                return Err(CkksError::InvalidParameters {
                    field: "special_bits",
                    found: format!("a product of {log_p:.1} bits, less than digit {digit} of the chain with {log_digit:.1} bits"),
                    expected: "special primes whose product is at least as large as every digit; make them larger".into(),
                });
            }
        }
        if !insecure {
            let description = |name: &str, ring_dimension, log2_modulus, secret| KeyDescription {
                name: name.into(),
                ring_dimension,
                log2_modulus,
                secret,
            };
            check_128(&description(
                "keys under the main secret",
                n,
                log_qp,
                SecretDistribution::DenseTernary,
            ))?;
            let log_q0 = log2_product(&q[..1]);
            if literal.ephemeral_weight > 0 {
                let log_q0p = log_q0 + log2_product(&p[..1]);
                check_128(&description(
                    "keys under the ephemeral secret",
                    n,
                    log_q0p,
                    SecretDistribution::FixedWeight(literal.ephemeral_weight),
                ))?;
            }
            check_128(&description(
                "the ring-switch key",
                1 << literal.small_log_n,
                log_q0,
                SecretDistribution::DenseTernary,
            ))?;
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tacit-ckks parameters 1");
        hasher.update(&literal.to_canonical_bytes());
        for m in q.iter().chain(&p) {
            hasher.update(&m.value().to_le_bytes());
        }
        let fingerprint = *hasher.finalize().as_bytes();
        Ok(Self(Arc::new(Inner {
            literal,
            q,
            p,
            log_qp,
            fingerprint,
            insecure,
        })))
    }

    /// The literal these were made from.
    pub fn literal(&self) -> &ParametersLiteral {
        &self.0.literal
    }

    /// Ring dimension `N`.
    pub fn n(&self) -> usize {
        1 << self.0.literal.log_n
    }

    /// `log2` of the ring dimension.
    pub fn log_n(&self) -> u32 {
        self.0.literal.log_n
    }

    /// Number of complex slots, `N/2`.
    pub fn slots(&self) -> usize {
        self.n() / 2
    }

    /// The highest level: number of chain limbs minus one.
    pub fn max_level(&self) -> usize {
        self.0.q.len() - 1
    }

    /// Number of chain limbs.
    pub fn q_len(&self) -> usize {
        self.0.q.len()
    }

    /// Number of special primes.
    pub fn p_len(&self) -> usize {
        self.0.p.len()
    }

    /// Chain prime `q_i`. Panics if `i` is not below [`Self::q_len`].
    pub fn q(&self, i: usize) -> Modulus {
        self.0.q[i]
    }

    /// Special prime `p_i`. Panics if `i` is not below [`Self::p_len`].
    pub fn p(&self, i: usize) -> Modulus {
        self.0.p[i]
    }

    /// All chain primes, bottom to top.
    pub fn q_moduli(&self) -> &[Modulus] {
        &self.0.q
    }

    /// All special primes.
    pub fn p_moduli(&self) -> &[Modulus] {
        &self.0.p
    }

    /// Limbs in a digit of hybrid key switching (the number of special primes).
    pub fn alpha(&self) -> usize {
        self.0.p.len()
    }

    /// Number of digits at a level: `ceil((level + 1) / alpha)`.
    pub fn digits_at(&self, level: usize) -> usize {
        (level + 1).div_ceil(self.alpha())
    }

    /// Scale of user data, `2^log_user_scale`.
    pub fn user_scale(&self) -> f64 {
        (self.0.literal.log_user_scale as f64).exp2()
    }

    /// Level of a freshly bootstrapped ciphertext: q0, StC and user limbs are left.
    pub fn top_user_level(&self) -> usize {
        self.0.literal.stc_bits.len() + self.0.literal.user_bits.len()
    }

    /// Level at which SlotsToCoeffs begins: user work must not go below.
    pub fn bottom_user_level(&self) -> usize {
        self.0.literal.stc_bits.len()
    }

    /// `log2` of the product of all primes, from the primes themselves.
    pub fn log_qp(&self) -> f64 {
        self.0.log_qp
    }

    /// `log2(q_0 … q_level)`.
    pub fn log_q_at(&self, level: usize) -> f64 {
        log2_product(&self.0.q[..=level])
    }

    /// `log2(p_0 … p_{special-1})`.
    pub fn log_p_of(&self, special: usize) -> f64 {
        log2_product(&self.0.p[..special])
    }

    /// `log2` of the largest digit of a ciphertext at this level.
    pub fn log_largest_digit(&self, level: usize) -> f64 {
        self.0.q[..=level]
            .chunks(self.alpha())
            .map(log2_product)
            .fold(0.0, f64::max)
    }

    /// BLAKE3 of the literal and the primes: two parties work in one parameter set exactly when these agree.
    pub fn fingerprint(&self) -> [u8; 32] {
        self.0.fingerprint
    }

    /// Whether these came through [`InsecureParameters`].
    pub fn is_insecure(&self) -> bool {
        self.0.insecure
    }
}

/// `log2` of a product of primes.
pub(crate) fn log2_product(moduli: &[Modulus]) -> f64 {
    moduli.iter().map(|m| (m.value() as f64).log2()).sum()
}

fn validate(literal: &ParametersLiteral) -> Result<(), CkksError> {
    let refuse = |field, found: String, expected: &str| {
        Err(CkksError::InvalidParameters {
            field,
            found,
            expected: expected.into(),
        })
    };
    if !(4..=17).contains(&literal.log_n) {
        return refuse("log_n", literal.log_n.to_string(), "4 to 17");
    }
    if literal.small_log_n < 2 || literal.small_log_n > literal.log_n {
        return refuse("small_log_n", literal.small_log_n.to_string(), "2 to log_n");
    }
    let chain = literal.chain_bits();
    if let Some(bits) = chain
        .iter()
        .chain(&literal.special_bits)
        .find(|b| !(20..=50).contains(*b))
    {
        return refuse("bits", bits.to_string(), "primes of 20 to 50 bits");
    }
    if chain
        .iter()
        .chain(&literal.special_bits)
        .any(|&b| b < literal.log_n + 4)
    {
        return refuse(
            "bits",
            "a prime of fewer than log_n + 4 bits".into(),
            "larger primes, or a smaller ring",
        );
    }
    if literal.special_bits.is_empty() {
        return refuse(
            "special_bits",
            "no prime".into(),
            "at least one special prime",
        );
    }
    if chain.len() + literal.special_bits.len() > MAX_LIMBS {
        return refuse(
            "bits",
            format!("{} primes", chain.len() + literal.special_bits.len()),
            "at most 96 primes",
        );
    }
    if !(10..=60).contains(&literal.log_user_scale) {
        return refuse(
            "log_user_scale",
            literal.log_user_scale.to_string(),
            "10 to 60",
        );
    }
    if literal.ephemeral_weight > 1 << literal.log_n {
        return refuse(
            "ephemeral_weight",
            literal.ephemeral_weight.to_string(),
            "at most the ring dimension",
        );
    }
    if !(1..=25).contains(&literal.ring_switch_digit_bits) {
        return refuse(
            "ring_switch_digit_bits",
            literal.ring_switch_digit_bits.to_string(),
            "1 to 25",
        );
    }
    if literal.log_message_ratio >= literal.q0_bits {
        return refuse(
            "log_message_ratio",
            literal.log_message_ratio.to_string(),
            "less than q0_bits",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_preset_is_what_its_comment_says() {
        let p = Parameters::default_128();
        assert_eq!(
            (p.n(), p.slots(), p.max_level(), p.p_len(), p.alpha()),
            (65536, 32768, 26, 9, 9)
        );
        assert_eq!(
            (p.top_user_level(), p.bottom_user_level(), p.digits_at(26)),
            (16, 3, 3)
        );
        assert!((p.log_qp() - 1705.0).abs() < 0.01, "{}", p.log_qp());
        assert!(!p.is_insecure());
        let mut primes: Vec<u64> = p
            .q_moduli()
            .iter()
            .chain(p.p_moduli())
            .map(Modulus::value)
            .collect();
        assert!(primes.iter().all(|q| q % (2 * 65536) == 1 && *q < 1 << 50));
        primes.sort_unstable();
        primes.dedup();
        assert_eq!(primes.len(), 36);
        // The 50-bit primes go downward in the order q0, EvalMod, CtS, special.
        let fifty: Vec<u64> = [0]
            .into_iter()
            .chain(17..27)
            .map(|i| p.q(i).value())
            .chain(p.p_moduli().iter().map(Modulus::value))
            .collect();
        assert!(fifty.is_sorted_by(|a, b| a > b));
    }

    #[test]
    fn what_is_above_a_ceiling_is_refused() {
        let refused = |literal: ParametersLiteral| {
            matches!(
                Parameters::new(literal),
                Err(CkksError::AboveCeiling { .. })
            )
        };
        let default = ParametersLiteral::default_128();
        assert!(
            refused(ParametersLiteral {
                cts_bits: vec![50; 4],
                ..default.clone()
            }),
            "1755 > 1747"
        );
        assert!(refused(ParametersLiteral {
            log_n: 15,
            ..default.clone()
        }));
        assert!(
            refused(ParametersLiteral {
                ephemeral_weight: 22,
                ..default.clone()
            }),
            "100 > 59"
        );
        assert!(
            refused(ParametersLiteral {
                ephemeral_weight: 24,
                ..default.clone()
            }),
            "100 > 92"
        );
        assert!(
            refused(ParametersLiteral {
                small_log_n: 10,
                ..default.clone()
            }),
            "50 > 26"
        );
        assert!(Parameters::new(default).is_ok());
        let insecure = InsecureParameters::new(ParametersLiteral::default_chain(11)).unwrap();
        assert!(insecure.is_insecure());
    }

    #[test]
    fn literals_that_cannot_work_are_refused() {
        let base = ParametersLiteral::levelled(11, 4, 2);
        assert!(InsecureParameters::new(base.clone()).is_ok());
        for literal in [
            ParametersLiteral {
                log_n: 30,
                ..base.clone()
            },
            ParametersLiteral {
                special_bits: vec![],
                ..base.clone()
            },
            ParametersLiteral {
                special_bits: vec![45, 45],
                ..base.clone()
            },
            ParametersLiteral {
                user_bits: vec![51],
                ..base.clone()
            },
            ParametersLiteral {
                user_bits: vec![45; 200],
                ..base.clone()
            },
            ParametersLiteral {
                small_log_n: 12,
                ..base.clone()
            },
            ParametersLiteral {
                ring_switch_digit_bits: 0,
                ..base.clone()
            },
            ParametersLiteral {
                log_message_ratio: 50,
                ..base.clone()
            },
        ] {
            assert!(
                matches!(
                    InsecureParameters::new(literal.clone()),
                    Err(CkksError::InvalidParameters { .. })
                ),
                "{literal:?}"
            );
        }
    }

    #[test]
    fn canonical_bytes_round_trip() {
        let literal = ParametersLiteral::default_128();
        let bytes = literal.to_canonical_bytes();
        assert_eq!(
            ParametersLiteral::from_canonical_bytes(&bytes),
            Some(literal)
        );
        for len in 0..bytes.len() {
            assert_eq!(ParametersLiteral::from_canonical_bytes(&bytes[..len]), None);
        }
    }

    #[test]
    fn fingerprints_tell_parameters_apart() {
        let a = InsecureParameters::new(ParametersLiteral::levelled(11, 4, 2)).unwrap();
        let b = InsecureParameters::new(ParametersLiteral::levelled(11, 5, 2)).unwrap();
        assert_ne!(a.fingerprint(), b.fingerprint());
        assert_eq!(a, InsecureParameters::new(a.literal().clone()).unwrap());
    }
}
