//! Training of the layers over time, on windows that a trained trunk has observed.
//!
//! Windows are few thousand numbers, so all of them are kept and gone through many times. They come in counterfactual pairs, both
//! in one batch; real clips are half of them and weigh a third, so that all four classes weigh the same.

use std::collections::HashMap;

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loss::{binary_cross_entropy, line};
use super::network::{DEPTH_WIDTH, FRAMES, KINDS, REGIONS, VIDEO_WIDTH};
use super::observation::{DESCRIPTION, MOMENT, Observation};
use super::temporal::{self, Judged};
use crate::class::Class;
use crate::error::{HumansamError, Result};
use crate::model::fusion::{Fusion, FusionConfig};
use crate::model::optimiser::{AdamW, Gradients, Variables, gradients, learning_rate};
use crate::model::rce;
use crate::model::weights::Weights;

/// Windows that go through the layers together.
const TOGETHER: usize = 8;
/// Part of the schedule at whose end the weights are averaged.
const AVERAGED: f64 = 0.25;

/// How the layers over time are trained.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LessonsConfig {
    /// Seed of clips, initial tensors, order and dropout.
    pub seed: u64,
    /// Pairs of clips.
    pub pairs: usize,
    /// Times that each is gone through.
    pub epochs: usize,
    /// Pairs of a step.
    pub batch: usize,
    /// Largest learning rate.
    pub rate: f64,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Share of the inputs left out.
    pub dropout: f64,
    /// Where the confidences of the class's loss come from.
    #[serde(default = "by_rank")]
    pub confidence: rce::Confidence,
}

fn by_rank() -> rce::Confidence {
    rce::Confidence::Rank
}

impl Default for LessonsConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            pairs: 2500,
            epochs: 8,
            batch: 16,
            rate: 2e-3,
            weight_decay: 0.05,
            dropout: 0.15,
            confidence: by_rank(),
        }
    }
}

/// A window with what is known about it.
#[derive(Clone, Debug)]
pub struct Lesson {
    /// What the trunk saw.
    pub observation: Observation,
    /// The class.
    pub label: Class,
    /// Whether the anomaly is on at each moment.
    pub active: [bool; FRAMES],
    /// The clip's prior scores, for the confidences.
    pub scores: rce::PriorScores,
}

/// Where a run stands.
#[derive(Clone, Copy, Debug)]
pub struct LessonsProgress {
    /// Steps done.
    pub step: usize,
    /// Of these.
    pub steps: usize,
    /// Smoothed loss.
    pub loss: f64,
    /// Smoothed share of right classes, each class weighing the same.
    pub accuracy: f64,
}

fn fusion_config() -> FusionConfig {
    FusionConfig::gated(VIDEO_WIDTH, DEPTH_WIDTH, 32, Class::ALL.len())
}

/// Mean and deviation of each channel of what is observed; of parts, where they are seen.
fn scaling(lessons: &[Lesson]) -> Result<HashMap<String, Tensor>> {
    let mut out = HashMap::new();
    let mut put =
        |name: &str, width: usize, rows: &mut dyn Iterator<Item = &[f32]>| -> Result<()> {
            let (mut n, mut sum, mut square) = (1e-6, vec![0f64; width], vec![0f64; width]);
            for row in rows {
                n += 1.0;
                for (k, v) in row.iter().enumerate() {
                    sum[k] += f64::from(*v);
                    square[k] += f64::from(*v).powi(2);
                }
            }
            let mean: Vec<f32> = sum.iter().map(|s| (s / n) as f32).collect();
            let deviation: Vec<f32> = square
                .iter()
                .zip(&sum)
                .map(|(q, s)| (q / n - (s / n).powi(2)).max(1e-6).sqrt() as f32)
                .collect();
            out.insert(
                format!("{name}.mean"),
                Tensor::from_vec(mean, width, &Device::Cpu)?,
            );
            out.insert(
                format!("{name}.deviation"),
                Tensor::from_vec(deviation, width, &Device::Cpu)?,
            );
            Ok(())
        };
    let some = &lessons[..lessons.len().min(1000)];
    put(
        "observed",
        DESCRIPTION,
        &mut some
            .iter()
            .flat_map(|l| l.observation.described.chunks_exact(DESCRIPTION))
            .filter(|d| d[DESCRIPTION - 1] > 0.06),
    )?;
    put(
        "moments",
        MOMENT,
        &mut some
            .iter()
            .flat_map(|l| l.observation.moments.chunks_exact(MOMENT)),
    )?;
    Ok(out)
}

