//! Whether there is a person at all: a logistic regression on statistics of what the trunk sees in a square of the picture.
//!
//! With `p(c)` the probability that a place of the part map belongs to the body, `M` the places where a part of the body is likeliest, and
//! `K` the largest connected piece of `M`, over sixteen moments: how much of the square they cover, how sure the map is inside `M`, how
//! compact `K` is, how many different parts it has, how much `M` stays itself from moment to moment, how much more changes inside than outside,
//! how much nearer it is than what is around, whether a head is above a trunk, and how sure the surest place of a head, a trunk and a limb is.

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::input::{self, Input};
use super::network::{CHANNELS, FRAMES, Network, PARTS_SIDE, REGIONS, SIDE};
use super::trunk::Moments;
use crate::error::{HumansamError, Result};
use crate::model::backbone::vit::softmax;
use crate::model::evaluate::logistic::{Scaler, cholesky, solve};

/// Parts of the body, numbered from 1.
const BODY: usize = 15;
const PLACES: usize = PARTS_SIDE * PARTS_SIDE;
/// Length of [`Seen::numbers`].
pub const NUMBERS: usize = 13;

/// Penalty `λ/2 |w|²` beside the mean loss, and the Newton steps of the fit, far more than it takes.
const PENALTY: f64 = 3e-3;
const STEPS: usize = 30;
/// Share of the fit's persons that may be missed.
const MISSED: f64 = 0.005;

/// The fitted decision: a person is seen where `Σ_i w_i (x_i − m_i) / d_i + b ≥ 0`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Stored")]
pub struct Presence {
    /// Of the statistics.
    scaler: Scaler,
    weights: Vec<f64>,
    bias: f64,
    /// Places that it was fitted on, each with a person and without.
    pub places: usize,
}

/// A decision as a file has it.
#[derive(Deserialize)]
struct Stored {
    scaler: Scaler,
    weights: Vec<f64>,
    bias: f64,
    places: usize,
}

impl TryFrom<Stored> for Presence {
    type Error = String;

    fn try_from(stored: Stored) -> std::result::Result<Self, String> {
        let Stored {
            scaler,
            weights,
            bias,
            places,
        } = stored;
        let lengths = [&scaler.mean, &scaler.deviation, &weights].map(Vec::len);
        if lengths != [NUMBERS; 3] {
            return Err(format!(
                "presence: {lengths:?} means, deviations and weights where {NUMBERS} of each are expected; was it fitted by another version? Train the model again"
            ));
        }
        if !scaler.deviation.iter().all(|d| *d > 0.0) {
            return Err("presence: a deviation is not above zero; the file is damaged".into());
        }
        Ok(Self {
            scaler,
            weights,
            bias,
            places,
        })
    }
}

impl Presence {
    /// Fits it to statistics of places with a person and of places without. The bias is then set so that one in two hundred of the persons is missed.
    ///
    /// # Errors
    /// [`HumansamError::Argument`] without both sorts of [`NUMBERS`] finite numbers each.
    pub fn fit(with: &[Vec<f32>], without: &[Vec<f32>]) -> Result<Self> {
        let fits = |v: &Vec<f32>| v.len() == NUMBERS && v.iter().all(|x| x.is_finite());
        if with.is_empty() || without.is_empty() || !with.iter().chain(without).all(fits) {
            return Err(HumansamError::Argument(format!(
                "a decision on persons needs places with and without one, of {NUMBERS} finite numbers each; found {} and {}",
                with.len(),
                without.len()
            )));
        }
        let rows: Vec<Vec<f32>> = with.iter().chain(without).cloned().collect();
        let n = rows.len() as f64;
        let scaler = Scaler::fit(&rows);
        let x: Vec<Vec<f64>> = rows.iter().map(|r| standardised(&scaler, r)).collect();
        // Newton's method on the penalised loss; the constant, last, has no penalty.
        const WIDTH: usize = NUMBERS + 1;
        let mut w = vec![0.0; WIDTH];
        for _ in 0..STEPS {
            let mut step = vec![0.0; WIDTH];
            let mut curvature = vec![0.0; WIDTH * WIDTH];
            for (i, row) in x.iter().enumerate() {
                let z: f64 = row.iter().zip(&w).map(|(a, b)| a * b).sum();
                let p = 1.0 / (1.0 + (-z).exp());
                let target = f64::from(u8::from(i < with.len()));
                let c = (p * (1.0 - p)).max(1e-6);
                for (a, va) in row.iter().enumerate() {
                    step[a] += (p - target) * va / n;
                    for (b, vb) in row.iter().enumerate() {
                        curvature[WIDTH * a + b] += c * va * vb / n;
                    }
                }
            }
            for k in 0..NUMBERS {
                step[k] += PENALTY * w[k];
                curvature[WIDTH * k + k] += PENALTY;
            }
            solve(&cholesky(curvature, WIDTH), WIDTH, &mut step);
            for (w, d) in w.iter_mut().zip(step) {
                *w -= d;
            }
        }
        let mut fitted = Self {
            scaler,
            bias: 0.0,
            weights: w[..NUMBERS].to_vec(),
            places: with.len(),
        };
        let mut scores: Vec<f64> = with.iter().map(|r| fitted.score(r)).collect();
        scores.sort_by(f64::total_cmp);
        fitted.bias = -scores[(MISSED * with.len() as f64) as usize];
        Ok(fitted)
    }

