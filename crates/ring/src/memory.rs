//! Memory for residues: 64-byte aligned, on huge pages where there is enough of it, and reused.
//!
//! A polynomial at `N = 2^16` takes many megabytes and lives for one operation. Fresh memory from the operating system costs
//! page faults and zeroing each time, and with 4-KiB pages the tables of many primes overflow the address cache. So buffers
//! from [`LARGE`] on are mapped at 2-MiB boundaries with huge pages asked for (Linux), and freed ones, up to
//! some gigabytes, are kept for the next owner. Transform tables, smaller than that each, share such a mapping ([`AlignedWords::table`]).

use std::{
    alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error},
    ops::{Deref, DerefMut},
    ptr::NonNull,
    sync::{Arc, Mutex, PoisonError},
};

use rayon::prelude::*;

/// Alignment of every buffer: one cache line, one vector register.
const ALIGNMENT: usize = 64;

/// Size of a huge page, and of the smallest buffer that is cut from mappings; these are multiples of it.
const LARGE: usize = 2 << 20;

/// Sizes of buffers cut from mappings are multiples of this: one limb at `N = 2^16`.
const GRAIN: usize = 512 << 10;

/// Words from which on several threads copy: one thread does not get all of the memory's bandwidth.
const SHARED: usize = 1 << 18;

/// Bytes that tables share.
const ARENA: usize = 8 << 20;

/// Asks the C library's allocator to keep freed blocks below 1 GiB (32 MiB in older versions) for their next owner, instead of giving large ones back to the
/// operating system: for programs that make and drop many large tensors, which else pay for fresh pages each time. The process stays as large
/// as it has been. Does nothing but on Linux with glibc.
pub fn keep_freed_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers and may be called at any time; an option that it does not take changes nothing.
    unsafe {
        // Older versions take 32 MiB at most, and answer 0 for more.
        if libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30) == 0 {
            libc::mallopt(libc::M_MMAP_THRESHOLD, 32 << 20);
        }
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}

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
                mapping::take(layout.size().next_multiple_of(GRAIN))
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
///
/// ```text
/// take:       a recent one of this very size, likeliest to be in a cache; else the front of the smallest range that fits; else of a new mapping
/// give back:  to the recent ones; the oldest of these, beyond RECENT bytes, to the ranges, where neighbours are joined;
///             beyond what is kept, the smallest ranges to the system
/// ```
///
/// Joined ranges serve any size: levels go up and down, and with them the sizes of ciphertexts. A range may span several mappings: to the system
/// they are one run of pages, and the compiler knows addresses only, none of an allocation of its own.
mod mapping {
    use std::collections::BTreeMap;

    use super::*;

    /// Bytes of freed buffers that keep their size.
    const RECENT: usize = 256 << 20;

    /// Bytes of freed memory that are kept in ranges besides.
    const KEPT: usize = 2 << 30;

    /// Bytes of a new mapping; larger buffers make larger ones.
    const REGION: usize = 64 << 20;

    /// Freed memory.
    struct Free {
        /// Buffers by size and address, the one freed last at the end, and their bytes in all.
        recent: Vec<(usize, usize)>,
        recent_bytes: usize,
        /// Ranges by address, no two adjacent, and their bytes in all.
        ranges: BTreeMap<usize, usize>,
        range_bytes: usize,
    }

    static FREE: Mutex<Free> = Mutex::new(Free {
        recent: Vec::new(),
        recent_bytes: 0,
        ranges: BTreeMap::new(),
        range_bytes: 0,
    });

    impl Free {
        /// A free buffer of `bytes` bytes.
        fn take(&mut self, bytes: usize) -> Option<usize> {
            let same = self.recent.iter().rposition(|(size, _)| *size == bytes);
            if let Some(at) = same {
                self.recent_bytes -= bytes;
                return Some(self.recent.remove(at).1);
            }
            if let Some(start) = self.take_front(bytes) {
                return Some(start);
            }
            let larger = (0..self.recent.len())
                .filter(|&at| self.recent[at].0 > bytes)
                .min_by_key(|&at| self.recent[at].0)?;
            let (size, start) = self.recent.remove(larger);
            self.recent_bytes -= size;
            self.join(start, size);
            self.take_front(bytes)
        }

        /// The front of the smallest range that has `bytes` bytes.
        fn take_front(&mut self, bytes: usize) -> Option<usize> {
            let fits = self.ranges.iter().filter(|(_, size)| **size >= bytes);
            let (&start, &size) = fits.min_by_key(|(start, size)| (**size, **start))?;
            self.ranges.remove(&start);
            if size > bytes {
                self.ranges.insert(start + bytes, size - bytes);
            }
            self.range_bytes -= bytes;
            Some(start)
        }

        /// Adds a range and joins it with its neighbours.
        fn join(&mut self, start: usize, size: usize) {
            self.range_bytes += size;
            let (mut start, mut size) = (start, size);
            if let Some(after) = self.ranges.remove(&(start + size)) {
                size += after;
            }
            if let Some((&before, &its)) = self.ranges.range(..start).next_back()
                && before + its == start
            {
                (start, size) = (before, its + size);
            }
            self.ranges.insert(start, size);
        }

