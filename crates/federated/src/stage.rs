//! Steps on an update's way from client to aggregate, and which of them go together.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::FederatedError;
use crate::compress::Values;
use crate::config::RunConfig;
use crate::lora::Combine;
use crate::protection::robust;
use crate::tuner::Kind;

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
    /// Encrypted aggregation: the coordinator adds CKKS ciphertexts under a key that all clients hold. All clients weigh the same.
    EncryptedSum {
        /// Share of the values that is encrypted, those to which labels matter most; the others travel in the clear.
        #[serde(default = "default_rate")]
        share: f64,
    },
    /// Two aggregators that do not collude sum shares of the updates and verify that each has the norm that `clip` allows (Prio3). All clients weigh
    /// the same.
    VerifiedSum {},
    /// Payloads signed by their clients (Ed25519), bound to run, round and purpose.
    Signed {},
    /// Differential privacy for single examples (sequences): every client sends the sum of its examples' clipped gradients with its part of
    /// discrete Gaussian noise, under the secure sum. A round is then one step of gradient descent; what `[train]` says of local steps does
    /// not count. The run is refused if it would exceed its budget.
    Noise {
        /// Budget: epsilon after all rounds.
        epsilon: f64,
        /// Budget: delta.
        #[serde(default = "default_delta")]
        delta: f64,
        /// Largest norm of one example's gradient.
        clip: f64,
        /// Most examples of a client that take part, in every round the same.
        examples: usize,
        /// Length of the step along the noisy mean gradient that the server rule is given.
        #[serde(default = "default_rate")]
        rate: f64,
    },
    /// A robust rule in place of the average.
    Robust {
        /// The rule.
        rule: robust::Rule,
        /// Under a secure sum: random groups, one sum each, over whose means the rule goes. 0 without one.
        #[serde(default)]
        buckets: usize,
        /// For FLTrust: a folder of `tacit federate partition`, of which the first client's text is the coordinator's own. Generated text needs none.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        root: Option<PathBuf>,
    },
}

fn default_delta() -> f64 {
    1e-5
}

fn default_bits() -> u32 {
    24
}

fn default_rate() -> f64 {
    1.0
}

impl Stage {
    /// Its name in configuration files.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Clip { .. } => "clip",
            Self::TopK { .. } => "top-k",
            Self::Quantise { .. } => "quantise",
            Self::SecureSum { .. } => "secure-sum",
            Self::EncryptedSum { .. } => "encrypted-sum",
            Self::VerifiedSum {} => "verified-sum",
            Self::Signed {} => "signed",
            Self::Noise { .. } => "noise",
            Self::Robust { .. } => "robust",
        }
    }

    /// Whether it protects clients' text or the model, and not only bytes or training.
    pub fn protects(&self) -> bool {
        !matches!(self, Self::TopK { .. } | Self::Quantise { .. })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Clip { norm } => format!("clip to norm {norm}"),
            Self::TopK { share } => format!("largest {:.3} % of values, rest kept", 100.0 * share),
            Self::Quantise { values } => format!("{values:?} values, error kept").to_lowercase(),
            Self::SecureSum { bits } => format!("secure sum modulo 2^{bits}"),
            Self::EncryptedSum { share } if *share < 1.0 => {
                format!(
                    "sum of CKKS ciphertexts of {:.1} % of the values",
                    100.0 * share
                )
            }
            Self::EncryptedSum { .. } => "sum of CKKS ciphertexts".into(),
            Self::VerifiedSum {} => "sum of two aggregators who verify norms".into(),
            Self::Signed {} => "signed payloads".into(),
            Self::Noise {
                epsilon,
                delta,
                clip,
                examples,
                ..
            } => format!(
                "gradients of at most {examples} examples a client clipped to {clip} each, discrete Gaussian noise for epsilon {epsilon} at delta {delta:e}"
            ),
            Self::Robust {
                rule, buckets: 0, ..
            } => format!("robust rule {}", rule.name()),
            Self::Robust { rule, buckets, .. } => {
                format!("robust rule {} over {buckets} groups", rule.name())
            }
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
    /// Most examples of each client.
    pub examples: usize,
    /// Length of the step that the server rule is given.
    pub rate: f64,
}

