//! Token recovery against the language model itself: what of a client's text lies in what it sends?
//!
//! The network's first linear layer (`layers.0.qkv`) sees the RMS-normalised embedding of each token, which anyone with the model can compute for the
//! whole vocabulary; the test of [`super::inversion`] then runs on the real gradient. Measured is one gradient step, the most that an honest-but-curious
//! coordinator can hope for: updates of several steps mix more.

use rayon::prelude::*;

use super::inversion::{Recovery, recover_tokens};
use super::partial::recover_tokens_partly;
use crate::data::Window;
use crate::local::{mean_gradient, private_gradient};
use crate::protection::ckks_aggregation::Selection;
use crate::protection::privacy::central::{GaussianNoise, clip};
use crate::tuner::{Kind, Tuner, factor};
use crate::{FederatedError, NamedTensors};
use tacit_bitnet::train::{Network, Penalties};

/// Epsilon of the network's norms.
const NORM_EPS: f64 = 1e-5;
/// The layer under attack.
const LAYER: &str = "layers.0.qkv";

/// What the coordinator sees of a round.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum View<'s> {
    /// Every client's gradient.
    Plain,
    /// Of every client's gradient what is not selected: selected values are encrypted (`encrypted-sum` with a `share`).
    Clear(&'s Selection),
    /// The sum over the clients.
    SecureSum,
    /// The sum over the clients, each clipped to norm `clip`, with Gaussian noise of `multiplier · clip`.
    NoisySum {
        /// Clipping norm.
        clip: f64,
        /// Noise multiplier.
        multiplier: f64,
        /// Seed of the noise.
        seed: u64,
    },
    /// The sum over the clients of their examples' gradients, each clipped to norm `clip`, with Gaussian noise: a `noise` stage.
    PrivateSum {
        /// Clipping norm of an example.
        clip: f64,
        /// Standard deviation of the noise in a coordinate.
        deviation: f64,
        /// Seed of the noise.
        seed: u64,
    },
}

/// The normalised embedding of each token, row-major, and its width.
pub fn first_layer_inputs(network: &Network) -> (Vec<f32>, usize) {
    let mut width = 1;
    let mut out = Vec::new();
    for p in network.parameters().filter(|p| p.name == "embedding") {
        width = p.cols;
        for row in p.values.chunks_exact(width) {
            let mean = row.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / width as f64;
            let factor = 1.0 / (mean + NORM_EPS).sqrt();
            out.extend(row.iter().map(|&x| (f64::from(x) * factor) as f32));
        }
    }
    (out, width)
}

/// The tensor of the first layer whose gradient is put to the test.
fn attacked(tuner: &Tuner) -> String {
    match tuner.method().kind {
        Kind::Lora => factor(LAYER, 'a'),
        Kind::FfaLora => factor(LAYER, 'b'),
        Kind::Full | Kind::FedKSeed | Kind::Prompt => format!("{LAYER}.delta"),
    }
}

