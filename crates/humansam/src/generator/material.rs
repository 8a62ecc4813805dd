//! What a surface looks like at a point: skin, faces, cloth, wood, foliage, walls, floors.
//!
//! Body textures live in the coordinates of their bone, so they move with the body. Colours are linear RGB reflectances.

use super::body::{Cloth, Face, Look, Pattern};
use super::math::{V3, lerp, smoothstep, v3};
use super::rng::{fractal2, noise2};

/// The kind of a surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Material {
    Skin,
    Face,
    Hair,
    Shirt,
    Legs,
    Shoes,
    Belt,
    Solid {
        colour: V3,
        gloss: f32,
    },
    Wood {
        colour: V3,
        seed: u32,
    },
    Foliage {
        colour: V3,
        seed: u32,
    },
    Books {
        seed: u32,
    },
    Picture {
        seed: u32,
    },
    Ball {
        colour: V3,
        second: V3,
    },
    /// Shines by itself: windows, lamps, screens.
    Glow {
        colour: V3,
    },
}

impl Material {
    /// One colour everywhere.
    pub const fn solid(colour: V3, gloss: f32) -> Self {
        Self::Solid { colour, gloss }
    }
}

/// What shading needs to know.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surface {
    pub albedo: V3,
    /// Strength of the highlight.
    pub gloss: f32,
    /// Added to the normal, in bone coordinates.
    pub bump: V3,
    /// Light of its own.
    pub glow: f32,
    /// Light wraps around it (skin).
    pub wrap: f32,
}

impl Surface {
    fn matt(albedo: V3) -> Surface {
        Surface {
            albedo,
            gloss: 0.03,
            bump: V3::ZERO,
            glow: 0.0,
            wrap: 0.1,
        }
    }
}

/// State of a face that changes from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Expression {
    pub mouth: f32,
    pub blink: f32,
    pub gaze: f32,
    /// How far the features run (an anomaly), and its seed.
    pub melt: f32,
    pub melt_seed: u32,
    /// Length of the head in metres.
    pub head: f32,
}

/// The surface of `material` at the bone coordinates `p` (after the shift of textures) with normal `n` in bone coordinates.
pub(crate) fn evaluate(
    material: Material,
    look: &Look,
    expression: &Expression,
    p: V3,
    n: V3,
) -> Surface {
    match material {
        Material::Skin => skin(&look.face, p),
        Material::Face => face(&look.face, expression, p, n),
        Material::Hair => {
            let strand = noise2(p.x * 260.0 + p.z * 90.0, p.y * 22.0 + p.z * 30.0, 77);
            let lock = noise2(p.x * 60.0 + p.z * 40.0, p.y * 9.0, 78);
            let mut s =
                Surface::matt(look.face.hair_colour * (0.55 + 0.55 * strand * 0.6 + 0.35 * lock));
            s.gloss = 0.12;
            s.bump = v3((strand - 0.5) * 0.6, 0.0, (lock - 0.5) * 0.5);
            s
        }
        Material::Shirt => cloth(&look.shirt, p + look.crawl, n),
        Material::Legs => cloth(&look.legs, p + look.crawl, n),
        Material::Shoes => {
            let mut s = Surface::matt(look.shoes.colour);
            s.gloss = 0.15;
            // A lighter sole.
            if p.z < -0.055 {
                s.albedo = v3(0.6, 0.6, 0.58);
            }
            s
        }
        Material::Belt => {
            let mut s = Surface::matt(v3(0.05, 0.03, 0.02));
            s.gloss = 0.2;
            if p.x.abs() < 0.018 && n.z > 0.5 {
                s.albedo = v3(0.6, 0.55, 0.4);
                s.gloss = 0.6;
            }
            s
        }
        Material::Solid { colour, gloss } => Surface {
            gloss,
            ..Surface::matt(colour)
        },
        Material::Wood { colour, seed } => {
            let g = fractal2(p.x * 5.0 + p.z * 40.0, p.y * 40.0 + p.z * 3.0, 3, seed);
            Surface {
                gloss: 0.08,
                ..Surface::matt(colour * (0.65 + 0.6 * g))
            }
        }
        Material::Foliage { colour, seed } => {
            let g = noise2(p.x * 26.0 + p.z * 13.0, p.y * 26.0 - p.z * 17.0, seed);
            let h = noise2(p.x * 9.0 - p.z * 7.0, p.y * 9.0 + p.z * 5.0, seed ^ 3);
            let mut s = Surface::matt(colour * (0.25 + 0.9 * g * (0.4 + h)));
            s.bump = v3(g - 0.5, h - 0.5, 0.5 - g) * 1.6;
            s
        }
        Material::Books { seed } => {
            // Rows of spines with shelves between.
            let row = (p.y * 3.1).floor();
            let in_row = p.y * 3.1 - row;
            let x = p.x * 22.0 + p.z * 22.0 + row * 3.7;
            let book = x.floor();
            let tall = 0.62 + 0.28 * noise2(book * 1.7, row * 5.1, seed);
            if !(0.03..=0.93).contains(&in_row) {
                return Surface::matt(v3(0.28, 0.17, 0.09));
            }
            if in_row > tall {
                return Surface::matt(v3(0.04, 0.03, 0.02));
            }
            let hue = noise2(book * 7.3 + 0.5, row * 3.3, seed ^ 1);
            let edge = (x - book - 0.5).abs();
            let shade = if edge > 0.45 { 0.3 } else { 1.0 };
            Surface::matt(
                super::body::hsv(hue, 0.55, 0.3 + 0.5 * noise2(book * 3.1, row, seed ^ 2)) * shade,
            )
        }
        Material::Picture { seed } => {
            let a = fractal2(p.x * 5.0, p.y * 5.0, 3, seed);
            let b = fractal2(p.x * 4.0 + 9.0, p.y * 6.0, 3, seed ^ 9);
            Surface::matt(super::body::hsv(
                (a * 1.6 + (seed & 255) as f32 / 255.0).fract(),
                0.5,
                0.25 + 0.7 * b,
            ))
        }
        Material::Ball { colour, second } => {
            let band = (n.y * 2.2 + 0.5).floor() as i32 & 1;
            Surface {
                gloss: 0.3,
                ..Surface::matt(if band == 0 { colour } else { second })
            }
        }
        Material::Glow { colour } => Surface {
            glow: 1.0,
            ..Surface::matt(colour)
        },
    }
}

