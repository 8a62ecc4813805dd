//! How operators change clothes, faces and flesh, and which parts of the body that concerns.

use super::super::body::{Body, Face, Hair, Look, SIDES};
use super::super::flesh::{Builder, part};
use super::super::material::Material;
use super::super::math::{M3, V3, lerp, v3};
use super::super::operator::Operator;
use super::super::rng::{drift, hash};
use super::super::skeleton::{Arm, ArmGoal, Joint, PHALANGES, Pose, Skeleton, bone};
use super::Anomaly;

impl Anomaly {
    /// Changes of clothes and face.
    pub fn look(&self, look: &Look, t: f32, frame: usize) -> Look {
        let mut look = look.clone();
        let s = self.severity;
        match self.operator {
            Operator::ClothDrift => {
                let k = self.change(t) * (0.45 + 0.55 * s);
                let to = if self.variant < 0.7 {
                    &mut look.shirt
                } else {
                    &mut look.legs
                };
                to.colour = to.colour.lerp(self.cloth.colour, k);
                to.second = to.second.lerp(self.cloth.second, k);
            }
            Operator::PatternSwap if t >= self.from => {
                look.shirt.pattern = self.cloth.pattern;
                look.shirt.pitch = self.cloth.pitch;
                look.shirt.second = look.shirt.second.lerp(self.cloth.second, 0.3 + 0.7 * s);
            }
            Operator::FaceSwap => {
                let k = self.change(t) * (0.5 + 0.5 * s);
                look.face = morph(&look.face, &self.face, k);
            }
            Operator::HairChange => {
                let k = self.change(t);
                look.face.hair_colour = look
                    .face
                    .hair_colour
                    .lerp(self.face.hair_colour, k * (0.5 + 0.5 * s));
                look.face.brow = look.face.brow.lerp(self.face.brow, k * s);
                if k > 0.5 && s > 0.3 {
                    look.face.hair = match look.face.hair {
                        Hair::Long => Hair::Short,
                        Hair::Short | Hair::Bald => Hair::Long,
                        Hair::Side => Hair::Curly,
                        Hair::Curly | Hair::Bun => Hair::Side,
                    };
                }
            }
            Operator::Flicker if self.active(t) => {
                let a = 0.16 + 0.40 * s;
                let gain = 1.0
                    + a * (hash(self.seed ^ hash(frame as u32)) as f32 / u32::MAX as f32 * 2.0
                        - 1.0);
                match (self.variant * 3.0) as usize {
                    0 => look.face.skin = look.face.skin * gain,
                    1 => {
                        look.legs.colour = look.legs.colour * gain;
                        look.legs.second = look.legs.second * gain;
                        look.shirt.colour = look.shirt.colour * (2.0 - gain);
                    }
                    _ => {
                        look.shirt.colour = look.shirt.colour * gain;
                        look.shirt.second = look.shirt.second * gain;
                    }
                }
            }
            Operator::TextureCrawl => {
                let into = (t.min(self.to) - self.from).max(0.0);
                let speed = 0.07 + 0.22 * s;
                look.crawl = v3(
                    0.3 * self.direction.sin(),
                    self.direction.cos().signum(),
                    0.0,
                ) * (speed * into);
            }
            _ => {}
        }
        look
    }

    /// How far the face runs.
    pub fn melt(&self, t: f32) -> (f32, u32) {
        if self.operator == Operator::MeltedFace && self.active(t) {
            (0.35 + 0.65 * self.severity, self.seed)
        } else {
            (0.0, 0)
        }
    }

    /// How much of a held thing is left.
    pub fn prop_opacity(&self, t: f32) -> f32 {
        if self.operator == Operator::ObjectFade {
            1.0 - self.change(t) * (0.6 + 0.4 * self.severity)
        } else {
            1.0
        }
    }

