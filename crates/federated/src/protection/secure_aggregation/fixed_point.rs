//! Reals as integers modulo `2^k` whose sum cannot overflow.

use super::STAGE;
use crate::protection::ProtectionError;

/// Fixed point for sums of `parties` values of magnitude at most `bound`:
///
/// ```text
/// m = ⌊(2^(k−1) − 1) / parties⌋      encode(x) = round(x · m / bound) mod 2^k      |Σ encode| ≤ parties · m < 2^(k−1)
/// ```
///
/// The rounding error of a mean is at most `bound / (2m)` a coordinate.
#[derive(Clone, Debug, PartialEq)]
pub struct FixedPoint {
    bits: u32,
    bound: f64,
    parties: usize,
    steps: f64,
}

impl FixedPoint {
    /// Fixed point modulo `2^bits` for sums of up to `parties` vectors with coordinates in `[−bound, bound]`.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] if fewer than 16 steps are left for a coordinate, or the bound is not a positive number.
    pub fn new(bits: u32, bound: f64, parties: usize) -> Result<Self, ProtectionError> {
        if !(bound.is_finite() && bound > 0.0) {
            return Err(ProtectionError::setting(
                STAGE,
                "bound",
                bound,
                "a positive number",
                "the clipping norm is a bound on every coordinate",
            ));
        }
        if !(8..=32).contains(&bits) || parties == 0 || (1u64 << (bits - 1)) / (parties as u64) < 17
        {
            return Err(ProtectionError::setting(
                STAGE,
                "bits",
                bits,
                format!("8 to 32 bits with 2^(bits - 1) at least 17 times the {parties} clients"),
                "use more bits",
            ));
        }
        Ok(Self {
            bits,
            bound,
            parties,
            steps: (((1u64 << (bits - 1)) - 1) / parties as u64) as f64,
        })
    }

    /// The real difference between neighbouring integers.
    pub fn resolution(&self) -> f64 {
        self.bound / self.steps
    }

    /// The largest coordinate.
    pub fn bound(&self) -> f64 {
        self.bound
    }

    /// Encodes one update.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] at the first coordinate that is not a number or exceeds the bound: nothing is clipped silently.
    pub fn encode(&self, values: &[f32]) -> Result<Vec<u32>, ProtectionError> {
        values
            .iter()
            .enumerate()
            .map(|(i, &x)| {
                let x = f64::from(x);
                if x.is_nan() || x.abs() > self.bound {
                    return Err(ProtectionError::input(
                        STAGE,
                        format!("coordinate {i} is {x}, outside ±{}", self.bound),
                        "clip the update first",
                    ));
                }
                let m = (x / self.bound * self.steps).round() as i64;
                Ok(m as u32 & mask(self.bits))
            })
            .collect()
    }

    /// Decodes the sum of `survivors` encoded vectors.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] if a coordinate is beyond `survivors · bound`, which honest clients cannot cause.
    pub fn decode_sum(&self, sum: &[u32], survivors: usize) -> Result<Vec<f64>, ProtectionError> {
        let most = self.steps * survivors.min(self.parties) as f64;
        sum.iter()
            .enumerate()
            .map(|(i, &m)| {
                let m = signed(m, self.bits) as f64;
                if m.abs() > most {
                    return Err(ProtectionError::input(
                        STAGE,
                        format!("coordinate {i} of the sum is {:.3} times the bound of all {survivors} clients together", m.abs() / most),
                        "a client sent values outside the bound: discard the round",
                    ));
                }
                Ok(m / self.steps * self.bound)
            })
            .collect()
    }
}

/// `2^bits − 1`.
pub(crate) fn mask(bits: u32) -> u32 {
    u32::MAX >> (32 - bits)
}

/// The representative of `m` modulo `2^bits` in `[−2^(bits−1), 2^(bits−1))`.
pub(crate) fn signed(m: u32, bits: u32) -> i64 {
    i64::from((m << (32 - bits)) as i32 >> (32 - bits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sums_decode_to_sums(bits in 12u32..=32, values in prop::collection::vec(prop::collection::vec(-2.0f32..=2.0, 5), 1..9)) {
            let codec = FixedPoint::new(bits, 2.0, values.len()).unwrap();
            let mut sum = vec![0u32; 5];
            for v in &values {
                for (s, m) in sum.iter_mut().zip(codec.encode(v).unwrap()) {
                    *s = s.wrapping_add(m) & mask(bits);
                }
            }
            let got = codec.decode_sum(&sum, values.len()).unwrap();
            for i in 0..5 {
                let want: f64 = values.iter().map(|v| f64::from(v[i])).sum();
                prop_assert!((got[i] - want).abs() <= 0.5001 * codec.resolution() * values.len() as f64);
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let codec = FixedPoint::new(16, 1.0, 4).unwrap();
        for bad in [1.01, -7.0, f32::NAN, f32::INFINITY] {
            assert!(codec.encode(&[0.0, bad]).is_err(), "{bad}");
        }
        assert!(codec.decode_sum(&[1 << 15], 4).is_err());
        assert!(codec.decode_sum(&codec.encode(&[1.0]).unwrap(), 1).is_ok());
        assert!(FixedPoint::new(8, 1.0, 8).is_err());
        assert!(FixedPoint::new(24, 0.0, 8).is_err());
    }
}
