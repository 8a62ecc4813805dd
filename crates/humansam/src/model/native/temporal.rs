//! The part of the native network that looks at the sixteen moments together, through what was observed at each.
//!
//! ```text
//! appearance-motion   a description of each part (colour, change, flow, residuals) and its changes ─ one small network for all parts
//!                     ─ over time ─ mean and largest over the parts ─┐
//!                     the trunk's 48 numbers, curves of the priors ──┴─ over time ─ mean and largest ─ v
//! structure           place, depth and size of each part and their changes, the trunk's 48 numbers ─ over time ─ mean and largest ─ d
//! ```
//!
//! All parts pass through the same small network, so that a drift of colour learned on shirts is known on hair.

use std::collections::HashMap;

use candle_core::{D, DType, Tensor};

use super::layers::{Tensors, map, over_time, with_changes};
use super::network::{DEPTH_WIDTH, FRAMES, KINDS, REGIONS, VIDEO_WIDTH};
use super::observation::{DESCRIPTION, MOMENT, PLACE};
use super::trunk::{EMBEDDING, initial_of};
use crate::error::Result;
use crate::model::weights::Layout;

/// Width of the layers over time.
pub(super) const TIME: usize = 64;
/// Width of the network that all parts share.
const PART: usize = 40;
/// Dilations of its layers, and of those of the whole.
const OF_PART: [isize; 2] = [1, 3];
const OF_WHOLE: [isize; 3] = [1, 2, 4];
/// Channels of a part that the appearance-motion branch looks at: all but its place, with the changes of each.
const LOOKS: usize = DESCRIPTION - PLACE;
/// Numbers of a moment beside the structure branch's.
const OTHERS: usize = MOMENT - EMBEDDING;
/// Places, depths and sizes of all regions.
const LAYOUT: usize = REGIONS * (PLACE + 1);

/// Its tensors.
pub fn layout() -> Layout {
    let mut l = Layout::default();
    for (name, width) in [("observed", DESCRIPTION), ("moments", MOMENT)] {
        for n in ["mean", "deviation"] {
            l.add(format!("{name}.{n}"), &[width]);
        }
    }
    l.linear("parts.in", &[PART, 3 * LOOKS + REGIONS]);
    for i in 0..OF_PART.len() {
        l.linear(&format!("parts.t{i}"), &[PART, 3 * PART]);
    }
    l.linear("video.in", &[TIME, 2 * PART + 3 * OTHERS]);
    l.linear("layout.in", &[TIME, 3 * LAYOUT + EMBEDDING]);
    for branch in ["video", "layout"] {
        for i in 0..OF_WHOLE.len() {
            l.linear(&format!("{branch}.t{i}"), &[TIME, 3 * TIME]);
        }
    }
    l.linear("timeline", &[KINDS, 2 * TIME]);
    l
}

/// Multiply-adds of one clip.
pub fn mac() -> u64 {
    let parts = REGIONS * (PART * (3 * LOOKS + REGIONS) + OF_PART.len() * 3 * PART * PART);
    let whole = TIME * (2 * PART + 3 * OTHERS + 3 * LAYOUT + EMBEDDING)
        + 2 * OF_WHOLE.len() * 3 * TIME * TIME
        + 2 * TIME * KINDS;
    (FRAMES * (parts + whole)) as u64
}

/// What is said about `B` clips.
#[derive(Clone, Debug)]
pub struct Judged {
    /// The appearance-motion branch's feature, `[B, VIDEO_WIDTH]`.
    pub video: Tensor,
    /// The structure branch's feature, `[B, DEPTH_WIDTH]`.
    pub depth: Tensor,
    /// Logits per frame and kind of anomaly, `[B, FRAMES, KINDS]`.
    pub timeline: Tensor,
}

/// Shares of the inputs that are left out at random while training; `None` otherwise.
pub type Dropout<'a> = Option<&'a dyn Fn(&Tensor) -> Result<Tensor>>;

