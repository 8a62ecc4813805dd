//! Checks shared by all containers: one linear matrix, one gain vector, one table at a time, then the statistics of the whole.

use half::{bf16, f16};

use super::safetensors_shards::{DType, RawTensor, pairs};
use super::{LayerWeights, LoadReport, Model, WeightForm};
use crate::error::BitnetError;
use crate::ternary::{DenseMatrix, DenseValues, TernaryMatrix};

/// Root-mean-square gain of a linear layer on inputs of mean square 1, `scale * sqrt(nonzeros / rows)`, that trained models
/// stay in (geometric mean over all layers). Known models: 0.3 to 80.
const USUAL_GAIN: [f64; 2] = [0.02, 150.0];
/// Share of zero codes in a matrix that trained models stay in.
const USUAL_ZEROS: [f64; 2] = [0.05, 0.95];

/// Where a tensor came from, for messages.
pub(super) struct Source<'a> {
    pub file: &'a str,
    pub tensor: &'a str,
}

impl Source<'_> {
    pub fn error(
        &self,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: &str,
    ) -> BitnetError {
        BitnetError::tensor(self.file, self.tensor, expected, found, remedy)
    }
}

/// Collects statistics while linear matrices are read.
#[derive(Default)]
pub(super) struct Assembly {
    pub report: LoadReport,
    zeros: usize,
    weights: usize,
    log_gain: f64,
    log_inverse_gain: f64,
    matrices: usize,
}

impl Assembly {
    /// Warns of tensors that no part of the model is made of.
    pub fn unknown(&mut self, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        let shown = names[..names.len().min(5)].join(", ");
        let more = if names.len() > 5 {
            format!(" and {} more", names.len() - 5)
        } else {
            String::new()
        };
        self.report
            .warnings
            .push(format!("unknown tensors, not used: {shown}{more}"));
    }

    /// Accounts for a matrix and refuses one without any non-zero weight.
    pub fn linear(
        &mut self,
        source: &Source,
        matrix: TernaryMatrix,
        form: WeightForm,
        kind: &str,
    ) -> Result<TernaryMatrix, BitnetError> {
        let total = matrix.rows() * matrix.cols();
        let nonzeros = matrix.nonzeros();
        if nonzeros == 0 {
            return Err(source.error(
                "ternary weights",
                "zeros only",
                "some re-uploads of BitNet weights lost layers to zeros: take the first release of the model (for 2B4T: April 2025)",
            ));
        }
        if !(matrix.scale().is_finite() && matrix.scale() > 0.0) {
            return Err(source.error(
                "a positive scale",
                matrix.scale().to_string(),
                "the checkpoint is damaged: download it again",
            ));
        }
        let zero_share = 1.0 - nonzeros as f64 / total as f64;
        if !(USUAL_ZEROS[0]..=USUAL_ZEROS[1]).contains(&zero_share) {
            self.report.warnings.push(format!(
                "{}: {:.1} % of its weights are 0; trained BitNets have 30 to 70 %",
                source.tensor,
                100.0 * zero_share
            ));
        }
        let reach = (nonzeros as f64 / matrix.rows() as f64).sqrt();
        self.log_gain += (f64::from(matrix.scale()) * reach).ln();
        self.log_inverse_gain += (reach / f64::from(matrix.scale())).ln();
        self.zeros += total - nonzeros;
        self.weights += total;
        let scales = &mut self.report.scales;
        *scales = if self.matrices == 0 {
            [matrix.scale(); 2]
        } else {
            [scales[0].min(matrix.scale()), scales[1].max(matrix.scale())]
        };
        self.matrices += 1;
        if !self.report.forms.contains(&form) {
            self.report.forms.push(form);
            self.report.forms.sort();
        }
        match self.report.types.iter_mut().find(|(t, _)| t == kind) {
            Some((_, n)) => *n += 1,
            None => self.report.types.push((kind.to_string(), 1)),
        }
        Ok(matrix)
    }

    /// Statistics of the whole: refuses scales that only make sense the other way round.
    pub fn finish(
        mut self,
        file: &str,
        model: Model,
        scales_declared: bool,
    ) -> Result<(Model, LoadReport), BitnetError> {
        let usual = |log: f64| (USUAL_GAIN[0].ln()..=USUAL_GAIN[1].ln()).contains(&log);
        let n = self.matrices.max(1) as f64;
        let (gain, inverse) = (self.log_gain / n, self.log_inverse_gain / n);
        if !usual(gain) {
            if usual(inverse) && scales_declared {
                return Err(BitnetError::tensor(
                    file,
                    "*.weight_scale",
                    format!(
                        "linear layers with a gain between {} and {}",
                        USUAL_GAIN[0], USUAL_GAIN[1]
                    ),
                    format!(
                        "a mean gain of {:.3e}, and {:.3e} with inverted scales",
                        gain.exp(),
                        inverse.exp()
                    ),
                    "the scales are inverted: set quantization_config.linear_class in config.json to the other of \"bitlinear\" (divides) and \"autobitlinear\" (multiplies)",
                ));
            }
            self.report.warnings.push(format!(
                "linear layers have a mean gain of {:.3e}; trained BitNets have 0.3 to 80. Check the weight scales",
                gain.exp()
            ));
        }
        self.report.zero_share = self.zeros as f64 / self.weights.max(1) as f64;
        Ok((model, self.report))
    }
}

