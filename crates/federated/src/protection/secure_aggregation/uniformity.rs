//! Is a vector modulo `2^k` distinguishable from uniform noise?

/// Pearson's chi-squared test of uniformity over 256 bins (the top eight bits of each value).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Uniformity {
    /// `Σ (observed − expected)² / expected`.
    pub chi_squared: f64,
    /// 255.
    pub degrees_of_freedom: u32,
    /// Probability that uniform values show at least this statistic (Wilson and Hilferty's normal approximation of chi-squared).
    pub p_value: f64,
}

/// Tests the top eight bits of `values` (each below `2^bits`, `bits` at least 8) for uniformity. At least 5 × 256 values make it meaningful.
pub fn uniformity(values: &[u32], bits: u32) -> Uniformity {
    let mut counts = [0u64; 256];
    for &v in values {
        counts[(v >> (bits - 8)) as usize & 255] += 1;
    }
    let expected = values.len() as f64 / 256.0;
    let chi_squared = counts
        .iter()
        .map(|&c| (c as f64 - expected).powi(2) / expected)
        .sum::<f64>();
    let df = 255.0_f64;
    let z = ((chi_squared / df).cbrt() - (1.0 - 2.0 / (9.0 * df))) / (2.0 / (9.0 * df)).sqrt();
    Uniformity {
        chi_squared,
        degrees_of_freedom: 255,
        p_value: 0.5 * libm::erfc(z / std::f64::consts::SQRT_2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_ramp_from_a_narrow_band() {
        let ramp: Vec<u32> = (0..1 << 16).collect();
        assert_eq!(uniformity(&ramp, 16).chi_squared, 0.0);
        let narrow: Vec<u32> = (0..1 << 16).map(|i| i % 60000).collect();
        assert!(uniformity(&narrow, 16).p_value < 1e-9);
    }
}