fn skin(face: &Face, p: V3) -> Surface {
    let blotch = noise2(p.x * 45.0 + p.z * 45.0, p.y * 45.0, 5) - 0.5;
    Surface {
        albedo: face.skin * (1.0 + 0.08 * blotch),
        gloss: 0.10,
        bump: V3::ZERO,
        glow: 0.0,
        wrap: 0.35,
    }
}

fn cloth(cloth: &Cloth, p: V3, n: V3) -> Surface {
    // Around a limb or the trunk: angle times a typical radius, continuous except at the back.
    let around = n.x.atan2(n.z.abs().max(1e-3) * n.z.signum()) * 0.13;
    let (u, v) = (around * cloth.pitch, p.y * cloth.pitch);
    let band = |x: f32| smoothstep(0.42, 0.5, (x - x.floor() - 0.5).abs() * 2.0);
    let share = match cloth.pattern {
        Pattern::Plain => 0.0,
        Pattern::Stripes => band(u),
        Pattern::Hoops => band(v),
        Pattern::Checks => 0.5 * (band(u) + band(v)),
        Pattern::Dots => {
            let row = v.floor();
            let (x, y) = ((u + 0.5 * row).rem_euclid(1.0) - 0.5, v - row - 0.5);
            1.0 - smoothstep(0.26, 0.32, (x * x + y * y).sqrt())
        }
        Pattern::Mottled => smoothstep(0.45, 0.55, fractal2(u * 0.8, v * 0.8, 2, cloth.seed)),
        Pattern::Logo => {
            let (x, y) = (p.x, p.y - 0.21);
            let inside = n.z > 0.2 && x.abs() < 0.075 && y.abs() < 0.055;
            let ring = ((x * x + y * y).sqrt() - 0.04).abs() < 0.012;
            let bar = (y + 0.5 * x).abs() < 0.010;
            if inside && (ring || bar) { 1.0 } else { 0.0 }
        }
    };
    // Folds: a noise field stretched across the limb, whose slope tilts the normal.
    let f = |x: f32, y: f32| fractal2(x * 9.0, y * 15.0, 2, cloth.seed ^ 0x51);
    let (x, y) = (around * 1.4 + 0.25 * p.y, p.y);
    let here = f(x, y);
    let slope_x = f(x + 0.012, y) - here;
    let slope_y = f(x, y + 0.012) - here;
    let weave = 0.97 + 0.06 * noise2(around * 700.0, p.y * 700.0, 3);
    Surface {
        albedo: cloth.colour.lerp(cloth.second, share) * weave * (0.86 + 0.28 * here),
        gloss: 0.02,
        bump: v3(slope_x, slope_y, 0.0) * (4.5 * cloth.folds),
        glow: 0.0,
        wrap: 0.15,
    }
}

