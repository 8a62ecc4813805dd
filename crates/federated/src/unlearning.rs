//! Forgetting a client: a signed ledger of contributions, exact removal where the algebra allows it, and a certificate.
//!
//! A model that is `base + Σ_u n_u Δ_u / Σ_u n_u` of stored contributions of one round (stacked adapters, one-shot runs) forgets a client exactly: the sum is formed
//! again without it, in the same order, and is bit for bit that of a run in which the client never took part. A contribution of an earlier round has shaped
//! what others trained on; then the run must be replayed from before the client's first round, and [`Ledger::forget`] says which that is.
//!
//! The ledger is a hash chain: each entry's hash covers the one before, the client signs what it contributed, and the coordinator signs the head of a
//! certificate. **Assumed:** Ed25519 and BLAKE3; the ledger's head was published, so that entries cannot be taken out unseen. **Not promised:** that nobody
//! kept an old model.

use crate::FederatedError;
use crate::protection::ClientId;
use crate::protection::secure_aggregation::Roster;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One contribution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Contribution {
    /// Who.
    pub client: ClientId,
    /// In which round.
    pub round: u64,
    /// BLAKE3 of the values, little-endian.
    pub content: [u8; 32],
    /// Weight in the mean.
    pub weight: f64,
    /// The client's Ed25519 signature of the fields above.
    pub signature: Vec<u8>,
}

impl Contribution {
    fn signed_bytes(client: ClientId, round: u64, content: &[u8; 32], weight: f64) -> Vec<u8> {
        let mut out = b"tacit contribution 1".to_vec();
        out.extend(client.to_le_bytes());
        out.extend(round.to_le_bytes());
        out.extend(content);
        out.extend(weight.to_le_bytes());
        out
    }

    /// A client's signed entry for `values`.
    pub fn sign(
        client: ClientId,
        round: u64,
        values: &[f32],
        weight: f64,
        key: &SigningKey,
    ) -> Self {
        let content = hash(values);
        Self {
            client,
            round,
            content,
            weight,
            signature: key
                .sign(&Self::signed_bytes(client, round, &content, weight))
                .to_bytes()
                .to_vec(),
        }
    }

    /// Whether `values` are what was signed.
    pub fn is_of(&self, values: &[f32]) -> bool {
        hash(values) == self.content
    }

    fn verify(&self, key: &VerifyingKey) -> bool {
        let bytes = Self::signed_bytes(self.client, self.round, &self.content, self.weight);
        Signature::from_slice(&self.signature)
            .is_ok_and(|signature| key.verify_strict(&bytes, &signature).is_ok())
    }
}

fn hash(values: &[f32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for v in values {
        hasher.update(&v.to_le_bytes());
    }
    hasher.finalize().into()
}

/// How a client can be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Removal {
    /// It took part in the last round only: form that round's sum again without it.
    Exact {
        /// The round.
        round: u64,
    },
    /// Replay the run without it from the state before this round.
    Replay {
        /// Its first round.
        from_round: u64,
    },
    /// Its direct share of every average is taken back; what others learned from it stays. An approximation.
    Subtract {
        /// Its first round.
        from_round: u64,
    },
}

/// A hash chain of contributions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    entries: Vec<Contribution>,
    hashes: Vec<[u8; 32]>,
}

impl Ledger {
    /// The hash of the last entry: what is published.
    pub fn head(&self) -> [u8; 32] {
        self.hashes.last().copied().unwrap_or_default()
    }

    /// All entries.
    pub fn entries(&self) -> &[Contribution] {
        &self.entries
    }

