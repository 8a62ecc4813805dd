//! From a whole video to an answer: where the person is, windows of sixteen moments, and what they say together.

use rayon::prelude::*;
use serde::Serialize;

use super::head::Features;
use super::input::{Input, Region, neighbour};
use super::network::{FRAMES, HEAT_SIDE, KINDS, PARTS_SIDE};
use super::{NativeModel, Window, presence};
use crate::class::Class;
use crate::clip::Clip;
use crate::error::Result;
use crate::model::evaluate::metrics::CLASSES;
use crate::model::rce::PriorScores;
use crate::repeats::mend;

/// Shortest side of a picture, pixels.
const SMALLEST: usize = 48;
/// Fewest frames.
const FEWEST: usize = 8;
/// Without a fitted decision: smallest share of the region that the person must cover.
const PRESENT: f64 = 0.02;
/// Most windows of a video; longer ones are looked at in places spread evenly.
const MOST_WINDOWS: usize = 24;
/// Trunk, head, hair: one of them must be seen.
const CORE: std::ops::RangeInclusive<u8> = 1..=3;

/// Why there is no verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NotApplicable {
    /// No person was seen.
    NoHuman,
    /// Fewer than eight frames.
    TooShort,
    /// A side below 48 pixels.
    TooSmall,
}

impl NotApplicable {
    /// A sentence.
    pub fn reason(self) -> &'static str {
        match self {
            NotApplicable::NoHuman => "no person was seen; the model judges people only",
            NotApplicable::TooShort => "fewer than 8 frames; movement cannot be judged",
            NotApplicable::TooSmall => "a side is shorter than 48 pixels; nothing can be made out",
        }
    }
}

/// What is said about the video as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Verdict {
    /// Likeliest class.
    Class {
        /// The class.
        class: Class,
    },
    /// The likeliest class is not likely enough.
    Unclear {
        /// It would have been this one.
        leaning: Class,
    },
    /// The model does not judge such a video.
    NotApplicable {
        /// Why.
        why: NotApplicable,
    },
}

/// One moment of the time line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Moment {
    /// Frame of the video.
    pub frame: usize,
    /// Seconds from the start.
    pub seconds: f64,
    /// Probability per kind that something is wrong, in label order.
    pub wrong: [f32; KINDS],
    /// Heat map of the likeliest kind over the region, `HEAT_SIDE²`, row by row.
    pub heat: Vec<f32>,
    /// The window it belongs to.
    pub window: usize,
}

/// Everything the model says about a video.
#[derive(Clone, Debug, Serialize)]
pub struct Inspection {
    /// The verdict.
    pub verdict: Verdict,
    /// Probabilities of the four classes, in label order; they sum to one.
    pub classes: [f64; CLASSES],
    /// Probability of each kind by itself.
    pub kinds: [f64; KINDS],
    /// Logits that the probabilities come from.
    pub logits: [f64; CLASSES],
    /// Prior scores of each window, in label order.
    pub priors: Vec<PriorScores>,
    /// Where the person was looked at.
    pub region: Region,
    /// The time line.
    pub timeline: Vec<Moment>,
    /// Features per window.
    #[serde(skip)]
    pub features: Vec<Features>,
}

/// Frames of the windows of a video: sixteen each, about a second long, the last one ending with the video.
pub fn windows(frames: usize, fps: f64) -> Vec<[usize; FRAMES]> {
    let step = neighbour(fps);
    let length = step * FRAMES;
    if frames <= length {
        let last = frames.saturating_sub(1);
        // As many different frames as there are; a short video is stretched.
        return vec![std::array::from_fn(|i| {
            if frames >= FRAMES {
                (i * frames) / FRAMES
            } else {
                (i * frames / FRAMES).min(last)
            }
        })];
    }
    let count = frames.div_ceil(length).min(MOST_WINDOWS);
    (0..count)
        .map(|w| {
            let start = if count == 1 {
                0
            } else {
                w * (frames - length) / (count - 1)
            };
            std::array::from_fn(|i| start + i * step)
        })
        .collect()
}

