//! `tacit bench documents`: many documents at once, by columns: seconds a document, error of the hidden states, next tokens.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use tacit_bitnet::{ForwardOptions, Functions, Matrix};
use tacit_ensi::{ColumnModel, Counts, Progress};

use super::median;
use crate::args::{DocumentsArgs, Global};
use crate::ask::argmax;
use crate::exit::{Failure, Outcome};
use crate::memory::peak_rss_bytes;
use crate::model;
use crate::output::{Table, bytes, error_bits, print_json, seconds};
use crate::progress::Display;
use crate::session::{self, BatchSession};
use crate::text;

/// Time of a step, over all layers.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    predicted_seconds: f64,
    seconds: f64,
    counts: Counts,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    documents: usize,
    tokens: usize,
    lanes: usize,
    keygen_seconds: f64,
    key_message_bytes: u64,
    key_bytes: u64,
    /// Encryption, computation and decryption of the whole batch.
    seconds: f64,
    seconds_per_document: f64,
    predicted_seconds: f64,
    counts: Counts,
    batch_bytes: u64,
    answer_bytes: u64,
    /// `-log2(max |difference| / max |hidden|)` of a document's hidden states against the clear model with the same polynomials: worst and median.
    hidden_error_bits: Option<f64>,
    hidden_error_bits_median: Option<f64>,
    /// Likeliest next token after every token of each document: share equal to the clear model's with the same polynomials.
    top1_agreement: f64,
    steps: Vec<Part>,
    threads: usize,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(args: &DocumentsArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let loaded = model::load(args.model.as_deref())?;
    let wanted = usize::from(args.documents);
    let window = loaded.calibration.context.min(loaded.model.config.context);
    let documents = text::documents(&args.data)?;
    let texts = if documents.held_out.is_empty() {
        documents.training
    } else {
        documents.held_out
    };
    let tokens = text::Tokens::new(&loaded.tokenizer, &texts)?;
    let documents = tokens.windows(window, wanted);
    if documents.len() < wanted {
        return Err(Failure::input(format!(
            "the text has {} tokens, enough for {} documents of {window}; give more with --data PATH or take fewer with --documents",
            tokens.len(),
            documents.len()
        )));
    }
    let waiting = display.waiting("preparing the encrypted model");
    let encrypted = ColumnModel::for_documents(&loaded.model, &loaded.calibration, wanted);
    waiting.finish_and_clear();
    let encrypted = Arc::new(encrypted.map_err(session::failure)?);
    if encrypted.documents() < wanted {
        return Err(Failure::usage(format!(
            "a batch takes {} documents of {window} tokens, not {wanted}",
            encrypted.documents()
        )));
    }
    if !global.json {
        eprintln!(
            "{wanted} documents in {} lanes: predicted {} s and {} of memory",
            encrypted.transformer().layout().lanes(),
            seconds(encrypted.plan().seconds()),
            bytes(encrypted.memory_bytes())
        );
    }
    let mut session = BatchSession::open(&encrypted, &loaded, display)?;

    let embedded = documents
        .iter()
        .map(|ids| loaded.model.embed(ids).map_err(model::failure))
        .collect::<Outcome<Vec<_>>>()?;
    let plan = encrypted.plan();
    let mut bar = display.planned(plan.seconds());
    let mut steps: Vec<Part> = Vec::new();
    let start = Instant::now();
    let (states, batch_bytes, answer_bytes) =
        session.hidden_states(&embedded, &mut |progress| match progress {
            Progress::Started { step } => bar.doing("batch", &plan.steps[step].name),
            Progress::Finished {
                step,
                seconds,
                counts,
            } => {
                let planned = &plan.steps[step];
                bar.finished(planned.predicted_seconds, seconds);
                tracing::info!(
                    "layer {}, {}: {seconds:.1} s, {:.1} predicted, peak memory so far {}",
                    planned.layer.unwrap_or_default(),
                    planned.name,
                    planned.predicted_seconds,
                    peak_rss_bytes().map_or("unknown".into(), bytes)
                );
                let part = match steps.iter_mut().find(|p| p.name == planned.name) {
                    Some(part) => part,
                    None => {
                        steps.push(Part {
                            name: planned.name.clone(),
                            predicted_seconds: 0.0,
                            seconds: 0.0,
                            counts: Counts::default(),
                        });
                        let last = steps.len() - 1;
                        &mut steps[last]
                    }
                };
                part.predicted_seconds += planned.predicted_seconds;
                part.seconds += seconds;
                part.counts += counts;
            }
        })?;
    let took = start.elapsed().as_secs_f64();
    bar.end();

    let options = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
    let next = |hidden: &Matrix| -> Outcome<Vec<u32>> {
        let logits = loaded
            .model
            .head_logits(&loaded.model.normalise_final(hidden))
            .map_err(model::failure)?;
        Ok((0..logits.rows).map(|t| argmax(logits.row(t))).collect())
    };
    let wide = |m: &Matrix| -> Vec<f64> { m.data.iter().map(|x| f64::from(*x)).collect() };
    let (mut bits, mut same) = (Vec::new(), 0);
    for (ids, state) in documents.iter().zip(&states) {
        let clear = loaded.model.hidden_states(ids, &options);
        let clear = clear.map_err(model::failure)?.last;
        bits.extend(error_bits(&wide(state), &wide(&clear)));
        let pairs = next(state)?.into_iter().zip(next(&clear)?);
        same += pairs.filter(|(got, want)| got == want).count();
    }
    let report = Report {
        model: loaded.name.clone(),
        documents: wanted,
        tokens: window,
        lanes: encrypted.transformer().layout().lanes(),
        keygen_seconds: session.keygen_seconds,
        key_message_bytes: session.key_message_bytes,
        key_bytes: plan.key_bytes,
        seconds: took,
        seconds_per_document: took / wanted as f64,
        predicted_seconds: plan.seconds(),
        counts: plan.total(),
        batch_bytes,
        answer_bytes,
        hidden_error_bits: bits.iter().copied().min_by(f64::total_cmp),
        hidden_error_bits_median: (!bits.is_empty()).then(|| median(&bits)),
        top1_agreement: same as f64 / (wanted * window) as f64,
        steps,
        threads: rayon::current_num_threads(),
        peak_rss_bytes: peak_rss_bytes(),
    };
    if global.json {
        return print_json(&report);
    }
    print(&report);
    Ok(())
}

