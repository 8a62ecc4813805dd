//! `tacit embed` and `tacit classify`: documents as vectors, and a linear head on them, without showing the documents to the server.
//!
//! A document goes through the encrypted model in windows, one after another or, where there are many, many at once by columns
//! (`tacit_ensi::columns`); the client decrypts the hidden states, applies the final norm, and pools
//! them: the mean over all tokens, or the last token's. The head is a file of the client's, applied after decryption, so the server learns neither
//! the classes nor the result.

use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tacit_bitnet::{ForwardOptions, Functions, Matrix};
use tacit_ensi::{ColumnModel, EncryptedModel, Progress};

use crate::args::{Batch, ClassifyArgs, DocumentArgs, EmbedArgs, Global, Pool};
use crate::exit::{Failure, Outcome};
use crate::memory::{available_bytes, peak_rss_bytes};
use crate::model::{self, Loaded};
use crate::output::{Table, bytes, error_bits, print_json, seconds};
use crate::progress::Display;
use crate::session::{self, BatchSession, Session};

/// A linear head: `scores = weights * vector + bias`, probabilities by softmax.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Head {
    /// Name of each class.
    pub labels: Vec<String>,
    /// One row of hidden size for each class.
    pub weights: Vec<Vec<f64>>,
    /// One number for each class.
    pub bias: Vec<f64>,
    /// Which pooling it was made for.
    pub pool: Pool,
}

impl Head {
    /// Reads a head from JSON and checks it against the hidden size.
    fn read(path: &Path, hidden: usize) -> Outcome<Self> {
        let refuse = |what: String| {
            Failure::input(format!(
                "{}: {what}; expected an object with labels, weights (a row of {hidden} numbers for each label), bias and pool (\"mean\" or \"last\")",
                path.display()
            ))
        };
        let text =
            std::fs::read_to_string(path).map_err(|e| refuse(format!("cannot be read ({e})")))?;
        let head: Self =
            serde_json::from_str(&text).map_err(|e| refuse(format!("is not a head ({e})")))?;
        let classes = head.labels.len();
        if classes == 0 || head.weights.len() != classes || head.bias.len() != classes {
            return Err(refuse(format!(
                "{classes} labels, {} rows of weights and {} biases",
                head.weights.len(),
                head.bias.len()
            )));
        }
        if let Some(row) = head.weights.iter().find(|row| row.len() != hidden) {
            return Err(refuse(format!("a row of {} weights", row.len())));
        }
        let numbers = head.weights.iter().flatten().chain(&head.bias);
        if numbers.into_iter().any(|x| !x.is_finite()) {
            return Err(refuse("a weight that is not finite".into()));
        }
        Ok(head)
    }

    /// Probabilities of the classes.
    fn probabilities(&self, vector: &[f64]) -> Vec<f64> {
        let scores: Vec<f64> = self
            .weights
            .iter()
            .zip(&self.bias)
            .map(|(row, b)| row.iter().zip(vector).map(|(w, x)| w * x).sum::<f64>() + b)
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = powers.iter().sum();
        powers.iter().map(|p| p / sum).collect()
    }
}

/// One document's vector.
#[derive(Debug, Serialize)]
struct Embedded {
    text: String,
    tokens: usize,
    windows: usize,
    seconds: f64,
    /// With `--check`: against the clear model with the same polynomials.
    #[serde(skip_serializing_if = "Option::is_none")]
    error_bits: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vector: Vec<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    label: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    probabilities: Vec<f64>,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    pool: Pool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
    /// Windows that were computed together.
    windows_at_once: usize,
    documents: Vec<Embedded>,
    seconds_per_document: f64,
    keygen_seconds: f64,
    peak_rss_bytes: Option<u64>,
}

/// `tacit embed`.
pub fn embed(args: &EmbedArgs, global: &Global) -> Outcome {
    let loaded = model::load(args.documents.model.as_deref())?;
    let report = run(&args.documents, args.pool, &loaded, global)?;
    if global.json {
        return print_json(&report);
    }
    for document in &report.documents {
        let numbers: Vec<String> = document.vector.iter().map(|x| format!("{x:.6}")).collect();
        println!("{}", numbers.join(" "));
    }
    say(&report);
    Ok(())
}

