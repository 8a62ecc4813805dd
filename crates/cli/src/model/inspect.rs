//! `tacit model inspect`: what is in a model.

use serde::Serialize;
use tacit_bitnet::{Calibration, Config, LoadReport, Model};
use tacit_ensi::{ColumnModel, Counts, EncryptedModel};

use super::{calibration, load_weights, source, tokenizer};
use crate::args::{Global, InspectArgs};
use crate::ask::explain::{self, Shares, StepReport};
use crate::exit::{Failure, Outcome};
use crate::output::{Table, bytes, count, print_json, seconds};
use crate::progress::Display;
use crate::session;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    path: String,
    model_type: String,
    attention: String,
    activation: String,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    context: usize,
    tied_embeddings: bool,
    parameters: usize,
    ternary_weights: usize,
    zero_share: f64,
    container: String,
    weights: Vec<String>,
    warnings: Vec<String>,
    /// Whether tokenizer.json fits; else why not.
    tokenizer: Result<usize, String>,
    /// Degrees of the fitted polynomials of the first layer; else why there are none.
    calibration: Result<Vec<(String, usize)>, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plan: Option<PlanReport>,
}

/// Runs the command.
pub fn run(args: &InspectArgs, global: &Global) -> Outcome {
    let source = source(args.model.as_deref())?;
    let path = source.path();
    let (model, load) = load_weights(path)?;
    let mut report = Report::new(&source.name(), &model, &load, path);
    if args.plan {
        let mut calibration = calibration(path, &model)?;
        if let Some(tokens) = args.tokens {
            if !tokens.is_power_of_two() || tokens > model.config.context {
                return Err(Failure::usage(format!(
                    "--tokens {tokens}: a window is a power of two, at most the model's context of {} tokens",
                    model.config.context
                )));
            }
            calibration.context = tokens;
        }
        let encrypted = session::prepare(&model, &calibration, Display::pick(global.json))?;
        let columns = match args.batch {
            0 | 1 => Err("one document".into()),
            batch => ColumnsReport::new(&model, &calibration, batch),
        };
        report.plan = Some(PlanReport::new(&encrypted, args.batch, columns));
    }
    if global.json {
        return print_json(&report);
    }
    print!("{}", report.table());
    for w in &report.warnings {
        println!("warning: {w}");
    }
    if let Some(plan) = &report.plan {
        println!(
            "\nOne forward pass on a window of {} tokens: {} s predicted on {} threads, {} evaluation keys of {}; ciphertexts in: {}, as many out",
            plan.context,
            seconds(plan.predicted_seconds),
            plan.threads,
            plan.keys,
            bytes(plan.key_bytes),
            plan.input_ciphertexts
        );
        let layers: Vec<String> = plan.layers.iter().map(|s| seconds(*s)).collect();
        println!("Layers, predicted s: {}", layers.join(", "));
        if plan.batch > 1 {
            println!(
                "{} passes, one after another: {} s, {} bootstraps, {} key switches",
                plan.batch,
                seconds(plan.batch_seconds),
                count(plan.batch_counts.bootstraps),
                count(plan.batch_counts.key_switches)
            );
            match &plan.columns {
                Ok(columns) => println!(
                    "{} at once by columns, {} lanes: {} s for {} ({} s a document), {} bootstraps, {} key switches; evaluation keys of {}",
                    columns.documents,
                    columns.lanes,
                    seconds(columns.predicted_seconds),
                    plan.batch,
                    seconds(columns.predicted_seconds / plan.batch as f64),
                    count(columns.counts.bootstraps),
                    count(columns.counts.key_switches),
                    bytes(columns.key_bytes)
                ),
                Err(why) => println!("At once by columns: not possible, {why}"),
            }
        }
        println!();
        print!("{}", explain::table(&plan.steps));
    }
    Ok(())
}

/// One encrypted forward pass before it is run.
#[derive(Debug, Serialize)]
struct PlanReport {
    context: usize,
    predicted_seconds: f64,
    threads: usize,
    keys: usize,
    key_bytes: u64,
    /// Ciphertexts of the encrypted prompt.
    input_ciphertexts: usize,
    /// Predicted seconds of each layer.
    layers: Vec<f64>,
    counts: Counts,
    /// Passes planned for.
    batch: usize,
    batch_seconds: f64,
    batch_counts: Counts,
    /// The same by columns, or why that is not possible.
    columns: Result<ColumnsReport, String>,
    shares: Shares,
    steps: Vec<StepReport>,
}

/// Many documents at once.
#[derive(Debug, Serialize)]
struct ColumnsReport {
    /// Documents at once.
    documents: usize,
    lanes: usize,
    /// For all documents.
    predicted_seconds: f64,
    counts: Counts,
    key_bytes: u64,
}

