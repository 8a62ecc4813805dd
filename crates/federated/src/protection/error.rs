//! What a protection refuses, and why.

use super::ClientId;

/// Errors of the protection stages.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProtectionError {
    /// A setting under which the stage's promise would not hold.
    #[error("{stage}: {setting} is {found}, expected {expected}; {remedy}")]
    Setting {
        /// The stage.
        stage: &'static str,
        /// The setting.
        setting: &'static str,
        /// What it was.
        found: String,
        /// What would have been right.
        expected: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// An input vector of the wrong shape or with values that the stage cannot carry.
    #[error("{stage}: {problem}; {remedy}")]
    Input {
        /// The stage.
        stage: &'static str,
        /// What is wrong.
        problem: String,
        /// How to mend it.
        remedy: &'static str,
    },
    /// Bytes that are not a message of this protocol.
    #[error(
        "{stage}: a message of {bytes} bytes cannot be read: {problem}; the sender runs another version or the message was changed on the way"
    )]
    Malformed {
        /// The stage.
        stage: &'static str,
        /// Length of the message.
        bytes: usize,
        /// What is wrong.
        problem: String,
    },
    /// A well-formed message of another session, round or configuration.
    #[error(
        "{stage}: the message belongs to {field} {found}, this is {field} {expected}: replayed or misdirected, and ignored"
    )]
    WrongRound {
        /// The stage.
        stage: &'static str,
        /// Which field differs.
        field: &'static str,
        /// What the message says.
        found: String,
        /// What is running.
        expected: String,
    },
    /// A message that came twice, or at a time when another was due.
    #[error(
        "{stage}: {found} arrived while {expected} is due: sent twice or out of order, and ignored"
    )]
    OutOfOrder {
        /// The stage.
        stage: &'static str,
        /// The message.
        found: &'static str,
        /// What is due.
        expected: &'static str,
    },
    /// A client that is not on the list of this round.
    #[error("{stage}: client {client} is not {list}; ignored")]
    UnknownClient {
        /// The stage.
        stage: &'static str,
        /// The client.
        client: ClientId,
        /// The list that it is missing from.
        list: &'static str,
    },
    /// A signature, an authentication tag or a commitment that does not verify.
    #[error("{stage}: {what} of client {client} does not verify: {consequence}")]
    NotAuthentic {
        /// The stage.
        stage: &'static str,
        /// Whose.
        client: ClientId,
        /// What does not verify.
        what: &'static str,
        /// What happens now.
        consequence: &'static str,
    },
    /// The other side broke the protocol in a way that would have cost privacy.
    #[error("{stage}: refused: {problem}")]
    Cheating {
        /// The stage.
        stage: &'static str,
        /// What it did.
        problem: String,
    },
    /// Fewer clients than the protocol needs.
    #[error(
        "{stage}: {found} clients {doing}, at least {needed} are needed; start the round again with the clients that are reachable"
    )]
    TooFew {
        /// The stage.
        stage: &'static str,
        /// What they did.
        doing: &'static str,
        /// How many there are.
        found: usize,
        /// How many are needed.
        needed: usize,
    },
    /// The assumption of a robust rule does not hold for so many bad clients.
    #[error(
        "{rule} with {clients} clients withstands at most {most} bad ones, {assumed} are assumed; it needs {needed}: sample more clients or choose another rule"
    )]
    TooManyBad {
        /// The rule.
        rule: &'static str,
        /// Clients of the round.
        clients: usize,
        /// Bad clients that the configuration assumes.
        assumed: usize,
        /// The most that the rule withstands.
        most: usize,
        /// The condition, as in the paper.
        needed: &'static str,
    },
    /// The privacy budget is spent.
    #[error(
        "privacy budget: after this step epsilon would be {next:.4} at delta {delta:e}, the budget is {budget:.4} ({spent:.4} is spent): the run stops here with the model that it has"
    )]
    BudgetSpent {
        /// Epsilon spent so far.
        spent: f64,
        /// Epsilon if the step were made.
        next: f64,
        /// The budget.
        budget: f64,
        /// Delta of the budget.
        delta: f64,
    },
    /// The homomorphic scheme refused.
    #[error("encrypted aggregation: {0}")]
    Encryption(String),
}

impl ProtectionError {
    pub(crate) fn setting(
        stage: &'static str,
        setting: &'static str,
        found: impl ToString,
        expected: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self::Setting {
            stage,
            setting,
            found: found.to_string(),
            expected: expected.into(),
            remedy,
        }
    }

    pub(crate) fn input(
        stage: &'static str,
        problem: impl Into<String>,
        remedy: &'static str,
    ) -> Self {
        Self::Input {
            stage,
            problem: problem.into(),
            remedy,
        }
    }
}
