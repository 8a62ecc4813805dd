//! Hybrid key switching and relinearisation.
//!
//! To switch a polynomial `c` (level `l`, NTT form) from `s_from` to `s_to`:
//!
//! ```text
//! coefficients of c                                       l + 1 inverse transforms
//! for each digit d:  c mod D_d, centred, to all other limbs of q_0..q_l, p   ("mod-up": exact base conversion)
//!                    transform them; the digit's own limbs are those of c
//! (u_0, u_1) = sum_d digit_d (b_d, a_d)                   over q and p: u_0 + u_1 s_to = P c s_from + noise
//! divide by P with rounding                               ("mod-down": coefficients of the p limbs, centred, to q; subtract; times P^-1)
//! ```
//!
//! The centred digits are exact (no multiples of `D_d` added), so the noise is that of [`crate::noise::key_switch`]. A relinearisation followed
//! by a rescaling divides by `P q_l` in one go, which saves the transforms of one of them ([`Evaluator::mul`]).

use crate::ciphertext::Ciphertext;
use crate::context::{Context, Conversion, limbs_mut};
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::Evaluator;
use crate::keys::{EvaluationKeys, KeyShape, SwitchingKey};
use crate::quadratic::Quadratic;
use rayon::prelude::*;
use std::iter;
use tacit_ring::{Modulus, NttPermutation, NttTable, PackedLimb, RnsPoly, ops};

/// The digits of a polynomial after mod-up. A digit's own limbs are those of the polynomial itself and are not repeated.
pub(crate) struct Digits {
    /// Per digit: all limbs of `q_0..=q_level, p_0..p_{special-1}` except the digit's own, NTT form.
    foreign: Vec<RnsPoly>,
    pub level: usize,
    pub special: usize,
}

impl Digits {
    /// Splits and extends `c` (NTT form, `level + 1` limbs).
    pub fn new(
        ctx: &Context,
        c: &RnsPoly,
        level: usize,
        special: usize,
    ) -> Result<Self, CkksError> {
        let coefficients = ctx.coefficients(c, level);
        let foreign = (0..ctx.params().digits_at(level))
            .map(|digit| {
                let own = ctx.digit_limbs(digit, level);
                let mut out = RnsPoly::unspecified(ctx.n(), level + 1 + special - own.len());
                let from: Vec<&[u64]> = own.clone().map(|i| coefficients.limb(i)).collect();
                ctx.converter(Conversion::Up {
                    digit,
                    level,
                    special,
                })?
                .convert(&from, &mut limbs_mut(&mut out));
                limbs_mut(&mut out)
                    .into_par_iter()
                    .enumerate()
                    .for_each(|(k, limb)| {
                        let j = if k < own.start { k } else { k + own.len() };
                        ctx.table(level, j).forward(limb);
                    });
                Ok(out)
            })
            .collect::<Result<_, CkksError>>()?;
        Ok(Self {
            foreign,
            level,
            special,
        })
    }

    /// Limb `j` of digit `digit` of the polynomial `c` these digits were made from.
    fn limb<'a>(&'a self, ctx: &Context, c: &'a RnsPoly, digit: usize, j: usize) -> &'a [u64] {
        let own = ctx.digit_limbs(digit, self.level);
        if own.contains(&j) {
            c.limb(j)
        } else if j < own.start {
            self.foreign[digit].limb(j)
        } else {
            self.foreign[digit].limb(j - own.len())
        }
    }

    /// `sum_d digit_d (b_d, a_d)` over `q_0..=q_level, p_0..p_{special-1}`.
    pub fn inner_product(
        &self,
        ctx: &Context,
        c: &RnsPoly,
        key: &SwitchingKey,
    ) -> (RnsPoly, RnsPoly) {
        let limbs = self.level + 1 + self.special;
        let (mut u0, mut u1) = (
            RnsPoly::unspecified(ctx.n(), limbs),
            RnsPoly::unspecified(ctx.n(), limbs),
        );
        limbs_mut(&mut u0)
            .into_par_iter()
            .zip(limbs_mut(&mut u1))
            .enumerate()
            .for_each(|(j, (u0, u1))| self.inner_product_limb(ctx, c, key, j, u0, u1));
        (u0, u1)
    }

