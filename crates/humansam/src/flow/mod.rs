//! Optical flow: for every pixel of a frame, where it is in the next.
//!
//! Dense pyramidal Lucas-Kanade (Lucas and Kanade 1981; Bouguet 2001), from coarse to fine. On each level and for each of a few rounds the
//! second frame is pulled back along the flow so far, and every pixel moves by the least-squares solution over a window `W`
//!
//! ```text
//!  d = -(Σ_W g gᵀ + λ I)⁻¹ Σ_W g (I₂(x + f) − I₁(x)),   g = mean of the gradients of both frames,
//! ```
//!
//! at most one pixel a round; then the field is smoothed by a 3×3 median. `λ` keeps pixels without texture where the coarser level put them.

mod filters;

use crate::clip::{Frame, Plane};
pub(crate) use filters::box_sum;
use filters::{half, median3};

/// A flow field. The pixel at `(x, y)` is at `(x + u, y + v)` in the next frame; pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// To the right.
    pub u: Plane,
    /// Downwards.
    pub v: Plane,
}

impl Flow {
    /// No motion.
    pub fn still(width: usize, height: usize) -> Flow {
        Flow {
            u: Plane::filled(width, height, 0.0),
            v: Plane::filled(width, height, 0.0),
        }
    }

    /// Length of the motion of each pixel.
    pub fn magnitude(&self) -> Plane {
        let data = self
            .u
            .data
            .iter()
            .zip(&self.v.data)
            .map(|(u, v)| u.hypot(*v))
            .collect();
        Plane {
            width: self.u.width,
            height: self.u.height,
            data,
        }
    }

    /// Mean distance between the ends of two fields' arrows, over pixels for which `counts` holds; 0 for none.
    pub fn end_point_error(&self, other: &Flow, counts: impl Fn(usize) -> bool) -> f64 {
        let (mut sum, mut n) = (0.0, 0usize);
        for i in (0..self.u.data.len().min(other.u.data.len())).filter(|&i| counts(i)) {
            sum += f64::from(
                (self.u.data[i] - other.u.data[i]).hypot(self.v.data[i] - other.v.data[i]),
            );
            n += 1;
        }
        if n == 0 { 0.0 } else { sum / n as f64 }
    }
}

/// Half width of the window.
const RADIUS: usize = 3;
const ROUNDS: usize = 4;
/// Weight that holds pixels without texture in place, in squared units of luma a pixel.
const HOLD: f32 = 0.02;
/// The coarsest level has no side below this.
const SMALLEST: usize = 14;

/// Flow from `first` to `second`, which must have one size; else no motion.
pub fn estimate(first: &Frame, second: &Frame) -> Flow {
    between(&first.luma(), &second.luma())
}

/// Flow between two planes of one size; else no motion.
pub fn between(first: &Plane, second: &Plane) -> Flow {
    if first.width != second.width || first.height != second.height {
        return Flow::still(first.width, first.height);
    }
    let mut levels = vec![(first.clone(), second.clone())];
    while let Some((a, b)) = levels.last()
        && a.width.min(a.height) / 2 >= SMALLEST
    {
        levels.push((half(a), half(b)));
    }
    let mut flow: Option<Flow> = None;
    for (a, b) in levels.iter().rev() {
        let start = match flow {
            None => Flow::still(a.width, a.height),
            Some(coarse) => finer(&coarse, a.width, a.height),
        };
        flow = Some(refine(a, b, start));
    }
    flow.unwrap_or_else(|| Flow::still(first.width, first.height))
}

/// A field on the next finer level.
fn finer(coarse: &Flow, width: usize, height: usize) -> Flow {
    let (sx, sy) = (
        width as f32 / coarse.u.width as f32,
        height as f32 / coarse.u.height as f32,
    );
    let mut out = Flow::still(width, height);
    for y in 0..height {
        for x in 0..width {
            let (cx, cy) = ((x as f32 + 0.5) / sx - 0.5, (y as f32 + 0.5) / sy - 0.5);
            out.u.data[y * width + x] = coarse.u.linear(cx, cy) * sx;
            out.v.data[y * width + x] = coarse.v.linear(cx, cy) * sy;
        }
    }
    out
}

fn gradients(p: &Plane) -> (Vec<f32>, Vec<f32>) {
    let (w, h) = (p.width, p.height);
    let (mut gx, mut gy) = (vec![0f32; w * h], vec![0f32; w * h]);
    for y in 0..h {
        for x in 0..w {
            let (l, r) = (x.saturating_sub(1), (x + 1).min(w - 1));
            let (t, b) = (y.saturating_sub(1), (y + 1).min(h - 1));
            gx[y * w + x] = (p.at(r, y) - p.at(l, y)) / (r - l).max(1) as f32;
            gy[y * w + x] = (p.at(x, b) - p.at(x, t)) / (b - t).max(1) as f32;
        }
    }
    (gx, gy)
}

