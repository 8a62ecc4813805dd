//! How much a clip contradicts itself, without any trained weight: one number a class of anomaly, larger is worse.
//!
//! Definitions (ours; the paper does not state its own in what is public). Frames are shrunk to at most 128 pixels; `f_t` is the flow
//! ([`crate::flow`]) from frame `t` to `t + 1` minus the camera's motion (the median flow along the border); `I_t` are colours in `[0, 1]`; `w_t(x)` is
//! the likelihood of the subject ([`mod@subject`]), `⟨·⟩_w` a mean with these weights.
//!
//! **Motion.** With `f̂` the flow one frame later at the place where the pixel went, `a_t = √⟨|f̂ − f_t|²⟩_w` is the acceleration and
//! `v_t = √⟨|f_t|²⟩_w` the speed in pixels a frame:
//!
//! ```text
//!  motion_t = a_t / (v_t + v_{t+1} + 0.5)        motion = mean_t motion_t + ½ · (max_t a_t − median_t a_t) / (mean_t v_t + 0.5)
//! ```
//!
//! **Appearance.** Three residuals along the flow, where flow forth and back agree: of colour, `c_t = ⟨|I_{t+1}(x + f) − I_t(x)|⟩_w` with the frame's
//! overall change of brightness taken out; of detail, `d_t = ⟨|ln S_{t+1}(x + f) − ln S_t(x)|⟩_w` with `S` the local energy of the gradient; and over
//! the whole clip, `D` = the distance between the subject's colour histograms of the first and the last quarter:
//!
//! ```text
//!  appearance_t = c_t + 0.05 · d_t               appearance = mean_t appearance_t + ½ · (max_t c_t − median_t c_t) + 0.15 · D
//! ```
//!
//! **Spatial.** A body is nearly symmetric and made of few pieces. With `M_t = {w_t > ½}` and `M'_t` its mirror image about the column
//! through its middle, `y_t = 1 − |M ∩ M'| / |M ∪ M'|`; `h_t` is the share of `M` that an opening by 1/20 of the picture's height takes
//! away (thin pieces that stick out or hang loose); `o_t` is the share of the subject that flow forth and back lose without an edge of motion nearby:
//!
//! ```text
//!  spatial_t = y_t + h_t + o_t                   spatial = median_t spatial_t
//! ```
//!
//! These are weak signals. What they are worth on generated pairs stands in `docs/humansam-priors.md`.

pub mod baselines;
pub mod evidence;
pub mod subject;

use rayon::prelude::*;
use serde::Serialize;

use crate::clip::{Clip, Frame, Plane};
use crate::flow::{self, Flow};

/// The three scores, and how they run over time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Priors {
    /// Larger: more wrong within frames.
    pub spatial: f32,
    /// Larger: looks change more than they should.
    pub appearance: f32,
    /// Larger: motion is less smooth than it should be.
    pub motion: f32,
    /// `spatial_t` of each frame.
    pub spatial_curve: Vec<f32>,
    /// `appearance_t` of each frame (the last repeats the one before).
    pub appearance_curve: Vec<f32>,
    /// `motion_t` of each frame (the last two repeat the one before).
    pub motion_curve: Vec<f32>,
}

impl Priors {
    /// Appearance, spatial, motion: the order of labels.
    pub fn scores(&self) -> [f32; 3] {
        [self.appearance, self.spatial, self.motion]
    }
}

/// Where the residuals lie: planes of the analysed size, one a frame.
#[derive(Clone, Debug)]
pub struct PriorMaps {
    /// `|I_{t+1}(x + f) − I_t(x)|`, weighted by the subject.
    pub appearance: Vec<Plane>,
    /// `|f̂ − f_t|` in pixels, weighted by the subject.
    pub motion: Vec<Plane>,
}

/// Frames are shrunk to this longest side.
const SIDE: usize = 128;

/// Measures a clip. Clips of one frame have no motion and no appearance score (0).
pub fn measure(clip: &Clip) -> Priors {
    measure_with_maps(clip).0
}

/// [`measure`], with the planes behind it.
pub fn measure_with_maps(clip: &Clip) -> (Priors, PriorMaps) {
    let a = Analysis::new(clip);
    (a.priors(), a.maps())
}

