//! The kernel in plain Rust: the specification of the others, and what runs on machines without AVX2.

use super::{Kernel, NttPlan};
use crate::{
    Modulus, NttPermutation, PackedLimb, automorphism::BLOCK, base_conversion::BaseTables,
    memory::AlignedWords, ntt::bit_reverse,
};

/// Plain Rust, any machine.
pub struct Portable;

/// `w y mod p` in `[0, 2p)` for `y < 2^52`, with Shoup's quotient `ws = floor(w 2^52 / p)`.
#[inline(always)]
fn shoup_mul(w: u64, ws: u64, y: u64, p: u64) -> u64 {
    let q = ((u128::from(ws) * u128::from(y)) >> 52) as u64;
    w.wrapping_mul(y).wrapping_sub(q.wrapping_mul(p))
}

/// `x` or `x - p`, whichever is not negative.
#[inline(always)]
fn reduce_once(x: u64, p: u64) -> u64 {
    x.min(x.wrapping_sub(p))
}

/// Powers of `root` in bit-reversed order of the exponent, then their Shoup quotients.
pub(crate) fn root_table(n: usize, m: &Modulus, root: u64) -> Vec<u64> {
    let bits = n.ilog2();
    let mut table = vec![0; 2 * n];
    let (roots, quotients) = table.split_at_mut(n);
    let mut power = 1;
    for i in 0..n {
        let j = bit_reverse(i, bits);
        roots[j] = power;
        quotients[j] = m.shoup(power);
        power = m.mul(power, root);
    }
    table
}

/// Coefficients whose sums are kept at a time.
const TILE: usize = 64;

/// Number of unreduced products below 2^100 that 128 bits can sum.
const MAX_LAZY: usize = 1 << 27;

/// `2^52`, from where on doubles are integers.
const TWO_52: f64 = (1u64 << 52) as f64;

