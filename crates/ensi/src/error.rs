//! What can go wrong in encrypted inference.

use thiserror::Error;

/// Errors of the encrypted model: which input, what was expected, what was found, what to do.
#[derive(Debug, Error)]
pub enum EnsiError {
    /// The model's shape is outside what the encrypted layout covers.
    #[error("model shape: {0}")]
    Shape(String),
    /// A calibration entry is missing or unusable.
    #[error("calibration: {0}")]
    Calibration(String),
    /// The program asked for more levels than the chain has.
    #[error(
        "step {step}: needs level {needed} but the ciphertext is at level {found}; use polynomials of lower degree or parameters with more levels"
    )]
    OutOfLevels {
        /// The plan step.
        step: String,
        /// Level needed.
        needed: usize,
        /// Level found.
        found: usize,
    },
    /// Two operands of an addition have different scales.
    #[error("step {step}: scales differ: 2^{left:.6} and 2^{right:.6}")]
    Scale {
        /// The plan step.
        step: String,
        /// log2 of the left scale.
        left: f64,
        /// log2 of the right scale.
        right: f64,
    },
    /// The prompt does not fit the window.
    #[error("prompt of {tokens} tokens does not fit the window of {window}; shorten it")]
    Window {
        /// Tokens given.
        tokens: usize,
        /// Tokens that fit.
        window: usize,
    },
    /// A message of the session is not what was expected.
    #[error("session message: {0}")]
    Message(String),
    /// An evaluation key that the plan needs has not been received.
    #[error(
        "evaluation keys missing: {0}; send all key messages of the client before a forward pass"
    )]
    MissingKeys(String),
    /// The forward pass was stopped by the caller.
    #[error("stopped")]
    Stopped,
    /// An error of the encryption engine.
    #[error(transparent)]
    Ckks(Box<tacit_ckks::CkksError>),
    /// An error of the ternary products' side of the engine.
    #[error(transparent)]
    Mlwe(Box<tacit_ckks::mlwe::MlweError>),
    /// An error of the model in the clear.
    #[error(transparent)]
    Model(Box<tacit_bitnet::BitnetError>),
}

impl From<tacit_ckks::CkksError> for EnsiError {
    fn from(error: tacit_ckks::CkksError) -> Self {
        Self::Ckks(Box::new(error))
    }
}

impl From<tacit_ckks::mlwe::MlweError> for EnsiError {
    fn from(error: tacit_ckks::mlwe::MlweError) -> Self {
        Self::Mlwe(Box::new(error))
    }
}

impl From<tacit_bitnet::BitnetError> for EnsiError {
    fn from(error: tacit_bitnet::BitnetError) -> Self {
        Self::Model(Box::new(error))
    }
}
