//! Chebyshev series on an interval: evaluation and weighted least-squares fits.

use serde::{Deserialize, Serialize};

use crate::error::BitnetError;

/// `p(x) = sum_k coeffs[k] * T_k((2x - lo - hi) / (hi - lo))`, meant for `lo <= x <= hi`.
///
/// ```
/// use tacit_bitnet::ChebyshevSeries;
/// let p = ChebyshevSeries::fit(0.0, 2.0, 7, |x: f64| x.exp()).unwrap();
/// assert!((p.eval(1.3) - 1.3f64.exp()).abs() < 1e-5);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChebyshevSeries {
    /// Lower end of the interval.
    pub lo: f64,
    /// Upper end of the interval.
    pub hi: f64,
    /// Coefficients of T_0, T_1, ..., T_degree.
    pub coeffs: Vec<f64>,
}

/// A point of a weighted fit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Where.
    pub x: f64,
    /// Value wanted there.
    pub y: f64,
    /// Weight of the squared error there (not negative).
    pub weight: f64,
}

impl ChebyshevSeries {
    /// Degree of the polynomial.
    pub fn degree(&self) -> usize {
        self.coeffs.len().saturating_sub(1)
    }

    /// Whether `x` lies in the interval (false for NaN).
    pub fn contains(&self, x: f64) -> bool {
        self.lo <= x && x <= self.hi
    }

    /// The variable in [-1, 1]: `(2x - lo - hi) / (hi - lo)`.
    pub fn normalise(&self, x: f64) -> f64 {
        (2.0 * x - self.lo - self.hi) / (self.hi - self.lo)
    }

    /// `p(x)` by Clenshaw's recurrence. Outside of the interval it is the same polynomial, which grows quickly there.
    pub fn eval(&self, x: f64) -> f64 {
        let t = self.normalise(x);
        let (mut b1, mut b2) = (0.0, 0.0);
        for &c in self.coeffs.iter().skip(1).rev() {
            (b1, b2) = (2.0 * t * b1 - b2 + c, b1);
        }
        t * b1 - b2 + self.coeffs.first().copied().unwrap_or(0.0)
    }

    /// Checks that the interval is not empty and that every number is finite; `what` names the series in the message.
    ///
    /// # Errors
    /// Names the series and the number that is wrong.
    pub fn check(&self, what: &str) -> Result<(), BitnetError> {
        let bad = if !(self.lo.is_finite() && self.hi.is_finite() && self.lo < self.hi) {
            format!("interval [{}, {}]", self.lo, self.hi)
        } else if self.coeffs.is_empty() {
            "no coefficients".to_string()
        } else if let Some(k) = self.coeffs.iter().position(|c| !c.is_finite()) {
            format!("coefficient {k} = {}", self.coeffs[k])
        } else {
            return Ok(());
        };
        Err(BitnetError::input(
            format!("polynomial `{what}`: expected lo < hi and finite coefficients, found {bad}"),
            "calibrate the model again",
        ))
    }

    /// Interpolation of `f` at the Chebyshev nodes of `[lo, hi]`: near-best in the maximum norm.
    ///
    /// # Errors
    /// When the interval is empty or `f` is not finite on it.
    pub fn fit(
        lo: f64,
        hi: f64,
        degree: usize,
        f: impl Fn(f64) -> f64,
    ) -> Result<Self, BitnetError> {
        let n = degree + 1;
        let angle = |i: usize| std::f64::consts::PI * (i as f64 + 0.5) / n as f64;
        let values: Vec<f64> = (0..n)
            .map(|i| f(0.5 * (lo + hi) + 0.5 * (hi - lo) * angle(i).cos()))
            .collect();
        let coeffs = (0..n)
            .map(|k| {
                let sum: f64 = (0..n)
                    .map(|i| values[i] * (k as f64 * angle(i)).cos())
                    .sum();
                sum * if k == 0 { 1.0 } else { 2.0 } / n as f64
            })
            .collect();
        let series = Self { lo, hi, coeffs };
        series.check("interpolation")?;
        Ok(series)
    }

    /// Weighted least squares: minimises `sum weight * (p(x) - y)^2`, by Householder QR in the Chebyshev basis.
    ///
    /// # Errors
    /// When the interval is empty, there are fewer samples of positive weight than coefficients, or a number is not finite.
    pub fn fit_weighted(
        lo: f64,
        hi: f64,
        degree: usize,
        samples: &[Sample],
    ) -> Result<Self, BitnetError> {
        let n = degree + 1;
        let series = Self {
            lo,
            hi,
            coeffs: vec![0.0; n],
        };
        series.check("least-squares fit")?;
        let used: Vec<&Sample> = samples.iter().filter(|s| s.weight > 0.0).collect();
        if used.len() < n {
            return Err(BitnetError::input(
                format!(
                    "a fit of degree {degree} needs at least {n} weighted samples, found {}",
                    used.len()
                ),
                "calibrate on more text or lower the degree",
            ));
        }
        if let Some(s) = used
            .iter()
            .find(|s| !(s.x.is_finite() && s.y.is_finite() && s.weight.is_finite()))
        {
            return Err(BitnetError::input(
                format!(
                    "a fit was given the sample x = {}, y = {}, weight = {}",
                    s.x, s.y, s.weight
                ),
                "calibrate with a model whose activations are finite",
            ));
        }
        // Column-major: n columns of the design matrix, then the right side.
        let m = used.len();
        let mut columns = vec![vec![0.0; m]; n + 1];
        for (i, s) in used.iter().enumerate() {
            let (w, t) = (s.weight.sqrt(), series.normalise(s.x));
            let (mut a, mut b) = (1.0, t);
            for column in columns.iter_mut().take(n) {
                column[i] = w * a;
                (a, b) = (b, 2.0 * t * b - a);
            }
            columns[n][i] = w * s.y;
        }
        let coeffs = least_squares(columns)?;
        let series = Self { lo, hi, coeffs };
        series.check("least-squares fit")?;
        Ok(series)
    }
}

