//! What a person does: poses as functions of time.
//!
//! Every action is a closed formula with drawn parameters, so that any instant can be asked for, also out of order, which the motion
//! anomalies need. Feet that carry weight stand still on the ground (inverse kinematics); flights are parabolas under 9.81 m/s².

use serde::{Deserialize, Serialize};

use super::body::Body;
use super::math::{M3, V3, lerp, smoothstep, v3};
use super::rng::{Rng, drift};
use super::skeleton::{Arm, ArmGoal, Leg, Pose};

/// An action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Steps on a straight or curved path.
    Walk,
    /// One arm raised, the hand waves.
    Wave,
    /// Crouch, flight, landing.
    Jump,
    /// Down on a seat and up again.
    Sit,
    /// A ball is taken from a table, lifted and put back.
    Reach,
    /// Both hands meet in front of the chest.
    Clap,
    /// Side steps, hips and arms in rhythm.
    Dance,
    /// Standing and speaking with the hands.
    Talk,
    /// Knees bent and stretched, arms forward.
    Squat,
    /// A box held in both hands goes up and down.
    Lift,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 10] = [
        Action::Walk,
        Action::Wave,
        Action::Jump,
        Action::Sit,
        Action::Reach,
        Action::Clap,
        Action::Dance,
        Action::Talk,
        Action::Squat,
        Action::Lift,
    ];
    /// Those that training never sees.
    pub const HELD_OUT: [Action; 3] = [Action::Clap, Action::Dance, Action::Squat];
}

/// A held or handled thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PropKind {
    Ball,
    Bottle,
    Phone,
    Box,
}

/// Where a thing is at some time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum PropPlace {
    /// In the hand of that side.
    Hand(usize),
    /// Between both hands.
    BothHands,
    /// At a point of the world.
    World(V3),
}

/// One person's performance.
#[derive(Clone, Debug)]
pub(crate) struct Motion {
    pub action: Action,
    pub prop: Option<PropKind>,
    /// Cycles a second.
    rate: f32,
    /// Size of the movement, about 1.
    size: f32,
    phase: f32,
    heading: f32,
    /// Path curvature in 1/m.
    curve: f32,
    side: usize,
    seed: u32,
    mood: f32,
    speech: f32,
}

const GRAVITY: f32 = 9.81;
const TURN: f32 = std::f32::consts::TAU;

impl Motion {
    /// Draws the way an action is done.
    pub fn draw(rng: &mut Rng, action: Action) -> Motion {
        let rate = match action {
            Action::Walk => rng.range(0.75, 1.05),
            Action::Wave => rng.range(1.1, 1.9),
            Action::Jump => rng.range(0.5, 0.62),
            Action::Sit => rng.range(0.16, 0.24),
            Action::Reach => rng.range(0.22, 0.32),
            Action::Clap => rng.range(1.2, 2.2),
            Action::Dance => rng.range(0.7, 1.0),
            Action::Talk => rng.range(0.5, 0.9),
            Action::Squat => rng.range(0.35, 0.5),
            Action::Lift => rng.range(0.3, 0.45),
        };
        let prop = match action {
            Action::Reach => Some(PropKind::Ball),
            Action::Lift => Some(PropKind::Box),
            Action::Walk | Action::Wave | Action::Talk | Action::Dance if rng.chance(0.5) => {
                Some(rng.pick(&[PropKind::Ball, PropKind::Bottle, PropKind::Phone]))
            }
            _ => None,
        };
        Motion {
            action,
            prop,
            rate,
            size: rng.range(0.8, 1.15),
            phase: rng.unit(),
            heading: rng.range(-0.6, 0.6),
            curve: rng.range(-0.25, 0.25),
            side: rng.below(2),
            seed: rng.u64() as u32,
            mood: rng.unit(),
            speech: if action == Action::Talk || rng.chance(0.3) {
                rng.range(0.5, 1.0)
            } else {
                0.0
            },
        }
    }

    /// The side of the arm that acts; a held thing is in the other hand.
    pub fn acting_side(&self) -> usize {
        self.side
    }

