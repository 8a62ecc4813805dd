//! A video branch, a depth branch, fusion and head: HumanSAM at its published size from its own checkpoint, or any pair of
//! backbones.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Tensor};

use super::backbone::preprocess::{self, CROPS, SPANS};
use super::backbone::vit::softmax;
use super::backbone::{
    Backbone, DepthPro, DepthProConfig, Dinov2, Dinov2Config, InternVideo2, InternVideo2Config,
};
use super::fusion::{Fusion, FusionConfig};
use super::weights::{Layout, Weights, read_tensors};
use crate::clip::Clip;
use crate::error::{HumansamError, Result};

/// Names a video within a batch.
pub type VideoId = u64;

/// Joins each clip of a batch with the depth feature of *its own* video. `depth` holds one feature `[1, width]` per video;
/// several clips of a batch may come from one video, in any order.
///
/// # Errors
/// When a video has no depth feature.
pub fn pair_depth(videos: &[VideoId], depth: &BTreeMap<VideoId, Tensor>) -> Result<Tensor> {
    let rows = videos
        .iter()
        .map(|v| {
            depth.get(v).ok_or_else(|| {
                HumansamError::Argument(format!("video {v} of the batch has no depth feature"))
            })
        })
        .collect::<Result<Vec<_>>>()?;
    Ok(Tensor::cat(&rows, 0)?)
}

/// Sizes of a HumanSAM checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HumanSamConfig {
    /// Under `model1.`
    pub video: InternVideo2Config,
    /// Under `model2.encoder.`
    pub depth: DepthProConfig,
    /// Rows of `head`.
    pub classes: usize,
}

impl HumanSamConfig {
    /// The published sizes with 2 or 4 classes.
    pub fn published(classes: usize) -> Self {
        Self {
            video: InternVideo2Config::L,
            depth: DepthProConfig::PUBLISHED,
            classes,
        }
    }

    /// Fusion and head.
    pub fn fusion(&self) -> FusionConfig {
        FusionConfig::paper(
            2 * self.video.width + self.video.pool_width,
            self.depth.width,
            self.classes,
        )
    }

    /// All tensors of a checkpoint.
    pub fn layout(&self) -> Layout {
        let mut l = self.fusion().layout();
        l.nest("model1.", &self.video.layout());
        l.nest("model2.encoder.", &self.depth.layout());
        l
    }
}

/// The whole classifier.
pub struct TwoBranch {
    /// Clips to features.
    pub video: Box<dyn Backbone>,
    /// Single frames to features.
    pub depth: Box<dyn Backbone>,
    /// Features to logits.
    pub fusion: Fusion,
}

impl std::fmt::Debug for TwoBranch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "TwoBranch({}, {}, {:?})",
            self.video.name(),
            self.depth.name(),
            self.fusion.config()
        )
    }
}

impl TwoBranch {
    /// Reads a HumanSAM checkpoint (`model1.`, `model2.encoder.`, `alpha`, `fc1`, `head`).
    ///
    /// # Errors
    /// [`HumansamError::Weights`] lists every missing, unexpected and mis-shaped tensor, a head of another number of classes
    /// among them.
    pub fn open_humansam(path: &Path, config: &HumanSamConfig) -> Result<Self> {
        let mut tensors = read_tensors(path)?;
        if let Some(alpha) = tensors.get_mut("alpha").filter(|a| a.elem_count() == 1) {
            *alpha = alpha.reshape(1)?;
        }
        Self::humansam(
            config,
            path,
            &Weights::check(path, tensors, &config.layout())?,
        )
    }