/// Mean over the clients of what [`recover_tokens`] finds of each one's tokens in what the coordinator sees, for one gradient step of each client from
/// `state` on its windows.
///
/// # Errors
/// [`FederatedError::Setting`] if the tuner trains nothing in the first layer or there are no clients; else as [`mean_gradient`].
pub fn recovery(
    tuner: &Tuner,
    state: &NamedTensors,
    clients: &[Vec<Window>],
    view: View<'_>,
) -> Result<Recovery, FederatedError> {
    let name = attacked(tuner);
    if state.get(&name).is_none() || clients.is_empty() {
        return Err(FederatedError::setting(
            "audit",
            format!("clients, and a method that trains `{name}`"),
            format!("{} clients", clients.len()),
            "add qkv to method.targets",
        ));
    }
    let network = tuner.network(state, &NamedTensors::new())?;
    let mut seen = Vec::with_capacity(clients.len());
    for windows in clients {
        let gradient = if let View::PrivateSum { clip, .. } = view {
            private_gradient(tuner, state, &NamedTensors::new(), windows, clip)?.descent
        } else {
            let borrowed: Vec<&Window> = windows.iter().collect();
            mean_gradient(tuner, &network, state, &borrowed, 0, &Penalties::none())?.1
        };
        seen.push(gradient);
    }
    if !matches!(view, View::Plain | View::Clear(_)) {
        let mut sum = state.zeros_like();
        for gradient in &seen {
            let mut flat = gradient.flatten();
            if let View::NoisySum { clip: bound, .. } = view {
                clip(&mut flat, bound)?;
            }
            sum.axpy(1.0, &gradient.unflatten(&flat)?)?;
        }
        let noise = match view {
            View::NoisySum {
                clip,
                multiplier,
                seed,
            } => Some((clip * multiplier, seed)),
            View::PrivateSum {
                deviation, seed, ..
            } => Some((deviation, seed)),
            View::Plain | View::Clear(_) | View::SecureSum => None,
        };
        if let Some((deviation, seed)) = noise {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&seed.to_le_bytes());
            let mut flat = sum.flatten();
            GaussianNoise::from_known_seed(bytes).add(&mut flat, deviation);
            sum = sum.unflatten(&flat)?;
        }
        seen = vec![sum; clients.len()];
    }
    let (mut candidates, mut width) = first_layer_inputs(tuner.base());
    // FFA-LoRA's gradient of B sees inputs through the fixed A, which everyone knows.
    if let Some((a, rank)) = tuner.fixed_a(LAYER) {
        candidates = candidates
            .chunks_exact(width)
            .flat_map(|x| {
                a.chunks_exact(width).map(move |row| {
                    let dot: f64 = row.iter().zip(x).map(|(p, q)| f64::from(p * q)).sum();
                    dot as f32
                })
            })
            .collect();
        width = rank;
    }
    let mut mean = Recovery {
        rank: 0,
        width,
        tokens: 0,
        recovered: 0.0,
        chance: 0.0,
    };
    let hidden = match view {
        View::Clear(selection) => Some(hidden_values(state, &name, selection)?),
        _ => None,
    };
    let each = clients
        .par_iter()
        .zip(&seen)
        .map(|(windows, gradient)| {
            let truth: Vec<usize> = windows
                .iter()
                .flat_map(|w| w.0.iter().map(|&t| t as usize))
                .collect();
            let values = gradient.get(&name).map_or(&[][..], |t| &t.values);
            match &hidden {
                Some(h) => recover_tokens_partly(values, h, &candidates, width, &truth),
                None => recover_tokens(values, &candidates, width, &truth),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    for one in each {
        mean.rank = mean.rank.max(one.rank);
        mean.tokens = mean.tokens.max(one.tokens);
        mean.recovered += one.recovered / clients.len() as f64;
        mean.chance += one.chance / clients.len() as f64;
    }
    Ok(mean)
}

/// Which values of the tensor `name` the selection hides.
///
/// # Errors
/// [`FederatedError::Protection`] when the selection is of another state.
fn hidden_values(
    state: &NamedTensors,
    name: &str,
    selection: &Selection,
) -> Result<Vec<bool>, FederatedError> {
    let chosen = vec![1.0; selection.chosen().len()];
    let rest = vec![0.0; state.count().saturating_sub(chosen.len())];
    let marks = state.unflatten(&selection.join(&chosen, &rest)?)?;
    let marked = marks.get(name).map_or(&[][..], |t| &t.values);
    Ok(marked.iter().map(|m| *m == 1.0).collect())
}

/// The share of the attacked layer's values that a selection over the values of `state` hides.
///
/// # Errors
/// [`FederatedError::Protection`] when the selection is of another state.
pub fn hidden_share(
    tuner: &Tuner,
    state: &NamedTensors,
    selection: &Selection,
) -> Result<f64, FederatedError> {
    let hidden = hidden_values(state, &attacked(tuner), selection)?;
    let count = hidden.iter().filter(|h| **h).count();
    Ok(count as f64 / hidden.len().max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{below, stream};
    use crate::tuner::Method;
    use tacit_bitnet::train::TrainConfig;

    fn tuner(kind: Kind) -> Tuner {
        let base = Network::new(&TrainConfig {
            hidden: 128,
            layers: 2,
            heads: 4,
            ffn: 160,
            vocab: 1024,
            context: 16,
            ..TrainConfig::default()
        });
        let method = Method {
            kind,
            ..Method::default()
        };
        Tuner::new(base, &method, 5).unwrap()
    }

    fn clients(count: u64, sequences: usize) -> Vec<Vec<Window>> {
        (0..count)
            .map(|c| {
                let mut rng = stream(3, "audit text", &[c]);
                (0..sequences)
                    .map(|_| {
                        let ids: Vec<u32> = (0..13).map(|_| below(&mut rng, 1024) as u32).collect();
                        (ids[..12].to_vec(), ids[1..].to_vec())
                    })
                    .collect()
            })
            .collect()
    }

    #[test]
    fn text_is_recovered_from_a_plain_gradient_and_not_from_the_defended_sum() {
        let full = tuner(Kind::Full);
        let state = full.initial(8, 0).unwrap();
        for sequences in [1, 4] {
            let found = recovery(&full, &state, &clients(4, sequences), View::Plain).unwrap();
            println!(
                "full gradient, batch {sequences}: {:.1} % of {} tokens (chance {:.1} %)",
                100.0 * found.recovered,
                found.tokens,
                100.0 * found.chance
            );
            assert!(found.recovered >= 0.9, "{found:?}");
        }
        let many = clients(24, 4);
        let sum = recovery(&full, &state, &many, View::SecureSum).unwrap();
        println!(
            "secure sum of 24: {:.1} % (chance {:.1} %)",
            100.0 * sum.recovered,
            100.0 * sum.chance
        );
        assert!(sum.recovered < 0.25, "{sum:?}");
        let noisy = View::NoisySum {
            clip: 1.0,
            multiplier: 1.0,
            seed: 1,
        };
        let defended = recovery(&full, &state, &many, noisy).unwrap();
        println!(
            "noisy secure sum: {:.1} % (chance {:.1} %)",
            100.0 * defended.recovered,
            100.0 * defended.chance
        );
        assert!(defended.recovered <= defended.chance + 0.02, "{defended:?}");
        // LoRA at its start: B = 0, so that A has no gradient; after B has moved, rank 8 sees 8 tokens.
        let lora = tuner(Kind::Lora);
        let mut state = lora.initial(8, 0).unwrap();
        let start = recovery(&lora, &state, &clients(4, 1), View::Plain).unwrap();
        assert_eq!(start.rank, 0);
        let mut rng = stream(4, "moved", &[]);
        for v in state.values_mut(&factor(LAYER, 'b')).unwrap() {
            *v = 0.01 * crate::random::normal(&mut rng) as f32;
        }
        let moved = recovery(&lora, &state, &clients(4, 1), View::Plain).unwrap();
        println!(
            "LoRA rank 8, batch 1: {:.1} % of {} tokens (chance {:.1} %)",
            100.0 * moved.recovered,
            moved.tokens,
            100.0 * moved.chance
        );
        let defended = recovery(&lora, &state, &many, noisy).unwrap();
        assert!(defended.recovered <= defended.chance + 0.02, "{defended:?}");
        // FFA-LoRA: rank 8 sees inputs in 8 dimensions; 12 tokens fill them, so that nothing can be told apart.
        let ffa = tuner(Kind::FfaLora);
        let state = ffa.initial(8, 0).unwrap();
        let filled = recovery(&ffa, &state, &clients(4, 1), View::Plain).unwrap();
        assert_eq!((filled.width, filled.rank), (8, 8));
        assert!(filled.recovered < 0.3, "{filled:?}");
        let private = View::PrivateSum {
            clip: 0.5,
            deviation: 1.0,
            seed: 1,
        };
        let state = full.initial(8, 0).unwrap();
        let defended = recovery(&full, &state, &clients(4, 1), private).unwrap();
        assert!(defended.recovered <= 0.1, "{defended:?}");
    }
}
