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

/// What a page would fetch from elsewhere: anything that a tag names but pictures within the page.
fn links(page: &str) -> Vec<&str> {
    let named = ["src=\"", "href=\"", "url(", "srcset=\"", "action=\""];
    let mut out: Vec<&str> = named
        .iter()
        .flat_map(|n| page.split(n).skip(1))
        .filter(|rest| !rest.starts_with("data:image/jpeg;base64,"))
        .map(|rest| rest.split(['"', ')']).next().unwrap_or(rest))
        .collect();
    for tag in [
        "<script", "<link", "<iframe", "<object", "<embed", "@import", "http://", "https://",
    ] {
        out.extend(page.contains(tag).then_some(tag));
    }
    out
}

#[test]
fn the_demonstration_is_judged_right_and_its_pages_stand_alone_and_name_the_evidence() {
    let dir = tempfile::tempdir().unwrap();
    let (demo, pages) = (dir.path().join("demo"), dir.path().join("pages"));
    let made = run(&[
        "inspect",
        "generate",
        "--demo",
        "--out",
        demo.to_str().unwrap(),
        "--json",
    ]);
    let mut files: Vec<&str> = made["clips"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["file"].as_str().unwrap())
        .collect();
    files.sort_unstable();
    assert_eq!(files.len(), 4);
    let mut args = vec!["inspect", "--json", "--report", pages.to_str().unwrap()];
    args.extend(&files);
    let judged = run(&args);
    let judged = judged["videos"].as_array().unwrap();
    assert_eq!(judged.len(), 4);
    for v in judged {
        let path = Path::new(v["file"].as_str().unwrap());
        let class = path.file_stem().unwrap().to_str().unwrap();
        let verdict = &v["inspection"]["verdict"];
        assert_eq!(
            (&verdict["kind"], &verdict["class"]),
            (&Value::from("class"), &Value::from(class)),
            "{class}: {verdict}"
        );
        let page = std::fs::read_to_string(v["report"].as_str().unwrap()).unwrap();
        assert_eq!(links(&page), Vec::<&str>::new(), "{class}");
        let headline = match class {
            "real" => "<h1 style=\"color:#1b6e3c\">Nothing wrong was found</h1>".to_owned(),
            forged => format!("Forged: {forged} anomaly</h1>"),
        };
        for words in [
            headline.as_str(),
            "<h2>How likely</h2>",
            "<h2>When</h2>",
            "<h2>Where</h2>",
            "<h2>Priors</h2>",
            "<h2>The model</h2>",
            "generated video only",
        ] {
            assert!(
                page.contains(words),
                "no \"{words}\" on the page of {class}"
            );
        }
        let pictures = page.matches("src=\"data:image/jpeg;base64,").count();
        assert!(pictures >= 4, "{pictures} pictures on the page of {class}");
        if class != "real" {
            // When it is to be seen, and moments of that kind under the pictures.
            assert!(page.contains(" s to "), "{class}");
            assert!(page.contains(&format!(" s: {class} ")), "{class}");
            let span = &v["spans"][class];
            let (from, to) = (span[0].as_f64().unwrap(), span[1].as_f64().unwrap());
            assert!(from < to, "{class}: {span}");
            let known: Value =
                serde_json::from_slice(&std::fs::read(demo.join(format!("{class}.json"))).unwrap())
                    .unwrap();
            let seconds =
                |k: &str| known["anomaly"][k].as_f64().unwrap() / known["fps"].as_f64().unwrap();
            assert!(
                from < seconds("last_frame") && seconds("first_frame") < to,
                "{class}: said {span}, true {}",
                known["anomaly"]
            );
        }
    }
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

#[test]
fn a_federation_trains_the_head_on_tables_of_three_parties() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // One party has videos with labels, the others clips of the generator.
    let folder = dir.path().join("clips");
    let files = clips(&folder);
    run(&[
        "inspect",
        "generate",
        "--out",
        folder.to_str().unwrap(),
        "--count",
        "12",
        "--seed",
        "50",
        "--size",
        "128x128",
        "--frames",
        "20",
        "--fps",
        "12.5",
        "--y4m",
        "--json",
    ]);
    let tables: Vec<String> = ["a", "b", "c"]
        .map(|n| at(&format!("{n}.safetensors")))
        .into();
    let own = run(&[
        "inspect",
        "head",
        "--features",
        &tables[0],
        "--videos",
        folder.to_str().unwrap(),
        "--json",
    ]);
    let left_out = own["not_applicable"].as_array().unwrap().len();
    assert_eq!(own["clips"].as_u64().unwrap() as usize + left_out, 12);
    for (table, place) in tables[1..].iter().zip(["park", "room"]) {
        let made = run(&[
            "inspect",
            "head",
            "--features",
            table,
            "--clips",
            "12",
            "--place",
            place,
            "--json",
        ]);
        assert_eq!(made["classes"], serde_json::json!([3, 3, 3, 3]));
    }
    let config = at("head.toml");
    let text = |tables: &[String]| {
        format!(
            "rounds = 4\n[data]\nvalidation_percent = 50\n[head]\ntables = {tables:?}\nstart = \"blank\"\n[train]\nsteps = 5\nbatch = 8\nlr = 1e-3\n\
             [[stage]]\nkind = \"clip\"\nnorm = 4.0\n[[stage]]\nkind = \"secure-sum\"\n"
        )
    };
    std::fs::write(&config, text(&tables)).unwrap();
    let out = at("run");
    let trained = run(&[
        "federate",
        "run",
        &config,
        "--out",
        &out,
        "--json",
        "--compare",
    ]);
    let rounds = trained["rounds"].as_array().unwrap();
    let loss = |r: &Value| r["train_loss"].as_f64().unwrap();
    assert_eq!(rounds.len(), 4);
    assert!(loss(&rounds[3]) < loss(&rounds[0]), "{rounds:?}");
    assert_eq!(trained["comparison"]["alone"].as_array().unwrap().len(), 3);

    // What comes out is a head to judge with, and another than the shipped one.
    let head = trained["head"].as_str().unwrap();
    let of = |more: &[&str]| {
        let mut args = vec!["inspect", &files[0], "--json", "--no-report"];
        args.extend(more);
        run(&args)["videos"][0]["inspection"]["classes"].clone()
    };
    let sum: f64 = of(&["--head", head])
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p.as_f64().unwrap())
        .sum();
    assert!((sum - 1.0).abs() < 1e-9);
    assert_ne!(of(&["--head", head]), of(&[]));

    // Interrupted or not, the same; a table of something else is refused, and so is the configuration by commands of language models.
    let again = run(&[
        "federate",
        "run",
        &config,
        "--out",
        &at("other"),
        "--rounds",
        "4",
        "--json",
    ]);
    assert_eq!(again["hash"], trained["hash"]);
    std::fs::write(&config, text(&[head.to_owned()])).unwrap();
    fails(
        &tacit(&["federate", "run", &config, "--out", &out]),
        3,
        &["is not a table of features"],
    );
    let node = |client: &str| {
        let superlink = "http://127.0.0.1:1";
        tacit(&[
            "federate",
            "node",
            &config,
            "--client",
            client,
            "--out",
            &out,
            "--superlink",
            superlink,
            "--patience",
            "0",
        ])
    };
    fails(&node("0"), 3, &["is not a table of features"]);
    fails(&node("1"), 2, &["there are 1 clients"]);
    fails(&tacit(&["federate", "audit", &config]), 2, &["[head]"]);
}
