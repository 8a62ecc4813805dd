//! `tacit federate forget`: a run without one of its clients, and a certificate.

use std::ops::ControlFlow;

use serde::Serialize;
use tacit_federated::run::{Exported, Forgetting, Way, export, forget};
use tacit_federated::unlearning::Removal;

use super::args::{ForgetArgs, WayArg};
use super::failure;
use super::setting::{self, Setting};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output::{Table, print_json, seconds};
use crate::progress::Display;

/// The JSON object.
#[derive(Debug, Serialize)]
struct Report {
    client: usize,
    #[serde(flatten)]
    forgetting: Forgetting,
    exported: Exported,
}

/// Runs the command.
pub fn run(args: &ForgetArgs, global: &Global) -> Outcome {
    let mut config = setting::config(Some(&args.config))?;
    if let Some(out) = &args.out {
        config.out = out.clone();
    }
    let waiting = Display::pick(global.json)
        .waiting("forgetting, and training a model without the client to compare with");
    let done = Setting::read(&config).and_then(|s| {
        let way = match args.way {
            WayArg::Best => Way::Best,
            WayArg::Replay => Way::Replay,
            WayArg::Subtract => Way::Subtract,
        };
        let tell = |_: tacit_federated::run::Event<'_>| {
            if interrupt::pressed() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        forget(&config, Some(s.base), &s.texts, args.client, way, &tell).map_err(failure)
    });
    waiting.finish_and_clear();
    let Some(done) = done? else {
        return Err(Failure::new(
            Kind::Interrupted,
            "interrupted; the run is as it was",
        ));
    };
    let out = done.run.config().out.clone();
    let exported =
        export(&done.run, &done.run.state().global, &out.join("model")).map_err(failure)?;
    let certificate = out.join("certificate.json");
    std::fs::write(
        &certificate,
        serde_json::to_string_pretty(&done.report.certificate)?,
    )?;
    let report = Report {
        client: args.client,
        forgetting: done.report,
        exported,
    };
    if global.json {
        return print_json(&report);
    }
    let f = &report.forgetting;
    let how = match f.certificate.removal {
        Removal::Exact { round } => format!("round {} was formed again without it", round + 1),
        Removal::Replay { from_round } => format!(
            "rounds {} to the last were replayed without it",
            from_round + 1
        ),
        Removal::Subtract { .. } => {
            "its share of every average was taken back (approximate)".into()
        }
    };
    println!(
        "client {} ({}) took part in {} rounds; {how}",
        args.client, f.name, f.rounds
    );
    let mut table = Table::new(&["model", "perplexity", "on its text", "membership AUC", "s"]);
    for (name, m, s) in [
        ("with the client", f.before, None),
        ("after forgetting", f.after, Some(f.seconds)),
        (
            "trained without it",
            f.retrained,
            Some(f.retraining_seconds),
        ),
    ] {
        table.row(vec![
            name.into(),
            format!("{:.3}", m.perplexity),
            format!("{:.3}", m.on_forgotten),
            m.membership_auc
                .map_or_else(String::new, |a| format!("{a:.3}")),
            s.map_or_else(String::new, seconds),
        ]);
    }
    print!("{}", table.render());
    println!(
        "distance to the model trained without it: {:.3e} of what training changed{}",
        f.certificate.distance,
        if f.certificate.distance == 0.0 {
            ": the same bits"
        } else {
            ""
        }
    );
    println!(
        "model in {}, certificate in {}",
        report.exported.folder.display(),
        certificate.display()
    );
    Ok(())
}
