//! FedKSeed (Qin et al., *Federated Full-Parameter Tuning of Billion-Sized Language Models with Communication Cost under 18 Kilobytes*, arXiv 2312.06353):
//! training without gradients, in which only seeds and numbers travel.
//!
//! All parties derive the same `K` directions `z_1 … z_K` from the run's seed, each with a sign for every trained parameter. The network is
//! `W0 + sum_j a_j z_j`, and the `K` numbers `a` are all there is to send. A step of a client draws a direction `j` and moves along it by the difference
//! of two losses on a batch (two-point estimate, Spall 1992; equation 2 of the paper):
//!
//! ```text
//! g = (loss(W + e z_j) - loss(W - e z_j)) / 2 e          a_j <- a_j - lr g          W <- W - lr g z_j
//! ```
//!
//! No activations are kept and no backward pass is made: a client needs the memory of inference. What a client sends is the change of at most `steps`
//! numbers, with their positions; what it is sent are the `K` numbers. The paper's directions are Gaussian; signs have the same covariance, a smaller
//! variance of `g`, and one bit a value.

use rand_core::RngCore;
use tacit_bitnet::train::Network;

use crate::data::Window;
use crate::local::{LocalOptions, LocalOutcome, Turn, batch, evaluate};
use crate::random::{below, stream};
use crate::tuner::{SEEDS, Tuner};
use crate::{FederatedError, NamedTensors};

/// Signs of the eight values of a byte, as factors.
const SIGNS: [[f32; 8]; 256] = {
    let mut table = [[1.0; 8]; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut bit = 0;
        while bit < 8 {
            if byte >> bit & 1 == 1 {
                table[byte][bit] = -1.0;
            }
            bit += 1;
        }
        byte += 1;
    }
    table
};

/// Calls `f` with each run of at most eight values' place and their signs in direction `direction`.
fn signs(
    len: usize,
    seed: u64,
    parameter: usize,
    direction: usize,
    mut f: impl FnMut(usize, &[f32; 8]),
) {
    let mut rng = stream(
        seed,
        "direction of fedkseed",
        &[direction as u64, parameter as u64],
    );
    let mut bytes = [0u8; 4096];
    for begin in (0..len).step_by(8 * bytes.len()) {
        let some = (len - begin).div_ceil(8).min(bytes.len());
        rng.fill_bytes(&mut bytes[..some]);
        for (i, &byte) in bytes[..some].iter().enumerate() {
            f(begin + 8 * i, &SIGNS[usize::from(byte)]);
        }
    }
}

/// `values += factor z`, with the part of direction `direction` that belongs to parameter number `parameter`.
pub(crate) fn add(values: &mut [f32], factor: f32, seed: u64, parameter: usize, direction: usize) {
    signs(values.len(), seed, parameter, direction, |at, signs| {
        let end = (at + 8).min(values.len());
        for (v, s) in values[at..end].iter_mut().zip(signs) {
            *v += factor * s;
        }
    });
}

/// `<values, z>` with the same part.
pub(crate) fn dot(values: &[f32], seed: u64, parameter: usize, direction: usize) -> f32 {
    let mut sum = 0f64;
    signs(values.len(), seed, parameter, direction, |at, signs| {
        let end = (at + 8).min(values.len());
        let eight: f32 = values[at..end].iter().zip(signs).map(|(v, s)| v * s).sum();
        sum += f64::from(eight);
    });
    sum as f32
}

