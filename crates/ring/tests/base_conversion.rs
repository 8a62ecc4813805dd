//! Base conversion against integers of any size.

use proptest::prelude::*;
use tacit_ring::{
    BaseConverter, Modulus,
    kernels::{self, Kernel},
    ntt_primes,
};

/// A natural number, least significant word first.
#[derive(Clone)]
struct Big(Vec<u64>);

impl Big {
    fn product(moduli: &[Modulus]) -> Self {
        moduli.iter().fold(Big(vec![1]), |x, m| x.times(m.value()))
    }

    fn times(&self, factor: u64) -> Self {
        let mut carry = 0u128;
        let mut words: Vec<u64> = Vec::new();
        for &w in &self.0 {
            carry += u128::from(w) * u128::from(factor);
            words.push(carry as u64);
            carry >>= 64;
        }
        words.push(carry as u64);
        Big(words)
    }

    /// `floor(self * numerator / 2^65)`.
    fn scaled(&self, numerator: u64) -> Self {
        let words = self.times(numerator).0[1..].to_vec();
        let next = words.iter().skip(1).chain(&[0]);
        Big(words
            .iter()
            .zip(next)
            .map(|(&low, &high)| low >> 1 | high << 63)
            .collect())
    }

    fn modulo(&self, m: &Modulus) -> u64 {
        let p = u128::from(m.value());
        self.0
            .iter()
            .rev()
            .fold(0u128, |r, &w| (r << 64 | u128::from(w)) % p) as u64
    }
}

/// `alpha` moduli of 50 bits and the rest of 45 and 40 bits, and targets that share none of them.
fn bases(k: usize, l: usize) -> (Vec<Modulus>, Vec<Modulus>) {
    let all = |bits, count| {
        ntt_primes(bits, 1 << 10, count, &[])
            .unwrap()
            .into_iter()
            .map(|p| Modulus::new(p).unwrap())
    };
    let mut pool: Vec<Modulus> = all(50, 24).chain(all(45, 24)).chain(all(40, 24)).collect();
    let mut from: Vec<Modulus> = Vec::new();
    for i in 0..k {
        from.push(pool.remove(i * 7 % pool.len()));
    }
    (from, pool.into_iter().step_by(2).take(l).collect())
}

/// Rows of residues of signed numbers.
fn rows(base: &[Modulus], numbers: &[(bool, Big)]) -> Vec<Vec<u64>> {
    let residue = |m: &Modulus, (negative, x): &(bool, Big)| {
        let r = x.modulo(m);
        if *negative { m.neg(r) } else { r }
    };
    base.iter()
        .map(|m| numbers.iter().map(|x| residue(m, x)).collect())
        .collect()
}

fn convert(converter: &BaseConverter, kernel: &dyn Kernel, source: &[Vec<u64>]) -> Vec<Vec<u64>> {
    let mut out = vec![vec![1; source[0].len()]; converter.to_base().len()];
    let source: Vec<&[u64]> = source.iter().map(Vec::as_slice).collect();
    converter.convert_with(
        kernel,
        &source,
        &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Every `|x| <= Q/2 (1 - 2^-41)` comes out as itself, for up to 36 moduli.
    #[test]
    fn centred_integers_come_out_exact(k in 1usize..=36, l in 1usize..=18, fractions in prop::collection::vec(any::<u64>(), 1..100), negative: u64) {
        let (from, to) = bases(k, l);
        let q = Big::product(&from);
        let mut numbers: Vec<(bool, Big)> = fractions
            .iter()
            .enumerate()
            .map(|(i, &f)| (negative >> (i % 64) & 1 == 1, q.scaled(f.min(u64::MAX - (1 << 23)))))
            .collect();
        for negative in [false, true] {
            numbers.push((negative, Big(vec![0])));
            numbers.push((negative, Big(vec![1])));
            numbers.push((negative, q.scaled(u64::MAX - (1 << 23))));
            numbers.push((negative, q.scaled(1)));
        }
        let converter = BaseConverter::new(&from, &to).unwrap();
        let (source, want) = (rows(&from, &numbers), rows(&to, &numbers));
        for kernel in kernels::available() {
            prop_assert_eq!(&convert(&converter, kernel, &source), &want, "{}", kernel.name());
        }
    }
}

/// Within rounding of `Q/2` the result is one of the two integers of least absolute value, the same for all targets and kernels.
#[test]
fn at_half_the_modulus_the_error_is_at_most_one_multiple() {
    for k in [1, 2, 9, 36] {
        let (from, to) = bases(k, 6);
        let q = Big::product(&from);
        let numbers: Vec<(bool, Big)> = (0..64)
            .flat_map(|i| {
                [
                    (false, q.scaled(u64::MAX - i)),
                    (true, q.scaled(u64::MAX - i)),
                ]
            })
            .collect();
        let converter = BaseConverter::new(&from, &to).unwrap();
        let (source, exact) = (rows(&from, &numbers), rows(&to, &numbers));
        let mut first: Option<Vec<Vec<u64>>> = None;
        for kernel in kernels::available() {
            let got = convert(&converter, kernel, &source);
            for i in 0..numbers.len() {
                let matches = |multiple: u64| {
                    to.iter().enumerate().all(|(j, m)| {
                        let shift = m.mul(q.modulo(m), multiple);
                        let shift = if numbers[i].0 { shift } else { m.neg(shift) };
                        got[j][i] == m.add(exact[j][i], shift)
                    })
                };
                assert!(matches(0) || matches(1), "{} moduli, number {i}", k);
            }
            assert_eq!(first.get_or_insert_with(|| got.clone()), &got);
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let (from, to) = bases(9, 20);
    let q = Big::product(&from);
    let numbers: Vec<(bool, Big)> = (0..10_000u64)
        .map(|i| (i % 3 == 0, q.scaled(i.wrapping_mul(0x9e37_79b9_7f4a_7c15))))
        .collect();
    let source = rows(&from, &numbers);
    let converter = BaseConverter::new(&from, &to).unwrap();
    let results: Vec<_> = [1, 2, 5]
        .map(|threads| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| convert(&converter, kernels::active(), &source))
        })
        .into();
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

/// One source modulus: the centred residue itself, as when a ciphertext is rescaled.
#[test]
fn one_modulus_is_centred() {
    let (from, to) = bases(1, 5);
    let q = from[0];
    let x: Vec<u64> = (0..200)
        .chain(q.value() / 2 - 100..q.value() / 2 - 50)
        .chain(q.value() - 100..q.value())
        .collect();
    let converter = BaseConverter::new(&from, &to).unwrap();
    for kernel in kernels::available() {
        let got = convert(&converter, kernel, std::slice::from_ref(&x));
        for (m, row) in to.iter().zip(&got) {
            let want: Vec<u64> = x.iter().map(|&x| m.from_i64(q.centre(x))).collect();
            assert_eq!(row, &want);
        }
    }
}
