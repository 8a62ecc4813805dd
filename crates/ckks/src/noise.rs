//! Predicted noise: the standard deviation of one coefficient of `m + e - m` after each operation.
//!
//! `N` is the ring dimension, `sigma = 3.2`, and the secret is dense ternary: variance `2/3` per coefficient, `|s|^2 ~ 2N/3`. Errors of
//! different origin are independent, so variances add; the error of a product of polynomials has the variance `N var(x) var(y)`.
//! Tests measure every formula here within one bit.

/// Standard deviation of the discrete Gaussian.
pub const SIGMA: f64 = 3.2;

/// Squared length of a dense ternary secret, `2N/3`.
fn secret_norm2(n: usize) -> f64 {
    n as f64 * 2.0 / 3.0
}

/// Rounding to integers when encoding: `sqrt(1/12)`.
pub fn encoding() -> f64 {
    (1.0f64 / 12.0).sqrt()
}

/// Fresh symmetric encryption: `sigma`.
pub fn fresh_symmetric() -> f64 {
    SIGMA
}

/// Fresh public-key encryption, `v e + e_0 + e_1 s`: `sigma sqrt(1 + 4N/3)`.
pub fn fresh_public(n: usize) -> f64 {
    SIGMA * (1.0 + 2.0 * secret_norm2(n)).sqrt()
}

/// A sum: `sqrt(x^2 + y^2)`.
pub fn add(x: f64, y: f64) -> f64 {
    x.hypot(y)
}

/// A product with a plaintext whose coefficients have the root mean square `plain_rms`: `x plain_rms sqrt(N)`.
pub fn mul_plain(n: usize, x: f64, plain_rms: f64) -> f64 {
    x * plain_rms * (n as f64).sqrt()
}

/// A product of two ciphertexts with messages of root mean squares `m_x`, `m_y` (of the scaled coefficients) before relinearisation, from
/// `m_x e_y + m_y e_x + e_x e_y`: `sqrt(N (m_x^2 y^2 + m_y^2 x^2 + x^2 y^2))`.
pub fn mul(n: usize, (m_x, x): (f64, f64), (m_y, y): (f64, f64)) -> f64 {
    (n as f64 * ((m_x * y).powi(2) + (m_y * x).powi(2) + (x * y).powi(2))).sqrt()
}

/// Rounding both parts of a ciphertext to integers, `t_0 + t_1 s` with `t` uniform in `(-1/2, 1/2)`: `sqrt((1 + 2N/3)/12)`.
pub fn rounding(n: usize) -> f64 {
    ((1.0 + secret_norm2(n)) / 12.0).sqrt()
}

/// Rescaling by the prime `q`: `sqrt((x/q)^2 + rounding^2)`.
pub fn rescale(n: usize, x: f64, q: f64) -> f64 {
    (x / q).hypot(rounding(n))
}

/// The inner product of a key switch over `QP`, before the division: digits `D_d` (given as `log2`) are uniform in `(-D_d/2, D_d/2)` and meet
/// an error of `sigma`: `sigma sqrt(N/12 sum_d D_d^2)`. As `log2`, since it exceeds `f64` at large digits.
pub fn log2_key_inner_product(n: usize, log2_digits: &[f64]) -> f64 {
    let largest = log2_digits
        .iter()
        .copied()
        .fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = log2_digits
        .iter()
        .map(|d| (2.0 * (d - largest)).exp2())
        .sum();
    largest + 0.5 * (n as f64 / 12.0 * sum).log2() + SIGMA.log2()
}

/// A key switch (relinearisation, rotation, conjugation): the inner product divided by `P`, plus the rounding of the division.
pub fn key_switch(n: usize, log2_digits: &[f64], log2_p: f64) -> f64 {
    (log2_key_inner_product(n, log2_digits) - log2_p)
        .exp2()
        .hypot(rounding(n))
}
