//! A prime modulus below 2^50 with the constants that make reduction cheap.

use crate::{RingError, primes::is_prime};

/// Largest number of bits of a modulus: four times a residue fits into the 52 bits that the vector unit multiplies.
pub const MAX_MODULUS_BITS: u32 = 50;

/// An odd prime `p < 2^50` and its reduction constants.
///
/// All arithmetic is on canonical residues, integers in `[0, p)`; in debug builds that is asserted. The running time
/// does not depend on the residues, except in [`Modulus::pow`], whose time depends on the exponent.
///
/// Products use Barrett reduction (Barrett, CRYPTO 1986) with the quotient cut to 52 bits: with `k = bits(p)`,
/// `t = ab >> (k-1)` and `mu = floor(2^(51+k) / p)`, the number `ab - p * (t*mu >> 52)` lies in `[0, 5p/2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modulus {
    value: u64,
    /// `bits(p) - 1`.
    shift: u32,
    /// `floor(2^(52 + shift) / p)`, below 2^52.
    mu: u64,
    /// `floor(2^64 / p)`.
    inv64: u64,
    /// `2^64 mod p`.
    r64: u64,
    /// `2^52 mod p`.
    r52: u64,
    /// `floor(r52 2^52 / p)`.
    r52_shoup: u64,
    /// `floor(2^52 / p)`.
    inv52: u64,
}

impl Modulus {
    /// Makes a modulus of an odd prime below 2^50.
    ///
    /// # Errors
    /// [`RingError::ModulusRange`] if the value is even, below 3, or 2^50 and more; [`RingError::NotPrime`].
    pub fn new(value: u64) -> Result<Self, RingError> {
        if value < 3 || value.is_multiple_of(2) || value >> MAX_MODULUS_BITS != 0 {
            return Err(RingError::ModulusRange(value));
        }
        if !is_prime(value) {
            return Err(RingError::NotPrime(value));
        }
        let p = u128::from(value);
        let shift = value.ilog2();
        let r52 = ((1u128 << 52) % p) as u64;
        Ok(Self {
            value,
            shift,
            mu: ((1u128 << (52 + shift)) / p) as u64,
            inv64: ((1u128 << 64) / p) as u64,
            r64: ((1u128 << 64) % p) as u64,
            r52,
            r52_shoup: ((u128::from(r52) << 52) / p) as u64,
            inv52: ((1u128 << 52) / p) as u64,
        })
    }

    /// The prime itself.
    #[inline]
    pub fn value(&self) -> u64 {
        self.value
    }