/// Inner products of rows with packed rows, from residue `from` on.
pub(super) fn packed_pair(
    m: &Modulus,
    from: usize,
    outputs: [&mut [u64]; 2],
    a: &[&[u64]],
    packed: [&[PackedLimb<'_>]; 2],
) {
    let mut unpacked = vec![[0; TILE]; a.len()];
    for (out, packed) in outputs.into_iter().zip(packed) {
        for (c, out) in out[from..].chunks_mut(TILE).enumerate() {
            let range = from + c * TILE..from + c * TILE + out.len();
            for (unpacked, row) in unpacked.iter_mut().zip(packed) {
                row.unpack(range.start, &mut unpacked[..range.len()]);
            }
            let a: Vec<&[u64]> = a.iter().map(|a| &a[range.clone()]).collect();
            let b: Vec<&[u64]> = unpacked.iter().map(|b| &b[..range.len()]).collect();
            Portable.inner_product(m, out, &a, &b);
        }
    }
}

impl Kernel for Portable {
    fn name(&self) -> &'static str {
        "portable"
    }

    fn ntt_plan(&self, n: usize, m: &Modulus, psi: u64) -> NttPlan {
        let scale = m.inv(m.reduce(n as u64));
        NttPlan {
            n,
            modulus: *m,
            twiddles: AlignedWords::table(
                &[root_table(n, m, psi), root_table(n, m, m.inv(psi))].concat(),
            ),
            scale: (scale, m.shoup(scale)),
        }
    }

    fn ntt_forward(&self, plan: &NttPlan, a: &mut [u64], _ahead: &[&[u64]]) {
        let (n, p) = (plan.n, plan.modulus.value());
        let (roots, quotients) = plan.forward().split_at(n);
        let mut blocks = 1;
        while blocks < n {
            let half = n / (2 * blocks);
            for (i, block) in a.chunks_exact_mut(2 * half).enumerate() {
                let (w, ws) = (roots[blocks + i], quotients[blocks + i]);
                let (low, high) = block.split_at_mut(half);
                for (x, y) in low.iter_mut().zip(high) {
                    let u = reduce_once(*x, 2 * p);
                    let v = shoup_mul(w, ws, *y, p);
                    *x = u + v;
                    *y = u + 2 * p - v;
                }
            }
            blocks *= 2;
        }
        for x in a {
            *x = reduce_once(reduce_once(*x, 2 * p), p);
        }
    }

    fn ntt_inverse(&self, plan: &NttPlan, a: &mut [u64], _ahead: &[&[u64]]) {
        let (n, p) = (plan.n, plan.modulus.value());
        let (roots, quotients) = plan.inverse().split_at(n);
        let mut blocks = n / 2;
        while blocks >= 1 {
            let half = n / (2 * blocks);
            for (i, block) in a.chunks_exact_mut(2 * half).enumerate() {
                let (w, ws) = (roots[blocks + i], quotients[blocks + i]);
                let (low, high) = block.split_at_mut(half);
                for (x, y) in low.iter_mut().zip(high) {
                    let sum = *x + *y;
                    let difference = *x + 2 * p - *y;
                    *x = reduce_once(sum, 2 * p);
                    *y = shoup_mul(w, ws, difference, p);
                }
            }
            blocks /= 2;
        }
        let (w, ws) = plan.scale;
        for x in a {
            *x = reduce_once(shoup_mul(w, ws, *x, p), p);
        }
    }

    fn add_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.add(*x, y);
        }
    }

    fn sub_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.sub(*x, y);
        }
    }

    fn neg_assign(&self, m: &Modulus, a: &mut [u64]) {
        for x in a {
            *x = m.neg(*x);
        }
    }

    fn add(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = m.add(x, y);
        }
    }

    fn sub(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = m.sub(x, y);
        }
    }

    fn mul(&self, m: &Modulus, out: &mut [u64], a: &[u64], b: &[u64]) {
        for ((o, &x), &y) in out.iter_mut().zip(a).zip(b) {
            *o = m.mul(x, y);
        }
    }

    fn mul_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64]) {
        for (x, &y) in a.iter_mut().zip(b) {
            *x = m.mul(*x, y);
        }
    }

    fn mul_add_assign(&self, m: &Modulus, acc: &mut [u64], a: &[u64], b: &[u64]) {
        for ((o, &x), &y) in acc.iter_mut().zip(a).zip(b) {
            *o = m.reduce_product(u128::from(x) * u128::from(y) + u128::from(*o));
        }
    }

    fn mul_scalar_assign(&self, m: &Modulus, a: &mut [u64], c: u64) {
        let (p, cs) = (m.value(), m.shoup(c));
        for x in a {
            *x = reduce_once(shoup_mul(c, cs, *x, p), p);
        }
    }

    fn mul_scalar(&self, m: &Modulus, out: &mut [u64], a: &[u64], c: u64) {
        let (p, cs) = (m.value(), m.shoup(c));
        for (o, &x) in out.iter_mut().zip(a) {
            *o = reduce_once(shoup_mul(c, cs, x, p), p);
        }
    }

    fn mul_scalar_add_assign(&self, m: &Modulus, acc: &mut [u64], a: &[u64], c: u64) {
        let (p, cs) = (m.value(), m.shoup(c));
        for (o, &x) in acc.iter_mut().zip(a) {
            let sum = *o + shoup_mul(c, cs, x, p);
            *o = reduce_once(reduce_once(sum, 2 * p), p);
        }
    }

    fn sub_mul_scalar_assign(&self, m: &Modulus, a: &mut [u64], b: &[u64], c: u64) {
        let (p, cs) = (m.value(), m.shoup(c));
        for (x, &y) in a.iter_mut().zip(b) {
            *x = reduce_once(shoup_mul(c, cs, *x + p - y, p), p);
        }
    }

    fn add_scalar_assign(&self, m: &Modulus, a: &mut [u64], c: u64) {
        for x in a {
            *x = m.add(*x, c);
        }
    }

    fn reduce_centred(&self, m: &Modulus, from: &Modulus, out: &mut [u64], a: &[u64]) {
        for (out, &x) in out.iter_mut().zip(a) {
            *out = m.from_i64(from.centre(x));
        }
    }

    fn inner_product(&self, m: &Modulus, out: &mut [u64], a: &[&[u64]], b: &[&[u64]]) {
        debug_assert!(a.len() <= MAX_LAZY);
        for (c, out) in out.chunks_mut(TILE).enumerate() {
            let mut sums = [0; TILE];
            for (a, b) in a.iter().zip(b) {
                let (a, b) = (&a[c * TILE..], &b[c * TILE..]);
                for ((sum, &x), &y) in sums[..out.len()].iter_mut().zip(a).zip(b) {
                    *sum += u128::from(x) * u128::from(y);
                }
            }
            for (o, &sum) in out.iter_mut().zip(&sums) {
                *o = m.reduce_u128(sum);
            }
        }
    }

    fn inner_product_pair(
        &self,
        m: &Modulus,
        out0: &mut [u64],
        out1: &mut [u64],
        a: &[&[u64]],
        b0: &[&[u64]],
        b1: &[&[u64]],
    ) {
        self.inner_product(m, out0, a, b0);
        self.inner_product(m, out1, a, b1);
    }

    fn inner_product_pair_packed(
        &self,
        m: &Modulus,
        out0: &mut [u64],
        out1: &mut [u64],
        a: &[&[u64]],
        b0: &[PackedLimb<'_>],
        b1: &[PackedLimb<'_>],
    ) {
        packed_pair(m, 0, [out0, out1], a, [b0, b1]);
    }

    fn base_convert(&self, t: &BaseTables, from: &[&[u64]], to: &mut [&mut [u64]]) {
        let (n, k) = (from[0].len(), from.len());
        // The y_i and v of a tile stay in the first-level cache while all targets use them.
        let mut y = vec![0u64; (k + 1) * TILE];
        for start in (0..n).step_by(TILE) {
            let len = TILE.min(n - start);
            let mut quotient = [0.0f64; TILE];
            for (i, q) in t.from.iter().enumerate() {
                let ((c, cs), p) = (t.scale[i], q.value());
                let source = &from[i][start..start + len];
                for ((y, v), &x) in y[i * TILE..].iter_mut().zip(&mut quotient).zip(source) {
                    *y = reduce_once(shoup_mul(c, cs, x, p), p);
                    *v += *y as f64 * t.reciprocal[i];
                }
            }
            for (y, v) in y[k * TILE..].iter_mut().zip(&quotient) {
                // The nearest integer, ties to even, stands in the last bits of v + 2^52: no call, no branch.
                *y = (v + TWO_52).to_bits() & (TWO_52 as u64 - 1);
            }
            for (j, m) in t.to.iter().enumerate() {
                let mut sums = [0; TILE];
                for (&c, y) in t.row(j).iter().zip(y.chunks_exact(TILE)) {
                    for (sum, &y) in sums.iter_mut().zip(y) {
                        *sum += u128::from(c) * u128::from(y);
                    }
                }
                for (o, &sum) in to[j][start..start + len].iter_mut().zip(&sums) {
                    *o = m.reduce_u128(sum);
                }
            }
        }
        // The y_i are residues of what may be a secret.
        zeroize::Zeroize::zeroize(&mut y);
    }

    fn permute(&self, permutation: &NttPermutation, out: &mut [u64], a: &[u64]) {
        let block = BLOCK.min(permutation.n());
        for (out, &entry) in out.chunks_exact_mut(block).zip(permutation.blocks()) {
            let (source, order) = (
                entry as usize & !(BLOCK - 1),
                &permutation.lanes()[entry as usize & (BLOCK - 1)],
            );
            for (o, &lane) in out.iter_mut().zip(order) {
                *o = a[source + lane as usize];
            }
        }
    }
}
