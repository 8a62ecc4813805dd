//! Which node holds which client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{RemoteEvent, RemoteOptions, Tell, failed, ours, silent, within};
use crate::FederatedError;
use crate::config::RunConfig;
use crate::flower::link::Link;
use crate::flower::record::{Content, Record};
use crate::run::coordinated::Coordinated;

/// Most bytes of an answer that is a few numbers: to who a node is, and to how good the model is.
pub(super) const FEW: u64 = 1 << 20;

/// Longest wait for an answer to who a node is, and the same where only those owe one that have been silent before.
const WHO: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(5)];

/// What a coordinator knows of its nodes from round to round.
#[derive(Default)]
pub(super) struct Acquaintance {
    /// Who each node has said that it is.
    pub clients: BTreeMap<u64, usize>,
    /// Clients that a round has gone on without, because they did not answer, and that have not taken part since.
    pub silent: BTreeSet<usize>,
}

impl Acquaintance {
    fn knows(&self, client: usize) -> bool {
        self.clients.values().any(|k| *k == client)
    }
}

/// How long a round waits for clients that do not answer.
pub(super) struct Patience {
    pub began: Instant,
    /// `clock.deadline`.
    pub deadline: Option<Duration>,
    silence: Duration,
}

impl Patience {
    pub fn new(config: &RunConfig, options: &RemoteOptions) -> Self {
        Self {
            began: Instant::now(),
            deadline: within(config),
            silence: options.silence,
        }
    }

    /// Whether a step that has been waited for goes on without those that are `absent`: always with a deadline; else when all of them were silent before, or
    /// have been for long enough.
    pub fn over(&self, absent: &BTreeSet<usize>, known: &Acquaintance) -> bool {
        self.deadline.is_some()
            || absent.is_subset(&known.silent)
            || self.began.elapsed() >= self.silence
    }

    /// Whether a round that too few have answered for is given up.
    pub fn gone(&self) -> bool {
        self.began.elapsed() >= self.silence.max(self.deadline.unwrap_or_default())
    }

    /// What to tell of them.
    pub fn event<'a>(&self, clients: &'a [usize]) -> RemoteEvent<'a> {
        RemoteEvent::Silent {
            clients,
            limit: self.deadline.is_none().then_some(self.silence),
        }
    }
}

/// Nodes by the number of the client that they hold.
#[derive(Default)]
pub(super) struct Members {
    pub nodes: BTreeMap<usize, u64>,
    /// Flower's own nodes, which do not say who they are: numbered in the order of their node numbers.
    pub stock: bool,
}

impl Members {
    /// Client `client` is with `node`, unless it is with another that answered too: the one that is `known` keeps it, else the first.
    fn claim(&mut self, client: usize, node: u64, known: &BTreeMap<u64, usize>, tell: Tell<'_>) {
        let holder = match self.nodes.get(&client) {
            Some(&other) if other != node && known.get(&node) != Some(&client) => other,
            _ => node,
        };
        if let Some(loser) = self.nodes.insert(client, holder).filter(|o| *o != node) {
            let loser = if holder == node { loser } else { node };
            let problem = format!("it says that it is client {client}, which node {holder} is");
            failed(tell, loser, None, problem);
        } else if holder != node {
            let problem = format!("it says that it is client {client}, which node {holder} is");
            failed(tell, node, None, problem);
        }
    }
}

