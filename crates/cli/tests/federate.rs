//! `tacit federate`: partitions, runs, kills at random instants, refusals.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{fails, stderr, stdout, tacit};

const CONFIG: &str = r#"
rounds = 6
combine = "residual"
[data]
clients = 4
grammar = { documents = 40 }
[base]
random = { hidden = 32, layers = 1, heads = 2, ffn = 64, vocab = 300, context = 16 }
[train]
steps = 4
batch = 8
lr = 1e-2
[[stage]]
kind = "quantise"
values = "int8"
"#;

fn write_config(folder: &Path, text: &str) -> String {
    let path = folder.join("run.toml");
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

fn report(args: &[&str]) -> serde_json::Value {
    let output = tacit(args);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

fn hashes(report: &serde_json::Value) -> Vec<String> {
    report["rounds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["hash"].as_str().unwrap().to_owned())
        .collect()
}

/// Runs that are killed, twice each; `TACIT_KILLS` for more.
fn kills() -> usize {
    std::env::var("TACIT_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25)
}

#[test]
fn a_run_killed_at_any_instant_ends_with_the_same_model() {
    let dir = tempfile::tempdir().unwrap();
    let config = write_config(dir.path(), CONFIG);
    let whole = dir.path().join("whole");
    let began = std::time::Instant::now();
    let run = |out: &Path, resume: bool| {
        let out = out.display().to_string();
        let mut args = vec!["federate", "run", &config, "--json", "--out", &out];
        if resume {
            args.push("--resume");
        }
        report(&args)
    };
    let want = run(&whole, false);
    let span = began.elapsed();
    assert_eq!(hashes(&want).len(), 6);
    let mut state = 20_261_120u64;
    let mut after_some_round = 0;
    for kill in 0..kills() {
        let out = dir.path().join(format!("killed-{kill}"));
        // Two kills a run, each at a random instant of its span.
        for _ in 0..2 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let share = (state >> 40) as f64 / (1u64 << 24) as f64;
            let mut child = Command::new(env!("CARGO_BIN_EXE_tacit"))
                .args(["federate", "run", &config, "--json", "--out"])
                .arg(&out)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            std::thread::sleep(Duration::from_secs_f64(share * span.as_secs_f64()));
            child.kill().unwrap();
            child.wait().unwrap();
            after_some_round += usize::from(out.join("run.safetensors").is_file());
        }
        let got = run(&out, true);
        assert_eq!(hashes(&got), hashes(&want), "kill {kill}");
        let model = |folder: &Path| std::fs::read(folder.join("model/model.safetensors")).unwrap();
        assert!(model(&out) == model(&whole), "kill {kill}: another model");
    }
    assert!(
        after_some_round >= kills() / 2,
        "most kills came before anything was written"
    );
    eprintln!(
        "{after_some_round} of {} kills after the first round",
        2 * kills()
    );
}

#[test]
fn a_folder_that_holds_a_run_is_gone_on_with_or_refused_and_replaced_only_on_demand() {
    let dir = tempfile::tempdir().unwrap();
    let text = CONFIG.replace("rounds = 6", "rounds = 2");
    let config = write_config(dir.path(), &text);
    let out = dir.path().join("run").display().to_string();
    let args = ["federate", "run", &config, "--out", &out];
    let with = |more: &[&'static str]| [&args[..], more].concat();
    let first = report(&with(&["--json"]));
    assert_eq!(first["resumed"], 0);
    let files = || {
        ["run.safetensors", "model/model.safetensors"]
            .map(|f| std::fs::read(Path::new(&out).join(f)).unwrap())
    };
    let written = files();
    let again = report(&with(&["--json"]));
    assert_eq!(again["resumed"], 2);
    // Not even the seconds are others: nothing was trained.
    assert_eq!(again["rounds"], first["rounds"]);
    assert!(stdout(&tacit(&args)).contains("holds this run, complete"));
    assert!(files() == written);
    // Another run is not written over it, with or without --resume.
    let other = ["--set", "seed=2"];
    let refused = [
        out.as_str(),
        "another configuration",
        "--out",
        "--overwrite",
    ];
    fails(&tacit(&with(&other)), 3, &refused);
    fails(&tacit(&with(&["--set", "seed=2", "--resume"])), 3, &refused);
    assert!(files() == written);
    let anew = report(&with(&["--json", "--overwrite", "--set", "seed=2"]));
    assert_eq!(anew["resumed"], 0);
    assert_ne!(hashes(&anew), hashes(&first));
    assert!(files() != written);
    let same = report(&with(&["--json", "--overwrite"]));
    assert_eq!(
        (same["resumed"].as_u64(), hashes(&same)),
        (Some(0), hashes(&first))
    );
    assert!(files()[1] == written[1]);
    let both = tacit(&with(&["--resume", "--overwrite"]));
    fails(&both, 2, &["--overwrite"]);
}

#[test]
fn a_partition_is_written_read_and_compared() {
    let dir = tempfile::tempdir().unwrap();
    for (name, word) in [
        ("alpha-1.0.0", "number"),
        ("beta-1.0.0", "letter"),
        ("gamma-1.0.0", "colour"),
    ] {
        let p = dir.path().join("sources").join(name);
        std::fs::create_dir_all(&p).unwrap();
        std::fs::write(p.join("Cargo.toml"), "").unwrap();
        let text: String = (0..40)
            .map(|i| {
                let other = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN".chars().nth(i).unwrap().to_string().repeat(i % 7 + 2);
                format!("/// Returns the {word} of the {other} thing, if there is any, and otherwise says in plain words why there is none to be had.\nfn f{i}() {{}}\n\n")
            })
            .collect();
        std::fs::write(p.join("lib.rs"), text).unwrap();
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (sources, parts) = (at("sources"), at("parts"));
    let written = tacit(&[
        "federate",
        "partition",
        "--json",
        "--from",
        &sources,
        "--clients",
        "3",
        "--out",
        &parts,
    ]);
    assert!(written.status.success(), "{}", stderr(&written));
    let written: serde_json::Value = serde_json::from_str(&stdout(&written)).unwrap();
    let clients = written["clients"].as_array().unwrap();
    assert!(clients.len() == 3 && clients.iter().all(|c| c["documents"] == 40));
    assert!(dir.path().join("parts/client-02.jsonl").is_file());
    let too_many = tacit(&[
        "federate",
        "partition",
        "--from",
        &sources,
        "--clients",
        "9",
        "--out",
        &parts,
    ]);
    fails(&too_many, 2, &["clients", "at most"]);

    let text = CONFIG.replace("rounds = 6", "rounds = 2");
    let config = write_config(dir.path(), &text);
    let out = at("run");
    let r = report(&[
        "federate",
        "run",
        &config,
        "--compare",
        "--json",
        "--out",
        &out,
    ]);
    let c = &r["comparison"];
    assert_eq!(c["alone"].as_array().unwrap().len(), 4);
    assert!(c["federated"].as_f64().unwrap() < c["base"].as_f64().unwrap());
    let exported = &r["exported"];
    assert_eq!(exported["ternarised"], false);
    let inspect = tacit(&["model", "inspect", exported["folder"].as_str().unwrap()]);
    assert!(inspect.status.success(), "{}", stderr(&inspect));
    let plain = tacit(&["federate", "run", &config, "--out", &at("plain")]);
    let text = stdout(&plain);
    for word in [
        "stages:",
        "perplexity",
        "agg. err",
        "int8",
        "residual",
        "as served",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    // The same seed gives the same model in another folder.
    let again = report(&[
        "federate",
        "run",
        &config,
        "--json",
        "--out",
        &at("again"),
        "--threads",
        "1",
    ]);
    assert_eq!(hashes(&again), hashes(&r));
    // Another configuration does not go on from this checkpoint.
    let other = write_config(dir.path(), &text_of(CONFIG, "seed = 2\n"));
    fails(
        &tacit(&["federate", "run", &other, "--resume", "--out", &out]),
        3,
        &["another configuration"],
    );
}

fn text_of(config: &str, head: &str) -> String {
    format!("{head}{config}")
}

#[test]
fn bad_configurations_are_refused_with_their_reason() {
    let dir = tempfile::tempdir().unwrap();
    let with = |text: &str| {
        let config = write_config(dir.path(), text);
        tacit(&["federate", "run", &config])
    };
    fails(&with("rouds = 3"), 3, &["rouds", "docs/federated.md"]);
    fails(&with("rounds = 0"), 2, &["rounds"]);
    fails(
        &with("[[stage]]\nkind = \"secure-sum\""),
        2,
        &["masked values need a bound"],
    );
    fails(
        &tacit(&["federate", "run", "/nowhere.toml"]),
        3,
        &["/nowhere.toml"],
    );
    fails(&with("[base]\nmodel = \"/nowhere\""), 3, &["/nowhere"]);
}

#[test]
fn a_client_is_forgotten_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let text = CONFIG.replace("rounds = 6", "rounds = 2\nhistory = true");
    let config = write_config(dir.path(), &text);
    let out = dir.path().join("run").display().to_string();
    let early = tacit(&["federate", "forget", "1", &config, "--out", &out]);
    fails(&early, 3, &["history = true"]);
    report(&["federate", "run", &config, "--json", "--out", &out]);
    let f = report(&["federate", "forget", "1", &config, "--json", "--out", &out]);
    assert_eq!(f["certificate"]["removal"]["kind"], "replay");
    assert_eq!(f["certificate"]["distance"], 0.0);
    assert_eq!(f["replayed"], 2);
    assert_eq!(f["after"], f["retrained"]);
    assert!(
        f["after"]["on_forgotten"].as_f64().unwrap()
            > f["before"]["on_forgotten"].as_f64().unwrap()
    );
    let folder = dir.path().join("run/forgotten-1");
    assert!(
        folder.join("certificate.json").is_file() && folder.join("model/config.json").is_file()
    );
    let plain = tacit(&["federate", "forget", "0", &config, "--out", &out]);
    let shown = stdout(&plain);
    for word in ["replayed", "membership AUC", "the same bits", "certificate"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let subtract = [
        "federate", "forget", "1", &config, "--out", &out, "--way", "subtract",
    ];
    fails(&tacit(&subtract), 2, &["--way replay"]);
    fails(
        &tacit(&["federate", "forget", "7", &config, "--out", &out]),
        2,
        &["client"],
    );
}

#[test]
fn a_marked_model_is_traced_to_its_recipient_also_after_more_training() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let (key, copy) = (at("owner.key"), at("copy"));
    let embed = |recipient: &str, out: &str| {
        report(&[
            "federate",
            "watermark",
            "embed",
            "--json",
            "--secret",
            &key,
            "--recipient",
            recipient,
            "--out",
            out,
        ])
    };
    let made = embed("hospital A", &copy);
    assert_eq!(made["new_secret"], true);
    let share = made["changed_trits"].as_f64().unwrap() / made["weights"].as_f64().unwrap();
    assert!(share > 0.001 && share < 0.06, "{share}");
    let verify = |model: &str, stress: bool| -> Vec<serde_json::Value> {
        let mut args = vec![
            "federate",
            "watermark",
            "verify",
            "--json",
            "--model",
            model,
            "--secret",
            &key,
            "--recipient",
            "hospital A",
            "--recipient",
            "hospital B",
        ];
        if stress {
            args.push("--stress");
        }
        report(&args).as_array().unwrap().clone()
    };
    for f in verify(&copy, true) {
        assert_eq!(f["found"], f["recipient"] == "hospital A", "{f}");
    }
    // The marked copy is tuned further by a federation; its export still shows whose copy it was.
    let text = format!(
        "rounds = 2\n[base]\nmodel = {copy:?}\n[data]\nclients = 3\ngrammar = {{ documents = 30 }}\n[train]\nsteps = 3\nbatch = 4\nlr = 4e-3\n"
    );
    let config = write_config(dir.path(), &text);
    report(&["federate", "run", &config, "--json", "--out", &at("tuned")]);
    let tuned = verify(&at("tuned/model"), false);
    assert_eq!(tuned[0]["found"], true, "{tuned:?}");
    assert_eq!(tuned[1]["found"], false, "{tuned:?}");
    fails(
        &tacit(&[
            "federate",
            "watermark",
            "verify",
            "--model",
            &copy,
            "--secret",
            &config,
            "--recipient",
            "x",
        ]),
        3,
        &["64 hexadecimal digits"],
    );
}

#[test]
fn an_audit_measures_with_and_without_protection() {
    let dir = tempfile::tempdir().unwrap();
    let text = format!(
        "{}[[stage]]\nkind = \"noise\"\nepsilon = 4\nclip = 0.5\nexamples = 8\n[[stage]]\nkind = \"secure-sum\"\n",
        CONFIG
            .replace("combine = \"residual\"\n", "")
            .replace("rounds = 6", "rounds = 3")
            .split("[[stage]]")
            .next()
            .unwrap()
    );
    let config = write_config(dir.path(), &text);
    let attacks = [
        "--attack",
        "inversion",
        "--attack",
        "memorisation",
        "--attack",
        "aggregator",
    ];
    let mut args = vec!["federate", "audit", &config, "--json"];
    args.extend(attacks);
    let r = report(&args);
    let rows = r["inversion"].as_array().unwrap();
    // Batches of 1, 2 and 4; both methods; plain, sum, noisy sum, and three shares of selective encryption.
    assert_eq!(rows.len(), 3 * 2 * 6);
    let hidden = |view: &str| -> Vec<f64> {
        let of = |x: &&serde_json::Value| x["view"].as_str().unwrap().contains(view);
        let rows = rows.iter().filter(of);
        rows.map(|x| x["hidden"].as_f64().unwrap()).collect()
    };
    assert_eq!(hidden("ciphertexts"), [1.0; 6]);
    assert!(hidden("10 % encrypted").iter().all(|h| *h < 1.0));
    assert!(rows.iter().all(|x| x["recovered"].as_f64().unwrap() <= 1.0));
    assert!(r["memorisation"]["defended"]["epsilon"].as_f64().unwrap() <= 4.0);
    assert!(r["memorisation"]["undefended"]["epsilon"].is_null());
    assert_eq!(r["aggregator"]["shares_when_told_two_lists"], 0);
    assert!(r["rules"].is_null());
    let mut args = vec!["federate", "audit", &config];
    args.extend(attacks);
    let shown = stdout(&tacit(&args));
    for word in ["recovered", "canary bits", "defended", "two lists"] {
        assert!(shown.contains(word), "no {word} in {shown}");
    }
    let bare = write_config(dir.path(), CONFIG.split("[[stage]]").next().unwrap());
    fails(
        &tacit(&["federate", "audit", &bare, "--attack", "memorisation"]),
        2,
        &["protects"],
    );
}
