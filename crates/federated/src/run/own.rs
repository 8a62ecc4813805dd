//! What personal adapters are good for: every client's own model beside the shared one, measured and written.

use std::path::Path;

use serde::Serialize;
use tacit_bitnet::train::{Network, write_model};

use super::export::servable;
use super::{Run, perplexity};
use crate::{FederatedError, NamedTensors, personal};

/// Perplexities on a client's own validation text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Own {
    /// Number of the client.
    pub client: usize,
    /// Its name.
    pub name: String,
    /// The base model.
    pub base: f64,
    /// The shared model, which all clients have.
    pub shared: f64,
    /// The shared model with the client's private adapter, as served.
    pub personal: f64,
}

impl Run {
    /// Client `client`'s own network: the shared adapter joined with its private one.
    ///
    /// # Errors
    /// [`FederatedError::Layout`] when what the client remembers is not of this run.
    pub fn own_network(&self, client: usize) -> Result<Network, FederatedError> {
        let global = &self.state.global;
        let private = &self.state.clients[client].personal;
        let joined = personal::join(&global.adapter, private)?;
        self.tuner.network(&joined, &global.residual)
    }
}

/// Measures every client's own model and writes it to `folder/client-KK`: the model, and the private part by itself in `personal.safetensors`. In a
/// federation of machines each client writes only its own.
///
/// # Errors
/// [`FederatedError::Setting`] for a run without personal adapters, [`FederatedError::Training`] when a model cannot be written.
pub fn export_own(run: &Run, folder: &Path) -> Result<Vec<Own>, FederatedError> {
    if run.config.personal.is_none() {
        return Err(FederatedError::setting(
            "personal",
            "a run with personal adapters",
            "none",
            "add [personal] to its configuration",
        ));
    }
    let none = NamedTensors::new();
    let start = run.tuner.initial(run.config.method.rank, 0)?;
    let base = run.tuner.network(&start, &none)?;
    let global = &run.state.global;
    let shared = run.tuner.network(&global.adapter, &global.residual)?;
    let mut out = Vec::new();
    for (k, c) in run.clients.iter().enumerate() {
        if run.without.contains(&k) {
            continue;
        }
        let (network, _) = servable(run.own_network(k)?);
        let folder = folder.join(format!("client-{k:02}"));
        write_model(&folder, &network, &run.tokenizer)?;
        let private = &run.state.clients[k].personal;
        private.save(&folder.join("personal.safetensors"), &[])?;
        out.push(Own {
            client: k,
            name: c.name.clone(),
            base: perplexity(&base, &c.valid)?,
            shared: perplexity(&shared, &c.valid)?,
            personal: perplexity(&network.as_exported(), &c.valid)?,
        });
    }
    Ok(out)
}
