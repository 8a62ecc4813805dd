//! Training of the trunk on the fly: one thread renders moments of clips, one trains on them.
//!
//! Clips enter a pool in the order of their numbers; step `k` draws its batch from the clips `n(k) - pool .. n(k)` with
//! `n(k) = batch + k · fresh`, so that each clip is seen about `batch / fresh` times. Which clips a step sees depends on the
//! seed and the step alone, not on how fast either thread is.

use std::collections::{HashMap, VecDeque};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use candle_core::{Device, Tensor, Var};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::loss::{Overlap, Sample, of_moments};
use super::network::{CHANNELS, PARTS_SIDE, SIDE};
use super::trained::{CHECKPOINT, STATE, Stage, Trained, stages_of};
use super::{HEAT_SIDE, input, trunk, wear};
use crate::error::{HumansamError, Result};
use crate::model::optimiser::{AdamW, Gradients, Variables, gradients, learning_rate};
use crate::model::weights::read_tensors;

/// Parts of the loss.
const LOSSES: usize = 5;

/// How a training run goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Seed of initial tensors, clips and batches.
    pub seed: u64,
    /// Optimiser steps.
    pub steps: usize,
    /// Clips of a step.
    pub batch: usize,
    /// New clips per step.
    pub fresh: usize,
    /// Clips kept to draw from.
    pub pool: usize,
    /// Largest learning rate.
    pub rate: f64,
    /// Steps of warm-up.
    pub warmup: usize,
    /// AdamW's weight decay.
    pub weight_decay: f64,
    /// Largest norm of a gradient.
    pub clip: f64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            steps: 1200,
            batch: 16,
            fresh: 6,
            pool: 1600,
            rate: 2e-3,
            warmup: 50,
            weight_decay: 0.02,
            clip: 1.0,
            checkpoint_every: 100,
        }
    }
}

impl TrainConfig {
    /// Clips that this many steps need.
    fn clips(&self, steps: usize) -> u64 {
        (self.batch + steps * self.fresh) as u64
    }
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Smoothed losses: kinds, heat map, parts by cross-entropy and by Dice, depth.
    pub losses: [f64; LOSSES],
    /// Smoothed mean intersection over union of the parts in a batch.
    pub iou: f64,
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

struct State {
    variables: Variables,
    adam: AdamW,
    step: usize,
    earlier: Vec<Stage>,
}

impl State {
    fn new(config: &TrainConfig, from: Option<&Trained>) -> Result<Self> {
        let (tensors, earlier) = match from {
            Some(from) => (from.trunk.clone(), from.stages.clone()),
            None => (trunk::initial(config.seed)?, Vec::new()),
        };
        let variables: Variables = tensors
            .iter()
            .map(|(n, t)| Ok((n.clone(), Var::from_tensor(t)?)))
            .collect::<Result<_>>()?;
        let adam = AdamW::new(&variables, config.weight_decay, config.clip, None)?;
        Ok(Self {
            variables,
            adam,
            step: 0,
            earlier,
        })
    }

    fn tensors(&self) -> HashMap<String, Tensor> {
        self.variables
            .iter()
            .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
            .collect()
    }

    fn save(&self, path: &Path, config: &TrainConfig) -> Result<()> {
        let mut tensors = HashMap::new();
        for (n, v) in &self.variables {
            tensors.insert(format!("variable.{n}"), v.as_tensor().clone());
        }
        for (n, (m, s)) in &self.adam.moments {
            tensors.insert(format!("first.{n}"), m.clone());
            tensors.insert(format!("second.{n}"), s.clone());
        }
        let mut stages = self.earlier.clone();
        stages.push(Stage {
            training: config.clone(),
            steps: self.step,
        });
        let state =
            serde_json::to_vec(&stages).map_err(|e| HumansamError::Argument(e.to_string()))?;
        let length = state.len();
        tensors.insert(
            STATE.to_owned(),
            Tensor::from_vec(state, length, &Device::Cpu)?,
        );
        let part = path.with_extension("part");
        candle_core::safetensors::save(&tensors, &part)?;
        std::fs::rename(&part, path).map_err(HumansamError::io("write", path))
    }

