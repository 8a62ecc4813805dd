//! The geometric median by the smoothed Weiszfeld iteration of Pillutla, Kakade and Harchaoui, *Robust Aggregation for Federated Learning*
//! (IEEE TSP 2022, algorithm 2): `w_i = 1 / max(ν, ‖z − x_i‖)`, `z = Σ w_i x_i / Σ w_i`.

use super::vector::pairwise;
use rayon::prelude::*;

/// Iterations at most; the weights usually stand after a few tens.
const ITERATIONS: usize = 500;

/// The weights (summing to 1) whose weighted mean is the geometric median. As `z` stays a combination of the updates, all distances follow
/// from the table of inner products, and an iteration costs `n²`, not `n · dimension`.
pub(crate) fn weights(updates: &[&[f32]]) -> Vec<f64> {
    let n = updates.len();
    // Inner products of differences to the first update: less cancellation when all updates share a large part.
    let centred: Vec<Vec<f32>> = updates
        .par_iter()
        .map(|u| u.iter().zip(updates[0]).map(|(a, b)| a - b).collect())
        .collect();
    let mut gram = pairwise(n, |i, j| super::vector::dot(&centred[i], &centred[j]));
    for (i, c) in centred.iter().enumerate() {
        gram[i * n + i] = super::vector::dot(c, c);
    }
    let scale = (0..n).map(|i| gram[i * n + i]).fold(0.0, f64::max).sqrt();
    let floor = 1e-6 * scale;
    let mut weights = vec![1.0 / n as f64; n];
    if scale == 0.0 {
        return weights;
    }
    for _ in 0..ITERATIONS {
        // ‖z − x_i‖² = w'Gw − 2 (Gw)_i + G_ii.
        let gw: Vec<f64> = (0..n)
            .map(|i| (0..n).map(|j| gram[i * n + j] * weights[j]).sum())
            .collect();
        let wgw: f64 = gw.iter().zip(&weights).map(|(a, b)| a * b).sum();
        let mut next: Vec<f64> = (0..n)
            .map(|i| {
                1.0 / (wgw - 2.0 * gw[i] + gram[i * n + i])
                    .max(0.0)
                    .sqrt()
                    .max(floor)
            })
            .collect();
        let total: f64 = next.iter().sum();
        next.iter_mut().for_each(|w| *w /= total);
        let moved = next
            .iter()
            .zip(&weights)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f64::max);
        weights = next;
        if moved < 1e-10 {
            break;
        }
    }
    weights
}
