//! `tacit bench prefill`: a whole window through the encrypted model, layer by layer.
//!
//! ```text
//!   seed ──► Client ── encrypted window ──► Server: layer 0, 1, 2, …          state folder: seed, window, residual stream
//!                 └─ decrypts the residual stream after each layer ─► bits    after the last finished layer, one record a layer
//! ```
//!
//! The error after a layer is that of the whole way up to it, against the same program in the clear (the same polynomials).
//! Keys come from the seed, so that a run that was killed goes on with the same keys, and ends with the same ciphertexts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tacit_ckks::Ciphertext;
use tacit_ensi::machine::clear::{ClearCt, ClearMachine};
use tacit_ensi::{Client, EncryptedModel, Progress};

use crate::args::{Global, PrefillArgs};
use crate::exit::{Failure, Outcome};
use crate::interrupt::{self, Vault};
use crate::memory::peak_rss_bytes;
use crate::model::{self, Loaded};
use crate::output::{Table, bytes, error_bits, print_json, seconds};
use crate::progress::Display;
use crate::session;
use crate::text;

/// What one layer took, and how far its output is from the clear model's.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct LayerRecord {
    layer: usize,
    seconds: f64,
    predicted_seconds: f64,
    bootstraps: u64,
    key_switches: u64,
    /// `-log2(max |error| / max |value|)` of the residual stream, all tokens.
    error_bits: Option<f64>,
    largest: Option<f64>,
    threads: usize,
}

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    tokens: usize,
    layers: usize,
    layers_done: usize,
    seconds: f64,
    seconds_per_layer: f64,
    keygen_seconds: f64,
    key_messages: usize,
    key_bytes: u64,
    preparation_seconds: f64,
    peak_rss_bytes: Option<u64>,
    records: Vec<LayerRecord>,
}

/// What the state folder was begun with.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    model: String,
    window: Vec<u32>,
}

/// The folder that a run goes on from.
struct State {
    folder: PathBuf,
}

impl State {
    /// Opens or begins a folder; refuses one that was begun with another model or text.
    fn open(folder: &Path, begun: &Begun) -> Outcome<Self> {
        let cannot = |what: &Path, e: std::io::Error| {
            Failure::input(format!("cannot use {}: {e}", what.display()))
        };
        std::fs::create_dir_all(folder).map_err(|e| cannot(folder, e))?;
        let state = Self {
            folder: folder.to_path_buf(),
        };
        let file = folder.join("begun.json");
        if file.is_file() {
            let text = std::fs::read_to_string(&file).map_err(|e| cannot(&file, e))?;
            let found: Begun = serde_json::from_str(&text).map_err(|e| {
                Failure::input(format!(
                    "{} is damaged ({e}); remove the folder to begin again",
                    file.display()
                ))
            })?;
            if found != *begun {
                return Err(Failure::usage(format!(
                    "{} was begun with {} and other text; give the same model and --data, or another --state folder",
                    folder.display(),
                    found.model
                )));
            }
        } else {
            let text = serde_json::to_string(begun)
                .map_err(|e| Failure::input(format!("cannot write {}: {e}", file.display())))?;
            state.write("begun.json", text.as_bytes())?;
        }
        Ok(state)
    }

    /// The client's seed, made on first use; nobody else may read the file.
    fn seed(&self) -> Outcome<[u8; 32]> {
        let file = self.folder.join("client.seed");
        let cannot =
            |e: std::io::Error| Failure::input(format!("cannot use {}: {e}", file.display()));
        if file.is_file() {
            let bytes = std::fs::read(&file).map_err(cannot)?;
            return bytes.as_slice().try_into().map_err(|_| {
                Failure::input(format!(
                    "{} has {} bytes instead of 32; remove the folder to begin again",
                    file.display(),
                    bytes.len()
                ))
            });
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)
            .map_err(|e| Failure::input(format!("no randomness from the system: {e}")))?;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut out = options.open(&file).map_err(cannot)?;
        out.write_all(&seed).map_err(cannot)?;
        out.sync_all().map_err(cannot)?;
        Ok(seed)
    }

