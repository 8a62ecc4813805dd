//! The transform by passes of three (or two) layers over registers.
//!
//! A transform of `n = 2^L >= 64` residues runs `L - 3` layers in passes of radix 4 and 8, which hold 4 or 8 registers of a
//! block and multiply by broadcast twiddles. The tail pass transposes 8 x 8 words, runs the last three layers with twiddles
//! that differ lane by lane, and transposes back:
//!
//! ```text
//! n = 2^16:   4 . 4 .     | for each of 16 blocks of 4096 residues:   8 . 8 . 8 . (transpose, 8, transpose)
//! ```
//!
//! Blocks of at most [`INNER`] residues go through all their remaining passes while they are in the first-level cache.
//! Between layers residues are in `[0, 4p)` (forward) or `[0, 2p)` (inverse). The inverse runs the same structure backwards
//! and multiplies by `1/n` in its last layer.
//!
//! Tables of many primes do not fit into the caches, and under load reading them costs more than arithmetic. So of the seven
//! lane twiddles of a tail block only one is stored, in Montgomery form, and the others are computed: with `W` the root of
//! the last layer's first butterfly, `i = psi^(n/2)` and `z = psi^(n/4)`, they are
//!
//! ```text
//! layer 1: W^4      layer 2: W^2, i W^2      layer 3: W, i W, z W, i z W
//! ```

use std::arch::x86_64::*;

use super::arith::{V, VMod, hi, lo, load, reduce_once, splat, store, transpose};
use crate::{
    Modulus,
    kernels::{Kernel, NttPlan, Portable, portable::root_table},
    memory::AlignedWords,
};

/// Smallest transform of this kernel; smaller ones are portable.
const MIN: usize = 64;

/// Residues that stay in the first-level cache (32 KiB).
const INNER: usize = 4096;

/// Residues that the tail pass holds in registers.
const GROUP: usize = 64;

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

/// Words of twiddles (with Shoup quotients) of one block in a pass over `layers` layers.
const fn words(layers: u32) -> usize {
    2 * ((1 << layers) - 1)
}

/// Tables, for each direction: `i`, `z`, `1/n` and `i/n` with their quotients; one register of lane twiddles for each tail
/// block; for each pass, for each block, the twiddles of its layers and then their quotients.
pub(super) fn plan(n: usize, m: &Modulus, psi: u64) -> NttPlan {
    if n < MIN {
        return Portable.ntt_plan(n, m, psi);
    }
    let scale = m.inv(m.reduce(n as u64));
    let [forward, inverse] =
        [psi, m.inv(psi)].map(|root| table(n, m, &root_table(n, m, root), scale));
    NttPlan {
        n,
        modulus: *m,
        twiddles: AlignedWords::table(&[forward, inverse].concat()),
        scale: (scale, m.shoup(scale)),
    }
}

/// Words before the lane twiddles.
const HEADER: usize = 8;

fn table(n: usize, m: &Modulus, roots: &[u64], scale: u64) -> Vec<u64> {
    let (roots, quotients) = roots.split_at(n);
    let montgomery = m.reduce(1 << 52);
    let mut out = Vec::new();
    for constant in [roots[1], roots[2], scale, m.mul(scale, roots[1])] {
        out.extend([constant, m.shoup(constant)]);
    }
    out.extend((n / 2..n).step_by(4).map(|i| m.mul(roots[i], montgomery)));
    let mut blocks = 1;
    for layers in schedule(n.ilog2() - 3) {
        for block in 0..blocks {
            // 1 twiddle in the first layer, 2 in the second, ...
            let indices = (0..layers)
                .flat_map(|l| (0..1usize << l).map(move |j| ((blocks + block) << l) + j));
            out.extend(indices.clone().map(|i| roots[i]));
            out.extend(indices.map(|i| quotients[i]));
        }
        blocks <<= layers;
    }
    out
}

/// A table in its parts.
#[derive(Clone, Copy)]
struct Twiddles<'a> {
    header: &'a [u64],
    /// One register per group.
    lanes: &'a [[u64; 8]],
    passes: &'a [u64],
}

