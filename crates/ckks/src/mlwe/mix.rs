//! The ternary mix: outputs as signed sums of MLWE ciphertexts, placed anywhere in the output ciphertexts.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use rayon::prelude::*;
use tacit_ring::{Modulus, ternary::TernaryCodes};

use super::pieces::transpose;
use super::{MixWord, MlweError, MlweShape, Pieces};

/// Where a column of the matrix is read: `Y^shift` times the MLWE ciphertext of one feature.
///
/// Several columns may read the same feature with different shifts: with two features packed as `x + Y^{n/2} x'`, the columns
/// of `x'` read it with shift `2n - n/2` (`Y^{-n/2}`); the first `n/2` tokens of the outputs are then right and the others hold a
/// mixture to be dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputPlacement {
    /// Input ciphertext.
    pub ciphertext: usize,
    /// Feature in it, below `k`.
    pub feature: usize,
    /// Power of `Y`, below `2n`; `n + s` is `-Y^s`.
    pub shift: usize,
}

/// Where a row of the matrix is added: `Y^shift` times the row goes to one feature of an output ciphertext.
///
/// A row may have any number of placements (none: it is dropped). Rows that meet in one feature are added: rows whose tokens
/// only use the first half share a feature as `out_o + Y^{n/2} out_o'`. Features without a row are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputPlacement {
    /// Output ciphertext.
    pub ciphertext: usize,
    /// Feature in it, below `k`.
    pub feature: usize,
    /// Power of `Y`, below `2n`; `n + s` is `-Y^s`.
    pub shift: usize,
}

#[derive(Clone, Copy)]
struct Placed {
    row: usize,
    feature: usize,
    shift: usize,
}

/// A ternary matrix with the places of its inputs and outputs.
#[derive(Clone)]
pub struct TernaryMix {
    shape: MlweShape,
    codes: TernaryCodes,
    inputs: Vec<InputPlacement>,
    input_ciphertexts: usize,
    /// For each output ciphertext what is added where.
    outputs: Vec<Vec<Placed>>,
    /// Most nonzero weights that meet in one output feature.
    densest_feature: usize,
}

impl TernaryMix {
    /// Packs the matrix `weight(row, col)`, one placement for each column in `inputs`, any number for each row in `outputs`.
    ///
    /// # Errors
    /// [`MlweError::Placement`] outside the shape, [`MlweError::Weight`] for a weight outside {-1, 0, 1}.
    pub fn new(
        shape: MlweShape,
        weight: impl FnMut(usize, usize) -> i8,
        inputs: Vec<InputPlacement>,
        outputs: &[Vec<OutputPlacement>],
    ) -> Result<Self, MlweError> {
        let (features, shifts) = (shape.features(), 2 * shape.tokens());
        let check = |what, index, feature, shift| {
            if feature >= features || shift >= shifts {
                return Err(MlweError::Placement {
                    what,
                    index,
                    feature,
                    shift,
                    features,
                    shifts,
                });
            }
            Ok(())
        };
        for (i, p) in inputs.iter().enumerate() {
            check("input", i, p.feature, p.shift)?;
        }
        let codes = TernaryCodes::pack(outputs.len(), inputs.len(), weight)?;
        let mut per_ciphertext: Vec<Vec<Placed>> = Vec::new();
        for (row, places) in outputs.iter().enumerate() {
            for p in places {
                check("output", row, p.feature, p.shift)?;
                if per_ciphertext.len() <= p.ciphertext {
                    per_ciphertext.resize_with(p.ciphertext + 1, Vec::new);
                }
                per_ciphertext[p.ciphertext].push(Placed {
                    row,
                    feature: p.feature,
                    shift: p.shift,
                });
            }
        }
        let mut densest_feature = 0;
        for placed in &mut per_ciphertext {
            placed.sort_by_key(|p| (p.feature, p.row, p.shift));
            let most = placed
                .chunk_by(|a, b| a.feature == b.feature)
                .map(<[_]>::len)
                .max();
            densest_feature = densest_feature.max(most.unwrap_or(0) * codes.densest_row());
        }
        Ok(Self {
            shape,
            codes,
            input_ciphertexts: inputs.iter().map(|p| p.ciphertext + 1).max().unwrap_or(0),
            inputs,
            outputs: per_ciphertext,
            densest_feature,
        })
    }

    /// The matrix with inputs and outputs in plain order: feature `F` in ciphertext `F div k` at `F mod k`.
    ///
    /// # Errors
    /// [`MlweError::Weight`] for a weight outside {-1, 0, 1}.
    pub fn dense(
        shape: MlweShape,
        rows: usize,
        cols: usize,
        weight: impl FnMut(usize, usize) -> i8,
    ) -> Result<Self, MlweError> {
        let k = shape.features();
        let inputs = (0..cols)
            .map(|f| InputPlacement {
                ciphertext: f / k,
                feature: f % k,
                shift: 0,
            })
            .collect();
        let outputs: Vec<_> = (0..rows)
            .map(|f| {
                vec![OutputPlacement {
                    ciphertext: f / k,
                    feature: f % k,
                    shift: 0,
                }]
            })
            .collect();
        Self::new(shape, weight, inputs, &outputs)
    }

    /// The degrees it was made for.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    /// The packed matrix.
    pub fn codes(&self) -> &TernaryCodes {
        &self.codes
    }

    /// Ciphertexts it reads.
    pub fn input_ciphertexts(&self) -> usize {
        self.input_ciphertexts
    }

    /// Ciphertexts it writes.
    pub fn output_ciphertexts(&self) -> usize {
        self.outputs.len()
    }

