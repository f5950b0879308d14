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

use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::address::{Address, ClientId};
use crate::broker::Broker;
use crate::limits::{CHANNEL_BYTES_MAX, NAME_BYTES_MAX, SERVER_MESSAGE_BYTES_MAX};
use crate::message::Payload;
use crate::net::links::{CallError, HostEnd};
use crate::protocol::Outcome;
use crate::protocol::peer::Admitted;
use crate::protocol::peer::call::{Call, write_call};
use crate::secret::Secret;
use crate::topic::{Filter, Topic};

mod error;
mod event;

pub use crate::protocol::peer::{Audience, PeerPattern, Watch};
pub use error::LinkError;
pub use event::{Arrival, Event, RequestId};

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
    carrier: ManuallyDrop<HostEnd>,
    tickets: AtomicU64,
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
        check_name(name.as_bytes())?;
        let carrier = broker.open_link()?;
        Ok(Link {
            carrier: ManuallyDrop::new(carrier),
            tickets: AtomicU64::new(0),
        })
    }

    /// A Link to the listener for peers of a broker elsewhere, `unix:/path` or `tcp://host:port`, with its key if it
    /// asks for one. Returns at once; [`Event::Up`] tells when it is in. Until then, and whenever the connection breaks,
    /// calls wait in the queue, requests for as long as their timeout; it connects again after 50 ms, then ever less
    /// often, up to every 5 s. What it watches, subscribes to, handles and has accepted is said again before the calls
    /// that wait. A call that was on its way when the connection broke is not made a second time: if its answer is
    /// lost, it is [`Event::Failed`] with `timeout`.
    ///
    /// # Errors
    /// [`LinkError::Invalid`], [`LinkError::System`].
    pub fn connect(url: &str, name: &str, key: Option<&Secret>) -> Result<Link, LinkError> {
        check_name(name.as_bytes())?;
        let _ = (url, key);
        Err(LinkError::Invalid("no such url"))
    }
}

/// Topics.
impl Link {
    /// From the answer on, messages that match come as [`Event::Message`].
    ///
    /// # Errors
    /// As for every call.
    pub fn subscribe(&self, filter: &Filter, answer: Answer) -> Result<Ticket, LinkError> {
        self.call(answer, |ticket| Call::Subscribe { ticket, filter })
    }

    /// After the answer, no more. Answered also if there was nothing to remove.
    ///
    /// # Errors
    /// As for every call.
    pub fn unsubscribe(&self, filter: &Filter, answer: Answer) -> Result<Ticket, LinkError> {
        self.call(answer, |ticket| Call::Unsubscribe { ticket, filter })
    }

    /// Counted: the first of this channel subscribes to the name, as [`Filter::exact`]; later ones count up. Each has a
    /// ticket, whose `Done` comes when the subscription holds.
    ///
    /// # Errors
    /// As for every call; nothing is counted then.
    pub fn maybe_subscribe(&self, channel: impl AsRef<[u8]>) -> Result<Ticket, LinkError> {
        let _ = channel.as_ref();
        Err(LinkError::Stopped)
    }

    /// Counts down; the last unsubscribes. A channel that was not counted up is left alone. Each has a ticket.
    ///
    /// # Errors
    /// As for every call; nothing is counted then.
    pub fn maybe_unsubscribe(&self, channel: impl AsRef<[u8]>) -> Result<Ticket, LinkError> {
        let _ = channel.as_ref();
        Err(LinkError::Stopped)
    }

    /// A message to everybody whose filter matches, of whatever protocol; with `echo` to this Link too, if it
    /// subscribes. Answered when every shard that has subscribers has it.
    ///
    /// # Errors
    /// As for every call.
    pub fn publish(
        &self,
        topic: &Topic,
        payload: &Payload,
        echo: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        check_payload(payload)?;
        self.call(answer, |ticket| Call::Publish {
            ticket,
            topic,
            payload,
            echo,
        })
    }
}

/// Events and requests.
impl Link {
    /// An event for one: a service, a peer, a client. `volatile`: it may be dropped for who is not ready.
    ///
    /// # Errors
    /// As for every call. [`LinkError::Invalid`] also for a topic, which is published to.
    pub fn emit(
        &self,
        to: &Address,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        volatile: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_address(to)?;
        check_event(event)?;
        check_payload(payload)?;
        self.call(answer, |ticket| Call::Emit {
            ticket,
            to,
            event,
            payload,
            volatile,
        })
    }

