//! EvalMod: the polynomial that removes the multiples of `q0` which ModRaise leaves behind.
//!
//! After ModRaise and CoeffsToSlots a slot holds `y = I + m/ratio` with an integer `|I| <= K` and a message `|m| <= 1`
//! (`ratio = q0/Delta`). Wanted is `m/ratio`, for which the sine stands in: `sin(2 pi y)/(2 pi) = m/ratio - O((m/ratio)^3)`.
//! With `r` double angles (`cos 2x = 2 cos^2 x - 1`) the polynomial approximates
//!
//! ```text
//! p(y / (K + margin)) = cos(2 pi (y - 1/4) / 2^r)          on the intervals |y - I| <= 1.02/ratio, |I| <= K
//! ```
//!
//! Only these `2K + 1` short intervals matter, not the space between them, so that a least-squares fit on them needs a far lower
//! degree than an approximation on the whole of `[-K, K]` (Han and Ki, CT-RSA 2020). Degree 63 with `K = 15` and one double angle
//! takes 7 levels; it is just enough (value and slope at 31 integers), so that the settings belong together: see [`EvalModParameters`].
//!
//! The sine's cubic term limits the result to `(2 pi/ratio)^2/6`: 17.3 bits at `ratio = 2^10`, `|m| = 1`. With the arcsine's first term,
//! `v + (2 pi/ratio)^2/6 v^3` for the result `v` in units of the message (Lee, Lee, Lee, Kim and No, EUROCRYPT 2021), the limit is of the fifth
//! power, and a smaller ratio, for which all other errors are smaller too, is enough.

use crate::error::CkksError;

/// Settings of EvalMod.
///
/// Precision of the default, 50-bit primes, N = 2^16, simulated with noise: 18.5 bits root mean square, 16.4 bits worst of 2^16 slots.
/// Failure probability for an ephemeral secret of weight 32: 2^-121.7 a coefficient, 2^-105.7 a bootstrap ([`failure_log2`]).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvalModParameters {
    /// Bound `K` on the multiples of `q0`.
    pub bound: u32,
    /// Degree of the fitted polynomial.
    pub degree: usize,
    /// Number `r` of double angles.
    pub double_angles: u32,
    /// `log2(q0/Delta)`: a message of 1 sits at `q0/2^log_ratio` in the coefficients.
    pub log_ratio: u32,
    /// Whether the first term of the arcsine follows, two levels more: it takes away the sine's cubic term.
    pub arcsine: bool,
}

impl Default for EvalModParameters {
    fn default() -> Self {
        Self {
            bound: 15,
            degree: 63,
            double_angles: 1,
            log_ratio: 10,
            arcsine: false,
        }
    }
}

/// Relative width by which the intervals are wider than the message, for the noise on it.
const OVERSHOOT: f64 = 1.02;
/// Chebyshev nodes on each interval.
const NODES: usize = 9;

/// The fitted polynomial of EvalMod with its settings.
#[derive(Clone, Debug)]
pub struct EvalModPolynomial {
    parameters: EvalModParameters,
    coefficients: Vec<f64>,
}

impl EvalModPolynomial {
    /// Fits `cos(2 pi (y - 1/4)/2^r)` by least squares in the Chebyshev basis of `u = y/range`.
    ///
    /// # Errors
    /// [`CkksError::InvalidParameters`] if the settings do not make a usable fit (rank deficiency, or coefficients so large that noise
    /// would drown the result).
    pub fn fit(parameters: EvalModParameters) -> Result<Self, CkksError> {
        let EvalModParameters {
            bound,
            degree,
            double_angles,
            log_ratio,
            ..
        } = parameters;
        let rows = (2 * bound as usize + 1) * NODES;
        if !(1..=64).contains(&bound)
            || degree < 1
            || rows < 2 * degree
            || double_angles > 4
            || !(4..=20).contains(&log_ratio)
        {
            return Err(CkksError::InvalidParameters {
                field: "EvalMod",
                found: format!("{parameters:?}"),
                expected: format!(
                    "a bound of 1 to 64, a degree of 1 to {}, at most 4 double angles and a log ratio of 4 to 20; use EvalModParameters::default()",
                    rows / 2
                ),
            });
        }
        let width = OVERSHOOT * 0.5f64.powi(log_ratio as i32);
        let range = parameters.range();
        let mut matrix = Vec::with_capacity(rows);
        let mut wanted = Vec::with_capacity(rows);
        for i in -(bound as i64)..=bound as i64 {
            for k in 0..NODES {
                let node = (std::f64::consts::PI * (k as f64 + 0.5) / NODES as f64).cos();
                let y = i as f64 + width * node;
                matrix.push(chebyshev_row(y / range, degree));
                wanted.push(parameters.target(i, width * node));
            }
        }
        let coefficients = least_squares(matrix, wanted)
            .filter(|c| c.iter().all(|c| c.abs() <= 2.0))
            .ok_or_else(|| CkksError::InvalidParameters {
                field: "EvalMod",
                found: format!("{parameters:?}, which has no well-conditioned fit"),
                expected: "a higher degree, a lower bound or more double angles".into(),
            })?;
        Ok(Self {
            parameters,
            coefficients,
        })
    }

