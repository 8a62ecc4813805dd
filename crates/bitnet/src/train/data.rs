//! Token streams: files, training batches, validation windows.

use super::TrainError;
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use std::path::Path;

/// A stream of token ids in which id 0 separates documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenData {
    tokens: Vec<u16>,
    /// Positions of separators.
    starts: Vec<usize>,
}

impl TokenData {
    /// Wraps a stream.
    pub fn new(tokens: Vec<u16>) -> Self {
        let starts = tokens
            .iter()
            .enumerate()
            .filter(|(_, t)| **t == 0)
            .map(|(i, _)| i)
            .collect();
        Self { tokens, starts }
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Reads a file of little-endian `u16` ids.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = std::fs::read(path).map_err(|e| TrainError::io(path, e))?;
        Ok(Self::new(
            bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|b| u16::from_le_bytes(*b))
                .collect(),
        ))
    }

    /// Writes the ids as little-endian `u16`.
    ///
    /// # Errors
    /// [`TrainError::Io`] when it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let bytes: Vec<u8> = self.tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
        std::fs::write(path, bytes).map_err(|e| TrainError::io(path, e))
    }

    fn window(&self, at: usize, context: usize) -> (Vec<u32>, Vec<u32>) {
        let ids = |r: &[u16]| r.iter().map(|&t| u32::from(t)).collect();
        (
            ids(&self.tokens[at..at + context]),
            ids(&self.tokens[at + 1..at + context + 1]),
        )
    }

    /// The inputs and targets of training step `step`: a function of the arguments alone, so that a resumed run sees what an
    /// uninterrupted one would have seen. A share `aligned` of the sequences starts at the beginning of a document.
    pub fn batch(
        &self,
        seed: u64,
        step: usize,
        batch: usize,
        context: usize,
        aligned: f64,
    ) -> (Vec<u32>, Vec<u32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(step as u64);
        let places = self.tokens.len() - context;
        let starts = &self.starts[..self.starts.partition_point(|&s| s < places)];
        let mut below = |n: usize| ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize;
        let (mut inputs, mut targets) = (
            Vec::with_capacity(batch * context),
            Vec::with_capacity(batch * context),
        );
        for _ in 0..batch {
            let start = below(1 << 30) < (aligned * f64::from(1 << 30)) as usize;
            let at = if start && !starts.is_empty() {
                starts[below(starts.len())]
            } else {
                below(places)
            };
            let (i, t) = self.window(at, context);
            inputs.extend(i);
            targets.extend(t);
        }
        (inputs, targets)
    }

    /// The first `limit` windows of one context length, side by side.
    pub fn windows(&self, context: usize, limit: usize) -> Vec<(Vec<u32>, Vec<u32>)> {
        let count = self.tokens.len().saturating_sub(1) / context;
        (0..count.min(limit))
            .map(|i| self.window(i * context, context))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_depend_on_seed_and_step_only_and_windows_tile() {
        let data = TokenData::new(
            (0..1000u16)
                .map(|i| if i % 10 == 0 { 0 } else { i })
                .collect(),
        );
        let a = data.batch(3, 17, 8, 12, 0.5);
        assert_eq!(a, data.batch(3, 17, 8, 12, 0.5));
        assert_ne!(a, data.batch(3, 18, 8, 12, 0.5));
        assert_ne!(a, data.batch(4, 17, 8, 12, 0.5));
        assert_eq!((a.0.len(), a.1.len()), (96, 96));
        for (i, t) in a.0.chunks(12).zip(a.1.chunks(12)) {
            assert_eq!(i[1..], t[..11]);
        }
        assert!(
            data.batch(1, 1, 50, 12, 1.0)
                .0
                .chunks(12)
                .all(|i| i[0] == 0)
        );
        let w = data.windows(100, 99);
        assert_eq!(w.len(), 9);
        assert_eq!(w[3].0[5], 305);
        assert_eq!(w[3].1[5], 306);
        let dir = tempfile::tempdir().unwrap();
        data.write(&dir.path().join("t.bin")).unwrap();
        assert_eq!(TokenData::read(&dir.path().join("t.bin")).unwrap(), data);
    }
}
