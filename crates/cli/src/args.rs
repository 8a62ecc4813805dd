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
    /// Look into a model, print its logits, fit its polynomials
    Model {
        /// What to do with the model.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Print the figures of BENCHMARKS.md
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: BenchCommand,
    },
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
}

/// `tacit model inspect`
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// Model folder, or a GGUF file [default: the shipped model]
    pub model: Option<PathBuf>,
    /// Also print the plan of one encrypted forward pass: levels, ciphertexts, operations, predicted seconds
    #[arg(long)]
    pub plan: bool,
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

/// `tacit bench …`
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Bootstrapping at N = 2^16: seconds, error in bits, usable levels, key bytes
    #[command(after_help = "Example:\n  tacit bench bootstrap --runs 8 --json")]
    Bootstrap(BootstrapArgs),
    /// Ternary linear layer on coefficients: seconds for ring switch, mix and repack
    #[command(
        after_help = "Example:\n  tacit bench linear --d-in 1536 --d-out 1536 --tokens 128 --json"
    )]
    Linear(LinearArgs),
    /// Single operations of the engine at N = 2^16
    #[command(after_help = "Example:\n  tacit bench engine --json")]
    Engine(EngineArgs),
}

/// `tacit bench bootstrap`
#[derive(Debug, Args)]
pub struct BootstrapArgs {
    /// Number of bootstraps, each on fresh random inputs
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
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

/// `tacit bench engine`
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// Repetitions of each operation; the median is printed
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub runs: u32,
}
