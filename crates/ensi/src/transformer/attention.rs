//! Causal sigmoid attention on packed heads.
//!
//! Let `d` be the head size, `F` the power of two at or above `d/2`, `T` the tokens of the window, `R = T/F` and `G` the heads of a
//! group: `T*G` blocks fill a ciphertext. Block `(r, f, h)` is number `p*G + h` with `p = r*F + f`. A query or key pair
//! `(x_f, x_{f+d/2})`, which RoPE turns together, is one complex slot, so RoPE is a product with `e^(i theta_f t)`; pairs from `d/2` on
//! are zero.
//!
//! Scores by diagonals: slot `(p, h, t)` of one ciphertext holds `q_t · k_{t-p}`, the score of the key `p` tokens back.
//!
//! 1. *Select*: `Q[p,h,t] = conj q_f[t]` from the ciphertext in which the linear layer left it (conjugated by the sign of its rows), with
//!    `R` rotations and masks; RoPE is in the masks.
//! 2. *Stagger*: `K[p,h,t] = k_f[(t - p) mod T]`, each pair delayed by its own `p`, in two stages of about `sqrt F` rotations; RoPE is in
//!    the masks of the first. Where `t < p` it is zero, but in the last replica, where the wrapped tokens are kept.
//! 3. *Scores*: with `K` moved along pairs and tokens together, and `Q` along pairs,
//!    `S[p,h,t] = sum_s Q[p-s,h,t] K[p-s,h,t-s] = sum_f conj(q_f[t]) k_f[t-p]`: every slot is a score, and all `F` products are added
//!    before one relinearisation. A delay that would leave its block at the left (`t < s`, only for `p < s`) is read from the same ciphertext
//!    moved by a block more; masks choose, and leave zero where causality forbids.
//! 4. `A = sigmoid(Re S + bias)`: one polynomial on one ciphertext.
//! 5. *Values*: `a[f,h,t] = sum_r sum_s A[p+s,h,t] V[p,h,t-s]` with `V` staggered like `K`; one relinearisation for all products, then the
//!    sum over `r`.
//!
//! The `F` rotations by multiples of one step are taken as baby and giant steps: about `2 sqrt F` keys. Heads that share keys and values
//! (grouped queries) share their staggered and moved ciphertexts. Nothing is broadcast, and causality costs the scores no level.
//!
//! Levels: stagger 2 (select and scale of the queries beside it), masks and product 2, sigmoid `ceil(log2(degree+1))` and its squarings, masks and product 2.
//! Operations for a group: `6 F + O(sqrt F)` rotations of which all but `O(sqrt F)` are hoisted, `4 F` masks, `2 F` products,
//! two relinearisations.

use num_complex::Complex64;
use tacit_bitnet::{ChebyshevSeries, LayerCalibration};

use crate::{
    EnsiError,
    layout::Layout,
    machine::{Machine, Mask, series_depth},
    transformer::norm::sum_blocks,
};

/// Which of the three projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Queries of a group of heads.
    Q,
    /// Keys of a set.
    K,
    /// Values of a set.
    V,
}

/// Index formulas of the packed heads.
#[derive(Clone, Debug)]
pub struct HeadLayout {
    layout: Layout,
    heads: usize,
    /// `d/2`: complex pairs of a head.
    pub half: usize,
    /// `F`: pairs with the padding.
    pub pairs: usize,
    /// `R = T/F`.
    pub replicas: usize,
    /// `G`: heads of a group.
    pub group: usize,
    /// Key-value heads of each set, one for each place of a group.
    sets: Vec<Vec<usize>>,
    /// The set that each group of queries works on.
    set_of_group: Vec<usize>,
}

