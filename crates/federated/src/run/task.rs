//! A run of rounds over a [`Task`]: the same drawing of clients, stages, rules and checkpoint as a run over text. Its clients are in this process, or nodes.

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;

use super::client::{Contribution, When};
use super::coordinated::{Coordinated, Measure};
use super::memory::Memory;
use super::party::{check_remote, check_values};
use super::round::Aggregate;
use super::signer::Signer;
use super::summing::{Summing, hidden_of, session_of};
use super::task_client::{Side, TaskWorker, train, turn};
use super::{Event, Hidden, RoundRecord, RunState, drawn};
use crate::compress::decode;
use crate::config::RunConfig;
use crate::lora::Global;
use crate::rules::{apply, weighted_average};
use crate::task::{Measured, Task};
use crate::{FederatedError, NamedTensors};

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

impl<'t, T: Task> TaskRun<'t, T> {
    /// Prepares a run; with `resume` it goes on from the checkpoint in its folder, if there is one; without, a checkpoint is
    /// removed when the run begins.
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
            c.check()?;
        }
        Self::begun(config, task, clients, resume, true)
    }

    /// The coordinator's half of a run whose clients are elsewhere: it has none of their examples.
    ///
    /// # Errors
    /// As [`Self::new`]; [`FederatedError::Setting`] for stages that need all parties in one process.
    pub(crate) fn coordinator(
        config: RunConfig,
        task: &'t T,
        clients: usize,
        resume: bool,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        check_remote(&config)?;
        let nobody = |k: usize| Side {
            name: format!("client {k}"),
            train: Vec::new(),
            valid: Vec::new(),
        };
        let clients = (0..clients).map(nobody).collect();
        let run = Self::begun(config, task, clients, resume, false)?;
        check_values(run.shared().count() as u64)?;
        Ok(run)
    }

    fn begun(
        config: RunConfig,
        task: &'t T,
        clients: Vec<Side<T::Example>>,
        resume: bool,
        here: bool,
    ) -> Result<Self, FederatedError> {
        if clients.is_empty() {
            return Err(FederatedError::setting(
                "clients",
                "at least one",
                "none",
                "name their tables",
            ));
        }
        let initial = task.initial()?;
        let fingerprint = fingerprint(&config, task, &initial, if here { &clients } else { &[] })?;
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
        // Between machines the clients sign with keys of their own.
        if here && run.config.signed() {
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
        if self.state.records.is_empty() {
            RunState::discard(&self.checkpoint())?;
        }
        while self.state.records.len() < self.config.rounds {
            let Some(record) = self.round(tell)? else {
                return Ok(false);
            };
            self.keep(record)?;
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
        let done: Vec<Option<Contribution>> = drawn
            .par_iter()
            .map(|&client| {
                let start = &self.state.global.adapter;
                let memory = &self.state.clients[client];
                let c = (self.worker(client)).contribute(When::round(round), start, memory)?;
                let event = Event::Trained {
                    round: round + 1,
                    client,
                };
                Ok(tell(event).is_continue().then_some(c))
            })
            .collect::<Result<_, FederatedError>>()?;
        let Some(contributions) = done.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let aggregate = self.aggregate(round, &contributions)?;
        let measure = |run: &Self| Ok(run.measure(&run.state.global.adapter)?.loss.exp());
        self.finish_round(round, &contributions, aggregate, began, &measure)
            .map(Some)
    }

    fn worker(&self, client: usize) -> TaskWorker<'_, T> {
        TaskWorker {
            config: &self.config,
            task: self.task,
            side: &self.clients[client],
            client,
        }
    }

    fn finish_round(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        a: Aggregate,
        began: Instant,
        measure: &dyn Fn(&Self) -> Result<f64, FederatedError>,
    ) -> Result<RoundRecord, FederatedError> {
        a.average.check_finite("the aggregate")?;
        let current = self.state.global.adapter.clone();
        let rule = &self.config.rule;
        self.state.global.adapter = apply(rule, &mut self.state.rule, &current, &a.average)?;
        for c in contributions {
            self.state.clients[c.client] = c.memory.clone();
        }
        let perplexity = measure(self)?;
        Ok(RoundRecord {
            hash: self.state.hash(),
            ..a.record(round, contributions, perplexity, began)
        })
    }

    fn aggregate(&self, round: usize, parts: &[Contribution]) -> Result<Aggregate, FederatedError> {
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
        let alone = |client: usize, examples: &[T::Example]| -> Result<Measured, FederatedError> {
            let mut state = start.clone();
            for round in 0..self.config.rounds {
                let turn = turn(&self.config, client, When::round(round));
                state = train(self.task, &state, examples, &self.config.train, turn)?.1;
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

impl<T: Task> Coordinated for TaskRun<'_, T> {
    fn config(&self) -> &RunConfig {
        &self.config
    }

    fn state(&self) -> &RunState {
        &self.state
    }

    fn state_mut(&mut self) -> &mut RunState {
        &mut self.state
    }

    fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    fn hidden(&self) -> &Hidden {
        &self.hidden
    }

    fn count(&self) -> usize {
        self.clients.len()
    }

    fn most_values(&self) -> u64 {
        self.shared().count() as u64
    }

    fn start(&self, _: usize, _: usize) -> Result<NamedTensors, FederatedError> {
        Ok(self.shared().clone())
    }

    fn aggregate(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError> {
        TaskRun::aggregate(self, round, contributions)
    }

    fn finish_round(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        aggregate: Aggregate,
        began: Instant,
        measure: Measure<'_>,
    ) -> Result<RoundRecord, FederatedError> {
        TaskRun::finish_round(self, round, contributions, aggregate, began, &|run| {
            measure(run)
        })
    }
}

/// Identifies everything a run's result depends on: settings (without where it is written and where tables lie), task, start and examples.
pub(super) fn fingerprint<T: Task>(
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
    h.update(task.setting().as_bytes());
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
pub(super) mod tests;