    /// Limb `j` of [`Self::inner_product`].
    pub fn inner_product_limb(
        &self,
        ctx: &Context,
        c: &RnsPoly,
        key: &SwitchingKey,
        j: usize,
        u0: &mut [u64],
        u1: &mut [u64],
    ) {
        let digits: Vec<&[u64]> = (0..self.foreign.len())
            .map(|d| self.limb(ctx, c, d, j))
            .collect();
        let [b, a] = self.key_limbs(key, j);
        ops::inner_product_pair_packed(ctx.modulus(self.level, j), u0, u1, &digits, &b, &a);
    }

    /// The words of limb `j` of the key's `b_d` and `a_d`: what [`Self::inner_product_limb`] reads from memory.
    pub fn key_words<'k>(&self, key: &'k SwitchingKey, j: usize) -> [Vec<&'k [u64]>; 2] {
        self.key_limbs(key, j)
            .map(|limbs| limbs.iter().map(PackedLimb::words).collect())
    }

    /// Limb `j` of the key's `b_d` and `a_d`.
    fn key_limbs<'k>(&self, key: &'k SwitchingKey, j: usize) -> [Vec<PackedLimb<'k>>; 2] {
        let at = key.limb_at(self.level, j);
        let digits = &key.digits()[..self.foreign.len()];
        [
            digits.iter().map(|(b, _)| b.limb(at)).collect(),
            digits.iter().map(|(_, a)| a.limb(at)).collect(),
        ]
    }
}

/// `round(u / P)`: `u` over `q_0..=q_level, p_0..p_{special-1}` to `q_0..=q_level`. `u` is scratch.
pub(crate) fn mod_down(
    ctx: &Context,
    mut u: RnsPoly,
    level: usize,
    special: usize,
) -> Result<RnsPoly, CkksError> {
    let mut out = RnsPoly::unspecified(ctx.n(), level + 1);
    let converter = ctx.converter(Conversion::Down { level, special })?;
    let (mut q, mut p) = split_limbs(&mut u, level + 1);
    p.par_iter_mut()
        .enumerate()
        .for_each(|(k, limb)| ctx.p_table(k).inverse(limb));
    let from: Vec<&[u64]> = p.iter().map(|limb| &**limb).collect();
    let mut targets = limbs_mut(&mut out);
    converter.convert(&from, &mut targets);
    targets
        .into_par_iter()
        .zip(q.par_iter_mut())
        .enumerate()
        .for_each(|(i, (out, u))| {
            let table = ctx.table(level, i);
            let m = table.modulus();
            table.forward(out);
            // (u - t)/P as (t - u)(-1/P): the result lies where the converted residues were.
            ops::sub_mul_scalar_assign(m, out, u, m.neg(ctx.p_product_inverse(special, i)));
        });
    Ok(out)
}

/// `round(u / (P q_level))`: `u` over `q_0..=q_level, p_0..p_{special-1}` to `q_0..q_level` (exclusive). `u` is scratch.
pub(crate) fn mod_down_rescale(
    ctx: &Context,
    mut u: RnsPoly,
    level: usize,
    special: usize,
) -> Result<RnsPoly, CkksError> {
    let mut out = RnsPoly::unspecified(ctx.n(), level);
    let converter = ctx.converter(Conversion::DownRescale { level, special })?;
    let (mut q, mut tail) = split_limbs(&mut u, level);
    tail.par_iter_mut()
        .enumerate()
        .for_each(|(k, limb)| ctx.table(level, level + k).inverse(limb));
    // The converter's order: special primes, then q_level.
    let from: Vec<&[u64]> = tail[1..]
        .iter()
        .chain(&tail[..1])
        .map(|limb| &**limb)
        .collect();
    let mut targets = limbs_mut(&mut out);
    converter.convert(&from, &mut targets);
    targets
        .into_par_iter()
        .zip(q.par_iter_mut())
        .enumerate()
        .for_each(|(i, (out, u))| {
            let table = ctx.table(level, i);
            let m = table.modulus();
            table.forward(out);
            let factor = m.mul(ctx.p_product_inverse(special, i), ctx.q_inverse(level, i));
            ops::sub_mul_scalar_assign(m, out, u, m.neg(factor));
        });
    Ok(out)
}

/// What becomes of a pair of polynomials over `QP` that is divided by `P`, or by `P q_level`.
#[derive(Clone, Copy)]
pub(crate) struct Division<'a> {
    pub level: usize,
    pub special: usize,
    /// Divide by `q_level` too: the result has one limb less.
    pub rescale: bool,
    /// Added to the two quotients.
    pub addends: [Option<&'a RnsPoly>; 2],
    /// Applied last.
    pub permutation: Option<&'a NttPermutation>,
}

