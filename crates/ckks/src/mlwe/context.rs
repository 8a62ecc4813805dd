//! Degrees, moduli and tables of the MLWE side, and its ciphertext type.

use std::sync::Arc;

use tacit_ring::{Modulus, NttTable, RnsPoly};

use super::MlweError;
use crate::{Ciphertext, CkksError, Context, Parameters};

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

/// A context seen from the MLWE side: the degrees, `q0`, and the first special prime as `P'` of the repack key.
#[derive(Clone)]
pub struct MlweContext {
    pub(super) shape: MlweShape,
    ctx: Arc<Context>,
}

impl MlweContext {
    /// For `tokens` tokens (a power of two); everything else is in the parameters.
    ///
    /// # Errors
    /// [`MlweError::Shape`] unless `tokens` is a power of two of at most the small ring's degree.
    pub fn new(ctx: &Arc<Context>, tokens: usize) -> Result<Self, MlweError> {
        let small_degree = 1 << ctx.params().literal().small_log_n;
        let shape = MlweShape::new(ctx.n(), small_degree, tokens)?;
        Ok(Self {
            shape,
            ctx: ctx.clone(),
        })
    }

    /// The context.
    pub fn context(&self) -> &Arc<Context> {
        &self.ctx
    }

    /// Transform table of `q0`.
    pub(super) fn q(&self) -> &NttTable {
        self.ctx.q_table(0)
    }

    /// Transform table of `P'`.
    pub(super) fn p(&self) -> &NttTable {
        self.ctx.p_table(0)
    }

    /// The degrees.
    pub fn shape(&self) -> &MlweShape {
        &self.shape
    }

    /// The parameters.
    pub fn params(&self) -> &Parameters {
        self.ctx.params()
    }

    /// The ciphertext modulus `q0`.
    pub fn q0(&self) -> &Modulus {
        self.q().modulus()
    }

    /// The special modulus `P'` of the repack key.
    pub fn special(&self) -> &Modulus {
        self.p().modulus()
    }

    /// Bits of a digit of the ring-switch key.
    pub fn digit_bits(&self) -> u32 {
        self.params().literal().ring_switch_digit_bits
    }

    /// A level-0 ciphertext of two parts in coefficients.
    ///
    /// # Errors
    /// [`CkksError::Shape`] for another level, ring or number of parts.
    pub fn to_coefficients(&self, ct: &Ciphertext) -> Result<RlweCoeff, CkksError> {
        let refuse = |what, found, expected: String| CkksError::Shape {
            what,
            found,
            expected,
        };
        let [b, a] = ct.parts.as_slice() else {
            let expected = "2 (relinearise first)".into();
            return Err(refuse(
                "parts of an input of a ternary layer",
                ct.parts.len(),
                expected,
            ));
        };
        if ct.level != 0 {
            let expected = "0 (SlotsToCoeffs ends there)".into();
            return Err(refuse(
                "level of an input of a ternary layer",
                ct.level,
                expected,
            ));
        }
        let n = self.shape.degree;
        let part = |poly: &RnsPoly| {
            if poly.n() != n || poly.limbs() != 1 {
                let what = "ring dimension of an input of a ternary layer";
                return Err(refuse(what, poly.n(), format!("{n}, one limb")));
            }
            let mut out = poly.limb(0).to_vec();
            self.q().inverse(&mut out);
            Ok(out)
        };
        Ok(RlweCoeff {
            b: part(b)?,
            a: part(a)?,
        })
    }

    /// The level-0 ciphertext of the same residues; `scale` is that of the inputs (a ternary layer leaves it as it is).
    ///
    /// # Errors
    /// [`MlweError::Length`] or [`MlweError::Residue`] for residues of other parameters.
    pub fn to_ciphertext(&self, x: &RlweCoeff, scale: f64) -> Result<Ciphertext, CkksError> {
        x.check("output of a ternary layer", self.shape.degree, self.q0())?;
        let part = |poly: &[u64]| {
            let mut out = RnsPoly::zero(self.shape.degree, 1);
            out.limb_mut(0).copy_from_slice(poly);
            self.q().forward(out.limb_mut(0));
            out
        };
        Ok(Ciphertext {
            parts: vec![part(&x.b), part(&x.a)],
            level: 0,
            scale,
        })
    }
}
