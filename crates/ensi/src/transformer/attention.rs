//! Causal sigmoid attention on packed heads.
//!
//! Let `d` be the head size, `F = d/2`, `T` the tokens of the window, `R = T/F`, and `G` the heads of a group; `F*R*G` blocks fill a
//! ciphertext. Block `(f, r, h)` is number `(f*R + r)*G + h`. A query or key pair `(x_f, x_{f+F})`, which RoPE turns together, is
//! one complex slot, so RoPE is a product with `e^(i theta_f t)`.
//!
//! Score diagonals: `D_delta[t] = q_t · k_{t - delta}` with `delta = F r + c`, `0 <= c < F`.
//!
//! 1. *Select*: from the ciphertext(s) in which the linear layer left q, k, v, with rotations and masks (RoPE in the masks):
//!    `Q[f,r,h,t] = q_f[t]`, `K[f,r,h,t] = k_f[t - F r]`, `V[f,r,h,t] = v_f[t - F r]` (zero for `t < F r`).
//! 2. *Skew*: `K_s[f,…,t] = K[f,…,t - ((f+s) mod F)]`: the `F` token rotations of `K`, picked by masks on `f`.
//! 3. *Scores*: `S[c,r,h,t] = sum_s rot_s(conj(Q) K_s)`, where `rot_s` moves `s` steps along `f`, by Horner with one key: every slot of
//!    one ciphertext is then a score, `T` diagonals of `G` heads.
//! 4. `A = sigmoid(Re S + bias)`: one polynomial on one ciphertext.
//! 5. *Values*: `a[f,r,h,t] = sum_s A[(f+s) mod F, r,h,t] V_s[f,r,h,t]`, one relinearisation for all products; then the sum over `r`.
//!
//! A rotation by tokens brings foreign values into the first slots of a block; they belong to pairs with `t < delta`, which
//! causality forbids: the masks of `V_s` are zero there. Nothing is broadcast, and the mask costs the scores no level.
//!
//! Levels: select 1, skew 1, product 1, sigmoid `ceil(log2(degree+1))`, product with V 1.

use num_complex::Complex64;
use tacit_bitnet::ChebyshevSeries;

use crate::{
    EnsiError,
    layout::Layout,
    machine::{Machine, Mask, series_depth},
    transformer::norm::sum_blocks,
};

/// Which of the three projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Queries.
    Q,
    /// Keys.
    K,
    /// Values.
    V,
}

impl Projection {
    /// All three, in packing order.
    pub const ALL: [Projection; 3] = [Projection::Q, Projection::K, Projection::V];
}

/// Index formulas of the packed heads.
#[derive(Clone, Copy, Debug)]
pub struct HeadLayout {
    layout: Layout,
    heads: usize,
    /// `F`: complex pairs of a head.
    pub pairs: usize,
    /// `R = T/F`.
    pub replicas: usize,
    /// `G`: heads of a group.
    pub group: usize,
}

impl HeadLayout {
    /// Packing of `heads` heads of size `head_size`.
    ///
    /// # Errors
    /// `head_size/2` must be a power of two that divides the window.
    pub fn new(layout: Layout, heads: usize, head_size: usize) -> Result<Self, EnsiError> {
        let pairs = head_size / 2;
        if !head_size.is_multiple_of(2) || !pairs.is_power_of_two() || pairs > layout.tokens() {
            return Err(EnsiError::Shape(format!(
                "head size {head_size}: half of it must be a power of two and at most the window of {} tokens",
                layout.tokens()
            )));
        }
        Ok(Self {
            layout,
            heads,
            pairs,
            replicas: layout.tokens() / pairs,
            group: layout.heads_per_group(),
        })
    }

    /// Groups of heads, one ciphertext of scores each.
    pub fn groups(&self) -> usize {
        self.heads.div_ceil(self.group)
    }

    /// Block of (pair, replica, head within the group).
    pub fn block(&self, pair: usize, replica: usize, head: usize) -> usize {
        (pair * self.replicas + replica) * self.group + head
    }

    /// Where a projection of a group is packed by the linear layer: (ciphertext, replica position).
    pub fn packed(&self, group: usize, projection: Projection) -> (usize, usize) {
        let index = group * 3 + projection as usize;
        (index / self.replicas, index % self.replicas)
    }

    /// Ciphertexts that hold all packed projections.
    pub fn packed_ciphertexts(&self) -> usize {
        (self.groups() * 3).div_ceil(self.replicas)
    }

