//! Products of a ternary matrix with many vectors at once, by additions only.
//!
//! `out[o] = sum_f W[o][f] * x[f]` with `W[o][f]` in {-1, 0, 1}, where every `x[f]` is a short vector of machine words
//! ([`SLICE_BYTES`] bytes) and the sums wrap. Three weights are one code of 27 values; the 27 signed sums of three inputs
//! are a table, so that one addition serves three weights:
//!
//! ```text
//! for each block of 8 groups (24 inputs):
//!     tables[g][code] = w0*x[3g] + w1*x[3g+1] + w2*x[3g+2]          27 sums for each of 8 groups, in L1
//!     for each output o:
//!         out[o] += tables[0][codes[o][0]] + ... + tables[7][codes[o][7]]
//! ```
//!
//! The whole table is kept (no sign, no branch, one byte of code for three weights): half tables with a sign mask were
//! measured 10 to 30 % slower, tables of five or six weights leave L1 and lose what they save.
//!
//! The loop is written once, for [`u32`] and [`u64`] words, and compiled for the plain target, AVX2 and AVX-512; the best
//! one the machine has is picked when a product starts. All of them do the same wrapping additions, so the same words come
//! out of each.

use crate::Modulus;

/// Bytes of one input or output vector of the kernel: two 64-byte cache lines.
pub const SLICE_BYTES: usize = 128;

/// Weights in one code.
pub const GROUP: usize = 3;

/// Codes that one pass over the outputs consumes (24 weights; the tables take 27 KiB).
pub const BLOCK: usize = 8;

/// Room for one table: 27 entries, rounded up so that five bits of a code can never point outside.
const ENTRIES: usize = 32;

/// Code of three zero weights.
const ZERO_CODE: u8 = 13;

/// A ternary matrix as codes of three weights, in the order in which the kernel reads them.
///
/// ```
/// use tacit_ring::ternary::TernaryCodes;
/// let weights = [[1i8, 0, -1, 1], [0, -1, 0, 0]];
/// let codes = TernaryCodes::pack(2, 4, |row, col| weights[row][col]).unwrap();
/// assert_eq!(codes.nonzeros(), 4);
/// assert_eq!(codes.weight(0, 2), -1);
///
/// let lanes = 32; // u32 words in one slice
/// let x: Vec<u32> = (0..4).flat_map(|f| vec![10u32.pow(f); lanes]).collect();
/// let mut out = vec![0u32; 2 * lanes];
/// codes.product_u32(&x, &mut out);
/// assert_eq!(out[0], 1000 + 1 - 100);
/// assert_eq!(out[lanes], 0u32.wrapping_sub(10));
/// ```
#[derive(Clone)]
pub struct TernaryCodes {
    rows: usize,
    cols: usize,
    /// `[block][row][group in block]`.
    codes: Vec<u8>,
    nonzeros: u64,
    densest_row: usize,
}

/// A weight outside {-1, 0, 1}.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "weight [{row}][{col}] is {found}, expected -1, 0 or 1: only ternary matrices can be packed"
)]
pub struct NotTernary {
    /// Row (output) of the weight.
    pub row: usize,
    /// Column (input) of the weight.
    pub col: usize,
    /// What was found there.
    pub found: i8,
}

impl TernaryCodes {
    /// Packs the `rows x cols` matrix `weight(row, col)`.
    ///
    /// # Errors
    /// [`NotTernary`] at the first weight outside {-1, 0, 1}.
    pub fn pack(
        rows: usize,
        cols: usize,
        mut weight: impl FnMut(usize, usize) -> i8,
    ) -> Result<Self, NotTernary> {
        let blocks = cols.div_ceil(GROUP * BLOCK);
        let mut codes = vec![ZERO_CODE; blocks * rows * BLOCK];
        let (mut nonzeros, mut densest_row) = (0u64, 0usize);
        for row in 0..rows {
            let mut in_row = 0usize;
            for group in 0..cols.div_ceil(GROUP) {
                let mut code = ZERO_CODE as i8;
                let mut power = 1i8;
                for col in GROUP * group..(GROUP * (group + 1)).min(cols) {
                    let w = weight(row, col);
                    if !(-1..=1).contains(&w) {
                        return Err(NotTernary { row, col, found: w });
                    }
                    in_row += usize::from(w != 0);
                    code += w * power;
                    power *= 3;
                }
                codes[((group / BLOCK) * rows + row) * BLOCK + group % BLOCK] = code as u8;
            }
            nonzeros += in_row as u64;
            densest_row = densest_row.max(in_row);
        }
        Ok(Self {
            rows,
            cols,
            codes,
            nonzeros,
            densest_row,
        })
    }

