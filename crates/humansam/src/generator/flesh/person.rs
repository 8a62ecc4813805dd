//! The flesh of a person and of held things, bone by bone.

use super::super::body::{Body, Hair, Legwear, Look, SIDES};
use super::super::material::Material;
use super::super::math::{M3, V3, v3};
use super::super::motion::PropKind;
use super::super::skeleton::{Joint, PHALANGES, Skeleton, bone};
use super::{Builder, ROUND, part};

impl Builder {
    /// Everything of a person. The number and order of primitives depends on body and look only, never on the pose.
    pub fn person(&mut self, body: &Body, look: &Look, skeleton: &Skeleton) {
        let j = |b: usize| skeleton.joints[b];
        let h = body.height / 1.7;
        let g = body.bulk;
        let waist = body.waist;
        let torso = |r: f32| r * h * (0.45 + 0.55 * g);
        let flat = v3(1.0, 1.0, 0.70);
        use part::{FOOT, FOREARM, HAND, SHIN, THIGH, TORSO, UPPER_ARM};
        // Hips.
        self.cone(
            j(bone::PELVIS),
            TORSO,
            Material::Legs,
            v3(1.0, 1.0, 0.82),
            v3(-0.058 * h, -0.012 * h, -0.008),
            torso(0.114 + 0.010 * waist),
            v3(0.058 * h, -0.012 * h, -0.008),
            torso(0.114 + 0.010 * waist),
        );
        let belly = torso(0.128 - 0.020 * waist + 0.10 * (g - 1.0).max(0.0));
        self.cone(
            j(bone::ABDOMEN),
            TORSO,
            Material::Shirt,
            flat,
            v3(0.0, 0.042 * h, 0.0),
            torso(0.134 - 0.006 * waist),
            v3(0.0, body.abdomen * 0.9, 0.006),
            belly,
        );
        self.last_texture(v3(0.0, -body.abdomen, 0.0));
        if look.belt {
            self.cone(
                j(bone::ABDOMEN),
                TORSO,
                Material::Belt,
                v3(1.0, 0.14, 0.71),
                v3(0.0, -0.05 * h, 0.0),
                torso(0.152),
                v3(0.0, -0.046 * h, 0.0),
                torso(0.152),
            );
        }
        // Ribs, then the shoulders' cross-bar and the slopes to the neck.
        self.cone(
            j(bone::CHEST),
            TORSO,
            Material::Shirt,
            flat,
            v3(0.0, -0.01 * h, 0.004),
            belly * 1.02,
            v3(0.0, body.chest * 0.62, -0.002),
            torso(0.150 - 0.010 * waist),
        );
        let wide = body.shoulder_half * 0.80;
        self.cone(
            j(bone::CHEST),
            TORSO,
            Material::Shirt,
            v3(1.0, 1.0, 0.95),
            v3(-wide, body.chest * 0.78, -0.008),
            torso(0.066),
            v3(wide, body.chest * 0.78, -0.008),
            torso(0.066),
        );
        for s in SIDES {
            self.cone(
                j(bone::CHEST),
                TORSO,
                Material::Shirt,
                ROUND,
                v3(s * body.shoulder_half * 0.85, body.chest * 0.84, -0.012),
                torso(0.046),
                v3(s * 0.022 * h, body.chest * 1.03, -0.012),
                torso(0.048),
            );
            self.cone(
                j(bone::CHEST),
                TORSO,
                Material::Shirt,
                v3(1.0, 1.0, 0.9),
                v3(s * 0.070 * h, body.chest * 0.58, -0.006),
                torso(0.082),
                v3(s * body.shoulder_half * 0.93, body.chest * 0.78, -0.006),
                torso(0.056),
            );
            // Chest muscles.
            let bust = 0.024 + 0.016 * waist;
            self.ellipsoid(
                j(bone::CHEST),
                TORSO,
                Material::Shirt,
                v3(
                    s * 0.068 * h,
                    body.chest * 0.50,
                    0.062 * h * (0.5 + 0.5 * g),
                ),
                v3(torso(0.080), torso(0.076), bust * h),
            );
        }
        self.cone(
            j(bone::NECK),
            TORSO,
            Material::Skin,
            ROUND,
            v3(0.0, -0.03 * h, -0.004),
            0.058 * h * (0.55 + 0.45 * g) * (1.0 - 0.1 * waist),
            v3(0.0, body.neck + 0.03 * h, 0.008),
            0.052 * h * (0.55 + 0.45 * g) * (1.0 - 0.1 * waist),
        );
        self.head(body, look, j(bone::HEAD));
        for side in 0..2 {
            let part_of = |p: u8| p + side as u8;
            self.arm(
                body,
                look,
                [
                    j(bone::UPPER_ARM + side),
                    j(bone::FOREARM + side),
                    j(bone::HAND + side),
                ],
                &skeleton.joints[bone::FINGER + 15 * side..bone::FINGER + 15 * (side + 1)],
                side,
                [part_of(UPPER_ARM), part_of(FOREARM), part_of(HAND)],
            );
            self.leg(
                body,
                look,
                [
                    j(bone::THIGH + side),
                    j(bone::SHIN + side),
                    j(bone::FOOT + side),
                ],
                side,
                [part_of(THIGH), part_of(SHIN), part_of(FOOT)],
            );
        }
        if look.legwear == Legwear::Skirt {
            let pelvis = j(bone::PELVIS);
            let down =
                (j(bone::THIGH).axes.y + j(bone::THIGH + 1).axes.y + pelvis.axes.y * -0.4).unit();
            let hang = Joint {
                origin: pelvis.origin,
                axes: M3::along(down, pelvis.axes.z),
            };
            self.cone(
                hang,
                TORSO,
                Material::Legs,
                v3(1.0, 0.35, 0.85),
                v3(0.0, -0.02, 0.0),
                torso(0.135),
                v3(0.0, 0.26 * h, 0.0),
                torso(0.205),
            );
        }
    }

