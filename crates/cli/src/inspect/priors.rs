//! `tacit inspect priors`: how much a video contradicts itself.

use serde_json::json;
use tacit_humansam::priors;
use tacit_humansam::provenance;
use tacit_humansam::video::{self, Pace, Wanted};

use super::args::PriorsArgs;
use super::failure;
use crate::args::Global;
use crate::exit::Outcome;
use crate::output;
use crate::progress::Display;

/// Frames a second that the priors look at: fast enough for limbs, and alike for videos of any rate.
const RATE: f64 = 12.5;

/// Runs the command.
pub fn run(args: &PriorsArgs, global: &Global) -> Outcome {
    let bar = Display::pick(global.json).waiting("reading and measuring");
    let wanted = Wanted {
        start: args.start,
        seconds: Some(args.seconds),
        pace: Pace::Rate(RATE),
        max_side: 256,
        ..Wanted::default()
    };
    let decoded = video::read(&args.video, &wanted).map_err(failure)?;
    let priors = priors::measure(&decoded.clip);
    let manifest = provenance::manifest(&args.video).map_err(failure)?;
    bar.finish_and_clear();
    if global.json {
        return output::print_json(&json!({
            "file": args.video,
            "video": decoded.info,
            "complaint": decoded.complaint,
            "frames_measured": decoded.clip.frames.len(),
            "seconds_from": decoded.times.first(),
            "seconds_to": decoded.times.last(),
            "priors": priors,
            "c2pa_manifest": manifest,
        }));
    }
    let info = &decoded.info;
    println!(
        "{}: {}x{}, {:.3} frames a second, {} frames measured from {:.2} to {:.2} s",
        args.video.display(),
        info.width,
        info.height,
        info.fps,
        decoded.clip.frames.len(),
        decoded.times.first().unwrap_or(&0.0),
        decoded.times.last().unwrap_or(&0.0),
    );
    if let Some(c) = &decoded.complaint {
        println!("the file is damaged: {c}");
    }
    let rows = [
        ("spatial", priors.spatial, &priors.spatial_curve),
        ("appearance", priors.appearance, &priors.appearance_curve),
        ("motion", priors.motion, &priors.motion_curve),
    ];
    for (name, score, curve) in rows {
        println!("{name:<10} {score:.4}  {}", sparkline(curve, 48));
    }
    println!(
        "0 is consistent, larger is worse; scores compare videos of one kind, they are no verdict. Curves run over time, each from its own least to its greatest value."
    );
    println!(
        "C2PA manifest: {}",
        match manifest {
            provenance::Manifest::Present => "present, not verified",
            provenance::Manifest::Absent => "absent",
            provenance::Manifest::Unknown => "this kind of file is not looked into",
        }
    );
    Ok(())
}

/// A curve in `width` characters.
fn sparkline(curve: &[f32], width: usize) -> String {
    let levels: Vec<char> = "▁▂▃▄▅▆▇█".chars().collect();
    let (low, high) = curve
        .iter()
        .fold((f32::INFINITY, f32::NEG_INFINITY), |(l, h), &v| {
            (l.min(v), h.max(v))
        });
    let n = curve.len().min(width);
    (0..n)
        .map(|i| {
            let (a, b) = (
                i * curve.len() / n,
                ((i + 1) * curve.len() / n).max(i * curve.len() / n + 1),
            );
            let top = curve[a..b]
                .iter()
                .copied()
                .fold(f32::NEG_INFINITY, f32::max);
            let k = if high > low {
                (top - low) / (high - low) * 7.0
            } else {
                0.0
            };
            levels[(k.round() as usize).min(7)]
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn sparklines_show_low_and_high() {
        assert_eq!(sparkline(&[0.0, 1.0], 48), "▁█");
        assert_eq!(sparkline(&[], 48), "");
        assert_eq!(sparkline(&[2.0; 100], 5), "▁▁▁▁▁");
    }
}