impl Division<'_> {
    /// `round((u_0, u_1)/P)` or `round((u_0, u_1)/(P q_level))`, where `limb(j, u_0, u_1)` writes limb `j` of `q_0..=q_level, p_0..p_{special-1}` and
    /// `reads(j)` is what it reads from memory, in two parts.
    pub fn of<'k>(
        &self,
        ctx: &Context,
        reads: impl Fn(usize) -> [Vec<&'k [u64]>; 2] + Sync,
        limb: impl Fn(usize, &mut [u64], &mut [u64]) + Sync,
    ) -> Result<[RnsPoly; 2], CkksError> {
        let mut one = Division::of_each(
            &[*self],
            ctx,
            |_, j| reads(j),
            |_, j, u0, u1| limb(j, u0, u1),
        )?;
        Ok(one.remove(0))
    }

    /// Several divisions from and to the same levels; `limb(k, j, u_0, u_1)` writes limb `j` of the `k`-th dividend.
    ///
    /// The limbs are made when they are needed and used while they are in the cache: those that are divided away first, then one by one
    /// those that stay, which never go to memory. All dividends go through a limb before the next: what they are made of is read once. What the
    /// next transform and the next product read comes into the cache during the transform before.
    pub fn of_each<'k>(
        divisions: &[Self],
        ctx: &Context,
        reads: impl Fn(usize, usize) -> [Vec<&'k [u64]>; 2] + Sync,
        limb: impl Fn(usize, usize, &mut [u64], &mut [u64]) + Sync,
    ) -> Result<Vec<[RnsPoly; 2]>, CkksError> {
        let Some(&Self {
            level,
            special,
            rescale,
            ..
        }) = divisions.first()
        else {
            return Ok(Vec::new());
        };
        let kept = level + 1 - usize::from(rescale);
        let pairs = |limbs: usize| -> Vec<[RnsPoly; 2]> {
            let pair = |_| [0; 2].map(|_| RnsPoly::unspecified(ctx.n(), limbs));
            (0..divisions.len()).map(pair).collect()
        };
        // What is read after limb `j` of dividend `k`, of limbs up to `end`.
        let next = |k: usize, j: usize, end: usize| match (k + 1 < divisions.len(), j + 1 < end) {
            (true, _) => reads(k + 1, j),
            (false, true) => reads(0, j + 1),
            (false, false) => Default::default(),
        };
        let mut tails = pairs(level + 1 + special - kept);
        by_limb(&mut tails)
            .into_par_iter()
            .enumerate()
            .for_each(|(tail, of_all)| {
                let table = ctx.table(level, kept + tail);
                for (k, (u0, u1)) in of_all.into_iter().enumerate() {
                    limb(k, kept + tail, u0, u1);
                    let next = next(k, kept + tail, level + 1 + special);
                    table.inverse_ahead(u0, &next[0]);
                    table.inverse_ahead(u1, &next[1]);
                }
            });
        let converter = ctx.converter(if rescale {
            Conversion::DownRescale { level, special }
        } else {
            Conversion::Down { level, special }
        })?;
        let mut out = pairs(kept);
        for (tail, out) in tails.iter().flatten().zip(out.iter_mut().flatten()) {
            // The converter's order: special primes, then q_level.
            let first = usize::from(rescale);
            let from: Vec<&[u64]> = (first..tail.limbs())
                .chain(0..first)
                .map(|k| tail.limb(k))
                .collect();
            converter.convert(&from, &mut limbs_mut(out));
        }
        by_limb(&mut out).into_par_iter().enumerate().for_each_init(
            || RnsPoly::unspecified(ctx.n(), 2),
            |scratch, (i, of_all)| {
                let mut scratch = scratch.limbs_iter_mut();
                let (Some(u0), Some(u1)) = (scratch.next(), scratch.next()) else {
                    return;
                };
                let table = ctx.table(level, i);
                let mut factor = ctx.p_product_inverse(special, i);
                if rescale {
                    factor = table.modulus().mul(factor, ctx.q_inverse(level, i));
                }
                let mut of_all = of_all.into_iter().enumerate().peekable();
                while let Some((k, (out0, out1))) = of_all.next() {
                    limb(k, i, u0, u1);
                    let [next0, next1] = next(k, i, kept);
                    let ahead: Vec<&[u64]> = iter::once(&*out1).chain(next0).collect();
                    divisions[k].finish_limb(table, factor, (0, i), out0, u0, &ahead);
                    let following = of_all.peek().map(|(_, (out0, _))| &**out0);
                    let ahead: Vec<&[u64]> = following.into_iter().chain(next1).collect();
                    divisions[k].finish_limb(table, factor, (1, i), out1, u1, &ahead);
                }
            },
        );
        Ok(out)
    }

    /// Limb `i` of one part: `out`, what is divided away modulo `q_i`, as coefficients, becomes `(u - out) factor` plus the addend, permuted; `u` is
    /// scratch afterwards.
    fn finish_limb(
        &self,
        table: &NttTable,
        factor: u64,
        (part, i): (usize, usize),
        out: &mut [u64],
        u: &mut [u64],
        ahead: &[&[u64]],
    ) {
        let m = table.modulus();
        let addend = self.addends[part].map(|poly| poly.limb(i));
        table.forward_ahead(out, ahead);
        if let Some(permutation) = self.permutation {
            ops::sub_mul_scalar_assign(m, u, out, factor);
            if let Some(addend) = addend {
                ops::add_assign(m, u, addend);
            }
            permutation.apply(out, u);
        } else {
            // (u - t)/P as (t - u)(-1/P): the result lies where the converted residues were.
            ops::sub_mul_scalar_assign(m, out, u, m.neg(factor));
            if let Some(addend) = addend {
                ops::add_assign(m, out, addend);
            }
        }
    }
}

