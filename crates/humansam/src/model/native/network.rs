//! The native network: two small branches over sixteen frames, trained from nothing on generated video.
//!
//! ```text
//!                        ┌─ appearance-motion: 3 convolutions ─ pooled ─────────────────────────────────── over time ─ v ─┐
//! frames 96² ─ stem 24² ─┤                                │ 12²                                                         ├─ fusion
//!                        └─ structure: 3 convolutions ─ parts and depth 24² ─ a description of each part ─ over time ─ d ─┘
//!                                                         │ 12²
//!                          heat map per kind of anomaly 12²; time line per kind from both branches' features
//!
//! A pixel is R, G, B and the change of luma from the frame before and to the frame after; the stem, two convolutions, serves
//! both branches.
//! ```
//!
//! The structure branch takes the place of the paper's depth branch: it is taught depth and the parts of the body, then
//! describes each of the 17 parts by where it is, how large, how far, of what colour and how much it changes. Anomalies of
//! motion are in how these move, anomalies of appearance in how their colours drift, anomalies of space in how they lie.

use std::collections::HashMap;

use candle_core::{D, Device, Tensor};

use super::conv::conv3;
use crate::error::Result;
use crate::model::backbone::vit::softmax;
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
/// Kinds of anomaly.
pub const KINDS: usize = 3;
/// Channels of an input pixel: R, G, B, and the luma of the frames before and after less its own.
pub const CHANNELS: usize = 5;
/// Width of each branch's feature: mean and maximum over time of 64 numbers, of the video branch also the peaks of the heat maps,
/// and peak and mean of the time line.
pub const VIDEO_WIDTH: usize = 2 * TIME + 3 * KINDS;
/// Width of the structure branch's feature.
pub const DEPTH_WIDTH: usize = 2 * TIME;

/// Width of the temporal layers.
const TIME: usize = 64;
/// Numbers that describe a part: x, y, spread, depth, R, G, B, change before, change after, area.
pub const DESCRIPTION: usize = 10;
/// Dilations of the temporal layers.
const DILATIONS: [isize; 3] = [1, 2, 4];

/// Names, inputs and outputs of the 3 × 3 convolutions, and their strides.
const CONVS: [(&str, usize, usize, usize); 8] = [
    ("stem.c1", CHANNELS, 16, 2),
    ("stem.c2", 16, 64, 2),
    ("motion.c3", 32, 48, 2),
    ("motion.c4", 48, 48, 1),
    ("motion.c5", 48, 64, 2),
    ("structure.c3", 32, 32, 1),
    ("structure.c4", 32, 64, 2),
    ("structure.c5", 64, 64, 1),
];

/// Tensors of the two branches and their heads, without fusion.
pub fn layout() -> Layout {
    let mut l = Layout::default();
    for (name, from, to, _) in CONVS {
        l.linear(name, &[to, 9 * from]);
    }
    l.linear("structure.up", &[32, 64]);
    l.linear("structure.maps", &[PARTS + 2, 32]);
    l.linear("heat", &[KINDS, 48 + 64]);
    l.linear("motion.in", &[TIME, 3 * 128]);
    l.linear("structure.in", &[TIME, 3 * PARTS * DESCRIPTION]);
    for branch in ["motion", "structure"] {
        for i in 0..DILATIONS.len() {
            l.linear(&format!("{branch}.t{i}"), &[TIME, 3 * TIME]);
        }
    }
    l.linear("timeline", &[KINDS, 2 * TIME]);
    l
}

/// Multiply-adds of one clip.
pub fn mac() -> u64 {
    let mut side = HashMap::from([
        ("stem", SIDE),
        ("motion", PARTS_SIDE),
        ("structure", PARTS_SIDE),
    ]);
    let mut sum = 0u64;
    for (name, from, to, stride) in CONVS {
        let branch = name.split('.').next().unwrap_or(name);
        let s = side[branch] / stride;
        side.insert(branch, s);
        sum += (s * s * 9 * from * to) as u64;
    }
    let maps = PARTS_SIDE * PARTS_SIDE * (32 * (PARTS + 2) + PARTS * DESCRIPTION)
        + HEAT_SIDE * HEAT_SIDE * (64 * 32 + 112 * KINDS);
    let time = 2 * 3 * 3 * TIME * TIME + 3 * TIME * (128 + PARTS * DESCRIPTION);
    FRAMES as u64 * (sum + (maps + time) as u64)
}

