//! The reference forward pass: embeddings, layers, final norm, logits.
//!
//! ```text
//! x ─► norm ─► q k v ─► rotary ─► scores ─► weights ─► x V ─► [attn_sub_norm] ─► o ─► + ─► norm ─► gate, up ─► act(gate)*up ─► [ffn_sub_norm] ─► down ─► +
//! └──────────────────────────────────────────────────────────────────────────────────────┘└────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Activations are f32; norms, scores' functions and polynomials are computed in f64.

use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

use crate::attention::{Normaliser, Weights, attend, rotate};
use crate::checkpoint::{LayerWeights, Model};
use crate::config::Attention;
use crate::error::BitnetError;
use crate::functions::{
    Counted, ForwardOptions, FunctionKind, Functions, Noise, Probe, Quantity, RangeReport,
};
use crate::kv_cache::KvCache;
use crate::ternary::{Matrix, TernaryMatrix, max_abs};

/// What a forward pass gives for its new tokens.
#[derive(Clone, Debug, PartialEq)]
pub struct HiddenStates {
    /// After the last layer, before the final norm, tokens x hidden.
    pub last: Matrix,
    /// After the (exact) final norm, tokens x hidden: the head's input.
    pub normed: Matrix,
    /// Polynomial evaluations outside of their intervals.
    pub range: RangeReport,
}