    /// HumanSAM with made-up weights, for tests and measurements of speed.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn synthetic_humansam(config: &HumanSamConfig, seed: u64) -> Result<Self> {
        Self::humansam(
            config,
            Path::new("synthetic weights"),
            &Weights::synthetic(&config.layout(), seed)?,
        )
    }

    fn humansam(config: &HumanSamConfig, path: &Path, w: &Weights) -> Result<Self> {
        let own = w.tensors().iter().filter(|(n, _)| !n.starts_with("model"));
        let own = own.map(|(n, t)| (n.clone(), t.clone())).collect();
        Ok(Self {
            video: Box::new(InternVideo2::new(
                config.video.clone(),
                &w.under("model1."),
            )?),
            depth: Box::new(DepthPro::new(
                config.depth.clone(),
                &w.under("model2.encoder."),
            )?),
            fusion: Fusion::new(config.fusion(), path, own)?,
        })
    }

    /// InternVideo2-S and the encoder of Depth Anything V2 Small with made-up weights.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn synthetic_small(classes: usize, seed: u64) -> Result<Self> {
        let (video, depth) = (InternVideo2Config::S, Dinov2Config::DEPTH_ANYTHING_S);
        let video = InternVideo2::new(video.clone(), &Weights::synthetic(&video.layout(), seed)?)?;
        let depth = Dinov2::new(
            depth.clone(),
            &Weights::synthetic(&depth.layout(), seed + 1)?,
        )?;
        let config = FusionConfig::gated(video.width(), depth.width(), depth.width(), classes);
        let fusion = Weights::synthetic(&config.layout(), seed + 2)?;
        Ok(Self {
            fusion: Fusion::new(
                config,
                Path::new("synthetic weights"),
                fusion.tensors().clone(),
            )?,
            video: Box::new(video),
            depth: Box::new(depth),
        })
    }

    /// Logits `[B, classes]` of `clips [B, T, 3, S, S]`, each paired with the depth feature of its video.
    ///
    /// # Errors
    /// As for [`pair_depth`], and when shapes do not fit.
    pub fn logits(
        &self,
        videos: &[VideoId],
        clips: &Tensor,
        depth: &BTreeMap<VideoId, Tensor>,
    ) -> Result<Tensor> {
        self.fusion
            .forward(&self.video.features(clips)?, &pair_depth(videos, depth)?)
    }

    /// Class probabilities of a clip: soft-max averaged over `spans × crops` views (the paper: 4 × 3); the depth branch runs
    /// once, for its input is the same in all views.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn classify(&self, clip: &Clip, spans: usize, crops: usize) -> Result<Vec<f64>> {
        let depth = self
            .depth
            .features(&preprocess::depth_frames(clip, &self.depth.input())?)?;
        let depth = BTreeMap::from([(0, depth)]);
        let (spans, crops) = (spans.clamp(1, SPANS), crops.clamp(1, CROPS));
        let mut sum = vec![0.0; self.fusion.config().classes];
        for span in 0..spans {
            for crop in 0..crops {
                // A single crop is the middle one.
                let crop = if crops == 1 { CROPS / 2 } else { crop };
                let view = preprocess::view(clip, &self.video.input(), span, crop)?;
                let p = softmax(&self.logits(&[0], &view, &depth)?)?
                    .squeeze(0)?
                    .to_vec1::<f32>()?;
                for (s, p) in sum.iter_mut().zip(p) {
                    *s += f64::from(p) / (spans * crops) as f64;
                }
            }
        }
        Ok(sum)
    }

    /// Multiply-adds for a clip of `views` views and two depth frames.
    pub fn mac(&self, views: u64) -> u64 {
        views * self.video.mac() + 2 * self.depth.mac()
    }
}

/// Reads a plain InternVideo2 checkpoint, such as the published ones fine-tuned on Kinetics: its classification `head` is not
/// read, and without HumanSAM's `down_norm` statistics the features pass that norm unchanged.
///
/// # Errors
/// As for [`Weights::open`].
pub fn open_internvideo2(path: &Path, config: &InternVideo2Config) -> Result<InternVideo2> {
    let mut tensors: HashMap<String, Tensor> = read_tensors(path)?;
    if !tensors.keys().any(|n| n.starts_with("down_norm.")) {
        let device = candle_core::Device::Cpu;
        tensors.insert(
            "down_norm.running_mean".to_owned(),
            Tensor::zeros(config.width, DType::F32, &device)?,
        );
        tensors.insert(
            "down_norm.running_var".to_owned(),
            Tensor::ones(config.width, DType::F32, &device)?,
        );
    }
    let mut layout = config.layout();
    layout.ignore("head.");
    InternVideo2::new(config.clone(), &Weights::check(path, tensors, &layout)?)
}
