//! What judges a clip: backbones with published weights, the native model, fusion and head, the loss that listens to ranks,
//! calibration, evaluation.
//!
//! ```text
//! clip ─┬─ backbone (video) ─┐
//!       └─ backbone (depth) ─┴─ fusion ─ logits ─ calibration ─ verdict
//! ```
//!
//! [`two_branch`] is HumanSAM from its own checkpoint, or any pair of [`backbone`]s; [`native`] a small model trained from
//! nothing on generated video.

pub mod backbone;
pub mod calibration;
pub mod encrypted;
pub mod evaluate;
pub mod fusion;
pub mod native;
pub mod optimiser;
pub mod rce;
pub mod two_branch;
pub mod weights;
