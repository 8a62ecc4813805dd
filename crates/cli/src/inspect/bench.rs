//! `tacit inspect bench`: the native model, its ablations and baselines on generated video, or on the HFV data set; speed.

use serde_json::json;
use tacit_humansam::model::evaluate::bench::{Bench, Plan, Treated, robustness, run as run_bench};
use tacit_humansam::model::evaluate::gate::{self, Gate};
use tacit_humansam::model::evaluate::hfv;
use tacit_humansam::model::evaluate::metrics::Scored;
use tacit_humansam::model::evaluate::parts;
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::video::{self, Pace, Wanted};
use tacit_humansam::{Clip, HumansamError};

use super::look::{open_model, wanted};
use super::model_args::BenchArgs;
use super::{confidence, failure, speed};
use crate::args::Global;
use crate::exit::{Failure, Outcome};
use crate::interrupt;
use crate::output::{Table, print_json};
use crate::progress::Display;

/// Compresses with ffmpeg and reads back.
fn encode(clip: &Clip, crf: u8) -> Result<Clip, HumansamError> {
    let folder = tempfile::tempdir().map_err(HumansamError::io("create", std::env::temp_dir()))?;
    let path = folder.path().join("clip.mp4");
    video::write_mp4(&path, clip, crf)?;
    let all = Wanted {
        pace: Pace::All,
        // One clip that a busy machine is late with must not end an hour's work.
        timeout: std::time::Duration::from_secs(900),
        ..Wanted::default()
    };
    Ok(video::read(&path, &all)?.clip)
}

/// Runs the command.
pub fn run(args: &BenchArgs, global: &Global) -> Outcome {
    let model = open_model(args.model.as_deref())?;
    if args.speed {
        return speed::run(&model, args.paper_size, global);
    }
    if args.confidence {
        return confidence::run(&model, args.seed, global);
    }
    if let Some(folder) = &args.hfv {
        return on_hfv(&model, folder, global);
    }
    if let Some(count) = args.parts {
        return on_parts(&model, args.seed, count, global);
    }
    let plan = Plan {
        seed: args.seed,
        fit: model.card.head_clips,
        test: args.clips,
        treated: args.robustness,
        places: args.places.unwrap_or(args.clips),
    };
    if plan.test + plan.treated + plan.places == 0 {
        return Err(Failure::usage(
            "--clips 0 leaves only the robustness grid and the search for persons, which need --robustness N or --places N",
        ));
    }
    if plan.test == 0 {
        return without_tests(&model, plan, global);
    }
    let clips = plan.fit + 2 * plan.test + plan.places + 6 * plan.treated;
    let bar = Display::pick(global.json).pieces("rendering and judging", clips as u64);
    let result = run_bench(&model, plan, &encode, &|| bar.inc(1)).map_err(failure)?;
    bar.finish_and_clear();
    if global.json {
        return print_json(&result);
    }
    print(&result);
    Ok(())
}

fn print(b: &Bench) {
    println!(
        "On generated video; {} clips a test, 95 % bootstrap intervals, per cent.",
        b.plan.test
    );
    for (title, seen) in [
        ("operators seen in training", true),
        ("operator families never seen", false),
    ] {
        println!("\n{title}; bodies, motions and places never seen");
        let mut t = Table::new(&[
            "classifier",
            "accuracy",
            "the model's lead",
            "macro-F1",
            "AUC",
            "forged/real AUC",
            "TPR at 1 % FPR",
            "ECE",
        ]);
        for r in &b.rows {
            let (m, lead) = if seen {
                (&r.seen, &r.lead_seen)
            } else {
                (&r.unseen, &r.lead_unseen)
            };
            t.row(vec![
                r.name.clone(),
                m.accuracy.to_string(),
                lead.to_string(),
                m.macro_f1.to_string(),
                m.auc.to_string(),
                m.binary_auc.to_string(),
                format!("{:.1}", 100.0 * m.tpr_at_1_fpr),
                format!("{:.1}", 100.0 * m.calibration_error),
            ]);
        }
        print!("{}", t.render());
        let l = if seen {
            &b.localisation_seen
        } else {
            &b.localisation_unseen
        };
        println!(
            "temporal IoU {:.2} (all frames: {:.2}); pointing game {:.2} (at random: {:.2}); {} forged clips",
            l.temporal_iou, l.temporal_iou_of_all_frames, l.pointing, l.pointing_at_random, l.clips
        );
    }
    println!(
        "\nanswered {:.0} % of both tests, of those right {:.0} %",
        100.0 * b.abstention.answered,
        100.0 * b.abstention.right
    );
    print_gate(&b.gate);
    let mut t = Table::new(&["class / family", "right", "clips"]);
    for (family, right, clips) in &b.families {
        t.row(vec![
            family.clone(),
            format!("{:.0} %", 100.0 * right),
            clips.to_string(),
        ]);
    }
    print!("\n{}", t.render());
    if !b.treated.is_empty() {
        println!();
        print_grid(&b.treated);
    }
}