    /// Adds, hides and reorders flesh. `person` is the range of the person's primitives.
    #[allow(clippy::too_many_arguments)]
    pub fn flesh(
        &self,
        b: &mut Builder,
        body: &Body,
        look: &Look,
        pose: &Pose,
        skeleton: &Skeleton,
        t: f32,
    ) {
        if !self.active(t) {
            return;
        }
        let i = self.side;
        let hand = skeleton.joints[bone::HAND + i];
        let length = body.hand[i];
        let thumb = if i == 0 { -1.0 } else { 1.0 };
        let fingers = &skeleton.joints[bone::FINGER + 15 * i..bone::FINGER + 15 * (i + 1)];
        match self.operator {
            Operator::ExtraFingers => {
                let count = 1 + (self.severity * 2.99) as usize;
                for k in 0..count {
                    let step = (k + 1) as f32;
                    // Beyond the little finger, each a bit further out.
                    let out = hand.axes.x * (-0.105 * step * length * thumb);
                    let turn = turn_about(hand.axes.z, 0.13 * step * thumb);
                    let base = fingers[12].origin;
                    for phalanx in 0..3 {
                        let j = fingers[9 + phalanx];
                        let origin = base + out + turn * (j.origin - fingers[9].origin);
                        let joint = Joint {
                            origin,
                            axes: turn * j.axes,
                        };
                        let l = PHALANGES[3][phalanx] * length * 0.97;
                        let thick = 0.048 * length * (1.0 - 0.1 * phalanx as f32);
                        b.cone(
                            joint,
                            part::EXTRA,
                            Material::Skin,
                            v3(1.0, 1.0, 1.0),
                            V3::ZERO,
                            thick,
                            v3(0.0, l, 0.0),
                            thick * 0.9,
                        );
                    }
                    // The palm grows along.
                    b.cone(
                        hand,
                        part::EXTRA,
                        Material::Skin,
                        v3(1.0, 1.0, 0.42),
                        v3(-0.12 * thumb * length, 0.12 * length, 0.0),
                        0.12 * length,
                        v3(-(0.12 + 0.10 * step) * thumb * length, 0.36 * length, 0.0),
                        0.12 * length,
                    );
                }
            }
            Operator::FusedFingers => {
                let first = if self.severity > 0.6 { 1 } else { 2 };
                for phalanx in 0..3 {
                    for finger in first..4 {
                        let (p, q) = (
                            fingers[3 * finger + phalanx],
                            fingers[3 * (finger + 1) + phalanx],
                        );
                        let joint = Joint {
                            origin: p.origin,
                            axes: M3::along(q.origin - p.origin, p.axes.y),
                        };
                        let d = (q.origin - p.origin).length();
                        let l = PHALANGES[finger][phalanx] * length;
                        let up = joint.axes.transposed() * (p.axes.y * l);
                        for k in [0.0, 0.35, 0.7, 1.0] {
                            b.cone(
                                joint,
                                part::EXTRA,
                                Material::Skin,
                                v3(1.0, 1.0, 1.0),
                                up * k,
                                0.046 * length,
                                up * k + v3(0.0, d, 0.0),
                                0.044 * length,
                            );
                        }
                    }
                }
            }
            Operator::MissingFingers => {
                let gone: &[usize] = if self.severity < 0.5 { &[3] } else { &[2, 3] };
                let hand_part = part::HAND + i as u8;
                // The fingers are the last 15 primitives of the hand.
                let of_hand: Vec<usize> = (0..b.prims.len())
                    .filter(|&k| b.prims[k].part == hand_part)
                    .collect();
                let start = of_hand.len().saturating_sub(15);
                for f in gone {
                    for &k in &of_hand[start + 3 * f..(start + 3 * f + 3).min(of_hand.len())] {
                        b.prims[k].ghost = true;
                    }
                }
            }
            Operator::ExtraLimb => {
                let mut other = pose.clone();
                let h = body.height / 1.7;
                if self.variant < 0.75 {
                    let sway = drift(t, 0.9, self.seed) * 0.06;
                    other.arms[i] = Arm {
                        goal: ArmGoal::Reach {
                            target: v3(
                                0.30 + 0.12 * self.severity,
                                -0.05 - 0.2 * self.variant + sway,
                                0.20,
                            ) * h,
                            pole: v3(0.6, -0.8, -0.2),
                        },
                        ..Arm::hanging()
                    };
                    let s2 = other.solve(body);
                    let drop = s2.joints[bone::CHEST].axes.y * (-0.09 * h);
                    let moved = |j: Joint| Joint {
                        origin: j.origin + drop,
                        axes: j.axes,
                    };
                    let fingers: Vec<Joint> = s2.joints
                        [bone::FINGER + 15 * i..bone::FINGER + 15 * (i + 1)]
                        .iter()
                        .map(|&j| moved(j))
                        .collect();
                    b.arm(
                        body,
                        look,
                        [bone::UPPER_ARM + i, bone::FOREARM + i, bone::HAND + i]
                            .map(|k| moved(s2.joints[k])),
                        &fingers,
                        i,
                        [part::EXTRA; 3],
                    );
                } else {
                    let aside = M3::turn_y(pose.heading)
                        * v3(SIDES[i] * (0.16 + 0.14 * self.severity), 0.0, 0.10);
                    other.legs[i].ankle += aside;
                    let s2 = other.solve(body);
                    b.leg(
                        body,
                        look,
                        [bone::THIGH + i, bone::SHIN + i, bone::FOOT + i].map(|k| s2.joints[k]),
                        i,
                        [part::EXTRA; 3],
                    );
                }
            }
            Operator::MissingLimb => {
                let whole = self.severity > 0.65;
                let i = i as u8;
                for p in &mut b.prims {
                    p.ghost |= p.part == part::FOREARM + i
                        || p.part == part::HAND + i
                        || (whole && p.part == part::UPPER_ARM + i);
                }
            }
            Operator::OcclusionFlip => {
                let depth = 0.35 + 0.3 * self.severity;
                for p in &mut b.prims {
                    if (part::UPPER_ARM..=part::HAND + 1).contains(&p.part) {
                        p.bias = -depth;
                    }
                }
            }
            _ => {}
        }
    }

