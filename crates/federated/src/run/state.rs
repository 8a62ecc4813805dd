//! What a run remembers, and the checkpoint it is kept in.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::memory::Memory;
use crate::lora::Global;
use crate::rules::RuleState;
use crate::{FederatedError, NamedTensors};

/// Version of the checkpoint's layout.
const FORMAT: u32 = 2;

/// A finished round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RoundRecord {
    /// Number of the round, from 1.
    pub round: usize,
    /// Clients that took part.
    pub clients: Vec<usize>,
    /// Mean of their training losses, nats per token.
    pub train_loss: f64,
    /// Perplexity over all clients' validation text.
    pub validation_perplexity: f64,
    /// Bytes from clients to the coordinator, all messages together.
    pub bytes_up: u64,
    /// Bytes from the coordinator to clients.
    pub bytes_down: u64,
    /// Wall-clock seconds.
    pub seconds: f64,
    /// `|mean(BA) - mean B mean A|` times the adapter's scale, what averaging factors apart would miss. Not known under a secure sum.
    pub aggregation_error: Option<f64>,
    /// The same relative to `|mean(BA)|`.
    pub relative_aggregation_error: Option<f64>,
    /// Privacy spent so far (epsilon), where noise is added.
    pub epsilon: Option<f64>,
    /// Drawn clients whose update came too late and was left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<usize>,
    /// Drawn clients that answered with what could not be used, and were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<usize>,
    /// With a buffer, the steps that the coordinator took while each update was made, in the order of `clients`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub staleness: Vec<usize>,
    /// Simulated seconds since the start, where clients' speeds are simulated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<f64>,
    /// BLAKE3 of the shared state after the round.
    pub hash: String,
}

/// Everything that decides how a run goes on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunState {
    /// What all clients share.
    pub global: Global,
    /// Moments of the server rule.
    pub rule: RuleState,
    /// SCAFFOLD's server control; empty without it.
    pub control: NamedTensors,
    /// What each client remembers.
    pub clients: Vec<Memory>,
    /// Adapters of earlier steps that clients at work began with, with a buffer.
    pub versions: BTreeMap<usize, NamedTensors>,
    /// Rounds done.
    pub records: Vec<RoundRecord>,
}

#[derive(Serialize, Deserialize)]
struct Header {
    format: u32,
    fingerprint: String,
    content: String,
    clients: usize,
    rule_rounds: usize,
    records: Vec<RoundRecord>,
}

impl RunState {
    /// BLAKE3 of what clients share: adapter and merged changes.
    pub fn hash(&self) -> String {
        let mut h = blake3::Hasher::new();
        h.update(self.global.adapter.content_hash().as_bytes());
        h.update(self.global.residual.content_hash().as_bytes());
        h.finalize().to_hex().to_string()
    }

    fn groups(&self) -> [(&'static str, &NamedTensors); 5] {
        [
            ("adapter", &self.global.adapter),
            ("residual", &self.global.residual),
            ("first", &self.rule.first),
            ("second", &self.rule.second),
            ("control", &self.control),
        ]
    }

    /// Writes the checkpoint, replacing the old one at once. `fingerprint` identifies configuration, base and text.
    ///
    /// # Errors
    /// [`FederatedError::Io`] when it cannot be written.
    pub fn save(&self, path: &Path, fingerprint: &str) -> Result<(), FederatedError> {
        let mut all = NamedTensors::new();
        for (group, tensors) in self.groups() {
            for t in tensors.iter() {
                all.insert(format!("{group}/{}", t.name), &t.shape, t.values.clone())?;
            }
        }
        for (k, memory) in self.clients.iter().enumerate() {
            memory.write(&format!("client.{k}"), &mut all)?;
        }
        for (v, tensors) in &self.versions {
            for t in tensors.iter() {
                let name = format!("version.{v}/{}", t.name);
                all.insert(name, &t.shape, t.values.clone())?;
            }
        }
        let header = Header {
            format: FORMAT,
            fingerprint: fingerprint.to_owned(),
            content: all.content_hash().to_hex().to_string(),
            clients: self.clients.len(),
            rule_rounds: self.rule.rounds,
            records: self.records.clone(),
        };
        let header = serde_json::to_string(&header)
            .map_err(|e| FederatedError::format("checkpoint", e.to_string(), "report this"))?;
        all.save(path, &[("run".to_owned(), header)])
    }

    /// Removes a checkpoint, if there is one: a run that begins anew must not be taken for the one before it.
    ///
    /// # Errors
    /// [`FederatedError::Io`] when it cannot be removed.
    pub fn discard(path: &Path) -> Result<(), FederatedError> {
        match std::fs::remove_file(path) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(FederatedError::io(path, e)),
            _ => Ok(()),
        }
    }

