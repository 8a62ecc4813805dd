//! Privacy losses of the mechanisms, for a unit removed and a unit added.
//!
//! With `μ_0` the noise and `μ = (1−q) μ_0 + q μ_1`: removal compares `P = μ` with `Q = μ_0`, addition `P = μ_0` with `Q = μ`; these
//! dominate all neighbouring pairs (Zhu, Dong and Wang 2022, theorem 11).

use super::loss::Pld;
use super::renyi_sampled::mixture_loss;
use std::f64::consts::SQRT_2;

/// Which neighbour has the unit more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Remove,
    Add,
}

/// Deviations kept of the noise: the mass beyond is below 1e-18 on each side.
const REACH: f64 = 8.9;

/// `P[a < X ≤ b]` of a normal variable with small relative error in both tails.
fn normal_mass(a: f64, b: f64) -> f64 {
    if a > b {
        return 0.0;
    }
    let (a, b) = if a > 0.0 { (-b, -a) } else { (a, b) };
    let cdf = |x: f64| 0.5 * libm::erfc(-x / SQRT_2);
    cdf(b) - cdf(a)
}

/// Of the Gaussian mechanism of noise multiplier `sigma` on a Poisson sample of rate `q`: the loss `ln(1 − q + q e^{(2x−1)/2σ²})` grows with `x`.
pub(crate) fn gaussian(sigma: f64, q: f64, interval: f64, direction: Direction) -> Pld {
    let variance = sigma * sigma;
    let loss = |x: f64| mixture_loss(q, (2.0 * x - 1.0) / (2.0 * variance));
    // The x at which the loss is l; −∞ at and below ln(1 − q).
    let position = |l: f64| -> f64 {
        if l.is_infinite() {
            return l;
        }
        let ratio = (l.exp_m1() + q) / q;
        if q < 1.0 && ratio <= 0.0 {
            return f64::NEG_INFINITY;
        }
        let log = if q == 1.0 {
            l
        } else if l > 30.0 {
            l - q.ln() + (-(1.0 - q) * (-l).exp()).ln_1p()
        } else {
            ratio.ln()
        };
        variance * log + 0.5
    };
    let noise = |a: f64, b: f64| normal_mass(a / sigma, b / sigma);
    let mixture = |a: f64, b: f64| {
        (1.0 - q) * noise(a, b) + q * normal_mass((a - 1.0) / sigma, (b - 1.0) / sigma)
    };
    let (low, high) = (loss(-REACH * sigma), loss(1.0 + REACH * sigma));
    match direction {
        Direction::Remove => Pld::from_cells(interval, low, high, |a, b| {
            let (a, b) = (position(a), position(b));
            (mixture(a, b), noise(a, b))
        }),
        Direction::Add => Pld::from_cells(interval, -high, -low, |a, b| {
            let (a, b) = (position(-b), position(-a));
            (noise(a, b), mixture(a, b))
        }),
    }
}

/// Of the discrete Gaussian of parameter `sigma` and integer `sensitivity` on a Poisson sample of rate `q`.
pub(crate) fn discrete_gaussian(
    sigma: f64,
    sensitivity: u32,
    q: f64,
    interval: f64,
    direction: Direction,
) -> Pld {
    let two = 2.0 * sigma * sigma;
    let shift = f64::from(sensitivity);
    let reach = ((REACH + 1.0) * sigma + shift).ceil() as i64 + 1;
    let weight = |x: f64| (-x * x / two).exp();
    let norm: f64 = (-2 * reach..=2 * reach).map(|x| weight(x as f64)).sum();
    let atoms: Vec<(f64, f64)> = (-reach..=reach)
        .map(|x| {
            let x = x as f64;
            let loss = mixture_loss(q, shift * (2.0 * x - shift) / two);
            match direction {
                Direction::Remove => (loss, ((1.0 - q) * weight(x) + q * weight(x - shift)) / norm),
                Direction::Add => (-loss, weight(x) / norm),
            }
        })
        .filter(|a| a.1 > 0.0)
        .collect();
    Pld::from_atoms(interval, &atoms, libm::erfc(REACH / SQRT_2))
}
