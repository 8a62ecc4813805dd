//! Attention of one new token over encrypted keys and values that are kept: the decode step.
//!
//! The cache has the layout of the window (`T` tokens; [`super::attention`]): slot `(r, f, h, t)` of ciphertext `c` holds the pair `f` of the
//! key or value of token `t`, for place `h` of the set number `c*R + r`. Keys are turned by RoPE when they are kept. The new token has a
//! layout of its own with `S` token slots, all of them the same token: a block of the window is `T/S` blocks of the step, and the linear
//! layer q, k, v leaves the pair for window block `B` of the item number `i` in the step's block `B*T/S + i`. Items are the query
//! ciphertexts, then the cache ciphertexts of keys, then those of values. With no more than `T/2S` items the imaginary parts come in the real parts
//! of blocks `T/2S` further, and a rotation brings them back: what else it brings, the masks below remove.
//!
//! 1. *Take out*: all items to the first block of their window block, by rotations of one decomposition; masks leave one item, turn it by RoPE, and
//!    for keys and values leave one slot. Queries are spread over the window's tokens by `log2 T/S` rotations; keys and values move
//!    to their token and are added to the cache.
//! 2. *Scores*: `q K` slot by slot, summed over pairs by `log2 F` rotations, valid at `f = 0`; item `i` moves to `f = i`, masks join all items in
//!    one ciphertext and leave nothing else, so that the sigmoid is one polynomial on one ciphertext.
//! 3. *Values*: each item's weights are masked out, spread over the pairs by `log2 F` rotations, multiplied with `V`, and summed over the
//!    tokens by `log2 T` rotations. Item `i` moves to block `i` of its window block, masks join the items, and the token is spread over the `S` slots.
//!
//! Levels: take out and scale 1, product 1, join 1, sigmoid `ceil(log2(degree+1))` and its squarings, masks 1, product 1, join 1. The cache of keys stays at the
//! level of the first product, that of values at the level of the second.
//!
//! The position of the token is public: the server learns how many tokens were cached. (A pass over the whole window hides it.)

use num_complex::Complex64;

use crate::{
    EnsiError,
    layout::{Half, Layout},
    machine::{Machine, Mask},
    ternary_layer::Place,
    transformer::attention::{HeadLayout, Projection, WeightFunction},
};

/// Where the cache, the queries and the outputs of a decode step live.
#[derive(Clone, Debug)]
pub struct CacheLayout {
    window: HeadLayout,
    step: Layout,
    /// Most groups of queries on one set.
    groups_of_set: usize,
}

impl CacheLayout {
    /// For heads packed in a window, and a step with `step` token slots.
    ///
    /// # Errors
    /// When a step's ciphertext has no room for all items, or a set's score has none beside the others.
    pub fn new(window: HeadLayout, step: Layout) -> Result<Self, EnsiError> {
        let groups_of_set = (0..window.sets().len())
            .map(|s| window.groups_of(s).len())
            .max()
            .unwrap_or(1);
        let layout = Self {
            window,
            step,
            groups_of_set,
        };
        let queries = layout.queries();
        if queries > layout.ratio() || queries > layout.window.pairs {
            return Err(EnsiError::Shape(format!(
                "{queries} ciphertexts of queries do not fit {} step blocks and {} pairs: use a longer window or fewer heads",
                layout.ratio(),
                layout.window.pairs
            )));
        }
        Ok(layout)
    }

    /// Heads in the window.
    pub fn window(&self) -> &HeadLayout {
        &self.window
    }

    /// Step blocks of a window block.
    fn ratio(&self) -> usize {
        self.window.layout().tokens() / self.step.tokens()
    }

    /// Ciphertexts of keys, and as many of values.
    pub fn ciphertexts(&self) -> usize {
        self.window.sets().len().div_ceil(self.window.replicas)
    }

    /// Ciphertexts of queries.
    pub fn queries(&self) -> usize {
        self.groups_of_set * self.ciphertexts()
    }

    /// Cache ciphertext that a query ciphertext works on.
    fn cache_of(&self, query: usize) -> usize {
        query % self.ciphertexts()
    }

    /// Item number and replica of a projection; `index` is a group for queries, a set for keys and values.
    fn item(&self, index: usize, projection: Projection) -> (usize, usize) {
        let set = match projection {
            Projection::Q => self.window.set_of(index),
            Projection::K | Projection::V => index,
        };
        let (ciphertext, replica) = (set / self.window.replicas, set % self.window.replicas);
        let item = match projection {
            Projection::Q => {
                let rank = self.window.groups_of(set).iter().position(|g| *g == index);
                rank.unwrap_or(0) * self.ciphertexts() + ciphertext
            }
            Projection::K => self.queries() + ciphertext,
            Projection::V => self.queries() + self.ciphertexts() + ciphertext,
        };
        (item, replica)
    }

