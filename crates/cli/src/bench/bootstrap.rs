//! `tacit bench bootstrap` and `tacit bench presets`: seconds, precision, levels and keys of bootstrapping.
//!
//! The inputs are complex slots, real and imaginary parts uniform in [-1, 1], fresh for every run. The main figure is of both
//! parts together: SlotsToCoeffs, encapsulation, ModRaise, CoeffsToSlots, one EvalMod for each part (for sparse vectors one
//! for both). The second is of the real parts alone.

use std::time::Instant;

use num_complex::Complex64;
use serde::Serialize;
use tacit_ckks::bootstrap::{Bootstrapper, EncapsulationKeys};
use tacit_ckks::encrypt::{decrypt, encrypt_symmetric};
use tacit_ckks::presets::Preset;
use tacit_ckks::wire::poly_len;
use tacit_ckks::{Context, Encoder, EvaluationKeys, Evaluator, KeyGenerator, SwitchingKey};
use tacit_ring::Modulus;
use tacit_ring::sampling::{secure_rng, uniform};

use super::{engine_failure, median};
use crate::args::{BootstrapArgs, Global, PresetsArgs};
use crate::exit::{Failure, Outcome};
use crate::memory::{cpu_seconds, peak_rss_bytes};
use crate::output::{Table, bytes, print_json, seconds};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    preset: &'static str,
    runs: u32,
    seconds_median: f64,
    seconds_min: f64,
    /// Real slots only: one EvalMod.
    real_seconds_median: f64,
    real_seconds_min: f64,
    /// Processor time of one bootstrap, all threads: what other work on the machine disturbs least.
    cpu_seconds: Option<f64>,
    real_cpu_seconds: Option<f64>,
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
    /// As they are sent: seeds in place of uniform halves, residues packed.
    key_wire_bytes: u64,
    key_switches: u64,
    ct_ct: u64,
    ct_pt: u64,
    threads: usize,
    peak_rss_bytes: Option<u64>,
}