impl<'a> Twiddles<'a> {
    fn new(table: &'a [u64], n: usize) -> Self {
        let (header, rest) = table.split_at(HEADER);
        let (lanes, passes) = rest.split_at(n / 8);
        Self {
            header,
            lanes: lanes.as_chunks().0,
            passes,
        }
    }

    /// Constant `k` of the header and its quotient.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn constant(&self, k: usize) -> (V, V) {
        (splat(self.header[2 * k]), splat(self.header[2 * k + 1]))
    }
}

/// A modulus with what the tail needs: its inverse modulo 2^52, and `i` and `z` with their quotients.
#[derive(Clone, Copy)]
struct Tail {
    v: VMod,
    inverse: V,
    i: (V, V),
    z: (V, V),
}

impl Tail {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus, twiddles: &Twiddles) -> Self {
        // Newton: each step doubles the number of correct low bits; p itself is right to 3 bits.
        let p = m.value();
        let mut inverse = p;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(inverse)));
        }
        let inverse = splat(inverse & ((1 << 52) - 1));
        Self {
            v: VMod::new(m),
            inverse,
            i: twiddles.constant(0),
            z: twiddles.constant(1),
        }
    }

    /// `w y 2^-52` in `(-p, p)` plus `acc`, for `w < p` and `y < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn mul_add(&self, acc: V, w: V, y: V) -> V {
        let zero = _mm512_setzero_si512();
        let q = lo(zero, lo(zero, w, y), self.inverse);
        _mm512_sub_epi64(hi(acc, w, y), hi(zero, q, self.v.p))
    }

    /// `w^2 2^-52`, canonical.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn square(&self, w: V) -> V {
        reduce_once(self.mul_add(self.v.p, w, w), self.v.p)
    }

    /// The twiddles of three layers from the first one of the last layer.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn lane_twiddles(&self, w: V) -> [V; 7] {
        let times = |(c, cs): (V, V), w: V| reduce_once(self.v.shoup(c, cs, w), self.v.p);
        let square = self.square(w);
        let z = times(self.z, w);
        [
            self.square(square),
            square,
            times(self.i, square),
            w,
            times(self.i, w),
            z,
            times(self.i, z),
        ]
    }

    /// `(x + w y, x - w y)` with a lane twiddle: `x, y` in `[0, 4p)`, results too.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn butterfly(&self, x: V, y: V, w: V) -> (V, V) {
        let x = _mm512_add_epi64(reduce_once(x, self.v.p2), self.v.p);
        let sum = self.mul_add(x, w, y);
        (sum, _mm512_sub_epi64(_mm512_add_epi64(x, x), sum))
    }

    /// `(x + y, w (x - y))` with a lane twiddle: `x, y` in `[0, 2p)`, results too.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn butterfly_inverse(&self, x: V, y: V, w: V) -> (V, V) {
        let difference = _mm512_sub_epi64(_mm512_add_epi64(x, self.v.p2), y);
        (
            reduce_once(_mm512_add_epi64(x, y), self.v.p2),
            self.mul_add(self.v.p, w, difference),
        )
    }
}

/// `(x + w y, x - w y)`. `y` is in `[0, 4p)`, and so are the results; `x` too unless `REDUCED`, then it is in `[0, 2p)`.
/// With `NEXT` the difference is in `[0, 2p)`, which costs one operation less here than at its next use.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly<const REDUCED: bool, const NEXT: bool>(
    v: &VMod,
    x: V,
    y: V,
    (w, ws): (V, V),
) -> (V, V) {
    let x = if REDUCED { x } else { reduce_once(x, v.p2) };
    let t = v.shoup(w, ws, y);
    let difference = if NEXT {
        // Below zero it is a huge unsigned number, so that the least of the two is in [0, 2p).
        let d = _mm512_sub_epi64(x, t);
        _mm512_min_epu64(d, _mm512_add_epi64(d, v.p2))
    } else {
        _mm512_sub_epi64(_mm512_add_epi64(x, v.p2), t)
    };
    (_mm512_add_epi64(x, t), difference)
}

