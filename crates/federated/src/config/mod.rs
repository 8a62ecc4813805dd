//! A run's configuration: one TOML file, every setting with a default, unknown names refused.
//!
//! ```
//! use tacit_federated::config::RunConfig;
//! let c = RunConfig::from_toml("rounds = 3\n[rule]\nkind = \"fedadam\"\n[[stage]]\nkind = \"clip\"\nnorm = 1.0\n", "x.toml").unwrap();
//! assert_eq!((c.rounds, c.rule.name(), c.stages.len()), (3, "fedadam", 1));
//! assert!(RunConfig::from_toml("round = 3", "x.toml").unwrap_err().to_string().contains("round"));
//! ```

mod check;
mod sources;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FederatedError;
use crate::clock::Clock;
use crate::compress::Codec;
use crate::local::LocalOptions;
use crate::lora::Combine;
use crate::personal::Personal;
use crate::protection::robust;
use crate::rules::Rule;
pub use crate::stage::{NoiseSettings, Stage};
pub use crate::task::{HeadData, Start};
use crate::tuner::{Kind, Method};

pub use sources::{Base, Data, Grammar, RandomBase};

/// A run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RunConfig {
    /// Seed of everything but keys and protective noise.
    pub seed: u64,
    /// Rounds.
    pub rounds: usize,
    /// Clients that take part in a round, drawn by seed; 0 for all.
    pub clients_per_round: usize,
    /// Folder of the run: checkpoint, log and exported model.
    pub out: PathBuf,
    /// Keep what forgetting a client needs: the signed ledger, the state before each round, and contributions that the coordinator sees.
    pub history: bool,
    /// The clients' Ed25519 keys in hexadecimal digits, client 0 first: whom a node believes in a secure sum between machines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roster: Vec<String>,
    /// How adapters are brought together.
    pub combine: Combine,
    /// The head of the model that judges videos, instead of a language model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<HeadData>,
    /// The network.
    pub base: Base,
    /// The clients' text.
    pub data: Data,
    /// What is trained.
    pub method: Method,
    /// Local training.
    pub train: LocalOptions,
    /// A private adapter for each client, beside the shared one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personal: Option<Personal>,
    /// Deadlines, buffered steps, simulated speeds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock: Option<Clock>,
    /// Server rule.
    pub rule: Rule,
    /// Steps between client and aggregate.
    #[serde(rename = "stage", skip_serializing_if = "Vec::is_empty")]
    pub stages: Vec<Stage>,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            seed: 1,
            rounds: 10,
            clients_per_round: 0,
            out: PathBuf::from("federated-run"),
            history: false,
            roster: Vec::new(),
            combine: Combine::Average,
            head: None,
            base: Base::default(),
            data: Data {
                clients: 8,
                validation_percent: 20,
                ..Data::default()
            },
            method: Method::default(),
            train: LocalOptions::default(),
            personal: None,
            clock: None,
            rule: Rule::default(),
            stages: Vec::new(),
        }
    }
}

impl RunConfig {
    /// Reads a configuration; `file` names it in errors.
    ///
    /// # Errors
    /// [`FederatedError::Format`] with line and name for what TOML or the names of settings forbid, [`FederatedError::Setting`] for values.
    pub fn from_toml(text: &str, file: &str) -> Result<Self, FederatedError> {
        let mut config: Self = toml::from_str(text).map_err(|e| not_a_config(file, &e))?;
        if config.data.clients == 0 {
            config.data.clients = 8;
        }
        if config.data.validation_percent == 0 {
            config.data.validation_percent = 20;
        }
        config.check()?;
        Ok(config)
    }

    /// As [`Self::from_toml`], with some settings replaced: each `path.to.key=value`, the value as TOML writes it; a bare word is text.
    ///
    /// # Errors
    /// As [`Self::from_toml`]; [`FederatedError::Setting`] for a replacement of another form.
    pub fn from_toml_with(text: &str, file: &str, set: &[String]) -> Result<Self, FederatedError> {
        let mut all: toml::Table = toml::from_str(text).map_err(|e| not_a_config(file, &e))?;
        for one in set {
            let bad = || {
                FederatedError::setting(
                    "--set",
                    "path.to.key=value, of a setting in a table",
                    one,
                    "for example --set train.lr=0.001",
                )
            };
            let (path, value) = one.split_once('=').ok_or_else(bad)?;
            let value = toml::from_str::<toml::Table>(&format!("value = {value}"))
                .ok()
                .and_then(|mut t| t.remove("value"))
                .unwrap_or_else(|| value.into());
            let (tables, key) = path.rsplit_once('.').unwrap_or(("", path));
            let mut table = &mut all;
            for name in tables.split('.').filter(|n| !n.is_empty()) {
                table = table
                    .entry(name)
                    .or_insert_with(|| toml::Table::new().into())
                    .as_table_mut()
                    .ok_or_else(bad)?;
            }
            table.insert(key.trim().to_owned(), value);
        }
        Self::from_toml(&all.to_string(), file)
    }

    /// The configuration as TOML.
    ///
    /// # Errors
    /// [`FederatedError::Format`] when a number cannot be written.
    pub fn to_toml(&self) -> Result<String, FederatedError> {
        toml::to_string(self)
            .map_err(|e| FederatedError::format("configuration", e.to_string(), "report this"))
    }

