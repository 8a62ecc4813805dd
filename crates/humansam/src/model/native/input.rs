//! From a clip to what the network is given: sixteen moments, the part of the picture where the person is, and around each
//! moment the frames before and after.

use std::collections::BTreeMap;

use candle_core::{Device, Tensor};

use super::network::{CHANNELS, FRAMES, SIDE};
use crate::clip::{Clip, Frame};
use crate::error::Result;
use crate::video::thinning;

/// A rectangle of pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Region {
    /// Left edge.
    pub x: usize,
    /// Upper edge.
    pub y: usize,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

impl Region {
    /// The whole picture.
    pub fn whole(clip: &Clip) -> Self {
        Region {
            x: 0,
            y: 0,
            width: clip.width,
            height: clip.height,
        }
    }

    /// A square around a box given in shares of the picture (`[left, top, right, bottom]`), larger by `margin` on each side,
    /// moved into the picture and cut where the picture is smaller.
    pub fn around(bounds: [f64; 4], margin: f64, width: usize, height: usize) -> Self {
        let (w, h) = (width as f64, height as f64);
        let [l, t, r, b] = [bounds[0] * w, bounds[1] * h, bounds[2] * w, bounds[3] * h];
        let side = ((r - l).max(b - t) * (1.0 + 2.0 * margin)).max(24.0);
        let place = |middle: f64, size: f64| {
            let side = side.min(size);
            let start = (middle - side / 2.0).clamp(0.0, size - side);
            (start.round() as usize, side.round().max(1.0) as usize)
        };
        let (x, cols) = place((l + r) / 2.0, w);
        let (y, rows) = place((t + b) / 2.0, h);
        Region {
            x: x.min(width - 1),
            y: y.min(height - 1),
            width: cols.min(width - x),
            height: rows.min(height - y),
        }
    }
}

/// The sixteen moments of frames `from..to`: the middle of each sixteenth.
pub fn moments(from: usize, to: usize) -> [usize; FRAMES] {
    let length = to.saturating_sub(from).max(1) as f64;
    std::array::from_fn(|i| from + ((i as f64 + 0.5) * length / FRAMES as f64) as usize)
}

/// Moments a second that the network is made for; faster videos are thinned out by a whole number.
pub const RATE: f64 = 13.5;

/// Frames from a moment to the next, and to the neighbours that the network sees: about a thirteenth of a second, 10 to 20 moments
/// a second at the usual rates.
pub fn neighbour(fps: f64) -> usize {
    thinning(fps, RATE)
}

/// What the network is given, in bytes: `[moments, SIDE, SIDE, CHANNELS]`; a window has `FRAMES` moments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Input {
    /// The bytes.
    pub pixels: Vec<u8>,
}

impl Input {
    /// Cuts `region` out of the frames at `moments` and their neighbours.
    pub fn new(clip: &Clip, moments: &[usize; FRAMES], region: Region) -> Self {
        let last = clip.frames.len().saturating_sub(1);
        let step = neighbour(clip.fps);
        let triples = moments.map(|m| [m, m.saturating_sub(step), m + step].map(|i| i.min(last)));
        // Neighbours of one moment are often moments themselves.
        let mut small = BTreeMap::new();
        for &i in triples.iter().flatten() {
            small
                .entry(i)
                .or_insert_with(|| cut(&clip.frames[i], region));
        }
        let triples = triples.map(|[m, b, a]| (&small[&m], &small[&b], &small[&a]));
        Self::from_cut(&triples)
    }

    /// From frames already cut and scaled: `(moment, before, after)`.
    pub fn from_cut(frames: &[(&Frame, &Frame, &Frame)]) -> Self {
        let mut pixels = Vec::with_capacity(frames.len() * SIDE * SIDE * CHANNELS);
        for (now, before, after) in frames {
            push(&mut pixels, now, before, after);
        }
        Self { pixels }
    }
}

/// A region at the network's size.
pub fn cut(frame: &Frame, r: Region) -> Frame {
    frame.crop(r.x, r.y, r.width, r.height).resize(SIDE, SIDE)
}

fn push(out: &mut Vec<u8>, now: &Frame, before: &Frame, after: &Frame) {
    let luma = |p: &[u8]| {
        ((299 * u32::from(p[0]) + 587 * u32::from(p[1]) + 114 * u32::from(p[2]) + 500) / 1000) as u8
    };
    let pixels = |f: &Frame| f.rgb().chunks_exact(3).map(luma).collect::<Vec<u8>>();
    let (b, a) = (pixels(before), pixels(after));
    for (i, p) in now.rgb().chunks_exact(3).enumerate() {
        out.extend_from_slice(&[p[0], p[1], p[2], b[i], a[i]]);
    }
}

/// A batch as a tensor `[B · moments, SIDE, SIDE, CHANNELS]`: colours `4 (v - 0.45)`, changes of luma times 4, of values in
/// `[0, 1]`.
///
/// # Errors
/// When tensors cannot be made.
pub fn tensor(batch: &[&Input]) -> Result<Tensor> {
    const SCALE: f32 = 4.0 / 255.0;
    let mut data = Vec::with_capacity(batch.iter().map(|i| i.pixels.len()).sum());
    for p in batch.iter().flat_map(|i| i.pixels.chunks_exact(CHANNELS)) {
        let v: [f32; CHANNELS] = std::array::from_fn(|c| f32::from(p[c]));
        let luma = 0.299 * v[0] + 0.587 * v[1] + 0.114 * v[2];
        data.extend_from_slice(&[
            v[0] * SCALE - 1.8,
            v[1] * SCALE - 1.8,
            v[2] * SCALE - 1.8,
            (v[3] - luma) * SCALE,
            (v[4] - luma) * SCALE,
        ]);
    }
    Ok(Tensor::from_vec(
        data,
        ((), SIDE, SIDE, CHANNELS),
        &Device::Cpu,
    )?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn regions_stay_inside(l in 0.0f64..1.0, t in 0.0f64..1.0, dw in 0.0f64..1.0, dh in 0.0f64..1.0, w in 1usize..400, h in 1usize..400) {
            let r = Region::around([l, t, (l + dw).min(1.0), (t + dh).min(1.0)], 0.1, w, h);
            prop_assert!(r.width >= 1 && r.height >= 1 && r.x + r.width <= w && r.y + r.height <= h, "{:?}", r);
        }
    }

    #[test]
    fn moments_are_spread_and_pixels_interleaved() {
        assert_eq!(moments(0, 32)[..3], [1, 3, 5]);
        assert_eq!(moments(4, 5), [4; FRAMES]);
        assert_eq!(
            (neighbour(8.0), neighbour(25.0), neighbour(60.0)),
            (1, 2, 4)
        );
        let frames = (0..20)
            .map(|t| Frame::new(10, 8, [t as u8, 2 * t as u8, 100].repeat(80)).unwrap())
            .collect();
        let clip = Clip::new(15.0, frames).unwrap();
        let input = Input::new(&clip, &moments(0, 20), Region::whole(&clip));
        assert_eq!(input.pixels.len(), FRAMES * SIDE * SIDE * CHANNELS);
        // The sixth moment is frame 6; its neighbours are 5 and 7.
        let luma = |t: u32| ((299 * t + 587 * 2 * t + 11400 + 500) / 1000) as u8;
        let at = 5 * SIDE * SIDE * CHANNELS;
        assert_eq!(input.pixels[at..at + 5], [6, 12, 100, luma(5), luma(7)]);
        assert_eq!(
            tensor(&[&input]).unwrap().dims(),
            [FRAMES, SIDE, SIDE, CHANNELS]
        );
    }
}
