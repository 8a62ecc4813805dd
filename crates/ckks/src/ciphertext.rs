//! Plaintexts and ciphertexts: residues in NTT form with a level and a scale.

use tacit_ring::RnsPoly;

/// An encoded message: a polynomial `m` with `m ~ scale * message`.
#[derive(Clone)]
pub struct Plaintext {
    /// Residues modulo `q_0..=q_level`, NTT form.
    pub poly: RnsPoly,
    /// Level: `poly` has `level + 1` limbs.
    pub level: usize,
    /// The factor between message and polynomial.
    pub scale: f64,
}

/// An encryption of a plaintext under a secret `s`: `parts[0] + parts[1] s (+ parts[2] s^2) = m + e (mod q_0 … q_level)`.
///
/// Two parts, or three between a product and its relinearisation.
#[derive(Clone)]
pub struct Ciphertext {
    /// Two or three polynomials, residues modulo `q_0..=q_level`, NTT form.
    pub parts: Vec<RnsPoly>,
    /// Level: every part has `level + 1` limbs.
    pub level: usize,
    /// The factor between message and polynomial.
    pub scale: f64,
}

impl Ciphertext {
    /// Bytes of residues held in memory.
    pub fn bytes(&self) -> usize {
        self.parts.iter().map(|p| p.n() * p.limbs() * 8).sum()
    }
}

/// A ciphertext from which the uniform half has been left out: `a` is expanded from a seed. Half the size on the wire.
///
/// Only fresh symmetric encryptions have this form ([`crate::encrypt::encrypt_symmetric_seeded`]); [`crate::context::Context::expand`]
/// makes a [`Ciphertext`] of it.
#[derive(Clone)]
pub struct SeededCiphertext {
    /// `b = m + e - a s`, residues modulo `q_0..=q_level`, NTT form.
    pub b: RnsPoly,
    /// Seed of `a`.
    pub seed: [u8; 32],
    /// Level.
    pub level: usize,
    /// Scale.
    pub scale: f64,
}

/// `P` times a ciphertext, over the chain and the special primes: `b + a s = P (m + e)` modulo `q_0 … q_level p_0 … p_{special-1}`.
///
/// What a key switch has before its division by `P`. Sums and plaintext products of these cost one division (`mod-down`) for all of them:
/// the second hoisting of linear maps.
#[derive(Clone)]
pub struct LazyCiphertext {
    /// Residues modulo `q_0..=q_level` and then `p_0..p_{special-1}`, NTT form.
    pub b: RnsPoly,
    /// As `b`.
    pub a: RnsPoly,
    /// Level.
    pub level: usize,
    /// Number of special primes.
    pub special: usize,
    /// Scale of the ciphertext (without the factor `P`).
    pub scale: f64,
}
