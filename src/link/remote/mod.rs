//! The carrier of a remote Link: a thread between the host's end and a connection, or the next connection.
//!
//! It takes calls as soon as they are made, so that it knows when the time of a request is over while there is no
//! connection ([`calls`]), and gives what the broker says to the host, frames whole, without looking into most. What it
//! answers itself: whether it is there. What it says itself: whether the broker is ([`DOWN`], `WELCOME`).
//!
//! The thread is one state after the other, each a loop around one wait: dial ([`dial`]), serve, pause.
//!
//! When the host does not drain, it does not read, and the broker sees a slow reader.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, recv, send, shutdown};

use super::LinkError;
use super::frames::{SIZE_BYTES, whole};
use crate::error::Code;
use crate::limits::{KIB, MIB};
use crate::net::links::{FarEnd, HostEnd, Item, pair};
use crate::protocol::peer::EventType;
use crate::protocol::peer::call::{Call, write_call};
use crate::protocol::peer::event::{Told, read_event};
use crate::secret::Secret;

mod calls;
mod dial;
mod standing;

use calls::{Calls, Heard};
use dial::{Dial, Place};

/// A frame that only a carrier says, and only to its host: this type, then why there is no connection.
pub(super) const DOWN: u8 = 0xff;

/// What may wait for a connection, in bytes; past it calls are [`LinkError::Full`]. A call is charged some 64 bytes
/// beside its own until it is answered.
const BACKLOG_BYTES_MAX: usize = 8 * MIB;
/// What is read at once.
const READ_BYTES: usize = 64 * KIB;
/// What is read between two looks at everything else.
const TURN_BYTES_MAX: usize = 256 * KIB;
/// How long the last calls of a Link that ends may take.
const LEAVE_TIME: Duration = Duration::from_secs(2);
/// How long a look-up and all its addresses may take.
const DIAL_TIME: Duration = Duration::from_secs(60);

/// The times of a remote Link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Timings {
    /// After so long a silence the broker is asked whether it is there.
    pub silence: Duration,
    /// If it does not answer in so long a time, the connection is given up. Also the time to be welcomed.
    pub patience: Duration,
    /// The pause before the second attempt to connect.
    pub pause_min: Duration,
    /// Pauses double up to this; each is shortened by up to a half at random, so that not all come back at once.
    pub pause_max: Duration,
}

impl Default for Timings {
    fn default() -> Timings {
        Timings {
            silence: Duration::from_secs(15),
            patience: Duration::from_secs(10),
            pause_min: Duration::from_millis(50),
            pause_max: Duration::from_secs(5),
        }
    }
}

/// How much waits for a connection.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicUsize);

impl Backlog {
    /// May no more be added?
    pub fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= BACKLOG_BYTES_MAX
    }
}

/// Starts the carrier's thread, which ends some seconds after the host's end has gone.
///
/// # Errors
/// If the url is none, or there is no descriptor or thread left.
pub(super) fn start(
    url: &str,
    name: &str,
    key: Option<&Secret>,
    timings: Timings,
) -> Result<(HostEnd, Arc<Backlog>, JoinHandle<()>), LinkError> {
    let place = Place::parse(url)?;
    let (host, far) = pair()?;
    let backlog = Arc::new(Backlog::default());
    let key = key.map_or(&[][..], |key| key.reveal().as_bytes());
    let mut hello = Vec::new();
    let name = name.as_bytes();
    write_call(&Call::Hello { name, key }, &mut hello);
    let carrier = Carrier {
        far,
        calls: Calls::default(),
        gives: VecDeque::new(),
        backlog: backlog.clone(),
        place,
        hello,
        timings,
        leave_by: None,
        down: String::new(),
        is_down: false,
    };
    let thread = thread::Builder::new()
        .name("link".to_owned())
        .spawn(move || carrier.run())?;
    Ok((host, backlog, thread))
}

/// Why a state ends.
#[derive(Debug)]
enum Ending {
    /// There is no connection, or none any more: a sentence.
    Lost(String),
    /// The Link is at its end.
    Over,
}

struct Carrier {
    far: FarEnd,
    calls: Calls,
    /// What the host is to be told, and has no room for yet.
    gives: VecDeque<Bytes>,
    backlog: Arc<Backlog>,
    place: Place,
    hello: Vec<u8>,
    timings: Timings,
    /// The host has left: when its last calls are given up.
    leave_by: Option<Instant>,
    /// What the host was told last about why there is no connection.
    down: String,
    is_down: bool,
}