/// `tacit classify`.
pub fn classify(args: &ClassifyArgs, global: &Global) -> Outcome {
    let loaded = model::load(args.documents.model.as_deref())?;
    let head = Head::read(&args.head, loaded.model.config.hidden_size)?;
    let mut report = run(&args.documents, head.pool, &loaded, global)?;
    for document in &mut report.documents {
        document.probabilities = head.probabilities(&document.vector);
        let best = (0..head.labels.len())
            .max_by(|a, b| document.probabilities[*a].total_cmp(&document.probabilities[*b]));
        document.label = best.map(|best| head.labels[best].clone());
        document.vector.clear();
    }
    report.labels = head.labels;
    if global.json {
        return print_json(&report);
    }
    let mut table = Table::new(&["class", "probability", "document"]);
    for document in &report.documents {
        let most = document.probabilities.iter().copied().fold(0f64, f64::max);
        table.row(vec![
            document.label.clone().unwrap_or_default(),
            format!("{most:.3}"),
            document.text.chars().take(60).collect(),
        ]);
    }
    print!("{}", table.render());
    say(&report);
    Ok(())
}

fn say(report: &Report) {
    eprintln!(
        "\n{} documents in {} s each{}; keys made in {} s",
        report.documents.len(),
        seconds(report.seconds_per_document),
        match report.windows_at_once {
            1 => String::new(),
            n => format!(", {n} windows at once"),
        },
        seconds(report.keygen_seconds)
    );
    for d in &report.documents {
        if let Some(bits) = d.error_bits {
            eprintln!(
                "{bits:.1} bits: {}",
                d.text.chars().take(60).collect::<String>()
            );
        }
    }
}

/// The documents given: texts, and lines of files.
fn documents(args: &DocumentArgs) -> Outcome<Vec<String>> {
    let mut all = args.text.clone();
    for path in &args.file {
        let cannot =
            |e: std::io::Error| Failure::input(format!("cannot read {}: {e}", path.display()));
        let file = std::fs::File::open(path).map_err(cannot)?;
        for line in std::io::BufReader::new(file).lines() {
            let line = line.map_err(cannot)?;
            if !line.trim().is_empty() {
                all.push(line);
            }
        }
    }
    if all.is_empty() {
        return Err(Failure::usage(
            "no document; give texts, or a file with one document a line with --file FILE",
        ));
    }
    Ok(all)
}

/// A window of a document.
struct Part {
    document: usize,
    ids: Vec<u32>,
}

/// The documents' windows, in order.
fn parts(texts: &[String], loaded: &Loaded, window: usize) -> Outcome<Vec<Part>> {
    let mut parts = Vec::with_capacity(texts.len());
    for (document, text) in texts.iter().enumerate() {
        let tokens = loaded
            .tokenizer
            .encode(text, true)
            .map_err(model::failure)?;
        if tokens.is_empty() {
            return Err(Failure::usage(format!(
                "the document {text:?} has no tokens; leave it out"
            )));
        }
        parts.extend(tokens.chunks(window).map(|ids| Part {
            document,
            ids: ids.to_vec(),
        }));
    }
    Ok(parts)
}

/// Who computes the windows.
enum Way {
    /// One window after another.
    Windows(Arc<EncryptedModel>),
    /// Many at once.
    Columns(Arc<ColumnModel>),
}

/// Fewer windows than this are not worth planning a batch for.
const FEW: usize = 8;

/// Batches of `parts` windows that the plans say are the fastest, at most `most` windows each, with their predicted seconds.
fn fastest_batches(loaded: &Loaded, parts: usize, most: usize) -> Outcome<(ColumnModel, f64)> {
    let batch = |documents| -> Outcome<(ColumnModel, f64)> {
        let model = ColumnModel::for_documents(&loaded.model, &loaded.calibration, documents)
            .map_err(session::failure)?;
        let seconds = model.plan().seconds() * parts.div_ceil(model.documents()) as f64;
        Ok((model, seconds))
    };
    let mut documents = parts.min(most);
    let mut best = batch(documents)?;
    // half as many at once, in twice as many lanes, as long as there are lanes
    while best.0.documents() > 1 {
        documents = documents.div_ceil(2);
        let next = batch(documents)?;
        if next.1 >= best.1 || next.0.documents() == best.0.documents() {
            break;
        }
        best = next;
    }
    Ok(best)
}