/// `(x + y, w (x - y))`: `x, y` in `[0, 2p)`, results too.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly_inverse(v: &VMod, x: V, y: V, (w, ws): (V, V)) -> (V, V) {
    let difference = _mm512_sub_epi64(_mm512_add_epi64(x, v.p2), y);
    (
        reduce_once(_mm512_add_epi64(x, y), v.p2),
        v.shoup(w, ws, difference),
    )
}

/// The last inverse layer with the factor `c = 1/n`: `(c (x + y), c w (x - y))`, canonical; the twiddle is `c w`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly_scale(v: &VMod, x: V, y: V, (c, cs): (V, V), (w, ws): (V, V)) -> (V, V) {
    let difference = _mm512_sub_epi64(_mm512_add_epi64(x, v.p2), y);
    let sum = v.shoup(c, cs, _mm512_add_epi64(x, y));
    (
        reduce_once(sum, v.p),
        reduce_once(v.shoup(w, ws, difference), v.p),
    )
}

/// Twiddle `i` of a block and its quotient.
#[inline]
#[target_feature(enable = "avx512f")]
fn twiddle<const WORDS: usize>(block: &[u64; WORDS], i: usize) -> (V, V) {
    (splat(block[i]), splat(block[WORDS / 2 + i]))
}

/// The registers at `at` of the rows of a block, `stride` words apart.
///
/// # Safety
/// `start` is valid for `R * stride` words, and `at + 8 <= stride`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn load_rows<const R: usize>(start: *const u64, stride: usize, at: usize) -> [V; R] {
    // SAFETY: i * stride + at + 8 <= R * stride.
    std::array::from_fn(|i| unsafe { _mm512_loadu_si512(start.add(i * stride + at).cast()) })
}

/// Writes the registers at `at` of the rows of a block.
///
/// # Safety
/// As for [`load_rows`], and the words may be written.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn store_rows<const R: usize>(start: *mut u64, stride: usize, at: usize, rows: [V; R]) {
    for (i, row) in rows.into_iter().enumerate() {
        // SAFETY: i * stride + at + 8 <= R * stride.
        unsafe { _mm512_storeu_si512(start.add(i * stride + at).cast(), row) }
    }
}

/// Words of a cache line.
const LINE: usize = 8;

/// Cache lines that a radix-8 pass asks for with each eight vectors it transforms: more would wait for memory longer than there is arithmetic.
const LINES: usize = 6;

/// What is needed after a transform, in pieces.
struct Ahead<'a> {
    /// What is left of the slice at hand.
    now: &'a [u64],
    then: std::slice::Iter<'a, &'a [u64]>,
}

impl<'a> Ahead<'a> {
    fn new(slices: &'a [&'a [u64]]) -> Self {
        Self {
            now: &[],
            then: slices.iter(),
        }
    }

    /// The piece for a radix-8 pass over so many words.
    fn take(&mut self, words: usize) -> &'a [u64] {
        if self.now.is_empty() {
            self.now = self.then.next().copied().unwrap_or_default();
        }
        let piece = words / 64 * LINES * LINE;
        let (piece, rest) = self.now.split_at(piece.min(self.now.len()));
        self.now = rest;
        piece
    }
}

/// Asks for some cache lines.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn prefetch(lines: Option<&[u64]>) {
    for line in lines.unwrap_or_default().chunks_exact(LINE) {
        _mm_prefetch::<_MM_HINT_T1>(line.as_ptr().cast());
    }
}

