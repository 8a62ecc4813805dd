//! What is known of a frame: the anomaly's mask and the true flow; and the operators that work on the picture itself.

use super::super::Spec;
use super::super::anomaly::Anomaly;
use super::super::flesh::part;
use super::super::math::{V3, v3};
use super::super::operator::Operator;
use super::super::raster::NOTHING;
use super::super::render::{Picture, parts};
use super::super::sensor::gaussian;
use super::{Shot, Take};
use crate::clip::Plane;
use crate::flow::Flow;

impl Take {
    /// 1 where something is wrong.
    pub(super) fn mask(&self, spec: &Spec, frame: usize, shot: &Shot, raw: &Picture) -> Plane {
        let mut mask = Plane::filled(spec.width, spec.height, 0.0);
        let Some(a) = &self.anomaly else {
            return mask;
        };
        if !a.active(self.time(frame)) {
            return mask;
        }
        for (m, &p) in mask.data.iter_mut().zip(&raw.part) {
            *m = f32::from(u8::from(a.affects(p)));
        }
        if a.hides() {
            // What should be there and is not: the same flesh with nothing hidden.
            let view = self.camera.view(
                spec.width,
                spec.height,
                self.motion.path(&self.body, self.time(frame)),
                self.time(frame),
            );
            for (m, p) in mask.data.iter_mut().zip(parts(&shot.prims, &view)) {
                if a.affects(p) {
                    *m = 1.0;
                }
            }
        }
        if a.operator == Operator::ColourBleed {
            mask = grown(&mask, (0.04 * spec.height as f32) as usize);
        }
        mask
    }

    /// True motion to the next frame, from bones and cameras of both.
    pub(super) fn flow(&self, spec: &Spec, frame: usize, shot: &Shot, raw: &Picture) -> Flow {
        let s = spec.supersample;
        let next = self.shot(
            self.anomaly.as_ref(),
            frame + 1,
            frame,
            spec.width * s,
            spec.height * s,
        );
        let mut flow = Flow::still(spec.width, spec.height);
        let middle = (s / 2) as f32 + 0.5;
        for y in 0..spec.height {
            for x in 0..spec.width {
                let i = y * spec.width + x;
                let (px, py) = ((x * s) as f32 + middle, (y * s) as f32 + middle);
                let (o, d) = shot.view.ray(px, py);
                let p = o + d * raw.depth[i];
                let moved = match raw.id[i] {
                    NOTHING => p,
                    id => {
                        let (a, b) = (&shot.prims[id as usize], next.prims.get(id as usize));
                        let q = p - a.joint.origin;
                        let local = v3(
                            q.dot(a.joint.axes.x),
                            q.dot(a.joint.axes.y),
                            q.dot(a.joint.axes.z),
                        );
                        b.map_or(p, |b| b.joint.point(local))
                    }
                };
                let (nx, ny, _) = next.view.project(moved);
                flow.u.data[i] = (nx - px) / s as f32;
                flow.v.data[i] = (ny - py) / s as f32;
            }
        }
        flow
    }
}

/// Every pixel within `r` (in each direction) of a set one is set.
fn grown(mask: &Plane, r: usize) -> Plane {
    let (w, h) = (mask.width, mask.height);
    let mut wide = vec![0f32; w * h];
    for y in 0..h {
        for x in 0..w {
            wide[y * w + x] = (x.saturating_sub(r)..(x + r + 1).min(w))
                .map(|i| mask.at(i, y))
                .fold(0.0, f32::max);
        }
    }
    let mut out = Plane::filled(w, h, 0.0);
    for y in 0..h {
        for x in 0..w {
            out.data[y * w + x] = (y.saturating_sub(r)..(y + r + 1).min(h))
                .map(|j| wide[j * w + x])
                .fold(0.0, f32::max);
        }
    }
    out
}

/// Operators on the picture itself, in linear light, before the sensor.
pub(super) fn spoil_picture(a: &Anomaly, raw: &mut Picture, width: usize, height: usize, t: f32) {
    let sigma = a.blur(t) * height as f32;
    if sigma > 0.0 {
        let soft = gaussian(&raw.linear, width, height, sigma);
        for ((sharp, soft), &p) in raw.linear.iter_mut().zip(soft).zip(&raw.part) {
            if a.blurs(p) {
                *sharp = soft;
            }
        }
    }
    let (share, reach) = a.bleed(t);
    if share > 0.0 {
        let grey = |c: V3| c.dot(v3(0.2126, 0.7152, 0.0722));
        // The person's colours, spread: a blurred sum over the person, divided by a blurred count.
        let person: Vec<V3> = raw
            .linear
            .iter()
            .zip(&raw.part)
            .map(|(&c, &p)| if part::is_person(p) { c } else { V3::ZERO })
            .collect();
        let count: Vec<V3> = raw
            .part
            .iter()
            .map(|&p| {
                if part::is_person(p) {
                    v3(1.0, 1.0, 1.0)
                } else {
                    V3::ZERO
                }
            })
            .collect();
        let sigma = reach * height as f32;
        let (colour, count) = (
            gaussian(&person, width, height, sigma),
            gaussian(&count, width, height, sigma),
        );
        for i in 0..colour.len() {
            let near = count[i].x;
            if near < 0.02 {
                continue;
            }
            let spread = colour[i] * (1.0 / near);
            // Chroma of the spread colour at the pixel's own brightness.
            let tinted = spread * (grey(raw.linear[i]) / grey(spread).max(1e-3));
            let k = share * (near * 2.0).min(1.0);
            raw.linear[i] = raw.linear[i].lerp(tinted, k);
        }
    }
}
