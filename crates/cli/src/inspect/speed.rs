//! `tacit inspect bench --speed`: seconds for a clip, and operations against the public code's.

use std::time::Instant;

use serde_json::json;
use tacit_humansam::generator::{self, Spec};
use tacit_humansam::model::backbone::{DepthProConfig, InternVideo2Config};
use tacit_humansam::model::native::NativeModel;
use tacit_humansam::model::two_branch::{HumanSamConfig, TwoBranch};
use tacit_humansam::video;
use tacit_humansam::{Clip, HumansamError};

use super::failure;
use super::look::wanted;
use crate::args::Global;
use crate::exit::Outcome;
use crate::output::{Table, print_json};
use crate::progress::Display;

/// Frames a second and seconds of the clip.
const FPS: f64 = 25.0;
const SECONDS: f64 = 5.0;
/// Views that the paper's protocol judges a clip by: 4 spans of time, 3 crops.
const VIEWS: (usize, usize) = (4, 3);
/// Depth frames of a view.
const DEPTH_FRAMES: u64 = 2;

/// One measured line.
struct Line {
    what: String,
    seconds: f64,
}

/// A clip of 1280×720: rendered at half of that and enlarged, for only its size matters here.
fn clip() -> Result<Clip, HumansamError> {
    let spec = Spec {
        width: 640,
        height: 360,
        frames: (FPS * SECONDS) as usize,
        fps: Some(FPS),
        supersample: 1,
        ..Spec::new(5)
    };
    Ok(generator::sample(&spec)?.clip.resize(1280, 720))
}

/// Runs the measurement.
pub fn run(model: &NativeModel, paper_size: bool, global: &Global) -> Outcome {
    let bar = Display::pick(global.json).waiting("rendering a clip");
    let clip = clip().map_err(failure)?;
    let folder = tempfile::tempdir()?;
    let path = if video::ffmpeg_available() {
        let path = folder.path().join("clip.mp4");
        video::write_mp4(&path, &clip, 20).map_err(failure)?;
        path
    } else {
        let path = folder.path().join("clip.y4m");
        video::write_y4m(&path, &clip).map_err(failure)?;
        path
    };
    let mut lines = Vec::new();
    let mut measure =
        |what: &str, work: &mut dyn FnMut() -> Result<(), HumansamError>| -> Outcome {
            bar.set_prefix(what.to_owned());
            let start = Instant::now();
            work().map_err(failure)?;
            lines.push(Line {
                what: what.to_owned(),
                seconds: start.elapsed().as_secs_f64(),
            });
            Ok(())
        };
    measure("native model: reading the file and judging", &mut || {
        let decoded = video::read(&path, &wanted(20.0))?;
        model.inspect(&decoded.clip).map(drop)
    })?;
    let small = TwoBranch::synthetic_small(4, 1).map_err(failure)?;
    measure(
        "InternVideo2-S and Depth-Anything-S, made-up weights, 12 views",
        &mut || small.classify(&clip, VIEWS.0, VIEWS.1).map(drop),
    )?;
    drop(small);
    if paper_size {
        bar.set_prefix("making weights");
        let config = HumanSamConfig::published(4);
        let paper = TwoBranch::synthetic_humansam(&config, 1).map_err(failure)?;
        measure(
            "InternVideo2-L and Depth Pro, made-up weights, 1 view",
            &mut || paper.classify(&clip, 1, 1).map(drop),
        )?;
    }
    bar.finish_and_clear();
    // A view of the paper's size: the clip's branch and two depth frames.
    let (clip_mac, depth) = (InternVideo2Config::L.mac(), DepthProConfig::PUBLISHED);
    let ours = clip_mac + DEPTH_FRAMES * depth.mac();
    let released = clip_mac + DEPTH_FRAMES * depth.mac_as_released();
    let threads = rayon::current_num_threads();
    if global.json {
        let measured: Vec<_> = lines
            .iter()
            .map(|l| json!({ "what": l.what, "seconds": l.seconds }))
            .collect();
        return print_json(&json!({
            "clip": { "width": 1280, "height": 720, "seconds": SECONDS, "fps": FPS },
            "threads": threads,
            "measured": measured,
            "multiply_adds_a_view": { "here": ours, "public_code": released, "ratio": released as f64 / ours as f64 },
        }));
    }
    println!("A clip of {SECONDS} s, 1280x720, {FPS} frames a second; {threads} threads.");
    let mut t = Table::new(&["what", "seconds"]);
    for l in &lines {
        t.row(vec![l.what.clone(), format!("{:.2}", l.seconds)]);
    }
    print!("{}", t.render());
    println!(
        "Paper's size, a view with its two depth frames: {:.2} T multiply-adds; the public code does {:.2} T, {:.1} times as many.",
        ours as f64 / 1e12,
        released as f64 / 1e12,
        released as f64 / ours as f64
    );
    Ok(())
}
