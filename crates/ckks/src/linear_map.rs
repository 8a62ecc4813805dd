//! Linear maps on slots by diagonals: baby steps hoisted and kept over `QP`, giant steps by Horner's rule.
//!
//! A map with diagonals `d_i` sends `x` to `y[k] = sum_i d_i[k] * x[k + i]`. With `i = offset + stride * (g*B + b)`, `0 <= b < B`,
//!
//! ```text
//! y = rot(offset, sum_g rot(stride*B*g, y_g))          y_g = sum_b d'_{g,b} * rot(stride*b, x)
//!   = rot(offset, y_0 + rot(G, y_1 + rot(G, y_2 + …)))                           G = stride*B
//! ```
//!
//! where `d'_{g,b}[k] = d_i[k - offset - stride*B*g]` (Halevi and Shoup, CRYPTO 2018). What is done once and what is shared:
//!
//! * One decomposition (mod-up) of `x` serves all baby steps. Their results stay multiplied by `P`, over `QP` (double hoisting, Bossuat et
//!   al., EUROCRYPT 2021): the plaintexts are encoded over `QP` too, and the whole map is divided by `P` once.
//! * Horner's rule needs one giant key whatever the number of giant steps. Between the steps only the second polynomial is divided by `P`.
//! * The loop runs limb by limb: the rotated baby steps of one limb stay in cache, and every key is read once.
//!
//! The map consumes one level; with plaintexts encoded at scale `q_level` (the prime that is dropped) the scale is kept exactly.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use num_complex::Complex64;
use rayon::prelude::*;
use tacit_ring::{Modulus, NttPermutation, RnsPoly, galois_of_rotation, ops};

use crate::ciphertext::{Ciphertext, LazyCiphertext};
use crate::context::{Context, limbs_mut};
use crate::counts::count;
use crate::dft::SparseMatrix;
use crate::error::CkksError;
use crate::evaluator::Evaluator;
use crate::hoisting::HoistedCiphertext;
use crate::key_switch::{Digits, check_key, mod_down};
use crate::keys::{EvaluationKeys, KeyShape, SwitchingKey};
use crate::noise;
use crate::parameters::log2_product;
use crate::periodic::{PeriodicEncoder, PeriodicPlaintext};

/// How a [`LinearMap`] is encoded and evaluated.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LinearMapOptions {
    /// Level of the ciphertexts it will be applied to (higher ones are dropped to it).
    pub level: usize,
    /// Special primes of the rotation keys; plaintexts are encoded over them too.
    pub special: usize,
    /// Scale of the plaintexts; `None` stands for `q_level`, with which the map keeps the ciphertext's scale exactly.
    pub scale: Option<f64>,
    /// Number of baby steps; `None` picks the smallest power of two `B` with `B^2` at least twice the number of positions.
    pub baby_steps: Option<usize>,
}

impl LinearMapOptions {
    /// At this level, with the smallest sufficient number of special primes, keeping the scale.
    pub fn at_level(ctx: &Context, level: usize) -> Self {
        Self {
            level,
            special: KeyShape::minimal(ctx.params(), level).special,
            scale: None,
            baby_steps: None,
        }
    }
}

/// Where the diagonals lie on the grid of baby and giant steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Grid {
    offset: i64,
    stride: i64,
    baby: usize,
    giant: usize,
}

impl Grid {
    fn new(indices: &BTreeSet<i64>, baby_steps: Option<usize>) -> Self {
        let lowest = indices.first().copied().unwrap_or(0);
        let offset = lowest.min(0);
        let mut stride = indices.iter().fold(0, |g, &i| gcd(g, i - offset));
        if stride == 0 {
            stride = 1;
        }
        let positions = indices
            .last()
            .map_or(1, |&last| ((last - offset) / stride) as usize + 1);
        let baby = baby_steps
            .unwrap_or_else(|| {
                (0..)
                    .map(|k| 1usize << k)
                    .find(|b| b * b >= 2 * positions)
                    .unwrap_or(1)
            })
            .clamp(1, positions.next_power_of_two());
        Self {
            offset,
            stride,
            baby,
            giant: positions.div_ceil(baby),
        }
    }

    /// (giant, baby) of a diagonal.
    fn place(&self, index: i64) -> (usize, usize) {
        let position = ((index - self.offset) / self.stride) as usize;
        (position / self.baby, position % self.baby)
    }

    fn giant_rotation(&self) -> i64 {
        self.stride * self.baby as i64
    }
}

fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a.abs() } else { gcd(b, a % b) }
}