/// Where a part map says that a person is, in shares of the map: left, top, right, bottom, and the share covered.
fn person(maps: &[u8]) -> Option<([f64; 4], f64)> {
    const N: usize = PARTS_SIDE;
    // A cell counts when it is a person in at least a tenth of the maps.
    let count = maps.len() / (N * N);
    let (mut rows, mut cols, mut covered) = ([0usize; N], [0usize; N], 0usize);
    for (i, p) in maps.iter().enumerate() {
        if (1..=15).contains(p) {
            covered += 1;
            rows[i / N % N] += 1;
            cols[i % N] += 1;
        }
    }
    let enough = (count / 10).max(1);
    let span = |v: &[usize; N]| -> Option<(usize, usize)> {
        Some((
            v.iter().position(|c| *c >= enough)?,
            v.iter().rposition(|c| *c >= enough)? + 1,
        ))
    };
    let ((t, b), (l, r)) = (span(&rows)?, span(&cols)?);
    let at = |k: usize| k as f64 / N as f64;
    Some((
        [at(l), at(t), at(r), at(b)],
        covered as f64 / maps.len() as f64,
    ))
}

impl NativeModel {
    /// Looks for the person in squares along the longer side of the picture, and takes the square around what was seen.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn find_person(&self, clip: &Clip) -> Result<Option<Region>> {
        let (w, h) = (clip.width, clip.height);
        let side = w.min(h);
        let places = if w.max(h) as f64 > 1.25 * side as f64 {
            3
        } else {
            1
        };
        let n = clip.frames.len();
        let moments: [usize; FRAMES] = std::array::from_fn(|i| i * n / FRAMES);
        let mut found: Option<[f64; 4]> = None;
        let mut best: f64 = 0.0;
        for k in 0..places {
            let shift = |length: usize| {
                if places == 1 {
                    (length - side) / 2
                } else {
                    k * (length - side) / (places - 1)
                }
            };
            let tile = Region {
                x: shift(w),
                y: shift(h),
                width: side,
                height: side,
            };
            let input = Input::new(clip, &moments, tile);
            let seen = presence::look(self.network(), &input)?;
            let Some((b, share)) = person(&seen.parts) else {
                continue;
            };
            let believed = match &self.card.presence {
                Some(decision) => decision.score(&seen.numbers) >= 0.0,
                None => share >= PRESENT && seen.parts.iter().any(|p| CORE.contains(p)),
            };
            if !believed {
                continue;
            }
            best = best.max(share);
            let (x, y) = (
                |v: f64| (tile.x as f64 + v * side as f64) / w as f64,
                |v: f64| (tile.y as f64 + v * side as f64) / h as f64,
            );
            let b = [x(b[0]), y(b[1]), x(b[2]), y(b[3])];
            found = Some(found.map_or(b, |f: [f64; 4]| {
                [
                    f[0].min(b[0]),
                    f[1].min(b[1]),
                    f[2].max(b[2]),
                    f[3].max(b[3]),
                ]
            }));
        }
        Ok(found.map(|b| Region::around(b, 0.08, w, h)))
    }

    /// Judges a video, its repeated frames mended ([`repeats`](crate::repeats)).
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn inspect(&self, clip: &Clip) -> Result<Inspection> {
        let mended = mend(clip);
        let clip = mended.as_ref();
        let refuse = |why| {
            let third = 1.0 / CLASSES as f64;
            Inspection {
                verdict: Verdict::NotApplicable { why },
                classes: [third; CLASSES],
                kinds: [0.0; KINDS],
                logits: [0.0; CLASSES],
                priors: Vec::new(),
                region: Region::whole(clip),
                timeline: Vec::new(),
                features: Vec::new(),
            }
        };
        if clip.width.min(clip.height) < SMALLEST {
            return Ok(refuse(NotApplicable::TooSmall));
        }
        if clip.frames.len() < FEWEST {
            return Ok(refuse(NotApplicable::TooShort));
        }
        let Some(region) = self.find_person(clip)? else {
            return Ok(refuse(NotApplicable::NoHuman));
        };
        let mut inspection = refuse(NotApplicable::NoHuman);
        inspection.region = region;
        let mut logits = Vec::new();
        let windows = windows(clip.frames.len(), clip.fps);
        let seen = windows
            .par_iter()
            .map(|moments| self.look(clip, moments, region))
            .collect::<Result<Vec<_>>>()?;
        for (w, (moments, window)) in windows.iter().zip(seen).enumerate() {
            logits.push(self.logits(&window.features)?);
            inspection.priors.push(window.priors.scores);
            push_moments(&mut inspection.timeline, &window, moments, clip.fps, w);
            inspection.features.push(window.features);
        }
        inspection.timeline.sort_by_key(|m| m.frame);
        inspection.timeline.dedup_by_key(|m| m.frame);
        self.conclude(&mut inspection, &logits);
        Ok(inspection)
    }

    /// The verdict from the windows' logits.
    pub fn conclude(&self, inspection: &mut Inspection, windows: &[[f64; CLASSES]]) {
        let c = &self.card.calibration;
        inspection.logits = together(windows);
        inspection.classes = c.classes(&inspection.logits);
        inspection.kinds = c.kinds(&inspection.logits);
        let p = &inspection.classes;
        let best = (0..CLASSES).fold(0, |b, k| if p[k] > p[b] { k } else { b });
        let class = Class::ALL[best];
        inspection.verdict = if p[best] < c.abstain_below {
            Verdict::Unclear { leaning: class }
        } else {
            Verdict::Class { class }
        };
    }
}

