//! Checkpoints: masters, AdamW moments, norm statistics and step in one safetensors file, replaced atomically.

use super::model::{Network, NormState};
use super::optimiser::AdamW;
use super::{TrainConfig, TrainError};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// What a checkpoint holds besides tensors.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct State {
    /// Steps done.
    pub step: usize,
    /// Smoothed training loss.
    pub smoothed: f64,
    pub norms: NormState,
    pub config: TrainConfig,
}

pub(crate) fn bytes_of(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|x| x.to_le_bytes()).collect()
}

/// Writes `path` by way of a temporary file beside it, so that an interrupted write leaves the old checkpoint in place.
pub(crate) fn save(
    path: &Path,
    network: &Network,
    adam: &AdamW,
    state: &State,
) -> Result<(), TrainError> {
    let mut tensors = Vec::new();
    for (i, p) in network.parameters.iter().enumerate() {
        for (prefix, data) in [
            ("master", &p.data),
            ("adam_m", &adam.m[i]),
            ("adam_v", &adam.v[i]),
        ] {
            tensors.push((
                format!("{prefix}.{}", p.name),
                vec![p.rows, p.cols],
                bytes_of(data),
            ));
        }
    }
    let views = tensors
        .iter()
        .map(|(n, s, b)| Ok((n.as_str(), TensorView::new(Dtype::F32, s.clone(), b)?)))
        .collect::<Result<Vec<_>, TrainError>>()?;
    let meta = HashMap::from([("state".to_owned(), serde_json::to_string(state)?)]);
    let bytes = safetensors::serialize(views, Some(meta))?;
    let temporary = path.with_extension("part");
    std::fs::write(&temporary, bytes)
        .and_then(|()| std::fs::rename(&temporary, path))
        .map_err(|e| TrainError::io(path, e))
}

/// Reads a checkpoint made with the same configuration (number of steps, intervals and `resume` may differ).
pub(crate) fn load(
    path: &Path,
    config: &TrainConfig,
) -> Result<(Network, AdamW, State), TrainError> {
    let bad = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|e| TrainError::io(path, e))?;
    let (state, file) = read_state(path, &bytes)?;
    let same = |c: &TrainConfig| TrainConfig {
        data: Vec::new(),
        out: path.to_owned(),
        resume: true,
        checkpoint_every: 1,
        validate_every: 1,
        ..c.clone()
    };
    if same(&state.config) != same(config) {
        return Err(bad(format!(
            "was made with other settings: {} instead of {}",
            serde_json::to_string(&same(&state.config))?,
            serde_json::to_string(&same(config))?
        )));
    }
    let mut network = Network::new(config);
    let mut adam = AdamW::new(&network);
    network.norms = state.norms.clone();
    for (i, p) in network.parameters.iter_mut().enumerate() {
        for (prefix, data) in [
            ("master", &mut p.data),
            ("adam_m", &mut adam.m[i]),
            ("adam_v", &mut adam.v[i]),
        ] {
            *data =
                values(&file, &format!("{prefix}.{}", p.name), [p.rows, p.cols]).map_err(bad)?;
        }
    }
    Ok((network, adam, state))
}

/// The values of an `f32` tensor of the shape given, or what is wrong with it.
fn values(file: &SafeTensors, name: &str, shape: [usize; 2]) -> Result<Vec<f32>, String> {
    let t = file.tensor(name).map_err(|e| format!("{name}: {e}"))?;
    if t.dtype() != Dtype::F32 || t.shape() != shape {
        return Err(format!(
            "{name} is {:?} {:?}, expected F32 {shape:?}",
            t.dtype(),
            t.shape()
        ));
    }
    Ok(t.data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect())
}

/// Reads only the network, of whatever configuration the file says.
pub(crate) fn load_network(path: &Path) -> Result<Network, TrainError> {
    let bad = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let bytes = std::fs::read(path).map_err(|e| TrainError::io(path, e))?;
    let (state, file) = read_state(path, &bytes)?;
    state.config.check()?;
    let mut network = Network::new(&state.config);
    for p in &mut network.parameters {
        p.data = values(&file, &format!("master.{}", p.name), [p.rows, p.cols]).map_err(bad)?;
    }
    let layers = network.norms.attn_eps.len();
    let n = &state.norms;
    if [&n.attn_centre, &n.ffn_centre, &n.attn_eps]
        .iter()
        .any(|v| v.len() != layers)
    {
        return Err(bad(format!("norm statistics are not of {layers} layers")));
    }
    network.norms = state.norms;
    Ok(network)
}

fn read_state<'a>(path: &Path, bytes: &'a [u8]) -> Result<(State, SafeTensors<'a>), TrainError> {
    let bad = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let (_, meta) = SafeTensors::read_metadata(bytes)
        .map_err(|e| bad(format!("not a safetensors file: {e}")))?;
    let state = meta
        .metadata()
        .as_ref()
        .and_then(|m| m.get("state"))
        .ok_or_else(|| bad("has no training state".into()))?;
    let state: State =
        serde_json::from_str(state).map_err(|e| bad(format!("training state: {e}")))?;
    let file = SafeTensors::deserialize(bytes).map_err(|e| bad(e.to_string()))?;
    Ok((state, file))
}