    fn write(&self, name: &str, content: &[u8]) -> Outcome {
        let (file, part) = (
            self.folder.join(name),
            self.folder.join(format!("{name}.part")),
        );
        let result = std::fs::File::create(&part)
            .and_then(|mut f| f.write_all(content).and_then(|()| f.sync_all()))
            .and_then(|()| std::fs::rename(&part, &file));
        result.map_err(|e| {
            Failure::input(format!(
                "cannot write {}: {e}; free space and run the command again",
                file.display()
            ))
        })
    }

    fn stream_name(done: usize) -> String {
        format!("after-{done:03}.ciphertexts")
    }

    /// Records of finished layers, and the residual stream after them.
    fn finished(&self) -> Outcome<(Vec<LayerRecord>, Option<Vec<u8>>)> {
        let file = self.folder.join("layers.json");
        if !file.is_file() {
            return Ok((Vec::new(), None));
        }
        let damaged = |e: String| {
            Failure::input(format!(
                "{} is damaged ({e}); remove the folder to begin again",
                file.display()
            ))
        };
        let text = std::fs::read_to_string(&file).map_err(|e| damaged(e.to_string()))?;
        let records: Vec<LayerRecord> =
            serde_json::from_str(&text).map_err(|e| damaged(e.to_string()))?;
        let stream = self.folder.join(Self::stream_name(records.len()));
        let bytes = std::fs::read(&stream)
            .map_err(|e| Failure::input(format!("cannot read {}: {e}", stream.display())))?;
        Ok((records, Some(bytes)))
    }

    /// The stream first, then the record that points to it, then the older stream goes.
    fn keep(&self, records: &[LayerRecord], stream: &[u8]) -> Outcome {
        let done = records.len();
        self.write(&Self::stream_name(done), stream)?;
        let text = serde_json::to_string_pretty(records)
            .map_err(|e| Failure::input(format!("cannot write the records: {e}")))?;
        self.write("layers.json", text.as_bytes())?;
        if done > 1 {
            let _ = std::fs::remove_file(self.folder.join(Self::stream_name(done - 1)));
        }
        Ok(())
    }
}

/// The same program in the clear.
struct Clear<'a> {
    model: &'a EncryptedModel,
    machine: ClearMachine<'static>,
    x: Vec<ClearCt>,
}

impl<'a> Clear<'a> {
    fn new(model: &'a EncryptedModel, rows: &[Vec<f32>]) -> Self {
        let layout = *model.transformer().layout();
        let plan = model.key_plan();
        let machine = ClearMachine::new(model.engine().chain().clone(), layout, None);
        let x = machine.rows(rows, plan.input_level, plan.input_scale);
        Self { model, machine, x }
    }

    fn layer(&mut self, index: usize) -> Outcome {
        let x = std::mem::take(&mut self.x);
        self.x = self
            .model
            .transformer()
            .run_layer(&mut self.machine, index, x)
            .map_err(session::failure)?;
        Ok(())
    }

    /// Bits of the decrypted stream, and the largest value.
    fn compare(&self, client: &Client, x: &[Ciphertext]) -> Outcome<(Option<f64>, f64)> {
        let (mut got, mut want) = (Vec::new(), Vec::new());
        for (ct, clear) in x.iter().zip(&self.x) {
            let slots = client.decrypt_slots(ct).map_err(session::failure)?;
            got.extend(slots.iter().map(|v| v.re));
            want.extend(clear.values.iter().map(|v| v.re));
        }
        let largest = want.iter().fold(0f64, |m, v| m.max(v.abs()));
        Ok((error_bits(&got, &want), largest))
    }
}

