//! The transform by passes of three (or two) layers over registers, on doubles from the first pass to the last.
//!
//! A transform of `n = 2^L >= 128` residues runs `L - 5` layers in passes of radix 4 and 8, which hold 4 or 8 registers of a block and
//! multiply by broadcast twiddles. The tail runs the last five layers on 32 residues in eight registers: three with broadcast
//! twiddles, two with twiddles that differ lane by lane. The first pass converts words to doubles, the last one doubles to words:
//!
//! ```text
//! n = 2^16:   4 . 8 .     | for each of 16 blocks of 4096 residues:   8 . 8 . (8, shuffle, 2, shuffle, 2, shuffle)
//! ```
//!
//! **Lazy ranges.** In units of `p`, a product is at most `1/2 + B/16` for a factor of `B <= 4` ([`super::arith`]). A forward pass
//! begins by reducing the half of its block that is not multiplied; three layers later everything is below 2.8, so that nothing
//! else needs a reduction. An inverse pass takes and gives residues below 0.75; it reduces its sums, which double layer by layer,
//! at the end and one in four of them before its third layer. `BOUNDS` recomputes all of that when this file is compiled.

use std::arch::x86_64::*;

use super::arith::{F, Factor, I, LANES, VMod, factor, splat, to_double};
use crate::{
    Modulus,
    kernels::{Kernel, NttPlan, Portable, portable::root_table},
    memory::AlignedWords,
};

/// Smallest transform of this kernel; smaller ones are portable.
const MIN: usize = 128;

/// Residues that stay in the first-level cache (32 KiB).
const INNER: usize = 4096;

/// Residues that the tail holds in registers.
const GROUP: usize = 32;

/// Layers of the tail.
const TAIL: u32 = 5;

/// Layers of each pass before the tail, for `layers` layers in all: radix 4 first, so that blocks become small soon.
fn schedule(layers: u32) -> impl Iterator<Item = u32> {
    let fours = match layers % 3 {
        0 => 0,
        1 => 2,
        _ => 1,
    };
    (0..fours)
        .map(|_| 2)
        .chain((0..(layers - 2 * fours) / 3).map(|_| 3))
}

/// The bounds of the lazy ranges, in units of `p`, checked by the compiler.
const _BOUNDS: () = {
    /// Of a product with a stored quotient and of one with a lane twiddle, for a factor below `b`.
    const fn product(b: f64) -> f64 {
        assert!(b < 4.0);
        0.5 + b / 16.0
    }
    const fn lane_product(b: f64) -> f64 {
        assert!(b < 4.0);
        0.5 + b / 8.0
    }
    const REDUCED: f64 = 0.5001;
    // Forward: a first pass of canonical residues, then passes that begin with a reduction.
    const fn layer(b: f64) -> f64 {
        b + product(b)
    }
    let first = layer(layer(layer(1.0)));
    assert!(first < 2.8);
    let later = layer(layer(REDUCED + product(2.8)));
    assert!(later < 2.8);
    let tail = later + lane_product(later);
    assert!(tail + lane_product(tail) < 8.0);
    // Inverse tail: canonical residues, less p in the sum; then the sums of the second layer are reduced.
    let start = lane_product(1.0);
    assert!(start < 1.0 && lane_product(2.0) <= 0.75);
    // Inverse pass: sums a of two sums are reduced before the third layer, all sums after it.
    let b = 0.75;
    assert!(product(2.0 * b) < 0.75);
    assert!(product(4.0 * b) < 0.75);
    let (sum, difference) = (2.0 * product(2.0 * b), product(4.0 * b));
    assert!(product(2.0 * REDUCED) < 0.75 && product(2.0 * sum) < 0.75);
    assert!(product(2.0 * difference) < 0.75);
    assert!(2.0 * sum < 4.0 && 2.0 * difference < 4.0);
};

