//! Multinomial logistic regression on standardised features, with a penalty for each group of features: the head's fit, and the
//! baselines' classifier.
//!
//! ```text
//! 1/n Σ_i c_i · CE(softmax(W x_i + b), y_i, label smoothing 0.1) + ½ Σ_g λ_g |W_g|²
//! ```
//!
//! `c_i` is a clip's weight, `W_g` the columns of group `g`; the `λ_g` are those with the least cross-entropy in five-fold
//! cross-validation: one value for all groups first, then group after group. One minimum; it is walked to by Newton steps with
//! Böhning's bound on the curvature, `½ Σ c_i x_i x_iᵀ / n` per class (Ann. Inst. Stat. Math. 44, 1992), and Nesterov's momentum, restarted
//! when the loss's gradient turns against it.

use std::ops::Range;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::metrics::CLASSES;
use crate::error::{HumansamError, Result};
use crate::model::fusion::AffineHead;
use crate::model::rce::LABEL_SMOOTHING;

/// Folds of the cross-validation.
const FOLDS: usize = 5;
/// Penalties tried for all groups, and what each group's is then multiplied by and divided by.
const PENALTIES: [f64; 6] = [0.001, 0.004, 0.016, 0.064, 0.256, 1.0];
const FACTORS: [f64; 2] = [8.0, 2.5];
/// Most steps of a fit, and the largest entry of the gradient that ends it.
const STEPS: usize = 150;
const SMALL: f64 = 2e-5;

/// Mean and deviation of each feature over a training set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    /// Means.
    pub mean: Vec<f64>,
    /// Deviations, at least 1e-4.
    pub deviation: Vec<f64>,
}

impl Scaler {
    /// Of rows of equal length.
    pub fn fit(rows: &[Vec<f32>]) -> Self {
        let (n, width) = (rows.len().max(1) as f64, rows.first().map_or(0, Vec::len));
        let mut mean = vec![0.0; width];
        for r in rows {
            mean.iter_mut()
                .zip(r)
                .for_each(|(m, v)| *m += f64::from(*v) / n);
        }
        let mut variance = vec![0.0; width];
        for r in rows {
            for ((s, v), m) in variance.iter_mut().zip(r).zip(&mean) {
                *s += (f64::from(*v) - m).powi(2) / n;
            }
        }
        Self {
            mean,
            deviation: variance.iter().map(|v| v.sqrt().max(1e-4)).collect(),
        }
    }

    /// `(x - mean) / deviation`, cut at ±6.
    pub fn apply(&self, row: &[f32]) -> Vec<f64> {
        row.iter()
            .zip(&self.mean)
            .zip(&self.deviation)
            .map(|((v, m), d)| ((f64::from(*v) - m) / d).clamp(-6.0, 6.0))
            .collect()
    }
}

/// A fitted regression.
#[derive(Clone, Debug, PartialEq)]
pub struct Logistic {
    scaler: Scaler,
    head: AffineHead,
    penalties: Vec<f64>,
}

/// `softmax`, in 64 bits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = logits.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

/// What a regression is fitted to: standardised rows, the constant 1 behind each.
struct Problem<'a> {
    x: Vec<f64>,
    width: usize,
    labels: Vec<usize>,
    weights: Vec<f64>,
    /// Half of `Σ c x xᵀ / n`, row by row.
    curvature: Vec<f64>,
    scaler: &'a Scaler,
}

/// Sum of products, in lanes that a processor works on together.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let mut lanes = [0.0; 8];
    let (ca, cb) = (a.chunks_exact(8), b.chunks_exact(8));
    let rest: f64 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for k in 0..8 {
            lanes[k] += x[k] * y[k];
        }
    }
    lanes.iter().sum::<f64>() + rest
}

fn add_scaled(to: &mut [f64], by: f64, v: &[f64]) {
    to.iter_mut().zip(v).for_each(|(t, v)| *t += by * v);
}

