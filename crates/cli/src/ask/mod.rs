//! `tacit ask`: a prompt is encrypted, answered under encryption, decrypted and printed token by token.

mod errors;
pub mod explain;
mod prompt;

use std::time::Instant;

use serde::Serialize;
use tacit_bitnet::{ForwardOptions, Functions, Matrix, Sampler, SamplingOptions};
use tacit_ensi::{Counts, EncryptedModel, Progress};

use crate::args::{AskArgs, Global};
use crate::exit::Outcome;
use crate::memory::peak_rss_bytes;
use crate::model::{self, Loaded};
use crate::output::{bytes, count, error_bits, print_json, seconds};
use crate::progress::Display;
use crate::session::{self, Session};

use errors::StepError;
use explain::{Shares, StepReport, Tally};

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    prompt_tokens: usize,
    completion: String,
    tokens: Vec<Token>,
    keygen_seconds: f64,
    seconds_per_token: f64,
    peak_rss_bytes: Option<u64>,
    /// Operations of all forward passes together.
    counts: Counts,
    /// Operations of one forward pass; with `--cache`, of every token but the first.
    counts_per_token: Counts,
    shares: Shares,
    key_messages: usize,
    key_message_bytes: u64,
    threads: usize,
    model: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    top1_agreement: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    plan: Vec<StepReport>,
    /// With `--cache`: of every token but the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    further_plan: Vec<StepReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    step_errors: Vec<StepError>,
}

/// One new token.
#[derive(Debug, Serialize)]
struct Token {
    id: u32,
    text: String,
    /// From encryption of the prompt to the token.
    seconds: f64,
    /// With `--check`: precision of the last hidden state, `-log2(max |difference| / max |hidden|)`.
    error_bits: Option<f64>,
    /// With `--check`: the likeliest token of the clear model with the same polynomials.
    clear_top1: Option<u32>,
    /// With `--check`: whether the likeliest token under encryption is the same.
    agrees: Option<bool>,
}

/// Runs the command.
pub fn run(args: &AskArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let mut sampler = Sampler::new(SamplingOptions {
        temperature: args.sampling.temperature,
        top_k: args.sampling.top_k,
        top_p: args.sampling.top_p,
        seed: args.sampling.seed,
    })
    .map_err(model::failure)?;
    prompt::check_sampling(&args.sampling)?;
    let text = prompt::read(&args.prompt)?;
    let loaded = model::load(args.model.as_deref())?;
    let ids = loaded
        .tokenizer
        .encode(&text, true)
        .map_err(model::failure)?;
    prompt::fit(
        ids.len(),
        args.tokens as usize,
        loaded.calibration.context.min(loaded.model.config.context),
    )?;

    let encrypted = if args.cache {
        session::prepare_with_cache(&loaded.model, &loaded.calibration, display)?
    } else {
        session::prepare(&loaded.model, &loaded.calibration, display)?
    };
    let plan = encrypted.plan();
    prompt::fit(ids.len(), args.tokens as usize, plan.context)?;
    if args.explain && !global.json {
        println!(
            "Plan of one token (window of {} tokens, {} of evaluation keys):\n",
            plan.context,
            bytes(plan.key_bytes)
        );
        println!("{}", explain::table(&explain::report(plan, &[])));
        if let Some(decoder) = encrypted.decoder() {
            println!("Plan of every further token, over the cache:\n");
            println!("{}", explain::table(&explain::report(decoder.plan(), &[])));
        }
    }

    let session = Session::open(&encrypted, &loaded, display)?;
    let report = answer(
        args,
        &loaded,
        &encrypted,
        session,
        &mut sampler,
        ids,
        &text,
        display,
    )?;
    if global.json {
        return print_json(&report);
    }
    print(args, &report);
    Ok(())
}

