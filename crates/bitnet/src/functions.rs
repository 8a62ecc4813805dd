//! How the forward pass computes its functions (exactly, or by the polynomials of encrypted inference), and what it reports.

use crate::attention::RowSeries;
use crate::calibration::{Calibration, LayerCalibration, MaxAbs};
use crate::polynomial::ChebyshevSeries;
use crate::ternary::Matrix;

/// A function that encrypted inference replaces by a polynomial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FunctionKind {
    /// Inverse root of the input norm.
    InputNorm,
    /// Sigmoid of the biased scores.
    Sigmoid,
    /// Inverse of a row's sum of sigmoids (normalised sigmoid attention only).
    RowInverse,
    /// Inverse root of the norm before the output projection.
    AttnSubNorm,
    /// Inverse root of the post-attention norm.
    PostAttentionNorm,
    /// Gate activation.
    Activation,
    /// Inverse root of the norm before the down projection.
    FfnSubNorm,
}

impl FunctionKind {
    /// All functions, in the order of a layer.
    pub const ALL: [Self; 7] = [
        Self::InputNorm,
        Self::Sigmoid,
        Self::RowInverse,
        Self::AttnSubNorm,
        Self::PostAttentionNorm,
        Self::Activation,
        Self::FfnSubNorm,
    ];

    /// Name in `calibration.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::InputNorm => "input_norm",
            Self::Sigmoid => "sigmoid",
            Self::RowInverse => "row_inverse",
            Self::AttnSubNorm => "attn_sub_norm",
            Self::PostAttentionNorm => "post_attention_norm",
            Self::Activation => "activation",
            Self::FfnSubNorm => "ffn_sub_norm",
        }
    }
}

impl LayerCalibration {
    /// The series of a function (`None` for a sub-norm that the model lacks, or a normaliser it does not use).
    pub fn series_of(&self, kind: FunctionKind) -> Option<&ChebyshevSeries> {
        match kind {
            FunctionKind::InputNorm => Some(&self.input_norm),
            FunctionKind::Sigmoid => Some(&self.sigmoid),
            FunctionKind::RowInverse => self.row_inverse.as_ref(),
            FunctionKind::AttnSubNorm => self.attn_sub_norm.as_ref(),
            FunctionKind::PostAttentionNorm => Some(&self.post_attention_norm),
            FunctionKind::Activation => Some(&self.activation),
            FunctionKind::FfnSubNorm => self.ffn_sub_norm.as_ref(),
        }
    }
}

/// How the functions of a layer are computed.
#[derive(Clone, Copy, Debug)]
pub enum Functions<'a> {
    /// Softmax attention, everything exact.
    ExactSoftmax,
    /// Sigmoid attention with the model's head biases, everything exact; normalised where the model's is.
    ExactSigmoid,
    /// Sigmoid attention; every function is the calibration's polynomial, as under encryption. Masked attention entries go
    /// through the polynomial and are set to 0 after it.
    Polynomial(&'a Calibration),
    /// Sigmoid attention; one function is the calibration's polynomial, the others are exact: tells errors apart.
    PolynomialOnly(&'a Calibration, FunctionKind),
}

impl<'a> Functions<'a> {
    /// The calibration in use.
    pub fn calibration(&self) -> Option<&'a Calibration> {
        match self {
            Self::ExactSoftmax | Self::ExactSigmoid => None,
            Self::Polynomial(c) | Self::PolynomialOnly(c, _) => Some(c),
        }
    }

    /// The polynomial that stands for a function in a layer, `None` when it is computed exactly.
    pub(crate) fn polynomial(
        &self,
        layer: usize,
        kind: FunctionKind,
    ) -> Option<&'a ChebyshevSeries> {
        match self {
            Self::Polynomial(c) => c.layers[layer].series_of(kind),
            Self::PolynomialOnly(c, only) if *only == kind => c.layers[layer].series_of(kind),
            _ => None,
        }
    }
}

impl<'a> Functions<'a> {
    /// The series that stand for the inverse of row sums in a layer, `None` when it is computed exactly.
    pub(crate) fn row_series(&self, layer: usize) -> Option<RowSeries<'a>> {
        let inverse = self.polynomial(layer, FunctionKind::RowInverse)?;
        let compression = self.calibration()?.layers[layer].row_compression.as_ref()?;
        Some(RowSeries {
            compression,
            inverse,
        })
    }
}