/// One forward pass of three layers over blocks of `len` residues, a multiple of 64; `FIRST`: over canonical residues. `ahead` comes into the
/// cache meanwhile.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward8<const FIRST: bool>(
    v: &VMod,
    data: &mut [u64],
    len: usize,
    twiddles: &[u64],
    ahead: &[u64],
) {
    let stride = len / 8;
    let mut ahead = ahead.chunks_exact(LINES * LINE);
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.as_chunks::<{ words(3) }>().0)
    {
        let start = block.as_mut_ptr();
        let w: [(V, V); 7] = std::array::from_fn(|i| twiddle(w, i));
        for at in (0..stride / 8).map(|i| 8 * i) {
            prefetch(ahead.next());
            // SAFETY: the block has 8 * stride words, and at + 8 <= stride.
            let [a, b, c, d, e, f, g, h] = unsafe { load_rows(start, stride, at) };
            let (a, e) = butterfly::<FIRST, true>(v, a, e, w[0]);
            let (b, f) = butterfly::<FIRST, true>(v, b, f, w[0]);
            let (c, g) = butterfly::<FIRST, false>(v, c, g, w[0]);
            let (d, h) = butterfly::<FIRST, false>(v, d, h, w[0]);
            let (a, c) = butterfly::<false, true>(v, a, c, w[1]);
            let (b, d) = butterfly::<false, false>(v, b, d, w[1]);
            let (e, g) = butterfly::<true, true>(v, e, g, w[2]);
            let (f, h) = butterfly::<true, false>(v, f, h, w[2]);
            let (a, b) = butterfly::<false, false>(v, a, b, w[3]);
            let (c, d) = butterfly::<true, false>(v, c, d, w[4]);
            let (e, f) = butterfly::<false, false>(v, e, f, w[5]);
            let (g, h) = butterfly::<true, false>(v, g, h, w[6]);
            // SAFETY: as above; the block is borrowed exclusively.
            unsafe { store_rows(start, stride, at, [a, b, c, d, e, f, g, h]) }
        }
    }
}

/// One forward pass of two layers over blocks of `len` residues, a multiple of 32; `FIRST`: over canonical residues.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward4<const FIRST: bool>(v: &VMod, data: &mut [u64], len: usize, twiddles: &[u64]) {
    let stride = len / 4;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.as_chunks::<{ words(2) }>().0)
    {
        let start = block.as_mut_ptr();
        let w: [(V, V); 3] = std::array::from_fn(|i| twiddle(w, i));
        for at in (0..stride / 8).map(|i| 8 * i) {
            // SAFETY: the block has 4 * stride words, and at + 8 <= stride.
            let [a, b, c, d] = unsafe { load_rows(start, stride, at) };
            let (a, c) = butterfly::<FIRST, true>(v, a, c, w[0]);
            let (b, d) = butterfly::<FIRST, false>(v, b, d, w[0]);
            let (a, b) = butterfly::<false, false>(v, a, b, w[1]);
            let (c, d) = butterfly::<true, false>(v, c, d, w[2]);
            // SAFETY: as above; the block is borrowed exclusively.
            unsafe { store_rows(start, stride, at, [a, b, c, d]) }
        }
    }
}

/// The last three forward layers and the canonical reduction.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn forward_tail(t: &Tail, data: &mut [u64], lanes: &[[u64; 8]]) {
    for (group, w) in data.as_chunks_mut::<GROUP>().0.iter_mut().zip(lanes) {
        let w = t.lane_twiddles(load(w));
        let rows = group.as_chunks_mut::<8>().0;
        let [a, b, c, d, e, f, g, h] = transpose(std::array::from_fn(|i| load(&rows[i])));
        let (a, e) = t.butterfly(a, e, w[0]);
        let (b, f) = t.butterfly(b, f, w[0]);
        let (c, g) = t.butterfly(c, g, w[0]);
        let (d, h) = t.butterfly(d, h, w[0]);
        let (a, c) = t.butterfly(a, c, w[1]);
        let (b, d) = t.butterfly(b, d, w[1]);
        let (e, g) = t.butterfly(e, g, w[2]);
        let (f, h) = t.butterfly(f, h, w[2]);
        let (a, b) = t.butterfly(a, b, w[3]);
        let (c, d) = t.butterfly(c, d, w[4]);
        let (e, f) = t.butterfly(e, f, w[5]);
        let (g, h) = t.butterfly(g, h, w[6]);
        for (row, r) in rows.iter_mut().zip(transpose([a, b, c, d, e, f, g, h])) {
            store(row, t.v.reduce_4p(r));
        }
    }
}

