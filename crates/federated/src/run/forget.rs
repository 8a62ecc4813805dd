//! Forgetting a client of a finished run: exactly where the algebra allows it, by replay otherwise, or approximately by taking its share back.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::Instant;

use serde::Serialize;

use super::client::Contribution;
use super::history::History;
use super::memory::Memory;
use super::{BaseModel, Run, perplexity};
use crate::FederatedError;
use crate::audit::membership::loss_threshold;
use crate::config::RunConfig;
use crate::data::Window;
use crate::lora::{Combine, Global, start_of};
use crate::partition::ClientText;
use crate::protection::ClientId;
use crate::rules::Rule;
use crate::unlearning::{Certificate, Removal};

/// How a client is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Exactly if it took part in the last round only, by replay otherwise.
    Best,
    /// By replay from the state before its first round.
    Replay,
    /// By taking its share of every average back: fast, approximate.
    Subtract,
}

/// A model and what it still shows of the client.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Measured {
    /// Perplexity over all validation text, the forgotten client's included.
    pub perplexity: f64,
    /// Perplexity on the forgotten client's training text.
    pub on_forgotten: f64,
    /// AUC of the loss threshold attack: the client's training sequences against its validation sequences; 0.5 is chance.
    pub membership_auc: Option<f64>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Forgetting {
    /// The client's name.
    pub name: String,
    /// Rounds in which it took part.
    pub rounds: usize,
    /// Rounds that were computed again.
    pub replayed: usize,
    /// Seconds to forget.
    pub seconds: f64,
    /// Seconds to train the run without the client from the start.
    pub retraining_seconds: f64,
    /// The model with the client.
    pub before: Measured,
    /// The model after forgetting.
    pub after: Measured,
    /// The model of a run in which the client never was.
    pub retrained: Measured,
    /// The signed statement.
    pub certificate: Certificate,
}

/// A run after forgetting.
#[derive(Debug)]
pub struct Forgotten {
    /// The run without the client, in its own folder.
    pub run: Run,
    /// What is stated of it.
    pub report: Forgetting,
}