    /// Parts of the body at which something is wrong.
    pub fn affects(&self, p: u8) -> bool {
        let i = self.side as u8;
        let arm = |p: u8| p == part::UPPER_ARM + i || p == part::FOREARM + i || p == part::HAND + i;
        let arms = |p: u8| (part::UPPER_ARM..=part::HAND + 1).contains(&p);
        let legs = |p: u8| (part::THIGH..=part::FOOT + 1).contains(&p);
        let body = part::is_person(p) || p == part::PROP;
        match self.operator {
            Operator::ExtraFingers | Operator::FusedFingers => {
                p == part::EXTRA || p == part::HAND + i
            }
            Operator::MissingFingers => p == part::HAND + i,
            Operator::ExtraLimb => p == part::EXTRA,
            Operator::MissingLimb => arm(p),
            Operator::WrongProportion => match (self.variant * 5.0) as usize {
                2 | 3 => p == part::HEAD || p == part::HAIR,
                _ => arm(p),
            },
            Operator::LimbThroughBody | Operator::LimbSnap => arm(p),
            Operator::OcclusionFlip => arms(p),
            Operator::BrokenJoint => {
                if self.variant < 0.5 {
                    arm(p) || legs(p)
                } else {
                    arm(p)
                }
            }
            Operator::Floating | Operator::FootSlide => legs(p),
            Operator::MeltedFace | Operator::FaceSwap => p == part::HEAD,
            Operator::HairChange => p == part::HAIR,
            Operator::ClothDrift | Operator::PatternSwap | Operator::TextureCrawl => {
                p == part::TORSO
                    || (part::UPPER_ARM..=part::FOREARM + 1).contains(&p)
                    || (self.operator == Operator::ClothDrift && self.variant >= 0.7 && legs(p))
            }
            Operator::Flicker => match (self.variant * 3.0) as usize {
                0 => p == part::HEAD || (part::FOREARM..=part::HAND + 1).contains(&p),
                1 => legs(p) || p == part::TORSO,
                _ => p == part::TORSO || (part::UPPER_ARM..=part::FOREARM + 1).contains(&p),
            },
            Operator::LocalBlur => self.blurs(p),
            Operator::ColourBleed => body,
            Operator::ObjectFade => p == part::PROP,
            Operator::Jitter => arms(p) || p == part::HEAD || p == part::HAIR,
            Operator::ReversedLimb => {
                if self.variant < 0.7 {
                    legs(p)
                } else {
                    arms(p)
                }
            }
            Operator::HeadSpin => p == part::HEAD || p == part::HAIR,
            Operator::FreezeJump | Operator::TimeWarp | Operator::Teleport => body,
        }
    }

