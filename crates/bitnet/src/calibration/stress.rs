//! Token sequences that text does not hold but users and models write: answers that go in circles, repeated tokens.
//!
//! A row of sigmoid attention is not normalised: where many keys match, its weights sum to far more than 1. On ordinary text
//! that is rare; a model that repeats itself, or a prompt such as `--------`, makes it the rule, and the mean square before
//! `attn_sub_norm` grows by the square of the sum.

use rayon::prelude::*;

use super::measure::{Statistics, measure};
use crate::checkpoint::Model;
use crate::error::BitnetError;
use crate::functions::{ForwardOptions, Functions, Probe, Quantity, RangeReport};
use crate::kv_cache::KvCache;
use crate::sampling::argmax;
use crate::ternary::Matrix;

/// Lengths of the cycles that are repeated.
const CYCLES: [usize; 4] = [1, 2, 4, 12];
/// Tokens of a window that the model continues.
const PROMPT: usize = 6;
/// Longest sequence made: what happens, happens early.
const LONGEST: usize = 256;
/// Largest vocabulary of which every token is tried in a row.
const VOCABULARY: usize = 4096;

/// How sequences of one kind did with the polynomials.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SequenceReport {
    /// Sequences tried.
    pub sequences: usize,
    /// Those with an evaluation outside of its interval, or a hidden state that is not finite.
    pub leaving: usize,
    /// Evaluations, all sequences together.
    pub range: RangeReport,
}

impl std::fmt::Display for SequenceReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.leaving == 0 {
            return writeln!(f, "{}, all inside of the intervals", self.sequences);
        }
        let (leaving, sequences) = (self.leaving, self.sequences);
        write!(
            f,
            "{leaving} of {sequences} leave the intervals\n{}",
            self.range
        )
    }
}

/// Sequences made from windows of text.
#[derive(Clone, Debug, Default)]
pub(super) struct Stress {
    /// Beginnings of windows, continued greedily by the exact model.
    pub greedy: Vec<Vec<u32>>,
    /// Tokens and short phrases of windows, repeated.
    pub repeated: Vec<Vec<u32>>,
}

impl Stress {
    /// `count` sequences of each kind (fewer when there are fewer windows), as long as the longest window (at most 256 tokens).
    pub fn new(model: &Model, windows: &[Vec<u32>], count: usize) -> Result<Self, BitnetError> {
        let length = windows.iter().map(Vec::len).max().unwrap_or(0).min(LONGEST);
        let count = count.min(windows.len());
        if count == 0 || length <= PROMPT {
            return Ok(Self::default());
        }
        let chosen: Vec<&Vec<u32>> = (0..count)
            .map(|i| &windows[i * windows.len() / count])
            .collect();
        let greedy = chosen
            .par_iter()
            .map(|window| continued(model, &window[..window.len().min(PROMPT)], length))
            .collect::<Result<_, BitnetError>>()?;
        let repeated = chosen
            .iter()
            .enumerate()
            .map(|(i, window)| {
                let cycle = CYCLES[i % CYCLES.len()].min(window.len());
                // Not always the beginning of a window, which is often the beginning of a document.
                let start = (i * 7) % (window.len() - cycle + 1);
                (0..length).map(|t| window[start + t % cycle]).collect()
            })
            .collect();
        Ok(Self { greedy, repeated })
    }

    /// What the functions saw on the sequences of both kinds.
    pub fn measure(
        &self,
        model: &Model,
        options: &ForwardOptions,
    ) -> Result<Statistics, BitnetError> {
        Ok(measure(model, &self.greedy, options)?.merge(measure(model, &self.repeated, options)?))
    }
}

/// Counts the sequences that leave the intervals.
pub(super) fn leaving(
    model: &Model,
    sequences: &[Vec<u32>],
    options: &ForwardOptions,
) -> Result<SequenceReport, BitnetError> {
    let ranges: Vec<RangeReport> = sequences
        .par_iter()
        .map(|ids| {
            let mut cache = KvCache::new(&model.config);
            Ok(model.forward(ids, options, &mut cache, None)?.range)
        })
        .collect::<Result<_, BitnetError>>()?;
    let mut report = SequenceReport {
        sequences: sequences.len(),
        ..SequenceReport::default()
    };
    for range in ranges {
        report.leaving += usize::from(range.outside() > 0 || range.non_finite > 0);
        report.range.merge(&range);
    }
    Ok(report)
}

/// A prompt continued greedily by the exact model to `length` tokens.
fn continued(model: &Model, prompt: &[u32], length: usize) -> Result<Vec<u32>, BitnetError> {
    let options = ForwardOptions::new(Functions::ExactSigmoid);
    let mut ids = prompt.to_vec();
    let mut cache = KvCache::new(&model.config);
    let mut states = model.forward(&ids, &options, &mut cache, None)?;
    while ids.len() < length {
        let last = states.normed.rows - 1;
        let row = Matrix {
            rows: 1,
            cols: states.normed.cols,
            data: states.normed.row(last).to_vec(),
        };
        let next = argmax(model.head_logits(&row)?.row(0))?;
        ids.push(next);
        states = model.forward(&[next], &options, &mut cache, None)?;
    }
    Ok(ids)
}

/// `[smallest, largest]` mean square before `attn_sub_norm`, per layer.
struct AttentionRange(Vec<[f64; 2]>);

impl Probe for AttentionRange {
    fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
        if quantity == Quantity::MsAttn {
            let range = &mut self.0[layer];
            for v in values.data.iter().map(|v| f64::from(*v)) {
                *range = [range[0].min(v), range[1].max(v)];
            }
        }
    }
}

/// The range of mean squares before `attn_sub_norm`, per layer, over all sequences that repeat one token (of large vocabularies:
/// `count` tokens spread over the vocabulary). The largest comes from these: every key matches every query alike.
pub(super) fn repeated_tokens(
    model: &Model,
    context: usize,
    count: usize,
) -> Result<Vec<[f64; 2]>, BitnetError> {
    let vocabulary = model.config.vocab_size;
    let count = match count {
        0 => 0,
        _ if vocabulary <= VOCABULARY => vocabulary,
        _ => count,
    };
    let empty = || {
        AttentionRange(vec![
            [f64::INFINITY, f64::NEG_INFINITY];
            model.config.layers
        ])
    };
    let options = ForwardOptions::new(Functions::ExactSigmoid);
    let range = (0..count)
        .into_par_iter()
        .try_fold(empty, |mut range, i| {
            let token = (i * vocabulary / count) as u32;
            let window = vec![token; context.min(LONGEST)];
            let mut cache = KvCache::new(&model.config);
            model.forward(&window, &options, &mut cache, Some(&mut range))?;
            Ok::<_, BitnetError>(range)
        })
        .try_reduce(empty, |mut a, b| {
            for (a, b) in a.0.iter_mut().zip(b.0) {
                *a = [a[0].min(b[0]), a[1].max(b[1])];
            }
            Ok(a)
        })?;
    Ok(range.0)
}
