//! The priors of one window, as inputs of the head.

use super::FRAMES;
use super::input::Region;
use crate::clip::Clip;
use crate::error::Result;
use crate::model::rce::PriorScores;
use crate::priors;

/// Numbers of [`WindowPriors::numbers`].
pub const NUMBERS: usize = 9;
/// Side of the frames that priors are measured on, pixels; optical flow is what costs time.
const SIDE: usize = 64;

/// What [`priors::measure`] says about the sixteen frames of a window around the person.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct WindowPriors {
    /// The three scores in label order: appearance, spatial, motion.
    pub scores: PriorScores,
    /// Logarithms of the scores, and of mean and largest value of each curve.
    pub numbers: [f32; NUMBERS],
}

impl WindowPriors {
    /// Measures the frames at `moments`, cut to `region`.
    ///
    /// # Errors
    /// When the clip has no frames.
    pub fn measure(clip: &Clip, moments: &[usize; FRAMES], region: Region) -> Result<Self> {
        let last = clip.frames.len().saturating_sub(1);
        let frames = moments
            .iter()
            .map(|&m| {
                let f = &clip.frames[m.min(last)];
                f.crop(region.x, region.y, region.width, region.height)
                    .resize(SIDE, SIDE)
            })
            .collect();
        let p = priors::measure(&Clip::new(clip.fps, frames)?);
        let log = |v: f32| (v.max(0.0) + 1e-3).ln();
        let mut numbers = [0.0; NUMBERS];
        let curves = [&p.appearance_curve, &p.spatial_curve, &p.motion_curve];
        for (k, (score, curve)) in p.scores().into_iter().zip(curves).enumerate() {
            let mean = curve.iter().sum::<f32>() / curve.len().max(1) as f32;
            let most = curve.iter().copied().fold(0.0, f32::max);
            numbers[3 * k..3 * k + 3].copy_from_slice(&[log(score), log(mean), log(most)]);
        }
        Ok(Self {
            scores: p.scores().map(f64::from),
            numbers,
        })
    }
}
