//! Between messages (vectors of slots or coefficients) and plaintext polynomials.
//!
//! Slots: the canonical embedding. Slot `j` of a polynomial is its value at `zeta^(5^j)`, `zeta = exp(i pi / N)`, so that `X -> X^5` rotates the
//! slots by one and `X^{N/2}` is the imaginary unit in every slot. Encoding rounds `scale * coefficients` to the nearest integers: an error
//! of standard deviation `sqrt(1/12)` in every coefficient.

use crate::ciphertext::Plaintext;
use crate::context::{Context, limbs_mut};
use crate::error::CkksError;
use crate::mixed_radix::centred_to_f64;
use num_complex::Complex64;
use rayon::prelude::*;
use std::sync::Arc;
use tacit_ring::sampling::signed_to_residues_i64;
use tacit_ring::{Modulus, RnsPoly};

/// Encodes and decodes.
///
/// ```
/// use tacit_ckks::{context::Context, encoder::Encoder, parameters::{InsecureParameters, ParametersLiteral}};
/// let params = InsecureParameters::new(ParametersLiteral::levelled(10, 2, 1))?;
/// let encoder = Encoder::new(Context::new(params)?);
/// let plaintext = encoder.encode_real(&[1.5, -2.0], 2f64.powi(45), 2)?;
/// assert!((encoder.decode(&plaintext)?[1].re + 2.0).abs() < 1e-9);
/// # Ok::<(), tacit_ckks::CkksError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Encoder {
    ctx: Arc<Context>,
}

impl Encoder {
    /// An encoder for a context.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self { ctx }
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Encodes up to `N/2` complex slots (missing ones are 0) with a scale, at a level.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for too many values or a level that does not exist; [`CkksError::Unencodable`] for a value that is not finite or
    /// too large for the modulus.
    pub fn encode(
        &self,
        slots: &[Complex64],
        scale: f64,
        level: usize,
    ) -> Result<Plaintext, CkksError> {
        let poly = self.encode_qp(slots, scale, level, 0)?;
        Ok(Plaintext { poly, level, scale })
    }

    /// Encodes up to `N/2` real slots. See [`Self::encode`].
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_real(
        &self,
        slots: &[f64],
        scale: f64,
        level: usize,
    ) -> Result<Plaintext, CkksError> {
        let complex: Vec<Complex64> = slots.iter().map(|&re| Complex64::new(re, 0.0)).collect();
        self.encode(&complex, scale, level)
    }

    /// Encodes slots over `q_0..=q_level` and the first `special` special primes (NTT form): the plaintext side of a [`crate::ciphertext::LazyCiphertext`].
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_qp(
        &self,
        slots: &[Complex64],
        scale: f64,
        level: usize,
        special: usize,
    ) -> Result<RnsPoly, CkksError> {
        let n = self.ctx.n();
        if slots.len() > n / 2 {
            return Err(CkksError::Shape {
                what: "slots to encode",
                found: slots.len(),
                expected: format!("at most {}", n / 2),
            });
        }
        check_finite(slots.iter().flat_map(|z| [z.re, z.im]), 2)?;
        let mut buffer = vec![Complex64::default(); n / 2];
        buffer[..slots.len()].copy_from_slice(slots);
        self.ctx.fft().slots_to_coeffs(&mut buffer);
        let mut coeffs = vec![0.0; n];
        let (re, im) = coeffs.split_at_mut(n / 2);
        for ((z, re), im) in buffer.iter().zip(re).zip(im) {
            (*re, *im) = (z.re, z.im);
        }
        self.scaled_to_ntt(&coeffs, scale, level, special)
    }

    /// Encodes up to `N` real coefficients (missing ones are 0) with a scale, at a level.
    ///
    /// # Errors
    /// As [`Self::encode`].
    pub fn encode_coeffs(
        &self,
        coeffs: &[f64],
        scale: f64,
        level: usize,
    ) -> Result<Plaintext, CkksError> {
        if coeffs.len() > self.ctx.n() {
            return Err(CkksError::Shape {
                what: "coefficients to encode",
                found: coeffs.len(),
                expected: format!("at most {}", self.ctx.n()),
            });
        }
        check_finite(coeffs.iter().copied(), 1)?;
        let poly = self.scaled_to_ntt(coeffs, scale, level, 0)?;
        Ok(Plaintext { poly, level, scale })
    }

