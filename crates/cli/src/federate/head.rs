//! A configuration with `[head]`: fusion and head of the model that judges videos, trained over parties that keep their videos and even their
//! features to themselves, in one process or as nodes. What travels are updates of the head's tensors.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use serde_json::json;
use tacit_federated::config::{HeadData, RunConfig, Start};
use tacit_federated::protection::secure_aggregation::SigningKey;
use tacit_federated::run::{Event, Party, RoundRecord, Side, TaskRun, coordinate_task};
use tacit_federated::task::{Measured, Task};
use tacit_federated::{FederatedError, NamedTensors};
use tacit_humansam::HumansamError;
use tacit_humansam::model::native::head::Head;
use tacit_humansam::model::native::rounds::{Example, Named};
use tacit_humansam::model::rce::{Confidence, confidences};

use super::args::{CoordinateArgs, RunArgs};
use super::run::already;
use super::{coordinate, failure};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::inspect::{head, look, table};
use crate::interrupt;
use crate::output::{bytes, count, print_json, seconds};
use crate::progress::Display;

/// The head as a federation trains it.
pub struct HeadTask {
    head: Head,
    /// Identifies the branches that make features, and how the head standardises them.
    features: String,
}

fn told(what: &str) -> FederatedError {
    FederatedError::format("head", what, "report this")
}

impl HeadTask {
    fn at(&self, state: &NamedTensors) -> Result<Head, HumansamError> {
        let named: Vec<_> = state
            .iter()
            .map(|t| (t.name.clone(), t.shape.clone(), t.values.clone()))
            .collect();
        self.head.import(&named, Path::new("shared head"))
    }
}

impl Task for HeadTask {
    type Example = Example;

    fn initial(&self) -> Result<NamedTensors, FederatedError> {
        let tensors = self.head.export().map_err(|e| told(&e.to_string()))?;
        named(tensors).map_err(|e| told(&e.message))
    }

    fn gradient(
        &self,
        state: &NamedTensors,
        examples: &[&Example],
    ) -> Result<(f64, NamedTensors), FederatedError> {
        let (loss, g) = self
            .at(state)
            .and_then(|head| head.gradient(examples))
            .map_err(|e| told(&e.to_string()))?;
        Ok((loss, named(g).map_err(|e| told(&e.message))?))
    }

    fn measure(
        &self,
        state: &NamedTensors,
        examples: &[Example],
    ) -> Result<Measured, FederatedError> {
        let s = self
            .at(state)
            .and_then(|head| head.measure(examples))
            .map_err(|e| told(&e.to_string()))?;
        Ok(Measured {
            loss: s.loss,
            right: s.right,
            examples: examples.len(),
        })
    }

    fn setting(&self) -> String {
        self.features.clone()
    }

    fn identify(&self, e: &Example, out: &mut Vec<u8>) {
        for v in &e.row {
            out.extend(v.to_le_bytes());
        }
        out.push(e.label.label() as u8);
        out.extend(e.confidence.to_le_bytes());
    }
}

fn named(tensors: Vec<Named>) -> Outcome<NamedTensors> {
    let mut out = NamedTensors::new();
    for (name, shape, values) in tensors {
        out.insert(name, &shape, values).map_err(failure)?;
    }
    Ok(out)
}

/// A client's table as examples: confidences from the ranks among its own clips, and of every hundred blocks of four clips `percent` to measure with.
fn side(file: &Path, head: &Head, branches: &str, percent: u64) -> Outcome<Side<Example>> {
    let t = table::Table::load(file)?;
    t.check_branches(branches, file)?;
    let c =
        confidences(&t.priors, &t.labels, Confidence::Rank, 0).map_err(crate::inspect::failure)?;
    let mut side = Side {
        name: file
            .file_stem()
            .unwrap_or(file.as_os_str())
            .to_string_lossy()
            .into_owned(),
        train: Vec::new(),
        valid: Vec::new(),
    };
    for (i, ((row, label), c)) in t.rows().zip(&t.labels).zip(c).enumerate() {
        let e = head
            .example(row, *label, c)
            .map_err(crate::inspect::failure)?;
        let block = (i / 4) as u64;
        if (block + 1) * percent / 100 > block * percent / 100 {
            side.valid.push(e);
        } else {
            side.train.push(e);
        }
    }
    Ok(side)
}

