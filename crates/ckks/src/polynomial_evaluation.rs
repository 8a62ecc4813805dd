//! [`crate::polynomial`] on ciphertexts.

use std::collections::BTreeMap;

use num_complex::Complex64;
use tacit_ring::{RnsPoly, ops};

use crate::ciphertext::Ciphertext;
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, to_integer};
use crate::keys::EvaluationKeys;
use crate::polynomial::{
    ChebyshevSeries, Plan, depth, divide, is_leaf, leading_power, split_of_basis, trimmed,
};

/// The least and the largest scale of the variable, relative to the primes it is rescaled by: outside, scales of the powers run away.
const SCALE_RANGE: (f64, f64) = (1.0 / 64.0, 2.0);

impl Evaluator {
    /// The variable of a Chebyshev series: `u = (2x - lo - hi)/(hi - lo)`, in `[-1, 1]` for `x` in `[lo, hi]`.
    ///
    /// Free of levels: the factor `2/(hi - lo)` is a new reading of the scale (which becomes `scale*(hi - lo)/2`), the offset an addition.
    /// So hold `x` with a scale of about `2/(hi - lo)` times the usual one, that is, with polynomial coefficients of the usual size.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] if the interval is empty or not finite.
    pub fn chebyshev_variable(
        &self,
        ct: &Ciphertext,
        lo: f64,
        hi: f64,
    ) -> Result<Ciphertext, CkksError> {
        if !(lo.is_finite() && hi.is_finite() && lo < hi) {
            return Err(CkksError::InvalidParameters {
                field: "interval of a polynomial",
                found: format!("[{lo}, {hi}]"),
                expected: "finite ends with lo < hi".into(),
            });
        }
        let mut u = ct.clone();
        u.scale *= (hi - lo) / 2.0;
        let offset = -(lo + hi) / (hi - lo);
        if offset != 0.0 {
            self.add_const(&mut u, Complex64::new(offset, 0.0))?;
        }
        Ok(u)
    }

    /// `p(x)` for a series on an interval, with exactly the scale `target_scale`, `series.depth()` levels below `ct`.
    ///
    /// # Errors
    /// As [`Self::chebyshev_variable`] and [`Self::evaluate_chebyshev`].
    pub fn evaluate_series(
        &self,
        ct: &Ciphertext,
        series: &ChebyshevSeries,
        target_scale: f64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let variable = self.chebyshev_variable(ct, series.lo, series.hi)?;
        self.evaluate_chebyshev(&variable, &series.coeffs, target_scale, keys)
    }

    /// `sum_k coeffs[k] * T_k(u)` for `u` in `[-1, 1]`, with exactly the scale `target_scale`, `ceil(log2(degree + 1))` levels below `u`.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`]; [`CkksError::InvalidParameters`] if the scale of `u` is far from the primes below its level, or a
    /// coefficient is not finite; errors of key switching.
    pub fn evaluate_chebyshev(
        &self,
        u: &Ciphertext,
        coeffs: &[f64],
        target_scale: f64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let mut results = self.evaluate_chebyshev_many(u, &[(coeffs, target_scale)], keys)?;
        Ok(results.remove(0))
    }

    /// Several polynomials (coefficients and target scale each) of one variable on one basis. Each result is at the level its own degree asks for.
    ///
    /// # Errors
    /// As [`Self::evaluate_chebyshev`].
    pub fn evaluate_chebyshev_many(
        &self,
        u: &Ciphertext,
        polynomials: &[(&[f64], f64)],
        keys: &EvaluationKeys,
    ) -> Result<Vec<Ciphertext>, CkksError> {
        for (coeffs, scale) in polynomials {
            let degree = trimmed(coeffs).len().saturating_sub(1);
            if coeffs.iter().any(|c| !c.is_finite()) || !(scale.is_finite() && *scale > 0.0) {
                return Err(CkksError::InvalidParameters {
                    field: "polynomial",
                    found: format!("coefficients {coeffs:?}, target scale {scale}"),
                    expected: "finite coefficients and a positive scale".into(),
                });
            }
            if depth(degree) > u.level {
                return Err(CkksError::LevelTooLow {
                    operation: "evaluate a polynomial",
                    found: u.level,
                    needed: depth(degree),
                });
            }
        }
        if u.parts.len() != 2 {
            return Err(CkksError::Shape {
                what: "ciphertext parts",
                found: u.parts.len(),
                expected: "2 (relinearise the product first)".into(),
            });
        }
        let coefficients: Vec<&[f64]> = polynomials.iter().map(|(c, _)| *c).collect();
        let plan = Plan::best(&coefficients);
        if !plan.basis.is_empty() {
            let relative = u.scale / self.context().params().q(u.level).value() as f64;
            if !(SCALE_RANGE.0..=SCALE_RANGE.1).contains(&relative) {
                return Err(CkksError::InvalidParameters {
                    field: "scale of the variable of a polynomial",
                    found: format!("2^{:.2}, {relative:.3} times the prime it is rescaled by", u.scale.log2()),
                    expected: "between 1/64 and 2 times that prime; rescale the product before to another scale".into(),
                });
            }
        }
        let mut evaluation = Evaluation {
            evaluator: self,
            keys,
            top: u.level,
            baby: plan.baby,
            basis: BTreeMap::from([(1, u.clone())]),
        };
        for &k in &plan.basis {
            evaluation.make(k)?;
        }
        polynomials
            .iter()
            .map(|&(coeffs, scale)| {
                let p = trimmed(coeffs);
                if p.len() <= 1 {
                    let mut constant = u.clone();
                    constant
                        .parts
                        .iter_mut()
                        .for_each(|part| part.as_mut_slice().fill(0));
                    constant.scale = scale;
                    self.add_const(
                        &mut constant,
                        Complex64::new(p.first().copied().unwrap_or(0.0), 0.0),
                    )?;
                    return Ok(constant);
                }
                evaluation.node(p, depth(p.len() - 1), scale)
            })
            .collect()
    }
}

