//! Clips of the generator as samples for the network.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::input::{Input, RATE, Region, cut, moments, neighbour};
use super::loss::Sample;
use super::network::{FRAMES, HEAT_SIDE, PARTS, PARTS_SIDE};
use crate::class::Class;
use crate::error::Result;
use crate::generator::{self, Operator, Pool, Rendered, Spec, part};

/// Sides of the clips that training renders, pixels: coarse and fine ones, for cameras differ.
const RENDERED: [usize; 3] = [112, 136, 160];
/// Frames a second, as videos of the usual rates have when they are thinned out to about [`RATE`](super::input::RATE).
const RATES: [f64; 4] = [10.0, 12.0, 12.5, 15.0];
/// Of so many training pairs, one shows a place with nobody in it, and the same place with a person.
const EMPTY_EVERY: u64 = 12;
/// Least severity that the trunk sees, and the share of the picture that changes at least: less than what tests show.
const SEVERITY: f32 = 0.4;
const SHARE: f32 = 0.007;
/// Of so many spatial pairs of the trunk, one has a limb too many and one lacks a limb, besides those that are drawn anyway: a third of
/// the spatial pairs in all, a fifth without.
const LIMBS_EVERY: u64 = 12;
const LIMBS_MIDDLE: u64 = LIMBS_EVERY / 2;

/// Seeds of training, of fitting the head, of calibration and of tests never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The trunk's training.
    Train,
    /// Training of the layers over time.
    Lessons,
    /// Fusion and head, on features of the trained network.
    Head,
    /// Calibration of probabilities.
    Calibration,
    /// Tests.
    Test,
}

impl Split {
    /// The generator's seed of clip `index`.
    pub fn seed(self, seed: u64, index: u64) -> u64 {
        let base = match self {
            Split::Train => 1u64,
            Split::Head => 2,
            Split::Calibration => 3,
            Split::Test => 4,
            Split::Lessons => 5,
        };
        (base << 56) | ((seed & 0xffff) << 40) | (index & 0xff_ffff_ffff)
    }
}

/// What training renders as clip `index`: classes take turns, bodies, motions, places and operators are drawn from those that
/// training may see.
pub fn training_spec(split: Split, seed: u64, index: u64) -> Spec {
    let mut rng = ChaCha8Rng::seed_from_u64(split.seed(seed, index) ^ 0xf1a7);
    let side = RENDERED[rng.next_u32() as usize % RENDERED.len()];
    let fps = RATES[rng.next_u32() as usize % RATES.len()];
    Spec {
        fps: Some(fps),
        class: Class::ALL[(index % 4) as usize],
        actions: Pool::Seen,
        settings: Pool::Seen,
        operators: Pool::Seen,
        width: side,
        height: side,
        frames: FRAMES,
        supersample: 1,
        maps: true,
        ..Spec::new(split.seed(seed, index))
    }
}

/// Moments of a clip that one training sample of the trunk shows.
pub const SHOWN: usize = 4;

/// What is drawn for a pair of training clips.
struct Pair {
    forged: Spec,
    close: bool,
    margin: f64,
    rng: ChaCha8Rng,
}

impl Pair {
    fn new(split: Split, seed: u64, pair: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ (split as u64) << 32);
        rng.set_stream(pair);
        let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
        let (close, margin) = (unit() < 0.75, 0.02 + 0.13 * unit());
        let forged = Spec {
            class: Class::FORGED[(pair % 3) as usize],
            severity: Some(SEVERITY + (1.0 - SEVERITY) * unit() as f32),
            shown: SHARE,
            ..training_spec(split, seed, pair)
        };
        Self {
            forged,
            close,
            margin,
            rng,
        }
    }

    fn region(&self, r: &Rendered) -> Region {
        match person(r) {
            Some(bounds) if self.close => {
                Region::around(bounds, self.margin, r.clip.width, r.clip.height)
            }
            _ => Region::whole(&r.clip),
        }
    }
}

