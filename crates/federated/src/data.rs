//! Documents as training examples.

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::{Corpus, Document, END_OF_TEXT, encode_corpus};

use crate::FederatedError;
use crate::partition::ClientText;
use crate::random::{permutation, stream};

/// Inputs and targets of one sequence, equally long.
pub type Window = (Vec<u32>, Vec<u32>);

/// How documents become sequences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sequences {
    /// Documents one after the other, cut into pieces of the context's length (the last may be shorter).
    #[default]
    Packed,
    /// Every document by itself, cut where it is longer than the context: lengths are mixed.
    Documents,
}

/// The examples of one client.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientData {
    /// The client's name.
    pub name: String,
    /// Sequences to train on.
    pub train: Vec<Window>,
    /// Sequences that nobody trains on.
    pub valid: Vec<Window>,
}

impl ClientData {
    /// Keeps at most `limit` training sequences, drawn by seed, in their order; all for 0.
    #[must_use]
    pub fn few(mut self, limit: usize, seed: u64, client: usize) -> Self {
        if limit > 0 && limit < self.train.len() {
            let mut rng = stream(seed, "few examples", &[client as u64]);
            let mut kept = permutation(&mut rng, self.train.len());
            kept.truncate(limit);
            kept.sort_unstable();
            self.train = kept.iter().map(|&i| self.train[i].clone()).collect();
        }
        self
    }

    /// Tokens to train on.
    pub fn train_tokens(&self) -> usize {
        self.train.iter().map(|w| w.0.len()).sum()
    }
}

/// Fewest ids of a sequence: shorter rests are dropped.
const SHORTEST: usize = 4;

/// Divides a client's documents into training and validation (a document goes to validation by a hash of its text, about `percent` %,
/// so that the same document is on the same side for every client), and both into sequences.
///
/// # Errors
/// [`FederatedError::Setting`] when a side has no sequence, [`FederatedError::Training`] when the tokenizer fails.
pub fn examples(
    client: &ClientText,
    tokenizer: &tokenizers::Tokenizer,
    context: usize,
    sequences: Sequences,
    percent: u64,
) -> Result<ClientData, FederatedError> {
    let (mut train, mut valid) = (Corpus::default(), Corpus::default());
    for d in &client.documents {
        let hash = blake3::hash(d.text.as_bytes());
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
        if number % 100 < percent {
            valid.documents.push(d.clone());
        } else {
            train.documents.push(d.clone());
        }
    }
    let data = ClientData {
        name: client.name.clone(),
        train: windows(&train, tokenizer, context, sequences)?,
        valid: windows(&valid, tokenizer, context, sequences)?,
    };
    for (what, side) in [("training", &data.train), ("validation", &data.valid)] {
        if side.is_empty() && !(what == "validation" && percent == 0) {
            return Err(FederatedError::setting(
                format!("text of client `{}`", client.name),
                format!("at least one {what} sequence of {SHORTEST} tokens"),
                format!("none in {} documents", client.documents.len()),
                "give this client more text, or ask for fewer clients",
            ));
        }
    }
    Ok(data)
}

fn windows(
    corpus: &Corpus,
    tokenizer: &tokenizers::Tokenizer,
    context: usize,
    sequences: Sequences,
) -> Result<Vec<Window>, FederatedError> {
    let mut out = Vec::new();
    let mut cut = |ids: &[u16]| {
        let mut at = 0;
        while at + 1 < ids.len() {
            let end = (at + context).min(ids.len() - 1);
            if end - at >= SHORTEST {
                let wide = |r: &[u16]| r.iter().map(|&i| u32::from(i)).collect::<Vec<_>>();
                out.push((wide(&ids[at..end]), wide(&ids[at + 1..=end])));
            }
            at = end;
        }
    };
    match sequences {
        Sequences::Packed => cut(&encode_corpus(tokenizer, corpus)?),
        Sequences::Documents => {
            for d in &corpus.documents {
                let one = Corpus {
                    documents: vec![d.clone()],
                };
                cut(&encode_corpus(tokenizer, &one)?);
            }
        }
    }
    Ok(out)
}

/// A byte-level tokenizer for generated text: as many entries as the text gives, at most `vocabulary`.
///
/// # Errors
/// [`FederatedError::Training`] when the text gives fewer than 257.
pub fn tokenizer_for(
    clients: &[ClientText],
    vocabulary: usize,
) -> Result<tokenizers::Tokenizer, FederatedError> {
    let documents: Vec<Document> = clients.iter().flat_map(|c| c.documents.clone()).collect();
    let t = tacit_bitnet::train::train_tokenizer(&Corpus { documents }, vocabulary)?;
    debug_assert_eq!(t.token_to_id(END_OF_TEXT), Some(0));
    Ok(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::partition::generated;

    #[test]
    fn documents_stay_on_one_side_and_windows_cover_every_token_once() {
        let clients = generated(1, 2, 60, 3, 0.5);
        let tokenizer = tokenizer_for(&clients, 300).unwrap();
        let packed = examples(&clients[0], &tokenizer, 16, Sequences::Packed, 20).unwrap();
        assert!(packed.train.len() > packed.valid.len() && !packed.valid.is_empty());
        for w in packed.train.windows(2) {
            assert_eq!(w[0].1.last(), w[1].0.first());
            assert_eq!(w[0].0.len(), 16);
            assert_eq!(w[0].0[1..], w[0].1[..15]);
        }
        let single = examples(&clients[0], &tokenizer, 16, Sequences::Documents, 20).unwrap();
        let lengths: std::collections::HashSet<usize> =
            single.train.iter().map(|w| w.0.len()).collect();
        assert!(lengths.len() > 3 && single.train.iter().filter(|w| w.0[0] == 0).count() > 30);
        let tokens = |d: &ClientData| d.train_tokens();
        assert!(tokens(&packed) <= tokens(&single) + 4 * single.train.len());
        let drawn = packed.clone().few(5, 1, 0);
        assert_eq!(drawn.train.len(), 5);
        let place = |w: &Window| packed.train.iter().position(|x| x == w).unwrap();
        let places: Vec<usize> = drawn.train.iter().map(place).collect();
        assert!(places.is_sorted() && places != [0, 1, 2, 3, 4]);
        assert_eq!(packed.clone().few(5, 1, 0), drawn);
        assert_ne!(packed.clone().few(5, 2, 0), drawn);
        assert_eq!(packed.clone().few(0, 1, 0), packed);
        assert_eq!(packed.clone().few(10_000, 1, 0), packed);
        let few = ClientText {
            documents: clients[0].documents[..1].to_vec(),
            ..clients[0].clone()
        };
        assert!(examples(&few, &tokenizer, 16, Sequences::Packed, 20).is_err());
    }
}
