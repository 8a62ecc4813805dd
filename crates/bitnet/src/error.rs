//! What can go wrong, named by input, expectation, finding and remedy.

use std::path::PathBuf;

/// Errors of this crate. Every message says which input, what was expected, what was found and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum BitnetError {
    /// A file or folder could not be read or written.
    #[error("cannot access {path}: {source}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A field of a configuration is missing or wrong.
    #[error("{file}: field `{field}`: expected {expected}, found {found}; {remedy}")]
    Config {
        /// File the field is in.
        file: Box<str>,
        /// Name of the field, with its path inside the file.
        field: Box<str>,
        /// What would have been right.
        expected: Box<str>,
        /// What was there.
        found: Box<str>,
        /// How to mend it.
        remedy: Box<str>,
    },
    /// A tensor of a checkpoint is missing or wrong.
    #[error("{file}: tensor `{tensor}`: expected {expected}, found {found}; {remedy}")]
    Tensor {
        /// File the tensor is in (or the folder, when it is missing everywhere).
        file: Box<str>,
        /// Name of the tensor.
        tensor: Box<str>,
        /// What would have been right.
        expected: Box<str>,
        /// What was there.
        found: Box<str>,
        /// How to mend it.
        remedy: Box<str>,
    },
    /// A file is not in the format that it should be in.
    #[error("{file}: {problem}; {remedy}")]
    Format {
        /// The file.
        file: String,
        /// What is wrong with it.
        problem: String,
        /// How to mend it.
        remedy: String,
    },
    /// Arguments given to a computation do not fit the model or each other.
    #[error("{problem}; {remedy}")]
    Input {
        /// What is wrong.
        problem: String,
        /// How to mend it.
        remedy: String,
    },
    /// The tensor library refused an operation.
    #[error("tensor computation failed: {0}; report this with the model's config.json")]
    Tensors(#[from] candle_core::Error),
}

impl BitnetError {
    /// An [`BitnetError::Io`] for `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    /// An [`BitnetError::Input`].
    pub fn input(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Input {
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// An [`BitnetError::Format`].
    pub fn format(
        file: impl Into<String>,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Format {
            file: file.into(),
            problem: problem.into(),
            remedy: remedy.into(),
        }
    }

    /// An [`BitnetError::Tensor`].
    pub fn tensor(
        file: impl Into<String>,
        tensor: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Tensor {
            file: file.into().into(),
            tensor: tensor.into().into(),
            expected: expected.into().into(),
            found: found.into().into(),
            remedy: remedy.into().into(),
        }
    }
}