    /// Where the linear layer leaves a pair's half.
    pub fn packed(
        &self,
        index: usize,
        projection: Projection,
        pair: usize,
        in_group: usize,
        half: Half,
    ) -> Place {
        let (item, replica) = self.item(index, projection);
        let block = self.window.block(pair, replica, in_group) * self.ratio() + item % self.ratio();
        let ciphertext = item / self.ratio();
        match (self.imaginary_beside(), half) {
            (Some(by), Half::Im) => Place {
                ciphertext,
                block: block + by,
                half: Half::Re,
            },
            _ => Place {
                ciphertext,
                block,
                half,
            },
        }
    }

    /// How many step blocks after its real part the imaginary part of a pair stands, if there is room for both in a window block: one polynomial less
    /// in the refresh.
    pub fn imaginary_beside(&self) -> Option<usize> {
        let (half, items) = (self.ratio() / 2, self.queries() + 2 * self.ciphertexts());
        (items <= half).then_some(half)
    }

    /// Layout of a step's vectors.
    pub fn layout(&self) -> &Layout {
        &self.step
    }

    /// Heads, each with the window block in which its scores stand.
    fn scored(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let heads = &self.window;
        (0..self.queries()).flat_map(move |query| {
            (0..heads.replicas).flat_map(move |replica| {
                (0..heads.group).filter_map(move |place| {
                    let head = self.head(query, replica, place)?;
                    Some((head, heads.block(query, replica, place)))
                })
            })
        })
    }

    /// Heads, each with the step block of the first token's score.
    pub fn score_blocks(&self) -> Vec<(usize, usize)> {
        let first = |(head, block): (usize, usize)| (head, block * self.ratio());
        self.scored().map(first).collect()
    }

    /// `value(head)` in the slots of its scores up to the token at `position`, `elsewhere` in all others.
    fn by_score(&self, position: usize, elsewhere: f64, value: impl Fn(usize) -> f64) -> Vec<f64> {
        let layout = self.window.layout();
        let mut slots = vec![elsewhere; layout.slots()];
        for (head, block) in self.scored() {
            let first = layout.slot(block, 0);
            slots[first..=first + position].fill(value(head));
        }
        slots
    }

    /// Step block of an output pair of a head.
    pub fn output(&self, head: usize, pair: usize) -> usize {
        let (item, replica) = self.item(head / self.window.group, Projection::Q);
        self.window.block(pair, replica, head % self.window.group) * self.ratio() + item
    }

    /// Head whose score stands in replica `r`, place `h` of a query ciphertext.
    fn head(&self, query: usize, replica: usize, place: usize) -> Option<usize> {
        let set = self.cache_of(query) * self.window.replicas + replica;
        if set >= self.window.sets().len() {
            return None;
        }
        let groups = self.window.groups_of(set);
        let group = groups.get(query / self.ciphertexts())?;
        Some(group * self.window.group + place)
    }
}

/// Factors that bring a window's keys and values into the cache.
pub struct KeepMasks {
    /// Per replica: RoPE at the token's position, zero from the length on.
    key: Vec<Mask>,
    /// Per replica: one below the length.
    value: Vec<Mask>,
}

impl KeepMasks {
    /// For the first `length` tokens of a window.
    pub fn new(cache: &CacheLayout, theta: f64, length: usize) -> Self {
        let heads = &cache.window;
        let masks = |value: &dyn Fn(usize, usize) -> Complex64| {
            (0..heads.replicas)
                .map(|r| {
                    heads
                        .mask(|p, t| {
                            if p / heads.pairs == r && t < length {
                                value(p, t)
                            } else {
                                Complex64::default()
                            }
                        })
                        .for_a_while()
                })
                .collect()
        };
        Self {
            key: masks(&|p, t| heads.turn(theta, p, t)),
            value: masks(&|_, _| Complex64::ONE),
        }
    }
}

/// Factors of one decode step, the same in all layers.
pub struct StepMasks {
    position: usize,
    query: Mask,
    key: Mask,
    value: Mask,
    /// Per query ciphertext: the pair number of its scores, for tokens that are there.
    scores: Vec<Mask>,
    /// Per query ciphertext: the slot that its output is brought to.
    join: Vec<Mask>,
}

impl StepMasks {
    /// Position of the token.
    pub fn position(&self) -> usize {
        self.position
    }

