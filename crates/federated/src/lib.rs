//! Federated training of language models: local training, aggregation, compression, protection, audits.
//!
//! Everything that travels between client and coordinator is a [`NamedTensors`].
#![forbid(unsafe_code)]

pub mod audit;
pub mod clock;
pub mod compress;
pub mod config;
pub mod data;
pub mod error;
#[cfg(test)]
mod fixture;
pub mod flower;
pub mod grammar;
mod linalg;
pub mod local;
pub mod lora;
pub mod partition;
pub mod personal;
pub mod protection;
pub mod random;
pub mod rules;
pub mod run;
pub mod seeds;
mod stage;
pub mod task;
pub mod tensors;
pub mod tuner;
pub mod unlearning;
pub mod watermark;

pub use error::FederatedError;
pub use tensors::NamedTensors;
