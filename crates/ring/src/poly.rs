//! A polynomial by its residues: one row (limb) of `n` residues per modulus.

use rayon::prelude::*;
use zeroize::Zeroize;

use crate::memory::AlignedWords;

/// The residues of a polynomial of `Z[X]/(X^n + 1)` modulo several primes, limb after limb.
///
/// The value knows neither its moduli nor whether its limbs hold coefficients or transform values; whoever owns it does.
/// Each limb of 8 or more residues starts on a 64-byte boundary. `Debug` prints the shape and no residue, since a
/// polynomial may be a secret; [`Zeroize`] overwrites it.
///
/// Methods that take a limb index panic when it is not below [`RnsPoly::limbs`].
pub struct RnsPoly {
    n: usize,
    limbs: usize,
    words: AlignedWords,
}

impl RnsPoly {
    /// The zero polynomial with `limbs` limbs of `n` residues.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn zero(n: usize, limbs: usize) -> Self {
        assert!(n > 0, "a polynomial needs at least one coefficient");
        Self {
            n,
            limbs,
            words: AlignedWords::zeroed(n * limbs),
        }
    }

    /// A polynomial with unspecified residues, for a caller that overwrites all of them: skips the zeroing, which costs as
    /// much as an addition.
    ///
    /// # Panics
    /// If `n` is zero.
    pub fn unspecified(n: usize, limbs: usize) -> Self {
        assert!(n > 0, "a polynomial needs at least one coefficient");
        Self {
            n,
            limbs,
            words: AlignedWords::unspecified(n * limbs),
        }
    }

    /// A polynomial from `limbs * n` residues in limb-major order.
    ///
    /// # Panics
    /// If `n` is zero or does not divide the length.
    pub fn from_slice(n: usize, residues: &[u64]) -> Self {
        assert!(
            n > 0 && residues.len().is_multiple_of(n),
            "{} residues are not whole limbs of {n}",
            residues.len()
        );
        Self {
            n,
            limbs: residues.len() / n,
            words: AlignedWords::copied(residues),
        }
    }

    /// Number of coefficients.
    #[inline]
    pub fn n(&self) -> usize {
        self.n
    }

    /// Number of limbs.
    #[inline]
    pub fn limbs(&self) -> usize {
        self.limbs
    }

    /// The residues modulo the `i`-th modulus.
    #[inline]
    pub fn limb(&self, i: usize) -> &[u64] {
        &self.as_slice()[i * self.n..(i + 1) * self.n]
    }

    /// The residues modulo the `i`-th modulus, to be changed.
    #[inline]
    pub fn limb_mut(&mut self, i: usize) -> &mut [u64] {
        let n = self.n;
        &mut self.as_mut_slice()[i * n..(i + 1) * n]
    }

    /// Forgets the limbs from index `limbs` on; does nothing if there are no more than that. The memory is kept.
    pub fn truncate(&mut self, limbs: usize) {
        self.limbs = self.limbs.min(limbs);
    }

    /// A copy of the first `limbs` limbs.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn prefix(&self, limbs: usize) -> Self {
        Self::from_slice(self.n, &self.as_slice()[..limbs * self.n])
    }

    /// The limbs in order.
    pub fn limbs_iter(&self) -> std::slice::ChunksExact<'_, u64> {
        self.as_slice().chunks_exact(self.n)
    }

    /// The limbs in order, to be changed.
    pub fn limbs_iter_mut(&mut self) -> std::slice::ChunksExactMut<'_, u64> {
        let n = self.n;
        self.as_mut_slice().chunks_exact_mut(n)
    }

    /// The limbs with their indices, in parallel.
    pub fn par_limbs(&self) -> impl IndexedParallelIterator<Item = (usize, &[u64])> {
        self.as_slice().par_chunks_exact(self.n).enumerate()
    }

    /// The limbs with their indices, in parallel, to be changed.
    pub fn par_limbs_mut(&mut self) -> impl IndexedParallelIterator<Item = (usize, &mut [u64])> {
        let n = self.n;
        self.as_mut_slice().par_chunks_exact_mut(n).enumerate()
    }

    /// All residues, limb-major.
    #[inline]
    pub fn as_slice(&self) -> &[u64] {
        &self.words[..self.limbs * self.n]
    }

    /// All residues, limb-major, to be changed.
    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u64] {
        let len = self.limbs * self.n;
        &mut self.words[..len]
    }
}

impl Clone for RnsPoly {
    /// Copies the limbs in use.
    fn clone(&self) -> Self {
        Self::from_slice(self.n, self.as_slice())
    }
}

impl PartialEq for RnsPoly {
    fn eq(&self, other: &Self) -> bool {
        self.n == other.n && self.as_slice() == other.as_slice()
    }
}

impl Eq for RnsPoly {}

impl std::fmt::Debug for RnsPoly {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RnsPoly")
            .field("n", &self.n)
            .field("limbs", &self.limbs)
            .finish_non_exhaustive()
    }
}

impl Zeroize for RnsPoly {
    fn zeroize(&mut self) {
        // Also what `truncate` has hidden.
        self.words.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limbs_are_aligned_and_separate() {
        let mut poly = RnsPoly::zero(16, 3);
        poly.par_limbs_mut()
            .for_each(|(i, limb)| limb.fill(i as u64 + 1));
        for i in 0..3 {
            assert_eq!(poly.limb(i), [i as u64 + 1; 16]);
            assert_eq!(poly.limb(i).as_ptr() as usize % 64, 0);
        }
        assert_eq!(poly.limbs_iter().count(), 3);
        let head = poly.prefix(2);
        poly.truncate(2);
        assert_eq!(poly, head);
        assert_eq!(poly.as_slice().len(), 32);
        poly.truncate(5);
        assert_eq!(poly.limbs(), 2);
        assert_eq!(format!("{poly:?}"), "RnsPoly { n: 16, limbs: 2, .. }");
        poly.zeroize();
        assert_eq!(poly, RnsPoly::zero(16, 2));
    }
}
