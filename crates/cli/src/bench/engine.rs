//! `tacit bench engine`: seconds of single operations at N = 2^16, beside those of other libraries.
//!
//! Other libraries' figures come from a file of JSON lines, one object for each case, as benchmark scripts of theirs write it:
//! `{"lib", "version", "case", "results": {operation: {"median": seconds}}}`. The operations' names are those of [`ROWS`].

use std::path::Path;
use std::time::Instant;

use num_complex::Complex64;
use serde::{Deserialize, Serialize};
use tacit_ckks::{
    CkksError, Context, Encoder, Evaluator, KeyGenerator, KeyShape, Parameters, SwitchingKey,
    encrypt,
};
use tacit_ring::{RnsPoly, kernels, sampling};

use super::{anchors, engine_failure, median};
use crate::args::{EngineArgs, Global};
use crate::exit::{Failure, Kind, Outcome};
use crate::memory::peak_rss_bytes;
use crate::output::{Table, bytes, print_json, seconds};
use crate::progress::Display;

/// Operations in the order of the table: our name, the name in a file of other libraries' figures.
const ROWS: [(&str, Option<&str>); 20] = [
    ("transform of one limb", None),
    ("inverse transform of one limb", None),
    ("encode", Some("encode")),
    ("encrypt (public key)", Some("encrypt")),
    ("encrypt (secret key)", None),
    ("decrypt and decode", Some("decrypt+decode")),
    ("ciphertext + ciphertext", Some("ct+ct")),
    ("ciphertext + ciphertext, in place", Some("ct+ct in place")),
    ("as many words added in place: what the memory allows", None),
    ("as many words only read", None),
    ("ciphertext * plaintext", Some("ct*pt (no rescale)")),
    ("ciphertext * plaintext, rescaled", Some("ct*pt+rescale")),
    ("ciphertext * ciphertext, three parts", None),
    ("relinearise", None),
    (
        "ciphertext * ciphertext, relinearised and rescaled",
        Some("ct*ct+relin+rescale"),
    ),
    ("rescale", None),
    ("rotate", Some("rotate")),
    ("decompose once (hoist)", None),
    ("rotate, decomposed before", None),
    ("8 rotations of one ciphertext", Some("rotate hoisted x8")),
];

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    log_n: u32,
    log_qp: f64,
    level: usize,
    limbs: usize,
    threads: usize,
    kernel: &'static str,
    rotation_key_bytes: usize,
    operations: Vec<Operation>,
    others: Vec<Other>,
    peak_rss_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Operation {
    name: &'static str,
    seconds_median: f64,
    seconds_min: f64,
}

/// Another library's case.
#[derive(Debug, Serialize, Deserialize)]
pub struct Other {
    lib: String,
    #[serde(default)]
    version: String,
    case: String,
    results: serde_json::Map<String, serde_json::Value>,
}

impl Other {
    /// Median seconds of an operation, if the case has it.
    pub fn seconds(&self, operation: &str) -> Option<f64> {
        self.results.get(operation)?.get("median")?.as_f64()
    }
}

/// Reads a file of JSON lines.
pub fn read_others(path: &Path) -> Outcome<Vec<Other>> {
    let refuse = |what: String| Failure::new(Kind::Input, format!("{}: {what}", path.display()));
    let text =
        std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot be read ({e})")))?;
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(k, line)| {
            serde_json::from_str(line).map_err(|e| {
                refuse(format!(
                    "line {} is not an object with lib, case and results ({e}); write one JSON object a line",
                    k + 1
                ))
            })
        })
        .collect()
}

/// Runs the command.
pub fn run(args: &EngineArgs, global: &Global) -> Outcome {
    let mut others = Vec::new();
    for path in &args.others {
        others.extend(read_others(path)?);
    }
    if let Some(folder) = &args.anchors {
        let display = Display::pick(global.json);
        let waiting = display.waiting("measuring other libraries, one after another");
        let measured = anchors::measure(folder);
        waiting.finish_and_clear();
        others.extend(measured?);
    }
    // Cases without any operation of the table (a bootstrap, say) have no place in it.
    others.retain(|other| {
        ROWS.iter()
            .filter_map(|(_, name)| *name)
            .any(|name| other.seconds(name).is_some())
    });
    let report = measure(args, others)?;
    if global.json {
        return print_json(&report);
    }
    println!(
        "N = 2^{}, log2 QP = {:.1}, {} limbs, {} threads, {} kernel, one rotation key {}",
        report.log_n,
        report.log_qp,
        report.limbs,
        report.threads,
        report.kernel,
        bytes(report.rotation_key_bytes as u64)
    );
    let mut head = vec!["operation", "median s", "fastest s"];
    let names: Vec<String> = report
        .others
        .iter()
        .map(|o| format!("{} {}, {}", o.lib, o.version, o.case))
        .collect();
    head.extend(names.iter().map(String::as_str));
    let mut table = Table::new(&head);
    for (o, (_, theirs)) in report.operations.iter().zip(ROWS) {
        let mut cells = vec![
            o.name.into(),
            seconds(o.seconds_median),
            seconds(o.seconds_min),
        ];
        cells.extend(report.others.iter().map(|other| {
            theirs
                .and_then(|name| other.seconds(name))
                .map_or(String::new(), seconds)
        }));
        table.row(cells);
    }
    print!("{}", table.render());
    Ok(())
}