    /// Where the table, the seat and a ball that lies on the table are.
    pub fn furniture(&self, body: &Body) -> Furniture {
        let turn = M3::turn_y(self.heading);
        let top = 0.53 * body.height;
        Furniture {
            heading: self.heading,
            seat: (self.action == Action::Sit)
                .then(|| (turn * v3(0.0, 0.0, -0.30), 0.27 * body.height)),
            table: (self.action == Action::Reach).then(|| (turn * v3(0.0, 0.0, 0.62), top)),
        }
    }

    fn ball_rest(&self, body: &Body) -> V3 {
        let s = super::body::SIDES[self.side];
        M3::turn_y(self.heading) * v3(s * 0.16, 0.53 * body.height + 0.05, 0.46)
    }

    /// Share of the way from table to chest at time `t`, and whether the ball is in the hand.
    fn reach_progress(&self, t: f32) -> (f32, f32, bool) {
        let p = (t * self.rate + self.phase).rem_euclid(1.0);
        // Out to the ball, up, hold, down, back.
        let out = smoothstep(0.02, 0.24, p) * (1.0 - smoothstep(0.80, 0.98, p));
        let up = smoothstep(0.30, 0.48, p) * (1.0 - smoothstep(0.54, 0.72, p));
        (out, up, (0.27..0.75).contains(&p))
    }

    /// Where the thing is.
    pub fn prop_place(&self, body: &Body, t: f32) -> Option<PropPlace> {
        self.prop?;
        Some(match self.action {
            Action::Reach => {
                if self.reach_progress(t).2 {
                    PropPlace::Hand(self.side)
                } else {
                    PropPlace::World(self.ball_rest(body))
                }
            }
            Action::Lift => PropPlace::BothHands,
            _ => PropPlace::Hand(1 - self.side),
        })
    }

    /// Where the person is going, without bobbing: what a camera follows.
    pub fn path(&self, body: &Body, t: f32) -> V3 {
        match self.action {
            Action::Walk => {
                self.path_point(self.stride(body) * (t * self.rate))
                    - self.path_point(self.stride(body) * 0.0)
            }
            _ => V3::ZERO,
        }
    }

    fn stride(&self, body: &Body) -> f32 {
        0.72 * body.height * self.size
    }

    /// Heading on the walker's path after `s` metres.
    fn path_heading(&self, s: f32) -> f32 {
        self.heading * 1.6 + self.curve * s
    }

    fn path_point(&self, s: f32) -> V3 {
        let (a, c) = (self.heading * 1.6, self.curve);
        if c.abs() < 1e-3 {
            return v3(a.sin(), 0.0, a.cos()) * s;
        }
        let b = a + c * s;
        v3(a.cos() - b.cos(), 0.0, b.sin() - a.sin()) * (1.0 / c)
    }

    /// The pose at time `t` seconds.
    pub fn pose(&self, body: &Body, t: f32) -> Pose {
        let mut pose = self.standing(body, t);
        match self.action {
            Action::Walk => self.walk(body, t, &mut pose),
            Action::Wave => self.wave(body, t, &mut pose),
            Action::Jump => self.jump(body, t, &mut pose),
            Action::Sit => self.sit(body, t, &mut pose),
            Action::Reach => self.reach(body, t, &mut pose),
            Action::Clap => self.clap(body, t, &mut pose),
            Action::Dance => self.dance(body, t, &mut pose),
            Action::Talk => self.talk(body, t, &mut pose),
            Action::Squat => self.squat(body, t, &mut pose),
            Action::Lift => self.lift(body, t, &mut pose),
        }
        if self.prop.is_some() && !matches!(self.action, Action::Reach | Action::Lift) {
            self.carry(body, t, &mut pose);
        }
        pose
    }

