//! Links: connections in memory, between the threads of a host and a shard.
//!
//! To the shard a Link is a session like others: bytes come, bytes go, it ends. [`HostEnd`] is the end of the host.
//! Instead of a shard, another thread may stand behind a Link ([`FarEnd`]): one that has a real connection, say.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;

use bytes::Bytes;

use crate::limits::{LINK_BYTES_MAX, LINK_CALLS_BYTES_MAX, LINK_ENTRIES_MAX};
use crate::mesh::Bell;
use crate::mesh::link::{Bounds, Far, Host, link};

use super::waker::Waker;

pub use crate::mesh::link::CallError;

/// What comes over a Link to the host.
#[derive(Debug)]
pub enum Item {
    /// Bytes of the stream of frames.
    Bytes(Bytes),
    /// A connection, at this place of the stream.
    Socket(OwnedFd),
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Bytes(bytes) => bytes.len(),
            // Bounded by their number.
            Item::Socket(_) => 0,
        }
    }
}

/// The host's end of a Link. Any of its threads may use it; with the last reference the Link ends.
#[derive(Clone)]
pub struct HostEnd(Arc<HostSide>);

struct HostSide {
    host: Host<Item>,
    own: Waker,
    far: Waker,
}

impl HostEnd {
    /// Appends one or more whole frames, and rings the other end if it sleeps. All is taken or, on an error, nothing.
    ///
    /// # Errors
    /// [`CallError::Full`]: too much waits; there is room again when the shard has run. [`CallError::Closed`]: the other
    /// end is gone.
    pub fn call(&self, write: impl FnOnce(&mut Vec<u8>)) -> Result<(), CallError> {
        self.0.host.call(write, || self.0.far.wake())
    }

    /// The next item that the other end sent, in order. One caller at a time has the turn.
    pub fn next(&self) -> Option<Item> {
        self.0.host.next(|| self.0.far.wake())
    }

    /// Readable, level-triggered, while items wait or when the other end is gone.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.own.fd()
    }

    /// Makes the descriptor readable, until it is settled.
    pub fn wake(&self) {
        self.0.own.wake();
    }

    /// After [`HostEnd::next`] gave none: the descriptor is readable no more, unless something has come meanwhile.
    pub fn settle(&self) {
        if !self.0.host.announce_sleep(|| self.0.own.clear()) {
            self.0.own.wake();
        }
    }

    /// Is the other end gone, and every item taken that it sent?
    pub fn is_closed(&self) -> bool {
        self.0.host.is_closed()
    }
}

impl fmt::Debug for HostEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostEnd").field(&self.0.own).finish()
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        self.host.close(|| self.far.wake());
    }
}

/// The other end of a Link, for a thread that is no shard.
pub struct FarEnd {
    far: Far<Item>,
    own: Waker,
    host: Waker,
    spare: Vec<u8>,
}

impl FarEnd {
    /// Appends the calls that wait to `calls`; how many bytes these are.
    pub fn take(&mut self, calls: &mut Vec<u8>) -> usize {
        if calls.is_empty() {
            self.far.take(calls);
            return calls.len();
        }
        self.far.take(&mut self.spare);
        let size = self.spare.len();
        calls.append(&mut self.spare);
        size
    }

    /// Sends an item. After a refusal the descriptor becomes readable when there is room.
    ///
    /// # Errors
    /// Gives it back if there is no room.
    pub fn give(&mut self, item: Item) -> Result<(), Item> {
        let size = item.size();
        let given = self.far.push(item, size);
        let host = &self.host;
        self.far.publish(|| host.wake());
        given
    }

    /// Readable, level-triggered, while calls wait, when there is room for a refused item, and when the host is gone.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.own.fd()
    }

    /// After [`FarEnd::take`] gave none: the descriptor is readable no more, unless something has come meanwhile.
    pub fn settle(&self) {
        if !self.far.announce_sleep(|| self.own.clear()) {
            self.own.wake();
        }
    }

    /// Is the host gone? Its last calls may be left to take.
    pub fn is_closed(&self) -> bool {
        self.far.is_host_gone()
    }
}

impl fmt::Debug for FarEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FarEnd").field(&self.own).finish()
    }
}

impl Drop for FarEnd {
    fn drop(&mut self) {
        self.far.close(|| self.host.wake());
    }
}

/// A Link without a shard.
///
/// # Errors
/// If there is no descriptor left.
pub fn pair() -> io::Result<(HostEnd, FarEnd)> {
    let waker = Waker::new()?;
    let (host, far, host_waker) = ends(Bell::default(), waker.clone())?;
    let far = FarEnd {
        far,
        own: waker,
        host: host_waker,
        spare: Vec::new(),
    };
    // Nothing has come yet.
    far.settle();
    Ok((host, far))
}

/// The two ends of a Link to the thread with this doorbell and waker, and what wakes the host.
fn ends(bell: Bell, far_waker: Waker) -> io::Result<(HostEnd, Far<Item>, Waker)> {
    let own = Waker::new()?;
    let bounds = Bounds {
        calls_bytes_max: LINK_CALLS_BYTES_MAX,
        entries_max: LINK_ENTRIES_MAX,
        bytes_max: LINK_BYTES_MAX,
    };
    let (host, far) = link(bounds, bell);
    let side = HostSide {
        host,
        own: own.clone(),
        far: far_waker,
    };
    Ok((HostEnd(Arc::new(side)), far, own))
}
