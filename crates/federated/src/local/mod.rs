//! What a client does in a round: some optimiser steps on its own text, from the shared state.
//!
//! | option | effect |
//! | --- | --- |
//! | micro-batches | gradients of `micro_batch` sequences at a time are added, so that memory does not grow with the batch |
//! | mixed lengths | sequences of one length are computed together; every token weighs the same |
//! | clipping | the gradient of a step is scaled down to norm `clip` |
//! | FedProx (arXiv 1812.06127) | adds `mu (w - w_start)` to the gradient |
//! | FedKSeed (2312.06353) | no gradients: see [`crate::seeds`] |
//! | SCAFFOLD (1910.06378) | adds `c - c_k` to the gradient; afterwards `c_k <- c_k - c + (w_start - w) / (steps lr)` (option II) |

mod options;
mod private;
#[cfg(test)]
mod tests;

use tacit_bitnet::train::{Network, Penalties};

use crate::data::Window;
use crate::personal::Moves;
use crate::random::{permutation, stream};
use crate::tuner::{Kind, Tuner};
use crate::{FederatedError, NamedTensors, seeds};
pub use options::{LocalOptions, Optimiser};
pub use private::{PrivateGradient, private_gradient};

/// SCAFFOLD's control variates: the server's and this client's.
#[derive(Clone, Copy, Debug)]
pub struct Controls<'a> {
    /// The server's `c`.
    pub server: &'a NamedTensors,
    /// The client's `c_k`.
    pub client: &'a NamedTensors,
}

/// What a client found.
#[derive(Clone, Debug)]
pub struct LocalOutcome {
    /// Its trained tensors.
    pub state: NamedTensors,
    /// Mean loss over the steps, nats per token, each before its update.
    pub loss: f64,
    /// Tokens trained on.
    pub tokens: usize,
    /// The client's new control variate, with SCAFFOLD.
    pub control: Option<NamedTensors>,
}

/// Whose training it is, which decides the order of examples.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// The run's seed.
    pub seed: u64,
    /// Number of the client.
    pub client: u64,
    /// Number of the round, from 0.
    pub round: usize,
    /// Learning rate.
    pub lr: f64,
}

/// What moves a training beside its gradients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Guidance<'a> {
    /// SCAFFOLD's control variates.
    pub controls: Option<Controls<'a>>,
    /// Which part of the state is trained.
    pub moves: Moves,
}

/// The examples of optimiser step `step` counted over the whole run: the client's examples in an order that is drawn anew for every pass. A
/// function of its arguments alone, so that a resumed run sees what an undisturbed one would have seen.
pub fn batch<T>(data: &[T], turn: Turn, step: usize, size: usize) -> Vec<&T> {
    let mut out = Vec::with_capacity(size);
    let mut order = (usize::MAX, Vec::new());
    for i in step * size..(step + 1) * size {
        let pass = i / data.len();
        if order.0 != pass {
            let mut rng = stream(turn.seed, "order of examples", &[turn.client, pass as u64]);
            order = (pass, permutation(&mut rng, data.len()));
        }
        out.push(&data[order.1[i % data.len()]]);
    }
    out
}

/// Mean loss and gradient over `windows`, every token weighing the same.
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network, [`FederatedError::NotFinite`] when the loss is no number.
pub fn mean_gradient(
    tuner: &Tuner,
    network: &Network,
    state: &NamedTensors,
    windows: &[&Window],
    micro_batch: usize,
    penalties: &Penalties,
) -> Result<(f64, NamedTensors), FederatedError> {
    let mut sorted = windows.to_vec();
    sorted.sort_by_key(|w| std::cmp::Reverse(w.0.len()));
    let tokens: usize = sorted.iter().map(|w| w.0.len()).sum();
    let mut sum = state.zeros_like();
    let mut loss = 0.0;
    for run in sorted.chunk_by(|a, b| a.0.len() == b.0.len()) {
        let size = if micro_batch == 0 {
            run.len()
        } else {
            micro_batch
        };
        for chunk in run.chunks(size) {
            let length = chunk[0].0.len();
            let inputs: Vec<u32> = chunk.iter().flat_map(|w| w.0.iter().copied()).collect();
            let targets: Vec<u32> = chunk.iter().flat_map(|w| w.1.iter().copied()).collect();
            let (l, g) = tuner.gradient(network, state, &inputs, &targets, length, penalties)?;
            let share = inputs.len() as f64 / tokens as f64;
            loss += share * l;
            sum.axpy(share as f32, &g)?;
        }
    }
    if !loss.is_finite() {
        return Err(FederatedError::NotFinite {
            place: "training loss".into(),
            value: loss,
            remedy: "lower train.lr".into(),
        });
    }
    Ok((loss, sum))
}

