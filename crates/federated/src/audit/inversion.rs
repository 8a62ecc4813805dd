//! Which tokens did a client train on? Recovery from the row space of a gradient.
//!
//! For a linear layer `y = x Wᵀ` the gradient is `∂L/∂W = Σ_t δ_t x_tᵀ`: its rows lie in the span of the layer's inputs. In the first layer the input of
//! a position is a known function of its token (the normalised embedding; rotary positions come later), so that every token of the vocabulary can be tested: its
//! distance from the span is zero if it was there and large if not, as long as the span has fewer dimensions than the layer is wide (Petrov et al.,
//! *DAGER: Exact Gradient Inversion for Large Language Models*, NeurIPS 2024, section 4.1). The gradient of LoRA's `A` is `Bᵀ Σ δ_t x_tᵀ`, whose rows lie in
//! the same span but have at most the rank of the adapter.
//!
//! Against a sum over many clients, or noise, the span fills the space and the test says nothing; how far is what [`Recovery`] measures.

use crate::protection::ProtectionError;

/// Orthonormal rows that span the rows of a matrix.
#[derive(Clone, Debug)]
pub struct RowSpace {
    columns: usize,
    /// `rank × columns`.
    basis: Vec<f64>,
}

impl RowSpace {
    /// The row space of a `rows × columns` matrix by Gram and Schmidt with the largest remaining row first, until all that remains is below
    /// `tolerance` times the largest row: `1e-4` suits gradients in f32.
    ///
    /// # Errors
    /// [`ProtectionError::Input`] if the length is not `rows · columns` or a value is not finite.
    pub fn new(matrix: &[f32], columns: usize, tolerance: f64) -> Result<Self, ProtectionError> {
        if columns == 0 || !matrix.len().is_multiple_of(columns) {
            return Err(ProtectionError::input(
                "gradient inversion",
                format!("{} values do not fill rows of {columns}", matrix.len()),
                "give the gradient of one linear layer, row-major",
            ));
        }
        if matrix.iter().any(|x| !x.is_finite()) {
            return Err(ProtectionError::input(
                "gradient inversion",
                "the gradient is not finite",
                "lower the learning rate",
            ));
        }
        let mut rows: Vec<Vec<f64>> = matrix
            .chunks_exact(columns)
            .map(|r| r.iter().map(|&x| f64::from(x)).collect())
            .collect();
        let mut basis: Vec<f64> = Vec::new();
        let mut first = 0.0;
        for _ in 0..rows.len().min(columns) {
            let norms: Vec<f64> = rows.iter().map(|r| dot(r, r)).collect();
            let Some(best) = (0..rows.len()).max_by(|&a, &b| norms[a].total_cmp(&norms[b])) else {
                break;
            };
            let norm = norms[best].sqrt();
            if first == 0.0 {
                first = norm;
            }
            if norm <= tolerance * first || norm == 0.0 {
                break;
            }
            let direction: Vec<f64> = rows[best].iter().map(|x| x / norm).collect();
            for row in &mut rows {
                // Twice is enough.
                for _ in 0..2 {
                    let c = dot(row, &direction);
                    row.iter_mut()
                        .zip(&direction)
                        .for_each(|(x, d)| *x -= c * d);
                }
            }
            basis.extend(direction);
        }
        Ok(Self { columns, basis })
    }

    /// Dimensions of the space.
    pub fn rank(&self) -> usize {
        self.basis.len() / self.columns
    }