/// Generates the tokens.
#[allow(clippy::too_many_arguments)]
fn answer(
    args: &AskArgs,
    loaded: &Loaded,
    encrypted: &EncryptedModel,
    mut session: Session,
    sampler: &mut Sampler,
    mut ids: Vec<u32>,
    text: &str,
    display: Display,
) -> Outcome<Report> {
    let plan = encrypted.plan();
    let prompt_tokens = ids.len();
    let mut tallies = vec![Tally::default(); plan.steps.len()];
    // from the second token on
    let further = encrypted.decoder().map_or(plan, |d| d.plan());
    let mut further_tallies = vec![Tally::default(); further.steps.len()];
    let predicted = plan.seconds() + further.seconds() * f64::from(args.tokens - 1);
    let mut bar = display.planned(predicted);
    let mut stream = loaded.tokenizer.stream();
    let mut tokens: Vec<Token> = Vec::new();
    let mut step_errors = Vec::new();
    bar.text(text);
    for number in 0..args.tokens {
        let start = Instant::now();
        let embeddings = loaded.model.embed(&ids).map_err(model::failure)?;
        let over_cache = args.cache && number > 0;
        let (plan, tallies) = if over_cache {
            (further, &mut further_tallies)
        } else {
            (plan, &mut tallies)
        };
        let mut on_progress = |progress: Progress| match progress {
            Progress::Started { step } => {
                let step = &plan.steps[step];
                let layer = step
                    .layer
                    .map(|l| format!(" of layer {l}"))
                    .unwrap_or_default();
                // The first words name the step; the rest is for the plan's table.
                let name = step.name.split(':').next().unwrap_or_default();
                bar.doing(
                    &format!("token {} of {}", number + 1, args.tokens),
                    &format!("{name}{layer}"),
                );
            }
            Progress::Finished {
                step,
                seconds,
                counts,
            } => {
                tallies[step].add(seconds, counts);
                bar.finished(plan.steps[step].predicted_seconds, seconds);
            }
        };
        let hidden = if over_cache {
            session.next_state(embeddings.row(embeddings.rows - 1), &mut on_progress)?
        } else if args.cache {
            session.hidden_states_kept(&embeddings, &mut on_progress)?
        } else if args.check && args.explain {
            let (hidden, errors) =
                errors::measure(encrypted, &mut session, &embeddings, &mut on_progress)?;
            step_errors = errors;
            hidden
        } else {
            session.hidden_states(&embeddings, &mut on_progress)?
        };
        let logits = next_logits(loaded, &hidden)?;
        let id = sampler.sample(&logits).map_err(model::failure)?;
        let piece = stream.push(id).map_err(model::failure)?;
        let mut token = Token {
            id,
            text: piece,
            seconds: start.elapsed().as_secs_f64(),
            error_bits: None,
            clear_top1: None,
            agrees: None,
        };
        if args.check {
            let options = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
            let clear = loaded
                .model
                .hidden_states(&ids, &options)
                .map_err(model::failure)?
                .last;
            token.error_bits = error_bits(&last_row(&hidden), &last_row(&clear));
            let top1 = argmax(&next_logits(loaded, &clear)?);
            token.clear_top1 = Some(top1);
            token.agrees = Some(top1 == argmax(&logits));
        }
        bar.text(&token.text);
        tokens.push(token);
        ids.push(id);
        if loaded.model.config.eos_tokens.contains(&id) {
            break;
        }
    }
    let rest = stream.finish().map_err(model::failure)?;
    bar.text(&rest);
    bar.end();
    if let Some(last) = tokens.last_mut() {
        last.text.push_str(&rest);
    }

    let steps = explain::report(plan, &tallies);
    let sum = |steps: &[StepReport]| {
        steps.iter().fold(Counts::default(), |sum, s| {
            sum + s.measured.unwrap_or_default()
        })
    };
    let first = sum(&steps);
    let further_steps = match encrypted.decoder() {
        Some(_) if tokens.len() > 1 => explain::report(further, &further_tallies),
        _ => Vec::new(),
    };
    let counts_per_token = if further_steps.is_empty() {
        first
    } else {
        sum(&further_steps)
    };
    let counts = first + counts_per_token * tokens.len().saturating_sub(1);
    let agreeing = tokens.iter().filter(|t| t.agrees == Some(true)).count();
    Ok(Report {
        prompt_tokens,
        completion: tokens.iter().map(|t| t.text.as_str()).collect(),
        seconds_per_token: tokens.iter().map(|t| t.seconds).sum::<f64>()
            / tokens.len().max(1) as f64,
        keygen_seconds: session.keygen_seconds,
        peak_rss_bytes: peak_rss_bytes(),
        counts,
        counts_per_token,
        shares: explain::shares(&steps),
        key_messages: session.key_messages,
        key_message_bytes: session.key_message_bytes,
        threads: rayon::current_num_threads(),
        model: loaded.name.clone(),
        top1_agreement: args
            .check
            .then(|| agreeing as f64 / tokens.len().max(1) as f64),
        plan: if args.explain { steps } else { Vec::new() },
        further_plan: if args.explain {
            further_steps
        } else {
            Vec::new()
        },
        step_errors,
        tokens,
    })
}