    fn load(path: &Path, config: &TrainConfig) -> Result<Self> {
        let bad = |message: String| HumansamError::Weights {
            path: path.to_owned(),
            message,
        };
        let tensors = read_tensors(path)?;
        let of = |n: &str| {
            tensors
                .get(n)
                .cloned()
                .ok_or_else(|| bad(format!("has no tensor {n}; is it a training checkpoint?")))
        };
        let mut stages = stages_of(path, &of(STATE)?)?;
        let made = stages
            .pop()
            .ok_or_else(|| bad("is a checkpoint of no training".to_owned()))?;
        // The schedule may be shortened or prolonged on the way.
        let same = |c: &TrainConfig| TrainConfig {
            checkpoint_every: 1,
            steps: 1,
            ..c.clone()
        };
        if same(&made.training) != same(config) {
            return Err(bad(format!(
                "was made with other settings: {:?} instead of {config:?}",
                made.training
            )));
        }
        let mut state = Self::new(config, None)?;
        for (n, v) in &state.variables {
            v.set(&of(&format!("variable.{n}"))?)?;
        }
        for (n, (m, s)) in &mut state.adam.moments {
            *m = of(&format!("first.{n}"))?;
            *s = of(&format!("second.{n}"))?;
        }
        state.step = made.steps;
        state.adam.resume(made.steps);
        state.earlier = stages;
        Ok(state)
    }
}

/// Trains a trunk from `source`, which makes the sample of a number. `progress` may break off before the schedule ends. A checkpoint in
/// `folder` is continued when `resume` is set; one is left there at the end and when `progress` breaks off. Where none is continued,
/// training starts `from` a trained trunk with a fresh optimiser, and with the clips after those that it has seen, or else from random
/// tensors.
///
/// # Errors
/// When `source` fails, the loss is no longer a number, or the checkpoint cannot be read or written.
pub fn train<S>(
    config: &TrainConfig,
    folder: &Path,
    resume: bool,
    from: Option<&Trained>,
    source: S,
    mut progress: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Trained>
where
    S: Fn(u64) -> Result<Sample> + Send + Sync,
{
    let even = |n: usize| n.is_multiple_of(2);
    if config.batch == 0
        || config.pool < config.batch
        || config.steps == 0
        || !(even(config.batch) && even(config.fresh) && even(config.pool))
    {
        return Err(HumansamError::Argument(format!(
            "clips come in pairs: training needs steps, an even batch and pool of at least 2 and an even number of fresh clips, found {} steps, batch {}, pool {}, {} fresh",
            config.steps, config.batch, config.pool, config.fresh
        )));
    }
    std::fs::create_dir_all(folder).map_err(HumansamError::io("create", folder))?;
    let path = folder.join(CHECKPOINT);
    let mut state = if resume && path.is_file() {
        State::load(&path, config)?
    } else {
        State::new(config, from)?
    };
    let seen: u64 = state
        .earlier
        .iter()
        .map(|s| s.training.clips(s.steps))
        .sum();
    let first = config.clips(state.step).saturating_sub(config.pool as u64);
    let last = config.clips(config.steps);
    let (sender, receiver) = sync_channel::<Result<Sample>>(2 * config.batch);
    std::thread::scope(|scope| -> Result<()> {
        let source = &source;
        scope.spawn(move || {
            for i in first..last {
                // The other side hangs up when it stops early.
                if sender.send(source(seen + i)).is_err() {
                    break;
                }
            }
        });
        let mut pool: VecDeque<Sample> = VecDeque::new();
        let mut end = first;
        let mut smoothed: Option<([f64; LOSSES], f64)> = None;
        let receiver = receiver;
        while state.step < config.steps {
            while end < config.clips(state.step) {
                let sample = receiver.recv().map_err(|_| {
                    HumansamError::Argument("the rendering thread ended early".to_owned())
                })??;
                pool.push_back(sample);
                end += 1;
                if pool.len() > config.pool {
                    pool.pop_front();
                }
            }
            let Step { losses, iou, norm } = one_step(config, &mut state, pool.make_contiguous())?;
            let s = smoothed.get_or_insert((losses, iou));
            for (s, l) in s.0.iter_mut().zip(losses) {
                *s += 0.03 * (l - *s);
            }
            s.1 += 0.03 * (iou - s.1);
            if state.step.is_multiple_of(config.checkpoint_every) {
                state.save(&path, config)?;
            }
            let p = Progress {
                step: state.step,
                losses: s.0,
                iou: s.1,
                norm,
            };
            if progress(&p).is_break() {
                break;
            }
        }
        Ok(())
    })?;
    state.save(&path, config)?;
    let trunk = state.tensors();
    let mut stages = state.earlier;
    stages.push(Stage {
        training: config.clone(),
        steps: state.step,
    });
    Ok(Trained {
        trunk: trunk.into_iter().map(|(n, t)| (n, t.detach())).collect(),
        stages,
    })
}

/// What a step found.
struct Step {
    losses: [f64; LOSSES],
    /// Mean intersection over union of the parts in the batch.
    iou: f64,
    /// Norm of the gradient before clipping.
    norm: f64,
}

/// Draws a batch, takes a step.
fn one_step(config: &TrainConfig, state: &mut State, pool: &[Sample]) -> Result<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(config.seed ^ 0x5eed);
    rng.set_stream(state.step as u64 + 1);
    // The newest pairs first, then older ones at random, each at most once.
    let pairs = pool.len() / 2;
    let mut chosen: Vec<usize> = (pairs.saturating_sub(config.fresh / 2)..pairs)
        .take(config.batch / 2)
        .collect();
    while chosen.len() < (config.batch / 2).min(pairs) {
        let i = (rng.next_u64() % pairs as u64) as usize;
        if !chosen.contains(&i) {
            chosen.push(i);
        }
    }
    let mut batch = Vec::with_capacity(2 * chosen.len());
    for i in chosen {
        // Both clips of a pair are changed alike.
        let mut again = rng.clone();
        batch.push(augment(&pool[2 * i], &mut rng));
        batch.push(augment(&pool[2 * i + 1], &mut again));
    }
    // Clip by clip: what one clip needs fits into the processor's caches, what a batch needs does not.
    let tensors = state.tensors();
    let variables = &state.variables;
    let each = batch
        .par_iter()
        .map(|s| {
            let out = trunk::forward(&tensors, &input::tensor(&[&s.input])?)?;
            let losses = of_moments(&out, s)?;
            let total = f64::from(losses.total.to_scalar::<f32>()?);
            Ok((gradients(&losses.total, variables)?, losses, total))
        })
        .collect::<Result<Vec<_>>>()?;
    let share = 1.0 / each.len() as f64;
    let mut sum = Gradients::new();
    let (mut parts, mut total, mut overlap) = ([0.0; LOSSES], 0.0, Overlap::default());
    for (g, losses, t) in each {
        for (name, g) in g {
            let g = (g * share)?;
            let joined = match sum.remove(&name) {
                Some(s) => (s + g)?,
                None => g,
            };
            sum.insert(name, joined);
        }
        for (a, b) in parts.iter_mut().zip(losses.parts) {
            *a += share * b;
        }
        overlap.add(&losses.overlap);
        total += share * t;
    }
    if !total.is_finite() {
        return Err(HumansamError::Diverged {
            step: state.step,
            loss: total,
        });
    }
    let rate = learning_rate(state.step, config.steps, config.warmup, config.rate);
    let norm = state.adam.update(&state.variables, &sum, rate)?;
    state.step += 1;
    Ok(Step {
        losses: parts,
        iou: overlap.mean_iou(),
        norm,
    })
}

/// Parts of the body come in pairs, left and right, from part 4 on to part 15; a mirrored picture exchanges them.
pub(super) fn mirrored_part(part: u8) -> u8 {
    if (4..=15).contains(&part) {
        ((part - 4) ^ 1) + 4
    } else {
        part
    }
}

/// Mirrored half the time; gain and offset of colours changed; sometimes [worn](wear).
fn augment(s: &Sample, rng: &mut ChaCha8Rng) -> Sample {
    let mut s = s.clone();
    let mirror = rng.next_u32() & 1 == 1;
    let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let common = 0.8 + 0.4 * unit();
    let offset = 16.0 * (unit() - 0.5);
    let gains: [f64; 3] = std::array::from_fn(|_| common * (0.92 + 0.16 * unit()));
    let mean = (gains[0] + gains[1] + gains[2]) / 3.0;
    // Luma of the neighbours has one gain; use one gain for all channels' mean so that "no change" stays nearly none.
    let luma = 0.299 * gains[0] + 0.587 * gains[1] + 0.114 * gains[2];
    let luma = if (luma / mean - 1.0).abs() < 0.1 {
        luma
    } else {
        mean
    };
    let tables: Vec<[u8; 256]> = [gains[0], gains[1], gains[2], luma, luma]
        .iter()
        .map(|g| std::array::from_fn(|v| (v as f64 * g + offset).round().clamp(0.0, 255.0) as u8))
        .collect();
    for p in s.input.pixels.chunks_exact_mut(CHANNELS) {
        for (v, t) in p.iter_mut().zip(&tables) {
            *v = t[usize::from(*v)];
        }
    }
    wear::wear(&mut s.input, rng);
    if mirror {
        mirror_rows(&mut s.input.pixels, SIDE, CHANNELS);
        mirror_rows(&mut s.mask, HEAT_SIDE, 1);
        mirror_rows(&mut s.parts, PARTS_SIDE, 1);
        mirror_rows(&mut s.inverse_depth, PARTS_SIDE, 1);
        for p in &mut s.parts {
            *p = mirrored_part(*p);
        }
    }
    s
}

fn mirror_rows(data: &mut [u8], side: usize, channels: usize) {
    for row in data.chunks_exact_mut(side * channels) {
        for x in 0..side / 2 {
            for c in 0..channels {
                row.swap(x * channels + c, (side - 1 - x) * channels + c);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::class::Class;

    const FRAMES: usize = 3;

    /// A square that moves to the right; "forged" when it is red.
    fn sample(i: u64) -> Sample {
        let forged = i % 2 == 1;
        let mut pixels = vec![90u8; FRAMES * SIDE * SIDE * CHANNELS];
        for f in 0..FRAMES {
            for y in 20..40 {
                for x in 10 + f..30 + f {
                    let at = ((f * SIDE + y) * SIDE + x) * CHANNELS;
                    pixels[at] = if forged { 230 } else { 90 };
                    pixels[at + 2] = 200;
                }
            }
        }
        Sample {
            input: input::Input { pixels },
            nobody: false,
            label: if forged { Class::Spatial } else { Class::Real },
            active: vec![forged; FRAMES],
            mask: vec![if forged { 255 } else { 0 }; FRAMES * HEAT_SIDE * HEAT_SIDE],
            parts: vec![2; FRAMES * PARTS_SIDE * PARTS_SIDE],
            inverse_depth: vec![60; FRAMES * PARTS_SIDE * PARTS_SIDE],
        }
    }

    #[test]
    fn training_learns_and_an_interrupted_run_resumes_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 8,
            batch: 2,
            fresh: 2,
            pool: 6,
            warmup: 3,
            ..TrainConfig::default()
        };
        let values = |m: &Trained| {
            m.trunk["heat.in.weight"]
                .flatten_all()
                .unwrap()
                .to_vec1::<f32>()
                .unwrap()
        };
        let mut losses = Vec::new();
        let whole = train(
            &config,
            &dir.path().join("a"),
            false,
            None,
            |i| Ok(sample(i)),
            |p| {
                losses.push(p.losses[0] + p.losses[2]);
                ControlFlow::Continue(())
            },
        )
        .unwrap();
        assert!(losses[7] < losses[0], "{losses:?}");
        let part = dir.path().join("b");
        train(
            &config,
            &part,
            false,
            None,
            |i| Ok(sample(i)),
            |p| {
                if p.step == 5 {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            },
        )
        .unwrap();
        let resumed = train(
            &config,
            &part,
            true,
            None,
            |i| Ok(sample(i)),
            |_| ControlFlow::Continue(()),
        )
        .unwrap();
        assert_eq!(values(&whole), values(&resumed));
        let other = TrainConfig {
            rate: 1.0,
            ..config
        };
        assert!(
            train(
                &other,
                &part,
                true,
                None,
                |i| Ok(sample(i)),
                |_| ControlFlow::Continue(())
            )
            .is_err()
        );
    }

    #[test]
    fn a_run_starts_from_an_earlier_trunk_with_new_clips() {
        let dir = tempfile::tempdir().unwrap();
        let config = TrainConfig {
            steps: 3,
            batch: 2,
            fresh: 2,
            pool: 6,
            warmup: 1,
            ..TrainConfig::default()
        };
        let at = |name: &str| dir.path().join(name);
        let on = |_: &Progress| ControlFlow::Continue(());
        let source = |i: u64| Ok(sample(i));
        let first = train(&config, &at("a"), false, None, source, on).unwrap();
        let from = Trained::open(&at("a")).unwrap();
        assert_eq!(from.stages, first.stages);
        let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        for (n, t) in &from.trunk {
            assert_eq!(numbers(t), numbers(&first.trunk[n]), "{n}");
        }

        // The clips after those of the first run, its tensors, and a step of a fresh schedule.
        let seen = std::sync::Mutex::new(Vec::new());
        let noted = |i: u64| {
            seen.lock().unwrap().push(i);
            Ok(sample(i))
        };
        let stop = |_: &Progress| ControlFlow::Break(());
        let second = train(&config, &at("b"), true, Some(&from), noted, stop).unwrap();
        assert_eq!(seen.lock().unwrap()[..2], [8, 9]);
        assert_eq!(second.stages.len(), 2);
        assert_eq!(
            (&second.stages[0], second.stages[1].steps),
            (&from.stages[0], 1)
        );
        let far = |a: &Trained, b: &Trained| {
            let each = a.trunk.iter().flat_map(|(n, t)| {
                let (x, y) = (numbers(t), numbers(&b.trunk[n]));
                x.into_iter().zip(y).map(|(x, y)| (x - y).abs())
            });
            each.fold(0f32, f32::max)
        };
        // Adam's first step is as large as the rate, and not much larger with the decay.
        assert!((1e-4..3e-3).contains(&far(&second, &from)));
        let other = TrainConfig {
            seed: 2,
            ..config.clone()
        };
        let random = train(&other, &at("c"), true, None, source, stop).unwrap();
        assert!(far(&random, &from) > 1e-2);

        // A checkpoint that is there wins over --from.
        let third = train(&config, &at("b"), true, Some(&random), source, on).unwrap();
        assert_eq!(third.stages[0], from.stages[0]);
        assert_eq!(third.stages[1].steps, 3);
    }

    #[test]
    fn mirroring_twice_is_nothing() {
        let mut a: Vec<u8> = (0..=119).collect();
        let b = a.clone();
        mirror_rows(&mut a, 8, 5);
        assert_ne!(a, b);
        mirror_rows(&mut a, 8, 5);
        assert_eq!(a, b);
        assert!((0..=17).all(|p| mirrored_part(mirrored_part(p)) == p));
        assert_eq!(
            (
                mirrored_part(4),
                mirrored_part(15),
                mirrored_part(16),
                mirrored_part(3)
            ),
            (5, 14, 16, 3)
        );
    }
}
