//! Rounds whose updates the coordinator sees.

use std::collections::BTreeMap;

use super::{GoesOn, Got, Members, RemoteEvent, RemoteOptions, Tell};
use super::{ask, failed, room, shared, train_loss, weight};
use crate::compress::decode;
use crate::flower::link::Link;
use crate::flower::record::{Content, to_tensors};
use crate::run::client::Contribution;
use crate::run::coordinated::Coordinated;
use crate::run::party::{UPDATE, roster};
use crate::run::signer::open_from;
use crate::{FederatedError, NamedTensors};

/// Largest value of an update that is taken for one: products and squares of such values stay finite.
const MOST_VALUE: f32 = 1e9;

/// Refuses values that no training makes and that would not stay finite when they are multiplied.
fn check_size(tensors: &NamedTensors, what: &str) -> Result<(), FederatedError> {
    let largest = (tensors.iter())
        .flat_map(|t| &t.values)
        .fold(0f32, |m, x| if x.abs() <= m { m } else { x.abs() });
    if largest <= MOST_VALUE {
        return Ok(());
    }
    Err(FederatedError::format(
        what,
        format!("it has a value of magnitude {largest:e}, at most {MOST_VALUE:e} is taken for one"),
        "its sender is left out",
    ))
}

/// A contribution whose update is seen.
pub(super) fn read(
    run: &dyn Coordinated,
    round: usize,
    client: usize,
    content: &Content,
) -> Result<Contribution, FederatedError> {
    let start = run.start(client, round)?;
    read_from(run, start, round, client, content)
}

/// The same for a client that began at `start`, in its turn number `turn`.
pub(super) fn read_from(
    run: &dyn Coordinated,
    start: NamedTensors,
    turn: usize,
    client: usize,
    content: &Content,
) -> Result<Contribution, FederatedError> {
    let c = run.config();
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
    check_size(&update, "an update")?;
    let mut control_change = NamedTensors::new();
    if c.train.scaffold {
        control_change = to_tensors(content.arrays("control-change")?, &start)?;
        check_size(&control_change, "a change of a control variate")?;
    }
    let controls = 4 * control_change.count();
    Ok(Contribution {
        client,
        loss: train_loss(content),
        update,
        control_change,
        weight: weight(content).ok_or_else(|| {
            FederatedError::format(
                "an answer",
                "it has no positive number called `num-examples`",
                "its sender is left out",
            )
        })?,
        bytes_up: (bytes + controls) as u64,
        bytes_down: (4 * start.count() + controls) as u64,
        start,
        ..Contribution::default()
    })
}

/// Asks `drawn` for updates that the coordinator sees.
#[allow(clippy::too_many_arguments)]
pub(super) fn visible(
    run: &dyn Coordinated,
    link: &dyn Link,
    round: usize,
    drawn: &[usize],
    members: &Members,
    goes_on: GoesOn<'_>,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Got, FederatedError> {
    let mut got: BTreeMap<usize, Contribution> = BTreeMap::new();
    let content = shared(run, round, !members.stock, Vec::new());
    let contents = drawn.iter().map(|&k| (k, content.clone())).collect();
    let most = room(run, 0);
    let replies = ask(link, "train", round, contents, members, options, most, tell)?;
    let mut useless = replies.failed;
    for (k, answer) in replies.good {
        match read(run, round, k, &answer) {
            Ok(c) => drop(got.insert(k, c)),
            // A malformed answer is the node's failure, not the run's.
            Err(e) => {
                failed(tell, members.nodes[&k], Some(k), e);
                useless.insert(k);
            }
        }
    }
    if tell(RemoteEvent::Waiting(&[])).is_break() {
        return Ok(Got::Stopped);
    }
    let absent = replies.absent;
    if !goes_on(&absent) || got.len() < run.config().least(drawn.len()) {
        return Ok(Got::Again { absent, useless });
    }
    let contributions: Vec<Contribution> = got.into_values().collect();
    let aggregate = run.aggregate(round, &contributions)?;
    Ok(Got::All {
        contributions,
        aggregate,
        useless,
    })
}
