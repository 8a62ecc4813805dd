//! Whole runs on generated text.

use super::fixture::{config, finish, start};
use super::*;
use crate::local::Optimiser;

const VARIANTS: [&str; 18] = [
    "",
    "clients_per_round = 2\n[rule]\nkind = \"fedadam\"\n",
    "[method]\nkind = \"ffa-lora\"\ntargets = [\"qkv\", \"embedding\"]\n[rule]\nkind = \"fedyogi\"\n",
    "[method]\nkind = \"full\"\n[rule]\nkind = \"fedavgm\"\n",
    "combine = \"stack\"\n[method]\nrank = 6\nranks = [6, 2, 4, 1]\n",
    "combine = \"residual\"\n[rule]\nkind = \"fedavg\"\n",
    "combine = \"svd\"\n[method]\nrank = 6\nranks = [6, 2, 4, 1]\n",
    "combine = \"pad\"\n[method]\nrank = 6\nranks = [6, 2, 4, 1]\n",
    "[train]\noptimiser = \"sgd\"\nscaffold = true\nprox = 0.01\n",
    "[[stage]]\nkind = \"top-k\"\nshare = 0.2\n[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n",
    "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n",
    "history = true\n[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n[[stage]]\nkind = \"signed\"\n",
    "[method]\nforward = \"float\"\nscales = true\n[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n",
    "[method]\nkind = \"fedkseed\"\nseeds = 64\nforward = \"float\"\n[train]\noptimiser = \"sgd\"\n",
    "[clock]\nbuffer = 3\nspread = 6.0\n[[stage]]\nkind = \"top-k\"\nshare = 0.3\n",
    "clients_per_round = 2\n[clock]\nbuffer = 2\n[rule]\nkind = \"fedadam\"\n",
    "[clock]\ndeadline = 2.0\n[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n",
    "[method]\nkind = \"prompt\"\nprompt = 4\n[[stage]]\nkind = \"quantise\"\nvalues = \"int8\"\n",
];

#[test]
fn every_variant_learns_repeats_by_seed_and_resumes_to_the_same_bits() {
    for variant in VARIANTS {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), variant);
        if c.train.optimiser == Optimiser::Sgd {
            c.train.lr = 0.2;
        }
        let mut whole = start(&c, false);
        let before = whole.perplexity(&whole.state().global).unwrap();
        let want = finish(&mut whole);
        let after = whole.state().records.last().unwrap().validation_perplexity;
        assert!(after < before, "{variant}: {before} to {after}");

        // The same again, stopped after the second round and, by another process so to speak, in the middle of the third.
        c.out = dir.path().join("again");
        let mut first = start(&c, false);
        let stopped = first.run(&|e| match e {
            Event::Round(r) if r.round == 2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(!stopped.unwrap());
        let mut second = start(&c, true);
        assert_eq!(second.state().records.len(), 2);
        let stopped = second.run(&|e| match e {
            Event::Trained { round: 3, .. } => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(!stopped.unwrap());
        let mut third = start(&c, true);
        assert_eq!(finish(&mut third), want, "{variant}");
        assert_eq!(third.state().global, whole.state().global, "{variant}");
    }
}

#[test]
fn threads_do_not_change_the_result() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "");
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| finish(&mut start(&c, false)))
    };
    assert_eq!(with(1), with(3));
}

#[test]
fn the_secure_sum_gives_the_plain_average_up_to_its_steps() {
    let dir = tempfile::tempdir().unwrap();
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n";
    let mut c = config(dir.path(), clip);
    c.rounds = 1;
    let mut plain = start(&c, false);
    // Equal weights, as under a secure sum.
    let n = plain.clients.iter().map(|c| c.train.len()).min().unwrap();
    plain.clients.iter_mut().for_each(|c| c.train.truncate(n));
    c.stages.push(Stage::SecureSum { bits: 28 });
    let mut secure = start(&c, false);
    secure.clients.iter_mut().for_each(|c| c.train.truncate(n));
    finish(&mut plain);
    finish(&mut secure);
    let d = plain
        .state()
        .global
        .adapter
        .difference(&secure.state().global.adapter)
        .unwrap();
    assert!(d.flatten().iter().all(|x| x.abs() < 1e-7));
    let (p, s) = (&plain.state().records[0], &secure.state().records[0]);
    assert!(p.aggregation_error.is_some() && s.aggregation_error.is_none());
    assert!(s.bytes_up < 2 * p.bytes_up, "{} {}", s.bytes_up, p.bytes_up);
}

