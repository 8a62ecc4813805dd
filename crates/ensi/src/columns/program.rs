//! The transformer on many documents at once, as a program over a [`Machine`].
//!
//! A layer, with the levels it takes of a chain that ends a refresh at 15 and begins the next at 3:
//!
//! | # | step | how | levels |
//! | --- | --- | --- | --- |
//! | 1 | input norm | squares of all columns, added before one relinearisation; the inverse root is one ciphertext, refreshed by itself: the data pay one product | 14 to 13 |
//! | 2 | q, k, v | sums of columns, rotary positions in the masks | 13 to 12 |
//! | 3 | scores | token `t` with token `t - delta`, `delta = B a + b`: q moved by `B a`, k by `b`, products summed over a head's features | 12 to 11 |
//! | 4 | sigmoid, causality | one series for each `delta`, a mask | 11 to 6 |
//! | 5 | weighted sum of v | summed over `b`, moved back by `B a`, summed over `a` | 6 to 5 |
//! | 6 | sub-norm | mean square refreshed by itself; its factor comes after o, with which it commutes | 5 to 4, 15 to 9 |
//! | 7 | o | sums of columns, the factor; **refresh**, two columns to a bootstrap; residual sum | 5 to 3, 15 |
//! | 8 | norm, gate, up, activation, product | as 1 and 2; all columns alike | 12 to 5 |
//! | 9 | sub-norm, down | as 6 and 7, **refresh**, residual sum | 5 to 3, 15 |
//!
//! Only what is added to the residual stream is refreshed: twice `d` values a token and layer, where a pass over one window refreshes
//! `3 d + d + 2 f + d` of them. In exchange matrices are sums of whole ciphertexts at high levels, and every score has a slot of its own: it pays with
//! dozens of documents, not with one.

use tacit_bitnet::{
    Attention as AttentionKind, Calibration, ChebyshevSeries, LayerCalibration, Model,
};

use crate::{
    EnsiError,
    columns::{
        layout::ColumnLayout,
        place::{Shared, heads_moved, place_layer, real},
        sums::{ColumnSums, Moved},
    },
    machine::{Chain, Machine, Mask, series_depth},
    transformer::{REFRESH_MARGIN, attention::WeightFunction, norm::series_variable},
};

/// Giant steps that queries are moved by with one decomposition: more take memory.
const GIANTS_AT_ONCE: usize = 2;

/// Weights and polynomials of one layer, by columns.
pub(super) struct ColumnLayer {
    /// For every key-value head of a lane, in blocks.
    pub(super) keys: Vec<Vec<ColumnSums>>,
    /// For every key-value head of a lane.
    pub(super) values: Vec<ColumnSums>,
    /// For every query head of a lane, in the same blocks.
    pub(super) queries: Vec<Vec<ColumnSums>>,
    pub(super) o: Vec<ColumnSums>,
    /// Gates, then ups, of some columns.
    pub(super) gate_up: Vec<ColumnSums>,
    pub(super) down: Vec<ColumnSums>,
    pub(super) head_bias: Vec<f64>,
    pub(super) score_factor: f64,
    pub(super) value_scale: f64,
    pub(super) o_scale: f64,
    pub(super) gate_scale: f64,
    pub(super) up_scale: f64,
    pub(super) down_scale: f64,
    pub(super) calibration: LayerCalibration,
    pub(super) input_gain: Option<Vec<Mask>>,
    pub(super) attn_gain: Option<Vec<Mask>>,
    pub(super) post_gain: Option<Vec<Mask>>,
    pub(super) ffn_gain: Option<Vec<Mask>>,
}

/// The model by columns: public, nothing of a client.
pub struct ColumnTransformer {
    layout: ColumnLayout,
    hidden: usize,
    ffn: usize,
    heads: usize,
    queries_per_kv: usize,
    head_dim: usize,
    layers: Vec<ColumnLayer>,
    /// Largest value that a layer adds to the residual stream.
    largest_increment: f64,
    /// Tokens that k and v are moved by one after the other, `B`.
    baby: usize,
    /// Where token `t - (B a + b)` is there for token `t`, moved by `B a`: index `B a + b`.
    causal: Vec<Mask>,
}

