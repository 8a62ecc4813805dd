//! Seconds and error of one ternary linear layer: ring switch, mix by additions, repack.
//!
//! ```text
//! cargo run --release -p tacit-ckks --example linear -- [--d-in 1536] [--d-out 1536] [--tokens 128] [--threads 1,2] [--words 32,64] [--runs 3]
//! ```
//!
//! One JSON object for each number of threads and word size, on a line of its own. Seconds are wall time, the smallest of
//! the runs; mix and repack are interleaved, so their wall time is divided by the thread time each took. `error_bits` is
//! `-log2` of the root mean square error of outputs in [-1, 1], encoded at `q0/2^10`; `error_bits_worst` is that of the largest.

use std::{error::Error, sync::Arc, time::Instant};

use tacit_ckks::{
    Ciphertext, Context, Encoder, Evaluator, KeyGenerator, Parameters, SecretKey, encrypt,
    mlwe::{MixWord, MlweContext, MlweKeys, TernaryMix},
};
use tacit_ring::sampling;

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
    ctx: Arc<Context>,
    context: MlweContext,
    ephemeral: SecretKey,
    keys: MlweKeys,
    mix: TernaryMix,
    inputs: Vec<Ciphertext>,
    expected: Vec<f64>,
}

fn prepare(o: &Options) -> Result<Bench, Box<dyn Error>> {
    let ctx = Context::new(Parameters::default_128())?;
    let mut rng = sampling::secure_rng();
    let mut generator = KeyGenerator::new(ctx.clone());
    let secret = generator.secret();
    let ephemeral = generator.ephemeral_secret(&secret)?;
    let context = MlweContext::new(&ctx, o.tokens)?;
    let keys = MlweKeys::generate(&context, &secret, &ephemeral, &mut rng)?;

    let weights = sampling::ternary(&mut rng, o.d_in * o.d_out);
    let shape = *context.shape();
    let mix = TernaryMix::dense(shape, o.d_out, o.d_in, |row, col| {
        weights[row * o.d_in + col]
    })?;

    // Inputs so small that outputs, the largest of which are about 4 standard deviations, stay within [-1, 1].
    let (k, t) = (shape.features(), o.tokens);
    let bound = 1.0 / (o.d_in as f64).sqrt() / 2.0;
    let mut uniform = vec![0; o.d_in * t];
    sampling::uniform(context.q0(), &mut rng, &mut uniform);
    let unit = context.q0().value() as f64 / 2.0;
    let x: Vec<f64> = uniform
        .iter()
        .map(|&u| (u as f64 / unit - 1.0) * bound)
        .collect();
    let encoder = Encoder::new(ctx.clone());
    let scale = unit * 2.0 / f64::from(ctx.params().literal().log_message_ratio).exp2();
    let inputs = x
        .chunks(k * t)
        .map(|features| {
            let mut m = vec![0.0; ctx.n()];
            for (f, row) in features.chunks_exact(t).enumerate() {
                row.iter()
                    .enumerate()
                    .for_each(|(token, &v)| m[shape.coefficient(f, token)] = v);
            }
            encrypt::encrypt_symmetric(&encoder.encode_coeffs(&m, scale, 0)?, &secret, &mut rng)
        })
        .collect::<Result<_, _>>()?;
    let mut expected = vec![0.0; o.d_out * t];
    for (row, out) in expected.chunks_exact_mut(t).enumerate() {
        for (col, x) in x.chunks_exact(t).enumerate() {
            let w = f64::from(weights[row * o.d_in + col]);
            out.iter_mut().zip(x).for_each(|(out, x)| *out += w * x);
        }
    }
    Ok(Bench {
        ctx,
        context,
        ephemeral,
        keys,
        mix,
        inputs,
        expected,
    })
}

/// `(bits, worst bits)` of the outputs.
fn error_bits(bench: &Bench, out: &[Ciphertext]) -> Result<(f64, f64), Box<dyn Error>> {
    let shape = bench.context.shape();
    let encoder = Encoder::new(bench.ctx.clone());
    let plain = out
        .iter()
        .map(|ct| encoder.decode_coeffs(&encrypt::decrypt(ct, &bench.ephemeral)?))
        .collect::<Result<Vec<_>, _>>()?;
    let (mut squares, mut worst) = (0f64, 0f64);
    for (f, row) in bench.expected.chunks_exact(shape.tokens()).enumerate() {
        for (t, &want) in row.iter().enumerate() {
            let got = plain[f / shape.features()][shape.coefficient(f % shape.features(), t)];
            squares += (got - want) * (got - want);
            worst = worst.max((got - want).abs());
        }
    }
    Ok((
        -(squares / bench.expected.len() as f64).sqrt().log2(),
        -worst.log2(),
    ))
}

fn measure<T: MixWord>(o: &Options, bench: &Bench, threads: usize) -> Result<(), Box<dyn Error>> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()?;
    let evaluator = Evaluator::new(bench.ctx.clone());
    let mut best = [f64::INFINITY; 4];
    let (mut bits, mut additions) = ((0.0, 0.0), 0);
    for _ in 0..o.runs {
        let start = Instant::now();
        let (out, report) = pool.install(|| {
            bench
                .context
                .apply::<T>(&evaluator, &bench.keys, &bench.mix, &bench.inputs)
        })?;
        let total = start.elapsed();
        let seconds =
            [report.ring_switch, report.mix, report.repack, total].map(|x| x.as_secs_f64());
        best.iter_mut()
            .zip(seconds)
            .for_each(|(best, s)| *best = best.min(s));
        bits = error_bits(bench, &out)?;
        additions = report.additions;
    }
    let [ring_switch, mix, repack, total] = best;
    println!(
        "{{\"d_in\": {}, \"d_out\": {}, \"tokens\": {}, \"threads\": {threads}, \"word_bits\": {}, \
         \"ring_switch_seconds\": {ring_switch:.4}, \"mix_seconds\": {mix:.4}, \"repack_seconds\": {repack:.4}, \
         \"total_seconds\": {total:.4}, \"error_bits\": {:.2}, \"error_bits_worst\": {:.2}, \
         \"additions\": {additions}, \"key_bytes\": {}}}",
        o.d_in,
        o.d_out,
        o.tokens,
        T::BITS,
        bits.0,
        bits.1,
        bench.keys.bytes(),
    );
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let o = options()?;
    let bench = prepare(&o)?;
    for &threads in &o.threads {
        for &words in &o.words {
            match words {
                32 => measure::<u32>(&o, &bench, threads)?,
                64 => measure::<u64>(&o, &bench, threads)?,
                _ => return Err(format!("--words {words}: expected 32 or 64").into()),
            }
        }
    }
    Ok(())
}
