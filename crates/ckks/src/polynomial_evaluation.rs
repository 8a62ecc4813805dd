//! [`crate::polynomial`] on ciphertexts.

use std::collections::BTreeMap;

use num_complex::Complex64;
use rayon::prelude::*;
use tacit_ring::{RnsPoly, ops};

use crate::ciphertext::Ciphertext;
use crate::counts::count;
use crate::error::CkksError;
use crate::evaluator::{Evaluator, to_integer};
use crate::keys::EvaluationKeys;
use crate::polynomial::{
    ChebyshevSeries, Plan, depth, divide, is_leaf, leading_power, split_of_basis, trimmed,
};
use crate::quadratic::Quadratic;

/// The least and the largest scale of the variable, relative to the primes it is rescaled by: outside, scales of the powers run away.
const SCALE_RANGE: (f64, f64) = (1.0 / 64.0, 2.0);

impl Evaluator {
    /// The variable of a Chebyshev series: `u = (2x - lo - hi)/(hi - lo)`, in `[-1, 1]` for `x` in `[lo, hi]`.
    ///
    /// Free of levels: the factor `2/(hi - lo)` is a new reading of the scale (which becomes `scale*(hi - lo)/2`), the offset an addition.
    /// So hold `x` with a scale of about `2/(hi - lo)` times the usual one, that is, with polynomial coefficients of the usual size.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] if the interval is empty or not finite.
    pub fn chebyshev_variable(
        &self,
        ct: &Ciphertext,
        lo: f64,
        hi: f64,
    ) -> Result<Ciphertext, CkksError> {
        if !(lo.is_finite() && hi.is_finite() && lo < hi) {
            return Err(CkksError::InvalidParameters {
                field: "interval of a polynomial",
                found: format!("[{lo}, {hi}]"),
                expected: "finite ends with lo < hi".into(),
            });
        }
        let mut u = ct.clone();
        u.scale *= (hi - lo) / 2.0;
        let offset = -(lo + hi) / (hi - lo);
        if offset != 0.0 {
            self.add_const(&mut u, Complex64::new(offset, 0.0))?;
        }
        Ok(u)
    }

    /// `p(x)` for a series on an interval, with exactly the scale `target_scale`, `series.depth()` levels below `ct`.
    ///
    /// # Errors
    /// As [`Self::chebyshev_variable`] and [`Self::evaluate_chebyshev`].
    pub fn evaluate_series(
        &self,
        ct: &Ciphertext,
        series: &ChebyshevSeries,
        target_scale: f64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let variable = self.chebyshev_variable(ct, series.lo, series.hi)?;
        self.evaluate_chebyshev(&variable, &series.coeffs, target_scale, keys)
    }

    /// `sum_k coeffs[k] * T_k(u)` for `u` in `[-1, 1]`, with exactly the scale `target_scale`, `ceil(log2(degree + 1))` levels below `u`.
    ///
    /// # Errors
    /// [`CkksError::LevelTooLow`]; [`CkksError::InvalidParameters`] if the scale of `u` is far from the primes below its level, or a
    /// coefficient is not finite; errors of key switching.
    pub fn evaluate_chebyshev(
        &self,
        u: &Ciphertext,
        coeffs: &[f64],
        target_scale: f64,
        keys: &EvaluationKeys,
    ) -> Result<Ciphertext, CkksError> {
        let mut results = self.evaluate_chebyshev_many(u, &[(coeffs, target_scale)], keys)?;
        Ok(results.remove(0))
    }