impl ColumnTransformer {
    /// Places `model` in a layout whose window is the calibration's.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when the model does not use plain sigmoid attention or a size does not fit the layout; [`EnsiError::Calibration`] for one of
    /// another model.
    pub fn new(
        model: &Model,
        calibration: &Calibration,
        layout: ColumnLayout,
    ) -> Result<Self, EnsiError> {
        let config = &model.config;
        if config.attention != AttentionKind::Sigmoid {
            return Err(EnsiError::Shape(format!(
                "many documents at once need plain sigmoid attention, and the model has {}; its documents are computed one by one",
                config.attention.name()
            )));
        }
        if calibration.layers.len() != config.layers || calibration.context != layout.tokens() {
            return Err(EnsiError::Calibration(format!(
                "it has {} layers and windows of {} tokens, expected {} and {}; run the calibration for this model",
                calibration.layers.len(),
                calibration.context,
                config.layers,
                layout.tokens()
            )));
        }
        let lanes = layout.lanes();
        for (what, size) in [
            ("key-value heads", config.kv_heads),
            ("features", config.hidden_size),
            ("feed-forward features", config.intermediate_size),
        ] {
            if !size.is_multiple_of(lanes) {
                return Err(EnsiError::Shape(format!(
                    "{size} {what} do not fill {lanes} lanes"
                )));
            }
        }
        let shared = Shared::new(&layout, config);
        let layers = model
            .layers
            .iter()
            .zip(&calibration.layers)
            .enumerate()
            .map(|(index, (weights, calibration))| {
                place_layer(&layout, config, &shared, index, weights, calibration)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let largest_increment = calibration
            .layers
            .iter()
            .map(|c| c.max_abs.o.max(c.max_abs.down))
            .fold(f64::MIN_POSITIVE, f64::max);
        let tokens = layout.tokens();
        let baby = 1 << (tokens.trailing_zeros() / 2);
        let causal = (0..tokens)
            .map(|delta| {
                let (moved, back) = (delta - delta % baby, delta % baby);
                let there = |t: usize| t + moved < tokens && t >= back;
                Mask::new(real(layout.fill(|_, _, t| f64::from(u8::from(there(t))))))
            })
            .collect();
        Ok(Self {
            layout,
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            heads: config.heads,
            queries_per_kv: config.queries_per_kv(),
            head_dim: config.head_dim,

            layers,
            largest_increment,
            baby,
            causal,
        })
    }

    /// Where values live.
    pub fn layout(&self) -> &ColumnLayout {
        &self.layout
    }

    /// Hidden size.
    pub fn hidden(&self) -> usize {
        self.hidden
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Bytes of ciphertexts at the peak, in attention: the residual stream, the columns that rows are summed from, keys moved by all small steps,
    /// queries, weights.
    pub fn ciphertext_bytes(&self, chain: &Chain) -> u64 {
        let of = |count: usize, level: usize| {
            (count * 2 * (level + 1) * 2 * self.layout.slots() * 8) as u64
        };
        let columns = self.layout.ciphertexts(self.hidden);
        let lanes = self.layout.lanes();
        let inputs = match heads_moved(lanes) {
            Moved::Inputs => lanes * columns,
            Moved::Outputs => columns,
        };
        let deepest = |layer: &ColumnLayer| WeightFunction::of(&layer.calibration).depth();
        let depth = self.layers.iter().map(deepest).max().unwrap_or(0);
        let end = chain.bottom + 2;
        let start = end + 3 + depth;
        of(columns, chain.top)
            + of(inputs, start + 1)
            + of((self.baby + GIANTS_AT_ONCE + 1) * self.head_dim, start)
            + of(self.layout.tokens(), end + 1)
    }

    /// Scale at which increments of the residual stream are brought to coefficients.
    fn increment_delta(&self, chain: &Chain) -> f64 {
        chain.message_scale / (REFRESH_MARGIN * self.largest_increment)
    }

    /// Scale of the residual stream, at which the client encrypts: that of a refreshed increment.
    pub fn residual_scale(&self, chain: &Chain) -> f64 {
        chain.scale * self.increment_delta(chain) / chain.message_scale
    }

    /// Runs all layers on the residual stream `x`, one ciphertext a column, at level [`Chain::top`] and [`residual_scale`](Self::residual_scale), and
    /// returns it after the last layer: at the same scale and a low level.
    ///
    /// # Errors
    /// Whatever the machine reports, [`EnsiError::OutOfLevels`] when the polynomials are too deep for the chain.
    pub fn run<M: Machine>(&self, m: &mut M, x: Vec<M::Ct>) -> Result<Vec<M::Ct>, EnsiError> {
        (0..self.layers.len()).try_fold(x, |x, index| self.run_layer(m, index, x))
    }

    /// Layer `index` on the residual stream.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_layer<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        x: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let layer = &self.layers[index];
        let a = self.attention(m, index, layer, &x)?;
        let x = self.output_projection(m, index, layer, x, a)?;
        self.feed_forward(m, index, layer, x)
    }

    /// Input norm, q, k, v, attention: the outputs of all heads, values scaled back.
    fn attention<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &ColumnLayer,
        x: &[M::Ct],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let function = WeightFunction::of(&layer.calibration);
        // o, its factor, and gains follow; the mean square takes a level too
        let end = m.chain().bottom
            + 1
            + usize::from(layer.calibration.attn_sub_norm.is_some())
            + usize::from(layer.attn_gain.is_some());
        let start = end + 2 + function.depth() + 1;
        m.begin("input norm", Some(index))?;
        // products of two normed columns become the ordinary scale as the variable of the weights' series
        let half = (function.series.hi - function.series.lo) / 2.0;
        let factor = layer.score_factor / half;
        let chain = m.chain();
        let wanted = (chain.scale * chain.q[start] * factor).sqrt();
        let normed = self.normed(
            m,
            x,
            &layer.calibration.input_norm,
            layer.input_gain.as_deref(),
            wanted,
            start + 1,
        )?;
        m.probe("normed_input", index, &normed[0])?;
        m.begin("attention: q, k, v, scores, weights", Some(index))?;
        let columns = match heads_moved(self.layout.lanes()) {
            Moved::Inputs => self.all_lanes(m, normed)?,
            Moved::Outputs => normed,
        };
        let inputs: Vec<&M::Ct> = columns.iter().collect();
        let mut out = Vec::with_capacity(self.layout.ciphertexts(self.hidden));
        let back: Vec<i64> = (0..self.baby).map(|b| -(b as i64)).collect();
        for (set, (keys, values)) in layer.keys.iter().zip(&layer.values).enumerate() {
            let values = self.head_columns(m, &inputs, std::slice::from_ref(values), end + 1)?;
            let keys = self
                .head_columns(m, &inputs, keys, start)?
                .iter()
                .map(|ct| m.rotate_many(ct, &back))
                .collect::<Result<Vec<_>, _>>()?;
            m.probe("key", index, &keys[0][0])?;
            for query in 0..self.queries_per_kv {
                let head = set * self.queries_per_kv + query;
                let queries = self.head_columns(m, &inputs, &layer.queries[head], start)?;
                let weights = self.weights(m, layer, head, &queries, &keys)?;
                for value in &values {
                    out.push(self.weighted(m, &weights, value, &back)?);
                }
            }
        }
        let out: Vec<M::Ct> = out
            .iter()
            .map(|ct| m.scale_values(ct, layer.value_scale))
            .collect();
        m.probe("attn", index, &out[0])?;
        Ok(out)
    }

    /// The columns of a head, in blocks, at `level`: where outputs are moved between lanes, moved and added.
    fn head_columns<M: Machine>(
        &self,
        m: &mut M,
        inputs: &[&M::Ct],
        blocks: &[ColumnSums],
        level: usize,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let lanes = self.layout.lanes();
        let moves = heads_moved(lanes).outputs(lanes);
        let mut out = Vec::new();
        for block in blocks {
            for parts in m.columns(inputs, block)?.chunks(moves) {
                let mut sum = m.drop_to_level(&parts[0], level)?;
                for (r, part) in parts.iter().enumerate().skip(1) {
                    let part = m.drop_to_level(part, level)?;
                    let part = m.rotate(&part, (r * self.layout.lane()) as i64)?;
                    sum = m.add(&sum, &part)?;
                }
                out.push(sum);
            }
        }
        Ok(out)
    }

    /// The weights of one head of every lane, index `B a + b`, each in the frame of queries moved by `B a`; `keys[f][b]` are moved by `b` tokens.
    fn weights<M: Machine>(
        &self,
        m: &mut M,
        layer: &ColumnLayer,
        head: usize,
        queries: &[M::Ct],
        keys: &[Vec<M::Ct>],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let function = WeightFunction::of(&layer.calibration);
        let half = (function.series.hi - function.series.lo) / 2.0;
        let giants: Vec<i64> = (0..self.layout.tokens())
            .step_by(self.baby)
            .map(|moved| moved as i64)
            .collect();
        let mut weights = Vec::with_capacity(self.layout.tokens());
        for giants in giants.chunks(GIANTS_AT_ONCE) {
            let queries = queries
                .iter()
                .map(|ct| m.rotate_many(ct, giants))
                .collect::<Result<Vec<_>, _>>()?;
            for (a, moved) in giants.iter().enumerate() {
                let bias = self.row_bias(layer, function.series, head, *moved as usize);
                for b in 0..self.baby {
                    let queries = queries.iter().map(|q| &q[a]);
                    let terms: Vec<(&M::Ct, &M::Ct)> =
                        queries.zip(keys.iter().map(|k| &k[b])).collect();
                    let score = m.dot(&terms)?;
                    let u = m.scale_values(&score, layer.score_factor / half);
                    let u = m.add_values(&u, &bias)?;
                    let weight = function.apply(m, &u)?;
                    let causal = &self.causal[weights.len()];
                    weights.push(m.dot_masks(&[(&weight, causal)])?);
                }
            }
        }
        Ok(weights)
    }

    /// `out(t) = sum_delta w_delta(t) v(t - delta)` of one feature, `delta = B a + b`: products with `v` moved by `b`, sums moved back by `B a`.
    fn weighted<M: Machine>(
        &self,
        m: &mut M,
        weights: &[M::Ct],
        value: &M::Ct,
        back: &[i64],
    ) -> Result<M::Ct, EnsiError> {
        let values = m.rotate_many(value, back)?;
        let mut out = None;
        for (a, weights) in weights.chunks(self.baby).enumerate() {
            let terms: Vec<(&M::Ct, &M::Ct)> = weights.iter().zip(&values).collect();
            let part = m.dot(&terms)?;
            let part = m.rotate(&part, -((a * self.baby) as i64))?;
            out = Some(match out {
                None => part,
                Some(sum) => m.add(&sum, &part)?,
            });
        }
        out.ok_or_else(|| EnsiError::Shape("a window without tokens".into()))
    }

    /// `b_h - ln(t + 1)` as the series' variable, for token `t` moved back by `moved`; past the window the last token's.
    fn row_bias(
        &self,
        layer: &ColumnLayer,
        series: &ChebyshevSeries,
        head: usize,
        moved: usize,
    ) -> Vec<f64> {
        let (per_lane, tokens) = (self.heads / self.layout.lanes(), self.layout.tokens());
        self.layout.fill(|lane, _, t| {
            let bias = layer.head_bias.get(lane * per_lane + head).copied();
            let row = (t + moved).min(tokens - 1);
            series.normalise(bias.unwrap_or(0.0) - ((row + 1) as f64).ln())
        })
    }

    /// Sub-norm, o, residual sum.
    fn output_projection<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &ColumnLayer,
        x: Vec<M::Ct>,
        a: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        m.begin("attention sub-norm", Some(index))?;
        let series = layer.calibration.attn_sub_norm.as_ref();
        let factor = self.sub_norm_factor(m, &a, self.hidden, series)?;
        let a = gained(m, a, layer.attn_gain.as_deref())?;
        m.begin("o: sums, factor, refresh, residual", Some(index))?;
        let x = self.add_projection(m, x, a, (&layer.o, layer.o_scale), factor, false)?;
        m.probe("residual", index, &x[0])?;
        Ok(x)
    }

