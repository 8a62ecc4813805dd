//! `tacit inspect bench --confidence`: what rank-based confidence brings to the head, without any test clip.

use tacit_humansam::Clip;
use tacit_humansam::model::evaluate::confidence::{HEADS, Study, Validated, WRONG, study};
use tacit_humansam::model::evaluate::extract::{Selection, Treatment, extract};
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::model::native::data::Split;

use super::failure;
use crate::args::Global;
use crate::exit::Outcome;
use crate::output::{Table, print_json};
use crate::progress::Display;

/// Renders the clips that the model's head was fitted on, and studies them.
pub fn run(model: &NativeModel, seed: u64, global: &Global) -> Outcome {
    let clips = Selection {
        split: Split::Head,
        held_out_scenes: false,
        held_out_operators: false,
        count: model.card.head_clips,
        place: None,
    };
    let display = Display::pick(global.json);
    let bar = display.pieces("rendering and looking", clips.count as u64);
    let as_it_is = |clip: &Clip, _: u8| Ok(clip.clone());
    let fit = extract(
        model.network(),
        &clips,
        seed,
        Treatment::None,
        &as_it_is,
        &|| bar.inc(1),
    )
    .map_err(failure)?;
    bar.finish_and_clear();
    let bar = display.pieces("fitting heads", HEADS as u64);
    let found = study(&fit, seed, &mut || bar.inc(1)).map_err(failure)?;
    bar.finish_and_clear();
    if global.json {
        return print_json(&found);
    }
    print(&found);
    Ok(())
}

fn print(s: &Study) {
    println!(
        "{} clips of the head's fit; a forged clip stands highest in the ranking of its own class {:.0} times in 100 (a guess: 33)",
        s.clips,
        100.0 * s.rank_label_right
    );
    let mut t = Table::new(&[
        "prior",
        "ranks over other kinds",
        "over real",
        "correlation with being right",
        "weight",
    ]);
    for r in &s.ranks {
        t.row(vec![
            r.class.name().to_owned(),
            format!("{:.0} %", 100.0 * r.over_other_kinds),
            format!("{:.0} %", 100.0 * r.over_real),
            format!("{:.2}", r.with_right),
            format!("{:.3} +- {:.3}", r.weight, r.spread),
        ]);
    }
    print!("{}", t.render());
    println!("\nfive-fold cross-validation, per cent");
    table(&s.validated);
    println!(
        "\nthe same with {:.0} % of the forged labels wrong in the fit, judged by the right ones",
        100.0 * WRONG
    );
    table(&s.with_wrong_labels);
}

fn table(rows: &[Validated]) {
    let mut t = Table::new(&[
        "weights from",
        "accuracy",
        "lead over none",
        "AUC",
        "cross-entropy",
    ]);
    for r in rows {
        t.row(vec![
            r.name.clone(),
            format!("{:.1}", 100.0 * r.accuracy),
            r.lead.to_string(),
            format!("{:.1}", 100.0 * r.auc),
            format!("{:.4}", r.cross_entropy),
        ]);
    }
    print!("{}", t.render());
}
