//! Parties answering messages, without a network between them and a coordinator.

use std::cell::{Cell, RefCell};

use super::*;
use crate::flower::proto::SintList;
use crate::flower::record::Array;
use crate::flower::runtime::Problem;
use crate::protection::secure_aggregation::{FixedPoint, RoundConfig, Server, identity};
use crate::random::{stream, unit};
use crate::rules::weighted_average;
use crate::run::fixture::{self, finish};
use crate::run::party::{Party, SUM, check_messages};
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

/// What a node does with a question before it answers it well.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Honest,
    /// Answers `train` and `train.sum` with nothing that could be used; from the second query on also that.
    Garbage,
    /// The same once its update is masked.
    Late,
    /// An update whose values are as large as numbers get.
    Huge,
    /// Claims to have had more examples than there are numbers.
    Heavy,
    /// Dead at the first question to train: the SuperLink says that it is away.
    Away,
}

/// Parties in this process in place of a SuperLink with nodes.
struct Nodes {
    parties: RefCell<Vec<Party>>,
    manners: Vec<Manner>,
    asked: Cell<usize>,
    /// Most bytes that an answer was allowed, and that one had.
    room: Cell<u64>,
    largest: Cell<u64>,
}

impl Nodes {
    fn new(parties: Vec<Party>, manners: &[Manner]) -> Self {
        assert_eq!(parties.len(), manners.len());
        Self {
            parties: RefCell::new(parties),
            manners: manners.to_vec(),
            asked: Cell::new(0),
            room: Cell::new(0),
            largest: Cell::new(0),
        }
    }

    fn answer(&self, node: u64, kind: &str, question: &Content) -> Result<Content, Problem> {
        let problem = |code, reason: &str| {
            let reason = reason.to_owned();
            Problem { code, reason }
        };
        let k = node as usize - 10;
        let honest = || {
            let answer = self.parties.borrow_mut()[k].answer(kind, question);
            answer.map_err(|e| problem(2, &e.to_string()))
        };
        let noise = || Content(vec![("noise".into(), Record::Config(Vec::new()))]);
        match (self.manners[k], kind) {
            (Manner::Garbage, "query") if self.asked.get() == 0 => honest(),
            (Manner::Garbage, "train") => Err(problem(1000, "it cannot be read")),
            (Manner::Garbage, _) => Ok(noise()),
            (Manner::Late, "train.sum") => Ok(noise()),
            (Manner::Huge, "train") => {
                let mut answer = honest()?;
                for (name, r) in &mut answer.0 {
                    if name == "update" {
                        let like = to_tensors(question.arrays("arrays").unwrap(), &self.like());
                        let huge = like.unwrap().map(|_| 3e38);
                        *r = from_tensors(&huge);
                        name.clone_from(&"arrays".to_owned());
                    }
                }
                Ok(answer)
            }
            (Manner::Heavy, "train") => {
                let mut answer = honest()?;
                for (_, r) in &mut answer.0 {
                    if let Record::Metrics(v) = r {
                        v.retain(|(n, _)| n != "num-examples");
                        v.push(("num-examples".to_owned(), Scalar::Double(1e300)));
                        v.push(("train-loss".to_owned(), Scalar::Double(f64::NAN)));
                    }
                }
                Ok(answer)
            }
            (Manner::Away, "train") if self.asked.get() < 2 => Err(problem(5, "node unavailable")),
            _ => honest(),
        }
    }

    /// The layout of the adapter.
    fn like(&self) -> NamedTensors {
        let answer = self.parties.borrow_mut()[0].answer("query", &Content::default());
        let mut like = NamedTensors::new();
        for (name, a) in answer.unwrap().arrays("arrays").unwrap() {
            let (shape, values) = a.to_f32().unwrap();
            like.insert(name.as_str(), &shape, values).unwrap();
        }
        like
    }
}

impl Link for Nodes {
    fn nodes(&self) -> Result<Vec<u64>, FederatedError> {
        Ok((10..10 + self.manners.len() as u64).collect())
    }

