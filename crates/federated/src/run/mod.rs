//! A federated run with all parties in this process.
//!
//! ```text
//! round:  coordinator draws clients ─► each: start of its rank ─► local training ─► update ─► stages ─► bytes
//!                                                                                                       │
//!         next state, checkpoint ◄─ server rule ◄─ combination (average, stack, residual, svd, pad) ◄───┘
//! ```
//!
//! Everything random is a function of the seed, the round and the client, and the whole state is written after each round: a run that was
//! killed goes on from its last round and ends with the same bits as an undisturbed one. Clients of a round train in parallel; their results are
//! taken in order, so that the number of threads does not matter.

mod compare;
mod export;
mod private;
mod secure;
mod state;

use std::ops::ControlFlow;
use std::path::PathBuf;
use std::time::Instant;

use rayon::prelude::*;
use tacit_bitnet::train::{Network, TrainConfig};

pub use compare::{Comparison, compare};
pub use export::{Exported, export};
pub use state::{RoundRecord, RunState};

use crate::compress::decode;
use crate::config::{Base, RunConfig, Stage};
use crate::data::{ClientData, Window, examples, tokenizer_for};
use crate::local::{Controls, LocalOutcome, Turn, evaluate, private_gradient, train};
use crate::lora::{Global, combine, start_of};
use crate::partition::{self, ClientText};
use crate::random::{permutation, stream};
use crate::rules::{apply, weighted_average};
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};
use private::PrivateSum;

/// A network with its tokenizer.
#[derive(Clone, Debug)]
pub struct BaseModel {
    /// The network.
    pub network: Network,
    /// Its tokenizer.
    pub tokenizer: tokenizers::Tokenizer,
}

/// A run with everything it needs in memory.
#[derive(Debug)]
pub struct Run {
    config: RunConfig,
    tuner: Tuner,
    tokenizer: tokenizers::Tokenizer,
    clients: Vec<ClientData>,
    validation: Vec<Window>,
    fingerprint: String,
    private: Option<PrivateSum>,
    state: RunState,
}

/// What happens in a run, told while it happens.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// A client of a round has finished its training.
    Trained {
        /// Round, from 1.
        round: usize,
        /// Client.
        client: usize,
    },
    /// A round is over and kept.
    Round(&'a RoundRecord),
}

/// A client's part of a round, as the coordinator receives it.
struct Contribution {
    client: usize,
    start: NamedTensors,
    outcome: LocalOutcome,
    /// The update after the client's stages, as the bytes that travel say it.
    update: NamedTensors,
    kept: NamedTensors,
    bytes_up: u64,
    bytes_down: u64,
}

impl Run {
    /// Prepares a run. `base` is needed unless the configuration makes a random network.
    ///
    /// # Errors
    /// Whatever is wrong with configuration, base or text; with `resume`, with the checkpoint.
    pub fn new(
        config: RunConfig,
        base: Option<BaseModel>,
        texts: &[ClientText],
        resume: bool,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        let base = match (&config.base.random, base) {
            (Some(r), _) => {
                let tokenizer = tokenizer_for(texts, r.vocab)?;
                let sizes = TrainConfig {
                    hidden: r.hidden,
                    layers: r.layers,
                    heads: r.heads,
                    ffn: r.ffn,
                    vocab: r.vocab,
                    context: r.context,
                    seed: config.seed,
                    ..TrainConfig::default()
                };
                sizes.check()?;
                BaseModel {
                    network: Network::new(&sizes),
                    tokenizer,
                }
            }
            (None, Some(base)) => base,
            (None, None) => {
                return Err(FederatedError::setting(
                    "base",
                    "a model",
                    "none",
                    "give base.model, base.checkpoint or base.random",
                ));
            }
        };
        config.method.check(texts.len())?;
        let clients = texts
            .iter()
            .map(|t| {
                examples(
                    t,
                    &base.tokenizer,
                    base.network.context(),
                    config.data.sequences,
                    config.data.validation_percent,
                )
            })
            .collect::<Result<Vec<_>, _>>()?;
        let validation = clients
            .iter()
            .flat_map(|c| {
                let limit = match config.data.validation_limit {
                    0 => c.valid.len(),
                    n => n.min(c.valid.len()),
                };
                c.valid[..limit].iter().cloned()
            })
            .collect();
        let tuner = Tuner::new(base.network, &config.method, config.seed)?;
        let fingerprint = fingerprint(&config, &tuner, &clients)?;
        let private = match (config.noise(), config.secure_bits()) {
            (Some(noise), Some(bits)) => {
                if let Some(c) = clients.iter().find(|c| c.train.len() < noise.examples) {
                    return Err(FederatedError::setting(
                        "stage (noise).examples",
                        format!("at most {}, what client `{}` has", c.train.len(), c.name),
                        noise.examples,
                        "lower it, or give that client more text",
                    ));
                }
                let values = tuner.initial(config.method.rank, 0)?.count();
                let rotation = *blake3::hash(fingerprint.as_bytes()).as_bytes();
                Some(PrivateSum::new(
                    noise,
                    config.rounds,
                    clients.len(),
                    values,
                    bits,
                    rotation,
                )?)
            }
            _ => None,
        };
        let mut run = Self {
            private,
            tuner,
            tokenizer: base.tokenizer,
            clients,
            validation,
            fingerprint,
            state: RunState::default(),
            config,
        };
        run.state = run.first_state()?;
        let checkpoint = run.checkpoint();
        if resume && checkpoint.is_file() {
            run.state = RunState::load(&checkpoint, &run.fingerprint)?;
            let initial = run.first_state()?;
            initial
                .global
                .adapter
                .check_layout(&run.state.global.adapter, "resuming")?;
        }
        Ok(run)
    }

