//! The edge: sockets, clock, threads. Here is the seam between a shard's loop and what moves its bytes.
//!
//! A [`Driver`] owns the connections of one shard: io_uring, epoll, or a simulated network. [`event_loop`] calls it
//! in turns and knows nothing of sockets. A session's number is the driver's: a slot and its generation, so late
//! news about an earlier connection of a slot is recognised by both.

#![allow(missing_docs, reason = "the comment of a variant speaks of its fields")]

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::address::{RemoteAddress, SessionId, ShardId};
use crate::shard::outbox::Chunks;
use crate::shard::{Ending, Now};

pub mod affinity;
pub mod clock;
pub mod control;
pub mod epoll;
pub mod event_loop;
pub mod linked;
pub mod links;
pub mod listener;
mod pieces;
pub mod population;
pub mod process;
pub mod shard_clock;
pub mod uring;
pub mod waker;

use links::{HttpConnection, ShardEnd};

/// Something that a driver took.
#[derive(Debug)]
pub enum Taken<S> {
    /// A connection was accepted.
    Accepted {
        session: SessionId,
        listener: u16,
        address: RemoteAddress,
    },
    /// Bytes came; [`Driver::bytes`] has them until the next [`Driver::take`].
    Received { session: SessionId, buffer: Buffer },
    /// The send in flight is done, all of it.
    Sent { session: SessionId },
    /// The connection has ended, or will bring no more bytes.
    Ended { session: SessionId, ending: Ending },
    /// What [`Driver::detach`] asked for: the connection by itself, unless it could not be handed on and is closed;
    /// and bytes that had come already. (What [`Taken::Ended`] says of a leaving session was said before it left.)
    Detached {
        session: SessionId,
        socket: Option<S>,
        bytes: Vec<u8>,
    },
    /// What [`Driver::release`] asked for: an ordinary descriptor, unless there was none left and the connection is
    /// closed; and bytes that had come already.
    Released {
        session: SessionId,
        socket: Option<OwnedFd>,
        bytes: Vec<u8>,
    },
    /// What [`Driver::adopt`] asked for under this number: a connection of this driver, unless there was no room for it
    /// and it is closed.
    Adopted {
        number: u32,
        session: Option<SessionId>,
    },
}

/// Received bytes, in a form that only the driver understands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Buffer {
    /// Where they begin.
    pub start: usize,
    /// How many there are.
    pub size: usize,
}

/// What became of a send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sending {
    /// All of it is out.
    Done,
    /// It is under way; [`Taken::Sent`] or [`Taken::Ended`] will follow.
    Pending,
    /// The connection is gone.
    Failed,
}

/// What moves the bytes of one shard. All calls come from one thread.
///
/// About a session that was closed or detached a driver says nothing more, and does nothing for one that it
/// does not know (any more).
pub trait Driver {
    /// A connection on its way to another shard's driver.
    type Socket: Send + 'static;

    /// Waits until there is something to take or it is woken, at most this long (`None`: for ever), and takes all
    /// there is within the bounds of a turn: the bytes are *read* when this returns (DESIGN decision 4).
    ///
    /// # Errors
    /// Only what a bug or a broken machine causes.
    fn take(
        &mut self,
        wait: Option<Duration>,
        taken: &mut Vec<Taken<Self::Socket>>,
    ) -> io::Result<()>;

    /// Received bytes, to be changed in place.
    fn bytes(&mut self, buffer: Buffer) -> &mut [u8];

    /// Sends these frames; the caller has no other send of this session under way.
    fn send(&mut self, session: SessionId, chunks: Chunks) -> Sending;

    /// Tells of the sends that are done already, without waiting for anything: [`Taken::Sent`] only. What else has
    /// come is kept for the next [`Driver::take`].
    ///
    /// # Errors
    /// Only what a bug or a broken machine causes.
    fn settle(&mut self, _sent: &mut Vec<Taken<Self::Socket>>) -> io::Result<()> {
        Ok(())
    }

    /// Called when all sends of a turn were started.
    ///
    /// # Errors
    /// Only what a bug or a broken machine causes.
    fn submit(&mut self) -> io::Result<()>;

    /// Reads from a connection, or leaves it alone.
    fn set_reading(&mut self, session: SessionId, reading: bool);

    /// Nothing more will be sent.
    fn shutdown_write(&mut self, session: SessionId);

    /// Closes a connection, by a reset if asked.
    fn close(&mut self, session: SessionId, reset: bool);

    /// Lets a connection go, to another shard. [`Taken::Detached`] follows, also if the connection has ended
    /// meanwhile: whoever attaches it hears of that.
    fn detach(&mut self, session: SessionId, to: ShardId);

    /// Takes a connection that another driver let go.
    fn attach(&mut self, socket: Self::Socket) -> Option<SessionId>;

    /// Lets a connection go, to the host, as an ordinary descriptor. Nothing is being sent over it. [`Taken::Released`]
    /// follows, as [`Taken::Detached`] does after [`Driver::detach`].
    fn release(&mut self, session: SessionId);

    /// Takes a connection that the host holds. [`Taken::Adopted`] follows; no two under way have one number.
    fn adopt(&mut self, number: u32, socket: OwnedFd);

    /// Takes a Link to a host of this process. None from a driver that has none.
    fn attach_link(&mut self, _end: ShardEnd) -> Option<SessionId> {
        None
    }

    /// Gives a connection to the host of a Link; false if it has gone or has too many already, and the connection is
    /// closed.
    #[expect(clippy::boxed_local, reason = "as those take it that have Links")]
    fn give(&mut self, _link: SessionId, _connection: Box<HttpConnection>) -> bool {
        false
    }

    /// Accepts no more, and closes the listeners.
    fn stop_accepting(&mut self);

    /// Wakes another shard's driver from its wait.
    fn wake(&mut self, shard: ShardId);

    /// Times that completions did not fit their queue.
    fn overflows(&self) -> u64 {
        0
    }

    /// The time.
    fn now(&self) -> Now;
}
