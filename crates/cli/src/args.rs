//! Flags and commands. Help texts are the reference: every command shows an example.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

const EXIT_CODES: &str = "\
Exit codes:
  0    done
  1    other failure, for example a full disk
  2    usage: a flag or a prompt that cannot be served
  3    input: a file or folder that is missing, truncated or malformed
  4    mismatch: model, tokenizer, calibration or parameters do not belong together
  5    crypto: a key, ciphertext or message that is corrupt, or under another key or parameter set
  130  interrupted (Ctrl-C); secret keys were dropped

With --json, standard output holds exactly one JSON object, on failure {\"error\": {\"kind\", \"message\", \"code\"}}.
Progress and logs go to standard error.";

/// Ask a language model without telling it the question: BitNet computed on CKKS ciphertexts.
#[derive(Debug, Parser)]
#[command(name = "tacit", version, after_help = EXIT_CODES, propagate_version = true)]
pub struct Cli {
    /// Flags of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Flags that every command takes.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Log to standard error; twice for details. `TACIT_LOG` takes a filter such as `tacit_ckks=debug`
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Worker threads [default: all cores]. Results do not depend on it
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Encrypt a prompt, have a BitNet answer it on ciphertexts, decrypt and print the text token by token
    Ask(AskArgs),
    /// Turn documents into vectors under encryption: the model's hidden states, pooled
    Embed(EmbedArgs),
    /// Put documents into classes under encryption: a linear head on their vectors
    Classify(ClassifyArgs),
    /// Look into a model, print its logits, fit its polynomials
    Model {
        /// What to do with the model.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Train a BitNet with sigmoid attention on a folder of text or source files
    Train(TrainArgs),
    /// Train over clients that keep their text: adapters on a BitNet, brought together round by round
    Federate {
        /// What to do.
        #[command(subcommand)]
        command: crate::federate::args::FederateCommand,
    },
    /// Videos of people: real or forged, and what is wrong with them
    Inspect(crate::inspect::args::Inspect),
    /// Print the figures of BENCHMARKS.md
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
}

/// `tacit ask`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tacit ask \"The function returns\"
  tacit ask --tokens 4 --explain \"This crate provides\"
  echo \"The function returns\" | tacit ask -        (keeps the prompt out of the process list and the shell's history)
  tacit ask --json --check --tokens 1 \"Returns the\"

Client and server run in this process and exchange only serialised messages. The server part sees ciphertexts,
evaluation keys and the number of tokens; neither prompt nor answer.")]
pub struct AskArgs {
    /// The prompt; `-` reads it from standard input
    pub prompt: String,
    /// Number of new tokens
    #[arg(short = 'n', long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub tokens: u32,
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// How the next token is picked.
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// Print the plan before, and predicted against measured figures per step after
    #[arg(long)]
    pub explain: bool,
    /// Also run the clear model with the same polynomials on the same tokens; print agreement and error in bits
    #[arg(long)]
    pub check: bool,
    /// Compute only the new token from the second one on, over encrypted keys and values that the server keeps: faster, but the
    /// server learns the length of the prompt
    #[arg(long)]
    pub cache: bool,
}

/// The documents of `tacit embed` and `tacit classify`.
#[derive(Debug, Args)]
pub struct DocumentArgs {
    /// Documents, one each
    pub text: Vec<String>,
    /// File with one document a line; may be given several times
    #[arg(long, value_name = "FILE")]
    pub file: Vec<PathBuf>,
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Also run the clear model with the same polynomials; print the vectors' error in bits
    #[arg(long)]
    pub check: bool,
    /// Whether many documents are computed at once, one feature of all of them a ciphertext
    #[arg(long, value_enum, default_value = "auto")]
    pub batch: Batch,
    /// Most documents computed at once; 256 take about 16 GiB with the shipped model
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub at_once: u16,
}

/// Whether documents are computed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Batch {
    /// Where the plan says that it is faster
    Auto,
    /// Always; models that it does not work for are refused
    Always,
    /// One document after another
    Never,
}

/// How hidden states become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Mean over all tokens
    Mean,
    /// The last token's
    Last,
}

