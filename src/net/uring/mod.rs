//! The io_uring driver: one ring per shard, everything in one system call per turn.
//!
//! - Connections are direct descriptors: the slot in the ring's table is the session's slot, and no ordinary
//!   descriptor is spent on them.
//! - Each listener has one accept, each connection one receive, that stay armed and complete many times; received bytes
//!   lie in buffers of one pool and are parsed where they are.
//! - Each connection has at most one send under way, so its order is never in doubt.
//! - One enter begins what the last turn queued and waits. The kernel then hands out a score of completions at a time;
//!   the loop goes on collecting until there are no more, or what arrived together would be answered apart.
//!
//! The rules for what a kernel may do to us (PROMISES, "io_uring hazards"):
//! - A slot is closed only when every operation on it has completed for the last time; `under_way` knows them. There is
//!   at most one of each kind, so a completion of one that is not under way is as stale as one of another generation.
//!   To abort: shut down both directions, cancel by tag, await the last completions, close.
//! - A completion whose generation is not the slot's belongs to an earlier connection and is dropped, its buffer
//!   returned.
//! - A receive that found no buffer is armed again when buffers have been returned, in the order of need: whoever got
//!   something this turn waits behind whoever got nothing.
//! - A connection that brought more than a turn's measure is not read until the next turn.
//! - An accept that found no slot rests until one is freed, or a moment.
//!
//! A direct descriptor tells no address, and an accept that stays armed neither: an ordinary descriptor is installed for a
//! moment to ask by. Where addresses decide anything, the shard hears of the connection after that, and only then is it
//! read; otherwise the answer is for operators, and nobody waits for it.
//!
//! The driver is safe code over a [`Kernel`]; the tests put a malicious one below it. This file is a single state machine:
//! the life of a slot.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf as _;
use hashbrown::{HashMap, HashSet};

use crate::address::{RemoteAddress, SessionId, ShardId};
use crate::limits::{KIB, TURN_BYTES_MAX};
use crate::shard::outbox::Chunks;
use crate::shard::{Ending, Now};

use super::clock::Clock;
use super::listener::{Listening, learn_remote};
use super::pieces::Pieces;
use super::waker::Waker;
use super::{Buffer, Driver, Sending, Taken};

use features::Features;
use kernel::{Completion, GENERATIONS, Kernel, Kind, Operation, Tag};
use ring::{Ring, RingFds};

mod buffers;
pub mod features;
pub mod kernel;
pub mod ring;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

/// What one turn reads at most of one connection (promise 10).
const CONNECTION_BYTES_MAX: usize = 64 * KIB;
/// Completions that the kernel runs in one enter; as many may mean that there are more.
const COMPLETIONS_PER_ENTER: usize = 20;
/// Enters of one turn that collect.
const PASSES_MAX: usize = 16;
/// Buffers of one turn, half of the pool: the other half takes what arrives while the turn routes.
const BUFFERS_PER_TURN: usize = 512;
/// How long an accept rests that found no slot, in ms.
const ACCEPT_REST_MS: u64 = 100;
/// A turn that brought so many receives was full: another one is likely to follow at once.
const RECEIVES_OF_FULL_TURN: usize = 64;
/// Errors that say nothing about a socket but that this attempt is over.
const PASSING: [i32; 4] = [
    libc::ECANCELED,
    libc::EINTR,
    libc::EAGAIN,
    libc::ECONNABORTED,
];

/// A connection in the table of the ring that it was sent to.
#[derive(Debug)]
pub struct Direct(u32);

/// Where a connection is in its life.
#[derive(Debug)]
enum State {
    /// Nobody's.
    Free,
    /// The shard's.
    Open,
    /// On its way to another shard, or to the host.
    Leaving(Box<Leaving>),
    /// The shard has forgotten it; operations are still under way.
    Closing,
    /// The close itself is under way.
    Closed,
}

/// What only a connection on its way needs.
#[derive(Debug)]
struct Leaving {
    /// None: the host.
    to: Option<ShardId>,
    /// That still came.
    bytes: Vec<u8>,
    is_sent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Receive {
    Idle,
    Armed,
    Cancelled,
}

/// Every connection has one for its whole life, most of them idle: what is rare lies elsewhere.
#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The turn it was last read in, and how much. Turns begin again after 2^32: if one that slept so long is read in the
    /// very turn of that number, its share of that turn is less, once. The bytes are at most those of the pool.
    turn: u32,
    turn_bytes: u32,
    /// Operations whose last completion has not come, a bit for each [`Kind`].
    under_way: u16,
    receive: Receive,
    /// A bit for each of the following.
    flags: u8,
    state: State,
}

