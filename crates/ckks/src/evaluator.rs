//! Homomorphic arithmetic that needs no keys: sums, products with plaintexts and constants, tensor products, levels and scales.
//!
//! Scales are tracked exactly: a product has the product of the scales, a rescaling divides by the prime it drops. Sums demand scales that
//! agree within [`SCALE_TOLERANCE`]. Of two operands at different levels the higher one is dropped to the lower one's level.

use crate::ciphertext::{Ciphertext, Plaintext};
use crate::context::{Context, limbs_mut};
use crate::counts::{Counters, OpCounts, count};
use crate::error::CkksError;
use num_complex::Complex64;
use rayon::prelude::*;
use std::sync::Arc;
use tacit_ring::{Modulus, RnsPoly, ops};

/// Relative difference of scales up to which operands may be added: `2^-20`, an error below that of 20-bit arithmetic.
pub const SCALE_TOLERANCE: f64 = 1.0 / (1u64 << 20) as f64;

/// Computes on ciphertexts of one context and counts what it does. Cheap to clone; clones share the counters.
///
/// Operations are parallel over limbs within the current rayon pool; results do not depend on the number of threads.
///
/// ```
/// use tacit_ckks::{context::Context, encoder::Encoder, encrypt, evaluator::Evaluator, key_generator::KeyGenerator};
/// use tacit_ckks::parameters::{InsecureParameters, ParametersLiteral};
/// let ctx = Context::new(InsecureParameters::new(ParametersLiteral::levelled(10, 2, 2))?)?;
/// let (encoder, evaluator) = (Encoder::new(ctx.clone()), Evaluator::new(ctx.clone()));
/// let mut generator = KeyGenerator::new(ctx.clone());
/// let secret = generator.secret();
/// let scale = ctx.params().user_scale();
/// let x = encrypt::encrypt_symmetric(&encoder.encode_real(&[0.5, 3.0], scale, 2)?, &secret, &mut tacit_ring::sampling::secure_rng())?;
/// let y = evaluator.rescale(&evaluator.mul_plain(&x, &encoder.encode_real(&[4.0, -1.0], scale, 2)?)?)?;
/// let slots = encoder.decode(&encrypt::decrypt(&y, &secret)?)?;
/// assert!((slots[0].re - 2.0).abs() < 1e-6 && (slots[1].re + 3.0).abs() < 1e-6);
/// # Ok::<(), tacit_ckks::CkksError>(())
/// ```
#[derive(Clone)]
pub struct Evaluator {
    pub(crate) ctx: Arc<Context>,
    pub(crate) counters: Arc<Counters>,
}

/// Words of a limb that a sum of products takes at once.
const DOT_WORDS: usize = 512;

impl Evaluator {
    /// An evaluator with counters at zero.
    pub fn new(ctx: Arc<Context>) -> Self {
        Self {
            ctx,
            counters: Arc::default(),
        }
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// What has been done since the start or the last [`Self::reset_counts`].
    pub fn counts(&self) -> OpCounts {
        self.counters.read()
    }

    /// Sets all counters to zero.
    pub fn reset_counts(&self) {
        self.counters.reset();
    }

    /// Counts a bootstrapping.
    pub fn count_bootstrap(&self) {
        count(&self.counters.bootstraps, 1);
    }

    /// Counts what a ternary layer did: additions and key switches.
    pub(crate) fn count_ternary_layer(&self, additions: u64, key_switches: u64) {
        count(&self.counters.additions, additions as usize);
        count(&self.counters.key_switches, key_switches as usize);
    }

    /// `a + b`. No level; noise variances add.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`]; [`CkksError::Shape`] for operands of another context.
    pub fn add(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        let mut out = self.drop_to_level(a, a.level.min(b.level))?;
        self.add_assign(&mut out, b)?;
        Ok(out)
    }

    /// `a += b`. See [`Self::add`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), CkksError> {
        self.combine(a, b, "add", ops::add_assign, |m, out, b| {
            ops::add_assign(m, out, b)
        })
    }

