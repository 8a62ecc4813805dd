//! Runs of stages that look at updates or at their sums: robust rules in groups, FLTrust, selective encryption.

use super::fixture::{config, finish, start};
use super::*;

const SECURE: &str =
    "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\nbits = 28\n";

/// A run of `clients` clients, all with as many examples.
fn alike(c: &RunConfig) -> Run {
    let mut run = start(c, false);
    let n = run.clients.iter().map(|k| k.train.len()).min().unwrap();
    run.clients.iter_mut().for_each(|k| k.train.truncate(n));
    run
}

fn of(dir: &std::path::Path, clients: usize, extra: &str) -> RunConfig {
    let mut c = config(dir, "");
    c.data.clients = clients;
    c.stages = RunConfig::from_toml(
        &format!("{extra}[data]\nclients = {clients}\ngrammar = {{}}\n"),
        "x",
    )
    .unwrap()
    .stages;
    c.rounds = 1;
    c
}

#[test]
fn a_robust_rule_goes_over_the_means_of_groups_and_keeps_a_bad_client_out() {
    let dir = tempfile::tempdir().unwrap();
    let groups =
        "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\nbuckets = 3\n";
    let c = of(dir.path(), 9, &format!("{SECURE}{groups}"));
    let mut run = alike(&c);
    let contributions: Vec<_> = (0..9).map(|k| run.client(0, k).unwrap()).collect();
    let ids: Vec<u32> = (0..9).collect();
    let buckets = crate::protection::robust::Buckets::new(&ids, 3, run.group_seed(0)).unwrap();
    // Each group's plain mean, the coordinate-wise median of which is what the round must give.
    let means: Vec<Vec<f32>> = buckets
        .groups()
        .iter()
        .map(|g| {
            let mut sum = run.state().global.adapter.zeros_like();
            for &k in g {
                sum.axpy(1.0 / 3.0, &contributions[k as usize].update)
                    .unwrap();
            }
            sum.flatten()
        })
        .collect();
    let start_from = run.state().global.adapter.flatten();
    finish(&mut run);
    let got = run.state().global.adapter.flatten();
    for (i, (x, s)) in got.iter().zip(&start_from).enumerate() {
        let mut three: Vec<f32> = means.iter().map(|m| m[i]).collect();
        three.sort_by(f32::total_cmp);
        assert!((x - s - three[1]).abs() < 1e-6, "{i}: {x} {three:?}");
    }
    // A client that sends as much as a generous bound lets it, in the other direction, spoils one group and hardly moves the median.
    let wide = SECURE.replace("0.5", "20.0");
    let honest = alike(&of(dir.path(), 9, &format!("{wide}{groups}")));
    let mut lying: Vec<_> = (0..9).map(|k| honest.client(0, k).unwrap()).collect();
    let n = lying[4].update.norm();
    lying[4].update.scale((-19.9 / n) as f32);
    let aggregate =
        |run: &Run, c: &[super::client::Contribution]| run.aggregate(0, c).unwrap().average;
    let contributions: Vec<_> = (0..9).map(|k| honest.client(0, k).unwrap()).collect();
    let clean = aggregate(&honest, &contributions);
    let moved = aggregate(&honest, &lying)
        .difference(&clean)
        .unwrap()
        .norm();
    let plain = alike(&of(dir.path(), 9, &wide));
    let undefended = aggregate(&plain, &lying)
        .difference(&aggregate(&plain, &contributions))
        .unwrap();
    assert!(
        moved < 0.3 * undefended.norm(),
        "{moved} {}",
        undefended.norm()
    );
}

#[test]
fn the_coordinators_own_text_decides_whom_fltrust_believes() {
    let dir = tempfile::tempdir().unwrap();
    let trust = "[[stage]]\nkind = \"robust\"\nrule = { name = \"fl-trust\" }\n";
    let mut c = of(dir.path(), 4, trust);
    c.rounds = 4;
    let mut run = start(&c, false);
    let root = run.root_update(0).unwrap().unwrap();
    assert!(run.root.as_ref().unwrap().train.len() > 3);
    let mut contributions: Vec<_> = (0..4).map(|k| run.client(0, k).unwrap()).collect();
    let clean = run.aggregate(0, &contributions).unwrap().average;
    // Three of four turn their updates round and magnify them: none is believed.
    for c in &mut contributions[1..] {
        c.update.scale(-50.0);
    }
    let attacked = run.aggregate(0, &contributions).unwrap().average;
    let norm: f64 = root
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();
    let step = |a: &NamedTensors| a.difference(&run.state().global.adapter).unwrap().norm();
    assert!(step(&attacked) <= norm * 1.001 && step(&clean) <= norm * 1.001);
    let mut mean = attacked.clone();
    mean.axpy(-1.0, &run.state().global.adapter).unwrap();
    let along: f64 = mean
        .flatten()
        .iter()
        .zip(&root)
        .map(|(a, b)| f64::from(a * b))
        .sum();
    assert!(along > 0.0);
    let before = run.perplexity(&run.state().global).unwrap();
    finish(&mut run);
    assert!(run.state().records[3].validation_perplexity < before);
    // The text may lie in a folder; a folder that is not there is named.
    let folder = dir.path().join("root");
    let text = partition::generated(9, 1, 40, 4, 1.0);
    partition::write(&folder, &text).unwrap();
    if let Stage::Robust { root, .. } = &mut c.stages[0] {
        *root = Some(folder);
    }
    let read = start(&c, false);
    assert_ne!(read.root_update(0).unwrap().unwrap(), root);
    assert_eq!(
        read.fingerprint, run.fingerprint,
        "its text is the coordinator's affair"
    );
    if let Stage::Robust { root, .. } = &mut c.stages[0] {
        *root = Some(dir.path().join("nowhere"));
    }
    let texts = texts(&c, None).unwrap();
    let e = Run::new(c, None, &texts, false).unwrap_err().to_string();
    assert!(e.contains("nowhere"), "{e}");
}

