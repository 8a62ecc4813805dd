//! `tacit inspect …`: videos of humans, real or forged.

pub mod args;
mod bench;
mod confidence;
mod encrypted;
mod generate;
pub mod head;
pub mod look;
pub mod model_args;
mod priors;
mod speed;
pub mod table;
mod train;

use tacit_humansam::HumansamError;

use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use args::{Inspect, InspectCommand};

/// Runs `tacit inspect …`.
pub fn run(args: &Inspect, global: &Global) -> Outcome {
    // Networks make and drop large tensors at every layer: 12 views of InternVideo2-S take 16 s instead of 31.
    tacit_ring::keep_freed_blocks();
    match &args.command {
        Some(InspectCommand::Generate(args)) => generate::run(args, global),
        Some(InspectCommand::Priors(args)) => priors::run(args, global),
        Some(InspectCommand::Train(args)) => train::run(args, global),
        Some(InspectCommand::Bench(args)) => bench::run(args, global),
        Some(InspectCommand::Head(args)) => head::run(args, global),
        None => look::run(&args.look, global),
    }
}

/// The exit code of each kind of error.
pub fn failure(e: HumansamError) -> Failure {
    let kind = match &e {
        HumansamError::Argument(_) => Kind::Usage,
        HumansamError::Io { action, .. } if *action == "write" || *action == "create" => {
            Kind::Other
        }
        HumansamError::MissingProgram { .. }
        | HumansamError::Tensor(_)
        | HumansamError::Diverged { .. } => Kind::Other,
        HumansamError::Weights { .. } => Kind::Mismatch,
        HumansamError::Encrypted(_) => Kind::Crypto,
        _ => Kind::Input,
    };
    Failure::new(kind, e.to_string())
}