    /// `a - b`. See [`Self::add`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        let mut out = self.drop_to_level(a, a.level.min(b.level))?;
        self.sub_assign(&mut out, b)?;
        Ok(out)
    }

    /// `a -= b`. See [`Self::add`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub_assign(&self, a: &mut Ciphertext, b: &Ciphertext) -> Result<(), CkksError> {
        self.combine(a, b, "subtract", ops::sub_assign, |m, out, b| {
            ops::sub_assign(m, out, b)
        })
    }

    fn combine(
        &self,
        a: &mut Ciphertext,
        b: &Ciphertext,
        operation: &'static str,
        op: impl Fn(&Modulus, &mut [u64], &[u64]) + Sync,
        onto_zero: impl Fn(&Modulus, &mut [u64], &[u64]) + Sync,
    ) -> Result<(), CkksError> {
        self.ctx.check_ciphertext(a)?;
        self.ctx.check_ciphertext(b)?;
        check_scales(operation, a.scale, b.scale)?;
        drop_in_place(a, b.level.min(a.level));
        let (n, level) = (self.ctx.n(), a.level);
        let common = a.parts.len();
        while a.parts.len() < b.parts.len() {
            a.parts.push(RnsPoly::zero(n, level + 1));
        }
        for (k, (x, y)) in a.parts.iter_mut().zip(&b.parts).enumerate() {
            self.each_limb(x, level, |j, m, x| {
                if k < common {
                    op(m, x, y.limb(j))
                } else {
                    onto_zero(m, x, y.limb(j))
                }
            });
        }
        count(&self.counters.additions, 1);
        Ok(())
    }

    /// `-a`, exactly.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for an operand of another context.
    pub fn neg(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        let mut out = a.clone();
        self.neg_assign(&mut out)?;
        Ok(out)
    }

    /// `a = -a`, exactly.
    ///
    /// # Errors
    /// As [`Self::neg`].
    pub fn neg_assign(&self, a: &mut Ciphertext) -> Result<(), CkksError> {
        self.ctx.check_ciphertext(a)?;
        for part in &mut a.parts {
            self.each_limb(part, a.level, |_, m, x| ops::neg_assign(m, x));
        }
        Ok(())
    }

    /// `a + p` for a plaintext of the same scale; the plaintext must be at least at the ciphertext's level, or the ciphertext is dropped.
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn add_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext, CkksError> {
        self.combine_plain(a, p, "add plaintext", ops::add_assign)
    }

    /// `a - p`. See [`Self::add_plain`].
    ///
    /// # Errors
    /// As [`Self::add`].
    pub fn sub_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext, CkksError> {
        self.combine_plain(a, p, "subtract plaintext", ops::sub_assign)
    }

    fn combine_plain(
        &self,
        a: &Ciphertext,
        p: &Plaintext,
        operation: &'static str,
        op: impl Fn(&Modulus, &mut [u64], &[u64]) + Sync,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_plaintext(p)?;
        check_scales(operation, a.scale, p.scale)?;
        let mut out = self.drop_to_level(a, a.level.min(p.level))?;
        let level = out.level;
        self.each_limb(&mut out.parts[0], level, |j, m, x| op(m, x, p.poly.limb(j)));
        count(&self.counters.additions, 1);
        Ok(out)
    }

    /// Adds a constant to every slot: `round(re * scale) + round(im * scale) X^{N/2}`. No encoding, no noise beyond the rounding.
    ///
    /// # Errors
    /// [`CkksError::Unencodable`] if the constant times the scale is not finite or not below `2^120`.
    pub fn add_const(&self, a: &mut Ciphertext, c: Complex64) -> Result<(), CkksError> {
        self.ctx.check_ciphertext(a)?;
        let (re, im) = (to_integer(c.re * a.scale)?, to_integer(c.im * a.scale)?);
        let (level, half) = (a.level, self.ctx.n() / 2);
        self.each_limb(&mut a.parts[0], level, |j, m, x| {
            let (re, im) = (
                m.from_i128(re),
                m.mul(m.from_i128(im), self.ctx.imaginary_unit(level, j)),
            );
            let (first, second) = x.split_at_mut(half);
            ops::add_scalar_assign(m, first, m.add(re, im));
            ops::add_scalar_assign(m, second, m.sub(re, im));
        });
        count(&self.counters.additions, 1);
        Ok(())
    }

    /// `c a` for a real constant: every residue times the integer `round(c * const_scale)`. The level stays, the scale is multiplied by
    /// `const_scale`.
    ///
    /// # Errors
    /// [`CkksError::Unencodable`] if `c * const_scale` is not finite or not below `2^120`.
    pub fn mul_const(
        &self,
        a: &Ciphertext,
        c: f64,
        const_scale: f64,
    ) -> Result<Ciphertext, CkksError> {
        let mut out = self.mul_integer(a, to_integer(c * const_scale)?)?;
        out.scale *= const_scale;
        Ok(out)
    }

    /// `c a` for a complex constant: `round(re * const_scale) + round(im * const_scale) X^{N/2}`. As [`Self::mul_const`].
    ///
    /// # Errors
    /// As [`Self::mul_const`].
    pub fn mul_const_complex(
        &self,
        a: &Ciphertext,
        c: Complex64,
        const_scale: f64,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(a)?;
        let (re, im) = (
            to_integer(c.re * const_scale)?,
            to_integer(c.im * const_scale)?,
        );
        let half = self.ctx.n() / 2;
        let parts = self.map_parts(a, |j, m, out, x| {
            let (re, im) = (
                m.from_i128(re),
                m.mul(m.from_i128(im), self.ctx.imaginary_unit(a.level, j)),
            );
            ops::mul_scalar(m, &mut out[..half], &x[..half], m.add(re, im));
            ops::mul_scalar(m, &mut out[half..], &x[half..], m.sub(re, im));
        });
        count(&self.counters.constants, 1);
        Ok(Ciphertext {
            parts,
            level: a.level,
            scale: a.scale * const_scale,
        })
    }

    /// `k a` for an integer; scale and level stay.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for an operand of another context.
    pub fn mul_integer(&self, a: &Ciphertext, k: i128) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(a)?;
        let parts = self.map_parts(a, |_, m, out, x| ops::mul_scalar(m, out, x, m.from_i128(k)));
        count(&self.counters.constants, 1);
        Ok(Ciphertext {
            parts,
            level: a.level,
            scale: a.scale,
        })
    }

    /// `acc += c a` with `round(c * acc.scale / a.scale)`: the constant takes whatever scale makes the sum exact. `a` may be at a higher level
    /// than `acc`.
    ///
    /// # Errors
    /// As [`Self::mul_const`]; [`CkksError::LevelTooLow`] if `a` is below `acc`.
    pub fn mul_const_add_assign(
        &self,
        acc: &mut Ciphertext,
        a: &Ciphertext,
        c: f64,
    ) -> Result<(), CkksError> {
        self.ctx.check_ciphertext(acc)?;
        self.ctx.check_ciphertext(a)?;
        if a.level < acc.level {
            return Err(CkksError::LevelTooLow {
                operation: "multiply by a constant and add",
                found: a.level,
                needed: acc.level,
            });
        }
        let k = to_integer(c * (acc.scale / a.scale))?;
        while acc.parts.len() < a.parts.len() {
            acc.parts.push(RnsPoly::zero(self.ctx.n(), acc.level + 1));
        }
        for (x, y) in acc.parts.iter_mut().zip(&a.parts) {
            self.each_limb(x, acc.level, |j, m, x| {
                ops::mul_scalar_add_assign(m, x, y.limb(j), m.from_i128(k))
            });
        }
        count(&self.counters.constants, 1);
        count(&self.counters.additions, 1);
        Ok(())
    }

    /// `i a`, exactly: multiplication by `X^{N/2}`. Neither level nor scale.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for an operand of another context.
    pub fn mul_i(&self, a: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(a)?;
        let half = self.ctx.n() / 2;
        let parts = self.map_parts(a, |j, m, out, x| {
            let i = self.ctx.imaginary_unit(a.level, j);
            ops::mul_scalar(m, &mut out[..half], &x[..half], i);
            ops::mul_scalar(m, &mut out[half..], &x[half..], m.neg(i));
        });
        Ok(Ciphertext {
            parts,
            level: a.level,
            scale: a.scale,
        })
    }

    /// `a p` for a plaintext: scales multiply, no level until the rescaling. The plaintext may be at a higher level.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for operands of another context.
    pub fn mul_plain(&self, a: &Ciphertext, p: &Plaintext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(a)?;
        self.ctx.check_plaintext(p)?;
        let level = a.level.min(p.level);
        let parts = a
            .parts
            .iter()
            .map(|x| {
                let mut out = RnsPoly::unspecified(self.ctx.n(), level + 1);
                self.each_limb(&mut out, level, |j, m, out| {
                    ops::mul(m, out, x.limb(j), p.poly.limb(j))
                });
                out
            })
            .collect();
        count(&self.counters.ct_pt, 1);
        Ok(Ciphertext {
            parts,
            level,
            scale: a.scale * p.scale,
        })
    }

    /// A ciphertext of three parts, whose limbs `each(j, q_j, parts)` writes.
    fn three_parts(
        &self,
        level: usize,
        scale: f64,
        each: impl Fn(usize, &Modulus, [&mut [u64]; 3]) + Sync,
    ) -> Ciphertext {
        let mut parts = [(); 3].map(|()| RnsPoly::unspecified(self.ctx.n(), level + 1));
        let [d0, d1, d2] = &mut parts;
        limbs_mut(d0)
            .into_par_iter()
            .zip(limbs_mut(d1))
            .zip(limbs_mut(d2))
            .enumerate()
            .for_each(|(j, ((d0, d1), d2))| each(j, self.ctx.modulus(level, j), [d0, d1, d2]));
        Ciphertext {
            parts: parts.into(),
            level,
            scale,
        }
    }

    /// The product before relinearisation: `(a_0 b_0, a_0 b_1 + a_1 b_0, a_1 b_1)`. Scales multiply.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for operands of another context or with three parts.
    pub fn mul_tensor(&self, a: &Ciphertext, b: &Ciphertext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_linear(a)?;
        self.ctx.check_linear(b)?;
        let level = a.level.min(b.level);
        let product = self.three_parts(level, a.scale * b.scale, |j, m, [d0, d1, d2]| {
            let (a0, a1, b0, b1) = (
                a.parts[0].limb(j),
                a.parts[1].limb(j),
                b.parts[0].limb(j),
                b.parts[1].limb(j),
            );
            ops::mul(m, d0, a0, b0);
            ops::inner_product(m, d1, &[a0, a1], &[b1, b0]);
            ops::mul(m, d2, a1, b1);
        });
        count(&self.counters.ct_ct, 1);
        Ok(product)
    }

    /// `sum_k a_k b_k` without relinearisation, at the lowest level among the operands: three parts, each residue reduced once.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for no terms or operands that are not linear; [`CkksError::ScaleMismatch`] if the products' scales differ.
    pub fn dot_tensor(
        &self,
        terms: &[(&Ciphertext, &Ciphertext)],
    ) -> Result<Ciphertext, CkksError> {
        let Some((first, second)) = terms.first() else {
            return Err(CkksError::Shape {
                what: "terms of a sum of products",
                found: 0,
                expected: "at least one".into(),
            });
        };
        let scale = first.scale * second.scale;
        let mut level = usize::MAX;
        for (a, b) in terms {
            self.ctx.check_linear(a)?;
            self.ctx.check_linear(b)?;
            check_scales("add a product", scale, a.scale * b.scale)?;
            level = level.min(a.level).min(b.level);
        }
        let sum = self.three_parts(level, scale, |j, m, [d0, d1, d2]| {
            let limbs = |part: usize, left: bool| {
                terms.iter().map(move |(a, b)| {
                    let ct = if left { a } else { b };
                    ct.parts[part].limb(j)
                })
            };
            let a: Vec<&[u64]> = limbs(0, true).chain(limbs(1, true)).collect();
            let b: Vec<&[u64]> = limbs(1, false).chain(limbs(0, false)).collect();
            let k = terms.len();
            // a piece of all operands at a time stays in the cache for the three sums
            let pieces = d0
                .chunks_mut(DOT_WORDS)
                .zip(d1.chunks_mut(DOT_WORDS))
                .zip(d2.chunks_mut(DOT_WORDS));
            for (at, ((d0, d1), d2)) in pieces.enumerate() {
                let here = at * DOT_WORDS..at * DOT_WORDS + d0.len();
                let a: Vec<&[u64]> = a.iter().map(|x| &x[here.clone()]).collect();
                let b: Vec<&[u64]> = b.iter().map(|x| &x[here.clone()]).collect();
                ops::inner_product(m, d0, &a[..k], &b[k..]);
                ops::inner_product(m, d1, &a, &b);
                ops::inner_product(m, d2, &a[k..], &b[..k]);
            }
        });
        count(&self.counters.ct_ct, terms.len());
        count(&self.counters.additions, terms.len() - 1);
        Ok(sum)
    }

    /// The same message at a lower level: upper limbs are forgotten. Exact.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`] if the ciphertext is below that level.
    pub fn drop_to_level(&self, a: &Ciphertext, level: usize) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(a)?;
        if a.level < level {
            return Err(CkksError::LevelTooLow {
                operation: "drop to a level",
                found: a.level,
                needed: level,
            });
        }
        let parts = a.parts.iter().map(|p| p.prefix(level + 1)).collect();
        Ok(Ciphertext {
            parts,
            level,
            scale: a.scale,
        })
    }

    /// Declares another scale: multiplies the message by `old / new` for free.
    ///
    /// # Errors
    /// [`CkksError::Unencodable`] if the scale is not finite and positive.
    pub fn set_scale(&self, a: &mut Ciphertext, scale: f64) -> Result<(), CkksError> {
        if !(scale.is_finite() && scale > 0.0) {
            return Err(CkksError::Unencodable {
                index: 0,
                value: scale,
                expected: "a scale that is finite and positive".into(),
            });
        }
        a.scale = scale;
        Ok(())
    }

    /// A new polynomial for every part of `a`, limb by limb: `f(limb, modulus, out, in)`.
    fn map_parts(
        &self,
        a: &Ciphertext,
        f: impl Fn(usize, &Modulus, &mut [u64], &[u64]) + Sync,
    ) -> Vec<RnsPoly> {
        a.parts
            .iter()
            .map(|x| {
                let mut out = RnsPoly::unspecified(self.ctx.n(), a.level + 1);
                self.each_limb(&mut out, a.level, |j, m, out| f(j, m, out, x.limb(j)));
                out
            })
            .collect()
    }

    /// `f(limb, modulus, residues)` on every limb, in parallel.
    pub(crate) fn each_limb(
        &self,
        poly: &mut RnsPoly,
        level: usize,
        f: impl Fn(usize, &Modulus, &mut [u64]) + Sync,
    ) {
        limbs_mut(poly)
            .into_par_iter()
            .enumerate()
            .for_each(|(j, limb)| f(j, self.ctx.modulus(level, j), limb));
    }
}

fn drop_in_place(a: &mut Ciphertext, level: usize) {
    if a.level > level {
        for part in &mut a.parts {
            part.truncate(level + 1);
        }
        a.level = level;
    }
}

/// Errors unless the scales agree within [`SCALE_TOLERANCE`].
pub(crate) fn check_scales(
    operation: &'static str,
    left: f64,
    right: f64,
) -> Result<(), CkksError> {
    if (left - right).abs() <= SCALE_TOLERANCE * left.abs().max(right.abs()) {
        return Ok(());
    }
    Err(CkksError::ScaleMismatch {
        operation,
        left,
        right,
    })
}

/// The nearest integer, if below `2^120`.
pub(crate) fn to_integer(x: f64) -> Result<i128, CkksError> {
    if x.abs() < 2f64.powi(120) {
        return Ok(x.round_ties_even() as i128);
    }
    Err(CkksError::Unencodable {
        index: 0,
        value: x,
        expected: "a finite constant below 2^120 after scaling".into(),
    })
}
