//! The encrypted transformer as a program over a [`Machine`].
//!
//! One layer (15 or 16 levels after a refresh, depending on the preset; 3 before SlotsToCoeffs):
//!
//! ```text
//!  x ─► input norm ─►[StC · W_qkv · refresh]─► attention ─► a ─┬────────────►[StC · W_o · refresh]─► o ─┐
//!  │                                                          └► mean square ─► (rides along) ─► r ────► · ─► + ─► x'
//!  └───────────────────────────────────────────────────────────────────────────────────────────────────────┘
//!  x' ─► post norm ─►[StC · W_gate,up · refresh]─► relu²(g)·u ─► norm ─►[StC · W_down · refresh]─► + ─► x
//! ```
//!
//! The attention sub-norm's factor is one number a token, so it commutes with `W_o`: its argument rides along in the refresh of
//! `W_o a` ([`Room`]), and its deep polynomial runs afterwards on full levels. This is ENSI's bootstrapping
//! inside RMSNorm (arXiv 2509.09424) at no extra refresh of the data.

pub mod attention;
pub mod build;
pub mod cached;
pub mod norm;
pub mod rows;

use tacit_bitnet::{ChebyshevSeries, LayerCalibration};

use crate::{
    EnsiError,
    layout::Layout,
    machine::{Chain, Machine, Mask, Refreshed, series_depth},
    ternary_layer::TernaryLayer,
    transformer::{
        attention::{
            Attention, AttentionMasks, HeadLayout, WeightFunction, mean_square_variable,
            sum_of_squares,
        },
        cached::{CacheLayout, CachedAttention, KeepMasks, LayerCache, StepMasks},
        norm::{Norm, series_variable, sum_blocks},
        rows::{RowSeries, Rows},
    },
};

/// Attention over a cache with a layer's numbers.
fn cached<'a>(cache: &'a CacheLayout, layer: &'a Layer) -> CachedAttention<'a> {
    CachedAttention {
        cache,
        function: WeightFunction::of(&layer.calibration),
        head_bias: &layer.head_bias,
        score_factor: layer.score_factor,
        value_factor: layer.value_scale,
    }
}

/// Real and imaginary halves in order: a vector that a linear layer left two ciphertexts in one.
fn halves<C>(refreshed: Vec<Refreshed<C>>) -> Vec<C> {
    refreshed
        .into_iter()
        .flat_map(|(re, im)| std::iter::once(re).chain(im))
        .collect()
}

/// Where the mean square of the attention's norm is refreshed, which rides along with o.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Beside o in real parts if there is room: one polynomial less, one level more.
    Beside,
    /// In imaginary parts.
    Imaginary,
}

/// Masks of the first and of the second half of all blocks: two vectors that a linear layer left side by side in real parts ([`Layout::beside`]).
struct Sides {
    first: Mask,
    second: Mask,
}

impl Sides {
    fn new(layout: &Layout) -> Self {
        let half = layout.slots() / 2;
        let mask = |first: bool| {
            let value = |slot: usize| f64::from((slot < half) == first);
            Mask::new((0..2 * half).map(|slot| value(slot).into()).collect())
        };
        Self {
            first: mask(true),
            second: mask(false),
        }
    }

    /// Both vectors, each in all blocks: one rotation, one level.
    fn split<M: Machine>(
        &self,
        m: &mut M,
        layout: &Layout,
        ct: &M::Ct,
    ) -> Result<(M::Ct, M::Ct), EnsiError> {
        let swapped = m.rotate(ct, layout.slots() as i64 / 2)?;
        let first = m.dot_masks(&[(ct, &self.first), (&swapped, &self.second)])?;
        let second = m.dot_masks(&[(ct, &self.second), (&swapped, &self.first)])?;
        Ok((first, second))
    }
}

/// Room between the calibrated maximum of a linear layer's outputs and the largest message a refresh takes.
pub const REFRESH_MARGIN: f64 = 1.25;

/// A linear layer with the real-number facts around the integer product.
pub struct Linear {
    /// The product.
    pub layer: TernaryLayer,
    /// Largest integer combination expected: `max_o max|y_o| / weight scale`.
    pub max_integer: f64,
}

impl Linear {
    /// Scale at which inputs are handed to the product, so that outputs stay below the message bound.
    pub fn input_scale(&self, message_scale: f64) -> f64 {
        message_scale / (REFRESH_MARGIN * self.max_integer)
    }
}

