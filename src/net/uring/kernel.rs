//! What the driver asks of a ring, and what the ring answers: the seam below which everything is `unsafe`.
//!
//! There are two kernels: the real one ([`super::ring`]) and, in the tests, one that delivers stale, late,
//! reordered and failed completions on purpose. The driver above is safe code: whatever a kernel says, the worst that can
//! happen is that a connection ends.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::address::ShardId;
use crate::shard::outbox::Chunks;

/// Which operation of which connection a completion belongs to: 64 bits of user data.
///
/// A slot is used by one connection after the other; the generation tells them apart, so that a late completion of an
/// earlier one is recognised and dropped.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Tag {
    /// What was asked.
    pub kind: Kind,
    /// The direct descriptor, or a listener's index, or a shard's.
    pub slot: u32,
    /// Of the slot; below [`GENERATIONS`].
    pub generation: u32,
}

/// Generations before they begin again.
pub const GENERATIONS: u32 = 1 << 24;

/// What was asked.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    Accept,
    Receive,
    Send,
    Cancel,
    /// Of writing.
    Shutdown,
    /// Of both directions.
    Abort,
    Close,
    SendFd,
    InstallFd,
    /// The same, for the host: once in the life of a connection, whatever became of the other.
    ReleaseFd,
    /// Of an ordinary descriptor into the table.
    AdoptFd,
    Linger,
    /// The descriptor by which any thread wakes this one is readable.
    Waker,
    /// A message that wakes another shard: fails, or says nothing.
    Wake,
    /// Another shard's message that wakes this one.
    Woken,
}

impl Kind {
    const ALL: [Kind; 15] = [
        Kind::Accept,
        Kind::Receive,
        Kind::Send,
        Kind::Cancel,
        Kind::Shutdown,
        Kind::Abort,
        Kind::Close,
        Kind::SendFd,
        Kind::InstallFd,
        Kind::ReleaseFd,
        Kind::AdoptFd,
        Kind::Linger,
        Kind::Waker,
        Kind::Wake,
        Kind::Woken,
    ];
}

impl Kind {
    /// Its place in a set of kinds.
    pub fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl Tag {
    /// As user data.
    pub fn pack(self) -> u64 {
        debug_assert!(self.generation < GENERATIONS);
        (self.kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From user data; `None` if it is nothing that we sent.
    pub fn unpack(data: u64) -> Option<Tag> {
        Some(Tag {
            kind: *Kind::ALL.get((data >> 56) as usize)?,
            slot: data as u32,
            generation: (data >> 32) as u32 & (GENERATIONS - 1),
        })
    }
}

/// Something for the kernel to do. Descriptors are direct ones, named by slot.
#[derive(Debug)]
pub enum Operation {
    /// Accept from a listener until told otherwise, each connection into a free slot.
    Accept { listener: u16 },
    /// Receive into provided buffers until told otherwise.
    Receive { slot: u32 },
    /// Send all of these bytes. They are the kernel's until it completes.
    Send { slot: u32, chunks: Chunks },
    /// Cancel the operation with this tag.
    Cancel { tag: Tag },
    /// Shut down writing, or both directions.
    Shutdown { slot: u32, both: bool },
    /// Make the close a reset.
    Linger { slot: u32 },
    /// Close the descriptor.
    Close { slot: u32 },
    /// Put the descriptor into a free slot of another shard's ring; the result is that slot.
    SendFd { slot: u32, to: ShardId },
    /// Make an ordinary descriptor as well; the result is that descriptor.
    InstallFd { slot: u32 },
    /// Put an ordinary descriptor into a free slot; the result is that slot. Closed when that is done, or has failed.
    AdoptFd { socket: OwnedFd },
    /// Wake another shard's thread.
    Wake { shard: ShardId },
}

/// What became of an operation.
#[derive(Debug)]
pub struct Completion {
    /// Of the operation.
    pub tag: Tag,
    /// A count, a slot or a descriptor; or a negative error number.
    pub result: i32,
    /// More completions of this operation will come.
    pub more: bool,
    /// The provided buffer with the bytes; ours until given back.
    pub buffer: Option<u16>,
    /// Of a send that failed or was cut short: all of its bytes. Boxed: nearly every send sends all, and completions are
    /// moved.
    pub unsent: Option<Box<Chunks>>,
    /// Of an install: the ordinary descriptor, closed when this is dropped.
    pub descriptor: Option<OwnedFd>,
}

/// A ring. All calls come from one thread.
pub trait Kernel {
    /// Queues an operation; it begins with the next [`Kernel::enter`] at the latest, in the order queued.
    fn push(&mut self, tag: Tag, operation: Operation);

    /// Begins everything that is queued, and waits for a completion (`None`: for ever, zero: not at all). For the time
    /// `gather` (zero: none) it goes on waiting for more than the first. While completions overflow their queue nothing
    /// new begins: they are to be reaped first.
    ///
    /// # Errors
    /// Only what a bug or a broken machine causes.
    fn enter(&mut self, wait: Option<Duration>, gather: Duration) -> io::Result<()>;

    /// Takes the completions that are there, behind those that were taken before.
    fn reap(&mut self, completions: &mut VecDeque<Completion>);

    /// Does the kernel hold completions back until it is entered again?
    fn has_deferred(&self) -> bool;

    /// The bytes of a provided buffer.
    fn buffer(&mut self, id: u16, size: usize) -> &mut [u8];

    /// Gives a provided buffer back.
    fn give_back(&mut self, id: u16);

    /// Lets go of a listener whose accept has ended.
    fn drop_listener(&mut self, listener: u16);

    /// Times the completion queue was too small.
    fn overflows(&self) -> u64;
}
