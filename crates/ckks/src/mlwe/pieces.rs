//! An RLWE ciphertext under `s'(X^r)` seen as one MLWE ciphertext for each feature.

use super::{MixWord, MlweContext, MlweError, MlweShape, RlweCoeff};

/// The MLWE ciphertexts of all `k` features of one ciphertext: rank `k'` over `Z[Y]/(Y^n + 1)`.
///
/// With `T[f][t] = a[f + k t]`, component `j` of feature `f` is
///
/// ```text
/// A_{f,j} = T[f - r j]            if f >= r j
///         = Y * T[f - r j + k]    otherwise            (Y * c: up by one, the top coefficient comes back negated)
/// ```
///
/// so that with the rows `Y*T[0..k]` written before the rows `T[0..k]` every component of all features is one window of `k`
/// consecutive rows: nothing is expanded. `b_f + sum_j A_{f,j} * s'_j = m_f` with `b_f[t] = b[f + k t]`.
#[derive(Clone)]
pub struct Pieces<T> {
    shape: MlweShape,
    /// `k` rows of `n` words.
    b: Vec<T>,
    /// `2k` rows of `n` words: `Y*T`, then `T`.
    a: Vec<T>,
}

impl<T: MixWord> Pieces<T> {
    /// Rounds the residues to words and transposes them into rows of tokens. The input is under `s'(X^r)`.
    ///
    /// Error: none for `u64`; [`super::noise::mod_switch`] for `u32`.
    ///
    /// # Errors
    /// [`MlweError::Length`] or [`MlweError::Residue`] if the ciphertext is of other parameters.
    pub fn new(context: &MlweContext, input: &RlweCoeff) -> Result<Self, MlweError> {
        let (shape, q) = (context.shape, context.q0());
        input.check("input of the decomposition", shape.degree(), q)?;
        let (k, n) = (shape.features(), shape.tokens());
        let mut b = vec![T::default(); k * n];
        transpose(&input.b, k, &mut b, |x| T::enter(x, q));
        let mut a = vec![T::default(); 2 * k * n];
        let (shifted, plain) = a.split_at_mut(k * n);
        transpose(&input.a, k, plain, |x| T::enter(x, q));
        for (shifted, plain) in shifted.chunks_exact_mut(n).zip(plain.chunks_exact(n)) {
            shifted[0] = plain[n - 1].negative();
            shifted[1..].copy_from_slice(&plain[..n - 1]);
        }
        Ok(Self { shape, b, a })
    }

    /// The degrees.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    /// The `n` words of a feature in a component: component 0 is the b part, component `1 + j` is `A_{f,j}`.
    ///
    /// # Panics
    /// If `component > k'` or `feature >= k`.
    pub fn row(&self, component: usize, feature: usize) -> &[T] {
        let (k, n) = (self.shape.features(), self.shape.tokens());
        assert!(feature < k && component < self.shape.components());
        match component {
            0 => &self.b[feature * n..][..n],
            _ => &self.a[(k + feature - self.shape.pieces() * (component - 1)) * n..][..n],
        }
    }
}

/// `out[f*n + t] = map(input[f + k t])` for `k` features: a `n x k` to `k x n` transposition in blocks that fit L1.
pub(super) fn transpose<A: Copy, B>(input: &[A], k: usize, out: &mut [B], map: impl Fn(A) -> B) {
    const SIDE: usize = 32;
    let n = input.len() / k;
    for f0 in (0..k).step_by(SIDE) {
        for t0 in (0..n).step_by(SIDE) {
            for f in f0..(f0 + SIDE).min(k) {
                for t in t0..(t0 + SIDE).min(n) {
                    out[f * n + t] = map(input[f + k * t]);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposes_there_and_back() {
        for (k, n) in [(1, 8), (8, 1), (64, 128), (128, 4), (33, 40)] {
            let x: Vec<u64> = (0..(k * n) as u64).collect();
            let mut y = vec![0; k * n];
            transpose(&x, k, &mut y, |x| x);
            assert_eq!(y[(k - 1) * n], k as u64 - 1);
            let mut z = vec![0; k * n];
            transpose(&y, n, &mut z, |x| x);
            assert_eq!(x, z);
        }
    }
}
