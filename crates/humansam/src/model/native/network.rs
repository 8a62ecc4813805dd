//! The native network: a trunk of two branches that looks at single moments ([`trunk`]), what is observed at sixteen of them
//! ([`observation`](super::observation)), and two branches over time ([`temporal`]); trained from nothing on generated video.
//!
//! ```text
//! picture, luma before and after ─ trunk ─┬─ parts, depth, heat maps ─┐
//!                                         └─ 48 + 48 numbers ─────────┤
//! optical flow, residuals (priors) ───────────────────────────────────┴─ description of each part ─ over time ─┬─ v ─┐
//!                                                                                                              └─ d ─┴─ fusion
//! ```
//!
//! The structure branch takes the place of the paper's depth branch: it is taught depth and the parts of the body, and describes
//! each part by where it is, how large and how far. The appearance-motion branch looks at colours, changes and motion, of each
//! part and of the whole.

use std::collections::HashMap;

use candle_core::Tensor;

use super::observation::Observation;
use super::temporal::{self, Judged, TIME};
use super::trunk::{self, Moments};
use crate::error::Result;
use crate::model::weights::Layout;

/// Frames the network looks at.
pub const FRAMES: usize = 16;
/// Side of a frame, pixels.
pub const SIDE: usize = 96;
/// Side of the part and depth maps.
pub const PARTS_SIDE: usize = SIDE / 4;
/// Side of the heat maps.
pub const HEAT_SIDE: usize = SIDE / 8;
/// Parts besides the background: of the body, a held thing, and limbs or fingers too many (numbers of the generator's
/// [`part`](crate::generator::part), up to `EXTRA`).
pub const PARTS: usize = 17;
/// Background and parts.
pub const REGIONS: usize = 1 + PARTS;
/// Kinds of anomaly.
pub const KINDS: usize = 3;
/// Channels of an input pixel: R, G, B, and the luma of the frames before and after less its own.
pub const CHANNELS: usize = 5;
/// Width of the appearance-motion branch's feature: mean and maximum over time of 64 numbers, peak and mean of the time line.
pub const VIDEO_WIDTH: usize = 2 * TIME + 2 * KINDS;
/// Width of the structure branch's feature.
pub const DEPTH_WIDTH: usize = 2 * TIME;

/// Tensors of the trunk (`trunk.…`) and of the layers over time (`time.…`), without fusion.
pub fn layout() -> Layout {
    let mut l = Layout::default();
    l.nest("trunk.", &trunk::layout());
    l.nest("time.", &temporal::layout());
    l
}

/// Multiply-adds of one window.
pub fn mac() -> u64 {
    FRAMES as u64 * trunk::mac() + temporal::mac()
}

/// The network over named tensors.
#[derive(Clone, Debug)]
pub struct Network {
    tensors: HashMap<String, Tensor>,
    trunk: HashMap<String, Tensor>,
    time: HashMap<String, Tensor>,
}

impl Network {
    /// From tensors of [`layout`].
    pub fn new(tensors: HashMap<String, Tensor>) -> Self {
        let under = |prefix: &str| {
            tensors
                .iter()
                .filter_map(|(n, t)| Some((n.strip_prefix(prefix)?.to_owned(), t.clone())))
                .collect()
        };
        Self {
            trunk: under("trunk."),
            time: under("time."),
            tensors,
        }
    }

    /// Named tensors.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.tensors
    }

    /// What the trunk says about `pixels [N, SIDE, SIDE, CHANNELS]`.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn moments(&self, pixels: &Tensor) -> Result<Moments> {
        trunk::forward(&self.trunk, pixels)
    }

    /// What the layers over time say about windows.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn judge(&self, windows: &[&Observation]) -> Result<Judged> {
        let (described, moments) = Observation::tensors(windows)?;
        temporal::forward(&self.time, &described, &moments, None)
    }
}

/// Random tensors to start from.
///
/// # Errors
/// When tensors cannot be made.
pub fn initial(seed: u64) -> Result<HashMap<String, Tensor>> {
    let name = |prefix: &str, (n, t): (String, Tensor)| (format!("{prefix}{n}"), t);
    let mut out: HashMap<String, Tensor> = trunk::initial(seed)?
        .into_iter()
        .map(|x| name("trunk.", x))
        .collect();
    out.extend(
        temporal::initial(seed)?
            .into_iter()
            .map(|x| name("time.", x)),
    );
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::native::observation::{DESCRIPTION, MOMENT};
    use candle_core::{Device, Var};

    /// Every tensor but the fixed scaling has a gradient from these outputs.
    fn reached(vars: &HashMap<String, Var>, outputs: &[&Tensor]) {
        let total = outputs
            .iter()
            .map(|t| t.sqr().unwrap().mean_all().unwrap())
            .reduce(|a, b| (a + b).unwrap())
            .unwrap();
        let gradients = total.backward().unwrap();
        for (name, v) in vars
            .iter()
            .filter(|(n, _)| !n.ends_with("mean") && !n.ends_with("deviation"))
        {
            let g = gradients
                .get(v)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            let sum = g.abs().unwrap().sum_all().unwrap();
            assert!(sum.to_scalar::<f32>().unwrap() > 0.0, "{name}");
        }
    }

    fn variables(
        tensors: HashMap<String, Tensor>,
    ) -> (HashMap<String, Var>, HashMap<String, Tensor>) {
        let vars: HashMap<String, Var> = tensors
            .into_iter()
            .map(|(n, t)| (n, Var::from_tensor(&t).unwrap()))
            .collect();
        let tensors = vars
            .iter()
            .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
            .collect();
        (vars, tensors)
    }

    #[test]
    fn every_tensor_is_reached_by_a_gradient() {
        let (vars, tensors) = variables(trunk::initial(1).unwrap());
        let pixels = Tensor::rand(0f32, 1.0, (2, SIDE, SIDE, CHANNELS), &Device::Cpu).unwrap();
        let o = trunk::forward(&tensors, &pixels).unwrap();
        reached(&vars, &[&o.parts, &o.inverse_depth, &o.heat, &o.kinds]);

        let (vars, tensors) = variables(temporal::initial(1).unwrap());
        let rand = |shape: &[usize]| Tensor::rand(0f32, 1.0, shape, &Device::Cpu).unwrap();
        let o = temporal::forward(
            &tensors,
            &rand(&[2, FRAMES, REGIONS, DESCRIPTION]),
            &rand(&[2, FRAMES, MOMENT]),
            None,
        )
        .unwrap();
        assert_eq!(o.video.dims(), [2, VIDEO_WIDTH]);
        assert_eq!(o.depth.dims(), [2, DEPTH_WIDTH]);
        assert_eq!(o.timeline.dims(), [2, FRAMES, KINDS]);
        reached(&vars, &[&o.video, &o.depth, &o.timeline]);
        let parameters = layout().parameters();
        assert!(parameters < 1_500_000, "{parameters}");
        assert!((50_000_000..1_500_000_000).contains(&mac()), "{}", mac());
    }
}
