//! Weights in memory: ternary matrices of two bits a weight, dense matrices as stored, and products with activations.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use crate::error::BitnetError;

/// A dense row-major matrix of activations: `rows` tokens by `cols` features.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    /// Number of rows (tokens).
    pub rows: usize,
    /// Number of columns (features).
    pub cols: usize,
    /// `rows * cols` values, row after row.
    pub data: Vec<f32>,
}

impl Matrix {
    /// A matrix of zeros.
    pub fn zeros(rows: usize, cols: usize) -> Self {
        Self {
            rows,
            cols,
            data: vec![0.0; rows * cols],
        }
    }

    /// Row `r`.
    ///
    /// # Panics
    /// When `r >= rows`.
    pub fn row(&self, r: usize) -> &[f32] {
        &self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// Row `r`, mutable.
    ///
    /// # Panics
    /// When `r >= rows`.
    pub fn row_mut(&mut self, r: usize) -> &mut [f32] {
        &mut self.data[r * self.cols..(r + 1) * self.cols]
    }

    /// Largest absolute value (0 for an empty matrix; NaN values are skipped).
    pub fn max_abs(&self) -> f32 {
        max_abs(&self.data)
    }
}

/// Largest absolute value of a slice (0 when empty; NaN values are skipped).
pub fn max_abs(values: &[f32]) -> f32 {
    values.iter().fold(0.0f32, |m, v| m.max(v.abs()))
}

/// A linear layer's weights: `W = scale * codes`, codes in {-1, 0, 1}, `rows` outputs by `cols` inputs.
///
/// Codes are kept as `code + 1` in two bits each, row-major, four consecutive columns in a byte (lowest bits first); each row
/// starts on a byte.
///
/// ```
/// use tacit_bitnet::TernaryMatrix;
/// let w = TernaryMatrix::from_codes(2, 3, &[1, 0, -1, 0, 1, 1], 0.5).unwrap();
/// assert_eq!(w.get(0, 2), -1);
/// assert_eq!(w.matvec(&[1.0, 2.0, 4.0]), vec![-1.5, 3.0]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct TernaryMatrix {
    rows: usize,
    cols: usize,
    row_bytes: usize,
    packed: Vec<u8>,
    scale: f32,
}

/// The four weights of each byte value, as floats. Field value 3 never occurs in a [`TernaryMatrix`].
static DECODE: [[f32; 4]; 256] = decode_table();

const fn decode_table() -> [[f32; 4]; 256] {
    let values = [-1.0f32, 0.0, 1.0, 0.0];
    let mut table = [[0.0f32; 4]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut i = 0;
        while i < 4 {
            table[byte][i] = values[(byte >> (2 * i)) & 3];
            i += 1;
        }
        byte += 1;
    }
    table
}

/// How many tokens a product must have before it goes through a blocked dense product instead of row-by-row sums.
const BLOCKED_FROM: usize = 4;
/// Rows of weights unpacked at a time in the blocked product.
const BLOCK_ROWS: usize = 128;

impl TernaryMatrix {
    /// From `rows * cols` codes in row-major order.
    ///
    /// # Errors
    /// When the number of codes is not `rows * cols`, a code is outside of {-1, 0, 1}, or the scale is not finite.
    pub fn from_codes(
        rows: usize,
        cols: usize,
        codes: &[i8],
        scale: f32,
    ) -> Result<Self, BitnetError> {
        if rows.checked_mul(cols) != Some(codes.len()) {
            return Err(BitnetError::input(
                format!(
                    "a {rows} x {cols} ternary matrix needs {rows} * {cols} codes, found {}",
                    codes.len()
                ),
                "pass the codes row by row",
            ));
        }
        if let Some(p) = codes.iter().position(|c| !(-1..=1).contains(c)) {
            return Err(BitnetError::input(
                format!(
                    "weight code {} at row {}, column {}: expected -1, 0 or 1",
                    codes[p],
                    p / cols,
                    p % cols
                ),
                "ternarise the weights first",
            ));
        }
        Self::from_fn(rows, cols, scale, |r, c| codes[r * cols + c])
    }