/// `tacit embed`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tacit embed \"Returns the number of elements.\" --json
  tacit embed --file documents.txt --pool last --check

Each document takes one pass over the window (64 tokens with the shipped model), longer ones several. The server sees
ciphertexts and the number of passes.")]
pub struct EmbedArgs {
    /// The documents.
    #[command(flatten)]
    pub documents: DocumentArgs,
    /// How hidden states become one vector
    #[arg(long, value_enum, default_value = "mean")]
    pub pool: Pool,
}

/// `tacit classify`
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  tacit classify --head head.json --file documents.txt

head.json: {\"labels\": [\"a\", \"b\"], \"weights\": [[…], […]], \"bias\": [0, 0], \"pool\": \"mean\"}, one row of hidden size for
each label. The head is applied after decryption: the server learns neither classes nor results.")]
pub struct ClassifyArgs {
    /// Linear head, JSON
    #[arg(long, value_name = "FILE")]
    pub head: PathBuf,
    /// The documents.
    #[command(flatten)]
    pub documents: DocumentArgs,
}

/// How the next token is picked from the logits, at the client, in the clear.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Softmax temperature; 0 always picks the likeliest token
    #[arg(long, default_value_t = 0.0, value_name = "T")]
    pub temperature: f64,
    /// Sample only among the K likeliest tokens
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Sample only among the likeliest tokens that together reach probability P
    #[arg(long, value_name = "P")]
    pub top_p: Option<f64>,
    /// Seed of the sampler (never of keys or noise, which come from the operating system)
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
}

/// `tacit model …`
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what is in a model folder or file, and what it would cost under encryption
    #[command(after_help = "\
Examples:
  tacit model inspect models/tacit-mini
  tacit model inspect --plan models/tacit-mini")]
    Inspect(InspectArgs),
    /// Run the model in the clear and print the logits of the next token
    #[command(after_help = "\
Examples:
  tacit model logits models/tacit-mini --ids 1,2,3 --json
  tacit model logits DIR --ids 1,2,3 --int8-activations --json")]
    Logits(LogitsArgs),
    /// Fit the encrypted model's polynomials to text, and write calibration.json into the model folder
    #[command(after_help = "\
Examples:
  tacit model calibrate models/tacit-mini --data docs/
  tacit model calibrate models/tacit-mini --cover-repetition --out calibration-wide.json")]
    Calibrate(CalibrateArgs),
    /// Give a softmax-trained model sigmoid attention without training it: a bias for every head, fitted to text; says what it costs
    #[command(after_help = "\
Example:
  tacit model sigmoid models/softmax --out models/sigmoid --data docs/
  tacit model calibrate models/sigmoid --data docs/")]
    Sigmoid(SigmoidArgs),
    /// Write a checkpoint with the shapes of a published model and random weights, to plan and time without a download
    #[command(after_help = "\
Examples:
  tacit model synth --like bitnet-large --layers 2 --out models/large-2
  tacit model calibrate models/large-2 --data docs/ --tokens 640 --context 128
  tacit model inspect models/large-2 --plan")]
    Synth(SynthArgs),
}

/// `tacit model sigmoid`
#[derive(Debug, Args)]
pub struct SigmoidArgs {
    /// Model folder, or a GGUF file, of a softmax-trained model
    pub model: PathBuf,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Divide each row of attention by its sum, as softmax does: loses next to nothing, for a level and a bootstrap more a layer
    #[arg(long)]
    pub normalised: bool,
    /// Folder or file of text to fit the biases to; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Number of tokens to look at
    #[arg(long, default_value_t = 32_768, value_name = "N")]
    pub tokens: usize,
    /// Window that the encrypted model will have [default: 64, or the model's context if that is shorter]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
}

/// `tacit model synth`
#[derive(Debug, Args)]
pub struct SynthArgs {
    /// Shape: bitnet-large (0.7 billion parameters, 24 layers) or bitnet-2b-4t (2.4 billion, 30 layers)
    #[arg(long, value_name = "NAME", value_parser = ["bitnet-large", "bitnet-2b-4t"])]
    pub like: String,
    /// Number of layers [default: those of the published model]
    #[arg(long, value_name = "K")]
    pub layers: Option<usize>,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of the weights
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
}

