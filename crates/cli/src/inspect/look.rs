//! `tacit inspect VIDEO…`: real or forged, by what anomaly, when and where.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::json;
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::model::native::input::RATE;
use tacit_humansam::model::native::verdict::{Inspection, Verdict};
use tacit_humansam::provenance::{self, Manifest};
use tacit_humansam::report::{self, About};
use tacit_humansam::video::{self, Decoded, Pace, Wanted};
use tacit_humansam::{Class, Clip, priors};

use super::model_args::LookArgs;
use super::{encrypted, failure, head};
use crate::args::Global;
use crate::exit::{Failure, Outcome};
use crate::interrupt;
use crate::output::print_json;
use crate::progress::Display;

const MODEL: &[u8] = include_bytes!("../../../../models/humansam-native/model.safetensors");
const CARD: &[u8] = include_bytes!("../../../../models/humansam-native/model.json");
/// Files of a folder that are taken for videos.
const ENDINGS: [&str; 8] = ["mp4", "mov", "webm", "mkv", "avi", "gif", "y4m", "m4v"];

/// The model of a folder, or the shipped one.
pub fn open_model(folder: Option<&Path>) -> Outcome<NativeModel> {
    match folder {
        Some(f) => NativeModel::open(f),
        None => NativeModel::from_bytes(MODEL, CARD),
    }
    .map_err(failure)
}

/// What is read of a video.
pub fn wanted(seconds: f64) -> Wanted {
    Wanted {
        seconds: Some(seconds),
        pace: Pace::Thin(RATE),
        max_side: 480,
        ..Wanted::default()
    }
}

/// Runs the command.
pub fn run(args: &LookArgs, global: &Global) -> Outcome {
    let mut model = open_model(args.model.as_deref())?;
    if let Some(file) = &args.head {
        model = head::with_head(&model, file)?;
    }
    if let Some(folder) = &args.watch {
        return watch(args, folder, &model, global);
    }
    let files = expand(&args.videos)?;
    if files.is_empty() {
        return Err(Failure::usage(
            "no video was named; try tacit inspect clip.mp4, or tacit inspect --help",
        ));
    }
    let bar = Display::pick(global.json).pieces("judging", files.len() as u64);
    let mut results = Vec::new();
    let mut failed = None;
    for file in &files {
        interrupt::check()?;
        match one(args, file, files.len(), &model) {
            Ok((text, value)) => {
                if !global.json {
                    bar.suspend(|| println!("{text}"));
                }
                results.push(value);
            }
            // One bad file of many must not hide the others.
            Err(e) if files.len() > 1 => {
                bar.suspend(|| eprintln!("tacit: {e}"));
                results.push(json!({ "file": file, "error": e.message }));
                failed = Some(e.kind);
            }
            Err(e) => return Err(e),
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    if global.json {
        print_json(&json!({
            "model": model.card.name,
            "trained_on": "generated video",
            "videos": results,
        }))?;
    } else {
        println!(
            "The model was trained and tested on generated video only: a verdict is a hint, not a proof."
        );
    }
    match failed {
        Some(kind) => Err(Failure::new(
            kind,
            "some files could not be judged; see above",
        )),
        None => Ok(()),
    }
}

/// Files as they are, folders by what lies in them; a folder of pictures is one video.
fn expand(paths: &[PathBuf]) -> Outcome<Vec<PathBuf>> {
    let mut out = Vec::new();
    for p in paths {
        let inside = if p.is_dir() {
            videos_in(p)?
        } else {
            Vec::new()
        };
        if inside.is_empty() {
            out.push(p.clone())
        } else {
            out.extend(inside)
        }
    }
    Ok(out)
}

fn videos_in(folder: &Path) -> Outcome<Vec<PathBuf>> {
    let list = std::fs::read_dir(folder)
        .map_err(|e| Failure::input(format!("cannot list {}: {e}", folder.display())))?;
    let is_video = |p: &PathBuf| {
        p.extension()
            .and_then(|e| e.to_str())
            .is_some_and(|e| ENDINGS.contains(&e.to_ascii_lowercase().as_str()))
    };
    let mut files: Vec<PathBuf> = list
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(is_video)
        .collect();
    files.sort();
    Ok(files)
}

/// Judges what appears in a folder, until Ctrl-C. A file is taken once its size has not changed for a second.
fn watch(args: &LookArgs, folder: &Path, model: &NativeModel, global: &Global) -> Outcome {
    let mut done = BTreeSet::new();
    let size = |p: &Path| std::fs::metadata(p).map(|m| m.len()).unwrap_or(0);
    while !interrupt::pressed() {
        let mut new: Vec<(PathBuf, u64)> = Vec::new();
        for file in videos_in(folder)? {
            if !done.contains(&file) {
                let bytes = size(&file);
                new.push((file, bytes));
            }
        }
        std::thread::sleep(Duration::from_secs(1));
        for (file, before) in new {
            if interrupt::pressed() {
                break;
            }
            if size(&file) != before || before == 0 {
                continue;
            }
            match one(args, &file, usize::MAX, model) {
                Ok((_, value)) if global.json => println!("{value}"),
                Ok((text, _)) => println!("{text}"),
                Err(e) => eprintln!("tacit: {e}"),
            }
            done.insert(file);
        }
    }
    Ok(())
}

/// Where the page of a video goes: the named file when it is the only video, else a file in the named folder.
fn page_path(args: &LookArgs, file: &Path, of: usize) -> Option<PathBuf> {
    if args.no_report {
        return None;
    }
    let report = args.report.clone();
    let is_page = |p: &PathBuf| {
        p.extension()
            .is_some_and(|e| e.eq_ignore_ascii_case("html"))
    };
    match report {
        Some(p) if of == 1 && is_page(&p) => Some(p),
        other => {
            let folder = other.unwrap_or_else(|| PathBuf::from("inspect-report"));
            let name = file.file_name().unwrap_or(file.as_os_str());
            Some(folder.join(format!("{}.html", name.to_string_lossy())))
        }
    }
}

/// Judges one video of `of`: text and JSON. Writes the page.
fn one(
    args: &LookArgs,
    file: &Path,
    of: usize,
    model: &NativeModel,
) -> Outcome<(String, serde_json::Value)> {
    let decoded = video::read(file, &wanted(args.seconds)).map_err(failure)?;
    let mut seen = model.inspect(&decoded.clip).map_err(failure)?;
    let mut asked = None;
    if args.encrypted && !seen.features.is_empty() {
        let exchange = encrypted::logits(model, &seen)?;
        model.conclude(&mut seen, &exchange.logits);
        asked = Some(exchange.account);
    }
    let manifest = provenance::manifest(file).map_err(failure)?;
    let page = page_path(args, file, of);
    if let Some(path) = &page {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|e| Failure::input(format!("cannot create {}: {e}", folder.display())))?;
        }
        let html = report::html(
            &about(file, &decoded, manifest),
            &decoded.clip,
            &seen,
            &model.card,
        )
        .map_err(failure)?;
        std::fs::write(path, html)
            .map_err(|e| Failure::input(format!("cannot write {}: {e}", path.display())))?;
    }
    let mut text = format!("{}: {}", file.display(), summary(&seen));
    if let Some(c) = &decoded.complaint {
        text.push_str(&format!("\n  the file is damaged: {c}"));
    }
    if let Some(a) = &asked {
        text.push_str(&format!("\n  {}", a.sentence()));
    }
    if let Some(p) = &page {
        text.push_str(&format!("\n  report: {}", p.display()));
    }
    let value = json!({
        "file": file, "video": decoded.info, "complaint": decoded.complaint, "inspection": seen,
        "spans": spans(&seen, model), "encrypted_head": asked, "c2pa_manifest": manifest, "report": page,
    });
    Ok((text, value))
}