/// Trains from `start` on `data`.
///
/// # Errors
/// As [`mean_gradient`]; [`FederatedError::Setting`] when there are no examples.
pub fn train(
    tuner: &Tuner,
    start: &NamedTensors,
    residual: &NamedTensors,
    data: &[Window],
    options: &LocalOptions,
    turn: Turn,
    guidance: Guidance<'_>,
) -> Result<LocalOutcome, FederatedError> {
    if data.is_empty() {
        return Err(FederatedError::setting(
            "text of a client",
            "at least one sequence",
            "none",
            "leave this client out",
        ));
    }
    if tuner.method().kind == Kind::FedKSeed {
        return seeds::train(tuner, start, residual, data, options, turn);
    }
    let controls = guidance.controls;
    let penalties = options.penalty();
    let mut network = tuner.base().clone();
    let mut state = start.clone();
    let mut moments = (vec![0f32; state.count()], vec![0f32; state.count()]);
    let (mut loss, mut tokens) = (0.0, 0);
    for s in 0..options.steps {
        tuner.write(&state, residual, &mut network)?;
        let step = turn.round * options.steps + s;
        let windows = batch(data, turn, step, options.batch);
        tokens += windows.iter().map(|w| w.0.len()).sum::<usize>();
        let (l, mut g) = mean_gradient(
            tuner,
            &network,
            &state,
            &windows,
            options.micro_batch,
            &penalties,
        )?;
        loss += l / options.steps as f64;
        guidance.moves.mask(&mut g);
        let norm = g.norm();
        if options.clip > 0.0 && norm > options.clip {
            g.scale((options.clip / norm) as f32);
        }
        if options.prox > 0.0 {
            g.axpy(options.prox as f32, &state)?;
            g.axpy(-options.prox as f32, start)?;
        }
        if let Some(c) = controls {
            g.axpy(1.0, c.server)?;
            g.axpy(-1.0, c.client)?;
        }
        match options.optimiser {
            Optimiser::Sgd => state.axpy(-turn.lr as f32, &g)?,
            Optimiser::Adam => adam(&mut state, &g, &mut moments, s, turn.lr)?,
        }
    }
    state.check_finite("a client's adapter after training")?;
    let control = match controls {
        None => None,
        Some(c) => {
            let mut next = c.client.clone();
            next.axpy(-1.0, c.server)?;
            let factor = 1.0 / (options.steps as f64 * turn.lr);
            next.axpy(factor as f32, &start.difference(&state)?)?;
            Some(next)
        }
    };
    Ok(LocalOutcome {
        state,
        loss,
        tokens,
        control,
    })
}

/// A step of Adam, number `step` from 0, with its moments.
pub(crate) fn adam(
    state: &mut NamedTensors,
    gradient: &NamedTensors,
    (m, v): &mut (Vec<f32>, Vec<f32>),
    step: usize,
    lr: f64,
) -> Result<(), FederatedError> {
    const B1: f32 = 0.9;
    const B2: f32 = 0.99;
    let t = i32::try_from(step + 1).unwrap_or(i32::MAX);
    let root = (1.0 - f64::from(B2).powi(t)).sqrt();
    let rate = (lr * root / (1.0 - f64::from(B1).powi(t))) as f32;
    let epsilon = (1e-8 * root) as f32;
    let g = gradient.flatten();
    let mut x = state.flatten();
    for (((x, g), m), v) in x.iter_mut().zip(&g).zip(m).zip(v) {
        *m = B1 * *m + (1.0 - B1) * g;
        *v = B2 * *v + (1.0 - B2) * g * g;
        *x -= rate * *m / (v.sqrt() + epsilon);
    }
    *state = state.unflatten(&x)?;
    Ok(())
}

/// Mean cross-entropy in nats per token of the network with this state, and the tokens measured.
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network.
pub fn evaluate(network: &Network, windows: &[Window]) -> Result<(f64, usize), FederatedError> {
    let tokens: usize = windows.iter().map(|w| w.0.len()).sum();
    Ok((
        network.evaluate(windows, 32)? / tokens.max(1) as f64,
        tokens,
    ))
}