/// Runs the command.
pub fn run(args: &PrefillArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let loaded = model::load(Some(&args.model))?;
    let window = loaded.calibration.context;
    let ids = prompt(&loaded, &args.data, window)?;
    let state = match &args.state {
        None => None,
        Some(folder) => {
            let begun = Begun {
                model: loaded.name.clone(),
                window: ids.clone(),
            };
            Some(State::open(folder, &begun)?)
        }
    };
    let start = Instant::now();
    let encrypted = session::prepare(&loaded.model, &loaded.calibration, display)?;
    let preparation_seconds = start.elapsed().as_secs_f64();

    let start = Instant::now();
    let client = match &state {
        Some(state) => Client::from_seed(
            encrypted.key_plan(),
            encrypted.params().clone(),
            &state.seed()?,
        ),
        None => Client::new(encrypted.key_plan(), encrypted.params().clone()),
    };
    let client = Vault::new(client.map_err(session::failure)?);
    let (mut server, key_bytes) = session::serve(&client, &encrypted, display)?;
    let keygen_seconds = start.elapsed().as_secs_f64();

    let rows: Vec<Vec<f32>> = {
        let m = loaded.model.embed(&ids).map_err(model::failure)?;
        (0..m.rows).map(|r| m.row(r).to_vec()).collect()
    };
    let (mut records, saved) = match &state {
        Some(state) => state.finished()?,
        None => (Vec::new(), None),
    };
    let mut x = match saved {
        Some(bytes) => server.read_state(&bytes).map_err(session::failure)?,
        None => {
            let prompt = client
                .with(|client| client.encrypt_prompt(&rows))?
                .map_err(session::failure)?;
            server.read_prompt(&prompt).map_err(session::failure)?
        }
    };
    let layers = encrypted.transformer().layers();
    let last = args.layers.unwrap_or(layers).min(layers);
    let mut clear = (!args.no_check).then(|| Clear::new(&encrypted, &rows));
    if let Some(clear) = &mut clear {
        for layer in 0..records.len() {
            interrupt::check()?;
            clear.layer(layer)?;
        }
    }
    let plan = encrypted.plan();
    let steps_of = |layers: std::ops::Range<usize>| {
        &plan.steps[plan.steps_before(layers.start)..plan.steps_before(layers.end)]
    };
    let predicted = |layers: std::ops::Range<usize>| -> f64 {
        steps_of(layers).iter().map(|s| s.predicted_seconds).sum()
    };
    let mut bar = display.planned(predicted(records.len()..last));
    for layer in records.len()..last {
        let start = Instant::now();
        let label = format!("layer {} of {layers}", layer + 1);
        let (mut bootstraps, mut key_switches) = (0, 0);
        x = server
            .run_layers(
                x,
                layer..layer + 1,
                &mut session::stoppable(&mut |progress| match progress {
                    Progress::Started { step } => bar.doing(&label, &plan.steps[step].name),
                    Progress::Finished {
                        step,
                        seconds,
                        counts,
                    } => {
                        bootstraps += counts.bootstraps;
                        key_switches += counts.key_switches;
                        tracing::info!(
                            "{label}: {} {seconds:.2} s ({:.2} predicted)",
                            plan.steps[step].name,
                            plan.steps[step].predicted_seconds
                        );
                        bar.finished(plan.steps[step].predicted_seconds, seconds);
                    }
                }),
                None,
            )
            .map_err(session::failure)?;
        let took = start.elapsed().as_secs_f64();
        let compared = match &mut clear {
            Some(clear) => {
                clear.layer(layer)?;
                Some(client.with(|client| clear.compare(client, &x))??)
            }
            None => None,
        };
        let record = LayerRecord {
            layer,
            seconds: took,
            predicted_seconds: predicted(layer..layer + 1),
            bootstraps,
            key_switches,
            error_bits: compared.and_then(|c| c.0),
            largest: compared.map(|c| c.1),
            threads: rayon::current_num_threads(),
        };
        bar.text(&format!(
            "layer {layer}: {} s{}\n",
            seconds(took),
            record
                .error_bits
                .map(|b| format!(", {b:.1} bits"))
                .unwrap_or_default()
        ));
        records.push(record);
        if let Some(state) = &state {
            state.keep(&records, &server.write_state(&x).map_err(session::failure)?)?;
        }
    }
    bar.end();
    let total: f64 = records.iter().map(|r| r.seconds).sum();
    let report = Report {
        model: loaded.name.clone(),
        tokens: window,
        layers,
        layers_done: records.len(),
        seconds: total,
        seconds_per_layer: total / records.len().max(1) as f64,
        keygen_seconds,
        key_messages: encrypted.key_plan().messages(),
        key_bytes,
        preparation_seconds,
        peak_rss_bytes: peak_rss_bytes(),
        records,
    };
    if global.json {
        return print_json(&report);
    }
    print(&report);
    Ok(())
}