/// Picks the way that is predicted to be the fastest and to fit into memory, or the one asked for.
fn way(args: &DocumentArgs, loaded: &Loaded, parts: usize, display: Display) -> Outcome<Way> {
    let windows = || session::prepare(&loaded.model, &loaded.calibration, display);
    if args.batch == Batch::Never || (args.batch == Batch::Auto && parts < FEW) {
        return Ok(Way::Windows(windows()?));
    }
    let batches = fastest_batches(loaded, parts, usize::from(args.at_once));
    let too_large = |model: &ColumnModel| {
        available_bytes().filter(|available| model.memory_bytes() > *available)
    };
    if args.batch == Batch::Always {
        let (model, _) = batches?;
        if let Some(available) = too_large(&model) {
            tracing::warn!(
                "computing {} windows at once takes about {} of memory, and {} are available; take fewer with --at-once",
                model.documents(),
                bytes(model.memory_bytes()),
                bytes(available)
            );
        }
        return Ok(Way::Columns(Arc::new(model)));
    }
    let windows = windows()?;
    Ok(match batches {
        Ok((model, seconds)) if seconds < windows.plan().seconds() * parts as f64 => {
            match too_large(&model) {
                None => Way::Columns(Arc::new(model)),
                Some(available) => {
                    tracing::warn!(
                        "one window after another: many at once would be faster, but take about {} of memory, and {} are available",
                        bytes(model.memory_bytes()),
                        bytes(available)
                    );
                    Way::Windows(windows)
                }
            }
        }
        _ => Way::Windows(windows),
    })
}

/// Hidden states of every window and the seconds it took, from either way.
struct Computed {
    states: Vec<(Matrix, f64)>,
    at_once: usize,
    keygen_seconds: f64,
}

fn by_windows(
    model: &Arc<EncryptedModel>,
    loaded: &Loaded,
    parts: &[Part],
    display: Display,
) -> Outcome<Computed> {
    let mut session = Session::open(model, loaded, display)?;
    let plan = model.plan();
    let mut bar = display.planned(plan.seconds() * parts.len() as f64);
    let mut states = Vec::with_capacity(parts.len());
    for (number, part) in parts.iter().enumerate() {
        let start = Instant::now();
        let label = format!("window {} of {}", number + 1, parts.len());
        let embeddings = loaded.model.embed(&part.ids).map_err(model::failure)?;
        let hidden = session.hidden_states(&embeddings, &mut |progress| match progress {
            Progress::Started { step } => bar.doing(&label, &plan.steps[step].name),
            Progress::Finished { step, seconds, .. } => {
                bar.finished(plan.steps[step].predicted_seconds, seconds);
            }
        })?;
        states.push((hidden, start.elapsed().as_secs_f64()));
    }
    bar.end();
    Ok(Computed {
        states,
        at_once: 1,
        keygen_seconds: session.keygen_seconds,
    })
}

fn by_columns(
    model: &Arc<ColumnModel>,
    loaded: &Loaded,
    parts: &[Part],
    display: Display,
) -> Outcome<Computed> {
    let mut session = BatchSession::open(model, loaded, display)?;
    let plan = model.plan();
    let batches = parts.len().div_ceil(model.documents());
    let mut bar = display.planned(plan.seconds() * batches as f64);
    let mut states = Vec::with_capacity(parts.len());
    for (number, batch) in parts.chunks(model.documents()).enumerate() {
        let start = Instant::now();
        let label = format!("batch {} of {batches}", number + 1);
        let embeddings = batch
            .iter()
            .map(|part| loaded.model.embed(&part.ids).map_err(model::failure))
            .collect::<Outcome<Vec<_>>>()?;
        let (hidden, _, _) =
            session.hidden_states(&embeddings, &mut |progress| match progress {
                Progress::Started { step } => bar.doing(&label, &plan.steps[step].name),
                Progress::Finished { step, seconds, .. } => {
                    bar.finished(plan.steps[step].predicted_seconds, seconds);
                }
            })?;
        let each = start.elapsed().as_secs_f64() / batch.len() as f64;
        states.extend(hidden.into_iter().map(|state| (state, each)));
    }
    bar.end();
    Ok(Computed {
        states,
        at_once: model.documents().min(parts.len()),
        keygen_seconds: session.keygen_seconds,
    })
}

