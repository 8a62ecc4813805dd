//! Conversion of residues from one RNS base to another, exact on centred integers.

use rayon::prelude::*;

use crate::{
    Modulus, RingError,
    kernels::{self, Kernel},
    memory::AlignedWords,
};

/// Coefficients that one task converts: long enough to hide the cost of a task, short enough for many tasks.
const CHUNK: usize = 2048;

/// Converts residues modulo `q_0 ... q_(k-1)` into residues modulo `t_0 ... t_(l-1)`.
///
/// With `Q = q_0 ... q_(k-1)` and `x` the integer in `(-Q/2, Q/2)` that has the given residues, the results are `x mod t_j`:
///
/// ```text
/// y_i = x_i (Q/q_i)^-1 mod q_i                 x = sum_i y_i Q/q_i - v Q
/// v   = round(sum_i y_i / q_i)                 in f64
/// x mod t_j = sum_i y_i (Q/q_i mod t_j) + v (-Q mod t_j)   mod t_j
/// ```
///
/// (Bajard et al., SAC 2016, with the floating-point quotient of Halevi, Polyakov and Shoup, CT-RSA 2019). The sum of `k`
/// terms in `[0, 1)` carries a rounding error below `k^2 2^-52`, so the result is exact for `|x| < Q (1/2 - k^2 2^-52)`;
/// closer than that to `Q/2`, `x` may come out as `x - Q` or `x + Q`, which is a representative of the same residues.
/// A multiple of `Q` larger than that never remains.
///
/// Both sides are coefficients, not transform values. The result is the same for any number of threads and any kernel.
#[derive(Clone)]
pub struct BaseConverter {
    tables: BaseTables,
}

/// The constants of one conversion, as kernels read them.
#[derive(Clone)]
pub struct BaseTables {
    /// Source moduli.
    pub(crate) from: Vec<Modulus>,
    /// Target moduli.
    pub(crate) to: Vec<Modulus>,
    /// `(Q/q_i)^-1 mod q_i` and its Shoup quotient.
    pub(crate) scale: Vec<(u64, u64)>,
    /// `1/q_i`, rounded.
    pub(crate) reciprocal: Vec<f64>,
    /// Row `j`: `Q/q_i mod t_j` for all `i`, then `-Q mod t_j`.
    pub(crate) matrix: AlignedWords,
}

impl BaseTables {
    /// Row `j` of the matrix: one entry per source modulus and the correction.
    #[inline]
    pub(crate) fn row(&self, j: usize) -> &[u64] {
        let width = self.from.len() + 1;
        &self.matrix[j * width..(j + 1) * width]
    }
}

impl BaseConverter {
    /// Prepares a conversion. The two bases may share moduli; then the common residues come out as they went in
    /// (except within rounding of `Q/2`, see above).
    ///
    /// # Errors
    /// [`RingError::EmptyBase`] if one base is empty; [`RingError::RepeatedModulus`] if a modulus occurs twice in one.
    pub fn new(from: &[Modulus], to: &[Modulus]) -> Result<Self, RingError> {
        for base in [from, to] {
            if base.is_empty() {
                return Err(RingError::EmptyBase);
            }
            for (i, m) in base.iter().enumerate() {
                if base[..i].iter().any(|other| other.value() == m.value()) {
                    return Err(RingError::RepeatedModulus(m.value()));
                }
            }
        }
        // Product of all source moduli but one, modulo m.
        let cofactor = |m: &Modulus, skip: Option<usize>| {
            let others = from.iter().enumerate().filter(|&(i, _)| Some(i) != skip);
            others.fold(m.reduce(1), |acc, (_, q)| m.mul(acc, m.reduce(q.value())))
        };
        let scale = from
            .iter()
            .enumerate()
            .map(|(i, q)| {
                let c = q.inv(cofactor(q, Some(i)));
                (c, q.shoup(c))
            })
            .collect();
        let mut matrix = AlignedWords::zeroed(to.len() * (from.len() + 1));
        for (row, t) in matrix.chunks_exact_mut(from.len() + 1).zip(to) {
            for (i, entry) in row[..from.len()].iter_mut().enumerate() {
                *entry = cofactor(t, Some(i));
            }
            row[from.len()] = t.neg(cofactor(t, None));
        }
        let reciprocal = from.iter().map(|q| 1.0 / q.value() as f64).collect();
        Ok(Self {
            tables: BaseTables {
                from: from.to_vec(),
                to: to.to_vec(),
                scale,
                reciprocal,
                matrix,
            },
        })
    }

