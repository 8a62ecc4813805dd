//! Every kernel of this machine against the portable one, on random and extreme residues.

use proptest::prelude::*;
use tacit_ring::{
    BaseConverter, Modulus, NttPermutation, NttTable, PackedLimb, PackedPoly, RnsPoly,
    kernels::{self, Kernel, Portable},
    ntt_primes,
};

/// Primes of all sizes: tiny, middle, the largest below 2^50.
fn moduli() -> Vec<Modulus> {
    let mut primes = vec![3, 5, 97, 65_537, 786_433];
    for bits in [30, 40, 45, 49, 50] {
        primes.extend(ntt_primes(bits, 1 << 17, 1, &[]).unwrap());
    }
    primes
        .into_iter()
        .map(|p| Modulus::new(p).unwrap())
        .collect()
}

fn others() -> Vec<&'static dyn Kernel> {
    kernels::available()
        .into_iter()
        .filter(|k| k.name() != "portable")
        .collect()
}

/// SplitMix64: expands a seed into test data, quickly and the same everywhere.
struct Mix(u64);

impl Mix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Residues; `style` 0 mixes random and extreme ones, 1 to 4 are constant extremes, 5 extremes only.
    fn residues(&mut self, p: u64, len: usize, style: u8) -> Vec<u64> {
        let extremes = [0, 1, p - 1, p / 2, p / 2 + 1, p.saturating_sub(2)];
        (0..len)
            .map(|_| match style {
                0 if self.next() & 3 != 0 => self.next() % p,
                1 => 0,
                2 => 1,
                3 => p - 1,
                4 => p / 2,
                _ => extremes[(self.next() % 6) as usize],
            })
            .collect()
    }
}

