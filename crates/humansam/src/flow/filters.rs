//! Sums over windows, medians, halving.

use crate::clip::Plane;

/// Replaces each value by the sum over the window of half width `r` around it, cut off at the edges.
pub(crate) fn box_sum(data: &mut [f32], width: usize, height: usize, r: usize) {
    if width == 0 || height == 0 {
        return;
    }
    let mut line = vec![0f32; width + 1];
    for row in data.chunks_exact_mut(width) {
        for (i, v) in row.iter().enumerate() {
            line[i + 1] = line[i] + v;
        }
        for (i, v) in row.iter_mut().enumerate() {
            *v = line[(i + r + 1).min(width)] - line[i.saturating_sub(r)];
        }
    }
    // Downwards: prefix sums of whole rows.
    let mut sums = vec![0f32; width * (height + 1)];
    for y in 0..height {
        let (above, below) = sums.split_at_mut(width * (y + 1));
        let above = &above[width * y..];
        let row = &data[width * y..width * (y + 1)];
        for ((s, a), v) in below[..width].iter_mut().zip(above).zip(row) {
            *s = a + v;
        }
    }
    for (y, row) in data.chunks_exact_mut(width).enumerate() {
        let to = &sums[width * (y + r + 1).min(height)..];
        let from = &sums[width * y.saturating_sub(r)..];
        for ((v, t), f) in row.iter_mut().zip(to).zip(from) {
            *v = t - f;
        }
    }
}

/// Median of the 3×3 neighbours; edges repeat.
pub(crate) fn median3(p: &Plane) -> Plane {
    let (w, h) = (p.width, p.height);
    let mut out = Plane::filled(w, h, 0.0);
    if w == 0 {
        return out;
    }
    // Rows with their ends repeated, so that the inner loop has no edges.
    let wide = |y: usize| {
        let row = &p.data[y * w..(y + 1) * w];
        let mut wide = Vec::with_capacity(w + 2);
        wide.push(row[0]);
        wide.extend_from_slice(row);
        wide.push(row[w - 1]);
        wide
    };
    let rows: Vec<Vec<f32>> = (0..h).map(wide).collect();
    for (y, line) in out.data.chunks_exact_mut(w).enumerate() {
        let near = [y.saturating_sub(1), y, (y + 1).min(h - 1)];
        for (k, part) in line.chunks_mut(LANES).enumerate() {
            let mut v = [[0f32; LANES]; 9];
            for (j, lane) in v.iter_mut().enumerate() {
                let from = k * LANES + j % 3;
                lane[..part.len()].copy_from_slice(&rows[near[j / 3]][from..from + part.len()]);
            }
            part.copy_from_slice(&median9(v)[..part.len()]);
        }
    }
    out
}

/// Pixels whose medians are found together.
const LANES: usize = 16;

/// Median of nine by the exchange network of Paeth (Graphics Gems, 1990).
fn median9(mut v: [[f32; LANES]; 9]) -> [f32; LANES] {
    let mut order = |a: usize, b: usize| {
        let (x, y) = (v[a], v[b]);
        v[a] = std::array::from_fn(|i| x[i].min(y[i]));
        v[b] = std::array::from_fn(|i| x[i].max(y[i]));
    };
    for (a, b) in [
        (1, 2),
        (4, 5),
        (7, 8),
        (0, 1),
        (3, 4),
        (6, 7),
        (1, 2),
        (4, 5),
        (7, 8),
        (0, 3),
        (5, 8),
        (4, 7),
        (3, 6),
        (1, 4),
        (2, 5),
        (4, 7),
        (4, 2),
        (6, 4),
        (4, 2),
    ] {
        order(a, b);
    }
    v[4]
}

/// Half the size; each pixel the mean of 2×2 after a slight blur.
pub(crate) fn half(p: &Plane) -> Plane {
    let (w, h) = (p.width / 2, p.height / 2);
    let mut out = Plane::filled(w, h, 0.0);
    let weights = [0.125f32, 0.375, 0.375, 0.125];
    // Across first, for the rows that are needed.
    let mut wide = vec![0f32; w * p.height];
    for y in 0..p.height {
        for x in 0..w {
            let mut s = 0.0;
            for (k, wt) in weights.iter().enumerate() {
                let i = (2 * x + k).saturating_sub(1).min(p.width - 1);
                s += wt * p.data[y * p.width + i];
            }
            wide[y * w + x] = s;
        }
    }
    for y in 0..h {
        for x in 0..w {
            let mut s = 0.0;
            for (k, wt) in weights.iter().enumerate() {
                let j = (2 * y + k).saturating_sub(1).min(p.height - 1);
                s += wt * wide[j * w + x];
            }
            out.data[y * w + x] = s;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn medians_are_medians(v in proptest::array::uniform9(-5.0f32..5.0)) {
            let mut sorted = v;
            sorted.sort_by(f32::total_cmp);
            prop_assert_eq!(median9(v.map(|x| [x; LANES])), [sorted[4]; LANES]);
        }
    }

    #[test]
    fn sums_stop_at_edges() {
        let mut data = vec![1.0; 20];
        box_sum(&mut data, 5, 4, 1);
        assert_eq!(&data[..5], [4.0, 6.0, 6.0, 6.0, 4.0]);
        assert_eq!(data[7], 9.0);
        let p = half(&Plane::filled(9, 7, 0.3));
        assert!((p.width, p.height) == (4, 3) && p.data.iter().all(|v| (v - 0.3).abs() < 1e-6));
    }
}
