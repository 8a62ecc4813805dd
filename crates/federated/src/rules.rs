//! Server rules: from the clients' weighted average to the next global state.
//!
//! With `x` the present state, `a = sum_k (n_k / n) x_k` the average of what the clients returned and `d = a - x`:
//!
//! | rule | next state |
//! | --- | --- |
//! | FedAvg (arXiv 1602.05629) | `a` |
//! | FedAvgM (1909.06335) | `p = -d`; `m = beta m + p` (first round `m = p`); `x - eta m` |
//! | FedAdam (2003.00295) | `m = b1 m + (1 - b1) d`, `v = b2 v + (1 - b2) d^2`; `x + eta_t m / (sqrt v + tau)`, `eta_t = eta sqrt(1 - b2^(t+1)) / (1 - b1^(t+1))`, rounds from t = 1 |
//! | FedYogi | `v = v - (1 - b2) d^2 sign(v - d^2)`; `x + eta m / (sqrt v + tau)` |
//! | FedAdagrad | `m = d`, `v = v + d^2`; `x + eta m / (sqrt v + tau)` |
//!
//! These are the formulas of Flower 1.41's strategies, term by term; a test replays what Flower itself returned.

use serde::{Deserialize, Serialize};

use crate::{FederatedError, NamedTensors};

/// A server rule with its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Rule {
    /// Weighted average.
    FedAvg {},
    /// Average with server momentum.
    FedAvgM {
        /// Server learning rate.
        #[serde(default = "one")]
        eta: f32,
        /// Momentum.
        #[serde(default = "default_momentum")]
        momentum: f32,
    },
    /// Adam at the server.
    FedAdam {
        /// Server learning rate.
        #[serde(default = "default_eta")]
        eta: f32,
        /// Decay of the first moment.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Decay of the second moment.
        #[serde(default = "default_beta2")]
        beta2: f32,
        /// Added to the root of the second moment.
        #[serde(default = "default_tau")]
        tau: f32,
    },
    /// Yogi at the server.
    FedYogi {
        /// Server learning rate.
        #[serde(default = "default_eta")]
        eta: f32,
        /// Decay of the first moment.
        #[serde(default = "default_beta1")]
        beta1: f32,
        /// Decay of the second moment.
        #[serde(default = "default_beta2")]
        beta2: f32,
        /// Added to the root of the second moment.
        #[serde(default = "default_tau")]
        tau: f32,
    },
    /// Adagrad at the server.
    FedAdagrad {
        /// Server learning rate.
        #[serde(default = "default_eta")]
        eta: f32,
        /// Added to the root of the second moment.
        #[serde(default = "default_tau")]
        tau: f32,
    },
}

fn one() -> f32 {
    1.0
}
fn default_momentum() -> f32 {
    0.9
}
fn default_eta() -> f32 {
    0.01
}
fn default_beta1() -> f32 {
    0.9
}
fn default_beta2() -> f32 {
    0.99
}
fn default_tau() -> f32 {
    1e-3
}

impl Default for Rule {
    fn default() -> Self {
        Self::FedAvg {}
    }
}

impl Rule {
    /// Its name, as configuration files write it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::FedAvg {} => "fedavg",
            Self::FedAvgM { .. } => "fedavgm",
            Self::FedAdam { .. } => "fedadam",
            Self::FedYogi { .. } => "fedyogi",
            Self::FedAdagrad { .. } => "fedadagrad",
        }
    }

    /// Checks the settings.
    ///
    /// # Errors
    /// [`FederatedError::Setting`] naming the first one that is out of range.
    pub fn check(&self) -> Result<(), FederatedError> {
        let positive = |name: &str, v: f32| {
            if v > 0.0 && v.is_finite() {
                Ok(())
            } else {
                Err(FederatedError::setting(
                    format!("rule.{name}"),
                    "a positive number",
                    v,
                    "leave it out for the default",
                ))
            }
        };
        let share = |name: &str, v: f32| {
            if (0.0..1.0).contains(&v) {
                Ok(())
            } else {
                Err(FederatedError::setting(
                    format!("rule.{name}"),
                    "at least 0 and below 1",
                    v,
                    "leave it out for the default",
                ))
            }
        };
        match *self {
            Self::FedAvg {} => Ok(()),
            Self::FedAvgM { eta, momentum } => {
                positive("eta", eta).and_then(|()| share("momentum", momentum))
            }
            Self::FedAdam {
                eta,
                beta1,
                beta2,
                tau,
            }
            | Self::FedYogi {
                eta,
                beta1,
                beta2,
                tau,
            } => positive("eta", eta)
                .and_then(|()| share("beta1", beta1))
                .and_then(|()| share("beta2", beta2))
                .and_then(|()| positive("tau", tau)),
            Self::FedAdagrad { eta, tau } => {
                positive("eta", eta).and_then(|()| positive("tau", tau))
            }
        }
    }
}

/// Moments that a rule carries from round to round; empty before the first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleState {
    /// First moment or momentum.
    pub first: NamedTensors,
    /// Second moment.
    pub second: NamedTensors,
    /// Rounds applied.
    pub rounds: usize,
}

