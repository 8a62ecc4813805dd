//! Video files through ffmpeg: written, read, sampled, turned, cut off, spoiled.
//!
//! These tests need ffmpeg and ffprobe (package `ffmpeg`); without them they fail and say so.
//! Ten thousand spoiled files: `cargo test --release -p tacit-humansam --lib -- --ignored ten_thousand --nocapture`, or a tenth of them by
//! `ten_thousand_spoiled_files_3`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::{self as video, Pace, Wanted};
use crate::generator::{self, Spec};
use crate::{Class, Clip, Frame};
use rand_chacha::ChaCha8Rng;
use rand_core::{RngCore, SeedableRng};
use rayon::prelude::*;

fn needs_ffmpeg() {
    assert!(
        video::ffmpeg_available(),
        "these tests need ffmpeg and ffprobe on PATH: install the package ffmpeg (.ci/run does)"
    );
}

fn clip(frames: usize, fps: f64, width: usize, height: usize) -> Clip {
    let frames = (0..frames)
        .map(|t| {
            let mut f = Frame::black(width, height);
            for y in 0..height {
                for x in 0..width {
                    f.set_pixel(x, y, [(t * 2) as u8, (x * 3) as u8, (y * 3) as u8]);
                }
            }
            f
        })
        .collect();
    Clip::new(fps, frames).unwrap()
}

fn all() -> Wanted {
    Wanted {
        pace: Pace::All,
        ..Wanted::default()
    }
}

fn ffmpeg(arguments: &[&str]) {
    let done = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-y"])
        .args(arguments)
        .status()
        .unwrap();
    assert!(done.success(), "ffmpeg {arguments:?}");
}

#[test]
fn frames_missing_from_a_file_keep_their_places_in_time() {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let (whole, gaps) = (folder.path().join("a.mp4"), folder.path().join("b.mp4"));
    video::write_mp4(&whole, &clip(24, 15.0, 64, 48), 10).unwrap();
    ffmpeg(&[
        "-i",
        &whole.to_string_lossy(),
        "-vf",
        "select='mod(n+1,4)'",
        "-vsync",
        "passthrough",
        "-enc_time_base",
        "1/15",
        "-qp",
        "2",
        &gaps.to_string_lossy(),
    ]);
    let d = video::read(&gaps, &all()).unwrap();
    assert!((d.clip.fps - 15.0).abs() < 0.1, "{}", d.clip.fps);
    let found: Vec<usize> = crate::repeats::repeats(&d.clip)
        .iter()
        .enumerate()
        .filter_map(|(i, r)| r.then_some(i))
        .collect();
    assert_eq!(
        found,
        [3, 7, 11, 15, 19],
        "of {} frames",
        d.clip.frames.len()
    );
}

#[test]
fn mp4_comes_back_and_is_sampled() {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    video::write_mp4(&path, &clip(60, 25.0, 64, 48), 10).unwrap();
    let info = video::probe(&path).unwrap();
    assert_eq!((info.width, info.height, info.frames), (64, 48, Some(60)));
    assert!((info.fps - 25.0).abs() < 1e-6 && info.codec.as_deref() == Some("h264"));
    let d = video::read(&path, &all()).unwrap();
    assert_eq!(d.clip.frames.len(), 60);
    assert_eq!(d.complaint, None);
    let d = video::read(
        &path,
        &Wanted {
            pace: Pace::Uniform(4),
            max_side: 32,
            ..Wanted::default()
        },
    )
    .unwrap();
    assert_eq!(
        (d.clip.frames.len(), d.clip.width, d.clip.height),
        (4, 32, 24)
    );
    let red: Vec<i32> = d
        .clip
        .frames
        .iter()
        .map(|f| i32::from(f.pixel(16, 12)[0]))
        .collect();
    for (r, want) in red.iter().zip([14, 44, 74, 104]) {
        assert!((r - want).abs() < 14, "{red:?}");
    }
    let d = video::read(
        &path,
        &Wanted {
            start: 1.0,
            seconds: Some(1.0),
            pace: Pace::Rate(5.0),
            ..Wanted::default()
        },
    )
    .unwrap();
    assert!(
        (4..=6).contains(&d.clip.frames.len()),
        "{}",
        d.clip.frames.len()
    );
}