    /// Norm, gate, up, activation, sub-norm, down, residual sum.
    fn feed_forward<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &ColumnLayer,
        x: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let series = &layer.calibration.activation;
        let end = m.chain().bottom
            + 1
            + usize::from(layer.calibration.ffn_sub_norm.is_some())
            + usize::from(layer.ffn_gain.is_some());
        let start = end + 1 + series_depth(series.coeffs.len());
        m.begin("post-attention norm", Some(index))?;
        // gates become the variable of the activation's series at the ordinary scale
        let half = (series.hi - series.lo) / 2.0;
        let ordinary = m.chain().scale;
        let wanted = ordinary * layer.gate_scale / half;
        let normed = self.normed(
            m,
            &x,
            &layer.calibration.post_attention_norm,
            layer.post_gain.as_deref(),
            wanted,
            start + 1,
        )?;
        m.begin("gate, up, activation", Some(index))?;
        let columns = self.all_lanes(m, normed)?;
        let inputs: Vec<&M::Ct> = columns.iter().collect();
        let mut gated = Vec::with_capacity(self.layout.ciphertexts(self.ffn));
        for sums in &layer.gate_up {
            let mut gates = m.columns(&inputs, sums)?;
            let ups = gates.split_off(gates.len() / 2);
            for (gate, up) in gates.iter().zip(&ups) {
                let u = series_variable(m, gate, layer.gate_scale, series)?;
                let activation = m.chebyshev(&u, &series.coeffs, ordinary)?;
                let up = m.scale_values(up, layer.up_scale);
                let level = m.level(&activation);
                let up = m.drop_to_level(&up, level)?;
                gated.push(m.mul(&activation, &up)?);
            }
        }
        drop(columns);
        m.probe("gated", index, &gated[0])?;
        m.begin("feed-forward sub-norm", Some(index))?;
        let series = layer.calibration.ffn_sub_norm.as_ref();
        let factor = self.sub_norm_factor(m, &gated, self.ffn, series)?;
        let gated = gained(m, gated, layer.ffn_gain.as_deref())?;
        m.begin("down: sums, factor, refresh, residual", Some(index))?;
        let last = index + 1 == self.layers.len();
        let x = self.add_projection(m, x, gated, (&layer.down, layer.down_scale), factor, last)?;
        m.probe("output", index, &x[0])?;
        Ok(x)
    }

    /// `x + scale * factor * W a`, what is added refreshed first, unless it is the last.
    fn add_projection<M: Machine>(
        &self,
        m: &mut M,
        x: Vec<M::Ct>,
        a: Vec<M::Ct>,
        (matrix, scale): (&[ColumnSums], f64),
        factor: Option<M::Ct>,
        last: bool,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let columns = self.all_lanes(m, a)?;
        let inputs: Vec<&M::Ct> = columns.iter().collect();
        let mut sums = Vec::with_capacity(x.len());
        for block in matrix {
            for sum in m.columns(&inputs, block)? {
                let sum = m.scale_values(&sum, scale);
                sums.push(match &factor {
                    Some(factor) => m.mul(&sum, factor)?,
                    None => sum,
                });
            }
        }
        drop(columns);
        let sums = if last {
            let scale = m.scale(&x[0]);
            sums.iter()
                .map(|sum| m.match_scale(sum, scale))
                .collect::<Result<Vec<_>, _>>()?
        } else {
            let delta = self.increment_delta(m.chain());
            m.refresh(&sums, delta)?
        };
        x.iter().zip(&sums).map(|(x, sum)| m.add(x, sum)).collect()
    }

    /// `x * (mean x^2 + eps)^(-1/2) * gain` at level `level` and, gains apart, at scale `wanted`.
    ///
    /// The inverse root is one ciphertext. Where it comes out too low for the product, it is refreshed by itself.
    fn normed<M: Machine>(
        &self,
        m: &mut M,
        x: &[M::Ct],
        series: &ChebyshevSeries,
        gain: Option<&[Mask]>,
        wanted: f64,
        level: usize,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let product = level + 1 + usize::from(gain.is_some());
        m.chain().spend("norm", m.level(&x[0]), product)?;
        let scale = wanted * m.chain().q[product] / m.scale(&x[0]);
        let sum = self.sum_of_squares(m, x)?;
        let u = series_variable(m, &sum, 1.0 / self.hidden as f64, series)?;
        let depth = series_depth(series.coeffs.len());
        let root = if m.level(&u) >= product + depth {
            m.chebyshev(&u, &series.coeffs, scale)?
        } else {
            let ordinary = m.chain().scale;
            let root = m.chebyshev(&u, &series.coeffs, ordinary)?;
            let largest = series
                .eval(series.lo)
                .abs()
                .max(series.eval(series.hi).abs());
            let delta = m.chain().message_scale / (REFRESH_MARGIN * largest);
            let root = one(m.refresh(&[root], delta)?)?;
            m.match_scale(&root, scale)?
        };
        let root = m.drop_to_level(&root, product)?;
        let mut out = Vec::with_capacity(x.len());
        for ct in x {
            let ct = m.drop_to_level(ct, product)?;
            out.push(m.mul(&ct, &root)?);
        }
        gained(m, out, gain)
    }

    /// The factor of a sub-norm, whose mean square is refreshed by itself; `None` for a model without it.
    fn sub_norm_factor<M: Machine>(
        &self,
        m: &mut M,
        a: &[M::Ct],
        features: usize,
        series: Option<&ChebyshevSeries>,
    ) -> Result<Option<M::Ct>, EnsiError> {
        let Some(series) = series else {
            return Ok(None);
        };
        let sum = self.sum_of_squares(m, a)?;
        let half = (series.hi - series.lo) / 2.0;
        let u = m.scale_values(&sum, 1.0 / (features as f64 * half));
        let u = m.add_const(&u, -(series.hi + series.lo) / (series.hi - series.lo))?;
        let delta = m.chain().message_scale / REFRESH_MARGIN;
        let u = one(m.refresh(&[u], delta)?)?;
        let unit = ChebyshevSeries {
            lo: -1.0,
            hi: 1.0,
            coeffs: series.coeffs.clone(),
        };
        let u = series_variable(m, &u, 1.0, &unit)?;
        let ordinary = m.chain().scale;
        Ok(Some(m.chebyshev(&u, &series.coeffs, ordinary)?))
    }

    /// `sum x^2` over all features, in every lane. One level.
    fn sum_of_squares<M: Machine>(&self, m: &mut M, x: &[M::Ct]) -> Result<M::Ct, EnsiError> {
        let squares: Vec<(&M::Ct, &M::Ct)> = x.iter().map(|ct| (ct, ct)).collect();
        let mut sum = m.dot(&squares)?;
        let mut reach = 1;
        while reach < self.layout.lanes() {
            let moved = m.rotate(&sum, (reach * self.layout.lane()) as i64)?;
            sum = m.add(&sum, &moved)?;
            reach *= 2;
        }
        Ok(sum)
    }

    /// A vector, then the same moved on by one, two, … lanes: the inputs of [`ColumnSums`].
    fn all_lanes<M: Machine>(&self, m: &mut M, x: Vec<M::Ct>) -> Result<Vec<M::Ct>, EnsiError> {
        let lanes = self.layout.lanes();
        if lanes == 1 {
            return Ok(x);
        }
        let steps: Vec<i64> = (1..lanes)
            .map(|r| (r * self.layout.lane()) as i64)
            .collect();
        let mut moved: Vec<Vec<M::Ct>> = vec![Vec::with_capacity(x.len()); lanes - 1];
        for ct in &x {
            for (to, ct) in moved.iter_mut().zip(m.rotate_many(ct, &steps)?) {
                to.push(ct);
            }
        }
        Ok(x.into_iter().chain(moved.into_iter().flatten()).collect())
    }
}

/// The only ciphertext of a refresh of one.
fn one<C>(refreshed: Vec<C>) -> Result<C, EnsiError> {
    refreshed
        .into_iter()
        .next()
        .ok_or_else(|| EnsiError::Shape("a refresh of one ciphertext returned none".into()))
}

/// Columns times their gains: one level, where gains are not all one.
fn gained<M: Machine>(
    m: &mut M,
    x: Vec<M::Ct>,
    gain: Option<&[Mask]>,
) -> Result<Vec<M::Ct>, EnsiError> {
    match gain {
        None => Ok(x),
        Some(gain) => x
            .iter()
            .zip(gain)
            .map(|(ct, gain)| m.dot_masks(&[(ct, gain)]))
            .collect(),
    }
}
