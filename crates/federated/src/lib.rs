//! Federated training of language models: local training, aggregation, compression, protection, audits.
//!
//! Everything that travels between client and coordinator is a [`NamedTensors`].
#![forbid(unsafe_code)]

pub mod error;
pub mod protection;
pub mod tensors;

pub use error::FederatedError;
pub use tensors::NamedTensors;