#[test]
fn one_frame_odd_sizes_turned_and_sound_only() {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    video::write_mp4(&at("one.mp4"), &clip(1, 25.0, 31, 17), 20).unwrap();
    let d = video::read(&at("one.mp4"), &Wanted::default()).unwrap();
    assert_eq!(d.clip.frames.len(), 32);
    assert_eq!((d.clip.width, d.clip.height), (32, 18));

    video::write_mp4(&at("-wide.mp4"), &clip(10, 10.0, 64, 32), 20).unwrap();
    let text = |p: &Path| p.to_string_lossy().into_owned();
    let (wide, turned) = (
        format!("file:{}", text(&at("-wide.mp4"))),
        text(&at("turned.mp4")),
    );
    ffmpeg(&[
        "-i",
        &wide,
        "-c",
        "copy",
        "-metadata:s:v:0",
        "rotate=90",
        &turned,
    ]);
    let d = video::read(&at("turned.mp4"), &all()).unwrap();
    assert_eq!((d.clip.width, d.clip.height), (32, 64));

    let sound = text(&at("sound.mp4"));
    ffmpeg(&["-f", "lavfi", "-i", "sine=duration=1", &sound]);
    let e = video::read(&at("sound.mp4"), &all())
        .unwrap_err()
        .to_string();
    assert!(e.contains("no video stream"), "{e}");
    std::fs::write(at("empty.mp4"), b"").unwrap();
    assert!(
        video::read(&at("empty.mp4"), &all())
            .unwrap_err()
            .to_string()
            .contains("empty")
    );
    std::fs::write(
        at("text.mp4"),
        b"this is no video at all, but a line of text",
    )
    .unwrap();
    assert!(video::read(&at("text.mp4"), &all()).is_err());
}

#[test]
fn a_ten_hour_file_is_sampled_by_seeking_and_a_cut_off_one_as_far_as_it_goes() {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let text = |n: &str| folder.path().join(n).to_string_lossy().into_owned();
    // Ten hours at one frame in ten seconds: small, yet as long as any.
    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=36000:rate=1/10:size=64x48",
        "-g",
        "10",
        "-preset",
        "ultrafast",
        &text("long.mkv"),
    ]);
    let began = Instant::now();
    let d = video::read(
        Path::new(&text("long.mkv")),
        &Wanted {
            pace: Pace::Uniform(4),
            ..Wanted::default()
        },
    )
    .unwrap();
    assert_eq!(d.clip.frames.len(), 4);
    assert!(d.times[3] > 30_000.0, "{:?}", d.times);
    assert!(began.elapsed() < Duration::from_secs(60));

    ffmpeg(&[
        "-f",
        "lavfi",
        "-i",
        "testsrc=duration=4:rate=25:size=64x48",
        "-preset",
        "ultrafast",
        &text("whole.mkv"),
    ]);
    let bytes = std::fs::read(text("whole.mkv")).unwrap();
    std::fs::write(text("cut.mkv"), &bytes[..bytes.len() / 2]).unwrap();
    let d = video::read(
        Path::new(&text("cut.mkv")),
        &Wanted {
            pace: Pace::Rate(12.0),
            ..Wanted::default()
        },
    )
    .unwrap();
    assert!(!d.clip.frames.is_empty() && d.clip.frames.len() < 48);
}

#[test]
fn programs_that_take_too_long_are_ended() {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.mp4");
    video::write_mp4(&path, &clip(20, 25.0, 64, 48), 30).unwrap();
    let began = Instant::now();
    let e = video::read(
        &path,
        &Wanted {
            timeout: Duration::from_micros(1),
            ..Wanted::default()
        },
    );
    assert!(e.unwrap_err().to_string().contains("did not finish"));
    assert!(began.elapsed() < Duration::from_secs(20));
}

