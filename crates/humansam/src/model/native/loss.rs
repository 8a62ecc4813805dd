//! What the native network is taught by: class, span of time, place, parts and depth all come from the generator.
//!
//! ```text
//! trunk       BCE(kinds at a moment) + 0.5 · BCE(heat map, places with an anomaly count 4 times)
//!             + CE(parts, background counts 0.3) + 0.5 · |inverse depth|
//! over time   RCE(class) + 0.5 · BCE(time line, moments with an anomaly count twice)
//! ```

use candle_core::{Device, Tensor};

use super::input::Input;
use super::network::{FRAMES, HEAT_SIDE, KINDS, PARTS_SIDE};
use super::trunk::Moments;
use crate::class::Class;
use crate::error::Result;
use crate::model::rce;

/// Share of the picture (the sum of the mask over the cells of the heat map, 255 a cell) from which on a moment shows its anomaly.
const SHOWS: u32 = 64;

/// Moments of a clip with everything that is known about them.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What the network sees.
    pub input: Input,
    /// The class.
    pub label: Class,
    /// Whether there is nobody in the picture.
    pub nobody: bool,
    /// Whether the anomaly is on at each moment.
    pub active: Vec<bool>,
    /// Share of each heat cell that the anomaly covers, `[moments, HEAT_SIDE²]`, 255 for all.
    pub mask: Vec<u8>,
    /// Background 0 or part 1.., `[moments, PARTS_SIDE²]`.
    pub parts: Vec<u8>,
    /// Inverse depth, 200 at one metre, `[moments, PARTS_SIDE²]`.
    pub inverse_depth: Vec<u8>,
}

/// Loss and its parts, for the log.
#[derive(Debug)]
pub struct Losses {
    /// What gradients are taken of.
    pub total: Tensor,
    /// Kinds, heat map, parts, depth.
    pub parts: [f64; 4],
}

/// `max(x, 0) - x t + ln(1 + exp(-|x|))`, element by element.
pub(crate) fn binary_cross_entropy(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let log = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((x.relu()? - x.mul(t)?)? + log)?)
}

/// The time line's targets of a window, `[FRAMES, KINDS]`.
pub fn line(label: Class, active: &[bool; FRAMES]) -> Vec<f32> {
    let mut out = vec![0f32; FRAMES * KINDS];
    if label.is_forged() {
        for (f, _) in active.iter().enumerate().filter(|(_, a)| **a) {
            out[f * KINDS + label.label()] = 1.0;
        }
    }
    out
}

/// The trunk's loss on the moments of one clip.
///
/// # Errors
/// When shapes do not fit.
pub fn of_moments(out: &Moments, s: &Sample) -> Result<Losses> {
    let n = s.active.len();
    let device = Device::Cpu;
    let cells = HEAT_SIDE * HEAT_SIDE;
    let mut kinds = vec![0f32; n * KINDS];
    let mut heat = vec![0f32; n * cells * KINDS];
    if s.label.is_forged() {
        let k = s.label.label();
        for f in (0..n).filter(|&f| s.active[f]) {
            let mask = &s.mask[f * cells..(f + 1) * cells];
            if mask.iter().map(|m| u32::from(*m)).sum::<u32>() >= SHOWS {
                kinds[f * KINDS + k] = 1.0;
            }
            for (c, _) in mask.iter().enumerate().filter(|(_, m)| **m >= 32) {
                // A cell counts from an eighth of its area on.
                heat[(f * cells + c) * KINDS + k] = 1.0;
            }
        }
    }
    let kinds = Tensor::from_vec(kinds, (n, KINDS), &device)?;
    let kinds =
        (binary_cross_entropy(&out.kinds, &kinds)?.mean_all()? * f64::from(u8::from(!s.nobody)))?;
    let heat = Tensor::from_vec(heat, (n, cells, KINDS), &device)?;
    let weight = ((&heat * 3.0)? + 1.0)?;
    let place = (binary_cross_entropy(&out.heat, &heat)?
        .mul(&weight)?
        .mean_all()?
        * 10.0)?;

    let places = PARTS_SIDE * PARTS_SIDE;
    let parts: Vec<u32> = s.parts.iter().map(|p| u32::from(*p)).collect();
    let weight: Vec<f32> = parts
        .iter()
        .map(|p| if *p == 0 { 0.3 } else { 1.0 })
        .collect();
    let sum: f32 = weight.iter().sum();
    let index = Tensor::from_vec(parts, (n, places, 1), &device)?;
    let weight = Tensor::from_vec(weight, (n, places, 1), &device)?;
    let log = rce::log_softmax(&out.parts)?.gather(&index, 2)?;
    let body = (log.mul(&weight)?.sum_all()?.neg()? / f64::from(sum.max(1.0)))?;

    let near: Vec<f32> = s
        .inverse_depth
        .iter()
        .map(|v| f32::from(*v) / 200.0)
        .collect();
    let near = Tensor::from_vec(near, (n, places), &device)?;
    let difference = (&out.inverse_depth - near)?.abs()?;
    let depth =
        ((difference.mul(&weight.squeeze(2)?)?.sum_all()? / f64::from(sum.max(1.0)))? * 4.0)?;

    let value = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
    let values = [
        value(&kinds)?,
        value(&place)?,
        value(&body)?,
        value(&depth)?,
    ];
    let half = |t: Tensor| t * 0.5;
    Ok(Losses {
        total: (((kinds + half(place)?)? + body)? + half(depth)?)?,
        parts: values,
    })
}
