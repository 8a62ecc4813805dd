//! From a pose (what a choreographer would say) to the frames of all bones, by forward and inverse kinematics.

use super::body::{Body, SIDES};
use super::math::{M3, V3, smoothstep, two_bones, v3};

/// How an arm is held.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum ArmGoal {
    /// Angles: forward swing, sideways lift, twist about the upper arm, flexion of the elbow.
    Angles {
        swing: f32,
        lift: f32,
        twist: f32,
        elbow: f32,
    },
    /// The wrist goes to a point in the frame of the chest (units: metres; origin between the shoulders; `x` outward for either side).
    Reach { target: V3, pole: V3 },
    /// The wrist goes to a point of the world.
    World { target: V3, pole: V3 },
}

/// One arm of a pose. Directions are in the chest frame with `x` outward.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Arm {
    pub goal: ArmGoal,
    /// Where the palm looks.
    pub palm: V3,
    /// Added to the forearm's direction to give the hand's.
    pub bend: V3,
    /// Curl of thumb to little finger: 0 straight, 1 a fist.
    pub curl: [f32; 5],
    pub spread: f32,
    /// The elbow bends the wrong way (an anomaly).
    pub reversed: bool,
}

impl Arm {
    pub fn hanging() -> Arm {
        Arm {
            goal: ArmGoal::Angles {
                swing: 0.04,
                lift: 0.14,
                twist: 0.0,
                elbow: 0.28,
            },
            palm: v3(-1.0, 0.0, -0.15),
            bend: V3::ZERO,
            curl: [0.25, 0.3, 0.36, 0.4, 0.45],
            spread: 0.3,
            reversed: false,
        }
    }
}

/// One leg of a pose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Leg {
    /// Where the ankle goes, in the world.
    pub ankle: V3,
    /// Heading of the foot.
    pub heading: f32,
    /// Pitch of the foot: positive lifts the heel.
    pub pitch: f32,
    pub reversed: bool,
}

/// A pose of the whole body.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pose {
    /// Middle of the hips, in the world.
    pub root: V3,
    pub heading: f32,
    /// Pitch (forward), yaw (to the left), roll of a part against the one below.
    pub pelvis: V3,
    pub spine: V3,
    pub chest: V3,
    pub neck: V3,
    pub head: V3,
    pub arms: [Arm; 2],
    pub legs: [Leg; 2],
    pub mouth: f32,
    pub blink: f32,
    pub gaze: f32,
}

/// Bones. Every one has a frame; the parts of the body are named after them.
pub(crate) mod bone {
    pub const PELVIS: usize = 0;
    pub const ABDOMEN: usize = 1;
    pub const CHEST: usize = 2;
    pub const NECK: usize = 3;
    pub const HEAD: usize = 4;
    /// Plus side.
    pub const UPPER_ARM: usize = 5;
    pub const FOREARM: usize = 7;
    pub const HAND: usize = 9;
    pub const THIGH: usize = 11;
    pub const SHIN: usize = 13;
    pub const FOOT: usize = 15;
    /// Plus `15 · side + 3 · finger + phalanx`.
    pub const FINGER: usize = 17;
    pub const COUNT: usize = 47;
}

/// Where a bone is: `p_world = origin + axes · p_bone`. `y` runs along the bone, `z` to its front.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Joint {
    pub origin: V3,
    pub axes: M3,
}

impl Joint {
    pub const IDENTITY: Joint = Joint {
        origin: V3::ZERO,
        axes: M3::ONE,
    };
    pub fn point(&self, p: V3) -> V3 {
        self.origin + self.axes * p
    }
}

/// Frames of all bones, indexed by [`bone`].
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Skeleton {
    pub joints: Vec<Joint>,
}

