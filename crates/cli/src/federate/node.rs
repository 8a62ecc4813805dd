//! `tacit federate node`: one client, until it is told to stop.

use std::time::Duration;

use serde::Serialize;
use tacit_federated::config::RunConfig;
use tacit_federated::flower::http::Address;
use tacit_federated::flower::identity::NodeKey;
use tacit_federated::flower::node::{NodeEvent, Watch, behind_supernode, on_superlink};
use tacit_federated::protection::secure_aggregation::{SigningKey, signing_key};
use tacit_federated::run::Party;

use super::args::NodeArgs;
use super::secret::secret;
use super::setting::{self, Setting};
use super::{failure, head};
use crate::args::Global;
use crate::exit::{Failure, Outcome};
use crate::interrupt;
use crate::output::print_json;

#[derive(Debug, Serialize)]
struct Identity {
    client: usize,
    roster: Option<String>,
    node_key: String,
}

/// Runs the command.
pub fn run(args: &NodeArgs, global: &Global) -> Outcome {
    let mut config = setting::config(Some(&args.config))?;
    if let Some(out) = &args.out {
        config.out = out.clone();
    }
    std::fs::create_dir_all(&config.out)?;
    let key_file = args
        .key
        .clone()
        .unwrap_or_else(|| config.out.join(format!("node-{}.pem", args.client)));
    let identity = match &args.identity {
        Some(file) => Some(signing_key(secret(file)?.0)),
        None => None,
    };
    if args.show_identity {
        let hex = |b: &[u8]| b.iter().map(|x| format!("{x:02x}")).collect::<String>();
        let report = Identity {
            client: args.client,
            roster: identity.as_ref().map(|k| hex(k.verifying_key().as_bytes())),
            node_key: NodeKey::from_file(&key_file)
                .map_err(failure)?
                .public_openssh(),
        };
        if global.json {
            return print_json(&report);
        }
        if let Some(roster) = &report.roster {
            println!("roster, client {}: {roster}", report.client);
        }
        println!("node key: {}", report.node_key);
        return Ok(());
    }
    let mut party = match config.head.clone() {
        Some(data) => head::party(config, &data, args.client, identity)?,
        None => of_text(config, args.client, identity)?,
    };
    let address = |url: &str| Address {
        url: url.to_owned(),
        root_certificate: args.root_certificate.clone(),
        patience: Duration::from_secs(args.patience),
    };
    eprintln!(
        "client {} with {} examples, for {}",
        party.client(),
        party.examples(),
        args.supernode.as_deref().unwrap_or(&args.superlink)
    );
    let tell = |event: NodeEvent| match event {
        NodeEvent::Connected(node) => tracing::info!("node {node}"),
        NodeEvent::Answered(kind) => tracing::info!("{kind} answered"),
        NodeEvent::Trouble(what) => tracing::warn!("{what}"),
    };
    let watch = Watch {
        tell: &tell,
        go_on: &|| !interrupt::pressed(),
    };
    let ended = match &args.supernode {
        Some(url) => behind_supernode(&mut party, &address(url), watch),
        None => on_superlink(
            &mut party,
            &address(&args.superlink),
            &key_file,
            !args.registered,
            watch,
        ),
    };
    match ended {
        // The first Ctrl-C is how a node ends.
        Ok(()) => Ok(()),
        Err(_) if interrupt::pressed() => Ok(()),
        Err(e) => Err(failure(e)),
    }
}

/// A client of a language model, with its text.
fn of_text(config: RunConfig, client: usize, identity: Option<SigningKey>) -> Outcome<Party> {
    let setting = Setting::read(&config)?;
    let text = setting.texts.get(client).ok_or_else(|| {
        Failure::usage(format!(
            "--client {client}: there are {} clients, counted from 0",
            setting.texts.len()
        ))
    })?;
    Party::new(config, setting.base, text, client, identity).map_err(failure)
}
