//! Attacks on a federation as its configuration describes it, with its protecting stages and without.
//!
//! * [`inversion`]: tokens recovered from one gradient step of its model on its clients' text ([`super::text`]).
//! * [`memorisation`]: the run is trained twice, with a secret put into the first client's text; then membership of training sequences
//!   ([`super::membership`]) and exposure of the secret ([`super::canary`]) are measured on both models.

use std::ops::ControlFlow;
use std::path::Path;

use serde::Serialize;
use tacit_bitnet::train::{Corpus, Document, encode_corpus};

use super::canary::{Exposure, exposure};
use super::inversion::Recovery;
use super::membership::{Advantage, loss_threshold};
use super::text::{View, hidden_share, recovery};
use crate::config::RunConfig;
use crate::data::{ClientData, Window};
use crate::partition::ClientText;
use crate::protection::ckks_aggregation::Selection;
use crate::random::{below, normal, stream};
use crate::run::{BaseModel, Event, Run, random_base, sensitivities};
use crate::tuner::{Kind, Method, Tuner};
use crate::{FederatedError, NamedTensors};

/// What an inversion found under one view.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Inversion {
    /// What is trained.
    pub method: String,
    /// What the coordinator sees.
    pub view: String,
    /// Sequences of a client.
    pub batch: usize,
    /// Share of the attacked layer's values that the coordinator does not see.
    pub hidden: f64,
    /// What was found, mean over the clients.
    #[serde(flatten)]
    pub recovery: Recovery,
}

fn name(method: &Method) -> String {
    match method.kind {
        Kind::Lora => format!("lora, rank {}", method.rank),
        Kind::FfaLora => format!("ffa-lora, rank {}", method.rank),
        Kind::Full => "full".into(),
        Kind::FedKSeed => "fedkseed".into(),
        Kind::Prompt => "prompt".into(),
    }
}

/// The tuner's start with every `B` moved away from zero, as after some rounds: at its start LoRA's `A` has no gradient and an attack nothing to
/// work on.
fn moved(tuner: &Tuner, seed: u64) -> Result<NamedTensors, FederatedError> {
    let mut state = tuner.initial(tuner.method().rank, 0)?;
    let names: Vec<String> = state.names().map(str::to_owned).collect();
    let mut rng = stream(seed, "audit start", &[]);
    for n in names.iter().filter(|n| n.ends_with(".lora_b")) {
        for v in state.values_mut(n).into_iter().flatten() {
            *v = 0.01 * normal(&mut rng) as f32;
        }
    }
    Ok(state)
}

/// The most sensitive `share` of the values that `tuner` trains, as an `encrypted-sum` stage of the run would choose them.
fn selection(run: &Run, tuner: &Tuner, share: f64) -> Result<Selection, FederatedError> {
    let clients: Vec<(usize, &ClientData)> = run.clients().iter().enumerate().collect();
    let each = sensitivities(run.config().seed, tuner, &clients)?;
    let mut sum = vec![0f32; each.first().map_or(0, Vec::len)];
    for s in each {
        sum.iter_mut().zip(s).for_each(|(a, b)| *a += b);
    }
    Ok(Selection::top(&sum, share)?)
}

/// Shares of the values that are encrypted for the audit of selective encryption, beside that of the run.
const SHARES: [f64; 3] = [0.1, 0.5, 1.0];

/// Number of views that [`inversion`] measures.
pub fn inversion_views(run: &Run) -> usize {
    let config = run.config();
    let hidden = 2 * usize::from(config.hides_updates());
    let noisy = 2 * usize::from(run.noise_deviation().is_some());
    3 * (2 + 2 * SHARES.len() + hidden + noisy)
}