/// Trains the layers over time; `lessons` are pairs, forged and real in turn. Returns their tensors.
///
/// # Errors
/// When there are no lessons, or the loss is no longer a number.
pub fn train(
    config: &LessonsConfig,
    lessons: &[Lesson],
    mut progress: impl FnMut(&LessonsProgress),
) -> Result<HashMap<String, Tensor>> {
    let pairs = lessons.len() / 2;
    if pairs == 0 || config.batch == 0 || config.epochs == 0 {
        return Err(HumansamError::Argument(format!(
            "the layers over time need pairs of clips, a batch and epochs, found {pairs}, {}, {}",
            config.batch, config.epochs
        )));
    }
    let fixed = scaling(lessons)?;
    let mut start = temporal::initial(config.seed)?;
    start.retain(|n, _| !fixed.contains_key(n));
    for (n, t) in Weights::synthetic(&fusion_config().layout(), config.seed)?.tensors() {
        let t = if n == "gate" {
            t.zeros_like()?
        } else {
            t.clone()
        };
        start.insert(format!("fusion.{n}"), t);
    }
    let variables: Variables = start
        .iter()
        .map(|(n, t)| Ok((n.clone(), Var::from_tensor(t)?)))
        .collect::<Result<_>>()?;
    let mut adam = AdamW::new(&variables, config.weight_decay, 1.0, None)?;
    let labels: Vec<Class> = lessons.iter().map(|l| l.label).collect();
    let scores: Vec<_> = lessons.iter().map(|l| l.scores).collect();
    let confidences = rce::confidences(&scores, &labels, config.confidence, config.seed)?;

    let each = pairs.div_ceil(config.batch);
    let steps = each * config.epochs;
    let mut order: Vec<usize> = (0..pairs).collect();
    let mut smoothed: Option<(f64, f64)> = None;
    let mut mean: Option<(f64, HashMap<String, Tensor>)> = None;
    for step in 0..steps {
        if step % each == 0 {
            let mut rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0x0a11);
            rng.set_stream((step / each) as u64);
            for i in (1..pairs).rev() {
                order.swap(i, (rng.next_u64() % (i as u64 + 1)) as usize);
            }
        }
        let from = (step % each) * config.batch;
        let chosen: Vec<usize> = order[from..(from + config.batch).min(pairs)]
            .iter()
            .flat_map(|p| [2 * p, 2 * p + 1])
            .collect();
        let mut tensors: HashMap<String, Tensor> = fixed.clone();
        for (n, v) in &variables {
            tensors.insert(n.clone(), v.as_tensor().clone());
        }
        let parts = chosen
            .par_chunks(TOGETHER)
            .enumerate()
            .map(|(k, some)| {
                let mut rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0xd209);
                rng.set_stream((step as u64) << 16 | k as u64);
                part(
                    config,
                    &tensors,
                    lessons,
                    &confidences,
                    some,
                    &mut rng,
                    &variables,
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let whole: f64 = parts.iter().map(|p| p.weight).sum::<f64>().max(1e-9);
        let mut sum = Gradients::new();
        let (mut loss, mut right) = (0.0, 0.0);
        for p in parts {
            loss += p.loss / whole;
            right += p.right / whole;
            for (n, g) in p.gradients {
                let g = (g / whole)?;
                let joined = match sum.remove(&n) {
                    Some(s) => (s + g)?,
                    None => g,
                };
                sum.insert(n, joined);
            }
        }
        if !loss.is_finite() {
            return Err(HumansamError::Diverged { step, loss });
        }
        adam.update(
            &variables,
            &sum,
            learning_rate(step, steps, steps / 20 + 1, config.rate),
        )?;
        if step as f64 >= (1.0 - AVERAGED) * steps as f64 {
            let (n, old) = mean.take().unwrap_or_default();
            let mut new = HashMap::new();
            for (name, v) in &variables {
                let v = v.as_detached_tensor();
                let v = match old.get(name) {
                    Some(o) => ((o * (n / (n + 1.0)))? + (v / (n + 1.0))?)?,
                    None => v.copy()?,
                };
                new.insert(name.clone(), v);
            }
            mean = Some((n + 1.0, new));
        }
        let s = smoothed.get_or_insert((loss, right));
        s.0 += 0.02 * (loss - s.0);
        s.1 += 0.02 * (right - s.1);
        progress(&LessonsProgress {
            step: step + 1,
            steps,
            loss: s.0,
            accuracy: s.1,
        });
    }
    let mut out = fixed;
    let (_, trained) = mean.unwrap_or_default();
    out.extend(
        trained
            .into_iter()
            .filter(|(n, _)| !n.starts_with("fusion.")),
    );
    Ok(out)
}

/// What some clips of a batch give: sums, not means.
struct Part {
    gradients: Gradients,
    loss: f64,
    right: f64,
    weight: f64,
}

fn part(
    config: &LessonsConfig,
    tensors: &HashMap<String, Tensor>,
    lessons: &[Lesson],
    confidences: &[f64],
    chosen: &[usize],
    rng: &mut ChaCha8Rng,
    variables: &Variables,
) -> Result<Part> {
    let mut observed = Vec::with_capacity(chosen.len());
    for pair in chosen.chunks(2) {
        // Both clips of a pair are mirrored alike.
        let mirror = rng.next_u32() & 1 == 1;
        for &i in pair {
            let o = &lessons[i].observation;
            observed.push(if mirror { mirrored(o) } else { o.clone() });
        }
    }
    let (described, moments) = Observation::tensors(&observed.iter().collect::<Vec<_>>())?;
    let rng = std::cell::RefCell::new(rng);
    // A channel is left out over the whole window.
    let drop = |x: &Tensor| -> Result<Tensor> {
        let (n, _, c) = x.dims3()?;
        let mut rng = rng.borrow_mut();
        let kept = (1.0 / (1.0 - config.dropout)) as f32;
        let limit = (config.dropout * f64::from(u32::MAX)) as u32;
        let mask: Vec<f32> = (0..n * c)
            .map(|_| if rng.next_u32() < limit { 0.0 } else { kept })
            .collect();
        Ok(x.broadcast_mul(&Tensor::from_vec(mask, (n, 1, c), &Device::Cpu)?)?)
    };
    let Judged {
        video,
        depth,
        timeline,
    } = temporal::forward(tensors, &described, &moments, Some(&drop))?;
    let drop_row = |x: &Tensor| -> Result<Tensor> { Ok(drop(&x.unsqueeze(1)?)?.squeeze(1)?) };
    let own = tensors
        .iter()
        .filter_map(|(n, t)| Some((n.strip_prefix("fusion.")?.to_owned(), t.clone())))
        .collect();
    let fusion = Fusion::new(fusion_config(), std::path::Path::new("training"), own)?;
    let logits = fusion.forward(&drop_row(&video)?, &drop_row(&depth)?)?;

    let labels: Vec<usize> = chosen.iter().map(|&i| lessons[i].label.label()).collect();
    let balance = |l: usize| {
        if l == Class::Real.label() {
            1.0 / 3.0
        } else {
            1.0
        }
    };
    let weights: Vec<f64> = chosen
        .iter()
        .zip(&labels)
        .map(|(&i, &l)| balance(l) * rce::weight(confidences[i]))
        .collect();
    let class = rce::weighted_sum(&logits, &labels, &weights)?;
    let target: Vec<f32> = chosen
        .iter()
        .flat_map(|&i| line(lessons[i].label, &lessons[i].active))
        .collect();
    let target = Tensor::from_vec(target, (chosen.len(), FRAMES, KINDS), &Device::Cpu)?;
    let time = (binary_cross_entropy(&timeline, &target)?
        .mul(&(&target + 1.0)?)?
        .sum_all()?
        / (FRAMES * KINDS) as f64)?;
    let total = (class + (time * 0.5)?)?;
    let said = logits.argmax(1)?.to_vec1::<u32>()?;
    let right = said
        .iter()
        .zip(&labels)
        .filter(|(s, l)| **s as usize == **l)
        .map(|(_, l)| balance(*l))
        .sum();
    Ok(Part {
        loss: f64::from(total.to_scalar::<f32>()?),
        gradients: gradients(&total, variables)?,
        right,
        weight: labels.iter().map(|l| balance(*l)).sum(),
    })
}

/// The window seen in a mirror, but for what the trunk says of the whole, which changes little.
fn mirrored(o: &Observation) -> Observation {
    let mut out = o.clone();
    let (from, to) = (
        o.described.chunks_exact(DESCRIPTION * REGIONS),
        out.described.chunks_exact_mut(DESCRIPTION * REGIONS),
    );
    for (from, to) in from.zip(to) {
        for (p, d) in to.chunks_exact_mut(DESCRIPTION).enumerate() {
            // Parts of the body come in pairs, left and right.
            let q = usize::from(super::train::mirrored_part(p as u8));
            d.copy_from_slice(&from[q * DESCRIPTION..(q + 1) * DESCRIPTION]);
            d[0] = -d[0];
            d[FLOW] = -d[FLOW];
        }
    }
    out
}

/// Where a description holds the flow to the right.
const FLOW: usize = super::observation::PLACE + 5;

#[cfg(test)]
mod tests {
    use super::*;

    /// The torso of forged windows reddens, one sort early, one late.
    fn lessons(n: usize) -> Vec<Lesson> {
        (0..n)
            .map(|i| {
                let forged = i % 2 == 0;
                let grain = |k: usize| ((k * 7919 + i * 104_729) % 1000) as f32 / 5000.0;
                let mut described: Vec<f32> =
                    (0..FRAMES * REGIONS * DESCRIPTION).map(grain).collect();
                for f in 0..FRAMES {
                    for r in 0..REGIONS {
                        let d = &mut described[(f * REGIONS + r) * DESCRIPTION..][..DESCRIPTION];
                        d[DESCRIPTION - 1] = if r == 0 { 0.9 } else { 0.3 };
                        if forged && r == 1 {
                            d[4] += 0.1 * f as f32;
                        }
                    }
                }
                Lesson {
                    observation: Observation {
                        described,
                        moments: (0..FRAMES * MOMENT).map(grain).collect(),
                    },
                    label: if forged {
                        Class::Appearance
                    } else {
                        Class::Real
                    },
                    active: [forged; FRAMES],
                    scores: [grain(1).into(), grain(2).into(), grain(3).into()],
                }
            })
            .collect()
    }

    #[test]
    fn a_drift_of_colour_is_learned_and_runs_repeat() {
        let config = |epochs| LessonsConfig {
            epochs,
            batch: 4,
            dropout: 0.0,
            ..LessonsConfig::default()
        };
        let all = lessons(32);
        let mut last = 0.0;
        train(&config(40), &all, |p| last = p.accuracy).unwrap();
        // To say "forged" always would be right in 0.75.
        assert!(last > 0.85, "{last}");
        let config = config(3);
        let a = train(&config, &all, |_| {}).unwrap();
        let b = train(&config, &all, |_| {}).unwrap();
        let values = |t: &HashMap<String, Tensor>| {
            t["parts.in.weight"]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        assert_eq!(values(&a), values(&b));
        assert!(train(&config, &[], |_| {}).is_err());
    }

    #[test]
    fn mirroring_twice_is_nothing() {
        let o = &lessons(1)[0].observation;
        assert_ne!(&mirrored(o), o);
        assert_eq!(&mirrored(&mirrored(o)), o);
    }
}
