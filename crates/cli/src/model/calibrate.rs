//! `tacit model calibrate`: fits the encrypted model's polynomials to text.

use std::collections::BTreeMap;

use serde::Serialize;
use tacit_bitnet::calibration::{
    CalibrationOptions, CalibrationOutcome, LayerCalibration, SequenceReport, calibrate,
};

use super::{failure, load_weights, source, tokenizer};
use crate::args::{CalibrateArgs, Global};
use crate::exit::{Failure, Kind, Outcome};
use crate::output::print_json;
use crate::progress::Display;
use crate::text;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    file: String,
    tokens: usize,
    seconds: f64,
    predictions: usize,
    perplexity_exact: f64,
    perplexity_polynomial: f64,
    top1_agreement: f64,
    target_met: bool,
    /// Evaluations outside of their intervals: held-out text, greedy answers and repetitions together.
    out_of_range: usize,
    out_of_range_text: usize,
    greedy: Sequences,
    repeated: Sequences,
    degrees: BTreeMap<&'static str, usize>,
    layers: Vec<BTreeMap<&'static str, Interval>>,
}

/// Sequences that are not text.
#[derive(Debug, Serialize)]
struct Sequences {
    sequences: usize,
    /// Sequences with an evaluation outside of its interval.
    leaving: usize,
    out_of_range: usize,
}

impl From<&SequenceReport> for Sequences {
    fn from(report: &SequenceReport) -> Self {
        Self {
            sequences: report.sequences,
            leaving: report.leaving,
            out_of_range: report.range.outside(),
        }
    }
}

/// Where a polynomial stands for its function.
#[derive(Debug, Serialize)]
struct Interval {
    lo: f64,
    hi: f64,
    degree: usize,
}

fn intervals(layer: &LayerCalibration) -> BTreeMap<&'static str, Interval> {
    let of = |series: &tacit_bitnet::ChebyshevSeries| Interval {
        lo: series.lo,
        hi: series.hi,
        degree: series.degree(),
    };
    layer.series().map(|(name, s)| (name, of(s))).collect()
}

impl Report {
    fn new(outcome: &CalibrationOutcome, file: String, tokens: usize, seconds: f64) -> Self {
        Self {
            file,
            tokens,
            seconds,
            predictions: outcome.exact.predictions,
            perplexity_exact: outcome.exact.perplexity(),
            perplexity_polynomial: outcome.polynomial.perplexity(),
            top1_agreement: outcome.polynomial.agreement(&outcome.exact, 0.0),
            target_met: outcome.target_met,
            out_of_range: outcome.outside(),
            out_of_range_text: outcome.polynomial.range.outside(),
            greedy: (&outcome.greedy).into(),
            repeated: (&outcome.repeated).into(),
            degrees: tacit_bitnet::FunctionKind::ALL
                .iter()
                .map(|k| (k.name(), outcome.degrees.of(*k)))
                .collect(),
            layers: outcome.calibration.layers.iter().map(intervals).collect(),
        }
    }
}

/// Runs the command.
pub fn run(args: &CalibrateArgs, global: &Global) -> Outcome {
    let source = source(Some(&args.model))?;
    let path = source.path();
    if !path.is_dir() {
        return Err(Failure::usage(format!(
            "{} is not a folder; calibration takes a model folder",
            path.display()
        )));
    }
    let (model, _) = load_weights(path)?;
    let tokenizer = tokenizer(path, &model)?;
    let documents = text::documents(&args.data)?;
    let training = text::Tokens::new(&tokenizer, &documents.training)?;
    let held_out = text::Tokens::new(&tokenizer, &documents.held_out)?;
    let length = args.context.unwrap_or(64).min(model.config.context).max(1);
    let count = args.tokens.div_ceil(length).max(5);
    // The last fifth is verified on: from packages that training leaves out, where there are any.
    let last = held_out.windows(length, count / 5);
    let mut windows = training.windows(length, count - last.len());
    windows.extend(last);
    if windows.len() < 5 {
        return Err(Failure::input(format!(
            "the text has {} tokens, at least {} are needed for windows of {length}; give more text",
            training.len() + held_out.len(),
            5 * length
        )));
    }
    let options = CalibrationOptions {
        perplexity_target: args.perplexity_target,
        agreement_target: args.agreement_target,
        stress_windows: args.cover_repetition,
        ..CalibrationOptions::default()
    };
    let waiting = Display::pick(global.json).waiting("measuring ranges and fitting polynomials");
    let start = std::time::Instant::now();
    let outcome = calibrate(&model, &windows, &options);
    waiting.finish_and_clear();
    let outcome = outcome.map_err(failure)?;
    let file = args
        .out
        .clone()
        .unwrap_or_else(|| path.join("calibration.json"));
    if outcome.target_met || args.force {
        outcome.calibration.save(&file).map_err(failure)?;
    }
    let report = Report::new(
        &outcome,
        file.display().to_string(),
        windows.iter().map(Vec::len).sum(),
        start.elapsed().as_secs_f64(),
    );
    if global.json {
        print_json(&report)?;
    } else {
        print!("{outcome}");
        for (n, layer) in report.layers.iter().enumerate() {
            for (name, Interval { lo, hi, degree }) in layer {
                println!("layer {n} {name}: [{lo:.4}, {hi:.4}], degree {degree}");
            }
        }
    }
    if outcome.target_met || args.force {
        if !global.json {
            println!("written to {}", report.file);
        }
        return Ok(());
    }
    Err(Failure::new(
        Kind::Mismatch,
        format!(
            "the targets were not met and {} was not written; loosen them (--perplexity-target, --agreement-target), give more text, train with narrower ranges, or write it anyway with --force",
            report.file
        ),
    ))
}
