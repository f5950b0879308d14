//! A [`Link`]: how a program takes part in a broker, in its own process ([`Link::open`]) or in another
//! ([`Link::connect`]).
//!
//! A program makes *calls* and is told *events*. Calls are made from any thread and never wait; events are drained in
//! batches by one thread at a time, which may wait for them, or have its event loop watch a descriptor. No code of the
//! program ever runs on a thread of the broker.
//!
//! **Order.** Calls of one Link take effect in the order made, on every shard: whoever joins a client to a room and then
//! emits to the room reaches that client, wherever it is. Two threads that call at once are in the order in which the
//! calls return. Events come in the order in which they happened to this Link.
//!
//! **Answers.** A call made with [`Answer::Wanted`] gives a [`Ticket`], and exactly one [`Event::Done`] or
//! [`Event::Failed`] comes for it, if not the end of the Link before. It comes when the call has taken effect on every
//! shard: whatever anybody publishes after the `Done` of a subscribe arrives.
//!
//! **Bounds.** Calls wait in a queue of 1 MiB (a remote Link: 8 MiB); past it they are [`LinkError::Full`], nothing is
//! done, and the same call may be made later. Events wait in a queue of 1 MiB, and behind it in the broker as for every
//! reader: messages to topics are dropped, told by [`Event::Gap`]; what clients send waits in the clients'
//! connections; connects, disconnects and replies are always kept.
//!
//! **The end.** When the broker stops, lets the Link go, or a shard fails, [`Event::Stopped`] or [`Event::Closed`] is the
//! last event, and every call answers [`LinkError::Stopped`]. A Link may live longer than its broker. In a child process
//! (`fork`) a Link of the parent answers [`LinkError::Forked`] to every call, and its drop touches nothing that the
//! parent uses.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::address::ClientId;
use crate::broker::{Broker, Log};
use crate::limits::SERVER_MESSAGE_BYTES_MAX;
use crate::net::links::HostEnd;
use crate::net::process::Process;
use crate::protocol::peer::call::Call;
use crate::secret::Secret;

mod calls;
mod channels;
mod error;
mod event;
mod frames;
mod hearing;
mod http;
mod intake;
mod remote;
mod requests;
#[cfg(test)]
mod tests;

pub use crate::protocol::peer::{Audience, FilterKind, PeerPattern, Watch};
pub use error::LinkError;
pub use event::{Arrival, Event, HttpConnection, RequestId};
pub use remote::Timings;

use channels::Channels;
use hearing::Hearing;
use http::Adoptions;
use intake::{Aside, Intake};
use remote::Backlog;
use requests::Requests;

/// How long a broker of this process may take to welcome a Link: five times what it grants another peer of its name to
/// answer.
const WELCOME_TIME: Duration = Duration::from_secs(10);

/// The number of a call, by which its answer is known. Rises by one with each call of a Link that has one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Ticket(pub u64);

impl Ticket {
    /// Of calls without an answer.
    pub const NONE: Ticket = Ticket(0);
}

/// Is a call to be answered by an event?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// By one [`Event::Done`] or [`Event::Failed`] with the call's ticket.
    Wanted,
    /// No; the ticket is [`Ticket::NONE`].
    Unwanted,
}

/// A program's part in a broker.
///
/// `Send + Sync`: any thread may call; one thread at a time drains. Dropping it ends it, after all calls made so far:
/// its clients are closed (1012, come back), its subscriptions and rooms are gone.
#[derive(Debug)]
pub struct Link {
    inner: Arc<Inner>,
    process: Process,
    payload_bytes_max: usize,
    /// Of a broker in this process.
    log: Option<Arc<Log>>,
    /// That carries a Link to a broker elsewhere.
    thread: Option<JoinHandle<()>>,
}

/// What a Link's threads share.
#[derive(Debug)]
struct Inner {
    carrier: HostEnd,
    /// Behind `carrier` is a connection, and this waits for it.
    backlog: Option<Arc<Backlog>>,
    /// Only of a broker in this process.
    hearing: Option<Hearing>,
    /// Likewise.
    adoptions: Option<Adoptions>,
    tickets: AtomicU64,
    is_leaving: AtomicBool,
    /// Was the last event told?
    is_over: AtomicBool,
    log: Mutex<LogWatch>,
    channels: Mutex<Channels>,
    requests: Mutex<Requests>,
    /// By whom others know this Link, while it is in.
    client: Mutex<Option<ClientId>>,
    aside: Aside,
    intake: Mutex<Intake>,
}

