//! Text to calibrate on, measure on and cut prompts from.

use std::path::{Path, PathBuf};

use tacit_bitnet::Tokenizer;
use tacit_bitnet::train::Corpus;

use crate::exit::{Failure, Outcome, chain};
use crate::model;

/// Percentage of package families that training leaves out; the default text for measurements is taken from these.
const HELD_OUT_PERCENT: u64 = 5;

/// Sources of dependencies, as cargo keeps them: `$CARGO_HOME/registry/src`, else `~/.cargo/registry/src`.
fn registry() -> Outcome<PathBuf> {
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

/// Which part of the dependency sources to take where no text is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What training reads: for fitting.
    Training,
    /// What training leaves out: for measuring.
    HeldOut,
}

/// Documents below a folder or in a file; without one, documentation comments of dependency sources.
pub fn documents(data: Option<&Path>, part: Part) -> Outcome<Vec<String>> {
    let corpus = match data {
        Some(path) if path.is_file() => {
            let text = std::fs::read_to_string(path).map_err(|e| {
                Failure::input(format!("cannot read {} as text: {e}", path.display()))
            })?;
            return Ok(vec![text]);
        }
        Some(path) if !path.exists() => {
            return Err(Failure::input(format!(
                "there is nothing at {}; give a folder or file of text",
                path.display()
            )));
        }
        Some(path) => read(path)?,
        None => {
            let (training, held_out) = read(&registry()?)?.split(HELD_OUT_PERCENT);
            if part == Part::Training {
                training
            } else {
                held_out
            }
        }
    };
    if corpus.documents.is_empty() {
        return Err(Failure::input(
            "the dependency sources hold no text of the kind that is needed; give text with --data PATH",
        ));
    }
    Ok(corpus.documents.into_iter().map(|d| d.text).collect())
}

fn read(folder: &Path) -> Outcome<Corpus> {
    Corpus::read(&[folder.to_path_buf()], &[]).map_err(|e| Failure::input(chain(&e)))
}

/// Token ids of all documents, one after the other, each begun as the tokenizer begins a text.
pub fn token_stream(tokenizer: &Tokenizer, documents: &[String]) -> Outcome<Vec<u32>> {
    let mut ids = Vec::new();
    for document in documents {
        ids.extend(tokenizer.encode(document, true).map_err(model::failure)?);
    }
    Ok(ids)
}

/// `count` windows of `length` ids, spread evenly over the stream; fewer when it is short.
pub fn windows(ids: &[u32], length: usize, count: usize) -> Vec<Vec<u32>> {
    if length == 0 || ids.len() < length {
        return Vec::new();
    }
    let count = count.min(ids.len() / length);
    let room = ids.len() - length;
    (0..count)
        .map(|i| {
            let start = if count > 1 { room * i / (count - 1) } else { 0 };
            ids[start..start + length].to_vec()
        })
        .collect()
}

/// `count` prompts of 8 to `longest` ids (fewer than 8 only when `longest` is), placed and measured by a seed.
pub fn prompts(ids: &[u32], longest: usize, count: usize, seed: u64) -> Vec<Vec<u32>> {
    let shortest = longest.min(8);
    if longest == 0 || ids.len() < longest {
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
        .map(|_| {
            let length = shortest + next(longest - shortest + 1);
            let start = next(ids.len() - length + 1);
            ids[start..start + length].to_vec()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_both_ends() {
        let ids: Vec<u32> = (0..100).collect();
        let w = windows(&ids, 10, 4);
        assert_eq!(w.len(), 4);
        assert_eq!((w[0][0], w[3][9]), (0, 99));
        assert_eq!(windows(&ids, 60, 4).len(), 1);
        assert!(windows(&ids, 101, 1).is_empty());
    }

    #[test]
    fn prompts_are_the_same_for_the_same_seed() {
        let ids: Vec<u32> = (0..1000).collect();
        let a = prompts(&ids, 64, 20, 1);
        assert_eq!(a, prompts(&ids, 64, 20, 1));
        assert_ne!(a, prompts(&ids, 64, 20, 2));
        assert!(a.iter().all(|p| (8..=64).contains(&p.len())));
        assert!(prompts(&ids, 2000, 1, 1).is_empty());
    }
}