impl Model {
    /// The exact functions this model was trained with.
    pub fn exact_functions(&self) -> Functions<'static> {
        match self.config.attention {
            Attention::Softmax => Functions::ExactSoftmax,
            Attention::Sigmoid | Attention::NormalisedSigmoid => Functions::ExactSigmoid,
        }
    }

    /// Embeddings of token ids, tokens x hidden.
    ///
    /// # Errors
    /// When an id is not in the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Matrix, BitnetError> {
        let mut x = Matrix {
            rows: ids.len(),
            cols: self.config.hidden_size,
            data: Vec::new(),
        };
        for (p, id) in ids.iter().enumerate() {
            if *id as usize >= self.embeddings.rows() {
                return Err(BitnetError::input(
                    format!(
                        "token id {id} at position {p} is outside of the vocabulary of {} tokens",
                        self.embeddings.rows()
                    ),
                    "use the model's own tokenizer.json",
                ));
            }
            x.data.extend(self.embeddings.row(*id as usize));
        }
        Ok(x)
    }

    /// Hidden states of all positions of `ids`, from an empty cache.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn hidden_states(
        &self,
        ids: &[u32],
        options: &ForwardOptions,
    ) -> Result<HiddenStates, BitnetError> {
        self.forward(ids, options, &mut KvCache::new(&self.config), None)
    }

    /// Logits of all positions of `ids`, tokens x vocabulary, from an empty cache.
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn logits(&self, ids: &[u32], options: &ForwardOptions) -> Result<Matrix, BitnetError> {
        self.head_logits(&self.hidden_states(ids, options)?.normed)
    }

    /// Logits from hidden states after the final norm: tokens x hidden to tokens x vocabulary.
    ///
    /// # Errors
    /// When the width is not the hidden size.
    pub fn head_logits(&self, normed: &Matrix) -> Result<Matrix, BitnetError> {
        self.head().matmul(normed)
    }

    /// The exact final norm with its gain.
    pub fn normalise_final(&self, hidden: &Matrix) -> Matrix {
        let mut ms = Matrix::zeros(hidden.rows, 1);
        rms_norm(hidden, &self.final_norm, &mut ms, |ms| {
            1.0 / (ms + self.config.rms_norm_eps).sqrt()
        })
    }

    /// Reads new tokens after those in `cache` (which then holds them too).
    ///
    /// # Errors
    /// When there are no ids, an id is not in the vocabulary, the sequence would exceed the context, the cache or the
    /// calibration is of another model.
    pub fn forward(
        &self,
        ids: &[u32],
        options: &ForwardOptions,
        cache: &mut KvCache,
        probe: Option<&mut dyn Probe>,
    ) -> Result<HiddenStates, BitnetError> {
        self.forward_embedded(self.embed(ids)?, options, cache, probe)
    }

    /// As [`Model::forward`], from embeddings (tokens x hidden).
    ///
    /// # Errors
    /// As [`Model::forward`].
    pub fn forward_embedded(
        &self,
        embedded: Matrix,
        options: &ForwardOptions,
        cache: &mut KvCache,
        probe: Option<&mut dyn Probe>,
    ) -> Result<HiddenStates, BitnetError> {
        let config = &self.config;
        let start = cache.len();
        if embedded.rows == 0 || embedded.cols != config.hidden_size {
            return Err(BitnetError::input(
                format!(
                    "the model was given {} tokens of {} features",
                    embedded.rows, embedded.cols
                ),
                format!("give at least one token of {} features", config.hidden_size),
            ));
        }
        if start + embedded.rows > config.context {
            return Err(BitnetError::input(
                format!(
                    "{} tokens are too many: the model reads at most {}",
                    start + embedded.rows,
                    config.context
                ),
                "shorten the prompt or ask for fewer tokens",
            ));
        }
        if !cache.fits(config) {
            return Err(BitnetError::input(
                "the KV cache is of another model",
                "make a new cache",
            ));
        }
        if let Some(calibration) = options.functions.calibration() {
            calibration.check(config, "calibration")?;
            for (kind, missing) in [
                (
                    FunctionKind::AttnSubNorm,
                    self.layers
                        .iter()
                        .zip(&calibration.layers)
                        .any(|(l, c)| l.attn_sub_norm.is_some() != c.attn_sub_norm.is_some()),
                ),
                (
                    FunctionKind::FfnSubNorm,
                    self.layers
                        .iter()
                        .zip(&calibration.layers)
                        .any(|(l, c)| l.ffn_sub_norm.is_some() != c.ffn_sub_norm.is_some()),
                ),
            ] {
                if missing {
                    return Err(BitnetError::input(
                        format!(
                            "model and calibration disagree on whether there is an {}",
                            kind.name()
                        ),
                        "calibrate this model again",
                    ));
                }
            }
        }
        let mut pass = Pass {
            model: self,
            options,
            start,
            layer: 0,
            probe,
            range: RangeReport::default(),
            noise: None,
        };
        if let Some(noise) = options.noise {
            let mut rng = ChaCha20Rng::seed_from_u64(noise.seed);
            rng.set_stream(start as u64);
            pass.noise = Some((noise, rng));
        }
        let mut x = embedded;
        for (n, layer) in self.layers.iter().enumerate() {
            pass.layer = n;
            x = pass.layer(layer, x, cache)?;
        }
        let mut range = pass.range;
        range.non_finite = x.data.iter().filter(|v| !v.is_finite()).count();
        let normed = self.normalise_final(&x);
        Ok(HiddenStates {
            last: x,
            normed,
            range,
        })
    }
}

/// State of one forward pass.
struct Pass<'a, 'p> {
    model: &'a Model,
    options: &'a ForwardOptions<'a>,
    start: usize,
    layer: usize,
    probe: Option<&'p mut dyn Probe>,
    range: RangeReport,
    noise: Option<(Noise, ChaCha20Rng)>,
}

