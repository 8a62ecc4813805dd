//! Times every operation of every kernel, side by side, on one thread: processor time on Linux, else wall-clock.
//!
//! `RAYON_NUM_THREADS=1 cargo run --release -p tacit-ring --example kernels [log2 n] [words that an operation must contain]`
//!
//! The default is `n = 2^16`. The kernels take turns, so that whatever else the machine does meets all of them alike; the least time
//! of many turns is the one to compare. "One prime" repeats one transform on the same data; the other lines cycle through 28 primes,
//! as operations on ciphertexts do.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use rand_core::SeedableRng;
use tacit_ring::{
    BaseConverter, Modulus, NttPermutation, NttTable, PackedPoly, RnsPoly, galois_of_rotation,
    kernels::{self, Kernel},
    ntt_primes, sampling,
};

/// Primes that the measurements cycle through.
const PRIMES: usize = 28;

/// Processor time of this process so far: it does not count what other processes take.
#[cfg(target_os = "linux")]
fn now() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is that of a value that lives through the call.
    let status = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &mut time) };
    assert_eq!(status, 0, "no clock of processor time");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Time since the first call.
#[cfg(not(target_os = "linux"))]
fn now() -> Duration {
    static START: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// Prints least and median processor time of one call for each kernel, over at least 9 turns and 1 s a kernel.
struct Report {
    kernels: Vec<&'static dyn Kernel>,
    filter: String,
}

impl Report {
    /// `round` makes `calls` calls with the kernel of an index.
    fn time(&self, what: &str, calls: usize, mut round: impl FnMut(usize, &dyn Kernel)) {
        if !what.contains(&self.filter) {
            return;
        }
        let mut times = vec![Vec::new(); self.kernels.len()];
        let begin = Instant::now();
        while times[0].len() < 9 || begin.elapsed().as_secs_f64() < self.kernels.len() as f64 {
            for (i, (&kernel, times)) in self.kernels.iter().zip(&mut times).enumerate() {
                round(i, kernel);
                let start = now();
                round(i, kernel);
                times.push((now() - start).as_secs_f64() * 1e6 / calls as f64);
            }
        }
        print!("{what:26}");
        let mut least = Vec::new();
        for times in &mut times {
            times.sort_by(f64::total_cmp);
            least.push(times[0]);
            print!(" {:10.2} {:10.2}", times[0], times[times.len() / 2]);
        }
        let portable = *least.last().expect("the portable kernel");
        for time in &least[..least.len() - 1] {
            print!(" {:8.2}", portable / time);
        }
        println!();
    }
}

/// One call on a limb: number of the kernel, the kernel, number and residues of the limb.
type Call<'a> = dyn Fn(usize, &dyn Kernel, usize, &mut [u64]) + 'a;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let log_n: u32 = arguments
        .next()
        .map_or(16, |s| s.parse().expect("log2 of the ring dimension"));
    let n = 1usize << log_n;
    let report = Report {
        kernels: kernels::available(),
        filter: arguments.next().unwrap_or_default(),
    };
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
        "n = 2^{log_n}: microseconds, least and median of each kernel; how many times as fast as the portable one"
    );
    print!("{:26}", "");
    for kernel in &report.kernels {
        print!(" {:>10} {:>10}", kernel.name(), "median");
    }
    for kernel in &report.kernels[..report.kernels.len() - 1] {
        print!(" {:>8}", kernel.name());
    }
    println!();
    let tables: Vec<Vec<NttTable>> = report
        .kernels
        .iter()
        .map(|&kernel| {
            let table = |&m| NttTable::with_kernel(n, m, kernel).expect("tables");
            moduli[..PRIMES].iter().map(table).collect()
        })
        .collect();
    report.time("forward NTT, one prime", 8, |k, _| {
        (0..8).for_each(|_| tables[k][0].forward(x.limb_mut(0)))
    });
    report.time("inverse NTT, one prime", 8, |k, _| {
        (0..8).for_each(|_| tables[k][0].inverse(x.limb_mut(0)))
    });
    let mut each = |what: &str, f: &Call| {
        report.time(what, PRIMES, |k, kernel| {
            x.limbs_iter_mut()
                .enumerate()
                .for_each(|(i, limb)| f(k, kernel, i, limb))
        });
    };
    each("forward NTT", &|k, _, i, a| tables[k][i].forward(a));
    each("inverse NTT", &|k, _, i, a| tables[k][i].inverse(a));
    each("a += b", &|_, kernel, i, a| {
        kernel.add_assign(&moduli[i], a, y.limb(i))
    });
    each("a -= b", &|_, kernel, i, a| {
        kernel.sub_assign(&moduli[i], a, y.limb(i))
    });
    each("a *= b", &|_, kernel, i, a| {
        kernel.mul_assign(&moduli[i], a, y.limb(i))
    });
    each("c += a b", &|_, kernel, i, a| {
        kernel.mul_add_assign(&moduli[i], a, y.limb(i), z.limb(i))
    });
    each("a *= constant", &|_, kernel, i, a| {
        kernel.mul_scalar_assign(&moduli[i], a, 12_345)
    });
    each("c += a constant", &|_, kernel, i, a| {
        kernel.mul_scalar_add_assign(&moduli[i], a, y.limb(i), 12_345)
    });
    each("a = (a - b) constant", &|_, kernel, i, a| {
        kernel.sub_mul_scalar_assign(&moduli[i], a, y.limb(i), 12_345)
    });
    let permutation = NttPermutation::new(n, galois_of_rotation(n, 3));
    each("automorphism", &|_, kernel, i, a| {
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
        let m = &moduli[0];
        report.time(&format!("inner product of {k}"), 1, |_, kernel| {
            kernel.inner_product(m, out0.limb_mut(0), &a, &b)
        });
        report.time(&format!("two inner products of {k}"), 1, |_, kernel| {
            kernel.inner_product_pair(m, out0.limb_mut(0), out1.limb_mut(0), &a, &b, &c)
        });
        let packed = [&b, &c]
            .map(|rows| PackedPoly::new(&RnsPoly::from_slice(n, &rows.concat()), |_| m.bits()));
        let [b, c] = [0, 1].map(|i| (0..k).map(|j| packed[i].limb(j)).collect::<Vec<_>>());
        report.time(
            &format!("two inner products of {k}, packed"),
            1,
            |_, kernel| {
                let (out0, out1) = (out0.limb_mut(0), out1.limb_mut(0));
                kernel.inner_product_pair_packed(m, out0, out1, &a, &b, &c)
            },
        );
    }
    for (k, l) in [(9, 36), (9, 27), (1, 26)] {
        let converter = BaseConverter::new(&moduli[..k], &moduli[9..9 + l]).expect("bases");
        let source: Vec<&[u64]> = from.limbs_iter().take(k).collect();
        report.time(&format!("base conversion {k} to {l}"), 1, |_, kernel| {
            let mut rows: Vec<&mut [u64]> = to.limbs_iter_mut().take(l).collect();
            converter.convert_with(kernel, &source, &mut rows);
        });
    }
    // What follows is the same for all kernels.
    let report = Report {
        kernels: vec![kernels::active()],
        filter: report.filter,
    };
    println!("the same for all kernels:");
    // Fresh result of the size of a ciphertext's half: how much allocating costs.
    report.time("zero, 27 limbs", 1, |_, _| {
        drop(black_box(RnsPoly::zero(n, 27)))
    });
    report.time("copy, 27 limbs", 1, |_, _| drop(black_box(y.prefix(27))));
    let mut rng = rand_chacha::ChaCha20Rng::from_seed([2; 32]);
    report.time("uniform from a seed", 1, |_, _| {
        sampling::uniform_from_seed(&moduli[0], &[3; 32], 1, out0.limb_mut(0))
    });
    report.time("gaussian", 1, |_, _| {
        drop(black_box(sampling::gaussian(&mut rng, n)))
    });
    report.time("ternary", 1, |_, _| {
        drop(black_box(sampling::ternary(&mut rng, n)))
    });
    report.time("fixed weight 32", 1, |_, _| {
        drop(black_box(sampling::fixed_weight(&mut rng, n, 32)))
    });
    black_box((&x, &to, &out0, &out1));
}