/// Tables, for each direction: all twiddles in bit-reversed order, centred, as doubles; the quotients by `p` of the first quarter,
/// which are all but those of the last two layers; `1/n` and `w/n` with the twiddle `w` of the first layer, each with its quotient.
pub(super) fn plan(n: usize, m: &Modulus, psi: u64) -> NttPlan {
    if n < MIN {
        return Portable.ntt_plan(n, m, psi);
    }
    let scale = m.inv(m.reduce(n as u64));
    let table = |root: u64| {
        let roots = &root_table(n, m, root)[..n];
        let mut out: Vec<f64> = roots.iter().map(|&w| factor(m, w).0).collect();
        out.extend(roots[..n / 4].iter().map(|&w| factor(m, w).1));
        for constant in [scale, m.mul(scale, roots[1])] {
            let (w, quotient) = factor(m, constant);
            out.extend([w, quotient]);
        }
        // Whole cache lines.
        out.resize(out.len().next_multiple_of(8), 0.0);
        out
    };
    let words: Vec<u64> = [table(psi), table(m.inv(psi))]
        .concat()
        .into_iter()
        .map(f64::to_bits)
        .collect();
    NttPlan {
        n,
        modulus: *m,
        twiddles: AlignedWords::table(&words),
        scale: (scale, m.shoup(scale)),
    }
}

/// A table in its parts.
#[derive(Clone, Copy)]
struct Twiddles<'a> {
    roots: &'a [u64],
    quotients: &'a [u64],
    scale: &'a [u64],
}

impl<'a> Twiddles<'a> {
    fn new(table: &'a [u64], n: usize) -> Self {
        let (roots, rest) = table.split_at(n);
        let (quotients, scale) = rest.split_at(n / 4);
        Self {
            roots,
            quotients,
            scale,
        }
    }

    /// Twiddles `at .. at + COUNT`, each in all lanes, with their quotients; `at + COUNT <= n/4`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn broadcast<const COUNT: usize>(&self, at: usize) -> [Factor; COUNT] {
        let (roots, quotients) = (&self.roots[at..at + COUNT], &self.quotients[at..at + COUNT]);
        std::array::from_fn(|i| Factor {
            w: splat(f64::from_bits(roots[i])),
            quotient: splat(f64::from_bits(quotients[i])),
        })
    }

    /// `1/n` and `w/n`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn scale(&self) -> [Factor; 2] {
        std::array::from_fn(|i| Factor {
            w: splat(f64::from_bits(self.scale[2 * i])),
            quotient: splat(f64::from_bits(self.scale[2 * i + 1])),
        })
    }
}

/// `(x + w y, x - w y)`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn butterfly(v: &VMod, x: F, y: F, w: Factor) -> (F, F) {
    let t = v.mul(y, w);
    (_mm256_add_pd(x, t), _mm256_sub_pd(x, t))
}

/// [`butterfly`] with a lane twiddle.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn butterfly_lanes(v: &VMod, x: F, y: F, w: F) -> (F, F) {
    let t = v.mul_any(y, w);
    (_mm256_add_pd(x, t), _mm256_sub_pd(x, t))
}

/// `(x + y, w (x - y))`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn butterfly_inverse(v: &VMod, x: F, y: F, w: Factor) -> (F, F) {
    (_mm256_add_pd(x, y), v.mul(_mm256_sub_pd(x, y), w))
}

/// Even and odd places of the aligned fours of two registers: `[0 1 2 3], [4 5 6 7]` to `[0 1 4 5], [2 3 6 7]`, and back.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn swap_pairs(a: F, b: F) -> (F, F) {
    (
        _mm256_permute2f128_pd::<0x20>(a, b),
        _mm256_permute2f128_pd::<0x31>(a, b),
    )
}

/// `[0 1 4 5], [2 3 6 7]` to `[0 2 4 6], [1 3 5 7]`, and back.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn swap_neighbours(a: F, b: F) -> (F, F) {
    (_mm256_unpacklo_pd(a, b), _mm256_unpackhi_pd(a, b))
}

/// The registers at `at` of the rows of a block, `stride` words apart; with `WORDS` they are residues as words, else as doubles.
///
/// # Safety
/// `start` is valid for `R * stride` words, and `at + LANES <= stride`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn load_rows<const R: usize, const WORDS: bool>(
    start: *const u64,
    stride: usize,
    at: usize,
) -> [F; R] {
    std::array::from_fn(|i| {
        // SAFETY: i * stride + at + LANES <= R * stride.
        let words: I = unsafe { _mm256_loadu_si256(start.add(i * stride + at).cast()) };
        if WORDS {
            to_double(words)
        } else {
            _mm256_castsi256_pd(words)
        }
    })
}

