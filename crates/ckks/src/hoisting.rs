//! Rotations and conjugation: one at a time, several of one ciphertext (hoisting), and without the division by `P` (double hoisting).
//!
//! The automorphism `X -> X^g` sends `(b, a)` under `s` to `(b(X^g), a(X^g))` under `s(X^g)`. The Galois key of `g` switches from `s` to
//! `s(X^{1/g})`, so
//!
//! ```text
//! (u_0, u_1) = <digits(a), key>,    u_0 + u_1 s(X^{1/g}) = P a s
//! result     = (b + u_0/P, u_1/P) with X -> X^g applied to both
//! ```
//!
//! Decomposition and mod-up of `a` do not depend on `g`: for several rotations they are done once ([`Evaluator::hoist`]), and each rotation
//! costs an inner product, a division by `P` and two permutations. What stays over `QP` ([`LazyCiphertext`]) saves the division too
//! (Bossuat, Mouchet, Troncoso-Pastoriza and Hubaux, ePrint 2020/1203).

use crate::ciphertext::{Ciphertext, LazyCiphertext};
use crate::context::{Context, limbs_mut};
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, check_scales};
use crate::key_switch::{Digits, Division, check_key, mod_down, mod_down_rescale};
use crate::keys::{EvaluationKeys, SwitchingKey};
use rayon::prelude::*;
use tacit_ring::{RnsPoly, galois_conjugation, galois_of_rotation, ops};

/// Rotations of one ciphertext that share what they read, limb by limb; each holds `2 special` limbs meanwhile.
const AT_ONCE: usize = 8;

/// A ciphertext whose second part has been decomposed and extended, ready for many rotations.
pub struct HoistedCiphertext<'a> {
    ct: &'a Ciphertext,
    digits: Digits,
}

impl HoistedCiphertext<'_> {
    /// The ciphertext this was made from.
    pub fn ciphertext(&self) -> &Ciphertext {
        self.ct
    }

    /// Level.
    pub fn level(&self) -> usize {
        self.digits.level
    }

    /// Number of special primes: only keys with the same number fit.
    pub fn special(&self) -> usize {
        self.digits.special
    }

    /// Limb `j` of `<digits, key>` over `q_0..=q_level, p_0…`: for loops that keep one limb of many rotations in cache.
    pub(crate) fn inner_product_limb(
        &self,
        ctx: &Context,
        key: &SwitchingKey,
        j: usize,
        u0: &mut [u64],
        u1: &mut [u64],
    ) {
        self.digits
            .inner_product_limb(ctx, &self.ct.parts[1], key, j, u0, u1);
    }
}

