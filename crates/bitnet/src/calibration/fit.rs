//! From measured distributions to polynomials.

use super::measure::Statistics;
use super::{Calibration, CalibrationOptions, Degrees, LayerCalibration, MeanSquares};
use crate::attention::row_inverse;
use crate::checkpoint::Model;
use crate::config::Attention;
use crate::error::BitnetError;
use crate::functions::FunctionKind;
use crate::polynomial::{ChebyshevSeries, Sample};

/// Groups that mean squares are put in, by rank.
const GROUPS: usize = 2048;
/// Points of the uniform share.
const GRID: usize = 1024;

/// Ranges of one layer: `[z, gate, ms.input, ms.attn, ms.post, ms.gated, row sums]`.
type LayerRanges = [[f64; 2]; 7];

/// Ranges that only ever grow over the rounds of a calibration.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(pub Vec<LayerRanges>);

/// What a calibration has seen of text and of stress sequences.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub text: Statistics,
    pub stress: Statistics,
    pub text_ranges: Ranges,
    pub stress_ranges: Ranges,
}

impl Seen {
    /// Widens by mean squares before `attn_sub_norm`, `[smallest, largest]` a layer.
    pub fn reach(&mut self, model: &Model, attn: &[[f64; 2]]) {
        let empty = [f64::INFINITY, f64::NEG_INFINITY];
        self.stress_ranges.0.resize(model.layers.len(), [empty; 7]);
        for (ranges, seen) in self.stress_ranges.0.iter_mut().zip(attn) {
            ranges[3] = union(ranges[3], *seen);
        }
    }

    /// Takes new measurements; ranges keep what they had.
    pub fn update(&mut self, model: &Model, text: Statistics, stress: Statistics, context: usize) {
        self.text_ranges.widen(model, &text, context);
        self.stress_ranges.widen(model, &stress, context);
        // The first layer's input is an embedding: all of them are known.
        for token in 0..model.embeddings.rows() {
            let row = model.embeddings.row(token);
            let sum: f64 = row.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            if let Some(layer) = self.stress_ranges.0.first_mut() {
                grow(&mut layer[2], sum / row.len() as f64);
            }
        }
        self.text = text;
        self.stress = stress;
    }
}

fn grow(range: &mut [f64; 2], x: f64) {
    if x.is_finite() {
        *range = [range[0].min(x), range[1].max(x)];
    }
}

fn union(a: [f64; 2], b: [f64; 2]) -> [f64; 2] {
    [a[0].min(b[0]), a[1].max(b[1])]
}

impl Ranges {
    /// Widens by what was measured, and by what sigmoid attention sees of rows whose scores are all 0 (padding).
    pub fn widen(&mut self, model: &Model, seen: &Statistics, context: usize) {
        let empty = [f64::INFINITY, f64::NEG_INFINITY];
        self.0.resize(seen.layers.len(), [empty; 7]);
        for ((ranges, layer), weights) in self.0.iter_mut().zip(&seen.layers).zip(&model.layers) {
            let mut grow = |i: usize, x: f64| grow(&mut ranges[i], x);
            for h in &weights.head_bias {
                grow(0, f64::from(*h));
                grow(0, f64::from(*h) - (context as f64).ln());
            }
            for (i, histogram) in [&layer.z, &layer.gate].into_iter().enumerate() {
                grow(i, histogram.min);
                grow(i, histogram.max);
            }
            for (i, ms) in layer.ms.iter().enumerate() {
                ms.iter().for_each(|v| grow(2 + i, f64::from(*v)));
            }
            layer.row_sums.iter().for_each(|v| grow(6, f64::from(*v)));
        }
    }
}

