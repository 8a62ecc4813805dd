//! From the frames of the bones to what the rasteriser draws: tapered capsules, ellipsoids and blocks.

mod person;

use super::material::Material;
use super::math::{V3, v3};
use super::skeleton::Joint;

/// Numbers of the part mask.
pub mod part {
    /// Nothing of the person, nothing held.
    pub const BACKGROUND: u8 = 0;
    /// Pelvis, abdomen, chest, neck.
    pub const TORSO: u8 = 1;
    /// Face, skull, ears.
    pub const HEAD: u8 = 2;
    /// Hair.
    pub const HAIR: u8 = 3;
    /// Left upper arm; the right one is the next number, as for all limbs.
    pub const UPPER_ARM: u8 = 4;
    /// Left forearm.
    pub const FOREARM: u8 = 6;
    /// Left hand.
    pub const HAND: u8 = 8;
    /// Left thigh.
    pub const THIGH: u8 = 10;
    /// Left shin.
    pub const SHIN: u8 = 12;
    /// Left foot.
    pub const FOOT: u8 = 14;
    /// A thing that is held or handled.
    pub const PROP: u8 = 16;
    /// A limb or finger that should not be.
    pub const EXTRA: u8 = 17;
    /// Furniture, trees and other things that stand still.
    pub const OBJECT: u8 = 18;
    /// One more than the largest number.
    pub const COUNT: u8 = 19;
    /// Whether a number belongs to the person's body.
    pub fn is_person(part: u8) -> bool {
        (TORSO..=FOOT + 1).contains(&part) || part == EXTRA
    }
}

/// Geometry in squashed bone coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// The convex hull of two balls.
    Cone { a: V3, ra: f32, b: V3, rb: f32 },
    /// A block of these half sizes about the origin.
    Block { half: V3 },
}

/// One thing to draw. A point `p` of the bone is at `(p − centre) / squash` in the shape's own coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Prim {
    pub joint: Joint,
    pub part: u8,
    pub material: Material,
    pub centre: V3,
    pub squash: V3,
    pub shape: Shape,
    /// Added to bone coordinates before a texture is looked up.
    pub texture: V3,
    /// Drawn as if it were nearer by so many metres.
    pub bias: f32,
    /// Not drawn; still counted for the anomaly's mask.
    pub ghost: bool,
}

const ROUND: V3 = v3(1.0, 1.0, 1.0);

/// Collects primitives.
pub(crate) struct Builder {
    pub prims: Vec<Prim>,
}

impl Builder {
    pub fn new() -> Builder {
        Builder {
            prims: Vec::with_capacity(128),
        }
    }

    fn push(&mut self, joint: Joint, part: u8, material: Material, squash: V3, shape: Shape) {
        self.prims.push(Prim {
            joint,
            part,
            material,
            centre: V3::ZERO,
            squash,
            shape,
            texture: V3::ZERO,
            bias: 0.0,
            ghost: false,
        });
    }

    /// A tapered capsule that is round.
    #[allow(clippy::too_many_arguments)]
    pub fn rod(
        &mut self,
        joint: Joint,
        part: u8,
        material: Material,
        a: V3,
        ra: f32,
        b: V3,
        rb: f32,
    ) {
        self.cone(joint, part, material, v3(1.0, 1.0, 1.0), a, ra, b, rb);
    }

    /// A tapered capsule, in the bone's coordinates where `squash` is round; else `a`, `b` are bone coordinates too.
    #[allow(clippy::too_many_arguments)]
    pub fn cone(
        &mut self,
        joint: Joint,
        part: u8,
        material: Material,
        squash: V3,
        a: V3,
        ra: f32,
        b: V3,
        rb: f32,
    ) {
        let inv = |p: V3| v3(p.x / squash.x, p.y / squash.y, p.z / squash.z);
        self.push(
            joint,
            part,
            material,
            squash,
            Shape::Cone {
                a: inv(a),
                ra,
                b: inv(b),
                rb,
            },
        );
    }

    pub fn ellipsoid(&mut self, joint: Joint, part: u8, material: Material, at: V3, radii: V3) {
        self.prims.push(Prim {
            joint,
            part,
            material,
            centre: at,
            squash: radii,
            shape: Shape::Cone {
                a: V3::ZERO,
                ra: 1.0,
                b: V3::ZERO,
                rb: 1.0,
            },
            texture: V3::ZERO,
            bias: 0.0,
            ghost: false,
        });
    }

    pub fn block(&mut self, joint: Joint, part: u8, material: Material, at: V3, half: V3) {
        self.prims.push(Prim {
            joint,
            part,
            material,
            centre: at,
            squash: ROUND,
            shape: Shape::Block { half },
            texture: V3::ZERO,
            bias: 0.0,
            ghost: false,
        });
    }

    fn last_texture(&mut self, texture: V3) {
        if let Some(p) = self.prims.last_mut() {
            p.texture = texture;
        }
    }
}
