//! Element-wise arithmetic on slices of canonical residues modulo one prime.
//!
//! Every function takes residues in `[0, p)`, writes residues in `[0, p)`, and hands the work to the kernel picked at
//! run time (see [`crate::kernels`]). All slices of one call have the same length, any length.
//!
//! # Panics
//! All functions panic if the lengths of their slices differ.

use crate::{Modulus, PackedLimb, kernels};

#[inline(always)]
#[track_caller]
fn same(a: usize, b: usize) {
    assert!(a == b, "slices of residues differ in length: {a} and {b}");
}

/// `a += b`.
#[track_caller]
pub fn add_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    same(a.len(), b.len());
    kernels::active().add_assign(m, a, b);
}

/// `a -= b`.
#[track_caller]
pub fn sub_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    same(a.len(), b.len());
    kernels::active().sub_assign(m, a, b);
}

/// `a = -a`.
pub fn neg_assign(m: &Modulus, a: &mut [u64]) {
    kernels::active().neg_assign(m, a);
}

/// `out = a + b`.
#[track_caller]
pub fn add(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    same(out.len(), a.len());
    same(out.len(), b.len());
    kernels::active().add(m, out, a, b);
}

/// `out = a - b`.
#[track_caller]
pub fn sub(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    same(out.len(), a.len());
    same(out.len(), b.len());
    kernels::active().sub(m, out, a, b);
}

/// `out = a * b`, element by element.
#[track_caller]
pub fn mul(m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
    same(out.len(), a.len());
    same(out.len(), b.len());
    kernels::active().mul(m, out, a, b);
}

/// `a *= b`, element by element.
#[track_caller]
pub fn mul_assign(m: &Modulus, a: &mut [u64], b: &[u64]) {
    same(a.len(), b.len());
    kernels::active().mul_assign(m, a, b);
}

/// `acc += a * b`, element by element.
#[track_caller]
pub fn mul_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
    same(acc.len(), a.len());
    same(acc.len(), b.len());
    kernels::active().mul_add_assign(m, acc, a, b);
}

/// `a *= c` for a residue `c`.
pub fn mul_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    kernels::active().mul_scalar_assign(m, a, c);
}

/// `out = a * c` for a residue `c`.
#[track_caller]
pub fn mul_scalar(m: &Modulus, out: &mut [u64], a: &[u64], c: u64) {
    same(out.len(), a.len());
    kernels::active().mul_scalar(m, out, a, c);
}

/// `acc += a * c` for a residue `c`.
#[track_caller]
pub fn mul_scalar_add_assign(m: &Modulus, acc: &mut [u64], a: &[u64], c: u64) {
    same(acc.len(), a.len());
    kernels::active().mul_scalar_add_assign(m, acc, a, c);
}

/// `a = (a - b) * c` for a residue `c`: the last step of a division by a dropped modulus.
#[track_caller]
pub fn sub_mul_scalar_assign(m: &Modulus, a: &mut [u64], b: &[u64], c: u64) {
    same(a.len(), b.len());
    kernels::active().sub_mul_scalar_assign(m, a, b, c);
}

/// `a += c` for a residue `c`, in every element.
pub fn add_scalar_assign(m: &Modulus, a: &mut [u64], c: u64) {
    kernels::active().add_scalar_assign(m, a, c);
}

/// `out = a mod m` for residues `a` modulo another prime, taken as the integers of least absolute value: a conversion from a base of one prime,
/// always exact.
#[track_caller]
pub fn reduce_centred(m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]) {
    same(out.len(), a.len());
    kernels::active().reduce_centred(m, from, out, a);
}

/// `out = sum_k a[k] * b[k]`, element by element; the sum is kept unreduced and reduced once. `out` is overwritten.
///
/// Also panics if `a` and `b` have different numbers of rows. No rows give zero.
#[track_caller]
pub fn inner_product(m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]) {
    same(a.len(), b.len());
    a.iter().chain(b).for_each(|row| same(out.len(), row.len()));
    kernels::active().inner_product(m, out, a, b);
}

/// Two inner products with the same left side: `out0 = sum_k a[k] * b0[k]` and `out1 = sum_k a[k] * b1[k]`, each reduced
/// once. Both outputs are overwritten.
///
/// Also panics if `a`, `b0` and `b1` have different numbers of rows. No rows give zero.
#[track_caller]
pub fn inner_product_pair(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[&[u64]],
    b1: &[&[u64]],
) {
    same(a.len(), b0.len());
    same(a.len(), b1.len());
    same(out0.len(), out1.len());
    a.iter()
        .chain(b0)
        .chain(b1)
        .for_each(|row| same(out0.len(), row.len()));
    kernels::active().inner_product_pair(m, out0, out1, a, b0, b1);
}

/// [`inner_product_pair`] of rows with packed rows: the product of a decomposed polynomial with a switching key.
///
/// Also panics if `a`, `b0` and `b1` have different numbers of rows, or if packed residues are not as wide as the modulus.
#[track_caller]
pub fn inner_product_pair_packed(
    m: &Modulus,
    out0: &mut [u64],
    out1: &mut [u64],
    a: &[&[u64]],
    b0: &[PackedLimb<'_>],
    b1: &[PackedLimb<'_>],
) {
    same(a.len(), b0.len());
    same(a.len(), b1.len());
    same(out0.len(), out1.len());
    a.iter().for_each(|row| same(out0.len(), row.len()));
    b0.iter().chain(b1).for_each(|row| {
        same(out0.len(), row.len());
        assert!(
            row.bits() == m.bits(),
            "packed residues of {} bits modulo a prime of {}",
            row.bits(),
            m.bits()
        );
    });
    kernels::active().inner_product_pair_packed(m, out0, out1, a, b0, b1);
}