    /// Standing, breathing, looking about: what every action starts from.
    fn standing(&self, body: &Body, t: f32) -> Pose {
        let turn = M3::turn_y(self.heading);
        let sway = drift(t, 0.35, self.seed) * 0.018;
        let breath = (t * 0.27 * TURN + self.mood * TURN).sin();
        let leg = |side: usize| {
            let s = super::body::SIDES[side];
            Leg {
                ankle: turn
                    * v3(
                        s * (body.hip_half + 0.025),
                        body.ankle,
                        if side == 0 { 0.03 } else { -0.02 },
                    ),
                heading: self.heading + s * 0.16,
                pitch: 0.0,
                reversed: false,
            }
        };
        let blink_phase = (t * 0.31 + self.mood * 3.0).rem_euclid(1.0);
        Pose {
            root: turn * v3(sway, body.hip_height * 0.985, 0.0),
            heading: self.heading,
            pelvis: v3(0.0, 0.0, sway * 1.2),
            spine: v3(0.02, 0.02 * drift(t, 0.3, self.seed ^ 5), -sway * 1.2),
            chest: v3(0.012 * breath, 0.03 * drift(t, 0.25, self.seed ^ 1), 0.0),
            neck: v3(0.08, 0.10 * drift(t, 0.4, self.seed ^ 2), 0.0),
            head: v3(
                -0.06 + 0.06 * drift(t, 0.5, self.seed ^ 3),
                0.16 * drift(t, 0.4, self.seed ^ 4),
                0.04 * drift(t, 0.3, self.seed ^ 6),
            ),
            arms: [Arm::hanging(); 2],
            legs: [leg(0), leg(1)],
            mouth: self.speech
                * (0.5 + 0.5 * drift(t, 5.0, self.seed ^ 7))
                * smoothstep(-0.3, 0.3, drift(t, 0.6, self.seed ^ 8)),
            blink: 1.0 - smoothstep(0.0, 0.025, (blink_phase - 0.5).abs()),
            gaze: 0.5 * drift(t, 0.6, self.seed ^ 9),
        }
    }

    fn walk(&self, body: &Body, t: f32, pose: &mut Pose) {
        const STANCE: f32 = 0.6;
        let stride = self.stride(body);
        let cycles = t * self.rate;
        // Path length 0 at t = 0; feet are planted at path lengths that lie under the hips in the middle of a stance.
        let s = stride * cycles;
        let gait = cycles + self.phase;
        let heading = self.path_heading(s);
        let mut at = self.path_point(s);
        let bob = 0.017 * body.height / 1.7;
        at.y = body.hip_height * 0.965 - bob * (2.0 * TURN * (gait + 0.05)).cos();
        for side in 0..2 {
            let sgn = super::body::SIDES[side];
            let p = gait + 0.5 * side as f32;
            let k = p.floor();
            let f = p - k;
            // Path length of the k-th footprint.
            let print = |k: f32| stride * (k + STANCE / 2.0 - 0.5 * side as f32 - self.phase);
            let place = |path: f32| {
                let h = self.path_heading(path);
                self.path_point(path)
                    + v3(h.cos(), 0.0, -h.sin()) * (sgn * body.hip_half * 0.75)
                    + v3(h.sin(), 0.0, h.cos()) * -0.03
            };
            let leg = &mut pose.legs[side];
            if f < STANCE {
                let path = print(k);
                leg.ankle = place(path);
                leg.ankle.y = body.ankle;
                leg.heading = self.path_heading(path) + sgn * 0.1;
                // Heel strike, flat, push off on the toes.
                let strike = -0.28 * (1.0 - smoothstep(0.0, 0.12, f));
                let push = smoothstep(0.36, STANCE, f);
                leg.pitch = strike + 0.75 * push;
                leg.ankle.y += 0.085 * push * body.height / 1.7;
                let forward = v3(leg.heading.sin(), 0.0, leg.heading.cos());
                leg.ankle += forward * (0.035 * push);
            } else {
                let u = (f - STANCE) / (1.0 - STANCE);
                let ease = u * u * (3.0 - 2.0 * u);
                let (a, b) = (print(k), print(k + 1.0));
                let from = place(a)
                    + v3(self.path_heading(a).sin(), 0.0, self.path_heading(a).cos()) * 0.035;
                leg.ankle = from.lerp(place(b), ease);
                leg.ankle.y = body.ankle
                    + lerp(0.085, 0.0, smoothstep(0.0, 1.0, u)) * body.height / 1.7
                    + 0.07 * (std::f32::consts::PI * u).sin() * self.size;
                leg.heading = lerp(self.path_heading(a), self.path_heading(b), ease) + sgn * 0.1;
                leg.pitch = lerp(0.75, -0.28, smoothstep(0.0, 0.85, u));
            }
        }
        pose.root = at;
        pose.heading = heading;
        // Left foot is at the front of its swing when gait = 0: hips turn with it, shoulders against it.
        let c = (TURN * gait).cos();
        pose.pelvis = v3(0.03, -0.10 * c, 0.035 * (TURN * (gait - 0.1)).sin());
        pose.spine = v3(0.03, 0.08 * c, -0.03 * (TURN * (gait - 0.1)).sin());
        pose.chest.y += 0.12 * c;
        pose.neck.y -= 0.09 * c;
        for side in 0..2 {
            let sgn = super::body::SIDES[side];
            let swing = -0.42 * self.size * sgn * c;
            pose.arms[side].goal = ArmGoal::Angles {
                swing: swing + 0.02,
                lift: 0.13,
                twist: -0.1,
                elbow: 0.30 + 0.30 * (swing + 0.2).max(0.0) + 0.15 * self.mood,
            };
        }
    }

