//! The paper's views: 4 in time × 3 in space, 8 frames each.

use crate::clip::{Clip, Frame};

/// Indices of the middles of `n` equal parts of `0..frames`.
pub fn uniform_indices(frames: usize, n: usize) -> Vec<usize> {
    (0..n)
        .map(|i| ((2 * i + 1) * frames / (2 * n).max(1)).min(frames.saturating_sub(1)))
        .collect()
}

/// Cuts a clip into `times · 3` views of `length` frames of `size × size` pixels.
///
/// In time, the clip is divided into `length` equal segments and every segment into `times` equal parts; view `v` takes the middle of the `v`-th
/// part of each segment, so that each view spans the whole clip. In space, the shorter side becomes `size` and three squares are taken along the longer
/// one: beginning, middle, end. Views are ordered by time first, then by space.
///
/// Source: HumanSAM's test procedure (4 temporal, 3 spatial views, scores averaged).
pub fn views(clip: &Clip, times: usize, length: usize, size: usize) -> Vec<Clip> {
    let n = clip.frames.len();
    let (w, h) = (clip.width, clip.height);
    let shorter = w.min(h).max(1);
    let scale = |s: usize| {
        ((s as u128 * size as u128 + shorter as u128 / 2) / shorter as u128)
            .clamp(size as u128, 64 * size as u128) as usize
    };
    let (wide, high) = (scale(w), scale(h));
    let order = uniform_indices(n, times * length);
    let mut out = Vec::with_capacity(3 * times);
    for v in 0..times {
        let frames: Vec<Frame> = (0..length)
            .map(|s| clip.frames[order[s * times + v]].resize(wide, high))
            .collect();
        for place in 0..3 {
            let (x, y) = ((wide - size) * place / 2, (high - size) * place / 2);
            out.push(Clip {
                width: size,
                height: size,
                fps: clip.fps * length as f64 / n as f64,
                frames: frames.iter().map(|f| f.crop(x, y, size, size)).collect(),
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(n: usize, w: usize, h: usize) -> Clip {
        let frames = (0..n)
            .map(|i| {
                let mut f = Frame::black(w, h);
                for p in f.rgb_mut().chunks_exact_mut(3) {
                    p.fill(i as u8);
                }
                f
            })
            .collect();
        Clip::new(25.0, frames).unwrap()
    }

    #[test]
    fn views_cover_time_and_space() {
        let views = views(&numbered(96, 90, 50), 4, 8, 32);
        assert_eq!(views.len(), 12);
        for (i, view) in views.iter().enumerate() {
            assert_eq!((view.width, view.height, view.frames.len()), (32, 32, 8));
            let first = view.frames[0].pixel(0, 0)[0];
            assert_eq!(first, (i / 3 * 3 + 1) as u8);
            assert_eq!(view.frames[7].pixel(5, 5)[0], first + 84);
        }
    }

    #[test]
    fn short_and_narrow_clips_have_views_too() {
        for (n, w, h) in [(1, 3, 200), (3, 1, 1), (8, 17, 5)] {
            let views = views(&numbered(n, w, h), 4, 8, 16);
            assert_eq!(views.len(), 12);
            assert!(
                views.iter().all(|v| v.frames.len() == 8
                    && v.frames.iter().all(|f| f.rgb().len() == 16 * 16 * 3))
            );
        }
    }
}
