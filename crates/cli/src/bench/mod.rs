//! `tacit bench`: the figures of BENCHMARKS.md.

pub mod agreement;
mod anchors;
pub mod bootstrap;
pub mod decode;
pub mod documents;
pub mod engine;
pub mod ensi;
pub mod linear;
pub mod prefill;

use crate::exit::{Failure, Kind, chain};

/// Errors of the encryption engine.
pub fn engine_failure(error: impl std::error::Error) -> Failure {
    Failure::new(Kind::Crypto, chain(&error))
}

/// Median of the values; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn medians() {
        assert_eq!(super::median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(super::median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(super::median(&[]), 0.0);
    }
}
