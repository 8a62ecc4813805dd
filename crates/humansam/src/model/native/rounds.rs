//! The head in a federation: fusion and head as an ordered list of named values, and a round of local training that starts from it.
//!
//! Videos, features and the scaler stay where they are: the scaler is part of the model that all start from. What travels is small:
//! the tensors of [`Fusion`], some twelve thousand numbers. A [`Example`] is a clip as training sees it: features that the head's scaler has
//! standardised, label and confidence. [`Head::gradient`] is what a party computes on some of them, [`Head::measure`] how well a head does.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor, Var};

use super::head::{self, Features, Head};
use crate::class::Class;
use crate::error::{HumansamError, Result};
use crate::model::evaluate::logistic::softmax;
use crate::model::fusion::{Fusion, FusionMode};
use crate::model::optimiser::{Variables, gradients};
use crate::model::rce;

/// A named tensor: name, shape, values in row-major order.
pub type Named = (String, Vec<usize>, Vec<f32>);

/// A clip as the head's training sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// Standardised `[video; depth]`.
    pub row: Vec<f32>,
    /// The class.
    pub label: Class,
    /// Confidence `c` of the loss, from 0 on.
    pub confidence: f64,
}

/// How a head does on some clips.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// Mean cross-entropy, nats.
    pub loss: f64,
    /// Share of right classes.
    pub right: f64,
}

fn named(tensors: &HashMap<String, Tensor>) -> Result<Vec<Named>> {
    let mut out = tensors
        .iter()
        .map(|(n, t)| {
            let values = t.flatten_all()?.to_vec1::<f32>()?;
            Ok((format!("head.{n}"), t.dims().to_vec(), values))
        })
        .collect::<Result<Vec<Named>>>()?;
    out.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(out)
}

/// Both branches' rows of some clips as tensors.
fn rows<'a>(
    head: &Head,
    examples: impl ExactSizeIterator<Item = &'a Example>,
) -> Result<(Tensor, Tensor)> {
    let c = head.fusion.config();
    let width = c.video + c.depth;
    let n = examples.len();
    let mut data = Vec::with_capacity(n * width);
    for e in examples {
        if e.row.len() != width {
            return Err(HumansamError::Argument(format!(
                "a clip of {} features for a head of {width}",
                e.row.len()
            )));
        }
        data.extend_from_slice(&e.row);
    }
    let x = Tensor::from_vec(data, (n, width), &Device::Cpu)?;
    Ok((
        x.narrow(1, 0, c.video)?.contiguous()?,
        x.narrow(1, c.video, c.depth)?.contiguous()?,
    ))
}

impl Head {
    /// This head's scaler with a fusion that knows nothing: even gates, small values drawn by seed.
    ///
    /// # Errors
    /// When tensors cannot be made.
    pub fn blank(&self, seed: u64) -> Result<Self> {
        let config = head::config(FusionMode::Gated);
        let tensors = head::blank(config, seed)?
            .iter()
            .map(|(n, v)| (n.clone(), v.as_detached_tensor()))
            .collect();
        Ok(Self {
            scaler: self.scaler.clone(),
            fusion: Fusion::new(config, Path::new("blank head"), tensors)?,
        })
    }

    /// Number of features of a clip.
    pub fn width(&self) -> usize {
        self.scaler.mean.len()
    }

    /// A clip with joined features `[video; depth]` as an example.
    ///
    /// # Errors
    /// [`HumansamError::Argument`] when there are not as many features as the head has, or one is not finite.
    pub fn example(&self, joined: &[f32], label: Class, confidence: f64) -> Result<Example> {
        if joined.len() != self.width() || joined.iter().any(|v| !v.is_finite()) {
            return Err(HumansamError::Argument(format!(
                "a clip of {} features where the head has {}, all of them finite; they must come from the same model",
                joined.len(),
                self.width()
            )));
        }
        let row = self.scaler.apply(joined);
        Ok(Example {
            row: row.into_iter().map(|v| v as f32).collect(),
            label,
            confidence,
        })
    }