fn measure(args: &EngineArgs, others: Vec<Other>) -> Outcome<Report> {
    let params = Parameters::default_128();
    let level = args.level;
    if level == 0 || level > params.max_level() {
        return Err(Failure::usage(format!(
            "--level {level}: expected 1 to {}",
            params.max_level()
        )));
    }
    let ctx = Context::new(params.clone()).map_err(engine_failure)?;
    let mut generator = KeyGenerator::new(ctx.clone());
    let sk = generator.secret();
    let pk = generator.public(&sk).map_err(engine_failure)?;
    let shape = KeyShape::minimal(&params, level);
    let steps: Vec<i64> = (1..=8).collect();
    let elements: Vec<_> = steps
        .iter()
        .map(|&s| (generator.rotation_element(s), shape))
        .collect();
    let keys = generator
        .evaluation_keys(&sk, shape, &elements)
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
    let mut sum = a.clone();
    let tensor = evaluator.mul_tensor(&a, &b).map_err(engine_failure)?;
    let product = evaluator.mul_plain(&a, &plain).map_err(engine_failure)?;
    let hoisted = evaluator.hoist(&a, shape.special).map_err(engine_failure)?;
    // The transform goes from prime to prime: tables of one prime would stay in the cache.
    let mut limb: Vec<u64> = (0..params.n() as u64).collect();
    let mut words = RnsPoly::zero(params.n(), 2 * (level + 1));
    let more_words = words.clone();
    let mut turn = 0;
    let mut next = move || {
        turn += 1;
        turn % params.q_len()
    };

    let mut operations = Vec::new();
    for (name, _) in ROWS {
        let mut work = || -> Result<(), CkksError> {
            match name {
                "transform of one limb" => ctx.q_table(next()).forward(&mut limb),
                "inverse transform of one limb" => ctx.q_table(next()).inverse(&mut limb),
                "encode" => drop(encoder.encode(&values, scale, level)?),
                "encrypt (public key)" => drop(encrypt::encrypt_public(&plain, &pk, &mut rng)?),
                "encrypt (secret key)" => drop(encrypt::encrypt_symmetric(&plain, &sk, &mut rng)?),
                "decrypt and decode" => drop(encoder.decode(&encrypt::decrypt(&a, &sk)?)?),
                "ciphertext + ciphertext" => drop(evaluator.add(&a, &b)?),
                "ciphertext + ciphertext, in place" => evaluator.add_assign(&mut sum, &b)?,
                "as many words added in place: what the memory allows" => {
                    for (a, b) in words.limbs_iter_mut().zip(more_words.limbs_iter()) {
                        for (a, b) in a.iter_mut().zip(b) {
                            *a = a.wrapping_add(*b);
                        }
                    }
                }
                "as many words only read" => {
                    let pairs = words.as_slice().iter().zip(more_words.as_slice());
                    std::hint::black_box(pairs.fold(0, |s, (a, b)| s ^ a ^ b));
                }
                "ciphertext * plaintext" => drop(evaluator.mul_plain(&a, &plain)?),
                "ciphertext * plaintext, rescaled" => {
                    drop(evaluator.mul_plain_rescale(&a, &plain)?)
                }
                "ciphertext * ciphertext, three parts" => drop(evaluator.mul_tensor(&a, &b)?),
                "relinearise" => drop(evaluator.relinearise(&tensor, &keys)?),
                "ciphertext * ciphertext, relinearised and rescaled" => {
                    drop(evaluator.mul(&a, &b, &keys)?)
                }
                "rescale" => drop(evaluator.rescale(&product)?),
                "rotate" => drop(evaluator.rotate(&a, 1, &keys)?),
                "decompose once (hoist)" => drop(evaluator.hoist(&a, shape.special)?),
                "rotate, decomposed before" => {
                    drop(evaluator.rotate_hoisted(&hoisted, &[1], &keys)?)
                }
                _ => {
                    let hoisted = evaluator.hoist(&a, shape.special)?;
                    drop(evaluator.rotate_hoisted(&hoisted, &steps, &keys)?);
                }
            }
            Ok(())
        };
        work().map_err(engine_failure)?;
        let mut took = Vec::new();
        // Short operations get more runs: a clock tick or another process weighs more on them.
        let start = Instant::now();
        while took.len() < args.runs as usize
            || (start.elapsed().as_secs_f64() < 0.2 && took.len() < 1000)
        {
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
    }

    let got = evaluator
        .rotate(&a, 1, &keys)
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
    let params = ctx.params();
    Ok(Report {
        log_n: params.log_n(),
        log_qp: params.log_qp(),
        level,
        limbs: level + 1,
        threads: rayon::current_num_threads(),
        kernel: kernels::active().name(),
        rotation_key_bytes: keys
            .galois_key(elements[0].0, level, None)
            .map_or(0, SwitchingKey::bytes),
        operations,
        others,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_libraries_figures_are_read_line_by_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("others.json");
        std::fs::write(
            &path,
            "{\"lib\": \"x\", \"version\": \"1\", \"case\": \"ops\", \"results\": {\"rotate\": {\"median\": 0.25}, \"note\": 3}}\n\n",
        )
        .unwrap();
        let others = read_others(&path).unwrap();
        assert_eq!(others.len(), 1);
        assert_eq!(others[0].seconds("rotate"), Some(0.25));
        assert_eq!(others[0].seconds("note"), None);
        std::fs::write(&path, "{\"lib\": 3}\n").unwrap();
        let failure = read_others(&path).unwrap_err();
        assert!(failure.message.contains("line 1"), "{}", failure.message);
        assert!(read_others(&folder.path().join("none")).is_err());
    }
}
