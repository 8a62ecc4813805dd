//! What the native network is taught by: class, span of time, place, parts and depth all come from the generator.
//!
//! ```text
//! trunk       BCE(kinds at a moment) + 0.5 · BCE(heat map, places with an anomaly count 4 times)
//!             + CE(parts) + Dice(parts) + 0.5 · |inverse depth|
//! over time   RCE(class) + 0.5 · BCE(time line, moments with an anomaly count twice)
//! ```
//!
//! With `p_ic` the probability that place `i` of a clip (`n` places over all its moments) shows part `c`, `t_ic` 1 for the true part and
//! else 0, `f_c` the share of all places that show `c` and `C` the parts that are in the clip, background among them:
//!
//! ```text
//! CE   = −1/n Σ_i Σ_c w_c t_ic ln p_ic,      w_c = f_c^−½ / Σ_k f_k^½     (so that the mean weight of a place is 1)
//! Dice = 1 − 1/|C| Σ_{c ∈ C} (2 Σ_i p_ic t_ic + 1) / (Σ_i p_ic + Σ_i t_ic + 1)
//! ```
//!
//! Without weights nine places in ten are background or trunk, and a hand or a limb too many is never worth saying; Dice counts every part
//! of the clip alike, however small.

use candle_core::{Device, Tensor};

use super::input::Input;
use super::likeliest;
use super::network::{FRAMES, HEAT_SIDE, KINDS, PARTS_SIDE, REGIONS};
use super::trunk::Moments;
use crate::class::Class;
use crate::error::Result;
use crate::model::rce;

/// Share of the picture (the sum of the mask over the cells of the heat map, 255 a cell) from which on a moment shows its anomaly.
const SHOWS: u32 = 64;

/// `w_c` of background and parts, from the shares of places in 600 samples of training (`weights_are_those_of_the_frequencies`).
const PART_WEIGHTS: [f32; REGIONS] = [
    0.46, 1.48, 3.87, 5.71, 3.51, 3.52, 4.84, 4.99, 9.00, 8.26, 3.33, 3.37, 6.66, 6.85, 13.63,
    13.91, 5.45, 15.08,
];

/// Moments of a clip with everything that is known about them.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What the network sees.
    pub input: Input,
    /// The class.
    pub label: Class,
    /// Whether there is nobody in the picture.
    pub nobody: bool,
    /// Whether the anomaly is on at each moment.
    pub active: Vec<bool>,
    /// Share of each heat cell that the anomaly covers, `[moments, HEAT_SIDE²]`, 255 for all.
    pub mask: Vec<u8>,
    /// Background 0 or part 1.., `[moments, PARTS_SIDE²]`.
    pub parts: Vec<u8>,
    /// Inverse depth, 200 at one metre, `[moments, PARTS_SIDE²]`.
    pub inverse_depth: Vec<u8>,
}

/// Loss and its parts, for the log.
#[derive(Debug)]
pub struct Losses {
    /// What gradients are taken of.
    pub total: Tensor,
    /// Kinds, heat map, parts by cross-entropy and by Dice, depth.
    pub parts: [f64; 5],
    /// Likeliest and true parts.
    pub overlap: Overlap,
}

/// `max(x, 0) - x t + ln(1 + exp(-|x|))`, element by element.
pub(crate) fn binary_cross_entropy(x: &Tensor, t: &Tensor) -> Result<Tensor> {
    let log = (x.abs()?.neg()?.exp()? + 1.0)?.log()?;
    Ok(((x.relu()? - x.mul(t)?)? + log)?)
}

/// The time line's targets of a window, `[FRAMES, KINDS]`.
pub fn line(label: Class, active: &[bool; FRAMES]) -> Vec<f32> {
    let mut out = vec![0f32; FRAMES * KINDS];
    if label.is_forged() {
        for (f, _) in active.iter().enumerate().filter(|(_, a)| **a) {
            out[f * KINDS + label.label()] = 1.0;
        }
    }
    out
}