/// `sum_k (w_k / sum w) x_k`, added in `f32` in the order given, as Flower does.
///
/// # Errors
/// [`FederatedError::Layout`] when shapes differ, [`FederatedError::Setting`] when there is nothing to average or the weights are not
/// positive numbers.
pub fn weighted_average(updates: &[(&NamedTensors, f64)]) -> Result<NamedTensors, FederatedError> {
    let total: f64 = updates.iter().map(|u| u.1).sum();
    let bad = updates.iter().find(|u| !(u.1 >= 0.0 && u.1.is_finite()));
    let (Some((first, _)), None, true) = (updates.first(), bad, total > 0.0) else {
        return Err(FederatedError::setting(
            "weights",
            "at least one update, with weights that are not negative and sum to a positive number",
            format!("{} updates, total weight {total}", updates.len()),
            "leave out clients without examples",
        ));
    };
    let mut sum = (*first).clone();
    sum.scale((updates[0].1 / total) as f32);
    for (u, w) in &updates[1..] {
        sum.axpy((w / total) as f32, u)?;
    }
    Ok(sum)
}

/// Applies `rule`: `current` is `x`, `average` is `a` of the module's table. Returns the next state.
///
/// # Errors
/// [`FederatedError::Layout`] when shapes differ.
pub fn apply(
    rule: &Rule,
    state: &mut RuleState,
    current: &NamedTensors,
    average: &NamedTensors,
) -> Result<NamedTensors, FederatedError> {
    let d = average.difference(current)?.flatten();
    if state.first.is_empty() && !matches!(rule, Rule::FedAvg {}) {
        state.first = current.zeros_like();
        state.second = current.zeros_like();
    }
    state.rounds += 1;
    let x = current.flatten();
    let mut m = state.first.flatten();
    let mut v = state.second.flatten();
    let next: Vec<f32> = match *rule {
        Rule::FedAvg {} => return Ok(average.clone()),
        Rule::FedAvgM { eta, momentum } => {
            for (m, d) in m.iter_mut().zip(&d) {
                *m = momentum * *m - d;
            }
            x.iter().zip(&m).map(|(x, m)| x - eta * m).collect()
        }
        Rule::FedAdam {
            eta,
            beta1,
            beta2,
            tau,
        } => {
            let t = i32::try_from(state.rounds + 1).unwrap_or(i32::MAX);
            let eta = (f64::from(eta) * (1.0 - f64::from(beta2).powi(t)).sqrt()
                / (1.0 - f64::from(beta1).powi(t))) as f32;
            for ((m, v), d) in m.iter_mut().zip(&mut v).zip(&d) {
                *m = beta1 * *m + (1.0 - beta1) * d;
                *v = beta2 * *v + (1.0 - beta2) * d * d;
            }
            ascend(&x, &m, &v, eta, tau)
        }
        Rule::FedYogi {
            eta,
            beta1,
            beta2,
            tau,
        } => {
            for ((m, v), d) in m.iter_mut().zip(&mut v).zip(&d) {
                *m = beta1 * *m + (1.0 - beta1) * d;
                let s = d * d;
                let sign = if *v > s {
                    1.0
                } else if *v < s {
                    -1.0
                } else {
                    0.0
                };
                *v -= (1.0 - beta2) * s * sign;
            }
            ascend(&x, &m, &v, eta, tau)
        }
        Rule::FedAdagrad { eta, tau } => {
            for ((m, v), d) in m.iter_mut().zip(&mut v).zip(&d) {
                *m = *d;
                *v += d * d;
            }
            ascend(&x, &m, &v, eta, tau)
        }
    };
    state.first = current.unflatten(&m)?;
    state.second = current.unflatten(&v)?;
    current.unflatten(&next)
}

fn ascend(x: &[f32], m: &[f32], v: &[f32], eta: f32, tau: f32) -> Vec<f32> {
    x.iter()
        .zip(m)
        .zip(v)
        .map(|((x, m), v)| x + eta * m / (v.sqrt() + tau))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one_value(x: f32) -> NamedTensors {
        let mut t = NamedTensors::new();
        t.insert("x", &[1], vec![x]).unwrap();
        t
    }

    #[test]
    fn averages_weigh_by_examples_and_refuse_nonsense() {
        let (a, b) = (one_value(1.0), one_value(4.0));
        let mean = weighted_average(&[(&a, 10.0), (&b, 20.0)]).unwrap();
        assert!((mean.flatten()[0] - 3.0).abs() < 1e-6);
        assert!(weighted_average(&[]).is_err());
        assert!(weighted_average(&[(&a, 0.0)]).is_err());
        assert!(weighted_average(&[(&a, -1.0), (&b, 3.0)]).is_err());
        assert!(weighted_average(&[(&a, f64::NAN)]).is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let rule = Rule::FedAdam {
            eta: 0.1,
            beta1: 1.0,
            beta2: 0.9,
            tau: 1e-3,
        };
        assert!(rule.check().unwrap_err().to_string().contains("rule.beta1"));
        assert!(
            Rule::FedAvgM {
                eta: -1.0,
                momentum: 0.5
            }
            .check()
            .is_err()
        );
        assert!(Rule::default().check().is_ok());
    }
}
