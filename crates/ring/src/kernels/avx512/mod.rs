//! The kernel for processors with AVX-512 IFMA: eight residues a register, 52-bit products.

mod arith;
mod elementwise;
mod ntt;
mod sums;

use super::{Kernel, NttPlan};
use crate::{Modulus, NttPermutation, PackedLimb, base_conversion::BaseTables};

/// Eight residues at a time with 52-bit multiply-add instructions. A value exists only on machines that have them.
pub struct Avx512(());

static INSTANCE: Avx512 = Avx512(());

impl Avx512 {
    /// The kernel, if this machine has AVX-512 F, DQ, IFMA and VBMI (which came with IFMA).
    pub fn detect() -> Option<&'static Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512ifma")
            && is_x86_feature_detected!("avx512vbmi");
        found.then_some(&INSTANCE)
    }
}

impl Kernel for Avx512 {
    fn name(&self) -> &'static str {
        "avx512"
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