/// The first three inverse layers.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse_tail(t: &Tail, data: &mut [u64], lanes: &[[u64; 8]]) {
    for (group, w) in data.as_chunks_mut::<GROUP>().0.iter_mut().zip(lanes) {
        let w = t.lane_twiddles(load(w));
        let rows = group.as_chunks_mut::<8>().0;
        let [a, b, c, d, e, f, g, h] = transpose(std::array::from_fn(|i| load(&rows[i])));
        let (a, b) = t.butterfly_inverse(a, b, w[3]);
        let (c, d) = t.butterfly_inverse(c, d, w[4]);
        let (e, f) = t.butterfly_inverse(e, f, w[5]);
        let (g, h) = t.butterfly_inverse(g, h, w[6]);
        let (a, c) = t.butterfly_inverse(a, c, w[1]);
        let (b, d) = t.butterfly_inverse(b, d, w[1]);
        let (e, g) = t.butterfly_inverse(e, g, w[2]);
        let (f, h) = t.butterfly_inverse(f, h, w[2]);
        let (a, e) = t.butterfly_inverse(a, e, w[0]);
        let (b, f) = t.butterfly_inverse(b, f, w[0]);
        let (c, g) = t.butterfly_inverse(c, g, w[0]);
        let (d, h) = t.butterfly_inverse(d, h, w[0]);
        for (row, r) in rows.iter_mut().zip(transpose([a, b, c, d, e, f, g, h])) {
            store(row, r);
        }
    }
}

/// The factor `1/n` and the twiddle times `1/n` of the last inverse layer.
type Scale = [(V, V); 2];

/// One inverse pass of three layers over blocks of `len` residues, a multiple of 64; with `LAST` its last layer is scaled.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse8<const LAST: bool>(
    v: &VMod,
    data: &mut [u64],
    len: usize,
    twiddles: &[u64],
    scale: Scale,
    ahead: &[u64],
) {
    let stride = len / 8;
    let mut ahead = ahead.chunks_exact(LINES * LINE);
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.as_chunks::<{ words(3) }>().0)
    {
        let start = block.as_mut_ptr();
        let w: [(V, V); 7] = std::array::from_fn(|i| twiddle(w, i));
        let last = |x, y| {
            if LAST {
                butterfly_scale(v, x, y, scale[0], scale[1])
            } else {
                butterfly_inverse(v, x, y, w[0])
            }
        };
        for at in (0..stride / 8).map(|i| 8 * i) {
            prefetch(ahead.next());
            // SAFETY: the block has 8 * stride words, and at + 8 <= stride.
            let [a, b, c, d, e, f, g, h] = unsafe { load_rows(start, stride, at) };
            let (a, b) = butterfly_inverse(v, a, b, w[3]);
            let (c, d) = butterfly_inverse(v, c, d, w[4]);
            let (e, f) = butterfly_inverse(v, e, f, w[5]);
            let (g, h) = butterfly_inverse(v, g, h, w[6]);
            let (a, c) = butterfly_inverse(v, a, c, w[1]);
            let (b, d) = butterfly_inverse(v, b, d, w[1]);
            let (e, g) = butterfly_inverse(v, e, g, w[2]);
            let (f, h) = butterfly_inverse(v, f, h, w[2]);
            let (a, e) = last(a, e);
            let (b, f) = last(b, f);
            let (c, g) = last(c, g);
            let (d, h) = last(d, h);
            // SAFETY: as above; the block is borrowed exclusively.
            unsafe { store_rows(start, stride, at, [a, b, c, d, e, f, g, h]) }
        }
    }
}