#[test]
fn noise_is_accounted_for_and_a_run_beyond_its_budget_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[method]\nkind = \"ffa-lora\"\nrank = 2\ntargets = [\"o\", \"down\"]\n[rule]\nkind = \"fedadam\"\neta = 0.02\n[[stage]]\nkind = \"noise\"\nepsilon = 40.0\nclip = 0.5\nexamples = 12\n[[stage]]\nkind = \"secure-sum\"\n";
    let c = config(dir.path(), text);
    let mut run = start(&c, false);
    finish(&mut run);
    let spent: Vec<f64> = run
        .state()
        .records
        .iter()
        .map(|r| r.epsilon.unwrap())
        .collect();
    assert!(
        spent.windows(2).all(|w| w[0] < w[1]) && spent[3] <= 40.0 && spent[3] > 35.0,
        "{spent:?}"
    );
    // Fresh noise: another run ends elsewhere.
    let mut c2 = c.clone();
    c2.out = dir.path().join("other");
    let mut other = start(&c2, false);
    finish(&mut other);
    assert_ne!(other.state().global.adapter, run.state().global.adapter);
    let mut alone = c;
    alone.stages.remove(1);
    assert!(
        alone
            .check()
            .unwrap_err()
            .to_string()
            .contains("secure-sum")
    );
}

#[test]
fn bytes_are_counted_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.rounds = 1;
    let mut run = start(&c, false);
    finish(&mut run);
    let message = (18 + 4 * run.trained_values()) as u64;
    let r = &run.state().records[0];
    assert_eq!((r.bytes_up, r.bytes_down), (4 * message, 4 * message));
    c.stages = vec![Stage::Quantise {
        values: crate::compress::Values::Int4,
    }];
    let mut small = start(&c, false);
    finish(&mut small);
    let t = small.state().global.adapter.len() as u64;
    let bytes = 18 + 4 * t + (run.trained_values() as u64).div_ceil(2);
    assert_eq!(small.state().records[0].bytes_up, 4 * bytes);
}

#[test]
fn a_comparison_and_an_export_measure_what_they_say() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.rounds = 6;
    let mut run = start(&c, false);
    finish(&mut run);
    let x = compare(&run, &|_| ControlFlow::Continue(()))
        .unwrap()
        .unwrap();
    assert_eq!(x.alone.len(), 4);
    assert_eq!(x.federated, run.state().records[5].validation_perplexity);
    assert!(x.federated < x.base && x.central < x.base);
    assert!(
        compare(&run, &|_| ControlFlow::Break(()))
            .unwrap()
            .is_none()
    );

    let folder = dir.path().join("model");
    let e = export(&run, &run.state().global, &folder).unwrap();
    assert!(!e.ternarised && (e.served_perplexity / e.trained_perplexity - 1.0).abs() < 0.01);
    let (model, _) = tacit_bitnet::checkpoint::load(&folder).unwrap();
    let read = Network::from_model(&model).unwrap();
    let served = perplexity(&read, run.validation()).unwrap();
    assert!((served / e.served_perplexity - 1.0).abs() < 1e-6);

    c.method.forward = crate::tuner::Forward::Float;
    c.out = dir.path().join("float");
    let mut float = start(&c, false);
    finish(&mut float);
    let e = export(
        &float,
        &float.state().global,
        &dir.path().join("float-model"),
    )
    .unwrap();
    assert!(e.ternarised && e.served_perplexity > e.trained_perplexity);
    c.method.targets = vec!["embedding".into()];
    c.method.scales = true;
    c.out = dir.path().join("exact");
    let mut exact = start(&c, false);
    finish(&mut exact);
    let e = export(
        &exact,
        &exact.state().global,
        &dir.path().join("exact-model"),
    )
    .unwrap();
    assert!(!e.ternarised && (e.served_perplexity / e.trained_perplexity - 1.0).abs() < 0.01);
}

