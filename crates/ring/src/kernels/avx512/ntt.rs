//! The transform by passes of three (or two) layers over registers.
//!
//! A transform of `n = 2^L >= 256` residues runs `L - 6` layers in passes of radix 8 and 4, which hold 8 or 4 registers of
//! the block and multiply by broadcast twiddles, and the last six layers in one tail pass: three more layers, a transposition
//! of 8 x 8 words, and three layers whose twiddles differ lane by lane. Blocks of at most [`INNER`] residues go through all
//! their remaining passes while they are in the first-level cache. Between layers residues are in `[0, 4p)` (forward) or
//! `[0, 2p)` (inverse). The inverse runs the same structure backwards.
//!
//! Lane twiddles are kept in Montgomery form, one word instead of a word and a Shoup quotient: the tables of many primes do
//! not fit into the caches, and reading them costs more than one more multiplication.

use std::arch::x86_64::*;

use super::arith::{V, VMod, hi, lo, reduce_once, splat, transpose};
use crate::{
    Modulus,
    kernels::{Kernel, NttPlan, Portable, portable::root_table},
    memory::AlignedWords,
};

/// Smallest transform of this kernel; smaller ones are portable.
const MIN: usize = 256;

/// Residues that stay in the first-level cache (32 KiB).
const INNER: usize = 4096;

/// Residues that the tail pass holds in registers.
const GROUP: usize = 64;

/// Layers of each pass before the tail, for `layers` layers in all: radix 4 first, so that blocks become small soon.
fn schedule(layers: u32) -> impl Iterator<Item = u32> + Clone {
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

/// Tables: for each pass, for each block, the twiddles of its layers and then their quotients; for the tail, per group of 64,
/// 14 such words padded to 16, and 7 registers of lane twiddles in Montgomery form.
pub(super) fn plan(n: usize, m: &Modulus, psi: u64) -> NttPlan {
    if n < MIN {
        return Portable.ntt_plan(n, m, psi);
    }
    let scale = m.inv(m.reduce(n as u64));
    NttPlan {
        n,
        modulus: *m,
        forward: table(n, m, &root_table(n, m, psi)),
        inverse: table(n, m, &root_table(n, m, m.inv(psi))),
        scale: (scale, m.shoup(scale)),
    }
}

/// Words per group of the tail.
const TAIL_BROADCAST: usize = 16;
const TAIL_LANES: usize = 56;

fn table(n: usize, m: &Modulus, roots: &[u64]) -> AlignedWords {
    let (roots, quotients) = roots.split_at(n);
    let layers = n.ilog2() - 6;
    let groups = n / GROUP;
    let montgomery = m.reduce(1 << 52);
    let mut out = Vec::new();
    // The indices of the twiddles of a block: 1 in the first layer, 2 in the second, ...
    let indices = |blocks: usize, block: usize, layers: u32| {
        (0..layers).flat_map(move |l| (0..1usize << l).map(move |j| ((blocks + block) << l) + j))
    };
    for group in 0..groups {
        out.extend(indices(groups, group, 3).map(|i| roots[i]));
        out.push(0);
        out.extend(indices(groups, group, 3).map(|i| quotients[i]));
        out.push(0);
    }
    for group in 0..groups {
        for l in 0..3 {
            for j in 0..1usize << l {
                let index = |lane: usize| ((n / 8 + 8 * group + lane) << l) + j;
                out.extend((0..8).map(|lane| m.mul(roots[index(lane)], montgomery)));
            }
        }
    }
    let mut blocks = 1;
    for pass in schedule(layers) {
        for block in 0..blocks {
            out.extend(indices(blocks, block, pass).map(|i| roots[i]));
            out.extend(indices(blocks, block, pass).map(|i| quotients[i]));
        }
        blocks <<= pass;
    }
    AlignedWords::copied(&out)
}

/// A modulus and its inverse modulo 2^52.
#[derive(Clone, Copy)]
struct VMont {
    v: VMod,
    inverse: V,
}

impl VMont {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn new(m: &Modulus) -> Self {
        // Newton: each step doubles the number of correct low bits; p itself is right to 3 bits.
        let p = m.value();
        let mut inverse = p;
        for _ in 0..5 {
            inverse = inverse.wrapping_mul(2u64.wrapping_sub(p.wrapping_mul(inverse)));
        }
        Self {
            v: VMod::new(m),
            inverse: splat(inverse & ((1 << 52) - 1)),
        }
    }

    /// `w y 2^-52` in `(-p, p)` plus `acc`, for `y < 2^52`.
    #[inline]
    #[target_feature(enable = "avx512f,avx512ifma")]
    fn mul_add(&self, acc: V, w: V, y: V) -> V {
        let zero = _mm512_setzero_si512();
        let q = lo(zero, lo(zero, w, y), self.inverse);
        _mm512_sub_epi64(hi(acc, w, y), hi(zero, q, self.v.p))
    }
}

/// `(x + w y, x - w y)`: `x, y` in `[0, 4p)`, results too.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly(v: &VMod, x: V, y: V, w: V, ws: V) -> (V, V) {
    let x = reduce_once(x, v.p2);
    let t = v.shoup(w, ws, y);
    (
        _mm512_add_epi64(x, t),
        _mm512_sub_epi64(_mm512_add_epi64(x, v.p2), t),
    )
}

