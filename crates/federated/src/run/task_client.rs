//! A client of a run over a [`Task`]: its examples, and its part of a round.

use super::client::{Contribution, When};
use super::memory::Memory;
use crate::config::RunConfig;
use crate::local::{LocalOptions, Optimiser, Turn, adam, batch};
use crate::task::Task;
use crate::{FederatedError, NamedTensors};

/// A client's examples.
#[derive(Clone, Debug)]
pub struct Side<E> {
    /// The client's name.
    pub name: String,
    /// Examples to train on.
    pub train: Vec<E>,
    /// Examples that nobody trains on.
    pub valid: Vec<E>,
}

impl<E> Side<E> {
    /// Whether there is something to train on and to measure with.
    pub(super) fn check(&self) -> Result<(), FederatedError> {
        if !(self.train.is_empty() || self.valid.is_empty()) {
            return Ok(());
        }
        Err(FederatedError::setting(
            format!("examples of client `{}`", self.name),
            "at least one to train on and one to measure with",
            format!("{} and {}", self.train.len(), self.valid.len()),
            "give it more examples, or leave this client out",
        ))
    }
}

/// A client with everything that does not change from round to round.
pub(super) struct TaskWorker<'a, T: Task> {
    pub config: &'a RunConfig,
    pub task: &'a T,
    pub side: &'a Side<T::Example>,
    /// Number of the client.
    pub client: usize,
}

impl<T: Task> TaskWorker<'_, T> {
    /// Trains from the shared state, and puts the update through the stages of the client's side.
    ///
    /// # Errors
    /// Whatever goes wrong in training.
    pub fn contribute(
        &self,
        when: When,
        start: &NamedTensors,
        memory: &Memory,
    ) -> Result<Contribution, FederatedError> {
        let c = self.config;
        let mut out = Contribution {
            client: self.client,
            start: start.clone(),
            memory: memory.clone(),
            weight: self.side.train.len() as f64,
            bytes_down: (18 + 4 * start.count()) as u64,
            ..Contribution::default()
        };
        if let Some(noise) = c.noise() {
            let examples = &self.side.train[..noise.examples.min(self.side.train.len())];
            (out.loss, out.update) = private(self.task, start, examples, noise.clip)?;
            return Ok(out);
        }
        let turn = turn(c, self.client, when);
        let (loss, state) = train(self.task, start, &self.side.train, &c.train, turn)?;
        out.loss = loss;
        out.update = state.difference(start)?;
        if let Some(norm) = c.clip() {
            let n = out.update.norm();
            if n > norm {
                // A hair below, so that rounding cannot lift a coordinate above the bound.
                out.update.scale((norm / n * (1.0 - 1e-6)) as f32);
            }
        }
        if !c.hides_updates() {
            let kept = &mut out.memory.kept;
            (out.payload, out.update) = c.codec().encode_with_feedback(&out.update, kept)?;
            out.bytes_up = out.payload.len() as u64;
        }
        Ok(out)
    }
}

/// What decides a client's order of examples and its learning rate.
pub(super) fn turn(config: &RunConfig, client: usize, when: When) -> Turn {
    Turn {
        seed: config.seed,
        client: client as u64,
        round: when.turn,
        lr: config.train.rate(when.round, config.rounds),
    }
}

/// Mean training loss, and the state after the steps of a turn from `start`.
pub(super) fn train<T: Task>(
    task: &T,
    start: &NamedTensors,
    examples: &[T::Example],
    options: &LocalOptions,
    turn: Turn,
) -> Result<(f64, NamedTensors), FederatedError> {
    let all: Vec<&T::Example> = examples.iter().collect();
    let mut state = start.clone();
    let mut moments = (vec![0f32; state.count()], vec![0f32; state.count()]);
    let mut loss = 0.0;
    for s in 0..options.steps {
        let step = turn.round * options.steps + s;
        let chosen: Vec<&T::Example> = batch(&all, turn, step, options.batch)
            .into_iter()
            .copied()
            .collect();
        let (l, mut g) = task.gradient(&state, &chosen)?;
        if !l.is_finite() {
            return Err(FederatedError::NotFinite {
                place: "training loss".into(),
                value: l,
                remedy: "lower train.lr".into(),
            });
        }
        loss += l / options.steps as f64;
        let norm = g.norm();
        if options.clip > 0.0 && norm > options.clip {
            g.scale((options.clip / norm) as f32);
        }
        if options.prox > 0.0 {
            g.axpy(options.prox as f32, &state)?;
            g.axpy(-options.prox as f32, start)?;
        }
        match options.optimiser {
            Optimiser::Sgd => state.axpy(-turn.lr as f32, &g)?,
            Optimiser::Adam => adam(&mut state, &g, &mut moments, s, turn.lr)?,
        }
    }
    state.check_finite("a client's tensors after training")?;
    Ok((loss, state))
}

/// Mean loss, and `-sum_i g_i min(1, clip / |g_i|)`.
fn private<T: Task>(
    task: &T,
    state: &NamedTensors,
    examples: &[T::Example],
    clip: f64,
) -> Result<(f64, NamedTensors), FederatedError> {
    let mut descent = state.zeros_like();
    let mut loss = 0.0;
    for e in examples {
        let (l, g) = task.gradient(state, &[e])?;
        g.check_finite("the gradient of an example")?;
        let factor = (clip / g.norm().max(1e-30) * (1.0 - 1e-6)).min(1.0);
        descent.axpy(-factor as f32, &g)?;
        loss += l / examples.len() as f64;
    }
    Ok((loss, descent))
}