impl Pass<'_, '_> {
    fn layer(
        &mut self,
        w: &LayerWeights,
        x: Matrix,
        cache: &mut KvCache,
    ) -> Result<Matrix, BitnetError> {
        let c = &self.model.config;
        self.show(Quantity::Input, &x);
        let normed = self.norm(
            &x,
            &w.input_norm,
            FunctionKind::InputNorm,
            c.rms_norm_eps,
            Quantity::MsInput,
        );
        self.show(Quantity::NormedInput, &normed);
        let normed = self.linear_input(normed);
        let mut q = self.linear(&w.q, &normed, Quantity::Q)?;
        let mut k = self.linear(&w.k, &normed, Quantity::K)?;
        let v = self.linear(&w.v, &normed, Quantity::V)?;
        rotate(&mut q, c.head_dim, c.rope_theta, self.start);
        rotate(&mut k, c.head_dim, c.rope_theta, self.start);
        let cached = cache.extend(self.layer, &k, &v);
        let polynomial = self
            .options
            .functions
            .polynomial(self.layer, FunctionKind::Sigmoid);
        let inverse = self.options.functions.row_series(self.layer);
        let weights = match self.options.functions {
            Functions::ExactSoftmax => Weights::Softmax,
            _ => Weights::Sigmoid {
                head_bias: &w.head_bias,
                polynomial,
                squarings: self
                    .options
                    .functions
                    .calibration()
                    .map_or(0, |c| c.layers[self.layer].sigmoid_squarings),
                normaliser: (c.attention == Attention::NormalisedSigmoid).then(|| {
                    let eps = c.row_sum_eps(self.layer);
                    inverse.map_or(Normaliser::Exact { eps }, Normaliser::Polynomial)
                }),
            },
        };
        let attended = attend(c, &q, cached, self.start, weights, self.probe.is_some());
        for (kind, used, counts) in [
            (
                FunctionKind::Sigmoid,
                polynomial.is_some(),
                &attended.out_of_range,
            ),
            (
                FunctionKind::RowInverse,
                inverse.is_some(),
                &attended.sums_out_of_range,
            ),
        ] {
            if used {
                self.range
                    .functions
                    .entry((self.layer, kind))
                    .or_default()
                    .add(counts);
            }
        }
        if attended.row_sums.rows > 0 {
            self.show(Quantity::RowSum, &attended.row_sums);
        }
        if let Some((z, weights)) = &attended.traced {
            self.show(Quantity::Z, z);
            self.show(Quantity::Weights, weights);
        }
        let mut attn = attended.output;
        self.disturb(Quantity::Attn, &mut attn);
        self.show(Quantity::Attn, &attn);
        if let Some(gain) = &w.attn_sub_norm {
            attn = self.norm(
                &attn,
                gain,
                FunctionKind::AttnSubNorm,
                c.attn_sub_norm_eps(self.layer),
                Quantity::MsAttn,
            );
        }
        self.show(Quantity::AttnNormed, &attn);
        let attn = self.linear_input(attn);
        let o = self.linear(&w.o, &attn, Quantity::O)?;
        let x = add(x, &o);
        self.show(Quantity::Residual, &x);

        let normed = self.norm(
            &x,
            &w.post_attention_norm,
            FunctionKind::PostAttentionNorm,
            c.rms_norm_eps,
            Quantity::MsPost,
        );
        self.show(Quantity::NormedPost, &normed);
        let normed = self.linear_input(normed);
        let mut gate = self.linear(&w.gate, &normed, Quantity::Gate)?;
        let up = self.linear(&w.up, &normed, Quantity::Up)?;
        self.activate(&mut gate);
        self.show(Quantity::Activation, &gate);
        for (g, u) in gate.data.iter_mut().zip(&up.data) {
            *g *= u;
        }
        let mut gated = gate;
        self.show(Quantity::Gated, &gated);
        if let Some(gain) = &w.ffn_sub_norm {
            gated = self.norm(
                &gated,
                gain,
                FunctionKind::FfnSubNorm,
                c.rms_norm_eps,
                Quantity::MsGated,
            );
        }
        self.show(Quantity::GatedNormed, &gated);
        let gated = self.linear_input(gated);
        let down = self.linear(&w.down, &gated, Quantity::Down)?;
        let x = add(x, &down);
        self.show(Quantity::Output, &x);
        Ok(x)
    }

    fn show(&mut self, quantity: Quantity, values: &Matrix) {
        if let Some(probe) = &mut self.probe {
            probe.record(self.layer, quantity, values);
        }
    }

