//! Runs text through a model and collects ranges and distributions of what goes into each function.

use rayon::prelude::*;

use super::MaxAbs;
use super::histogram::Histogram;
use crate::checkpoint::Model;
use crate::error::BitnetError;
use crate::functions::{ForwardOptions, Probe, Quantity, RangeReport};
use crate::kv_cache::KvCache;
use crate::ternary::Matrix;

/// What one layer showed.
#[derive(Clone, Debug, Default)]
pub(super) struct LayerStatistics {
    pub max_abs: MaxAbs,
    /// Mean squares of input, attention, post-attention and gated norms.
    pub ms: [Vec<f32>; 4],
    /// Scores with bias, visible entries only: under encryption masked ones are the bias itself.
    pub z: Histogram,
    pub gate: Histogram,
    /// Rows' sums of attention weights, where they are normalised.
    pub row_sums: Vec<f32>,
}

/// What a model showed on some text.
#[derive(Clone, Debug, Default)]
pub(super) struct Statistics {
    pub layers: Vec<LayerStatistics>,
    pub max_abs_final: f64,
    pub tokens: usize,
    pub range: RangeReport,
}

impl Statistics {
    /// Both together.
    pub fn merge(mut self, other: Self) -> Self {
        if self.layers.is_empty() {
            return other;
        }
        for (a, b) in self.layers.iter_mut().zip(other.layers) {
            a.max_abs.widen(&b.max_abs);
            for (a, b) in a.ms.iter_mut().zip(b.ms) {
                a.extend(b);
            }
            a.z.merge(b.z);
            a.gate.merge(b.gate);
            a.row_sums.extend(b.row_sums);
        }
        self.max_abs_final = self.max_abs_final.max(other.max_abs_final);
        self.tokens += other.tokens;
        self.range.merge(&other.range);
        self
    }
}

impl MaxAbs {
    /// The larger of each field.
    pub(super) fn widen(&mut self, other: &Self) {
        for quantity in [
            Quantity::Input,
            Quantity::NormedInput,
            Quantity::Q,
            Quantity::K,
            Quantity::V,
            Quantity::Attn,
            Quantity::AttnNormed,
            Quantity::O,
            Quantity::Residual,
            Quantity::NormedPost,
            Quantity::Gate,
            Quantity::Up,
            Quantity::Activation,
            Quantity::Gated,
            Quantity::GatedNormed,
            Quantity::Down,
        ] {
            if let (Some(mine), Some(theirs)) = (self.field(quantity), other.get(quantity)) {
                *mine = mine.max(theirs);
            }
        }
    }
}

/// Largest finite absolute value.
fn largest(values: &Matrix) -> f64 {
    let max = values
        .data
        .iter()
        .filter(|v| v.is_finite())
        .fold(0.0f32, |m, v| m.max(v.abs()));
    f64::from(max)
}

impl Probe for Statistics {
    fn record(&mut self, layer: usize, quantity: Quantity, values: &Matrix) {
        if quantity == Quantity::Output {
            if layer + 1 == self.layers.len() {
                self.max_abs_final = self.max_abs_final.max(largest(values));
            }
            return;
        }
        let seen = &mut self.layers[layer];
        if let Some(max) = seen.max_abs.field(quantity) {
            *max = max.max(largest(values));
        }
        let norm = match quantity {
            Quantity::MsInput => Some(0),
            Quantity::MsAttn => Some(1),
            Quantity::MsPost => Some(2),
            Quantity::MsGated => Some(3),
            _ => None,
        };
        if let Some(norm) = norm {
            seen.ms[norm].extend(values.data.iter().filter(|v| v.is_finite()));
        }
        match quantity {
            Quantity::RowSum => {
                let finite = values.data.iter().filter(|v| v.is_finite());
                seen.row_sums.extend(finite);
            }
            Quantity::Gate => values
                .data
                .iter()
                .for_each(|v| seen.gate.add(f64::from(*v))),
            Quantity::Z => {
                // Windows are read from position 0: row h * tokens + t sees keys 0..=t.
                let tokens = values.cols;
                for r in 0..values.rows {
                    let visible = &values.row(r)[..=r % tokens];
                    visible.iter().for_each(|z| seen.z.add(f64::from(*z)));
                }
            }
            _ => {}
        }
    }
}

/// Reads every window and collects what the functions saw.
pub(super) fn measure(
    model: &Model,
    windows: &[Vec<u32>],
    options: &ForwardOptions,
) -> Result<Statistics, BitnetError> {
    windows
        .par_iter()
        .try_fold(Statistics::default, |mut seen, window| {
            if seen.layers.is_empty() {
                seen.layers = vec![LayerStatistics::default(); model.config.layers];
            }
            let mut cache = KvCache::new(&model.config);
            let states = model.forward(window, options, &mut cache, Some(&mut seen))?;
            seen.tokens += window.len();
            seen.range.merge(&states.range);
            Ok(seen)
        })
        .try_reduce(Statistics::default, |a, b| Ok(a.merge(b)))
}