    /// From a function of (row, column), whose values are clamped to {-1, 0, 1}.
    ///
    /// # Errors
    /// When the scale is not finite.
    pub fn from_fn(
        rows: usize,
        cols: usize,
        scale: f32,
        code: impl Fn(usize, usize) -> i8 + Sync,
    ) -> Result<Self, BitnetError> {
        if !scale.is_finite() {
            return Err(BitnetError::input(
                format!("weight scale is {scale}: expected a finite number"),
                "check the checkpoint",
            ));
        }
        let row_bytes = cols.div_ceil(4);
        let mut packed = vec![0u8; rows * row_bytes];
        if row_bytes > 0 {
            packed
                .par_chunks_mut(row_bytes)
                .enumerate()
                .for_each(|(r, bytes)| {
                    for (b, byte) in bytes.iter_mut().enumerate() {
                        // Columns past the end hold code 0, so that a whole byte may always be used.
                        *byte = (0..4).fold(0u8, |acc, i| {
                            let c = 4 * b + i;
                            let field = if c < cols {
                                (code(r, c).clamp(-1, 1) + 1) as u8
                            } else {
                                1
                            };
                            acc | field << (2 * i)
                        });
                    }
                });
        }
        Ok(Self {
            rows,
            cols,
            row_bytes,
            packed,
            scale,
        })
    }

    /// Absmean ternarisation of a full-precision master (b1.58, eq. 1-3): `s = max(mean|W|, 1e-5)`,
    /// `codes = clamp(round(W / s), -1, 1)`, scale `s`. Rounds half to even, as PyTorch does.
    ///
    /// # Errors
    /// When the number of values is not `rows * cols` or a value is not finite.
    pub fn ternarise(rows: usize, cols: usize, master: &[f32]) -> Result<Self, BitnetError> {
        if rows.checked_mul(cols) != Some(master.len()) {
            return Err(BitnetError::input(
                format!(
                    "a {rows} x {cols} matrix needs {rows} * {cols} values, found {}",
                    master.len()
                ),
                "pass the values row by row",
            ));
        }
        if let Some(p) = master.iter().position(|v| !v.is_finite()) {
            return Err(BitnetError::input(
                format!(
                    "weight {} at row {}, column {}: expected a finite number",
                    master[p],
                    p / cols.max(1),
                    p % cols.max(1)
                ),
                "the checkpoint is damaged: download it again",
            ));
        }
        let mean =
            master.iter().map(|v| f64::from(v.abs())).sum::<f64>() / (master.len().max(1) as f64);
        let scale = (mean as f32).max(1e-5);
        Self::from_fn(rows, cols, scale, |r, c| {
            (master[r * cols + c] / scale)
                .round_ties_even()
                .clamp(-1.0, 1.0) as i8
        })
    }

    /// Number of outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The factor common to all weights: `W = scale * codes`.
    pub fn scale(&self) -> f32 {
        self.scale
    }

    /// The weight code at (row, column): -1, 0 or 1.
    ///
    /// # Panics
    /// When the position is outside of the matrix.
    pub fn get(&self, row: usize, col: usize) -> i8 {
        assert!(
            row < self.rows && col < self.cols,
            "({row}, {col}) is outside of {} x {}",
            self.rows,
            self.cols
        );
        ((self.packed[row * self.row_bytes + col / 4] >> (2 * (col % 4))) & 3) as i8 - 1
    }

    /// The codes of one row, `cols` values in {-1, 0, 1}.
    ///
    /// # Panics
    /// When `row >= rows`.
    pub fn row_codes(&self, row: usize) -> Vec<i8> {
        let bytes = &self.packed[row * self.row_bytes..(row + 1) * self.row_bytes];
        (0..self.cols)
            .map(|c| ((bytes[c / 4] >> (2 * (c % 4))) & 3) as i8 - 1)
            .collect()
    }

    /// How many codes are not 0.
    pub fn nonzeros(&self) -> usize {
        // Padding columns hold code 0.
        self.packed
            .par_iter()
            .map(|b| (0..4).filter(|i| (b >> (2 * i)) & 3 != 1).count())
            .sum()
    }

