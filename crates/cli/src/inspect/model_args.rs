//! Flags of `tacit inspect VIDEO…`, `train` and `bench`.

use std::path::PathBuf;

use clap::Args;
use tacit_humansam::generator::Setting;
use tacit_humansam::model::rce::Confidence;

/// `tacit inspect VIDEO…`
#[derive(Debug, Args)]
pub struct LookArgs {
    /// Videos, GIFs, Y4M files, folders of pictures, or folders of videos
    pub videos: Vec<PathBuf>,
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Judge with this fusion and head, named tensors as `tacit federate run` and `tacit inspect head --export` write them
    #[arg(long, value_name = "FILE")]
    pub head: Option<PathBuf>,
    /// Where the HTML pages go: a folder, or for a single video a file that ends in .html [default: inspect-report]
    #[arg(long, value_name = "PATH")]
    pub report: Option<PathBuf>,
    /// Write no HTML pages
    #[arg(long, conflicts_with = "report")]
    pub no_report: bool,
    /// Look at no more than this of each video
    #[arg(long, default_value_t = 20.0, value_name = "SECONDS")]
    pub seconds: f64,
    /// Keep looking into this folder, and judge what appears there
    #[arg(long, value_name = "DIR", conflicts_with = "videos")]
    pub watch: Option<PathBuf>,
    /// Evaluate fusion and head on encrypted features, as a server would that must not see them
    #[arg(long)]
    pub encrypted: bool,
}

/// `tacit inspect train`
#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Folder for checkpoint and model
    #[arg(short, long, value_name = "DIR")]
    pub out: PathBuf,
    /// Seed of initial values, clips and batches
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
    /// Steps of the trunk's schedule
    #[arg(long, default_value_t = 1400, value_name = "N")]
    pub steps: usize,
    /// Go no further than this step of the schedule, leave a checkpoint and make no model; --resume goes on from there, with another
    /// schedule if wanted
    #[arg(long, value_name = "N")]
    pub stop: Option<usize>,
    /// Clips of a step, in pairs, four moments of each
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub batch: usize,
    /// Largest learning rate
    #[arg(long, default_value_t = 2e-3, value_name = "RATE")]
    pub lr: f64,
    /// Pairs of clips, forged and real, that the layers over time learn from
    #[arg(long, default_value_t = 2500, value_name = "N")]
    pub pairs: usize,
    /// Times that each pair is gone through
    #[arg(long, default_value_t = 8, value_name = "N")]
    pub epochs: usize,
    /// Confidences in the loss of the layers over time: rank, none, score or shuffled
    #[arg(long, default_value = "rank", value_name = "FROM", value_parser = confidence)]
    pub confidence: Confidence,
    /// Clips that fusion and head are fitted on
    #[arg(long, default_value_t = 3000, value_name = "N")]
    pub head_clips: usize,
    /// Clips that probabilities are calibrated on
    #[arg(long, default_value_t = 500, value_name = "N")]
    pub calibration_clips: usize,
    /// Continue from the checkpoint in the folder, if there is one
    #[arg(long)]
    pub resume: bool,
    /// Start from the trunk of this model or training run (folder or file) instead of from random values, with a fresh optimiser and
    /// new clips; with --resume, only where the folder has no checkpoint yet
    #[arg(long, value_name = "PATH")]
    pub from: Option<PathBuf>,
}