/// `described [B, FRAMES, REGIONS, DESCRIPTION]`, `moments [B, FRAMES, MOMENT]`.
///
/// # Errors
/// When a shape does not fit.
pub fn forward(
    t: &Tensors,
    described: &Tensor,
    moments: &Tensor,
    dropout: Dropout,
) -> Result<Judged> {
    let (b, f, r, _) = described.dims4()?;
    let drop = |x: Tensor| dropout.map_or(Ok(x.clone()), |d| d(&x));
    let scaled = |x: &Tensor, name: &str| -> Result<Tensor> {
        Ok(x.broadcast_sub(&t[&format!("{name}.mean")])?
            .broadcast_div(&t[&format!("{name}.deviation")])?
            .clamp(-6.0, 6.0)?)
    };
    let area = described.narrow(3, DESCRIPTION - 1, 1)?;
    // A part that is hardly seen says little.
    let seen = (area * 8.0)?.clamp(0.0, 1.0)?;
    let scaled_parts = scaled(described, "observed")?.broadcast_mul(&seen)?;
    let moments = scaled(moments, "moments")?;

    // One network for all parts, over time.
    let by_part = |x: &Tensor| -> Result<Tensor> {
        let c = x.dim(D::Minus1)?;
        Ok(x.transpose(1, 2)?.contiguous()?.reshape((b * r, f, c))?)
    };
    let looks = with_changes(&by_part(&scaled_parts.narrow(3, PLACE, LOOKS)?)?)?;
    let which = Tensor::eye(r, DType::F32, described.device())?
        .reshape((1, r, 1, r))?
        .broadcast_as((b, r, f, r))?
        .reshape((b * r, f, r))?;
    let x = drop(Tensor::cat(&[&looks, &which], 2)?)?;
    let x = map(t, "parts.in", &x)?.relu()?;
    let x = over_time(t, "parts", &OF_PART, &x)?;
    let x = x
        .broadcast_mul(&by_part(&seen)?)?
        .reshape((b, r, f, PART))?;
    let parts = Tensor::cat(&[x.mean(1)?, x.max(1)?], 2)?;

    // The clip as a whole.
    let others = with_changes(&moments.narrow(2, 0, OTHERS)?.contiguous()?)?;
    let x = drop(Tensor::cat(&[parts, others], 2)?)?;
    let video = over_time(t, "video", &OF_WHOLE, &map(t, "video.in", &x)?.relu()?)?;

    let places = Tensor::cat(
        &[
            scaled_parts.narrow(3, 0, PLACE)?,
            scaled_parts.narrow(3, DESCRIPTION - 1, 1)?,
        ],
        3,
    )?
    .reshape((b, f, LAYOUT))?;
    let structure = moments.narrow(2, OTHERS, EMBEDDING)?;
    let x = drop(Tensor::cat(
        &[with_changes(&places)?, structure.contiguous()?],
        2,
    )?)?;
    let layout = over_time(t, "layout", &OF_WHOLE, &map(t, "layout.in", &x)?.relu()?)?;

    let timeline = map(t, "timeline", &Tensor::cat(&[&video, &layout], 2)?)?;
    let whole = |x: &Tensor| -> Result<Tensor> { Ok(Tensor::cat(&[x.mean(1)?, x.max(1)?], 1)?) };
    let video = Tensor::cat(&[whole(&video)?, timeline.max(1)?, timeline.mean(1)?], 1)?;
    debug_assert_eq!(video.dims(), [b, VIDEO_WIDTH]);
    let depth = whole(&layout)?;
    debug_assert_eq!(depth.dims(), [b, DEPTH_WIDTH]);
    Ok(Judged {
        video,
        depth,
        timeline,
    })
}

/// Random tensors to start from.
///
/// # Errors
/// When tensors cannot be made.
pub fn initial(seed: u64) -> Result<HashMap<String, Tensor>> {
    initial_of(&layout(), seed ^ 0x7e3, |name| match name {
        "observed.deviation" | "moments.deviation" => Some(1.0),
        "timeline.bias" => Some(-1.5),
        "timeline.weight" => Some(0.3),
        n if n.ends_with(".weight") && n.contains(".t") => Some(0.5),
        _ => None,
    })
}
