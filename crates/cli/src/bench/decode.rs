//! `tacit bench decode`: one new token at a time over an encrypted cache.
//!
//! The cache is filled by the client: it runs the same program in the clear, and encrypts the keys and values at the level that a
//! prefill leaves them. What is timed, the server's step, does not differ; a prefill of a large model takes half an hour.

use std::time::Instant;

use serde::Serialize;
use tacit_ensi::machine::clear::{ClearCt, ClearMachine};
use tacit_ensi::transformer::cached::LayerCache;
use tacit_ensi::{Client, Counts, EncryptedModel, EnsiError, Progress};

use super::prefill::prompt;
use crate::args::{DecodeArgs, Global};
use crate::exit::{Failure, Outcome};
use crate::interrupt::{self, Vault};
use crate::memory::peak_rss_bytes;
use crate::model;
use crate::output::{Table, bytes, error_bits, print_json, seconds};
use crate::progress::Display;
use crate::session;

/// One token.
#[derive(Debug, Serialize)]
struct Step {
    position: usize,
    seconds: f64,
    /// `-log2(max |error| / max |value|)` of the hidden state, against the same program in the clear.
    error_bits: Option<f64>,
    counts: Counts,
}

/// Time of the steps of one name, over all layers and tokens.
#[derive(Debug, Serialize)]
struct Part {
    name: String,
    seconds_per_token: f64,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    layers: usize,
    window: usize,
    cached: usize,
    cache_bytes: u64,
    predicted_seconds: f64,
    steps: Vec<Step>,
    parts: Vec<Part>,
    keygen_seconds: f64,
    key_messages: usize,
    key_bytes: u64,
    threads: usize,
    peak_rss_bytes: Option<u64>,
}

