//! Sums of many products: inner products and base conversion.
//!
//! Products of residues below 2^50 are added as two 52-bit halves in 64-bit lanes. Up to [`LAZY`] products keep the sum
//! of high halves below 2^52, so that one reduction serves for all of them.

use std::arch::x86_64::*;

use super::arith::{V, VMod, hi, lo, load, reduce_once, splat, store};
use crate::{
    Modulus, PackedLimb,
    base_conversion::BaseTables,
    kernels::{
        Kernel, Portable,
        portable::packed_pair,
        vector_loops::{check, check_packed, tails},
    },
};

/// Products between reductions: one less than 15, for the canonical sum of the products before.
const LAZY: usize = 14;

/// Registers of eight coefficients that are summed side by side.
const WIDTH: usize = 4;

/// Coefficients of one step of a loop.
const STEP: usize = 8 * WIDTH;

/// Reads `WIDTH` registers at coefficient `at` of a row.
///
/// # Safety
/// `at + STEP <= row.len()`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_step(row: &[u64], at: usize) -> [V; WIDTH] {
    debug_assert!(at + STEP <= row.len());
    // SAFETY: the caller promises that the words exist.
    std::array::from_fn(|u| unsafe { _mm512_loadu_si512(row.as_ptr().add(at + 8 * u).cast()) })
}

/// Bytes that packed rows are asked for ahead of their use: their registers straddle lines, and keys come from memory.
const AHEAD: usize = 192;

/// How eight packed residues become a register: lane `i` gets the eight bytes from byte `floor(i w / 8)` on, shifted by `i w mod 8` bits.
struct Unpack {
    bytes: V,
    shift: V,
    mask: V,
    bits: usize,
}

impl Unpack {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        let bits = m.bits() as usize;
        // at most byte 7 * 56 / 8 + 7 = 56
        let bytes: [u8; 64] = std::array::from_fn(|at| (at / 8 * bits / 8 + at % 8) as u8);
        let shift: [u64; 8] = std::array::from_fn(|i| (i * bits % 8) as u64);
        // SAFETY: both arrays are 64 bytes long.
        let (bytes, shift) = unsafe {
            (
                _mm512_loadu_si512(bytes.as_ptr().cast()),
                _mm512_loadu_si512(shift.as_ptr().cast()),
            )
        };
        Self {
            bytes,
            shift,
            mask: splat((1 << bits) - 1),
            bits,
        }
    }

    /// Reads `WIDTH` registers at residue `at`, a multiple of eight, of a limb.
    ///
    /// # Safety
    /// `at + STEP <= row.len()`, and the limb is of this width.
    #[inline]
    #[target_feature(enable = "avx512f,avx512vbmi")]
    unsafe fn load_step(&self, row: &PackedLimb<'_>, at: usize) -> [V; WIDTH] {
        debug_assert!(at + STEP <= row.len() && row.bits() as usize == self.bits);
        let start = row.words().as_ptr().cast::<u8>();
        let ahead = start.wrapping_add(at / 8 * self.bits + AHEAD);
        for line in 0..WIDTH {
            _mm_prefetch::<_MM_HINT_T0>(ahead.wrapping_add(64 * line).cast());
        }
        std::array::from_fn(|u| {
            // SAFETY: eight residues take `bits` bytes, so their first byte is `at / 8 + u` times that; a limb has 64 bytes after its last residue.
            let bytes = unsafe { _mm512_loadu_si512(start.add((at / 8 + u) * self.bits).cast()) };
            let lanes = _mm512_permutexvar_epi8(self.bytes, bytes);
            _mm512_and_si512(_mm512_srlv_epi64(lanes, self.shift), self.mask)
        })
    }
}

/// Writes `WIDTH` registers at coefficient `at` of a row.
///
/// # Safety
/// `at + STEP <= row.len()`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_step(row: &mut [u64], at: usize, v: [V; WIDTH]) {
    debug_assert!(at + STEP <= row.len());
    for (u, v) in v.into_iter().enumerate() {
        // SAFETY: the caller promises that the words exist.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().add(at + 8 * u).cast(), v) }
    }
}

