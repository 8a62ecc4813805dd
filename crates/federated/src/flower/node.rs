//! A node's life: it takes messages, lets its [`Party`] answer them, and goes on until it is told to stop.

use std::path::Path;
use std::time::{Duration, Instant};

use super::fleet::Fleet;
use super::heartbeat::beside;
use super::http::Address;
use super::identity::NodeKey;
use super::limits::MESSAGE;
use super::object::Message;
use super::proto::Error;
use super::runtime::{Runtime, reply};
use crate::FederatedError;
use crate::run::Party;

/// Pause between looking for messages.
const POLL: Duration = Duration::from_millis(200);
/// Pause between heartbeats.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Flower's code of an error that the client's own work raised.
const CLIENT_ERROR: i64 = 2;

/// What a node tells while it works.
#[derive(Clone, Debug)]
pub enum NodeEvent {
    /// It is connected, under this number.
    Connected(u64),
    /// A message of this type was answered.
    Answered(String),
    /// Something went wrong that is not its end.
    Trouble(String),
}

/// Who watches a node: `tell` hears of events, `go_on` ends it by saying no.
#[derive(Clone, Copy)]
pub struct Watch<'w> {
    /// Hears of events.
    pub tell: &'w (dyn Fn(NodeEvent) + Sync),
    /// Says no to end the node.
    pub go_on: &'w (dyn Fn() -> bool + Sync),
}

/// The answer to a message; what goes wrong is told to the coordinator and is not the node's end.
fn answer(party: &mut Party, message: &Message, node: u64, watch: Watch<'_>) -> Message {
    let kind = message.metadata.message_type.clone();
    let body = match &message.body {
        Ok(content) => party.answer(&kind, content).map_err(|e| {
            (watch.tell)(NodeEvent::Trouble(format!("{kind}: {e}")));
            Error {
                code: CLIENT_ERROR,
                reason: e.to_string(),
            }
        }),
        Err(e) => Err(e.clone()),
    };
    (watch.tell)(NodeEvent::Answered(kind));
    reply(message, node, body)
}

/// Sends an answer, or in place of one that is too large the reason why there is none, so that nobody waits for it.
fn or_say_why(
    to: &Message,
    answer: Message,
    node: u64,
    push: impl Fn(&Message) -> Result<(), FederatedError>,
) -> Result<(), FederatedError> {
    match push(&answer) {
        Err(e @ FederatedError::TooLarge { .. }) => {
            drop(answer);
            let why = Error {
                code: CLIENT_ERROR,
                reason: e.to_string(),
            };
            push(&reply(to, node, Err(why)))?;
            Err(e)
        }
        sent => sent,
    }
}

/// Works for a SuperLink. With `register` the node announces its key itself; the key is made if the file is not there.
///
/// # Errors
/// [`FederatedError::Remote`] when the SuperLink refuses the node or stays away longer than the address's patience.
pub fn on_superlink(
    party: &mut Party,
    address: &Address,
    key_file: &Path,
    register: bool,
    watch: Watch<'_>,
) -> Result<(), FederatedError> {
    // A SuperLink that was restarted has forgotten its nodes: connect again.
    while (watch.go_on)() {
        let memory = key_file.with_extension("node");
        let fleet = Fleet::connect(address, NodeKey::from_file(key_file)?, register, &memory)?;
        (watch.tell)(NodeEvent::Connected(fleet.node()));
        match serve(party, &fleet, watch) {
            Ok(()) => return fleet.leave(),
            Err(
                e @ FederatedError::Remote {
                    status: 401 | 404, ..
                },
            ) => (watch.tell)(NodeEvent::Trouble(format!("{e}; connecting again"))),
            Err(e) => return Err(e),
        }
        std::thread::sleep(POLL);
    }
    Ok(())
}