    /// The weights `scale * code` as floats, row-major.
    pub fn dequantise(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.rows * self.cols];
        self.unpack_rows(0, self.rows, self.scale, &mut out);
        out
    }

    /// `y = scale * (codes * x)` for one token: `cols` values in, `rows` values out. The sum runs in four f32 lanes.
    ///
    /// # Panics
    /// When `x.len() != cols`.
    pub fn matvec(&self, x: &[f32]) -> Vec<f32> {
        assert_eq!(x.len(), self.cols, "input length");
        let mut padded = vec![0.0f32; self.row_bytes * 4];
        padded[..x.len()].copy_from_slice(x);
        let mut out = vec![0.0; self.rows];
        out.par_iter_mut()
            .with_min_len(64)
            .enumerate()
            .for_each(|(r, y)| {
                let bytes = &self.packed[r * self.row_bytes..(r + 1) * self.row_bytes];
                *y = self.scale * dot(bytes, &padded);
            });
        out
    }

    /// `Y = scale * X * codes^T` for a batch: `X` is tokens x `cols`, the result tokens x `rows`.
    ///
    /// # Errors
    /// When `x.cols != cols`.
    pub fn matmul(&self, x: &Matrix) -> Result<Matrix, BitnetError> {
        if x.cols != self.cols {
            return Err(BitnetError::input(
                format!(
                    "a linear layer of {} inputs was given {} features",
                    self.cols, x.cols
                ),
                "check hidden_size and intermediate_size in config.json",
            ));
        }
        let mut out = Matrix::zeros(x.rows, self.rows);
        if x.rows < BLOCKED_FROM {
            for t in 0..x.rows {
                out.row_mut(t).copy_from_slice(&self.matvec(x.row(t)));
            }
            return Ok(out);
        }
        if self.rows == 0 || self.cols == 0 {
            return Ok(out);
        }
        let device = candle_core::Device::Cpu;
        let input = candle_core::Tensor::from_slice(&x.data, (x.rows, x.cols), &device)?;
        for start in (0..self.rows).step_by(BLOCK_ROWS) {
            let end = (start + BLOCK_ROWS).min(self.rows);
            let mut block = vec![0.0f32; (end - start) * self.cols];
            self.unpack_rows(start, end, 1.0, &mut block);
            let block = candle_core::Tensor::from_vec(block, (end - start, self.cols), &device)?;
            let product: Vec<f32> = input.matmul(&block.t()?)?.flatten_all()?.to_vec1()?;
            for (t, row) in product.chunks_exact(end - start).enumerate() {
                for (y, v) in out.row_mut(t)[start..end].iter_mut().zip(row) {
                    *y = v * self.scale;
                }
            }
        }
        Ok(out)
    }

    /// Rows `start..end` times `factor` into `out` (row-major, `cols` a row).
    fn unpack_rows(&self, start: usize, end: usize, factor: f32, out: &mut [f32]) {
        if self.cols == 0 {
            return;
        }
        let bytes = &self.packed[start * self.row_bytes..end * self.row_bytes];
        out.par_chunks_mut(self.cols)
            .zip(bytes.par_chunks(self.row_bytes))
            .for_each(|(row, bytes)| {
                for (four, byte) in row.chunks_mut(4).zip(bytes) {
                    for (w, d) in four.iter_mut().zip(&DECODE[*byte as usize]) {
                        *w = d * factor;
                    }
                }
            });
    }
}

fn dot(bytes: &[u8], x: &[f32]) -> f32 {
    let mut even = [0.0f32; 4];
    let mut odd = [0.0f32; 4];
    let mut pairs = bytes.chunks_exact(2).zip(x.chunks_exact(8));
    for (b, x) in &mut pairs {
        let (w0, w1) = (&DECODE[b[0] as usize], &DECODE[b[1] as usize]);
        for i in 0..4 {
            even[i] += w0[i] * x[i];
            odd[i] += w1[i] * x[4 + i];
        }
    }
    if bytes.len() % 2 == 1 {
        let w = &DECODE[bytes[bytes.len() - 1] as usize];
        for i in 0..4 {
            even[i] += w[i] * x[x.len() - 4 + i];
        }
    }
    (even[0] + odd[0]) + (even[1] + odd[1]) + ((even[2] + odd[2]) + (even[3] + odd[3]))
}

