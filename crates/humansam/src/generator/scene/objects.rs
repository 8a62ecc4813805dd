//! Things that stand about: furniture, plants, lamps, trees.

use super::super::body::hsv;
use super::super::flesh::{Builder, part};
use super::super::material::Material;
use super::super::math::{M3, V3, v3};
use super::super::motion::Furniture;
use super::super::rng::Rng;
use super::super::skeleton::Joint;
use super::{Scene, Setting};

impl Scene {
    /// Things that stand still. They keep clear of the person's ground.
    pub fn objects(&self, b: &mut Builder, furniture: &Furniture) {
        let mut rng = Rng::named(u64::from(self.seed), "objects");
        self.furniture(b, furniture, &mut rng);
        let at = |x: f32, z: f32, turn: f32| Joint {
            origin: v3(x, 0.0, z),
            axes: M3::turn_y(turn),
        };
        let object = part::OBJECT;
        let z = -self.back;
        match self.setting {
            Setting::Room => {
                for i in 0..2 + rng.below(3) {
                    let x = -1.9 + 1.25 * i as f32 + rng.range(-0.2, 0.2);
                    let (w, hh) = (rng.range(0.18, 0.42), rng.range(0.16, 0.36));
                    let y = rng.range(1.45, 1.85);
                    b.block(
                        at(x, z, 0.0),
                        object,
                        Material::Wood {
                            colour: v3(0.2, 0.12, 0.07),
                            seed: 3,
                        },
                        v3(0.0, y, 0.01),
                        v3(w + 0.03, hh + 0.03, 0.015),
                    );
                    let m = if rng.chance(0.25) {
                        Material::Glow {
                            colour: v3(0.9, 1.0, 1.15),
                        }
                    } else {
                        Material::Picture {
                            seed: rng.u64() as u32,
                        }
                    };
                    b.block(at(x, z, 0.0), object, m, v3(0.0, y, 0.02), v3(w, hh, 0.012));
                }
                let s = rng.sign();
                match rng.below(3) {
                    0 => self.sofa(b, at(s * rng.range(0.9, 1.4), z + 0.5, 0.0), &mut rng),
                    1 => b.block(
                        at(s * rng.range(0.9, 1.7), z + 0.2, 0.0),
                        object,
                        Material::Books {
                            seed: rng.u64() as u32,
                        },
                        v3(0.0, 0.95, 0.0),
                        v3(0.55, 0.95, 0.16),
                    ),
                    _ => b.block(
                        at(s * rng.range(0.9, 1.6), z + 0.25, 0.0),
                        object,
                        Material::Wood {
                            colour: hsv(0.07, 0.5, 0.5),
                            seed: 11,
                        },
                        v3(0.0, 0.42, 0.0),
                        v3(0.65, 0.42, 0.22),
                    ),
                }
                if rng.chance(0.7) {
                    self.plant(
                        b,
                        at(-s * rng.range(1.1, 1.6), z + 0.4, rng.unit()),
                        &mut rng,
                    );
                }
                if rng.chance(0.5) {
                    let j = at(-s * 1.9, z + 0.5, 0.0);
                    b.rod(
                        j,
                        object,
                        Material::solid(v3(0.1, 0.1, 0.1), 0.4),
                        v3(0.0, 0.02, 0.0),
                        0.018,
                        v3(0.0, 1.4, 0.0),
                        0.014,
                    );
                    b.rod(
                        j,
                        object,
                        Material::Glow {
                            colour: v3(1.2, 1.0, 0.72),
                        },
                        v3(0.0, 1.45, 0.0),
                        0.17,
                        v3(0.0, 1.62, 0.0),
                        0.10,
                    );
                }
            }
            Setting::Kitchen => {
                let c = hsv(rng.unit(), rng.range(0.05, 0.5), rng.range(0.5, 0.9));
                for i in 0..6 {
                    let x = -2.4 + 0.92 * i as f32;
                    b.block(
                        at(x, z + 0.3, 0.0),
                        object,
                        Material::solid(c * (0.92 + 0.1 * (i & 1) as f32), 0.2),
                        v3(0.0, 0.43, 0.0),
                        v3(0.45, 0.41, 0.28),
                    );
                    b.block(
                        at(x, z + 0.3, 0.0),
                        object,
                        Material::solid(v3(0.4, 0.4, 0.42), 0.7),
                        v3(0.0, 0.70, 0.29),
                        v3(0.12, 0.012, 0.012),
                    );
                    if i % 3 != 1 {
                        b.block(
                            at(x, z + 0.18, 0.0),
                            object,
                            Material::solid(c, 0.2),
                            v3(0.0, 1.85, 0.0),
                            v3(0.45, 0.35, 0.17),
                        );
                    }
                }
                b.block(
                    at(0.0, z + 0.31, 0.0),
                    object,
                    Material::Wood {
                        colour: v3(0.35, 0.26, 0.17),
                        seed: 4,
                    },
                    v3(0.0, 0.88, 0.0),
                    v3(2.9, 0.025, 0.32),
                );
                for _ in 0..3 {
                    let x = rng.range(-2.0, 2.0);
                    let m = Material::solid(hsv(rng.unit(), 0.5, 0.7), 0.5);
                    b.cone(
                        at(x, z + 0.3, 0.0),
                        object,
                        m,
                        v3(1.0, 1.0, 1.0),
                        v3(0.0, 0.96, 0.0),
                        0.06,
                        v3(0.0, 1.05, 0.0),
                        0.055,
                    );
                }
            }
            Setting::Studio => {}
            Setting::Gym => {
                for i in 0..3 {
                    let x = -1.6 + 1.5 * i as f32 + rng.range(-0.2, 0.2);
                    match rng.below(3) {
                        0 => b.block(
                            at(x, z + 0.35, 0.0),
                            object,
                            Material::solid(hsv(rng.unit(), 0.6, 0.6), 0.1),
                            v3(0.0, 0.22, 0.0),
                            v3(0.5, 0.22, 0.3),
                        ),
                        1 => {
                            for k in 0..8 {
                                b.block(
                                    at(x, z + 0.06, 0.0),
                                    object,
                                    Material::Wood {
                                        colour: v3(0.5, 0.35, 0.2),
                                        seed: 2,
                                    },
                                    v3(0.0, 0.3 + 0.27 * k as f32, 0.04),
                                    v3(0.42, 0.018, 0.02),
                                );
                            }
                        }
                        _ => b.ellipsoid(
                            at(x, z + 0.4, 0.0),
                            object,
                            Material::solid(hsv(rng.unit(), 0.7, 0.7), 0.3),
                            v3(0.0, 0.32, 0.0),
                            v3(0.32, 0.32, 0.32),
                        ),
                    }
                }
            }
            Setting::Park => {
                for i in 0..7 {
                    let x = -7.0 + 2.3 * i as f32 + rng.range(-0.7, 0.7);
                    let zz = -rng.range(3.5, 11.0);
                    self.tree(b, at(x, zz, rng.unit() * 6.0), &mut rng);
                }
                for _ in 0..4 {
                    let (x, zz) = (rng.range(-5.0, 5.0), -rng.range(2.6, 6.0));
                    let c = hsv(rng.range(0.22, 0.33), 0.55, 0.5);
                    b.ellipsoid(
                        at(x, zz, 0.0),
                        object,
                        Material::Foliage {
                            colour: c,
                            seed: rng.u64() as u32,
                        },
                        v3(0.0, 0.3, 0.0),
                        v3(rng.range(0.4, 0.9), rng.range(0.4, 0.6), 0.5),
                    );
                }
                if rng.chance(0.6) {
                    let j = at(rng.sign() * rng.range(1.2, 2.2), -2.2, rng.range(-0.3, 0.3));
                    let m = Material::Wood {
                        colour: v3(0.35, 0.2, 0.1),
                        seed: 9,
                    };
                    b.block(j, object, m, v3(0.0, 0.45, 0.0), v3(0.8, 0.025, 0.2));
                    b.block(j, object, m, v3(0.0, 0.75, -0.2), v3(0.8, 0.16, 0.02));
                    for s in [-0.65, 0.65] {
                        b.block(
                            j,
                            object,
                            Material::solid(v3(0.05, 0.05, 0.05), 0.2),
                            v3(s, 0.22, 0.0),
                            v3(0.03, 0.22, 0.18),
                        );
                    }
                }
            }
            Setting::Street => {
                for i in 0..2 {
                    let x = if i == 0 { -2.4 } else { 2.6 } + rng.range(-0.4, 0.4);
                    let j = at(x, -2.5 - rng.unit(), 0.0);
                    let m = Material::solid(v3(0.06, 0.07, 0.07), 0.3);
                    b.rod(j, object, m, V3::ZERO, 0.06, v3(0.0, 3.4, 0.0), 0.04);
                    b.ellipsoid(
                        j,
                        object,
                        Material::Glow {
                            colour: v3(0.95, 0.95, 0.85),
                        },
                        v3(0.0, 3.5, 0.0),
                        v3(0.16, 0.2, 0.16),
                    );
                }
                for _ in 0..3 {
                    let j = at(
                        rng.range(-4.0, 4.0),
                        -rng.range(2.6, 4.5),
                        rng.range(-0.5, 0.5),
                    );
                    if rng.chance(0.5) {
                        self.plant(b, j, &mut rng);
                    } else {
                        b.block(
                            j,
                            object,
                            Material::solid(hsv(rng.unit(), 0.4, 0.4), 0.2),
                            v3(0.0, 0.45, 0.0),
                            v3(0.3, 0.45, 0.3),
                        );
                    }
                }
            }
            Setting::Beach => {
                for _ in 0..3 {
                    let x = rng.sign() * rng.range(1.3, 4.5);
                    let j = at(x, -rng.range(1.5, 4.5), rng.unit());
                    let m = Material::solid(v3(0.9, 0.9, 0.9), 0.2);
                    b.rod(j, object, m, V3::ZERO, 0.02, v3(0.0, 1.9, 0.0), 0.02);
                    b.ellipsoid(
                        j,
                        object,
                        Material::solid(hsv(rng.unit(), 0.7, 0.9), 0.05),
                        v3(0.0, 1.9, 0.0),
                        v3(0.95, 0.22, 0.95),
                    );
                    b.block(
                        j,
                        object,
                        Material::solid(hsv(rng.unit(), 0.6, 0.9), 0.05),
                        v3(0.5, 0.01, 0.6),
                        v3(0.4, 0.01, 0.8),
                    );
                }
            }
        }
    }

