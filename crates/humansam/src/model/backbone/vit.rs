//! The parts that all vision transformers here share. Every function is written in operations through which gradients flow
//! (candle's fused soft-max, norms and attention do not carry them).

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::model::weights::{Layout, Weights};

/// `y = x Wᵀ + b`, `W` of shape `[out, in]`.
#[derive(Clone, Debug)]
pub(crate) struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    pub fn load(w: &Weights, name: &str, bias: bool) -> Result<Self> {
        let weight = w.get(&format!("{name}.weight"))?;
        let bias = if bias {
            Some(w.get(&format!("{name}.bias"))?)
        } else {
            None
        };
        Ok(Self { weight, bias })
    }

    pub fn from_parts(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Rows of the last dimension are mapped; leading dimensions stay.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mut shape = x.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        let rows: usize = shape.iter().product();
        let y = x.reshape((rows, width))?.matmul(&self.weight.t()?)?;
        let y = match &self.bias {
            Some(b) => y.broadcast_add(b)?,
            None => y,
        };
        shape.push(self.weight.dim(0)?);
        Ok(y.reshape(shape)?)
    }
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    pub fn load(w: &Weights, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: w.get(&format!("{name}.weight"))?,
            bias: w.get(&format!("{name}.bias"))?,
            eps,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
        let variance = centred.sqr()?.mean_keepdim(D::Minus1)?;
        let y = centred.broadcast_div(&(variance + self.eps)?.sqrt()?)?;
        Ok(y.broadcast_mul(&self.weight)?.broadcast_add(&self.bias)?)
    }
}

/// `x / sqrt(mean x² + eps) * weight` over the last dimension.
#[derive(Clone, Debug)]
pub(crate) struct RmsNorm {
    weight: Tensor,
    eps: f64,
}

impl RmsNorm {
    pub fn load(w: &Weights, name: &str, eps: f64) -> Result<Self> {
        Ok(Self {
            weight: w.get(&format!("{name}.weight"))?,
            eps,
        })
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let mean = x.sqr()?.mean_keepdim(D::Minus1)?;
        Ok(x.broadcast_div(&(mean + self.eps)?.sqrt()?)?
            .broadcast_mul(&self.weight)?)
    }
}

/// Soft-max over the last dimension, with gradient.
pub(crate) fn softmax(x: &Tensor) -> Result<Tensor> {
    let e = x
        .broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?
        .exp()?;
    Ok(e.broadcast_div(&e.sum_keepdim(D::Minus1)?)?)
}

/// `softmax(q kᵀ / sqrt(d_head)) v` with `q [B, Tq, D]`, `k`, `v [B, Tk, D]`. One head at a time, so that the score matrix
/// of the longest sequence (2049 tokens) takes 17 MB and not 16 times that.
pub(crate) fn attention(q: &Tensor, k: &Tensor, v: &Tensor, heads: usize) -> Result<Tensor> {
    let (_, _, width) = q.dims3()?;
    let head = width / heads;
    let scale = (head as f64).powf(-0.5);
    let mut out = Vec::with_capacity(heads);
    for h in 0..heads {
        let part = |t: &Tensor| t.narrow(2, h * head, head)?.contiguous();
        let scores = (part(q)? * scale)?.matmul(&part(k)?.transpose(1, 2)?)?;
        out.push(softmax(&scores)?.matmul(&part(v)?)?);
    }
    Ok(Tensor::cat(&out, 2)?)
}

/// Which of the two families of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// InternVideo2: RMSNorm (eps 1e-6), no bias at `qkv`, RMSNorm over all of `q` and of `k`.
    InternVideo2,
    /// DINOv2: LayerNorm (eps 1e-6), bias at `qkv`, no norm of `q` and `k`.
    Dinov2,
}

/// A pre-norm transformer block with LayerScale: `x += γ₁ · attn(norm1 x)`, `x += γ₂ · mlp(norm2 x)`, GELU in its exact form.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    norm1: Norm,
    qkv: Linear,
    qk_norm: Option<(RmsNorm, RmsNorm)>,
    proj: Linear,
    gamma1: Tensor,
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    gamma2: Tensor,
    heads: usize,
}

#[derive(Clone, Debug)]
enum Norm {
    Rms(RmsNorm),
    Layer(LayerNorm),
}

