//! Milliseconds of every operation with the default parameters (N = 2^16).
//!
//! `cargo run --release -p tacit-ckks --example ops -- [level] [threads ...]`; by default level 23 (24 limbs) with one and two threads.

use std::time::Instant;
use tacit_ckks::{
    Ciphertext, Context, Encoder, EvaluationKeys, Evaluator, KeyGenerator, KeyShape, Parameters,
    Plaintext, SecretKey, encrypt,
};
use tacit_ring::sampling::secure_rng;

struct Setup {
    encoder: Encoder,
    evaluator: Evaluator,
    secret: SecretKey,
    keys: EvaluationKeys,
    slots: Vec<f64>,
    pt: Plaintext,
    a: Ciphertext,
    b: Ciphertext,
    level: usize,
}

const STEPS: [i64; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

fn setup(level: usize) -> Result<Setup, tacit_ckks::CkksError> {
    let started = Instant::now();
    let ctx = Context::new(Parameters::default_128())?;
    println!("context {:.2} s", started.elapsed().as_secs_f64());
    let started = Instant::now();
    let mut generator = KeyGenerator::new(ctx.clone());
    let secret = generator.secret();
    let full = KeyShape::full(ctx.params());
    let elements: Vec<_> = STEPS
        .iter()
        .map(|&s| (generator.rotation_element(s), full))
        .collect();
    let keys = generator.evaluation_keys(&secret, full, &elements)?;
    println!(
        "{} keys {:.2} s, {} MiB",
        1 + STEPS.len(),
        started.elapsed().as_secs_f64(),
        keys.bytes() >> 20
    );
    let encoder = Encoder::new(ctx.clone());
    let slots: Vec<f64> = (0..ctx.params().slots())
        .map(|i| (i as f64).sin())
        .collect();
    let pt = encoder.encode_real(&slots, ctx.params().user_scale(), level)?;
    let mut rng = secure_rng();
    let a = encrypt::encrypt_symmetric(&pt, &secret, &mut rng)?;
    let b = encrypt::encrypt_symmetric(&pt, &secret, &mut rng)?;
    Ok(Setup {
        encoder,
        evaluator: Evaluator::new(ctx),
        secret,
        keys,
        slots,
        pt,
        a,
        b,
        level,
    })
}

/// Prints the least and the median of several runs.
fn time<T>(
    name: &str,
    runs: usize,
    mut f: impl FnMut() -> Result<T, tacit_ckks::CkksError>,
) -> Result<(), tacit_ckks::CkksError> {
    f()?;
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let started = Instant::now();
        f()?;
        seconds.push(started.elapsed().as_secs_f64() * 1e3);
    }
    seconds.sort_by(f64::total_cmp);
    println!(
        "  {name:<34} {:8.2} / {:8.2} ms",
        seconds[0],
        seconds[runs / 2]
    );
    Ok(())
}

fn run(s: &Setup) -> Result<(), tacit_ckks::CkksError> {
    let e = &s.evaluator;
    let special = s.keys.relinearisation.special;
    let scale = s.encoder.context().params().user_scale();
    let mut sum = s.a.clone();
    time("add (in place)", 21, || e.add_assign(&mut sum, &s.b))?;
    time("ct x pt", 21, || e.mul_plain(&s.a, &s.pt))?;
    time("ct x constant", 21, || e.mul_const(&s.a, 0.3, scale))?;
    time("rescale", 21, || e.rescale(&s.a))?;
    time("ct x ct + relin + rescale", 15, || {
        e.mul(&s.a, &s.b, &s.keys)
    })?;
    time("rotation", 15, || e.rotate(&s.a, 1, &s.keys))?;
    time("hoist (decompose, mod-up)", 15, || e.hoist(&s.a, special))?;
    time("8 hoisted rotations", 5, || {
        e.rotate_hoisted(&e.hoist(&s.a, special)?, &STEPS, &s.keys)
    })?;
    time("8 hoisted rotations, lazy", 5, || {
        e.rotate_hoisted_lazy(&e.hoist(&s.a, special)?, &STEPS, &s.keys)
    })?;
    time("encode", 7, || {
        s.encoder.encode_real(&s.slots, scale, s.level)
    })?;
    time("decode", 7, || s.encoder.decode(&s.pt))?;
    let mut rng = secure_rng();
    time("encrypt (symmetric)", 7, || {
        encrypt::encrypt_symmetric(&s.pt, &s.secret, &mut rng)
    })?;
    time("decrypt", 7, || encrypt::decrypt(&s.a, &s.secret))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1).map(|a| a.parse::<usize>());
    let level = arguments.next().transpose()?.unwrap_or(23);
    let mut threads: Vec<usize> = arguments.collect::<Result<_, _>>()?;
    if threads.is_empty() {
        threads = vec![1, 2];
    }
    let setup = setup(level)?;
    for threads in threads {
        println!("{} limbs, {threads} threads: least / median", level + 1);
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()?
            .install(|| run(&setup))?;
    }
    Ok(())
}
