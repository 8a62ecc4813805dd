//! Epsilon of a list of events, and the noise that reaches a target.

use super::STAGE;
use super::event::{Event, Mechanism};
use super::ledger::Accounting;
use super::loss::Pld;
use super::loss_pairs::{Direction, discrete_gaussian, gaussian};
use super::renyi::{RdpAccountant, check_delta};
use crate::protection::ProtectionError;

/// Widest grid, and grid points per typical loss of one step.
const INTERVAL: f64 = 1e-4;
const POINTS_PER_LOSS: f64 = 20.0;
/// Grid points of one step's distribution at most.
const MAX_STEP_POINTS: f64 = 2e6;

/// The smallest `ε` at `delta` that the accountant can show for the composition of `events`.
///
/// # Errors
/// [`ProtectionError::Setting`] for an event or `delta` out of range, or a mechanism that the accountant does not know
/// ([`Mechanism::Concentrated`] has Rényi divergences only).
pub fn epsilon(
    accounting: Accounting,
    events: &[Event],
    delta: f64,
) -> Result<f64, ProtectionError> {
    check_delta(delta)?;
    match accounting {
        Accounting::Rdp => {
            let mut accountant = RdpAccountant::default();
            for event in events {
                accountant.compose(event)?;
            }
            accountant.epsilon(delta)
        }
        Accounting::Pld => {
            for event in events {
                event.validate()?;
            }
            let mut interval = events.iter().map(typical_interval).fold(INTERVAL, f64::min);
            let widest = events.iter().map(widest_loss).fold(0.0, f64::max);
            interval = interval.max(widest / MAX_STEP_POINTS);
            loop {
                match epsilon_on_grid(events, delta, interval) {
                    Err(ProtectionError::Setting {
                        setting: "interval",
                        ..
                    }) if interval < 0.1 => interval *= 4.0,
                    other => return other,
                }
            }
        }
    }
}

fn epsilon_on_grid(events: &[Event], delta: f64, interval: f64) -> Result<f64, ProtectionError> {
    let mut worst = 0.0f64;
    for direction in [Direction::Remove, Direction::Add] {
        let mut parts = Vec::new();
        // Unsampled Gaussians compose exactly: Σ 1/σ² of all of them.
        let mut precision = 0.0;
        for event in events {
            match event.mechanism {
                Mechanism::Gaussian { noise_multiplier } if event.sampling == 1.0 => {
                    precision += event.steps as f64 / (noise_multiplier * noise_multiplier);
                }
                Mechanism::Gaussian { noise_multiplier } => parts.push((
                    gaussian(noise_multiplier, event.sampling, interval, direction),
                    event.steps,
                )),
                Mechanism::DiscreteGaussian { sigma, sensitivity } => parts.push((
                    discrete_gaussian(sigma, sensitivity, event.sampling, interval, direction),
                    event.steps,
                )),
                Mechanism::Concentrated { .. } => {
                    return Err(ProtectionError::setting(
                        STAGE,
                        "accountant",
                        "pld",
                        "rdp for a mechanism known only by its concentrated privacy",
                        "set the accountant to rdp",
                    ));
                }
            }
        }
        if precision > 0.0 {
            let sigma = 1.0 / precision.sqrt();
            parts.push((gaussian(sigma, 1.0, interval, direction), 1));
        }
        let borrowed: Vec<(&Pld, u64)> = parts.iter().map(|(p, n)| (p, *n)).collect();
        worst = worst.max(Pld::compose(&borrowed)?.epsilon(delta)?);
    }
    Ok(worst)
}

/// A grid fine enough for the loss of one step, which is about `q/σ`.
fn typical_interval(event: &Event) -> f64 {
    let ratio = match event.mechanism {
        Mechanism::Gaussian { noise_multiplier } if event.sampling == 1.0 => {
            (event.steps as f64).sqrt() / noise_multiplier
        }
        Mechanism::Gaussian { noise_multiplier } => 1.0 / noise_multiplier,
        Mechanism::DiscreteGaussian { sigma, sensitivity } => f64::from(sensitivity) / sigma,
        Mechanism::Concentrated { .. } => 1.0,
    };
    (event.sampling * ratio / POINTS_PER_LOSS).min(INTERVAL)
}

fn widest_loss(event: &Event) -> f64 {
    let ratio = match event.mechanism {
        Mechanism::Gaussian { noise_multiplier } if event.sampling == 1.0 => {
            (event.steps as f64).sqrt() / noise_multiplier
        }
        Mechanism::Gaussian { noise_multiplier } => 1.0 / noise_multiplier,
        Mechanism::DiscreteGaussian { sigma, sensitivity } => f64::from(sensitivity) / sigma,
        Mechanism::Concentrated { .. } => 0.0,
    };
    20.0 * ratio + ratio * ratio
}

/// The smallest noise multiplier (to 0.1 %) whose Gaussian mechanism, sampled at `sampling` and run `steps` times, is `(target, delta)`-private.
///
/// # Errors
/// [`ProtectionError::Setting`] for values out of range, or a target that no noise multiplier between 0.02 and 10⁶ reaches.
pub fn calibrate(
    accounting: Accounting,
    target: f64,
    delta: f64,
    sampling: f64,
    steps: u64,
) -> Result<f64, ProtectionError> {
    if !(target > 0.0 && target.is_finite()) {
        return Err(ProtectionError::setting(
            STAGE,
            "epsilon",
            target,
            "a positive number",
            "1 to 10 is usual",
        ));
    }
    let spent = |accounting, sigma| {
        epsilon(
            accounting,
            &[Event::gaussian(sigma, sampling, steps)],
            delta,
        )
    };
    let search = |accounting, mut low: f64, mut high: f64| -> Result<f64, ProtectionError> {
        while high / low > 1.001 {
            let middle = (low * high).sqrt();
            if spent(accounting, middle)? <= target {
                high = middle;
            } else {
                low = middle;
            }
        }
        Ok(high)
    };
    if spent(Accounting::Rdp, 1e6)? > target {
        return Err(ProtectionError::setting(
            STAGE,
            "epsilon",
            target,
            format!("more for {steps} steps at delta {delta:e}"),
            "fewer steps, a lower sampling rate or a larger delta",
        ));
    }
    let by_orders = search(Accounting::Rdp, 0.02, 1e6)?;
    match accounting {
        Accounting::Rdp => Ok(by_orders),
        // The orders' answer is an upper bound of the tight one.
        Accounting::Pld => {
            let mut low = by_orders / 1.25;
            while low > 0.02 && spent(accounting, low)? <= target {
                low /= 1.5;
            }
            search(accounting, low, by_orders)
        }
    }
}
