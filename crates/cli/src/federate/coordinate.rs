//! `tacit federate coordinate`: the rounds of a federation over a Flower SuperLink.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use serde::Serialize;
use tacit_federated::flower::http::Address;
use tacit_federated::run::{RemoteEvent, RemoteOptions, RoundRecord, coordinate, export_model};

use super::args::CoordinateArgs;
use super::failure;
use super::run::{head, line, stages};
use super::setting::{self, Setting};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output::{print_json, seconds};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    stages: Vec<String>,
    rounds: Vec<RoundRecord>,
    folder: String,
    seconds: f64,
}

/// Hears of what happens, and may stop it.
pub type Tell<'t> = &'t dyn Fn(RemoteEvent<'_>) -> ControlFlow<()>;

/// Runs the command.
pub fn run(args: &CoordinateArgs, global: &Global) -> Outcome {
    let began = Instant::now();
    let mut config = setting::config(Some(&args.config))?;
    if let Some(out) = &args.out {
        config.out = out.clone();
    }
    if let Some(data) = config.head.clone() {
        return super::head::coordinate(args, config, &data, global);
    }
    let clients = args.clients.unwrap_or_else(|| config.clients());
    let base = Setting::base(&config)?;
    let run = over_link(args, global, &head(), &line, |options, tell| {
        let (run, done) = coordinate(config, base, clients, options, tell).map_err(failure)?;
        let rounds = run.state().records.len();
        Ok((run, rounds, done))
    })?;
    let folder = run.config().out.join("model");
    export_model(&run, &run.state().global, &folder).map_err(failure)?;
    let report = Report {
        stages: stages(&run),
        rounds: run.state().records.clone(),
        folder: folder.display().to_string(),
        seconds: began.elapsed().as_secs_f64(),
    };
    if global.json {
        return print_json(&report);
    }
    println!(
        "model in {}, {} s in total; next: tacit model calibrate {0}",
        report.folder,
        seconds(report.seconds)
    );
    Ok(())
}

/// Does `work` over the SuperLink and shows its rounds as lines under `columns`. The work returns the run, its rounds and whether it came to its end.
pub fn over_link<R>(
    args: &CoordinateArgs,
    global: &Global,
    columns: &str,
    line: &dyn Fn(&RoundRecord) -> String,
    work: impl FnOnce(&RemoteOptions, Tell<'_>) -> Outcome<(R, usize, bool)>,
) -> Outcome<R> {
    let options = RemoteOptions {
        address: Address {
            url: args.superlink.clone(),
            root_certificate: args.root_certificate.clone(),
            patience: Duration::from_secs(args.wait),
        },
        deadline: Duration::from_secs(args.deadline),
        silence: Duration::from_secs(args.silence),
        wait: Duration::from_secs(args.wait),
        resume: !args.overwrite,
        pause: Duration::from_secs(1),
    };
    let bar = Display::pick(global.json).waiting("waiting for the SuperLink, a run and its nodes");
    if !global.json {
        bar.suspend(|| println!("{columns}"));
    }
    let tell = |event: RemoteEvent<'_>| {
        match event {
            RemoteEvent::Present {
                clients,
                of,
                missing,
            } => {
                bar.set_message(format!(
                    "{clients} of {of} clients are there, not {missing:?}"
                ));
            }
            RemoteEvent::Silent { clients, limit } => match limit {
                Some(limit) => tracing::warn!(
                    "clients {clients:?} do not answer; a round waits {} s for them, then it goes on without them (clock.deadline in the configuration sets another limit)",
                    limit.as_secs()
                ),
                None => tracing::warn!("clients {clients:?} do not answer"),
            },
            RemoteEvent::Failed {
                node,
                client,
                problem,
            } => match client {
                Some(k) => tracing::warn!("client {k} (node {node}): {problem}"),
                None => tracing::warn!("node {node}: {problem}"),
            },
            RemoteEvent::Late(clients) => {
                tracing::warn!("late, and left out of the round: clients {clients:?}");
            }
            RemoteEvent::Round(r) => {
                tracing::info!("round {}: {}", r.round, r.hash);
                if !global.json {
                    bar.suspend(|| println!("{}", line(r)));
                }
            }
            RemoteEvent::Waiting([]) => {}
            RemoteEvent::Waiting(clients) => {
                bar.set_message(format!("waiting for clients {clients:?}"));
            }
        }
        if interrupt::pressed() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let done = work(&options, &tell);
    bar.finish_and_clear();
    let (run, rounds, finished) = done?;
    if !finished {
        let problem = if interrupt::pressed() {
            Failure::new(
                Kind::Interrupted,
                format!("interrupted after {rounds} rounds; the same command goes on from there"),
            )
        } else {
            Failure::new(
                Kind::Other,
                format!(
                    "no run was submitted to the SuperLink within {} s; submit one with `flwr run`",
                    args.wait
                ),
            )
        };
        return Err(problem);
    }
    Ok(run)
}