/// Mean over the half of the windows (rounded up) that look least real: an anomaly need not last, noise in one window must
/// not decide.
pub fn together(windows: &[[f64; CLASSES]]) -> [f64; CLASSES] {
    let real =
        |z: &[f64; CLASSES]| z[CLASSES - 1] - z[..KINDS].iter().copied().fold(f64::MIN, f64::max);
    let mut sorted = windows.to_vec();
    sorted.sort_by(|a, b| real(a).total_cmp(&real(b)));
    let half = &sorted[..sorted.len().div_ceil(2)];
    std::array::from_fn(|k| half.iter().map(|z| z[k]).sum::<f64>() / half.len().max(1) as f64)
}

fn push_moments(
    line: &mut Vec<Moment>,
    window: &Window,
    moments: &[usize; FRAMES],
    fps: f64,
    index: usize,
) {
    const CELLS: usize = HEAT_SIDE * HEAT_SIDE;
    for (f, &frame) in moments.iter().enumerate() {
        let wrong = window.timeline[f];
        let kind = (0..KINDS).fold(0, |b, k| if wrong[k] > wrong[b] { k } else { b });
        let heat = (0..CELLS)
            .map(|c| window.heat[(f * CELLS + c) * KINDS + kind])
            .collect();
        line.push(Moment {
            frame,
            seconds: frame as f64 / fps,
            wrong,
            heat,
            window: index,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn windows_stay_inside_and_move_forward(frames in 1usize..2000, fps in 1.0f64..120.0) {
            let all = windows(frames, fps);
            prop_assert!(!all.is_empty() && all.len() <= MOST_WINDOWS);
            for w in &all {
                prop_assert!(w.windows(2).all(|p| p[0] <= p[1]) && w[FRAMES - 1] < frames);
                if frames >= FRAMES {
                    prop_assert!(w.windows(2).all(|p| p[0] < p[1]));
                }
            }
        }
    }

    #[test]
    fn a_short_anomaly_in_a_long_video_counts_and_the_person_is_boxed() {
        let real = [0.0, 0.0, 0.0, 4.0];
        let wrong = [0.0, 6.0, 0.0, 0.0];
        let z = together(&[real, wrong, real]);
        assert!(z[1] >= 3.0 && z[1] > z[3]);
        assert_eq!(together(&[real]), real);
        let mut maps = vec![0u8; 20 * PARTS_SIDE * PARTS_SIDE];
        for f in 0..20 {
            for y in 4..12 {
                for x in 6..9 {
                    maps[(f * PARTS_SIDE + y) * PARTS_SIDE + x] = 1;
                }
            }
        }
        let (b, share) = person(&maps).unwrap();
        let n = PARTS_SIDE as f64;
        assert_eq!(b, [6.0 / n, 4.0 / n, 9.0 / n, 12.0 / n]);
        assert!((share - 24.0 / (n * n)).abs() < 1e-9);
        assert!(person(&vec![0u8; 256]).is_none());
    }
}
