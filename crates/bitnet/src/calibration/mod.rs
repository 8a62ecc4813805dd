//! Measured ranges and fitted polynomials of a model, per layer: what encrypted inference evaluates, stored as `calibration.json`.
//!
//! ```text
//! windows ─► measure (exact) ─► fit ─► measure (polynomials) ─► widen, fit ─► ... ─► held-out text: inside the intervals? within
//!                                       ▲                                            the target? ─► done
//!                                       └──────────── raise the degree of the function that hurts most ◄──┘ no
//! ```

mod evaluate;
mod fit;
mod head_bias;
mod histogram;
mod measure;
mod run;
mod stress;

pub use evaluate::{Evaluation, evaluate};
pub use head_bias::{calibrate_head_biases, normalise_rows};
pub use run::{CalibrationOptions, CalibrationOutcome, Degrees, calibrate};
pub use stress::SequenceReport;

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::error::BitnetError;
use crate::polynomial::ChebyshevSeries;

/// Largest absolute values measured in a layer. Names are those the forward pass reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MaxAbs {
    /// Residual stream at the layer's input.
    pub input: f64,
    /// Input of q, k and v: after the input norm and its gain.
    pub normed_input: f64,
    /// Queries, before the rotary embedding.
    pub q: f64,
    /// Keys, before the rotary embedding.
    pub k: f64,
    /// Values.
    pub v: f64,
    /// Attention weights times values, heads concatenated.
    pub attn: f64,
    /// After `attn_sub_norm` (equal to `attn` without one).
    pub attn_normed: f64,
    /// Output projection.
    pub o: f64,
    /// Residual stream after attention.
    pub residual: f64,
    /// Input of gate and up: after the post-attention norm and its gain.
    pub normed_post: f64,
    /// Gate pre-activation.
    pub gate: f64,
    /// Up projection.
    pub up: f64,
    /// Activation of the gate.
    pub activation: f64,
    /// Activation times up.
    pub gated: f64,
    /// After `ffn_sub_norm` (equal to `gated` without one).
    pub gated_normed: f64,
    /// Down projection.
    pub down: f64,
}

/// Measured `[smallest, largest]` mean squares of the norms' inputs in a layer, without epsilon.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeanSquares {
    /// Input norm.
    pub input: [f64; 2],
    /// `attn_sub_norm`.
    pub attn: [f64; 2],
    /// Post-attention norm.
    pub post: [f64; 2],
    /// `ffn_sub_norm`.
    pub gated: [f64; 2],
}

/// Polynomials and ranges of one layer. Norms: the variable is the mean square of the norm's input without epsilon, the value
/// `1/sqrt(ms + eps)`. Series of sub-norms that the model lacks are absent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerCalibration {
    /// Inverse root of the input norm.
    pub input_norm: ChebyshevSeries,
    /// `sigma(x)` of `x = z - ln(i+1) + b_h`; the interval covers row i's bias alone too, which masked entries have.
    pub sigmoid: ChebyshevSeries,
    /// How often the value of `sigmoid` is squared: it then stands for the `2^-s`-th power of the function, and small weights keep their
    /// relative accuracy. 0 unless rows are normalised.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sigmoid_squarings: usize,
    /// A growing function `c(S)` of a row's sum `S`, near its logarithm: what is refreshed of `S`, so that small sums keep their relative
    /// accuracy. Normalised sigmoid attention only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_compression: Option<ChebyshevSeries>,
    /// `1/sqrt(S^2 + eps^2)` as a function of `c(S)`; normalised sigmoid attention only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_inverse: Option<ChebyshevSeries>,
    /// Inverse root of `attn_sub_norm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attn_sub_norm: Option<ChebyshevSeries>,
    /// Inverse root of the post-attention norm (degree 1 where the activation's homogeneity lets `ffn_sub_norm` undo its error).
    pub post_attention_norm: ChebyshevSeries,
    /// Gate activation.
    pub activation: ChebyshevSeries,
    /// Inverse root of `ffn_sub_norm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ffn_sub_norm: Option<ChebyshevSeries>,
    /// Largest absolute values.
    pub max_abs: MaxAbs,
    /// Ranges of the norms' mean squares.
    pub ms: MeanSquares,
}

