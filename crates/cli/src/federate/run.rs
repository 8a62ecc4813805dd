//! `tacit federate run`: prepares, shows a table that grows by a line a round, compares, exports.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde::Serialize;
use tacit_federated::run::{
    Comparison, Event, Exported, Own, RoundRecord, Run, compare, export, export_own,
};

use super::args::RunArgs;
use super::failure;
use super::setting::{self, Setting};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output::{bytes, count, print_json, seconds};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    stages: Vec<String>,
    trained_values: usize,
    clients: Vec<Client>,
    validation_tokens: usize,
    base_perplexity: f64,
    /// Rounds that had been done before, in the same folder.
    resumed: usize,
    rounds: Vec<RoundRecord>,
    comparison: Option<Comparison>,
    exported: Exported,
    personal: Option<Vec<Own>>,
    seconds: f64,
}

#[derive(Debug, Serialize)]
struct Client {
    name: String,
    sequences: usize,
    tokens: usize,
}

/// Runs the command.
pub fn run(args: &RunArgs, global: &Global) -> Outcome {
    let began = Instant::now();
    let mut config = setting::config_with(args.config.as_deref(), &args.set)?;
    if let Some(out) = &args.out {
        config.out = out.clone();
    }
    if let Some(rounds) = args.rounds {
        config.rounds = rounds;
    }
    if config.head.is_some() {
        return super::head::run(args, config, global);
    }
    let display = Display::pick(global.json);
    let waiting = display.waiting("reading model and text");
    let run = Setting::read(&config).and_then(|s| s.run(config, !args.overwrite));
    waiting.finish_and_clear();
    let mut run = run?;
    let resumed = run.state().records.len();
    let base_perplexity = run
        .perplexity(&tacit_federated::lora::Global {
            adapter: run
                .tuner()
                .initial(run.config().method.rank, 0)
                .map_err(failure)?,
            residual: Default::default(),
        })
        .map_err(failure)?;
    let stages = stages(&run);
    if !global.json {
        introduce(&run, &stages, base_perplexity);
    }
    rounds(&mut run, display, global.json)?;
    let comparison = if args.compare {
        let waiting = display.waiting("training each client alone, and one model on all text");
        let result = compare(&run, &|_| stop_if_pressed());
        waiting.finish_and_clear();
        match result.map_err(failure)? {
            Some(c) => Some(c),
            None => return Err(interrupted(&run)),
        }
    } else {
        None
    };
    let folder = run.config().out.join("model");
    let exported = export(&run, &run.state().global, &folder).map_err(failure)?;
    let personal = match run.config().personal {
        Some(_) => Some(export_own(&run, &run.config().out.join("personal")).map_err(failure)?),
        None => None,
    };
    let report = Report {
        stages,
        trained_values: run.trained_values(),
        clients: run
            .clients()
            .iter()
            .map(|c| Client {
                name: c.name.clone(),
                sequences: c.train.len(),
                tokens: c.train_tokens(),
            })
            .collect(),
        validation_tokens: run.validation().iter().map(|w| w.0.len()).sum(),
        base_perplexity,
        resumed,
        rounds: run.state().records.clone(),
        comparison,
        exported,
        personal,
        seconds: began.elapsed().as_secs_f64(),
    };
    if global.json {
        return print_json(&report);
    }
    conclude(&report);
    Ok(())
}

/// Heads of the columns of [`line()`].
pub fn head() -> String {
    format!(
        "{:>5} {:>7} {:>10} {:>10} {:>10} {:>10} {:>7} {:>9} {:>7}",
        "round", "clients", "train loss", "perplexity", "up", "down", "s", "agg. err", "epsilon"
    )
}

/// The stages of an update's way, as the run's head prints them.
pub fn stages(run: &Run) -> Vec<String> {
    let c = run.config();
    let mut all = vec![format!(
        "train {}: {} steps of {} sequences",
        c.method.describe(),
        c.train.steps,
        c.train.batch
    )];
    if let Some(p) = c.personal {
        all.push(format!("private adapters of rank {}", p.rank));
    }
    all.extend(c.stages.iter().map(|s| s.describe()));
    all.push(format!(
        "combine by {}",
        format!("{:?}", c.combine).to_lowercase()
    ));
    all.push(c.rule.name().to_owned());
    all
}

fn introduce(run: &Run, stages: &[String], base: f64) {
    println!("{} clients:", run.clients().len());
    for (i, c) in run.clients().iter().enumerate() {
        println!(
            "  {i:2}  {:24} {:>9} tokens",
            c.name,
            count(c.train_tokens() as u64)
        );
    }
    println!("stages: {}", stages.join(" -> "));
    println!(
        "{} values are trained; the base model's validation perplexity is {base:.3}",
        count(run.trained_values() as u64)
    );
    if let Some(there) = already(
        &run.config().out,
        run.state().records.len(),
        run.config().rounds,
    ) {
        println!("{there}");
    }
    println!("{}", head());
    for r in &run.state().records {
        println!("{}", line(r));
    }
}