/// `L` with `L Lᵀ = A`, of a positive definite `A` of side `n`, row by row.
pub(crate) fn cholesky(mut a: Vec<f64>, n: usize) -> Vec<f64> {
    for i in 0..n {
        let (above, row) = a.split_at_mut(i * n);
        for j in 0..i {
            let other = &above[j * n..j * n + j + 1];
            row[j] = (row[j] - dot(&row[..j], &other[..j])) / other[j];
        }
        row[i] = (row[i] - dot(&row[..i], &row[..i])).max(1e-12).sqrt();
    }
    a
}

/// Solves `L Lᵀ v = v` in place.
pub(crate) fn solve(l: &[f64], n: usize, v: &mut [f64]) {
    for i in 0..n {
        v[i] = (v[i] - dot(&l[i * n..i * n + i], &v[..i])) / l[i * n + i];
    }
    for i in (0..n).rev() {
        v[i] /= l[i * n + i];
        let (done, by) = v.split_at_mut(i);
        add_scaled(done, -by[0], &l[i * n..i * n + i]);
    }
}

impl<'a> Problem<'a> {
    fn new(
        scaler: &'a Scaler,
        rows: &[Vec<f32>],
        labels: &[usize],
        weights: &[f64],
        on: &[usize],
    ) -> Self {
        let width = scaler.mean.len() + 1;
        let mut x = Vec::with_capacity(on.len() * width);
        for &i in on {
            x.extend(scaler.apply(&rows[i]));
            x.push(1.0);
        }
        let weights: Vec<f64> = on.iter().map(|&i| weights[i]).collect();
        let mut curvature = vec![0.0; width * width];
        for (r, c) in x.chunks_exact(width).zip(&weights) {
            for (i, v) in r.iter().enumerate() {
                add_scaled(
                    &mut curvature[i * width..i * width + i + 1],
                    0.5 * c * v / on.len() as f64,
                    &r[..i + 1],
                );
            }
        }
        Self {
            x,
            width,
            labels: on.iter().map(|&i| labels[i]).collect(),
            weights,
            curvature,
            scaler,
        }
    }

    /// Gradient of the loss at `w [CLASSES, width]`.
    fn gradient(&self, w: &[f64], penalties: &[f64]) -> Vec<f64> {
        let n = self.labels.len() as f64;
        let mut g = vec![0.0; w.len()];
        for ((r, &l), c) in self
            .x
            .chunks_exact(self.width)
            .zip(&self.labels)
            .zip(&self.weights)
        {
            let z: Vec<f64> = w.chunks_exact(self.width).map(|k| dot(k, r)).collect();
            for (k, p) in softmax(&z).into_iter().enumerate() {
                let t = LABEL_SMOOTHING / CLASSES as f64
                    + if k == l { 1.0 - LABEL_SMOOTHING } else { 0.0 };
                let row = &mut g[k * self.width..(k + 1) * self.width];
                add_scaled(row, c * (p - t) / n, r);
            }
        }
        for (g, w) in g
            .chunks_exact_mut(self.width)
            .zip(w.chunks_exact(self.width))
        {
            for ((g, w), l) in g.iter_mut().zip(w).zip(penalties) {
                *g += l * w;
            }
        }
        g
    }

    /// The minimum under a penalty for each column, from `start` on.
    fn minimum(&self, penalties: &[f64], start: &[f64]) -> Vec<f64> {
        let n = self.width;
        let mut a = self.curvature.clone();
        for (i, l) in penalties.iter().enumerate() {
            a[i * n + i] += l;
        }
        // The constant has no penalty.
        a[n * n - 1] += 1e-9;
        let l = cholesky(a, n);
        let (mut w, mut before) = (start.to_vec(), start.to_vec());
        let mut since = 0.0;
        for _ in 0..STEPS {
            let momentum = since / (since + 3.0);
            let ahead: Vec<f64> = w
                .iter()
                .zip(&before)
                .map(|(a, b)| a + momentum * (a - b))
                .collect();
            let g = self.gradient(&ahead, penalties);
            if g.iter().all(|v| v.abs() < SMALL) {
                return ahead;
            }
            let mut next = ahead.clone();
            for (next, g) in next.chunks_exact_mut(n).zip(g.chunks_exact(n)) {
                let mut step = g.to_vec();
                solve(&l, n, &mut step);
                add_scaled(next, -1.0, &step);
            }
            let turned: f64 = g
                .iter()
                .zip(next.iter().zip(&w))
                .map(|(g, (a, b))| g * (a - b))
                .sum();
            since = if turned > 0.0 { 0.0 } else { since + 1.0 };
            before = std::mem::replace(&mut w, next);
        }
        w
    }

