//! A person: proportions, and how the person looks.

use super::math::{V3, v3};
use super::rng::Rng;

/// Left is 0, right is 1.
pub(crate) const SIDES: [f32; 2] = [1.0, -1.0];

/// Lengths of bones, in metres. Shares of body height follow the usual anthropometric tables (Drillis and Contini 1966).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Body {
    pub height: f32,
    /// Girth relative to a slim person.
    pub bulk: f32,
    pub hip_height: f32,
    pub hip_half: f32,
    pub abdomen: f32,
    pub chest: f32,
    pub shoulder_half: f32,
    pub neck: f32,
    pub head: f32,
    pub thigh: [f32; 2],
    pub shin: [f32; 2],
    pub ankle: f32,
    pub foot: f32,
    pub upper_arm: [f32; 2],
    pub forearm: [f32; 2],
    pub hand: [f32; 2],
    /// 0 straight, 1 narrow waist and wide hips.
    pub waist: f32,
    /// Girth of each arm and leg, one by one, which anomalies change.
    pub limb_girth: [f32; 4],
    pub head_scale: f32,
}

impl Body {
    /// A grown person of common build.
    pub fn draw(rng: &mut Rng) -> Body {
        let waist = if rng.chance(0.5) {
            rng.range(0.55, 1.0)
        } else {
            rng.range(0.0, 0.4)
        };
        let height = rng.range(1.58, 1.78) + (1.0 - waist) * rng.range(0.0, 0.14);
        let mut v = |share: f32, spread: f32| height * share * (1.0 + rng.range(-spread, spread));
        let thigh = v(0.245, 0.03);
        let shin = v(0.240, 0.03);
        let ankle = v(0.042, 0.03);
        let upper = v(0.172, 0.04);
        let fore = v(0.148, 0.04);
        let hand = v(0.104, 0.05);
        Body {
            hip_height: thigh + shin + ankle,
            hip_half: v(0.052, 0.08),
            abdomen: v(0.115, 0.04),
            chest: v(0.175, 0.04),
            shoulder_half: v(0.108 + 0.012 * (1.0 - waist), 0.04),
            neck: v(0.05, 0.08),
            head: v(0.134, 0.03),
            foot: v(0.15, 0.04),
            thigh: [thigh; 2],
            shin: [shin; 2],
            ankle,
            upper_arm: [upper; 2],
            forearm: [fore; 2],
            hand: [hand; 2],
            bulk: rng.range(0.92, 1.22),
            waist,
            limb_girth: [1.0; 4],
            head_scale: 1.0,
            height,
        }
    }
}

/// A pattern on cloth.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pattern {
    Plain,
    Stripes,
    Hoops,
    Checks,
    Dots,
    Mottled,
    Logo,
}

/// One piece of clothing's surface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cloth {
    /// Linear RGB reflectance.
    pub colour: V3,
    pub second: V3,
    pub pattern: Pattern,
    /// Repetitions a metre.
    pub pitch: f32,
    pub seed: u32,
    /// Height of the folds.
    pub folds: f32,
}

impl Cloth {
    pub fn draw(rng: &mut Rng) -> Cloth {
        let colour = cloth_colour(rng);
        let mut second = cloth_colour(rng);
        // A pattern has to be seen: keep its two colours apart.
        if (colour - second).length() < 0.2 {
            second = if colour.dot(v3(0.3, 0.6, 0.1)) > 0.3 {
                colour * 0.25
            } else {
                colour.lerp(v3(0.8, 0.8, 0.8), 0.75)
            };
        }
        Cloth {
            colour,
            second,
            pattern: rng.pick(&[
                Pattern::Plain,
                Pattern::Plain,
                Pattern::Stripes,
                Pattern::Hoops,
                Pattern::Checks,
                Pattern::Dots,
                Pattern::Mottled,
                Pattern::Logo,
            ]),
            pitch: rng.range(10.0, 24.0),
            seed: rng.u64() as u32,
            folds: rng.range(0.3, 1.0),
        }
    }
}

/// Hue, saturation, value to linear RGB.
pub(crate) fn hsv(h: f32, s: f32, v: f32) -> V3 {
    let f = |n: f32| {
        let k = (n + h * 6.0).rem_euclid(6.0);
        let srgb = v - v * s * k.min(4.0 - k).clamp(0.0, 1.0);
        srgb.max(0.0).powf(2.2)
    };
    v3(f(5.0), f(3.0), f(1.0))
}

fn cloth_colour(rng: &mut Rng) -> V3 {
    if rng.chance(0.3) {
        let g = rng.range(0.12, 0.9);
        hsv(rng.unit(), rng.range(0.0, 0.12), g)
    } else {
        hsv(rng.unit(), rng.range(0.3, 0.85), rng.range(0.25, 0.9))
    }
}

/// Shape of the hair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hair {
    Bald,
    Short,
    Side,
    Long,
    Bun,
    Curly,
}

