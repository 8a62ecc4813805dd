//! Generated clips as files: a video, and beside it a JSON file that says all that is known (the *sidecar*).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{AnomalyRecord, Rendered, SceneRecord, Spec};
use crate::class::Class;
use crate::clip::Plane;
use crate::error::{HumansamError, Result};
use crate::video;

/// How the video is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// H.264 through `ffmpeg`, with this constant rate factor.
    Mp4 {
        /// 0 best to 51 worst.
        crf: u8,
    },
    /// Raw, by this crate.
    Y4m,
}

/// The constant rate factor of a clip's encoding, 16 to 30: drawn from the seed, never from the class.
pub fn drawn_crf(seed: u64) -> u8 {
    16 + super::rng::Rng::named(seed, "crf").below(15) as u8
}

/// Name and version of the sidecar's format.
pub const SIDECAR_FORMAT: &str = "tacit-clip-1";
const LARGEST_SIDECAR: u64 = 64 << 20;

/// What is known of a generated clip. Its `spec` gives the same clip again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    /// [`SIDECAR_FORMAT`].
    pub format: String,
    /// Name of the video, in the same folder.
    pub file: String,
    /// What is wrong.
    pub class: Class,
    /// The operator, its severity and span.
    pub anomaly: Option<AnomalyRecord>,
    /// Where and what.
    pub scene: SceneRecord,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Frames a second.
    pub fps: f64,
    /// Number of frames.
    pub frames: usize,
    /// What was asked for.
    pub spec: Spec,
    /// Where something is wrong: a rectangle (left, top, one past right, one past bottom) a frame; empty where masks were not made.
    pub boxes: Vec<Option<[usize; 4]>>,
}

/// The smallest rectangle around everything above 0.
pub fn bounding_box(mask: &Plane) -> Option<[usize; 4]> {
    let mut b: Option<[usize; 4]> = None;
    for y in 0..mask.height {
        for x in 0..mask.width {
            if mask.at(x, y) > 0.0 {
                let [l, t, r, d] = b.unwrap_or([x, y, x + 1, y + 1]);
                b = Some([l.min(x), t.min(y), r.max(x + 1), d.max(y + 1)]);
            }
        }
    }
    b
}

/// Writes `folder/stem.mp4` (or `.y4m`) and `folder/stem.json`; returns the video's path.
///
/// # Errors
/// When a file cannot be written, or `ffmpeg` is needed and absent.
pub fn save(
    folder: &Path,
    stem: &str,
    rendered: &Rendered,
    spec: &Spec,
    encoding: Encoding,
) -> Result<PathBuf> {
    std::fs::create_dir_all(folder).map_err(HumansamError::io("create", folder))?;
    let file = match encoding {
        Encoding::Mp4 { .. } => format!("{stem}.mp4"),
        Encoding::Y4m => format!("{stem}.y4m"),
    };
    let path = folder.join(&file);
    match encoding {
        Encoding::Mp4 { crf } => video::write_mp4(&path, &rendered.clip, crf)?,
        Encoding::Y4m => video::write_y4m(&path, &rendered.clip)?,
    }
    let sidecar = Sidecar {
        format: SIDECAR_FORMAT.into(),
        file,
        class: rendered.class,
        anomaly: rendered.anomaly.clone(),
        scene: rendered.scene.clone(),
        width: rendered.clip.width,
        height: rendered.clip.height,
        fps: rendered.clip.fps,
        frames: rendered.clip.frames.len(),
        spec: spec.clone(),
        boxes: rendered.mask.iter().map(bounding_box).collect(),
    };
    let json = folder.join(format!("{stem}.json"));
    let text = serde_json::to_vec(&sidecar).map_err(|e| {
        HumansamError::Argument(format!("a sidecar cannot be written as JSON: {e}"))
    })?;
    std::fs::write(&json, text).map_err(HumansamError::io("write", &json))?;
    Ok(path)
}

/// Reads a sidecar.
///
/// # Errors
/// When the file cannot be read, is not JSON of this format, or contradicts itself.
pub fn read_sidecar(path: &Path) -> Result<Sidecar> {
    let size = std::fs::metadata(path)
        .map_err(HumansamError::io("read", path))?
        .len();
    if size > LARGEST_SIDECAR {
        return Err(HumansamError::Malformed {
            path: path.into(),
            message: format!("{size} bytes; a sidecar has at most {LARGEST_SIDECAR}"),
        });
    }
    let text = std::fs::read(path).map_err(HumansamError::io("read", path))?;
    parse_sidecar(&text).map_err(|message| HumansamError::Malformed {
        path: path.into(),
        message,
    })
}

