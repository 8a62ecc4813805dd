//! Rank-based confidence enhancement (RCE): how sure a training label is, from the ranks of the three prior scores, and the
//! loss that listens to it (arXiv 2507.19924, section 3).
//!
//! The loss is the paper's: cross-entropy with label smoothing 0.1, each clip weighted by `ln(c + e)`, where `c` is the clip's
//! confidence; `c = 0` weighs 1, `c = 1` weighs 1.313. How `c` comes from the ranks is our definition, for the paper's is not
//! published: with `p_k` the percentile, in `[0, 1]`, of the clip's prior `k` among all forged clips,
//!
//! ```text
//! label* = argmax_k p_k        c = clip(p_label - mean of the other two, 0, 1)
//! ```
//!
//! Real clips have `c = 0`.

use candle_core::{D, Tensor};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::class::Class;
use crate::error::{HumansamError, Result};

/// Share of the target that is spread over all classes.
pub const LABEL_SMOOTHING: f64 = 0.1;

/// Prior scores of a clip in label order: appearance, spatial, motion; 0 is normal.
pub type PriorScores = [f64; 3];

/// Where a clip's confidence comes from: the paper's ranks, or one of three ablations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// 0 for all: plain cross-entropy.
    None,
    /// From the scores themselves, each divided by its largest value.
    Score,
    /// From the ranks.
    Rank,
    /// From the ranks, dealt out to the clips at random: what the weights do without their meaning.
    Shuffled,
}

/// Percentiles of each score among all clips: share of the other clips that score lower, ties counted half.
pub fn percentiles(scores: &[PriorScores]) -> Vec<PriorScores> {
    let n = scores.len();
    let mut out = vec![[0.5; 3]; n];
    if n < 2 {
        return out;
    }
    for k in 0..3 {
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| scores[a][k].total_cmp(&scores[b][k]));
        let mut start = 0;
        while start < n {
            let mut end = start + 1;
            while end < n && scores[order[end]][k] == scores[order[start]][k] {
                end += 1;
            }
            let p = (start + end - 1) as f64 / 2.0 / (n - 1) as f64;
            for &i in &order[start..end] {
                out[i][k] = p;
            }
            start = end;
        }
    }
    out
}

/// The class in whose ranking the clip stands highest.
pub fn rank_label(percentiles: &PriorScores) -> Class {
    let mut best = 0;
    for k in 1..3 {
        if percentiles[k] > percentiles[best] {
            best = k;
        }
    }
    Class::FORGED[best]
}

/// `p_label - mean of the other two`, clipped to `[0, 1]`; 0 for real clips.
pub fn confidence(percentiles: &PriorScores, label: Class) -> f64 {
    if !label.is_forged() {
        return 0.0;
    }
    let own = percentiles[label.label()];
    let others = (percentiles.iter().sum::<f64>() - own) / 2.0;
    (own - others).clamp(0.0, 1.0)
}

/// The confidences of a training set.
///
/// # Errors
/// When there are not as many labels as scores.
pub fn confidences(
    scores: &[PriorScores],
    labels: &[Class],
    mode: Confidence,
    seed: u64,
) -> Result<Vec<f64>> {
    if scores.len() != labels.len() {
        return Err(HumansamError::Argument(format!(
            "{} prior scores for {} labels",
            scores.len(),
            labels.len()
        )));
    }
    let forged: Vec<usize> = (0..labels.len())
        .filter(|&i| labels[i].is_forged())
        .collect();
    let chosen: Vec<PriorScores> = forged.iter().map(|&i| scores[i]).collect();
    let relative = match mode {
        Confidence::None => return Ok(vec![0.0; labels.len()]),
        Confidence::Rank | Confidence::Shuffled => percentiles(&chosen),
        Confidence::Score => {
            let top = |k: usize| chosen.iter().map(|s| s[k]).fold(1e-12, f64::max);
            let top = [top(0), top(1), top(2)];
            chosen
                .iter()
                .map(|s| std::array::from_fn(|k| s[k] / top[k]))
                .collect()
        }
    };
    let mut values: Vec<f64> = forged
        .iter()
        .zip(&relative)
        .map(|(&i, p)| confidence(p, labels[i]))
        .collect();
    if mode == Confidence::Shuffled {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for i in (1..values.len()).rev() {
            values.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
        }
    }
    let mut out = vec![0.0; labels.len()];
    for (i, c) in forged.into_iter().zip(values) {
        out[i] = c;
    }
    Ok(out)
}

/// `ln(c + e)`.
pub fn weight(confidence: f64) -> f64 {
    (confidence + std::f64::consts::E).ln()
}

/// `ln softmax` over the last dimension, with gradient.
pub(crate) fn log_softmax(logits: &Tensor) -> Result<Tensor> {
    let shifted = logits.broadcast_sub(&logits.max_keepdim(D::Minus1)?.detach())?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    Ok(shifted.broadcast_sub(&sum)?)
}

