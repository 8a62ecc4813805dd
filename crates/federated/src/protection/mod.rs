//! What keeps clients' data from the coordinator, and the model from bad clients.
//!
//! | stage | against whom | promise |
//! | --- | --- | --- |
//! | [`secure_aggregation`] | a curious or lying coordinator | it learns the sum of the updates, and of no update alone |
//! | [`robust`] | a minority of bad clients | the aggregate stays near that of the good ones |
//!
//! All stages work on flat vectors: `&[f32]` for one update, `&[Vec<f32>]` for those of a round.

pub mod error;
pub mod robust;
pub mod secure_aggregation;

pub use error::ProtectionError;

/// A client's number, fixed for a federation.
pub type ClientId = u32;
