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

mod buffer;
mod client;
mod compare;
mod coordinated;
mod encrypted;
mod export;
mod forget;
mod history;
mod memory;
mod own;
mod party;
mod private;
mod remote;
mod round;
mod secure;
mod signer;
mod state;
mod summing;
mod task;
mod task_client;
mod trust;
mod verified;
mod work;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;

use rayon::prelude::*;
use tacit_bitnet::train::{Network, TrainConfig};

pub use compare::{Comparison, compare};
pub use export::{Exported, export, export_model};
pub use forget::{Forgetting, Forgotten, Way, forget};
pub use history::History;
pub use memory::Memory;
pub use own::{Own, export_own};
pub use party::Party;
pub use remote::{RemoteEvent, RemoteOptions, coordinate, coordinate_task};
pub use state::{RoundRecord, RunState};
pub use task::{TaskComparison, TaskRun};
pub use task_client::Side;

use crate::config::{Base, RunConfig, Stage};
use crate::data::{ClientData, Window, examples, tokenizer_for};
use crate::local::evaluate;
use crate::lora::Global;
use crate::partition::{self, ClientText};
use crate::random::{permutation, stream};
use crate::rules::weighted_average;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};
use coordinated::Coordinated;
use encrypted::Encryption;
pub(crate) use encrypted::sensitivities;
use private::PrivateSum;
use signer::Signer;
use summing::{hidden_of, session_of};
use trust::root_data;

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
    hidden: Hidden,
    signer: Option<Signer>,
    history: Option<History>,
    /// The coordinator's own text.
    root: Option<ClientData>,
    /// Clients that take no part, as if they had never been.
    without: BTreeSet<usize>,
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

/// How a run keeps single updates from the coordinator.
#[derive(Debug)]
enum Hidden {
    /// It does not, or by a secure sum without noise.
    Plainly,
    /// Noisy gradients in a secure sum.
    Noise(PrivateSum),
    /// Ciphertexts under the clients' key.
    Encrypted(Encryption),
    /// Shares for two aggregators.
    Verified,
}

impl Run {
    /// Prepares a run. `base` is needed unless the configuration makes a random network. With `resume` it goes on from the checkpoint in its folder, if there
    /// is one; without, a checkpoint is removed when the run begins.
    ///
    /// # Errors
    /// Whatever is wrong with configuration, base or text; with `resume`, with the checkpoint.
    pub fn new(
        config: RunConfig,
        base: Option<BaseModel>,
        texts: &[ClientText],
        resume: bool,
    ) -> Result<Self, FederatedError> {
        Self::without(config, base, texts, BTreeSet::new(), resume)
    }

