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
  tacit federate run examples/federate.toml --out runs/first --overwrite
  tacit federate run examples/federate-few.toml --set data.train_limit=16 --set method.kind=prompt
  tacit federate run examples/federate-head.toml --compare         (the head of `tacit inspect`, on tables of features)

Without CONFIG the shipped configuration is run (examples/federate.toml). Ctrl-C stops after the work at hand; the same command goes on from
the last finished round and ends with the same model as an undisturbed run. In a folder with another run it is refused: give --out or --overwrite.")]
    Run(RunArgs),
    /// Coordinate a federation whose nodes are elsewhere, as the ServerApp of a Flower SuperLink
    #[command(after_help = "\
Examples:
  tacit federate coordinate run.toml --superlink http://127.0.0.1:8000
  tacit federate coordinate run.toml --superlink https://link.example:8000 --root-certificate ca.crt

The SuperLink runs with `--isolation process`, so that it leaves its ServerApp to this command, and a run is submitted with `flwr run` (which
app it names does not matter). The configuration is the one that `tacit federate run` takes; the text is the nodes'.")]
    Coordinate(CoordinateArgs),
    /// Be one client of a federation, as a node of a Flower SuperLink
    #[command(after_help = "\
Examples:
  tacit federate node run.toml --client 3 --superlink http://127.0.0.1:8000
  tacit federate node run.toml --client 3 --superlink https://link.example:8000 --root-certificate ca.crt --key node.pem --registered
  tacit federate node run.toml --client 3 --supernode http://127.0.0.1:9094
  tacit federate node run.toml --client 3 --identity client-3.key --show-identity

The coordinator may be `tacit federate coordinate` or a Python ServerApp with Flower's strategies. With --supernode, a stock `flower-supernode
--isolation process` does the talking and this command the work.")]
    Node(NodeArgs),
    /// Attack a federation, with its protections and without
    #[command(after_help = "\
Examples:
  tacit federate audit
  tacit federate audit --attack rules --attack aggregator
  tacit federate audit CONFIG.toml --json

Without CONFIG, inversion is played against the shipped federation (examples/federate.toml), membership and canary against a small one that
memorises (examples/audit.toml); with CONFIG, all three against that. The attacks on rules and on secure aggregation have their own task.")]
    Audit(AuditArgs),
    /// Take a client out of a finished run
    #[command(after_help = "\
Examples:
  tacit federate forget 3 runs/first.toml
  tacit federate forget 3 runs/first.toml --way subtract

The run must have kept its history (`history = true` in its configuration). The model without the client, and a signed certificate, are written
to the folder forgotten-CLIENT in the run's folder.")]
    Forget(ForgetArgs),
    /// Mark a model for a recipient, or look for a mark
    Watermark {
        /// What to do.
        #[command(subcommand)]
        command: WatermarkCommand,
    },
}

/// `tacit federate coordinate`
#[derive(Debug, Args)]
pub struct CoordinateArgs {
    /// Configuration in TOML, the same as the nodes'
    pub config: PathBuf,
    /// The SuperLink
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8000")]
    pub superlink: String,
    /// Certificate of the authority that signed the SuperLink's, PEM
    #[arg(long, value_name = "FILE")]
    pub root_certificate: Option<PathBuf>,
    /// Number of clients [default: the configuration's]
    #[arg(long, value_name = "N")]
    pub clients: Option<usize>,
    /// Folder of the run, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Go on from the checkpoint in the run's folder; this is what happens without the flag too
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Begin anew where the folder already holds a run
    #[arg(long)]
    pub overwrite: bool,
    /// Longest wait in seconds for the answers of a step, without clock.deadline in the configuration; who has not answered is asked again
    #[arg(long, default_value_t = 600, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub deadline: u64,
    /// How many seconds a round waits for clients that were there and do not answer, without clock.deadline in the configuration; then it goes on without them
    #[arg(long, default_value_t = 1800, value_name = "S", value_parser = clap::value_parser!(u64).range(1..))]
    pub silence: u64,
    /// Longest wait in seconds for a run to be submitted, and for nodes to come
    #[arg(long, default_value_t = 600, value_name = "S")]
    pub wait: u64,
}

/// `tacit federate node`
#[derive(Debug, Args)]
pub struct NodeArgs {
    /// Configuration in TOML, the same as the coordinator's
    pub config: PathBuf,
    /// Number of the client whose text this node holds, from 0
    #[arg(long, value_name = "K")]
    pub client: usize,
    /// The SuperLink
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8000",
        conflicts_with = "supernode"
    )]
    pub superlink: String,
    /// A stock SuperNode that does the talking, instead of a SuperLink
    #[arg(long, value_name = "URL")]
    pub supernode: Option<String>,
    /// Certificate of the authority that signed the SuperLink's, PEM
    #[arg(long, value_name = "FILE")]
    pub root_certificate: Option<PathBuf>,
    /// The node's P-384 key, PEM; made when it is not there [default: node-K.pem in the run's folder]
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The SuperLink authenticates nodes and its operator has registered this key
    #[arg(long)]
    pub registered: bool,
    /// Ed25519 key that signs this client's messages of a secure sum, 64 hexadecimal digits; made when it is not there
    #[arg(long, value_name = "FILE")]
    pub identity: Option<PathBuf>,
    /// Print the public halves of the keys, for the roster and for `flwr supernode register`, and end
    #[arg(long)]
    pub show_identity: bool,
    /// Folder for what the node remembers, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// For how many seconds a server that does not answer is asked again
    #[arg(long, default_value_t = 60, value_name = "S")]
    pub patience: u64,
}

/// An attack of `tacit federate audit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AttackArg {
    /// Tokens recovered from gradients
    Inversion,
    /// Membership of training sequences, and exposure of a planted secret
    Memorisation,
    /// Bad clients against aggregation rules, 10 and 20 % of them
    Rules,
    /// A coordinator that cheats in secure aggregation
    Aggregator,
}

