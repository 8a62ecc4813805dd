//! `tacit bench linear`: one ternary linear layer on module-LWE ciphertexts: seconds of ring switch, mix and repack, and the
//! error of its outputs.
//!
//! Inputs are encryptions of random values, so small that outputs stay within [-1, 1] at the scale `q0/2^10`, as in the
//! model. Mix and repack run interleaved; their common wall time is divided by the thread time that each took.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tacit_ckks::mlwe::{MixWord, MlweContext, MlweKeys, TernaryMix};
use tacit_ckks::{
    Ciphertext, Context, Encoder, Evaluator, KeyGenerator, Parameters, SecretKey, encrypt,
};
use tacit_ring::sampling;

use super::engine_failure;
use crate::args::{Global, LinearArgs};
use crate::exit::{Failure, Kind, Outcome};
use crate::memory::peak_rss_bytes;
use crate::output::{count, print_json, seconds};

/// Degree of the small ring: more tokens than that cannot share a module ciphertext.
const LARGEST_WINDOW: usize = 1 << 11;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    d_in: usize,
    d_out: usize,
    tokens: usize,
    word_bits: u8,
    threads: usize,
    ring_switch_seconds: f64,
    mix_seconds: f64,
    repack_seconds: f64,
    total_seconds: f64,
    /// Root mean square error of outputs in [-1, 1].
    error_bits: f64,
    /// Largest error.
    error_bits_worst: f64,
    word_additions: u64,
    /// Products of ciphertexts or with plaintexts: none.
    multiplications: u64,
    key_bytes: u64,
    peak_rss_bytes: Option<u64>,
}

/// Keys, encrypted inputs, the matrix, and what the outputs should be.
struct Layer {
    ctx: Arc<Context>,
    mlwe: MlweContext,
    ephemeral: SecretKey,
    keys: MlweKeys,
    mix: TernaryMix,
    inputs: Vec<Ciphertext>,
    expected: Vec<f64>,
}

/// Runs the command.
pub fn run(args: &LinearArgs, global: &Global) -> Outcome {
    if args.d_in == 0 || args.d_out == 0 || args.d_in > 8192 || args.d_out > 65_536 {
        return Err(Failure::usage(format!(
            "--d-in {} --d-out {}: expected 1 to 8192 inputs (word sums of 64 bits hold no more) and 1 to 65536 outputs",
            args.d_in, args.d_out
        )));
    }
    if !args.tokens.is_power_of_two() || args.tokens > LARGEST_WINDOW {
        return Err(Failure::usage(format!(
            "--tokens {}: expected a power of two up to {}",
            args.tokens, LARGEST_WINDOW
        )));
    }
    let layer = Layer::new(args)?;
    let report = match args.words {
        32 => layer.measure::<u32>(args)?,
        64 => layer.measure::<u64>(args)?,
        other => {
            return Err(Failure::usage(format!(
                "--words {other}: expected 32 or 64"
            )));
        }
    };
    if global.json {
        return print_json(&report);
    }
    println!(
        "{} -> {} features, {} tokens, {}-bit words, {} threads",
        report.d_in, report.d_out, report.tokens, report.word_bits, report.threads
    );
    println!("ring switch  {} s", seconds(report.ring_switch_seconds));
    println!(
        "mix          {} s  ({} word additions, no multiplication)",
        seconds(report.mix_seconds),
        count(report.word_additions)
    );
    println!("repack       {} s", seconds(report.repack_seconds));
    println!(
        "error        {:.2} bits root mean square, {:.2} bits worst",
        report.error_bits, report.error_bits_worst
    );
    Ok(())
}

/// Seconds of one ternary product with ring switch and repack, the fastest of the runs.
pub(super) fn total_seconds(args: &LinearArgs) -> Outcome<f64> {
    Ok(Layer::new(args)?.measure::<u64>(args)?.total_seconds)
}

