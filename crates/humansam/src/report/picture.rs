//! Frames with a heat map over them, as JPEG in base64.

use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::clip::{Frame, Plane};
use crate::error::{HumansamError, Result};
use crate::model::native::HEAT_SIDE;
use crate::model::native::input::Region;

/// Longest side on the page.
const LONGEST: usize = 480;
const QUALITY: u8 = 80;

/// The frame, red where `heat` (over `region`) is high, the region framed.
pub(super) fn with_heat(frame: &Frame, region: Region, heat: &[f32]) -> Result<Vec<u8>> {
    let scale = (LONGEST as f64 / frame.width().max(frame.height()) as f64).min(1.0);
    let size = |v: usize| ((v as f64 * scale).round() as usize).max(1);
    let (w, h) = (size(frame.width()), size(frame.height()));
    let mut small = frame.resize(w, h);
    let map = Plane {
        width: HEAT_SIDE,
        height: HEAT_SIDE,
        data: heat.to_vec(),
    };
    let (rx, ry) = (region.x as f64 * scale, region.y as f64 * scale);
    let (rw, rh) = (region.width as f64 * scale, region.height as f64 * scale);
    for y in 0..h {
        for x in 0..w {
            let (u, v) = ((x as f64 + 0.5 - rx) / rw, (y as f64 + 0.5 - ry) / rh);
            if !(0.0..1.0).contains(&u) || !(0.0..1.0).contains(&v) {
                continue;
            }
            let side = HEAT_SIDE as f64;
            let hot = f64::from(map.linear((u * side - 0.5) as f32, (v * side - 0.5) as f32));
            let edge = [u * rw, (1.0 - u) * rw, v * rh, (1.0 - v) * rh]
                .iter()
                .any(|d| *d < 1.5);
            // Half covered at most: what is wrong must stay visible.
            let a = if edge {
                0.8
            } else {
                0.55 * ((hot - 0.15) / 0.6).clamp(0.0, 1.0)
            };
            let tint = if edge {
                [255.0, 255.0, 255.0]
            } else {
                [225.0, 30.0, 20.0]
            };
            let p = small.pixel(x, y);
            small.set_pixel(
                x,
                y,
                std::array::from_fn(|c| (f64::from(p[c]) * (1.0 - a) + tint[c] * a) as u8),
            );
        }
    }
    let mut out = Vec::new();
    JpegEncoder::new_with_quality(&mut out, QUALITY)
        .write_image(small.rgb(), w as u32, h as u32, ExtendedColorType::Rgb8)
        .map_err(|e| {
            HumansamError::Argument(format!("a picture of {w}x{h} cannot be encoded: {e}"))
        })?;
    Ok(out)
}

/// RFC 4648, with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let n = group.iter().fold(0u32, |n, b| (n << 8) | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = DIGITS[(n >> (18 - 6 * i) & 63) as usize];
            out.push(if i <= group.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_the_standards_examples() {
        for (text, code) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), code);
        }
    }

    #[test]
    fn heat_reddens_its_place_only() {
        let mut grey = Frame::black(80, 80);
        grey.rgb_mut().fill(100);
        let mut heat = vec![0.0; HEAT_SIDE * HEAT_SIDE];
        heat[2 * HEAT_SIDE + 2] = 1.0;
        let jpeg = with_heat(
            &grey,
            Region {
                x: 0,
                y: 0,
                width: 80,
                height: 80,
            },
            &heat,
        )
        .unwrap();
        let back = image::load_from_memory(&jpeg).unwrap().to_rgb8();
        // The middle of the third cell.
        let (hot, cold) = (back.get_pixel(16, 16), back.get_pixel(60, 60));
        assert!(hot[0] > 140 && hot[1] < 90, "{hot:?}");
        assert!(cold.0.iter().all(|v| v.abs_diff(100) < 8), "{cold:?}");
    }
}
