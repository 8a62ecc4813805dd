//! Causal attention in the clear: rotary embedding, scores, softmax or sigmoid weights, weighted sum of values.

use rayon::prelude::*;

use crate::config::Config;
use crate::functions::{Counted, OutOfRange};
use crate::kv_cache::LayerCache;
use crate::polynomial::ChebyshevSeries;
use crate::ternary::Matrix;

/// Weights from scores.
#[derive(Clone, Copy)]
pub(crate) enum Weights<'a> {
    Softmax,
    /// `sigma(z - ln(i+1) + b_h)`, exact or by a polynomial.
    Sigmoid {
        head_bias: &'a [f32],
        polynomial: Option<&'a ChebyshevSeries>,
    },
}

/// What attention gives: the weighted sums and, when asked for, scores and weights.
pub(crate) struct Attended {
    /// Tokens x hidden, heads concatenated.
    pub output: Matrix,
    /// Scores (with bias) and weights, `heads * tokens` x keys.
    pub traced: Option<(Matrix, Matrix)>,
    pub out_of_range: OutOfRange,
}

/// Rotary position embedding of each head in place: pairs `(j, j + d_h/2)` of the token at position p turn by
/// `p * theta^(-2j/d_h)` (rotate-half form).
pub(crate) fn rotate(x: &mut Matrix, head_dim: usize, theta: f64, start: usize) {
    let half = head_dim / 2;
    let frequencies: Vec<f64> = (0..half)
        .map(|j| theta.powf(-2.0 * j as f64 / head_dim as f64))
        .collect();
    for t in 0..x.rows {
        let turns: Vec<(f32, f32)> = frequencies
            .iter()
            .map(|f| {
                let (sin, cos) = ((start + t) as f64 * f).sin_cos();
                (sin as f32, cos as f32)
            })
            .collect();
        for head in x.row_mut(t).chunks_exact_mut(head_dim) {
            let (low, high) = head.split_at_mut(half);
            for ((a, b), (sin, cos)) in low.iter_mut().zip(high).zip(&turns) {
                (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
            }
        }
    }
}

/// Attention of new tokens (`q`: tokens x hidden, rotated) over all cached keys; the first new token is at position `start`.
pub(crate) fn attend(
    config: &Config,
    q: &Matrix,
    cache: &LayerCache,
    start: usize,
    weights: Weights,
    trace: bool,
) -> Attended {
    let (tokens, d, kv) = (q.rows, config.head_dim, config.kv_size());
    let keys = start + tokens;
    let scale = 1.0 / (d as f64).sqrt();
    // Under encryption masked entries are computed too; they matter for ranges.
    let whole_rows = trace
        || matches!(
            weights,
            Weights::Sigmoid {
                polynomial: Some(_),
                ..
            }
        );
    struct Head {
        output: Vec<f32>,
        scores: Vec<f32>,
        weights: Vec<f32>,
        out_of_range: OutOfRange,
    }
    let heads: Vec<Head> = (0..config.heads)
        .into_par_iter()
        .map(|h| {
            let offset = (h / config.queries_per_kv()) * d;
            let mut counted = match weights {
                Weights::Sigmoid {
                    polynomial: Some(p),
                    ..
                } => Some(Counted::new(p)),
                _ => None,
            };
            let mut head = Head {
                output: vec![0.0; tokens * d],
                scores: Vec::new(),
                weights: Vec::new(),
                out_of_range: OutOfRange::default(),
            };
            let mut z = vec![0.0f64; keys];
            let mut w = vec![0.0f64; keys];
            for t in 0..tokens {
                let position = start + t;
                let visible = position + 1;
                let query = &q.row(t)[h * d..(h + 1) * d];
                let bias = match weights {
                    Weights::Softmax => 0.0,
                    Weights::Sigmoid { head_bias, .. } => {
                        f64::from(head_bias[h]) - (visible as f64).ln()
                    }
                };
                let computed = if whole_rows { keys } else { visible };
                for (j, z) in z[..computed].iter_mut().enumerate() {
                    let key = &cache.keys[j * kv + offset..j * kv + offset + d];
                    *z = dot(query, key) * scale + bias;
                }
                match weights {
                    Weights::Softmax => {
                        let top = z[..visible]
                            .iter()
                            .copied()
                            .fold(f64::NEG_INFINITY, f64::max);
                        let mut sum = 0.0;
                        for (w, z) in w[..visible].iter_mut().zip(&z) {
                            *w = (z - top).exp();
                            sum += *w;
                        }
                        for w in &mut w[..visible] {
                            *w /= sum;
                        }
                    }
                    Weights::Sigmoid { .. } => match &mut counted {
                        Some(p) => {
                            for (w, z) in w.iter_mut().zip(&z) {
                                *w = p.eval(*z);
                            }
                        }
                        None => {
                            for (w, z) in w[..visible].iter_mut().zip(&z) {
                                *w = 1.0 / (1.0 + (-z).exp());
                            }
                        }
                    },
                }
                // The mask acts after the function.
                w[visible..].fill(0.0);
                let output = &mut head.output[t * d..(t + 1) * d];
                for (j, w) in w[..visible].iter().enumerate() {
                    let value = &cache.values[j * kv + offset..j * kv + offset + d];
                    for (o, v) in output.iter_mut().zip(value) {
                        *o += *w as f32 * v;
                    }
                }
                if trace {
                    head.scores.extend(z.iter().map(|v| *v as f32));
                    head.weights.extend(w.iter().map(|v| *v as f32));
                }
            }
            head.out_of_range = counted.map(|c| c.counts).unwrap_or_default();
            head
        })
        .collect();

    let mut output = Matrix::zeros(tokens, config.hidden_size);
    let mut out_of_range = OutOfRange::default();
    for (h, head) in heads.iter().enumerate() {
        out_of_range.add(&head.out_of_range);
        for t in 0..tokens {
            output.row_mut(t)[h * d..(h + 1) * d].copy_from_slice(&head.output[t * d..(t + 1) * d]);
        }
    }
    let traced = trace.then(|| {
        let gather = |part: fn(&Head) -> &Vec<f32>| Matrix {
            rows: config.heads * tokens,
            cols: keys,
            data: heads.iter().flat_map(|h| part(h).iter().copied()).collect(),
        };
        (gather(|h| &h.scores), gather(|h| &h.weights))
    });
    Attended {
        output,
        traced,
        out_of_range,
    }
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    let mut lanes = [0.0f32; 4];
    for (a, b) in a.chunks_exact(4).zip(b.chunks_exact(4)) {
        for i in 0..4 {
            lanes[i] += a[i] * b[i];
        }
    }
    let n = a.len() / 4 * 4;
    let rest: f32 = a[n..].iter().zip(&b[n..]).map(|(a, b)| a * b).sum();
    lanes.iter().map(|v| f64::from(*v)).sum::<f64>() + f64::from(rest)
}
