//! Whether the model sees that there is a person, and that there is none: what "not applicable" rests on.

use rayon::prelude::*;
use serde::Serialize;

use super::extract::Selection;
use crate::error::Result;
use crate::generator::{self, Spec};
use crate::model::native::NativeModel;
use crate::model::native::data::Split;

/// Clips of held-out places, each with a person and without.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Gate {
    /// Share of clips with a person in which one is found.
    pub found: f64,
    /// Share of clips without a person that are refused.
    pub refused: f64,
    /// Clips of each sort.
    pub clips: usize,
}

/// Renders `count` places twice and looks for the person as a whole video is looked at; `done` is called after each place.
///
/// # Errors
/// When rendering or looking fails.
pub fn measure(
    model: &NativeModel,
    seed: u64,
    count: usize,
    done: &(dyn Fn() + Sync),
) -> Result<Gate> {
    let selection = Selection {
        split: Split::Test,
        held_out_scenes: true,
        held_out_operators: false,
        count,
        place: None,
    };
    let seen = (0..count)
        .into_par_iter()
        .map(|i| {
            // Beyond the clips of the tests.
            let real = selection.spec(seed, i + (1 << 19)).twin();
            let found = |nobody| -> Result<bool> {
                let clip = generator::sample(&Spec {
                    nobody,
                    maps: false,
                    ..real.clone()
                })?
                .clip;
                Ok(model.find_person(&clip)?.is_some())
            };
            let both = (found(false)?, found(true)?);
            done();
            Ok(both)
        })
        .collect::<Result<Vec<_>>>()?;
    let share = |f: &dyn Fn(&(bool, bool)) -> bool| {
        seen.iter().filter(|s| f(s)).count() as f64 / count.max(1) as f64
    };
    Ok(Gate {
        found: share(&|s| s.0),
        refused: share(&|s| !s.1),
        clips: count,
    })
}