    fn head(&mut self, body: &Body, look: &Look, joint: Joint) {
        let f = &look.face;
        // Unit: a head of 0.228 m from chin to crown.
        let k = body.head / 0.228 * body.head_scale;
        let p = |x: f32, y: f32, z: f32| v3(x, y, z) * k;
        self.ellipsoid(
            joint,
            part::HEAD,
            Material::Face,
            p(0.0, 0.132, 0.006),
            p(0.0765, 0.094, 0.092),
        );
        let jaw = v3(f.jaw_width, 1.0, 1.0);
        self.cone(
            joint,
            part::HEAD,
            Material::Face,
            jaw,
            p(0.0, 0.098, 0.030),
            0.0675 * k,
            p(0.0, 0.042 / f.jaw_long, 0.046),
            0.0435 * k,
        );
        let nose = f.nose_length;
        self.cone(
            joint,
            part::HEAD,
            Material::Face,
            v3(f.nose_width, 1.0, 1.0),
            p(0.0, 0.110, 0.089),
            0.0075 * k,
            p(0.0, 0.110 - 0.036 * nose, 0.104),
            0.0125 * k,
        );
        for s in SIDES {
            self.ellipsoid(
                joint,
                part::HEAD,
                Material::Skin,
                p(s * 0.077, 0.104, 0.0),
                p(0.011, 0.029, 0.018),
            );
        }
        let hair = |b: &mut Builder, at: V3, radii: V3| {
            b.ellipsoid(joint, part::HAIR, Material::Hair, at, radii);
        };
        match f.hair {
            Hair::Bald => {}
            Hair::Short => hair(self, p(0.0, 0.150, -0.012), p(0.0825, 0.089, 0.0945)),
            Hair::Side => {
                hair(self, p(0.0, 0.150, -0.012), p(0.084, 0.092, 0.096));
                hair(self, p(0.022, 0.196, 0.045), p(0.058, 0.032, 0.052));
            }
            Hair::Long => {
                hair(self, p(0.0, 0.148, -0.014), p(0.087, 0.095, 0.099));
                for s in SIDES {
                    self.cone(
                        joint,
                        part::HAIR,
                        Material::Hair,
                        v3(0.55, 1.0, 1.0),
                        p(s * 0.070, 0.14, -0.012),
                        0.046 * k,
                        p(s * 0.074, -0.025, -0.024),
                        0.038 * k,
                    );
                }
                self.cone(
                    joint,
                    part::HAIR,
                    Material::Hair,
                    v3(1.25, 1.0, 0.6),
                    p(0.0, 0.13, -0.052),
                    0.064 * k,
                    p(0.0, -0.055, -0.066),
                    0.054 * k,
                );
            }
            Hair::Bun => {
                hair(self, p(0.0, 0.150, -0.012), p(0.082, 0.090, 0.094));
                hair(self, p(0.0, 0.232, -0.062), p(0.040, 0.036, 0.040));
            }
            Hair::Curly => {
                hair(self, p(0.0, 0.152, -0.014), p(0.082, 0.092, 0.096));
                for i in 0..11 {
                    let a = i as f32 * 2.399_963;
                    let up = 0.25 + 0.75 * (i as f32 / 10.0);
                    let r = (1.0 - up * up).sqrt();
                    hair(
                        self,
                        p(
                            0.080 * r * a.sin(),
                            0.160 + 0.078 * up,
                            -0.026 + 0.080 * r * a.cos(),
                        ),
                        p(0.036, 0.034, 0.036),
                    );
                }
            }
        }
    }

