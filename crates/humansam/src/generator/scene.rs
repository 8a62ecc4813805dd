//! Where it happens: floor, walls or a horizon, things that stand about, light.

mod objects;

use serde::{Deserialize, Serialize};

use super::body::hsv;
use super::material::{Floor, Wall, floor_colour, wall_colour};
use super::math::{V3, smoothstep, v3};
use super::motion::Action;
use super::rng::{Rng, fractal2, noise2};

/// Kinds of surroundings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Setting {
    /// A room with pictures, shelf, sofa.
    Room,
    /// Tiles and cupboards.
    Kitchen,
    /// A seamless paper background.
    Studio,
    /// A hall with a marked floor.
    Gym,
    /// Grass and trees.
    Park,
    /// Paving and houses.
    Street,
    /// Sand and sea.
    Beach,
}

impl Setting {
    /// All of them.
    pub const ALL: [Setting; 7] = [
        Setting::Room,
        Setting::Kitchen,
        Setting::Studio,
        Setting::Gym,
        Setting::Park,
        Setting::Street,
        Setting::Beach,
    ];
    /// Those that training never sees.
    pub const HELD_OUT: [Setting; 2] = [Setting::Gym, Setting::Beach];

    fn indoors(self) -> bool {
        matches!(
            self,
            Setting::Room | Setting::Kitchen | Setting::Gym | Setting::Studio
        )
    }
}

/// One scene.
#[derive(Clone, Debug)]
pub(crate) struct Scene {
    pub setting: Setting,
    pub light: Light,
    floor: (Floor, V3, V3),
    wall: (Wall, V3, V3),
    /// Distances of back and side walls; unused outdoors.
    back: f32,
    sides: f32,
    seed: u32,
    sky: (V3, V3),
}

/// One far light, and light from all around.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Light {
    /// Towards the light.
    pub towards: V3,
    pub colour: V3,
    pub from_above: V3,
    pub from_below: V3,
    /// Half width of the edge of a shadow, in metres.
    pub softness: f32,
}

/// What a ray meets that meets no primitive.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Backdrop {
    /// Distance in units of the ray's direction.
    pub t: f32,
    pub normal: V3,
    pub albedo: V3,
    /// Already lit (sky).
    pub glow: bool,
}

const FAR: f32 = 60.0;

