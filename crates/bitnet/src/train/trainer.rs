//! The training loop.

use super::checkpoint::{self, State};
use super::model::Network;
use super::optimiser::{AdamW, learning_rate};
use super::{
    Corpus, TokenData, TrainConfig, TrainError, encode_corpus, train_tokenizer, write_model,
};
use serde_json::json;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokenizers::Tokenizer;

/// Windows used for validation while training.
const QUICK_WINDOWS: usize = 256;
/// Windows used for the final validation.
const FINAL_WINDOWS: usize = 1920;
/// Steps between log lines.
const LOG_EVERY: usize = 10;

/// Where a run stands, passed to the progress callback after every step.
#[derive(Clone, Debug)]
pub struct Progress {
    /// Steps done.
    pub step: usize,
    /// Steps in the run.
    pub steps: usize,
    /// Smoothed cross-entropy, nats per token.
    pub loss: f64,
    /// Weighted penalties of this step: attention logits, norms, gate.
    pub penalties: [f64; 3],
    /// Gradient norm before clipping.
    pub gradient_norm: f64,
    /// Learning rate of this step.
    pub lr: f64,
    /// Training tokens per second since the start or the resumption.
    pub tokens_per_second: f64,
    /// Estimated time to the end.
    pub remaining: Duration,
    /// Validation perplexity, on steps that measured it.
    pub validation: Option<f64>,
}

/// What a finished or interrupted run amounts to.
#[derive(Clone, Debug)]
pub struct TrainSummary {
    /// Steps done in total.
    pub steps: usize,
    /// Whether the callback ended the run early (it can be resumed).
    pub interrupted: bool,
    /// Perplexity on validation text of the network as exported.
    pub validation_perplexity: f64,
    /// Tokens that perplexity is measured on.
    pub validation_tokens: usize,
    /// Tokens of training text.
    pub train_tokens: usize,
    /// Folder of the exported model.
    pub model: PathBuf,
}

/// A network with its text, optimiser state and position in the schedule.
#[derive(Debug)]
pub struct Trainer {
    config: TrainConfig,
    tokenizer: Tokenizer,
    train: TokenData,
    valid: TokenData,
    /// The network.
    pub network: Network,
    adam: AdamW,
    step: usize,
    smoothed: f64,
}