#[test]
fn encrypted_and_signed_updates_average_as_plain_ones() {
    let dir = tempfile::tempdir().unwrap();
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n";
    let mut c = config(dir.path(), clip);
    c.rounds = 1;
    let equal = |run: &mut Run| {
        let n = run.clients.iter().map(|c| c.train.len()).min().unwrap();
        run.clients.iter_mut().for_each(|c| c.train.truncate(n));
    };
    let mut plain = start(&c, false);
    equal(&mut plain);
    finish(&mut plain);
    let want = plain.state().global.adapter.clone();
    c.stages.push(Stage::Signed {});
    let mut signed = start(&c, false);
    equal(&mut signed);
    finish(&mut signed);
    assert_eq!(signed.state().global.adapter, want);
    let (p, s) = (&plain.state().records[0], &signed.state().records[0]);
    assert_eq!(s.bytes_up - p.bytes_up, 4 * 136);
    c.stages.push(Stage::EncryptedSum { share: 1.0 });
    let mut hidden = start(&c, false);
    equal(&mut hidden);
    finish(&mut hidden);
    let d = want.difference(&hidden.state().global.adapter).unwrap();
    assert!(d.flatten().iter().all(|x| x.abs() < 1e-6));
    assert!(hidden.state().records[0].aggregation_error.is_none());
}

fn forgotten(c: &RunConfig, client: usize, way: Way) -> Result<Forgotten, FederatedError> {
    let texts = texts(c, None)?;
    let go = |_: Event<'_>| ControlFlow::Continue(());
    Ok(forget(c, None, &texts, client, way, &go)?.unwrap())
}

#[test]
fn a_client_of_the_last_round_is_forgotten_bit_for_bit() {
    for (extra, stage) in [
        ("history = true\ncombine = \"stack\"\n", ""),
        (
            "history = true\n",
            "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n",
        ),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), &format!("{extra}{stage}"));
        c.rounds = 1;
        finish(&mut start(&c, false));
        let f = forgotten(&c, 2, Way::Best).unwrap();
        let r = &f.report;
        assert_eq!(
            r.certificate.removal,
            crate::unlearning::Removal::Exact { round: 0 }
        );
        assert_eq!((r.certificate.distance, r.replayed, r.rounds), (0.0, 0, 1));
        assert_eq!(r.after, r.retrained);
        assert_ne!(r.after.on_forgotten, r.before.on_forgotten);
        assert_eq!(f.run.state().records[0].clients, [0, 1, 3]);
    }
}

#[test]
fn a_client_of_several_rounds_is_forgotten_by_replay_or_nearly_by_subtraction() {
    let dir = tempfile::tempdir().unwrap();
    let c = config(dir.path(), "history = true\nclients_per_round = 2\n");
    let mut run = start(&c, false);
    finish(&mut run);
    let first = |k: usize| {
        run.state()
            .records
            .iter()
            .position(|r| r.clients.contains(&k))
    };
    // A client that came late and then stayed or not: replay begins where it first came.
    let client = (0..4)
        .filter(|&k| first(k).is_some())
        .max_by_key(|&k| first(k))
        .unwrap();
    let f = forgotten(&c, client, Way::Replay).unwrap();
    assert_eq!(f.report.certificate.distance, 0.0, "{:?}", f.report);
    assert_eq!(f.report.replayed, 4 - first(client).unwrap());
    let near = forgotten(&c, run.state().records[0].clients[0], Way::Subtract).unwrap();
    let d = near.report.certificate.distance;
    assert!(d > 0.0 && d < 1.0, "{d}");
    assert!(forgotten(&c, 9, Way::Best).is_err());
    // A hidden sum has nothing to take back, and a run without history nothing to begin from.
    let mut hidden = c.clone();
    hidden.clients_per_round = 0;
    hidden.rounds = 2;
    hidden.out = dir.path().join("hidden");
    hidden.stages = vec![Stage::Clip { norm: 0.5 }, Stage::SecureSum { bits: 24 }];
    finish(&mut start(&hidden, false));
    assert!(
        forgotten(&hidden, 0, Way::Subtract)
            .unwrap_err()
            .to_string()
            .contains("replay")
    );
    let replayed = forgotten(&hidden, 0, Way::Best).unwrap();
    assert_eq!(replayed.report.certificate.distance, 0.0);
    hidden.history = false;
    hidden.out = dir.path().join("none");
    finish(&mut start(&hidden, false));
    assert!(
        forgotten(&hidden, 0, Way::Best)
            .unwrap_err()
            .to_string()
            .contains("history = true")
    );
}