/// The shard reads it.
const WANTS_READING: u8 = 1;
/// No more bytes will come.
const ENDED: u8 = 2;
/// It is gone, and that was said.
const FAILED: u8 = 4;

impl Slot {
    fn free(generation: u32) -> Slot {
        Slot {
            generation,
            turn: 0,
            turn_bytes: 0,
            under_way: 0,
            receive: Receive::Idle,
            flags: 0,
            state: State::Free,
        }
    }

    fn is(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    fn set(&mut self, flag: u8, is_set: bool) {
        self.flags = self.flags & !flag | if is_set { flag } else { 0 };
    }

    /// An operation is under way from now on.
    fn begin(&mut self, kind: Kind) {
        debug_assert!(!self.is_under_way(kind), "one {kind:?} at a time");
        self.under_way |= kind.bit();
    }

    fn is_under_way(&self, kind: Kind) -> bool {
        self.under_way & kind.bit() != 0
    }
}

/// A connection whose address is being found out.
#[derive(Debug)]
struct Nameless {
    /// To be filled in.
    address: RemoteAddress,
    /// The index of its listener, if nobody has been told of it yet.
    untold: Option<u16>,
}

/// A listener's accept.
#[derive(Clone, Copy, Debug)]
struct Accept {
    /// The listener's index in the settings.
    index: u16,
    is_armed: bool,
    is_stopped: bool,
    rests_until_ms: Option<u64>,
    /// It failed last time, and that was logged.
    is_failing: bool,
}

/// The driver over a kernel.
pub struct Uring<K: Kernel> {
    kernel: K,
    features: Features,
    clock: Box<dyn Fn() -> Now>,
    slots: Pieces<Slot>,
    /// By slot: of connections whose install is under way.
    nameless: HashMap<u32, Nameless>,
    /// Numbers of the host's connections on their way into the table.
    adopting: HashSet<u32>,
    /// A connection is told of, and read, when its address is known or can't be. Needs [`Features::install`].
    addresses_first: bool,
    accepts: Vec<Accept>,
    /// Buffers that the shard reads this turn.
    lent: Vec<u16>,
    /// Buffers of what is kept for the next turn.
    lent_early: Vec<u16>,
    /// Taken while sends were settled: for the next turn.
    early: Vec<Taken<Direct>>,
    is_settling: bool,
    /// Receives to arm with the next turn: first those that found no buffer and got nothing this turn.
    hungry: VecDeque<SessionId>,
    /// And then everybody else.
    rearm: VecDeque<SessionId>,
    /// Taken over from the kernel and not looked at.
    reaped: VecDeque<Completion>,
    /// Bytes that this turn has taken.
    turn_bytes: usize,
    /// What one turn reads at most of one connection.
    connection_bytes_max: usize,
    turn: u32,
    /// How long a turn may wait for more after a full one; zero for not at all.
    coalesce: Duration,
    /// Receives that the last turn brought.
    received: usize,
}

/// What a ring is asked for.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// To be used if the kernel has them.
    pub features: Features,
    /// The length of its table of connections.
    pub slots_max: usize,
    /// What one turn reads at most of one connection, in bytes.
    pub turn_bytes_max: usize,
    /// Tell of a connection only when its address is known. Without, an address is known some time later, or never.
    pub addresses_first: bool,
    /// A host may want connections as ordinary descriptors.
    pub has_host: bool,
    /// How long a turn waits for more after a full one; zero for not at all.
    pub coalesce: Duration,
}

/// The driver over the real ring.
pub type UringDriver = Uring<Ring>;

