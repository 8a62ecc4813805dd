//! Animated GIFs, by the `gif` crate; frames are put onto the canvas as their disposal says.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use gif::{ColorOutput, DecodeOptions, DisposalMethod, MemoryLimit};

use super::{Container, Decoded, Info, Keeper, Wanted, check_bytes, choose, decoded, fitted};
use crate::clip::Frame;
use crate::error::{HumansamError, Result};

const MOST_PIXELS: usize = 1 << 25;
/// What viewers do with a delay of 0 or 1 hundredth.
const SHORTEST_DELAY: u16 = 2;
const USUAL_DELAY: u16 = 10;

fn bad(e: impl std::fmt::Display) -> HumansamError {
    HumansamError::Bytes {
        format: "GIF",
        message: e.to_string(),
    }
}

fn open<R: Read>(from: R) -> Result<gif::Decoder<R>> {
    let mut options = DecodeOptions::new();
    options.set_color_output(ColorOutput::RGBA);
    options.set_memory_limit(MemoryLimit::Bytes(
        std::num::NonZeroU64::new(MOST_PIXELS as u64 * 4).unwrap_or(std::num::NonZeroU64::MIN),
    ));
    options.check_frame_consistency(true);
    let decoder = options.read_info(from).map_err(bad)?;
    let pixels = usize::from(decoder.width()) * usize::from(decoder.height());
    if pixels == 0 || pixels > MOST_PIXELS {
        return Err(bad(format!(
            "a canvas of {}x{} pixels; between 1 and {MOST_PIXELS} pixels were expected",
            decoder.width(),
            decoder.height()
        )));
    }
    Ok(decoder)
}

/// Instants at which frames begin, the end, and what stopped the count early.
fn timeline<R: Read>(decoder: &mut gif::Decoder<R>) -> (Vec<f64>, f64, Option<String>) {
    let mut times = Vec::new();
    let mut now = 0u64;
    let complaint = loop {
        match decoder.next_frame_info() {
            Ok(Some(frame)) => {
                times.push(now as f64 / 100.0);
                let delay = if frame.delay < SHORTEST_DELAY {
                    USUAL_DELAY
                } else {
                    frame.delay
                };
                now += u64::from(delay);
            }
            Ok(None) => break None,
            Err(e) => break Some(bad(e).to_string()),
        }
    };
    (times, now as f64 / 100.0, complaint)
}

/// Plays a GIF; `each` gets every canvas with its number and says whether to go on.
fn play<R: Read>(from: R, mut each: impl FnMut(usize, &Frame) -> bool) -> Result<Option<String>> {
    let mut decoder = open(from)?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let mut canvas = Frame::black(width, height);
    let mut index = 0;
    loop {
        let frame = match decoder.read_next_frame() {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(None),
            Err(e) => return Ok(Some(bad(e).to_string())),
        };
        let (left, top) = (usize::from(frame.left), usize::from(frame.top));
        let (w, h) = (usize::from(frame.width), usize::from(frame.height));
        let before = (frame.dispose == DisposalMethod::Previous).then(|| canvas.clone());
        for (i, p) in frame.buffer.chunks_exact(4).take(w * h).enumerate() {
            let (x, y) = (left + i % w, top + i / w);
            if p[3] > 127 && x < width && y < height {
                canvas.set_pixel(x, y, [p[0], p[1], p[2]]);
            }
        }
        let dispose = frame.dispose;
        if !each(index, &canvas) {
            return Ok(None);
        }
        index += 1;
        match (dispose, before) {
            (DisposalMethod::Background, _) => {
                for y in top..(top + h).min(height) {
                    for x in left..(left + w).min(width) {
                        canvas.set_pixel(x, y, [0, 0, 0]);
                    }
                }
            }
            (DisposalMethod::Previous, Some(b)) => canvas = b,
            _ => {}
        }
    }
}

fn file(path: &Path) -> Result<BufReader<File>> {
    Ok(BufReader::new(
        File::open(path).map_err(HumansamError::io("read", path))?,
    ))
}

fn look(path: &Path) -> Result<(Info, Vec<f64>, f64, Option<String>)> {
    let mut decoder = open(file(path)?).map_err(super::named(path))?;
    let (width, height) = (usize::from(decoder.width()), usize::from(decoder.height()));
    let (times, end, complaint) = timeline(&mut decoder);
    let bytes = std::fs::metadata(path)
        .map_err(HumansamError::io("read", path))?
        .len();
    let info = Info {
        container: Container::Gif,
        width,
        height,
        fps: if end > 0.0 {
            times.len() as f64 / end
        } else {
            10.0
        },
        seconds: Some(end),
        frames: Some(times.len() as u64),
        bytes,
        codec: Some("gif".into()),
    };
    Ok((info, times, end, complaint))
}

pub(super) fn probe(path: &Path) -> Result<Info> {
    Ok(look(path)?.0)
}

pub(super) fn read(path: &Path, wanted: &Wanted) -> Result<Decoded> {
    let (info, times, end, complaint) = look(path)?;
    let chosen = choose(&times, end, wanted);
    let size = fitted(info.width, info.height, wanted.max_side);
    check_bytes(path, chosen.len(), size.0, size.1, wanted)?;
    let mut keep = Keeper::new(&chosen, size);
    let stopped = play(file(path)?, |i, frame| {
        keep.take(i, frame);
        !keep.full()
    })
    .map_err(super::named(path))?;
    let kept = chosen.iter().map(|&i| times[i]).collect();
    decoded(path, keep.frames, kept, info, complaint.or(stopped))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(frames: u16) -> Vec<u8> {
        let mut bytes = Vec::new();
        {
            let palette = [0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255];
            let mut encoder = gif::Encoder::new(&mut bytes, 6, 5, &palette).unwrap();
            for f in 0..frames {
                let pixels = vec![(1 + f % 3) as u8; 30];
                let frame = gif::Frame {
                    width: 6,
                    height: 5,
                    delay: 4,
                    buffer: pixels.into(),
                    ..gif::Frame::default()
                };
                encoder.write_frame(&frame).unwrap();
            }
        }
        bytes
    }

    #[test]
    fn frames_come_with_their_colours_and_times() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gif");
        std::fs::write(&path, sample(5)).unwrap();
        let wanted = Wanted {
            pace: super::super::Pace::All,
            ..Wanted::default()
        };
        let d = read(&path, &wanted).unwrap();
        assert_eq!(d.clip.frames.len(), 5);
        assert!((d.clip.fps - 25.0).abs() < 1e-6);
        assert_eq!(d.clip.frames[1].pixel(3, 3), [0, 255, 0]);
        assert_eq!(d.complaint, None);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0usize..150, cut in 10usize..300) {
            let mut spoiled = sample(3);
            for (i, b) in bytes.iter().take(6).enumerate() {
                let k = (at * (i + 1)) % spoiled.len();
                spoiled[k] = *b;
            }
            spoiled.truncate(cut);
            for input in [&bytes[..], &spoiled[..]] {
                let mut n = 0;
                let _ = play(input, |_, _| { n += 1; n < 50 });
                if let Ok(mut d) = open(input) {
                    let _ = timeline(&mut d);
                }
            }
        }
    }
}
