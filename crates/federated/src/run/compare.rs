//! What the same text gives without federation: each client by itself, and all text in one place.

use std::ops::ControlFlow;

use rayon::prelude::*;
use serde::Serialize;

use super::{Run, perplexity};
use crate::data::Window;
use crate::local::{Guidance, LocalOptions, Turn, train};
use crate::{FederatedError, NamedTensors};

/// Perplexities over all clients' validation text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// The base model.
    pub base: f64,
    /// The federated model.
    pub federated: f64,
    /// Each client's own model: as many steps as it took in the federation, on its own text only.
    pub alone: Vec<f64>,
    /// One model on all text in one place: the same number of steps, each of all clients' sequences.
    pub central: f64,
    /// The base on each client's validation text.
    pub base_by_client: Vec<f64>,
    /// The federated model on each client's validation text.
    pub federated_by_client: Vec<f64>,
    /// Each client's own model on its own validation text.
    pub alone_on_own: Vec<f64>,
}

/// Trains the models to compare with. `tell` is called before each piece of work (a client's number, or none for the central model) and may stop.
///
/// # Errors
/// Whatever goes wrong in training.
pub fn compare(
    run: &Run,
    tell: &(dyn Fn(Option<usize>) -> ControlFlow<()> + Sync),
) -> Result<Option<Comparison>, FederatedError> {
    let none = NamedTensors::new();
    let config = run.config();
    let start = run.tuner().initial(config.method.rank, 0)?;
    // One training of all rounds, with the optimiser begun anew in each, as in the federation.
    let train_on = |client: usize, data: &[Window], options: &LocalOptions| {
        let mut state = start.clone();
        for round in 0..config.rounds {
            let turn = Turn {
                seed: config.seed,
                client: client as u64,
                round,
                lr: options.rate(round, config.rounds),
            };
            state = train(
                run.tuner(),
                &state,
                &none,
                data,
                options,
                turn,
                Guidance::default(),
            )?
            .state;
        }
        Ok::<_, FederatedError>(state)
    };
    let options = LocalOptions {
        scaffold: false,
        prox: 0.0,
        ..config.train.clone()
    };
    let measure = |state: &NamedTensors, residual: &NamedTensors| {
        let network = run.tuner().network(state, residual)?;
        let own = run
            .clients()
            .iter()
            .map(|c| perplexity(&network, &c.valid))
            .collect::<Result<Vec<_>, _>>()?;
        Ok::<_, FederatedError>((perplexity(&network, run.validation())?, own))
    };
    let (base, base_by_client) = measure(&start, &none)?;
    let global = &run.state().global;
    let (federated, federated_by_client) = measure(&global.adapter, &global.residual)?;
    let alone: Vec<Option<(f64, f64)>> = run
        .clients()
        .par_iter()
        .enumerate()
        .map(|(k, c)| {
            if tell(Some(k)).is_break() {
                return Ok(None);
            }
            let state = train_on(k, &c.train, &options)?;
            let (all, own) = measure(&state, &none)?;
            Ok(Some((all, own[k])))
        })
        .collect::<Result<_, FederatedError>>()?;
    let Some(alone) = alone.into_iter().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    if tell(None).is_break() {
        return Ok(None);
    }
    let all: Vec<Window> = run
        .clients()
        .iter()
        .flat_map(|c| c.train.iter().cloned())
        .collect();
    let taking_part = match config.clients_per_round {
        0 => run.clients().len(),
        n => n.min(run.clients().len()),
    };
    let central = LocalOptions {
        batch: options.batch * taking_part,
        micro_batch: if options.micro_batch == 0 {
            options.batch
        } else {
            options.micro_batch
        },
        ..options
    };
    let state = train_on(run.clients().len(), &all, &central)?;
    Ok(Some(Comparison {
        base,
        federated,
        alone: alone.iter().map(|a| a.0).collect(),
        central: measure(&state, &none)?.0,
        base_by_client,
        federated_by_client,
        alone_on_own: alone.iter().map(|a| a.1).collect(),
    }))
}
