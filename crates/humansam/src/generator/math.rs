//! Vectors and rotations of three dimensions, in `f32` metres and radians.
//!
//! `x` is the left of a person who faces `+z`; `y` is up; the ground is `y = 0`.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A point or direction.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub(crate) struct V3 {
    pub x: f32,
    pub y: f32,
    pub z: f32,
}

/// Shorthand for a [`V3`].
pub(crate) const fn v3(x: f32, y: f32, z: f32) -> V3 {
    V3 { x, y, z }
}

impl V3 {
    pub const ZERO: V3 = v3(0.0, 0.0, 0.0);
    pub const X: V3 = v3(1.0, 0.0, 0.0);
    pub const Y: V3 = v3(0.0, 1.0, 0.0);
    pub const Z: V3 = v3(0.0, 0.0, 1.0);

    #[inline]
    pub fn dot(self, o: V3) -> f32 {
        self.x * o.x + self.y * o.y + self.z * o.z
    }
    #[inline]
    pub fn cross(self, o: V3) -> V3 {
        v3(
            self.y * o.z - self.z * o.y,
            self.z * o.x - self.x * o.z,
            self.x * o.y - self.y * o.x,
        )
    }
    #[inline]
    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }
    /// The direction; `+y` where there is none.
    #[inline]
    pub fn unit(self) -> V3 {
        let l = self.length();
        if l > 1e-12 { self * (1.0 / l) } else { V3::Y }
    }
    #[inline]
    pub fn scale(self, o: V3) -> V3 {
        v3(self.x * o.x, self.y * o.y, self.z * o.z)
    }
    #[inline]
    pub fn lerp(self, o: V3, t: f32) -> V3 {
        self + (o - self) * t
    }
    /// What is left of `self` when its share along the unit vector `axis` is taken away.
    #[inline]
    pub fn without(self, axis: V3) -> V3 {
        self - axis * self.dot(axis)
    }
}

impl Add for V3 {
    type Output = V3;
    #[inline]
    fn add(self, o: V3) -> V3 {
        v3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}
impl AddAssign for V3 {
    #[inline]
    fn add_assign(&mut self, o: V3) {
        *self = *self + o;
    }
}
impl Sub for V3 {
    type Output = V3;
    #[inline]
    fn sub(self, o: V3) -> V3 {
        v3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}
impl Neg for V3 {
    type Output = V3;
    #[inline]
    fn neg(self) -> V3 {
        v3(-self.x, -self.y, -self.z)
    }
}
impl Mul<f32> for V3 {
    type Output = V3;
    #[inline]
    fn mul(self, s: f32) -> V3 {
        v3(self.x * s, self.y * s, self.z * s)
    }
}

/// A 3×3 matrix by its columns; for rotations, the images of the axes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct M3 {
    pub x: V3,
    pub y: V3,
    pub z: V3,
}

impl M3 {
    pub const ONE: M3 = M3 {
        x: V3::X,
        y: V3::Y,
        z: V3::Z,
    };

