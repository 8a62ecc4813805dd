//! Kinds of failure and the exit code each ends the process with.

use std::fmt;

/// What kind of thing went wrong. The numbers are part of the command's interface (`tacit --help`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything that has no kind of its own, for example a failed write.
    Other,
    /// A flag, a prompt or a combination of them that cannot be served.
    Usage,
    /// A file or folder that is missing, unreadable, truncated or malformed.
    Input,
    /// Files that are each readable, but do not belong together or cannot be computed under these parameters.
    Mismatch,
    /// Keys, ciphertexts or messages: wrong key, wrong parameters, corrupt bytes.
    Crypto,
    /// Ended by the user (Ctrl-C).
    Interrupted,
}

impl Kind {
    /// The process exit code.
    pub fn code(self) -> u8 {
        match self {
            Kind::Other => 1,
            Kind::Usage => 2,
            Kind::Input => 3,
            Kind::Mismatch => 4,
            Kind::Crypto => 5,
            Kind::Interrupted => 130,
        }
    }

    /// The name under which `--json` reports it.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Other => "other",
            Kind::Usage => "usage",
            Kind::Input => "input",
            Kind::Mismatch => "mismatch",
            Kind::Crypto => "crypto",
            Kind::Interrupted => "interrupted",
        }
    }
}

/// An error on its way to the user: a kind, and a message that names the input and says what to do.
#[derive(Debug)]
pub struct Failure {
    /// Decides the exit code.
    pub kind: Kind,
    /// One or more lines; no trailing newline.
    pub message: String,
}

impl Failure {
    /// A failure of a given kind.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
        }
    }

    /// Shorthand for [`Kind::Usage`].
    pub fn usage(message: impl Into<String>) -> Self {
        Failure::new(Kind::Usage, message)
    }

    /// Shorthand for [`Kind::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Failure::new(Kind::Input, message)
    }

    /// The user pressed Ctrl-C.
    pub fn interrupted() -> Self {
        Failure::new(Kind::Interrupted, "interrupted; secret keys were dropped")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Failure::new(Kind::Other, e.to_string())
    }
}

impl From<serde_json::Error> for Failure {
    fn from(e: serde_json::Error) -> Self {
        Failure::new(Kind::Other, format!("could not write JSON: {e}"))
    }
}

/// Joins an error and its sources into one line: `outer: cause: root`, leaving out causes that the outer text already contains.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Result of a command.
pub type Outcome<T = ()> = Result<T, Failure>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_nonzero() {
        let kinds = [
            Kind::Other,
            Kind::Usage,
            Kind::Input,
            Kind::Mismatch,
            Kind::Crypto,
            Kind::Interrupted,
        ];
        for (i, a) in kinds.iter().enumerate() {
            assert_ne!(a.code(), 0);
            for b in &kinds[i + 1..] {
                assert_ne!(a.code(), b.code());
                assert_ne!(a.name(), b.name());
            }
        }
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        #[derive(Debug)]
        struct Outer(std::io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "cannot read x")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(
            chain(&Outer(std::io::Error::other("gone"))),
            "cannot read x: gone"
        );
    }
}
