//! A ternary matrix between ciphertexts that hold one feature each.

use tacit_bitnet::TernaryMatrix;
use tacit_ring::ternary::TernaryCodes;

use crate::{EnsiError, columns::layout::ColumnLayout, machine::Mask};

/// Rows of a matrix over columns of ciphertexts, and how masks put them in place: `out_c = sum_k mask_(c,k) * sum_f W[r(c,k)][f] * ct_f`.
#[derive(Clone)]
pub struct ColumnSums {
    name: String,
    codes: TernaryCodes,
    outputs: Vec<Vec<(usize, Mask)>>,
}

/// One output ciphertext before its masks: a column of a matrix's outputs, in all lanes.
#[derive(Clone, Copy)]
pub struct Output<'a> {
    /// The matrix.
    pub matrix: &'a TernaryMatrix,
    /// Column of its outputs, below `rows / lanes`.
    pub column: usize,
}

impl ColumnSums {
    /// Packs the rows of `wanted` outputs. Row `i * lanes + l` computes, in every lane, what lane `l` of output `i` needs when its inputs are the
    /// ciphertexts of a vector followed by the same moved on by one, two, … lanes ([`ColumnLayout::inputs`]). `terms(i)` names rows and masks of
    /// output ciphertext `i`; there may be more or fewer of these than `wanted`.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when lanes do not divide the matrix.
    pub fn new(
        name: String,
        layout: &ColumnLayout,
        wanted: &[Output<'_>],
        outputs: Vec<Vec<(usize, Mask)>>,
    ) -> Result<Self, EnsiError> {
        let lanes = layout.lanes();
        let cols = wanted.first().map_or(0, |o| o.matrix.cols());
        let refuse = |what: String| Err(EnsiError::Shape(format!("{name}: {what}")));
        if cols == 0 || !cols.is_multiple_of(lanes) {
            return refuse(format!("{cols} inputs do not fill {lanes} lanes"));
        }
        let mut rows = Vec::with_capacity(wanted.len() * lanes);
        for output in wanted {
            let columns = output.matrix.rows() / lanes;
            if output.matrix.cols() != cols || output.column >= columns {
                return refuse(format!(
                    "output column {} of {columns}, {} inputs beside {cols}",
                    output.column,
                    output.matrix.cols()
                ));
            }
            for lane in 0..lanes {
                rows.push((
                    lane,
                    output.matrix.row_codes(lane * columns + output.column),
                ));
            }
        }
        let per_lane = cols / lanes;
        let weight = |row: usize, col: usize| {
            let (lane, codes) = &rows[row];
            let (moved, column) = (col / per_lane, col % per_lane);
            codes[(lane + moved) % lanes * per_lane + column]
        };
        let codes = TernaryCodes::pack(rows.len(), cols, weight)
            .map_err(|e| EnsiError::Shape(format!("{name}: {e}")))?;
        Ok(Self {
            name,
            codes,
            outputs,
        })
    }

    /// What it is called in errors.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The packed rows.
    pub fn codes(&self) -> &TernaryCodes {
        &self.codes
    }

    /// Rows and masks of every output.
    pub fn outputs(&self) -> &[Vec<(usize, Mask)>] {
        &self.outputs
    }

    /// Products with masks.
    pub fn terms(&self) -> usize {
        self.outputs.iter().map(Vec::len).sum()
    }

    /// Word additions on ciphertexts of ring dimension `n` with `limbs` limbs.
    pub fn word_additions(&self, n: usize, limbs: usize) -> u64 {
        self.codes.additions() * (2 * n * limbs) as u64
    }
}