/// `(x + y, w (x - y))`: `x, y` in `[0, 2p)`, results too.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly_inverse(v: &VMod, x: V, y: V, w: V, ws: V) -> (V, V) {
    let difference = _mm512_sub_epi64(_mm512_add_epi64(x, v.p2), y);
    (
        reduce_once(_mm512_add_epi64(x, y), v.p2),
        v.shoup(w, ws, difference),
    )
}

/// As [`butterfly`] with a twiddle in Montgomery form.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly_lanes(m: &VMont, x: V, y: V, w: V) -> (V, V) {
    let x = _mm512_add_epi64(reduce_once(x, m.v.p2), m.v.p);
    let sum = m.mul_add(x, w, y);
    (sum, _mm512_sub_epi64(_mm512_add_epi64(x, x), sum))
}

/// As [`butterfly_inverse`] with a twiddle in Montgomery form.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn butterfly_lanes_inverse(m: &VMont, x: V, y: V, w: V) -> (V, V) {
    let difference = _mm512_sub_epi64(_mm512_add_epi64(x, m.v.p2), y);
    (
        reduce_once(_mm512_add_epi64(x, y), m.v.p2),
        m.mul_add(m.v.p, w, difference),
    )
}

/// Twiddle `i` and its quotient, `gap` words further on.
///
/// # Safety
/// `twiddles` is valid for `gap + i + 1` words.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn twiddle(twiddles: *const u64, i: usize, gap: usize) -> (V, V) {
    // SAFETY: promised by the caller.
    unsafe { (splat(*twiddles.add(i)), splat(*twiddles.add(gap + i))) }
}

/// Three layers over eight registers.
///
/// # Safety
/// `twiddles` is valid for `gap + 7` words.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn radix8(v: &VMod, r: &mut [V; 8], twiddles: *const u64, gap: usize) {
    for l in 0..3 {
        let half = 4 >> l;
        for j in 0..1 << l {
            // SAFETY: the index is below 7.
            let (w, ws) = unsafe { twiddle(twiddles, (1 << l) - 1 + j, gap) };
            for i in 2 * half * j..2 * half * j + half {
                (r[i], r[i + half]) = butterfly(v, r[i], r[i + half], w, ws);
            }
        }
    }
}

/// Three inverse layers over eight registers.
///
/// # Safety
/// `twiddles` is valid for `gap + 7` words.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn radix8_inverse(v: &VMod, r: &mut [V; 8], twiddles: *const u64, gap: usize) {
    for l in (0..3).rev() {
        let half = 4 >> l;
        for j in 0..1 << l {
            // SAFETY: the index is below 7.
            let (w, ws) = unsafe { twiddle(twiddles, (1 << l) - 1 + j, gap) };
            for i in 2 * half * j..2 * half * j + half {
                (r[i], r[i + half]) = butterfly_inverse(v, r[i], r[i + half], w, ws);
            }
        }
    }
}

