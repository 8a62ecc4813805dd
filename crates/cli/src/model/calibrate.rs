//! `tacit model calibrate`: fits the encrypted model's polynomials to text.

use serde::Serialize;
use tacit_bitnet::calibration::{CalibrationOptions, calibrate};

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
    predictions: usize,
    perplexity_exact: f64,
    perplexity_polynomial: f64,
    top1_agreement: f64,
    target_met: bool,
    out_of_range: usize,
    degrees: std::collections::BTreeMap<&'static str, usize>,
}

/// Runs the command.
pub fn run(args: &CalibrateArgs, global: &Global) -> Outcome {
    let source = source(Some(&args.model))?;
    let path = source.path();
    if !path.is_dir() {
        return Err(Failure::usage(format!(
            "{} is not a folder; calibration.json is written into the model's folder",
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
        ..CalibrationOptions::default()
    };
    let waiting = Display::pick(global.json).waiting("measuring ranges and fitting polynomials");
    let outcome = calibrate(&model, &windows, &options);
    waiting.finish_and_clear();
    let outcome = outcome.map_err(failure)?;
    let file = path.join("calibration.json");
    if outcome.target_met || args.force {
        outcome.calibration.save(&file).map_err(failure)?;
    }
    let report = Report {
        file: file.display().to_string(),
        tokens: windows.iter().map(Vec::len).sum(),
        predictions: outcome.exact.predictions,
        perplexity_exact: outcome.exact.perplexity(),
        perplexity_polynomial: outcome.polynomial.perplexity(),
        top1_agreement: outcome.polynomial.agreement(&outcome.exact, 0.0),
        target_met: outcome.target_met,
        out_of_range: outcome.polynomial.range.outside(),
        degrees: tacit_bitnet::FunctionKind::ALL
            .iter()
            .map(|k| (k.name(), outcome.degrees.of(*k)))
            .collect(),
    };
    if global.json {
        print_json(&report)?;
    } else {
        print!("{outcome}");
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
