//! Training a BitNet from scratch on a folder of text, for encrypted inference.
//!
//! ```text
//! folders ── Corpus ── train_tokenizer ── token ids ─┐
//!                                                    ├─ train ── checkpoint (f32 masters, AdamW state)
//! TrainConfig ───────── Network (f32 masters) ───────┘     └──── export: config.json, model.safetensors, tokenizer.json
//! ```
//!
//! The weights of the linear layers are ternary in the forward pass (absolute-mean quantisation per tensor) and receive the
//! gradient as if they were not (straight-through estimator; BitNet b1.58, arXiv 2402.17764). Attention is
//! `sigmoid(q.k / sqrt(d) - ln(i + 1) + b_h)` with a trained bias per head, or softmax for comparison. The gains of all norms
//! inside the layers are 1, since a ternary matrix cannot absorb a gain.
//!
//! A model that will be evaluated with polynomials needs narrow ranges. [`Penalties`] adds small costs on attention logits, mean
//! squares before the sub-norms, gate pre-activations and peaks that leave a wanted range.
//!
//! Matrix products run in candle; everything element-wise is hand-written with its backward pass and gradient-checked,
//! which on a CPU is several times faster than a graph of small operations.

mod checkpoint;
mod config;
mod corpus;
mod data;
mod export;
mod extract;
mod kernels;
mod model;
mod optimiser;
mod sample;
mod tokenizer_training;
mod trainer;
mod tune;

pub use config::{AttentionKind, Penalties, TrainConfig, TrainError};
pub use corpus::{Corpus, Document, family};
pub use data::TokenData;
pub use export::{pack_ternary, unpack_ternary, write_model};
pub use extract::{doc_comments, html_paragraphs, markdown_paragraphs, strip_source_page};
pub use model::{Network, NormState};
pub use optimiser::learning_rate;
pub use tokenizer_training::{END_OF_TEXT, encode_corpus, train_tokenizer};
pub use trainer::{Progress, TrainSummary, Trainer, train};
pub use tune::{LossAndGradients, ParameterView, Role, ternarise};
