//! More than three scores: where the residuals lie, how they run over time, and many statistics of both.
//!
//! With the quantities of [`priors`](super) at every pixel — residual of colour `c`, change of detail `d`, acceleration `a`, speed `v` (flow less
//! the camera's), unsure `u` (flow forth and back disagree) — a *curve* has, per frame, the mean over the subject, the value that a tenth of the
//! subject exceeds, and the largest mean over 5×5 pixels anywhere. The *statistics* are logarithms of each curve's mean, largest value, largest less
//! median, and mean size of its second difference; changes of the subject's colours between frames one, four and many apart, for the whole and for its
//! upper, middle and lower third; and how its middle and its area move.

use super::{Analysis, Priors, mean, median};
use crate::clip::{Clip, Plane};
use crate::flow::box_sum;

/// Maps of [`Evidence::maps`]: flow to the right and down without the camera's, acceleration, residual of colour, change of detail, unsure.
pub const MAPS: usize = 6;
/// Quantities that curves are made of.
const QUANTITIES: usize = 5;
/// Curves per quantity.
const WAYS: usize = 3;
/// Numbers per frame in [`Evidence::curves`].
pub const CURVES: usize = QUANTITIES * WAYS;
/// Bands of the subject: whole, upper, middle and lower third.
const BANDS: usize = 4;
/// Length of [`Evidence::statistics`].
pub const STATISTICS: usize = 4 * CURVES + 3 * BANDS + 6;
/// Bins a channel of the colour histograms.
const BINS: usize = 6;

/// What a window shows without any weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// The three scores.
    pub priors: Priors,
    /// `[frames, side², MAPS]`.
    pub maps: Vec<f32>,
    /// `[frames, CURVES]`, logarithms.
    pub curves: Vec<f32>,
    /// [`STATISTICS`] numbers.
    pub statistics: Vec<f32>,
}

fn log(v: f32) -> f32 {
    (v.max(0.0) + 1e-3).ln()
}

/// Measures a clip; maps are `side × side`.
pub fn measure(clip: &Clip, side: usize) -> Evidence {
    let a = Analysis::new(clip);
    let n = a.frames.len();
    let mut maps = Vec::with_capacity(n * side * side * MAPS);
    let mut curves = Vec::with_capacity(n * CURVES);
    for t in 0..n {
        let planes = planes(&a, t);
        let small: Vec<Vec<f32>> = planes.iter().map(|p| shrunk(p, side)).collect();
        for i in 0..side * side {
            maps.extend(small.iter().map(|s| s[i]));
        }
        let weight = &a.weights[t];
        let speed = Plane {
            data: planes[0]
                .data
                .iter()
                .zip(&planes[1].data)
                .map(|(u, v)| u.hypot(*v))
                .collect(),
            ..planes[0]
        };
        for p in [&planes[3], &planes[4], &planes[2], &speed, &planes[5]] {
            curves.extend(ways(p, weight).map(log));
        }
    }
    let mut statistics = Vec::with_capacity(STATISTICS);
    for k in 0..CURVES {
        let curve: Vec<f32> = (0..n).map(|t| curves[t * CURVES + k]).collect();
        // What stands for the last frame repeats the one before.
        let curve = &curve[..n.saturating_sub(1).max(1)];
        let most = curve.iter().copied().fold(f32::MIN, f32::max);
        let uneven: Vec<f32> = curve
            .windows(3)
            .map(|w| (w[2] - 2.0 * w[1] + w[0]).abs())
            .collect();
        statistics.extend([mean(curve), most, most - median(curve), mean(&uneven)]);
    }
    statistics.extend(colours(&a));
    statistics.extend(place(&a));
    debug_assert_eq!(statistics.len(), STATISTICS);
    Evidence {
        priors: a.priors(),
        maps,
        curves,
        statistics,
    }
}

