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

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::{Network, Penalties};

use crate::data::Window;
use crate::personal::Moves;
use crate::random::{permutation, stream};
use crate::tuner::{Kind, Tuner};
use crate::{FederatedError, NamedTensors, seeds};

/// The optimiser of a client. Its state lasts one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimiser {
    /// AdamW (0.9, 0.99) without decay.
    #[default]
    Adam,
    /// Plain gradient descent.
    Sgd,
}

/// Settings of local training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalOptions {
    /// Optimiser steps a round.
    pub steps: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Sequences computed at once; 0 for the whole batch.
    pub micro_batch: usize,
    /// Learning rate.
    pub lr: f64,
    /// The learning rate falls linearly to this share of `lr` over the rounds.
    pub lr_floor: f64,
    /// Optimiser.
    pub optimiser: Optimiser,
    /// Largest gradient norm of a step; 0 for no limit.
    pub clip: f64,
    /// Strength of FedProx's pull towards the start; 0 for none.
    pub prox: f64,
    /// SCAFFOLD's control variates.
    pub scaffold: bool,
    /// Keep ranges narrow for encrypted inference, as `tacit train` does.
    pub penalties: bool,
    /// Distance to both sides at which FedKSeed takes the loss.
    pub perturbation: f64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            steps: 8,
            batch: 16,
            micro_batch: 0,
            lr: 2e-3,
            lr_floor: 0.1,
            optimiser: Optimiser::Adam,
            clip: 1.0,
            prox: 0.0,
            scaffold: false,
            penalties: true,
            perturbation: 1e-3,
        }
    }
}

impl LocalOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first wrong one.
    pub fn check(&self) -> Result<(), FederatedError> {
        for (name, ok, found) in [
            ("steps", self.steps > 0, self.steps.to_string()),
            ("batch", self.batch > 0, self.batch.to_string()),
            (
                "lr",
                self.lr > 0.0 && self.lr.is_finite(),
                self.lr.to_string(),
            ),
            (
                "lr_floor",
                (0.0..=1.0).contains(&self.lr_floor),
                self.lr_floor.to_string(),
            ),
            (
                "clip",
                self.clip >= 0.0 && self.clip.is_finite(),
                self.clip.to_string(),
            ),
            (
                "prox",
                self.prox >= 0.0 && self.prox.is_finite(),
                self.prox.to_string(),
            ),
            (
                "perturbation",
                self.perturbation > 0.0 && self.perturbation.is_finite(),
                self.perturbation.to_string(),
            ),
        ] {
            if !ok {
                return Err(FederatedError::setting(
                    format!("train.{name}"),
                    "a number in range (counts and rates positive, shares within 0 to 1)",
                    found,
                    "leave it out for the default",
                ));
            }
        }
        if self.scaffold && self.optimiser != Optimiser::Sgd {
            return Err(FederatedError::setting(
                "train.scaffold",
                "optimiser = \"sgd\" beside it",
                "adam",
                "SCAFFOLD's control variates are defined for gradient descent",
            ));
        }
        Ok(())
    }

    /// Learning rate in round `round` of `rounds`.
    pub fn rate(&self, round: usize, rounds: usize) -> f64 {
        let x = round as f64 / rounds.max(1) as f64;
        self.lr * (1.0 - (1.0 - self.lr_floor) * x)
    }

    fn penalty(&self) -> Penalties {
        if self.penalties {
            Penalties::default()
        } else {
            Penalties::none()
        }
    }
}

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

/// What a client hands in when single examples are protected: a sum of clipped gradients instead of a trained state.
#[derive(Clone, Debug)]
pub struct PrivateGradient {
    /// `-sum_i g_i min(1, clip / |g_i|)`: adding or removing one example moves it by at most `clip`.
    pub descent: NamedTensors,
    /// Mean loss over the examples.
    pub loss: f64,
    /// Tokens.
    pub tokens: usize,
    /// Share of examples whose gradient was longer than `clip`.
    pub clipped: f64,
}

