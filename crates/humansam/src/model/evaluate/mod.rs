//! How good the answers are: measures, baselines, and the benchmark on generated video.

pub mod bench;
pub mod confidence;
pub mod extract;
pub mod gate;
pub mod hfv;
pub mod logistic;
pub mod metrics;
pub mod parts;
pub mod statistics;