    /// Rotation about `x`: `y` turns towards `z`.
    pub fn turn_x(a: f32) -> M3 {
        let (s, c) = a.sin_cos();
        M3 {
            x: V3::X,
            y: v3(0.0, c, s),
            z: v3(0.0, -s, c),
        }
    }
    /// Rotation about `y`: `z` turns towards `x`.
    pub fn turn_y(a: f32) -> M3 {
        let (s, c) = a.sin_cos();
        M3 {
            x: v3(c, 0.0, -s),
            y: V3::Y,
            z: v3(s, 0.0, c),
        }
    }
    /// Rotation about `z`: `x` turns towards `y`.
    pub fn turn_z(a: f32) -> M3 {
        let (s, c) = a.sin_cos();
        M3 {
            x: v3(c, s, 0.0),
            y: v3(-s, c, 0.0),
            z: V3::Z,
        }
    }
    /// Yaw, then pitch, then roll of a part: `R_y · R_x · R_z`.
    pub fn euler(pitch: f32, yaw: f32, roll: f32) -> M3 {
        M3::turn_y(yaw) * M3::turn_x(pitch) * M3::turn_z(roll)
    }
    /// Axes with `y` along `along` and `z` as near to `front` as that allows.
    pub fn along(along: V3, front: V3) -> M3 {
        let y = along.unit();
        let mut z = front.without(y);
        if z.length() < 1e-4 {
            z = if y.x.abs() < 0.9 { V3::X } else { V3::Z }.without(y);
        }
        let z = z.unit();
        M3 {
            x: y.cross(z),
            y,
            z,
        }
    }
    pub fn transposed(self) -> M3 {
        M3 {
            x: v3(self.x.x, self.y.x, self.z.x),
            y: v3(self.x.y, self.y.y, self.z.y),
            z: v3(self.x.z, self.y.z, self.z.z),
        }
    }
}

impl Mul<V3> for M3 {
    type Output = V3;
    #[inline]
    fn mul(self, v: V3) -> V3 {
        self.x * v.x + self.y * v.y + self.z * v.z
    }
}
impl Mul for M3 {
    type Output = M3;
    fn mul(self, o: M3) -> M3 {
        M3 {
            x: self * o.x,
            y: self * o.y,
            z: self * o.z,
        }
    }
}

/// `3 t² − 2 t³` between `a` and `b`, 0 before and 1 after.
#[inline]
pub(crate) fn smoothstep(a: f32, b: f32, t: f32) -> f32 {
    let t = ((t - a) / (b - a)).clamp(0.0, 1.0);
    t * t * (3.0 - 2.0 * t)
}

#[inline]
pub(crate) fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

/// Where the middle joint of a two-bone chain lies: the bones have lengths `upper` and `lower`, the chain starts at `root`, tries to end at
/// `target` and bends towards `pole`. Returns middle and end; a target out of reach leaves the chain nearly straight.
pub(crate) fn two_bones(root: V3, target: V3, pole: V3, upper: f32, lower: f32) -> (V3, V3) {
    let to = target - root;
    let reach = (upper + lower) * 0.9995;
    let distance = to
        .length()
        .clamp((upper - lower).abs() * 1.02 + 1e-3, reach);
    let axis = to.unit();
    let along = (upper * upper - lower * lower + distance * distance) / (2.0 * distance);
    let out = (upper * upper - along * along).max(0.0).sqrt();
    let side = pole.without(axis);
    let side = if side.length() > 1e-5 {
        side.unit()
    } else {
        M3::along(axis, V3::Z).z
    };
    (root + axis * along + side * out, root + axis * distance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn close(a: V3, b: V3) -> bool {
        (a - b).length() < 1e-4
    }

    #[test]
    fn rotations_turn_the_way_they_say() {
        let q = std::f32::consts::FRAC_PI_2;
        assert!(close(M3::turn_x(q) * V3::Y, V3::Z));
        assert!(close(M3::turn_y(q) * V3::Z, V3::X));
        assert!(close(M3::turn_z(q) * V3::X, V3::Y));
    }

    proptest! {
        #[test]
        fn axes_are_orthonormal(a in -3.0f32..3.0, b in -3.0f32..3.0, c in -3.0f32..3.0, f in -1.0f32..1.0) {
            for m in [M3::euler(a, b, c), M3::along(v3(a, b, c + 0.01), v3(f, 1.0 - f, 0.3))] {
                let one = m * m.transposed();
                prop_assert!(close(one.x, V3::X) && close(one.y, V3::Y) && close(one.z, V3::Z));
                prop_assert!(close(m.x.cross(m.y), m.z));
            }
        }

        #[test]
        fn chains_keep_their_lengths(x in -1.0f32..1.0, y in -1.0f32..1.0, z in -1.0f32..1.0, u in 0.2f32..0.5, l in 0.2f32..0.5) {
            let (mid, end) = two_bones(V3::ZERO, v3(x, y, z), V3::Z, u, l);
            prop_assert!((mid.length() - u).abs() < 2e-3);
            prop_assert!(((end - mid).length() - l).abs() < 2e-3);
            if v3(x, y, z).length() < (u + l) * 0.99 && v3(x, y, z).length() > (u - l).abs() * 1.1 + 0.01 {
                prop_assert!(close(end, v3(x, y, z)));
            }
        }
    }
}