/// One forward pass of three layers over blocks of `len` residues.
///
/// # Safety
/// `len` is a multiple of 64 and divides `data.len()`; `twiddles` has 14 words for each block.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn forward8(v: &VMod, data: &mut [u64], len: usize, twiddles: &[u64]) {
    let stride = len / 8;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.chunks_exact(words(3)))
    {
        let start = block.as_mut_ptr();
        for at in (0..stride).step_by(8) {
            // SAFETY: row i occupies words i * stride .. (i + 1) * stride of the block, at + 8 <= stride; 14 twiddles.
            unsafe {
                let mut r: [V; 8] =
                    std::array::from_fn(|i| _mm512_loadu_si512(start.add(i * stride + at).cast()));
                radix8(v, &mut r, w.as_ptr(), 7);
                for (i, r) in r.into_iter().enumerate() {
                    _mm512_storeu_si512(start.add(i * stride + at).cast(), r);
                }
            }
        }
    }
}

/// One forward pass of two layers over blocks of `len` residues.
///
/// # Safety
/// `len` is a multiple of 32 and divides `data.len()`; `twiddles` has 6 words for each block.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn forward4(v: &VMod, data: &mut [u64], len: usize, twiddles: &[u64]) {
    let stride = len / 4;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.chunks_exact(words(2)))
    {
        let start = block.as_mut_ptr();
        // SAFETY: six twiddles.
        let [(w0, s0), (w1, s1), (w2, s2)] =
            std::array::from_fn(|i| unsafe { twiddle(w.as_ptr(), i, 3) });
        for at in (0..stride).step_by(8) {
            // SAFETY: row i occupies words i * stride .. (i + 1) * stride of the block, at + 8 <= stride.
            unsafe {
                let [a, b, c, d] =
                    std::array::from_fn(|i| _mm512_loadu_si512(start.add(i * stride + at).cast()));
                let (a, c) = butterfly(v, a, c, w0, s0);
                let (b, d) = butterfly(v, b, d, w0, s0);
                let (a, b) = butterfly(v, a, b, w1, s1);
                let (c, d) = butterfly(v, c, d, w2, s2);
                for (i, r) in [a, b, c, d].into_iter().enumerate() {
                    _mm512_storeu_si512(start.add(i * stride + at).cast(), r);
                }
            }
        }
    }
}

/// The last six forward layers and the canonical reduction.
///
/// # Safety
/// `data.len()` is a multiple of 64; for each group of 64, `broadcast` has 16 words and `lanes` 56.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn forward_tail(m: &VMont, data: &mut [u64], broadcast: &[u64], lanes: &[u64]) {
    let groups = data.as_chunks_mut::<GROUP>().0.iter_mut();
    let tables = broadcast
        .as_chunks::<TAIL_BROADCAST>()
        .0
        .iter()
        .zip(lanes.as_chunks::<TAIL_LANES>().0);
    for (group, (broadcast, lanes)) in groups.zip(tables) {
        let start = group.as_mut_ptr();
        // SAFETY: 64 residues, 8 + 7 words of twiddles, 7 registers of lane twiddles.
        unsafe {
            let mut r: [V; 8] =
                std::array::from_fn(|i| _mm512_loadu_si512(start.add(8 * i).cast()));
            radix8(&m.v, &mut r, broadcast.as_ptr(), 8);
            let mut r = transpose(r);
            for l in 0..3 {
                let half = 4 >> l;
                for j in 0..1 << l {
                    let w = _mm512_loadu_si512(lanes.as_ptr().add(8 * ((1 << l) - 1 + j)).cast());
                    for i in 2 * half * j..2 * half * j + half {
                        (r[i], r[i + half]) = butterfly_lanes(m, r[i], r[i + half], w);
                    }
                }
            }
            for (i, r) in transpose(r).into_iter().enumerate() {
                _mm512_storeu_si512(start.add(8 * i).cast(), m.v.reduce_4p(r));
            }
        }
    }
}

