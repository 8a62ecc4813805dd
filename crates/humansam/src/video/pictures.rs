//! Folders of PNG and JPEG pictures as videos, and single pictures as videos of one frame.

use std::path::{Path, PathBuf};

use super::{Container, Decoded, Info, Wanted, check_bytes, choose, decoded, fitted};
use crate::clip::Frame;
use crate::error::{HumansamError, Result};

/// Pictures say nothing of time.
const ASSUMED_FPS: f64 = 25.0;
const MOST_PIXELS: u64 = 1 << 26;

/// Pictures of a folder in the order a person would count them: `2.png` before `10.png`.
fn list(path: &Path, kind: Container) -> Result<Vec<PathBuf>> {
    if kind == Container::Picture {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).map_err(HumansamError::io("list", path))? {
        let file = entry.map_err(HumansamError::io("list", path))?.path();
        let picture = file.extension().and_then(|e| e.to_str()).is_some_and(|e| {
            ["png", "jpg", "jpeg"]
                .iter()
                .any(|k| e.eq_ignore_ascii_case(k))
        });
        if picture && file.is_file() {
            files.push(file);
        }
    }
    if files.is_empty() {
        return Err(HumansamError::Malformed {
            path: path.into(),
            message: "the folder holds no .png, .jpg or .jpeg files; one a frame was expected"
                .into(),
        });
    }
    files.sort_by_key(|f| natural(&f.file_name().unwrap_or_default().to_string_lossy()));
    Ok(files)
}

/// Runs of digits compare as numbers.
fn natural(name: &str) -> Vec<(u8, u128, String)> {
    let mut key = Vec::new();
    let mut rest = name;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        if digits > 0 {
            let (number, tail) = rest.split_at(digits);
            key.push((0, number.parse().unwrap_or(u128::MAX), number.to_owned()));
            rest = tail;
        } else {
            let (text, tail) = rest.split_at(
                rest.find(|c: char| c.is_ascii_digit())
                    .unwrap_or(rest.len()),
            );
            key.push((1, 0, text.to_owned()));
            rest = tail;
        }
    }
    key
}

fn reader(path: &Path) -> Result<image::ImageReader<std::io::BufReader<std::fs::File>>> {
    let mut reader = image::ImageReader::open(path)
        .and_then(|r| r.with_guessed_format())
        .map_err(HumansamError::io("read", path))?;
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(MOST_PIXELS * 8);
    reader.limits(limits);
    Ok(reader)
}

fn malformed(path: &Path) -> impl Fn(image::ImageError) -> HumansamError + '_ {
    move |e| HumansamError::Malformed {
        path: path.into(),
        message: format!("not a readable PNG or JPEG picture: {e}"),
    }
}

fn picture(path: &Path) -> Result<Frame> {
    let (w, h) = reader(path)?.into_dimensions().map_err(malformed(path))?;
    if u64::from(w) * u64::from(h) > MOST_PIXELS {
        return Err(HumansamError::Malformed {
            path: path.into(),
            message: format!(
                "a picture of {w}x{h} pixels; at most {MOST_PIXELS} pixels were expected"
            ),
        });
    }
    let rgb = reader(path)?.decode().map_err(malformed(path))?.into_rgb8();
    Frame::new(rgb.width() as usize, rgb.height() as usize, rgb.into_raw())
}

fn info(path: &Path, kind: Container, files: &[PathBuf]) -> Result<Info> {
    let first = &files[0];
    let (w, h) = reader(first)?.into_dimensions().map_err(malformed(first))?;
    Ok(Info {
        container: kind,
        width: w as usize,
        height: h as usize,
        fps: ASSUMED_FPS,
        seconds: Some(files.len() as f64 / ASSUMED_FPS),
        frames: Some(files.len() as u64),
        bytes: if kind == Container::Picture {
            std::fs::metadata(path)
                .map_err(HumansamError::io("read", path))?
                .len()
        } else {
            0
        },
        codec: None,
    })
}

pub(super) fn probe(path: &Path, kind: Container) -> Result<Info> {
    info(path, kind, &list(path, kind)?)
}

pub(super) fn read(path: &Path, kind: Container, wanted: &Wanted) -> Result<Decoded> {
    let files = list(path, kind)?;
    let info = info(path, kind, &files)?;
    let times: Vec<f64> = (0..files.len()).map(|i| i as f64 / ASSUMED_FPS).collect();
    let chosen = choose(&times, files.len() as f64 / ASSUMED_FPS, wanted);
    let size = fitted(info.width, info.height, wanted.max_side);
    check_bytes(path, chosen.len(), size.0, size.1, wanted)?;
    let mut frames: Vec<Frame> = Vec::new();
    for (k, &i) in chosen.iter().enumerate() {
        let again = k > 0 && chosen[k - 1] == i;
        let frame = if again {
            frames[k - 1].clone()
        } else {
            picture(&files[i])?.resize(size.0, size.1)
        };
        frames.push(frame);
    }
    let kept = chosen.iter().map(|&i| times[i]).collect();
    decoded(path, frames, kept, info, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_read_in_counting_order_and_sizes_may_differ() {
        let folder = tempfile::tempdir().unwrap();
        for (name, value, size) in [
            ("f10.png", 30u8, 9u32),
            ("f2.png", 20, 8),
            ("f1.jpg", 10, 8),
        ] {
            let pixels = vec![value; (size * 6 * 3) as usize];
            image::save_buffer(
                folder.path().join(name),
                &pixels,
                size,
                6,
                image::ColorType::Rgb8,
            )
            .unwrap();
        }
        std::fs::write(folder.path().join("notes.txt"), "x").unwrap();
        let d = super::super::read(
            folder.path(),
            &Wanted {
                pace: super::super::Pace::All,
                ..Wanted::default()
            },
        )
        .unwrap();
        let values: Vec<u8> = d.clip.frames.iter().map(|f| f.pixel(4, 3)[0]).collect();
        assert_eq!((d.clip.width, d.clip.height), (8, 6));
        assert!(
            values[0].abs_diff(10) < 3 && values[1] == 20 && values[2] == 30,
            "{values:?}"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(
            super::super::read(empty.path(), &Wanted::default())
                .unwrap_err()
                .to_string()
                .contains("no .png")
        );
    }

    #[test]
    fn broken_pictures_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, b"\x89PNG\r\n\x1a\nbroken").unwrap();
        assert!(super::super::read(&path, &Wanted::default()).is_err());
    }
}
