//! Helpers of the gradient checks.

pub(super) fn noise(n: usize, seed: u32) -> Vec<f32> {
    let mut s = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    (0..n)
        .map(|_| {
            s = s.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (s >> 8) as f32 / 8_388_608.0 - 1.0
        })
        .collect()
}

/// Central differences of `f` at `x` against `grad`, along every coordinate in `which`.
pub(super) fn check(
    f: impl Fn(&[f32]) -> f64,
    x: &[f32],
    grad: &[f32],
    which: impl Iterator<Item = usize>,
) {
    for i in which {
        let h = 1e-2;
        let mut y = x.to_vec();
        y[i] = x[i] + h;
        let up = f(&y);
        y[i] = x[i] - h;
        let slope = (up - f(&y)) / (2.0 * f64::from(h));
        let err = (slope - f64::from(grad[i])).abs();
        assert!(
            err < 3e-3 * (1.0 + slope.abs()),
            "coordinate {i}: difference quotient {slope}, gradient {}",
            grad[i]
        );
    }
}

pub(super) fn weighted(y: &[f32], w: &[f32]) -> f64 {
    y.iter().zip(w).map(|(a, b)| f64::from(a * b)).sum()
}