/// Final norm and head, at the client: logits of the token after the last one.
pub fn next_logits(loaded: &Loaded, hidden: &Matrix) -> Outcome<Vec<f32>> {
    let last = Matrix {
        rows: 1,
        cols: hidden.cols,
        data: hidden.row(hidden.rows - 1).to_vec(),
    };
    let normed = loaded.model.normalise_final(&last);
    Ok(loaded
        .model
        .head_logits(&normed)
        .map_err(model::failure)?
        .data)
}

/// The last token's values.
pub fn last_row(m: &Matrix) -> Vec<f64> {
    m.row(m.rows - 1).iter().map(|v| f64::from(*v)).collect()
}

/// Index of the largest logit (the first one of equals).
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (i, l) in logits.iter().enumerate() {
        if l.total_cmp(&logits[best]).is_gt() {
            best = i;
        }
    }
    best as u32
}

/// What follows the answer on a terminal.
fn print(args: &AskArgs, report: &Report) {
    let peak = report
        .peak_rss_bytes
        .map(|b| format!(", peak memory {}", bytes(b)))
        .unwrap_or_default();
    eprintln!(
        "\n{} tokens in {} s each on {} threads; {} key messages of {} made in {} s{peak}",
        report.tokens.len(),
        seconds(report.seconds_per_token),
        report.threads,
        report.key_messages,
        bytes(report.key_message_bytes),
        seconds(report.keygen_seconds),
    );
    if args.check {
        println!("\nAgainst the clear model with the same polynomials:");
        for t in &report.tokens {
            let bits = t.error_bits.map_or("no".into(), |b| format!("{b:.2}"));
            let verdict = match (t.agrees, t.clear_top1) {
                (Some(true), _) => "same likeliest token".to_string(),
                (_, Some(id)) => format!("the clear model's likeliest token is {id}"),
                _ => String::new(),
            };
            println!("  {:?} ({}): {bits} bits, {verdict}", t.text, t.id);
        }
        if let Some(share) = report.top1_agreement {
            println!("  agreement {:.1} %", 100.0 * share);
        }
    }
    if args.explain {
        println!("\nMeasured, one token:\n");
        println!("{}", explain::table(&report.plan));
        if !report.further_plan.is_empty() {
            println!("Every further token:\n");
            println!("{}", explain::table(&report.further_plan));
        }
        let c = report.counts_per_token;
        println!(
            "One token: {} bootstraps, {} key switches, {} products of ciphertexts, {} with plaintexts, {} additions.",
            count(c.bootstraps),
            count(c.key_switches),
            count(c.ct_ct),
            count(c.ct_pt),
            count(c.additions)
        );
        println!("{}", explain::describe(&report.shares));
        if !report.step_errors.is_empty() {
            println!("\nPrecision of intermediate values, last token's pass:\n");
            println!("{}", errors::table(&report.step_errors));
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_first_largest_logit_wins() {
        assert_eq!(super::argmax(&[1.0, 3.0, 3.0, -1.0]), 1);
        assert_eq!(super::argmax(&[-2.0]), 0);
    }
}