    fn ask(
        &self,
        kind: &str,
        _: &str,
        contents: Vec<(u64, Content)>,
        _: Duration,
        most: u64,
        _: &dyn Fn() -> bool,
    ) -> Result<Vec<Answer>, FederatedError> {
        let mut out = Vec::new();
        for (node, question) in contents {
            let content = self.answer(node, kind, &question);
            if let (Ok(c), true) = (&content, kind.starts_with("train")) {
                self.room.set(self.room.get().max(most));
                self.largest.set(self.largest.get().max(c.size()));
                assert!(
                    c.size() <= most,
                    "an honest answer of {} bytes in room of {most}",
                    c.size()
                );
            }
            out.push(Answer { node, content });
        }
        self.asked.set(self.asked.get() + 1);
        Ok(out)
    }
}

/// What a coordinator told of its nodes: the client, and what is wrong with it.
type Told = Vec<(Option<usize>, String)>;

/// The rounds of a coordinator with nodes of these manners: its run, and what it told of them.
fn over(
    c: &RunConfig,
    keys: Option<&[ed25519_dalek::SigningKey]>,
    manners: &[Manner],
) -> (Result<Run, FederatedError>, Told, Nodes) {
    let text = texts(c, None).unwrap();
    let base = random_base(c, &text).unwrap();
    let party = |k: usize| {
        let key = keys.map(|keys| keys[k].clone());
        Party::new(c.clone(), base.clone(), &text[k], k, key).unwrap()
    };
    let nodes = Nodes::new((0..text.len()).map(party).collect(), manners);
    let mut run = Run::coordinator(c.clone(), base.clone(), text.len(), false).unwrap();
    std::fs::create_dir_all(&run.config.out).unwrap();
    let options = RemoteOptions {
        address: Address {
            url: String::new(),
            root_certificate: None,
            patience: Duration::ZERO,
        },
        deadline: Duration::from_secs(1),
        wait: Duration::from_secs(1),
        resume: false,
        pause: Duration::ZERO,
    };
    let told = RefCell::new(Vec::new());
    let tell = |e: RemoteEvent<'_>| {
        if let RemoteEvent::Failed {
            client, problem, ..
        } = e
        {
            told.borrow_mut().push((client, problem));
        }
        ControlFlow::Continue(())
    };
    let done = rounds(&mut run, &nodes, &options, &tell);
    let done = done.map(|finished| {
        assert!(finished);
        run
    });
    (done, told.into_inner(), nodes)
}

fn hashes(run: &Run) -> Vec<String> {
    run.state.records.iter().map(|r| r.hash.clone()).collect()
}

const SECURE: &str = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n";

#[test]
fn rounds_of_honest_nodes_are_the_embedded_ones_and_one_that_was_away_is_waited_for() {
    use Manner::{Away, Honest};
    for (extra, manners) in [
        ("", [Honest; 4]),
        ("", [Honest, Away, Honest, Honest]),
        (SECURE, [Honest; 4]),
        (SECURE, [Honest, Honest, Honest, Away]),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let want = hashes(&embedded(&c));
        let (run, told, nodes) = over(&c, Some(&keys), &manners);
        assert_eq!(hashes(&run.unwrap()), want, "{extra}");
        assert_eq!(told.len(), manners.iter().filter(|m| **m == Away).count());
        // The room of an answer is a few times what the largest takes, not gibibytes.
        assert!(nodes.room.get() < 32 * nodes.largest.get() + (2 << 20));
    }
}

