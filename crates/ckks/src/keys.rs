//! Keys: secret, public, switching keys and the set of keys an evaluator works with.
//!
//! A **hybrid switching key** from `s_from` to `s_to` holds, for every digit `d` of the chain (`alpha` consecutive limbs), a pair over
//! `q_0..=q_level` and the special primes `p_0..p_{special-1}` (product `P`):
//!
//! ```text
//! b_d + a_d s_to = e_d + P g_d s_from,      g_d = 1 mod the limbs of digit d, 0 mod the other limbs of the chain
//! ```
//!
//! (Han and Ki, ePrint 2019/688.) Because `g_d` is defined residue by residue, a key made at one level works at every lower level by ignoring
//! the upper limbs. `a_d` is expanded from a 32-byte seed and never sent. In memory both are packed ([`PackedPoly`]): a key is read once in each
//! use, and a product with it takes as long as that reading.

use crate::context::Context;
use crate::error::CkksError;
use crate::parameters::{Parameters, log2_product};
use crate::security::{KeyDescription, SecretDistribution};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use tacit_ring::{PackedPoly, RnsPoly};
use zeroize::{Zeroize, Zeroizing};

/// A random name for a secret key, carried by everything made with it, so that mixing keys is an error instead of noise. Public.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 16]);

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyId({self})")
    }
}

/// A secret key. Its memory is wiped on drop; it has no `Debug` that prints it.
pub struct SecretKey {
    pub(crate) ctx: Arc<Context>,
    pub(crate) coefficients: Zeroizing<Vec<i8>>,
    /// Residues over all chain and all special primes, NTT form.
    pub(crate) residues: RnsPoly,
    pub(crate) distribution: SecretDistribution,
    pub(crate) id: KeyId,
}

impl SecretKey {
    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// The coefficients, each -1, 0 or 1.
    pub fn coefficients(&self) -> &[i8] {
        &self.coefficients
    }

    /// NTT residues modulo chain prime `q_i`.
    pub fn q_residues(&self, i: usize) -> &[u64] {
        self.residues.limb(i)
    }

    /// NTT residues modulo special prime `p_i`.
    pub fn p_residues(&self, i: usize) -> &[u64] {
        self.residues.limb(self.ctx.params().q_len() + i)
    }

    /// Residues over all chain primes and then all special primes, NTT form.
    pub fn residues(&self) -> &RnsPoly {
        &self.residues
    }

    /// How it was drawn.
    pub fn distribution(&self) -> SecretDistribution {
        self.distribution
    }

    /// Its public name.
    pub fn id(&self) -> KeyId {
        self.id
    }
}

impl Drop for SecretKey {
    fn drop(&mut self) {
        self.residues.as_mut_slice().zeroize();
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretKey")
            .field("id", &self.id)
            .field("distribution", &self.distribution)
            .finish_non_exhaustive()
    }
}

/// An encryption of zero over the whole chain: `b + a s = e`. Anyone can encrypt with it.
#[derive(Clone)]
pub struct PublicKey {
    pub(crate) ctx: Arc<Context>,
    pub(crate) b: RnsPoly,
    pub(crate) a: RnsPoly,
    pub(crate) seed: [u8; 32],
    /// Distribution of the secret: what protects this key.
    pub(crate) target: SecretDistribution,
    pub(crate) id: KeyId,
}

impl PublicKey {
    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Name of the secret key it belongs to.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// What its security depends on: it lives modulo the chain, without special primes.
    pub fn description(&self) -> KeyDescription {
        KeyDescription {
            name: "public encryption key".into(),
            ring_dimension: self.ctx.n(),
            log2_modulus: self.ctx.params().log_q_at(self.ctx.params().max_level()),
            secret: self.target,
        }
    }
}

/// Size of a switching key: the highest ciphertext level it serves, and how many of the special primes it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyShape {
    /// Highest level of ciphertexts it can switch.
    pub level: usize,
    /// Number of special primes: their product must be about the largest digit at that level.
    pub special: usize,
}

impl KeyShape {
    /// All levels, all special primes.
    pub fn full(params: &Parameters) -> Self {
        Self {
            level: params.max_level(),
            special: params.p_len(),
        }
    }

    /// The smallest number of special primes whose product reaches the largest digit at this level.
    pub fn minimal(params: &Parameters, level: usize) -> Self {
        let level = level.min(params.max_level());
        let needed = params.log_largest_digit(level);
        let special = (1..params.p_len())
            .find(|&s| params.log_p_of(s) >= needed)
            .unwrap_or(params.p_len());
        Self { level, special }
    }

    /// Bytes of a key of this shape in memory: two packed polynomials for each digit, without what aligns their limbs.
    pub fn bytes(&self, params: &Parameters) -> u64 {
        let chain = params.q_moduli().iter().take(self.level + 1);
        let bits: u64 = chain
            .chain(params.p_moduli().iter().take(self.special))
            .map(|q| u64::from(q.bits()))
            .sum();
        2 * params.digits_at(self.level) as u64 * params.n() as u64 * bits / 8
    }

