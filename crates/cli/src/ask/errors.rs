//! Precision of intermediate values: the same program on slots in the clear, compared with decrypted intermediates.
//!
//! This decrypts what only a server has, so it exists for error analysis on one's own machine alone.

use std::collections::BTreeMap;

use num_complex::Complex64;
use serde::Serialize;
use tacit_bitnet::Matrix;
use tacit_ensi::EncryptedModel;
use tacit_ensi::machine::clear::ClearMachine;

use crate::exit::Outcome;
use crate::output::Table;
use crate::session::{OnProgress, Session, failure};

/// Error of one named value.
#[derive(Clone, Debug, Serialize)]
pub struct StepError {
    /// Name of the value.
    pub name: String,
    /// Transformer layer.
    pub layer: usize,
    /// Largest magnitude in the clear.
    pub largest: f64,
    /// `-log2(largest error / largest magnitude)`, over all slots.
    pub bits: f64,
}

/// One forward pass, and the errors of its probed values.
pub fn measure(
    model: &EncryptedModel,
    session: &mut Session,
    embeddings: &Matrix,
    on_progress: OnProgress<'_>,
) -> Outcome<(Matrix, Vec<StepError>)> {
    let expected = clear(model, &session.fill(embeddings))?;
    let mut errors = Vec::new();
    let mut broken = None;
    let hidden =
        session.hidden_states_probed(embeddings, on_progress, &mut |client, name, layer, ct| {
            let Some(want) = expected.get(&(layer, name.to_string())) else {
                return;
            };
            match client.decrypt_slots(ct) {
                Ok(got) => {
                    let largest = want.iter().fold(0.0, |m: f64, v| m.max(v.norm()));
                    let error = got
                        .iter()
                        .zip(want)
                        .fold(0.0, |m: f64, (a, b)| m.max((a - b).norm()));
                    errors.push(StepError {
                        name: name.to_string(),
                        layer,
                        largest,
                        bits: bits(error, largest),
                    });
                }
                Err(e) => broken = Some(e),
            }
        })?;
    match broken {
        Some(e) => Err(failure(e)),
        None => Ok((hidden, errors)),
    }
}

/// Probed values of the program in the clear, by layer and name.
fn clear(
    model: &EncryptedModel,
    embeddings: &Matrix,
) -> Outcome<BTreeMap<(usize, String), Vec<Complex64>>> {
    let layout = *model.transformer().layout();
    let plan = model.key_plan();
    let mut slots =
        vec![vec![Complex64::default(); layout.slots()]; layout.ciphertexts(plan.hidden)];
    for token in 0..layout.tokens() {
        for (feature, value) in embeddings.row(token).iter().enumerate() {
            for (ciphertext, block) in layout.positions(feature, plan.hidden) {
                slots[ciphertext][layout.slot(block, token)] =
                    Complex64::new(f64::from(*value), 0.0);
            }
        }
    }
    let mut seen = BTreeMap::new();
    let mut machine = ClearMachine::new(
        model.engine().chain().clone(),
        layout,
        Some(Box::new(
            |name: &str, layer: usize, values: &[Complex64]| {
                seen.insert((layer, name.to_string()), values.to_vec());
            },
        )),
    );
    let input = slots
        .into_iter()
        .map(|s| machine.input(s, plan.input_level, plan.input_scale))
        .collect();
    model
        .transformer()
        .run(&mut machine, input)
        .map_err(failure)?;
    drop(machine);
    Ok(seen)
}

/// `-log2(error / largest)`, 0 where that is not a number.
fn bits(error: f64, largest: f64) -> f64 {
    let bits = -(error / largest).log2();
    if bits.is_finite() { bits } else { 0.0 }
}

/// The errors as a table.
pub fn table(errors: &[StepError]) -> String {
    let mut table = Table::new(&["layer", "value", "largest", "bits"]);
    for e in errors {
        table.row(vec![
            e.layer.to_string(),
            e.name.clone(),
            format!("{:.3e}", e.largest),
            format!("{:.1}", e.bits),
        ]);
    }
    table.render()
}
