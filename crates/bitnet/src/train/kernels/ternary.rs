//! Absolute-mean ternary quantisation.

use super::vector::{kernel, simd};

/// Absolute-mean ternary quantisation of one tensor: `(trits, mean |w|)`, trit = clamp(round(w / mean|w|), -1, 1), ties to 0.
pub(crate) fn ternary(w: &[f32]) -> (impl Iterator<Item = i8> + '_, f32) {
    kernel!(Magnitudes = sum_of_magnitudes: &[f32] => f32);

    #[inline(always)]
    fn sum_of_magnitudes(w: &[f32]) -> f32 {
        let mut lanes = [0f32; 16];
        for c in w.chunks(16) {
            lanes.iter_mut().zip(c).for_each(|(l, x)| *l += x.abs());
        }
        lanes.iter().sum()
    }
    let sum: f64 = w.chunks(4096).map(|c| f64::from(simd(Magnitudes, c))).sum();
    let scale = ((sum / w.len() as f64) as f32).max(1e-5);
    let half = 0.5 * scale;
    (
        w.iter()
            .map(move |&x| i8::from(x > half) - i8::from(x < -half)),
        scale,
    )
}

/// The values `trit * scale` of [`ternary`].
pub(crate) fn ternary_values(w: &[f32], out: &mut [f32]) {
    let (_, scale) = ternary(w);
    let half = 0.5 * scale;
    kernel!(Round = round: (&[f32], &mut [f32], f32, f32) => ());

    #[inline(always)]
    fn round((w, out, half, scale): (&[f32], &mut [f32], f32, f32)) {
        for (o, &x) in out.iter_mut().zip(w) {
            *o = if x.abs() > half {
                scale.copysign(x)
            } else {
                0.0
            };
        }
    }
    simd(Round, (w, out, half, scale));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ternary_rounds_to_nearest_and_zero_tensors_are_safe() {
        let w = [0.6f32, -0.6, 0.2, -0.2, 2.0, -0.4];
        let (t, scale) = ternary(&w);
        assert_eq!(t.collect::<Vec<_>>(), [1, -1, 0, 0, 1, -1]);
        assert!((scale - 4.0 / 6.0).abs() < 1e-6);
        let mut v = [0f32; 6];
        ternary_values(&w, &mut v);
        assert_eq!(v, [scale, -scale, 0.0, 0.0, scale, -scale]);
        assert_eq!(ternary(&[0.0; 8]).0.collect::<Vec<_>>(), [0; 8]);
    }
}