impl Trainer {
    /// Reads the text (or, when resuming, the prepared text in `out/data`), trains the tokenizer and makes or loads the network.
    ///
    /// # Errors
    /// Whatever is wrong with configuration, folders, text or checkpoint.
    pub fn new(mut config: TrainConfig) -> Result<Self, TrainError> {
        let given = config.from.as_deref().map(Given::read).transpose()?;
        if let Some(given) = &given {
            let s = &given.network.sizes;
            config = TrainConfig {
                hidden: s.hidden,
                layers: s.layers,
                heads: s.heads,
                ffn: s.ffn,
                vocab: s.vocab,
                context: config.context.min(s.context),
                ..config
            };
        }
        config.check()?;
        let data = config.out.join("data");
        let checkpoint = config.out.join("checkpoint.safetensors");
        let resume = config.resume && checkpoint.is_file();
        if !resume {
            prepare_text(&config, given.as_ref().map(|g| &g.tokenizer), &data)?;
        }
        let tokenizer = Tokenizer::from_file(data.join("tokenizer.json"))
            .map_err(|e| TrainError::Tokenizer(e.to_string()))?;
        let (train, valid) = (
            TokenData::read(&data.join("train.bin"))?,
            TokenData::read(&data.join("valid.bin"))?,
        );
        for (what, d) in [("training", &train), ("validation", &valid)] {
            if d.len() <= config.context {
                return Err(TrainError::TooLittleText {
                    what,
                    found: d.len(),
                    needed: config.context + 1,
                });
            }
        }
        let (network, adam, step, smoothed) = if resume {
            let (n, a, s) = checkpoint::load(&checkpoint, &config)?;
            (n, a, s.step, s.smoothed)
        } else {
            let n = match given {
                Some(given) => given.start(&config)?,
                None => Network::new(&config),
            };
            let a = AdamW::new(&n);
            (n, a, 0, 0.0)
        };
        Ok(Self {
            config,
            tokenizer,
            train,
            valid,
            network,
            adam,
            step,
            smoothed,
        })
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Steps done so far.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// One optimiser step. Returns (loss, penalties, gradient norm, learning rate).
    fn step(&mut self) -> Result<(f64, [f64; 3], f64, f64), TrainError> {
        let c = &self.config;
        let (inputs, targets) = self
            .train
            .batch(c.seed, self.step, c.batch, c.context, c.aligned);
        let out = self.network.step(&inputs, &targets, &c.penalties)?;
        if !out.loss.is_finite() {
            return Err(TrainError::Diverged {
                step: self.step,
                loss: out.loss,
            });
        }
        let lr = learning_rate(self.step, c.steps, c.warmup, c.lr, c.lr_floor);
        let norm = self.adam.update(
            &mut self.network,
            &out.gradients,
            self.step,
            lr,
            c.weight_decay,
            c.clip,
        )?;
        self.network
            .update_norms(&out, c.attn_eps_fraction, self.step * 5 >= c.steps * 4);
        let keep = if self.step == 0 { 0.0 } else { 0.98 };
        self.smoothed = keep * self.smoothed + (1.0 - keep) * out.loss;
        self.step += 1;
        Ok((out.loss, out.penalties, norm, lr))
    }

    /// Perplexity of the network as it would be exported, on up to `limit` validation windows, and the tokens measured.
    ///
    /// # Errors
    /// [`TrainError::Candle`] when tensor arithmetic fails.
    pub fn validate(&self, limit: usize) -> Result<(f64, usize), TrainError> {
        let windows = self.valid.windows(self.config.context, limit);
        let tokens = windows.len() * self.config.context;
        let loss = self
            .network
            .as_exported()
            .total_loss(&windows, self.config.batch)?;
        Ok(((loss / tokens as f64).exp(), tokens))
    }

    fn save(&self) -> Result<(), TrainError> {
        let state = State {
            step: self.step,
            smoothed: self.smoothed,
            norms: self.network.norms.clone(),
            config: self.config.clone(),
        };
        checkpoint::save(
            &self.config.out.join("checkpoint.safetensors"),
            &self.network,
            &self.adam,
            &state,
        )
    }

    /// Writes the model folder `out/model`.
    ///
    /// # Errors
    /// [`TrainError::Io`] when a file cannot be written.
    pub fn export(&self) -> Result<PathBuf, TrainError> {
        let dir = self.config.out.join("model");
        write_model(&dir, &self.network, &self.tokenizer)?;
        Ok(dir)
    }

    /// Runs to the end of the schedule, or until `progress` breaks, then saves and exports.
    ///
    /// # Errors
    /// As for [`Trainer::new`], and [`TrainError::Diverged`].
    pub fn run(
        mut self,
        mut progress: impl FnMut(&Progress) -> ControlFlow<()>,
    ) -> Result<TrainSummary, TrainError> {
        let c = self.config.clone();
        let log_path = c.out.join("log.jsonl");
        let mut log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log_path)
            .map_err(|e| TrainError::io(&log_path, e))?;
        let (start, first) = (Instant::now(), self.step);
        let mut interrupted = false;
        while self.step < c.steps {
            let (loss, penalties, gradient_norm, lr) = self.step()?;
            let seconds = start.elapsed().as_secs_f64();
            let per_step = seconds / (self.step - first) as f64;
            let validation = if self.step.is_multiple_of(c.validate_every) {
                Some(self.validate(QUICK_WINDOWS)?.0)
            } else {
                None
            };
            let p = Progress {
                step: self.step,
                steps: c.steps,
                loss: self.smoothed,
                penalties,
                gradient_norm,
                lr,
                tokens_per_second: (c.batch * c.context) as f64 / per_step,
                remaining: Duration::from_secs_f64(per_step * (c.steps - self.step) as f64),
                validation,
            };
            if self.step.is_multiple_of(LOG_EVERY) || validation.is_some() {
                let line = json!({"step": p.step, "loss": loss, "smoothed": p.loss, "penalties": penalties, "gradient_norm": gradient_norm, "lr": lr,
                    "tokens_per_second": p.tokens_per_second, "validation_perplexity": validation, "attn_sub_norm_eps": self.network.norms.attn_eps});
                writeln!(log, "{line}").map_err(|e| TrainError::io(&log_path, e))?;
            }
            if self.step.is_multiple_of(c.checkpoint_every) {
                self.save()?;
            }
            if progress(&p).is_break() && self.step < c.steps {
                interrupted = true;
                break;
            }
        }
        self.save()?;
        let model = self.export()?;
        let (validation_perplexity, validation_tokens) = self.validate(FINAL_WINDOWS)?;
        Ok(TrainSummary {
            steps: self.step,
            interrupted,
            validation_perplexity,
            validation_tokens,
            train_tokens: self.train.len(),
            model,
        })
    }
}

