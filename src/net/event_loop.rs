//! The event loop of a shard: the turn, whatever the driver.
//!
//! A turn has four steps, and their order is the whole of DESIGN decision 4:
//!
//! 1. **take**: the driver reads bytes; connections that other shards handed over, and words of the control plane,
//!    are picked up. All of this is what the turn may route.
//! 2. **drain**: every inbound ring is emptied up to the tail that is read *now*, after (1), and no less far.
//! 3. **route**: only what (1) took. What (2) made necessary waits for the next turn.
//! 4. **flush**: lanes into rings, rings published, sleepers woken; then one send per connection.
//!
//! Why an ack is a barrier: a subscriber's shard puts the edge into every ring before the ack is sent (step 4). So
//! whoever publishes after the ack was seen sends bytes that another shard takes in a (1) that comes after the
//! edge was in its ring; its (2) finds the edge; its (3) routes by it. No round trip, no lock.
//! The steps are separate so that the simulation can show what happens in any other order.

use std::collections::VecDeque;
use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use hashbrown::HashMap;

use crate::address::{LINK_SLOTS, RemoteAddress, SessionId, ShardId, ShardSet};
use crate::error::Code;
use crate::limits::SEND_BYTES_MAX;
use crate::mesh::Ports;
use crate::message::Payload;
use crate::shard::parcel::Parcel;
use crate::shard::peer::TokenChange;
use crate::shard::{Arriving, Effect, Ending, Shard};

use super::control::{Control, Reply};
use super::links::HttpConnection;
use super::listener::learn_remote;
use super::population::{Population, Seat};
use super::shard_clock::ShardClock;
use super::{Driver, Sending, Taken};

/// What travels between shards: words of the pure shards, and connections.
#[derive(Debug)]
pub enum Freight<S> {
    /// Routed by the shards.
    Parcel(Parcel),
    /// A connection that belongs to the other shard.
    Handover(Box<Handover<S>>),
    /// A connection for the host of a Link there.
    Http {
        link: SessionId,
        connection: Box<HttpConnection>,
    },
}

impl<S> Freight<S> {
    /// What it charges to the byte bound of a ring.
    fn size(&self) -> usize {
        match self {
            Freight::Parcel(parcel) => parcel.size(),
            Freight::Handover(handover) => size_of::<Handover<S>>() + handover.bytes.len(),
            Freight::Http { connection, .. } => {
                size_of::<HttpConnection>() + connection.bytes.len()
            }
        }
    }
}

/// A connection that changes its shard before its first command.
#[derive(Debug)]
pub struct Handover<S> {
    socket: S,
    listener: u16,
    address: RemoteAddress,
    seat: Option<Seat>,
    /// All that came from it.
    bytes: Vec<u8>,
}

/// A connection that the driver is about to let go.
struct Leaving {
    to: ShardId,
    listener: u16,
    address: RemoteAddress,
    seat: Option<Seat>,
    bytes: Vec<u8>,
}

/// A connection that the driver is about to let the host have.
struct Releasing {
    to: (ShardId, SessionId),
    listener: u16,
    address: RemoteAddress,
    bytes: Vec<u8>,
}

/// A connection of the host's that the driver is about to have.
struct Adopting {
    listener: u16,
    address: RemoteAddress,
    bytes: Vec<u8>,
}

/// What a session is told that asked for a seat.
struct Seating {
    session: SessionId,
    is_seated: bool,
    host: Option<Arc<Arriving>>,
}

/// Bytes that one turn flushes to one connection, if its socket takes them at once: a few sends, so that a
/// long queue for a fast reader does not keep the others waiting.
const FLUSH_BYTES_MAX: usize = 4 * SEND_BYTES_MAX;

/// How long a loop waits that has something waiting for room in a ring; a word of the other shard ends it.
const ROOM_WAIT: Duration = Duration::from_millis(50);

/// What the control plane is told of a publish.
type Published = Result<(), Code>;

/// Handed-over bytes, or a driver's.
enum Input<S> {
    Taken(Taken<S>),
    Arrived { session: SessionId, bytes: Vec<u8> },
}

