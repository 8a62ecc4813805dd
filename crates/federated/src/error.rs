//! What can go wrong, named by input, expectation, finding and remedy.

use std::path::{Path, PathBuf};

/// Errors of this crate. Every message says which input, what was expected, what was found and how to mend it.
#[derive(Debug, thiserror::Error)]
pub enum FederatedError {
    /// A file or folder could not be read or written.
    #[error("cannot access {}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not in the format that it should be in.
    #[error("{file}: {problem}; {remedy}")]
    Format {
        /// The file or message.
        file: String,
        /// What is wrong with it.
        problem: String,
        /// How to mend it.
        remedy: String,
    },
    /// Two sets of tensors that should have the same names and shapes do not.
    #[error("{what}: tensor `{tensor}`: expected {expected}, found {found}; {remedy}")]
    Layout {
        /// What was being done.
        what: String,
        /// Name of the first tensor that differs.
        tensor: String,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
        /// How to mend it.
        remedy: String,
    },
    /// A message is larger than may be sent or read at once.
    #[error("{what}: {bytes} bytes ({}) in one message, at most {limit} ({}); {remedy}", binary(*bytes), binary(*limit))]
    TooLarge {
        /// The message.
        what: String,
        /// Bytes that it has, or has so far.
        bytes: u64,
        /// Most that it may have.
        limit: u64,
        /// How to mend it.
        remedy: String,
    },
    /// A setting is wrong, or two settings contradict each other.
    #[error("{setting}: expected {expected}, found {found}; {remedy}")]
    Setting {
        /// Its path in the configuration, e.g. `rule.beta1`.
        setting: String,
        /// What would have been right.
        expected: String,
        /// What was there.
        found: String,
        /// How to mend it.
        remedy: String,
    },
    /// The network or its text could not be read, trained or written.
    #[error("training: {0}")]
    Training(#[from] tacit_bitnet::train::TrainError),
    /// A model folder could not be read.
    #[error("model: {0}")]
    Model(#[from] tacit_bitnet::BitnetError),
    /// A server said no, or could not be reached.
    #[error("{call}: the SuperLink {}: {problem}", if *status == 0 { "could not be reached".to_owned() } else { format!("answered {status}") })]
    Remote {
        /// What was asked.
        call: String,
        /// HTTP status; 0 when there was no answer.
        status: u16,
        /// What was said or went wrong.
        problem: String,
    },
    /// A protection stage refused its settings, inputs or a message.
    #[error("{0}")]
    Protection(#[from] crate::protection::ProtectionError),
    /// A value that is not a finite number appeared.
    #[error("{place}: a value is {value}; {remedy}")]
    NotFinite {
        /// Where.
        place: String,
        /// The value.
        value: f64,
        /// How to mend it.
        remedy: String,
    },
}

/// Bytes in units of 1024, with one digit behind the point.
fn binary(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let power = (bytes.max(1).ilog2() / 10) as usize;
    format!(
        "{:.1} {}",
        bytes as f64 / (1u64 << (10 * power)) as f64,
        units[power]
    )
}

impl FederatedError {
    /// An [`FederatedError::Io`] for `path`.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.as_ref().to_owned(),
            source,
        }
    }

    /// A [`FederatedError::Format`].
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

    /// A [`FederatedError::Setting`].
    pub fn setting(
        setting: impl Into<String>,
        expected: impl Into<String>,
        found: impl ToString,
        remedy: impl Into<String>,
    ) -> Self {
        Self::Setting {
            setting: setting.into(),
            expected: expected.into(),
            found: found.to_string(),
            remedy: remedy.into(),
        }
    }
}