/// `tacit model inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Model folder, or a GGUF file [default: the shipped model]
    pub model: Option<PathBuf>,
    /// Also print the plan of one encrypted forward pass: levels, ciphertexts, operations, predicted seconds
    #[arg(long)]
    pub plan: bool,
    /// Plan for a window of N tokens, a power of two [default: the calibration's]
    #[arg(long, value_name = "N", requires = "plan")]
    pub tokens: Option<usize>,
    /// Plan for B prompts or documents, one after another under the same keys
    #[arg(long, value_name = "B", requires = "plan", default_value_t = 1)]
    pub batch: usize,
}

/// Which functions the clear model computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FunctionsArg {
    /// The model as it was trained
    Exact,
    /// Sigmoid attention, whatever the model was trained with; other functions exact
    Sigmoid,
    /// The encrypted model's polynomials, from calibration.json
    Polynomial,
}

/// `tacit model logits`
#[derive(Debug, Args)]
pub struct LogitsArgs {
    /// Model folder, or a GGUF file
    pub model: PathBuf,
    /// Token ids, separated by commas
    #[arg(long, value_delimiter = ',', required = true, value_name = "IDS")]
    pub ids: Vec<u32>,
    /// Quantise activations to 8 bits a token before each linear layer, as BitNet's own inference code does
    #[arg(long)]
    pub int8_activations: bool,
    /// Which functions to compute
    #[arg(long, value_enum, default_value = "exact")]
    pub functions: FunctionsArg,
}

/// `tacit model calibrate`
#[derive(Debug, Args)]
pub struct CalibrateArgs {
    /// Model folder
    pub model: PathBuf,
    /// File to write [default: calibration.json in the model folder]
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Folder or file of text to calibrate on; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Number of tokens to look at
    #[arg(long, default_value_t = 65_536, value_name = "N")]
    pub tokens: usize,
    /// Window that the encrypted model will have [default: 64, or the model's context if that is shorter]
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Largest relative increase of perplexity from exact functions to polynomials
    #[arg(long, default_value_t = 0.01, value_name = "SHARE")]
    pub perplexity_target: f64,
    /// Smallest share of tokens with the same likeliest next token
    #[arg(long, default_value_t = 0.0, value_name = "SHARE")]
    pub agreement_target: f64,
    /// Make the intervals cover answers that go in circles and repeated tokens too: N sequences of each kind [N is 128 if left out]. Costs bits of precision on ordinary text
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_value_t = 0, default_missing_value = "128", hide_default_value = true)]
    pub cover_repetition: usize,
    /// Write the file even if the targets are not met
    #[arg(long)]
    pub force: bool,
}

/// `tacit bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Bootstrapping at N = 2^16: seconds, error in bits, usable levels, key bytes
    #[command(
        after_help = "Examples:\n  tacit bench bootstrap --runs 8 --json\n  tacit bench bootstrap --log-slots 12 --threads 1"
    )]
    Bootstrap(BootstrapArgs),
    /// Bootstrapping with every preset, in one table
    #[command(after_help = "Example:\n  tacit bench presets --runs 4 --threads 1")]
    Presets(PresetsArgs),
    /// Ternary linear layer on coefficients: seconds for ring switch, mix and repack
    #[command(
        after_help = "Example:\n  tacit bench linear --d-in 1536 --d-out 1536 --tokens 128 --json"
    )]
    Linear(LinearArgs),
    /// Encrypted against clear next tokens, error of the hidden state, perplexities
    #[command(after_help = "\
Example:
  tacit bench agreement --prompts 64 --json")]
    Agreement(AgreementArgs),
    /// Encrypted prefill of a whole window layer by layer, with time and error of each; goes on after an interruption
    #[command(after_help = "\
Examples:
  tacit bench prefill models/tacit-mini --data README.md
  tacit bench prefill models/large --state prefill-large --data docs/
  tacit bench prefill models/large --state prefill-large --data docs/ --layers 4")]
    Prefill(PrefillArgs),
    /// Decode steps over an encrypted cache of keys and values: seconds and error of each token
    #[command(after_help = "\
