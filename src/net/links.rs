//! Links: connections in memory, between the threads of a host and a shard.
//!
//! To the shard a Link is a session like others: bytes come, bytes go, it ends. [`HostEnd`] is the end of the host.
//! Instead of a shard, another thread may stand behind a Link ([`FarEnd`]): one that has a real connection, say.

use std::fmt;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;

use crate::limits::{LINK_BYTES_MAX, LINK_CALLS_BYTES_MAX, LINK_ENTRIES_MAX};
use crate::mesh::Bell;
use crate::mesh::link::{Bounds, Far, Host, link};
use crate::shard::outbox::Chunks;

use super::waker::Waker;

pub use crate::mesh::link::CallError;

/// What comes over a Link to the host.
#[derive(Debug)]
pub enum Item {
    /// Bytes of the stream of frames.
    Bytes(Bytes),
    /// A connection that speaks plain HTTP, the host's from now on. It is nowhere in the stream.
    Socket(Box<HttpConnection>),
}

/// A connection that the broker lets the host have.
#[derive(Debug)]
pub struct HttpConnection {
    /// Non-blocking; nothing has been sent over it since the last answer of whoever had it.
    pub socket: OwnedFd,
    /// The index of the listener that it came to, for when it is given back.
    pub listener: u16,
    /// Where it comes from.
    pub address: String,
    /// What has been read: a request head, and perhaps more.
    pub bytes: Vec<u8>,
}

impl Item {
    fn size(&self) -> usize {
        match self {
            Item::Bytes(bytes) => bytes.len(),
            Item::Socket(connection) => connection.bytes.len(),
        }
    }
}

/// The host's end of a Link. Any of its threads may use it; with the last reference the Link ends.
#[derive(Clone, Debug)]
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

    /// After [`HostEnd::next`] gave none: the descriptor is readable no more, unless something has come meanwhile.
    pub fn settle(&self) {
        if !self.0.host.announce_sleep(|| self.0.own.clear()) {
            self.0.own.wake();
        }
    }

    /// Is the other end gone? Items that it sent may be left to take.
    pub fn is_cut(&self) -> bool {
        self.0.host.is_far_gone()
    }

    /// Is the other end gone, and every item taken that it sent?
    pub fn is_closed(&self) -> bool {
        self.0.host.is_closed()
    }
}

impl HostSide {
    /// The shard is gone, or will be.
    fn end(&self) {
        self.host.close_far(|| self.own.wake());
        // If it is not yet, its session ends.
        self.far.wake();
    }
}

impl fmt::Debug for HostSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HostSide").field(&self.own).finish()
    }
}

impl Drop for HostSide {
    fn drop(&mut self) {
        self.host.close(|| self.far.wake());
    }
}

/// The other end of a Link, where the shard is.
pub struct ShardEnd {
    far: Far<Item>,
    host: Waker,
}

impl ShardEnd {
    /// Takes the calls that wait into an empty buffer.
    pub(super) fn take(&mut self, calls: &mut Vec<u8>) {
        self.far.take(calls);
    }

    /// Sends as many of these chunks as there is room for, and keeps the others; true if none is left. They are in
    /// reverse order.
    pub(super) fn send(&mut self, chunks: &mut Chunks) -> bool {
        while let Some(chunk) = chunks.pop() {
            let size = chunk.len();
            if let Err(Item::Bytes(chunk)) = self.far.push(Item::Bytes(chunk), size) {
                chunks.push(chunk);
                break;
            }
        }
        let host = &self.host;
        self.far.publish(|| host.wake());
        chunks.is_empty()
    }

    /// Sends a connection, or gives it back if there is no room.
    pub(super) fn send_connection(
        &mut self,
        connection: Box<HttpConnection>,
    ) -> Result<(), Box<HttpConnection>> {
        let item = Item::Socket(connection);
        let size = item.size();
        let pushed = self.far.push(item, size);
        let host = &self.host;
        self.far.publish(|| host.wake());
        pushed.map_err(|item| match item {
            Item::Socket(connection) => connection,
            Item::Bytes(_) => unreachable!("what was pushed comes back"),
        })
    }

    /// Could `take` take something now?
    pub(super) fn has_calls(&self) -> bool {
        self.far.has_calls()
    }

    /// Did `send` leave something, and is there room now?
    pub(super) fn has_more_room(&self) -> bool {
        self.far.has_more_room()
    }

    /// Is the host gone? Calls may be left to take.
    pub(super) fn is_host_gone(&self) -> bool {
        self.far.is_host_gone()
    }

    /// Has this end been closed?
    pub(super) fn is_closed(&self) -> bool {
        self.far.is_closed()
    }

    /// Nothing more will be sent or taken.
    pub(super) fn close(&self) {
        self.far.close(|| self.host.wake());
    }
}