/// Fits every function of every layer.
pub(super) fn fit(
    model: &Model,
    seen: &Seen,
    degrees: &Degrees,
    options: &CalibrationOptions,
    context: usize,
) -> Result<Calibration, BitnetError> {
    let config = &model.config;
    let mut layers = Vec::new();
    for (n, (layer, weights)) in seen.text.layers.iter().zip(&model.layers).enumerate() {
        let stress = seen.stress.layers.get(n);
        let empty = [[f64::INFINITY, f64::NEG_INFINITY]; 7];
        let (text_range, stress_range) = (
            seen.text_ranges.0[n],
            seen.stress_ranges.0.get(n).copied().unwrap_or(empty),
        );
        let range: LayerRanges = std::array::from_fn(|i| union(text_range[i], stress_range[i]));
        let norm =
            |kind: FunctionKind, i: usize, eps: f64| -> Result<ChebyshevSeries, BitnetError> {
                let ms = [
                    layer.ms[i].as_slice(),
                    stress.map_or(&[][..], |s| s.ms[i].as_slice()),
                ];
                let widened = |r: [f64; 2], margin: f64| [r[0] / margin, r[1] * margin];
                let range = union(
                    widened(text_range[2 + i], options.norm_margin),
                    widened(stress_range[2 + i], options.stress_margin),
                );
                norm_series(ms, range, eps, degrees.of(kind), options)
            };
        let activation = config.activation;
        let normalised = config.attention == Attention::NormalisedSigmoid;
        let squarings = usize::from(normalised);
        let (row_compression, row_inverse) = if normalised {
            let seen = [&layer.row_sums[..], stress.map_or(&[], |s| &s.row_sums)];
            let (compression, inverse) = row_series(
                seen,
                range[6],
                config.row_sum_eps(n),
                degrees.row_inverse,
                options,
            )?;
            (Some(compression), Some(inverse))
        } else {
            (None, None)
        };
        layers.push(LayerCalibration {
            input_norm: norm(FunctionKind::InputNorm, 0, config.rms_norm_eps)?,
            sigmoid: plain_series(&layer.z.shares(), range[0], degrees.sigmoid, options, |x| {
                (1.0 / (1.0 + (-x).exp())).powf((-(squarings as f64)).exp2())
            })?,
            sigmoid_squarings: squarings,
            row_compression,
            row_inverse,
            attn_sub_norm: weights
                .attn_sub_norm
                .is_some()
                .then(|| norm(FunctionKind::AttnSubNorm, 1, config.attn_sub_norm_eps(n)))
                .transpose()?,
            post_attention_norm: norm(FunctionKind::PostAttentionNorm, 2, config.rms_norm_eps)?,
            activation: plain_series(
                &layer.gate.shares(),
                range[1],
                degrees.activation,
                options,
                |x| activation.apply(x),
            )?,
            ffn_sub_norm: weights
                .ffn_sub_norm
                .is_some()
                .then(|| norm(FunctionKind::FfnSubNorm, 3, config.rms_norm_eps))
                .transpose()?,
            max_abs: layer.max_abs,
            ms: mean_squares(&range),
        });
    }
    let calibration = Calibration {
        format: Calibration::FORMAT,
        context,
        tokens: seen.text.tokens,
        layers,
        max_abs_final: seen.text.max_abs_final.max(seen.stress.max_abs_final),
    };
    calibration.check(config, "calibration")?;
    Ok(calibration)
}

/// Measured ranges of mean squares; 0 where the model has no such norm.
fn mean_squares(range: &LayerRanges) -> MeanSquares {
    let of = |i: usize| {
        if range[i][0] <= range[i][1] {
            range[i]
        } else {
            [0.0; 2]
        }
    };
    MeanSquares {
        input: of(2),
        attn: of(3),
        post: of(4),
        gated: of(5),
    }
}

/// Sigmoid or activation: absolute error, interval widened about its centre.
fn plain_series(
    shares: &[(f64, f64)],
    [lo, hi]: [f64; 2],
    degree: usize,
    options: &CalibrationOptions,
    f: impl Fn(f64) -> f64,
) -> Result<ChebyshevSeries, BitnetError> {
    let (centre, half) = (0.5 * (lo + hi), 0.5 * (hi - lo).max(1e-6) * options.margin);
    let (lo, hi) = (centre - half, centre + half);
    let measured = 1.0 - options.uniform_share;
    let mut samples: Vec<Sample> = shares
        .iter()
        .map(|(x, share)| sample(*x, f(*x), measured * share))
        .collect();
    samples.extend((0..GRID).map(|i| {
        let x = lo + (hi - lo) * (i as f64 + 0.5) / GRID as f64;
        sample(x, f(x), options.uniform_share / GRID as f64)
    }));
    ChebyshevSeries::fit_weighted(lo, hi, degree, &samples)
}

