//! A client's part of a round: what it is given, what it sends.

use super::memory::Memory;
use crate::compress::decode;
use crate::config::RunConfig;
use crate::data::ClientData;
use crate::local::{Controls, Guidance, LocalOptions, LocalOutcome, Turn, private_gradient, train};
use crate::lora::{Global, start_of};
use crate::personal::{Moves, Order};
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors, personal};

/// A client's part of a round, as the coordinator receives it.
#[derive(Default)]
pub(super) struct Contribution {
    pub client: usize,
    /// The rank's cut of the shared state, from which the client began.
    pub start: NamedTensors,
    /// Mean training loss, nats per token.
    pub loss: f64,
    /// Tokens trained on.
    pub tokens: usize,
    /// The update after the client's stages, as the bytes that travel say it.
    pub update: NamedTensors,
    /// By how much SCAFFOLD's control variate of this client has changed; empty without it.
    pub control_change: NamedTensors,
    /// What the client remembers from now on.
    pub memory: Memory,
    /// Weight in an average: the client's examples.
    pub weight: f64,
    /// The update as it travels, where no hidden sum carries it.
    pub payload: Vec<u8>,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// Which training of a client it is.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    /// How many it has done before, which decides the order of its examples.
    pub turn: usize,
    /// Steps that the coordinator has taken, which decide the learning rate.
    pub round: usize,
}

impl When {
    /// In a run of rounds both are the round's number.
    pub fn round(round: usize) -> Self {
        Self { turn: round, round }
    }
}

/// A client with everything that does not change from round to round.
#[derive(Clone, Copy)]
pub(super) struct Worker<'a> {
    pub config: &'a RunConfig,
    pub tuner: &'a Tuner,
    pub data: &'a ClientData,
    /// Number of the client.
    pub client: usize,
}

impl Worker<'_> {
    /// What the client remembers before its first round.
    ///
    /// # Errors
    /// Never for the tuner's own layout.
    pub fn first_memory(&self) -> Result<Memory, FederatedError> {
        let c = self.config;
        let mut memory = Memory::default();
        if c.train.scaffold {
            let like = self.tuner.initial(c.method.rank_of(self.client), 0)?;
            memory.control = like.zeros_like();
        }
        if let Some(p) = c.personal {
            memory.personal = personal::initial(self.tuner, p.rank, self.client)?;
        }
        Ok(memory)
    }

    /// Trains from the shared state, and puts the update through the stages of the client's side. `control` is SCAFFOLD's
    /// server control.
    ///
    /// # Errors
    /// Whatever goes wrong in training.
    pub fn contribute(
        &self,
        when: When,
        global: &Global,
        control: &NamedTensors,
        memory: &Memory,
    ) -> Result<Contribution, FederatedError> {
        let c = self.config;
        let rank = c.method.rank_of(self.client);
        let start = start_of(self.tuner, c.combine, global, rank, when.round as u64)?;
        // What the client is sent: its start in full precision.
        let message = |t: &NamedTensors| (18 + 4 * t.count()) as u64;
        let mut out = Contribution {
            client: self.client,
            weight: self.data.train.len() as f64,
            bytes_down: message(&start),
            memory: memory.clone(),
            ..Contribution::default()
        };
        if let Some(noise) = c.noise() {
            let examples = noise.examples.min(self.data.train.len());
            let g = private_gradient(
                self.tuner,
                &start,
                &global.residual,
                &self.data.train[..examples],
                noise.clip,
            )?;
            (out.loss, out.tokens, out.update) = (g.loss, g.tokens, g.descent);
            out.start = start;
            return Ok(out);
        }
        let local = self.trained(when, &start, &global.residual, control, memory)?;
        (out.loss, out.tokens) = (local.loss, local.tokens);
        if let Some(next) = local.control {
            out.control_change = next.difference(&memory.control)?;
            out.memory.control = next;
            out.bytes_up += message(&start);
            out.bytes_down += message(&start);
        }
        let state = if c.personal.is_some() {
            let (shared, private) = personal::split(&local.state, rank)?;
            out.memory.personal = private;
            shared
        } else {
            local.state
        };
        out.update = state.difference(&start)?;
        if let Some(norm) = c.clip() {
            let n = out.update.norm();
            if n > norm {
                // A hair below, so that rounding cannot lift a coordinate above the bound.
                out.update.scale((norm / n * (1.0 - 1e-6)) as f32);
            }
        }
        if !c.hides_updates() {
            let kept = &mut out.memory.kept;
            let (bytes, said) = c.codec().encode_with_feedback(&out.update, kept)?;
            debug_assert_eq!(decode(&bytes, &out.update)?, said);
            out.payload = bytes;
            out.update = said;
        }
        out.bytes_up += out.payload.len() as u64;
        out.start = start;
        Ok(out)
    }

    /// Local training from `start`, joined with the client's private part where it has one.
    fn trained(
        &self,
        when: When,
        start: &NamedTensors,
        residual: &NamedTensors,
        control: &NamedTensors,
        memory: &Memory,
    ) -> Result<LocalOutcome, FederatedError> {
        let c = self.config;
        let turn = Turn {
            seed: c.seed,
            client: self.client as u64,
            round: when.turn,
            lr: c.train.rate(when.round, c.rounds),
        };
        let go = |state: &NamedTensors, options: &LocalOptions, guidance: Guidance<'_>| {
            let data = &self.data.train;
            train(self.tuner, state, residual, data, options, turn, guidance)
        };
        let Some(p) = c.personal else {
            let controls = c.train.scaffold.then_some(Controls {
                server: control,
                client: &memory.control,
            });
            let guidance = Guidance {
                controls,
                ..Guidance::default()
            };
            return go(start, &c.train, guidance);
        };
        let rank = c.method.rank_of(self.client);
        let moving = |moves| Guidance {
            moves,
            ..Guidance::default()
        };
        let joined = personal::join(start, &memory.personal)?;
        match p.order {
            Order::Together => go(&joined, &c.train, moving(Moves::All)),
            Order::Alternate => {
                let first = LocalOptions {
                    steps: p.steps,
                    ..c.train.clone()
                };
                let first = go(&joined, &first, moving(Moves::Private(rank)))?;
                let mut then = go(&first.state, &c.train, moving(Moves::Shared(rank)))?;
                then.tokens += first.tokens;
                Ok(then)
            }
        }
    }
}
