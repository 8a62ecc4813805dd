//! Element-wise operations and permutations. Steps of whole registers here, the rest by the portable kernel.

use std::arch::x86_64::*;

use super::arith::{Factor, LANES, VMod, load, signed_to_double, splat, store, to_double};
use crate::{
    Modulus, NttPermutation,
    automorphism::BLOCK,
    kernels::{Kernel, Portable, vector_loops::STEP_REGISTERS},
};

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn add_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(a, b, |x, y| v.add(x, y), |ta, tb| Portable
        .add_assign(m, ta, tb));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn sub_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(a, b, |x, y| v.sub(x, y), |ta, tb| Portable
        .sub_assign(m, ta, tb));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn neg_assign(m: &Modulus, a: &mut [u64]) {
    let v = VMod::new(m);
    let zero = _mm256_setzero_si256();
    in_place!(a, |x| v.sub(zero, x), |ta| Portable.neg_assign(m, ta));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn add(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(out, a, b, |x, y| v.add(x, y), |to, ta, tb| Portable
        .add(m, to, ta, tb));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn sub(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(out, a, b, |x, y| v.sub(x, y), |to, ta, tb| Portable
        .sub(m, to, ta, tb));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    out_of_place!(
        out,
        a,
        b,
        |x, y| v.canonical(v.mul_any(to_double(x), to_double(y))),
        |to, ta, tb| Portable.mul(m, to, ta, tb)
    );
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(
        a,
        b,
        |x, y| v.canonical(v.mul_any(to_double(x), to_double(y))),
        |ta, tb| Portable.mul_assign(m, ta, tb)
    );
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    let v = VMod::new(m);
    in_place!(
        acc,
        a,
        b,
        |sum, x, y| v.canonical(v.mul_any_add(to_double(x), to_double(y), to_double(sum))),
        |tacc, ta, tb| Portable.mul_add_assign(m, tacc, ta, tb)
    );
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    let (v, f) = (VMod::new(m), Factor::new(m, c));
    in_place!(a, |x| v.canonical(v.mul(to_double(x), f)), |ta| Portable
        .mul_scalar_assign(m, ta, c));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul_scalar(m: &Modulus, out: &mut [u64], a: &[u64], c: u64) {
    let (v, f) = (VMod::new(m), Factor::new(m, c));
    out_of_place!(out, a, |x| v.canonical(v.mul(to_double(x), f)), |to, ta| {
        Portable.mul_scalar(m, to, ta, c)
    });
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn mul_scalar_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], c: u64) {
    let (v, f) = (VMod::new(m), Factor::new(m, c));
    in_place!(
        acc,
        a,
        |x, y| v.canonical(v.mul_add(to_double(y), f, to_double(x))),
        |tacc, ta| Portable.mul_scalar_add_assign(m, tacc, ta, c)
    );
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn sub_mul_scalar_assign(m: &Modulus, a: &mut [u64], b: &[u64], c: u64) {
    let (v, f) = (VMod::new(m), Factor::new(m, c));
    in_place!(
        a,
        b,
        |x, y| v.canonical(v.mul(signed_to_double(_mm256_sub_epi64(x, y)), f)),
        |ta, tb| Portable.sub_mul_scalar_assign(m, ta, tb, c)
    );
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn add_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    let v = VMod::new(m);
    let c_word = _mm256_set1_epi64x(c as i64);
    in_place!(a, |x| v.add(x, c_word), |ta| Portable
        .add_scalar_assign(m, ta, c));
}

#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn reduce_centred(m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]) {
    let v = VMod::new(m);
    let (half, whole) = (splat((from.value() / 2) as f64), splat(from.value() as f64));
    out_of_place!(
        out,
        a,
        |x| {
            let x = to_double(x);
            let above = _mm256_cmp_pd::<_CMP_GT_OQ>(x, half);
            v.canonical(v.reduce(_mm256_sub_pd(x, _mm256_and_pd(above, whole))))
        },
        |to, ta| Portable.reduce_centred(m, from, to, ta)
    );
}

/// The automorphism takes aligned eights to aligned eights, and the halves of one as a whole: lane `l` comes from lane
/// `br(carry + g br(l))` with odd `g`, whose highest bit is that of `l` plus the lowest of `carry`.
#[target_feature(enable = "avx2,fma,bmi2")]
pub(super) fn permute(permutation: &NttPermutation, out: &mut [u64], a: &[u64]) {
    if permutation.n() < BLOCK {
        return Portable.permute(permutation, out, a);
    }
    // Per order: which source half each half of the output reads, and the places of its 32-bit words there.
    let orders = permutation.lanes().each_ref().map(|order| {
        let (low, high) = order.split_at(LANES);
        [low, high].map(|half| {
            let mut words = [0i32; 2 * LANES];
            for (pair, &lane) in words.chunks_exact_mut(2).zip(half) {
                let word = 2 * (lane as i32 % LANES as i32);
                pair.copy_from_slice(&[word, word + 1]);
            }
            // SAFETY: the array has 32 bytes; the load has no alignment requirement.
            let words = unsafe { _mm256_loadu_si256(words.as_ptr().cast()) };
            (half[0] as usize / LANES, words)
        })
    });
    let source = a.as_chunks::<LANES>().0.as_chunks::<2>().0;
    let (target, _) = out.as_chunks_mut::<LANES>();
    for (target, &entry) in target
        .as_chunks_mut::<2>()
        .0
        .iter_mut()
        .zip(permutation.blocks())
    {
        let block = &source[entry as usize / BLOCK];
        for (half, &(from, words)) in target.iter_mut().zip(&orders[entry as usize % BLOCK]) {
            store(
                half,
                _mm256_permutevar8x32_epi32(load(&block[from & 1]), words),
            );
        }
    }
}
