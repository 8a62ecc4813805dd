//! A coordinator whose clients are nodes of a Flower federation.
//!
//! A round asks every drawn client for its contribution and waits for all of them; a node that died is asked again when it is back, and answers with the
//! same bytes. One that stays silent is waited for until `clock.deadline` is over or, without that, for a long while; then the round goes on without it if
//! enough are left, and later rounds do not wait for it before it answers again. A client whose answer is none (malformed, too large, signed by another, or an error of its own) *has* answered: it is named and left out, and
//! the round ends when all others have answered. In a secure sum a node that is lost in the middle, or talks nonsense, counts as dropped, as the protocol
//! allows; where too few are left, or noise would be missing, the round is begun again with a new session, without those that talked nonsense. A round
//! that comes to nothing a few times although everybody has answered ends the run with their names.

mod buffer;
mod members;
mod sum;
#[cfg(test)]
mod tests;
mod visible;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use members::{Acquaintance, FEW, Members, Patience, members};

use super::client::Contribution;
use super::coordinated::Coordinated;
use super::party::check_remote;
use super::round::Aggregate;
use super::{BaseModel, RoundRecord, Run, RunState, TaskRun};
use crate::FederatedError;
use crate::config::RunConfig;
use crate::flower::http::Address;
use crate::flower::limits::MESSAGE;
use crate::flower::link::{Answer, Link};
use crate::flower::proto::Scalar;
use crate::flower::record::{Content, Record, from_tensors};
use crate::flower::runtime::Runtime;
use crate::lora::Combine;
use crate::task::Task;

/// How often a round is begun that all answer and that still has too few contributions.
const ATTEMPTS: usize = 3;
/// Largest loss that a client is believed, in nats per token; a model that knows nothing has the logarithm of its vocabulary.
const MOST_LOSS: f64 = 100.0;

