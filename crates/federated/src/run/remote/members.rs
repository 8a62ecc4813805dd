//! Which node holds which client.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::{Link, RemoteEvent, RemoteOptions, Tell, failed, ours, within};
use crate::FederatedError;
use crate::flower::record::{Content, Record};
use crate::run::coordinated::Coordinated;

/// Most bytes of an answer that is a few numbers: to who a node is, and to how good the model is.
pub(super) const FEW: u64 = 1 << 20;

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

/// Which node holds which client; waits until all `needed` are there, or, with a deadline, until it is over and as many as a round needs are there. A node
/// that has once said who it is stays that client (`known`), also when it now answers with what cannot be read.
pub(super) fn members(
    run: &dyn Coordinated,
    link: &dyn Link,
    needed: &[usize],
    known: &mut BTreeMap<u64, usize>,
    options: &RemoteOptions,
    tell: Tell<'_>,
) -> Result<Option<Members>, FederatedError> {
    let began = Instant::now();
    let mut shown = usize::MAX;
    loop {
        let nodes = link.nodes()?;
        let mut members = Members::default();
        let mut strangers = Vec::new();
        let wanted = match within(run.config()) {
            None => needed.len(),
            Some(_) => run.config().least(needed.len()),
        };
        if nodes.len() >= wanted {
            let question = Content(vec![("config".to_owned(), Record::Config(vec![ours(run)]))]);
            let all = nodes.iter().map(|&n| (n, question.clone())).collect();
            let wait = Duration::from_secs(60).min(options.deadline);
            let go_on = || tell(RemoteEvent::Waiting).is_continue();
            let answers = link.ask("query", "query", all, wait, FEW, &go_on)?;
            for a in &answers {
                let said = match &a.content {
                    Ok(c) if c.text("tacit").is_some() => c
                        .number("client")
                        .filter(|k| *k >= 0.0 && k.fract() == 0.0)
                        .map(|k| k as usize)
                        .filter(|k| *k < run.count()),
                    // A node of ours with other settings says so; one of Flower's knows no queries.
                    Err(e) if e.reason.contains("configuration") => {
                        known.remove(&a.node);
                        failed(tell, a.node, None, e);
                        continue;
                    }
                    Err(e) if e.away() => continue,
                    _ => known.get(&a.node).copied(),
                };
                match said {
                    Some(client) => members.claim(client, a.node, known, tell),
                    None => strangers.push(a.node),
                }
            }
            for (&client, &node) in &members.nodes {
                known.insert(node, client);
            }
            if members.nodes.is_empty() && strangers.len() >= wanted {
                members.stock = true;
                members.nodes = strangers.iter().copied().enumerate().collect();
            }
        }
        let present = needed
            .iter()
            .filter(|k| members.nodes.contains_key(k))
            .count();
        let over = within(run.config()).is_some_and(|d| began.elapsed() >= d);
        if present == needed.len() || over && present >= run.config().least(needed.len()) {
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
            let more = match strangers.as_slice() {
                [] => String::new(),
                some => format!("; nodes {some:?} answered, but not who they are"),
            };
            return Err(FederatedError::Remote {
                call: "get-nodes".into(),
                status: 200,
                problem: format!(
                    "{present} of {} clients have come within {} s{more}",
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
