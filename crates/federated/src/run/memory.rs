//! What a client remembers between rounds. None of it is shared.

use crate::{FederatedError, NamedTensors};

/// A client's memory; parts that a run does not use are empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// What compression left out so far.
    pub kept: NamedTensors,
    /// SCAFFOLD's control variate.
    pub control: NamedTensors,
    /// The private part of a personal adapter.
    pub personal: NamedTensors,
}

impl Memory {
    /// Whether there is nothing to remember.
    pub fn is_empty(&self) -> bool {
        self.parts().iter().all(|(_, t)| t.is_empty())
    }

    fn parts(&self) -> [(&'static str, &NamedTensors); 3] {
        [
            ("kept", &self.kept),
            ("control", &self.control),
            ("personal", &self.personal),
        ]
    }

    /// Puts every tensor into `all`, named `group/part/name`.
    pub(super) fn write(&self, group: &str, all: &mut NamedTensors) -> Result<(), FederatedError> {
        for (part, tensors) in self.parts() {
            for t in tensors.iter() {
                let name = format!("{group}/{part}/{}", t.name);
                all.insert(name, &t.shape, t.values.clone())?;
            }
        }
        Ok(())
    }

    /// Takes back a tensor that [`Self::write`] named `part/name` behind its group; `false` when there is no such part.
    pub(super) fn read(
        &mut self,
        name: &str,
        shape: &[usize],
        values: Vec<f32>,
    ) -> Result<bool, FederatedError> {
        let (part, name) = name.split_once('/').unwrap_or_default();
        let target = match part {
            "kept" => &mut self.kept,
            "control" => &mut self.control,
            "personal" => &mut self.personal,
            _ => return Ok(false),
        };
        target.insert(name, shape, values)?;
        Ok(true)
    }
}