/// Values of a [`DenseMatrix`] in the precision they were stored in.
#[derive(Clone, Debug, PartialEq)]
pub enum DenseValues {
    /// 32-bit floats.
    F32(Vec<f32>),
    /// IEEE half precision.
    F16(Vec<f16>),
    /// bfloat16.
    Bf16(Vec<bf16>),
}

/// An embedding table or an untied head: `rows` tokens by `cols` features, kept in its stored precision.
#[derive(Clone, Debug, PartialEq)]
pub struct DenseMatrix {
    rows: usize,
    cols: usize,
    values: DenseValues,
}

impl DenseMatrix {
    /// From `rows * cols` values, row-major.
    ///
    /// # Errors
    /// When the number of values is wrong.
    pub fn new(rows: usize, cols: usize, values: DenseValues) -> Result<Self, BitnetError> {
        let found = match &values {
            DenseValues::F32(v) => v.len(),
            DenseValues::F16(v) => v.len(),
            DenseValues::Bf16(v) => v.len(),
        };
        if rows.checked_mul(cols) != Some(found) {
            return Err(BitnetError::input(
                format!("a {rows} x {cols} matrix needs {rows} * {cols} values, found {found}"),
                "check vocab_size and hidden_size",
            ));
        }
        Ok(Self { rows, cols, values })
    }

    /// Number of rows (tokens of the vocabulary).
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns (hidden size).
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// The stored values.
    pub fn values(&self) -> &DenseValues {
        &self.values
    }

    /// Row `r` as floats.
    ///
    /// # Panics
    /// When `r >= rows`.
    pub fn row(&self, r: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.cols];
        self.row_into(r, &mut out);
        out
    }

    fn row_into(&self, r: usize, out: &mut [f32]) {
        let range = r * self.cols..(r + 1) * self.cols;
        match &self.values {
            DenseValues::F32(v) => out.copy_from_slice(&v[range]),
            DenseValues::F16(v) => v[range].convert_to_f32_slice(out),
            DenseValues::Bf16(v) => v[range].convert_to_f32_slice(out),
        }
    }

    /// `Y = X * M^T`: `X` is tokens x `cols`, the result tokens x `rows`.
    ///
    /// # Errors
    /// When `x.cols != cols`.
    pub fn matmul(&self, x: &Matrix) -> Result<Matrix, BitnetError> {
        if x.cols != self.cols {
            return Err(BitnetError::input(
                format!("a table of {} features was given {}", self.cols, x.cols),
                "check hidden_size in config.json",
            ));
        }
        let mut out = Matrix::zeros(x.rows, self.rows);
        if x.rows == 0 || self.rows == 0 || self.cols == 0 {
            return Ok(out);
        }
        if x.rows < BLOCKED_FROM {
            for t in 0..x.rows {
                let input = x.row(t);
                let row = || vec![0.0; self.cols];
                out.row_mut(t)
                    .par_iter_mut()
                    .with_min_len(64)
                    .enumerate()
                    .for_each_init(row, |row, (r, y)| {
                        self.row_into(r, row);
                        *y = dot_dense(input, row);
                    });
            }
            return Ok(out);
        }
        let device = candle_core::Device::Cpu;
        let input = candle_core::Tensor::from_slice(&x.data, (x.rows, x.cols), &device)?;
        for start in (0..self.rows).step_by(16 * BLOCK_ROWS) {
            let end = (start + 16 * BLOCK_ROWS).min(self.rows);
            let mut block = vec![0.0; (end - start) * self.cols];
            block
                .par_chunks_mut(self.cols)
                .enumerate()
                .for_each(|(r, row)| self.row_into(start + r, row));
            let block = candle_core::Tensor::from_vec(block, (end - start, self.cols), &device)?;
            let product: Vec<f32> = input.matmul(&block.t()?)?.flatten_all()?.to_vec1()?;
            for (t, row) in product.chunks_exact(end - start).enumerate() {
                out.row_mut(t)[start..end].copy_from_slice(row);
            }
        }
        Ok(out)
    }
}