/// Takes messages and answers them; heartbeats go on while it works.
fn serve(party: &mut Party, fleet: &Fleet, watch: Watch<'_>) -> Result<(), FederatedError> {
    let beat = || {
        if let Err(e) = fleet.heartbeat() {
            (watch.tell)(NodeEvent::Trouble(format!("heartbeat: {e}")));
        }
    };
    beside(HEARTBEAT, beat, || messages(party, fleet, watch))
}

fn messages(party: &mut Party, fleet: &Fleet, watch: Watch<'_>) -> Result<(), FederatedError> {
    let trouble = |e: &FederatedError| (watch.tell)(NodeEvent::Trouble(e.to_string()));
    while (watch.go_on)() {
        let message = match fleet.pull() {
            Ok(Some(m)) => m,
            Ok(None) => {
                std::thread::sleep(POLL);
                continue;
            }
            // A malformed message, or one of a run that has ended, is not answered; the next may be better.
            Err(
                e @ (FederatedError::Format { .. }
                | FederatedError::Remote {
                    status: 200 | 403 | 409 | 412,
                    ..
                }),
            ) => {
                trouble(&e);
                std::thread::sleep(POLL);
                continue;
            }
            Err(e) => return Err(e),
        };
        let began = Instant::now();
        let answer = answer(party, &message, fleet.node(), watch);
        let seconds = began.elapsed().as_secs_f64();
        let sent = or_say_why(&message, answer, fleet.node(), |a| fleet.push(a, seconds));
        // The run may have ended meanwhile.
        if let Err(e) = sent {
            trouble(&e);
        }
    }
    Ok(())
}

/// Works for a stock SuperNode (`--isolation process`): one task after the other, the model stays in memory.
///
/// # Errors
/// [`FederatedError::Remote`] when the SuperNode stays away longer than the address's patience.
pub fn behind_supernode(
    party: &mut Party,
    address: &Address,
    watch: Watch<'_>,
) -> Result<(), FederatedError> {
    while (watch.go_on)() {
        let wait = Duration::from_secs(3600);
        let Some(task) = Runtime::acquire(address, "flwr-clientapp", wait, &|| (watch.go_on)())?
        else {
            continue;
        };
        (watch.tell)(NodeEvent::Connected(task.node()));
        let began = Instant::now();
        task.alive(|| {
            for message in task.pull(&[], MESSAGE)? {
                let answer = answer(party, &message, task.node(), watch);
                let push = |a: &Message| task.push(std::slice::from_ref(a)).map(drop);
                or_say_why(&message, answer, task.node(), push)?;
            }
            Ok::<_, FederatedError>(())
        })?;
        task.finish(Ok(()), Some(began.elapsed().as_secs_f64()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flower::record::{Array, Content, Record};
    use std::cell::RefCell;

    #[test]
    fn an_answer_that_is_too_large_is_replaced_by_the_reason() {
        let arrays = vec![("a".to_owned(), Array::from_bytes("own", &[0; 5000]))];
        let mut question = Message {
            metadata: Default::default(),
            body: Ok(Content::default()),
        };
        question.metadata.message_id = "question".into();
        let content = Content(vec![("arrays".into(), Record::Arrays(arrays))]);
        let answer = reply(&question, 7, Ok(content));
        let sent = RefCell::new(Vec::new());
        let push = |limit: u64| {
            let sent = &sent;
            move |m: &Message| {
                sent.borrow_mut().push(m.deflate(limit)?.envelope);
                Ok(())
            }
        };
        or_say_why(&question, answer.clone(), 7, push(6000)).unwrap();
        assert!(sent.borrow()[0].error.is_none());
        sent.borrow_mut().clear();
        assert!(or_say_why(&question, answer, 7, push(4000)).is_err());
        let sent = sent.into_inner();
        let [why] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        let to = why.metadata.as_ref().unwrap();
        assert!(to.reply_to_message_id == "question" && to.src_node_id == 7);
        let reason = &why.error.as_ref().unwrap().reason;
        assert!(reason.contains("at most 4000"), "{reason}");
    }
}
