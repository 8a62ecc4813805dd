//! A client's part of a round: what it is given, what it sends.

use crate::compress::decode;
use crate::config::RunConfig;
use crate::data::ClientData;
use crate::local::{Controls, LocalOutcome, Turn, private_gradient, train};
use crate::lora::{Global, start_of};
use crate::stage::Stage;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// A client's part of a round, as the coordinator receives it.
pub(super) struct Contribution {
    pub client: usize,
    /// The rank's cut of the shared state, from which the client began.
    pub start: NamedTensors,
    pub outcome: LocalOutcome,
    /// The update after the client's stages, as the bytes that travel say it.
    pub update: NamedTensors,
    /// What compression left out, for the next round.
    pub kept: NamedTensors,
    /// Weight in an average: the client's examples.
    pub weight: f64,
    /// The update as it travels, where no hidden sum carries it.
    pub payload: Vec<u8>,
    pub bytes_up: u64,
    pub bytes_down: u64,
}

/// What a client remembers between rounds.
pub(super) struct Memory<'a> {
    pub kept: &'a NamedTensors,
    /// SCAFFOLD's controls of server and client.
    pub controls: (&'a NamedTensors, &'a NamedTensors),
}

/// Trains client number `client` in round `round` (from 0) from the shared state, and puts its update through the stages of its side.
///
/// # Errors
/// Whatever goes wrong in training.
pub(super) fn contribute(
    c: &RunConfig,
    tuner: &Tuner,
    data: &ClientData,
    client: usize,
    round: usize,
    global: &Global,
    memory: Memory<'_>,
) -> Result<Contribution, FederatedError> {
    let rank = c.method.rank_of(client);
    let start = start_of(tuner, c.combine, global, rank, round as u64)?;
    // What the client is sent: its start in full precision.
    let message = |t: &NamedTensors| (18 + 4 * t.count()) as u64;
    let weight = data.train.len() as f64;
    if let Some(noise) = c.noise() {
        let g = private_gradient(
            tuner,
            &start,
            &global.residual,
            &data.train[..noise.examples.min(data.train.len())],
            noise.clip,
        )?;
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
            weight,
            payload: Vec::new(),
            bytes_up: 0,
            bytes_down: message(&start),
            start,
        });
    }
    let turn = Turn {
        seed: c.seed,
        client: client as u64,
        round,
        lr: c.train.rate(round, c.rounds),
    };
    let controls = c.train.scaffold.then_some(Controls {
        server: memory.controls.0,
        client: memory.controls.1,
    });
    let outcome = train(
        tuner,
        &start,
        &global.residual,
        &data.train,
        &c.train,
        turn,
        controls,
    )?;
    let mut update = outcome.state.difference(&start)?;
    let mut kept = memory.kept.clone();
    let mut payload = Vec::new();
    for stage in &c.stages {
        if let Stage::Clip { norm } = stage {
            let n = update.norm();
            if n > *norm {
                // A hair below, so that rounding cannot lift a coordinate above the bound.
                update.scale((norm / n * (1.0 - 1e-6)) as f32);
            }
        }
    }
    if c.secure_bits().is_none() && !c.encrypted() {
        let (bytes, said) = c.codec().encode_with_feedback(&update, &mut kept)?;
        debug_assert_eq!(decode(&bytes, &update)?, said);
        payload = bytes;
        update = said;
    }
    let mut bytes_up = payload.len() as u64;
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
        weight,
        payload,
        bytes_up,
        bytes_down,
    })
}
