//! `tacit federate watermark`: ownership marks in model folders.

use std::path::Path;

use serde::Serialize;
use tacit_bitnet::train::{Network, ternarise, write_model};
use tacit_federated::random::{normal, stream};
use tacit_federated::watermark::{Verdict, Watermark};

use super::args::{EmbedArgs, VerifyArgs};
use super::failure;
use super::secret::{read_secret, secret};
use crate::args::Global;
use crate::exit::Outcome;
use crate::model;
use crate::output::{Table, count, print_json};

/// Marks below this bound on the probability of chance count as found.
const THRESHOLD: f64 = 1e-6;

/// Mean magnitude of a matrix.
fn scale(matrix: &[f32]) -> f64 {
    matrix.iter().map(|x| f64::from(x.abs())).sum::<f64>() / matrix.len() as f64
}

/// All linear layers one after the other, each ternary matrix over its scale: marks in small matrices count as much as in large ones.
fn linear(network: &Network) -> Vec<f32> {
    let over = |m: &[f32]| {
        let scale = scale(m).max(1e-30);
        let divided = m.iter().map(move |x| (f64::from(*x) / scale) as f32);
        divided.collect::<Vec<_>>()
    };
    network.ternary_matrices().flat_map(over).collect()
}

/// Puts marked values back, each matrix at its own scale.
fn set_linear(network: &mut Network, marked: &[f32]) {
    let mut rest = marked;
    for matrix in network.ternary_matrices_mut() {
        let scale = scale(matrix);
        let (now, after) = rest.split_at(matrix.len());
        for (x, y) in matrix.iter_mut().zip(now) {
            *x = (f64::from(*y) * scale) as f32;
        }
        rest = after;
    }
}

fn trits(network: &Network) -> Vec<i8> {
    let of = |m: &[f32]| ternarise(m).0;
    network.ternary_matrices().flat_map(of).collect()
}

#[derive(Debug, Serialize)]
struct Embedded {
    folder: String,
    recipient: String,
    weights: usize,
    changed_trits: usize,
    score: f64,
    log10_p: f64,
    new_secret: bool,
}

/// `tacit federate watermark embed`.
pub fn embed(args: &EmbedArgs, global: &Global) -> Outcome {
    let source = model::source(args.model.as_deref())?;
    let (weights, _) = model::load_weights(source.path())?;
    let tokenizer = model::tokenizer(source.path(), &weights)?;
    let mut network = Network::from_model(&weights).map_err(|e| failure(e.into()))?;
    let before = trits(&network);
    let (secret, new_secret) = secret(&args.secret)?;
    let mark = Watermark::new(secret, args.strength).map_err(failure)?;
    // Masters that ternarise to the model as it is; the mark moves some of them over a threshold, in its direction.
    network.make_masters(1).map_err(|e| failure(e.into()))?;
    let mut values = linear(&network);
    mark.embed(&mut values, &args.recipient);
    set_linear(&mut network, &values);
    write_model(&args.out, &network, tokenizer.inner()).map_err(|e| failure(e.into()))?;
    let written = read(&args.out)?;
    let verdict = mark.verify(&linear(&written), &args.recipient);
    let after = trits(&written);
    let report = Embedded {
        folder: args.out.display().to_string(),
        recipient: args.recipient.clone(),
        weights: values.len(),
        changed_trits: before.iter().zip(&after).filter(|(a, b)| a != b).count(),
        score: verdict.score,
        log10_p: log10_p(verdict),
        new_secret,
    };
    if global.json {
        return print_json(&report);
    }
    println!(
        "{}: marked for {}; {} of {} trits changed ({:.2} %), score {:.1}, p below 1e{:.0}",
        report.folder,
        report.recipient,
        count(report.changed_trits as u64),
        count(report.weights as u64),
        100.0 * report.changed_trits as f64 / report.weights as f64,
        report.score,
        report.log10_p.ceil(),
    );
    if new_secret {
        println!("a new secret is in {}: keep it", args.secret.display());
    }
    Ok(())
}

fn read(folder: &Path) -> Outcome<Network> {
    let source = model::source(Some(folder))?;
    let (weights, _) = model::load_weights(source.path())?;
    Network::from_model(&weights).map_err(|e| failure(e.into()))
}

/// `-score² / 2` in powers of ten: p-values of large models are below the smallest `f64`.
fn log10_p(v: Verdict) -> f64 {
    if v.score > 0.0 {
        -v.score * v.score / 2.0 / std::f64::consts::LN_10
    } else {
        0.0
    }
}

#[derive(Debug, Serialize)]
struct Found {
    model: String,
    recipient: String,
    score: f64,
    log10_p: f64,
    found: bool,
}

/// `tacit federate watermark verify`.
pub fn verify(args: &VerifyArgs, global: &Global) -> Outcome {
    let mark = Watermark::new(read_secret(&args.secret)?, 0.05).map_err(failure)?;
    let values = linear(&read(&args.model)?);
    let mut variants = vec![("as it is".to_owned(), values.clone())];
    if args.stress {
        let mut pruned = values.clone();
        let mut rng = stream(1, "pruning", &[]);
        // Ternary weights have no smallest third: any 30 % of them are taken.
        pruned
            .iter_mut()
            .filter(|_| tacit_federated::random::unit(&mut rng) < 0.3)
            .for_each(|x| *x = 0.0);
        variants.push(("30 % pruned".into(), pruned));
        let square: f64 = values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let size = (square / values.len().max(1) as f64).sqrt();
        let mut rng = stream(2, "noise", &[]);
        let noisy = values
            .iter()
            .map(|x| x + (size * normal(&mut rng)) as f32)
            .collect();
        variants.push(("noise as large as the weights".into(), noisy));
    }
    let tests = (args.recipient.len() * variants.len()) as f64;
    let mut report = Vec::new();
    for (what, v) in &variants {
        for r in &args.recipient {
            let verdict = mark.verify(v, r);
            report.push(Found {
                model: what.clone(),
                recipient: r.clone(),
                score: verdict.score,
                log10_p: log10_p(verdict),
                // Bonferroni: as many chances as tests.
                found: log10_p(verdict) + tests.log10() < THRESHOLD.log10(),
            });
        }
    }
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&["model", "recipient", "score", "log10 p", "mark"]);
    for f in &report {
        table.row(vec![
            f.model.clone(),
            f.recipient.clone(),
            format!("{:.2}", f.score),
            format!("{:.1}", f.log10_p),
            if f.found { "found" } else { "not found" }.into(),
        ]);
    }
    print!("{}", table.render());
    println!(
        "p bounds the probability of such a score in weights made without the secret; found: below {THRESHOLD:e}, counting all tests"
    );
    Ok(())
}
