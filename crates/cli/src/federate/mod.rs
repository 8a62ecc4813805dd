//! `tacit federate`: training over clients that keep their text.

pub mod args;
mod audit;
mod coordinate;
mod forget;
mod head;
mod node;
mod partition;
mod run;
mod secret;
mod setting;
mod watermark;

use std::path::PathBuf;

use tacit_federated::FederatedError;

use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome, chain};
use args::{FederateCommand, WatermarkCommand};

/// Runs the command.
pub fn run(command: &FederateCommand, global: &Global) -> Outcome {
    match command {
        FederateCommand::Partition(args) => partition::run(args, global),
        FederateCommand::Run(args) => run::run(args, global),
        FederateCommand::Coordinate(args) => coordinate::run(args, global),
        FederateCommand::Node(args) => node::run(args, global),
        FederateCommand::Audit(args) => audit::run(args, global),
        FederateCommand::Forget(args) => forget::run(args, global),
        FederateCommand::Watermark { command } => match command {
            WatermarkCommand::Embed(args) => watermark::embed(args, global),
            WatermarkCommand::Verify(args) => watermark::verify(args, global),
        },
    }
}

/// The kind of failure: what cannot be read is input, contradicting settings are usage, what does not belong together a mismatch.
fn failure(error: FederatedError) -> Failure {
    let kind = match &error {
        FederatedError::Io { .. } | FederatedError::Format { .. } | FederatedError::Model(_) => {
            Kind::Input
        }
        FederatedError::Setting { .. } => Kind::Usage,
        FederatedError::TooLarge { .. } => Kind::Usage,
        FederatedError::Layout { .. } => Kind::Mismatch,
        FederatedError::Protection(_) => Kind::Crypto,
        FederatedError::Remote { .. } => Kind::Other,
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