    fn furniture(&self, b: &mut Builder, f: &Furniture, rng: &mut Rng) {
        let turn = M3::turn_y(f.heading);
        let wood = Material::Wood {
            colour: hsv(0.075, 0.5, rng.range(0.4, 0.75)),
            seed: 21,
        };
        if let Some((at, height)) = f.seat {
            let j = Joint {
                origin: at,
                axes: turn,
            };
            let mut block = |at, half| b.block(j, part::OBJECT, wood, at, half);
            block(v3(0.0, height - 0.03, -0.02), v3(0.23, 0.03, 0.22));
            if rng.chance(0.6) {
                block(v3(0.0, height + 0.30, -0.23), v3(0.22, 0.16, 0.018));
                for s in [-0.2, 0.2] {
                    block(v3(s, height + 0.08, -0.23), v3(0.02, 0.12, 0.018));
                }
            }
            for (x, z) in [(-0.2, 0.17), (0.2, 0.17), (-0.2, -0.22), (0.2, -0.22)] {
                block(
                    v3(x, (height - 0.06) / 2.0, z),
                    v3(0.02, (height - 0.06) / 2.0, 0.02),
                );
            }
        }
        if let Some((at, height)) = f.table {
            let j = Joint {
                origin: at,
                axes: turn,
            };
            let mut block = |at, half| b.block(j, part::OBJECT, wood, at, half);
            block(v3(0.0, height - 0.02, 0.0), v3(0.55, 0.02, 0.30));
            for (x, z) in [(-0.5, 0.25), (0.5, 0.25), (-0.5, -0.25), (0.5, -0.25)] {
                block(
                    v3(x, (height - 0.04) / 2.0, z),
                    v3(0.025, (height - 0.04) / 2.0, 0.025),
                );
            }
        }
    }