    /// Several polynomials (coefficients and target scale each) of one variable on one basis. Each result is at the level its own degree asks for.
    ///
    /// # Errors
    /// As [`Self::evaluate_chebyshev`].
    pub fn evaluate_chebyshev_many(
        &self,
        u: &Ciphertext,
        polynomials: &[(&[f64], f64)],
        keys: &EvaluationKeys,
    ) -> Result<Vec<Ciphertext>, CkksError> {
        for (coeffs, scale) in polynomials {
            let degree = trimmed(coeffs).len().saturating_sub(1);
            if coeffs.iter().any(|c| !c.is_finite()) || !(scale.is_finite() && *scale > 0.0) {
                return Err(CkksError::InvalidParameters {
                    field: "polynomial",
                    found: format!("coefficients {coeffs:?}, target scale {scale}"),
                    expected: "finite coefficients and a positive scale".into(),
                });
            }
            if depth(degree) > u.level {
                return Err(CkksError::LevelTooLow {
                    operation: "evaluate a polynomial",
                    found: u.level,
                    needed: depth(degree),
                });
            }
        }
        if u.parts.len() != 2 {
            return Err(CkksError::Shape {
                what: "ciphertext parts",
                found: u.parts.len(),
                expected: "2 (relinearise the product first)".into(),
            });
        }
        let coefficients: Vec<&[f64]> = polynomials.iter().map(|(c, _)| *c).collect();
        let plan = Plan::best(&coefficients);
        if !plan.basis.is_empty() {
            let relative = u.scale / self.context().params().q(u.level).value() as f64;
            if !(SCALE_RANGE.0..=SCALE_RANGE.1).contains(&relative) {
                return Err(CkksError::InvalidParameters {
                    field: "scale of the variable of a polynomial",
                    found: format!("2^{:.2}, {relative:.3} times the prime it is rescaled by", u.scale.log2()),
                    expected: "between 1/64 and 2 times that prime; rescale the product before to another scale".into(),
                });
            }
        }
        let mut evaluation = Evaluation {
            evaluator: self,
            keys,
            top: u.level,
            baby: plan.baby,
            basis: BTreeMap::from([(1, u.clone())]),
        };
        for &k in &plan.basis {
            evaluation.make(k)?;
        }
        let nodes: Vec<Node> = polynomials
            .iter()
            .filter(|(coeffs, _)| trimmed(coeffs).len() > 1)
            .map(|&(coeffs, scale)| {
                let p = trimmed(coeffs);
                evaluation.node(p, depth(p.len() - 1), scale)
            })
            .collect();
        let mut values = evaluation.evaluate(&nodes)?.into_iter();
        polynomials
            .iter()
            .map(|&(coeffs, scale)| match trimmed(coeffs) {
                p @ ([] | [_]) => {
                    self.constant_ciphertext(p.first().copied().unwrap_or(0.0), u.level, scale)
                }
                _ => Ok(values
                    .next()
                    .expect("one value for every polynomial that is not constant")),
            })
            .collect()
    }

    /// A constant without noise.
    fn constant_ciphertext(
        &self,
        value: f64,
        level: usize,
        scale: f64,
    ) -> Result<Ciphertext, CkksError> {
        let n = self.context().n();
        let parts = (0..2).map(|_| RnsPoly::zero(n, level + 1)).collect();
        let mut constant = Ciphertext {
            parts,
            level,
            scale,
        };
        self.add_const(&mut constant, Complex64::new(value, 0.0))?;
        Ok(constant)
    }
}

/// The basis elements of one variable, and what is needed to combine them.
struct Evaluation<'a> {
    evaluator: &'a Evaluator,
    keys: &'a EvaluationKeys,
    top: usize,
    baby: usize,
    basis: BTreeMap<usize, Ciphertext>,
}

