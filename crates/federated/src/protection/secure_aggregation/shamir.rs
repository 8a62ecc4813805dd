//! Shamir's sharing of 32-byte secrets over the prime field of `2^61 − 1`.
//!
//! A secret is cut into five parts of at most 7 bytes; each is the value at 0 of a random polynomial of degree `t − 1`, and party `x` gets the
//! values at `x`. Any `t − 1` values are independent of the secret (Shamir 1979); `t` values give it by Lagrange interpolation at 0.

use super::STAGE;
use crate::protection::ProtectionError;
use rand_core::{CryptoRng, RngCore};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The Mersenne prime `2^61 − 1`.
const P: u64 = (1 << 61) - 1;
const PARTS: usize = 5;
const PART_BYTES: usize = 7;

/// Bytes of a secret.
pub const SECRET_BYTES: usize = 32;
/// Bytes of a serialised share.
pub const SHARE_BYTES: usize = 8 * PARTS;

/// One party's share: the values of five polynomials at the party's point.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share([u64; PARTS]);

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Share(..)")
    }
}

impl Share {
    /// Little-endian field elements.
    pub fn to_bytes(&self) -> [u8; SHARE_BYTES] {
        let mut out = [0; SHARE_BYTES];
        for (chunk, x) in out.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&x.to_le_bytes());
        }
        out
    }

    /// The inverse of [`Self::to_bytes`]; `None` for a wrong length or an element that is not reduced.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        if bytes.len() != SHARE_BYTES {
            return None;
        }
        let mut out = [0; PARTS];
        for (x, chunk) in out.iter_mut().zip(bytes.chunks_exact(8)) {
            *x = u64::from_le_bytes(chunk.try_into().ok()?);
            if *x >= P {
                return None;
            }
        }
        Some(Self(out))
    }
}

fn reduce(x: u128) -> u64 {
    // x < 2^122: two folds of the low 61 bits and the rest, then one subtraction.
    let folded = (x as u64 & P) + (x >> 61) as u64;
    let folded = (folded & P) + (folded >> 61);
    if folded >= P { folded - P } else { folded }
}