/// What the network says about a batch of `B` clips.
#[derive(Clone, Debug)]
pub struct Output {
    /// The appearance-motion branch's feature, `[B, VIDEO_WIDTH]`.
    pub video: Tensor,
    /// The structure branch's feature, `[B, DEPTH_WIDTH]`.
    pub depth: Tensor,
    /// Description of each part, `[B, FRAMES, PARTS · DESCRIPTION]`.
    pub described: Tensor,
    /// Logits per frame and kind of anomaly, `[B, FRAMES, KINDS]`.
    pub timeline: Tensor,
    /// Logits per frame, place and kind, `[B · FRAMES, HEAT_SIDE², KINDS]`.
    pub heat: Tensor,
    /// Logits per frame and place of background and parts, `[B · FRAMES, PARTS_SIDE², 1 + PARTS]`.
    pub parts: Tensor,
    /// Inverse depth (1 at one metre), `[B · FRAMES, PARTS_SIDE²]`.
    pub inverse_depth: Tensor,
}

/// The two branches over named tensors, which may be variables.
#[derive(Clone, Debug)]
pub struct Network {
    tensors: HashMap<String, Tensor>,
    positions: Tensor,
}

impl Network {
    /// From tensors of [`layout`].
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn new(tensors: HashMap<String, Tensor>) -> Result<Self> {
        let n = PARTS_SIDE;
        let at = |i: usize| (i as f32 + 0.5) / n as f32 * 2.0 - 1.0;
        let data: Vec<f32> = (0..n * n)
            .flat_map(|i| {
                let (x, y) = (at(i % n), at(i / n));
                [x, y, x * x + y * y]
            })
            .collect();
        Ok(Self {
            tensors,
            positions: Tensor::from_vec(data, (1, n * n, 3), &Device::Cpu)?,
        })
    }