impl UringDriver {
    /// Sets up a ring for shard `own`, on this thread.
    ///
    /// # Errors
    /// A sentence that says why there is no ring here.
    pub fn start(
        own: ShardId,
        wanted: &Wanted,
        wakers: Arc<[Waker]>,
        rings: RingFds,
        listeners: Vec<Listening>,
        clock: Clock,
    ) -> Result<UringDriver, String> {
        let (ring, features) = features::set_up(&wanted.features)?;
        if wanted.addresses_first && !features.install {
            let why = "--trust-proxy and --max-per-ip need the addresses of clients, which rings tell from Linux 6.8 on";
            return Err(why.to_owned());
        }
        if wanted.has_host && !features.install {
            let why = "a host gets its connections from rings from Linux 6.8 on";
            return Err(why.to_owned());
        }
        let indexes: Vec<u16> = listeners.iter().map(Listening::index).collect();
        let kernel = Ring::new(
            ring,
            features.clone(),
            own.index(),
            listeners,
            wakers,
            rings,
            wanted.slots_max,
        )
        .map_err(|error| format!("no buffer ring or table of direct descriptors: {error}"))?;
        let clock = Box::new(move || clock.now());
        let mut driver = Uring::new(kernel, features, &indexes, wanted.coalesce, clock);
        driver.connection_bytes_max = wanted.turn_bytes_max;
        driver.addresses_first = wanted.addresses_first;
        Ok(driver)
    }
}

impl<K: Kernel> Uring<K> {
    /// A driver that accepts from listeners with these indexes in the settings.
    pub fn new(
        kernel: K,
        features: Features,
        listeners: &[u16],
        coalesce: Duration,
        clock: Box<dyn Fn() -> Now>,
    ) -> Uring<K> {
        let accepts = listeners
            .iter()
            .map(|&index| Accept {
                index,
                is_armed: false,
                is_stopped: false,
                rests_until_ms: None,
                is_failing: false,
            })
            .collect();
        let mut driver = Uring {
            kernel,
            coalesce: if features.min_timeout {
                coalesce
            } else {
                Duration::ZERO
            },
            features,
            clock,
            slots: Pieces::default(),
            nameless: HashMap::new(),
            adopting: HashSet::new(),
            addresses_first: false,
            accepts,
            lent: Vec::new(),
            lent_early: Vec::new(),
            early: Vec::new(),
            is_settling: false,
            hungry: VecDeque::new(),
            rearm: VecDeque::new(),
            reaped: VecDeque::new(),
            turn_bytes: 0,
            connection_bytes_max: CONNECTION_BYTES_MAX,
            turn: 0,
            received: 0,
        };
        driver.arm_accepts();
        driver
    }

    /// What the kernel gives.
    pub fn features(&self) -> &Features {
        &self.features
    }

    /// The kernel, for the tests.
    #[cfg(test)]
    fn kernel_mut(&mut self) -> &mut K {
        &mut self.kernel
    }

    /// Takes completions over from the kernel; how many there were.
    fn reap(&mut self) -> usize {
        let before = self.reaped.len();
        self.kernel.reap(&mut self.reaped);
        self.reaped.len() - before
    }

    /// Looks at what was reaped, until the turn has as many bytes as one turn takes; true if it has.
    fn take_reaped(&mut self, taken: &mut Vec<Taken<Direct>>) -> bool {
        while self.turn_bytes < TURN_BYTES_MAX {
            let Some(completion) = self.reaped.pop_front() else {
                return false;
            };
            self.complete(completion, taken);
        }
        true
    }

    fn find(&mut self, session: SessionId) -> Option<&mut Slot> {
        self.slots
            .get_mut(session.slot)
            .filter(|slot| slot.generation == session.generation)
    }

    /// The slot, while its connection is the shard's.
    fn open(&mut self, session: SessionId) -> Option<&mut Slot> {
        self.find(session)
            .filter(|slot| matches!(slot.state, State::Open))
    }

    /// Queues an operation on a slot, to be crossed off by its last completion.
    fn begin(&mut self, session: SessionId, kind: Kind, operation: Operation) {
        if let Some(slot) = self.find(session) {
            slot.begin(kind);
            self.kernel.push(tag(kind, session), operation);
        }
    }

    fn cancel(&mut self, session: SessionId, kind: Kind) {
        let cancelled = tag(kind, session);
        self.kernel.push(
            tag(Kind::Cancel, session),
            Operation::Cancel { tag: cancelled },
        );
    }

