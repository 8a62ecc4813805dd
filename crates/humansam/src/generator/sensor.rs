//! From linear light to bytes: tone curve, lens blur, noise, and the losses of an 8×8 block transform.
//!
//! Drawn alike for real and forged clips.

use super::math::{V3, v3};
use super::rng::{Rng, drift};
use crate::clip::Frame;

/// What a camera and its encoder do to a picture.
#[derive(Clone, Debug)]
pub(crate) struct Sensor {
    exposure: f32,
    balance: V3,
    saturation: f32,
    vignette: f32,
    /// Deviation of the lens blur, in pixels.
    pub blur: f32,
    /// Deviation of the noise at middle grey, in steps of 1/255.
    pub noise: f32,
    /// 1 (worst) to 100 (best), as in JPEG.
    pub quality: f32,
    breathing: f32,
    seed: u64,
}

impl Sensor {
    pub fn draw(rng: &mut Rng, nuisance: f32) -> Sensor {
        Sensor {
            exposure: rng.range(0.88, 1.18),
            balance: v3(
                1.0 + rng.range(-0.05, 0.05),
                1.0,
                1.0 + rng.range(-0.06, 0.06),
            ),
            saturation: rng.range(0.85, 1.12),
            vignette: rng.range(0.0, 0.25),
            blur: rng.range(0.25, 0.75) * nuisance,
            noise: rng.range(0.4, 4.5) * nuisance,
            quality: 96.0 - (96.0 - rng.range(38.0, 95.0)) * nuisance,
            breathing: rng.range(0.0, 0.03) * nuisance,
            seed: rng.u64(),
        }
    }

    /// Develops a linear picture.
    pub fn develop(
        &self,
        linear: &[V3],
        width: usize,
        height: usize,
        frame: usize,
        t: f32,
    ) -> Frame {
        let blurred;
        let linear = if self.blur > 0.2 {
            blurred = gaussian(linear, width, height, self.blur);
            &blurred
        } else {
            linear
        };
        let gain = self.exposure * (1.0 + self.breathing * drift(t, 0.5, self.seed as u32));
        let mut rng = Rng::named(self.seed, "noise").fork(frame as u64);
        let mut planes = vec![0f32; 3 * width * height];
        let (y_plane, rest) = planes.split_at_mut(width * height);
        let (b_plane, r_plane) = rest.split_at_mut(width * height);
        let half = (width as f32 / 2.0, height as f32 / 2.0);
        let scale = 1.0 / (half.0 * half.0 + half.1 * half.1);
        for y in 0..height {
            for x in 0..width {
                let i = y * width + x;
                let (dx, dy) = (x as f32 - half.0, y as f32 - half.1);
                let fall = 1.0 - self.vignette * (dx * dx + dy * dy) * scale;
                let c = linear[i].scale(self.balance) * (gain * fall);
                let grey = c.dot(v3(0.2126, 0.7152, 0.0722));
                let c = v3(grey, grey, grey).lerp(c, self.saturation);
                let s = v3(encode(c.x), encode(c.y), encode(c.z)) * 255.0;
                let grain = self.noise * rng.normal();
                let tint = self.noise * 0.35;
                let s = v3(
                    s.x + grain + tint * rng.normal(),
                    s.y + grain,
                    s.z + grain + tint * rng.normal(),
                );
                let luma = 0.299 * s.x + 0.587 * s.y + 0.114 * s.z;
                y_plane[i] = luma;
                b_plane[i] = 0.564 * (s.z - luma);
                r_plane[i] = 0.713 * (s.x - luma);
            }
        }
        if self.quality < 97.0 {
            block_losses(y_plane, width, height, self.quality, 1.0);
            for plane in [b_plane as &mut [f32], r_plane] {
                let (small, w, h) = halve(plane, width, height);
                let mut small = small;
                block_losses(&mut small, w, h, self.quality, 1.7);
                for y in 0..height {
                    for x in 0..width {
                        plane[y * width + x] = small[(y / 2) * w + x / 2];
                    }
                }
            }
        }
        let mut out = Frame::black(width, height);
        for (i, p) in out.rgb_mut().chunks_exact_mut(3).enumerate() {
            let (y, b, r) = (
                planes[i],
                planes[width * height + i],
                planes[2 * width * height + i],
            );
            let byte = |v: f32| (v + 0.5).clamp(0.0, 255.0) as u8;
            p[0] = byte(y + 1.402 * r);
            p[1] = byte(y - 0.344 * b - 0.714 * r);
            p[2] = byte(y + 1.772 * b);
        }
        out
    }
}

/// The sRGB curve with a shoulder: light above 0.75 is pressed into what is left up to 1.
fn encode(x: f32) -> f32 {
    let x = x.max(0.0);
    let x = if x > 0.75 {
        0.75 + 0.25 * (1.0 - (-(x - 0.75) * 2.2).exp())
    } else {
        x
    };
    if x <= 0.003_130_8 {
        12.92 * x
    } else {
        1.055 * x.powf(1.0 / 2.4) - 0.055
    }
}

