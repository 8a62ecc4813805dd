//! InternVideo2's video transformer (arXiv 2403.15377), sizes S, B, L and 1B, and the features that HumanSAM takes from it
//! (arXiv 2507.19924, section 3).
//!
//! ```text
//! 8 frames 224² ─ patches 14² ─ + joint position ─ blocks ─┬─ class token, mean of patches ─ fixed batch norm ─ interleaved ─┐
//!                                                          └─ attention pooling ─ LayerNorm ────────────────────────────────┴─ 2·d + 768
//! ```
//!
//! With one frame per tubelet the patch embedding is a 2-D convolution of each frame: no 3-D convolution is needed.

use candle_core::{D, Tensor};

use super::vit::{Block, Family, LayerNorm, Linear, attention, block_mac, patch_embed};
use super::{Backbone, IMAGENET_MEAN, IMAGENET_STD, InputSpec};
use crate::error::Result;
use crate::model::weights::{Layout, Weights};

/// Size of an InternVideo2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InternVideo2Config {
    /// Name for messages and reports.
    pub name: &'static str,
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads of a block.
    pub heads: usize,
    /// Width of the hidden layer of a block.
    pub hidden: usize,
    /// Side of the square patches, pixels.
    pub patch: usize,
    /// Side of the square frames, pixels.
    pub image: usize,
    /// Frames.
    pub frames: usize,
    /// Heads of the attention pooling.
    pub pool_heads: usize,
    /// Width after the attention pooling.
    pub pool_width: usize,
}

impl InternVideo2Config {
    const fn new(
        name: &'static str,
        width: usize,
        depth: usize,
        heads: usize,
        hidden: usize,
    ) -> Self {
        Self {
            name,
            width,
            depth,
            heads,
            hidden,
            patch: 14,
            image: 224,
            frames: 8,
            pool_heads: 16,
            pool_width: 768,
        }
    }

    /// 22 M parameters, 82 GMAC a view.
    pub const S: Self = Self::new("InternVideo2-S/14", 384, 12, 6, 4 * 384);
    /// 86 M parameters, 251 GMAC a view.
    pub const B: Self = Self::new("InternVideo2-B/14", 768, 12, 12, 4 * 768);
    /// 304 M parameters, 825 GMAC a view: the one HumanSAM uses.
    pub const L: Self = Self::new("InternVideo2-L/14", 1024, 24, 16, 4 * 1024);
    /// 1 B parameters.
    pub const G: Self = Self::new("InternVideo2-1B/14", 1408, 40, 16, 6144);

    /// Patches of one frame.
    pub fn patches(&self) -> usize {
        (self.image / self.patch).pow(2)
    }

    /// Tokens: one class token and the patches of all frames.
    pub fn tokens(&self) -> usize {
        self.frames * self.patches() + 1
    }

    /// Multiply-adds of one view.
    pub fn mac(&self) -> u64 {
        let (t, d) = (self.tokens() as u64, self.width as u64);
        let patches = (t - 1) * d * 3 * (self.patch * self.patch) as u64;
        let pool = 2 * t * d * d + 2 * t * d + d * (d + self.pool_width as u64);
        patches + self.depth as u64 * block_mac(t, d, self.hidden as u64) + pool
    }

    /// Names and shapes of the tensors. A classification `head` over the pooled feature may be present and is not read.
    pub fn layout(&self) -> Layout {
        let d = self.width;
        let mut l = Layout::default();
        l.add(
            "patch_embed.proj.weight",
            &[d, 3, 1, self.patch, self.patch],
        );
        l.add("patch_embed.proj.bias", &[d]);
        l.add("cls_token", &[1, 1, d]);
        l.add("pos_embed", &[1, self.tokens(), d]);
        for i in 0..self.depth {
            Block::layout(
                &mut l,
                &format!("blocks.{i}."),
                d,
                self.hidden,
                Family::InternVideo2,
            );
        }
        for n in ["norm1_q", "norm1_k", "norm1_v"] {
            l.layer_norm(&format!("clip_projector.{n}"), d);
        }
        for n in ["q", "k", "v"] {
            l.add(format!("clip_projector.cross_attn.{n}.weight"), &[d, d]);
            l.add(format!("clip_projector.cross_attn.{n}_bias"), &[d]);
        }
        l.linear("clip_projector.cross_attn.proj", &[self.pool_width, d]);
        l.layer_norm("fc_norm", self.pool_width);
        l.add("down_norm.running_mean", &[d]);
        l.add("down_norm.running_var", &[d]);
        l.ignore(".num_batches_tracked");
        l
    }
}

/// A loaded video transformer.
#[derive(Clone, Debug)]
pub struct InternVideo2 {
    config: InternVideo2Config,
    patch_weight: Tensor,
    patch_bias: Tensor,
    cls_token: Tensor,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    pool: AttentionPool,
    fc_norm: LayerNorm,
    running_mean: Tensor,
    running_var: Tensor,
}

