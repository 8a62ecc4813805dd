//! The gated squared ReLU.

use super::vector::{ROWS, kernel, outside, simd};
use rayon::prelude::*;

/// `max(g, 0)^2 * u` for rows `[g | u]` of `2 * width`.
pub(crate) fn gated(gate_up: &[f32], width: usize) -> Vec<f32> {
    let mut out = vec![0f32; gate_up.len() / 2];
    (
        out.par_chunks_mut(width * ROWS),
        gate_up.par_chunks(2 * width * ROWS),
    )
        .into_par_iter()
        .for_each(|(out, gu)| simd(GatedRows, (out, gu, width)));
    out
}

kernel!(GatedRows = gated_rows: (&mut [f32], &[f32], usize) => ());

#[inline(always)]
fn gated_rows((out, gu, width): (&mut [f32], &[f32], usize)) {
    for (out, gu) in out.chunks_exact_mut(width).zip(gu.chunks_exact(2 * width)) {
        let (g, u) = gu.split_at(width);
        for ((out, g), u) in out.iter_mut().zip(g).zip(u) {
            let r = g.max(0.0);
            *out = r * r * u;
        }
    }
}

/// Backward of [`gated`], with a penalty `weight * mean(max(|g| - limit, 0)^2)`. Returns `(gradient of [g | u], penalty)`.
pub(crate) fn gated_backward(
    gate_up: &[f32],
    dh: &[f32],
    width: usize,
    limit: f32,
    weight: f32,
) -> (Vec<f32>, f64) {
    let mut out = vec![0f32; gate_up.len()];
    let scale = 2.0 * weight / dh.len() as f32;
    let parts: Vec<f64> = (
        out.par_chunks_mut(2 * width * ROWS),
        gate_up.par_chunks(2 * width * ROWS),
        dh.par_chunks(width * ROWS),
    )
        .into_par_iter()
        .map(|(out, gu, dh)| simd(GatedBackward, (out, gu, dh, width, limit, scale)))
        .collect();
    (out, parts.iter().sum())
}

kernel!(GatedBackward = gated_backward_rows: (&mut [f32], &[f32], &[f32], usize, f32, f32) => f64);

#[inline(always)]
fn gated_backward_rows(
    (out, gu, dh, width, limit, scale): (&mut [f32], &[f32], &[f32], usize, f32, f32),
) -> f64 {
    let mut cost = 0f64;
    for ((out, gu), dh) in out
        .chunks_exact_mut(2 * width)
        .zip(gu.chunks_exact(2 * width))
        .zip(dh.chunks_exact(width))
    {
        let (g, u) = gu.split_at(width);
        let (dg, du) = out.split_at_mut(width);
        let mut lanes = [0f32; 16];
        for ((((dg, du), g), u), dh) in dg
            .chunks_mut(16)
            .zip(du.chunks_mut(16))
            .zip(g.chunks(16))
            .zip(u.chunks(16))
            .zip(dh.chunks(16))
        {
            for (((((l, dg), du), &g), &u), &dh) in
                lanes.iter_mut().zip(dg).zip(du).zip(g).zip(u).zip(dh)
            {
                let r = g.max(0.0);
                let e = outside(g, -limit, limit);
                *l = e.mul_add(e, *l);
                *dg = (dh * 2.0 * r).mul_add(u, e * scale);
                *du = dh * r * r;
            }
        }
        cost += f64::from(lanes.iter().sum::<f32>() * scale * 0.5);
    }
    cost
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{check, noise, weighted};
    use super::*;

    #[test]
    fn gate_gradient_with_penalty() {
        let x: Vec<f32> = noise(4 * 2 * 40, 5).iter().map(|v| v * 2.0).collect();
        let w = noise(4 * 40, 6);
        let f = |x: &[f32]| weighted(&gated(x, 40), &w) + gated_backward(x, &w, 40, 1.1, 30.0).1;
        let (dx, cost) = gated_backward(&x, &w, 40, 1.1, 30.0);
        assert!(cost > 0.1);
        check(f, &x, &dx, (0..x.len()).step_by(3));
    }
}