#[test]
fn selective_encryption_gives_the_plain_average_and_counts_its_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n";
    let mut plain = alike(&of(dir.path(), 4, clip));
    finish(&mut plain);
    let with = |share: &str, more: &str| {
        let stage = format!("{clip}[[stage]]\nkind = \"encrypted-sum\"\n{share}{more}");
        let mut run = alike(&of(dir.path(), 4, &stage));
        finish(&mut run);
        let d = plain
            .state()
            .global
            .adapter
            .difference(&run.state().global.adapter)
            .unwrap();
        assert!(d.flatten().iter().all(|x| x.abs() < 1e-6));
        run.state().records[0].bytes_up
    };
    let (all, tenth) = (with("", ""), with("share = 0.1\n", ""));
    // In the clear are nine tenths of the values, four bytes each. So few values fit into one ciphertext, whole or a tenth.
    let clear = 4 * 4 * (plain.trained_values() - plain.trained_values().div_ceil(10)) as u64;
    assert_eq!(tenth, clear + all);
    let signed = with("share = 0.1\n", "[[stage]]\nkind = \"signed\"\n");
    assert!(signed > tenth && signed < tenth + 4 * 200);
}

#[test]
fn what_depends_on_the_labels_is_sensitive() {
    let dir = tempfile::tempdir().unwrap();
    let run = start(&of(dir.path(), 4, ""), false);
    let data: Vec<(usize, &ClientData)> = run.clients.iter().enumerate().collect();
    let all = super::encrypted::sensitivities(run.config.seed, &run.tuner, &data).unwrap();
    for s in &all {
        let norm = s.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        assert!((norm - 1.0).abs() < 1e-3 && s.iter().all(|x| *x >= 0.0));
    }
    assert_ne!(all[0], all[1]);
    let again = super::encrypted::sensitivities(run.config.seed, &run.tuner, &data).unwrap();
    assert_eq!(all, again);
    // The clients agree on much of what matters: their most sensitive tenths overlap far more than by chance.
    let top = |s: &[f32]| {
        let chosen = crate::protection::ckks_aggregation::Selection::top(s, 0.1).unwrap();
        chosen.chosen().iter().copied().collect::<BTreeSet<u32>>()
    };
    let (a, b) = (top(&all[0]), top(&all[1]));
    assert!(a.intersection(&b).count() * 3 > a.len());
}

#[test]
fn a_verified_sum_gives_the_plain_average_and_names_a_client_beyond_its_norm() {
    let dir = tempfile::tempdir().unwrap();
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 0.5\n";
    let small = |extra: &str| {
        let mut c = of(dir.path(), 3, extra);
        c.method.rank = 1;
        c.method.targets = vec!["o".into()];
        alike(&c)
    };
    let mut plain = small(clip);
    finish(&mut plain);
    for more in ["", "[[stage]]\nkind = \"signed\"\n"] {
        let mut run = small(&format!("{clip}[[stage]]\nkind = \"verified-sum\"\n{more}"));
        let mut lying: Vec<_> = (0..3).map(|k| run.client(0, k).unwrap()).collect();
        finish(&mut run);
        let d = plain
            .state()
            .global
            .adapter
            .difference(&run.state().global.adapter)
            .unwrap();
        assert!(d.flatten().iter().all(|x| x.abs() < 0.5 / 32_768.0));
        assert!(run.state().records[0].aggregation_error.is_none());
        let n = lying[1].update.norm();
        lying[1].update.scale((0.6 / n) as f32);
        let e = run.aggregate(1, &lying).err().unwrap().to_string();
        assert!(e.contains("clip"), "{e}");
    }
}
