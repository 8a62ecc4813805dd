//! Writing clips: Y4M by this crate, mp4 (H.264) through `ffmpeg`.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::clip::{Clip, Frame};
use crate::error::{HumansamError, Result};

/// A frame rate as a fraction of whole numbers.
fn fraction(fps: f64) -> (u64, u64) {
    if (fps - fps.round()).abs() < 1e-6 {
        (fps.round() as u64, 1)
    } else {
        ((fps * 1001.0).round() as u64, 1001)
    }
}

/// The inverse of the reader's BT.601 conversion, 4:4:4.
fn yuv444(frame: &Frame) -> Vec<u8> {
    let n = frame.width() * frame.height();
    let mut out = vec![0u8; 3 * n];
    for (i, p) in frame.rgb().chunks_exact(3).enumerate() {
        let (r, g, b) = (f32::from(p[0]), f32::from(p[1]), f32::from(p[2]));
        let y = 0.299 * r + 0.587 * g + 0.114 * b;
        let byte = |v: f32| (v + 0.5).clamp(0.0, 255.0) as u8;
        out[i] = byte(16.0 + y * (219.0 / 255.0));
        out[n + i] = byte(128.0 + (b - y) / 1.772 * (224.0 / 255.0));
        out[2 * n + i] = byte(128.0 + (r - y) / 1.402 * (224.0 / 255.0));
    }
    out
}

/// Writes a clip as Y4M with full chroma (`C444`).
///
/// # Errors
/// When the file cannot be written.
pub fn write_y4m(path: &Path, clip: &Clip) -> Result<()> {
    let io = |e| HumansamError::Io {
        action: "write",
        path: path.into(),
        source: e,
    };
    let mut out = BufWriter::new(File::create(path).map_err(io)?);
    let (a, b) = fraction(clip.fps);
    writeln!(
        out,
        "YUV4MPEG2 W{} H{} F{a}:{b} Ip A1:1 C444",
        clip.width, clip.height
    )
    .map_err(io)?;
    for frame in &clip.frames {
        out.write_all(b"FRAME\n").map_err(io)?;
        out.write_all(&yuv444(frame)).map_err(io)?;
    }
    out.flush().map_err(io)
}

/// Writes a clip as mp4 (H.264, 4:2:0, `crf` 0 best to 51 worst), through `ffmpeg`. Odd sizes are filled up by one row or column.
///
/// # Errors
/// When `ffmpeg` is absent or fails.
pub fn write_mp4(path: &Path, clip: &Clip, crf: u8) -> Result<()> {
    let program = "ffmpeg";
    let mut target = std::ffi::OsString::from("file:");
    target.push(path);
    let (a, b) = fraction(clip.fps);
    let mut child = Command::new(program)
        .args([
            "-v", "error", "-nostdin", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24",
        ])
        .args([
            "-s",
            &format!("{}x{}", clip.width, clip.height),
            "-r",
            &format!("{a}/{b}"),
            "-i",
            "pipe:0",
        ])
        .args([
            "-vf",
            "pad=ceil(iw/2)*2:ceil(ih/2)*2",
            "-c:v",
            "libx264",
            "-preset",
            "veryfast",
            "-threads",
            "1",
        ])
        .args([
            "-crf",
            &crf.min(51).to_string(),
            "-pix_fmt",
            "yuv420p",
            "-movflags",
            "+faststart",
            "-fflags",
            "+bitexact",
            "-flags:v",
            "+bitexact",
            "-f",
            "mp4",
        ])
        .arg(target)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => HumansamError::MissingProgram {
                program,
                what: format!("writing {}", path.display()),
            },
            _ => HumansamError::Program {
                program,
                path: path.into(),
                message: format!("cannot be started: {e}"),
            },
        })?;
    // With -v error the program says at most a few lines, so its complaints never fill their pipe while it is fed.
    let fed = child.stdin.take().map_or(Ok(()), |mut pipe| {
        clip.frames.iter().try_for_each(|f| pipe.write_all(f.rgb()))
    });
    let out = child
        .wait_with_output()
        .map_err(HumansamError::io("write", path))?;
    if !out.status.success() || fed.is_err() {
        let text = String::from_utf8_lossy(&out.stderr);
        let message = text
            .lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("ended without saying why")
            .to_owned();
        return Err(HumansamError::Program {
            program,
            path: path.into(),
            message,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn y4m_is_read_back() {
        let mut frame = Frame::black(7, 5);
        for (i, v) in frame.rgb_mut().iter_mut().enumerate() {
            *v = (i * 5) as u8;
        }
        let clip = Clip::new(30_000.0 / 1001.0, vec![frame; 3]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.y4m");
        write_y4m(&path, &clip).unwrap();
        let (back, complaint) = super::super::read_y4m(File::open(&path).unwrap(), 10).unwrap();
        assert_eq!(complaint, None);
        assert!((back.fps - clip.fps).abs() < 1e-3);
        let worst = clip.frames[1]
            .rgb()
            .iter()
            .zip(back.frames[1].rgb())
            .map(|(a, b)| a.abs_diff(*b))
            .max();
        assert!(worst <= Some(4), "{worst:?}");
    }
}
