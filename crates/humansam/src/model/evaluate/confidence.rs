//! What rank-based confidence can bring to the head, measured without any test clip: what the ranks know, how far the weights spread, and
//! five-fold cross-validation on the clips that the head is fitted on, with right labels and with wrong ones among them.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde::Serialize;

use super::bench::lead;
use super::extract::Seen;
use super::logistic::softmax;
use super::metrics::{Interval, Scored, accuracy, one_versus_rest};
use crate::class::Class;
use crate::error::Result;
use crate::model::fusion::FusionMode;
use crate::model::native::head::{Features, Head};
use crate::model::rce::{self, Confidence, PriorScores};

/// Parts of the cross-validation.
const FOLDS: usize = 5;
/// Share of the forged clips whose label is replaced by another kind in the second table.
pub const WRONG: f64 = 0.3;

/// What the ranks of one prior know about its class.
#[derive(Clone, Debug, Serialize)]
pub struct RankOf {
    /// The class.
    pub class: Class,
    /// Chance that a clip of the class stands higher in its prior's ranking than a forged clip of another class.
    pub over_other_kinds: f64,
    /// The same against real clips.
    pub over_real: f64,
    /// Correlation of the clip's percentile with its being judged right by a head that knows no confidence.
    pub with_right: f64,
    /// Mean weight `ln(c + e)` of the class.
    pub weight: f64,
    /// Its deviation.
    pub spread: f64,
}

/// A head in the cross-validation.
#[derive(Clone, Debug, Serialize)]
pub struct Validated {
    /// Where its weights come from.
    pub name: String,
    /// Share of right classes.
    pub accuracy: f64,
    /// Accuracy less that of the head without confidence.
    pub lead: Interval,
    /// Mean one-versus-rest area.
    pub auc: f64,
    /// Mean cross-entropy, nats.
    pub cross_entropy: f64,
}

/// The study.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    /// Clips.
    pub clips: usize,
    /// Each prior's ranking.
    pub ranks: Vec<RankOf>,
    /// Share of forged clips that stand highest in the ranking of their own class; a third by chance.
    pub rank_label_right: f64,
    /// Heads on right labels.
    pub validated: Vec<Validated>,
    /// Heads fitted with [`WRONG`] of the forged labels wrong, judged by the right ones.
    pub with_wrong_labels: Vec<Validated>,
}

/// Share of pairs in which a value of `a` lies above one of `b`, ties counted half.
fn above(a: &[f64], b: &[f64]) -> f64 {
    let mut sum = 0.0;
    for x in a {
        for y in b {
            sum += match x.total_cmp(y) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
        }
    }
    sum / (a.len() * b.len()).max(1) as f64
}

fn mean(v: &[f64]) -> f64 {
    v.iter().sum::<f64>() / v.len().max(1) as f64
}

fn deviation(v: &[f64]) -> f64 {
    let m = mean(v);
    mean(&v.iter().map(|x| (x - m).powi(2)).collect::<Vec<_>>()).sqrt()
}

fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (ma, mb) = (mean(a), mean(b));
    let both: Vec<f64> = a.iter().zip(b).map(|(x, y)| (x - ma) * (y - mb)).collect();
    mean(&both) / (deviation(a) * deviation(b)).max(1e-12)
}

/// Probabilities of every clip by a head that was fitted to the other folds with these labels and confidences.
fn cross_validated(fit: &[Seen], labels: &[Class], confidences: &[f64]) -> Result<Vec<Scored>> {
    // Classes take turns with period four; blocks of four keep them even.
    let fold = |i: usize| i / 4 % FOLDS;
    let heads = (0..FOLDS)
        .into_par_iter()
        .map(|k| {
            let on: Vec<usize> = (0..fit.len()).filter(|&i| fold(i) != k).collect();
            let features: Vec<&Features> = on.iter().map(|&i| &fit[i].window.features).collect();
            let labels: Vec<Class> = on.iter().map(|&i| labels[i]).collect();
            let c: Vec<f64> = on.iter().map(|&i| confidences[i]).collect();
            Head::fit(FusionMode::Gated, &features, &labels, &c, 1)?.affine()
        })
        .collect::<Result<Vec<_>>>()?;
    fit.iter()
        .enumerate()
        .map(|(i, s)| {
            let p = softmax(&s.window.features.logits(&heads[fold(i)])?);
            Ok(Scored {
                probabilities: std::array::from_fn(|k| p[k]),
                label: s.label,
            })
        })
        .collect()
}