/// A linear map on slots, its diagonals encoded.
pub struct LinearMap {
    ctx: Arc<Context>,
    level: usize,
    special: usize,
    scale: f64,
    grid: Grid,
    /// `[giant][baby]`.
    plaintexts: Vec<Vec<Option<PeriodicPlaintext>>>,
}

/// Residues at a time for which plaintexts of short period are written out: their rows and the products' stay in the second-level cache.
const TILE: usize = 1024;

impl LinearMap {
    /// Encodes a map by diagonals: `y[k] = sum_i diagonals[i][k mod len_i] * x[(k + i) mod N/2]`. The length of each diagonal is its period, a
    /// power of two of at most `N/2`. Indices may be negative, at the price of one more rotation.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for a diagonal of another length, a level or number of special primes that does not exist, or no diagonals;
    /// [`CkksError::Unencodable`] for values too large for the scale.
    pub fn new(
        ctx: Arc<Context>,
        diagonals: &BTreeMap<i64, Vec<Complex64>>,
        options: LinearMapOptions,
    ) -> Result<Self, CkksError> {
        let LinearMapOptions {
            level,
            special,
            scale,
            baby_steps,
        } = options;
        let shape = KeyShape { level, special };
        shape.check(ctx.params())?;
        if diagonals.is_empty() {
            return Err(CkksError::Shape {
                what: "diagonals of a linear map",
                found: 0,
                expected: "at least one".into(),
            });
        }
        let slots = (ctx.n() / 2) as i64;
        if let Some(&index) = diagonals.keys().find(|i| i.abs() >= slots) {
            return Err(CkksError::Shape {
                what: "index of a diagonal",
                found: index.unsigned_abs() as usize,
                expected: format!("less than {slots}, the number of slots"),
            });
        }
        let scale = scale.unwrap_or_else(|| ctx.params().q(level).value() as f64);
        let grid = Grid::new(&diagonals.keys().copied().collect(), baby_steps);
        let mut encoder = PeriodicEncoder::new(&ctx, level, special);
        diagonals
            .values()
            .try_for_each(|d| encoder.prepare(d.len()))?;
        let encoded: Vec<_> = diagonals
            .par_iter()
            .map(|(&index, d)| {
                let (giant, baby) = grid.place(index);
                let back = grid.offset + grid.giant_rotation() * giant as i64;
                let period = d.len() as i64;
                let moved: Vec<_> = (0..period)
                    .map(|k| d[(k - back).rem_euclid(period) as usize])
                    .collect();
                Ok((giant, baby, encoder.encode(&moved, scale)?))
            })
            .collect::<Result<_, CkksError>>()?;
        let mut plaintexts: Vec<Vec<Option<PeriodicPlaintext>>> = (0..grid.giant)
            .map(|_| (0..grid.baby).map(|_| None).collect())
            .collect();
        for (giant, baby, plaintext) in encoded {
            plaintexts[giant][baby] = Some(plaintext);
        }
        Ok(Self {
            ctx,
            level,
            special,
            scale,
            grid,
            plaintexts,
        })
    }

    /// Encodes a [`SparseMatrix`]; one on `n < N/2` slots acts on vectors of period `n`.
    ///
    /// # Errors
    /// As [`Self::new`]; also if the matrix's number of slots does not divide `N/2`.
    pub fn from_matrix(
        ctx: Arc<Context>,
        matrix: &SparseMatrix,
        options: LinearMapOptions,
    ) -> Result<Self, CkksError> {
        if !(ctx.n() / 2).is_multiple_of(matrix.slots()) {
            return Err(CkksError::Shape {
                what: "slots of a matrix",
                found: matrix.slots(),
                expected: format!("a divisor of {}", ctx.n() / 2),
            });
        }
        Self::new(ctx, matrix.diagonals(), options)
    }

    /// Level of the input; the output is one level below.
    pub fn level(&self) -> usize {
        self.level
    }

    /// Factor on the scale of a ciphertext: `scale/q_level`, 1 for a map that keeps the scale.
    pub fn scale_factor(&self) -> f64 {
        self.scale / self.ctx.params().q(self.level).value() as f64
    }

    /// Shape of the rotation keys.
    pub fn key_shape(&self) -> KeyShape {
        KeyShape {
            level: self.level,
            special: self.special,
        }
    }

    /// Rotations for which keys of [`Self::key_shape`] are needed, without 0.
    pub fn required_rotations(&self) -> BTreeSet<i64> {
        let grid = self.grid;
        let babies = (1..grid.baby)
            .filter(|&b| self.uses_baby(b))
            .map(|b| grid.stride * b as i64);
        let giant = (grid.giant > 1).then(|| grid.giant_rotation());
        let offset = (grid.offset != 0).then_some(grid.offset);
        babies.chain(giant).chain(offset).collect()
    }