/// The painted face: `p` in head coordinates (`y` up from the chin's height, `z` to the front).
fn face(face: &Face, e: &Expression, p: V3, n: V3) -> Surface {
    let mut s = skin(face, p);
    if p.z < 0.0 {
        return s;
    }
    let mut u = p.x / e.head;
    let mut v = p.y / e.head - 0.49;
    if e.melt > 0.0 {
        // Features run: a smooth displacement that grows with severity, different for each half.
        let a = fractal2(u * 7.0, v * 7.0, 2, e.melt_seed) - 0.5;
        let b = fractal2(u * 7.0 + 50.0, v * 7.0, 2, e.melt_seed ^ 1) - 0.5;
        u += 0.55 * e.melt * a;
        v += 0.75 * e.melt * b + 0.25 * e.melt * smoothstep(-0.02, 0.03, u);
    }
    let mut colour = s.albedo;
    let blend = |c: &mut V3, to: V3, k: f32| *c = c.lerp(to, k.clamp(0.0, 1.0));
    // Cheeks and under the brows.
    let au = u.abs();
    let cheek = ((au - 0.17).powi(2) + (v + 0.14).powi(2)).sqrt();
    blend(
        &mut colour,
        face.skin.scale(v3(1.05, 0.78, 0.78)),
        0.45 * (1.0 - smoothstep(0.02, 0.11, cheek)),
    );
    let socket = ((au - face.eye_apart / 2.0).powi(2) + ((v - 0.01) * 1.4).powi(2)).sqrt();
    blend(
        &mut colour,
        face.skin * 0.72,
        0.55 * (1.0 - smoothstep(0.03, 0.10, socket)),
    );
    // Beard: everything below the nose but the lips.
    if face.beard > 0.0 {
        let chin =
            smoothstep(0.17, 0.22, -v) + smoothstep(0.20, 0.27, au) * smoothstep(-0.05, 0.12, -v);
        let grain = 0.75 + 0.25 * noise2(u * 160.0, v * 160.0, 8);
        blend(
            &mut colour,
            face.hair_colour * 0.8,
            face.beard * 0.85 * chin.min(1.0) * grain,
        );
    }
    // Mouth.
    let (mx, my) = (
        u / (face.mouth_width / 2.0),
        v + face.mouth_low - 0.012 * (u / (face.mouth_width / 2.0)).powi(2),
    );
    if mx.abs() < 1.0 {
        let open = 0.055 * e.mouth.max(0.0) * (1.0 - mx * mx);
        let lip = 0.036 * (1.0 - mx.abs().powf(2.2)).max(0.0);
        let d = my.abs();
        let edge = 0.008;
        blend(
            &mut colour,
            face.lips,
            0.95 * (1.0 - smoothstep(open + lip - edge, open + lip + edge, d)),
        );
        let inside = open.max(0.004);
        let teeth = e.mouth > 0.25 && my > open * 0.1;
        let cavity = if teeth {
            v3(0.75, 0.72, 0.66)
        } else {
            face.lips * 0.22
        };
        blend(
            &mut colour,
            cavity,
            1.0 - smoothstep(inside - 0.003, inside + 0.003, d),
        );
    }
    // Nostrils.
    let nostril = ((au - 0.034 * face.nose_width).powi(2) * 1.0 + (v + 0.185).powi(2) * 2.5).sqrt();
    blend(
        &mut colour,
        face.skin * 0.3,
        0.8 * (1.0 - smoothstep(0.008, 0.018, nostril)),
    );
    // Eyes.
    let tilt = face.eye_tilt * (au - face.eye_apart / 2.0);
    let ex = (au - face.eye_apart / 2.0) / (face.eye_size / 2.0);
    let ev = v - tilt;
    let shape = (1.0 - ex * ex).max(0.0);
    let lid = 1.0 - e.blink;
    let half_top = 0.036 * shape * lid;
    let half_bottom = 0.020 * shape * lid;
    let line = 0.007;
    if ex.abs() < 1.12 {
        let inside =
            smoothstep(-line, line, half_top - ev) * smoothstep(-line, line, half_bottom + ev);
        let white = v3(0.78, 0.76, 0.74) * (0.75 + 0.25 * shape);
        blend(&mut colour, white, inside * shape.sqrt());
        let look_x = 0.018 * e.gaze * u.signum();
        let iris = ((au - face.eye_apart / 2.0 - look_x).powi(2) + (ev - 0.007).powi(2)).sqrt();
        let k = inside * (1.0 - smoothstep(0.026, 0.031, iris));
        blend(&mut colour, face.iris * (0.5 + 12.0 * iris), k);
        let k = inside * (1.0 - smoothstep(0.011, 0.015, iris));
        blend(&mut colour, v3(0.01, 0.01, 0.01), k);
        let glint =
            ((au - face.eye_apart / 2.0 - look_x - 0.010).powi(2) + (ev - 0.019).powi(2)).sqrt();
        blend(
            &mut colour,
            v3(1.0, 1.0, 1.0),
            inside * (1.0 - smoothstep(0.004, 0.008, glint)),
        );
        // The upper lid's line; a closed eye is only that line.
        let lash = (ev - half_top).abs();
        let k = (1.0 - smoothstep(0.005, 0.012, lash)) * smoothstep(1.1, 0.9, ex.abs());
        blend(&mut colour, face.brow * 0.35, 0.85 * k);
    }
    // Brows.
    let bx = (au - face.eye_apart / 2.0 - 0.01) / (face.eye_size * 0.62);
    let by = v - face.brow_lift + 0.03 * bx * bx - 0.015 * bx;
    if bx.abs() < 1.15 {
        let thick = face.brow_thick * (1.0 - 0.5 * (bx * 0.8 + 0.3).clamp(0.0, 1.0));
        let k = (1.0 - smoothstep(thick * 0.6, thick * 1.2, by.abs()))
            * smoothstep(1.15, 0.9, bx.abs());
        blend(&mut colour, face.brow, 0.8 * k);
    }
    if face.glasses {
        let gx = (au - face.eye_apart / 2.0).abs();
        let ring = (gx.powi(4) + (v - 0.005).abs().powi(4) * 3.0).powf(0.25) - 0.098;
        let bridge = au < 0.045 && (v - 0.03).abs() < 0.010;
        let temple = au > 0.24 && (v - 0.04).abs() < 0.011;
        if ring.abs() < 0.011 || bridge || temple {
            colour = v3(0.02, 0.02, 0.02);
        }
    }
    // Away from the front the paint fades out, so that it is not smeared along the sides.
    let front = smoothstep(0.05, 0.35, n.z);
    s.albedo = s.albedo.lerp(colour, front);
    s
}

