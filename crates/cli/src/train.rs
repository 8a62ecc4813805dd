//! `tacit train`: trains a BitNet that can be evaluated under encryption.

use std::ops::ControlFlow;

use serde::Serialize;
use tacit_bitnet::train::{Penalties, TrainConfig, TrainError, Trainer};

use crate::args::{Global, TrainArgs};
use crate::exit::{Failure, Kind, Outcome, chain};
use crate::interrupt;
use crate::output::print_json;
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    model: String,
    parameters: usize,
    steps: usize,
    train_tokens: usize,
    validation_perplexity: f64,
    validation_tokens: usize,
}

fn failure(error: TrainError) -> Failure {
    let kind = match &error {
        TrainError::Config(_) => Kind::Usage,
        TrainError::Io { .. }
        | TrainError::EmptyCorpus { .. }
        | TrainError::TooLittleText { .. } => Kind::Input,
        _ => Kind::Other,
    };
    Failure::new(kind, chain(&error))
}

/// Runs the command.
pub fn run(args: &TrainArgs, global: &Global) -> Outcome {
    let display = Display::pick(global.json);
    let waiting = display.waiting("reading text, training the tokenizer");
    let trainer = Trainer::new(config(args)?);
    waiting.finish_and_clear();
    let trainer = trainer.map_err(failure)?;
    let parameters = trainer.network.size();
    if args.samples > 0 {
        return samples(args, &trainer);
    }
    tracing::info!(
        "{parameters} parameters, {} steps done of {}",
        trainer.steps_done(),
        args.steps
    );
    let bar = display.pieces("training", args.steps as u64);
    let summary = trainer
        .run(|p| {
            bar.set_position(p.step as u64);
            bar.set_prefix(format!(
                "training, loss {:.3}, {:.0} tokens/s",
                p.loss, p.tokens_per_second
            ));
            if let Some(perplexity) = p.validation {
                bar.println(format!(
                    "step {}: validation perplexity {perplexity:.2}",
                    p.step
                ));
                tracing::info!("step {}: validation perplexity {perplexity:.3}", p.step);
            }
            if interrupt::pressed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })
        .map_err(failure)?;
    bar.finish_and_clear();
    if summary.interrupted {
        return Err(Failure::new(
            Kind::Interrupted,
            format!(
                "interrupted after step {}; the same command with --resume goes on from there",
                summary.steps
            ),
        ));
    }
    let report = Report {
        model: summary.model.display().to_string(),
        parameters,
        steps: summary.steps,
        train_tokens: summary.train_tokens,
        validation_perplexity: summary.validation_perplexity,
        validation_tokens: summary.validation_tokens,
    };
    if global.json {
        return print_json(&report);
    }
    println!(
        "{} parameters, {} steps on {} tokens of text; validation perplexity {:.3} on {} tokens; model in {}",
        report.parameters,
        report.steps,
        report.train_tokens,
        report.validation_perplexity,
        report.validation_tokens,
        report.model
    );
    println!(
        "next: tacit model calibrate {0} --data {1}",
        report.model,
        args.data[0].display()
    );
    Ok(())
}

fn config(args: &TrainArgs) -> Outcome<TrainConfig> {
    Ok(TrainConfig {
        data: args.data.clone(),
        exclude: args.exclude.clone(),
        out: args.out.clone(),
        from: args.from.clone(),
        hidden: args.hidden,
        layers: args.layers,
        heads: args.heads,
        ffn: args.ffn,
        vocab: args.vocab,
        context: args.context,
        steps: args.steps,
        batch: args.batch,
        lr: args.lr,
        warmup: args.warmup,
        weight_decay: args.weight_decay,
        seed: args.seed,
        attention: args.attention.parse().map_err(failure)?,
        unquantised: args.unquantised,
        penalties: if args.no_penalties {
            Penalties::none()
        } else {
            Penalties::default()
        },
        checkpoint_every: args.checkpoint_every,
        validate_every: args.validate_every,
        resume: args.resume,
        ..TrainConfig::default()
    })
}

/// Continues prompts with the network as it would be exported.
fn samples(args: &TrainArgs, trainer: &Trainer) -> Outcome {
    const PROMPTS: [&str; 10] = [
        "The function returns",
        "Returns an error if",
        "This method is used to",
        "Creates a new",
        "A type that",
        "The default value is",
        "If the iterator is empty,",
        "Note that this",
        "This trait is implemented for",
        "Converts the",
    ];
    let network = trainer.network.as_exported();
    for (i, prompt) in PROMPTS.iter().cycle().take(args.samples).enumerate() {
        println!(
            "- {}",
            network
                .continue_text(trainer.tokenizer(), prompt, 40, 0.7, i as u64)
                .map_err(failure)?
        );
    }
    Ok(())
}