/// What the trunk is taught by: [`SHOWN`] moments of a clip. Clips come in counterfactual pairs, which differ in the anomaly and
/// in nothing else: an even `index` is forged, its kind taking turns, the odd one after it is the same clip without the anomaly,
/// cut by the same rule.
///
/// # Errors
/// When the generator refuses the specification.
pub fn training_sample(seed: u64, index: u64) -> Result<Sample> {
    let pair = index / 2;
    let mut drawn = Pair::new(Split::Train, seed, pair);
    if drawn.forged.class == Class::Spatial {
        drawn.forged.operator = match pair / 3 % LIMBS_EVERY {
            0 => Some(Operator::ExtraLimb),
            LIMBS_MIDDLE => Some(Operator::MissingLimb),
            _ => None,
        };
    }
    let empty = pair % EMPTY_EVERY == EMPTY_EVERY - 1;
    let spec = match (index.is_multiple_of(2), empty) {
        (true, false) => drawn.forged.clone(),
        (true, true) => Spec {
            nobody: true,
            ..drawn.forged.twin()
        },
        (false, _) => drawn.forged.twin(),
    };
    // Two neighbouring moments early in the clip and two late ones, each with the frames before and after.
    let step = neighbour(spec.fps.unwrap_or(RATE));
    let mut draw = |n: u32| (drawn.rng.next_u32() % n) as usize;
    let half = FRAMES / 2;
    let (a, b) = (draw(half as u32 - 1), half + draw(half as u32 - 1));
    let all = moments(0, spec.frames);
    let mut frames = Vec::new();
    let mut shots = Vec::new();
    for m in [a, a + 1, b, b + 1].map(|i| all[i]) {
        let mut place = |f: usize| {
            frames.iter().position(|x| *x == f).unwrap_or_else(|| {
                frames.push(f);
                frames.len() - 1
            })
        };
        shots.push(Shot {
            frame: m,
            now: place(m),
            before: place(m.saturating_sub(step)),
            after: place((m + step).min(spec.frames - 1)),
        });
    }
    let rendered = generator::sample_frames(&spec, &frames)?;
    let region = drawn.region(&rendered);
    Ok(Sample {
        nobody: spec.nobody,
        ..taught(&rendered, region, &shots)
    })
}

/// A pair of whole clips for the layers over time, forged and real, rendered with maps but without flow, and where each is cut.
///
/// # Errors
/// When the generator refuses the specification.
pub fn lesson_clips(seed: u64, pair: u64) -> Result<[(Rendered, Region); 2]> {
    let mut drawn = Pair::new(Split::Lessons, seed, pair);
    // As tests draw them.
    drawn.forged.severity = None;
    drawn.forged.shown = Spec::new(0).shown;
    let cut = |spec: &Spec| -> Result<(Rendered, Region)> {
        let all: Vec<usize> = (0..spec.frames).collect();
        let r = generator::sample_frames(spec, &all)?;
        let region = Region::around(
            person(&r).unwrap_or([0.0, 0.0, 1.0, 1.0]),
            drawn.margin,
            r.clip.width,
            r.clip.height,
        );
        Ok((r, region))
    };
    Ok([cut(&drawn.forged)?, cut(&drawn.forged.twin())?])
}

/// Box of the person over all frames, in shares of the picture: left, top, right, bottom.
pub fn person(r: &Rendered) -> Option<[f64; 4]> {
    let (w, h) = (r.clip.width, r.clip.height);
    let mut found: Option<[usize; 4]> = None;
    for parts in &r.parts {
        for (i, _) in parts
            .iter()
            .enumerate()
            .filter(|(_, p)| part::is_person(**p))
        {
            let (x, y) = (i % w, i / w);
            let b = found.get_or_insert([x, y, x + 1, y + 1]);
            *b = [b[0].min(x), b[1].min(y), b[2].max(x + 1), b[3].max(y + 1)];
        }
    }
    found.map(|[l, t, r, b]| {
        [
            l as f64 / w as f64,
            t as f64 / h as f64,
            r as f64 / w as f64,
            b as f64 / h as f64,
        ]
    })
}

/// A moment, and where it and its neighbours are among the frames that were rendered.
struct Shot {
    frame: usize,
    now: usize,
    before: usize,
    after: usize,
}

/// Everything the network can be taught by, of a region of a clip rendered with its maps, at the sixteen moments.
pub fn sample(r: &Rendered, region: Region) -> Sample {
    let step = neighbour(r.clip.fps);
    let last = r.clip.frames.len() - 1;
    let shots = moments(0, r.clip.frames.len()).map(|m| Shot {
        frame: m,
        now: m,
        before: m.saturating_sub(step),
        after: (m + step).min(last),
    });
    taught(r, region, &shots)
}

