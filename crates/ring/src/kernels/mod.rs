//! The inner loops, once in portable Rust and once per vector unit, behind one trait.
//!
//! The portable kernel is the specification: every other one gives the same bits, which the tests check on random and on
//! extreme residues. [`avx512`] multiplies 52-bit integers; [`avx2`], which has no such products, multiplies in
//! double precision with exact remainders.
//!
//! **Forward transform** (Cooley and Tukey, decimation in time; twiddles in bit-reversed order; lazy as in Harvey, arXiv
//! 1205.2926), residues between layers in `[0, 4p)`:
//!
//! ```text
//! for blocks = 1, 2, 4, ... n/2:   half = n / (2 blocks)
//!   for each block i:              w = psi^br(blocks + i)
//!     for each j < half:           x = a[j] reduced to [0, 2p);  t = w a[j + half] in [0, 2p)
//!                                  a[j], a[j + half] = x + t, x - t + 2p
//! reduce all to [0, p)
//! ```
//!
//! **Inverse transform** (Gentleman and Sande), residues between layers in `[0, 2p)`:
//!
//! ```text
//! for blocks = n/2, ... 4, 2, 1:   half = n / (2 blocks)
//!   for each block i:              w = psi^-br(blocks + i)
//!     for each j < half:           a[j], a[j + half] = a[j] + a[j + half] reduced to [0, 2p), w (a[j] - a[j + half] + 2p)
//! multiply all by 1/n, reduce to [0, p)
//! ```
//!
//! **Product with a constant** `w` (Shoup): `w' = floor(w 2^52 / p)`; `q = floor(w' y / 2^52)`; `w y - q p` is in `[0, 2p)` for
//! all `y < 2^52`.
//!
//! **Sums of products**: products of residues are below 2^100; they are added without reduction, as 128-bit integers or as
//! two sums of 52-bit halves, and reduced once.
//!
//! **Base conversion**: for each tile of coefficients the scaled residues `y_i` and the quotient `v` (see
//! [`crate::BaseConverter`]), then for each target prime a sum of products of them with one row of a matrix.

#[cfg(target_arch = "x86_64")]
#[macro_use]
mod vector_loops;

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod portable;

use std::sync::OnceLock;

use crate::{
    Modulus, NttPermutation, PackedLimb, RingError, base_conversion::BaseTables,
    memory::AlignedWords,
};

pub use portable::Portable;

/// Tables of one transform, laid out by the kernel that made them.
pub struct NttPlan {
    /// Number of coefficients.
    pub(crate) n: usize,
    /// The modulus.
    pub(crate) modulus: Modulus,
    /// Twiddle factors: of the forward transform, then, from the middle on, of the inverse.
    pub(crate) twiddles: AlignedWords,
    /// `1/n` and its Shoup quotient.
    pub(crate) scale: (u64, u64),
}

impl NttPlan {
    /// Twiddle factors of the forward transform.
    #[inline]
    pub(crate) fn forward(&self) -> &[u64] {
        &self.twiddles[..self.twiddles.len() / 2]
    }

    /// Twiddle factors of the inverse transform.
    #[inline]
    pub(crate) fn inverse(&self) -> &[u64] {
        &self.twiddles[self.twiddles.len() / 2..]
    }
}

/// The inner loops. Residues in and out are canonical. The slices of one call have the same length, that of a transform `n`;
/// a kernel may panic if they do not. [`crate::ops`] and the types of this crate are the checked way in.
pub trait Kernel: Send + Sync {
    /// Name for `TACIT_KERNEL` and reports.
    fn name(&self) -> &'static str;

