//! Seconds and error of one ternary linear layer: ring switch, mix by additions, repack.
//!
//! ```text
//! cargo run --release -p tacit-ckks --example linear -- [--d-in 1536] [--d-out 1536] [--tokens 128] [--threads 1,2] [--words 32,64] [--runs 3]
//! ```
//!
//! One JSON object for each number of threads and word size, on a line of its own. Seconds are wall time, the smallest of
//! the runs; mix and repack are interleaved, so their wall time is divided by the thread time each took. `error_bits` is
//! `-log2` of the root mean square error of outputs whose largest magnitude is `q0/2^10`, `error_bits_worst` of the largest.

use std::{error::Error, sync::Arc, time::Instant};

use tacit_ckks::mlwe::{
    MixWord, MlweContext, MlweShape, Pieces, RepackKey, RingSwitchKey, RlweCoeff, SmallSecret,
    TernaryMix,
};
use tacit_ring::{Modulus, NttTable, ntt_primes, ops, sampling};

const LOG_N: u32 = 16;
const LOG_SMALL_N: u32 = 11;
const DIGIT_BITS: u32 = 7;
const EPHEMERAL_WEIGHT: usize = 32;
const LOG_MESSAGE_RATIO: i32 = 10;

struct Options {
    d_in: usize,
    d_out: usize,
    tokens: usize,
    threads: Vec<usize>,
    words: Vec<usize>,
    runs: usize,
}

fn options() -> Result<Options, Box<dyn Error>> {
    let mut options = Options {
        d_in: 1536,
        d_out: 1536,
        tokens: 128,
        threads: vec![1, 2],
        words: vec![32, 64],
        runs: 3,
    };
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} wants a value"))?;
        let list = value
            .split(',')
            .map(str::parse)
            .collect::<Result<Vec<usize>, _>>()?;
        let one = list[0];
        match flag.as_str() {
            "--d-in" => options.d_in = one,
            "--d-out" => options.d_out = one,
            "--tokens" => options.tokens = one,
            "--runs" => options.runs = one.max(1),
            "--threads" => options.threads = list,
            "--words" => options.words = list,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    Ok(options)
}

/// Keys, encrypted inputs, the matrix, and what the outputs should be.
struct Bench {
    context: MlweContext,
    target: Vec<i8>,
    switch: RingSwitchKey,
    repack: RepackKey,
    mix: TernaryMix,
    inputs: Vec<RlweCoeff>,
    expected: Vec<i64>,
}

fn times(context_table: &NttTable, a: &[u64], secret: &[i8]) -> Vec<u64> {
    let q = context_table.modulus();
    let mut s = vec![0; a.len()];
    sampling::signed_to_residues_i8(q, secret, &mut s);
    context_table.forward(&mut s);
    let mut a = a.to_vec();
    context_table.forward(&mut a);
    ops::mul_assign(q, &mut a, &s);
    context_table.inverse(&mut a);
    a
}

fn prepare(
    o: &Options,
    q_table: &Arc<NttTable>,
    p_table: &Arc<NttTable>,
) -> Result<Bench, Box<dyn Error>> {
    let n = 1usize << LOG_N;
    let q = *q_table.modulus();
    let mut rng = sampling::secure_rng();
    let shape = MlweShape::new(n, 1 << LOG_SMALL_N, o.tokens)?;
    let context = MlweContext::insecure(shape, q_table.clone(), p_table.clone())?;
    let secret = sampling::ternary(&mut rng, n);
    let target = sampling::fixed_weight(&mut rng, n, EPHEMERAL_WEIGHT).to_vec();
    let small = SmallSecret::generate(&shape, &mut rng);
    let switch = RingSwitchKey::generate(&context, &secret, &small, DIGIT_BITS, &mut rng)?;
    let repack = RepackKey::generate(&context, &small, &target, &mut rng)?;

    let weights = sampling::ternary(&mut rng, o.d_in * o.d_out);
    let mix = TernaryMix::dense(shape, o.d_out, o.d_in, |row, col| {
        weights[row * o.d_in + col]
    })?;

    // Inputs so small that the outputs stay within q0/2^10: about sqrt(2/3 d_in) of one input's size, with a margin of 4.
    let bound =
        (q.value() as f64 / 2f64.powi(LOG_MESSAGE_RATIO) / (o.d_in as f64).sqrt() / 4.0) as i64;
    let (k, t) = (shape.features(), o.tokens);
    let mut uniform = vec![0; o.d_in * t];
    sampling::uniform(&q, &mut rng, &mut uniform);
    let x: Vec<i64> = uniform
        .iter()
        .map(|&u| (u % (2 * bound as u64 + 1)) as i64 - bound)
        .collect();
    let inputs = (0..o.d_in.div_ceil(k))
        .map(|c| {
            let mut a = vec![0; n];
            sampling::uniform(&q, &mut rng, &mut a);
            let mut b: Vec<u64> = sampling::gaussian(&mut rng, n)
                .iter()
                .map(|&e| q.from_i64(e.into()))
                .collect();
            for f in 0..k.min(o.d_in - c * k) {
                for token in 0..t {
                    let at = shape.coefficient(f, token);
                    b[at] = q.add(b[at], q.from_i64(x[(c * k + f) * t + token]));
                }
            }
            ops::sub_assign(&q, &mut b, &times(q_table, &a, &secret));
            RlweCoeff { b, a }
        })
        .collect();
    let mut expected = vec![0i64; o.d_out * t];
    for (row, out) in expected.chunks_exact_mut(t).enumerate() {
        for (col, x) in x.chunks_exact(t).enumerate() {
            let w = i64::from(weights[row * o.d_in + col]);
            out.iter_mut().zip(x).for_each(|(out, x)| *out += w * x);
        }
    }
    Ok(Bench {
        context,
        target,
        switch,
        repack,
        mix,
        inputs,
        expected,
    })
}

