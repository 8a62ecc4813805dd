//! The automorphisms `X -> X^g` of the ring, on coefficients and on transform values.

use crate::{Modulus, kernels, ntt::bit_reverse};

/// Number of consecutive transform values that an automorphism moves together.
pub(crate) const BLOCK: usize = 8;

/// The automorphism `X -> X^g` on values in the order of [`crate::NttTable::forward`], where it is a permutation:
/// `out[j] = a[k]` with `2 br(k) + 1 = g (2 br(j) + 1) mod 2n`.
///
/// Eight aligned neighbours share the low bits of `br`, so the permutation moves whole blocks of eight and permutes
/// inside each block in one of eight ways. The table has four bytes per block.
#[derive(Clone, Debug)]
pub struct NttPermutation {
    n: usize,
    /// Per output block: source block times 8, plus the index of the order inside the block.
    blocks: Vec<u32>,
    /// For each of the eight orders, the source lane of each lane.
    lanes: [[u64; BLOCK]; BLOCK],
}

impl NttPermutation {
    /// The permutation of the automorphism `X -> X^galois`; `galois` counts modulo `2n`.
    ///
    /// # Panics
    /// If `n` is not a power of two of at least 2, or `galois` is even.
    pub fn new(n: usize, galois: u64) -> Self {
        assert!(
            n.is_power_of_two() && n >= 2,
            "ring dimension {n} is not a power of two of at least 2"
        );
        assert!(
            galois % 2 == 1,
            "the automorphism X -> X^{galois} does not exist: the exponent must be odd"
        );
        let block = BLOCK.min(n);
        let (blocks, log_n, log_block) = (n / block, n.ilog2(), block.ilog2());
        let g = galois & (2 * n as u64 - 1);
        // br(8 i + l) = high(l) * n/8 + low(i) with low(i) < n/8: g (2 br + 1) = g (2 low(i) + 1) + g high(l) n/4.
        let mut lanes = [[0; BLOCK]; BLOCK];
        for (carry, order) in lanes.iter_mut().enumerate().take(block) {
            for (lane, source) in order.iter_mut().enumerate().take(block) {
                let high = (carry + (g as usize) * bit_reverse(lane, log_block)) & (block - 1);
                *source = bit_reverse(high, log_block) as u64;
            }
        }
        let blocks = (0..blocks)
            .map(|i| {
                let low = bit_reverse(i, log_n - log_block) as u64;
                let image = (g.wrapping_mul(2 * low + 1) & (2 * n as u64 - 1)) as usize >> 1;
                let (carry, low) = (image >> (log_n - log_block), image & ((n / block) - 1));
                (bit_reverse(low, log_n - log_block) * BLOCK + carry) as u32
            })
            .collect();
        Self { n, blocks, lanes }
    }

    /// Number of coefficients.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Writes the image of `a` into `out`.
    ///
    /// # Panics
    /// If a slice does not hold `n` values.
    pub fn apply(&self, out: &mut [u64], a: &[u64]) {
        assert!(
            out.len() == self.n && a.len() == self.n,
            "permutation of {} values, found {}, {}",
            self.n,
            out.len(),
            a.len()
        );
        kernels::active().permute(self, out, a);
    }

    /// The table: per output block, eight times the source block plus the index of the order inside.
    pub(crate) fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// The eight orders inside a block.
    pub(crate) fn lanes(&self) -> &[[u64; BLOCK]; BLOCK] {
        &self.lanes
    }
}

/// The automorphism `X -> X^g` on coefficients: coefficient `i` goes to position `g i mod n`, with a minus sign if
/// `g i mod 2n >= n`. `g` counts modulo `2n`.
///
/// # Panics
/// If the slices differ in length, the length is not a power of two, or `g` is even.
pub fn automorphism_coeffs(m: &Modulus, g: u64, a: &[u64], out: &mut [u64]) {
    let n = a.len();
    assert!(
        n == out.len(),
        "slices of residues differ in length: {n} and {}",
        out.len()
    );
    assert!(
        n.is_power_of_two(),
        "ring dimension {n} is not a power of two"
    );
    assert!(
        g % 2 == 1,
        "the automorphism X -> X^{g} does not exist: the exponent must be odd"
    );
    let mask = 2 * n as u64 - 1;
    let g = g & mask;
    let mut image = 0;
    for &c in a {
        out[image as usize & (n - 1)] = if image as usize >= n { m.neg(c) } else { c };
        image = (image + g) & mask;
    }
}

/// The exponent `5^steps mod 2n` of the automorphism that rotates the slots by `steps` to the left (negative: to the right).
///
/// # Panics
/// If `n` is not a power of two of at least 2.
pub fn galois_of_rotation(n: usize, steps: i64) -> u64 {
    assert!(
        n.is_power_of_two() && n >= 2,
        "ring dimension {n} is not a power of two of at least 2"
    );
    let mask = 2 * n as u64 - 1;
    // 5 has order n/2 modulo 2n (order 1 for n = 2).
    let mut e = steps.rem_euclid((n as i64 / 2).max(1));
    let (mut base, mut g) = (5 & mask, 1u64);
    while e > 0 {
        if e & 1 == 1 {
            g = g.wrapping_mul(base) & mask;
        }
        base = base.wrapping_mul(base) & mask;
        e >>= 1;
    }
    g
}

/// The exponent `2n - 1` of the automorphism that conjugates the slots.
pub fn galois_conjugation(n: usize) -> u64 {
    2 * n as u64 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NttTable, ntt_primes};

    #[test]
    fn permutation_is_the_automorphism_of_coefficients() {
        for log_n in 1..=10 {
            let n = 1usize << log_n;
            let m = Modulus::new(ntt_primes(40, n, 1, &[]).unwrap()[0]).unwrap();
            let t = NttTable::new(n, m).unwrap();
            let a: Vec<u64> = (0..n as u64)
                .map(|i| m.reduce((i + 3).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .collect();
            let mut values = a.clone();
            t.forward(&mut values);
            for g in [
                1,
                5,
                galois_of_rotation(n, -1),
                galois_of_rotation(n, 3),
                galois_conjugation(n),
                4 * n as u64 + 3,
            ] {
                let (mut want, mut got) = (vec![0; n], vec![0; n]);
                automorphism_coeffs(&m, g, &a, &mut want);
                t.forward(&mut want);
                NttPermutation::new(n, g).apply(&mut got, &values);
                assert_eq!(got, want, "n = {n}, g = {g}");
            }
        }
    }

    #[test]
    fn rotations_form_a_group() {
        let n = 1 << 9;
        let two_n = 2 * n as u64;
        assert_eq!(galois_of_rotation(n, 0), 1);
        assert_eq!(galois_of_rotation(n, n as i64 / 2), 1);
        for steps in [1, 7, 100] {
            assert_eq!(
                galois_of_rotation(n, steps) * galois_of_rotation(n, -steps) % two_n,
                1
            );
        }
        assert_eq!(galois_of_rotation(n, 2), 25);
    }
}
