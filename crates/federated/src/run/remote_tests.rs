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
    // Without rounds the turn counts: other examples from one state, and the same bytes for the same turn.
    let turn = |p: &mut Party, turn: i64| {
        let more = vec![mark.clone(), ("turn".to_owned(), Scalar::Sint(turn))];
        let a = p.answer("train", &train(&adapter, 2, more));
        a.unwrap().bytes("update", UPDATE).unwrap().to_vec()
    };
    let third = turn(&mut p, 3);
    assert_eq!(turn(&mut p, 3), third);
    assert_ne!(turn(&mut p, 4), third);
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
    for (what, reason) in [
        ("history = true\n", "text is elsewhere"),
        (
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"encrypted-sum\"\n",
            "agree on one",
        ),
        (
            "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"verified-sum\"\n",
            "one coordinator",
        ),
    ] {
        let other = config(dir.path(), what);
        let texts = texts(&other, None).unwrap();
        let base = random_base(&other, &texts).unwrap();
        let e = Party::new(other, base, &texts[0], 0, None).unwrap_err();
        assert!(e.to_string().contains(reason), "{e}");
    }
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

/// A coordinator's rounds with parties in this process, by the messages that would travel.
fn coordinated(c: &RunConfig, all: &mut [Party]) -> Vec<String> {
    let texts = texts(c, None).unwrap();
    let base = random_base(c, &texts).unwrap();
    let mut run = Run::coordinator(c.clone(), base, all.len(), false).unwrap();
    for round in 0..c.rounds {
        let message = super::remote::shared(&run, round, true, Vec::new());
        let drawn = run.drawn(round);
        let contributions: Vec<_> = drawn
            .iter()
            .map(|&k| {
                let answer = all[k].answer("train", &message).unwrap();
                super::remote::read(&run, round, k, &answer).unwrap()
            })
            .collect();
        let aggregate = run.aggregate(round, &contributions).unwrap();
        let began = std::time::Instant::now();
        let record = run
            .finish_round(round, &contributions, aggregate, began, &|_| Ok(0.0))
            .unwrap();
        run.state.records.push(record);
    }
    run.state.records.iter().map(|r| r.hash.clone()).collect()
}

#[test]
fn control_variates_and_signatures_travel_and_give_the_embedded_run_bit_for_bit() {
    for extra in [
        "clients_per_round = 3\n[train]\noptimiser = \"sgd\"\nscaffold = true\n",
        "[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n[[stage]]\nkind = \"signed\"\n",
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let want: Vec<String> = embedded(&c)
            .state
            .records
            .iter()
            .map(|r| r.hash.clone())
            .collect();
        let text = texts(&c, None).unwrap();
        let base = random_base(&c, &text).unwrap();
        let party = |k: usize| {
            Party::new(c.clone(), base.clone(), &text[k], k, Some(keys[k].clone())).unwrap()
        };
        let mut all: Vec<Party> = (0..4).map(party).collect();
        assert_eq!(coordinated(&c, &mut all), want, "{extra}");
    }
}

#[test]
fn a_coordinator_takes_no_payload_that_its_client_has_not_signed_for_this_round() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "[[stage]]\nkind = \"signed\"\n");
    let keys = keys_of(&mut c);
    let text = texts(&c, None).unwrap();
    let base = random_base(&c, &text).unwrap();
    let run = Run::coordinator(c.clone(), base.clone(), 4, false).unwrap();
    let party = |k: usize, key: usize| {
        Party::new(
            c.clone(),
            base.clone(),
            &text[k],
            k,
            Some(keys[key].clone()),
        )
        .unwrap()
    };
    let message = |round| super::remote::shared(&run, round, true, Vec::new());
    let read = |round, client, answer: &Content| super::remote::read(&run, round, client, answer);
    let good = party(1, 1).answer("train", &message(0)).unwrap();
    assert!(read(0, 1, &good).is_ok());
    assert!(read(1, 1, &good).is_err(), "replayed in the next round");
    assert!(read(0, 2, &good).is_err(), "taken for another's");
    let forged = party(1, 2).answer("train", &message(0)).unwrap();
    assert!(read(0, 1, &forged).is_err(), "signed with another's key");
    let mut keyless = Party::new(c.clone(), base.clone(), &text[1], 1, None).unwrap();
    let e = keyless
        .answer("train", &message(0))
        .unwrap_err()
        .to_string();
    assert!(e.contains("--identity"), "{e}");
}

#[test]
fn a_secure_sum_by_messages_is_the_embedded_one_and_noise_in_the_messages_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let stages = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n";
    let mut c = config(dir.path(), stages);
    c.rounds = 1;
    let keys = keys_of(&mut c);
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