fn print(report: &Report) {
    println!(
        "{} documents of {} tokens at once, model {}, {} lanes: {} s, {} s a document ({} s predicted)",
        report.documents,
        report.tokens,
        report.model,
        report.lanes,
        seconds(report.seconds),
        seconds(report.seconds_per_document),
        seconds(report.predicted_seconds)
    );
    println!(
        "keys: {} sent, {} in memory, made in {} s; batch {}, answer {}; peak memory {}",
        bytes(report.key_message_bytes),
        bytes(report.key_bytes),
        seconds(report.keygen_seconds),
        bytes(report.batch_bytes),
        bytes(report.answer_bytes),
        report.peak_rss_bytes.map_or("unknown".into(), bytes)
    );
    println!(
        "error of hidden states against the clear model with the same polynomials: {:.1} bits worst, {:.1} median; same next token: {:.1} %\n",
        report.hidden_error_bits.unwrap_or_default(),
        report.hidden_error_bits_median.unwrap_or_default(),
        100.0 * report.top1_agreement
    );
    let mut table = Table::new(&[
        "step, all layers",
        "s",
        "predicted s",
        "bootstraps",
        "key switches",
        "ct*ct",
        "ct*pt",
        "word additions",
    ]);
    for part in &report.steps {
        table.row(vec![
            part.name.clone(),
            seconds(part.seconds),
            seconds(part.predicted_seconds),
            part.counts.bootstraps.to_string(),
            part.counts.key_switches.to_string(),
            part.counts.ct_ct.to_string(),
            part.counts.ct_pt.to_string(),
            part.counts.word_additions.to_string(),
        ]);
    }
    print!("{}", table.render());
}
