//! What forgetting a client needs, kept beside the checkpoint: keys, the signed ledger, states before rounds, contributions.
//!
//! ```text
//! history/keys.json            signature keys of clients and coordinator; all parties are in this process, between machines each keeps its own
//! history/ledger.json          the chain of signed contributions
//! history/state-0004.safetensors          the whole state before round 4 (counted from 0)
//! history/contributions-0004.safetensors  what the clients sent in it, where the coordinator sees that
//! ```
//!
//! All of it is written before the checkpoint that ends the round: after a crash the ledger is cut back to what the checkpoint knows.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::client::Contribution;
use super::state::RunState;
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{Roster, identity};
use crate::tensors::write_atomically;
use crate::unlearning::{Contribution as Entry, Ledger};
use crate::{FederatedError, NamedTensors};

/// The history of a run.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    clients: Vec<SigningKey>,
    coordinator: SigningKey,
    roster: Roster,
    ledger: Ledger,
}

/// Secret keys as hexadecimal text.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    coordinator: String,
    clients: Vec<String>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn key(text: &str, file: &Path) -> Result<SigningKey, FederatedError> {
    let bytes = (0..32)
        .map(|i| {
            text.get(2 * i..2 * i + 2)
                .and_then(|d| u8::from_str_radix(d, 16).ok())
        })
        .collect::<Option<Vec<u8>>>()
        .and_then(|b| <[u8; 32]>::try_from(b).ok())
        .filter(|_| text.len() == 64);
    bytes.map(|b| SigningKey::from_bytes(&b)).ok_or_else(|| {
        FederatedError::format(
            file.display().to_string(),
            "a key is not 64 hexadecimal digits",
            "restore it from a copy; without keys the ledger cannot be continued",
        )
    })
}

fn json(path: &Path, what: impl Serialize) -> Result<(), FederatedError> {
    let text = serde_json::to_string_pretty(&what).map_err(|e| {
        FederatedError::format(path.display().to_string(), e.to_string(), "report this")
    })?;
    write_atomically(path, text.as_bytes())
}

fn parsed<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, FederatedError> {
    let text = std::fs::read_to_string(path).map_err(|e| FederatedError::io(path, e))?;
    serde_json::from_str(&text).map_err(|e| {
        FederatedError::format(
            path.display().to_string(),
            e.to_string(),
            "restore it from a copy",
        )
    })
}

impl History {
    /// The history in a run's folder, begun if there is none, cut back to `rounds` finished rounds.
    ///
    /// # Errors
    /// [`FederatedError::Io`]; [`FederatedError::Format`] for damaged files or a ledger whose signatures do not verify.
    pub fn open(out: &Path, clients: usize, rounds: u64) -> Result<Self, FederatedError> {
        let folder = out.join("history");
        std::fs::create_dir_all(&folder).map_err(|e| FederatedError::io(&folder, e))?;
        let path = folder.join("keys.json");
        if !path.is_file() || rounds == 0 && !folder.join("ledger.json").is_file() {
            let fresh = || Ok::<_, FederatedError>(hex(identity()?.as_bytes()));
            let keys = Keys {
                coordinator: fresh()?,
                clients: (0..clients).map(|_| fresh()).collect::<Result<_, _>>()?,
            };
            json(&path, keys)?;
        }
        let keys: Keys = parsed(&path)?;
        if keys.clients.len() != clients {
            return Err(FederatedError::format(
                path.display().to_string(),
                format!("it has {} clients, the run {clients}", keys.clients.len()),
                "give the run another folder",
            ));
        }
        let secret = keys
            .clients
            .iter()
            .map(|k| key(k, &path))
            .collect::<Result<Vec<_>, _>>()?;
        let roster = Roster::new(
            secret
                .iter()
                .enumerate()
                .map(|(i, k)| (i as ClientId, k.verifying_key())),
        );
        let file = folder.join("ledger.json");
        let mut ledger: Ledger = if file.is_file() {
            parsed(&file)?
        } else {
            Ledger::default()
        };
        ledger.verify(&roster)?;
        ledger.truncate(rounds);
        Ok(Self {
            coordinator: key(&keys.coordinator, &path)?,
            clients: secret,
            roster,
            ledger,
            folder,
        })
    }