impl HeadLayout {
    /// Packing of `heads` heads of size `head_size`, `queries_per_kv` of which share keys and values.
    ///
    /// # Errors
    /// `head_size/2`, rounded up to a power of two, must be at most the window.
    pub fn new(
        layout: Layout,
        heads: usize,
        queries_per_kv: usize,
        head_size: usize,
    ) -> Result<Self, EnsiError> {
        let half = head_size / 2;
        let pairs = half.next_power_of_two();
        if !head_size.is_multiple_of(2) || half == 0 || pairs > layout.tokens() {
            return Err(EnsiError::Shape(format!(
                "head size {head_size}: it must be even, and half of it at most the window of {} tokens",
                layout.tokens()
            )));
        }
        let group = layout.heads_per_group();
        let mut sets: Vec<Vec<usize>> = Vec::new();
        let mut set_of_group = Vec::new();
        for first in (0..heads).step_by(group) {
            let set: Vec<usize> = (first..heads.min(first + group))
                .map(|head| head / queries_per_kv)
                .collect();
            let known = sets.iter().position(|s| *s == set);
            set_of_group.push(known.unwrap_or(sets.len()));
            if known.is_none() {
                sets.push(set);
            }
        }
        Ok(Self {
            layout,
            heads,
            half,
            pairs,
            replicas: layout.tokens() / pairs,
            group,
            sets,
            set_of_group,
        })
    }

    /// Groups of heads, one ciphertext of scores each.
    pub fn groups(&self) -> usize {
        self.heads.div_ceil(self.group)
    }

    /// Sets of keys and values: the key-value head at each place of a group.
    pub fn sets(&self) -> &[Vec<usize>] {
        &self.sets
    }

    /// The set that a group of queries works on.
    pub fn set_of(&self, group: usize) -> usize {
        self.set_of_group[group]
    }

    /// Layout of the window.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `e^(i theta_f position)` of the pair in place `p`.
    pub(super) fn turn(&self, theta: f64, p: usize, position: usize) -> Complex64 {
        let frequency = theta.powf(-((p % self.pairs) as f64) / self.half as f64);
        Complex64::from_polar(1.0, position as f64 * frequency)
    }

    /// Groups of queries that work on a set.
    pub fn groups_of(&self, set: usize) -> Vec<usize> {
        (0..self.groups())
            .filter(|g| self.set_of_group[*g] == set)
            .collect()
    }

    /// Block of (pair, replica, head within the group).
    pub fn block(&self, pair: usize, replica: usize, head: usize) -> usize {
        (replica * self.pairs + pair) * self.group + head
    }

    /// Where a projection is packed by the linear layer: (ciphertext, replica position). `index` is a group for queries, a set
    /// for keys and values.
    pub fn packed(&self, index: usize, projection: Projection) -> (usize, usize) {
        let sets = self.sets.len();
        let item = match projection {
            Projection::K => index,
            Projection::V => sets + index,
            Projection::Q => 2 * sets + index,
        };
        (item / self.replicas, item % self.replicas)
    }

    /// Ciphertexts that hold all packed projections.
    pub fn packed_ciphertexts(&self) -> usize {
        (2 * self.sets.len() + self.groups()).div_ceil(self.replicas)
    }

    /// Slots from one value of `p` to the next.
    pub(super) fn pair_step(&self) -> i64 {
        (self.group * self.layout.tokens()) as i64
    }

    /// Slots from one replica to the next.
    pub(super) fn replica_step(&self) -> i64 {
        self.pairs as i64 * self.pair_step()
    }

    /// `B`: baby steps of the pairs.
    fn baby(&self) -> usize {
        1 << self.pairs.trailing_zeros().div_ceil(2)
    }

    /// A mask with `value(p, t)` in slot `(p, h, t)` for all `h`.
    pub(super) fn mask(&self, value: impl Fn(usize, usize) -> Complex64) -> Mask {
        let tokens = self.layout.tokens();
        let mut slots = Vec::with_capacity(self.layout.slots());
        for p in 0..tokens {
            let row: Vec<Complex64> = (0..tokens).map(|t| value(p, t)).collect();
            for _ in 0..self.group {
                slots.extend_from_slice(&row);
            }
        }
        Mask::new(slots)
    }
}

/// One rotation of a staggering stage: to the left by `by` slots, seen through `mask`.
struct Move {
    by: i64,
    mask: Mask,
}

/// Two masks of a moved ciphertext: of the plain move, and of the one that starts a block later (none where nothing wraps).
struct Chosen {
    plain: Mask,
    wrapped: Option<Mask>,
}

