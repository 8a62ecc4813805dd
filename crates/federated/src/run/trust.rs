//! The coordinator's own text and the update it would send were it a client: what FLTrust compares the clients with.

use super::client::{When, Worker};
use super::{Run, client_data};
use crate::config::RunConfig;
use crate::data::ClientData;
use crate::partition;
use crate::stage::Stage;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// The coordinator's text, if the run's rule needs it. `clients` is the number of clients, whose next number it takes.
///
/// # Errors
/// [`FederatedError::Io`] and [`FederatedError::Format`] for a folder that cannot be read, [`FederatedError::Setting`] without text.
pub(super) fn root_data(
    config: &RunConfig,
    tuner: &Tuner,
    tokenizer: &tokenizers::Tokenizer,
    clients: usize,
) -> Result<Option<ClientData>, FederatedError> {
    if !config.robust().is_some_and(|r| r.needs_root()) {
        return Ok(None);
    }
    let texts = match (config.root(), &config.data.grammar) {
        (Some(folder), _) => partition::read(folder)?,
        (None, Some(g)) => {
            // All topics alike, whatever the clients' are.
            partition::generated(config.seed ^ 0x7275_7374, 1, g.documents, g.topics, 1e3)
        }
        (None, None) => Vec::new(),
    };
    let Some(text) = texts.first() else {
        return Err(FederatedError::setting(
            "stage (robust).root",
            "a folder with the coordinator's own text",
            "none",
            "`tacit federate partition --clients 1 --out DIR` makes one",
        ));
    };
    Ok(Some(client_data(config, tuner, tokenizer, text, clients)?))
}

impl Run {
    /// The update of round `round` on the coordinator's own text, clipped as the clients' are and not compressed; none if no rule needs it.
    pub(super) fn root_update(&self, round: usize) -> Result<Option<Vec<f32>>, FederatedError> {
        let Some(data) = &self.root else {
            return Ok(None);
        };
        let mut config = self.config.clone();
        config.stages.retain(|s| matches!(s, Stage::Clip { .. }));
        config.personal = None;
        config.train.scaffold = false;
        config.method.ranks.clear();
        let worker = Worker {
            config: &config,
            tuner: &self.tuner,
            data,
            client: self.clients.len(),
        };
        let memory = worker.first_memory()?;
        let none = NamedTensors::new();
        let c = worker.contribute(When::round(round), &self.state.global, &none, &memory)?;
        Ok(Some(c.update.flatten()))
    }
}
