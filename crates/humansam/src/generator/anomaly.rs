//! How each operator changes time, body, pose, flesh and look.

use super::body::{Body, Cloth, Face, Look, Pattern, SIDES};
use super::flesh::{Builder, part};
use super::math::{M3, V3, lerp, smoothstep, v3};
use super::motion::{Action, Motion};
use super::operator::Operator;
use super::rng::{Rng, drift, hash};
use super::skeleton::{Arm, ArmGoal, Joint, Pose, Skeleton, bone};

/// An operator with everything that was drawn for it.
#[derive(Clone, Debug)]
pub(crate) struct Anomaly {
    pub operator: Operator,
    /// In `[0, 1]`.
    pub severity: f32,
    /// First and last instant at which something is wrong, in seconds.
    pub from: f32,
    pub to: f32,
    pub side: usize,
    /// Which variant, where an operator has several.
    variant: f32,
    seed: u32,
    cloth: Cloth,
    face: Face,
    targets: [V3; 4],
    direction: f32,
}

impl Anomaly {
    /// Draws span and details. `start` and `end` are the instants of the clip's first and last frame.
    pub fn draw(
        rng: &mut Rng,
        operator: Operator,
        severity: f32,
        start: f32,
        end: f32,
        motion: &Motion,
        look: &Look,
    ) -> Anomaly {
        let length = (end - start).max(1e-3);
        let whole = rng.chance(0.6);
        let first = rng.range(0.05, 0.45);
        let share = rng.range(0.35, 0.55);
        let (from, to) = match operator {
            // What would jump if it began within the clip holds from end to end.
            Operator::Floating => (start, end),
            Operator::ExtraFingers
            | Operator::FusedFingers
            | Operator::MissingFingers
            | Operator::ExtraLimb
            | Operator::MissingLimb
            | Operator::WrongProportion
            | Operator::BrokenJoint
            | Operator::MeltedFace
            | Operator::OcclusionFlip
                if whole =>
            {
                (start, end)
            }
            Operator::LimbThroughBody if whole => (start, end),
            // A change that is never undone lasts to the end.
            Operator::ClothDrift
            | Operator::PatternSwap
            | Operator::FaceSwap
            | Operator::HairChange
            | Operator::ObjectFade
            | Operator::ReversedLimb => (start + length * rng.range(0.08, 0.4), end),
            _ => (start + length * first, start + length * (first + share)),
        };
        let side = match operator {
            // The hand that does something is the one to look at.
            Operator::ExtraFingers
            | Operator::FusedFingers
            | Operator::MissingFingers
            | Operator::LimbThroughBody => motion.acting_side(),
            _ => rng.below(2),
        };
        let mut cloth = Cloth::draw(rng);
        for _ in 0..20 {
            let apart = |c: &Cloth| {
                (c.colour - look.shirt.colour)
                    .length()
                    .min((c.colour - look.legs.colour).length())
            };
            if apart(&cloth) > 0.25
                && cloth.pattern != look.shirt.pattern
                && cloth.pattern != Pattern::Plain
            {
                break;
            }
            cloth = Cloth::draw(rng);
        }
        let mut face = Face::draw(rng);
        for _ in 0..20 {
            if (face.skin - look.face.skin).length() > 0.10
                && (face.hair_colour - look.face.hair_colour).length() > 0.08
            {
                break;
            }
            face = Face::draw(rng);
        }
        Anomaly {
            operator,
            severity,
            from,
            to,
            side,
            variant: rng.unit(),
            seed: rng.u64() as u32,
            cloth,
            face,
            targets: std::array::from_fn(|_| {
                v3(
                    rng.range(0.05, 0.4),
                    rng.range(-0.4, 0.35),
                    rng.range(0.1, 0.35),
                )
            }),
            direction: rng.range(0.0, std::f32::consts::TAU),
        }
    }

