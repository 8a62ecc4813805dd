//! A round's encrypted sum with all parties in this process: clients encrypt, the coordinator adds, clients decrypt.

use tacit_ckks::SecretKey;

use super::signer::Signer;
use crate::protection::ckks_aggregation::{CkksAggregation, CkksSum};
use crate::run::secure::SecureMean;
use crate::{FederatedError, NamedTensors};

/// The scheme of a run and the key that its clients share. The coordinator's part uses the scheme only.
pub(super) struct Encryption {
    scheme: CkksAggregation,
    key: SecretKey,
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
        Ok(Self { scheme, key })
    }
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
    let mut bytes_up = 0;
    for &(i, ref u) in updates {
        like.check_layout(u, "summing updates under encryption")?;
        let ciphertexts = encryption.scheme.encrypt(&u.flatten(), &encryption.key)?;
        match signer {
            None => {
                bytes_up += ciphertexts.len() as u64;
                sum.add(&ciphertexts)?;
            }
            Some(s) => {
                let sealed = s.seal(i, round, &ciphertexts)?;
                bytes_up += sealed.len() as u64;
                sum.add(s.open(&sealed, i, round)?)?;
            }
        }
    }
    let total = sum.finish()?;
    let mean = encryption.scheme.decrypt_mean(&total, &encryption.key)?;
    Ok(SecureMean {
        mean: like.unflatten(&mean)?,
        bytes_up,
        bytes_down: (total.len() * updates.len()) as u64,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