/// Writes the registers at `at` of the rows of a block; with `WORDS` as canonical residues, else as doubles.
///
/// # Safety
/// As for [`load_rows`], and the words may be written.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
unsafe fn store_rows<const R: usize, const WORDS: bool>(
    v: &VMod,
    start: *mut u64,
    stride: usize,
    at: usize,
    rows: [F; R],
) {
    for (i, row) in rows.into_iter().enumerate() {
        let words = if WORDS {
            v.canonical(row)
        } else {
            _mm256_castpd_si256(row)
        };
        // SAFETY: i * stride + at + LANES <= R * stride.
        unsafe { _mm256_storeu_si256(start.add(i * stride + at).cast(), words) }
    }
}

/// Three forward layers of a block in eight rows; `FIRST`: of canonical residues, else of lazy ones. `w(l, i)`: twiddle `i` of layer `l`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn three_layers<const FIRST: bool>(
    v: &VMod,
    rows: [F; 8],
    w: impl Fn(usize, usize) -> Factor,
) -> [F; 8] {
    let [mut a, mut b, mut c, mut d, e, f, g, h] = rows;
    if !FIRST {
        (a, b, c, d) = (v.reduce(a), v.reduce(b), v.reduce(c), v.reduce(d));
    }
    let (a, e) = butterfly(v, a, e, w(0, 0));
    let (b, f) = butterfly(v, b, f, w(0, 0));
    let (c, g) = butterfly(v, c, g, w(0, 0));
    let (d, h) = butterfly(v, d, h, w(0, 0));
    let (a, c) = butterfly(v, a, c, w(1, 0));
    let (b, d) = butterfly(v, b, d, w(1, 0));
    let (e, g) = butterfly(v, e, g, w(1, 1));
    let (f, h) = butterfly(v, f, h, w(1, 1));
    let (a, b) = butterfly(v, a, b, w(2, 0));
    let (c, d) = butterfly(v, c, d, w(2, 1));
    let (e, f) = butterfly(v, e, f, w(2, 2));
    let (g, h) = butterfly(v, g, h, w(2, 3));
    [a, b, c, d, e, f, g, h]
}

/// Three inverse layers of a block in eight rows; with `LAST` the result is scaled by `1/n`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn three_layers_inverse<const LAST: bool>(
    v: &VMod,
    rows: [F; 8],
    w: impl Fn(usize, usize) -> Factor,
    scale: &[Factor; 2],
) -> [F; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (a, b) = butterfly_inverse(v, a, b, w(2, 0));
    let (c, d) = butterfly_inverse(v, c, d, w(2, 1));
    let (e, f) = butterfly_inverse(v, e, f, w(2, 2));
    let (g, h) = butterfly_inverse(v, g, h, w(2, 3));
    let (a, c) = butterfly_inverse(v, a, c, w(1, 0));
    let (b, d) = butterfly_inverse(v, b, d, w(1, 0));
    let (e, g) = butterfly_inverse(v, e, g, w(1, 1));
    let (f, h) = butterfly_inverse(v, f, h, w(1, 1));
    let (a, e) = (v.reduce(a), v.reduce(e));
    let (a, e) = last_layer::<LAST>(v, a, e, w(0, 0), scale);
    let (b, f) = last_layer::<LAST>(v, b, f, w(0, 0), scale);
    let (c, g) = last_layer::<LAST>(v, c, g, w(0, 0), scale);
    let (d, h) = last_layer::<LAST>(v, d, h, w(0, 0), scale);
    [a, b, c, d, e, f, g, h]
}

/// The last layer of an inverse pass: the sum is reduced, or, with `LAST`, both results are multiplied by `1/n`.
#[inline]
#[target_feature(enable = "avx2,fma,bmi2")]
fn last_layer<const LAST: bool>(v: &VMod, x: F, y: F, w: Factor, scale: &[Factor; 2]) -> (F, F) {
    if LAST {
        let (sum, difference) = butterfly_inverse(v, x, y, scale[1]);
        (v.mul(sum, scale[0]), difference)
    } else {
        let (sum, difference) = butterfly_inverse(v, x, y, w);
        (v.reduce(sum), difference)
    }
}

/// The twiddles of three layers of a block in registers, for blocks that use them more than once.
struct Three([Factor; 1], [Factor; 2], [Factor; 4]);

