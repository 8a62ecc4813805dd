//! Clips of the generator as samples for the network.

use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};

use super::input::{Input, Region, moments};
use super::loss::Sample;
use super::network::{FRAMES, HEAT_SIDE, PARTS, PARTS_SIDE};
use crate::class::Class;
use crate::error::Result;
use crate::generator::{self, Pool, Rendered, Spec, part};

/// Sides of the clips that training renders, pixels: coarse and fine ones, for cameras differ.
const RENDERED: [usize; 3] = [112, 144, 176];
/// Frames a second, as videos of the usual rates have when they are thinned out to about [`RATE`](super::input::RATE).
const RATES: [f64; 4] = [10.0, 12.0, 12.5, 15.0];
/// Of so many training pairs, one shows a place with nobody in it, and the same place with a person.
const EMPTY_EVERY: u64 = 12;
/// Least severity in training: what can hardly be seen teaches little.
const SEVERITY: f32 = 0.4;

/// Seeds of training, of fitting the head, of calibration and of tests never meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// The network's training.
    Train,
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

/// Training clips come in counterfactual pairs, which differ in the anomaly and in nothing else: an even `index` is forged, its
/// kind taking turns, the odd one after it is the same clip without the anomaly, cut in the same way.
///
/// # Errors
/// When the generator refuses the specification.
pub fn training_sample(seed: u64, index: u64) -> Result<Sample> {
    let pair = index / 2;
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    rng.set_stream(pair);
    let mut unit = || f64::from(rng.next_u32()) / f64::from(u32::MAX);
    let (close, margin) = (unit() < 0.75, 0.02 + 0.13 * unit());
    let forged = Spec {
        class: Class::FORGED[(pair % 3) as usize],
        severity: Some(SEVERITY + (1.0 - SEVERITY) * unit() as f32),
        ..training_spec(Split::Train, seed, pair)
    };
    let first = index.is_multiple_of(2);
    let empty = pair % EMPTY_EVERY == EMPTY_EVERY - 1;
    let spec = match (first, empty) {
        (true, false) => forged,
        (true, true) => Spec {
            nobody: true,
            ..forged.twin()
        },
        (false, _) => forged.twin(),
    };
    let rendered = generator::sample(&spec)?;
    let region = match person(&rendered) {
        Some(bounds) if close => {
            Region::around(bounds, margin, rendered.clip.width, rendered.clip.height)
        }
        _ => Region::whole(&rendered.clip),
    };
    Ok(Sample {
        nobody: spec.nobody,
        ..sample(&rendered, region)
    })
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

/// Everything the network is taught by, of a region of a clip rendered with its maps.
pub fn sample(r: &Rendered, region: Region) -> Sample {
    let moments = moments(0, r.clip.frames.len());
    let width = r.clip.width;
    let mut active = [false; FRAMES];
    let mut mask = Vec::with_capacity(FRAMES * HEAT_SIDE * HEAT_SIDE);
    let mut parts = Vec::with_capacity(FRAMES * PARTS_SIDE * PARTS_SIDE);
    let mut near = Vec::with_capacity(FRAMES * PARTS_SIDE * PARTS_SIDE);
    for (f, &m) in moments.iter().enumerate() {
        active[f] = r
            .anomaly
            .as_ref()
            .is_some_and(|a| (a.first_frame..=a.last_frame).contains(&m));
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
    Sample {
        input: Input::new(&r.clip, &moments, region),
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
        for split in [Split::Train, Split::Head, Split::Calibration, Split::Test] {
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
        assert_eq!(s.mask.len(), FRAMES * HEAT_SIDE * HEAT_SIDE);
        assert_eq!(s.parts.len(), FRAMES * PARTS_SIDE * PARTS_SIDE);
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
        assert!(differ > 0 && differ < s.input.pixels.len() / 2, "{differ}");
    }
}
