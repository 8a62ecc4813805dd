//! Optical flow: for every pixel of a frame, where it is in the next.

use crate::clip::Plane;

/// A flow field. The pixel at `(x, y)` is at `(x + u, y + v)` in the next frame; pixels.
#[derive(Clone, Debug, PartialEq)]
pub struct Flow {
    /// To the right.
    pub u: Plane,
    /// Downwards.
    pub v: Plane,
}

impl Flow {
    /// No motion.
    pub fn still(width: usize, height: usize) -> Flow {
        Flow {
            u: Plane::filled(width, height, 0.0),
            v: Plane::filled(width, height, 0.0),
        }
    }
}
