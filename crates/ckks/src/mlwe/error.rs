//! What can be wrong with the inputs of the MLWE side.

use tacit_ring::ternary::NotTernary;

/// Errors of ring switch, mix and repack.
#[derive(Debug, thiserror::Error)]
pub enum MlweError {
    /// The three degrees do not fit.
    #[error(
        "degrees N = {degree}, N' = {small_degree}, tokens n = {tokens}: expected powers of two with n <= N' <= N"
    )]
    Shape {
        /// N.
        degree: usize,
        /// N'.
        small_degree: usize,
        /// n.
        tokens: usize,
    },
    /// A polynomial, secret or list has the wrong length.
    #[error("{what} has {found} entries, expected {expected}")]
    Length {
        /// Which input.
        what: &'static str,
        /// Expected number of entries.
        expected: usize,
        /// Found number of entries.
        found: usize,
    },
    /// A residue is not below its modulus.
    #[error(
        "{what} holds a residue that is not below the modulus {modulus}: the ciphertext or key belongs to other parameters"
    )]
    Residue {
        /// Which input.
        what: &'static str,
        /// The modulus.
        modulus: u64,
    },
    /// A key made with other parameters or for another number of tokens.
    #[error("{what} was made {found}, the context is {expected}: use the key of these parameters")]
    KeyMismatch {
        /// Which key.
        what: &'static str,
        /// What the context is.
        expected: String,
        /// What the key was made with.
        found: String,
    },
    /// An input or output is placed outside the ciphertext.
    #[error(
        "{what} {index} is placed at feature {feature}, shift {shift}: expected a feature below {features} and a shift below {shifts}"
    )]
    Placement {
        /// "input" or "output".
        what: &'static str,
        /// Column or row.
        index: usize,
        /// The feature asked for.
        feature: usize,
        /// The shift asked for.
        shift: usize,
        /// Features in a ciphertext.
        features: usize,
        /// Number of different shifts (2n).
        shifts: usize,
    },
    /// A weight is not ternary.
    #[error(transparent)]
    Weight(#[from] NotTernary),
    /// A row with so many weights that a 64-bit sum of residues could wrap.
    #[error(
        "an output sums {found} inputs, at most {limit} residues fit a 64-bit sum: split the matrix by columns"
    )]
    RowTooDense {
        /// Nonzero weights in the densest row.
        found: usize,
        /// How many fit.
        limit: usize,
    },
    /// The mix wants other inputs than it was given.
    #[error("the product reads {expected} input ciphertexts, {found} were given")]
    Inputs {
        /// Ciphertexts the placement of inputs refers to.
        expected: usize,
        /// Ciphertexts given.
        found: usize,
    },
    /// An object made for another shape.
    #[error("{what} was made for (N, N', n) = {found:?}, expected {expected:?}")]
    ShapeMismatch {
        /// Which object.
        what: &'static str,
        /// Shape of the context.
        expected: (usize, usize, usize),
        /// Shape of the object.
        found: (usize, usize, usize),
    },
    /// Arithmetic layer.
    #[error(transparent)]
    Ring(#[from] tacit_ring::RingError),
}
