//! Parties answering messages, without a network between them and a coordinator.

use super::fixture::{self, finish};
use super::party::{Party, SUM, UPDATE};
use super::*;
use crate::flower::proto::{Scalar, SintList};
use crate::flower::record::{Array, Content, Record, from_tensors, to_tensors};
use crate::protection::secure_aggregation::{FixedPoint, RoundConfig, Server, identity};
use crate::random::unit;

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

#[test]
fn parties_and_a_plain_average_give_the_embedded_run_bit_for_bit() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let want = embedded(&c);
    let mut all = parties(&c);
    let start = all[0].answer("query", &Content::default()).unwrap();
    let like = want.tuner.initial(c.method.rank, 0).unwrap();
    let mut adapter = to_tensors(start.arrays("arrays").unwrap(), &like).unwrap();
    for round in 0..3 {
        let message = train(&adapter, round, Vec::new());
        let locals: Vec<(NamedTensors, f64)> = all
            .iter_mut()
            .map(|p| {
                let a = p.answer("train", &message).unwrap();
                let local = to_tensors(a.arrays("arrays").unwrap(), &like).unwrap();
                (local, a.number("num-examples").unwrap())
            })
            .collect();
        let borrowed: Vec<(&NamedTensors, f64)> = locals.iter().map(|(l, w)| (l, *w)).collect();
        adapter = weighted_average(&borrowed).unwrap();
    }
    assert_eq!(adapter, want.state.global.adapter);
    let e = all[2]
        .answer("evaluate", &train(&adapter, 3, Vec::new()))
        .unwrap();
    assert!(e.number("loss").unwrap() > 0.0 && e.number("client") == Some(2.0));
}

#[test]
fn a_round_that_is_asked_for_again_is_answered_with_the_same_bytes_also_by_a_new_process() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "[[stage]]\nkind = \"top-k\"\nshare = 0.1\n");
    let mut p = parties(&c).remove(1);
    let agreement = p.answer("query", &Content::default()).unwrap();
    let mark = (
        "tacit".to_owned(),
        agreement.value("tacit").unwrap().clone(),
    );
    let tuner = embedded(&c).tuner;
    let adapter = tuner.initial(c.method.rank, 0).unwrap();
    let ask = |p: &mut Party, round: usize| {
        let a = p.answer("train", &train(&adapter, round, vec![mark.clone()]));
        a.unwrap().bytes("update", UPDATE).unwrap().to_vec()
    };
    let first = ask(&mut p, 0);
    assert_eq!(ask(&mut p, 0), first);
    let second = ask(&mut p, 1);
    let mut again = parties(&c).remove(1);
    assert_eq!(ask(&mut again, 1), second);
    assert_eq!(ask(&mut p, 1), second);
    assert_ne!(ask(&mut p, 2), second);
    // Another configuration's memory is not taken for one's own.
    let mut other = c.clone();
    other.seed = 9;
    let texts = texts(&other, None).unwrap();
    let base = random_base(&other, &texts).unwrap();
    let e = Party::new(other, base, &texts[1], 1, None).unwrap_err();
    assert!(e.to_string().contains("another configuration"), "{e}");
}

#[test]
fn coordinators_with_other_settings_and_messages_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "combine = \"residual\"\n");
    let mut p = parties(&c).remove(0);
    let like = embedded(&c).tuner.initial(c.method.rank, 0).unwrap();
    let error = |p: &mut Party, kind: &str, content: &Content| {
        p.answer(kind, content).unwrap_err().to_string()
    };
    let stranger = ("tacit".to_owned(), Scalar::Text("x".into()));
    let e = error(&mut p, "train", &train(&like, 0, vec![stranger]));
    assert!(e.contains("one configuration file"), "{e}");
    // Merged residuals are not what a stock strategy can do.
    let e = error(&mut p, "train", &train(&like, 0, Vec::new()));
    assert!(e.contains("tacit federate coordinate"), "{e}");
    assert!(error(&mut p, "reconnect", &Content::default()).contains("reconnect"));
    assert!(error(&mut p, "train", &Content::default()).contains("server-round"));
    assert!(error(&mut p, "train.sum", &Content::default()).contains("no message"));
    assert!(error(&mut p, "evaluate", &Content::default()).contains("arrays"));
    let scaffold = config(
        dir.path(),
        "[train]\noptimiser = \"sgd\"\nscaffold = true\n",
    );
    let texts = texts(&scaffold, None).unwrap();
    let base = random_base(&scaffold, &texts).unwrap();
    assert!(Party::new(scaffold, base, &texts[0], 0, None).is_err());
}

