//! `tacit ask` on inputs that it must refuse before any key is made: what is wrong, with which input, and the exit code.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{fails, stdout, tacit};
use serde_json::{Value, json};

/// A copy of the shipped model that a test may damage.
fn copy() -> (tempfile::TempDir, PathBuf) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/tacit-mini");
    let dir = tempfile::tempdir().unwrap();
    for file in [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "calibration.json",
    ] {
        std::fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let path = dir.path().to_path_buf();
    (dir, path)
}

fn ask(model: &Path, prompt: &str, extra: &[&str]) -> std::process::Output {
    let mut args = vec!["ask", prompt, "--model", model.to_str().unwrap()];
    args.extend(extra);
    tacit(&args)
}

#[test]
fn a_missing_model_is_named() {
    let output = tacit(&[
        "ask",
        "The function",
        "--model",
        "/no/such/folder",
        "--json",
    ]);
    fails(&output, 3, &["/no/such/folder", "config.json"]);
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(
        (&report["error"]["kind"], &report["error"]["code"]),
        (&json!("input"), &json!(3))
    );
}

#[test]
fn an_empty_prompt_is_refused() {
    let (_dir, model) = copy();
    fails(&ask(&model, "", &[]), 2, &["prompt is empty"]);
    fails(&ask(&model, " \n\t", &[]), 2, &["prompt is empty"]);
    fails(&ask(&model, "-", &[]), 2, &["prompt is empty"]);
}

#[test]
fn a_prompt_that_is_not_text_is_refused() {
    let (_dir, model) = copy();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tacit"))
        .args(["ask", "-", "--model", model.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(b"The \xff function")
        .unwrap();
    fails(&child.wait_with_output().unwrap(), 2, &["UTF-8", "byte 4"]);
}

#[test]
fn an_over_long_prompt_says_how_many_tokens_fit() {
    let (_dir, model) = copy();
    let long = "The function returns the value. ".repeat(20);
    fails(
        &ask(&model, &long, &[]),
        2,
        &[
            "over-long prompt",
            "window of 64 tokens",
            "shorten the prompt",
        ],
    );
    fails(
        &ask(&model, "The function returns", &["--tokens", "64"]),
        2,
        &["64 new ones", "use --tokens"],
    );
    fails(
        &ask(&model, "The function", &["--tokens", "0"]),
        2,
        &["--tokens"],
    );
}

#[test]
fn impossible_sampling_is_refused() {
    let (_dir, model) = copy();
    fails(
        &ask(&model, "x", &["--temperature=-1"]),
        2,
        &["temperature"],
    );
    fails(
        &ask(&model, "x", &["--temperature", "1", "--top-p", "1.5"]),
        2,
        &["top-p"],
    );
    fails(
        &ask(&model, "x", &["--temperature", "1", "--top-k", "0"]),
        2,
        &["top-k"],
    );
    fails(
        &ask(&model, "x", &["--top-k", "5"]),
        2,
        &["--temperature above 0"],
    );
}

#[test]
fn damaged_weights_are_named() {
    let (_dir, model) = copy();
    let file = model.join("model.safetensors");
    let good = std::fs::read(&file).unwrap();
    std::fs::write(&file, &good[..good.len() / 2]).unwrap();
    fails(&ask(&model, "x", &[]), 3, &["model.safetensors"]);
    let mut bad = good.clone();
    bad[9] ^= 0x55;
    std::fs::write(&file, &bad).unwrap();
    fails(&ask(&model, "x", &[]), 3, &["model.safetensors"]);
    std::fs::remove_file(&file).unwrap();
    fails(&ask(&model, "x", &[]), 3, &["safetensors"]);
}

#[test]
fn a_wrong_or_damaged_tokenizer_is_named() {
    let (_dir, model) = copy();
    let file = model.join("tokenizer.json");
    std::fs::write(&file, common::tokenizer(64)).unwrap();
    fails(
        &ask(&model, "x", &[]),
        4,
        &["tokenizer.json", "wrong tokenizer", "2048"],
    );
    std::fs::write(&file, "{}").unwrap();
    fails(
        &ask(&model, "x", &[]),
        3,
        &["tokenizer.json", "is not a tokenizer"],
    );
    std::fs::remove_file(&file).unwrap();
    fails(&ask(&model, "x", &[]), 3, &["tokenizer.json"]);
}

#[test]
fn a_missing_damaged_or_foreign_calibration_is_named() {
    let (_dir, model) = copy();
    let file = model.join("calibration.json");
    let good: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();

    let mut foreign = good.clone();
    foreign["layers"].as_array_mut().unwrap().pop();
    std::fs::write(&file, foreign.to_string()).unwrap();
    fails(
        &ask(&model, "x", &[]),
        4,
        &["calibration.json", "3 layers", "calibrate"],
    );

    let mut newer = good.clone();
    newer["format"] = json!(99);
    std::fs::write(&file, newer.to_string()).unwrap();
    fails(
        &ask(&model, "x", &[]),
        4,
        &["calibration.json", "format 99"],
    );

    std::fs::write(&file, "{\"format\": 1,").unwrap();
    fails(&ask(&model, "x", &[]), 3, &["calibration.json", "not JSON"]);

    std::fs::remove_file(&file).unwrap();
    fails(
        &ask(&model, "x", &[]),
        3,
        &["calibration.json", "tacit model calibrate"],
    );
}

#[test]
fn polynomials_that_are_too_deep_are_refused_before_any_key_is_made() {
    let (_dir, model) = copy();
    let file = model.join("calibration.json");
    let mut deep: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    let coeffs = deep["layers"][0]["sigmoid"]["coeffs"]
        .as_array_mut()
        .unwrap();
    coeffs.resize(4096, json!(1e-9));
    std::fs::write(&file, deep.to_string()).unwrap();
    fails(
        &ask(&model, "x", &[]),
        4,
        &["attention", "needs level", "polynomials of lower degree"],
    );
}
