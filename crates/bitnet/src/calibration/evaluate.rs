//! How well a model predicts text with given functions, and how far two evaluations agree.

use rayon::prelude::*;

use crate::checkpoint::Model;
use crate::error::BitnetError;
use crate::functions::{ForwardOptions, RangeReport};

/// Next-token prediction over windows of text, every position but the last of each window.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Predictions made.
    pub predictions: usize,
    /// Mean negative log-probability of the right token, in nats; infinite when a logit was not finite.
    pub loss: f64,
    /// Share of predictions whose most probable token was right.
    pub accuracy: f64,
    /// Most probable token of each prediction, window after window (`u32::MAX` where a logit was not finite).
    pub top1: Vec<u32>,
    /// Difference of the two largest logits of each prediction.
    pub gaps: Vec<f32>,
    /// Polynomial evaluations outside of their intervals.
    pub range: RangeReport,
}

impl Evaluation {
    /// `exp(loss)`.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }

    /// Share of predictions with the same most probable token as `reference`, among those whose gap of the two largest logits
    /// in `reference` is at least `gap`. 1 when there are none.
    pub fn agreement(&self, reference: &Self, gap: f32) -> f64 {
        let (mut same, mut all) = (0usize, 0usize);
        for ((a, b), g) in self.top1.iter().zip(&reference.top1).zip(&reference.gaps) {
            if *g >= gap {
                all += 1;
                same += usize::from(a == b && *a != u32::MAX);
            }
        }
        if all == 0 {
            1.0
        } else {
            same as f64 / all as f64
        }
    }
}

/// Evaluates a model on windows of token ids (each from an empty cache).
///
/// # Errors
/// When no window has two tokens, or as [`Model::forward`].
pub fn evaluate(
    model: &Model,
    options: &ForwardOptions,
    windows: &[Vec<u32>],
) -> Result<Evaluation, BitnetError> {
    if windows.iter().all(|w| w.len() < 2) {
        return Err(BitnetError::input(
            "there is no window of two or more tokens to evaluate on",
            "give more text",
        ));
    }
    struct Part {
        loss: Vec<f64>,
        top1: Vec<u32>,
        right: usize,
        gaps: Vec<f32>,
        range: RangeReport,
    }
    let parts: Vec<Part> = windows
        .par_iter()
        .filter(|w| w.len() >= 2)
        .map(|window| {
            let states = model.hidden_states(&window[..window.len() - 1], options)?;
            let logits = model.head_logits(&states.normed)?;
            let mut part = Part {
                loss: Vec::new(),
                top1: Vec::new(),
                right: 0,
                gaps: Vec::new(),
                range: states.range,
            };
            for (t, wanted) in window[1..].iter().enumerate() {
                let row = logits.row(t);
                let Some(target) = row.get(*wanted as usize) else {
                    model.embed(&[*wanted])?;
                    continue;
                };
                if row.iter().any(|v| !v.is_finite()) {
                    part.loss.push(f64::INFINITY);
                    part.top1.push(u32::MAX);
                    part.gaps.push(0.0);
                    continue;
                }
                let (mut best, mut top, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
                for (i, v) in row.iter().enumerate() {
                    if *v > top {
                        (best, second, top) = (i, top, *v);
                    } else if *v > second {
                        second = *v;
                    }
                }
                let sum: f64 = row.iter().map(|v| f64::from(v - top).exp()).sum();
                part.loss.push(sum.ln() + f64::from(top - target));
                part.top1.push(best as u32);
                part.right += usize::from(best as u32 == *wanted);
                part.gaps.push(top - second);
            }
            Ok(part)
        })
        .collect::<Result<_, BitnetError>>()?;
    let mut all = Evaluation::default();
    let (mut loss, mut right) = (0.0, 0);
    for part in parts {
        loss += part.loss.iter().sum::<f64>();
        right += part.right;
        all.top1.extend(part.top1);
        all.gaps.extend(part.gaps);
        all.range.merge(&part.range);
    }
    all.predictions = all.top1.len();
    all.loss = loss / all.predictions as f64;
    all.accuracy = right as f64 / all.predictions as f64;
    Ok(all)
}
