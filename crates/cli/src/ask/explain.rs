//! The plan as a table, and what was measured beside it.

use serde::Serialize;
use tacit_ensi::{Counts, Plan};

use crate::output::{Table, count, seconds};

/// One step of the plan with what it took, summed over all forward passes.
#[derive(Clone, Debug, Serialize)]
pub struct StepReport {
    /// Name of the step.
    pub name: String,
    /// Transformer layer, absent for steps around the layers.
    pub layer: Option<usize>,
    /// Highest level operated on.
    pub level_in: usize,
    /// Lowest level operated on.
    pub level_out: usize,
    /// The plan's seconds for one pass.
    pub predicted_seconds: f64,
    /// Mean seconds of a pass.
    pub measured_seconds: Option<f64>,
    /// The plan's operations of one pass.
    pub planned: Counts,
    /// Counted operations of one pass.
    pub measured: Option<Counts>,
}

/// Measurements of one step over several passes.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    passes: u32,
    seconds: f64,
    counts: Counts,
}

impl Tally {
    /// Adds one pass. Counts are those of the latest pass (every pass runs the same operations).
    pub fn add(&mut self, seconds: f64, counts: Counts) {
        self.passes += 1;
        self.seconds += seconds;
        self.counts = counts;
    }
}

/// Joins a plan with its measurements; `tallies` may be empty (nothing was run).
pub fn report(plan: &Plan, tallies: &[Tally]) -> Vec<StepReport> {
    plan.steps
        .iter()
        .enumerate()
        .map(|(i, step)| {
            let tally = tallies.get(i).filter(|t| t.passes > 0);
            StepReport {
                name: step.name.clone(),
                layer: step.layer,
                level_in: step.level_in,
                level_out: step.level_out,
                predicted_seconds: step.predicted_seconds,
                measured_seconds: tally.map(|t| t.seconds / f64::from(t.passes)),
                planned: step.counts,
                measured: tally.map(|t| t.counts),
            }
        })
        .collect()
}

/// The table that `--explain` and `model inspect --plan` print.
pub fn table(steps: &[StepReport]) -> String {
    let measured = steps.iter().any(|s| s.measured_seconds.is_some());
    let mut head = vec![
        "layer",
        "step",
        "level",
        "bootstraps",
        "key switches",
        "ct*ct",
        "ct*pt",
        "additions",
        "word additions",
        "predicted s",
    ];
    if measured {
        head.push("measured s");
    }
    let mut table = Table::new(&head);
    let mut line = |layer: String,
                    name: String,
                    level: String,
                    c: Counts,
                    predicted: f64,
                    took: Option<f64>| {
        let mut cells = vec![layer, name, level];
        cells.extend(
            [
                c.bootstraps,
                c.key_switches,
                c.ct_ct,
                c.ct_pt,
                c.additions,
                c.word_additions,
            ]
            .map(count),
        );
        cells.push(seconds(predicted));
        cells.push(took.map(seconds).unwrap_or_default());
        table.row(cells);
    };
    let mut total = Counts::default();
    for s in steps {
        let counts = s.measured.unwrap_or(s.planned);
        total += counts;
        line(
            s.layer.map(|l| l.to_string()).unwrap_or_default(),
            s.name.clone(),
            format!("{} > {}", s.level_in, s.level_out),
            counts,
            s.predicted_seconds,
            s.measured_seconds,
        );
    }
    let predicted = steps.iter().map(|s| s.predicted_seconds).sum();
    let took = measured.then(|| steps.iter().filter_map(|s| s.measured_seconds).sum());
    line(
        String::new(),
        "total of one token".into(),
        String::new(),
        total,
        predicted,
        took,
    );
    table.render()
}

/// Shares that the paper's "1 %" is compared with.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shares {
    /// Seconds in steps that refresh, over all seconds.
    pub time_in_refreshes: f64,
    /// Refreshes over all ciphertext operations, each refresh counted as one operation.
    pub refreshes_of_operations: f64,
    /// Ciphertext operations that the second share divides by.
    pub operations: u64,
}

/// Counts shares over one pass. Operations are bootstraps, key switches, products of ciphertexts, products with plaintexts,
/// additions and rescales *outside* refreshes, plus one for each refresh; word additions of the ternary mix are not
/// ciphertext operations.
pub fn shares(steps: &[StepReport]) -> Shares {
    let took = |s: &StepReport| s.measured_seconds.unwrap_or(s.predicted_seconds);
    let all: f64 = steps.iter().map(took).sum();
    let refreshing: f64 = steps
        .iter()
        .filter(|s| s.planned.bootstraps > 0)
        .map(took)
        .sum();
    let mut bootstraps = 0;
    let mut others = 0;
    for s in steps {
        let c = s.measured.unwrap_or(s.planned);
        bootstraps += c.bootstraps;
        if c.bootstraps == 0 {
            others += c.key_switches + c.ct_ct + c.ct_pt + c.additions + c.rescales;
        }
    }
    let operations = bootstraps + others;
    Shares {
        time_in_refreshes: if all > 0.0 { refreshing / all } else { 0.0 },
        refreshes_of_operations: if operations > 0 {
            bootstraps as f64 / operations as f64
        } else {
            0.0
        },
        operations,
    }
}

/// The shares in words.
pub fn describe(shares: &Shares) -> String {
    format!(
        "{:.1} % of the time is spent in steps that refresh (SlotsToCoeffs, ternary layer, ModRaise, CoeffsToSlots, EvalMod).\n\
         {:.2} % of {} ciphertext operations are refreshes, counted as: bootstraps / (bootstraps + key switches + products + additions + rescales),\n\
         each refresh one operation and the operations inside it not counted again.",
        100.0 * shares.time_in_refreshes,
        100.0 * shares.refreshes_of_operations,
        count(shares.operations),
    )
}