/// A floating-point linear matrix: taken as it is when it only holds -s, 0 and s, ternarised otherwise.
pub(super) fn linear_from_floats(
    source: &Source,
    rows: usize,
    cols: usize,
    values: &[f32],
    stored_scale: Option<f32>,
) -> Result<(TernaryMatrix, WeightForm), BitnetError> {
    if let Some(p) = values.iter().position(|v| !v.is_finite()) {
        return Err(source.error(
            "finite weights",
            format!("{} at row {}, column {}", values[p], p / cols, p % cols),
            "the checkpoint is damaged: download it again",
        ));
    }
    let size = values.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    if size > 0.0 && values.iter().all(|v| *v == 0.0 || v.abs() == size) {
        let scale = size * stored_scale.unwrap_or(1.0);
        let codes = |r: usize, c: usize| {
            let v = values[r * cols + c];
            i8::from(v > 0.0) - i8::from(v < 0.0)
        };
        return Ok((
            TernaryMatrix::from_fn(rows, cols, scale, codes)?,
            WeightForm::TernaryFloats,
        ));
    }
    if stored_scale.is_some() {
        return Err(source.error(
            "weights of the form s x {-1, 0, 1} beside a weight_scale",
            "other values",
            "masters carry no weight_scale: remove it, or take the packed release",
        ));
    }
    Ok((
        TernaryMatrix::ternarise(rows, cols, values)?,
        WeightForm::Masters,
    ))
}

/// Checks a shape.
pub(super) fn expect_shape(
    source: &Source,
    found: &[usize],
    wanted: &[usize],
) -> Result<(), BitnetError> {
    if found == wanted {
        return Ok(());
    }
    Err(source.error(
        format!("shape {wanted:?}"),
        format!("{found:?}"),
        "config.json and weights are of different models",
    ))
}

/// A vector of `length` finite values.
pub(super) fn vector(
    source: &Source,
    tensor: &RawTensor,
    length: usize,
) -> Result<Vec<f32>, BitnetError> {
    expect_shape(source, &tensor.shape, &[length])?;
    let values = tensor.to_f32();
    if let Some(p) = values.iter().position(|v| !v.is_finite()) {
        return Err(source.error(
            "finite values",
            format!("{} at {p}", values[p]),
            "the checkpoint is damaged: download it again",
        ));
    }
    Ok(values)
}

/// A dense table of finite values, kept in its stored precision.
pub(super) fn table(
    source: &Source,
    tensor: RawTensor,
    rows: usize,
    cols: usize,
) -> Result<DenseMatrix, BitnetError> {
    expect_shape(source, &tensor.shape, &[rows, cols])?;
    let values = match tensor.dtype {
        DType::F16 => DenseValues::F16(pairs(&tensor.bytes).map(f16::from_le_bytes).collect()),
        DType::Bf16 => DenseValues::Bf16(pairs(&tensor.bytes).map(bf16::from_le_bytes).collect()),
        DType::F32 | DType::F64 => DenseValues::F32(tensor.to_f32()),
        other => {
            return Err(source.error(
                "floating-point values",
                other.to_string(),
                "quantised embedding tables are not supported",
            ));
        }
    };
    let bad = match &values {
        DenseValues::F32(v) => v.iter().position(|x| !x.is_finite()),
        DenseValues::F16(v) => v.iter().position(|x| !x.is_finite()),
        DenseValues::Bf16(v) => v.iter().position(|x| !x.is_finite()),
    };
    if let Some(p) = bad {
        return Err(source.error(
            "finite values",
            format!("NaN or infinity at row {}, column {}", p / cols, p % cols),
            "the checkpoint is damaged: download it again",
        ));
    }
    DenseMatrix::new(rows, cols, values)
}

/// Sub-norms must be in all layers or in none.
pub(super) fn check_sub_norms(
    file: &str,
    layers: &[LayerWeights],
    wanted: bool,
) -> Result<(), BitnetError> {
    let any = |f: fn(&LayerWeights) -> bool| layers.iter().any(f);
    let attn = wanted || any(|l| l.attn_sub_norm.is_some());
    let ffn = wanted || any(|l| l.ffn_sub_norm.is_some());
    for (n, layer) in layers.iter().enumerate() {
        for (missing, name, other) in [
            (
                attn && layer.attn_sub_norm.is_none(),
                "self_attn.attn_sub_norm",
                "self_attn.inner_attn_ln",
            ),
            (
                ffn && layer.ffn_sub_norm.is_none(),
                "mlp.ffn_sub_norm",
                "mlp.ffn_layernorm",
            ),
        ] {
            if missing {
                return Err(BitnetError::tensor(
                    file,
                    format!("model.layers.{n}.{name}.weight"),
                    format!("the sub-norm, as `{name}` or `{other}`"),
                    "nothing",
                    "without it the model computes something else: take a complete checkpoint",
                ));
            }
        }
    }
    Ok(())
}
