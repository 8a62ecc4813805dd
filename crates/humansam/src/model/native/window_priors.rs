//! The priors of one window, as inputs of the network and of the head.

use super::FRAMES;
use super::input::Region;
use super::network::PARTS_SIDE;
use crate::clip::Clip;
use crate::error::Result;
use crate::model::rce::PriorScores;
use crate::priors::evidence::{self, Evidence, STATISTICS};

/// Numbers of [`WindowPriors::numbers`].
pub const NUMBERS: usize = 9;
/// Side of the frames that priors are measured on, pixels; optical flow is what costs time.
const SIDE: usize = 64;

/// What the priors say about the sixteen frames of a window around the person.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowPriors {
    /// The three scores in label order: appearance, spatial, motion.
    pub scores: PriorScores,
    /// Logarithms of the scores, and of mean and largest value of each curve.
    pub numbers: [f32; NUMBERS],
    /// [`Evidence::statistics`].
    pub statistics: Vec<f32>,
}

impl WindowPriors {
    /// Measures the frames at `moments`, cut to `region`; the evidence is on the grid of the network's part maps.
    ///
    /// # Errors
    /// When the clip has no frames.
    pub fn measure(
        clip: &Clip,
        moments: &[usize; FRAMES],
        region: Region,
    ) -> Result<(Self, Evidence)> {
        let last = clip.frames.len().saturating_sub(1);
        let frames = moments
            .iter()
            .map(|&m| {
                let f = &clip.frames[m.min(last)];
                f.crop(region.x, region.y, region.width, region.height)
                    .resize(SIDE, SIDE)
            })
            .collect();
        let evidence = evidence::measure(&Clip::new(clip.fps, frames)?, PARTS_SIDE);
        let p = &evidence.priors;
        let log = |v: f32| (v.max(0.0) + 1e-3).ln();
        let mut numbers = [0.0; NUMBERS];
        let curves = [&p.appearance_curve, &p.spatial_curve, &p.motion_curve];
        for (k, (score, curve)) in p.scores().into_iter().zip(curves).enumerate() {
            let mean = curve.iter().sum::<f32>() / curve.len().max(1) as f32;
            let most = curve.iter().copied().fold(0.0, f32::max);
            numbers[3 * k..3 * k + 3].copy_from_slice(&[log(score), log(mean), log(most)]);
        }
        let priors = Self {
            scores: p.scores().map(f64::from),
            numbers,
            statistics: evidence.statistics.clone(),
        };
        debug_assert_eq!(priors.statistics.len(), STATISTICS);
        Ok((priors, evidence))
    }
}
