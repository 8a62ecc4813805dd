//! From measured distributions to polynomials.

use super::measure::Statistics;
use super::{Calibration, CalibrationOptions, Degrees, LayerCalibration, MeanSquares};
use crate::checkpoint::Model;
use crate::error::BitnetError;
use crate::functions::FunctionKind;
use crate::polynomial::{ChebyshevSeries, Sample};

/// Groups that mean squares are put in, by rank.
const GROUPS: usize = 2048;
/// Points of the uniform share.
const GRID: usize = 1024;

/// Ranges that only ever grow over the rounds of a calibration: `[z, gate, ms.input, ms.attn, ms.post, ms.gated]` per layer.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges(pub Vec<[[f64; 2]; 6]>);

impl Ranges {
    /// Widens by what was measured, and by what sigmoid attention sees of rows whose scores are all 0 (padding).
    pub fn widen(&mut self, model: &Model, seen: &Statistics, context: usize) {
        let empty = [f64::INFINITY, f64::NEG_INFINITY];
        self.0.resize(seen.layers.len(), [empty; 6]);
        for ((ranges, layer), weights) in self.0.iter_mut().zip(&seen.layers).zip(&model.layers) {
            let mut grow = |i: usize, x: f64| {
                if x.is_finite() {
                    ranges[i] = [ranges[i][0].min(x), ranges[i][1].max(x)];
                }
            };
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
        }
    }
}

/// Fits every function of every layer.
pub(super) fn fit(
    model: &Model,
    seen: &Statistics,
    ranges: &Ranges,
    degrees: &Degrees,
    options: &CalibrationOptions,
    context: usize,
) -> Result<Calibration, BitnetError> {
    let config = &model.config;
    let mut layers = Vec::new();
    for (n, (layer, weights)) in seen.layers.iter().zip(&model.layers).enumerate() {
        let range = ranges.0[n];
        let norm =
            |kind: FunctionKind, i: usize, eps: f64| -> Result<ChebyshevSeries, BitnetError> {
                norm_series(&layer.ms[i], range[2 + i], eps, degrees.of(kind), options)
            };
        let activation = config.activation;
        layers.push(LayerCalibration {
            input_norm: norm(FunctionKind::InputNorm, 0, config.rms_norm_eps)?,
            sigmoid: plain_series(&layer.z.shares(), range[0], degrees.sigmoid, options, |x| {
                1.0 / (1.0 + (-x).exp())
            })?,
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
        tokens: seen.tokens,
        layers,
        max_abs_final: seen.max_abs_final,
    };
    calibration.check(config, "calibration")?;
    Ok(calibration)
}

/// Measured ranges of mean squares; 0 where the model has no such norm.
fn mean_squares(range: &[[f64; 2]; 6]) -> MeanSquares {
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

/// Inverse root: relative error, `[lo / margin, hi * margin]`; down to 0 where epsilon is larger than what would be cut off.
fn norm_series(
    ms: &[f32],
    [lo, hi]: [f64; 2],
    eps: f64,
    degree: usize,
    options: &CalibrationOptions,
) -> Result<ChebyshevSeries, BitnetError> {
    let lo = lo / options.norm_margin;
    let lo = if lo <= eps { 0.0 } else { lo };
    let hi = hi * options.norm_margin;
    let relative = |x: f64, weight: f64| sample(x, 1.0 / (x + eps).sqrt(), weight * (x + eps));
    let mut sorted: Vec<f64> = ms.iter().map(|v| f64::from(*v)).collect();
    sorted.sort_by(f64::total_cmp);
    let size = sorted.len().div_ceil(GROUPS).max(1);
    let measured = 1.0 - options.uniform_share;
    let mut samples: Vec<Sample> = sorted
        .chunks(size)
        .map(|group| {
            let mean = group.iter().sum::<f64>() / group.len() as f64;
            relative(mean, measured * group.len() as f64 / sorted.len() as f64)
        })
        .collect();
    // Half of the uniform share evenly in the mean square, half evenly in its logarithm.
    let least = (lo + eps).max(1e-12 * hi);
    for i in 0..GRID {
        let u = (i as f64 + 0.5) / GRID as f64;
        let weight = 0.5 * options.uniform_share / GRID as f64;
        samples.push(relative(lo + (hi - lo) * u, weight));
        let x = (least * ((hi + eps) / least).powf(u) - eps).clamp(lo, hi);
        samples.push(relative(x, weight));
    }
    ChebyshevSeries::fit_weighted(lo, hi, degree, &samples)
}

fn sample(x: f64, y: f64, weight: f64) -> Sample {
    Sample { x, y, weight }
}