    /// Tables of the transform with the primitive `2n`-th root `psi`.
    fn ntt_plan(&self, n: usize, m: &Modulus, psi: u64) -> NttPlan;
    /// Forward transform in place. What is needed next (`ahead`) comes from memory into the cache meanwhile, since arithmetic and memory would
    /// take turns otherwise: a hint, which a kernel may ignore.
    fn ntt_forward(&self, plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]);
    /// Inverse transform in place; `ahead` as for [`ntt_forward`](Self::ntt_forward).
    fn ntt_inverse(&self, plan: &NttPlan, a: &mut [u64], ahead: &[&[u64]]);

    /// `a += b`.
    fn add_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]);
    /// `a -= b`.
    fn sub_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]);
    /// `a = -a`.
    fn neg_assign(&self, m: &Modulus, a: &mut [u64]);
    /// `out = a + b`.
    fn add(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
    /// `out = a - b`.
    fn sub(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
    /// `out = a b`.
    fn mul(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]);
    /// `a *= b`.
    fn mul_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]);
    /// `acc += a b`.
    fn mul_add_assign(&self, m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]);
    /// `a *= c`.
    fn mul_scalar_assign(&self, m: &Modulus, a: &mut [u64], c: u64);
    /// `out = a c`.
    fn mul_scalar(&self, m: &Modulus, out: &mut [u64], a: &[u64], c: u64);
    /// `acc += a c`.
    fn mul_scalar_add_assign(&self, m: &Modulus, acc: &mut [u64], a: &[u64], c: u64);
    /// `a = (a - b) c`.
    fn sub_mul_scalar_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64], c: u64);
    /// `a += c`.
    fn add_scalar_assign(&self, m: &Modulus, a: &mut [u64], c: u64);
    /// `out = a mod m` for residues `a` modulo `from`, taken in `(-from/2, from/2)`.
    fn reduce_centred(&self, m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]);
    /// `out = sum_k a[k] b[k]`.
    fn inner_product(&self, m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]);
    /// `out0 = sum_k a[k] b0[k]`, `out1 = sum_k a[k] b1[k]`.
    fn inner_product_pair(
        &self,
        m: &Modulus,
        out0: &mut [u64],
        out1: &mut [u64],
        a: &[&[u64]],
        b0: &[&[u64]],
        b1: &[&[u64]],
    );
    /// The same where `b0` and `b1` are packed, with the bits of the modulus.
    fn inner_product_pair_packed(
        &self,
        m: &Modulus,
        out0: &mut [u64],
        out1: &mut [u64],
        a: &[&[u64]],
        b0: &[PackedLimb<'_>],
        b1: &[PackedLimb<'_>],
    );
    /// Centred conversion between RNS bases.
    fn base_convert(&self, t: &BaseTables, from: &[&[u64]], to: &mut [&mut [u64]]);
    /// The block permutation of an automorphism.
    fn permute(&self, permutation: &NttPermutation, out: &mut [u64], a: &[u64]);
}

/// The kernels this machine can run, the fastest first.
pub fn available() -> Vec<&'static dyn Kernel> {
    let mut all: Vec<&'static dyn Kernel> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = avx512::Avx512::detect() {
        all.push(kernel);
    }
    #[cfg(target_arch = "x86_64")]
    if let Some(kernel) = avx2::Avx2::detect() {
        all.push(kernel);
    }
    all.push(&Portable);
    all
}

/// The kernel of a name.
///
/// # Errors
/// [`RingError::Kernel`] if this machine has no such kernel.
pub fn by_name(name: &str) -> Result<&'static dyn Kernel, RingError> {
    let all = available();
    all.iter()
        .find(|k| k.name() == name)
        .copied()
        .ok_or_else(|| RingError::Kernel {
            name: name.to_owned(),
            available: all.iter().map(|k| k.name()).collect::<Vec<_>>().join(", "),
        })
}

/// The kernel in use: the one that the environment variable `TACIT_KERNEL` names, else the fastest this machine can run.
/// Picked once per process. A name that is not available gives the portable kernel and a line on standard error.
pub fn active() -> &'static dyn Kernel {
    static ACTIVE: OnceLock<&'static dyn Kernel> = OnceLock::new();
    *ACTIVE.get_or_init(|| match std::env::var("TACIT_KERNEL") {
        Ok(name) if !name.is_empty() => by_name(&name).unwrap_or_else(|error| {
            eprintln!("TACIT_KERNEL: {error}; using the portable kernel");
            &Portable
        }),
        _ => available()[0],
    })
}