/// The trunk's loss on the moments of one clip.
///
/// # Errors
/// When shapes do not fit.
pub fn of_moments(out: &Moments, s: &Sample) -> Result<Losses> {
    let n = s.active.len();
    let device = Device::Cpu;
    let cells = HEAT_SIDE * HEAT_SIDE;
    let mut kinds = vec![0f32; n * KINDS];
    let mut heat = vec![0f32; n * cells * KINDS];
    if s.label.is_forged() {
        let k = s.label.label();
        for f in (0..n).filter(|&f| s.active[f]) {
            let mask = &s.mask[f * cells..(f + 1) * cells];
            if mask.iter().map(|m| u32::from(*m)).sum::<u32>() >= SHOWS {
                kinds[f * KINDS + k] = 1.0;
            }
            for (c, _) in mask.iter().enumerate().filter(|(_, m)| **m >= 32) {
                // A cell counts from an eighth of its area on.
                heat[(f * cells + c) * KINDS + k] = 1.0;
            }
        }
    }
    let kinds = Tensor::from_vec(kinds, (n, KINDS), &device)?;
    let kinds =
        (binary_cross_entropy(&out.kinds, &kinds)?.mean_all()? * f64::from(u8::from(!s.nobody)))?;
    let heat = Tensor::from_vec(heat, (n, cells, KINDS), &device)?;
    let weight = ((&heat * 3.0)? + 1.0)?;
    let place = (binary_cross_entropy(&out.heat, &heat)?
        .mul(&weight)?
        .mean_all()?
        * 10.0)?;

    let (body, overlap) = of_parts(&out.parts, &s.parts)?;

    // The person counts more than what is around.
    let weight: Vec<f32> = s
        .parts
        .iter()
        .map(|p| if *p == 0 { 0.3 } else { 1.0 })
        .collect();
    let sum: f32 = weight.iter().sum();
    let near: Vec<f32> = s
        .inverse_depth
        .iter()
        .map(|v| f32::from(*v) / 200.0)
        .collect();
    let shape = (n, PARTS_SIDE * PARTS_SIDE);
    let near = Tensor::from_vec(near, shape, &device)?;
    let weight = Tensor::from_vec(weight, shape, &device)?;
    let difference = (&out.inverse_depth - near)?.abs()?;
    let depth = ((difference.mul(&weight)?.sum_all()? / f64::from(sum.max(1.0)))? * 4.0)?;

    let value = |t: &Tensor| -> Result<f64> { Ok(f64::from(t.to_scalar::<f32>()?)) };
    let values = [
        value(&kinds)?,
        value(&place)?,
        value(&body)?,
        value(&overlap)?,
        value(&depth)?,
    ];
    let half = |t: Tensor| t * 0.5;
    Ok(Losses {
        total: ((((kinds + half(place)?)? + body)? + overlap)? + half(depth)?)?,
        parts: values,
        overlap: Overlap::of(&likeliest(&out.parts)?, &s.parts),
    })
}

/// Weighted cross-entropy and soft Dice loss of the parts of one clip, given `logits [moments, PARTS_SIDE², REGIONS]` and the true
/// part of each place.
///
/// # Errors
/// When shapes do not fit.
fn of_parts(logits: &Tensor, parts: &[u8]) -> Result<(Tensor, Tensor)> {
    let device = Device::Cpu;
    let places = parts.len();
    let log = rce::log_softmax(&logits.reshape((places, REGIONS))?)?;
    let mut truth = vec![0f32; places * REGIONS];
    let mut counts = [0f32; REGIONS];
    for (row, p) in truth.chunks_exact_mut(REGIONS).zip(parts) {
        row[usize::from(*p)] = 1.0;
        counts[usize::from(*p)] += 1.0;
    }
    let truth = Tensor::from_vec(truth, (places, REGIONS), &device)?;
    let weight = Tensor::new(&PART_WEIGHTS, &device)?;
    let entropy = (log.mul(&truth)?.sum(0)?.mul(&weight)?.sum_all()? / -(places as f64))?;

    let p = log.exp()?;
    let both = p.mul(&truth)?.sum(0)?;
    let one = (p.sum(0)? + Tensor::new(&counts, &device)?)?;
    let dice = (((both * 2.0)? + 1.0)? / (one + 1.0)?)?;
    let present = counts.map(|c| f32::from(u8::from(c > 0.0)));
    let number: f32 = present.iter().sum();
    let dice = (dice.mul(&Tensor::new(&present, &device)?)?.sum_all()? / f64::from(number))?;
    Ok((entropy, (1.0 - dice)?))
}

/// Places that are said to be a part and are, and places that are said to be it or are it; by number of the part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overlap {
    both: [u64; REGIONS],
    either: [u64; REGIONS],
}

impl Overlap {
    /// Of what is said of each place and what is true.
    pub fn of(said: &[u8], truth: &[u8]) -> Self {
        let mut out = Self::default();
        for (s, t) in said.iter().zip(truth) {
            let (s, t) = (usize::from(*s), usize::from(*t));
            out.either[s] += 1;
            if s == t {
                out.both[s] += 1;
            } else {
                out.either[t] += 1;
            }
        }
        out
    }

    /// Counts of both together.
    pub fn add(&mut self, other: &Self) {
        for r in 0..REGIONS {
            self.both[r] += other.both[r];
            self.either[r] += other.either[r];
        }
    }

    /// Intersection over union of a part; `None` where it neither is nor is said to be.
    pub fn iou(&self, part: u8) -> Option<f64> {
        let r = usize::from(part);
        (self.either[r] > 0).then(|| self.both[r] as f64 / self.either[r] as f64)
    }