impl fmt::Debug for ShardEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ShardEnd").field(&self.host).finish()
    }
}

impl Drop for ShardEnd {
    fn drop(&mut self) {
        self.close();
    }
}

/// The other end of a Link, for a thread that is no shard.
#[derive(Debug)]
pub struct FarEnd {
    end: ShardEnd,
    own: Waker,
    spare: Vec<u8>,
}

impl FarEnd {
    /// Appends the calls that wait to `calls`; how many bytes these are.
    pub fn take(&mut self, calls: &mut Vec<u8>) -> usize {
        if calls.is_empty() {
            self.end.take(calls);
            return calls.len();
        }
        self.end.take(&mut self.spare);
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
        let given = self.end.far.push(item, size);
        let host = &self.end.host;
        self.end.far.publish(|| host.wake());
        given
    }

    /// Readable, level-triggered, while calls wait, when there is room after a refusal, and when the host is gone.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.own.fd()
    }

    /// After [`FarEnd::take`] gave none: the descriptor is readable no more, unless something has come meanwhile.
    pub fn settle(&self) {
        if !self.end.far.announce_sleep(|| self.own.clear()) {
            self.own.wake();
        }
    }

    /// Is the host gone? Its last calls may be left to take.
    pub fn is_closed(&self) -> bool {
        self.end.is_host_gone()
    }
}

/// A Link without a shard.
///
/// # Errors
/// If there is no descriptor left.
pub fn pair() -> io::Result<(HostEnd, FarEnd)> {
    let own = Waker::new()?;
    let door = Door {
        bell: Bell::default(),
        waker: own.clone(),
    };
    let (host, end) = door.link()?;
    let far = FarEnd {
        end,
        own,
        spare: Vec::new(),
    };
    // Nothing has come yet.
    far.settle();
    Ok((host, far))
}

/// What wakes one shard, or who stands for one.
#[derive(Clone, Debug)]
pub struct Door {
    /// Rung first,
    pub bell: Bell,
    /// and this only if it sleeps.
    pub waker: Waker,
}

impl Door {
    /// A Link to whoever is woken by this.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn link(&self) -> io::Result<(HostEnd, ShardEnd)> {
        let own = Waker::new()?;
        let bounds = Bounds {
            calls_bytes_max: LINK_CALLS_BYTES_MAX,
            entries_max: LINK_ENTRIES_MAX,
            bytes_max: LINK_BYTES_MAX,
        };
        let (host, far) = link(bounds, self.bell.clone());
        let side = HostSide {
            host,
            own: own.clone(),
            far: self.waker.clone(),
        };
        Ok((HostEnd(Arc::new(side)), ShardEnd { far, host: own }))
    }
}

/// The Links of a broker, to end them all when a shard is gone: its own could wait for ever, and those of the others
/// are in a broker that has to go.
#[derive(Debug, Default)]
pub struct Roster(Mutex<Hosts>);

#[derive(Debug, Default)]
struct Hosts {
    open: Vec<Weak<HostSide>>,
    /// They were ended.
    is_over: bool,
}

impl Roster {
    /// One more; false if all were ended, and then this one is, too.
    pub fn add(&self, host: &HostEnd) -> bool {
        let mut hosts = self.lock();
        if hosts.is_over {
            host.0.end();
        } else {
            hosts.open.retain(|host| host.strong_count() > 0);
            hosts.open.push(Arc::downgrade(&host.0));
        }
        !hosts.is_over
    }

    /// Ends all Links, and those to come. Hosts get what was sent before.
    pub fn end(&self) {
        let open = {
            let mut hosts = self.lock();
            hosts.is_over = true;
            std::mem::take(&mut hosts.open)
        };
        for host in open.iter().filter_map(Weak::upgrade) {
            host.end();
        }
    }

    /// Nothing in here can be left half done by a panic.
    fn lock(&self) -> MutexGuard<'_, Hosts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    const NOW: Timespec = Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };

    fn is_readable(fd: BorrowedFd<'_>) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
        poll(&mut fds, Some(&NOW)).expect("a descriptor can be polled") == 1
    }

    fn say(host: &HostEnd, text: &[u8]) {
        host.call(|calls| calls.extend_from_slice(text))
            .expect("there is room");
    }

    fn bytes(text: &'static [u8]) -> Item {
        Item::Bytes(Bytes::from_static(text))
    }

    fn heard(host: &HostEnd) -> Option<Bytes> {
        match host.next()? {
            Item::Bytes(bytes) => Some(bytes),
            Item::Socket(_) => panic!("no socket was sent"),
        }
    }