    /// Galois elements with shapes of the keys needed.
    pub fn required_keys(&self) -> Vec<(u64, KeyShape)> {
        self.required_rotations()
            .into_iter()
            .map(|r| (galois_of_rotation(self.ctx.n(), r), self.key_shape()))
            .collect()
    }

    /// Bytes of encoded plaintexts.
    pub fn bytes(&self) -> usize {
        self.plaintexts
            .iter()
            .flatten()
            .flatten()
            .map(PeriodicPlaintext::bytes)
            .sum()
    }

    /// Predicted noise of [`Self::apply`]: standard deviation of one coefficient, from that of the input and the root mean square of the
    /// input's (scaled) coefficients.
    ///
    /// With `d` a diagonal times the plaintext scale, `ks` the noise of a key switch before the rounding of its division, and `2p` the
    /// coefficients of a plaintext of period `p`:
    ///
    /// ```text
    /// q_level^2 (out^2 - rounding^2) = sum_all mean|d|^2 input^2 + sum_rotated mean|d|^2 ks^2 + sum_all 2p/12 message^2
    /// ```
    ///
    /// The giant steps' own noise is not multiplied by plaintexts and vanishes against these.
    pub fn noise(&self, input: f64, message: f64) -> f64 {
        let params = self.ctx.params();
        let digits: Vec<f64> = (0..params.digits_at(self.level))
            .map(|d| log2_product(&params.q_moduli()[self.ctx.digit_limbs(d, self.level)]))
            .collect();
        let log2_switch =
            noise::log2_key_inner_product(params.n(), &digits) - params.log_p_of(self.special);
        let key_switch = log2_switch.exp2();
        let mut variance = 0.0;
        for (baby, plaintext) in self
            .plaintexts
            .iter()
            .flat_map(|row| row.iter().enumerate())
            .filter_map(|(baby, p)| p.as_ref().map(|p| (baby, p)))
        {
            let rotated = if baby > 0 { key_switch } else { 0.0 };
            variance += plaintext.mean_square() * (input.powi(2) + rotated.powi(2))
                + plaintext.coefficients() as f64 / 12.0 * message.powi(2);
        }
        let q = params.q(self.level).value() as f64;
        noise::rescale(params.n(), variance.sqrt(), q)
    }

    fn uses_baby(&self, baby: usize) -> bool {
        self.plaintexts.iter().any(|row| row[baby].is_some())
    }
}

impl LinearMap {
    /// Applies the map: one level down, scale times [`Self::scale_factor`]. Higher ciphertexts are dropped to [`Self::level`] first.
    ///
    /// One mod-up, `B - 1` hoisted rotations, one rotation for each further giant step, one division by `P q_level`.
    /// Noise: a key switch for each baby step times the plaintexts' norm, all divided by `q_level`, plus one rounding.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`] for a ciphertext below the level; [`CkksError::MissingKey`] without one of the keys of
    /// [`Self::required_keys`]; [`CkksError::Shape`] for a ciphertext of another context or with three parts.
    pub fn apply(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        evaluator.mod_down_rescale(self.apply_lazy(evaluator, ct, keys)?)
    }

