//! The part of the native network that looks at single moments: a picture and the luma of the frames before and after it.
//!
//! ```text
//!                 ┌─ appearance-motion: 12² ─ 6² ─ 48 numbers ─┐
//! 96² ─ stem 24² ─┤           │ 12²                            ├─ which kind of anomaly shows at this moment
//!                 │           └──────────┬─ heat map 12² a kind │
//!                 │           ┌──────────┘                     │
//!                 └─ structure: 24² ─ 12² ─ 6² ─ 48 numbers ───┘
//!                                └─ up again ─ parts of the body and depth, 24²
//! ```
//!
//! A pixel is R, G, B and the change of luma from the frame before and to the frame after.

use std::collections::HashMap;

use candle_core::{Device, Tensor};

use super::layers::{Tensors, conv, double, map, pooled};
use super::network::{CHANNELS, HEAT_SIDE, KINDS, PARTS, PARTS_SIDE, SIDE};
use crate::error::Result;
use crate::model::weights::Layout;

/// Numbers that each branch says about a moment.
pub const EMBEDDING: usize = 48;

/// Names, inputs and outputs of the 3 × 3 convolutions, their strides and the side of their output.
const CONVS: [(&str, usize, usize, usize, usize); 12] = [
    ("stem.c1", CHANNELS, 24, 2, SIDE / 2),
    ("stem.c2", 24, 64, 2, SIDE / 4),
    ("motion.c3", 32, 64, 2, SIDE / 8),
    ("motion.c4", 64, 64, 1, SIDE / 8),
    ("motion.c5", 64, 96, 2, SIDE / 16),
    ("motion.c6", 96, 96, 1, SIDE / 16),
    ("structure.c3", 32, 32, 1, SIDE / 4),
    ("structure.c4", 32, 64, 2, SIDE / 8),
    ("structure.c5", 64, 64, 1, SIDE / 8),
    ("structure.c6", 64, 96, 2, SIDE / 16),
    ("structure.c7", 96, 96, 1, SIDE / 16),
    ("structure.c8", 32, 32, 1, SIDE / 4),
];

/// Its tensors.
pub fn layout() -> Layout {
    let mut l = Layout::default();
    for (name, from, to, _, _) in CONVS {
        l.linear(name, &[to, 9 * from]);
    }
    l.linear("structure.up6", &[64, 96]);
    l.linear("structure.up12", &[32, 64]);
    l.linear("structure.maps", &[PARTS + 2, 32]);
    l.linear("motion.up6", &[64, 96]);
    l.linear("heat.in", &[48, 128]);
    l.linear("heat.out", &[KINDS, 48]);
    l.linear("motion.moment", &[EMBEDDING, 192]);
    l.linear("structure.moment", &[EMBEDDING, 192]);
    l.linear("moment", &[KINDS, 2 * EMBEDDING]);
    l
}

/// Multiply-adds of one moment.
pub fn mac() -> u64 {
    let convs: usize = CONVS
        .iter()
        .map(|&(_, from, to, _, side)| side * side * 9 * from * to)
        .sum();
    let (large, middle, small) = (SIDE * SIDE / 16, SIDE * SIDE / 64, SIDE * SIDE / 256);
    let maps = large * 32 * (PARTS + 2)
        + middle * (64 * 32 + 128 * 48 + 48 * KINDS)
        + small * 2 * 96 * 64
        + 2 * 192 * EMBEDDING;
    (convs + maps) as u64
}

/// What the trunk says about `N` moments.
#[derive(Clone, Debug)]
pub struct Moments {
    /// Logits per place of background and parts, `[N, PARTS_SIDE², 1 + PARTS]`.
    pub parts: Tensor,
    /// Inverse depth (1 at one metre), `[N, PARTS_SIDE²]`.
    pub inverse_depth: Tensor,
    /// Logits per place and kind of anomaly, `[N, HEAT_SIDE², KINDS]`.
    pub heat: Tensor,
    /// The appearance-motion branch's numbers, `[N, EMBEDDING]`.
    pub motion: Tensor,
    /// The structure branch's numbers, `[N, EMBEDDING]`.
    pub structure: Tensor,
    /// Logits per kind of anomaly, `[N, KINDS]`.
    pub kinds: Tensor,
}

