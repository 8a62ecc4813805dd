//! Residues without gaps: 45 of 64 bits for a 45-bit prime.
//!
//! What is read once and takes long to come, such as switching keys, is read faster with fewer bytes; unpacking costs a few instructions for each
//! eight residues, which are idle while memory is waited for.
//!
//! ```text
//! residue i of w bits = bits i w .. (i + 1) w of the little-endian words        eight residues = w bytes
//! ```

use rayon::prelude::*;

use crate::{RnsPoly, memory::AlignedWords};

/// The widest residues, in bits: any residue then lies within the eight bytes that start with its first byte.
pub const MAX_BITS: u32 = 56;

/// Words after the last residue that a kernel may read: registers of 64 bytes start at each eighth residue.
pub const SPARE_WORDS: usize = 8;

/// Words that `n` residues of `bits` bits take without what a kernel may read after them.
pub fn packed_words(n: usize, bits: u32) -> usize {
    (n * bits as usize).div_ceil(64)
}

/// Writes residues, each below `2^bits`, to the first [`packed_words`] words.
///
/// # Panics
/// If there are too few words, or for more than [`MAX_BITS`] bits.
pub fn pack(residues: &[u64], bits: u32, words: &mut [u64]) {
    assert!(bits <= MAX_BITS, "residues of {bits} bits are not packed");
    let words = &mut words[..packed_words(residues.len(), bits)];
    let (mut word, mut filled, mut at) = (0u64, 0u32, 0);
    for &x in residues {
        word |= x << filled;
        filled += bits;
        if filled >= 64 {
            words[at] = word;
            at += 1;
            filled -= 64;
            // what did not fit: nothing if `filled` is 0, where `bits - filled` is below 64
            word = x >> (bits - filled);
        }
    }
    if filled > 0 {
        words[at] = word;
    }
}

/// The residues of a polynomial modulo one prime, packed.
#[derive(Clone, Copy)]
pub struct PackedLimb<'a> {
    words: &'a [u64],
    bits: u32,
    n: usize,
}

impl<'a> PackedLimb<'a> {
    /// `n` residues of `bits` bits in the first words of a slice.
    ///
    /// # Panics
    /// If there are fewer than `packed_words(n, bits) + SPARE_WORDS` words, or for 0 or more than [`MAX_BITS`] bits.
    pub fn new(words: &'a [u64], n: usize, bits: u32) -> Self {
        assert!(
            (1..=MAX_BITS).contains(&bits) && words.len() >= packed_words(n, bits) + SPARE_WORDS,
            "{n} residues of {bits} bits do not lie in {} words",
            words.len()
        );
        Self { words, bits, n }
    }

    /// Number of residues.
    #[inline]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.n
    }

    /// Bits of a residue.
    #[inline]
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The words, with those after the last residue that a kernel may read.
    #[inline]
    pub fn words(&self) -> &'a [u64] {
        self.words
    }

    /// Unpacks the residues from `from` on.
    ///
    /// # Panics
    /// If there are fewer than `from + out.len()`.
    pub fn unpack(&self, from: usize, out: &mut [u64]) {
        assert!(
            from + out.len() <= self.n,
            "residues {from} to {} of {}",
            from + out.len(),
            self.n
        );
        let bits = self.bits as usize;
        let mask = (1 << bits) - 1;
        for (i, out) in out.iter_mut().enumerate() {
            let bit = (from + i) * bits;
            let (at, shift) = (bit / 64, bit % 64);
            // twice by less than 64: a shift by 64 is none
            let above = self.words[at + 1] << 1 << (63 - shift);
            *out = (self.words[at] >> shift | above) & mask;
        }
    }
}

/// The residues of a polynomial modulo several primes, packed: for what is written once and read often.
pub struct PackedPoly {
    n: usize,
    /// First word and bits of each limb.
    limbs: Vec<(usize, u32)>,
    words: AlignedWords,
}