    fn next(head: [u8; 32], entry: &Contribution) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        hasher.update(b"tacit ledger 1");
        hasher.update(&head);
        hasher.update(&Contribution::signed_bytes(
            entry.client,
            entry.round,
            &entry.content,
            entry.weight,
        ));
        hasher.update(&entry.signature);
        hasher.finalize().into()
    }

    /// Appends a contribution.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] if its signature does not verify, its weight is not positive, its round is before the last one, or the client already
    /// contributed to it.
    pub fn append(&mut self, entry: Contribution, roster: &Roster) -> Result<(), FederatedError> {
        let refuse = |what: &str, expected: String, found: String| {
            Err(FederatedError::setting(
                format!("ledger.{what}"),
                expected,
                found,
                "the contribution is refused",
            ))
        };
        if !roster.get(entry.client).is_some_and(|k| entry.verify(k)) {
            return refuse(
                "signature",
                format!("one of client {}", entry.client),
                "another".into(),
            );
        }
        if !(entry.weight > 0.0 && entry.weight.is_finite()) {
            return refuse(
                "weight",
                "a positive number".into(),
                entry.weight.to_string(),
            );
        }
        if let Some(last) = self.entries.last()
            && entry.round < last.round
        {
            return refuse(
                "round",
                format!("{} or later", last.round),
                entry.round.to_string(),
            );
        }
        if self
            .entries
            .iter()
            .any(|e| (e.client, e.round) == (entry.client, entry.round))
        {
            return refuse(
                "client",
                "one contribution a round".into(),
                format!("a second of client {}", entry.client),
            );
        }
        self.hashes.push(Self::next(self.head(), &entry));
        self.entries.push(entry);
        Ok(())
    }

    /// Drops the entries of round `rounds` (from 0) and later: what a crash left behind of a round that was not finished.
    pub fn truncate(&mut self, rounds: u64) {
        let keep = self.entries.partition_point(|e| e.round < rounds);
        self.entries.truncate(keep);
        self.hashes.truncate(keep);
    }

    /// Checks every signature and the chain, for a ledger that was read from outside.
    ///
    /// # Errors
    /// [`FederatedError::Format`] naming the first wrong entry.
    pub fn verify(&self, roster: &Roster) -> Result<(), FederatedError> {
        let mut head = [0; 32];
        for (i, entry) in self.entries.iter().enumerate() {
            head = Self::next(head, entry);
            let signed = roster.get(entry.client).is_some_and(|k| entry.verify(k));
            if !signed || self.hashes.get(i) != Some(&head) {
                return Err(FederatedError::format(
                    "contribution ledger",
                    format!(
                        "entry {i} (client {}, round {}) is not what was signed",
                        entry.client, entry.round
                    ),
                    "restore it from a copy whose head was published",
                ));
            }
        }
        if self.hashes.len() != self.entries.len() {
            return Err(FederatedError::format(
                "contribution ledger",
                "it has hashes without entries",
                "restore it from a copy",
            ));
        }
        Ok(())
    }

    /// How a client can be forgotten; `None` if it never contributed.
    pub fn forget(&self, client: ClientId) -> Option<Removal> {
        let first = self
            .entries
            .iter()
            .find(|e| e.client == client)
            .map(|e| e.round)?;
        let last = self.entries.last().map_or(first, |e| e.round);
        Some(if first == last {
            Removal::Exact { round: first }
        } else {
            Removal::Replay { from_round: first }
        })
    }
}

