//! Measures of a classifier and of localisation, with bootstrap intervals.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use serde::{Deserialize, Serialize};

use crate::class::Class;

/// Number of classes.
pub const CLASSES: usize = 4;
/// Resamplings of an interval.
const RESAMPLINGS: usize = 500;

/// One clip's probabilities in label order, and its true class.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scored {
    /// Probabilities; they sum to one.
    pub probabilities: [f64; CLASSES],
    /// The truth.
    pub label: Class,
}

impl Scored {
    /// The likeliest class.
    pub fn best(&self) -> Class {
        let mut best = 0;
        for k in 1..CLASSES {
            if self.probabilities[k] > self.probabilities[best] {
                best = k;
            }
        }
        Class::ALL[best]
    }

    /// Probability that the clip is forged.
    pub fn forged(&self) -> f64 {
        1.0 - self.probabilities[Class::Real.label()]
    }
}

/// A value with its 95 % bootstrap interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// On all clips.
    pub value: f64,
    /// 2.5th percentile over resamplings.
    pub low: f64,
    /// 97.5th percentile.
    pub high: f64,
}

impl std::fmt::Display for Interval {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.1} [{:.1}, {:.1}]",
            100.0 * self.value,
            100.0 * self.low,
            100.0 * self.high
        )
    }
}

