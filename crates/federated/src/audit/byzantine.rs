//! Bad clients against aggregation rules, on a real task.
//!
//! | attack | what a bad client does | source |
//! | --- | --- | --- |
//! | label flip | trains on data whose label `c` is replaced by `classes − 1 − c` | Biggio et al. 2012 |
//! | sign flip | sends minus five times its update | Blanchard et al. 2017 |
//! | a little is enough | all send `mean − z · deviation` of the honest updates, with the largest `z` that still has honest clients on its side | Baruch et al. 2019 |
//! | model replacement | trains on triggered data and multiplies its update so that the mean becomes its model | Bagdasaryan et al. 2020 |
//! | backdoor with Sybils | all bad clients train alike on half triggered data and stay at an honest norm | Bagdasaryan et al. 2020; Fung et al. 2020 |
//! | spread backdoor | no client is bad: triggered examples lie in everyone's data | natural backdoors, arXiv 2602.15671 |
//!
//! Attack success: for backdoors the share of triggered test inputs of other classes that are given the target class; for the others the
//! accuracy lost against the undisturbed mean.

use super::task::{Data, Random, SoftmaxTask};
use crate::protection::ProtectionError;
use crate::protection::robust::{Buckets, Rule};
use serde::Serialize;

/// What bad clients do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// Nothing.
    None,
    /// Wrong labels.
    LabelFlip,
    /// Reversed and enlarged updates.
    SignFlip,
    /// Colluding small deviations.
    LittleIsEnough,
    /// A scaled backdoored model.
    ModelReplacement,
    /// Equal backdoored updates of honest size.
    SybilBackdoor,
    /// Triggered examples in honest clients' data.
    SpreadBackdoor,
}

impl Attack {
    /// All attacks, nothing first.
    pub const ALL: [Self; 7] = [
        Self::None,
        Self::LabelFlip,
        Self::SignFlip,
        Self::LittleIsEnough,
        Self::ModelReplacement,
        Self::SybilBackdoor,
        Self::SpreadBackdoor,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::LabelFlip => "label flip",
            Self::SignFlip => "sign flip",
            Self::LittleIsEnough => "a little is enough",
            Self::ModelReplacement => "model replacement",
            Self::SybilBackdoor => "backdoor, Sybils",
            Self::SpreadBackdoor => "backdoor, spread",
        }
    }

    fn is_backdoor(self) -> bool {
        matches!(
            self,
            Self::ModelReplacement | Self::SybilBackdoor | Self::SpreadBackdoor
        )
    }
}

/// A rule, on clients or on buckets of secure sums.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Defence {
    /// The rule; its number of bad clients is set by the experiment.
    pub rule: Rule,
    /// Groups of a secure sum each; `None` for the coordinator seeing every update.
    pub buckets: Option<usize>,
}

/// An experiment's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Setup {
    /// Clients, all in every round.
    pub clients: usize,
    /// Bad ones among them (for the spread backdoor: the share of poisoned examples is `bad / clients`).
    pub bad: usize,
    /// Rounds.
    pub rounds: usize,
    /// Examples of a client.
    pub examples: usize,
    /// Seed of data and order.
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            clients: 20,
            bad: 2,
            rounds: 30,
            examples: 60,
            seed: 1,
        }
    }
}

/// What came out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Accuracy on clean test data.
    pub accuracy: f64,
    /// Share of triggered test inputs of other classes given the target class.
    pub backdoor: f64,
}

const TARGET: usize = 0;
/// The trigger: the last four features at this value.
const TRIGGER: f32 = 3.0;
const STEPS: usize = 4;
const RATE: f32 = 0.3;

fn task(seed: u64) -> SoftmaxTask {
    SoftmaxTask::new(32, 10, 1.6, seed)
}

