//! Four residues in a register, and arithmetic on them in double precision.
//!
//! A residue is a double that holds an integer. With `p < 2^50`, `w` in `[-p/2, p/2]` and `|y| <= B p`, `B <= 4`:
//!
//! ```text
//! h = fl(w y)        l = fma(w, y, -h)              w y = h + l exactly (error-free product)
//! q = fl(fma(y, fl(w/p), M)) - M                    M = 1.5 2^52: rounds to the nearest integer
//! r = fl(fl(h - q p) + l)                           = w y - q p, exactly
//! ```
//!
//! `fl(w/p)` is off by at most `2^-53 |w/p|`, so `|q - w y/p| <= 1/2 + B/16` and `|r| <= (1/2 + B/16) p`. `h - q p` and the sum with
//! `l` (below 2^47) are integers below 2^53, which doubles hold: no rounding happens. Without `fl(w/p)`, from `h` and `fl(1/p)`, two
//! errors of that size add up: `|r| <= (1/2 + B/8) p` ([`VMod::mul_any`]).
//!
//! Nothing here is subnormal, infinite or not a number, so that the time does not depend on the values.

use std::arch::x86_64::*;

use crate::Modulus;

/// Residues in a register.
pub(super) const LANES: usize = 4;

/// Four doubles that hold integers.
pub(super) type F = __m256d;

/// Four 64-bit words.
pub(super) type I = __m256i;

/// `2^52`: between this and twice this a double's last bits are the integer above it.
const UNSIGNED: f64 = (1u64 << 52) as f64;

/// `1.5 2^52`: the same for integers of both signs below 2^51.
const SIGNED: f64 = (3u64 << 51) as f64;

/// Reads four words.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn load(words: &[u64; LANES]) -> I {
    // SAFETY: the reference is valid for 32 bytes; the load has no alignment requirement.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Writes four words.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn store(words: &mut [u64; LANES], v: I) {
    // SAFETY: the reference is valid for 32 bytes and exclusive; the store has no alignment requirement.
    unsafe { _mm256_storeu_si256(words.as_mut_ptr().cast(), v) }
}

/// The same double in all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn splat(x: f64) -> F {
    _mm256_set1_pd(x)
}

/// Words below 2^52 as doubles.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn to_double(x: I) -> F {
    let magic = splat(UNSIGNED);
    _mm256_sub_pd(
        _mm256_castsi256_pd(_mm256_or_si256(x, _mm256_castpd_si256(magic))),
        magic,
    )
}

/// Signed words below 2^51 in absolute value as doubles.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn signed_to_double(x: I) -> F {
    let magic = splat(SIGNED);
    _mm256_sub_pd(
        _mm256_castsi256_pd(_mm256_add_epi64(x, _mm256_castpd_si256(magic))),
        magic,
    )
}

/// A constant factor modulo `p`, centred, and its quotient by `p`.
#[derive(Clone, Copy)]
pub(super) struct Factor {
    pub(super) w: F,
    pub(super) quotient: F,
}

impl Factor {
    /// The factor `w < p`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn new(m: &Modulus, w: u64) -> Self {
        let (w, quotient) = factor(m, w);
        Self {
            w: splat(w),
            quotient: splat(quotient),
        }
    }
}

/// `w < p` centred as a double, and its quotient by `p`.
pub(super) fn factor(m: &Modulus, w: u64) -> (f64, f64) {
    let centred = m.centre(w) as f64;
    (centred, centred / m.value() as f64)
}

/// A modulus and its constants in all lanes.
#[derive(Clone, Copy)]
pub(super) struct VMod {
    /// `p`.
    pub(super) p: F,
    /// `1/p`, rounded.
    pub(super) inverse: F,
    /// `p` as a word.
    pub(super) word: I,
    signed: F,
}

impl VMod {
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn new(m: &Modulus) -> Self {
        let p = m.value() as f64;
        Self {
            p: splat(p),
            inverse: splat(1.0 / p),
            word: _mm256_set1_epi64x(m.value() as i64),
            signed: splat(SIGNED),
        }
    }

