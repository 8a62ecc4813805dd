//! What to train: the settings.

use serde::{Deserialize, Serialize};

use crate::FederatedError;

/// How linear layers are computed while an adapter is trained on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Forward {
    /// Base plus adapter are ternarised in every forward pass: the result is a ternary model again, without loss.
    #[default]
    Ternary,
    /// The adapter stays beside the ternary base in full precision. Folding it into ternary weights afterwards loses accuracy.
    Float,
}

/// The kind of adapter.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// `B` and `A` are trained.
    #[default]
    Lora,
    /// Only `B` is trained; `A` stays at its random start, which all parties derive from the seed.
    FfaLora,
    /// The parameter itself is trained.
    Full,
    /// FedKSeed: one number for each of a fixed set of random directions of the parameters, found without gradients.
    #[serde(rename = "fedkseed")]
    FedKSeed,
    /// Vectors in front of every sequence; the network stays as it is (`targets` and `vectors` do not count).
    Prompt,
}

/// What to train.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Method {
    /// Kind of adapter.
    pub kind: Kind,
    /// Rank of the low-rank kinds.
    pub rank: usize,
    /// One rank per client instead, none above `rank`.
    pub ranks: Vec<usize>,
    /// LoRA's alpha: the product is scaled by `alpha / rank`.
    pub alpha: f32,
    /// Directions of `fedkseed`.
    pub seeds: usize,
    /// Vectors of `prompt`.
    pub prompt: usize,
    /// Parameters that get the adapter: of `qkv`, `o`, `gate_up`, `down`, `embedding`.
    pub targets: Vec<String>,
    /// Also train the final norm's gain and the head biases.
    pub vectors: bool,
    /// Also train one factor per ternary matrix (only with `forward = "float"`: a ternarised matrix derives its scale from the masters).
    pub scales: bool,
    /// How linear layers are computed.
    pub forward: Forward,
}

impl Default for Method {
    fn default() -> Self {
        Self {
            kind: Kind::Lora,
            rank: 8,
            ranks: Vec::new(),
            alpha: 16.0,
            seeds: 1024,
            prompt: 8,
            targets: ["qkv", "o", "gate_up", "down"].map(String::from).to_vec(),
            vectors: true,
            scales: false,
            forward: Forward::Ternary,
        }
    }
}

impl Method {
    /// Checks the settings for a number of clients.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first wrong one.
    pub fn check(&self, clients: usize) -> Result<(), FederatedError> {
        let bad = |what: &str, expected: &str, found: String, remedy: &str| {
            Err(FederatedError::setting(
                format!("method.{what}"),
                expected,
                found,
                remedy,
            ))
        };
        let low_rank = matches!(self.kind, Kind::Lora | Kind::FfaLora);
        if low_rank && !(1..=1024).contains(&self.rank) {
            return bad("rank", "1 to 1024", self.rank.to_string(), "8 is usual");
        }
        if self.kind == Kind::FedKSeed && !(2..=65_536).contains(&self.seeds) {
            return bad(
                "seeds",
                "2 to 65536",
                self.seeds.to_string(),
                "1024 to 4096 are usual",
            );
        }
        if self.kind == Kind::Prompt && self.prompt == 0 {
            return bad("prompt", "at least 1", "0".into(), "8 is the default");
        }
        if !(self.alpha > 0.0 && self.alpha.is_finite()) {
            return bad(
                "alpha",
                "a positive number",
                self.alpha.to_string(),
                "twice the rank is usual",
            );
        }
        if !self.ranks.is_empty()
            && (self.ranks.len() != clients
                || !low_rank
                || self.ranks.iter().any(|r| !(1..=self.rank).contains(r)))
        {
            return bad(
                "ranks",
                &format!(
                    "one rank of 1 to {} for each of the {clients} clients, with a low-rank kind",
                    self.rank
                ),
                format!("{:?}", self.ranks),
                "leave it out to give every client method.rank",
            );
        }
        let known = ["qkv", "o", "gate_up", "down", "embedding"];
        if let Some(t) = self.targets.iter().find(|t| !known.contains(&t.as_str())) {
            return bad(
                "targets",
                &format!("some of {known:?}"),
                format!("{t:?}"),
                "name parameters as listed",
            );
        }
        if self.targets.is_empty() && !self.vectors && !self.scales {
            return bad(
                "targets",
                "something to train",
                "nothing".into(),
                "name targets, or set vectors = true",
            );
        }
        if self.scales && matches!(self.kind, Kind::FedKSeed | Kind::Prompt) {
            return bad(
                "scales",
                "false with this kind",
                "true".into(),
                "fedkseed moves the parameters themselves, prompt none of them",
            );
        }
        if self.scales && self.forward == Forward::Ternary {
            return bad(
                "scales",
                "false with forward = \"ternary\"",
                "true".into(),
                "a ternarised matrix derives its scale from its values",
            );
        }
        Ok(())
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let what = match self.kind {
            Kind::Lora => format!("lora (rank {})", self.rank),
            Kind::FfaLora => format!("ffa-lora (rank {})", self.rank),
            Kind::Full => "full changes".to_owned(),
            Kind::FedKSeed => format!("fedkseed ({} directions)", self.seeds),
            Kind::Prompt => return format!("a prompt of {} vectors", self.prompt),
        };
        let vectors = if self.vectors { ", vectors" } else { "" };
        let scales = if self.scales { ", scales" } else { "" };
        format!("{what} on {}{vectors}{scales}", self.targets.join(", "))
    }

    /// The rank of client number `client`.
    pub fn rank_of(&self, client: usize) -> usize {
        self.ranks.get(client).copied().unwrap_or(self.rank)
    }
}
