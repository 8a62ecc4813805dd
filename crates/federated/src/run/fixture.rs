//! What the tests of runs and of parties share: a small run on generated text.

use std::ops::ControlFlow;

use super::{Run, texts};
use crate::config::{Data, Grammar, RandomBase, RunConfig};

/// Four clients, three local steps; `extra` begins with settings outside of tables.
pub fn config(dir: &std::path::Path, extra: &str) -> RunConfig {
    let text = format!(
        "rounds = 4\nout = {:?}\n{extra}\n[data]\nclients = 4\n",
        dir.join("run").display().to_string()
    );
    let mut c = RunConfig::from_toml(&text, "test").unwrap();
    c.base.random = Some(RandomBase::default());
    c.data = Data {
        clients: 4,
        grammar: Some(Grammar::default()),
        validation_percent: 20,
        ..c.data
    };
    c.train.steps = 3;
    c.train.batch = 4;
    c.train.lr = 1e-2;
    c
}

pub fn start(config: &RunConfig, resume: bool) -> Run {
    let texts = texts(config, None).unwrap();
    Run::new(config.clone(), None, &texts, resume).unwrap()
}

/// Runs to the end; the hashes of all rounds.
pub fn finish(run: &mut Run) -> Vec<String> {
    assert!(run.run(&|_| ControlFlow::Continue(())).unwrap());
    run.state().records.iter().map(|r| r.hash.clone()).collect()
}
