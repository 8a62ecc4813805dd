//! Counters of homomorphic operations: what a plan predicts and a test asserts.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many operations of each kind an [`crate::evaluator::Evaluator`] has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts {
    /// Key switches: relinearisations, rotations, conjugations and changes of secret; each one inner product with a key.
    pub key_switches: u64,
    /// Products of two ciphertexts (tensor products), squares included.
    pub ct_ct: u64,
    /// Products of a ciphertext and a plaintext polynomial.
    pub ct_pt: u64,
    /// Products of a ciphertext and a constant.
    pub constants: u64,
    /// Additions and subtractions of ciphertexts, plaintexts or constants.
    pub additions: u64,
    /// Divisions by a chain prime.
    pub rescales: u64,
    /// Rotations and conjugations (also counted in `key_switches`).
    pub rotations: u64,
    /// Bootstrappings.
    pub bootstraps: u64,
}

/// One counter per field of [`OpCounts`].
#[derive(Default)]
pub(crate) struct Counters {
    pub key_switches: AtomicU64,
    pub ct_ct: AtomicU64,
    pub ct_pt: AtomicU64,
    pub constants: AtomicU64,
    pub additions: AtomicU64,
    pub rescales: AtomicU64,
    pub rotations: AtomicU64,
    pub bootstraps: AtomicU64,
}

/// Adds to a counter. Relaxed: the counters order nothing.
pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

impl Counters {
    pub fn read(&self) -> OpCounts {
        let get = |c: &AtomicU64| c.load(Ordering::Relaxed);
        OpCounts {
            key_switches: get(&self.key_switches),
            ct_ct: get(&self.ct_ct),
            ct_pt: get(&self.ct_pt),
            constants: get(&self.constants),
            additions: get(&self.additions),
            rescales: get(&self.rescales),
            rotations: get(&self.rotations),
            bootstraps: get(&self.bootstraps),
        }
    }

    pub fn reset(&self) {
        for c in [
            &self.key_switches,
            &self.ct_ct,
            &self.ct_pt,
            &self.constants,
            &self.additions,
            &self.rescales,
            &self.rotations,
            &self.bootstraps,
        ] {
            c.store(0, Ordering::Relaxed);
        }
    }
}
