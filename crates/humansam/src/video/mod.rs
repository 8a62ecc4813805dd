//! Videos in and out.
//!
//! | what | by |
//! | --- | --- |
//! | Y4M, GIF, folders of PNG/JPEG, single pictures | this crate |
//! | everything else (mp4, mov, webm, mkv, avi, …) | `ffmpeg` and `ffprobe` as processes, over a pipe |
//!
//! Only the frames that were asked for are kept, so memory does not grow with the length of a video. A file that ends early gives the frames it
//! has, and says so ([`Decoded::complaint`]).
//!
//! ```no_run
//! use tacit_humansam::video::{self, Pace, Wanted};
//! let decoded = video::read("clip.mp4".as_ref(), &Wanted { pace: Pace::Uniform(32), ..Wanted::default() })?;
//! let views = video::views(&decoded.clip, 4, 8, 224);
//! assert_eq!(views.len(), 12);
//! # Ok::<(), tacit_humansam::HumansamError>(())
//! ```

/// Names the file in a complaint about its bytes.
fn named(path: &Path) -> impl Fn(HumansamError) -> HumansamError + '_ {
    move |e| match e {
        HumansamError::Bytes { format, message } => HumansamError::Malformed {
            path: path.into(),
            message: format!("{format}: {message}"),
        },
        other => other,
    }
}

#[cfg(test)]
mod file_tests;
mod gif;
mod pictures;
mod process;
mod sampling;
mod write;
mod y4m;

pub use process::available as ffmpeg_available;
pub use sampling::{uniform_indices, views};
pub use write::{write_mp4, write_y4m};
pub use y4m::read_y4m;

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::clip::{Clip, Frame};
use crate::error::{HumansamError, Result};

/// How many frames, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pace {
    /// So many frames, in the middles of as many equal parts of the time.
    Uniform(usize),
    /// So many frames a second, or the video's own rate where that is lower.
    Rate(f64),
    /// Every `k`-th frame, with the `k` that comes nearest to so many frames a second: evenly spaced, which [`Pace::Rate`] is
    /// not where the rate does not divide the video's.
    Thin(f64),
    /// Every frame.
    All,
}

/// The `k` of [`Pace::Thin`]: `fps / rate`, rounded, at least 1.
pub fn thinning(fps: f64, rate: f64) -> usize {
    ((fps / rate).round() as usize).max(1)
}

/// What to read of a video.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// Seconds from the beginning.
    pub start: f64,
    /// How long; `None` to the end.
    pub seconds: Option<f64>,
    /// Which frames.
    pub pace: Pace,
    /// Frames are shrunk until no side is longer.
    pub max_side: usize,
    /// Bytes that the kept frames may take together.
    pub max_bytes: usize,
    /// How long an external program may run.
    pub timeout: Duration,
}

impl Default for Wanted {
    /// 32 frames over the whole video, sides up to 640 pixels, 1 GiB, two minutes.
    fn default() -> Self {
        Wanted {
            start: 0.0,
            seconds: None,
            pace: Pace::Uniform(32),
            max_side: 640,
            max_bytes: 1 << 30,
            timeout: Duration::from_secs(120),
        }
    }
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Container {
    /// YUV4MPEG2.
    Y4m,
    /// GIF.
    Gif,
    /// A folder of pictures.
    Folder,
    /// One picture.
    Picture,
    /// Read by `ffmpeg`.
    Ffmpeg,
}

/// What a file says about itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Info {
    /// How it is read.
    pub container: Container,
    /// Columns as shown (after rotation flags).
    pub width: usize,
    /// Rows as shown.
    pub height: usize,
    /// Mean frames a second.
    pub fps: f64,
    /// Length; `None` where the file does not say.
    pub seconds: Option<f64>,
    /// Number of frames; `None` where the file does not say.
    pub frames: Option<u64>,
    /// Bytes of the file; 0 for folders.
    pub bytes: u64,
    /// Name of the codec, where known.
    pub codec: Option<String>,
}

/// Frames of a video.
#[derive(Clone, Debug)]
pub struct Decoded {
    /// The frames. `fps` is the rate of the *kept* frames.
    pub clip: Clip,
    /// Instant of each kept frame in seconds from the beginning.
    pub times: Vec<f64>,
    /// What the file says.
    pub info: Info,
    /// What was wrong with the file, if it could be read in part.
    pub complaint: Option<String>,
}