    /// How clearly a person is seen; from 0 on, one is.
    pub fn score(&self, numbers: &[f32]) -> f64 {
        let x = standardised(&self.scaler, numbers);
        self.bias + x.iter().zip(&self.weights).map(|(a, b)| a * b).sum::<f64>()
    }
}

/// Standardised, and the constant 1 behind.
fn standardised(scaler: &Scaler, row: &[f32]) -> Vec<f64> {
    let mut x = scaler.apply(row);
    x.push(1.0);
    x
}

/// What the trunk sees in a square.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Likeliest part per moment and place, 0 for the background.
    pub parts: Vec<u8>,
    /// The statistics.
    pub numbers: Vec<f32>,
}

/// Looks at sixteen moments of a square.
///
/// # Errors
/// When tensor arithmetic fails.
pub fn look(network: &Network, input: &Input) -> Result<Seen> {
    let pixels = input::tensor(&[input])?;
    Seen::new(&network.moments(&pixels)?, &pixels)
}

fn log(v: f32) -> f32 {
    (v.max(0.0) + 1e-3).ln()
}

impl Seen {
    /// Of sixteen moments, given `pixels [FRAMES, SIDE, SIDE, CHANNELS]`.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn new(seen: &Moments, pixels: &Tensor) -> Result<Self> {
        let p = softmax(&seen.parts)?.flatten_all()?.to_vec1::<f32>()?;
        let near = seen.inverse_depth.flatten_all()?.to_vec1::<f32>()?;
        let pixels = pixels.flatten_all()?.to_vec1::<f32>()?;
        Ok(Self::of(&p, &near, &changes(&pixels)))
    }

    /// From probabilities `[FRAMES, PLACES, REGIONS]`, inverse depths and changes `[FRAMES, PLACES]`.
    fn of(p: &[f32], near: &[f32], change: &[f32]) -> Self {
        let parts: Vec<u8> = p
            .chunks_exact(REGIONS)
            .map(|q| (0..REGIONS).fold(0, |b, k| if q[k] > q[b] { k } else { b }) as u8)
            .collect();
        let body = |part: u8| (1..=BODY as u8).contains(&part);
        let soft: Vec<f32> = p
            .chunks_exact(REGIONS)
            .map(|q| q[1..=BODY].iter().sum())
            .collect();
        let share = |v: f32| v / PLACES as f32;
        let (mut covered, mut largest, mut fill, mut kinds, mut sure) = (0.0, 0.0, 0.0, 0.0, 0.0);
        let (mut kept, mut livelier, mut nearer, mut above) = (0.0, 0.0, 0.0, 0.0);
        let mut areas = Vec::with_capacity(FRAMES);
        for t in 0..FRAMES {
            let of = |v: &[f32]| -> Vec<f32> { v[t * PLACES..(t + 1) * PLACES].to_vec() };
            let m = &parts[t * PLACES..(t + 1) * PLACES];
            let (soft, near, change) = (of(&soft), of(near), of(change));
            covered += share(soft.iter().sum());
            let inside: Vec<bool> = m.iter().map(|&q| body(q)).collect();
            let piece = largest_piece(&inside);
            largest += share(piece.len() as f32);
            fill += compactness(&piece);
            let mut counts = [0usize; REGIONS];
            piece.iter().for_each(|&i| counts[usize::from(m[i])] += 1);
            kinds += counts[1..=BODY].iter().filter(|&&n| n >= 2).count() as f32 / BODY as f32;
            let area = inside.iter().filter(|i| **i).count() as f32;
            areas.push(share(area));
            let mean = |v: &[f32], wanted: bool| {
                let chosen = v.iter().zip(&inside).filter(|(_, i)| **i == wanted);
                let (sum, n) = chosen.fold((0.0, 1e-3), |(s, n), (v, _)| (s + v, n + 1.0));
                sum / n
            };
            sure += mean(&soft, true);
            livelier += log(mean(&change, true)) - log(mean(&change, false));
            nearer += mean(&near, true) - mean(&near, false);
            if t > 0 {
                let before = &parts[(t - 1) * PLACES..t * PLACES];
                let (mut both, mut either) = (0.0, 1e-3);
                for (a, b) in before.iter().zip(m) {
                    both += f32::from(u8::from(body(*a) && body(*b)));
                    either += f32::from(u8::from(body(*a) || body(*b)));
                }
                kept += both / either;
            }
            let row = |of: std::ops::RangeInclusive<u8>| {
                let rows = (0..PLACES).filter(|&i| of.contains(&m[i]));
                let (sum, n) = rows.fold((0.0, 0.0), |(s, n), i| {
                    (s + (i / PARTS_SIDE) as f32 / PARTS_SIDE as f32, n + 1.0)
                });
                (n > 0.0).then_some(sum / n)
            };
            if let (Some(head), Some(trunk)) = (row(2..=3), row(1..=1)) {
                above += if trunk > head { 1.0 } else { -1.0 };
            }
        }
        let n = FRAMES as f32;
        let middle = areas.iter().sum::<f32>() / n;
        let spread = areas.iter().map(|a| (a - middle).powi(2)).sum::<f32>() / n;
        let peak = |of: std::ops::RangeInclusive<usize>| {
            (0..FRAMES)
                .map(|t| {
                    p[t * PLACES * REGIONS..(t + 1) * PLACES * REGIONS]
                        .chunks_exact(REGIONS)
                        .map(|q| q[of.clone()].iter().sum::<f32>())
                        .fold(0.0, f32::max)
                })
                .sum::<f32>()
                / n
        };
        let numbers = vec![
            log(covered / n),
            log(largest / n),
            fill / n,
            kinds / n,
            sure / n,
            kept / (n - 1.0),
            livelier / n,
            nearer / n,
            above / n,
            log(spread.sqrt()),
            peak(2..=3),
            peak(1..=1),
            peak(4..=BODY),
        ];
        debug_assert_eq!(numbers.len(), NUMBERS);
        Self { parts, numbers }
    }
}

