//! FLTrust (Cao et al., *FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping*, NDSS 2021, section IV).

use super::STAGE;
use super::vector::{dot, norm};
use crate::protection::ProtectionError;

/// Weights `TS_i ‖g_0‖ / (‖g_i‖ Σ TS)` with `TS_i = max(0, cos(g_i, g_0))`: each update is scaled to the norm of the coordinator's own.
pub(crate) fn weights(
    updates: &[&[f32]],
    root: Option<&[f32]>,
) -> Result<Vec<f64>, ProtectionError> {
    let root = root.ok_or_else(|| {
        ProtectionError::input(
            STAGE,
            "fl-trust has no update of the coordinator to compare with",
            "give the coordinator a small clean data set",
        )
    })?;
    let root_norm = norm(root);
    if root.len() != updates[0].len() || !root_norm.is_finite() || root_norm == 0.0 {
        return Err(ProtectionError::input(
            STAGE,
            format!(
                "the coordinator's update has {} coordinates and norm {root_norm}, the clients' have {}",
                root.len(),
                updates[0].len()
            ),
            "it must be trained on the same tensors and not vanish",
        ));
    }
    let norms: Vec<f64> = updates
        .iter()
        .map(|u| norm(u).max(f64::MIN_POSITIVE))
        .collect();
    let scores: Vec<f64> = updates
        .iter()
        .zip(&norms)
        .map(|(u, n)| (dot(u, root) / (n * root_norm)).max(0.0))
        .collect();
    let total: f64 = scores.iter().sum();
    if total == 0.0 {
        return Err(ProtectionError::input(
            STAGE,
            "no client's update points the way of the coordinator's",
            "either all are bad or the coordinator's data are of another kind",
        ));
    }
    Ok(scores
        .iter()
        .zip(&norms)
        .map(|(s, n)| s / total * root_norm / n)
        .collect())
}
