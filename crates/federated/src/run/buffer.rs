//! A coordinator without rounds: steps whenever its buffer is full (see [`crate::clock`]).

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

use rayon::prelude::*;

use super::client::{Contribution, When};
use super::round::Aggregate;
use super::{Event, RoundRecord, Run};
use crate::clock::{Arrival, Clock, buffered, staleness_weight};
use crate::lora::Global;
use crate::{FederatedError, NamedTensors};

impl Run {
    /// The next step of the coordinator; `None` if `tell` stopped it, and then nothing has changed.
    pub(super) fn buffered_step(
        &mut self,
        clock: &Clock,
        tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
    ) -> Result<Option<RoundRecord>, FederatedError> {
        let began = Instant::now();
        let step = self.state.records.len();
        // Clients that take no part are counted out, and keep their numbers.
        let present: Vec<usize> = (0..self.clients.len())
            .filter(|k| !self.without.contains(k))
            .collect();
        let working = match self.config.clients_per_round {
            0 => present.len(),
            n => n,
        };
        let plan = buffered(clock, self.config.seed, present.len(), working, step);
        // A client's updates follow one another, different clients work at the same time.
        let mut by_client: BTreeMap<usize, Vec<(usize, Arrival)>> = BTreeMap::new();
        for (place, a) in plan.arrivals.iter().enumerate() {
            by_client.entry(a.client).or_default().push((place, *a));
        }
        let done: Vec<Option<Vec<(usize, Contribution)>>> = by_client
            .into_par_iter()
            .map(|(place, arrivals)| {
                let client = present[place];
                let made = self.updates(client, &arrivals)?;
                let event = Event::Trained {
                    round: step + 1,
                    client,
                };
                Ok(tell(event).is_continue().then_some(made))
            })
            .collect::<Result<_, FederatedError>>()?;
        let Some(done) = done.into_iter().collect::<Option<Vec<_>>>() else {
            return Ok(None);
        };
        let mut in_order: Vec<(usize, Contribution)> = done.into_iter().flatten().collect();
        in_order.sort_by_key(|c| c.0);
        let contributions: Vec<Contribution> = in_order.into_iter().map(|c| c.1).collect();
        let staleness: Vec<usize> = plan.arrivals.iter().map(|a| step - a.version).collect();
        let aggregate = self.buffer_mean(step, &contributions, &staleness)?;
        let before = self.state.global.adapter.clone();
        let measure = |run: &Self| run.perplexity(&run.state.global);
        let mut record = self.finish_round(step, &contributions, aggregate, began, &measure)?;
        record.staleness = staleness;
        record.clock = plan.arrivals.last().map(|a| a.time);
        self.state.versions.insert(step, before);
        self.state.versions.retain(|v, _| plan.at_work.contains(v));
        Ok(Some(record))
    }

    /// What one client sends for these arrivals, one after the other.
    fn updates(
        &self,
        client: usize,
        arrivals: &[(usize, Arrival)],
    ) -> Result<Vec<(usize, Contribution)>, FederatedError> {
        let mut memory = self.state.clients[client].clone();
        let mut out = Vec::with_capacity(arrivals.len());
        for (place, a) in arrivals {
            let adapter = match self.state.versions.get(&a.version) {
                Some(old) => old.clone(),
                None => self.state.global.adapter.clone(),
            };
            let global = Global {
                adapter,
                residual: NamedTensors::new(),
            };
            let when = When {
                turn: a.turn,
                round: a.version,
            };
            let c = self
                .worker(client)
                .contribute(when, &global, &self.state.control, &memory)?;
            memory = c.memory.clone();
            out.push((*place, c));
        }
        Ok(out)
    }

    /// `x + (1 / K) sum_i D_i / sqrt(1 + tau_i)`, or the robust rule over the weighted updates.
    pub(super) fn buffer_mean(
        &self,
        step: usize,
        contributions: &[Contribution],
        staleness: &[usize],
    ) -> Result<Aggregate, FederatedError> {
        let current = &self.state.global.adapter;
        let mut bytes_up = 0;
        let updates = contributions
            .iter()
            .zip(staleness)
            .map(|(c, &tau)| {
                let (mut update, more) = self.arrived(step, c)?;
                bytes_up += more;
                update.scale(staleness_weight(tau) as f32);
                Ok(update)
            })
            .collect::<Result<Vec<_>, FederatedError>>()?;
        let mut average = current.clone();
        match self.config.robust() {
            Some(rule) => {
                let flat: Vec<Vec<f32>> = updates.iter().map(NamedTensors::flatten).collect();
                average.axpy(
                    1.0,
                    &current.unflatten(&rule.aggregate(&flat, None)?.update)?,
                )?;
            }
            None => {
                for u in &updates {
                    average.axpy(1.0 / updates.len() as f32, u)?;
                }
            }
        }
        Ok(Aggregate {
            average,
            bytes_up,
            ..Aggregate::default()
        })
    }
}
