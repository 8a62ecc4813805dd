//! Which pixels belong to the subject, without a trained model: colours that the middle has and the border has not, and what moves.
//!
//! With `H_m` and `H_b` the colour histograms (8³ bins) of the middle (an upright ellipse of half the picture's width) and of the border (the outer
//! eighth on the left, on the right and above), all frames together, `p(x) = H_m(c) / (H_m(c) + H_b(c))` for the pixel's colour `c`, blurred
//! over 5×5 pixels, times a wide bump around the middle.

use crate::clip::{Frame, Plane};
use crate::flow::box_sum;

const BINS: usize = 8;

fn bin(p: &[u8]) -> usize {
    let b = |v: u8| usize::from(v) * BINS / 256;
    (b(p[0]) * BINS + b(p[1])) * BINS + b(p[2])
}

/// Likelihood in `[0, 1]` of each pixel of each frame. Frames must have one size.
pub fn likelihood(frames: &[Frame]) -> Vec<Plane> {
    let Some(first) = frames.first() else {
        return Vec::new();
    };
    let (w, h) = (first.width(), first.height());
    let (mut middle, mut border) = (
        vec![1e-3f32; BINS * BINS * BINS],
        vec![1e-3f32; BINS * BINS * BINS],
    );
    let edge = (w / 8).max(1);
    let top = (h / 8).max(1);
    for frame in frames {
        for y in 0..h {
            for x in 0..w {
                let i = 3 * (y * w + x);
                let c = bin(&frame.rgb()[i..i + 3]);
                let (dx, dy) = (
                    (x as f32 + 0.5) / w as f32 - 0.5,
                    (y as f32 + 0.5) / h as f32 - 0.5,
                );
                if (dx / 0.25).powi(2) + (dy / 0.46).powi(2) < 1.0 {
                    middle[c] += 1.0;
                }
                if x < edge || x + edge >= w || y < top {
                    border[c] += 1.0;
                }
            }
        }
    }
    let (sm, sb) = (middle.iter().sum::<f32>(), border.iter().sum::<f32>());
    let ratio: Vec<f32> = middle
        .iter()
        .zip(&border)
        .map(|(m, b)| (m / sm) / (m / sm + b / sb))
        .collect();
    frames
        .iter()
        .map(|frame| {
            let mut data: Vec<f32> = frame.rgb().chunks_exact(3).map(|p| ratio[bin(p)]).collect();
            let mut count = vec![1f32; w * h];
            box_sum(&mut data, w, h, 2);
            box_sum(&mut count, w, h, 2);
            for y in 0..h {
                for x in 0..w {
                    let i = y * w + x;
                    let dx = (x as f32 + 0.5) / w as f32 - 0.5;
                    let bump = 1.0 / (1.0 + (dx.abs() / 0.38).powi(6));
                    data[i] = (data[i] / count[i] * bump).clamp(0.0, 1.0);
                }
            }
            Plane {
                width: w,
                height: h,
                data,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{self, Framing, Setting, Spec, part};

    #[test]
    fn the_person_is_likelier_than_the_wall() {
        let (mut inside, mut outside) = (0.0, 0.0);
        for seed in 0..6 {
            let spec = Spec {
                setting: Some(Setting::Studio),
                framing: Some(Framing::Full),
                width: 64,
                height: 64,
                frames: 3,
                fps: Some(8.0),
                maps: true,
                ..Spec::new(seed)
            };
            let r = generator::sample(&spec).unwrap();
            let p = likelihood(&r.clip.frames);
            for (t, plane) in p.iter().enumerate() {
                let person: Vec<bool> = r.parts[t].iter().map(|&p| part::is_person(p)).collect();
                let mean = |want: bool| {
                    let v: Vec<f32> = plane
                        .data
                        .iter()
                        .zip(&person)
                        .filter(|(_, p)| **p == want)
                        .map(|(v, _)| *v)
                        .collect();
                    super::super::mean(&v)
                };
                inside += mean(true);
                outside += mean(false);
            }
        }
        assert!(inside > 1.6 * outside, "{inside} against {outside}");
    }
}
