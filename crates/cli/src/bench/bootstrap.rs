//! `tacit bench bootstrap`: the bootstrapping of the default parameters: seconds, precision, levels, keys.
//!
//! The inputs are complex slots, real and imaginary parts uniform in [-1, 1], fresh for every run. The figure is of both
//! parts together: SlotsToCoeffs, encapsulation, ModRaise, CoeffsToSlots, one EvalMod for each part.

use std::time::Instant;

use num_complex::Complex64;
use serde::Serialize;
use tacit_ckks::bootstrap::{Bootstrapper, EncapsulationKeys};
use tacit_ckks::encrypt::{decrypt, encrypt_symmetric};
use tacit_ckks::{
    CkksError, Context, Encoder, EvaluationKeys, Evaluator, KeyGenerator, Parameters,
};
use tacit_ring::Modulus;
use tacit_ring::sampling::{secure_rng, uniform};

use super::{engine_failure, median};
use crate::args::{BootstrapArgs, Global};
use crate::exit::Outcome;
use crate::memory::peak_rss_bytes;
use crate::output::{bytes, print_json, seconds};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    runs: u32,
    seconds_median: f64,
    seconds_min: f64,
    slots_to_coeffs_seconds_median: f64,
    /// Largest error of any real or imaginary part, of all runs.
    bits_worst: f64,
    /// Root mean square error.
    bits_mean: f64,
    usable_levels: usize,
    level_bits: u32,
    log_n: u32,
    log_qp: f64,
    slots: usize,
    /// log2 of the probability that one bootstrap fails.
    failure_log2: f64,
    keygen_seconds: f64,
    keys: usize,
    key_bytes: u64,
    key_switches: u64,
    ct_ct: u64,
    ct_pt: u64,
    threads: usize,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(args: &BootstrapArgs, global: &Global) -> Outcome {
    let report = measure(args, Display::pick(global.json))?;
    if global.json {
        return print_json(&report);
    }
    println!(
        "bootstrapping, N = 2^{}, {} complex slots, log2 QP = {:.1}, {} threads",
        report.log_n, report.slots, report.log_qp, report.threads
    );
    println!(
        "time          {} s median of {}, fastest {} s",
        seconds(report.seconds_median),
        report.runs,
        seconds(report.seconds_min)
    );
    println!(
        "error         {:.2} bits worst, {:.2} bits root mean square",
        report.bits_worst, report.bits_mean
    );
    println!(
        "levels        {} usable, {} bits each",
        report.usable_levels, report.level_bits
    );
    println!("failure       2^{:.1} a bootstrap", report.failure_log2);
    println!(
        "keys          {} ({} of them, made in {} s)",
        bytes(report.key_bytes),
        report.keys,
        seconds(report.keygen_seconds)
    );
    println!(
        "operations    {} key switches, {} products of ciphertexts, {} with plaintexts",
        report.key_switches, report.ct_ct, report.ct_pt
    );
    if let Some(peak) = report.peak_rss_bytes {
        println!("peak memory   {}", bytes(peak));
    }
    Ok(())
}

fn measure(args: &BootstrapArgs, display: Display) -> Outcome<Report> {
    let ctx = Context::new(Parameters::default_128()).map_err(engine_failure)?;
    let params = ctx.params();
    let encoder = Encoder::new(ctx.clone());
    let evaluator = Evaluator::new(ctx.clone());
    let bootstrapper = Bootstrapper::for_context(ctx.clone()).map_err(engine_failure)?;

    let clock = Instant::now();
    let mut generator = KeyGenerator::new(ctx.clone());
    let secret = generator.secret();
    let ephemeral = generator
        .ephemeral_secret(&secret)
        .map_err(engine_failure)?;
    let encapsulation =
        EncapsulationKeys::generate(&mut generator, &secret, &ephemeral).map_err(engine_failure)?;
    let relinearisation = generator
        .relinearisation(&secret, bootstrapper.relinearisation_shape())
        .map_err(engine_failure)?;
    let mut keys = EvaluationKeys::new(relinearisation);
    let mut number = 1;
    let bar = display.pieces("making keys", 0);
    for key in bootstrapper.galois_keys(&mut generator, &secret) {
        crate::interrupt::check()?;
        keys.insert(key.map_err(engine_failure)?);
        number += 1;
        bar.inc_length(1);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let keygen_seconds = clock.elapsed().as_secs_f64();

    let (mut took, mut first_half) = (Vec::new(), Vec::new());
    let (mut worst, mut squares) = (0.0f64, 0.0f64);
    let mut level = 0;
    let bar = display.pieces("bootstrapping", u64::from(args.runs));
    for _ in 0..args.runs {
        crate::interrupt::check()?;
        let x = random_slots(&params.q(0), params.slots());
        let ct = encoder
            .encode(&x, params.user_scale(), params.bottom_user_level())
            .and_then(|plain| encrypt_symmetric(&plain, &secret, &mut secure_rng()))
            .map_err(engine_failure)?;
        evaluator.reset_counts();
        let clock = Instant::now();
        let mut half = 0.0;
        let refreshed = (|| -> Result<_, CkksError> {
            let coefficients = bootstrapper.slots_to_coeffs(&evaluator, &ct, 1.0, &keys)?;
            half = clock.elapsed().as_secs_f64();
            let sparse = bootstrapper.encapsulate(&evaluator, &coefficients, &encapsulation)?;
            let (mut real, imaginary) =
                bootstrapper.refresh(&evaluator, &sparse, true, &keys, &encapsulation)?;
            if let Some(imaginary) = imaginary {
                evaluator.add_assign(&mut real, &evaluator.mul_i(&imaginary)?)?;
            }
            Ok(real)
        })()
        .map_err(engine_failure)?;
        took.push(clock.elapsed().as_secs_f64());
        first_half.push(half);
        level = refreshed.level;
        let y = decrypt(&refreshed, &secret)
            .and_then(|plain| encoder.decode(&plain))
            .map_err(engine_failure)?;
        for e in x
            .iter()
            .zip(&y)
            .flat_map(|(a, b)| [a.re - b.re, a.im - b.im])
        {
            worst = worst.max(e.abs());
            squares += e * e;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let samples = f64::from(args.runs) * 2.0 * params.slots() as f64;
    let counts = evaluator.counts();
    Ok(Report {
        runs: args.runs,
        seconds_median: median(&took),
        seconds_min: took.iter().copied().fold(f64::INFINITY, f64::min),
        slots_to_coeffs_seconds_median: median(&first_half),
        bits_worst: -worst.log2(),
        bits_mean: -0.5 * (squares / samples).log2(),
        usable_levels: level - params.bottom_user_level(),
        level_bits: params.literal().log_user_scale,
        log_n: params.log_n(),
        log_qp: params.log_qp(),
        slots: params.slots(),
        failure_log2: bootstrapper.failure_log2(),
        keygen_seconds,
        keys: number,
        key_bytes: (keys.bytes() + encapsulation.bytes()) as u64,
        key_switches: counts.key_switches,
        ct_ct: counts.ct_ct,
        ct_pt: counts.ct_pt,
        threads: rayon::current_num_threads(),
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// Uniform in the square |re|, |im| <= 1: residues of some modulus, read as fractions of it.
fn random_slots(modulus: &Modulus, count: usize) -> Vec<Complex64> {
    let mut words = vec![0u64; 2 * count];
    uniform(modulus, &mut secure_rng(), &mut words);
    let real = |w: u64| 2.0 * w as f64 / modulus.value() as f64 - 1.0;
    words
        .chunks_exact(2)
        .map(|w| Complex64::new(real(w[0]), real(w[1])))
        .collect()
}
