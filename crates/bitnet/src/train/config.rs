//! What to train and how, and what can go wrong.

use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How attention weights come from logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttentionKind {
    /// `sigmoid(z - ln(i + 1) + b_h)`, no normalisation: what can be evaluated under encryption.
    Sigmoid,
    /// The usual softmax, for comparison.
    Softmax,
}

impl std::str::FromStr for AttentionKind {
    type Err = TrainError;
    fn from_str(s: &str) -> Result<Self, TrainError> {
        match s {
            "sigmoid" => Ok(Self::Sigmoid),
            "softmax" => Ok(Self::Softmax),
            _ => Err(TrainError::Config(format!(
                "attention is {s:?}: expected `sigmoid` or `softmax`"
            ))),
        }
    }
}

/// Small costs that keep intermediate values in ranges on which polynomials of low degree are accurate.
///
/// Each weight multiplies a mean squared excess over its free range; 0 switches the cost off.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Penalties {
    /// On `z + bias` outside [`logit_range`](Self::logit_range), over causal and masked entries (sigmoid attention only).
    pub logits: f32,
    /// The free range of `z + bias`.
    pub logit_range: (f32, f32),
    /// On `ln(mean square + eps)` before `attn_sub_norm` and `ffn_sub_norm`, outside [`norm_width`](Self::norm_width) around its running mean.
    pub norms: f32,
    /// Half width of the free range of `ln(mean square + eps)`.
    pub norm_width: f32,
    /// On gate pre-activations beyond [`gate_limit`](Self::gate_limit).
    pub gate: f32,
    /// Largest free magnitude of a gate pre-activation.
    pub gate_limit: f32,
    /// On normalised values beyond [`peak_limit`](Self::peak_limit) (all norms inside the layers).
    pub peaks: f32,
    /// Largest free magnitude of a normalised value.
    pub peak_limit: f32,
}

impl Default for Penalties {
    fn default() -> Self {
        Self {
            logits: 0.5,
            logit_range: (-8.0, 4.0),
            norms: 0.05,
            norm_width: 1.0,
            gate: 0.5,
            gate_limit: 5.0,
            peaks: 0.2,
            peak_limit: 8.0,
        }
    }
}

impl Penalties {
    /// No penalties at all.
    pub fn none() -> Self {
        Self {
            logits: 0.0,
            norms: 0.0,
            gate: 0.0,
            peaks: 0.0,
            ..Self::default()
        }
    }
}

/// Everything a training run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    /// Folders with text or source files.
    pub data: Vec<PathBuf>,
    /// Paths that contain one of these are not read.
    pub exclude: Vec<String>,
    /// Folder for the model, the checkpoint and the log.
    pub out: PathBuf,
    /// Hidden size.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; the head size is `hidden / heads`.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub ffn: usize,
    /// Tokenizer vocabulary.
    pub vocab: usize,
    /// Tokens in a training sequence; also the context of the model.
    pub context: usize,
    /// Optimiser steps.
    pub steps: usize,
    /// Sequences in a step.
    pub batch: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// The cosine ends at this fraction of the peak.
    pub lr_floor: f64,
    /// Steps of linear warm-up.
    pub warmup: usize,
    /// Decoupled weight decay of the linear layers.
    pub weight_decay: f64,
    /// Largest gradient norm.
    pub clip: f64,
    /// Seed of the initial weights and of the batches.
    pub seed: u64,
    /// Attention kind.
    pub attention: AttentionKind,
    /// Model folder, or training checkpoint, to start from instead of random weights: its sizes and tokenizer take the place of those above.
    #[serde(default)]
    pub from: Option<PathBuf>,
    /// Leave the linear weights unquantised, for comparison.
    pub unquantised: bool,
    /// Range penalties.
    pub penalties: Penalties,
    /// Epsilon of `attn_sub_norm` as a fraction of the typical mean square of its layer (measured while training, frozen
    /// after 4/5 of the steps).
    pub attn_eps_fraction: f32,
    /// Share of training sequences that start at the beginning of a document.
    pub aligned: f64,
    /// Percentage of package families kept for validation.
    pub validation_percent: u64,
    /// Steps between checkpoints.
    pub checkpoint_every: usize,
    /// Steps between validations.
    pub validate_every: usize,
    /// Continue from the checkpoint in `out` if there is one.
    pub resume: bool,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            data: Vec::new(),
            exclude: Vec::new(),
            out: PathBuf::from("model"),
            hidden: 256,
            layers: 4,
            heads: 8,
            ffn: 512,
            vocab: 2048,
            context: 64,
            steps: 5000,
            batch: 32,
            lr: 2e-3,
            lr_floor: 0.05,
            warmup: 100,
            weight_decay: 0.1,
            clip: 1.0,
            seed: 1,
            attention: AttentionKind::Sigmoid,
            from: None,
            unquantised: false,
            penalties: Penalties::default(),
            attn_eps_fraction: 0.01,
            aligned: 0.25,
            validation_percent: 5,
            checkpoint_every: 250,
            validate_every: 250,
            resume: false,
        }
    }
}

