//! Degrees, moduli and tables of the MLWE side, and its ciphertext type.

use std::sync::Arc;

use tacit_ring::{Modulus, NttTable};

use super::MlweError;

/// The three degrees: ring `N`, small ring `N'`, token ring `n` (powers of two, `n <= N' <= N`).
///
/// ```
/// use tacit_ckks::mlwe::MlweShape;
/// let shape = MlweShape::new(1 << 16, 1 << 11, 128).unwrap();
/// assert_eq!(shape.features(), 512);
/// assert_eq!(shape.pieces(), 32);
/// assert_eq!(shape.rank(), 16);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MlweShape {
    degree: usize,
    small_degree: usize,
    tokens: usize,
}

impl MlweShape {
    /// Checks and keeps the degrees.
    ///
    /// # Errors
    /// [`MlweError::Shape`] unless all three are powers of two with `tokens <= small_degree <= degree`.
    pub fn new(degree: usize, small_degree: usize, tokens: usize) -> Result<Self, MlweError> {
        let powers = [degree, small_degree, tokens]
            .iter()
            .all(|x| x.is_power_of_two());
        if !powers || tokens > small_degree || small_degree > degree {
            return Err(MlweError::Shape {
                degree,
                small_degree,
                tokens,
            });
        }
        Ok(Self {
            degree,
            small_degree,
            tokens,
        })
    }

    /// `N`, coefficients of a ciphertext polynomial.
    pub fn degree(&self) -> usize {
        self.degree
    }

    /// `N'`, dimension of the small secret.
    pub fn small_degree(&self) -> usize {
        self.small_degree
    }

    /// `n`, tokens of a feature (degree of the MLWE ring).
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// `k = N/n`, features in one ciphertext.
    pub fn features(&self) -> usize {
        self.degree / self.tokens
    }

    /// `r = N/N'`, small-ring pieces of one ciphertext.
    pub fn pieces(&self) -> usize {
        self.degree / self.small_degree
    }

    /// `k' = N'/n`, rank of the MLWE ciphertexts.
    pub fn rank(&self) -> usize {
        self.small_degree / self.tokens
    }

    /// Components of an MLWE ciphertext: `k' + 1`, the first is the b part.
    pub fn components(&self) -> usize {
        self.rank() + 1
    }

    /// The coefficient `feature + k*token` that holds a token of a feature.
    pub fn coefficient(&self, feature: usize, token: usize) -> usize {
        feature + self.features() * token
    }

    pub(super) fn triple(&self) -> (usize, usize, usize) {
        (self.degree, self.small_degree, self.tokens)
    }

    pub(super) fn expect(&self, what: &'static str, found: &Self) -> Result<(), MlweError> {
        if self != found {
            return Err(MlweError::ShapeMismatch {
                what,
                expected: self.triple(),
                found: found.triple(),
            });
        }
        Ok(())
    }
}

/// An RLWE ciphertext modulo the single prime `q0`, in coefficients: `b + a*s = m + e`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RlweCoeff {
    /// The part without the secret: `N` canonical residues.
    pub b: Vec<u64>,
    /// The part that multiplies the secret: `N` canonical residues.
    pub a: Vec<u64>,
}

impl RlweCoeff {
    pub(super) fn check(
        &self,
        what: &'static str,
        degree: usize,
        q: &Modulus,
    ) -> Result<(), MlweError> {
        for part in [&self.b, &self.a] {
            check_poly(what, part, degree, q)?;
        }
        Ok(())
    }
}

pub(super) fn check_poly(
    what: &'static str,
    poly: &[u64],
    degree: usize,
    q: &Modulus,
) -> Result<(), MlweError> {
    if poly.len() != degree {
        return Err(MlweError::Length {
            what,
            expected: degree,
            found: poly.len(),
        });
    }
    if poly.iter().any(|&x| x >= q.value()) {
        return Err(MlweError::Residue {
            what,
            modulus: q.value(),
        });
    }
    Ok(())
}

/// Moduli and transform tables shared by ring switch, mix and repack.
#[derive(Clone)]
pub struct MlweContext {
    pub(super) shape: MlweShape,
    pub(super) q: Arc<NttTable>,
    pub(super) p: Arc<NttTable>,
}

impl MlweContext {
    /// From the transform tables of `q0` and of the repack prime `P'`, both for degree `N`, without any look at security: for
    /// tests, and for callers that have checked their parameters.
    ///
    /// # Errors
    /// [`MlweError::Length`] if a table is for another degree.
    pub fn insecure(
        shape: MlweShape,
        q0: Arc<NttTable>,
        special: Arc<NttTable>,
    ) -> Result<Self, MlweError> {
        for (what, table) in [
            ("transform table of q0", &q0),
            ("transform table of P'", &special),
        ] {
            if table.n() != shape.degree {
                return Err(MlweError::Length {
                    what,
                    expected: shape.degree,
                    found: table.n(),
                });
            }
        }
        Ok(Self {
            shape,
            q: q0,
            p: special,
        })
    }

    /// The same moduli and tables with another number of tokens.
    ///
    /// # Errors
    /// [`MlweError::Shape`] as [`MlweShape::new`].
    pub fn with_tokens(&self, tokens: usize) -> Result<Self, MlweError> {
        let shape = MlweShape::new(self.shape.degree, self.shape.small_degree, tokens)?;
        Ok(Self {
            shape,
            ..self.clone()
        })
    }

    /// The degrees.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    /// The ciphertext modulus `q0`.
    pub fn q0(&self) -> &Modulus {
        self.q.modulus()
    }

    /// The special modulus `P'` of the repack key.
    pub fn special(&self) -> &Modulus {
        self.p.modulus()
    }
}