/// The kind of a file, by its first bytes.
///
/// # Errors
/// When it cannot be read or is empty.
pub fn container(path: &Path) -> Result<Container> {
    let meta = std::fs::metadata(path).map_err(HumansamError::io("read", path))?;
    if meta.is_dir() {
        return Ok(Container::Folder);
    }
    let mut head = [0u8; 16];
    let mut file = File::open(path).map_err(HumansamError::io("read", path))?;
    let mut have = 0;
    while have < head.len() {
        match file
            .read(&mut head[have..])
            .map_err(HumansamError::io("read", path))?
        {
            0 => break,
            n => have += n,
        }
    }
    if have == 0 {
        return Err(HumansamError::Malformed {
            path: path.into(),
            message: "the file is empty; a video was expected".into(),
        });
    }
    let head = &head[..have];
    Ok(if head.starts_with(b"YUV4MPEG2 ") {
        Container::Y4m
    } else if head.starts_with(b"GIF87a") || head.starts_with(b"GIF89a") {
        Container::Gif
    } else if head.starts_with(b"\x89PNG\r\n\x1a\n") || head.starts_with(b"\xff\xd8\xff") {
        Container::Picture
    } else {
        Container::Ffmpeg
    })
}

/// What a file says about itself, without decoding it (folders and GIFs are listed).
///
/// # Errors
/// When the file cannot be read, holds no video, or needs `ffprobe` and that is absent.
pub fn probe(path: &Path) -> Result<Info> {
    match container(path)? {
        Container::Y4m => y4m::probe(path),
        Container::Gif => gif::probe(path),
        kind @ (Container::Folder | Container::Picture) => pictures::probe(path, kind),
        Container::Ffmpeg => process::probe(path, Wanted::default().timeout),
    }
}

/// Reads frames.
///
/// # Errors
/// When the file cannot be read, holds not one whole frame in the time asked for, needs `ffmpeg` and that is absent, takes longer than allowed, or
/// the frames asked for are more than `max_bytes`.
pub fn read(path: &Path, wanted: &Wanted) -> Result<Decoded> {
    check(wanted)?;
    match container(path)? {
        Container::Y4m => y4m::read(path, wanted),
        Container::Gif => gif::read(path, wanted),
        kind @ (Container::Folder | Container::Picture) => pictures::read(path, kind, wanted),
        Container::Ffmpeg => process::read(path, wanted),
    }
}

fn check(wanted: &Wanted) -> Result<()> {
    let bad = |m: String| Err(HumansamError::Argument(m));
    if !(wanted.start.is_finite() && wanted.start >= 0.0) {
        return bad(format!(
            "a video is read from 0 seconds on, not from {}",
            wanted.start
        ));
    }
    if let Some(s) = wanted.seconds
        && !(s.is_finite() && s > 0.0)
    {
        return bad(format!("a length to read is above 0 seconds, not {s}"));
    }
    match wanted.pace {
        Pace::Uniform(0) => return bad("at least one frame has to be asked for".into()),
        Pace::Rate(r) | Pace::Thin(r) if !(r.is_finite() && r > 0.0) => {
            return bad(format!("a rate is above 0 frames a second, not {r}"));
        }
        _ => {}
    }
    if wanted.max_side < 1 {
        return bad("frames need sides of at least 1 pixel".into());
    }
    Ok(())
}

/// The size of a frame shrunk to `max_side`, at least 1×1.
pub(crate) fn fitted(width: usize, height: usize, max_side: usize) -> (usize, usize) {
    let longest = width.max(height);
    if longest <= max_side {
        return (width, height);
    }
    let shrink = |s: usize| {
        ((s as u128 * max_side as u128 + longest as u128 / 2) / longest as u128).max(1) as usize
    };
    (shrink(width), shrink(height))
}

/// Which of the frames at `times` (ascending) to keep.
pub(crate) fn choose(times: &[f64], end: f64, wanted: &Wanted) -> Vec<usize> {
    let stop = wanted.seconds.map_or(end, |s| (wanted.start + s).min(end));
    let first = times.partition_point(|&t| t < wanted.start - 1e-9);
    let last = times.partition_point(|&t| t < stop - 1e-9);
    if first >= last {
        return Vec::new();
    }
    // The frame that is shown at an instant: the last that began before or at it.
    let shown = |t: f64| {
        (times[..last].partition_point(|&x| x <= t + 1e-9))
            .saturating_sub(1)
            .max(first)
    };
    match wanted.pace {
        Pace::All => (first..last).collect(),
        Pace::Thin(rate) => {
            let own = rate_of(&times[first..last], rate);
            (first..last).step_by(thinning(own, rate)).collect()
        }
        Pace::Uniform(n) => {
            let length = (stop - wanted.start).max(0.0);
            (0..n)
                .map(|i| shown(wanted.start + length * (i as f64 + 0.5) / n as f64))
                .collect()
        }
        Pace::Rate(rate) => {
            let mut kept = Vec::new();
            let mut due = times[first];
            for (i, &t) in times.iter().enumerate().take(last).skip(first) {
                if t >= due - 1e-6 {
                    kept.push(i);
                    due = (due + 1.0 / rate).max(t + 0.5 / rate);
                }
            }
            kept
        }
    }
}

