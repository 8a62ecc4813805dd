//! RMSNorm: `y = x * (mean(x^2) + eps)^(-1/2) * gain`, with its deep part on one ciphertext.
//!
//! All squares are added before one relinearisation; the sum over features is `log2` rotations by whole blocks, after which the
//! mean square of token `t` stands in slot `t` of every block. The inverse square root is a polynomial on that single
//! ciphertext, however wide the data is (ENSI's place for depth), and one product brings it back to the data.

use tacit_bitnet::ChebyshevSeries;

use crate::{
    EnsiError,
    layout::Layout,
    machine::{Machine, Mask, series_depth},
};

/// Whether a series of this many coefficients may be evaluated at a scale that deviates from the ordinary one by so many bits.
///
/// Scales of `T_k` deviate `k` times as much; 12 bits below are harmless for the last one, and nothing may be much above.
fn tolerated(coefficients: usize, deviation: f64) -> bool {
    let last = (coefficients.next_power_of_two() as f64 / 2.0).max(1.0);
    deviation < 0.5 && deviation > -(12.0 / last).min(5.0)
}

/// Brings `factor * ct`, a value in `[lo, hi]`, to the variable `u = (2v - lo - hi)/(hi - lo)` of a Chebyshev series.
///
/// Free (the scale is reinterpreted), but for one level when the scale would be too far from the ordinary one for the degree.
pub fn series_variable<M: Machine>(
    m: &mut M,
    ct: &M::Ct,
    factor: f64,
    series: &ChebyshevSeries,
) -> Result<M::Ct, EnsiError> {
    let half = (series.hi - series.lo) / 2.0;
    let mut u = m.scale_values(ct, factor / half);
    let ordinary = m.chain().scale;
    if !tolerated(series.coeffs.len(), (m.scale(&u) / ordinary).log2()) {
        u = m.match_scale(&u, ordinary)?;
    }
    m.add_const(&u, -(series.hi + series.lo) / (series.hi - series.lo))
}

/// `sum over `count` blocks `stride` apart, by rotate-and-add. With a cyclic period the sum is left in every block; otherwise in
/// the first block of each run.
pub fn sum_blocks<M: Machine>(
    m: &mut M,
    layout: &Layout,
    ct: &M::Ct,
    stride: usize,
    count: usize,
) -> Result<M::Ct, EnsiError> {
    let mut sum = ct.clone();
    let mut reach = 1;
    while reach < count {
        let moved = m.rotate(&sum, layout.block_rotation((stride * reach) as i64))?;
        sum = m.add(&sum, &moved)?;
        reach *= 2;
    }
    Ok(sum)
}

/// A norm with what it needs to run.
pub struct Norm<'a> {
    /// Number of features.
    pub features: usize,
    /// Approximates `1/sqrt(ms + eps)` of the mean square.
    pub series: &'a ChebyshevSeries,
    /// Gains for every ciphertext, `None` when all are one.
    pub gain: Option<&'a [Mask]>,
}

impl Norm<'_> {
    /// Levels from the data to the normalised data: square, possible scale correction, series, product, gain.
    pub fn depth(&self) -> usize {
        3 + series_depth(self.series.coeffs.len()) + usize::from(self.gain.is_some())
    }

    /// Normalises `x` (real ciphertexts of one vector, equal scales).
    pub fn apply<M: Machine>(
        &self,
        m: &mut M,
        layout: &Layout,
        x: &[M::Ct],
    ) -> Result<Vec<M::Ct>, EnsiError> {
        let start = m.chain().bottom + self.depth();
        let x: Vec<M::Ct> = x
            .iter()
            .map(|ct| {
                let level = m.level(ct).min(start);
                m.drop_to_level(ct, level)
            })
            .collect::<Result<_, _>>()?;
        let squares: Vec<(&M::Ct, &M::Ct)> = x.iter().map(|ct| (ct, ct)).collect();
        let square = m.dot(&squares)?;
        let sum = sum_blocks(m, layout, &square, 1, layout.period(self.features))?;
        let u = series_variable(m, &sum, 1.0 / self.features as f64, self.series)?;
        let scale = m.chain().scale;
        let inverse_root = m.chebyshev(&u, &self.series.coeffs, scale)?;
        let mut out = Vec::with_capacity(x.len());
        for (i, ct) in x.iter().enumerate() {
            let mut y = m.mul(ct, &inverse_root)?;
            if let Some(gain) = self.gain {
                y = m.dot_masks(&[(&y, &gain[i])])?;
            }
            out.push(y);
        }
        Ok(out)
    }
}