fn triggered(
    task: &SoftmaxTask,
    data: &Data,
    which: impl Fn(usize) -> bool,
    relabel: bool,
) -> Data {
    let mut out = data.clone();
    for i in (0..data.len()).filter(|&i| which(i)) {
        let end = (i + 1) * task.features();
        out.inputs[end - 4..end].fill(TRIGGER);
        if relabel {
            out.labels[i] = TARGET;
        }
    }
    out
}

/// The rule with this number of bad clients.
fn with_bad(rule: Rule, bad: usize) -> Rule {
    match rule {
        Rule::Median { .. } => Rule::Median { bad },
        Rule::TrimmedMean { .. } => Rule::TrimmedMean { bad },
        Rule::Krum { .. } => Rule::Krum { bad },
        Rule::MultiKrum { .. } => Rule::MultiKrum { bad, keep: None },
        Rule::Bulyan { .. } => Rule::Bulyan { bad },
        Rule::GeometricMedian { .. } => Rule::GeometricMedian { bad },
        Rule::Flame { noise, seed, .. } => Rule::Flame { bad, noise, seed },
        other => other,
    }
}

/// Trains under an attack and a defence and measures.
///
/// # Errors
/// The rule's refusal, e.g. [`ProtectionError::TooManyBad`].
pub fn run(attack: Attack, defence: Defence, setup: Setup) -> Result<Outcome, ProtectionError> {
    let task = task(setup.seed);
    let n = setup.clients;
    let bad = if matches!(attack, Attack::None | Attack::SpreadBackdoor) {
        0
    } else {
        setup.bad
    };
    let mut clients: Vec<Data> = (0..n)
        .map(|i| {
            let favourites = [i % task.classes(), (i * 3 + 1) % task.classes()];
            task.sample(setup.examples, &favourites, setup.seed * 1000 + i as u64)
        })
        .collect();
    let mut random = Random::new(setup.seed ^ 0x5eed);
    let poisoned = |data: &Data, share: f64, random: &mut Random| {
        let hit: Vec<bool> = (0..data.len()).map(|_| random.unit() < share).collect();
        triggered(&task, data, |i| hit[i], true)
    };
    match attack {
        Attack::LabelFlip => {
            for data in &mut clients[..bad] {
                data.labels
                    .iter_mut()
                    .for_each(|c| *c = task.classes() - 1 - *c);
            }
        }
        Attack::ModelReplacement => {
            for data in &mut clients[..bad] {
                *data = poisoned(data, 0.5, &mut random);
            }
        }
        Attack::SybilBackdoor => {
            let shared = poisoned(&clients[0], 0.5, &mut random);
            clients[..bad].fill(shared);
        }
        Attack::SpreadBackdoor => {
            let share = setup.bad as f64 / n as f64;
            for data in &mut clients {
                *data = poisoned(data, share, &mut random);
            }
        }
        Attack::None | Attack::SignFlip | Attack::LittleIsEnough => {}
    }
    // The coordinator's own clean data, for FLTrust.
    let root_data = task.sample(100, &[], setup.seed * 1000 + 997);
    let mut model = vec![0.0f32; task.parameters()];
    for round in 0..setup.rounds {
        let mut updates: Vec<Vec<f32>> = clients
            .iter()
            .map(|data| task.train(&model, data, STEPS, RATE))
            .collect();
        corrupt(attack, &mut updates, bad);
        let root = defence
            .rule
            .needs_root()
            .then(|| task.train(&model, &root_data, STEPS, RATE));
        // The number of bad clients is what the operator fears, whether they come or not.
        let rule = with_bad(defence.rule, setup.bad);
        let aggregate = match defence.buckets {
            None => rule.aggregate(&updates, root.as_deref())?,
            Some(buckets) => {
                let ids: Vec<u32> = (0..n as u32).collect();
                let mut seed = [0; 32];
                seed[..8].copy_from_slice(&(setup.seed * 7919 + round as u64).to_le_bytes());
                let buckets = Buckets::new(&ids, buckets, seed)?;
                let sums: Vec<Option<(Vec<f64>, usize)>> = buckets
                    .groups()
                    .iter()
                    .map(|group| {
                        let mut sum = vec![0.0f64; model.len()];
                        for &c in group {
                            for (s, &x) in sum.iter_mut().zip(&updates[c as usize]) {
                                *s += f64::from(x);
                            }
                        }
                        Some((sum, group.len()))
                    })
                    .collect();
                buckets.aggregate(rule, &sums, root.as_deref())?
            }
        };
        for (w, u) in model.iter_mut().zip(&aggregate.update) {
            *w += u;
        }
    }
    let test = task.sample(1000, &[], setup.seed * 1000 + 999);
    let marked = triggered(&task, &test, |_| true, false);
    let answers = task.predict(&model, &marked);
    let others: Vec<usize> = (0..test.len())
        .filter(|&i| test.labels[i] != TARGET)
        .collect();
    let hit = others.iter().filter(|&&i| answers[i] == TARGET).count();
    Ok(Outcome {
        accuracy: task.accuracy(&model, &test),
        backdoor: hit as f64 / others.len().max(1) as f64,
    })
}