    /// Whether the operator can show with this action, look and framing; `seen` gives the share of the picture that a part covers.
    pub fn fits(
        operator: Operator,
        motion: &Motion,
        look: &Look,
        seen: &dyn Fn(u8) -> f32,
    ) -> bool {
        let side = motion.acting_side() as u8;
        let hands = seen(part::HAND + side);
        let face = seen(part::HEAD);
        let arms =
            |s: u8| seen(part::UPPER_ARM + s) + seen(part::FOREARM + s) + seen(part::HAND + s);
        let legs = (part::THIGH..=part::FOOT + 1).map(seen).sum::<f32>();
        let feet = seen(part::FOOT) + seen(part::FOOT + 1);
        let arms_in_front = matches!(
            motion.action,
            Action::Talk | Action::Clap | Action::Lift | Action::Reach | Action::Dance
        ) || motion.prop.is_some();
        match operator {
            Operator::ExtraFingers | Operator::FusedFingers | Operator::MissingFingers => {
                hands > 0.005
            }
            Operator::ExtraLimb => arms(side) > 0.006,
            Operator::MissingLimb
            | Operator::WrongProportion
            | Operator::LimbThroughBody
            | Operator::BrokenJoint
            | Operator::LimbSnap => arms(0).min(arms(1)) > 0.006,
            Operator::OcclusionFlip => arms_in_front && arms(0).min(arms(1)) > 0.006,
            Operator::Floating | Operator::FootSlide => feet > 0.001,
            Operator::MeltedFace | Operator::FaceSwap => face > 0.007,
            Operator::HairChange => seen(part::HAIR) > 0.004,
            Operator::TextureCrawl => !matches!(look.shirt.pattern, Pattern::Plain | Pattern::Logo),
            Operator::ObjectFade => seen(part::PROP) > 0.0012,
            Operator::ReversedLimb => matches!(motion.action, Action::Walk) && legs > 0.01,
            Operator::HeadSpin => face > 0.002,
            Operator::FreezeJump | Operator::TimeWarp => {
                motion.action != Action::Talk || arms(0) > 0.01
            }
            _ => true,
        }
    }

    /// 1 while something is wrong.
    pub fn active(&self, t: f32) -> bool {
        t >= self.from - 1e-4 && t <= self.to + 1e-4
    }

    /// Rises from 0 to 1 within `seconds` at the start of the span and, if it ends before the clip does, falls again.
    fn ramp(&self, t: f32, seconds: f32) -> f32 {
        let s = seconds.min(0.45 * (self.to - self.from)).max(1e-3);
        if !self.active(t) {
            return 0.0;
        }
        smoothstep(self.from - s * 0.01, self.from + s, t)
            * (1.0 - smoothstep(self.to, self.to + s, t))
    }

    /// Share of a change that is never undone.
    fn change(&self, t: f32) -> f32 {
        let length = ((self.to - self.from) * 0.75).max(1e-3);
        match self.operator {
            Operator::PatternSwap => f32::from(u8::from(t >= self.from)),
            _ => smoothstep(self.from, self.from + length, t),
        }
    }

    /// The person's own time at the clip's time `t`.
    pub fn body_time(&self, t: f32) -> f32 {
        if !self.active(t) {
            return t;
        }
        match self.operator {
            Operator::FreezeJump => {
                // Hold, and at the span's end be where the clock is.
                let cycle = (self.to - self.from).max(0.1) / (1.0 + (self.variant * 2.0).floor());
                let hold = cycle * (0.55 + 0.4 * self.severity);
                let into = (t - self.from).rem_euclid(cycle);
                if into < hold && t < self.to {
                    t - into
                } else {
                    t
                }
            }
            Operator::TimeWarp => {
                let rate = 1.4 + 1.6 * self.variant;
                let length = self.to - self.from;
                let cycles = (length * rate).round().max(1.0);
                let phase = std::f32::consts::TAU * cycles * (t - self.from) / length;
                // The slope of the sine is above 1, so that time runs backwards for a while.
                t + phase.sin() * (0.07 + 0.16 * self.severity)
            }
            _ => t,
        }
    }

