//! What a person does: poses as functions of time.
//!
//! Every action is a closed formula with drawn parameters, so that any instant can be asked for, also out of order, which the motion
//! anomalies need. Feet that carry weight stand still on the ground (inverse kinematics); flights are parabolas under 9.81 m/s².

mod actions;

use serde::{Deserialize, Serialize};

use super::body::Body;
use super::math::{M3, V3, smoothstep, v3};
use super::rng::{Rng, drift};
use super::skeleton::{Arm, Leg, Pose};

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
