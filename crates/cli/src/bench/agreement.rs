//! `tacit bench agreement`: is the encrypted model the model?
//!
//! Prompts are cut from text at random places. For each, the encrypted hidden state of the last token is compared with the
//! clear model's that uses the same polynomials (error in bits; same likeliest next token?) and with the exact model's
//! next token. A forward pass gives the states of all tokens of a prompt, so agreement over all of them comes for free.
//! Perplexities are measured in the clear, with exact functions and with the polynomials, on windows of the same text.

use std::time::Instant;

use serde::Serialize;
use tacit_bitnet::calibration::evaluate;
use tacit_bitnet::{ForwardOptions, Functions, Matrix};

use super::median;
use crate::args::{AgreementArgs, Global};
use crate::ask::{argmax, last_row};
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::memory::peak_rss_bytes;
use crate::model::{self, Loaded};
use crate::output::{bytes, error_bits, print_json, say_out_of_range, seconds};
use crate::progress::Display;
use crate::session::{self, Session};
use crate::text;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    prompts: usize,
    /// Next token after each prompt: encrypted against clear with the same polynomials.
    top1_agreement: Option<f64>,
    /// Next token after each prompt: encrypted against clear with exact functions.
    top1_agreement_exact: Option<f64>,
    /// The two again, over every position of every prompt.
    top1_agreement_positions: Option<f64>,
    top1_agreement_exact_positions: Option<f64>,
    positions: usize,
    /// Worst of the prompts: `-log2(max |difference| / max |hidden|)` of the last token's state.
    hidden_error_bits: Option<f64>,
    hidden_error_bits_median: Option<f64>,
    /// Next token: clear with polynomials against clear with exact functions.
    top1_agreement_polynomial_exact: f64,
    perplexity_exact: f64,
    perplexity_polynomial: f64,
    /// Relative change from exact functions to polynomials.
    perplexity_change: f64,
    perplexity_windows: usize,
    out_of_range: usize,
    /// Share of the prompts that keep every value of the filled window inside its interval, in the clear.
    prompts_in_range: f64,
    /// Prompts on which a value left its interval under encryption: no answer.
    implausible: usize,
    seconds_per_prompt: Option<f64>,
    disagreements: Vec<Disagreement>,
    model: String,
    threads: usize,
    peak_rss_bytes: Option<u64>,
}

/// A prompt whose next token differs.
#[derive(Debug, Serialize)]
struct Disagreement {
    prompt: usize,
    encrypted: u32,
    clear: u32,
    /// Distance of the clear model's two largest logits: near-ties flip first.
    clear_gap: f32,
}

/// What the prompts showed.
#[derive(Debug, Default)]
struct Tally {
    same: usize,
    same_exact: usize,
    positions: usize,
    position_same: usize,
    position_same_exact: usize,
    bits: Vec<f64>,
    implausible: usize,
    took: Vec<f64>,
    disagreements: Vec<Disagreement>,
}