    /// An event for many: the clients in rooms, all clients, or peers by name or pattern; each gets it once.
    ///
    /// # Errors
    /// As for every call.
    pub fn emit_many(
        &self,
        to: &Audience,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        volatile: bool,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_audience(to)?;
        check_event(event)?;
        check_payload(payload)?;
        self.call(answer, |ticket| Call::EmitMany {
            ticket,
            to,
            event,
            payload,
            volatile,
        })
    }

    /// Asks one; the answer is the `Done` of the ticket, or `Failed` with the handler's code, `no_handler` or `timeout`.
    /// `timeout` in ms is rounded up; zero is the broker's default (60 s), which is also the most.
    ///
    /// # Errors
    /// As for [`Link::emit`].
    pub fn request(
        &self,
        to: &Address,
        event: impl AsRef<[u8]>,
        payload: &Payload,
        timeout: Duration,
    ) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_address(to)?;
        check_event(event)?;
        check_payload(payload)?;
        let timeout_ms = timeout.as_nanos().div_ceil(1_000_000);
        let timeout_ms = u32::try_from(timeout_ms).unwrap_or(u32::MAX);
        self.call(Answer::Wanted, |ticket| Call::Request {
            ticket,
            to,
            event,
            payload,
            timeout_ms,
        })
    }

    /// Answers a request. Once: a second answer is [`LinkError::NoRequest`].
    ///
    /// # Errors
    /// As for every call; [`LinkError::NoRequest`].
    pub fn reply(&self, request: RequestId, payload: Payload) -> Result<(), LinkError> {
        check_payload(&payload)?;
        self.answer(request, &Outcome::Data(payload))
    }

    /// Answers a request by a failure: a code for programs, a reason for persons.
    ///
    /// # Errors
    /// As for [`Link::reply`].
    pub fn reply_error(
        &self,
        request: RequestId,
        code: &str,
        reason: &str,
    ) -> Result<(), LinkError> {
        check_event(code.as_bytes())?;
        check_text(reason.as_bytes())?;
        let outcome = Outcome::Failed {
            code: code.to_owned().into(),
            reason: reason.to_owned().into(),
        };
        self.answer(request, &outcome)
    }

    /// From the answer on, requests and events of this name may come here.
    ///
    /// # Errors
    /// As for every call.
    pub fn handle(&self, event: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_event(event)?;
        self.call(answer, |ticket| Call::Handle { ticket, event })
    }

    /// After the answer, none will.
    ///
    /// # Errors
    /// As for every call.
    pub fn unhandle(&self, event: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let event = event.as_ref();
        check_event(event)?;
        self.call(answer, |ticket| Call::Unhandle { ticket, event })
    }
}

/// Clients.
impl Link {
    /// From the answer on, this Link is told of this, and of nothing else. Whoever watches clients hosts its part of
    /// those that come in from then on; whoever watches [`Watch::ADMIT`] is asked first.
    ///
    /// # Errors
    /// As for every call.
    pub fn watch(&self, mask: Watch, answer: Answer) -> Result<Ticket, LinkError> {
        if !Watch::ALL.has(mask) {
            return Err(LinkError::Invalid("the mask has a bit that means nothing"));
        }
        self.call(answer, |ticket| Call::Watch { ticket, mask })
    }

    /// Lets a client in that [`Event::Admit`] asked about; as this user, or as whom its token says.
    ///
    /// # Errors
    /// As for every call.
    pub fn admit(&self, client: ClientId, user: Option<&str>) -> Result<(), LinkError> {
        check_text(user.unwrap_or_default().as_bytes())?;
        let user = user.map(|user| user.as_bytes().to_vec().into());
        let verdict = Admitted::Yes { user };
        let verdict = &verdict;
        self.tell(|| Call::Admit { client, verdict })
    }

    /// Refuses it, with this reason.
    ///
    /// # Errors
    /// As for every call.
    pub fn refuse(&self, client: ClientId, reason: &str) -> Result<(), LinkError> {
        check_text(reason.as_bytes())?;
        let reason = reason.as_bytes().to_vec().into();
        let verdict = &Admitted::No { reason };
        self.tell(|| Call::Admit { client, verdict })
    }

