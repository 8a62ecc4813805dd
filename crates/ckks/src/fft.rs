//! The FFT of the canonical embedding ("special FFT").
//!
//! A real polynomial `m(X) = sum_k c[k] X^k` of degree below `n` is known by its values at the `n/2` roots
//! `zeta^(5^j)`, `zeta = exp(i*pi/n)`, `0 <= j < n/2`: the other roots of `X^n + 1` are their conjugates. Since
//! `5^j = 1 mod 4`, every one of these roots satisfies `zeta_j^(n/2) = i`, so that with `v[k] = c[k] + i*c[k + n/2]`
//!
//! ```text
//! slot[j] = m(zeta^(5^j)) = sum_{k < n/2} v[k] * zeta^(5^j * k)
//! ```
//!
//! which is an FFT of size `n/2` with the roots in the order of the powers of 5 (Cheon, Kim, Kim, Song, ASIACRYPT 2017).
//! A rotation of the slots by `r` is then the automorphism `X -> X^(5^r)`.
//!
//! The stages are those of `CoeffsToSlots` and `SlotsToCoeffs` too (module [`crate::dft`]), which leave the bit reversal out.

use num_complex::Complex64;

/// Precomputed roots for the special FFT of ring degree `n` (that is, of `n/2` slots).
///
/// ```
/// use num_complex::Complex64;
/// use tacit_ckks::fft::SpecialFft;
///
/// let fft = SpecialFft::new(8);
/// // The polynomial X^4 is i in every slot: c[4] = 1 is the imaginary part of v[0].
/// let mut v = vec![Complex64::new(0.0, 1.0), Complex64::ZERO, Complex64::ZERO, Complex64::ZERO];
/// fft.coeffs_to_slots(&mut v);
/// assert!(v.iter().all(|z| (z - Complex64::new(0.0, 1.0)).norm() < 1e-15));
/// ```
#[derive(Clone, Debug)]
pub struct SpecialFft {
    n: usize,
    /// Stage of block length `len = 2h`: `roots[h + j] = exp(2*pi*i * (5^j mod 8h) / (8h))`, `0 <= j < h`.
    roots: Vec<Complex64>,
}

impl SpecialFft {
    /// Roots for ring degree `n`.
    ///
    /// # Panics
    /// If `n` is not a power of two between 2 and 2^20; ring degrees are checked long before, by the parameters.
    pub fn new(n: usize) -> Self {
        assert!(
            n.is_power_of_two() && (2..=1 << 20).contains(&n),
            "the special FFT needs a power of two between 2 and 2^20 as ring degree, found {n}"
        );
        let slots = n / 2;
        let mut roots = vec![Complex64::ONE; slots.max(1)];
        let mut half = 1;
        while half < slots {
            let order = 8 * half;
            let mut power = 1usize;
            for root in &mut roots[half..2 * half] {
                let angle = 2.0 * std::f64::consts::PI * power as f64 / order as f64;
                *root = Complex64::new(angle.cos(), angle.sin());
                power = power * 5 % order;
            }
            half *= 2;
        }
        Self { n, roots }
    }

    /// The ring degree.
    pub fn n(&self) -> usize {
        self.n
    }

    /// The number of slots, `n/2`.
    pub fn slots(&self) -> usize {
        self.n / 2
    }

    /// Twiddles of the stage whose butterflies join entries `half` apart: `w_j = exp(2*pi*i * 5^j / (8*half))`.
    pub fn stage_roots(&self, half: usize) -> &[Complex64] {
        &self.roots[half..2 * half]
    }

    /// In place: `v[k] = c[k] + i*c[k + n/2]` to the `n/2` slot values, natural order on both sides.
    ///
    /// # Panics
    /// If `v` has not exactly `n/2` entries.
    pub fn coeffs_to_slots(&self, v: &mut [Complex64]) {
        assert_eq!(
            v.len(),
            self.slots(),
            "the special FFT of degree {} takes {} values",
            self.n,
            self.slots()
        );
        bit_reverse(v);
        let mut half = 1;
        while half < v.len() {
            let roots = self.stage_roots(half);
            for block in v.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for ((a, b), w) in low.iter_mut().zip(high).zip(roots) {
                    let t = *b * w;
                    *b = *a - t;
                    *a += t;
                }
            }
            half *= 2;
        }
    }

    /// In place: `n/2` slot values to `v[k] = c[k] + i*c[k + n/2]`, natural order on both sides; the inverse of
    /// [`coeffs_to_slots`](Self::coeffs_to_slots) (the factor `2/n` is included).
    ///
    /// # Panics
    /// If `v` has not exactly `n/2` entries.
    pub fn slots_to_coeffs(&self, v: &mut [Complex64]) {
        assert_eq!(
            v.len(),
            self.slots(),
            "the special FFT of degree {} takes {} values",
            self.n,
            self.slots()
        );
        let mut half = v.len() / 2;
        while half >= 1 {
            let roots = self.stage_roots(half);
            for block in v.chunks_exact_mut(2 * half) {
                let (low, high) = block.split_at_mut(half);
                for ((a, b), w) in low.iter_mut().zip(high).zip(roots) {
                    let t = *a - *b;
                    *a += *b;
                    *b = t * w.conj();
                }
            }
            half /= 2;
        }
        bit_reverse(v);
        let scale = 1.0 / v.len() as f64;
        v.iter_mut().for_each(|z| *z *= scale);
    }
}

/// Exchanges entry `j` with entry `br(j)`, `br` on `log2(len)` bits.
fn bit_reverse<T>(v: &mut [T]) {
    let bits = v.len().trailing_zeros();
    for j in 0..v.len() {
        let r = bit_reversed(j, bits);
        if j < r {
            v.swap(j, r);
        }
    }
}

/// The lowest `bits` bits of `j` in reverse order.
pub fn bit_reversed(j: usize, bits: u32) -> usize {
    if bits == 0 {
        0
    } else {
        j.reverse_bits() >> (usize::BITS - bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(len: usize) -> Vec<Complex64> {
        (0..len)
            .map(|k| Complex64::new((k as f64 * 0.7).sin(), (k as f64 * 1.3 + 0.2).cos()))
            .collect()
    }

    #[test]
    fn slots_are_the_values_at_the_powers_of_five() {
        for n in [2, 4, 8, 64, 256] {
            let v = values(n / 2);
            let mut slots = v.clone();
            SpecialFft::new(n).coeffs_to_slots(&mut slots);
            let mut power = 1usize;
            for (j, slot) in slots.iter().enumerate() {
                let root = |k: usize| {
                    let angle = std::f64::consts::PI * (power * k % (2 * n)) as f64 / n as f64;
                    Complex64::new(angle.cos(), angle.sin())
                };
                let direct: Complex64 = v
                    .iter()
                    .enumerate()
                    .map(|(k, z)| z.re * root(k) + z.im * root(k + n / 2))
                    .sum();
                assert!(
                    (direct - slot).norm() < 1e-11,
                    "n={n} slot {j}: {direct} and {slot}"
                );
                power = power * 5 % (2 * n);
            }
        }
    }

    #[test]
    fn the_two_directions_are_inverse() {
        for log_n in [1, 2, 5, 12, 17] {
            let fft = SpecialFft::new(1 << log_n);
            let v = values(fft.slots());
            let mut w = v.clone();
            fft.coeffs_to_slots(&mut w);
            fft.slots_to_coeffs(&mut w);
            let worst = v
                .iter()
                .zip(&w)
                .map(|(a, b)| (a - b).norm())
                .fold(0.0, f64::max);
            assert!(worst < 1e-13, "log n = {log_n}: {worst}");
        }
    }
}