impl Evaluation<'_> {
    fn prime(&self, level: usize) -> f64 {
        self.evaluator.context().params().q(level).value() as f64
    }

    /// `T_k = 2 T_a T_b - T_{a-b}`, the elements it needs first.
    fn make(&mut self, k: usize) -> Result<(), CkksError> {
        if self.basis.contains_key(&k) {
            return Ok(());
        }
        let (a, b) = split_of_basis(k);
        for needed in [a, b, a - b] {
            if needed > 0 {
                self.make(needed)?;
            }
        }
        let (ta, tb) = (&self.basis[&a], &self.basis[&b]);
        let product = ta.scale * tb.scale;
        let level = ta.level.min(tb.level);
        // Scales below the primes are made up for by an integer factor: T_k keeps about the scale of the primes.
        let nominal = self.prime(level) * self.prime(level).min(self.prime(level - 1));
        let factor = (nominal / product).round().max(1.0);
        let (linear, constant) = if a == b {
            (None, -1.0)
        } else {
            (Some((&self.basis[&(a - b)], -1.0)), 0.0)
        };
        let doubled = Quadratic {
            products: &[(ta, tb)],
            factor: 2 * factor as u64,
            linear,
            constant,
            scale: product * factor,
        };
        let element = self.evaluator.quadratic(&doubled, self.keys)?;
        self.basis.insert(k, element);
        Ok(())
    }

    /// How `p` is put together at `depth` levels below the variable, with exactly this scale.
    fn node(&self, p: &[f64], depth: usize, scale: f64) -> Node {
        let level = self.top - depth + 1;
        let mut node = Node {
            level,
            scale,
            sum_scale: scale * self.prime(level),
            constant: 0.0,
            linear: Vec::new(),
            products: Vec::new(),
        };
        let mut rest = trimmed(p).to_vec();
        loop {
            let degree = rest.len().saturating_sub(1);
            if is_leaf(degree, self.baby, depth) {
                node.constant = rest.first().copied().unwrap_or(0.0);
                let terms = rest.iter().enumerate().skip(1);
                node.linear
                    .extend(terms.filter(|&(_, &c)| c != 0.0).map(|(k, &c)| (k, c)));
                return node;
            }
            let m = leading_power(degree);
            let (q, r) = divide(&rest, m);
            if q.len() == 1 {
                node.linear.push((m, q[0]));
            } else {
                let factor = self.node(&q, depth - 1, node.sum_scale / self.basis[&m].scale);
                node.products.push((factor, m));
            }
            rest = trimmed(&r).to_vec();
        }
    }

    /// Evaluates nodes and all below them. The sums of constants times basis elements of all nodes come first, in one pass over the basis.
    fn evaluate(&self, nodes: &[Node]) -> Result<Vec<Ciphertext>, CkksError> {
        let mut all = Vec::new();
        nodes.iter().for_each(|node| node.list(&mut all));
        let mut sums = self.linear_sums(&all)?.into_iter();
        nodes
            .iter()
            .map(|node| self.finish(node, &mut sums))
            .collect()
    }

    /// Adds the products of a node to its linear sum (which comes next, before those of the nodes below), relinearises and rescales.
    fn finish(
        &self,
        node: &Node,
        sums: &mut impl Iterator<Item = Ciphertext>,
    ) -> Result<Ciphertext, CkksError> {
        let sum = sums.next().expect("one linear sum for every node");
        let factors = node
            .products
            .iter()
            .map(|(factor, _)| self.finish(factor, sums))
            .collect::<Result<Vec<_>, _>>()?;
        let powers = node.products.iter().map(|(_, m)| &self.basis[m]);
        let products: Vec<_> = factors.iter().zip(powers).collect();
        let mut result = if products.is_empty() {
            self.evaluator.rescale(&sum)?
        } else {
            let linear = Some((&sum, 1.0));
            let all = Quadratic {
                linear,
                ..Quadratic::sum(&products)?
            };
            self.evaluator.quadratic(&all, self.keys)?
        };
        // Equal up to the rounding of f64.
        result.scale = node.scale;
        Ok(result)
    }

    /// `constant + sum_k c_k T_k` for every node, each constant scaled so that the sum has the node's scale.
    fn linear_sums(&self, nodes: &[&Node]) -> Result<Vec<Ciphertext>, CkksError> {
        let n = self.evaluator.context().n();
        let integers = nodes
            .iter()
            .map(|node| {
                let scaled = |&(k, c): &(usize, f64)| {
                    Ok((k, to_integer(c * (node.sum_scale / self.basis[&k].scale))?))
                };
                node.linear.iter().map(scaled).collect()
            })
            .collect::<Result<Vec<Vec<(usize, i128)>>, CkksError>>()?;
        let mut sums: Vec<Ciphertext> = nodes
            .iter()
            .map(|node| Ciphertext {
                parts: (0..2)
                    .map(|_| RnsPoly::unspecified(n, node.level + 1))
                    .collect(),
                level: node.level,
                scale: node.sum_scale,
            })
            .collect();
        for part in 0..2 {
            // outputs[limb] = (node, limb of its sum) of all nodes that have this limb.
            let mut outputs: Vec<Vec<(usize, &mut [u64])>> =
                (0..=self.top).map(|_| Vec::new()).collect();
            for (node, sum) in sums.iter_mut().enumerate() {
                for (outputs, limb) in outputs.iter_mut().zip(sum.parts[part].limbs_iter_mut()) {
                    outputs.push((node, limb));
                }
            }
            outputs
                .into_par_iter()
                .enumerate()
                .for_each(|(j, mut outputs)| {
                    let m = self.evaluator.context().modulus(self.top, j);
                    for start in (0..n).step_by(TILE) {
                        let end = (start + TILE).min(n);
                        let term = |k: &usize| &self.basis[k].parts[part].limb(j)[start..end];
                        for (node, out) in &mut outputs {
                            let out = &mut out[start..end];
                            let Some(((k, integer), rest)) = integers[*node].split_first() else {
                                out.fill(0);
                                continue;
                            };
                            ops::mul_scalar(m, out, term(k), m.from_i128(*integer));
                            for (k, integer) in rest {
                                ops::mul_scalar_add_assign(m, out, term(k), m.from_i128(*integer));
                            }
                        }
                    }
                });
        }
        for (node, sum) in nodes.iter().zip(&mut sums) {
            if node.constant != 0.0 {
                self.evaluator
                    .add_const(sum, Complex64::new(node.constant, 0.0))?;
            }
        }
        let terms = integers.iter().map(Vec::len).sum();
        count(&self.evaluator.counters.constants, terms);
        count(&self.evaluator.counters.additions, terms);
        Ok(sums)
    }
}

/// `constant + sum_k c_k T_k + sum (factor * T_m)`: formed at `level` with `sum_scale`, then rescaled to one level less and `scale`.
struct Node {
    level: usize,
    scale: f64,
    sum_scale: f64,
    constant: f64,
    linear: Vec<(usize, f64)>,
    products: Vec<(Node, usize)>,
}

impl Node {
    /// This node and all below it, in the order of their evaluation.
    fn list<'a>(&'a self, all: &mut Vec<&'a Node>) {
        all.push(self);
        self.products
            .iter()
            .for_each(|(factor, _)| factor.list(all));
    }
}

/// Residues at a time in linear sums: a tile of the basis stays in the second-level cache for all sums.
const TILE: usize = 2048;
