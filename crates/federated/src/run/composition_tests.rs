//! Which settings go together: every pair is tried, against the table in the documentation.

use super::fixture::{config, finish, start};
use super::*;
use crate::clock::Clock;
use crate::config::Stage;
use crate::local::Optimiser;
use crate::lora::Combine;
use crate::personal::Personal;
use crate::protection::robust::Rule as Robust;
use crate::rules::Rule;
use crate::tuner::{Forward, Kind};

/// A setting, the group of alternatives that it is one of (two of a group cannot be given at once), and how it is written.
struct Feature {
    name: &'static str,
    group: &'static str,
    apply: fn(&mut RunConfig),
}

fn stage(c: &mut RunConfig, s: Stage) {
    if c.stages.iter().all(|t| t.name() != s.name()) {
        c.stages.push(s);
    }
    let order = [
        "noise",
        "clip",
        "top-k",
        "quantise",
        "secure-sum",
        "encrypted-sum",
        "verified-sum",
        "robust",
        "signed",
    ];
    c.stages
        .sort_by_key(|s| order.iter().position(|o| *o == s.name()));
}

fn clip(c: &mut RunConfig) {
    if c.noise().is_none() {
        stage(c, Stage::Clip { norm: 0.5 });
    }
}

fn secure(c: &mut RunConfig) {
    clip(c);
    stage(c, Stage::SecureSum { bits: 24 });
}

fn robust(c: &mut RunConfig, rule: Robust, buckets: usize) {
    stage(
        c,
        Stage::Robust {
            rule,
            buckets,
            root: None,
        },
    );
}

const FEATURES: [Feature; 25] = [
    Feature {
        name: "clip",
        group: "clip",
        apply: |c| stage(c, Stage::Clip { norm: 0.5 }),
    },
    Feature {
        name: "top-k",
        group: "top-k",
        apply: |c| stage(c, Stage::TopK { share: 0.2 }),
    },
    Feature {
        name: "quantise",
        group: "quantise",
        apply: |c| {
            stage(
                c,
                Stage::Quantise {
                    values: crate::compress::Values::Int8,
                },
            )
        },
    },
    Feature {
        name: "noise",
        group: "noise",
        apply: |c| {
            stage(
                c,
                Stage::Noise {
                    epsilon: 100.0,
                    delta: 1e-5,
                    clip: 0.5,
                    examples: 4,
                    rate: 1.0,
                },
            );
            stage(c, Stage::SecureSum { bits: 24 });
        },
    },
    Feature {
        name: "secure-sum",
        group: "secure",
        apply: secure,
    },
    Feature {
        name: "encrypted-sum",
        group: "encrypted",
        apply: |c| {
            clip(c);
            stage(c, Stage::EncryptedSum { share: 1.0 });
        },
    },
    Feature {
        name: "encrypted 10 %",
        group: "encrypted",
        apply: |c| {
            clip(c);
            stage(c, Stage::EncryptedSum { share: 0.1 });
        },
    },
    Feature {
        name: "verified-sum",
        group: "verified",
        apply: |c| {
            clip(c);
            stage(c, Stage::VerifiedSum {});
        },
    },
    Feature {
        name: "signed",
        group: "signed",
        apply: |c| stage(c, Stage::Signed {}),
    },
    Feature {
        name: "robust",
        group: "robust",
        apply: |c| robust(c, Robust::Median { bad: 1 }, 0),
    },
    Feature {
        name: "robust groups",
        group: "robust",
        apply: |c| {
            secure(c);
            robust(c, Robust::Median { bad: 0 }, 2);
        },
    },
    Feature {
        name: "fl-trust",
        group: "robust",
        apply: |c| robust(c, Robust::FlTrust, 0),
    },
    Feature {
        name: "scaffold",
        group: "scaffold",
        apply: |c| (c.train.scaffold, c.train.optimiser) = (true, Optimiser::Sgd),
    },
    Feature {
        name: "prox",
        group: "prox",
        apply: |c| c.train.prox = 0.1,
    },
    Feature {
        name: "personal",
        group: "personal",
        apply: |c| c.personal = Some(Personal::default()),
    },
    Feature {
        name: "deadline",
        group: "deadline",
        apply: |c| c.clock.get_or_insert_default().deadline = 2.0,
    },
    Feature {
        name: "buffer",
        group: "buffer",
        apply: |c| c.clock.get_or_insert_default().buffer = 3,
    },
    Feature {
        name: "history",
        group: "history",
        apply: |c| c.history = true,
    },
    Feature {
        name: "stack",
        group: "combine",
        apply: |c| c.combine = Combine::Stack,
    },
    Feature {
        name: "residual",
        group: "combine",
        apply: |c| c.combine = Combine::Residual,
    },
    Feature {
        name: "fedadam",
        group: "rule",
        apply: |c| c.rule = adam(),
    },
    Feature {
        name: "ffa-lora",
        group: "kind",
        apply: |c| c.method.kind = Kind::FfaLora,
    },
    Feature {
        name: "fedkseed",
        group: "kind",
        apply: |c| {
            (c.method.kind, c.method.seeds, c.method.forward) =
                (Kind::FedKSeed, 32, Forward::Float);
            c.train.optimiser = Optimiser::Sgd;
        },
    },
    Feature {
        name: "prompt",
        group: "kind",
        apply: |c| (c.method.kind, c.method.prompt) = (Kind::Prompt, 2),
    },
    Feature {
        name: "full",
        group: "kind",
        apply: |c| c.method.kind = Kind::Full,
    },
];

