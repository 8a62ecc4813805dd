//! Statistics and determinism of the samplers. Seeds are fixed: a test passes or fails for good.

use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use tacit_ring::{
    Modulus, ntt_primes,
    sampling::{self, GAUSSIAN_BOUND, GAUSSIAN_SIGMA},
};

fn rng(seed: u8) -> ChaCha20Rng {
    ChaCha20Rng::from_seed([seed; 32])
}

fn modulus(bits: u32) -> Modulus {
    Modulus::new(ntt_primes(bits, 1 << 10, 1, &[]).unwrap()[0]).unwrap()
}

/// Chi-square of counts against expected counts.
fn chi_square(counts: &[u64], expected: &[f64]) -> f64 {
    counts
        .iter()
        .zip(expected)
        .map(|(&c, &e)| (c as f64 - e).powi(2) / e)
        .sum()
}

/// A bound that chi-square of `freedom` degrees exceeds with probability about 1e-6 (Wilson and Hilferty).
fn bound(freedom: usize) -> f64 {
    let k = freedom as f64;
    k * (1.0 - 2.0 / (9.0 * k) + 4.75 * (2.0 / (9.0 * k)).sqrt()).powi(3)
}

#[test]
fn uniform_residues_fill_the_range_evenly() {
    const CELLS: usize = 256;
    for bits in [17, 40, 50] {
        let m = modulus(bits);
        let mut x = vec![0; 1 << 18];
        sampling::uniform(&m, &mut rng(1), &mut x);
        let mut counts = [0; CELLS];
        for &x in &x {
            assert!(x < m.value());
            counts[(u128::from(x) * CELLS as u128 / u128::from(m.value())) as usize] += 1;
        }
        let chi = chi_square(&counts, &[x.len() as f64 / CELLS as f64; CELLS]);
        assert!(chi < bound(CELLS - 1), "{bits} bits: {chi}");
        let low: u64 = x.iter().map(|x| x & 1).sum();
        assert!((low as f64 - x.len() as f64 / 2.0).abs() < 5.0 * (x.len() as f64).sqrt() / 2.0);
    }
}

#[test]
fn a_small_modulus_is_hit_everywhere() {
    let m = Modulus::new(5).unwrap();
    let mut x = vec![0; 100_000];
    sampling::uniform(&m, &mut rng(2), &mut x);
    let mut counts = [0; 5];
    x.iter().for_each(|&x| counts[x as usize] += 1);
    assert!(chi_square(&counts, &[20_000.0; 5]) < bound(4), "{counts:?}");
}

#[test]
fn a_seed_means_the_same_residues_everywhere() {
    // The ChaCha20 key stream of the all-zero key and nonce (RFC 8439, appendix A.1, test vector 1).
    const STREAM: [u8; 64] = [
        0x76, 0xb8, 0xe0, 0xad, 0xa0, 0xf1, 0x3d, 0x90, 0x40, 0x5d, 0x6a, 0xe5, 0x53, 0x86, 0xbd,
        0x28, 0xbd, 0xd2, 0x19, 0xb8, 0xa0, 0x8d, 0xed, 0x1a, 0xa8, 0x36, 0xef, 0xcc, 0x8b, 0x77,
        0x0d, 0xc7, 0xda, 0x41, 0x59, 0x7c, 0x51, 0x57, 0x48, 0x8d, 0x77, 0x24, 0xe0, 0x3f, 0xb8,
        0xd8, 0x4a, 0x37, 0x6a, 0x43, 0xb8, 0xf4, 0x15, 0x18, 0xa1, 0x1c, 0xc3, 0x87, 0xb6, 0x69,
        0xb2, 0xee, 0x65, 0x86,
    ];
    let m = modulus(50);
    let words = STREAM
        .chunks_exact(8)
        .map(|w| u64::from_le_bytes(w.try_into().unwrap()) & ((1 << 50) - 1));
    let want: Vec<u64> = words.filter(|&x| x < m.value()).collect();
    let mut got = vec![0; want.len()];
    sampling::uniform_from_seed(&m, &[0; 32], 0, &mut got);
    assert_eq!(got, want);

    let draw = |seed: u8, stream: u64, len: usize| {
        let mut out = vec![0; len];
        sampling::uniform_from_seed(&m, &[seed; 32], stream, &mut out);
        out
    };
    assert_eq!(draw(7, 3, 5000), draw(7, 3, 5000));
    assert_eq!(draw(7, 3, 5000)[..300], draw(7, 3, 300));
    for (a, b) in draw(7, 3, 5000).iter().zip(draw(7, 4, 5000)) {
        assert_ne!(*a, b);
    }
    assert_ne!(draw(7, 3, 100), draw(8, 3, 100));
}

