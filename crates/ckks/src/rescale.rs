//! Rescaling: division by the top prime.
//!
//! ```text
//! t   = coefficients of limb l, centred                 1 inverse transform
//! out = (x - t)/q_l mod q_i, for each i < l             a reduction and a forward transform
//! ```
//!
//! Limb by limb: a limb is reduced, transformed and subtracted while it is in the cache. What is to be divided may be a sum of products, which
//! then never goes to memory ([`Evaluator::dot_plain_rescale`]).

use rayon::prelude::*;
use tacit_ring::{RnsPoly, ops};

use crate::ciphertext::{Ciphertext, Plaintext};
use crate::context::limbs_mut;
use crate::counts::count;
use crate::dot_plain::dot_plain_rows;
use crate::error::CkksError;
use crate::evaluator::Evaluator;

impl Evaluator {
    /// Divides by the top prime `q_l` with centred rounding: one level less, scale divided by exactly `q_l`.
    /// Noise: divided by `q_l`, plus the rounding of [`crate::noise::rounding`].
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`] at level 0.
    pub fn rescale(&self, ct: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(ct)?;
        let parts = self.divide_by_top(
            ct.level,
            ct.parts.len(),
            |part, top| top.copy_from_slice(ct.parts[part].limb(ct.level)),
            |part, i| vec![ct.parts[part].limb(i)],
            |part, i, factor, t, _| {
                let m = self.ctx.q_table(i).modulus();
                ops::sub_mul_scalar_assign(m, t, ct.parts[part].limb(i), factor);
            },
        )?;
        Ok(self.rescaled(parts, ct.level, ct.scale))
    }

    /// `a p`, rescaled: [`Self::dot_plain_rescale`] of one product.
    ///
    /// # Errors
    /// As [`Self::dot_plain_rescale`].
    pub fn mul_plain_rescale(
        &self,
        a: &Ciphertext,
        p: &Plaintext,
    ) -> Result<Ciphertext, CkksError> {
        self.dot_plain_rescale(&[(a, p)])
    }

    /// `sum_k ct_k * pt_k`, rescaled: what [`Self::dot_plain`] and [`Self::rescale`] give one after the other, bit for bit. One level; the scale is that
    /// of the first product divided by the prime dropped.
    ///
    /// # Errors
    /// Those of [`Self::dot_plain`]; [`CkksError::LevelTooLow`] at level 0.
    pub fn dot_plain_rescale(
        &self,
        terms: &[(&Ciphertext, &Plaintext)],
    ) -> Result<Ciphertext, CkksError> {
        let sum = self.check_dot_plain(terms)?;
        let parts = self.divide_by_top(
            sum.level,
            sum.parts,
            |part, top| self.dot_plain_limb(terms, part, sum.level, top),
            |part, i| dot_plain_rows(terms, part, i).concat(),
            |part, i, factor, t, scratch| {
                self.dot_plain_limb(terms, part, i, scratch);
                ops::sub_mul_scalar_assign(self.ctx.q_table(i).modulus(), t, scratch, factor);
            },
        )?;
        self.count_dot_plain(terms.len());
        Ok(self.rescaled(parts, sum.level, sum.scale))
    }

    /// `round(x/q_level)` of `parts` polynomials `x`. `top(part, limb)` writes limb `level` of one. `rest(part, i, factor, t, scratch)` turns `t`, the
    /// centred top limb modulo `q_i`, into `(t - x_i) factor`; the scratch has the length of a limb. What it reads from memory, `reads(part, i)`, comes
    /// into the cache during the transform before. All parts go through a limb before the next, so that what they share is read once.
    fn divide_by_top<'a>(
        &self,
        level: usize,
        parts: usize,
        top: impl Fn(usize, &mut [u64]) + Sync,
        reads: impl Fn(usize, usize) -> Vec<&'a [u64]> + Sync,
        rest: impl Fn(usize, usize, u64, &mut [u64], &mut [u64]) + Sync,
    ) -> Result<Vec<RnsPoly>, CkksError> {
        let ctx = &*self.ctx;
        if level == 0 {
            return Err(CkksError::LevelTooLow {
                operation: "rescale",
                found: 0,
                needed: 1,
            });
        }
        let divisor = ctx.q_table(level).modulus();
        let mut tops = RnsPoly::unspecified(ctx.n(), parts);
        limbs_mut(&mut tops)
            .into_par_iter()
            .enumerate()
            .for_each(|(part, limb)| {
                top(part, limb);
                ctx.q_table(level).inverse(limb);
            });
        let mut out: Vec<RnsPoly> = (0..parts)
            .map(|_| RnsPoly::unspecified(ctx.n(), level))
            .collect();
        let mut limbs: Vec<(usize, usize, &mut [u64])> = out
            .iter_mut()
            .enumerate()
            .flat_map(|(part, poly)| {
                let limbs = limbs_mut(poly).into_iter().enumerate();
                limbs.map(move |(i, limb)| (part, i, limb))
            })
            .collect();
        limbs.sort_by_key(|&(part, i, _)| (i, part));
        limbs.into_par_iter().for_each_init(
            || RnsPoly::unspecified(ctx.n(), 1),
            |scratch, (part, i, t)| {
                let table = ctx.q_table(i);
                ops::reduce_centred(table.modulus(), divisor, t, tops.limb(part));
                table.forward_ahead(t, &reads(part, i));
                let factor = table.modulus().neg(ctx.q_inverse(level, i));
                rest(part, i, factor, t, scratch.limb_mut(0));
            },
        );
        Ok(out)
    }

    fn rescaled(&self, parts: Vec<RnsPoly>, level: usize, scale: f64) -> Ciphertext {
        count(&self.counters.rescales, 1);
        Ciphertext {
            parts,
            level: level - 1,
            scale: scale / self.ctx.params().q(level).value() as f64,
        }
    }
}
