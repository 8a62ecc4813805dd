//! A histogram that needs no range beforehand: it doubles its range when a value falls outside.

/// Bins on each side of 0.
const HALF: usize = 2048;
/// Exponent of the first range: values below 2^-10 share few bins, which no fit notices.
const FIRST_EXPONENT: i32 = -4;

/// Counts in `2 * 2048` equal bins over `[-2^e, 2^e)`; `e` grows as needed.
#[derive(Clone, Debug)]
pub(super) struct Histogram {
    exponent: i32,
    counts: Vec<u64>,
    pub min: f64,
    pub max: f64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            exponent: FIRST_EXPONENT,
            counts: vec![0; 2 * HALF],
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Histogram {
    /// Counts a value (values that are not finite are left out).
    pub fn add(&mut self, x: f64) {
        if !x.is_finite() {
            return;
        }
        self.reach(x);
        let bin = self.bin(x);
        self.counts[bin] += 1;
    }

    /// Widens minimum and maximum without counting.
    pub fn reach(&mut self, x: f64) {
        if !x.is_finite() {
            return;
        }
        self.min = self.min.min(x);
        self.max = self.max.max(x);
        while x.abs() >= f64::from(self.exponent).exp2() {
            self.double();
        }
    }

    fn bin(&self, x: f64) -> usize {
        let width = f64::from(self.exponent).exp2() / HALF as f64;
        ((x / width).floor() + HALF as f64).clamp(0.0, (2 * HALF - 1) as f64) as usize
    }

    fn double(&mut self) {
        let mut counts = vec![0; 2 * HALF];
        for (i, pair) in self.counts.chunks_exact(2).enumerate() {
            counts[HALF / 2 + i] = pair[0] + pair[1];
        }
        self.counts = counts;
        self.exponent += 1;
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, mut other: Self) {
        while self.exponent < other.exponent {
            self.double();
        }
        while other.exponent < self.exponent {
            other.double();
        }
        for (a, b) in self.counts.iter_mut().zip(&other.counts) {
            *a += b;
        }
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Number of values counted.
    pub fn total(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Centres of the bins that hold something, with their share of all values.
    pub fn shares(&self) -> Vec<(f64, f64)> {
        let width = f64::from(self.exponent).exp2() / HALF as f64;
        let total = self.total().max(1) as f64;
        self.counts
            .iter()
            .enumerate()
            .filter(|(_, n)| **n > 0)
            .map(|(i, n)| ((i as f64 - HALF as f64 + 0.5) * width, *n as f64 / total))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_without_losing_counts() {
        let (mut a, mut b) = (Histogram::default(), Histogram::default());
        for i in 0..1000 {
            a.add(f64::from(i) * 0.001 - 0.5);
            b.add(f64::from(i) * 0.1 - 70.0);
        }
        a.add(f64::NAN);
        a.merge(b);
        assert_eq!(a.counts.iter().sum::<u64>(), 2000);
        assert_eq!((a.min, a.max), (-70.0, 999.0 * 0.1 - 70.0));
        let shares = a.shares();
        assert!((shares.iter().map(|s| s.1).sum::<f64>() - 1.0).abs() < 1e-12);
        let near: f64 = shares.iter().filter(|s| s.0.abs() < 0.6).map(|s| s.1).sum();
        assert!((near - (1000.0 + 12.0) / 2000.0).abs() < 0.002, "{near}");
    }
}
