//! Ternary matrices times vectors of ciphertexts: one ciphertext a feature, the column encoding of ENSI (arXiv 2509.09424).
//!
//! ```text
//!     y_r   = sum_f W[r][f] * ct_f                 W in {-1, 0, 1}: additions and subtractions of words only
//!     out_c = sum_k pt_(c,k) * y_(r(c,k))          masks that put rows into their place among the slots
//! ```
//!
//! The rows `y_r` are never in memory as ciphertexts: 128 words of every input are mixed, reduced and multiplied by the masks before the next ones
//! are read. Three weights cost one addition ([`tacit_ring::ternary`]).

use rayon::prelude::*;
use tacit_ring::{
    Modulus, RnsPoly, ops,
    ternary::{TernaryCodes, reduce_sums},
};

use crate::ciphertext::{Ciphertext, Plaintext};
use crate::context::limbs_mut;
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, check_scales};

/// Words of a limb that are mixed at once: 256 inputs of them fill a quarter of a megabyte.
const WORDS: usize = 128;
/// Words of a slice of the kernel.
const SLICE: usize = 16;

/// Terms of one output: rows of the matrix, each with its mask.
pub type MaskedRows<'a> = Vec<(usize, &'a Plaintext)>;

impl Evaluator {
    /// `out_c = sum_k pt_(c,k) * sum_f W[r(c,k)][f] * ct_f` at the lowest level among ciphertexts and masks, not rescaled: the scale is that of the
    /// inputs times that of the masks. Noise: that of the inputs times the square root of the nonzero weights of a row, then as for [`Self::dot_plain`].
    ///
    /// Counted are the products with masks and their sums; the word additions are `codes.additions()` times 16 words times the slices of all limbs.
    ///
    /// # Errors
    /// [`CkksError::Shape`] when inputs and matrix do not belong together, for an output without terms or a row that is not there, or for rows too
    /// dense for 64-bit sums; [`CkksError::ScaleMismatch`].
    pub fn ternary_columns(
        &self,
        inputs: &[&Ciphertext],
        codes: &TernaryCodes,
        outputs: &[MaskedRows<'_>],
    ) -> Result<Vec<Ciphertext>, CkksError> {
        let (level, scale) = self.check_columns(inputs, codes, outputs)?;
        let n = self.ctx.n();
        let mut parts: Vec<[RnsPoly; 2]> = outputs
            .iter()
            .map(|_| std::array::from_fn(|_| RnsPoly::unspecified(n, level + 1)))
            .collect();
        // one job for each limb of each part, with that limb of every output
        let mut jobs: Vec<Vec<&mut [u64]>> = (0..2 * (level + 1))
            .map(|_| Vec::with_capacity(outputs.len()))
            .collect();
        for output in &mut parts {
            for (part, poly) in output.iter_mut().enumerate() {
                for (j, limb) in limbs_mut(poly).into_iter().enumerate() {
                    jobs[part * (level + 1) + j].push(limb);
                }
            }
        }
        jobs.into_par_iter().enumerate().for_each(|(job, out)| {
            let (part, j) = (job / (level + 1), job % (level + 1));
            let modulus = self.ctx.q_table(j).modulus();
            let x: Vec<&[u64]> = inputs.iter().map(|ct| ct.parts[part].limb(j)).collect();
            mix_limb(modulus, &x, codes, outputs, j, out);
        });
        let terms: usize = outputs.iter().map(Vec::len).sum();
        count(&self.counters.ct_pt, terms);
        count(&self.counters.additions, terms - outputs.len());
        Ok(parts
            .into_iter()
            .map(|[b, a]| Ciphertext {
                parts: vec![b, a],
                level,
                scale,
            })
            .collect())
    }

    /// Level and scale of the results.
    fn check_columns(
        &self,
        inputs: &[&Ciphertext],
        codes: &TernaryCodes,
        outputs: &[MaskedRows<'_>],
    ) -> Result<(usize, f64), CkksError> {
        let refuse = |what, found: usize, expected: String| {
            Err(CkksError::Shape {
                what,
                found,
                expected,
            })
        };
        if inputs.is_empty() || inputs.len() != codes.cols() {
            return refuse(
                "inputs of a ternary matrix",
                inputs.len(),
                format!("{}, one for each column", codes.cols()),
            );
        }
        let mut level = usize::MAX;
        for ct in inputs {
            self.ctx.check_linear(ct)?;
            check_scales("ternary matrix", inputs[0].scale, ct.scale)?;
            level = level.min(ct.level);
        }
        let first = outputs.first().and_then(|terms| terms.first());
        let mask_scale = first.map_or(1.0, |(_, mask)| mask.scale);
        for terms in outputs {
            if terms.is_empty() {
                return refuse("terms of an output", 0, "at least one".into());
            }
            for (row, mask) in terms {
                self.ctx.check_plaintext(mask)?;
                check_scales("masks of a ternary matrix", mask_scale, mask.scale)?;
                level = level.min(mask.level);
                if *row >= codes.rows() {
                    return refuse(
                        "row of a ternary matrix",
                        *row,
                        format!("below {}", codes.rows()),
                    );
                }
            }
        }
        if codes.densest_row() >= 1 << 11 {
            return refuse(
                "nonzero weights in a row of a ternary matrix",
                codes.densest_row(),
                "below 2048, so that sums fit into 62 bits".into(),
            );
        }
        Ok((level, inputs[0].scale * mask_scale))
    }
}

/// Limb `j` of one part of all outputs.
fn mix_limb(
    modulus: &Modulus,
    x: &[&[u64]],
    codes: &TernaryCodes,
    outputs: &[MaskedRows<'_>],
    j: usize,
    mut out: Vec<&mut [u64]>,
) {
    let (rows, cols) = (codes.rows(), codes.cols());
    let words = WORDS.min(x[0].len());
    let slices = words / SLICE;
    let mut gathered = vec![0u64; slices * cols * SLICE];
    let mut sums = vec![0u64; rows * SLICE];
    let mut reduced = vec![0u64; rows * words];
    for start in (0..x[0].len()).step_by(words) {
        for (f, x) in x.iter().enumerate() {
            for (s, slice) in x[start..start + words].chunks_exact(SLICE).enumerate() {
                gathered[(s * cols + f) * SLICE..][..SLICE].copy_from_slice(slice);
            }
        }
        for (s, gathered) in gathered.chunks_exact(cols * SLICE).enumerate() {
            codes.product_u64(gathered, &mut sums);
            for (row, sums) in sums.chunks_exact(SLICE).enumerate() {
                let to = &mut reduced[row * words + s * SLICE..][..SLICE];
                reduce_sums(modulus, codes.densest_row(), sums, to);
            }
        }
        for (out, terms) in out.iter_mut().zip(outputs) {
            let rows: Vec<&[u64]> = terms
                .iter()
                .map(|(row, _)| &reduced[row * words..][..words])
                .collect();
            let masks: Vec<&[u64]> = terms
                .iter()
                .map(|(_, mask)| &mask.poly.limb(j)[start..start + words])
                .collect();
            ops::inner_product(modulus, &mut out[start..start + words], &rows, &masks);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Context, Encoder, InsecureParameters, KeyGenerator, ParametersLiteral,
        encrypt::{decrypt, encrypt_symmetric},
    };
    use num_complex::Complex64;
    use rand_chacha::{ChaCha20Rng, rand_core::RngCore, rand_core::SeedableRng};

    /// The same products and sums one by one, word for word, and the right numbers after decryption.
    #[test]
    fn rows_are_sums_of_ciphertexts() {
        let params = InsecureParameters::new(ParametersLiteral::levelled(9, 3, 1)).unwrap();
        let context = Context::new(params).unwrap();
        let encoder = Encoder::new(context.clone());
        let evaluator = Evaluator::new(context.clone());
        let mut rng = ChaCha20Rng::seed_from_u64(7);
        let secret = KeyGenerator::with_rng(context.clone(), rng.clone()).secret();
        let (rows, cols) = (5, 29);
        let weights: Vec<Vec<i8>> = (0..rows)
            .map(|_| (0..cols).map(|_| (rng.next_u32() % 3) as i8 - 1).collect())
            .collect();
        let codes = TernaryCodes::pack(rows, cols, |r, c| weights[r][c]).unwrap();
        let slots = context.params().slots();
        let scale = context.params().user_scale();
        let value = |i: usize, j: usize| Complex64::new(((7 * i + j) % 11) as f64 / 11.0, 0.0);
        let level = context.params().max_level();
        let inputs: Vec<Ciphertext> = (0..cols)
            .map(|f| {
                let values: Vec<Complex64> = (0..slots).map(|j| value(f, j)).collect();
                let plaintext = encoder.encode(&values, scale, level).unwrap();
                encrypt_symmetric(&plaintext, &secret, &mut rng).unwrap()
            })
            .collect();
        let masks: Vec<Plaintext> = (0..3)
            .map(|k| {
                let values: Vec<Complex64> = (0..slots)
                    .map(|j| Complex64::new(f64::from(u8::from(j % 3 == k)), 0.0))
                    .collect();
                encoder.encode(&values, scale, level).unwrap()
            })
            .collect();
        let outputs: Vec<MaskedRows<'_>> = vec![
            vec![(0, &masks[0]), (3, &masks[1])],
            vec![(4, &masks[2])],
            vec![(1, &masks[0]), (2, &masks[1]), (0, &masks[2])],
        ];
        let refs: Vec<&Ciphertext> = inputs.iter().collect();
        let found = evaluator.ternary_columns(&refs, &codes, &outputs).unwrap();
        for (found, terms) in found.iter().zip(&outputs) {
            let sums: Vec<Ciphertext> = terms
                .iter()
                .map(|(row, _)| {
                    let mut sum = evaluator.sub(&inputs[0], &inputs[0]).unwrap();
                    for (ct, w) in inputs.iter().zip(&weights[*row]) {
                        match w {
                            1 => evaluator.add_assign(&mut sum, ct).unwrap(),
                            -1 => evaluator.sub_assign(&mut sum, ct).unwrap(),
                            _ => {}
                        }
                    }
                    sum
                })
                .collect();
            let products: Vec<(&Ciphertext, &Plaintext)> =
                sums.iter().zip(terms.iter().map(|t| t.1)).collect();
            let expected = evaluator.dot_plain(&products).unwrap();
            assert_eq!(found.parts, expected.parts);
            assert_eq!((found.level, found.scale), (expected.level, expected.scale));
            let decoded = encoder.decode(&decrypt(found, &secret).unwrap()).unwrap();
            for (j, got) in decoded.iter().enumerate() {
                let want: f64 = terms
                    .iter()
                    .filter(|(_, mask)| std::ptr::eq(*mask, &masks[j % 3]))
                    .map(|(row, _)| {
                        (0..cols)
                            .map(|f| f64::from(weights[*row][f]) * value(f, j).re)
                            .sum::<f64>()
                    })
                    .sum();
                assert!((got.re - want).abs() < 1e-5, "slot {j}: {got} for {want}");
            }
        }
        assert!(
            evaluator
                .ternary_columns(&refs[1..], &codes, &outputs)
                .is_err()
        );
        let absent = vec![vec![(5, &masks[0])]];
        assert!(evaluator.ternary_columns(&refs, &codes, &absent).is_err());
        assert!(evaluator.ternary_columns(&refs, &codes, &[vec![]]).is_err());
    }
}
