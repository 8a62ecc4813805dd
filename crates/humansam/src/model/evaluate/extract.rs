//! Generated clips to what the head and the baselines are fitted on and tested with.

use rayon::prelude::*;

use super::metrics::temporal_iou;
use crate::class::Class;
use crate::clip::{Clip, Frame};
use crate::error::Result;
use crate::generator::{self, Pool, Rendered, Setting, Spec};
use crate::model::native::data::{Split, person};
use crate::model::native::input::{Input, Region, moments};
use crate::model::native::lessons::Lesson;
use crate::model::native::network::Network;
use crate::model::native::window_priors::WindowPriors;
use crate::model::native::{self, FRAMES, HEAT_SIDE, KINDS, Observed, Window, data};
use crate::priors::evidence::Evidence;
use crate::repeats::mend;

/// What becomes of a clip between camera and detector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Nothing.
    None,
    /// H.264 at a constant rate factor, by ffmpeg.
    Crf(u8),
    /// Scaled to half of its width and height.
    HalfSize,
    /// Every fourth frame is lost; the frame before it stands for it.
    DroppedFrames,
}

impl Treatment {
    /// Name in tables.
    pub fn name(self) -> String {
        match self {
            Treatment::None => "none".to_owned(),
            Treatment::Crf(q) => format!("H.264 CRF {q}"),
            Treatment::HalfSize => "half size".to_owned(),
            Treatment::DroppedFrames => "every fourth frame lost".to_owned(),
        }
    }

    /// The treated clip; `encode` compresses a clip at a rate factor.
    fn apply(self, clip: &Clip, encode: &Encoder) -> Result<Clip> {
        let frames = match self {
            Treatment::None => return Ok(clip.clone()),
            Treatment::Crf(q) => return encode(clip, q),
            Treatment::HalfSize => {
                let half = |f: &Frame| f.resize((f.width() / 2).max(2), (f.height() / 2).max(2));
                clip.frames.iter().map(half).collect()
            }
            Treatment::DroppedFrames => (0..clip.frames.len())
                .map(|i| clip.frames[if i % 4 == 3 { i - 1 } else { i }].clone())
                .collect(),
        };
        Clip::new(clip.fps, frames)
    }
}

/// Compresses a clip at a constant rate factor and reads it back.
pub type Encoder = dyn Fn(&Clip, u8) -> Result<Clip> + Sync;

/// A clip, seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The truth.
    pub label: Class,
    /// Operator family; empty for real clips.
    pub family: String,
    /// What the network says, and the priors.
    pub window: Window,
    /// What a file says without its pictures: frame rate, noise, blur and quality that the generator drew.
    pub metadata: Vec<f32>,
    /// Whether something is wrong at each moment.
    pub active: [bool; FRAMES],
    /// Share of each heat cell that is wrong, 255 for all.
    pub mask: Vec<u8>,
}

/// Clips of a test or fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Which clips.
    pub split: Split,
    /// Whether bodies' motions and places are those that training never sees (bodies are always new).
    pub held_out_scenes: bool,
    /// Whether operators are those that training never sees.
    pub held_out_operators: bool,
    /// Number.
    pub count: usize,
    /// Every clip at this place; drawn without one.
    pub place: Option<Setting>,
}

impl Selection {
    /// The generator's specification of clip `index`.
    pub fn spec(&self, seed: u64, index: usize) -> Spec {
        let pool = |held_out| if held_out { Pool::HeldOut } else { Pool::Seen };
        // Seeds of the two tests differ too.
        let shift = if self.held_out_operators { 1 << 20 } else { 0 };
        Spec {
            actions: pool(self.held_out_scenes),
            settings: pool(self.held_out_scenes),
            operators: pool(self.held_out_operators),
            setting: self.place,
            ..data::training_spec(self.split, seed, index as u64 + shift)
        }
    }
}

/// A clip, ready to be looked at: everything that does not depend on a network.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// What a network sees.
    pub input: Input,
    /// The priors of the window.
    pub priors: WindowPriors,
    /// The priors' maps and curves.
    pub evidence: Evidence,
    /// The truth.
    pub label: Class,
    /// Operator family; empty for real clips.
    pub family: String,
    /// As in [`Seen::metadata`].
    pub metadata: Vec<f32>,
    /// As in [`Seen::active`].
    pub active: [bool; FRAMES],
    /// As in [`Seen::mask`].
    pub mask: Vec<u8>,
}

impl Prepared {
    /// What `network` says.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn seen(self, network: &Network) -> Result<Seen> {
        let observed = native::observe(network, &self.input, &self.evidence)?;
        self.seen_as(network, observed)
    }

    /// What `network` says, whose trunk has `observed` this clip.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn seen_as(self, network: &Network, observed: Observed) -> Result<Seen> {
        Ok(Seen {
            window: native::judge(network, observed, self.priors)?,
            label: self.label,
            family: self.family,
            metadata: self.metadata,
            active: self.active,
            mask: self.mask,
        })
    }
}