impl Three {
    /// Twiddle `i` of layer `layer`.
    #[inline]
    fn get(&self, layer: usize, i: usize) -> Factor {
        match layer {
            0 => self.0[i],
            1 => self.1[i],
            _ => self.2[i],
        }
    }
}

impl Twiddles<'_> {
    /// The twiddles of three layers of a block; those of layer `l` begin at `at 2^l`.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn three(&self, at: usize) -> Three {
        Three(
            self.broadcast(at),
            self.broadcast(2 * at),
            self.broadcast(4 * at),
        )
    }
}

/// The twiddles of the tail, for each of its groups: of its three layers with broadcast twiddles, with quotients, then of the last
/// two.
struct TailTwiddles<'a> {
    first: [&'a [[u64; 1]]; 2],
    second: [&'a [[u64; 2]]; 2],
    third: [&'a [[u64; 4]]; 2],
    fourth: &'a [[u64; 8]],
    fifth: &'a [[u64; 16]],
}

impl<'a> TailTwiddles<'a> {
    /// Those of `count` groups, the first of which has its first twiddle at `at`.
    fn new(t: &Twiddles<'a>, at: usize, count: usize) -> Self {
        fn cut<const C: usize>(table: &[u64], at: usize, count: usize) -> &[[u64; C]] {
            table[C * at..C * (at + count)].as_chunks().0
        }
        let (r, q) = (t.roots, t.quotients);
        Self {
            first: [cut(r, at, count), cut(q, at, count)],
            second: [cut(r, at, count), cut(q, at, count)],
            third: [cut(r, at, count), cut(q, at, count)],
            fourth: cut(r, at, count),
            fifth: cut(r, at, count),
        }
    }

    /// Twiddle `i` of layer `layer` of a group.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn get(&self, group: usize, layer: usize, i: usize) -> Factor {
        let [w, quotient] = match layer {
            0 => self.first.map(|t| t[group][i]),
            1 => self.second.map(|t| t[group][i]),
            _ => self.third.map(|t| t[group][i]),
        };
        Factor {
            w: splat(f64::from_bits(w)),
            quotient: splat(f64::from_bits(quotient)),
        }
    }

    /// The twiddles of the last two layers over registers `2 j` and `2 j + 1` of a group: `[w_0, w_0, w_1, w_1]` of the layer of
    /// distance 2, the four of the last layer.
    #[inline]
    #[target_feature(enable = "avx2,fma,bmi2")]
    fn lanes(&self, group: usize, j: usize) -> [F; 2] {
        let pair = &self.fourth[group].as_chunks::<2>().0[j];
        let four = &self.fifth[group].as_chunks::<4>().0[j];
        // SAFETY: the arrays have 16 and 32 bytes; the loads have no alignment requirement.
        let (pair, four) = unsafe {
            (
                _mm_loadu_pd(pair.as_ptr().cast()),
                _mm256_loadu_pd(four.as_ptr().cast()),
            )
        };
        [
            _mm256_permute4x64_pd::<0b01_01_00_00>(_mm256_castpd128_pd256(pair)),
            four,
        ]
    }
}

/// One forward pass of three layers over blocks of `len` residues, a multiple of 32, with twiddles from `at` on; `FIRST`: over
/// canonical residues as words.
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn forward8<const FIRST: bool>(v: &VMod, data: &mut [u64], len: usize, t: &Twiddles, at: usize) {
    let stride = len / 8;
    for (i, block) in data.chunks_exact_mut(len).enumerate() {
        let (start, w) = (block.as_mut_ptr(), t.three(at + i));
        for at in (0..stride / LANES).map(|i| LANES * i) {
            // SAFETY: the block has 8 * stride words, is borrowed exclusively, and at + LANES <= stride.
            unsafe {
                let rows = load_rows::<8, FIRST>(start, stride, at);
                let rows = three_layers::<FIRST>(v, rows, |l, i| w.get(l, i));
                store_rows::<8, false>(v, start, stride, at, rows);
            }
        }
    }
}

/// One forward pass of two layers over blocks of `len` residues, a multiple of 16. As [`forward8`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn forward4<const FIRST: bool>(v: &VMod, data: &mut [u64], len: usize, t: &Twiddles, at: usize) {
    let stride = len / 4;
    for (i, block) in data.chunks_exact_mut(len).enumerate() {
        let start = block.as_mut_ptr();
        let (w0, w1) = (t.broadcast::<1>(at + i), t.broadcast::<2>(2 * (at + i)));
        for at in (0..stride / LANES).map(|i| LANES * i) {
            // SAFETY: the block has 4 * stride words, is borrowed exclusively, and at + LANES <= stride.
            unsafe {
                let [mut a, mut b, c, d] = load_rows::<4, FIRST>(start, stride, at);
                if !FIRST {
                    (a, b) = (v.reduce(a), v.reduce(b));
                }
                let (a, c) = butterfly(v, a, c, w0[0]);
                let (b, d) = butterfly(v, b, d, w0[0]);
                let (a, b) = butterfly(v, a, b, w1[0]);
                let (c, d) = butterfly(v, c, d, w1[1]);
                store_rows::<4, false>(v, start, stride, at, [a, b, c, d]);
            }
        }
    }
}

