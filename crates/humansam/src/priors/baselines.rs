//! Features of simple detectors, to compare with: what a file's metadata gives away, D3, and the geometry of a clip's trajectory.

use super::mean;
use crate::clip::{Clip, Frame};
use crate::video::Info;

/// Frame rate, size, shape, length, bytes a pixel: what a detector sees that does not look. At chance, when nothing leaks.
pub fn metadata_features(info: &Info) -> Vec<f32> {
    let pixels = (info.width * info.height).max(1) as f64;
    let frames = info
        .frames
        .map_or_else(|| info.seconds.unwrap_or(0.0) * info.fps, |n| n as f64)
        .max(1.0);
    vec![
        info.fps as f32,
        info.width as f32 / 1000.0,
        info.height as f32 / 1000.0,
        info.width as f32 / info.height.max(1) as f32,
        info.seconds.unwrap_or(0.0) as f32,
        (info.bytes as f64 / (pixels * frames)) as f32,
    ]
}

/// A fixed description of a frame: 12×12 mean colours and, in 6×6 cells, histograms of 8 gradient directions. Length 720.
pub fn frame_features(frame: &Frame) -> Vec<f32> {
    let mut out: Vec<f32> = frame
        .resize(12, 12)
        .rgb()
        .iter()
        .map(|&v| f32::from(v) / 255.0)
        .collect();
    let luma = frame.resize(96, 96).luma();
    let mut cells = vec![0f32; 6 * 6 * 8];
    for y in 1..95 {
        for x in 1..95 {
            let (gx, gy) = (
                luma.at(x + 1, y) - luma.at(x - 1, y),
                luma.at(x, y + 1) - luma.at(x, y - 1),
            );
            let turn = gy.atan2(gx) / std::f32::consts::TAU + 0.5;
            let direction = ((turn * 8.0) as usize).min(7);
            cells[((y / 16) * 6 + x / 16) * 8 + direction] += gx.hypot(gy);
        }
    }
    let norm = cells.iter().map(|v| v * v).sum::<f32>().sqrt().max(1e-6);
    out.extend(cells.iter().map(|v| v / norm * 4.0));
    out
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    a.iter()
        .zip(b)
        .map(|(x, y)| (x - y) * (x - y))
        .sum::<f32>()
        .sqrt()
}

/// D3 (Zheng and others, ICCV 2025): the deviation of the second differences of the distances between successive frames' features. Their features
/// come from a pretrained network; ours are [`frame_features`]. 0 for fewer than five frames.
pub fn d3(clip: &Clip) -> f32 {
    let features: Vec<Vec<f32>> = clip.frames.iter().map(frame_features).collect();
    let steps: Vec<f32> = features
        .windows(2)
        .map(|p| distance(&p[0], &p[1]))
        .collect();
    let second: Vec<f32> = steps.windows(3).map(|s| s[2] - 2.0 * s[1] + s[0]).collect();
    if second.len() < 2 {
        return 0.0;
    }
    let m = mean(&second);
    (second.iter().map(|v| (v - m) * (v - m)).sum::<f32>() / second.len() as f32).sqrt()
}

/// 21 numbers of the trajectory of 8 frames in feature space, as ReStraV (NeurIPS 2025) has them: 7 lengths of steps, 6 angles between steps, and
/// mean, deviation, least and greatest of both. Their features come from DINOv2; ours are [`frame_features`].
pub fn trajectory_features(clip: &Clip) -> Vec<f32> {
    let order = crate::video::uniform_indices(clip.frames.len(), 8);
    let features: Vec<Vec<f32>> = order
        .iter()
        .map(|&i| frame_features(&clip.frames[i]))
        .collect();
    let steps: Vec<Vec<f32>> = features
        .windows(2)
        .map(|p| p[1].iter().zip(&p[0]).map(|(a, b)| a - b).collect())
        .collect();
    let lengths: Vec<f32> = steps
        .iter()
        .map(|s| s.iter().map(|v| v * v).sum::<f32>().sqrt())
        .collect();
    let angles: Vec<f32> = steps
        .windows(2)
        .zip(lengths.windows(2))
        .map(|(s, l)| {
            let dot: f32 = s[0].iter().zip(&s[1]).map(|(a, b)| a * b).sum();
            (dot / (l[0] * l[1]).max(1e-9)).clamp(-1.0, 1.0).acos()
        })
        .collect();
    let mut out = lengths.clone();
    out.extend(&angles);
    for v in [&lengths, &angles] {
        let m = mean(v);
        let deviation =
            (v.iter().map(|x| (x - m) * (x - m)).sum::<f32>() / v.len().max(1) as f32).sqrt();
        let least = v.iter().copied().fold(f32::INFINITY, f32::min);
        let greatest = v.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        out.extend([m, deviation, least, greatest]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(n: usize, jump: usize) -> Clip {
        let frames = (0..n)
            .map(|t| {
                let mut f = Frame::black(40, 40);
                let shift = t + if t >= jump { 12 } else { 0 };
                for y in 0..40 {
                    for x in 0..40 {
                        let v = (127.0 + 120.0 * (((x + shift) as f32) * 0.2).sin()) as u8;
                        f.set_pixel(x, y, [v, v, v]);
                    }
                }
                f
            })
            .collect();
        Clip::new(10.0, frames).unwrap()
    }

    #[test]
    fn a_jump_raises_d3_and_the_trajectory_has_21_numbers() {
        assert!(d3(&ramp(20, 99)) * 2.0 < d3(&ramp(20, 10)));
        assert_eq!(d3(&ramp(3, 99)), 0.0);
        for n in [1, 5, 30] {
            let f = trajectory_features(&ramp(n, 99));
            assert_eq!(f.len(), 21);
            assert!(f.iter().all(|v| v.is_finite()));
        }
        assert_eq!(frame_features(&Frame::black(3, 3)).len(), 720);
    }
}
