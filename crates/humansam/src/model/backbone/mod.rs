//! Feature extractors with published weights: InternVideo2 for the video branch, Depth Pro or Depth Anything V2 for the depth
//! branch. All are frozen: HumanSAM trains fusion and head on their features.

mod depth_pro;
mod dinov2;
mod internvideo2;
pub mod preprocess;
pub(crate) mod vit;

use candle_core::Tensor;

use crate::error::Result;

pub use depth_pro::{DepthPro, DepthProConfig, PASSES_AS_RELEASED};
pub use dinov2::{Dinov2, Dinov2Config, open_depth_anything};
pub use internvideo2::{InternVideo2, InternVideo2Config};

/// Mean of ImageNet's channels R, G, B, of values in `[0, 1]`.
pub const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels.
pub const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// What a backbone wants to be given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InputSpec {
    /// Frames of a clip.
    pub frames: usize,
    /// Side of the square frames, pixels.
    pub side: usize,
    /// Subtracted from channels in `[0, 1]`.
    pub mean: [f32; 3],
    /// Then divided by.
    pub std: [f32; 3],
}

/// A frozen network from frames to one feature vector.
pub trait Backbone: Send + Sync {
    /// Name for reports.
    fn name(&self) -> &str;
    /// What it wants to be given.
    fn input(&self) -> InputSpec;
    /// Length of the feature vector.
    fn width(&self) -> usize;
    /// Multiply-adds: of one clip for a video backbone, of one frame for an image backbone.
    fn mac(&self) -> u64;
    /// Features `[B, width]` of `clips [B, T, 3, side, side]`, normalised as [`Backbone::input`] says.
    ///
    /// # Errors
    /// When the shape does not fit.
    fn features(&self, clips: &Tensor) -> Result<Tensor>;
}