    /// Changes of bone lengths.
    pub fn body(&self, body: &Body, t: f32) -> Body {
        let mut body = body.clone();
        if self.operator == Operator::WrongProportion && self.active(t) {
            let s = self.severity;
            let i = self.side;
            match (self.variant * 5.0) as usize {
                0 => {
                    let k = 1.30 + 0.55 * s;
                    body.upper_arm[i] *= k;
                    body.forearm[i] *= k;
                }
                1 => {
                    let k = 0.72 - 0.30 * s;
                    body.upper_arm[i] *= k;
                    body.forearm[i] *= k;
                }
                2 => {
                    body.head_scale = 1.28 + 0.45 * s;
                }
                3 => {
                    body.head_scale = 0.78 - 0.22 * s;
                }
                _ => {
                    body.hand[i] *= 1.5 + 0.9 * s;
                    body.limb_girth[i] *= 1.25 + 0.5 * s;
                }
            }
        }
        body
    }

    /// Changes of the pose.
    pub fn pose(&self, pose: &mut Pose, motion: &Motion, body: &Body, t: f32, frame: usize) {
        let active = self.active(t);
        let s = self.severity;
        let i = self.side;
        let heading = M3::turn_y(self.direction);
        let white = |k: u32| {
            hash(self.seed ^ hash(frame as u32 * 31 + k)) as f32 / u32::MAX as f32 * 2.0 - 1.0
        };
        match self.operator {
            Operator::Floating => {
                // Clearly above the floor, or sunk into it.
                let dy = if self.variant < 0.7 {
                    0.09 + 0.26 * s
                } else {
                    -0.07 - 0.18 * s
                };
                shift(pose, v3(0.0, dy, 0.0));
            }
            Operator::Jitter if active => {
                let a = 0.018 + 0.060 * s;
                for (side, arm) in pose.arms.iter_mut().enumerate() {
                    let k = 10 * side as u32;
                    let by = v3(white(k), white(k + 1), white(k + 2)) * a;
                    match &mut arm.goal {
                        ArmGoal::Angles {
                            swing, lift, elbow, ..
                        } => {
                            *swing += by.x * 3.0;
                            *lift += by.y * 2.0;
                            *elbow += by.z * 3.0;
                        }
                        ArmGoal::Reach { target, .. } | ArmGoal::World { target, .. } => {
                            *target += by
                        }
                    }
                }
                pose.head += v3(white(30), white(31), white(32)) * (a * 2.2);
                pose.chest += v3(white(33), white(34), 0.0) * (a * 0.6);
            }
            Operator::FootSlide => {
                let into = (t.min(self.to) - self.from).max(0.0);
                let rate = 0.45 + 0.35 * self.variant;
                let length = self.to - self.from;
                let cycles = (length * rate).max(0.5);
                // Half sines end where they began; longer spans swing to and fro.
                let cycles = (cycles * 2.0).round() / 2.0;
                let wave = (std::f32::consts::TAU * cycles * into / length).sin();
                shift(pose, heading * v3((0.16 + 0.34 * s) * wave, 0.0, 0.0));
            }
            Operator::LimbSnap if active => {
                let beat = 0.16 + 0.12 * self.variant;
                let k = ((t - self.from) / beat) as usize;
                if k.is_multiple_of(2) {
                    let mut target = self.targets[(k / 2) % 4];
                    target =
                        v3(target.x, target.y * (0.5 + 0.5 * s), target.z) * (body.height / 1.7);
                    pose.arms[i] = Arm {
                        goal: ArmGoal::Reach {
                            target,
                            pole: v3(0.7, -0.7, -0.4),
                        },
                        ..Arm::hanging()
                    };
                }
            }
            Operator::ReversedLimb if t >= self.from => {
                let back = motion.pose(body, 2.0 * self.from - t);
                let legs = self.variant < 0.7;
                for side in 0..2 {
                    if legs {
                        // Footsteps of the time before, seen from hips that go on.
                        let turn = M3::turn_y(pose.heading - back.heading);
                        let relative =
                            turn * (back.legs[side].ankle - v3(back.root.x, 0.0, back.root.z));
                        let mut leg = back.legs[side];
                        leg.ankle = v3(pose.root.x, 0.0, pose.root.z) + relative;
                        leg.heading += pose.heading - back.heading;
                        pose.legs[side] = leg;
                    } else {
                        // Arms in step with the legs of their own side.
                        let half = motion.pose(body, t + 0.5 / 0.9);
                        pose.arms[side] = half.arms[side];
                    }
                }
            }
            Operator::Teleport => {
                let third = (self.to - self.from) / 3.0;
                let k = if !active {
                    0
                } else {
                    1 + ((t - self.from) / third.max(1e-3)) as usize % 3
                };
                let side = [0.0, 1.0, -0.6, 0.45][k.min(3)];
                shift(pose, heading * v3((0.14 + 0.32 * s) * side, 0.0, 0.0));
            }
            Operator::HeadSpin => {
                let turn = self.ramp(t, 0.35) * std::f32::consts::PI * (0.62 + 0.38 * s);
                pose.neck.y += turn * 0.3 * SIDES[i];
                pose.head.y += turn * 0.7 * SIDES[i];
            }
            Operator::BrokenJoint if active => {
                let knees = matches!(
                    motion.action,
                    Action::Walk | Action::Sit | Action::Squat | Action::Jump
                ) && self.variant < 0.5;
                if knees {
                    for leg in &mut pose.legs {
                        leg.reversed = true;
                    }
                    pose.root.y -= 0.03 + 0.10 * s;
                } else {
                    pose.arms[i].reversed = true;
                    pose.arms[i].goal = ArmGoal::Angles {
                        swing: 0.35 + 0.15 * drift(t, 0.8, self.seed),
                        lift: 0.45 + 0.1 * drift(t, 0.7, self.seed ^ 1),
                        twist: 0.15,
                        elbow: 0.75 + 1.05 * s + 0.15 * drift(t, 0.9, self.seed ^ 2),
                    };
                }
            }
            Operator::LimbThroughBody => {
                let k = self.ramp(t, 0.3);
                if k > 0.0 {
                    let inside = v3(-0.05, -0.14 - 0.10 * self.variant, 0.02 - 0.24 * s)
                        * (body.height / 1.7);
                    let from = self.wrist_in_chest(pose, body);
                    pose.arms[i].goal = ArmGoal::Reach {
                        target: from.lerp(inside, k),
                        pole: v3(0.9, -0.25, 0.55),
                    };
                }
            }
            _ => {}
        }
    }

