//! Token recovery from a gradient of which some values are hidden, as selective encryption leaves it.
//!
//! The gradient of a linear layer has the rank of the number of tokens. An attacker that knows some of its values has two ways to a row space:
//!
//! * **a block**: rows and columns are dropped until no hidden value is left. The rows of the block lie in the span of the inputs, restricted to its
//!   columns, and the span test runs there;
//! * **completion**: hidden values are filled in from the others by a matrix of that rank (alternate between the best matrix of the rank, found by
//!   subspace iteration, and the known values: "hard impute", Mazumder, Hastie and Tibshirani, JMLR 2010).
//!
//! The attacker also tries hidden values at 0, and takes the way whose candidates separate best; it does not know the truth.

use super::inversion::{Recovery, Tested, test_tokens};
use crate::linalg::{add_product, product_transposed, transposed_product};
use crate::protection::ProtectionError;
use crate::random::{normal, stream};

/// Fillings of the hidden values, at most.
const FILLINGS: usize = 60;
/// Filling ends when the hidden values move by less than this, relative to the largest value.
const STILL: f32 = 1e-6;

/// [`super::inversion::recover_tokens`] for a gradient whose values at `hidden` are not known (they are not read).
///
/// # Errors
/// As [`super::inversion::RowSpace::new`]; [`ProtectionError::Input`] when `hidden` is of another length.
pub fn recover_tokens_partly(
    gradient: &[f32],
    hidden: &[bool],
    candidates: &[f32],
    width: usize,
    truth: &[usize],
) -> Result<Recovery, ProtectionError> {
    if hidden.len() != gradient.len() {
        return Err(ProtectionError::input(
            "gradient inversion",
            format!(
                "{} values and {} marks of hidden ones",
                gradient.len(),
                hidden.len()
            ),
            "mark every value",
        ));
    }
    let known: Vec<f32> = gradient
        .iter()
        .zip(hidden)
        .map(|(&g, &h)| if h { 0.0 } else { g })
        .collect();
    let mut best = test_tokens(&known, candidates, width, truth)?;
    let any = hidden.contains(&true);
    if any && !hidden.iter().all(|h| *h) {
        let rank = best.recovery.tokens.min(width);
        let mut take = |found: Tested| {
            if found.gap > best.gap {
                best = found;
            }
        };
        let (rows, columns) = block(hidden, width);
        if !rows.is_empty() && !columns.is_empty() {
            let part: Vec<f32> = rows
                .iter()
                .flat_map(|r| columns.iter().map(move |c| (r, c)))
                .map(|(r, c)| known[r * width + c])
                .collect();
            let restricted: Vec<f32> = candidates
                .chunks_exact(width)
                .flat_map(|row| columns.iter().map(|&c| row[c]))
                .collect();
            take(test_tokens(&part, &restricted, columns.len(), truth)?);
        }
        if rank < width {
            let whole = complete(&known, hidden, width, rank);
            take(test_tokens(&whole, candidates, width, truth)?);
        }
    }
    Ok(Recovery {
        width,
        ..best.recovery
    })
}

/// Rows and columns between which nothing is hidden: the row or column that costs least for the hidden values it takes along is dropped
/// until none is left.
fn block(hidden: &[bool], width: usize) -> (Vec<usize>, Vec<usize>) {
    let height = hidden.len() / width.max(1);
    let mut rows: Vec<Option<usize>> = vec![Some(0); height];
    let mut columns: Vec<Option<usize>> = vec![Some(0); width];
    for (i, _) in hidden.iter().enumerate().filter(|(_, h)| **h) {
        for count in [&mut rows[i / width], &mut columns[i % width]] {
            *count = count.map(|c| c + 1);
        }
    }
    let (mut left, mut across) = (height, width);
    let worst = |counts: &[Option<usize>]| -> (usize, usize) {
        let of = |i: usize| counts[i].unwrap_or(0);
        (0..counts.len())
            .max_by_key(|&i| (of(i), std::cmp::Reverse(i)))
            .map_or((0, 0), |i| (i, of(i)))
    };
    loop {
        let ((r, in_row), (c, in_column)) = (worst(&rows), worst(&columns));
        if in_row == 0 && in_column == 0 {
            break;
        }
        if in_row * left >= in_column * across {
            rows[r] = None;
            left -= 1;
            for (count, _) in columns
                .iter_mut()
                .zip(&hidden[r * width..(r + 1) * width])
                .filter(|(_, h)| **h)
            {
                *count = count.map(|n| n - 1);
            }
        } else {
            columns[c] = None;
            across -= 1;
            for (count, _) in rows
                .iter_mut()
                .zip(hidden.iter().skip(c).step_by(width))
                .filter(|(_, h)| **h)
            {
                *count = count.map(|n| n - 1);
            }
        }
    }
    let kept = |counts: &[Option<usize>]| -> Vec<usize> {
        (0..counts.len()).filter(|&i| counts[i].is_some()).collect()
    };
    (kept(&rows), kept(&columns))
}

