//! Run-time choice of vector instructions, and the arithmetic the other kernels share.

use rayon::prelude::*;

/// Rows handled by one task.
pub(super) const ROWS: usize = 64;

/// An `#[inline(always)]` function with a name that can be passed as a type.
///
/// Functions and closures themselves will not do: calling them through a generic parameter compiles them once, for the baseline
/// instructions, instead of into each caller.
pub(crate) trait Kernel<A> {
    type Output;
    fn run(arguments: A) -> Self::Output;
}

macro_rules! kernel {
    ($name:ident = $function:path: $arguments:ty => $output:ty) => {
        struct $name;
        impl $crate::train::kernels::Kernel<$arguments> for $name {
            type Output = $output;
            #[inline(always)]
            fn run(arguments: $arguments) -> $output {
                $function(arguments)
            }
        }
    };
}
pub(crate) use kernel;

/// A kernel with its arguments.
struct Call<K, A>(std::marker::PhantomData<K>, A);

impl<A, K: Kernel<A>> pulp::WithSimd for Call<K, A> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _simd: S) -> K::Output {
        K::run(self.1)
    }
}

/// Runs a kernel compiled for the widest vector instructions of this machine.
#[inline(always)]
pub(crate) fn simd<A, K: Kernel<A>>(_kernel: K, arguments: A) -> K::Output {
    pulp::Arch::new().dispatch(Call(std::marker::PhantomData::<K>, arguments))
}

/// `x += y`.
pub(crate) fn add(x: &mut [f32], y: &[f32]) {
    kernel!(Add = kernel: (&mut [f32], &[f32]) => ());

    #[inline(always)]
    fn kernel((x, y): (&mut [f32], &[f32])) {
        x.iter_mut().zip(y).for_each(|(x, y)| *x += y);
    }
    x.par_chunks_mut(1 << 14)
        .zip(y.par_chunks(1 << 14))
        .for_each(|(x, y)| simd(Add, (x, y)));
}

/// Sum of squares, in chunks.
pub(crate) fn sum_of_squares(x: &[f32]) -> f64 {
    kernel!(Squares = kernel: &[f32] => f32);

    #[inline(always)]
    fn kernel(x: &[f32]) -> f32 {
        dot(x, x)
    }
    let parts: Vec<f64> = x
        .par_chunks(1 << 12)
        .map(|c| f64::from(simd(Squares, c)))
        .collect();
    parts.iter().sum()
}

/// `e^x` to about 2 units in the last place for |x| < 87, without branches, so that loops over it vectorise.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer in the low mantissa bits
    let x = x.clamp(-87.0, 88.0);
    let t = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = t - MAGIC;
    let f = n.mul_add(-0.693_359_4, x);
    let f = n.mul_add(2.121_944_4e-4, f);
    let p = f.mul_add(1.987_569_1e-4, 1.398_199_9e-3);
    let p = f.mul_add(p, 8.333_452e-3);
    let p = f.mul_add(p, 4.166_579_6e-2);
    let p = f.mul_add(p, 1.666_666_5e-1);
    let p = f.mul_add(p, 0.5);
    let p = (f * f).mul_add(p, f) + 1.0;
    f32::from_bits(p.to_bits().wrapping_add(t.to_bits() << 23))
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Distance of `x` from `[lo, hi]`, signed.
#[inline(always)]
pub(super) fn outside(x: f32, lo: f32, hi: f32) -> f32 {
    (x - hi).max(0.0) + (x - lo).min(0.0)
}

#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (ca, cb) = (a.chunks_exact(16), b.chunks_exact(16));
    let tail: f32 = ca
        .remainder()
        .iter()
        .zip(cb.remainder())
        .map(|(x, y)| x * y)
        .sum();
    for (x, y) in ca.zip(cb) {
        for j in 0..16 {
            lanes[j] = x[j].mul_add(y[j], lanes[j]);
        }
    }
    lanes.iter().sum::<f32>() + tail
}

/// `c = a b` with `a: m x k`, `b: k x n`.
#[inline(always)]
pub(super) fn mat_mul(m: usize, n: usize, k: usize, a: &[f32], b: &[f32], c: &mut [f32]) {
    const W: usize = 32;
    let wide = n - n % W;
    for j0 in (0..wide).step_by(W) {
        let mut i = 0;
        while i < m {
            let rows = if i + 4 <= m { 4 } else { 1 };
            let mut acc = [[0f32; W]; 4];
            if rows == 4 {
                for l in 0..k {
                    let b: &[f32] = &b[l * n + j0..l * n + j0 + W];
                    for (r, acc) in acc.iter_mut().enumerate() {
                        let x = a[(i + r) * k + l];
                        for j in 0..W {
                            acc[j] = x.mul_add(b[j], acc[j]);
                        }
                    }
                }
            } else {
                for l in 0..k {
                    let b = &b[l * n + j0..l * n + j0 + W];
                    let x = a[i * k + l];
                    for j in 0..W {
                        acc[0][j] = x.mul_add(b[j], acc[0][j]);
                    }
                }
            }
            for r in 0..rows {
                c[(i + r) * n + j0..(i + r) * n + j0 + W].copy_from_slice(&acc[r]);
            }
            i += rows;
        }
    }
    for i in 0..m {
        for j in wide..n {
            c[i * n + j] = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
        }
    }
}

#[inline(always)]
pub(super) fn transpose(rows: usize, cols: usize, a: &[f32], out: &mut [f32]) {
    for i in 0..rows {
        for j in 0..cols {
            out[j * rows + i] = a[i * cols + j];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::noise;
    use super::*;

    #[test]
    fn exp_is_accurate() {
        for i in -8600..8700 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / want - 1.0).abs() < 4e-7,
                "exp({x}) = {} want {want}",
                exp(x)
            );
        }
    }

    #[test]
    fn products_of_all_shapes_agree_with_the_definition() {
        for (m, n, k) in [(1, 1, 1), (5, 33, 7), (8, 64, 32), (3, 31, 2), (6, 70, 9)] {
            let (a, b) = (noise(m * k, 1), noise(k * n, 2));
            let mut c = vec![f32::NAN; m * n];
            mat_mul(m, n, k, &a, &b, &mut c);
            for i in 0..m {
                for j in 0..n {
                    let want: f32 = (0..k).map(|l| a[i * k + l] * b[l * n + j]).sum();
                    assert!((c[i * n + j] - want).abs() < 1e-5);
                }
            }
        }
    }
}
