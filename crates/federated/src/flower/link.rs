//! A coordinator's questions to the nodes of a federation, and their answers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::proto::NodeInfo;
use super::record::Content;
use crate::FederatedError;

/// Pause between looking for nodes that have been started again.
pub(crate) const RESTARTS: Duration = Duration::from_secs(2);
/// Pause between looking for answers.
pub(super) const POLL: Duration = Duration::from_millis(100);

/// An answer of a node, or why there is none.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The node.
    pub node: u64,
    /// Records, or why there are none.
    pub content: Result<Content, Problem>,
}

/// Why there is no content in an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// Flower's code, or that of an answer that cannot be read.
    pub code: i64,
    /// In words.
    pub reason: String,
}

impl Problem {
    /// Whether the SuperLink says this in place of a node that is away: the node has not answered, and may yet. Every other problem is the node's answer.
    pub fn away(&self) -> bool {
        AWAY.contains(&self.code)
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "code {}: {}", self.code, self.reason)
    }
}

/// Flower's codes of a message, an answer and a node that are not available.
const AWAY: [i64; 3] = [3, 4, 5];

/// Whether waiting for answers goes on, given the nodes that still owe one.
pub type GoOn<'a> = &'a dyn Fn(&[u64]) -> bool;

/// A way to the nodes of a federation.
pub trait Link {
    /// Nodes that are there, ascending.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    fn nodes(&self) -> Result<Vec<NodeInfo>, FederatedError>;

    /// Sends a node a question, which may be answered within `patience` and a minute more; returns its number.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    fn send(
        &self,
        kind: &str,
        group: &str,
        node: u64,
        content: Content,
        patience: Duration,
    ) -> Result<String, FederatedError>;

    /// Answers that have come to `open` questions (their numbers and nodes), each with its question's number and of at most `most` bytes. One that is
    /// malformed or larger counts as the node's error.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    fn answers(
        &self,
        open: &BTreeMap<String, u64>,
        most: u64,
    ) -> Result<Vec<(String, Answer)>, FederatedError>;

    /// Nodes that have connected again since the last call with the same `seen`; at the first call none.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    fn restarted(&self, seen: &mut BTreeMap<u64, String>) -> Result<BTreeSet<u64>, FederatedError> {
        Ok(connected_again(seen, self.nodes()?))
    }

    /// Sends each node its content and collects the answers, of at most `most` bytes each, until all have come or `deadline` is over; they are looked for
    /// once at least. A node that connects again is asked again. `go_on` is called while waiting and may stop it; then what has come is returned.
    ///
    /// # Errors
    /// [`FederatedError::Remote`].
    fn ask(
        &self,
        kind: &str,
        group: &str,
        contents: Vec<(u64, Content)>,
        deadline: Duration,
        most: u64,
        go_on: GoOn<'_>,
    ) -> Result<Vec<Answer>, FederatedError> {
        let mut seen = BTreeMap::new();
        self.restarted(&mut seen)?;
        let question: BTreeMap<u64, Content> = contents.into_iter().collect();
        let mut open: BTreeMap<String, u64> = BTreeMap::new();
        for (&node, content) in &question {
            let id = self.send(kind, group, node, content.clone(), deadline)?;
            open.insert(id, node);
        }
        let (began, mut looked) = (Instant::now(), Instant::now());
        let mut out = Vec::new();
        while !open.is_empty() {
            for (id, answer) in self.answers(&open, most)? {
                if open.remove(&id).is_some() {
                    out.push(answer);
                }
            }
            let owing: Vec<u64> = open.values().copied().collect();
            if owing.is_empty() || began.elapsed() >= deadline || !go_on(&owing) {
                break;
            }
            if looked.elapsed() > RESTARTS {
                looked = Instant::now();
                // A node that died with a question in its hands does not get it again by itself.
                for node in self.restarted(&mut seen)? {
                    let before = open.len();
                    open.retain(|_, n| *n != node);
                    if let Some(content) = question.get(&node).filter(|_| open.len() < before) {
                        let id = self.send(kind, group, node, content.clone(), deadline)?;
                        open.insert(id, node);
                    }
                }
            }
            std::thread::sleep(POLL.min(deadline));
        }
        out.sort_by_key(|a| a.node);
        Ok(out)
    }
}

/// Nodes whose time of connection is another one than in `seen`, which is brought up to date. One that is seen for the first time is not among them.
fn connected_again(seen: &mut BTreeMap<u64, String>, now: Vec<NodeInfo>) -> BTreeSet<u64> {
    now.into_iter()
        .filter_map(|n| {
            let (node, time) = (n.node_id, n.last_activated_at);
            let before = seen.insert(node, time.clone());
            before.is_some_and(|b| b != time).then_some(node)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_connects_again_is_noticed_once() {
        let at = |node_id: u64, time: &str| NodeInfo {
            node_id,
            last_activated_at: time.to_owned(),
            ..NodeInfo::default()
        };
        let mut seen = BTreeMap::new();
        let mut look = |now: Vec<NodeInfo>| Vec::from_iter(connected_again(&mut seen, now));
        assert!(look(vec![at(1, "a"), at(2, "a")]).is_empty());
        // While it is away it is not in the list.
        assert!(look(vec![at(2, "a")]).is_empty());
        assert_eq!(look(vec![at(1, "b"), at(2, "a"), at(3, "b")]), [1]);
        assert!(look(vec![at(1, "b"), at(2, "a"), at(3, "b")]).is_empty());
    }
}