/// `measure` of `items` and its interval; the same for the same seed.
pub fn bootstrap<T: Clone>(items: &[T], seed: u64, measure: impl Fn(&[T]) -> f64) -> Interval {
    let value = measure(items);
    if items.is_empty() {
        return Interval {
            value,
            low: value,
            high: value,
        };
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut values: Vec<f64> = (0..RESAMPLINGS)
        .map(|_| {
            let drawn: Vec<T> = (0..items.len())
                .map(|_| items[(rng.next_u64() % items.len() as u64) as usize].clone())
                .collect();
            measure(&drawn)
        })
        .filter(|v| v.is_finite())
        .collect();
    values.sort_by(f64::total_cmp);
    let at = |q: f64| {
        values
            .get(((values.len() as f64 - 1.0) * q).round() as usize)
            .copied()
            .unwrap_or(value)
    };
    Interval {
        value,
        low: at(0.025),
        high: at(0.975),
    }
}

/// Share of clips whose likeliest class is the true one.
pub fn accuracy(scored: &[Scored]) -> f64 {
    scored.iter().filter(|s| s.best() == s.label).count() as f64 / scored.len().max(1) as f64
}

/// Rows: true class; columns: likeliest class.
pub fn confusion(scored: &[Scored]) -> [[usize; CLASSES]; CLASSES] {
    let mut table = [[0; CLASSES]; CLASSES];
    for s in scored {
        table[s.label.label()][s.best().label()] += 1;
    }
    table
}

/// Mean over the classes that occur of `2 tp / (2 tp + fp + fn)`.
pub fn macro_f1(scored: &[Scored]) -> f64 {
    let t = confusion(scored);
    let mut sum = 0.0;
    let mut classes = 0;
    for k in 0..CLASSES {
        let of: usize = t[k].iter().sum();
        let said: usize = t.iter().map(|r| r[k]).sum();
        if of > 0 {
            classes += 1;
            sum += 2.0 * t[k][k] as f64 / (of + said) as f64;
        }
    }
    sum / f64::from(classes.max(1))
}

/// Area under the curve of true against false positives: the chance that a positive scores above a negative, ties counted
/// half. NaN when either is absent.
pub fn auc(pairs: &[(f64, bool)]) -> f64 {
    let mut sorted = pairs.to_vec();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let positives = sorted.iter().filter(|p| p.1).count() as f64;
    let negatives = sorted.len() as f64 - positives;
    let (mut sum, mut below, mut start) = (0.0, 0.0, 0);
    while start < sorted.len() {
        let mut end = start;
        let (mut p, mut n) = (0.0, 0.0);
        while end < sorted.len() && sorted[end].0 == sorted[start].0 {
            if sorted[end].1 {
                p += 1.0
            } else {
                n += 1.0
            }
            end += 1;
        }
        sum += p * (below + n / 2.0);
        below += n;
        start = end;
    }
    sum / (positives * negatives)
}

/// Mean over the classes that occur of the area under each class's one-versus-rest curve.
pub fn one_versus_rest(scored: &[Scored]) -> f64 {
    let values: Vec<f64> = (0..CLASSES)
        .map(|k| {
            auc(&scored
                .iter()
                .map(|s| (s.probabilities[k], s.label.label() == k))
                .collect::<Vec<_>>())
        })
        .filter(|v| v.is_finite())
        .collect();
    values.iter().sum::<f64>() / values.len() as f64
}

/// Area under the curve of forged against real.
pub fn binary_auc(scored: &[Scored]) -> f64 {
    auc(&scored
        .iter()
        .map(|s| (s.forged(), s.label.is_forged()))
        .collect::<Vec<_>>())
}

/// Share of forged clips that score above all but `rate` of the real ones.
pub fn tpr_at_fpr(scored: &[Scored], rate: f64) -> f64 {
    let mut real: Vec<f64> = scored
        .iter()
        .filter(|s| !s.label.is_forged())
        .map(Scored::forged)
        .collect();
    let forged: Vec<f64> = scored
        .iter()
        .filter(|s| s.label.is_forged())
        .map(Scored::forged)
        .collect();
    if real.is_empty() || forged.is_empty() {
        return f64::NAN;
    }
    real.sort_by(|a, b| b.total_cmp(a));
    let allowed = (rate * real.len() as f64).floor() as usize;
    let threshold = real[allowed.min(real.len() - 1)];
    forged.iter().filter(|s| **s > threshold).count() as f64 / forged.len() as f64
}

/// Expected calibration error: `Σ share of the bin · |accuracy - confidence|` over ten bins of the likeliest class's probability.
pub fn calibration_error(scored: &[Scored]) -> f64 {
    const BINS: usize = 10;
    let mut bins = [(0.0, 0.0, 0.0); BINS];
    for s in scored {
        let p = s.probabilities[s.best().label()];
        let b = &mut bins[((p * BINS as f64) as usize).min(BINS - 1)];
        b.0 += 1.0;
        b.1 += p;
        b.2 += f64::from(u8::from(s.best() == s.label));
    }
    bins.iter().map(|b| (b.2 - b.1).abs()).sum::<f64>() / scored.len().max(1) as f64
}

/// Frames in both over frames in either; 1 when neither has any.
pub fn temporal_iou(said: &[bool], truth: &[bool]) -> f64 {
    let both = said.iter().zip(truth).filter(|(a, b)| **a && **b).count();
    let either = said.iter().zip(truth).filter(|(a, b)| **a || **b).count();
    if either == 0 {
        1.0
    } else {
        both as f64 / either as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scored(p: [f64; 4], label: Class) -> Scored {
        Scored {
            probabilities: p,
            label,
        }
    }

    #[test]
    fn measures_of_a_known_table() {
        let s = [
            scored([0.7, 0.1, 0.1, 0.1], Class::Appearance),
            scored([0.1, 0.2, 0.1, 0.6], Class::Spatial),
            scored([0.1, 0.1, 0.6, 0.2], Class::Motion),
            scored([0.05, 0.05, 0.1, 0.8], Class::Real),
        ];
        assert_eq!(accuracy(&s), 0.75);
        // F1: 1, 0, 1, 2/3.
        assert!((macro_f1(&s) - (1.0 + 0.0 + 1.0 + 2.0 / 3.0) / 4.0).abs() < 1e-12);
        assert_eq!(binary_auc(&s), 1.0);
        assert_eq!(tpr_at_fpr(&s, 0.01), 1.0);
        let ece = ((1.0 - 0.7f64) + (1.0 - 0.8) + (1.2f64 - 1.0).abs()) / 4.0;
        assert!(
            (calibration_error(&s) - ece).abs() < 1e-12,
            "{}",
            calibration_error(&s)
        );
        assert_eq!(
            temporal_iou(&[true, true, false], &[false, true, true]),
            1.0 / 3.0
        );
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_ordered_pairs(pairs in proptest::collection::vec((0u8..6, any::<bool>()), 2..40)) {
            let pairs: Vec<(f64, bool)> = pairs.into_iter().map(|(s, l)| (f64::from(s), l)).collect();
            let (mut sum, mut n) = (0.0, 0.0);
            for p in pairs.iter().filter(|p| p.1) {
                for q in pairs.iter().filter(|p| !p.1) {
                    n += 1.0;
                    sum += if p.0 > q.0 { 1.0 } else if p.0 == q.0 { 0.5 } else { 0.0 };
                }
            }
            if n > 0.0 {
                prop_assert!((auc(&pairs) - sum / n).abs() < 1e-12);
            } else {
                prop_assert!(auc(&pairs).is_nan());
            }
        }

        #[test]
        fn intervals_hold_their_value(values in proptest::collection::vec(0.0f64..1.0, 1..30), seed in 0u64..9) {
            let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
            let i = bootstrap(&values, seed, mean);
            prop_assert!(i.low <= i.high && i.low >= 0.0 && i.high <= 1.0);
            prop_assert_eq!(i, bootstrap(&values, seed, mean));
        }
    }
}