fn adam() -> Rule {
    Rule::FedAdam {
        eta: 0.01,
        beta1: 0.9,
        beta2: 0.99,
        tau: 1e-3,
    }
}

fn pair(dir: &std::path::Path, a: &Feature, b: &Feature) -> RunConfig {
    let mut c = config(dir, "");
    c.data.clients = 6;
    c.data.grammar = Some(crate::config::Grammar {
        documents: 16,
        ..Default::default()
    });
    c.base.random = Some(crate::config::RandomBase {
        hidden: 16,
        ffn: 24,
        ..Default::default()
    });
    c.method.rank = 2;
    c.method.targets = vec!["o".into()];
    (c.rounds, c.train.steps, c.train.batch) = (1, 1, 2);
    c.clock = Some(Clock::default());
    (a.apply)(&mut c);
    (b.apply)(&mut c);
    c
}

/// `+` goes together, `-` is refused, `.` the two are alternatives of one setting.
fn sign(dir: &std::path::Path, a: &Feature, b: &Feature) -> char {
    if a.group == b.group {
        return '.';
    }
    match pair(dir, a, b).check() {
        Ok(()) => '+',
        Err(e) => {
            assert!(
                e.to_string().contains("; "),
                "{} and {}: no remedy in {e}",
                a.name,
                b.name
            );
            '-'
        }
    }
}

#[test]
fn the_documented_table_of_compositions_is_the_truth_and_what_it_allows_runs() {
    let dir = tempfile::tempdir().unwrap();
    let mut table = String::from("| |");
    for i in 1..=FEATURES.len() {
        table += &format!(" {i} |");
    }
    table += "\n| --- |";
    table += &" --- |".repeat(FEATURES.len());
    for (i, a) in FEATURES.iter().enumerate() {
        table += &format!("\n| {} {} |", i + 1, a.name);
        for (j, b) in FEATURES.iter().enumerate() {
            let sign = if j > i { ' ' } else { sign(dir.path(), b, a) };
            table += &format!(" {sign} |");
        }
    }
    let documented = include_str!("../../../../docs/federated.md");
    assert!(
        documented.contains(&table),
        "docs/federated.md should have\n{table}"
    );
    // Every pair that is allowed takes a step.
    let pairs: Vec<(&Feature, &Feature)> = FEATURES
        .iter()
        .enumerate()
        .flat_map(|(i, a)| FEATURES[..i].iter().map(move |b| (b, a)))
        .filter(|(a, b)| sign(dir.path(), a, b) == '+')
        .collect();
    assert!(pairs.len() > 150, "{}", pairs.len());
    pairs.par_iter().enumerate().for_each(|(n, (a, b))| {
        let mut c = pair(dir.path(), a, b);
        c.out = dir.path().join(format!("pair-{n}"));
        let mut run = start(&c, false);
        let before = run.state().global.clone();
        finish(&mut run);
        assert_ne!(run.state().global, before, "{} and {}", a.name, b.name);
    });
}
