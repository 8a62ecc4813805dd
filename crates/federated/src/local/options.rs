//! Settings of local training.

use serde::{Deserialize, Serialize};
use tacit_bitnet::train::Penalties;

use crate::FederatedError;

/// The optimiser of a client. Its state lasts one round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimiser {
    /// AdamW (0.9, 0.99) without decay.
    #[default]
    Adam,
    /// Plain gradient descent.
    Sgd,
}

/// Settings of local training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LocalOptions {
    /// Optimiser steps a round.
    pub steps: usize,
    /// Sequences of a step.
    pub batch: usize,
    /// Sequences computed at once; 0 for the whole batch.
    pub micro_batch: usize,
    /// Learning rate.
    pub lr: f64,
    /// The learning rate falls linearly to this share of `lr` over the rounds.
    pub lr_floor: f64,
    /// Optimiser.
    pub optimiser: Optimiser,
    /// Largest gradient norm of a step; 0 for no limit.
    pub clip: f64,
    /// Strength of FedProx's pull towards the start; 0 for none.
    pub prox: f64,
    /// SCAFFOLD's control variates.
    pub scaffold: bool,
    /// Keep ranges narrow for encrypted inference, as `tacit train` does.
    pub penalties: bool,
    /// Distance to both sides at which FedKSeed takes the loss.
    pub perturbation: f64,
}

impl Default for LocalOptions {
    fn default() -> Self {
        Self {
            steps: 8,
            batch: 16,
            micro_batch: 0,
            lr: 2e-3,
            lr_floor: 0.1,
            optimiser: Optimiser::Adam,
            clip: 1.0,
            prox: 0.0,
            scaffold: false,
            penalties: true,
            perturbation: 1e-3,
        }
    }
}

impl LocalOptions {
    /// Checks the settings.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first wrong one.
    pub fn check(&self) -> Result<(), FederatedError> {
        for (name, ok, found) in [
            ("steps", self.steps > 0, self.steps.to_string()),
            ("batch", self.batch > 0, self.batch.to_string()),
            (
                "lr",
                self.lr > 0.0 && self.lr.is_finite(),
                self.lr.to_string(),
            ),
            (
                "lr_floor",
                (0.0..=1.0).contains(&self.lr_floor),
                self.lr_floor.to_string(),
            ),
            (
                "clip",
                self.clip >= 0.0 && self.clip.is_finite(),
                self.clip.to_string(),
            ),
            (
                "prox",
                self.prox >= 0.0 && self.prox.is_finite(),
                self.prox.to_string(),
            ),
            (
                "perturbation",
                self.perturbation > 0.0 && self.perturbation.is_finite(),
                self.perturbation.to_string(),
            ),
        ] {
            if !ok {
                return Err(FederatedError::setting(
                    format!("train.{name}"),
                    "a number in range (counts and rates positive, shares within 0 to 1)",
                    found,
                    "leave it out for the default",
                ));
            }
        }
        if self.scaffold && self.optimiser != Optimiser::Sgd {
            return Err(FederatedError::setting(
                "train.scaffold",
                "optimiser = \"sgd\" beside it",
                "adam",
                "SCAFFOLD's control variates are defined for gradient descent",
            ));
        }
        Ok(())
    }

    /// Learning rate in round `round` of `rounds`.
    pub fn rate(&self, round: usize, rounds: usize) -> f64 {
        let x = round as f64 / rounds.max(1) as f64;
        self.lr * (1.0 - (1.0 - self.lr_floor) * x)
    }

    pub(super) fn penalty(&self) -> Penalties {
        if self.penalties {
            Penalties::default()
        } else {
            Penalties::none()
        }
    }
}