impl Carrier {
    fn run(mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let begun = Instant::now();
            let ending = match self.dial() {
                Ok(socket) => {
                    let ending = self.serve(&socket);
                    // Of a connection that held for a while nothing is learned about the next.
                    if begun.elapsed() >= self.timings.pause_max {
                        pause = Duration::ZERO;
                    }
                    ending
                }
                Err(ending) => ending,
            };
            let Ending::Lost(reason) = ending else {
                return self.finish();
            };
            self.say_down(&reason);
            pause = (2 * pause).clamp(self.timings.pause_min, self.timings.pause_max);
            let until = Instant::now() + shortened(pause);
            while Instant::now() < until {
                if self.wait(None, Some(until)).is_err() {
                    return self.finish();
                }
            }
        }
    }

    fn dial(&mut self) -> Result<OwnedFd, Ending> {
        let lost = |error: io::Error| Ending::Lost(error.to_string());
        let dial = Dial::start(&self.place).map_err(lost)?;
        let deadline = Instant::now() + DIAL_TIME;
        loop {
            if let Some(result) = dial.result() {
                return result.map_err(lost);
            }
            if Instant::now() >= deadline {
                return Err(Ending::Lost("the look-up takes too long".to_owned()));
            }
            self.wait(Some((dial.fd(), PollFlags::IN)), Some(deadline))?;
        }
    }

    /// Carries calls and events until there is no connection any more.
    fn serve(&mut self, socket: &OwnedFd) -> Ending {
        let mut connection = Connection {
            socket: socket.as_fd(),
            out: self.hello.clone(),
            sent: 0,
            inbox: BytesMut::new(),
            buffer: vec![0; READ_BYTES].into(),
            is_welcome: false,
            is_shut: false,
            heard_at: Instant::now(),
            asked_at: Some(Instant::now()),
        };
        let ending = loop {
            if let Err(ending) = self.step(&mut connection) {
                break ending;
            }
        };
        let mut told = Vec::new();
        self.calls.lost(&mut told);
        self.tell(told.into());
        match ending {
            // That was what the host asked for.
            Ending::Lost(_) if self.calls.is_over() => Ending::Over,
            ending => ending,
        }
    }

    fn step(&mut self, connection: &mut Connection<'_>) -> Result<(), Ending> {
        self.write(connection)?;
        let now = Instant::now();
        if !self.gives.is_empty() && connection.asked_at.is_some() {
            // It may have answered; the answer is not read.
            connection.asked_at = Some(now);
        }
        let deadline = match connection.asked_at {
            _ if !self.gives.is_empty() => None,
            Some(asked_at) => Some(asked_at + self.timings.patience),
            None => Some(connection.heard_at + self.timings.silence),
        };
        if deadline.is_some_and(|deadline| deadline <= now) {
            if connection.asked_at.is_some() {
                return Err(Ending::Lost("the broker does not answer".to_owned()));
            }
            // Behind what is being written.
            self.calls.ask(&mut connection.out);
            connection.asked_at = Some(now);
            return Ok(());
        }
        let mut wanted = PollFlags::empty();
        // As long as the host has no room, the broker is to feel it.
        wanted.set(PollFlags::IN, self.gives.is_empty());
        wanted.set(PollFlags::OUT, connection.sent < connection.out.len());
        let found = self.wait(Some((connection.socket, wanted)), deadline)?;
        let readable = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        if found.intersects(readable) && self.gives.is_empty() {
            self.read(connection)?;
        }
        Ok(())
    }

    /// Writes what is there to be written, until the socket takes no more.
    fn write(&mut self, connection: &mut Connection<'_>) -> Result<(), Ending> {
        loop {
            if connection.sent == connection.out.len() {
                connection.out.clear();
                connection.sent = 0;
                if connection.is_welcome {
                    self.calls.hand_out(&mut connection.out);
                    self.charge();
                }
                if connection.out.is_empty() {
                    if self.calls.is_over() && !connection.is_shut {
                        // No close: what the broker sends meanwhile would reset the connection, and its input be lost.
                        let _ = shutdown(connection.socket, Shutdown::Write);
                        connection.is_shut = true;
                    }
                    return Ok(());
                }
            }
            let rest = &connection.out[connection.sent..];
            match send(connection.socket, rest, SendFlags::NOSIGNAL) {
                Ok(size) => connection.sent += size,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(Ending::Lost(error.to_string())),
            }
        }
    }

    fn read(&mut self, connection: &mut Connection<'_>) -> Result<(), Ending> {
        let mut taken = 0;
        while taken < TURN_BYTES_MAX && self.gives.is_empty() {
            match recv(
                connection.socket,
                &mut connection.buffer[..],
                RecvFlags::empty(),
            ) {
                Ok((0, _)) if connection.is_shut => return Err(Ending::Over),
                Ok((0, _)) => {
                    return Err(Ending::Lost("the broker closed the connection".to_owned()));
                }
                Ok((size, _)) => {
                    connection
                        .inbox
                        .extend_from_slice(&connection.buffer[..size]);
                    taken += size;
                    connection.heard_at = Instant::now();
                    if connection.is_welcome {
                        connection.asked_at = None;
                    }
                    self.hear(connection)?;
                    if size < READ_BYTES {
                        break;
                    }
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(Ending::Lost(error.to_string())),
            }
        }
        Ok(())
    }

    /// Looks at the frames that have come, and gives the host those that are for it, joined as they came.
    fn hear(&mut self, connection: &mut Connection<'_>) -> Result<(), Ending> {
        let mut passed = 0;
        loop {
            let rest = &connection.inbox[passed..];
            let size = whole(rest).map_err(|_| Ending::Lost(NO_PEERS.to_owned()))?;
            let Some(size) = size.filter(|&size| size <= rest.len()) else {
                break;
            };
            let mut told = Vec::new();
            let does_pass =
                self.hear_frame(connection, passed + SIZE_BYTES..passed + size, &mut told)?;
            if does_pass && told.is_empty() {
                passed += size;
                continue;
            }
            // In order: what came before, then this, then what it gave rise to.
            let end = if does_pass { passed + size } else { passed };
            let before = connection.inbox.split_to(end);
            self.tell(before.freeze());
            self.tell(told.into());
            if !does_pass {
                connection.inbox.advance(size);
            }
            passed = 0;
        }
        let before = connection.inbox.split_to(passed);
        self.tell(before.freeze());
        Ok(())
    }

    /// Is this frame for the host? `told`: what else it is to be told, behind it.
    fn hear_frame(
        &mut self,
        connection: &mut Connection<'_>,
        frame: std::ops::Range<usize>,
        told: &mut Vec<u8>,
    ) -> Result<bool, Ending> {
        let frame = &connection.inbox[frame];
        let kind = frame.first().copied().unwrap_or_default();
        // All others are passed on unread; the host's end reads them.
        const READ: [EventType; 4] = [
            EventType::Welcome,
            EventType::Done,
            EventType::Probe,
            EventType::Goodbye,
        ];
        if kind == DOWN {
            return Err(Ending::Lost(NO_PEERS.to_owned()));
        }
        if connection.is_welcome && !READ.iter().any(|&read| read as u8 == kind) {
            return Ok(true);
        }
        let event = read_event(frame).map_err(|_| Ending::Lost(NO_PEERS.to_owned()))?;
        match event {
            Told::Welcome { .. } => {
                connection.is_welcome = true;
                connection.asked_at = None;
                self.is_down = false;
                self.calls.say_again(&mut connection.out, told);
                Ok(true)
            }
            Told::Done { ticket, payload } => {
                Ok(self.calls.heard(ticket, Ok(payload.bytes), told) == Heard::Pass)
            }
            Told::Failed { ticket, reason, .. } => {
                Ok(self.calls.heard(ticket, Err(reason), told) == Heard::Pass)
            }
            Told::Probe => {
                write_call(&Call::Alive, &mut connection.out);
                Ok(false)
            }
            Told::Goodbye { code, reason } => {
                let is_final =
                    !connection.is_welcome && code == Code::NotAllowed.as_str().as_bytes();
                if is_final {
                    let whole = [&(frame.len() as u32).to_le_bytes()[..], frame].concat();
                    self.tell(whole.into());
                    return Err(Ending::Over);
                }
                let text = String::from_utf8_lossy;
                Err(Ending::Lost(format!("{} ({})", text(reason), text(code))))
            }
            _ => Err(Ending::Lost(NO_PEERS.to_owned())),
        }
    }
}

