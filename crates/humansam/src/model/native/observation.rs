//! What is observed at each moment of a window: a description of each part of the body, what the trunk says, and the curves of the
//! priors. Everything that the layers over time are given.

use candle_core::{D, Device, Tensor};

use super::network::{CHANNELS, FRAMES, KINDS, PARTS_SIDE, REGIONS, SIDE};
use super::trunk::{EMBEDDING, Moments};
use crate::error::Result;
use crate::model::backbone::vit::softmax;
use crate::priors::evidence::{CURVES, Evidence, MAPS};

/// Numbers of a part's place: x, y, spread, inverse depth.
pub const PLACE: usize = 4;
/// Numbers that describe a part: its place; R, G, B; change of luma before and after; the maps of the priors; area.
pub const DESCRIPTION: usize = PLACE + 3 + 2 + MAPS + 1;
/// Numbers of a moment: the appearance-motion branch's, logits per kind, largest and mean heat per kind, curves of the priors; the
/// structure branch's.
pub const MOMENT: usize = EMBEDDING + KINDS + 2 * KINDS + CURVES + EMBEDDING;

/// A window, observed.
#[derive(Clone, Debug, PartialEq)]
pub struct Observation {
    /// `[FRAMES, REGIONS, DESCRIPTION]`.
    pub described: Vec<f32>,
    /// `[FRAMES, MOMENT]`.
    pub moments: Vec<f32>,
}

impl Observation {
    /// From what the trunk says about the sixteen moments of a window, given `pixels [FRAMES, SIDE, SIDE, CHANNELS]`.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn new(seen: &Moments, pixels: &Tensor, evidence: &Evidence) -> Result<Self> {
        let heat = &seen.heat;
        let curves = Tensor::from_slice(&evidence.curves, (FRAMES, CURVES), &Device::Cpu)?;
        let moments = Tensor::cat(
            &[
                &seen.motion,
                &seen.kinds,
                &heat.max(1)?,
                &heat.mean(1)?,
                &curves,
                &seen.structure,
            ],
            1,
        )?;
        let numbers = |t: &Tensor| -> Result<Vec<f32>> { Ok(t.flatten_all()?.to_vec1::<f32>()?) };
        Ok(Self {
            described: numbers(&describe(seen, pixels, evidence)?)?,
            moments: numbers(&moments)?,
        })
    }

    /// Windows as tensors `[B, FRAMES, REGIONS, DESCRIPTION]` and `[B, FRAMES, MOMENT]`.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn tensors(windows: &[&Observation]) -> Result<(Tensor, Tensor)> {
        let join = |f: fn(&Observation) -> &Vec<f32>| -> Vec<f32> {
            windows.iter().flat_map(|w| f(w).iter().copied()).collect()
        };
        let b = windows.len();
        Ok((
            Tensor::from_vec(
                join(|w| &w.described),
                (b, FRAMES, REGIONS, DESCRIPTION),
                &Device::Cpu,
            )?,
            Tensor::from_vec(join(|w| &w.moments), (b, FRAMES, MOMENT), &Device::Cpu)?,
        ))
    }
}

/// For each region: the mean, weighted by the region's probability, of position, squared distance from the middle, inverse
/// depth, colour, change and the priors' maps, and its area; `[FRAMES, REGIONS, DESCRIPTION]`.
fn describe(seen: &Moments, pixels: &Tensor, evidence: &Evidence) -> Result<Tensor> {
    let n = FRAMES;
    let places = PARTS_SIDE * PARTS_SIDE;
    let p = softmax(&seen.parts)?;
    let k = SIDE / PARTS_SIDE;
    let small = |x: &Tensor| -> Result<Tensor> {
        let y = x
            .reshape((n, PARTS_SIDE, k, PARTS_SIDE, k, CHANNELS))?
            .mean(4)?
            .mean(2)?;
        Ok(y.reshape((n, places, CHANNELS))?)
    };
    let at = |i: usize| (i as f32 + 0.5) / PARTS_SIDE as f32 * 2.0 - 1.0;
    let positions: Vec<f32> = (0..places)
        .flat_map(|i| {
            let (x, y) = (at(i % PARTS_SIDE), at(i / PARTS_SIDE));
            [x, y, x * x + y * y]
        })
        .collect();
    let positions = Tensor::from_vec(positions, (1, places, 3), &Device::Cpu)?;
    let maps = Tensor::from_slice(&evidence.maps, (n, places, MAPS), &Device::Cpu)?;
    let field = Tensor::cat(
        &[
            &positions.broadcast_as((n, places, 3))?.contiguous()?,
            &seen.inverse_depth.unsqueeze(2)?,
            &small(pixels)?.narrow(2, 0, 3)?.contiguous()?,
            &small(&pixels.abs()?)?.narrow(2, 3, 2)?.contiguous()?,
            &maps,
        ],
        2,
    )?;
    let mass = p.sum(1)?.unsqueeze(2)?;
    let sums = p.transpose(1, 2)?.contiguous()?.matmul(&field)?;
    // A part that is not there is described by zeros rather than by noise.
    let means = sums.broadcast_div(&(&mass + 0.5)?)?;
    let area = (mass * (8.0 / places as f64))?.sqrt()?;
    debug_assert_eq!(area.dims(), [n, REGIONS, 1]);
    Ok(Tensor::cat(&[means, area], D::Minus1)?)
}