/// The plaintext factors of attention: the same for every layer and group.
pub struct AttentionMasks {
    /// Per replica: conjugate RoPE at position t.
    query: Vec<Mask>,
    /// First stage of staggering keys: multiples of `B`, RoPE at the delayed position.
    key: Vec<Move>,
    /// First stage of staggering values.
    value: Vec<Move>,
    /// Second stage of both: delays below `B`.
    fine: Vec<Move>,
    /// Per `s`: the slots of moved keys that scores take.
    scores: Vec<Chosen>,
    /// Per `s`: the slots of moved values that the weighted sum takes.
    values: Vec<Chosen>,
}

impl AttentionMasks {
    /// Masks for RoPE with base `theta` (angles `theta^(-f/(d/2))` per position, rotate-half pairs).
    pub fn new(heads: &HeadLayout, theta: f64) -> Self {
        let (pairs, tokens, last) = (heads.pairs, heads.layout.tokens(), heads.replicas - 1);
        let turn = |p: usize, position: usize| heads.turn(theta, p, position);
        let zero = Complex64::default();
        let one = Complex64::new(1.0, 0.0);
        let where_ = |condition: bool| if condition { one } else { zero };
        let baby = heads.baby();
        let coarse = |rotary: bool| {
            let mut moves = Vec::new();
            for delay in (0..tokens).step_by(baby) {
                let here = |p: usize| p / baby * baby == delay;
                let value =
                    |p: usize, position: usize| if rotary { turn(p, position) } else { one };
                let by = -((delay / pairs) as i64 * heads.replica_step()) - delay as i64;
                moves.push(Move {
                    by,
                    mask: heads.mask(|p, t| {
                        if here(p) && t >= delay {
                            value(p, t - delay)
                        } else {
                            zero
                        }
                    }),
                });
                if delay > 0 && delay / pairs == last {
                    moves.push(Move {
                        by: by + tokens as i64,
                        mask: heads.mask(|p, t| {
                            if here(p) && t < delay {
                                value(p, t + tokens - delay)
                            } else {
                                zero
                            }
                        }),
                    });
                }
            }
            moves
        };
        let mut fine = Vec::new();
        for delay in 0..baby {
            let here = |p: usize| p % baby == delay;
            fine.push(Move {
                by: -(delay as i64),
                mask: heads.mask(|p, t| where_(here(p) && t >= delay)),
            });
            if delay > 0 {
                fine.push(Move {
                    by: tokens as i64 - delay as i64,
                    mask: heads.mask(|p, t| where_(here(p) && t < delay && p / pairs == last)),
                });
            }
        }
        Self {
            query: (0..heads.replicas)
                .map(|r| {
                    heads.mask(|p, t| {
                        if p / pairs == r {
                            turn(p, t).conj()
                        } else {
                            zero
                        }
                    })
                })
                .collect(),
            key: coarse(true),
            value: coarse(false),
            fine,
            scores: (0..pairs)
                .map(|s| Chosen {
                    plain: heads.mask(|p, t| where_(t >= p && t >= s)),
                    wrapped: (s > 0).then(|| heads.mask(|p, t| where_(p < s && t < s && t >= p))),
                })
                .collect(),
            values: (0..pairs)
                .map(|s| Chosen {
                    plain: heads.mask(|p, t| where_(t >= s && t >= (p + s) % tokens)),
                    wrapped: (s > 0).then(|| {
                        heads.mask(|p, t| where_(t < s && p + s >= tokens && t >= p + s - tokens))
                    }),
                })
                .collect(),
        }
    }
}

/// Attention weights of biased scores: `p(u)^(2^s)`, a series and squarings.
#[derive(Clone, Copy)]
pub struct WeightFunction<'a> {
    /// `p`, of the sigmoid's `2^-s`-th power.
    pub series: &'a ChebyshevSeries,
    /// `s`.
    pub squarings: usize,
}

impl<'a> WeightFunction<'a> {
    /// Of a layer.
    pub fn of(calibration: &'a LayerCalibration) -> Self {
        Self {
            series: &calibration.sigmoid,
            squarings: calibration.sigmoid_squarings,
        }
    }

