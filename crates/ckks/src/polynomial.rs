//! Polynomials in the Chebyshev basis on ciphertexts: depth-optimal Paterson-Stockmeyer with exact scales.
//!
//! A polynomial of degree `d` takes `ceil(log2(d + 1))` levels. With the baby steps `T_1 … T_{b-1}` and the giant steps
//! `T_b, T_2b, …` (powers of two), `p` is split recursively by the largest power of two `m <= deg p`
//!
//! ```text
//! p = q * T_m + r            T_m T_j = (T_{m+j} + T_{|m-j|})/2
//! ```
//!
//! down to *leaves* of degree below `b`, which are sums of baby steps times constants. Where the depth leaves no level for the
//! constants of a leaf (its baby steps are too deep), it is split further; that happens only along the leading coefficients.
//!
//! **Exact scales.** A node is asked for a result at one level with one scale `S`. It forms the unrescaled sum at the level above,
//! whose scale `S' = S * q_{level + 1}` it knows, and asks `q` for scale `S'/scale(T_m)`; a constant `c` before `T_j` becomes the
//! integer `round(c * S'/scale(T_j))`, at most about 2^50. So nothing is ever added at mismatching scales, and the final scale is
//! exactly the one wanted, whatever the primes are.
//!
//! **Lazy relinearisation.** All products of one node (`q T_m`, and those of its remainders `r`) have the same level and scale: they are
//! summed with three parts, relinearised once and rescaled once. Degree 63 takes 15 relinearisations.
//!
//! Odd and even polynomials skip the basis elements they do not use.

use std::collections::BTreeSet;

/// A polynomial on an interval in the Chebyshev basis: `p(x) = sum_k coeffs[k] * T_k((2x - lo - hi)/(hi - lo))`.
#[derive(Clone, Debug, PartialEq)]
pub struct ChebyshevSeries {
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
    /// Coefficients, the constant first.
    pub coeffs: Vec<f64>,
}

impl ChebyshevSeries {
    /// The value in the clear.
    pub fn eval(&self, x: f64) -> f64 {
        chebyshev_value(
            &self.coeffs,
            (2.0 * x - self.lo - self.hi) / (self.hi - self.lo),
        )
    }

    /// Levels consumed on a ciphertext: `ceil(log2(degree + 1))`.
    pub fn depth(&self) -> usize {
        depth(trimmed(&self.coeffs).len().saturating_sub(1))
    }

    /// Interpolation of `f` in the Chebyshev nodes of `[lo, hi]`: close to the best approximation where `f` is smooth.
    pub fn interpolate(f: impl Fn(f64) -> f64, lo: f64, hi: f64, degree: usize) -> Self {
        let nodes = degree + 1;
        let angle = |k: usize| std::f64::consts::PI * (k as f64 + 0.5) / nodes as f64;
        let values: Vec<f64> = (0..nodes)
            .map(|k| f(0.5 * (lo + hi) + 0.5 * (hi - lo) * angle(k).cos()))
            .collect();
        let coeffs = (0..nodes)
            .map(|j| {
                let sum: f64 = values
                    .iter()
                    .enumerate()
                    .map(|(k, v)| v * (j as f64 * angle(k)).cos())
                    .sum();
                sum * if j == 0 { 1.0 } else { 2.0 } / nodes as f64
            })
            .collect();
        Self { lo, hi, coeffs }
    }
}

/// `sum_k coefficients[k] * T_k(u)` by Clenshaw's recurrence.
pub fn chebyshev_value(coefficients: &[f64], u: f64) -> f64 {
    let (mut next, mut after) = (0.0, 0.0);
    for &c in coefficients.iter().skip(1).rev() {
        (next, after) = (c + 2.0 * u * next - after, next);
    }
    coefficients.first().copied().unwrap_or(0.0) + u * next - after
}

/// Levels consumed by a polynomial of this degree: `ceil(log2(degree + 1))`.
pub fn depth(degree: usize) -> usize {
    (usize::BITS - degree.leading_zeros()) as usize
}

/// Without vanishing leading coefficients.
pub(crate) fn trimmed(p: &[f64]) -> &[f64] {
    let len = p.iter().rposition(|&c| c != 0.0).map_or(0, |k| k + 1);
    &p[..len]
}

/// `(q, r)` with `p = q * T_m + r`, `deg p < 2m`, `deg r < m`.
pub(crate) fn divide(p: &[f64], m: usize) -> (Vec<f64>, Vec<f64>) {
    let mut q = p[m..].to_vec();
    let mut r = p[..m].to_vec();
    for j in 1..q.len() {
        // T_{m+j} = 2 T_m T_j - T_{m-j}
        r[m - j] -= q[j];
        q[j] *= 2.0;
    }
    (q, r)
}

/// The largest power of two that is at most `degree` (which is at least 1).
pub(crate) fn leading_power(degree: usize) -> usize {
    1 << degree.ilog2()
}

