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

use super::loss::{Sample, of_moments};
use super::network::{CHANNELS, PARTS_SIDE, SIDE};
use super::{HEAT_SIDE, input, trunk};
use crate::error::{HumansamError, Result};
use crate::model::optimiser::{AdamW, Gradients, Variables, gradients, learning_rate};
use crate::model::weights::{Weights, read_tensors};

/// Parts of the loss.
const LOSSES: usize = 4;

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

/// The trunk's tensors in a checkpoint, and the steps it has had.
///
/// # Errors
/// When the file is no checkpoint.
pub fn trunk_of(checkpoint: &Path) -> Result<(HashMap<String, Tensor>, usize)> {
    let tensors = read_tensors(checkpoint)?;
    let state = tensors
        .get("state")
        .map(|t| t.to_vec1::<u8>())
        .transpose()?
        .unwrap_or_default();
    let (step, _): (usize, TrainConfig) =
        serde_json::from_slice(&state).map_err(|e| HumansamError::Weights {
            path: checkpoint.to_owned(),
            message: format!("is no training checkpoint: {e}"),
        })?;
    let trunk = tensors
        .into_iter()
        .filter_map(|(n, t)| n.strip_prefix("variable.").map(|n| (n.to_owned(), t)))
        .collect();
    let checked = Weights::check(checkpoint, trunk, &trunk::layout())?;
    Ok((checked.tensors().clone(), step))
}

/// Where a run stands.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Smoothed losses: kinds, heat map, parts, depth.
    pub losses: [f64; LOSSES],
    /// Norm of the gradient before clipping.
    pub norm: f64,
}

struct State {
    variables: Variables,
    adam: AdamW,
    step: usize,
}

impl State {
    fn new(config: &TrainConfig) -> Result<Self> {
        let tensors = trunk::initial(config.seed)?;
        let variables: Variables = tensors
            .iter()
            .map(|(n, t)| Ok((n.clone(), Var::from_tensor(t)?)))
            .collect::<Result<_>>()?;
        let adam = AdamW::new(&variables, config.weight_decay, config.clip, None)?;
        Ok(Self {
            variables,
            adam,
            step: 0,
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
        let state = serde_json::to_vec(&(self.step, config))
            .map_err(|e| HumansamError::Argument(e.to_string()))?;
        let length = state.len();
        tensors.insert(
            "state".to_owned(),
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
        let (step, made): (usize, TrainConfig) =
            serde_json::from_slice(&of("state")?.to_vec1::<u8>()?)
                .map_err(|e| bad(format!("training state: {e}")))?;
        // The schedule may be shortened or prolonged on the way.
        let same = |c: &TrainConfig| TrainConfig {
            checkpoint_every: 1,
            steps: 1,
            ..c.clone()
        };
        if same(&made) != same(config) {
            return Err(bad(format!(
                "was made with other settings: {made:?} instead of {config:?}"
            )));
        }
        let mut state = Self::new(config)?;
        for (n, v) in &state.variables {
            v.set(&of(&format!("variable.{n}"))?)?;
        }
        for (n, (m, s)) in &mut state.adam.moments {
            *m = of(&format!("first.{n}"))?;
            *s = of(&format!("second.{n}"))?;
        }
        state.step = step;
        state.adam.resume(step);
        Ok(state)
    }
}

/// Trains from `source`, which makes the sample of a number, and returns the trunk's tensors. `progress` may break off before the
/// schedule ends. A checkpoint in `folder` is continued when
/// `resume` is set; one is left there at the end and when `progress` breaks off.
///
/// # Errors
/// When `source` fails, the loss is no longer a number, or the checkpoint cannot be read or written.
pub fn train<S>(
    config: &TrainConfig,
    folder: &Path,
    resume: bool,
    source: S,
    mut progress: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<HashMap<String, Tensor>>
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
    let path = folder.join("checkpoint.safetensors");
    let mut state = if resume && path.is_file() {
        State::load(&path, config)?
    } else {
        State::new(config)?
    };
    let wanted = |step: usize| (config.batch + step * config.fresh) as u64;
    let first = wanted(state.step).saturating_sub(config.pool as u64);
    let last = wanted(config.steps);
    let (sender, receiver) = sync_channel::<Result<Sample>>(2 * config.batch);
    std::thread::scope(|scope| -> Result<()> {
        let source = &source;
        scope.spawn(move || {
            for i in first..last {
                // The other side hangs up when it stops early.
                if sender.send(source(i)).is_err() {
                    break;
                }
            }
        });
        let mut pool: VecDeque<Sample> = VecDeque::new();
        let mut end = first;
        let mut smoothed: Option<[f64; LOSSES]> = None;
        let receiver = receiver;
        while state.step < config.steps {
            while end < wanted(state.step) {
                let sample = receiver.recv().map_err(|_| {
                    HumansamError::Argument("the rendering thread ended early".to_owned())
                })??;
                pool.push_back(sample);
                end += 1;
                if pool.len() > config.pool {
                    pool.pop_front();
                }
            }
            let (losses, norm) = one_step(config, &mut state, pool.make_contiguous())?;
            let s = smoothed.get_or_insert(losses);
            for (s, l) in s.iter_mut().zip(losses) {
                *s += 0.03 * (l - *s);
            }
            if state.step.is_multiple_of(config.checkpoint_every) {
                state.save(&path, config)?;
            }
            let p = Progress {
                step: state.step,
                losses: *s,
                norm,
            };
            if progress(&p).is_break() {
                break;
            }
        }
        Ok(())
    })?;
    state.save(&path, config)?;
    Ok(state
        .tensors()
        .into_iter()
        .map(|(n, t)| (n, t.detach()))
        .collect())
}

/// Draws a batch, takes a step. Returns the losses and the gradient's norm.
fn one_step(
    config: &TrainConfig,
    state: &mut State,
    pool: &[Sample],
) -> Result<([f64; LOSSES], f64)> {
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
            Ok((gradients(&losses.total, variables)?, losses.parts, total))
        })
        .collect::<Result<Vec<_>>>()?;
    let share = 1.0 / each.len() as f64;
    let mut sum = Gradients::new();
    let (mut parts, mut total) = ([0.0; LOSSES], 0.0);
    for (g, p, t) in each {
        for (name, g) in g {
            let g = (g * share)?;
            let joined = match sum.remove(&name) {
                Some(s) => (s + g)?,
                None => g,
            };
            sum.insert(name, joined);
        }
        parts.iter_mut().zip(p).for_each(|(a, b)| *a += share * b);
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
    Ok((parts, norm))
}

/// Parts of the body come in pairs, left and right, from part 4 on to part 15; a mirrored picture exchanges them.
pub(super) fn mirrored_part(part: u8) -> u8 {
    if (4..=15).contains(&part) {
        ((part - 4) ^ 1) + 4
    } else {
        part
    }
}

/// Mirrored half the time; gain and offset of colours changed.
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
        let values = |m: &HashMap<String, Tensor>| {
            m["heat.in.weight"]
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
                |i| Ok(sample(i)),
                |_| ControlFlow::Continue(())
            )
            .is_err()
        );
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