    /// Mean RCE loss over examples, and its gradient in the form of [`Head::export`].
    ///
    /// # Errors
    /// When there are no examples, or one is of another width.
    pub fn gradient(&self, examples: &[&Example]) -> Result<(f64, Vec<Named>)> {
        let (v, d) = rows(self, examples.iter().copied())?;
        let variables: Variables = self
            .fusion
            .tensors()
            .iter()
            .map(|(n, t)| Ok((n.clone(), Var::from_tensor(t)?)))
            .collect::<Result<_>>()?;
        let tensors = variables
            .iter()
            .map(|(n, v)| (n.clone(), v.as_tensor().clone()))
            .collect();
        let fusion = Fusion::new(*self.fusion.config(), Path::new("head"), tensors)?;
        let labels: Vec<usize> = examples.iter().map(|e| e.label.label()).collect();
        let confidences: Vec<f64> = examples.iter().map(|e| e.confidence).collect();
        let loss = rce::loss(&fusion.forward(&v, &d)?, &labels, &confidences)?;
        let mut by_name: HashMap<String, Tensor> =
            gradients(&loss, &variables)?.into_iter().collect();
        for (n, v) in &variables {
            if !by_name.contains_key(n) {
                by_name.insert(n.clone(), v.zeros_like()?);
            }
        }
        Ok((f64::from(loss.to_scalar::<f32>()?), named(&by_name)?))
    }

    /// How it does on examples.
    ///
    /// # Errors
    /// When an example is of another width.
    pub fn measure(&self, examples: &[Example]) -> Result<Score> {
        if examples.is_empty() {
            return Ok(Score::default());
        }
        let (v, d) = rows(self, examples.iter())?;
        let logits = self.fusion.forward(&v, &d)?.to_vec2::<f32>()?;
        let mut score = Score::default();
        for (z, e) in logits.iter().zip(examples) {
            let p = softmax(&z.iter().map(|v| f64::from(*v)).collect::<Vec<_>>());
            let best = (0..p.len()).fold(0, |b, k| if p[k] > p[b] { k } else { b });
            score.loss -= p[e.label.label()].max(1e-12).ln();
            score.right += f64::from(u8::from(best == e.label.label()));
        }
        let n = examples.len() as f64;
        Ok(Score {
            loss: score.loss / n,
            right: score.right / n,
        })
    }