    fn wave(&self, body: &Body, t: f32, pose: &mut Pose) {
        let h = body.height / 1.7;
        let w = (TURN * (t * self.rate + self.phase)).sin();
        let high = 0.32 + 0.14 * self.mood;
        pose.arms[self.side] = Arm {
            goal: ArmGoal::Reach {
                target: v3(0.30 + 0.09 * w * self.size, high, 0.17) * h,
                pole: v3(0.75, -0.8, -0.1),
            },
            palm: v3(0.0, 0.0, 1.0),
            bend: v3(0.35 * w, 0.4, 0.0),
            curl: [0.1, 0.06, 0.05, 0.07, 0.1],
            spread: 0.8,
            reversed: false,
        };
        pose.chest.z += 0.03 * w;
        pose.head.z += 0.04 * w;
    }

    fn jump(&self, body: &Body, t: f32, pose: &mut Pose) {
        let height = 0.22 * self.size;
        let flight = (8.0 * height / GRAVITY).sqrt();
        let period = 1.0 / self.rate;
        let p = (t + self.phase * period).rem_euclid(period);
        let rise = 0.05;
        let speed = GRAVITY * flight / 2.0;
        let ground = period - flight;
        let (crouch_at, takeoff) = (0.52 * ground, 0.52 * ground + 0.26);
        let takeoff = takeoff.min(ground * 0.8);
        let crouch = -0.24 * self.size * body.height / 1.7;
        // Height of the hips over standing, as pieces: down, up to take-off, parabola, landing, rest.
        let land_low = ground - takeoff;
        let (y, flying) = if p < crouch_at {
            (crouch * smoothstep(0.25 * crouch_at, crouch_at, p), false)
        } else if p < takeoff {
            let u = (p - crouch_at) / (takeoff - crouch_at);
            (
                hermite(crouch, rise, 0.0, speed * (takeoff - crouch_at), u),
                false,
            )
        } else if p < takeoff + flight {
            let q = p - takeoff;
            (rise + speed * q - 0.5 * GRAVITY * q * q, true)
        } else {
            let q = p - takeoff - flight;
            let absorb = 0.45 * land_low;
            if q < absorb {
                let u = q / absorb;
                (hermite(rise, crouch * 0.62, -speed * absorb, 0.0, u), false)
            } else {
                (
                    crouch * 0.62 * (1.0 - smoothstep(absorb, land_low.max(absorb + 0.01), q)),
                    false,
                )
            }
        };
        let low = smoothstep(0.0, 0.26, -y);
        let turn = M3::turn_y(self.heading);
        pose.root = turn * v3(0.0, 0.0, -0.16 * low) + V3::Y * (body.hip_height * 0.97 + y);
        pose.spine.x += 0.45 * low;
        pose.chest.x += 0.25 * low;
        pose.neck.x -= 0.35 * low;
        for leg in &mut pose.legs {
            let air = if flying { (y - rise).max(0.0) } else { 0.0 };
            let toes = smoothstep(0.0, rise, y);
            leg.ankle.y += air + 0.055 * toes;
            leg.pitch = 0.5 * toes;
        }
        let up = smoothstep(crouch_at * 0.7, takeoff + 0.8 * flight, p)
            * (1.0
                - smoothstep(
                    takeoff + flight * 0.55,
                    takeoff + flight + 0.85 * land_low,
                    p,
                ));
        let back = smoothstep(0.1 * crouch_at, crouch_at, p) * (1.0 - up);
        let back = back * (1.0 - smoothstep(takeoff, takeoff + flight, p));
        for arm in &mut pose.arms {
            arm.goal = ArmGoal::Angles {
                swing: 0.05 - 0.5 * back + 1.1 * up * self.size,
                lift: 0.16 + 0.15 * up,
                twist: 0.0,
                elbow: 0.3 + 0.5 * up,
            };
        }
    }