    /// Arms the receive of a connection that wants to be read and is not.
    fn arm(&mut self, session: SessionId) {
        if let Some(slot) = self.open(session)
            && slot.is(WANTS_READING)
            && !slot.is(ENDED)
            && slot.receive == Receive::Idle
        {
            slot.receive = Receive::Armed;
            self.begin(
                session,
                Kind::Receive,
                Operation::Receive { slot: session.slot },
            );
        }
    }

    fn disarm(&mut self, session: SessionId) {
        if let Some(slot) = self.find(session)
            && slot.receive == Receive::Armed
        {
            slot.receive = Receive::Cancelled;
            self.cancel(session, Kind::Receive);
        }
    }

    /// A connection enters the table at this slot; it is not read yet.
    fn enter(&mut self, index: u32) -> SessionId {
        let slot = self.slots.reach(index, || Slot::free(0));
        // The kernel gives a slot away only after its close: if that completion is still to come, it is late.
        let generation = match slot.state {
            State::Free => slot.generation,
            State::Open | State::Leaving(_) | State::Closing | State::Closed => {
                next(slot.generation)
            }
        };
        *slot = Slot {
            state: State::Open,
            flags: WANTS_READING,
            ..Slot::free(generation)
        };
        SessionId {
            slot: index,
            generation,
        }
    }

    fn arm_accepts(&mut self) {
        let now_ms = (self.clock)().ms;
        for (listener, accept) in self.accepts.iter_mut().enumerate() {
            let rests = accept
                .rests_until_ms
                .is_some_and(|until_ms| now_ms < until_ms);
            if !accept.is_armed && !accept.is_stopped && !rests {
                accept.is_armed = true;
                accept.rests_until_ms = None;
                let tag = Tag {
                    kind: Kind::Accept,
                    slot: listener as u32,
                    generation: 0,
                };
                self.kernel.push(
                    tag,
                    Operation::Accept {
                        listener: listener as u16,
                    },
                );
            }
        }
    }

    fn complete(&mut self, completion: Completion, taken: &mut Vec<Taken<Direct>>) {
        let Completion { tag, buffer, .. } = &completion;
        match tag.kind {
            Kind::Accept => return self.accepted(&completion, taken),
            Kind::Cancel | Kind::Waker | Kind::Wake | Kind::Woken => return,
            Kind::Receive
            | Kind::Send
            | Kind::Shutdown
            | Kind::Abort
            | Kind::Close
            | Kind::SendFd
            | Kind::InstallFd
            | Kind::ReleaseFd
            | Kind::Linger => {}
            Kind::AdoptFd => return self.adopted(completion.tag.slot, completion.result, taken),
        }
        let session = SessionId {
            slot: tag.slot,
            generation: tag.generation,
        };
        let kind = tag.kind;
        let Some(slot) = self.find(session).filter(|slot| slot.is_under_way(kind)) else {
            // Of an earlier connection of this slot, or of nothing we asked: dropped, its buffer returned.
            if let Some(buffer) = *buffer {
                self.kernel.give_back(buffer);
            }
            return;
        };
        if !completion.more {
            slot.under_way &= !kind.bit();
        }
        // Only one that is not the shard's any more has something to do next.
        let is_open = matches!(slot.state, State::Open);
        match kind {
            Kind::Receive => self.received(session, &completion, taken),
            Kind::Send => self.sent(session, completion, taken),
            Kind::SendFd => self.fd_sent(session, completion.result, taken),
            Kind::ReleaseFd => self.released(session, completion.descriptor, taken),
            Kind::InstallFd => self.installed(session, completion.descriptor, taken),
            Kind::Close => self.closed(session),
            Kind::Shutdown | Kind::Abort | Kind::Linger => {}
            Kind::Accept
            | Kind::Cancel
            | Kind::AdoptFd
            | Kind::Waker
            | Kind::Wake
            | Kind::Woken => {
                unreachable!("returned above")
            }
        }
        if !is_open {
            self.go_on(session);
        }
    }

