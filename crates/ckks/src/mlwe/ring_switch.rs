//! From the main secret to a small one: `s` of degree `N` to `s'(X^r)`, `s'` of degree `N'`, with digits and no special modulus.

use rand_core::CryptoRng;
use rayon::prelude::*;
use tacit_ring::{Modulus, RnsPoly, ops, sampling};
use zeroize::Zeroizing;

use super::{MlweContext, MlweError, MlweShape, RlweCoeff};
use crate::{KeyId, Parameters, key_generator::short_hex};

/// The ternary secret of the small ring. Only needed while keys are made; nobody keeps it.
pub(super) struct SmallSecret {
    pub(super) coefficients: Zeroizing<Vec<i8>>,
}

impl SmallSecret {
    /// Uniform in {-1, 0, 1}^N'.
    pub(super) fn generate(shape: &MlweShape, rng: &mut impl CryptoRng) -> Self {
        Self {
            coefficients: sampling::ternary(rng, shape.small_degree()),
        }
    }

    /// `s'(X^r)` as a polynomial of degree `N`.
    pub(super) fn embedded(&self, shape: &MlweShape) -> Zeroizing<Vec<i8>> {
        let mut out = Zeroizing::new(vec![0; shape.degree()]);
        for (i, &c) in self.coefficients.iter().enumerate() {
            out[i * shape.pieces()] = c;
        }
        out
    }

    /// `s'_j(X^k)`, `s'_j[t] = s'[j + k' t]`, as a polynomial of degree `N`.
    pub(super) fn component(&self, shape: &MlweShape, j: usize) -> Zeroizing<Vec<i8>> {
        let mut out = Zeroizing::new(vec![0; shape.degree()]);
        for t in 0..shape.tokens() {
            out[shape.features() * t] = self.coefficients[j + shape.rank() * t];
        }
        out
    }
}

/// Number of digits of `w` bits that hold a centred residue modulo `q`: `ceil((bits(q) + 1)/w)`, so that the last digit, which
/// takes what is left, is small.
pub(super) fn digit_count(q: &Modulus, digit_bits: u32) -> usize {
    (64 - q.value().leading_zeros() + 1).div_ceil(digit_bits) as usize
}

/// Key from `s` to `s'(X^r)`, modulo `q0` only.
///
/// Digit `i` is `(b_i, a_i)` in the transformed domain with `b_i + a_i * s'(X^r) = e_i + 2^{w i} * s  (mod q0)`. As an RLWE
/// key over the subring it has dimension `N'` and modulus `q0`: with a dense ternary `s'` at `N' = 2^11` at most 53 bits are
/// allowed, which leaves no room for a special modulus; the digits take its place.
#[derive(Clone)]
pub struct RingSwitchKey {
    pub(super) params: Parameters,
    pub(super) id: KeyId,
    pub(super) seed: [u8; 32],
    /// `(b_i, a_i)`; `a_i` is digit `i` of the seed's stream.
    pub(super) digits: Vec<[RnsPoly; 2]>,
}