/// `pixels [N, SIDE, SIDE, CHANNELS]` as [`tensor`](super::input::tensor) makes them.
///
/// # Errors
/// When the shape does not fit.
pub fn forward(t: &Tensors, pixels: &Tensor) -> Result<Moments> {
    let n = pixels.dim(0)?;
    let c = |name: &str, x: &Tensor| {
        let stride = CONVS.iter().find(|c| c.0 == name).map_or(1, |c| c.3);
        conv(t, name, stride, x)
    };
    let residual = |name: &str, x: Tensor| -> Result<Tensor> { Ok((&x + c(name, &x)?)?) };
    let stem = c("stem.c2", &c("stem.c1", pixels)?)?;

    // Appearance and motion.
    let m12 = residual("motion.c4", c("motion.c3", &stem.narrow(3, 0, 32)?)?)?;
    let m6 = residual("motion.c6", c("motion.c5", &m12)?)?;
    let m12 = (m12 + double(&map(t, "motion.up6", &m6)?)?)?.relu()?;

    // Parts and depth.
    let s24 = residual("structure.c3", stem.narrow(3, 32, 32)?.contiguous()?)?;
    let s12 = residual("structure.c5", c("structure.c4", &s24)?)?;
    let s6 = residual("structure.c7", c("structure.c6", &s12)?)?;
    let s12 = (s12 + double(&map(t, "structure.up6", &s6)?)?)?.relu()?;
    let x = (s24 + double(&map(t, "structure.up12", &s12)?)?)?.relu()?;
    let x = residual("structure.c8", x)?;
    let places = PARTS_SIDE * PARTS_SIDE;
    let maps = map(t, "structure.maps", &x.reshape((n, places, 32))?)?;

    let both = Tensor::cat(&[m12, s12], 3)?.reshape((n, HEAT_SIDE * HEAT_SIDE, 128))?;
    let heat = map(t, "heat.out", &map(t, "heat.in", &both)?.relu()?)?;
    let motion = map(t, "motion.moment", &pooled(&m6)?)?.relu()?;
    let structure = map(t, "structure.moment", &pooled(&s6)?)?.relu()?;
    let kinds = map(t, "moment", &Tensor::cat(&[&motion, &structure], 1)?)?;
    Ok(Moments {
        parts: maps.narrow(2, 0, PARTS + 1)?.contiguous()?,
        inverse_depth: maps.narrow(2, PARTS + 1, 1)?.contiguous()?.squeeze(2)?,
        heat,
        motion,
        structure,
        kinds,
    })
}

/// Random tensors of a layout to start from: He's initialisation, biases zero, what `special` says otherwise: the factor on the
/// spread of a matrix, the value of a bias.
pub(super) fn initial_of(
    layout: &Layout,
    seed: u64,
    special: impl Fn(&str) -> Option<f64>,
) -> Result<HashMap<String, Tensor>> {
    use rand_chacha::ChaCha8Rng;
    use rand_core::{RngCore, SeedableRng};
    let mut out = HashMap::new();
    for (i, (name, shape)) in layout.tensors().enumerate() {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(i as u64);
        let count: usize = shape.iter().product();
        let tensor = if shape.len() == 1 {
            Tensor::full(special(name).unwrap_or(0.0) as f32, shape, &Device::Cpu)?
        } else {
            let spread = special(name).unwrap_or(1.0) * (6.0 / shape[1] as f64).sqrt();
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

/// Random tensors to start from.
///
/// # Errors
/// When tensors cannot be made.
pub fn initial(seed: u64) -> Result<HashMap<String, Tensor>> {
    initial_of(&layout(), seed, |name| match name {
        // Anomalies are rare in place and time: start from "none".
        "heat.out.bias" => Some(-4.0),
        "moment.bias" => Some(-1.5),
        "heat.out.weight" | "moment.weight" | "structure.maps.weight" => Some(0.3),
        // Residual steps start small.
        "motion.c4.weight"
        | "motion.c6.weight"
        | "structure.c3.weight"
        | "structure.c5.weight"
        | "structure.c7.weight"
        | "structure.c8.weight" => Some(0.5),
        _ => None,
    })
}