/// The last five layers and the way back to canonical words; the twiddles of the first of them begin at `at`.
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn forward_tail(v: &VMod, data: &mut [u64], t: &Twiddles, at: usize) {
    let groups = data.as_chunks_mut::<GROUP>().0;
    let t = TailTwiddles::new(t, at, groups.len());
    for (i, group) in groups.iter_mut().enumerate() {
        let start = group.as_mut_ptr();
        // SAFETY: a group has 8 registers of LANES words.
        let rows = unsafe { load_rows::<8, false>(start, LANES, 0) };
        let mut rows = three_layers::<false>(v, rows, |l, j| t.get(i, l, j));
        for (j, pair) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [w0, w1] = t.lanes(i, j);
            let (x, y) = swap_pairs(pair[0], pair[1]);
            let (x, y) = butterfly_lanes(v, x, y, w0);
            let (x, y) = swap_neighbours(x, y);
            let (x, y) = butterfly_lanes(v, x, y, w1);
            let (x, y) = swap_neighbours(v.reduce(x), v.reduce(y));
            *pair = swap_pairs(x, y).into();
        }
        // SAFETY: as above; the group is borrowed exclusively.
        unsafe { store_rows::<8, true>(v, start, LANES, 0, rows) }
    }
}

/// The first five inverse layers, of canonical words. As [`forward_tail`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn inverse_tail(v: &VMod, data: &mut [u64], t: &Twiddles, at: usize) {
    let scale = t.scale();
    let groups = data.as_chunks_mut::<GROUP>().0;
    let t = TailTwiddles::new(t, at, groups.len());
    for (i, group) in groups.iter_mut().enumerate() {
        let start = group.as_mut_ptr();
        // SAFETY: a group has 8 registers of LANES words.
        let mut rows = unsafe { load_rows::<8, true>(start, LANES, 0) };
        for (j, pair) in rows.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let [w0, w1] = t.lanes(i, j);
            let (x, y) = swap_pairs(pair[0], pair[1]);
            let (x, y) = swap_neighbours(x, y);
            // Both are in [0, p): their sum less p is in [-p, p).
            let sum = _mm256_add_pd(_mm256_sub_pd(x, v.p), y);
            let (x, y) = (sum, v.mul_any(_mm256_sub_pd(x, y), w1));
            let (x, y) = swap_neighbours(x, y);
            let sum = v.reduce(_mm256_add_pd(x, y));
            let (x, y) = (sum, v.mul_any(_mm256_sub_pd(x, y), w0));
            *pair = swap_pairs(x, y).into();
        }
        let rows = three_layers_inverse::<false>(v, rows, |l, j| t.get(i, l, j), &scale);
        // SAFETY: as above; the group is borrowed exclusively.
        unsafe { store_rows::<8, false>(v, start, LANES, 0, rows) }
    }
}

/// One inverse pass of three layers over blocks of `len` residues, a multiple of 32, with twiddles from `at` on; with `LAST` it
/// scales the results and writes canonical words.
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn inverse8<const LAST: bool>(v: &VMod, data: &mut [u64], len: usize, t: &Twiddles, at: usize) {
    let (stride, scale) = (len / 8, t.scale());
    for (i, block) in data.chunks_exact_mut(len).enumerate() {
        let (start, w) = (block.as_mut_ptr(), t.three(at + i));
        for at in (0..stride / LANES).map(|i| LANES * i) {
            // SAFETY: the block has 8 * stride words, is borrowed exclusively, and at + LANES <= stride.
            unsafe {
                let rows = load_rows::<8, false>(start, stride, at);
                let rows = three_layers_inverse::<LAST>(v, rows, |l, i| w.get(l, i), &scale);
                store_rows::<8, LAST>(v, start, stride, at, rows);
            }
        }
    }
}

