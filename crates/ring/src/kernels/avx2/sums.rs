//! Sums of many products: inner products and base conversion.
//!
//! Sums of products are kept as two doubles, without any quotient per product. `H` starts at `2^102`, where doubles are `2^50` apart:
//!
//! ```text
//! H' = fl(H + a b)          L += fma(a, b, H - H')          sum = (H - 2^102) + L, exactly
//! ```
//!
//! For `a, b < 2^50` four products keep `H` below `2^103`, so that its grid stays, and `H - H' + a b`, at most `2^49` in absolute value, is
//! exact. One of the factors is below `p`, so the quotient of `H - 2^102` by `p` is below `2^52`; rounded it is off by at most 3/2, the remainder
//! with `L` is an integer below `2^53`, and one more reduction makes it the start of the next four products.

use std::arch::x86_64::*;

use super::arith::{F, Factor, I, LANES, VMod, load, splat, to_double};
use crate::{
    Modulus, PackedLimb,
    base_conversion::BaseTables,
    kernels::{
        Kernel, Portable,
        portable::packed_pair,
        vector_loops::{check, check_packed, tails},
    },
};

/// Products between reductions.
const LAZY: usize = 4;

/// `2^102`.
const ORIGIN: f64 = (1u128 << 102) as f64;

/// Registers of four coefficients that are summed side by side.
const WIDTH: usize = 4;

/// Coefficients of one step of a loop.
const STEP: usize = LANES * WIDTH;

/// Reads `WIDTH` registers of words at coefficient `at` of a row, as doubles.
///
/// # Safety
/// `at + STEP <= row.len()`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn load_step(row: &[u64], at: usize) -> [F; WIDTH] {
    debug_assert!(at + STEP <= row.len());
    std::array::from_fn(|u| {
        // SAFETY: the caller promises that the words exist.
        to_double(unsafe { _mm256_loadu_si256(row.as_ptr().add(at + LANES * u).cast()) })
    })
}

/// How packed residues become words. Of eight, which take `w` bytes, lane `i` gets the eight bytes from byte `floor(i w / 8)` on, shifted by
/// `i w mod 8` bits; two neighbours lie within 16 bytes, which is what a byte shuffle reaches.
struct Unpack {
    /// First byte of each pair of lanes.
    pairs: [usize; 4],
    /// Bytes of the lanes of two pairs, from the first byte of each pair.
    bytes: [I; 2],
    shift: [I; 2],
    mask: I,
    bits: usize,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn new(m: &Modulus) -> Self {
        let bits = m.bits() as usize;
        let first = |lane: usize| lane * bits / 8;
        let bytes = |register: usize| {
            let bytes: [u8; 32] = std::array::from_fn(|at| {
                let lane = 4 * register + at / 8;
                // at most 7 + 7
                (first(lane) - first(lane - lane % 2) + at % 8) as u8
            });
            // SAFETY: the array is 32 bytes long.
            unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
        };
        let shift = |register: usize| {
            load(&std::array::from_fn(|i| {
                ((4 * register + i) * bits % 8) as u64
            }))
        };
        Self {
            pairs: std::array::from_fn(|pair| first(2 * pair)),
            bytes: [bytes(0), bytes(1)],
            shift: [shift(0), shift(1)],
            mask: _mm256_set1_epi64x((1 << bits) - 1),
            bits,
        }
    }

    /// Reads `WIDTH` registers at residue `at`, a multiple of eight, of a limb, as doubles.
    ///
    /// # Safety
    /// `at + STEP <= row.len()`, and the limb is of this width.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    unsafe fn load_step(&self, row: &PackedLimb<'_>, at: usize) -> [F; WIDTH] {
        debug_assert!(at + STEP <= row.len() && row.bits() as usize == self.bits);
        let start = row.words().as_ptr().cast::<u8>();
        std::array::from_fn(|u| {
            let (group, register) = (at / 8 + u / 2, u % 2);
            // SAFETY: eight residues take `bits` bytes, so their first byte is `group` times that; a limb has 64 bytes after its last residue.
            let pair = |i: usize| unsafe {
                _mm_loadu_si128(start.add(group * self.bits + self.pairs[i]).cast())
            };
            let bytes = _mm256_set_m128i(pair(2 * register + 1), pair(2 * register));
            let lanes = _mm256_shuffle_epi8(bytes, self.bytes[register]);
            to_double(_mm256_and_si256(
                _mm256_srlv_epi64(lanes, self.shift[register]),
                self.mask,
            ))
        })
    }
}

