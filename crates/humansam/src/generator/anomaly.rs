//! How each operator changes time, body, pose, flesh and look.

mod spoil;

use super::body::{Body, Cloth, Face, Look, Pattern, SIDES};
use super::flesh::part;
use super::math::{M3, V3, smoothstep, v3};
use super::motion::{Action, Motion};
use super::operator::Operator;
use super::rng::{Rng, drift, hash};
use super::skeleton::{Arm, ArmGoal, Pose, bone};

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
