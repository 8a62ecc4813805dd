//! The negacyclic number-theoretic transform.

use crate::{
    Modulus, RingError,
    kernels::{self, Kernel, NttPlan},
    primes::check_dimension,
};

/// Tables of the transform of `Z_p[X]/(X^n + 1)`.
///
/// With `psi` a primitive `2n`-th root of unity modulo `p` and `br` the reversal of `log2 n` bits, [`NttTable::forward`]
/// maps coefficients `a_0 ... a_(n-1)` to
///
/// ```text
/// out[j] = sum_i a_i psi^(i (2 br(j) + 1)) = a(psi^(2 br(j) + 1)),      j = 0 ... n-1,
/// ```
///
/// and [`NttTable::inverse`] back, so that products in the ring are element-wise products of transforms
/// (Longa and Naehrig, CANS 2016; lazy butterflies by Harvey, arXiv 1205.2926). Input and output are canonical residues.
///
/// `psi` is a power of the smallest `g = 2, 3, ...` that gives a primitive root, so equal `(n, p)` always give equal
/// transforms. A table takes about `16 n` to `32 n` bytes, depending on the kernel.
pub struct NttTable {
    n: usize,
    modulus: Modulus,
    psi: u64,
    plan: NttPlan,
    kernel: &'static dyn Kernel,
}

impl NttTable {
    /// Tables for the kernel picked at run time.
    ///
    /// # Errors
    /// [`RingError::Dimension`] unless `n` is a power of two from 2 to 2^17; [`RingError::NoRoot`] unless `p = 1 mod 2n`.
    pub fn new(n: usize, modulus: Modulus) -> Result<Self, RingError> {
        Self::with_kernel(n, modulus, kernels::active())
    }

    /// Tables for a given kernel.
    ///
    /// # Errors
    /// As for [`NttTable::new`].
    pub fn with_kernel(
        n: usize,
        modulus: Modulus,
        kernel: &'static dyn Kernel,
    ) -> Result<Self, RingError> {
        check_dimension(n)?;
        let psi = primitive_root(n, &modulus)?;
        let plan = kernel.ntt_plan(n, &modulus, psi);
        Ok(Self {
            n,
            modulus,
            psi,
            plan,
            kernel,
        })
    }

    /// Number of coefficients.
    #[inline]
    pub fn n(&self) -> usize {
        self.n
    }

    /// The modulus.
    #[inline]
    pub fn modulus(&self) -> &Modulus {
        &self.modulus
    }

    /// The primitive `2n`-th root of unity of the transform.
    #[inline]
    pub fn psi(&self) -> u64 {
        self.psi
    }

    /// Coefficients in natural order to values in bit-reversed order, in place.
    ///
    /// # Panics
    /// If `a` does not hold `n` residues.
    pub fn forward(&self, a: &mut [u64]) {
        self.forward_ahead(a, &[]);
    }

    /// [`forward`](Self::forward), while what is needed next, in this order, comes from memory into the cache as far as the kernel's time allows.
    ///
    /// # Panics
    /// If `a` does not hold `n` residues.
    pub fn forward_ahead(&self, a: &mut [u64], ahead: &[&[u64]]) {
        assert!(
            a.len() == self.n,
            "transform of {} coefficients, found {}",
            self.n,
            a.len()
        );
        self.kernel.ntt_forward(&self.plan, a, ahead);
    }

    /// Values in bit-reversed order to coefficients in natural order, in place; includes the factor `1/n`.
    ///
    /// # Panics
    /// If `a` does not hold `n` residues.
    pub fn inverse(&self, a: &mut [u64]) {
        self.inverse_ahead(a, &[]);
    }

    /// [`inverse`](Self::inverse), while what is needed next comes into the cache as with [`forward_ahead`](Self::forward_ahead).
    ///
    /// # Panics
    /// If `a` does not hold `n` residues.
    pub fn inverse_ahead(&self, a: &mut [u64], ahead: &[&[u64]]) {
        assert!(
            a.len() == self.n,
            "transform of {} coefficients, found {}",
            self.n,
            a.len()
        );
        self.kernel.ntt_inverse(&self.plan, a, ahead);
    }
}

impl std::fmt::Debug for NttTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NttTable")
            .field("n", &self.n)
            .field("modulus", &self.modulus.value())
            .field("kernel", &self.kernel.name())
            .finish_non_exhaustive()
    }
}

/// The `2n`-th root of unity `g^((p-1)/2n)` of the smallest `g` for which it is primitive.
fn primitive_root(n: usize, m: &Modulus) -> Result<u64, RingError> {
    let p = m.value();
    let order = 2 * n as u64;
    if p % order != 1 {
        return Err(RingError::NoRoot { modulus: p, n });
    }
    // Half of all g are non-residues, and each of those gives a root of order exactly 2n.
    (2..p)
        .map(|g| m.pow(g, (p - 1) / order))
        .find(|&psi| m.pow(psi, n as u64) == p - 1)
        .ok_or(RingError::NoRoot { modulus: p, n })
}

/// The index with its lowest `bits` bits in reversed order.
#[inline]
pub fn bit_reverse(index: usize, bits: u32) -> usize {
    if bits == 0 {
        0
    } else {
        index.reverse_bits() >> (usize::BITS - bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::primes::ntt_primes;

    fn table(bits: u32, n: usize) -> NttTable {
        NttTable::new(
            n,
            Modulus::new(ntt_primes(bits, n, 1, &[]).unwrap()[0]).unwrap(),
        )
        .unwrap()
    }

    #[test]
    fn values_are_those_of_the_polynomial() {
        for (bits, log_n) in [(8, 1), (10, 2), (50, 3), (45, 5), (50, 8)] {
            let n = 1 << log_n;
            let t = table(bits, n);
            let m = *t.modulus();
            let a: Vec<u64> = (0..n as u64)
                .map(|i| m.reduce(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
                .collect();
            let mut out = a.clone();
            t.forward(&mut out);
            for (j, &value) in out.iter().enumerate() {
                let point = m.pow(t.psi(), 2 * bit_reverse(j, log_n) as u64 + 1);
                let horner = a
                    .iter()
                    .rev()
                    .fold(0, |acc, &c| m.add(m.mul(acc, point), c));
                assert_eq!(value, horner);
            }
            t.inverse(&mut out);
            assert_eq!(out, a);
        }
    }

    #[test]
    fn round_trip_at_every_size() {
        for log_n in 1..=17 {
            let n = 1 << log_n;
            let t = table(50, n);
            let p = t.modulus().value();
            for a in [
                vec![p - 1; n],
                vec![0; n],
                (0..n as u64)
                    .map(|i| i.wrapping_mul(i) % p)
                    .collect::<Vec<_>>(),
            ] {
                let mut b = a.clone();
                t.forward(&mut b);
                assert!(b.iter().all(|&x| x < p));
                t.inverse(&mut b);
                assert_eq!(a, b);
            }
        }
    }

    #[test]
    fn a_modulus_without_roots_is_an_error() {
        let m = Modulus::new(97).unwrap();
        assert!(NttTable::new(16, m).is_ok());
        assert_eq!(
            NttTable::new(32, m).err(),
            Some(RingError::NoRoot { modulus: 97, n: 32 })
        );
        assert_eq!(NttTable::new(24, m).err(), Some(RingError::Dimension(24)));
    }
}