/// Runs the command.
pub fn run(args: &AgreementArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let loaded = model::load(args.model.as_deref())?;
    let documents = text::documents(&args.data)?;
    let documents = if documents.held_out.is_empty() {
        documents.training
    } else {
        documents.held_out
    };
    let tokens = text::Tokens::new(&loaded.tokenizer, &documents)?;
    let window = loaded.calibration.context.min(loaded.model.config.context);
    let prompts = tokens.prompts(window, args.prompts as usize, args.seed);
    let windows = tokens.windows(window, args.windows.max(1));
    if prompts.is_empty() || windows.is_empty() {
        return Err(Failure::input(format!(
            "the text has {} tokens, at least {window} are needed for one window; give more text with --data PATH",
            tokens.len()
        )));
    }

    let exact_options = ForwardOptions::new(loaded.model.exact_functions());
    let polynomial_options = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
    let exact = evaluate(&loaded.model, &exact_options, &windows).map_err(model::failure)?;
    let polynomial =
        evaluate(&loaded.model, &polynomial_options, &windows).map_err(model::failure)?;
    let tally = if args.clear_only {
        None
    } else {
        Some(encrypted(&loaded, &prompts, display)?)
    };

    let share = |part: usize, of: usize| part as f64 / of.max(1) as f64;
    let report = Report {
        prompts: prompts.len(),
        top1_agreement: tally.as_ref().map(|t| share(t.same, prompts.len())),
        top1_agreement_exact: tally.as_ref().map(|t| share(t.same_exact, prompts.len())),
        top1_agreement_positions: tally.as_ref().map(|t| share(t.position_same, t.positions)),
        top1_agreement_exact_positions: tally
            .as_ref()
            .map(|t| share(t.position_same_exact, t.positions)),
        positions: tally.as_ref().map_or(0, |t| t.positions),
        hidden_error_bits: tally
            .as_ref()
            .map(|t| t.bits.iter().copied().fold(f64::INFINITY, f64::min)),
        hidden_error_bits_median: tally.as_ref().map(|t| median(&t.bits)),
        top1_agreement_polynomial_exact: polynomial.agreement(&exact, 0.0),
        perplexity_exact: exact.perplexity(),
        perplexity_polynomial: polynomial.perplexity(),
        perplexity_change: (polynomial.loss - exact.loss).exp_m1(),
        perplexity_windows: windows.len(),
        out_of_range: polynomial.range.outside(),
        prompts_in_range: in_range(&loaded, &prompts, window)?,
        implausible: tally.as_ref().map_or(0, |t| t.implausible),
        seconds_per_prompt: tally.as_ref().map(|t| median(&t.took)),
        disagreements: tally.map(|t| t.disagreements).unwrap_or_default(),
        model: loaded.name.clone(),
        threads: rayon::current_num_threads(),
        peak_rss_bytes: peak_rss_bytes(),
    };
    if global.json {
        print_json(&report)
    } else {
        print(&report)
    }
}