/// The loop of one shard.
pub struct EventLoop<D: Driver> {
    shard: Shard,
    driver: D,
    clock: ShardClock,
    ports: Ports<Freight<D::Socket>>,
    control: Receiver<Control>,
    population: Arc<Population>,
    /// Where changes of the list of accepted tokens are kept, if they are.
    keeper: Option<Sender<TokenChange>>,
    /// Of sessions whose address is counted.
    seats: HashMap<SessionId, Seat>,
    /// What the last turn found out, to be told in this one's third step.
    seatings: Vec<Seating>,
    /// Taken in this turn's first step, to be routed in its third.
    input: Vec<Input<D::Socket>>,
    /// Whose sends were done, as step 1 heard.
    sent: Vec<SessionId>,
    words: Vec<Control>,
    /// Drained from the rings in an earlier turn, or this one's second step: for the next turn's first.
    arrivals: Vec<Handover<D::Socket>>,
    leaving: HashMap<SessionId, Leaving>,
    releasing: HashMap<SessionId, Releasing>,
    adopting: HashMap<u32, Adopting>,
    /// The number of the last of these.
    adoption: u32,
    /// Detached or released, waiting for room in a ring.
    outgoing: VecDeque<(ShardId, Freight<D::Socket>)>,
    taken: Vec<Taken<D::Socket>>,
    wake: Vec<ShardId>,
    /// A ring has got room after this turn's routing.
    has_room_come: bool,
    /// What the control plane published in this turn, to be answered when it is in the rings.
    published: Vec<(Reply<Published>, Published)>,
    /// Who waits until all that was taken has been handed on.
    quiesced: Option<Reply<()>>,
    /// Who waits until all connections are gone.
    closed: Option<Reply<()>>,
    is_stopped: bool,
}

impl<D: Driver> EventLoop<D> {
    /// A loop around a shard and its driver.
    pub fn new(
        shard: Shard,
        driver: D,
        ports: Ports<Freight<D::Socket>>,
        control: Receiver<Control>,
        population: Arc<Population>,
    ) -> EventLoop<D> {
        let clock = ShardClock::starting(driver.now());
        EventLoop {
            shard,
            driver,
            clock,
            ports,
            control,
            population,
            keeper: None,
            seats: HashMap::new(),
            seatings: Vec::new(),
            input: Vec::new(),
            sent: Vec::new(),
            words: Vec::new(),
            arrivals: Vec::new(),
            leaving: HashMap::new(),
            releasing: HashMap::new(),
            adopting: HashMap::new(),
            adoption: 0,
            outgoing: VecDeque::new(),
            taken: Vec::new(),
            wake: Vec::new(),
            has_room_come: false,
            published: Vec::new(),
            quiesced: None,
            closed: None,
            is_stopped: false,
        }
    }

    /// Tells this one of changes of the list of accepted tokens.
    pub fn keep_tokens(&mut self, keeper: Sender<TokenChange>) {
        self.keeper = Some(keeper);
    }

