//! From logits to probabilities that mean what they say, and when to say nothing.
//!
//! * One class: `softmax(z / T + b)`, with the temperature `T` and biases `b` (their sum is 0) that minimise the cross-entropy on
//!   calibration clips, the biases with a slight pull to 0 (bias-corrected temperature scaling, Alexandari et al., ICML 2020): the loss
//!   of the head weighs forged clips more than real ones.
//! * Each kind of anomaly by itself, for a clip can have two: Platt's `σ(a_k (z_k - z_real) + b_k)`.
//! * Abstention: below a probability `τ` of the likeliest class the verdict is "unclear". `τ` is the smallest for which the
//!   calibration clips above it are right nine times in ten, but no larger than what keeps half of them.

use serde::{Deserialize, Serialize};

use super::evaluate::logistic::softmax;
use super::evaluate::metrics::CLASSES;
use super::native::KINDS;
use crate::class::Class;

/// Share of right verdicts among those not abstained from.
const RIGHT: f64 = 0.9;
/// Share of calibration clips that are always answered.
const ANSWERED: f64 = 0.5;

/// Weight of half the biases' squared length beside the mean cross-entropy.
const PULL: f64 = 0.01;

/// Fitted on clips that neither network nor head has seen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// `T`.
    pub temperature: f64,
    /// `b` in label order.
    pub bias: [f64; CLASSES],
    /// `(a_k, b_k)` in label order.
    pub platt: [(f64, f64); KINDS],
    /// `τ`.
    pub abstain_below: f64,
    /// Per kind, the probability of the time line from which a moment counts as wrong
    /// ([`moment_thresholds`](super::evaluate::extract::moment_thresholds)).
    pub moments: [f32; KINDS],
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            temperature: 1.0,
            bias: [0.0; CLASSES],
            platt: [(1.0, 0.0); KINDS],
            abstain_below: 0.0,
            moments: [0.5; KINDS],
        }
    }
}

impl Calibration {
    /// Fits all three.
    pub fn fit(logits: &[[f64; CLASSES]], labels: &[Class]) -> Self {
        let (temperature, bias) = scaling(logits, labels);
        let platt = std::array::from_fn(|k| {
            let points: Vec<(f64, f64)> = logits
                .iter()
                .zip(labels)
                .map(|(z, l)| (z[k] - z[CLASSES - 1], f64::from(u8::from(l.label() == k))))
                .collect();
            platt(&points)
        });
        let mut fitted = Self {
            temperature,
            bias,
            platt,
            abstain_below: 0.0,
            moments: [0.5; KINDS],
        };
        let mut sure: Vec<(f64, bool)> = logits
            .iter()
            .zip(labels)
            .map(|(z, l)| {
                let p = fitted.classes(z);
                let best = (0..CLASSES)
                    .max_by(|&a, &b| p[a].total_cmp(&p[b]))
                    .unwrap_or(0);
                (p[best], best == l.label())
            })
            .collect();
        sure.sort_by(|a, b| b.0.total_cmp(&a.0));
        let (mut right, mut kept) = (0usize, 0usize);
        for (i, (_, ok)) in sure.iter().enumerate() {
            right += usize::from(*ok);
            // Clips of the same probability are kept or left together.
            let last = sure.get(i + 1).is_none_or(|next| next.0 < sure[i].0);
            if last && right as f64 >= RIGHT * (i + 1) as f64 {
                kept = i + 1;
            }
        }
        let kept = kept
            .max((ANSWERED * sure.len() as f64).ceil() as usize)
            .min(sure.len());
        if kept > 0 && kept < sure.len() {
            fitted.abstain_below = sure[kept - 1].0;
        }
        fitted
    }

    /// Probabilities of the four classes.
    pub fn classes(&self, logits: &[f64; CLASSES]) -> [f64; CLASSES] {
        let p = softmax(&scaled(logits, self.temperature, &self.bias));
        std::array::from_fn(|k| p[k])
    }

    /// Probability of each kind of anomaly, whatever the others.
    pub fn kinds(&self, logits: &[f64; CLASSES]) -> [f64; KINDS] {
        std::array::from_fn(|k| {
            let (a, b) = self.platt[k];
            1.0 / (1.0 + (-(a * (logits[k] - logits[CLASSES - 1]) + b)).exp())
        })
    }
}

fn scaled(z: &[f64; CLASSES], temperature: f64, bias: &[f64; CLASSES]) -> [f64; CLASSES] {
    std::array::from_fn(|k| z[k] / temperature + bias[k])
}

