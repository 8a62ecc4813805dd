//! What is accounted for: noisy releases.

use super::STAGE;
use crate::protection::ProtectionError;
use serde::{Deserialize, Serialize};

/// Whose presence is hidden. The numbers of an [`Event`] refer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// All data of one client: its whole update is clipped, the sampling rate is that of clients in a round.
    User,
    /// One training example: each example's gradient is clipped, the sampling rate is that of examples in a step of its client.
    Example,
}

/// How one release is made noisy, for a query whose value changes by at most the sensitivity when one unit is added or removed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Mechanism {
    /// Gaussian noise of standard deviation `noise_multiplier` times the L2 sensitivity.
    Gaussian {
        /// `σ / Δ`.
        noise_multiplier: f64,
    },
    /// One integer query of this sensitivity with noise `∝ exp(−x² / 2σ²)` on the integers.
    DiscreteGaussian {
        /// `σ`.
        sigma: f64,
        /// `Δ`, in integers.
        sensitivity: u32,
    },
    /// Any mechanism that satisfies `ρ`-concentrated privacy: Rényi divergence at most `ρ α` at every order `α`.
    Concentrated {
        /// `ρ`.
        rho: f64,
    },
}

/// `steps` releases by one mechanism, each on a Poisson sample in which every unit is present with probability `sampling`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// How one release is made.
    pub mechanism: Mechanism,
    /// Poisson sampling rate, 1 for all units in every step. A fixed-size sample is not a Poisson sample.
    pub sampling: f64,
    /// Releases.
    pub steps: u64,
}

impl Event {
    /// Steps of the sampled Gaussian mechanism.
    pub fn gaussian(noise_multiplier: f64, sampling: f64, steps: u64) -> Self {
        Self {
            mechanism: Mechanism::Gaussian { noise_multiplier },
            sampling,
            steps,
        }
    }

    /// Checks ranges.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`].
    pub fn validate(&self) -> Result<(), ProtectionError> {
        let positive = |name, x: f64| {
            if x > 0.0 && x.is_finite() {
                Ok(())
            } else {
                Err(ProtectionError::setting(
                    STAGE,
                    name,
                    x,
                    "a positive number",
                    "no noise is no privacy",
                ))
            }
        };
        match self.mechanism {
            Mechanism::Gaussian { noise_multiplier } => {
                positive("noise_multiplier", noise_multiplier)?;
            }
            Mechanism::DiscreteGaussian { sigma, sensitivity } => {
                positive("sigma", sigma)?;
                positive("sensitivity", f64::from(sensitivity))?;
            }
            Mechanism::Concentrated { rho } => positive("rho", rho)?,
        }
        if !(self.sampling > 0.0 && self.sampling <= 1.0) {
            return Err(ProtectionError::setting(
                STAGE,
                "sampling",
                self.sampling,
                "above 0, at most 1",
                "it is the probability that a unit takes part in a step",
            ));
        }
        Ok(())
    }
}
