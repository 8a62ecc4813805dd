//! YUV4MPEG2, the simplest container of raw video: a line of text, then frames, each with a line of text before it.
//!
//! Understood colour spaces: 4:2:0 (all sitings), 4:2:2, 4:4:4 and grey, 8 bits.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::{Container, Decoded, Info, Keeper, Wanted, check_bytes, choose, decoded, fitted};
use crate::clip::{Clip, Frame};
use crate::error::{HumansamError, Result};

const LONGEST_LINE: usize = 1024;
const MOST_PIXELS: usize = 1 << 26;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chroma {
    C420,
    C422,
    C444,
    Grey,
}

#[derive(Clone, Debug, PartialEq)]
struct Header {
    width: usize,
    height: usize,
    fps: f64,
    chroma: Chroma,
}

impl Header {
    fn chroma_size(&self) -> (usize, usize) {
        match self.chroma {
            Chroma::C420 => (self.width.div_ceil(2), self.height.div_ceil(2)),
            Chroma::C422 => (self.width.div_ceil(2), self.height),
            Chroma::C444 => (self.width, self.height),
            Chroma::Grey => (0, 0),
        }
    }
    fn frame_bytes(&self) -> usize {
        let (w, h) = self.chroma_size();
        self.width * self.height + 2 * w * h
    }
}

fn bad(message: impl Into<String>) -> HumansamError {
    HumansamError::Bytes {
        format: "Y4M",
        message: message.into(),
    }
}

/// A line without its end; `None` at the end of the file.
fn line(from: &mut impl BufRead) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    from.take(LONGEST_LINE as u64 + 1)
        .read_until(b'\n', &mut bytes)
        .map_err(|e| bad(format!("cannot read: {e}")))?;
    if bytes.is_empty() {
        return Ok(None);
    }
    if bytes.pop() != Some(b'\n') {
        return Err(bad(format!(
            "a header line has no end within {LONGEST_LINE} bytes; the file is cut off or not Y4M"
        )));
    }
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| bad("a header line is not text"))
}

fn header(from: &mut impl BufRead) -> Result<Header> {
    let text = line(from)?.ok_or_else(|| bad("the file is empty"))?;
    let mut words = text.split(' ');
    if words.next() != Some("YUV4MPEG2") {
        return Err(bad("the first word is not YUV4MPEG2"));
    }
    let (mut width, mut height, mut fps, mut chroma) = (None, None, None, Chroma::C420);
    for word in words.filter(|w| !w.is_empty()) {
        let Some((key, value)) = word.split_at_checked(1) else {
            return Err(bad(format!("cannot understand \"{word}\" in the header")));
        };
        let number = || {
            value
                .parse::<usize>()
                .map_err(|_| bad(format!("\"{word}\" in the header is not a number")))
        };
        match key {
            "W" => width = Some(number()?),
            "H" => height = Some(number()?),
            "F" => {
                let (a, b) = value
                    .split_once(':')
                    .ok_or_else(|| bad(format!("\"{word}\" is not a frame rate such as F25:1")))?;
                let (a, b) = (a.parse::<u32>(), b.parse::<u32>());
                fps = match (a, b) {
                    (Ok(a), Ok(b)) if a > 0 && b > 0 => Some(f64::from(a) / f64::from(b)),
                    _ => return Err(bad(format!("\"{word}\" is not a frame rate such as F25:1"))),
                };
            }
            "C" => {
                chroma = match value {
                    "420" | "420jpeg" | "420mpeg2" | "420paldv" => Chroma::C420,
                    "422" => Chroma::C422,
                    "444" => Chroma::C444,
                    "mono" => Chroma::Grey,
                    other => {
                        return Err(bad(format!(
                            "colour space {other} is not among 420, 422, 444 and mono with 8 bits; convert it with ffmpeg"
                        )));
                    }
                };
            }
            _ => {}
        }
    }
    let (Some(width), Some(height)) = (width, height) else {
        return Err(bad("the header does not say width and height"));
    };
    if width == 0 || height == 0 || width.checked_mul(height).is_none_or(|n| n > MOST_PIXELS) {
        return Err(bad(format!(
            "frames of {width}x{height} pixels; between 1 and {MOST_PIXELS} pixels were expected"
        )));
    }
    Ok(Header {
        width,
        height,
        fps: fps.unwrap_or(25.0),
        chroma,
    })
}