/// The first six inverse layers.
///
/// # Safety
/// As for [`forward_tail`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn inverse_tail(m: &VMont, data: &mut [u64], broadcast: &[u64], lanes: &[u64]) {
    let groups = data.as_chunks_mut::<GROUP>().0.iter_mut();
    let tables = broadcast
        .as_chunks::<TAIL_BROADCAST>()
        .0
        .iter()
        .zip(lanes.as_chunks::<TAIL_LANES>().0);
    for (group, (broadcast, lanes)) in groups.zip(tables) {
        let start = group.as_mut_ptr();
        // SAFETY: 64 residues, 8 + 7 words of twiddles, 7 registers of lane twiddles.
        unsafe {
            let r: [V; 8] = std::array::from_fn(|i| _mm512_loadu_si512(start.add(8 * i).cast()));
            let mut r = transpose(r);
            for l in (0..3).rev() {
                let half = 4 >> l;
                for j in 0..1 << l {
                    let w = _mm512_loadu_si512(lanes.as_ptr().add(8 * ((1 << l) - 1 + j)).cast());
                    for i in 2 * half * j..2 * half * j + half {
                        (r[i], r[i + half]) = butterfly_lanes_inverse(m, r[i], r[i + half], w);
                    }
                }
            }
            let mut r = transpose(r);
            radix8_inverse(&m.v, &mut r, broadcast.as_ptr(), 8);
            for (i, r) in r.into_iter().enumerate() {
                _mm512_storeu_si512(start.add(8 * i).cast(), r);
            }
        }
    }
}

/// One inverse pass of three layers over blocks of `len` residues.
///
/// # Safety
/// As for [`forward8`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn inverse8(v: &VMod, data: &mut [u64], len: usize, twiddles: &[u64]) {
    let stride = len / 8;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.chunks_exact(words(3)))
    {
        let start = block.as_mut_ptr();
        for at in (0..stride).step_by(8) {
            // SAFETY: row i occupies words i * stride .. (i + 1) * stride of the block, at + 8 <= stride; 14 twiddles.
            unsafe {
                let mut r: [V; 8] =
                    std::array::from_fn(|i| _mm512_loadu_si512(start.add(i * stride + at).cast()));
                radix8_inverse(v, &mut r, w.as_ptr(), 7);
                for (i, r) in r.into_iter().enumerate() {
                    _mm512_storeu_si512(start.add(i * stride + at).cast(), r);
                }
            }
        }
    }
}

/// One inverse pass of two layers over blocks of `len` residues.
///
/// # Safety
/// As for [`forward4`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
unsafe fn inverse4(v: &VMod, data: &mut [u64], len: usize, twiddles: &[u64]) {
    let stride = len / 4;
    for (block, w) in data
        .chunks_exact_mut(len)
        .zip(twiddles.chunks_exact(words(2)))
    {
        let start = block.as_mut_ptr();
        // SAFETY: six twiddles.
        let [(w0, s0), (w1, s1), (w2, s2)] =
            std::array::from_fn(|i| unsafe { twiddle(w.as_ptr(), i, 3) });
        for at in (0..stride).step_by(8) {
            // SAFETY: row i occupies words i * stride .. (i + 1) * stride of the block, at + 8 <= stride.
            unsafe {
                let [a, b, c, d] =
                    std::array::from_fn(|i| _mm512_loadu_si512(start.add(i * stride + at).cast()));
                let (a, b) = butterfly_inverse(v, a, b, w1, s1);
                let (c, d) = butterfly_inverse(v, c, d, w2, s2);
                let (a, c) = butterfly_inverse(v, a, c, w0, s0);
                let (b, d) = butterfly_inverse(v, b, d, w0, s0);
                for (i, r) in [a, b, c, d].into_iter().enumerate() {
                    _mm512_storeu_si512(start.add(i * stride + at).cast(), r);
                }
            }
        }
    }
}

