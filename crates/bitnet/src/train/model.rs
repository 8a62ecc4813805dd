//! The network: parameters, forward pass, backward pass.

use super::kernels::{self, AttentionShape, NormPenalty, Rope};
use super::{Penalties, TrainConfig, TrainError};
use candle_core::{Device, Storage, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Epsilon of all norms but `attn_sub_norm`.
pub(crate) const NORM_EPS: f32 = 1e-5;
/// Base of the rotary embedding.
pub(crate) const ROPE_THETA: f64 = 10_000.0;

/// What a parameter is, which decides how it is quantised and decayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A linear layer (`[out, in]`) made of this many equally tall tensors, each with its own ternary scale.
    Linear(usize),
    /// The embedding table.
    Embedding,
    /// A bias or gain.
    Vector,
    /// Vectors in front of every sequence's embeddings.
    Prompt,
}

/// One master parameter in `f32`.
#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    pub kind: Kind,
    pub data: Vec<f32>,
}

impl Parameter {
    /// The values the forward pass uses: `trit * mean |w|` per tensor for linear layers, the masters themselves otherwise.
    pub fn effective(&self, quantised: bool) -> Vec<f32> {
        match self.kind {
            Kind::Linear(parts) if quantised => {
                let mut out = vec![0f32; self.data.len()];
                let n = self.data.len() / parts;
                out.par_chunks_mut(n)
                    .zip(self.data.par_chunks(n))
                    .for_each(|(o, w)| kernels::ternary_values(w, o));
                out
            }
            _ => self.data.clone(),
        }
    }
}

/// Running statistics of the two sub-norms of every layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormState {
    /// Running mean of `ln(mean square + eps)` before `attn_sub_norm`.
    pub attn_centre: Vec<f32>,
    /// The same before `ffn_sub_norm`.
    pub ffn_centre: Vec<f32>,
    /// Epsilon of `attn_sub_norm`, absolute.
    pub attn_eps: Vec<f32>,
    /// Whether any batch has been seen.
    pub primed: bool,
}

/// Sizes of a network and how its attention and quantisation work.
#[derive(Clone, Debug)]
pub(crate) struct Sizes {
    pub hidden: usize,
    pub layers: usize,
    pub heads: usize,
    pub ffn: usize,
    pub vocab: usize,
    pub context: usize,
    pub attention: super::AttentionKind,
    pub quantised: bool,
}

/// A BitNet with `f32` master weights.
#[derive(Clone, Debug)]
pub struct Network {
    pub(crate) sizes: Sizes,
    pub(crate) parameters: Vec<Parameter>,
    /// Statistics and epsilons of the sub-norms.
    pub norms: NormState,
}

/// Result of one training step's forward and backward pass.
pub(crate) struct Step {
    /// Mean cross-entropy in nats per token.
    pub loss: f64,
    /// Weighted penalties: logits, norms and peaks, gate.
    pub penalties: [f64; 3],
    /// One gradient per parameter, where one was wanted.
    pub gradients: Vec<Option<Tensor>>,
    /// Batch means of `ln(mean square + eps)` before the sub-norms.
    pub attn_log_ms: Vec<f32>,
    pub ffn_log_ms: Vec<f32>,
}

/// What the backward pass needs of one layer.
struct LayerCache {
    n1: Tensor,
    r1: Vec<f32>,
    qkv: Tensor,
    n2: Tensor,
    r2: Vec<f32>,
    n3: Tensor,
    r3: Vec<f32>,
    gate_up: Tensor,
    n4: Tensor,
    r4: Vec<f32>,
}

const PER_LAYER: usize = 5;
const QKV: usize = 0;
const O: usize = 1;
const GATE_UP: usize = 2;
const DOWN: usize = 3;
const BIAS: usize = 4;