/// The task of a configuration, and the branches that tables must come from.
fn task(config: &RunConfig, data: &HeadData) -> Outcome<(HeadTask, String)> {
    let model = look::open_model(data.model.as_deref())?;
    let head = match data.start {
        Start::Model => model.head().clone(),
        Start::Blank => model
            .head()
            .blank(config.seed)
            .map_err(crate::inspect::failure)?,
    };
    let branches = table::branches(&model)?;
    let mut scaler = NamedTensors::new();
    for (name, values) in [
        ("mean", &head.scaler.mean),
        ("deviation", &head.scaler.deviation),
    ] {
        let values: Vec<f32> = values.iter().map(|v| *v as f32).collect();
        scaler
            .insert(name, &[values.len()], values)
            .map_err(failure)?;
    }
    let features = format!("{branches} {}", scaler.content_hash().to_hex());
    Ok((HeadTask { head, features }, branches))
}

/// Client number `client` of a configuration as a node, with its own table only.
pub fn party(
    config: RunConfig,
    data: &HeadData,
    client: usize,
    identity: Option<SigningKey>,
) -> Outcome<Party> {
    let (task, branches) = task(&config, data)?;
    let file = data.tables.get(client).ok_or_else(|| {
        Failure::usage(format!(
            "--client {client}: there are {} clients, counted from 0",
            data.tables.len()
        ))
    })?;
    let side = side(file, &task.head, &branches, config.data.validation_percent)?;
    Party::of_task(config, task, side, client, identity).map_err(failure)
}

/// Runs the federation over a SuperLink, writes `head.safetensors` into its folder.
pub fn coordinate(
    args: &CoordinateArgs,
    config: RunConfig,
    data: &HeadData,
    global: &Global,
) -> Outcome {
    let began = Instant::now();
    let (task, _) = task(&config, data)?;
    let clients = args.clients.unwrap_or_else(|| config.clients());
    let run = coordinate::over_link(args, global, &columns(), &line, |options, tell| {
        let (run, done) =
            coordinate_task(config, &task, clients, options, tell).map_err(failure)?;
        let rounds = run.records().len();
        Ok((run, rounds, done))
    })?;
    let file = run.config().out.join("head.safetensors");
    head::import(&task.head, run.shared(), &file)?;
    run.shared().save(&file, &[]).map_err(failure)?;
    if global.json {
        return print_json(&json!({
            "stages": stages(run.config()),
            "trained_values": run.shared().count(),
            "rounds": run.records(),
            "head": file, "hash": run.shared().content_hash().to_hex().to_string(),
            "seconds": began.elapsed().as_secs_f64(),
        }));
    }
    println!(
        "head in {}, {} s in total; next: tacit inspect --head {0} VIDEO",
        file.display(),
        seconds(began.elapsed().as_secs_f64())
    );
    Ok(())
}

/// Runs the federation, writes `head.safetensors` into its folder.
pub fn run(args: &RunArgs, config: RunConfig, global: &Global) -> Outcome {
    let began = Instant::now();
    let data = config.head.clone().unwrap_or_default();
    let (task, branches) = task(&config, &data)?;
    let percent = config.data.validation_percent;
    let clients = data
        .tables
        .iter()
        .map(|file| side(file, &task.head, &branches, percent))
        .collect::<Outcome<Vec<_>>>()?;
    let mut run = TaskRun::new(config, &task, clients, !args.overwrite).map_err(failure)?;
    let start = task.initial().map_err(failure)?;
    let before = run.measure(&start).map_err(failure)?;
    if !global.json {
        introduce(&run, before);
    }
    rounds(&mut run, Display::pick(global.json), global.json)?;
    let after = run.measure(run.shared()).map_err(failure)?;
    let comparison = if args.compare {
        Some(run.compare().map_err(failure)?)
    } else {
        None
    };
    let file = run.config().out.join("head.safetensors");
    // What cannot be read back as a head of this model must not be written.
    head::import(&task.head, run.shared(), &file)?;
    run.shared().save(&file, &[]).map_err(failure)?;
    if global.json {
        return print_json(&json!({
            "clients": run.clients().iter().map(|c| json!({ "name": c.name, "clips": c.train.len(), "measured_on": c.valid.len() })).collect::<Vec<_>>(),
            "trained_values": run.shared().count(),
            "before": before, "after": after,
            "rounds": run.records(), "comparison": comparison,
            "head": file, "hash": run.shared().content_hash().to_hex().to_string(),
            "seconds": began.elapsed().as_secs_f64(),
        }));
    }
    let line = |name: &str, m: &Measured| {
        println!("  {name:28} {:>8.1} % {:>10.3}", 100.0 * m.right, m.loss);
    };
    println!();
    println!(
        "on the {} clips that nobody trained on: right, and cross-entropy in nats",
        after.examples
    );
    line("before", &before);
    line("federated", &after);
    if let Some(c) = &comparison {
        line("all clips in one place", &c.central);
        for (side, alone) in run.clients().iter().zip(&c.alone) {
            line(&format!("{} alone", side.name), alone);
        }
    }
    let up: u64 = run.records().iter().map(|r| r.bytes_up).sum();
    let down: u64 = run.records().iter().map(|r| r.bytes_down).sum();
    println!(
        "head in {}; {} up, {} down, {} s in total",
        file.display(),
        bytes(up),
        bytes(down),
        seconds(began.elapsed().as_secs_f64())
    );
    println!("next: tacit inspect --head {} VIDEO", file.display());
    Ok(())
}