/// Temperature by golden section over its logarithm, biases by gradient descent, in turn.
fn scaling(logits: &[[f64; CLASSES]], labels: &[Class]) -> (f64, [f64; CLASSES]) {
    let mut bias = [0.0; CLASSES];
    let mut temperature = 1.0;
    let n = logits.len().max(1) as f64;
    for _ in 0..8 {
        let cross_entropy = |t: f64| -> f64 {
            logits
                .iter()
                .zip(labels)
                .map(|(z, l)| -softmax(&scaled(z, t, &bias))[l.label()].max(1e-12).ln())
                .sum()
        };
        let golden = 0.5 * (5f64.sqrt() - 1.0);
        let (mut low, mut high) = (0.1f64.ln(), 10f64.ln());
        for _ in 0..40 {
            let (a, b) = (high - golden * (high - low), low + golden * (high - low));
            if cross_entropy(a.exp()) < cross_entropy(b.exp()) {
                high = b
            } else {
                low = a
            }
        }
        temperature = ((low + high) / 2.0).exp();
        // The curvature in one bias is at most one quarter.
        for _ in 0..30 {
            let mut g = bias.map(|b| PULL * b);
            for (z, l) in logits.iter().zip(labels) {
                for (k, p) in softmax(&scaled(z, temperature, &bias))
                    .into_iter()
                    .enumerate()
                {
                    g[k] += (p - f64::from(u8::from(k == l.label()))) / n;
                }
            }
            bias.iter_mut().zip(g).for_each(|(b, g)| *b -= 2.0 * g);
        }
    }
    (temperature, bias)
}

/// Newton's method on the logistic loss of `σ(a x + b)` with Platt's smoothed targets and a slight pull of `a` towards 1.
fn platt(points: &[(f64, f64)]) -> (f64, f64) {
    let positives = points.iter().map(|p| p.1).sum::<f64>();
    let negatives = points.len() as f64 - positives;
    let (high, low) = (
        (positives + 1.0) / (positives + 2.0),
        1.0 / (negatives + 2.0),
    );
    let (mut a, mut b) = (1.0, 0.0);
    for _ in 0..100 {
        let (mut ga, mut gb, mut haa, mut hab, mut hbb) = (a - 1.0, 0.0, 1.0, 0.0, 1e-6);
        for &(x, y) in points {
            let p = 1.0 / (1.0 + (-(a * x + b)).exp());
            let (e, h) = (
                p - if y > 0.5 { high } else { low },
                (p * (1.0 - p)).max(1e-9),
            );
            ga += e * x;
            gb += e;
            haa += h * x * x;
            hab += h * x;
            hbb += h;
        }
        let det = haa * hbb - hab * hab;
        if det.abs() < 1e-12 {
            break;
        }
        let (da, db) = ((hbb * ga - hab * gb) / det, (haa * gb - hab * ga) / det);
        // A damped step keeps Newton's method from leaving the basin.
        let damp = 1.0 / (1.0 + (da.abs() + db.abs()) / 5.0);
        a -= damp * da;
        b -= damp * db;
        if da.abs() + db.abs() < 1e-9 {
            break;
        }
    }
    // An anomaly's logit must not count against it.
    (a.max(0.05), b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overconfident_logits_are_cooled_and_doubtful_ones_abstained_from() {
        // Margin 8, right 3 times in 4.
        let mut logits = Vec::new();
        let mut labels = Vec::new();
        for i in 0..400usize {
            let said = i % 4;
            let truth = if i % 16 < 12 { said } else { (said + 1) % 4 };
            let mut z = [0.0; 4];
            z[said] = 8.0;
            logits.push(z);
            labels.push(Class::ALL[truth]);
        }
        let c = Calibration::fit(&logits, &labels);
        let p = c.classes(&logits[0]);
        assert!((p[0] - 0.75).abs() < 0.01, "{p:?} {}", c.temperature);
        // A mixture: sure clips are right, unsure ones guess.
        for (i, (z, l)) in logits.iter_mut().zip(&mut labels).enumerate() {
            let said = i % 4;
            let sure = i % 8 < 4;
            z[said] = if sure { 6.0 } else { 1.0 };
            *l = Class::ALL[if sure || i % 3 == 0 {
                said
            } else {
                (said + 2) % 4
            }];
        }
        let c = Calibration::fit(&logits, &labels);
        let (sure, unsure) = (
            c.classes(&[6.0, 0.0, 0.0, 0.0])[0],
            c.classes(&[1.0, 0.0, 0.0, 0.0])[0],
        );
        assert!(
            unsure < c.abstain_below && c.abstain_below <= sure,
            "{c:?} {unsure} {sure}"
        );
        let kinds = c.kinds(&[6.0, 0.0, 0.0, 0.0]);
        assert!(kinds[0] > 0.8 && kinds[1] < 0.6, "{kinds:?}");
    }
}
