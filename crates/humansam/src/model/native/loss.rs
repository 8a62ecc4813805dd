//! What the native network is taught by.
//!
//! ```text
//! L = RCE(class) + BCE(time line, moments with an anomaly count twice) + 0.5 · BCE(heat map, places with an anomaly count 4 times)
//!     + 0.5 · CE(parts, background counts 0.3) + 0.5 · |inverse depth|
//! ```
//!
//! Clips with nobody in them teach no class.
//!
//! Class, span of time, place, parts and depth all come from the generator.

use candle_core::{Device, Tensor};

use super::input::Input;
use super::network::{FRAMES, HEAT_SIDE, KINDS, Output, PARTS_SIDE};
use crate::class::Class;
use crate::error::Result;
use crate::model::rce;

/// A clip with everything that is known about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What the network sees.
    pub input: Input,
    /// The class.
    pub label: Class,
    /// Whether there is nobody in the picture.
    pub nobody: bool,
    /// Whether the anomaly is on at each moment.
    pub active: [bool; FRAMES],
    /// Share of each heat cell that the anomaly covers, `[FRAMES, HEAT_SIDE²]`, 255 for all.
    pub mask: Vec<u8>,
    /// Background 0 or part 1.., `[FRAMES, PARTS_SIDE²]`.
    pub parts: Vec<u8>,
    /// Inverse depth, 200 at one metre, `[FRAMES, PARTS_SIDE²]`.
    pub inverse_depth: Vec<u8>,
}

/// Loss and its parts, for the log.
#[derive(Debug)]
pub struct Losses {
    /// What gradients are taken of.
    pub total: Tensor,
    /// Class, time line, heat map, parts, depth.
    pub parts: [f64; 5],
}

/// `max(x, 0) - x t + ln(1 + exp(-|x|))`, element by element.
pub(crate) fn binary_cross_entropy(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let log = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((x.relu()? - x.mul(t)?)? + log)?)
}

/// The loss of a batch whose clips have these logits and confidences.
///
/// # Errors
/// When shapes do not fit.
pub fn loss(
    out: &Output,
    logits: &Tensor,
    batch: &[&Sample],
    confidences: &[f64],
) -> Result<Losses> {
    let n = batch.len();
    let device = Device::Cpu;
    let labels: Vec<usize> = batch.iter().map(|s| s.label.label()).collect();
    // A weight ln(c + e) of 0 leaves a clip out.
    let silent = 1.0 - std::f64::consts::E;
    let confidences: Vec<f64> = confidences
        .iter()
        .zip(batch)
        .map(|(c, s)| if s.nobody { silent } else { *c })
        .collect();
    let class = rce::loss(logits, &labels, &confidences)?;

    let mut line = vec![0f32; n * FRAMES * KINDS];
    let cells = HEAT_SIDE * HEAT_SIDE;
    let mut heat = vec![0f32; n * FRAMES * cells * KINDS];
    for (b, s) in batch
        .iter()
        .enumerate()
        .filter(|(_, s)| s.label.is_forged())
    {
        let k = s.label.label();
        for f in 0..FRAMES {
            if !s.active[f] {
                continue;
            }
            line[(b * FRAMES + f) * KINDS + k] = 1.0;
            for c in 0..cells {
                // A cell counts from an eighth of its area on.
                if s.mask[f * cells + c] >= 32 {
                    heat[((b * FRAMES + f) * cells + c) * KINDS + k] = 1.0;
                }
            }
        }
    }
    let line = Tensor::from_vec(line, (n, FRAMES, KINDS), &device)?;
    let timeline = binary_cross_entropy(&out.timeline, &line)?
        .mul(&(&line + 1.0)?)?
        .mean_all()?;
    let heat = Tensor::from_vec(heat, (n * FRAMES, cells, KINDS), &device)?;
    let weight = ((&heat * 3.0)? + 1.0)?;
    let place = (binary_cross_entropy(&out.heat, &heat)?
        .mul(&weight)?
        .mean_all()?
        * 10.0)?;

    let places = PARTS_SIDE * PARTS_SIDE;
    let parts: Vec<u32> = batch
        .iter()
        .flat_map(|s| s.parts.iter().map(|p| u32::from(*p)))
        .collect();
    let weight: Vec<f32> = parts
        .iter()
        .map(|p| if *p == 0 { 0.3 } else { 1.0 })
        .collect();
    let sum: f32 = weight.iter().sum();
    let index = Tensor::from_vec(parts, (n * FRAMES, places, 1), &device)?;
    let weight = Tensor::from_vec(weight, (n * FRAMES, places, 1), &device)?;
    let log = rce::log_softmax(&out.parts)?.gather(&index, 2)?;
    let body = (log.mul(&weight)?.sum_all()?.neg()? / f64::from(sum.max(1.0)))?;

    let near: Vec<f32> = batch
        .iter()
        .flat_map(|s| s.inverse_depth.iter().map(|v| f32::from(*v) / 200.0))
        .collect();
    let near = Tensor::from_vec(near, (n * FRAMES, places), &device)?;
    let difference = (&out.inverse_depth - near)?.abs()?;
    let depth =
        ((difference.mul(&weight.squeeze(2)?)?.sum_all()? / f64::from(sum.max(1.0)))? * 4.0)?;

    let value = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
    let values = [
        value(&class)?,
        value(&timeline)?,
        value(&place)?,
        value(&body)?,
        value(&depth)?,
    ];
    let half = |t: Tensor| t * 0.5;
    let total = ((((class + timeline)? + half(place)?)? + half(body)?)? + half(depth)?)?;
    Ok(Losses {
        total,
        parts: values,
    })
}
