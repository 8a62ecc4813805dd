//! Videos of humans: real or forged, and by what anomaly.
//!
//! ```text
//!  generator ─┐
//!             ├─► clip ─► flow ─► priors ─► …
//!  video ─────┘
//! ```
//!
//! [`clip`] holds the frames every other part works on; [`class`] the four answers.
#![forbid(unsafe_code)]

pub mod class;
pub mod clip;
pub mod error;
pub mod flow;
pub mod generator;
pub mod model;
pub mod priors;
pub mod provenance;
pub mod repeats;
pub mod report;
pub mod video;

pub use class::Class;
pub use clip::{Clip, Frame, Plane};
pub use error::HumansamError;