#[test]
fn gaussian_has_its_distribution() {
    const SAMPLES: usize = 1 << 20;
    let x = sampling::gaussian(&mut rng(3), SAMPLES);
    let n = SAMPLES as f64;
    let mean = x.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
    let variance = x.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / n - mean * mean;
    assert!(mean.abs() < 5.0 * GAUSSIAN_SIGMA / n.sqrt(), "mean {mean}");
    let expected = GAUSSIAN_SIGMA * GAUSSIAN_SIGMA;
    assert!(
        (variance - expected).abs() < 5.0 * expected * (2.0 / n).sqrt(),
        "variance {variance}"
    );
    assert!(x.iter().all(|x| x.abs() <= GAUSSIAN_BOUND));

    // Cells -13 ... 13, and both tails in one.
    let weight = |x: i32| (-f64::from(x * x) / (2.0 * expected)).exp();
    let total: f64 = (-60..=60).map(weight).sum();
    let mut expected: Vec<f64> = (-13..=13).map(|x| n * weight(x) / total).collect();
    expected.push(n - expected.iter().sum::<f64>());
    let mut counts = vec![0u64; expected.len()];
    for &x in x.iter() {
        counts[if x.abs() <= 13 { (x + 13) as usize } else { 27 }] += 1;
    }
    let chi = chi_square(&counts, &expected);
    assert!(chi < bound(expected.len() - 1), "{chi}: {counts:?}");
}

#[test]
fn neighbours_are_uncorrelated() {
    let x = sampling::gaussian(&mut rng(4), 1 << 18);
    let n = x.len() as f64;
    for lag in [1, 2, 64] {
        let sum: f64 = x
            .iter()
            .zip(&x[lag..])
            .map(|(&a, &b)| f64::from(a * b))
            .sum();
        let correlation = sum / (n * GAUSSIAN_SIGMA * GAUSSIAN_SIGMA);
        assert!(
            correlation.abs() < 5.0 / n.sqrt(),
            "lag {lag}: {correlation}"
        );
    }
}

#[test]
fn ternary_is_even() {
    let x = sampling::ternary(&mut rng(5), 300_000);
    let mut counts = [0; 3];
    x.iter().for_each(|&x| counts[(x + 1) as usize] += 1);
    assert!(
        chi_square(&counts, &[100_000.0; 3]) < bound(2),
        "{counts:?}"
    );
}

#[test]
fn fixed_weight_is_even_over_places_and_signs() {
    const N: usize = 64;
    let (draws, h) = (4000, 8);
    let mut rng = rng(6);
    let (mut places, mut plus) = ([0u64; N], 0u64);
    for _ in 0..draws {
        let x = sampling::fixed_weight(&mut rng, N, h);
        assert_eq!(x.iter().filter(|&&x| x != 0).count(), h);
        for (place, &x) in places.iter_mut().zip(x.iter()) {
            *place += u64::from(x != 0);
            plus += u64::from(x == 1);
        }
    }
    let total = (draws * h) as f64;
    // Places of one draw exclude each other, so the statistic is scaled by the variance of drawing without replacement.
    let chi = chi_square(&places, &[total / N as f64; N]) / (1.0 - h as f64 / N as f64);
    assert!(chi < bound(N - 1), "{chi}: {places:?}");
    assert!(
        (plus as f64 - total / 2.0).abs() < 5.0 * total.sqrt() / 2.0,
        "{plus}"
    );
}

#[test]
fn the_operating_system_gives_different_seeds() {
    let (a, b) = (
        sampling::ternary(&mut sampling::secure_rng(), 256),
        sampling::ternary(&mut sampling::secure_rng(), 256),
    );
    assert_ne!(*a, *b);
}
