//! Model folders: where the default one is, and reading one with everything that belongs to it.

pub mod calibrate;
pub mod inspect;
pub mod logits;

use std::path::{Path, PathBuf};

use tacit_bitnet::{BitnetError, Calibration, LoadReport, Model, Tokenizer};

use crate::exit::{Failure, Kind, Outcome, chain};

/// Folder of the shipped model, relative to the repository.
const SHIPPED: &str = "models/tacit-mini";

/// A model with its tokenizer and, where there is one, its calibration.
pub struct Loaded {
    /// Where it came from.
    pub path: PathBuf,
    /// The weights.
    pub model: Model,
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// Polynomials of the encrypted model.
    pub calibration: Calibration,
}

/// The kind of failure a model error is: what cannot be read is input, what does not fit together a mismatch.
pub fn failure(error: BitnetError) -> Failure {
    let kind = match &error {
        BitnetError::Io { .. }
        | BitnetError::Config { .. }
        | BitnetError::Tensor { .. }
        | BitnetError::Format { .. } => Kind::Input,
        BitnetError::Input { .. } => Kind::Usage,
        BitnetError::Tensors(_) => Kind::Other,
    };
    Failure::new(kind, chain(&error))
}

/// The folder given, or the shipped model: next to the current folder, else next to an ancestor of the executable, else
/// in the source tree the command was built from.
pub fn folder(given: Option<&Path>) -> Outcome<PathBuf> {
    if let Some(path) = given {
        return if path.exists() {
            Ok(path.to_path_buf())
        } else {
            Err(Failure::input(format!(
                "there is no model at {}; give a folder with config.json, model.safetensors, tokenizer.json and calibration.json",
                path.display()
            )))
        };
    }
    let mut candidates = vec![PathBuf::from(SHIPPED)];
    if let Ok(exe) = std::env::current_exe() {
        candidates.extend(exe.ancestors().skip(1).map(|a| a.join(SHIPPED)));
    }
    candidates.push(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(SHIPPED),
    );
    candidates.iter().find(|c| c.join("config.json").is_file()).cloned().ok_or_else(|| {
        Failure::input(format!(
            "the shipped model ({SHIPPED}) was found neither in the current folder nor beside the executable; give one with --model DIR"
        ))
    })
}

/// Reads weights only.
pub fn load_weights(path: &Path) -> Outcome<(Model, LoadReport)> {
    let (model, report) = tacit_bitnet::checkpoint::load(path).map_err(failure)?;
    for warning in &report.warnings {
        tracing::warn!("{}: {warning}", path.display());
    }
    Ok((model, report))
}

/// Reads and cross-checks weights, tokenizer and calibration.
pub fn load(path: &Path) -> Outcome<Loaded> {
    let (model, _) = load_weights(path)?;
    let tokenizer = tokenizer(path, &model)?;
    let calibration = calibration(path, &model)?;
    Ok(Loaded {
        path: path.to_path_buf(),
        model,
        tokenizer,
        calibration,
    })
}

/// Folder that the other files of a model lie in: the folder itself, or the one around a GGUF file.
fn beside(path: &Path) -> PathBuf {
    if path.is_dir() {
        path.to_path_buf()
    } else {
        path.parent().unwrap_or(Path::new(".")).to_path_buf()
    }
}

/// Reads the model's tokenizer and checks it against the embedding table.
pub fn tokenizer(path: &Path, model: &Model) -> Outcome<Tokenizer> {
    let tokenizer = Tokenizer::from_file(&beside(path).join("tokenizer.json")).map_err(failure)?;
    tokenizer
        .check(&model.config)
        .map_err(|e| Failure::new(Kind::Mismatch, chain(&e)))?;
    Ok(tokenizer)
}

/// Reads the model's calibration and checks it against the configuration.
pub fn calibration(path: &Path, model: &Model) -> Outcome<Calibration> {
    let file = beside(path).join("calibration.json");
    if !file.is_file() {
        return Err(Failure::input(format!(
            "{} is missing: encrypted inference needs polynomials fitted to the model; make them with `tacit model calibrate {} --data TEXT`",
            file.display(),
            path.display()
        )));
    }
    let text = std::fs::read_to_string(&file)
        .map_err(|e| Failure::input(format!("cannot read {}: {e}", file.display())))?;
    serde_json::from_str::<serde_json::Value>(&text).map_err(|e| {
        Failure::input(format!(
            "{} is not JSON: {e}; calibrate the model again",
            file.display()
        ))
    })?;
    Calibration::from_file(&file, &model.config)
        .map_err(|e| Failure::new(Kind::Mismatch, chain(&e)))
}
