//! What judges a clip: backbones with published weights, fusion and head, the loss that listens to ranks.
//!
//! ```text
//! clip ─┬─ backbone (video) ─┐
//!       └─ backbone (depth) ─┴─ fusion ─ logits ─ calibration ─ verdict
//! ```

pub mod backbone;
pub mod fusion;
pub mod rce;
pub mod two_branch;
pub mod weights;
