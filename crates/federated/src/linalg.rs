//! Small dense products and the singular value decomposition of a product of thin factors.

/// `out += factor * a b` for row-major `a` `[m, k]`, `b` `[k, n]`, `out` `[m, n]`.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn add_product(
    out: &mut [f32],
    factor: f32,
    a: &[f32],
    b: &[f32],
    (m, k, n): (usize, usize, usize),
) {
    assert!(a.len() == m * k && b.len() == k * n && out.len() == m * n);
    for (row, a) in out.chunks_exact_mut(n).zip(a.chunks_exact(k.max(1))) {
        for (&x, b) in a.iter().zip(b.chunks_exact(n)) {
            let x = factor * x;
            for (o, y) in row.iter_mut().zip(b) {
                *o += x * y;
            }
        }
    }
}

/// `factor * aᵀ b` for `a` `[m, k]`, `b` `[m, n]`: `[k, n]`.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn transposed_product(
    factor: f32,
    a: &[f32],
    b: &[f32],
    (m, k, n): (usize, usize, usize),
) -> Vec<f32> {
    assert!(a.len() == m * k && b.len() == m * n);
    let mut out = vec![0f32; k * n];
    for (a, b) in a.chunks_exact(k).zip(b.chunks_exact(n)) {
        for (&x, row) in a.iter().zip(out.chunks_exact_mut(n)) {
            let x = factor * x;
            for (o, y) in row.iter_mut().zip(b) {
                *o += x * y;
            }
        }
    }
    out
}

/// `factor * a bᵀ` for `a` `[m, k]`, `b` `[n, k]`: `[m, n]`.
///
/// # Panics
/// When a slice is shorter than its shape says.
pub fn product_transposed(
    factor: f32,
    a: &[f32],
    b: &[f32],
    (m, k, n): (usize, usize, usize),
) -> Vec<f32> {
    assert!(a.len() == m * k && b.len() == n * k);
    let mut out = Vec::with_capacity(m * n);
    for a in a.chunks_exact(k) {
        for b in b.chunks_exact(k) {
            let mut lanes = [0f32; 8];
            let (ac, bc) = (a.as_chunks::<8>(), b.as_chunks::<8>());
            for (x, y) in ac.0.iter().zip(bc.0) {
                for i in 0..8 {
                    lanes[i] += x[i] * y[i];
                }
            }
            let rest: f32 = ac.1.iter().zip(bc.1).map(|(x, y)| x * y).sum();
            out.push(factor * (lanes.iter().sum::<f32>() + rest));
        }
    }
    out
}

/// The leading singular triples of a matrix.
#[derive(Clone, Debug)]
pub struct Svd {
    /// Left singular vectors, one `Vec` of `rows` values each.
    pub left: Vec<Vec<f64>>,
    /// Singular values, largest first.
    pub values: Vec<f64>,
    /// Right singular vectors, one `Vec` of `cols` values each.
    pub right: Vec<Vec<f64>>,
}

/// Singular value decomposition of `B A` with `B` given by its columns and `A` by its rows: orthonormal bases of both (Gram-Schmidt, twice),
/// then one-sided Jacobi on the small core. Triples with a singular value below `1e-12` of the largest are left out.
pub fn svd_of_product(columns: &[Vec<f64>], rows: &[Vec<f64>]) -> Svd {
    let (qb, rb) = orthonormalise(columns);
    let (qa, ra) = orthonormalise(rows);
    // core[i][j] = sum_r rb[i][r] ra[j][r]: the product in the two bases.
    let core: Vec<Vec<f64>> = (0..qa.len())
        .map(|j| {
            (0..qb.len())
                .map(|i| rb[i].iter().zip(&ra[j]).map(|(x, y)| x * y).sum())
                .collect()
        })
        .collect();
    let (u, v) = jacobi(core);
    let mut triples: Vec<(f64, Vec<f64>, Vec<f64>)> = u
        .into_iter()
        .zip(v)
        .map(|(u, v)| (u.iter().map(|x| x * x).sum::<f64>().sqrt(), u, v))
        .collect();
    triples.sort_by(|a, b| b.0.total_cmp(&a.0));
    let floor = triples.first().map_or(0.0, |t| 1e-12 * t.0);
    triples.retain(|t| t.0 > floor);
    let combine = |basis: &[Vec<f64>], weights: &[f64], scale: f64| -> Vec<f64> {
        let mut out = vec![0.0; basis.first().map_or(0, Vec::len)];
        for (b, w) in basis.iter().zip(weights) {
            out.iter_mut().zip(b).for_each(|(o, x)| *o += scale * w * x);
        }
        out
    };
    Svd {
        left: triples
            .iter()
            .map(|(s, u, _)| combine(&qb, u, 1.0 / s))
            .collect(),
        right: triples
            .iter()
            .map(|(_, _, v)| combine(&qa, v, 1.0))
            .collect(),
        values: triples.into_iter().map(|t| t.0).collect(),
    }
}

