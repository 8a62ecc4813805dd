//! Randomness: uniform residues, secrets and errors.
//!
//! **Side channels.** The samplers of secrets and errors ([`ternary`], [`fixed_weight`], [`gaussian`]) have no branch and
//! no memory index that depends on the sampled values, and take the same number of random words for the same arguments;
//! so do the conversions to residues. [`uniform`] rejects words, whose number depends only on values that were thrown
//! away. What the compiler makes of it was read, not proved.

use rand_chacha::ChaCha20Rng;
use rand_core::{CryptoRng, RngCore, SeedableRng};
use zeroize::{Zeroize, Zeroizing};

use crate::Modulus;

/// Standard deviation parameter of [`gaussian`].
pub const GAUSSIAN_SIGMA: f64 = 3.2;

/// Largest absolute value that [`gaussian`] returns.
pub const GAUSSIAN_BOUND: i32 = GAUSSIAN_CDT.len() as i32;

/// `round(2^63 P(|x| <= i))` for the discrete Gaussian on the integers with `P(x) ~ exp(-x^2 / (2 sigma^2))`,
/// `sigma = 3.2`; all later entries round to 2^63. Computed with 80 decimal digits.
const GAUSSIAN_CDT: [u64; 29] = [
    0x0ff5_2b40_64a1_f258,
    0x2e5a_25d4_026f_ff6e,
    0x489a_e268_2e3d_b9bb,
    0x5d2b_c20d_e6f9_5106,
    0x6bc8_694a_862f_cdcf,
    0x7532_d898_e9d1_95da,
    0x7ab3_96c9_80f5_facb,
    0x7d9e_4e8f_6717_ea70,
    0x7f05_4956_150a_592b,
    0x7fa1_ce99_f8db_f691,
    0x7fdf_b3f0_0a8f_3398,
    0x7ff5_e6f7_c97d_68d9,
    0x7ffd_1f95_b372_bd36,
    0x7fff_40f7_f7ae_dc64,
    0x7fff_d2e6_2d05_7ef0,
    0x7fff_f650_3aaa_2875,
    0x7fff_fe1b_ab99_a744,
    0x7fff_ffaa_0140_ce53,
    0x7fff_fff2_1f8a_3a77,
    0x7fff_fffd_f723_01f4,
    0x7fff_ffff_ba9f_d472,
    0x7fff_ffff_f79b_78ce,
    0x7fff_ffff_ff13_f6f9,
    0x7fff_ffff_ffe8_748a,
    0x7fff_ffff_fffd_de24,
    0x7fff_ffff_ffff_d320,
    0x7fff_ffff_ffff_fca7,
    0x7fff_ffff_ffff_ffc6,
    0x7fff_ffff_ffff_fffc,
];

/// A cryptographic generator (ChaCha20) seeded with 32 bytes from the operating system.
///
/// # Panics
/// If the operating system has no randomness to give; nothing safe can be done then.
pub fn secure_rng() -> ChaCha20Rng {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).expect("the operating system's random number generator failed");
    let rng = ChaCha20Rng::from_seed(seed);
    seed.zeroize();
    rng
}

/// Fills `out` with independent uniform residues of `[0, p)`, by rejection from `bits(p)` random bits.
pub fn uniform(m: &Modulus, rng: &mut (impl RngCore + ?Sized), out: &mut [u64]) {
    let (p, mask) = (m.value(), u64::MAX >> (64 - m.bits()));
    let mut bytes = [0u8; 2048];
    let (mut filled, total) = (0, out.len());
    while filled < total {
        let batch = &mut bytes[..(8 * (total - filled)).min(2048)];
        rng.fill_bytes(batch);
        for word in batch.chunks_exact(8) {
            let x = u64::from_le_bytes(word.try_into().expect("eight bytes")) & mask;
            // Written always, kept only if it is a residue.
            out[filled] = x;
            filled += usize::from(x < p);
        }
    }
    bytes.zeroize();
}

/// Fills `out` with the uniform residues that a seed stands for: ChaCha20 keyed by `seed`, stream number `stream`.
/// Equal arguments give equal residues on every machine; give every limb of every polynomial its own stream.
pub fn uniform_from_seed(m: &Modulus, seed: &[u8; 32], stream: u64, out: &mut [u64]) {
    let mut rng = ChaCha20Rng::from_seed(*seed);
    rng.set_stream(stream);
    uniform(m, &mut rng, out);
}

/// `n` independent uniform values of `{-1, 0, 1}`: `floor(3 r / 2^64) - 1` for a random 64-bit `r`, whose distance from
/// uniform is below `2^-62` each.
pub fn ternary(rng: &mut (impl CryptoRng + ?Sized), n: usize) -> Zeroizing<Vec<i8>> {
    let mut out = Zeroizing::new(vec![0; n]);
    for x in out.iter_mut() {
        *x = below(rng, 3) as i8 - 1;
    }
    out
}

/// A value in `[0, bound)`, off uniform by at most `bound / 2^64`.
#[inline]
fn below(rng: &mut (impl CryptoRng + ?Sized), bound: u64) -> u64 {
    ((u128::from(rng.next_u64()) * u128::from(bound)) >> 64) as u64
}