/// What a run starts from instead of random weights.
struct Given {
    network: Network,
    tokenizer: Tokenizer,
    /// Whether the weights are the few values of a model folder, and not the masters of a training run.
    ternary: bool,
}

impl Given {
    /// A model folder (or GGUF file) with `tokenizer.json` beside the weights, or the `checkpoint.safetensors` of a training run with its `data` folder.
    fn read(path: &Path) -> Result<Self, TrainError> {
        let is_checkpoint = path
            .file_name()
            .is_some_and(|name| name == "checkpoint.safetensors");
        let folder = if path.is_dir() {
            path
        } else {
            path.parent().unwrap_or(path)
        };
        let (network, tokenizer) = if is_checkpoint {
            (
                Network::from_checkpoint(path)?,
                folder.join("data/tokenizer.json"),
            )
        } else {
            let (model, _) = crate::checkpoint::load(path)
                .map_err(|e| TrainError::Config(format!("{}: {e}", path.display())))?;
            (Network::from_model(&model)?, folder.join("tokenizer.json"))
        };
        let tokenizer = Tokenizer::from_file(&tokenizer)
            .map_err(|e| TrainError::Tokenizer(format!("{}: {e}", tokenizer.display())))?;
        Ok(Self {
            network,
            tokenizer,
            ternary: !is_checkpoint,
        })
    }

    /// The network to train, with the attention and quantisation of the configuration.
    fn start(self, config: &TrainConfig) -> Result<Network, TrainError> {
        let mut network = self.network;
        if self.ternary && !config.unquantised {
            network.make_masters(config.seed)?;
        }
        network.set_quantised(!config.unquantised);
        network.sizes.attention = config.attention;
        network.sizes.context = config.context;
        Ok(network)
    }
}

/// Reads the corpus, trains the tokenizer if there is none, and leaves tokenizer, token streams and the list of packages in `dir`.
fn prepare_text(
    config: &TrainConfig,
    tokenizer: Option<&Tokenizer>,
    dir: &Path,
) -> Result<(), TrainError> {
    std::fs::create_dir_all(dir).map_err(|e| TrainError::io(dir, e))?;
    let corpus = Corpus::read(&config.data, &config.exclude)?;
    let packages = corpus.packages();
    let (train, valid) = corpus.split(config.validation_percent);
    let held_out = valid.packages();
    let mut list = String::from("# package, bytes of text taken, part\n");
    for (p, n) in &packages {
        list += &format!(
            "{p} {n} {}\n",
            if held_out.contains_key(p) {
                "validation"
            } else {
                "training"
            }
        );
    }
    let path = dir.join("corpus.txt");
    std::fs::write(&path, list).map_err(|e| TrainError::io(&path, e))?;
    if valid.documents.is_empty() || train.documents.is_empty() {
        let what = if train.documents.is_empty() {
            "training"
        } else {
            "validation"
        };
        return Err(TrainError::TooLittleText {
            what,
            found: 0,
            needed: config.context + 1,
        });
    }
    let tokenizer = match tokenizer {
        Some(tokenizer) => tokenizer.clone(),
        None => train_tokenizer(&train, config.vocab)?,
    };
    tokenizer
        .save(dir.join("tokenizer.json"), true)
        .map_err(|e| TrainError::Tokenizer(e.to_string()))?;
    for (name, part) in [("train.bin", &train), ("valid.bin", &valid)] {
        TokenData::new(encode_corpus(&tokenizer, part)?).write(&dir.join(name))?;
    }
    Ok(())
}

