//! Rényi divergences of sampled mechanisms.
//!
//! With `μ_0` the noise, `μ_1` the noise shifted by the sensitivity and `μ = (1−q) μ_0 + q μ_1`, the divergence of order `α` is
//! `ln A(α) / (α − 1)`, `A(α) = E_{μ_0}[(μ/μ_0)^α]` (Mironov, Talwar and Zhang 2019, theorem 4 and section 3.3).

use std::f64::consts::{LN_2, PI, SQRT_2};

/// `ln Σ sign_i e^{l_i}` over terms given as logarithm and sign; `−∞` if nothing positive is left.
fn log_sum(terms: &[(f64, f64)]) -> f64 {
    let most = terms.iter().map(|t| t.0).fold(f64::NEG_INFINITY, f64::max);
    if !most.is_finite() {
        return most;
    }
    let sum: f64 = terms.iter().map(|(l, sign)| sign * (l - most).exp()).sum();
    most + sum.max(0.0).ln()
}

/// `ln erfc(x)`, also where `erfc` itself is below the smallest number.
fn log_erfc(x: f64) -> f64 {
    if x < 20.0 {
        return libm::erfc(x).ln();
    }
    // Asymptotic series; at x = 20 the next term is below 1e-12.
    let y = 1.0 / (2.0 * x * x);
    -x * x - (x * PI.sqrt()).ln() + (-y + 3.0 * y * y - 15.0 * y * y * y).ln_1p()
}

/// `ln C(n, k)` for whole numbers.
fn log_binomial(n: f64, k: f64) -> f64 {
    libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
}

/// Rényi divergence of order `alpha > 1` of the Gaussian mechanism of noise multiplier `sigma` on a Poisson sample of rate `q`.
pub(crate) fn gaussian(q: f64, sigma: f64, alpha: f64) -> f64 {
    if q == 1.0 {
        return alpha / (2.0 * sigma * sigma);
    }
    let log_a = if alpha.fract() == 0.0 {
        log_a_whole(q, sigma, alpha)
    } else {
        log_a_fractional(q, sigma, alpha)
    };
    (log_a / (alpha - 1.0)).max(0.0)
}

/// `A(α) = Σ_k C(α,k) (1−q)^{α−k} q^k e^{(k²−k)/2σ²}`.
fn log_a_whole(q: f64, sigma: f64, alpha: f64) -> f64 {
    let terms: Vec<(f64, f64)> = (0..=alpha as u32)
        .map(|k| {
            let k = f64::from(k);
            let l = log_binomial(alpha, k)
                + k * q.ln()
                + (alpha - k) * (-q).ln_1p()
                + (k * k - k) / (2.0 * sigma * sigma);
            (l, 1.0)
        })
        .collect();
    log_sum(&terms)
}

/// The two binomial series on either side of `z_0 = σ² ln(1/q − 1) + 1/2`, each against its part of the Gaussian integral.
fn log_a_fractional(q: f64, sigma: f64, alpha: f64) -> f64 {
    let z0 = sigma * sigma * (1.0 / q - 1.0).ln() + 0.5;
    let (log_q, log_p) = (q.ln(), (-q).ln_1p());
    let mut terms = Vec::new();
    let (mut log_c, mut sign) = (0.0, 1.0);
    for i in 0..100_000u32 {
        let i = f64::from(i);
        let j = alpha - i;
        let low = log_c
            + i * log_q
            + j * log_p
            + (i * i - i) / (2.0 * sigma * sigma)
            + log_erfc((i - z0) / (SQRT_2 * sigma))
            - LN_2;
        let high = log_c
            + j * log_q
            + i * log_p
            + (j * j - j) / (2.0 * sigma * sigma)
            + log_erfc((z0 - j) / (SQRT_2 * sigma))
            - LN_2;
        terms.extend([(low, sign), (high, sign)]);
        if i > alpha && low.max(high) < -36.0 {
            break;
        }
        let factor = j / (i + 1.0);
        log_c += factor.abs().ln();
        sign *= factor.signum();
    }
    log_sum(&terms)
}

