//! `tacit inspect`: videos judged from files, pages, the encrypted head, the layout of the HFV data set.

mod common;

use std::path::Path;

use common::{fails, stderr, stdout, tacit};
use serde_json::Value;

fn run(args: &[&str]) -> Value {
    let output = tacit(args);
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_str(&stdout(&output)).expect("one JSON object")
}

/// Four clips, one a class, as Y4M.
fn clips(folder: &Path) -> Vec<String> {
    let out = folder.to_str().unwrap();
    let made = run(&[
        "inspect", "generate", "--out", out, "--count", "4", "--size", "128x128", "--frames", "20",
        "--fps", "12.5", "--y4m", "--json",
    ]);
    let clips = made["clips"].as_array().unwrap();
    clips
        .iter()
        .map(|c| c["file"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn videos_are_judged_in_the_clear_and_encrypted_alike() {
    let dir = tempfile::tempdir().unwrap();
    let files = clips(&dir.path().join("clips"));
    let page = dir.path().join("page.html");
    let clear = run(&[
        "inspect",
        &files[0],
        "--json",
        "--report",
        page.to_str().unwrap(),
    ]);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<!DOCTYPE html>") && html.contains("generated video only"));
    assert!(!html.contains("src=\"http") && !html.contains("<script"));
    let sealed = run(&["inspect", &files[0], "--json", "--no-report", "--encrypted"]);
    let (a, b) = (&clear["videos"][0]["inspection"], &sealed["videos"][0]);
    assert_eq!(a["verdict"], b["inspection"]["verdict"]);
    if a["verdict"]["kind"] != "not-applicable" {
        let account = &b["encrypted_head"];
        assert!(
            account["agreement_bits"].as_f64().unwrap() > 10.0,
            "{account}"
        );
        assert!(
            account["bytes_up"].as_u64().unwrap() < 10_000_000,
            "{account}"
        );
    }
    let sum: f64 = a["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-9);

    // A folder, with a file that is no video among the others: the rest is judged, the command fails.
    std::fs::write(dir.path().join("clips/broken.y4m"), b"YUV4MPEG2 nothing").unwrap();
    let pages = dir.path().join("pages");
    let output = tacit(&[
        "inspect",
        dir.path().join("clips").to_str().unwrap(),
        "--report",
        pages.to_str().unwrap(),
    ]);
    fails(&output, 3, &["broken.y4m"]);
    assert_eq!(std::fs::read_dir(&pages).unwrap().count(), 4);
    fails(&tacit(&["inspect"]), 2, &["no video"]);
    fails(
        &tacit(&["inspect", "/no/such/clip.mp4"]),
        3,
        &["/no/such/clip.mp4"],
    );
}

#[test]
fn too_short_and_too_small_clips_are_not_applicable() {
    let dir = tempfile::tempdir().unwrap();
    for (name, size, frames, why) in [
        ("short", "128x128", "4", "too-short"),
        ("small", "32x32", "16", "too-small"),
    ] {
        let out = dir.path().join(name);
        run(&[
            "inspect",
            "generate",
            "--out",
            out.to_str().unwrap(),
            "--count",
            "1",
            "--size",
            size,
            "--frames",
            frames,
            "--fps",
            "12",
            "--y4m",
            "--json",
        ]);
        let seen = run(&["inspect", out.to_str().unwrap(), "--json", "--no-report"]);
        let verdict = &seen["videos"][0]["inspection"]["verdict"];
        assert_eq!(verdict["kind"], "not-applicable", "{seen}");
        assert_eq!(verdict["why"], why, "{seen}");
    }
}

#[test]
fn the_layout_of_hfv_gives_the_papers_columns() {
    let dir = tempfile::tempdir().unwrap();
    let files = clips(&dir.path().join("clips"));
    for generator in ["alpha_human_dim", "beta_human_dim"] {
        let folder = dir.path().join("eval_data").join(generator);
        std::fs::create_dir_all(&folder).unwrap();
        let mut list = String::new();
        for (label, file) in files.iter().enumerate() {
            // What a file is, its first bytes say.
            std::fs::copy(file, folder.join(format!("{label}.mp4"))).unwrap();
            list.push_str(&format!("{label}.mp4,{label}\n"));
        }
        std::fs::write(folder.join("test_4.csv"), list).unwrap();
    }
    let bench = run(&[
        "inspect",
        "bench",
        "--json",
        "--hfv",
        dir.path().to_str().unwrap(),
    ]);
    let columns = bench["columns"].as_array().unwrap();
    let names: Vec<&str> = columns
        .iter()
        .map(|c| c["generator"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["alpha", "beta", "Avg"]);
    for c in columns {
        for k in ["accuracy_4", "accuracy_2"] {
            let v = c[k].as_f64().unwrap();
            assert!((0.0..=100.0).contains(&v), "{c}");
        }
    }
    let empty = tempfile::tempdir().unwrap();
    fails(
        &tacit(&["inspect", "bench", "--hfv", empty.path().to_str().unwrap()]),
        3,
        &["test_4.csv"],
    );
}

#[test]
fn heads_are_exported_and_averaged() {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (
        dir.path().join("head.safetensors"),
        dir.path().join("averaged"),
    );
    let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
    let exported = run(&["inspect", "head", "--export", file, "--json"]);
    let twice = format!("{file}=2");
    let averaged = run(&[
        "inspect",
        "head",
        "--average",
        file,
        &twice,
        "--out",
        out,
        "--json",
    ]);
    assert_eq!(exported["values"], averaged["values"]);
    let clips = clips(&dir.path().join("clips"));
    let of = |more: &[&str]| {
        let mut args = vec!["inspect", &clips[3], "--json", "--no-report"];
        args.extend(more);
        run(&args)["videos"][0]["inspection"]["classes"].clone()
    };
    let (a, b) = (of(&[]), of(&["--model", out]));
    for (x, y) in a.as_array().unwrap().iter().zip(b.as_array().unwrap()) {
        assert!((x.as_f64().unwrap() - y.as_f64().unwrap()).abs() < 1e-4);
    }
    fails(
        &tacit(&["inspect", "head", "--average", file]),
        2,
        &["--out"],
    );
}