/// An orthonormal basis `q` of the span and coordinates `r[i][k]` of vector `k` along `q[i]`.
fn orthonormalise(vectors: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    let largest = vectors.iter().map(|v| dot(v, v).sqrt()).fold(0.0, f64::max);
    let mut basis: Vec<Vec<f64>> = Vec::new();
    let mut coordinates: Vec<Vec<f64>> = Vec::new();
    for (k, v) in vectors.iter().enumerate() {
        let mut rest = v.clone();
        for _ in 0..2 {
            for (q, c) in basis.iter().zip(&mut coordinates) {
                let x = dot(q, &rest);
                c[k] += x;
                rest.iter_mut().zip(q).for_each(|(r, q)| *r -= x * q);
            }
        }
        let norm = dot(&rest, &rest).sqrt();
        if norm > 1e-13 * largest && norm > 0.0 {
            rest.iter_mut().for_each(|x| *x /= norm);
            basis.push(rest);
            let mut c = vec![0.0; vectors.len()];
            c[k] = norm;
            coordinates.push(c);
        }
    }
    (basis, coordinates)
}

/// One-sided Jacobi: rotates the columns `u` until they are orthogonal; `v` collects the rotations.
fn jacobi(mut u: Vec<Vec<f64>>) -> (Vec<Vec<f64>>, Vec<Vec<f64>>) {
    let n = u.len();
    let mut v: Vec<Vec<f64>> = (0..n)
        .map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect())
        .collect();
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
    // v[i] is column i of V here: u_new = u_old V, so the right factor of triple i is v[i].
    for _ in 0..60 {
        let mut moved = false;
        for p in 0..n {
            for q in p + 1..n {
                let (a, b, c) = (dot(&u[p], &u[p]), dot(&u[q], &u[q]), dot(&u[p], &u[q]));
                if c.abs() <= 1e-15 * (a * b).sqrt() || c == 0.0 {
                    continue;
                }
                moved = true;
                let zeta = (b - a) / (2.0 * c);
                let t = zeta.signum() / (zeta.abs() + (1.0 + zeta * zeta).sqrt());
                let cos = 1.0 / (1.0 + t * t).sqrt();
                let sin = cos * t;
                for m in [&mut u, &mut v] {
                    let (left, right) = m.split_at_mut(q);
                    for (x, y) in left[p].iter_mut().zip(&mut right[0]) {
                        (*x, *y) = (cos * *x - sin * *y, sin * *x + cos * *y);
                    }
                }
            }
        }
        if !moved {
            break;
        }
    }
    (u, v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::{normal, stream};

    fn noise(n: usize, label: u64) -> Vec<f32> {
        let mut rng = stream(1, "linalg", &[label]);
        (0..n).map(|_| normal(&mut rng) as f32).collect()
    }

    #[test]
    fn products_agree_with_the_definition() {
        let (m, k, n) = (5, 11, 7);
        let (a, b) = (noise(m * k, 1), noise(k * n, 2));
        let mut want = vec![0f32; m * n];
        for i in 0..m {
            for j in 0..n {
                want[i * n + j] = 0.5 * (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum::<f32>();
            }
        }
        let close = |x: &[f32]| x.iter().zip(&want).all(|(x, y)| (x - y).abs() < 1e-5);
        let mut out = vec![0f32; m * n];
        add_product(&mut out, 0.5, &a, &b, (m, k, n));
        assert!(close(&out));
        let at: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
        assert!(close(&transposed_product(0.5, &at, &b, (k, m, n))));
        let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
        assert!(close(&product_transposed(0.5, &a, &bt, (m, k, n))));
    }

    #[test]
    fn the_decomposition_rebuilds_the_product_with_orthonormal_vectors_also_when_rank_deficient() {
        let (rows, cols, rank) = (13, 9, 6);
        let vectors = |n: usize, label: u64| -> Vec<Vec<f64>> {
            let mut v: Vec<Vec<f64>> = noise(n * rank, label)
                .chunks(n)
                .map(|c| c.iter().map(|&x| f64::from(x)).collect())
                .collect();
            v[4] = v[1].iter().map(|x| -2.0 * x).collect();
            v
        };
        let (b, a) = (vectors(rows, 3), vectors(cols, 4));
        let svd = svd_of_product(&b, &a);
        assert!(svd.values.len() <= 5 && svd.values.windows(2).all(|w| w[0] >= w[1]));
        for (i, j) in (0..rows).flat_map(|i| (0..cols).map(move |j| (i, j))) {
            let want: f64 = b.iter().zip(&a).map(|(b, a)| b[i] * a[j]).sum();
            let got: f64 = (0..svd.values.len())
                .map(|r| svd.left[r][i] * svd.values[r] * svd.right[r][j])
                .sum();
            assert!((want - got).abs() < 1e-10, "{want} {got}");
        }
        for side in [&svd.left, &svd.right] {
            for (i, x) in side.iter().enumerate() {
                for (j, y) in side.iter().enumerate() {
                    let dot: f64 = x.iter().zip(y).map(|(x, y)| x * y).sum();
                    assert!((dot - f64::from(u8::from(i == j))).abs() < 1e-9);
                }
            }
        }
        assert!(
            svd_of_product(&[vec![0.0; 3]], &[vec![1.0; 2]])
                .values
                .is_empty()
        );
    }
}
