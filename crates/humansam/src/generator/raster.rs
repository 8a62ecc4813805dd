//! The rasteriser: which primitive a ray through a pixel meets first, where and with which normal.
//!
//! Each primitive is intersected analytically, but only with the rays through the rectangle it can cover. A ray is
//! `o + t d` where `d` has length 1 along the view's axis, so `t` is the depth. In the shape's own coordinates (squash undone) the same `t` holds.

use super::flesh::{Prim, Shape};
use super::math::{M3, V3, v3};

/// Rays through pixel centres; `x` to the right, `y` down.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    pub width: usize,
    pub height: usize,
    eye: V3,
    right: V3,
    down: V3,
    forward: V3,
    /// Pixels per unit at depth 1 (perspective), or pixels a metre (parallel).
    focal: f32,
    parallel: bool,
    centre: (f32, f32),
}

impl View {
    /// A pinhole camera that looks along `forward`, turned about that axis by `roll`.
    pub fn pinhole(
        width: usize,
        height: usize,
        eye: V3,
        forward: V3,
        roll: f32,
        focal: f32,
    ) -> View {
        let f = forward.unit();
        let right = f.cross(V3::Y).unit();
        let up = right.cross(f);
        let (s, c) = roll.sin_cos();
        View {
            width,
            height,
            eye,
            right: right * c + up * s,
            down: right * s - up * c,
            forward: f,
            focal,
            parallel: false,
            centre: (width as f32 / 2.0, height as f32 / 2.0),
        }
    }

    /// Parallel rays along `forward`, `2 · half` metres wide and high, about `middle`.
    pub fn parallel(size: usize, middle: V3, forward: V3, half: f32) -> View {
        let f = forward.unit();
        let axes = M3::along(f, V3::X);
        View {
            width: size,
            height: size,
            eye: middle - f * (2.0 * half),
            right: axes.z,
            down: axes.x,
            forward: f,
            focal: size as f32 / (2.0 * half),
            parallel: true,
            centre: (size as f32 / 2.0, size as f32 / 2.0),
        }
    }

    /// Start and direction of the ray through the picture's point `(x, y)`; pixel centres lie at halves.
    #[inline]
    pub fn ray(&self, x: f32, y: f32) -> (V3, V3) {
        let side = self.right * ((x - self.centre.0) / self.focal)
            + self.down * ((y - self.centre.1) / self.focal);
        if self.parallel {
            (self.eye + side, self.forward)
        } else {
            (self.eye, self.forward + side)
        }
    }

    /// Picture coordinates and depth of a point.
    #[inline]
    pub fn project(&self, p: V3) -> (f32, f32, f32) {
        let q = p - self.eye;
        let z = q.dot(self.forward);
        let k = if self.parallel {
            self.focal
        } else {
            self.focal / z.max(1e-3)
        };
        (
            self.centre.0 + q.dot(self.right) * k,
            self.centre.1 + q.dot(self.down) * k,
            z,
        )
    }

    /// Pixels that a ball can cover: first and one past the last column, the same for rows.
    fn bounds(&self, centre: V3, r: f32) -> Option<[f32; 4]> {
        let q = centre - self.eye;
        let (x, y, z) = (q.dot(self.right), q.dot(self.down), q.dot(self.forward));
        if self.parallel {
            let f = self.focal;
            return Some([(x - r) * f, (x + r) * f, (y - r) * f, (y + r) * f]);
        }
        if z + r < 0.05 {
            return None;
        }
        let near = (z - r).max(0.05);
        let far = z + r;
        let low = |v: f32| if v < 0.0 { v / near } else { v / far } * self.focal;
        let high = |v: f32| if v > 0.0 { v / near } else { v / far } * self.focal;
        Some([low(x - r), high(x + r), low(y - r), high(y + r)])
    }
}

/// A primitive made ready for rays.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    axes: M3,
    origin: V3,
    inverse_squash: V3,
    shape: ReadyShape,
    bias: f32,
}

#[derive(Clone, Copy, Debug)]
enum ReadyShape {
    Ball { a: V3, r2: f32 },
    Cone(ConeParts),
    Block { half: V3 },
}

#[derive(Clone, Copy, Debug)]
struct ConeParts {
    a: V3,
    b: V3,
    ra: f32,
    rb: f32,
    axis: V3,
    sine: f32,
    cosine: f32,
    /// The cone touches the balls at these heights over `a`.
    from: f32,
    to: f32,
}