/// The maps of a frame at the analysed size; those of the last frame repeat the one before.
fn planes(a: &Analysis, t: usize) -> [Plane; MAPS] {
    let (w, h) = (a.frames[t].width(), a.frames[t].height());
    let blank = || Plane::filled(w, h, 0.0);
    let Some(pair) = a.pairs.get(t).or(a.pairs.last()) else {
        return std::array::from_fn(|_| blank());
    };
    let unsure = Plane {
        width: w,
        height: h,
        data: pair.sure.iter().map(|s| 1.0 - s).collect(),
    };
    let acceleration = a.acceleration.get(t).or(a.acceleration.last());
    let colour = a.colour.get(t).or(a.colour.last());
    [
        pair.own.u.clone(),
        pair.own.v.clone(),
        acceleration.map_or_else(blank, |a| a.map.clone()),
        colour.map_or_else(blank, |c| c.residual.clone()),
        colour.map_or_else(blank, |c| c.change.clone()),
        unsure,
    ]
}

/// Means over `side × side` cells.
fn shrunk(p: &Plane, side: usize) -> Vec<f32> {
    let span = |k: usize, n: usize| {
        let a = (k * n / side).min(n - 1);
        a..((k + 1) * n).div_ceil(side).clamp(a + 1, n)
    };
    let mut out = Vec::with_capacity(side * side);
    for cy in 0..side {
        for cx in 0..side {
            let (rows, columns) = (span(cy, p.height), span(cx, p.width));
            let count = rows.len() * columns.len();
            let sum: f32 = rows
                .flat_map(|y| columns.clone().map(move |x| (x, y)))
                .map(|(x, y)| p.at(x, y))
                .sum();
            out.push(sum / count as f32);
        }
    }
    out
}

/// Mean over the subject, the value that a tenth of it exceeds, and the largest mean over 5×5 pixels.
fn ways(p: &Plane, weight: &Plane) -> [f32; WAYS] {
    let (mut sum, mut all) = (0.0, 1e-6);
    let mut inside = Vec::new();
    for (v, w) in p.data.iter().zip(&weight.data) {
        sum += v * w;
        all += w;
        if *w > 0.5 {
            inside.push(*v);
        }
    }
    let tenth = if inside.is_empty() {
        sum / all
    } else {
        let k = inside.len() * 9 / 10;
        *inside.select_nth_unstable_by(k, f32::total_cmp).1
    };
    let mut smooth: Vec<f32> = p
        .data
        .iter()
        .zip(&weight.data)
        .map(|(v, w)| v * w / 25.0)
        .collect();
    box_sum(&mut smooth, p.width, p.height, 2);
    let peak = smooth.into_iter().fold(0.0, f32::max);
    [sum / all, tenth, peak]
}

/// `½ Σ |p − q|` between the colours of the subject in frames one apart (mean and largest), four apart (largest), and between the
/// first and the last quarter, for the whole and each third.
fn colours(a: &Analysis) -> Vec<f32> {
    let n = a.frames.len();
    let histograms: Vec<[Vec<f32>; BANDS]> = (0..n).map(|t| histograms(a, t)).collect();
    let normal = |h: &[f32]| {
        let sum: f32 = h.iter().sum::<f32>() + 1e-6;
        h.iter().map(|v| v / sum).collect::<Vec<f32>>()
    };
    let apart =
        |p: &[f32], q: &[f32]| 0.5 * p.iter().zip(q).map(|(a, b)| (a - b).abs()).sum::<f32>();
    let quarter = (n / 4).max(1);
    let mut out = Vec::with_capacity(3 * BANDS);
    for band in 0..BANDS {
        let each: Vec<Vec<f32>> = histograms.iter().map(|h| normal(&h[band])).collect();
        let steps =
            |k: usize| -> Vec<f32> { (k..n).map(|t| apart(&each[t], &each[t - k])).collect() };
        let near = steps(1);
        let sum = |range: std::ops::Range<usize>| {
            let mut total = vec![0f32; BINS * BINS * BINS];
            for t in range {
                for (s, v) in total.iter_mut().zip(&histograms[t][band]) {
                    *s += v;
                }
            }
            normal(&total)
        };
        let far = apart(&sum(0..quarter), &sum(n - quarter..n));
        let most = near.iter().copied().fold(0.0, f32::max);
        out.extend([log(mean(&near)), log(most - median(&near)), log(far)]);
    }
    out
}