    /// Decodes all `N/2` slots.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if the plaintext does not fit the context.
    pub fn decode(&self, plaintext: &Plaintext) -> Result<Vec<Complex64>, CkksError> {
        let coeffs = self.decode_coeffs(plaintext)?;
        let (re, im) = coeffs.split_at(coeffs.len() / 2);
        let mut slots: Vec<Complex64> = re
            .iter()
            .zip(im)
            .map(|(&re, &im)| Complex64::new(re, im))
            .collect();
        self.ctx.fft().coeffs_to_slots(&mut slots);
        Ok(slots)
    }

    /// Decodes all `N` coefficients: the integers in `(-Q/2, Q/2)` divided by the scale.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if the plaintext does not fit the context.
    pub fn decode_coeffs(&self, plaintext: &Plaintext) -> Result<Vec<f64>, CkksError> {
        self.ctx.check_plaintext(plaintext)?;
        let poly = self.ctx.coefficients(&plaintext.poly, plaintext.level);
        let moduli = &self.ctx.params().q_moduli()[..=plaintext.level];
        let mut out = centred_to_f64(&poly, moduli);
        for x in &mut out {
            *x /= plaintext.scale;
        }
        Ok(out)
    }

    /// `round(coeffs * scale)` as residues in NTT form.
    fn scaled_to_ntt(
        &self,
        coeffs: &[f64],
        scale: f64,
        level: usize,
        special: usize,
    ) -> Result<RnsPoly, CkksError> {
        let ctx = &*self.ctx;
        ctx.check_level("level to encode at", level)?;
        if special > ctx.params().p_len() {
            return Err(CkksError::Shape {
                what: "special primes",
                found: special,
                expected: format!("at most {}", ctx.params().p_len()),
            });
        }
        if !(scale.is_finite() && scale > 0.0) {
            return Err(CkksError::Unencodable {
                index: 0,
                value: scale,
                expected: "a scale that is finite and positive".into(),
            });
        }
        let log_bound = (ctx.params().log_q_at(level) - 1.0).min(125.0);
        let bound = log_bound.exp2();
        if let Some((index, value)) = coeffs
            .iter()
            .map(|c| c * scale)
            .enumerate()
            .find(|(_, c)| c.is_nan() || c.abs() >= bound)
        {
            return Err(CkksError::Unencodable {
                index,
                value,
                expected: format!(
                    "coefficients times scale below 2^{log_bound:.0} (half the modulus at level {level}); use a smaller scale or a higher level"
                ),
            });
        }
        let small = coeffs.iter().all(|c| (c * scale).abs() < 2f64.powi(62));
        let mut poly = RnsPoly::zero(ctx.n(), level + 1 + special);
        let each_limb = |poly: &mut RnsPoly, fill: &(dyn Fn(&Modulus, &mut [u64]) + Sync)| {
            limbs_mut(poly)
                .into_par_iter()
                .enumerate()
                .for_each(|(j, limb)| {
                    fill(ctx.modulus(level, j), &mut limb[..coeffs.len()]);
                    ctx.table(level, j).forward(limb);
                });
        };
        if small {
            let integers: Vec<i64> = coeffs
                .iter()
                .map(|c| (c * scale).round_ties_even() as i64)
                .collect();
            each_limb(&mut poly, &|m, out| {
                signed_to_residues_i64(m, &integers, out)
            });
        } else {
            let integers: Vec<i128> = coeffs
                .iter()
                .map(|c| (c * scale).round_ties_even() as i128)
                .collect();
            each_limb(&mut poly, &|m, out| {
                for (o, &x) in out.iter_mut().zip(&integers) {
                    *o = m.from_i128(x);
                }
            });
        }
        Ok(poly)
    }
}

fn check_finite(values: impl Iterator<Item = f64>, per_index: usize) -> Result<(), CkksError> {
    match values.enumerate().find(|(_, x)| !x.is_finite()) {
        Some((i, value)) => Err(CkksError::Unencodable {
            index: i / per_index,
            value,
            expected: "a finite number".into(),
        }),
        None => Ok(()),
    }
}
