//! Vector arithmetic in f64 over f32 updates, the same for any number of threads.

use rayon::prelude::*;

/// Coordinates that one task works on.
pub(crate) const BLOCK: usize = 1 << 14;

/// `Σ w_i x_i`.
pub(crate) fn weighted_sum(updates: &[&[f32]], weights: &[f64]) -> Vec<f32> {
    by_blocks(updates[0].len(), |range| {
        let mut sum = vec![0.0f64; range.len()];
        for (u, &w) in updates.iter().zip(weights) {
            if w != 0.0 {
                for (s, &x) in sum.iter_mut().zip(&u[range.clone()]) {
                    *s += w * f64::from(x);
                }
            }
        }
        sum.into_iter().map(|s| s as f32).collect()
    })
}

/// Computes a vector block by block in parallel.
pub(crate) fn by_blocks(
    dimension: usize,
    block: impl Fn(std::ops::Range<usize>) -> Vec<f32> + Sync,
) -> Vec<f32> {
    let mut out = vec![0.0; dimension];
    out.par_chunks_mut(BLOCK).enumerate().for_each(|(b, out)| {
        let start = b * BLOCK;
        out.copy_from_slice(&block(start..start + out.len()));
    });
    out
}

/// `x · y`.
pub(crate) fn dot(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&a, &b)| f64::from(a) * f64::from(b))
        .sum()
}

/// `‖x‖`.
pub(crate) fn norm(x: &[f32]) -> f64 {
    dot(x, x).sqrt()
}

/// `‖x − y‖²`.
pub(crate) fn squared_distance(x: &[f32], y: &[f32]) -> f64 {
    x.iter()
        .zip(y)
        .map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2))
        .sum()
}

/// A symmetric `n × n` table of `f(i, j)` with a zero diagonal, row-major.
pub(crate) fn pairwise(n: usize, f: impl Fn(usize, usize) -> f64 + Sync) -> Vec<f64> {
    let pairs: Vec<(usize, usize)> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .collect();
    let values: Vec<f64> = pairs.par_iter().map(|&(i, j)| f(i, j)).collect();
    let mut table = vec![0.0; n * n];
    for ((i, j), v) in pairs.into_iter().zip(values) {
        table[i * n + j] = v;
        table[j * n + i] = v;
    }
    table
}
