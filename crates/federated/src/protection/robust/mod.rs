//! Aggregation that a minority of bad clients cannot steer.
//!
//! | rule | source | withstands `f` of `n` when |
//! | --- | --- | --- |
//! | mean | McMahan et al. 2017 | `f = 0` |
//! | norm clipping | Sun et al. 2019 | any `f`; a bad client moves the mean by at most `2 max_norm / n`, which is not a defence against many |
//! | coordinate median | Yin et al. 2018 | `n ≥ 2f + 1` |
//! | trimmed mean | Yin et al. 2018 | `n ≥ 2f + 1` |
//! | Krum, Multi-Krum | Blanchard et al. 2017 | `n ≥ 2f + 3` |
//! | Bulyan | El Mhamdi et al. 2018 | `n ≥ 4f + 3` |
//! | geometric median | Pillutla et al. 2022 (RFA) | `n ≥ 2f + 1` |
//! | FLTrust | Cao et al. 2021 | any `f`; trusts the coordinator's own update |
//! | FLAME | Nguyen et al. 2022 | `n ≥ 2f + 1` |
//!
//! A rule whose condition fails refuses. No rule here detects a backdoor whose updates lie within the spread of honest ones, nor poison
//! spread over honest clients' data; with data that differ much between clients, selection rules discard honest minorities.
//!
//! Under secure aggregation the coordinator sees only sums; [`Buckets`] runs one secure sum for each of several random groups and the rule over the
//! groups' means: one bad client spoils at most one group, so that the conditions hold with groups in place of clients.
//!
//! ```
//! use tacit_federated::protection::robust::Rule;
//! let updates = vec![vec![1.0, 2.0], vec![1.1, 1.9], vec![0.9, 2.1], vec![1e9, f32::NAN], vec![-500.0, 7.0]];
//! let out = Rule::Median { bad: 2 }.aggregate(&updates, None).unwrap();
//! assert!((out.update[0] - 0.95).abs() < 0.06 && (out.update[1] - 2.0).abs() < 0.11);
//! assert_eq!(out.rejected, [3]);
//! assert!(Rule::Krum { bad: 2 }.aggregate(&updates[..3], None).is_err());
//! ```

mod bucket;
mod coordinate;
mod flame;
mod geometric_median;
mod krum;
mod trust;
mod vector;

pub use bucket::Buckets;

use super::ProtectionError;
use serde::{Deserialize, Serialize};

/// Name of the stage in errors.
pub(crate) const STAGE: &str = "robust aggregation";

/// A rule that makes one update out of many. `bad` is the number of bad clients (or buckets) that it is to withstand.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Rule {
    /// `Σ x_i / n`: no defence.
    Mean,
    /// The mean of `x_i · min(1, max_norm / ‖x_i‖)`.
    NormClip {
        /// The largest norm.
        max_norm: f64,
    },
    /// The median of each coordinate.
    Median {
        /// Bad clients withstood.
        bad: usize,
    },
    /// The mean of each coordinate without its `bad` smallest and `bad` largest values.
    TrimmedMean {
        /// Bad clients withstood.
        bad: usize,
    },
    /// The update with the smallest sum of squared distances to its `n − bad − 2` nearest others.
    Krum {
        /// Bad clients withstood.
        bad: usize,
    },
    /// The mean of the `keep` updates with the smallest Krum scores.
    MultiKrum {
        /// Bad clients withstood.
        bad: usize,
        /// Updates averaged, at most `n − bad − 2`; that many if absent.
        #[serde(default)]
        keep: Option<usize>,
    },
    /// Krum repeated `n − 2 bad` times, then of each coordinate the mean of the `n − 4 bad` values nearest to the median.
    Bulyan {
        /// Bad clients withstood.
        bad: usize,
    },
    /// The point with the smallest sum of distances to the updates (smoothed Weiszfeld iteration).
    GeometricMedian {
        /// Bad clients withstood.
        bad: usize,
    },
    /// The mean weighted by the positive part of the cosine to the coordinator's own update, each scaled to its norm.
    FlTrust,
    /// The largest cluster by cosine, clipped to the median norm, plus Gaussian noise of `noise` times that norm.
    Flame {
        /// Bad clients withstood.
        bad: usize,
        /// Standard deviation of the noise in units of the median norm; the paper uses 0.001 to 0.01.
        noise: f64,
        /// Seed of the noise.
        seed: u64,
    },
}

