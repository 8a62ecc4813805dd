//! A node's side of a SuperLink: the Fleet service.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use super::http::{Address, Service};
use super::identity::NodeKey;
use super::limits::{MESSAGE, OBJECT, Room};
use super::object::{Deflated, Message, hashes, malformed};
use super::proto::{
    ActivateNodeRequest, ActivateNodeResponse, ConfirmRequest, Envelope, HeartbeatRequest,
    HeartbeatResponse, Node, NodeIdRequest, Nothing, ObjectTree, PullMessagesRequest,
    PullMessagesResponse, PullObjectRequest, PullObjectResponse, PushMessagesRequest,
    PushMessagesResponse, PushObjectRequest, PushObjectResponse, RegisterNodeRequest,
    RegisterNodeResponse,
};
use crate::FederatedError;
use crate::tensors::write_atomically;

/// Seconds between heartbeats that a node promises.
pub const HEARTBEAT: f64 = 30.0;
/// For how long an object that is announced may be missing.
const OBJECT_WAIT: Duration = Duration::from_secs(60);

/// A node's connection.
#[derive(Debug)]
pub struct Fleet {
    service: Service,
    key: NodeKey,
    node: u64,
    registered: bool,
}

impl Fleet {
    /// Connects and activates the node. With `register` it announces its own key first (a SuperLink without node authentication); without, the
    /// operator has registered it. `memory` keeps the node's number: a node that was killed counts as online for a while, and is signed off first.
    ///
    /// # Errors
    /// [`FederatedError::Remote`] when the SuperLink refuses or is not there, [`FederatedError::Io`] for `memory`.
    pub fn connect(
        address: &Address,
        key: NodeKey,
        register: bool,
        memory: &Path,
    ) -> Result<Self, FederatedError> {
        let mut fleet = Self {
            service: Service::new(address, "v1/fleet")?,
            key,
            node: 0,
            registered: register,
        };
        let public_key = fleet.key.public_pem().as_bytes().to_vec();
        if register {
            let request = RegisterNodeRequest {
                public_key: public_key.clone(),
            };
            match fleet.call::<RegisterNodeResponse>("register-node", &request) {
                // After a crash the key is registered already.
                Ok(_)
                | Err(FederatedError::Remote {
                    status: 409 | 412, ..
                }) => {}
                Err(e) => return Err(e),
            }
        }
        let last = std::fs::read_to_string(memory).ok();
        if let Some(node_id) = last.and_then(|t| t.trim().parse().ok()) {
            // Any other refusal: it was offline already, or the SuperLink is another one.
            if let Err(e @ FederatedError::Remote { status: 0, .. }) =
                fleet.call::<Nothing>("deactivate-node", &NodeIdRequest { node_id })
            {
                return Err(e);
            }
        }
        let request = ActivateNodeRequest {
            public_key,
            heartbeat_interval: HEARTBEAT,
        };
        fleet.node = fleet
            .call::<ActivateNodeResponse>("activate-node", &request)?
            .node_id;
        write_atomically(memory, fleet.node.to_string().as_bytes())?;
        Ok(fleet)
    }

    fn call<A: prost::Message + Default>(
        &self,
        method: &str,
        request: &impl prost::Message,
    ) -> Result<A, FederatedError> {
        self.service
            .call(method, request, &|| Ok(self.key.headers()?.into()))
    }

    /// The node's number.
    pub fn node(&self) -> u64 {
        self.node
    }

    fn me(&self) -> Option<Node> {
        Some(Node { node_id: self.node })
    }

