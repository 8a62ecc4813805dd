//! The native model: small enough to be trained on two cores and to ship with the program.
//!
//! Two branches ([`network`]) look at windows of sixteen frames ([`input`]), moment by moment ([`trunk`]) and over time
//! ([`temporal`]); fusion and head ([`head`]) are fitted on their features, on numbers that need no weights among them;
//! [`verdict`] puts the windows of a video together.

mod conv;
pub mod data;
pub mod head;
pub mod input;
mod layers;
pub mod lessons;
pub mod loss;
pub mod network;
pub mod observation;
pub mod part_paths;
pub mod presence;
pub mod rounds;
pub mod temporal;
pub mod train;
pub mod trained;
pub mod trunk;
pub mod verdict;
mod wear;
pub mod window_priors;

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Tensor};
use serde::{Deserialize, Serialize};

use super::calibration::Calibration;
use super::evaluate::metrics::CLASSES;
use super::evaluate::statistics;
use super::fusion::AffineHead;
use super::weights::{Layout, Weights, read_tensors};
use crate::clip::Clip;
use crate::error::{HumansamError, Result};
use crate::priors::evidence::Evidence;

use head::{Features, Head};
use input::{Input, Region};
use network::Network;
use observation::Observation;
use presence::Presence;
use window_priors::WindowPriors;

pub use network::{FRAMES, HEAT_SIDE, KINDS, PARTS, PARTS_SIDE, SIDE};

/// What is known about a trained model besides its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Card {
    /// Name for reports.
    pub name: String,
    /// How the trunk was trained.
    pub training: train::TrainConfig,
    /// Steps of that schedule that were done.
    pub steps: usize,
    /// What the trunk went through before that schedule, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<trained::Stage>,
    /// How the layers over time were trained.
    pub lessons: lessons::LessonsConfig,
    /// Clips that fusion and head were fitted on.
    pub head_clips: usize,
    /// Clips that probabilities were calibrated on.
    pub calibration_clips: usize,
    /// Probabilities.
    pub calibration: Calibration,
    /// Whether there is a person; without it, whatever parts are seen are believed.
    #[serde(default)]
    pub presence: Option<Presence>,
}

impl Card {
    /// Reads the `model.json` beside a model's file.
    fn beside(model: &Path) -> Result<Self> {
        let path = model.with_file_name("model.json");
        let text = std::fs::read(&path).map_err(HumansamError::io("read", &path))?;
        Self::parse(&text, &path)
    }

    fn parse(text: &[u8], path: &Path) -> Result<Self> {
        serde_json::from_slice(text).map_err(|e| HumansamError::Malformed {
            path: path.to_owned(),
            message: format!("is not a model card: {e}"),
        })
    }

    /// All schedules that the trunk went through, oldest first.
    pub fn stages(&self) -> Vec<trained::Stage> {
        let mut stages = self.earlier.clone();
        stages.push(trained::Stage {
            training: self.training.clone(),
            steps: self.steps,
        });
        stages
    }
}

/// Branches, head and calibration.
#[derive(Clone, Debug)]
pub struct NativeModel {
    network: Network,
    head: Head,
    affine: AffineHead,
    /// What is known about it.
    pub card: Card,
}

/// What the network says about a window of sixteen frames.
#[derive(Clone, Debug)]
pub struct Window {
    /// What fusion sees.
    pub features: Features,
    /// The priors among them.
    pub priors: WindowPriors,
    /// Probability per frame and kind that something is wrong, `[FRAMES][KINDS]`.
    pub timeline: Vec<[f32; KINDS]>,
    /// The same per frame and place, `[FRAMES][HEAT_SIDE²][KINDS]`.
    pub heat: Vec<f32>,
    /// Likeliest part per frame and place, `[FRAMES][PARTS_SIDE²]`, 0 for the background.
    pub parts: Vec<u8>,
}

pub(crate) fn likeliest(parts: &Tensor) -> Result<Vec<u8>> {
    let best = parts.argmax(2)?.flatten_all()?.to_vec1::<u32>()?;
    Ok(best.into_iter().map(|p| p as u8).collect())
}

/// A window as the trunk saw it: what the layers over time are given, and what is shown to people.
#[derive(Clone, Debug)]
pub struct Observed {
    /// What the layers over time are given.
    pub observation: Observation,
    /// As in [`Window::heat`].
    pub heat: Vec<f32>,
    /// As in [`Window::parts`].
    pub parts: Vec<u8>,
    /// D3 and trajectory.
    pub statistics: Vec<f32>,
}

fn numbers(t: &Tensor) -> Result<Vec<f32>> {
    Ok(t.flatten_all()?.to_vec1::<f32>()?)
}