/// The first window of the text.
pub(super) fn prompt(loaded: &Loaded, data: &[PathBuf], window: usize) -> Outcome<Vec<u32>> {
    let documents = text::documents(data)?;
    let documents = if documents.held_out.is_empty() {
        documents.training
    } else {
        documents.held_out
    };
    let tokens = text::Tokens::new(&loaded.tokenizer, &documents)?;
    tokens.windows(window, 1).pop().ok_or_else(|| {
        Failure::input(format!(
            "the text has {} tokens, a window has {window}; give more text with --data PATH",
            tokens.len()
        ))
    })
}

fn print(report: &Report) {
    let mut table = Table::new(&[
        "layer",
        "s",
        "predicted",
        "bootstraps",
        "key switches",
        "bits",
    ]);
    for r in &report.records {
        table.row(vec![
            r.layer.to_string(),
            seconds(r.seconds),
            seconds(r.predicted_seconds),
            r.bootstraps.to_string(),
            r.key_switches.to_string(),
            r.error_bits.map_or_else(String::new, |b| format!("{b:.1}")),
        ]);
    }
    print!("{}", table.render());
    println!(
        "\n{} tokens through {} of {} layers: {} s, {} s a layer; preparation {} s; {} keys of {} made in {} s; peak memory {}",
        report.tokens,
        report.layers_done,
        report.layers,
        seconds(report.seconds),
        seconds(report.seconds_per_layer),
        seconds(report.preparation_seconds),
        report.key_messages,
        bytes(report.key_bytes),
        seconds(report.keygen_seconds),
        report
            .peak_rss_bytes
            .map_or_else(|| "unknown".into(), bytes),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(token: u32) -> Begun {
        Begun {
            model: "m".into(),
            window: vec![1, token],
        }
    }

    fn record(layer: usize) -> LayerRecord {
        LayerRecord {
            layer,
            seconds: 1.0,
            predicted_seconds: 2.0,
            bootstraps: 3,
            key_switches: 4,
            error_bits: None,
            largest: None,
            threads: 2,
        }
    }

    #[test]
    fn a_state_folder_gives_back_what_was_kept() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &begun(2)).unwrap();
        let seed = state.seed().unwrap();
        assert_ne!(seed, [0; 32]);
        assert!(state.finished().unwrap().1.is_none());
        state.keep(&[record(0)], b"first").unwrap();
        state.keep(&[record(0), record(1)], b"second").unwrap();

        let state = State::open(folder.path(), &begun(2)).unwrap();
        assert_eq!(state.seed().unwrap(), seed);
        let (records, stream) = state.finished().unwrap();
        assert_eq!(
            (records.len(), stream.as_deref()),
            (2, Some(&b"second"[..]))
        );
        // the older stream is gone, and a stream without its record does not count
        assert!(!folder.path().join(State::stream_name(1)).exists());
        std::fs::write(folder.path().join(State::stream_name(3)), b"cut off").unwrap();
        assert_eq!(state.finished().unwrap().0.len(), 2);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.path().join("client.seed"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o077, 0);
        }
    }

    #[test]
    fn other_text_and_damage_are_refused_with_a_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::open(folder.path(), &begun(2)).unwrap();
        let message = State::open(folder.path(), &begun(3)).err().unwrap().message;
        assert!(message.contains("--state"), "{message}");
        std::fs::write(folder.path().join("client.seed"), [1; 7]).unwrap();
        let message = state.seed().err().unwrap().message;
        assert!(message.contains("7 bytes"), "{message}");
        std::fs::write(folder.path().join("layers.json"), "[{").unwrap();
        let message = state.finished().err().unwrap().message;
        assert!(message.contains("damaged"), "{message}");
        std::fs::write(folder.path().join("begun.json"), "{").unwrap();
        let message = State::open(folder.path(), &begun(2)).err().unwrap().message;
        assert!(message.contains("begun.json"), "{message}");
    }
}