    /// Reads a checkpoint of the run with this fingerprint.
    ///
    /// # Errors
    /// [`FederatedError::Io`], and [`FederatedError::Format`] when it is damaged or another run's.
    pub fn load(path: &Path, fingerprint: &str) -> Result<Self, FederatedError> {
        let (all, meta) = NamedTensors::load(path)?;
        let bad = |problem: String, remedy: &str| {
            FederatedError::format(path.display().to_string(), problem, remedy)
        };
        let remove = "choose another folder (--out DIR), or begin anew with --overwrite";
        let header = meta
            .get("run")
            .ok_or_else(|| bad("is not a checkpoint of a federated run".into(), remove))?;
        let header: Header =
            serde_json::from_str(header).map_err(|e| bad(e.to_string(), remove))?;
        if header.format != FORMAT {
            return Err(bad(
                format!("is of format {}, expected {FORMAT}", header.format),
                remove,
            ));
        }
        if header.content != all.content_hash().to_hex().to_string() {
            return Err(bad(
                "does not have the content its hash says: it is damaged".into(),
                remove,
            ));
        }
        if header.fingerprint != fingerprint {
            return Err(bad(
                "belongs to a run with another configuration, base model or text".into(),
                "choose another folder (--out DIR), or give that run's configuration and text to go on with it, or replace it with --overwrite",
            ));
        }
        if header.clients > 100_000 {
            return Err(bad(format!("names {} clients", header.clients), remove));
        }
        let mut state = Self {
            clients: vec![Memory::default(); header.clients],
            records: header.records,
            ..Self::default()
        };
        state.rule.rounds = header.rule_rounds;
        for t in all.iter() {
            let (group, name) = t
                .name
                .split_once('/')
                .ok_or_else(|| bad(format!("has a tensor `{}`", t.name), remove))?;
            let target = match group {
                "adapter" => &mut state.global.adapter,
                "residual" => &mut state.global.residual,
                "first" => &mut state.rule.first,
                "second" => &mut state.rule.second,
                "control" => &mut state.control,
                _ => {
                    let version = group.strip_prefix("version.").and_then(|v| v.parse().ok());
                    if let Some(v) = version {
                        let old = state.versions.entry(v).or_default();
                        old.insert(name, &t.shape, t.values.clone())?;
                        continue;
                    }
                    let memory = group
                        .strip_prefix("client.")
                        .and_then(|k| k.parse().ok())
                        .and_then(|k: usize| state.clients.get_mut(k));
                    let taken = memory.map(|m| m.read(name, &t.shape, t.values.clone()));
                    if taken.transpose()? != Some(true) {
                        return Err(bad(format!("has a tensor `{}`", t.name), remove));
                    }
                    continue;
                }
            };
            target.insert(name, &t.shape, t.values.clone())?;
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_gives_everything_back_and_refuses_damage_and_other_runs() {
        let t = |x: f32| {
            let mut t = NamedTensors::new();
            t.insert("b", &[2], vec![x, -x]).unwrap();
            t.insert("a", &[1, 1], vec![x]).unwrap();
            t
        };
        let state = RunState {
            global: Global {
                adapter: t(1.0),
                residual: t(2.0),
            },
            rule: RuleState {
                first: t(3.0),
                second: t(4.0),
                rounds: 7,
            },
            control: t(5.0),
            clients: vec![
                Memory {
                    control: t(6.0),
                    ..Memory::default()
                },
                Memory {
                    kept: t(8.0),
                    personal: t(9.0),
                    ..Memory::default()
                },
            ],
            versions: BTreeMap::from([(3, t(10.0)), (11, t(11.0))]),
            records: vec![RoundRecord {
                round: 1,
                clients: vec![0, 1],
                train_loss: 0.1 + 0.2,
                validation_perplexity: 1e300,
                bytes_up: u64::MAX,
                bytes_down: 1,
                seconds: 0.5,
                aggregation_error: Some(1.0 / 3.0),
                relative_aggregation_error: None,
                epsilon: None,
                late: vec![7],
                failed: vec![2],
                staleness: vec![0, 3],
                clock: Some(1.5),
                hash: "x".into(),
            }],
        };
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.safetensors");
        state.save(&path, "me").unwrap();
        assert_eq!(RunState::load(&path, "me").unwrap(), state);
        let e = RunState::load(&path, "you").unwrap_err().to_string();
        assert!(e.contains("another configuration"), "{e}");
        let mut bytes = std::fs::read(&path).unwrap();
        let last = bytes.len() - 2;
        bytes[last] ^= 1;
        std::fs::write(&path, &bytes).unwrap();
        assert!(
            RunState::load(&path, "me")
                .unwrap_err()
                .to_string()
                .contains("damaged")
        );
    }
}
