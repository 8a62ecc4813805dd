//! One frame: primitives to linear light, depth, parts, motion.

use super::body::Look;
use super::flesh::{Prim, part};
use super::material::{Expression, evaluate};
use super::math::{V3, lerp, smoothstep, v3};
use super::raster::{Buffer, NOTHING, Ready, View};
use super::scene::Scene;

/// Everything that one frame shows.
pub(crate) struct Shown<'a> {
    pub scene: &'a Scene,
    pub look: &'a Look,
    pub expression: Expression,
    pub prims: &'a [Prim],
    /// The middle of what casts shadows.
    pub place: V3,
    /// Opacity of things of [`part::PROP`].
    pub prop_opacity: f32,
}

/// A frame before the camera's electronics.
pub(crate) struct Picture {
    pub linear: Vec<V3>,
    pub depth: Vec<f32>,
    pub part: Vec<u8>,
    /// Primitive in the middle of each pixel, [`NOTHING`] for the backdrop.
    pub id: Vec<u16>,
}

const SHADOW_HALF: f32 = 1.9;

/// Draws a frame of `view` with `samples × samples` rays a pixel; `view` has that many times the picture's pixels in each direction.
pub(crate) fn picture(shown: &Shown, view: &View, samples: usize, shadow_size: usize) -> Picture {
    let ready: Vec<Ready> = shown.prims.iter().map(Ready::new).collect();
    let mut buffer = Buffer::new(view);
    let transparent = shown.prop_opacity < 0.999;
    let is_prop = |i: usize| shown.prims[i].part == part::PROP;
    for (i, r) in ready.iter().enumerate() {
        if !(shown.prims[i].ghost || transparent && is_prop(i)) {
            buffer.draw(view, r, i as u16);
        }
    }
    // A fading thing is laid over what is behind it.
    let under = transparent.then(|| {
        let behind = Buffer {
            depth: buffer.depth.clone(),
            key: buffer.key.clone(),
            id: buffer.id.clone(),
        };
        for (i, r) in ready.iter().enumerate() {
            if is_prop(i) && !shown.prims[i].ghost {
                buffer.draw(view, r, i as u16);
            }
        }
        behind
    });
    let shadow = Shadow::new(shown, &ready, shadow_size);
    let (width, height) = (view.width / samples, view.height / samples);
    let n = width * height;
    let mut out = Picture {
        linear: vec![V3::ZERO; n],
        depth: vec![0.0; n],
        part: vec![part::BACKGROUND; n],
        id: vec![NOTHING; n],
    };
    let share = 1.0 / (samples * samples) as f32;
    let middle = samples / 2;
    for y in 0..height {
        for x in 0..width {
            let mut sum = V3::ZERO;
            for sy in 0..samples {
                for sx in 0..samples {
                    let (px, py) = (x * samples + sx, y * samples + sy);
                    let i = py * view.width + px;
                    let (o, d) = view.ray(px as f32 + 0.5, py as f32 + 0.5);
                    let (mut colour, depth) =
                        shade(shown, &ready, &shadow, o, d, buffer.id[i], buffer.depth[i]);
                    if let Some(behind) = &under
                        && behind.id[i] != buffer.id[i]
                    {
                        let (back, _) =
                            shade(shown, &ready, &shadow, o, d, behind.id[i], behind.depth[i]);
                        colour = back.lerp(colour, shown.prop_opacity);
                    }
                    sum += colour;
                    if sx == middle && sy == middle {
                        let k = y * width + x;
                        out.depth[k] = depth;
                        out.id[k] = buffer.id[i];
                        if buffer.id[i] != NOTHING {
                            out.part[k] = shown.prims[buffer.id[i] as usize].part;
                        }
                    }
                }
            }
            out.linear[y * width + x] = sum * share;
        }
    }
    out
}

/// Parts only, one ray a pixel; ghosts are drawn, orders are not changed.
pub(crate) fn parts(prims: &[Prim], view: &View) -> Vec<u8> {
    let mut buffer = Buffer::new(view);
    for (i, p) in prims.iter().enumerate() {
        buffer.draw(view, &Ready::new(&Prim { bias: 0.0, ..*p }), i as u16);
    }
    buffer
        .id
        .iter()
        .map(|&i| {
            if i == NOTHING {
                part::BACKGROUND
            } else {
                prims[i as usize].part
            }
        })
        .collect()
}

/// Depth from the light, for shadows.
struct Shadow {
    view: View,
    depth: Vec<f32>,
    softness: f32,
}