/// Forgets client `client` of the finished run in `config.out`, which must have kept its history. The result is a run in
/// `config.out/forgotten-CLIENT`. `None` if `tell` stopped it.
///
/// # Errors
/// [`FederatedError::Format`] without a finished run or history, [`FederatedError::Setting`] for a client that is not there or a way that does not
/// fit the run, else as [`Run::new`].
pub fn forget(
    config: &RunConfig,
    base: Option<BaseModel>,
    texts: &[ClientText],
    client: usize,
    way: Way,
    tell: &(dyn Fn(super::Event<'_>) -> ControlFlow<()> + Sync),
) -> Result<Option<Forgotten>, FederatedError> {
    let original = Run::new(config.clone(), base.clone(), texts, true)?;
    let done = original.state.records.len();
    if done == 0 || !History::exists(&config.out) {
        return Err(FederatedError::format(
            config.out.display().to_string(),
            "it holds no run that kept its history",
            "run it first with `history = true` in its configuration",
        ));
    }
    let history = History::open(&config.out, texts.len(), done as u64)?;
    let ledger = history.ledger();
    let id = client as ClientId;
    let Some(best) = ledger.forget(id) else {
        return Err(FederatedError::setting(
            "client",
            "one that took part in the run",
            client,
            "there is nothing to forget",
        ));
    };
    let removal = choose(config, way, best)?;
    let mut rest = config.clone();
    rest.out = config.out.join(format!("forgotten-{client}"));
    rest.rounds = done;
    rest.history = false;
    let prepare = |config: &RunConfig| {
        let without = BTreeSet::from([client]);
        Run::without(config.clone(), base.clone(), texts, without, false)
    };
    let began = Instant::now();
    let mut run = prepare(&rest)?;
    let replayed = match removal {
        Removal::Exact { round } => {
            run.state = history.state(round as usize, &original.fingerprint)?;
            run.form_again(round as usize, &history, client)?;
            0
        }
        Removal::Replay { from_round } => {
            run.state = history.state(from_round as usize, &original.fingerprint)?;
            if !run.run(tell)? {
                return Ok(None);
            }
            done - from_round as usize
        }
        Removal::Subtract { .. } => {
            run.state = original.state.clone();
            run.subtract(&original, &history, client)?;
            0
        }
    };
    std::fs::create_dir_all(&rest.out).map_err(|e| FederatedError::io(&rest.out, e))?;
    run.state.clients[client] = Memory::default();
    run.state.save(&run.checkpoint(), &run.fingerprint)?;
    let seconds = began.elapsed().as_secs_f64();

    let began = Instant::now();
    let mut retrained = prepare(&RunConfig {
        out: rest.out.join("retrained"),
        ..rest.clone()
    })?;
    if !retrained.run(tell)? {
        return Ok(None);
    }
    let retraining_seconds = began.elapsed().as_secs_f64();
    let after = run.measured(client)?;
    let certificate = Certificate::issue(
        ledger,
        id,
        removal,
        &run.changes()?,
        &retrained.changes()?,
        after.membership_auc,
        history.coordinator(),
    )?;
    let report = Forgetting {
        name: original.clients[client].name.clone(),
        rounds: ledger.entries().iter().filter(|e| e.client == id).count(),
        replayed,
        seconds,
        retraining_seconds,
        before: original.measured(client)?,
        after,
        retrained: retrained.measured(client)?,
        certificate,
    };
    Ok(Some(Forgotten { run, report }))
}

fn choose(config: &RunConfig, way: Way, best: Removal) -> Result<Removal, FederatedError> {
    let from_round = match best {
        Removal::Exact { round } => round,
        Removal::Replay { from_round } | Removal::Subtract { from_round } => from_round,
    };
    let hidden = config.hides_updates();
    // Private parts were trained beside the shared one: they are formed by replay only.
    match way {
        Way::Best if !hidden && config.personal.is_none() => Ok(best),
        Way::Best | Way::Replay => Ok(Removal::Replay { from_round }),
        Way::Subtract => {
            let fits = !hidden
                && config.combine == Combine::Average
                && config.rule == Rule::FedAvg {}
                && config.robust().is_none();
            if fits {
                Ok(Removal::Subtract { from_round })
            } else {
                Err(FederatedError::setting(
                    "--way subtract",
                    "visible updates that are averaged (fedavg, combine = \"average\", no hidden sum, no robust rule)",
                    "another run",
                    "replay it: --way replay",
                ))
            }
        }
    }
}

impl Run {
    /// Forms round `round` again from stored contributions, without one client's, as the round was formed then.
    fn form_again(
        &mut self,
        round: usize,
        history: &History,
        client: usize,
    ) -> Result<(), FederatedError> {
        let mut contributions = Vec::new();
        for (id, (values, weight)) in history.contributions(round)? {
            if id as usize == client {
                continue;
            }
            let c = &self.config;
            let rank = c.method.rank_of(id as usize);
            let start = start_of(
                &self.tuner,
                c.combine,
                &self.state.global,
                rank,
                round as u64,
            )?;
            contributions.push(Contribution {
                client: id as usize,
                update: start.unflatten(&values)?,
                memory: self.state.clients[id as usize].clone(),
                weight,
                start,
                ..Contribution::default()
            });
        }
        if contributions.is_empty() {
            return Err(FederatedError::setting(
                "forget",
                "at least one other client in the round",
                "none",
                "start again from the base model",
            ));
        }
        // Payloads were verified when they arrived, and their content has been checked against the ledger.
        self.signer = None;
        let aggregate = self.aggregate(round, &contributions)?;
        let record =
            self.finish_round(round, &contributions, aggregate, Instant::now(), &|run| {
                run.perplexity(&run.state.global)
            })?;
        self.state.records.push(record);
        Ok(())
    }

    /// Takes from the final adapter, for every round, the mean with the client minus the mean without it.
    fn subtract(
        &mut self,
        original: &Run,
        history: &History,
        client: usize,
    ) -> Result<(), FederatedError> {
        let like = original.state.global.adapter.clone();
        let mut flat: Vec<f64> = like.flatten().iter().map(|&x| f64::from(x)).collect();
        for round in 0..original.state.records.len() {
            let all = history.contributions(round)?;
            let Some((own, weight)) = all.get(&(client as ClientId)) else {
                continue;
            };
            let total: f64 = all.values().map(|c| c.1).sum();
            let others = total - weight;
            for (i, x) in flat.iter_mut().enumerate() {
                let rest: f64 = all
                    .iter()
                    .filter(|(id, _)| **id != client as ClientId)
                    .map(|(_, (v, w))| w * f64::from(v[i]))
                    .sum();
                let with = (rest + weight * f64::from(own[i])) / total;
                let without = if others > 0.0 { rest / others } else { 0.0 };
                *x -= with - without;
            }
        }
        let flat: Vec<f32> = flat.into_iter().map(|x| x as f32).collect();
        self.state.global = Global {
            adapter: like.unflatten(&flat)?,
            residual: original.state.global.residual.clone(),
        };
        Ok(())
    }

    /// What training changed of the network's parameters.
    fn changes(&self) -> Result<Vec<f32>, FederatedError> {
        let g = &self.state.global;
        let network = self.tuner.network(&g.adapter, &g.residual)?;
        let base = self.tuner.base().parameters();
        Ok(network
            .parameters()
            .zip(base)
            .flat_map(|(a, b)| {
                a.values
                    .iter()
                    .zip(b.values)
                    .map(|(x, y)| x - y)
                    .collect::<Vec<_>>()
            })
            .collect())
    }

    fn measured(&self, client: usize) -> Result<Measured, FederatedError> {
        let g = &self.state.global;
        let network = self.tuner.network(&g.adapter, &g.residual)?;
        let losses = |windows: &[Window]| -> Result<Vec<f64>, FederatedError> {
            windows
                .iter()
                .map(|(ids, targets)| {
                    let l = network.token_losses(ids, targets, ids.len())?;
                    Ok(l.iter().sum::<f64>() / l.len() as f64)
                })
                .collect()
        };
        let data = &self.clients[client];
        Ok(Measured {
            perplexity: perplexity(&network, &self.validation)?,
            on_forgotten: perplexity(&network, &data.train)?,
            membership_auc: loss_threshold(&losses(&data.train)?, &losses(&data.valid)?)
                .map(|a| a.auc),
        })
    }
}