/// The limbs of pairs of polynomials, those of one prime together.
fn by_limb(pairs: &mut [[RnsPoly; 2]]) -> Vec<Vec<(&mut [u64], &mut [u64])>> {
    let limbs = pairs.first().map_or(0, |[first, _]| first.limbs());
    let mut out: Vec<Vec<_>> = (0..limbs).map(|_| Vec::new()).collect();
    for [first, second] in pairs {
        let limbs = first.limbs_iter_mut().zip(second.limbs_iter_mut());
        for (of_all, pair) in out.iter_mut().zip(limbs) {
            of_all.push(pair);
        }
    }
    out
}

fn split_limbs(u: &mut RnsPoly, at: usize) -> (Vec<&mut [u64]>, Vec<&mut [u64]>) {
    let mut q = limbs_mut(u);
    let p = q.split_off(at);
    (q, p)
}

/// Errors unless the key serves this level.
pub(crate) fn check_key(ctx: &Context, key: &SwitchingKey, level: usize) -> Result<(), CkksError> {
    let refuse = |reason: String| {
        Err(CkksError::KeyShape {
            level: key.level,
            special: key.special,
            reason,
        })
    };
    if key.level < level {
        return refuse(format!(
            "the ciphertext is at level {level}; generate the key with a shape of at least this level"
        ));
    }
    let KeyShape {
        level: top,
        special,
    } = key.shape();
    if top > ctx.params().max_level()
        || special == 0
        || special > ctx.params().p_len()
        || key.digits.len() != ctx.params().digits_at(top)
    {
        return refuse("the key was made with other parameters".into());
    }
    key.digits.iter().try_for_each(|(b, a)| {
        [b, a].into_iter().try_for_each(|poly| {
            ctx.check_shape("switching key", [poly.n(), poly.limbs()], top, special)
        })
    })
}

impl Evaluator {
    /// The division of `(u_0, u_1)` with `u_0 + u_1 s_to = P c s_from + noise`.
    pub(crate) fn switch(
        &self,
        c: &RnsPoly,
        key: &SwitchingKey,
        division: Division<'_>,
    ) -> Result<[RnsPoly; 2], CkksError> {
        check_key(&self.ctx, key, division.level)?;
        let digits = Digits::new(&self.ctx, c, division.level, key.special)?;
        count(&self.counters.key_switches, 1);
        division.of(
            &self.ctx,
            |j| digits.key_words(key, j),
            |j, u0, u1| digits.inner_product_limb(&self.ctx, c, key, j, u0, u1),
        )
    }