    fn norm(
        &mut self,
        x: &Matrix,
        gain: &[f32],
        kind: FunctionKind,
        eps: f64,
        quantity: Quantity,
    ) -> Matrix {
        let mut ms = Matrix::zeros(x.rows, 1);
        let out = match self.options.functions.polynomial(self.layer, kind) {
            None => rms_norm(x, gain, &mut ms, |ms| 1.0 / (ms + eps).sqrt()),
            Some(series) => {
                let mut counted = Counted::new(series);
                let out = rms_norm(x, gain, &mut ms, |ms| counted.eval(ms));
                self.range
                    .functions
                    .entry((self.layer, kind))
                    .or_default()
                    .add(&counted.counts);
                out
            }
        };
        self.show(quantity, &ms);
        out
    }

    fn activate(&mut self, gate: &mut Matrix) {
        let activation = self.model.config.activation;
        match self
            .options
            .functions
            .polynomial(self.layer, FunctionKind::Activation)
        {
            None => gate
                .data
                .iter_mut()
                .for_each(|g| *g = activation.apply(f64::from(*g)) as f32),
            Some(series) => {
                let mut counted = Counted::new(series);
                gate.data
                    .iter_mut()
                    .for_each(|g| *g = counted.eval(f64::from(*g)) as f32);
                self.range
                    .functions
                    .entry((self.layer, FunctionKind::Activation))
                    .or_default()
                    .add(&counted.counts);
            }
        }
    }

    /// Rounds to 8 bits per token when asked to: `round(x * 127 / max|x|) * max|x| / 127`.
    fn linear_input(&self, mut x: Matrix) -> Matrix {
        if self.options.int8_activations {
            for t in 0..x.rows {
                let row = x.row_mut(t);
                let scale = 127.0 / max_abs(row).max(1e-5);
                row.iter_mut()
                    .for_each(|v| *v = (*v * scale).round_ties_even().clamp(-128.0, 127.0) / scale);
            }
        }
        x
    }

    fn linear(
        &mut self,
        w: &TernaryMatrix,
        x: &Matrix,
        quantity: Quantity,
    ) -> Result<Matrix, BitnetError> {
        let mut y = w.matmul(x)?;
        self.disturb(quantity, &mut y);
        self.show(quantity, &y);
        Ok(y)
    }

    fn disturb(&mut self, quantity: Quantity, values: &mut Matrix) {
        let Some((noise, rng)) = &mut self.noise else {
            return;
        };
        let calibrated = self
            .options
            .functions
            .calibration()
            .and_then(|c| c.layers[self.layer].max_abs.get(quantity));
        let size = calibrated.unwrap_or_else(|| f64::from(values.max_abs()));
        let deviation = size * (-noise.bits).exp2();
        for pair in values.data.chunks_mut(2) {
            // Box-Muller.
            let radius = (-2.0 * (1.0 - unit(rng)).ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * unit(rng)).sin_cos();
            for (v, g) in pair.iter_mut().zip([radius * cos, radius * sin]) {
                *v += (deviation * g) as f32;
            }
        }
    }
}

/// A uniform number in [0, 1).
pub(crate) fn unit(rng: &mut impl RngCore) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// `x * factor(mean square) * gain` row by row; mean squares go to `ms`.
fn rms_norm(
    x: &Matrix,
    gain: &[f32],
    ms: &mut Matrix,
    mut factor: impl FnMut(f64) -> f64,
) -> Matrix {
    let mut out = Matrix::zeros(x.rows, x.cols);
    for t in 0..x.rows {
        let row = x.row(t);
        let mean = row
            .iter()
            .map(|v| f64::from(*v) * f64::from(*v))
            .sum::<f64>()
            / x.cols as f64;
        ms.data[t] = mean as f32;
        let f = factor(mean);
        for ((y, v), g) in out.row_mut(t).iter_mut().zip(row).zip(gain) {
            *y = (f64::from(*v) * f) as f32 * g;
        }
    }
    out
}

fn add(mut x: Matrix, y: &Matrix) -> Matrix {
    for (a, b) in x.data.iter_mut().zip(&y.data) {
        *a += b;
    }
    x
}