impl ColumnsReport {
    fn new(model: &Model, calibration: &Calibration, batch: usize) -> Result<Self, String> {
        let columns = ColumnModel::for_documents(model, calibration, batch)
            .map_err(|e| session::failure(e).message)?;
        let passes = batch.div_ceil(columns.documents());
        let plan = columns.plan();
        Ok(Self {
            documents: columns.documents(),
            lanes: columns.transformer().layout().lanes(),
            predicted_seconds: plan.seconds() * passes as f64,
            counts: plan.total() * passes,
            key_bytes: plan.key_bytes,
        })
    }
}

impl PlanReport {
    fn new(model: &EncryptedModel, batch: usize, columns: Result<ColumnsReport, String>) -> Self {
        let plan = model.plan();
        let steps = explain::report(plan, &[]);
        let of_layer = |layer: usize| -> f64 {
            plan.steps
                .iter()
                .filter(|s| s.layer == Some(layer))
                .map(|s| s.predicted_seconds)
                .sum()
        };
        PlanReport {
            context: plan.context,
            predicted_seconds: plan.seconds(),
            threads: rayon::current_num_threads(),
            keys: model.key_plan().messages(),
            key_bytes: plan.key_bytes,
            input_ciphertexts: plan.input_ciphertexts,
            layers: (0..model.transformer().layers()).map(of_layer).collect(),
            counts: plan.total(),
            batch,
            batch_seconds: plan.seconds() * batch as f64,
            batch_counts: plan.total() * batch,
            columns,
            shares: explain::shares(&steps),
            steps,
        }
    }
}

/// Dense parameters and ternary weights together.
fn parameters(model: &Model) -> usize {
    let c: &Config = &model.config;
    let norms = model.layers.iter().map(|l| {
        l.input_norm.len()
            + l.post_attention_norm.len()
            + l.attn_sub_norm.as_ref().map_or(0, Vec::len)
            + l.ffn_sub_norm.as_ref().map_or(0, Vec::len)
    });
    let table = c.vocab_size * c.hidden_size;
    c.linear_weights()
        + norms.sum::<usize>()
        + model.final_norm.len()
        + table
        + if model.head.is_some() { table } else { 0 }
}

impl Report {
    fn new(name: &str, model: &Model, load: &LoadReport, path: &std::path::Path) -> Self {
        let c = &model.config;
        Report {
            path: name.to_string(),
            model_type: c.model_type.clone(),
            attention: c.attention.name().into(),
            activation: format!("{:?}", c.activation).to_lowercase(),
            vocab_size: c.vocab_size,
            hidden_size: c.hidden_size,
            intermediate_size: c.intermediate_size,
            layers: c.layers,
            heads: c.heads,
            kv_heads: c.kv_heads,
            context: c.context,
            tied_embeddings: c.tied_embeddings,
            parameters: parameters(model),
            ternary_weights: c.linear_weights(),
            zero_share: load.zero_share,
            container: load.container.clone(),
            weights: load.forms.iter().map(|f| f.to_string()).collect(),
            warnings: load.warnings.clone(),
            tokenizer: tokenizer(path, model)
                .map(|t| t.vocab_size())
                .map_err(|e| e.message),
            calibration: calibration(path, model)
                .map(|c| {
                    c.layers
                        .first()
                        .map(|l| {
                            l.series()
                                .map(|(name, series)| (name.to_string(), series.degree()))
                                .collect()
                        })
                        .unwrap_or_default()
                })
                .map_err(|e| e.message),
            plan: None,
        }
    }

    fn table(&self) -> String {
        let mut t = Table::new(&["", "value"]);
        let mut line = |name: &str, value: String| t.row(vec![name.into(), value]);
        line("model", format!("{} ({})", self.path, self.model_type));
        line(
            "weights",
            format!("{}: {}", self.container, self.weights.join(", ")),
        );
        line(
            "parameters",
            format!(
                "{}, of which {} ternary ({:.1} % zero)",
                count(self.parameters as u64),
                count(self.ternary_weights as u64),
                100.0 * self.zero_share
            ),
        );
        line(
            "layers",
            format!(
                "{} of hidden size {}, feed-forward {}",
                self.layers, self.hidden_size, self.intermediate_size
            ),
        );
        line(
            "heads",
            format!(
                "{} for queries, {} for keys and values, {} attention",
                self.heads, self.kv_heads, self.attention
            ),
        );
        line("activation", self.activation.clone());
        line(
            "vocabulary",
            format!(
                "{}{}",
                self.vocab_size,
                if self.tied_embeddings {
                    ", head tied to the embedding table"
                } else {
                    ", separate head"
                }
            ),
        );
        line("context", format!("{} tokens", self.context));
        line(
            "tokenizer",
            self.tokenizer
                .as_ref()
                .map_or_else(|e| format!("not usable: {e}"), |n| format!("{n} tokens")),
        );
        line(
            "polynomials",
            self.calibration.as_ref().map_or_else(
                |e| format!("none: {e}"),
                |s| {
                    s.iter()
                        .map(|(name, degree)| format!("{name} {degree}"))
                        .collect::<Vec<_>>()
                        .join(", ")
                },
            ),
        );
        t.render()
    }
}
