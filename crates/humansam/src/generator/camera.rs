//! The camera: framing, height, following, and an unsteady hand.

use serde::{Deserialize, Serialize};

use super::body::Body;
use super::math::{V3, v3};
use super::raster::View;
use super::rng::{Rng, drift};

/// How much of the person is in the picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Framing {
    /// Head to feet.
    Full,
    /// Head to knees.
    Medium,
    /// Head to waist.
    Close,
}

/// One camera.
#[derive(Clone, Debug)]
pub(crate) struct Camera {
    pub framing: Framing,
    azimuth: f32,
    elevation: f32,
    distance: f32,
    /// Height looked at, and metres from the lower to the upper edge there.
    aim: f32,
    cover: f32,
    orbit: f32,
    zoom: f32,
    shake: f32,
    seed: u32,
    offset: f32,
}

impl Camera {
    pub fn draw(
        rng: &mut Rng,
        body: &Body,
        heading: f32,
        framing: Option<Framing>,
        shake: f32,
    ) -> Camera {
        let drawn = rng.pick(&[
            Framing::Full,
            Framing::Full,
            Framing::Medium,
            Framing::Medium,
            Framing::Close,
        ]);
        let framing = framing.unwrap_or(drawn);
        let h = body.height;
        let (aim, cover) = match framing {
            Framing::Full => (0.51 * h, rng.range(1.16, 1.36) * h),
            Framing::Medium => (0.70 * h, rng.range(0.78, 0.92) * h),
            Framing::Close => (0.79 * h, rng.range(0.52, 0.62) * h),
        };
        Camera {
            framing,
            azimuth: heading * 0.6 + rng.range(-0.55, 0.55),
            elevation: rng.range(-0.02, 0.16),
            distance: rng.range(2.6, 4.2),
            aim,
            cover,
            orbit: rng.range(-0.06, 0.06) * shake,
            zoom: rng.range(-0.03, 0.03) * shake,
            shake: rng.range(0.1, 1.0) * shake,
            seed: rng.u64() as u32,
            offset: rng.range(-0.08, 0.08),
        }
    }

    /// The rays at time `t` for a person who is at `place` on the ground.
    pub fn view(&self, width: usize, height: usize, place: V3, t: f32) -> View {
        let azimuth = self.azimuth + self.orbit * t;
        let away = v3(
            azimuth.sin() * self.elevation.cos(),
            self.elevation.sin(),
            azimuth.cos() * self.elevation.cos(),
        );
        // The hand lags and trembles; both are smooth.
        let k = self.seed;
        let unsteady =
            |i: u32| drift(t, 0.6, k ^ (7 * i)) * 0.008 + drift(t, 3.0, k ^ (13 * i + 1)) * 0.0022;
        let aim = v3(place.x + self.offset * self.cover, self.aim, place.z)
            + v3(unsteady(1), unsteady(2), 0.0) * (self.shake * self.distance);
        let eye =
            aim + away * self.distance + v3(unsteady(3), unsteady(4), unsteady(5)) * self.shake;
        let eye = v3(eye.x, eye.y.max(0.15), eye.z);
        let roll = unsteady(6) * self.shake * 1.2;
        // A tall picture must not cut off the person's sides: at least 62 % of the covered height is the covered width.
        let aspect = width as f32 / height as f32;
        let cover = self.cover.max(0.62 * self.cover / aspect) * (1.0 + self.zoom * t);
        View::pinhole(
            width,
            height,
            eye,
            aim - eye,
            roll,
            height as f32 * self.distance / cover,
        )
    }
}