Examples:
  tacit bench decode models/tacit-mini --data README.md --steps 2
  tacit bench decode models/large --data docs/ --cached 127")]
    Decode(DecodeArgs),
    /// Many documents at once, by columns: seconds a document, error, time of each step
    #[command(after_help = "\
Examples:
  tacit bench documents
  tacit bench documents --documents 64 --data docs --json")]
    Documents(DocumentsArgs),
    /// The claims of the ENSI paper beside this engine: ternary product, sigmoid attention, norm, bootstraps
    #[command(after_help = "Example:\n  tacit bench ensi --threads 1")]
    Ensi(EnsiArgs),
    /// Single operations of the engine at N = 2^16
    #[command(
        after_help = "Examples:\n  tacit bench engine --json\n  tacit bench engine --level 16 --threads 1 --others lattigo.json"
    )]
    Engine(EngineArgs),
}

/// `tacit bench bootstrap`
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// Preset: default, two-digits, fast-12 or precise
    #[arg(long, default_value = "default", value_name = "NAME")]
    pub preset: String,
    /// log2 of the number of complex slots [default: all, log2(N/2)]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u32).range(1..16))]
    pub log_slots: Option<u32>,
    /// Number of bootstraps, each on fresh random inputs
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

/// `tacit bench presets`
#[derive(Debug, Args)]
pub struct PresetsArgs {
    /// Number of bootstraps of each preset, each on fresh random inputs of 2^16 numbers
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

/// `tacit bench linear`
#[derive(Debug, Args)]
pub struct LinearArgs {
    /// Input features
    #[arg(long, default_value_t = 1536, value_name = "N")]
    pub d_in: usize,
    /// Output features
    #[arg(long, default_value_t = 1536, value_name = "N")]
    pub d_out: usize,
    /// Tokens (a power of two)
    #[arg(long, default_value_t = 128, value_name = "N")]
    pub tokens: usize,
    /// Bits of the words that are added: 64 adds residues as they are, 32 rounds them first (twice as fast, about 5 bits less)
    #[arg(long, default_value_t = 64, value_name = "BITS", value_parser = clap::value_parser!(u8).range(32..=64))]
    pub words: u8,
    /// Repetitions; the fastest is printed
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

/// `tacit bench agreement`
#[derive(Debug, Args)]
pub struct AgreementArgs {
    /// Number of prompts; the next token of each is compared
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub prompts: u32,
    /// Folder or file of text that prompts are cut from; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]. Of folders, only packages that training leaves out
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Windows of text for the perplexities
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub windows: usize,
    /// Seed that places the prompts in the text
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
    /// Only the clear figures: no encryption, seconds instead of an hour
    #[arg(long)]
    pub clear_only: bool,
}

/// `tacit bench prefill`
#[derive(Debug, Args)]
pub struct PrefillArgs {
    /// Model folder with calibration.json, whose window is filled
    pub model: PathBuf,
    /// Folder that keeps the encrypted state after every layer and the client's seed; the same command with the same folder goes on
    /// where it stopped, also after a kill [default: nothing is kept]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Stop after this many layers [default: all]
    #[arg(long, value_name = "K")]
    pub layers: Option<usize>,
    /// Folder or file of text whose first window is the prompt; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
    /// Leave out the comparison with the clear model
    #[arg(long)]
    pub no_check: bool,
}

/// `tacit bench decode`
#[derive(Debug, Args)]
pub struct DecodeArgs {
    /// Model folder with calibration.json
    pub model: PathBuf,
    /// Tokens in the cache before the first step; the client computes their keys and values in the clear and encrypts them, instead of an encrypted prefill [default: the window less the steps]
    #[arg(long, value_name = "N")]
    pub cached: Option<usize>,
    /// Decode steps
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub steps: u16,
    /// Slots of a feature in a step's vectors, all of the same token [default: 8, or 4 for wide models]
    #[arg(long, value_name = "S", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub slots: Option<u16>,
    /// Folder or file of text that the tokens are taken from; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
}

/// `tacit bench documents`
#[derive(Debug, Args)]
pub struct DocumentsArgs {
    /// Documents of the batch, each as long as the window
    #[arg(long, default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub documents: u16,
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Folder or file of text that the documents are cut from; may be given several times [default: documentation comments of the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "PATH")]
    pub data: Vec<PathBuf>,
}

/// `tacit bench ensi`
#[derive(Debug, Args)]
pub struct EnsiArgs {
    /// Repetitions of each operation; the median is taken
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

/// `tacit bench engine`
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Level of the ciphertexts: one less than their limbs
    #[arg(long, default_value_t = 23, value_name = "L")]
    pub level: usize,
    /// File with figures of other libraries to print beside, one JSON object a line: {"lib", "version", "case", "results":
    /// {operation: {"median": seconds}}}; may be given several times
    #[arg(long, value_name = "FILE")]
    pub others: Vec<PathBuf>,
    /// Measure other libraries first, with the scripts *.py of a folder (this repository's: bench), each under the first Python that has what it needs:
    /// folders in it with bin/python, then python3.10 and python3
    #[arg(long, value_name = "DIR")]
    pub anchors: Option<PathBuf>,
    /// Repetitions of each operation; the median is printed
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}

/// `tacit train`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tacit train --data ~/.cargo/registry/src --out models/mine --steps 2000 --seed 1
  tacit train --data ~/.cargo/registry/src --out models/mine --resume
  tacit train --data ~/.cargo/registry/src --out models/mine --resume --samples 10

Ctrl-C ends after the current step with a checkpoint; --resume goes on from there.")]
pub struct TrainArgs {
    /// Folder of text or source files (.rs, .md, .txt, .html); may be given several times
    #[arg(long, value_name = "DIR", required = true)]
    pub data: Vec<PathBuf>,
    /// Leave out paths that contain this; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub exclude: Vec<String>,
    /// Model folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Start from this model folder (or a run's checkpoint.safetensors) instead of random weights, with its sizes and tokenizer: for example to give a
    /// softmax-trained model sigmoid attention by a short run, after `tacit model sigmoid`
    #[arg(long, value_name = "MODEL")]
    pub from: Option<PathBuf>,
    /// Hidden size
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub hidden: usize,
    /// Transformer layers
    #[arg(long, default_value_t = 4, value_name = "N")]
    pub layers: usize,
    /// Attention heads
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub heads: usize,
    /// Feed-forward size
    #[arg(long, default_value_t = 512, value_name = "N")]
    pub ffn: usize,
    /// Vocabulary of the tokenizer
    #[arg(long, default_value_t = 2048, value_name = "N")]
    pub vocab: usize,
    /// Tokens of a sequence
    #[arg(long, default_value_t = 64, value_name = "N")]
    pub context: usize,
    /// Optimiser steps
    #[arg(long, default_value_t = 5000, value_name = "N")]
    pub steps: usize,
    /// Sequences of a step
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub batch: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 2e-3, value_name = "X")]
    pub lr: f64,
    /// Steps of linear warm-up
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub warmup: usize,
    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.1, value_name = "X")]
    pub weight_decay: f64,
    /// Seed of weights and batches
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
    /// Attention: sigmoid (can be evaluated under encryption) or softmax (for comparison)
    #[arg(long, default_value = "sigmoid", value_parser = ["sigmoid", "softmax"])]
    pub attention: String,
    /// Leave weights unquantised (for comparison)
    #[arg(long)]
    pub unquantised: bool,
    /// No penalties on ranges (for comparison)
    #[arg(long)]
    pub no_penalties: bool,
    /// Steps between checkpoints
    #[arg(long, default_value_t = 250, value_name = "N")]
    pub checkpoint_every: usize,
    /// Steps between validations
    #[arg(long, default_value_t = 250, value_name = "N")]
    pub validate_every: usize,
    /// Go on from the checkpoint in the model folder
    #[arg(long)]
    pub resume: bool,
    /// Print N samples of the checkpoint instead of training
    #[arg(long, default_value_t = 0, value_name = "N", requires = "resume")]
    pub samples: usize,
}
