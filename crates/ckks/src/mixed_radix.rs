//! From residues to numbers: the symmetric mixed-radix representation.
//!
//! ```text
//! x = d_0 + d_1 q_0 + d_2 q_0 q_1 + …     |d_i| <= (q_i - 1)/2
//! d_i = (x - (d_0 + … + d_{i-1} q_0 … q_{i-2})) (q_0 … q_{i-1})^-1 mod q_i, centred
//! ```
//!
//! All moduli are odd, so this represents exactly the integers of the centred range, and the digits above the size of `x` vanish: nothing
//! cancels. Messages are far below the modulus, nearly always below `q_0 q_1`; then two digits are all, which the other residues confirm
//! (`x mod q_i = d_0 + d_1 q_0 mod q_i`) at the cost of a few passes of vector loops. A block of coefficients that is not so small gets all digits.

use rayon::prelude::*;
use tacit_ring::{Modulus, RnsPoly, ops};

/// Coefficients of one task: its rows stay in the first-level cache.
const BLOCK: usize = 1024;

/// The integers in `(-Q/2, Q/2)` with the given residues (coefficients, one limb a modulus), rounded to `f64`; once if they are below `q_0 q_1 / 2`.
pub(crate) fn centred_to_f64(poly: &RnsPoly, moduli: &[Modulus]) -> Vec<f64> {
    let radix = MixedRadix::new(moduli);
    let mut out = vec![0.0; poly.n()];
    out.par_chunks_mut(BLOCK)
        .enumerate()
        .for_each(|(block, out)| {
            let range = block * BLOCK..block * BLOCK + out.len();
            let rows: Vec<&[u64]> = poly.limbs_iter().map(|limb| &limb[range.clone()]).collect();
            if !radix.two_digits(&rows, out) {
                radix.all_digits(&rows, out);
            }
        });
    out
}

/// The constants of a base.
struct MixedRadix<'a> {
    moduli: &'a [Modulus],
    /// `weight[i][j] = q_0 … q_{j-1} mod q_i` for `j <= i`.
    weight: Vec<Vec<u64>>,
    /// `(q_0 … q_{i-1})^-1 mod q_i`.
    inverse: Vec<u64>,
    /// `q_0 … q_{i-1}`, rounded.
    radix: Vec<f64>,
}

impl<'a> MixedRadix<'a> {
    fn new(moduli: &'a [Modulus]) -> Self {
        let weight: Vec<Vec<u64>> = moduli
            .iter()
            .enumerate()
            .map(|(i, m)| {
                let mut product = 1;
                let mut row = vec![product];
                row.extend(moduli[..i].iter().map(|q| {
                    product = m.mul(product, m.reduce(q.value()));
                    product
                }));
                row
            })
            .collect();
        let inverse = moduli
            .iter()
            .enumerate()
            .map(|(i, m)| m.inv(weight[i][i]))
            .collect();
        let radix = moduli
            .iter()
            .scan(1.0, |r, q| {
                let now = *r;
                *r *= q.value() as f64;
                Some(now)
            })
            .collect();
        Self {
            moduli,
            weight,
            inverse,
            radix,
        }
    }

    /// Writes the integers if two digits represent all of them, else says no.
    fn two_digits(&self, rows: &[&[u64]], out: &mut [f64]) -> bool {
        let [q0, q1, others @ ..] = self.moduli else {
            return false;
        };
        let mut buffer = [[0u64; BLOCK]; 3];
        let [second, x, y] = buffer.each_mut().map(|row| &mut row[..out.len()]);
        // d_1 as a residue.
        ops::reduce_centred(q1, q0, x, rows[0]);
        second.copy_from_slice(rows[1]);
        ops::sub_mul_scalar_assign(q1, second, x, self.inverse[1]);
        for (i, m) in others.iter().enumerate().map(|(i, m)| (i + 2, m)) {
            ops::reduce_centred(m, q0, x, rows[0]);
            ops::reduce_centred(m, q1, y, second);
            ops::mul_scalar_add_assign(m, x, y, self.weight[i][1]);
            if x != rows[i] {
                return false;
            }
        }
        for ((out, &d0), &d1) in out.iter_mut().zip(rows[0]).zip(&*second) {
            let (d0, d1) = (i128::from(q0.centre(d0)), i128::from(q1.centre(d1)));
            *out = (d0 + d1 * i128::from(q0.value())) as f64;
        }
        true
    }