fn slices(rows: &[Vec<u64>]) -> Vec<&[u64]> {
    rows.iter().map(Vec::as_slice).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn elementwise(seed: u64, which in 0usize..10, other in 0usize..10, len in 0usize..300, styles in [0u8..6, 0u8..6, 0u8..6]) {
        let m = moduli()[which];
        let mut mix = Mix(seed);
        let [a, b, c] = styles.map(|style| mix.residues(m.value(), len, style));
        let w = mix.residues(m.value(), 1, styles[2])[0];
        let from = moduli()[other];
        let d = mix.residues(from.value(), len, styles[0]);
        for kernel in others() {
            let mut got = [a.clone(), a.clone(), a.clone(), a.clone(), a.clone(), a.clone(), a.clone(), a.clone(), a.clone(), vec![7; len], vec![7; len], vec![7; len], vec![7; len], vec![7; len]];
            let mut want = got.clone();
            for (kernel, out) in [(kernel, &mut got), (&Portable as &dyn Kernel, &mut want)] {
                let [o0, o1, o2, o3, o4, o5, o6, o7, o8, o9, o10, o11, o12, o13] = out;
                kernel.add_assign(&m, o0, &b);
                kernel.sub_assign(&m, o1, &b);
                kernel.neg_assign(&m, o2);
                kernel.mul_assign(&m, o3, &b);
                kernel.mul_add_assign(&m, o4, &b, &c);
                kernel.mul_scalar_assign(&m, o5, w);
                kernel.mul_scalar_add_assign(&m, o6, &b, w);
                kernel.sub_mul_scalar_assign(&m, o7, &b, w);
                kernel.add_scalar_assign(&m, o8, w);
                kernel.add(&m, o9, &a, &b);
                kernel.sub(&m, o10, &a, &b);
                kernel.mul(&m, o11, &a, &b);
                kernel.mul_scalar(&m, o12, &a, w);
                kernel.reduce_centred(&m, &from, o13, &d);
            }
            prop_assert_eq!(&got, &want, "kernel {}, modulus {}", kernel.name(), m.value());
            // And the portable one against the integers.
            let p = u128::from(m.value());
            for i in 0..len {
                let [x, y, z] = [a[i], b[i], c[i]].map(u128::from);
                prop_assert_eq!(u128::from(want[0][i]), (x + y) % p);
                prop_assert_eq!(u128::from(want[1][i]), (x + p - y) % p);
                prop_assert_eq!(u128::from(want[2][i]), (p - x) % p);
                prop_assert_eq!(u128::from(want[3][i]), x * y % p);
                prop_assert_eq!(u128::from(want[4][i]), (x + y * z) % p);
                prop_assert_eq!(u128::from(want[6][i]), (x + y * u128::from(w)) % p);
                prop_assert_eq!(u128::from(want[7][i]), (x + p - y) * u128::from(w) % p);
                prop_assert_eq!(u128::from(want[8][i]), (x + u128::from(w)) % p);
                prop_assert_eq!(u128::from(want[12][i]), x * u128::from(w) % p);
                prop_assert_eq!(i128::from(want[13][i]), i128::from(from.centre(d[i])).rem_euclid(p as i128));
            }
        }
    }

    #[test]
    fn inner_products(seed: u64, which in 0usize..10, len in 0usize..100, rows in 0usize..48, styles in [0u8..6, 0u8..6, 0u8..6]) {
        let m = moduli()[which];
        let mut mix = Mix(seed);
        let [a, b, c] = styles.map(|style| (0..rows).map(|_| mix.residues(m.value(), len, style)).collect::<Vec<_>>());
        let (a, b, c) = (slices(&a), slices(&b), slices(&c));
        let p = u128::from(m.value());
        let sum = |b: &[&[u64]], i: usize| (a.iter().zip(b).map(|(a, b)| u128::from(a[i]) * u128::from(b[i])).sum::<u128>() % p) as u64;
        let want0: Vec<u64> = (0..len).map(|i| sum(&b, i)).collect();
        let want1: Vec<u64> = (0..len).map(|i| sum(&c, i)).collect();
        for kernel in kernels::available() {
            let (mut single, mut out0, mut out1) = (vec![7; len], vec![8; len], vec![9; len]);
            kernel.inner_product(&m, &mut single, &a, &b);
            kernel.inner_product_pair(&m, &mut out0, &mut out1, &a, &b, &c);
            prop_assert_eq!(&single, &want0);
            prop_assert_eq!(&out0, &want0);
            prop_assert_eq!(&out1, &want1);
            if len > 0 {
                let packed = [&b, &c].map(|rows| {
                    let poly = RnsPoly::from_slice(len, &rows.concat());
                    PackedPoly::new(&poly, |_| m.bits())
                });
                let limbs: Vec<Vec<PackedLimb<'_>>> = packed.iter().map(|p| (0..p.limbs()).map(|j| p.limb(j)).collect()).collect();
                let (mut out0, mut out1) = (vec![8; len], vec![9; len]);
                kernel.inner_product_pair_packed(&m, &mut out0, &mut out1, &a, &limbs[0], &limbs[1]);
                prop_assert_eq!(&out0, &want0, "packed, {}", kernel.name());
                prop_assert_eq!(&out1, &want1, "packed, {}", kernel.name());
            }
        }
    }

    #[test]
    fn base_conversions(seed: u64, k in 1usize..40, l in 1usize..12, len in 1usize..600, style in 0u8..6) {
        let pick = |bits: u32, count: usize, not: &[Modulus]| -> Vec<Modulus> {
            let not: Vec<u64> = not.iter().map(Modulus::value).collect();
            ntt_primes(bits, 16, count, &not).unwrap().into_iter().map(|p| Modulus::new(p).unwrap()).collect()
        };
        let mut from = pick(50, k.div_ceil(2), &[]);
        from.extend(pick(40, k - from.len(), &from));
        let mut to = pick(50, l.div_ceil(3), &from);
        to.extend(pick(45, l - to.len(), &to));
        to.extend_from_slice(&from[..1]);
        let mut mix = Mix(seed);
        let source: Vec<Vec<u64>> = from.iter().map(|m| mix.residues(m.value(), len, style)).collect();
        let converter = BaseConverter::new(&from, &to).unwrap();
        let run = |kernel: &dyn Kernel| {
            let mut out = vec![vec![7; len]; to.len()];
            converter.convert_with(kernel, &slices(&source), &mut out.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>());
            out
        };
        let want = run(&Portable);
        // Rows that begin at cache lines may be written past the caches; those of vectors, and those a word further on, are not.
        let run_from = |kernel: &dyn Kernel, first: usize| {
            let stride = (first + len).next_multiple_of(8);
            let mut out = RnsPoly::zero(stride, to.len());
            let mut rows: Vec<&mut [u64]> = out.limbs_iter_mut().map(|row| &mut row[first..first + len]).collect();
            converter.convert_with(kernel, &slices(&source), &mut rows);
            out.limbs_iter().map(|row| row[first..first + len].to_vec()).collect::<Vec<_>>()
        };
        for kernel in others() {
            prop_assert_eq!(&run(kernel), &want);
            prop_assert_eq!(&run_from(kernel, 0), &want, "whole lines, {}", kernel.name());
            prop_assert_eq!(&run_from(kernel, 1), &want, "a word further on, {}", kernel.name());
        }
        // A shared modulus keeps its residues.
        prop_assert_eq!(want.last().unwrap(), &source[0]);
    }
}

