//! Where a run's network and its clients' text come from.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::data::Sequences;
use crate::partition::PartitionOptions;

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