/// What a rule made of a round.
#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    /// The aggregated update.
    pub update: Vec<f32>,
    /// The weight of each client's update, where the rule gives one to a client as a whole (sums to 1, or less after clipping); empty for
    /// rules that work on coordinates.
    pub weights: Vec<f64>,
    /// Clients whose update was not finite; they were left out before the rule ran.
    pub rejected: Vec<usize>,
}

impl Rule {
    /// The name in configurations.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Mean => "mean",
            Self::NormClip { .. } => "norm-clip",
            Self::Median { .. } => "median",
            Self::TrimmedMean { .. } => "trimmed-mean",
            Self::Krum { .. } => "krum",
            Self::MultiKrum { .. } => "multi-krum",
            Self::Bulyan { .. } => "bulyan",
            Self::GeometricMedian { .. } => "geometric-median",
            Self::FlTrust => "fl-trust",
            Self::Flame { .. } => "flame",
        }
    }

    /// Whether the rule needs the coordinator's own update.
    pub fn needs_root(&self) -> bool {
        matches!(self, Self::FlTrust)
    }

    /// Bad clients that the configuration assumes; `None` for rules without such a number.
    pub fn bad(&self) -> Option<usize> {
        match *self {
            Self::Mean | Self::NormClip { .. } | Self::FlTrust => None,
            Self::Median { bad }
            | Self::TrimmedMean { bad }
            | Self::Krum { bad }
            | Self::MultiKrum { bad, .. }
            | Self::Bulyan { bad }
            | Self::GeometricMedian { bad }
            | Self::Flame { bad, .. } => Some(bad),
        }
    }

    /// The most bad clients among `clients` that the rule withstands, and the condition; `None` for rules without such a number.
    pub fn most_bad(&self, clients: usize) -> Option<(usize, &'static str)> {
        match self {
            Self::Mean | Self::NormClip { .. } | Self::FlTrust => None,
            Self::Median { .. }
            | Self::TrimmedMean { .. }
            | Self::GeometricMedian { .. }
            | Self::Flame { .. } => Some((clients.saturating_sub(1) / 2, "n >= 2f + 1")),
            Self::Krum { .. } | Self::MultiKrum { .. } => {
                Some((clients.saturating_sub(3) / 2, "n >= 2f + 3"))
            }
            Self::Bulyan { .. } => Some((clients.saturating_sub(3) / 4, "n >= 4f + 3")),
        }
    }

    /// Checks the rule's condition for a round of `clients`.
    ///
    /// # Errors
    /// [`ProtectionError::TooManyBad`], or [`ProtectionError::Setting`] for a setting out of range.
    pub fn check(&self, clients: usize) -> Result<(), ProtectionError> {
        let refuse = |setting, found: String, expected: String| {
            Err(ProtectionError::setting(
                self.name(),
                setting,
                found,
                expected,
                "correct the rule's setting",
            ))
        };
        if clients == 0 {
            return refuse("clients", "0".into(), "at least 1".into());
        }
        match *self {
            Self::NormClip { max_norm } if !(max_norm > 0.0 && max_norm.is_finite()) => {
                return refuse("max_norm", max_norm.to_string(), "a positive number".into());
            }
            Self::Flame { noise, .. } if !(noise >= 0.0 && noise.is_finite()) => {
                return refuse("noise", noise.to_string(), "0 or a positive number".into());
            }
            _ => {}
        }
        if let (Some(bad), Some((most, needed))) = (self.bad(), self.most_bad(clients)) {
            // Krum and Bulyan need three clients even for f = 0.
            let minimal = match self {
                Self::Krum { .. } | Self::MultiKrum { .. } | Self::Bulyan { .. } => 3,
                _ => 1,
            };
            if bad > most || clients < minimal {
                return Err(ProtectionError::TooManyBad {
                    rule: self.name(),
                    clients,
                    assumed: bad,
                    most,
                    needed,
                });
            }
        }
        if let Self::MultiKrum {
            bad,
            keep: Some(keep),
        } = *self
            && !(1..=clients - bad - 2).contains(&keep)
        {
            return refuse(
                "keep",
                keep.to_string(),
                format!("1 to n - bad - 2 = {}", clients - bad - 2),
            );
        }
        Ok(())
    }

    /// Aggregates the updates of a round; `root` is the coordinator's own update, for [`Rule::FlTrust`].
    ///
    /// An update with a value that is not finite is left out and counts as one of the bad ones.
    ///
    /// # Errors
    /// [`ProtectionError::TooManyBad`] and [`ProtectionError::Setting`] as [`Self::check`]; [`ProtectionError::Input`] for updates of unequal
    /// length, none at all, or a missing or unusable `root`.
    pub fn aggregate(
        &self,
        updates: &[Vec<f32>],
        root: Option<&[f32]>,
    ) -> Result<Aggregate, ProtectionError> {
        self.check(updates.len())?;
        let dimension = updates[0].len();
        if let Some(i) = updates.iter().position(|u| u.len() != dimension) {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "update {i} has {} coordinates, update 0 has {dimension}",
                    updates[i].len()
                ),
                "all clients must train the same tensors",
            ));
        }
        let (kept, rejected): (Vec<usize>, Vec<usize>) =
            (0..updates.len()).partition(|&i| updates[i].iter().all(|x| x.is_finite()));
        let good: Vec<&[f32]> = kept.iter().map(|&i| updates[i].as_slice()).collect();
        if good.is_empty() {
            return Err(ProtectionError::input(
                STAGE,
                "no update is finite",
                "lower the learning rate",
            ));
        }
        let rule = self.with_bad(|bad| bad.saturating_sub(rejected.len()));
        rule.check(good.len())?;
        let (update, weights) = rule.apply(&good, root)?;
        let mut all = Vec::new();
        if !weights.is_empty() {
            all = vec![0.0; updates.len()];
            for (&i, w) in kept.iter().zip(weights) {
                all[i] = w;
            }
        }
        Ok(Aggregate {
            update,
            weights: all,
            rejected,
        })
    }

    fn with_bad(mut self, change: impl Fn(usize) -> usize) -> Self {
        match &mut self {
            Self::Mean | Self::NormClip { .. } | Self::FlTrust => {}
            Self::Median { bad }
            | Self::TrimmedMean { bad }
            | Self::Krum { bad }
            | Self::MultiKrum { bad, .. }
            | Self::Bulyan { bad }
            | Self::GeometricMedian { bad }
            | Self::Flame { bad, .. } => *bad = change(*bad),
        }
        self
    }

    /// The rule on finite updates of equal length whose number it has accepted: the update, and the weights of clients if it has any.
    fn apply(
        self,
        updates: &[&[f32]],
        root: Option<&[f32]>,
    ) -> Result<(Vec<f32>, Vec<f64>), ProtectionError> {
        let n = updates.len();
        let weighted = |weights: Vec<f64>| (vector::weighted_sum(updates, &weights), weights);
        Ok(match self {
            Self::Mean => weighted(vec![1.0 / n as f64; n]),
            Self::NormClip { max_norm } => weighted(
                updates
                    .iter()
                    .map(|u| {
                        (max_norm / vector::norm(u).max(f64::MIN_POSITIVE)).min(1.0) / n as f64
                    })
                    .collect(),
            ),
            Self::Median { .. } => (coordinate::median(updates), Vec::new()),
            Self::TrimmedMean { bad } => (coordinate::trimmed_mean(updates, bad), Vec::new()),
            Self::Krum { bad } => {
                let mut weights = vec![0.0; n];
                weights[krum::best(updates, bad, 1)[0]] = 1.0;
                weighted(weights)
            }
            Self::MultiKrum { bad, keep } => {
                let keep = keep.unwrap_or(n - bad - 2).clamp(1, n - bad - 2);
                let mut weights = vec![0.0; n];
                for i in krum::best(updates, bad, keep) {
                    weights[i] = 1.0 / keep as f64;
                }
                weighted(weights)
            }
            Self::Bulyan { bad } => (krum::bulyan(updates, bad), Vec::new()),
            Self::GeometricMedian { .. } => weighted(geometric_median::weights(updates)),
            Self::FlTrust => weighted(trust::weights(updates, root)?),
            Self::Flame { noise, seed, .. } => {
                let (weights, median_norm) = flame::weights(updates);
                let (mut update, weights) = weighted(weights);
                flame::add_noise(&mut update, noise * median_norm, seed);
                (update, weights)
            }
        })
    }
}

#[cfg(test)]
mod tests;
