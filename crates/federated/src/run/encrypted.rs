//! A round's encrypted sum with all parties in this process: clients encrypt, the coordinator adds, clients decrypt.
//!
//! With a `share` below 1 only the most sensitive values are encrypted (FedML-HE, Jin et al., arXiv 2303.10837): the sensitivity of a value `w_m` is
//! how much its gradient depends on the labels, `|d/dy (d loss / d w_m)|`. Labels are tokens here, so the derivative is a difference, of the gradients
//! with the right next tokens and with random ones, averaged over some sequences. The clients' sensitivities, each scaled to norm 1, are themselves summed
//! under encryption before the first round, and all take the same largest share. What travels in the clear is seen by the coordinator.

use rayon::prelude::*;
use tacit_bitnet::train::Penalties;
use tacit_ckks::SecretKey;

use super::signer::Signer;
use crate::data::ClientData;
use crate::protection::ckks_aggregation::{CkksAggregation, CkksSum, Selection};
use crate::random::{below, normal, stream};
use crate::run::secure::SecureMean;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// Sequences of a client over which its sensitivities are averaged.
const SEQUENCES: usize = 8;

/// The scheme of a run and the key that its clients share. The coordinator's part uses the scheme only.
pub(super) struct Encryption {
    scheme: CkksAggregation,
    key: SecretKey,
    /// Which values are encrypted; all without it.
    selection: Option<Selection>,
}

impl std::fmt::Debug for Encryption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encryption").finish_non_exhaustive()
    }
}

impl Encryption {
    /// A fresh key for sums of `clients` updates of `dimension` values, none of a norm above `bound`.
    pub fn new(dimension: usize, clients: usize, bound: f64) -> Result<Self, FederatedError> {
        let scheme = CkksAggregation::new(dimension, clients, bound)?;
        let key = scheme.generate_key();
        Ok(Self {
            scheme,
            key,
            selection: None,
        })
    }

    /// The same for the share of the values with the largest sum of the clients' `sensitivities`, which are summed under encryption.
    pub fn selective(
        sensitivities: &[Vec<f32>],
        share: f64,
        bound: f64,
    ) -> Result<Self, FederatedError> {
        let (n, dimension) = (
            sensitivities.len(),
            sensitivities.first().map_or(0, Vec::len),
        );
        let all = Self::new(dimension, n, 1.0)?;
        let mut sum = CkksSum::new(&all.scheme);
        for s in sensitivities {
            sum.add(&all.scheme.encrypt(s, &all.key)?)?;
        }
        let mean = all.scheme.decrypt_mean(&sum.finish()?, &all.key)?;
        let selection = Selection::top(&mean, share)?;
        let chosen = Self::new(selection.chosen().len(), n, bound)?;
        Ok(Self {
            selection: Some(selection),
            ..chosen
        })
    }

    /// What a client sends: its ciphertexts, and what stays in the clear.
    fn encrypt(&self, update: &[f32]) -> Result<(Vec<u8>, Vec<f32>), FederatedError> {
        let Some(selection) = &self.selection else {
            return Ok((self.scheme.encrypt(update, &self.key)?, Vec::new()));
        };
        let (chosen, rest) = selection.split(update)?;
        Ok((self.scheme.encrypt(&chosen, &self.key)?, rest))
    }
}

/// Every client's sensitivities of the trained values, scaled to norm 1.
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network.
pub(crate) fn sensitivities(
    seed: u64,
    tuner: &Tuner,
    clients: &[(usize, &ClientData)],
) -> Result<Vec<Vec<f32>>, FederatedError> {
    // Every `B` a little away from zero, as after some steps: at its start LoRA's `A` has no gradient.
    let mut state = tuner.initial(tuner.method().rank, 0)?;
    let mut rng = stream(seed, "state for sensitivities", &[]);
    let names: Vec<String> = state.names().map(String::from).collect();
    for name in names.iter().filter(|n| n.ends_with(".lora_b")) {
        for v in state.values_mut(name).unwrap_or_default() {
            *v = 0.02 * normal(&mut rng) as f32;
        }
    }
    let network = tuner.network(&state, &NamedTensors::new())?;
    let vocabulary = network.vocabulary();
    let gradient = |ids: &[u32], targets: &[u32]| -> Result<Vec<f32>, FederatedError> {
        let none = Penalties::none();
        let (_, g) = tuner.gradient(&network, &state, ids, targets, ids.len(), &none)?;
        Ok(g.flatten())
    };
    clients
        .par_iter()
        .map(|(k, data)| {
            let mut sum = vec![0f32; state.count()];
            let mut rng = stream(seed, "other labels", &[*k as u64]);
            for (ids, targets) in data.train.iter().take(SEQUENCES) {
                let others: Vec<u32> = targets
                    .iter()
                    .map(|_| below(&mut rng, vocabulary) as u32)
                    .collect();
                let (right, other) = (gradient(ids, targets)?, gradient(ids, &others)?);
                for ((s, a), b) in sum.iter_mut().zip(right).zip(other) {
                    *s += (a - b).abs();
                }
            }
            let norm = sum
                .iter()
                .map(|s| f64::from(*s).powi(2))
                .sum::<f64>()
                .sqrt();
            // A hair below 1, so that rounding cannot lift it above the scheme's bound.
            let factor = ((1.0 - 1e-6) / norm.max(1e-30)) as f32;
            sum.iter_mut().for_each(|s| *s *= factor);
            Ok(sum)
        })
        .collect()
}