/// What only a Link to a broker in this process has.
#[derive(Default)]
struct Near {
    hearing: Option<Hearing>,
    adoptions: Option<Adoptions>,
}

/// Does a Link watch the log?
#[derive(Debug, Default)]
struct LogWatch {
    is_on: bool,
    /// Has the log been told of this Link? Once is enough.
    is_listening: bool,
}

/// Making a Link.
impl Link {
    /// A Link to a broker of this process, in by this name: 1 to 255 bytes of UTF-8 without control characters, which
    /// no other peer of the broker has. Waits until every shard knows it: some microseconds, or up to 2 s if another
    /// peer has the name, which is asked whether it is still there.
    ///
    /// # Errors
    /// [`LinkError::Refused`] if the name is taken, [`LinkError::Stopped`], [`LinkError::TimedOut`] if a shard hangs,
    /// [`LinkError::System`], [`LinkError::Invalid`].
    pub fn open(broker: &Broker, name: &str) -> Result<Link, LinkError> {
        calls::check_name(name)?;
        let near = Near {
            hearing: broker.board().cloned().map(Hearing::new),
            adoptions: Some(Adoptions::new(broker)),
        };
        let mut link = Link::over(broker.open_link()?, None, near);
        link.log = Some(broker.log().clone());
        link.payload_bytes_max = broker.payload_bytes_max();
        let (name, key) = (name.as_bytes(), &[][..]);
        link.tell(&Call::Hello { name, key })?;
        link.wait_for_welcome(Instant::now() + WELCOME_TIME)?;
        Ok(link)
    }

    /// A Link to the listener for peers of a broker elsewhere, `unix:/path` or `tcp://host:port`, with its key if it
    /// asks for one.
    ///
    /// Returns at once; [`Event::Up`] tells when it is in. Until then, and whenever the connection breaks, calls wait in
    /// the queue, requests for as long as their timeout; it connects again after 50 ms, then ever less often, up to
    /// every 5 s. What it watches, subscribes to, handles and has accepted is said again before the calls that wait. A
    /// call that was on its way when the connection broke is not made a second time: if its answer is lost, it is
    /// [`Event::Failed`] with `timeout`. A wrong key is final: [`Event::Closed`].
    ///
    /// # Errors
    /// [`LinkError::Invalid`], [`LinkError::System`].
    pub fn connect(url: &str, name: &str, key: Option<&Secret>) -> Result<Link, LinkError> {
        Link::connect_timed(url, name, key, Timings::default())
    }

    /// As [`Link::connect`], with times of its own.
    ///
    /// # Errors
    /// As for [`Link::connect`].
    pub fn connect_timed(
        url: &str,
        name: &str,
        key: Option<&Secret>,
        timings: Timings,
    ) -> Result<Link, LinkError> {
        calls::check_name(name)?;
        let (carrier, backlog, thread) = remote::start(url, name, key, timings)?;
        let mut link = Link::over(carrier, Some(backlog), Near::default());
        link.thread = Some(thread);
        Ok(link)
    }

    fn over(carrier: HostEnd, backlog: Option<Arc<Backlog>>, near: Near) -> Link {
        let Near { hearing, adoptions } = near;
        let inner = Inner {
            carrier,
            backlog,
            hearing,
            adoptions,
            tickets: AtomicU64::new(0),
            is_leaving: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            log: Mutex::default(),
            channels: Mutex::new(Channels::default()),
            requests: Mutex::new(Requests::new()),
            client: Mutex::new(None),
            aside: Aside::default(),
            intake: Mutex::new(Intake::default()),
        };
        Link {
            inner: Arc::new(inner),
            process: Process::this(),
            payload_bytes_max: SERVER_MESSAGE_BYTES_MAX,
            log: None,
            thread: None,
        }
    }

