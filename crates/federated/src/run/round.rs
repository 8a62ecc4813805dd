//! A round: clients' contributions, what hides or orders them, and the next shared state.

use std::ops::ControlFlow;
use std::time::Instant;

use rayon::prelude::*;

use super::client::{Contribution, When, Worker};

use super::summing::Summing;
use super::{Event, RoundRecord, Run};
use crate::clock::in_time;
use crate::compress::decode;
use crate::lora::{Global, combine};
use crate::rules::apply;
use crate::{FederatedError, NamedTensors};

/// What the coordinator makes of a round's contributions.
#[derive(Default)]
pub(super) struct Aggregate {
    /// Adapter before the server rule.
    pub average: NamedTensors,
    pub residual: NamedTensors,
    pub bytes_up: u64,
    pub bytes_down: u64,
    pub error: Option<f64>,
    pub relative_error: Option<f64>,
    pub epsilon: Option<f64>,
}

impl Aggregate {
    /// What is noted of the round that this ends, but for the hash of the state after it.
    pub fn record(
        &self,
        round: usize,
        contributions: &[Contribution],
        validation_perplexity: f64,
        began: Instant,
    ) -> RoundRecord {
        let n = contributions.len() as f64;
        RoundRecord {
            round: round + 1,
            clients: contributions.iter().map(|c| c.client).collect(),
            train_loss: contributions.iter().map(|c| c.loss).sum::<f64>() / n,
            validation_perplexity,
            bytes_up: self.bytes_up + contributions.iter().map(|c| c.bytes_up).sum::<u64>(),
            bytes_down: self.bytes_down + contributions.iter().map(|c| c.bytes_down).sum::<u64>(),
            seconds: began.elapsed().as_secs_f64(),
            aggregation_error: self.error,
            relative_aggregation_error: self.relative_error,
            epsilon: self.epsilon,
            late: Vec::new(),
            failed: Vec::new(),
            staleness: Vec::new(),
            clock: None,
            hash: String::new(),
        }
    }
}

impl Run {
    /// Client `client`'s contribution to round `round` from the present state.
    pub(super) fn client(
        &self,
        round: usize,
        client: usize,
    ) -> Result<Contribution, FederatedError> {
        self.worker(client).contribute(
            When::round(round),
            &self.state.global,
            &self.state.control,
            &self.state.clients[client],
        )
    }

