//! A coordinator whose clients are nodes of a Flower federation.
//!
//! A round asks every drawn client for its contribution and waits for all of them; a node that died is asked again when it is back, and answers with the
//! same bytes. In a secure sum a node that is lost in the middle counts as dropped, as the protocol allows; where too few are left, or noise would be
//! missing, the round is begun again with a new session.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use super::client::Contribution;
use super::party::{SUM, UPDATE, check_remote, roster};
use super::round::Aggregate;
use super::signer::open_from;
use super::{BaseModel, Hidden, RoundRecord, Run, remote_buffer};
use crate::compress::decode;
use crate::config::RunConfig;
use crate::flower::http::Address;
use crate::flower::proto::{Scalar, SintList};
use crate::flower::record::{Array, Content, Record, from_tensors, to_tensors};
use crate::flower::runtime::{Answer, Runtime};
use crate::lora::{Combine, start_of};
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{FixedPoint, RoundConfig, Server};
use crate::{FederatedError, NamedTensors};

/// How a coordinator works.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The SuperLink.
    pub address: Address,
    /// Longest wait for the answers of a step; nodes that have not answered are asked again, in a secure sum they count as lost.
    pub deadline: Duration,
    /// Longest wait for a run to be submitted, and for nodes to come.
    pub wait: Duration,
    /// Go on from the checkpoint.
    pub resume: bool,
}

