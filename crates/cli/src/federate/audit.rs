//! `tacit federate audit`: attacks with their measures, against protected and unprotected runs.

use std::ops::ControlFlow;

use serde::Serialize;
use tacit_federated::audit::aggregator::{Cheat, cheat};
use tacit_federated::audit::byzantine::{Attack, Cell, Setup, defences, table};
use tacit_federated::audit::federation::{
    Inversion, Leak, Memorisation, inversion, inversion_views, memorisation,
};
use tacit_federated::config::RunConfig;
use tacit_federated::run::Event;

use super::args::{AttackArg, AuditArgs};
use super::failure;
use super::setting::{self, Setting};
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output::{Table, print_json};
use crate::progress::Display;

/// The federation that is trained when no configuration is given.
const SMALL: &str = include_str!("../../../../examples/audit.toml");

/// The JSON object: one field an attack that was played.
#[derive(Debug, Default, Serialize)]
struct Report {
    inversion: Option<Vec<Inversion>>,
    memorisation: Option<Memorisation>,
    rules: Option<Vec<Cell>>,
    aggregator: Option<Cheat>,
}

fn stopped() -> Failure {
    Failure::new(Kind::Interrupted, "interrupted")
}

fn go_on() -> ControlFlow<()> {
    if interrupt::pressed() {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}

/// Runs the command.
pub fn run(args: &AuditArgs, global: &Global) -> Outcome {
    let wanted = |a: AttackArg| args.attack.is_empty() || args.attack.contains(&a);
    let display = Display::pick(global.json);
    let mut report = Report::default();
    let with_rounds = |mut c: RunConfig| {
        if let Some(rounds) = args.rounds {
            c.rounds = rounds;
        }
        c
    };
    if wanted(AttackArg::Inversion) {
        let config = with_rounds(setting::config(args.config.as_deref())?);
        let run = Setting::read(&config)?.run(config, false)?;
        let bar = display.pieces("inverting gradients", inversion_views(&run) as u64);
        let mut tell = || {
            bar.inc(1);
            go_on()
        };
        let rows = inversion(&run, &mut tell).map_err(failure)?;
        bar.finish_and_clear();
        let rows = rows.ok_or_else(stopped)?;
        if !global.json {
            show_inversion(&rows);
        }
        report.inversion = Some(rows);
    }
    if wanted(AttackArg::Memorisation) {
        let config = with_rounds(match &args.config {
            Some(path) => setting::config(Some(path))?,
            None => RunConfig::from_toml(SMALL, "examples/audit.toml").map_err(failure)?,
        });
        let s = Setting::read(&config)?;
        let scratch = tempfile::tempdir()?;
        let bar = display.pieces(
            "training with and without protections",
            2 * config.rounds as u64,
        );
        let tell = |e: Event<'_>| {
            if matches!(e, Event::Round(_)) {
                bar.inc(1);
            }
            go_on()
        };
        let m = memorisation(&config, Some(s.base), &s.texts, scratch.path(), &tell)
            .map_err(failure)?;
        bar.finish_and_clear();
        let m = m.ok_or_else(stopped)?;
        if !global.json {
            show_memorisation(&m);
        }
        report.memorisation = Some(m);
    }
    if wanted(AttackArg::Rules) {
        let cells = (2 * Attack::ALL.len() * defences().len()) as u64;
        let bar = display.pieces("attacking aggregation rules", cells);
        let mut all = Vec::new();
        for bad in [2, 4] {
            let setup = Setup {
                bad,
                ..Setup::default()
            };
            all.extend(table(setup, || bar.inc(1)));
            interrupt::check()?;
        }
        bar.finish_and_clear();
        if !global.json {
            show_rules(&all);
        }
        report.rules = Some(all);
    }
    if wanted(AttackArg::Aggregator) {
        let c = cheat(8).map_err(failure)?;
        if !global.json {
            show_aggregator(c);
        }
        report.aggregator = Some(c);
    }
    if global.json {
        return print_json(&report);
    }
    Ok(())
}

fn percent(x: f64) -> String {
    format!("{:.1} %", 100.0 * x)
}

fn show_inversion(rows: &[Inversion]) {
    println!("token recovery from one gradient step (span test of DAGER), mean over the clients");
    let mut t = Table::new(&[
        "batch",
        "trained",
        "coordinator sees",
        "layer hidden",
        "tokens",
        "rank",
        "width",
        "recovered",
        "chance",
    ]);
    for r in rows {
        t.row(vec![
            r.batch.to_string(),
            r.method.clone(),
            r.view.clone(),
            percent(r.hidden),
            r.recovery.tokens.to_string(),
            r.recovery.rank.to_string(),
            r.recovery.width.to_string(),
            percent(r.recovery.recovered),
            percent(r.recovery.chance),
        ]);
    }
    println!("{}", t.render());
}

fn show_memorisation(m: &Memorisation) {
    println!(
        "memorisation: the run without and with its protecting stages; a secret lies {} times in client 0's text",
        m.copies
    );
    let mut t = Table::new(&[
        "run",
        "perplexity",
        "epsilon",
        "membership AUC",
        "found at 1 % false",
        "canary bits",
        "of",
    ]);
    for (name, l) in [("undefended", &m.undefended), ("defended", &m.defended)] {
        let Leak {
            perplexity,
            epsilon,
            membership,
            canary,
        } = l;
        t.row(vec![
            name.into(),
            format!("{perplexity:.2}"),
            epsilon.map_or_else(|| "-".into(), |e| format!("{e:.2}")),
            membership.map_or_else(String::new, |a| format!("{:.3}", a.auc)),
            membership.map_or_else(String::new, |a| percent(a.true_positives_at_one_percent)),
            format!("{:.1}", canary.bits),
            format!("{:.0}", (canary.candidates as f64).log2()),
        ]);
    }
    println!("{}", t.render());
}

fn show_rules(cells: &[Cell]) {
    for bad in [2, 4] {
        println!(
            "20 clients, {bad} bad ({} %): accuracy % / attack success %",
            5 * bad
        );
        let mut head = vec!["rule"];
        head.extend(Attack::ALL.iter().map(|a| a.name()));
        let mut t = Table::new(&head);
        for (name, _) in defences() {
            let mut row = vec![name.to_owned()];
            for attack in Attack::ALL {
                let cell = cells
                    .iter()
                    .find(|c| c.bad == bad && c.attack == attack && c.defence == name);
                row.push(match cell.map(|c| (&c.outcome, c.success)) {
                    Some((Ok(o), Some(s))) => {
                        format!("{:.0} / {:.0}", 100.0 * o.accuracy, 100.0 * s)
                    }
                    _ => "refuses".into(),
                });
            }
            t.row(row);
        }
        println!("{}", t.render());
    }
}

fn show_aggregator(c: Cheat) {
    println!(
        "a cheating coordinator in secure aggregation, {} clients; {} shares unmask one",
        c.clients, c.needed
    );
    let mut t = Table::new(&["what it does", "clients that hand out shares or go on"]);
    t.row(vec![
        "tells all one list of survivors (honest)".into(),
        c.shares_when_told_one_list.to_string(),
    ]);
    t.row(vec![
        "tells two lists of survivors".into(),
        c.shares_when_told_two_lists.to_string(),
    ]);
    t.row(vec![
        "puts a mask key of its own in the victim's place".into(),
        c.accepted_forged_key.to_string(),
    ]);
    println!("{}", t.render());
}
