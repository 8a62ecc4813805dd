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

/// What is moved between lanes, since a row needs inputs of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// The inputs: after the ciphertexts of a vector come the same moved on by one, two, … lanes. As many more inputs as there are lanes.
    Inputs,
    /// The outputs: one for each distance between lanes, to be moved and added afterwards. As many more outputs, masks and moves.
    Outputs,
}

impl Moved {
    /// Outputs that are moved and added to make one.
    pub fn outputs(self, lanes: usize) -> usize {
        match self {
            Moved::Inputs => 1,
            Moved::Outputs => lanes,
        }
    }
}

impl ColumnSums {
    /// Packs the rows of `wanted` outputs. Row `(i R + r) H + l` computes, in every lane, what lane `l` of output `i` needs of inputs that are `r`
    /// lanes on, where `H` is the number of lanes and `R` the number of outputs that are moved: `H` for [`Moved::Outputs`], else 1. `outputs[i R + r]`
    /// names rows and masks of what is moved back by `r` lanes.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when lanes do not divide the matrix.
    pub fn new(
        name: String,
        layout: &ColumnLayout,
        wanted: &[Output<'_>],
        moved: Moved,
        outputs: Vec<Vec<(usize, Mask)>>,
    ) -> Result<Self, EnsiError> {
        let lanes = layout.lanes();
        let cols = wanted.first().map_or(0, |o| o.matrix.cols());
        let refuse = |what: String| Err(EnsiError::Shape(format!("{name}: {what}")));
        if cols == 0 || !cols.is_multiple_of(lanes) {
            return refuse(format!("{cols} inputs do not fill {lanes} lanes"));
        }
        let moves = moved.outputs(lanes);
        let mut rows = Vec::with_capacity(wanted.len() * moves * lanes);
        for output in wanted {
            let columns = output.matrix.rows() / lanes;
            if output.matrix.cols() != cols || output.column >= columns {
                return refuse(format!(
                    "output column {} of {columns}, {} inputs beside {cols}",
                    output.column,
                    output.matrix.cols()
                ));
            }
            let of_lane = |lane| output.matrix.row_codes(lane * columns + output.column);
            let codes: Vec<Vec<i8>> = (0..lanes).map(of_lane).collect();
            for r in 0..moves {
                rows.extend((0..lanes).map(|lane| (lane + r, codes[lane].clone())));
            }
        }
        let per_lane = cols / lanes;
        let weight = |row: usize, col: usize| {
            let (from, codes) = &rows[row];
            let (on, column) = (col / per_lane, col % per_lane);
            codes[(from + on) % lanes * per_lane + column]
        };
        let inputs = if moves == 1 { cols } else { per_lane };
        let codes = TernaryCodes::pack(rows.len(), inputs, weight)
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