fn parse_sidecar(text: &[u8]) -> std::result::Result<Sidecar, String> {
    let s: Sidecar = serde_json::from_slice(text)
        .map_err(|e| format!("not a sidecar of a generated clip: {e}"))?;
    if s.format != SIDECAR_FORMAT {
        return Err(format!(
            "format \"{}\"; expected \"{SIDECAR_FORMAT}\"",
            s.format
        ));
    }
    if s.file.is_empty()
        || Path::new(&s.file)
            .file_name()
            .is_none_or(|n| n != s.file.as_str())
    {
        return Err(format!(
            "\"{}\" is not the name of a file in the same folder",
            s.file
        ));
    }
    if s.class.is_forged() != s.anomaly.is_some()
        || s.anomaly
            .as_ref()
            .is_some_and(|a| a.operator.class() != s.class)
    {
        return Err(format!(
            "class {} and anomaly {:?} contradict each other",
            s.class, s.anomaly
        ));
    }
    if let Some(a) = &s.anomaly
        && (a.first_frame > a.last_frame || a.last_frame >= s.frames)
    {
        return Err(format!(
            "the anomaly spans frames {} to {} of {}",
            a.first_frame, a.last_frame, s.frames
        ));
    }
    if !(s.boxes.is_empty() || s.boxes.len() == s.frames) {
        return Err(format!(
            "{} rectangles for {} frames",
            s.boxes.len(),
            s.frames
        ));
    }
    if s.boxes
        .iter()
        .flatten()
        .any(|[l, t, r, b]| l >= r || t >= b || *r > s.width || *b > s.height)
    {
        return Err("a rectangle is empty or lies outside of the picture".into());
    }
    if !(s.fps.is_finite() && s.fps > 0.0) {
        return Err(format!("a frame rate of {}", s.fps));
    }
    Ok(s)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec() -> Spec {
        Spec {
            class: Class::Spatial,
            width: 32,
            height: 24,
            frames: 3,
            supersample: 1,
            maps: true,
            fps: Some(12.0),
            ..Spec::new(2)
        }
    }

    #[test]
    fn what_is_saved_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let rendered = super::super::sample(&spec()).unwrap();
        let video = save(folder.path(), "clip", &rendered, &spec(), Encoding::Y4m).unwrap();
        let sidecar = read_sidecar(&folder.path().join("clip.json")).unwrap();
        assert_eq!(sidecar.spec, spec());
        assert_eq!(sidecar.anomaly, rendered.anomaly);
        assert_eq!(sidecar.boxes.len(), 3);
        let again = super::super::sample(&sidecar.spec).unwrap();
        assert_eq!(again.clip, rendered.clip);
        let read = video::read(
            &video,
            &video::Wanted {
                pace: video::Pace::All,
                ..video::Wanted::default()
            },
        )
        .unwrap();
        assert_eq!(read.clip.frames.len(), 3);
    }

    /// A sidecar's bytes, made once.
    fn bytes() -> Vec<u8> {
        static BYTES: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        BYTES
            .get_or_init(|| {
                let folder = tempfile::tempdir().unwrap();
                let small = Spec {
                    width: 8,
                    height: 8,
                    frames: 2,
                    maps: false,
                    class: Class::Motion,
                    ..spec()
                };
                let rendered = super::super::sample(&small).unwrap();
                save(folder.path(), "c", &rendered, &small, Encoding::Y4m).unwrap();
                std::fs::read(folder.path().join("c.json")).unwrap()
            })
            .clone()
    }

    proptest! {
        #[test]
        fn no_mutated_sidecar_panics(at in any::<prop::sample::Index>(), to in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let mut bytes = bytes();
            let i = at.index(bytes.len());
            bytes[i] = to;
            let _ = parse_sidecar(&bytes);
            let n = cut.index(bytes.len());
            prop_assert!(parse_sidecar(&bytes[..n]).is_err());
        }
    }
}