/// Weights and polynomials of one layer, placed.
pub struct Layer {
    qkv: Linear,
    o: Linear,
    gate_up: Linear,
    down: Linear,
    head_bias: Vec<f64>,
    score_factor: f64,
    value_scale: f64,
    o_scale: f64,
    gate_scale: f64,
    up_scale: f64,
    down_scale: f64,
    calibration: LayerCalibration,
    input_gain: Option<Vec<Mask>>,
    attn_gain: Option<Vec<Mask>>,
    post_gain: Option<Vec<Mask>>,
    ffn_gain: Option<Vec<Mask>>,
}

/// The residual stream after a layer, and the layer's keys and values.
pub type KeptLayer<C> = (Vec<C>, LayerCache<C>);

/// How the program's attention is laid out.
enum Heads {
    /// All tokens of a window at once.
    Window {
        layout: HeadLayout,
        masks: AttentionMasks,
    },
    /// One new token over a cache.
    Step(CacheLayout),
}

/// A layer's attention output, and what the linear layer q, k, v left.
struct Attended<C> {
    outputs: Vec<C>,
    packed: Vec<C>,
}

/// The encrypted model: placed weights, polynomials, masks. Holds nothing secret.
pub struct Transformer {
    layout: Layout,
    hidden: usize,
    ffn: usize,
    heads: Heads,
    sides: Sides,
    norm_beside: bool,
    rows: Option<Rows>,
    rope_theta: f64,
    layers: Vec<Layer>,
    residual_factor: f64,
}