/// The next frame's bytes; false at the end. An incomplete frame is an error.
fn next(from: &mut impl BufRead, header: &Header, bytes: &mut Vec<u8>) -> Result<bool> {
    let Some(text) = line(from)? else {
        return Ok(false);
    };
    if text != "FRAME" && !text.starts_with("FRAME ") {
        return Err(bad("a frame does not begin with FRAME"));
    }
    let size = header.frame_bytes();
    bytes.clear();
    // Grows with what is there, so that a header that lies about sizes costs nothing.
    from.take(size as u64)
        .read_to_end(bytes)
        .map_err(|e| bad(format!("cannot read: {e}")))?;
    if bytes.len() != size {
        return Err(bad(format!(
            "the last frame has {} of {size} bytes",
            bytes.len()
        )));
    }
    Ok(true)
}

/// ITU-R BT.601 with studio range.
fn to_rgb(header: &Header, bytes: &[u8]) -> Frame {
    let (w, h) = (header.width, header.height);
    let (cw, ch) = header.chroma_size();
    let (luma, chroma) = bytes.split_at(w * h);
    let (cb, cr) = chroma.split_at(cw * ch);
    let mut frame = Frame::black(w, h);
    for y in 0..h {
        for x in 0..w {
            let l = (f32::from(luma[y * w + x]) - 16.0) * (255.0 / 219.0);
            let (b, r) = match header.chroma {
                Chroma::Grey => (0.0, 0.0),
                _ => {
                    let cx = if cw == w { x } else { x / 2 };
                    let cy = if ch == h { y } else { y / 2 };
                    let i = cy * cw + cx;
                    (
                        (f32::from(cb[i]) - 128.0) * (255.0 / 224.0),
                        (f32::from(cr[i]) - 128.0) * (255.0 / 224.0),
                    )
                }
            };
            let byte = |v: f32| (v + 0.5).clamp(0.0, 255.0) as u8;
            frame.set_pixel(
                x,
                y,
                [
                    byte(l + 1.402 * r),
                    byte(l - 0.344_136 * b - 0.714_136 * r),
                    byte(l + 1.772 * b),
                ],
            );
        }
    }
    frame
}

/// Reads all whole frames of a Y4M stream, at most `limit`, and whether it ended well.
///
/// # Errors
/// When the header is not understood or there is no whole frame.
pub fn read_y4m(from: impl Read, limit: usize) -> Result<(Clip, Option<String>)> {
    let mut from = BufReader::new(from);
    let header = header(&mut from)?;
    let mut bytes = Vec::new();
    let mut frames = Vec::new();
    let mut complaint = None;
    while frames.len() < limit {
        match next(&mut from, &header, &mut bytes) {
            Ok(true) => frames.push(to_rgb(&header, &bytes)),
            Ok(false) => break,
            Err(e) => {
                complaint = Some(e.to_string());
                break;
            }
        }
    }
    if frames.is_empty() {
        return Err(bad(complaint.unwrap_or_else(|| "there is no frame".into())));
    }
    Ok((Clip::new(header.fps, frames)?, complaint))
}

fn info(path: &Path, header: &Header) -> Result<Info> {
    let bytes = std::fs::metadata(path)
        .map_err(HumansamError::io("read", path))?
        .len();
    // "FRAME\n" and no parameters, as nearly all writers do; what is really there shows when it is read.
    let frames = bytes / (header.frame_bytes() as u64 + 6);
    Ok(Info {
        container: Container::Y4m,
        width: header.width,
        height: header.height,
        fps: header.fps,
        seconds: Some(frames as f64 / header.fps),
        frames: Some(frames),
        bytes,
        codec: Some("raw".into()),
    })
}