/// Soft counts of the subject's colours in frame `t`, whole and in thirds of its height.
fn histograms(a: &Analysis, t: usize) -> [Vec<f32>; BANDS] {
    let (frame, weight) = (&a.frames[t], &a.weights[t]);
    let rows: Vec<f32> = (0..weight.height)
        .map(|y| (0..weight.width).map(|x| weight.at(x, y)).sum())
        .collect();
    let all: f32 = rows.iter().sum::<f32>() + 1e-6;
    let mut out: [Vec<f32>; BANDS] = std::array::from_fn(|_| vec![0.0; BINS * BINS * BINS]);
    let mut above = 0.0;
    for (y, row) in rows.iter().enumerate() {
        let third = ((above + 0.5 * row) / all * 3.0).min(2.0) as usize;
        above += row;
        for x in 0..weight.width {
            let p = frame.pixel(x, y);
            let bin = |v: u8| usize::from(v) * BINS / 256;
            let i = (bin(p[0]) * BINS + bin(p[1])) * BINS + bin(p[2]);
            out[0][i] += weight.at(x, y);
            out[1 + third][i] += weight.at(x, y);
        }
    }
    out
}

/// How the subject's middle and area move: mean and largest second difference of the middle, largest step, deviation of the area,
/// its mean, and its largest step.
fn place(a: &Analysis) -> [f32; 6] {
    let places: Vec<[f32; 3]> = a
        .weights
        .iter()
        .map(|w| {
            let (mut x, mut y, mut all) = (0.0, 0.0, 1e-6);
            for (i, v) in w.data.iter().enumerate() {
                x += v * (i % w.width) as f32;
                y += v * (i / w.width) as f32;
                all += v;
            }
            let size = w.width.max(w.height) as f32;
            [x / all / size, y / all / size, all / w.data.len() as f32]
        })
        .collect();
    let second: Vec<f32> = places
        .windows(3)
        .map(|p| (p[2][0] - 2.0 * p[1][0] + p[0][0]).hypot(p[2][1] - 2.0 * p[1][1] + p[0][1]))
        .collect();
    let step: Vec<f32> = places
        .windows(2)
        .map(|p| (p[1][0] - p[0][0]).hypot(p[1][1] - p[0][1]))
        .collect();
    let areas: Vec<f32> = places.iter().map(|p| p[2]).collect();
    let middle = mean(&areas);
    let spread: Vec<f32> = areas.iter().map(|v| (v - middle).powi(2)).collect();
    let jumps: Vec<f32> = areas.windows(2).map(|p| (p[1] - p[0]).abs()).collect();
    let most = |v: &[f32]| v.iter().copied().fold(0.0, f32::max);
    [
        log(mean(&second)),
        log(most(&second)),
        log(most(&step) - median(&step)),
        log(mean(&spread).sqrt()),
        log(middle),
        log(most(&jumps) - median(&jumps)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clip::Frame;

    fn square(n: usize, jump: usize, recolour: usize) -> Clip {
        let frames = (0..n)
            .map(|t| {
                let mut f = Frame::black(48, 48);
                let x0 = 16 + if t >= jump { 8 } else { 0 };
                for y in 10..40 {
                    for x in x0..x0 + 14 {
                        let grain = ((x * 7 + y * 13) % 11) as u8 * 4;
                        let red = if t >= recolour { 30 } else { 180 };
                        f.set_pixel(x, y, [red + grain, 90 + grain, 60]);
                    }
                }
                f
            })
            .collect();
        Clip::new(12.0, frames).unwrap()
    }

    #[test]
    fn evidence_has_its_lengths_and_listens() {
        let (calm, jump, red) = (
            measure(&square(16, 99, 99), 12),
            measure(&square(16, 8, 99), 12),
            measure(&square(16, 99, 8), 12),
        );
        for e in [&calm, &jump, &red, &measure(&square(1, 9, 9), 12)] {
            let n = e.curves.len() / CURVES;
            assert_eq!(e.maps.len(), n * 144 * MAPS);
            assert_eq!(e.statistics.len(), STATISTICS);
            assert!(e.statistics.iter().chain(&e.maps).all(|v| v.is_finite()));
        }
        // The subject's middle jumps in one, its colours change in the other.
        let at = |e: &Evidence, k: usize| e.statistics[k];
        let (middle, colour) = (4 * CURVES + 3 * BANDS + 1, 4 * CURVES + 2);
        assert!(at(&jump, middle) > at(&calm, middle) + 1.0);
        assert!(at(&red, colour) > at(&calm, colour) + 1.0);
    }
}
