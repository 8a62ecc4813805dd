//! CoeffsToSlots and SlotsToCoeffs as products of sparse matrices, without bit reversal.
//!
//! The inverse special FFT ([`crate::fft`]) is `log2(N/2)` butterfly stages and a bit reversal. Leaving the bit reversal out
//! keeps every stage sparse (three diagonals), and the slots come in bit-reversed order: after CoeffsToSlots
//!
//! ```text
//! slot j = c[br(j)] + i * c[br(j) + N/2]        br on log2(N/2) bits
//! ```
//!
//! SlotsToCoeffs is the exact inverse and takes that order. Stages are multiplied together in groups, one group a level:
//! `k` stages make `2^(k+1) - 1` diagonals (`2^k` where the group holds the stage of half length, which wraps around).
//!
//! Two properties keep keys and plaintexts small:
//!
//! * A group whose longest butterfly is `h` has diagonals of period `2h`; only the first group of CoeffsToSlots (the last of
//!   SlotsToCoeffs) has full-size plaintexts. [`crate::linear_map`] stores one period only.
//! * The negative diagonals are shifted away: a factor is `F = F' * rot(-s)` with `F'` having diagonals `0..2s` only, and the
//!   rotations `rot(-s)` of all factors are moved into the wrapping factor. The strides make their sum a multiple of that
//!   factor's stride, so that they cost nothing.
//!
//! Conventions: `rot(r)` maps `x` to `x[k + r]`; the matrix with diagonals `d_i` maps `x` to `sum_i d_i[k] * x[k + i]`.

use std::collections::BTreeMap;

use num_complex::Complex64;

use crate::fft::{SpecialFft, bit_reversed};

/// A sparse matrix on `slots` complex values, by diagonals of a common period.
///
/// `y[k] = sum_i diagonals[i][k mod period] * x[(k + i) mod slots]`.
#[derive(Clone, Debug, PartialEq)]
pub struct SparseMatrix {
    slots: usize,
    period: usize,
    diagonals: BTreeMap<i64, Vec<Complex64>>,
}

impl SparseMatrix {
    /// The number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The length of each stored diagonal; entry `k` of the diagonal is entry `k mod period`.
    pub fn period(&self) -> usize {
        self.period
    }

    /// Diagonals by index; index `i` multiplies the input rotated by `i`.
    pub fn diagonals(&self) -> &BTreeMap<i64, Vec<Complex64>> {
        &self.diagonals
    }

    /// Multiplies every entry by `factor`.
    pub fn scale(&mut self, factor: f64) {
        self.diagonals
            .values_mut()
            .flatten()
            .for_each(|z| *z *= factor);
    }

    /// The matrix-vector product in the clear.
    pub fn apply(&self, x: &[Complex64]) -> Vec<Complex64> {
        let n = self.slots as i64;
        (0..n)
            .map(|k| {
                self.diagonals
                    .iter()
                    .map(|(&i, d)| d[k as usize % self.period] * x[(k + i).rem_euclid(n) as usize])
                    .sum()
            })
            .collect()
    }

    /// `self * right` (`right` is applied first): diagonal `i + j` gets `self_i[k] * right_j[k + i]`.
    fn after(&self, right: &Self) -> Self {
        let period = self.period.max(right.period);
        let mut diagonals = BTreeMap::<i64, Vec<Complex64>>::new();
        for (&i, a) in &self.diagonals {
            for (&j, b) in &right.diagonals {
                let sum = diagonals
                    .entry(i + j)
                    .or_insert_with(|| vec![Complex64::ZERO; period]);
                for (k, s) in sum.iter_mut().enumerate() {
                    let shifted = (k as i64 + i).rem_euclid(right.period as i64) as usize;
                    *s += a[k % self.period] * b[shifted];
                }
            }
        }
        Self {
            slots: self.slots,
            period,
            diagonals,
        }
    }

    /// Indices modulo the number of slots, equal ones added.
    fn wrapped(self) -> Self {
        let mut diagonals = BTreeMap::<i64, Vec<Complex64>>::new();
        for (i, d) in self.diagonals {
            match diagonals.entry(i.rem_euclid(self.slots as i64)) {
                std::collections::btree_map::Entry::Vacant(entry) => {
                    entry.insert(d);
                }
                std::collections::btree_map::Entry::Occupied(mut entry) => {
                    entry.get_mut().iter_mut().zip(d).for_each(|(a, b)| *a += b);
                }
            }
        }
        Self { diagonals, ..self }
    }

