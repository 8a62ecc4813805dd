//! Frames that only repeat the one before: a player's answer to a lost frame, a frame-rate converter's to a missing one, and what a
//! variable frame rate becomes when it is made constant. They are a property of the file, not of the person, but they look like one: whatever
//! moves stands still and then jumps.
//!
//! A frame is a repeat when *nothing* in it has changed, background and noise included. A person who freezes before a camera that
//! goes on does not make one, and neither does a picture that stands still for longer than [`LONGEST`] frames: those are for the judge to see.
//! In the place of a repeat goes what would have been seen there, between the frames before and after:
//!
//! ```text
//! I_s(x) = (1 − s) A(x − s f) + s B(x + (1 − s) f),    f the optical flow from A to B, taken where it leads to x
//! ```

use std::borrow::Cow;

use crate::clip::{Clip, Frame, Plane};
use crate::flow::{self, Flow};

/// A frame is a repeat up to this mean change, in shares of the change that a quarter of all frames exceed ...
const SAME: f32 = 0.1;
/// ... and up to this share of bytes that change at all, in shares of the same: noise that goes on touches most of them.
const UNTOUCHED: f32 = 0.35;
/// When three quarters of all frames change less than this (steps of 1/255, mean over the picture), nothing is known.
const STILL: f32 = 0.05;
/// Longest run of repeats that is mended.
pub const LONGEST: usize = 2;
/// Bytes of a frame that are compared.
const COMPARED: usize = 60_000;
/// Longer side at which flow is measured.
const SIDE: usize = 128;

/// Mean distance of the bytes of two frames of one size, at places spread evenly, and the share of them that differ.
fn change(a: &Frame, b: &Frame) -> [f32; 2] {
    let mut step = (a.rgb().len() / COMPARED).max(1);
    // All three colours are looked at.
    while step > 1 && step.is_multiple_of(3) {
        step += 1;
    }
    let (mut sum, mut differ, mut n) = (0u64, 0u64, 0u64);
    let of = |f: &Frame| f.rgb().iter().copied().step_by(step).collect::<Vec<u8>>();
    for (x, y) in of(a).into_iter().zip(of(b)) {
        sum += u64::from(x.abs_diff(y));
        differ += u64::from(x != y);
        n += 1;
    }
    [sum, differ].map(|v| v as f32 / n.max(1) as f32)
}

/// Which frames repeat the one before and are to be mended: in runs of at most [`LONGEST`].
pub fn repeats(clip: &Clip) -> Vec<bool> {
    let n = clip.frames.len();
    let mut out = vec![false; n];
    if n < 4 {
        return out;
    }
    let changes: Vec<[f32; 2]> = clip
        .frames
        .windows(2)
        .map(|w| change(&w[0], &w[1]))
        .collect();
    let usual: [f32; 2] = std::array::from_fn(|k| {
        let mut sorted: Vec<f32> = changes.iter().map(|c| c[k]).collect();
        sorted.sort_by(f32::total_cmp);
        sorted[sorted.len() * 3 / 4]
    });
    if usual[0] < STILL {
        return out;
    }
    let same = |c: &[f32; 2]| c[0] <= SAME * usual[0] && c[1] <= UNTOUCHED * usual[1];
    let mut i = 1;
    while i < n {
        let run = changes[i - 1..].iter().take_while(|c| same(c)).count();
        if (1..=LONGEST).contains(&run) && (i + run < n || i >= 2) {
            out[i..i + run].fill(true);
        }
        i += run.max(1);
    }
    out
}

/// The clip with its repeats mended; the clip itself when there are none.
pub fn mend(clip: &Clip) -> Cow<'_, Clip> {
    let wrong = repeats(clip);
    if !wrong.contains(&true) {
        return Cow::Borrowed(clip);
    }
    let mut out = clip.clone();
    let mut i = 1;
    while i < wrong.len() {
        let run = wrong[i..].iter().take_while(|w| **w).count();
        if run > 0 {
            // At the end there is nothing behind: the motion before goes on.
            let last = i + run == wrong.len();
            let (from, to) = if last {
                (i - 2, i - 1)
            } else {
                (i - 1, i + run)
            };
            let (a, b) = (&clip.frames[from], &clip.frames[to]);
            let flow = motion(a, b);
            let filled: Vec<Frame> = (i..i + run)
                .map(|k| {
                    let share = (k - from) as f32 / (to - from) as f32;
                    between(a, b, &flow, share)
                })
                .collect();
            out.frames[i..i + run].clone_from_slice(&filled);
        }
        i += run.max(1);
    }
    Cow::Owned(out)
}

