//! RNS-CKKS: approximate arithmetic on encrypted complex vectors.
//!
//! From bottom to top: [`parameters`] and [`security`] (what is safe), [`context`] (tables), [`encoder`], [`keys`] and [`key_generator`],
//! [`mod@encrypt`], [`evaluator`] (arithmetic) with [`key_switch`] and [`hoisting`], [`noise`] (what each operation costs in bits), [`wire`] (bytes).
//!
//! Conventions: a ciphertext `(b, a)` satisfies `b + a s = m + e (mod Q)`; residues are in NTT form; *level* `l` means the limbs `q_0..=q_l`.
#![forbid(unsafe_code)]

pub mod bootstrap;
pub mod ciphertext;
pub mod context;
pub mod counts;
pub mod dft;
mod dot_plain;
pub mod encapsulation;
pub mod encoder;
pub mod encrypt;
pub mod error;
pub mod eval_mod;
pub mod evaluator;
pub mod fft;
pub mod hoisting;
pub mod key_generator;
pub mod key_switch;
pub mod keys;
pub mod linear_map;
mod mixed_radix;
pub mod mlwe;
pub mod noise;
pub mod parameters;
mod periodic;
pub mod polynomial;
mod polynomial_evaluation;
pub mod presets;
pub mod quadratic;
mod rescale;
pub mod security;
mod ternary_columns;
pub mod wire;

pub use ciphertext::{Ciphertext, LazyCiphertext, Plaintext, SeededCiphertext};
pub use context::Context;
pub use counts::OpCounts;
pub use encoder::Encoder;
pub use error::CkksError;
pub use evaluator::Evaluator;
pub use hoisting::HoistedCiphertext;
pub use key_generator::KeyGenerator;
pub use keys::{EvaluationKeys, KeyId, KeyRole, KeyShape, PublicKey, SecretKey, SwitchingKey};
pub use parameters::{InsecureParameters, Parameters, ParametersLiteral};
pub use quadratic::Quadratic;
pub use ternary_columns::MaskedRows;
