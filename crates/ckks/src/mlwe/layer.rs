//! Mix and repack in one pass over the components, with a small working set.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rayon::prelude::*;

use super::{
    MixWord, MlweContext, MlweError, Pieces, RepackKey, RingSwitchKey, RlweCoeff, TernaryMix,
    repack::Accumulator,
};

/// Operations of a linear layer. There is no field for products of ciphertexts or plaintexts because there are none: the only
/// multiplications are those of the key switches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MixCounts {
    /// Additions and subtractions of vectors of `n` words.
    pub additions: u64,
    /// Key switches: one for each repacked ciphertext (of `k'` key products, one mod-down).
    pub key_switches: u64,
}

/// What a mix and repack did and how long it took.
#[derive(Clone, Copy, Debug, Default)]
pub struct MixReport {
    /// Operations.
    pub counts: MixCounts,
    /// Thread time spent gathering and adding.
    pub mix: Duration,
    /// Thread time spent interleaving, transforming and multiplying with keys.
    pub repack: Duration,
    /// Time from start to end.
    pub wall: Duration,
}

impl MlweContext {
    /// Ring switch and decomposition of several ciphertexts: the inputs of any number of [`Self::mix_and_repack`].
    ///
    /// # Errors
    /// As [`Self::ring_switch`].
    pub fn switch_to_pieces<T: MixWord>(
        &self,
        key: &RingSwitchKey,
        inputs: &[RlweCoeff],
    ) -> Result<Vec<Pieces<T>>, MlweError> {
        inputs
            .par_iter()
            .map(|x| Pieces::new(self, &self.ring_switch(key, x)?))
            .collect()
    }

    /// `out = W x` on MLWE ciphertexts, repacked into RLWE ciphertexts modulo `q0` under the target of `key`.
    ///
    /// Component by component: mix, interleave, transform, multiply-accumulate with that component's key; one mod-down for each
    /// output ciphertext at the end. Error: [`super::noise`]. The same residues come out for any number of threads.
    ///
    /// # Errors
    /// [`MlweError::KeyMismatch`], [`MlweError::ShapeMismatch`] or [`MlweError::Inputs`] if the parts do not belong together,
    /// [`MlweError::RowTooDense`] if 64-bit sums could wrap.
    pub fn mix_and_repack<T: MixWord>(
        &self,
        key: &RepackKey,
        mix: &TernaryMix,
        pieces: &[Pieces<T>],
    ) -> Result<(Vec<RlweCoeff>, MixReport), MlweError> {
        let start = Instant::now();
        key.check(self)?;
        self.shape.expect("ternary product", mix.shape())?;
        mix.check(self.q0(), pieces)?;
        let (mix_nanos, repack_nanos) = (AtomicU64::new(0), AtomicU64::new(0));
        let timed = |nanos: &AtomicU64, since: Instant| {
            nanos.fetch_add(since.elapsed().as_nanos() as u64, Ordering::Relaxed);
        };

        let outputs: Vec<Accumulator> = (0..mix.output_ciphertexts())
            .map(|_| Accumulator::new(self.shape.degree()))
            .collect();
        let (components, unit) = (self.shape.components(), mix.components_in_a_unit::<T>());
        (0..components.div_ceil(unit))
            .into_par_iter()
            .for_each(|u| {
                let range = u * unit..((u + 1) * unit).min(components);
                let sums = mix.sums(pieces, range.clone(), &mix_nanos);
                let jobs: Vec<(usize, usize)> = range
                    .clone()
                    .flat_map(|component| (0..outputs.len()).map(move |c| (component, c)))
                    .collect();
                jobs.into_par_iter().for_each(|(component, c)| {
                    let since = Instant::now();
                    let poly = mix.interleave(self.q0(), &sums, component - range.start, c);
                    match component.checked_sub(1) {
                        None => outputs[c].set_b(poly),
                        Some(i) => outputs[c].absorb(self, key, i, poly),
                    }
                    timed(&repack_nanos, since);
                });
            });
        let since = Instant::now();
        let outputs: Vec<RlweCoeff> = outputs
            .into_par_iter()
            .map(|out| out.finish(self))
            .collect();
        timed(&repack_nanos, since);

        let nanos = |x: AtomicU64| Duration::from_nanos(x.into_inner());
        let report = MixReport {
            counts: MixCounts {
                additions: mix.additions(),
                key_switches: outputs.len() as u64,
            },
            mix: nanos(mix_nanos),
            repack: nanos(repack_nanos),
            wall: start.elapsed(),
        };
        Ok((outputs, report))
    }
}
