//! How fast keys come from memory, on one thread and on all: gigabytes a second of packed words that are only summed up, and of the products
//! of three digits with switching keys, which read as many.
//!
//! `cargo run --release -p tacit-ring --example keys_from_memory`
//!
//! Twenty keys of three digits over 30 primes of 45 bits at `n = 2^16`, 1.3 GiB: far more than caches hold. The limbs are shared out as in a
//! hoisted rotation. Medians of seven turns.

use std::{hint::black_box, time::Instant};

use rand_core::SeedableRng;
use rayon::prelude::*;
use tacit_ring::{Modulus, PackedLimb, PackedPoly, RnsPoly, ntt_primes, ops, sampling};

const N: usize = 1 << 16;
const LIMBS: usize = 30;
const DIGITS: usize = 3;
const KEYS: usize = 20;

fn main() {
    let primes = ntt_primes(45, N, LIMBS, &[]).expect("primes");
    let moduli: Vec<Modulus> = primes
        .into_iter()
        .map(|p| Modulus::new(p).expect("a prime"))
        .collect();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let mut random = || {
        let mut poly = RnsPoly::zero(N, LIMBS);
        for (limb, m) in poly.limbs_iter_mut().zip(&moduli) {
            sampling::uniform(m, &mut rng, limb);
        }
        poly
    };
    let digits: Vec<RnsPoly> = (0..DIGITS).map(|_| random()).collect();
    let packed = PackedPoly::new(&random(), |j| moduli[j].bits());
    // keys[k][part][digit]
    let keys: Vec<[Vec<PackedPoly>; 2]> = (0..KEYS)
        .map(|_| [(); 2].map(|()| vec![packed.clone(); DIGITS]))
        .collect();
    let bytes = (KEYS * 2 * DIGITS * packed.bytes()) as f64;
    let mut out: Vec<[Vec<u64>; 2]> = (0..LIMBS).map(|_| [(); 2].map(|()| vec![0; N])).collect();

    let all = rayon::current_num_threads();
    println!("GB/s       summed  times digits");
    for threads in if all > 1 { vec![1, all] } else { vec![1] } {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .expect("threads");
        let mut turns = [(); 2].map(|()| Vec::new());
        for _ in 0..7 {
            let start = Instant::now();
            pool.install(|| {
                (0..LIMBS).into_par_iter().for_each(|j| {
                    let words = keys
                        .iter()
                        .flatten()
                        .flatten()
                        .flat_map(|poly| poly.limb(j).words());
                    black_box(words.fold(0u64, |sum, word| sum.wrapping_add(*word)));
                })
            });
            turns[0].push(bytes / start.elapsed().as_secs_f64() / 1e9);
            let start = Instant::now();
            pool.install(|| {
                out.par_iter_mut().enumerate().for_each(|(j, [u0, u1])| {
                    let digits: Vec<&[u64]> = digits.iter().map(|d| d.limb(j)).collect();
                    for key in &keys {
                        let [b, a] = key.each_ref().map(|polys| -> Vec<PackedLimb<'_>> {
                            polys.iter().map(|poly| poly.limb(j)).collect()
                        });
                        ops::inner_product_pair_packed(&moduli[j], u0, u1, &digits, &b, &a);
                    }
                })
            });
            turns[1].push(bytes / start.elapsed().as_secs_f64() / 1e9);
        }
        let median = |mut turns: Vec<f64>| {
            turns.sort_by(f64::total_cmp);
            turns[turns.len() / 2]
        };
        let [summed, products] = turns.map(median);
        println!("{threads:2} threads {summed:7.1} {products:13.1}");
    }
    black_box(&out);
}