/// Everything that the scores are made of.
struct Analysis {
    frames: Vec<Frame>,
    weights: Vec<Plane>,
    pairs: Vec<Pair>,
    colour: Vec<Colour>,
    acceleration: Vec<Acceleration>,
}

impl Analysis {
    fn new(clip: &Clip) -> Self {
        let longest = clip.width.max(clip.height);
        let scale = |s: usize| {
            if longest <= SIDE {
                s
            } else {
                (s * SIDE / longest).max(8)
            }
        };
        let frames: Vec<Frame> = clip
            .frames
            .par_iter()
            .map(|f| f.resize(scale(clip.width), scale(clip.height)))
            .collect();
        let lumas: Vec<Plane> = frames.iter().map(Frame::luma).collect();
        let weights: Vec<Plane> = subject::likelihood(&frames);
        let pairs: Vec<Pair> = (0..frames.len().saturating_sub(1))
            .into_par_iter()
            .map(|t| Pair::new(&lumas[t], &lumas[t + 1]))
            .collect();
        let colour: Vec<Colour> = pairs
            .par_iter()
            .enumerate()
            .map(|(t, p)| {
                colour_residual(
                    &frames[t],
                    &frames[t + 1],
                    &lumas[t],
                    &lumas[t + 1],
                    p,
                    &weights[t],
                )
            })
            .collect();
        let acceleration: Vec<Acceleration> = (0..pairs.len().saturating_sub(1))
            .into_par_iter()
            .map(|t| Acceleration::new(&pairs[t], &pairs[t + 1], &weights[t]))
            .collect();
        Self {
            frames,
            weights,
            pairs,
            colour,
            acceleration,
        }
    }

    fn priors(&self) -> Priors {
        let n = self.frames.len();
        let of = |f: fn(&Acceleration) -> f32| self.acceleration.iter().map(f).collect::<Vec<_>>();
        let mut motion_curve = of(|a| a.rms / (a.before + a.after + 0.5));
        let (speeds, jolts) = (of(|a| a.before), of(|a| a.rms));
        let motion =
            mean(&motion_curve) + 0.5 * (greatest(&jolts) - median(&jolts)) / (mean(&speeds) + 0.5);

        let of = |f: fn(&Colour) -> f32| self.colour.iter().map(f).collect::<Vec<_>>();
        let mut appearance_curve = of(|c| c.colour + 0.05 * c.detail);
        let residuals = of(|c| c.colour);
        let drift = histogram_drift(&self.frames, &self.weights);
        let appearance = if n < 2 {
            0.0
        } else {
            mean(&appearance_curve)
                + 0.5 * (greatest(&residuals) - median(&residuals))
                + 0.15 * drift
        };

        let spatial_curve: Vec<f32> = (0..n)
            .into_par_iter()
            .map(|t| {
                let weight = &self.weights[t];
                let pair = self.pairs.get(t).or(self.pairs.last());
                let lost = pair.map_or(0.0, |p| p.lost(weight));
                asymmetry(weight) + thin_share(weight) + lost
            })
            .collect();

        let repeat = |curve: &mut Vec<f32>| {
            let last = curve.last().copied().unwrap_or(0.0);
            curve.resize(n, last);
        };
        repeat(&mut motion_curve);
        repeat(&mut appearance_curve);
        Priors {
            spatial: median(&spatial_curve),
            appearance,
            motion,
            spatial_curve,
            appearance_curve,
            motion_curve,
        }
    }

    fn maps(&self) -> PriorMaps {
        let weighted = |plain: &Plane, t: usize| Plane {
            data: plain
                .data
                .iter()
                .zip(&self.weights[t].data)
                .map(|(v, w)| v * w)
                .collect(),
            ..*plain
        };
        let blank = || Plane::filled(self.frames[0].width(), self.frames[0].height(), 0.0);
        let sure = |t: usize, c: &Colour| {
            let mut p = weighted(&c.residual, t);
            p.data
                .iter_mut()
                .zip(&self.pairs[t].sure)
                .for_each(|(v, s)| *v *= s);
            p
        };
        let mut maps = PriorMaps {
            appearance: self
                .colour
                .iter()
                .enumerate()
                .map(|(t, c)| sure(t, c))
                .collect(),
            motion: self
                .acceleration
                .iter()
                .enumerate()
                .map(|(t, a)| weighted(&a.map, t))
                .collect(),
        };
        maps.appearance.resize_with(self.frames.len(), blank);
        maps.motion.resize_with(self.frames.len(), blank);
        maps
    }
}

