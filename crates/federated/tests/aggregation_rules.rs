//! The server rules against what Flower's own strategies returned on the same inputs (`tests/interop/flower_strategies.py`).

use std::collections::BTreeMap;

use serde::Deserialize;
use tacit_federated::NamedTensors;
use tacit_federated::rules::{Rule, RuleState, apply, weighted_average};

#[derive(Deserialize)]
struct Report {
    flwr: String,
    shapes: BTreeMap<String, Vec<usize>>,
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    rule: String,
    settings: BTreeMap<String, f32>,
    start: BTreeMap<String, Vec<f32>>,
    rounds: Vec<Round>,
}

#[derive(Deserialize)]
struct Round {
    clients: Vec<Client>,
    result: BTreeMap<String, Vec<f32>>,
}

#[derive(Deserialize)]
struct Client {
    examples: f64,
    arrays: BTreeMap<String, Vec<f32>>,
}

fn replay(report: &Report) {
    let tensors = |values: &BTreeMap<String, Vec<f32>>| {
        let mut t = NamedTensors::new();
        for (name, v) in values {
            t.insert(name, &report.shapes[name], v.clone()).unwrap();
        }
        t
    };
    assert_eq!(report.runs.len(), 5);
    for run in &report.runs {
        let s = |name: &str| run.settings[name];
        let rule = match run.rule.as_str() {
            "fedavg" => Rule::FedAvg {},
            "fedavgm" => Rule::FedAvgM {
                eta: s("server_learning_rate"),
                momentum: s("server_momentum"),
            },
            "fedadam" => Rule::FedAdam {
                eta: s("eta"),
                beta1: s("beta_1"),
                beta2: s("beta_2"),
                tau: s("tau"),
            },
            "fedyogi" => Rule::FedYogi {
                eta: s("eta"),
                beta1: s("beta_1"),
                beta2: s("beta_2"),
                tau: s("tau"),
            },
            "fedadagrad" => Rule::FedAdagrad {
                eta: s("eta"),
                tau: s("tau"),
            },
            other => panic!("unknown rule {other}"),
        };
        assert_eq!(rule.name(), run.rule);
        rule.check().unwrap();
        let mut state = RuleState::default();
        let mut current = tensors(&run.start);
        for (n, round) in run.rounds.iter().enumerate() {
            let locals: Vec<_> = round.clients.iter().map(|c| tensors(&c.arrays)).collect();
            let weighted: Vec<_> = locals
                .iter()
                .zip(&round.clients)
                .map(|(l, c)| (l, c.examples))
                .collect();
            let average = weighted_average(&weighted).unwrap();
            let next = apply(&rule, &mut state, &current, &average).unwrap();
            let want = tensors(&round.result);
            for (a, b) in next.flatten().iter().zip(want.flatten()) {
                assert!(
                    (a - b).abs() <= 1e-6 * b.abs().max(1.0),
                    "{} of flwr {}, round {}: {a} against {b}",
                    run.rule,
                    report.flwr,
                    n + 1
                );
            }
            current = next;
        }
    }
}

#[test]
fn every_rule_returns_what_flower_returned() {
    let report: Report = serde_json::from_str(include_str!("data/flower_strategies.json")).unwrap();
    assert_eq!(report.flwr, "1.41.0");
    replay(&report);
}

/// Runs the script again where flwr is installed: `TACIT_FLOWER_PYTHON` names an interpreter that has it.
#[test]
fn every_rule_returns_what_the_installed_flower_returns() {
    let Some(python) = std::env::var_os("TACIT_FLOWER_PYTHON") else {
        eprintln!("TACIT_FLOWER_PYTHON is not set: only the recorded numbers were compared");
        return;
    };
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/interop/flower_strategies.py"
    );
    let home = tempfile::tempdir().unwrap();
    let output = std::process::Command::new(python)
        .arg(script)
        .env("FLWR_TELEMETRY_ENABLED", "0")
        .env("FLWR_HOME", home.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    // Flower logs to standard output; the report begins with its first brace at the beginning of a line.
    let start = text.find("\n{").map_or(0, |i| i + 1);
    replay(&serde_json::from_str(&text[start..]).unwrap());
}