    /// The map without the final division by `P` and rescaling, at [`Self::level`], with the unrescaled scale: several maps can be added.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn apply_lazy(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<LazyCiphertext, CkksError> {
        let dropped;
        let ct = if ct.level == self.level {
            ct
        } else {
            dropped = evaluator.drop_to_level(ct, self.level)?;
            &dropped
        };
        let mut rows = self.giant_rows(evaluator, ct, keys)?;
        let mut acc = rows
            .pop()
            .expect("a linear map has at least one giant step");
        while let Some(row) = rows.pop() {
            acc = self.rotate_lazy(evaluator, acc, self.grid.giant_rotation(), Some(row), keys)?;
        }
        if self.grid.offset != 0 {
            acc = self.rotate_lazy(evaluator, acc, self.grid.offset, None, keys)?;
        }
        Ok(acc)
    }

    fn key<'k>(
        &self,
        keys: &'k EvaluationKeys,
        rotation: i64,
    ) -> Result<&'k SwitchingKey, CkksError> {
        let element = galois_of_rotation(self.ctx.n(), rotation);
        let key = keys.galois_key(element, self.level, Some(self.special)).ok_or_else(|| CkksError::MissingKey {
            operation: "linear map",
            key: format!("Galois key of the rotation by {rotation} (element {element}) with {} special primes", self.special),
            level: self.level,
        })?;
        check_key(&self.ctx, key, self.level)?;
        Ok(key)
    }

    /// `y_g = sum_b d'_{g,b} rot(stride*b, x)` over `QP` for all giant steps `g`.
    fn giant_rows(
        &self,
        evaluator: &Evaluator,
        ct: &Ciphertext,
        keys: &EvaluationKeys,
    ) -> Result<Vec<LazyCiphertext>, CkksError> {
        let ctx = &*self.ctx;
        let hoisted = evaluator.hoist(ct, self.special)?;
        let babies: Vec<usize> = (0..self.grid.baby).filter(|&b| self.uses_baby(b)).collect();
        let rotations = babies
            .iter()
            .filter(|&&b| b > 0)
            .map(|&b| {
                let rotation = self.grid.stride * b as i64;
                Ok((
                    self.key(keys, rotation)?,
                    ctx.permutation(galois_of_rotation(ctx.n(), rotation))?,
                ))
            })
            .collect::<Result<Vec<_>, CkksError>>()?;
        let scale = ct.scale * self.scale;
        let limbs = self.level + 1 + self.special;
        let unspecified = || RnsPoly::unspecified(ctx.n(), limbs);
        let mut rows: Vec<LazyCiphertext> = (0..self.grid.giant)
            .map(|_| LazyCiphertext {
                b: unspecified(),
                a: unspecified(),
                level: self.level,
                special: self.special,
                scale,
            })
            .collect();

        // outputs[limb][giant] = the two limbs to write.
        let mut outputs: Vec<Vec<(&mut [u64], &mut [u64])>> =
            (0..limbs).map(|_| Vec::new()).collect();
        for row in &mut rows {
            for (out, pair) in outputs
                .iter_mut()
                .zip(row.b.limbs_iter_mut().zip(row.a.limbs_iter_mut()))
            {
                out.push(pair);
            }
        }
        let terms: Vec<Vec<(&PeriodicPlaintext, usize)>> = self
            .plaintexts
            .iter()
            .map(|row| {
                let used = babies.iter().enumerate();
                used.filter_map(|(at, &b)| row[b].as_ref().map(|p| (p, at)))
                    .collect()
            })
            .collect();
        outputs.into_par_iter().enumerate().for_each_init(
            || Scratch::new(ctx.n(), babies.len()),
            |scratch, (j, outputs)| {
                scratch.fill(ctx, &hoisted, j, babies.first() == Some(&0), &rotations);
                scratch.combine(ctx.modulus(self.level, j), j, &terms, outputs);
            },
        );
        let products = self.plaintexts.iter().flatten().flatten().count();
        count(&evaluator.counters.key_switches, rotations.len());
        count(&evaluator.counters.rotations, rotations.len());
        count(&evaluator.counters.ct_pt, products);
        count(
            &evaluator.counters.additions,
            products - rows.len().min(products),
        );
        Ok(rows)
    }

    /// `rot(rotation, x)`, plus `row` if there is one, over `QP`: the second polynomial of `x` is divided by `P` and switched, the first one stays as
    /// it is. The products with the key go limb by limb into the sum.
    fn rotate_lazy(
        &self,
        evaluator: &Evaluator,
        x: LazyCiphertext,
        rotation: i64,
        row: Option<LazyCiphertext>,
        keys: &EvaluationKeys,
    ) -> Result<LazyCiphertext, CkksError> {
        let ctx = &*self.ctx;
        let key = self.key(keys, rotation)?;
        let permutation = ctx.permutation(galois_of_rotation(ctx.n(), rotation))?;
        let (level, special, scale) = (x.level, x.special, x.scale);
        let a = mod_down(ctx, x.a, level, special)?;
        let digits = Digits::new(ctx, &a, level, special)?;
        let adds = row.is_some();
        let (mut out_b, mut out_a) = match row {
            Some(row) => (row.b, row.a),
            None => {
                let unspecified = || RnsPoly::unspecified(ctx.n(), level + 1 + special);
                (unspecified(), unspecified())
            }
        };
        limbs_mut(&mut out_b)
            .into_par_iter()
            .zip(limbs_mut(&mut out_a))
            .enumerate()
            .for_each_init(
                || RnsPoly::unspecified(ctx.n(), 3),
                |scratch, (j, (out_b, out_a))| {
                    let mut scratch = scratch.limbs_iter_mut();
                    let (Some(u0), Some(u1), Some(turned)) =
                        (scratch.next(), scratch.next(), scratch.next())
                    else {
                        return;
                    };
                    let m = ctx.modulus(level, j);
                    digits.inner_product_limb(ctx, &a, key, j, u0, u1);
                    ops::add_assign(m, u0, x.b.limb(j));
                    for (out, u) in [(out_b, u0), (out_a, u1)] {
                        if adds {
                            permutation.apply(turned, u);
                            ops::add_assign(m, out, turned);
                        } else {
                            permutation.apply(out, u);
                        }
                    }
                },
            );
        count(&evaluator.counters.key_switches, 1);
        count(&evaluator.counters.rotations, 1);
        count(&evaluator.counters.additions, usize::from(adds));
        Ok(LazyCiphertext {
            b: out_b,
            a: out_a,
            level,
            special,
            scale,
        })
    }
}

