//! Residues, number-theoretic transforms, RNS bases and samplers.

pub mod automorphism;
pub mod base_conversion;
mod error;
pub mod kernels;
mod memory;
pub mod modulus;
pub mod ntt;
pub mod ops;
pub mod poly;
pub mod primes;
pub mod sampling;
pub mod ternary;

pub use automorphism::{
    NttPermutation, automorphism_coeffs, galois_conjugation, galois_of_rotation,
};
pub use base_conversion::BaseConverter;
pub use error::RingError;
pub use modulus::Modulus;
pub use ntt::{NttTable, bit_reverse};
pub use poly::RnsPoly;
pub use primes::{is_prime, ntt_primes};