/// Floors.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Floor {
    Planks,
    Tiles,
    Carpet,
    Concrete,
    Grass,
    Sand,
    Paving,
    Court,
}

/// Walls.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Wall {
    Paint,
    Stripes,
    Brick,
    Tiles,
    Panel,
}

/// Reflectance of a floor at `(x, z)` metres.
pub(crate) fn floor_colour(floor: Floor, a: V3, b: V3, x: f32, z: f32, seed: u32) -> V3 {
    let line = |d: f32, half: f32| 1.0 - smoothstep(half * 0.6, half * 1.4, d);
    match floor {
        Floor::Planks => {
            let row = (x * 6.5).floor();
            let along = z * 0.7 + noise2(row * 3.7, 0.5, seed) * 5.0;
            let plank = along.floor();
            let tone = noise2(row * 1.3 + 0.5, plank * 7.7, seed ^ 1);
            let grain = fractal2(x * 60.0, z * 3.0 + tone * 20.0, 2, seed ^ 2);
            let gap = line(0.5 - (x * 6.5 - row - 0.5).abs(), 0.03)
                .max(line(0.5 - (along - plank - 0.5).abs(), 0.006));
            a * (0.7 + 0.4 * tone) * (0.75 + 0.5 * grain) * (1.0 - 0.6 * gap)
        }
        Floor::Tiles => {
            let (i, j) = ((x * 2.2).floor(), (z * 2.2).floor());
            let (fx, fz) = (x * 2.2 - i, z * 2.2 - j);
            let edge = fx.min(1.0 - fx).min(fz).min(1.0 - fz);
            let base = if (i as i64 + j as i64) & 1 == 0 { a } else { b };
            let tone = 0.9 + 0.2 * noise2(i * 3.3, j * 5.1, seed);
            (base * tone).lerp(v3(0.3, 0.3, 0.29), line(edge, 0.02))
        }
        Floor::Carpet => {
            let n = fractal2(x * 90.0, z * 90.0, 2, seed);
            let m = fractal2(x * 2.0, z * 2.0, 2, seed ^ 4);
            a.lerp(b, smoothstep(0.45, 0.6, m) * 0.4) * (0.6 + 0.8 * n)
        }
        Floor::Concrete => {
            a * (0.6
                + 0.5 * fractal2(x * 1.5, z * 1.5, 4, seed)
                + 0.2 * noise2(x * 70.0, z * 70.0, seed ^ 1))
        }
        Floor::Grass => {
            let n = fractal2(x * 55.0, z * 30.0, 2, seed);
            let m = fractal2(x * 0.8, z * 0.8, 3, seed ^ 4);
            a.lerp(b, smoothstep(0.35, 0.7, m)) * (0.35 + 1.1 * n)
        }
        Floor::Sand => {
            let n = fractal2(x * 40.0, z * 40.0, 2, seed);
            let m = fractal2(x * 2.2, z * 5.0, 3, seed ^ 4);
            a * (0.7 + 0.3 * m + 0.2 * n)
        }
        Floor::Paving => {
            let j = (z * 1.9).floor();
            let sx = x * 1.3 + 0.5 * (j as i64 & 1) as f32;
            let i = sx.floor();
            let (fx, fz) = (sx - i, z * 1.9 - j);
            let edge = fx.min(1.0 - fx).min(fz).min(1.0 - fz);
            let tone = 0.8 + 0.35 * noise2(i * 3.3, j * 5.1, seed);
            let n = noise2(x * 60.0, z * 60.0, seed ^ 1);
            a * tone * (0.85 + 0.3 * n) * (1.0 - 0.5 * line(edge, 0.025))
        }
        Floor::Court => {
            let n = fractal2(x * 25.0, z * 2.5, 2, seed);
            let base = a * (0.8 + 0.35 * n);
            let r = (x * x + (z + 1.0) * (z + 1.0)).sqrt();
            let mark = line((r - 1.8).abs(), 0.03)
                .max(line((x - 2.6).abs(), 0.03))
                .max(line((z + 1.0).abs(), 0.03));
            base.lerp(b, 0.85 * mark)
        }
    }
}

