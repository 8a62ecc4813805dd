//! A deterministic generator of videos of humans, real (in its own world) or spoiled by a known anomaly.
//!
//! ```text
//!  seed ─┬─ body, look ──────────────┐
//!        ├─ motion ── pose(t) ─ bones ├─ primitives ─ rasteriser ─ light ─┬─ sensor ─► clip
//!        ├─ scene, camera ───────────┘                                    └──────────► depth, parts, flow, mask
//!        └─ anomaly: changes time, body, pose, flesh, look or picture
//! ```
//!
//! Every box draws from a random stream of its own, so the same seed with and without an operator gives a *counterfactual pair*: two
//! clips that differ in the anomaly and in nothing else. What a camera and an encoder do (frame rate, noise, blur, block losses, shake) is drawn
//! without looking at the class.
//!
//! ```
//! use tacit_humansam::{Class, generator::{self, Spec}};
//! let spec = Spec { class: Class::Spatial, width: 64, height: 64, frames: 4, ..Spec::new(7) };
//! let forged = generator::sample(&spec).unwrap();
//! let real = generator::sample(&spec.twin()).unwrap();
//! assert_eq!(forged.clip.frames.len(), 4);
//! assert_ne!(forged.clip, real.clip);
//! assert!(forged.anomaly.is_some() && real.anomaly.is_none());
//! ```

mod anomaly;
mod body;
mod camera;
mod demo;
mod flesh;
mod material;
mod math;
mod motion;
mod operator;
mod performance;
mod raster;
mod render;
mod rng;
mod save;
mod scene;
mod sensor;
mod skeleton;

pub use camera::Framing;
pub use demo::demo;
pub use flesh::part;
pub use motion::Action;
pub use operator::Operator;
pub use performance::{sample, sample_frames};
pub use save::{Encoding, SIDECAR_FORMAT, Sidecar, bounding_box, drawn_crf, read_sidecar, save};
pub use scene::Setting;
pub(crate) use sensor::block_losses;

use serde::{Deserialize, Serialize};

use crate::class::Class;
use crate::clip::{Clip, Plane};
use crate::flow::Flow;

/// Which part of a set may be drawn from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// What training sees.
    Seen,
    /// What training never sees.
    HeldOut,
    /// Everything.
    #[default]
    All,
}

impl Pool {
    fn admits(self, held_out: bool) -> bool {
        match self {
            Pool::Seen => !held_out,
            Pool::HeldOut => held_out,
            Pool::All => true,
        }
    }
}

/// What clip to make. Everything that is not said is drawn from the seed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// Decides everything. Other seeds are other people, movements, places and cameras.
    pub seed: u64,
    /// What is to be wrong.
    pub class: Class,
    /// By which operator; it must be of `class`. `None` draws one that can be seen in this scene.
    pub operator: Option<Operator>,
    /// In `[0, 1]`; `None` draws from `[0.5, 1]`.
    pub severity: Option<f32>,
    /// Share of the picture that a drawn operator has to change to the eye, on average over its span: what hardly a pixel shows, nobody
    /// can find.
    #[serde(default)]
    pub shown: f32,
    /// Actions to draw from.
    pub actions: Pool,
    /// Surroundings to draw from.
    pub settings: Pool,
    /// Operator families to draw from.
    pub operators: Pool,
    /// A given action.
    pub action: Option<Action>,
    /// A given surrounding.
    pub setting: Option<Setting>,
    /// A given framing.
    pub framing: Option<Framing>,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Number of frames.
    pub frames: usize,
    /// Frames a second; `None` draws from the usual rates.
    pub fps: Option<f64>,
    /// Rays a pixel in each direction.
    pub supersample: usize,
    /// Strength of noise, blur, block losses and shake: 0 none, 1 what phones and encoders do.
    pub nuisance: f32,
    /// Whether depth, parts, flow and mask are wanted too.
    pub maps: bool,
    /// Leaves the person and what is held out of the picture; only of real clips.
    #[serde(default)]
    pub nobody: bool,
}

impl Spec {
    /// A real clip of 128×128 pixels with 16 frames.
    pub fn new(seed: u64) -> Spec {
        Spec {
            seed,
            class: Class::Real,
            operator: None,
            severity: None,
            shown: 0.012,
            actions: Pool::All,
            settings: Pool::All,
            operators: Pool::All,
            action: None,
            setting: None,
            framing: None,
            width: 128,
            height: 128,
            frames: 16,
            fps: None,
            supersample: 2,
            nuisance: 1.0,
            maps: false,
            nobody: false,
        }
    }

    /// The same clip without its anomaly.
    pub fn twin(&self) -> Spec {
        Spec {
            class: Class::Real,
            operator: None,
            ..self.clone()
        }
    }
}

/// The anomaly of a clip.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AnomalyRecord {
    /// The operator.
    pub operator: Operator,
    /// Its family.
    pub family: String,
    /// In `[0, 1]`.
    pub severity: f32,
    /// First frame at which something is wrong.
    pub first_frame: usize,
    /// Last frame at which something is wrong.
    pub last_frame: usize,
}

/// What was drawn for a clip, without its anomaly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SceneRecord {
    /// What the person does.
    pub action: Action,
    /// Where.
    pub setting: Setting,
    /// How much of the person is in the picture.
    pub framing: Framing,
    /// Deviation of the noise in steps of 1/255.
    pub noise: f32,
    /// Deviation of the lens blur in pixels.
    pub blur: f32,
    /// Quality of the block losses, 1 to 100.
    pub quality: f32,
}

/// A generated clip with all that is known about it.
#[derive(Clone, Debug)]
pub struct Rendered {
    /// The frames.
    pub clip: Clip,
    /// What is wrong.
    pub class: Class,
    /// How; `None` for real clips.
    pub anomaly: Option<AnomalyRecord>,
    /// Where and what.
    pub scene: SceneRecord,
    /// Distance along the camera's axis in metres, a plane a frame; empty without [`Spec::maps`].
    pub depth: Vec<Plane>,
    /// Number of the part ([`part`]) in the middle of each pixel; empty without [`Spec::maps`].
    pub parts: Vec<Vec<u8>>,
    /// True motion of each pixel to the next frame (one field less than frames); empty without [`Spec::maps`].
    pub flow: Vec<Flow>,
    /// 1 where something is wrong, else 0; empty without [`Spec::maps`], all 0 for real clips.
    pub mask: Vec<Plane>,
}
