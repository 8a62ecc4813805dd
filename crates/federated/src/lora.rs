//! Bringing low-rank adapters of many clients together.
//!
//! The change a client found is `s B_k A_k`; the change all of them found is `s sum_k w_k B_k A_k`. Averaging `A` and `B` apart gives another
//! matrix; the rules differ in what they do about it:
//!
//! | rule | adapter of the next round | goes into the base | exact | ranks |
//! | --- | --- | --- | --- | --- |
//! | average (FedIT, arXiv 2305.05644) | `mean B`, `mean A` | nothing | only with a common `A` (FFA-LoRA) | equal |
//! | stack (FLoRA, 2409.05976) | fresh | `s [w_1 B_1 … w_K B_K] [A_1; …; A_K]` | yes | any |
//! | residual (FedEx-LoRA, 2410.09432) | `mean B`, `mean A` | `s (mean(BA) - mean B mean A)` | yes | equal |
//! | svd (FlexLoRA, 2402.11505) | `U sqrt(S)`, `sqrt(S) Vᵀ` of `mean(BA)`, cut to rank | nothing | up to the cut | any |
//! | pad (HetLoRA, 2401.06432) | zero-padded averages, weighted by `|B_k A_k|` | nothing | no | any |

use serde::{Deserialize, Serialize};

use crate::linalg::{add_product, svd_of_product};
use crate::rules::weighted_average;
use crate::tuner::{Tuner, factor};
use crate::{FederatedError, NamedTensors};

/// How adapters are brought together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Combine {
    /// Average the factors apart.
    #[default]
    Average,
    /// FLoRA: stack the factors and merge the product into the base.
    Stack,
    /// FedEx-LoRA: average the factors, merge what that misses into the base.
    Residual,
    /// FlexLoRA: decompose the average product.
    Svd,
    /// HetLoRA: pad with zeros.
    Pad,
}

/// What all clients share: adapter (at the largest rank) and merged changes.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Global {
    /// Trained tensors.
    pub adapter: NamedTensors,
    /// Dense changes merged into the base, by parameter name; parameters without one are absent.
    pub residual: NamedTensors,
}

/// What a combination gave.
#[derive(Clone, Debug)]
pub struct Combined {
    /// Adapter after plain combination; a server rule may still act on it.
    pub average: NamedTensors,
    /// Residual of the next round.
    pub residual: NamedTensors,
    /// `|mean(BA) - mean B mean A|`, Frobenius norm over all targets, times the scale: what averaging apart would miss.
    pub error: f64,
    /// The same divided by `|mean(BA)|`; 0 when there are no products.
    pub relative_error: f64,
    /// Values that tell one client the change of the residual: the stacked factors, or the dense matrices if those are smaller.
    pub residual_values: usize,
}

/// Cuts or pads a low-rank adapter to `rank`: the first rows of `A`, the first columns of `B`.
///
/// # Errors
/// [`FederatedError::Layout`] when a factor is not a matrix.
pub fn with_rank(state: &NamedTensors, rank: usize) -> Result<NamedTensors, FederatedError> {
    let mut out = NamedTensors::new();
    for t in state.iter() {
        let (is_a, is_b) = (t.name.ends_with(".lora_a"), t.name.ends_with(".lora_b"));
        let &[rows, cols] = t.shape.as_slice() else {
            out.insert(&t.name, &t.shape, t.values.clone())?;
            continue;
        };
        if is_a {
            let mut v = t.values.clone();
            v.resize(rank * cols, 0.0);
            out.insert(&t.name, &[rank, cols], v)?;
        } else if is_b {
            let v = t
                .values
                .chunks_exact(cols.max(1))
                .flat_map(|r| (0..rank).map(|i| r.get(i).copied().unwrap_or(0.0)))
                .collect();
            out.insert(&t.name, &[rows, rank], v)?;
        } else {
            out.insert(&t.name, &t.shape, t.values.clone())?;
        }
    }
    Ok(out)
}