    /// Ends the Link as its drop does, and waits until the calls made so far have left this process: at most for some
    /// seconds, if the broker is away. A program that ends after a mere drop may take its last calls with it. (In the
    /// broker's own process there is nothing to wait for.)
    pub fn finish(mut self) {
        let thread = self.thread.take().filter(|_| self.process.is_this());
        drop(self);
        if let Some(thread) = thread {
            // It may have panicked; then there is nothing more to come of it.
            let _ = thread.join();
        }
    }

    fn wait_for_welcome(&self, deadline: Instant) -> Result<(), LinkError> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut events = Vec::new();
        loop {
            let heard = self.drain(&mut events, 1);
            if self.client().is_some() {
                return Ok(());
            }
            if heard == 0 {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || !self.wait(Some(left)) {
                    return Err(LinkError::TimedOut);
                }
            }
            match events.pop() {
                None => {}
                Some(Event::Closed { code, reason }) => {
                    let (code, reason) = (text(&code), text(&reason));
                    return Err(LinkError::Refused { code, reason });
                }
                Some(_) => return Err(LinkError::Stopped),
            }
        }
    }

    /// By whom others know this Link: the sender of its events and requests. `None` while a remote one is not connected.
    pub fn client(&self) -> Option<ClientId> {
        self.check_process().ok()?;
        *lock(&self.inner.client)
    }

    /// Has lines of the broker's log told from now on, or told no more.
    fn watch_log(&self, is_on: bool) {
        let Some(log) = &self.log else {
            return;
        };
        let mut watch = lock(&self.inner.log);
        watch.is_on = is_on;
        let begins = is_on && !std::mem::replace(&mut watch.is_listening, is_on);
        // The log calls its listeners under a lock of its own.
        drop(watch);
        if begins {
            let inner = Arc::downgrade(&self.inner);
            log.listen(move |level, line| {
                let Some(inner) = inner.upgrade() else {
                    return false;
                };
                let is_on = lock(&inner.log).is_on;
                if is_on {
                    inner.say_log(level, line);
                }
                true
            });
        }
    }

    fn check_process(&self) -> Result<(), LinkError> {
        if self.process.is_this() {
            Ok(())
        } else {
            Err(LinkError::Forked)
        }
    }
}

/// Being told.
impl Link {
    /// Appends the events that have come to `events`, at most `events_max` of them, and says how many. Never waits.
    /// 0 if there is none, or after the last one.
    pub fn drain(&self, events: &mut Vec<Event>, events_max: usize) -> usize {
        if self.check_process().is_err() {
            return 0;
        }
        let mut intake = lock(&self.inner.intake);
        let before = events.len();
        while events.len() - before < events_max
            && let Some(event) = self.inner.hear(&mut intake)
        {
            events.push(event);
        }
        events.len() - before
    }

    /// Waits until there is an event, at most for `timeout` (`None`: for ever); true if there is, or if the last one
    /// has been drained.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        // Nobody rings any more, and an event loop is not to find the descriptor readable for ever.
        self.is_over() || wait_readable(self.fd(), timeout)
    }

    /// The next event, waited for at most for `timeout`. `None` in time, or after the last event.
    pub fn next(&self, timeout: Option<Duration>) -> Option<Event> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut events = Vec::with_capacity(1);
        loop {
            if self.drain(&mut events, 1) == 1 {
                return events.pop();
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if self.is_over() || left.is_some_and(|left| left.is_zero()) || !self.wait(left) {
                return None;
            }
        }
    }

    /// Has the last event been drained?
    fn is_over(&self) -> bool {
        self.inner.is_over.load(Ordering::Relaxed)
    }

    /// For an event loop to watch: readable, level-triggered, while there are events. Not to be read or closed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.inner.carrier.fd()
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        if self.process.is_this() {
            let _ = self.close();
        } else {
            // What it holds is shared with the parent, or locked by threads that are not here: leaked, by a reference
            // that is never given back.
            std::mem::forget(self.inner.clone());
        }
    }
}

/// Waits until a descriptor is readable.
fn wait_readable(fd: BorrowedFd<'_>, timeout: Option<Duration>) -> bool {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    loop {
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        let mut watched = [PollFd::new(&fd, PollFlags::IN)];
        match poll(&mut watched, left.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return true,
            Err(error) if error == rustix::io::Errno::INTR => {}
            Err(_) => return false,
        }
    }
}

/// Nothing behind these locks can be left half done by a panic.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Link>();
};