/// Flexion of the first, second and third phalanx of a fully curled finger.
const CURL: [f32; 3] = [1.35, 1.65, 1.0];
/// Lengths of the phalanges as shares of the hand, thumb first.
pub(crate) const PHALANGES: [[f32; 3]; 5] = [
    [0.25, 0.19, 0.15],
    [0.25, 0.15, 0.11],
    [0.27, 0.17, 0.12],
    [0.25, 0.16, 0.115],
    [0.20, 0.12, 0.10],
];

/// Where a finger leaves the palm (hand frame, shares of the hand; `x` towards the thumb) and its sideways angle.
pub(crate) fn finger_base(finger: usize) -> (V3, f32) {
    match finger {
        0 => (v3(0.17, 0.12, 0.04), 0.75),
        1 => (v3(0.165, 0.50, 0.0), 0.10),
        2 => (v3(0.055, 0.53, 0.0), 0.02),
        3 => (v3(-0.055, 0.51, 0.0), -0.05),
        _ => (v3(-0.155, 0.46, 0.0), -0.13),
    }
}

impl Pose {
    /// The frames of all bones of `body` in this pose.
    pub fn solve(&self, body: &Body) -> Skeleton {
        let mut joints = vec![Joint::IDENTITY; bone::COUNT];
        let pelvis = M3::turn_y(self.heading) * turn(self.pelvis);
        joints[bone::PELVIS] = Joint {
            origin: self.root,
            axes: pelvis,
        };
        let abdomen = pelvis * turn(self.spine);
        let abdomen_at = joints[bone::PELVIS].point(v3(0.0, 0.045 * body.height / 1.7, 0.0));
        joints[bone::ABDOMEN] = Joint {
            origin: abdomen_at,
            axes: abdomen,
        };
        let chest = abdomen * turn(self.chest);
        let chest_at = abdomen_at + abdomen.y * body.abdomen;
        joints[bone::CHEST] = Joint {
            origin: chest_at,
            axes: chest,
        };
        let neck = chest * turn(self.neck);
        let neck_at = chest_at + chest.y * body.chest;
        joints[bone::NECK] = Joint {
            origin: neck_at,
            axes: neck,
        };
        let head = neck * turn(self.head);
        joints[bone::HEAD] = Joint {
            origin: neck_at + neck.y * body.neck + neck.z * (0.006 * body.height),
            axes: head,
        };
        for side in 0..2 {
            self.solve_arm(body, side, &mut joints);
            self.solve_leg(body, side, &mut joints);
        }
        Skeleton { joints }
    }