type Refusal = Result<(), FederatedError>;

fn bad(setting: String, expected: &str, found: impl ToString, remedy: &str) -> Refusal {
    Err(FederatedError::setting(
        setting,
        expected,
        found.to_string(),
        remedy,
    ))
}

/// Checks every stage's values and that the stages fit together.
///
/// # Errors
/// [`FederatedError::Setting`] with the reason.
pub(crate) fn check(c: &RunConfig) -> Refusal {
    for (i, s) in c.stages.iter().enumerate() {
        if c.stages[..i].iter().any(|t| t.name() == s.name()) {
            return bad(
                format!("stage {i}"),
                "each kind once",
                format!("{} again", s.name()),
                "remove one",
            );
        }
        check_values(c, i, s)?;
    }
    check_hidden_sums(c)?;
    check_noise(c)?;
    if let Some(i) = position(c, "signed")
        && position(c, "secure-sum").is_some()
    {
        return bad(
            format!("stage {i} (signed)"),
            "no secure-sum stage beside it",
            "secure-sum",
            "every message of the secure sum is signed already: remove this stage",
        );
    }
    if position(c, "robust").is_some() && c.method.kind == Kind::FedKSeed {
        return bad(
            "stage (robust)".into(),
            "another method.kind",
            "fedkseed",
            "clients move different numbers, most of which the others leave at 0: an honest one would look like an outlier",
        );
    }
    if position(c, "robust").is_some() && c.combine != Combine::Average {
        return bad(
            "stage (robust)".into(),
            "combine = \"average\"",
            format!("{:?}", c.combine).to_lowercase(),
            "robust rules act on vectors of one layout",
        );
    }
    Ok(())
}

fn position(c: &RunConfig, name: &str) -> Option<usize> {
    c.stages.iter().position(|s| s.name() == name)
}

fn check_values(c: &RunConfig, i: usize, s: &Stage) -> Refusal {
    match s {
        Stage::Clip { norm } if !(*norm > 0.0 && norm.is_finite()) => bad(
            format!("stage {i} (clip).norm"),
            "a positive number",
            norm,
            "1 is usual",
        ),
        Stage::TopK { share } if !(*share > 0.0 && *share <= 1.0) => bad(
            format!("stage {i} (top-k).share"),
            "above 0, at most 1",
            share,
            "0.1 is usual",
        ),
        Stage::EncryptedSum { share } if !(*share > 0.0 && *share <= 1.0) => bad(
            format!("stage {i} (encrypted-sum).share"),
            "above 0, at most 1",
            share,
            "0.1 encrypts the most sensitive tenth",
        ),
        Stage::Robust {
            rule,
            buckets,
            root,
        } => check_robust(c, i, rule, *buckets, root.is_some()),
        _ => Ok(()),
    }
}

fn check_robust(
    c: &RunConfig,
    i: usize,
    rule: &robust::Rule,
    buckets: usize,
    root: bool,
) -> Refusal {
    let setting = |what: &str| format!("stage {i} (robust).{what}");
    if rule.needs_root() && !root && c.data.grammar.is_none() {
        return bad(
            setting("root"),
            "a folder with the coordinator's own text",
            "none",
            "fl-trust compares updates with one of its own: `tacit federate partition --clients 1 --out DIR` makes such a folder",
        );
    }
    let known = c.data.partition.is_none();
    let n = match c.clients_per_round {
        0 => c.clients(),
        k => k,
    };
    if buckets == 0 {
        return if known { Ok(rule.check(n)?) } else { Ok(()) };
    }
    if c.secure_bits().is_none() {
        return bad(
            setting("buckets"),
            "a secure-sum stage",
            "none",
            "groups are of secure sums: where updates are seen, the rule sees them one by one",
        );
    }
    if c.noise().is_some() {
        return bad(
            setting("buckets"),
            "no noise stage",
            "noise",
            "the noise is that of one sum of all clients: a group's would have too little",
        );
    }
    if known && n / buckets < 3 {
        return bad(
            setting("buckets"),
            &format!("at most {}", n / 3),
            buckets,
            "a secure sum hides a client among at least two others",
        );
    }
    Ok(rule.check(buckets)?)
}