impl Shadow {
    fn new(shown: &Shown, ready: &[Ready], size: usize) -> Shadow {
        let middle = shown.place + v3(0.0, 0.9, 0.0);
        let view = View::parallel(size, middle, -shown.scene.light.towards, SHADOW_HALF);
        let mut buffer = Buffer::new(&view);
        for (i, r) in ready.iter().enumerate() {
            let p = &shown.prims[i];
            if !(p.ghost || p.part == part::PROP && shown.prop_opacity < 0.5) {
                buffer.draw(&view, r, i as u16);
            }
        }
        Shadow {
            view,
            depth: buffer.depth,
            softness: shown.scene.light.softness,
        }
    }

    /// Share of the light that arrives, by a 4×4 window of comparisons with linear weights.
    fn light(&self, p: V3, normal: V3) -> f32 {
        let (x, y, z) = self.view.project(p + normal * 0.018);
        let size = self.view.width;
        let step = (self.softness * size as f32 / (2.0 * SHADOW_HALF) / 1.5).max(1.0);
        let at = |fx: f32, fy: f32| {
            if fx < 0.0 || fy < 0.0 || fx >= size as f32 || fy >= size as f32 {
                1.0
            } else {
                // Contact hardens: the comparison fades over a few centimetres.
                smoothstep(
                    -0.06,
                    -0.01,
                    self.depth[fy as usize * size + fx as usize] - z,
                )
            }
        };
        // Far from any edge the corners of the window agree, and so does all between them.
        let r = 2.0 * step;
        let corners = [
            at(x, y),
            at(x - r, y - r),
            at(x + r, y - r),
            at(x - r, y + r),
            at(x + r, y + r),
        ];
        if corners.iter().all(|&c| c == corners[0]) {
            return corners[0];
        }
        let mut sum = 0.0;
        let mut total = 0.0;
        for j in -2i32..=2 {
            for i in -2i32..=2 {
                let (fx, fy) = (x + i as f32 * step, y + j as f32 * step);
                let w = (3 - i.abs()) as f32 * (3 - j.abs()) as f32;
                total += w;
                sum += w * at(fx, fy);
            }
        }
        sum / total
    }
}

fn shade(
    shown: &Shown,
    ready: &[Ready],
    shadow: &Shadow,
    o: V3,
    d: V3,
    id: u16,
    t: f32,
) -> (V3, f32) {
    let light = &shown.scene.light;
    if id == NOTHING {
        let b = shown.scene.backdrop(o, d);
        if b.glow {
            return (b.albedo, b.t);
        }
        let p = o + d * b.t;
        let facing = b.normal.dot(light.towards).max(0.0);
        let lit = if facing > 0.0 {
            shadow.light(p, b.normal)
        } else {
            1.0
        };
        // Light from above is held back near the feet of whatever stands there: half of the direct shadow, softly.
        let ambient = ambient(light, b.normal) * lerp(0.62, 1.0, lit);
        return (b.albedo.scale(ambient + light.colour * (facing * lit)), b.t);
    }
    let prim = &shown.prims[id as usize];
    let p = o + d * t;
    let axes = prim.joint.axes;
    let q = p - prim.joint.origin;
    let p_bone = v3(q.dot(axes.x), q.dot(axes.y), q.dot(axes.z));
    let n_bone = ready[id as usize].normal(prim, p_bone).unit();
    let surface = evaluate(
        prim.material,
        shown.look,
        &shown.expression,
        p_bone + prim.texture,
        n_bone,
    );
    if surface.glow > 0.0 {
        return (surface.albedo, t);
    }
    let flat = (axes * n_bone).unit();
    let n = (axes * (n_bone + surface.bump)).unit();
    let raw = n.dot(light.towards);
    let facing = ((raw + surface.wrap) / (1.0 + surface.wrap)).max(0.0);
    let lit = if facing > 0.0 {
        shadow.light(p, flat)
    } else {
        0.0
    };
    let view = -d.unit();
    let half = (view + light.towards).unit();
    let shine = surface.gloss * n.dot(half).max(0.0).powi(24) * lit;
    // Edges turned away from the eye see more of each other than of the light.
    let rim = 0.72 + 0.28 * smoothstep(0.0, 0.45, flat.dot(view));
    let low = smoothstep(0.0, 0.5, p.y) * 0.25 + 0.75;
    let colour = surface
        .albedo
        .scale(ambient(light, n) * (rim * low) + light.colour * (facing * lit))
        + light.colour * shine;
    (colour, t)
}

fn ambient(light: &super::scene::Light, n: V3) -> V3 {
    light.from_below.lerp(light.from_above, 0.5 + 0.5 * n.y)
}
