//! The operations the encrypted model is written in, and who carries them out.
//!
//! The transformer of this crate is one program over the trait [`Machine`]; three machines run it:
//!
//! * [`CountingMachine`](counting::CountingMachine) tracks level, scale and cost only: the *plan*;
//! * [`ClearMachine`](clear::ClearMachine) works on slots in the clear: the specification, and the reference for errors;
//! * [`EncryptedMachine`](encrypted::EncryptedMachine) works on ciphertexts.
//!
//! All three make the same level and scale decisions through [`Chain`], so a program that plans also runs.

pub mod clear;
pub mod counting;
pub mod encrypted;
pub mod rehearsal;

use std::sync::Arc;

use num_complex::Complex64;

use crate::{EnsiError, columns::sums::ColumnSums, ternary_layer::TernaryLayer};

/// One plaintext factor for every slot. Machines cache its encoding by identity and level, unless it is for one use only.
#[derive(Clone, Debug)]
pub struct Mask {
    values: Arc<Vec<Complex64>>,
    use_: MaskUse,
}

/// How long the encodings of a mask are worth keeping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaskUse {
    /// As long as the engine: every pass uses them.
    Always,
    /// Until [`encrypted::Engine::forget_passing`]: all layers of one pass use them.
    Pass,
    /// Not at all: one step uses them.
    Once,
}

impl Mask {
    /// A mask that many steps use: its encodings are kept.
    pub fn new(values: Vec<Complex64>) -> Self {
        Self {
            values: Arc::new(values),
            use_: MaskUse::Always,
        }
    }

    /// A mask that one step uses: its encodings are not kept.
    pub fn once(values: Vec<Complex64>) -> Self {
        Self {
            values: Arc::new(values),
            use_: MaskUse::Once,
        }
    }

    /// The same mask for all layers of one pass.
    pub fn for_a_while(self) -> Self {
        Self {
            use_: MaskUse::Pass,
            ..self
        }
    }

    /// Every value times `factor`, for one use.
    pub fn scaled(&self, factor: f64) -> Self {
        Self::once(self.values.iter().map(|x| x * factor).collect())
    }

    /// How long its encodings are worth keeping.
    pub fn lifetime(&self) -> MaskUse {
        self.use_
    }

    /// Slot values.
    pub fn values(&self) -> &[Complex64] {
        &self.values
    }

    /// Identity for caches: equal for clones of one mask only.
    pub fn id(&self) -> usize {
        Arc::as_ptr(&self.values) as usize
    }
}

/// The moduli a program runs over, as far as levels and scales are concerned.
#[derive(Clone, Debug)]
pub struct Chain {
    /// The primes `q_0, q_1, …` as floating-point numbers.
    pub q: Vec<f64>,
    /// Level of a freshly refreshed ciphertext.
    pub top: usize,
    /// Level at which SlotsToCoeffs begins.
    pub bottom: usize,
    /// The ordinary scale of user levels.
    pub scale: f64,
    /// Scale of a refreshed message with |m| <= 1 in coefficients modulo `q_0`: `q_0 / message ratio`.
    pub message_scale: f64,
}

/// Relative difference up to which two scales count as equal (the error it causes is below every other).
pub const SCALE_TOLERANCE: f64 = 1.0 / (1u64 << 20) as f64;

impl Chain {
    /// The chain of an engine parameter set.
    pub fn of(params: &tacit_ckks::Parameters) -> Self {
        let q: Vec<f64> = (0..params.q_len())
            .map(|i| params.q(i).value() as f64)
            .collect();
        let message_scale = q[0] / f64::from(1u32 << params.literal().log_message_ratio);
        Self {
            q,
            top: params.top_user_level(),
            bottom: params.bottom_user_level(),
            scale: params.user_scale(),
            message_scale,
        }
    }

    /// Fails unless `level - depth >= 0`.
    pub fn spend(&self, step: &str, level: usize, depth: usize) -> Result<usize, EnsiError> {
        level
            .checked_sub(depth)
            .ok_or_else(|| EnsiError::OutOfLevels {
                step: step.to_owned(),
                needed: depth,
                found: level,
            })
    }

    /// Fails unless the scales agree within [`SCALE_TOLERANCE`].
    pub fn same_scale(&self, step: &str, left: f64, right: f64) -> Result<(), EnsiError> {
        if (left / right - 1.0).abs() <= SCALE_TOLERANCE {
            return Ok(());
        }
        Err(EnsiError::Scale {
            step: step.to_owned(),
            left: left.log2(),
            right: right.log2(),
        })
    }
}

/// Levels a Chebyshev series of this many coefficients consumes: `ceil(log2(degree + 1))`.
pub fn series_depth(coefficients: usize) -> usize {
    coefficients.next_power_of_two().trailing_zeros() as usize
}

/// The result of a refresh for one output ciphertext: its real part and, when asked for, its imaginary part, both real-valued.
pub type Refreshed<C> = (C, Option<C>);

/// The operations of the encrypted transformer. Levels and scales below are in terms of [`Chain`].
pub trait Machine {
    /// A ciphertext of this machine.
    type Ct: Clone;

    /// The chain.
    fn chain(&self) -> &Chain;
    /// Level of a ciphertext.
    fn level(&self, ct: &Self::Ct) -> usize;
    /// Scale of a ciphertext.
    fn scale(&self, ct: &Self::Ct) -> f64;
    /// Begins the next step of the plan; fails when the caller wants to stop.
    fn begin(&mut self, name: &str, layer: Option<usize>) -> Result<(), EnsiError>;
    /// Shows an intermediate value to whoever compares; the default does nothing.
    fn probe(&mut self, _name: &str, _layer: usize, _ct: &Self::Ct) -> Result<(), EnsiError> {
        Ok(())
    }