/// Trains a model as `config` says; `progress` is called after every step and ends the run by returning
/// [`ControlFlow::Break`] (checkpoint and model are still written).
///
/// # Errors
/// As for [`Trainer::new`] and [`Trainer::run`].
pub fn train(
    config: &TrainConfig,
    progress: impl FnMut(&Progress) -> ControlFlow<()>,
) -> Result<TrainSummary, TrainError> {
    Trainer::new(config.clone())?.run(progress)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(dir: &Path, out: &str) -> TrainConfig {
        let data = dir.join("data");
        if !data.exists() {
            let verbs = ["Returns", "Creates", "Removes", "Reads", "Writes", "Counts"];
            let nouns = [
                "the length",
                "a vector",
                "the first element",
                "an iterator",
                "the next value",
                "some bytes",
            ];
            for name in ["alpha-1.0.0", "beta-1.0.0", "gamma-1.0.0", "delta-1.0.0"] {
                std::fs::create_dir_all(data.join(name)).unwrap();
                let text: String = (0..200)
                    .map(|i| {
                        format!(
                            "{} {} of {} {} in this list.\n\n",
                            verbs[i % 6],
                            nouns[i / 6 % 6],
                            nouns[i / 3 % 6],
                            &name[..name.len() - 6]
                        )
                    })
                    .collect();
                std::fs::write(data.join(name).join("a.md"), text).unwrap();
            }
        }
        TrainConfig {
            data: vec![data],
            out: dir.join(out),
            hidden: 32,
            layers: 2,
            heads: 2,
            ffn: 48,
            vocab: 290,
            context: 16,
            steps: 60,
            batch: 8,
            warmup: 5,
            lr: 1e-2,
            validation_percent: 40,
            checkpoint_every: 20,
            validate_every: 30,
            ..TrainConfig::default()
        }
    }

    fn masters(c: &TrainConfig) -> Vec<u8> {
        let bytes = std::fs::read(c.out.join("checkpoint.safetensors")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let mut names = file.names();
        names.sort_unstable();
        names
            .iter()
            .flat_map(|n| file.tensor(n).unwrap().data().to_vec())
            .collect()
    }

    #[test]
    fn training_learns_and_an_interrupted_run_resumes_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let whole = config(dir.path(), "whole");
        let mut losses = Vec::new();
        let summary = train(&whole, |p| {
            losses.push(p.loss);
            ControlFlow::Continue(())
        })
        .unwrap();
        assert_eq!((summary.steps, summary.interrupted), (60, false));
        assert!(
            losses[0] > 5.0 && losses[59] < 4.0,
            "{} -> {}",
            losses[0],
            losses[59]
        );
        assert!(
            summary.validation_perplexity < 60.0,
            "{}",
            summary.validation_perplexity
        );
        assert!(summary.model.join("config.json").is_file());

        let mut parts = config(dir.path(), "parts");
        let first = train(&parts, |p| {
            if p.step == 33 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .unwrap();
        assert_eq!((first.steps, first.interrupted), (33, true));
        parts.resume = true;
        train(&parts, |_| ControlFlow::Continue(())).unwrap();
        assert!(masters(&whole) == masters(&parts));

        // A softmax twin goes on with sigmoid attention, from its folder and from its masters; its sizes and tokenizer are kept.
        let softmax = TrainConfig {
            attention: crate::train::AttentionKind::Softmax,
            ..config(dir.path(), "softmax")
        };
        let before = train(&softmax, |_| ControlFlow::Continue(())).unwrap();
        for (name, from) in [
            ("folder", before.model.clone()),
            ("masters", softmax.out.join("checkpoint.safetensors")),
        ] {
            let tuned = TrainConfig {
                from: Some(from),
                hidden: 64,
                steps: 30,
                lr: 3e-3,
                ..config(dir.path(), name)
            };
            let mut first = None;
            let after = train(&tuned, |p| {
                first.get_or_insert(p.loss);
                ControlFlow::Continue(())
            })
            .unwrap();
            let first = first.unwrap();
            let (old, new) = (before.validation_perplexity, after.validation_perplexity);
            assert!(first < 3.0, "{name} began at {first}, as if from nothing");
            assert!(new < 1.3 * old, "{name}: perplexity {old} -> {new}");
            let (model, _) = crate::checkpoint::load(&after.model).unwrap();
            assert_eq!(model.config.hidden_size, 32);
            assert_eq!(model.config.attention, crate::Attention::Sigmoid);
            let tokenizer = |c: &TrainConfig| std::fs::read(c.out.join("data/tokenizer.json"));
            assert!(tokenizer(&tuned).unwrap() == tokenizer(&softmax).unwrap());
        }
        assert!(
            Trainer::new(TrainConfig {
                from: Some(dir.path().join("nothing")),
                ..config(dir.path(), "none")
            })
            .is_err()
        );

        parts.lr *= 2.0;
        assert!(matches!(
            Trainer::new(parts.clone()),
            Err(TrainError::Checkpoint { .. })
        ));
        std::fs::write(parts.out.join("checkpoint.safetensors"), b"junk").unwrap();
        assert!(matches!(
            Trainer::new(parts),
            Err(TrainError::Checkpoint { .. })
        ));
    }
}