    /// Rotation steps (left) that bring a packed projection to replica `r`.
    fn select_step(&self, from: usize, replica: usize, projection: Projection) -> i64 {
        let tokens = self.layout.tokens() as i64;
        let blocks = (replica as i64 - from as i64) * self.group as i64;
        let delay = if projection == Projection::Q {
            0
        } else {
            (self.pairs * replica) as i64
        };
        -(blocks * tokens + delay)
    }

    /// Rotation (left) by `steps` along the pair axis.
    fn pair_rotation(&self, steps: usize) -> i64 {
        self.layout
            .block_rotation((steps * self.replicas * self.group) as i64)
    }

    fn mask(&self, value: impl Fn(usize, usize, usize) -> Complex64) -> Mask {
        let mut slots = vec![Complex64::default(); self.layout.slots()];
        for f in 0..self.pairs {
            for r in 0..self.replicas {
                for h in 0..self.group {
                    for t in 0..self.layout.tokens() {
                        slots[self.layout.slot(self.block(f, r, h), t)] = value(f, r, t);
                    }
                }
            }
        }
        Mask::new(slots)
    }
}

/// The plaintext factors of attention: the same for every layer and group.
pub struct AttentionMasks {
    /// Per replica: RoPE at position t.
    query: Vec<Mask>,
    /// Per replica: RoPE at position t - F r, zero before.
    key: Vec<Mask>,
    /// Per replica: one from t = F r on.
    value: Vec<Mask>,
    /// Per pair index x: one where f = x.
    pair: Vec<Mask>,
    /// Per delay c: one from t = c on.
    causal: Vec<Mask>,
}

impl AttentionMasks {
    /// Masks for RoPE with base `theta` (angles `theta^(-f/F)` per position, rotate-half pairs).
    pub fn new(heads: &HeadLayout, theta: f64) -> Self {
        let pairs = heads.pairs;
        let turn = |f: usize, position: usize| {
            Complex64::from_polar(
                1.0,
                position as f64 * theta.powf(-(f as f64) / pairs as f64),
            )
        };
        let zero = Complex64::default();
        let one = Complex64::new(1.0, 0.0);
        let at = |replica: usize, value: &dyn Fn(usize, usize) -> Complex64| {
            heads.mask(|f, r, t| if r == replica { value(f, t) } else { zero })
        };
        let replicas = 0..heads.replicas;
        Self {
            query: replicas.clone().map(|r| at(r, &turn)).collect(),
            key: replicas
                .clone()
                .map(|r| {
                    at(r, &|f, t| {
                        if t >= pairs * r {
                            turn(f, t - pairs * r)
                        } else {
                            zero
                        }
                    })
                })
                .collect(),
            value: replicas
                .map(|r| at(r, &|_, t| if t >= pairs * r { one } else { zero }))
                .collect(),
            pair: (0..pairs)
                .map(|x| heads.mask(|f, _, _| if f == x { one } else { zero }))
                .collect(),
            causal: (0..pairs)
                .map(|c| heads.mask(|_, _, t| if t >= c { one } else { zero }))
                .collect(),
        }
    }
}

