//! Polynomials of degree two in ciphertexts, relinearised and rescaled, without writing down their three parts.
//!
//! ```text
//! y = factor sum_k a_k b_k + c x + constant
//! d = factor sum_k (a_0 b_0, a_0 b_1 + a_1 b_0, a_1 b_1) + c (x_0, x_1, 0) + (constant, 0, 0)
//! ```
//!
//! Only `d_2` is written, for its digits. Limb `j` of `d_0` and `d_1` is made where it is needed: while limb `j` of `<digits(d_2), key>` is in
//! the cache, to which it is added times `P` before the division by `P q_level`. For one product of `L` limbs 8 L limbs go through memory so,
//! lines that are read to be written counted, where three parts that are written and of which two are read again take 12 L, and each further pass over them (a factor, `c x`) 6 L.

use rayon::prelude::*;
use tacit_ring::{Modulus, RnsPoly, ops};

use crate::ciphertext::Ciphertext;
use crate::context::limbs_mut;
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, check_scales, to_integer};
use crate::keys::EvaluationKeys;

/// Coefficients of a limb that are worked on at once: a piece of all operands stays in the first two levels of cache.
const PIECE: usize = 1024;

/// What [`Evaluator::quadratic`] computes: `factor sum_k a_k b_k + c x + constant`, a ciphertext of scale `scale` before it is rescaled.
#[derive(Clone, Copy)]
pub struct Quadratic<'a> {
    /// `(a_k, b_k)`, at least one, of equal products of scales.
    pub products: &'a [(&'a Ciphertext, &'a Ciphertext)],
    /// What residues of the products are multiplied by. The message is so multiplied by `factor a.scale b.scale / scale`.
    pub factor: u64,
    /// `x` and `c`, which takes whatever scale makes the sum exact: `round(c scale / x.scale)`.
    pub linear: Option<(&'a Ciphertext, f64)>,
    /// Added to every slot.
    pub constant: f64,
    /// Scale of the sum.
    pub scale: f64,
}

impl<'a> Quadratic<'a> {
    /// `sum_k a_k b_k`.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for no products.
    pub fn sum(products: &'a [(&'a Ciphertext, &'a Ciphertext)]) -> Result<Self, CkksError> {
        let Some((a, b)) = products.first() else {
            return Err(no_products());
        };
        Ok(Self {
            products,
            factor: 1,
            linear: None,
            constant: 0.0,
            scale: a.scale * b.scale,
        })
    }
}

fn no_products() -> CkksError {
    CkksError::Shape {
        what: "terms of a sum of products",
        found: 0,
        expected: "at least one".into(),
    }
}

impl Evaluator {
    /// A polynomial of degree two in ciphertexts, at the lowest level among its operands, relinearised and rescaled: one level, one key switch;
    /// scale `scale / q_level`. Word for word what three parts, formed with all sums and given to [`Self::relinearise_rescale`], become.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for no products or operands that are not linear; [`CkksError::ScaleMismatch`] if the products' scales differ;
    /// [`CkksError::LevelTooLow`] at level 0; [`CkksError::Unencodable`] for constants of `2^120` and more after scaling;
    /// [`CkksError::KeyShape`] if the relinearisation key does not serve the level.
    pub fn quadratic(
        &self,
        q: &Quadratic<'_>,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let ctx = &*self.ctx;
        let (first, second) = q.products.first().ok_or_else(no_products)?;
        let linear = q.linear.iter().map(|(x, _)| *x);
        let operands = q.products.iter().flat_map(|&(a, b)| [a, b]).chain(linear);
        let mut level = usize::MAX;
        for ct in operands {
            ctx.check_linear(ct)?;
            level = level.min(ct.level);
        }
        for (a, b) in q.products {
            check_scales(
                "add a product",
                first.scale * second.scale,
                a.scale * b.scale,
            )?;
        }
        let limbs = Limbs {
            q,
            linear: match q.linear {
                Some((x, c)) => Some((x, to_integer(c * (q.scale / x.scale))?)),
                None => None,
            },
            constant: to_integer(q.constant * q.scale)?,
        };
        let mut third = RnsPoly::unspecified(ctx.n(), level + 1);
        limbs_mut(&mut third)
            .into_par_iter()
            .enumerate()
            .for_each(|(j, out)| limbs.third(ctx.modulus(level, j), j, out));
        let parts = self.divide_relinearised(&third, level, keys, |j, m, p, [u0, u1]| {
            let factors = limbs.factors(m, p);
            let pieces = u0.chunks_mut(PIECE).zip(u1.chunks_mut(PIECE));
            for (at, (u0, u1)) in pieces.enumerate() {
                limbs.add_to(m, j, at * PIECE, factors, [u0, u1]);
            }
        })?;
        let linear = usize::from(q.linear.is_some());
        count(&self.counters.ct_ct, q.products.len());
        count(
            &self.counters.constants,
            linear + usize::from(q.factor != 1),
        );
        let sums = q.products.len() - 1 + linear + usize::from(q.constant != 0.0);
        count(&self.counters.additions, sums);
        Ok(Ciphertext {
            parts: parts.into(),
            level: level - 1,
            scale: q.scale / ctx.params().q(level).value() as f64,
        })
    }
}