    fn sit(&self, body: &Body, t: f32, pose: &mut Pose) {
        let p = (t * self.rate + self.phase).rem_euclid(1.0);
        let down = smoothstep(0.05, 0.30, p) * (1.0 - smoothstep(0.60, 0.85, p));
        let mid = 4.0 * down * (1.0 - down);
        let turn = M3::turn_y(self.heading);
        let seat = 0.27 * body.height + 0.075 * body.bulk;
        let back = -0.05 * mid - 0.30 * smoothstep(0.1, 1.0, down);
        pose.root = turn * v3(0.0, 0.0, back) + V3::Y * lerp(body.hip_height * 0.985, seat, down);
        pose.pelvis.x += 0.25 * mid;
        pose.spine.x += 0.35 * mid;
        pose.chest.x += 0.15 * mid + 0.04 * down;
        pose.neck.x -= 0.3 * mid;
        for side in 0..2 {
            let s = super::body::SIDES[side];
            pose.legs[side].ankle = turn * v3(s * (body.hip_half + 0.05), body.ankle, 0.10);
            // Hands come to rest on the thighs, above the knees.
            let thigh = turn
                * v3(
                    s * (body.hip_half + 0.05),
                    seat + 0.10 + 0.16 * (1.0 - down),
                    back + 0.24,
                );
            let hang = pose.root + turn * v3(s * 0.27, -0.02, 0.03);
            pose.arms[side].goal = ArmGoal::World {
                target: hang.lerp(thigh, smoothstep(0.2, 0.95, down)),
                pole: v3(0.6, -0.5, -0.8),
            };
            pose.arms[side].palm = v3(-1.0 + 0.8 * down, -0.9 * down, -0.1);
            pose.arms[side].bend = v3(0.0, 0.0, 0.5 * down);
        }
    }

    fn reach(&self, body: &Body, t: f32, pose: &mut Pose) {
        let (out, up, _) = self.reach_progress(t);
        let turn = M3::turn_y(self.heading);
        let s = super::body::SIDES[self.side];
        let ball = self.ball_rest(body);
        let hang = pose.root + turn * v3(s * 0.25, -0.03, 0.06);
        let chest = turn * v3(s * 0.10, 0.74 * body.height, 0.33);
        // The wrist stays a hand's breadth behind the ball.
        let grip = ball + turn * v3(0.0, 0.045, -0.085);
        let via = v3(0.0, 0.10 * 4.0 * out * (1.0 - out), 0.0);
        pose.arms[self.side] = Arm {
            goal: ArmGoal::World {
                target: hang.lerp(grip, out).lerp(chest, up) + via,
                pole: v3(0.5, -0.7, -0.6),
            },
            palm: v3(-0.6, -0.9 * out + 0.3 * up, 0.2),
            bend: v3(0.0, 0.25 * out, 0.3 * out),
            curl: [0.45; 5].map(|c: f32| c + 0.1 * up),
            spread: 0.5,
            reversed: false,
        };
        let lean = out * (1.0 - up);
        pose.spine.x += 0.16 * lean;
        pose.chest.x += 0.10 * lean;
        pose.chest.y += -s * 0.12 * lean;
        pose.head.x += 0.22 * out;
    }

