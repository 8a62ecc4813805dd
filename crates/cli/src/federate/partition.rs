//! `tacit federate partition`.

use serde::Serialize;
use tacit_federated::partition::{PartitionOptions, Split, Text, partition, write};

use super::args::{PartitionArgs, SplitArg, TextArg};
use super::failure;
use crate::args::Global;
use crate::exit::Outcome;
use crate::output::{Table, count, print_json};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    folder: String,
    clients: Vec<Client>,
}

#[derive(Debug, Serialize)]
struct Client {
    name: String,
    documents: usize,
    bytes: usize,
}

/// Runs the command.
pub fn run(args: &PartitionArgs, global: &Global) -> Outcome {
    let from = if args.from.is_empty() {
        vec![crate::text::registry()?]
    } else {
        args.from.clone()
    };
    let options = PartitionOptions {
        from,
        exclude: args.exclude.clone(),
        text: match args.text {
            TextArg::Docs => Text::Docs,
            TextArg::Code => Text::Code,
        },
        split: match args.split {
            SplitArg::Family => Split::Family,
            SplitArg::Source => Split::Source,
            SplitArg::Dirichlet => Split::Dirichlet,
        },
        clients: args.clients,
        alpha: args.alpha,
        max_bytes: args.max_bytes,
        unseen_by: args.unseen_by.clone(),
        seed: args.seed,
        ..PartitionOptions::default()
    };
    let waiting = Display::pick(global.json).waiting("reading text");
    let clients = partition(&options);
    waiting.finish_and_clear();
    let clients = clients.map_err(failure)?;
    write(&args.out, &clients).map_err(failure)?;
    let report = Report {
        folder: args.out.display().to_string(),
        clients: clients
            .iter()
            .map(|c| Client {
                name: c.name.clone(),
                documents: c.documents.len(),
                bytes: c.bytes(),
            })
            .collect(),
    };
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&["client", "name", "documents", "bytes"]);
    for (i, c) in report.clients.iter().enumerate() {
        table.row(vec![
            i.to_string(),
            c.name.clone(),
            count(c.documents as u64),
            count(c.bytes as u64),
        ]);
    }
    print!("{}", table.render());
    println!("written to {}", report.folder);
    Ok(())
}
