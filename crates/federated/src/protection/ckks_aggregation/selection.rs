//! Which values are encrypted when not all are.

use super::STAGE;
use crate::protection::ProtectionError;

/// A set of coordinates: the most sensitive fraction (Jin et al. 2023, section 3.2: the clients' sensitivities are summed under encryption or secure
/// aggregation, and all take the same top fraction).
///
/// A coordinate left in the clear is seen by the coordinator, and such values can give the data away: [`crate::audit::partial`] recovers text from nine
/// tenths of a gradient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// Chosen coordinates, ascending.
    chosen: Vec<u32>,
    dimension: usize,
}

impl Selection {
    /// The `⌈fraction · n⌉` coordinates of largest sensitivity; of equal ones the lower.
    ///
    /// # Errors
    /// [`ProtectionError::Setting`] for a fraction outside `(0, 1]`, [`ProtectionError::Input`] for a sensitivity that is not a number.
    pub fn top(sensitivity: &[f32], fraction: f64) -> Result<Self, ProtectionError> {
        if !(fraction > 0.0 && fraction <= 1.0) {
            return Err(ProtectionError::setting(
                STAGE,
                "fraction",
                fraction,
                "above 0, at most 1",
                "0.1 encrypts the most sensitive tenth",
            ));
        }
        if sensitivity.iter().any(|x| x.is_nan()) {
            return Err(ProtectionError::input(
                STAGE,
                "a sensitivity is not a number",
                "lower the learning rate",
            ));
        }
        let count = (fraction * sensitivity.len() as f64).ceil() as usize;
        let mut order: Vec<u32> = (0..sensitivity.len() as u32).collect();
        order.sort_by(|&a, &b| {
            sensitivity[b as usize]
                .total_cmp(&sensitivity[a as usize])
                .then(a.cmp(&b))
        });
        order.truncate(count);
        order.sort_unstable();
        Ok(Self {
            chosen: order,
            dimension: sensitivity.len(),
        })
    }

    /// Sensitivities of one client: `|gradient · value|`, the first-order change of the loss if the value were removed.
    pub fn sensitivity(gradient: &[f32], values: &[f32]) -> Vec<f32> {
        gradient
            .iter()
            .zip(values)
            .map(|(g, v)| (g * v).abs())
            .collect()
    }

    /// Chosen coordinates, ascending.
    pub fn chosen(&self) -> &[u32] {
        &self.chosen
    }

    /// The chosen values and the others.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for a vector of another length.
    pub fn split(&self, values: &[f32]) -> Result<(Vec<f32>, Vec<f32>), ProtectionError> {
        if values.len() != self.dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "{} values, the selection has {}",
                    values.len(),
                    self.dimension
                ),
                "all clients must train the same tensors",
            ));
        }
        let mut chosen = Vec::with_capacity(self.chosen.len());
        let mut rest = Vec::with_capacity(self.dimension - self.chosen.len());
        let mut next = self.chosen.iter().peekable();
        for (i, &v) in values.iter().enumerate() {
            if next.next_if(|&&c| c as usize == i).is_some() {
                chosen.push(v);
            } else {
                rest.push(v);
            }
        }
        Ok((chosen, rest))
    }

    /// The inverse of [`Self::split`].
    ///
    /// # Errors
    /// [`ProtectionError::Input`] for parts of other lengths.
    pub fn join(&self, chosen: &[f32], rest: &[f32]) -> Result<Vec<f32>, ProtectionError> {
        if chosen.len() != self.chosen.len() || chosen.len() + rest.len() != self.dimension {
            return Err(ProtectionError::input(
                STAGE,
                format!(
                    "{} and {} values, the selection has {} of {}",
                    chosen.len(),
                    rest.len(),
                    self.chosen.len(),
                    self.dimension
                ),
                "use the selection of this round",
            ));
        }
        let mut out = Vec::with_capacity(self.dimension);
        let (mut c, mut r) = (0, 0);
        for i in 0..self.dimension {
            if self.chosen.get(c).is_some_and(|&x| x as usize == i) {
                out.push(chosen[c]);
                c += 1;
            } else {
                out.push(rest[r]);
                r += 1;
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    proptest! {
        #[test]
        fn parts_join_again(values in prop::collection::vec(-1.0f32..1.0, 1..200), fraction in 0.01f64..1.0) {
            let selection = Selection::top(&values, fraction).unwrap();
            let (chosen, rest) = selection.split(&values).unwrap();
            prop_assert_eq!(chosen.len(), (fraction * values.len() as f64).ceil() as usize);
            let least = chosen.iter().copied().fold(f32::INFINITY, f32::min);
            prop_assert!(rest.iter().all(|&r| r <= least));
            prop_assert_eq!(selection.join(&chosen, &rest).unwrap(), values);
        }
    }

    #[test]
    fn wrong_input_is_refused() {
        assert!(Selection::top(&[1.0, f32::NAN], 0.5).is_err());
        assert!(Selection::top(&[1.0], 0.0).is_err());
        let s = Selection::top(&[3.0, 1.0, 2.0], 0.6).unwrap();
        assert_eq!(s.chosen(), [0, 2]);
        assert!(s.split(&[1.0]).is_err() && s.join(&[1.0], &[2.0]).is_err());
        assert_eq!(
            Selection::sensitivity(&[2.0, -1.0], &[-3.0, 0.5]),
            [6.0, 0.5]
        );
    }
}
