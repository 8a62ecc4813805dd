//! A run of rounds over a [`Task`], with all parties in this process: the same drawing of clients, stages, rules and checkpoint as a run over text.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;

use super::memory::Memory;
use super::round::Aggregate;
use super::signer::Signer;
use super::summing::{Summing, hidden_of, session_of};
use super::{Event, Hidden, RoundRecord, RunState, drawn};
use crate::compress::decode;
use crate::config::RunConfig;
use crate::local::{LocalOptions, Optimiser, Turn, adam, batch};
use crate::lora::Global;
use crate::rules::{apply, weighted_average};
use crate::task::{Measured, Task};
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

/// What the federation is worth: the same training alone, and on all examples in one place.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct TaskComparison {
    /// Before any training.
    pub start: Measured,
    /// The run's state.
    pub federated: Measured,
    /// One party with the examples of all.
    pub central: Measured,
    /// Each client by itself, on all clients' validation examples.
    pub alone: Vec<Measured>,
}

/// A run over a task.
#[derive(Debug)]
pub struct TaskRun<'t, T: Task> {
    config: RunConfig,
    task: &'t T,
    clients: Vec<Side<T::Example>>,
    fingerprint: String,
    hidden: Hidden,
    signer: Option<Signer>,
    state: RunState,
}

/// A client's part of a round.
struct Part {
    client: usize,
    update: NamedTensors,
    memory: Memory,
    payload: Vec<u8>,
    loss: f64,
    weight: f64,
}