impl Carrier {
    /// Waits until there is something to do, looks after calls and host, and says what was found at the other
    /// descriptor.
    fn wait(
        &mut self,
        other: Option<(BorrowedFd<'_>, PollFlags)>,
        until: Option<Instant>,
    ) -> Result<PollFlags, Ending> {
        self.far.settle();
        let deadlines = [until, self.calls.next_deadline(), self.leave_by];
        let deadline = deadlines.into_iter().flatten().min();
        let far = self.far.fd();
        let mut watched = Vec::with_capacity(2);
        if let Some((fd, flags)) = other {
            watched.push(PollFd::from_borrowed_fd(fd, flags));
        }
        // Of a host that is gone there is no more news, but its descriptor would tell that for ever.
        if !self.far.is_closed() || self.leave_by.is_none() {
            watched.push(PollFd::from_borrowed_fd(far, PollFlags::IN));
        }
        poll_until(&mut watched, deadline);
        let found = match other {
            Some(_) => watched[0].revents(),
            None => PollFlags::empty(),
        };
        drop(watched);
        self.take_calls();
        let mut told = Vec::new();
        self.calls.expire(Instant::now(), &mut told);
        self.tell(told.into());
        self.flush();
        self.charge();
        if self.leave_by.is_some_and(|by| by <= Instant::now()) {
            return Err(Ending::Over);
        }
        Ok(found)
    }

    fn take_calls(&mut self) {
        // In this order: who sees that the host is gone has all its calls.
        let is_host_gone = self.far.is_closed();
        let queue = self.calls.queue();
        let before = queue.len();
        while self.far.take(queue) > 0 {}
        if is_host_gone && self.leave_by.is_none() {
            write_call(&Call::Bye, queue);
        }
        let size = queue.len() - before;
        self.calls.taken(size, Instant::now());
        if self.calls.is_ending() && self.leave_by.is_none() {
            self.leave_by = Some(Instant::now() + LEAVE_TIME);
        }
    }

    fn charge(&self) {
        let charged = self.calls.charged();
        self.backlog.0.store(charged, Ordering::Relaxed);
    }

    /// Tells the host, behind what it is told already.
    fn tell(&mut self, frames: Bytes) {
        if !frames.is_empty() && !self.far.is_closed() {
            self.gives.push_back(frames);
        }
        self.flush();
    }

    fn flush(&mut self) {
        if self.far.is_closed() {
            self.gives.clear();
        }
        while let Some(frames) = self.gives.pop_front() {
            if let Err(Item::Bytes(refused)) = self.far.give(Item::Bytes(frames)) {
                self.gives.push_front(refused);
                break;
            }
        }
    }

    /// Tells the host that there is no connection, unless it knows.
    fn say_down(&mut self, reason: &str) {
        // A new reason is news too, as long as the host listens.
        let is_known = self.is_down && (self.down == reason || !self.gives.is_empty());
        if !is_known {
            self.is_down = true;
            reason.clone_into(&mut self.down);
            let size = 1 + reason.len() as u32;
            let frame = [&size.to_le_bytes()[..], &[DOWN], reason.as_bytes()].concat();
            self.tell(frame.into());
        }
    }

    /// Gives the host what it was told, as long as it is there to take it.
    fn finish(mut self) {
        let mut ignored = Vec::new();
        loop {
            self.flush();
            if self.gives.is_empty() {
                return;
            }
            ignored.clear();
            while self.far.take(&mut ignored) > 0 {}
            self.far.settle();
            let far = self.far.fd();
            poll_until(&mut [PollFd::from_borrowed_fd(far, PollFlags::IN)], None);
        }
    }
}

/// One connection.
struct Connection<'s> {
    socket: BorrowedFd<'s>,
    /// Whole frames that are being sent, and how much of them was.
    out: Vec<u8>,
    sent: usize,
    /// What has come and was not looked at: less than a frame, between two reads.
    inbox: BytesMut,
    buffer: Box<[u8]>,
    is_welcome: bool,
    /// Has our direction been closed?
    is_shut: bool,
    heard_at: Instant,
    /// When the question was asked that the broker has not answered yet; the first is HELLO.
    asked_at: Option<Instant>,
}

/// What is said of a listener that does not speak as one for peers.
const NO_PEERS: &str = "what listens there does not speak to peers";

/// Waits until one of these is ready, at most until then.
fn poll_until(watched: &mut [PollFd<'_>], deadline: Option<Instant>) {
    let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
    let left = left.and_then(|left| Timespec::try_from(left).ok());
    // An interruption, or a lack of memory: whoever waits looks at everything and waits again.
    if poll(watched, left.as_ref()).is_err() {
        for fd in watched {
            fd.clear_revents();
        }
    }
}

/// A pause, less up to a half of it at random.
fn shortened(pause: Duration) -> Duration {
    let mut random = [0; 1];
    // Without randomness pauses are as long as they may be.
    let _ = getrandom::fill(&mut random);
    pause - pause / 512 * u32::from(random[0])
}