/// Multiplies by `1/n` and reduces to canonical residues.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512ifma")]
fn scale(v: &VMod, data: &mut [u64], (c, cs): (u64, u64)) {
    let (c, cs) = (splat(c), splat(cs));
    for chunk in data.as_chunks_mut::<8>().0 {
        let x = super::arith::load(chunk);
        super::arith::store(chunk, reduce_once(v.shoup(c, cs, x), v.p));
    }
}

/// The parts of a table: tail broadcasts, tail lanes, passes.
fn parts(table: &[u64], n: usize) -> (&[u64], &[u64], &[u64]) {
    let groups = n / GROUP;
    let (broadcast, rest) = table.split_at(groups * TAIL_BROADCAST);
    let (lanes, passes) = rest.split_at(groups * TAIL_LANES);
    (broadcast, lanes, passes)
}

/// One pass: its layers, the length of its blocks, the place of its twiddles.
#[derive(Clone, Copy, Default)]
struct Pass {
    layers: u32,
    len: usize,
    offset: usize,
}

/// The passes before the tail, and how many of them have blocks larger than [`INNER`].
fn passes(n: usize) -> ([Pass; 8], usize, usize) {
    let mut all = [Pass::default(); 8];
    let (mut count, mut outer, mut len, mut offset) = (0, 0, n, 0);
    for layers in schedule(n.ilog2() - 6) {
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
pub(super) fn ntt_forward(plan: &NttPlan, a: &mut [u64]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_forward(plan, a);
    }
    let m = VMont::new(&plan.modulus);
    let (broadcast, lanes, twiddles) = parts(&plan.forward, n);
    let (all, count, outer) = passes(n);
    let run = |pass: &Pass, data: &mut [u64], start: usize| {
        let w = &twiddles[pass.offset + start / pass.len * words(pass.layers)..];
        // SAFETY: block lengths are powers of two of at least 256, and the table has the words of all blocks.
        unsafe {
            if pass.layers == 3 {
                forward8(&m.v, data, pass.len, w)
            } else {
                forward4(&m.v, data, pass.len, w)
            }
        }
    };
    for pass in &all[..outer] {
        run(pass, a, 0);
    }
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        let start = i * INNER;
        for pass in &all[outer..count] {
            run(pass, part, start);
        }
        let group = start / GROUP;
        // SAFETY: the part is a multiple of 64 long, and the table has the words of all groups.
        unsafe {
            forward_tail(
                &m,
                part,
                &broadcast[group * TAIL_BROADCAST..],
                &lanes[group * TAIL_LANES..],
            )
        }
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn ntt_inverse(plan: &NttPlan, a: &mut [u64]) {
    let n = plan.n;
    if n < MIN {
        return Portable.ntt_inverse(plan, a);
    }
    let m = VMont::new(&plan.modulus);
    let (broadcast, lanes, twiddles) = parts(&plan.inverse, n);
    let (all, count, outer) = passes(n);
    let run = |pass: &Pass, data: &mut [u64], start: usize| {
        let w = &twiddles[pass.offset + start / pass.len * words(pass.layers)..];
        // SAFETY: block lengths are powers of two of at least 256, and the table has the words of all blocks.
        unsafe {
            if pass.layers == 3 {
                inverse8(&m.v, data, pass.len, w)
            } else {
                inverse4(&m.v, data, pass.len, w)
            }
        }
    };
    for (i, part) in a.chunks_mut(INNER).enumerate() {
        let start = i * INNER;
        let group = start / GROUP;
        // SAFETY: the part is a multiple of 64 long, and the table has the words of all groups.
        unsafe {
            inverse_tail(
                &m,
                part,
                &broadcast[group * TAIL_BROADCAST..],
                &lanes[group * TAIL_LANES..],
            )
        }
        for pass in all[outer..count].iter().rev() {
            run(pass, part, start);
        }
    }
    for pass in all[..outer].iter().rev() {
        run(pass, a, 0);
    }
    scale(&m.v, a, plan.scale);
}
