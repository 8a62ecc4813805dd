//! Trunks that have been trained, and what they went through.

use std::collections::HashMap;
use std::path::Path;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::train::TrainConfig;
use super::{Card, trunk};
use crate::error::{HumansamError, Result};
use crate::model::weights::{Weights, read_tensors};

/// Files of a model and of a training run.
const MODEL: &str = "model.safetensors";
pub(super) const CHECKPOINT: &str = "checkpoint.safetensors";
/// Tensor of a checkpoint that holds its [`Stage`]s.
pub(super) const STATE: &str = "state";

/// A schedule that a trunk went through, or a part of one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    /// Its settings.
    pub training: TrainConfig,
    /// Steps of it that were done.
    pub steps: usize,
}

/// A trunk with all that it went through.
#[derive(Clone, Debug)]
pub struct Trained {
    /// Its tensors.
    pub trunk: HashMap<String, Tensor>,
    /// The schedules, oldest first; never empty.
    pub stages: Vec<Stage>,
}

impl Trained {
    /// Reads the trunk of a model (its folder, or its `model.safetensors` beside `model.json`) or of a training run (its folder, or its
    /// `checkpoint.safetensors`).
    ///
    /// # Errors
    /// When there is neither, when the file does not hold exactly the trunk's tensors, or when nothing says how it was trained.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() {
            [MODEL, CHECKPOINT]
                .map(|name| path.join(name))
                .into_iter()
                .find(|file| file.is_file())
                .ok_or_else(|| HumansamError::Weights {
                    path: path.to_owned(),
                    message: format!("has neither {MODEL} nor {CHECKPOINT}: it is the folder of no model and of no training run"),
                })?
        } else {
            path.to_owned()
        };
        let tensors = read_tensors(&file)?;
        let (prefix, stages) = match tensors.get(STATE) {
            Some(state) => ("variable.", stages_of(&file, state)?),
            None => ("trunk.", Card::beside(&file)?.stages()),
        };
        let trunk = tensors
            .into_iter()
            .filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_owned(), t)))
            .collect();
        let checked = Weights::check(&file, trunk, &trunk::layout())?;
        Ok(Self {
            trunk: checked.tensors().clone(),
            stages,
        })
    }
}

/// The schedules that a checkpoint's state names; at least one.
pub(super) fn stages_of(checkpoint: &Path, state: &Tensor) -> Result<Vec<Stage>> {
    let bad = |message: String| HumansamError::Weights {
        path: checkpoint.to_owned(),
        message,
    };
    let stages: Vec<Stage> = serde_json::from_slice(&state.to_vec1::<u8>()?)
        .map_err(|e| bad(format!("is no training checkpoint of this version: {e}")))?;
    if stages.is_empty() {
        return Err(bad("is a checkpoint of no training".to_owned()));
    }
    Ok(stages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trunk_to_start_from_is_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let message = |path: &Path| Trained::open(path).unwrap_err().to_string();
        assert!(message(dir.path()).contains(CHECKPOINT));
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/humansam-native");
        let all = Trained::open(&shipped).unwrap();
        assert!(all.stages.iter().all(|s| s.steps > 0));
        let same = Trained::open(&shipped.join(MODEL)).unwrap();
        assert_eq!(same.stages, all.stages);

        // A model's file without its card, and one that lacks a tensor.
        let file = dir.path().join(MODEL);
        let mut tensors = read_tensors(&shipped.join(MODEL)).unwrap();
        candle_core::safetensors::save(&tensors, &file).unwrap();
        assert!(message(&file).contains("model.json"));
        std::fs::copy(shipped.join("model.json"), dir.path().join("model.json")).unwrap();
        assert!(Trained::open(dir.path()).is_ok());
        tensors.remove("trunk.structure.c8.bias");
        candle_core::safetensors::save(&tensors, &file).unwrap();
        assert!(message(&file).contains("missing: structure.c8.bias"));
    }
}
