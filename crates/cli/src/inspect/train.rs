//! `tacit inspect train`: the native model, from nothing, on generated video.

use std::ops::ControlFlow;

use serde_json::json;
use tacit_humansam::model::calibration::Calibration;
use tacit_humansam::model::evaluate::bench;
use tacit_humansam::model::native::train::{TrainConfig, train};
use tacit_humansam::model::native::{Card, data};

use super::failure;
use super::model_args::TrainArgs;
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output::print_json;
use crate::progress::Display;

/// Runs the command.
pub fn run(args: &TrainArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let config = TrainConfig {
        seed: args.seed,
        steps: args.steps,
        batch: args.batch,
        rate: args.lr,
        ..TrainConfig::default()
    };
    let stop = args.stop.unwrap_or(args.steps).min(args.steps);
    let bar = display.pieces("training", stop as u64);
    let mut last = None;
    let branches = train(
        &config,
        &args.out,
        args.resume,
        |i| data::training_sample(args.seed, i),
        |p| {
            bar.set_position(p.step as u64);
            bar.set_prefix(format!(
                "training, class {:.3}, parts {:.3}",
                p.losses[0], p.losses[3]
            ));
            tracing::info!(
                "step {}: losses {:?}, right {:.3}, norm {:.2}",
                p.step,
                p.losses,
                p.accuracy,
                p.norm
            );
            last = Some(p.clone());
            if p.step >= stop || interrupt::pressed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        },
    )
    .map_err(failure)?;
    bar.finish_and_clear();
    let steps = last.as_ref().map_or(0, |p| p.step);
    if interrupt::pressed() {
        return Err(Failure::new(
            Kind::Interrupted,
            format!(
                "interrupted after step {steps}; the same command with --resume goes on from there"
            ),
        ));
    }
    let card = Card {
        name: "humansam-native".to_owned(),
        training: config,
        steps,
        head_clips: args.head_clips,
        calibration_clips: args.calibration_clips,
        calibration: Calibration::default(),
    };
    let bar = display.pieces(
        "fitting the head",
        (args.head_clips + args.calibration_clips) as u64,
    );
    let model = bench::finish(branches.network, card, &|| bar.inc(1)).map_err(failure)?;
    bar.finish_and_clear();
    let folder = args.out.join("model");
    model.save(&folder).map_err(failure)?;
    if global.json {
        return print_json(
            &json!({ "model": folder, "steps": steps, "losses": last.map(|p| p.losses), "card": model.card }),
        );
    }
    println!("{steps} steps; model in {}", folder.display());
    println!("next: tacit inspect bench --model {0}", folder.display());
    Ok(())
}
