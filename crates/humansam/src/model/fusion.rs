//! Fusion of the two branches and the head, and the one affine map that both fold into.
//!
//! ```text
//! paper    HFR = α · fc1(v) + (1 - α) · d                         logits = head(HFR)
//! gated    logits_k = g_k · head_k(fc1(v)) + (1 - g_k) · head_k(fc2(d)) + b_k,   g = sigmoid(gate)
//! ```
//!
//! `v` is the video branch's feature, `d` the depth branch's. Neither form has a non-linearity, so with both branches frozen
//! the logits are `W [v; d] + b` with a `W` of `classes × (width of v + width of d)`: what [`AffineHead`] holds, and what can be
//! evaluated on an encrypted feature vector.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::weights::{Layout, Weights};
use crate::error::{HumansamError, Result};

/// How the branches are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FusionMode {
    /// One learned number for all classes, as in the paper.
    Paper,
    /// One learned gate per class.
    Gated,
}

/// Sizes of fusion and head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FusionConfig {
    /// How the branches are joined.
    pub mode: FusionMode,
    /// Width of the video branch's feature.
    pub video: usize,
    /// Width of the depth branch's feature.
    pub depth: usize,
    /// Width of the joint feature; in [`FusionMode::Paper`] that of the depth branch.
    pub joint: usize,
    /// Number of classes.
    pub classes: usize,
}

impl FusionConfig {
    /// The paper's: 2816 and 1024 features.
    pub fn paper(video: usize, depth: usize, classes: usize) -> Self {
        Self {
            mode: FusionMode::Paper,
            video,
            depth,
            joint: depth,
            classes,
        }
    }

    /// Gates per class.
    pub fn gated(video: usize, depth: usize, joint: usize, classes: usize) -> Self {
        Self {
            mode: FusionMode::Gated,
            video,
            depth,
            joint,
            classes,
        }
    }

    /// Names (`alpha` or `gate`, `fc1`, `fc2`, `head`) and shapes.
    pub fn layout(&self) -> Layout {
        let mut l = Layout::default();
        l.linear("fc1", &[self.joint, self.video]);
        l.linear("head", &[self.classes, self.joint]);
        match self.mode {
            FusionMode::Paper => l.add("alpha", &[1]),
            FusionMode::Gated => {
                l.add("gate", &[self.classes]);
                l.linear("fc2", &[self.joint, self.depth]);
            }
        }
        l
    }
}

/// Fusion and head. Tensors may be variables, so that gradients reach them.
#[derive(Clone, Debug)]
pub struct Fusion {
    config: FusionConfig,
    tensors: HashMap<String, Tensor>,
}

impl Fusion {
    /// From tensors of [`FusionConfig::layout`]; a scalar `alpha` is taken as one of length 1.
    ///
    /// # Errors
    /// [`HumansamError::Weights`] naming `source` when they are not those.
    pub fn new(
        config: FusionConfig,
        source: &Path,
        tensors: HashMap<String, Tensor>,
    ) -> Result<Self> {
        let tensors = tensors
            .into_iter()
            .map(|(n, t)| {
                if n == "alpha" && t.elem_count() == 1 {
                    Ok((n, t.reshape(1)?))
                } else {
                    Ok((n, t))
                }
            })
            .collect::<Result<HashMap<_, _>>>()?;
        let checked = Weights::check(source, tensors, &config.layout())?;
        Ok(Self {
            config,
            tensors: checked.tensors().clone(),
        })
    }

    /// Sizes.
    pub fn config(&self) -> &FusionConfig {
        &self.config
    }

    /// Named tensors, as federated training exchanges them.
    pub fn tensors(&self) -> &HashMap<String, Tensor> {
        &self.tensors
    }

    /// `logits [B, classes]` of `video [B, dv]` and `depth [B, dd]`.
    ///
    /// # Errors
    /// When widths do not fit.
    pub fn forward(&self, video: &Tensor, depth: &Tensor) -> Result<Tensor> {
        let t = &self.tensors;
        let map = |x: &Tensor, name: &str| -> Result<Tensor> {
            Ok(x.matmul(&t[&format!("{name}.weight")].t()?)?
                .broadcast_add(&t[&format!("{name}.bias")])?)
        };
        let f1 = map(video, "fc1")?;
        match self.config.mode {
            FusionMode::Paper => {
                let alpha = &t["alpha"];
                let joint = (f1.broadcast_mul(alpha)? + depth.broadcast_mul(&(1.0 - alpha)?)?)?;
                map(&joint, "head")
            }
            FusionMode::Gated => {
                let gate = sigmoid(&t["gate"])?;
                let head = t["head.weight"].t()?;
                let a = f1.matmul(&head)?.broadcast_mul(&gate)?;
                let b = map(depth, "fc2")?
                    .matmul(&head)?
                    .broadcast_mul(&(1.0 - gate)?)?;
                Ok((a + b)?.broadcast_add(&t["head.bias"])?)
            }
        }
    }