    /// One arm with its hand; `joints` are upper arm, forearm, hand.
    pub fn arm(
        &mut self,
        body: &Body,
        look: &Look,
        joints: [Joint; 3],
        fingers: &[Joint],
        side: usize,
        parts: [u8; 3],
    ) {
        let h = body.height / 1.7;
        let g = (0.5 + 0.5 * body.bulk) * body.limb_girth[side] * h * (1.04 - 0.12 * body.waist);
        let (upper, fore, hand) = (body.upper_arm[side], body.forearm[side], body.hand[side]);
        let bare = Material::Skin;
        let [shoulder, elbow, wrist] = joints;
        let sleeve = if look.long_sleeves { 1.0 } else { 0.50 };
        self.cone(
            shoulder,
            parts[0],
            bare,
            ROUND,
            v3(0.0, 0.02, 0.0),
            0.050 * g,
            v3(0.0, upper, 0.0),
            0.0385 * g,
        );
        self.cone(
            shoulder,
            parts[0],
            Material::Shirt,
            ROUND,
            v3(0.0, 0.008, 0.0),
            0.0635 * g,
            v3(0.0, upper * sleeve, 0.0),
            if look.long_sleeves { 0.049 } else { 0.060 } * g,
        );
        self.cone(
            elbow,
            parts[1],
            bare,
            ROUND,
            V3::ZERO,
            0.0385 * g,
            v3(0.0, fore * 0.28, 0.004),
            0.0415 * g,
        );
        self.cone(
            elbow,
            parts[1],
            bare,
            ROUND,
            v3(0.0, fore * 0.28, 0.004),
            0.0415 * g,
            v3(0.0, fore * 0.97, 0.0),
            0.0265 * g,
        );
        if look.long_sleeves {
            self.cone(
                elbow,
                parts[1],
                Material::Shirt,
                ROUND,
                V3::ZERO,
                0.0485 * g,
                v3(0.0, fore * 0.88, 0.0),
                0.0375 * g,
            );
        }
        // Palm: flat; then the ball of the thumb.
        let thumb = if side == 0 { -1.0 } else { 1.0 };
        self.cone(
            wrist,
            parts[2],
            bare,
            v3(1.0, 1.0, 0.42),
            v3(0.0, hand * 0.08, 0.0),
            hand * 0.165,
            v3(0.005 * thumb, hand * 0.37, 0.0),
            hand * 0.215,
        );
        self.ellipsoid(
            wrist,
            parts[2],
            bare,
            v3(thumb * hand * 0.14, hand * 0.22, hand * 0.05),
            v3(hand * 0.10, hand * 0.17, hand * 0.085),
        );
        for finger in 0..5 {
            let thick = [0.058, 0.050, 0.052, 0.049, 0.043][finger] * hand;
            for phalanx in 0..3 {
                let length = PHALANGES[finger][phalanx] * hand;
                let taper = 1.0 - 0.10 * phalanx as f32;
                self.cone(
                    fingers[3 * finger + phalanx],
                    parts[2],
                    bare,
                    ROUND,
                    V3::ZERO,
                    thick * taper,
                    v3(0.0, length, 0.0),
                    thick * (taper - 0.10),
                );
            }
        }
    }