/// Runs the command.
pub fn run(args: &DecodeArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let loaded = model::load(Some(&args.model))?;
    let window = loaded.calibration.context;
    let steps = usize::from(args.steps);
    let cached = args.cached.unwrap_or_else(|| window.saturating_sub(steps));
    if cached == 0 || cached + steps > window {
        return Err(Failure::usage(format!(
            "{cached} tokens in the cache and {steps} steps do not fit the window of {window} tokens, with at least one token in the cache"
        )));
    }
    let ids = prompt(&loaded, &args.data, window)?;
    let waiting = display.waiting("preparing the encrypted model");
    let encrypted = EncryptedModel::fastest_with_decoder(
        &loaded.model,
        &loaded.calibration,
        args.slots.map(usize::from),
    )
    .map_err(session::failure)?;
    let encrypted = std::sync::Arc::new(encrypted);
    waiting.finish_and_clear();
    let decoder = encrypted
        .decoder()
        .ok_or_else(|| Failure::usage("the model was placed without a decoder"))?;

    let start = Instant::now();
    let client = Client::new(encrypted.key_plan(), encrypted.params().clone());
    let client = Vault::new(client.map_err(session::failure)?);
    let (mut server, key_bytes) = session::serve(&client, &encrypted, display)?;
    let keygen_seconds = start.elapsed().as_secs_f64();

    // the client's pass in the clear
    let embedded = loaded.model.embed(&ids).map_err(model::failure)?;
    let plan = encrypted.key_plan();
    let program = encrypted.transformer();
    let mut clear = ClearMachine::new(encrypted.engine().chain().clone(), *program.layout(), None);
    let rows: Vec<&[f32]> = (0..embedded.rows).map(|r| embedded.row(r)).collect();
    let mut x = clear.rows(&rows, plan.input_level, plan.input_scale);
    let masks = decoder
        .transformer()
        .keep_masks(cached)
        .map_err(session::failure)?;
    let layout = decoder
        .transformer()
        .cache()
        .ok_or_else(|| Failure::usage("the decoder has no cache"))?;
    let bar = display.pieces("computing the cache in the clear", program.layers() as u64);
    let mut kept: Vec<LayerCache<ClearCt>> = Vec::new();
    let mut encrypted_cache = Vec::new();
    for layer in 0..program.layers() {
        interrupt::check()?;
        let (next, cache) = program
            .run_layer_keeping(&mut clear, layer, x, layout, &masks)
            .map_err(session::failure)?;
        x = next;
        let encrypt = |cts: &[ClearCt]| {
            client.with(|client| {
                cts.iter()
                    .map(|ct| client.encrypt_slots(&ct.values, ct.level(), ct.scale()))
                    .collect::<Result<Vec<_>, EnsiError>>()
            })
        };
        encrypted_cache.push(LayerCache {
            keys: encrypt(&cache.keys)?.map_err(session::failure)?,
            values: encrypt(&cache.values)?.map_err(session::failure)?,
        });
        kept.push(cache);
        bar.inc(1);
    }
    bar.finish_and_clear();
    server
        .restore(encrypted_cache, cached)
        .map_err(session::failure)?;

    let mut clear = ClearMachine::new(
        decoder.engine().chain().clone(),
        *decoder.transformer().layout(),
        None,
    );
    let planned = decoder.plan();
    let mut done = Vec::new();
    let mut parts: Vec<Part> = Vec::new();
    for position in cached..cached + steps {
        let row = embedded.row(position);
        let token = client
            .with(|client| client.encrypt_token(row))?
            .map_err(session::failure)?;
        let mut bar = display.planned(planned.seconds());
        let label = format!("token {}", position + 1);
        let mut counts = Counts::default();
        let start = Instant::now();
        let answer = server.decode(
            &token,
            &mut session::stoppable(&mut |progress| match progress {
                Progress::Started { step } => bar.doing(&label, &planned.steps[step].name),
                Progress::Finished {
                    step,
                    seconds,
                    counts: of_step,
                } => {
                    counts += of_step;
                    let name = &planned.steps[step].name;
                    match parts.iter_mut().find(|p| p.name == *name) {
                        Some(part) => part.seconds_per_token += seconds / steps as f64,
                        None => parts.push(Part {
                            name: name.clone(),
                            seconds_per_token: seconds / steps as f64,
                        }),
                    }
                    bar.finished(planned.steps[step].predicted_seconds, seconds);
                }
            }),
        );
        let answer = answer.map_err(session::failure)?;
        let took = start.elapsed().as_secs_f64();
        bar.end();
        let hidden = client
            .with(|client| client.decrypt_token(&answer))?
            .map_err(session::failure)?;

        let step = decoder.transformer();
        let masks = step.step_masks(position).map_err(session::failure)?;
        let mut x = clear.rows(&[row], plan.input_level, plan.input_scale);
        for (layer, kept) in kept.iter_mut().enumerate() {
            x = step
                .run_step(&mut clear, layer, x, kept, &masks)
                .map_err(session::failure)?;
        }
        let want: Vec<f64> = (0..hidden.len())
            .map(|i| {
                let (c, block) = step.layout().positions(i, hidden.len())[0];
                x[c].values[step.layout().slot(block, 0)].re
            })
            .collect();
        done.push(Step {
            position,
            seconds: took,
            error_bits: error_bits(&hidden, &want),
            counts,
        });
    }
    let report = Report {
        model: loaded.name.clone(),
        layers: program.layers(),
        window,
        cached,
        cache_bytes: server.kept_bytes(),
        predicted_seconds: planned.seconds(),
        steps: done,
        parts,
        keygen_seconds,
        key_messages: plan.messages(),
        key_bytes,
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
    let mut table = Table::new(&["token", "s", "bits", "bootstraps", "key switches"]);
    for step in &report.steps {
        table.row(vec![
            (step.position + 1).to_string(),
            seconds(step.seconds),
            step.error_bits
                .map_or_else(String::new, |b| format!("{b:.1}")),
            step.counts.bootstraps.to_string(),
            step.counts.key_switches.to_string(),
        ]);
    }
    print!("{}", table.render());
    let mut table = Table::new(&["step, over all layers", "s a token"]);
    for part in &report.parts {
        table.row(vec![part.name.clone(), seconds(part.seconds_per_token)]);
    }
    print!("\n{}", table.render());
    println!(
        "\n{} layers, {} tokens cached in {}; {} keys of {} made in {} s; {} threads; peak memory {}",
        report.layers,
        report.cached,
        bytes(report.cache_bytes),
        report.key_messages,
        bytes(report.key_bytes),
        seconds(report.keygen_seconds),
        report.threads,
        report
            .peak_rss_bytes
            .map_or_else(|| "unknown".into(), bytes),
    );
}
