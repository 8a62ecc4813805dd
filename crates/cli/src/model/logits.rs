//! `tacit model logits`: the clear model's logits for the next token.

use serde::Serialize;
use tacit_bitnet::{ForwardOptions, Functions};

use super::{calibration, failure, load_weights, source};
use crate::args::{FunctionsArg, Global, LogitsArgs};
use crate::exit::Outcome;
use crate::output::{Table, print_json, say_out_of_range};

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    ids: Vec<u32>,
    functions: String,
    int8_activations: bool,
    /// One value a token of the vocabulary, for the token after the last id.
    logits: Vec<f32>,
    top: Vec<Candidate>,
    out_of_range: usize,
}

#[derive(Debug, Serialize)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// Runs the command.
pub fn run(args: &LogitsArgs, global: &Global) -> Outcome {
    let source = source(Some(&args.model))?;
    let path = source.path();
    let (model, _) = load_weights(path)?;
    let calibration = match args.functions {
        FunctionsArg::Polynomial => Some(calibration(path, &model)?),
        _ => None,
    };
    let functions = match (args.functions, &calibration) {
        (FunctionsArg::Polynomial, Some(c)) => Functions::Polynomial(c),
        (FunctionsArg::Sigmoid, _) => Functions::ExactSigmoid,
        _ => model.exact_functions(),
    };
    let options = ForwardOptions {
        functions,
        int8_activations: args.int8_activations,
        noise: None,
    };
    let hidden = model.hidden_states(&args.ids, &options).map_err(failure)?;
    let all = model.head_logits(&hidden.normed).map_err(failure)?;
    let logits = all.row(all.rows - 1).to_vec();
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    let top = order
        .iter()
        .take(10)
        .map(|id| Candidate {
            id: *id,
            logit: logits[*id as usize],
        })
        .collect();
    let report = Report {
        ids: args.ids.clone(),
        functions: format!("{:?}", args.functions).to_lowercase(),
        int8_activations: args.int8_activations,
        out_of_range: hidden.range.outside(),
        logits,
        top,
    };
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&["id", "logit"]);
    for c in &report.top {
        table.row(vec![c.id.to_string(), format!("{:.5}", c.logit)]);
    }
    print!("{}", table.render());
    say_out_of_range(report.out_of_range);
    println!(
        "({} logits in all; --json prints every one)",
        report.logits.len()
    );
    Ok(())
}