    /// Outputs.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of the packed matrix.
    pub fn bytes(&self) -> usize {
        self.codes.len()
    }

    /// Weights that are not zero.
    pub fn nonzeros(&self) -> u64 {
        self.nonzeros
    }

    /// Most nonzero weights in one row: the sums grow at most by this factor.
    pub fn densest_row(&self) -> usize {
        self.densest_row
    }

    /// The weight at `row`, `col`, read back from its code.
    ///
    /// # Panics
    /// If `row` or `col` is outside the matrix.
    pub fn weight(&self, row: usize, col: usize) -> i8 {
        assert!(
            row < self.rows && col < self.cols,
            "weight outside the matrix"
        );
        let group = col / GROUP;
        let code = self.codes[((group / BLOCK) * self.rows + row) * BLOCK + group % BLOCK];
        (code / 3u8.pow((col % GROUP) as u32) % 3) as i8 - 1
    }

    /// Vector additions and subtractions that one product carries out: one for each code and output, and 25 to make each
    /// table.
    pub fn additions(&self) -> u64 {
        let groups = (self.cols.div_ceil(GROUP * BLOCK) * BLOCK) as u64;
        groups * (self.rows as u64 + 25)
    }

    /// `out = W x` with wrapping 32-bit words: `x` is `cols` slices of 32 words, `out` is `rows` of them (overwritten).
    ///
    /// # Panics
    /// If `x` or `out` has another length.
    pub fn product_u32(&self, x: &[u32], out: &mut [u32]) {
        let (x, rest) = x.as_chunks::<32>();
        let (out, rest_out) = out.as_chunks_mut::<32>();
        assert!(
            rest.is_empty() && x.len() == self.cols,
            "input is not cols slices"
        );
        assert!(
            rest_out.is_empty() && out.len() == self.rows,
            "output is not rows slices"
        );
        dispatch_u32(&self.codes, x, out);
    }

    /// `out = W x` with wrapping 64-bit words: `x` is `cols` slices of 16 words, `out` is `rows` of them (overwritten).
    ///
    /// # Panics
    /// If `x` or `out` has another length.
    pub fn product_u64(&self, x: &[u64], out: &mut [u64]) {
        let (x, rest) = x.as_chunks::<16>();
        let (out, rest_out) = out.as_chunks_mut::<16>();
        assert!(
            rest.is_empty() && x.len() == self.cols,
            "input is not cols slices"
        );
        assert!(
            rest_out.is_empty() && out.len() == self.rows,
            "output is not rows slices"
        );
        dispatch_u64(&self.codes, x, out);
    }
}

/// What the loop needs of a word.
trait Word: Copy + Default {
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
}

impl Word for u32 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
}

impl Word for u64 {
    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }
    #[inline(always)]
    fn minus(self, other: Self) -> Self {
        self.wrapping_sub(other)
    }
}

#[inline(always)]
fn plus<T: Word, const W: usize>(a: &[T; W], b: &[T; W]) -> [T; W] {
    let mut out = *a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = o.plus(*b);
    }
    out
}

#[inline(always)]
fn minus<T: Word, const W: usize>(a: &[T; W], b: &[T; W]) -> [T; W] {
    let mut out = *a;
    for (o, b) in out.iter_mut().zip(b) {
        *o = o.minus(*b);
    }
    out
}

/// One table for each group of a block.
type Block<T, const W: usize> = [[[T; W]; ENTRIES]; BLOCK];

#[repr(align(64))]
struct Tables<T, const W: usize>(Block<T, W>);