    /// The settings.
    pub fn parameters(&self) -> EvalModParameters {
        self.parameters
    }

    /// Chebyshev coefficients of `p` in `u = y/range` (degree + 1 of them).
    pub fn coefficients(&self) -> &[f64] {
        &self.coefficients
    }

    /// The result for `y` in the clear, in units of the message: `ratio/(2 pi) * (double angles of p)(y)`.
    pub fn eval(&self, y: f64) -> f64 {
        let mut value =
            crate::polynomial::chebyshev_value(&self.coefficients, y / self.parameters.range());
        for _ in 0..self.parameters.double_angles {
            value = 2.0 * value * value - 1.0;
        }
        value *= self.parameters.ratio() / (2.0 * std::f64::consts::PI);
        if self.parameters.arcsine {
            value += self.parameters.cubic() * value.powi(3);
        }
        value
    }

    /// Worst error over all intervals in bits, `-log2 max |eval(I + m/ratio) - m|`, on a grid of `points` messages `|m| <= 1` each.
    pub fn precision_bits(&self, points: usize) -> f64 {
        let bound = i64::from(self.parameters.bound);
        let ratio = self.parameters.ratio();
        let worst = (-bound..=bound)
            .flat_map(|i| {
                (0..points).map(move |k| (i, 2.0 * k as f64 / (points - 1).max(1) as f64 - 1.0))
            })
            .map(|(i, m)| (self.eval(i as f64 + m / ratio) - m).abs())
            .fold(0.0, f64::max);
        -worst.log2()
    }
}

impl EvalModParameters {
    /// `q0/Delta`.
    pub fn ratio(&self) -> f64 {
        2f64.powi(self.log_ratio as i32)
    }

    /// Half of the interval that is mapped to `[-1, 1]`: `K` plus the width of an interval.
    pub fn range(&self) -> f64 {
        f64::from(self.bound) + OVERSHOOT / self.ratio()
    }

    /// Levels consumed: `ceil(log2(degree + 1)) + r`, two more with the arcsine.
    pub fn depth(&self) -> usize {
        crate::polynomial::depth(self.degree)
            + self.double_angles as usize
            + 2 * usize::from(self.arcsine)
    }

    /// `(2 pi/ratio)^2/6`: `m - cubic m^3` is what the sine makes of a message `m`, up to the fifth power.
    pub fn cubic(&self) -> f64 {
        (2.0 * std::f64::consts::PI / self.ratio()).powi(2) / 6.0
    }

    /// `cos(2 pi (i + x - 1/4)/2^r)` with the integer reduced exactly.
    fn target(&self, i: i64, x: f64) -> f64 {
        let turns = f64::from(1u32 << self.double_angles);
        let whole = i.rem_euclid(1 << self.double_angles) as f64;
        (2.0 * std::f64::consts::PI * (whole - 0.25 + x) / turns).cos()
    }
}

/// `T_0(u), …, T_degree(u)`.
fn chebyshev_row(u: f64, degree: usize) -> Vec<f64> {
    let mut row = vec![1.0, u];
    for k in 2..=degree {
        row.push(2.0 * u * row[k - 1] - row[k - 2]);
    }
    row.truncate(degree + 1);
    row
}

/// Householder QR: the `x` that minimises `|a x - b|`, or `None` if a column is dependent on the earlier ones.
pub(crate) fn least_squares(mut a: Vec<Vec<f64>>, mut b: Vec<f64>) -> Option<Vec<f64>> {
    let (rows, columns) = (a.len(), a.first()?.len());
    for c in 0..columns {
        let norm = (c..rows).map(|r| a[r][c] * a[r][c]).sum::<f64>().sqrt();
        if norm.is_nan() || norm < 1e-13 {
            return None;
        }
        let alpha = -norm.copysign(a[c][c]);
        let mut v: Vec<f64> = (c..rows).map(|r| a[r][c]).collect();
        v[0] -= alpha;
        let square: f64 = v.iter().map(|x| x * x).sum();
        let mut dots = vec![0.0; columns - c];
        for (r, vr) in v.iter().enumerate() {
            dots.iter_mut()
                .zip(&a[c + r][c..])
                .for_each(|(dot, x)| *dot += vr * x);
        }
        for (r, vr) in v.iter().enumerate() {
            a[c + r][c..]
                .iter_mut()
                .zip(&dots)
                .for_each(|(x, dot)| *x -= 2.0 * vr * dot / square);
        }
        let dot: f64 = v.iter().zip(&b[c..]).map(|(x, y)| x * y).sum();
        v.iter()
            .zip(&mut b[c..])
            .for_each(|(x, y)| *y -= 2.0 * x * dot / square);
    }
    let mut x = vec![0.0; columns];
    for c in (0..columns).rev() {
        let sum: f64 = (c + 1..columns).map(|k| a[c][k] * x[k]).sum();
        x[c] = (b[c] - sum) / a[c][c];
    }
    Some(x)
}

