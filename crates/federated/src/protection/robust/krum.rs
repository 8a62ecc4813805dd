//! Krum and what is built on it.
//!
//! Blanchard et al., *Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent* (NeurIPS 2017), section 4;
//! El Mhamdi et al., *The Hidden Vulnerability of Distributed Learning in Byzantium* (ICML 2018), section 4.

use super::coordinate::mean_around_median;
use super::vector::{pairwise, squared_distance};
use std::cmp::Ordering;

/// Krum scores `s(i) = Σ_{j → i} ‖x_i − x_j‖²` over the `|among| − bad − 2` nearest (at least one) of the clients `among`.
fn scores(distances: &[f64], n: usize, among: &[usize], bad: usize) -> Vec<(f64, usize)> {
    let nearest = among.len().saturating_sub(bad + 2).max(1);
    among
        .iter()
        .map(|&i| {
            let mut row: Vec<f64> = among
                .iter()
                .filter(|&&j| j != i)
                .map(|&j| distances[i * n + j])
                .collect();
            row.sort_unstable_by(f64::total_cmp);
            (row.iter().take(nearest).sum(), i)
        })
        .collect()
}

/// By score; equal scores (two mutual nearest neighbours always have them) by the updates themselves, so that the order of clients does not matter.
fn by_score(updates: &[&[f32]], a: &(f64, usize), b: &(f64, usize)) -> Ordering {
    let content = || {
        updates[a.1]
            .iter()
            .zip(updates[b.1])
            .map(|(x, y)| x.total_cmp(y))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    a.0.total_cmp(&b.0).then_with(content).then(a.1.cmp(&b.1))
}

fn distances(updates: &[&[f32]]) -> Vec<f64> {
    pairwise(updates.len(), |i, j| {
        squared_distance(updates[i], updates[j])
    })
}

/// The `keep` clients with the smallest scores, the smallest first.
pub(crate) fn best(updates: &[&[f32]], bad: usize, keep: usize) -> Vec<usize> {
    let n = updates.len();
    let all: Vec<usize> = (0..n).collect();
    let mut scores = scores(&distances(updates), n, &all, bad);
    scores.sort_by(|a, b| by_score(updates, a, b));
    scores.into_iter().take(keep).map(|(_, i)| i).collect()
}

/// Bulyan over Krum: selects `θ = n − 2 bad` updates one by one, then averages per coordinate the `θ − 2 bad` nearest to the median.
pub(crate) fn bulyan(updates: &[&[f32]], bad: usize) -> Vec<f32> {
    let n = updates.len();
    let distances = distances(updates);
    let mut left: Vec<usize> = (0..n).collect();
    let mut selected = Vec::new();
    while selected.len() < n - 2 * bad {
        let next = scores(&distances, n, &left, bad)
            .into_iter()
            .min_by(|a, b| by_score(updates, a, b))
            .map_or(left[0], |(_, i)| i);
        left.retain(|&i| i != next);
        selected.push(updates[next]);
    }
    let keep = selected.len() - 2 * bad;
    mean_around_median(&selected, keep)
}
