//! `tacit inspect generate`: videos of people whose truth is known.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::json;
use tacit_humansam::generator::{self, Encoding, Rendered, Spec};
use tacit_humansam::{Class, HumansamError, video};

use super::args::GenerateArgs;
use super::failure;
use crate::args::Global;
use crate::exit::{Failure, Kind, Outcome};
use crate::interrupt;
use crate::output;
use crate::progress::Display;

/// One clip to write.
struct Job {
    stem: String,
    spec: Spec,
}

/// One clip that was written.
struct Written {
    path: PathBuf,
    class: Class,
    description: serde_json::Value,
    line: String,
}

/// Runs the command.
pub fn run(args: &GenerateArgs, global: &Global) -> Outcome {
    let folder = args.out.clone().unwrap_or_else(|| PathBuf::from("demo"));
    let jobs = if args.demo { demo() } else { jobs(args)? };
    let mp4 = !args.y4m && video::ffmpeg_available();
    if !mp4 && !args.y4m {
        eprintln!(
            "tacit: ffmpeg is not on PATH (package ffmpeg), so the clips are written as Y4M, which is large"
        );
    }
    let bar = Display::pick(global.json).pieces("clips", jobs.len() as u64);
    let written: Vec<Written> = jobs
        .par_iter()
        .map(|job| {
            interrupt::check()?;
            let rendered = generator::sample(&job.spec).map_err(failure)?;
            let encoding = if mp4 {
                Encoding::Mp4 {
                    crf: args.crf.unwrap_or_else(|| {
                        if args.demo {
                            18
                        } else {
                            generator::drawn_crf(job.spec.seed)
                        }
                    }),
                }
            } else {
                Encoding::Y4m
            };
            let path = generator::save(&folder, &job.stem, &rendered, &job.spec, encoding)
                .map_err(failure)?;
            bar.inc(1);
            Ok(written(path, &rendered))
        })
        .collect::<Outcome<_>>()?;
    bar.finish_and_clear();
    labels(&folder, &written)?;
    if global.json {
        let clips: Vec<&serde_json::Value> = written.iter().map(|w| &w.description).collect();
        return output::print_json(&json!({ "folder": folder, "clips": clips }));
    }
    for w in &written {
        println!("{}", w.line);
    }
    println!(
        "{} clips in {}, each with a JSON file beside it; labels in labels.csv",
        written.len(),
        folder.display()
    );
    Ok(())
}

fn demo() -> Vec<Job> {
    generator::demo()
        .into_iter()
        .map(|(name, spec)| Job {
            stem: name.into(),
            spec,
        })
        .collect()
}

fn jobs(args: &GenerateArgs) -> Outcome<Vec<Job>> {
    if let (Some(o), Some(c)) = (args.operator, args.class)
        && o.class() != c
    {
        return Err(Failure::usage(format!(
            "operator {} makes clips of class {}, not {c}",
            o.name(),
            o.class()
        )));
    }
    let mut jobs = Vec::new();
    for i in 0..args.count {
        let class = args
            .operator
            .map(|o| o.class())
            .or(args.class)
            .or(args.nobody.then_some(Class::Real))
            .unwrap_or(Class::ALL[i as usize % 4]);
        let spec = Spec {
            class,
            operator: args.operator,
            severity: args.severity,
            actions: args.scenes.into(),
            settings: args.scenes.into(),
            operators: args.operators.into(),
            width: args.size.0,
            height: args.size.1,
            frames: args.frames as usize,
            fps: args.fps,
            maps: true,
            nobody: args.nobody,
            ..Spec::new(args.seed.wrapping_add(u64::from(i)))
        };
        let stem = format!("{i:06}");
        if args.pairs && class.is_forged() {
            jobs.push(Job {
                stem: format!("{stem}-real"),
                spec: spec.twin(),
            });
        }
        jobs.push(Job { stem, spec });
    }
    Ok(jobs)
}

fn written(path: PathBuf, rendered: &Rendered) -> Written {
    let mut line = format!("{}  {}", path.display(), rendered.class);
    if let Some(a) = &rendered.anomaly {
        let _ = write!(
            line,
            ": {} at severity {:.2}, frames {} to {}",
            a.operator.name(),
            a.severity,
            a.first_frame,
            a.last_frame
        );
    }
    let description = json!({
        "file": path,
        "class": rendered.class,
        "label": rendered.class.label(),
        "anomaly": rendered.anomaly,
        "scene": rendered.scene,
        "frames": rendered.clip.frames.len(),
        "fps": rendered.clip.fps,
    });
    Written {
        path,
        class: rendered.class,
        description,
        line,
    }
}

/// `file,label` lines, as the HFV data set has them.
fn labels(folder: &Path, written: &[Written]) -> Outcome {
    let mut text = String::new();
    for w in written {
        let name = w
            .path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default();
        let _ = writeln!(text, "{name},{}", w.class.label());
    }
    let path = folder.join("labels.csv");
    std::fs::write(&path, text)
        .map_err(HumansamError::io("write", &path))
        .map_err(|e| Failure::new(Kind::Other, e.to_string()))
}