fn mul(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

fn add(a: u64, b: u64) -> u64 {
    let s = a + b;
    if s >= P { s - P } else { s }
}

fn inverse(a: u64) -> u64 {
    let (mut base, mut exponent, mut out) = (a, P - 2, 1);
    while exponent > 0 {
        if exponent & 1 == 1 {
            out = mul(out, base);
        }
        base = mul(base, base);
        exponent >>= 1;
    }
    out
}

fn uniform(rng: &mut (impl RngCore + ?Sized)) -> u64 {
    loop {
        let x = rng.next_u64() >> 3;
        if x < P {
            return x;
        }
    }
}

/// Shares of `secret` for the parties at `points` (distinct, not zero), any `threshold` of which recover it.
///
/// # Errors
/// [`ProtectionError::Setting`] for a threshold of 0 or above the number of points, or points that are zero or repeated.
pub fn split(
    secret: &[u8; SECRET_BYTES],
    threshold: usize,
    points: &[u64],
    rng: &mut (impl CryptoRng + ?Sized),
) -> Result<Vec<Share>, ProtectionError> {
    if threshold == 0 || threshold > points.len() {
        return Err(ProtectionError::setting(
            STAGE,
            "share_threshold",
            threshold,
            format!("1 to {}", points.len()),
            "more members are needed",
        ));
    }
    check_points(points)?;
    let mut coefficients: Vec<[u64; PARTS]> = vec![[0; PARTS]; threshold];
    for (part, bytes) in secret.chunks(PART_BYTES).enumerate() {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        coefficients[0][part] = u64::from_le_bytes(word);
        word.zeroize();
    }
    for c in &mut coefficients[1..] {
        for x in c {
            *x = uniform(rng);
        }
    }
    let shares = points
        .iter()
        .map(|&x| {
            let mut value = [0; PARTS];
            for c in coefficients.iter().rev() {
                for (v, &c) in value.iter_mut().zip(c) {
                    *v = add(mul(*v, x), c);
                }
            }
            Share(value)
        })
        .collect();
    coefficients.zeroize();
    Ok(shares)
}

/// The secret from shares at distinct points: exactly as many as the threshold are needed, more do no harm if all are right.
///
/// Wrong shares give a wrong secret without notice, which is why the protocol commits to each; `None` only if the result is not a
/// secret of 32 bytes at all.
///
/// # Errors
/// [`ProtectionError::Setting`] for points that are zero or repeated.
pub fn recover(shares: &[(u64, Share)]) -> Result<Option<[u8; SECRET_BYTES]>, ProtectionError> {
    let points: Vec<u64> = shares.iter().map(|(x, _)| *x).collect();
    check_points(&points)?;
    let mut parts = [0u64; PARTS];
    for (i, (x, share)) in shares.iter().enumerate() {
        // Lagrange at 0: Π_{j≠i} x_j / (x_j − x_i).
        let (mut top, mut bottom) = (1, 1);
        for (j, &other) in points.iter().enumerate() {
            if i != j {
                top = mul(top, other);
                bottom = mul(bottom, add(other, P - x));
            }
        }
        let weight = mul(top, inverse(bottom));
        for (part, &value) in parts.iter_mut().zip(&share.0) {
            *part = add(*part, mul(weight, value));
        }
    }
    let mut secret = [0; SECRET_BYTES];
    for (bytes, part) in secret.chunks_mut(PART_BYTES).zip(parts) {
        let word = part.to_le_bytes();
        if word[bytes.len()..].iter().any(|&b| b != 0) {
            return Ok(None);
        }
        bytes.copy_from_slice(&word[..bytes.len()]);
    }
    Ok(Some(secret))
}

fn check_points(points: &[u64]) -> Result<(), ProtectionError> {
    let mut sorted = points.to_vec();
    sorted.sort_unstable();
    if sorted.first() == Some(&0)
        || sorted.last().is_some_and(|&x| x >= P)
        || sorted.windows(2).any(|w| w[0] == w[1])
    {
        return Err(ProtectionError::setting(
            STAGE,
            "points",
            format!("{points:?}"),
            "distinct, not zero, below 2^61 - 1",
            "number the clients from 1",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    proptest! {
        #[test]
        fn any_threshold_recovers_and_fewer_do_not(secret: [u8; 32], seed: [u8; 32], t in 2usize..8, extra in 0usize..5, skip: u64) {
            let n = t + extra;
            let points: Vec<u64> = (1..=n as u64).map(|i| i * 7).collect();
            let shares = split(&secret, t, &points, &mut ChaCha20Rng::from_seed(seed)).unwrap();
            let mut held: Vec<(u64, Share)> = points.iter().copied().zip(shares).collect();
            let shift = (skip % n as u64) as usize;
            held.rotate_left(shift);
            prop_assert_eq!(recover(&held[..t]).unwrap(), Some(secret));
            prop_assert_eq!(recover(&held).unwrap(), Some(secret));
            prop_assert_ne!(recover(&held[..t - 1]).unwrap(), Some(secret));
        }

        #[test]
        fn the_field_is_a_field(a in 1..P, b in 0..P) {
            prop_assert_eq!(mul(a, inverse(a)), 1);
            prop_assert_eq!(mul(a, b), (u128::from(a) * u128::from(b) % u128::from(P)) as u64);
        }
    }

    #[test]
    fn shares_below_the_threshold_do_not_depend_on_the_secret() {
        // With one coefficient stream fixed, shifting the secret shifts every share by the same amount: for each t − 1 shares and each secret
        // there is exactly one polynomial, so their joint distribution is the same. Here: t = 2, one share takes every residue class alike.
        let mut counts = [[0u32; 16]; 2];
        let mut rng = ChaCha20Rng::from_seed([1; 32]);
        for (which, secret) in [[0u8; 32], [255; 32]].iter().enumerate() {
            for _ in 0..4000 {
                let share = &split(secret, 2, &[1, 2], &mut rng).unwrap()[0];
                counts[which][(share.0[0] >> 57) as usize] += 1;
            }
        }
        for c in counts {
            let chi: f64 = c
                .iter()
                .map(|&k| (f64::from(k) - 250.0).powi(2) / 250.0)
                .sum();
            assert!(chi < 45.0, "{chi} at 15 degrees of freedom");
        }
    }

    #[test]
    fn bytes_round_trip_and_are_strict() {
        let share = &split(&[9; 32], 1, &[3], &mut ChaCha20Rng::from_seed([2; 32])).unwrap()[0];
        assert_eq!(Share::from_bytes(&share.to_bytes()).as_ref(), Some(share));
        assert!(Share::from_bytes(&[0xff; SHARE_BYTES]).is_none());
        assert!(Share::from_bytes(&[0; SHARE_BYTES - 1]).is_none());
        assert!(recover(&[(1, share.clone()), (1, share.clone())]).is_err());
        assert!(split(&[0; 32], 2, &[0, 1], &mut ChaCha20Rng::from_seed([2; 32])).is_err());
    }
}