    /// Cross-entropy of `row` under `w`.
    fn loss(&self, w: &[f64], row: &[f32], label: usize) -> f64 {
        let mut x = self.scaler.apply(row);
        x.push(1.0);
        let z: Vec<f64> = w.chunks_exact(self.width).map(|k| dot(k, &x)).collect();
        -softmax(&z)[label].max(1e-9).ln()
    }
}

impl Logistic {
    /// Fits to `rows` with the penalties that cross-validation finds for `groups` of columns, which together are all columns.
    ///
    /// # Errors
    /// When there are no rows, or as many labels and weights as rows are not given.
    pub fn fit(
        rows: &[Vec<f32>],
        labels: &[usize],
        weights: &[f64],
        groups: &[Range<usize>],
    ) -> Result<Self> {
        check(rows, labels, weights)?;
        let width = rows[0].len();
        let columns = |by_group: &[f64]| -> Vec<f64> {
            let mut out = vec![0.0; width];
            for (g, l) in groups.iter().zip(by_group) {
                out[g.clone()].fill(*l);
            }
            out
        };
        // Classes take turns with period four; blocks of four keep them even.
        let scaler = Scaler::fit(rows);
        let mut folds: Vec<(Problem, Vec<usize>, Vec<f64>)> = (0..FOLDS)
            .into_par_iter()
            .filter_map(|k| {
                let (on, off): (Vec<usize>, Vec<usize>) =
                    (0..rows.len()).partition(|i| i / 4 % FOLDS != k);
                if on.is_empty() || off.is_empty() {
                    return None;
                }
                let p = Problem::new(&scaler, rows, labels, weights, &on);
                let start = vec![0.0; CLASSES * p.width];
                Some((p, off, start))
            })
            .collect();
        // Each fit starts from the one before.
        let mut loss = |by_group: &[f64]| -> f64 {
            let columns = columns(by_group);
            let each: Vec<f64> = folds
                .par_iter_mut()
                .map(|(p, off, w)| {
                    *w = p.minimum(&columns, w);
                    off.iter().map(|&i| p.loss(w, &rows[i], labels[i])).sum()
                })
                .collect();
            each.iter().sum()
        };
        let mut best = vec![PENALTIES[0]; groups.len()];
        let mut least = f64::MAX;
        for l in PENALTIES.into_iter().rev() {
            let tried = vec![l; groups.len()];
            let found = loss(&tried);
            if found < least {
                (best, least) = (tried, found);
            }
        }
        if groups.len() > 1 {
            for factor in FACTORS {
                for g in 0..groups.len() {
                    for by in [factor, 1.0 / factor] {
                        let mut tried = best.clone();
                        tried[g] *= by;
                        let found = loss(&tried);
                        if found < least {
                            (best, least) = (tried, found);
                            break;
                        }
                    }
                }
            }
        }
        Self::fit_penalised(rows, labels, weights, &columns(&best))
    }

    /// Fits to `rows` with a penalty for each column.
    ///
    /// # Errors
    /// As for [`Logistic::fit`], and when there is not a penalty for each column.
    pub fn fit_penalised(
        rows: &[Vec<f32>],
        labels: &[usize],
        weights: &[f64],
        penalties: &[f64],
    ) -> Result<Self> {
        check(rows, labels, weights)?;
        let width = rows[0].len();
        if penalties.len() != width {
            return Err(HumansamError::Argument(format!(
                "a regression on {width} columns with {} penalties",
                penalties.len()
            )));
        }
        let scaler = Scaler::fit(rows);
        let all: Vec<usize> = (0..rows.len()).collect();
        let p = Problem::new(&scaler, rows, labels, weights, &all);
        let w = p.minimum(penalties, &vec![0.0; CLASSES * p.width]);
        let weight = w
            .chunks(width + 1)
            .flat_map(|k| k[..width].to_vec())
            .collect();
        let bias = w.chunks(width + 1).map(|k| k[width]).collect();
        Ok(Self {
            scaler,
            head: AffineHead {
                classes: CLASSES,
                width,
                weight,
                bias,
            },
            penalties: penalties.to_vec(),
        })
    }