    /// Whether a run's folder has one.
    pub fn exists(out: &Path) -> bool {
        out.join("history").join("ledger.json").is_file()
    }

    /// The chain of contributions.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The coordinator's key.
    pub fn coordinator(&self) -> &SigningKey {
        &self.coordinator
    }

    fn file(&self, what: &str, round: usize) -> PathBuf {
        self.folder.join(format!("{what}-{round:04}.safetensors"))
    }

    /// The state before round `round`.
    pub(super) fn state(
        &self,
        round: usize,
        fingerprint: &str,
    ) -> Result<RunState, FederatedError> {
        RunState::load(&self.file("state", round), fingerprint)
    }

    pub(super) fn keep_state(
        &self,
        round: usize,
        state: &RunState,
        fingerprint: &str,
    ) -> Result<(), FederatedError> {
        state.save(&self.file("state", round), fingerprint)
    }

    /// Signs and appends every client's contribution, and keeps the values if the coordinator sees them. A hidden one is entered without its
    /// content: that a client took part.
    pub(super) fn keep_contributions(
        &mut self,
        round: usize,
        contributions: &[Contribution],
        visible: bool,
    ) -> Result<(), FederatedError> {
        let mut all = NamedTensors::new();
        for c in contributions {
            let values = if visible {
                c.update.flatten()
            } else {
                Vec::new()
            };
            let id = c.client as ClientId;
            let entry = Entry::sign(id, round as u64, &values, c.weight, &self.clients[c.client]);
            self.ledger.append(entry, &self.roster)?;
            if visible {
                all.insert(format!("{id}"), &[values.len()], values)?;
            }
        }
        if visible {
            all.save(&self.file("contributions", round), &[])?;
        }
        json(&self.folder.join("ledger.json"), &self.ledger)
    }

    /// What the clients sent in a round, checked against the ledger.
    ///
    /// # Errors
    /// [`FederatedError::Io`] when it was not kept (a hidden sum), [`FederatedError::Format`] when it is not what the clients signed.
    pub(super) fn contributions(
        &self,
        round: usize,
    ) -> Result<BTreeMap<ClientId, (Vec<f32>, f64)>, FederatedError> {
        let path = self.file("contributions", round);
        let (all, _) = NamedTensors::load(&path)?;
        let mut out = BTreeMap::new();
        for e in self.ledger.entries() {
            if e.round != round as u64 {
                continue;
            }
            let values = all.get(&e.client.to_string()).map(|t| t.values.clone());
            let values = values.filter(|v| e.is_of(v)).ok_or_else(|| {
                FederatedError::format(
                    path.display().to_string(),
                    format!(
                        "the contribution of client {} is not what it signed",
                        e.client
                    ),
                    "restore it from a copy, or replay the run",
                )
            })?;
            out.insert(e.client, (values, e.weight));
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_ledger_come_back_and_damage_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(!History::exists(dir.path()));
        let h = History::open(dir.path(), 2, 0).unwrap();
        json(&h.folder.join("ledger.json"), h.ledger()).unwrap();
        let again = History::open(dir.path(), 2, 0).unwrap();
        assert_eq!(h.coordinator.as_bytes(), again.coordinator.as_bytes());
        assert!(History::exists(dir.path()));
        let e = History::open(dir.path(), 3, 0).unwrap_err().to_string();
        assert!(e.contains("2 clients"), "{e}");
        let keys = h.folder.join("keys.json");
        let text = std::fs::read_to_string(&keys).unwrap();
        std::fs::write(&keys, text.replacen("\": \"", "\": \"x", 1)).unwrap();
        assert!(History::open(dir.path(), 2, 0).is_err());
    }
}
