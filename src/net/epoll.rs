//! The epoll driver: non-blocking sockets, level-triggered readiness.
//!
//! It collects before it returns: passes over the ready list until one brings nothing, so that what arrived
//! together is answered together (a joined send costs a fraction of two). Everything that a turn reads lies in
//! one arena; when that is full the rest stays in the sockets, which are ready again at once.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Buf as _;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendFlags, Shutdown, SocketFlags, accept_with, recv, send,
    sendmsg, shutdown,
};

use crate::address::{RemoteAddress, SessionId, ShardId};
use crate::limits::{KIB, TURN_BYTES_MAX};
use crate::shard::outbox::Chunks;
use crate::shard::{Ending, Now};

use super::clock::Clock;
use super::listener::{Listening, learn_remote};
use super::pieces::Pieces;
use super::waker::Waker;
use super::{Buffer, Driver, Sending, Taken};

/// What one turn reads at most, of all connections.
pub const ARENA_BYTES: usize = TURN_BYTES_MAX;
/// Frames of one send up to this size are copied together; above it the kernel gathers them.
const COPY_BYTES_MAX: usize = 16 * KIB;
/// Ready descriptors of one pass.
const EVENTS_MAX: usize = 1024;
/// Passes of one turn.
const PASSES_MAX: usize = 8;
/// Connections accepted from one listener in one pass.
const ACCEPTS_MAX: usize = 64;
/// How long a listener rests when there are no descriptors left.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Event data of the wake descriptor, and, or-ed with an index, of the listeners. Generations of connections stay
/// below the upper bit.
const WAKE: u64 = u64::MAX;
const LISTENER: u64 = 1 << 63;

struct Connection {
    socket: OwnedFd,
    interest: EventFlags,
    /// What is left of the send under way. Boxed: most connections have none.
    sending: Option<Box<Chunks>>,
    /// The turn it was last read in, and how much. Turns begin again after 2^32: if one that slept so long is read in the
    /// very turn of that number, its share of that turn is less, once. The bytes are at most those of the arena.
    turn: u32,
    turn_bytes: u32,
}

/// Every connection has one for its whole life, most of them idle: what is rare lies elsewhere.
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

struct Listener {
    listening: Listening,
    /// Not watched until then.
    rests_until: Option<Instant>,
    /// The last accept failed; the log was told.
    is_short: bool,
}

/// The driver.
pub struct Epoll {
    epoll: OwnedFd,
    waker: Waker,
    /// By shard.
    wakers: Arc<[Waker]>,
    listeners: Vec<Option<Listener>>,
    slots: Pieces<Slot>,
    /// Slots that were ever used, from the first.
    used: u32,
    /// Of these, those of nobody.
    free: Vec<u32>,
    /// What one turn reads at most of one connection (promise 10).
    turn_bytes_max: usize,
    arena: Vec<u8>,
    filled: usize,
    events: Vec<Event>,
    detached: Vec<(SessionId, OwnedFd)>,
    /// The same, to the host.
    released: Vec<(SessionId, OwnedFd)>,
    adopted: Vec<(u32, Option<SessionId>)>,
    scratch: Vec<u8>,
    turn: u32,
    clock: Clock,
}

