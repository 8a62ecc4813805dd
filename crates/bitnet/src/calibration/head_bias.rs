//! Makes a softmax model's attention a sigmoid one: a bias per head so that rows of attention weights sum to 1 on average.

use rayon::prelude::*;

use super::evaluate::evaluate;
use super::histogram::Histogram;
use crate::checkpoint::Model;
use crate::config::Attention;
use crate::error::BitnetError;
use crate::functions::{ForwardOptions, Functions, Probe, Quantity};
use crate::kv_cache::KvCache;
use crate::ternary::Matrix;

/// Share of the median mean square that becomes `attn_sub_norm`'s epsilon: rows that attend to nothing would otherwise be blown
/// up without bound.
const EPSILON_SHARE: f64 = 0.01;
/// Share of the median row sum that becomes the epsilon of normalised rows.
const ROW_EPSILON_SHARE: f64 = 0.1;
/// How far below the balanced biases those of normalised rows may lie: the lower, the nearer to softmax, and the wider the range of row sums.
const OFFSETS: [f32; 5] = [-1.5, -2.0, -2.5, -3.0, -3.5];
/// Increase of perplexity over softmax that is good enough for an offset.
const NORMALISED_TARGET: f64 = 0.0125;

/// Scores less `ln(i+1)`, and rows, of each head of each layer; mean squares before `attn_sub_norm`.
#[derive(Clone, Default)]
struct Rows {
    heads: usize,
    scores: Vec<Histogram>,
    rows: u64,
    ms: Vec<Vec<f32>>,
    row_sums: Vec<Vec<f32>>,
}

impl Probe for Rows {
    fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
        match quantity {
            Quantity::Z => {
                let tokens = values.cols;
                for r in 0..values.rows {
                    let (head, t) = (r / tokens, r % tokens);
                    let histogram = &mut self.scores[layer * self.heads + head];
                    let shift = ((t + 1) as f64).ln();
                    values.row(r)[..=t]
                        .iter()
                        .for_each(|z| histogram.add(f64::from(*z) - shift));
                }
                if layer == 0 {
                    self.rows += tokens as u64;
                }
            }
            Quantity::MsAttn => self.ms[layer].extend(&values.data),
            Quantity::RowSum => self.row_sums[layer].extend(&values.data),
            _ => {}
        }
    }
}

impl Rows {
    fn measure(
        model: &Model,
        windows: &[Vec<u32>],
        functions: Functions,
    ) -> Result<Self, BitnetError> {
        let (layers, heads) = (model.config.layers, model.config.heads);
        let empty = || Self {
            heads,
            scores: vec![Histogram::default(); layers * heads],
            rows: 0,
            ms: vec![Vec::new(); layers],
            row_sums: vec![Vec::new(); layers],
        };
        windows
            .par_iter()
            .try_fold(empty, |mut rows, window| {
                let mut cache = KvCache::new(&model.config);
                model.forward(
                    window,
                    &ForwardOptions::new(functions),
                    &mut cache,
                    Some(&mut rows),
                )?;
                Ok(rows)
            })
            .try_reduce(empty, |mut a, b| {
                for (mine, theirs) in a.scores.iter_mut().zip(b.scores) {
                    mine.merge(theirs);
                }
                for (mine, theirs) in a.ms.iter_mut().zip(b.ms) {
                    mine.extend(theirs);
                }
                for (mine, theirs) in a.row_sums.iter_mut().zip(b.row_sums) {
                    mine.extend(theirs);
                }
                a.rows += b.rows;
                Ok(a)
            })
    }
}

/// Replaces softmax by `sigma(z - ln(i+1) + b_h)`: sets each head's `b_h` so that its attention weights sum to 1 on average over
/// `windows`, sets `attn_sub_norm`'s epsilons to 1 % of the median mean square, and marks the model as a sigmoid one.
///
/// This is a change of the model, not an equality: without fine-tuning, measured small models lose 10 to 20 % of perplexity.
/// Compare [`super::evaluate`] before and after.
///
/// # Errors
/// When there are no windows, or as [`Model::forward`].
pub fn calibrate_head_biases(model: &mut Model, windows: &[Vec<u32>]) -> Result<(), BitnetError> {
    if windows.is_empty() {
        return Err(BitnetError::input(
            "there is no text to calibrate head biases on",
            "give at least 4, better 500, windows of the model's context length",
        ));
    }
    let seen = Rows::measure(model, windows, Functions::ExactSoftmax)?;
    let heads = model.config.heads;
    for (n, layer) in model.layers.iter_mut().enumerate() {
        for (h, bias) in layer.head_bias.iter_mut().enumerate() {
            *bias = balanced_bias(&seen.scores[n * heads + h], seen.rows) as f32;
        }
    }
    model.config.attention = Attention::Sigmoid;
    set_norm_epsilons(model, windows)
}