    /// Number of bits of the prime.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.shift + 1
    }

    /// What reduces a number given as two 52-bit halves: `2^52 mod p`, its Shoup quotient, and `floor(2^52 / p)`.
    #[cfg(target_arch = "x86_64")]
    #[inline]
    pub(crate) fn split_constants(&self) -> (u64, u64, u64) {
        (self.r52, self.r52_shoup, self.inv52)
    }

    /// One conditional subtraction, without a branch: `a < 2p` to `[0, p)`.
    #[inline(always)]
    pub(crate) fn reduce_once(&self, a: u64) -> u64 {
        let d = a.wrapping_sub(self.value);
        d.min(a)
    }

    /// `a + b mod p`.
    #[inline(always)]
    pub fn add(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.value && b < self.value);
        self.reduce_once(a + b)
    }

    /// `a - b mod p`.
    #[inline(always)]
    pub fn sub(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.value && b < self.value);
        let d = a.wrapping_sub(b);
        d.min(d.wrapping_add(self.value))
    }

    /// `-a mod p`.
    #[inline(always)]
    pub fn neg(&self, a: u64) -> u64 {
        debug_assert!(a < self.value);
        self.reduce_once(self.value - a)
    }

    /// `a * b mod p`.
    #[inline(always)]
    pub fn mul(&self, a: u64, b: u64) -> u64 {
        debug_assert!(a < self.value && b < self.value);
        self.reduce_product(u128::from(a) * u128::from(b))
    }

    /// Reduces a number below `p^2 + p`.
    #[inline(always)]
    pub(crate) fn reduce_product(&self, z: u128) -> u64 {
        let t = (z >> self.shift) as u64;
        let q = ((u128::from(t) * u128::from(self.mu)) >> 52) as u64;
        let r = (z as u64).wrapping_sub(q.wrapping_mul(self.value));
        self.reduce_once(self.reduce_once(r))
    }

    /// `a^e mod p`, with `0^0 = 1`. Time depends on `e`.
    pub fn pow(&self, a: u64, mut e: u64) -> u64 {
        let (mut base, mut acc) = (a, 1);
        while e > 0 {
            if e & 1 == 1 {
                acc = self.mul(acc, base);
            }
            base = self.mul(base, base);
            e >>= 1;
        }
        acc
    }

    /// `a^-1 mod p` by Fermat, `a^(p-2)`; zero has no inverse and gives zero.
    pub fn inv(&self, a: u64) -> u64 {
        self.pow(a, self.value - 2)
    }

    /// Any 64-bit number modulo `p`.
    #[inline(always)]
    pub fn reduce(&self, a: u64) -> u64 {
        let q = ((u128::from(a) * u128::from(self.inv64)) >> 64) as u64;
        self.reduce_once(a.wrapping_sub(q.wrapping_mul(self.value)))
    }

    /// Any 128-bit number modulo `p`.
    #[inline]
    pub fn reduce_u128(&self, a: u128) -> u64 {
        let high = self.mul(self.reduce((a >> 64) as u64), self.r64);
        self.add(high, self.reduce(a as u64))
    }

    /// A signed number modulo `p`, in `[0, p)`.
    #[inline]
    pub fn from_i64(&self, a: i64) -> u64 {
        let r = self.reduce(a.unsigned_abs());
        let n = self.neg(r);
        let mask = (a >> 63) as u64;
        (n & mask) | (r & !mask)
    }

    /// A signed 128-bit number modulo `p`, in `[0, p)`.
    #[inline]
    pub fn from_i128(&self, a: i128) -> u64 {
        let r = self.reduce_u128(a.unsigned_abs());
        let n = self.neg(r);
        let mask = (a >> 127) as u64;
        (n & mask) | (r & !mask)
    }

    /// The representative of least absolute value, in `[-(p-1)/2, (p-1)/2]`.
    #[inline]
    pub fn centre(&self, a: u64) -> i64 {
        debug_assert!(a < self.value);
        let above = u64::from(a > self.value / 2).wrapping_neg();
        a.wrapping_sub(self.value & above) as i64
    }

    /// Shoup's quotient `floor(w * 2^52 / p)` of a constant `w < p`: with it, `w*y - p*(w' * y >> 52)` is `w*y mod p`
    /// in `[0, 2p)` for every `y < 2^52` (Shoup, NTL; Harvey, arXiv 1205.2926).
    #[inline]
    pub(crate) fn shoup(&self, w: u64) -> u64 {
        ((u128::from(w) << 52) / u128::from(self.value)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moduli() -> Vec<Modulus> {
        let large = [40, 45, 50].map(|bits| crate::ntt_primes(bits, 1 << 16, 1, &[]).unwrap()[0]);
        [3, 97, 65_537]
            .into_iter()
            .chain(large)
            .map(|p| Modulus::new(p).unwrap())
            .collect()
    }

    #[test]
    fn arithmetic_agrees_with_wide_integers() {
        for m in moduli() {
            let p = m.value();
            let picks = [
                0,
                1,
                2,
                p / 2,
                p / 2 + 1,
                p - 2,
                p - 1,
                0x1234_5678_9abc_def1 % p,
            ];
            for &a in &picks {
                let a = a % p;
                for &b in &picks {
                    let b = b % p;
                    let wide = |x: u128| (x % u128::from(p)) as u64;
                    assert_eq!(m.add(a, b), wide(u128::from(a) + u128::from(b)));
                    assert_eq!(
                        m.sub(a, b),
                        wide(u128::from(a) + u128::from(p) - u128::from(b))
                    );
                    assert_eq!(m.mul(a, b), wide(u128::from(a) * u128::from(b)));
                }
                assert_eq!(m.add(a, m.neg(a)), 0);
                if a != 0 {
                    assert_eq!(m.mul(a, m.inv(a)), 1 % p);
                }
                let c = m.centre(a);
                assert!(c.unsigned_abs() <= p / 2);
                assert_eq!(m.from_i64(c), a);
            }
            for x in [0, 1, p, 2 * p - 1, u64::MAX, u64::MAX - 1, 1 << 63] {
                assert_eq!(m.reduce(x), x % p);
                assert_eq!(
                    m.from_i64(x as i64),
                    (i128::from(x as i64)).rem_euclid(i128::from(p)) as u64
                );
            }
            for x in [
                0,
                u128::MAX,
                u128::MAX - 7,
                1 << 127,
                1 << 100,
                u128::from(u64::MAX),
            ] {
                assert_eq!(m.reduce_u128(x), (x % u128::from(p)) as u64);
            }
            for x in [i128::MIN, i128::MAX, -1, -12_345_678_901_234_567_890] {
                assert_eq!(m.from_i128(x), m.from_i128(x.rem_euclid(i128::from(p))));
                assert_eq!(u128::from(m.from_i128(x)), {
                    let r = (x % i128::from(p) + i128::from(p)) % i128::from(p);
                    r as u128
                });
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_small_odd_prime() {
        assert_eq!(Modulus::new(0), Err(RingError::ModulusRange(0)));
        assert_eq!(Modulus::new(1 << 50), Err(RingError::ModulusRange(1 << 50)));
        assert_eq!(
            Modulus::new((1 << 50) + 1),
            Err(RingError::ModulusRange((1 << 50) + 1))
        );
        assert_eq!(Modulus::new(91), Err(RingError::NotPrime(91)));
    }
}