    /// One leg; `joints` are thigh, shin, foot.
    pub fn leg(
        &mut self,
        body: &Body,
        look: &Look,
        joints: [Joint; 3],
        side: usize,
        parts: [u8; 3],
    ) {
        let h = body.height / 1.7;
        let g = (0.5 + 0.5 * body.bulk) * body.limb_girth[2 + side] * h;
        let (thigh, shin) = (body.thigh[side], body.shin[side]);
        let [hip, knee, ankle] = joints;
        let covered = look.legwear == Legwear::Trousers;
        let bare = Material::Skin;
        let upper = if covered { Material::Legs } else { bare };
        let extra = if covered { 0.008 } else { 0.0 };
        self.cone(
            hip,
            parts[0],
            upper,
            ROUND,
            v3(0.0, 0.01, 0.0),
            (0.086 + extra) * g,
            v3(0.0, thigh, 0.0),
            (0.053 + extra) * g,
        );
        if look.legwear != Legwear::Trousers {
            // Shorts; under a skirt what its outline leaves bare of the hips.
            let reach = if look.legwear == Legwear::Shorts {
                0.66
            } else {
                0.30
            };
            self.cone(
                hip,
                parts[0],
                Material::Legs,
                ROUND,
                v3(0.0, 0.01, 0.0),
                0.090 * g,
                v3(0.0, thigh * reach, 0.0),
                0.081 * g,
            );
        }
        self.cone(
            knee,
            parts[1],
            upper,
            ROUND,
            V3::ZERO,
            (0.053 + extra) * g,
            v3(0.0, shin * 0.30, -0.014 * h),
            (0.053 + extra) * g,
        );
        self.cone(
            knee,
            parts[1],
            upper,
            ROUND,
            v3(0.0, shin * 0.30, -0.014 * h),
            (0.053 + extra) * g,
            v3(0.0, shin * if covered { 0.93 } else { 1.0 }, 0.0),
            if covered { 0.054 } else { 0.034 } * g,
        );
        // Shoe: heel to toes; z is up, the sole lies an ankle's height below.
        let sole = -body.ankle;
        let foot = body.foot;
        self.cone(
            ankle,
            parts[2],
            Material::Shoes,
            v3(0.98, 1.0, 1.0),
            v3(0.0, -0.035 * h, sole + 0.037 * h),
            0.037 * h,
            v3(0.0, foot - 0.105 * h, sole + 0.030 * h),
            0.040 * h,
        );
        self.cone(
            ankle,
            parts[2],
            Material::Shoes,
            v3(1.25, 1.0, 0.8),
            v3(0.0, foot - 0.115 * h, sole + 0.030 * h),
            0.035 * h,
            v3(0.0, foot - 0.075 * h, sole + 0.026 * h),
            0.030 * h,
        );
        self.cone(
            ankle,
            parts[2],
            Material::Shoes,
            ROUND,
            v3(0.0, 0.0, 0.0),
            0.040 * g,
            v3(0.0, -0.010, sole + 0.05 * h),
            0.040 * h,
        );
    }

    /// A held thing in its frame.
    pub fn prop(&mut self, kind: PropKind, joint: Joint, colour: V3, second: V3) {
        match kind {
            PropKind::Ball => self.ellipsoid(
                joint,
                part::PROP,
                Material::Ball { colour, second },
                V3::ZERO,
                v3(0.058, 0.058, 0.058),
            ),
            PropKind::Bottle => {
                let m = Material::solid(colour, 0.5);
                self.cone(
                    joint,
                    part::PROP,
                    m,
                    ROUND,
                    v3(-0.07, 0.0, 0.0),
                    0.036,
                    v3(0.06, 0.0, 0.0),
                    0.036,
                );
                self.cone(
                    joint,
                    part::PROP,
                    Material::solid(second, 0.4),
                    ROUND,
                    v3(0.10, 0.0, 0.0),
                    0.020,
                    v3(0.135, 0.0, 0.0),
                    0.016,
                );
            }
            PropKind::Phone => {
                self.block(
                    joint,
                    part::PROP,
                    Material::solid(v3(0.02, 0.02, 0.025), 0.4),
                    V3::ZERO,
                    v3(0.04, 0.08, 0.006),
                );
                self.block(
                    joint,
                    part::PROP,
                    Material::Glow {
                        colour: v3(0.35, 0.5, 0.7),
                    },
                    v3(0.0, 0.0, 0.0055),
                    v3(0.035, 0.072, 0.002),
                );
            }
            PropKind::Box => {
                self.block(
                    joint,
                    part::PROP,
                    Material::Wood {
                        colour: colour.lerp(v3(0.5, 0.35, 0.2), 0.6),
                        seed: 5,
                    },
                    V3::ZERO,
                    v3(0.125, 0.10, 0.10),
                );
                self.block(
                    joint,
                    part::PROP,
                    Material::solid(second, 0.1),
                    V3::ZERO,
                    v3(0.028, 0.102, 0.102),
                );
            }
        }
    }
}