/// One limb of all rotated baby steps, and room for plaintexts written out.
struct Scratch {
    /// Limbs `2k`, `2k + 1`: the two polynomials of the `k`-th baby step in use.
    rotated: RnsPoly,
    /// Three limbs: a product with a key before the permutation, and `P` times the first polynomial.
    work: RnsPoly,
    plain: Vec<u64>,
}

impl Scratch {
    fn new(n: usize, babies: usize) -> Self {
        Self {
            rotated: RnsPoly::unspecified(n, 2 * babies),
            work: RnsPoly::unspecified(n, 3),
            plain: vec![0; babies * TILE.min(n)],
        }
    }

    /// The rotated baby steps modulo one prime; the identity first if `identity`.
    fn fill(
        &mut self,
        ctx: &Context,
        hoisted: &HoistedCiphertext<'_>,
        j: usize,
        identity: bool,
        rotations: &[(&SwitchingKey, Arc<NttPermutation>)],
    ) {
        let (level, special) = (hoisted.level(), hoisted.special());
        let m = ctx.modulus(level, j);
        let [b, a] = [0, 1].map(|part| &hoisted.ciphertext().parts[part]);
        let mut work = self.work.limbs_iter_mut();
        let (Some(u0), Some(u1), Some(pb)) = (work.next(), work.next(), work.next()) else {
            return;
        };
        if j <= level {
            ops::mul_scalar(m, pb, b.limb(j), ctx.p_product(special, j));
        }
        let mut rotated = self.rotated.limbs_iter_mut();
        if identity {
            let (Some(out_b), Some(out_a)) = (rotated.next(), rotated.next()) else {
                return;
            };
            if j <= level {
                out_b.copy_from_slice(pb);
                ops::mul_scalar(m, out_a, a.limb(j), ctx.p_product(special, j));
            } else {
                out_b.fill(0);
                out_a.fill(0);
            }
        }
        for (key, permutation) in rotations {
            let (Some(out_b), Some(out_a)) = (rotated.next(), rotated.next()) else {
                return;
            };
            hoisted.inner_product_limb(ctx, key, j, u0, u1);
            if j <= level {
                ops::add_assign(m, u0, pb);
            }
            permutation.apply(out_b, u0);
            permutation.apply(out_a, u1);
        }
    }

    /// For every giant step `outputs[g] = sum plaintext * rotated` over its (plaintext, baby step) pairs.
    fn combine(
        &mut self,
        m: &Modulus,
        j: usize,
        terms: &[Vec<(&PeriodicPlaintext, usize)>],
        mut outputs: Vec<(&mut [u64], &mut [u64])>,
    ) {
        let n = self.work.n();
        let tile = TILE.min(n);
        // The tile of all baby steps stays in the second-level cache for all giant steps.
        for start in (0..n).step_by(tile) {
            let range = start..start + tile;
            for (terms, (out_b, out_a)) in terms.iter().zip(&mut outputs) {
                for ((p, _), plain) in terms.iter().zip(self.plain.chunks_mut(tile)) {
                    if !p.is_full() {
                        p.expand(j, start, plain);
                    }
                }
                let plain: Vec<&[u64]> = terms
                    .iter()
                    .zip(self.plain.chunks(tile))
                    .map(|((p, _), plain)| {
                        if p.is_full() {
                            &p.limb(j)[range.clone()]
                        } else {
                            plain
                        }
                    })
                    .collect();
                let rows = |part: usize| -> Vec<&[u64]> {
                    let limbs = terms
                        .iter()
                        .map(|&(_, at)| self.rotated.limb(2 * at + part));
                    limbs.map(|limb| &limb[range.clone()]).collect()
                };
                ops::inner_product_pair(
                    m,
                    &mut out_b[range.clone()],
                    &mut out_a[range.clone()],
                    &plain,
                    &rows(0),
                    &rows(1),
                );
            }
        }
    }
}
