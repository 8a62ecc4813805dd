//! Sums of ciphertext-plaintext products.

use rayon::prelude::*;
use tacit_ring::{RnsPoly, ops};

use crate::ciphertext::{Ciphertext, Plaintext};
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, check_scales};

impl Evaluator {
    /// `sum_k ct_k * pt_k` at the lowest level among the operands, not rescaled: the result has the scale of the first product.
    ///
    /// One pass over the data: products are accumulated lazily and each residue is reduced once. Scales of the products must agree
    /// within 2^-20.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for no terms or unequal numbers of parts, [`CkksError::ScaleMismatch`].
    pub fn dot_plain(&self, terms: &[(&Ciphertext, &Plaintext)]) -> Result<Ciphertext, CkksError> {
        let sum = self.check_dot_plain(terms)?;
        let parts = (0..sum.parts)
            .map(|part| {
                let mut out = RnsPoly::unspecified(self.ctx.n(), sum.level + 1);
                out.par_limbs_mut()
                    .for_each(|(i, out)| self.dot_plain_limb(terms, part, i, out));
                out
            })
            .collect();
        self.count_dot_plain(terms.len());
        Ok(Ciphertext {
            parts,
            level: sum.level,
            scale: sum.scale,
        })
    }

    /// What [`Self::dot_plain`] of these terms will be, or why it cannot be.
    pub(crate) fn check_dot_plain(
        &self,
        terms: &[(&Ciphertext, &Plaintext)],
    ) -> Result<DotPlain, CkksError> {
        let Some((first, first_plain)) = terms.first() else {
            return Err(CkksError::Shape {
                what: "terms of a sum of products",
                found: 0,
                expected: "at least one".into(),
            });
        };
        let mut sum = DotPlain {
            parts: first.parts.len(),
            level: usize::MAX,
            scale: first.scale * first_plain.scale,
        };
        for (ct, pt) in terms {
            self.ctx.check_ciphertext(ct)?;
            self.ctx.check_plaintext(pt)?;
            if ct.parts.len() != sum.parts {
                return Err(CkksError::Shape {
                    what: "ciphertext parts in a sum of products",
                    found: ct.parts.len(),
                    expected: format!("{} as in the first term", sum.parts),
                });
            }
            check_scales("add a product", sum.scale, ct.scale * pt.scale)?;
            sum.level = sum.level.min(ct.level).min(pt.level);
        }
        Ok(sum)
    }

    /// Limb `i` of one part of the sum.
    pub(crate) fn dot_plain_limb(
        &self,
        terms: &[(&Ciphertext, &Plaintext)],
        part: usize,
        i: usize,
        out: &mut [u64],
    ) {
        let [x, w] = dot_plain_rows(terms, part, i);
        ops::inner_product(self.ctx.q_table(i).modulus(), out, &x, &w);
    }

    pub(crate) fn count_dot_plain(&self, terms: usize) {
        count(&self.counters.ct_pt, terms);
        count(&self.counters.additions, terms - 1);
    }
}

/// Limb `i` of one part of the ciphertexts, and of the plaintexts.
pub(crate) fn dot_plain_rows<'a>(
    terms: &[(&'a Ciphertext, &'a Plaintext)],
    part: usize,
    i: usize,
) -> [Vec<&'a [u64]>; 2] {
    let ciphertexts = terms.iter().map(|(ct, _)| ct.parts[part].limb(i));
    let plaintexts = terms.iter().map(|(_, pt)| pt.poly.limb(i));
    [ciphertexts.collect(), plaintexts.collect()]
}

/// Shape of a sum of products with plaintexts.
pub(crate) struct DotPlain {
    pub parts: usize,
    pub level: usize,
    pub scale: f64,
}