impl<'t, T: Task> TaskRun<'t, T> {
    /// Prepares a run; with `resume` it goes on from the checkpoint in its folder, if there is one.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] for settings and clients that do not fit, and whatever is wrong with the checkpoint.
    pub fn new(
        config: RunConfig,
        task: &'t T,
        clients: Vec<Side<T::Example>>,
        resume: bool,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        for c in &clients {
            if c.train.is_empty() || c.valid.is_empty() {
                return Err(FederatedError::setting(
                    format!("examples of client `{}`", c.name),
                    "at least one to train on and one to measure with",
                    format!("{} and {}", c.train.len(), c.valid.len()),
                    "give it more examples, or leave this client out",
                ));
            }
        }
        if clients.is_empty() {
            return Err(FederatedError::setting(
                "clients",
                "at least one",
                "none",
                "name their tables",
            ));
        }
        let initial = task.initial()?;
        let fingerprint = fingerprint(&config, task, &initial, &clients)?;
        let nothing = || Ok(Vec::new());
        let mut run = Self {
            hidden: hidden_of(
                &config,
                initial.count(),
                clients.len(),
                &fingerprint,
                &nothing,
            )?,
            signer: None,
            state: RunState {
                global: Global {
                    adapter: initial,
                    residual: NamedTensors::new(),
                },
                clients: vec![Memory::default(); clients.len()],
                ..RunState::default()
            },
            config,
            task,
            clients,
            fingerprint,
        };
        if run.config.signed() {
            let session = session_of(&run.fingerprint);
            run.signer = Some(Signer::new(run.clients.len(), session)?);
        }
        let checkpoint = run.checkpoint();
        if resume && checkpoint.is_file() {
            let kept = RunState::load(&checkpoint, &run.fingerprint)?;
            let adapter = &run.state.global.adapter;
            adapter.check_layout(&kept.global.adapter, "resuming")?;
            run.state = kept;
        }
        Ok(run)
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The clients.
    pub fn clients(&self) -> &[Side<T::Example>] {
        &self.clients
    }

    /// The shared tensors.
    pub fn shared(&self) -> &NamedTensors {
        &self.state.global.adapter
    }

    /// Rounds done.
    pub fn records(&self) -> &[RoundRecord] {
        &self.state.records
    }

    /// The checkpoint's path.
    pub fn checkpoint(&self) -> PathBuf {
        self.config.out.join("run.safetensors")
    }

    /// How a state does on the validation examples of all clients.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when the state is not the task's.
    pub fn measure(&self, state: &NamedTensors) -> Result<Measured, FederatedError> {
        let each = self
            .clients
            .par_iter()
            .map(|c| self.task.measure(state, &c.valid))
            .collect::<Result<Vec<_>, _>>()?;
        let n: usize = each.iter().map(|m| m.examples).sum();
        let mean = |of: &dyn Fn(&Measured) -> f64| {
            each.iter().map(|m| of(m) * m.examples as f64).sum::<f64>() / n.max(1) as f64
        };
        Ok(Measured {
            loss: mean(&|m| m.loss),
            right: mean(&|m| m.right),
            examples: n,
        })
    }

    /// Runs the remaining rounds. `tell` may stop the run after any event; finished rounds are kept. Returns whether it ran to the end.
    ///
    /// # Errors
    /// Whatever goes wrong in training, aggregation or writing.
    pub fn run(
        &mut self,
        tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<bool, FederatedError> {
        std::fs::create_dir_all(&self.config.out)
            .map_err(|e| FederatedError::io(&self.config.out, e))?;
        while self.state.records.len() < self.config.rounds {
            let Some(record) = self.round(tell)? else {
                return Ok(false);
            };
            self.state.records.push(record);
            self.state.save(&self.checkpoint(), &self.fingerprint)?;
            if let Some(record) = self.state.records.last()
                && tell(Event::Round(record)).is_break()
                && self.state.records.len() < self.config.rounds
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The next round; `None` if `tell` stopped it, and then nothing has changed.
    fn round(
        &mut self,
        tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<Option<RoundRecord>, FederatedError> {
        let began = Instant::now();
        let round = self.state.records.len();
        let drawn = drawn(&self.config, self.clients.len(), round);
        let parts: Vec<Option<Part>> = drawn
            .par_iter()
            .map(|&client| {
                let part = self.contribute(round, client)?;
                let event = Event::Trained {
                    round: round + 1,
                    client,
                };
                Ok(tell(event).is_continue().then_some(part))
            })
            .collect::<Result<_, FederatedError>>()?;
        let Some(parts) = parts.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let a = self.aggregate(round, &parts)?;
        a.average.check_finite("the aggregate")?;
        let down = (18 + 4 * a.average.count()) as u64;
        let current = self.state.global.adapter.clone();
        let rule = &self.config.rule;
        self.state.global.adapter = apply(rule, &mut self.state.rule, &current, &a.average)?;
        let n = parts.len();
        let sent: u64 = parts.iter().map(|p| p.payload.len() as u64).sum();
        let train_loss = parts.iter().map(|p| p.loss).sum::<f64>() / n as f64;
        for p in parts {
            self.state.clients[p.client] = p.memory;
        }
        Ok(Some(RoundRecord {
            round: round + 1,
            clients: drawn,
            train_loss,
            validation_perplexity: self.measure(&self.state.global.adapter)?.loss.exp(),
            bytes_up: a.bytes_up + sent,
            bytes_down: a.bytes_down + down * n as u64,
            seconds: began.elapsed().as_secs_f64(),
            aggregation_error: None,
            relative_aggregation_error: None,
            epsilon: a.epsilon,
            late: Vec::new(),
            failed: Vec::new(),
            staleness: Vec::new(),
            clock: None,
            hash: self.state.hash(),
        }))
    }

    /// Trains a client from the shared state and puts its update through the stages of its side.
    fn contribute(&self, round: usize, client: usize) -> Result<Part, FederatedError> {
        let c = &self.config;
        let start = &self.state.global.adapter;
        let side = &self.clients[client];
        let mut part = Part {
            client,
            update: NamedTensors::new(),
            memory: self.state.clients[client].clone(),
            payload: Vec::new(),
            loss: 0.0,
            weight: side.train.len() as f64,
        };
        if let Some(noise) = c.noise() {
            let examples = &side.train[..noise.examples.min(side.train.len())];
            (part.loss, part.update) = self.private(start, examples, noise.clip)?;
            return Ok(part);
        }
        let turn = Turn {
            seed: c.seed,
            client: client as u64,
            round,
            lr: c.train.rate(round, c.rounds),
        };
        let (loss, state) = self.train(start, &side.train, &c.train, turn)?;
        part.loss = loss;
        part.update = state.difference(start)?;
        if let Some(norm) = c.clip() {
            let n = part.update.norm();
            if n > norm {
                // A hair below, so that rounding cannot lift a coordinate above the bound.
                part.update.scale((norm / n * (1.0 - 1e-6)) as f32);
            }
        }
        if !c.hides_updates() {
            let kept = &mut part.memory.kept;
            (part.payload, part.update) = c.codec().encode_with_feedback(&part.update, kept)?;
        }
        Ok(part)
    }

    fn train(
        &self,
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
            let (l, mut g) = self.task.gradient(&state, &chosen)?;
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
    fn private(
        &self,
        state: &NamedTensors,
        examples: &[T::Example],
        clip: f64,
    ) -> Result<(f64, NamedTensors), FederatedError> {
        let mut descent = state.zeros_like();
        let mut loss = 0.0;
        for e in examples {
            let (l, g) = self.task.gradient(state, &[e])?;
            g.check_finite("the gradient of an example")?;
            let factor = (clip / g.norm().max(1e-30) * (1.0 - 1e-6)).min(1.0);
            descent.axpy(-factor as f32, &g)?;
            loss += l / examples.len() as f64;
        }
        Ok((loss, descent))
    }

    fn aggregate(&self, round: usize, parts: &[Part]) -> Result<Aggregate, FederatedError> {
        let current = &self.state.global.adapter;
        if self.config.hides_updates() {
            let updates: Vec<(usize, NamedTensors)> =
                parts.iter().map(|p| (p.client, p.update.clone())).collect();
            let summing = Summing {
                config: &self.config,
                hidden: &self.hidden,
                signer: self.signer.as_ref(),
                fingerprint: &self.fingerprint,
                current,
            };
            return summing.sum(round, &updates, &|| Ok(None));
        }
        let mut bytes_up = 0;
        let mut updates = Vec::with_capacity(parts.len());
        for p in parts {
            let update = match &self.signer {
                None => p.update.clone(),
                Some(signer) => {
                    let sealed = signer.seal(p.client, round, &p.payload)?;
                    bytes_up += (sealed.len() - p.payload.len()) as u64;
                    decode(signer.open(&sealed, p.client, round)?, &p.update)?
                }
            };
            updates.push((update, p.weight));
        }
        let mean = match self.config.robust() {
            None => {
                let all: Vec<(&NamedTensors, f64)> = updates.iter().map(|(u, w)| (u, *w)).collect();
                weighted_average(&all)?
            }
            Some(rule) => {
                let flat: Vec<Vec<f32>> = updates.iter().map(|(u, _)| u.flatten()).collect();
                current.unflatten(&rule.aggregate(&flat, None)?.update)?
            }
        };
        let mut average = current.clone();
        average.axpy(1.0, &mean)?;
        Ok(Aggregate {
            average,
            bytes_up,
            ..Aggregate::default()
        })
    }

    /// The same number of steps by each client alone, and on the examples of all in one place.
    ///
    /// # Errors
    /// Whatever goes wrong in training.
    pub fn compare(&self) -> Result<TaskComparison, FederatedError>
    where
        T::Example: Clone,
    {
        let start = self.task.initial()?;
        let c = &self.config;
        let alone = |client: usize, examples: &[T::Example]| -> Result<Measured, FederatedError> {
            let mut state = start.clone();
            for round in 0..c.rounds {
                let turn = Turn {
                    seed: c.seed,
                    client: client as u64,
                    round,
                    lr: c.train.rate(round, c.rounds),
                };
                state = self.train(&state, examples, &c.train, turn)?.1;
            }
            self.measure(&state)
        };
        let all: Vec<T::Example> = self.clients.iter().flat_map(|s| s.train.clone()).collect();
        Ok(TaskComparison {
            start: self.measure(&start)?,
            federated: self.measure(&self.state.global.adapter)?,
            central: alone(self.clients.len(), &all)?,
            alone: (0..self.clients.len())
                .into_par_iter()
                .map(|k| alone(k, &self.clients[k].train))
                .collect::<Result<_, _>>()?,
        })
    }
}

/// Identifies everything a run's result depends on: settings (without where it is written and where tables lie), start and examples.
fn fingerprint<T: Task>(
    config: &RunConfig,
    task: &T,
    initial: &NamedTensors,
    clients: &[Side<T::Example>],
) -> Result<String, FederatedError> {
    let mut same = RunConfig {
        out: PathBuf::new(),
        ..config.clone()
    };
    if let Some(head) = &mut same.head {
        head.model = None;
        head.tables.iter_mut().for_each(|t| *t = PathBuf::new());
    }
    let mut h = blake3::Hasher::new();
    h.update(same.to_toml()?.as_bytes());
    h.update(initial.content_hash().as_bytes());
    let mut bytes = Vec::new();
    for c in clients {
        for e in c.train.iter().chain(&c.valid) {
            bytes.clear();
            task.identify(e, &mut bytes);
            h.update(&bytes);
        }
        h.update(b"client");
    }
    Ok(h.finalize().to_hex().to_string())
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
