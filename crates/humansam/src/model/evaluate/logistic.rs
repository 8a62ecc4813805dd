//! Multinomial logistic regression on standardised features: the baselines' classifier.

use super::metrics::CLASSES;
use crate::error::{HumansamError, Result};
use crate::model::fusion::AffineHead;
use crate::model::rce::LABEL_SMOOTHING;

/// Mean and deviation of each feature over a training set.
#[derive(Clone, Debug, PartialEq)]
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
}

/// `softmax`, in 64 bits.
pub fn softmax(logits: &[f64]) -> Vec<f64> {
    let top = logits.iter().copied().fold(f64::MIN, f64::max);
    let e: Vec<f64> = logits.iter().map(|z| (z - top).exp()).collect();
    let sum: f64 = e.iter().sum();
    e.iter().map(|v| v / sum).collect()
}

impl Logistic {
    /// Minimises the weighted cross-entropy with label smoothing 0.1 plus `l2/2 · |W|²` by 400 steps of Nesterov's gradient
    /// descent from zero.
    ///
    /// # Errors
    /// When there are no rows, or as many labels as rows are not given.
    pub fn fit(rows: &[Vec<f32>], labels: &[usize], weights: &[f64], l2: f64) -> Result<Self> {
        if rows.is_empty() || rows.len() != labels.len() || rows.len() != weights.len() {
            return Err(HumansamError::Argument(format!(
                "a regression on {} clips with {} labels and {} weights",
                rows.len(),
                labels.len(),
                weights.len()
            )));
        }
        let scaler = Scaler::fit(rows);
        let x: Vec<Vec<f64>> = rows.iter().map(|r| scaler.apply(r)).collect();
        let (n, width) = (x.len() as f64, x[0].len());
        // The cross-entropy's curvature is at most half the mean squared length of a row (with the constant).
        let square = x
            .iter()
            .map(|r| 1.0 + r.iter().map(|v| v * v).sum::<f64>())
            .sum::<f64>()
            / n;
        let rate = 1.0 / (0.5 * square + l2);
        let size = CLASSES * (width + 1);
        let (mut w, mut before) = (vec![0.0; size], vec![0.0; size]);
        for step in 0..400 {
            let momentum = f64::from(step) / f64::from(step + 3);
            let ahead: Vec<f64> = w
                .iter()
                .zip(&before)
                .map(|(a, b)| a + momentum * (a - b))
                .collect();
            let mut g = vec![0.0; size];
            for ((r, &l), &c) in x.iter().zip(labels).zip(weights) {
                let z: Vec<f64> = ahead
                    .chunks(width + 1)
                    .map(|k| k[width] + k.iter().zip(r).map(|(a, b)| a * b).sum::<f64>())
                    .collect();
                for (k, p) in softmax(&z).into_iter().enumerate() {
                    let t = LABEL_SMOOTHING / CLASSES as f64
                        + if k == l { 1.0 - LABEL_SMOOTHING } else { 0.0 };
                    let e = c * (p - t) / n;
                    let row = &mut g[k * (width + 1)..(k + 1) * (width + 1)];
                    row[width] += e;
                    row.iter_mut().zip(r).for_each(|(g, v)| *g += e * v);
                }
            }
            for k in 0..CLASSES {
                for i in 0..width {
                    g[k * (width + 1) + i] += l2 * ahead[k * (width + 1) + i];
                }
            }
            before = std::mem::replace(
                &mut w,
                ahead.iter().zip(&g).map(|(a, g)| a - rate * g).collect(),
            );
        }
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
        })
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
        let model = Logistic::fit(&rows, &labels, &[1.0; 80], 1e-3).unwrap();
        for (r, l) in rows.iter().zip(&labels) {
            let p = model.probabilities(r).unwrap();
            assert!((p.iter().sum::<f64>() - 1.0).abs() < 1e-12);
            assert!(p[*l] > 0.6, "{p:?} {l}");
        }
        assert!(model.probabilities(&[0.0]).is_err());
        assert!(Logistic::fit(&rows, &labels[1..], &[1.0; 80], 0.0).is_err());
    }
}