/// `(bits, worst bits)` of the outputs.
fn error_bits(bench: &Bench, out: &[RlweCoeff], table: &NttTable) -> (f64, f64) {
    let shape = bench.context.shape();
    let q = bench.context.q0();
    let (mut squares, mut worst) = (0f64, 0f64);
    let features = bench.expected.chunks_exact(shape.tokens());
    let plain: Vec<Vec<u64>> = out
        .iter()
        .map(|c| {
            let mut m = times(table, &c.a, &bench.target);
            ops::add_assign(q, &mut m, &c.b);
            m
        })
        .collect();
    for (f, row) in features.enumerate() {
        for (t, &want) in row.iter().enumerate() {
            let at = shape.coefficient(f % shape.features(), t);
            let error = (q.centre(plain[f / shape.features()][at]) - want) as f64;
            squares += error * error;
            worst = worst.max(error.abs());
        }
    }
    let one = (q.value() as f64).log2() - f64::from(LOG_MESSAGE_RATIO);
    let rms = (squares / bench.expected.len() as f64).sqrt();
    (one - rms.log2(), one - worst.log2())
}

fn measure<T: MixWord>(
    o: &Options,
    bench: &Bench,
    table: &NttTable,
    threads: usize,
) -> Result<(), Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    let mut best = [f64::INFINITY; 4];
    let mut bits = (0.0, 0.0);
    let mut additions = 0;
    for _ in 0..o.runs {
        let start = Instant::now();
        let pieces: Vec<Pieces<T>> =
            pool.install(|| bench.context.switch_to_pieces(&bench.switch, &bench.inputs))?;
        let ring_switch = start.elapsed().as_secs_f64();
        let (out, report) = pool.install(|| {
            bench
                .context
                .mix_and_repack(&bench.repack, &bench.mix, &pieces)
        })?;
        let share = report.mix.as_secs_f64() / (report.mix + report.repack).as_secs_f64();
        let wall = report.wall.as_secs_f64();
        let seconds = [
            ring_switch,
            wall * share,
            wall * (1.0 - share),
            start.elapsed().as_secs_f64(),
        ];
        best.iter_mut()
            .zip(seconds)
            .for_each(|(best, s)| *best = best.min(s));
        bits = error_bits(bench, &out, table);
        additions = report.counts.additions;
    }
    let [ring_switch, mix, repack, total] = best;
    println!(
        "{{\"d_in\": {}, \"d_out\": {}, \"tokens\": {}, \"threads\": {threads}, \"word_bits\": {}, \
         \"ring_switch_seconds\": {ring_switch:.4}, \"mix_seconds\": {mix:.4}, \"repack_seconds\": {repack:.4}, \
         \"total_seconds\": {total:.4}, \"error_bits\": {:.2}, \"error_bits_worst\": {:.2}, \"additions\": {additions}}}",
        o.d_in,
        o.d_out,
        o.tokens,
        T::BITS,
        bits.0,
        bits.1,
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let o = options()?;
    let n = 1 << LOG_N;
    let primes = ntt_primes(50, n, 2, &[])?;
    let table = |p| Ok::<_, Box<dyn Error>>(Arc::new(NttTable::new(n, Modulus::new(p)?)?));
    let (q, p) = (table(primes[0])?, table(primes[1])?);
    let bench = prepare(&o, &q, &p)?;
    for &threads in &o.threads {
        for &words in &o.words {
            match words {
                32 => measure::<u32>(&o, &bench, &q, threads)?,
                64 => measure::<u64>(&o, &bench, &q, threads)?,
                _ => return Err(format!("--words {words}: expected 32 or 64").into()),
            }
        }
    }
    Ok(())
}