/// A polynomial with its constants as integers.
struct Limbs<'a> {
    q: &'a Quadratic<'a>,
    linear: Option<(&'a Ciphertext, i128)>,
    constant: i128,
}

/// What the sum of products, `x` and 1 are multiplied by modulo a prime.
type Factors = [u64; 3];

impl Limbs<'_> {
    /// Coefficients `start..start + len` of limb `j` of the products' left and right factors, one part of each.
    fn sides<'s>(
        &'s self,
        parts: [usize; 2],
        j: usize,
        start: usize,
        len: usize,
    ) -> [Vec<&'s [u64]>; 2] {
        let piece = |ct: &'s Ciphertext, part: usize| &ct.parts[part].limb(j)[start..start + len];
        let products = self.q.products;
        [
            products.iter().map(|(a, _)| piece(a, parts[0])).collect(),
            products.iter().map(|(_, b)| piece(b, parts[1])).collect(),
        ]
    }

    /// Limb `j` of `d_2`.
    fn third(&self, m: &Modulus, j: usize, out: &mut [u64]) {
        let [a, b] = self.sides([1, 1], j, 0, out.len());
        ops::inner_product(m, out, &a, &b);
        if self.q.factor != 1 {
            ops::mul_scalar_assign(m, out, m.reduce(self.q.factor));
        }
    }

    /// The factors of `p d`.
    fn factors(&self, m: &Modulus, p: u64) -> Factors {
        let linear = self.linear.map_or(0, |(_, c)| m.from_i128(c));
        [m.reduce(self.q.factor), linear, m.from_i128(self.constant)].map(|c| m.mul(p, c))
    }

    /// `(u_0, u_1) += p (d_0, d_1)` for at most [`PIECE`] coefficients of limb `j` from `start` on.
    fn add_to(
        &self,
        m: &Modulus,
        j: usize,
        start: usize,
        [factor, c, constant]: Factors,
        [u0, u1]: [&mut [u64]; 2],
    ) {
        let len = u0.len();
        let mut sum = [0; PIECE];
        let sum = &mut sum[..len];
        let [mut a, mut b] = self.sides([0, 0], j, start, len);
        ops::inner_product(m, sum, &a, &b);
        ops::mul_scalar_add_assign(m, u0, sum, factor);
        // a_0 b_1 + a_1 b_0
        let [a1, b1] = self.sides([1, 1], j, start, len);
        a.extend(a1);
        b.splice(0..0, b1);
        ops::inner_product(m, sum, &a, &b);
        ops::mul_scalar_add_assign(m, u1, sum, factor);
        if let Some((x, _)) = self.linear {
            for (part, u) in [&mut *u0, u1].into_iter().enumerate() {
                let x = &x.parts[part].limb(j)[start..start + len];
                ops::mul_scalar_add_assign(m, u, x, c);
            }
        }
        if constant != 0 {
            ops::add_scalar_assign(m, u0, constant);
        }
    }
}