/// Which node holds which client; waits until all `needed` are there, or as many as a round needs and the wait for the others is over. A node that has once
/// said who it is stays that client, also when it now answers with what cannot be read.
pub(super) fn members(
    run: &dyn Coordinated,
    link: &dyn Link,
    needed: &[usize],
    known: &mut Acquaintance,
    patience: &Patience,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Option<Members>, FederatedError> {
    let began = Instant::now();
    let mut shown = None;
    let least = match run.config().noise() {
        Some(_) => needed.len(),
        None => run.config().least(needed.len()),
    };
    loop {
        let nodes: Vec<u64> = link.nodes()?.iter().map(|n| n.node_id).collect();
        let mut members = Members::default();
        let mut strangers = Vec::new();
        // Before anybody is known, few are not asked who they are: Flower's own nodes are counted only.
        let nobody = known.clients.is_empty();
        let wanted = match patience.deadline {
            _ if !nobody => 1,
            None => needed.len(),
            Some(_) => least,
        };
        if nodes.len() >= wanted {
            (members, strangers) = who(run, link, &nodes, known, options, tell)?;
            if nobody && members.nodes.is_empty() && strangers.len() >= wanted {
                members.stock = true;
                members.nodes = strangers.iter().copied().enumerate().collect();
            }
        }
        let missing: BTreeSet<usize> = (needed.iter().copied())
            .filter(|k| !members.nodes.contains_key(k))
            .collect();
        let present = needed.len() - missing.len();
        // Those that have never come are waited for by another measure than those that were there.
        let familiar = missing.iter().all(|k| known.knows(*k));
        let over = match patience.deadline {
            Some(d) => began.elapsed() >= d,
            None => familiar && patience.over(&missing, known),
        };
        if missing.is_empty() || over && present >= least {
            return Ok(Some(members));
        }
        let missing: Vec<usize> = missing.into_iter().collect();
        if shown.as_ref() != Some(&missing) {
            let event = RemoteEvent::Present {
                clients: present,
                of: needed.len(),
                missing: &missing,
            };
            let told = tell(event).is_break();
            if told || familiar && tell(patience.event(&missing)).is_break() {
                return Ok(None);
            }
            shown = Some(missing.clone());
        }
        if familiar && patience.gone() {
            let round = run.state().records.len();
            return Err(silent(run, round, needed, &missing, patience));
        }
        if !familiar && began.elapsed() > options.wait {
            let more = match strangers.as_slice() {
                [] => String::new(),
                some => format!("; nodes {some:?} answered, but not who they are"),
            };
            return Err(FederatedError::Remote {
                call: "get-nodes".into(),
                status: 200,
                problem: format!(
                    "{present} of {} clients have come within {} s, not {missing:?}{more}; start their nodes, then go on with the same command (--wait S waits longer)",
                    needed.len(),
                    options.wait.as_secs()
                ),
            });
        }
        if tell(RemoteEvent::Waiting(&missing)).is_break() {
            return Ok(None);
        }
        std::thread::sleep(options.pause);
    }
}

/// Asks all nodes who they are: the clients that there are, and nodes that have not said it.
fn who(
    run: &dyn Coordinated,
    link: &dyn Link,
    nodes: &[u64],
    known: &mut Acquaintance,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<(Members, Vec<u64>), FederatedError> {
    let question = Content(vec![("config".to_owned(), Record::Config(vec![ours(run)]))]);
    let all = nodes.iter().map(|&n| (n, question.clone())).collect();
    let [wait, short] = WHO.map(|w| w.min(options.deadline));
    let began = Instant::now();
    let go_on = |owing: &[u64]| {
        let clients: Vec<usize> = (owing.iter())
            .filter_map(|n| known.clients.get(n).copied())
            .collect();
        let all_silent =
            clients.len() == owing.len() && clients.iter().all(|k| known.silent.contains(k));
        let over = all_silent && began.elapsed() >= short;
        tell(RemoteEvent::Waiting(&clients)).is_continue() && !over
    };
    let answers = link.ask("query", "query", all, wait, FEW, &go_on)?;
    let mut members = Members::default();
    let mut strangers = Vec::new();
    for a in &answers {
        let said = match &a.content {
            Ok(c) if c.text("tacit").is_some() => c
                .number("client")
                .filter(|k| *k >= 0.0 && k.fract() == 0.0)
                .map(|k| k as usize)
                .filter(|k| *k < run.count()),
            // A node of ours with other settings says so; one of Flower's knows no queries.
            Err(e) if e.reason.contains("configuration") => {
                known.clients.remove(&a.node);
                failed(tell, a.node, None, e);
                continue;
            }
            Err(e) if e.away() => continue,
            _ => known.clients.get(&a.node).copied(),
        };
        match said {
            Some(client) => members.claim(client, a.node, &known.clients, tell),
            None => strangers.push(a.node),
        }
    }
    for (&client, &node) in &members.nodes {
        known.clients.insert(node, client);
    }
    Ok((members, strangers))
}