    /// Additions and subtractions of vectors of `n` words for all components: those of the kernel and one for each placement.
    /// These are all operations of the mix; it multiplies nothing.
    pub fn additions(&self) -> u64 {
        let placed: usize = self.outputs.iter().map(Vec::len).sum();
        self.shape.components() as u64 * (self.codes.additions() + placed as u64)
    }

    pub(super) fn check<T: MixWord>(
        &self,
        q: &Modulus,
        pieces: &[Pieces<T>],
    ) -> Result<(), MlweError> {
        if pieces.len() < self.input_ciphertexts {
            return Err(MlweError::Inputs {
                expected: self.input_ciphertexts,
                found: pieces.len(),
            });
        }
        for p in pieces {
            self.shape.expect("pieces", p.shape())?;
        }
        if let Some(limit) = T::sum_limit(q) {
            let found = self.codes.densest_row();
            if found > limit {
                return Err(MlweError::RowTooDense { found, limit });
            }
        }
        Ok(())
    }

    /// Components that are mixed together so that a slice of the kernel is full: one where `n` reaches a slice.
    pub(super) fn components_in_a_unit<T: MixWord>(&self) -> usize {
        (T::LANES / self.shape.tokens()).max(1)
    }

    /// `out_o` for all rows, the given components: `[slice][row][lane]`, a slice being `LANES` of the words
    /// `(component - first)*n + token`.
    ///
    /// Adds the time of each slice to `nanos`.
    pub(super) fn sums<T: MixWord>(
        &self,
        pieces: &[Pieces<T>],
        components: Range<usize>,
        nanos: &AtomicU64,
    ) -> Vec<Vec<T>> {
        let n = self.shape.tokens();
        let words = components.len() * n;
        (0..words.div_ceil(T::LANES))
            .into_par_iter()
            .map(|slice| {
                let since = Instant::now();
                let first = slice * T::LANES;
                let mut x = vec![T::default(); self.inputs.len() * T::LANES];
                for (x, place) in x.chunks_exact_mut(T::LANES).zip(&self.inputs) {
                    let mut word = first;
                    while word < (first + T::LANES).min(words) {
                        let row = pieces[place.ciphertext]
                            .row(components.start + word / n, place.feature);
                        let token = word % n;
                        let length = (n - token).min(first + T::LANES - word);
                        rotated(row, place.shift, token, &mut x[word - first..][..length]);
                        word += length;
                    }
                }
                let mut out = vec![T::default(); self.codes.rows() * T::LANES];
                T::product(&self.codes, &x, &mut out);
                nanos.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
                out
            })
            .collect()
    }

    /// The polynomial of one component (counted within `sums`) of an output ciphertext: `sum_j X^j A_j(X^k)`, canonical
    /// residues in coefficient order.
    pub(super) fn interleave<T: MixWord>(
        &self,
        q: &Modulus,
        sums: &[Vec<T>],
        component: usize,
        ciphertext: usize,
    ) -> Vec<u64> {
        let (k, n) = (self.shape.features(), self.shape.tokens());
        let settle = T::sum_limit(q).is_some_and(|limit| self.densest_feature > limit);
        let mut rows = vec![T::default(); k * n];
        for placed in &self.outputs[ciphertext] {
            let out = &mut rows[placed.feature * n..][..n];
            let mut token = 0;
            while token < n {
                let word = component * n + token;
                let lane = word % T::LANES;
                let length = (n - token).min(T::LANES - lane);
                let from = &sums[word / T::LANES][placed.row * T::LANES + lane..][..length];
                if settle {
                    let settled: Vec<T> = from.iter().map(|x| x.settle(q)).collect();
                    add_rotated(out, placed.shift, token, &settled);
                } else {
                    add_rotated(out, placed.shift, token, from);
                }
                token += length;
            }
        }
        let mut out = vec![0; k * n];
        transpose(&rows, n, &mut out, |x| x.leave(q));
        out
    }
}

/// `out[i] = (Y^shift * row)[start + i]` in `Z[Y]/(Y^n + 1)`, `shift < 2n`.
fn rotated<T: MixWord>(row: &[T], shift: usize, start: usize, out: &mut [T]) {
    if shift == 0 {
        out.copy_from_slice(&row[start..][..out.len()]);
        return;
    }
    let n = row.len();
    for (i, out) in out.iter_mut().enumerate() {
        // Coefficient t comes from t - shift, with a sign for each time around.
        let from = 2 * n + start + i - shift;
        let x = row[from % n];
        *out = if (from / n).is_multiple_of(2) {
            x
        } else {
            x.negative()
        };
    }
}

/// `out += Y^shift * part`, where `part` are the coefficients from `start` on.
fn add_rotated<T: MixWord>(out: &mut [T], shift: usize, start: usize, part: &[T]) {
    let n = out.len();
    if shift == 0 {
        for (out, x) in out[start..].iter_mut().zip(part) {
            *out = out.plus(*x);
        }
        return;
    }
    for (i, x) in part.iter().enumerate() {
        let to = start + i + shift;
        let x = if (to / n).is_multiple_of(2) {
            *x
        } else {
            x.negative()
        };
        out[to % n] = out[to % n].plus(x);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shifts_are_negacyclic() {
        let row: Vec<u64> = (1..=8).collect();
        for shift in 0..16 {
            let mut expected = row.clone();
            for _ in 0..shift {
                expected.rotate_right(1);
                expected[0] = expected[0].wrapping_neg();
            }
            let mut read = vec![0; 8];
            rotated(&row, shift, 0, &mut read[..3]);
            rotated(&row, shift, 3, &mut read[3..]);
            assert_eq!(read, expected, "read with shift {shift}");
            let mut written = vec![0; 8];
            add_rotated(&mut written, shift, 0, &row[..5]);
            add_rotated(&mut written, shift, 5, &row[5..]);
            assert_eq!(written, expected, "written with shift {shift}");
        }
    }
}