/// One inverse pass of two layers over blocks of `len` residues, a multiple of 16. As [`inverse8`].
#[inline(never)]
#[target_feature(enable = "avx2,fma,bmi2")]
fn inverse4<const LAST: bool>(v: &VMod, data: &mut [u64], len: usize, t: &Twiddles, at: usize) {
    let (stride, scale) = (len / 4, t.scale());
    for (i, block) in data.chunks_exact_mut(len).enumerate() {
        let start = block.as_mut_ptr();
        let (w0, w1) = (t.broadcast::<1>(at + i), t.broadcast::<2>(2 * (at + i)));
        for at in (0..stride / LANES).map(|i| LANES * i) {
            // SAFETY: the block has 4 * stride words, is borrowed exclusively, and at + LANES <= stride.
            unsafe {
                let [a, b, c, d] = load_rows::<4, false>(start, stride, at);
                let (a, b) = butterfly_inverse(v, a, b, w1[0]);
                let (c, d) = butterfly_inverse(v, c, d, w1[1]);
                let (a, c) = last_layer::<LAST>(v, a, c, w0[0], &scale);
                let (b, d) = last_layer::<LAST>(v, b, d, w0[0], &scale);
                store_rows::<4, LAST>(v, start, stride, at, [a, b, c, d]);
            }
        }
    }
}

/// One pass: its layers and the length of its blocks.
#[derive(Clone, Copy, Default)]
struct Pass {
    layers: u32,
    len: usize,
}

/// The passes before the tail, how many there are, and how many of them have blocks larger than [`INNER`].
fn passes(n: usize) -> ([Pass; 8], usize, usize) {
    let mut all = [Pass::default(); 8];
    let (mut count, mut outer, mut len) = (0, 0, n);
    for layers in schedule(n.ilog2() - TAIL) {
        all[count] = Pass { layers, len };
        count += 1;
        if len > INNER {
            outer = count;
        }
        len >>= layers;
    }
    (all, count, outer)
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn ntt_forward(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_forward(plan, a, ahead);
    }
    let (t, v) = (Twiddles::new(plan.forward(), n), VMod::new(&plan.modulus));
    let (all, count, outer) = passes(n);
    // The blocks of a layer have twiddles from n / len on.
    let run = |pass: &Pass, data: &mut [u64], start: usize| {
        let at = (n + start) / pass.len;
        match (pass.layers, pass.len == n) {
            (3, true) => forward8::<true>(&v, data, pass.len, &t, at),
            (3, false) => forward8::<false>(&v, data, pass.len, &t, at),
            (_, true) => forward4::<true>(&v, data, pass.len, &t, at),
            (_, false) => forward4::<false>(&v, data, pass.len, &t, at),
        }
    };
    for pass in &all[..outer] {
        run(pass, a, 0);
    }
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        for pass in &all[outer..count] {
            run(pass, part, i * INNER);
        }
        forward_tail(&v, part, &t, (n + i * INNER) / GROUP);
    }
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn ntt_inverse(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_inverse(plan, a, ahead);
    }
    let (t, v) = (Twiddles::new(plan.inverse(), n), VMod::new(&plan.modulus));
    let (all, count, outer) = passes(n);
    let run = |pass: &Pass, data: &mut [u64], start: usize| {
        let at = (n + start) / pass.len;
        match (pass.layers, pass.len == n) {
            (3, true) => inverse8::<true>(&v, data, pass.len, &t, at),
            (3, false) => inverse8::<false>(&v, data, pass.len, &t, at),
            (_, true) => inverse4::<true>(&v, data, pass.len, &t, at),
            (_, false) => inverse4::<false>(&v, data, pass.len, &t, at),
        }
    };
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        inverse_tail(&v, part, &t, (n + i * INNER) / GROUP);
        for pass in all[outer..count].iter().rev() {
            run(pass, part, i * INNER);
        }
    }
    for pass in all[..outer].iter().rev() {
        run(pass, a, 0);
    }
}