/// The two inner steps.
trait Accumulate<T, const W: usize> {
    /// The 27 signed sums of three slices; entry `(w0+1) + 3 (w1+1) + 9 (w2+1)`.
    fn fill(table: &mut [[T; W]; ENTRIES], x: [&[T; W]; 3]);
    /// `acc += tables[g][codes byte g]` for the eight groups of a block.
    fn accumulate(acc: &mut [T; W], tables: &Block<T, W>, codes: u64);
}

/// The inner step in plain Rust; the compiler turns it into vectors of the width it may use.
struct Plain;

impl<T: Word, const W: usize> Accumulate<T, W> for Plain {
    #[inline(always)]
    fn fill(table: &mut [[T; W]; ENTRIES], x: [&[T; W]; 3]) {
        let zero = [T::default(); W];
        let low = [minus(&zero, x[0]), zero, *x[0]];
        for (w0, low) in low.iter().enumerate() {
            for (w1, pair) in [minus(low, x[1]), *low, plus(low, x[1])].iter().enumerate() {
                let code = w0 + 3 * w1;
                table[code] = minus(pair, x[2]);
                table[code + 9] = *pair;
                table[code + 18] = plus(pair, x[2]);
            }
        }
    }

    #[inline(always)]
    fn accumulate(acc: &mut [T; W], tables: &Block<T, W>, codes: u64) {
        for (g, table) in tables.iter().enumerate() {
            *acc = plus(acc, &table[(codes >> (8 * g)) as usize % ENTRIES]);
        }
    }
}

/// The inner steps on 512-bit registers. Written out because the compiler, left alone, gathers the eight words of one
/// lane from the eight tables and is ten times slower, and copies slices where it makes tables.
#[cfg(target_arch = "x86_64")]
struct Avx512;