    /// The penalty of each column.
    pub fn penalties(&self) -> &[f64] {
        &self.penalties
    }

    /// Standardisation, and the map of standardised features.
    pub fn into_parts(self) -> (Scaler, AffineHead) {
        (self.scaler, self.head)
    }

    /// Class probabilities of a row.
    ///
    /// # Errors
    /// When the row has another length than those of the fit.
    pub fn probabilities(&self, row: &[f32]) -> Result<[f64; CLASSES]> {
        let p = softmax(&self.head.apply(&self.scaler.apply(row))?);
        Ok(std::array::from_fn(|k| p[k]))
    }
}

fn check(rows: &[Vec<f32>], labels: &[usize], weights: &[f64]) -> Result<()> {
    if rows.is_empty() || rows.len() != labels.len() || rows.len() != weights.len() {
        return Err(HumansamError::Argument(format!(
            "a regression on {} clips with {} labels and {} weights",
            rows.len(),
            labels.len(),
            weights.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_separates_what_can_be_separated() {
        let rows: Vec<Vec<f32>> = (0..80)
            .map(|i| {
                let k = i % 4;
                let wobble = (i as f32 * 0.7).sin() * 0.3;
                vec![
                    if k == 0 { 5.0 } else { 0.0 } + wobble,
                    if k == 1 { 5.0 } else { wobble },
                    if k == 2 { 50.0 } else { 0.0 },
                ]
            })
            .collect();
        let labels: Vec<usize> = (0..80).map(|i| i % 4).collect();
        let model =
            Logistic::fit(&rows, &labels, &[1.0; 80], std::slice::from_ref(&(0..3))).unwrap();
        for (r, l) in rows.iter().zip(&labels) {
            let p = model.probabilities(r).unwrap();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(p[*l] > 0.6, "{p:?} {l}");
        }
        assert!(model.probabilities(&[0.0]).is_err());
        assert!(
            Logistic::fit(
                &rows,
                &labels[1..],
                &[1.0; 80],
                std::slice::from_ref(&(0..3))
            )
            .is_err()
        );
    }

    #[test]
    fn the_fit_is_a_minimum_and_noise_is_penalised_more() {
        let at = |i: usize, j: usize| ((i * 37 + j * 101) as f32 * 12.9898).sin() * 43.5;
        let rows: Vec<Vec<f32>> = (0..120)
            .map(|i| {
                let mut r: Vec<f32> = (0..20).map(|j| at(i, j).fract()).collect();
                for (k, v) in r[..4].iter_mut().enumerate() {
                    *v = *v * 0.7 + f32::from(u8::from(k == i % 4));
                }
                r
            })
            .collect();
        let labels: Vec<usize> = (0..120).map(|i| i % 4).collect();
        let weights: Vec<f64> = (0..120).map(|i| 1.0 + 0.3 * f64::from(i % 2)).collect();
        let model = Logistic::fit(&rows, &labels, &weights, &[0..4, 4..20]).unwrap();
        let penalties = model.penalties().to_vec();
        assert!(penalties[0] < penalties[10], "{penalties:?}");
        let scaler = Scaler::fit(&rows);
        let all: Vec<usize> = (0..120).collect();
        let p = Problem::new(&scaler, &rows, &labels, &weights, &all);
        let w = p.minimum(&penalties, &[0.0; 84]);
        let g = p.gradient(&w, &penalties);
        assert!(g.iter().all(|v| v.abs() < 10.0 * SMALL), "{g:?}");
        assert!(Logistic::fit_penalised(&rows, &labels, &weights, &[1.0]).is_err());
    }
}