    /// Where the wrist of the acting arm is, in the coordinates of [`ArmGoal::Reach`].
    fn wrist_in_chest(&self, pose: &Pose, body: &Body) -> V3 {
        let skeleton = pose.solve(body);
        let chest = skeleton.joints[bone::CHEST];
        let wrist = skeleton.joints[bone::HAND + self.side].origin;
        let p = chest.axes.transposed() * (wrist - chest.point(v3(0.0, body.chest * 0.80, -0.004)));
        v3(p.x * SIDES[self.side], p.y, p.z)
    }

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
                    use super::body::Hair;
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
                        let l = super::skeleton::PHALANGES[3][phalanx] * length * 0.97;
                        let thick = 0.048 * length * (1.0 - 0.1 * phalanx as f32);
                        b.cone(
                            joint,
                            part::EXTRA,
                            super::material::Material::Skin,
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
                        super::material::Material::Skin,
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
                        let l = super::skeleton::PHALANGES[finger][phalanx] * length;
                        let up = joint.axes.transposed() * (p.axes.y * l);
                        for k in [0.0, 0.35, 0.7, 1.0] {
                            b.cone(
                                joint,
                                part::EXTRA,
                                super::material::Material::Skin,
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

/// Moves hips, feet and hands that aim at the world.
fn shift(pose: &mut Pose, by: V3) {
    pose.root += by;
    for leg in &mut pose.legs {
        leg.ankle += by;
    }
    for arm in &mut pose.arms {
        if let ArmGoal::World { target, .. } = &mut arm.goal {
            *target += by;
        }
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
