//! The provided buffers of one shard: a pool that the kernel fills, and the ring by which it gets them.
//!
//! One allocation holds the ring's entries, a second one the buffers. Both live until after the ring that uses
//! them is gone ([`super::ring`] sees to that). A buffer is either the kernel's (in the ring) or ours (named by a
//! completion, until [`Buffers::give_back`]); `is_ours` keeps the two apart, so that neither a doubled nor an
//! invented completion can lend the same bytes twice. The unsafe code is what hands out the bytes and moves the tail.

#![allow(
    unsafe_code,
    reason = "the kernel writes into these buffers and reads their ring"
)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;

/// The one group of a shard's ring.
pub const GROUP: u16 = 0;

/// The largest page of any machine: the ring must begin on one.
const PAGE: usize = 64 * 1024;

/// The pool.
pub struct Buffers {
    entries: NonNull<BufRingEntry>,
    entries_layout: Layout,
    bytes: NonNull<u8>,
    bytes_layout: Layout,
    count: u16,
    size: usize,
    /// Where the next buffer goes; the kernel sees it when it is stored in the ring.
    tail: u16,
    is_ours: Vec<bool>,
}

impl Buffers {
    /// `count` buffers (a power of two) of `size` bytes, all ours still.
    pub fn new(count: u16, size: usize) -> Buffers {
        assert!(
            count.is_power_of_two() && size > 0,
            "a buffer ring has a power of two of entries"
        );
        let entries_size = usize::from(count) * size_of::<BufRingEntry>();
        let entries_layout =
            Layout::from_size_align(entries_size, PAGE).expect("a small constant size");
        let bytes_layout = Layout::from_size_align(usize::from(count) * size, PAGE)
            .expect("a small constant size");
        // SAFETY: both layouts have a size above zero.
        let (entries, bytes) =
            unsafe { (alloc_zeroed(entries_layout), alloc_zeroed(bytes_layout)) };
        let Some(entries) = NonNull::new(entries.cast()) else {
            handle_alloc_error(entries_layout)
        };
        let Some(bytes) = NonNull::new(bytes) else {
            handle_alloc_error(bytes_layout)
        };
        // Touched now, so that what a busy broker has resident does not grow for it later. (Not with zeros: the
        // allocator gave zeros, and a compiler may know.)
        // SAFETY: the allocation is as long as its layout says, and nobody else knows of it.
        unsafe { bytes.write_bytes(1, bytes_layout.size()) };
        Buffers {
            entries,
            entries_layout,
            bytes,
            bytes_layout,
            count,
            size,
            tail: 0,
            is_ours: vec![true; usize::from(count)],
        }
    }

    /// Tells a ring of the pool, and gives it all buffers.
    ///
    /// # Errors
    /// If the kernel has no buffer rings, or may not lock so much memory.
    pub fn register(&mut self, submitter: &Submitter<'_>) -> io::Result<()> {
        // SAFETY: the entries are page-aligned, of the size of `count` entries, and outlive the ring: the owner of
        // both closes the ring before it drops this, or leaks it.
        unsafe {
            submitter.register_buf_ring_with_flags(
                self.entries.as_ptr() as u64,
                self.count,
                GROUP,
                0,
            )?
        };
        for id in 0..self.count {
            self.give_back(id);
        }
        Ok(())
    }

    /// The kernel says that it filled this buffer: it is ours now. False if it was ours before, or is none.
    pub fn take(&mut self, id: u16) -> bool {
        match self.is_ours.get_mut(usize::from(id)) {
            Some(is_ours) if !*is_ours => {
                *is_ours = true;
                true
            }
            _ => false,
        }
    }

    /// The first bytes of a buffer that is ours.
    ///
    /// # Panics
    /// If it is not.
    pub fn bytes(&mut self, id: u16, size: usize) -> &mut [u8] {
        assert!(
            self.is_ours[usize::from(id)] && size <= self.size,
            "buffer {id} is the kernel's"
        );
        // SAFETY: `id` is below `count` and `size` at most the size of a buffer, so the range is inside the
        // allocation; the buffer is ours, so the kernel does not write to it, and `&mut self` keeps others away.
        unsafe {
            std::slice::from_raw_parts_mut(
                self.bytes.as_ptr().add(usize::from(id) * self.size),
                size,
            )
        }
    }

    /// The buffer is the kernel's again.
    pub fn give_back(&mut self, id: u16) {
        let is_ours = &mut self.is_ours[usize::from(id)];
        debug_assert!(*is_ours, "buffer {id} is given back twice");
        if !std::mem::replace(is_ours, false) {
            return;
        }
        let index = usize::from(self.tail & (self.count - 1));
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the index is below `count`, so the entry is inside the allocation. The kernel reads entries only
        // below the tail that is stored last, with Release; nobody else writes here. The address of the buffer is
        // inside the second allocation. The tail field lies in the first entry, in a part that is no buffer's.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(index);
            entry.set_addr(self.bytes.as_ptr().add(usize::from(id) * self.size) as u64);
            entry.set_len(self.size as u32);
            entry.set_bid(id);
            let tail = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*tail).store(self.tail, Ordering::Release);
        }
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with these layouts; the ring that was told of them is closed.
        unsafe {
            dealloc(self.entries.as_ptr().cast(), self.entries_layout);
            dealloc(self.bytes.as_ptr(), self.bytes_layout);
        }
    }
}
