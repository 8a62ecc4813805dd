//! `tacit model sigmoid`: a softmax-trained checkpoint with sigmoid attention, without training.

use std::path::Path;

use serde::Serialize;
use tacit_bitnet::calibration::{
    CalibrationOptions, Evaluation, calibrate_head_biases, evaluate, normalise_rows,
};
use tacit_bitnet::{ForwardOptions, Functions, checkpoint};

use super::{failure, load_weights, source, tokenizer};
use crate::args::{Global, SigmoidArgs};
use crate::exit::{Failure, Kind, Outcome};
use crate::output::{Table, print_json};
use crate::progress::Display;
use crate::text;

/// Perplexity of the same text under one kind of attention.
#[derive(Debug, Serialize)]
struct Row {
    attention: &'static str,
    perplexity: f64,
    /// Relative to the checkpoint as it was trained.
    change: f64,
    /// Share of tokens with the same likeliest next token.
    agreement: f64,
    /// Levels of the weights' polynomial under encryption; `None` where there is none.
    levels: Option<usize>,
    /// Bootstraps of a layer beyond those of plain sigmoid attention.
    more_bootstraps: Option<usize>,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    folder: String,
    /// What the folder has.
    attention: &'static str,
    windows: usize,
    held_out_windows: usize,
    rows: Vec<Row>,
    recommendation: &'static str,
}

/// Name of the rows divided by their sums.
const NORMALISED: &str = "normalised sigmoid";
/// Change of perplexity up to which a swap can be used as it is.
const GOOD: f64 = 0.05;
/// Change beyond which even fine-tuning starts from little.
const BAD: f64 = 0.5;

/// Runs the command.
pub fn run(args: &SigmoidArgs, global: &Global) -> Outcome {
    let source = source(Some(&args.model))?;
    let path = source.path();
    let (mut model, _) = load_weights(path)?;
    if model.config.attention.is_sigmoid() {
        return Err(Failure::usage(format!(
            "{} has sigmoid attention already; go on with tacit model calibrate",
            path.display()
        )));
    }
    let tokenizer = tokenizer(path, &model)?;
    let documents = text::documents(&args.data)?;
    let length = args.context.unwrap_or(64).min(model.config.context).max(1);
    let count = args.tokens.div_ceil(length).max(5);
    let training = text::Tokens::new(&tokenizer, &documents.training)?;
    let held_out = text::Tokens::new(&tokenizer, &documents.held_out)?;
    let mut windows = training.windows(length, count);
    let mut verify = held_out.windows(length, count / 4);
    if verify.is_empty() {
        verify = windows.split_off(windows.len() - windows.len() / 4);
    }
    if windows.len() < 4 || verify.is_empty() {
        return Err(Failure::input(format!(
            "the text has {} tokens, at least {} are needed for windows of {length}; give more text with --data PATH",
            training.len() + held_out.len(),
            6 * length
        )));
    }
    let waiting = Display::pick(global.json).waiting("fitting a bias for every head");
    let measure = |model: &_, functions| {
        evaluate(model, &ForwardOptions::new(functions), &verify).map_err(failure)
    };
    let softmax = measure(&model, Functions::ExactSoftmax)?;
    let plain = measure(&model, Functions::ExactSigmoid)?;
    let mut normalised = model.clone();
    calibrate_head_biases(&mut model, &windows).map_err(failure)?;
    let biased = measure(&model, Functions::ExactSigmoid)?;
    normalise_rows(&mut normalised, &windows).map_err(failure)?;
    let divided = measure(&normalised, Functions::ExactSigmoid)?;
    waiting.finish_and_clear();

    let sigmoid_levels = (CalibrationOptions::default().degrees.sigmoid + 1).ilog2() as usize;
    let row = |attention, e: &Evaluation, encrypted: Option<(usize, usize)>| Row {
        attention,
        perplexity: e.perplexity(),
        change: e.perplexity() / softmax.perplexity() - 1.0,
        agreement: e.agreement(&softmax, 0.0),
        levels: encrypted.map(|(levels, _)| levels),
        more_bootstraps: encrypted.map(|(_, more)| more),
    };
    let plainly = Some((sigmoid_levels, 0));
    let rows = vec![
        row("softmax, as trained", &softmax, None),
        row("sigmoid, -ln(i+1)", &plain, plainly),
        row("sigmoid, -ln(i+1) + b_h", &biased, plainly),
        row(NORMALISED, &divided, Some((sigmoid_levels + 1, 1))),
    ];
    let (biased, divided) = (rows[2].change, rows[3].change);
    let recommendation = if biased <= GOOD {
        "sigmoid with b_h, as it is"
    } else if divided <= GOOD {
        "normalised sigmoid (--normalised), which needs no training; or, to save its bootstrap, fine-tune sigmoid with b_h for a few hundred steps (tacit train --from)"
    } else if biased <= BAD {
        "fine-tune sigmoid with b_h for a few hundred steps before use (tacit train --from)"
    } else {
        "train with sigmoid attention from the start: every swap loses too much"
    };
    if args.normalised {
        model = normalised;
    }
    checkpoint::save(&model, &args.out).map_err(failure)?;
    copy_tokenizer(path, &args.out)?;
    let report = Report {
        folder: args.out.display().to_string(),
        attention: model.config.attention.name(),
        windows: windows.len(),
        held_out_windows: verify.len(),
        rows,
        recommendation,
    };
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&[
        "attention",
        "perplexity",
        "change",
        "same next token",
        "levels",
        "more bootstraps a layer",
    ]);
    let number = |n: Option<usize>| n.map_or_else(String::new, |n| n.to_string());
    for r in &report.rows {
        table.row(vec![
            r.attention.into(),
            format!("{:.2}", r.perplexity),
            format!("{:+.1} %", 100.0 * r.change),
            format!("{:.1} %", 100.0 * r.agreement),
            number(r.levels),
            number(r.more_bootstraps),
        ]);
    }
    print!("{}", table.render());
    println!(
        "\nOn {} windows that the biases were not fitted to. Recommended: {}.\nWritten to {}, with {}; next: tacit model calibrate {}",
        report.held_out_windows,
        report.recommendation,
        report.folder,
        report.attention,
        report.folder
    );
    Ok(())
}

/// The tokenizer belongs to the model but is not part of it.
fn copy_tokenizer(model: &Path, out: &Path) -> Outcome {
    let from = super::beside(model).join("tokenizer.json");
    let to = out.join("tokenizer.json");
    std::fs::copy(&from, &to).map_err(|e| {
        Failure::new(
            Kind::Input,
            format!("cannot copy {} to {}: {e}", from.display(), to.display()),
        )
    })?;
    Ok(())
}