    fn solve_arm(&self, body: &Body, side: usize, joints: &mut [Joint]) {
        let s = SIDES[side];
        let arm = &self.arms[side];
        let chest = joints[bone::CHEST];
        let out = |v: V3| chest.axes * v3(v.x * s, v.y, v.z);
        // The point between the shoulders; a raised arm takes its shoulder up with it.
        let middle = chest.point(v3(0.0, body.chest * 0.80, -0.004));
        let (upper, fore) = (body.upper_arm[side], body.forearm[side]);
        let rest = middle + out(v3(body.shoulder_half, 0.0, 0.0));
        let raise = |direction: V3| {
            let up = direction.dot(chest.axes.y);
            smoothstep(-0.3, 1.0, up) * 0.045 * body.height / 1.7
        };
        let (shoulder, elbow, wrist, front) = match arm.goal {
            ArmGoal::Angles {
                swing,
                lift,
                twist,
                elbow,
            } => {
                // Frame of a hanging arm: y down along the bone, z to the front.
                let hang = M3 {
                    x: out(-V3::X) * s,
                    y: -chest.axes.y,
                    z: chest.axes.z,
                };
                let base = hang * M3::turn_x(swing) * M3::turn_z(lift * s) * M3::turn_y(twist * s);
                let direction = base.y;
                let shoulder = rest + chest.axes.y * raise(direction);
                let e = if arm.reversed { -elbow } else { elbow };
                let lower = base * M3::turn_x(e);
                let elbow_at = shoulder + base.y * upper;
                (shoulder, elbow_at, elbow_at + lower.y * fore, base.z)
            }
            ArmGoal::Reach { target, pole } | ArmGoal::World { target, pole } => {
                let goal = match arm.goal {
                    ArmGoal::World { .. } => target,
                    _ => middle + out(target),
                };
                let shoulder = rest + chest.axes.y * raise((goal - rest).unit());
                let pole = out(pole);
                let pole = if arm.reversed { -pole } else { pole };
                let (e, w) = two_bones(shoulder, goal, pole, upper, fore);
                // The elbow's inside looks away from the pole.
                (shoulder, e, w, -pole)
            }
        };
        let upper_axes = M3::along(elbow - shoulder, front);
        let fore_axes = M3::along(wrist - elbow, front);
        joints[bone::UPPER_ARM + side] = Joint {
            origin: shoulder,
            axes: upper_axes,
        };
        joints[bone::FOREARM + side] = Joint {
            origin: elbow,
            axes: fore_axes,
        };
        let along = ((wrist - elbow).unit() + out(arm.bend)).unit();
        // z is the palm's side; x then is across the palm, and is made to point to the thumb by the side's sign.
        let hand = M3::along(along, out(arm.palm));
        joints[bone::HAND + side] = Joint {
            origin: wrist,
            axes: hand,
        };
        // With y down and the palm towards the thigh, the thumb is at the front: x = y × z for the left hand, its opposite for the right.
        let thumb_side = if side == 0 { -1.0 } else { 1.0 };
        for finger in 0..5 {
            let (base, splay) = finger_base(finger);
            let length = body.hand[side];
            let splay = splay
                * if finger == 0 {
                    1.0
                } else {
                    0.4 + 2.2 * arm.spread
                }
                * thumb_side;
            let mut at = joints[bone::HAND + side].point(v3(
                base.x * length * thumb_side,
                base.y * length,
                base.z * length,
            ));
            let mut axes = hand * M3::turn_z(-splay);
            if finger == 0 {
                axes = axes * M3::turn_y(-0.9 * thumb_side) * M3::turn_x(0.25);
            }
            for phalanx in 0..3 {
                let share = if finger == 0 { 0.55 } else { 1.0 };
                axes = axes * M3::turn_x(CURL[phalanx] * share * arm.curl[finger]);
                joints[bone::FINGER + 15 * side + 3 * finger + phalanx] =
                    Joint { origin: at, axes };
                at += axes.y * (PHALANGES[finger][phalanx] * length);
            }
        }
    }

    fn solve_leg(&self, body: &Body, side: usize, joints: &mut [Joint]) {
        let s = SIDES[side];
        let leg = &self.legs[side];
        let pelvis = joints[bone::PELVIS];
        let hip = pelvis.point(v3(s * body.hip_half, 0.0, 0.0));
        let forward = M3::turn_y(leg.heading) * V3::Z;
        let half = (forward + pelvis.axes.z).unit();
        let pole = if leg.reversed { -half } else { half };
        let pole = pole + M3::turn_y(leg.heading) * v3(s * 0.12, 0.0, 0.0);
        let (knee, ankle) = two_bones(hip, leg.ankle, pole, body.thigh[side], body.shin[side]);
        joints[bone::THIGH + side] = Joint {
            origin: hip,
            axes: M3::along(knee - hip, half),
        };
        joints[bone::SHIN + side] = Joint {
            origin: knee,
            axes: M3::along(ankle - knee, half),
        };
        // The foot's y points to the toes.
        let foot = M3::turn_y(leg.heading) * M3::turn_x(leg.pitch);
        joints[bone::FOOT + side] = Joint {
            origin: ankle,
            axes: M3 {
                x: -foot.x,
                y: foot.z,
                z: foot.y,
            },
        };
    }
}

/// Pitch, yaw, roll as a rotation.
fn turn(v: V3) -> M3 {
    M3::euler(v.x, v.y, v.z)
}