/// The largest sums that the lazy accumulators meet, at every number of rows around their folding points.
#[test]
fn sums_of_largest_products() {
    let m = Modulus::new(ntt_primes(50, 1 << 16, 1, &[]).unwrap()[0]).unwrap();
    let row = vec![m.value() - 1; 72];
    for rows in 0..=64 {
        let a: Vec<&[u64]> = vec![&row; rows];
        for kernel in kernels::available() {
            let (mut single, mut out0, mut out1) = (vec![7; 72], vec![8; 72], vec![9; 72]);
            kernel.inner_product(&m, &mut single, &a, &a);
            kernel.inner_product_pair(&m, &mut out0, &mut out1, &a, &a, &a);
            // (p - 1)^2 = 1 mod p
            for out in [single, out0, out1] {
                assert_eq!(out, [rows as u64; 72], "{}, {rows} rows", kernel.name());
            }
        }
    }
}

#[test]
fn transforms_at_every_size() {
    for log_n in 1..=17 {
        let n = 1usize << log_n;
        for bits in [45, 50, 49] {
            let m = Modulus::new(ntt_primes(bits, n, 1, &[]).unwrap()[0]).unwrap();
            let reference = NttTable::with_kernel(n, m, &Portable).unwrap();
            for kernel in others() {
                let table = NttTable::with_kernel(n, m, kernel).unwrap();
                for style in if log_n > 14 {
                    [0, 3, 5].as_slice()
                } else {
                    &[0, 0, 0, 1, 2, 3, 4, 5, 5]
                } {
                    let a = Mix(n as u64 + u64::from(bits)).residues(m.value(), n, *style);
                    let (mut want, mut got) = (a.clone(), a.clone());
                    reference.forward(&mut want);
                    table.forward(&mut got);
                    assert!(
                        got == want,
                        "forward, {}, n = 2^{log_n}, p = {}, style {style}",
                        kernel.name(),
                        m.value()
                    );
                    // what is read ahead changes nothing: nothing, more than there is time for, and pieces of odd lengths
                    let more = vec![7u64; 3 * n];
                    let more = &more[..];
                    for ahead in [
                        &[][..],
                        &[more, more],
                        &[&more[..n / 2 + 1], &[], &more[5..]],
                    ] {
                        let mut same = a.clone();
                        table.forward_ahead(&mut same, ahead);
                        assert!(same == want, "{}, n = 2^{log_n}, ahead", kernel.name());
                    }
                    let (mut want, mut got) = (a.clone(), a.clone());
                    reference.inverse(&mut want);
                    table.inverse(&mut got);
                    let mut same = a;
                    table.inverse_ahead(&mut same, &[more, &more[3..]]);
                    assert!(same == want, "{}, n = 2^{log_n}, ahead", kernel.name());
                    assert!(
                        got == want,
                        "inverse, {}, n = 2^{log_n}, p = {}, style {style}",
                        kernel.name(),
                        m.value()
                    );
                }
            }
        }
    }
}

#[test]
fn permutations() {
    for log_n in 1..=12 {
        let n = 1usize << log_n;
        let a: Vec<u64> = (0..n as u64).collect();
        for g in [1, 3, 5, 25, 2 * n as u64 - 1, n as u64 + 1] {
            let permutation = NttPermutation::new(n, g | 1);
            let mut want = vec![0; n];
            Portable.permute(&permutation, &mut want, &a);
            for kernel in others() {
                let mut got = vec![0; n];
                kernel.permute(&permutation, &mut got, &a);
                assert_eq!(got, want);
            }
            want.sort_unstable();
            assert_eq!(want, a, "not a permutation");
        }
    }
}

/// The product of two polynomials by transforms is the negacyclic convolution.
#[test]
fn products_are_negacyclic() {
    for kernel in kernels::available() {
        for log_n in [3, 5, 8, 9, 10] {
            let n = 1usize << log_n;
            let m = Modulus::new(ntt_primes(50, n, 1, &[]).unwrap()[0]).unwrap();
            let t = NttTable::with_kernel(n, m, kernel).unwrap();
            let mut mix = Mix(log_n);
            let (mut a, mut b) = (mix.residues(m.value(), n, 0), mix.residues(m.value(), n, 5));
            let mut want = vec![0; n];
            for (i, &x) in a.iter().enumerate() {
                for (j, &y) in b.iter().enumerate() {
                    let (k, xy) = ((i + j) % n, m.mul(x, y));
                    want[k] = if i + j < n {
                        m.add(want[k], xy)
                    } else {
                        m.sub(want[k], xy)
                    };
                }
            }
            t.forward(&mut a);
            t.forward(&mut b);
            kernel.mul_assign(&m, &mut a, &b);
            t.inverse(&mut a);
            assert_eq!(a, want, "{}, n = {n}", kernel.name());
        }
    }
}