/// What hides single updates needs a bound, one layout and equal weights, and leaves nothing to look at update by update.
fn check_hidden_sums(c: &RunConfig) -> Refusal {
    for (kind, why) in [
        (
            "secure-sum",
            "masks cover every coordinate with uniform values of their own width, and a sum hides outliers",
        ),
        (
            "encrypted-sum",
            "ciphertexts hold every coordinate at one scale, and a sum hides outliers",
        ),
        (
            "verified-sum",
            "shares are of whole vectors at one scale, and a sum hides outliers",
        ),
    ] {
        let Some(i) = position(c, kind) else { continue };
        let setting = || format!("stage {i} ({kind})");
        if c.combine != Combine::Average {
            return bad(
                setting(),
                "combine = \"average\"",
                format!("{:?}", c.combine).to_lowercase(),
                "the other rules need every client's factors, which a hidden sum hides",
            );
        }
        let bound = position(c, "clip").or(position(c, "noise"));
        if bound.is_none_or(|b| b > i) {
            return bad(
                setting(),
                "a clip or noise stage before it",
                "none",
                "masked values need a bound: add [[stage]] kind = \"clip\" with a norm",
            );
        }
        let others = ["secure-sum", "encrypted-sum", "verified-sum"];
        if let Some(other) = others
            .iter()
            .find(|o| **o != kind && position(c, o).is_some())
        {
            return bad(
                setting(),
                "one of secure-sum, encrypted-sum and verified-sum",
                format!("{other} too"),
                "keep the one whose trust suits: docs/federated-protection.md compares them",
            );
        }
        for beside in ["top-k", "quantise", "robust"] {
            let in_groups = beside == "robust" && c.buckets() > 0 && kind == "secure-sum";
            if position(c, beside).is_some() && !in_groups {
                return bad(
                    setting(),
                    "no top-k, quantise or robust stage beside it",
                    beside,
                    why,
                );
            }
        }
        if c.train.scaffold {
            return bad(
                setting(),
                "train.scaffold = false",
                "true",
                "control variates would travel outside the hidden sum",
            );
        }
    }
    Ok(())
}

fn check_noise(c: &RunConfig) -> Refusal {
    let (Some(i), Some(n)) = (position(c, "noise"), c.noise()) else {
        return Ok(());
    };
    let setting = format!("stage {i} (noise)");
    if position(c, "secure-sum").is_none_or(|s| s < i) {
        return bad(
            setting,
            "a secure-sum stage after it",
            "none",
            "each client adds only its part of the noise: alone, or under a key that all clients hold, it would not be protected",
        );
    }
    if position(c, "clip").is_some() || c.clients_per_round != 0 {
        return bad(
            setting,
            "no clip stage, and all clients in every round",
            "otherwise",
            "the stage clips single examples itself, and its account is for rounds of all clients",
        );
    }
    let positive = |x: f64| x > 0.0 && x.is_finite();
    if !(positive(n.clip) && positive(n.rate) && n.examples > 0) {
        return bad(
            setting,
            "a positive clip and rate, and at least one example",
            format!("{}, {} and {}", n.clip, n.rate, n.examples),
            "clip = 0.2, rate = 1.0 and examples = 200 are usual",
        );
    }
    Ok(())
}