/// Where a client of rank `rank` begins round `round`.
///
/// # Errors
/// [`FederatedError::Layout`] when the global state is not the tuner's.
pub fn start_of(
    tuner: &Tuner,
    combine: Combine,
    global: &Global,
    rank: usize,
    round: u64,
) -> Result<NamedTensors, FederatedError> {
    let mut start = with_rank(&global.adapter, rank)?;
    if combine == Combine::Stack {
        let fresh = tuner.initial(rank, round)?;
        for t in fresh.iter().filter(|t| t.name.contains(".lora_")) {
            if let Some(v) = start.values_mut(&t.name) {
                v.copy_from_slice(&t.values);
            }
        }
    }
    Ok(start)
}

/// Brings local states together. `locals` holds each client's trained tensors and its weight (its number of examples).
///
/// # Errors
/// [`FederatedError::Setting`] when `average` or `residual` meets mixed ranks, [`FederatedError::Layout`] when a state is not the tuner's.
pub fn combine(
    tuner: &Tuner,
    rule: Combine,
    global: &Global,
    locals: &[(NamedTensors, f64)],
) -> Result<Combined, FederatedError> {
    let rank = tuner.method().rank;
    let total: f64 = locals.iter().map(|l| l.1).sum();
    let rank_of = |state: &NamedTensors, name: &str| {
        state
            .get(&factor(name, 'a'))
            .and_then(|t| t.shape.first().copied())
            .unwrap_or(0)
    };
    let mixed = tuner
        .low_rank()
        .any(|(name, ..)| locals.iter().any(|(l, _)| rank_of(l, name) != rank));
    if mixed && matches!(rule, Combine::Average | Combine::Residual) {
        return Err(FederatedError::setting(
            "combine",
            "stack, svd or pad with mixed ranks",
            format!("{rule:?}").to_lowercase(),
            "only those three are defined for clients of different ranks",
        ));
    }
    let padded: Vec<(NamedTensors, f64)> = locals
        .iter()
        .map(|(l, w)| Ok((with_rank(l, rank)?, *w)))
        .collect::<Result<_, FederatedError>>()?;
    let references: Vec<(&NamedTensors, f64)> = padded.iter().map(|(l, w)| (l, *w)).collect();
    let mut average = weighted_average(&references)?;
    let mut residual = NamedTensors::new();
    let (mut error, mut size, mut residual_values) = (0f64, 0f64, 0usize);
    let s = tuner.scale();
    for (name, rows, cols) in tuner.low_rank() {
        let (an, bn) = (factor(name, 'a'), factor(name, 'b'));
        let values = |t: &NamedTensors, n: &str| -> Result<Vec<f32>, FederatedError> {
            t.get(n)
                .map(|t| t.values.clone())
                .ok_or_else(|| FederatedError::Layout {
                    what: "combining adapters".into(),
                    tensor: n.into(),
                    expected: "this tensor".into(),
                    found: "none".into(),
                    remedy: "all clients must use the same adapter settings".into(),
                })
        };
        // The exact mean of the products.
        let mut mean = vec![0f32; rows * cols];
        let mut norms = Vec::with_capacity(padded.len());
        for (l, w) in &padded {
            let (a, b) = (values(l, &an)?, values(l, &bn)?);
            if rule == Combine::Pad {
                let mut own = vec![0f32; rows * cols];
                add_product(&mut own, 1.0, &b, &a, (rows, rank, cols));
                norms.push(
                    own.iter()
                        .map(|x| f64::from(*x).powi(2))
                        .sum::<f64>()
                        .sqrt(),
                );
            }
            add_product(&mut mean, (w / total) as f32, &b, &a, (rows, rank, cols));
        }
        let mut missed = mean.clone();
        let (ma, mb) = (values(&average, &an)?, values(&average, &bn)?);
        add_product(&mut missed, -1.0, &mb, &ma, (rows, rank, cols));
        let square = |v: &[f32]| v.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
        error += square(&missed);
        size += square(&mean);
        let ranks: usize = padded.len() * rank;
        match rule {
            Combine::Average => {}
            Combine::Stack | Combine::Residual => {
                let change = if rule == Combine::Stack {
                    &mean
                } else {
                    &missed
                };
                let mut r = global
                    .residual
                    .get(name)
                    .map_or_else(|| vec![0f32; rows * cols], |t| t.values.clone());
                r.iter_mut().zip(change).for_each(|(r, c)| *r += s * c);
                residual.insert(name, &[rows, cols], r)?;
                let factors = if rule == Combine::Stack {
                    locals.iter().map(|(l, _)| rank_of(l, name)).sum()
                } else {
                    ranks + rank
                };
                residual_values += (factors * (rows + cols)).min(rows * cols);
            }
            Combine::Svd => {
                let (mut columns, mut lines) = (Vec::new(), Vec::new());
                for (l, w) in locals {
                    let (a, b, r) = (values(l, &an)?, values(l, &bn)?, rank_of(l, name));
                    for i in 0..r {
                        columns.push(
                            (0..rows)
                                .map(|j| f64::from(b[j * r + i]) * w / total)
                                .collect(),
                        );
                        lines.push(
                            a[i * cols..(i + 1) * cols]
                                .iter()
                                .map(|&x| f64::from(x))
                                .collect(),
                        );
                    }
                }
                let svd = svd_of_product(&columns, &lines);
                let kept = svd.values.len().min(rank);
                if let Some(a) = average.values_mut(&an) {
                    // Directions that the products do not use keep their random start, so that they can still be learnt.
                    let start = global.adapter.get(&an).map(|t| t.values.clone());
                    a.copy_from_slice(&start.unwrap_or_else(|| vec![0.0; rank * cols]));
                    for i in 0..kept {
                        let root = svd.values[i].sqrt();
                        for j in 0..cols {
                            a[i * cols + j] = (root * svd.right[i][j]) as f32;
                        }
                    }
                }
                if let Some(b) = average.values_mut(&bn) {
                    b.fill(0.0);
                    for i in 0..kept {
                        let root = svd.values[i].sqrt();
                        for j in 0..rows {
                            b[j * rank + i] = (root * svd.left[i][j]) as f32;
                        }
                    }
                }
            }
            Combine::Pad => {
                let all: f64 = norms.iter().sum();
                if all > 0.0 {
                    for n in [&an, &bn] {
                        let mut sum = vec![0f32; values(&average, n)?.len()];
                        for ((l, _), norm) in padded.iter().zip(&norms) {
                            let w = (norm / all) as f32;
                            sum.iter_mut()
                                .zip(values(l, n)?)
                                .for_each(|(s, v)| *s += w * v);
                        }
                        if let Some(v) = average.values_mut(n) {
                            v.copy_from_slice(&sum);
                        }
                    }
                }
            }
        }
    }
    if !matches!(rule, Combine::Stack | Combine::Residual) {
        residual = global.residual.clone();
    }
    if rule == Combine::Stack {
        // Merged: the adapter itself begins anew.
        for (name, ..) in tuner.low_rank() {
            if let Some(b) = average.values_mut(&factor(name, 'b')) {
                b.fill(0.0);
            }
        }
    }
    Ok(Combined {
        average,
        residual,
        error: f64::from(s) * error.sqrt(),
        relative_error: if size > 0.0 {
            (error / size).sqrt()
        } else {
            0.0
        },
        residual_values,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};
    use crate::tuner::Method;
    use tacit_bitnet::train::{Network, TrainConfig};

    fn tuner(ranks: &[usize]) -> Tuner {
        let base = Network::new(&TrainConfig {
            hidden: 32,
            layers: 2,
            heads: 2,
            ffn: 48,
            vocab: 300,
            context: 8,
            ..TrainConfig::default()
        });
        let method = Method {
            rank: 8,
            ranks: ranks.to_vec(),
            ..Method::default()
        };
        Tuner::new(base, &method, 3).unwrap()
    }

    fn locals(tuner: &Tuner, clients: usize) -> Vec<(NamedTensors, f64)> {
        (0..clients)
            .map(|k| {
                let mut rng = stream(11, "locals", &[k as u64]);
                let t = tuner.initial(tuner.method().rank_of(k), 0).unwrap();
                let v: Vec<f32> = (0..t.count()).map(|_| normal(&mut rng) as f32).collect();
                (t.unflatten(&v).unwrap(), 10.0 + 7.0 * k as f64)
            })
            .collect()
    }

    /// Largest difference between `got` and the mean of the products in `f64`, relative to the largest value of that mean.
    fn distance(
        tuner: &Tuner,
        locals: &[(NamedTensors, f64)],
        got: impl Fn(&str, usize, usize) -> Vec<f64>,
    ) -> f64 {
        let total: f64 = locals.iter().map(|l| l.1).sum();
        let (mut worst, mut largest) = (0f64, 0f64);
        for (name, rows, cols) in tuner.low_rank() {
            let mut want = vec![0f64; rows * cols];
            for (l, w) in locals {
                let (a, b) = (
                    l.get(&factor(name, 'a')).unwrap(),
                    l.get(&factor(name, 'b')).unwrap(),
                );
                let r = a.shape[0];
                for i in 0..rows {
                    for j in 0..cols {
                        let p: f64 = (0..r)
                            .map(|k| {
                                f64::from(b.values[i * r + k]) * f64::from(a.values[k * cols + j])
                            })
                            .sum();
                        want[i * cols + j] += w / total * p * f64::from(tuner.scale());
                    }
                }
            }
            for (w, g) in want.iter().zip(got(name, rows, cols)) {
                worst = worst.max((w - g).abs());
                largest = largest.max(w.abs());
            }
        }
        worst / largest
    }

    fn product(
        tuner: &Tuner,
        state: &NamedTensors,
        name: &str,
        rows: usize,
        cols: usize,
    ) -> Vec<f64> {
        let (a, b) = (
            state.get(&factor(name, 'a')).unwrap(),
            state.get(&factor(name, 'b')).unwrap(),
        );
        let r = a.shape[0];
        let mut out = vec![0f64; rows * cols];
        for i in 0..rows {
            for k in 0..r {
                for j in 0..cols {
                    out[i * cols + j] += f64::from(tuner.scale())
                        * f64::from(b.values[i * r + k])
                        * f64::from(a.values[k * cols + j]);
                }
            }
        }
        out
    }

    #[test]
    fn stacking_is_exact_for_any_ranks() {
        let t = tuner(&[8, 2, 5, 1]);
        let global = Global {
            adapter: t.initial(8, 0).unwrap(),
            residual: NamedTensors::new(),
        };
        let l = locals(&t, 4);
        let c = combine(&t, Combine::Stack, &global, &l).unwrap();
        let d = distance(&t, &l, |name, _, _| {
            c.residual
                .get(name)
                .unwrap()
                .values
                .iter()
                .map(|&x| f64::from(x))
                .collect()
        });
        assert!(d <= 1e-6, "{d:e}");
        // The adapter that goes with it adds nothing, and a further round adds to what was merged.
        let next = Global {
            adapter: c.average,
            residual: c.residual,
        };
        let zero = product(&t, &next.adapter, "layers.0.o", 32, 32);
        assert!(zero.iter().all(|x| *x == 0.0));
        let again = combine(&t, Combine::Stack, &next, &l).unwrap();
        for (a, b) in again.residual.flatten().iter().zip(next.residual.flatten()) {
            assert!((a - 2.0 * b).abs() <= 1e-5 * (1.0 + b.abs()));
        }
        let begin = start_of(&t, Combine::Stack, &next, 2, 1).unwrap();
        assert_eq!(begin, {
            let mut f = t.initial(2, 1).unwrap();
            for x in next.adapter.iter().filter(|x| !x.name.contains("lora")) {
                f.values_mut(&x.name).unwrap().copy_from_slice(&x.values);
            }
            f
        });
    }

    #[test]
    fn the_residual_makes_averaging_exact_and_the_error_is_what_it_misses() {
        let t = tuner(&[]);
        let global = Global {
            adapter: t.initial(8, 0).unwrap(),
            residual: NamedTensors::new(),
        };
        let l = locals(&t, 5);
        let c = combine(&t, Combine::Residual, &global, &l).unwrap();
        let d = distance(&t, &l, |name, rows, cols| {
            let r = c.residual.get(name).unwrap();
            product(&t, &c.average, name, rows, cols)
                .iter()
                .zip(&r.values)
                .map(|(p, r)| p + f64::from(*r))
                .collect()
        });
        assert!(d <= 1e-6, "{d:e}");
        assert!((c.error - c.residual.norm()).abs() < 1e-4 * c.error);
        assert!(
            c.relative_error > 0.5,
            "unrelated factors: averaging apart is far off"
        );
        let plain = combine(&t, Combine::Average, &global, &l).unwrap();
        assert_eq!((plain.error, plain.average), (c.error, c.average));
        assert!(plain.residual.is_empty());
        // With one common A there is nothing to miss.
        let common: Vec<_> = l
            .iter()
            .map(|(x, w)| {
                let mut x = x.clone();
                for (name, ..) in t.low_rank() {
                    let a = l[0].0.get(&factor(name, 'a')).unwrap().values.clone();
                    x.values_mut(&factor(name, 'a'))
                        .unwrap()
                        .copy_from_slice(&a);
                }
                (x, *w)
            })
            .collect();
        let c = combine(&t, Combine::Average, &global, &common).unwrap();
        assert!(c.relative_error < 1e-6, "{:e}", c.relative_error);
    }

    #[test]
    fn decomposition_is_the_best_cut_and_exact_when_the_ranks_fit() {
        let t = tuner(&[3, 2, 2, 1]);
        let global = Global {
            adapter: t.initial(8, 0).unwrap(),
            residual: NamedTensors::new(),
        };
        let l = locals(&t, 4);
        let c = combine(&t, Combine::Svd, &global, &l).unwrap();
        let d = distance(&t, &l, |name, rows, cols| {
            product(&t, &c.average, name, rows, cols)
        });
        assert!(d <= 1e-6, "ranks 3 + 2 + 2 + 1 = 8 fit: {d:e}");
        let cut = with_rank(&c.average, 2).unwrap();
        let at_two = distance(&t, &l, |name, rows, cols| {
            product(&t, &cut, name, rows, cols)
        });
        let padded = combine(&t, Combine::Pad, &global, &l).unwrap();
        let pad = distance(&t, &l, |name, rows, cols| {
            product(&t, &padded.average, name, rows, cols)
        });
        assert!(d < at_two && at_two < 1.0 && pad > 0.1, "{at_two} {pad}");
    }

    #[test]
    fn mixed_ranks_need_a_rule_for_them() {
        let t = tuner(&[8, 2]);
        let global = Global {
            adapter: t.initial(8, 0).unwrap(),
            residual: NamedTensors::new(),
        };
        let l = locals(&t, 2);
        for rule in [Combine::Average, Combine::Residual] {
            assert!(
                combine(&t, rule, &global, &l)
                    .unwrap_err()
                    .to_string()
                    .contains("ranks")
            );
        }
        let p = with_rank(&with_rank(&l[0].0, 3).unwrap(), 8).unwrap();
        assert_eq!(
            p.get("layers.0.o.lora_a").unwrap().values[3 * 32..],
            [0.0; 5 * 32]
        );
        assert_eq!(
            p.get("layers.0.o.lora_a").unwrap().values[..3 * 32],
            l[0].0.get("layers.0.o.lora_a").unwrap().values[..3 * 32]
        );
    }
}