/// Gaussian noise after each linear layer and after attention times values: a stand-in for the error of approximate arithmetic.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// Standard deviation is `2^-bits` times the calibrated largest absolute value (without calibration, that of the tensor).
    pub bits: f64,
    /// Seed of the noise.
    pub seed: u64,
}

/// Choices of a forward pass.
#[derive(Clone, Copy, Debug)]
pub struct ForwardOptions<'a> {
    /// How functions are computed.
    pub functions: Functions<'a>,
    /// Rounds the input of each linear layer to 8 bits per token (absmax), as BitNets are trained with. Off under encryption.
    pub int8_activations: bool,
    /// Noise added after linear layers.
    pub noise: Option<Noise>,
}

impl<'a> ForwardOptions<'a> {
    /// These functions, no rounding, no noise.
    pub fn new(functions: Functions<'a>) -> Self {
        Self {
            functions,
            int8_activations: false,
            noise: None,
        }
    }
}

/// A named intermediate of the forward pass. Names (and where they stand) are those of `max_abs` in `calibration.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quantity {
    /// Residual stream at the layer's input, tokens x hidden.
    Input,
    /// Mean squares of the input norm, tokens x 1.
    MsInput,
    /// After the input norm and its gain, tokens x hidden.
    NormedInput,
    /// Queries before the rotary embedding, tokens x hidden.
    Q,
    /// Keys before the rotary embedding, tokens x kv size.
    K,
    /// Values, tokens x kv size.
    V,
    /// Sigmoid attention: scores with bias `z - ln(i+1) + b_h`, of masked entries the bias alone or 0; softmax: scores. Row `h * tokens + t`
    /// is head h, new token t; one column a key.
    Z,
    /// Attention weights after the mask, in the shape of [`Quantity::Z`]; before normalisation where sigmoid attention is normalised.
    Weights,
    /// Sums of attention weights before normalisation (normalised sigmoid attention only), `heads * tokens` x 1.
    RowSum,
    /// Attention weights times values, tokens x hidden.
    Attn,
    /// Mean squares of `attn_sub_norm`, tokens x 1.
    MsAttn,
    /// After `attn_sub_norm`, tokens x hidden.
    AttnNormed,
    /// Output projection, tokens x hidden.
    O,
    /// Residual stream after attention, tokens x hidden.
    Residual,
    /// Mean squares of the post-attention norm, tokens x 1.
    MsPost,
    /// After the post-attention norm, tokens x hidden.
    NormedPost,
    /// Gate pre-activation, tokens x intermediate.
    Gate,
    /// Up projection, tokens x intermediate.
    Up,
    /// Activation of the gate, tokens x intermediate.
    Activation,
    /// Activation times up, tokens x intermediate.
    Gated,
    /// Mean squares of `ffn_sub_norm`, tokens x 1.
    MsGated,
    /// After `ffn_sub_norm`, tokens x intermediate.
    GatedNormed,
    /// Down projection, tokens x hidden.
    Down,
    /// Residual stream after the layer, tokens x hidden (of the last layer: what the final norm gets).
    Output,
}

impl Quantity {
    /// Name as in `calibration.json`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::MsInput => "ms.input",
            Self::NormedInput => "normed_input",
            Self::Q => "q",
            Self::K => "k",
            Self::V => "v",
            Self::Z => "z",
            Self::Weights => "weights",
            Self::RowSum => "row_sum",
            Self::Attn => "attn",
            Self::MsAttn => "ms.attn",
            Self::AttnNormed => "attn_normed",
            Self::O => "o",
            Self::Residual => "residual",
            Self::MsPost => "ms.post",
            Self::NormedPost => "normed_post",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Activation => "activation",
            Self::Gated => "gated",
            Self::MsGated => "ms.gated",
            Self::GatedNormed => "gated_normed",
            Self::Down => "down",
            Self::Output => "output",
        }
    }
}

