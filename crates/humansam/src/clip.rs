//! Frames and clips: what every part of this crate works on.

use crate::error::{HumansamError, Result};

/// One picture: `3 · width · height` bytes, R G B of a pixel together, rows from top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    width: usize,
    height: usize,
    rgb: Vec<u8>,
}

impl Frame {
    /// A black picture.
    pub fn black(width: usize, height: usize) -> Self {
        Frame {
            width,
            height,
            rgb: vec![0; 3 * width * height],
        }
    }

    /// A picture from its bytes.
    ///
    /// # Errors
    /// When `rgb` does not hold `3 · width · height` bytes.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let expected = width.checked_mul(height).and_then(|n| n.checked_mul(3));
        if expected != Some(rgb.len()) {
            return Err(HumansamError::Argument(format!(
                "a {width}x{height} RGB frame has 3*width*height bytes, not {}",
                rgb.len()
            )));
        }
        Ok(Frame { width, height, rgb })
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes.
    pub fn rgb(&self) -> &[u8] {
        &self.rgb
    }

    /// The bytes, to write to.
    pub fn rgb_mut(&mut self) -> &mut [u8] {
        &mut self.rgb
    }

    /// The bytes, given away.
    pub fn into_rgb(self) -> Vec<u8> {
        self.rgb
    }

