//! `tacit bench engine`: seconds of single operations at N = 2^16.

use std::time::Instant;

use num_complex::Complex64;
use serde::Serialize;
use tacit_ckks::{
    Context, Encoder, Evaluator, KeyGenerator, KeyShape, Parameters, SwitchingKey, encrypt,
};
use tacit_ring::{kernels, sampling};

use super::{engine_failure, median};
use crate::args::{EngineArgs, Global};
use crate::exit::{Failure, Kind, Outcome};
use crate::memory::peak_rss_bytes;
use crate::output::{Table, bytes, print_json, seconds};

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    log_n: u32,
    log_qp: f64,
    level: usize,
    threads: usize,
    kernel: &'static str,
    rotation_key_bytes: usize,
    operations: Vec<Operation>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Operation {
    name: &'static str,
    seconds_median: f64,
    seconds_min: f64,
}

/// Runs the command.
pub fn run(args: &EngineArgs, global: &Global) -> Outcome {
    let report = measure(args)?;
    if global.json {
        return print_json(&report);
    }
    println!(
        "N = 2^{}, log2 QP = {:.1}, level {}, {} threads, {} kernel, one rotation key {}",
        report.log_n,
        report.log_qp,
        report.level,
        report.threads,
        report.kernel,
        bytes(report.rotation_key_bytes as u64)
    );
    let mut table = Table::new(&["operation", "median s", "fastest s"]);
    for o in &report.operations {
        table.row(vec![
            o.name.into(),
            seconds(o.seconds_median),
            seconds(o.seconds_min),
        ]);
    }
    print!("{}", table.render());
    Ok(())
}

fn measure(args: &EngineArgs) -> Outcome<Report> {
    let params = Parameters::default_128();
    let level = args.level.unwrap_or(params.top_user_level());
    if level == 0 || level > params.max_level() {
        return Err(Failure::usage(format!(
            "--level {level}: expected 1 to {}",
            params.max_level()
        )));
    }
    let ctx = Context::new(params.clone()).map_err(engine_failure)?;
    let mut generator = KeyGenerator::new(ctx.clone());
    let sk = generator.secret();
    let shape = KeyShape::minimal(&params, level);
    let step = 1i64;
    let element = generator.rotation_element(step);
    let keys = generator
        .evaluation_keys(&sk, shape, &[(element, shape)])
        .map_err(engine_failure)?;
    let encoder = Encoder::new(ctx.clone());
    let evaluator = Evaluator::new(ctx.clone());
    let mut rng = sampling::secure_rng();

    let values: Vec<Complex64> = (0..params.slots())
        .map(|j| Complex64::new((j as f64 * 0.37).sin(), (j as f64 * 0.11).cos()))
        .collect();
    let scale = params.user_scale();
    let plain = encoder
        .encode(&values, scale, level)
        .map_err(engine_failure)?;
    let a = encrypt::encrypt_symmetric(&plain, &sk, &mut rng).map_err(engine_failure)?;
    let b = encrypt::encrypt_symmetric(&plain, &sk, &mut rng).map_err(engine_failure)?;
    let tensor = evaluator.mul_tensor(&a, &b).map_err(engine_failure)?;
    let product = evaluator.mul_plain(&a, &plain).map_err(engine_failure)?;
    let hoisted = evaluator.hoist(&a, shape.special).map_err(engine_failure)?;

    let mut operations = Vec::new();
    let mut time = |name: &'static str,
                    work: &mut dyn FnMut() -> Result<(), tacit_ckks::CkksError>|
     -> Outcome {
        let mut took = Vec::new();
        for _ in 0..args.runs {
            crate::interrupt::check()?;
            let start = Instant::now();
            work().map_err(engine_failure)?;
            took.push(start.elapsed().as_secs_f64());
        }
        operations.push(Operation {
            name,
            seconds_median: median(&took),
            seconds_min: took.iter().copied().fold(f64::INFINITY, f64::min),
        });
        Ok(())
    };
    let table = ctx.q_table(0).clone();
    let mut limb: Vec<u64> = (0..params.n() as u64).collect();
    time("transform of one limb", &mut || {
        table.forward(&mut limb);
        Ok(())
    })?;
    time("inverse transform of one limb", &mut || {
        table.inverse(&mut limb);
        Ok(())
    })?;
    time("encode", &mut || {
        encoder.encode(&values, scale, level).map(drop)
    })?;
    time("encrypt (secret key)", &mut || {
        encrypt::encrypt_symmetric(&plain, &sk, &mut rng).map(drop)
    })?;
    time("decrypt and decode", &mut || {
        encoder.decode(&encrypt::decrypt(&a, &sk)?).map(drop)
    })?;
    time("ciphertext + ciphertext", &mut || {
        evaluator.add(&a, &b).map(drop)
    })?;
    time("ciphertext * plaintext", &mut || {
        evaluator.mul_plain(&a, &plain).map(drop)
    })?;
    time("ciphertext * ciphertext, three parts", &mut || {
        evaluator.mul_tensor(&a, &b).map(drop)
    })?;
    time("relinearise", &mut || {
        evaluator.relinearise(&tensor, &keys).map(drop)
    })?;
    time(
        "ciphertext * ciphertext, relinearised and rescaled",
        &mut || evaluator.mul(&a, &b, &keys).map(drop),
    )?;
    time("rescale", &mut || evaluator.rescale(&product).map(drop))?;
    time("rotate", &mut || {
        evaluator.rotate(&a, step, &keys).map(drop)
    })?;
    time("decompose once (hoist)", &mut || {
        evaluator.hoist(&a, shape.special).map(drop)
    })?;
    time("rotate, decomposed before", &mut || {
        evaluator.rotate_hoisted(&hoisted, &[step], &keys).map(drop)
    })?;

    let got = evaluator
        .rotate(&a, step, &keys)
        .and_then(|r| encoder.decode(&encrypt::decrypt(&r, &sk)?))
        .map_err(engine_failure)?;
    let worst = got
        .iter()
        .enumerate()
        .map(|(j, g)| (g - values[(j + 1) % values.len()]).norm())
        .fold(0.0, f64::max);
    if worst > 2f64.powi(-20) {
        return Err(Failure::new(
            Kind::Other,
            format!(
                "a rotated ciphertext decrypts to values that are off by {worst:.3e}: the engine is broken on this machine; try TACIT_KERNEL=portable"
            ),
        ));
    }
    Ok(Report {
        log_n: params.log_n(),
        log_qp: params.log_qp(),
        level,
        threads: rayon::current_num_threads(),
        kernel: kernels::active().name(),
        rotation_key_bytes: keys
            .galois_key(element, level, None)
            .map_or(0, SwitchingKey::bytes),
        operations,
        peak_rss_bytes: peak_rss_bytes(),
    })
}