impl Epoll {
    /// A driver with these listeners. `wakers[shard]` wakes each shard, this one by `wakers[own]`. A turn reads at most
    /// `turn_bytes_max` of one connection.
    ///
    /// # Errors
    /// If the kernel has no epoll instance or memory left.
    pub fn new(
        own: ShardId,
        wakers: Arc<[Waker]>,
        listeners: Vec<Listening>,
        turn_bytes_max: usize,
        clock: Clock,
    ) -> io::Result<Epoll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = wakers[own.index()].clone();
        epoll::add(&epoll, waker.fd(), EventData::new_u64(WAKE), EventFlags::IN)?;
        for (index, listening) in listeners.iter().enumerate() {
            epoll::add(
                &epoll,
                listening.socket(),
                EventData::new_u64(LISTENER | index as u64),
                EventFlags::IN,
            )?;
        }
        Ok(Epoll {
            epoll,
            waker,
            wakers,
            listeners: listeners
                .into_iter()
                .map(|listening| {
                    Some(Listener {
                        listening,
                        rests_until: None,
                        is_short: false,
                    })
                })
                .collect(),
            slots: Pieces::default(),
            used: 0,
            free: Vec::new(),
            turn_bytes_max: turn_bytes_max.min(ARENA_BYTES),
            arena: vec![0; ARENA_BYTES],
            filled: 0,
            events: Vec::with_capacity(EVENTS_MAX),
            detached: Vec::new(),
            released: Vec::new(),
            adopted: Vec::new(),
            scratch: Vec::with_capacity(COPY_BYTES_MAX),
            turn: 0,
            clock,
        })
    }

    fn find(&mut self, session: SessionId) -> Option<&mut Connection> {
        find(&mut self.slots, session)
    }

    fn insert(&mut self, socket: OwnedFd) -> io::Result<SessionId> {
        let index = self.free.pop().unwrap_or_else(|| {
            self.used += 1;
            self.used - 1
        });
        let slot = self.slots.reach(index, || Slot {
            generation: 0,
            connection: None,
        });
        let session = SessionId {
            slot: index,
            generation: slot.generation,
        };
        let interest = EventFlags::IN;
        if let Err(error) = epoll::add(&self.epoll, &socket, event_data(session), interest) {
            self.free.push(index);
            return Err(error.into());
        }
        slot.connection = Some(Connection {
            socket,
            interest,
            sending: None,
            turn: 0,
            turn_bytes: 0,
        });
        Ok(session)
    }

    fn remove(&mut self, session: SessionId) -> Option<Connection> {
        self.find(session)?;
        let slot = self.slots.get_mut(session.slot)?;
        let connection = slot.connection.take()?;
        slot.generation = (slot.generation + 1) & (u32::MAX >> 1);
        self.free.push(session.slot);
        // Closing the descriptor would remove it as well, but a detached one lives on.
        let _ = epoll::delete(&self.epoll, &connection.socket);
        Some(connection)
    }

    /// One pass over what is ready; how many descriptors that were.
    fn pass(
        &mut self,
        wait: Option<Duration>,
        taken: &mut Vec<Taken<OwnedFd>>,
    ) -> io::Result<usize> {
        let timeout = wait.map(|wait| Timespec {
            tv_sec: wait.as_secs().min(86_400) as i64,
            // A wait that is cut down to nothing would spin until its deadline.
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let result = epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            timeout.as_ref(),
        );
        let count = match result {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => {
                self.events = events;
                return Err(error.into());
            }
        };
        for event in &events {
            let (data, flags) = (event.data.u64(), event.flags);
            if data == WAKE {
                self.waker.clear();
            } else if data & LISTENER != 0 {
                self.accept((data & !LISTENER) as usize, taken);
            } else {
                self.attend(session_id(data), flags, taken);
            }
        }
        self.events = events;
        Ok(count)
    }

    fn accept(&mut self, index: usize, taken: &mut Vec<Taken<OwnedFd>>) {
        for _ in 0..ACCEPTS_MAX {
            let Some(listener) = &mut self.listeners[index] else {
                return;
            };
            let socket = match accept_with(
                listener.listening.socket(),
                SocketFlags::NONBLOCK | SocketFlags::CLOEXEC,
            ) {
                Ok(socket) => socket,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(Errno::AGAIN) => return,
                Err(error) => {
                    // No descriptors or memory: the clients that are here are served as before, and the listener
                    // is looked at again later instead of being ready all the time.
                    if !listener.is_short {
                        listener.is_short = true;
                        tracing::warn!(%error, "can't accept; new clients wait");
                    }
                    listener.rests_until = Some(Instant::now() + ACCEPT_REST);
                    let _ = epoll::delete(&self.epoll, listener.listening.socket());
                    return;
                }
            };
            let was_short = std::mem::take(&mut listener.is_short);
            let listener = listener.listening.index();
            let address = RemoteAddress::default();
            learn_remote(&socket, &address);
            if was_short {
                tracing::info!("accepting again");
            }
            if let Ok(session) = self.insert(socket) {
                taken.push(Taken::Accepted {
                    session,
                    listener,
                    address,
                });
            }
        }
    }

    /// Listeners that have rested are watched again.
    fn wake_listeners(&mut self) {
        for (index, listener) in self.listeners.iter_mut().enumerate() {
            if let Some(Listener {
                listening,
                rests_until,
                ..
            }) = listener
                && rests_until.is_some_and(|until| until <= Instant::now())
            {
                *rests_until = None;
                let data = EventData::new_u64(LISTENER | index as u64);
                let _ = epoll::add(&self.epoll, listening.socket(), data, EventFlags::IN);
            }
        }
    }

    fn attend(&mut self, session: SessionId, flags: EventFlags, taken: &mut Vec<Taken<OwnedFd>>) {
        if flags.contains(EventFlags::OUT) {
            self.resume_send(session, taken);
        }
        let (turn, turn_bytes_max) = (self.turn, self.turn_bytes_max);
        let Some(connection) = find(&mut self.slots, session) else {
            return;
        };
        let is_broken = flags.intersects(EventFlags::HUP | EventFlags::ERR);
        if !connection.interest.contains(EventFlags::IN) {
            if is_broken {
                // Not read, and it would be reported for ever.
                self.ended(session, Ending::Failed, taken);
            }
            return;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return;
        }
        if connection.turn != turn {
            (connection.turn, connection.turn_bytes) = (turn, 0);
        }
        let allowed = turn_bytes_max - connection.turn_bytes as usize;
        let start = self.filled;
        let end = self.arena.len().min(start + allowed);
        if start == end {
            return;
        }
        match recv(
            &connection.socket,
            &mut self.arena[start..end],
            RecvFlags::DONTWAIT,
        ) {
            Ok((_, 0)) => self.ended(session, Ending::EndOfInput, taken),
            Ok((_, size)) => {
                connection.turn_bytes += size as u32;
                self.filled += size;
                taken.push(Taken::Received {
                    session,
                    buffer: Buffer { start, size },
                });
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.ended(session, Ending::Failed, taken),
        }
    }

    /// Reports an end, once: the connection is not read any more.
    fn ended(&mut self, session: SessionId, ending: Ending, taken: &mut Vec<Taken<OwnedFd>>) {
        let Some(connection) = find(&mut self.slots, session) else {
            return;
        };
        match ending {
            Ending::EndOfInput => self.set_reading(session, false),
            Ending::Failed => {
                connection.sending = None;
                connection.interest = EventFlags::empty();
                let _ = epoll::delete(&self.epoll, &connection.socket);
            }
        }
        taken.push(Taken::Ended { session, ending });
    }

    fn resume_send(&mut self, session: SessionId, taken: &mut Vec<Taken<OwnedFd>>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        if let Some(connection) = self.find(session)
            && let Some(mut chunks) = connection.sending.take()
        {
            match send_chunks(&connection.socket, &mut chunks, &mut scratch) {
                Sending::Done => {
                    let interest = connection.interest - EventFlags::OUT;
                    self.set_interest(session, interest);
                    taken.push(Taken::Sent { session });
                }
                Sending::Pending => connection.sending = Some(chunks),
                Sending::Failed => self.ended(session, Ending::Failed, taken),
            }
        }
        self.scratch = scratch;
    }

    fn set_interest(&mut self, session: SessionId, interest: EventFlags) {
        if let Some(connection) = find(&mut self.slots, session)
            && connection.interest != interest
        {
            connection.interest = interest;
            let _ = epoll::modify(
                &self.epoll,
                &connection.socket,
                event_data(session),
                interest,
            );
        }
    }
}

impl Driver for Epoll {
    type Socket = OwnedFd;

    fn take(&mut self, wait: Option<Duration>, taken: &mut Vec<Taken<OwnedFd>>) -> io::Result<()> {
        self.turn = self.turn.wrapping_add(1);
        self.filled = 0;
        for (session, socket) in std::mem::take(&mut self.detached) {
            taken.push(Taken::Detached {
                session,
                socket: Some(socket),
                bytes: Vec::new(),
            });
        }
        for (session, socket) in std::mem::take(&mut self.released) {
            taken.push(Taken::Released {
                session,
                socket: Some(socket),
                bytes: Vec::new(),
            });
        }
        for (number, session) in std::mem::take(&mut self.adopted) {
            taken.push(Taken::Adopted { number, session });
        }
        let rests = self
            .listeners
            .iter()
            .flatten()
            .filter_map(|listener| listener.rests_until)
            .min();
        let mut wait = if taken.is_empty() {
            wait
        } else {
            Some(Duration::ZERO)
        };
        if let Some(until) = rests {
            let rest = until.saturating_duration_since(Instant::now());
            wait = Some(wait.map_or(rest, |wait| wait.min(rest)));
        }
        for _ in 0..PASSES_MAX {
            let before = taken.len();
            let ready = self.pass(wait, taken)?;
            // A pass that found work may have been overtaken by more; one that found none has seen it all.
            if ready == 0
                || taken.len() == before
                || self.filled + self.turn_bytes_max > self.arena.len()
            {
                break;
            }
            wait = Some(Duration::ZERO);
        }
        if rests.is_some() {
            self.wake_listeners();
        }
        Ok(())
    }

    fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        &mut self.arena[buffer.start..buffer.start + buffer.size]
    }

    fn send(&mut self, session: SessionId, mut chunks: Chunks) -> Sending {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut sending = Sending::Failed;
        if let Some(connection) = self.find(session) {
            debug_assert!(
                connection.sending.is_none(),
                "at most one send is under way per connection"
            );
            sending = send_chunks(&connection.socket, &mut chunks, &mut scratch);
            if sending == Sending::Pending {
                connection.sending = Some(Box::new(chunks));
                let interest = connection.interest | EventFlags::OUT;
                self.set_interest(session, interest);
            }
        }
        self.scratch = scratch;
        sending
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_reading(&mut self, session: SessionId, reading: bool) {
        if let Some(connection) = self.find(session) {
            let mut interest = connection.interest;
            interest.set(EventFlags::IN, reading);
            self.set_interest(session, interest);
        }
    }

    fn shutdown_write(&mut self, session: SessionId) {
        if let Some(connection) = self.find(session) {
            let _ = shutdown(&connection.socket, Shutdown::Write);
        }
    }

    fn close(&mut self, session: SessionId, reset: bool) {
        if let Some(connection) = self.remove(session)
            && reset
        {
            let _ =
                rustix::net::sockopt::set_socket_linger(&connection.socket, Some(Duration::ZERO));
        }
    }

    fn detach(&mut self, session: SessionId, _to: ShardId) {
        if let Some(connection) = self.remove(session) {
            self.detached.push((session, connection.socket));
        }
    }

    fn release(&mut self, session: SessionId) {
        if let Some(connection) = self.remove(session) {
            self.released.push((session, connection.socket));
        }
    }

    fn adopt(&mut self, number: u32, socket: OwnedFd) {
        // As those that are accepted; a host may have it otherwise.
        let is_ready = rustix::io::ioctl_fionbio(&socket, true).is_ok();
        let session = is_ready.then(|| self.insert(socket).ok()).flatten();
        self.adopted.push((number, session));
    }

    fn attach(&mut self, socket: OwnedFd) -> Option<SessionId> {
        self.insert(socket).ok()
    }

    fn stop_accepting(&mut self) {
        // Whoever is in the queue of the listener has connected: closing it would reset them unheard.
        for listener in &mut self.listeners {
            if let Some(Listener { listening, .. }) = listener.take() {
                let _ = epoll::delete(&self.epoll, listening.socket());
            }
        }
    }

    fn wake(&mut self, shard: ShardId) {
        self.wakers[shard.index()].wake();
    }

    fn now(&self) -> Now {
        self.clock.now()
    }
}

fn find(slots: &mut Pieces<Slot>, session: SessionId) -> Option<&mut Connection> {
    let slot = slots.get_mut(session.slot)?;
    slot.connection
        .as_mut()
        .filter(|_| slot.generation == session.generation)
}

/// Sends as much as the socket takes; what is left stays in `chunks`.
fn send_chunks(socket: &OwnedFd, chunks: &mut Chunks, scratch: &mut Vec<u8>) -> Sending {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    let total: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    let mut left = total;
    while left > 0 {
        let result = if let [chunk] = chunks.as_slice() {
            send(socket.as_fd(), chunk, flags)
        } else if left <= COPY_BYTES_MAX {
            scratch.clear();
            for chunk in chunks.iter() {
                scratch.extend_from_slice(chunk);
            }
            send(socket.as_fd(), scratch, flags)
        } else {
            // The kernel takes at most 1024 parts at once.
            let parts: smallvec::SmallVec<[IoSlice<'_>; 64]> = chunks
                .iter()
                .take(1024)
                .map(|chunk| IoSlice::new(chunk))
                .collect();
            sendmsg(
                socket.as_fd(),
                &parts,
                &mut SendAncillaryBuffer::default(),
                flags,
            )
        };
        match result {
            Ok(mut sent) => {
                left -= sent;
                let whole = chunks
                    .iter()
                    .take_while(|chunk| {
                        let is_whole = chunk.len() <= sent;
                        sent -= if is_whole { chunk.len() } else { 0 };
                        is_whole
                    })
                    .count();
                chunks.drain(..whole);
                if let Some(first) = chunks.first_mut() {
                    first.advance(sent);
                }
            }
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return Sending::Pending,
            Err(_) => return Sending::Failed,
        }
    }
    Sending::Done
}

fn event_data(session: SessionId) -> EventData {
    EventData::new_u64(u64::from(session.generation) << 32 | u64::from(session.slot))
}

fn session_id(data: u64) -> SessionId {
    SessionId {
        slot: data as u32,
        generation: (data >> 32) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_connection_costs_a_slot_of_32_bytes() {
        // Each connection has one for its whole life: with 100 000 of them every byte is 100 KB. What is rare is boxed.
        assert!(size_of::<Slot>() <= 32, "{}", size_of::<Slot>());
    }
}
