//! Places a model's weights by columns: which rows make an output ciphertext, and which masks.

use num_complex::Complex64;
use tacit_bitnet::{Config, LayerCalibration, LayerWeights, TernaryMatrix};

use crate::{
    EnsiError,
    columns::{
        layout::ColumnLayout,
        program::ColumnLayer,
        sums::{ColumnSums, Output},
    },
    machine::Mask,
};

/// Output columns of a matrix that are computed in one go: what bounds the memory of sums that are not rescaled yet.
const OUTPUTS_AT_ONCE: usize = 32;

/// Real slot values.
pub(super) fn real(values: Vec<f64>) -> Vec<Complex64> {
    values.into_iter().map(Into::into).collect()
}

/// Masks that all layers use.
pub(super) struct Shared {
    /// One lane each.
    lanes: Vec<Mask>,
    /// `cos`, `sin` and `-sin` of every pair's angle, for each lane: index `pair * lanes + lane`.
    turns: [Vec<Mask>; 3],
}

impl Shared {
    pub(super) fn new(layout: &ColumnLayout, config: &Config) -> Self {
        let half = config.head_dim / 2;
        let mask = |values: Vec<f64>| Mask::new(real(values));
        let here = |lane: usize, l: usize, value: f64| if lane == l { value } else { 0.0 };
        let lanes = (0..layout.lanes())
            .map(|lane| mask(layout.fill(|l, _, _| here(lane, l, 1.0))))
            .collect();
        let turn = |function: fn(f64) -> f64| {
            let mut masks = Vec::with_capacity(half * layout.lanes());
            for pair in 0..half {
                let theta = config.rope_theta.powf(-(pair as f64) / half as f64);
                for lane in 0..layout.lanes() {
                    masks.push(mask(
                        layout.fill(|l, _, t| here(lane, l, function(t as f64 * theta))),
                    ));
                }
            }
            masks
        };
        Self {
            lanes,
            turns: [turn(f64::cos), turn(f64::sin), turn(|x| -x.sin())],
        }
    }

    /// Terms of outputs `first..first + count` that only have to be put in their lanes.
    fn placed(&self, first: usize, count: usize) -> Vec<Vec<(usize, Mask)>> {
        let lanes = self.lanes.len();
        let output = |i: usize| {
            let rows = (0..lanes).map(|l| (i * lanes + l, self.lanes[l].clone()));
            rows.collect()
        };
        (first..first + count).map(output).collect()
    }

    /// Terms of the first `2 half` outputs, turned by their rotary positions: `(a cos - b sin, b cos + a sin)` of outputs `j` and `j + half`.
    fn turned(&self, half: usize) -> Vec<Vec<(usize, Mask)>> {
        let lanes = self.lanes.len();
        let [cos, sin, minus_sin] = &self.turns;
        let output = |i: usize| {
            let pair = i % half;
            let (other, turn) = if i < half {
                (i + half, minus_sin)
            } else {
                (pair, sin)
            };
            (0..lanes)
                .flat_map(|l| {
                    let at = pair * lanes + l;
                    [
                        (i * lanes + l, cos[at].clone()),
                        (other * lanes + l, turn[at].clone()),
                    ]
                })
                .collect()
        };
        (0..2 * half).map(output).collect()
    }
}

/// Gains as masks, or `None` when all are one.
fn gain_masks(layout: &ColumnLayout, gains: &[f32]) -> Option<Vec<Mask>> {
    if gains.iter().all(|g| *g == 1.0) {
        return None;
    }
    let columns = layout.ciphertexts(gains.len());
    let mask = |column: usize| {
        let value = |lane: usize, _, _| f64::from(gains[lane * columns + column]);
        Mask::once(real(layout.fill(value)))
    };
    Some((0..columns).map(mask).collect())
}

/// Output columns `first..first + count` of a matrix.
fn columns(matrix: &TernaryMatrix, first: usize, count: usize) -> impl Iterator<Item = Output<'_>> {
    (first..first + count).map(move |column| Output { matrix, column })
}

/// One layer's weights by columns.
pub(super) fn place_layer(
    layout: &ColumnLayout,
    config: &Config,
    shared: &Shared,
    index: usize,
    weights: &LayerWeights,
    calibration: &LayerCalibration,
) -> Result<ColumnLayer, EnsiError> {
    let (lanes, d) = (layout.lanes(), config.head_dim);
    let name = |what: &str| format!("layer {index} {what}");
    let keys_values = (0..config.kv_heads / lanes)
        .map(|set| {
            let wanted: Vec<Output<'_>> = columns(&weights.k, set * d, d)
                .chain(columns(&weights.v, set * d, d))
                .collect();
            let mut outputs = shared.turned(d / 2);
            outputs.extend(shared.placed(d, d));
            ColumnSums::new(name("k, v"), layout, &wanted, outputs)
        })
        .collect::<Result<Vec<_>, _>>()?;
    let queries = (0..config.heads / lanes)
        .map(|head| {
            let wanted: Vec<Output<'_>> = columns(&weights.q, head * d, d).collect();
            ColumnSums::new(name("q"), layout, &wanted, shared.turned(d / 2))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let blocks = |what: &str, matrices: &[&TernaryMatrix]| {
        let all = layout.ciphertexts(matrices[0].rows());
        (0..all)
            .step_by(OUTPUTS_AT_ONCE)
            .map(|first| {
                let count = OUTPUTS_AT_ONCE.min(all - first);
                let wanted: Vec<Output<'_>> = matrices
                    .iter()
                    .flat_map(|matrix| columns(matrix, first, count))
                    .collect();
                let outputs = shared.placed(0, wanted.len());
                ColumnSums::new(name(what), layout, &wanted, outputs)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let scale = |matrix: &TernaryMatrix| f64::from(matrix.scale());
    let gains = |gains: &Option<Vec<f32>>| gains.as_deref().and_then(|g| gain_masks(layout, g));
    Ok(ColumnLayer {
        keys_values,
        queries,
        o: blocks("o", &[&weights.o])?,
        gate_up: blocks("gate, up", &[&weights.gate, &weights.up])?,
        down: blocks("down", &[&weights.down])?,
        head_bias: weights.head_bias.iter().map(|b| f64::from(*b)).collect(),
        score_factor: scale(&weights.q) * scale(&weights.k) / (d as f64).sqrt(),
        value_scale: scale(&weights.v),
        o_scale: scale(&weights.o),
        gate_scale: scale(&weights.gate),
        up_scale: scale(&weights.up),
        down_scale: scale(&weights.down),
        calibration: calibration.clone(),
        input_gain: gain_masks(layout, &weights.input_norm),
        attn_gain: gains(&weights.attn_sub_norm),
        post_gain: gain_masks(layout, &weights.post_attention_norm),
        ffn_gain: gains(&weights.ffn_sub_norm),
    })
}