    fn sofa(&self, b: &mut Builder, j: Joint, rng: &mut Rng) {
        let m = Material::solid(
            hsv(rng.unit(), rng.range(0.1, 0.6), rng.range(0.3, 0.7)),
            0.03,
        );
        let mut block = |at, half| b.block(j, part::OBJECT, m, at, half);
        block(v3(0.0, 0.22, 0.0), v3(0.85, 0.2, 0.38));
        block(v3(0.0, 0.55, -0.30), v3(0.85, 0.3, 0.12));
        for s in [-0.9, 0.9] {
            block(v3(s, 0.32, 0.0), v3(0.11, 0.3, 0.4));
        }
    }

    fn plant(&self, b: &mut Builder, j: Joint, rng: &mut Rng) {
        let pot = Material::solid(hsv(0.04, 0.55, 0.55), 0.1);
        b.rod(
            j,
            part::OBJECT,
            pot,
            v3(0.0, 0.13, 0.0),
            0.12,
            v3(0.0, 0.28, 0.0),
            0.15,
        );
        let c = hsv(rng.range(0.25, 0.36), 0.6, rng.range(0.35, 0.6));
        let seed = rng.u64() as u32;
        for _ in 0..6 {
            let at = v3(
                rng.range(-0.2, 0.2),
                rng.range(0.5, 1.1),
                rng.range(-0.2, 0.2),
            );
            let r = rng.range(0.12, 0.24);
            b.ellipsoid(
                j,
                part::OBJECT,
                Material::Foliage { colour: c, seed },
                at,
                v3(r, r * 1.2, r),
            );
        }
    }

    fn tree(&self, b: &mut Builder, j: Joint, rng: &mut Rng) {
        let bark = Material::Wood {
            colour: v3(0.16, 0.1, 0.06),
            seed: 31,
        };
        let tall = rng.range(1.6, 2.6);
        b.rod(
            j,
            part::OBJECT,
            bark,
            V3::ZERO,
            0.16,
            v3(0.1, tall, 0.0),
            0.09,
        );
        let c = hsv(rng.range(0.2, 0.32), 0.6, rng.range(0.35, 0.6));
        let seed = rng.u64() as u32;
        for _ in 0..5 {
            let at = v3(
                rng.range(-0.8, 0.8),
                tall + rng.range(0.0, 1.3),
                rng.range(-0.7, 0.7),
            );
            let r = rng.range(0.55, 1.0);
            b.ellipsoid(
                j,
                part::OBJECT,
                Material::Foliage { colour: c, seed },
                at,
                v3(r, r * 0.8, r),
            );
        }
    }
}