/// Runs every prompt under encryption and in the clear.
fn encrypted(loaded: &Loaded, prompts: &[Vec<u32>], display: Display) -> Outcome<Tally> {
    let encrypted = session::prepare(&loaded.model, &loaded.calibration, display)?;
    let mut session = Session::open(&encrypted, loaded, display)?;
    let polynomial = ForwardOptions::new(Functions::Polynomial(&loaded.calibration));
    let exact = ForwardOptions::new(loaded.model.exact_functions());
    let mut tally = Tally::default();
    let bar = display.pieces("prompts", prompts.len() as u64);
    for (number, ids) in prompts.iter().enumerate() {
        interrupt::check()?;
        let start = Instant::now();
        let embeddings = loaded.model.embed(ids).map_err(model::failure)?;
        let hidden = match session.hidden_states(&embeddings, &mut |_| {}) {
            Ok(hidden) => hidden,
            // A value left its interval: the prompt counts as lost in every figure.
            Err(e) if e.kind == Kind::Mismatch => {
                tracing::warn!("prompt {number}: {e}");
                tally.implausible += 1;
                tally.positions += ids.len();
                tally.bits.push(0.0);
                bar.inc(1);
                continue;
            }
            Err(e) => return Err(e),
        };
        tally.took.push(start.elapsed().as_secs_f64());
        let clear = loaded
            .model
            .hidden_states(ids, &polynomial)
            .map_err(model::failure)?
            .last;
        let reference = loaded
            .model
            .hidden_states(ids, &exact)
            .map_err(model::failure)?
            .last;
        // A state that is not a number counts as no bits at all.
        tally
            .bits
            .push(error_bits(&last_row(&hidden), &last_row(&clear)).unwrap_or(0.0));
        let (got, want, right) = (
            logits(loaded, &hidden)?,
            logits(loaded, &clear)?,
            logits(loaded, &reference)?,
        );
        for row in 0..ids.len() {
            let top = [&got, &want, &right].map(|m| argmax(m.row(row)));
            tally.positions += 1;
            tally.position_same += usize::from(top[0] == top[1]);
            tally.position_same_exact += usize::from(top[0] == top[2]);
            if row + 1 == ids.len() {
                tally.same += usize::from(top[0] == top[1]);
                tally.same_exact += usize::from(top[0] == top[2]);
                if top[0] != top[1] {
                    let clear_gap = gap(want.row(row));
                    tally.disagreements.push(Disagreement {
                        prompt: number,
                        encrypted: top[0],
                        clear: top[1],
                        clear_gap,
                    });
                }
            }
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(tally)
}

/// Share of prompts that, with ordinary text behind them, leave no interval.
fn in_range(loaded: &Loaded, prompts: &[Vec<u32>], window: usize) -> Outcome<f64> {
    let mut inside = 0;
    for prompt in prompts {
        let range = session::filled_range(loaded, prompt, window)?;
        inside += usize::from(range.outside() == 0 && range.non_finite == 0);
    }
    Ok(inside as f64 / prompts.len().max(1) as f64)
}

/// Logits of every token.
fn logits(loaded: &Loaded, hidden: &Matrix) -> Outcome<Matrix> {
    loaded
        .model
        .head_logits(&loaded.model.normalise_final(hidden))
        .map_err(model::failure)
}

/// Distance of the two largest values.
fn gap(logits: &[f32]) -> f32 {
    let best = argmax(logits) as usize;
    let second = logits
        .iter()
        .enumerate()
        .filter(|(i, _)| *i != best)
        .map(|(_, l)| *l)
        .fold(f32::NEG_INFINITY, f32::max);
    logits[best] - second
}

fn print(report: &Report) -> Outcome {
    let percent =
        |share: Option<f64>| share.map_or("not measured".into(), |s| format!("{:.2} %", 100.0 * s));
    println!(
        "{} prompts from held-out text, model {}",
        report.prompts, report.model
    );
    if report.top1_agreement.is_some() {
        println!(
            "next token, encrypted = clear with the same polynomials   {}",
            percent(report.top1_agreement)
        );
        println!(
            "next token, encrypted = clear with exact functions        {}",
            percent(report.top1_agreement_exact)
        );
        println!(
            "the same over all {} positions                           {}, {}",
            report.positions,
            percent(report.top1_agreement_positions),
            percent(report.top1_agreement_exact_positions)
        );
    }
    if let (Some(worst), Some(median)) = (report.hidden_error_bits, report.hidden_error_bits_median)
    {
        println!(
            "error of the last hidden state                            {worst:.2} bits worst, {median:.2} median"
        );
    }
    println!(
        "perplexity in the clear                                   {:.4} exact, {:.4} with polynomials ({:+.3} %), {} windows",
        report.perplexity_exact,
        report.perplexity_polynomial,
        100.0 * report.perplexity_change,
        report.perplexity_windows
    );
    say_out_of_range(report.out_of_range);
    println!(
        "prompts that leave no interval                            {}",
        percent(Some(report.prompts_in_range))
    );
    if report.implausible > 0 {
        println!(
            "{} prompts without an answer: a value left its interval under encryption",
            report.implausible
        );
    }
    for d in &report.disagreements {
        println!(
            "prompt {}: encrypted {}, clear {}, logits {:.4} apart",
            d.prompt, d.encrypted, d.clear, d.clear_gap
        );
    }
    if let Some(s) = report.seconds_per_prompt {
        println!(
            "{} s a prompt on {} threads, peak memory {}",
            seconds(s),
            report.threads,
            bytes(report.peak_rss_bytes.unwrap_or(0))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_gap_is_between_the_two_largest() {
        assert_eq!(super::gap(&[1.0, 4.0, 2.5]), 1.5);
        assert_eq!(super::gap(&[4.0, 4.0]), 0.0);
    }
}
