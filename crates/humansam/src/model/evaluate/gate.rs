//! Whether the model sees that there is a person, and that there is none: what "not applicable" rests on. Fitted and measured on pairs of
//! the same place.

use rayon::prelude::*;
use serde::Serialize;

use super::extract::Selection;
use crate::clip::Clip;
use crate::error::Result;
use crate::generator::{self, Spec};
use crate::model::native::NativeModel;
use crate::model::native::data::Split;
use crate::model::native::input::{Input, Region, moments};
use crate::model::native::network::Network;
use crate::model::native::presence::{self, Presence};

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

/// Clips of one place: with a person in it, and without.
fn both(split: Split, held_out_scenes: bool, seed: u64, index: usize) -> Result<[Clip; 2]> {
    let selection = Selection {
        split,
        held_out_scenes,
        held_out_operators: false,
        count: 1,
        place: None,
    };
    // Beyond the clips of fits and tests.
    let real = selection.spec(seed, index + (1 << 19)).twin();
    let clip = |nobody| -> Result<Clip> {
        let spec = Spec {
            nobody,
            maps: false,
            ..real.clone()
        };
        Ok(generator::sample(&spec)?.clip)
    };
    Ok([clip(false)?, clip(true)?])
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
    let seen = (0..count)
        .into_par_iter()
        .map(|i| {
            let [with, without] = both(Split::Test, true, seed, i)?;
            let found = |clip: &Clip| model.find_person(clip).map(|f| f.is_some());
            let seen = (found(&with)?, found(&without)?);
            done();
            Ok(seen)
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

/// Fits the decision on `count` places of the head's seeds; `done` is called after each place.
///
/// # Errors
/// When rendering, looking or fitting fails.
pub fn fit(
    network: &Network,
    seed: u64,
    count: usize,
    done: &(dyn Fn() + Sync),
) -> Result<Presence> {
    let looked = (0..count)
        .into_par_iter()
        .map(|i| {
            let pair = both(Split::Head, false, seed, i)?;
            let numbers = |clip: &Clip| -> Result<Vec<f32>> {
                let n = clip.frames.len();
                let input = Input::new(clip, &moments(0, n), Region::whole(clip));
                Ok(presence::look(network, &input)?.numbers)
            };
            let seen = (numbers(&pair[0])?, numbers(&pair[1])?);
            done();
            Ok(seen)
        })
        .collect::<Result<Vec<_>>>()?;
    let (with, without): (Vec<_>, Vec<_>) = looked.into_iter().unzip();
    Presence::fit(&with, &without)
}