    /// The source moduli.
    pub fn from_base(&self) -> &[Modulus] {
        &self.tables.from
    }

    /// The target moduli.
    pub fn to_base(&self) -> &[Modulus] {
        &self.tables.to
    }

    /// Converts all coefficients: `from[i]` holds residues modulo the `i`-th source modulus, `to[j]` receives those
    /// modulo the `j`-th target modulus. Parallel over blocks of coefficients.
    ///
    /// # Panics
    /// If the numbers of rows differ from the bases', or the rows differ in length.
    pub fn convert(&self, from: &[&[u64]], to: &mut [&mut [u64]]) {
        self.convert_with(kernels::active(), from, to);
    }

    /// [`BaseConverter::convert`] by a given kernel.
    pub fn convert_with(&self, kernel: &dyn Kernel, from: &[&[u64]], to: &mut [&mut [u64]]) {
        assert!(
            from.len() == self.tables.from.len(),
            "expected {} source limbs, found {}",
            self.tables.from.len(),
            from.len()
        );
        assert!(
            to.len() == self.tables.to.len(),
            "expected {} target limbs, found {}",
            self.tables.to.len(),
            to.len()
        );
        let n = from[0].len();
        for len in from
            .iter()
            .map(|r| r.len())
            .chain(to.iter().map(|r| r.len()))
        {
            assert!(len == n, "limbs differ in length: {n} and {len}");
        }
        let mut chunks: Vec<Vec<&mut [u64]>> = (0..n.div_ceil(CHUNK))
            .map(|_| Vec::with_capacity(to.len()))
            .collect();
        for row in to.iter_mut() {
            for (chunk, part) in chunks.iter_mut().zip(row.chunks_mut(CHUNK)) {
                chunk.push(part);
            }
        }
        chunks.into_par_iter().enumerate().for_each(|(c, mut to)| {
            let range = c * CHUNK..(c * CHUNK + CHUNK).min(n);
            let from: Vec<&[u64]> = from.iter().map(|row| &row[range.clone()]).collect();
            kernel.base_convert(&self.tables, &from, &mut to);
        });
    }
}

impl std::fmt::Debug for BaseConverter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let values = |base: &[Modulus]| base.iter().map(Modulus::value).collect::<Vec<_>>();
        f.debug_struct("BaseConverter")
            .field("from", &values(&self.tables.from))
            .field("to", &values(&self.tables.to))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ntt_primes;

    fn moduli(bits: u32, count: usize, exclude: &[u64]) -> Vec<Modulus> {
        ntt_primes(bits, 16, count, exclude)
            .unwrap()
            .into_iter()
            .map(|p| Modulus::new(p).unwrap())
            .collect()
    }

    #[test]
    fn centred_integers_are_kept() {
        let from = moduli(50, 2, &[]);
        let to = moduli(45, 3, &[]);
        let q = i128::from(from[0].value()) * i128::from(from[1].value());
        let values: Vec<i128> = vec![
            0,
            1,
            -1,
            5,
            -5,
            1 << 90,
            -(1 << 90),
            q / 2 - (1 << 60),
            -(q / 2) + (1 << 60),
            123_456_789_012_345_678_901,
        ];
        let rows = |base: &[Modulus]| -> Vec<Vec<u64>> {
            base.iter()
                .map(|m| values.iter().map(|&x| m.from_i128(x)).collect())
                .collect()
        };
        let (source, want) = (rows(&from), rows(&to));
        let mut got = vec![vec![0; values.len()]; 3];
        let converter = BaseConverter::new(&from, &to).unwrap();
        let source: Vec<&[u64]> = source.iter().map(Vec::as_slice).collect();
        converter.convert(
            &source,
            &mut got.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
        );
        assert_eq!(got, want);
    }

    #[test]
    fn bad_bases_are_errors() {
        let m = moduli(50, 2, &[]);
        assert_eq!(
            BaseConverter::new(&[], &m).err(),
            Some(RingError::EmptyBase)
        );
        assert_eq!(
            BaseConverter::new(&m, &[]).err(),
            Some(RingError::EmptyBase)
        );
        assert_eq!(
            BaseConverter::new(&[m[0], m[0]], &m).err(),
            Some(RingError::RepeatedModulus(m[0].value()))
        );
    }
}