impl Layer {
    fn new(args: &LinearArgs) -> Outcome<Self> {
        let ctx = Context::new(Parameters::default_128()).map_err(engine_failure)?;
        let mut rng = sampling::secure_rng();
        let mut generator = KeyGenerator::new(ctx.clone());
        let secret = generator.secret();
        let ephemeral = generator
            .ephemeral_secret(&secret)
            .map_err(engine_failure)?;
        let mlwe = MlweContext::new(&ctx, args.tokens).map_err(engine_failure)?;
        let keys =
            MlweKeys::generate(&mlwe, &secret, &ephemeral, &mut rng).map_err(engine_failure)?;

        let weights = sampling::ternary(&mut rng, args.d_in * args.d_out);
        let shape = *mlwe.shape();
        let mix = TernaryMix::dense(shape, args.d_out, args.d_in, |row, col| {
            weights[row * args.d_in + col]
        })
        .map_err(engine_failure)?;

        // Inputs so small that outputs, the largest of which are about 4 standard deviations, stay within [-1, 1].
        let (k, t) = (shape.features(), args.tokens);
        let bound = 1.0 / (args.d_in as f64).sqrt() / 2.0;
        let mut uniform = vec![0; args.d_in * t];
        sampling::uniform(mlwe.q0(), &mut rng, &mut uniform);
        let half = mlwe.q0().value() as f64 / 2.0;
        let x: Vec<f64> = uniform
            .iter()
            .map(|&u| (u as f64 / half - 1.0) * bound)
            .collect();
        let encoder = Encoder::new(ctx.clone());
        let scale = half * 2.0 / f64::from(ctx.params().literal().log_message_ratio).exp2();
        let inputs = x
            .chunks(k * t)
            .map(|features| {
                let mut m = vec![0.0; ctx.n()];
                for (f, row) in features.chunks_exact(t).enumerate() {
                    for (token, &v) in row.iter().enumerate() {
                        m[shape.coefficient(f, token)] = v;
                    }
                }
                encrypt::encrypt_symmetric(&encoder.encode_coeffs(&m, scale, 0)?, &secret, &mut rng)
            })
            .collect::<Result<_, _>>()
            .map_err(engine_failure)?;
        let mut expected = vec![0.0; args.d_out * t];
        for (row, out) in expected.chunks_exact_mut(t).enumerate() {
            for (col, x) in x.chunks_exact(t).enumerate() {
                let w = f64::from(weights[row * args.d_in + col]);
                out.iter_mut().zip(x).for_each(|(out, x)| *out += w * x);
            }
        }
        Ok(Layer {
            ctx,
            mlwe,
            ephemeral,
            keys,
            mix,
            inputs,
            expected,
        })
    }

    /// Root mean square and largest error of the outputs, in bits below 1.
    fn error_bits(&self, out: &[Ciphertext]) -> Outcome<(f64, f64)> {
        let shape = self.mlwe.shape();
        let encoder = Encoder::new(self.ctx.clone());
        let plain = out
            .iter()
            .map(|ct| encoder.decode_coeffs(&encrypt::decrypt(ct, &self.ephemeral)?))
            .collect::<Result<Vec<_>, _>>()
            .map_err(engine_failure)?;
        let (mut squares, mut worst) = (0f64, 0f64);
        for (f, row) in self.expected.chunks_exact(shape.tokens()).enumerate() {
            for (t, &want) in row.iter().enumerate() {
                let got = plain[f / shape.features()][shape.coefficient(f % shape.features(), t)];
                squares += (got - want) * (got - want);
                worst = worst.max((got - want).abs());
            }
        }
        Ok((
            -(squares / self.expected.len() as f64).sqrt().log2(),
            -worst.log2(),
        ))
    }

    fn measure<T: MixWord>(&self, args: &LinearArgs) -> Outcome<Report> {
        let evaluator = Evaluator::new(self.ctx.clone());
        let mut best = [f64::INFINITY; 4];
        let mut bits = (f64::INFINITY, f64::INFINITY);
        let mut additions = 0;
        for _ in 0..args.runs {
            crate::interrupt::check()?;
            let start = Instant::now();
            let (out, report) = self
                .mlwe
                .apply::<T>(&evaluator, &self.keys, &self.mix, &self.inputs)
                .map_err(engine_failure)?;
            let total = start.elapsed();
            let seconds =
                [report.ring_switch, report.mix, report.repack, total].map(|d| d.as_secs_f64());
            for (best, s) in best.iter_mut().zip(seconds) {
                *best = best.min(s);
            }
            let (rms, worst) = self.error_bits(&out)?;
            bits = (bits.0.min(rms), bits.1.min(worst));
            additions = report.additions;
        }
        let counts = evaluator.counts();
        if counts.ct_ct + counts.ct_pt > 0 {
            return Err(Failure::new(
                Kind::Other,
                format!(
                    "the ternary layer multiplied: {} products of ciphertexts, {} with plaintexts; expected none",
                    counts.ct_ct, counts.ct_pt
                ),
            ));
        }
        let [
            ring_switch_seconds,
            mix_seconds,
            repack_seconds,
            total_seconds,
        ] = best;
        Ok(Report {
            d_in: args.d_in,
            d_out: args.d_out,
            tokens: args.tokens,
            word_bits: args.words,
            threads: rayon::current_num_threads(),
            ring_switch_seconds,
            mix_seconds,
            repack_seconds,
            total_seconds,
            error_bits: bits.0,
            error_bits_worst: bits.1,
            word_additions: additions * args.tokens as u64,
            multiplications: counts.ct_ct + counts.ct_pt,
            key_bytes: self.keys.bytes() as u64,
            peak_rss_bytes: peak_rss_bytes(),
        })
    }
}
