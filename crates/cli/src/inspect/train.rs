//! `tacit inspect train`: the native model, from nothing or from an earlier trunk, on generated video.

use std::ops::ControlFlow;

use serde_json::json;
use tacit_humansam::model::calibration::Calibration;
use tacit_humansam::model::evaluate::bench;
use tacit_humansam::model::native::lessons::LessonsConfig;
use tacit_humansam::model::native::train::{TrainConfig, train};
use tacit_humansam::model::native::trained::Trained;
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
    let from = args
        .from
        .as_deref()
        .map(Trained::open)
        .transpose()
        .map_err(failure)?;
    let Trained { trunk, stages } = train(
        &config,
        &args.out,
        args.resume,
        from.as_ref(),
        |i| data::training_sample(args.seed, i),
        |p| {
            bar.set_position(p.step as u64);
            bar.set_prefix(format!(
                "training, kinds {:.3}, IoU of parts {:.3}",
                p.losses[0], p.iou
            ));
            tracing::info!(
                "step {}: losses {:.3?}, IoU of parts {:.3}, norm {:.2}",
                p.step,
                p.losses,
                p.iou,
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
    let (earlier, steps) = match stages.split_last() {
        Some((last, earlier)) => (earlier.to_vec(), last.steps),
        None => (Vec::new(), 0),
    };
    if interrupt::pressed() {
        return Err(Failure::new(
            Kind::Interrupted,
            format!(
                "interrupted after step {steps}; the same command with --resume goes on from there"
            ),
        ));
    }
    if steps < args.steps {
        println!("stopped after step {steps}; --resume goes on from there");
        return Ok(());
    }
    let card = Card {
        name: "humansam-native".to_owned(),
        training: config,
        steps,
        earlier,
        lessons: LessonsConfig {
            seed: args.seed,
            pairs: args.pairs,
            epochs: args.epochs,
            confidence: args.confidence,
            ..LessonsConfig::default()
        },
        head_clips: args.head_clips,
        calibration_clips: args.calibration_clips,
        calibration: Calibration::default(),
        presence: None,
    };
    let clips = 2 * args.pairs + args.head_clips + args.calibration_clips + bench::PLACES;
    let bar = display.pieces("looking at clips", clips as u64);
    let model = bench::finish(trunk, card, &|| bar.inc(1), |p| {
        bar.set_prefix(format!(
            "learning, step {} of {}, loss {:.3}",
            p.step, p.steps, p.loss
        ));
        if p.step % 50 == 0 {
            tracing::info!(
                "step {}: loss {:.3}, right {:.3}",
                p.step,
                p.loss,
                p.accuracy
            );
        }
    })
    .map_err(failure)?;
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