/// Replaces the updates of the first `bad` clients by what they send.
fn corrupt(attack: Attack, updates: &mut [Vec<f32>], bad: usize) {
    let n = updates.len();
    if bad == 0 {
        return;
    }
    match attack {
        Attack::SignFlip => {
            for u in &mut updates[..bad] {
                u.iter_mut().for_each(|x| *x *= -5.0);
            }
        }
        Attack::ModelReplacement => {
            let boost = n as f32 / bad as f32;
            for u in &mut updates[..bad] {
                u.iter_mut().for_each(|x| *x *= boost);
            }
        }
        Attack::SybilBackdoor => {
            // As large as the median honest update.
            let norm = |u: &[f32]| u.iter().map(|x| x * x).sum::<f32>().sqrt();
            let mut norms: Vec<f32> = updates[bad..].iter().map(|u| norm(u)).collect();
            norms.sort_unstable_by(f32::total_cmp);
            let target = norms[norms.len() / 2];
            for u in &mut updates[..bad] {
                let factor = target / norm(u).max(f32::MIN_POSITIVE);
                u.iter_mut().for_each(|x| *x *= factor);
            }
        }
        Attack::LittleIsEnough => {
            let z = little_z(n, bad);
            let honest = n - bad;
            let message: Vec<f32> = (0..updates[0].len())
                .map(|i| {
                    let column: Vec<f64> = updates[bad..].iter().map(|u| f64::from(u[i])).collect();
                    let mean = column.iter().sum::<f64>() / honest as f64;
                    let variance =
                        column.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / honest as f64;
                    (mean - z * variance.sqrt()) as f32
                })
                .collect();
            updates[..bad].fill(message);
        }
        Attack::None | Attack::LabelFlip | Attack::SpreadBackdoor => {}
    }
}

