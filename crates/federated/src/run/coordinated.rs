//! What the coordinator of nodes needs of a run, whatever is trained.

use std::path::PathBuf;
use std::time::Instant;

use super::client::Contribution;
use super::round::Aggregate;
use super::summing::{noise_rate, session_of};
use super::{Hidden, RoundRecord, Run, RunState, drawn};
use crate::config::RunConfig;
use crate::lora::start_of;
use crate::{FederatedError, NamedTensors};

/// Measures the shared state of a run after a round: the mean loss's exponential.
pub(super) type Measure<'m> = &'m dyn Fn(&dyn Coordinated) -> Result<f64, FederatedError>;

/// The coordinator's half of a run whose clients are elsewhere.
pub(super) trait Coordinated {
    fn config(&self) -> &RunConfig;
    fn state(&self) -> &RunState;
    fn state_mut(&mut self) -> &mut RunState;
    /// What coordinator and nodes must agree on.
    fn fingerprint(&self) -> &str;
    fn hidden(&self) -> &Hidden;
    /// Clients of the run.
    fn count(&self) -> usize;
    /// Most values that a client trains.
    fn most_values(&self) -> u64;
    /// Where client `client` begins a round.
    fn start(&self, client: usize, round: usize) -> Result<NamedTensors, FederatedError>;
    fn aggregate(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError>;
    /// Makes the aggregate the next state. The record is not yet appended.
    fn finish_round(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        aggregate: Aggregate,
        began: Instant,
        measure: Measure<'_>,
    ) -> Result<RoundRecord, FederatedError>;

    /// Clients of round `round` (from 0), ascending.
    fn drawn(&self, round: usize) -> Vec<usize> {
        drawn(self.config(), self.count(), round)
    }

    /// The step along a noisy mean gradient.
    fn noise_rate(&self, round: usize, rate: f64) -> f32 {
        noise_rate(self.config(), round, rate)
    }

    /// Identifies the run in its protocols.
    fn session(&self) -> [u8; 16] {
        session_of(self.fingerprint())
    }

    fn checkpoint(&self) -> PathBuf {
        self.config().out.join("run.safetensors")
    }

    /// Adds a finished round to the state and writes the checkpoint.
    fn keep(&mut self, record: RoundRecord) -> Result<(), FederatedError> {
        self.state_mut().records.push(record);
        self.state().save(&self.checkpoint(), self.fingerprint())
    }
}

impl Coordinated for Run {
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
        let m = &self.config.method;
        let ranks = m.ranks.iter().chain([&m.rank]);
        ranks.map(|&r| self.tuner.count(r)).fold(0, u64::max)
    }

    fn start(&self, client: usize, round: usize) -> Result<NamedTensors, FederatedError> {
        let c = &self.config;
        let rank = c.method.rank_of(client);
        start_of(
            &self.tuner,
            c.combine,
            &self.state.global,
            rank,
            round as u64,
        )
    }

    fn aggregate(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError> {
        Run::aggregate(self, round, contributions)
    }

    fn finish_round(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        aggregate: Aggregate,
        began: Instant,
        measure: Measure<'_>,
    ) -> Result<RoundRecord, FederatedError> {
        Run::finish_round(self, round, contributions, aggregate, began, &|run| {
            measure(run)
        })
    }
}
