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
use crate::clock::{self, Clock};
use crate::compress::Codec;
use crate::data::Sequences;
use crate::local::{LocalOptions, Optimiser};
use crate::lora::Combine;
use crate::partition::PartitionOptions;
use crate::personal::{Order, Personal};
use crate::protection::robust;
use crate::rules::Rule;
pub use crate::stage::{NoiseSettings, Stage};
pub use crate::task::{HeadData, Start};
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
    /// Most training sequences of a client, drawn by seed: few-shot tuning uses 16 to 256; 0 for all.
    pub train_limit: usize,
    /// Most validation sequences of a client that are measured; 0 for all.
    pub validation_limit: usize,
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
        if self.method.kind == Kind::FedKSeed
            && (self.train.optimiser != Optimiser::Sgd
                || self.train.prox > 0.0
                || self.train.scaffold)
        {
            return bad(
                "method.kind (fedkseed)",
                "train.optimiser = \"sgd\", train.prox = 0 and train.scaffold = false",
                "others".into(),
                "a step goes along one direction by the slope that was found: there is no gradient for moments, a pull or control variates to act on",
            );
        }
        if let Some(p) = self.personal {
            self.check_personal(p)?;
        }
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
        clock::check(self)?;
        crate::stage::check(self)?;
        crate::task::check(self)
    }
}

impl RunConfig {
    fn check_personal(&self, p: Personal) -> Result<(), FederatedError> {
        let refuse = |expected: &str, found: &str, why: &str| {
            Err(FederatedError::setting("personal", expected, found, why))
        };
        if !(1..=1024).contains(&p.rank) || (p.order == Order::Alternate && p.steps == 0) {
            return refuse(
                "a rank of 1 to 1024, and steps of the private part where they alternate",
                &format!("rank {}, {} steps", p.rank, p.steps),
                "rank = 4 and steps = 4 are the defaults",
            );
        }
        if self.method.kind != Kind::Lora {
            return refuse(
                "method.kind = \"lora\"",
                "another",
                "the private part is more columns of B and rows of A",
            );
        }
        if self.train.scaffold {
            return refuse(
                "train.scaffold = false",
                "true",
                "control variates would carry the pull of private adapters into the shared one",
            );
        }
        if self.noise().is_some() {
            return refuse(
                "no noise stage",
                "noise",
                "every example's gradient would depend on a private adapter that was trained on all of them: clipping would no longer bound what one example changes",
            );
        }
        Ok(())
    }
}

fn not_a_config(file: &str, e: &toml::de::Error) -> FederatedError {
    FederatedError::format(
        file,
        e.to_string().trim_end().to_owned(),
        "see docs/federated.md for all settings",
    )
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
    fn single_settings_are_replaced_by_their_path() {
        let text = "rounds = 3\n[train]\nlr = 0.5\n[[stage]]\nkind = \"clip\"\nnorm = 1.0\n";
        let set = |s: &[&str]| {
            let s: Vec<String> = s.iter().map(|s| (*s).to_owned()).collect();
            RunConfig::from_toml_with(text, "x", &s)
        };
        let c = set(&[
            "train.lr=0.25",
            "method.kind=full",
            "rounds=4",
            "data.grammar.topics=2",
            "stage=[]",
        ])
        .unwrap();
        assert_eq!((c.train.lr, c.rounds, c.method.kind), (0.25, 4, Kind::Full));
        assert!(c.stages.is_empty() && c.data.grammar.unwrap().topics == 2);
        assert_eq!(set(&[]).unwrap(), RunConfig::from_toml(text, "x").unwrap());
        for wrong in ["train.lr", "rounds.lr=1", "train.rate=1", "train.lr=fast"] {
            let e = set(&[wrong]).unwrap_err().to_string();
            assert!(
                e.contains("--set") || e.contains("rate") || e.contains("fast"),
                "{e}"
            );
        }
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
        let encrypted =
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"encrypted-sum\"\n";
        let signed = "[[stage]]\nkind = \"signed\"\n";
        let c = RunConfig::from_toml(&format!("{encrypted}{signed}"), "x").unwrap();
        assert!(c.encrypted() && c.signed() && c.unprotected().stages.is_empty());
        assert!(error("[[stage]]\nkind = \"encrypted-sum\"").contains("need a bound"));
        assert!(
            error(&format!("{secure}[[stage]]\nkind = \"encrypted-sum\"")).contains("keep the one")
        );
        assert!(error(&format!("{secure}{signed}")).contains("signed already"));
        assert!(
            error(&format!(
                "{encrypted}[[stage]]\nkind = \"quantise\"\nvalues = \"int8\""
            ))
            .contains("one scale")
        );
        let noise = "[[stage]]\nkind = \"noise\"\nepsilon = 8\nclip = 0.2\nexamples = 9\n";
        assert!(error(noise).contains("part of the noise"));
        assert!(
            error(&format!("{noise}[[stage]]\nkind = \"encrypted-sum\""))
                .contains("all clients hold")
        );
        assert!(
            error("[[stage]]\nkind = \"robust\"\nrule = { name = \"krum\", bad = 7 }")
                .contains("bad")
        );
        let groups = |n: usize| {
            format!(
                "[[stage]]\nkind = \"robust\"\nrule = {{ name = \"median\", bad = 0 }}\nbuckets = {n}\n"
            )
        };
        assert!(RunConfig::from_toml(&format!("{secure}{}", groups(2)), "x").is_ok());
        assert!(error(&format!("{secure}{}", groups(3))).contains("two others"));
        assert!(error(&groups(2)).contains("groups are of secure sums"));
        assert!(error(&format!("{encrypted}{}", groups(2))).contains("secure-sum"));
        assert!(
            error(&format!(
                "{noise}[[stage]]\nkind = \"secure-sum\"\n{}",
                groups(2)
            ))
            .contains("too little")
        );
        let trust = "[[stage]]\nkind = \"robust\"\nrule = { name = \"fl-trust\" }\n";
        assert!(error(trust).contains("partition --clients 1"));
        assert!(RunConfig::from_toml(&format!("{trust}[data]\ngrammar = {{}}"), "x").is_ok());
        assert!(
            error(&encrypted.replace("encrypted-sum\"", "encrypted-sum\"\nshare = 1.5"))
                .contains("tenth")
        );
    }
}
