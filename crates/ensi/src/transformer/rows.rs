//! Normalised rows: every head's attention output times `1/sqrt(S^2 + eps^2)` of its row's sum `S` of weights.
//!
//! This is what softmax attention has and sigmoid attention has not (`Attention::NormalisedSigmoid` of `tacit_bitnet`). The sums are narrow, one
//! number a head and token, but they spread over three decades, and a refresh keeps an *absolute* error. So what is refreshed is not `S`:
//!
//! ```text
//!     S = sum_j A[i,j]  ─►  c(S), degree 7, near ln(S + d)  ─►[StC · refresh]─►  1/sqrt(S^2 + eps^2) as a polynomial of c  ─►  times the output
//! ```
//!
//! An error of `c` is a *relative* error of its inverse, whatever the sum. All heads' sums share one refresh, the ternary layer of which copies
//! them to where the outputs stand. The data itself waits at the end of its levels for one product.
//!
//! Masked scores are 0 and become `sigma(bias)`, a public number, which is subtracted before the sum.

use num_complex::Complex64;
use tacit_bitnet::{ChebyshevSeries, LayerCalibration};

use crate::{
    EnsiError,
    layout::Half,
    machine::{Machine, Mask},
    ternary_layer::{Place, Source, TernaryLayer},
    transformer::{
        REFRESH_MARGIN,
        attention::HeadLayout,
        cached::{CacheLayout, gather, spread},
        norm::sum_blocks,
    },
};

/// The two series of a layer's rows.
#[derive(Clone, Copy)]
pub struct RowSeries<'a> {
    compression: &'a ChebyshevSeries,
    inverse: &'a ChebyshevSeries,
}

impl<'a> RowSeries<'a> {
    /// Of a layer; `None` where rows are not normalised.
    pub fn of(calibration: &'a LayerCalibration) -> Option<Self> {
        Some(Self {
            compression: calibration.row_compression.as_ref()?,
            inverse: calibration.row_inverse.as_ref()?,
        })
    }

    /// `c(S)` as the variable of the inverse, of `sums` brought together by masks: one level, and those of the series.
    ///
    /// Each mask holds one where a sum is taken; scales are set by the same product. Sums are copied to `copies` slots from there on.
    fn compressed<M: Machine>(
        &self,
        m: &mut M,
        sums: &[M::Ct],
        masks: &[Mask],
        copies: usize,
    ) -> Result<M::Ct, EnsiError> {
        let (from, to) = (self.compression, self.inverse);
        let half = (from.hi - from.lo) / 2.0;
        let ordinary = m.chain().scale;
        let terms: Vec<(&M::Ct, &Mask)> = sums.iter().zip(masks).collect();
        let u = m.dot_masks_at_scale(&terms, ordinary / half)?;
        let u = spread(m, u, 1, copies)?;
        let u = m.scale_values(&u, 1.0 / half);
        let u = m.add_const(&u, -(from.hi + from.lo) / (from.hi - from.lo))?;
        let width = (to.hi - to.lo) / 2.0;
        let mut coefficients: Vec<f64> = from.coeffs.iter().map(|c| c / width).collect();
        coefficients[0] -= (to.hi + to.lo) / (2.0 * width);
        m.chebyshev(&u, &coefficients, ordinary)
    }
}

/// Where sums stand before and after their refresh.
pub struct Rows {
    refresh: TernaryLayer,
    /// Where sums are taken: for each group of a window; of a step, one.
    taken: Vec<Mask>,
    /// Where the inverses of each group of a window stand; empty if they stand everywhere.
    given: Vec<Mask>,
}

impl Rows {
    /// Of a window: sums of group `g` in the blocks `(p, h)` with `p = g mod G`, where `G` is the power of two at or above the number of groups.
    ///
    /// # Errors
    /// [`EnsiError::Shape`] when there are more groups than tokens.
    pub fn window(heads: &HeadLayout) -> Result<Self, EnsiError> {
        let (layout, count) = (heads.layout(), Self::period(heads));
        if count > layout.tokens() {
            return Err(EnsiError::Shape(format!(
                "{} groups of heads are more than the window has tokens ({}): use a longer window",
                heads.groups(),
                layout.tokens()
            )));
        }
        // what is over stands for the first group, so that every value lies in its interval
        let group_of = |p: usize| Some(p % count).filter(|g| *g < heads.groups()).unwrap_or(0);
        let columns = (0..count * heads.group)
            .map(|block| Source {
                ciphertext: 0,
                block,
            })
            .collect();
        let rows = count * heads.group;
        let refresh = copies("row sums", columns, |row| {
            (row..layout.blocks()).step_by(rows).collect()
        })?;
        let mask = |group: &dyn Fn(usize) -> usize, g: usize| heads.mask(|p, _| one(group(p) == g));
        let groups = 0..heads.groups();
        let taken = groups.clone().map(|g| mask(&group_of, g)).collect();
        let given = groups
            .filter(|_| count > 1)
            .map(|g| mask(&|p| p % count, g));
        Ok(Self {
            refresh,
            taken,
            given: given.collect(),
        })
    }

    /// Of a decode step.
    ///
    /// # Errors
    /// As [`TernaryLayer::new`].
    pub fn step(cache: &CacheLayout) -> Result<Self, EnsiError> {
        let heads = cache.window();
        let places = cache.score_blocks();
        let mut free: Vec<bool> = vec![true; cache.layout().blocks()];
        let mut outputs: Vec<Vec<usize>> = places
            .iter()
            .map(|(head, _)| (0..heads.pairs).map(|f| cache.output(*head, f)).collect())
            .collect();
        outputs.iter().flatten().for_each(|b| free[*b] = false);
        // blocks without an output get the first head's sums, so that every value lies in its interval
        outputs[0].extend((0..free.len()).filter(|b| free[*b]));
        let columns = places
            .iter()
            .map(|(_, block)| Source {
                ciphertext: 0,
                block: *block,
            })
            .collect();
        let refresh = copies("row sums", columns, |row| outputs[row].clone())?;
        let first = |p: usize, t: usize| t == 0 && p % heads.pairs < cache.queries();
        Ok(Self {
            refresh,
            taken: vec![heads.mask(|p, t| one(first(p, t)))],
            given: Vec::new(),
        })
    }

