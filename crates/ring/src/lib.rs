//! Integers modulo primes below 2^50, polynomials over them, and the randomness that encryption needs.
//!
//! A ciphertext ring element is a polynomial of `Z[X]/(X^n + 1)` modulo a product `Q = q_0 q_1 ... q_l`. It is kept as its
//! residues modulo each prime, one row (*limb*) of `n` words per prime, so that everything below happens limb by limb:
//!
//! ```text
//!   seed, OS ──► sampling ──► integers ──► signed_to_residues ─┐
//!                                                              ▼
//!                ┌───────────────── RnsPoly, coefficients ─────────────────┐
//!                │    automorphism_coeffs        BaseConverter             │ residues modulo other primes
//!                └──────┬──────────────────────────────▲───────────────────┘
//!          NttTable::forward                   NttTable::inverse
//!                ┌──────▼──────────────────────────────┴───────────────────┐
//!                │    ops: +  -  *  sums of products    NttPermutation     │
//!                └───────────────── RnsPoly, values at roots ──────────────┘
//! ```
//!
//! | item | what it is |
//! | --- | --- |
//! | [`Modulus`] | a prime below 2^50 with the constants of its reductions |
//! | [`ntt_primes`] | primes `1 mod 2n` near a power of two |
//! | [`RnsPoly`] | the residues of one polynomial, aligned, on huge pages |
//! | [`PackedPoly`] | the same without gaps, for keys |
//! | [`NttTable`] | the negacyclic transform and its inverse |
//! | [`ops`] | element-wise arithmetic and inner products |
//! | [`BaseConverter`] | residues modulo other primes, exact on centred integers |
//! | [`NttPermutation`], [`automorphism_coeffs`] | `X -> X^g` on values and on coefficients |
//! | [`sampling`] | uniform residues, ternary and fixed-weight secrets, Gaussian errors |
//! | [`ternary`] | products of ternary matrices with vectors of words, by additions |
//! | [`kernels`] | the inner loops: portable, for AVX2 with FMA, and for AVX-512 IFMA; picked at run time |
//!
//! All residues are canonical, in `[0, p)`, wherever a caller sees them. Primes stay below 2^50 so that four times a residue
//! fits into the 52 bits that vector units multiply. Results do not depend on the kernel or on the number of threads.
//!
//! ```
//! use tacit_ring::{Modulus, NttTable, ntt_primes, ops};
//! // (1 + X) (1 - X) = 1 - X^2 in Z_p[X]/(X^8 + 1)
//! let p = Modulus::new(ntt_primes(50, 8, 1, &[])?[0])?;
//! let table = NttTable::new(8, p)?;
//! let mut a = [1, 1, 0, 0, 0, 0, 0, 0];
//! let mut b = [1, p.neg(1), 0, 0, 0, 0, 0, 0];
//! table.forward(&mut a);
//! table.forward(&mut b);
//! ops::mul_assign(&p, &mut a, &b);
//! table.inverse(&mut a);
//! assert_eq!(a, [1, 0, p.neg(1), 0, 0, 0, 0, 0]);
//! # Ok::<(), tacit_ring::RingError>(())
//! ```

pub mod automorphism;
pub mod base_conversion;
mod error;
pub mod kernels;
mod memory;
pub mod modulus;
pub mod ntt;
pub mod ops;
pub mod packed;
pub mod poly;
pub mod primes;
pub mod sampling;
pub mod ternary;

pub use automorphism::{
    NttPermutation, automorphism_coeffs, galois_conjugation, galois_of_rotation,
};
pub use base_conversion::BaseConverter;
pub use error::RingError;
pub use memory::keep_freed_blocks;
pub use modulus::Modulus;
pub use ntt::{NttTable, bit_reverse};
pub use packed::{PackedLimb, PackedPoly};
pub use poly::RnsPoly;
pub use primes::{is_prime, ntt_primes};
