//! The one error type of the crate: every message names the input, what was expected, what was found, and how to mend it.

use tacit_ring::RingError;

/// Everything that can go wrong in this crate. Nothing here is a panic: outside input always ends in one of these.
#[derive(Debug, thiserror::Error)]
pub enum CkksError {
    /// An error of the ring layer (primes, moduli, transforms).
    #[error(transparent)]
    Ring(#[from] RingError),

    /// An error of the ternary products on MLWE ciphertexts.
    #[error(transparent)]
    Mlwe(#[from] crate::mlwe::MlweError),

    /// A parameter literal that cannot work, whatever its security.
    #[error("parameters: {field}: {found}; expected {expected}")]
    InvalidParameters {
        /// The field of the literal.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What it should hold.
        expected: String,
    },

    /// A key or parameter set whose modulus is too large for 128-bit security in its ring.
    #[error(
        "{name}: log2 of the modulus is {log2_modulus:.1} in a ring of dimension {ring_dimension} with a {secret} secret, \
         above the 128-bit ceiling of {ceiling}; use fewer or smaller primes, or a larger ring"
    )]
    AboveCeiling {
        /// Name of the key.
        name: String,
        /// Ring dimension `N`.
        ring_dimension: usize,
        /// `log2` of the modulus.
        log2_modulus: f64,
        /// Distribution of the secret, in words.
        secret: String,
        /// The largest permitted `log2` of the modulus (0 if the pair is refused at any modulus).
        ceiling: f64,
    },

    /// Two operands whose scales differ by more than the tolerance.
    #[error(
        "{operation}: scales differ: left 2^{:.6}, right 2^{:.6}; bring both to one scale (rescale, or multiply by a constant) first",
        left.log2(), right.log2()
    )]
    ScaleMismatch {
        /// The operation.
        operation: &'static str,
        /// Scale of the left operand.
        left: f64,
        /// Scale of the right operand.
        right: f64,
    },

    /// An operation that needs more levels than the ciphertext has.
    #[error(
        "{operation}: ciphertext is at level {found}, at least {needed} is needed; bootstrap it or start at a higher level"
    )]
    LevelTooLow {
        /// The operation.
        operation: &'static str,
        /// Level found.
        found: usize,
        /// Level needed.
        needed: usize,
    },

    /// A level, limb count or ring dimension that does not fit the context or the other operand.
    #[error("{what}: found {found}, expected {expected}; was it made with other parameters?")]
    Shape {
        /// What was checked.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it must be, or the bound it must keep.
        expected: String,
    },

    /// A value that cannot be encoded.
    #[error("encode: value {index} is {value:e}: {expected}")]
    Unencodable {
        /// Index of the value.
        index: usize,
        /// The value (times the scale, if that is what failed).
        value: f64,
        /// What is expected.
        expected: String,
    },

    /// An evaluation key that is needed and not there.
    #[error(
        "{operation}: no {key} for level {level} among the evaluation keys; generate it with a shape of at least this level"
    )]
    MissingKey {
        /// The operation.
        operation: &'static str,
        /// Which key.
        key: String,
        /// Level of the ciphertext.
        level: usize,
    },

    /// A key shape that cannot work or a key that is used outside its shape.
    #[error("switching key of level {level} with {special} special primes: {reason}")]
    KeyShape {
        /// Level of the key.
        level: usize,
        /// Number of special primes.
        special: usize,
        /// What is wrong and what to do.
        reason: String,
    },

    /// Bytes that do not start as an object of this library.
    #[error(
        "{expected}: not a Tacit object (first bytes {found:02x?}); give the file or message that `tacit` wrote"
    )]
    BadMagic {
        /// The kind of object expected.
        expected: &'static str,
        /// The bytes found.
        found: [u8; 4],
    },

    /// An object of another format version.
    #[error(
        "{expected}: format version {found}, this program reads version {supported}; write it again with this program"
    )]
    Version {
        /// The kind of object expected.
        expected: &'static str,
        /// Version found.
        found: u16,
        /// Version supported.
        supported: u16,
    },

    /// An object of another kind.
    #[error("expected a {expected}, found a {found}; give the right file or message")]
    WrongKind {
        /// The kind expected.
        expected: &'static str,
        /// The kind found.
        found: String,
    },

    /// An object made with other parameters.
    #[error(
        "{what} was made with other parameters (fingerprint {found}, here {expected}); use keys and ciphertexts of one parameter set"
    )]
    ForeignParameters {
        /// The object.
        what: &'static str,
        /// Its fingerprint (first 8 bytes, hexadecimal).
        found: String,
        /// The fingerprint of the context.
        expected: String,
    },

    /// An object that belongs to another secret key.
    #[error(
        "{what} belongs to key {found}, not to key {expected}; use the key it was made with, or make it again"
    )]
    ForeignKey {
        /// The object.
        what: &'static str,
        /// The key identifier it carries.
        found: String,
        /// The identifier expected.
        expected: String,
    },

    /// An object that ends too early.
    #[error("{what} is truncated: {found} of {expected} bytes; copy or download it again")]
    Truncated {
        /// The object.
        what: &'static str,
        /// Bytes found.
        found: u64,
        /// Bytes expected.
        expected: u64,
    },

    /// An object whose content breaks the format.
    #[error("{what} is corrupt: {reason}; copy, download or generate it again")]
    Corrupt {
        /// The object.
        what: &'static str,
        /// What is wrong.
        reason: String,
    },

    /// Reading or writing failed below us.
    #[error("{what}: {source}")]
    Io {
        /// The object.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
