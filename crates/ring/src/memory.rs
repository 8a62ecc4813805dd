//! 64-byte aligned memory for residues.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
};

/// Alignment of every buffer: one cache line, one vector register.
const ALIGNMENT: usize = 64;

/// A fixed-length array of 64-bit words on a 64-byte boundary.
pub(crate) struct AlignedWords {
    start: NonNull<u64>,
    len: usize,
}

// SAFETY: the buffer is owned by this value alone and holds plain integers.
unsafe impl Send for AlignedWords {}
// SAFETY: shared access only reads plain integers.
unsafe impl Sync for AlignedWords {}

impl AlignedWords {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        if len == 0 {
            return Self {
                start: NonNull::dangling(),
                len,
            };
        }
        let layout = Self::layout(len);
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<u64>();
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        Self { start, len }
    }

    /// A copy of a slice.
    pub(crate) fn copied(source: &[u64]) -> Self {
        let mut words = Self::zeroed(source.len());
        words.copy_from_slice(source);
        words
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<u64>(len)
            .and_then(|l| l.align_to(ALIGNMENT))
            .expect("a buffer larger than the address space")
    }
}

impl Drop for AlignedWords {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: `start` came from the allocator with this very layout.
            unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) }
        }
    }
}

impl Deref for AlignedWords {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        // SAFETY: `start` is valid for `len` initialised words (or dangling with `len` 0) while `self` lives.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedWords {
    fn deref_mut(&mut self) -> &mut [u64] {
        // SAFETY: as for `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Clone for AlignedWords {
    fn clone(&self) -> Self {
        Self::copied(self)
    }
}