/// Spoils files of every kind, the ones with these numbers, and reads them: no panic, no hang. Returns how many could still be read.
fn spoil(numbers: std::ops::Range<usize>) -> usize {
    needs_ffmpeg();
    let folder = tempfile::tempdir().unwrap();
    let spec = Spec {
        class: Class::Motion,
        width: 48,
        height: 32,
        frames: 6,
        fps: Some(12.0),
        supersample: 1,
        ..Spec::new(5)
    };
    let rendered = generator::sample(&spec).unwrap();
    let at = |n: &str| folder.path().join(n);
    video::write_mp4(&at("a.mp4"), &rendered.clip, 25).unwrap();
    video::write_y4m(&at("a.y4m"), &rendered.clip).unwrap();
    let text = |n: &str| at(n).to_string_lossy().into_owned();
    for name in ["a.mkv", "a.avi", "a.webm", "a.mov", "a.gif"] {
        ffmpeg(&["-i", &text("a.mp4"), &text(name)]);
    }
    let originals: Vec<(String, Vec<u8>)> = [
        "a.mp4", "a.y4m", "a.mkv", "a.avi", "a.webm", "a.mov", "a.gif",
    ]
    .iter()
    .map(|n| ((*n).to_owned(), std::fs::read(at(n)).unwrap()))
    .collect();
    let wanted = Wanted {
        pace: Pace::Uniform(4),
        max_side: 32,
        timeout: Duration::from_secs(20),
        max_bytes: 64 << 20,
        ..Wanted::default()
    };
    // Nearly all of the time is the start of ffprobe and ffmpeg: files are read side by side, and those formats that are read without
    // them get half of the blows.
    let turns = [0, 1, 2, 6, 3, 1, 4, 6, 5, 1];
    numbers
        .into_par_iter()
        .filter(|&i| {
            let (name, original) = &originals[turns[i % turns.len()]];
            let mut rng = ChaCha8Rng::from_seed([7; 32]);
            rng.set_stream(i as u64);
            let bytes = spoiled(original, &mut rng);
            let path = at(&format!("{i}-{name}"));
            std::fs::write(&path, &bytes).unwrap();
            let began = Instant::now();
            let read = video::read(&path, &wanted);
            let _ = crate::provenance::manifest(&path).unwrap();
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "file {i} took {:?}",
                began.elapsed()
            );
            std::fs::remove_file(&path).unwrap();
            read.is_ok_and(|d| {
                assert!(!d.clip.frames.is_empty() && d.clip.width <= 32 && d.clip.height <= 32);
                true
            })
        })
        .count()
}

/// One to twelve bytes changed, and one time in four cut off.
fn spoiled(original: &[u8], rng: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = original.to_vec();
    let below = |rng: &mut ChaCha8Rng, n: usize| rng.next_u64() as usize % n.max(1);
    for _ in 0..1 + below(rng, 12) {
        // Half of the blows go to the first kilobyte, where sizes and counts are.
        let within = if rng.next_u32() & 1 == 0 {
            bytes.len().min(1024)
        } else {
            bytes.len()
        };
        let k = below(rng, within);
        bytes[k] = rng.next_u32() as u8;
    }
    if rng.next_u32().is_multiple_of(4) {
        let n = below(rng, bytes.len());
        bytes.truncate(n);
    }
    bytes
}

#[test]
fn spoiled_files_neither_panic_nor_hang() {
    let readable = spoil(0..500);
    assert!(readable > 0, "some of them can still be read");
}

/// Ten thousand files in ten parts, each a test, so that a run that was broken off goes on from its part.
macro_rules! ten_thousand {
    ($($name:ident: $part:literal),*) => {$(
        #[test]
        #[ignore = "ten thousand files take some minutes: cargo test --release -p tacit-humansam --lib -- --ignored ten_thousand"]
        fn $name() {
            let readable = spoil($part * 1000..($part + 1) * 1000);
            println!("part {}: {readable} of 1000 spoiled files could still be read", $part);
            assert!(readable > 0);
        }
    )*};
}

ten_thousand!(
    ten_thousand_spoiled_files_0: 0, ten_thousand_spoiled_files_1: 1, ten_thousand_spoiled_files_2: 2, ten_thousand_spoiled_files_3: 3,
    ten_thousand_spoiled_files_4: 4, ten_thousand_spoiled_files_5: 5, ten_thousand_spoiled_files_6: 6, ten_thousand_spoiled_files_7: 7,
    ten_thousand_spoiled_files_8: 8, ten_thousand_spoiled_files_9: 9
);