    /// Fusion and head as named tensors `head.…`, in order of their names.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn export(&self) -> Result<Vec<Named>> {
        named(self.fusion.tensors())
    }

    /// This head with the values of [`Head::export`]'s tensors replaced.
    ///
    /// # Errors
    /// [`HumansamError::Weights`] naming `source` when they are not exactly those tensors; [`HumansamError::Argument`] for a value that
    /// is not finite.
    pub fn import(&self, named: &[Named], source: &Path) -> Result<Self> {
        let mut tensors = HashMap::new();
        for (name, shape, values) in named {
            if values.iter().any(|v| !v.is_finite()) {
                return Err(HumansamError::Argument(format!(
                    "{}: {name} holds a value that is not finite",
                    source.display()
                )));
            }
            let short = name.strip_prefix("head.").unwrap_or(name);
            tensors.insert(
                short.to_owned(),
                Tensor::from_vec(values.clone(), shape.clone(), &Device::Cpu)?,
            );
        }
        Ok(Self {
            scaler: self.scaler.clone(),
            fusion: Fusion::new(*self.fusion.config(), source, tensors)?,
        })
    }

    /// A round of local training: `steps` full-batch steps from this head on a party's own clips, with its scaler.
    ///
    /// # Errors
    /// When there are no clips or lengths differ.
    pub fn local_round(
        &self,
        clips: &[&Features],
        labels: &[Class],
        confidences: &[f64],
        steps: usize,
    ) -> Result<Self> {
        super::head::tune(self, clips, labels, confidences, steps)
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::EXTRA;
    use super::super::network::{DEPTH_WIDTH, VIDEO_WIDTH};
    use super::*;

    fn clips(from: usize, count: usize) -> (Vec<Features>, Vec<Class>) {
        let labels: Vec<Class> = (from..from + count).map(|i| Class::ALL[i % 4]).collect();
        let features = (from..from + count)
            .map(|i| {
                let at = |j: usize| {
                    ((i * 31 + j * 17) as f32 * 0.61).sin() + if j % 4 == i % 4 { 0.3 } else { 0.0 }
                };
                Features {
                    video: (0..VIDEO_WIDTH + EXTRA).map(at).collect(),
                    depth: (0..DEPTH_WIDTH).map(at).collect(),
                }
            })
            .collect();
        (features, labels)
    }

    #[test]
    fn what_is_exported_is_imported_and_nothing_else() {
        let (features, labels) = clips(0, 40);
        let refs: Vec<&Features> = features.iter().collect();
        let head = Head::fit(FusionMode::Gated, &refs, &labels, &[0.0; 40], 1).unwrap();
        let other = Head::fit(FusionMode::Gated, &refs, &labels, &[0.0; 40], 2).unwrap();
        let named = other.export().unwrap();
        assert!(named.windows(2).all(|w| w[0].0 < w[1].0));
        let path = Path::new("update");
        let back = head.import(&named, path).unwrap();
        assert_eq!(back.export().unwrap(), named);
        assert!(head.import(&named[1..], path).is_err());
        let mut spoiled = named.clone();
        spoiled[0].2[0] = f32::NAN;
        assert!(head.import(&spoiled, path).is_err());
        let mut reshaped = named;
        reshaped[0].1.push(1);
        assert!(head.import(&reshaped, path).is_err());
    }

    #[test]
    fn gradients_are_difference_quotients_and_lead_downhill() {
        let (features, labels) = clips(0, 40);
        let refs: Vec<&Features> = features.iter().collect();
        let fitted = Head::fit(FusionMode::Gated, &refs, &labels, &[0.0; 40], 1).unwrap();
        let mut head = fitted.blank(3).unwrap();
        let examples: Vec<Example> = features
            .iter()
            .zip(&labels)
            .map(|(f, l)| head.example(&f.joined(), *l, 0.5).unwrap())
            .collect();
        let all: Vec<&Example> = examples.iter().collect();
        let path = Path::new("step");
        let (loss, gradient) = head.gradient(&all).unwrap();
        let at = head.export().unwrap();
        assert!(
            gradient
                .iter()
                .zip(&at)
                .all(|(g, a)| g.0 == a.0 && g.1 == a.1)
        );
        let moved = |tensor: usize, value: usize, by: f32| {
            let mut there = at.clone();
            there[tensor].2[value] += by;
            head.import(&there, path).unwrap().gradient(&all).unwrap().0
        };
        for tensor in 0..at.len() {
            let g = f64::from(gradient[tensor].2[1]);
            let slope = (moved(tensor, 1, 0.01) - moved(tensor, 1, -0.01)) / 0.02;
            assert!((g - slope).abs() < 2e-3, "{}: {g} {slope}", at[tensor].0);
        }
        let before = head.measure(&examples).unwrap();
        for _ in 0..60 {
            let (_, g) = head.gradient(&all).unwrap();
            let mut next = head.export().unwrap();
            for (n, g) in next.iter_mut().zip(&g) {
                n.2.iter_mut().zip(&g.2).for_each(|(x, g)| *x -= 0.05 * g);
            }
            head = head.import(&next, path).unwrap();
        }
        let after = head.measure(&examples).unwrap();
        assert!(
            after.loss < 0.7 * before.loss && after.right > 0.8,
            "{loss} {before:?} {after:?}"
        );
        assert!(head.example(&[0.0; 3], Class::Real, 0.0).is_err());
        let narrow = Example {
            row: vec![0.0; 3],
            label: Class::Real,
            confidence: 0.0,
        };
        assert!(head.gradient(&[&narrow]).is_err());
    }

    #[test]
    fn a_local_round_goes_on_from_the_head() {
        let (features, labels) = clips(0, 80);
        let refs: Vec<&Features> = features.iter().collect();
        let start = Head::fit(FusionMode::Gated, &refs[..8], &labels[..8], &[0.0; 8], 1).unwrap();
        let none = start.local_round(&refs, &labels, &[0.0; 80], 0).unwrap();
        assert_eq!(none.export().unwrap(), start.export().unwrap());
        let loss = |h: &Head| -> f64 {
            let a = h.affine().unwrap();
            let of = |(f, l): (&Features, &Class)| {
                let p = softmax(&f.logits(&a).unwrap());
                -p[l.label()].max(1e-12).ln()
            };
            features.iter().zip(&labels).map(of).sum()
        };
        let tuned = start.local_round(&refs, &labels, &[0.0; 80], 100).unwrap();
        assert!(
            loss(&tuned) < 0.9 * loss(&start),
            "{} {}",
            loss(&start),
            loss(&tuned)
        );
        assert!(
            start
                .local_round(&refs, &labels[1..], &[0.0; 80], 1)
                .is_err()
        );
    }
}
