//! Error of each step, as variances of one coefficient in units of `q0` (a message of size `q0/2^r` has `-log2(sqrt(V)/q0) - r` bits).
//!
//! Secrets: dense ternary (`2/3` of the coefficients nonzero) but for the repack target. Each formula is compared with measured
//! errors in this module's tests.

use super::MlweShape;

/// Standard deviation of fresh errors.
pub const SIGMA: f64 = 3.2;

/// Variance of rounding to an integer.
const ROUNDING: f64 = 1.0 / 12.0;

/// Ring switch with digits: `V_rs = N sigma^2 sum_i E[d_i^2]`. All digits but the last are uniform over `2^w` integers; the last is
/// what is left of a residue modulo `q0`.
pub fn ring_switch(shape: &MlweShape, log_q0: f64, digit_bits: u32) -> f64 {
    let digits = ((log_q0.ceil() + 1.0) / f64::from(digit_bits)).ceil();
    let full = 2f64.powi(2 * digit_bits as i32) / 12.0 + 1.0 / 6.0;
    let last =
        2f64.powf(2.0 * (log_q0 - (digits - 1.0) * f64::from(digit_bits))) / 12.0 + 1.0 / 6.0;
    shape.degree() as f64 * SIGMA * SIGMA * ((digits - 1.0) * full + last)
}

/// Rounding to `2^32` before a mix of 32-bit words: `V_32 = (1 + 2N'/3)/12 * (q0/2^32)^2`. Zero for 64-bit words.
pub fn mod_switch(shape: &MlweShape, log_q0: f64) -> f64 {
    (1.0 + 2.0 * shape.small_degree() as f64 / 3.0) * ROUNDING * 2f64.powf(2.0 * (log_q0 - 32.0))
}

/// Rounding of the rescale that ends SlotsToCoeffs, dense secret: `V_in = (1 + 2N/3)/12`.
pub fn input_rounding(shape: &MlweShape) -> f64 {
    (1.0 + 2.0 * shape.degree() as f64 / 3.0) * ROUNDING
}

/// Mix: `nonzeros` inputs (2/3 of the columns for uniform ternary weights), each with the variance `input` on arrival.
pub fn mix(nonzeros: f64, input: f64) -> f64 {
    nonzeros * input
}

/// Repack: `V = k' M sigma^2 (q0/P')^2/12 + (1 + h)/12`, `M` the coefficients of the output ciphertext that are in use
/// (`n` for each feature that some row is placed at; all `N` in a full ciphertext), `h` the weight of the target secret.
pub fn repack(
    shape: &MlweShape,
    log_q0: f64,
    log_special: f64,
    target_weight: f64,
    used_features: usize,
) -> f64 {
    let products = (shape.rank() * used_features * shape.tokens()) as f64 * SIGMA * SIGMA;
    products * 2f64.powf(2.0 * (log_q0 - log_special)) / 12.0 + (1.0 + target_weight) * ROUNDING
}

/// The settings that the error of a whole layer depends on.
#[derive(Clone, Copy, Debug)]
pub struct LayerNoise {
    /// Degrees.
    pub shape: MlweShape,
    /// `log2 q0`.
    pub log_q0: f64,
    /// `log2 P'`.
    pub log_special: f64,
    /// Digit bits of the ring-switch key.
    pub digit_bits: u32,
    /// 32 or 64: the words of the mix.
    pub word_bits: u32,
    /// Weight of the repack target.
    pub target_weight: f64,
}

impl LayerNoise {
    /// Variance of one coefficient of the output:
    /// `nonzeros (V_rs + V_32 + V_input) + V_repack`.
    ///
    /// `nonzeros` weights in the row (over all rows that meet in the feature), `input` the variance of the incoming error
    /// ([`input_rounding`] after SlotsToCoeffs), `used_features` as in [`repack`].
    pub fn variance(&self, nonzeros: f64, input: f64, used_features: usize) -> f64 {
        let narrow = if self.word_bits == 32 {
            mod_switch(&self.shape, self.log_q0)
        } else {
            0.0
        };
        let arriving = ring_switch(&self.shape, self.log_q0, self.digit_bits) + narrow + input;
        mix(nonzeros, arriving)
            + repack(
                &self.shape,
                self.log_q0,
                self.log_special,
                self.target_weight,
                used_features,
            )
    }
}
