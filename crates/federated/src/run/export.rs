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
    network.ternary_matrices_mut().for_each(nearest_ternary);
    match network.make_masters(0) {
        Ok(()) => (network, true),
        // A matrix without zeros has no such masters: ternarised as training would.
        Err(_) => {
            network.set_quantised(true);
            (network, true)
        }
    }
}

/// Replaces a matrix by the ternary one `s t` nearest to it, up to a local optimum of Lloyd's iteration: `t` rounds `w / s`, then `s` is the mean
/// magnitude where `t` is not 0.
///
/// Training's own rule, `s = mean |w|` over all values, is for masters that it has shaped itself. For a ternary matrix plus a change it would shrink
/// every weight by the share of non-zeros.
fn nearest_ternary(matrix: &mut [f32]) {
    let mean = |sum: f64, n: usize| (sum / n.max(1) as f64) as f32;
    let magnitude = |m: &[f32]| m.iter().map(|w| f64::from(w.abs())).sum::<f64>();
    let mut scale = mean(magnitude(matrix), matrix.len());
    for _ in 0..100 {
        let (mut sum, mut count) = (0f64, 0usize);
        for w in matrix.iter().filter(|w| w.abs() > 0.5 * scale) {
            sum += f64::from(w.abs());
            count += 1;
        }
        let next = mean(sum, count);
        if next == scale {
            break;
        }
        scale = next;
    }
    for w in matrix {
        *w = if w.abs() > 0.5 * scale {
            scale.copysign(*w)
        } else {
            0.0
        };
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ternary_matrix_with_small_changes_keeps_its_trits_and_its_scale() {
        // A third of the values is not 0: training's rule would take the scale to a third.
        let trit = |i: usize| [0.0, 1.0, 0.0, -1.0, 0.0, 0.0][i % 6];
        let small = |i: usize| ((i * 37 % 101) as f32 / 101.0 - 0.5) * 0.01;
        let mut w: Vec<f32> = (0..600).map(|i| 0.07 * trit(i) + small(i)).collect();
        nearest_ternary(&mut w);
        for (i, x) in w.iter().enumerate() {
            assert!((x - 0.07 * trit(i)).abs() < 2e-4, "{i}: {x}");
        }
        let mut magnitudes: Vec<u32> = w.iter().map(|x| x.abs().to_bits()).collect();
        magnitudes.sort_unstable();
        magnitudes.dedup();
        assert_eq!(magnitudes.len(), 2);
        // What is ternary stays as it is.
        let before = w.clone();
        nearest_ternary(&mut w);
        assert_eq!(w, before);
        let mut none = [0f32; 6];
        nearest_ternary(&mut none);
        assert_eq!(none, [0.0; 6]);
    }
}
