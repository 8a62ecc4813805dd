//! Text to calibrate on, measure on and cut prompts from.

use std::path::PathBuf;

use tacit_bitnet::Tokenizer;
use tacit_bitnet::train::Corpus;

use crate::exit::{Failure, Outcome, chain};
use crate::model;

/// Percentage of package families that training leaves out; the default text for measurements is taken from these.
const HELD_OUT_PERCENT: u64 = 5;

/// Sources of dependencies, as cargo keeps them: `$CARGO_HOME/registry/src`, else `~/.cargo/registry/src`.
pub fn registry() -> Outcome<PathBuf> {
    let home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")))
        .unwrap_or_default();
    let folder = home.join("registry").join("src");
    if folder.is_dir() {
        Ok(folder)
    } else {
        Err(Failure::input(format!(
            "there are no dependency sources in {}; give text with --data PATH",
            folder.display()
        )))
    }
}

/// Documents for fitting, and others, of packages that training leaves out, for measuring. Either may be empty.
pub struct Documents {
    /// What training reads.
    pub training: Vec<String>,
    /// What training leaves out.
    pub held_out: Vec<String>,
}

/// Reads folders and files; without any, documentation comments of dependency sources. Folders are split by package as
/// training splits them; files given by name count as training text.
pub fn documents(data: &[PathBuf]) -> Outcome<Documents> {
    let roots = if data.is_empty() {
        vec![registry()?]
    } else {
        data.to_vec()
    };
    let mut documents = Documents {
        training: Vec::new(),
        held_out: Vec::new(),
    };
    for root in roots {
        if !root.exists() {
            return Err(Failure::input(format!(
                "there is nothing at {}; give a folder or file of text",
                root.display()
            )));
        }
        if root.is_file() {
            let text = std::fs::read_to_string(&root).map_err(|e| {
                Failure::input(format!("cannot read {} as text: {e}", root.display()))
            })?;
            documents.training.push(text);
            continue;
        }
        let corpus = Corpus::read(&[root], &[]).map_err(|e| Failure::input(chain(&e)))?;
        let (training, held_out) = corpus.split(HELD_OUT_PERCENT);
        documents
            .training
            .extend(training.documents.into_iter().map(|d| d.text));
        documents
            .held_out
            .extend(held_out.documents.into_iter().map(|d| d.text));
    }
    Ok(documents)
}

/// Documents as one stream of token ids.
pub struct Tokens {
    ids: Vec<u32>,
    /// Where documents begin.
    starts: Vec<usize>,
}

impl Tokens {
    /// Token ids of all documents, one after the other, each begun as the tokenizer begins a text.
    pub fn new(tokenizer: &Tokenizer, documents: &[String]) -> Outcome<Self> {
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        for document in documents {
            starts.push(ids.len());
            ids.extend(tokenizer.encode(document, true).map_err(model::failure)?);
        }
        Ok(Tokens { ids, starts })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// The last beginning of a document at or before a position, else the position.
    fn begin(&self, at: usize) -> usize {
        let after = self.starts.partition_point(|s| *s <= at);
        if after == 0 {
            at
        } else {
            self.starts[after - 1]
        }
    }

    /// `count` windows of `length` ids, spread evenly over the stream, every other one from the beginning of a document;
    /// fewer when the stream is short.
    pub fn windows(&self, length: usize, count: usize) -> Vec<Vec<u32>> {
        if length == 0 || self.ids.len() < length {
            return Vec::new();
        }
        let count = count.min(self.ids.len() / length);
        let room = self.ids.len() - length;
        (0..count)
            .map(|i| {
                let at = if count > 1 { room * i / (count - 1) } else { 0 };
                let at = if i % 2 == 0 { self.begin(at) } else { at };
                self.ids[at..at + length].to_vec()
            })
            .collect()
    }

    /// `count` prompts of 8 to `longest` ids (fewer than 8 only when `longest` is), placed and measured by a seed, every other one
    /// from the beginning of a document, as a user's prompt is.
    pub fn prompts(&self, longest: usize, count: usize, seed: u64) -> Vec<Vec<u32>> {
        let shortest = longest.min(8);
        if longest == 0 || self.ids.len() < longest {
            return Vec::new();
        }
        let mut state = seed;
        let mut next = move |below: usize| {
            // SplitMix64: places prompts, decides nothing secret.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            ((z ^ (z >> 31)) % below as u64) as usize
        };
        (0..count)
            .map(|i| {
                let length = shortest + next(longest - shortest + 1);
                let at = next(self.ids.len() - length + 1);
                let at = if i % 2 == 0 { self.begin(at) } else { at };
                self.ids[at..at + length].to_vec()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(count: u32) -> Tokens {
        Tokens {
            ids: (0..count).collect(),
            starts: (0..count as usize).step_by(7).collect(),
        }
    }

    #[test]
    fn windows_cover_both_ends_and_begin_with_documents() {
        let w = tokens(100).windows(10, 4);
        assert_eq!(w.len(), 4);
        assert_eq!((w[0][0], w[2][0], w[3][9]), (0, 56, 99));
        assert_eq!(tokens(100).windows(60, 4).len(), 1);
        assert!(tokens(100).windows(101, 1).is_empty());
    }

    #[test]
    fn prompts_are_the_same_for_the_same_seed() {
        let t = tokens(1000);
        let a = t.prompts(64, 20, 1);
        assert_eq!(a, t.prompts(64, 20, 1));
        assert_ne!(a, t.prompts(64, 20, 2));
        assert!(a.iter().all(|p| (8..=64).contains(&p.len())));
        assert!(a.iter().step_by(2).all(|p| p[0] % 7 == 0));
        assert!(t.prompts(2000, 1, 1).is_empty());
    }
}