impl PackedPoly {
    /// Packs limb `j` of a polynomial with `bits(j)` bits a residue.
    ///
    /// # Panics
    /// For 0 or more than [`MAX_BITS`] bits.
    pub fn new(poly: &RnsPoly, bits: impl Fn(usize) -> u32) -> Self {
        let n = poly.n();
        let mut end = 0;
        let limbs: Vec<(usize, u32)> = (0..poly.limbs())
            .map(|j| {
                let start = end;
                // every limb starts with a cache line
                end += packed_words(n, bits(j)).next_multiple_of(SPARE_WORDS);
                (start, bits(j))
            })
            .collect();
        let mut words = AlignedWords::zeroed(end + SPARE_WORDS);
        let mut rest = &mut words[..];
        let mut parts = Vec::with_capacity(limbs.len());
        for (limb, &(_, bits)) in poly.limbs_iter().zip(&limbs) {
            let (part, tail) =
                rest.split_at_mut(packed_words(n, bits).next_multiple_of(SPARE_WORDS));
            rest = tail;
            parts.push((limb, bits, part));
        }
        parts
            .into_par_iter()
            .for_each(|(limb, bits, part)| pack(limb, bits, part));
        Self { n, limbs, words }
    }

    /// Number of coefficients.
    #[inline]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of limbs.
    #[inline]
    pub fn limbs(&self) -> usize {
        self.limbs.len()
    }

    /// The residues modulo the `i`-th modulus.
    ///
    /// # Panics
    /// If there is no such limb.
    #[inline]
    pub fn limb(&self, i: usize) -> PackedLimb<'_> {
        let (start, bits) = self.limbs[i];
        let end = start + packed_words(self.n, bits) + SPARE_WORDS;
        PackedLimb::new(&self.words[start..end], self.n, bits)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// The polynomial.
    pub fn unpack(&self) -> RnsPoly {
        let mut poly = RnsPoly::unspecified(self.n, self.limbs());
        poly.par_limbs_mut()
            .for_each(|(i, limb)| self.limb(i).unpack(0, limb));
        poly
    }
}

impl Clone for PackedPoly {
    fn clone(&self) -> Self {
        Self {
            n: self.n,
            limbs: self.limbs.clone(),
            words: self.words.clone(),
        }
    }
}

impl std::fmt::Debug for PackedPoly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedPoly")
            .field("n", &self.n)
            .field("limbs", &self.limbs.len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every width, lengths around words and registers, all bits set and none.
    #[test]
    fn residues_come_back_at_every_width_and_length() {
        for bits in 1..=MAX_BITS {
            for n in [1usize, 2, 7, 8, 9, 63, 64, 65, 300] {
                let residues: Vec<u64> = (0..n as u64)
                    .map(|i| match i % 3 {
                        0 => (1 << bits) - 1,
                        1 => i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits),
                        _ => 0,
                    })
                    .collect();
                let mut words = vec![u64::MAX; packed_words(n, bits) + SPARE_WORDS];
                pack(&residues, bits, &mut words);
                let limb = PackedLimb::new(&words, n, bits);
                for from in [0, n / 2, n - 1] {
                    let mut back = vec![7; n - from];
                    limb.unpack(from, &mut back);
                    assert_eq!(back, residues[from..], "{bits} bits, {n} from {from}");
                }
            }
        }
    }

    #[test]
    fn limbs_of_different_widths_lie_on_cache_lines() {
        let n = 72;
        let residues: Vec<u64> = (0..3 * n as u64).map(|i| i * 4567 % (1 << 20)).collect();
        let poly = RnsPoly::from_slice(n, &residues);
        let packed = PackedPoly::new(&poly, |j| [20, 45, 50][j]);
        assert_eq!(packed.unpack(), poly);
        for j in 0..3 {
            assert_eq!(packed.limb(j).words().as_ptr() as usize % 64, 0);
        }
        // 72 * 20 bits are 23 words, of 45 bits 51, of 50 bits 57
        assert_eq!(packed.bytes(), 8 * (24 + 56 + 64 + 8));
        assert_eq!(format!("{packed:?}"), "PackedPoly { n: 72, limbs: 3, .. }");
    }

    #[test]
    #[should_panic(expected = "do not lie in")]
    fn a_limb_needs_the_words_that_kernels_read() {
        PackedLimb::new(&[0; 9], 16, 50);
    }
}