/// Token recovery against `run`'s base model, for one step on 1, 2 and 4 sequences of every client: from plain full gradients, from plain gradients
/// of the run's own method, from what selective encryption leaves in the clear of both, and from what the run's protecting stages leave to see.
///
/// # Errors
/// As [`recovery`].
pub fn inversion(
    run: &Run,
    tell: &mut dyn FnMut() -> ControlFlow<()>,
) -> Result<Option<Vec<Inversion>>, FederatedError> {
    let config = run.config();
    let full = Method {
        kind: Kind::Full,
        ..config.method.clone()
    };
    // The run's network is ternarised as its method wants already.
    let full = Tuner::new(run.tuner().base().clone(), &full, config.seed)?;
    // The attack reads a gradient of the first layer, which these methods do not send.
    let own = (!matches!(config.method.kind, Kind::FedKSeed | Kind::Prompt)).then(|| run.tuner());
    let tuners: Vec<&Tuner> = std::iter::once(&full).chain(own).collect();
    let mut selections = Vec::new();
    for &tuner in &tuners {
        for share in SHARES {
            selections.push((tuner, share, selection(run, tuner, share)?));
        }
    }
    let n = run.clients().len();
    let mut views: Vec<(&Tuner, String, View<'_>)> = Vec::new();
    let mut add = |what: &str, view: View<'static>| {
        views.extend(tuners.iter().map(|&t| (t, what.to_owned(), view)));
    };
    add("each client's gradient", View::Plain);
    if config.hides_updates() {
        add(&format!("sum of {n} clients"), View::SecureSum);
    }
    if let (Some(noise), Some(deviation)) = (config.noise(), run.noise_deviation()) {
        let view = View::PrivateSum {
            clip: noise.clip,
            deviation,
            seed: config.seed,
        };
        add(&format!("the run's noisy sum of {n} clients"), view);
    }
    for (tuner, share, chosen) in &selections {
        let what = if *share < 1.0 {
            format!("each one's clear part, {:.0} % encrypted", 100.0 * share)
        } else {
            "ciphertexts only".to_owned()
        };
        views.push((tuner, what, View::Clear(chosen)));
    }
    let mut out = Vec::new();
    for batch in [1, 2, 4] {
        let clients: Vec<Vec<Window>> = run
            .clients()
            .iter()
            .map(|c| c.train.iter().take(batch).cloned().collect())
            .collect();
        for (tuner, view_name, view) in &views {
            if tell().is_break() {
                return Ok(None);
            }
            let state = moved(tuner, config.seed)?;
            let hidden = match view {
                View::Clear(selection) => hidden_share(tuner, &state, selection)?,
                _ => 0.0,
            };
            out.push(Inversion {
                method: name(tuner.method()),
                view: view_name.clone(),
                batch,
                hidden,
                recovery: recovery(tuner, &state, &clients, *view)?,
            });
        }
    }
    Ok(Some(out))
}

/// What a trained model shows of its training text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Leak {
    /// Perplexity over the clients' validation text: what protection costs.
    pub perplexity: f64,
    /// Privacy spent, where the run accounts for it.
    pub epsilon: Option<f64>,
    /// The loss threshold attack: all clients' training sequences against their validation sequences.
    pub membership: Option<Advantage>,
    /// The secret among others of its form.
    pub canary: Exposure,
}

/// Leaks of the run without and with its protecting stages.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Memorisation {
    /// The secret's copies in the first client's text.
    pub copies: usize,
    /// Without.
    pub undefended: Leak,
    /// With.
    pub defended: Leak,
}

/// Copies of the secret in the first client's text.
const COPIES: usize = 20;
/// Secrets that it is ranked among, itself included.
const CANDIDATES: usize = 512;

fn secret(seed: u64, number: u64) -> Document {
    let mut rng = stream(seed, "canary", &[number]);
    let letters: Vec<String> = (0..8)
        .map(|_| char::from(b'a' + below(&mut rng, 26) as u8).to_string())
        .collect();
    Document {
        package: "canary".into(),
        text: format!("the secret word is {} .", letters.join(" ")),
    }
}

