//! Help, version and usage errors.

mod common;

use common::{fails, stderr, stdout, tacit};

#[test]
fn help_names_commands_and_exit_codes() {
    let output = tacit(&["--help"]);
    assert!(output.status.success());
    let text = stdout(&output);
    for word in [
        "model",
        "bench",
        "--json",
        "--threads",
        "Exit codes",
        "130",
        "mismatch",
    ] {
        assert!(text.contains(word), "no {word} in {text}");
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    for command in [
        &["ask"][..],
        &["embed"],
        &["classify"],
        &["train"],
        &["federate", "partition"],
        &["federate", "run"],
        &["federate", "coordinate"],
        &["federate", "node"],
        &["federate", "audit"],
        &["federate", "forget"],
        &["federate", "watermark", "embed"],
        &["federate", "watermark", "verify"],
        &["inspect"],
        &["inspect", "generate"],
        &["inspect", "priors"],
        &["inspect", "train"],
        &["inspect", "bench"],
        &["model", "inspect"],
        &["model", "logits"],
        &["model", "calibrate"],
        &["model", "sigmoid"],
        &["model", "synth"],
        &["bench", "bootstrap"],
        &["bench", "linear"],
        &["bench", "agreement"],
        &["bench", "prefill"],
        &["bench", "decode"],
        &["bench", "ensi"],
        &["bench", "engine"],
    ] {
        let mut args = command.to_vec();
        args.push("--help");
        let output = tacit(&args);
        assert!(output.status.success(), "{command:?}: {}", stderr(&output));
        assert!(
            stdout(&output).contains("Example"),
            "{command:?} shows no example"
        );
    }
}

#[test]
fn the_version_is_printed() {
    let output = tacit(&["--version"]);
    assert!(output.status.success());
    assert!(stdout(&output).starts_with("tacit "));
}

#[test]
fn unknown_commands_and_flags_are_usage_errors() {
    fails(&tacit(&["frobnicate"]), 2, &["frobnicate"]);
    fails(&tacit(&[]), 2, &["Usage"]);
    fails(&tacit(&["bench", "linear", "--d-in", "x"]), 2, &["--d-in"]);
    fails(
        &tacit(&["bench", "linear", "--d-in", "0"]),
        2,
        &["--d-in 0", "expected"],
    );
    fails(
        &tacit(&["bench", "linear", "--tokens", "100"]),
        2,
        &["--tokens 100", "power of two"],
    );
    fails(
        &tacit(&["--threads", "0", "bench", "engine"]),
        2,
        &["--threads"],
    );
}
