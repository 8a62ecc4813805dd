//! Places a model's weights by columns: which rows make an output ciphertext, and which masks.

use num_complex::Complex64;
use tacit_bitnet::{Config, LayerCalibration, LayerWeights, TernaryMatrix};

use crate::{
    EnsiError,
    columns::{
        layout::ColumnLayout,
        program::ColumnLayer,
        sums::{ColumnSums, Moved, Output},
    },
    machine::Mask,
};

/// Rows of a matrix that are computed in one go. Many share the tables of sums of three inputs; few bound the memory of sums that are not rescaled
/// yet, and of masks.
const ROWS_AT_ONCE: usize = 128;
/// The same where every output has its own masks, three for two rows.
const TURNED_AT_ONCE: usize = 64;

/// Real slot values.
pub(super) fn real(values: Vec<f64>) -> Vec<Complex64> {
    values.into_iter().map(Into::into).collect()
}

/// What is moved for q, k and v: while a layer's attention runs, its inputs are in memory all the time, so that copies of them are dear; but many
/// lanes would make the masks too many.
pub(super) fn heads_moved(lanes: usize) -> Moved {
    if lanes <= 2 {
        Moved::Outputs
    } else {
        Moved::Inputs
    }
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
        let here = |lane: usize, l: usize, value: f64| if lane == l { value } else { 0.0 };
        let lanes = (0..layout.lanes())
            .map(|lane| Mask::new(real(layout.fill(|l, _, _| here(lane, l, 1.0)))))
            .collect();
        let turn = |function: fn(f64) -> f64| {
            let mut masks = Vec::with_capacity(half * layout.lanes());
            for pair in 0..half {
                let theta = config.rope_theta.powf(-(pair as f64) / half as f64);
                for lane in 0..layout.lanes() {
                    let value = |l, _, t| here(lane, l, function(t as f64 * theta));
                    // too many to keep encoded
                    masks.push(Mask::once(real(layout.fill(value))));
                }
            }
            masks
        };
        Self {
            lanes,
            turns: [turn(f64::cos), turn(f64::sin), turn(|x| -x.sin())],
        }
    }

    /// Row and lane of the masks of what is moved back by `r` of `moves` lanes, of output `i`.
    fn rows(&self, i: usize, r: usize, moves: usize) -> impl Iterator<Item = (usize, usize)> {
        let lanes = self.lanes.len();
        (0..lanes).map(move |l| ((i * moves + r) * lanes + l, (l + r) % lanes))
    }

    /// Terms of `count` outputs that only have to be put in their lanes.
    fn placed(&self, count: usize, moved: Moved) -> Vec<Vec<(usize, Mask)>> {
        let moves = moved.outputs(self.lanes.len());
        let output = |at: usize| {
            let rows = self.rows(at / moves, at % moves, moves);
            rows.map(|(row, lane)| (row, self.lanes[lane].clone()))
                .collect()
        };
        (0..count * moves).map(output).collect()
    }

    /// Terms of `2 count` outputs, pairs `first..first + count` turned by their rotary positions: `(a cos - b sin, b cos + a sin)` of outputs `i` and
    /// `i + count`.
    fn turned(&self, first: usize, count: usize, moved: Moved) -> Vec<Vec<(usize, Mask)>> {
        let lanes = self.lanes.len();
        let moves = moved.outputs(lanes);
        let [cos, sin, minus_sin] = &self.turns;
        let output = |at: usize| {
            let (i, r) = (at / moves, at % moves);
            let pair = i % count;
            let (other, turn) = if i < count {
                (i + count, minus_sin)
            } else {
                (pair, sin)
            };
            let mask = |masks: &[Mask], lane: usize| masks[(first + pair) * lanes + lane].clone();
            self.rows(i, r, moves)
                .map(|(row, lane)| (row, mask(cos, lane)))
                .chain(
                    self.rows(other, r, moves)
                        .map(|(row, lane)| (row, mask(turn, lane))),
                )
                .collect()
        };
        (0..2 * count * moves).map(output).collect()
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
    let heads = heads_moved(lanes);
    // a head's columns; turned pairs in blocks of some pairs each, in the same order for q and k
    let head = |what: &str, matrix, head: usize| {
        let wanted: Vec<Output<'_>> = columns(matrix, head * d, d).collect();
        let outputs = shared.placed(d, heads);
        ColumnSums::new(name(what), layout, &wanted, heads, outputs)
    };
    let turned = |what: &str, matrix, head: usize| {
        let pairs = (TURNED_AT_ONCE / (2 * lanes * heads.outputs(lanes))).clamp(1, d / 2);
        (0..d / 2)
            .step_by(pairs)
            .map(|first| {
                let count = pairs.min(d / 2 - first);
                let half = |start| columns(matrix, head * d + start + first, count);
                let wanted: Vec<Output<'_>> = half(0).chain(half(d / 2)).collect();
                let outputs = shared.turned(first, count, heads);
                ColumnSums::new(name(what), layout, &wanted, heads, outputs)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let kv_heads = 0..config.kv_heads / lanes;
    let keys = kv_heads
        .clone()
        .map(|h| turned("k", &weights.k, h))
        .collect::<Result<Vec<_>, _>>()?;
    let values = kv_heads
        .map(|h| head("v", &weights.v, h))
        .collect::<Result<Vec<_>, _>>()?;
    let queries = (0..config.heads / lanes)
        .map(|h| turned("q", &weights.q, h))
        .collect::<Result<Vec<_>, _>>()?;
    let blocks = |what: &str, matrices: &[&TernaryMatrix]| {
        let all = layout.ciphertexts(matrices[0].rows());
        let at_once = (ROWS_AT_ONCE / (lanes * matrices.len())).max(1);
        (0..all)
            .step_by(at_once)
            .map(|first| {
                let count = at_once.min(all - first);
                let wanted: Vec<Output<'_>> = matrices
                    .iter()
                    .flat_map(|matrix| columns(matrix, first, count))
                    .collect();
                let outputs = shared.placed(wanted.len(), Moved::Inputs);
                ColumnSums::new(name(what), layout, &wanted, Moved::Inputs, outputs)
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let scale = |matrix: &TernaryMatrix| f64::from(matrix.scale());
    let gains = |gains: &Option<Vec<f32>>| gains.as_deref().and_then(|g| gain_masks(layout, g));
    Ok(ColumnLayer {
        keys,
        values,
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