fn dot_dense(x: &[f32], w: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 8];
    for (x, w) in x.chunks(8).zip(w.chunks(8)) {
        for (lane, (x, w)) in lanes.iter_mut().zip(x.iter().zip(w)) {
            *lane += x * w;
        }
    }
    lanes.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(rows: usize, cols: usize) -> Vec<i8> {
        (0..rows * cols)
            .map(|i| ((i * i / 3 + i) % 3) as i8 - 1)
            .collect()
    }

    #[test]
    fn products_of_any_width_and_batch_agree() {
        for cols in [1, 3, 4, 7, 8, 33, 130] {
            for rows in [1, 5, 129] {
                let codes = codes(rows, cols);
                let w = TernaryMatrix::from_codes(rows, cols, &codes, 0.75).unwrap();
                for tokens in [1, 3, 4, 9] {
                    let data = (0..tokens * cols)
                        .map(|i| (i as f32 * 0.37).sin())
                        .collect();
                    let x = Matrix {
                        rows: tokens,
                        cols,
                        data,
                    };
                    let y = w.matmul(&x).unwrap();
                    for t in 0..tokens {
                        for r in 0..rows {
                            let sum: f64 = (0..cols)
                                .map(|c| f64::from(codes[r * cols + c]) * f64::from(x.row(t)[c]))
                                .sum();
                            let found = f64::from(y.row(t)[r]);
                            assert!((found - 0.75 * sum).abs() < 1e-5, "{rows} x {cols}");
                        }
                    }
                }
                assert_eq!(w.nonzeros(), codes.iter().filter(|c| **c != 0).count());
                assert_eq!(w.row_codes(rows - 1), codes[(rows - 1) * cols..]);
            }
        }
    }

    #[test]
    fn ternarisation_is_absmean() {
        // mean |w| = 0.5: 0.25 / 0.5 rounds to even 0, 0.26 / 0.5 to 1.
        let w = TernaryMatrix::ternarise(1, 4, &[0.25, -0.26, 1.24, 0.25]).unwrap();
        assert_eq!((w.row_codes(0), w.scale()), (vec![0, -1, 1, 0], 0.5));
        assert!(TernaryMatrix::ternarise(1, 2, &[f32::NAN, 0.0]).is_err());
        assert!(TernaryMatrix::ternarise(usize::MAX, 2, &[0.0]).is_err());
        assert!(TernaryMatrix::from_codes(1, 2, &[0, 2], 1.0).is_err());
        assert!(TernaryMatrix::from_codes(1, 1, &[0], f32::INFINITY).is_err());
        // A matrix of zeros has the smallest scale, as in the reference implementations.
        assert_eq!(
            TernaryMatrix::ternarise(2, 1, &[0.0, 0.0]).unwrap().scale(),
            1e-5
        );
    }

    #[test]
    fn dense_tables_in_every_precision() {
        let values: Vec<f32> = (0..6 * 10).map(|i| (i as f32 - 30.0) / 16.0).collect();
        let half = |v: &[f32]| v.iter().map(|x| f16::from_f32(*x)).collect();
        let brain = |v: &[f32]| v.iter().map(|x| bf16::from_f32(*x)).collect();
        for stored in [
            DenseValues::F32(values.clone()),
            DenseValues::F16(half(&values)),
            DenseValues::Bf16(brain(&values)),
        ] {
            let table = DenseMatrix::new(6, 10, stored).unwrap();
            assert_eq!(table.row(4), values[40..50]);
            for tokens in [1, 6] {
                let data = (0..tokens * 10).map(|i| i as f32 * 0.125 - 2.0).collect();
                let x = Matrix {
                    rows: tokens,
                    cols: 10,
                    data,
                };
                let y = table.matmul(&x).unwrap();
                let wanted: f32 = (0..10).map(|c| values[50 + c] * x.row(tokens - 1)[c]).sum();
                assert!((y.row(tokens - 1)[5] - wanted).abs() < 1e-4);
            }
        }
        assert!(DenseMatrix::new(2, 2, DenseValues::F32(vec![0.0; 3])).is_err());
    }
}
