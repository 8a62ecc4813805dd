//! What the tests of adapters and of local training share: a small network, and text for it.

use tacit_bitnet::train::{Network, TrainConfig};

use crate::data::{Sequences, Window, examples, tokenizer_for};
use crate::partition::generated;

/// Tokens that text and network know.
const VOCABULARY: usize = 300;

/// One layer of this width.
pub fn network(hidden: usize, context: usize, unquantised: bool) -> Network {
    Network::new(&TrainConfig {
        hidden,
        layers: 1,
        heads: 2,
        ffn: hidden + hidden / 2,
        vocab: VOCABULARY,
        context,
        unquantised,
        ..TrainConfig::default()
    })
}

/// Sequences of at most 12 tokens of one client's generated text.
pub fn windows() -> Vec<Window> {
    let text = generated(3, 1, 80, 2, 1.0);
    let tokenizer = tokenizer_for(&text, VOCABULARY).unwrap();
    let data = examples(&text[0], &tokenizer, 12, Sequences::Documents, 0).unwrap();
    data.train
}

/// All parameters that can have an adapter.
pub fn everywhere() -> Vec<String> {
    ["qkv", "o", "gate_up", "down", "embedding"]
        .map(String::from)
        .to_vec()
}
