use super::*;
use crate::config::HeadData;

/// Least squares `|w - x|^2 / 2` towards each example's point.
#[derive(Debug, Default)]
pub(in crate::run) struct Points {
    /// What decides the meaning of the points.
    pub setting: String,
}

impl Task for Points {
    type Example = Vec<f32>;

    fn initial(&self) -> Result<NamedTensors, FederatedError> {
        let mut t = NamedTensors::new();
        t.insert("w", &[3], vec![0.0; 3])?;
        Ok(t)
    }

    fn gradient(
        &self,
        state: &NamedTensors,
        examples: &[&Vec<f32>],
    ) -> Result<(f64, NamedTensors), FederatedError> {
        let w = state.flatten();
        let mut g = vec![0f32; 3];
        let mut loss = 0.0;
        for x in examples {
            for k in 0..3 {
                let d = w[k] - x[k];
                g[k] += d / examples.len() as f32;
                loss += f64::from(d * d) / 2.0 / examples.len() as f64;
            }
        }
        Ok((loss, state.unflatten(&g)?))
    }

    fn measure(
        &self,
        state: &NamedTensors,
        examples: &[Vec<f32>],
    ) -> Result<Measured, FederatedError> {
        let (loss, _) = self.gradient(state, &examples.iter().collect::<Vec<_>>())?;
        Ok(Measured {
            loss,
            right: 0.0,
            examples: examples.len(),
        })
    }

    fn setting(&self) -> String {
        self.setting.clone()
    }

    fn identify(&self, example: &Vec<f32>, out: &mut Vec<u8>) {
        for v in example {
            out.extend(v.to_le_bytes());
        }
    }
}

/// Client `k` has points around `(k, 1, -k)`; more of them the larger `k`.
pub(in crate::run) fn clients() -> Vec<Side<Vec<f32>>> {
    (0..4)
        .map(|k| {
            let point = |i: usize| {
                let wobble = (i as f32 * 0.37).sin() * 0.01;
                vec![k as f32 + wobble, 1.0 - wobble, -(k as f32)]
            };
            Side {
                name: format!("client {k}"),
                train: (0..8 * (k + 1)).map(point).collect(),
                valid: (0..4).map(point).collect(),
            }
        })
        .collect()
}

pub(in crate::run) fn config(folder: &std::path::Path, stages: &str) -> RunConfig {
    let text = format!(
        "rounds = 12\n[head]\ntables = [\"a\", \"b\", \"c\", \"d\"]\n[train]\nsteps = 4\nbatch = 8\nlr = 0.2\nlr_floor = 1.0\noptimiser = \"sgd\"\nclip = 0.0\n{stages}"
    );
    RunConfig {
        out: folder.to_owned(),
        ..RunConfig::from_toml(&text, "test").unwrap()
    }
}

fn finished(folder: &std::path::Path, stages: &str) -> Vec<f32> {
    let task = Points::default();
    let mut run = TaskRun::new(config(folder, stages), &task, clients(), false).unwrap();
    assert!(run.run(&|_| ControlFlow::Continue(())).unwrap());
    run.shared().flatten()
}

fn near(found: &[f32], want: [f32; 3], by: f32) {
    assert!(
        found.iter().zip(want).all(|(a, b)| (a - b).abs() < by),
        "{found:?} {want:?}"
    );
}

#[test]
fn the_average_weighs_by_examples_and_what_hides_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let at = |n: &str| dir.path().join(n);
    // Weights 1 to 4 of 10: the mean of k is 2; with equal weights 1.5.
    near(&finished(&at("plain"), ""), [2.0, 1.0, -2.0], 0.02);
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 10.0\n";
    for hides in ["secure-sum", "encrypted-sum", "verified-sum"] {
        let stages = format!("{clip}[[stage]]\nkind = \"{hides}\"\n");
        near(&finished(&at(hides), &stages), [1.5, 1.0, -1.5], 0.02);
    }
    let signed =
        "[[stage]]\nkind = \"signed\"\n[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n";
    near(&finished(&at("signed"), signed), [2.0, 1.0, -2.0], 0.05);
    let median = "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n";
    near(&finished(&at("median"), median), [1.5, 1.0, -1.5], 0.05);
}

#[test]
fn noise_keeps_its_budget_and_moves_the_state() {
    let dir = tempfile::tempdir().unwrap();
    let noise = "[[stage]]\nkind = \"noise\"\nepsilon = 8.0\nclip = 1.0\nexamples = 8\n[[stage]]\nkind = \"secure-sum\"\n";
    let task = Points::default();
    let mut run = TaskRun::new(config(dir.path(), noise), &task, clients(), false).unwrap();
    run.run(&|_| ControlFlow::Continue(())).unwrap();
    let spent = run.records().last().unwrap().epsilon.unwrap();
    assert!(spent > 7.0 && spent <= 8.0, "{spent}");
    assert!(run.shared().norm() > 0.1);
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let whole = finished(&dir.path().join("whole"), "");
    let half = dir.path().join("half");
    let task = Points::default();
    let mut run = TaskRun::new(config(&half, ""), &task, clients(), false).unwrap();
    let stop = |e: Event<'_>| match e {
        Event::Round(r) if r.round == 5 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    assert!(!run.run(&stop).unwrap());
    let mut run = TaskRun::new(config(&half, ""), &task, clients(), true).unwrap();
    assert_eq!(run.records().len(), 5);
    run.run(&|_| ControlFlow::Continue(())).unwrap();
    assert_eq!(run.shared().flatten(), whole);
    // Other examples are another run.
    let mut others = clients();
    others[0].train[0][0] = 9.0;
    assert!(TaskRun::new(config(&half, ""), &task, others, true).is_err());
    let compared = run.compare().unwrap();
    assert!(compared.federated.loss < compared.start.loss);
    let alone = compared.alone.iter().map(|a| a.loss).sum::<f64>() / 4.0;
    assert!(alone > compared.central.loss, "{compared:?}");
    assert!((compared.central.loss - compared.federated.loss).abs() < 0.05);
}

#[test]
fn what_only_language_models_have_is_refused_by_name() {
    let base = "[head]\ntables = [\"a\"]\n";
    for (more, named) in [
        ("[method]\nrank = 2\n", "method"),
        ("[data.grammar]\n", "data.grammar"),
        ("[base]\nmodel = \"x\"\n", "base"),
        (
            "[train]\nscaffold = true\noptimiser = \"sgd\"\n",
            "scaffold",
        ),
        ("[clock]\n", "clock"),
        (
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"encrypted-sum\"\nshare = 0.5\n",
            "share",
        ),
    ] {
        let e = RunConfig::from_toml(&format!("{base}{more}"), "x").unwrap_err();
        assert!(e.to_string().contains(named), "{more}: {e}");
    }
    let none = RunConfig {
        head: Some(HeadData::default()),
        ..RunConfig::default()
    };
    assert!(none.check().unwrap_err().to_string().contains("tables"));
    let dir = tempfile::tempdir().unwrap();
    let task = Points::default();
    let mut few = clients();
    few[2].valid.clear();
    let e = TaskRun::new(config(dir.path(), ""), &task, few, false).unwrap_err();
    assert!(e.to_string().contains("client 2"), "{e}");
}