    /// The power of two at or above the number of groups.
    fn period(heads: &HeadLayout) -> usize {
        heads.groups().next_power_of_two()
    }

    /// The inverses of all sums after their refresh, at a scale of one prime of `level`: a product with a value of that level keeps its scale.
    fn inverses<M: Machine>(
        &self,
        m: &mut M,
        compressed: M::Ct,
        series: RowSeries,
        level: usize,
    ) -> Result<M::Ct, EnsiError> {
        let delta = m.chain().message_scale / REFRESH_MARGIN;
        let refreshed = m.linear(&[compressed], &self.refresh, delta)?;
        let (v, _) = refreshed
            .into_iter()
            .next()
            .ok_or_else(|| EnsiError::Shape("row sums: nothing came back".into()))?;
        let ordinary = m.chain().scale;
        // the refresh leaves a fixed factor in the scale
        let v = m.match_scale(&v, ordinary)?;
        let scale = m.chain().q[level];
        m.chebyshev(&v, &series.inverse.coeffs, scale)
    }

    /// `outputs` of all groups of a window, each times the inverse of its rows' sums. `weights` are zero where causality forbids.
    pub fn normalise_window<M: Machine>(
        &self,
        m: &mut M,
        heads: &HeadLayout,
        series: RowSeries,
        weights: &[M::Ct],
        outputs: Vec<M::Ct>,
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let layout = heads.layout();
        let sums = weights
            .iter()
            .map(|ct| sum_blocks(m, layout, ct, heads.group, layout.tokens()))
            .collect::<Result<Vec<_>, _>>()?;
        let compressed = series.compressed(m, &sums, &self.taken, 1)?;
        let level = m.level(&outputs[0]);
        let inverses = self.inverses(m, compressed, series, level)?;
        let mut out = Vec::with_capacity(outputs.len());
        for (g, output) in outputs.iter().enumerate() {
            let own = match self.given.get(g) {
                None => inverses.clone(),
                Some(mask) => {
                    let low = m.drop_to_level(&inverses, level + 1)?;
                    let own = m.dot_masks(&[(&low, mask)])?;
                    sum_blocks(m, layout, &own, heads.group, Self::period(heads))?
                }
            };
            out.push(m.mul(output, &own)?);
        }
        Ok(out)
    }

    /// The output of a decode step times the inverses of its rows' sums. `weights` are zero where no token is.
    pub fn normalise_step<M: Machine>(
        &self,
        m: &mut M,
        cache: &CacheLayout,
        series: RowSeries,
        weights: &M::Ct,
        output: &M::Ct,
    ) -> Result<M::Ct, EnsiError> {
        let tokens = cache.window().layout().tokens();
        let sums = gather(m, weights.clone(), 1, tokens)?;
        let slots = cache.layout().tokens();
        let compressed = series.compressed(m, &[sums], &self.taken, slots)?;
        let level = m.level(output);
        let inverses = self.inverses(m, compressed, series, level)?;
        m.mul(output, &inverses)
    }
}

/// One where the condition holds, zero elsewhere.
fn one(condition: bool) -> Complex64 {
    Complex64::from(f64::from(u8::from(condition)))
}

/// A layer that copies each column to the real parts of the blocks `places(column)`.
fn copies(
    name: &str,
    columns: Vec<Source>,
    places: impl Fn(usize) -> Vec<usize>,
) -> Result<TernaryLayer, EnsiError> {
    let count = columns.len();
    let mut layer = TernaryLayer::new(name, 1, columns)?;
    for column in 0..count {
        let mut row = vec![0i8; count];
        row[column] = 1;
        let places = places(column)
            .into_iter()
            .map(|block| Place {
                ciphertext: 0,
                block,
                half: Half::Re,
            })
            .collect();
        layer.push_row(&row, places)?;
    }
    Ok(layer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::Layout;

    #[test]
    fn every_block_of_a_window_gets_the_sums_of_its_group() {
        let layout = Layout::new(1 << 12, 16).unwrap();
        let heads = HeadLayout::new(layout, 20, 1, 8).unwrap();
        let rows = Rows::window(&heads).unwrap();
        let period = Rows::period(&heads);
        assert_eq!((heads.groups(), period), (3, 4));
        let mut seen = vec![0; layout.blocks()];
        for row in 0..rows.refresh.rows() {
            let source = rows.refresh.columns()[row].block;
            for place in rows.refresh.places(row) {
                seen[place.block] += 1;
                assert_eq!(place.block % heads.group, source % heads.group);
                assert_eq!(
                    place.block / heads.group % period,
                    source / heads.group % period
                );
            }
        }
        assert!(seen.iter().all(|n| *n == 1));
        for slot in 0..layout.slots() {
            // every slot has a sum; an inverse is taken once in each run of blocks
            let sum =
                |masks: &[Mask]| -> Complex64 { masks.iter().map(|m| m.values()[slot]).sum() };
            assert_eq!(sum(&rows.taken), Complex64::ONE);
            let run = slot / layout.tokens() / heads.group % period;
            assert_eq!(sum(&rows.given), one(run < heads.groups()));
        }
    }
}
