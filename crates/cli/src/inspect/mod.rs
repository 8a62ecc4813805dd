//! `tacit inspect …`: videos of humans, real or forged.

pub mod args;
mod generate;
mod priors;

use tacit_humansam::HumansamError;

use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use args::{Inspect, InspectCommand};

/// Runs `tacit inspect …`.
pub fn run(args: &Inspect, global: &Global) -> Outcome {
    match &args.command {
        InspectCommand::Generate(args) => generate::run(args, global),
        InspectCommand::Priors(args) => priors::run(args, global),
    }
}

/// The exit code of each kind of error.
pub fn failure(e: HumansamError) -> Failure {
    let kind = match &e {
        HumansamError::Argument(_) => Kind::Usage,
        HumansamError::Io { action, .. } if *action == "write" || *action == "create" => {
            Kind::Other
        }
        HumansamError::MissingProgram { .. } => Kind::Other,
        _ => Kind::Input,
    };
    Failure::new(kind, e.to_string())
}