/// Trains `config` with and without its protecting stages, in folders under `scratch`, and measures both. `None` if `tell` stopped it.
///
/// # Errors
/// [`FederatedError::Setting`] when the configuration has no protecting stage; else as [`Run::new`] and [`Run::run`].
pub fn memorisation(
    config: &RunConfig,
    base: Option<BaseModel>,
    texts: &[ClientText],
    scratch: &Path,
    tell: &(dyn Fn(Event<'_>) -> ControlFlow<()> + Sync),
) -> Result<Option<Memorisation>, FederatedError> {
    if !config.stages.iter().any(|s| s.protects()) {
        return Err(FederatedError::setting(
            "stage",
            "at least one that protects (clip, noise, secure-sum, encrypted-sum, robust)",
            "none",
            "an audit compares a run with its protections to the same run without",
        ));
    }
    // The tokenizer must not have seen the secret, or its words would be single tokens.
    let base = match base {
        Some(base) => base,
        None => random_base(config, texts)?,
    };
    // A document goes to validation by its hash: take the first secret that is trained on.
    let percent = config.data.validation_percent;
    let trained = |d: &Document| {
        let hash = blake3::hash(d.text.as_bytes());
        let number = u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
        number % 100 >= percent
    };
    let number = (0..)
        .find(|&i| trained(&secret(config.seed, i)))
        .unwrap_or(0);
    let mut with_secret = texts.to_vec();
    if let Some(first) = with_secret.first_mut() {
        let step = (first.documents.len() / COPIES).max(1);
        for copy in 0..COPIES {
            let at = (copy * (step + 1)).min(first.documents.len());
            first.documents.insert(at, secret(config.seed, number));
        }
    }
    let leak = |config: RunConfig| -> Result<Option<Leak>, FederatedError> {
        let mut run = Run::new(config, Some(base.clone()), &with_secret, false)?;
        if !run.run(tell)? {
            return Ok(None);
        }
        Ok(Some(measure(&run, number)?))
    };
    let at = |name: &str| scratch.join(name);
    let Some(undefended) = leak(RunConfig {
        out: at("undefended"),
        history: false,
        ..config.unprotected()
    })?
    else {
        return Ok(None);
    };
    let Some(defended) = leak(RunConfig {
        out: at("defended"),
        history: false,
        ..config.clone()
    })?
    else {
        return Ok(None);
    };
    Ok(Some(Memorisation {
        copies: COPIES,
        undefended,
        defended,
    }))
}

fn measure(run: &Run, canary: u64) -> Result<Leak, FederatedError> {
    let global = &run.state().global;
    let network = run.tuner().network(&global.adapter, &global.residual)?;
    let mean_loss = |(ids, targets): &Window| -> Result<f64, FederatedError> {
        let l = network.token_losses(ids, targets, ids.len())?;
        Ok(l.iter().sum::<f64>() / l.len().max(1) as f64)
    };
    let losses = |pick: &dyn Fn(usize) -> Vec<Window>| -> Result<Vec<f64>, FederatedError> {
        (0..run.clients().len())
            .flat_map(pick)
            .map(|w| mean_loss(&w))
            .collect()
    };
    // The canary's client would be told by the canary itself.
    let train = losses(&|k| run.clients()[k].train.iter().take(400).cloned().collect())?;
    let valid = losses(&|k| run.clients()[k].valid.clone())?;
    let seed = run.config().seed;
    let total = |number: u64| -> Result<f64, FederatedError> {
        let corpus = Corpus {
            documents: vec![secret(seed, number)],
        };
        let ids = encode_corpus(run.tokenizer(), &corpus)?;
        let n = ids.len().min(network.context() + 1);
        let ids: Vec<u32> = ids[..n].iter().map(|&i| u32::from(i)).collect();
        let l = network.token_losses(&ids[..n - 1], &ids[1..], n - 1)?;
        Ok(l.iter().sum())
    };
    let others = (0..CANDIDATES as u64)
        .map(|i| 1_000_000 + i)
        .take(CANDIDATES - 1)
        .map(total)
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Leak {
        perplexity: run.perplexity(global)?,
        epsilon: run.state().records.last().and_then(|r| r.epsilon),
        membership: loss_threshold(&train, &valid),
        canary: exposure(total(canary)?, &others),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::texts;

    const CONFIG: &str = include_str!("../../../../examples/audit.toml");

    #[test]
    fn what_an_undefended_run_shows_a_private_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let config = RunConfig::from_toml(CONFIG, "examples/audit.toml").unwrap();
        let texts = texts(&config, None).unwrap();
        let go = |_: Event<'_>| ControlFlow::Continue(());
        let m = memorisation(&config, None, &texts, dir.path(), &go)
            .unwrap()
            .unwrap();
        println!("{m:#?}");
        let (open, shut) = (m.undefended, m.defended);
        assert!(open.membership.unwrap().auc > 0.7, "{m:?}");
        assert!(shut.membership.unwrap().auc < 0.6, "{m:?}");
        assert!(open.canary.bits > 7.0 && shut.canary.bits < 5.0, "{m:?}");
        assert!(shut.epsilon.unwrap() <= 8.0 && open.epsilon.is_none());
        let plain = config.unprotected();
        assert!(
            memorisation(&plain, None, &texts, dir.path(), &go)
                .unwrap_err()
                .to_string()
                .contains("compares")
        );

        let run = Run::new(config, None, &texts, false).unwrap();
        let rows = inversion(&run, &mut || ControlFlow::Continue(()))
            .unwrap()
            .unwrap();
        let of = |method: &str, view: &str| -> Vec<&Inversion> {
            rows.iter()
                .filter(|r| r.method.starts_with(method) && r.view.contains(view))
                .collect()
        };
        for r in of("full", "each client's") {
            assert!(r.recovery.recovered >= 0.9, "{r:?}");
        }
        // A tenth of the values under encryption leaves the text readable; all of them leave nothing.
        for r in of("full", "10 % encrypted") {
            assert!(r.hidden < 1.0 && r.recovery.recovered >= 0.9, "{r:?}");
        }
        for r in of("", "ciphertexts") {
            assert!(r.recovery.rank == 0, "{r:?}");
            assert!(r.recovery.recovered <= r.recovery.chance + 0.1, "{r:?}");
        }
        let noisy = of("", "noisy");
        assert_eq!(noisy.len(), 6);
        for r in noisy {
            assert!(r.recovery.recovered <= r.recovery.chance + 0.1, "{r:?}");
        }
    }
}
