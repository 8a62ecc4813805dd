//! What the vector kernels share: loops over whole registers with the rest left to the portable kernel.
//!
//! The macros use what the calling module has in scope: `load` and `store` of a register and its number of residues, `LANES`.

use crate::{Modulus, PackedLimb};

/// `a = f(a)` or `a = f(a, b)` by registers; hands the tail to `$tail`.
macro_rules! in_place {
    ($a:ident, |$x:ident| $body:expr, |$ta:ident| $tail:expr) => {{
        let (chunks, $ta) = $a.as_chunks_mut::<LANES>();
        for chunk in chunks {
            let $x = load(chunk);
            store(chunk, $body);
        }
        if !$ta.is_empty() {
            $tail
        }
    }};
    ($a:ident, $b:ident, |$x:ident, $y:ident| $body:expr, |$ta:ident, $tb:ident| $tail:expr) => {{
        let (chunks, $ta) = $a.as_chunks_mut::<LANES>();
        let (others, $tb) = $b.as_chunks::<LANES>();
        for (chunk, other) in chunks.iter_mut().zip(others) {
            let ($x, $y) = (load(chunk), load(other));
            store(chunk, $body);
        }
        if !$ta.is_empty() {
            $tail
        }
    }};
}

/// `out = f(a)` or `out = f(a, b)` by registers; hands the tail to `$tail`.
macro_rules! out_of_place {
    ($o:ident, $a:ident, |$x:ident| $body:expr, |$to:ident, $ta:ident| $tail:expr) => {{
        let (chunks, $to) = $o.as_chunks_mut::<LANES>();
        let (left, $ta) = $a.as_chunks::<LANES>();
        for (chunk, a) in chunks.iter_mut().zip(left) {
            let $x = load(a);
            store(chunk, $body);
        }
        if !$to.is_empty() {
            $tail
        }
    }};
    ($o:ident, $a:ident, $b:ident, |$x:ident, $y:ident| $body:expr, |$to:ident, $ta:ident, $tb:ident| $tail:expr) => {{
        let (chunks, $to) = $o.as_chunks_mut::<LANES>();
        let (left, $ta) = $a.as_chunks::<LANES>();
        let (right, $tb) = $b.as_chunks::<LANES>();
        for ((chunk, a), b) in chunks.iter_mut().zip(left).zip(right) {
            let ($x, $y) = (load(a), load(b));
            store(chunk, $body);
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
