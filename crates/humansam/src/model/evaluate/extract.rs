//! Generated clips to what the head and the baselines are fitted on and tested with.

use rayon::prelude::*;

use super::metrics::temporal_iou;
use super::statistics;
use crate::class::Class;
use crate::clip::{Clip, Frame};
use crate::error::Result;
use crate::generator::{self, Pool, Rendered, Spec};
use crate::model::native::data::{Split, person};
use crate::model::native::input::{Input, Region, cut, moments};
use crate::model::native::network::Network;
use crate::model::native::{self, FRAMES, HEAT_SIDE, KINDS, Window, data, verdict};
use crate::model::rce::PriorScores;

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

/// Prior scores of the frames of a window.
pub type Priors = dyn Fn(&Clip, &[usize; FRAMES]) -> Result<PriorScores> + Sync;

/// A clip, seen.
#[derive(Clone, Debug)]
pub struct Seen {
    /// The truth.
    pub label: Class,
    /// Operator family; empty for real clips.
    pub family: String,
    /// What the network says.
    pub window: Window,
    /// Prior scores.
    pub priors: PriorScores,
    /// D3 and trajectory.
    pub statistics: Vec<f32>,
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
            ..data::training_spec(self.split, seed, index as u64 + shift)
        }
    }
}

/// Renders and looks at clips; `done` is called after each.
///
/// # Errors
/// When the generator, the priors, the encoder or the network fails.
pub fn extract(
    network: &Network,
    selection: &Selection,
    seed: u64,
    treatment: Treatment,
    priors: &Priors,
    encode: &Encoder,
    done: &(dyn Fn() + Sync),
) -> Result<Vec<Seen>> {
    (0..selection.count)
        .into_par_iter()
        .map(|i| {
            let rendered = generator::sample(&selection.spec(seed, i))?;
            let seen = see(network, &rendered, treatment, priors, encode);
            done();
            seen
        })
        .collect()
}

fn see(
    network: &Network,
    r: &Rendered,
    treatment: Treatment,
    priors: &Priors,
    encode: &Encoder,
) -> Result<Seen> {
    // Where the person is, is known here; a whole video is searched by the network itself.
    let bounds = person(r).unwrap_or([0.0, 0.0, 1.0, 1.0]);
    let region = Region::around(bounds, 0.08, r.clip.width, r.clip.height);
    let sample = data::sample(r, region);
    let moments = moments(0, r.clip.frames.len());
    let (clip, input) = match treatment {
        Treatment::None => (None, sample.input),
        other => {
            let clip = other.apply(&r.clip, encode)?;
            let region = Region::around(bounds, 0.08, clip.width, clip.height);
            let input = Input::new(&clip, &moments, region);
            (Some(clip), input)
        }
    };
    let scores = priors(clip.as_ref().unwrap_or(&r.clip), &moments)?;
    Ok(Seen {
        label: r.class,
        family: r
            .anomaly
            .as_ref()
            .map(|a| a.family.clone())
            .unwrap_or_default(),
        window: native::look(network, &input, &scores)?,
        priors: scores,
        statistics: statistics::all(&input),
        metadata: vec![
            r.clip.fps as f32,
            r.scene.noise,
            r.scene.blur,
            r.scene.quality,
        ],
        active: sample.active,
        mask: sample.mask,
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

/// Localisation in forged clips by the map of the true kind.
pub fn localisation(seen: &[Seen]) -> Localisation {
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
            .map(|p| p[k] >= verdict::WRONG)
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

/// Prior scores that need nothing but the frames of a window (0 is normal), for callers that have no others:
///
/// * appearance: mean over frames of `½ (|h_t - h_{t-1}| + |h_t - h_0|)` with `h` the colour histogram (4 bins a channel),
/// * spatial: mean over frames of the deviation of detail (squared Laplacian of luma) between cells over its mean,
/// * motion: mean of `|y_{t+1} - 2 y_t + y_{t-1}|` over mean of `|y_{t+1} - y_{t-1}|`, of luma.
pub fn window_priors(clip: &Clip, moments: &[usize; FRAMES]) -> PriorScores {
    const SIDE: usize = 32;
    let region = Region::whole(clip);
    let last = clip.frames.len().saturating_sub(1);
    let small: Vec<Frame> = moments
        .iter()
        .map(|&m| cut(&clip.frames[m.min(last)], region).resize(SIDE, SIDE))
        .collect();
    let histogram = |f: &Frame| {
        let mut h = [0.0; 64];
        for p in f.rgb().chunks_exact(3) {
            h[usize::from(p[0] >> 6) * 16 + usize::from(p[1] >> 6) * 4 + usize::from(p[2] >> 6)] +=
                1.0 / (SIDE * SIDE) as f64;
        }
        h
    };
    let apart = |a: &[f64; 64], b: &[f64; 64]| {
        a.iter().zip(b).map(|(a, b)| (a - b).abs()).sum::<f64>() / 2.0
    };
    let h: Vec<[f64; 64]> = small.iter().map(histogram).collect();
    let appearance = (1..h.len())
        .map(|t| 0.5 * (apart(&h[t], &h[t - 1]) + apart(&h[t], &h[0])))
        .sum::<f64>()
        / (h.len() - 1) as f64;
    let luma: Vec<Vec<f32>> = small.iter().map(|f| f.luma().data).collect();
    let uneven = |y: &[f32]| {
        let mut cells = [0.0f64; 16];
        for r in 1..SIDE - 1 {
            for c in 1..SIDE - 1 {
                let i = r * SIDE + c;
                let l = f64::from(4.0 * y[i] - y[i - 1] - y[i + 1] - y[i - SIDE] - y[i + SIDE]);
                cells[r / 8 * 4 + c / 8] += l * l;
            }
        }
        let mean = cells.iter().sum::<f64>() / 16.0;
        (cells.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / 16.0).sqrt() / (mean + 1e-9)
    };
    let spatial = luma.iter().map(|y| uneven(y)).sum::<f64>() / luma.len() as f64;
    let (mut second, mut first) = (0.0f64, 1e-6f64);
    for w in luma.windows(3) {
        for ((a, b), c) in w[0].iter().zip(&w[1]).zip(&w[2]) {
            second += f64::from((c - 2.0 * b + a).abs());
            first += f64::from((c - a).abs());
        }
    }
    [appearance, spatial, second / first]
}
