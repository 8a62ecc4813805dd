//! The words the mix adds: 64-bit sums of centred residues, or residues rounded to 2^32 with wrapping 32-bit sums.

use tacit_ring::{Modulus, ternary::TernaryCodes};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u32 {}
    impl Sealed for u64 {}
}

/// A word of the mix: [`u64`] (exact, 18 bits or more left after a layer) or [`u32`] (half the time, 12 to 15 bits).
pub trait MixWord: sealed::Sealed + Copy + Default + Send + Sync + 'static {
    /// Words in one slice of the kernel.
    const LANES: usize;
    /// Bits of a word.
    const BITS: u32;
    /// A residue as a word: centred (`u64`), or `round(centred * 2^32/q)` modulo 2^32 (`u32`).
    fn enter(residue: u64, q: &Modulus) -> Self;
    /// Back to a canonical residue: reduced (`u64`), or `round(centred * q/2^32)` (`u32`).
    fn leave(self, q: &Modulus) -> u64;
    /// The same value, small enough to be added to others again.
    fn settle(self, q: &Modulus) -> Self;
    /// Wrapping sum.
    fn plus(self, other: Self) -> Self;
    /// Wrapping negative.
    fn negative(self) -> Self;
    /// How many entered words a sum can hold without losing its value; `None` if sums may wrap.
    fn sum_limit(q: &Modulus) -> Option<usize>;
    /// The kernel.
    fn product(codes: &TernaryCodes, x: &[Self], out: &mut [Self]);
}

/// Nearest integer (ties to even) for `|x| < 2^51`.
#[inline(always)]
fn nearest(x: f64) -> i64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52
    ((x + SHIFT).to_bits() as i64).wrapping_sub(SHIFT.to_bits() as i64)
}

const TWO_32: f64 = 4_294_967_296.0;

impl MixWord for u32 {
    const LANES: usize = 32;
    const BITS: u32 = 32;

    #[inline(always)]
    fn enter(residue: u64, q: &Modulus) -> Self {
        nearest(q.centre(residue) as f64 * (TWO_32 / q.value() as f64)) as u32
    }

    #[inline(always)]
    fn leave(self, q: &Modulus) -> u64 {
        let x = nearest(f64::from(self as i32) * (q.value() as f64 / TWO_32));
        let x = x + ((x >> 63) & q.value() as i64);

        x as u64
    }

    #[inline(always)]
    fn settle(self, _: &Modulus) -> Self {
        self
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn negative(self) -> Self {
        self.wrapping_neg()
    }

    fn sum_limit(_: &Modulus) -> Option<usize> {
        None
    }

    fn product(codes: &TernaryCodes, x: &[Self], out: &mut [Self]) {
        codes.product_u32(x, out);
    }
}

impl MixWord for u64 {
    const LANES: usize = 16;
    const BITS: u32 = 64;

    #[inline(always)]
    fn enter(residue: u64, q: &Modulus) -> Self {
        q.centre(residue) as u64
    }

    #[inline(always)]
    fn leave(self, q: &Modulus) -> u64 {
        q.from_i64(self as i64)
    }

    #[inline(always)]
    fn settle(self, q: &Modulus) -> Self {
        Self::enter(self.leave(q), q)
    }

    #[inline(always)]
    fn plus(self, other: Self) -> Self {
        self.wrapping_add(other)
    }

    #[inline(always)]
    fn negative(self) -> Self {
        self.wrapping_neg()
    }

    fn sum_limit(q: &Modulus) -> Option<usize> {
        Some((i64::MAX as u64 / (q.value() / 2 + 1)) as usize)
    }

    fn product(codes: &TernaryCodes, x: &[Self], out: &mut [Self]) {
        codes.product_u64(x, out);
    }
}
