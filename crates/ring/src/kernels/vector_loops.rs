//! What the vector kernels share: loops over whole registers with the rest left to the portable kernel.
//!
//! The macros use what the calling module has in scope: `load` and `store` of a register, its number of residues, `LANES`, and [`STEP_REGISTERS`].

use crate::{Modulus, PackedLimb};

/// Registers of a loop's step. With one, which the compiler makes two, sums of operands that come from memory take 1.3 ms where they take 0.8
/// with four (48 limbs at `N = 2^16`).
pub(super) const STEP_REGISTERS: usize = 4;

/// `a = f(a)`, `a = f(a, b)` or `a = f(a, b, c)` by steps of registers; hands the tail to `$tail`.
macro_rules! in_place {
    ($a:ident, |$x:ident| $body:expr, |$ta:ident| $tail:expr) => {{
        let (steps, $ta) = $a.as_chunks_mut::<{ STEP_REGISTERS * LANES }>();
        for step in steps {
            for chunk in step.as_chunks_mut::<LANES>().0 {
                let $x = load(chunk);
                store(chunk, $body);
            }
        }
        if !$ta.is_empty() {
            $tail
        }
    }};
    ($a:ident, $b:ident, |$x:ident, $y:ident| $body:expr, |$ta:ident, $tb:ident| $tail:expr) => {{
        let (steps, $ta) = $a.as_chunks_mut::<{ STEP_REGISTERS * LANES }>();
        let (others, $tb) = $b.as_chunks::<{ STEP_REGISTERS * LANES }>();
        for (step, other) in steps.iter_mut().zip(others) {
            let other = other.as_chunks::<LANES>().0;
            for (chunk, other) in step.as_chunks_mut::<LANES>().0.iter_mut().zip(other) {
                let ($x, $y) = (load(chunk), load(other));
                store(chunk, $body);
            }
        }
        if !$ta.is_empty() {
            $tail
        }
    }};
    ($a:ident, $b:ident, $c:ident, |$x:ident, $y:ident, $z:ident| $body:expr, |$ta:ident, $tb:ident, $tc:ident| $tail:expr) => {{
        let (steps, $ta) = $a.as_chunks_mut::<{ STEP_REGISTERS * LANES }>();
        let (left, $tb) = $b.as_chunks::<{ STEP_REGISTERS * LANES }>();
        let (right, $tc) = $c.as_chunks::<{ STEP_REGISTERS * LANES }>();
        for ((step, b), c) in steps.iter_mut().zip(left).zip(right) {
            let (b, c) = (b.as_chunks::<LANES>().0, c.as_chunks::<LANES>().0);
            for ((chunk, b), c) in step.as_chunks_mut::<LANES>().0.iter_mut().zip(b).zip(c) {
                let ($x, $y, $z) = (load(chunk), load(b), load(c));
                store(chunk, $body);
            }
        }
        if !$ta.is_empty() {
            $tail
        }
    }};
}

/// `out = f(a)` or `out = f(a, b)` by steps of registers; hands the tail to `$tail`.
macro_rules! out_of_place {
    ($o:ident, $a:ident, |$x:ident| $body:expr, |$to:ident, $ta:ident| $tail:expr) => {{
        let (steps, $to) = $o.as_chunks_mut::<{ STEP_REGISTERS * LANES }>();
        let (left, $ta) = $a.as_chunks::<{ STEP_REGISTERS * LANES }>();
        for (step, a) in steps.iter_mut().zip(left) {
            let a = a.as_chunks::<LANES>().0;
            for (chunk, a) in step.as_chunks_mut::<LANES>().0.iter_mut().zip(a) {
                let $x = load(a);
                store(chunk, $body);
            }
        }
        if !$to.is_empty() {
            $tail
        }
    }};
    ($o:ident, $a:ident, $b:ident, |$x:ident, $y:ident| $body:expr, |$to:ident, $ta:ident, $tb:ident| $tail:expr) => {{
        let (steps, $to) = $o.as_chunks_mut::<{ STEP_REGISTERS * LANES }>();
        let (left, $ta) = $a.as_chunks::<{ STEP_REGISTERS * LANES }>();
        let (right, $tb) = $b.as_chunks::<{ STEP_REGISTERS * LANES }>();
        for ((step, a), b) in steps.iter_mut().zip(left).zip(right) {
            let (a, b) = (a.as_chunks::<LANES>().0, b.as_chunks::<LANES>().0);
            for ((chunk, a), b) in step.as_chunks_mut::<LANES>().0.iter_mut().zip(a).zip(b) {
                let ($x, $y) = (load(a), load(b));
                store(chunk, $body);
            }
        }
        if !$to.is_empty() {
            $tail
        }
    }};
}

/// Trait methods that call the function of the same name in a module.
macro_rules! forward {
    ($($module:ident :: $name:ident ( $($arg:ident : $type:ty),* );)*) => {$(
        fn $name(&self, $($arg: $type),*) {
            // SAFETY: `detect` hands out the only value, after it has found all features that the functions enable.
            unsafe { $module::$name($($arg),*) }
        }
    )*};
}

/// All rows have `len` residues: what unchecked reads rely on.
pub(super) fn check<'a>(len: usize, mut rows: impl Iterator<Item = &'a [u64]>) {
    assert!(
        rows.all(|row| row.len() == len),
        "rows of residues differ in length: expected {len}"
    );
}

/// All rows have `len` residues as wide as the modulus: what unchecked reads rely on.
pub(super) fn check_packed<'a>(
    len: usize,
    m: &Modulus,
    mut rows: impl Iterator<Item = &'a PackedLimb<'a>>,
) {
    assert!(
        rows.all(|row| row.len() == len && row.bits() == m.bits()),
        "packed rows of other lengths or widths than {len} residues of {} bits",
        m.bits()
    );
}

/// The rows without their first `from` elements.
pub(super) fn tails<'a>(rows: &[&'a [u64]], from: usize) -> Vec<&'a [u64]> {
    rows.iter().map(|row| &row[from..]).collect()
}