impl Norm {
    fn load(w: &Weights, name: &str, family: Family) -> Result<Self> {
        Ok(match family {
            Family::InternVideo2 => Norm::Rms(RmsNorm::load(w, name, 1e-6)?),
            Family::Dinov2 => Norm::Layer(LayerNorm::load(w, name, 1e-6)?),
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Norm::Rms(n) => n.forward(x),
            Norm::Layer(n) => n.forward(x),
        }
    }
}

impl Block {
    /// Adds the tensors of a block of width `d` with a hidden layer of `hidden`.
    pub fn layout(layout: &mut Layout, prefix: &str, d: usize, hidden: usize, family: Family) {
        let plain = family == Family::InternVideo2;
        for norm in ["norm1", "norm2"] {
            layout.add(format!("{prefix}{norm}.weight"), &[d]);
            if !plain {
                layout.add(format!("{prefix}{norm}.bias"), &[d]);
            }
        }
        layout.add(format!("{prefix}attn.qkv.weight"), &[3 * d, d]);
        if plain {
            layout.add(format!("{prefix}attn.q_norm.weight"), &[d]);
            layout.add(format!("{prefix}attn.k_norm.weight"), &[d]);
        } else {
            layout.add(format!("{prefix}attn.qkv.bias"), &[3 * d]);
        }
        layout.linear(&format!("{prefix}attn.proj"), &[d, d]);
        layout.add(format!("{prefix}ls1.gamma"), &[d]);
        layout.add(format!("{prefix}ls2.gamma"), &[d]);
        layout.linear(&format!("{prefix}mlp.fc1"), &[hidden, d]);
        layout.linear(&format!("{prefix}mlp.fc2"), &[d, hidden]);
    }

    pub fn load(w: &Weights, family: Family, heads: usize) -> Result<Self> {
        let plain = family == Family::InternVideo2;
        let qk_norm = if plain {
            Some((
                RmsNorm::load(w, "attn.q_norm", 1e-6)?,
                RmsNorm::load(w, "attn.k_norm", 1e-6)?,
            ))
        } else {
            None
        };
        Ok(Self {
            norm1: Norm::load(w, "norm1", family)?,
            qkv: Linear::load(w, "attn.qkv", !plain)?,
            qk_norm,
            proj: Linear::load(w, "attn.proj", true)?,
            gamma1: w.get("ls1.gamma")?,
            norm2: Norm::load(w, "norm2", family)?,
            fc1: Linear::load(w, "mlp.fc1", true)?,
            fc2: Linear::load(w, "mlp.fc2", true)?,
            gamma2: w.get("ls2.gamma")?,
            heads,
        })
    }

    /// `x [B, T, D]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let d = x.dim(2)?;
        let qkv = self.qkv.forward(&self.norm1.forward(x)?)?;
        let (mut q, mut k) = (qkv.narrow(2, 0, d)?, qkv.narrow(2, d, d)?);
        let v = qkv.narrow(2, 2 * d, d)?;
        if let Some((qn, kn)) = &self.qk_norm {
            q = qn.forward(&q.contiguous()?)?;
            k = kn.forward(&k.contiguous()?)?;
        }
        let a = self.proj.forward(&attention(&q, &k, &v, self.heads)?)?;
        let x = (x + a.broadcast_mul(&self.gamma1)?)?;
        let h = self.fc1.forward(&self.norm2.forward(&x)?)?.gelu_erf()?;
        let m = self.fc2.forward(&h)?;
        Ok((&x + m.broadcast_mul(&self.gamma2)?)?)
    }
}

/// Multiply-adds of one block over `tokens` tokens: `T·(4d² + 2d·hidden) + 2T²d`.
pub(crate) fn block_mac(tokens: u64, d: u64, hidden: u64) -> u64 {
    tokens * (4 * d * d + 2 * d * hidden) + 2 * tokens * tokens * d
}

/// Patches as rows, then one matrix product: a convolution with stride equal to its kernel. `images [B, 3, S, S]` and
/// `weight [D, 3, p, p]` give `[B, (S/p)², D]`, patches row by row.
pub(crate) fn patch_embed(images: &Tensor, weight: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = images.dims4()?;
    let (d, _, p, _) = weight.dims4()?;
    let (rows, cols) = (h / p, w / p);
    let patches = images
        .reshape(&[b, c, rows, p, cols, p][..])?
        .permute(vec![0, 2, 4, 1, 3, 5])?
        .reshape((b, rows * cols, c * p * p))?;
    Linear::from_parts(weight.reshape((d, c * p * p))?, Some(bias.clone())).forward(&patches)
}