/// Replaces softmax by normalised sigmoids: `sigma(z - ln(i+1) + b_h)` times `1/sqrt(S^2 + eps^2)` of the row's sum `S`.
///
/// A small sigmoid is an exponential, so that biases well below the balanced ones give softmax itself; but the lower they are, the wider is
/// the range of `S` in which its inverse is needed. The offset, one for all heads, is the smallest one (in size) with which perplexity on
/// `windows` grows by 1.25 % or less; epsilon is a tenth of a layer's median sum.
///
/// # Errors
/// As [`calibrate_head_biases`].
pub fn normalise_rows(model: &mut Model, windows: &[Vec<u32>]) -> Result<(), BitnetError> {
    let softmax = evaluate(
        model,
        &ForwardOptions::new(Functions::ExactSoftmax),
        windows,
    )?;
    let mut balanced = model.clone();
    calibrate_head_biases(&mut balanced, windows)?;
    balanced.config.attention = Attention::NormalisedSigmoid;
    let mut best: Option<(f64, Model)> = None;
    for offset in OFFSETS {
        let mut tried = balanced.clone();
        for bias in tried.layers.iter_mut().flat_map(|l| &mut l.head_bias) {
            *bias += offset;
        }
        // epsilons are those of the model as it was until they are set
        tried.config.row_sum_eps = vec![0.0; tried.config.layers];
        tried.config.attn_sub_norm_eps = model.config.attn_sub_norm_eps.clone();
        let seen = Rows::measure(&tried, windows, Functions::ExactSigmoid)?;
        tried.config.row_sum_eps = seen
            .row_sums
            .into_iter()
            .map(|mut sums| ROW_EPSILON_SHARE * median(&mut sums))
            .collect();
        set_norm_epsilons(&mut tried, windows)?;
        let with = evaluate(
            &tried,
            &ForwardOptions::new(Functions::ExactSigmoid),
            windows,
        )?;
        let change = (with.loss - softmax.loss).exp_m1();
        if best.as_ref().is_none_or(|(least, _)| change < *least) {
            best = Some((change, tried));
        }
        if change <= NORMALISED_TARGET {
            break;
        }
    }
    if let Some((_, found)) = best {
        *model = found;
    }
    Ok(())
}

/// The value in the middle; 0 of nothing.
fn median(values: &mut [f32]) -> f64 {
    values.sort_by(f32::total_cmp);
    f64::from(values.get(values.len() / 2).copied().unwrap_or_default())
}

/// Sets `attn_sub_norm`'s epsilons to a hundredth of the median mean squares, in models that have it.
fn set_norm_epsilons(model: &mut Model, windows: &[Vec<u32>]) -> Result<(), BitnetError> {
    if model.layers.iter().any(|l| l.attn_sub_norm.is_none()) {
        return Ok(());
    }
    let mut seen = Rows::measure(model, windows, Functions::ExactSigmoid)?;
    model.config.attn_sub_norm_eps = seen
        .ms
        .iter_mut()
        .map(|ms| (EPSILON_SHARE * median(ms)).max(model.config.rms_norm_eps))
        .collect();
    Ok(())
}

/// The bias at which `sum over entries of sigma(score + bias) = rows`, by bisection (the sum grows with the bias).
fn balanced_bias(scores: &Histogram, rows: u64) -> f64 {
    let shares = scores.shares();
    let entries = scores.total() as f64;
    let excess = |bias: f64| {
        let sum: f64 = shares
            .iter()
            .map(|(x, share)| share / (1.0 + (-x - bias).exp()))
            .sum();
        sum * entries - rows as f64
    };
    let (mut low, mut high) = (-60.0, 60.0);
    for _ in 0..60 {
        let middle = 0.5 * (low + high);
        if excess(middle) > 0.0 {
            high = middle;
        } else {
            low = middle;
        }
    }
    0.5 * (low + high)
}