/// Rate of frames at these instants; `fallback` for fewer than two different ones.
pub(crate) fn rate_of(times: &[f64], fallback: f64) -> f64 {
    match (times.first(), times.last()) {
        (Some(a), Some(b)) if b > a => (times.len() - 1) as f64 / (b - a),
        _ => fallback,
    }
}

/// Refuses more bytes than allowed.
pub(crate) fn check_bytes(
    path: &Path,
    frames: usize,
    width: usize,
    height: usize,
    wanted: &Wanted,
) -> Result<()> {
    let bytes = frames as u128 * width as u128 * height as u128 * 3;
    if bytes > wanted.max_bytes as u128 {
        return Err(HumansamError::Argument(format!(
            "{}: {frames} frames of {width}x{height} take {} MiB, more than the {} MiB allowed; ask for fewer or smaller frames",
            path.display(),
            bytes >> 20,
            wanted.max_bytes >> 20
        )));
    }
    Ok(())
}

/// Collects chosen frames while a decoder runs through all of them.
pub(crate) struct Keeper<'a> {
    chosen: &'a [usize],
    next: usize,
    size: (usize, usize),
    pub frames: Vec<Frame>,
}

impl<'a> Keeper<'a> {
    pub fn new(chosen: &'a [usize], size: (usize, usize)) -> Self {
        Keeper {
            chosen,
            next: 0,
            size,
            frames: Vec::new(),
        }
    }
    /// Whether frame `index` is wanted.
    pub fn wants(&self, index: usize) -> bool {
        self.chosen.get(self.next) == Some(&index)
    }
    /// Whether nothing more is wanted.
    pub fn full(&self) -> bool {
        self.next >= self.chosen.len()
    }
    /// Takes frame `index` as often as it is wanted.
    pub fn take(&mut self, index: usize, frame: &Frame) {
        if !self.wants(index) {
            return;
        }
        let small = frame.resize(self.size.0, self.size.1);
        while self.wants(index) {
            self.frames.push(small.clone());
            self.next += 1;
        }
    }
}

/// Puts the pieces together; an error where no frame was kept.
pub(crate) fn decoded(
    path: &Path,
    frames: Vec<Frame>,
    times: Vec<f64>,
    info: Info,
    complaint: Option<String>,
) -> Result<Decoded> {
    if frames.is_empty() {
        return Err(HumansamError::Malformed {
            path: path.into(),
            message: format!(
                "not one whole frame could be read in the time asked for{}",
                complaint.map_or_else(String::new, |c| format!(" ({c})"))
            ),
        });
    }
    let mut times = times;
    times.truncate(frames.len());
    let fps = rate_of(&times, info.fps);
    let clip = Clip::new(fps, frames)?;
    Ok(Decoded {
        clip,
        times,
        info,
        complaint,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_chosen_in_the_middle_of_equal_parts() {
        let times: Vec<f64> = (0..100).map(|i| i as f64 / 25.0).collect();
        let pick = |wanted: Wanted| choose(&times, 4.0, &wanted);
        assert_eq!(
            pick(Wanted {
                pace: Pace::Uniform(4),
                ..Wanted::default()
            }),
            [12, 37, 62, 87]
        );
        assert_eq!(
            pick(Wanted {
                pace: Pace::Uniform(2),
                start: 2.0,
                ..Wanted::default()
            }),
            [62, 87]
        );
        assert_eq!(
            pick(Wanted {
                pace: Pace::Rate(5.0),
                ..Wanted::default()
            }),
            (0..20).map(|i| i * 5).collect::<Vec<_>>()
        );
        assert_eq!(
            pick(Wanted {
                pace: Pace::Rate(50.0),
                ..Wanted::default()
            })
            .len(),
            100
        );
        assert_eq!(
            pick(Wanted {
                pace: Pace::All,
                start: 1.0,
                seconds: Some(1.0),
                ..Wanted::default()
            }),
            (25..50).collect::<Vec<_>>()
        );
        assert!(
            pick(Wanted {
                start: 9.0,
                ..Wanted::default()
            })
            .is_empty()
        );
        // More instants than frames repeat frames; one frame serves all.
        assert_eq!(
            choose(
                &[0.0],
                0.04,
                &Wanted {
                    pace: Pace::Uniform(3),
                    ..Wanted::default()
                }
            ),
            [0, 0, 0]
        );
    }

    #[test]
    fn sizes_keep_their_shape() {
        assert_eq!(fitted(1920, 1080, 640), (640, 360));
        assert_eq!(fitted(100, 50, 640), (100, 50));
        assert_eq!(fitted(10_000, 1, 640), (640, 1));
    }
}
