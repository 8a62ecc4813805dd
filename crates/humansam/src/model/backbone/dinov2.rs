//! DINOv2-style vision transformers (arXiv 2304.07193): the encoder of Depth Anything V2 Small (arXiv 2406.09414) and the two
//! encoders inside Depth Pro (arXiv 2410.02073).

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;

use super::vit::{Block, Family, LayerNorm, block_mac, patch_embed};
use super::{Backbone, IMAGENET_MEAN, IMAGENET_STD, InputSpec};
use crate::error::{HumansamError, Result};
use crate::model::weights::{Layout, Weights, read_tensors};

/// Size of a DINOv2 transformer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dinov2Config {
    /// Name for messages and reports.
    pub name: &'static str,
    /// Width of a token.
    pub width: usize,
    /// Blocks.
    pub depth: usize,
    /// Attention heads.
    pub heads: usize,
    /// Side of the square patches, pixels.
    pub patch: usize,
    /// Side of the images that the position embedding was learned at, pixels.
    pub trained_image: usize,
    /// Side of the images that are given, pixels; a multiple of `patch`.
    pub image: usize,
}

impl Dinov2Config {
    /// The encoder of Depth Anything V2 Small, run at 252² (7.9 GMAC a frame, instead of 46 at 518²).
    pub const DEPTH_ANYTHING_S: Self = Self {
        name: "Depth-Anything-V2-Small encoder",
        width: 384,
        depth: 12,
        heads: 6,
        patch: 14,
        trained_image: 518,
        image: 252,
    };
    /// Each of the two encoders of Depth Pro.
    pub const DEPTH_PRO_L: Self = Self {
        name: "DINOv2-L/16 at 384",
        width: 1024,
        depth: 24,
        heads: 16,
        patch: 16,
        trained_image: 384,
        image: 384,
    };

    /// Patches along a side.
    pub fn grid(&self) -> usize {
        self.image / self.patch
    }

    /// Names and shapes under timm's and DINOv2's own names.
    pub fn layout(&self) -> Layout {
        let d = self.width;
        let mut l = Layout::default();
        l.add("cls_token", &[1, 1, d]);
        l.add(
            "pos_embed",
            &[1, (self.trained_image / self.patch).pow(2) + 1, d],
        );
        l.linear("patch_embed.proj", &[d, 3, self.patch, self.patch]);
        for i in 0..self.depth {
            Block::layout(&mut l, &format!("blocks.{i}."), d, 4 * d, Family::Dinov2);
        }
        l.layer_norm("norm", d);
        l.ignore("mask_token");
        l
    }

    pub(crate) fn mac_of_frame(&self) -> u64 {
        let (n, d) = ((self.grid() * self.grid()) as u64, self.width as u64);
        n * d * 3 * (self.patch * self.patch) as u64
            + self.depth as u64 * block_mac(n + 1, d, 4 * d)
    }
}

/// A loaded encoder. As a [`Backbone`] its feature is the mean of the normalised patch tokens.
#[derive(Clone, Debug)]
pub struct Dinov2 {
    config: Dinov2Config,
    patch_weight: Tensor,
    patch_bias: Tensor,
    cls_token: Tensor,
    pos_embed: Tensor,
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Dinov2 {
    /// Builds the network from its tensors; the position embedding is resampled to the given image's grid.
    ///
    /// # Errors
    /// When a tensor is absent.
    pub fn new(config: Dinov2Config, w: &Weights) -> Result<Self> {
        let trained = config.trained_image / config.patch;
        Ok(Self {
            patch_weight: w.get("patch_embed.proj.weight")?,
            patch_bias: w.get("patch_embed.proj.bias")?,
            cls_token: w.get("cls_token")?,
            pos_embed: resample_positions(&w.get("pos_embed")?, trained, config.grid())?,
            blocks: (0..config.depth)
                .map(|i| {
                    Block::load(
                        &w.under(&format!("blocks.{i}.")),
                        Family::Dinov2,
                        config.heads,
                    )
                })
                .collect::<Result<_>>()?,
            norm: LayerNorm::load(w, "norm", 1e-6)?,
            config,
        })
    }

    /// Normalised patch tokens `[B, grid², width]` of `images [B, 3, S, S]`, without the class token.
    ///
    /// # Errors
    /// When the shape is not this configuration's.
    pub fn patch_tokens(&self, images: &Tensor) -> Result<Tensor> {
        let patches = patch_embed(images, &self.patch_weight, &self.patch_bias)?;
        let (b, n, d) = patches.dims3()?;
        let cls = self.cls_token.broadcast_as((b, 1, d))?;
        let mut x = Tensor::cat(&[&cls, &patches], 1)?.broadcast_add(&self.pos_embed)?;
        for block in &self.blocks {
            x = block.forward(&x)?;
        }
        self.norm.forward(&x.narrow(1, 1, n)?.contiguous()?)
    }

    /// The configuration.
    pub fn config(&self) -> &Dinov2Config {
        &self.config
    }
}

impl Backbone for Dinov2 {
    fn name(&self) -> &str {
        self.config.name
    }

    fn input(&self) -> InputSpec {
        InputSpec {
            frames: 1,
            side: self.config.image,
            mean: IMAGENET_MEAN,
            std: IMAGENET_STD,
        }
    }

    fn width(&self) -> usize {
        self.config.width
    }

    fn mac(&self) -> u64 {
        self.config.mac_of_frame()
    }

