//! Eight residues in a register, and arithmetic on them.

use std::arch::x86_64::*;

use crate::Modulus;

/// Eight 64-bit lanes.
pub(super) type V = __m512i;

/// Reads eight words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(words: &[u64; 8]) -> V {
    // SAFETY: the reference is valid for 64 bytes; the load has no alignment requirement.
    unsafe { _mm512_loadu_si512(words.as_ptr().cast()) }
}

/// Writes eight words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(words: &mut [u64; 8], v: V) {
    // SAFETY: the reference is valid for 64 bytes and exclusive; the store has no alignment requirement.
    unsafe { _mm512_storeu_si512(words.as_mut_ptr().cast(), v) }
}

/// The same word in all lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn splat(x: u64) -> V {
    _mm512_set1_epi64(x as i64)
}

/// `acc + low 52 bits of a b`; only the low 52 bits of `a` and `b` count.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn lo(acc: V, a: V, b: V) -> V {
    _mm512_madd52lo_epu64(acc, a, b)
}

/// `acc + high 52 bits of the 104-bit product a b`; only the low 52 bits of `a` and `b` count.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn hi(acc: V, a: V, b: V) -> V {
    _mm512_madd52hi_epu64(acc, a, b)
}

/// `x` or `x - p`, whichever is not negative: `[0, 2p)` to `[0, p)`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn reduce_once(x: V, p: V) -> V {
    _mm512_min_epu64(x, _mm512_sub_epi64(x, p))
}

/// A modulus and its constants in all lanes.
#[derive(Clone, Copy)]
pub(super) struct VMod {
    pub(super) p: V,
    pub(super) p2: V,
    /// `2^52 - p`: multiplying by it subtracts a multiple of `p` modulo 2^52.
    pub(super) neg_p: V,
    /// `2^52 - 1`.
    pub(super) mask: V,
    r52: V,
    r52_shoup: V,
    inv52: V,
}

impl VMod {
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn new(m: &Modulus) -> Self {
        let p = m.value();
        let (r52, r52_shoup, inv52) = m.split_constants();
        Self {
            p: splat(p),
            p2: splat(2 * p),
            neg_p: splat((1 << 52) - p),
            mask: splat((1 << 52) - 1),
            r52: splat(r52),
            r52_shoup: splat(r52_shoup),
            inv52: splat(inv52),
        }
    }

    /// `a + b`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn add(&self, a: V, b: V) -> V {
        reduce_once(_mm512_add_epi64(a, b), self.p)
    }

    /// `a - b`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn sub(&self, a: V, b: V) -> V {
        let d = _mm512_sub_epi64(a, b);
        _mm512_min_epu64(d, _mm512_add_epi64(d, self.p))
    }

    /// `[0, 4p)` to `[0, p)`.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub(super) fn reduce_4p(&self, x: V) -> V {
        reduce_once(reduce_once(x, self.p2), self.p)
    }

    /// `w y` in `[0, 2p)` for `y < 2^52` with Shoup's quotient `ws` of `w`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn shoup(&self, w: V, ws: V, y: V) -> V {
        let q = hi(_mm512_setzero_si512(), ws, y);
        _mm512_and_si512(
            lo(lo(_mm512_setzero_si512(), w, y), q, self.neg_p),
            self.mask,
        )
    }

    /// `x < 2^52`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce(&self, x: V) -> V {
        let q = hi(_mm512_setzero_si512(), self.inv52, x);
        let r = _mm512_and_si512(lo(x, q, self.neg_p), self.mask);
        reduce_once(r, self.p)
    }

    /// `h 2^52 + l` in `[0, 4p)` for `h, l < 2^52`.
    ///
    /// `h (2^52 mod p)` with Shoup's quotient lies in `[0, 2p)`, and `l - p floor(l floor(2^52/p) / 2^52)` too.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce_split_lazy(&self, h: V, l: V) -> V {
        let q = hi(hi(_mm512_setzero_si512(), self.inv52, l), self.r52_shoup, h);
        _mm512_and_si512(lo(lo(l, self.r52, h), q, self.neg_p), self.mask)
    }

    /// `h 2^52 + l`, canonical, for sums of at most 15 products: `h < 15 * 2^48`, `l < 2^56`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn reduce_sums(&self, h: V, l: V) -> V {
        let h = _mm512_add_epi64(h, _mm512_srli_epi64::<52>(l));
        self.reduce_4p(self.reduce_split_lazy(h, _mm512_and_si512(l, self.mask)))
    }

    /// `a b`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    pub(super) fn mul(&self, a: V, b: V) -> V {
        let zero = _mm512_setzero_si512();
        self.reduce_4p(self.reduce_split_lazy(hi(zero, a, b), lo(zero, a, b)))
    }
}

/// Transposes an 8 x 8 matrix of words, one row a register.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose(r: [V; 8]) -> [V; 8] {
    // Pairs of rows: words of equal parity side by side.
    let e = [
        _mm512_unpacklo_epi64(r[0], r[1]),
        _mm512_unpacklo_epi64(r[2], r[3]),
        _mm512_unpacklo_epi64(r[4], r[5]),
        _mm512_unpacklo_epi64(r[6], r[7]),
    ];
    let o = [
        _mm512_unpackhi_epi64(r[0], r[1]),
        _mm512_unpackhi_epi64(r[2], r[3]),
        _mm512_unpackhi_epi64(r[4], r[5]),
        _mm512_unpackhi_epi64(r[6], r[7]),
    ];
    let [c0, c2, c4, c6] = transpose_pairs(e);
    let [c1, c3, c5, c7] = transpose_pairs(o);
    [c0, c1, c2, c3, c4, c5, c6, c7]
}

/// Transposes a 4 x 4 matrix of pairs of words.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose_pairs(r: [V; 4]) -> [V; 4] {
    let a = _mm512_shuffle_i64x2::<0x88>(r[0], r[1]);
    let b = _mm512_shuffle_i64x2::<0x88>(r[2], r[3]);
    let c = _mm512_shuffle_i64x2::<0xdd>(r[0], r[1]);
    let d = _mm512_shuffle_i64x2::<0xdd>(r[2], r[3]);
    [
        _mm512_shuffle_i64x2::<0x88>(a, b),
        _mm512_shuffle_i64x2::<0x88>(c, d),
        _mm512_shuffle_i64x2::<0xdd>(a, b),
        _mm512_shuffle_i64x2::<0xdd>(c, d),
    ]
}