/// `tacit federate audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Configuration in TOML [default: the shipped ones]
    pub config: Option<PathBuf>,
    /// Attack; may be given several times [default: all]
    #[arg(long, value_enum, value_name = "ATTACK")]
    pub attack: Vec<AttackArg>,
    /// Number of rounds, instead of the configuration's
    #[arg(long, value_name = "N")]
    pub rounds: Option<usize>,
}

/// How a client is to be forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WayArg {
    /// Exactly if it took part in the last round only, by replay otherwise
    Best,
    /// By replay from the state before its first round
    Replay,
    /// By taking its share of every average back: fast, approximate
    Subtract,
}

/// `tacit federate forget`
#[derive(Debug, Args)]
pub struct ForgetArgs {
    /// Number of the client, from 0
    pub client: usize,
    /// Configuration of the run
    pub config: PathBuf,
    /// Folder of the run, instead of the configuration's
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How
    #[arg(long, value_enum, default_value = "best")]
    pub way: WayArg,
}

/// `tacit federate watermark …`
#[derive(Debug, Subcommand)]
pub enum WatermarkCommand {
    /// Write a copy of a model that is marked for a recipient
    #[command(after_help = "\
Examples:
  tacit federate watermark embed --model DIR --secret owner.key --recipient \"hospital A\" --out copy-a

The secret is made and written when the file is not there; whoever has it can find and forge marks.")]
    Embed(EmbedArgs),
    /// Look for the marks of recipients in a model
    #[command(after_help = "\
Examples:
  tacit federate watermark verify --model copy-a --secret owner.key --recipient \"hospital A\" --recipient \"hospital B\"
  tacit federate watermark verify --model copy-a --secret owner.key --recipient \"hospital A\" --stress")]
    Verify(VerifyArgs),
}

/// `tacit federate watermark embed`
#[derive(Debug, Args)]
pub struct EmbedArgs {
    /// Model folder [default: the shipped model]
    #[arg(long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// File with the owner's secret, 64 hexadecimal digits
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// Whom the copy is for
    #[arg(long, value_name = "NAME")]
    pub recipient: String,
    /// Strength of the mark, a share of the weights' root mean square
    #[arg(long, default_value_t = 0.05, value_name = "X")]
    pub strength: f32,
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// `tacit federate watermark verify`
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Model folder
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// File with the owner's secret
    #[arg(long, value_name = "FILE")]
    pub secret: PathBuf,
    /// Recipient whose mark is looked for; may be given several times
    #[arg(long, value_name = "NAME", required = true)]
    pub recipient: Vec<String>,
    /// Look again after pruning 30 % of the weights, and after noise as large as the weights
    #[arg(long)]
    pub stress: bool,
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
    /// Go on from the checkpoint in the run's folder; this is what happens without the flag too
    #[arg(long, conflicts_with = "overwrite")]
    pub resume: bool,
    /// Begin anew where the folder already holds a run
    #[arg(long)]
    pub overwrite: bool,
    /// Also train each client alone and one model on all text, and compare
    #[arg(long)]
    pub compare: bool,
    /// Replace a setting of the configuration, e.g. --set train.lr=0.001; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}