/// Inverse root: relative error on an interval that has its margins; down to 0 where epsilon is larger than what would be cut
/// off. `ms` are the mean squares of text and of stress sequences.
fn norm_series(
    ms: [&[f32]; 2],
    [lo, hi]: [f64; 2],
    eps: f64,
    degree: usize,
    options: &CalibrationOptions,
) -> Result<ChebyshevSeries, BitnetError> {
    let lo = if lo <= eps { 0.0 } else { lo };
    let f = |x: f64| 1.0 / (x + eps).sqrt();
    let samples = relative_samples(ms, [lo, hi], eps, options, f);
    ChebyshevSeries::fit_weighted(lo, hi, degree, &samples)
}

/// Degree of the compression of row sums: 3 levels, which attention has to spare before its row sums are refreshed.
const COMPRESSION_DEGREE: usize = 7;
/// Sum at which the compression begins to level off, as a share of the largest.
const COMPRESSION_BEND: f64 = 0.01;

/// The two series of the rows' normaliser: a compression `c(S)`, the polynomial of degree 7 nearest to `ln(S + d)` that grows over the whole
/// interval, and `1/sqrt(S^2 + eps^2)` as a function of `c`, by its relative error.
fn row_series(
    seen: [&[f32]; 2],
    [lo, hi]: [f64; 2],
    eps: f64,
    degree: usize,
    options: &CalibrationOptions,
) -> Result<(ChebyshevSeries, ChebyshevSeries), BitnetError> {
    let (lo, hi) = (lo.min(0.0) - 0.1 * eps, hi * options.norm_margin);
    let at = |i: usize, n: usize| lo + (hi - lo) * i as f64 / n as f64;
    let mut bend = COMPRESSION_BEND * hi;
    let compression = loop {
        let log = |x: f64| (x.max(0.0) + bend).ln();
        let c = ChebyshevSeries::fit(lo, hi, COMPRESSION_DEGREE, log)?;
        let grows = (0..GRID).all(|i| c.eval(at(i, GRID)) < c.eval(at(i + 1, GRID)));
        // of a wide enough bend the logarithm is a straight line
        if grows || bend > 100.0 * hi {
            break c;
        }
        bend *= 1.5;
    };
    let f = |sum: f64| row_inverse(sum, eps);
    let samples = relative_samples(seen, [lo, hi], eps, options, f)
        .into_iter()
        .map(|s| Sample {
            x: compression.eval(s.x),
            ..s
        })
        .collect::<Vec<_>>();
    let (first, last) = (compression.eval(lo), compression.eval(hi));
    // room for the error of a refresh
    let room = 1e-3 * (last - first);
    let inverse = ChebyshevSeries::fit_weighted(first - room, last + room, degree, &samples)?;
    Ok((compression, inverse))
}

/// Samples of a positive function with weights for its relative error on `[lo, hi]`, which has its margins; `eps` is where the function levels off. `seen`
/// are the values of text and of stress sequences.
fn relative_samples(
    seen: [&[f32]; 2],
    [lo, hi]: [f64; 2],
    eps: f64,
    options: &CalibrationOptions,
    f: impl Fn(f64) -> f64,
) -> Vec<Sample> {
    let relative = |x: f64, weight: f64| sample(x, f(x), weight / (f(x) * f(x)));
    let mut samples: Vec<Sample> = Vec::new();
    let stress_share = if seen[1].is_empty() {
        0.0
    } else {
        options.stress_share
    };
    let text_share = 1.0 - options.uniform_share - stress_share;
    for (seen, share) in seen.into_iter().zip([text_share, stress_share]) {
        let mut sorted: Vec<f64> = seen.iter().map(|v| f64::from(*v)).collect();
        sorted.sort_by(f64::total_cmp);
        let size = sorted.len().div_ceil(GROUPS).max(1);
        samples.extend(sorted.chunks(size).map(|group| {
            let mean = group.iter().sum::<f64>() / group.len() as f64;
            relative(mean, share * group.len() as f64 / sorted.len() as f64)
        }));
    }
    // Half of the uniform share evenly in the variable, half evenly in its logarithm.
    let least = (lo + eps).max(1e-12 * hi);
    for i in 0..GRID {
        let u = (i as f64 + 0.5) / GRID as f64;
        let weight = 0.5 * options.uniform_share / GRID as f64;
        samples.push(relative(lo + (hi - lo) * u, weight));
        let x = (least * ((hi + eps) / least).powf(u) - eps).clamp(lo, hi);
        samples.push(relative(x, weight));
    }
    samples
}

fn sample(x: f64, y: f64, weight: f64) -> Sample {
    Sample { x, y, weight }
}