#[test]
fn a_secure_sum_by_messages_is_the_embedded_one_and_noise_in_the_messages_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stages = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n";
    let mut c = config(dir.path(), stages);
    c.rounds = 1;
    let keys: Vec<_> = (0..4).map(|_| identity().unwrap()).collect();
    c.roster = keys
        .iter()
        .map(|k| {
            let bytes = k.verifying_key().to_bytes();
            bytes.iter().map(|b| format!("{b:02x}")).collect()
        })
        .collect();
    let want = embedded(&c);
    let text = texts(&c, None).unwrap();
    let base = random_base(&c, &text).unwrap();
    let mut all: Vec<Party> = text
        .iter()
        .zip(&keys)
        .enumerate()
        .map(|(k, (t, key))| Party::new(c.clone(), base.clone(), t, k, Some(key.clone())).unwrap())
        .collect();
    let roster = super::party::roster(&c, &[0, 1, 2, 3]).unwrap();
    let adapter = want.tuner.initial(c.method.rank, 0).unwrap();
    let session = [5; 16];
    let round = RoundConfig::complete(session, 0, adapter.count(), 24, &roster);
    let mut server = Server::new(round, roster).unwrap();
    let agreement = all[0].answer("query", &Content::default()).unwrap();
    let mark = (
        "tacit".to_owned(),
        agreement.value("tacit").unwrap().clone(),
    );
    let drawn = Scalar::Sints(SintList {
        vals: vec![0, 1, 2, 3],
    });
    let wrap = |bytes: &[u8]| {
        let a = vec![("message".to_owned(), Array::from_bytes(SUM, bytes))];
        ("sum".to_owned(), Record::Arrays(a))
    };
    let mut content = train(
        &adapter,
        0,
        vec![mark.clone(), ("clients".to_owned(), drawn)],
    );
    content.0.push(wrap(&session));
    for p in &mut all {
        let a = p.answer("train", &content).unwrap();
        server.receive(a.bytes("sum", SUM).unwrap()).unwrap();
    }
    let mut rng = stream(1, "noise in messages", &[]);
    for _ in 0..4 {
        for (to, bytes) in server.advance().unwrap() {
            let p = &mut all[to as usize];
            let mut spoiled = bytes.clone();
            let at = (unit(&mut rng) * spoiled.len() as f64) as usize;
            spoiled[at] ^= 1;
            assert!(
                p.answer("train.sum", &Content(vec![wrap(&spoiled)]))
                    .is_err()
            );
            let a = p.answer("train.sum", &Content(vec![wrap(&bytes)])).unwrap();
            server.receive(a.bytes("sum", SUM).unwrap()).unwrap();
        }
    }
    let sum = server.finish().unwrap();
    let codec = FixedPoint::new(24, 0.5, 4).unwrap();
    let mean: Vec<f32> = codec
        .decode_sum(&sum.values, 4)
        .unwrap()
        .into_iter()
        .map(|x| (x / 4.0) as f32)
        .collect();
    let mut got = adapter.clone();
    got.axpy(1.0, &adapter.unflatten(&mean).unwrap()).unwrap();
    assert_eq!(got, want.state.global.adapter);
    // Without keys of the others a client takes no part.
    c.roster.clear();
    assert!(
        super::party::roster(&c, &[0, 1])
            .unwrap_err()
            .to_string()
            .contains("--show-identity")
    );
}