    /// R, G, B of one pixel.
    ///
    /// # Panics
    /// Outside of the picture.
    #[inline]
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let i = 3 * (y * self.width + x);
        [self.rgb[i], self.rgb[i + 1], self.rgb[i + 2]]
    }

    /// Sets one pixel.
    ///
    /// # Panics
    /// Outside of the picture.
    #[inline]
    pub fn set_pixel(&mut self, x: usize, y: usize, rgb: [u8; 3]) {
        let i = 3 * (y * self.width + x);
        self.rgb[i..i + 3].copy_from_slice(&rgb);
    }

    /// The rectangle that starts at `(x, y)`, cut off at the picture's edge.
    pub fn crop(&self, x: usize, y: usize, width: usize, height: usize) -> Frame {
        let x = x.min(self.width);
        let y = y.min(self.height);
        let width = width.min(self.width - x);
        let height = height.min(self.height - y);
        let mut rgb = Vec::with_capacity(3 * width * height);
        for row in y..y + height {
            let start = 3 * (row * self.width + x);
            rgb.extend_from_slice(&self.rgb[start..start + 3 * width]);
        }
        Frame { width, height, rgb }
    }

    /// The picture at another size: area mean where it shrinks, linear where it grows, each axis by itself.
    ///
    /// A picture without pixels stays black.
    pub fn resize(&self, width: usize, height: usize) -> Frame {
        if width == self.width && height == self.height {
            return self.clone();
        }
        let mut out = Frame::black(width, height);
        if self.width == 0 || self.height == 0 || width == 0 || height == 0 {
            return out;
        }
        let columns = axis_weights(self.width, width);
        let rows = axis_weights(self.height, height);
        // Horizontally first: `self.height` rows of `width` pixels in f32.
        let mut wide = vec![0f32; 3 * width * self.height];
        for y in 0..self.height {
            let source = &self.rgb[3 * y * self.width..3 * (y + 1) * self.width];
            let target = &mut wide[3 * y * width..3 * (y + 1) * width];
            for (pixel, (start, weights)) in target.chunks_exact_mut(3).zip(&columns) {
                let mut sum = [0f32; 3];
                for (&w, p) in weights.iter().zip(source[3 * start..].chunks_exact(3)) {
                    for c in 0..3 {
                        sum[c] += w * f32::from(p[c]);
                    }
                }
                pixel.copy_from_slice(&sum);
            }
        }
        let mut line = vec![0f32; 3 * width];
        for (y, (start, weights)) in rows.iter().enumerate() {
            line.fill(0.0);
            for (i, &w) in weights.iter().enumerate() {
                let source = &wide[3 * (start + i) * width..3 * (start + i + 1) * width];
                for (l, s) in line.iter_mut().zip(source) {
                    *l += w * s;
                }
            }
            for (o, l) in out.rgb[3 * y * width..3 * (y + 1) * width]
                .iter_mut()
                .zip(&line)
            {
                *o = (l + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
        out
    }

    /// Luma of ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`, in `[0, 1]`.
    pub fn luma(&self) -> Plane {
        let data = self
            .rgb
            .chunks_exact(3)
            .map(|p| {
                (0.299 * f32::from(p[0]) + 0.587 * f32::from(p[1]) + 0.114 * f32::from(p[2]))
                    / 255.0
            })
            .collect();
        Plane {
            width: self.width,
            height: self.height,
            data,
        }
    }
}

/// For each of `to` target positions: first source index and weights, which sum to one.
fn axis_weights(from: usize, to: usize) -> Vec<(usize, Vec<f32>)> {
    let scale = from as f64 / to as f64;
    (0..to)
        .map(|i| {
            if scale > 1.0 {
                let a = i as f64 * scale;
                let b = ((i + 1) as f64 * scale).min(from as f64);
                let first = (a.floor() as usize).min(from - 1);
                let last = (b.ceil() as usize).clamp(first + 1, from);
                let mut weights: Vec<f32> = (first..last)
                    .map(|j| ((b.min((j + 1) as f64) - a.max(j as f64)).max(0.0)) as f32)
                    .collect();
                let sum: f32 = weights.iter().sum();
                for w in &mut weights {
                    *w /= sum;
                }
                (first, weights)
            } else {
                let centre = ((i as f64 + 0.5) * scale - 0.5).clamp(0.0, (from - 1) as f64);
                let first = (centre.floor() as usize).min(from - 1);
                let t = (centre - first as f64) as f32;
                if first + 1 < from {
                    (first, vec![1.0 - t, t])
                } else {
                    (first, vec![1.0])
                }
            }
        })
        .collect()
}

/// One number a pixel, row by row: luma, depth in metres, a heat map.
#[derive(Clone, Debug, PartialEq)]
pub struct Plane {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// `width · height` numbers.
    pub data: Vec<f32>,
}

impl Plane {
    /// A plane that holds one value everywhere.
    pub fn filled(width: usize, height: usize, value: f32) -> Self {
        Plane {
            width,
            height,
            data: vec![value; width * height],
        }
    }

    /// The value of one pixel.
    ///
    /// # Panics
    /// Outside of the plane.
    #[inline]
    pub fn at(&self, x: usize, y: usize) -> f32 {
        self.data[y * self.width + x]
    }

    /// The value between pixels, linear in both directions; outside, that of the nearest edge. 0 where there are no pixels.
    #[inline]
    pub fn linear(&self, x: f32, y: f32) -> f32 {
        if self.width == 0 || self.height == 0 {
            return 0.0;
        }
        let x = x.clamp(0.0, (self.width - 1) as f32);
        let y = y.clamp(0.0, (self.height - 1) as f32);
        let (x0, y0) = (x as usize, y as usize);
        let (x1, y1) = ((x0 + 1).min(self.width - 1), (y0 + 1).min(self.height - 1));
        let (tx, ty) = (x - x0 as f32, y - y0 as f32);
        let top = self.at(x0, y0) * (1.0 - tx) + self.at(x1, y0) * tx;
        let bottom = self.at(x0, y1) * (1.0 - tx) + self.at(x1, y1) * tx;
        top * (1.0 - ty) + bottom * ty
    }
}

/// Frames of one size, in order of time.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip {
    /// Columns of every frame.
    pub width: usize,
    /// Rows of every frame.
    pub height: usize,
    /// Frames a second, above 0.
    pub fps: f64,
    /// The frames.
    pub frames: Vec<Frame>,
}

impl Clip {
    /// A clip of frames.
    ///
    /// # Errors
    /// When there is no frame, sizes differ, a side is 0, or `fps` is not a number above 0.
    pub fn new(fps: f64, frames: Vec<Frame>) -> Result<Self> {
        let Some(first) = frames.first() else {
            return Err(HumansamError::Argument(
                "a clip needs at least one frame, found none".into(),
            ));
        };
        let (width, height) = (first.width, first.height);
        if width == 0 || height == 0 {
            return Err(HumansamError::Argument(format!(
                "a clip needs frames with pixels, found {width}x{height}"
            )));
        }
        if !(fps.is_finite() && fps > 0.0) {
            return Err(HumansamError::Argument(format!(
                "a clip needs a frame rate above 0, found {fps}"
            )));
        }
        if let Some((i, f)) = frames
            .iter()
            .enumerate()
            .find(|(_, f)| f.width != width || f.height != height)
        {
            return Err(HumansamError::Argument(format!(
                "frames of a clip have one size: frame 0 is {width}x{height}, frame {i} is {}x{}",
                f.width, f.height
            )));
        }
        Ok(Clip {
            width,
            height,
            fps,
            frames,
        })
    }

    /// Seconds from the first frame to the end of the last.
    pub fn seconds(&self) -> f64 {
        self.frames.len() as f64 / self.fps
    }

    /// Every frame at another size.
    pub fn resize(&self, width: usize, height: usize) -> Clip {
        Clip {
            width,
            height,
            fps: self.fps,
            frames: self
                .frames
                .iter()
                .map(|f| f.resize(width, height))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gradient(width: usize, height: usize) -> Frame {
        let mut f = Frame::black(width, height);
        for y in 0..height {
            for x in 0..width {
                f.set_pixel(x, y, [(x * 7) as u8, (y * 5) as u8, 40]);
            }
        }
        f
    }

    #[test]
    fn resizing_keeps_the_mean_and_constant_colours() {
        let f = gradient(30, 20);
        let mean = |f: &Frame, c: usize| {
            f.rgb()
                .chunks_exact(3)
                .map(|p| f64::from(p[c]))
                .sum::<f64>()
                / (f.width() * f.height()) as f64
        };
        for (w, h) in [(15, 10), (7, 13), (45, 31), (1, 1)] {
            let g = f.resize(w, h);
            assert_eq!((g.width(), g.height()), (w, h));
            for c in 0..2 {
                assert!((mean(&f, c) - mean(&g, c)).abs() < 1.0, "{w}x{h} {c}");
            }
            assert!(g.rgb().chunks_exact(3).all(|p| p[2] == 40));
        }
    }

    #[test]
    fn crops_stop_at_the_edge() {
        let f = gradient(10, 8);
        let c = f.crop(6, 5, 100, 2);
        assert_eq!((c.width(), c.height()), (4, 2));
        assert_eq!(c.pixel(1, 1), f.pixel(7, 6));
        assert_eq!(f.crop(50, 50, 3, 3).rgb().len(), 0);
    }

    #[test]
    fn clips_refuse_what_cannot_be_played() {
        assert!(Clip::new(25.0, vec![]).is_err());
        assert!(Clip::new(0.0, vec![gradient(4, 4)]).is_err());
        assert!(Clip::new(f64::NAN, vec![gradient(4, 4)]).is_err());
        assert!(Clip::new(25.0, vec![gradient(4, 4), gradient(4, 5)]).is_err());
        assert!(Frame::new(2, 2, vec![0; 11]).is_err());
        assert_eq!(
            Clip::new(5.0, vec![gradient(4, 4); 10]).unwrap().seconds(),
            2.0
        );
    }

    #[test]
    fn planes_interpolate() {
        let p = Plane {
            width: 2,
            height: 2,
            data: vec![0.0, 1.0, 2.0, 3.0],
        };
        assert_eq!(p.linear(0.5, 0.5), 1.5);
        assert_eq!(p.linear(-4.0, 9.0), 2.0);
    }
}
