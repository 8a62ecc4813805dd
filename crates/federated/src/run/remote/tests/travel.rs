//! What travels in messages: control variates, signatures, the steps of a secure sum.

use super::*;
use crate::flower::proto::SintList;
use crate::flower::record::Array;
use crate::protection::secure_aggregation::{FixedPoint, RoundConfig, Server};
use crate::random::{stream, unit};
use crate::run::party::SUM;

/// A coordinator's rounds with parties in this process, by the messages that would travel.
fn coordinated(c: &RunConfig, all: &mut [Party]) -> Vec<String> {
    let texts = texts(c, None).unwrap();
    let base = random_base(c, &texts).unwrap();
    let mut run = Run::coordinator(c.clone(), base, all.len(), false).unwrap();
    for round in 0..c.rounds {
        let message = shared(&run, round, true, Vec::new());
        let drawn = run.drawn(round);
        let contributions: Vec<_> = drawn
            .iter()
            .map(|&k| {
                let answer = all[k].answer("train", &message).unwrap();
                read(&run, round, k, &answer).unwrap()
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
    let message = |round| shared(&run, round, true, Vec::new());
    let read = |round, client, answer: &Content| read(&run, round, client, answer);
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
    let everyone = roster(&c, &[0, 1, 2, 3]).unwrap();
    let adapter = want.tuner.initial(c.method.rank, 0).unwrap();
    let session = [5; 16];
    let round = RoundConfig::complete(session, 0, adapter.count(), 24, &everyone);
    let mut server = Server::new(round, everyone).unwrap();
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
        roster(&c, &[0, 1])
            .unwrap_err()
            .to_string()
            .contains("--show-identity")
    );
}
