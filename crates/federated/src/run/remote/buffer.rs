//! A coordinator without rounds whose clients are nodes of a Flower federation (FedBuff; see [`crate::clock`]).
//!
//! A node that has answered is given the shared state of that moment and begins again at once; whenever the buffer is full the coordinator takes a step.
//! Who is fast is real here, so that such a run is not repeated bit for bit. A node that fails, or stays away for longer than the deadline of an answer, rests
//! until the next step; when no update comes for the longest silence, the run ends. What was in the buffer or under way when a coordinator died is asked for again, as the same turn of its client.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::visible::read_from;
use super::{Acquaintance, Members, Patience, RemoteEvent, RemoteOptions, Tell};
use super::{evaluated, failed, members, room, shared, silent};
use crate::flower::link::{Answer, Link, RESTARTS};
use crate::flower::proto::Scalar;
use crate::lora::start_of;
use crate::random::{below, stream};
use crate::run::client::Contribution;
use crate::run::coordinated::Coordinated;
use crate::run::{RoundRecord, Run};
use crate::{FederatedError, NamedTensors};

/// Pause between looking for answers.
const POLL: Duration = Duration::from_millis(100);

/// A client at work.
struct Work {
    client: usize,
    node: u64,
    /// Updates that it had sent before.
    turn: usize,
    /// Steps that had been taken when it began, and the state that it was given.
    version: usize,
    start: NamedTensors,
    since: Instant,
}

/// Who does what.
struct Office {
    /// By the number of the question.
    at_work: BTreeMap<String, Work>,
    /// Clients that failed since the last step.
    resting: BTreeSet<usize>,
    /// Updates that each client has sent.
    turns: Vec<usize>,
    /// What has arrived, with the version that it began from.
    buffer: Vec<(Contribution, usize)>,
    /// When the nodes connected, and when this was looked at.
    seen: BTreeMap<u64, String>,
    looked: Instant,
}

impl Office {
    fn new(run: &Run) -> Self {
        let mut turns = vec![0; run.clients.len()];
        for k in run.state.records.iter().flat_map(|r| &r.clients) {
            if let Some(turn) = turns.get_mut(*k) {
                *turn += 1;
            }
        }
        Self {
            at_work: BTreeMap::new(),
            resting: BTreeSet::new(),
            turns,
            buffer: Vec::new(),
            seen: BTreeMap::new(),
            looked: Instant::now(),
        }
    }

    /// The next client to begin; `None` when as many are at work as may be, or nobody is idle.
    fn next(&self, run: &Run, members: &Members) -> Option<(usize, u64)> {
        let most = match run.config.clients_per_round {
            0 => usize::MAX,
            n => n,
        };
        if self.at_work.len() >= most {
            return None;
        }
        let idle: Vec<(usize, u64)> = members
            .nodes
            .iter()
            .map(|(&k, &node)| (k, node))
            .filter(|(k, _)| {
                !self.resting.contains(k) && self.at_work.values().all(|w| w.client != *k)
            })
            .collect();
        let begun = self.turns.iter().sum::<usize>() + self.at_work.len();
        let mut rng = stream(run.config.seed, "next at work", &[begun as u64]);
        (!idle.is_empty()).then(|| idle[below(&mut rng, idle.len())])
    }

    /// Gives work to all that can have some.
    fn fill(
        &mut self,
        run: &Run,
        link: &dyn Link,
        members: &Members,
        options: &RemoteOptions,
    ) -> Result<(), FederatedError> {
        while let Some((client, node)) = self.next(run, members) {
            let (version, turn) = (run.state.records.len(), self.turns[client]);
            let rank = run.config.method.rank_of(client);
            let global = &run.state.global;
            let start = start_of(&run.tuner, run.config.combine, global, rank, version as u64)?;
            let more = vec![("turn".to_owned(), Scalar::Sint(turn as i64))];
            let content = shared(run, version, true, more);
            let group = format!("{}", version + 1);
            let id = link.send("train", &group, node, content, options.deadline)?;
            let work = Work {
                client,
                node,
                turn,
                version,
                start,
                since: Instant::now(),
            };
            self.at_work.insert(id, work);
        }
        Ok(())
    }

    /// Takes an answer; whether it is an update, which lies in the buffer then.
    fn take(&mut self, run: &Run, id: &str, answer: Answer, tell: Tell<'_>) -> bool {
        let Some(work) = self.at_work.remove(id) else {
            return false;
        };
        let client = work.client;
        let update = answer.content.map_err(|e| e.to_string()).and_then(|c| {
            read_from(run, work.start, work.turn, client, &c).map_err(|e| e.to_string())
        });
        match update {
            Ok(c) => {
                self.turns[client] += 1;
                self.buffer.push((c, work.version));
                true
            }
            Err(problem) => {
                failed(tell, answer.node, Some(client), problem);
                self.resting.insert(client);
                false
            }
        }
    }