    /// Named tensors.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.tensors
    }

    fn conv(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let stride = CONVS.iter().find(|c| c.0 == name).map_or(1, |c| c.3);
        let y = conv3(
            x,
            &self.tensors[&format!("{name}.weight")],
            &self.tensors[&format!("{name}.bias")],
            stride,
        )?;
        Ok(y.relu()?)
    }

    /// The last dimension through a matrix.
    fn map(&self, name: &str, x: &Tensor) -> Result<Tensor> {
        let (w, b) = (
            &self.tensors[&format!("{name}.weight")],
            &self.tensors[&format!("{name}.bias")],
        );
        let mut shape = x.dims().to_vec();
        let width = shape.pop().unwrap_or(1);
        let y = x.reshape(((), width))?.matmul(&w.t()?)?.broadcast_add(b)?;
        shape.push(w.dim(0)?);
        Ok(y.reshape(shape)?)
    }

    /// Residual layers over time, `[B, T, TIME]`; frames outside count as the nearest one.
    fn over_time(&self, branch: &str, x: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, d) in DILATIONS.into_iter().enumerate() {
            let joined = Tensor::cat(&[shifted(&x, -d)?, x.clone(), shifted(&x, d)?], 2)?;
            x = (&x + self.map(&format!("{branch}.t{i}"), &joined)?.relu()?)?;
        }
        Ok(x)
    }

    /// `pixels [B, FRAMES, SIDE, SIDE, CHANNELS]` as [`tensor`](super::input::tensor) makes them.
    ///
    /// # Errors
    /// When the shape does not fit.
    pub fn forward(&self, pixels: &Tensor) -> Result<Output> {
        let (b, t, h, w, _) = pixels.dims5()?;
        let n = b * t;
        let pixels = pixels.reshape((n, h, w, CHANNELS))?;
        let stem = self.conv("stem.c2", &self.conv("stem.c1", &pixels)?)?;

        // Appearance and motion.
        let x = stem.narrow(3, 0, 32)?;
        let m12 = self.conv("motion.c4", &self.conv("motion.c3", &x)?)?;
        let x = self.conv("motion.c5", &m12)?;
        let x = x.reshape((n, (), 64))?;
        let pooled = Tensor::cat(&[x.mean(1)?, x.max(1)?], 1)?.reshape((b, t, 128))?;
        let motion = self.over_time("motion", &self.map("motion.in", &with_changes(&pooled)?)?)?;

        // Parts and depth.
        let x = stem.narrow(3, 32, 32)?.contiguous()?;
        let s24 = (&x + self.conv("structure.c3", &x)?)?;
        let x = self.conv("structure.c4", &s24)?;
        let s12 = (&x + self.conv("structure.c5", &x)?)?;
        let up = double(&self.map("structure.up", &s12)?)?;
        let x = (s24 + up)?.relu()?;
        let places = PARTS_SIDE * PARTS_SIDE;
        let maps = self.map("structure.maps", &x.reshape((n, places, 32))?)?;
        let parts = maps.narrow(2, 0, PARTS + 1)?.contiguous()?;
        let inverse_depth = maps.narrow(2, PARTS + 1, 1)?.contiguous()?;
        let described =
            self.describe(&parts, &inverse_depth, &pixels)?
                .reshape((b, t, PARTS * DESCRIPTION))?;
        let structure = self.over_time(
            "structure",
            &self.map("structure.in", &with_changes(&described)?)?,
        )?;

        // Where, when, and the clip as a whole.
        let both = Tensor::cat(&[m12, s12], 3)?.reshape((n, HEAT_SIDE * HEAT_SIDE, 48 + 64))?;
        let heat = self.map("heat", &both)?;
        let peaks = heat
            .reshape((b, t * HEAT_SIDE * HEAT_SIDE, KINDS))?
            .max(1)?;
        let timeline = self.map("timeline", &Tensor::cat(&[&motion, &structure], 2)?)?;
        let whole =
            |x: &Tensor| -> Result<Tensor> { Ok(Tensor::cat(&[x.mean(1)?, x.max(1)?], 1)?) };
        Ok(Output {
            video: Tensor::cat(
                &[
                    whole(&motion)?,
                    (peaks * 0.3)?,
                    timeline.max(1)?,
                    timeline.mean(1)?,
                ],
                1,
            )?,
            depth: whole(&structure)?,
            described,
            timeline,
            heat,
            parts,
            inverse_depth: inverse_depth.squeeze(2)?,
        })
    }

    /// For each part: the mean, weighted by the part's probability, of position, squared distance from the middle, inverse
    /// depth, colour and change, and its area; `[N, PARTS, DESCRIPTION]`.
    fn describe(&self, parts: &Tensor, inverse_depth: &Tensor, pixels: &Tensor) -> Result<Tensor> {
        let (n, places, _) = parts.dims3()?;
        let p = softmax(parts)?.narrow(2, 1, PARTS)?;
        let k = SIDE / PARTS_SIDE;
        let small = |x: &Tensor| -> Result<Tensor> {
            let y = x
                .reshape((n, PARTS_SIDE, k, PARTS_SIDE, k, CHANNELS))?
                .mean(4)?
                .mean(2)?;
            Ok(y.reshape((n, places, CHANNELS))?)
        };
        let field = Tensor::cat(
            &[
                &self.positions.broadcast_as((n, places, 3))?.contiguous()?,
                inverse_depth,
                &small(pixels)?.narrow(2, 0, 3)?.contiguous()?,
                &small(&pixels.abs()?)?.narrow(2, 3, 2)?.contiguous()?,
            ],
            2,
        )?;
        let mass = p.sum(1)?.unsqueeze(2)?;
        let sums = p.transpose(1, 2)?.contiguous()?.matmul(&field)?;
        // A part that is not there is described by zeros rather than by noise.
        let means = sums.broadcast_div(&(&mass + 0.5)?)?;
        Ok(Tensor::cat(
            &[means, (mass * (8.0 / places as f64))?.sqrt()?],
            D::Minus1,
        )?)
    }
}

