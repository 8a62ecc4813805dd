//! A BitNet computed under encryption, as one message each way per token (ENSI, arXiv 2509.09424, taken further).
//!
//! ```text
//!        client                                             server
//!   KeyPlan ◄──────────────────────────────────────── EncryptedModel::key_plan
//!   Client::key_messages ──── evaluation keys ───────► Server::accept_key
//!   Client::encrypt_prompt ── one or more ciphertexts ► Server::forward
//!                                                        │ Transformer::run on an EncryptedMachine:
//!                                                        │   norms, attention, activation     on slots
//!                                                        │   q k v, o, gate up, down          on coefficients, by additions,
//!                                                        │                                    between SlotsToCoeffs and ModRaise
//!   Client::decrypt_answer ◄── hidden states ────────────┘
//! ```
//!
//! | type | what it is |
//! | --- | --- |
//! | [`EncryptedModel`] | placed weights, engine, [`Plan`] and [`KeyPlan`]; nothing secret |
//! | [`Client`] | secrets; makes keys, encrypts prompts, decrypts answers |
//! | [`Server`] | one client's evaluation keys; runs forward passes |
//! | [`transformer::Transformer`] | the model as a program over a [`machine::Machine`] |
//! | [`machine`] | who carries the program out: on shapes (the plan), in the clear (the specification), on ciphertexts |
//! | [`columns`] | many documents at once, one feature a ciphertext |
//! | [`layout::Layout`] | where a (feature, token) value lives; nothing else knows |
//!
//! Client and server share bytes only ([`message`]), also when they live in one process.
//!
//! What the server learns: the key plan (its own), the number and time of requests. Not the prompt, not its length, not the answer.
//! It is trusted to compute what it promised (honest but curious): nothing here proves that it did.
#![forbid(unsafe_code)]

pub mod client;
pub mod columns;
pub mod error;
pub mod keys;
pub mod layout;
pub mod machine;
pub mod message;
pub mod model;
pub mod plan;
pub mod server;
pub mod ternary_layer;
pub mod transformer;

pub use client::Client;
pub use columns::{ColumnModel, ColumnServer};
pub use error::EnsiError;
pub use model::{EncryptedModel, KeyPlan};
pub use plan::{Counts, Plan, PlanStep};
pub use server::{Progress, Server};
