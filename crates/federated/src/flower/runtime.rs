//! A coordinator's side of a SuperLink (a ServerApp), and a client task's side of a stock SuperNode (a ClientApp): the Runtime service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::fleet::{fetch, run_of, stored, stranger};
use super::heartbeat::beside;
use super::http::{Address, Service};
use super::limits::MESSAGE;
use super::link::{Answer, Link, POLL, Problem};
use super::object::{MALFORMED, Message, malformed};
use super::proto::{
    AcquireTaskRequest, AcquireTaskResponse, ConfirmRequest, Context, Error, GetNodesResponse,
    HeartbeatResponse, Metadata, Node, NodeInfo, Nothing, PullAppMessagesRequest,
    PullAppMessagesResponse, PullObjectRequest, PullObjectResponse, PullTaskInputResponse,
    PushAppMessagesResponse, PushMessagesRequest, PushObjectRequest, PushTaskOutputRequest,
};
use super::record::Content;
use crate::FederatedError;

/// The SuperLink's own number.
const SUPERLINK: u64 = 1;
/// Pause between heartbeats of a task.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// A task of a run.
#[derive(Debug)]
pub struct Runtime {
    service: Service,
    node: u64,
    run: u64,
    context: Option<Context>,
}

impl Runtime {
    /// Takes the next task of this kind (`flwr-serverapp` or `flwr-clientapp`) and its input; `None` when none is there within `wait`. `tell` is
    /// called while waiting and may stop it.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    pub fn acquire(
        address: &Address,
        kind: &str,
        wait: Duration,
        tell: &dyn Fn() -> bool,
    ) -> Result<Option<Self>, FederatedError> {
        let mut service = Service::new(address, "v1/runtime")?;
        let began = Instant::now();
        let request = AcquireTaskRequest {
            supported_task_types: vec![kind.to_owned()],
        };
        let task: AcquireTaskResponse = loop {
            let answer: AcquireTaskResponse =
                service.call("acquire-task", &request, &|| Ok(Vec::new()))?;
            if answer.task.is_some() {
                break answer;
            }
            if began.elapsed() > wait || !tell() {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        };
        service.set_header("flwr-task-token", task.token);
        let input: PullTaskInputResponse =
            service.call("pull-task-input", &Nothing {}, &|| Ok(Vec::new()))?;
        let run = task.task.map_or(0, |t| t.run_id);
        let node = match &input.context {
            Some(c) if kind == "flwr-clientapp" => c.node_id,
            _ => SUPERLINK,
        };
        Ok(Some(Self {
            service,
            node,
            run,
            context: input.context,
        }))
    }

    fn call<A: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, FederatedError> {
        self.service.call(method, request, &|| Ok(Vec::new()))
    }

    /// The run.
    pub fn run(&self) -> u64 {
        self.run
    }

    /// The node for which a client task works.
    pub fn node(&self) -> u64 {
        self.node
    }

    fn me(&self) -> Option<Node> {
        Some(Node { node_id: self.node })
    }

    /// Says that the task is being worked on, every few seconds while `work` lasts: a task that is silent for long is taken for dead.
    pub fn alive<T>(&self, work: impl FnOnce() -> T) -> T {
        let beat = || {
            // One that is lost is made good by the next; whether the task still lives, the next call says.
            let _ = self.call::<HeartbeatResponse>("send-task-heartbeat", &Nothing {});
        };
        beside(HEARTBEAT, beat, work)
    }

    /// Sends messages.
    ///
    /// # Errors
    /// [`FederatedError::Remote`], also when a message is refused; [`FederatedError::TooLarge`] for one above [`MESSAGE`], of which nothing is sent.
    pub fn push(&self, messages: &[Message]) -> Result<Vec<String>, FederatedError> {
        let mut request = PushMessagesRequest::default();
        let mut objects = BTreeMap::new();
        for m in messages {
            let d = m.deflate(MESSAGE)?;
            request.messages.push(d.envelope);
            request.trees.push(d.tree);
            objects.extend(d.objects);
        }
        let answer: PushAppMessagesResponse = self.call("push-messages", &request)?;
        if answer.message_ids.len() != messages.len()
            || answer.message_ids.iter().any(String::is_empty)
        {
            return Err(FederatedError::Remote {
                call: "push-messages".into(),
                status: 200,
                problem: "the SuperLink refused a message".into(),
            });
        }
        for id in answer.objects_to_push {
            let content = objects.get(&id).cloned().ok_or_else(|| stranger(&id))?;
            let request = PushObjectRequest {
                node: self.me(),
                run_id: self.run,
                object_id: id,
                content,
                session_id: answer.session_id.clone(),
            };
            stored(self.call("push-object", &request)?)?;
        }
        Ok(answer.message_ids)
    }

    /// Answers to these messages that have come, each of at most `most` bytes; without messages, what there is for this task. Of several answers to one
    /// message the first is fetched only.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    pub fn pull(&self, ids: &[String], most: u64) -> Result<Vec<Message>, FederatedError> {
        let request = PullAppMessagesRequest {
            message_ids: ids.to_vec(),
        };
        let answer: PullAppMessagesResponse = self.call("pull-messages", &request)?;
        let mut out = Vec::new();
        let mut seen = BTreeSet::new();
        for (envelope, tree) in answer.messages.iter().zip(&answer.trees) {
            let replies = envelope.metadata.as_ref().map(|m| &m.reply_to_message_id);
            if !ids.is_empty() && replies.is_some_and(|id| !seen.insert(id.clone())) {
                continue;
            }
            let objects = fetch(tree, most, |object_id, most| {
                let request = PullObjectRequest {
                    node: self.me(),
                    run_id: run_of(envelope),
                    object_id: object_id.to_owned(),
                };
                let nothing = || Ok(Vec::new());
                self.service.call_within::<PullObjectResponse>(
                    "pull-object",
                    &request,
                    &nothing,
                    most,
                )
            });
            match objects.and_then(|o| Message::inflate(&tree.object_id, &o, most)) {
                Ok(message) => out.push(message),
                // What a node made of its answer is that node's failure, not the run's.
                Err(
                    e @ (FederatedError::Format { .. }
                    | FederatedError::TooLarge { .. }
                    | FederatedError::Remote { status: 200, .. }),
                ) => out.extend(malformed(envelope, &tree.object_id, &e)),
                Err(e) => return Err(e),
            }
            let request = ConfirmRequest {
                node: self.me(),
                run_id: self.run,
                message_object_id: tree.object_id.clone(),
            };
            self.call::<Nothing>("confirm-message-received", &request)?;
        }
        Ok(out)
    }

    /// Ends the task.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    pub fn finish(
        &self,
        outcome: Result<(), &str>,
        seconds: Option<f64>,
    ) -> Result<(), FederatedError> {
        let request = PushTaskOutputRequest {
            context: self.context.clone(),
            sub_status: if outcome.is_ok() {
                "completed"
            } else {
                "failed"
            }
            .to_owned(),
            details: outcome.err().unwrap_or_default().to_owned(),
            clientapp_runtime: seconds,
        };
        self.call::<Nothing>("push-task-output", &request)?;
        Ok(())
    }
}

