//! The head in a federation: fusion and head as an ordered list of named values, and a round of local training that starts from it.
//!
//! Videos, features and the scaler stay where they are: the scaler is part of the model that all start from. What travels is small:
//! the tensors of [`Fusion`], some seven thousand numbers.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};

use super::head::{Features, Head};
use crate::class::Class;
use crate::error::{HumansamError, Result};
use crate::model::fusion::Fusion;

/// A named tensor: name, shape, values in row-major order.
pub type Named = (String, Vec<usize>, Vec<f32>);

impl Head {
    /// Fusion and head as named tensors `head.…`, in order of their names.
    ///
    /// # Errors
    /// When tensor arithmetic fails.
    pub fn export(&self) -> Result<Vec<Named>> {
        let mut out = self
            .fusion
            .tensors()
            .iter()
            .map(|(n, t)| {
                let values = t.flatten_all()?.to_vec1::<f32>()?;
                Ok((format!("head.{n}"), t.dims().to_vec(), values))
            })
            .collect::<Result<Vec<Named>>>()?;
        out.sort_by(|a, b| a.0.cmp(&b.0));
        Ok(out)
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
    use crate::model::evaluate::logistic::softmax;
    use crate::model::fusion::FusionMode;

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