/// `mean_i ln(c_i + e) · CE_i` with `CE = -(1 - 0.1) ln p_y - 0.1 · mean_k ln p_k`, of `logits [B, C]`.
///
/// # Errors
/// When lengths differ or a label is not below `C`.
pub fn loss(logits: &Tensor, labels: &[usize], confidences: &[f64]) -> Result<Tensor> {
    let (b, classes) = logits.dims2()?;
    if labels.len() != b || confidences.len() != b || labels.iter().any(|&l| l >= classes) {
        return Err(HumansamError::Argument(format!(
            "{b} clips of {classes} classes with {} labels (largest {:?}) and {} confidences",
            labels.len(),
            labels.iter().max(),
            confidences.len()
        )));
    }
    let weights: Vec<f64> = confidences.iter().map(|c| weight(*c)).collect();
    Ok((weighted_sum(logits, labels, &weights)? / b as f64)?)
}

/// `sum_i w_i · CE_i` with the cross-entropy of [`loss`].
pub(crate) fn weighted_sum(logits: &Tensor, labels: &[usize], weights: &[f64]) -> Result<Tensor> {
    let (b, classes) = logits.dims2()?;
    let mut target = vec![0f32; b * classes];
    for (i, (&l, &w)) in labels.iter().zip(weights).enumerate() {
        for k in 0..classes {
            let t =
                LABEL_SMOOTHING / classes as f64 + if k == l { 1.0 - LABEL_SMOOTHING } else { 0.0 };
            target[i * classes + k] = (w * t) as f32;
        }
    }
    let target = Tensor::from_vec(target, (b, classes), logits.device())?;
    Ok(log_softmax(logits)?.mul(&target)?.sum_all()?.neg()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};
    use proptest::prelude::*;

    #[test]
    fn weights_are_the_papers() {
        for (c, w) in [
            (0.0, 1.0),
            (0.5, 1.169),
            (1.0, 1.313),
            (5.0, 2.04),
            (100.0, 4.63),
        ] {
            assert!((weight(c) - w).abs() < 5e-3, "{c}");
        }
    }

    #[test]
    fn the_loss_is_the_formula_in_f64_and_its_gradient_the_difference_quotient() {
        let z = [[0.3f64, -1.2, 2.0, 0.1], [1.5, 0.2, -0.7, 0.9]];
        let (labels, c) = ([2usize, 0], [0.4, 0.0]);
        let formula = |z: &[[f64; 4]; 2]| -> f64 {
            let mut sum = 0.0;
            for i in 0..2 {
                let norm = z[i].iter().map(|v| v.exp()).sum::<f64>().ln();
                let smooth = z[i].iter().map(|v| norm - v).sum::<f64>() / 4.0;
                sum += (c[i] + std::f64::consts::E).ln()
                    * (0.9 * (norm - z[i][labels[i]]) + 0.1 * smooth);
            }
            sum / 2.0
        };
        let data: Vec<f32> = z.iter().flatten().map(|v| *v as f32).collect();
        let var = Var::from_vec(data, (2, 4), &Device::Cpu).unwrap();
        let l = loss(&var, &labels, &c).unwrap();
        assert!((f64::from(l.to_scalar::<f32>().unwrap()) - formula(&z)).abs() < 1e-6);
        let g = l
            .backward()
            .unwrap()
            .get(&var)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for i in 0..2 {
            for k in 0..4 {
                let (mut up, mut down) = (z, z);
                up[i][k] += 1e-5;
                down[i][k] -= 1e-5;
                let slope = (formula(&up) - formula(&down)) / 2e-5;
                assert!((f64::from(g[i][k]) - slope).abs() < 1e-5, "{i} {k}");
            }
        }
        assert!(loss(&var, &[4, 0], &c).is_err());
    }

    #[test]
    fn ablations_differ_as_they_should() {
        let scores: Vec<PriorScores> = (0..40)
            .map(|i| [f64::from(i % 7), f64::from(i % 11), f64::from(i * i % 13)])
            .collect();
        let labels: Vec<Class> = (0..40).map(|i| Class::ALL[i % 4]).collect();
        let of = |m| confidences(&scores, &labels, m, 3).unwrap();
        assert!(of(Confidence::None).iter().all(|&c| c == 0.0));
        let (rank, shuffled) = (of(Confidence::Rank), of(Confidence::Shuffled));
        assert_ne!(rank, shuffled);
        let sorted = |v: &[f64]| {
            let mut v = v.to_vec();
            v.sort_by(f64::total_cmp);
            v
        };
        assert_eq!(sorted(&rank), sorted(&shuffled));
        assert!(
            labels
                .iter()
                .zip(&rank)
                .all(|(l, c)| l.is_forged() || *c == 0.0)
        );
    }

    proptest! {
        #[test]
        fn ranks_ignore_monotone_changes_of_a_score(values in proptest::collection::vec(proptest::array::uniform3(-5.0f64..5.0), 2..40)) {
            let a = percentiles(&values);
            let b = percentiles(&values.iter().map(|s| s.map(|v| (v / 3.0).exp() + 2.0 * v)).collect::<Vec<_>>());
            prop_assert_eq!(&a, &b);
            for p in &a {
                prop_assert!(p.iter().all(|v| (0.0..=1.0).contains(v)));
                prop_assert!(confidence(p, rank_label(p)) >= confidence(p, Class::Motion));
            }
        }
    }
}
