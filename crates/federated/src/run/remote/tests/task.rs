//! A task over nodes, without a network between them and their coordinator.

use ed25519_dalek::SigningKey;

use super::nodes::{Manner, Nodes, options};
use super::*;
use crate::run::task::tests::{Points, clients, config};

/// The configuration with these stages and the keys of four clients, which are returned too.
fn signed(folder: &std::path::Path, stages: &str) -> (RunConfig, Vec<SigningKey>) {
    let mut c = config(folder, stages);
    let keys: Vec<SigningKey> = (0..4).map(|_| identity().unwrap()).collect();
    let hex = |k: &SigningKey| {
        let key = k.verifying_key();
        key.as_bytes().iter().map(|b| format!("{b:02x}")).collect()
    };
    c.roster = keys.iter().map(hex).collect();
    (c, keys)
}

/// The parties of a configuration, each with its own folder and tables elsewhere than the others.
fn parties(c: &RunConfig, keys: &[SigningKey]) -> Vec<Party> {
    let party = |(k, side)| {
        let mut c = c.clone();
        c.out = c.out.join(format!("node-{k}"));
        for t in &mut c.head.as_mut().unwrap().tables {
            *t = format!("{k}/{}", t.display()).into();
        }
        Party::of_task(c, Points::default(), side, k, Some(keys[k].clone())).unwrap()
    };
    clients().into_iter().enumerate().map(party).collect()
}

fn go(run: &mut TaskRun<'_, Points>, nodes: &Nodes) -> Result<bool, FederatedError> {
    std::fs::create_dir_all(&run.config().out).unwrap();
    rounds(run, nodes, &options(LONG), &|_| ControlFlow::Continue(()))
}

#[test]
fn a_task_over_nodes_is_the_embedded_run_bit_for_bit() {
    let clip = "[[stage]]\nkind = \"clip\"\nnorm = 2.0\n";
    for stages in [
        String::new(),
        "clients_per_round = 2\n".to_owned(),
        "[rule]\nkind = \"fedadam\"\n".to_owned(),
        "[[stage]]\nkind = \"quantise\"\nvalues = \"int4\"\n".to_owned(),
        "[[stage]]\nkind = \"top-k\"\nshare = 0.4\n[[stage]]\nkind = \"signed\"\n".to_owned(),
        "[[stage]]\nkind = \"robust\"\nrule = { name = \"median\", bad = 1 }\n".to_owned(),
        format!("{clip}[[stage]]\nkind = \"secure-sum\"\n"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // A setting outside of tables has to stand before the first.
        let few = stages.starts_with("clients_per_round");
        let tables = if few { "" } else { &stages };
        let (mut c, keys) = signed(&dir.path().join("here"), tables);
        c.clients_per_round = if few { 2 } else { 0 };
        let task = Points::default();
        let mut here = TaskRun::new(c.clone(), &task, clients(), false).unwrap();
        assert!(here.run(&|_| ControlFlow::Continue(())).unwrap());
        c.out = dir.path().join("far");
        let nodes = Nodes::new(parties(&c, &keys), &[Manner::Honest; 4]);
        let mut far = TaskRun::coordinator(c.clone(), &task, 4, false).unwrap();
        assert!(go(&mut far, &nodes).unwrap());
        assert_eq!(far.shared(), here.shared(), "{stages}");
        assert_eq!(far.records().len(), 12);
        for (f, h) in far.records().iter().zip(here.records()) {
            assert_eq!(
                (&f.hash, &f.clients, f.train_loss, f.validation_perplexity),
                (&h.hash, &h.clients, h.train_loss, h.validation_perplexity),
                "{stages}"
            );
        }
        assert_eq!(few, far.records().iter().all(|r| r.clients.len() == 2));
    }
}

#[test]
fn a_coordinator_and_nodes_that_are_started_again_go_on_with_the_same_bits() {
    let dir = tempfile::tempdir().unwrap();
    let stages = "[[stage]]\nkind = \"top-k\"\nshare = 0.4\n";
    let (mut c, keys) = signed(&dir.path().join("here"), stages);
    let task = Points::default();
    let mut here = TaskRun::new(c.clone(), &task, clients(), false).unwrap();
    here.run(&|_| ControlFlow::Continue(())).unwrap();
    c.out = dir.path().join("far");
    std::fs::create_dir_all(&c.out).unwrap();
    let mut far = TaskRun::coordinator(c.clone(), &task, 4, false).unwrap();
    let stop = |e: RemoteEvent<'_>| match e {
        RemoteEvent::Round(r) if r.round == 5 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    let nodes = Nodes::new(parties(&c, &keys), &[Manner::Honest; 4]);
    assert!(!rounds(&mut far, &nodes, &options(LONG), &stop).unwrap());
    // What compression left out is in the nodes' files.
    let nodes = Nodes::new(parties(&c, &keys), &[Manner::Honest; 4]);
    let mut far = TaskRun::coordinator(c, &task, 4, true).unwrap();
    assert_eq!(far.records().len(), 5);
    assert!(go(&mut far, &nodes).unwrap());
    assert_eq!(far.shared(), here.shared());
}

#[test]
fn noise_over_nodes_keeps_its_budget() {
    let dir = tempfile::tempdir().unwrap();
    let noise = "[[stage]]\nkind = \"noise\"\nepsilon = 8.0\nclip = 1.0\nexamples = 8\n[[stage]]\nkind = \"secure-sum\"\n";
    let (c, keys) = signed(dir.path(), noise);
    let nodes = Nodes::new(parties(&c, &keys), &[Manner::Honest; 4]);
    let task = Points::default();
    let mut far = TaskRun::coordinator(c, &task, 4, false).unwrap();
    assert!(go(&mut far, &nodes).unwrap());
    let spent = far.records().last().unwrap().epsilon.unwrap();
    assert!(spent > 7.0 && spent <= 8.0, "{spent}");
    assert!(far.shared().norm() > 0.1);
}

#[test]
fn features_of_another_model_too_few_examples_and_two_aggregators_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (c, keys) = signed(dir.path(), "");
    let task = Points {
        setting: "other branches".to_owned(),
    };
    let nodes = Nodes::new(parties(&c, &keys), &[Manner::Honest; 4]);
    let mut far = TaskRun::coordinator(c.clone(), &task, 4, false).unwrap();
    let e = go(&mut far, &nodes).unwrap_err().to_string();
    assert!(e.contains("0 of 4 clients"), "{e}");

    let mut side = clients().remove(1);
    side.valid.clear();
    let e = Party::of_task(c, Points::default(), side, 1, None).unwrap_err();
    assert!(e.to_string().contains("client 1"), "{e}");
    let stages = "[[stage]]\nkind = \"clip\"\nnorm = 2.0\n[[stage]]\nkind = \"verified-sum\"\n";
    let e = TaskRun::coordinator(config(dir.path(), stages), &task, 4, false).unwrap_err();
    assert!(e.to_string().contains("verified-sum"), "{e}");
}