    fn accepted(&mut self, completion: &Completion, taken: &mut Vec<Taken<Direct>>) {
        let Some(accept) = self.accepts.get_mut(completion.tag.slot as usize) else {
            return;
        };
        let index = accept.index;
        let error = -completion.result;
        if !completion.more {
            accept.is_armed = false;
            if accept.is_stopped {
                self.kernel.drop_listener(completion.tag.slot as u16);
            } else if error > 0 && !PASSING.contains(&error) {
                // No slot or no memory: the clients that are here are served as before.
                accept.rests_until_ms = Some((self.clock)().ms + ACCEPT_REST_MS);
            }
        }
        // Said once, or the log would fill while nothing can be done.
        let is_news = !accept.is_failing;
        accept.is_failing = error > 0;
        match u32::try_from(completion.result) {
            Ok(slot) => {
                let address = RemoteAddress::default();
                let session = self.enter(slot);
                let untold = self.addresses_first.then_some(index);
                if untold.is_none() {
                    self.tell(session, index, address.clone(), taken);
                }
                if self.features.install {
                    self.nameless.insert(slot, Nameless { address, untold });
                    self.begin(session, Kind::InstallFd, Operation::InstallFd { slot });
                }
            }
            Err(_) if PASSING.contains(&error) => {}
            Err(_) if is_news => {
                let error = io::Error::from_raw_os_error(error);
                tracing::warn!(%error, "can't accept; trying again until it works");
            }
            Err(_) => {}
        }
        self.arm_accepts();
    }

    /// An accepted connection is the shard's from now on.
    fn tell(
        &mut self,
        session: SessionId,
        listener: u16,
        address: RemoteAddress,
        taken: &mut Vec<Taken<Direct>>,
    ) {
        self.arm(session);
        taken.push(Taken::Accepted {
            session,
            listener,
            address,
        });
    }

    /// The ordinary descriptor of a connection is there, for its address to be asked for; or there is none left.
    fn installed(
        &mut self,
        session: SessionId,
        descriptor: Option<OwnedFd>,
        taken: &mut Vec<Taken<Direct>>,
    ) {
        let Some(Nameless { address, untold }) = self.nameless.remove(&session.slot) else {
            return;
        };
        if let Some(descriptor) = descriptor {
            learn_remote(&descriptor, &address);
        }
        if let Some(listener) = untold {
            self.tell(session, listener, address, taken);
        }
    }

    fn received(
        &mut self,
        session: SessionId,
        completion: &Completion,
        taken: &mut Vec<Taken<Direct>>,
    ) {
        let turn = self.turn;
        let Some(slot) = self.slots.get_mut(session.slot) else {
            return;
        };
        if !completion.more {
            slot.receive = Receive::Idle;
        }
        let size = usize::try_from(completion.result).unwrap_or(0);
        if let Some(id) = completion.buffer {
            match &mut slot.state {
                State::Open if size > 0 => {
                    if slot.turn != turn {
                        (slot.turn, slot.turn_bytes) = (turn, 0);
                    }
                    slot.turn_bytes += size as u32;
                    let is_over = slot.turn_bytes as usize >= self.connection_bytes_max;
                    if self.is_settling {
                        self.lent_early.push(id);
                    } else {
                        self.lent.push(id);
                    }
                    self.received += 1;
                    self.turn_bytes += size;
                    let buffer = Buffer {
                        start: usize::from(id),
                        size,
                    };
                    taken.push(Taken::Received { session, buffer });
                    if is_over {
                        // Its turn is over; with the next one it is armed again.
                        self.disarm(session);
                    }
                }
                State::Leaving(leaving) => {
                    leaving
                        .bytes
                        .extend_from_slice(self.kernel.buffer(id, size));
                    self.kernel.give_back(id);
                }
                State::Free | State::Open | State::Closing | State::Closed => {
                    self.kernel.give_back(id)
                }
            }
        }
        if completion.more {
            return;
        }
        let Some(slot) = self.open(session) else {
            return;
        };
        match completion.result {
            0 => {
                slot.set(ENDED, true);
                taken.push(Taken::Ended {
                    session,
                    ending: Ending::EndOfInput,
                });
            }
            // It got nothing though it wants: the first to be served when buffers are back.
            result if result == -libc::ENOBUFS && slot.turn != turn => {
                self.hungry.push_back(session);
            }
            // It ended for a reason of the ring's, not of the connection's.
            result if result > 0 || result == -libc::ENOBUFS || PASSING.contains(&-result) => {
                self.rearm.push_back(session);
            }
            _ => self.failed(session, taken),
        }
    }