/// Two frames' flow forth and back.
struct Pair {
    /// Without the camera's motion.
    own: Flow,
    /// As it is.
    raw: Flow,
    /// 1 where forth and back agree.
    sure: Vec<f32>,
}

impl Pair {
    fn new(a: &Plane, b: &Plane) -> Pair {
        let raw = flow::between(a, b);
        let back = flow::between(b, a);
        let (w, h) = (a.width, a.height);
        let mut sure = vec![0f32; w * h];
        for y in 0..h {
            for x in 0..w {
                let i = y * w + x;
                let (nx, ny) = (x as f32 + raw.u.data[i], y as f32 + raw.v.data[i]);
                let (bu, bv) = (back.u.linear(nx, ny), back.v.linear(nx, ny));
                let off = (raw.u.data[i] + bu).hypot(raw.v.data[i] + bv);
                let inside = nx >= 0.0 && ny >= 0.0 && nx <= (w - 1) as f32 && ny <= (h - 1) as f32;
                sure[i] = if inside && off < 0.75 + 0.1 * raw.u.data[i].hypot(raw.v.data[i]) {
                    1.0
                } else {
                    0.0
                };
            }
        }
        let mut own = raw.clone();
        for p in [&mut own.u, &mut own.v] {
            let camera = border_median(p);
            for v in &mut p.data {
                *v -= camera;
            }
        }
        Pair { own, raw, sure }
    }

    /// Share of the subject that is lost although nothing moves differently nearby.
    fn lost(&self, weight: &Plane) -> f32 {
        let (w, h) = (weight.width, weight.height);
        let (mut lost, mut all) = (0.0, 1e-6);
        for y in 1..h.saturating_sub(1) {
            for x in 1..w.saturating_sub(1) {
                let i = y * w + x;
                all += weight.data[i];
                if self.sure[i] > 0.0 {
                    continue;
                }
                let across = |p: &Plane| {
                    (p.data[i + 1] - p.data[i - 1]).abs() + (p.data[i + w] - p.data[i - w]).abs()
                };
                if across(&self.raw.u) + across(&self.raw.v) < 1.0 {
                    lost += weight.data[i];
                }
            }
        }
        lost / all
    }
}

fn border_median(p: &Plane) -> f32 {
    let (w, h) = (p.width, p.height);
    let band = (w.min(h) / 12).max(1);
    let mut values = Vec::new();
    for y in 0..h {
        for x in 0..w {
            if x < band || x + band >= w || y < band {
                values.push(p.at(x, y));
            }
        }
    }
    median(&values)
}

struct Colour {
    colour: f32,
    detail: f32,
    /// `|I_{t+1}(x + f) − I_t(x)|`, of every pixel.
    residual: Plane,
    /// `|ln S_{t+1}(x + f) − ln S_t(x)|`, of every pixel.
    change: Plane,
}

