//! The part of Depth Pro's encoder (arXiv 2410.02073) whose output HumanSAM reads.
//!
//! Depth Pro cuts a 1536² image into 25 patches, its half into 9, and its quarter is one patch more; HumanSAM then uses only
//! the lowest-resolution feature map, which depends on the quarter alone:
//!
//! ```text
//! frame ─ 1536² ─ quarter 384² ─┬─ patch encoder ─ 24² ─ 1×1 ─ transposed 2×2 ─ 48² ─┐
//!                               └─ image encoder ─ 24² ─ transposed 2×2 ─ 48² ───────┴─ 1×1 ─ 48² ─ mean ─ 1024
//! ```
//!
//! So two passes through a transformer give the same vector as the thirty-six of the whole encoder: 381 instead of
//! 6,862 GMAC a frame.

use candle_core::Tensor;

use super::dinov2::{Dinov2, Dinov2Config};
use super::vit::Linear;
use super::{Backbone, InputSpec};
use crate::error::Result;
use crate::model::weights::{Layout, Weights};

/// Transformer passes of the whole encoder per frame: 25 + 9 + 1 patches and the image.
pub const PASSES_AS_RELEASED: u64 = 36;

/// Size of the encoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DepthProConfig {
    /// Both transformers.
    pub vit: Dinov2Config,
    /// Channels of the feature map.
    pub width: usize,
}

impl DepthProConfig {
    /// The published size.
    pub const PUBLISHED: Self = Self {
        vit: Dinov2Config::DEPTH_PRO_L,
        width: 1024,
    };

    /// Names and shapes below `encoder.`; tensors of the two finer resolutions may be present and are not read.
    pub fn layout(&self) -> Layout {
        let (d, w) = (self.vit.width, self.width);
        let mut l = Layout::default();
        l.nest("patch_encoder.", &self.vit.layout());
        l.nest("image_encoder.", &self.vit.layout());
        l.add("upsample2.0.weight", &[w, d, 1, 1]);
        l.add("upsample2.1.weight", &[w, w, 2, 2]);
        l.add("upsample_lowres.weight", &[d, w, 2, 2]);
        l.add("upsample_lowres.bias", &[w]);
        l.linear("fuse_lowres", &[w, 2 * w, 1, 1]);
        for unread in [
            "upsample_latent0.",
            "upsample_latent1.",
            "upsample0.",
            "upsample1.",
        ] {
            l.ignore(unread);
        }
        l
    }

    /// Multiply-adds a frame of all 36 passes and the maps this encoder has.
    pub fn mac_as_released(&self) -> u64 {
        PASSES_AS_RELEASED * self.vit.mac_of_frame() + self.mac_of_maps()
    }

    /// Multiply-adds a frame of the part that is run.
    pub fn mac(&self) -> u64 {
        2 * self.vit.mac_of_frame() + self.mac_of_maps()
    }

    fn mac_of_maps(&self) -> u64 {
        let (d, w, n) = (
            self.vit.width as u64,
            self.width as u64,
            (self.vit.grid() * self.vit.grid()) as u64,
        );
        n * d * w + 4 * n * w * w + 4 * n * d * w + 4 * n * 2 * w * w
    }
}

/// The loaded encoder.
#[derive(Clone, Debug)]
pub struct DepthPro {
    config: DepthProConfig,
    patch_encoder: Dinov2,
    image_encoder: Dinov2,
    project: Linear,
    upsample: Tensor,
    upsample_lowres: Tensor,
    upsample_lowres_bias: Tensor,
    fuse: Linear,
}

impl DepthPro {
    /// Builds the encoder from its tensors (names without `encoder.`).
    ///
    /// # Errors
    /// When a tensor is absent.
    pub fn new(config: DepthProConfig, w: &Weights) -> Result<Self> {
        let matrix = |t: Tensor| -> Result<Tensor> { Ok(t.flatten_from(1)?) };
        Ok(Self {
            patch_encoder: Dinov2::new(config.vit.clone(), &w.under("patch_encoder."))?,
            image_encoder: Dinov2::new(config.vit.clone(), &w.under("image_encoder."))?,
            project: Linear::from_parts(matrix(w.get("upsample2.0.weight")?)?, None),
            upsample: w.get("upsample2.1.weight")?,
            upsample_lowres: w.get("upsample_lowres.weight")?,
            upsample_lowres_bias: w.get("upsample_lowres.bias")?,
            fuse: Linear::from_parts(
                matrix(w.get("fuse_lowres.weight")?)?,
                Some(w.get("fuse_lowres.bias")?),
            ),
            config,
        })
    }

    /// The lowest-resolution feature map of `quarter [B, 3, 384, 384]`, as rows: `[B, 4 · grid², width]`, four per token
    /// (the order within does not matter to its mean).
    ///
    /// # Errors
    /// When the shape is not this configuration's.
    pub fn low_resolution(&self, quarter: &Tensor) -> Result<Tensor> {
        let patch = self
            .project
            .forward(&self.patch_encoder.patch_tokens(quarter)?)?;
        let patch = double(&patch, &self.upsample)?;
        let image = double(
            &self.image_encoder.patch_tokens(quarter)?,
            &self.upsample_lowres,
        )?;
        let image = image.broadcast_add(&self.upsample_lowres_bias)?;
        self.fuse.forward(&Tensor::cat(&[patch, image], 2)?)
    }
}

/// A transposed convolution, kernel and stride 2: each token `[B, n, D]` becomes four of `weight [D, W, 2, 2]`: `[B, 4n, W]`.
fn double(tokens: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, n, _) = tokens.dims3()?;
    let (d, w, _, _) = weight.dims4()?;
    let matrix = weight
        .permute((2, 3, 1, 0))?
        .reshape((4 * w, d))?
        .contiguous()?;
    Ok(Linear::from_parts(matrix, None)
        .forward(tokens)?
        .reshape((b, 4 * n, w))?)
}

impl Backbone for DepthPro {
    fn name(&self) -> &str {
        "Depth Pro encoder"
    }

    fn input(&self) -> InputSpec {
        InputSpec {
            frames: 2,
            side: self.config.vit.image,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }

    fn width(&self) -> usize {
        self.config.width
    }

    fn mac(&self) -> u64 {
        self.config.mac()
    }

    /// `clips [B, T, 3, 384, 384]` to `[B, width]`: mean over the map, then over the frames.
    fn features(&self, clips: &Tensor) -> Result<Tensor> {
        let (b, t, c, h, w) = clips.dims5()?;
        let map = self.low_resolution(&clips.reshape((b * t, c, h, w))?)?;
        Ok(map.mean(1)?.reshape((b, t, self.config.width))?.mean(1)?)
    }
}
