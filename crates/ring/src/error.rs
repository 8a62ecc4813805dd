//! What can go wrong when rings, bases and tables are set up.

use thiserror::Error;

/// Everything this crate reports instead of panicking.
///
/// Length mismatches between slices are programming errors and panic instead; each function that does so says it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RingError {
    /// A modulus was not an odd number in `3 .. 2^50`.
    #[error(
        "modulus {0} is out of range: expected an odd prime with 3 <= p < 2^50; take one from ntt_primes"
    )]
    ModulusRange(u64),
    /// A modulus was not prime.
    #[error("modulus {0} is not prime: expected an odd prime below 2^50; take one from ntt_primes")]
    NotPrime(u64),
    /// A ring dimension was not a supported power of two.
    #[error("ring dimension {0} is not supported: expected a power of two from 2 to 2^17")]
    Dimension(usize),
    /// A modulus has no primitive 2n-th root of unity.
    #[error("modulus {modulus} has no primitive {}-th root of unity: expected p = 1 mod {}; take it from ntt_primes({n})", 2 * n, 2 * n)]
    NoRoot {
        /// The modulus.
        modulus: u64,
        /// The ring dimension.
        n: usize,
    },
    /// A prime size was out of range.
    #[error("primes of {0} bits are not supported: expected 4 to 50 bits")]
    PrimeBits(u32),
    /// There are too few primes of the wanted form.
    #[error("found only {found} of {wanted} primes = 1 mod {} near 2^{bits}: ask for fewer, for more bits, or for a smaller ring", 2 * n)]
    TooFewPrimes {
        /// Size asked for, in bits.
        bits: u32,
        /// Ring dimension.
        n: usize,
        /// How many were wanted.
        wanted: usize,
        /// How many exist in the searched range.
        found: usize,
    },
    /// A base of moduli was empty.
    #[error("an RNS base needs at least one modulus, found none")]
    EmptyBase,
    /// A modulus occurs twice in one base, or is not coprime with another.
    #[error("modulus {0} occurs twice in one RNS base: expected pairwise distinct primes")]
    RepeatedModulus(u64),
    /// A kernel was asked for by name that this machine or this build does not have.
    #[error(
        "kernel '{name}' is not available: expected one of {available}; unset TACIT_KERNEL to pick the fastest"
    )]
    Kernel {
        /// The name asked for.
        name: String,
        /// The names that would work here.
        available: String,
    },
}