    /// Writes the integers, whatever their size.
    fn all_digits(&self, rows: &[&[u64]], out: &mut [f64]) {
        let q0 = i128::from(self.moduli[0].value());
        let mut digits: Vec<(usize, i64)> = Vec::with_capacity(self.moduli.len());
        for (k, out) in out.iter_mut().enumerate() {
            digits.clear();
            for (i, m) in self.moduli.iter().enumerate() {
                let known = digits.iter().fold(0, |sum, &(j, d)| {
                    m.add(sum, m.mul(self.weight[i][j], m.from_i64(d)))
                });
                let digit = m.centre(m.mul(m.sub(rows[i][k], known), self.inverse[i]));
                if digit != 0 {
                    digits.push((i, digit));
                }
            }
            // The two lowest digits exactly, so that a message of up to 100 bits is rounded once.
            let low: i128 = digits
                .iter()
                .filter(|(i, _)| *i < 2)
                .map(|&(i, d)| i128::from(d) * if i == 1 { q0 } else { 1 })
                .sum();
            *out = digits
                .iter()
                .filter(|(i, _)| *i >= 2)
                .fold(low as f64, |sum, &(i, d)| sum + d as f64 * self.radix[i]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tacit_ring::ntt_primes;

    fn moduli(count: usize) -> Vec<Modulus> {
        ntt_primes(45, 16, count, &[])
            .unwrap()
            .into_iter()
            .map(|q| Modulus::new(q).unwrap())
            .collect()
    }

    fn residues(values: &[i128], moduli: &[Modulus]) -> RnsPoly {
        let rows: Vec<u64> = moduli
            .iter()
            .flat_map(|m| values.iter().map(|&x| m.from_i128(x)))
            .collect();
        RnsPoly::from_slice(values.len(), &rows)
    }

    #[test]
    fn integers_of_all_sizes_come_back() {
        for count in 1..=5 {
            let moduli = moduli(count);
            let half: i128 = moduli
                .iter()
                .take(2)
                .map(|q| i128::from(q.value()))
                .product::<i128>()
                / 2;
            // Up to the edge of two digits; with more moduli also beyond it, in one block and in another.
            let mut values: Vec<i128> = (0..4 * BLOCK as i128)
                .map(|k| (k - 2 * BLOCK as i128) * (half / (2 * BLOCK as i128)))
                .collect();
            values[5] = half;
            values[6] = -half;
            if count > 2 {
                values[3 * BLOCK + 7] = half + 1;
                values[3 * BLOCK + 8] = -half - 1;
                values[3 * BLOCK + 9] = i128::MAX / 4;
            }
            let found = centred_to_f64(&residues(&values, &moduli), &moduli);
            for (k, (x, &found)) in values.iter().zip(&found).enumerate() {
                let want = *x as f64;
                let error = (found - want).abs() / want.abs().max(1.0);
                let allowed = if x.abs() <= half { 0.0 } else { 1e-15 };
                assert!(error <= allowed, "{count} moduli, {k}: {found} for {x}");
            }
        }
    }

    #[test]
    fn both_ways_agree_on_small_integers_and_only_one_takes_large_ones() {
        let moduli = moduli(4);
        let radix = MixedRadix::new(&moduli);
        let small: Vec<i128> = (0..96).map(|k| (k - 40) * 123_456_789_012_345).collect();
        let poly = residues(&small, &moduli);
        let rows: Vec<&[u64]> = poly.limbs_iter().collect();
        let (mut two, mut all) = (vec![0.0; 96], vec![0.0; 96]);
        assert!(radix.two_digits(&rows, &mut two));
        radix.all_digits(&rows, &mut all);
        assert_eq!(two, all);
        let mut large = small;
        large[95] = 1 << 100;
        let poly = residues(&large, &moduli);
        let rows: Vec<&[u64]> = poly.limbs_iter().collect();
        assert!(!radix.two_digits(&rows, &mut two));
    }
}
