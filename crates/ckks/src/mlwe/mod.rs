//! Ternary linear layers as a step of bootstrapping: ring switch, MLWE pieces, mix by additions only, repack.
//!
//! ```text
//! RlweCoeff (b, a) mod q0, secret s, degree N           coefficient f + N/n*t holds feature f of token t
//!    |  ring_switch   digits of a times a key modulo q0 only
//!    v
//! RlweCoeff (b, a') under s'(X^{N/N'})                  s' ternary of degree N' = 2^11
//!    |  pieces        a transposition; MLWE ciphertexts of rank N'/n over Z[Y]/(Y^n + 1), nothing expanded
//!    v
//! Pieces<u32> (after rounding to 2^32) or Pieces<u64>
//!    |  mix           out_o = sum_F W[o][F] * MLWE_F, component by component: additions and subtractions only
//!    v                outputs go to any coefficient block, times any power of Y
//! component polynomials of the output ciphertexts
//!    |  repack        N'/n key products and one mod-down
//!    v
//! RlweCoeff mod q0 under the sparse ephemeral secret    what ModRaise wants
//! ```
//!
//! Main types: [`MlweContext`] (moduli and tables; [`MlweContext::apply`] is the whole chain), [`MlweShape`] (the three degrees),
//! [`MlweKeys`], [`TernaryMix`] (a packed matrix and where its inputs and outputs lie), [`Pieces`]. [`noise`] predicts the error.
//!
//! Powers of two throughout: `n <= N' <= N`; `k = N/n` features in a ciphertext, `r = N/N'` small-ring pieces, `k' = N'/n` the MLWE
//! rank, `r*k' = k`; `Z = X^r`, `Y = X^k`.

mod context;
mod error;
mod keys;
mod layer;
mod mix;
pub mod noise;
mod pieces;
mod repack;
mod ring_switch;
mod wire;
mod word;

pub use context::{MlweContext, MlweShape, RlweCoeff};
pub use error::MlweError;
pub use keys::MlweKeys;
pub use layer::LayerReport;
pub use mix::{InputPlacement, OutputPlacement, TernaryMix};
pub use pieces::Pieces;
pub use repack::RepackKey;
pub use ring_switch::RingSwitchKey;
pub use word::MixWord;

#[cfg(test)]
mod tests;