/// Mean of `updates`, each with its client's number.
///
/// # Errors
/// [`FederatedError::Protection`] when an update leaves its bound.
pub(super) fn mean(
    encryption: &Encryption,
    updates: &[(usize, NamedTensors)],
    signer: Option<&Signer>,
    round: usize,
) -> Result<SecureMean, FederatedError> {
    let like = updates.first().map(|u| u.1.clone()).unwrap_or_default();
    let mut sum = CkksSum::new(&encryption.scheme);
    let (mut bytes_up, mut clear_bytes) = (0, 0);
    let mut clear: Vec<f32> = Vec::new();
    for &(i, ref u) in updates {
        like.check_layout(u, "summing updates under encryption")?;
        let (ciphertexts, rest) = encryption.encrypt(&u.flatten())?;
        clear_bytes = 4 * rest.len();
        let mut message = ciphertexts;
        message.extend(rest.iter().flat_map(|v| v.to_le_bytes()));
        let sealed = match signer {
            None => message,
            Some(s) => {
                let sealed = s.seal(i, round, &message)?;
                bytes_up += (sealed.len() - message.len()) as u64;
                s.open(&sealed, i, round)?.to_vec()
            }
        };
        bytes_up += sealed.len() as u64;
        let (ciphertexts, rest) = sealed.split_at(sealed.len() - clear_bytes);
        sum.add(ciphertexts)?;
        clear.resize(clear_bytes / 4, 0.0);
        for (c, bytes) in clear.iter_mut().zip(rest.chunks_exact(4)) {
            *c += f32::from_le_bytes(bytes.try_into().unwrap_or_default()) / updates.len() as f32;
        }
    }
    let total = sum.finish()?;
    let mut mean = encryption.scheme.decrypt_mean(&total, &encryption.key)?;
    if let Some(selection) = &encryption.selection {
        mean = selection.join(&mean, &clear)?;
    }
    Ok(SecureMean {
        mean: like.unflatten(&mean)?,
        bytes_up,
        bytes_down: ((total.len() + clear_bytes) * updates.len()) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selected_tenth_is_encrypted_the_rest_is_not_and_the_mean_is_the_same() {
        let sensitive: Vec<Vec<f32>> = (0..3)
            .map(|k| {
                (0..500)
                    .map(|j| if j % 10 == 3 { 0.1 } else { 1e-4 * k as f32 })
                    .collect()
            })
            .collect();
        let e = Encryption::selective(&sensitive, 0.1, 1.0).unwrap();
        let chosen: Vec<u32> = (0..50).map(|i| 10 * i + 3).collect();
        assert_eq!(e.selection.as_ref().unwrap().chosen(), chosen);
        let update = |k: usize| -> Vec<f32> {
            (0..500)
                .map(|j| ((j + 7 * k) % 13) as f32 / 300.0)
                .collect()
        };
        let updates: Vec<(usize, NamedTensors)> = (0..3)
            .map(|k| {
                let mut t = NamedTensors::new();
                t.insert("u", &[500], update(k)).unwrap();
                (k, t)
            })
            .collect();
        let m = mean(&e, &updates, None, 0).unwrap();
        for (j, x) in m.mean.flatten().iter().enumerate() {
            let want = (0..3).map(|k| update(k)[j]).sum::<f32>() / 3.0;
            assert!((x - want).abs() < 1e-6, "{j}: {x} {want}");
        }
        // The clear part is what the message ends with, value for value; no chosen value is in it.
        let (_, rest) = e.encrypt(&update(1)).unwrap();
        let want: Vec<f32> = (0..500)
            .filter(|j| j % 10 != 3)
            .map(|j| update(1)[j])
            .collect();
        assert_eq!(rest, want);
        assert_eq!(m.bytes_up % 3, 0);
    }

    #[test]
    fn the_mean_is_that_of_the_updates_and_signatures_are_counted() {
        let updates: Vec<(usize, NamedTensors)> = (0..3)
            .map(|i| {
                let mut t = NamedTensors::new();
                let v = (0..500)
                    .map(|j| ((i * 37 + j * 11) % 101) as f32 / 101.0 - 0.5)
                    .collect();
                t.insert("u", &[500], v).unwrap();
                (i, t)
            })
            .collect();
        let e = Encryption::new(500, 3, 1.0).unwrap();
        let signer = Signer::new(3, [7; 16]).unwrap();
        let plain = mean(&e, &updates, None, 0).unwrap();
        let signed = mean(&e, &updates, Some(&signer), 0).unwrap();
        assert_eq!(
            signed.bytes_up - plain.bytes_up,
            3 * (5 + 16 + 8 + 4 + 1 + 6 + 32 + 64)
        );
        for (j, x) in signed.mean.flatten().iter().enumerate() {
            let want: f32 = updates.iter().map(|u| u.1.flatten()[j]).sum::<f32>() / 3.0;
            assert!((x - want).abs() < 1e-6, "{x} {want}");
        }
        assert!(
            mean(&Encryption::new(500, 3, 0.1).unwrap(), &updates, None, 0)
                .unwrap_err()
                .to_string()
                .contains("clip")
        );
    }
}