fn taught(r: &Rendered, region: Region, shots: &[Shot]) -> Sample {
    let width = r.clip.width;
    let mut active = Vec::with_capacity(shots.len());
    let mut mask = Vec::with_capacity(shots.len() * HEAT_SIDE * HEAT_SIDE);
    let mut parts = Vec::with_capacity(shots.len() * PARTS_SIDE * PARTS_SIDE);
    let mut near = Vec::with_capacity(shots.len() * PARTS_SIDE * PARTS_SIDE);
    for shot in shots {
        active.push(
            r.anomaly
                .as_ref()
                .is_some_and(|a| (a.first_frame..=a.last_frame).contains(&shot.frame)),
        );
        let m = shot.now;
        let (seen, depth, wrong) = (&r.parts[m], &r.depth[m].data, &r.mask[m].data);
        for_cells(HEAT_SIDE, region, width, |cell| {
            let sum: f32 = cell.iter().map(|&i| wrong[i]).sum();
            mask.push((255.0 * sum / cell.len() as f32) as u8);
        });
        for_cells(PARTS_SIDE, region, width, |cell| {
            let mut counts = [0usize; PARTS + 1];
            for &i in cell {
                let p = usize::from(seen[i]);
                counts[if p > PARTS { 0 } else { p }] += 1;
            }
            let most = (0..=PARTS).rev().max_by_key(|&p| counts[p]).unwrap_or(0);
            parts.push(most as u8);
            let inverse = |i: &usize| 1.0 / depth[*i].max(0.8);
            let mean = cell.iter().map(inverse).sum::<f32>() / cell.len() as f32;
            near.push((200.0 * mean).clamp(0.0, 255.0) as u8);
        });
    }
    let frames: Vec<_> = r.clip.frames.iter().map(|f| cut(f, region)).collect();
    let triples: Vec<_> = shots
        .iter()
        .map(|s| (&frames[s.now], &frames[s.before], &frames[s.after]))
        .collect();
    Sample {
        input: Input::from_cut(&triples),
        label: r.class,
        nobody: false,
        active,
        mask,
        parts,
        inverse_depth: near,
    }
}

/// Calls `f` with the pixels (indices into a picture `width` wide) of each of `side²` cells of a region, row by row.
fn for_cells(side: usize, r: Region, width: usize, mut f: impl FnMut(&[usize])) {
    let span = |start: usize, length: usize, k: usize| {
        let (a, b) = (start + k * length / side, start + (k + 1) * length / side);
        a..b.max(a + 1).min(start + length).max(a + 1)
    };
    let mut cell = Vec::new();
    for cy in 0..side {
        for cx in 0..side {
            cell.clear();
            for y in span(r.y, r.height, cy) {
                cell.extend(span(r.x, r.width, cx).map(|x| y * width + x));
            }
            f(&cell);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_never_meet() {
        let mut seen = std::collections::HashSet::new();
        for split in [
            Split::Train,
            Split::Lessons,
            Split::Head,
            Split::Calibration,
            Split::Test,
        ] {
            for seed in 0..3 {
                for i in 0..50 {
                    assert!(seen.insert(split.seed(seed, i)));
                }
            }
        }
    }

    #[test]
    fn samples_have_their_maps() {
        let s = training_sample(3, 2).unwrap();
        assert_eq!(s.label, Class::Spatial);
        assert_eq!(s.active.len(), SHOWN);
        assert_eq!(s.mask.len(), SHOWN * HEAT_SIDE * HEAT_SIDE);
        assert_eq!(s.parts.len(), SHOWN * PARTS_SIDE * PARTS_SIDE);
        assert_eq!(s.inverse_depth.len(), s.parts.len());
        assert!(s.active.iter().any(|a| *a) && s.mask.iter().any(|m| *m > 0));
        assert!(s.parts.contains(&part::TORSO));
        let real = training_sample(3, 3).unwrap();
        assert!(
            real.label == Class::Real
                && real.mask.iter().all(|m| *m == 0)
                && !real.active.contains(&true)
        );
        let empty = training_sample(3, 2 * EMPTY_EVERY - 2).unwrap();
        assert!(empty.nobody && !empty.parts.iter().any(|p| part::is_person(*p)));
        assert_eq!(training_sample(3, 2).unwrap().input, s.input);
        let differ = real
            .input
            .pixels
            .iter()
            .zip(&s.input.pixels)
            .filter(|(a, b)| a != b)
            .count();
        assert!(
            differ > 0 && differ < s.input.pixels.len() * 3 / 4,
            "{differ}"
        );
    }
}