    /// As [`Self::new`], of a run in which some clients never take part. The others keep their numbers.
    ///
    /// # Errors
    /// As [`Self::new`]; [`FederatedError::Setting`] when nobody is left.
    pub fn without(
        config: RunConfig,
        base: Option<BaseModel>,
        texts: &[ClientText],
        without: BTreeSet<usize>,
        resume: bool,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        of_text(&config)?;
        if let Some(&far) = without.iter().find(|k| **k >= texts.len()) {
            return Err(FederatedError::setting(
                "client",
                format!("0 to {}", texts.len().saturating_sub(1)),
                far,
                "clients are counted from 0",
            ));
        }
        if without.len() == texts.len() {
            return Err(FederatedError::setting(
                "clients",
                "at least one that takes part",
                "none",
                "without clients the base model is what is left",
            ));
        }
        let base = match (&config.base.random, base) {
            (_, Some(base)) => base,
            (Some(_), None) => random_base(&config, texts)?,
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
        let tuner = Tuner::new(base.network, &config.method, config.seed)?;
        let clients = texts
            .iter()
            .enumerate()
            .map(|(k, t)| client_data(&config, &tuner, &base.tokenizer, t, k))
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
        let fingerprint = fingerprint(&config, &tuner, &clients, &without)?;
        let present: Vec<usize> = (0..clients.len())
            .filter(|k| !without.contains(k))
            .collect();
        let data: Vec<(usize, &ClientData)> = present.iter().map(|&k| (k, &clients[k])).collect();
        let mut run = Self {
            hidden: hidden(&config, &tuner, &data, &fingerprint)?,
            root: root_data(&config, &tuner, &base.tokenizer, clients.len())?,
            signer: None,
            history: None,
            without,
            tuner,
            tokenizer: base.tokenizer,
            clients,
            validation,
            fingerprint,
            state: RunState::default(),
            config,
        };
        if run.config.signed() {
            run.signer = Some(Signer::new(run.clients.len(), run.session())?);
        }
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

    /// The coordinator's half of a run whose clients are elsewhere: it holds no text.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) fn coordinator(
        config: RunConfig,
        base: BaseModel,
        clients: usize,
        resume: bool,
    ) -> Result<Self, FederatedError> {
        config.check()?;
        of_text(&config)?;
        config.method.check(clients)?;
        let tuner = Tuner::new(base.network, &config.method, config.seed)?;
        party::check_messages(&config, &tuner, crate::flower::limits::MESSAGE)?;
        let fingerprint = fingerprint(&config, &tuner, &[], &BTreeSet::new())?;
        let nobody = ClientData::default();
        let present: Vec<(usize, &ClientData)> = (0..clients).map(|k| (k, &nobody)).collect();
        let mut run = Self {
            hidden: hidden(&config, &tuner, &present, &fingerprint)?,
            root: root_data(&config, &tuner, &base.tokenizer, clients)?,
            signer: None,
            history: None,
            without: BTreeSet::new(),
            tuner,
            tokenizer: base.tokenizer,
            clients: (0..clients)
                .map(|k| ClientData {
                    name: format!("client {k}"),
                    ..ClientData::default()
                })
                .collect(),
            validation: Vec::new(),
            fingerprint,
            state: RunState::default(),
            config,
        };
        run.state = run.first_state()?;
        let checkpoint = run.checkpoint();
        if resume && checkpoint.is_file() {
            run.state = RunState::load(&checkpoint, &run.fingerprint)?;
        }
        Ok(run)
    }

    fn first_state(&self) -> Result<RunState, FederatedError> {
        let adapter = self.tuner.initial(self.config.method.rank, 0)?;
        let mut state = RunState {
            clients: (0..self.clients.len())
                .map(|k| self.worker(k).first_memory())
                .collect::<Result<_, _>>()?,
            ..RunState::default()
        };
        if self.config.train.scaffold {
            state.control = adapter.zeros_like();
        }
        state.global = Global {
            adapter,
            residual: NamedTensors::new(),
        };
        Ok(state)
    }

    /// Identifies the run in its protocols.
    fn session(&self) -> [u8; 16] {
        session_of(&self.fingerprint)
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

    /// Standard deviation of the noise in a coordinate of a round's sum, where a `noise` stage adds it.
    pub fn noise_deviation(&self) -> Option<f64> {
        match &self.hidden {
            Hidden::Noise(private) => Some(private.deviation()),
            _ => None,
        }
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
        if self.state.records.is_empty() {
            RunState::discard(&self.checkpoint())?;
        }
        if self.config.history && self.history.is_none() {
            let done = self.state.records.len();
            self.history = Some(History::open(
                &self.config.out,
                self.clients.len(),
                done as u64,
            )?);
        }
        while self.state.records.len() < self.config.rounds {
            let record = match self.config.clock.filter(|c| c.buffer > 0) {
                Some(clock) => self.buffered_step(&clock, tell)?,
                None => self.round(tell)?,
            };
            let Some(record) = record else {
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

    /// Clients of round `round` (from 0), ascending.
    fn drawn(&self, round: usize) -> Vec<usize> {
        let n = self.clients.len();
        let mut drawn = drawn(&self.config, n, round);
        drawn.retain(|k| !self.without.contains(k));
        drawn
    }
}

/// Refuses a configuration that trains something else than a language model.
fn of_text(config: &RunConfig) -> Result<(), FederatedError> {
    match config.head {
        None => Ok(()),
        Some(_) => Err(FederatedError::setting(
            "head",
            "a configuration of a language model",
            "[head]",
            "a head is trained as a task: `TaskRun`, `coordinate_task` and `Party::of_task`",
        )),
    }
}

/// Clients of round `round` (from 0) out of `n`, ascending.
fn drawn(config: &RunConfig, n: usize, round: usize) -> Vec<usize> {
    let take = match config.clients_per_round {
        0 => n,
        k => k.min(n),
    };
    let mut rng = stream(config.seed, "clients of a round", &[round as u64]);
    let mut drawn = permutation(&mut rng, n);
    drawn.truncate(take);
    drawn.sort_unstable();
    drawn
}

/// A small random network of `config.base.random`, with a tokenizer made from the texts.
///
/// # Errors
/// [`FederatedError::Training`] for sizes that do not fit together or too little text.
pub fn random_base(config: &RunConfig, texts: &[ClientText]) -> Result<BaseModel, FederatedError> {
    let r = config.base.random.clone().unwrap_or_default();
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
    Ok(BaseModel {
        tokenizer: tokenizer_for(texts, r.vocab)?,
        network: Network::new(&sizes),
    })
}

/// The examples of client number `client`, in sequences that leave room for a prompt.
fn client_data(
    config: &RunConfig,
    tuner: &Tuner,
    tokenizer: &tokenizers::Tokenizer,
    text: &ClientText,
    client: usize,
) -> Result<ClientData, FederatedError> {
    let d = &config.data;
    let context = tuner.base().context();
    let data = examples(text, tokenizer, context, d.sequences, d.validation_percent)?;
    Ok(data.few(d.train_limit, config.seed, client))
}

/// What hides the updates of a run.
fn hidden(
    config: &RunConfig,
    tuner: &Tuner,
    present: &[(usize, &ClientData)],
    fingerprint: &str,
) -> Result<Hidden, FederatedError> {
    let values = tuner.initial(config.method.rank, 0)?.count();
    hidden_of(config, values, present.len(), fingerprint, &|| {
        sensitivities(config.seed, tuner, present)
    })
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
    without: &BTreeSet<usize>,
) -> Result<String, FederatedError> {
    let mut h = blake3::Hasher::new();
    for k in without {
        h.update(b"without");
        h.update(&(*k as u64).to_le_bytes());
    }
    let mut same = RunConfig {
        out: PathBuf::new(),
        history: false,
        ..config.clone()
    };
    // Where text and network come from does not matter; what they are is hashed below. The coordinator's own text is its own affair.
    for s in &mut same.stages {
        if let Stage::Robust { root, .. } = s {
            *root = None;
        }
    }
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
mod clock_tests;
#[cfg(test)]
mod composition_tests;
#[cfg(test)]
mod fixture;
#[cfg(test)]
mod method_tests;
#[cfg(test)]
mod stage_tests;
#[cfg(test)]
mod tests;