/// How a coordinator works.
#[derive(Clone, Debug)]
pub struct RemoteOptions {
    /// The SuperLink.
    pub address: Address,
    /// Longest wait for the answers of a step; nodes that have not answered are asked again, in a secure sum they count as lost.
    pub deadline: Duration,
    /// How long a round waits for clients that were there and do not answer, where the configuration sets no `clock.deadline`: then it goes on without them,
    /// or, where too few are left, the run ends with their names.
    pub silence: Duration,
    /// Longest wait for a run to be submitted, and for nodes to come.
    pub wait: Duration,
    /// Go on from the checkpoint, if there is one; else it is removed.
    pub resume: bool,
    /// Pause before a round is begun again.
    pub pause: Duration,
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
        /// Those that are missing.
        missing: &'a [usize],
    },
    /// These clients were there and do not answer.
    Silent {
        /// Who is waited for.
        clients: &'a [usize],
        /// For how long in a round; `None` where `clock.deadline` says it.
        limit: Option<Duration>,
    },
    /// A client could not do what it was asked.
    Failed {
        /// Its node.
        node: u64,
        /// The client that it holds, where that is known.
        client: Option<usize>,
        /// What it said, or what is wrong with what it sent.
        problem: String,
    },
    /// These clients have not answered in time; the round goes on without them.
    Late(&'a [usize]),
    /// A round is over and kept.
    Round(&'a RoundRecord),
    /// Waiting for answers of these clients; of nobody in particular where none is named.
    Waiting(&'a [usize]),
}

/// Tells what a node could not do; the node's failure is not the run's.
fn failed(tell: Tell<'_>, node: u64, client: Option<usize>, problem: impl ToString) {
    let problem = problem.to_string();
    let _ = tell(RemoteEvent::Failed {
        node,
        client,
        problem,
    });
}

type Tell<'t> = &'t dyn Fn(RemoteEvent<'_>) -> ControlFlow<()>;

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
    let mut run = Run::coordinator(config, base, clients, options.resume)?;
    let config = run.config.clone();
    let buffer = config.clock.map_or(0, |c| c.buffer);
    let done = connected(&config, options, tell, |link, options| match buffer {
        0 => rounds(&mut run, link, options, tell),
        size => buffer::steps(&mut run, link, size, options, tell),
    })?;
    Ok((run, done))
}

/// As [`coordinate`], of a [`Task`]: the nodes have its examples, and the run it returns has none.
///
/// # Errors
/// As [`coordinate`].
pub fn coordinate_task<'t, T: Task>(
    config: RunConfig,
    task: &'t T,
    clients: usize,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<(TaskRun<'t, T>, bool), FederatedError> {
    let mut run = TaskRun::coordinator(config, task, clients, options.resume)?;
    let config = run.config().clone();
    let done = connected(&config, options, tell, |link, options| {
        rounds(&mut run, link, options, tell)
    })?;
    Ok((run, done))
}

/// Connects with the SuperLink, does `work` over it and tells it how that ended; `false` when it did not come to its end.
fn connected(
    config: &RunConfig,
    options: &RemoteOptions,
    tell: Tell<'_>,
    work: impl FnOnce(&Runtime, &RemoteOptions) -> Result<bool, FederatedError>,
) -> Result<bool, FederatedError> {
    let options = &RemoteOptions {
        deadline: within(config).unwrap_or(options.deadline.min(options.silence)),
        ..options.clone()
    };
    std::fs::create_dir_all(&config.out).map_err(|e| FederatedError::io(&config.out, e))?;
    let go_on = || tell(RemoteEvent::Waiting(&[])).is_continue();
    let Some(link) = Runtime::acquire(&options.address, "flwr-serverapp", options.wait, &go_on)?
    else {
        return Ok(false);
    };
    let done = link.alive(|| work(&link, options));
    match &done {
        Ok(true) => link.finish(Ok(()), None)?,
        Ok(false) => link.finish(Err("stopped"), None)?,
        // What went wrong counts, not whether the SuperLink could still be told.
        Err(e) => drop(link.finish(Err(&e.to_string()), None)),
    }
    done
}

/// How long a round may take, where the configuration says so: then it goes on without those that are late.
fn within(config: &RunConfig) -> Option<Duration> {
    let seconds = config.clock.map(|c| c.deadline).filter(|s| *s > 0.0)?;
    Some(Duration::from_secs_f64(seconds.min(1e6)))
}

/// A run that begins anew is not to be taken for one that lay in its folder.
fn begin(run: &dyn Coordinated) -> Result<(), FederatedError> {
    match run.state().records.as_slice() {
        [] => RunState::discard(&run.checkpoint()),
        _ => Ok(()),
    }
}

fn rounds(
    run: &mut dyn Coordinated,
    link: &dyn Link,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<bool, FederatedError> {
    begin(run)?;
    let mut known = Acquaintance::default();
    while run.state().records.len() < run.config().rounds {
        let Some(record) = round(run, link, &mut known, options, tell)? else {
            return Ok(false);
        };
        run.keep(record)?;
        if let Some(r) = run.state().records.last()
            && tell(RemoteEvent::Round(r)).is_break()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The mark of our own messages: what both sides must agree on.
fn ours(run: &dyn Coordinated) -> (String, Scalar) {
    (
        "tacit".to_owned(),
        Scalar::Text(run.fingerprint().to_owned()),
    )
}

/// The shared state as message content, without the mark for Flower's own nodes.
fn shared(run: &dyn Coordinated, round: usize, mark: bool, more: Vec<(String, Scalar)>) -> Content {
    let g = &run.state().global;
    let mut config = vec![("server-round".to_owned(), Scalar::Sint(round as i64 + 1))];
    if mark {
        config.push(ours(run));
    }
    config.extend(more);
    let mut records = vec![
        ("arrays".to_owned(), from_tensors(&g.adapter)),
        ("config".to_owned(), Record::Config(config)),
    ];
    if run.config().train.scaffold {
        records.push(("control".to_owned(), from_tensors(&run.state().control)));
    }
    if !g.residual.is_empty() {
        records.push(("residual".to_owned(), from_tensors(&g.residual)));
    }
    Content(records)
}

/// Most bytes that an answer to `train` or `train.sum` may have: what the largest of them has, twice over. An update takes at most nine bytes a value
/// (its position and itself; eight from a node of Flower's that computes in double precision), a control variate four more, and beside them go names,
/// heads, signatures and the shares for every other client.
fn room(run: &dyn Coordinated, values: usize) -> u64 {
    let values = run.most_values().max(values as u64);
    let clients = run.count() as u64;
    (32 * values + (4 << 10) * clients + FEW).min(MESSAGE)
}

fn round(
    run: &mut dyn Coordinated,
    link: &dyn Link,
    known: &mut Acquaintance,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Option<RoundRecord>, FederatedError> {
    let patience = Patience::new(run.config(), options);
    let round = run.state().records.len();
    let drawn = run.drawn(round);
    // Those that talked nonsense in an attempt that came to nothing.
    let mut out: BTreeSet<usize> = BTreeSet::new();
    let mut attempts = 0;
    loop {
        let asked: Vec<usize> = drawn.iter().copied().filter(|k| !out.contains(k)).collect();
        let Some(members) = members(run, link, &asked, known, &patience, options, tell)? else {
            return Ok(None);
        };
        let c = run.config();
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
        let goes_on = |absent: &BTreeSet<usize>| patience.over(absent, known);
        let got = if run.config().hides_updates() {
            sum::hidden(run, link, round, &asked, &members, &goes_on, options, tell)?
        } else {
            visible::visible(run, link, round, &asked, &members, &goes_on, options, tell)?
        };
        let (contributions, aggregate, useless) = match got {
            Got::Stopped => return Ok(None),
            Got::Again { absent, useless } => {
                attempts += usize::from(absent.is_empty());
                if attempts == ATTEMPTS {
                    return Err(nothing(run, round, &asked, &useless));
                }
                let absent: Vec<usize> = absent.into_iter().collect();
                if !absent.is_empty() && patience.gone() {
                    return Err(silent(run, round, &asked, &absent, &patience));
                }
                if !absent.is_empty() && tell(patience.event(&absent)).is_break() {
                    return Ok(None);
                }
                // With noise all that were drawn are needed; else the next attempt does without them, if enough are left.
                let left = asked.len() - useless.len();
                if run.config().noise().is_none() && left >= run.config().least(drawn.len()) {
                    out.extend(useless);
                }
                std::thread::sleep(options.pause);
                continue;
            }
            Got::All {
                contributions,
                aggregate,
                useless,
            } => (contributions, aggregate, useless),
        };
        out.extend(useless);
        let missing = |k: &usize| contributions.iter().all(|c| c.client != *k);
        let (failed, late): (Vec<usize>, Vec<usize>) = (drawn.iter().copied())
            .filter(missing)
            .partition(|k| out.contains(k));
        if !late.is_empty() && tell(RemoteEvent::Late(&late)).is_break() {
            return Ok(None);
        }
        if patience.deadline.is_none() {
            known.silent.retain(missing);
            known.silent.extend(&late);
        }
        let mut there = members;
        there.nodes.retain(|k, _| !known.silent.contains(k));
        let measure = |run: &dyn Coordinated| evaluated(run, link, round, &there, options, tell);
        let began = patience.began;
        let mut record = run.finish_round(round, &contributions, aggregate, began, &measure)?;
        record.late = late;
        record.failed = failed;
        return Ok(Some(record));
    }
}

/// All have answered, again and again, and it does not make a round.
fn nothing(
    run: &dyn Coordinated,
    round: usize,
    asked: &[usize],
    useless: &BTreeSet<usize>,
) -> FederatedError {
    let useless: Vec<usize> = useless.iter().copied().collect();
    let needed = needed(run, asked);
    FederatedError::format(
        format!("round {}", round + 1),
        format!(
            "of the clients {asked:?} answers were expected from {needed}; all have answered {ATTEMPTS} times, and what {useless:?} sent is of no use"
        ),
        "the warnings before say why: mend these nodes or take the clients out of the configuration, then go on with the same command",
    )
}

/// These have not answered for so long, and without them there is no round.
fn silent(
    run: &dyn Coordinated,
    round: usize,
    asked: &[usize],
    absent: &[usize],
    patience: &Patience,
) -> FederatedError {
    let needed = needed(run, asked);
    FederatedError::format(
        format!("round {}", round + 1),
        format!(
            "of the clients {asked:?} answers were expected from {needed}; {absent:?} have not answered for {} s",
            patience.began.elapsed().as_secs()
        ),
        "start their nodes again, then go on with the same command; --silence S waits longer, and with `clock.deadline` in the configuration of a new run its rounds go on without those that are late, where enough are in time",
    )
}

/// From how many clients a round needs answers, in words.
fn needed(run: &dyn Coordinated, asked: &[usize]) -> String {
    match run.config().noise() {
        Some(_) => "all of them, for the noise of each is needed".to_owned(),
        None => format!("at least {}", run.config().least(asked.len())),
    }
}

/// Whether a round goes on without these clients, that have not answered.
type GoesOn<'a> = &'a dyn Fn(&BTreeSet<usize>) -> bool;

enum Got {
    Stopped,
    /// Too few contributions: who has not answered, and whose answers are none.
    Again {
        absent: BTreeSet<usize>,
        useless: BTreeSet<usize>,
    },
    All {
        contributions: Vec<Contribution>,
        aggregate: Aggregate,
        useless: BTreeSet<usize>,
    },
}

/// What clients said.
struct Replies {
    /// Answers that have content, ascending by client.
    good: Vec<(usize, Content)>,
    /// Clients whose answer has none.
    failed: BTreeSet<usize>,
    /// Clients that have not answered.
    absent: BTreeSet<usize>,
}

/// Asks clients; those that fail are told of.
#[allow(clippy::too_many_arguments)]
fn ask(
    link: &dyn Link,
    kind: &str,
    round: usize,
    contents: Vec<(usize, Content)>,
    members: &Members,
    options: &RemoteOptions,
    most: u64,
    tell: Tell<'_>,
) -> Result<Replies, FederatedError> {
    let client_of: BTreeMap<u64, usize> = members.nodes.iter().map(|(&k, &n)| (n, k)).collect();
    let asked: BTreeSet<usize> = contents.iter().map(|(k, _)| *k).collect();
    let contents = contents
        .into_iter()
        .filter_map(|(k, c)| Some((*members.nodes.get(&k)?, c)))
        .collect();
    let go_on = |owing: &[u64]| {
        let clients: Vec<usize> = owing.iter().map(|n| client_of[n]).collect();
        tell(RemoteEvent::Waiting(&clients)).is_continue()
    };
    let group = format!("{}", round + 1);
    let answers = link.ask(kind, &group, contents, options.deadline, most, &go_on)?;
    let mut replies = Replies {
        good: Vec::new(),
        failed: BTreeSet::new(),
        absent: asked,
    };
    for Answer { node, content } in answers {
        let client = client_of[&node];
        match content {
            Ok(c) => {
                replies.absent.remove(&client);
                replies.good.push((client, c));
            }
            Err(problem) => {
                failed(tell, node, Some(client), &problem);
                if !problem.away() {
                    replies.absent.remove(&client);
                    replies.failed.insert(client);
                }
            }
        }
    }
    replies.good.sort_by_key(|o| o.0);
    Ok(replies)
}

/// A positive number of examples, small enough that sums of products with it stay finite.
fn weight(content: &Content) -> Option<f64> {
    content
        .number("num-examples")
        .filter(|w| *w > 0.0 && *w <= 1e15)
}

/// The training loss that a client reports; 0 for one that cannot be believed, since nothing depends on it.
fn train_loss(content: &Content) -> f64 {
    let said = content.number("train-loss");
    said.filter(|l| believable(*l)).unwrap_or(0.0)
}

/// Perplexity of the shared state over the text of all clients that are there; 0 where nobody measures.
fn evaluated(
    run: &dyn Coordinated,
    link: &dyn Link,
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
    let replies = ask(
        link, "evaluate", round, contents, members, options, FEW, tell,
    )?;
    let (mut loss, mut tokens) = (0.0, 0.0);
    for (k, a) in &replies.good {
        match (a.number("loss").filter(|l| believable(*l)), weight(a)) {
            (Some(l), Some(w)) => {
                loss += l * w;
                tokens += w;
            }
            _ => failed(
                tell,
                members.nodes[k],
                Some(*k),
                "its loss or its number of tokens is no such number",
            ),
        }
    }
    Ok(if tokens > 0.0 {
        (loss / tokens).exp()
    } else {
        0.0
    })
}

/// Whether this can be a loss.
fn believable(loss: f64) -> bool {
    (0.0..=MOST_LOSS).contains(&loss)
}
