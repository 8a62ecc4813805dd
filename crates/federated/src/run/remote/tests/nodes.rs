//! Parties in this process in place of a SuperLink with nodes, each with its manners.

use std::cell::{Cell, RefCell};

use super::*;
use crate::flower::link::Problem;
use crate::flower::proto::NodeInfo;

/// What a node does with a question before it answers it well.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Manner {
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
    /// Does not answer so many questions after its first round.
    Mute(usize),
    /// Does not answer so many questions to train after its first round.
    Deaf(usize),
    /// Is not among the nodes so many times after its first round.
    Gone(usize),
}

/// Parties in this process in place of a SuperLink with nodes.
pub struct Nodes {
    parties: RefCell<Vec<Party>>,
    manners: Vec<Manner>,
    /// How often each node was asked each kind of question, and how often it was silent or gone.
    asked: RefCell<BTreeMap<(usize, String), usize>>,
    silent: RefCell<BTreeMap<usize, usize>>,
    /// Answers to questions, by number, until they are fetched.
    answers: RefCell<BTreeMap<String, (bool, Answer)>>,
    /// Most bytes that an answer was allowed, and that one had.
    pub room: Cell<u64>,
    pub largest: Cell<u64>,
}

impl Nodes {
    pub fn new(parties: Vec<Party>, manners: &[Manner]) -> Self {
        assert_eq!(parties.len(), manners.len());
        Self {
            parties: RefCell::new(parties),
            manners: manners.to_vec(),
            asked: RefCell::default(),
            silent: RefCell::default(),
            answers: RefCell::default(),
            room: Cell::new(0),
            largest: Cell::new(0),
        }
    }

    fn asked(&self, client: usize, kind: &str) -> usize {
        let asked = self.asked.borrow();
        asked.get(&(client, kind.to_owned())).map_or(0, |n| *n)
    }

    /// Whether a client that is to be silent `times` after its first round, or without rounds after its second update, is so now.
    fn silent(&self, client: usize, times: usize) -> bool {
        if self.asked(client, "evaluate") == 0 && self.asked(client, "train") < 2 {
            return false;
        }
        let mut silent = self.silent.borrow_mut();
        let so_far = silent.entry(client).or_default();
        *so_far += 1;
        *so_far <= times
    }

    fn answer(&self, k: usize, kind: &str, question: &Content) -> Result<Content, Problem> {
        let problem = |code, reason: &str| {
            let reason = reason.to_owned();
            Problem { code, reason }
        };
        let first = self.asked(k, kind) == 0;
        let honest = || {
            let answer = self.parties.borrow_mut()[k].answer(kind, question);
            answer.map_err(|e| problem(2, &e.to_string()))
        };
        let noise = || Content(vec![("noise".into(), Record::Config(Vec::new()))]);
        match (self.manners[k], kind) {
            (Manner::Garbage, "query") if first => honest(),
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
            (Manner::Away, "train") if first => Err(problem(5, "node unavailable")),
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
    fn nodes(&self) -> Result<Vec<NodeInfo>, FederatedError> {
        let there = |k: &usize| match self.manners[*k] {
            Manner::Gone(times) => !self.silent(*k, times),
            _ => true,
        };
        let info = |k: usize| NodeInfo {
            node_id: 10 + k as u64,
            ..NodeInfo::default()
        };
        Ok((0..self.manners.len()).filter(there).map(info).collect())
    }

    fn send(
        &self,
        kind: &str,
        _: &str,
        node: u64,
        question: Content,
        _: Duration,
    ) -> Result<String, FederatedError> {
        let k = node as usize - 10;
        let asked: usize = self.asked.borrow().values().sum();
        let id = format!("question {asked}");
        let mute = match self.manners[k] {
            Manner::Mute(times) => self.silent(k, times),
            Manner::Deaf(times) if kind == "train" => self.silent(k, times),
            _ => false,
        };
        if !mute {
            let content = self.answer(k, kind, &question);
            let answer = (kind.starts_with("train"), Answer { node, content });
            self.answers.borrow_mut().insert(id.clone(), answer);
        }
        let mut all = self.asked.borrow_mut();
        *all.entry((k, kind.to_owned())).or_default() += 1;
        Ok(id)
    }

    fn answers(
        &self,
        open: &BTreeMap<String, u64>,
        most: u64,
    ) -> Result<Vec<(String, Answer)>, FederatedError> {
        let mut out = Vec::new();
        for id in open.keys() {
            let Some((update, answer)) = self.answers.borrow_mut().remove(id) else {
                continue;
            };
            if let (Ok(c), true) = (&answer.content, update) {
                self.room.set(self.room.get().max(most));
                self.largest.set(self.largest.get().max(c.size()));
                assert!(
                    c.size() <= most,
                    "an honest answer of {} bytes in room of {most}",
                    c.size()
                );
            }
            out.push((id.clone(), answer));
        }
        Ok(out)
    }
}

/// What a coordinator told of its nodes.
#[derive(Default)]
pub struct Told {
    /// The client, and what is wrong with it.
    pub failed: Vec<(Option<usize>, String)>,
    /// Clients that do not answer.
    pub silent: Vec<Vec<usize>>,
    /// Clients that were waited for.
    pub waited: BTreeSet<usize>,
}

/// Short waits, but for clients that are silent.
pub fn options(silence: Duration) -> RemoteOptions {
    RemoteOptions {
        address: Address {
            url: String::new(),
            root_certificate: None,
            patience: Duration::ZERO,
        },
        deadline: Duration::from_millis(10),
        silence,
        wait: Duration::ZERO,
        resume: false,
        pause: Duration::from_millis(1),
    }
}

/// The rounds, or with a buffer the steps, of a coordinator with nodes of these manners, which waits so long for those that are silent: its run, and what it told of them.
pub fn over(
    c: &RunConfig,
    keys: Option<&[ed25519_dalek::SigningKey]>,
    manners: &[Manner],
    silence: Duration,
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
    let told = RefCell::new(Told::default());
    let tell = |e: RemoteEvent<'_>| {
        let mut told = told.borrow_mut();
        match e {
            RemoteEvent::Failed {
                client, problem, ..
            } => told.failed.push((client, problem)),
            RemoteEvent::Silent { clients, .. } => told.silent.push(clients.to_vec()),
            RemoteEvent::Waiting(clients) => told.waited.extend(clients),
            _ => {}
        }
        ControlFlow::Continue(())
    };
    let options = options(silence);
    let done = match c.clock.map_or(0, |clock| clock.buffer) {
        0 => rounds(&mut run, &nodes, &options, &tell),
        size => buffer::steps(&mut run, &nodes, size, &options, &tell),
    };
    let done = done.map(|finished| {
        assert!(finished);
        run
    });
    (done, told.into_inner(), nodes)
}