/// The clipped gradient of every sequence in `data`, summed (DP-SGD, arXiv 1607.00133; the noise comes with the secure sum).
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network, [`FederatedError::NotFinite`] for a gradient that is no number.
pub fn private_gradient(
    tuner: &Tuner,
    state: &NamedTensors,
    residual: &NamedTensors,
    data: &[Window],
    clip: f64,
) -> Result<PrivateGradient, FederatedError> {
    // Ternarised once, not for every example.
    let network = tuner.network(state, residual)?.as_exported();
    let mut descent = state.zeros_like();
    let (mut loss, mut tokens, mut clipped) = (0.0, 0, 0usize);
    for (inputs, targets) in data {
        let none = Penalties::none();
        let (l, g) = tuner.gradient(&network, state, inputs, targets, inputs.len(), &none)?;
        g.check_finite("the gradient of an example")?;
        let norm = g.norm();
        clipped += usize::from(norm > clip);
        // A hair below, so that rounding cannot lift it above the bound.
        let factor = (clip / norm.max(1e-30) * (1.0 - 1e-6)).min(1.0);
        descent.axpy(-factor as f32, &g)?;
        loss += l;
        tokens += inputs.len();
    }
    let n = data.len().max(1) as f64;
    Ok(PrivateGradient {
        descent,
        loss: loss / n,
        tokens,
        clipped: clipped as f64 / n,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::{Sequences, examples, tokenizer_for};
    use crate::partition::generated;
    use crate::tuner::Method;
    use tacit_bitnet::train::TrainConfig;

    fn setting() -> (Tuner, Vec<Window>) {
        let text = generated(3, 1, 80, 2, 1.0);
        let tokenizer = tokenizer_for(&text, 300).unwrap();
        let data = examples(&text[0], &tokenizer, 12, Sequences::Documents, 0).unwrap();
        let base = Network::new(&TrainConfig {
            hidden: 32,
            layers: 1,
            heads: 2,
            ffn: 48,
            vocab: 300,
            context: 12,
            ..TrainConfig::default()
        });
        let method = Method {
            targets: ["qkv", "o", "gate_up", "down", "embedding"]
                .map(String::from)
                .to_vec(),
            ..Method::default()
        };
        (Tuner::new(base, &method, 1).unwrap(), data.train)
    }

    fn turn(lr: f64) -> Turn {
        Turn {
            seed: 1,
            client: 0,
            round: 0,
            lr,
        }
    }

    #[test]
    fn batches_pass_over_all_examples_and_do_not_depend_on_history() {
        let data: Vec<Window> = (0..10).map(|i| (vec![i], vec![i])).collect();
        let mut seen: Vec<u32> = (0..5)
            .flat_map(|s| batch(&data, turn(1.0), s, 2))
            .map(|w| w.0[0])
            .collect();
        assert_ne!(seen, (0..10).collect::<Vec<_>>());
        seen.sort_unstable();
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        assert_eq!(batch(&data, turn(1.0), 7, 3), batch(&data, turn(1.0), 7, 3));
        assert_eq!(batch(&data[..2], turn(1.0), 0, 5).len(), 5);
    }

    #[test]
    fn micro_batches_of_mixed_lengths_give_the_gradient_of_the_whole() {
        let (tuner, data) = setting();
        let mut state = tuner.initial(8, 0).unwrap();
        state.values_mut("layers.0.o.lora_b").unwrap().fill(0.05);
        let none = NamedTensors::new();
        let network = tuner.network(&state, &none).unwrap();
        let p = Penalties::none();
        let windows: Vec<&Window> = data.iter().take(9).collect();
        let lengths: std::collections::HashSet<usize> = windows.iter().map(|w| w.0.len()).collect();
        assert!(lengths.len() > 1);
        let (l, whole) = mean_gradient(&tuner, &network, &state, &windows, 0, &p).unwrap();
        let (m, parts) = mean_gradient(&tuner, &network, &state, &windows, 2, &p).unwrap();
        assert!((l - m).abs() < 1e-6);
        assert!(whole.difference(&parts).unwrap().norm() < 1e-5 * whole.norm());
        let tokens: usize = windows.iter().map(|w| w.0.len()).sum();
        let all: Vec<Window> = windows.into_iter().cloned().collect();
        let (e, n) = evaluate(&network, &all).unwrap();
        assert!((e - l).abs() < 1e-5 && n == tokens);
    }

    #[test]
    fn training_lowers_the_loss_and_prox_holds_it_near_the_start() {
        let (tuner, data) = setting();
        let start = tuner.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let options = LocalOptions {
            steps: 30,
            lr: 1e-2,
            ..LocalOptions::default()
        };
        let go = |o: &LocalOptions, lr| {
            train(
                &tuner,
                &start,
                &none,
                &data,
                o,
                turn(lr),
                Guidance::default(),
            )
            .unwrap()
        };
        let free = go(&options, 1e-2);
        let loss = |s: &NamedTensors| {
            evaluate(&tuner.network(s, &none).unwrap(), &data)
                .unwrap()
                .0
        };
        assert!(
            loss(&free.state) < 0.9 * loss(&start),
            "{} {}",
            loss(&free.state),
            loss(&start)
        );
        let sgd = LocalOptions {
            optimiser: Optimiser::Sgd,
            ..options
        };
        let distance = |o: &LocalOptions| go(o, 0.2).state.difference(&start).unwrap().norm();
        let held = LocalOptions {
            prox: 4.0,
            ..sgd.clone()
        };
        assert!(distance(&held) < 0.5 * distance(&sgd));
    }

    #[test]
    fn one_example_moves_a_private_gradient_by_at_most_the_clip() {
        let (tuner, data) = setting();
        let state = tuner.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let sum = |n: usize| private_gradient(&tuner, &state, &none, &data[..n], 0.05).unwrap();
        let (six, seven) = (sum(6), sum(7));
        let moved = seven.descent.difference(&six.descent).unwrap().norm();
        assert!(moved <= 0.05 * (1.0 + 1e-5) && moved > 0.04, "{moved}");
        assert!(seven.clipped > 0.5);
        // Without clipping it is the sum of the gradients, against the gradient's direction.
        let free = private_gradient(&tuner, &state, &none, &data[..1], 1e9).unwrap();
        let network = tuner.network(&state, &none).unwrap();
        let p = Penalties::none();
        let (l, g) = mean_gradient(&tuner, &network, &state, &[&data[0]], 0, &p).unwrap();
        let mut difference = free.descent.clone();
        difference.axpy(1.0, &g).unwrap();
        assert!(difference.norm() < 0.02 * g.norm() && (free.loss - l).abs() < 0.01);
    }

    #[test]
    fn scaffold_follows_its_formulas() {
        let (tuner, data) = setting();
        let start = tuner.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let options = LocalOptions {
            steps: 3,
            optimiser: Optimiser::Sgd,
            clip: 0.0,
            scaffold: true,
            ..LocalOptions::default()
        };
        options.check().unwrap();
        let zero = start.zeros_like();
        let server = start.map(|_| 1e-3);
        let lr = 0.1;
        let plain = train(
            &tuner,
            &start,
            &none,
            &data,
            &options,
            turn(lr),
            Guidance::default(),
        )
        .unwrap();
        let by = |server, client| Guidance {
            controls: Some(Controls { server, client }),
            ..Guidance::default()
        };
        let same = by(&zero, &zero);
        let same = train(&tuner, &start, &none, &data, &options, turn(lr), same).unwrap();
        assert_eq!(plain.state, same.state);
        // Option II with zero controls: the mean gradient over the steps.
        let mut want = start.difference(&plain.state).unwrap();
        want.scale((1.0 / (3.0 * lr)) as f32);
        assert!(same.control.unwrap().difference(&want).unwrap().norm() <= 1e-6 * want.norm());
        let one = LocalOptions {
            steps: 1,
            ..options.clone()
        };
        let a = train(
            &tuner,
            &start,
            &none,
            &data,
            &one,
            turn(lr),
            Guidance::default(),
        )
        .unwrap();
        let b = train(
            &tuner,
            &start,
            &none,
            &data,
            &one,
            turn(lr),
            by(&server, &zero),
        )
        .unwrap();
        let moved = a.state.difference(&b.state).unwrap().flatten();
        assert!(moved.iter().all(|m| (m - 1e-4).abs() < 1e-6));
        let adam = LocalOptions {
            optimiser: Optimiser::Adam,
            ..options
        };
        assert!(adam.check().unwrap_err().to_string().contains("scaffold"));
    }
}
