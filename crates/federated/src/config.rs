//! A run's configuration: one TOML file, every setting with a default, unknown names refused.
//!
//! ```
//! use tacit_federated::config::RunConfig;
//! let c = RunConfig::from_toml("rounds = 3\n[rule]\nkind = \"fedadam\"\n[[stage]]\nkind = \"clip\"\nnorm = 1.0\n", "x.toml").unwrap();
//! assert_eq!((c.rounds, c.rule.name(), c.stages.len()), (3, "fedadam", 1));
//! assert!(RunConfig::from_toml("round = 3", "x.toml").unwrap_err().to_string().contains("round"));
//! ```

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::FederatedError;
use crate::compress::{Codec, Values};
use crate::data::Sequences;
use crate::local::LocalOptions;
use crate::lora::Combine;
use crate::partition::PartitionOptions;
use crate::protection::robust;
use crate::rules::Rule;
use crate::tuner::{Kind, Method};

/// Where the network comes from. At most one is given; without any, the shipped model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Base {
    /// A model folder with ternary weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A `checkpoint.safetensors` of `tacit train`, with full-precision masters; its tokenizer is `data/tokenizer.json` beside it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    /// A small random network, with a tokenizer made from the clients' text: for tests and demonstrations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random: Option<RandomBase>,
}

/// Sizes of a random network.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RandomBase {
    /// Hidden size.
    pub hidden: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
    /// Feed-forward size.
    pub ffn: usize,
    /// Vocabulary.
    pub vocab: usize,
    /// Tokens of a sequence.
    pub context: usize,
}

impl Default for RandomBase {
    fn default() -> Self {
        Self {
            hidden: 32,
            layers: 1,
            heads: 2,
            ffn: 64,
            vocab: 300,
            context: 16,
        }
    }
}

/// Generated text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Grammar {
    /// Documents of a client.
    pub documents: usize,
    /// Topics of the language.
    pub topics: usize,
    /// Concentration of a client's topics: small means clients unlike each other.
    pub alpha: f64,
}

impl Default for Grammar {
    fn default() -> Self {
        Self {
            documents: 60,
            topics: 6,
            alpha: 0.3,
        }
    }
}

/// The clients' text: a partition made before, generated text, or folders to read now.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// A folder of `tacit federate partition`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition: Option<PathBuf>,
    /// Generated text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar: Option<Grammar>,
    /// Folders to read now; without `from`, the dependency sources in cargo's registry folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folders: Option<PartitionOptions>,
    /// Number of clients of generated text.
    pub clients: usize,
    /// How documents become sequences.
    pub sequences: Sequences,
    /// Percentage of documents that nobody trains on.
    pub validation_percent: u64,
    /// Most validation sequences of a client that are measured; 0 for all.
    pub validation_limit: usize,
}

/// One step on an update's way from client to aggregate, in the order of the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Stage {
    /// Scales an update down to this norm.
    Clip {
        /// Largest Euclidean norm.
        norm: f64,
    },
    /// Sends only the largest values; what is left out is kept for the next round.
    TopK {
        /// Share of the values.
        share: f64,
    },
    /// Sends fewer bits; the error is kept for the next round.
    Quantise {
        /// How values are written.
        values: Values,
    },
    /// Secure aggregation: the coordinator sees only the sum. All clients weigh the same.
    SecureSum {
        /// Bits of a masked value.
        #[serde(default = "default_bits")]
        bits: u32,
    },
    /// Differential privacy for single examples (sequences): every client sends the sum of its examples' clipped gradients with its part of
    /// discrete Gaussian noise, under the secure sum. A round is then one step of gradient descent; `train.steps` and `train.batch` do not
    /// count. The run is refused if it would exceed its budget.
    Noise {
        /// Budget: epsilon after all rounds.
        epsilon: f64,
        /// Budget: delta.
        #[serde(default = "default_delta")]
        delta: f64,
        /// Largest norm of one example's gradient.
        clip: f64,
        /// Examples of a client that take part, in every round the same; clients with fewer are refused.
        examples: usize,
    },
    /// A robust rule in place of the average.
    Robust {
        /// The rule.
        rule: robust::Rule,
    },
}

fn default_delta() -> f64 {
    1e-5
}

fn default_bits() -> u32 {
    24
}

impl Stage {
    /// Its name in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clip { .. } => "clip",
            Self::TopK { .. } => "top-k",
            Self::Quantise { .. } => "quantise",
            Self::SecureSum { .. } => "secure-sum",
            Self::Noise { .. } => "noise",
            Self::Robust { .. } => "robust",
        }
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Clip { norm } => format!("clip to norm {norm}"),
            Self::TopK { share } => format!("largest {:.3} % of values, rest kept", 100.0 * share),
            Self::Quantise { values } => format!("{values:?} values, error kept").to_lowercase(),
            Self::SecureSum { bits } => format!("secure sum modulo 2^{bits}"),
            Self::Noise {
                epsilon,
                delta,
                clip,
                examples,
            } => format!(
                "gradients of {examples} examples clipped to {clip} each, discrete Gaussian noise for epsilon {epsilon} at delta {delta:e}"
            ),
            Self::Robust { rule } => format!("robust rule {}", rule.name()),
        }
    }
}