impl Scene {
    pub fn draw(rng: &mut Rng, setting: Setting, action: Action) -> Scene {
        let pale = |rng: &mut Rng| hsv(rng.unit(), rng.range(0.04, 0.35), rng.range(0.6, 0.95));
        let floor = match setting {
            Setting::Room => (
                rng.pick(&[Floor::Planks, Floor::Carpet, Floor::Planks, Floor::Tiles]),
                hsv(
                    rng.range(0.05, 0.1),
                    rng.range(0.3, 0.6),
                    rng.range(0.4, 0.75),
                ),
                pale(rng),
            ),
            Setting::Kitchen => (Floor::Tiles, pale(rng), pale(rng) * 0.5),
            Setting::Studio => (Floor::Concrete, pale(rng), pale(rng)),
            Setting::Gym => (
                Floor::Court,
                hsv(0.085, 0.5, 0.72),
                hsv(rng.unit(), 0.5, 0.9),
            ),
            Setting::Park => (
                Floor::Grass,
                hsv(rng.range(0.2, 0.3), 0.6, rng.range(0.4, 0.6)),
                hsv(0.18, 0.5, 0.55),
            ),
            Setting::Street => (
                rng.pick(&[Floor::Paving, Floor::Concrete, Floor::Paving]),
                hsv(0.08, 0.08, rng.range(0.5, 0.72)),
                pale(rng),
            ),
            Setting::Beach => (Floor::Sand, hsv(0.11, 0.32, 0.85), pale(rng)),
        };
        let wall = match setting {
            Setting::Room => (
                rng.pick(&[
                    Wall::Paint,
                    Wall::Paint,
                    Wall::Stripes,
                    Wall::Brick,
                    Wall::Panel,
                ]),
                pale(rng),
                pale(rng),
            ),
            Setting::Kitchen => (
                rng.pick(&[Wall::Tiles, Wall::Paint]),
                pale(rng),
                v3(0.5, 0.5, 0.5),
            ),
            Setting::Gym => (
                rng.pick(&[Wall::Brick, Wall::Panel]),
                hsv(rng.range(0.02, 0.1), rng.range(0.1, 0.5), 0.7),
                pale(rng),
            ),
            _ => (Wall::Paint, pale(rng), pale(rng)),
        };
        let wall = if wall.0 == Wall::Brick {
            (wall.0, hsv(0.03, 0.5, rng.range(0.4, 0.65)), wall.2)
        } else {
            wall
        };
        let roomy = if action == Action::Walk { 3.0 } else { 0.0 };
        let azimuth = rng.range(-1.3, 1.3);
        let elevation = rng.range(0.6, 1.15);
        let towards = v3(
            azimuth.sin() * elevation.cos(),
            elevation.sin(),
            azimuth.cos() * elevation.cos(),
        )
        .unit();
        let indoors = setting.indoors();
        let warm = rng.range(0.0, 1.0);
        let tint = v3(1.0, 0.93, 0.82).lerp(v3(0.92, 0.97, 1.06), warm);
        let strength = if indoors {
            rng.range(0.75, 1.15)
        } else {
            rng.range(0.9, 1.7)
        };
        let fill = if indoors {
            rng.range(0.35, 0.6)
        } else {
            rng.range(0.3, 0.55)
        };
        let cloudy = rng.unit();
        let sky_top = if setting == Setting::Gym || indoors {
            v3(0.7, 0.7, 0.7)
        } else {
            hsv(0.59, 0.55 - 0.4 * cloudy, 0.85)
        };
        Scene {
            setting,
            light: Light {
                towards,
                colour: tint * strength,
                from_above: if indoors {
                    tint * fill
                } else {
                    v3(0.8, 0.92, 1.1) * fill
                },
                from_below: v3(0.9, 0.82, 0.72) * (fill * 0.55),
                softness: if indoors { 0.06 } else { 0.025 },
            },
            floor,
            wall,
            back: rng.range(1.7, 3.2),
            sides: rng.range(2.2, 3.4) + roomy,
            seed: rng.u64() as u32,
            sky: (sky_top, v3(0.82, 0.86, 0.9)),
        }
    }

    /// The floor, a wall or the sky along `origin + t · direction`.
    pub fn backdrop(&self, origin: V3, d: V3) -> Backdrop {
        let floor_t = if d.y < -1e-5 {
            -origin.y / d.y
        } else {
            f32::INFINITY
        };
        if self.setting == Setting::Studio {
            return self.seamless(origin, d, floor_t);
        }
        if self.setting.indoors() {
            let back_t = if d.z < -1e-5 {
                (-self.back - origin.z) / d.z
            } else {
                f32::INFINITY
            };
            let side_t = if d.x > 1e-5 {
                (self.sides - origin.x) / d.x
            } else if d.x < -1e-5 {
                (-self.sides - origin.x) / d.x
            } else {
                f32::INFINITY
            };
            let side_t = if side_t > 0.0 { side_t } else { f32::INFINITY };
            let top_t = if d.y > 1e-5 {
                (3.0 - origin.y) / d.y
            } else {
                f32::INFINITY
            };
            let t = floor_t.min(back_t).min(side_t).min(top_t).min(FAR);
            let p = origin + d * t;
            let (w, a, b) = self.wall;
            let (normal, albedo) = if t == floor_t {
                (V3::Y, self.floor_at(p))
            } else if t == back_t {
                (V3::Z, wall_colour(w, a, b, p.x, p.y, self.seed))
            } else if t == side_t {
                (
                    v3(-d.x.signum(), 0.0, 0.0),
                    wall_colour(w, a, b, p.z + 3.3, p.y, self.seed),
                )
            } else {
                (-V3::Y, v3(0.8, 0.8, 0.78))
            };
            return Backdrop {
                t,
                normal,
                albedo,
                glow: false,
            };
        }
        if floor_t < FAR {
            let p = origin + d * floor_t;
            let distance = (p.x * p.x + p.z * p.z).sqrt();
            let mut albedo = self.floor_at(p);
            if self.setting == Setting::Beach && p.z < -5.0 {
                let wave = fractal2(p.x * 0.6, p.z * 2.2, 3, self.seed);
                albedo = hsv(0.53, 0.55, 0.5 + 0.25 * wave);
            }
            albedo = albedo.lerp(self.sky.1 * 0.8, smoothstep(12.0, FAR, distance) * 0.7);
            return Backdrop {
                t: floor_t,
                normal: V3::Y,
                albedo,
                glow: false,
            };
        }
        Backdrop {
            t: FAR,
            normal: -d.unit(),
            albedo: self.horizon(d),
            glow: true,
        }
    }

