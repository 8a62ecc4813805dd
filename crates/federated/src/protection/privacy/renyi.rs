//! The Rényi accountant.

use super::STAGE;
use super::event::{Event, Mechanism};
use super::renyi_sampled::{concentrated, discrete_gaussian, gaussian};
use crate::protection::ProtectionError;

/// Rényi divergences at fixed orders, which add up under (adaptive) composition.
#[derive(Clone, Debug, PartialEq)]
pub struct RdpAccountant {
    orders: Vec<f64>,
    divergences: Vec<f64>,
}

impl Default for RdpAccountant {
    /// Orders 1.1 to 10.9 by tenths, 11 to 63 by ones, then wider to 1024.
    fn default() -> Self {
        let orders = (1..100)
            .map(|x| 1.0 + f64::from(x) / 10.0)
            .chain((11..64).map(f64::from))
            .chain((0..8).map(|i| f64::from(64 + 8 * i)))
            .chain((0..8).map(|i| f64::from(128 + 16 * i)))
            .chain([256.0, 320.0, 384.0, 512.0, 768.0, 1024.0]);
        Self::with_orders(orders)
    }
}

impl RdpAccountant {
    /// An accountant at these orders, each above 1.
    pub fn with_orders(orders: impl IntoIterator<Item = f64>) -> Self {
        // Tenths such as 1 + 10/10 should be whole.
        let orders: Vec<f64> = orders
            .into_iter()
            .filter(|&a| a > 1.0)
            .map(|a| {
                if (a - a.round()).abs() < 1e-9 {
                    a.round()
                } else {
                    a
                }
            })
            .collect();
        Self {
            divergences: vec![0.0; orders.len()],
            orders,
        }
    }

    /// Adds the divergences of an event.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for an event out of range.
    pub fn compose(&mut self, event: &Event) -> Result<(), ProtectionError> {
        event.validate()?;
        let q = event.sampling;
        for (d, &alpha) in self.divergences.iter_mut().zip(&self.orders) {
            let one = match event.mechanism {
                Mechanism::Gaussian { noise_multiplier } => gaussian(q, noise_multiplier, alpha),
                Mechanism::DiscreteGaussian { sigma, sensitivity } => {
                    discrete_gaussian(q, sigma, f64::from(sensitivity), alpha)
                }
                Mechanism::Concentrated { rho } => {
                    concentrated(q, rho, alpha).unwrap_or(f64::INFINITY)
                }
            };
            *d += event.steps as f64 * one;
        }
        Ok(())
    }

    /// The smallest `ε` over the orders such that the composition is `(ε, δ)`-private:
    /// `ε = R(α) + ln(1 − 1/α) − (ln δ + ln α)/(α − 1)` (Canonne, Kamath and Steinke 2020, proposition 12), or 0 where
    /// `δ ≥ √(1 − e^{−R(α)})` (Bretagnolle and Huber).
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] unless `0 < δ < 1`.
    pub fn epsilon(&self, delta: f64) -> Result<f64, ProtectionError> {
        check_delta(delta)?;
        let epsilon = self
            .orders
            .iter()
            .zip(&self.divergences)
            .map(|(&alpha, &r)| {
                if delta * delta + (-r).exp_m1() > 0.0 {
                    0.0
                } else {
                    r + (-1.0 / alpha).ln_1p() - (delta.ln() + alpha.ln()) / (alpha - 1.0)
                }
            })
            .fold(f64::INFINITY, f64::min);
        Ok(epsilon.max(0.0))
    }
}

pub(crate) fn check_delta(delta: f64) -> Result<(), ProtectionError> {
    if delta > 0.0 && delta < 1.0 {
        return Ok(());
    }
    Err(ProtectionError::setting(
        STAGE,
        "delta",
        delta,
        "between 0 and 1",
        "it should be well below one over the number of units",
    ))
}