/// How `T_k` is made: `T_k = 2 T_a T_b - T_{a-b}`, `a` a power of two: keeps to one parity as far as possible and to the least depth.
pub(crate) fn split_of_basis(k: usize) -> (usize, usize) {
    if k.is_power_of_two() {
        (k / 2, k / 2)
    } else {
        (leading_power(k), k - leading_power(k))
    }
}

/// Whether a polynomial of this degree is evaluated as a sum of baby steps when it may take `depth` levels.
pub(crate) fn is_leaf(degree: usize, baby: usize, depth: usize) -> bool {
    degree < baby && degree <= 1 << (depth - 1)
}

/// What an evaluation will cost, found by walking through it without ciphertexts.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// Size of the baby steps, a power of two.
    pub baby: usize,
    /// Basis elements to compute, `T_1` not among them.
    pub basis: BTreeSet<usize>,
    /// Relinearisations outside the basis.
    pub relinearisations: usize,
    /// Rescales outside the basis that follow no relinearisation.
    pub bare_rescales: usize,
}

impl Plan {
    /// The cheapest plan over the possible sizes of the baby steps, for all polynomials together.
    pub fn best(polynomials: &[&[f64]]) -> Self {
        (1..=5)
            .map(|log_baby| Self::with_baby(polynomials, 1 << log_baby))
            .min_by_key(Self::cost)
            .unwrap_or_default()
    }

    fn with_baby(polynomials: &[&[f64]], baby: usize) -> Self {
        let mut plan = Self {
            baby,
            ..Self::default()
        };
        for p in polynomials {
            let p = trimmed(p);
            if p.len() > 1 {
                plan.node(p, depth(p.len() - 1));
            }
        }
        let mut open: Vec<usize> = plan.basis.iter().copied().collect();
        while let Some(k) = open.pop() {
            let (a, b) = split_of_basis(k);
            for needed in [a, b, a - b] {
                if needed > 1 && plan.basis.insert(needed) {
                    open.push(needed);
                }
            }
        }
        plan
    }

    /// A node that ends in a relinearisation or a bare rescale.
    fn node(&mut self, p: &[f64], depth: usize) {
        if self.sum(p, depth) {
            self.relinearisations += 1;
        } else {
            self.bare_rescales += 1;
        }
    }

    /// The unrescaled sum; returns whether it contains a product of ciphertexts.
    fn sum(&mut self, p: &[f64], depth: usize) -> bool {
        let p = trimmed(p);
        let degree = p.len().saturating_sub(1);
        if is_leaf(degree, self.baby, depth) {
            self.basis.extend((2..p.len()).filter(|&k| p[k] != 0.0));
            return false;
        }
        let m = leading_power(degree);
        let (q, r) = divide(p, m);
        self.basis.insert(m);
        let product = trimmed(&q).len() > 1;
        if product {
            self.node(&q, depth - 1);
        }
        self.sum(&r, depth) | product
    }

    fn cost(&self) -> usize {
        5 * (self.basis.len() + self.relinearisations) + self.bare_rescales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coefficients(degree: usize, parity: Option<usize>) -> Vec<f64> {
        (0..=degree)
            .map(|k| {
                if parity.is_none_or(|p| k % 2 == p) {
                    ((k * k + 3) as f64).sin() / (k + 1) as f64
                } else {
                    0.0
                }
            })
            .collect()
    }

    #[test]
    fn clenshaw_agrees_with_the_cosine() {
        let p = coefficients(20, None);
        for k in 0..50 {
            let angle = k as f64 * 0.06;
            let direct: f64 = p
                .iter()
                .enumerate()
                .map(|(k, c)| c * (k as f64 * angle).cos())
                .sum();
            assert!((direct - chebyshev_value(&p, angle.cos())).abs() < 1e-12);
        }
    }

    #[test]
    fn division_recombines() {
        for degree in 1..40 {
            let p = coefficients(degree, None);
            let m = leading_power(degree);
            let (q, r) = divide(&p, m);
            for u in [-1.0, -0.3, 0.1, 0.77] {
                let t = chebyshev_value(&[vec![0.0; m], vec![1.0]].concat(), u);
                let sum = chebyshev_value(&q, u) * t + chebyshev_value(&r, u);
                assert!((sum - chebyshev_value(&p, u)).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn plans_are_as_cheap_as_stated() {
        let total = |degree, parity| {
            let plan = Plan::best(&[&coefficients(degree, parity)]);
            plan.basis.len() + plan.relinearisations
        };
        assert_eq!(total(1, None), 0);
        assert_eq!(total(3, None), 2);
        assert_eq!(total(7, None), 4);
        assert_eq!(total(15, None), 7);
        assert_eq!(total(31, None), 10);
        assert_eq!(total(63, None), 15);
        assert!(total(63, Some(1)) < 15 && total(31, Some(0)) < 10);
    }

    #[test]
    fn interpolation_is_exact_on_polynomials() {
        let series = ChebyshevSeries::interpolate(|x| 1.0 + x * x * x, -3.0, 5.0, 4);
        for x in [-3.0, -1.0, 0.5, 4.9] {
            assert!((series.eval(x) - 1.0 - x * x * x).abs() < 1e-11);
        }
        assert_eq!(series.depth(), 3);
    }
}
