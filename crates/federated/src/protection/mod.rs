//! What keeps clients' data from the coordinator, and the model from bad clients.
//!
//! | stage | against whom | promise |
//! | --- | --- | --- |
//! | [`secure_aggregation`] | a curious or lying coordinator | it learns the sum of the updates, and of no update alone |
//! | [`ckks_aggregation`] | a coordinator that colludes with no client | it adds what it cannot read |
//! | [`verified_sum`] | clients that send more than they may, and either of two aggregators | every summed update has a bounded norm, and neither sees one |
//! | [`privacy`] | whoever sees the model or the sums | what the run reveals of a client or an example is bounded, counted and stopped at a budget |
//! | [`robust`] | a minority of bad clients | the aggregate stays near that of the good ones |
//! | [`signing`] | whoever carries messages | a payload arrives as it was sent, once, or is refused |
//!
//! All stages work on flat vectors: `&[f32]` for one update, `&[Vec<f32>]` for those of a round.

pub mod ckks_aggregation;
pub mod error;
pub mod privacy;
pub mod robust;
pub mod secure_aggregation;
pub mod signing;
pub mod verified_sum;

pub use error::ProtectionError;

/// A client's number, fixed for a federation.
pub type ClientId = u32;