    fn clap(&self, body: &Body, t: f32, pose: &mut Pose) {
        let h = body.height / 1.7;
        let w = (TURN * (t * self.rate + self.phase)).sin();
        // Hands are together for a short while in each cycle.
        let apart = smoothstep(-0.75, 1.0, w) * 0.22 * self.size;
        let high = -0.12 + 0.16 * self.mood;
        for (side, arm) in pose.arms.iter_mut().enumerate() {
            *arm = Arm {
                goal: ArmGoal::Reach {
                    target: v3(
                        0.030 + apart,
                        high + if side == 0 { 0.012 } else { 0.0 },
                        0.30,
                    ) * h,
                    pole: v3(0.7, -0.8, -0.2),
                },
                palm: v3(-1.0, 0.0, 0.0),
                bend: v3(-0.2, 0.75, 0.4),
                curl: [0.1, 0.08, 0.08, 0.1, 0.12],
                spread: 0.1,
                reversed: false,
            };
        }
        pose.chest.x += 0.02 * w;
        pose.head.z += 0.05 * (TURN * (t * self.rate * 0.5)).sin();
    }

    fn dance(&self, body: &Body, t: f32, pose: &mut Pose) {
        let b = t * self.rate + self.phase;
        let turn = M3::turn_y(self.heading);
        let (s1, s2) = ((TURN * b).sin(), (2.0 * TURN * b).sin());
        let side_step = 0.15 * self.size;
        // Weight moves to where a foot stands; each foot is in the air while the weight is on the other side.
        let weight = smoothstep(-0.8, 0.8, s1) * 2.0 - 1.0;
        for side in 0..2 {
            let s = super::body::SIDES[side];
            let p = (b + if side == 0 { 0.0 } else { 0.5 }).rem_euclid(1.0);
            // Lifted while p is in (0.5, 1): goes out to its side and back by tapping.
            let air = if p > 0.5 {
                (TURN * (p - 0.5)).sin().max(0.0)
            } else {
                0.0
            };
            pose.legs[side].ankle = turn
                * v3(
                    s * (body.hip_half + 0.06),
                    body.ankle + 0.10 * air * self.size,
                    0.07 * air,
                );
            pose.legs[side].pitch = 0.45 * air;
            pose.legs[side].heading = self.heading + s * 0.22;
        }
        pose.root = turn * v3(side_step * 0.45 * weight, 0.0, 0.0)
            + V3::Y * (body.hip_height * 0.945 - 0.022 * s2.abs());
        pose.pelvis = v3(0.0, 0.18 * s1, -0.11 * weight);
        pose.spine = v3(0.05, -0.2 * s1, 0.12 * weight);
        pose.chest = v3(0.03 * s2, -0.18 * s1, 0.06 * weight);
        pose.head.z += 0.12 * s1;
        pose.head.x += 0.06 * s2;
        let open = 0.5 + 0.5 * (TURN * b * 0.25 + self.mood * TURN).sin();
        for side in 0..2 {
            let s = super::body::SIDES[side];
            pose.arms[side] = Arm {
                goal: ArmGoal::Reach {
                    target: v3(
                        0.24 + 0.16 * open + 0.08 * s * s1,
                        -0.12 + 0.34 * open * self.size + 0.11 * s * s1,
                        0.26 - 0.08 * open + 0.07 * s2,
                    ) * (body.height / 1.7),
                    pole: v3(0.8, -0.7, -0.4),
                },
                palm: v3(-0.6, -0.4, 0.7),
                bend: v3(0.0, 0.3 * s * s1, 0.1),
                curl: [0.2, 0.25, 0.3, 0.35, 0.4],
                spread: 0.5,
                reversed: false,
            };
        }
    }

