//! Mix and repack in one pass over the components, with a small working set.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use rayon::prelude::*;

use super::{
    MixWord, MlweContext, MlweError, MlweKeys, Pieces, RepackKey, RingSwitchKey, RlweCoeff,
    TernaryMix, repack::Accumulator,
};
use crate::{Ciphertext, CkksError, Evaluator, evaluator::SCALE_TOLERANCE};

/// What a layer did and how long it took. There is no field for products of ciphertexts or plaintexts because there are none:
/// the only multiplications are those of the key switches.
#[derive(Clone, Copy, Debug, Default)]
pub struct LayerReport {
    /// Additions and subtractions of vectors of `n` words.
    pub additions: u64,
    /// Key switches: one for each input (ring switch) and one for each output (`k'` key products, one mod-down).
    pub key_switches: u64,
    /// Ring switch and decomposition of the inputs.
    pub ring_switch: Duration,
    /// Gathering and adding. Mix and repack are interleaved: their time is divided by the thread time that each took.
    pub mix: Duration,
    /// Interleaving, transforming and multiplying with keys.
    pub repack: Duration,
}

impl MlweContext {
    /// A ternary layer between SlotsToCoeffs and ModRaise: ring switch, mix and repack of level-0 ciphertexts under the main secret
    /// to level-0 ciphertexts under the target of the repack key. The scale stays.
    ///
    /// `T` is [`u32`] or [`u64`], see [`MixWord`]. Counts into the evaluator: `additions` and `key_switches`, nothing else.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for inputs that are not at level 0, [`CkksError::ScaleMismatch`] if their scales differ, [`MlweError`] if
    /// keys, matrix and inputs do not belong together.
    pub fn apply<T: MixWord>(
        &self,
        evaluator: &Evaluator,
        keys: &MlweKeys,
        mix: &TernaryMix,
        inputs: &[Ciphertext],
    ) -> Result<(Vec<Ciphertext>, LayerReport), CkksError> {
        let start = Instant::now();
        if inputs.len() != mix.input_ciphertexts() {
            return Err(MlweError::Inputs {
                expected: mix.input_ciphertexts(),
                found: inputs.len(),
            }
            .into());
        }
        let scale = inputs.first().map_or(1.0, |ct| ct.scale);
        if let Some(other) = inputs
            .iter()
            .find(|ct| (ct.scale / scale - 1.0).abs() > SCALE_TOLERANCE)
        {
            return Err(CkksError::ScaleMismatch {
                operation: "ternary layer",
                left: scale,
                right: other.scale,
            });
        }
        let inputs = inputs
            .par_iter()
            .map(|ct| self.to_coefficients(ct))
            .collect::<Result<Vec<_>, _>>()?;
        let pieces = self.switch_to_pieces::<T>(keys.ring_switch(), &inputs)?;
        let ring_switch = start.elapsed();
        let (outputs, mut report) = self.mix_and_repack(keys.repack(), mix, &pieces)?;
        report.ring_switch = ring_switch;
        report.key_switches += inputs.len() as u64;
        let since = Instant::now();
        let outputs = outputs
            .par_iter()
            .map(|x| self.to_ciphertext(x, scale))
            .collect::<Result<_, _>>()?;
        report.repack += since.elapsed();
        evaluator.count_ternary_layer(report.additions, report.key_switches);
        Ok((outputs, report))
    }

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
    ) -> Result<(Vec<RlweCoeff>, LayerReport), MlweError> {
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

        let (mixed, repacked) = (
            mix_nanos.into_inner() as f64,
            repack_nanos.into_inner() as f64,
        );
        let wall = start.elapsed();
        let mixing = wall.mul_f64(mixed / (mixed + repacked).max(1.0));
        let report = LayerReport {
            additions: mix.additions(),
            key_switches: outputs.len() as u64,
            ring_switch: Duration::ZERO,
            mix: mixing,
            repack: wall - mixing,
        };
        Ok((outputs, report))
    }
}