/// Rényi divergence of order `alpha` of the discrete Gaussian on a Poisson sample: the sum over the integers, in both directions (removal and
/// addition), of which the larger counts. Without sampling it is at most `α Δ² / 2σ²` (Canonne, Kamath and Steinke 2020, theorem 4).
pub(crate) fn discrete_gaussian(q: f64, sigma: f64, sensitivity: f64, alpha: f64) -> f64 {
    let two = 2.0 * sigma * sigma;
    if q == 1.0 {
        return alpha * sensitivity * sensitivity / two;
    }
    // The mass of the α-th moment lies about α·Δ; ten deviations more on either side.
    let reach = (alpha * sensitivity + 12.0 * sigma + sensitivity).ceil() as i64;
    let (mut norm, mut remove, mut add) = (Vec::new(), Vec::new(), Vec::new());
    for x in -reach..=reach {
        let x = x as f64;
        let log_p0 = -x * x / two;
        let loss = mixture_loss(q, sensitivity * (2.0 * x - sensitivity) / two);
        norm.push((log_p0, 1.0));
        remove.push((log_p0 + alpha * loss, 1.0));
        add.push((log_p0 + (1.0 - alpha) * loss, 1.0));
    }
    let norm = log_sum(&norm);
    let divergence = |terms: &[(f64, f64)]| ((log_sum(terms) - norm) / (alpha - 1.0)).max(0.0);
    divergence(&remove).max(divergence(&add))
}

/// `ln(1 − q + q e^l)`.
pub(crate) fn mixture_loss(q: f64, l: f64) -> f64 {
    if q == 1.0 {
        l
    } else if l > 30.0 {
        q.ln() + l + ((1.0 - q) / q * (-l).exp()).ln_1p()
    } else {
        (q * l.exp_m1()).ln_1p()
    }
}

/// Rényi divergence of whole order `alpha` of any `ρ`-concentrated mechanism on a Poisson sample, the general upper bound of Zhu and Wang, *Poisson
/// Subsampled Rényi Differential Privacy* (ICML 2019, theorem 5); of any order without sampling. `None` for fractional orders of samples.
pub(crate) fn concentrated(q: f64, rho: f64, alpha: f64) -> Option<f64> {
    if q == 1.0 {
        return Some(rho * alpha);
    }
    if alpha.fract() != 0.0 {
        return None;
    }
    let log_p = (-q).ln_1p();
    let mut terms = vec![((alpha - 1.0) * log_p + (alpha * q - q).ln_1p(), 1.0)];
    for l in 2..=alpha as u32 {
        let l = f64::from(l);
        let three = if l > 2.0 { 3f64.ln() } else { 0.0 };
        terms.push((
            three + log_binomial(alpha, l) + (alpha - l) * log_p + l * q.ln() + (l - 1.0) * rho * l,
            1.0,
        ));
    }
    Some((log_sum(&terms) / (alpha - 1.0)).min(rho * alpha))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractional_and_whole_orders_meet() {
        for (q, sigma) in [(0.01, 1.0), (0.2, 0.7), (0.5, 3.0)] {
            for alpha in [2.0, 3.0, 7.0] {
                let whole = gaussian(q, sigma, alpha);
                let beside = gaussian(q, sigma, alpha + 1e-7);
                assert!(
                    (whole - beside).abs() < 1e-5 * whole.max(1e-3),
                    "{q} {sigma} {alpha}: {whole} {beside}"
                );
            }
        }
    }

    #[test]
    fn the_series_equals_the_integral() {
        // A(α) by the trapezoid rule.
        for (q, sigma, alpha) in [(0.1, 1.2, 1.7), (0.3, 0.8, 4.5), (0.02, 2.0, 10.0)] {
            let step = 1e-3;
            let sum: f64 = (-20_000..60_000)
                .map(|i| {
                    let x = f64::from(i) * step;
                    let density =
                        (-x * x / (2.0 * sigma * sigma)).exp() / (sigma * (2.0 * PI).sqrt());
                    density
                        * (alpha * mixture_loss(q, (2.0 * x - 1.0) / (2.0 * sigma * sigma))).exp()
                        * step
                })
                .sum();
            let got = gaussian(q, sigma, alpha);
            assert!(
                (got - sum.ln() / (alpha - 1.0)).abs() < 1e-7,
                "{q} {sigma} {alpha}"
            );
        }
    }

    #[test]
    fn a_wide_discrete_gaussian_is_a_gaussian() {
        let discrete = discrete_gaussian(0.1, 50.0, 40.0, 5.0);
        let continuous = gaussian(0.1, 50.0 / 40.0, 5.0);
        assert!(
            (discrete / continuous - 1.0).abs() < 1e-6,
            "{discrete} {continuous}"
        );
        assert!(concentrated(0.1, 0.5 * (40.0f64 / 50.0).powi(2), 5.0).unwrap() >= continuous);
    }

    #[test]
    fn logarithms_of_erfc_join() {
        assert!((log_erfc(19.999) - log_erfc(20.001) - 0.08).abs() < 2e-3);
        assert!((log_erfc(20.5) - libm::erfc(20.5).ln()).abs() < 1e-9);
    }
}
