//! What files have been through, imitated on the bytes that the trunk is trained on: blur of scaling, noise of weak light, losses of
//! compression. The generator's own are milder, and drawn before the clip is made.

use rand_chacha::ChaCha8Rng;
use rand_core::RngCore;

use super::input::Input;
use super::network::{CHANNELS, SIDE};
use crate::generator::block_losses;

/// Each of the three happens to one clip in so many.
const ONE_IN: u32 = 5;

/// Wears an input: blurred, grained, compressed, each or none; frames alike, grain new for every frame. The same state of `rng` wears
/// both clips of a pair alike.
pub(super) fn wear(input: &mut Input, rng: &mut ChaCha8Rng) {
    let mut unit = || (f64::from(rng.next_u32()) / f64::from(u32::MAX)) as f32;
    let (blur, grain, quality) = (
        0.1 + 0.23 * unit(),
        2.0 + 7.0 * unit(),
        15.0 + 45.0 * unit(),
    );
    let mut drawn = || rng.next_u32().is_multiple_of(ONE_IN);
    let (blurred, grained, compressed) = (drawn(), drawn(), drawn());
    if !(blurred || grained || compressed) {
        return;
    }
    let mut plane = vec![0f32; SIDE * SIDE];
    for picture in input.pixels.chunks_exact_mut(SIDE * SIDE * CHANNELS) {
        let mut common = Vec::new();
        for c in 0..CHANNELS {
            for (v, p) in plane.iter_mut().zip(picture.chunks_exact(CHANNELS)) {
                *v = f32::from(p[c]);
            }
            if blurred {
                blur_plane(&mut plane, blur);
            }
            if grained {
                // Grain is of the frame: one for R, G and B, one each for the luma before and after.
                if c == 0 || c >= 3 {
                    common = (0..SIDE * SIDE).map(|_| normal(rng)).collect();
                }
                for (v, g) in plane.iter_mut().zip(&common) {
                    // Shot noise: its variance grows with the light.
                    *v += grain * (0.3 + 0.7 * *v / 255.0).max(0.0).sqrt() * g;
                }
            }
            if compressed {
                block_losses(&mut plane, SIDE, SIDE, quality, 1.0);
            }
            for (v, p) in plane.iter().zip(picture.chunks_exact_mut(CHANNELS)) {
                p[c] = (v + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
}

/// Nearly normal, mean 0, variance 1: the sum of the four bytes of a word.
fn normal(rng: &mut ChaCha8Rng) -> f32 {
    let sum: u32 = rng.next_u32().to_le_bytes().map(u32::from).iter().sum();
    // Variance of a uniform byte: (256² − 1) / 12.
    (sum as f32 - 510.0) / (4.0f32 * 65535.0 / 12.0).sqrt()
}

/// Takes the share `k` of each neighbour in each direction, rows then columns: a variance of `2 k` pixels².
fn blur_plane(plane: &mut [f32], k: f32) {
    for (lines, step, across) in [(SIDE, 1, SIDE), (SIDE, SIDE, 1)] {
        for line in 0..lines {
            let at = |i: usize| line * across + i * step;
            let mut before = plane[at(0)];
            for i in 0..SIDE {
                let now = plane[at(i)];
                let after = plane[at((i + 1).min(SIDE - 1))];
                plane[at(i)] = now + k * (before + after - 2.0 * now);
                before = now;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand_core::SeedableRng;

    fn input() -> Input {
        let pixels = (0..2 * SIDE * SIDE * CHANNELS)
            .map(|i| (60 + (i / CHANNELS) % 7 * 20) as u8)
            .collect();
        Input { pixels }
    }

    #[test]
    fn the_same_draw_wears_alike_and_some_stay_as_they_are() {
        let mut same = 0;
        for stream in 0..60 {
            let worn = || {
                let mut rng = ChaCha8Rng::seed_from_u64(5);
                rng.set_stream(stream);
                let mut x = input();
                wear(&mut x, &mut rng);
                x
            };
            let x = worn();
            assert_eq!(x, worn());
            same += usize::from(x == input());
        }
        // (4/5)³ of 60 are 31.
        assert!((20..42).contains(&same), "{same}");
    }

    #[test]
    fn blurring_keeps_sums_inside_and_constants() {
        let mut plane = vec![40.0; SIDE * SIDE];
        blur_plane(&mut plane, 0.3);
        assert!(plane.iter().all(|v| (v - 40.0).abs() < 1e-3));
        let mut plane = vec![0.0; SIDE * SIDE];
        plane[50 * SIDE + 40] = 1.0;
        blur_plane(&mut plane, 0.25);
        assert_eq!(plane[50 * SIDE + 40], 0.25);
        assert_eq!(plane[51 * SIDE + 41], 0.0625);
        assert!((plane.iter().sum::<f32>() - 1.0).abs() < 1e-6);
    }

    #[test]
    fn grain_is_of_mean_0_and_variance_1() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let n = 40_000;
        let x: Vec<f64> = (0..n).map(|_| f64::from(normal(&mut rng))).collect();
        let mean = x.iter().sum::<f64>() / f64::from(n);
        let variance = x.iter().map(|v| v * v).sum::<f64>() / f64::from(n);
        assert!(
            mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03,
            "{mean} {variance}"
        );
    }
}