/// Reads `WIDTH` registers of doubles at coefficient `at` of a row.
///
/// # Safety
/// `at + STEP <= row.len()`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn load_doubles(row: &[f64], at: usize) -> [F; WIDTH] {
    debug_assert!(at + STEP <= row.len());
    std::array::from_fn(|u| {
        // SAFETY: the caller promises that the doubles exist.
        unsafe { _mm256_loadu_pd(row.as_ptr().add(at + LANES * u)) }
    })
}

/// Writes `WIDTH` registers at coefficient `at` of a row as canonical words.
///
/// # Safety
/// `at + STEP <= row.len()`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn store_step(v: &VMod, row: &mut [u64], at: usize, x: [F; WIDTH]) {
    debug_assert!(at + STEP <= row.len());
    for (u, x) in x.into_iter().enumerate() {
        // SAFETY: the caller promises that the words exist.
        unsafe { _mm256_storeu_si256(row.as_mut_ptr().add(at + LANES * u).cast(), v.canonical(x)) }
    }
}

/// Sums of products in `WIDTH` registers.
#[derive(Clone, Copy)]
struct Sums {
    high: [F; WIDTH],
    low: [F; WIDTH],
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn zero() -> Self {
        Self {
            high: [splat(ORIGIN); WIDTH],
            low: [_mm256_setzero_pd(); WIDTH],
        }
    }

    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn add(&mut self, x: [F; WIDTH], y: [F; WIDTH]) {
        for u in 0..WIDTH {
            let high = _mm256_fmadd_pd(x[u], y[u], self.high[u]);
            let rest = _mm256_fmadd_pd(x[u], y[u], _mm256_sub_pd(self.high[u], high));
            self.high[u] = high;
            self.low[u] = _mm256_add_pd(self.low[u], rest);
        }
    }

    /// The sums modulo `p`, in `(-p, p)`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn reduced(self, v: &VMod) -> [F; WIDTH] {
        std::array::from_fn(|u| {
            let high = _mm256_sub_pd(self.high[u], splat(ORIGIN));
            let rest = _mm256_fnmadd_pd(v.quotient(high), v.p, high);
            let sum = _mm256_add_pd(rest, self.low[u]);
            _mm256_fnmadd_pd(v.quotient(sum), v.p, sum)
        })
    }

    /// Makes room for `LAZY` more products.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn fold(&mut self, v: &VMod) {
        self.low = self.reduced(v);
        self.high = [splat(ORIGIN); WIDTH];
    }
}

