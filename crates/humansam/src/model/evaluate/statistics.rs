//! Numbers computed from a clip without any weights, known from other detectors: second differences of frame distances (D3,
//! ICCV 2025) and the geometry of the path of frames (ReStraV, NeurIPS 2025).
//!
//! Both papers compute them on the features of a large pretrained network; here each frame is represented by its picture at
//! 16 × 16 pixels, for nothing else is at hand without a download. They serve as baselines, and as inputs of the head.

use crate::model::native::input::Input;
use crate::model::native::network::{CHANNELS, FRAMES, SIDE};

/// Steps that are looked at one by one; the paper's seven.
const STEPS: usize = 7;
/// Length of [`trajectory`].
pub const TRAJECTORY: usize = STEPS + (STEPS - 1) + 8;
/// Length of [`d3`].
pub const D3: usize = 3;
/// Side of a frame's representation.
const SMALL: usize = 16;

/// Frames as vectors.
pub fn thumbnails(input: &Input) -> Vec<Vec<f64>> {
    let k = SIDE / SMALL;
    input
        .pixels
        .chunks_exact(SIDE * SIDE * CHANNELS)
        .map(|frame| {
            let mut out = vec![0.0; SMALL * SMALL * 3];
            for (i, p) in frame.chunks_exact(CHANNELS).enumerate() {
                let at = (i / SIDE / k * SMALL + i % SIDE / k) * 3;
                for c in 0..3 {
                    out[at + c] += f64::from(p[c]) / 255.0 / (k * k) as f64;
                }
            }
            out
        })
        .collect()
}

fn distance(a: &[f64], b: &[f64]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

fn moments(v: &[f64]) -> [f64; 4] {
    if v.is_empty() {
        return [0.0; 4];
    }
    let mean = v.iter().sum::<f64>() / v.len() as f64;
    let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / v.len() as f64;
    let (low, high) = v
        .iter()
        .fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    [mean, variance.sqrt(), low, high]
}

/// Standard deviation of the second differences of frame-to-frame distances, `d_t = |x_t - x_{t-1}|`, `a_t = d_{t+1} - d_t`;
/// also relative to the mean distance, and the largest `|a_t|`.
pub fn d3(frames: &[Vec<f64>]) -> [f64; D3] {
    let d: Vec<f64> = frames.windows(2).map(|w| distance(&w[0], &w[1])).collect();
    let a: Vec<f64> = d.windows(2).map(|w| w[1] - w[0]).collect();
    let (first, second) = (moments(&d), moments(&a));
    [
        second[1],
        second[1] / (first[0] + 1e-4),
        second[2].abs().max(second[3].abs()),
    ]
}

/// Seven step lengths and six angles (radians) between consecutive steps at even spacing, and mean, deviation, least and
/// largest of all step lengths and of all angles: 21 numbers.
pub fn trajectory(frames: &[Vec<f64>]) -> [f64; TRAJECTORY] {
    let steps: Vec<Vec<f64>> = frames
        .windows(2)
        .map(|w| w[1].iter().zip(&w[0]).map(|(a, b)| a - b).collect())
        .collect();
    let zero = |v: &[f64]| vec![0.0; v.len()];
    let lengths: Vec<f64> = steps.iter().map(|s| distance(s, &zero(s))).collect();
    let angles: Vec<f64> = steps
        .windows(2)
        .map(|w| {
            let dot: f64 = w[0].iter().zip(&w[1]).map(|(a, b)| a * b).sum();
            let norm = |v: &[f64]| v.iter().map(|x| x * x).sum::<f64>().sqrt();
            (dot / (norm(&w[0]) * norm(&w[1])).max(1e-9))
                .clamp(-1.0, 1.0)
                .acos()
        })
        .collect();
    let mut out = [0.0; TRAJECTORY];
    let pick = |v: &[f64], i: usize, n: usize| v.get(i * v.len() / n).copied().unwrap_or(0.0);
    for (i, o) in out[..STEPS].iter_mut().enumerate() {
        *o = pick(&lengths, i, STEPS);
    }
    for (i, o) in out[STEPS..2 * STEPS - 1].iter_mut().enumerate() {
        *o = pick(&angles, i, STEPS - 1);
    }
    out[2 * STEPS - 1..2 * STEPS + 3].copy_from_slice(&moments(&lengths));
    out[2 * STEPS + 3..].copy_from_slice(&moments(&angles));
    out
}

/// All statistics of a clip, logarithms of what spans orders of magnitude: [`d3`] and [`trajectory`].
pub fn all(input: &Input) -> Vec<f32> {
    debug_assert_eq!(input.pixels.len(), FRAMES * SIDE * SIDE * CHANNELS);
    let frames = thumbnails(input);
    let mut out: Vec<f32> = d3(&frames).iter().map(|v| (v + 1e-5).ln() as f32).collect();
    let t = trajectory(&frames);
    for (i, v) in t.iter().enumerate() {
        let length = i < STEPS || (2 * STEPS - 1..2 * STEPS + 3).contains(&i);
        out.push(if length {
            (v + 1e-5).ln() as f32
        } else {
            *v as f32
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_motion_has_no_second_difference_and_no_angle() {
        let even: Vec<Vec<f64>> = (0..16).map(|t| vec![0.1 * f64::from(t), 0.3]).collect();
        assert!(d3(&even).iter().all(|v| *v < 1e-9));
        let t = trajectory(&even);
        assert!(t[STEPS..2 * STEPS - 1].iter().all(|a| a.abs() < 1e-6));
        let mut jump = even.clone();
        for f in &mut jump[8..] {
            f[1] += 1.0;
        }
        assert!(d3(&jump)[0] > 0.1 && trajectory(&jump)[2 * STEPS + 6] > 1.0);
        let zigzag: Vec<Vec<f64>> = (0..16).map(|t| vec![f64::from(t % 2), 0.0]).collect();
        assert!((trajectory(&zigzag)[STEPS] - std::f64::consts::PI).abs() < 1e-6);
    }
}
