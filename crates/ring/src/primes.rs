//! Primes with the roots of unity that the negacyclic transform needs.

use crate::{RingError, modulus::MAX_MODULUS_BITS};

/// Largest supported ring dimension, 2^17.
pub const MAX_DIMENSION: usize = 1 << 17;

/// Checks that `n` is a power of two from 2 to 2^17.
pub(crate) fn check_dimension(n: usize) -> Result<(), RingError> {
    if n.is_power_of_two() && (2..=MAX_DIMENSION).contains(&n) {
        Ok(())
    } else {
        Err(RingError::Dimension(n))
    }
}

/// `count` distinct primes `p = 1 mod 2n`, none of them in `exclude`.
///
/// For `bits = 50` they run downward from 2^50 (a modulus must stay below 2^50). For fewer bits they are the nearest
/// to `2^bits`, from both sides in the order of their distance, so that the product of many stays close to a power of
/// `2^bits`; they stay within a factor 2 of it.
///
/// # Errors
/// [`RingError::Dimension`], [`RingError::PrimeBits`] outside 4 to 50, [`RingError::TooFewPrimes`].
pub fn ntt_primes(
    bits: u32,
    n: usize,
    count: usize,
    exclude: &[u64],
) -> Result<Vec<u64>, RingError> {
    check_dimension(n)?;
    if !(4..=MAX_MODULUS_BITS).contains(&bits) {
        return Err(RingError::PrimeBits(bits));
    }
    let (step, centre) = (2 * n as i64, (1i64 << bits) + 1);
    let (low, high) = (
        1i64 << (bits - 1),
        if bits == MAX_MODULUS_BITS {
            centre - 1
        } else {
            1i64 << (bits + 1)
        },
    );
    let mut found = Vec::with_capacity(count);
    let mut k = 0i64;
    while found.len() < count && centre - k * step > low {
        for candidate in [centre - k * step, centre + k * step] {
            let repeated = candidate == centre && k > 0;
            if candidate <= low || candidate >= high || repeated || found.len() == count {
                continue;
            }
            let candidate = candidate as u64;
            if is_prime(candidate) && !exclude.contains(&candidate) && !found.contains(&candidate) {
                found.push(candidate);
            }
        }
        k += 1;
    }
    if found.len() < count {
        return Err(RingError::TooFewPrimes {
            bits,
            n,
            wanted: count,
            found: found.len(),
        });
    }
    Ok(found)
}

/// Whether `x` is prime: Miller-Rabin with the first twelve primes as bases, which is exact for all 64-bit numbers
/// (Sorenson and Webster, Math. Comp. 2017).
pub fn is_prime(x: u64) -> bool {
    const BASES: [u64; 12] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37];
    if x < 2 {
        return false;
    }
    for p in BASES {
        if x.is_multiple_of(p) {
            return x == p;
        }
    }
    let mul = |a: u64, b: u64| ((u128::from(a) * u128::from(b)) % u128::from(x)) as u64;
    let twos = (x - 1).trailing_zeros();
    let odd = (x - 1) >> twos;
    'bases: for base in BASES {
        let (mut power, mut square, mut e) = (1, base, odd);
        while e > 0 {
            if e & 1 == 1 {
                power = mul(power, square);
            }
            square = mul(square, square);
            e >>= 1;
        }
        if power == 1 || power == x - 1 {
            continue;
        }
        for _ in 1..twos {
            power = mul(power, power);
            if power == x - 1 {
                continue 'bases;
            }
        }
        return false;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primality_agrees_with_trial_division() {
        for x in 0..20_000u64 {
            let plain = x >= 2 && (2..).take_while(|d| d * d <= x).all(|d| x % d != 0);
            assert_eq!(is_prime(x), plain, "{x}");
        }
        assert!(is_prime(18_446_744_073_709_551_557));
        assert!(!is_prime(3_215_031_751)); // a strong pseudoprime to the bases 2, 3, 5 and 7
        assert!(!is_prime(u64::MAX));
    }

    #[test]
    fn primes_have_the_wanted_form() {
        let n = 1 << 16;
        let top = ntt_primes(50, n, 24, &[]).unwrap();
        assert!(top.windows(2).all(|w| w[0] > w[1]));
        let middle = ntt_primes(45, n, 13, &[]).unwrap();
        let product: f64 = middle.iter().map(|&p| (p as f64).log2() - 45.0).sum();
        assert!(product.abs() < 1e-5, "{product}");
        for (list, bits) in [(&top, 50), (&middle, 45)] {
            for &p in list {
                assert!(is_prime(p) && p % (2 * n as u64) == 1 && p < 1 << 50);
                assert!(((p as f64).log2() - f64::from(bits)).abs() < 1e-4);
            }
        }
        let next = ntt_primes(50, n, 24, &top).unwrap();
        assert!(next.iter().all(|p| !top.contains(p)));
    }

    #[test]
    fn impossible_requests_are_errors() {
        assert_eq!(ntt_primes(50, 3, 1, &[]), Err(RingError::Dimension(3)));
        assert_eq!(ntt_primes(51, 8, 1, &[]), Err(RingError::PrimeBits(51)));
        assert!(matches!(
            ntt_primes(8, 8, 100, &[]),
            Err(RingError::TooFewPrimes { .. })
        ));
    }
}