/// The weighted mean of stored contributions of one round, without those of `forgotten`: in order of client number, in `f64`, so that a sum formed
/// again without a client is bit for bit that of a round in which it was not.
///
/// # Errors
/// [`FederatedError::Format`] if a stored contribution is not what the ledger says, or of another length; [`FederatedError::Setting`] if nobody is left.
pub fn mean_without(
    ledger: &Ledger,
    round: u64,
    stored: &BTreeMap<ClientId, Vec<f32>>,
    forgotten: &[ClientId],
) -> Result<Vec<f32>, FederatedError> {
    let mut sum: Vec<f64> = Vec::new();
    let mut total = 0.0;
    let mut entries: Vec<&Contribution> = ledger
        .entries
        .iter()
        .filter(|e| e.round == round && !forgotten.contains(&e.client))
        .collect();
    entries.sort_by_key(|e| e.client);
    for entry in entries {
        let values = stored
            .get(&entry.client)
            .filter(|v| hash(v) == entry.content && (sum.is_empty() || sum.len() == v.len()))
            .ok_or_else(|| {
                FederatedError::format(
                    format!("stored contribution of client {}", entry.client),
                    "it is missing, of another length, or not what the client signed",
                    "restore it from a copy, or replay the run",
                )
            })?;
        sum.resize(values.len(), 0.0);
        for (s, &v) in sum.iter_mut().zip(values) {
            *s += entry.weight * f64::from(v);
        }
        total += entry.weight;
    }
    if total == 0.0 {
        return Err(FederatedError::setting(
            "forget",
            "at least one other client in the round",
            "none",
            "start again from the base model",
        ));
    }
    Ok(sum.into_iter().map(|s| (s / total) as f32).collect())
}

/// What the coordinator states of a removal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// Who was forgotten.
    pub client: ClientId,
    /// How.
    pub removal: Removal,
    /// The ledger's head at that time.
    pub ledger_head: [u8; 32],
    /// BLAKE3 of the model after the removal.
    pub model: [u8; 32],
    /// `‖after − retrained‖ / ‖retrained‖`: 0 for exact removal.
    pub distance: f64,
    /// AUC of membership inference on the client's examples afterwards, 0.5 is chance; absent if not measured.
    pub membership_auc: Option<f64>,
    /// The coordinator's signature of the fields above.
    pub signature: Vec<u8>,
}

impl Certificate {
    fn signed_bytes(&self) -> Vec<u8> {
        let unsigned = Self {
            signature: Vec::new(),
            ..self.clone()
        };
        // A fixed field order and exact numbers: the same fields always give the same bytes.
        let mut out = b"tacit forgetting certificate 1".to_vec();
        out.extend(
            postcard::to_stdvec(&(
                unsigned.client,
                match unsigned.removal {
                    Removal::Exact { round } => (0u8, round),
                    Removal::Replay { from_round } => (1, from_round),
                    Removal::Subtract { from_round } => (2, from_round),
                },
                unsigned.ledger_head,
                unsigned.model,
                unsigned.distance.to_bits(),
                unsigned.membership_auc.map(f64::to_bits),
            ))
            .expect("plain data always serialises"),
        );
        out
    }

    /// A signed certificate for `after`, made by `removal`, with `retrained` the model of a run without the client.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] if the client never contributed or the models have different lengths.
    pub fn issue(
        ledger: &Ledger,
        client: ClientId,
        removal: Removal,
        after: &[f32],
        retrained: &[f32],
        membership_auc: Option<f64>,
        key: &SigningKey,
    ) -> Result<Self, FederatedError> {
        if ledger.forget(client).is_none() {
            return Err(FederatedError::setting(
                "forget.client",
                "a client with contributions in the ledger",
                client,
                "there is nothing to forget",
            ));
        }
        if after.len() != retrained.len() {
            return Err(FederatedError::setting(
                "forget.retrained",
                format!("{} values", after.len()),
                retrained.len(),
                "compare models of one shape",
            ));
        }
        let norm =
            |f: &dyn Fn(usize) -> f64| (0..after.len()).map(|i| f(i).powi(2)).sum::<f64>().sqrt();
        let off = norm(&|i| f64::from(after[i]) - f64::from(retrained[i]));
        let size = norm(&|i| f64::from(retrained[i]));
        let mut certificate = Self {
            client,
            removal,
            ledger_head: ledger.head(),
            model: hash(after),
            distance: if off == 0.0 {
                0.0
            } else {
                off / size.max(f64::MIN_POSITIVE)
            },
            membership_auc,
            signature: Vec::new(),
        };
        certificate.signature = key.sign(&certificate.signed_bytes()).to_bytes().to_vec();
        Ok(certificate)
    }