    /// For the token at `position` (counted from zero), below the window.
    pub fn new(cache: &CacheLayout, theta: f64, position: usize) -> Self {
        let heads = &cache.window;
        let slots = cache.step.tokens();
        let zero = Complex64::default();
        let only = |condition: bool, value: Complex64| if condition { value } else { zero };
        let turn = |p: usize| heads.turn(theta, p, position);
        let mask = |value: &dyn Fn(usize, usize) -> Complex64| heads.mask(value).for_a_while();
        let slot = position % slots;
        let queries = 0..cache.queries();
        Self {
            position,
            query: mask(&|p, t| only(t < slots, turn(p).conj())),
            key: mask(&|p, t| only(t == slot, turn(p))),
            value: mask(&|_, t| only(t == slot, Complex64::ONE)),
            scores: queries
                .clone()
                .map(|i| mask(&|p, t| only(p % heads.pairs == i && t <= position, Complex64::ONE)))
                .collect(),
            join: queries
                .map(|i| mask(&|_, t| only(t == i * slots, Complex64::ONE)))
                .collect(),
        }
    }
}

/// Copies to the right by `unit`, `2 unit`, … until there are `count`.
pub(super) fn spread<M: Machine>(
    m: &mut M,
    ct: M::Ct,
    unit: i64,
    count: usize,
) -> Result<M::Ct, EnsiError> {
    let mut sum = ct;
    let mut reach = 1;
    while reach < count {
        let moved = m.rotate(&sum, -unit * reach as i64)?;
        sum = m.add(&sum, &moved)?;
        reach *= 2;
    }
    Ok(sum)
}

/// Sums to the left by `unit`, `2 unit`, …: the sum of `count` values in the first place of each.
pub(super) fn gather<M: Machine>(
    m: &mut M,
    ct: M::Ct,
    unit: i64,
    count: usize,
) -> Result<M::Ct, EnsiError> {
    spread(m, ct, -unit, count)
}

/// Keys and values of one layer.
#[derive(Clone, Debug)]
pub struct LayerCache<C> {
    /// Keys, turned by RoPE.
    pub keys: Vec<C>,
    /// Values.
    pub values: Vec<C>,
}

/// One layer's attention over a cache.
pub struct CachedAttention<'a> {
    /// Index formulas.
    pub cache: &'a CacheLayout,
    /// Weight of the biased score.
    pub function: WeightFunction<'a>,
    /// Row bias of every head, without `-ln(t+1)`.
    pub head_bias: &'a [f64],
    /// From integer products to scores.
    pub score_factor: f64,
    /// Weight scale of v.
    pub value_factor: f64,
}