/// `log2` of the probability that a bootstrap of `coefficients` coefficients fails because some `|I| > bound`.
///
/// With an ephemeral secret of Hamming weight `weight`, `(b + a*s)/q0` is (up to the message) a sum of `weight + 1` values uniform in
/// `[-1/2, 1/2)`, and `|I| > K` needs `|sum| >= K + 1/2`: the tail of the Irwin-Hall distribution, times the number of coefficients.
/// `-infinity` where the sum cannot reach that far (`weight <= 2*bound`).
///
/// ```
/// let log2 = tacit_ckks::eval_mod::failure_log2(32, 15, 1 << 16);
/// assert!((log2 - -105.7).abs() < 0.1);
/// ```
pub fn failure_log2(weight: usize, bound: u32, coefficients: usize) -> f64 {
    let terms = weight + 1;
    let x = terms as f64 / 2.0 - (f64::from(bound) + 0.5);
    if x <= 0.0 {
        return f64::NEG_INFINITY;
    }
    // F_n(x) = (x F_{n-1}(x) + (n - x) F_{n-1}(x - 1))/n, all terms positive; row[k] = F_n(x - k).
    let mut row: Vec<f64> = (0..=terms)
        .map(|k| if x - k as f64 >= 0.0 { 1.0 } else { 0.0 })
        .collect();
    for n in 1..=terms {
        for k in 0..terms {
            let t = x - k as f64;
            row[k] = if t <= 0.0 {
                0.0
            } else if t >= n as f64 {
                1.0
            } else {
                (t * row[k] + (n as f64 - t) * row[k + 1]) / n as f64
            };
        }
        row[terms] = 0.0;
    }
    ((2.0 * row[0]).log2() + (coefficients as f64).log2()).min(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_fit_reaches_the_precision_of_the_sine() {
        let polynomial = EvalModPolynomial::fit(EvalModParameters::default()).unwrap();
        let bits = polynomial.precision_bits(33);
        let largest = polynomial
            .coefficients()
            .iter()
            .fold(0.0f64, |a, c| a.max(c.abs()));
        println!("precision {bits:.2} bits, largest coefficient {largest:.3}");
        assert!((16.0..=17.4).contains(&bits), "{bits}");
        assert!(largest < 1.0, "{largest}");
    }

    #[test]
    fn other_ratios_follow_the_cubic_term() {
        for (log_ratio, low, high) in [(8, 13.2, 13.4), (9, 15.2, 15.4)] {
            let bits = EvalModPolynomial::fit(EvalModParameters {
                log_ratio,
                ..Default::default()
            })
            .unwrap()
            .precision_bits(33);
            assert!(
                (low..=high).contains(&bits),
                "log ratio {log_ratio}: {bits}"
            );
        }
    }

    #[test]
    fn the_arcsine_takes_the_cubic_term_away() {
        let with = |arcsine| {
            let parameters = EvalModParameters {
                log_ratio: 8,
                arcsine,
                ..Default::default()
            };
            (
                EvalModPolynomial::fit(parameters)
                    .unwrap()
                    .precision_bits(33),
                parameters.depth(),
            )
        };
        let ((plain, depth), (corrected, deeper)) = (with(false), with(true));
        assert!(plain < 13.5 && corrected > 17.0, "{plain}, {corrected}");
        assert_eq!((depth, deeper), (7, 9));
    }

    #[test]
    fn a_degree_too_low_is_seen_in_the_precision() {
        match EvalModPolynomial::fit(EvalModParameters {
            degree: 55,
            ..Default::default()
        }) {
            Ok(polynomial) => assert!(
                polynomial.precision_bits(9) < 12.0,
                "{}",
                polynomial.precision_bits(9)
            ),
            Err(error) => assert!(error.to_string().contains("higher degree")),
        }
        assert!(
            EvalModPolynomial::fit(EvalModParameters {
                degree: 40,
                ..Default::default()
            })
            .is_err()
        );
        assert!(
            EvalModPolynomial::fit(EvalModParameters {
                bound: 0,
                ..Default::default()
            })
            .is_err()
        );
    }

    #[test]
    fn failure_probabilities_match_the_exact_table() {
        for (weight, bound, log2) in [
            (24, 10, 57.7),
            (24, 11, 82.7),
            (32, 10, 36.5),
            (32, 12, 55.7),
            (32, 14, 88.7),
            (32, 15, 121.7),
            (192, 10, 6.8),
            (192, 15, 13.2),
            (192, 28, 40.6),
        ] {
            let found = -failure_log2(weight, bound, 1);
            assert!(
                (found - log2).abs() < 0.06,
                "weight {weight}, bound {bound}: {found}, expected {log2}"
            );
        }
        assert_eq!(failure_log2(32, 16, 1), f64::NEG_INFINITY);
    }
}