/// Trains from `start` on `data` by differences of losses. The range penalties of `options` are not part of these losses.
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network, [`FederatedError::NotFinite`] when the loss is no number.
pub(crate) fn train(
    tuner: &Tuner,
    start: &NamedTensors,
    residual: &NamedTensors,
    data: &[Window],
    options: &LocalOptions,
    turn: Turn,
) -> Result<LocalOutcome, FederatedError> {
    let e = options.perturbation;
    let mut here = tuner.network(start, residual)?;
    let mut state = start.clone();
    let (mut mean_loss, mut tokens) = (0.0, 0);
    for s in 0..options.steps {
        let step = turn.round * options.steps + s;
        let mut windows: Vec<Window> = batch(data, turn, step, options.batch)
            .into_iter()
            .cloned()
            .collect();
        windows.sort_by_key(|w| w.0.len());
        let numbers = [turn.client, step as u64];
        let mut rng = stream(turn.seed, "direction of a step", &numbers);
        let direction = below(&mut rng, tuner.method().seeds);
        let loss = |at: f64| {
            let mut network: Network = here.clone();
            tuner.displace(&mut network, direction, at as f32);
            evaluate(&network, &windows)
        };
        let ((up, n), (down, _)) = (loss(e)?, loss(-e)?);
        let mut slope = (up - down) / (2.0 * e);
        if !slope.is_finite() {
            return Err(FederatedError::NotFinite {
                place: "difference of training losses".into(),
                value: slope,
                remedy: "lower train.lr or train.perturbation".into(),
            });
        }
        if options.clip > 0.0 {
            slope = slope.clamp(-options.clip, options.clip);
        }
        let change = (-turn.lr * slope) as f32;
        tuner.displace(&mut here, direction, change);
        if let Some(a) = state.values_mut(SEEDS) {
            a[direction] += change;
        }
        mean_loss += 0.5 * (up + down) / options.steps as f64;
        tokens += n;
    }
    Ok(LocalOutcome {
        state,
        loss: mean_loss,
        tokens,
        control: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::local::{Optimiser, mean_gradient};
    use crate::tuner::{Forward, Kind, Method};
    use tacit_bitnet::train::Penalties;

    fn setting(seeds: usize) -> (Tuner, Vec<Window>) {
        let method = Method {
            kind: Kind::FedKSeed,
            seeds,
            forward: Forward::Float,
            targets: fixture::everywhere(),
            ..Method::default()
        };
        let tuner = Tuner::new(fixture::network(16, 12, true), &method, 1).unwrap();
        (tuner, fixture::windows())
    }

    #[test]
    fn directions_are_signs_that_differ_and_do_not_depend_on_the_length() {
        let of = |n: usize, parameter, direction| {
            let mut v = vec![0f32; n];
            add(&mut v, 0.5, 7, parameter, direction);
            v
        };
        let long = of(50_001, 2, 3);
        assert!(long.iter().all(|x| x.abs() == 0.5));
        assert_eq!(of(50_001, 2, 3), long);
        for other in [of(50_001, 1, 3), of(50_001, 2, 4)] {
            let agree = other.iter().zip(&long).filter(|(a, b)| a == b).count();
            assert!(agree.abs_diff(25_000) < 600, "{agree} of 50001 signs agree");
        }
        let sum: f32 = long.iter().sum();
        assert!(sum.abs() < 300.0, "{sum}");
        let product = dot(&long, 7, 2, 3);
        assert!((product - 25_000.5).abs() < 1e-2, "{product}");
    }

    #[test]
    fn a_step_moves_one_number_by_the_slope_along_its_direction_and_the_state_says_what_was_trained()
     {
        let (tuner, data) = setting(32);
        let start = tuner.initial(8, 0).unwrap();
        let none = NamedTensors::new();
        let options = LocalOptions {
            steps: 1,
            clip: 0.0,
            perturbation: 1e-4,
            optimiser: Optimiser::Sgd,
            ..LocalOptions::default()
        };
        let turn = |round| Turn {
            seed: 1,
            client: 4,
            round,
            lr: 0.1,
        };
        let network = tuner.network(&start, &none).unwrap();
        for round in 0..4 {
            let out = train(&tuner, &start, &none, &data, &options, turn(round)).unwrap();
            let a = out.state.get(SEEDS).unwrap().values.clone();
            let moved: Vec<usize> = (0..32).filter(|&j| a[j] != 0.0).collect();
            assert_eq!(moved.len(), 1);
            let windows = batch(&data, turn(round), round, options.batch);
            let p = Penalties::none();
            let (_, g) = mean_gradient(&tuner, &network, &start, &windows, 0, &p).unwrap();
            let want = -0.1 * g.get(SEEDS).unwrap().values[moved[0]];
            assert!(
                (a[moved[0]] - want).abs() < 0.03 * want.abs().max(1e-3),
                "{} {want}",
                a[moved[0]]
            );
        }
        // Many steps: the network of the state is the network that the client walked to.
        let many = LocalOptions {
            steps: 60,
            ..options
        };
        let slow = Turn {
            lr: 2e-3,
            ..turn(0)
        };
        let out = train(&tuner, &start, &none, &data, &many, slow).unwrap();
        let loss = |s| {
            evaluate(&tuner.network(s, &none).unwrap(), &data)
                .unwrap()
                .0
        };
        assert!(
            loss(&out.state) < loss(&start) - 0.05,
            "{} {}",
            loss(&out.state),
            loss(&start)
        );
        let repeated = train(&tuner, &start, &none, &data, &many, slow).unwrap();
        assert_eq!(repeated.state, out.state);
        // A clipped slope moves by at most the clip.
        let held = LocalOptions { clip: 1e-3, ..many };
        let out = train(&tuner, &start, &none, &data, &held, turn(0)).unwrap();
        let most = out
            .state
            .get(SEEDS)
            .unwrap()
            .values
            .iter()
            .map(|a| a.abs())
            .sum::<f32>();
        assert!(most <= 60.0 * 0.1 * 1.0001e-3, "{most}");
    }
}
