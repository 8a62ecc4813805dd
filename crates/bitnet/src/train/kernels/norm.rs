//! RMSNorm without gain, and the penalty that keeps its inverse square root easy.

use super::vector::{ROWS, dot, kernel, outside, simd};
use rayon::prelude::*;

/// How a norm is kept within reach of a low-degree inverse square root.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct NormPenalty {
    /// Centre of the wanted range of `ln(mean square + eps)`.
    pub centre: f32,
    /// Half width of the range that costs nothing.
    pub width: f32,
    /// Weight of the mean squared excess of `ln(mean square + eps)`; 0 switches it off.
    pub weight: f32,
    /// Largest magnitude of a normalised value that costs nothing.
    pub peak: f32,
    /// Weight of the mean squared excess over `peak`.
    pub peak_weight: f32,
}

/// RMSNorm with gain 1: `y = x / sqrt(mean(x^2) + eps)` for rows of `width`. Returns `(y, 1/sqrt(..) per row)`.
pub(crate) fn rms_norm(x: &[f32], width: usize, eps: f32) -> (Vec<f32>, Vec<f32>) {
    let mut y = vec![0f32; x.len()];
    let mut inverse = vec![0f32; x.len() / width];
    (
        y.par_chunks_mut(width * ROWS),
        x.par_chunks(width * ROWS),
        inverse.par_chunks_mut(ROWS),
    )
        .into_par_iter()
        .for_each(|(y, x, inverse)| simd(NormRows, (y, x, inverse, width, eps)));
    (y, inverse)
}

kernel!(NormRows = rms_norm_rows: (&mut [f32], &[f32], &mut [f32], usize, f32) => ());

#[inline(always)]
fn rms_norm_rows((y, x, inverse, width, eps): (&mut [f32], &[f32], &mut [f32], usize, f32)) {
    for ((y, x), inverse) in y
        .chunks_exact_mut(width)
        .zip(x.chunks_exact(width))
        .zip(inverse)
    {
        let r = 1.0 / (dot(x, x) / width as f32 + eps).sqrt();
        *inverse = r;
        for (y, x) in y.iter_mut().zip(x) {
            *y = x * r;
        }
    }
}

/// Backward of [`rms_norm`]: adds the gradient with respect to `x` to `dx` and returns the penalty (weights applied).
pub(crate) fn rms_norm_backward(
    y: &[f32],
    inverse: &[f32],
    dy: &[f32],
    width: usize,
    penalty: NormPenalty,
    dx: &mut [f32],
) -> f64 {
    let rows = inverse.len();
    let parts: Vec<f64> = (
        dx.par_chunks_mut(width * ROWS),
        y.par_chunks(width * ROWS),
        dy.par_chunks(width * ROWS),
        inverse.par_chunks(ROWS),
    )
        .into_par_iter()
        .map(|(dx, y, dy, inverse)| simd(NormBackward, (dx, y, dy, inverse, width, rows, penalty)))
        .collect();
    parts.iter().sum()
}

type NormBackwardArguments<'a> = (
    &'a mut [f32],
    &'a [f32],
    &'a [f32],
    &'a [f32],
    usize,
    usize,
    NormPenalty,
);

kernel!(NormBackward = rms_norm_backward_rows: NormBackwardArguments<'_> => f64);

#[inline(always)]
fn rms_norm_backward_rows(
    (dx, y, dy, inverse, width, rows, penalty): NormBackwardArguments<'_>,
) -> f64 {
    let NormPenalty {
        centre,
        width: free,
        weight,
        peak,
        peak_weight,
    } = penalty;
    let rows = rows as f32;
    let peak_scale = 2.0 * peak_weight / (rows * width as f32);
    let mut cost = 0f64;
    let mut g = vec![0f32; width];
    for (((dx, y), dy), &r) in dx
        .chunks_exact_mut(width)
        .zip(y.chunks_exact(width))
        .zip(dy.chunks_exact(width))
        .zip(inverse)
    {
        let mut dy = dy;
        if peak_weight > 0.0 {
            let mut lanes = [0f32; 16];
            for ((g, y), dy) in g.chunks_mut(16).zip(y.chunks(16)).zip(dy.chunks(16)) {
                for (((l, g), &y), &dy) in lanes.iter_mut().zip(g).zip(y).zip(dy) {
                    let e = outside(y, -peak, peak);
                    *l = e.mul_add(e, *l);
                    *g = e.mul_add(peak_scale, dy);
                }
            }
            cost += f64::from(lanes.iter().sum::<f32>() * peak_scale * 0.5);
            dy = &g;
        }
        let log_ms = -2.0 * r.ln();
        let e = outside(log_ms, centre - free, centre + free);
        cost += f64::from(weight * e * e / rows);
        let k = 4.0 * weight * e / (rows * width as f32) - dot(dy, y) / width as f32;
        for ((dx, y), dy) in dx.iter_mut().zip(y).zip(dy) {
            *dx += r * y.mul_add(k, *dy);
        }
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{check, noise, weighted};
    use super::*;

    #[test]
    fn norm_gradient_with_penalties() {
        let (rows, width) = (5, 48);
        let x: Vec<f32> = noise(rows * width, 3)
            .iter()
            .enumerate()
            .map(|(i, v)| v * (1 + i / width) as f32)
            .collect();
        let w = noise(rows * width, 4);
        let p = NormPenalty {
            centre: 0.3,
            width: 0.4,
            weight: 0.7,
            peak: 1.2,
            peak_weight: 3.0,
        };
        let f = |x: &[f32]| {
            let (y, r) = rms_norm(x, width, 0.05);
            let mut unused = vec![0.0; x.len()];
            weighted(&y, &w) + rms_norm_backward(&y, &r, &w, width, p, &mut unused)
        };
        let (y, r) = rms_norm(&x, width, 0.05);
        let mut dx = vec![0.0; x.len()];
        assert!(rms_norm_backward(&y, &r, &w, width, p, &mut dx) > 0.1);
        check(f, &x, &dx, (0..x.len()).step_by(7));
    }
}
