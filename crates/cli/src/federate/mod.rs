//! `tacit federate`: training over clients that keep their text.

pub mod args;
mod partition;
mod run;

use std::path::PathBuf;

use tacit_federated::FederatedError;

use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome, chain};
use args::FederateCommand;

/// Runs the command.
pub fn run(command: &FederateCommand, global: &Global) -> Outcome {
    match command {
        FederateCommand::Partition(args) => partition::run(args, global),
        FederateCommand::Run(args) => run::run(args, global),
    }
}

/// The kind of failure: what cannot be read is input, contradicting settings are usage, what does not belong together a mismatch.
fn failure(error: FederatedError) -> Failure {
    let kind = match &error {
        FederatedError::Io { .. } | FederatedError::Format { .. } | FederatedError::Model(_) => {
            Kind::Input
        }
        FederatedError::Setting { .. } => Kind::Usage,
        FederatedError::Layout { .. } => Kind::Mismatch,
        FederatedError::Protection(_) => Kind::Crypto,
        FederatedError::Training(e) => match e {
            tacit_bitnet::train::TrainError::Config(_) => Kind::Usage,
            tacit_bitnet::train::TrainError::Io { .. }
            | tacit_bitnet::train::TrainError::EmptyCorpus { .. }
            | tacit_bitnet::train::TrainError::Checkpoint { .. } => Kind::Input,
            _ => Kind::Other,
        },
        FederatedError::NotFinite { .. } => Kind::Other,
    };
    Failure::new(kind, chain(&error))
}

/// Cargo's folder of dependency sources, when it is there.
fn registry() -> Option<PathBuf> {
    crate::text::registry().ok()
}