    fn first_state(&self) -> Result<RunState, FederatedError> {
        let adapter = self.tuner.initial(self.config.method.rank, 0)?;
        let none = || vec![NamedTensors::new(); self.clients.len()];
        let mut state = RunState {
            control: NamedTensors::new(),
            controls: none(),
            kept: none(),
            ..RunState::default()
        };
        if self.config.train.scaffold {
            state.control = adapter.zeros_like();
            for (k, c) in state.controls.iter_mut().enumerate() {
                *c = self
                    .tuner
                    .initial(self.config.method.rank_of(k), 0)?
                    .zeros_like();
            }
        }
        state.global = Global {
            adapter,
            residual: NamedTensors::new(),
        };
        Ok(state)
    }

    /// The configuration.
    pub fn config(&self) -> &RunConfig {
        &self.config
    }

    /// The adapters and their base.
    pub fn tuner(&self) -> &Tuner {
        &self.tuner
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &tokenizers::Tokenizer {
        &self.tokenizer
    }

    /// The clients' examples.
    pub fn clients(&self) -> &[ClientData] {
        &self.clients
    }

    /// What the run remembers.
    pub fn state(&self) -> &RunState {
        &self.state
    }

    /// All validation sequences that are measured.
    pub fn validation(&self) -> &[Window] {
        &self.validation
    }

    /// The checkpoint's path.
    pub fn checkpoint(&self) -> PathBuf {
        self.config.out.join("run.safetensors")
    }

    /// Values that are trained and sent.
    pub fn trained_values(&self) -> usize {
        self.state.global.adapter.count()
    }

    /// Perplexity of a state over the validation text.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when the state is not the tuner's.
    pub fn perplexity(&self, global: &Global) -> Result<f64, FederatedError> {
        let network = self.tuner.network(&global.adapter, &global.residual)?;
        perplexity(&network, &self.validation)
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

    /// Clients of round `round` (from 0), ascending.
    fn drawn(&self, round: usize) -> Vec<usize> {
        let n = self.clients.len();
        let take = match self.config.clients_per_round {
            0 => n,
            k => k.min(n),
        };
        let mut rng = stream(self.config.seed, "clients of a round", &[round as u64]);
        let mut drawn = permutation(&mut rng, n);
        drawn.truncate(take);
        drawn.sort_unstable();
        drawn
    }

    fn client(&self, round: usize, client: usize) -> Result<Contribution, FederatedError> {
        let c = &self.config;
        let rank = c.method.rank_of(client);
        let global = &self.state.global;
        let start = start_of(&self.tuner, c.combine, global, rank, round as u64)?;
        let turn = Turn {
            seed: c.seed,
            client: client as u64,
            round,
            lr: c.train.rate(round, c.rounds),
        };
        if let Some(noise) = c.noise() {
            let data = &self.clients[client].train[..noise.examples];
            let g = private_gradient(&self.tuner, &start, &global.residual, data, noise.clip)?;
            return Ok(Contribution {
                client,
                outcome: LocalOutcome {
                    state: start.clone(),
                    loss: g.loss,
                    tokens: g.tokens,
                    control: None,
                },
                update: g.descent,
                kept: NamedTensors::new(),
                bytes_up: 0,
                bytes_down: (18 + 4 * start.count()) as u64,
                start,
            });
        }
        let controls = c.train.scaffold.then(|| Controls {
            server: &self.state.control,
            client: &self.state.controls[client],
        });
        let outcome = train(
            &self.tuner,
            &start,
            &global.residual,
            &self.clients[client].train,
            &c.train,
            turn,
            controls,
        )?;
        let mut update = outcome.state.difference(&start)?;
        let mut kept = self.state.kept[client].clone();
        let mut bytes_up = 0;
        for stage in &c.stages {
            if let Stage::Clip { norm } = stage {
                let n = update.norm();
                if n > *norm {
                    // A hair below, so that rounding cannot lift a coordinate above the bound.
                    update.scale((norm / n * (1.0 - 1e-6)) as f32);
                }
            }
        }
        if c.secure_bits().is_none() {
            let (bytes, said) = c.codec().encode_with_feedback(&update, &mut kept)?;
            debug_assert_eq!(decode(&bytes, &update)?, said);
            bytes_up += bytes.len() as u64;
            update = said;
        }
        // What the client is sent: its start in full precision, and SCAFFOLD's control.
        let message = |t: &NamedTensors| (18 + 4 * t.count()) as u64;
        let mut bytes_down = message(&start);
        if c.train.scaffold {
            bytes_up += message(&start);
            bytes_down += message(&start);
        }
        Ok(Contribution {
            client,
            start,
            outcome,
            update,
            kept,
            bytes_up,
            bytes_down,
        })
    }

    fn round(
        &mut self,
        tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<Option<RoundRecord>, FederatedError> {
        let began = Instant::now();
        let round = self.state.records.len();
        let drawn = self.drawn(round);
        let done: Vec<Option<Contribution>> = drawn
            .par_iter()
            .map(|&k| {
                let c = self.client(round, k)?;
                let event = Event::Trained {
                    round: round + 1,
                    client: k,
                };
                Ok(tell(event).is_continue().then_some(c))
            })
            .collect::<Result<_, FederatedError>>()?;
        let Some(contributions) = done.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut bytes_up: u64 = contributions.iter().map(|c| c.bytes_up).sum();
        let mut bytes_down: u64 = contributions.iter().map(|c| c.bytes_down).sum();
        let (mut error, mut relative, mut epsilon) = (None, None, None);
        let current = self.state.global.adapter.clone();
        let (average, residual) = if let Some(bits) = self.config.secure_bits() {
            let updates: Vec<NamedTensors> =
                contributions.iter().map(|c| c.update.clone()).collect();
            let mut session = [0u8; 16];
            session.copy_from_slice(&blake3::hash(self.fingerprint.as_bytes()).as_bytes()[..16]);
            let mut average = current.clone();
            if let Some(private) = &self.private {
                epsilon = Some(private.ledger(round + 1)?);
                let inputs = updates
                    .iter()
                    .map(|u| private.encode(u))
                    .collect::<Result<Vec<_>, _>>()?;
                let sum = secure::sum(inputs, bits, session, round as u64)?;
                bytes_up += sum.bytes_up;
                bytes_down += sum.bytes_down;
                let lr = self.config.train.rate(round, self.config.rounds);
                average.axpy(lr as f32, &private.decode(&sum.values, &current)?)?;
            } else {
                let bound = self.config.clip().unwrap_or(1.0);
                let sum = secure::mean(&updates, bound, bits, session, round as u64)?;
                bytes_up += sum.bytes_up;
                bytes_down += sum.bytes_down;
                average.axpy(1.0, &sum.mean)?;
            }
            (average, self.state.global.residual.clone())
        } else {
            let locals = contributions
                .iter()
                .map(|c| {
                    let mut local = c.start.clone();
                    local.axpy(1.0, &c.update)?;
                    let examples = self.clients[c.client].train.len();
                    Ok((local, examples as f64))
                })
                .collect::<Result<Vec<_>, FederatedError>>()?;
            let combined = combine(
                &self.tuner,
                self.config.combine,
                &self.state.global,
                &locals,
            )?;
            error = Some(combined.error);
            relative = Some(combined.relative_error);
            bytes_down += 4 * (combined.residual_values * drawn.len()) as u64;
            let average = match self.config.robust() {
                None => combined.average,
                Some(rule) => {
                    let flat: Vec<Vec<f32>> =
                        contributions.iter().map(|c| c.update.flatten()).collect();
                    let aggregate = rule.aggregate(&flat, None)?;
                    let mut average = current.clone();
                    average.axpy(1.0, &current.unflatten(&aggregate.update)?)?;
                    average
                }
            };
            (average, combined.residual)
        };
        average.check_finite("the aggregate")?;
        let adapter = apply(&self.config.rule, &mut self.state.rule, &current, &average)?;
        self.state.global = Global { adapter, residual };
        if self.config.train.scaffold {
            self.update_controls(&contributions)?;
        }
        for c in &contributions {
            self.state.kept[c.client] = c.kept.clone();
        }
        let validation_perplexity = self.perplexity(&self.state.global)?;
        let n = contributions.len() as f64;
        Ok(Some(RoundRecord {
            round: round + 1,
            clients: drawn,
            train_loss: contributions.iter().map(|c| c.outcome.loss).sum::<f64>() / n,
            validation_perplexity,
            bytes_up,
            bytes_down,
            seconds: began.elapsed().as_secs_f64(),
            aggregation_error: error,
            relative_aggregation_error: relative,
            epsilon,
            hash: self.state.hash(),
        }))
    }

    /// `c <- c + (1 / N) sum_k (c_k' - c_k)` over all N clients, and each `c_k <- c_k'`.
    fn update_controls(&mut self, contributions: &[Contribution]) -> Result<(), FederatedError> {
        let all = self.clients.len() as f32;
        for c in contributions {
            if let Some(next) = &c.outcome.control {
                let change = next.difference(&self.state.controls[c.client])?;
                self.state.control.axpy(1.0 / all, &change)?;
                self.state.controls[c.client] = next.clone();
            }
        }
        Ok(())
    }
}

/// `exp` of the mean cross-entropy.
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network.
pub fn perplexity(network: &Network, windows: &[Window]) -> Result<f64, FederatedError> {
    // Sequences in pieces, so that threads share the work; sums in order, so that their number does not matter.
    let parts: Vec<(f64, usize)> = windows
        .par_chunks(64)
        .map(|w| evaluate(network, w).map(|(l, n)| (l * n as f64, n)))
        .collect::<Result<_, _>>()?;
    let (sum, tokens) = parts.iter().fold((0.0, 0), |a, p| (a.0 + p.0, a.1 + p.1));
    Ok((sum / tokens.max(1) as f64).exp())
}

/// The mean of states, weighted by examples: what a plain federation would make of them.
///
/// # Errors
/// As [`weighted_average`].
pub fn average(states: &[(&NamedTensors, f64)]) -> Result<NamedTensors, FederatedError> {
    weighted_average(states)
}

/// The texts that a configuration asks for. `registry` is cargo's folder of dependency sources, read when no folder is named.
///
/// # Errors
/// As [`partition::read`] and [`partition::partition`].
pub fn texts(
    config: &RunConfig,
    registry: Option<PathBuf>,
) -> Result<Vec<ClientText>, FederatedError> {
    if let Some(folder) = &config.data.partition {
        return partition::read(folder);
    }
    if let Some(g) = &config.data.grammar {
        return Ok(partition::generated(
            config.seed,
            config.data.clients,
            g.documents,
            g.topics,
            g.alpha,
        ));
    }
    let mut options = config
        .data
        .folders
        .clone()
        .unwrap_or(partition::PartitionOptions {
            clients: config.data.clients,
            ..partition::PartitionOptions::default()
        });
    if options.from.is_empty() {
        options.from = registry.into_iter().collect();
    }
    partition::partition(&options)
}

/// Identifies everything a run's result depends on: settings (without where it is written), base and examples.
fn fingerprint(
    config: &RunConfig,
    tuner: &Tuner,
    clients: &[ClientData],
) -> Result<String, FederatedError> {
    let mut h = blake3::Hasher::new();
    let mut same = RunConfig {
        out: PathBuf::new(),
        ..config.clone()
    };
    // Where text and network come from does not matter; what they are is hashed below.
    same.data.folders = None;
    same.data.partition = None;
    same.base = Base::default();
    h.update(same.to_toml()?.as_bytes());
    for p in tuner.base().parameters() {
        h.update(p.name.as_bytes());
        for v in p.values {
            h.update(&v.to_le_bytes());
        }
    }
    for c in clients {
        for (ids, targets) in c.train.iter().chain(&c.valid) {
            h.update(&(ids.len() as u64).to_le_bytes());
            for i in ids.iter().chain(targets.last()) {
                h.update(&i.to_le_bytes());
            }
        }
        h.update(b"client");
    }
    Ok(h.finalize().to_hex().to_string())
}

#[cfg(test)]
mod tests;