    /// The same message under another secret: from the key's `s_from` to its `s_to`. No level; noise of [`crate::noise::key_switch`].
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] if the key does not serve the level; [`CkksError::Shape`] for a ciphertext of another context or with three parts.
    pub fn key_switch(&self, ct: &Ciphertext, key: &SwitchingKey) -> Result<Ciphertext, CkksError> {
        self.ctx.check_linear(ct)?;
        let division = Division {
            level: ct.level,
            special: key.special,
            rescale: false,
            addends: [Some(&ct.parts[0]), None],
            permutation: None,
        };
        let parts = self.switch(&ct.parts[1], key, division)?;
        Ok(Ciphertext {
            parts: parts.into(),
            level: ct.level,
            scale: ct.scale,
        })
    }

    /// From three parts to two; two parts are returned as they are.
    ///
    /// # Errors
    /// [`CkksError::KeyShape`] if the relinearisation key does not serve the level.
    pub fn relinearise(
        &self,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(ct)?;
        let [d0, d1, d2] = ct.parts.as_slice() else {
            return Ok(ct.clone());
        };
        let key = &keys.relinearisation;
        let division = Division {
            level: ct.level,
            special: key.special,
            rescale: false,
            addends: [Some(d0), Some(d1)],
            permutation: None,
        };
        let parts = self.switch(d2, key, division)?;
        Ok(Ciphertext {
            parts: parts.into(),
            level: ct.level,
            scale: ct.scale,
        })
    }

    /// Relinearisation and rescaling in one: three parts at level `l` to two at `l - 1`, one division by `P q_l`.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`] at level 0; otherwise as [`Self::relinearise`].
    pub fn relinearise_rescale(
        &self,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.ctx.check_ciphertext(ct)?;
        let [d0, d1, d2] = ct.parts.as_slice() else {
            return self.rescale(ct);
        };
        let level = ct.level;
        let parts = self.divide_relinearised(d2, level, keys, |j, m, p, [u0, u1]| {
            ops::mul_scalar_add_assign(m, u0, d0.limb(j), p);
            ops::mul_scalar_add_assign(m, u1, d1.limb(j), p);
        })?;
        Ok(Ciphertext {
            parts: parts.into(),
            level: level - 1,
            scale: ct.scale / self.ctx.params().q(level).value() as f64,
        })
    }

    /// `round((<digits(d_2), key> + P (d_0, d_1)) / (P q_level))` with the relinearisation key, where `add(j, q_j, P mod q_j, u)` adds limb `j` of
    /// `P (d_0, d_1)` to `u` while it is in the cache. Counts a key switch and a rescaling.
    ///
    /// # Errors
    /// As [`Self::relinearise_rescale`].
    pub(crate) fn divide_relinearised(
        &self,
        d2: &RnsPoly,
        level: usize,
        keys: &EvaluationKeys,
        add: impl Fn(usize, &Modulus, u64, [&mut [u64]; 2]) + Sync,
    ) -> Result<[RnsPoly; 2], CkksError> {
        if level == 0 {
            return Err(CkksError::LevelTooLow {
                operation: "rescale",
                found: 0,
                needed: 1,
            });
        }
        let ctx = &*self.ctx;
        let key = &keys.relinearisation;
        check_key(ctx, key, level)?;
        let digits = Digits::new(ctx, d2, level, key.special)?;
        let division = Division {
            level,
            special: key.special,
            rescale: true,
            addends: [None; 2],
            permutation: None,
        };
        let reads = |j| digits.key_words(key, j);
        let parts = division.of(ctx, reads, |j, u0, u1| {
            digits.inner_product_limb(ctx, d2, key, j, u0, u1);
            // P d has residues in the chain only.
            if j <= level {
                let p = ctx.p_product(key.special, j);
                add(j, ctx.modulus(level, j), p, [u0, u1]);
            }
        })?;
        count(&self.counters.key_switches, 1);
        count(&self.counters.rescales, 1);
        Ok(parts)
    }

    /// `u += P d` on the chain limbs (the special limbs of `P d` are 0).
    pub(crate) fn add_times_p(&self, u: &mut RnsPoly, d: &RnsPoly, level: usize, special: usize) {
        limbs_mut(u)
            .into_par_iter()
            .take(level + 1)
            .enumerate()
            .for_each(|(i, u)| {
                ops::mul_scalar_add_assign(
                    self.ctx.modulus(level, i),
                    u,
                    d.limb(i),
                    self.ctx.p_product(special, i),
                );
            });
    }

    /// `a b`: product, relinearisation and rescaling. One level; scale `a.scale b.scale / q_l`.
    ///
    /// # Errors
    /// Those of [`Self::quadratic`].
    pub fn mul(
        &self,
        a: &Ciphertext,
        b: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        self.quadratic(&Quadratic::sum(&[(a, b)])?, keys)
    }

    /// `a^2`: as [`Self::mul`].
    ///
    /// # Errors
    /// As [`Self::mul`].
    pub fn square(&self, a: &Ciphertext, keys: &EvaluationKeys) -> Result<Ciphertext, CkksError> {
        self.mul(a, a, keys)
    }
}
