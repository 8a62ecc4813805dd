//! Gradients of single examples, clipped one by one.

use tacit_bitnet::train::Penalties;

use crate::data::Window;
use crate::tuner::Tuner;
use crate::{FederatedError, NamedTensors};

/// What a client hands in when single examples are protected: a sum of clipped gradients instead of a trained state.
#[derive(Clone, Debug)]
pub struct PrivateGradient {
    /// `-sum_i g_i min(1, clip / |g_i|)`: adding or removing one example moves it by at most `clip`.
    pub descent: NamedTensors,
    /// Mean loss over the examples.
    pub loss: f64,
    /// Tokens.
    pub tokens: usize,
    /// Share of examples whose gradient was longer than `clip`.
    pub clipped: f64,
}

/// The clipped gradient of every sequence in `data`, summed (DP-SGD, arXiv 1607.00133; the noise comes with the secure sum).
///
/// # Errors
/// [`FederatedError::Training`] when a sequence does not fit the network, [`FederatedError::NotFinite`] for a gradient that is no number.
pub fn private_gradient(
    tuner: &Tuner,
    state: &NamedTensors,
    residual: &NamedTensors,
    data: &[Window],
    clip: f64,
) -> Result<PrivateGradient, FederatedError> {
    // Ternarised once, not for every example.
    let network = tuner.network(state, residual)?.as_exported();
    let mut descent = state.zeros_like();
    let (mut loss, mut tokens, mut clipped) = (0.0, 0, 0usize);
    for (inputs, targets) in data {
        let none = Penalties::none();
        let (l, g) = tuner.gradient(&network, state, inputs, targets, inputs.len(), &none)?;
        g.check_finite("the gradient of an example")?;
        let norm = g.norm();
        clipped += usize::from(norm > clip);
        // A hair below, so that rounding cannot lift it above the bound.
        let factor = (clip / norm.max(1e-30) * (1.0 - 1e-6)).min(1.0);
        descent.axpy(-factor as f32, &g)?;
        loss += l;
        tokens += inputs.len();
    }
    let n = data.len().max(1) as f64;
    Ok(PrivateGradient {
        descent,
        loss: loss / n,
        tokens,
        clipped: clipped as f64 / n,
    })
}
