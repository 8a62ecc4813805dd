//! Times bootstrapping with the default 128-bit parameters (N = 2^16) and measures its precision on random complex slots.
//!
//! ```text
//! cargo run --release -p tacit-ckks --example bootstrap [inputs [user-levels special-primes]]
//! ```
//!
//! Fewer user levels make a shorter chain, and more special primes fewer digits in a key switch: what is left of the security budget decides.
//!
//! Prints one JSON object on standard output, progress on standard error. Needs about 7 GiB. `RAYON_NUM_THREADS` sets the threads.

use std::time::Instant;

use num_complex::Complex64;
use tacit_ckks::bootstrap::{Bootstrapper, EncapsulationKeys};
use tacit_ckks::encrypt::{decrypt, encrypt_symmetric};
use tacit_ckks::{
    Context, Encoder, EvaluationKeys, Evaluator, KeyGenerator, Parameters, ParametersLiteral,
};
use tacit_ring::sampling::{secure_rng, uniform_from_seed};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let inputs: u64 = std::env::args().nth(1).map_or(Ok(8), |s| s.parse())?;
    let start = Instant::now();
    let mut literal = ParametersLiteral::default_128();
    if let Some(levels) = std::env::args().nth(2) {
        literal.user_bits = vec![literal.log_user_scale; levels.parse()?];
    }
    if let Some(special) = std::env::args().nth(3) {
        literal.special_bits = vec![50; special.parse()?];
    }
    let ctx = Context::new(Parameters::new(literal)?)?;
    let params = ctx.params();
    let (encoder, evaluator) = (Encoder::new(ctx.clone()), Evaluator::new(ctx.clone()));
    let bootstrapper = Bootstrapper::for_context(ctx.clone())?;
    eprintln!(
        "{:6.1} s: factors encoded, {} MiB",
        start.elapsed().as_secs_f64(),
        bootstrapper.plaintext_bytes() >> 20
    );

    let mut generator = KeyGenerator::new(ctx.clone());
    let secret = generator.secret();
    let ephemeral = generator.ephemeral_secret(&secret)?;
    let encapsulation = EncapsulationKeys::generate(&mut generator, &secret, &ephemeral)?;
    let mut keys = EvaluationKeys::new(
        generator.relinearisation(&secret, bootstrapper.relinearisation_shape())?,
    );
    for key in bootstrapper.galois_keys(&mut generator, &secret) {
        keys.insert(key?);
    }
    let key_bytes = keys.bytes() + encapsulation.bytes();
    let galois: usize = keys.galois.values().map(Vec::len).sum();
    eprintln!(
        "{:6.1} s: {galois} Galois keys, {} MiB of keys",
        start.elapsed().as_secs_f64(),
        key_bytes >> 20
    );

    let (mut seconds, mut worst, mut squares) = (Vec::new(), 0.0f64, 0.0f64);
    let mut output_level = 0;
    for input in 0..inputs {
        let x = random_slots(params.slots(), input);
        let plain = encoder.encode(&x, params.user_scale(), params.bottom_user_level())?;
        let ct = encrypt_symmetric(&plain, &secret, &mut secure_rng())?;
        evaluator.reset_counts();
        let (clock, cpu) = (Instant::now(), cpu_seconds());
        let coefficients = bootstrapper.slots_to_coeffs(&evaluator, &ct, 1.0, &keys)?;
        let half = clock.elapsed().as_secs_f64();
        let sparse = bootstrapper.encapsulate(&evaluator, &coefficients, &encapsulation)?;
        let (real, imaginary) =
            bootstrapper.refresh(&evaluator, &sparse, true, &keys, &encapsulation)?;
        let mut refreshed = real;
        if let Some(imaginary) = imaginary {
            evaluator.add_assign(&mut refreshed, &evaluator.mul_i(&imaginary)?)?;
        }
        seconds.push(clock.elapsed().as_secs_f64());
        let cpu = cpu_seconds()
            .zip(cpu)
            .map_or(f64::NAN, |(after, before)| after - before);
        output_level = refreshed.level;
        let y = encoder.decode(&decrypt(&refreshed, &secret)?)?;
        let errors = x
            .iter()
            .zip(&y)
            .flat_map(|(a, b)| [a.re - b.re, a.im - b.im]);
        let (largest, sum) = errors.fold((0.0f64, 0.0), |(m, s), e| (m.max(e.abs()), s + e * e));
        worst = worst.max(largest);
        squares += sum / (2 * x.len()) as f64;
        eprintln!(
            "{:6.1} s: input {input}: {:.3} s (SlotsToCoeffs {half:.3}; {cpu:.2} s of processor time), {:.2} bits worst; {:?}",
            start.elapsed().as_secs_f64(),
            seconds[seconds.len() - 1],
            -largest.log2(),
            evaluator.counts()
        );
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "{{\"seconds_median\": {:.3}, \"bits_worst\": {:.2}, \"bits_mean\": {:.2}, \"usable_levels\": {}, \"level_bits\": {}, \"log_qp\": {:.1}, \
         \"slots\": {}, \"failure_log2\": {:.1}, \"peak_rss_bytes\": {}, \"key_bytes\": {key_bytes}, \"threads\": {}}}",
        seconds[seconds.len() / 2],
        -worst.log2(),
        -0.5 * (squares / inputs as f64).log2(),
        output_level - params.bottom_user_level(),
        params.literal().log_user_scale,
        params.log_qp(),
        params.slots(),
        bootstrapper.failure_log2(),
        peak_rss_bytes().unwrap_or(0),
        rayon::current_num_threads(),
    );
    Ok(())
}

/// Uniform in the square `|re|, |im| <= 1`.
fn random_slots(count: usize, seed: u64) -> Vec<Complex64> {
    let modulus = tacit_ring::Modulus::new((1 << 50) - 27).expect("a prime");
    let mut words = vec![0u64; 2 * count];
    uniform_from_seed(&modulus, &[seed as u8; 32], seed, &mut words);
    let real = |w: u64| 2.0 * w as f64 / modulus.value() as f64 - 1.0;
    words
        .chunks_exact(2)
        .map(|w| Complex64::new(real(w[0]), real(w[1])))
        .collect()
}

/// Processor time of all threads, where the system tells it: fields 14 and 15 of `stat`, in hundredths of a second.
fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let after_name = &stat[stat.rfind(')')? + 2..];
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .map(|field| field.parse().unwrap_or(0))
        .sum();
    Some(ticks as f64 / 100.0)
}

/// The high-water mark of resident memory, where the system tells it.
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
