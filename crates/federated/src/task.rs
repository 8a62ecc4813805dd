//! Federations that train something else than a language model: what a run has to know of it.
//!
//! A [`Task`] says where training starts, and gives loss and gradient on some examples at a state; examples are its own. Everything else, from the
//! order of examples to server rules and what protects updates, is the run's ([`crate::run::TaskRun`]).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::config::RunConfig;
use crate::lora::Combine;
use crate::tuner::Method;
use crate::{FederatedError, NamedTensors};

/// What is trained, and on what.
pub trait Task: Sync {
    /// One example; what it holds is the task's affair.
    type Example: Send + Sync;

    /// Where training starts, the same for every party.
    ///
    /// # Errors
    /// When tensors cannot be made.
    fn initial(&self) -> Result<NamedTensors, FederatedError>;

    /// Mean loss over some examples and its gradient, in the layout of `state`.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when `state` is not the task's.
    fn gradient(
        &self,
        state: &NamedTensors,
        examples: &[&Self::Example],
    ) -> Result<(f64, NamedTensors), FederatedError>;

    /// Cross-entropy and right answers on examples that nobody trains on.
    ///
    /// # Errors
    /// As [`Task::gradient`].
    fn measure(
        &self,
        state: &NamedTensors,
        examples: &[Self::Example],
    ) -> Result<Measured, FederatedError>;

    /// What decides the meaning of examples beside the start, such as the model that made their features: parties with another are refused.
    fn setting(&self) -> String {
        String::new()
    }

    /// Writes down everything of an example that a result depends on; a run is identified by its hash.
    fn identify(&self, example: &Self::Example, out: &mut Vec<u8>);
}

/// How well a state does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Measured {
    /// Mean cross-entropy, nats an example.
    pub loss: f64,
    /// Share of right answers, 0 to 1.
    pub right: f64,
    /// Examples.
    pub examples: usize,
}

/// `[head]`: the head of the model that judges videos is trained, on tables of features that each client made of its own videos.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HeadData {
    /// The model whose branches made the features and whose head is trained; the shipped one without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<PathBuf>,
    /// A table of `tacit inspect head --features` for each client.
    pub tables: Vec<PathBuf>,
    /// Where training starts.
    pub start: Start,
}

/// Where the head's training starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// At the model's own head.
    #[default]
    Model,
    /// At a head that knows nothing.
    Blank,
}

/// Checks that a configuration with `[head]` asks for nothing that only a language model has.
///
/// # Errors
/// [`FederatedError::Setting`] with the reason.
pub(crate) fn check(c: &RunConfig) -> Result<(), FederatedError> {
    let Some(head) = &c.head else { return Ok(()) };
    let text = "it belongs to language models: leave it out where [head] is trained";
    let d = &c.data;
    for (setting, wrong, why) in [
        (
            "head.tables",
            head.tables.is_empty(),
            "`tacit inspect head --features FILE` makes a client's table",
        ),
        ("base", c.base != Default::default(), text),
        (
            "data.partition, data.grammar, data.folders",
            d.partition.is_some() || d.grammar.is_some() || d.folders.is_some(),
            text,
        ),
        (
            "data.train_limit, data.validation_limit",
            d.train_limit > 0 || d.validation_limit > 0,
            "tables are used whole: make smaller ones",
        ),
        ("method", c.method != Method::default(), text),
        ("personal", c.personal.is_some(), text),
        ("combine", c.combine != Combine::Average, text),
        (
            "train.scaffold",
            c.train.scaffold,
            "control variates are kept by runs of language models only",
        ),
        (
            "clock",
            c.clock.is_some(),
            "deadlines and buffers are kept by runs of language models only",
        ),
        (
            "history",
            c.history,
            "forgetting a client is built for language models only",
        ),
        (
            "stage (encrypted-sum).share",
            c.encrypted_share().is_some_and(|s| s < 1.0),
            "the head is small: encrypt all of it",
        ),
        (
            "stage (robust).rule",
            c.robust().is_some_and(|r| r.needs_root()),
            "the coordinator of a head has no examples of its own: take another rule",
        ),
    ] {
        if wrong {
            return Err(FederatedError::setting(
                setting,
                "a setting that a federation of heads knows",
                if setting == "head.tables" {
                    "no table"
                } else {
                    "another"
                },
                why,
            ));
        }
    }
    Ok(())
}
