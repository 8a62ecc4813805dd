//! BitNet language models in the clear: checkpoints, tokenizer, reference forward pass, calibration, training.
//!
//! A BitNet is a decoder-only transformer whose linear layers hold weights in {-1, 0, 1} and one scale per matrix
//! (b1.58: <https://arxiv.org/abs/2402.17764>, 2B4T: <https://arxiv.org/abs/2504.12285>). This crate reads such models from
//! the forms they are published in, runs them in the clear as the reference that encrypted inference is compared with, and
//! measures the ranges and fits the polynomials that encrypted inference evaluates in place of sigmoid, inverse square root
//! and activation. It knows nothing of encryption.
//!
//! ```text
//!   config.json ──────────────► Config ─┐
//!   *.safetensors (packed, masters) ────┼─► checkpoint::load ─► Model ──► forward ──► hidden states, logits ──► sampling
//!   *.gguf (TQ1_0, TQ2_0, I2_S, F16) ───┘        │              ▲  ▲         │ Probe: every named intermediate
//!   tokenizer.json ─► Tokenizer                  └► LoadReport  │  │         ▼
//!                                                               │  └── calibrate ─► Calibration (calibration.json)
//!                                                               │       per layer and function: ChebyshevSeries
//!                                                               └───── train (exports a model folder)
//! ```
//!
//! | type | what it is |
//! | --- | --- |
//! | [`Config`] | sizes and choices of a model, read from `config.json` or GGUF metadata |
//! | [`Model`], [`LayerWeights`] | all weights in memory |
//! | [`TernaryMatrix`] | weights in {-1, 0, 1}, two bits each, with one scale |
//! | [`checkpoint::load`], [`LoadReport`] | reads a model folder or a GGUF file and says what was done |
//! | [`Tokenizer`] | text to token ids and back, streaming |
//! | [`Functions`], [`ForwardOptions`], [`Probe`] | how the forward pass computes its functions, and a look inside it |
//! | [`Calibration`], [`ChebyshevSeries`] | the polynomials of encrypted inference, and measured ranges |
//! | [`train::TrainConfig`], [`train::train`] | trains a model folder from a folder of text |
#![forbid(unsafe_code)]

mod attention;
pub mod calibration;
pub mod checkpoint;
pub mod config;
pub mod error;
pub mod forward;
pub mod functions;
pub mod kv_cache;
pub mod polynomial;
pub mod sampling;
pub mod synth;
pub mod ternary;
pub mod tokenizer;
pub mod train;

pub use calibration::{
    Calibration, CalibrationOptions, CalibrationOutcome, Degrees, Evaluation, LayerCalibration,
    MaxAbs, MeanSquares, SequenceReport, calibrate, calibrate_head_biases, evaluate,
    normalise_rows,
};
pub use checkpoint::{LayerWeights, LoadReport, Model};
pub use config::{Activation, Attention, Config};
pub use error::BitnetError;
pub use forward::HiddenStates;
pub use functions::{
    ForwardOptions, FunctionKind, Functions, Noise, OutOfRange, Probe, Quantity, RangeReport,
};
pub use kv_cache::KvCache;
pub use polynomial::ChebyshevSeries;
pub use sampling::{Sampler, SamplingOptions, argmax};
pub use ternary::{DenseMatrix, Matrix, TernaryMatrix};
pub use tokenizer::Tokenizer;