    fn talk(&self, body: &Body, t: f32, pose: &mut Pose) {
        let h = body.height / 1.7;
        for side in 0..2 {
            let k = self.seed ^ (31 + side as u32);
            let r = self.rate;
            let raise = smoothstep(-0.5, 0.45, drift(t, 0.22, k ^ 77) + 0.25);
            let target = v3(
                0.15 + 0.11 * drift(t, r, k) * self.size,
                -0.40 + 0.24 * raise + 0.10 * drift(t, r, k ^ 2) * self.size,
                0.20 + 0.10 * raise + 0.06 * drift(t, r, k ^ 3),
            );
            pose.arms[side] = Arm {
                goal: ArmGoal::Reach {
                    target: target * h,
                    pole: v3(0.6, -0.7, -0.5),
                },
                palm: v3(
                    -0.8,
                    0.5 + 0.6 * drift(t, r, k ^ 4),
                    0.2 + 0.5 * drift(t, r, k ^ 6),
                ),
                bend: v3(0.0, 0.25 * drift(t, r, k ^ 5), 0.2),
                curl: std::array::from_fn(|f| {
                    0.22 + 0.05 * f as f32 + 0.2 * drift(t, r, k ^ (90 + f as u32))
                }),
                spread: 0.4,
                reversed: false,
            };
        }
        pose.head.x += 0.10 * drift(t, 1.1, self.seed ^ 50);
        pose.head.y += 0.18 * drift(t, 0.5, self.seed ^ 51);
        pose.chest.y += 0.10 * drift(t, 0.4, self.seed ^ 52);
    }

    fn squat(&self, body: &Body, t: f32, pose: &mut Pose) {
        let down = 0.5 - 0.5 * (TURN * (t * self.rate + self.phase)).cos();
        let down = down * down * (3.0 - 2.0 * down) * self.size.min(1.05);
        let turn = M3::turn_y(self.heading);
        pose.root =
            turn * v3(0.0, 0.0, -0.20 * down) + V3::Y * (body.hip_height * (0.985 - 0.42 * down));
        pose.pelvis.x += 0.30 * down;
        pose.spine.x += 0.35 * down;
        pose.chest.x += 0.06 * down;
        pose.neck.x -= 0.45 * down;
        for side in 0..2 {
            let s = super::body::SIDES[side];
            pose.legs[side].ankle = turn * v3(s * (body.hip_half + 0.08), body.ankle, 0.0);
            pose.legs[side].heading = self.heading + s * 0.35;
            pose.arms[side].goal = ArmGoal::Angles {
                swing: 0.05 + 1.75 * down,
                lift: 0.14,
                twist: 0.0,
                elbow: 0.28 - 0.1 * down,
            };
            pose.arms[side].palm = v3(-1.0, -0.2 - 0.5 * down, 0.0);
        }
    }

    fn lift(&self, body: &Body, t: f32, pose: &mut Pose) {
        let h = body.height / 1.7;
        let up = 0.5 - 0.5 * (TURN * (t * self.rate + self.phase)).cos();
        let up = smoothstep(0.0, 1.0, up);
        for arm in &mut pose.arms {
            *arm = Arm {
                goal: ArmGoal::Reach {
                    target: v3(
                        0.155,
                        lerp(-0.36, 0.26 * self.size, up),
                        0.30 + 0.05 * (1.0 - up),
                    ) * h,
                    pole: v3(0.9, -0.6, -0.3),
                },
                palm: v3(-1.0, 0.0, 0.05),
                bend: v3(0.0, 0.1, 0.7),
                curl: [0.25, 0.3, 0.3, 0.3, 0.3],
                spread: 0.3,
                reversed: false,
            };
        }
        pose.spine.x += -0.05 + 0.08 * (1.0 - up);
        pose.head.x += 0.14 * (1.0 - up);
    }