/// Only the robustness grid and the search for persons.
fn without_tests(model: &NativeModel, plan: Plan, global: &Global) -> Outcome {
    let count = 6 * plan.treated + plan.places;
    let bar = Display::pick(global.json).pieces("rendering and judging", count as u64);
    let treated = if plan.treated == 0 {
        Vec::new()
    } else {
        robustness(model, plan, &encode, &|| bar.inc(1)).map_err(failure)?
    };
    let gate = gate::measure(model, plan.seed, plan.places, &|| bar.inc(1)).map_err(failure)?;
    bar.finish_and_clear();
    if global.json {
        return print_json(&json!({ "plan": plan, "treated": treated, "gate": gate }));
    }
    if !treated.is_empty() {
        print_grid(&treated);
    }
    if gate.clips > 0 {
        print_gate(&gate);
    }
    Ok(())
}

fn print_gate(g: &Gate) {
    println!(
        "persons found in {:.1} % of {} clips with one; {:.1} % of {} empty places refused as not applicable",
        100.0 * g.found,
        g.clips,
        100.0 * g.refused,
        g.clips
    );
}

fn print_grid(treated: &[Treated]) {
    let mut t = Table::new(&["treatment", "accuracy", "AUC", "clips"]);
    for r in treated {
        t.row(vec![
            r.treatment.clone(),
            format!("{:.1}", 100.0 * r.accuracy),
            format!("{:.1}", 100.0 * r.auc),
            r.clips.to_string(),
        ]);
    }
    print!("{}", t.render());
}

/// How well parts are seen.
fn on_parts(model: &NativeModel, seed: u64, count: usize, global: &Global) -> Outcome {
    let bar = Display::pick(global.json).pieces("rendering and looking", count as u64);
    let found = parts::measure(model.network(), seed, count, &|| bar.inc(1)).map_err(failure)?;
    bar.finish_and_clear();
    if global.json {
        return print_json(&found);
    }
    println!(
        "mean IoU of {} parts: {:.3}, on {} clips with spatial anomalies and their twins",
        found.iou.len(),
        found.mean_iou,
        found.pairs
    );
    let each: Vec<String> = found
        .iou
        .iter()
        .map(|v| v.map_or("-".to_owned(), |v| format!("{v:.2}")))
        .collect();
    println!("by part: {}", each.join(" "));
    let mut t = Table::new(&[
        "family",
        "AUC, the trunk's parts",
        "AUC, true parts",
        "pairs",
    ]);
    for f in &found.families {
        t.row(vec![
            f.name.clone(),
            format!("{:.2}", f.seen),
            format!("{:.2}", f.truth),
            f.pairs.to_string(),
        ]);
    }
    print!("\n{}", t.render());
    Ok(())
}

fn on_hfv(model: &NativeModel, folder: &std::path::Path, global: &Global) -> Outcome {
    let folders = hfv::read(folder).map_err(failure)?;
    let total: usize = folders.iter().map(|f| f.entries.len()).sum();
    let bar = Display::pick(global.json).pieces("judging", total as u64);
    let mut scored = Vec::new();
    for f in &folders {
        let mut column = Vec::new();
        for e in &f.entries {
            interrupt::check()?;
            let decoded = video::read(&e.path, &wanted(20.0)).map_err(failure)?;
            let seen = model.inspect(&decoded.clip).map_err(failure)?;
            column.push(Scored {
                probabilities: seen.classes,
                label: e.label,
            });
            bar.inc(1);
        }
        scored.push((f.name.clone(), column));
    }
    bar.finish_and_clear();
    let columns = hfv::columns(&scored);
    if global.json {
        return print_json(&json!({ "model": model.card.name, "columns": columns }));
    }
    let mut t = Table::new(&[
        "generator",
        "clips",
        "4 classes ACC",
        "AUC",
        "2 classes ACC",
        "AUC",
    ]);
    for c in &columns {
        t.row(vec![
            c.generator.clone(),
            c.clips.to_string(),
            format!("{:.1}", c.accuracy_4),
            format!("{:.1}", c.auc_4),
            format!("{:.1}", c.accuracy_2),
            format!("{:.1}", c.auc_2),
        ]);
    }
    print!("{}", t.render());
    Ok(())
}