    /// Says that the node is there.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    pub fn heartbeat(&self) -> Result<bool, FederatedError> {
        let request = HeartbeatRequest {
            node: self.me(),
            heartbeat_interval: HEARTBEAT,
        };
        Ok(self
            .call::<HeartbeatResponse>("send-node-heartbeat", &request)?
            .success)
    }

    /// The next message with all its objects, if there is one. One that cannot be read, or is larger than [`MESSAGE`], comes as an error that its
    /// sender can be told.
    ///
    /// # Errors
    /// [`FederatedError::Remote`]; [`FederatedError::Format`] for a message that does not say where it came from.
    pub fn pull(&self) -> Result<Option<Message>, FederatedError> {
        let request = PullMessagesRequest { node: self.me() };
        let answer: PullMessagesResponse = self.call("pull-messages", &request)?;
        let (Some(envelope), Some(tree)) = (answer.messages.first(), answer.trees.first()) else {
            return Ok(None);
        };
        let run = run_of(envelope);
        let objects = fetch(tree, MESSAGE, |object_id, most| {
            let request = PullObjectRequest {
                node: self.me(),
                run_id: run,
                object_id: object_id.to_owned(),
            };
            self.service.call_within(
                "pull-object",
                &request,
                &|| Ok(self.key.headers()?.into()),
                most,
            )
        });
        let message = match objects.and_then(|o| Message::inflate(&tree.object_id, &o, MESSAGE)) {
            Ok(message) => message,
            Err(e @ (FederatedError::Format { .. } | FederatedError::TooLarge { .. })) => {
                malformed(envelope, &tree.object_id, &e).ok_or(e)?
            }
            Err(e) => return Err(e),
        };
        let request = ConfirmRequest {
            node: self.me(),
            run_id: run,
            message_object_id: tree.object_id.clone(),
        };
        self.call::<Nothing>("confirm-message-received", &request)?;
        Ok(Some(message))
    }

    /// Sends an answer: its tree first, then the objects that the SuperLink has not got.
    ///
    /// # Errors
    /// [`FederatedError::Remote`], [`FederatedError::TooLarge`] for an answer above [`MESSAGE`], of which nothing is sent.
    pub fn push(&self, answer: &Message, seconds: f64) -> Result<(), FederatedError> {
        let Deflated {
            envelope,
            tree,
            objects,
        } = answer.deflate(MESSAGE)?;
        let request = PushMessagesRequest {
            node: self.me(),
            messages: vec![envelope],
            trees: vec![tree],
            runtimes: vec![seconds],
        };
        let wanted: PushMessagesResponse = self.call("push-messages", &request)?;
        for id in wanted.objects_to_push {
            let content = objects.get(&id).cloned().ok_or_else(|| stranger(&id))?;
            let request = PushObjectRequest {
                node: self.me(),
                run_id: answer.metadata.run_id,
                object_id: id,
                content,
                session_id: wanted.session_id.clone(),
            };
            stored(self.call::<PushObjectResponse>("push-object", &request)?)?;
        }
        Ok(())
    }

    /// Leaves. A node that registered itself is forgotten.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    pub fn leave(&self) -> Result<(), FederatedError> {
        let request = NodeIdRequest { node_id: self.node };
        self.call::<Nothing>("deactivate-node", &request)?;
        if self.registered {
            self.call::<Nothing>("unregister-node", &request)?;
        }
        Ok(())
    }
}

pub(super) fn run_of(envelope: &Envelope) -> u64 {
    envelope.metadata.as_ref().map_or(0, |m| m.run_id)
}

pub(super) fn stranger(id: &str) -> FederatedError {
    FederatedError::format(
        "upload",
        format!("the SuperLink asks for object {id}, which is not part of the message"),
        "report this",
    )
}

pub(super) fn stored(answer: PushObjectResponse) -> Result<(), FederatedError> {
    if answer.stored {
        return Ok(());
    }
    Err(FederatedError::Remote {
        call: "push-object".into(),
        status: 200,
        problem: "the object was not stored (its upload may have expired)".into(),
    })
}

/// Bytes of an answer beside the object in it.
const FRAME: u64 = 64;

/// All objects of a tree, together at most `limit` bytes; one that is announced but not yet there is waited for. `pull` is told how large an answer
/// may be.
pub(super) fn fetch(
    tree: &ObjectTree,
    limit: u64,
    pull: impl Fn(&str, u64) -> Result<PullObjectResponse, FederatedError>,
) -> Result<BTreeMap<String, Vec<u8>>, FederatedError> {
    let mut objects = BTreeMap::new();
    let mut room = Room::new(limit);
    for id in hashes(tree)? {
        let began = Instant::now();
        loop {
            let answer = pull(&id, OBJECT.min(room.left() + FRAME))?;
            if answer.available {
                room.take((answer.content.len() + id.len()) as u64)?;
                objects.insert(id, answer.content);
                break;
            }
            if !answer.found || began.elapsed() > OBJECT_WAIT {
                return Err(FederatedError::Remote {
                    call: "pull-object".into(),
                    status: 200,
                    problem: format!("object {id} is not there"),
                });
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    Ok(objects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    fn tree(objects: usize) -> ObjectTree {
        let leaf = |i: usize| ObjectTree {
            object_id: format!("{i:064x}"),
            children: Vec::new(),
        };
        ObjectTree {
            object_id: "f".repeat(64),
            children: (0..objects).map(leaf).collect(),
        }
    }

    #[test]
    fn a_flood_of_objects_ends_where_its_room_does() {
        let asked = RefCell::new(Vec::new());
        let pull = |_: &str, most: u64| {
            asked.borrow_mut().push(most);
            Ok(PullObjectResponse {
                found: true,
                available: true,
                content: vec![0; 1000],
            })
        };
        assert_eq!(fetch(&tree(9), 10_640, pull).unwrap().len(), 10);
        // What is left becomes the limit of the next answer, which is refused by its announced length.
        assert_eq!(*asked.borrow().last().unwrap(), 10_640 - 9 * 1064 + FRAME);
        asked.borrow_mut().clear();
        let e = fetch(&tree(5000), 10_640, pull).unwrap_err();
        assert!(matches!(e, FederatedError::TooLarge { .. }), "{e}");
        assert_eq!(asked.borrow().len(), 11);
    }
}