    /// # Errors
    /// [`CkksError::KeyShape`] if the level or the number of special primes does not exist, or if the special primes are smaller (by
    /// more than one bit) than the largest digit: the key's error would then be multiplied by their ratio.
    pub fn check(&self, params: &Parameters) -> Result<(), CkksError> {
        let refuse = |reason: String| {
            Err(CkksError::KeyShape {
                level: self.level,
                special: self.special,
                reason,
            })
        };
        if self.level > params.max_level() {
            return refuse(format!("the chain ends at level {}", params.max_level()));
        }
        if self.special == 0 || self.special > params.p_len() {
            return refuse(format!(
                "there are 1 to {} special primes to choose",
                params.p_len()
            ));
        }
        let (digit, special) = (
            params.log_largest_digit(self.level),
            params.log_p_of(self.special),
        );
        if special + 1.0 < digit {
            return refuse(format!(
                "their product has {special:.1} bits, the largest digit {digit:.1}; use more special primes"
            ));
        }
        Ok(())
    }
}

/// What a switching key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyRole {
    /// From `s^2` to `s`.
    Relinearisation,
    /// For the automorphism `X -> X^g`.
    Galois(u64),
    /// Between two secrets; the number is the user's name for it.
    Switch(u32),
}

impl fmt::Display for KeyRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Relinearisation => f.write_str("relinearisation key"),
            Self::Galois(g) => write!(f, "Galois key of element {g}"),
            Self::Switch(number) => write!(f, "switching key {number}"),
        }
    }
}

/// A hybrid switching key (see the module page). Usable for every ciphertext level up to `level`.
///
/// The Galois key of element `g` switches from `s` to `s(X^{1/g})`: the automorphism is applied *after* the inner product, to two polynomials
/// instead of all digits.
#[derive(Clone)]
pub struct SwitchingKey {
    /// Highest ciphertext level.
    pub level: usize,
    /// Number of special primes.
    pub special: usize,
    /// What it is for.
    pub role: KeyRole,
    /// `(b_d, a_d)` over `q_0..=q_level, p_0..p_{special-1}`, NTT form.
    pub(crate) digits: Vec<(PackedPoly, PackedPoly)>,
    pub(crate) seed: [u8; 32],
    /// Distribution of the secret switched to: the one that protects this key.
    pub(crate) target: SecretDistribution,
    pub(crate) id: KeyId,
}

impl SwitchingKey {
    /// The shape.
    pub fn shape(&self) -> KeyShape {
        KeyShape {
            level: self.level,
            special: self.special,
        }
    }

    /// `(b_d, a_d)` of every digit.
    pub fn digits(&self) -> &[(PackedPoly, PackedPoly)] {
        &self.digits
    }

    /// Name of the secret key set it belongs to.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        self.digits.iter().map(|(b, a)| b.bytes() + a.bytes()).sum()
    }

    /// What its security depends on.
    pub fn description(&self, params: &Parameters) -> KeyDescription {
        let q = params
            .q_moduli()
            .get(..=self.level)
            .unwrap_or(params.q_moduli());
        let p = params
            .p_moduli()
            .get(..self.special)
            .unwrap_or(params.p_moduli());
        KeyDescription {
            name: self.role.to_string(),
            ring_dimension: params.n(),
            log2_modulus: log2_product(q) + log2_product(p),
            secret: self.target,
        }
    }

    /// Limb `j` of a polynomial over `q_0..=level, p…` is which limb of this key's polynomials.
    pub(crate) fn limb_at(&self, level: usize, j: usize) -> usize {
        if j <= level {
            j
        } else {
            self.level + j - level
        }
    }
}

/// The keys an evaluator works with.
pub struct EvaluationKeys {
    /// From `s^2` to `s`.
    pub relinearisation: SwitchingKey,
    /// By Galois element, possibly several shapes; the smallest one whose level suffices is picked.
    pub galois: BTreeMap<u64, Vec<SwitchingKey>>,
}

impl EvaluationKeys {
    /// A set with a relinearisation key and no Galois keys.
    pub fn new(relinearisation: SwitchingKey) -> Self {
        Self {
            relinearisation,
            galois: BTreeMap::new(),
        }
    }

    /// Adds a Galois key under the element of its role; other roles are ignored and handed back.
    pub fn insert(&mut self, key: SwitchingKey) -> Option<SwitchingKey> {
        let KeyRole::Galois(element) = key.role else {
            return Some(key);
        };
        let keys = self.galois.entry(element).or_default();
        keys.retain(|k| k.shape() != key.shape());
        keys.push(key);
        keys.sort_by_key(SwitchingKey::shape);
        None
    }

    /// The smallest Galois key of an element that serves a level, with exactly `special` special primes if given.
    pub fn galois_key(
        &self,
        element: u64,
        level: usize,
        special: Option<usize>,
    ) -> Option<&SwitchingKey> {
        let keys = self.galois.get(&element)?;
        keys.iter()
            .filter(|k| k.level >= level && special.is_none_or(|s| k.special == s))
            .min_by_key(|k| (k.special, k.level))
    }

    /// Every key with what its security depends on.
    pub fn descriptions(&self, params: &Parameters) -> Vec<KeyDescription> {
        std::iter::once(&self.relinearisation)
            .chain(self.galois.values().flatten())
            .map(|k| k.description(params))
            .collect()
    }

    /// Name of the secret key the set belongs to.
    pub fn id(&self) -> KeyId {
        self.relinearisation.id
    }

    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        std::iter::once(&self.relinearisation)
            .chain(self.galois.values().flatten())
            .map(SwitchingKey::bytes)
            .sum()
    }
}
