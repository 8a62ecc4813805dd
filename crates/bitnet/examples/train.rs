//! Trains a model: `cargo run --release -p tacit-bitnet --example train -- --data DIR --out DIR [flags]`.

use std::io::Write;
use std::ops::ControlFlow;
use tacit_bitnet::train::{Penalties, TrainConfig, Trainer};

fn main() {
    if let Err(e) = run() {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut c = TrainConfig::default();
    let mut samples = 0;
    let mut args = std::env::args().skip(1);
    while let Some(flag) = args.next() {
        let mut value = || args.next().ok_or(format!("{flag} needs a value"));
        match flag.as_str() {
            "--data" => c.data.push(value()?.into()),
            "--exclude" => c.exclude.push(value()?),
            "--out" => c.out = value()?.into(),
            "--hidden" => c.hidden = value()?.parse()?,
            "--layers" => c.layers = value()?.parse()?,
            "--heads" => c.heads = value()?.parse()?,
            "--ffn" => c.ffn = value()?.parse()?,
            "--vocab" => c.vocab = value()?.parse()?,
            "--context" => c.context = value()?.parse()?,
            "--steps" => c.steps = value()?.parse()?,
            "--batch" => c.batch = value()?.parse()?,
            "--lr" => c.lr = value()?.parse()?,
            "--warmup" => c.warmup = value()?.parse()?,
            "--weight-decay" => c.weight_decay = value()?.parse()?,
            "--seed" => c.seed = value()?.parse()?,
            "--attention" => c.attention = value()?.parse()?,
            "--unquantised" => c.unquantised = true,
            "--no-penalties" => c.penalties = Penalties::none(),
            "--penalty-logits" => c.penalties.logits = value()?.parse()?,
            "--penalty-norms" => c.penalties.norms = value()?.parse()?,
            "--penalty-gate" => c.penalties.gate = value()?.parse()?,
            "--penalty-peaks" => c.penalties.peaks = value()?.parse()?,
            "--checkpoint-every" => c.checkpoint_every = value()?.parse()?,
            "--validate-every" => c.validate_every = value()?.parse()?,
            "--resume" => c.resume = true,
            "--samples" => samples = value()?.parse()?,
            _ => return Err(format!("unknown flag {flag}").into()),
        }
    }
    let trainer = Trainer::new(c.clone())?;
    eprintln!(
        "{} parameters, {} steps done of {}",
        trainer.network.size(),
        trainer.steps_done(),
        c.steps
    );
    if samples > 0 {
        print_samples(&trainer, samples)?;
        let (perplexity, tokens) = trainer.validate(1920)?;
        println!(
            "validation perplexity {perplexity:.3} on {tokens} tokens; model written to {}",
            trainer.export()?.display()
        );
        return Ok(());
    }
    let summary = trainer.run(|p| {
        let validation = p.validation.map_or_else(String::new, |v| format!("  validation perplexity {v:.2}\n"));
        eprint!(
            "\rstep {}/{}  loss {:.3}  penalties {:.4} {:.4} {:.4}  |g| {:.2}  {:.0} tokens/s  {} s left   {validation}",
            p.step, p.steps, p.loss, p.penalties[0], p.penalties[1], p.penalties[2], p.gradient_norm, p.tokens_per_second, p.remaining.as_secs()
        );
        std::io::stderr().flush().ok();
        ControlFlow::Continue(())
    })?;
    eprintln!("\n{summary:?}");
    Ok(())
}

fn print_samples(trainer: &Trainer, count: usize) -> Result<(), Box<dyn std::error::Error>> {
    let prompts = [
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
    for (i, p) in prompts.iter().cycle().take(count).enumerate() {
        println!(
            "- {}",
            trainer.network.as_exported().continue_text(
                trainer.tokenizer(),
                p,
                40,
                0.7,
                i as u64
            )?
        );
    }
    Ok(())
}