    /// Mean over the parts, background left out; 0 where there are none.
    pub fn mean_iou(&self) -> f64 {
        let each: Vec<f64> = (1..REGIONS as u8).filter_map(|p| self.iou(p)).collect();
        each.iter().sum::<f64>() / each.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::native::data::training_sample;
    use candle_core::Var;
    use rayon::prelude::*;

    fn number(t: &Tensor) -> f64 {
        f64::from(t.to_scalar::<f32>().unwrap())
    }

    /// Logits by which each place is surely what is said.
    fn sure(said: &[u8]) -> Tensor {
        let mut logits = vec![0f32; said.len() * REGIONS];
        for (row, s) in logits.chunks_exact_mut(REGIONS).zip(said) {
            row[usize::from(*s)] = 30.0;
        }
        Tensor::from_vec(logits, (1, said.len(), REGIONS), &Device::Cpu).unwrap()
    }

    #[test]
    fn dice_and_entropy_of_a_made_up_case() {
        let truth = [0u8, 0, 1, 2];
        let (_, dice) = of_parts(&sure(&[0, 1, 1, 0]), &truth).unwrap();
        // Background: 1 right of 2 said and 2 true; part 1: 1 of 2 and 1; part 2: none of 0 and 1.
        let want = 1.0 - (3.0 / 5.0 + 3.0 / 4.0 + 1.0 / 2.0) / 3.0;
        assert!((number(&dice) - want).abs() < 1e-6, "{dice} {want}");
        let (entropy, dice) = of_parts(&sure(&truth), &truth).unwrap();
        assert!(number(&entropy) < 1e-6 && number(&dice) < 1e-6);
        // Nothing known: the logarithm of the number of parts, times the weights of the true ones.
        let (entropy, _) = of_parts(&(sure(&truth) * 0.0).unwrap(), &truth).unwrap();
        let w = PART_WEIGHTS.map(f64::from);
        let want = (REGIONS as f64).ln() * (2.0 * w[0] + w[1] + w[2]) / 4.0;
        assert!((number(&entropy) - want).abs() < 1e-4, "{entropy} {want}");
    }

    #[test]
    fn the_gradient_of_the_parts_is_the_difference_quotient() {
        let truth = [0u8, 0, 0, 1, 4, 17, 1, 9];
        let value = |i: usize| ((i * 7919 % 1000) as f32 / 500.0) - 1.0;
        let start: Vec<f32> = (0..truth.len() * REGIONS).map(value).collect();
        let loss = |x: &Tensor| {
            let (entropy, dice) = of_parts(x, &truth).unwrap();
            (entropy + (dice * 3.0).unwrap()).unwrap()
        };
        let at =
            |x: Vec<f32>| Tensor::from_vec(x, (2, truth.len() / 2, REGIONS), &Device::Cpu).unwrap();
        let x = Var::from_tensor(&at(start.clone())).unwrap();
        let gradients = loss(&x).backward().unwrap();
        let got: Vec<f32> = gradients
            .get(&x)
            .unwrap()
            .flatten_all()
            .unwrap()
            .to_vec1()
            .unwrap();
        for i in (0..start.len()).step_by(5) {
            let moved = |by: f32| {
                let mut x = start.clone();
                x[i] += by;
                number(&loss(&at(x)))
            };
            let quotient = (moved(0.02) - moved(-0.02)) / 0.04;
            assert!(
                (f64::from(got[i]) - quotient).abs() < 2e-3,
                "{i}: {} {quotient}",
                got[i]
            );
        }
    }

    #[test]
    fn overlaps_add_up() {
        let mut all = Overlap::of(&[1, 1, 0], &[1, 0, 0]);
        all.add(&Overlap::of(&[2, 1], &[2, 2]));
        // Part 1: one of three places; part 2: one of two.
        assert_eq!(
            (all.iou(1), all.iou(2), all.iou(3)),
            (Some(1.0 / 3.0), Some(0.5), None)
        );
        assert!((all.mean_iou() - 5.0 / 12.0).abs() < 1e-12);
        assert_eq!(Overlap::default().mean_iou(), 0.0);
    }

    /// The shares of places that each part covers, on samples of training.
    fn shares(samples: u64) -> [f64; REGIONS] {
        let counts = (0..samples)
            .into_par_iter()
            .map(|i| {
                let mut counts = [0u64; REGIONS];
                for p in training_sample(1, i).unwrap().parts {
                    counts[usize::from(p)] += 1;
                }
                counts
            })
            .reduce(|| [0; REGIONS], |a, b| std::array::from_fn(|i| a[i] + b[i]));
        let all: u64 = counts.iter().sum();
        counts.map(|c| c as f64 / all as f64)
    }

    #[test]
    fn the_mean_weight_of_a_place_is_one() {
        let mean: f64 = shares(40)
            .iter()
            .zip(PART_WEIGHTS)
            .map(|(f, w)| f * f64::from(w))
            .sum();
        assert!((mean - 1.0).abs() < 0.15, "{mean}");
    }

    /// Half a minute.
    #[test]
    #[ignore = "renders 600 samples: cargo test --release -p tacit-humansam --lib -- --ignored weights_are_those"]
    fn weights_are_those_of_the_frequencies() {
        let f = shares(600);
        let sum: f64 = f.iter().map(|f| f.sqrt()).sum();
        let weights = f.map(|f| 1.0 / (f.sqrt() * sum));
        println!("{weights:.2?}");
        for (got, want) in PART_WEIGHTS.iter().zip(weights) {
            assert!((f64::from(*got) / want - 1.0).abs() < 0.25, "{got} {want}");
        }
    }
}