    /// Takes back what nodes had that were started again: they know nothing of it.
    fn take_back(&mut self, link: &dyn Link) -> Result<(), FederatedError> {
        if self.looked.elapsed() > RESTARTS {
            self.looked = Instant::now();
            let restarted = link.restarted(&mut self.seen)?;
            self.at_work.retain(|_, w| !restarted.contains(&w.node));
        }
        Ok(())
    }

    /// Gives up on those that have not answered for so long.
    fn give_up(&mut self, after: Duration, tell: Tell<'_>) {
        let resting = &mut self.resting;
        self.at_work.retain(|_, w| {
            let waiting = w.since.elapsed() < after;
            if !waiting {
                failed(tell, w.node, Some(w.client), "it has not answered in time");
                resting.insert(w.client);
            }
            waiting
        });
    }
}

/// Runs the steps of a configuration with a buffer of `size` updates; `false` if `tell` stopped it.
///
/// # Errors
/// [`FederatedError::Remote`], and whatever goes wrong in aggregation or writing.
pub(super) fn steps(
    run: &mut Run,
    link: &dyn Link,
    size: usize,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<bool, FederatedError> {
    super::begin(run)?;
    let all: Vec<usize> = (0..run.clients.len()).collect();
    let known = &mut Acquaintance::default();
    let mut patience = Patience::new(&run.config, options);
    let Some(members) = members(run, link, &all, known, &patience, options, tell)? else {
        return Ok(false);
    };
    if members.stock {
        return Err(FederatedError::setting(
            "nodes",
            "nodes of this software, for clock.buffer",
            "Flower's own",
            "start `tacit federate node` on the clients' machines, or train in rounds",
        ));
    }
    let mut office = Office::new(run);
    link.restarted(&mut office.seen)?;
    patience = Patience::new(&run.config, options);
    let mut began = Instant::now();
    while run.state.records.len() < run.config.rounds {
        office.fill(run, link, &members, options)?;
        let open = office
            .at_work
            .iter()
            .map(|(id, w)| (id.clone(), w.node))
            .collect();
        for (id, answer) in link.answers(&open, room(run, 0))? {
            if office.take(run, &id, answer, tell) {
                patience = Patience::new(&run.config, options);
            }
            if office.buffer.len() < size {
                continue;
            }
            let buffer = std::mem::take(&mut office.buffer);
            let record = step(run, link, buffer, began, &members, options, tell)?;
            began = Instant::now();
            office.resting.clear();
            let go_on = tell(RemoteEvent::Round(&record)).is_continue();
            run.keep(record)?;
            if !go_on {
                return Ok(false);
            }
            if run.state.records.len() == run.config.rounds {
                return Ok(true);
            }
        }
        office.take_back(link)?;
        office.give_up(options.deadline, tell);
        if office.at_work.is_empty() {
            // All have failed: after a pause they are asked again.
            office.resting.clear();
            std::thread::sleep(10 * POLL);
        }
        if patience.gone() {
            let absent: Vec<usize> = (all.iter().copied())
                .filter(|k| office.buffer.iter().all(|(c, _)| c.client != *k))
                .collect();
            return Err(silent(
                run,
                run.state.records.len(),
                &all,
                &absent,
                &patience,
            ));
        }
        if tell(RemoteEvent::Waiting(&[])).is_break() {
            return Ok(false);
        }
        std::thread::sleep(POLL);
    }
    Ok(true)
}

/// One step of the coordinator along what is in its buffer. Only the last is measured: to measure, clients would have to stop working.
fn step(
    run: &mut Run,
    link: &dyn Link,
    buffer: Vec<(Contribution, usize)>,
    began: Instant,
    members: &Members,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<RoundRecord, FederatedError> {
    let step = run.state.records.len();
    let staleness: Vec<usize> = buffer.iter().map(|(_, version)| step - version).collect();
    let contributions: Vec<Contribution> = buffer.into_iter().map(|b| b.0).collect();
    let aggregate = run.buffer_mean(step, &contributions, &staleness)?;
    let last = step + 1 == run.config.rounds;
    let measure = |run: &Run| {
        if last {
            evaluated(run, link, step, members, options, tell)
        } else {
            Ok(0.0)
        }
    };
    let mut record = run.finish_round(step, &contributions, aggregate, began, &measure)?;
    record.staleness = staleness;
    Ok(record)
}
