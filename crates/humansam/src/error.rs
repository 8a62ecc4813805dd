//! The one error type of the crate.

use std::path::PathBuf;

/// What can go wrong while reading, generating, measuring or judging videos.
///
/// Messages name the input, what was expected, what was found and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HumansamError {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: `read`, `write`, `list`, `create`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is not what its format asks for.
    #[error("{}: {message}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// Bytes that have no file name are not what their format asks for.
    #[error("{format}: {message}")]
    Bytes {
        /// Name of the format.
        format: &'static str,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// An external program is absent.
    #[error(
        "{program} is not on PATH, but is needed for {what}: install it (package ffmpeg: `apt-get install ffmpeg`, `brew install ffmpeg`), or give Y4M, GIF or a folder of PNG/JPEG frames, which need no other program"
    )]
    MissingProgram {
        /// `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// What it was needed for, with the file's name.
        what: String,
    },
    /// An external program failed or took too long.
    #[error("{program} on {}: {message}", path.display())]
    Program {
        /// `ffmpeg` or `ffprobe`.
        program: &'static str,
        /// The video.
        path: PathBuf,
        /// Its complaint, or the time it was given.
        message: String,
    },
    /// A file of weights does not hold the tensors of the model, or cannot be read or written.
    #[error("{}: {message}", path.display())]
    Weights {
        /// The file.
        path: PathBuf,
        /// What was expected, what was found, what to do.
        message: String,
    },
    /// Tensor arithmetic failed: shapes that do not fit, or memory.
    #[error("tensor arithmetic: {0}")]
    Tensor(#[from] candle_core::Error),
    /// Encryption, decryption or arithmetic on ciphertexts failed.
    #[error("encrypted head: {0}")]
    Encrypted(#[from] tacit_ckks::CkksError),
    /// Training left the range of numbers.
    #[error("training diverged at step {step}: the loss is {loss}; use a smaller --lr")]
    Diverged {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f64,
    },
    /// Arguments that do not fit together or lie outside of their range.
    #[error("{0}")]
    Argument(String),
}

impl HumansamError {
    /// An [`HumansamError::Io`] for `map_err`.
    pub fn io(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| HumansamError::Io {
            action,
            path,
            source,
        }
    }
}

/// Result of this crate.
pub type Result<T, E = HumansamError> = std::result::Result<T, E>;
