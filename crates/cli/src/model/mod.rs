//! Model folders: where the default one is, and reading one with everything that belongs to it.

pub mod calibrate;
pub mod inspect;
pub mod logits;
pub mod sigmoid;
pub mod synth;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use tacit_bitnet::{BitnetError, Calibration, LoadReport, Model, Tokenizer};

use crate::exit::{Failure, Kind, Outcome, chain};

/// The shipped model, inside the executable: a binary that was copied somewhere else works.
const SHIPPED: [(&str, &[u8]); 4] = [
    (
        "config.json",
        include_bytes!("../../../../models/tacit-mini/config.json"),
    ),
    (
        "model.safetensors",
        include_bytes!("../../../../models/tacit-mini/model.safetensors"),
    ),
    (
        "tokenizer.json",
        include_bytes!("../../../../models/tacit-mini/tokenizer.json"),
    ),
    (
        "calibration.json",
        include_bytes!("../../../../models/tacit-mini/calibration.json"),
    ),
];

/// Where a model is read from.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    /// Keeps the unpacked shipped model until it has been read.
    unpacked: Option<TempDir>,
}

impl Source {
    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What to call it.
    pub fn name(&self) -> String {
        match self.unpacked {
            Some(_) => "tacit-mini (shipped)".into(),
            None => self.path.display().to_string(),
        }
    }
}

/// A model with its tokenizer and, where there is one, its calibration.
pub struct Loaded {
    /// What to call it.
    pub name: String,
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

/// The folder or file given, or the shipped model.
pub fn source(given: Option<&Path>) -> Outcome<Source> {
    if let Some(path) = given {
        return if path.exists() {
            Ok(Source {
                path: path.to_path_buf(),
                unpacked: None,
            })
        } else {
            Err(Failure::input(format!(
                "there is no model at {}; give a folder with config.json, model.safetensors, tokenizer.json and calibration.json",
                path.display()
            )))
        };
    }
    let unpack = || -> std::io::Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("tacit-mini-").tempdir()?;
        for (name, content) in SHIPPED {
            std::fs::write(folder.path().join(name), content)?;
        }
        Ok(folder)
    };
    let folder = unpack().map_err(|e| {
        Failure::input(format!(
            "cannot unpack the shipped model into {}: {e}; set TMPDIR to a folder with 2 MB of room, or give a model with --model DIR",
            std::env::temp_dir().display()
        ))
    })?;
    Ok(Source {
        path: folder.path().to_path_buf(),
        unpacked: Some(folder),
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
pub fn load(given: Option<&Path>) -> Outcome<Loaded> {
    let source = source(given)?;
    let path = source.path();
    let (model, _) = load_weights(path)?;
    let tokenizer = tokenizer(path, &model)?;
    let calibration = calibration(path, &model)?;
    Ok(Loaded {
        name: source.name(),
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