/// The basis elements of one variable, and what is needed to combine them.
struct Evaluation<'a> {
    evaluator: &'a Evaluator,
    keys: &'a EvaluationKeys,
    top: usize,
    baby: usize,
    basis: BTreeMap<usize, Ciphertext>,
}

impl Evaluation<'_> {
    fn prime(&self, level: usize) -> f64 {
        self.evaluator.context().params().q(level).value() as f64
    }

    /// `T_k = 2 T_a T_b - T_{a-b}`, the elements it needs first.
    fn make(&mut self, k: usize) -> Result<(), CkksError> {
        if self.basis.contains_key(&k) {
            return Ok(());
        }
        let (a, b) = split_of_basis(k);
        for needed in [a, b, a - b] {
            if needed > 0 {
                self.make(needed)?;
            }
        }
        let (ta, tb) = (&self.basis[&a], &self.basis[&b]);
        let mut sum = if a == b {
            self.evaluator.square_tensor(ta)?
        } else {
            self.evaluator.mul_tensor(ta, tb)?
        };
        let level = sum.level;
        // Scales below the primes are made up for by an integer factor: T_k keeps about the scale of the primes.
        let nominal = self.prime(level) * self.prime(level).min(self.prime(level - 1));
        let factor = (nominal / sum.scale).round().max(1.0);
        self.evaluator.mul_small_assign(&mut sum, 2 * factor as u64);
        sum.scale *= factor;
        if a == b {
            self.evaluator
                .add_const(&mut sum, Complex64::new(-1.0, 0.0))?;
        } else {
            self.evaluator
                .mul_const_add_assign(&mut sum, &self.basis[&(a - b)], -1.0)?;
        }
        let element = self.evaluator.relinearise_rescale(&sum, self.keys)?;
        self.basis.insert(k, element);
        Ok(())
    }

    /// `p` at `depth` levels below the variable, at exactly this scale.
    fn node(&self, p: &[f64], depth: usize, scale: f64) -> Result<Ciphertext, CkksError> {
        let level = self.top - depth + 1;
        let n = self.evaluator.context().n();
        let parts = (0..2).map(|_| RnsPoly::zero(n, level + 1)).collect();
        let mut sum = Ciphertext {
            parts,
            level,
            scale: scale * self.prime(level),
        };
        self.add(p, depth, &mut sum)?;
        let mut result = self.evaluator.relinearise_rescale(&sum, self.keys)?;
        // Equal up to the rounding of f64.
        result.scale = scale;
        Ok(result)
    }

    /// Adds `p` to an unrescaled sum `depth - 1` levels below the variable.
    fn add(&self, p: &[f64], depth: usize, sum: &mut Ciphertext) -> Result<(), CkksError> {
        let p = trimmed(p);
        let degree = p.len().saturating_sub(1);
        if is_leaf(degree, self.baby, depth) {
            let terms: Vec<_> = (1..p.len())
                .filter(|&k| p[k] != 0.0)
                .map(|k| (&self.basis[&k], p[k]))
                .collect();
            self.evaluator.add_combination(sum, &terms)?;
            if let Some(&constant) = p.first().filter(|&&c| c != 0.0) {
                self.evaluator
                    .add_const(sum, Complex64::new(constant, 0.0))?;
            }
            return Ok(());
        }
        let m = leading_power(degree);
        let (q, r) = divide(p, m);
        let giant = &self.basis[&m];
        if q.len() == 1 {
            self.evaluator.mul_const_add_assign(sum, giant, q[0])?;
        } else {
            let factor = self.node(&q, depth - 1, sum.scale / giant.scale)?;
            self.evaluator.tensor_add_assign(sum, &factor, giant)?;
        }
        self.add(&r, depth, sum)
    }
}

/// Residues at a time in a linear combination: the sum stays in the first-level cache while the terms stream past.
const TILE: usize = 2048;

impl Evaluator {
    /// `ct *= k` in place, the scale left to the caller.
    pub(crate) fn mul_small_assign(&self, ct: &mut Ciphertext, k: u64) {
        for part in &mut ct.parts {
            self.each_limb(part, ct.level, |_, m, x| {
                ops::mul_scalar_assign(m, x, m.reduce(k))
            });
        }
        count(&self.counters.constants, 1);
    }

    /// `sum += sum_k c_k ct_k`, each constant scaled so that the scales agree: several of [`Self::mul_const_add_assign`] in one pass.
    fn add_combination(
        &self,
        sum: &mut Ciphertext,
        terms: &[(&Ciphertext, f64)],
    ) -> Result<(), CkksError> {
        let integers = terms
            .iter()
            .map(|(ct, c)| to_integer(c * (sum.scale / ct.scale)))
            .collect::<Result<Vec<i128>, _>>()?;
        let level = sum.level;
        for (part, out) in sum.parts.iter_mut().take(2).enumerate() {
            self.each_limb(out, level, |j, m, out| {
                let factors: Vec<u64> = integers.iter().map(|&k| m.from_i128(k)).collect();
                for (t, out) in out.chunks_mut(TILE).enumerate() {
                    for ((ct, _), &factor) in terms.iter().zip(&factors) {
                        let limb = &ct.parts[part].limb(j)[t * TILE..][..out.len()];
                        ops::mul_scalar_add_assign(m, out, limb, factor);
                    }
                }
            });
        }
        count(&self.counters.constants, terms.len());
        count(&self.counters.additions, terms.len());
        Ok(())
    }
}