    /// Levels it takes.
    pub fn depth(&self) -> usize {
        series_depth(self.series.coeffs.len()) + self.squarings
    }

    /// Its value where the series' variable is `u`, in the clear.
    pub fn at(&self, u: f64) -> f64 {
        let half = (self.series.hi - self.series.lo) / 2.0;
        let p = self.series.eval(self.series.lo + (u + 1.0) * half);
        (0..self.squarings).fold(p, |w, _| w * w)
    }

    /// Its values at the ordinary scale.
    pub fn apply<M: Machine>(&self, m: &mut M, u: &M::Ct) -> Result<M::Ct, EnsiError> {
        let end = m.chain().spend("sigmoid", m.level(u), self.depth())?;
        // a square of scale s has scale s^2 / q
        let mut scale = m.chain().scale;
        for level in end + 1..=end + self.squarings {
            scale = (scale * m.chain().q[level]).sqrt();
        }
        let mut weights = m.chebyshev(u, &self.series.coeffs, scale)?;
        for _ in 0..self.squarings {
            weights = m.mul(&weights, &weights)?;
        }
        Ok(weights)
    }
}

/// One layer's attention.
pub struct Attention<'a> {
    /// Index formulas.
    pub heads: &'a HeadLayout,
    /// Shared masks.
    pub masks: &'a AttentionMasks,
    /// Weight of the biased score.
    pub function: WeightFunction<'a>,
    /// Row bias of every head: `-ln(t+1) + b_h` is added to score row t of head h.
    pub head_bias: &'a [f64],
    /// `scale(q) * scale(k) / sqrt(d)`: from integer products to scores.
    pub score_factor: f64,
    /// Weight scale of v.
    pub value_factor: f64,
}