    /// The hand that does not act holds something in front of the body.
    fn carry(&self, body: &Body, t: f32, pose: &mut Pose) {
        let side = 1 - self.side;
        let h = body.height / 1.7;
        let k = self.seed ^ 400;
        pose.arms[side] = Arm {
            goal: ArmGoal::Reach {
                target: v3(
                    0.13 + 0.02 * drift(t, 0.7, k),
                    -0.27 + 0.03 * drift(t, 0.8, k ^ 1),
                    0.27 + 0.02 * drift(t, 0.6, k ^ 2),
                ) * h,
                pole: v3(0.5, -0.8, -0.5),
            },
            palm: v3(-0.9, 0.25, 0.1),
            bend: v3(0.0, 0.15, 0.2),
            curl: [0.55, 0.55, 0.55, 0.58, 0.6],
            spread: 0.2,
            reversed: false,
        };
    }
}

/// Cubic with given ends and end slopes, at `u` in `[0, 1]`.
fn hermite(a: f32, b: f32, slope_a: f32, slope_b: f32, u: f32) -> f32 {
    let (u2, u3) = (u * u, u * u * u);
    a * (2.0 * u3 - 3.0 * u2 + 1.0)
        + slope_a * (u3 - 2.0 * u2 + u)
        + b * (3.0 * u2 - 2.0 * u3)
        + slope_b * (u3 - u2)
}

/// Furniture an action needs: positions on the floor and heights of tops.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Furniture {
    pub heading: f32,
    pub seat: Option<(V3, f32)>,
    pub table: Option<(V3, f32)>,
}

#[cfg(test)]
mod tests {
    use super::super::skeleton::bone;
    use super::*;

    #[test]
    fn planted_feet_stand_still_and_no_joint_jumps() {
        for seed in 0..40u64 {
            let mut rng = Rng::named(seed, "motion-test");
            let body = Body::draw(&mut rng);
            let action = Action::ALL[seed as usize % Action::ALL.len()];
            let motion = Motion::draw(&mut rng, action);
            let dt = 1.0 / 120.0;
            let mut last = motion.pose(&body, 0.0).solve(&body);
            for i in 1..360 {
                let now = motion.pose(&body, i as f32 * dt).solve(&body);
                for b in 0..bone::COUNT {
                    let v = (now.joints[b].origin - last.joints[b].origin).length() / dt;
                    assert!(
                        v < 10.0,
                        "{action:?} seed {seed} bone {b}: {v} m/s at frame {i}"
                    );
                }
                for side in 0..2 {
                    let (a, b) = (
                        last.joints[bone::FOOT + side].origin,
                        now.joints[bone::FOOT + side].origin,
                    );
                    assert!(
                        b.y > body.ankle * 0.9,
                        "{action:?} foot under the floor: {}",
                        b.y
                    );
                    if a.y < body.ankle + 0.002
                        && b.y < body.ankle + 0.002
                        && action != Action::Jump
                    {
                        let slip = ((b.x - a.x).powi(2) + (b.z - a.z).powi(2)).sqrt() / dt;
                        assert!(
                            slip < 0.25,
                            "{action:?} seed {seed} slips {slip} m/s at {i}"
                        );
                    }
                }
                last = now;
            }
        }
    }

    #[test]
    fn a_flight_is_a_parabola() {
        let mut rng = Rng::named(5, "jump");
        let body = Body::draw(&mut rng);
        let motion = Motion::draw(&mut rng, Action::Jump);
        let dt = 1.0 / 240.0;
        let y: Vec<f32> = (0..720)
            .map(|i| motion.pose(&body, i as f32 * dt).root.y)
            .collect();
        let top = (1..719).max_by(|&a, &b| y[a].total_cmp(&y[b])).unwrap();
        let g = (y[top + 8] - 2.0 * y[top] + y[top - 8]) / (64.0 * dt * dt);
        assert!((g + GRAVITY).abs() < 0.4, "{g}");
    }
}