    /// Adds `index` to all diagonal indices and replaces each diagonal `d[k]` by `d[k + offset]`.
    fn shifted(self, index: i64, offset: i64) -> Self {
        let period = self.period as i64;
        let diagonals = self
            .diagonals
            .into_iter()
            .map(|(i, d)| {
                let moved = (0..period)
                    .map(|k| d[(k + offset).rem_euclid(period) as usize])
                    .collect();
                (i + index, moved)
            })
            .collect();
        Self { diagonals, ..self }
    }
}

/// One butterfly stage with entries `half` apart, forward (`false`) or inverse (`true`, with the factor 1/2).
fn stage(fft: &SpecialFft, half: usize, inverse: bool) -> SparseMatrix {
    let one = Complex64::ONE;
    let zero = Complex64::ZERO;
    let (mut same, mut up, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for &w in fft.stage_roots(half) {
        same.push(one);
        up.push(if inverse { one } else { w });
        down.push(zero);
    }
    for &w in fft.stage_roots(half) {
        same.push(if inverse { -w.conj() } else { -w });
        up.push(zero);
        down.push(if inverse { w.conj() } else { one });
    }
    let half = half as i64;
    let mut diagonals = BTreeMap::from([(0, same), (half, up), (-half, down)]);
    if inverse {
        diagonals.values_mut().flatten().for_each(|z| *z *= 0.5);
    }
    SparseMatrix {
        slots: fft.slots(),
        period: 2 * half as usize,
        diagonals,
    }
}

/// The group of `count` stages with halves `lowest, 2*lowest, …` as one matrix, and its largest negative index.
fn group(fft: &SpecialFft, lowest: usize, count: usize, inverse: bool) -> (SparseMatrix, i64) {
    let halves: Vec<usize> = (0..count).map(|k| lowest << k).collect();
    let stages = halves.iter().map(|&h| stage(fft, h, inverse));
    // Forward stages run from short to long butterflies, inverse ones from long to short.
    let matrix = if inverse {
        stages.rev().reduce(|done, next| next.after(&done))
    } else {
        stages.reduce(|done, next| next.after(&done))
    };
    let highest = lowest << (count - 1);
    (
        matrix.expect("groups are not empty"),
        (2 * highest - lowest) as i64,
    )
}

/// Splits the stages into groups, given from the stage `half = 1` upwards: (lowest half, number of stages).
fn groups(fft: &SpecialFft, grouping: &[usize]) -> Vec<(usize, usize)> {
    let stages = fft.slots().trailing_zeros() as usize;
    assert!(
        !grouping.contains(&0) && grouping.iter().sum::<usize>() == stages,
        "the grouping {grouping:?} must split the {stages} stages of {} slots",
        fft.slots()
    );
    let mut lowest = 1;
    grouping
        .iter()
        .map(|&count| {
            let this = (lowest, count);
            lowest <<= count;
            this
        })
        .collect()
}

/// The factors of CoeffsToSlots in the order of their application; their product maps the slot values of a polynomial to
/// `c[br(j)] + i*c[br(j) + N/2]` in slot `j`. `grouping[f]` is the number of stages in factor `f`.
///
/// All diagonal indices are non-negative multiples of the factor's stride.
///
/// # Panics
/// If `grouping` does not sum to `log2(slots)`.
pub fn coeffs_to_slots_factors(fft: &SpecialFft, grouping: &[usize]) -> Vec<SparseMatrix> {
    let ascending: Vec<usize> = grouping.iter().rev().copied().collect();
    let mut factors = Vec::new();
    // From the factor applied last (stride 1): F * rot(-pending) with all indices of F shifted up by s.
    let mut pending = 0;
    for (lowest, count) in groups(fft, &ascending) {
        let (matrix, negative) = group(fft, lowest, count, true);
        if (lowest << count) == fft.slots() {
            factors.push(matrix.shifted(-pending, -pending).wrapped());
        } else {
            let s = negative + i64::from(lowest == 1);
            factors.push(matrix.shifted(s, -pending));
            pending += s;
        }
    }
    factors.reverse();
    factors
}

/// The factors of SlotsToCoeffs in the order of their application: the exact inverse of [`coeffs_to_slots_factors`].
///
/// # Panics
/// If `grouping` does not sum to `log2(slots)`.
pub fn slots_to_coeffs_factors(fft: &SpecialFft, grouping: &[usize]) -> Vec<SparseMatrix> {
    let mut factors = Vec::new();
    // From the factor applied first (stride 1): rot(-pending) * F.
    let mut pending = 0;
    for (lowest, count) in groups(fft, grouping) {
        let (matrix, negative) = group(fft, lowest, count, false);
        if (lowest << count) == fft.slots() {
            factors.push(matrix.shifted(-pending, 0).wrapped());
        } else {
            let s = negative + i64::from(lowest == 1);
            pending += s;
            factors.push(matrix.shifted(s, pending));
        }
    }
    factors
}

/// Where CoeffsToSlots puts coefficient `index` of a polynomial of degree below `n`: the slot, and whether it is the imaginary part.
///
/// `index = br(slot)` (real part) or `n/2 + br(slot)` (imaginary part), `br` on `log2(n/2)` bits.
pub fn slot_of_coefficient(n: usize, index: usize) -> (usize, bool) {
    let half = n / 2;
    (
        bit_reversed(index % half, half.trailing_zeros()),
        index >= half,
    )
}

/// The inverse of [`slot_of_coefficient`].
pub fn coefficient_of_slot(n: usize, slot: usize, imaginary: bool) -> usize {
    let half = n / 2;
    bit_reversed(slot, half.trailing_zeros()) + if imaginary { half } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<Complex64> {
        (0..len)
            .map(|k| Complex64::new((k as f64 * 0.7).sin(), (k as f64 * 1.3 + 0.2).cos()))
            .collect()
    }

    fn distance(a: &[Complex64], b: &[Complex64]) -> f64 {
        a.iter()
            .zip(b)
            .map(|(x, y)| (x - y).norm())
            .fold(0.0, f64::max)
    }

    const GROUPINGS: [(usize, &[usize]); 5] = [
        (11, &[4, 3, 3]),
        (10, &[3, 3, 3]),
        (10, &[9]),
        (9, &[2, 6]),
        (10, &[1, 1, 2, 5]),
    ];

    #[test]
    fn coeffs_to_slots_is_the_inverse_fft_in_bit_reversed_order() {
        for (log_n, grouping) in GROUPINGS {
            let fft = SpecialFft::new(1 << log_n);
            let coefficients = values(fft.slots());
            let mut slots = coefficients.clone();
            fft.coeffs_to_slots(&mut slots);
            for factor in coeffs_to_slots_factors(&fft, grouping) {
                slots = factor.apply(&slots);
            }
            let expected: Vec<_> = (0..fft.slots())
                .map(|j| coefficients[coefficient_of_slot(fft.n(), j, false)])
                .collect();
            let worst = distance(&slots, &expected);
            assert!(
                worst < 1e-12,
                "log n {log_n}, grouping {grouping:?}: {worst}"
            );
        }
    }

    #[test]
    fn slots_to_coeffs_undoes_coeffs_to_slots() {
        for (log_n, grouping) in GROUPINGS {
            let fft = SpecialFft::new(1 << log_n);
            let x = values(fft.slots());
            let mut y = x.clone();
            for factor in slots_to_coeffs_factors(&fft, grouping) {
                y = factor.apply(&y);
            }
            for factor in coeffs_to_slots_factors(&fft, grouping) {
                y = factor.apply(&y);
            }
            assert!(
                distance(&x, &y) < 1e-12,
                "log n {log_n}, grouping {grouping:?}"
            );
        }
    }

    #[test]
    fn diagonals_are_few_non_negative_and_periodic() {
        let fft = SpecialFft::new(1 << 11);
        let cts = coeffs_to_slots_factors(&fft, &[4, 3, 3]);
        let count: Vec<_> = cts.iter().map(|f| f.diagonals().len()).collect();
        assert_eq!(count, [16, 15, 15]);
        let periods: Vec<_> = cts.iter().map(SparseMatrix::period).collect();
        assert_eq!(periods, [1024, 64, 8]);
        for (factor, stride) in cts.iter().zip([64, 8, 1]) {
            assert!(
                factor
                    .diagonals()
                    .keys()
                    .all(|&i| i >= 0 && i % stride == 0 && i < 16 * stride)
            );
        }
        let stc = slots_to_coeffs_factors(&fft, &[3, 3, 4]);
        for (factor, stride) in stc.iter().zip([1, 8, 64]) {
            assert!(
                factor
                    .diagonals()
                    .keys()
                    .all(|&i| i >= 0 && i % stride == 0 && i < 16 * stride)
            );
        }
    }

    #[test]
    fn coefficient_and_slot_are_inverse_maps() {
        for index in 0..64 {
            let (slot, imaginary) = slot_of_coefficient(64, index);
            assert_eq!(coefficient_of_slot(64, slot, imaginary), index);
        }
    }
}