fn introduce(run: &TaskRun<'_, HeadTask>, before: Measured) {
    println!("{} clients:", run.clients().len());
    for (i, c) in run.clients().iter().enumerate() {
        println!(
            "  {i:2}  {:24} {:>6} clips to train on, {} to measure with",
            c.name,
            c.train.len(),
            c.valid.len()
        );
    }
    println!("stages: {}", stages(run.config()).join(" -> "));
    println!(
        "{} values are trained; before, {:.1} % are judged right",
        count(run.shared().count() as u64),
        100.0 * before.right
    );
    let c = run.config();
    if let Some(there) = already(&c.out, run.records().len(), c.rounds) {
        println!("{there}");
    }
    println!("{}", columns());
    for r in run.records() {
        println!("{}", line(r));
    }
}

/// The stages of an update's way.
fn stages(c: &RunConfig) -> Vec<String> {
    let mut all = vec![format!(
        "train fusion and head: {} steps of {} clips",
        c.train.steps, c.train.batch
    )];
    all.extend(c.stages.iter().map(|s| s.describe()));
    all.push(c.rule.name().to_owned());
    all
}

/// Heads of the columns of [`line()`].
fn columns() -> String {
    format!(
        "{:>5} {:>7} {:>10} {:>13} {:>10} {:>10} {:>7} {:>7}",
        "round", "clients", "train loss", "cross-entropy", "up", "down", "s", "epsilon"
    )
}

fn line(r: &RoundRecord) -> String {
    format!(
        "{:>5} {:>7} {:>10.4} {:>13.4} {:>10} {:>10} {:>7} {:>7}",
        r.round,
        r.clients.len(),
        r.train_loss,
        r.validation_perplexity.ln(),
        bytes(r.bytes_up),
        bytes(r.bytes_down),
        seconds(r.seconds),
        r.epsilon.map_or_else(|| "-".into(), |e| format!("{e:.3}")),
    )
}

fn rounds(run: &mut TaskRun<'_, HeadTask>, display: Display, json: bool) -> Outcome {
    let each = match run.config().clients_per_round {
        0 => run.clients().len(),
        k => k.min(run.clients().len()),
    };
    let bar = display.pieces("training", (run.config().rounds * each) as u64);
    bar.set_position((run.records().len() * each) as u64);
    // Bar and lines share the terminal; clients report from several threads.
    let screen = Mutex::new(());
    let finished = run
        .run(&|event| {
            let _held = screen.lock();
            match event {
                Event::Trained { .. } => bar.inc(1),
                Event::Round(r) => {
                    tracing::info!("round {}: {}", r.round, r.hash);
                    if !json {
                        bar.suspend(|| println!("{}", line(r)));
                    }
                }
            }
            if interrupt::pressed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(failure)?;
    bar.finish_and_clear();
    if finished {
        return Ok(());
    }
    Err(Failure::new(
        Kind::Interrupted,
        format!(
            "interrupted after round {}; the same command goes on from there",
            run.records().len()
        ),
    ))
}