    /// This client is in this room from now on: up to 1024 bytes, any.
    ///
    /// # Errors
    /// As for every call.
    pub fn join(
        &self,
        client: ClientId,
        room: impl AsRef<[u8]>,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let room = room.as_ref();
        check_room(room)?;
        self.call(answer, |ticket| Call::Join {
            ticket,
            client,
            room,
        })
    }

    /// It is not any more.
    ///
    /// # Errors
    /// As for every call.
    pub fn leave(
        &self,
        client: ClientId,
        room: impl AsRef<[u8]>,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        let room = room.as_ref();
        check_room(room)?;
        self.call(answer, |ticket| Call::Leave {
            ticket,
            client,
            room,
        })
    }

    /// Closes a client's connection, after what was said to it so far. The code is of a close frame: 1000 or 3000 to
    /// 4999; the reason up to 123 bytes.
    ///
    /// # Errors
    /// As for every call.
    pub fn disconnect(
        &self,
        client: ClientId,
        code: u16,
        reason: &str,
        answer: Answer,
    ) -> Result<Ticket, LinkError> {
        if !(code == 1000 || (3000..5000).contains(&code)) {
            return Err(LinkError::Invalid("the code is not 1000 or 3000 to 4999"));
        }
        if reason.len() > 123 {
            return Err(LinkError::Invalid("the reason is longer than 123 bytes"));
        }
        let reason = reason.as_bytes();
        self.call(answer, |ticket| Call::Disconnect {
            ticket,
            client,
            code,
            reason,
        })
    }

    /// Lets a client in that shows an id (`?id=`): this one or, if none is given, a random one, which the `Done` has.
    /// From then on it may be spoken to by the token. Said again, it answers with the same id.
    ///
    /// # Errors
    /// As for every call.
    pub fn accept(&self, token: impl AsRef<[u8]>, id: Option<&str>) -> Result<Ticket, LinkError> {
        let token = token.as_ref();
        check_event(token)?;
        let id = id.unwrap_or_default().as_bytes();
        check_text(id)?;
        self.call(Answer::Wanted, |ticket| Call::Accept { ticket, token, id })
    }

    /// Lets it in no more, and cuts it if it is in.
    ///
    /// # Errors
    /// As for every call.
    pub fn reject(&self, token: impl AsRef<[u8]>, answer: Answer) -> Result<Ticket, LinkError> {
        let token = token.as_ref();
        check_event(token)?;
        self.call(answer, |ticket| Call::Reject { ticket, token })
    }
}

/// Other peers. Only a Link of the broker's own process may say this.
impl Link {
    /// From the first call on only peers of admitted names come in.
    ///
    /// # Errors
    /// As for every call.
    pub fn admit_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        self.say_on_peer(name, true, answer)
    }

    /// A peer of this name comes in no more; if it is in, it stays until [`Link::cut_peer`].
    ///
    /// # Errors
    /// As for every call.
    pub fn reject_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        self.say_on_peer(name, false, answer)
    }

    /// Cuts a peer's connection.
    ///
    /// # Errors
    /// As for every call.
    pub fn cut_peer(&self, name: &str, answer: Answer) -> Result<Ticket, LinkError> {
        check_name(name.as_bytes())?;
        let name = name.as_bytes();
        self.call(answer, |ticket| Call::CutPeer { ticket, name })
    }

    fn say_on_peer(&self, name: &str, admitted: bool, answer: Answer) -> Result<Ticket, LinkError> {
        check_name(name.as_bytes())?;
        let name = name.as_bytes();
        self.call(answer, |ticket| Call::AdmitPeer {
            ticket,
            name,
            admitted,
        })
    }
}

/// Being told.
impl Link {
    /// Appends the events that have come to `events`, at most `events_max` of them, and says how many. Never waits.
    /// 0 if there is none, or after the last one.
    pub fn drain(&self, events: &mut Vec<Event>, events_max: usize) -> usize {
        let _ = (events, events_max);
        0
    }