/// Everything that makes a face somebody's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Face {
    pub skin: V3,
    pub iris: V3,
    pub brow: V3,
    pub lips: V3,
    pub eye_apart: f32,
    pub eye_size: f32,
    pub eye_tilt: f32,
    pub brow_thick: f32,
    pub brow_lift: f32,
    pub mouth_width: f32,
    pub mouth_low: f32,
    pub nose_length: f32,
    pub nose_width: f32,
    pub jaw_width: f32,
    pub jaw_long: f32,
    pub beard: f32,
    pub hair: Hair,
    pub hair_colour: V3,
    pub glasses: bool,
}

impl Face {
    pub fn draw(rng: &mut Rng) -> Face {
        // From light to dark: reflectances measured by eye from public skin-tone charts, linear RGB.
        let tones = [
            v3(0.78, 0.54, 0.42),
            v3(0.68, 0.44, 0.32),
            v3(0.55, 0.34, 0.22),
            v3(0.40, 0.22, 0.13),
            v3(0.25, 0.125, 0.07),
            v3(0.13, 0.062, 0.036),
        ];
        let i = rng.range(0.0, 4.99);
        let skin = tones[i as usize].lerp(tones[i as usize + 1], i.fract());
        let dark = skin.x < 0.35;
        let hair_colour = if dark || rng.chance(0.45) {
            hsv(0.07, 0.4, rng.range(0.06, 0.2))
        } else {
            rng.pick(&[
                hsv(0.07, 0.62, 0.32),
                hsv(0.09, 0.55, 0.52),
                hsv(0.11, 0.5, 0.78),
                hsv(0.04, 0.75, 0.5),
                hsv(0.1, 0.05, 0.62),
            ])
        };
        Face {
            skin,
            iris: if dark {
                hsv(0.07, 0.7, 0.25)
            } else {
                rng.pick(&[
                    hsv(0.07, 0.7, 0.3),
                    hsv(0.58, 0.55, 0.6),
                    hsv(0.3, 0.4, 0.45),
                ])
            },
            brow: hair_colour * 0.7,
            lips: skin.scale(v3(0.86, 0.55, 0.56)),
            eye_apart: rng.range(0.255, 0.31),
            eye_size: rng.range(0.105, 0.135),
            eye_tilt: rng.range(-0.05, 0.12),
            brow_thick: rng.range(0.014, 0.03),
            brow_lift: rng.range(0.095, 0.125),
            mouth_width: rng.range(0.19, 0.26),
            mouth_low: rng.range(0.285, 0.325),
            nose_length: rng.range(0.85, 1.15),
            nose_width: rng.range(0.85, 1.25),
            jaw_width: rng.range(0.88, 1.06),
            jaw_long: rng.range(0.94, 1.08),
            beard: if rng.chance(0.2) {
                rng.range(0.5, 1.0)
            } else {
                0.0
            },
            hair: rng.pick(&[
                Hair::Bald,
                Hair::Short,
                Hair::Short,
                Hair::Side,
                Hair::Long,
                Hair::Long,
                Hair::Bun,
                Hair::Curly,
            ]),
            hair_colour,
            glasses: rng.chance(0.15),
        }
    }
}

/// How far clothes reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Legwear {
    Trousers,
    Shorts,
    Skirt,
}

/// What a person wears and looks like.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Look {
    pub face: Face,
    pub shirt: Cloth,
    pub legs: Cloth,
    pub shoes: Cloth,
    pub long_sleeves: bool,
    pub legwear: Legwear,
    pub belt: bool,
    /// Shift of cloth textures along the body, in metres, which anomalies move.
    pub crawl: V3,
}

impl Look {
    pub fn draw(rng: &mut Rng, body: &Body) -> Look {
        let face = Face::draw(rng);
        let shirt = Cloth::draw(rng);
        let mut legs = Cloth::draw(rng);
        if rng.chance(0.7) {
            legs.pattern = Pattern::Plain;
        }
        if (legs.colour - shirt.colour).length() < 0.12 {
            legs.colour = if shirt.colour.dot(v3(0.3, 0.6, 0.1)) > 0.25 {
                hsv(0.6, 0.4, 0.22)
            } else {
                hsv(0.1, 0.2, 0.7)
            };
        }
        let mut shoes = Cloth::draw(rng);
        shoes.pattern = Pattern::Plain;
        if rng.chance(0.5) {
            shoes.colour = v3(0.03, 0.03, 0.035);
        }
        let skirt = body.waist > 0.5 && rng.chance(0.3);
        Look {
            face,
            shirt,
            legs,
            shoes,
            long_sleeves: rng.chance(0.45),
            legwear: if skirt {
                Legwear::Skirt
            } else if rng.chance(0.22) {
                Legwear::Shorts
            } else {
                Legwear::Trousers
            },
            belt: rng.chance(0.4),
            crawl: V3::ZERO,
        }
    }
}