fn colour_residual(
    a: &Frame,
    b: &Frame,
    la: &Plane,
    lb: &Plane,
    pair: &Pair,
    weight: &Plane,
) -> Colour {
    let (w, h) = (weight.width, weight.height);
    // Exposure: what changes everywhere is the camera's doing.
    let gain = (mean(&la.data) + 0.02) / (mean(&lb.data) + 0.02);
    let (sa, sb) = (local_energy(la), local_energy(lb));
    let channels = |f: &Frame, c: usize| Plane {
        width: w,
        height: h,
        data: f
            .rgb()
            .chunks_exact(3)
            .map(|p| f32::from(p[c]) / 255.0)
            .collect(),
    };
    let (mut colour, mut detail, mut all) = (0.0, 0.0, 1e-6);
    let mut residual = Plane::filled(w, h, 0.0);
    let mut change = Plane::filled(w, h, 0.0);
    for c in 0..3 {
        let (pa, pb) = (channels(a, c), channels(b, c));
        for y in 0..h {
            for x in 0..w {
                let i = y * w + x;
                let k = weight.data[i] * pair.sure[i];
                let (nx, ny) = (x as f32 + pair.raw.u.data[i], y as f32 + pair.raw.v.data[i]);
                let d = (gain * pb.linear(nx, ny) - pa.data[i]).abs() / 3.0;
                residual.data[i] += d;
                colour += k * d;
                if c == 0 {
                    all += k;
                    let ratio = (sb.linear(nx, ny) + 1e-4) / (sa.data[i] + 1e-4);
                    change.data[i] = ratio.ln().abs();
                    detail += k * change.data[i];
                }
            }
        }
    }
    Colour {
        colour: colour / all,
        detail: detail / all,
        residual,
        change,
    }
}

/// Mean squared gradient over 5×5 pixels.
fn local_energy(p: &Plane) -> Plane {
    let (w, h) = (p.width, p.height);
    let mut e = Plane::filled(w, h, 0.0);
    for y in 0..h.saturating_sub(1) {
        for x in 0..w.saturating_sub(1) {
            let (dx, dy) = (p.at(x + 1, y) - p.at(x, y), p.at(x, y + 1) - p.at(x, y));
            e.data[y * w + x] = (dx * dx + dy * dy) / 25.0;
        }
    }
    flow::box_sum(&mut e.data, w, h, 2);
    e
}

struct Acceleration {
    rms: f32,
    before: f32,
    after: f32,
    /// `|f̂ − f_t|`, of every pixel.
    map: Plane,
}

impl Acceleration {
    fn new(now: &Pair, next: &Pair, weight: &Plane) -> Acceleration {
        let (w, h) = (weight.width, weight.height);
        let (mut a, mut v0, mut v1, mut all) = (0.0, 0.0, 0.0, 1e-6);
        let mut map = Plane::filled(w, h, 0.0);
        for y in 0..h {
            for x in 0..w {
                let i = y * w + x;
                let (nx, ny) = (x as f32 + now.raw.u.data[i], y as f32 + now.raw.v.data[i]);
                let (u1, w1) = (next.own.u.linear(nx, ny), next.own.v.linear(nx, ny));
                let (u0, w0) = (now.own.u.data[i], now.own.v.data[i]);
                let d2 = (u1 - u0).powi(2) + (w1 - w0).powi(2);
                let k = weight.data[i];
                a += k * d2;
                v0 += k * (u0 * u0 + w0 * w0);
                v1 += k * (u1 * u1 + w1 * w1);
                all += k;
                map.data[i] = d2.sqrt();
            }
        }
        Acceleration {
            rms: (a / all).sqrt(),
            before: (v0 / all).sqrt(),
            after: (v1 / all).sqrt(),
            map,
        }
    }
}

/// `½ Σ |p − q|` between the subject's colour histograms of the first and the last quarter.
fn histogram_drift(frames: &[Frame], weights: &[Plane]) -> f32 {
    let n = frames.len();
    if n < 2 {
        return 0.0;
    }
    let quarter = (n / 4).max(1);
    let histogram = |range: std::ops::Range<usize>| {
        let mut bins = vec![0f32; 216];
        for t in range {
            for (p, &w) in frames[t].rgb().chunks_exact(3).zip(&weights[t].data) {
                let bin = |v: u8| usize::from(v) * 6 / 256;
                bins[36 * bin(p[0]) + 6 * bin(p[1]) + bin(p[2])] += w;
            }
        }
        let total: f32 = bins.iter().sum::<f32>() + 1e-6;
        bins.iter().map(|b| b / total).collect::<Vec<f32>>()
    };
    let (p, q) = (histogram(0..quarter), histogram(n - quarter..n));
    0.5 * p.iter().zip(&q).map(|(a, b)| (a - b).abs()).sum::<f32>()
}