    /// `clips [B, T, 3, S, S]` to `[B, width]`: mean over frames and patches.
    fn features(&self, clips: &Tensor) -> Result<Tensor> {
        let (b, t, c, h, w) = clips.dims5()?;
        let tokens = self.patch_tokens(&clips.reshape((b * t, c, h, w))?)?;
        Ok(tokens
            .mean(1)?
            .reshape((b, t, self.config.width))?
            .mean(1)?)
    }
}

/// Reads the encoder of Depth Anything V2 from a whole checkpoint (decoder included), under its original names (`pretrained.`),
/// under those of the `-hf` conversion (`backbone.`), or plain.
///
/// # Errors
/// As for [`Weights::open`]; tensors of the decoder are not read.
pub fn open_depth_anything(path: &Path, config: &Dinov2Config) -> Result<Weights> {
    let all = read_tensors(path)?;
    let mut tensors = HashMap::new();
    if all.keys().any(|n| n.starts_with("backbone.embeddings.")) {
        convert_hf(&all, &mut tensors, config.depth)?;
    } else {
        for (name, t) in all {
            if name.starts_with("depth_head.") {
                continue;
            }
            let short = name
                .strip_prefix("pretrained.")
                .map(str::to_owned)
                .unwrap_or(name);
            tensors.insert(short, t);
        }
    }
    Weights::check(path, tensors, &config.layout())
}

/// Names of the `-hf` conversion to the original ones; `query`, `key` and `value` are joined to `qkv`.
fn convert_hf(
    all: &HashMap<String, Tensor>,
    out: &mut HashMap<String, Tensor>,
    depth: usize,
) -> Result<()> {
    let mut rename = |from: String, to: String| {
        if let Some(t) = all.get(&from) {
            out.insert(to, t.clone());
        }
    };
    rename("backbone.embeddings.cls_token".into(), "cls_token".into());
    rename(
        "backbone.embeddings.position_embeddings".into(),
        "pos_embed".into(),
    );
    for part in ["weight", "bias"] {
        rename(
            format!("backbone.embeddings.patch_embeddings.projection.{part}"),
            format!("patch_embed.proj.{part}"),
        );
        rename(format!("backbone.layernorm.{part}"), format!("norm.{part}"));
    }
    for i in 0..depth {
        let (f, t) = (
            format!("backbone.encoder.layer.{i}."),
            format!("blocks.{i}."),
        );
        for part in ["weight", "bias"] {
            for (from, to) in [
                ("norm1", "norm1"),
                ("norm2", "norm2"),
                ("attention.output.dense", "attn.proj"),
                ("mlp.fc1", "mlp.fc1"),
                ("mlp.fc2", "mlp.fc2"),
            ] {
                rename(format!("{f}{from}.{part}"), format!("{t}{to}.{part}"));
            }
        }
        rename(format!("{f}layer_scale1.lambda1"), format!("{t}ls1.gamma"));
        rename(format!("{f}layer_scale2.lambda1"), format!("{t}ls2.gamma"));
    }
    for i in 0..depth {
        for part in ["weight", "bias"] {
            let pieces: Vec<&Tensor> = ["query", "key", "value"]
                .iter()
                .filter_map(|n| {
                    all.get(&format!(
                        "backbone.encoder.layer.{i}.attention.attention.{n}.{part}"
                    ))
                })
                .collect();
            if pieces.len() == 3 {
                out.insert(
                    format!("blocks.{i}.attn.qkv.{part}"),
                    Tensor::cat(&pieces, 0)?,
                );
            }
        }
    }
    Ok(())
}

/// Resamples the patch part of a position embedding `[1, from² + 1, D]` to `to²` patches: cubic convolution with `a = -0.75`
/// and the scale `(to + 0.1) / from`, as DINOv2 does.
pub(crate) fn resample_positions(pos: &Tensor, from: usize, to: usize) -> Result<Tensor> {
    let (_, n, d) = pos.dims3()?;
    if n != from * from + 1 {
        return Err(HumansamError::Argument(format!(
            "position embedding of {n} tokens, expected {}",
            from * from + 1
        )));
    }
    if from == to {
        return Ok(pos.clone());
    }
    let taps = cubic_taps(from, to);
    let data = pos.narrow(1, 1, n - 1)?.flatten_all()?.to_vec1::<f32>()?;
    let mut out = vec![0f32; to * to * d];
    for (y, row) in taps.iter().enumerate() {
        for (x, col) in taps.iter().enumerate() {
            let o = &mut out[(y * to + x) * d..(y * to + x + 1) * d];
            for &(sy, wy) in row {
                for &(sx, wx) in col {
                    let s = &data[(sy * from + sx) * d..(sy * from + sx + 1) * d];
                    for (o, s) in o.iter_mut().zip(s) {
                        *o += (wy * wx) as f32 * s;
                    }
                }
            }
        }
    }
    let patches = Tensor::from_vec(out, (1, to * to, d), pos.device())?;
    Ok(Tensor::cat(&[pos.narrow(1, 0, 1)?, patches], 1)?)
}

/// For each output position its four input positions and weights.
fn cubic_taps(from: usize, to: usize) -> Vec<[(usize, f64); 4]> {
    const A: f64 = -0.75;
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let scale = from as f64 / (to as f64 + 0.1);
    (0..to)
        .map(|i| {
            let s = (i as f64 + 0.5) * scale - 0.5;
            let (base, t) = (s.floor(), s - s.floor());
            let at = |k: i64| (base as i64 + k).clamp(0, from as i64 - 1) as usize;
            [
                (at(-1), far(t + 1.0)),
                (at(0), near(t)),
                (at(1), near(1.0 - t)),
                (at(2), far(2.0 - t)),
            ]
        })
        .collect()
}