/// What happens, told while it happens.
#[derive(Clone, Debug)]
pub enum RemoteEvent<'a> {
    /// Clients that are there, of those that the run needs.
    Present {
        /// There.
        clients: usize,
        /// Needed.
        of: usize,
    },
    /// A client could not do what it was asked.
    Failed {
        /// Its node.
        node: u64,
        /// What it said.
        problem: String,
    },
    /// These clients have not answered in time; the round goes on without them.
    Late(&'a [usize]),
    /// A round is over and kept.
    Round(&'a RoundRecord),
    /// Waiting.
    Waiting,
}

/// Tells what a node could not do; the node's failure is not the run's.
pub(super) fn failed(tell: Tell<'_>, node: u64, problem: impl ToString) {
    let problem = problem.to_string();
    let _ = tell(RemoteEvent::Failed { node, problem });
}

pub(super) type Tell<'t> = &'t dyn Fn(RemoteEvent<'_>) -> ControlFlow<()>;

/// Nodes by the number of the client that they hold.
pub(super) struct Members {
    pub nodes: BTreeMap<usize, u64>,
    /// Flower's own nodes, which do not say who they are: numbered in the order of their node numbers.
    pub stock: bool,
}

/// Runs the rounds of `config` with the nodes of a federation. Returns the run, and whether it came to its end.
///
/// # Errors
/// [`FederatedError::Remote`], and whatever goes wrong in aggregation or writing.
pub fn coordinate(
    config: RunConfig,
    base: BaseModel,
    clients: usize,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<(Run, bool), FederatedError> {
    check_remote(&config)?;
    let options = &RemoteOptions {
        deadline: within(&config).unwrap_or(options.deadline),
        ..options.clone()
    };
    let mut run = Run::coordinator(config, base, clients, options.resume)?;
    std::fs::create_dir_all(&run.config.out).map_err(|e| FederatedError::io(&run.config.out, e))?;
    let go_on = || tell(RemoteEvent::Waiting).is_continue();
    let Some(link) = Runtime::acquire(&options.address, "flwr-serverapp", options.wait, &go_on)?
    else {
        return Ok((run, false));
    };
    let done = link.alive(|| rounds(&mut run, &link, options, tell));
    match &done {
        Ok(true) => link.finish(Ok(()), None)?,
        Ok(false) => link.finish(Err("stopped"), None)?,
        // What went wrong counts, not whether the SuperLink could still be told.
        Err(e) => drop(link.finish(Err(&e.to_string()), None)),
    }
    done.map(|done| (run, done))
}

/// How long a round may take, where the configuration says so: then it goes on without those that are late.
fn within(config: &RunConfig) -> Option<Duration> {
    let seconds = config.clock.map(|c| c.deadline).filter(|s| *s > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(1e6)))
}

fn rounds(
    run: &mut Run,
    link: &Runtime,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<bool, FederatedError> {
    if let Some(clock) = run.config.clock.filter(|c| c.buffer > 0) {
        return remote_buffer::steps(run, link, clock.buffer, options, tell);
    }
    while run.state.records.len() < run.config.rounds {
        let Some(record) = round(run, link, options, tell)? else {
            return Ok(false);
        };
        run.state.records.push(record);
        run.state.save(&run.checkpoint(), &run.fingerprint)?;
        if let Some(r) = run.state.records.last()
            && tell(RemoteEvent::Round(r)).is_break()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Which node holds which client; waits until all `needed` are there, or, with a deadline, until it is over and as many as a round needs are there.
pub(super) fn members(
    run: &Run,
    link: &Runtime,
    needed: &[usize],
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Option<Members>, FederatedError> {
    let began = Instant::now();
    let mut shown = usize::MAX;
    loop {
        let nodes: Vec<u64> = link.nodes()?.iter().map(|n| n.node_id).collect();
        let mut members = Members {
            nodes: BTreeMap::new(),
            stock: false,
        };
        let wanted = match within(&run.config) {
            None => needed.len(),
            Some(_) => run.config.least(needed.len()),
        };
        if nodes.len() >= wanted {
            let question = Content(vec![("config".to_owned(), Record::Config(vec![ours(run)]))]);
            let all = nodes.iter().map(|&n| (n, question.clone())).collect();
            let wait = Duration::from_secs(60).min(options.deadline);
            let go_on = || tell(RemoteEvent::Waiting).is_continue();
            let answers = link.ask("query", "query", all, wait, &go_on)?;
            let mut silent = 0;
            for a in &answers {
                match &a.content {
                    Ok(c) if c.text("tacit").is_some() => {
                        let client = c.number("client").unwrap_or(-1.0);
                        if client >= 0.0 && (client as usize) < run.clients.len() {
                            members.nodes.insert(client as usize, a.node);
                        }
                    }
                    Ok(_) => silent += 1,
                    // A node of ours with other settings says so; one of Flower's knows no queries.
                    Err(e) if e.contains("configuration") => {
                        failed(tell, a.node, e);
                    }
                    Err(_) => silent += 1,
                }
            }
            if members.nodes.is_empty() && silent >= wanted {
                members.stock = true;
                members.nodes = answers
                    .iter()
                    .enumerate()
                    .map(|(k, a)| (k, a.node))
                    .collect();
            }
        }
        let present = needed
            .iter()
            .filter(|k| members.nodes.contains_key(k))
            .count();
        let over = within(&run.config).is_some_and(|d| began.elapsed() >= d);
        if present == needed.len() || over && present >= run.config.least(needed.len()) {
            return Ok(Some(members));
        }
        let event = RemoteEvent::Present {
            clients: present,
            of: needed.len(),
        };
        if shown != present && tell(event).is_break() {
            return Ok(None);
        }
        shown = present;
        if began.elapsed() > options.wait {
            return Err(FederatedError::Remote {
                call: "get-nodes".into(),
                status: 200,
                problem: format!(
                    "{present} of {} clients have come within {} s",
                    needed.len(),
                    options.wait.as_secs()
                ),
            });
        }
        if tell(RemoteEvent::Waiting).is_break() {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// The mark of our own messages: what both sides must agree on.
fn ours(run: &Run) -> (String, Scalar) {
    ("tacit".to_owned(), Scalar::Text(run.fingerprint.clone()))
}

/// The shared state as message content, without the mark for Flower's own nodes.
pub(super) fn shared(run: &Run, round: usize, mark: bool, more: Vec<(String, Scalar)>) -> Content {
    let g = &run.state.global;
    let mut config = vec![("server-round".to_owned(), Scalar::Sint(round as i64 + 1))];
    if mark {
        config.push(ours(run));
    }
    config.extend(more);
    let mut records = vec![
        ("arrays".to_owned(), from_tensors(&g.adapter)),
        ("config".to_owned(), Record::Config(config)),
    ];
    if run.config.train.scaffold {
        records.push(("control".to_owned(), from_tensors(&run.state.control)));
    }
    if !g.residual.is_empty() {
        records.push(("residual".to_owned(), from_tensors(&g.residual)));
    }
    Content(records)
}

fn round(
    run: &mut Run,
    link: &Runtime,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Option<RoundRecord>, FederatedError> {
    let began = Instant::now();
    let round = run.state.records.len();
    let drawn = run.drawn(round);
    loop {
        let Some(members) = members(run, link, &drawn, options, tell)? else {
            return Ok(None);
        };
        let c = &run.config;
        if members.stock
            && (c.hides_updates()
                || c.signed()
                || c.train.scaffold
                || c.combine != Combine::Average)
        {
            return Err(FederatedError::setting(
                "nodes",
                "nodes of this software, for this configuration",
                "Flower's own",
                "hidden sums, signed payloads, SCAFFOLD and rules beside `average` need `tacit federate node`",
            ));
        }
        let got = if run.config.hides_updates() {
            hidden(run, link, round, &drawn, &members, options, tell)?
        } else {
            visible(run, link, round, &drawn, &members, options, tell)?
        };
        let (contributions, aggregate) = match got {
            Got::Stopped => return Ok(None),
            Got::Again => continue,
            Got::All(contributions, aggregate) => (contributions, aggregate),
        };
        let late: Vec<usize> = drawn
            .iter()
            .copied()
            .filter(|k| contributions.iter().all(|c| c.client != *k))
            .collect();
        if !late.is_empty() && tell(RemoteEvent::Late(&late)).is_break() {
            return Ok(None);
        }
        let measure = |run: &Run| evaluated(run, link, round, &members, options, tell);
        let mut record = run.finish_round(round, &contributions, aggregate, began, &measure)?;
        record.late = late;
        return Ok(Some(record));
    }
}

enum Got {
    Stopped,
    Again,
    All(Vec<Contribution>, Aggregate),
}

/// Asks clients; those that fail are told of and left out.
#[allow(clippy::too_many_arguments)]
fn ask(
    link: &Runtime,
    kind: &str,
    round: usize,
    contents: Vec<(usize, Content)>,
    members: &Members,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Vec<(usize, Content)>, FederatedError> {
    let client_of: BTreeMap<u64, usize> = members.nodes.iter().map(|(&k, &n)| (n, k)).collect();
    let contents = contents
        .into_iter()
        .filter_map(|(k, c)| Some((*members.nodes.get(&k)?, c)))
        .collect();
    let go_on = || tell(RemoteEvent::Waiting).is_continue();
    let group = format!("{}", round + 1);
    let answers = link.ask(kind, &group, contents, options.deadline, &go_on)?;
    let mut out = Vec::new();
    for Answer { node, content } in answers {
        match content {
            Ok(c) => out.push((client_of[&node], c)),
            Err(problem) => {
                failed(tell, node, problem);
            }
        }
    }
    out.sort_by_key(|o| o.0);
    Ok(out)
}

fn weight(content: &Content) -> f64 {
    content
        .number("num-examples")
        .filter(|w| *w >= 0.0 && w.is_finite())
        .unwrap_or(0.0)
}

/// A contribution whose update is seen.
pub(super) fn read(
    run: &Run,
    round: usize,
    client: usize,
    content: &Content,
) -> Result<Contribution, FederatedError> {
    let c = &run.config;
    let rank = c.method.rank_of(client);
    let start = start_of(&run.tuner, c.combine, &run.state.global, rank, round as u64)?;
    read_from(run, start, round, client, content)
}

/// The same for a client that began at `start`, in its turn number `turn`.
pub(super) fn read_from(
    run: &Run,
    start: NamedTensors,
    turn: usize,
    client: usize,
    content: &Content,
) -> Result<Contribution, FederatedError> {
    let c = &run.config;
    let (update, bytes) = match content.bytes("update", UPDATE) {
        Some(sent) if c.signed() => {
            let keys = roster(c, &[client])?;
            let payload = open_from(&keys, run.session(), sent, client, turn)?;
            (decode(payload, &start)?, sent.len())
        }
        Some(payload) => (decode(payload, &start)?, payload.len()),
        None => {
            let local = to_tensors(content.arrays("arrays")?, &start)?;
            (local.difference(&start)?, 4 * start.count())
        }
    };
    update.check_finite("an update")?;
    let mut control_change = NamedTensors::new();
    if c.train.scaffold {
        control_change = to_tensors(content.arrays("control-change")?, &start)?;
        control_change.check_finite("a change of a control variate")?;
    }
    let controls = 4 * control_change.count();
    Ok(Contribution {
        client,
        loss: content.number("train-loss").unwrap_or(0.0),
        update,
        control_change,
        weight: weight(content),
        bytes_up: (bytes + controls) as u64,
        bytes_down: (4 * start.count() + controls) as u64,
        start,
        ..Contribution::default()
    })
}

fn visible(
    run: &Run,
    link: &Runtime,
    round: usize,
    drawn: &[usize],
    members: &Members,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Got, FederatedError> {
    let mut got: BTreeMap<usize, Contribution> = BTreeMap::new();
    let content = shared(run, round, !members.stock, Vec::new());
    let contents = drawn.iter().map(|&k| (k, content.clone())).collect();
    for (k, answer) in ask(link, "train", round, contents, members, options, tell)? {
        match read(run, round, k, &answer) {
            Ok(c) => drop(got.insert(k, c)),
            // A malformed answer is the node's failure, not the run's.
            Err(e) => {
                failed(tell, members.nodes[&k], e);
            }
        }
    }
    if tell(RemoteEvent::Waiting).is_break() {
        return Ok(Got::Stopped);
    }
    let enough = match within(&run.config) {
        None => drawn.len(),
        Some(_) => run.config.least(drawn.len()),
    };
    if got.len() < enough {
        return Ok(Got::Again);
    }
    let contributions: Vec<Contribution> = got.into_values().collect();
    let aggregate = run.aggregate(round, &contributions)?;
    Ok(Got::All(contributions, aggregate))
}

#[allow(clippy::too_many_arguments)]
fn hidden(
    run: &Run,
    link: &Runtime,
    round: usize,
    drawn: &[usize],
    members: &Members,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Got, FederatedError> {
    let bits = run.config.secure_bits().unwrap_or(24);
    let roster = roster(&run.config, drawn)?;
    let like = run.state.global.adapter.clone();
    let (dimension, epsilon) = match &run.hidden {
        Hidden::Noise(p) => (p.mechanism.encoded_len(), Some(p.ledger(round + 1)?)),
        _ => (like.count(), None),
    };
    // A session is used for one attempt only.
    let mut session = [0u8; 16];
    getrandom::fill(&mut session).map_err(|e| {
        FederatedError::format(
            "randomness of the operating system",
            e.to_string(),
            "try again",
        )
    })?;
    let config = RoundConfig::complete(session, round as u64, dimension, bits, &roster);
    let mut server = Server::new(config, roster)?;
    let numbers = Scalar::Sints(SintList {
        vals: drawn.iter().map(|&k| k as i64).collect(),
    });
    let mut content = shared(run, round, true, vec![("clients".to_owned(), numbers)]);
    content.0.push(("sum".to_owned(), message(&session)));
    let mut contributions = BTreeMap::new();
    let (mut up, mut down) = (0u64, (4 * like.count() * drawn.len()) as u64);
    let mut kind = "train";
    let mut contents: Vec<(usize, Content)> = drawn.iter().map(|&k| (k, content.clone())).collect();
    for step in 0..5 {
        let asked = contents.len();
        let answers = ask(link, kind, round, contents, members, options, tell)?;
        if tell(RemoteEvent::Waiting).is_break() {
            return Ok(Got::Stopped);
        }
        // Before anything is masked, a client that is missing can simply be waited for; after a deadline the protocol goes on if enough are there.
        if step == 0 && answers.len() < asked && within(&run.config).is_none() {
            return Ok(Got::Again);
        }
        for (k, answer) in &answers {
            let bytes = answer.bytes("sum", SUM).unwrap_or_default();
            up += bytes.len() as u64;
            if let Err(e) = server.receive(bytes) {
                failed(tell, members.nodes[k], e);
                continue;
            }
            if step == 0 {
                let c = Contribution {
                    client: *k,
                    loss: answer.number("train-loss").unwrap_or(0.0),
                    weight: weight(answer),
                    ..Contribution::default()
                };
                contributions.insert(*k, c);
            }
        }
        if step == 4 {
            break;
        }
        let next = match server.advance() {
            Ok(next) => next,
            Err(_) => return Ok(Got::Again),
        };
        kind = "train.sum";
        contents = next
            .into_iter()
            .map(|(to, bytes)| {
                down += bytes.len() as u64;
                let config = Record::Config(vec![ours(run)]);
                let content = Content(vec![
                    ("config".to_owned(), config),
                    ("sum".to_owned(), message(&bytes)),
                ]);
                (to as usize, content)
            })
            .collect();
    }
    let Ok(sum) = server.finish() else {
        return Ok(Got::Again);
    };
    let n = sum.survivors.len();
    let mut average = like.clone();
    match &run.hidden {
        // Noise of all was calibrated for; a lost client's part would be missing.
        Hidden::Noise(_) if n < drawn.len() => return Ok(Got::Again),
        Hidden::Noise(p) => {
            average.axpy(
                run.noise_rate(round, p.rate()),
                &p.decode(&sum.values, &like)?,
            )?;
        }
        _ => {
            let bound = run.config.clip().unwrap_or(1.0);
            let codec = FixedPoint::new(bits, bound, drawn.len())?;
            let mean: Vec<f32> = codec
                .decode_sum(&sum.values, n)?
                .into_iter()
                .map(|x| (x / n as f64) as f32)
                .collect();
            average.axpy(1.0, &like.unflatten(&mean)?)?;
        }
    }
    let survivors: Vec<ClientId> = sum.survivors.clone();
    contributions.retain(|k, _| survivors.contains(&(*k as ClientId)));
    let aggregate = Aggregate {
        average,
        residual: run.state.global.residual.clone(),
        bytes_up: up,
        bytes_down: down,
        error: None,
        relative_error: None,
        epsilon,
    };
    Ok(Got::All(contributions.into_values().collect(), aggregate))
}

fn message(bytes: &[u8]) -> Record {
    Record::Arrays(vec![("message".to_owned(), Array::from_bytes(SUM, bytes))])
}

/// Perplexity of the shared state over the text of all clients that are there; 0 where nobody measures.
pub(super) fn evaluated(
    run: &Run,
    link: &Runtime,
    round: usize,
    members: &Members,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<f64, FederatedError> {
    let content = shared(run, round, !members.stock, Vec::new());
    let contents = members
        .nodes
        .keys()
        .map(|&k| (k, content.clone()))
        .collect();
    let answers = ask(link, "evaluate", round, contents, members, options, tell)?;
    let (mut loss, mut tokens) = (0.0, 0.0);
    for (_, a) in &answers {
        if let Some(l) = a.number("loss") {
            loss += l * weight(a);
            tokens += weight(a);
        }
    }
    Ok(if tokens > 0.0 {
        (loss / tokens).exp()
    } else {
        0.0
    })
}
