//! The kernel for processors with AVX2 and FMA but without AVX-512 IFMA: four residues a register, products in double precision.
//!
//! AVX2 multiplies no integers above 32 bits, but it has the fused multiply-add, which gives the low half of a 106-bit product of
//! doubles exactly. Residues below 2^50 are integers that a double holds with three bits to spare, enough for lazy butterflies.
//! `arith` has the product and its bounds. Every operation measured faster here than in the portable kernel (transforms about five
//! times, products and sums of products three to seven times, additions and permutations, which wait for memory, one and a half to two
//! times; BENCHMARKS.md has the table), so only transforms below 128 residues and the ends of slices are left to that.

mod arith;
mod elementwise;
mod ntt;
mod sums;

use super::{Kernel, NttPlan};
use crate::{Modulus, NttPermutation, PackedLimb, base_conversion::BaseTables};

/// Four residues at a time with fused multiply-adds in double precision. A value exists only on machines that have them.
pub struct Avx2(());

static INSTANCE: Avx2 = Avx2(());

impl Avx2 {
    /// The kernel, if this machine has AVX2, FMA and BMI2.
    pub fn detect() -> Option<&'static Self> {
        let found = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("fma")
            && is_x86_feature_detected!("bmi2");
        found.then_some(&INSTANCE)
    }
}

impl Kernel for Avx2 {
    fn name(&self) -> &'static str {
        "avx2"
    }

    fn ntt_plan(&self, n: usize, m: &Modulus, psi: u64) -> NttPlan {
        ntt::plan(n, m, psi)
    }

    forward! {
        ntt::ntt_forward(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]);
        ntt::ntt_inverse(plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]);
        elementwise::add_assign(m: &Modulus, a: &mut [u64], b: &[u64]);
        elementwise::sub_assign(m: &Modulus, a: &mut [u64], b: &[u64]);
        elementwise::neg_assign(m: &Modulus, a: &mut [u64]);
        elementwise::add(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
        elementwise::sub(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
        elementwise::mul(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
        elementwise::mul_assign(m: &Modulus, a: &mut [u64], b: &[u64]);
        elementwise::mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]);
        elementwise::mul_scalar_assign(m: &Modulus, a: &mut [u64], c: u64);
        elementwise::mul_scalar(m: &Modulus, out: &mut [u64], a: &[u64], c: u64);
        elementwise::mul_scalar_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], c: u64);
        elementwise::sub_mul_scalar_assign(m: &Modulus, a: &mut [u64], b: &[u64], c: u64);
        elementwise::add_scalar_assign(m: &Modulus, a: &mut [u64], c: u64);
        elementwise::reduce_centred(m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]);
        elementwise::permute(permutation: &NttPermutation, out: &mut [u64], a: &[u64]);
        sums::inner_product(m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]);
        sums::inner_product_pair(m: &Modulus, out0: &mut [u64], out1: &mut [u64], a: &[&[u64]], b0: &[&[u64]], b1: &[&[u64]]);
        sums::inner_product_pair_packed(m: &Modulus, out0: &mut [u64], out1: &mut [u64], a: &[&[u64]], b0: &[PackedLimb<'_>], b1: &[PackedLimb<'_>]);
        sums::base_convert(t: &BaseTables, from: &[&[u64]], to: &mut [&mut [u64]]);
    }
}