/// Lends the data of a contiguous `f32` tensor to `f`.
pub(crate) fn with_data<R>(t: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R, TrainError> {
    let (storage, layout) = t.storage_and_layout();
    let Some((a, b)) = layout.contiguous_offsets() else {
        return Err(TrainError::Candle(candle_core::Error::Msg(
            "tensor is not contiguous".into(),
        )));
    };
    match &*storage {
        Storage::Cpu(s) => Ok(f(&s.as_slice::<f32>()?[a..b])),
        _ => Err(TrainError::Candle(candle_core::Error::Msg(
            "tensor is not on the CPU".into(),
        ))),
    }
}

fn tensor(data: Vec<f32>, rows: usize, cols: usize) -> Result<Tensor, TrainError> {
    Ok(Tensor::from_vec(data, (rows, cols), &Device::Cpu)?)
}

fn mean_log_ms(inverse: &[f32]) -> f32 {
    (inverse
        .iter()
        .map(|r| f64::from(-2.0 * r.ln()))
        .sum::<f64>()
        / inverse.len() as f64) as f32
}

impl Network {
    /// A network with random weights: normal with standard deviation 0.02, `o` and `down` divided by `sqrt(2 layers)`.
    pub fn new(config: &TrainConfig) -> Self {
        let sizes = Sizes {
            hidden: config.hidden,
            layers: config.layers,
            heads: config.heads,
            ffn: config.ffn,
            vocab: config.vocab,
            context: config.context,
            attention: config.attention,
            quantised: !config.unquantised,
        };
        let mut rng = ChaCha8Rng::seed_from_u64(config.seed);
        rng.set_stream(u64::MAX);
        let mut normal = |n: usize, std: f64| -> Vec<f32> {
            let unit = |x: u64| ((x >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
            (0..n)
                .map(|_| {
                    let (u, v) = (unit(rng.next_u64()), unit(rng.next_u64()));
                    (std * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
                })
                .collect()
        };
        let (d, f) = (sizes.hidden, sizes.ffn);
        let out_std = 0.02 / (2.0 * sizes.layers as f64).sqrt();
        let mut parameters = Vec::new();
        for l in 0..sizes.layers {
            let mut linear = |name: &str, parts: usize, rows: usize, cols: usize, std: f64| {
                let data = normal(rows * cols, std);
                parameters.push(Parameter {
                    name: format!("layers.{l}.{name}"),
                    rows,
                    cols,
                    kind: Kind::Linear(parts),
                    data,
                });
            };
            linear("qkv", 3, 3 * d, d, 0.02);
            linear("o", 1, d, d, out_std);
            linear("gate_up", 2, 2 * f, d, 0.02);
            linear("down", 1, d, f, out_std);
            let bias = vec![0.0; sizes.heads];
            parameters.push(Parameter {
                name: format!("layers.{l}.head_bias"),
                rows: 1,
                cols: sizes.heads,
                kind: Kind::Vector,
                data: bias,
            });
        }
        let data = normal(sizes.vocab * d, 0.04);
        parameters.push(Parameter {
            name: "embedding".into(),
            rows: sizes.vocab,
            cols: d,
            kind: Kind::Embedding,
            data,
        });
        parameters.push(Parameter {
            name: "norm".into(),
            rows: 1,
            cols: d,
            kind: Kind::Vector,
            data: vec![1.0; d],
        });
        let zero = vec![0.0; sizes.layers];
        let norms = NormState {
            attn_centre: zero.clone(),
            ffn_centre: zero,
            attn_eps: vec![NORM_EPS; sizes.layers],
            primed: false,
        };
        Self {
            sizes,
            parameters,
            norms,
        }
    }

    /// Number of parameters.
    pub fn size(&self) -> usize {
        self.parameters.iter().map(|p| p.data.len()).sum()
    }

    pub(crate) fn layer_parameter(&self, layer: usize, which: usize) -> &Parameter {
        &self.parameters[layer * PER_LAYER + which]
    }

    pub(crate) fn embedding(&self) -> &Parameter {
        &self.parameters[self.sizes.layers * PER_LAYER]
    }

    pub(crate) fn final_gain(&self) -> &Parameter {
        &self.parameters[self.sizes.layers * PER_LAYER + 1]
    }

    /// The same network with its effective (ternary, half-precision embedding) values as masters, unquantised: computes
    /// exactly what the exported files say.
    pub fn as_exported(&self) -> Self {
        let mut n = self.clone();
        for p in &mut n.parameters {
            p.data = p.effective(self.sizes.quantised);
            if p.kind == Kind::Embedding
                || (!self.sizes.quantised && matches!(p.kind, Kind::Linear(_)))
            {
                p.data
                    .iter_mut()
                    .for_each(|x| *x = half::f16::from_f32(*x).to_f32());
            }
        }
        n.sizes.quantised = false;
        n
    }

    fn weights(&self) -> Result<Vec<Tensor>, TrainError> {
        self.parameters
            .iter()
            .map(|p| tensor(p.effective(self.sizes.quantised), p.rows, p.cols))
            .collect()
    }

    fn attention(&self, tokens: usize, penalties: &Penalties) -> AttentionShape {
        AttentionShape {
            kind: self.sizes.attention,
            tokens,
            heads: self.sizes.heads,
            head: self.sizes.hidden / self.sizes.heads,
            logit_range: penalties.logit_range,
            logit_weight: penalties.logits,
        }
    }

    fn rope(&self, tokens: usize) -> Rope {
        Rope::new(tokens, self.sizes.hidden / self.sizes.heads, ROPE_THETA)
    }

    /// The prompt's vectors, row-major; empty without one.
    fn prompt(&self) -> &[f32] {
        self.parameters
            .get(self.sizes.layers * PER_LAYER + 2)
            .map_or(&[], |p| &p.data)
    }

    /// Vectors of the prompt.
    pub(crate) fn prompt_rows(&self) -> usize {
        self.prompt().len() / self.sizes.hidden
    }

    /// Embeddings of sequences of `tokens` ids each, every sequence behind the prompt.
    fn embed(&self, inputs: &[u32], tokens: usize) -> Vec<f32> {
        let d = self.sizes.hidden;
        let table = &self.embedding().data;
        let prompt = self.prompt();
        let mut x = Vec::with_capacity(inputs.len() * d + inputs.len() / tokens * prompt.len());
        for sequence in inputs.chunks_exact(tokens) {
            x.extend_from_slice(prompt);
            for &t in sequence {
                x.extend_from_slice(&table[t as usize * d..(t as usize + 1) * d]);
            }
        }
        x
    }

    /// The rows of `x` that belong to ids, not to the prompt.
    fn behind_prompt(&self, x: Vec<f32>, tokens: usize) -> Vec<f32> {
        let prompt = self.prompt().len();
        if prompt == 0 {
            return x;
        }
        x.chunks_exact(prompt + tokens * self.sizes.hidden)
            .flat_map(|sequence| &sequence[prompt..])
            .copied()
            .collect()
    }

    /// The inverse of [`Self::behind_prompt`] for gradients: rows of the prompt are 0.
    fn with_prompt_rows(&self, dx: Vec<f32>, tokens: usize) -> Vec<f32> {
        let prompt = self.prompt().len();
        if prompt == 0 {
            return dx;
        }
        let mut out = Vec::with_capacity(dx.len() + dx.len() / tokens * self.prompt_rows());
        for sequence in dx.chunks_exact(tokens * self.sizes.hidden) {
            out.resize(out.len() + prompt, 0.0);
            out.extend_from_slice(sequence);
        }
        out
    }

    fn layer(
        &self,
        l: usize,
        w: &[Tensor],
        x: &mut [f32],
        attention: &AttentionShape,
        rope: &Rope,
    ) -> Result<LayerCache, TrainError> {
        let Sizes {
            hidden: d, ffn: f, ..
        } = self.sizes;
        let n = x.len() / d;
        let w = &w[l * PER_LAYER..(l + 1) * PER_LAYER];
        let bias = &self.layer_parameter(l, BIAS).data;
        let add = |x: &mut [f32], y: &Tensor| with_data(y, |y| kernels::add(x, y));
        let (n1, r1) = kernels::rms_norm(x, d, NORM_EPS);
        let n1 = tensor(n1, n, d)?;
        let qkv = n1.matmul(&w[QKV].t()?)?;
        let a = with_data(&qkv, |qkv| attention.forward(rope, qkv, bias))?;
        let (n2, r2) = kernels::rms_norm(&a, d, self.norms.attn_eps[l]);
        let n2 = tensor(n2, n, d)?;
        add(x, &n2.matmul(&w[O].t()?)?)?;
        let (n3, r3) = kernels::rms_norm(x, d, NORM_EPS);
        let n3 = tensor(n3, n, d)?;
        let gate_up = n3.matmul(&w[GATE_UP].t()?)?;
        let h = with_data(&gate_up, |gu| kernels::gated(gu, f))?;
        let (n4, r4) = kernels::rms_norm(&h, f, NORM_EPS);
        let n4 = tensor(n4, n, f)?;
        add(x, &n4.matmul(&w[DOWN].t()?)?)?;
        Ok(LayerCache {
            n1,
            r1,
            qkv,
            n2,
            r2,
            n3,
            r3,
            gate_up,
            n4,
            r4,
        })
    }

    /// Final norm (with gain) and logits: `(normalised, 1/rms, gained, logits)`.
    fn head(
        &self,
        w: &[Tensor],
        x: &[f32],
    ) -> Result<(Vec<f32>, Vec<f32>, Tensor, Tensor), TrainError> {
        let d = self.sizes.hidden;
        let (y, r) = kernels::rms_norm(x, d, NORM_EPS);
        let gain = &self.final_gain().data;
        let g: Vec<f32> = y
            .chunks_exact(d)
            .flat_map(|y| y.iter().zip(gain).map(|(y, g)| y * g))
            .collect();
        let g = tensor(g, x.len() / d, d)?;
        let logits = g.matmul(&w[self.sizes.layers * PER_LAYER].t()?)?;
        Ok((y, r, g, logits))
    }

    /// Logits `[inputs.len(), vocab]` of sequences of `tokens` ids each.
    ///
    /// # Errors
    /// [`TrainError::Config`] when an id or the length is out of range.
    pub fn logits(&self, inputs: &[u32], tokens: usize) -> Result<Vec<f32>, TrainError> {
        self.check_inputs(inputs, tokens)?;
        let w = self.weights()?;
        self.logits_tensor(&w, inputs, tokens)
            .and_then(|l| with_data(&l, <[f32]>::to_vec))
    }

    fn check_inputs(&self, inputs: &[u32], tokens: usize) -> Result<(), TrainError> {
        if tokens == 0
            || tokens > self.sizes.context - self.prompt_rows()
            || inputs.is_empty()
            || !inputs.len().is_multiple_of(tokens)
        {
            return Err(TrainError::Config(format!(
                "{} ids in sequences of {tokens}: expected whole sequences of 1..={}",
                inputs.len(),
                self.sizes.context - self.prompt_rows()
            )));
        }
        match inputs.iter().find(|&&i| i as usize >= self.sizes.vocab) {
            Some(i) => Err(TrainError::Config(format!(
                "token id {i} is outside the vocabulary of {}",
                self.sizes.vocab
            ))),
            None => Ok(()),
        }
    }

    fn logits_tensor(
        &self,
        w: &[Tensor],
        inputs: &[u32],
        tokens: usize,
    ) -> Result<Tensor, TrainError> {
        let rows = self.prompt_rows() + tokens;
        let (rope, attention) = (self.rope(rows), self.attention(rows, &Penalties::none()));
        let mut x = self.embed(inputs, tokens);
        for l in 0..self.sizes.layers {
            self.layer(l, w, &mut x, &attention, &rope)?;
        }
        Ok(self.head(w, &self.behind_prompt(x, tokens))?.3)
    }

    /// Sum of `-ln p(target)` over the windows of `windows`, each `(inputs, targets)` of one context length, `batch` at a time.
    pub(crate) fn total_loss(
        &self,
        windows: &[(Vec<u32>, Vec<u32>)],
        batch: usize,
    ) -> Result<f64, TrainError> {
        let w = self.weights()?;
        let mut sum = 0.0;
        for chunk in windows.chunks(batch) {
            let inputs: Vec<u32> = chunk.iter().flat_map(|w| &w.0).copied().collect();
            let targets: Vec<u32> = chunk.iter().flat_map(|w| &w.1).copied().collect();
            let logits = self.logits_tensor(&w, &inputs, chunk[0].0.len())?;
            sum += with_data(&logits, |z| {
                kernels::cross_entropy(z, &targets, self.sizes.vocab, false).0
            })?;
        }
        Ok(sum)
    }

    /// Loss, penalties and gradients of one batch of sequences of one context length.
    pub(crate) fn step(
        &self,
        inputs: &[u32],
        targets: &[u32],
        penalties: &Penalties,
    ) -> Result<Step, TrainError> {
        self.step_of(inputs, targets, self.sizes.context, penalties, &|_| true)
    }

    /// The same for sequences of `context` ids, with gradients only of the parameters that `wanted` names by index.
    pub(crate) fn step_of(
        &self,
        inputs: &[u32],
        targets: &[u32],
        context: usize,
        penalties: &Penalties,
        wanted: &dyn Fn(usize) -> bool,
    ) -> Result<Step, TrainError> {
        let Sizes {
            hidden: d,
            ffn: f,
            layers,
            vocab,
            ..
        } = self.sizes;
        self.check_inputs(inputs, context)?;
        let w = self.weights()?;
        let rows = self.prompt_rows() + context;
        let (rope, attention) = (self.rope(rows), self.attention(rows, penalties));
        let mut x = self.embed(inputs, context);
        let mut caches = Vec::with_capacity(layers);
        for l in 0..layers {
            caches.push(self.layer(l, &w, &mut x, &attention, &rope)?);
        }
        // Ids, of which each has a loss; in the layers below, rows of the prompt are among them.
        let ids = inputs.len();
        let n = x.len() / d;
        let x = self.behind_prompt(x, context);
        let (y, r, g, logits) = self.head(&w, &x)?;
        let (loss, d_logits) =
            with_data(&logits, |z| kernels::cross_entropy(z, targets, vocab, true))?;
        drop(logits);

        let mut gradients: Vec<Option<Tensor>> = vec![None; self.parameters.len()];
        let e = layers * PER_LAYER;
        let d_logits = tensor(d_logits, ids, vocab)?;
        let dg = d_logits.matmul(&w[e])?;
        let mut d_embedding = if wanted(e) {
            with_data(&d_logits.t()?.matmul(&g)?, <[f32]>::to_vec)?
        } else {
            Vec::new()
        };
        drop(d_logits);
        let gain = &self.final_gain().data;
        let mut d_gain = vec![0f32; d];
        let dy: Vec<f32> = with_data(&dg, |dg| {
            for (dg, y) in dg.chunks_exact(d).zip(y.chunks_exact(d)) {
                for j in 0..d {
                    d_gain[j] += dg[j] * y[j];
                }
            }
            dg.chunks_exact(d)
                .flat_map(|dg| dg.iter().zip(gain).map(|(a, b)| a * b))
                .collect()
        })?;
        let mut dx = vec![0f32; ids * d];
        kernels::rms_norm_backward(&y, &r, &dy, d, NormPenalty::default(), &mut dx);
        let mut dx = self.with_prompt_rows(dx, context);
        gradients[e + 1] = Some(tensor(d_gain, 1, d)?);

        let peak = NormPenalty {
            peak: penalties.peak_limit,
            peak_weight: penalties.peaks,
            ..NormPenalty::default()
        };
        let range = |centre: f32| NormPenalty {
            centre,
            width: penalties.norm_width,
            weight: if self.norms.primed {
                penalties.norms
            } else {
                0.0
            },
            ..peak
        };
        let mut costs = [0f64; 3];
        let (mut attn_log_ms, mut ffn_log_ms) = (vec![0f32; layers], vec![0f32; layers]);
        for (l, c) in caches.into_iter().enumerate().rev() {
            let base = l * PER_LAYER;
            let norm_back = |y: &Tensor,
                             r: &[f32],
                             dy: &Tensor,
                             width: usize,
                             p: NormPenalty,
                             dx: &mut [f32]|
             -> Result<f64, TrainError> {
                with_data(y, |y| {
                    with_data(dy, |dy| kernels::rms_norm_backward(y, r, dy, width, p, dx))
                })?
            };
            attn_log_ms[l] = mean_log_ms(&c.r2);
            ffn_log_ms[l] = mean_log_ms(&c.r4);
            // feed-forward
            let out_grad = tensor(dx.clone(), n, d)?;
            if wanted(base + DOWN) {
                gradients[base + DOWN] = Some(out_grad.t()?.matmul(&c.n4)?);
            }
            let dn4 = out_grad.matmul(&w[base + DOWN])?;
            let mut dh = vec![0f32; n * f];
            costs[1] += norm_back(
                &c.n4,
                &c.r4,
                &dn4,
                f,
                range(self.norms.ffn_centre[l]),
                &mut dh,
            )?;
            let (dgu, cost) = with_data(&c.gate_up, |gu| {
                kernels::gated_backward(gu, &dh, f, penalties.gate_limit, penalties.gate)
            })?;
            costs[2] += cost;
            let dgu = tensor(dgu, n, 2 * f)?;
            if wanted(base + GATE_UP) {
                gradients[base + GATE_UP] = Some(dgu.t()?.matmul(&c.n3)?);
            }
            let dn3 = dgu.matmul(&w[base + GATE_UP])?;
            costs[1] += norm_back(&c.n3, &c.r3, &dn3, d, peak, &mut dx)?;
            // attention
            let out_grad = tensor(dx.clone(), n, d)?;
            if wanted(base + O) {
                gradients[base + O] = Some(out_grad.t()?.matmul(&c.n2)?);
            }
            let dn2 = out_grad.matmul(&w[base + O])?;
            let mut da = vec![0f32; n * d];
            costs[1] += norm_back(
                &c.n2,
                &c.r2,
                &dn2,
                d,
                range(self.norms.attn_centre[l]),
                &mut da,
            )?;
            let bias = &self.layer_parameter(l, BIAS).data;
            let (dqkv, d_bias, cost) =
                with_data(&c.qkv, |qkv| attention.backward(&rope, qkv, bias, &da))?;
            costs[0] += cost;
            gradients[base + BIAS] = Some(tensor(d_bias, 1, bias.len())?);
            let dqkv = tensor(dqkv, n, 3 * d)?;
            if wanted(base + QKV) {
                gradients[base + QKV] = Some(dqkv.t()?.matmul(&c.n1)?);
            }
            let dn1 = dqkv.matmul(&w[base + QKV])?;
            costs[1] += norm_back(&c.n1, &c.r1, &dn1, d, peak, &mut dx)?;
        }
        if let Some(g) = gradients.get_mut(e + 2) {
            let size = self.prompt().len();
            let mut sum = vec![0f32; size];
            for sequence in dx.chunks_exact(size + context * d) {
                kernels::add(&mut sum, &sequence[..size]);
            }
            *g = Some(tensor(sum, size / d, d)?);
        }
        if wanted(e) {
            let dx = self.behind_prompt(dx, context);
            for (&t, dx) in inputs.iter().zip(dx.chunks_exact(d)) {
                let row = &mut d_embedding[t as usize * d..(t as usize + 1) * d];
                row.iter_mut().zip(dx).for_each(|(a, b)| *a += b);
            }
            gradients[e] = Some(tensor(d_embedding, vocab, d)?);
        }
        for (i, g) in gradients.iter_mut().enumerate() {
            if !wanted(i) {
                *g = None;
            }
        }
        Ok(Step {
            loss: loss / ids as f64,
            penalties: costs,
            gradients,
            attn_log_ms,
            ffn_log_ms,
        })
    }

    /// Moves the running statistics towards the batch just seen, and, unless `frozen`, the epsilons of `attn_sub_norm` to
    /// `fraction` of the typical mean square.
    pub(crate) fn update_norms(&mut self, step: &Step, fraction: f32, frozen: bool) {
        let keep = if self.norms.primed { 0.98 } else { 0.0 };
        let mix = |centre: &mut [f32], seen: &[f32]| {
            centre
                .iter_mut()
                .zip(seen)
                .for_each(|(c, s)| *c = keep * *c + (1.0 - keep) * s)
        };
        mix(&mut self.norms.attn_centre, &step.attn_log_ms);
        mix(&mut self.norms.ffn_centre, &step.ffn_log_ms);
        if !frozen {
            for (e, c) in self.norms.attn_eps.iter_mut().zip(&self.norms.attn_centre) {
                *e = fraction * c.exp();
            }
        }
        self.norms.primed = true;
    }
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