/// From when to when each kind is above its threshold, in seconds.
fn spans(seen: &Inspection, model: &NativeModel) -> serde_json::Value {
    let mut out = serde_json::Map::new();
    for (k, class) in Class::FORGED.into_iter().enumerate() {
        let limit = model.card.calibration.moments[k];
        let wrong: Vec<f64> = seen
            .timeline
            .iter()
            .filter(|m| m.wrong[k] >= limit)
            .map(|m| m.seconds)
            .collect();
        let span = match (wrong.first(), wrong.last()) {
            (Some(a), Some(b)) => json!([a, b]),
            _ => serde_json::Value::Null,
        };
        out.insert(class.name().to_owned(), span);
    }
    serde_json::Value::Object(out)
}

/// One or two lines.
fn summary(i: &Inspection) -> String {
    let percent = |c: Class| format!("{c} {:.0} %", 100.0 * i.classes[c.label()]);
    let all: Vec<String> = Class::ALL.iter().map(|c| percent(*c)).collect();
    match i.verdict {
        Verdict::NotApplicable { why } => format!("not applicable: {}", why.reason()),
        Verdict::Unclear { leaning } => {
            format!("unclear, closest is {leaning}\n  {}", all.join(", "))
        }
        Verdict::Class { class: Class::Real } => {
            format!("nothing wrong was found\n  {}", all.join(", "))
        }
        Verdict::Class { class } => format!("forged, {class} anomaly\n  {}", all.join(", ")),
    }
}

/// Longest side of the frames that the report's prior curves are measured on, pixels; optical flow is what costs time.
const PRIOR_SIDE: usize = 72;

fn about(file: &Path, decoded: &Decoded, manifest: Manifest) -> About {
    let info = &decoded.info;
    let p = priors::measure(&small(&decoded.clip));
    let provenance = match manifest {
        Manifest::Present => "C2PA manifest present, not verified",
        Manifest::Absent => "no C2PA manifest",
        Manifest::Unknown => "this kind of file is not looked into for a manifest",
    };
    let mut facts = vec![
        (
            "Size".to_owned(),
            format!("{}×{} pixels", info.width, info.height),
        ),
        (
            "Frame rate".to_owned(),
            format!(
                "{:.3} a second; {} frames looked at",
                info.fps,
                decoded.clip.frames.len()
            ),
        ),
        ("Provenance".to_owned(), provenance.to_owned()),
    ];
    if let Some(s) = info.seconds {
        facts.insert(1, ("Length".to_owned(), format!("{s:.2} s")));
    }
    if let Some(c) = &decoded.complaint {
        facts.push(("Damage".to_owned(), c.clone()));
    }
    About {
        name: file
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        facts,
        curves: vec![
            ("appearance".to_owned(), p.appearance_curve),
            ("spatial".to_owned(), p.spatial_curve),
            ("motion".to_owned(), p.motion_curve),
        ],
    }
}

/// The clip at the size that prior curves are measured on.
fn small(clip: &Clip) -> Clip {
    let longest = clip.width.max(clip.height).max(1);
    if longest <= PRIOR_SIDE {
        return clip.clone();
    }
    let side = |s: usize| (s * PRIOR_SIDE / longest).max(8);
    clip.resize(side(clip.width), side(clip.height))
}