/// One query, the mean of all tokens, attends to all tokens.
#[derive(Clone, Debug)]
struct AttentionPool {
    norm_q: LayerNorm,
    norm_k: LayerNorm,
    norm_v: LayerNorm,
    q: Linear,
    k: Linear,
    v: Linear,
    proj: Linear,
    heads: usize,
}

impl AttentionPool {
    fn load(w: &Weights, heads: usize) -> Result<Self> {
        let map = |n: &str| -> Result<Linear> {
            Ok(Linear::from_parts(
                w.get(&format!("cross_attn.{n}.weight"))?,
                Some(w.get(&format!("cross_attn.{n}_bias"))?),
            ))
        };
        Ok(Self {
            norm_q: LayerNorm::load(w, "norm1_q", 1e-5)?,
            norm_k: LayerNorm::load(w, "norm1_k", 1e-5)?,
            norm_v: LayerNorm::load(w, "norm1_v", 1e-5)?,
            q: map("q")?,
            k: map("k")?,
            v: map("v")?,
            proj: Linear::load(w, "cross_attn.proj", true)?,
            heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let q = self.q.forward(&self.norm_q.forward(&x.mean_keepdim(1)?)?)?;
        let k = self.k.forward(&self.norm_k.forward(x)?)?;
        let v = self.v.forward(&self.norm_v.forward(x)?)?;
        Ok(self
            .proj
            .forward(&attention(&q, &k, &v, self.heads)?)?
            .squeeze(1)?)
    }
}

impl InternVideo2 {
    /// Builds the network from its tensors.
    ///
    /// # Errors
    /// When a tensor is absent (see [`Weights::open`], which checks all of them).
    pub fn new(config: InternVideo2Config, w: &Weights) -> Result<Self> {
        let d = config.width;
        Ok(Self {
            patch_weight: w.get("patch_embed.proj.weight")?.reshape((
                d,
                3,
                config.patch,
                config.patch,
            ))?,
            patch_bias: w.get("patch_embed.proj.bias")?,
            cls_token: w.get("cls_token")?,
            pos_embed: w.get("pos_embed")?,
            blocks: (0..config.depth)
                .map(|i| {
                    Block::load(
                        &w.under(&format!("blocks.{i}.")),
                        Family::InternVideo2,
                        config.heads,
                    )
                })
                .collect::<Result<_>>()?,
            pool: AttentionPool::load(&w.under("clip_projector."), config.pool_heads)?,
            fc_norm: LayerNorm::load(w, "fc_norm", 1e-5)?,
            running_mean: w.get("down_norm.running_mean")?,
            running_var: w.get("down_norm.running_var")?,
            config,
        })
    }

    /// The last block's tokens, `[B, tokens, width]`, for `clips [B, T, 3, S, S]`.
    ///
    /// # Errors
    /// When the shape is not this configuration's.
    pub fn tokens(&self, clips: &Tensor) -> Result<Tensor> {
        let (b, t, c, h, w) = clips.dims5()?;
        let frames = clips.reshape((b * t, c, h, w))?;
        let patches = patch_embed(&frames, &self.patch_weight, &self.patch_bias)?;
        let patches = patches.reshape((b, t * self.config.patches(), self.config.width))?;
        let cls = self.cls_token.broadcast_as((b, 1, self.config.width))?;
        let mut x = Tensor::cat(&[&cls, &patches], 1)?.broadcast_add(&self.pos_embed)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        Ok(x)
    }

    /// `(x - running mean) / sqrt(running variance + 1e-6)`, a batch norm without gain whose statistics are fixed.
    fn down_norm(&self, x: &Tensor) -> Result<Tensor> {
        let scale = (&self.running_var + 1e-6)?.sqrt()?;
        Ok(x.broadcast_sub(&self.running_mean)?.broadcast_div(&scale)?)
    }
}

impl Backbone for InternVideo2 {
    fn name(&self) -> &str {
        self.config.name
    }

    fn input(&self) -> InputSpec {
        InputSpec {
            frames: self.config.frames,
            side: self.config.image,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        }
    }

    fn width(&self) -> usize {
        2 * self.config.width + self.config.pool_width
    }

    fn mac(&self) -> u64 {
        self.config.mac()
    }

    fn features(&self, clips: &Tensor) -> Result<Tensor> {
        let x = self.tokens(clips)?;
        let n = x.dim(1)?;
        let cls = self.down_norm(&x.narrow(1, 0, 1)?.squeeze(1)?)?;
        let mean = self.down_norm(&x.narrow(1, 1, n - 1)?.mean(1)?)?;
        let both = Tensor::stack(&[cls, mean], D::Minus1)?.flatten(1, 2)?;
        let pooled = self.fc_norm.forward(&self.pool.forward(&x)?)?;
        Ok(Tensor::cat(&[both, pooled], 1)?)
    }
}
