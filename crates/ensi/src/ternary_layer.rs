//! A linear layer as the ternary product sees it: integer rows, where inputs are read, where outputs are put.
//!
//! ```text
//!     y_o = sum_i W[o][i] * x_i,   W in {-1, 0, 1};      x_i read from block b_i of input ciphertext c_i (real parts),
//!     y_o written to every place of row o: (ciphertext, block, real or imaginary half).
//! ```
//!
//! The weight scale of the checkpoint is not in here: it is a factor of the values and goes into the scale.

use crate::{EnsiError, layout::Half};

/// Where an input feature is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// Index of the input ciphertext.
    pub ciphertext: usize,
    /// Block within it.
    pub block: usize,
}

/// Where an output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the output ciphertext.
    pub ciphertext: usize,
    /// Block within it.
    pub block: usize,
    /// Real or imaginary parts.
    pub half: Half,
}

/// A ternary product with its placements.
#[derive(Clone, Debug)]
pub struct TernaryLayer {
    name: String,
    inputs: usize,
    columns: Vec<Source>,
    /// Row-major, `rows x columns`.
    weights: Vec<i8>,
    places: Vec<Vec<Place>>,
    /// For every output ciphertext, whether its imaginary half is used.
    imaginary: Vec<bool>,
}

impl TernaryLayer {
    /// A layer that reads `columns` from `inputs` ciphertexts; rows are added with [`push_row`](Self::push_row).
    ///
    /// # Errors
    /// When a column names an input ciphertext that is not there.
    pub fn new(
        name: impl Into<String>,
        inputs: usize,
        columns: Vec<Source>,
    ) -> Result<Self, EnsiError> {
        let name = name.into();
        if let Some(c) = columns.iter().find(|c| c.ciphertext >= inputs) {
            return Err(EnsiError::Shape(format!(
                "{name}: column reads input ciphertext {} of {inputs}",
                c.ciphertext
            )));
        }
        Ok(Self {
            name,
            inputs,
            columns,
            weights: Vec::new(),
            places: Vec::new(),
            imaginary: Vec::new(),
        })
    }

    /// Adds an output row.
    ///
    /// # Errors
    /// When the row has another length than the columns, or a weight outside {-1, 0, 1}.
    pub fn push_row(&mut self, row: &[i8], places: Vec<Place>) -> Result<(), EnsiError> {
        if row.len() != self.columns.len() {
            return Err(EnsiError::Shape(format!(
                "{}: row {} has {} weights, expected {}",
                self.name,
                self.places.len(),
                row.len(),
                self.columns.len()
            )));
        }
        if let Some(w) = row.iter().find(|w| !(-1..=1).contains(*w)) {
            return Err(EnsiError::Shape(format!(
                "{}: weight {w} is not ternary",
                self.name
            )));
        }
        for place in &places {
            if self.imaginary.len() <= place.ciphertext {
                self.imaginary.resize(place.ciphertext + 1, false);
            }
            self.imaginary[place.ciphertext] |= place.half == Half::Im;
        }
        self.weights.extend_from_slice(row);
        self.places.push(places);
        Ok(())
    }

    /// Name for messages and plans.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// Number of input ciphertexts.
    pub fn inputs(&self) -> usize {
        self.inputs
    }
    /// Number of output ciphertexts.
    pub fn outputs(&self) -> usize {
        self.imaginary.len()
    }
    /// Whether output ciphertext `c` uses its imaginary half.
    pub fn uses_imaginary(&self, c: usize) -> bool {
        self.imaginary[c]
    }
    /// Columns, in weight order.
    pub fn columns(&self) -> &[Source] {
        &self.columns
    }
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.places.len()
    }
    /// Weights of a row.
    pub fn row(&self, row: usize) -> &[i8] {
        let width = self.columns.len();
        &self.weights[row * width..(row + 1) * width]
    }
    /// Places of a row.
    pub fn places(&self, row: usize) -> &[Place] {
        &self.places[row]
    }
}