    /// Whether the twin's parts belong to the mask too: something is missing or hidden.
    pub fn hides(&self) -> bool {
        matches!(
            self.operator,
            Operator::MissingFingers
                | Operator::MissingLimb
                | Operator::OcclusionFlip
                | Operator::ObjectFade
        )
    }

    /// Parts that [`Operator::LocalBlur`] smooths.
    pub fn blurs(&self, p: u8) -> bool {
        match (self.variant * 3.0) as usize {
            0 => p == part::HEAD || p == part::HAIR,
            1 => p == part::TORSO || (part::UPPER_ARM..=part::HAND + 1).contains(&p),
            _ => part::is_person(p),
        }
    }

    /// Radius of the blur in shares of the picture's height.
    pub fn blur(&self, t: f32) -> f32 {
        if self.operator != Operator::LocalBlur || !self.active(t) {
            return 0.0;
        }
        // Detail comes and goes.
        let beat = 0.5
            - 0.5 * (std::f32::consts::TAU * (t - self.from) * (1.3 + 1.2 * self.variant)).cos();
        (0.008 + 0.022 * self.severity) * lerp(0.35, 1.0, beat)
    }

    /// Share of the running colour, and its reach in shares of the picture's height.
    pub fn bleed(&self, t: f32) -> (f32, f32) {
        if self.operator != Operator::ColourBleed || !self.active(t) {
            return (0.0, 0.0);
        }
        let beat = 0.5
            - 0.5 * (std::f32::consts::TAU * (t - self.from) * (0.7 + 0.8 * self.variant)).cos();
        (
            (0.45 + 0.5 * self.severity) * lerp(0.4, 1.0, beat),
            0.03 + 0.05 * self.severity,
        )
    }
}

/// Rotation by an angle about an axis of length 1 (Rodrigues).
fn turn_about(axis: V3, angle: f32) -> M3 {
    let (s, c) = angle.sin_cos();
    let turn = |v: V3| v * c + axis.cross(v) * s + axis * (axis.dot(v) * (1.0 - c));
    M3 {
        x: turn(V3::X),
        y: turn(V3::Y),
        z: turn(V3::Z),
    }
}

fn morph(a: &Face, b: &Face, k: f32) -> Face {
    let f = |x: f32, y: f32| lerp(x, y, k);
    Face {
        skin: a.skin.lerp(b.skin, k),
        iris: a.iris.lerp(b.iris, k),
        brow: a.brow.lerp(b.brow, k),
        lips: a.lips.lerp(b.lips, k),
        eye_apart: f(a.eye_apart, b.eye_apart),
        eye_size: f(a.eye_size, b.eye_size),
        eye_tilt: f(a.eye_tilt, b.eye_tilt),
        brow_thick: f(a.brow_thick, b.brow_thick),
        brow_lift: f(a.brow_lift, b.brow_lift),
        mouth_width: f(a.mouth_width, b.mouth_width),
        mouth_low: f(a.mouth_low, b.mouth_low),
        nose_length: f(a.nose_length, b.nose_length),
        nose_width: f(a.nose_width, b.nose_width),
        jaw_width: f(a.jaw_width, b.jaw_width),
        jaw_long: f(a.jaw_long, b.jaw_long),
        beard: f(a.beard, b.beard),
        hair: a.hair,
        hair_colour: a.hair_colour.lerp(b.hair_colour, k),
        glasses: if k > 0.5 { b.glasses } else { a.glasses },
    }
}