/// A matrix of rank `rank` that agrees with `known` where nothing is hidden, as far as there is one.
fn complete(known: &[f32], hidden: &[bool], width: usize, rank: usize) -> Vec<f32> {
    let height = known.len() / width;
    let largest = known.iter().fold(0f32, |m, x| m.max(x.abs()));
    if largest == 0.0 {
        return known.to_vec();
    }
    let mut filled: Vec<f32> = known.iter().map(|x| x / largest).collect();
    let mut rng = stream(0, "completion", &[]);
    // Orthonormal rows: the row space.
    let mut space: Vec<f32> = (0..rank * width).map(|_| normal(&mut rng) as f32).collect();
    orthonormalise(&mut space, width);
    let mut low = vec![0f32; filled.len()];
    for _ in 0..FILLINGS {
        let mut along = product_transposed(1.0, &filled, &space, (height, width, rank));
        space = transposed_product(1.0, &along, &filled, (height, rank, width));
        orthonormalise(&mut space, width);
        along = product_transposed(1.0, &filled, &space, (height, width, rank));
        low.fill(0.0);
        add_product(&mut low, 1.0, &along, &space, (height, rank, width));
        let mut moved = 0f32;
        for ((f, l), _) in filled.iter_mut().zip(&low).zip(hidden).filter(|(_, h)| **h) {
            moved = moved.max((*f - l).abs());
            *f = *l;
        }
        if moved < STILL {
            break;
        }
    }
    low
}

/// Gram and Schmidt, twice, on the rows of `width` values; a row without anything of its own becomes 0.
fn orthonormalise(rows: &mut [f32], width: usize) {
    let dot = |a: &[f32], b: &[f32]| -> f32 { product_transposed(1.0, a, b, (1, width, 1))[0] };
    for i in 0..rows.len() / width {
        let (done, rest) = rows.split_at_mut(i * width);
        let row = &mut rest[..width];
        let before = dot(row, row).sqrt();
        for _ in 0..2 {
            for q in done.chunks_exact(width) {
                let c = dot(row, q);
                row.iter_mut().zip(q).for_each(|(x, y)| *x -= c * y);
            }
        }
        let norm = dot(row, row).sqrt();
        let factor = if norm > 1e-6 * before {
            1.0 / norm
        } else {
            0.0
        };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::super::task::Random;
    use super::*;

    const WIDTH: usize = 64;
    const HEIGHT: usize = 96;
    const VOCABULARY: usize = 600;
    const TOKENS: usize = 16;

    /// Candidates, a gradient `Σ δ_t x_tᵀ`, and its tokens.
    fn setting() -> (Vec<f32>, Vec<f32>, Vec<usize>) {
        let mut r = Random::new(5);
        let candidates: Vec<f32> = (0..WIDTH * VOCABULARY).map(|_| r.normal() as f32).collect();
        let tokens: Vec<usize> = (0..TOKENS).map(|_| r.below(VOCABULARY)).collect();
        let mut g = vec![0f32; WIDTH * HEIGHT];
        for &t in &tokens {
            let x = &candidates[t * WIDTH..(t + 1) * WIDTH];
            for row in g.chunks_exact_mut(WIDTH) {
                let d = 1e-3 * r.normal() as f32;
                row.iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
            }
        }
        (candidates, g, tokens)
    }

    fn found(hidden: &[bool]) -> Recovery {
        let (candidates, mut g, tokens) = setting();
        // Hidden values must not be read.
        for (g, _) in g.iter_mut().zip(hidden).filter(|(_, h)| **h) {
            *g = f32::NAN;
        }
        recover_tokens_partly(&g, hidden, &candidates, WIDTH, &tokens).unwrap()
    }

    #[test]
    fn scattered_gaps_are_filled_in_and_whole_rows_are_done_without() {
        let mut r = Random::new(9);
        let scattered: Vec<bool> = (0..WIDTH * HEIGHT).map(|_| r.below(10) == 0).collect();
        assert_eq!(found(&scattered).recovered, 1.0);
        // Every second row and a quarter of the columns: too much to fill in, but a block remains.
        let rows: Vec<bool> = (0..WIDTH * HEIGHT)
            .map(|i| (i / WIDTH).is_multiple_of(2) || (i % WIDTH).is_multiple_of(4))
            .collect();
        let (kept, across) = block(&rows, WIDTH);
        assert_eq!((kept.len(), across.len()), (HEIGHT / 2, WIDTH * 3 / 4));
        assert_eq!(found(&rows).recovered, 1.0);
        assert_eq!(found(&vec![false; WIDTH * HEIGHT]).recovered, 1.0);
        // Most values gone: nothing fits.
        let most: Vec<bool> = (0..WIDTH * HEIGHT).map(|_| r.below(20) > 0).collect();
        assert!(found(&most).recovered < 0.5, "{:?}", found(&most));
    }

    #[test]
    fn what_is_all_hidden_gives_chance() {
        let all = found(&[true; WIDTH * HEIGHT]);
        assert!(all.recovered <= all.chance + 0.1, "{all:?}");
        assert_eq!(all.rank, 0);
        assert!(recover_tokens_partly(&[0.0; 4], &[true; 3], &[0.0; 4], 2, &[0]).is_err());
    }
}