impl Link for Runtime {
    fn nodes(&self) -> Result<Vec<NodeInfo>, FederatedError> {
        let mut nodes = self
            .call::<GetNodesResponse>("get-nodes", &Nothing {})?
            .nodes;
        nodes.sort_by_key(|n| n.node_id);
        Ok(nodes)
    }

    fn send(
        &self,
        kind: &str,
        group: &str,
        node: u64,
        content: Content,
        patience: Duration,
    ) -> Result<String, FederatedError> {
        let message = Message {
            metadata: Metadata {
                run_id: self.run,
                src_node_id: SUPERLINK,
                dst_node_id: node,
                group_id: group.to_owned(),
                ttl: patience.as_secs_f64() + 60.0,
                message_type: kind.to_owned(),
                created_at: unix_time(),
                ..Metadata::default()
            },
            body: Ok(content),
        };
        // One at a time: a large model in many messages must not be one large request.
        let mut ids = self.push(&[message])?;
        ids.pop().ok_or_else(|| FederatedError::Remote {
            call: "push-messages".into(),
            status: 200,
            problem: "the SuperLink gave the message no number".into(),
        })
    }

    fn answers(
        &self,
        open: &BTreeMap<String, u64>,
        most: u64,
    ) -> Result<Vec<(String, Answer)>, FederatedError> {
        let ids: Vec<String> = open.keys().cloned().collect();
        let mut out = Vec::new();
        let messages = match self.pull(&ids, most) {
            // One of them names more objects than a list may have: it must not keep the others back.
            Err(FederatedError::TooLarge { .. }) => {
                let mut messages = Vec::new();
                for (id, &node) in open {
                    match self.pull(std::slice::from_ref(id), most) {
                        Ok(more) => messages.extend(more),
                        Err(e @ FederatedError::TooLarge { .. }) => {
                            let content = Err(Problem {
                                code: MALFORMED,
                                reason: e.to_string(),
                            });
                            out.push((id.clone(), Answer { node, content }));
                        }
                        Err(e) => return Err(e),
                    }
                }
                messages
            }
            other => other?,
        };
        for m in messages {
            let id = m.metadata.reply_to_message_id;
            if let Some(&node) = open.get(&id) {
                let content = m.body.map_err(|e| Problem {
                    code: e.code,
                    reason: e.reason,
                });
                out.push((id, Answer { node, content }));
            }
        }
        Ok(out)
    }
}

/// Seconds since 1970.
pub fn unix_time() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// The answer to a message, with what remains of its time to live.
pub fn reply(to: &Message, node: u64, body: Result<Content, Error>) -> Message {
    let now = unix_time();
    Message {
        metadata: Metadata {
            run_id: to.metadata.run_id,
            message_id: String::new(),
            src_node_id: node,
            dst_node_id: to.metadata.src_node_id,
            reply_to_message_id: to.metadata.message_id.clone(),
            group_id: to.metadata.group_id.clone(),
            ttl: (to.metadata.created_at + to.metadata.ttl - now).max(1.0),
            message_type: to.metadata.message_type.clone(),
            created_at: now,
            src_task_id: None,
            dst_task_id: None,
        },
        body,
    }
}