impl Ready {
    pub fn new(prim: &Prim) -> Ready {
        let shape = match prim.shape {
            Shape::Block { half } => ReadyShape::Block { half },
            Shape::Cone { a, ra, b, rb } => {
                let along = b - a;
                let l = along.length();
                if l <= (ra - rb).abs() + 1e-6 {
                    let (c, r) = if ra >= rb { (a, ra) } else { (b, rb) };
                    ReadyShape::Ball { a: c, r2: r * r }
                } else {
                    let sine = (ra - rb) / l;
                    ReadyShape::Cone(ConeParts {
                        a,
                        b,
                        ra,
                        rb,
                        axis: along * (1.0 / l),
                        sine,
                        cosine: (1.0 - sine * sine).sqrt(),
                        from: ra * sine,
                        to: l + rb * sine,
                    })
                }
            }
        };
        Ready {
            axes: prim.joint.axes,
            origin: prim.joint.origin + prim.joint.axes * prim.centre,
            inverse_squash: v3(
                1.0 / prim.squash.x,
                1.0 / prim.squash.y,
                1.0 / prim.squash.z,
            ),
            shape,
            bias: prim.bias,
        }
    }

    /// World direction to shape coordinates.
    #[inline]
    fn inward(&self, v: V3) -> V3 {
        v3(v.dot(self.axes.x), v.dot(self.axes.y), v.dot(self.axes.z)).scale(self.inverse_squash)
    }

    fn bounds(&self, view: &View) -> Option<[f32; 4]> {
        let s = v3(
            1.0 / self.inverse_squash.x,
            1.0 / self.inverse_squash.y,
            1.0 / self.inverse_squash.z,
        );
        let widest = s.x.max(s.y).max(s.z);
        let world = |p: V3| self.origin + self.axes * p.scale(s);
        match self.shape {
            ReadyShape::Ball { a, r2 } => view.bounds(world(a), r2.sqrt() * widest),
            ReadyShape::Block { half } => view.bounds(world(V3::ZERO), half.length() * widest),
            ReadyShape::Cone(c) => {
                let p = view.bounds(world(c.a), c.ra * widest)?;
                let q = view.bounds(world(c.b), c.rb * widest)?;
                Some([
                    p[0].min(q[0]),
                    p[1].max(q[1]),
                    p[2].min(q[2]),
                    p[3].max(q[3]),
                ])
            }
        }
    }

    /// Outward normal in bone coordinates (not of length 1) at a bone point on the surface.
    pub fn normal(&self, prim: &Prim, p_bone: V3) -> V3 {
        let p = (p_bone - prim.centre).scale(self.inverse_squash);
        let n = match self.shape {
            ReadyShape::Ball { a, .. } => p - a,
            ReadyShape::Block { half } => {
                let q = v3(p.x / half.x, p.y / half.y, p.z / half.z);
                if q.x.abs() >= q.y.abs() && q.x.abs() >= q.z.abs() {
                    v3(q.x.signum(), 0.0, 0.0)
                } else if q.y.abs() >= q.z.abs() {
                    v3(0.0, q.y.signum(), 0.0)
                } else {
                    v3(0.0, 0.0, q.z.signum())
                }
            }
            ReadyShape::Cone(c) => {
                let q = p - c.a;
                let y = q.dot(c.axis);
                if y <= c.from {
                    q
                } else if y >= c.to {
                    p - c.b
                } else {
                    q.without(c.axis).unit() * c.cosine + c.axis * c.sine
                }
            }
        };
        n.scale(self.inverse_squash)
    }
}

#[inline]
fn hit_ball(o: V3, d: V3, a: V3, r2: f32) -> f32 {
    let q = o - a;
    let (dd, b, c) = (d.dot(d), q.dot(d), q.dot(q) - r2);
    let disc = b * b - dd * c;
    if disc < 0.0 {
        return f32::INFINITY;
    }
    (-b - disc.sqrt()) / dd
}

/// First meeting with the hull of two balls. The cone between them obeys `cos² |q|² − y² + 2 r_a sin y − r_a² = 0`
/// with `q` the point seen from `a` and `y` its height along the axis.
#[inline]
fn hit_cone(c: &ConeParts, o: V3, d: V3) -> f32 {
    let q = o - c.a;
    let (dd, qd, qq) = (d.dot(d), q.dot(d), q.dot(q));
    let (y0, yd) = (q.dot(c.axis), d.dot(c.axis));
    let c2 = c.cosine * c.cosine;
    let k = c.ra * c.sine;
    let a2 = c2 * dd - yd * yd;
    let b2 = c2 * qd - y0 * yd + k * yd;
    let c0 = c2 * qq - y0 * y0 + 2.0 * k * y0 - c.ra * c.ra;
    let disc = b2 * b2 - a2 * c0;
    let mut best = f32::INFINITY;
    if disc >= 0.0 && a2.abs() > 1e-12 {
        let root = disc.sqrt();
        for t in [(-b2 - root) / a2, (-b2 + root) / a2] {
            let y = y0 + t * yd;
            if y >= c.from && y <= c.to && t < best {
                best = t;
            }
        }
    }
    // The balls' near sides; where they lie inside of the cone, the cone was met earlier.
    let near = |b: f32, cc: f32| {
        let disc = b * b - dd * cc;
        if disc < 0.0 {
            f32::INFINITY
        } else {
            (-b - disc.sqrt()) / dd
        }
    };
    best = best.min(near(qd, qq - c.ra * c.ra));
    let qb = o - c.b;
    best.min(near(qb.dot(d), qb.dot(qb) - c.rb * c.rb))
}