/// `out = sum_k a[k] b[k]` for the coefficients in whole steps, whose number is returned; `load(b, at)` reads a step of a row.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn product<B>(
    v: &VMod,
    out: &mut [u64],
    a: &[&[u64]],
    b: &[B],
    load: impl Fn(&B, usize) -> [F; WIDTH],
) -> usize {
    check(out.len(), a.iter().copied());
    let whole = out.len() - out.len() % STEP;
    for at in (0..whole).step_by(STEP) {
        let mut sums = Sums::zero();
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            if k > 0 && k % LAZY == 0 {
                sums.fold(v);
            }
            // SAFETY: all rows are as long as `out`, and `at + STEP <= whole`.
            sums.add(unsafe { load_step(a, at) }, load(b, at));
        }
        // SAFETY: `at + STEP <= whole <= out.len()`.
        unsafe { store_step(v, out, at, sums.reduced(v)) }
    }
    whole
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn inner_product(m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]) {
    check(out.len(), b.iter().copied());
    // SAFETY: all rows are as long as `out`, and `product` reads steps that end there or before.
    let load = |row: &&[u64], at: usize| unsafe { load_step(row, at) };
    let whole = product(&VMod::new(m), out, a, b, load);
    if whole < out.len() {
        let (a, b) = (tails(a, whole), tails(b, whole));
        Portable.inner_product(m, &mut out[whole..], &a, &b);
    }
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn inner_product_pair(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[&[u64]],
    b1: &[&[u64]],
) {
    // Two sets of sums side by side do not fit into the sixteen registers.
    inner_product(m, out0, a, b0);
    inner_product(m, out1, a, b1);
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn inner_product_pair_packed(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[PackedLimb<'_>],
    b1: &[PackedLimb<'_>],
) {
    let (v, unpack) = (VMod::new(m), Unpack::new(m));
    // SAFETY: all rows are as long as their output and of the modulus's width, and `product` reads steps that end there or before.
    let load = |row: &PackedLimb<'_>, at: usize| unsafe { unpack.load_step(row, at) };
    let mut whole = 0;
    for (out, b) in [(&mut *out0, b0), (&mut *out1, b1)] {
        check_packed(out.len(), m, b.iter());
        whole = product(&v, out, a, b, load);
    }
    if whole < out0.len() {
        packed_pair(m, whole, [out0, out1], a, [b0, b1]);
    }
}

/// Coefficients whose `y_i` are kept at a time: 20 KiB for nine source moduli.
const TILE: usize = 256;

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn base_convert(t: &BaseTables, from: &[&[u64]], to: &mut [&mut [u64]]) {
    let (n, k) = (from[0].len(), from.len());
    check(n, from.iter().copied().chain(to.iter().map(|row| &**row)));
    assert!(
        k == t.from.len() && to.len() == t.to.len(),
        "a conversion with {k} and {} rows",
        to.len()
    );
    let whole = n - n % STEP;
    let matrix: Vec<f64> = t.matrix.iter().map(|&c| c as f64).collect();
    let mut y = vec![0f64; (k + 1) * TILE];
    for start in (0..whole).step_by(TILE) {
        let len = TILE.min(whole - start);
        let mut quotient = [_mm256_setzero_pd(); TILE / LANES];
        for (i, q) in t.from.iter().enumerate() {
            let (v, f) = (VMod::new(q), Factor::new(q, t.scale[i].0));
            let reciprocal = splat(t.reciprocal[i]);
            let source = from[i][start..start + len].as_chunks::<LANES>().0;
            let row = y[i * TILE..(i + 1) * TILE].as_chunks_mut::<LANES>().0;
            for ((y, sum), x) in row.iter_mut().zip(&mut quotient).zip(source) {
                let product = v.lift(v.mul(to_double(load(x)), f));
                // SAFETY: the reference is valid for 32 bytes and exclusive.
                unsafe { _mm256_storeu_pd(y.as_mut_ptr(), product) }
                // Two roundings, like the portable kernel.
                *sum = _mm256_add_pd(*sum, _mm256_mul_pd(product, reciprocal));
            }
        }
        let row = y[k * TILE..].as_chunks_mut::<LANES>().0;
        for (y, &sum) in row.iter_mut().zip(&quotient) {
            let rounded = _mm256_round_pd::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(sum);
            // SAFETY: the reference is valid for 32 bytes and exclusive.
            unsafe { _mm256_storeu_pd(y.as_mut_ptr(), rounded) }
        }
        for ((m, row), to) in t.to.iter().zip(matrix.chunks_exact(k + 1)).zip(&mut *to) {
            let v = VMod::new(m);
            for at in (0..len).step_by(STEP) {
                let mut sums = Sums::zero();
                for (i, &c) in row.iter().enumerate() {
                    if i > 0 && i % LAZY == 0 {
                        sums.fold(&v);
                    }
                    // SAFETY: `at + STEP <= TILE`, as both `TILE` and `len` are multiples of `STEP`.
                    sums.add(
                        unsafe { load_doubles(&y[i * TILE..(i + 1) * TILE], at) },
                        [splat(c); WIDTH],
                    );
                }
                // SAFETY: `start + at + STEP <= whole <= n`, the length of every row.
                unsafe { store_step(&v, to, start + at, sums.reduced(&v)) }
            }
        }
    }
    // The y_i are residues of what may be a secret.
    zeroize::Zeroize::zeroize(&mut y);
    if whole < n {
        let mut to: Vec<&mut [u64]> = to.iter_mut().map(|row| &mut row[whole..]).collect();
        Portable.base_convert(t, &tails(from, whole), &mut to);
    }
}