pub fn line(r: &RoundRecord) -> String {
    let mut time = String::new();
    if let Some(clock) = r.clock {
        time += &format!("  at {clock:.1} s");
    }
    if !r.late.is_empty() {
        time += &format!("  late: {:?}", r.late);
    }
    if !r.failed.is_empty() {
        time += &format!("  no use: {:?}", r.failed);
    }
    if let Some(oldest) = r.staleness.iter().max() {
        time += &format!(
            "  from clients {:?}, the oldest {oldest} steps behind",
            r.clients
        );
    }
    // Between machines and without rounds, only the last step is measured.
    let measured = match r.validation_perplexity {
        0.0 => "-".into(),
        p => format!("{p:.3}"),
    };
    let columns = format!(
        "{:>5} {:>7} {:>10.4} {:>10} {:>10} {:>10} {:>7} {:>9} {:>7}",
        r.round,
        r.clients.len(),
        r.train_loss,
        measured,
        bytes(r.bytes_up),
        bytes(r.bytes_down),
        seconds(r.seconds),
        r.relative_aggregation_error
            .map_or_else(|| "hidden".into(), |e| format!("{:.2} %", 100.0 * e)),
        r.epsilon.map_or_else(|| "-".into(), |e| format!("{e:.3}")),
    );
    columns + &time
}

/// What to say where the folder already holds `done` of the run's rounds.
pub fn already(folder: &Path, done: usize, of: usize) -> Option<String> {
    let folder = folder.display();
    match done {
        0 => None,
        done if done < of => Some(format!(
            "{folder} holds this run after {done} of {of} rounds: it goes on from there (--overwrite begins anew)"
        )),
        _ => Some(format!(
            "{folder} holds this run, complete: nothing is trained again (--overwrite begins anew)"
        )),
    }
}

fn stop_if_pressed() -> ControlFlow<()> {
    if interrupt::pressed() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

fn interrupted(run: &Run) -> Failure {
    Failure::new(
        Kind::Interrupted,
        format!(
            "interrupted after round {}; the same command goes on from there",
            run.state().records.len()
        ),
    )
}

fn rounds(run: &mut Run, display: Display, json: bool) -> Outcome {
    let c = run.config();
    let each = match (c.clock.map_or(0, |clock| clock.buffer), c.clients_per_round) {
        (0, 0) => run.clients().len(),
        (0, k) => k.min(run.clients().len()),
        (buffer, _) => buffer,
    };
    let done = run.state().records.len() * each;
    let bar = display.pieces("training", (run.config().rounds * each) as u64);
    bar.set_position(done as u64);
    // Bars and lines share the terminal; clients report from several threads.
    let screen = Mutex::new(());
    let finished = run
        .run(&|event| {
            let _held = screen.lock();
            match event {
                Event::Trained { round, client } => {
                    bar.inc(1);
                    bar.set_prefix(format!("round {round}, client {client}"));
                }
                Event::Round(r) => {
                    tracing::info!("round {}: {}", r.round, r.hash);
                    if !json {
                        bar.suspend(|| println!("{}", line(r)));
                    }
                }
            }
            stop_if_pressed()
        })
        .map_err(failure)?;
    bar.finish_and_clear();
    if finished {
        Ok(())
    } else {
        Err(interrupted(run))
    }
}

fn conclude(report: &Report) {
    if let Some(c) = &report.comparison {
        println!();
        println!(
            "perplexity on all clients' validation text ({} tokens)",
            count(report.validation_tokens as u64)
        );
        println!("  base model                 {:>9.3}", c.base);
        println!("  federated                  {:>9.3}", c.federated);
        println!("  all text in one place      {:>9.3}", c.central);
        println!(
            "{:>28} {:>9} {:>11} {:>9} {:>11}",
            "", "alone", "own: alone", "own: base", "own: feder."
        );
        for (i, alone) in c.alone.iter().enumerate() {
            println!(
                "  alone {i:2} {:18} {alone:>9.3} {:>11.3} {:>9.3} {:>11.3}",
                report.clients[i].name.chars().take(18).collect::<String>(),
                c.alone_on_own[i],
                c.base_by_client[i],
                c.federated_by_client[i],
            );
        }
        let better = c.alone.iter().filter(|a| c.federated < **a).count();
        println!(
            "  the federated model is better than {better} of {} clients alone, and {:+.2} % from central training",
            c.alone.len(),
            100.0 * (c.federated / c.central - 1.0)
        );
    }
    if let Some(own) = &report.personal {
        println!();
        println!(
            "{:32} {:>9} {:>9} {:>9}",
            "perplexity on its own text", "base", "shared", "personal"
        );
        for o in own {
            println!(
                "  {:2} {:27} {:>9.3} {:>9.3} {:>9.3}",
                o.client,
                o.name.chars().take(27).collect::<String>(),
                o.base,
                o.shared,
                o.personal
            );
        }
        println!(
            "  each client's own model lies in the folder personal, where in a federation of machines only the client has it"
        );
    }
    let e = &report.exported;
    println!();
    println!(
        "model in {}: perplexity {:.3} as trained, {:.3} as served{}{}",
        e.folder.display(),
        e.trained_perplexity,
        e.served_perplexity,
        if e.ternarised {
            " (its matrices had to be ternarised)"
        } else {
            ""
        },
        if e.prompt > 0 {
            ", behind the prompt in prompt.safetensors"
        } else {
            ""
        }
    );
    let up: u64 = report.rounds.iter().map(|r| r.bytes_up).sum();
    let down: u64 = report.rounds.iter().map(|r| r.bytes_down).sum();
    println!(
        "{} up, {} down, {} s in total",
        bytes(up),
        bytes(down),
        seconds(report.seconds)
    );
    println!(
        "next: tacit model calibrate {0}, then tacit ask --model {0} \"…\"",
        e.folder.display()
    );
}
