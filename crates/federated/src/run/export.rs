//! The federated model as a folder that `tacit ask --model` serves.

use std::path::{Path, PathBuf};

use serde::Serialize;
use tacit_bitnet::train::{Network, Role, write_model};

use super::{Run, perplexity};
use crate::lora::Global;
use crate::{FederatedError, NamedTensors};

/// What was written.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exported {
    /// The folder.
    pub folder: PathBuf,
    /// Perplexity of the model as it was trained.
    pub trained_perplexity: f64,
    /// Perplexity of the folder's weights: ternary matrices, half-precision embedding.
    pub served_perplexity: f64,
    /// Whether matrices had to be ternarised for the folder. Otherwise they are what was trained.
    pub ternarised: bool,
    /// Vectors of a trained prompt, which lie beside the model in `prompt.safetensors`: 0 without one.
    pub prompt: usize,
}

/// The network whose export holds the state, and whether its matrices change by being ternarised.
///
/// A network trained with `forward = "ternary"` is exported as it is. One trained with `forward = "float"` whose matrices are still ternary (only
/// embedding, vectors or scales were trained) keeps them; otherwise base plus adapter are ternarised now.
pub(super) fn servable(mut network: Network) -> (Network, bool) {
    if network.is_quantised() {
        return (network, false);
    }
    let mut exact = network.clone();
    if exact.make_masters(0).is_ok() {
        return (exact, false);
    }
    network.set_quantised(true);
    (network, true)
}

/// Writes the model of `global` into `folder` without measuring it: what a coordinator without text can do.
///
/// # Errors
/// [`FederatedError::Training`] when it cannot be written.
pub fn export_model(run: &Run, global: &Global, folder: &Path) -> Result<(), FederatedError> {
    let trained = run.tuner().network(&global.adapter, &global.residual)?;
    write_model(folder, &servable(trained.clone()).0, run.tokenizer())?;
    write_prompt(folder, &trained)?;
    Ok(())
}

/// Writes a trained prompt beside the model; returns its number of vectors.
fn write_prompt(folder: &Path, network: &Network) -> Result<usize, FederatedError> {
    let Some(p) = network.parameters().find(|p| p.role == Role::Prompt) else {
        return Ok(0);
    };
    let mut t = NamedTensors::new();
    t.insert(p.name, &[p.rows, p.cols], p.values.to_vec())?;
    t.save(&folder.join("prompt.safetensors"), &[])?;
    Ok(p.rows)
}

/// Writes the model of `global` into `folder`.
///
/// # Errors
/// [`FederatedError::Training`] when it cannot be written.
pub fn export(run: &Run, global: &Global, folder: &Path) -> Result<Exported, FederatedError> {
    let trained = run.tuner().network(&global.adapter, &global.residual)?;
    let trained_perplexity = perplexity(&trained, run.validation())?;
    let (network, ternarised) = servable(trained);
    let served_perplexity = perplexity(&network.as_exported(), run.validation())?;
    write_model(folder, &network, run.tokenizer())?;
    let prompt = write_prompt(folder, &network)?;
    Ok(Exported {
        folder: folder.to_owned(),
        trained_perplexity,
        served_perplexity,
        ternarised,
        prompt,
    })
}
