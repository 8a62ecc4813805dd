//! Rules that look at one coordinate at a time (Yin et al., *Byzantine-Robust Distributed Learning*, ICML 2018).

use super::vector::by_blocks;

/// Applies `f` to the sorted values of each coordinate.
fn by_coordinate(updates: &[&[f32]], f: impl Fn(&[f32]) -> f64 + Sync) -> Vec<f32> {
    by_blocks(updates[0].len(), |range| {
        let mut column = vec![0.0f32; updates.len()];
        range
            .map(|i| {
                for (c, u) in column.iter_mut().zip(updates) {
                    *c = u[i];
                }
                column.sort_unstable_by(f32::total_cmp);
                f(&column) as f32
            })
            .collect()
    })
}

/// Median of sorted values; the mean of the two middle ones for an even number.
pub(crate) fn middle(sorted: &[f32]) -> f64 {
    let n = sorted.len();
    (f64::from(sorted[(n - 1) / 2]) + f64::from(sorted[n / 2])) / 2.0
}

/// Definition 1.
pub(crate) fn median(updates: &[&[f32]]) -> Vec<f32> {
    by_coordinate(updates, middle)
}

/// Definition 2 with `β = bad / n`.
pub(crate) fn trimmed_mean(updates: &[&[f32]], bad: usize) -> Vec<f32> {
    by_coordinate(updates, |sorted| {
        let kept = &sorted[bad..sorted.len() - bad];
        kept.iter().map(|&x| f64::from(x)).sum::<f64>() / kept.len() as f64
    })
}

/// The mean of the `keep` values of each coordinate that are nearest to its median (the second half of Bulyan).
pub(crate) fn mean_around_median(updates: &[&[f32]], keep: usize) -> Vec<f32> {
    by_coordinate(updates, |sorted| {
        let m = middle(sorted);
        // The nearest `keep` of sorted values are a window.
        let (mut low, mut high) = (0, sorted.len());
        while high - low > keep {
            if m - f64::from(sorted[low]) > f64::from(sorted[high - 1]) - m {
                low += 1;
            } else {
                high -= 1;
            }
        }
        sorted[low..high].iter().map(|&x| f64::from(x)).sum::<f64>() / keep as f64
    })
}