impl MaxAbs {
    /// The field of a quantity, if it has one.
    pub fn get(&self, quantity: Quantity) -> Option<f64> {
        let mut copy = *self;
        copy.field(quantity).map(|v| *v)
    }

    /// The field of a quantity, mutable.
    pub fn field(&mut self, quantity: Quantity) -> Option<&mut f64> {
        Some(match quantity {
            Quantity::Input => &mut self.input,
            Quantity::NormedInput => &mut self.normed_input,
            Quantity::Q => &mut self.q,
            Quantity::K => &mut self.k,
            Quantity::V => &mut self.v,
            Quantity::Attn => &mut self.attn,
            Quantity::AttnNormed => &mut self.attn_normed,
            Quantity::O => &mut self.o,
            Quantity::Residual => &mut self.residual,
            Quantity::NormedPost => &mut self.normed_post,
            Quantity::Gate => &mut self.gate,
            Quantity::Up => &mut self.up,
            Quantity::Activation => &mut self.activation,
            Quantity::Gated => &mut self.gated,
            Quantity::GatedNormed => &mut self.gated_normed,
            Quantity::Down => &mut self.down,
            _ => return None,
        })
    }
}

/// Sees intermediates of a forward pass as they are computed.
pub trait Probe {
    /// Called once for each layer and quantity of a forward pass, in the order of computation.
    fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix);
}

/// How often a polynomial was evaluated outside of its interval.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct OutOfRange {
    /// Evaluations outside of the interval (or at NaN).
    pub outside: usize,
    /// Evaluations in all.
    pub evaluated: usize,
    /// Largest |t| of the normalised variable that lay outside of [-1, 1] (0 when none did, infinite for NaN).
    pub worst: f64,
}

/// Out-of-range counts per layer and function, and values that were not finite. Empty for exact functions.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RangeReport {
    /// Counts of each (layer, function) whose polynomial was evaluated, sorted.
    pub functions: std::collections::BTreeMap<(usize, FunctionKind), OutOfRange>,
    /// Values of the last hidden states that are NaN or infinite.
    pub non_finite: usize,
}

impl RangeReport {
    /// Evaluations outside of their interval, all functions together.
    pub fn outside(&self) -> usize {
        self.functions.values().map(|f| f.outside).sum()
    }

    /// Adds another pass's counts.
    pub fn merge(&mut self, other: &Self) {
        for (key, counts) in &other.functions {
            let mine = self.functions.entry(*key).or_default();
            mine.outside += counts.outside;
            mine.evaluated += counts.evaluated;
            mine.worst = mine.worst.max(counts.worst);
        }
        self.non_finite += other.non_finite;
    }
}

impl std::fmt::Display for RangeReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut any = false;
        for ((layer, kind), counts) in self.functions.iter().filter(|(_, c)| c.outside > 0) {
            any = true;
            writeln!(
                f,
                "layer {layer} {}: {} of {} values outside of the interval, the worst at {:.3} half-widths",
                kind.name(),
                counts.outside,
                counts.evaluated,
                counts.worst
            )?;
        }
        if self.non_finite > 0 {
            writeln!(
                f,
                "{} values of the last hidden states are not finite",
                self.non_finite
            )?;
        }
        if !any && self.non_finite == 0 {
            writeln!(f, "every value inside of its interval")?;
        }
        Ok(())
    }
}

/// A polynomial with its counter.
pub(crate) struct Counted<'a> {
    series: &'a ChebyshevSeries,
    pub counts: OutOfRange,
}

impl<'a> Counted<'a> {
    pub fn new(series: &'a ChebyshevSeries) -> Self {
        Self {
            series,
            counts: OutOfRange::default(),
        }
    }

    pub fn eval(&mut self, x: f64) -> f64 {
        self.counts.evaluated += 1;
        if !self.series.contains(x) {
            self.counts.outside += 1;
            let t = self.series.normalise(x).abs();
            let t = if t.is_nan() { f64::INFINITY } else { t };
            self.counts.worst = self.counts.worst.max(t);
        }
        self.series.eval(x)
    }
}

impl OutOfRange {
    pub(crate) fn add(&mut self, other: &Self) {
        self.outside += other.outside;
        self.evaluated += other.evaluated;
        self.worst = self.worst.max(other.worst);
    }
}