    /// The connection is gone: said once.
    fn failed(&mut self, session: SessionId, taken: &mut Vec<Taken<Direct>>) {
        if let Some(slot) = self.open(session)
            && !slot.is(FAILED)
        {
            slot.flags = FAILED | ENDED;
            taken.push(Taken::Ended {
                session,
                ending: Ending::Failed,
            });
        }
    }

    fn sent(&mut self, session: SessionId, completion: Completion, taken: &mut Vec<Taken<Direct>>) {
        let is_leaving = match self.find(session).map(|slot| &slot.state) {
            Some(State::Open) => false,
            // What was on its way when the connection was let go belongs to it.
            Some(State::Leaving(_)) => true,
            Some(State::Free | State::Closing | State::Closed) | None => return,
        };
        let Some(mut chunks) = completion.unsent else {
            // All of it was sent.
            if !is_leaving {
                taken.push(Taken::Sent { session });
            }
            return;
        };
        let sent = match usize::try_from(completion.result) {
            // One that sends nothing and says no why would do so for ever.
            Ok(0) => return self.failed(session, taken),
            Ok(sent) => sent,
            Err(_) if [libc::EINTR, libc::EAGAIN].contains(&-completion.result) => 0,
            // One that leaves fails where it arrives.
            Err(_) => return self.failed(session, taken),
        };
        // Cut short, by a signal or by the number of parts that one send may have: the rest follows.
        advance(&mut chunks, sent);
        self.push_send(session, *chunks);
    }

    fn push_send(&mut self, session: SessionId, chunks: Chunks) {
        self.begin(
            session,
            Kind::Send,
            Operation::Send {
                slot: session.slot,
                chunks,
            },
        );
    }

    fn fd_sent(&mut self, session: SessionId, result: i32, taken: &mut Vec<Taken<Direct>>) {
        let Some(slot) = self.find(session) else {
            return;
        };
        let State::Leaving(leaving) = std::mem::replace(&mut slot.state, State::Closing) else {
            return;
        };
        let bytes = leaving.bytes;
        match u32::try_from(result) {
            Ok(there) => taken.push(Taken::Detached {
                session,
                socket: Some(Direct(there)),
                bytes,
            }),
            Err(_) => {
                let error = io::Error::from_raw_os_error(-result);
                tracing::warn!(%error, "can't hand a connection over");
                taken.push(Taken::Detached {
                    session,
                    socket: None,
                    bytes,
                });
            }
        }
    }

    /// A connection is the host's from now on, by an ordinary descriptor; the one in the table is closed.
    fn released(
        &mut self,
        session: SessionId,
        socket: Option<OwnedFd>,
        taken: &mut Vec<Taken<Direct>>,
    ) {
        let Some(slot) = self.find(session) else {
            return;
        };
        let State::Leaving(leaving) = std::mem::replace(&mut slot.state, State::Closing) else {
            return;
        };
        if socket.is_none() {
            tracing::warn!("can't give a connection to the host: no descriptor left");
        }
        taken.push(Taken::Released {
            session,
            socket,
            bytes: leaving.bytes,
        });
    }

    /// A connection of the host's is in the table, or found no room there.
    fn adopted(&mut self, number: u32, result: i32, taken: &mut Vec<Taken<Direct>>) {
        if !self.adopting.remove(&number) {
            return;
        }
        let session = match u32::try_from(result) {
            Ok(slot) => {
                let session = self.enter(slot);
                self.arm(session);
                Some(session)
            }
            Err(_) => {
                let error = io::Error::from_raw_os_error(-result);
                tracing::warn!(%error, "can't take a connection of the host");
                None
            }
        };
        taken.push(Taken::Adopted { number, session });
    }

    fn closed(&mut self, session: SessionId) {
        if let Some(slot) = self.find(session) {
            *slot = Slot::free(next(session.generation));
            // Whoever found the table full may try again.
            for accept in &mut self.accepts {
                accept.rests_until_ms = accept.rests_until_ms.map(|_| 0);
            }
            self.arm_accepts();
        }
    }