/// `tacit inspect bench`
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Seed of the clips
    #[arg(long, default_value_t = 1, value_name = "SEED")]
    pub seed: u64,
    /// Clips of each of the two tests; 0 leaves them out, and only the robustness grid and the search for persons are run
    #[arg(long, default_value_t = 1000, value_name = "N")]
    pub clips: usize,
    /// Clips under each treatment of the robustness grid (needs ffmpeg); 0 leaves it out
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub robustness: usize,
    /// Places that are looked at with a person in them and without [default: as many as clips of a test]
    #[arg(long, value_name = "N")]
    pub places: Option<usize>,
    /// Judge the HFV data set in this folder instead: `eval_data/GENERATOR/{*.mp4,test_4.csv}`
    #[arg(long, value_name = "DIR", conflicts_with_all = ["seed", "clips", "robustness", "places", "speed"])]
    pub hfv: Option<PathBuf>,
    /// Measure speed instead: the native model on a 5 s clip of 1280x720, and backbones of published size with made-up weights
    #[arg(long, conflicts_with_all = ["seed", "clips", "robustness", "places"])]
    pub speed: bool,
    /// Measure instead what rank-based confidence brings to the head: what ranks know, and cross-validation on the clips of its fit
    #[arg(long, conflicts_with_all = ["clips", "robustness", "places", "speed", "hfv"])]
    pub confidence: bool,
    /// Measure instead how well parts of the body are seen, on this many clips with spatial anomalies and the same clips without, and
    /// whether the anomaly can be told from the parts' geometry
    #[arg(long, value_name = "N", conflicts_with_all = ["clips", "robustness", "places", "speed", "hfv", "confidence"])]
    pub parts: Option<usize>,
    /// With --speed, the network of the paper's size as well (4.3 GB of memory, minutes)
    #[arg(long, requires = "speed")]
    pub paper_size: bool,
}

/// `tacit inspect head`
#[derive(Debug, Args)]
#[group(id = "task", required = true, args = ["export", "average", "features"])]
pub struct HeadArgs {
    /// Model folder [default: the shipped model]
    #[arg(short, long, value_name = "DIR")]
    pub model: Option<PathBuf>,
    /// Write fusion and head as named tensors
    #[arg(long, value_name = "FILE")]
    pub export: Option<PathBuf>,
    /// Take in the average of these heads, each weighted by its number of clips
    #[arg(long, value_name = "FILE[=WEIGHT]", num_args = 1.., value_parser = weighted, requires = "out")]
    pub average: Vec<Weighted>,
    /// Write a table of features, labels and prior scores of videos, on which `tacit federate run` trains the head
    #[arg(long, value_name = "FILE")]
    pub features: Option<PathBuf>,
    /// With --features: videos of this folder, whose labels.csv lists file,label [default: generated clips]
    #[arg(long, value_name = "DIR", requires = "features")]
    pub videos: Option<PathBuf>,
    /// With --features: generated clips
    #[arg(
        long,
        default_value_t = 200,
        value_name = "N",
        requires = "features",
        conflicts_with = "videos"
    )]
    pub clips: usize,
    /// With --features: seed of generated clips; the shipped head was fitted to clips of seed 1
    #[arg(
        long,
        default_value_t = 2,
        value_name = "SEED",
        requires = "features",
        conflicts_with = "videos"
    )]
    pub seed: u64,
    /// With --features: all generated clips at this place: room, kitchen, studio, gym, park, street or beach [default: drawn]
    #[arg(long, value_name = "PLACE", value_parser = place, requires = "features", conflicts_with = "videos")]
    pub place: Option<Setting>,
    /// Folder of the model with the average
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

fn confidence(text: &str) -> Result<Confidence, String> {
    serde_json::from_value(text.into()).map_err(|_| "one of rank, none, score, shuffled".into())
}

fn place(text: &str) -> Result<Setting, String> {
    serde_json::from_value(text.into())
        .map_err(|_| "one of room, kitchen, studio, gym, park, street, beach".into())
}

/// A file and its weight in an average.
#[derive(Clone, Debug)]
pub struct Weighted {
    /// The file.
    pub file: PathBuf,
    /// Above 0.
    pub weight: f64,
}

fn weighted(text: &str) -> Result<Weighted, String> {
    let (file, weight) = match text.rsplit_once('=') {
        Some((f, w)) => (
            f,
            w.parse().ok().filter(|w: &f64| w.is_finite() && *w > 0.0),
        ),
        None => (text, Some(1.0)),
    };
    Ok(Weighted {
        file: file.into(),
        weight: weight.ok_or("FILE or FILE=WEIGHT with a weight above 0")?,
    })
}