    #[test]
    fn descriptors_are_readable_while_something_waits() {
        let (host, mut far) = pair().expect("descriptors");
        assert!(!is_readable(host.fd()) && !is_readable(far.fd()));
        say(&host, b"one");
        say(&host, b"two");
        assert!(is_readable(far.fd()));
        far.settle();
        assert!(is_readable(far.fd()), "it was not taken");
        let mut calls = b"zero".to_vec();
        assert_eq!(far.take(&mut calls), 6);
        assert_eq!(calls, b"zeroonetwo");
        assert_eq!(far.take(&mut Vec::new()), 0);
        far.settle();
        assert!(!is_readable(far.fd()));

        far.give(bytes(b"1")).expect("there is room");
        assert!(is_readable(host.fd()));
        host.settle();
        assert!(is_readable(host.fd()), "it was not taken");
        assert_eq!(heard(&host).expect("one"), "1");
        assert!(host.next().is_none());
        host.settle();
        assert!(!is_readable(host.fd()));
        far.give(bytes(b"2")).expect("there is room");
        assert!(is_readable(host.fd()));
    }

    #[test]
    fn a_refused_item_goes_when_there_is_room() {
        let (host, mut far) = pair().expect("descriptors");
        let refused = std::iter::repeat_with(|| far.give(bytes(b"x")))
            .take(LINK_ENTRIES_MAX + 1)
            .find_map(Result::err);
        let refused = refused.expect("no ring is longer than it is");
        far.settle();
        assert!(!is_readable(far.fd()));
        while host.next().is_some() {}
        assert!(is_readable(far.fd()));
        far.give(refused).expect("there is room");
        far.settle();
        assert!(!is_readable(far.fd()));
    }

    #[test]
    fn an_end_that_goes_makes_the_other_readable() {
        let (host, mut far) = pair().expect("descriptors");
        say(&host, b"last");
        drop(host);
        assert!(far.is_closed() && is_readable(far.fd()));
        let mut calls = Vec::new();
        assert_eq!(far.take(&mut calls), 4);
        far.settle();
        assert!(is_readable(far.fd()));

        let (host, mut far) = pair().expect("descriptors");
        far.give(bytes(b"last")).expect("there is room");
        drop(far);
        assert!(is_readable(host.fd()) && !host.is_closed());
        assert_eq!(heard(&host).expect("one"), "last");
        assert!(host.is_closed());
        host.settle();
        assert!(is_readable(host.fd()));
        assert_eq!(host.call(|_| ()), Err(CallError::Closed));
    }

    #[test]
    fn a_socket_that_nobody_took_is_closed() {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("descriptors");
        let (host, mut far) = pair().expect("descriptors");
        let connection = HttpConnection {
            socket: theirs.into(),
            listener: 0,
            address: String::new(),
            bytes: Vec::new(),
        };
        far.give(Item::Socket(Box::new(connection)))
            .expect("there is room");
        drop(far);
        assert!(!is_readable(ours.as_fd()));
        drop(host);
        assert!(is_readable(ours.as_fd()), "the end of the stream");
    }

    #[test]
    fn a_roster_ends_all_links_and_those_to_come() {
        let roster = Roster::default();
        let (host, far) = pair().expect("descriptors");
        let (gone, _far) = pair().expect("descriptors");
        assert!(roster.add(&host) && roster.add(&gone));
        drop(gone);
        roster.end();
        assert!(host.is_closed() && is_readable(host.fd()));
        assert!(is_readable(far.fd()), "whoever is there looks");
        let (late, _far) = pair().expect("descriptors");
        assert!(!roster.add(&late) && late.is_closed());
        roster.end();
    }

    #[test]
    fn threads_call_at_once_and_nothing_is_lost() {
        const THREADS: usize = 3;
        const CALLS: usize = 3_000;
        let (host, mut far) = pair().expect("descriptors");
        let threads: Vec<_> = (0..THREADS as u8)
            .map(|thread| {
                let host = host.clone();
                std::thread::spawn(move || {
                    for number in 0..CALLS as u32 {
                        let write = |calls: &mut Vec<u8>| {
                            calls.push(thread);
                            calls.extend_from_slice(&number.to_le_bytes());
                        };
                        while let Err(error) = host.call(write) {
                            assert_eq!(error, CallError::Full);
                            std::thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        let mut next = [0; THREADS];
        let mut calls = Vec::new();
        while next.iter().sum::<u32>() < (THREADS * CALLS) as u32 {
            poll(&mut [PollFd::new(&far.fd(), PollFlags::IN)], None).expect("a poll");
            far.take(&mut calls);
            for call in calls.chunks(5) {
                let number = u32::from_le_bytes(call[1..].try_into().expect("whole frames"));
                let due = &mut next[usize::from(call[0])];
                assert_eq!(number, *due);
                *due += 1;
            }
            calls.clear();
            far.settle();
        }
        for thread in threads {
            thread.join().expect("no panic");
        }
    }
}