/// `p` pulled back along `flow`.
pub fn warp(p: &Plane, flow: &Flow) -> Plane {
    let mut out = Plane::filled(p.width, p.height, 0.0);
    for y in 0..p.height {
        for x in 0..p.width {
            let i = y * p.width + x;
            out.data[i] = p.linear(x as f32 + flow.u.data[i], y as f32 + flow.v.data[i]);
        }
    }
    out
}

fn refine(a: &Plane, b: &Plane, mut flow: Flow) -> Flow {
    let (w, h) = (a.width, a.height);
    let (ax, ay) = gradients(a);
    for _ in 0..ROUNDS {
        let pulled = warp(b, &flow);
        let (bx, by) = gradients(&pulled);
        let n = w * h;
        let mut sums: [Vec<f32>; 5] = std::array::from_fn(|_| vec![0f32; n]);
        for i in 0..n {
            let (gx, gy) = (0.5 * (ax[i] + bx[i]), 0.5 * (ay[i] + by[i]));
            let d = pulled.data[i] - a.data[i];
            sums[0][i] = gx * gx;
            sums[1][i] = gx * gy;
            sums[2][i] = gy * gy;
            sums[3][i] = gx * d;
            sums[4][i] = gy * d;
        }
        for s in &mut sums {
            box_sum(s, w, h, RADIUS);
        }
        for (i, (u, v)) in flow.u.data.iter_mut().zip(&mut flow.v.data).enumerate() {
            let [xx, xy, yy, xd, yd] = [0, 1, 2, 3, 4].map(|k| sums[k][i]);
            let (xx, yy) = (xx + HOLD, yy + HOLD);
            let det = xx * yy - xy * xy;
            if det > 1e-12 {
                let du = -(yy * xd - xy * yd) / det;
                let dv = -(xx * yd - xy * xd) / det;
                let shrink = 1.0 / du.hypot(dv).max(1.0);
                *u += du * shrink;
                *v += dv * shrink;
            }
        }
        flow.u = median3(&flow.u);
        flow.v = median3(&flow.v);
    }
    flow
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{self, Action, Framing, Setting, Spec};

    #[test]
    fn a_shift_is_found() {
        let texture = |x: f32, y: f32| {
            0.5 + 0.25 * (x * 0.45).sin() * (y * 0.31).cos() + 0.2 * (x * 0.17 + y * 0.23).sin()
        };
        let plane = |dx: f32, dy: f32| {
            let mut p = Plane::filled(80, 60, 0.0);
            for y in 0..60 {
                for x in 0..80 {
                    p.data[y * 80 + x] = texture(x as f32 - dx, y as f32 - dy);
                }
            }
            p
        };
        let flow = between(&plane(0.0, 0.0), &plane(3.3, -2.1));
        let inside = |i: usize| (12..68).contains(&(i % 80)) && (12..48).contains(&(i / 80));
        let truth = Flow {
            u: Plane::filled(80, 60, 3.3),
            v: Plane::filled(80, 60, -2.1),
        };
        let error = flow.end_point_error(&truth, inside);
        assert!(error < 0.15, "{error}");
    }

    #[test]
    fn generated_motion_is_found() {
        let (mut found, mut none, mut moving, mut moving_none) = (0.0, 0.0, 0.0, 0.0);
        let n = 6;
        for seed in 0..n {
            let spec = Spec {
                action: Some([Action::Walk, Action::Wave, Action::Dance][seed as usize % 3]),
                setting: Some([Setting::Room, Setting::Street][seed as usize % 2]),
                framing: Some(Framing::Medium),
                width: 96,
                height: 96,
                frames: 2,
                fps: Some(24.0),
                nuisance: 0.5,
                maps: true,
                ..Spec::new(40 + seed)
            };
            let r = generator::sample(&spec).unwrap();
            let flow = estimate(&r.clip.frames[0], &r.clip.frames[1]);
            let still = Flow::still(96, 96);
            let person = |i: usize| generator::part::is_person(r.parts[0][i]);
            found += flow.end_point_error(&r.flow[0], |_| true) / n as f64;
            none += still.end_point_error(&r.flow[0], |_| true) / n as f64;
            moving += flow.end_point_error(&r.flow[0], person) / n as f64;
            moving_none += still.end_point_error(&r.flow[0], person) / n as f64;
        }
        println!(
            "end-point error: all pixels {found:.3} (no motion {none:.3}), person {moving:.3} (no motion {moving_none:.3})"
        );
        assert!(moving < 0.8 * moving_none, "{moving} against {moving_none}");
    }
}