impl Attention<'_> {
    /// Levels from the packed projections to the attention output.
    pub fn depth(&self) -> usize {
        6 + self.function.depth()
    }

    /// The queries of a group in all replicas, RoPE and conjugate included. One level.
    fn select<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        level: usize,
        group: usize,
    ) -> Result<M::Ct, EnsiError> {
        let (ciphertext, from) = self.heads.packed(group, Projection::Q);
        let source = m.drop_to_level(&packed[ciphertext], level)?;
        let step = self.heads.replica_step();
        let steps: Vec<i64> = (0..self.heads.replicas)
            .map(|r| (from as i64 - r as i64) * step)
            .collect();
        let moved = m.rotate_many(&source, &steps)?;
        let terms: Vec<(&M::Ct, &Mask)> = moved.iter().zip(&self.masks.query).collect();
        m.dot_masks(&terms)
    }

    /// Keys or values of a set with every pair delayed by its own `p`; step 2 of the module page. Two levels.
    fn stagger<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        level: usize,
        set: usize,
        projection: Projection,
    ) -> Result<M::Ct, EnsiError> {
        let (ciphertext, from) = self.heads.packed(set, projection);
        let source = m.drop_to_level(&packed[ciphertext], level)?;
        let source = m.rotate(&source, from as i64 * self.heads.replica_step())?;
        let coarse = match projection {
            Projection::K => &self.masks.key,
            Projection::Q | Projection::V => &self.masks.value,
        };
        let delayed = self.moves(m, &source, coarse)?;
        self.moves(m, &delayed, &self.masks.fine)
    }

    /// `sum_i mask_i * rotation_i(ct)`. One level.
    fn moves<M: Machine>(&self, m: &mut M, ct: &M::Ct, moves: &[Move]) -> Result<M::Ct, EnsiError> {
        let steps: Vec<i64> = moves.iter().map(|x| x.by).collect();
        let moved = m.rotate_many(ct, &steps)?;
        let terms: Vec<(&M::Ct, &Mask)> = moved.iter().zip(moves.iter().map(|x| &x.mask)).collect();
        m.dot_masks(&terms)
    }

    /// Giant steps of [`Self::multiples`], and the baby steps that go with each.
    fn steps(&self, step: i64) -> (Vec<i64>, Vec<i64>) {
        let (pairs, baby) = (self.heads.pairs, self.heads.baby());
        let giants = (0..pairs).step_by(baby).map(|g| g as i64 * step);
        let babies = (0..baby.min(pairs)).map(|b| b as i64 * step);
        (giants.collect(), babies.collect())
    }

    /// Rotations of `ct` to the left by `s * step`, `0 <= s < F`, by baby and giant steps.
    fn multiples<M: Machine>(
        &self,
        m: &mut M,
        ct: &M::Ct,
        step: i64,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let (giants, babies) = self.steps(step);
        let mut out = Vec::with_capacity(self.heads.pairs);
        for moved in m.rotate_many(ct, &giants)? {
            out.extend(m.rotate_many(&moved, &babies)?);
        }
        Ok(out)
    }

    /// A staggered ciphertext moved by `s * step`, `0 <= s < F`, with what wraps around a block put in and what is not causal left out.
    /// Scales are not brought back: the prime of the level is still in them.
    fn moved<M: Machine>(
        &self,
        m: &mut M,
        staggered: &M::Ct,
        step: i64,
        masks: &[Chosen],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let (giants, babies) = self.steps(step);
        let later = m.rotate(staggered, self.heads.layout.tokens() as i64)?;
        let plain = m.rotate_many(staggered, &giants)?;
        let wrapped = m.rotate_many(&later, &giants)?;
        let mut out = Vec::with_capacity(masks.len());
        // one giant step at a time: the moved ciphertexts of all of them would be the peak of memory
        for (plain, wrapped) in plain.iter().zip(&wrapped) {
            let plain = m.rotate_many(plain, &babies)?;
            let wrapped = m.rotate_many(wrapped, &babies)?;
            for (plain, wrapped) in plain.iter().zip(&wrapped) {
                let masks = &masks[out.len()];
                let mut terms = vec![(plain, &masks.plain)];
                terms.extend(masks.wrapped.as_ref().map(|mask| (wrapped, mask)));
                out.push(m.dot_masks_unscaled(&terms)?);
            }
        }
        Ok(out)
    }

    /// Moved keys of a set; see [`Self::outputs`].
    fn moved_keys<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        set: usize,
        start: usize,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let key = self.stagger(m, packed, start, set, Projection::K)?;
        self.moved(m, &key, -(self.heads.pair_step() + 1), &self.masks.scores)
    }

    /// Scores of a group of heads as the variable of the sigmoid's series, `[p, h, t]`.
    fn scores<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        keys: &[M::Ct],
        group: usize,
        start: usize,
    ) -> Result<M::Ct, EnsiError> {
        let series = self.function.series;
        let half = (series.hi - series.lo) / 2.0;
        let query = self.select(m, packed, start, group)?;
        // u = factor * (sum + conj sum); the queries' spare level gives u the ordinary scale
        let factor = 0.5 * self.score_factor / half;
        let level = m.level(&keys[0]);
        let (q, next) = (m.chain().q[level], m.chain().q[level - 1]);
        let wanted = m.chain().scale * factor * q * next / m.scale(&keys[0]);
        let query = m.match_scale(&query, wanted)?;
        let queries = self.multiples(m, &query, -self.heads.pair_step())?;
        let terms: Vec<(&M::Ct, &M::Ct)> = queries.iter().zip(keys).collect();
        let sum = m.dot(&terms)?;
        let sum = m.rescale(&sum)?;
        let mirrored = m.conjugate(&sum)?;
        let real = m.add(&sum, &mirrored)?;
        let u = m.scale_values(&real, factor);
        let bias = self.by_slot(group, |_, _, bias| bias);
        m.add_values(&u, &bias)
    }

    /// `value(p, t, bias)` in slot `(p, h, t)` of a group, where `bias` is that of head `h` and row `t` as the series' variable.
    fn by_slot(&self, group: usize, value: impl Fn(usize, usize, f64) -> f64) -> Vec<f64> {
        let (layout, series) = (&self.heads.layout, self.function.series);
        let mut out = Vec::with_capacity(layout.slots());
        for p in 0..layout.tokens() {
            for h in 0..self.heads.group {
                let head = group * self.heads.group + h;
                let b = self.head_bias.get(head).copied().unwrap_or(0.0);
                out.extend((0..layout.tokens()).map(|t| {
                    let z = b - ((t + 1) as f64).ln();
                    value(p, t, series.normalise(z))
                }));
            }
        }
        out
    }

    /// `weights` of all groups with zero where causality forbids: a score is 0 there, and its weight that of the bias.
    pub fn causal<M: Machine>(
        &self,
        m: &mut M,
        weights: &[M::Ct],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let function = self.function;
        let masked = |p: usize, t: usize, bias: f64| if t < p { -function.at(bias) } else { 0.0 };
        weights
            .iter()
            .enumerate()
            .map(|(group, ct)| m.add_values(ct, &self.by_slot(group, masked)))
            .collect()
    }

    /// The attention weights of all groups, `[p, h, t]`; what causality forbids has the weight of a score of 0.
    ///
    /// `packed` are the outputs of the linear layer, real and imaginary halves joined, as integer combinations; `start` is the level
    /// from which they are used.
    pub fn weights<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        start: usize,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let mut out: Vec<Option<M::Ct>> = vec![None; self.heads.groups()];
        for set in 0..self.heads.sets().len() {
            let keys = self.moved_keys(m, packed, set, start)?;
            for group in self.heads.groups_of(set) {
                let u = self.scores(m, packed, &keys, group, start)?;
                out[group] = Some(self.function.apply(m, &u)?);
            }
        }
        Ok(out.into_iter().flatten().collect())
    }

    /// The attention outputs of all groups, complex pairs in the blocks `(r, f, h)` of every `r`, from their [`weights`](Self::weights).
    pub fn outputs<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        weights: &[M::Ct],
        start: usize,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let mut out: Vec<Option<M::Ct>> = vec![None; self.heads.groups()];
        let replica = self.heads.replica_step();
        let level = m.level(&weights[0]);
        for set in 0..self.heads.sets().len() {
            let value = self.stagger(m, packed, (level + 2).min(start), set, Projection::V)?;
            let values = self.moved(m, &value, -1, &self.masks.values)?;
            for group in self.heads.groups_of(set) {
                let weights = &weights[group];
                // A[p + s] for s = 0, 1, … : A moved on by a replica, back by F - s
                let ahead = m.rotate(weights, replica)?;
                let turned = self.multiples(m, &ahead, -self.heads.pair_step())?;
                let mut terms = vec![(weights, &values[0])];
                terms.extend(turned.iter().skip(1).zip(values.iter().skip(1).rev()));
                let sum = m.dot(&terms)?;
                let sum = m.rescale(&sum)?;
                let stride = self.heads.pairs * self.heads.group;
                let sum = sum_blocks(m, &self.heads.layout, &sum, stride, self.heads.replicas)?;
                out[group] = Some(m.scale_values(&sum, self.value_factor));
            }
        }
        Ok(out.into_iter().flatten().collect())
    }
}

/// `sum |a|^2` over all features, valid in block 0: over the groups, `G` heads, then `F` pairs.
///
/// `conjugates` are the conjugates of `outputs`. One level.
pub fn sum_of_squares<M: Machine>(
    m: &mut M,
    layout: &Layout,
    heads: &HeadLayout,
    outputs: &[M::Ct],
    conjugates: &[M::Ct],
) -> Result<M::Ct, EnsiError> {
    let terms: Vec<(&M::Ct, &M::Ct)> = outputs.iter().zip(conjugates).collect();
    let square = m.dot(&terms)?;
    let over_heads = sum_blocks(m, layout, &square, 1, heads.group)?;
    sum_blocks(m, layout, &over_heads, heads.group, heads.pairs)
}

/// The variable of a norm's series from a sum of squares valid in block 0.
pub fn mean_square_variable<M: Machine>(
    m: &mut M,
    sum: &M::Ct,
    features: usize,
    series: &ChebyshevSeries,
) -> Result<M::Ct, EnsiError> {
    let half = (series.hi - series.lo) / 2.0;
    let u = m.scale_values(sum, 1.0 / (features as f64 * half));
    m.add_const(&u, -(series.hi + series.lo) / (series.hi - series.lo))
}