/// Mean change of luma, before and after, at each place of the part maps.
fn changes(pixels: &[f32]) -> Vec<f32> {
    let k = SIDE / PARTS_SIDE;
    let mut out = vec![0f32; FRAMES * PLACES];
    for (i, p) in pixels.chunks_exact(CHANNELS).enumerate() {
        let (t, y, x) = (i / (SIDE * SIDE), i / SIDE % SIDE, i % SIDE);
        out[t * PLACES + y / k * PARTS_SIDE + x / k] +=
            (p[3].abs() + p[4].abs()) / (2 * k * k) as f32;
    }
    out
}

/// Places of the largest piece whose places touch at their sides.
fn largest_piece(inside: &[bool]) -> Vec<usize> {
    let mut left = inside.to_vec();
    let mut best = Vec::new();
    for start in 0..left.len() {
        if !left[start] {
            continue;
        }
        left[start] = false;
        let mut piece = vec![start];
        let mut next = 0;
        while next < piece.len() {
            let i = piece[next];
            next += 1;
            let (x, y) = (i % PARTS_SIDE, i / PARTS_SIDE);
            let around = [
                (x > 0).then(|| i - 1),
                (x + 1 < PARTS_SIDE).then_some(i + 1),
                (y > 0).then(|| i - PARTS_SIDE),
                (y + 1 < PARTS_SIDE).then_some(i + PARTS_SIDE),
            ];
            for j in around.into_iter().flatten() {
                if left[j] {
                    left[j] = false;
                    piece.push(j);
                }
            }
        }
        if piece.len() > best.len() {
            best = piece;
        }
    }
    best
}

