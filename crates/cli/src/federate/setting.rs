//! What the commands of a federation share: its configuration, base model and texts.

use std::io::Write;
use std::path::Path;

use tacit_bitnet::train::Network;
use tacit_federated::FederatedError;
use tacit_federated::config::RunConfig;
use tacit_federated::partition::ClientText;
use tacit_federated::run::{BaseModel, Run, random_base, texts};

use super::{failure, registry};
use crate::exit::{Failure, Outcome};
use crate::model;

/// The configuration that is run when none is given.
const SHIPPED: &str = include_str!("../../../../examples/federate.toml");
/// The packages that the shipped model was trained on; `data.folders.unseen_by = "shipped"` stands for this list.
const TRAINED_ON: &str = include_str!("../../../../models/tacit-mini/corpus.txt");

/// The configuration in a file, or the shipped one.
pub fn config(path: Option<&Path>) -> Outcome<RunConfig> {
    config_with(path, &[])
}

/// The same with some settings replaced.
pub fn config_with(path: Option<&Path>, set: &[String]) -> Outcome<RunConfig> {
    match path {
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|e| failure(FederatedError::io(path, e)))?;
            RunConfig::from_toml_with(&text, &path.display().to_string(), set)
        }
        None => RunConfig::from_toml_with(SHIPPED, "the shipped configuration", set),
    }
    .map_err(failure)
}

/// Base model and texts of a configuration.
pub struct Setting {
    /// The base.
    pub base: BaseModel,
    /// The clients' texts.
    pub texts: Vec<ClientText>,
}

impl Setting {
    /// Reads the base model only: a coordinator holds no text.
    pub fn base(config: &RunConfig) -> Outcome<BaseModel> {
        of_text(config)?;
        if config.base.random.is_some() {
            // Its tokenizer is made from the text, which must be at hand then.
            return Ok(Self::read(config)?.base);
        }
        named_base(config)
    }

    /// Reads what the configuration names.
    pub fn read(config: &RunConfig) -> Outcome<Self> {
        of_text(config)?;
        // Lives until the text has been read.
        let mut list = tempfile::NamedTempFile::new()?;
        let mut config = config.clone();
        if let Some(f) = &mut config.data.folders
            && f.unseen_by.as_deref() == Some(Path::new("shipped"))
        {
            list.write_all(TRAINED_ON.as_bytes())?;
            f.unseen_by = Some(list.path().to_owned());
        }
        let texts = texts(&config, registry()).map_err(failure)?;
        let base = if config.base.random.is_some() {
            random_base(&config, &texts).map_err(failure)?
        } else {
            named_base(&config)?
        };
        Ok(Self { base, texts })
    }

    /// The run.
    pub fn run(self, config: RunConfig, resume: bool) -> Outcome<Run> {
        Run::new(config, Some(self.base), &self.texts, resume).map_err(failure)
    }
}

/// Refuses a configuration that trains the head of the video model where only language models are known.
fn of_text(config: &RunConfig) -> Outcome {
    match config.head {
        None => Ok(()),
        Some(_) => Err(Failure::usage(
            "[head] trains the head of the model that judges videos, which `tacit federate run`, `coordinate` and `node` do",
        )),
    }
}

/// The base in a checkpoint or model folder, or the shipped one.
fn named_base(config: &RunConfig) -> Outcome<BaseModel> {
    if let Some(checkpoint) = &config.base.checkpoint {
        let network = Network::from_checkpoint(checkpoint).map_err(|e| failure(e.into()))?;
        let file = checkpoint
            .parent()
            .unwrap_or(Path::new("."))
            .join("data")
            .join("tokenizer.json");
        let tokenizer = tacit_bitnet::Tokenizer::from_file(&file).map_err(model::failure)?;
        Ok(BaseModel {
            network,
            tokenizer: tokenizer.inner().clone(),
        })
    } else {
        let source = model::source(config.base.model.as_deref())?;
        let (weights, _) = model::load_weights(source.path())?;
        let tokenizer = model::tokenizer(source.path(), &weights)?;
        let network = Network::from_model(&weights).map_err(|e| failure(e.into()))?;
        Ok(BaseModel {
            network,
            tokenizer: tokenizer.inner().clone(),
        })
    }
}
