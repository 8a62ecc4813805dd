//! Flags of `tacit inspect …`.

use std::path::PathBuf;

use super::model_args::{BenchArgs, HeadArgs, LookArgs, TrainArgs};
use clap::{Args, Subcommand, ValueEnum};
use tacit_humansam::Class;
use tacit_humansam::generator::{Operator, Pool};

/// `tacit inspect`
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  tacit inspect demo/*.mp4
  tacit inspect clip.mp4 --report clip.html
  tacit inspect videos/ --report pages
  tacit inspect --json --no-report clip.mp4
  tacit inspect --encrypted clip.mp4
  tacit inspect --watch inbox --report pages

The shipped model was trained and tested on generated video only: its verdicts are hints, not proofs."
)]
pub struct Inspect {
    /// What to do, if not to judge videos.
    #[command(subcommand)]
    pub command: Option<InspectCommand>,
    /// Videos to judge.
    #[command(flatten)]
    pub look: LookArgs,
}

/// `tacit inspect …`
#[derive(Debug, Subcommand)]
pub enum InspectCommand {
    /// Make videos of people, real or with a known anomaly, with all that is known about them
    #[command(after_help = "\
Examples:
  tacit inspect generate --demo                       (four clips into demo/: one real, one of each kind of anomaly)
  tacit inspect generate --out clips --count 100 --seed 1
  tacit inspect generate --out pairs --count 8 --class motion --operator foot-slide --pairs --size 320x240

Beside every video lies a JSON file with its class, operator, severity, span and the seed that makes it again; labels.csv
lists file and label (0 appearance, 1 spatial, 2 motion, 3 real). Without ffmpeg, videos are written as Y4M.")]
    Generate(GenerateArgs),
    /// Measure how much of a video contradicts itself, without any model: spatial, appearance and motion priors
    #[command(after_help = "\
Examples:
  tacit inspect priors demo/motion.mp4
  tacit inspect priors --json clips/000003.mp4")]
    Priors(PriorsArgs),
    /// Train the native model from nothing on generated video
    #[command(after_help = "\
Example:
  tacit inspect train --seed 1 --steps 700 --stop 400 --out runs/native")]
    Train(TrainArgs),
    /// The native model, its ablations and baselines on generated video
    #[command(after_help = "\
Examples:
  tacit inspect bench --clips 200
  tacit inspect bench --json --robustness 60
  tacit inspect bench --speed
  tacit inspect bench --confidence
  tacit inspect bench --hfv HFV")]
    Bench(BenchArgs),
    /// Fusion and head as named tensors, as federated training exchanges them
    #[command(after_help = "\
Examples:
  tacit inspect head --export head.safetensors
  tacit inspect head --average a.safetensors=120 b.safetensors=80 --out averaged
  tacit inspect head --features room.safetensors --place room --clips 200
  tacit inspect head --features mine.safetensors --videos clips")]
    Head(HeadArgs),
}

/// A pool on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolArg {
    /// What training sees
    Seen,
    /// What training never sees
    HeldOut,
    /// Everything
    All,
}

impl From<PoolArg> for Pool {
    fn from(p: PoolArg) -> Pool {
        match p {
            PoolArg::Seen => Pool::Seen,
            PoolArg::HeldOut => Pool::HeldOut,
            PoolArg::All => Pool::All,
        }
    }
}

/// `tacit inspect generate`
#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Folder to write into; created if need be [default with --demo: demo]
    #[arg(short, long, value_name = "DIR", required_unless_present = "demo")]
    pub out: Option<PathBuf>,
    /// Number of clips (with --pairs: of pairs)
    #[arg(short = 'n', long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub count: u32,
    /// Seed of the first clip; the next has the next seed
    #[arg(short, long, default_value_t = 0, value_name = "SEED")]
    pub seed: u64,
    /// Only this class: appearance, spatial, motion or real [default: all four in turn]
    #[arg(long, value_name = "CLASS", value_parser = class)]
    pub class: Option<Class>,
    /// Only this operator, for example foot-slide
    #[arg(long, value_name = "NAME", value_parser = operator)]
    pub operator: Option<Operator>,
    /// How bad, 0 to 1 [default: drawn]
    #[arg(long, value_name = "X")]
    pub severity: Option<f32>,
    /// Also write each forged clip without its anomaly, as NAME-real
    #[arg(long)]
    pub pairs: bool,
    /// Columns x rows
    #[arg(long, default_value = "256x256", value_name = "WxH", value_parser = size)]
    pub size: (usize, usize),
    /// Frames a clip
    #[arg(long, default_value_t = 48, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub frames: u32,
    /// Frames a second [default: drawn from the usual rates]
    #[arg(long, value_name = "FPS")]
    pub fps: Option<f64>,
    /// Which families of operators
    #[arg(long, value_enum, default_value = "all", value_name = "POOL")]
    pub operators: PoolArg,
    /// Which actions and surroundings
    #[arg(long, value_enum, default_value = "all", value_name = "POOL")]
    pub scenes: PoolArg,
    /// Constant rate factor of the mp4 files, 0 best to 51 worst [default: drawn from 16 to 30, alike for every class]
    #[arg(long, value_name = "CRF", value_parser = clap::value_parser!(u8).range(0..=51))]
    pub crf: Option<u8>,
    /// Write Y4M even where ffmpeg is present
    #[arg(long)]
    pub y4m: bool,
    /// Leave the person out: places with nobody in them, all real
    #[arg(long, conflicts_with_all = ["class", "operator", "severity", "pairs", "demo"])]
    pub nobody: bool,
    /// Write the demonstration: one real clip and one of each kind of anomaly, 640x360
    #[arg(long, conflicts_with_all = ["count", "seed", "class", "operator", "severity", "pairs", "size", "frames", "fps", "operators", "scenes"])]
    pub demo: bool,
}

/// `tacit inspect priors`
#[derive(Debug, Args)]
pub struct PriorsArgs {
    /// A video, GIF, Y4M file or a folder of pictures
    pub video: PathBuf,
    /// Begin so many seconds in
    #[arg(long, default_value_t = 0.0, value_name = "SECONDS")]
    pub start: f64,
    /// Look at no more than this
    #[arg(long, default_value_t = 10.0, value_name = "SECONDS")]
    pub seconds: f64,
}

fn class(text: &str) -> Result<Class, String> {
    Class::from_name(text).ok_or_else(|| "one of appearance, spatial, motion, real".into())
}

fn operator(text: &str) -> Result<Operator, String> {
    Operator::from_name(text).ok_or_else(|| {
        let names: Vec<String> = Operator::ALL.iter().map(|o| o.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn size(text: &str) -> Result<(usize, usize), String> {
    let (w, h) = text
        .split_once('x')
        .ok_or("columns x rows, for example 320x240")?;
    let side = |s: &str| {
        s.parse::<usize>()
            .map_err(|_| "columns x rows, for example 320x240".to_string())
    };
    Ok((side(w)?, side(h)?))
}
