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
        /// How often the polynomial's value is squared.
        squarings: usize,
        normaliser: Option<Normaliser<'a>>,
    },
}

/// What a row is multiplied by, of the sum `S` of its weights.
#[derive(Clone, Copy)]
pub(crate) enum Normaliser<'a> {
    /// `1/sqrt(S^2 + eps^2)`.
    Exact { eps: f64 },
    /// `inverse(compression(S))`.
    Polynomial(RowSeries<'a>),
}

/// The two series that stand for the normaliser: one before a refresh, one after it.
#[derive(Clone, Copy)]
pub(crate) struct RowSeries<'a> {
    pub compression: &'a ChebyshevSeries,
    pub inverse: &'a ChebyshevSeries,
}

/// `1/sqrt(S^2 + eps^2)`: `1/S` of sums well above epsilon, and smooth where polynomial weights add up to nothing or less.
pub(crate) fn row_inverse(sum: f64, eps: f64) -> f64 {
    1.0 / sum.hypot(eps)
}

/// A normaliser at work.
enum RowInverse<'a> {
    Exact {
        eps: f64,
    },
    Polynomial {
        compression: Counted<'a>,
        inverse: Counted<'a>,
    },
}

impl<'a> RowInverse<'a> {
    fn new(normaliser: Normaliser<'a>) -> Self {
        match normaliser {
            Normaliser::Exact { eps } => Self::Exact { eps },
            Normaliser::Polynomial(series) => Self::Polynomial {
                compression: Counted::new(series.compression),
                inverse: Counted::new(series.inverse),
            },
        }
    }

    fn eval(&mut self, sum: f64) -> f64 {
        match self {
            Self::Exact { eps } => row_inverse(sum, *eps),
            Self::Polynomial {
                compression,
                inverse,
            } => inverse.eval(compression.eval(sum)),
        }
    }

    fn counts(self) -> OutOfRange {
        match self {
            Self::Exact { .. } => OutOfRange::default(),
            Self::Polynomial {
                compression,
                inverse,
            } => {
                let mut counts = compression.counts;
                counts.add(&inverse.counts);
                counts
            }
        }
    }
}

/// What attention gives: the weighted sums and, when asked for, scores and weights.
pub(crate) struct Attended {
    /// Tokens x hidden, heads concatenated.
    pub output: Matrix,
    /// Scores (with bias) and weights, `heads * tokens` x keys.
    pub traced: Option<(Matrix, Matrix)>,
    /// Sums of the weights before normalisation, `heads * tokens` x 1; empty where there is none.
    pub row_sums: Matrix,
    pub out_of_range: OutOfRange,
    /// Of the normaliser's polynomial.
    pub sums_out_of_range: OutOfRange,
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
    // Under encryption masked scores are 0, and go through the function with their bias; they matter for ranges.
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
        row_sums: Vec<f32>,
        out_of_range: OutOfRange,
        sums_out_of_range: OutOfRange,
    }
    let (normaliser, squarings) = match weights {
        Weights::Softmax => (None, 0),
        Weights::Sigmoid {
            normaliser,
            squarings,
            ..
        } => (normaliser, squarings),
    };
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
            let mut inverse = normaliser.map(RowInverse::new);
            let mut head = Head {
                output: vec![0.0; tokens * d],
                scores: Vec::new(),
                weights: Vec::new(),
                row_sums: Vec::new(),
                out_of_range: OutOfRange::default(),
                sums_out_of_range: OutOfRange::default(),
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
                for (j, z) in z[..visible].iter_mut().enumerate() {
                    let key = &cache.keys[j * kv + offset..j * kv + offset + d];
                    *z = dot(query, key) * scale + bias;
                }
                if whole_rows {
                    z[visible..].fill(bias);
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
                                for _ in 0..squarings {
                                    *w *= *w;
                                }
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
                if let Some(inverse) = &mut inverse {
                    let sum: f64 = w[..visible].iter().sum();
                    let factor = inverse.eval(sum) as f32;
                    output.iter_mut().for_each(|o| *o *= factor);
                    head.row_sums.push(sum as f32);
                }
                if trace {
                    head.scores.extend(z.iter().map(|v| *v as f32));
                    head.weights.extend(w.iter().map(|v| *v as f32));
                }
            }
            head.out_of_range = counted.map(|c| c.counts).unwrap_or_default();
            head.sums_out_of_range = inverse.map(|i| i.counts()).unwrap_or_default();
            head
        })
        .collect();

    let mut output = Matrix::zeros(tokens, config.hidden_size);
    let mut out_of_range = OutOfRange::default();
    let mut sums_out_of_range = OutOfRange::default();
    for (h, head) in heads.iter().enumerate() {
        out_of_range.add(&head.out_of_range);
        sums_out_of_range.add(&head.sums_out_of_range);
        for t in 0..tokens {
            output.row_mut(t)[h * d..(h + 1) * d].copy_from_slice(&head.output[t * d..(t + 1) * d]);
        }
    }
    let row_sums: Vec<f32> = heads
        .iter()
        .flat_map(|h| h.row_sums.iter().copied())
        .collect();
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
        row_sums: Matrix {
            rows: row_sums.len(),
            cols: 1,
            data: row_sums,
        },
        out_of_range,
        sums_out_of_range,
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