    /// Whether the coordinator signed it and it is of this model.
    pub fn verify(&self, model: &[f32], key: &VerifyingKey) -> bool {
        hash(model) == self.model
            && Signature::from_slice(&self.signature)
                .is_ok_and(|s| key.verify_strict(&self.signed_bytes(), &s).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};

    fn key(client: ClientId) -> SigningKey {
        SigningKey::from_bytes(&[client as u8 + 1; 32])
    }

    fn roster() -> Roster {
        Roster::new((0..4).map(|c| (c, key(c).verifying_key())))
    }

    fn values(client: ClientId) -> Vec<f32> {
        let mut rng = stream(5, "contribution", &[u64::from(client)]);
        (0..1000).map(|_| normal(&mut rng) as f32).collect()
    }

    fn round(clients: &[ClientId]) -> (Ledger, BTreeMap<ClientId, Vec<f32>>) {
        let mut ledger = Ledger::default();
        let mut stored = BTreeMap::new();
        for &c in clients {
            let v = values(c);
            let entry = Contribution::sign(c, 1, &v, 1.0 + f64::from(c), &key(c));
            ledger.append(entry, &roster()).unwrap();
            stored.insert(c, v);
        }
        (ledger, stored)
    }

    #[test]
    fn removal_is_bit_for_bit_a_run_without_the_client() {
        let (ledger, stored) = round(&[0, 1, 2, 3]);
        let (other, kept) = round(&[0, 1, 3]);
        let after = mean_without(&ledger, 1, &stored, &[2]).unwrap();
        let never = mean_without(&other, 1, &kept, &[]).unwrap();
        assert_eq!(after, never);
        assert_ne!(after, mean_without(&ledger, 1, &stored, &[]).unwrap());
        assert_eq!(ledger.forget(2), Some(Removal::Exact { round: 1 }));
        let certificate = Certificate::issue(
            &ledger,
            2,
            Removal::Exact { round: 1 },
            &after,
            &never,
            Some(0.5),
            &key(9),
        )
        .unwrap();
        assert_eq!(certificate.distance, 0.0);
        assert!(certificate.verify(&after, &key(9).verifying_key()));
        assert!(!certificate.verify(&values(0), &key(9).verifying_key()));
        let forged = Certificate {
            membership_auc: None,
            ..certificate
        };
        assert!(!forged.verify(&after, &key(9).verifying_key()));
    }

    #[test]
    fn ledgers_show_tampering_and_ask_for_replay_when_rounds_followed() {
        let (mut ledger, mut stored) = round(&[0, 1]);
        let next = Contribution::sign(1, 2, &values(1), 1.0, &key(1));
        ledger.append(next.clone(), &roster()).unwrap();
        assert_eq!(ledger.forget(0), Some(Removal::Replay { from_round: 1 }));
        assert_eq!(ledger.forget(3), None);
        assert!(ledger.append(next, &roster()).is_err(), "twice");
        let forged = Contribution::sign(2, 2, &values(2), 1.0, &key(3));
        assert!(ledger.append(forged, &roster()).is_err());
        let late = Contribution::sign(2, 1, &values(2), 1.0, &key(2));
        assert!(ledger.append(late, &roster()).is_err());
        ledger.verify(&roster()).unwrap();
        let text = serde_json::to_string(&ledger).unwrap();
        let back: Ledger = serde_json::from_str(&text).unwrap();
        assert_eq!(back, ledger);
        let mut bad = back.clone();
        bad.entries.remove(0);
        assert!(bad.verify(&roster()).is_err());
        let mut bad = back;
        bad.entries[1].weight = 5.0;
        assert!(bad.verify(&roster()).is_err());
        stored.get_mut(&0).unwrap()[0] += 1.0;
        assert!(mean_without(&ledger, 1, &stored, &[]).is_err());
        assert!(mean_without(&ledger, 1, &stored, &[0, 1]).is_err());
    }
}