/// Solves `min |A c - y|` where the last of the columns is `y`. Householder QR; columns that add nothing new (rank
/// deficiency beyond rounding) get coefficient 0.
fn least_squares(mut columns: Vec<Vec<f64>>) -> Result<Vec<f64>, BitnetError> {
    let n = columns.len() - 1;
    let mut diagonal = vec![0.0; n];
    for k in 0..n {
        let (head, tail) = columns.split_at_mut(k + 1);
        let v = &mut head[k];
        let norm = v[k..].iter().map(|x| x * x).sum::<f64>().sqrt();
        let alpha = if v[k] > 0.0 { -norm } else { norm };
        diagonal[k] = alpha;
        if norm == 0.0 {
            continue;
        }
        v[k] -= alpha;
        let vv = v[k..].iter().map(|x| x * x).sum::<f64>();
        for column in tail.iter_mut() {
            let dot: f64 = v[k..].iter().zip(&column[k..]).map(|(a, b)| a * b).sum();
            let f = 2.0 * dot / vv;
            for (c, a) in column[k..].iter_mut().zip(&v[k..]) {
                *c -= f * a;
            }
        }
    }
    let largest = diagonal.iter().fold(0.0f64, |m, d| m.max(d.abs()));
    let mut coeffs = vec![0.0; n];
    for k in (0..n).rev() {
        if diagonal[k].abs() <= 1e-13 * largest {
            continue;
        }
        let rest: f64 = (k + 1..n).map(|j| columns[j][k] * coeffs[j]).sum();
        coeffs[k] = (columns[n][k] - rest) / diagonal[k];
    }
    Ok(coeffs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clenshaw_agrees_with_the_cosine_form() {
        let p = ChebyshevSeries {
            lo: -3.0,
            hi: 5.0,
            coeffs: vec![0.5, -1.0, 0.25, 2.0, -0.125],
        };
        for i in 0..=40 {
            let x = -3.0 + 8.0 * f64::from(i) / 40.0;
            let theta = p.normalise(x).clamp(-1.0, 1.0).acos();
            let direct: f64 = p
                .coeffs
                .iter()
                .enumerate()
                .map(|(k, c)| c * (k as f64 * theta).cos())
                .sum();
            assert!((p.eval(x) - direct).abs() < 1e-12);
        }
    }

    #[test]
    fn weighted_fit_recovers_a_polynomial() {
        let f = |x: f64| 1.0 - 2.0 * x + 0.5 * x * x * x;
        let samples: Vec<Sample> = (0..200)
            .map(|i| -2.0 + 0.02 * f64::from(i))
            .map(|x| Sample {
                x,
                y: f(x),
                weight: (-x * x).exp(),
            })
            .collect();
        let p = ChebyshevSeries::fit_weighted(-2.0, 2.0, 7, &samples).unwrap();
        for s in &samples {
            assert!((p.eval(s.x) - s.y).abs() < 1e-9);
        }
    }

    #[test]
    fn weights_pull_the_fit_to_where_the_data_is() {
        let near = |x: f64| if x.abs() < 1.0 { 1.0 } else { 1e-4 };
        let samples = |weighted: bool| -> Vec<Sample> {
            (0..2001)
                .map(|i| -10.0 + 0.01 * f64::from(i))
                .map(|x| Sample {
                    x,
                    y: 1.0 / (1.0 + (-x).exp()),
                    weight: if weighted { near(x) } else { 1.0 },
                })
                .collect()
        };
        let error = |p: &ChebyshevSeries| {
            (-99..100)
                .map(|i| 0.01 * f64::from(i))
                .map(|x: f64| (p.eval(x) - 1.0 / (1.0 + (-x).exp())).abs())
                .fold(0.0, f64::max)
        };
        let flat = ChebyshevSeries::fit_weighted(-10.0, 10.0, 7, &samples(false)).unwrap();
        let weighted = ChebyshevSeries::fit_weighted(-10.0, 10.0, 7, &samples(true)).unwrap();
        assert!(
            error(&weighted) < 0.5 * error(&flat),
            "{} against {}",
            error(&weighted),
            error(&flat)
        );
    }

    #[test]
    fn bad_fits_are_errors() {
        assert!(ChebyshevSeries::fit(1.0, 1.0, 3, |x| x).is_err());
        assert!(ChebyshevSeries::fit(-1.0, 1.0, 3, |x| 1.0 / (x * 0.0)).is_err());
        assert!(
            ChebyshevSeries::fit_weighted(
                0.0,
                1.0,
                3,
                &[Sample {
                    x: 0.5,
                    y: 1.0,
                    weight: 1.0
                }]
            )
            .is_err()
        );
    }
}