/// Confidences under these names: none, the paper's ranks, and what might make more of them.
fn candidates(
    scores: &[PriorScores],
    labels: &[Class],
    seed: u64,
) -> Result<Vec<(&'static str, Vec<f64>)>> {
    let of = |mode| rce::confidences(scores, labels, mode, seed);
    let rank = of(Confidence::Rank)?;
    let times = |by: f64| rank.iter().map(|c| by * c).collect::<Vec<f64>>();
    Ok(vec![
        ("none", of(Confidence::None)?),
        ("ranks", rank.clone()),
        (
            "ranks among clips of the same class",
            within(scores, labels),
        ),
        ("scores", of(Confidence::Score)?),
        ("ranks, shuffled", of(Confidence::Shuffled)?),
        ("10 times the ranks", times(10.0)),
    ])
}

/// A clip's percentile under its own class's prior among the clips of that class; 0 for real clips.
fn within(scores: &[PriorScores], labels: &[Class]) -> Vec<f64> {
    let mut out = vec![0.0; labels.len()];
    for class in Class::FORGED {
        let of: Vec<usize> = (0..labels.len()).filter(|&i| labels[i] == class).collect();
        let own: Vec<PriorScores> = of.iter().map(|&i| scores[i]).collect();
        for (i, p) in of.into_iter().zip(rce::percentiles(&own)) {
            out[i] = p[class.label()];
        }
    }
    out
}

/// Heads with the weights of each candidate.
fn validate(
    fit: &[Seen],
    labels: &[Class],
    seed: u64,
    done: &mut dyn FnMut(),
) -> Result<(Vec<Validated>, Vec<Scored>)> {
    let scores: Vec<PriorScores> = fit.iter().map(|s| s.window.priors.scores).collect();
    let mut first = Vec::new();
    let mut out = Vec::new();
    for (name, c) in candidates(&scores, labels, seed)? {
        let scored = cross_validated(fit, labels, &c)?;
        if first.is_empty() {
            first.clone_from(&scored);
        }
        let losses: Vec<f64> = scored
            .iter()
            .map(|s| -s.probabilities[s.label.label()].max(1e-9).ln())
            .collect();
        out.push(Validated {
            name: name.to_owned(),
            accuracy: accuracy(&scored),
            lead: lead(&scored, &first),
            auc: one_versus_rest(&scored),
            cross_entropy: mean(&losses),
        });
        done();
    }
    Ok((out, first))
}

/// Number of heads that [`study`] validates, for a progress bar.
pub const HEADS: usize = 12;

/// The study on clips that a head may be fitted on; `done` is called after each head.
///
/// # Errors
/// When a fit fails.
pub fn study(fit: &[Seen], seed: u64, done: &mut dyn FnMut()) -> Result<Study> {
    let labels: Vec<Class> = fit.iter().map(|s| s.label).collect();
    let scores: Vec<PriorScores> = fit.iter().map(|s| s.window.priors.scores).collect();
    let (validated, plain) = validate(fit, &labels, seed, done)?;
    let (with_wrong_labels, _) = validate(fit, &wrong(&labels, seed), seed, done)?;

    let forged: Vec<usize> = (0..fit.len()).filter(|&i| labels[i].is_forged()).collect();
    let own: Vec<PriorScores> = forged.iter().map(|&i| scores[i]).collect();
    let percentiles = rce::percentiles(&own);
    let agree = forged
        .iter()
        .zip(&percentiles)
        .filter(|(i, p)| rce::rank_label(p) == labels[**i])
        .count();
    let c = rce::confidences(&scores, &labels, Confidence::Rank, seed)?;
    let ranks = Class::FORGED
        .into_iter()
        .map(|class| {
            let k = class.label();
            let of = |mine: bool| -> Vec<f64> {
                forged
                    .iter()
                    .zip(&percentiles)
                    .filter(|(i, _)| (labels[**i] == class) == mine)
                    .map(|(_, p)| p[k])
                    .collect()
            };
            let by_class = |wanted: Class| -> Vec<f64> {
                (0..fit.len())
                    .filter(|&i| labels[i] == wanted)
                    .map(|i| scores[i][k])
                    .collect()
            };
            let clips: Vec<usize> = (0..fit.len()).filter(|&i| labels[i] == class).collect();
            let weights: Vec<f64> = clips.iter().map(|&i| rce::weight(c[i])).collect();
            let right: Vec<f64> = clips
                .iter()
                .map(|&i| f64::from(u8::from(plain[i].best() == class)))
                .collect();
            RankOf {
                class,
                over_other_kinds: above(&of(true), &of(false)),
                over_real: above(&by_class(class), &by_class(Class::Real)),
                with_right: correlation(&of(true), &right),
                weight: mean(&weights),
                spread: deviation(&weights),
            }
        })
        .collect();
    Ok(Study {
        clips: fit.len(),
        ranks,
        rank_label_right: agree as f64 / forged.len().max(1) as f64,
        validated,
        with_wrong_labels,
    })
}

