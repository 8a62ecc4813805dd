//! The whole line on the shipped model at full parameters: keys, encryption, four layers with bootstrapping, decryption, text.
//!
//! Each test takes a minute or two and about 8 GiB, so they run one after the other.

mod common;

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use common::{stderr, stdout, tacit};
use serde_json::Value;

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn json(args: &[&str]) -> Value {
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let output = tacit(args);
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn a_prompt_is_answered_as_the_clear_model_answers_it() {
    let report = json(&[
        "ask",
        "The function returns",
        "--tokens",
        "1",
        "--check",
        "--explain",
        "--json",
    ]);
    let tokens = report["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 1);
    let token = &tokens[0];
    assert!(token["error_bits"].as_f64().unwrap() >= 10.0, "{token}");
    assert_eq!(token["id"], token["clear_top1"], "{token}");
    assert_eq!(report["completion"], token["text"]);
    assert!(!report["completion"].as_str().unwrap().is_empty());
    for key in ["bootstraps", "key_switches", "ct_ct", "ct_pt", "additions"] {
        assert!(report["counts"][key].as_u64().unwrap() > 0, "{key}");
    }
    assert!(report["keygen_seconds"].as_f64().unwrap() > 0.0);
    assert!(
        report["shares"]["refreshes_of_operations"]
            .as_f64()
            .unwrap()
            < 0.05
    );
    if let Some(peak) = report["peak_rss_bytes"].as_u64() {
        assert!(peak < 12 << 30, "peak memory {peak}");
    }
    // The plan foresaw what was done.
    let plan = report["plan"].as_array().unwrap();
    for step in plan {
        assert_eq!(step["planned"], step["measured"], "{step}");
    }
    assert!(
        report["step_errors"]
            .as_array()
            .unwrap()
            .iter()
            .all(|e| e["bits"].as_f64().unwrap() > 8.0)
    );
}

#[test]
fn further_tokens_come_from_the_cache() {
    let report = json(&[
        "ask",
        "The function returns",
        "--tokens",
        "2",
        "--cache",
        "--check",
        "--json",
    ]);
    let tokens = report["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    for token in tokens {
        assert!(token["error_bits"].as_f64().unwrap() >= 10.0, "{token}");
        assert_eq!(token["id"], token["clear_top1"], "{token}");
    }
    // a step does less than a window
    let (all, step) = (&report["counts"], &report["counts_per_token"]);
    let of = |counts: &Value| counts["key_switches"].as_u64().unwrap();
    assert!(of(step) > 0 && of(step) < of(all) - of(step), "{report}");
}

#[test]
fn two_prompts_agree_with_the_clear_model() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/prose.txt");
    let report = json(&[
        "bench",
        "agreement",
        "--prompts",
        "2",
        "--windows",
        "8",
        "--data",
        text.to_str().unwrap(),
        "--json",
    ]);
    assert_eq!(report["prompts"], 2);
    assert_eq!(report["implausible"], 0);
    assert_eq!(report["out_of_range"], 0);
    assert!(
        report["hidden_error_bits"].as_f64().unwrap() >= 10.0,
        "{report}"
    );
    assert!(
        report["top1_agreement_positions"].as_f64().unwrap() >= 0.95,
        "{report}"
    );
    let change = report["perplexity_polynomial"].as_f64().unwrap()
        / report["perplexity_exact"].as_f64().unwrap()
        - 1.0;
    assert!(change.abs() < 0.01, "perplexity changes by {change}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_cleanly_while_keys_are_made() {
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut child = Command::new(env!("CARGO_BIN_EXE_tacit"))
        .args(["ask", "The function returns", "-v"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_secs(8));
    let pressed = Instant::now();
    let kill = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    if kill.is_err() {
        child.kill().unwrap();
        child.wait().unwrap();
        return;
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("interrupted"),
        "{}",
        stderr(&output)
    );
    assert!(!stderr(&output).contains("panicked"), "{}", stderr(&output));
    assert!(pressed.elapsed() < Duration::from_secs(30));
}
