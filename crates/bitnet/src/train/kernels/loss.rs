//! Cross-entropy.

use super::vector::{exp, kernel, simd};
use rayon::prelude::*;

/// Cross-entropy of rows of `vocabulary` logits: `(sum of -ln p(target), gradient of the mean)`; the gradient only if asked for.
pub(crate) fn cross_entropy(
    logits: &[f32],
    targets: &[u32],
    vocabulary: usize,
    with_gradient: bool,
) -> (f64, Vec<f32>) {
    let mut grad = vec![0f32; if with_gradient { logits.len() } else { 0 }];
    let n = 1.0 / targets.len() as f32;
    let losses: Vec<f64> = if with_gradient {
        (
            logits.par_chunks(vocabulary),
            targets.par_iter(),
            grad.par_chunks_mut(vocabulary),
        )
            .into_par_iter()
            .with_min_len(16)
            .map(|(z, &t, g)| simd(CrossEntropyRow, (z, t, g, n)))
            .collect()
    } else {
        (logits.par_chunks(vocabulary), targets.par_iter())
            .into_par_iter()
            .with_min_len(16)
            .map(|(z, &t)| simd(CrossEntropyRow, (z, t, &mut [][..], n)))
            .collect()
    };
    (losses.iter().sum(), grad)
}

kernel!(CrossEntropyRow = cross_entropy_row: (&[f32], u32, &mut [f32], f32) => f64);

#[inline(always)]
fn cross_entropy_row((z, target, g, n): (&[f32], u32, &mut [f32], f32)) -> f64 {
    let mut lanes = [f32::NEG_INFINITY; 16];
    for c in z.chunks(16) {
        for (l, &x) in lanes.iter_mut().zip(c) {
            *l = l.max(x);
        }
    }
    let max = lanes.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0f32; 16];
    if g.is_empty() {
        for c in z.chunks(16) {
            for (s, &x) in sums.iter_mut().zip(c) {
                *s += exp(x - max);
            }
        }
    } else {
        for (c, g) in z.chunks(16).zip(g.chunks_mut(16)) {
            for ((s, &x), g) in sums.iter_mut().zip(c).zip(g) {
                *g = exp(x - max);
                *s += *g;
            }
        }
    }
    let sum: f32 = sums.iter().sum();
    let r = n / sum;
    for g in g.iter_mut() {
        *g *= r;
    }
    if !g.is_empty() {
        g[target as usize] -= n;
    }
    f64::from(max - z[target as usize]) + f64::from(sum).ln()
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{check, noise};
    use super::*;

    #[test]
    fn cross_entropy_gradient() {
        let z: Vec<f32> = noise(3 * 50, 10).iter().map(|v| v * 4.0).collect();
        let targets = [3, 49, 0];
        let (loss, g) = cross_entropy(&z, &targets, 50, true);
        assert!((cross_entropy(&z, &targets, 50, false).0 - loss).abs() < 1e-9);
        check(
            |z| cross_entropy(z, &targets, 50, false).0 / 3.0,
            &z,
            &g,
            0..150,
        );
    }
}
