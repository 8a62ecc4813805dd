//! `tacit model synth`: a checkpoint of a published shape with random weights.

use serde::Serialize;
use tacit_bitnet::{checkpoint, synth};

use super::failure;
use crate::args::{Global, SynthArgs};
use crate::exit::{Failure, Outcome};
use crate::output::{bytes, count, print_json};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    folder: String,
    like: &'static str,
    layers: usize,
    published_layers: usize,
    ternary_weights: usize,
    bytes: u64,
}

/// Runs the command.
pub fn run(args: &SynthArgs, global: &Global) -> Outcome {
    let shape = synth::shape(&args.like)
        .ok_or_else(|| Failure::usage(format!("no shape is called {}", args.like)))?;
    let layers = args.layers.unwrap_or(shape.layers);
    let waiting = Display::pick(global.json).waiting("drawing weights");
    let model = synth::model(shape, layers, args.seed).map_err(failure)?;
    checkpoint::save(&model, &args.out).map_err(failure)?;
    let tokenizer = args.out.join("tokenizer.json");
    std::fs::write(&tokenizer, synth::tokenizer_json(shape.vocab))
        .map_err(|e| Failure::input(format!("cannot write {}: {e}", tokenizer.display())))?;
    waiting.finish_and_clear();
    let size = |name: &str| std::fs::metadata(args.out.join(name)).map_or(0, |m| m.len());
    let report = Report {
        folder: args.out.display().to_string(),
        like: shape.name,
        layers,
        published_layers: shape.layers,
        ternary_weights: model.config.linear_weights(),
        bytes: size("model.safetensors"),
    };
    if global.json {
        return print_json(&report);
    }
    println!(
        "{}: {} layers of {} ({} of the published model), {} ternary weights, {}. Random weights: its text is noise.\nNext: tacit model calibrate {} --context 128 --tokens 640",
        report.folder,
        report.layers,
        report.like,
        report.published_layers,
        count(report.ternary_weights as u64),
        bytes(report.bytes),
        report.folder
    );
    Ok(())
}