    /// Turns until it is told to stop.
    ///
    /// # Errors
    /// What the driver fails with; the broker can't go on then.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.is_stopped {
            self.turn()?;
        }
        Ok(())
    }

    /// One turn.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn turn(&mut self) -> io::Result<()> {
        self.take()?;
        self.take_arrivals();
        self.take_words();
        self.drain(usize::MAX);
        self.route();
        self.flush()
    }

    /// The shard, to look at.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// The driver, to look at or, in a simulation, to feed.
    pub fn driver_mut(&mut self) -> &mut D {
        &mut self.driver
    }

    /// Step 1: waits for something to do, and lets the driver take bytes.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn take(&mut self) -> io::Result<()> {
        let wait = self.announce_wait();
        let result = self.collect(wait);
        self.begin(wait);
        result
    }

    /// Of step 1: how long this turn may wait for news. If at all, whoever has some will wake the driver.
    pub fn announce_wait(&mut self) -> Option<Duration> {
        let mut wait = self.idle_time();
        if wait != Some(Duration::ZERO)
            && (!self.ports.announce_sleep() || !self.control.is_empty())
        {
            wait = Some(Duration::ZERO);
        }
        wait
    }

    /// Of step 1: the driver waits, and takes bytes.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn collect(&mut self, wait: Option<Duration>) -> io::Result<()> {
        let result = self.driver.take(wait, &mut self.taken);
        self.ports.awake();
        for taken in self.taken.drain(..) {
            match taken {
                Taken::Sent { session } => self.sent.push(session),
                taken => self.input.push(Input::Taken(taken)),
            }
        }
        result
    }

    /// Of step 1: tells the shard the time, after a wait of at most `wait`.
    pub fn begin(&mut self, wait: Option<Duration>) {
        let stalled_ms = self.clock.stalled_ms();
        let now = self.clock.turn(self.driver.now(), wait);
        if self.clock.stalled_ms() > stalled_ms {
            let late_ms = self.clock.stalled_ms() - stalled_ms;
            tracing::warn!(shard = %self.shard.id(), late_ms, "this thread did not run; deadlines wait for it");
        }
        self.shard.begin_turn(now);
        self.shard.stats_mut().cq_overflow = self.driver.overflows();
        // Before anything is delivered: whoever has got everything is not behind, whatever comes for it in this turn.
        for session in self.sent.drain(..) {
            self.shard.sent(session);
        }
    }

    /// How long this turn may wait for news.
    fn idle_time(&self) -> Option<Duration> {
        let can_go_on = self.has_room_come && self.is_waiting_for_room();
        let has_news = !self.arrivals.is_empty() || !self.seatings.is_empty();
        if has_news || self.shard.has_work() || can_go_on {
            return Some(Duration::ZERO);
        }
        let now_ms = self.clock.at(self.driver.now()).ms;
        let until_due = self
            .shard
            .next_deadline_ms()
            .map(|at_ms| Duration::from_millis(at_ms.saturating_sub(now_ms)));
        let until_room = self.is_waiting_for_room().then_some(ROOM_WAIT);
        until_due.into_iter().chain(until_room).min()
    }

    /// Does anything wait for room in a ring?
    pub fn is_waiting_for_room(&self) -> bool {
        self.shard.is_restless() || !self.outgoing.is_empty()
    }

    /// Step 1: picks up the connections that an earlier turn found in the rings.
    pub fn take_arrivals(&mut self) {
        for arrival in std::mem::take(&mut self.arrivals) {
            let Handover {
                socket,
                listener,
                address,
                seat,
                bytes,
            } = arrival;
            match self.driver.attach(socket) {
                Some(session) => {
                    self.seats.extend(seat.map(|seat| (session, seat)));
                    self.shard.adopt(session, listener, address);
                    self.input.push(Input::Arrived { session, bytes });
                }
                None => self.left(),
            }
        }
    }

    /// Step 1: picks up the words of the control plane that are there now.
    pub fn take_words(&mut self) {
        for _ in 0..self.control.len() {
            let Ok(word) = self.control.try_recv() else {
                break;
            };
            self.words.push(word);
        }
    }

    /// Step 2: empties every inbound ring up to its tail of this moment. (At most `freights_max` of it: any
    /// bound is wrong, and the simulation shows why.)
    pub fn drain(&mut self, freights_max: usize) {
        self.ports.marks();
        self.drain_to_marks(freights_max);
    }

    /// Of step 2: the ports, to mark the rings one by one; [`EventLoop::drain_to_marks`] does the rest.
    pub fn ports_mut(&mut self) -> &mut Ports<Freight<D::Socket>> {
        &mut self.ports
    }

    /// Of step 2: empties every inbound ring up to its mark.
    pub fn drain_to_marks(&mut self, freights_max: usize) {
        for _ in 0..freights_max {
            let Some((from, freight)) = self.ports.take_next() else {
                break;
            };
            match freight {
                Freight::Parcel(parcel) => {
                    self.shard.take_parcel(from, parcel);
                    self.flush_urgent();
                }
                Freight::Handover(handover) => self.arrivals.push(*handover),
                // It is for nobody of this shard's, so there is nothing to be routed.
                Freight::Http { link, connection } => {
                    self.driver.give(link, connection);
                }
            }
        }
        self.ports.release_all();
    }

    /// Step 3: routes what step 1 took.
    pub fn route(&mut self) {
        self.open_lanes();
        self.has_room_come = false;
        if let Some(keeper) = &self.keeper {
            let capacity = keeper.capacity().unwrap_or(usize::MAX);
            self.shard.hold_tokens(keeper.len() >= capacity / 2);
        }
        self.shard.resume();
        self.flush_urgent();
        for Seating {
            session,
            is_seated,
            host,
        } in std::mem::take(&mut self.seatings)
        {
            if is_seated {
                self.shard.seated(session, host);
            } else {
                self.shard.refuse_address(session);
            }
            self.flush_urgent();
        }
        for word in std::mem::take(&mut self.words) {
            self.obey(word);
            self.flush_urgent();
        }
        let mut input = std::mem::take(&mut self.input);
        for input in input.drain(..) {
            match input {
                Input::Taken(taken) => self.route_taken(taken),
                Input::Arrived { session, mut bytes } => self.shard.receive(session, &mut bytes),
            }
            self.flush_urgent();
        }
        self.input = input;
        self.shard.fire_timers();
    }

    /// Tells the lanes how much room the rings have; true if one has got more.
    fn open_lanes(&mut self) -> bool {
        let mut any_more = false;
        for to in self.others().iter() {
            let room = self.ports.room(to);
            let is_empty = room.entries == self.ports.entries_max();
            let lane = self.shard.lanes().to(to);
            any_more |= lane.set_room(room.entries, room.bytes, is_empty);
        }
        any_more
    }

    fn others(&self) -> ShardSet {
        let mut others = ShardSet::first(self.shard.shards());
        others.remove(self.shard.id());
        others
    }

    fn route_taken(&mut self, taken: Taken<D::Socket>) {
        match taken {
            Taken::Accepted {
                session,
                listener,
                address,
            } => {
                let is_full = !self.population.enter();
                let counted = self.shard.counted(&address).filter(|_| !is_full);
                let is_one_too_many = counted.is_some_and(|ip| !self.seat(session, ip));
                self.shard.accept(session, listener, address, is_full);
                if is_one_too_many {
                    self.shard.refuse_address(session);
                }
            }
            Taken::Received { session, buffer } => {
                self.shard.receive(session, self.driver.bytes(buffer));
            }
            Taken::Sent { session } => self.shard.sent(session),
            Taken::Ended { session, ending } => self.shard.ended(session, ending),
            Taken::Detached {
                session,
                socket,
                bytes,
            } => self.detached(session, socket, &bytes),
            Taken::Released {
                session,
                socket,
                bytes,
            } => self.released(session, socket, &bytes),
            Taken::Adopted { number, session } => self.adopted(number, session),
        }
    }

    /// Counts a session for its address; false if it is one too many.
    fn seat(&mut self, session: SessionId, ip: IpAddr) -> bool {
        let seat = self.population.seat(ip);
        let is_seated = seat.is_some();
        self.seats.extend(seat.map(|seat| (session, seat)));
        is_seated
    }

    fn detached(&mut self, session: SessionId, socket: Option<D::Socket>, late: &[u8]) {
        let Some(Leaving {
            to,
            listener,
            address,
            seat,
            mut bytes,
        }) = self.leaving.remove(&session)
        else {
            return;
        };
        let Some(socket) = socket else {
            return self.left();
        };
        bytes.extend_from_slice(late);
        let handover = Handover {
            socket,
            listener,
            address,
            seat,
            bytes,
        };
        self.outgoing
            .push_back((to, Freight::Handover(Box::new(handover))));
    }

    /// A connection is the host's: it goes to the shard of the Link that is to have it.
    fn released(&mut self, session: SessionId, socket: Option<OwnedFd>, late: &[u8]) {
        let Some(releasing) = self.releasing.remove(&session) else {
            return;
        };
        self.left();
        // Rings have them otherwise.
        let is_ready = |socket: &OwnedFd| rustix::io::ioctl_fionbio(socket, true).is_ok();
        let Some(socket) = socket.filter(is_ready) else {
            return;
        };
        let mut bytes = releasing.bytes;
        bytes.extend_from_slice(late);
        let connection = Box::new(HttpConnection {
            socket,
            listener: releasing.listener,
            address: releasing.address.to_string(),
            bytes,
        });
        let (shard, link) = releasing.to;
        if shard == self.shard.id() {
            self.driver.give(link, connection);
        } else {
            let freight = Freight::Http { link, connection };
            self.outgoing.push_back((shard, freight));
        }
    }

    /// A connection of the host's is this shard's, as if it had just been accepted.
    fn adopted(&mut self, number: u32, session: Option<SessionId>) {
        let adopting = self.adopting.remove(&number);
        let (Some(adopting), Some(session)) = (adopting, session) else {
            return;
        };
        let Adopting {
            listener,
            address,
            mut bytes,
        } = adopting;
        self.route_taken(Taken::Accepted {
            session,
            listener,
            address,
        });
        self.shard.receive(session, &mut bytes);
    }

    fn obey(&mut self, word: Control) {
        match word {
            Control::Publish {
                topic,
                payload,
                reply,
            } => {
                let result = self.shard.publish_as_host(topic, Payload::untyped(payload));
                self.published.push((reply, result));
            }
            Control::Stats { reply } => reply(self.shard.stats()),
            Control::Connections { count, reply } => reply(self.shard.connection_views(count)),
            Control::Reload { credentials } => self.shard.set_credentials(credentials),
            Control::Link { end, listener } => {
                // It is no connection, and counts for none.
                if let Some(session) = self.driver.attach_link(end) {
                    let address = RemoteAddress::known("link");
                    self.shard.accept(session, listener, address, false);
                }
            }
            Control::Adopt {
                socket,
                listener,
                bytes,
            } => {
                let address = RemoteAddress::default();
                learn_remote(&socket, &address);
                self.adoption = self.adoption.wrapping_add(1);
                let adopting = Adopting {
                    listener,
                    address,
                    bytes,
                };
                self.adopting.insert(self.adoption, adopting);
                self.driver.adopt(self.adoption, socket);
            }
            Control::StopAccepting { reply } => {
                self.driver.stop_accepting();
                reply(());
            }
            Control::Quiesce { reply } => {
                self.shard.quiesce();
                self.quiesced = Some(reply);
            }
            Control::Close { spread_ms, reply } => {
                self.shard.close_all(spread_ms);
                self.closed = Some(reply);
            }
            Control::Stop => self.is_stopped = true,
        }
    }

    /// Step 4: lanes into rings, then sends, then everything else.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn flush(&mut self) -> io::Result<()> {
        self.publish();
        self.send();
        self.finish()
    }

    /// Of step 4: one send per connection, after [`EventLoop::publish`].
    pub fn send(&mut self) {
        // A send that fails may end a session and so make news for others: hence not a single pass.
        let mut unfinished = Vec::new();
        loop {
            let dirty = self.shard.take_dirty();
            if dirty.is_empty() {
                break;
            }
            for session in dirty {
                if !self.flush_session(session) {
                    unfinished.push(session);
                }
            }
            self.shard.end_turn();
        }
        for session in unfinished {
            self.shard.touch(session);
        }
    }

    /// Of step 4: what else the turn asked for.
    ///
    /// # Errors
    /// What the driver fails with.
    pub fn finish(&mut self) -> io::Result<()> {
        self.carry_out();
        self.publish();
        self.driver.submit()?;
        self.report();
        Ok(())
    }

    /// Of step 4: lanes and detached connections into the rings; whoever sleeps is woken.
    pub fn publish(&mut self) {
        for to in self.others().iter() {
            for parcel in self.shard.lanes().to(to).drain() {
                let size = parcel.size();
                if self.ports.push(to, Freight::Parcel(parcel), size).is_err() {
                    unreachable!("a lane holds no more than its ring has room for");
                }
            }
        }
        for _ in 0..self.outgoing.len() {
            let Some((to, freight)) = self.outgoing.pop_front() else {
                break;
            };
            let size = freight.size();
            if let Err(freight) = self.ports.push(to, freight, size) {
                self.outgoing.push_back((to, freight));
            }
        }
        self.ports.await_room(if self.is_waiting_for_room() {
            self.others()
        } else {
            ShardSet::EMPTY
        });
        self.ports.publish(&mut self.wake);
        self.shard.stats_mut().wakeups += self.wake.len() as u64;
        for shard in self.wake.drain(..) {
            self.driver.wake(shard);
        }
        // Whoever gave room before `await_room` did not wake us; and now that we look at it, it is no news to the
        // ports either.
        self.has_room_come |= self.open_lanes();
    }

    /// In the middle of a turn: sends to those whose outbox has filled up, as long as their sockets take it.
    ///
    /// What the rings must have before anybody is told (edges before acks) is published first.
    fn flush_urgent(&mut self) {
        if !self.shard.is_urgent() {
            return;
        }
        self.publish();
        let mut urgent = self.shard.take_urgent();
        while !urgent.is_empty() {
            for &session in &urgent {
                self.flush_session(session);
            }
            let mut sent = Vec::new();
            if self.driver.settle(&mut sent).is_err() {
                // The next take will say what is wrong.
                return;
            }
            urgent.clear();
            for taken in sent {
                if let Taken::Sent { session } = taken {
                    self.shard.sent(session);
                    if self.shard.has_waiting(session) {
                        urgent.push(session);
                    }
                }
            }
        }
    }

    /// Sends what a session has; false if there is more than one turn sends.
    fn flush_session(&mut self, session: SessionId) -> bool {
        let mut flushed = 0;
        let mut is_finished = true;
        while let Some(chunks) = self.shard.transmit(session) {
            flushed += chunks.iter().map(|chunk| chunk.len()).sum::<usize>();
            match self.driver.send(session, chunks) {
                Sending::Done => {
                    self.shard.sent(session);
                    if flushed >= FLUSH_BYTES_MAX {
                        is_finished = false;
                        break;
                    }
                }
                Sending::Pending => break,
                Sending::Failed => {
                    self.shard.ended(session, Ending::Failed);
                    break;
                }
            }
        }
        self.shard.flushed(session);
        is_finished
    }

    fn carry_out(&mut self) {
        for effect in self.shard.take_effects() {
            match effect {
                Effect::PauseReading(session) => self.driver.set_reading(session, false),
                Effect::ResumeReading(session) => self.driver.set_reading(session, true),
                Effect::ShutdownWrite(session) => self.driver.shutdown_write(session),
                Effect::Close { session, reset } => {
                    self.driver.close(session, reset);
                    self.seats.remove(&session);
                    if session.slot < LINK_SLOTS {
                        self.left();
                    }
                }
                Effect::HandOver {
                    session,
                    to,
                    listener,
                    address,
                    bytes,
                } => {
                    let seat = self.seats.remove(&session);
                    self.leaving.insert(
                        session,
                        Leaving {
                            to,
                            listener,
                            address,
                            seat,
                            bytes,
                        },
                    );
                    self.driver.detach(session, to);
                }
                Effect::Release {
                    session,
                    to,
                    listener,
                    address,
                    bytes,
                } => {
                    self.seats.remove(&session);
                    let releasing = Releasing {
                        to,
                        listener,
                        address,
                        bytes,
                    };
                    self.releasing.insert(session, releasing);
                    self.driver.release(session);
                }
                Effect::AskSeat { session, ip, host } => {
                    let is_seated = self.seat(session, ip);
                    self.seatings.push(Seating {
                        session,
                        is_seated,
                        host,
                    });
                }
                Effect::Tokens(change) => {
                    if let Some(keeper) = &self.keeper {
                        // Half of its room was left when this turn began, which no turn fills. An error is the broker's
                        // last moments.
                        let _ = keeper.send(change);
                    }
                }
            }
        }
    }

    fn left(&mut self) {
        self.population.leave();
    }

    /// Tells those who wait for the end of something.
    fn report(&mut self) {
        for (reply, result) in self.published.drain(..) {
            reply(result);
        }
        let is_settled =
            self.shard.is_settled() && self.outgoing.is_empty() && self.leaving.is_empty();
        if is_settled && let Some(reply) = self.quiesced.take() {
            self.shard.seal();
            reply(());
        }
        // Not only its own: another shard may have put a connection into a ring to this one, and whoever hears all
        // answers ends the loops.
        if self.population.is_empty()
            && let Some(reply) = self.closed.take()
        {
            reply(());
            // The last connection was this shard's, perhaps; those that wait with it sleep.
            for shard in self.others().iter() {
                self.driver.wake(shard);
            }
        }
    }
}
