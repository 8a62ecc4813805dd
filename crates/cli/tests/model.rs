//! `tacit model …` on good and on damaged folders.

mod common;

use common::{VOCAB, fails, stderr, stdout, tacit, tiny_model, tokenizer};
use serde_json::Value;

fn json(output: &std::process::Output) -> Value {
    serde_json::from_str(&stdout(output)).unwrap_or_else(|e| panic!("{e}: {}", stdout(output)))
}

#[test]
fn inspect_says_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    let output = tacit(&["model", "inspect", path, "--json"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json(&output);
    assert_eq!(report["hidden_size"], 32);
    assert_eq!(report["attention"], "sigmoid");
    assert_eq!(report["ternary_weights"], 4 * 32 * 32 + 3 * 32 * 64);
    assert_eq!(report["tokenizer"]["Ok"], VOCAB);
    assert!(
        report["calibration"]["Err"]
            .as_str()
            .unwrap()
            .contains("calibration.json")
    );
    let output = tacit(&["model", "inspect", path]);
    assert!(stdout(&output).contains("feed-forward 64"));
}

#[test]
fn logits_come_out_for_every_token() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    let run = |extra: &[&str]| {
        let mut args = vec!["model", "logits", path, "--ids", "1,2,3", "--json"];
        args.extend(extra);
        let output = tacit(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        json(&output)
    };
    let exact = run(&[]);
    let logits = exact["logits"].as_array().unwrap();
    assert_eq!(logits.len(), VOCAB);
    let best = exact["top"][0]["id"].as_u64().unwrap() as usize;
    let value = |v: &Value| v.as_f64().unwrap();
    assert!(logits.iter().all(|l| value(l) <= value(&logits[best])));
    assert_eq!(run(&["--functions", "sigmoid"])["logits"], exact["logits"]);
    let rounded = run(&["--int8-activations"]);
    assert_ne!(rounded["logits"], exact["logits"]);
    let difference = logits
        .iter()
        .zip(rounded["logits"].as_array().unwrap())
        .map(|(a, b)| (value(a) - value(b)).abs())
        .fold(0.0, f64::max);
    let size = logits.iter().map(|l| value(l).abs()).fold(0.0, f64::max);
    assert!(
        difference < 0.1 * size,
        "8-bit rounding moved logits of {size} by {difference}"
    );
}

#[test]
fn plans_for_other_windows_and_many_documents() {
    let plan = |extra: &[&str]| {
        let mut args = vec!["model", "inspect", "--plan", "--json"];
        args.extend(extra);
        tacit(&args)
    };
    let output = plan(&["--tokens", "32", "--batch", "3"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let report = json(&output);
    let plan_of = |key: &str| report["plan"][key].clone();
    assert_eq!(plan_of("context"), 32);
    assert_eq!(plan_of("layers").as_array().unwrap().len(), 4);
    let bootstraps = |counts: &Value| counts["bootstraps"].as_u64().unwrap();
    assert_eq!(
        bootstraps(&plan_of("batch_counts")),
        3 * bootstraps(&plan_of("counts"))
    );
    fails(&plan(&["--tokens", "48"]), 2, &["48", "power of two"]);
    fails(&plan(&["--tokens", "128"]), 2, &["at most", "64"]);
    fails(
        &tacit(&["model", "inspect", "--tokens", "32"]),
        2,
        &["--plan"],
    );
}

#[test]
fn softmax_models_get_sigmoid_attention_of_either_kind() {
    let dir = tempfile::tempdir().unwrap();
    let from = dir.path().join("softmax");
    tiny_model(&from);
    let config = from.join("config.json");
    let softmax = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, softmax.replace("\"sigmoid\"", "\"softmax\"")).unwrap();
    let text = dir.path().join("text.md");
    let words: Vec<String> = (0..4000).map(|i| format!("w{}", i * i % VOCAB)).collect();
    std::fs::write(&text, words.join(" ")).unwrap();
    let (from, text) = (from.to_str().unwrap(), text.to_str().unwrap());
    let convert = |out: &str, extra: &[&str]| {
        let mut args = vec![
            "model", "sigmoid", from, "--out", out, "--data", text, "--json",
        ];
        args.extend(extra);
        let output = tacit(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        json(&output)
    };
    for (kind, extra) in [
        ("sigmoid", &[][..]),
        ("normalised-sigmoid", &["--normalised"]),
    ] {
        let folder = dir.path().join(kind);
        let folder = folder.to_str().unwrap();
        let report = convert(folder, extra);
        assert_eq!(report["attention"], kind);
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows.len(), 4);
        // against softmax the normalised rows lose least
        let change = |i: usize| rows[i]["change"].as_f64().unwrap().abs();
        assert_eq!(change(0), 0.0);
        assert!(change(3) <= change(1) && change(3) < 0.02, "{report}");
        assert_eq!(rows[3]["more_bootstraps"], 1);
        let inspected = json(&tacit(&["model", "inspect", folder, "--json"]));
        assert_eq!(inspected["attention"], kind);
        let calibrated = tacit(&[
            "model",
            "calibrate",
            folder,
            "--data",
            text,
            "--force",
            "--json",
        ]);
        assert!(calibrated.status.success(), "{}", stderr(&calibrated));
        let layer = &json(&calibrated)["layers"][0];
        assert_eq!(
            layer["row_inverse"].is_object(),
            kind != "sigmoid",
            "{layer}"
        );
        let again = dir.path().join("again");
        let again = tacit(&[
            "model",
            "sigmoid",
            folder,
            "--out",
            again.to_str().unwrap(),
            "--data",
            text,
        ]);
        fails(&again, 2, &["has sigmoid attention already"]);
    }
}

#[test]
fn a_missing_folder_is_named() {
    let output = tacit(&["model", "inspect", "/no/such/model"]);
    fails(&output, 3, &["/no/such/model", "model.safetensors"]);
    let output = tacit(&["model", "logits", "/no/such/model", "--ids", "1", "--json"]);
    fails(&output, 3, &["/no/such/model"]);
    let error = json(&output);
    assert_eq!(error["error"]["kind"], "input");
    assert_eq!(error["error"]["code"], 3);
}

#[test]
fn damaged_weights_are_named() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    let file = dir.path().join("model.safetensors");
    let good = std::fs::read(&file).unwrap();
    let mut wild = good.clone();
    wild[0] = 0xff;
    wild[6] = 0xff;
    for bad in [
        &good[..good.len() - 100],
        &good[..100],
        &good[..5],
        &[],
        &wild,
    ] {
        std::fs::write(&file, bad).unwrap();
        fails(
            &tacit(&["model", "inspect", path]),
            3,
            &["model.safetensors"],
        );
    }
    std::fs::remove_file(&file).unwrap();
    fails(&tacit(&["model", "inspect", path]), 3, &["safetensors"]);
}

#[test]
fn a_damaged_config_is_named() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    std::fs::write(dir.path().join("config.json"), "{\"hidden_size\":").unwrap();
    fails(&tacit(&["model", "inspect", path]), 3, &["config.json"]);
}