impl TrainConfig {
    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// [`TrainError::Config`] naming the first number that does not.
    pub fn check(&self) -> Result<(), TrainError> {
        let fail = |m: String| Err(TrainError::Config(m));
        for (name, v) in [
            ("hidden", self.hidden),
            ("layers", self.layers),
            ("heads", self.heads),
            ("ffn", self.ffn),
            ("context", self.context),
            ("steps", self.steps),
            ("batch", self.batch),
            ("checkpoint interval", self.checkpoint_every),
            ("validation interval", self.validate_every),
        ] {
            if v == 0 {
                return fail(format!("{name} is 0: expected at least 1"));
            }
        }
        if !self.hidden.is_multiple_of(2 * self.heads) {
            return fail(format!(
                "hidden {} is not a multiple of twice the {} heads: rotary pairs need an even head size",
                self.hidden, self.heads
            ));
        }
        if !self.hidden.is_multiple_of(4) || !self.ffn.is_multiple_of(4) {
            return fail(format!(
                "hidden {} and ffn {} must be multiples of 4: four ternary rows share a byte",
                self.hidden, self.ffn
            ));
        }
        if !(257..=65_536).contains(&self.vocab) {
            return fail(format!(
                "vocabulary {} is outside 257..=65536: 256 bytes and the end-of-text token are always in it",
                self.vocab
            ));
        }
        if !(self.lr > 0.0
            && self.lr.is_finite()
            && self.clip > 0.0
            && (0.0..=1.0).contains(&self.aligned))
        {
            return fail(format!(
                "learning rate {}, clip {}, aligned {}: expected positive, positive, within 0..=1",
                self.lr, self.clip, self.aligned
            ));
        }
        Ok(())
    }

    /// Size of one head.
    pub fn head(&self) -> usize {
        self.hidden / self.heads
    }
}

/// Errors of corpus reading, tokenizer training, training and export.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// The configuration contradicts itself.
    #[error("training configuration: {0}")]
    Config(String),
    /// A file or folder could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// No usable text below the given folders.
    #[error(
        "no documentation text found below {roots:?}: expected .rs, .md, .txt or .html files with prose"
    )]
    EmptyCorpus {
        /// The folders that were read.
        roots: Vec<PathBuf>,
    },
    /// Fewer tokens than one sequence.
    #[error(
        "{what} text has {found} tokens, at least {needed} are needed: add text or lower the context"
    )]
    TooLittleText {
        /// Training or validation.
        what: &'static str,
        /// Tokens found.
        found: usize,
        /// Tokens needed.
        needed: usize,
    },
    /// The tokenizer could not be trained or used.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A checkpoint is damaged or belongs to another run.
    #[error("checkpoint {}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The loss stopped being a number.
    #[error("the loss became {loss} at step {step}: lower the learning rate")]
    Diverged {
        /// The step.
        step: usize,
        /// The loss.
        loss: f64,
    },
    /// Tensor arithmetic failed.
    #[error("tensors: {0}")]
    Candle(#[from] candle_core::Error),
    /// A model file could not be written.
    #[error("safetensors: {0}")]
    Safetensors(#[from] safetensors::SafeTensorError),
    /// A JSON file could not be read or written.
    #[error("json: {0}")]
    Json(#[from] serde_json::Error),
}

impl TrainError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }
}