/// Runs `tacit bench bootstrap`.
pub fn run(args: &BootstrapArgs, global: &Global) -> Outcome {
    let preset = Preset::named(&args.preset).ok_or_else(|| {
        let names: Vec<&str> = Preset::all().iter().map(|p| p.name).collect();
        Failure::usage(format!(
            "--preset {}: no such preset; there are {}",
            args.preset,
            names.join(", ")
        ))
    })?;
    let report = measure(
        &preset,
        args.log_slots,
        args.runs,
        Display::pick(global.json),
    )?;
    if global.json {
        return print_json(&report);
    }
    println!(
        "bootstrapping, preset {}, N = 2^{}, {} complex slots, log2 QP = {:.1}, {} threads",
        report.preset, report.log_n, report.slots, report.log_qp, report.threads
    );
    println!(
        "time          {} s median of {}, fastest {} s",
        seconds(report.seconds_median),
        report.runs,
        seconds(report.seconds_min)
    );
    println!(
        "real slots    {} s median, fastest {} s",
        seconds(report.real_seconds_median),
        seconds(report.real_seconds_min)
    );
    if let (Some(both), Some(real)) = (report.cpu_seconds, report.real_cpu_seconds) {
        println!(
            "processor     {} s, real slots {} s",
            seconds(both),
            seconds(real)
        );
    }
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
        "keys          {} in memory, {} sent ({} of them, made in {} s)",
        bytes(report.key_bytes),
        bytes(report.key_wire_bytes),
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

/// Runs `tacit bench presets`.
pub fn run_presets(args: &PresetsArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let cases: Vec<(Preset, Option<u32>)> = Preset::all()
        .into_iter()
        .flat_map(|preset| {
            let sparse = (preset.name == "default").then(|| (preset.clone(), Some(12)));
            [(preset, None)].into_iter().chain(sparse)
        })
        .collect();
    let mut reports = Vec::new();
    for (preset, log_slots) in cases {
        // Sparse vectors are fewer numbers each: as many runs more, so that all errors are of equally many numbers.
        let params = preset.parameters().map_err(engine_failure)?;
        let fewer_halvings = log_slots.map_or(0, |log_slots| params.log_n() - 1 - log_slots);
        reports.push(measure(
            &preset,
            log_slots,
            args.runs << fewer_halvings,
            display,
        )?);
    }
    if global.json {
        return print_json(&reports);
    }
    let mut table = Table::new(&[
        "preset",
        "slots",
        "log2 QP",
        "complex s",
        "real s",
        "worst bits",
        "mean bits",
        "levels",
        "bits",
        "failure",
        "keys",
        "sent",
        "made in s",
    ]);
    for r in &reports {
        table.row(vec![
            r.preset.into(),
            format!("2^{}", r.slots.ilog2()),
            format!("{:.0}", r.log_qp),
            seconds(r.seconds_median),
            seconds(r.real_seconds_median),
            format!("{:.1}", r.bits_worst),
            format!("{:.1}", r.bits_mean),
            r.usable_levels.to_string(),
            r.level_bits.to_string(),
            format!("2^{:.0}", r.failure_log2),
            bytes(r.key_bytes),
            bytes(r.key_wire_bytes),
            seconds(r.keygen_seconds),
        ]);
    }
    print!("{}", table.render());
    println!(
        "{} threads; bits over {} samples a preset",
        rayon::current_num_threads(),
        reports
            .iter()
            .map(|r| 2 * r.slots * r.runs as usize)
            .min()
            .unwrap_or(0)
    );
    Ok(())
}

fn measure(
    preset: &Preset,
    log_slots: Option<u32>,
    runs: u32,
    display: Display,
) -> Outcome<Report> {
    let params = preset.parameters().map_err(engine_failure)?;
    let log_slots = log_slots.unwrap_or(params.log_n() - 1);
    let ctx = Context::new(params).map_err(engine_failure)?;
    let params = ctx.params();
    let slots = 1usize.checked_shl(log_slots).unwrap_or(0);
    let encoder = Encoder::new(ctx.clone());
    let evaluator = Evaluator::new(ctx.clone());
    let options = preset.options(params, log_slots);
    let bootstrapper = Bootstrapper::new(ctx.clone(), options).map_err(engine_failure)?;

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
    let wire = |key: &SwitchingKey| {
        let shape = key.shape();
        key.digits().len() as u64 * poly_len(&ctx, shape.level, shape.special) as u64
    };
    let (mut number, mut key_wire_bytes) = (1, wire(&keys.relinearisation));
    let bar = display.pieces("making keys", 0);
    for key in bootstrapper.galois_keys(&mut generator, &secret) {
        crate::interrupt::check()?;
        let key = key.map_err(engine_failure)?;
        key_wire_bytes += wire(&key);
        keys.insert(key);
        number += 1;
        bar.inc_length(1);
        bar.inc(1);
    }
    bar.finish_and_clear();
    let keygen_seconds = clock.elapsed().as_secs_f64();

    let (mut took, mut first_half, mut took_real) = (Vec::new(), Vec::new(), Vec::new());
    let (mut took_cpu, mut took_real_cpu) = (Vec::new(), Vec::new());
    let since = |before: Option<f64>| Some(cpu_seconds()? - before?);
    let (mut worst, mut squares) = (0.0f64, 0.0f64);
    let mut level = 0;
    let mut counts = evaluator.counts();
    let bar = display.pieces("bootstrapping", u64::from(runs));
    for _ in 0..runs {
        crate::interrupt::check()?;
        let period = random_slots(&params.q(0), slots);
        let x: Vec<Complex64> = period
            .iter()
            .copied()
            .cycle()
            .take(params.slots())
            .collect();
        let ct = encoder
            .encode(&x, params.user_scale(), params.bottom_user_level())
            .and_then(|plain| encrypt_symmetric(&plain, &secret, &mut secure_rng()))
            .map_err(engine_failure)?;

        let clock = Instant::now();
        bootstrapper
            .slots_to_coeffs(&evaluator, &ct, 1.0, &keys)
            .map_err(engine_failure)?;
        first_half.push(clock.elapsed().as_secs_f64());

        evaluator.reset_counts();
        let clock = Instant::now();
        let cpu = cpu_seconds();
        let refreshed = bootstrapper
            .bootstrap(&evaluator, &ct, &keys, &encapsulation)
            .map_err(engine_failure)?;
        took.push(clock.elapsed().as_secs_f64());
        took_cpu.extend(since(cpu));
        counts = evaluator.counts();
        let cpu = cpu_seconds();
        let clock = Instant::now();
        let real = bootstrapper
            .bootstrap_real(&evaluator, &ct, &keys, &encapsulation)
            .map_err(engine_failure)?;
        took_real.push(clock.elapsed().as_secs_f64());
        took_real_cpu.extend(since(cpu));

        level = refreshed.level;
        let decoded = |ct| decrypt(ct, &secret).and_then(|plain| encoder.decode(&plain));
        let y = decoded(&refreshed).map_err(engine_failure)?;
        for e in x
            .iter()
            .zip(&y)
            .flat_map(|(a, b)| [a.re - b.re, a.im - b.im])
        {
            worst = worst.max(e.abs());
            squares += e * e;
        }
        let z = decoded(&real).map_err(engine_failure)?;
        for (a, b) in x.iter().zip(&z) {
            worst = worst.max((a.re - b.re).abs());
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    let samples = f64::from(runs) * 2.0 * params.slots() as f64;
    let fastest = |times: &[f64]| times.iter().copied().fold(f64::INFINITY, f64::min);
    Ok(Report {
        preset: preset.name,
        runs,
        seconds_median: median(&took),
        seconds_min: fastest(&took),
        real_seconds_median: median(&took_real),
        real_seconds_min: fastest(&took_real),
        cpu_seconds: (!took_cpu.is_empty()).then(|| median(&took_cpu)),
        real_cpu_seconds: (!took_real_cpu.is_empty()).then(|| median(&took_real_cpu)),
        slots_to_coeffs_seconds_median: median(&first_half),
        bits_worst: -worst.log2(),
        bits_mean: -0.5 * (squares / samples).log2(),
        usable_levels: level - params.bottom_user_level(),
        level_bits: params.literal().log_user_scale,
        log_n: params.log_n(),
        log_qp: params.log_qp(),
        slots,
        failure_log2: bootstrapper.failure_log2(),
        keygen_seconds,
        keys: number,
        key_bytes: (keys.bytes() + encapsulation.bytes()) as u64,
        key_wire_bytes,
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