impl Transformer {
    /// Where values live.
    pub fn layout(&self) -> &Layout {
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

    /// Scale of the residual stream: squares of it, summed over the hidden size, come out near the ordinary scale when read as
    /// the variable of the norms' series (geometric mean over layers).
    pub fn residual_scale(&self, user_scale: f64) -> f64 {
        user_scale * self.residual_factor.sqrt()
    }

    /// Level at which the client encrypts and the residual stream stays: enough for the input norm.
    pub fn residual_level(&self, bottom: usize) -> usize {
        let deepest = self
            .layers
            .iter()
            .map(|layer| self.input_norm(layer).depth())
            .max()
            .unwrap_or(0);
        bottom + deepest
    }

    fn input_norm<'a>(&self, layer: &'a Layer) -> Norm<'a> {
        Norm {
            features: self.hidden,
            series: &layer.calibration.input_norm,
            gain: layer.input_gain.as_deref(),
        }
    }

    fn post_norm<'a>(&self, layer: &'a Layer) -> Norm<'a> {
        Norm {
            features: self.hidden,
            series: &layer.calibration.post_attention_norm,
            gain: layer.post_gain.as_deref(),
        }
    }

    /// Runs all layers on the residual stream `x` (one or more ciphertexts at [`residual_scale`](Self::residual_scale) and
    /// [`residual_level`](Self::residual_level)) and returns it after the last layer, at the same scale.
    ///
    /// # Errors
    /// Whatever the machine reports, [`EnsiError::OutOfLevels`] when the polynomials are too deep for the chain.
    pub fn run<M: Machine>(&self, m: &mut M, x: Vec<M::Ct>) -> Result<Vec<M::Ct>, EnsiError> {
        (0..self.layers.len()).try_fold(x, |x, index| self.run_layer(m, index, x))
    }

    /// Layer `index` on the residual stream, in and out as for [`run`](Self::run).
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
        let packed = self.queries_keys_values(m, index, layer, &x)?;
        let a = self.attention(m, layer, index, packed)?;
        self.after_attention(m, index, layer, x, a.outputs)
    }

    /// [`run_layer`](Self::run_layer) of a window, its keys and values kept for decode steps.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_layer_keeping<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        x: Vec<M::Ct>,
        cache: &CacheLayout,
        masks: &KeepMasks,
    ) -> Result<KeptLayer<M::Ct>, EnsiError> {
        let layer = &self.layers[index];
        let packed = self.queries_keys_values(m, index, layer, &x)?;
        let a = self.attention(m, layer, index, packed)?;
        let end = self.attention_end(m.chain());
        let kept = cached(cache, layer).keep(m, &a.packed, masks, end)?;
        let x = self.after_attention(m, index, layer, x, a.outputs)?;
        Ok((x, kept))
    }

    /// Layer `index` of a decode step: the new token's keys and values are added to `kept`.
    ///
    /// # Errors
    /// As [`run`](Self::run); [`EnsiError::Shape`] if this is the program of a window.
    pub fn run_step<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        x: Vec<M::Ct>,
        kept: &mut LayerCache<M::Ct>,
        masks: &StepMasks,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let Heads::Step(cache) = &self.heads else {
            return Err(EnsiError::Shape(
                "the program of a window has no decode step; build the decoder".into(),
            ));
        };
        let layer = &self.layers[index];
        let packed = self.queries_keys_values(m, index, layer, &x)?;
        m.begin("attention over the cache", Some(index))?;
        let attention = cached(cache, layer);
        let end = self.attention_end(m.chain());
        let (mut a, weights) = attention.step(m, &packed, kept, masks, end)?;
        if let Some((rows, series)) = self.row_series(layer) {
            m.begin("sums of the rows, their inverse", Some(index))?;
            let weights = attention.present(m, &weights, masks.position())?;
            a = rows.normalise_step(m, cache, series, &weights, &a)?;
        }
        self.after_attention(m, index, layer, x, vec![a])
    }

    /// Layout of the cache, if this is the program of a decode step.
    pub fn cache(&self) -> Option<&CacheLayout> {
        match &self.heads {
            Heads::Step(cache) => Some(cache),
            Heads::Window { .. } => None,
        }
    }

    /// Masks of a decode step for the token at `position`.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] if this is the program of a window; [`EnsiError::Window`] for a position outside of the window.
    pub fn step_masks(&self, position: usize) -> Result<StepMasks, EnsiError> {
        let cache = self.cache_or_refuse()?;
        let window = cache.window().layout().tokens();
        if position >= window {
            return Err(EnsiError::Window {
                tokens: position + 1,
                window,
            });
        }
        Ok(StepMasks::new(cache, self.rope_theta, position))
    }

    /// Masks that keep the first `length` tokens of a window, of the decoder whose cache it is.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] if this is the program of a window.
    pub fn keep_masks(&self, length: usize) -> Result<KeepMasks, EnsiError> {
        Ok(KeepMasks::new(
            self.cache_or_refuse()?,
            self.rope_theta,
            length,
        ))
    }

    fn cache_or_refuse(&self) -> Result<&CacheLayout, EnsiError> {
        self.cache().ok_or_else(|| {
            EnsiError::Shape("the program of a window has no cache; build the decoder".into())
        })
    }

    fn after_attention<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &Layer,
        x: Vec<M::Ct>,
        outputs: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let x = self.output_projection(m, index, layer, &x, outputs)?;
        self.feed_forward(m, index, layer, &x)
    }

    /// Input norm and q/k/v, real and imaginary halves joined.
    fn queries_keys_values<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &Layer,
        x: &[M::Ct],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let delta = layer.qkv.input_scale(m.chain().message_scale);
        m.begin("input norm", Some(index))?;
        let normed = self.input_norm(layer).apply(m, &self.layout, x)?;
        m.probe("normed_input", index, &normed[0])?;
        m.begin(
            "q, k, v: SlotsToCoeffs, ternary product, refresh",
            Some(index),
        )?;
        let refreshed = m.linear(&normed, &layer.qkv.layer, delta)?;
        let mut packed = Vec::with_capacity(refreshed.len());
        let beside = self.cache().and_then(CacheLayout::imaginary_beside);
        for (re, im) in refreshed {
            let im = match beside {
                Some(by) => m.rotate(&re, self.layout.block_rotation(by as i64))?,
                None => im.expect("q, k, v use both halves"),
            };
            let im = m.mul_i(&im)?;
            packed.push(m.add(&re, &im)?);
        }
        m.probe("qkv", index, &packed[0])?;
        Ok(packed)
    }

    /// Level of the attention's outputs: one more for the mean square, or for gains, and one for the inverse of the rows' sums.
    fn attention_end(&self, chain: &Chain) -> usize {
        chain.bottom + 1 + usize::from(self.rows.is_some())
    }

    fn row_series<'a>(&'a self, layer: &'a Layer) -> Option<(&'a Rows, RowSeries<'a>)> {
        self.rows.as_ref().zip(RowSeries::of(&layer.calibration))
    }

    /// Attention in a window: one ciphertext for each group of heads.
    fn attention<M: Machine>(
        &self,
        m: &mut M,
        layer: &Layer,
        index: usize,
        packed: Vec<M::Ct>,
    ) -> Result<Attended<M::Ct>, EnsiError> {
        let Heads::Window { layout, masks } = &self.heads else {
            return Err(EnsiError::Shape(
                "a decoder runs in steps, not over a window".into(),
            ));
        };
        m.begin("attention", Some(index))?;
        let attention = Attention {
            heads: layout,
            masks,
            function: WeightFunction::of(&layer.calibration),
            head_bias: &layer.head_bias,
            score_factor: layer.score_factor,
            value_factor: layer.value_scale,
        };
        let start = self.attention_end(m.chain()) + attention.depth();
        let start = start.min(m.level(&packed[0]));
        let weights = attention.weights(m, &packed, start)?;
        let mut outputs = attention.outputs(m, &packed, &weights, start)?;
        if let Some((rows, series)) = self.row_series(layer) {
            m.begin("sums of the rows, their inverse", Some(index))?;
            let weights = attention.causal(m, &weights)?;
            outputs = rows.normalise_window(m, layout, series, &weights, outputs)?;
        }
        Ok(Attended { outputs, packed })
    }

    /// Attention sub-norm, output projection, residual.
    fn output_projection<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &Layer,
        x: &[M::Ct],
        a: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let delta = layer.o.input_scale(m.chain().message_scale);
        m.probe("attn", index, &a[0])?;
        m.begin("attention sub-norm: mean square", Some(index))?;
        let mut conjugates = Vec::with_capacity(a.len());
        for ct in &a {
            conjugates.push(m.conjugate(ct)?);
        }
        let series = layer.calibration.attn_sub_norm.as_ref();
        let mut inputs = Vec::with_capacity(2 * a.len() + 1);
        for (g, (ct, conjugate)) in a.iter().zip(&conjugates).enumerate() {
            let re = m.add(ct, conjugate)?;
            let im = m.sub(conjugate, ct)?;
            let im = m.mul_i(&im)?;
            for part in [re, im] {
                let mut part = m.scale_values(&part, 0.5);
                if let Some(gain) = &layer.attn_gain {
                    part = m.dot_masks(&[(&part, &gain[inputs.len() % 2 + 2 * g])])?;
                }
                inputs.push(part);
            }
        }
        if let Some(series) = series {
            let sum = match &self.heads {
                Heads::Window { layout, .. } => {
                    sum_of_squares(m, &self.layout, layout, &a, &conjugates)?
                }
                Heads::Step(_) => {
                    let terms: Vec<(&M::Ct, &M::Ct)> = a.iter().zip(&conjugates).collect();
                    let square = m.dot(&terms)?;
                    sum_blocks(m, &self.layout, &square, 1, self.layout.blocks())?
                }
            };
            let u = mean_square_variable(m, &sum, self.hidden, series)?;
            inputs.push(m.scale_values(&u, layer.o.max_integer));
        }
        m.begin("o: SlotsToCoeffs, ternary product, refresh", Some(index))?;
        let refreshed = m.linear(&inputs, &layer.o.layer, delta)?;
        let mut refreshed = halves(refreshed);
        m.begin("attention sub-norm: inverse root; residual", Some(index))?;
        if series.is_some() && self.norm_beside {
            let (o, u) = self.sides.split(m, &self.layout, &refreshed[0])?;
            refreshed = vec![o, u];
        }
        let factor = match series {
            None => None,
            Some(series) => {
                let u = refreshed.pop().expect("the mean square comes last");
                let u = m.scale_values(&u, 1.0 / layer.o.max_integer);
                m.probe("attn_ms_variable", index, &u)?;
                let u = self.tame(m, &u, series)?;
                let level = m.level(&u) - series_depth(series.coeffs.len());
                let o_scale = m.scale(&refreshed[0]) / layer.o_scale;
                let wanted = m.scale(&x[0]) * m.chain().q[level] / o_scale;
                Some(m.chebyshev(&u, &series.coeffs, wanted)?)
            }
        };
        let mut out = Vec::with_capacity(x.len());
        for (o, x) in refreshed.iter().zip(x) {
            let o = m.scale_values(o, layer.o_scale);
            let o = match &factor {
                Some(factor) => m.mul(&o, factor)?,
                None => {
                    let scale = m.scale(x);
                    m.match_scale(&o, scale)?
                }
            };
            m.probe("o", index, &o)?;
            out.push(m.add(x, &o)?);
        }
        m.probe("residual", index, &out[0])?;
        Ok(out)
    }

    /// Gives a series variable the ordinary scale when it is too far from it.
    fn tame<M: Machine>(
        &self,
        m: &mut M,
        u: &M::Ct,
        series: &ChebyshevSeries,
    ) -> Result<M::Ct, EnsiError> {
        let unit = ChebyshevSeries {
            lo: -1.0,
            hi: 1.0,
            coeffs: series.coeffs.clone(),
        };
        series_variable(m, u, 1.0, &unit)
    }

    /// Post norm, gate and up, activation, sub-norm, down, residual.
    fn feed_forward<M: Machine>(
        &self,
        m: &mut M,
        index: usize,
        layer: &Layer,
        x: &[M::Ct],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let bottom = m.chain().bottom;
        let message_scale = m.chain().message_scale;
        let ordinary = m.chain().scale;
        let delta = layer.gate_up.input_scale(message_scale);
        m.begin("post-attention norm", Some(index))?;
        let normed = self.post_norm(layer).apply(m, &self.layout, x)?;
        m.probe("normed_post", index, &normed[0])?;
        m.begin(
            "gate, up: SlotsToCoeffs, ternary product, refresh",
            Some(index),
        )?;
        let refreshed = m.linear(&normed, &layer.gate_up.layer, delta)?;

        m.begin("activation and feed-forward sub-norm", Some(index))?;
        let activation = &layer.calibration.activation;
        let sub_norm = layer.calibration.ffn_sub_norm.as_ref().map(|series| Norm {
            features: self.ffn,
            series,
            gain: layer.ffn_gain.as_deref(),
        });
        let after = sub_norm
            .as_ref()
            .map_or(usize::from(layer.ffn_gain.is_some()), Norm::depth);
        let start = bottom + after + 1 + series_depth(activation.coeffs.len()) + 1;
        // the gated values get the scale at which their mean square comes out at the ordinary scale
        let gated_scale = match &sub_norm {
            Some(norm) => {
                ordinary * (2.0 / (self.ffn as f64 * (norm.series.hi - norm.series.lo))).sqrt()
            }
            None => ordinary,
        };
        let mut gated = Vec::with_capacity(refreshed.len());
        let beside = self.layout.beside(self.ffn).is_some();
        for (gate, up) in refreshed {
            let (gate, up) = if beside {
                self.sides.split(m, &self.layout, &gate)?
            } else {
                (gate, up.expect("gate and up use both halves"))
            };
            let level = m.level(&gate).min(start);
            let gate = m.drop_to_level(&gate, level)?;
            let up = m.scale_values(&up, layer.up_scale);
            m.probe("up", index, &up)?;
            let u = series_variable(m, &gate, layer.gate_scale, activation)?;
            let level = m.chain().spend(
                "activation",
                m.level(&u),
                series_depth(activation.coeffs.len()),
            )?;
            let wanted = gated_scale * m.chain().q[level] / m.scale(&up);
            let act = m.chebyshev(&u, &activation.coeffs, wanted)?;
            m.probe("activation", index, &act)?;
            gated.push(m.mul(&act, &up)?);
        }
        m.probe("gated", index, &gated[0])?;
        let delta = layer.down.input_scale(message_scale);
        let gated = match &sub_norm {
            Some(norm) => norm.apply(m, &self.layout, &gated)?,
            None => gated,
        };
        m.probe("gated_normed", index, &gated[0])?;
        m.begin(
            "down: SlotsToCoeffs, ternary product, refresh; residual",
            Some(index),
        )?;
        let refreshed = halves(m.linear(&gated, &layer.down.layer, delta)?);
        let mut out = Vec::with_capacity(x.len());
        for (down, x) in refreshed.iter().zip(x) {
            let down = m.scale_values(down, layer.down_scale);
            m.probe("down", index, &down)?;
            let scale = m.scale(x);
            let down = m.match_scale(&down, scale)?;
            out.push(m.add(x, &down)?);
        }
        m.probe("output", index, &out[0])?;
        Ok(out)
    }
}
