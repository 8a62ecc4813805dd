//! Memory for residues: 64-byte aligned, on huge pages where there is enough of it, and reused.
//!
//! A polynomial at `N = 2^16` takes many megabytes and lives for one operation. Fresh memory from the operating system costs
//! page faults and zeroing each time, and with 4-KiB pages the tables of many primes overflow the address cache. So buffers
//! from [`LARGE`] on are mapped at 2-MiB boundaries with huge pages asked for (Linux), and up to [`KEPT`] bytes of freed ones
//! are kept for the next owner. Transform tables, smaller than that each, share such a mapping ([`AlignedWords::table`]).

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;

/// Alignment of every buffer: one cache line, one vector register.
const ALIGNMENT: usize = 64;

/// Size of a huge page, and of the smallest buffer that gets its own mapping; mappings are multiples of it.
const LARGE: usize = 2 << 20;

/// Bytes of freed large buffers that are kept.
const KEPT: usize = 1536 << 20;

/// Words from which on several threads copy: one thread does not get all of the memory's bandwidth.
const SHARED: usize = 1 << 18;

/// Bytes that tables share.
const ARENA: usize = 8 << 20;

/// A fixed-length array of 64-bit words on a 64-byte boundary.
pub(crate) struct AlignedWords {
    start: NonNull<u64>,
    len: usize,
    owner: Owner,
}

/// Where the words come from.
enum Owner {
    /// The global allocator, or nowhere if there are no words.
    Heap,
    /// A mapping of this many bytes.
    Mapping(usize),
    /// A part of an arena, used by this value alone.
    Arena(#[allow(dead_code)] Arc<Arena>),
}

/// Memory of several tables; parts are handed out once and freed together.
struct Arena(AlignedWords);

// SAFETY: the words are owned by this value alone (an arena hands out disjoint parts) and are plain integers.
unsafe impl Send for AlignedWords {}
// SAFETY: shared access only reads plain integers.
unsafe impl Sync for AlignedWords {}

impl AlignedWords {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> Self {
        let (mut words, fresh) = Self::allocate(len);
        if !fresh {
            words.fill(0);
        }
        words
    }

    /// `len` words of no particular value: zeros, or what a freed buffer held.
    pub(crate) fn unspecified(len: usize) -> Self {
        Self::allocate(len).0
    }

    /// A copy of a slice, made by all threads if it is long.
    pub(crate) fn copied(source: &[u64]) -> Self {
        let mut words = Self::unspecified(source.len());
        if source.len() < SHARED {
            words.copy_from_slice(source);
        } else {
            words
                .par_chunks_mut(SHARED / 4)
                .zip(source.par_chunks(SHARED / 4))
                .for_each(|(to, from)| to.copy_from_slice(from));
        }
        words
    }

    /// A copy of a slice in memory that it shares with other tables, for tables that live long.
    pub(crate) fn table(source: &[u64]) -> Self {
        /// The arena in use and how many of its words are taken.
        static CURRENT: Mutex<Option<(Arc<Arena>, usize)>> = Mutex::new(None);
        let bytes = size_of_val(source);
        if !(64 << 10..=ARENA / 4).contains(&bytes) {
            return Self::copied(source);
        }
        let len = source.len().next_multiple_of(ALIGNMENT / size_of::<u64>());
        let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
        let (arena, taken) = match current.take() {
            Some((arena, taken)) if taken + len <= arena.0.len => (arena, taken),
            _ => (
                Arc::new(Arena(Self::unspecified(ARENA / size_of::<u64>()))),
                0,
            ),
        };
        *current = Some((arena.clone(), taken + len));
        drop(current);
        // SAFETY: words taken .. taken + len lie in the arena, and `taken` only grows, so no other part overlaps them.
        let start = unsafe { arena.0.start.add(taken) };
        let mut words = Self {
            start,
            len: source.len(),
            owner: Owner::Arena(arena),
        };
        words.copy_from_slice(source);
        words
    }

    /// `len` initialised words, and whether they are known to be zero.
    fn allocate(len: usize) -> (Self, bool) {
        if len == 0 {
            return (
                Self {
                    start: NonNull::dangling(),
                    len,
                    owner: Owner::Heap,
                },
                true,
            );
        }
        let layout = Self::layout(len);
        if layout.size() >= LARGE
            && let Some((start, bytes, fresh)) =
                mapping::take(layout.size().next_multiple_of(LARGE))
        {
            return (
                Self {
                    start,
                    len,
                    owner: Owner::Mapping(bytes),
                },
                fresh,
            );
        }
        // SAFETY: the layout has a size above zero.
        let start = unsafe { alloc_zeroed(layout) }.cast::<u64>();
        let Some(start) = NonNull::new(start) else {
            handle_alloc_error(layout)
        };
        (
            Self {
                start,
                len,
                owner: Owner::Heap,
            },
            true,
        )
    }

