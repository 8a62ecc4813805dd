//! Parties answering messages, without a network between them and a coordinator.

mod nodes;
mod party;
mod rounds;
mod silence;
mod task;
mod travel;

use std::time::Instant;

use super::visible::read;
use super::*;
use crate::NamedTensors;
use crate::flower::record::to_tensors;
use crate::protection::secure_aggregation::identity;
use crate::run::fixture::{self, finish};
use crate::run::party::Party;
use crate::run::party::{UPDATE, roster};
use crate::run::{random_base, texts};

fn parties(c: &RunConfig) -> Vec<Party> {
    let texts = texts(c, None).unwrap();
    let base = random_base(c, &texts).unwrap();
    texts
        .iter()
        .enumerate()
        .map(|(k, t)| Party::new(c.clone(), base.clone(), t, k, Some(identity().unwrap())).unwrap())
        .collect()
}

/// The shared small run, of three rounds.
fn config(dir: &std::path::Path, extra: &str) -> RunConfig {
    RunConfig {
        rounds: 3,
        ..fixture::config(dir, extra)
    }
}

fn embedded(c: &RunConfig) -> Run {
    let mut run = fixture::start(c, false);
    finish(&mut run);
    run
}

fn train(adapter: &NamedTensors, round: usize, more: Vec<(String, Scalar)>) -> Content {
    let mut settings = vec![("server-round".to_owned(), Scalar::Sint(round as i64 + 1))];
    settings.extend(more);
    Content(vec![
        ("arrays".to_owned(), from_tensors(adapter)),
        ("config".to_owned(), Record::Config(settings)),
    ])
}

fn keys_of(c: &mut RunConfig) -> Vec<ed25519_dalek::SigningKey> {
    let keys: Vec<_> = (0..4).map(|_| identity().unwrap()).collect();
    let hex = |k: &ed25519_dalek::SigningKey| {
        let bytes = k.verifying_key().to_bytes();
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    };
    c.roster = keys.iter().map(hex).collect();
    keys
}

fn hashes(run: &Run) -> Vec<String> {
    run.state.records.iter().map(|r| r.hash.clone()).collect()
}

const SECURE: &str = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n";

/// Longer than any test.
const LONG: Duration = Duration::from_secs(3600);

/// The embedded run in whose rounds only these clients take part.
fn among(c: &RunConfig, clients: &[&[usize]]) -> Run {
    let mut run = fixture::start(c, false);
    for (round, clients) in clients.iter().enumerate() {
        let some: Vec<_> = (clients.iter())
            .map(|&k| run.client(round, k).unwrap())
            .collect();
        let aggregate = run.aggregate(round, &some).unwrap();
        let record = run
            .finish_round(round, &some, aggregate, Instant::now(), &|_| Ok(0.0))
            .unwrap();
        run.state.records.push(record);
    }
    run
}