    /// Reads a file. Relative paths inside of it are taken from where the command runs.
    ///
    /// # Errors
    /// As [`Self::from_toml`], and [`FederatedError::Io`].
    pub fn load(path: &Path) -> Result<Self, FederatedError> {
        let text = std::fs::read_to_string(path).map_err(|e| FederatedError::io(path, e))?;
        Self::from_toml(&text, &path.display().to_string())
    }

    /// Number of clients as far as the file says it.
    pub fn clients(&self) -> usize {
        if let Some(head) = &self.head {
            return head.tables.len();
        }
        self.data
            .folders
            .as_ref()
            .map_or(self.data.clients, |f| f.clients)
    }

    /// How updates are written.
    pub fn codec(&self) -> Codec {
        let mut codec = Codec::default();
        for s in &self.stages {
            match s {
                Stage::TopK { share } => codec.top_k = Some(*share),
                Stage::Quantise { values } => codec.values = *values,
                _ => {}
            }
        }
        if self.method.kind == Kind::FedKSeed {
            // A step moves one number: the others need not be sent, and nothing is left out.
            let moved = (self.train.steps as f64 / self.method.seeds as f64).min(1.0);
            codec.top_k = (moved < 1.0 || codec.top_k.is_some())
                .then(|| codec.top_k.map_or(moved, |k| k.min(moved)));
        }
        codec
    }

    /// Largest norm of an update, if a stage clips.
    pub fn clip(&self) -> Option<f64> {
        self.stages.iter().find_map(|s| match s {
            Stage::Clip { norm } => Some(*norm),
            _ => None,
        })
    }

    /// Bits of a masked value, if a stage aggregates securely.
    pub fn secure_bits(&self) -> Option<u32> {
        self.stages.iter().find_map(|s| match s {
            Stage::SecureSum { bits } => Some(*bits),
            _ => None,
        })
    }

    /// The noise stage, if there is one.
    pub fn noise(&self) -> Option<NoiseSettings> {
        self.stages.iter().find_map(|s| match *s {
            Stage::Noise {
                epsilon,
                delta,
                clip,
                examples,
                rate,
            } => Some(NoiseSettings {
                epsilon,
                delta,
                clip,
                examples,
                rate,
            }),
            _ => None,
        })
    }

    /// Whether a stage encrypts updates under the clients' key.
    pub fn encrypted(&self) -> bool {
        self.encrypted_share().is_some()
    }

    /// Share of the values that a stage encrypts, if there is one.
    pub fn encrypted_share(&self) -> Option<f64> {
        self.stages.iter().find_map(|s| match s {
            Stage::EncryptedSum { share } => Some(*share),
            _ => None,
        })
    }

    /// Whether two aggregators verify and sum shares of the updates.
    pub fn verified(&self) -> bool {
        self.stages.contains(&Stage::VerifiedSum {})
    }

    /// Whether the coordinator sees only sums of updates.
    pub fn hides_updates(&self) -> bool {
        self.encrypted() || self.verified() || self.secure_bits().is_some()
    }

    /// Whether a stage signs payloads.
    pub fn signed(&self) -> bool {
        self.stages.contains(&Stage::Signed {})
    }

    /// The same run without its protecting stages, for an audit: with noise the server's rule goes too, since it belongs to noisy gradients.
    pub fn unprotected(&self) -> Self {
        let mut c = self.clone();
        if c.noise().is_some() {
            c.rule = Rule::FedAvg {};
        }
        c.stages.retain(|s| !s.protects());
        c
    }

    /// The robust rule, if there is one.
    pub fn robust(&self) -> Option<robust::Rule> {
        self.stages.iter().find_map(|s| match s {
            Stage::Robust { rule, .. } => Some(*rule),
            _ => None,
        })
    }

    /// Groups of a robust rule over secure sums; 0 without them.
    pub fn buckets(&self) -> usize {
        let of = |s: &Stage| match s {
            Stage::Robust { buckets, .. } => Some(*buckets),
            _ => None,
        };
        self.stages.iter().find_map(of).unwrap_or(0)
    }

    /// The folder with the coordinator's own text, if a rule needs it.
    pub fn root(&self) -> Option<&Path> {
        self.stages.iter().find_map(|s| match s {
            Stage::Robust { root, .. } => root.as_deref(),
            _ => None,
        })
    }

    /// Fewest clients of `drawn` with which a round can be closed: what its stages need.
    pub fn least(&self, drawn: usize) -> usize {
        let enough = |n: usize| {
            let groups = self.buckets().max(1);
            let hidden = self.secure_bits().is_none() || n >= 3 * groups;
            hidden && (self.buckets() > 0 || self.robust().is_none_or(|r| r.check(n).is_ok()))
        };
        (1..drawn).find(|&n| enough(n)).unwrap_or(drawn)
    }
}

fn not_a_config(file: &str, e: &toml::de::Error) -> FederatedError {
    FederatedError::format(
        file,
        e.to_string().trim_end().to_owned(),
        "see docs/federated.md for all settings",
    )
}
