//! The actions: how each changes a standing pose at an instant.

use super::super::body::{Body, SIDES};
use super::super::math::{M3, V3, lerp, smoothstep, v3};
use super::super::rng::drift;
use super::super::skeleton::{Arm, ArmGoal, Pose};
use super::{GRAVITY, Motion, TURN};

impl Motion {
    pub(super) fn walk(&self, body: &Body, t: f32, pose: &mut Pose) {
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
        for (side, sgn) in SIDES.into_iter().enumerate() {
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
        for (side, sgn) in SIDES.into_iter().enumerate() {
            let swing = -0.42 * self.size * sgn * c;
            pose.arms[side].goal = ArmGoal::Angles {
                swing: swing + 0.02,
                lift: 0.13,
                twist: -0.1,
                elbow: 0.30 + 0.30 * (swing + 0.2).max(0.0) + 0.15 * self.mood,
            };
        }
    }

    pub(super) fn wave(&self, body: &Body, t: f32, pose: &mut Pose) {
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

    pub(super) fn jump(&self, body: &Body, t: f32, pose: &mut Pose) {
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

    pub(super) fn sit(&self, body: &Body, t: f32, pose: &mut Pose) {
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
        for (side, s) in SIDES.into_iter().enumerate() {
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

    pub(super) fn reach(&self, body: &Body, t: f32, pose: &mut Pose) {
        let (out, up, _) = self.reach_progress(t);
        let turn = M3::turn_y(self.heading);
        let s = SIDES[self.side];
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

    pub(super) fn clap(&self, body: &Body, t: f32, pose: &mut Pose) {
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

    pub(super) fn dance(&self, body: &Body, t: f32, pose: &mut Pose) {
        let b = t * self.rate + self.phase;
        let turn = M3::turn_y(self.heading);
        let (s1, s2) = ((TURN * b).sin(), (2.0 * TURN * b).sin());
        let side_step = 0.15 * self.size;
        // Weight moves to where a foot stands; each foot is in the air while the weight is on the other side.
        let weight = smoothstep(-0.8, 0.8, s1) * 2.0 - 1.0;
        for (side, s) in SIDES.into_iter().enumerate() {
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
        for (side, s) in SIDES.into_iter().enumerate() {
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

    pub(super) fn talk(&self, body: &Body, t: f32, pose: &mut Pose) {
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

    pub(super) fn squat(&self, body: &Body, t: f32, pose: &mut Pose) {
        let down = 0.5 - 0.5 * (TURN * (t * self.rate + self.phase)).cos();
        let down = down * down * (3.0 - 2.0 * down) * self.size.min(1.05);
        let turn = M3::turn_y(self.heading);
        pose.root =
            turn * v3(0.0, 0.0, -0.20 * down) + V3::Y * (body.hip_height * (0.985 - 0.42 * down));
        pose.pelvis.x += 0.30 * down;
        pose.spine.x += 0.35 * down;
        pose.chest.x += 0.06 * down;
        pose.neck.x -= 0.45 * down;
        for (side, s) in SIDES.into_iter().enumerate() {
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

    pub(super) fn lift(&self, body: &Body, t: f32, pose: &mut Pose) {
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
    pub(super) fn carry(&self, body: &Body, t: f32, pose: &mut Pose) {
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