    fn floor_at(&self, p: V3) -> V3 {
        floor_colour(
            self.floor.0,
            self.floor.1,
            self.floor.2,
            p.x,
            p.z,
            self.seed,
        )
    }

    fn seamless(&self, origin: V3, d: V3, floor_t: f32) -> Backdrop {
        let back_t = if d.z < -1e-5 {
            (-self.back - origin.z) / d.z
        } else {
            f32::INFINITY
        };
        let t = floor_t.min(back_t).min(FAR);
        let p = origin + d * t;
        let tone = 0.96 + 0.08 * fractal2(p.x * 0.8 + 3.0, (p.z - p.y) * 0.8, 2, self.seed);
        // The paper bends from floor to wall over half a metre.
        let bend = if t == floor_t {
            0.5 * smoothstep(self.back - 0.6, self.back, -p.z)
        } else {
            0.5 + 0.5 * smoothstep(0.0, 0.6, p.y)
        };
        Backdrop {
            t,
            normal: V3::Y.lerp(V3::Z, bend).unit(),
            albedo: self.wall.1 * (0.8 * tone),
            glow: false,
        }
    }

    /// Sky and what stands on the horizon, by direction.
    fn horizon(&self, d: V3) -> V3 {
        let up = d.y / (d.x * d.x + d.z * d.z).sqrt().max(1e-4);
        let around = d.x.atan2(-d.z);
        let clouds = fractal2(around * 5.0, up * 9.0 + 3.0, 4, self.seed);
        let sky = self
            .sky
            .1
            .lerp(self.sky.0, smoothstep(0.0, 0.5, up))
            .lerp(v3(0.95, 0.95, 0.97), 0.8 * smoothstep(0.5, 0.75, clouds));
        match self.setting {
            Setting::Street => {
                let house = (around * 7.0).floor();
                let inside = around * 7.0 - house;
                let top = 0.22 + 0.35 * noise2(house * 3.7, 1.5, self.seed);
                if up > top {
                    return sky;
                }
                let hue = noise2(house * 5.3, 7.5, self.seed);
                let base = hsv(
                    0.02 + 0.12 * hue,
                    0.15 + 0.3 * hue,
                    0.45 + 0.4 * noise2(house * 2.1, 3.5, self.seed),
                );
                let (wx, wy) = ((inside * 5.0).fract(), (up * 16.0).rem_euclid(1.0));
                let window = (0.25..0.75).contains(&wx) && (0.2..0.75).contains(&wy);
                if inside > 0.985 {
                    base * 0.4
                } else if window {
                    v3(0.12, 0.16, 0.2)
                        * (0.6
                            + noise2(
                                house + (inside * 5.0).floor() * 1.7,
                                (up * 16.0).floor() * 2.3,
                                self.seed ^ 5,
                            ))
                } else {
                    base * 0.9
                }
            }
            Setting::Park => {
                let top = 0.10 + 0.09 * fractal2(around * 9.0, 0.5, 4, self.seed);
                if up > top {
                    return sky;
                }
                let leaf = fractal2(around * 90.0, up * 90.0, 2, self.seed ^ 2);
                hsv(0.27, 0.35, 0.5).lerp(sky, 0.25) * (0.45 + 0.8 * leaf)
            }
            _ => sky,
        }
    }
}
