//! Frames to tensors: one definition for training, validation and test.
//!
//! The video branch sees views (4 spans of time × 3 crops along the longer side, short side scaled to the input's side); the
//! depth branch sees two *whole* frames squashed to a square, the same two for every view, whatever the crop.

use candle_core::{Device, Tensor};

use super::InputSpec;
use crate::clip::{Clip, Frame};
use crate::error::{HumansamError, Result};

/// Spans of time of the test-time views.
pub const SPANS: usize = 4;
/// Crops of the test-time views.
pub const CROPS: usize = 3;
/// Positions, within the video branch's eight frames, of the two frames that the depth branch sees.
pub const DEPTH_POSITIONS: [usize; 2] = [0, 3];

/// Indices of `count` frames, the middle of each of `count` equal segments, of span `span` of `spans` equal spans of `total`.
pub fn sample(total: usize, count: usize, span: usize, spans: usize) -> Vec<usize> {
    let (start, length) = (
        total as f64 * span as f64 / spans as f64,
        total as f64 / spans as f64,
    );
    (0..count)
        .map(|i| {
            let at = start + (i as f64 + 0.5) * length / count as f64;
            (at.floor() as usize).min(total.saturating_sub(1))
        })
        .collect()
}

/// View `span`, `crop` of a clip for the video branch: `[1, T, 3, S, S]`.
///
/// # Errors
/// When the clip has no frames.
pub fn view(clip: &Clip, spec: &InputSpec, span: usize, crop: usize) -> Result<Tensor> {
    let first = first(clip)?;
    let (w, h) = (first.width(), first.height());
    let side = w.min(h);
    let (x, y) = (
        (w - side) * crop / (CROPS - 1),
        (h - side) * crop / (CROPS - 1),
    );
    let frames: Vec<Frame> = sample(clip.frames.len(), spec.frames, span, SPANS)
        .iter()
        .map(|&i| clip.frames[i].crop(x, y, side, side))
        .collect();
    stack(&frames, spec)
}

/// The depth branch's input: two whole frames, `[1, 2, 3, S, S]`, positions [`DEPTH_POSITIONS`] of eight over the whole clip.
///
/// # Errors
/// When the clip has no frames.
pub fn depth_frames(clip: &Clip, spec: &InputSpec) -> Result<Tensor> {
    first(clip)?;
    let indices = sample(clip.frames.len(), 8, 0, 1);
    let frames: Vec<Frame> = DEPTH_POSITIONS
        .iter()
        .map(|&p| clip.frames[indices[p]].clone())
        .collect();
    stack(&frames, spec)
}

fn first(clip: &Clip) -> Result<&Frame> {
    clip.frames
        .first()
        .ok_or_else(|| HumansamError::Argument("a clip without frames has no views".to_owned()))
}

fn stack(frames: &[Frame], spec: &InputSpec) -> Result<Tensor> {
    let s = spec.side;
    let mut data = Vec::with_capacity(frames.len() * 3 * s * s);
    for frame in frames {
        let small = frame.resize(s, s);
        for c in 0..3 {
            data.extend(
                small
                    .rgb()
                    .iter()
                    .skip(c)
                    .step_by(3)
                    .map(|v| (f32::from(*v) / 255.0 - spec.mean[c]) / spec.std[c]),
            );
        }
    }
    Ok(Tensor::from_vec(
        data,
        (1, frames.len(), 3, s, s),
        &Device::Cpu,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(width: usize, height: usize, frames: usize) -> Clip {
        let frames = (0..frames)
            .map(|t| {
                let mut f = Frame::black(width, height);
                for (i, v) in f.rgb_mut().iter_mut().enumerate() {
                    *v = ((i * 7 + t * 31) % 251) as u8;
                }
                f
            })
            .collect();
        Clip::new(25.0, frames).unwrap()
    }

    #[test]
    fn sampling_takes_the_middle_of_each_segment() {
        assert_eq!(sample(80, 8, 0, 1), [5, 15, 25, 35, 45, 55, 65, 75]);
        assert_eq!(sample(1, 3, 2, 4), [0, 0, 0]);
        assert_eq!(sample(16, 2, 3, 4), [13, 15]);
    }

    /// Defect 4 of the public code: whole frames at training, the enlarged crop at test.
    #[test]
    fn the_depth_branch_sees_whole_frames_whatever_the_crop() {
        let spec = InputSpec {
            frames: 2,
            side: 12,
            mean: [0.5; 3],
            std: [0.5; 3],
        };
        let mut a = clip(40, 24, 8);
        let whole = depth_frames(&a, &spec).unwrap();
        let left = view(&a, &InputSpec { frames: 8, ..spec }, 0, 0).unwrap();
        // Change what lies outside of the left crop: the crop's view stays, the depth branch's input changes.
        for f in &mut a.frames {
            let w = f.width();
            for (i, v) in f.rgb_mut().iter_mut().enumerate() {
                if (i / 3) % w >= 30 {
                    *v = 255 - *v;
                }
            }
        }
        let difference = |a: &Tensor, b: &Tensor| {
            (a - b)
                .unwrap()
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        assert_eq!(
            difference(
                &left,
                &view(&a, &InputSpec { frames: 8, ..spec }, 0, 0).unwrap()
            ),
            0.0
        );
        assert!(difference(&whole, &depth_frames(&a, &spec).unwrap()) > 0.1);
        assert_eq!(whole.dims(), [1, 2, 3, 12, 12]);
    }
}
