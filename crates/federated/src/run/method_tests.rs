//! Whole runs of the methods that are not low-rank: FedKSeed, prompts, few examples.

use super::fixture::{config, finish, start};
use super::*;
use crate::tuner::SEEDS;

#[test]
fn fedkseed_sends_less_than_eighteen_kilobytes_a_round_and_every_byte_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let method = "[method]\nkind = \"fedkseed\"\nseeds = 4096\nforward = \"float\"\n[train]\noptimiser = \"sgd\"\n";
    let mut c = config(dir.path(), method);
    c.rounds = 1;
    c.train.steps = 200;
    c.train.batch = 1;
    c.train.lr = 0.1;
    let mut run = start(&c, false);
    finish(&mut run);
    let r = &run.state().records[0];
    // Down: head and 4096 numbers. Up: at most 200 numbers and their positions, of one or two bytes each.
    assert_eq!(r.bytes_down, 4 * (18 + 4 * 4096));
    assert!(
        r.bytes_up > 4 * 190 * 5 && r.bytes_up <= 4 * (18 + 200 * 6),
        "{}",
        r.bytes_up
    );
    assert!((r.bytes_up + r.bytes_down) / 4 < 18_000);
    let network = run.tuner().base().size();
    assert!(4 * network > 18_000, "the network is {network} values");
    // What is shared are the numbers alone: another party makes the same network of them.
    let numbers = run.state().global.adapter.get(SEEDS).unwrap();
    assert_eq!(run.state().global.adapter.len(), 1);
    assert!(numbers.values.iter().filter(|a| **a != 0.0).count() > 600);
    let mut rebuilt = run.state().global.clone();
    rebuilt.adapter = run.tuner().initial(8, 0).unwrap();
    rebuilt
        .adapter
        .values_mut(SEEDS)
        .unwrap()
        .copy_from_slice(&numbers.values);
    assert_eq!(run.perplexity(&rebuilt).unwrap(), r.validation_perplexity);
}

#[test]
fn fedkseed_composes_with_a_secure_sum_and_refuses_what_needs_a_gradient() {
    let dir = tempfile::tempdir().unwrap();
    let text = |train: &str, more: &str| {
        format!(
            "[method]\nkind = \"fedkseed\"\nseeds = 64\nforward = \"float\"\n[train]\n{train}\n{more}"
        )
    };
    let stages = "[[stage]]\nkind = \"clip\"\nnorm = 1.0\n[[stage]]\nkind = \"secure-sum\"\n";
    let mut c = config(dir.path(), &text("optimiser = \"sgd\"", stages));
    c.train.lr = 0.1;
    c.train.steps = 20;
    let mut run = start(&c, false);
    let before = run.perplexity(&run.state().global).unwrap();
    finish(&mut run);
    assert!(run.state().records[3].validation_perplexity < before);
    for train in ["optimiser = \"adam\"", "optimiser = \"sgd\"\nprox = 0.1"] {
        let e = RunConfig::from_toml(&text(train, ""), "x").unwrap_err();
        assert!(e.to_string().contains("one direction"), "{e}");
    }
    let e = RunConfig::from_toml(&text("optimiser = \"sgd\"\nscaffold = true", ""), "x");
    assert!(e.unwrap_err().to_string().contains("gradient"));
}

#[test]
fn a_prompt_is_all_that_is_trained_and_the_folder_holds_it_beside_the_unchanged_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "[method]\nkind = \"prompt\"\nprompt = 4\n");
    c.train.lr = 3e-2;
    let mut run = start(&c, false);
    let before = run.perplexity(&run.state().global).unwrap();
    assert_eq!(run.trained_values(), 4 * 32);
    assert!(run.clients().iter().all(|c| c.train[0].0.len() == 16 - 4));
    finish(&mut run);
    assert!(run.state().records[3].validation_perplexity < before);
    let folder = dir.path().join("model");
    let e = export(&run, &run.state().global, &folder).unwrap();
    assert!(!e.ternarised && e.prompt == 4);
    assert!((e.served_perplexity / e.trained_perplexity - 1.0).abs() < 0.01);
    let (prompt, _) = NamedTensors::load(&folder.join("prompt.safetensors")).unwrap();
    assert_eq!(prompt.get("prompt").unwrap().shape, [4, 32]);
    let (model, _) = tacit_bitnet::checkpoint::load(&folder).unwrap();
    let mut read = Network::from_model(&model).unwrap();
    read.set_prompt(prompt.get("prompt").unwrap().values.clone())
        .unwrap();
    let served = perplexity(&read, run.validation()).unwrap();
    assert!((served / e.served_perplexity - 1.0).abs() < 1e-6);
    c.method.prompt = 9;
    let texts = texts(&c, None).unwrap();
    let e = Run::new(c, None, &texts, false).unwrap_err().to_string();
    assert!(e.contains("1 to 8 vectors"), "{e}");
}