#[test]
fn a_wrong_tokenizer_and_a_missing_calibration_are_reported() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer(VOCAB + 1)).unwrap();
    let report = json(&tacit(&["model", "inspect", path, "--json"]));
    assert!(
        report["tokenizer"]["Err"]
            .as_str()
            .unwrap()
            .contains("wrong tokenizer"),
        "{report}"
    );
    fails(
        &tacit(&[
            "model",
            "logits",
            path,
            "--ids",
            "1",
            "--functions",
            "polynomial",
        ]),
        3,
        &["calibration.json", "tacit model calibrate"],
    );
}

#[test]
fn ids_outside_the_vocabulary_or_the_window_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    fails(
        &tacit(&["model", "logits", path, "--ids", "64"]),
        2,
        &["64"],
    );
    let many = vec!["1"; 17].join(",");
    fails(
        &tacit(&["model", "logits", path, "--ids", &many]),
        2,
        &["17", "16"],
    );
    fails(
        &tacit(&["model", "logits", path, "--ids", "-1"]),
        2,
        &["ids"],
    );
}

#[test]
fn calibrate_writes_a_file_and_tells_repetition_apart() {
    let dir = tempfile::tempdir().unwrap();
    tiny_model(dir.path());
    let path = dir.path().to_str().unwrap();
    // A sequence without pattern, so that repetition is something else.
    let mut state = 7u64;
    let words: Vec<String> = (0..1600)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            format!("w{}", (state >> 33) % VOCAB as u64)
        })
        .collect();
    let text = dir.path().join("text.txt");
    std::fs::write(&text, words.join(" ")).unwrap();
    let out = dir.path().join("wide.json");
    let run = |extra: &[&str]| {
        let mut args = vec!["model", "calibrate", path, "--json", "--force", "--data"];
        args.push(text.to_str().unwrap());
        args.extend(["--tokens", "1600"]);
        args.extend(extra);
        let output = tacit(&args);
        assert!(output.status.success(), "{}", stderr(&output));
        json(&output)
    };
    let narrow = run(&[]);
    let wide = run(&["--cover-repetition=16", "--out", out.to_str().unwrap()]);
    for report in [&narrow, &wide] {
        let outside = |of: &Value| of["out_of_range"].as_u64().unwrap();
        assert_eq!(
            outside(report),
            report["out_of_range_text"].as_u64().unwrap()
                + outside(&report["greedy"])
                + outside(&report["repeated"])
        );
        assert!(report["repeated"]["sequences"].as_u64().unwrap() >= 16);
        assert!(report["seconds"].as_f64().unwrap() > 0.0);
    }
    assert_eq!(wide["repeated"]["leaving"], 0, "{wide}");
    let hi = |report: &Value| report["layers"][0]["attn_sub_norm"]["hi"].as_f64().unwrap();
    assert!(hi(&wide) > hi(&narrow), "{narrow} {wide}");
    // Each went where it was told to.
    for (file, report) in [(dir.path().join("calibration.json"), &narrow), (out, &wide)] {
        let written: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        assert_eq!(
            written["layers"][0]["attn_sub_norm"]["hi"].as_f64(),
            Some(hi(report))
        );
    }
}
