//! A secure sum between machines: its five steps as messages.

use std::collections::{BTreeMap, BTreeSet};

use super::{GoesOn, Got, Members, RemoteEvent, RemoteOptions, Tell};
use super::{ask, failed, ours, room, shared, train_loss, weight};
use crate::FederatedError;
use crate::flower::link::Link;
use crate::flower::proto::{Scalar, SintList};
use crate::flower::record::{Array, Content, Record};
use crate::protection::ClientId;
use crate::protection::secure_aggregation::{FixedPoint, RoundConfig, Server};
use crate::run::Hidden;
use crate::run::client::Contribution;
use crate::run::coordinated::Coordinated;
use crate::run::party::{SUM, roster};
use crate::run::round::Aggregate;

/// Asks `drawn` for a secure sum of their updates. A client that does not answer, or answers with what is none, has dropped out, as the protocol allows;
/// where too few are left, or a part of the noise is missing, there is no sum.
#[allow(clippy::too_many_arguments)]
pub(super) fn hidden(
    run: &dyn Coordinated,
    link: &dyn Link,
    round: usize,
    drawn: &[usize],
    members: &Members,
    goes_on: GoesOn<'_>,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Got, FederatedError> {
    let bits = run.config().secure_bits().unwrap_or(24);
    let roster = roster(run.config(), drawn)?;
    let like = run.state().global.adapter.clone();
    let (dimension, epsilon) = match run.hidden() {
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
    let mut useless: BTreeSet<usize> = BTreeSet::new();
    let most = room(run, dimension);
    for step in 0..5 {
        let replies = ask(link, kind, round, contents, members, options, most, tell)?;
        if tell(RemoteEvent::Waiting(&[])).is_break() {
            return Ok(Got::Stopped);
        }
        let absent = replies.absent;
        useless.extend(&replies.failed);
        // Before anything is masked, a client that is missing can simply be waited for; after that the protocol goes on if enough are there.
        if step == 0 && !goes_on(&absent) {
            return Ok(Got::Again { absent, useless });
        }
        for (k, answer) in &replies.good {
            let bytes = answer.bytes("sum", SUM).unwrap_or_default();
            up += bytes.len() as u64;
            if let Err(e) = server.receive(bytes) {
                failed(tell, members.nodes[k], Some(*k), e);
                useless.insert(*k);
                continue;
            }
            if step == 0 {
                let c = Contribution {
                    client: *k,
                    loss: train_loss(answer),
                    weight: weight(answer).unwrap_or(0.0),
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
            Err(_) => return Ok(Got::Again { absent, useless }),
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
        let absent = BTreeSet::new();
        return Ok(Got::Again { absent, useless });
    };
    let n = sum.survivors.len();
    let mut average = like.clone();
    match run.hidden() {
        // Noise of all was calibrated for; a lost client's part would be missing.
        Hidden::Noise(_) if n < drawn.len() => {
            let there = |k: &usize| sum.survivors.contains(&(*k as ClientId));
            let absent = (drawn.iter().copied())
                .filter(|k| !there(k) && !useless.contains(k))
                .collect();
            return Ok(Got::Again { absent, useless });
        }
        Hidden::Noise(p) => {
            average.axpy(
                run.noise_rate(round, p.rate()),
                &p.decode(&sum.values, &like)?,
            )?;
        }
        _ => {
            let bound = run.config().clip().unwrap_or(1.0);
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
        residual: run.state().global.residual.clone(),
        bytes_up: up,
        bytes_down: down,
        error: None,
        relative_error: None,
        epsilon,
    };
    Ok(Got::All {
        contributions: contributions.into_values().collect(),
        aggregate,
        useless,
    })
}

fn message(bytes: &[u8]) -> Record {
    Record::Arrays(vec![("message".to_owned(), Array::from_bytes(SUM, bytes))])
}