    /// Rotation to the left: slot `j` of the result is slot `j + steps`. One key switch.
    fn rotate(&mut self, ct: &Self::Ct, steps: i64) -> Result<Self::Ct, EnsiError>;
    /// Several rotations of one ciphertext with one decomposition.
    fn rotate_many(&mut self, ct: &Self::Ct, steps: &[i64]) -> Result<Vec<Self::Ct>, EnsiError>;
    /// Complex conjugate of every slot. One key switch.
    fn conjugate(&mut self, ct: &Self::Ct) -> Result<Self::Ct, EnsiError>;
    /// Sum; the result has the lower level of the two.
    fn add(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, EnsiError>;
    /// Difference; the result has the lower level of the two.
    fn sub(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, EnsiError>;
    /// Adds real slot values.
    fn add_values(&mut self, ct: &Self::Ct, values: &[f64]) -> Result<Self::Ct, EnsiError>;
    /// Adds one real number to every slot.
    fn add_const(&mut self, ct: &Self::Ct, value: f64) -> Result<Self::Ct, EnsiError>;
    /// Multiplies every slot by the imaginary unit (exact, no level).
    fn mul_i(&mut self, ct: &Self::Ct) -> Result<Self::Ct, EnsiError>;
    /// `sum_k ct_k * mask_k`, not rescaled: level unchanged, scale times the prime of that level.
    fn dot_masks_unscaled(&mut self, terms: &[(&Self::Ct, &Mask)]) -> Result<Self::Ct, EnsiError>;
    /// `sum_k a_k * b_k`, relinearised once, rescaled: one level.
    fn dot(&mut self, terms: &[(&Self::Ct, &Self::Ct)]) -> Result<Self::Ct, EnsiError>;
    /// Drops one prime: scale divided by it.
    fn rescale(&mut self, ct: &Self::Ct) -> Result<Self::Ct, EnsiError>;
    /// Multiplies every slot by `factor` by reinterpreting the scale: free and exact.
    fn scale_values(&mut self, ct: &Self::Ct, factor: f64) -> Self::Ct;
    /// Gives the ciphertext exactly this scale without changing its values: one level.
    fn match_scale(&mut self, ct: &Self::Ct, scale: f64) -> Result<Self::Ct, EnsiError>;
    /// Forgets the primes above `level`.
    fn drop_to_level(&mut self, ct: &Self::Ct, level: usize) -> Result<Self::Ct, EnsiError>;
    /// `sum_k c_k T_k(ct)` for slots in [-1, 1]; [`series_depth`] levels; the result has `scale`.
    fn chebyshev(
        &mut self,
        ct: &Self::Ct,
        coefficients: &[f64],
        scale: f64,
    ) -> Result<Self::Ct, EnsiError>;
    /// SlotsToCoeffs, the ternary product, and the refresh. Inputs are real-valued ciphertexts at level [`Chain::bottom`] or above, at
    /// any scale: SlotsToCoeffs brings them to `delta`. Outputs are at [`Chain::top`] and hold the integer combinations
    /// `sum_i W[o][i] x_i`.
    fn linear(
        &mut self,
        inputs: &[Self::Ct],
        layer: &TernaryLayer,
        delta: f64,
    ) -> Result<Vec<Refreshed<Self::Ct>>, EnsiError>;

    /// A ternary matrix on one ciphertext a feature, rows put in place by masks: `sum_k mask_k * (sum_f W[r_k][f] * ct_f)` for each output. One
    /// level, scale unchanged.
    fn columns(
        &mut self,
        inputs: &[&Self::Ct],
        sums: &ColumnSums,
    ) -> Result<Vec<Self::Ct>, EnsiError>;
    /// The same values at [`Chain::top`]: real-valued ciphertexts at level [`Chain::bottom`] or above and of one scale, two to a bootstrap.
    /// SlotsToCoeffs brings them to `delta`: `|value * delta|` must stay below [`Chain::message_scale`].
    fn refresh(&mut self, cts: &[Self::Ct], delta: f64) -> Result<Vec<Self::Ct>, EnsiError>;

    /// `sum_k ct_k * mask_k`; one level, scale unchanged.
    fn dot_masks(&mut self, terms: &[(&Self::Ct, &Mask)]) -> Result<Self::Ct, EnsiError> {
        let sum = self.dot_masks_unscaled(terms)?;
        self.rescale(&sum)
    }

    /// `sum_k ct_k * mask_k` at exactly this scale, values unchanged; one level. The ratio of the scales goes into the masks.
    fn dot_masks_at_scale(
        &mut self,
        terms: &[(&Self::Ct, &Mask)],
        scale: f64,
    ) -> Result<Self::Ct, EnsiError> {
        let ratio = terms.first().map_or(1.0, |(ct, _)| scale / self.scale(ct));
        let masks: Vec<Mask> = terms.iter().map(|(_, mask)| mask.scaled(ratio)).collect();
        let terms: Vec<(&Self::Ct, &Mask)> = terms.iter().map(|(ct, _)| *ct).zip(&masks).collect();
        let sum = self.dot_masks(&terms)?;
        Ok(self.scale_values(&sum, 1.0 / ratio))
    }

    /// Product, relinearised and rescaled: one level.
    fn mul(&mut self, a: &Self::Ct, b: &Self::Ct) -> Result<Self::Ct, EnsiError> {
        self.dot(&[(a, b)])
    }
}