#[test]
fn a_round_ends_without_waiting_for_clients_that_only_talk_nonsense_and_names_them() {
    use Manner::{Garbage, Heavy, Honest, Huge, Late};
    for (bad, extra) in [
        (Garbage, ""),
        (Huge, ""),
        (Heavy, ""),
        (Garbage, SECURE),
        (Late, SECURE),
        (
            Garbage,
            "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n",
        ),
        (Garbage, "[[stage]]\nkind = \"signed\"\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, told, _) = over(&c, Some(&keys), &[Honest, Honest, bad, Honest]);
        let run = run.unwrap();
        assert_eq!(run.state.records.len(), 3);
        for r in &run.state.records {
            assert_eq!(
                (r.clients.as_slice(), r.late.len()),
                ([0, 1, 3].as_slice(), 0),
                "{extra}"
            );
            assert_eq!(r.failed, [2], "{extra}");
            assert!(r.train_loss.is_finite() && r.validation_perplexity > 1.0);
        }
        assert!(
            told.len() >= 3 && told.iter().all(|t| t.0 == Some(2)),
            "{told:?}"
        );
        // A checkpoint with such a round can be read again.
        let base = random_base(&c, &texts(&c, None).unwrap()).unwrap();
        let again = Run::coordinator(c.clone(), base, 4, true).unwrap();
        assert_eq!(hashes(&again), hashes(&run));
        assert!(again.state.records.iter().all(|r| r.failed == [2]));
    }
    // A plain average without the client is the embedded one of the others: nothing of it is left in the sum.
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let (run, ..) = over(&c, None, &[Honest, Honest, Huge, Honest]);
    let mut alone = fixture::start(&c, false);
    for round in 0..c.rounds {
        let some: Vec<_> = [0, 1, 3].map(|k| alone.client(round, k).unwrap()).into();
        let aggregate = alone.aggregate(round, &some).unwrap();
        let record = alone
            .finish_round(round, &some, aggregate, Instant::now(), &|_| Ok(0.0))
            .unwrap();
        alone.state.records.push(record);
    }
    assert_eq!(hashes(&run.unwrap()), hashes(&alone));
}

#[test]
fn where_too_few_are_left_the_run_ends_and_says_whose_fault_it_is() {
    use Manner::{Garbage, Honest};
    let noise = "[rule]\nkind = \"fedadam\"\n[[stage]]\nkind = \"noise\"\nepsilon = 20.0\nclip = 0.5\nexamples = 12\n[[stage]]\nkind = \"secure-sum\"\n";
    for (extra, manners, names) in [
        ("", [Garbage; 4], "[0, 1, 2, 3]"),
        (SECURE, [Garbage, Honest, Honest, Garbage], "[0, 3]"),
        // Each one's part of the noise is needed.
        (noise, [Honest, Garbage, Honest, Honest], "[1]"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), extra);
        let keys = keys_of(&mut c);
        let (run, told, _) = over(&c, Some(&keys), &manners);
        let e = run.unwrap_err().to_string();
        assert!(
            e.contains(&format!("what {names} sent")) && e.contains("--resume"),
            "{e}"
        );
        assert!(!told.is_empty());
    }
}

#[test]
fn a_model_too_large_for_messages_is_refused_before_anything_of_it_is_made() {
    let dir = tempfile::tempdir().unwrap();
    for extra in [
        "",
        "[train]\noptimiser = \"sgd\"\nscaffold = true\n",
        "[method]\nkind = \"full\"\n",
        "[method]\nkind = \"ffa-lora\"\nforward = \"float\"\nscales = true\n",
    ] {
        let c = config(dir.path(), extra);
        let tuner = fixture::start(&c, false).tuner;
        let adapter = tuner.initial(c.method.rank, 0).unwrap();
        assert_eq!(
            tuner.count(c.method.rank),
            adapter.count() as u64,
            "{extra}"
        );
        let bytes = 4 * adapter.count() as u64 * (1 + u64::from(c.train.scaffold));
        assert!(check_messages(&c, &tuner, bytes).is_ok());
        let e = check_messages(&c, &tuner, bytes - 1).unwrap_err();
        assert!(matches!(e, FederatedError::TooLarge { .. }));
        assert!(e.to_string().contains("method.rank"), "{e}");
    }
    // Sizes that no machine holds are only multiplied.
    let c = config(dir.path(), "");
    let tuner = fixture::start(&c, false).tuner;
    let mut wide = c.clone();
    wide.method.rank = 1 << 40;
    assert!(check_messages(&wide, &tuner, MESSAGE).is_err());
}