fn sigmoid(v: f32) -> f32 {
    1.0 / (1.0 + (-v).exp())
}

/// Runs the trunk on a window.
///
/// # Errors
/// When tensor arithmetic fails.
pub fn observe(network: &Network, input: &Input, evidence: &Evidence) -> Result<Observed> {
    let pixels = input::tensor(&[input])?;
    let seen = network.moments(&pixels)?;
    Ok(Observed {
        observation: Observation::new(&seen, &pixels, evidence)?,
        heat: numbers(&seen.heat)?.into_iter().map(sigmoid).collect(),
        parts: likeliest(&seen.parts)?,
        statistics: statistics::all(input),
    })
}

/// Runs the layers over time on an observed window, of which `priors` were measured.
///
/// # Errors
/// When tensor arithmetic fails.
pub fn judge(network: &Network, observed: Observed, priors: WindowPriors) -> Result<Window> {
    let out = network.judge(&[&observed.observation])?;
    let line: Vec<f32> = numbers(&out.timeline)?.into_iter().map(sigmoid).collect();
    let mut video = numbers(&out.video)?;
    video.extend(head::extra(&priors, &observed));
    Ok(Window {
        features: Features {
            video,
            depth: numbers(&out.depth)?,
        },
        priors,
        timeline: line
            .chunks_exact(KINDS)
            .map(|c| std::array::from_fn(|k| c[k]))
            .collect(),
        heat: observed.heat,
        parts: observed.parts,
    })
}

impl NativeModel {
    /// Puts a model together.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn new(network: Network, head: Head, card: Card) -> Result<Self> {
        Ok(Self {
            affine: head.affine()?,
            network,
            head,
            card,
        })
    }

    /// The branches.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Standardisation, fusion and head.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// The same as one affine map.
    pub fn affine(&self) -> &AffineHead {
        &self.affine
    }

    /// Runs the branches on the window of a clip at these moments.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn look(&self, clip: &Clip, moments: &[usize; FRAMES], region: Region) -> Result<Window> {
        let (priors, evidence) = WindowPriors::measure(clip, moments, region)?;
        let input = Input::new(clip, moments, region);
        judge(
            &self.network,
            observe(&self.network, &input, &evidence)?,
            priors,
        )
    }

    /// Logits of the four classes, in label order.
    ///
    /// # Errors
    /// When the features are not this model's.
    pub fn logits(&self, features: &Features) -> Result<[f64; CLASSES]> {
        features.logits(&self.affine)
    }

    /// All tensors of the file.
    pub fn layout() -> Layout {
        let mut l = network::layout();
        l.nest("", &head::layout());
        l
    }

    /// Reads `model.safetensors` and `model.json` of a folder.
    ///
    /// # Errors
    /// As for [`Weights::open`], and when the card is not readable.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("model.safetensors");
        let card = folder.join("model.json");
        let text = std::fs::read(&card).map_err(HumansamError::io("read", &card))?;
        Self::from_tensors(read_tensors(&path)?, &text, &path)
    }

    /// From the bytes of both files.
    ///
    /// # Errors
    /// As for [`NativeModel::open`].
    pub fn from_bytes(tensors: &[u8], card: &[u8]) -> Result<Self> {
        let path = Path::new("the shipped model");
        let tensors = candle_core::safetensors::load_buffer(tensors, &candle_core::Device::Cpu)?;
        Self::from_tensors(tensors, card, path)
    }

    fn from_tensors(tensors: HashMap<String, Tensor>, card: &[u8], source: &Path) -> Result<Self> {
        let all = Weights::check(source, tensors, &Self::layout())?;
        let names = network::layout();
        let network = names
            .tensors()
            .map(|(n, _)| Ok((n.to_owned(), all.get(n)?)))
            .collect::<Result<_>>()?;
        let card = Card::parse(card, &source.with_file_name("model.json"))?;
        Self::new(
            Network::new(network),
            Head::from_weights(&all, source)?,
            card,
        )
    }

    /// Writes `model.safetensors` (branches as 16-bit, head as 32-bit floats) and `model.json`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        std::fs::create_dir_all(folder).map_err(HumansamError::io("create", folder))?;
        let mut tensors = self.head.tensors()?;
        for (n, t) in self.network.tensors() {
            tensors.insert(n.clone(), t.to_dtype(DType::F16)?);
        }
        candle_core::safetensors::save(&tensors, folder.join("model.safetensors"))?;
        let path = folder.join("model.json");
        let mut text = serde_json::to_vec_pretty(&self.card)
            .map_err(|e| HumansamError::Argument(e.to_string()))?;
        text.push(b'\n');
        std::fs::write(&path, text).map_err(HumansamError::io("write", &path))
    }
}