/// [`store_step`] past the caches: for results that are too many to stay there, whose lines need not be read first.
///
/// # Safety
/// `at + STEP <= row.len()`, the row begins at a cache line, and `_mm_sfence` follows before anybody else reads it.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn stream_step(row: &mut [u64], at: usize, v: [V; WIDTH]) {
    debug_assert!(at + STEP <= row.len() && begins_a_line(row));
    for (u, v) in v.into_iter().enumerate() {
        // SAFETY: the caller promises that the words exist; `at` is a multiple of `STEP`, so each register is a whole line.
        unsafe { _mm512_stream_si512(row.as_mut_ptr().add(at + 8 * u).cast(), v) }
    }
}

/// Whether a row begins at a cache line.
fn begins_a_line(row: &[u64]) -> bool {
    row.as_ptr().addr().is_multiple_of(64)
}

/// Sums of products in `WIDTH` registers, as low and high halves.
#[derive(Clone, Copy)]
struct Sums {
    low: [V; WIDTH],
    high: [V; WIDTH],
}

impl Sums {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn zero() -> Self {
        let zero = [_mm512_setzero_si512(); WIDTH];
        Self {
            low: zero,
            high: zero,
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn add(&mut self, x: [V; WIDTH], y: [V; WIDTH]) {
        for u in 0..WIDTH {
            self.low[u] = lo(self.low[u], x[u], y[u]);
            self.high[u] = hi(self.high[u], x[u], y[u]);
        }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn reduced(self, v: &VMod) -> [V; WIDTH] {
        std::array::from_fn(|u| v.reduce_sums(self.high[u], self.low[u]))
    }

    /// Makes room for `LAZY` more products.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn fold(&mut self, v: &VMod) {
        self.low = self.reduced(v);
        self.high = [_mm512_setzero_si512(); WIDTH];
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn inner_product(m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]) {
    check(out.len(), a.iter().chain(b).copied());
    let v = VMod::new(m);
    let whole = out.len() - out.len() % STEP;
    for at in (0..whole).step_by(STEP) {
        let mut sums = Sums::zero();
        for (k, (a, b)) in a.iter().zip(b).enumerate() {
            if k > 0 && k % LAZY == 0 {
                sums.fold(&v);
            }
            // SAFETY: all rows are as long as `out`, and `at + STEP <= whole`.
            unsafe { sums.add(load_step(a, at), load_step(b, at)) }
        }
        // SAFETY: `at + STEP <= whole <= out.len()`.
        unsafe { store_step(out, at, sums.reduced(&v)) }
    }
    if whole < out.len() {
        let (a, b) = (tails(a, whole), tails(b, whole));
        Portable.inner_product(m, &mut out[whole..], &a, &b);
    }
}

/// `out0 = sum_k a[k] b0[k]`, `out1 = sum_k a[k] b1[k]` for the coefficients in whole steps, whose number is returned; `load(b, at)` reads a step of
/// a row.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn pair<B>(
    v: &VMod,
    [out0, out1]: [&mut [u64]; 2],
    a: &[&[u64]],
    [b0, b1]: [&[B]; 2],
    load: impl Fn(&B, usize) -> [V; WIDTH],
) -> usize {
    let whole = out0.len() - out0.len() % STEP;
    assert!(
        out0.len() == out1.len() && a.iter().all(|row| row.len() == out0.len()),
        "rows and outputs differ in length"
    );
    for at in (0..whole).step_by(STEP) {
        let (mut sums0, mut sums1) = (Sums::zero(), Sums::zero());
        for (k, ((a, b0), b1)) in a.iter().zip(b0).zip(b1).enumerate() {
            if k > 0 && k % LAZY == 0 {
                sums0.fold(v);
                sums1.fold(v);
            }
            // SAFETY: all rows are as long as `out0`, and `at + STEP <= whole`.
            let x = unsafe { load_step(a, at) };
            sums0.add(x, load(b0, at));
            sums1.add(x, load(b1, at));
        }
        // SAFETY: both outputs have the same length, and `at + STEP <= whole`.
        unsafe {
            store_step(out0, at, sums0.reduced(v));
            store_step(out1, at, sums1.reduced(v));
        }
    }
    whole
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn inner_product_pair(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[&[u64]],
    b1: &[&[u64]],
) {
    check(out0.len(), b0.iter().chain(b1).copied());
    // SAFETY: all rows are as long as `out0`, and `pair` reads steps that end there or before.
    let load = |row: &&[u64], at: usize| unsafe { load_step(row, at) };
    let whole = pair(&VMod::new(m), [out0, out1], a, [b0, b1], load);
    if whole < out0.len() {
        let (a, b0, b1) = (tails(a, whole), tails(b0, whole), tails(b1, whole));
        Portable.inner_product_pair(m, &mut out0[whole..], &mut out1[whole..], &a, &b0, &b1);
    }
}

#[target_feature(enable = "avx512f,avx512ifma,avx512vbmi")]
pub(super) fn inner_product_pair_packed(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[PackedLimb<'_>],
    b1: &[PackedLimb<'_>],
) {
    check_packed(out0.len(), m, b0.iter().chain(b1));
    let unpack = Unpack::new(m);
    // SAFETY: all rows are as long as `out0` and of the modulus's width, and `pair` reads steps that end there or before.
    let load = |row: &PackedLimb<'_>, at: usize| unsafe { unpack.load_step(row, at) };
    let whole = pair(&VMod::new(m), [out0, out1], a, [b0, b1], load);
    if whole < out0.len() {
        packed_pair(m, whole, [out0, out1], a, [b0, b1]);
    }
}

/// Coefficients whose `y_i` are kept at a time: 20 KiB for nine source moduli.
const TILE: usize = 256;

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn base_convert(t: &BaseTables, from: &[&[u64]], to: &mut [&mut [u64]]) {
    let (n, k) = (from[0].len(), from.len());
    check(n, from.iter().copied().chain(to.iter().map(|row| &**row)));
    assert!(
        k == t.from.len() && to.len() == t.to.len(),
        "a conversion with {k} and {} rows",
        to.len()
    );
    let whole = n - n % STEP;
    let lines = to.iter().all(|row| begins_a_line(row));
    let mut y = vec![0u64; (k + 1) * TILE];
    for start in (0..whole).step_by(TILE) {
        let len = TILE.min(whole - start);
        let mut quotient = [_mm512_setzero_pd(); TILE / 8];
        for (i, q) in t.from.iter().enumerate() {
            let (v, (c, cs)) = (VMod::new(q), t.scale[i]);
            let (c, cs, reciprocal) = (splat(c), splat(cs), _mm512_set1_pd(t.reciprocal[i]));
            let source = from[i][start..start + len].as_chunks::<8>().0;
            let row = y[i * TILE..(i + 1) * TILE].as_chunks_mut::<8>().0;
            for ((y, sum), x) in row.iter_mut().zip(&mut quotient).zip(source) {
                let product = reduce_once(v.shoup(c, cs, load(x)), v.p);
                store(y, product);
                // Two roundings, like the portable kernel.
                *sum = _mm512_add_pd(*sum, _mm512_mul_pd(_mm512_cvtepu64_pd(product), reciprocal));
            }
        }
        let row = y[k * TILE..].as_chunks_mut::<8>().0;
        for (y, &sum) in row.iter_mut().zip(&quotient) {
            store(y, _mm512_cvtpd_epu64(sum));
        }
        let y = y.as_chunks::<TILE>().0;
        for ((j, m), to) in t.to.iter().enumerate().zip(&mut *to) {
            let (v, coefficients) = (VMod::new(m), t.row(j));
            for at in (0..len).step_by(STEP) {
                let mut sums = Sums::zero();
                for (k, (y, c)) in y.chunks(LAZY).zip(coefficients.chunks(LAZY)).enumerate() {
                    if k > 0 {
                        sums.fold(&v);
                    }
                    for (y, &c) in y.iter().zip(c) {
                        // SAFETY: `at + STEP <= TILE`, as both `TILE` and `len` are multiples of `STEP`.
                        sums.add(unsafe { load_step(y, at) }, [splat(c); WIDTH]);
                    }
                }
                let sums = sums.reduced(&v);
                // SAFETY: `start + at + STEP <= whole <= n`, the length of every row; streamed rows begin at lines, and the fence is below.
                unsafe {
                    if lines {
                        stream_step(to, start + at, sums);
                    } else {
                        store_step(to, start + at, sums);
                    }
                }
            }
        }
    }
    _mm_sfence();
    // The y_i are residues of what may be a secret.
    zeroize::Zeroize::zeroize(&mut y);
    if whole < n {
        let mut to: Vec<&mut [u64]> = to.iter_mut().map(|row| &mut row[whole..]).collect();
        Portable.base_convert(t, &tails(from, whole), &mut to);
    }
}