    /// Waits until there is an event, at most for `timeout` (`None`: for ever); true if there is, or if the last one
    /// has been drained.
    pub fn wait(&self, timeout: Option<Duration>) -> bool {
        wait_readable(self.fd(), timeout)
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
            if left.is_some_and(|left| left.is_zero()) || !self.wait(left) {
                return None;
            }
        }
    }

    /// For an event loop to watch: readable, level-triggered, while there are events. Not to be read or closed.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.carrier.fd()
    }

    /// Makes the descriptor readable until the next drain, for a host that has events of its own to give with those of the
    /// Link.
    pub fn wake(&self) {
        self.carrier.wake();
    }

    /// Ends the Link after all calls made so far, as the drop does; the events that are left can still be drained, and
    /// the last is [`Event::Closed`].
    ///
    /// # Errors
    /// As for every call.
    pub fn close(&self) -> Result<(), LinkError> {
        self.tell(|| Call::Bye)
    }
}

impl Link {
    fn answer(&self, request: RequestId, outcome: &Outcome) -> Result<(), LinkError> {
        let number = request.0;
        self.tell(|| Call::Reply { number, outcome })
    }

    fn call<'a>(
        &self,
        answer: Answer,
        call: impl FnOnce(u64) -> Call<'a>,
    ) -> Result<Ticket, LinkError> {
        let ticket = match answer {
            Answer::Wanted => 1 + self.tickets.fetch_add(1, Ordering::Relaxed),
            Answer::Unwanted => 0,
        };
        self.tell(|| call(ticket))?;
        Ok(Ticket(ticket))
    }

    fn tell<'a>(&self, call: impl FnOnce() -> Call<'a>) -> Result<(), LinkError> {
        let call = call();
        let called = self.carrier.call(|out| write_call(&call, out));
        called.map_err(|error| match error {
            CallError::Full => LinkError::Full,
            CallError::Closed => LinkError::Stopped,
        })
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd()
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        let _ = self.close();
    }
}

/// The longest user, reason or id, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

fn check_name(name: &[u8]) -> Result<(), LinkError> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.iter().any(u8::is_ascii_control) {
        return Err(LinkError::Invalid(
            "a name has 1 to 255 bytes, none of them a control character",
        ));
    }
    Ok(())
}

fn check_event(event: &[u8]) -> Result<(), LinkError> {
    if event.is_empty() || event.len() > NAME_BYTES_MAX {
        return Err(LinkError::Invalid(
            "an event, code or token has 1 to 255 bytes",
        ));
    }
    Ok(())
}

fn check_room(room: &[u8]) -> Result<(), LinkError> {
    if room.len() > CHANNEL_BYTES_MAX {
        return Err(LinkError::Invalid("a room has at most 1024 bytes"));
    }
    Ok(())
}

fn check_text(text: &[u8]) -> Result<(), LinkError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(LinkError::Invalid(
            "a user, reason or id has at most 1024 bytes",
        ));
    }
    Ok(())
}

fn check_payload(payload: &Payload) -> Result<(), LinkError> {
    if payload.bytes().len() > SERVER_MESSAGE_BYTES_MAX {
        return Err(LinkError::Invalid("the payload is longer than 1 MiB"));
    }
    Ok(())
}

fn check_address(to: &Address) -> Result<(), LinkError> {
    match to {
        Address::Topic(_) => Err(LinkError::Invalid("a topic is published to")),
        Address::Service(name)
        | Address::Master(name)
        | Address::AnyPeer(name)
        | Address::Peer(name)
        | Address::Token(name) => check_event(name),
        Address::Client(_) => Ok(()),
    }
}

fn check_audience(to: &Audience) -> Result<(), LinkError> {
    match to {
        Audience::Clients {
            rooms,
            except_rooms,
            except: _,
        } => {
            let mut rooms = rooms.iter().chain(except_rooms);
            rooms.try_for_each(|room| check_room(room))
        }
        Audience::Peers(PeerPattern::All) => Ok(()),
        Audience::Peers(PeerPattern::Name(name)) => check_event(name),
        Audience::Peers(PeerPattern::Regex(pattern)) => check_text(pattern),
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

const _: () = {
    const fn any_thread<T: Send + Sync>() {}
    any_thread::<Link>();
};

#[allow(unused, reason = "used by the remote carrier")]
fn _io(error: io::Error) -> LinkError {
    error.into()
}
