//! Plaintexts with periodic slots, stored by one period.
//!
//! A slot vector of period `p` (a power of two) is a polynomial in `Y = X^{N/2p}`, so that it has `2p` coefficients, and in the order of
//! the transform (`out[j] = f(psi^(2 br(j) + 1))`) its values depend on the leading `log2(2p)` bits of `j` only: they come in blocks of
//! `N/2p` equal residues. The diagonals of CoeffsToSlots and SlotsToCoeffs have periods of 32 and 1024 in two of three factors:
//! `2p` residues a limb take the place of `N`.

use std::collections::HashMap;
use std::sync::Arc;

use num_complex::Complex64;
use rayon::prelude::*;
use tacit_ring::{NttTable, RnsPoly};

use crate::context::Context;
use crate::error::CkksError;
use crate::fft::SpecialFft;

/// A plaintext over `q_0..=q_level, p_0..p_{special-1}`, NTT order, with `residues.n() = 2*period` residues a limb, each standing for
/// `N/(2*period)` equal neighbours.
#[derive(Clone)]
pub(crate) struct PeriodicPlaintext {
    residues: RnsPoly,
    log_repeat: u32,
    mean_square: f64,
}

impl PeriodicPlaintext {
    /// Whether the residues are stored in full.
    pub fn is_full(&self) -> bool {
        self.log_repeat == 0
    }

    /// All residues of limb `j`, for a plaintext stored in full.
    pub fn limb(&self, j: usize) -> &[u64] {
        self.residues.limb(j)
    }

    /// Writes residues `start..start + out.len()` of limb `j`.
    pub fn expand(&self, j: usize, start: usize, out: &mut [u64]) {
        let limb = self.residues.limb(j);
        let repeat = 1 << self.log_repeat;
        let mut at = start;
        let mut rest = out;
        while !rest.is_empty() {
            let count = (repeat - (at & (repeat - 1))).min(rest.len());
            let (head, tail) = rest.split_at_mut(count);
            head.fill(limb[at >> self.log_repeat]);
            at += count;
            rest = tail;
        }
    }

    /// Mean square of the slots, scaled: `N` times the mean square of the coefficients.
    pub fn mean_square(&self) -> f64 {
        self.mean_square
    }

    /// Coefficients that are not zero by construction: each carries a rounding error.
    pub fn coefficients(&self) -> usize {
        self.residues.n()
    }

    /// Bytes of residues.
    pub fn bytes(&self) -> usize {
        8 * self.residues.n() * self.residues.limbs()
    }
}

/// Encodes slot vectors of power-of-two length (their period), with the transforms of short periods kept.
pub(crate) struct PeriodicEncoder<'a> {
    ctx: &'a Context,
    level: usize,
    special: usize,
    transforms: HashMap<usize, (SpecialFft, Vec<Arc<NttTable>>)>,
}

impl<'a> PeriodicEncoder<'a> {
    pub fn new(ctx: &'a Context, level: usize, special: usize) -> Self {
        Self {
            ctx,
            level,
            special,
            transforms: HashMap::new(),
        }
    }

    /// Prepares the transforms for vectors of this period.
    ///
    /// # Errors
    /// [`CkksError::Shape`] if the period is not a power of two of at most `N/2`.
    pub fn prepare(&mut self, period: usize) -> Result<(), CkksError> {
        let slots = self.ctx.n() / 2;
        if !period.is_power_of_two() || period > slots {
            return Err(CkksError::Shape {
                what: "length of a diagonal",
                found: period,
                expected: format!("a power of two of at most {slots}, the number of slots"),
            });
        }
        if self.transforms.contains_key(&period) {
            return Ok(());
        }
        let limbs = self.level + 1 + self.special;
        let tables = if period == slots {
            let q = (0..=self.level).map(|i| self.ctx.q_table(i).clone());
            q.chain((0..self.special).map(|i| self.ctx.p_table(i).clone()))
                .collect()
        } else {
            (0..limbs)
                .into_par_iter()
                .map(|j| {
                    let full = self.ctx.table(self.level, j);
                    let small = NttTable::new(2 * period, *full.modulus())?;
                    // Both roots come from the same generator; everything here rests on it.
                    assert_eq!(
                        small.psi(),
                        full.modulus()
                            .pow(full.psi(), (self.ctx.n() / (2 * period)) as u64),
                        "roots of unity of different ring dimensions belong together"
                    );
                    Ok(Arc::new(small))
                })
                .collect::<Result<_, CkksError>>()?
        };
        self.transforms
            .insert(period, (SpecialFft::new(2 * period), tables));
        Ok(())
    }

    /// Encodes one period of slots with a scale. The period must have been prepared.
    ///
    /// # Errors
    /// [`CkksError::Unencodable`] for values that are not finite or of more than 62 bits after scaling.
    pub fn encode(&self, slots: &[Complex64], scale: f64) -> Result<PeriodicPlaintext, CkksError> {
        let (fft, tables) = &self.transforms[&slots.len()];
        let mut packed = slots.to_vec();
        fft.slots_to_coeffs(&mut packed);
        let integers = packed
            .iter()
            .map(|z| z.re)
            .chain(packed.iter().map(|z| z.im))
            .enumerate()
            .map(|(index, c)| {
                let value = c * scale;
                if value.abs() < 2f64.powi(62) {
                    Ok(value.round_ties_even() as i64)
                } else {
                    Err(CkksError::Unencodable {
                        index,
                        value,
                        expected: "coefficients below 2^62 after scaling; use a smaller scale"
                            .into(),
                    })
                }
            })
            .collect::<Result<Vec<i64>, _>>()?;
        let mut residues = RnsPoly::zero(integers.len(), tables.len());
        for (limb, table) in residues.limbs_iter_mut().zip(tables) {
            tacit_ring::sampling::signed_to_residues_i64(table.modulus(), &integers, limb);
            table.forward(limb);
        }
        let mean_square = slots.iter().map(|z| z.norm_sqr()).sum::<f64>() / slots.len() as f64;
        Ok(PeriodicPlaintext {
            mean_square: mean_square * scale * scale,
            log_repeat: (self.ctx.n() / integers.len()).ilog2(),
            residues,
        })
    }
}