/// A uniform vector of `{-1, 0, 1}^n` with exactly `h` entries that are not zero.
///
/// The places are drawn one by one: the `r`-th free place is found by a scan over all of them. Takes `O(n h)` time.
///
/// # Panics
/// If `h > n`.
pub fn fixed_weight(rng: &mut (impl CryptoRng + ?Sized), n: usize, h: usize) -> Zeroizing<Vec<i8>> {
    assert!(
        h <= n,
        "a vector of {n} entries cannot have {h} that are not zero"
    );
    let mut out = Zeroizing::new(vec![0i8; n]);
    for taken in 0..h {
        let mut rank = below(rng, (n - taken) as u64);
        let sign = 1 - 2 * (rng.next_u32() >> 31) as i8;
        for x in out.iter_mut() {
            let free = 1 ^ (*x as u64 & 1);
            // All ones exactly where the place is free and `rank` is zero; then `rank` wraps and never is zero again.
            let hit = (free & (rank.wrapping_sub(1) & !rank) >> 63).wrapping_neg();
            *x |= sign & hit as i8;
            rank = rank.wrapping_sub(free);
        }
    }
    out
}

/// `n` independent samples of the discrete Gaussian with `sigma = 3.2` on the integers, `P(x) ~ exp(-x^2 / (2 sigma^2))`,
/// cut where the probabilities fall under `2^-63`.
///
/// Inversion of the cumulative table by a full scan: 63 random bits pick the absolute value, one bit the sign.
pub fn gaussian(rng: &mut (impl CryptoRng + ?Sized), n: usize) -> Zeroizing<Vec<i32>> {
    let mut out = Zeroizing::new(vec![0; n]);
    let mut words = [0u64; 64];
    for block in out.chunks_mut(64) {
        for word in &mut words[..block.len()] {
            *word = rng.next_u64();
        }
        for (x, &word) in block.iter_mut().zip(&words) {
            let r = word >> 1;
            // Counts the entries that are not above r: the sign bit of r - entry is 1 where r < entry.
            let size: u64 = GAUSSIAN_CDT
                .iter()
                .map(|&entry| 1 ^ (r.wrapping_sub(entry) >> 63))
                .sum();
            let minus = -((word & 1) as i32);
            *x = (size as i32 ^ minus) - minus;
        }
    }
    words.zeroize();
    out
}

macro_rules! signed_to_residues {
    ($($name:ident, $type:ty;)*) => {$(
        /// Signed integers to canonical residues.
        ///
        /// # Panics
        /// If the slices differ in length.
        pub fn $name(m: &Modulus, src: &[$type], out: &mut [u64]) {
            assert!(src.len() == out.len(), "slices differ in length: {} and {}", src.len(), out.len());
            if <$type>::MAX as u64 <= m.value() / 2 {
                let p = m.value();
                for (o, &x) in out.iter_mut().zip(src) {
                    let x = i64::from(x);
                    *o = (x as u64).wrapping_add(p & (x >> 63) as u64);
                }
            } else {
                for (o, &x) in out.iter_mut().zip(src) {
                    *o = m.from_i64(i64::from(x));
                }
            }
        }
    )*};
}

signed_to_residues! {
    signed_to_residues_i8, i8;
    signed_to_residues_i32, i32;
    signed_to_residues_i64, i64;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rng(seed: u8) -> ChaCha20Rng {
        ChaCha20Rng::from_seed([seed; 32])
    }

    #[test]
    fn gaussian_table_is_the_distribution() {
        let density = |x: f64| (-x * x / (2.0 * GAUSSIAN_SIGMA * GAUSSIAN_SIGMA)).exp();
        let total: f64 = density(0.0) + 2.0 * (1..60).map(|x| density(f64::from(x))).sum::<f64>();
        let mut sum = density(0.0);
        for (i, &entry) in GAUSSIAN_CDT.iter().enumerate() {
            let want = sum / total;
            let got = entry as f64 / 2f64.powi(63);
            assert!(
                (got - want).abs() < 1e-15,
                "entry {i}: {got} against {want}"
            );
            sum += 2.0 * density(i as f64 + 1.0);
        }
    }

    #[test]
    fn fixed_weight_has_its_weight() {
        for (n, h) in [(16, 0), (16, 16), (64, 5), (1024, 32)] {
            let v = fixed_weight(&mut rng(1), n, h);
            assert_eq!(v.iter().filter(|&&x| x != 0).count(), h);
            assert!(v.iter().all(|x| (-1..=1).contains(x)));
        }
    }

    #[test]
    fn signed_integers_become_residues() {
        for p in [3, 97, crate::ntt_primes(50, 16, 1, &[]).unwrap()[0]] {
            let m = Modulus::new(p).unwrap();
            let src = [0i8, 1, -1, 127, -128];
            let mut out = [0; 5];
            signed_to_residues_i8(&m, &src, &mut out);
            let wide: Vec<i64> = src.iter().map(|&x| i64::from(x)).collect();
            let mut out64 = [0; 5];
            signed_to_residues_i64(&m, &wide, &mut out64);
            for ((&x, &r), &r64) in wide.iter().zip(&out).zip(&out64) {
                assert_eq!(r, x.rem_euclid(p as i64) as u64);
                assert_eq!(r64, r);
            }
        }
    }
}
