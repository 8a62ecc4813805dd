//! Times every kernel, portable beside the fastest, on one thread (base conversion: on all).
//!
//! `cargo run --release -p tacit-ring --example kernels [log2 n] [words that a line must contain]`
//!
//! The default is `n = 2^16`. "One prime" repeats one transform on the same data; the other lines cycle through 28 primes, as
//! operations on ciphertexts do.

use std::{hint::black_box, time::Instant};

use rand_core::SeedableRng;
use tacit_ring::{
    BaseConverter, Modulus, NttPermutation, NttTable, RnsPoly, galois_of_rotation, kernels,
    ntt_primes, sampling,
};

/// Primes that the measurements cycle through.
const PRIMES: usize = 28;

/// Prints least and median time of one call, over at least 9 rounds and 0.4 s.
struct Report {
    n: usize,
    kernel: &'static str,
    filter: String,
}

impl Report {
    fn time(&self, what: &str, calls: usize, products: usize, mut round: impl FnMut()) {
        if !format!("{} {what}", self.kernel).contains(&self.filter) {
            return;
        }
        round();
        let mut times = Vec::new();
        let begin = Instant::now();
        while times.len() < 9 || begin.elapsed().as_secs_f64() < 0.4 {
            let start = Instant::now();
            round();
            times.push(start.elapsed().as_secs_f64() * 1e6 / calls as f64);
        }
        times.sort_by(f64::total_cmp);
        let (least, median) = (times[0], times[times.len() / 2]);
        let ns = 1e3 * least / self.n as f64 / products as f64;
        println!(
            "{:9} {what:26} {least:9.2} {median:9.2} {ns:9.4}",
            self.kernel
        );
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let log_n: u32 = arguments
        .next()
        .map_or(16, |s| s.parse().expect("log2 of the ring dimension"));
    let filter = arguments.next().unwrap_or_default();
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
    let (mut out0, mut out1) = (RnsPoly::zero(n, 1), RnsPoly::zero(n, 1));
    println!(
        "n = 2^{log_n}: microseconds, least and median; nanoseconds per coefficient and product"
    );
    for kernel in kernels::available() {
        let report = Report {
            n,
            kernel: kernel.name(),
            filter: filter.clone(),
        };
        let tables: Vec<NttTable> = moduli[..PRIMES]
            .iter()
            .map(|&m| NttTable::with_kernel(n, m, kernel).expect("tables"))
            .collect();
        report.time("forward NTT, one prime", 8, 1, || {
            (0..8).for_each(|_| tables[0].forward(x.limb_mut(0)))
        });
        report.time("inverse NTT, one prime", 8, 1, || {
            (0..8).for_each(|_| tables[0].inverse(x.limb_mut(0)))
        });
        let mut each = |what: &str, f: &dyn Fn(usize, &mut [u64])| {
            report.time(what, PRIMES, 1, || {
                x.limbs_iter_mut()
                    .enumerate()
                    .for_each(|(i, limb)| f(i, limb))
            });
        };
        each("forward NTT", &|i, a| tables[i].forward(a));
        each("inverse NTT", &|i, a| tables[i].inverse(a));
        each("a += b", &|i, a| {
            kernel.add_assign(&moduli[i], a, y.limb(i))
        });
        each("a *= b", &|i, a| {
            kernel.mul_assign(&moduli[i], a, y.limb(i))
        });
        each("c += a b", &|i, a| {
            kernel.mul_add_assign(&moduli[i], a, y.limb(i), z.limb(i))
        });
        each("a *= constant", &|i, a| {
            kernel.mul_scalar_assign(&moduli[i], a, 12_345)
        });
        each("c += a constant", &|i, a| {
            kernel.mul_scalar_add_assign(&moduli[i], a, y.limb(i), 12_345)
        });
        let permutation = NttPermutation::new(n, galois_of_rotation(n, 3));
        each("automorphism", &|i, a| {
            kernel.permute(&permutation, a, y.limb(i))
        });
        for k in [3, 4, 8] {
            let rows = |poly, skip: usize| {
                RnsPoly::limbs_iter(poly)
                    .skip(skip)
                    .take(k)
                    .collect::<Vec<_>>()
            };
            let (a, b, c) = (rows(&y, 0), rows(&z, 0), rows(&z, 8));
            report.time(&format!("inner product of {k}"), 1, k, || {
                kernel.inner_product(&moduli[0], out0.limb_mut(0), &a, &b)
            });
            report.time(&format!("two inner products of {k}"), 1, 2 * k, || {
                kernel.inner_product_pair(
                    &moduli[0],
                    out0.limb_mut(0),
                    out1.limb_mut(0),
                    &a,
                    &b,
                    &c,
                )
            });
        }
        for (k, l) in [(9, 36), (9, 27), (1, 26)] {
            let converter = BaseConverter::new(&moduli[..k], &moduli[9..9 + l]).expect("bases");
            let source: Vec<&[u64]> = from.limbs_iter().take(k).collect();
            report.time(&format!("base conversion {k} to {l}"), 1, k * l, || {
                let mut rows: Vec<&mut [u64]> = to.limbs_iter_mut().take(l).collect();
                converter.convert_with(kernel, &source, &mut rows);
            });
        }
        // Fresh result of the size of a ciphertext's half: how much allocating costs.
        report.time("zero, 27 limbs", 1, 27, || {
            drop(black_box(RnsPoly::zero(n, 27)))
        });
        report.time("copy, 27 limbs", 1, 27, || drop(black_box(y.prefix(27))));
    }
    // The same for all kernels.
    let report = Report {
        n,
        kernel: "sampling",
        filter,
    };
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
    report.time("uniform from a seed", 1, 1, || {
        sampling::uniform_from_seed(&moduli[0], &[3; 32], 1, out0.limb_mut(0))
    });
    report.time("gaussian", 1, 1, || {
        drop(black_box(sampling::gaussian(&mut rng, n)))
    });
    report.time("ternary", 1, 1, || {
        drop(black_box(sampling::ternary(&mut rng, n)))
    });
    report.time("fixed weight 32", 1, 1, || {
        drop(black_box(sampling::fixed_weight(&mut rng, n, 32)))
    });
    black_box((&x, &to, &out0, &out1));
}
