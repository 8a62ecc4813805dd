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
        let Some((first, first_plain)) = terms.first() else {
            return Err(CkksError::Shape {
                what: "terms of a sum of products",
                found: 0,
                expected: "at least one".into(),
            });
        };
        let scale = first.scale * first_plain.scale;
        let mut level = usize::MAX;
        for (ct, pt) in terms {
            self.context().check_ciphertext(ct)?;
            if ct.parts.len() != first.parts.len() {
                return Err(CkksError::Shape {
                    what: "ciphertext parts in a sum of products",
                    found: ct.parts.len(),
                    expected: format!("{} as in the first term", first.parts.len()),
                });
            }
            check_scales("add a product", scale, ct.scale * pt.scale)?;
            level = level.min(ct.level).min(pt.level);
        }
        let parts = (0..first.parts.len())
            .map(|part| {
                let mut out = RnsPoly::zero(self.context().n(), level + 1);
                out.par_limbs_mut().for_each(|(limb, out)| {
                    let x: Vec<&[u64]> = terms
                        .iter()
                        .map(|(ct, _)| ct.parts[part].limb(limb))
                        .collect();
                    let w: Vec<&[u64]> = terms.iter().map(|(_, pt)| pt.poly.limb(limb)).collect();
                    ops::inner_product(self.context().modulus(level, limb), out, &x, &w);
                });
                out
            })
            .collect();
        count(&self.counters.ct_pt, terms.len());
        count(&self.counters.additions, terms.len() - 1);
        Ok(Ciphertext {
            parts,
            level,
            scale,
        })
    }
}