#[cfg(target_arch = "x86_64")]
macro_rules! accumulate_avx512 {
    ($word:ty, $lanes:literal, $add:ident, $sub:ident) => {
        impl Accumulate<$word, $lanes> for Avx512 {
            #[inline(always)]
            #[allow(unsafe_code)]
            fn fill(table: &mut [[$word; $lanes]; ENTRIES], x: [&[$word; $lanes]; 3]) {
                use std::arch::x86_64::{
                    _mm512_loadu_si512, _mm512_setzero_si512, _mm512_storeu_si512, $add, $sub,
                };
                for half in 0..2 {
                    // SAFETY: only `product_*_avx512` use this type, and those are entered only on machines with AVX-512F. Every
                    // pointer is to the first or the second 64 bytes of an array of 128, unaligned allowed.
                    unsafe {
                        let load = |x: &[$word; $lanes]| {
                            _mm512_loadu_si512(x.as_ptr().cast::<u8>().add(64 * half).cast())
                        };
                        let mut store = |code: usize, value| {
                            let to = table[code].as_mut_ptr().cast::<u8>();
                            _mm512_storeu_si512(to.add(64 * half).cast(), value);
                        };
                        let (x0, x1, x2) = (load(x[0]), load(x[1]), load(x[2]));
                        let zero = _mm512_setzero_si512();
                        for (w0, low) in [$sub(zero, x0), zero, x0].into_iter().enumerate() {
                            let pairs = [$sub(low, x1), low, $add(low, x1)];
                            for (w1, pair) in pairs.into_iter().enumerate() {
                                let code = w0 + 3 * w1;
                                store(code, $sub(pair, x2));
                                store(code + 9, pair);
                                store(code + 18, $add(pair, x2));
                            }
                        }
                    }
                }
            }

            #[inline(always)]
            #[allow(unsafe_code)]
            fn accumulate(acc: &mut [$word; $lanes], tables: &Block<$word, $lanes>, codes: u64) {
                use std::arch::x86_64::{_mm512_loadu_si512, _mm512_storeu_si512, $add};
                // SAFETY: only `product_*_avx512` use this type, and those are entered only on machines with AVX-512F.
                // Every pointer is to an array of 128 bytes, read or written as two halves of 64, unaligned allowed.
                unsafe {
                    let out = acc.as_mut_ptr().cast::<u8>();
                    let mut low = _mm512_loadu_si512(out.cast());
                    let mut high = _mm512_loadu_si512(out.add(64).cast());
                    for (g, table) in tables.iter().enumerate() {
                        let entry = table[(codes >> (8 * g)) as usize % ENTRIES]
                            .as_ptr()
                            .cast::<u8>();
                        low = $add(low, _mm512_loadu_si512(entry.cast()));
                        high = $add(high, _mm512_loadu_si512(entry.add(64).cast()));
                    }
                    _mm512_storeu_si512(out.cast(), low);
                    _mm512_storeu_si512(out.add(64).cast(), high);
                }
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
accumulate_avx512!(u32, 32, _mm512_add_epi32, _mm512_sub_epi32);
#[cfg(target_arch = "x86_64")]
accumulate_avx512!(u64, 16, _mm512_add_epi64, _mm512_sub_epi64);

#[inline(always)]
fn product<T: Word, A: Accumulate<T, W>, const W: usize>(
    codes: &[u8],
    x: &[[T; W]],
    out: &mut [[T; W]],
) {
    out.fill([T::default(); W]);
    if out.is_empty() {
        return;
    }
    let zero = [T::default(); W];
    let mut tables = Tables([[[T::default(); W]; ENTRIES]; BLOCK]);
    let tables = &mut tables.0;
    for (inputs, codes) in x
        .chunks(GROUP * BLOCK)
        .zip(codes.chunks_exact(out.len() * BLOCK))
    {
        for (g, table) in tables.iter_mut().enumerate() {
            let at = |i: usize| inputs.get(GROUP * g + i).unwrap_or(&zero);
            A::fill(table, [at(0), at(1), at(2)]);
        }
        for (acc, codes) in out.iter_mut().zip(codes.as_chunks::<BLOCK>().0) {
            A::accumulate(acc, tables, u64::from_le_bytes(*codes));
        }
    }
}

macro_rules! dispatch {
    ($name:ident, $avx2:ident, $avx512:ident, $word:ty, $lanes:literal) => {
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2")]
        fn $avx2(codes: &[u8], x: &[[$word; $lanes]], out: &mut [[$word; $lanes]]) {
            product::<_, Plain, _>(codes, x, out);
        }

        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
        fn $avx512(codes: &[u8], x: &[[$word; $lanes]], out: &mut [[$word; $lanes]]) {
            product::<_, Avx512, _>(codes, x, out);
        }

        #[allow(unsafe_code)]
        fn $name(codes: &[u8], x: &[[$word; $lanes]], out: &mut [[$word; $lanes]]) {
            #[cfg(target_arch = "x86_64")]
            match instruction_set() {
                // SAFETY: the machine has the features that the function is compiled for.
                InstructionSet::Avx512 => return unsafe { $avx512(codes, x, out) },
                // SAFETY: as above.
                InstructionSet::Avx2 => return unsafe { $avx2(codes, x, out) },
                InstructionSet::Portable => {}
            }
            product::<_, Plain, _>(codes, x, out);
        }
    };
}

dispatch!(dispatch_u32, product_u32_avx2, product_u32_avx512, u32, 32);
dispatch!(dispatch_u64, product_u64_avx2, product_u64_avx512, u64, 16);

/// Residues of sums: `out = sums modulo p`, where a sum is a signed number within `bound * p` of zero, as a product with rows of at most `bound`
/// nonzero weights has it.
///
/// # Panics
/// For slices of different lengths, or `bound >= 2^11`.
pub fn reduce_sums(modulus: &Modulus, bound: usize, sums: &[u64], out: &mut [u64]) {
    assert!(bound < 1 << 11, "sums of {bound} residues");
    assert_eq!(sums.len(), out.len(), "sums and residues");
    let p = modulus.value();
    // a multiple of p that makes all sums positive; they stay below 2^62
    let lift = bound as u64 * p;
    #[cfg(target_arch = "x86_64")]
    #[allow(unsafe_code)]
    if instruction_set() == InstructionSet::Avx512 {
        // SAFETY: the machine has the features that the function is compiled for.
        return unsafe { reduce_sums_avx512(p, lift, sums, out) };
    }
    reduce_sums_plain(p, lift, sums, out);
}

/// `x - floor(x/p) p` with a quotient in floating point. For `x < 2^62` and `p > 2^20` it is off by at most one, which the two minima mend.
#[inline(always)]
#[allow(unsafe_code)]
fn reduce_sums_plain(p: u64, lift: u64, sums: &[u64], out: &mut [u64]) {
    let inverse = 1.0 / p as f64;
    for (out, sum) in out.iter_mut().zip(sums) {
        let x = sum.wrapping_add(lift);
        // SAFETY: whatever x is, it is a finite number within 2^63 of zero as an i64, and p is at least 2: the quotient fits.
        let quotient = unsafe { (x as i64 as f64 * inverse).to_int_unchecked::<i64>() };
        let rest = x.wrapping_sub((quotient as u64).wrapping_mul(p));
        let rest = rest.min(rest.wrapping_add(p));
        *out = rest.min(rest.wrapping_sub(p));
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
fn reduce_sums_avx512(p: u64, lift: u64, sums: &[u64], out: &mut [u64]) {
    reduce_sums_plain(p, lift, sums, out);
}

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq)]
enum InstructionSet {
    Portable,
    Avx2,
    Avx512,
}

/// The best instruction set the machine has, or the one `TACIT_KERNEL` asks for where the machine has it.
#[cfg(target_arch = "x86_64")]
fn instruction_set() -> InstructionSet {
    static PICKED: std::sync::OnceLock<InstructionSet> = std::sync::OnceLock::new();
    *PICKED.get_or_init(|| {
        let avx512 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        let avx2 = is_x86_feature_detected!("avx2");
        let wish = std::env::var("TACIT_KERNEL").unwrap_or_default();
        match wish.as_str() {
            "portable" => InstructionSet::Portable,
            "avx2" if avx2 => InstructionSet::Avx2,
            _ if avx512 => InstructionSet::Avx512,
            _ if avx2 => InstructionSet::Avx2,
            _ => InstructionSet::Portable,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ternary(seed: u64, row: usize, col: usize) -> i8 {
        let mut z = seed ^ ((row as u64) << 32 | col as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z >> 33) % 3) as i8 - 1
    }

    fn plain<T: Word, const W: usize>(
        rows: usize,
        w: impl Fn(usize, usize) -> i8,
        x: &[[T; W]],
    ) -> Vec<[T; W]> {
        (0..rows)
            .map(|row| {
                x.iter()
                    .enumerate()
                    .fold([T::default(); W], |acc, (col, x)| match w(row, col) {
                        -1 => minus(&acc, x),
                        1 => plus(&acc, x),
                        _ => acc,
                    })
            })
            .collect()
    }

    proptest! {
        #[test]
        fn sums_are_reduced(bits in 21u32..50, bound in 0usize..2048, seed: u64) {
            let primes = crate::ntt_primes(bits, 16, 1, &[]).unwrap();
            let modulus = Modulus::new(primes[0]).unwrap();
            let (p, reach) = (primes[0] as i128, bound as i128 * primes[0] as i128);
            let sums: Vec<i128> = (0..40u64)
                .map(|i| match i {
                    0 => reach - 1,
                    1 => 1 - reach,
                    2 => p.min(reach),
                    _ => {
                        let z = (seed ^ i).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                        (z ^ (z >> 29)) as i128 % (reach + 1) * if i % 2 == 0 { 1 } else { -1 }
                    }
                })
                .collect();
            let words: Vec<u64> = sums.iter().map(|x| *x as u64).collect();
            let mut out = vec![0; sums.len()];
            reduce_sums(&modulus, bound, &words, &mut out);
            let expected: Vec<u64> = sums.iter().map(|x| x.rem_euclid(p) as u64).collect();
            if bound > 0 {
                prop_assert_eq!(&out, &expected);
            }
            let mut plain = vec![0; sums.len()];
            reduce_sums_plain(modulus.value(), bound as u64 * modulus.value(), &words, &mut plain);
            prop_assert_eq!(out, plain);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn equals_the_plain_product(rows in 0usize..70, cols in 0usize..130, seed: u64) {
            let w = |r, c| ternary(seed, r, c);
            let codes = TernaryCodes::pack(rows, cols, w).unwrap();
            for r in 0..rows {
                for c in 0..cols {
                    prop_assert_eq!(codes.weight(r, c), w(r, c));
                }
            }
            let x64: Vec<[u64; 16]> = (0..cols as u64)
                .map(|c| std::array::from_fn(|i| (seed ^ (c * 16 + i as u64)).wrapping_mul(0xd134_2543_de82_ef95)))
                .collect();
            let x32: Vec<[u32; 32]> = x64.iter().map(|x| std::array::from_fn(|i| (x[i / 2] >> (32 * (i % 2))) as u32)).collect();
            let expected64 = plain(rows, w, &x64);
            let expected32 = plain(rows, w, &x32);

            let mut out64 = vec![7u64; rows * 16];
            codes.product_u64(x64.as_flattened(), &mut out64);
            prop_assert_eq!(&out64, expected64.as_flattened());
            let mut out32 = vec![7u32; rows * 32];
            codes.product_u32(x32.as_flattened(), &mut out32);
            prop_assert_eq!(&out32, expected32.as_flattened());

            // The portable loop, whatever the machine.
            let mut portable64 = vec![[7u64; 16]; rows];
            product::<_, Plain, _>(&codes.codes, &x64, &mut portable64);
            prop_assert_eq!(&portable64, &expected64);
            let mut portable32 = vec![[7u32; 32]; rows];
            product::<_, Plain, _>(&codes.codes, &x32, &mut portable32);
            prop_assert_eq!(&portable32, &expected32);
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    #[allow(unsafe_code)]
    fn avx2_equals_portable() {
        if !is_x86_feature_detected!("avx2") {
            return;
        }
        let codes = TernaryCodes::pack(40, 100, |r, c| ternary(5, r, c)).unwrap();
        let x: Vec<[u64; 16]> = (0..100u64)
            .map(|c| [c.wrapping_mul(0xd134_2543_de82_ef95); 16])
            .collect();
        let (mut a, mut b) = (vec![[0; 16]; 40], vec![[0; 16]; 40]);
        product::<_, Plain, _>(&codes.codes, &x, &mut a);
        // SAFETY: the feature was found above.
        unsafe { product_u64_avx2(&codes.codes, &x, &mut b) };
        assert_eq!(a, b);
    }

    /// A word that counts; all the kernel can do with a word is add, subtract and copy.
    #[derive(Clone, Copy, Default, Debug, PartialEq)]
    struct Counting(i64);

    thread_local! {
        static OPERATIONS: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    impl Word for Counting {
        fn plus(self, other: Self) -> Self {
            OPERATIONS.set(OPERATIONS.get() + 1);
            Self(self.0 + other.0)
        }
        fn minus(self, other: Self) -> Self {
            OPERATIONS.set(OPERATIONS.get() + 1);
            Self(self.0 - other.0)
        }
    }

    #[test]
    fn only_the_counted_additions_happen() {
        let w = |r, c| ternary(9, r, c);
        let codes = TernaryCodes::pack(30, 77, w).unwrap();
        let x: Vec<[Counting; 4]> = (0..77).map(|c| [Counting(c * c - 100); 4]).collect();
        let mut out = vec![[Counting(0); 4]; 30];
        OPERATIONS.set(0);
        product::<_, Plain, _>(&codes.codes, &x, &mut out);
        assert_eq!(OPERATIONS.get(), 4 * codes.additions());
        assert_eq!(out, plain(30, w, &x));
    }

    #[test]
    fn refuses_what_is_not_ternary() {
        let error = TernaryCodes::pack(2, 2, |r, c| if (r, c) == (1, 0) { 2 } else { 0 }).err();
        assert_eq!(
            error,
            Some(NotTernary {
                row: 1,
                col: 0,
                found: 2
            })
        );
    }

    #[test]
    fn counts() {
        let codes = TernaryCodes::pack(10, 25, |r, _| i8::from(r == 3)).unwrap();
        assert_eq!(codes.nonzeros(), 25);
        assert_eq!(codes.densest_row(), 25);
        assert_eq!(codes.additions(), 16 * (10 + 25));
    }
}