    /// Client `client` as a worker.
    pub(super) fn worker(&self, client: usize) -> Worker<'_> {
        Worker {
            config: &self.config,
            tuner: &self.tuner,
            data: &self.clients[client],
            client,
        }
    }

    /// The next round; `None` if `tell` stopped it, and then nothing has changed.
    pub(super) fn round(
        &mut self,
        tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<Option<RoundRecord>, FederatedError> {
        let began = Instant::now();
        let round = self.state.records.len();
        let drawn = self.drawn(round);
        let time = self.config.clock.map(|clock| {
            let least = self.config.least(drawn.len());
            in_time(&clock, self.config.seed, round, &drawn, least)
        });
        let (drawn, late, seconds) = time.unwrap_or((drawn, Vec::new(), 0.0));
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
        if let Some(history) = &mut self.history {
            history.keep_state(round, &self.state, &self.fingerprint)?;
            history.keep_contributions(round, &contributions, !self.config.hides_updates())?;
        }
        let aggregate = self.aggregate(round, &contributions)?;
        let measure = |run: &Self| run.perplexity(&run.state.global);
        let mut record = self.finish_round(round, &contributions, aggregate, began, &measure)?;
        record.late = late;
        if self.config.clock.is_some() {
            let before = self.state.records.last().and_then(|r| r.clock);
            record.clock = Some(before.unwrap_or(0.0) + seconds);
        }
        Ok(Some(record))
    }

    /// The update of a contribution as it arrives, its signature checked, and the bytes of that signature.
    pub(super) fn arrived(
        &self,
        round: usize,
        c: &Contribution,
    ) -> Result<(NamedTensors, u64), FederatedError> {
        let Some(signer) = &self.signer else {
            return Ok((c.update.clone(), 0));
        };
        let sealed = signer.seal(c.client, round, &c.payload)?;
        let update = decode(signer.open(&sealed, c.client, round)?, &c.update)?;
        Ok((update, (sealed.len() - c.payload.len()) as u64))
    }

    /// Makes the aggregate the next state; `measure` gives its perplexity. The record is not yet appended.
    pub(super) fn finish_round(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        mut a: Aggregate,
        began: Instant,
        measure: &dyn Fn(&Self) -> Result<f64, FederatedError>,
    ) -> Result<RoundRecord, FederatedError> {
        a.average.check_finite("the aggregate")?;
        let current = self.state.global.adapter.clone();
        let adapter = apply(
            &self.config.rule,
            &mut self.state.rule,
            &current,
            &a.average,
        )?;
        self.state.global = Global {
            adapter,
            residual: std::mem::take(&mut a.residual),
        };
        if self.config.train.scaffold {
            self.update_control(contributions)?;
        }
        for c in contributions {
            self.state.clients[c.client] = c.memory.clone();
        }
        let perplexity = measure(self)?;
        Ok(RoundRecord {
            hash: self.state.hash(),
            ..a.record(round, contributions, perplexity, began)
        })
    }

    pub(super) fn aggregate(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError> {
        if self.config.hides_updates() {
            self.hidden_sum(round, contributions)
        } else {
            self.visible(round, contributions)
        }
    }

    /// The coordinator learns a sum only.
    fn hidden_sum(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError> {
        let updates: Vec<(usize, NamedTensors)> = contributions
            .iter()
            .map(|c| (c.client, c.update.clone()))
            .collect();
        let sum = self
            .summing()
            .sum(round, &updates, &|| self.root_update(round))?;
        Ok(Aggregate {
            residual: self.state.global.residual.clone(),
            ..sum
        })
    }

    fn summing(&self) -> Summing<'_> {
        Summing {
            config: &self.config,
            hidden: &self.hidden,
            signer: self.signer.as_ref(),
            fingerprint: &self.fingerprint,
            current: &self.state.global.adapter,
        }
    }

    /// From what the groups of a round are drawn.
    #[cfg(test)]
    pub(super) fn group_seed(&self, round: usize) -> [u8; 32] {
        self.summing().group_seed(round)
    }

    /// The coordinator sees every update.
    fn visible(
        &self,
        round: usize,
        contributions: &[Contribution],
    ) -> Result<Aggregate, FederatedError> {
        let mut bytes_up = 0;
        let locals = contributions
            .iter()
            .map(|c| {
                let mut local = c.start.clone();
                let (update, more) = self.arrived(round, c)?;
                bytes_up += more;
                local.axpy(1.0, &update)?;
                Ok((local, c.weight))
            })
            .collect::<Result<Vec<_>, FederatedError>>()?;
        let combined = combine(
            &self.tuner,
            self.config.combine,
            &self.state.global,
            &locals,
        )?;
        let average = match self.config.robust() {
            None => combined.average,
            Some(rule) => {
                let flat: Vec<Vec<f32>> =
                    contributions.iter().map(|c| c.update.flatten()).collect();
                let current = &self.state.global.adapter;
                let mut average = current.clone();
                average.axpy(
                    1.0,
                    &current.unflatten(
                        &rule
                            .aggregate(&flat, self.root_update(round)?.as_deref())?
                            .update,
                    )?,
                )?;
                average
            }
        };
        Ok(Aggregate {
            average,
            residual: combined.residual,
            bytes_up,
            bytes_down: 4 * (combined.residual_values * contributions.len()) as u64,
            error: Some(combined.error),
            relative_error: Some(combined.relative_error),
            epsilon: None,
        })
    }

    /// `c <- c + (1 / N) sum_k (c_k' - c_k)` over all N clients.
    fn update_control(&mut self, contributions: &[Contribution]) -> Result<(), FederatedError> {
        let all = self.clients.len() as f32;
        for c in contributions {
            self.state.control.axpy(1.0 / all, &c.control_change)?;
        }
        Ok(())
    }
}