/// Blurs with deviation `sigma` pixels, each axis by itself.
pub(crate) fn gaussian(image: &[V3], width: usize, height: usize, sigma: f32) -> Vec<V3> {
    let radius = (sigma * 2.5).ceil().max(1.0) as usize;
    let weights: Vec<f32> = (0..=radius)
        .map(|i| (-(i as f32 * i as f32) / (2.0 * sigma * sigma)).exp())
        .collect();
    let total = weights[0] + 2.0 * weights[1..].iter().sum::<f32>();
    let pass = |from: &[V3], step_x: usize, step_y: usize| -> Vec<V3> {
        let mut to = vec![V3::ZERO; from.len()];
        for y in 0..height {
            for x in 0..width {
                let mut sum = from[y * width + x] * weights[0];
                for (k, &w) in weights.iter().enumerate().skip(1) {
                    let (xa, ya) = (x.saturating_sub(k * step_x), y.saturating_sub(k * step_y));
                    let (xb, yb) = (
                        (x + k * step_x).min(width - 1),
                        (y + k * step_y).min(height - 1),
                    );
                    sum += (from[ya * width + xa] + from[yb * width + xb]) * w;
                }
                to[y * width + x] = sum * (1.0 / total);
            }
        }
        to
    };
    let across = pass(image, 1, 0);
    pass(&across, 0, 1)
}

fn halve(plane: &[f32], width: usize, height: usize) -> (Vec<f32>, usize, usize) {
    let (w, h) = (width.div_ceil(2), height.div_ceil(2));
    let mut out = vec![0f32; w * h];
    for y in 0..h {
        for x in 0..w {
            let (x1, y1) = ((2 * x + 1).min(width - 1), (2 * y + 1).min(height - 1));
            out[y * w + x] = 0.25
                * (plane[2 * y * width + 2 * x]
                    + plane[2 * y * width + x1]
                    + plane[y1 * width + 2 * x]
                    + plane[y1 * width + x1]);
        }
    }
    (out, w, h)
}

/// Transforms blocks of 8×8, rounds the coefficients to steps that grow with frequency and fall with `quality` (1 to 100, as in JPEG;
/// `coarser` times as large), and transforms back.
pub(crate) fn block_losses(
    plane: &mut [f32],
    width: usize,
    height: usize,
    quality: f32,
    coarser: f32,
) {
    let scale = if quality < 50.0 {
        50.0 / quality
    } else {
        2.0 - quality / 50.0
    } * coarser;
    let cosines: [[f32; 8]; 8] = std::array::from_fn(|u| {
        let norm = if u == 0 { (1.0f32 / 8.0).sqrt() } else { 0.5 };
        std::array::from_fn(|x| {
            norm * ((2 * x + 1) as f32 * u as f32 * std::f32::consts::PI / 16.0).cos()
        })
    });
    for by in (0..height).step_by(8) {
        for bx in (0..width).step_by(8) {
            let mut block = [[0f32; 8]; 8];
            for (y, row) in block.iter_mut().enumerate() {
                for (x, v) in row.iter_mut().enumerate() {
                    *v = plane[(by + y).min(height - 1) * width + (bx + x).min(width - 1)];
                }
            }
            let mut half = [[0f32; 8]; 8];
            for y in 0..8 {
                for u in 0..8 {
                    half[y][u] = (0..8).map(|x| block[y][x] * cosines[u][x]).sum();
                }
            }
            let mut c = [[0f32; 8]; 8];
            for v in 0..8 {
                for u in 0..8 {
                    let value: f32 = (0..8).map(|y| half[y][u] * cosines[v][y]).sum();
                    let step =
                        (8.0 + 5.0 * (u + v) as f32 + 1.4 * (u * u + v * v) as f32 / 2.0) * scale;
                    let step = step.max(1.0);
                    c[v][u] = (value / step).round() * step;
                }
            }
            for y in 0..8 {
                for u in 0..8 {
                    half[y][u] = (0..8).map(|v| c[v][u] * cosines[v][y]).sum();
                }
            }
            for y in 0..8.min(height - by) {
                for x in 0..8.min(width - bx) {
                    plane[(by + y) * width + bx + x] =
                        (0..8).map(|u| half[y][u] * cosines[u][x]).sum();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_shrink_with_quality() {
        let mut rng = Rng::named(1, "losses");
        let plane: Vec<f32> = (0..40 * 24)
            .map(|i| 128.0 + 60.0 * ((i % 40) as f32 * 0.4).sin() + 10.0 * rng.normal())
            .collect();
        let error = |q: f32| {
            let mut p = plane.clone();
            block_losses(&mut p, 40, 24, q, 1.0);
            p.iter()
                .zip(&plane)
                .map(|(a, b)| (a - b) * (a - b))
                .sum::<f32>()
                / plane.len() as f32
        };
        assert!(error(100.0) < 0.5, "{}", error(100.0));
        assert!(
            error(30.0) > 2.0 * error(80.0),
            "{} {}",
            error(30.0),
            error(80.0)
        );
    }

    #[test]
    fn blurring_keeps_constants() {
        let flat = vec![v3(0.3, 0.5, 0.7); 20 * 10];
        for p in gaussian(&flat, 20, 10, 1.7) {
            assert!((p - v3(0.3, 0.5, 0.7)).length() < 1e-4);
        }
    }
}