/// `z` with `Φ(z) = (n − bad − s)/(n − bad)`, `s = ⌊n/2⌋ + 1 − bad` (Baruch et al. 2019, algorithm 3).
fn little_z(n: usize, bad: usize) -> f64 {
    let honest = (n - bad) as f64;
    let supporters = (n / 2 + 1).saturating_sub(bad) as f64;
    let target = ((honest - supporters) / honest).clamp(0.01, 0.99);
    let (mut low, mut high) = (-4.0f64, 4.0f64);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if 0.5 * libm::erfc(-middle / std::f64::consts::SQRT_2) < target {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.max(0.3)
}

/// The rules of the table: name and defence.
pub fn defences() -> Vec<(&'static str, Defence)> {
    let plain = |rule| Defence {
        rule,
        buckets: None,
    };
    vec![
        ("mean", plain(Rule::Mean)),
        ("norm-clip", plain(Rule::NormClip { max_norm: 0.5 })),
        ("median", plain(Rule::Median { bad: 0 })),
        ("trimmed-mean", plain(Rule::TrimmedMean { bad: 0 })),
        ("krum", plain(Rule::Krum { bad: 0 })),
        ("multi-krum", plain(Rule::MultiKrum { bad: 0, keep: None })),
        ("bulyan", plain(Rule::Bulyan { bad: 0 })),
        ("geometric-median", plain(Rule::GeometricMedian { bad: 0 })),
        ("fl-trust", plain(Rule::FlTrust)),
        (
            "flame",
            plain(Rule::Flame {
                bad: 0,
                noise: 0.001,
                seed: 5,
            }),
        ),
        (
            "median of 6 secure sums",
            Defence {
                rule: Rule::Median { bad: 0 },
                buckets: Some(6),
            },
        ),
        (
            "geometric-median of 6 secure sums",
            Defence {
                rule: Rule::GeometricMedian { bad: 0 },
                buckets: Some(6),
            },
        ),
    ]
}

/// One cell of the table.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cell {
    /// The attack.
    pub attack: Attack,
    /// The defence.
    pub defence: &'static str,
    /// Bad clients.
    pub bad: usize,
    /// The outcome, or why the rule refused.
    pub outcome: Result<Outcome, String>,
    /// `backdoor` for backdoors, else accuracy lost against the mean without attack; `None` where the rule refused.
    pub success: Option<f64>,
}

/// Every attack against every defence.
pub fn table(setup: Setup, mut progress: impl FnMut()) -> Vec<Cell> {
    let mean = Defence {
        rule: Rule::Mean,
        buckets: None,
    };
    let undisturbed = run(Attack::None, mean, setup).map_or(0.0, |o| o.accuracy);
    let mut cells = Vec::new();
    for attack in Attack::ALL {
        for (name, defence) in defences() {
            let outcome = run(attack, defence, setup);
            let success = outcome.as_ref().ok().map(|o| {
                if attack.is_backdoor() {
                    o.backdoor
                } else {
                    (undisturbed - o.accuracy).max(0.0)
                }
            });
            cells.push(Cell {
                attack,
                defence: name,
                bad: setup.bad,
                outcome: outcome.map_err(|e| e.to_string()),
                success,
            });
            progress();
        }
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(rule: Rule) -> Defence {
        Defence {
            rule,
            buckets: None,
        }
    }

    #[test]
    fn attacks_work_without_a_defence_and_not_with_one() {
        let setup = Setup::default();
        let clean = run(Attack::None, plain(Rule::Mean), setup).unwrap();
        assert!(clean.accuracy > 0.85 && clean.backdoor < 0.2, "{clean:?}");
        // Untargeted: the mean breaks, the median does not.
        let broken = run(Attack::SignFlip, plain(Rule::Mean), setup).unwrap();
        let held = run(Attack::SignFlip, plain(Rule::Median { bad: 0 }), setup).unwrap();
        assert!(
            broken.accuracy < clean.accuracy - 0.02,
            "{broken:?} {clean:?}"
        );
        assert!(held.accuracy > clean.accuracy - 0.08, "{held:?}");
        // Replacement: takes over the mean, not FLAME.
        let broken = run(Attack::ModelReplacement, plain(Rule::Mean), setup).unwrap();
        let held = run(
            Attack::ModelReplacement,
            plain(Rule::Flame {
                bad: 0,
                noise: 0.001,
                seed: 5,
            }),
            setup,
        )
        .unwrap();
        assert!(broken.backdoor > 0.8, "{broken:?}");
        assert!(
            held.backdoor < 0.3 && held.accuracy > clean.accuracy - 0.08,
            "{held:?}"
        );
    }

    #[test]
    fn a_rule_refuses_what_it_cannot_withstand() {
        let setup = Setup {
            bad: 5,
            rounds: 1,
            ..Setup::default()
        };
        assert!(run(Attack::SignFlip, plain(Rule::Bulyan { bad: 0 }), setup).is_err());
    }
}