#[inline]
fn hit_block(o: V3, d: V3, half: V3) -> f32 {
    let mut near = f32::NEG_INFINITY;
    let mut far = f32::INFINITY;
    for (o, d, h) in [(o.x, d.x, half.x), (o.y, d.y, half.y), (o.z, d.z, half.z)] {
        let d = if d.abs() < 1e-9 { 1e-9 } else { d };
        let (a, b) = ((-h - o) / d, (h - o) / d);
        near = near.max(a.min(b));
        far = far.min(a.max(b));
    }
    if near <= far { near } else { f32::INFINITY }
}

/// No primitive.
pub(crate) const NOTHING: u16 = u16::MAX;

/// Depth and primitive of every pixel.
pub(crate) struct Buffer {
    pub depth: Vec<f32>,
    pub key: Vec<f32>,
    pub id: Vec<u16>,
}

impl Buffer {
    pub fn new(view: &View) -> Buffer {
        let n = view.width * view.height;
        Buffer {
            depth: vec![f32::INFINITY; n],
            key: vec![f32::INFINITY; n],
            id: vec![NOTHING; n],
        }
    }

    /// Draws one primitive under the number `id`.
    pub fn draw(&mut self, view: &View, prim: &Ready, id: u16) {
        let Some([x0, x1, y0, y1]) = prim.bounds(view) else {
            return;
        };
        let (cx, cy) = view.centre;
        let column = |x: f32| (x + cx).clamp(0.0, view.width as f32);
        let row = |y: f32| (y + cy).clamp(0.0, view.height as f32);
        let (left, right) = (
            (column(x0) - 0.5).floor().max(0.0) as usize,
            ((column(x1) + 0.5).ceil() as usize).min(view.width),
        );
        let (top, bottom) = (
            (row(y0) - 0.5).floor().max(0.0) as usize,
            ((row(y1) + 0.5).ceil() as usize).min(view.height),
        );
        if left >= right || top >= bottom {
            return;
        }
        let (o, d) = view.ray(0.5, 0.5);
        let (ox, dx) = view.ray(1.5, 0.5);
        let (oy, dy) = view.ray(0.5, 1.5);
        let o0 = prim.inward(o - prim.origin);
        let d0 = prim.inward(d);
        let (step_o, step_d) = (prim.inward(ox - o), prim.inward(dx - d));
        let (down_o, down_d) = (prim.inward(oy - o), prim.inward(dy - d));
        for y in top..bottom {
            let line_o = o0 + down_o * y as f32;
            let line_d = d0 + down_d * y as f32;
            let base = y * view.width;
            for x in left..right {
                let o = line_o + step_o * x as f32;
                let d = line_d + step_d * x as f32;
                let t = match prim.shape {
                    ReadyShape::Ball { a, r2 } => hit_ball(o, d, a, r2),
                    ReadyShape::Cone(ref c) => hit_cone(c, o, d),
                    ReadyShape::Block { half } => hit_block(o, d, half),
                };
                let key = t - prim.bias;
                if t > 0.05 && key < self.key[base + x] {
                    self.key[base + x] = key;
                    self.depth[base + x] = t;
                    self.id[base + x] = id;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::flesh::{Builder, part};
    use super::super::material::Material;
    use super::super::skeleton::Joint;
    use super::*;
    use proptest::prelude::*;

    /// Signed distance to the hull of two balls, minimised over the axis by dense sampling: slow, and independent of the cone's formula.
    fn outside(p: V3, a: V3, ra: f32, b: V3, rb: f32) -> f32 {
        (0..=2000)
            .map(|i| {
                let t = i as f32 / 2000.0;
                (p - a.lerp(b, t)).length() - (ra + (rb - ra) * t)
            })
            .fold(f32::INFINITY, f32::min)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn rays_meet_cones_where_a_march_meets_them(
            bx in -0.5f32..0.5, by in -0.5f32..0.5, bz in -0.5f32..0.5,
            ra in 0.05f32..0.3, rb in 0.05f32..0.3, px in -0.8f32..0.8, py in -0.8f32..0.8,
        ) {
            let (a, b) = (V3::ZERO, v3(bx, by, bz));
            let mut builder = Builder::new();
            builder.cone(Joint::IDENTITY, part::TORSO, Material::Skin, v3(1.0, 1.0, 1.0), a, ra, b, rb);
            let prim = builder.prims[0];
            let ready = Ready::new(&prim);
            let (o, d) = (v3(px, py, 3.0), v3(0.05, -0.03, -1.0));
            let t = match ready.shape {
                ReadyShape::Cone(ref c) => hit_cone(c, o, d),
                ReadyShape::Ball { a, r2 } => hit_ball(o, d, a, r2),
                ReadyShape::Block { .. } => unreachable!("a cone was built"),
            };
            // Sphere tracing with the sampled distance.
            let mut s = 0.0f32;
            let mut met = false;
            for _ in 0..200 {
                let e = outside(o + d * s, a, ra, b, rb);
                if e < 1e-4 { met = true; break; }
                s += e / d.length();
                if s > 8.0 { break; }
            }
            // how deep the ray goes from there: one that hardly enters may be missed
            let deepest = (0..200)
                .map(|i| outside(o + d * (s + 0.01 * i as f32), a, ra, b, rb))
                .fold(f32::INFINITY, f32::min);
            if met && t.is_infinite() {
                prop_assert!(deepest > -2e-3, "missed, {deepest} deep");
            } else if met {
                prop_assert!((t - s).abs() < 0.02, "analytic {t}, marched {s}");
                let n = ready.normal(&prim, o + d * t).unit();
                prop_assert!(n.dot(d.unit()) < 0.05, "the normal looks away from the ray");
                // A step along the normal leads outside by as much.
                let away = outside(o + d * t + n * 0.02, a, ra, b, rb);
                prop_assert!((away - 0.02).abs() < 4e-3, "{away}");
            } else {
                // A graze is all that may be missed.
                prop_assert!(t.is_infinite() || outside(o + d * t, a, ra, b, rb).abs() < 2e-3);
            }
        }
    }

    #[test]
    fn rectangles_cover_what_is_drawn() {
        let view = View::pinhole(64, 48, v3(0.3, 1.0, 3.0), v3(-0.1, -0.1, -1.0), 0.2, 60.0);
        let mut builder = Builder::new();
        builder.cone(
            Joint::IDENTITY,
            part::TORSO,
            Material::Skin,
            v3(1.0, 1.0, 0.5),
            v3(-0.4, 0.3, 0.0),
            0.2,
            v3(0.5, 1.4, 0.6),
            0.1,
        );
        builder.block(
            Joint::IDENTITY,
            part::OBJECT,
            Material::Skin,
            v3(0.1, 0.5, -0.5),
            v3(0.4, 0.1, 0.3),
        );
        for (i, prim) in builder.prims.iter().enumerate() {
            let ready = Ready::new(prim);
            let mut buffer = Buffer::new(&view);
            buffer.draw(&view, &ready, i as u16);
            let mut hits = 0;
            for y in 0..view.height {
                for x in 0..view.width {
                    let (o, d) = view.ray(x as f32 + 0.5, y as f32 + 0.5);
                    let (o, d) = (ready.inward(o - ready.origin), ready.inward(d));
                    let t = match ready.shape {
                        ReadyShape::Ball { a, r2 } => hit_ball(o, d, a, r2),
                        ReadyShape::Cone(ref c) => hit_cone(c, o, d),
                        ReadyShape::Block { half } => hit_block(o, d, half),
                    };
                    let drawn = buffer.id[y * view.width + x] == i as u16;
                    assert_eq!(drawn, t.is_finite(), "pixel {x},{y} of primitive {i}");
                    hits += usize::from(drawn);
                }
            }
            assert!(hits > 20, "primitive {i} covers {hits} pixels");
        }
    }

    #[test]
    fn projection_is_the_inverse_of_rays() {
        for view in [
            View::pinhole(64, 48, v3(0.3, 1.0, 3.0), v3(-0.1, -0.2, -1.0), 0.3, 70.0),
            View::parallel(32, v3(0.0, 1.0, 0.0), v3(0.3, -1.0, 0.2), 2.0),
        ] {
            let (o, d) = view.ray(11.0, 21.5);
            let (x, y, z) = view.project(o + d * 2.5);
            assert!((x - 11.0).abs() < 1e-2 && (y - 21.5).abs() < 1e-2 && (z - 2.5).abs() < 1e-3);
        }
    }
}
