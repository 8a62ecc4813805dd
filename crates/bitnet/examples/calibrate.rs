//! Calibrates a model on text files: `calibrate MODEL_FOLDER TOKENS FILE...`; writes `calibration.json` into the folder.

use std::path::PathBuf;

use tacit_bitnet::{CalibrationOptions, calibrate, checkpoint};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: calibrate MODEL_FOLDER TOKENS FILE...";
    let folder = PathBuf::from(args.next().ok_or(usage)?);
    let tokens: usize = args.next().ok_or(usage)?.parse()?;
    let (model, report) = checkpoint::load(&folder)?;
    println!("{report}");
    let tokenizer = checkpoint::load_tokenizer(&folder, &model.config)?;
    let mut ids = Vec::new();
    for file in args {
        ids.extend(tokenizer.encode(&std::fs::read_to_string(file)?, false)?);
        if ids.len() >= tokens {
            break;
        }
    }
    ids.truncate(tokens);
    let windows: Vec<Vec<u32>> = ids
        .chunks_exact(model.config.context)
        .map(<[u32]>::to_vec)
        .collect();
    println!(
        "{} windows of {} tokens",
        windows.len(),
        model.config.context
    );
    let outcome = calibrate(&model, &windows, &CalibrationOptions::default())?;
    print!("{outcome}");
    outcome.calibration.save(&folder.join("calibration.json"))?;
    Ok(())
}
