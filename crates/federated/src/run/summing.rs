//! What the coordinator makes of a round's updates where it may learn no single one: every kind of hidden sum, behind one call.

use super::encrypted::Encryption;
use super::private::PrivateSum;
use super::round::Aggregate;
use super::secure::SecureMean;
use super::signer::Signer;
use super::{Hidden, encrypted, secure, verified};
use crate::config::RunConfig;
use crate::protection::ClientId;
use crate::protection::robust::{self, Buckets};
use crate::{FederatedError, NamedTensors};

/// What hides the updates of a round, and the state they change.
pub(super) struct Summing<'a> {
    pub config: &'a RunConfig,
    pub hidden: &'a Hidden,
    pub signer: Option<&'a Signer>,
    /// The run's, from which sessions and groups are derived.
    pub fingerprint: &'a str,
    /// The state that the clients began with.
    pub current: &'a NamedTensors,
}

/// The coordinator's own update, where a rule compares the clients' with one.
pub(super) type Root<'a> = &'a dyn Fn() -> Result<Option<Vec<f32>>, FederatedError>;

impl Summing<'_> {
    /// The state moved by the mean of `updates` (each with its client's number), of which only the sum is learned.
    ///
    /// # Errors
    /// [`FederatedError::Protection`] for updates that the sum cannot take.
    pub fn sum(
        &self,
        round: usize,
        updates: &[(usize, NamedTensors)],
        root: Root<'_>,
    ) -> Result<Aggregate, FederatedError> {
        let mut average = self.current.clone();
        let mut epsilon = None;
        let bound = self.config.clip().unwrap_or(1.0);
        let session = session_of(self.fingerprint);
        let (bytes_up, bytes_down) = match (self.hidden, self.config.secure_bits()) {
            (Hidden::Noise(private), Some(bits)) => {
                epsilon = Some(private.ledger(round + 1)?);
                let inputs = updates
                    .iter()
                    .map(|(_, u)| private.encode(u))
                    .collect::<Result<Vec<_>, _>>()?;
                let sum = secure::sum(inputs, bits, session, round as u64)?;
                let rate = self.noise_rate(round, private.rate());
                average.axpy(rate, &private.decode(&sum.values, self.current)?)?;
                (sum.bytes_up, sum.bytes_down)
            }
            (Hidden::Encrypted(scheme), _) => {
                let sum = encrypted::mean(scheme, updates, self.signer, round)?;
                average.axpy(1.0, &sum.mean)?;
                (sum.bytes_up, sum.bytes_down)
            }
            (Hidden::Verified, _) => {
                let sum = verified::mean(updates, session, self.signer, round, bound)?;
                average.axpy(1.0, &sum.mean)?;
                (sum.bytes_up, sum.bytes_down)
            }
            (_, bits) => {
                let bits = bits.unwrap_or(24);
                let sum = match self.config.robust() {
                    Some(rule) => self.robust_sum(round, updates, bits, bound, rule, root)?,
                    None => {
                        let updates: Vec<NamedTensors> =
                            updates.iter().map(|u| u.1.clone()).collect();
                        secure::mean(&updates, bound, bits, session, round as u64)?
                    }
                };
                average.axpy(1.0, &sum.mean)?;
                (sum.bytes_up, sum.bytes_down)
            }
        };
        Ok(Aggregate {
            average,
            bytes_up,
            bytes_down,
            epsilon,
            ..Aggregate::default()
        })
    }

    /// A secure sum for each of some random groups, and a robust rule over the groups' means.
    fn robust_sum(
        &self,
        round: usize,
        updates: &[(usize, NamedTensors)],
        bits: u32,
        bound: f64,
        rule: robust::Rule,
        root: Root<'_>,
    ) -> Result<SecureMean, FederatedError> {
        let ids: Vec<ClientId> = updates.iter().map(|u| u.0 as ClientId).collect();
        let groups = Buckets::new(&ids, self.config.buckets(), self.group_seed(round))?;
        let (mut means, mut up, mut down) = (Vec::new(), 0, 0);
        for (g, group) in groups.groups().iter().enumerate() {
            let updates: Vec<NamedTensors> = updates
                .iter()
                .filter(|u| group.contains(&(u.0 as ClientId)))
                .map(|u| u.1.clone())
                .collect();
            let mut session = session_of(self.fingerprint);
            session[0] ^= g as u8;
            session[1] ^= (g >> 8) as u8;
            let sum = secure::mean(&updates, bound, bits, session, round as u64)?;
            means.push(sum.mean.flatten());
            up += sum.bytes_up;
            down += sum.bytes_down;
        }
        let update = rule.aggregate(&means, root()?.as_deref())?.update;
        Ok(SecureMean {
            mean: self.current.unflatten(&update)?,
            bytes_up: up,
            bytes_down: down,
        })
    }

    /// From what the groups of a round are drawn.
    pub fn group_seed(&self, round: usize) -> [u8; 32] {
        let text = format!("groups {} {round}", self.fingerprint);
        *blake3::hash(text.as_bytes()).as_bytes()
    }

    /// As [`noise_rate`].
    pub fn noise_rate(&self, round: usize, rate: f64) -> f32 {
        noise_rate(self.config, round, rate)
    }
}

/// The step along a noisy mean gradient: falls over the rounds as the clients' learning rate would.
pub(super) fn noise_rate(config: &RunConfig, round: usize, rate: f64) -> f32 {
    let t = &config.train;
    (rate * t.rate(round, config.rounds) / t.lr) as f32
}

/// What hides the updates of a run of `n` clients whose updates have `values` values; `sensitivities` are asked for where only some of them are encrypted.
pub(super) fn hidden_of(
    config: &RunConfig,
    values: usize,
    n: usize,
    fingerprint: &str,
    sensitivities: &dyn Fn() -> Result<Vec<Vec<f32>>, FederatedError>,
) -> Result<Hidden, FederatedError> {
    if let (Some(noise), Some(bits)) = (config.noise(), config.secure_bits()) {
        let rotation = *blake3::hash(fingerprint.as_bytes()).as_bytes();
        let rounds = config.rounds;
        return Ok(Hidden::Noise(PrivateSum::new(
            noise, rounds, n, values, bits, rotation,
        )?));
    }
    if let (Some(share), Some(bound)) = (config.encrypted_share(), config.clip()) {
        let encryption = if share < 1.0 {
            Encryption::selective(&sensitivities()?, share, bound)?
        } else {
            Encryption::new(values, n, bound)?
        };
        return Ok(Hidden::Encrypted(encryption));
    }
    if config.verified() {
        return Ok(Hidden::Verified);
    }
    Ok(Hidden::Plainly)
}

/// Identifies a run in its protocols, from what all its parties agree on.
pub(super) fn session_of(fingerprint: &str) -> [u8; 16] {
    let mut session = [0u8; 16];
    session.copy_from_slice(&blake3::hash(fingerprint.as_bytes()).as_bytes()[..16]);
    session
}