    /// The affine map that this is, in 64-bit floats.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn fold(&self) -> Result<AffineHead> {
        let c = &self.config;
        let values = |n: &str| -> Result<Vec<f64>> {
            Ok(self.tensors[n]
                .flatten_all()?
                .to_vec1::<f32>()?
                .into_iter()
                .map(f64::from)
                .collect())
        };
        let (head, head_bias) = (values("head.weight")?, values("head.bias")?);
        let (f1, b1) = (values("fc1.weight")?, values("fc1.bias")?);
        let (share, f2, b2) = match c.mode {
            FusionMode::Paper => (
                vec![values("alpha")?[0]; c.classes],
                Vec::new(),
                vec![0.0; c.joint],
            ),
            FusionMode::Gated => (
                values("gate")?
                    .iter()
                    .map(|g| 1.0 / (1.0 + (-g).exp()))
                    .collect(),
                values("fc2.weight")?,
                values("fc2.bias")?,
            ),
        };
        let width = c.video + c.depth;
        let mut weight = vec![0.0; c.classes * width];
        let mut bias = head_bias;
        for k in 0..c.classes {
            let (g, row) = (share[k], &mut weight[k * width..(k + 1) * width]);
            for j in 0..c.joint {
                let h = head[k * c.joint + j];
                bias[k] += h * (g * b1[j] + (1.0 - g) * b2[j]);
                for (w, f) in row.iter_mut().zip(&f1[j * c.video..(j + 1) * c.video]) {
                    *w += g * h * f;
                }
                match c.mode {
                    FusionMode::Paper => row[c.video + j] += (1.0 - g) * h,
                    FusionMode::Gated => {
                        for (w, f) in row[c.video..]
                            .iter_mut()
                            .zip(&f2[j * c.depth..(j + 1) * c.depth])
                        {
                            *w += (1.0 - g) * h * f;
                        }
                    }
                }
            }
        }
        Ok(AffineHead {
            classes: c.classes,
            width,
            weight,
            bias,
        })
    }
}

/// `1 / (1 + e⁻ˣ)`, with gradient.
pub(crate) fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.0)?.recip()?)
}

/// `logits = W x + b` over the joined feature `x = [v; d]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AffineHead {
    /// Rows of `W`.
    pub classes: usize,
    /// Columns of `W`.
    pub width: usize,
    /// `W`, row by row.
    pub weight: Vec<f64>,
    /// `b`.
    pub bias: Vec<f64>,
}

impl AffineHead {
    /// The logits.
    ///
    /// # Errors
    /// When the feature has another length.
    pub fn apply(&self, feature: &[f64]) -> Result<Vec<f64>> {
        if feature.len() != self.width {
            return Err(HumansamError::Argument(format!(
                "a feature of {} numbers for a head of {}",
                feature.len(),
                self.width
            )));
        }
        Ok(self
            .weight
            .chunks(self.width)
            .zip(&self.bias)
            .map(|(row, b)| b + row.iter().zip(feature).map(|(w, x)| w * x).sum::<f64>())
            .collect())
    }

    /// Named tensors `affine.weight [classes, width]` and `affine.bias [classes]`.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn tensors(&self) -> Result<HashMap<String, Tensor>> {
        let f32s = |v: &[f64]| v.iter().map(|x| *x as f32).collect::<Vec<_>>();
        Ok(HashMap::from([
            (
                "affine.weight".to_owned(),
                Tensor::from_vec(f32s(&self.weight), (self.classes, self.width), &Device::Cpu)?,
            ),
            (
                "affine.bias".to_owned(),
                Tensor::from_vec(f32s(&self.bias), self.classes, &Device::Cpu)?,
            ),
        ]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folded_map_gives_the_same_logits() {
        for config in [
            FusionConfig::paper(11, 6, 4),
            FusionConfig::gated(11, 6, 5, 4),
        ] {
            let w = Weights::synthetic(&config.layout(), 5).unwrap();
            let fusion = Fusion::new(config, Path::new("test"), w.tensors().clone()).unwrap();
            let v = Tensor::rand(-1f32, 1.0, (3, 11), &Device::Cpu).unwrap();
            let d = Tensor::rand(-1f32, 1.0, (3, 6), &Device::Cpu).unwrap();
            let want = fusion.forward(&v, &d).unwrap().to_vec2::<f32>().unwrap();
            let affine = fusion.fold().unwrap();
            let rows = Tensor::cat(&[v, d], 1).unwrap().to_vec2::<f32>().unwrap();
            for (x, want) in rows.iter().zip(want) {
                let got = affine
                    .apply(&x.iter().map(|v| f64::from(*v)).collect::<Vec<_>>())
                    .unwrap();
                assert!(
                    got.iter()
                        .zip(&want)
                        .all(|(g, w)| (g - f64::from(*w)).abs() < 1e-5),
                    "{got:?} {want:?}"
                );
            }
            assert!(affine.apply(&[0.0; 3]).is_err());
        }
    }
}
