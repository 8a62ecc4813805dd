//! FLAME (Nguyen et al., *FLAME: Taming Backdoors in Federated Learning*, USENIX Security 2022, algorithm 1).
//!
//! The paper clusters by cosine distance with HDBSCAN, smallest cluster `⌊n/2⌋ + 1`, one sample, a single cluster allowed. No two clusters can
//! have more than half of the clients, so the condensed tree is one branch, and the points that stay in it to its end are the first component of
//! single linkage that reaches `⌊n/2⌋ + 1` members. That is what is computed here, without the library.

use super::vector::{dot, norm, pairwise};
use rand_chacha::ChaCha20Rng;
use rand_core::{RngCore, SeedableRng};

/// Weights `min(1, S/‖x_i‖) / |C|` for the clients of the cluster `C`, 0 for others, and `S`, the median norm of all.
pub(crate) fn weights(updates: &[&[f32]]) -> (Vec<f64>, f64) {
    let n = updates.len();
    let norms: Vec<f64> = updates.iter().map(|u| norm(u)).collect();
    let mut sorted = norms.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    let distances = pairwise(n, |i, j| {
        1.0 - dot(updates[i], updates[j]) / (norms[i] * norms[j]).max(f64::MIN_POSITIVE)
    });
    let members = largest_cluster(&distances, n);
    let mut weights = vec![0.0; n];
    for &i in &members {
        weights[i] = (median / norms[i].max(f64::MIN_POSITIVE)).min(1.0) / members.len() as f64;
    }
    (weights, median)
}

/// The first component of single linkage with more than half of the points.
fn largest_cluster(distances: &[f64], n: usize) -> Vec<usize> {
    let mut edges: Vec<(f64, usize, usize)> = (0..n)
        .flat_map(|i| (i + 1..n).map(move |j| (i, j)))
        .map(|(i, j)| (distances[i * n + j], i, j))
        .collect();
    edges.sort_by(|a, b| a.0.total_cmp(&b.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    let mut component: Vec<usize> = (0..n).collect();
    let members = |component: &[usize], c: usize| -> Vec<usize> {
        (0..n).filter(|&i| component[i] == c).collect()
    };
    let mut at = 0;
    while at < edges.len() {
        // Equal distances join at once.
        let level = edges[at].0;
        while at < edges.len() && edges[at].0 == level {
            let (from, to) = (component[edges[at].2], component[edges[at].1]);
            component
                .iter_mut()
                .filter(|c| **c == from)
                .for_each(|c| *c = to);
            at += 1;
        }
        for c in 0..n {
            let found = members(&component, c);
            if found.len() > n / 2 {
                return found;
            }
        }
    }
    (0..n).collect()
}

/// Adds Gaussian noise of standard deviation `sigma` (Box and Muller on a ChaCha20 stream). It blurs what is left of a backdoor; it is no
/// differential privacy, as its size depends on the updates.
pub(crate) fn add_noise(update: &mut [f32], sigma: f64, seed: u64) {
    if sigma == 0.0 {
        return;
    }
    let mut rng = ChaCha20Rng::seed_from_u64(seed);
    let mut unit = || (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    for pair in update.chunks_mut(2) {
        let r = (-2.0 * (1.0 - unit()).ln()).sqrt() * sigma;
        let (sin, cos) = (std::f64::consts::TAU * unit()).sin_cos();
        pair[0] += (r * cos) as f32;
        if let Some(second) = pair.get_mut(1) {
            *second += (r * sin) as f32;
        }
    }
}