/// `1 − |M ∩ M'| / |M ∪ M'|` about the middle column of the mask; 0 for an empty one.
fn asymmetry(weight: &Plane) -> f32 {
    let (w, h) = (weight.width, weight.height);
    let on = |x: usize, y: usize| weight.at(x, y) > 0.5;
    let (mut sum, mut count) = (0usize, 0usize);
    for y in 0..h {
        for x in 0..w {
            if on(x, y) {
                sum += 2 * x;
                count += 1;
            }
        }
    }
    if count == 0 {
        return 0.0;
    }
    let twice = sum / count;
    let (mut both, mut either) = (0usize, 0usize);
    for y in 0..h {
        for x in 0..w {
            let there = on(x, y);
            let mirrored = twice
                .checked_sub(x)
                .filter(|&m| m < w)
                .is_some_and(|m| on(m, y));
            both += usize::from(there && mirrored);
            either += usize::from(there || mirrored);
        }
    }
    1.0 - both as f32 / either.max(1) as f32
}

/// Share of the mask that erosion and dilation by 1/20 of the height take away.
fn thin_share(weight: &Plane) -> f32 {
    let (w, h) = (weight.width, weight.height);
    let r = (h / 40).max(1);
    let full = ((2 * r + 1) * (2 * r + 1)) as f32;
    let mask: Vec<f32> = weight
        .data
        .iter()
        .map(|&v| f32::from(u8::from(v > 0.5)))
        .collect();
    let total: f32 = mask.iter().sum();
    if total < 1.0 {
        return 0.0;
    }
    let mut eroded = mask.clone();
    flow::box_sum(&mut eroded, w, h, r);
    let mut opened: Vec<f32> = eroded
        .iter()
        .map(|&v| f32::from(u8::from(v > full - 0.5)))
        .collect();
    flow::box_sum(&mut opened, w, h, r);
    let kept: f32 = mask
        .iter()
        .zip(&opened)
        .map(|(m, o)| if *o > 0.5 { *m } else { 0.0 })
        .sum();
    1.0 - kept / total
}

pub(crate) fn mean(v: &[f32]) -> f32 {
    if v.is_empty() {
        0.0
    } else {
        v.iter().sum::<f32>() / v.len() as f32
    }
}

fn greatest(v: &[f32]) -> f32 {
    v.iter().copied().fold(0.0, f32::max)
}

pub(crate) fn median(v: &[f32]) -> f32 {
    if v.is_empty() {
        return 0.0;
    }
    let mut sorted = v.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Class;
    use crate::generator::{self, Spec};

    /// Share of counterfactual pairs in which the forged clip scores higher under the prior of its class.
    fn share(class: Class, pairs: u64) -> f64 {
        let higher: u64 = (0..pairs)
            .into_par_iter()
            .map(|seed| {
                let spec = Spec {
                    class,
                    width: 64,
                    height: 64,
                    frames: 14,
                    fps: Some(12.0),
                    supersample: 1,
                    severity: Some(0.9),
                    ..Spec::new(900 + seed)
                };
                let score = |spec: &Spec| {
                    measure(&generator::sample(spec).unwrap().clip).scores()[class.label()]
                };
                u64::from(score(&spec) > score(&spec.twin()))
            })
            .sum();
        higher as f64 / pairs as f64
    }

    #[test]
    fn motion_is_worse_for_forged_motion() {
        let pairs = 14;
        for class in Class::FORGED {
            println!(
                "{class}: higher than its real twin in {:.0} % of {pairs} pairs",
                100.0 * share(class, pairs)
            );
        }
        let share = share(Class::Motion, pairs);
        assert!(
            share >= 0.6,
            "{share} of {pairs} pairs, at least 0.6 expected"
        );
    }

    #[test]
    fn clips_of_any_length_and_size_are_measured() {
        for (n, w, h) in [(1, 9, 300), (2, 8, 8), (3, 200, 20)] {
            let clip = Clip::new(10.0, vec![Frame::black(w, h); n]).unwrap();
            let (p, maps) = measure_with_maps(&clip);
            assert!(p.scores().iter().all(|s| s.is_finite()));
            assert_eq!(p.spatial_curve.len(), n);
            assert_eq!(p.motion_curve.len(), n);
            assert_eq!(maps.appearance.len(), n);
        }
    }
}
