//! Times every kernel at N = 2^16 (or the size given as log2), portable beside the fastest.
//!
//! `cargo run --release -p tacit-ring --example kernels [log2 n]`

use std::{hint::black_box, time::Instant};

use rand_core::SeedableRng;
use tacit_ring::{
    BaseConverter, Modulus, NttPermutation, NttTable, RnsPoly, galois_of_rotation,
    kernels::{self, Kernel},
    ntt_primes, sampling,
};

/// Primes that the measurements cycle through.
const PRIMES: usize = 28;

/// Seconds of one call: least and median of at least 7 rounds and 0.3 s.
fn time(per_round: usize, mut round: impl FnMut()) -> (f64, f64) {
    round();
    let mut times = Vec::new();
    let begin = Instant::now();
    while times.len() < 7 || begin.elapsed().as_secs_f64() < 0.3 {
        let start = Instant::now();
        round();
        times.push(start.elapsed().as_secs_f64() / per_round as f64);
    }
    times.sort_by(f64::total_cmp);
    (times[0], times[times.len() / 2])
}

fn main() {
    let log_n: u32 = std::env::args()
        .nth(1)
        .map_or(16, |s| s.parse().expect("log2 of the ring dimension"));
    let n = 1usize << log_n;
    let primes = ntt_primes(50, n, PRIMES + 36, &[]).expect("primes");
    let moduli: Vec<Modulus> = primes
        .into_iter()
        .map(|p| Modulus::new(p).expect("a prime"))
        .collect();
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([1; 32]);
    let mut random = |limbs: usize| {
        let mut poly = RnsPoly::zero(n, limbs);
        for (limb, m) in poly.limbs_iter_mut().zip(&moduli) {
            sampling::uniform(m, &mut rng, limb);
        }
        poly
    };
    let (mut x, y, z) = (random(PRIMES), random(PRIMES), random(PRIMES));
    let from = random(9);
    let mut to = RnsPoly::zero(n, 36);
    println!("N = 2^{log_n}, {PRIMES} primes in turn; microseconds per limb, least / median");
    for kernel in kernels::available() {
        let kernel: &'static dyn Kernel = kernel;
        let tables: Vec<NttTable> = moduli[..PRIMES]
            .iter()
            .map(|&m| NttTable::with_kernel(n, m, kernel).expect("tables"))
            .collect();
        let report = |what: &str, (least, median): (f64, f64), products: f64| {
            let ns = 1e9 * least / n as f64 / products;
            println!(
                "{:9} {what:34} {:9.2} / {:9.2} us {ns:9.4} ns per coefficient and product",
                kernel.name(),
                least * 1e6,
                median * 1e6
            );
        };
        let each = |x: &mut RnsPoly, f: &dyn Fn(usize, &mut [u64])| {
            x.limbs_iter_mut().enumerate().for_each(|(i, l)| f(i, l))
        };
        report(
            "forward NTT, one prime",
            time(4, || (0..4).for_each(|_| tables[0].forward(x.limb_mut(0)))),
            1.0,
        );
        report(
            "inverse NTT, one prime",
            time(4, || (0..4).for_each(|_| tables[0].inverse(x.limb_mut(0)))),
            1.0,
        );
        report(
            "forward NTT",
            time(PRIMES, || each(&mut x, &|i, l| tables[i].forward(l))),
            1.0,
        );
        report(
            "inverse NTT",
            time(PRIMES, || each(&mut x, &|i, l| tables[i].inverse(l))),
            1.0,
        );
        report(
            "a += b",
            time(PRIMES, || {
                each(&mut x, &|i, l| kernel.add_assign(&moduli[i], l, y.limb(i)))
            }),
            1.0,
        );
        report(
            "a *= b",
            time(PRIMES, || {
                each(&mut x, &|i, l| kernel.mul_assign(&moduli[i], l, y.limb(i)))
            }),
            1.0,
        );
        report(
            "c += a b",
            time(PRIMES, || {
                each(&mut x, &|i, l| {
                    kernel.mul_add_assign(&moduli[i], l, y.limb(i), z.limb(i))
                })
            }),
            1.0,
        );
        report(
            "a *= constant",
            time(PRIMES, || {
                each(&mut x, &|i, l| {
                    kernel.mul_scalar_assign(&moduli[i], l, 12_345)
                })
            }),
            1.0,
        );
        report(
            "c += a constant",
            time(PRIMES, || {
                each(&mut x, &|i, l| {
                    kernel.mul_scalar_add_assign(&moduli[i], l, y.limb(i), 12_345)
                })
            }),
            1.0,
        );
        let permutation = NttPermutation::new(n, galois_of_rotation(n, 3));
        report(
            "automorphism",
            time(PRIMES, || {
                each(&mut x, &|i, l| kernel.permute(&permutation, l, y.limb(i)))
            }),
            1.0,
        );
        for k in [3, 4, 8] {
            let a: Vec<&[u64]> = (0..k).map(|i| y.limb(i)).collect();
            let b: Vec<&[u64]> = (0..k).map(|i| z.limb(i)).collect();
            let c: Vec<&[u64]> = (0..k).map(|i| z.limb(i + 8)).collect();
            let (mut out0, mut out1) = (RnsPoly::zero(n, 1), RnsPoly::zero(n, 1));
            let t = time(1, || {
                kernel.inner_product(&moduli[0], out0.limb_mut(0), &a, &b)
            });
            report(&format!("inner product of {k}"), t, k as f64);
            let t = time(1, || {
                kernel.inner_product_pair(
                    &moduli[0],
                    out0.limb_mut(0),
                    out1.limb_mut(0),
                    &a,
                    &b,
                    &c,
                )
            });
            report(&format!("two inner products of {k}"), t, 2.0 * k as f64);
        }
        for (k, l) in [(9, 36), (9, 27), (1, 26)] {
            let converter = BaseConverter::new(&moduli[..k], &moduli[9..9 + l]).expect("bases");
            let source: Vec<&[u64]> = from.limbs_iter().take(k).collect();
            let t = time(1, || {
                let mut rows: Vec<&mut [u64]> = to.limbs_iter_mut().take(l).collect();
                converter.convert_with(kernel, &source, &mut rows);
            });
            report(&format!("base conversion {k} to {l}"), t, (k * l) as f64);
        }
        black_box((&x, &to));
    }
}