impl Evaluator {
    /// Rotates the slots to the left: slot `j` of the result is slot `j + steps` (cyclically). No level; noise of [`crate::noise::key_switch`].
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] without a Galois key for this rotation and level.
    pub fn rotate(
        &self,
        ct: &Ciphertext,
        steps: i64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.automorphism(ct, galois_of_rotation(self.ctx.n(), steps), keys)
    }

    /// Conjugates every slot. As [`Self::rotate`].
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] without a key for the conjugation.
    pub fn conjugate(
        &self,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.automorphism(ct, galois_conjugation(self.ctx.n()), keys)
    }

    /// Applies `X -> X^element`.
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] without a Galois key for this element and level.
    pub fn automorphism(
        &self,
        ct: &Ciphertext,
        element: u64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_linear(ct)?;
        if element == 1 {
            return Ok(ct.clone());
        }
        let key = self.find_key(keys, element, ct.level, None)?;
        self.automorphism_with(ct, element, key)
    }

    /// Applies `X -> X^element` with a given Galois key of that element.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] if the key does not serve the level.
    pub fn automorphism_with(
        &self,
        ct: &Ciphertext,
        element: u64,
        key: &SwitchingKey,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_linear(ct)?;
        let permutation = self.ctx.permutation(element)?;
        let division = Division {
            level: ct.level,
            special: key.special,
            rescale: false,
            addends: [Some(&ct.parts[0]), None],
            permutation: Some(&permutation),
        };
        let parts = self.switch(&ct.parts[1], key, division)?;
        count(&self.counters.rotations, 1);
        Ok(Ciphertext {
            parts: parts.into(),
            level: ct.level,
            scale: ct.scale,
        })
    }

    /// Decomposes and extends once, for keys with `special` special primes.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] for a number of special primes that does not exist; [`CkksError::Shape`] for a ciphertext of another context.
    pub fn hoist<'a>(
        &self,
        ct: &'a Ciphertext,
        special: usize,
    ) -> Result<HoistedCiphertext<'a>, CkksError> {
        self.ctx.check_linear(ct)?;
        if special == 0 || special > self.ctx.params().p_len() {
            let reason = format!(
                "there are 1 to {} special primes to choose",
                self.ctx.params().p_len()
            );
            return Err(CkksError::KeyShape {
                level: ct.level,
                special,
                reason,
            });
        }
        Ok(HoistedCiphertext {
            ct,
            digits: Digits::new(&self.ctx, &ct.parts[1], ct.level, special)?,
        })
    }

    /// Several rotations of one ciphertext: equal to [`Self::rotate`] of each, for one decomposition.
    ///
    /// # Errors
    /// [`CkksError::MissingKey`] without a Galois key of the hoisted number of special primes for each of them.
    pub fn rotate_hoisted(
        &self,
        hoisted: &HoistedCiphertext<'_>,
        steps: &[i64],
        keys: &EvaluationKeys,
    ) -> Result<Vec<Ciphertext>, CkksError> {
        let elements: Vec<u64> = steps
            .iter()
            .map(|&steps| galois_of_rotation(self.ctx.n(), steps))
            .collect();
        self.automorphisms_hoisted(hoisted, &elements, keys)
    }

    /// Several automorphisms of a hoisted ciphertext.
    ///
    /// # Errors
    /// As [`Self::rotate_hoisted`].
    pub fn automorphisms_hoisted(
        &self,
        hoisted: &HoistedCiphertext<'_>,
        elements: &[u64],
        keys: &EvaluationKeys,
    ) -> Result<Vec<Ciphertext>, CkksError> {
        let ct = hoisted.ct;
        let (level, special) = (hoisted.level(), hoisted.special());
        let mut out = Vec::with_capacity(elements.len());
        for elements in elements.chunks(AT_ONCE) {
            let switched = elements
                .iter()
                .filter(|&&element| element != 1)
                .map(|&element| {
                    let key = self.find_key(keys, element, level, Some(special))?;
                    check_key(&self.ctx, key, level)?;
                    Ok((key, self.ctx.permutation(element)?))
                })
                .collect::<Result<Vec<_>, CkksError>>()?;
            let divisions: Vec<Division<'_>> = switched
                .iter()
                .map(|(_, permutation)| Division {
                    level,
                    special,
                    rescale: false,
                    addends: [Some(&ct.parts[0]), None],
                    permutation: Some(permutation),
                })
                .collect();
            let mut rotated = Division::of_each(
                &divisions,
                &self.ctx,
                |k, j| hoisted.digits.key_words(switched[k].0, j),
                |k, j, u0, u1| {
                    hoisted.inner_product_limb(&self.ctx, switched[k].0, j, u0, u1);
                },
            )?
            .into_iter();
            count(&self.counters.key_switches, switched.len());
            count(&self.counters.rotations, switched.len());
            out.extend(elements.iter().map(|&element| match element {
                1 => ct.clone(),
                _ => Ciphertext {
                    parts: rotated.next().map(Vec::from).unwrap_or_default(),
                    level,
                    scale: ct.scale,
                },
            }));
        }
        Ok(out)
    }

    /// Several rotations of one ciphertext that stay over `QP`: no division by `P`.
    ///
    /// # Errors
    /// As [`Self::rotate_hoisted`].
    pub fn rotate_hoisted_lazy(
        &self,
        hoisted: &HoistedCiphertext<'_>,
        steps: &[i64],
        keys: &EvaluationKeys,
    ) -> Result<Vec<LazyCiphertext>, CkksError> {
        steps
            .iter()
            .map(|&steps| {
                self.automorphism_hoisted_lazy(
                    hoisted,
                    galois_of_rotation(self.ctx.n(), steps),
                    keys,
                )
            })
            .collect()
    }

    /// One automorphism of a hoisted ciphertext that stays over `QP`.
    ///
    /// # Errors
    /// As [`Self::rotate_hoisted`].
    pub fn automorphism_hoisted_lazy(
        &self,
        hoisted: &HoistedCiphertext<'_>,
        element: u64,
        keys: &EvaluationKeys,
    ) -> Result<LazyCiphertext, CkksError> {
        let (ct, level, special) = (hoisted.ct, hoisted.level(), hoisted.special());
        if element == 1 {
            return self.lift(ct, special);
        }
        let permutation = self.ctx.permutation(element)?;
        let key = self.find_key(keys, element, level, Some(special))?;
        check_key(&self.ctx, key, level)?;
        let (mut u0, u1) = hoisted.digits.inner_product(&self.ctx, &ct.parts[1], key);
        self.add_times_p(&mut u0, &ct.parts[0], level, special);
        count(&self.counters.key_switches, 1);
        count(&self.counters.rotations, 1);
        let permuted = |u: &RnsPoly| {
            let mut out = RnsPoly::unspecified(self.ctx.n(), u.limbs());
            limbs_mut(&mut out)
                .into_par_iter()
                .enumerate()
                .for_each(|(j, out)| permutation.apply(out, u.limb(j)));
            out
        };
        Ok(LazyCiphertext {
            b: permuted(&u0),
            a: permuted(&u1),
            level,
            special,
            scale: ct.scale,
        })
    }

    /// `P` times a ciphertext: the lazy form of the identity rotation. Exact.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for a ciphertext of another context or with three parts.
    pub fn lift(&self, ct: &Ciphertext, special: usize) -> Result<LazyCiphertext, CkksError> {
        self.ctx.check_linear(ct)?;
        let mut out = self.lazy_zero(ct.level, special, ct.scale)?;
        self.add_times_p(&mut out.b, &ct.parts[0], ct.level, special);
        self.add_times_p(&mut out.a, &ct.parts[1], ct.level, special);
        Ok(out)
    }

    /// The lazy zero ciphertext: the start of a sum.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for a level or number of special primes that does not exist.
    pub fn lazy_zero(
        &self,
        level: usize,
        special: usize,
        scale: f64,
    ) -> Result<LazyCiphertext, CkksError> {
        let zero = || RnsPoly::zero(self.ctx.n(), level + 1 + special);
        let out = LazyCiphertext {
            b: zero(),
            a: zero(),
            level,
            special,
            scale,
        };
        self.ctx.check_lazy(&out)?;
        Ok(out)
    }

    /// `acc += x`.
    ///
    /// # Errors
    /// [`CkksError::ScaleMismatch`], or [`CkksError::Shape`] for different levels or special primes.
    pub fn lazy_add_assign(
        &self,
        acc: &mut LazyCiphertext,
        x: &LazyCiphertext,
    ) -> Result<(), CkksError> {
        self.check_same_lazy(acc, x)?;
        check_scales("add", acc.scale, x.scale)?;
        let level = acc.level;
        self.each_limb(&mut acc.b, level, |j, m, b| {
            ops::add_assign(m, b, x.b.limb(j))
        });
        self.each_limb(&mut acc.a, level, |j, m, a| {
            ops::add_assign(m, a, x.a.limb(j))
        });
        count(&self.counters.additions, 1);
        Ok(())
    }

    /// `acc += c` for an ordinary ciphertext, times `P`.
    ///
    /// # Errors
    /// As [`Self::lazy_add_assign`]; the ciphertext must be at least at the level of `acc`.
    pub fn lazy_add_ciphertext_assign(
        &self,
        acc: &mut LazyCiphertext,
        ct: &Ciphertext,
    ) -> Result<(), CkksError> {
        self.ctx.check_lazy(acc)?;
        self.ctx.check_linear(ct)?;
        check_scales("add", acc.scale, ct.scale)?;
        if ct.level < acc.level {
            return Err(CkksError::LevelTooLow {
                operation: "add to a lazy ciphertext",
                found: ct.level,
                needed: acc.level,
            });
        }
        let (level, special) = (acc.level, acc.special);
        self.add_times_p(&mut acc.b, &ct.parts[0], level, special);
        self.add_times_p(&mut acc.a, &ct.parts[1], level, special);
        count(&self.counters.additions, 1);
        Ok(())
    }

    /// `x p` for a plaintext over `QP` ([`crate::encoder::Encoder::encode_qp`]) of scale `plain_scale`.
    ///
    /// # Errors
    /// As [`Self::lazy_inner_product`].
    pub fn lazy_mul_plain(
        &self,
        x: &LazyCiphertext,
        p: &RnsPoly,
        plain_scale: f64,
    ) -> Result<LazyCiphertext, CkksError> {
        self.lazy_inner_product(&[x], &[p], plain_scale)
    }

    /// `sum_k x_k p_k`: lazy ciphertexts of one scale with plaintexts over `QP` of scale `plain_scale`, accumulated without intermediate
    /// reductions. Scale `x.scale plain_scale`.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for no terms, unequal numbers, or operands of different levels; [`CkksError::ScaleMismatch`].
    pub fn lazy_inner_product(
        &self,
        x: &[&LazyCiphertext],
        p: &[&RnsPoly],
        plain_scale: f64,
    ) -> Result<LazyCiphertext, CkksError> {
        if x.is_empty() || x.len() != p.len() {
            let expected = format!("as many as ciphertexts ({}), at least one", x.len());
            return Err(CkksError::Shape {
                what: "plaintexts of an inner product",
                found: p.len(),
                expected,
            });
        }
        let (level, special) = (x[0].level, x[0].special);
        for (x_k, p_k) in x.iter().zip(p) {
            self.check_same_lazy(x[0], x_k)?;
            check_scales("inner product", x[0].scale, x_k.scale)?;
            self.ctx
                .check_poly("plaintext over QP", p_k, level, special)?;
        }
        let unwritten = || RnsPoly::unspecified(self.ctx.n(), level + 1 + special);
        let (mut b, mut a) = (unwritten(), unwritten());
        limbs_mut(&mut b)
            .into_par_iter()
            .zip(limbs_mut(&mut a))
            .enumerate()
            .for_each(|(j, (b, a))| {
                let plain: Vec<&[u64]> = p.iter().map(|p| p.limb(j)).collect();
                let bs: Vec<&[u64]> = x.iter().map(|x| x.b.limb(j)).collect();
                let as_: Vec<&[u64]> = x.iter().map(|x| x.a.limb(j)).collect();
                ops::inner_product_pair(self.ctx.modulus(level, j), b, a, &plain, &bs, &as_);
            });
        count(&self.counters.ct_pt, x.len());
        count(&self.counters.additions, x.len() - 1);
        Ok(LazyCiphertext {
            b,
            a,
            level,
            special,
            scale: x[0].scale * plain_scale,
        })
    }

    /// Divides by `P`: the ordinary ciphertext.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for a value of another context.
    pub fn mod_down(&self, x: LazyCiphertext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_lazy(&x)?;
        let b = mod_down(&self.ctx, x.b, x.level, x.special)?;
        let a = mod_down(&self.ctx, x.a, x.level, x.special)?;
        Ok(Ciphertext {
            parts: vec![b, a],
            level: x.level,
            scale: x.scale,
        })
    }

    /// Divides by `P` and rescales in one: level `l - 1`, scale divided by `q_l`.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`] at level 0; [`CkksError::Shape`] for a value of another context.
    pub fn mod_down_rescale(&self, x: LazyCiphertext) -> Result<Ciphertext, CkksError> {
        self.ctx.check_lazy(&x)?;
        if x.level == 0 {
            return Err(CkksError::LevelTooLow {
                operation: "rescale",
                found: 0,
                needed: 1,
            });
        }
        let parts = vec![
            mod_down_rescale(&self.ctx, x.b, x.level, x.special)?,
            mod_down_rescale(&self.ctx, x.a, x.level, x.special)?,
        ];
        count(&self.counters.rescales, 1);
        Ok(Ciphertext {
            parts,
            level: x.level - 1,
            scale: x.scale / self.ctx.params().q(x.level).value() as f64,
        })
    }

    fn check_same_lazy(&self, a: &LazyCiphertext, b: &LazyCiphertext) -> Result<(), CkksError> {
        self.ctx.check_lazy(a)?;
        self.ctx.check_lazy(b)?;
        if (a.level, a.special) != (b.level, b.special) {
            return Err(CkksError::Shape {
                what: "level of a lazy ciphertext",
                found: b.level,
                expected: format!(
                    "level {} with {} special primes, as the other operand",
                    a.level, a.special
                ),
            });
        }
        Ok(())
    }

    fn find_key<'k>(
        &self,
        keys: &'k EvaluationKeys,
        element: u64,
        level: usize,
        special: Option<usize>,
    ) -> Result<&'k SwitchingKey, CkksError> {
        keys.galois_key(element, level, special)
            .ok_or_else(|| CkksError::MissingKey {
                operation: "automorphism",
                key: match special {
                    Some(special) => {
                        format!("Galois key of element {element} with {special} special primes")
                    }
                    None => format!("Galois key of element {element}"),
                },
                level,
            })
    }
}