    /// Lets a connection go: its receive is cancelled, and what has come goes with it.
    fn leave(&mut self, session: SessionId, to: Option<ShardId>) {
        // What has come since this turn's take goes with it, and is told to nobody here.
        let (kernel, mut bytes) = (&mut self.kernel, Vec::new());
        self.early.retain(|taken| match taken {
            Taken::Received {
                session: of,
                buffer,
            } if *of == session => {
                let piece = kernel.buffer(buffer.start as u16, buffer.size);
                bytes.extend_from_slice(piece);
                false
            }
            _ => true,
        });
        let Some(slot) = self.open(session) else {
            return;
        };
        slot.state = State::Leaving(Box::new(Leaving {
            to,
            bytes,
            is_sent: false,
        }));
        self.disarm(session);
        self.go_on(session);
    }

    /// What a connection that leaves or closes does next, once nothing of it is under way.
    fn go_on(&mut self, session: SessionId) {
        let Some(slot) = self.find(session).filter(|slot| slot.under_way == 0) else {
            return;
        };
        match &mut slot.state {
            State::Leaving(leaving) if !leaving.is_sent => {
                leaving.is_sent = true;
                let (to, slot) = (leaving.to, session.slot);
                match to {
                    Some(to) => self.begin(session, Kind::SendFd, Operation::SendFd { slot, to }),
                    None => self.begin(session, Kind::ReleaseFd, Operation::InstallFd { slot }),
                }
            }
            State::Closing => {
                slot.state = State::Closed;
                self.begin(
                    session,
                    Kind::Close,
                    Operation::Close { slot: session.slot },
                );
            }
            State::Free | State::Open | State::Leaving(_) | State::Closed => {}
        }
    }
}

impl<K: Kernel> Driver for Uring<K> {
    type Socket = Direct;

    fn take(&mut self, wait: Option<Duration>, taken: &mut Vec<Taken<Direct>>) -> io::Result<()> {
        self.turn = self.turn.wrapping_add(1);
        for id in self.lent.drain(..) {
            self.kernel.give_back(id);
        }
        std::mem::swap(&mut self.lent, &mut self.lent_early);
        let mut wait = wait;
        if !self.early.is_empty() {
            taken.append(&mut self.early);
            wait = Some(Duration::ZERO);
        }
        // After the buffers are back, and before anybody whose receive is armed gets them.
        for session in std::mem::take(&mut self.hungry) {
            self.arm(session);
        }
        for session in std::mem::take(&mut self.rearm) {
            self.arm(session);
        }
        self.arm_accepts();
        if let Some(until_ms) = self
            .accepts
            .iter()
            .filter(|accept| !accept.is_stopped)
            .filter_map(|accept| accept.rests_until_ms)
            .min()
        {
            let rest = Duration::from_millis(until_ms.saturating_sub((self.clock)().ms).max(1));
            wait = Some(wait.map_or(rest, |wait| wait.min(rest)));
        }
        let is_full = std::mem::take(&mut self.received) >= RECEIVES_OF_FULL_TURN;
        let mut gather = self.coalesce;
        if !is_full || wait == Some(Duration::ZERO) {
            gather = Duration::ZERO;
        }
        self.turn_bytes = 0;
        if self.take_reaped(taken) {
            // The last turn's measure was full: what was reaped then is this turn's.
            return self.kernel.enter(Some(Duration::ZERO), Duration::ZERO);
        }
        if !taken.is_empty() {
            (wait, gather) = (Some(Duration::ZERO), Duration::ZERO);
        }
        for _ in 0..PASSES_MAX {
            self.kernel.enter(wait, gather)?;
            let count = self.reap();
            let is_full = self.take_reaped(taken);
            let has_more = count >= COMPLETIONS_PER_ENTER || self.kernel.has_deferred();
            if is_full || !has_more || self.lent.len() >= BUFFERS_PER_TURN {
                break;
            }
            (wait, gather) = (Some(Duration::ZERO), Duration::ZERO);
        }
        Ok(())
    }

    fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        self.kernel.buffer(buffer.start as u16, buffer.size)
    }

    fn send(&mut self, session: SessionId, chunks: Chunks) -> Sending {
        match self.open(session) {
            Some(slot) if !slot.is(FAILED) => slot.begin(Kind::Send),
            Some(_) | None => return Sending::Failed,
        }
        let slot = session.slot;
        self.kernel
            .push(tag(Kind::Send, session), Operation::Send { slot, chunks });
        Sending::Pending
    }

    fn settle(&mut self, sent: &mut Vec<Taken<Direct>>) -> io::Result<()> {
        // Sends complete while they are begun, if the socket has room.
        self.kernel.enter(Some(Duration::ZERO), Duration::ZERO)?;
        self.reap();
        let mut early = std::mem::take(&mut self.early);
        self.is_settling = true;
        while let Some(completion) = self.reaped.pop_front() {
            self.complete(completion, &mut early);
        }
        self.is_settling = false;
        for taken in early {
            match taken {
                Taken::Sent { .. } => sent.push(taken),
                other => self.early.push(other),
            }
        }
        Ok(())
    }

    fn submit(&mut self) -> io::Result<()> {
        // The next take's enter begins it all.
        Ok(())
    }

    fn set_reading(&mut self, session: SessionId, reading: bool) {
        let Some(slot) = self.open(session) else {
            return;
        };
        slot.set(WANTS_READING, reading);
        if reading {
            // With the next turn, behind those that waited for a buffer longer.
            self.rearm.push_back(session);
        } else {
            self.disarm(session);
        }
    }

    fn shutdown_write(&mut self, session: SessionId) {
        if self
            .open(session)
            .is_some_and(|slot| !slot.is_under_way(Kind::Shutdown))
        {
            self.begin(
                session,
                Kind::Shutdown,
                Operation::Shutdown {
                    slot: session.slot,
                    both: false,
                },
            );
        }
    }

    fn close(&mut self, session: SessionId, reset: bool) {
        let Some(slot) = self.open(session) else {
            return;
        };
        slot.state = State::Closing;
        let is_sending = slot.is_under_way(Kind::Send);
        let is_busy = is_sending || slot.is_under_way(Kind::Receive);
        if reset && self.features.socket_options {
            self.begin(
                session,
                Kind::Linger,
                Operation::Linger { slot: session.slot },
            );
        }
        if is_busy {
            self.begin(
                session,
                Kind::Abort,
                Operation::Shutdown {
                    slot: session.slot,
                    both: true,
                },
            );
            self.disarm(session);
            if is_sending {
                self.cancel(session, Kind::Send);
            }
        }
        self.go_on(session);
    }

    fn detach(&mut self, session: SessionId, to: ShardId) {
        self.leave(session, Some(to));
    }

    fn release(&mut self, session: SessionId) {
        self.leave(session, None);
    }

    fn adopt(&mut self, number: u32, socket: OwnedFd) {
        let tag = Tag {
            kind: Kind::AdoptFd,
            slot: number,
            generation: 0,
        };
        self.adopting.insert(number);
        // A ring waits by itself; of a descriptor that says it must not wait it would only hear that there is nothing yet.
        let _ = rustix::io::ioctl_fionbio(&socket, false);
        self.kernel.push(tag, Operation::AdoptFd { socket });
    }

    fn attach(&mut self, socket: Direct) -> Option<SessionId> {
        let session = self.enter(socket.0);
        self.arm(session);
        Some(session)
    }

    fn stop_accepting(&mut self) {
        for (listener, accept) in self.accepts.iter_mut().enumerate() {
            accept.is_stopped = true;
            accept.rests_until_ms = None;
            if accept.is_armed {
                let accepting = Tag {
                    kind: Kind::Accept,
                    slot: listener as u32,
                    generation: 0,
                };
                let cancelling = Tag {
                    kind: Kind::Cancel,
                    ..accepting
                };
                self.kernel
                    .push(cancelling, Operation::Cancel { tag: accepting });
            } else {
                self.kernel.drop_listener(listener as u16);
            }
        }
    }

    fn wake(&mut self, shard: ShardId) {
        let tag = Tag {
            kind: Kind::Wake,
            slot: u32::from(shard.0),
            generation: 0,
        };
        self.kernel.push(tag, Operation::Wake { shard });
    }

    fn now(&self) -> Now {
        (self.clock)()
    }

    fn overflows(&self) -> u64 {
        self.kernel.overflows()
    }
}

fn tag(kind: Kind, session: SessionId) -> Tag {
    Tag {
        kind,
        slot: session.slot,
        generation: session.generation,
    }
}

fn next(generation: u32) -> u32 {
    (generation + 1) % GENERATIONS
}

/// Takes the first `sent` bytes off.
fn advance(chunks: &mut Chunks, mut sent: usize) {
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