pub(super) fn probe(path: &Path) -> Result<Info> {
    let mut from = BufReader::new(File::open(path).map_err(HumansamError::io("read", path))?);
    let header = header(&mut from).map_err(super::named(path))?;
    info(path, &header)
}

pub(super) fn read(path: &Path, wanted: &Wanted) -> Result<Decoded> {
    let mut from = BufReader::new(File::open(path).map_err(HumansamError::io("read", path))?);
    let header = header(&mut from).map_err(super::named(path))?;
    let info = info(path, &header)?;
    let count = info.frames.unwrap_or(0).max(1);
    let times: Vec<f64> = (0..count).map(|i| i as f64 / header.fps).collect();
    let chosen = choose(&times, count as f64 / header.fps, wanted);
    let size = fitted(header.width, header.height, wanted.max_side);
    check_bytes(path, chosen.len(), size.0, size.1, wanted)?;
    let mut keep = Keeper::new(&chosen, size);
    let mut bytes = Vec::new();
    let mut complaint = None;
    let mut index = 0;
    while !keep.full() {
        match next(&mut from, &header, &mut bytes) {
            Ok(true) => {
                if keep.wants(index) {
                    keep.take(index, &to_rgb(&header, &bytes));
                }
                index += 1;
            }
            Ok(false) => break,
            Err(e) => {
                complaint = Some(e.to_string());
                break;
            }
        }
    }
    let kept = chosen.iter().map(|&i| times[i]).collect();
    decoded(path, keep.frames, kept, info, complaint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(width: usize, height: usize, frames: usize, space: &str, size: usize) -> Vec<u8> {
        let mut bytes =
            format!("YUV4MPEG2 W{width} H{height} F25:1 Ip A1:1 C{space}\n").into_bytes();
        for f in 0..frames {
            bytes.extend_from_slice(b"FRAME\n");
            bytes.extend((0..size).map(|i| (i * 7 + f * 31) as u8));
        }
        bytes
    }

    #[test]
    fn all_colour_spaces_and_odd_sizes_are_read() {
        for (space, size) in [
            ("420jpeg", 5 * 3 + 2 * 3 * 2),
            ("422", 5 * 3 + 2 * 3 * 3),
            ("444", 45),
            ("mono", 15),
        ] {
            let (clip, complaint) = read_y4m(&file(5, 3, 2, space, size)[..], 10).unwrap();
            assert_eq!(
                (clip.width, clip.height, clip.frames.len(), complaint),
                (5, 3, 2, None)
            );
        }
        let grey = [b"YUV4MPEG2 W1 H2 Cmono\nFRAME\n".as_slice(), &[16, 235]].concat();
        let (clip, _) = read_y4m(&grey[..], 1).unwrap();
        assert_eq!(clip.frames[0].rgb(), [0, 0, 0, 255, 255, 255]);
    }

    #[test]
    fn a_cut_off_file_gives_what_it_has() {
        let whole = file(8, 8, 3, "mono", 64);
        let (clip, complaint) = read_y4m(&whole[..whole.len() - 5], 10).unwrap();
        assert_eq!(clip.frames.len(), 2);
        assert!(complaint.unwrap().contains("59 of 64"));
        assert!(read_y4m(&b"YUV4MPEG2 W99999999 H99999999\nFRAME\n"[..], 1).is_err());
        assert!(read_y4m(&b"YUV4MPEG2 W8000 H8000\nFRAME\nabc"[..], 1).is_err());
        assert!(read_y4m(&b""[..], 1).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read_y4m(&bytes[..], 8);
            let _ = read_y4m(&[b"YUV4MPEG2 ".as_slice(), &bytes].concat()[..], 8);
        }

        #[test]
        fn no_mutation_panics(at in 0usize..200, to in any::<u8>(), cut in 0usize..250) {
            let mut bytes = file(6, 4, 3, "420", 24 + 12);
            let at = at % bytes.len();
            bytes[at] = to;
            bytes.truncate(cut.max(20));
            if let Ok((clip, _)) = read_y4m(&bytes[..], 8) {
                prop_assert!(!clip.frames.is_empty());
            }
        }
    }
}