    /// `round(x y)` for `|x y| < 2^51`, with one rounding.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn round_product(&self, x: F, y: F) -> F {
        _mm256_sub_pd(_mm256_fmadd_pd(x, y, self.signed), self.signed)
    }

    /// `h + l - q p` for exact integers whose result, and whose `h - q p`, are below 2^53.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn remainder(&self, h: F, l: F, q: F) -> F {
        _mm256_add_pd(_mm256_fnmadd_pd(q, self.p, h), l)
    }

    /// `w y` in `[-(1/2 + B/16) p, (1/2 + B/16) p]` for `|y| <= B p`, `B <= 4`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn mul(&self, y: F, f: Factor) -> F {
        let q = self.round_product(y, f.quotient);
        let h = _mm256_mul_pd(y, f.w);
        self.remainder(h, _mm256_fmsub_pd(y, f.w, h), q)
    }

    /// `w y` in `[-(1/2 + B/4) p, (1/2 + B/4) p]` for `|w y| <= B p^2`, `B <= 2`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn mul_any(&self, y: F, w: F) -> F {
        let h = _mm256_mul_pd(y, w);
        let q = self.round_product(h, self.inverse);
        self.remainder(h, _mm256_fmsub_pd(y, w, h), q)
    }

    /// `w y + c` in `[-7/8 p, 7/8 p]` for canonical `w`, `y` and `c`: `q` comes from `fl(h + c)`, whose two errors and that of `1/p`
    /// make 3/8.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn mul_any_add(&self, y: F, w: F, c: F) -> F {
        let h = _mm256_mul_pd(y, w);
        let q = self.round_product(_mm256_add_pd(h, c), self.inverse);
        self.remainder(h, _mm256_add_pd(_mm256_fmsub_pd(y, w, h), c), q)
    }

    /// `w y + c` in `[-3/4 p, 3/4 p]` for canonical `y` and `c`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn mul_add(&self, y: F, f: Factor, c: F) -> F {
        let q = self.round_product_sum(y, f.quotient, c);
        let h = _mm256_mul_pd(y, f.w);
        self.remainder(h, _mm256_add_pd(_mm256_fmsub_pd(y, f.w, h), c), q)
    }

    /// `round(x y + c / p)`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn round_product_sum(&self, x: F, y: F, c: F) -> F {
        let quotient = _mm256_fmadd_pd(c, self.inverse, _mm256_mul_pd(x, y));
        _mm256_sub_pd(_mm256_add_pd(quotient, self.signed), self.signed)
    }

    /// `x` modulo `p` in `[-p/2, p/2]`, but for `2^-52 |x|`, for integers `|x| < 2^50`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn reduce(&self, x: F) -> F {
        let q = self.round_product(x, self.inverse);
        _mm256_fnmadd_pd(q, self.p, x)
    }

    /// `round(x / p)`, off by `2^-52 |x / p|` besides the rounding, for integers of any size.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn quotient(&self, x: F) -> F {
        _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(_mm256_mul_pd(
            x,
            self.inverse,
        ))
    }

    /// The canonical residue, as a double, of an integer in `(-p, p)`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn lift(&self, x: F) -> F {
        let negative = _mm256_cmp_pd::<_CMP_LT_OQ>(x, _mm256_setzero_pd());
        _mm256_add_pd(x, _mm256_and_pd(negative, self.p))
    }

    /// The canonical residue, as a word, of an integer in `(-p, p)`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn canonical(&self, x: F) -> I {
        let word = _mm256_sub_epi64(
            _mm256_castpd_si256(_mm256_add_pd(x, self.signed)),
            _mm256_castpd_si256(self.signed),
        );
        self.lift_word(word)
    }

    /// The canonical residue of a signed word in `[-p, p)`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn lift_word(&self, x: I) -> I {
        let lifted = _mm256_add_epi64(x, self.word);
        _mm256_castpd_si256(_mm256_blendv_pd(
            _mm256_castsi256_pd(x),
            _mm256_castsi256_pd(lifted),
            _mm256_castsi256_pd(x),
        ))
    }

    /// `a + b`, canonical.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn add(&self, a: I, b: I) -> I {
        self.lift_word(_mm256_add_epi64(a, _mm256_sub_epi64(b, self.word)))
    }

    /// `a - b`, canonical.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    pub(super) fn sub(&self, a: I, b: I) -> I {
        self.lift_word(_mm256_sub_epi64(a, b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::{Kernel, avx2::Avx2};

    /// Checks remainder and size of products with arguments at the ends of their ranges.
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn products(m: &Modulus) {
        let (v, p) = (VMod::new(m), m.value() as i64);
        let lanes = |x: F| {
            let mut words = [0; LANES];
            store(&mut words, _mm256_castpd_si256(x));
            words.map(f64::from_bits)
        };
        let around = |x: i64| (x - 3..=x + 3).chain((1..40).map(move |i| x / 41 * i));
        for w in around(p / 2)
            .chain(around(p - 4))
            .filter(|w| (0..p).contains(w))
        {
            let f = Factor::new(m, w as u64);
            for y in around(p).chain(around(2 * p - 3)).chain(around(4 * p - 3)) {
                for y in [y, -y] {
                    let check = |got: F, want: i128, bound: f64| {
                        for r in lanes(got) {
                            assert_eq!(r, r.trunc());
                            assert_eq!((want - r as i128).rem_euclid(p.into()), 0, "{w} {y} {p}");
                            assert!(r.abs() <= bound * p as f64, "{w} {y} {p}: {r}");
                        }
                    };
                    let (size, product) =
                        (y.abs() as f64 / p as f64, i128::from(w) * i128::from(y));
                    if size <= 4.0 {
                        check(v.mul(splat(y as f64), f), product, 0.5 + size / 16.0);
                        check(v.mul_any(splat(y as f64), f.w), product, 0.5 + size / 8.0);
                        check(v.reduce(splat(y as f64)), y.into(), 0.5 + 2f64.powi(-49));
                    }
                    if (0..p).contains(&y) {
                        for c in [0, 1, p / 2, p - 1] {
                            let (y, w, c) = (splat(y as f64), splat(w as f64), c);
                            let sum = product + i128::from(c);
                            check(v.mul_any_add(y, w, splat(c as f64)), sum, 0.875);
                            check(v.mul_add(y, f, splat(c as f64)), sum, 0.75);
                            let word = v.canonical(v.mul_any_add(y, w, splat(c as f64)));
                            assert!(
                                lanes(to_double(word))
                                    .iter()
                                    .all(|&r| r == sum.rem_euclid(p.into()) as f64)
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn products_are_exact_at_the_ends_of_their_ranges() {
        if Avx2::detect().is_none() {
            return;
        }
        let mut primes = vec![3, 5, 97, 65_537];
        primes.extend([30, 45, 49, 50].map(|bits| crate::ntt_primes(bits, 16, 1, &[]).unwrap()[0]));
        // The largest prime below 2^50.
        primes.extend((1..1 << 50).rev().find(|&x| crate::is_prime(x)));
        for p in primes {
            // SAFETY: the machine has the features, which `detect` checked.
            unsafe { products(&Modulus::new(p).unwrap()) };
        }
        assert_eq!(Avx2::detect().unwrap().name(), "avx2");
    }
}