/// `[B, T, D]` to `[B, T, 3 D]`: beside each value how much it changes from frame to frame, `|x_t - x_{t-1}|`, and how
/// unevenly, `|x_{t+1} - 2 x_t + x_{t-1}|`; frames outside count as the nearest one.
fn with_changes(x: &Tensor) -> Result<Tensor> {
    let before = shifted(x, -1)?;
    let first = (x - &before)?;
    let second = ((shifted(x, 1)? - x)? - &first)?;
    Ok(Tensor::cat(
        &[x, &(first.abs()? * 2.0)?, &(second.abs()? * 2.0)?],
        2,
    )?)
}

/// `x_{t + by}` along the second dimension, frames outside replaced by the nearest one.
fn shifted(x: &Tensor, by: isize) -> Result<Tensor> {
    let t = x.dim(1)? as isize;
    let index: Vec<u32> = (0..t).map(|k| (k + by).clamp(0, t - 1) as u32).collect();
    Ok(x.index_select(&Tensor::new(index, x.device())?, 1)?)
}

/// `[N, H, W, C]` at twice the size, each value four times.
fn double(x: &Tensor) -> Result<Tensor> {
    let (n, h, w, c) = x.dims4()?;
    let y = x
        .reshape((n, h, 1, w, 1, c))?
        .broadcast_as((n, h, 2, w, 2, c))?;
    Ok(y.reshape((n, 2 * h, 2 * w, c))?)
}

/// Random tensors to start from: He's initialisation, the last layers small.
pub fn initial(seed: u64) -> Result<HashMap<String, Tensor>> {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};
    let mut out = HashMap::new();
    for (i, (name, shape)) in layout().tensors().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(i as u64);
        let count: usize = shape.iter().product();
        let tensor = if shape.len() == 1 {
            // Anomalies are rare in place and time: start from "none".
            let start = if name == "heat.bias" {
                -4.0
            } else if name == "timeline.bias" {
                -1.5
            } else {
                0.0f32
            };
            Tensor::full(start, shape, &Device::Cpu)?
        } else {
            let small = match name {
                "heat.weight" | "timeline.weight" | "structure.maps.weight" => 0.3,
                n if n.contains(".t") => 0.5,
                _ => 1.0,
            };
            let spread = small * (6.0 / shape[1] as f64).sqrt();
            let data: Vec<f32> = (0..count)
                .map(|_| {
                    (spread * (2.0 * f64::from(rng.next_u32()) / f64::from(u32::MAX) - 1.0)) as f32
                })
                .collect();
            Tensor::from_vec(data, shape, &Device::Cpu)?
        };
        out.insert(name.to_owned(), tensor);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tensor_is_reached_by_a_gradient() {
        let vars: HashMap<String, candle_core::Var> = initial(1)
            .unwrap()
            .into_iter()
            .map(|(n, t)| (n, candle_core::Var::from_tensor(&t).unwrap()))
            .collect();
        let net = Network::new(
            vars.iter()
                .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
                .collect(),
        )
        .unwrap();
        let pixels =
            Tensor::rand(0f32, 1.0, (1, FRAMES, SIDE, SIDE, CHANNELS), &Device::Cpu).unwrap();
        let o = net.forward(&pixels).unwrap();
        assert_eq!(o.video.dims(), [1, VIDEO_WIDTH]);
        assert_eq!(o.depth.dims(), [1, DEPTH_WIDTH]);
        assert_eq!(o.timeline.dims(), [1, FRAMES, KINDS]);
        let total = [
            &o.video,
            &o.depth,
            &o.timeline,
            &o.heat,
            &o.parts,
            &o.inverse_depth,
        ]
        .iter()
        .map(|t| t.sqr().unwrap().mean_all().unwrap())
        .reduce(|a, b| (a + b).unwrap())
        .unwrap();
        let gradients = total.backward().unwrap();
        for (name, v) in &vars {
            let g = gradients
                .get(v)
                .unwrap_or_else(|| panic!("{name} has no gradient"));
            assert!(
                g.abs()
                    .unwrap()
                    .sum_all()
                    .unwrap()
                    .to_scalar::<f32>()
                    .unwrap()
                    > 0.0,
                "{name}"
            );
        }
        let parameters = layout().parameters();
        assert!(parameters < 1_000_000, "{parameters}");
        assert!((50_000_000..1_000_000_000).contains(&mac()), "{}", mac());
    }
}