fn run(args: &DocumentArgs, pool: Pool, loaded: &Loaded, global: &Global) -> Outcome<Report> {
    let display = Display::pick(global.json);
    let texts = documents(args)?;
    let window = loaded.calibration.context.min(loaded.model.config.context);
    let parts = parts(&texts, loaded, window)?;
    let computed = match way(args, loaded, parts.len(), display)? {
        Way::Windows(model) => by_windows(&model, loaded, &parts, display)?,
        Way::Columns(model) => by_columns(&model, loaded, &parts, display)?,
    };
    let mut done: Vec<Embedded> = Vec::with_capacity(texts.len());
    let mut rest = parts.iter().zip(computed.states).peekable();
    for (number, text) in texts.iter().enumerate() {
        let (mut states, mut clear, mut tokens, mut took) = (Vec::new(), Vec::new(), 0, 0.0);
        while let Some((part, (hidden, seconds))) =
            rest.next_if(|(part, _)| part.document == number)
        {
            states.push(loaded.model.normalise_final(&hidden));
            tokens += part.ids.len();
            took += seconds;
            if args.check {
                let options = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
                let state = loaded.model.hidden_states(&part.ids, &options);
                let state = state.map_err(model::failure)?.last;
                clear.push(loaded.model.normalise_final(&state));
            }
        }
        let vector = pooled(&states, pool);
        done.push(Embedded {
            text: text.clone(),
            tokens,
            windows: states.len(),
            seconds: took,
            error_bits: args
                .check
                .then(|| error_bits(&vector, &pooled(&clear, pool)))
                .flatten(),
            vector,
            label: None,
            probabilities: Vec::new(),
        });
    }
    let total: f64 = done.iter().map(|d| d.seconds).sum();
    Ok(Report {
        model: loaded.name.clone(),
        pool,
        labels: Vec::new(),
        windows_at_once: computed.at_once,
        seconds_per_document: total / done.len().max(1) as f64,
        documents: done,
        keygen_seconds: computed.keygen_seconds,
        peak_rss_bytes: peak_rss_bytes(),
    })
}

/// Mean of all rows of all windows, or the last row.
fn pooled(windows: &[Matrix], pool: Pool) -> Vec<f64> {
    let cols = windows.first().map_or(0, |m| m.cols);
    match pool {
        Pool::Last => windows
            .last()
            .map(|m| m.row(m.rows - 1).iter().map(|x| f64::from(*x)).collect())
            .unwrap_or_default(),
        Pool::Mean => {
            let mut sum = vec![0.0; cols];
            let mut rows = 0;
            for m in windows {
                rows += m.rows;
                for r in 0..m.rows {
                    for (s, x) in sum.iter_mut().zip(m.row(r)) {
                        *s += f64::from(*x);
                    }
                }
            }
            sum.iter().map(|s| s / rows.max(1) as f64).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matrix(rows: &[[f32; 2]]) -> Matrix {
        Matrix {
            rows: rows.len(),
            cols: 2,
            data: rows.iter().flatten().copied().collect(),
        }
    }

    #[test]
    fn pooling_over_windows() {
        let windows = [matrix(&[[1.0, 2.0], [3.0, 4.0]]), matrix(&[[8.0, 0.0]])];
        assert_eq!(pooled(&windows, Pool::Mean), [4.0, 2.0]);
        assert_eq!(pooled(&windows, Pool::Last), [8.0, 0.0]);
    }

    #[test]
    fn heads_are_checked_and_give_probabilities() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("head.json");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        write(r#"{"labels":["a","b"],"weights":[[1,0],[0,1]],"bias":[0,0],"pool":"mean"}"#);
        let head = Head::read(&file, 2).unwrap();
        let p = head.probabilities(&[2.0, 1.0]);
        assert!((p[0] - 1.0 / (1.0 + (-1.0f64).exp())).abs() < 1e-12);
        assert!((p[0] + p[1] - 1.0).abs() < 1e-12);
        for (text, says) in [
            ("{", "not a head"),
            (
                r#"{"labels":[],"weights":[],"bias":[],"pool":"mean"}"#,
                "0 labels",
            ),
            (
                r#"{"labels":["a"],"weights":[[1]],"bias":[0],"pool":"last"}"#,
                "row of 1",
            ),
            (
                r#"{"labels":["a"],"weights":[[1,2]],"bias":[0],"pool":"most"}"#,
                "pool",
            ),
        ] {
            write(text);
            let message = Head::read(&file, 2).unwrap_err().message;
            assert!(message.contains(says), "{message}");
        }
    }
}