    /// `‖v − proj v‖ / ‖v‖`: 0 in the space, 1 at right angles to it.
    pub fn distance(&self, v: &[f32]) -> f64 {
        let mut rest: Vec<f64> = v.iter().map(|&x| f64::from(x)).collect();
        let norm = dot(&rest, &rest).sqrt();
        if norm == 0.0 {
            return 1.0;
        }
        for b in self.basis.chunks_exact(self.columns) {
            let c = dot(&rest, b);
            rest.iter_mut().zip(b).for_each(|(x, d)| *x -= c * d);
        }
        dot(&rest, &rest).sqrt() / norm
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// What the attack found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Recovery {
    /// Dimensions of the gradient's row space.
    pub rank: usize,
    /// Width of the layer.
    pub width: usize,
    /// Distinct tokens that were there.
    pub tokens: usize,
    /// Share of them among as many best candidates.
    pub recovered: f64,
    /// What guessing would find: distinct tokens over vocabulary.
    pub chance: f64,
}

/// Distance and token, nearest first.
type Ranking = Vec<(f64, usize)>;

/// A test of all tokens, and how well it separates them.
pub(super) struct Tested {
    /// What was found.
    pub recovery: Recovery,
    /// Distance of the first token that was not taken over that of the last that was.
    pub gap: f64,
}

/// Puts every token to the test. `candidates` has one row of `width` values a token: what the layer's input would be for it.
/// `truth` are the tokens that were there, in any order and number.
///
/// # Errors
/// As [`RowSpace::new`].
pub fn recover_tokens(
    gradient: &[f32],
    candidates: &[f32],
    width: usize,
    truth: &[usize],
) -> Result<Recovery, ProtectionError> {
    Ok(test_tokens(gradient, candidates, width, truth)?.recovery)
}

/// [`recover_tokens`], with its gap.
pub(super) fn test_tokens(
    gradient: &[f32],
    candidates: &[f32],
    width: usize,
    truth: &[usize],
) -> Result<Tested, ProtectionError> {
    let mut distinct = truth.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let wanted = distinct.len();
    // Where the space ends and rounding begins is not known; the attacker takes the cut that separates its candidates best.
    let mut best: Option<(f64, usize, Ranking)> = None;
    for tolerance in [1e-2, 1e-3, 1e-4, 1e-5, 1e-6] {
        let space = RowSpace::new(gradient, width, tolerance)?;
        if best.as_ref().is_some_and(|b| b.1 == space.rank()) {
            continue;
        }
        let mut distances: Ranking = candidates
            .chunks_exact(width)
            .enumerate()
            .map(|(token, v)| (space.distance(v), token))
            .collect();
        // A full space puts all at distance 0; order among equals must not follow the token numbers.
        let mixed = |t: usize| (t as u32).wrapping_mul(0x9e37_79b9);
        distances.sort_by(|a, b| a.0.total_cmp(&b.0).then(mixed(a.1).cmp(&mixed(b.1))));
        let gap = match (distances.get(wanted.wrapping_sub(1)), distances.get(wanted)) {
            (Some(last), Some(next)) => next.0 / last.0.max(1e-9),
            _ => 0.0,
        };
        if best.as_ref().is_none_or(|b| gap > b.0) {
            best = Some((gap, space.rank(), distances));
        }
    }
    let (gap, rank, distances) = best.unwrap_or_default();
    let found = distances
        .iter()
        .take(wanted)
        .filter(|(_, t)| distinct.binary_search(t).is_ok())
        .count();
    Ok(Tested {
        gap,
        recovery: Recovery {
            rank,
            width,
            tokens: wanted,
            recovered: found as f64 / wanted.max(1) as f64,
            chance: wanted as f64 / (candidates.len() / width).max(1) as f64,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::super::task::Random;
    use super::*;

    const WIDTH: usize = 96;
    const VOCABULARY: usize = 2000;

    fn embeddings() -> Vec<f32> {
        let mut r = Random::new(1);
        (0..WIDTH * VOCABULARY).map(|_| r.normal() as f32).collect()
    }

    /// `Σ δ_t x_tᵀ` with random output gradients.
    fn gradient(embeddings: &[f32], tokens: &[usize], seed: u64) -> Vec<f32> {
        let mut r = Random::new(seed);
        let mut g = vec![0.0f32; WIDTH * WIDTH];
        for &t in tokens {
            let x = &embeddings[t * WIDTH..(t + 1) * WIDTH];
            for row in g.chunks_exact_mut(WIDTH) {
                let d = r.normal() as f32 * 1e-3;
                row.iter_mut().zip(x).for_each(|(g, x)| *g += d * x);
            }
        }
        g
    }

    fn sentence(seed: u64, len: usize) -> Vec<usize> {
        let mut r = Random::new(seed);
        (0..len).map(|_| r.below(VOCABULARY)).collect()
    }

    #[test]
    fn the_gradient_of_one_client_gives_its_tokens_away() {
        let e = embeddings();
        let tokens = sentence(7, 60);
        let g = gradient(&e, &tokens, 8);
        let found = recover_tokens(&g, &e, WIDTH, &tokens).unwrap();
        assert_eq!(found.recovered, 1.0, "{found:?}");
        assert_eq!(found.rank, found.tokens);
        // LoRA of rank 8: Bᵀ of the gradient. Eight tokens are found, sixty are not.
        let few = &tokens[..8];
        let lora = |g: &[f32]| -> Vec<f32> {
            let mut r = Random::new(3);
            let mut a = vec![0.0f32; 8 * WIDTH];
            for row in a.chunks_exact_mut(WIDTH) {
                for g in g.chunks_exact(WIDTH) {
                    let b = r.normal() as f32;
                    row.iter_mut().zip(g).for_each(|(a, g)| *a += b * g);
                }
            }
            a
        };
        let small = recover_tokens(&lora(&gradient(&e, few, 9)), &e, WIDTH, few).unwrap();
        assert_eq!(small.recovered, 1.0);
        let many = recover_tokens(&lora(&g), &e, WIDTH, &tokens).unwrap();
        assert!(many.rank == 8 && many.recovered < 0.7, "{many:?}");
    }

    #[test]
    fn sums_and_noise_hide_them() {
        let e = embeddings();
        let tokens = sentence(7, 60);
        let mut sum = gradient(&e, &tokens, 8);
        for other in 0..7 {
            let g = gradient(&e, &sentence(100 + other, 60), 200 + other);
            sum.iter_mut().zip(&g).for_each(|(s, g)| *s += g);
        }
        let under_sum = recover_tokens(&sum, &e, WIDTH, &tokens).unwrap();
        assert!(
            under_sum.recovered <= under_sum.chance + 0.05,
            "{under_sum:?}"
        );
        let mut noisy = gradient(&e, &tokens, 8);
        let norm = noisy.iter().map(|x| x * x).sum::<f32>().sqrt();
        let mut r = Random::new(4);
        noisy
            .iter_mut()
            .for_each(|g| *g += norm * r.normal() as f32);
        let under_noise = recover_tokens(&noisy, &e, WIDTH, &tokens).unwrap();
        assert!(
            under_noise.recovered <= under_noise.chance + 0.1,
            "{under_noise:?}"
        );
    }

    #[test]
    fn wrong_input_is_refused() {
        assert!(RowSpace::new(&[1.0; 5], 2, 1e-4).is_err());
        assert!(RowSpace::new(&[f32::NAN; 4], 2, 1e-4).is_err());
        assert_eq!(RowSpace::new(&[0.0; 4], 2, 1e-4).unwrap().rank(), 0);
        let plane = RowSpace::new(&[1.0, 0.0, 0.0, 1.0, 1.0, 0.0], 3, 1e-4).unwrap();
        assert_eq!(plane.rank(), 2);
        assert!((plane.distance(&[0.0, 3.0, 4.0]) - 0.8).abs() < 1e-9);
    }
}