impl RingSwitchKey {
    /// Makes the key for `secret` (the `N` ternary coefficients of `s`).
    ///
    /// # Errors
    /// [`MlweError::Length`] if `secret` does not have `N` entries.
    pub(super) fn generate(
        context: &MlweContext,
        secret: &[i8],
        id: KeyId,
        small: &SmallSecret,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, MlweError> {
        let (n, q) = (context.shape.degree(), context.q0());
        if secret.len() != n {
            return Err(MlweError::Length {
                what: "secret key",
                expected: n,
                found: secret.len(),
            });
        }
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let ntt_of = |s: &[i8]| {
            let mut out = Zeroizing::new(vec![0; n]);
            sampling::signed_to_residues_i8(q, s, &mut out);
            context.q().forward(&mut out);
            out
        };
        let mut from = ntt_of(secret);
        let to = ntt_of(&small.embedded(&context.shape));
        let gadget = q.reduce(1 << context.digit_bits());
        let digits = (0..digit_count(q, context.digit_bits()))
            .map(|i| {
                let a = context.context().uniform(&seed, i, 0, 0);
                let mut poly = RnsPoly::zero(n, 1);
                let b = poly.limb_mut(0);
                sampling::signed_to_residues_i32(q, &sampling::gaussian(rng, n), b);
                context.q().forward(b);
                ops::add_assign(q, b, &from);
                let mut product = Zeroizing::new(vec![0; n]);
                ops::mul(q, &mut product, a.limb(0), &to);
                ops::sub_assign(q, b, &product);
                ops::mul_scalar_assign(q, &mut from, gadget);
                [poly, a]
            })
            .collect();
        Ok(Self {
            params: context.params().clone(),
            id,
            seed,
            digits,
        })
    }

    fn check(&self, context: &MlweContext) -> Result<(), MlweError> {
        if self.params != *context.params() {
            return Err(MlweError::KeyMismatch {
                what: "ring-switch key",
                expected: describe(context.params()),
                found: describe(&self.params),
            });
        }
        Ok(())
    }
}

/// Parameters in a message.
pub(super) fn describe(params: &Parameters) -> String {
    let name = short_hex(&params.fingerprint());
    format!(
        "with parameters {name} (N = 2^{}, N' = 2^{})",
        params.log_n(),
        params.literal().small_log_n
    )
}

/// Balanced digits of the centred residues: `x = sum_i 2^{w i} d_i`, `d_i` in `[-2^{w-1}, 2^{w-1})`, the last takes the rest.
/// Written as residues, one polynomial for each digit.
fn decompose(q: &Modulus, digit_bits: u32, count: usize, x: &[u64]) -> Vec<Vec<u64>> {
    let mut digits = vec![vec![0u64; x.len()]; count];
    let (half, mask, modulus) = (
        1i64 << (digit_bits - 1),
        (1i64 << digit_bits) - 1,
        q.value() as i64,
    );
    let residue = |d: i64| (d + ((d >> 63) & modulus)) as u64;
    let mut rest: Vec<i64> = x.iter().map(|&x| q.centre(x)).collect();
    if let Some((last, others)) = digits.split_last_mut() {
        for digit in others {
            for (out, rest) in digit.iter_mut().zip(&mut rest) {
                let d = ((*rest + half) & mask) - half;
                *rest = (*rest - d) >> digit_bits;
                *out = residue(d);
            }
        }
        for (out, &rest) in last.iter_mut().zip(&rest) {
            *out = residue(rest);
        }
    }
    digits
}

impl MlweContext {
    /// Ring switch: from `b + a*s` to `b' + a'*s'(X^r)`, the same message. `L` transforms, `2L` products with the key, two
    /// transforms back; error [`super::noise::ring_switch`]. One key switch.
    ///
    /// # Errors
    /// [`MlweError::KeyMismatch`], [`MlweError::Length`] or [`MlweError::Residue`] if key or ciphertext are of other parameters.
    pub fn ring_switch(
        &self,
        key: &RingSwitchKey,
        input: &RlweCoeff,
    ) -> Result<RlweCoeff, MlweError> {
        key.check(self)?;
        let (n, q) = (self.shape.degree(), self.q0());
        input.check("input of the ring switch", n, q)?;
        let mut digits = decompose(q, self.digit_bits(), key.digits.len(), &input.a);
        digits.par_iter_mut().for_each(|d| self.q().forward(d));
        let digits: Vec<&[u64]> = digits.iter().map(Vec::as_slice).collect();
        let part = |which: usize| {
            let keys: Vec<&[u64]> = key.digits.iter().map(|d| d[which].limb(0)).collect();
            let mut out = vec![0; n];
            ops::inner_product(q, &mut out, &digits, &keys);
            self.q().inverse(&mut out);
            out
        };
        let (mut b, a) = rayon::join(|| part(0), || part(1));
        ops::add_assign(q, &mut b, &input.b);
        Ok(RlweCoeff { b, a })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_balanced_and_recompose() {
        let q = Modulus::new((1 << 50) - 27).unwrap();
        let x: Vec<u64> = (0..500u64)
            .map(|i| q.reduce(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3))
            .chain([0, 1, q.value() - 1, q.value() / 2, q.value() / 2 + 1])
            .collect();
        for w in [1, 3, 6, 7, 10, 30] {
            let count = digit_count(&q, w);
            let digits = decompose(&q, w, count, &x);
            for (i, &x) in x.iter().enumerate() {
                let mut sum = 0i128;
                for (j, d) in digits.iter().enumerate() {
                    let d = q.centre(d[i]);
                    assert!(d.abs() <= 1 << (w - 1), "digit {j} is {d} with {w} bits");
                    sum += i128::from(d) << (w as usize * j);
                }
                assert_eq!(sum, i128::from(q.centre(x)));
            }
        }
    }
}