/// Renders and looks at clips; `done` is called after each.
///
/// # Errors
/// When the generator, the encoder or the network fails.
pub fn extract(
    network: &Network,
    selection: &Selection,
    seed: u64,
    treatment: Treatment,
    encode: &Encoder,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Seen>> {
    (0..selection.count)
        .into_par_iter()
        .map(|i| {
            let seen = prepare(selection, seed, i, treatment, encode)?.seen(network);
            done();
            seen
        })
        .collect()
}

/// Renders clip `index` of a selection, treats it and measures its priors.
///
/// # Errors
/// When the generator or the encoder fails.
pub fn prepare(
    selection: &Selection,
    seed: u64,
    index: usize,
    treatment: Treatment,
    encode: &Encoder,
) -> Result<Prepared> {
    let spec = selection.spec(seed, index);
    let all: Vec<usize> = (0..spec.frames).collect();
    prepared(&generator::sample_frames(&spec, &all)?, treatment, encode)
}

/// What the layers over time learn from one pair of clips: the trunk looks at both.
///
/// # Errors
/// When the generator or the network fails.
pub fn lessons(network: &Network, seed: u64, pair: u64) -> Result<[Lesson; 2]> {
    let [forged, real] = data::lesson_clips(seed, pair)?;
    let look = |(r, region): (Rendered, Region)| -> Result<Lesson> {
        let sample = data::sample(&r, region);
        let moments = moments(0, r.clip.frames.len());
        let (priors, evidence) = WindowPriors::measure(&r.clip, &moments, region)?;
        Ok(Lesson {
            observation: native::observe(network, &sample.input, &evidence)?.observation,
            label: r.class,
            active: std::array::from_fn(|f| sample.active[f]),
            scores: priors.scores,
        })
    };
    Ok([look(forged)?, look(real)?])
}

/// Treats a rendered clip and measures its priors.
///
/// # Errors
/// When the encoder fails.
pub fn prepared(r: &Rendered, treatment: Treatment, encode: &Encoder) -> Result<Prepared> {
    // Where the person is, is known here; a whole video is searched by the network itself.
    let bounds = person(r).unwrap_or([0.0, 0.0, 1.0, 1.0]);
    let region = Region::around(bounds, 0.08, r.clip.width, r.clip.height);
    let sample = data::sample(r, region);
    let moments = moments(0, r.clip.frames.len());
    let treated = treatment.apply(&r.clip, encode)?;
    let clip = mend(&treated);
    let around = Region::around(bounds, 0.08, clip.width, clip.height);
    let (priors, evidence) = WindowPriors::measure(&clip, &moments, around)?;
    let input = Input::new(&clip, &moments, around);
    Ok(Prepared {
        input,
        priors,
        evidence,
        label: r.class,
        family: r
            .anomaly
            .as_ref()
            .map(|a| a.family.clone())
            .unwrap_or_default(),
        metadata: vec![
            r.clip.fps as f32,
            r.scene.noise,
            r.scene.blur,
            r.scene.quality,
        ],
        active: std::array::from_fn(|f| sample.active[f]),
        mask: sample.mask,
    })
}

/// Per kind, the probability of the time line from which a moment counts as wrong: the one with the greatest mean temporal IoU on
/// these clips; one half where there is none of the kind.
pub fn moment_thresholds(seen: &[Seen]) -> [f32; KINDS] {
    std::array::from_fn(|k| {
        let of_kind: Vec<&Seen> = seen.iter().filter(|s| s.label.label() == k).collect();
        let overlap = |t: f32| -> f64 {
            of_kind
                .iter()
                .map(|s| {
                    let said: Vec<bool> = s.window.timeline.iter().map(|p| p[k] >= t).collect();
                    temporal_iou(&said, &s.active)
                })
                .sum()
        };
        let mut best = (0.5, overlap(0.5));
        for step in 1..50 {
            let t = step as f32 / 50.0;
            let o = overlap(t);
            if o > best.1 + 1e-9 {
                best = (t, o);
            }
        }
        best.0
    })
}

/// How well time and place of the anomaly are found, on forged clips.
#[derive(Clone, Copy, Debug, Default, PartialEq, serde::Serialize)]
pub struct Localisation {
    /// Mean over clips of frames said and wrong over frames said or wrong, of the true kind.
    pub temporal_iou: f64,
    /// The same when every frame is said to be wrong.
    pub temporal_iou_of_all_frames: f64,
    /// Share of clips whose hottest place, over all moments, lies where something is wrong.
    pub pointing: f64,
    /// The same for a place chosen at random.
    pub pointing_at_random: f64,
    /// Forged clips.
    pub clips: usize,
}

/// Localisation in forged clips by the map of the true kind; a moment is said to be wrong from its kind's threshold on.
pub fn localisation(seen: &[Seen], thresholds: &[f32; KINDS]) -> Localisation {
    const CELLS: usize = HEAT_SIDE * HEAT_SIDE;
    let mut out = Localisation::default();
    for s in seen
        .iter()
        .filter(|s| s.label.is_forged() && s.mask.iter().any(|m| *m > 0))
    {
        let k = s.label.label();
        let said: Vec<bool> = s
            .window
            .timeline
            .iter()
            .map(|p| p[k] >= thresholds[k])
            .collect();
        out.temporal_iou += temporal_iou(&said, &s.active);
        out.temporal_iou_of_all_frames += temporal_iou(&[true; FRAMES], &s.active);
        let hottest = (0..FRAMES * CELLS).fold(0, |b, c| {
            if s.window.heat[c * KINDS + k] > s.window.heat[b * KINDS + k] {
                c
            } else {
                b
            }
        });
        out.pointing += f64::from(u8::from(s.mask[hottest] > 0));
        out.pointing_at_random +=
            s.mask.iter().filter(|m| **m > 0).count() as f64 / s.mask.len() as f64;
        out.clips += 1;
    }
    let n = out.clips.max(1) as f64;
    out.temporal_iou /= n;
    out.temporal_iou_of_all_frames /= n;
    out.pointing /= n;
    out.pointing_at_random /= n;
    out
}