/// One inverse pass of two layers over blocks of `len` residues, a multiple of 32; with `LAST` its last layer is scaled.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn inverse4<const LAST: bool>(
    v: &VMod,
    data: &mut [u64],
    len: usize,
    twiddles: &[u64],
    scale: Scale,
) {
    let stride = len / 4;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.as_chunks::<{ words(2) }>().0)
    {
        let start = block.as_mut_ptr();
        let w: [(V, V); 3] = std::array::from_fn(|i| twiddle(w, i));
        let last = |x, y| {
            if LAST {
                butterfly_scale(v, x, y, scale[0], scale[1])
            } else {
                butterfly_inverse(v, x, y, w[0])
            }
        };
        for at in (0..stride / 8).map(|i| 8 * i) {
            // SAFETY: the block has 4 * stride words, and at + 8 <= stride.
            let [a, b, c, d] = unsafe { load_rows(start, stride, at) };
            let (a, b) = butterfly_inverse(v, a, b, w[1]);
            let (c, d) = butterfly_inverse(v, c, d, w[2]);
            let (a, c) = last(a, c);
            let (b, d) = last(b, d);
            // SAFETY: as above; the block is borrowed exclusively.
            unsafe { store_rows(start, stride, at, [a, b, c, d]) }
        }
    }
}

/// One pass: its layers, the length of its blocks, the place of its twiddles.
#[derive(Clone, Copy, Default)]
struct Pass {
    layers: u32,
    len: usize,
    offset: usize,
}

/// The passes before the tail, how many there are, and how many of them have blocks larger than [`INNER`].
fn passes(n: usize) -> ([Pass; 8], usize, usize) {
    let mut all = [Pass::default(); 8];
    let (mut count, mut outer, mut len, mut offset) = (0, 0, n, 0);
    for layers in schedule(n.ilog2() - 3) {
        all[count] = Pass {
            layers,
            len,
            offset,
        };
        count += 1;
        if len > INNER {
            outer = count;
        }
        offset += n / len * words(layers);
        len >>= layers;
    }
    (all, count, outer)
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn ntt_forward(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_forward(plan, a, ahead);
    }
    let twiddles = Twiddles::new(plan.forward(), n);
    let t = Tail::new(&plan.modulus, &twiddles);
    let (all, count, outer) = passes(n);
    let mut ahead = Ahead::new(ahead);
    let mut run = |pass: &Pass, data: &mut [u64], start: usize| {
        let w = &twiddles.passes[pass.offset + start / pass.len * words(pass.layers)..];
        match (pass.layers, pass.len == n) {
            (3, true) => forward8::<true>(&t.v, data, pass.len, w, ahead.take(data.len())),
            (3, false) => forward8::<false>(&t.v, data, pass.len, w, ahead.take(data.len())),
            (_, true) => forward4::<true>(&t.v, data, pass.len, w),
            (_, false) => forward4::<false>(&t.v, data, pass.len, w),
        }
    };
    for pass in &all[..outer] {
        run(pass, a, 0);
    }
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        for pass in &all[outer..count] {
            run(pass, part, i * INNER);
        }
        forward_tail(&t, part, &twiddles.lanes[i * INNER / GROUP..]);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn ntt_inverse(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_inverse(plan, a, ahead);
    }
    let twiddles = Twiddles::new(plan.inverse(), n);
    let t = Tail::new(&plan.modulus, &twiddles);
    let scale = [twiddles.constant(2), twiddles.constant(3)];
    let (all, count, outer) = passes(n);
    let mut ahead = Ahead::new(ahead);
    let mut run = |pass: &Pass, data: &mut [u64], start: usize| {
        let w = &twiddles.passes[pass.offset + start / pass.len * words(pass.layers)..];
        match (pass.layers, pass.len == n) {
            (3, true) => inverse8::<true>(&t.v, data, pass.len, w, scale, ahead.take(data.len())),
            (3, false) => inverse8::<false>(&t.v, data, pass.len, w, scale, ahead.take(data.len())),
            (_, true) => inverse4::<true>(&t.v, data, pass.len, w, scale),
            (_, false) => inverse4::<false>(&t.v, data, pass.len, w, scale),
        }
    };
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        inverse_tail(&t, part, &twiddles.lanes[i * INNER / GROUP..]);
        for pass in all[outer..count].iter().rev() {
            run(pass, part, i * INNER);
        }
    }
    for pass in all[..outer].iter().rev() {
        run(pass, a, 0);
    }
}