/// The settings of a [`Stage::Noise`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSettings {
    /// Budget: epsilon after all rounds.
    pub epsilon: f64,
    /// Budget: delta.
    pub delta: f64,
    /// Largest norm of one example's gradient.
    pub clip: f64,
    /// Examples of each client.
    pub examples: usize,
}

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
    /// How adapters are brought together.
    pub combine: Combine,
    /// The network.
    pub base: Base,
    /// The clients' text.
    pub data: Data,
    /// What is trained.
    pub method: Method,
    /// Local training.
    pub train: LocalOptions,
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
            combine: Combine::Average,
            base: Base::default(),
            data: Data {
                clients: 8,
                validation_percent: 20,
                ..Data::default()
            },
            method: Method::default(),
            train: LocalOptions::default(),
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
        let mut config: Self = toml::from_str(text).map_err(|e| {
            FederatedError::format(
                file,
                e.to_string().trim_end().to_owned(),
                "see docs/federated.md for all settings",
            )
        })?;
        if config.data.clients == 0 {
            config.data.clients = 8;
        }
        if config.data.validation_percent == 0 {
            config.data.validation_percent = 20;
        }
        config.check()?;
        Ok(config)
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
            } => Some(NoiseSettings {
                epsilon,
                delta,
                clip,
                examples,
            }),
            _ => None,
        })
    }

    /// The robust rule, if there is one.
    pub fn robust(&self) -> Option<robust::Rule> {
        self.stages.iter().find_map(|s| match s {
            Stage::Robust { rule } => Some(*rule),
            _ => None,
        })
    }

    /// Checks every setting and that the stages fit together.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] with the reason.
    pub fn check(&self) -> Result<(), FederatedError> {
        let bad = |setting: &str, expected: &str, found: String, remedy: &str| {
            Err(FederatedError::setting(setting, expected, found, remedy))
        };
        if self.rounds == 0 {
            return bad("rounds", "at least 1", "0".into(), "10 is the default");
        }
        let given = [
            self.base.model.is_some(),
            self.base.checkpoint.is_some(),
            self.base.random.is_some(),
        ];
        if given.iter().filter(|g| **g).count() > 1 {
            return bad(
                "base",
                "one of model, checkpoint, random",
                "several".into(),
                "keep one",
            );
        }
        let given = [
            self.data.partition.is_some(),
            self.data.grammar.is_some(),
            self.data.folders.is_some(),
        ];
        if given.iter().filter(|g| **g).count() > 1 {
            return bad(
                "data",
                "one of partition, grammar, folders",
                "several".into(),
                "keep one",
            );
        }
        if self.data.validation_percent > 90 {
            return bad(
                "data.validation_percent",
                "1 to 90",
                self.data.validation_percent.to_string(),
                "20 is the default",
            );
        }
        if let Some(f) = &self.data.folders {
            f.check()?;
        }
        self.train.check()?;
        self.rule.check()?;
        self.method.check(self.clients())?;
        if self.method.kind != Kind::Lora && self.combine != Combine::Average {
            return bad(
                "combine",
                "average unless method.kind = \"lora\"",
                format!("{:?}", self.combine).to_lowercase(),
                "the other rules act on a trained A and B",
            );
        }
        if !matches!(self.rule, Rule::FedAvg {}) && self.combine != Combine::Average {
            return bad(
                "rule.kind",
                "fedavg unless combine = \"average\"",
                self.rule.name().into(),
                "a server rule would move the adapter away from what was merged",
            );
        }
        self.check_stages()
    }

    fn check_stages(&self) -> Result<(), FederatedError> {
        let bad = |setting: String, expected: &str, found: String, remedy: &str| {
            Err(FederatedError::setting(setting, expected, found, remedy))
        };
        for (i, s) in self.stages.iter().enumerate() {
            if self.stages[..i].iter().any(|t| t.name() == s.name()) {
                return bad(
                    format!("stage {i}"),
                    "each kind once",
                    format!("{} again", s.name()),
                    "remove one",
                );
            }
            match s {
                Stage::Clip { norm } if !(*norm > 0.0 && norm.is_finite()) => {
                    return bad(
                        format!("stage {i} (clip).norm"),
                        "a positive number",
                        norm.to_string(),
                        "1 is usual",
                    );
                }
                Stage::TopK { share } if !(*share > 0.0 && *share <= 1.0) => {
                    return bad(
                        format!("stage {i} (top-k).share"),
                        "above 0, at most 1",
                        share.to_string(),
                        "0.1 is usual",
                    );
                }
                Stage::Robust { rule } => {
                    let n = if self.clients_per_round == 0 {
                        self.clients()
                    } else {
                        self.clients_per_round
                    };
                    if self.data.partition.is_none() {
                        rule.check(n)?;
                    }
                }
                _ => {}
            }
        }
        let name = |n: &str| self.stages.iter().position(|s| s.name() == n);
        if let Some(i) = name("secure-sum") {
            let setting = format!("stage {i} (secure-sum)");
            if self.combine != Combine::Average {
                return bad(
                    setting,
                    "combine = \"average\"",
                    format!("{:?}", self.combine).to_lowercase(),
                    "the other rules need every client's factors, which a secure sum hides",
                );
            }
            if name("clip").or(name("noise")).is_none_or(|c| c > i) {
                return bad(
                    setting,
                    "a clip or noise stage before it",
                    "none".into(),
                    "masked values need a bound: add [[stage]] kind = \"clip\" with a norm",
                );
            }
            for other in ["top-k", "quantise", "robust"] {
                if let Some(o) = name(other) {
                    return bad(
                        setting,
                        "no top-k, quantise or robust stage beside it",
                        self.stages[o].name().into(),
                        "masks cover every coordinate with uniform values of their own width, and a sum hides outliers",
                    );
                }
            }
            if self.train.scaffold {
                return bad(
                    setting,
                    "train.scaffold = false",
                    "true".into(),
                    "control variates would travel outside the secure sum",
                );
            }
        }
        if let Some(i) = name("noise") {
            let setting = format!("stage {i} (noise)");
            if name("secure-sum").is_none_or(|s| s < i) {
                return bad(
                    setting,
                    "a secure-sum stage after it",
                    "none".into(),
                    "each client adds only its part of the noise: alone it would not be protected",
                );
            }
            if name("clip").is_some() || self.clients_per_round != 0 {
                return bad(
                    setting,
                    "no clip stage, and all clients in every round",
                    "otherwise".into(),
                    "the stage clips single examples itself, and its account is for rounds of all clients",
                );
            }
            if let Some(n) = self.noise()
                && !(n.clip > 0.0 && n.clip.is_finite() && n.examples > 0)
            {
                return bad(
                    setting,
                    "a positive clip and at least one example",
                    format!("{} and {}", n.clip, n.examples),
                    "clip = 1.0 and examples = 64 are usual",
                );
            }
        }
        if name("robust").is_some() && self.combine != Combine::Average {
            return bad(
                "stage (robust)".into(),
                "combine = \"average\"",
                format!("{:?}", self.combine).to_lowercase(),
                "robust rules act on vectors of one layout",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        RunConfig::from_toml(text, "test.toml")
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn defaults_are_valid_and_survive_a_round_trip() {
        let c = RunConfig::default();
        c.check().unwrap();
        assert_eq!(RunConfig::from_toml(&c.to_toml().unwrap(), "x").unwrap(), c);
        let full = "combine = \"stack\"\n[method]\nrank = 4\nranks = [4, 2]\n[data]\nclients = 2\n[data.grammar]\n[base.random]\nhidden = 16\n[[stage]]\nkind = \"top-k\"\nshare = 0.1\n[[stage]]\nkind = \"quantise\"\nvalues = \"int4\"\n";
        let c = RunConfig::from_toml(full, "x").unwrap();
        assert_eq!(c.codec().top_k, Some(0.1));
        assert_eq!(RunConfig::from_toml(&c.to_toml().unwrap(), "x").unwrap(), c);
    }

    #[test]
    fn unknown_and_contradictory_settings_are_refused_with_a_reason() {
        assert!(error("seeds = 1").contains("seeds"));
        assert!(error("[train]\nbatches = 1").contains("batches"));
        assert!(error("[rule]\nkind = \"fedavg\"\neta = 1.0").contains("eta"));
        assert!(error("[rule]\nkind = \"fedsgd\"").contains("fedsgd"));
        assert!(error("rounds = 0").contains("rounds"));
        assert!(error("[base]\nmodel = \"a\"\ncheckpoint = \"b\"").contains("base"));
        assert!(error("combine = \"stack\"\n[rule]\nkind = \"fedadam\"").contains("fedavg"));
        assert!(error("combine = \"svd\"\n[method]\nkind = \"ffa-lora\"").contains("combine"));
        assert!(error("[[stage]]\nkind = \"secure-sum\"").contains("noise stage before it"));
        let secure = "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"secure-sum\"\n";
        assert!(RunConfig::from_toml(secure, "x").is_ok());
        assert!(
            error(&format!("{secure}[[stage]]\nkind = \"top-k\"\nshare = 0.1"))
                .contains("masks cover")
        );
        assert!(error(&format!("combine = \"stack\"\n{secure}")).contains("hides"));
        assert!(
            error("[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"clip\"\nnorm = 1.0")
                .contains("again")
        );
        assert!(
            error("[[stage]]\nkind = \"robust\"\nrule = { name = \"krum\", bad = 7 }")
                .contains("bad")
        );
    }
}
