//! The red team: attacks as programs, each with its measure with and without a defence.
//!
//! | attack | on | measure |
//! | --- | --- | --- |
//! | [`byzantine`]: label flip, sign flip, model replacement, backdoor with Sybils, backdoor spread over honest clients' data, a-little-is-enough | the aggregation rule | clean accuracy, attack success |
//! | [`inversion`]: token recovery from gradients | what a client sends | share of tokens recovered, against chance |
//! | [`partial`]: the same where a part of the values is encrypted | the values left in the clear | as above |
//! | [`text`]: the same on the language model's own gradients | plain updates, secure sums, noisy secure sums | as above |
//! | [`membership`]: loss threshold, likelihood ratio with shadow models | the trained model | AUC, true positives at few false ones |
//! | [`aggregator`]: a coordinator that tells two lists of survivors or slips in keys | secure aggregation | shares handed out |
//! | [`federation`]: inversion, membership and exposure for a whole configuration, with its protections and without | a run | as above |
//! | [`canary`]: exposure of a secret that was trained on | the trained model | bits |
//!
//! The attacks work on plain vectors and losses, so that any model can be put to them.

pub mod aggregator;
pub mod byzantine;
pub mod canary;
pub mod federation;
pub mod inversion;
pub mod membership;
pub mod partial;
mod task;
pub mod text;

pub use task::{Data, SoftmaxTask};