/// Labels of which [`WRONG`] of the forged ones name another kind.
fn wrong(labels: &[Class], seed: u64) -> Vec<Class> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x7ab1);
    labels
        .iter()
        .map(|&l| {
            let (drawn, other) = (rng.next_u32(), rng.next_u32() as usize % 2);
            if !l.is_forged() || f64::from(drawn) / f64::from(u32::MAX) >= WRONG {
                return l;
            }
            Class::FORGED[(l.label() + 1 + other) % 3]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::native::head::EXTRA;
    use crate::model::native::network::{DEPTH_WIDTH, VIDEO_WIDTH};
    use crate::model::native::window_priors::{NUMBERS, WindowPriors};
    use crate::model::native::{FRAMES, KINDS, Window};

    /// Clips whose features say the class, more or less, and whose own prior is high.
    fn clips(n: usize) -> Vec<Seen> {
        // numbers in [-1, 1) that have nothing to do with the class
        let wave = |i: usize, j: usize| {
            let z = ((i * 1_000_003 + j * 7919 + 1) as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let z = (z ^ (z >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            (z >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        };
        (0..n)
            .map(|i| {
                let label = Class::ALL[i % 4];
                let at = |j: usize| wave(i, j) + if j < 4 && j == i % 4 { 2.0 } else { 0.0 };
                let scores = std::array::from_fn(|k| {
                    f64::from(wave(i, k + 7)) + if label.label() == k { 1.0 } else { 0.0 }
                });
                Seen {
                    label,
                    family: String::new(),
                    window: Window {
                        features: Features {
                            video: (0..VIDEO_WIDTH + EXTRA).map(at).collect(),
                            depth: (0..DEPTH_WIDTH).map(|j| wave(i, j + 900)).collect(),
                        },
                        priors: WindowPriors {
                            scores,
                            numbers: [0.0; NUMBERS],
                            statistics: Vec::new(),
                        },
                        timeline: vec![[0.0; KINDS]; FRAMES],
                        heat: Vec::new(),
                        parts: Vec::new(),
                    },
                    metadata: Vec::new(),
                    active: [false; FRAMES],
                    mask: Vec::new(),
                }
            })
            .collect()
    }

    #[test]
    fn ranks_that_know_the_class_are_seen_to() {
        let all = clips(80);
        let mut heads = 0;
        let s = study(&all, 1, &mut || heads += 1).unwrap();
        assert_eq!(heads, HEADS);
        assert!(s.rank_label_right > 0.6, "{}", s.rank_label_right);
        for r in &s.ranks {
            assert!(r.over_other_kinds > 0.7 && r.over_real > 0.7, "{r:?}");
            assert!(
                r.weight > 1.0 && r.weight < 1.313 && r.spread > 0.0,
                "{r:?}"
            );
        }
        assert_eq!(s.validated[0].lead.value, 0.0);
        let labels: Vec<Class> = all.iter().map(|c| c.label).collect();
        let other = wrong(&labels, 1);
        let changed = labels.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert!((8..30).contains(&changed), "{changed} of 60");
        assert!(
            labels
                .iter()
                .zip(&other)
                .all(|(a, b)| a.is_forged() == b.is_forged())
        );
    }
}
