//! The `tacit` command: encrypted inference of BitNet language models.
//!
//! ```text
//!   args ──► main ──► ask      client and server in one process, sharing only messages
//!                 ├─► embed, classify   one pass a document, pooled at the client
//!                 ├─► model    inspect, logits, calibrate, sigmoid, synth
//!                 ├─► train
//!                 ├─► federate partition, run, coordinate, node, audit, forget, watermark
//!                 ├─► inspect  generate, priors
//!                 └─► bench    bootstrap, presets, linear, agreement, prefill, decode, ensi, engine
//! ```
//!
//! A command returns an [`exit::Outcome`]; its kind decides the exit code. Standard output holds results, standard error
//! progress and logs.
#![forbid(unsafe_code)]

mod args;
mod ask;
mod bench;
mod embed;
mod exit;
mod federate;
mod inspect;
mod interrupt;
mod memory;
mod model;
mod output;
mod progress;
mod session;
mod text;
mod train;

use std::process::ExitCode;

use clap::Parser;

use args::{BenchCommand, Cli, Command, Global, ModelCommand};
use exit::{Failure, Kind, Outcome};

/// Bytes of a worker's stack: what a main thread usually has.
const STACK: usize = 8 << 20;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = set_up(&cli.global).and_then(|()| {
        if waits_for_threads(&cli.command) {
            run(&cli)
        } else {
            // Inside the pool: a parallel loop that starts outside must wake a worker first.
            rayon::scope(|_| run(&cli))
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, cli.global.json),
    }
}

/// Whether a command waits for threads of its own, which may need the pool meanwhile: a worker that waits is one that does not work.
fn waits_for_threads(command: &Command) -> bool {
    matches!(
        command,
        Command::Train(_) | Command::Federate { .. } | Command::Inspect(_)
    )
}

/// Logs, threads, Ctrl-C.
fn set_up(global: &Global) -> Outcome {
    let level = match global.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    let filter = match std::env::var("TACIT_LOG") {
        Ok(text) => tracing_subscriber::EnvFilter::try_new(&text)
            .map_err(|e| Failure::usage(format!("TACIT_LOG=\"{text}\" is not a log filter ({e}); try TACIT_LOG=info or TACIT_LOG=tacit_ckks=debug")))?,
        Err(_) => tracing_subscriber::EnvFilter::new(level),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(true)
        .init();
    let mut pool = rayon::ThreadPoolBuilder::new().stack_size(STACK);
    if let Some(threads) = global.threads {
        pool = pool.num_threads(usize::from(threads));
    }
    pool.build_global()
        .map_err(|e| Failure::new(Kind::Other, format!("cannot start worker threads: {e}")))?;
    interrupt::install()
}

fn run(cli: &Cli) -> Outcome {
    let global = &cli.global;
    match &cli.command {
        Command::Ask(args) => ask::run(args, global),
        Command::Embed(args) => embed::embed(args, global),
        Command::Classify(args) => embed::classify(args, global),
        Command::Model {
            command: ModelCommand::Inspect(args),
        } => model::inspect::run(args, global),
        Command::Model {
            command: ModelCommand::Logits(args),
        } => model::logits::run(args, global),
        Command::Model {
            command: ModelCommand::Calibrate(args),
        } => model::calibrate::run(args, global),
        Command::Model {
            command: ModelCommand::Sigmoid(args),
        } => model::sigmoid::run(args, global),
        Command::Model {
            command: ModelCommand::Synth(args),
        } => model::synth::run(args, global),
        Command::Train(args) => train::run(args, global),
        Command::Federate { command } => federate::run(command, global),
        Command::Inspect(args) => inspect::run(args, global),
        Command::Bench {
            command: BenchCommand::Bootstrap(args),
        } => bench::bootstrap::run(args, global),
        Command::Bench {
            command: BenchCommand::Presets(args),
        } => bench::bootstrap::run_presets(args, global),
        Command::Bench {
            command: BenchCommand::Linear(args),
        } => bench::linear::run(args, global),
        Command::Bench {
            command: BenchCommand::Agreement(args),
        } => bench::agreement::run(args, global),
        Command::Bench {
            command: BenchCommand::Prefill(args),
        } => bench::prefill::run(args, global),
        Command::Bench {
            command: BenchCommand::Ensi(args),
        } => bench::ensi::run(args, global),
        Command::Bench {
            command: BenchCommand::Decode(args),
        } => bench::decode::run(args, global),
        Command::Bench {
            command: BenchCommand::Documents(args),
        } => bench::documents::run(args, global),
        Command::Bench {
            command: BenchCommand::Engine(args),
        } => bench::engine::run(args, global),
    }
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    eprintln!("tacit: {failure}");
    if json {
        let body = serde_json::json!({
            "error": { "kind": failure.kind.name(), "message": failure.message, "code": failure.kind.code() }
        });
        // The message has gone to standard error already; a closed standard output is no further news.
        let _ = output::print_json(&body);
    }
    ExitCode::from(failure.kind.code())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn flags_are_consistent() {
        super::Cli::command().debug_assert();
    }
}