#[test]
fn few_examples_are_drawn_by_seed_for_run_and_node_alike() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), "");
    c.data.train_limit = 5;
    let run = start(&c, false);
    assert!(
        run.clients()
            .iter()
            .all(|k| k.train.len() == 5 && k.valid.len() > 1)
    );
    let texts = texts(&c, None).unwrap();
    let base = random_base(&c, &texts).unwrap();
    let party = Party::new(c.clone(), base, &texts[2], 2, None).unwrap();
    assert_eq!(party.examples(), 5);
    c.data.train_limit = 0;
    assert!(start(&c, false).clients().iter().all(|k| k.train.len() > 5));
}

const PERSONAL: [&str; 4] = [
    "[personal]\nrank = 2\n",
    "[personal]\nrank = 2\norder = \"alternate\"\nsteps = 3\n",
    "combine = \"stack\"\n[method]\nrank = 6\nranks = [6, 2, 4, 1]\n[personal]\nrank = 3\n",
    "[personal]\nrank = 2\n[[stage]]\nkind = \"clip\"\nnorm = 0.5\n[[stage]]\nkind = \"secure-sum\"\n",
];

#[test]
fn personal_adapters_never_leave_resume_exactly_and_fit_their_client() {
    for variant in PERSONAL {
        let dir = tempfile::tempdir().unwrap();
        let mut c = config(dir.path(), variant);
        c.rounds = 6;
        c.train.steps = 6;
        let mut run = start(&c, false);
        finish(&mut run);
        // What travels has the shared layout, and its bytes are those of a run without private parts.
        let like = run.tuner().initial(c.method.rank, 0).unwrap();
        run.state().global.adapter.check_layout(&like, "").unwrap();
        let mut plain = c.clone();
        plain.personal = None;
        plain.out = dir.path().join("plain");
        let mut plain = start(&plain, false);
        finish(&mut plain);
        let bytes = |r: &Run| {
            let r = &r.state().records[0];
            (r.bytes_up, r.bytes_down)
        };
        assert_eq!(bytes(&run), bytes(&plain), "{variant}");
        let privates: Vec<_> = run.state().clients.iter().map(|m| &m.personal).collect();
        assert!(privates.windows(2).all(|w| w[0] != w[1]));
        // Clients' topics differ: on its own text a client's own model is better than the shared one, as a rule.
        let folder = dir.path().join("personal");
        let own = export_own(&run, &folder).unwrap();
        let better = own.iter().filter(|o| o.personal < o.shared).count();
        assert!(better >= 3, "{variant}: {own:?}");
        let (model, _) = tacit_bitnet::checkpoint::load(&folder.join("client-01")).unwrap();
        let read = Network::from_model(&model).unwrap();
        let served = perplexity(&read, &run.clients()[1].valid).unwrap();
        assert!((served / own[1].personal - 1.0).abs() < 1e-6);
        // Stopped in between and resumed: the same private parts to the bit.
        c.out = dir.path().join("again");
        let stopped = start(&c, false).run(&|e| match e {
            Event::Round(r) if r.round == 2 => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        });
        assert!(!stopped.unwrap());
        let mut resumed = start(&c, true);
        finish(&mut resumed);
        assert_eq!(resumed.state().clients, run.state().clients, "{variant}");
        assert!(export_own(&plain, &folder).is_err());
    }
}

#[test]
fn alternating_moves_one_part_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut c = config(dir.path(), PERSONAL[1]);
    c.rounds = 1;
    let mut run = start(&c, false);
    let before = run.state().clients[0].clone();
    finish(&mut run);
    let after = &run.state().clients[0].personal;
    assert_ne!(&before.personal, after);
    // FedRep's second half starts from the private part it leaves alone: with another number of its steps the private part is the same.
    c.train.steps = 1;
    c.out = dir.path().join("other");
    let mut other = start(&c, false);
    finish(&mut other);
    assert_eq!(&other.state().clients[0].personal, after);
    assert_ne!(other.state().global.adapter, run.state().global.adapter);
}

#[test]
fn personal_adapters_refuse_what_would_break_their_promise() {
    let error = |text: &str| RunConfig::from_toml(text, "x").unwrap_err().to_string();
    let noise = "[personal]\n[[stage]]\nkind = \"noise\"\nepsilon = 8\nclip = 0.2\nexamples = 9\n[[stage]]\nkind = \"secure-sum\"\n";
    assert!(error(noise).contains("what one example changes"));
    assert!(error("[personal]\n[method]\nkind = \"ffa-lora\"").contains("columns of B"));
    assert!(error("[personal]\n[train]\noptimiser = \"sgd\"\nscaffold = true").contains("pull"));
    assert!(error("[personal]\nrank = 0").contains("rank"));
    assert!(error("[personal]\norder = \"alternate\"\nsteps = 0").contains("steps"));
}