        /// What is beyond `kept` bytes, to be unmapped: whole huge pages, of the smallest ranges first, since large ones serve any size.
        fn excess(&mut self, kept: usize) -> Vec<(usize, usize)> {
            let mut excess = Vec::new();
            while self.range_bytes > kept {
                let pages = |start: usize, size: usize| {
                    let first = start.next_multiple_of(LARGE);
                    (
                        first,
                        ((start + size) / LARGE * LARGE).saturating_sub(first),
                    )
                };
                let with_pages = self
                    .ranges
                    .iter()
                    .filter(|(start, size)| pages(**start, **size).1 > 0);
                let Some((&start, &size)) = with_pages.min_by_key(|(_, size)| **size) else {
                    break;
                };
                let (first, whole) = pages(start, size);
                let goes = (self.range_bytes - kept).next_multiple_of(LARGE).min(whole);
                let (from, to) = (first + whole - goes, first + whole);
                self.ranges.remove(&start);
                for (start, end) in [(start, from), (to, start + size)] {
                    if end > start {
                        self.ranges.insert(start, end - start);
                    }
                }
                self.range_bytes -= goes;
                excess.push((from, goes));
            }
            excess
        }
    }

    /// A buffer of `bytes` initialised bytes (a multiple of [`GRAIN`]), its size, and whether it is all zero. `None` if this system has no
    /// such mappings or no memory.
    pub(super) fn take(bytes: usize) -> Option<(NonNull<u64>, usize, bool)> {
        let free = FREE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(bytes);
        if let Some(start) = free {
            let start = NonNull::new(std::ptr::with_exposed_provenance_mut(start))?;
            return Some((start, bytes, false));
        }
        let mapped = bytes.next_multiple_of(LARGE).max(REGION);
        let start = map(mapped)?;
        if mapped > bytes {
            let rest = start.as_ptr().expose_provenance() + bytes;
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.join(rest, mapped - bytes);
        }
        Some((start, bytes, true))
    }

    /// Keeps a buffer for later.
    ///
    /// # Safety
    /// `start` and `bytes` came from `take`, and nobody uses the buffer any more.
    pub(super) unsafe fn give_back(start: NonNull<u64>, bytes: usize) {
        let excess = {
            let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
            free.recent
                .push((bytes, start.as_ptr().expose_provenance()));
            free.recent_bytes += bytes;
            while free.recent_bytes > RECENT {
                let (size, start) = free.recent.remove(0);
                free.recent_bytes -= size;
                free.join(start, size);
            }
            free.excess(KEPT)
        };
        for (start, bytes) in excess {
            // SAFETY: the range was free, made of whole buffers that `map` made.
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

    /// Returns pages to the system.
    ///
    /// # Safety
    /// The range consists of whole pages of mappings that [`map`] made, and nobody uses them any more.
    #[cfg(target_os = "linux")]
    unsafe fn unmap(start: usize, bytes: usize) {
        // SAFETY: promised by the caller. A failure leaves the mapping in place, which is harmless.
        unsafe {
            libc::munmap(std::ptr::with_exposed_provenance_mut(start), bytes);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn map(_bytes: usize) -> Option<NonNull<u64>> {
        None
    }

    #[cfg(not(target_os = "linux"))]
    unsafe fn unmap(_start: usize, _bytes: usize) {}

    #[cfg(test)]
    mod tests {
        use super::*;

        /// Ranges of made-up addresses: what is free is never handed out twice, neighbours are joined, and what is beyond the limit leaves.
        #[test]
        fn ranges_are_joined_split_and_released() {
            let mut free = Free {
                recent: vec![],
                recent_bytes: 0,
                ranges: BTreeMap::new(),
                range_bytes: 0,
            };
            for block in [0, 2, 1, 5] {
                free.join(block * LARGE, LARGE);
            }
            assert_eq!(
                free.ranges.clone().into_iter().collect::<Vec<_>>(),
                [(0, 3 * LARGE), (5 * LARGE, LARGE)]
            );
            // the smallest that fits, from its front
            assert_eq!(free.take(2 * LARGE), Some(0));
            assert_eq!(free.take(LARGE), Some(2 * LARGE));
            assert_eq!(free.take(2 * LARGE), None);
            assert_eq!(free.take(LARGE), Some(5 * LARGE));
            assert_eq!((free.range_bytes, free.take(LARGE)), (0, None));
            // a recent one of the same size first, a larger one cut up if there is nothing else
            free.recent = vec![
                (LARGE, 20 * LARGE),
                (4 * LARGE, 30 * LARGE),
                (LARGE, 9 * LARGE),
            ];
            free.recent_bytes = 6 * LARGE;
            assert_eq!(free.take(LARGE), Some(9 * LARGE));
            assert_eq!(free.take(2 * LARGE), Some(30 * LARGE));
            assert_eq!((free.recent_bytes, free.range_bytes), (LARGE, 2 * LARGE));
            free.join(50 * LARGE, 10 * LARGE);
            // the two huge pages left of the larger recent one, then the end of the rest
            assert_eq!(
                free.excess(4 * LARGE),
                [(32 * LARGE, 2 * LARGE), (54 * LARGE, 6 * LARGE)]
            );
            assert_eq!(free.range_bytes, 4 * LARGE);
            assert_eq!(free.excess(4 * LARGE), []);
            assert_eq!(free.excess(0).len(), 1);
            // only whole huge pages leave
            free.join(70 * LARGE + GRAIN, 2 * LARGE);
            assert_eq!(free.excess(0), [(71 * LARGE, LARGE)]);
            assert_eq!(
                free.ranges.clone().into_iter().collect::<Vec<_>>(),
                [(70 * LARGE + GRAIN, LARGE - GRAIN), (72 * LARGE, GRAIN)]
            );
        }
    }
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
