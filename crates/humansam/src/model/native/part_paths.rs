//! How the parts of the body move and change in a window, in numbers computed from the network's own description of each part
//! (place, depth, colour, area at sixteen moments) without further weights.
//!
//! For each part, with place `p_t`, colour `c_t` and size `a_t` (root of the area): means and largest values over time of
//! `|p_{t+1} - 2 p_t + p_{t-1}|`, mean of `|c_{t+1} - c_t|`, largest `|c_{t+1} - 2 c_t + c_{t-1}|`, distance of the mean colours of the
//! first and the last quarter, deviation of `a_t`; logarithms of all. Then, over all parts that are seen, mean and maximum of each, and the
//! mean over head, trunk, arms and legs; sizes of left limbs against right ones; the size of what should not be there.

use super::network::{FRAMES, PARTS, REGIONS};
use super::observation::DESCRIPTION;

/// Numbers of a part.
const OF_PART: usize = 6;
/// Parts by groups: head and hair, trunk, arms, legs.
const GROUPS: [std::ops::RangeInclusive<usize>; 4] = [2..=3, 1..=1, 4..=9, 10..=15];
/// Pairs of left and right parts begin here.
const PAIRS: [usize; 6] = [4, 6, 8, 10, 12, 14];
/// The part that should not be there.
const SURPLUS: usize = 17;
/// A part of this size or less is not seen.
const SEEN: f32 = 0.05;

/// Length of [`numbers`].
pub const NUMBERS: usize = 2 * OF_PART + GROUPS.len() * OF_PART + PAIRS.len() + 2;

/// One part at one moment.
type Description<'a> = &'a [f32];

fn length(v: impl Iterator<Item = f32>) -> f32 {
    v.map(|x| x * x).sum::<f32>().sqrt()
}

/// `|f_{t+1} - 2 f_t + f_{t-1}|` or `|f_{t+1} - f_t|` of some entries of a part's description.
fn differences(
    path: &[Description<'_>],
    entries: std::ops::Range<usize>,
    second: bool,
) -> Vec<f32> {
    let width = if second { 3 } else { 2 };
    path.windows(width)
        .map(|w| {
            length(entries.clone().map(|i| {
                if second {
                    w[2][i] - 2.0 * w[1][i] + w[0][i]
                } else {
                    w[1][i] - w[0][i]
                }
            }))
        })
        .collect()
}

fn of_part(path: &[Description<'_>]) -> [f32; OF_PART] {
    let mean = |v: &[f32]| v.iter().sum::<f32>() / v.len().max(1) as f32;
    let most = |v: &[f32]| v.iter().copied().fold(0.0, f32::max);
    let log = |v: f32| (v + 1e-3).ln();
    let place = differences(path, 0..2, true);
    let colour = differences(path, 4..7, false);
    let flicker = differences(path, 4..7, true);
    let quarter = path.len() / 4;
    let drift = length((4..7).map(|i| {
        let of =
            |p: &[Description<'_>]| p.iter().map(|d| d[i]).sum::<f32>() / p.len().max(1) as f32;
        of(&path[..quarter]) - of(&path[path.len() - quarter..])
    }));
    let sizes: Vec<f32> = path.iter().map(|d| d[DESCRIPTION - 1]).collect();
    let middle = mean(&sizes);
    let spread: Vec<f32> = sizes.iter().map(|s| (s - middle).powi(2)).collect();
    [
        log(mean(&place)),
        log(most(&place)),
        log(mean(&colour)),
        log(most(&flicker)),
        log(drift),
        log(mean(&spread).sqrt()),
    ]
}

/// The numbers of a window whose description is `[FRAMES, REGIONS, DESCRIPTION]`, background first.
pub fn numbers(described: &[f32]) -> Vec<f32> {
    debug_assert_eq!(described.len(), FRAMES * REGIONS * DESCRIPTION);
    let at = |t: usize, p: usize| {
        let start = (t * REGIONS + p) * DESCRIPTION;
        &described[start..start + DESCRIPTION]
    };
    let paths: Vec<Vec<Description<'_>>> = (1..=PARTS)
        .map(|p| (0..FRAMES).map(|t| at(t, p)).collect())
        .collect();
    let size =
        |p: usize| paths[p - 1].iter().map(|d| d[DESCRIPTION - 1]).sum::<f32>() / FRAMES as f32;
    let seen: Vec<usize> = (1..=15).filter(|&p| size(p) > SEEN).collect();
    let each: Vec<[f32; OF_PART]> = paths.iter().map(|p| of_part(p)).collect();
    // What still parts have: the logarithm's floor.
    let floor = 1e-3f32.ln();
    let mean = |parts: &[usize], k: usize| {
        if parts.is_empty() {
            floor
        } else {
            parts.iter().map(|&p| each[p - 1][k]).sum::<f32>() / parts.len() as f32
        }
    };
    let mut out = Vec::with_capacity(NUMBERS);
    out.extend((0..OF_PART).flat_map(|k| {
        let most = seen.iter().map(|&p| each[p - 1][k]).fold(floor, f32::max);
        [mean(&seen, k), most]
    }));
    for group in GROUPS {
        let parts: Vec<usize> = seen.iter().copied().filter(|p| group.contains(p)).collect();
        out.extend((0..OF_PART).map(|k| mean(&parts, k)));
    }
    out.extend(PAIRS.map(|p| (size(p) - size(p + 1)).abs()));
    let surplus = paths[SURPLUS - 1].iter().map(|d| d[DESCRIPTION - 1]);
    out.push(size(SURPLUS));
    out.push(surplus.fold(0.0, f32::max));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scene(f: impl Fn(usize, usize) -> [f32; DESCRIPTION]) -> Vec<f32> {
        (0..FRAMES)
            .flat_map(|t| (0..REGIONS).flat_map(|p| f(t, p)).collect::<Vec<_>>())
            .collect()
    }

    fn part(x: f32, red: f32, size: f32) -> [f32; DESCRIPTION] {
        let mut d = [0.0; DESCRIPTION];
        d[..7].copy_from_slice(&[x, 0.2, 0.1, 0.3, red, 0.1, 0.1]);
        d[DESCRIPTION - 1] = size;
        d
    }

    #[test]
    fn jumps_colours_and_surplus_parts_are_told_apart() {
        let calm = numbers(&scene(|t, p| {
            part(0.01 * t as f32, 0.3, if p == SURPLUS { 0.0 } else { 0.4 })
        }));
        assert_eq!(calm.len(), NUMBERS);
        // Even motion has no second difference.
        assert!(calm[0] < -6.0 && calm[4] < -6.0, "{calm:?}");
        let jump = numbers(&scene(|t, p| {
            let x = if p == 8 && t > 7 { 0.5 } else { 0.0 };
            part(x, 0.3, if p == SURPLUS { 0.0 } else { 0.4 })
        }));
        assert!(jump[3] > calm[3] + 3.0 && (jump[5] - calm[5]).abs() < 0.1);
        let drift = numbers(&scene(|t, p| {
            let red = if p == 1 { 0.05 * t as f32 } else { 0.3 };
            part(0.0, red, if p == SURPLUS { 0.0 } else { 0.4 })
        }));
        assert!(drift[9] > calm[9] + 3.0 && drift[3] < calm[3] + 0.1);
        let surplus = numbers(&scene(|_, _| part(0.0, 0.3, 0.4)));
        assert!(surplus[NUMBERS - 1] > 0.3 && calm[NUMBERS - 1] == 0.0);
    }
}