    fn layout(len: usize) -> Layout {
        Layout::array::<u64>(len)
            .and_then(|l| l.align_to(ALIGNMENT))
            .expect("a buffer larger than the address space")
    }
}

impl Drop for AlignedWords {
    fn drop(&mut self) {
        match self.owner {
            Owner::Heap if self.len == 0 => {}
            // SAFETY: `start` came from the allocator with this very layout.
            Owner::Heap => unsafe { dealloc(self.start.as_ptr().cast(), Self::layout(self.len)) },
            // SAFETY: `start` and the size came from `mapping::take`, and nobody else uses them.
            Owner::Mapping(bytes) => unsafe { mapping::give_back(self.start, bytes) },
            Owner::Arena(_) => {}
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

/// Large buffers straight from the operating system, and those that are kept.
mod mapping {
    use super::*;

    /// Freed buffers, the one freed last at the end, and their bytes in all.
    struct Free {
        buffers: Vec<(usize, Address)>,
        bytes: usize,
    }

    struct Address(NonNull<u64>);

    // SAFETY: the address of memory that the list owns.
    unsafe impl Send for Address {}

    static FREE: Mutex<Free> = Mutex::new(Free {
        buffers: Vec::new(),
        bytes: 0,
    });

    /// A buffer of at least `bytes` initialised bytes, its size, and whether it is all zero. `None` if this system has no
    /// such mappings or no memory.
    pub(super) fn take(bytes: usize) -> Option<(NonNull<u64>, usize, bool)> {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest kept buffer that fits, up to twice too large: levels go down, so larger ones are what is free.
        // Of equal ones the last freed, likeliest to be in a cache.
        let fits = bytes..=2 * bytes;
        let best = free
            .buffers
            .iter()
            .enumerate()
            .filter(|(_, (size, _))| fits.contains(size))
            .min_by_key(|&(at, &(size, _))| (size, std::cmp::Reverse(at)));
        if let Some(at) = best.map(|(at, _)| at) {
            let (size, Address(start)) = free.buffers.remove(at);
            free.bytes -= size;
            return Some((start, size, false));
        }
        drop(free);
        map(bytes).map(|start| (start, bytes, true))
    }

    /// Keeps a buffer for later, in the place of those that have been free for longest.
    ///
    /// # Safety
    /// `start` and `bytes` came from `take`, and nobody uses the buffer any more.
    pub(super) unsafe fn give_back(start: NonNull<u64>, bytes: usize) {
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        free.bytes += bytes;
        free.buffers.push((bytes, Address(start)));
        let mut excess = Vec::new();
        while free.bytes > KEPT {
            let (bytes, address) = free.buffers.remove(0);
            free.bytes -= bytes;
            excess.push((bytes, address));
        }
        drop(free);
        for (bytes, Address(start)) in excess {
            // SAFETY: the list owned the buffer, which `map` made.
            unsafe { unmap(start, bytes) }
        }
    }

    /// Maps zeroed memory at a 2-MiB boundary and asks for huge pages.
    #[cfg(target_os = "linux")]
    fn map(bytes: usize) -> Option<NonNull<u64>> {
        let total = bytes.checked_add(LARGE)?;
        // SAFETY: an anonymous mapping at an address of the system's choice touches no existing memory.
        let raw = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                total,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if raw == libc::MAP_FAILED {
            return None;
        }
        let head = (raw as usize).next_multiple_of(LARGE) - raw as usize;
        // SAFETY: head + bytes + tail = total, the parts of the mapping just made; only head and tail go back. Advice
        // changes no contents.
        unsafe {
            let start = raw.byte_add(head);
            if head > 0 {
                libc::munmap(raw, head);
            }
            if head < LARGE {
                libc::munmap(start.byte_add(bytes), LARGE - head);
            }
            libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
            NonNull::new(start.cast())
        }
    }

    /// Returns a mapping to the system.
    ///
    /// # Safety
    /// `start` and `bytes` are those of one `map`, and nobody uses the memory any more.
    #[cfg(target_os = "linux")]
    unsafe fn unmap(start: NonNull<u64>, bytes: usize) {
        // SAFETY: promised by the caller. A failure leaves the mapping in place, which is harmless.
        unsafe {
            libc::munmap(start.as_ptr().cast(), bytes);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn map(_bytes: usize) -> Option<NonNull<u64>> {
        None
    }

    #[cfg(not(target_os = "linux"))]
    unsafe fn unmap(_start: NonNull<u64>, _bytes: usize) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_of_all_kinds_are_zero_aligned_and_separate() {
        for len in [
            0,
            1,
            7,
            8,
            1000,
            LARGE / 8 - 1,
            LARGE / 8,
            LARGE / 8 + 1,
            LARGE,
        ] {
            for _ in 0..3 {
                let mut a = AlignedWords::zeroed(len);
                assert!(a.iter().all(|&x| x == 0));
                assert_eq!(
                    a.as_ptr() as usize % ALIGNMENT,
                    if len == 0 {
                        a.as_ptr() as usize % ALIGNMENT
                    } else {
                        0
                    }
                );
                a.fill(u64::MAX);
                let b = a.clone();
                a.fill(1);
                assert!(b.iter().all(|&x| x == u64::MAX));
            }
        }
    }

    #[test]
    fn tables_do_not_overlap() {
        let sources: Vec<Vec<u64>> = (0..40)
            .map(|i| vec![i; 16_384 + 1000 * i as usize])
            .collect();
        let tables: Vec<AlignedWords> = sources.iter().map(|s| AlignedWords::table(s)).collect();
        for (table, source) in tables.iter().zip(&sources) {
            assert!(table[..] == source[..]);
            assert_eq!(table.as_ptr() as usize % ALIGNMENT, 0);
        }
    }
}