/// Reflectance of a wall at `u` along and `v` up, in metres.
pub(crate) fn wall_colour(wall: Wall, a: V3, b: V3, u: f32, v: f32, seed: u32) -> V3 {
    let shade = 0.94 + 0.12 * fractal2(u * 0.7, v * 0.7, 3, seed);
    let line = |d: f32, half: f32| 1.0 - smoothstep(half * 0.6, half * 1.4, d);
    // A skirting board.
    if v < 0.1 && wall != Wall::Brick {
        return v3(0.62, 0.6, 0.56);
    }
    let base = match wall {
        Wall::Paint => a * (0.97 + 0.06 * noise2(u * 50.0, v * 50.0, seed ^ 1)),
        Wall::Stripes => {
            let s = u * 4.0;
            a.lerp(b, smoothstep(0.46, 0.54, (s - s.floor() - 0.5).abs() * 2.0))
        }
        Wall::Brick => {
            let j = (v * 11.0).floor();
            let s = u * 4.2 + 0.5 * (j as i64 & 1) as f32;
            let i = s.floor();
            let (fx, fy) = (s - i, v * 11.0 - j);
            let edge = (fx.min(1.0 - fx) * 2.6).min(fy.min(1.0 - fy));
            let tone = 0.65 + 0.6 * noise2(i * 2.3, j * 4.1, seed);
            let n = noise2(u * 90.0, v * 90.0, seed ^ 1);
            (a * tone * (0.8 + 0.4 * n)).lerp(v3(0.42, 0.4, 0.37), line(edge, 0.09))
        }
        Wall::Tiles => {
            let (x, y) = (u * 6.0, v * 6.0);
            let (fx, fy) = (x - x.floor(), y - y.floor());
            let edge = fx.min(1.0 - fx).min(fy).min(1.0 - fy);
            let tone = 0.9 + 0.15 * noise2(x.floor() * 3.1, y.floor() * 2.7, seed);
            (a * tone).lerp(b * 0.8, line(edge, 0.035))
        }
        Wall::Panel => {
            let s = u * 3.0;
            let i = s.floor();
            let gap = line(0.5 - (s - i - 0.5).abs(), 0.012);
            let g = fractal2(u * 45.0, v * 3.0 + noise2(i, 0.0, seed) * 30.0, 2, seed ^ 2);
            a * lerp(0.75, 1.15, g) * (1.0 - 0.65 * gap)
        }
    };
    base * shade
}