fn is_zero(n: &usize) -> bool {
    *n == 0
}

/// Everything encrypted inference needs to know of a model's ranges.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// Version of the file format: 1.
    pub format: u32,
    /// Tokens of the windows that were measured: polynomials hold for sequences up to this length.
    pub context: usize,
    /// How many tokens were measured.
    pub tokens: usize,
    /// One entry a layer.
    pub layers: Vec<LayerCalibration>,
    /// Largest absolute value of the residual stream after the last layer.
    pub max_abs_final: f64,
}

impl Calibration {
    /// Version of the file format that this crate reads and writes.
    pub const FORMAT: u32 = 1;

    /// Reads `calibration.json` and checks it against the model's configuration.
    ///
    /// # Errors
    /// Names the file and what does not fit.
    pub fn from_file(path: &Path, config: &Config) -> Result<Self, BitnetError> {
        let text = std::fs::read_to_string(path).map_err(|e| BitnetError::io(path, e))?;
        let file = path.display().to_string();
        let calibration: Self = serde_json::from_str(&text).map_err(|e| {
            BitnetError::format(
                &file,
                format!("is not a calibration: {e}"),
                "calibrate the model again",
            )
        })?;
        calibration.check(config, &file)?;
        Ok(calibration)
    }

    /// Writes `calibration.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), BitnetError> {
        let text = serde_json::to_string_pretty(self).map_err(|e| {
            BitnetError::format(
                path.display().to_string(),
                format!("cannot be written: {e}"),
                "report this",
            )
        })?;
        std::fs::write(path, text + "\n").map_err(|e| BitnetError::io(path, e))
    }

    /// Checks format, number of layers, intervals and coefficients; `file` names the calibration in errors.
    ///
    /// # Errors
    /// Names what does not fit the model.
    pub fn check(&self, config: &Config, file: &str) -> Result<(), BitnetError> {
        let bad = |problem: String| {
            Err(BitnetError::format(
                file,
                problem,
                "calibrate this model again (`tacit model calibrate`)",
            ))
        };
        if self.format != Self::FORMAT {
            return bad(format!(
                "has format {}, expected {}",
                self.format,
                Self::FORMAT
            ));
        }
        if self.layers.len() != config.layers {
            return bad(format!(
                "is for {} layers, the model has {}",
                self.layers.len(),
                config.layers
            ));
        }
        if self.context == 0 || self.context > config.context {
            return bad(format!(
                "was measured on windows of {} tokens, the model reads 1 to {}",
                self.context, config.context
            ));
        }
        for (n, layer) in self.layers.iter().enumerate() {
            for (name, series) in layer.series() {
                series.check(&format!("{file}: layers[{n}].{name}"))?;
            }
        }
        Ok(())
    }
}

impl LayerCalibration {
    /// The layer's series with their names in `calibration.json`.
    pub fn series(&self) -> impl Iterator<Item = (&'static str, &ChebyshevSeries)> {
        [
            ("input_norm", Some(&self.input_norm)),
            ("sigmoid", Some(&self.sigmoid)),
            ("row_compression", self.row_compression.as_ref()),
            ("row_inverse", self.row_inverse.as_ref()),
            ("attn_sub_norm", self.attn_sub_norm.as_ref()),
            ("post_attention_norm", Some(&self.post_attention_norm)),
            ("activation", Some(&self.activation)),
            ("ffn_sub_norm", self.ffn_sub_norm.as_ref()),
        ]
        .into_iter()
        .filter_map(|(name, series)| series.map(|s| (name, s)))
    }
}