/// One layer's attention.
pub struct Attention<'a> {
    /// Index formulas.
    pub heads: &'a HeadLayout,
    /// Shared masks.
    pub masks: &'a AttentionMasks,
    /// Sigmoid of the biased score.
    pub sigmoid: &'a ChebyshevSeries,
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
        4 + series_depth(self.sigmoid.coeffs.len())
    }

    /// Rotations and masks that bring a projection of a group into place; see step 1 of the module page.
    fn select<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        level: usize,
        group: usize,
        projection: Projection,
    ) -> Result<M::Ct, EnsiError> {
        let (ciphertext, from) = self.heads.packed(group, projection);
        let source = m.drop_to_level(&packed[ciphertext], level)?;
        let steps: Vec<i64> = (0..self.heads.replicas)
            .map(|r| self.heads.select_step(from, r, projection))
            .collect();
        let moved = m.rotate_many(&source, &steps)?;
        let masks = match projection {
            Projection::Q => &self.masks.query,
            Projection::K => &self.masks.key,
            Projection::V => &self.masks.value,
        };
        let terms: Vec<(&M::Ct, &Mask)> = moved.iter().zip(masks).collect();
        m.dot_masks(&terms)
    }

    /// The token delays 0..F of a ciphertext.
    fn delays<M: Machine>(&self, m: &mut M, ct: &M::Ct) -> Result<Vec<M::Ct>, EnsiError> {
        let steps: Vec<i64> = (0..self.heads.pairs as i64).map(|c| -c).collect();
        m.rotate_many(ct, &steps)
    }

    /// `X_s[f] = delayed_((f+s) mod F)[f]` for one `s`.
    fn skew<M: Machine>(&self, m: &mut M, delayed: &[M::Ct], s: usize) -> Result<M::Ct, EnsiError> {
        let pairs = self.heads.pairs;
        let terms: Vec<(&M::Ct, &Mask)> = delayed
            .iter()
            .enumerate()
            .map(|(c, ct)| (ct, &self.masks.pair[(c + pairs - s) % pairs]))
            .collect();
        m.dot_masks(&terms)
    }

    /// Scores of a group of heads as the variable of the sigmoid's series, `[c, r, h, t]`.
    fn scores<M: Machine>(
        &self,
        m: &mut M,
        layout: &Layout,
        packed: &[M::Ct],
        group: usize,
        start: usize,
    ) -> Result<M::Ct, EnsiError> {
        let series = self.sigmoid;
        let half = (series.hi - series.lo) / 2.0;
        let pairs = self.heads.pairs;
        let key = self.select(m, packed, start, group, Projection::K)?;
        let delayed = self.delays(m, &key)?;
        let query = self.select(m, packed, start, group, Projection::Q)?;
        let query = m.conjugate(&query)?;
        // u = factor * (acc + conj acc); the queries' spare level gives u the ordinary scale
        let factor = 0.5 * self.score_factor / half;
        let product_level = m.level(&query) - 1;
        let wanted = m.chain().scale * factor * m.chain().q[product_level] / m.scale(&key);
        let query = m.match_scale(&query, wanted)?;
        let mut acc: Option<M::Ct> = None;
        for s in (0..pairs).rev() {
            let skewed = self.skew(m, &delayed, s)?;
            let product = m.mul_unscaled(&query, &skewed)?;
            acc = Some(match acc {
                None => product,
                Some(acc) => {
                    let moved = m.rotate(&acc, -self.heads.pair_rotation(1))?;
                    m.add(&moved, &product)?
                }
            });
        }
        let acc = m.rescale(&acc.expect("at least one pair"))?;
        let mirrored = m.conjugate(&acc)?;
        let real = m.add(&acc, &mirrored)?;
        let u = m.scale_values(&real, factor);
        let mut bias = vec![0.0; layout.slots()];
        for c in 0..pairs {
            for r in 0..self.heads.replicas {
                for h in 0..self.heads.group {
                    let b = self
                        .head_bias
                        .get(group * self.heads.group + h)
                        .copied()
                        .unwrap_or(0.0);
                    for t in 0..layout.tokens() {
                        let z = b - ((t + 1) as f64).ln();
                        bias[layout.slot(self.heads.block(c, r, h), t)] =
                            (2.0 * z - series.hi - series.lo) / (2.0 * half);
                    }
                }
            }
        }
        m.add_values(&u, &bias)
    }

    /// The attention output of a group: complex pairs in the blocks `(f, 0, h)`; other blocks hold by-products.
    ///
    /// `packed` are the outputs of the linear layer, real and imaginary halves joined, as integer combinations.
    pub fn group<M: Machine>(
        &self,
        m: &mut M,
        layout: &Layout,
        packed: &[M::Ct],
        group: usize,
        start: usize,
    ) -> Result<M::Ct, EnsiError> {
        let u = self.scores(m, layout, packed, group, start)?;
        let scale = m.chain().scale;
        let weights = m.chebyshev(&u, &self.sigmoid.coeffs, scale)?;
        let pairs = self.heads.pairs;
        let turned: Vec<i64> = (0..pairs).map(|s| self.heads.pair_rotation(s)).collect();
        let turned = m.rotate_many(&weights, &turned)?;

        let value_start = (m.level(&weights) + 3).min(start);
        let value = self.select(m, packed, value_start, group, Projection::V)?;
        let delayed = self.delays(m, &value)?;
        let mut causal = Vec::with_capacity(pairs);
        for (c, ct) in delayed.iter().enumerate() {
            causal.push(m.dot_masks(&[(ct, &self.masks.causal[c])])?);
        }
        let mut skewed = Vec::with_capacity(pairs);
        for s in 0..pairs {
            skewed.push(self.skew(m, &causal, s)?);
        }
        let terms: Vec<(&M::Ct, &M::Ct)> = turned.iter().zip(&skewed).collect();
        let out = m.dot(&terms)?;
        let out = sum_blocks(m, layout, &out, self.heads.group, self.heads.replicas)?;
        Ok(m.scale_values(&out, self.value_factor))
    }
}

/// `sum |a|^2` over all features, valid in block 0: the heads of the groups, then `G` heads, then `F` pairs.
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
    sum_blocks(
        m,
        layout,
        &over_heads,
        heads.replicas * heads.group,
        heads.pairs,
    )
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
