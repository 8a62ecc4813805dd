//! Element-wise operations and permutations. Steps of whole registers here, the rest by the portable kernel.

use std::arch::x86_64::*;

use super::arith::{VMod, lo, load, reduce_once, splat, store};
use crate::{
    Modulus, NttPermutation,
    automorphism::BLOCK,
    kernels::{Kernel, Portable, vector_loops::STEP_REGISTERS},
};

/// Residues in a register.
const LANES: usize = 8;

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(a, b, |x, y| v.add(x, y), |ta, tb| Portable
        .add_assign(m, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn sub_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(a, b, |x, y| v.sub(x, y), |ta, tb| Portable
        .sub_assign(m, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn neg_assign(m: &Modulus, a: &mut [u64]) {
    let v = VMod::new(m);
    in_place!(a, |x| reduce_once(_mm512_sub_epi64(v.p, x), v.p), |ta| {
        Portable.neg_assign(m, ta)
    });
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(out, a, b, |x, y| v.add(x, y), |to, ta, tb| Portable
        .add(m, to, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn sub(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(out, a, b, |x, y| v.sub(x, y), |to, ta, tb| Portable
        .sub(m, to, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(out, a, b, |x, y| v.mul(x, y), |to, ta, tb| Portable
        .mul(m, to, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(a, b, |x, y| v.mul(x, y), |ta, tb| Portable
        .mul_assign(m, ta, tb));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    let zero = _mm512_setzero_si512();
    in_place!(
        acc,
        a,
        b,
        |sum, x, y| v.reduce_sums(super::arith::hi(zero, x, y), lo(sum, x, y)),
        |tacc, ta, tb| Portable.mul_add_assign(m, tacc, ta, tb)
    );
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    let v = VMod::new(m);
    let (w, ws) = (splat(c), splat(m.shoup(c)));
    in_place!(a, |x| reduce_once(v.shoup(w, ws, x), v.p), |ta| Portable
        .mul_scalar_assign(m, ta, c));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_scalar(m: &Modulus, out: &mut [u64], a: &[u64], c: u64) {
    let v = VMod::new(m);
    let (w, ws) = (splat(c), splat(m.shoup(c)));
    out_of_place!(out, a, |x| reduce_once(v.shoup(w, ws, x), v.p), |to, ta| {
        Portable.mul_scalar(m, to, ta, c)
    });
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn mul_scalar_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], c: u64) {
    let v = VMod::new(m);
    let (w, ws) = (splat(c), splat(m.shoup(c)));
    in_place!(
        acc,
        a,
        |x, y| v.reduce_4p(_mm512_add_epi64(x, v.shoup(w, ws, y))),
        |tacc, ta| Portable.mul_scalar_add_assign(m, tacc, ta, c)
    );
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn sub_mul_scalar_assign(m: &Modulus, a: &mut [u64], b: &[u64], c: u64) {
    let v = VMod::new(m);
    let (w, ws) = (splat(c), splat(m.shoup(c)));
    in_place!(
        a,
        b,
        |x, y| {
            let d = _mm512_sub_epi64(_mm512_add_epi64(x, v.p), y);
            reduce_once(v.shoup(w, ws, d), v.p)
        },
        |ta, tb| Portable.sub_mul_scalar_assign(m, ta, tb, c)
    );
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn add_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    let v = VMod::new(m);
    let w = splat(c);
    in_place!(a, |x| v.add(x, w), |ta| Portable
        .add_scalar_assign(m, ta, c));
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn reduce_centred(m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]) {
    let v = VMod::new(m);
    let (half, whole) = (splat(from.value() / 2), splat(m.reduce(from.value())));
    out_of_place!(
        out,
        a,
        |x| {
            let above = _mm512_cmpgt_epu64_mask(x, half);
            v.sub(v.reduce(x), _mm512_maskz_mov_epi64(above, whole))
        },
        |to, ta| Portable.reduce_centred(m, from, to, ta)
    );
}

#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn permute(permutation: &NttPermutation, out: &mut [u64], a: &[u64]) {
    if permutation.n() < BLOCK {
        return Portable.permute(permutation, out, a);
    }
    let orders = permutation.lanes().each_ref().map(|order| load(order));
    let source = a.as_chunks::<8>().0;
    for (out, &entry) in out
        .as_chunks_mut::<8>()
        .0
        .iter_mut()
        .zip(permutation.blocks())
    {
        let (block, order) = (entry as usize / BLOCK, entry as usize % BLOCK);
        store(
            out,
            _mm512_permutexvar_epi64(orders[order], load(&source[block])),
        );
    }
}
