//! Flags of `tacit federate`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `tacit federate …`
#[derive(Debug, Subcommand)]
pub enum FederateCommand {
    /// Deal text out to clients: one folder of documents per client
    #[command(after_help = "\
Examples:
  tacit federate partition --clients 8 --out parts
  tacit federate partition --from DIR --clients 16 --split dirichlet --alpha 0.3 --out parts
  tacit federate partition --from DIR --clients 8 --text code --max-bytes 200000 --out parts")]
    Partition(PartitionArgs),
    /// Run a federation with all parties in this process
    #[command(after_help = "\
Examples:
  tacit federate run --compare
  tacit federate run examples/federate.toml --out runs/first
  tacit federate run examples/federate.toml --out runs/first --resume

Without CONFIG the shipped configuration is run (examples/federate.toml). Ctrl-C stops after the work at hand; --resume goes on from the last
finished round and ends with the same model as an undisturbed run.")]
    Run(RunArgs),
}

/// How documents are dealt out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SplitArg {
    /// One family of packages a client, those with most text first
    Family,
    /// One folder a client; of a single folder, whole packages in even parts
    Source,
    /// Every family in shares drawn from a Dirichlet distribution
    Dirichlet,
}

/// What of the files is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum TextArg {
    /// Documentation comments, Markdown, plain text, HTML paragraphs
    Docs,
    /// Rust code without its comments
    Code,
}

/// `tacit federate partition`
#[derive(Debug, Args)]
pub struct PartitionArgs {
    /// Folder of text or source files; may be given several times [default: the dependency sources in cargo's registry folder]
    #[arg(long, value_name = "DIR")]
    pub from: Vec<PathBuf>,
    /// Number of clients
    #[arg(long, default_value_t = 8, value_name = "K")]
    pub clients: usize,
    /// How documents are dealt out
    #[arg(long, value_enum, default_value = "family")]
    pub split: SplitArg,
    /// What of the files is taken
    #[arg(long, value_enum, default_value = "docs")]
    pub text: TextArg,
    /// Concentration of the Dirichlet split: small means clients unlike each other
    #[arg(long, default_value_t = 0.5, value_name = "X")]
    pub alpha: f64,
    /// Leave out paths that contain this; may be given several times
    #[arg(long, value_name = "TEXT")]
    pub exclude: Vec<String>,
    /// Leave out packages that this list marks as `training` (corpus.txt beside a model)
    #[arg(long, value_name = "FILE")]
    pub unseen_by: Option<PathBuf>,
    /// Most bytes of text a client keeps; 0 for no limit
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub max_bytes: usize,
    /// Seed of the Dirichlet split
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `tacit federate run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// Configuration in TOML [default: the shipped one]
    pub config: Option<PathBuf>,
    /// Folder of the run, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Number of rounds, instead of the configuration's
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
    /// Go on from the checkpoint in the run's folder
    #[arg(long)]
    pub resume: bool,
    /// Also train each client alone and one model on all text, and compare
    #[arg(long)]
    pub compare: bool,
}