/// Share of its box that a piece fills.
fn compactness(piece: &[usize]) -> f32 {
    let (mut l, mut r, mut t, mut b) = (PARTS_SIDE, 0, PARTS_SIDE, 0);
    for i in piece {
        let (x, y) = (i % PARTS_SIDE, i / PARTS_SIDE);
        (l, r, t, b) = (l.min(x), r.max(x + 1), t.min(y), b.max(y + 1));
    }
    if piece.is_empty() {
        return 0.0;
    }
    piece.len() as f32 / ((r - l) * (b - t)) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seed: usize) -> f32 {
        ((seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f32 / (1u64 << 24) as f32
    }

    #[test]
    fn a_person_of_parts_is_told_from_scattered_specks() {
        let scene = |person: bool| {
            let mut p = vec![0f32; FRAMES * PLACES * REGIONS];
            for (i, q) in p.chunks_exact_mut(REGIONS).enumerate() {
                let (x, y) = (i % PLACES % PARTS_SIDE, i % PLACES / PARTS_SIDE);
                let part = match (person, x, y) {
                    (true, 10..13, 4..6) => 2,
                    (true, 9..14, 6..14) => 1,
                    (true, 9..11, 14..20) => 10,
                    (false, _, _) if at(i + 7) < 0.03 => 1 + i % BODY,
                    _ => 0,
                };
                q[0] = 0.2;
                q[part] += 0.8;
            }
            Seen::of(&p, &vec![0.3; FRAMES * PLACES], &vec![0.1; FRAMES * PLACES])
        };
        let (person, specks) = (scene(true), scene(false));
        assert_eq!(person.numbers.len(), NUMBERS);
        assert!(person.parts.contains(&10) && person.numbers.iter().all(|v| v.is_finite()));
        // Largest piece, kinds, being kept, head above trunk.
        for k in [1, 3, 5, 8] {
            assert!(person.numbers[k] > specks.numbers[k] + 0.05, "{k}");
        }
        assert_eq!(largest_piece(&[false; PLACES]), Vec::<usize>::new());
    }

    #[test]
    fn the_decision_is_learned_and_misses_hardly_a_person() {
        let row = |i: usize, person: bool| -> Vec<f32> {
            (0..NUMBERS)
                .map(|k| at(31 * i + k) + if person && k < 3 { 0.6 } else { 0.0 })
                .collect()
        };
        let of = |from: usize, person| {
            (from..from + 400)
                .map(|i| row(i, person))
                .collect::<Vec<_>>()
        };
        let (with, without) = (of(0, true), of(1000, false));
        let d = Presence::fit(&with, &without).unwrap();
        let share = |rows: &[Vec<f32>]| rows.iter().filter(|r| d.score(r) >= 0.0).count();
        assert!(share(&with) >= 398, "{}", share(&with));
        assert!(share(&of(2000, true)) >= 385 && share(&of(3000, false)) <= 60);
        let text = serde_json::to_string(&d).unwrap();
        let read: Presence = serde_json::from_str(&text).unwrap();
        assert!((read.score(&with[0]) - d.score(&with[0])).abs() < 1e-9);
        assert!(Presence::fit(&with, &[]).is_err());
        assert!(Presence::fit(&with, &[vec![f32::NAN; NUMBERS]]).is_err());
    }
    #[test]
    fn a_stored_decision_of_other_lengths_is_refused() {
        let card = |numbers: usize, deviation: f64| {
            serde_json::json!({
                "scaler": { "mean": vec![0.0; NUMBERS], "deviation": vec![deviation; numbers] },
                "weights": vec![1.0; numbers], "bias": 0.5, "places": 3,
            })
        };
        let read = serde_json::from_value::<Presence>;
        let decision = read(card(NUMBERS, 2.0)).unwrap();
        assert_eq!(decision.score(&[2.0; NUMBERS]), 0.5 + NUMBERS as f64);
        assert_eq!(
            serde_json::from_value::<Presence>(serde_json::to_value(&decision).unwrap()).unwrap(),
            decision
        );
        for (bad, said) in [
            (card(NUMBERS - 1, 1.0), "expected"),
            (card(NUMBERS, 0.0), "above zero"),
        ] {
            let message = read(bad).unwrap_err().to_string();
            assert!(message.contains(said), "{message}");
        }
    }
}
