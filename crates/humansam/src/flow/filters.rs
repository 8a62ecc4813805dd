//! Sums over windows, medians, halving.

use crate::clip::Plane;

/// Replaces each value by the sum over the window of half width `r` around it, cut off at the edges.
pub(crate) fn box_sum(data: &mut [f32], width: usize, height: usize, r: usize) {
    let mut line = vec![0f32; width.max(height) + 1];
    let mut pass = |data: &mut [f32], start: usize, step: usize, n: usize| {
        line[0] = 0.0;
        for i in 0..n {
            line[i + 1] = line[i] + data[start + i * step];
        }
        for i in 0..n {
            data[start + i * step] = line[(i + r + 1).min(n)] - line[i.saturating_sub(r)];
        }
    };
    for y in 0..height {
        pass(data, y * width, 1, width);
    }
    for x in 0..width {
        pass(data, x, width, height);
    }
}

/// Median of the 3×3 neighbours; edges repeat.
pub(crate) fn median3(p: &Plane) -> Plane {
    let (w, h) = (p.width, p.height);
    let mut out = Plane::filled(w, h, 0.0);
    for y in 0..h {
        let rows = [y.saturating_sub(1), y, (y + 1).min(h - 1)];
        for x in 0..w {
            let columns = [x.saturating_sub(1), x, (x + 1).min(w - 1)];
            let mut v = [0f32; 9];
            for (j, &yy) in rows.iter().enumerate() {
                for (i, &xx) in columns.iter().enumerate() {
                    v[3 * j + i] = p.data[yy * w + xx];
                }
            }
            out.data[y * w + x] = median9(v);
        }
    }
    out
}

/// Median of nine by the exchange network of Paeth (Graphics Gems, 1990).
fn median9(mut v: [f32; 9]) -> f32 {
    let mut order = |a: usize, b: usize| {
        let (x, y) = (v[a], v[b]);
        v[a] = x.min(y);
        v[b] = x.max(y);
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
            prop_assert_eq!(median9(v), sorted[4]);
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