/// Flow from `a` to `b`, measured on small pictures, in pixels of those; scale and field.
fn motion(a: &Frame, b: &Frame) -> (f32, Flow) {
    let longer = a.width().max(a.height());
    if longer <= SIDE {
        return (1.0, flow::estimate(a, b));
    }
    let scale = SIDE as f32 / longer as f32;
    let size = |s: usize| ((s as f32 * scale).round() as usize).max(1);
    let (w, h) = (size(a.width()), size(a.height()));
    (scale, flow::estimate(&a.resize(w, h), &b.resize(w, h)))
}

/// What is seen a `share` of the way from `a` to `b`, or beyond `b`.
fn between(a: &Frame, b: &Frame, (scale, flow): &(f32, Flow), share: f32) -> Frame {
    let (w, h) = (a.width(), a.height());
    let at = |p: &Plane, x: f32, y: f32| {
        p.linear((x + 0.5) * scale - 0.5, (y + 0.5) * scale - 0.5) / scale
    };
    let near = |f: &Frame, x: f32, y: f32| {
        f.pixel(
            x.round().clamp(0.0, (w - 1) as f32) as usize,
            y.round().clamp(0.0, (h - 1) as f32) as usize,
        )
    };
    let weight = if share < 1.0 { share } else { 0.5 };
    let mut mix = vec![0f32; 3 * w * h];
    let mut apart = vec![0f32; 3 * w * h];
    for y in 0..h {
        for x in 0..w {
            let (px, py) = (x as f32, y as f32);
            // The arrow that ends here began about as far back as the one that begins here is long.
            let (u, v) = (at(&flow.u, px, py), at(&flow.v, px, py));
            let (bx, by) = (px - share * u, py - share * v);
            let (u, v) = (at(&flow.u, bx, by), at(&flow.v, bx, by));
            let from = near(a, px - share * u, py - share * v);
            let to = near(b, px + (1.0 - share) * u, py + (1.0 - share) * v);
            for c in 0..3 {
                let (p, q) = (f32::from(from[c]), f32::from(to[c]));
                mix[3 * (y * w + x) + c] = (1.0 - weight) * p + weight * q;
                apart[3 * (y * w + x) + c] = p - q;
            }
        }
    }
    // A mean of two pictures has less noise than either. What they differ by has the noise that is missing; taken from beside, so
    // that it is none of theirs, and cut where it is more than noise.
    let grain = (weight * (1.0 - weight)).sqrt();
    let mut sizes: Vec<f32> = apart.iter().map(|v| v.abs()).collect();
    let middle = sizes.len() / 2;
    let most = 3.0 * *sizes.select_nth_unstable_by(middle, f32::total_cmp).1 + 1.0;
    let mut out = Frame::black(w, h);
    for y in 0..h {
        for x in 0..w {
            let beside = 3 * (y * w + (x + BESIDE) % w);
            for c in 0..3 {
                let i = 3 * (y * w + x) + c;
                let v = mix[i] + grain * apart[beside + c].clamp(-most, most);
                out.rgb_mut()[i] = (v + 0.5).clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}

/// Columns from a pixel to the one that lends it its noise: a block of the usual codecs.
const BESIDE: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generator::{self, Spec};
    use crate::model::evaluate::extract::Selection;
    use crate::model::native::data::Split;
    use proptest::prelude::*;
    use rayon::prelude::*;

    /// A grainy block that moves to the right by three pixels a frame before a still, noisy wall.
    fn moving(n: usize) -> Clip {
        let frames = (0..n)
            .map(|t| {
                let mut f = Frame::black(64, 40);
                for y in 0..40 {
                    for x in 0..64 {
                        let wall = 60 + (((x * 31 + y * 17 + t * 7) * 2_654_435_761) >> 7) % 5;
                        let (bx, inside) = (x as isize - 4 - 3 * t as isize, (10..30).contains(&y));
                        let v = if inside && (0..16).contains(&bx) {
                            110 + 60 * ((bx / 4 + y as isize / 4) % 2) as usize + 3 * bx as usize
                        } else {
                            wall
                        };
                        f.set_pixel(x, y, [v as u8, (v / 2 + 30) as u8, 90]);
                    }
                }
                f
            })
            .collect();
        Clip::new(12.0, frames).unwrap()
    }

    fn apart(a: &Frame, b: &Frame) -> f32 {
        change(a, b)[0]
    }

    #[test]
    fn lost_frames_are_found_and_mended() {
        let whole = moving(12);
        assert!(matches!(mend(&whole), Cow::Borrowed(_)));
        let mut lost = whole.clone();
        for i in [3, 7] {
            lost.frames[i] = lost.frames[i - 1].clone();
        }
        let found: Vec<usize> = (0..12).filter(|&i| repeats(&lost)[i]).collect();
        assert_eq!(found, [3, 7]);
        let mended = mend(&lost);
        for i in 0..12 {
            let (before, after) = (
                apart(&lost.frames[i], &whole.frames[i]),
                apart(&mended.frames[i], &whole.frames[i]),
            );
            if found.contains(&i) {
                assert!(after < 0.5 * before, "frame {i}: {after} of {before}");
            } else {
                assert_eq!(after, 0.0);
            }
        }
    }

    #[test]
    fn a_picture_that_stands_still_is_left_alone() {
        let mut frozen = moving(12);
        for i in 4..=4 + LONGEST {
            frozen.frames[i] = frozen.frames[3].clone();
        }
        assert!(!repeats(&frozen).contains(&true));
        // The block stands still, the noise goes on.
        let (mut person, whole) = (moving(12), moving(12));
        for t in 4..6 {
            for y in 10..30 {
                for x in 0..64 {
                    person.frames[t].set_pixel(x, y, whole.frames[3].pixel(x, y));
                }
            }
        }
        assert!(!repeats(&person).contains(&true));
        let blank = Clip::new(9.0, vec![Frame::black(5, 3); 9]).unwrap();
        assert!(!repeats(&blank).contains(&true));
    }

    /// Clips of both tests with a repeat, of `count` each.
    fn repeating(count: usize) -> Vec<(bool, usize)> {
        let one = |held_out_operators: bool, i: usize| {
            let selection = Selection {
                split: Split::Test,
                held_out_scenes: true,
                held_out_operators,
                count,
                place: None,
            };
            let spec = Spec {
                maps: false,
                ..selection.spec(1, i)
            };
            let clip = generator::sample(&spec).unwrap().clip;
            repeats(&clip).contains(&true)
        };
        (0..2 * count)
            .into_par_iter()
            .map(|i| (i % 2 == 1, i / 2))
            .filter(|&(operators, i)| one(operators, i))
            .collect()
    }

    #[test]
    fn motion_anomalies_are_no_repeats() {
        assert_eq!(repeating(20), []);
    }

    #[test]
    #[ignore = "minutes: all clips of the tables in docs/humansam-model.md"]
    fn none_of_the_two_thousand_test_clips_is_mended() {
        assert_eq!(repeating(1000), []);
    }

    proptest! {
        #[test]
        fn any_clip_is_mended_to_one_of_its_size(n in 1usize..9, w in 1usize..20, h in 1usize..20, values in prop::collection::vec(any::<u8>(), 1..9)) {
            let frames = (0..n).map(|i| Frame::new(w, h, vec![values[i % values.len()]; 3 * w * h]).unwrap()).collect();
            let clip = Clip::new(10.0, frames).unwrap();
            let mended = mend(&clip);
            prop_assert_eq!((mended.width, mended.height, mended.frames.len()), (w, h, n));
        }
    }
}