impl CachedAttention<'_> {
    /// Level of cached values for outputs at level `end`.
    fn value_level(&self, end: usize) -> usize {
        end + 2
    }

    /// Level of cached keys.
    fn key_level(&self, end: usize) -> usize {
        self.value_level(end) + 3 + self.function.depth()
    }

    /// Keeps the keys and values of a window: `packed` are the outputs of its linear layer, `end` the level that a step's outputs will
    /// have. One level above those of the cache.
    pub fn keep<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        masks: &KeepMasks,
        end: usize,
    ) -> Result<LayerCache<M::Ct>, EnsiError> {
        let heads = &self.cache.window;
        let mut kept = |projection, level: usize, masks: &[Mask]| {
            (0..self.cache.ciphertexts())
                .map(|c| {
                    let mut moved = Vec::with_capacity(heads.replicas);
                    for (replica, mask) in masks.iter().enumerate() {
                        let set = c * heads.replicas + replica;
                        if set >= heads.sets().len() {
                            break;
                        }
                        let (ciphertext, from) = heads.packed(set, projection);
                        let source = m.drop_to_level(&packed[ciphertext], level + 1)?;
                        let by = (from as i64 - replica as i64) * heads.replica_step();
                        moved.push((m.rotate(&source, by)?, mask));
                    }
                    let terms: Vec<(&M::Ct, &Mask)> =
                        moved.iter().map(|(ct, mask)| (ct, *mask)).collect();
                    m.dot_masks(&terms)
                })
                .collect::<Result<Vec<_>, EnsiError>>()
        };
        Ok(LayerCache {
            keys: kept(Projection::K, self.key_level(end), &masks.key)?,
            values: kept(Projection::V, self.value_level(end), &masks.value)?,
        })
    }

    /// Adds the new token's keys and values to the cache and returns the attention's output: one ciphertext of complex pairs in the
    /// blocks that [`CacheLayout::output`] names, zero elsewhere, at level `end`; and the weights, zero where no token is.
    pub fn step<M: Machine>(
        &self,
        m: &mut M,
        packed: &[M::Ct],
        kept: &mut LayerCache<M::Ct>,
        masks: &StepMasks,
        end: usize,
    ) -> Result<(M::Ct, M::Ct), EnsiError> {
        let heads = &self.cache.window;
        let (queries, ciphertexts) = (self.cache.queries(), self.cache.ciphertexts());
        let (slots, ratio) = (self.cache.step.tokens() as i64, self.cache.ratio());
        let key_level = self.key_level(end);

        // every item to the first block of its window block
        let mut items = Vec::with_capacity(queries + 2 * ciphertexts);
        for (i, source) in packed.iter().enumerate() {
            let count = (queries + 2 * ciphertexts - i * ratio).min(ratio);
            let source = m.drop_to_level(source, key_level + 1)?;
            let steps: Vec<i64> = (0..count as i64).map(|u| u * slots).collect();
            items.extend(m.rotate_many(&source, &steps)?);
        }
        for (i, item) in items.iter().enumerate().skip(queries) {
            let c = (i - queries) % ciphertexts;
            let (cache, mask) = if i < queries + ciphertexts {
                (&mut kept.keys[c], &masks.key)
            } else {
                (&mut kept.values[c], &masks.value)
            };
            let level = m.level(cache) + 1;
            let item = m.drop_to_level(item, level.min(m.level(item)))?;
            let mut item = m.dot_masks(&[(&item, mask)])?;
            let block = masks.position as i64 / slots;
            for bit in 0..ratio.trailing_zeros() {
                if block >> bit & 1 == 1 {
                    item = m.rotate(&item, -(slots << bit))?;
                }
            }
            let scale = m.scale(&item);
            m.chain().same_scale("cache", m.scale(cache), scale)?;
            *cache = m.add(cache, &item)?;
        }

        // scores of all items in one ciphertext, as the variable of the series
        let series = self.function.series;
        let half = (series.hi - series.lo) / 2.0;
        let factor = 0.5 * self.score_factor / half;
        let mut scores = Vec::with_capacity(queries);
        for (i, item) in items.iter().take(queries).enumerate() {
            let key = &kept.keys[self.cache.cache_of(i)];
            let level = m.level(key);
            let wanted = m.chain().scale * factor * m.chain().q[level] / m.scale(key);
            let query = m.dot_masks_at_scale(&[(item, &masks.query)], wanted)?;
            let query = spread(m, query, slots, ratio)?;
            let product = m.mul(&query, key)?;
            let sum = gather(m, product, heads.pair_step(), heads.pairs)?;
            scores.push(m.rotate(&sum, -(i as i64) * heads.pair_step())?);
        }
        let terms: Vec<(&M::Ct, &Mask)> = scores.iter().zip(&masks.scores).collect();
        let sum = m.dot_masks(&terms)?;
        let mirrored = m.conjugate(&sum)?;
        let real = m.add(&sum, &mirrored)?;
        let u = m.scale_values(&real, factor);
        let u = m.add_values(&u, &self.bias(masks.position))?;
        let weights = self.function.apply(m, &u)?;

        // weighted sums
        let mut outputs = Vec::with_capacity(queries);
        for (i, mask) in masks.scores.iter().enumerate() {
            let value = &kept.values[self.cache.cache_of(i)];
            let own = m.dot_masks(&[(&weights, mask)])?;
            let own = m.rotate(&own, i as i64 * heads.pair_step())?;
            let own = spread(m, own, heads.pair_step(), heads.pairs)?;
            let product = m.mul(&own, value)?;
            let sum = gather(m, product, 1, heads.layout().tokens())?;
            outputs.push(m.rotate(&sum, -(i as i64) * slots)?);
        }
        let terms: Vec<(&M::Ct, &Mask)> = outputs.iter().zip(&masks.join).collect();
        let joined = m.dot_masks(&terms)?;
        let joined = spread(m, joined, 1, self.cache.step.tokens())?;
        let output = m.scale_values(&joined, self.value_factor);
        Ok((output, weights))
    }

    /// Biases of the scores as the series' variable; the middle of the interval where no score stands.
    fn bias(&self, position: usize) -> Vec<f64> {
        let series = self.function.series;
        let of_head = |head: usize| {
            let b = self.head_bias.get(head).copied().unwrap_or(0.0);
            series.normalise(b - ((position + 1) as f64).ln())
        };
        self.cache.by_score(position, 0.0, of_head)
    }

    /// `weights` with zero where no score stands: there they are those of the interval's middle.
    pub fn present<M: Machine>(
        &self,
        m: &mut M,
        weights: &M::Ct,
        position: usize,
    ) -> Result<M::Ct, EnsiError> {
        let absent = -self.function.at(0.0);
        m.add_values(weights, &self.cache.by_score(position, absent, |_| 0.0))
    }
}
