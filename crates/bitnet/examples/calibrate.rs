//! Calibrates a model on folders of text or source files: `calibrate MODEL_FOLDER WINDOWS FOLDER...`.
//!
//! Four fifths of the windows are calibrated on, one fifth (of other packages) is held out to verify. Half of the windows start
//! at a document's beginning, half anywhere. Writes `calibration.json` into the model folder.

use std::path::PathBuf;

use tacit_bitnet::train::{Corpus, encode_corpus};
use tacit_bitnet::{CalibrationOptions, calibrate, checkpoint};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: calibrate MODEL_FOLDER WINDOWS FOLDER...";
    let folder = PathBuf::from(args.next().ok_or(usage)?);
    let count: usize = args.next().ok_or(usage)?.parse()?;
    let roots: Vec<PathBuf> = args.map(PathBuf::from).collect();
    let (model, report) = checkpoint::load(&folder)?;
    println!("{report}");
    let tokenizer = checkpoint::load_tokenizer(&folder, &model.config)?;
    let (text, held_out) = Corpus::read(&roots, &[])?.split(5);
    println!(
        "{} and {} documents",
        text.documents.len(),
        held_out.documents.len()
    );

    let context = model.config.context;
    let mut windows = Vec::new();
    for (corpus, share) in [(text, count - count / 5), (held_out, count / 5)] {
        let ids: Vec<u32> = encode_corpus(tokenizer.inner(), &corpus)?
            .into_iter()
            .map(u32::from)
            .collect();
        let last = ids.len().saturating_sub(context);
        for i in 0..share {
            let mut at = (last as u64 * i as u64 / share as u64) as usize;
            if i % 2 == 0 {
                // The next document's beginning.
                at += ids[at..last].iter().position(|id| *id == 0).unwrap_or(0);
            }
            windows.push(ids[at..at + context].to_vec());
        }
    }
    let start = std::time::Instant::now();
    let outcome = calibrate(&model, &windows, &CalibrationOptions::default())?;
    print!("{outcome}");
    println!("{:.0} s", start.elapsed().as_secs_f64());
    for (n, layer) in outcome.calibration.layers.iter().enumerate() {
        for (name, series) in layer.series() {
            println!(
                "layer {n} {name}: [{:.4}, {:.4}] degree {}",
                series.lo,
                series.hi,
                series.degree()
            );
        }
    }
    outcome.calibration.save(&folder.join("calibration.json"))?;
    Ok(())
}
