//! Models in memory and how they are read: Hugging Face folders (packed or master weights) and GGUF files.

mod assemble;
pub mod gguf;
pub mod hf;
mod random;
pub mod safetensors_shards;
mod save;

use std::path::{Path, PathBuf};

pub use save::save;

use crate::config::Config;
use crate::error::BitnetError;
use crate::ternary::{DenseMatrix, TernaryMatrix};
use crate::tokenizer::Tokenizer;

/// Weights of one transformer layer. Linear layers are `outputs x inputs`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerWeights {
    /// Gain of the input norm, `hidden_size` values.
    pub input_norm: Vec<f32>,
    /// Query projection, `hidden_size x hidden_size`.
    pub q: TernaryMatrix,
    /// Key projection, `kv_size x hidden_size`.
    pub k: TernaryMatrix,
    /// Value projection, `kv_size x hidden_size`.
    pub v: TernaryMatrix,
    /// Output projection, `hidden_size x hidden_size`.
    pub o: TernaryMatrix,
    /// Gain of the norm before `o`, `hidden_size` values.
    pub attn_sub_norm: Option<Vec<f32>>,
    /// `b_h` of sigmoid attention, one a query head (0 when the checkpoint has none).
    pub head_bias: Vec<f32>,
    /// Gain of the post-attention norm, `hidden_size` values.
    pub post_attention_norm: Vec<f32>,
    /// Gate projection, `intermediate_size x hidden_size`.
    pub gate: TernaryMatrix,
    /// Up projection, `intermediate_size x hidden_size`.
    pub up: TernaryMatrix,
    /// Down projection, `hidden_size x intermediate_size`.
    pub down: TernaryMatrix,
    /// Gain of the norm before `down`, `intermediate_size` values.
    pub ffn_sub_norm: Option<Vec<f32>>,
}

/// A model: configuration and all weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Sizes and choices.
    pub config: Config,
    /// Embedding table, `vocab_size x hidden_size`.
    pub embeddings: DenseMatrix,
    /// Untied head, `vocab_size x hidden_size`; `None` when the embedding table is the head.
    pub head: Option<DenseMatrix>,
    /// The layers, first to last.
    pub layers: Vec<LayerWeights>,
    /// Gain of the final norm, `hidden_size` values.
    pub final_norm: Vec<f32>,
}

impl Model {
    /// The matrix that turns final hidden states into logits.
    pub fn head(&self) -> &DenseMatrix {
        self.head.as_ref().unwrap_or(&self.embeddings)
    }
}

/// How the linear weights were stored and what was done to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WeightForm {
    /// Two-bit codes with a scale, taken as they are.
    Packed,
    /// Floating point, but already of the form scale x {-1, 0, 1}: taken as they are.
    TernaryFloats,
    /// Full-precision masters, ternarised while loading (absmean).
    Masters,
}

impl std::fmt::Display for WeightForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Packed => "packed ternary weights",
            Self::TernaryFloats => "ternary weights stored as floating point",
            Self::Masters => {
                "full-precision masters, ternarised while loading (absmean per matrix)"
            }
        })
    }
}

/// What was read and what was done to it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoadReport {
    /// Files that weights came from.
    pub files: Vec<PathBuf>,
    /// Container, such as "safetensors" or "GGUF version 3".
    pub container: String,
    /// The forms that linear weights were found in, each once.
    pub forms: Vec<WeightForm>,
    /// Stored types of linear weights with the number of matrices of each.
    pub types: Vec<(String, usize)>,
    /// Share of linear weights that are 0.
    pub zero_share: f64,
    /// Smallest and largest weight scale.
    pub scales: [f32; 2],
    /// What a user should know: unknown tensors, unusual statistics, assumptions made.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for LoadReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let forms: Vec<String> = self.forms.iter().map(WeightForm::to_string).collect();
        let types: Vec<String> = self
            .types
            .iter()
            .map(|(t, n)| format!("{n} of {t}"))
            .collect();
        writeln!(
            f,
            "{}: {} ({})",
            self.container,
            forms.join("; "),
            types.join(", ")
        )?;
        write!(
            f,
            "{:.1} % of linear weights are 0, scales {:.3e} to {:.3e}",
            100.0 * self.zero_share,
            self.scales[0],
            self.scales[1]
        )?;
        for warning in &self.warnings {
            write!(f, "\nwarning: {warning}")?;
        }
        Ok(())
    }
}

/// Reads a model: a folder with `config.json` and safetensors, a folder with one GGUF file, or a GGUF file.
///
/// # Errors
/// Names the file, the tensor or field, what was expected and found, and how to mend it. Damaged weights (all-zero matrices,
/// two-bit code 3, NaN, missing or inverted scales, missing sub-norms, wrong shapes) are refused.
pub fn load(path: &Path) -> Result<(Model, LoadReport), BitnetError> {
    match locate(path)? {
        Location::Folder(folder) => hf::load(&folder),
        Location::Gguf(file) => gguf::load(&file, gguf::I2sLayout::default()),
    }
}

/// Reads the tokenizer of a model: `tokenizer.json` in its folder (or beside the GGUF file), else the one inside the GGUF file;
/// and checks that it fits the model.
///
/// # Errors
/// When there is none, it is damaged, or it is another model's.
pub fn load_tokenizer(path: &Path, config: &Config) -> Result<Tokenizer, BitnetError> {
    let location = locate(path)?;
    let folder = match &location {
        Location::Folder(folder) => folder.as_path(),
        Location::Gguf(file) => file.parent().unwrap_or(Path::new(".")),
    };
    let file = folder.join("tokenizer.json");
    let tokenizer = match &location {
        Location::Gguf(gguf) if !file.is_file() => gguf::tokenizer(gguf)?,
        _ => Tokenizer::from_file(&file)?,
    };
    tokenizer.check(config)?;
    Ok(tokenizer)
}

enum Location {
    Folder(PathBuf),
    Gguf(PathBuf),
}

fn locate(path: &Path) -> Result<Location, BitnetError> {
    let is_gguf = |p: &Path| {
        p.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("gguf"))
    };
    let metadata = std::fs::metadata(path).map_err(|e| BitnetError::io(path, e))?;
    if metadata.is_file() && is_gguf(path) {
        return Ok(Location::Gguf(path.to_path_buf()));
    }
    if metadata.is_file() {
        return Err(BitnetError::format(
            path.display().to_string(),
            "is neither a model folder nor a GGUF file",
            "give a folder with config.json and model.safetensors, or a .gguf file",
        ));
    }
    if path.join("config.json").is_file() {
        return Ok(Location::Folder(path.to_path_buf()));
    }
    let entries = std::fs::read_dir(path).map_err(|e| BitnetError::io(path, e))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| is_gguf(p))
        .collect();
    match files.len() {
        1 => Ok(Location::Gguf(files.remove(0))),
        0 => Ok(Location::Folder(path.to_path_buf())),
        n => Err(BitnetError::format(
            path.display().to_string(),
            format!("holds {n} GGUF files"),
            "name the one to read",
        )),
    }
}
