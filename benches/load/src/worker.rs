//! A worker: an epoll loop on a thread of its own, with some of the connections.
//!
//! It turns as a broker's shard does: all that is readable is read and checked, then publishers whose window has
//! opened publish, then each connection with something to say writes once. A publisher is served in bursts that way,
//! and a turn costs few system calls, which is what keeps the generator cheaper than what it loads. One large buffer
//! serves all connections; a connection keeps only an incomplete end.
//!
//! Invariant: after a turn, a connection that has unsent bytes waits for `OUT`, and no publisher with an open window
//! is idle.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hdrhistogram::Histogram;
use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};
use socket2::Socket;

use crate::connect::Opened;
use crate::dialect::{Carriage, Dialect, Incoming};
use crate::frame::{self, Opcode};
use crate::ledger::{Faults, Heard, Ledger};
use crate::plan::{Pace, Plan};
use crate::schedule::Schedule;
use crate::shared::{Phase, Shared};
use crate::stamp::Stamp;

/// Read at once.
const BUFFER_BYTES: usize = 512 * 1024;
/// Unsent bytes of a connection past which the open loop waits. What it sends then is late, and says so.
const BACKLOG_BYTES: usize = 1 << 20;
/// When it looks again.
const BACKLOG_NS: u64 = 1_000_000;
/// Events taken at once.
const EVENTS: usize = 1024;

/// The doorbell among the tokens of epoll; connections have theirs from 0 on.
const DOORBELL: u64 = u64::MAX;
const TIMER: u64 = u64::MAX - 1;

/// The loop, and all that it knows.
pub struct Worker<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    index: usize,
    epoll: OwnedFd,
    timer: OwnedFd,
    connections: Vec<Connection>,
    publishers: Vec<Publisher>,
    /// By the worker's own number: number in the run.
    subscribers: Vec<usize>,
    ledger: Ledger,
    /// Publishers whose window has opened, each once.
    open: Vec<usize>,
    /// Connections that have something to write, each once.
    dirty: Vec<usize>,
    latency: Histogram<u64>,
    lateness: Histogram<u64>,
    counted: Counted,
    phase: Phase,
    schedule: Option<Schedule>,
    recorded_from_ns: u64,
}

/// A connection: a subscriber, a publisher, or both.
struct Connection {
    socket: Socket,
    /// Of the plan's.
    party: usize,
    subscriber: Option<usize>,
    /// An incomplete frame, or an incomplete unit of a stream.
    carry: Vec<u8>,
    /// An incomplete unit of a stream that comes in frames.
    unit: Vec<u8>,
    out: Vec<u8>,
    sent: usize,
    is_dirty: bool,
    is_blocked: bool,
}

struct Publisher {
    /// In the run.
    id: usize,
    connection: usize,
    quota: u64,
    /// The next publication.
    next: u64,
    /// The oldest that is not everywhere yet.
    base: u64,
    is_open: bool,
}

#[derive(Default)]
struct Counted {
    ready: u64,
    publishes: u64,
    acks: u64,
    deliveries: u64,
    announced: u64,
    /// Is there anything new since the last turn?
    is_new: bool,
}

/// What a worker knows at the end.
pub struct Outcome {
    /// By subscriber of this worker, its number in the run.
    pub subscribers: Vec<usize>,
    /// What they heard.
    pub ledger: Ledger,
    /// Deliveries that the broker said it left out.
    pub announced: u64,
    /// From due to delivered, in nanoseconds.
    pub latency: Histogram<u64>,
    /// From due to sent, in nanoseconds.
    pub lateness: Histogram<u64>,
}

/// Which worker has a subscriber: subscribers of a room are together, those of a single topic are spread.
pub fn worker_of_subscriber(plan: &Plan, subscriber: usize) -> usize {
    if plan.topology.is_shared && plan.topology.topics > 1 {
        plan.topology.topic_of_subscriber(subscriber) % plan.threads
    } else {
        subscriber % plan.threads
    }
}

/// Which worker has a publisher.
pub fn worker_of_publisher(plan: &Plan, publisher: usize) -> usize {
    if plan.topology.is_shared {
        worker_of_subscriber(plan, publisher)
    } else {
        publisher % plan.threads
    }
}

/// A histogram from a microsecond to a minute, in nanoseconds, to three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1000, 60_000_000_000, 3).expect("the bounds are in order")
}

impl<'a> Worker<'a> {
    /// Without connections.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(plan: &'a Plan, shared: &'a Shared, index: usize) -> Result<Worker<'a>, Errno> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let watch = |fd: &OwnedFd, token| {
            let data = epoll::EventData::new_u64(token);
            epoll::add(&epoll, fd, data, epoll::EventFlags::IN)
        };
        watch(shared.doorbell(index), DOORBELL)?;
        watch(&timer, TIMER)?;
        Ok(Worker {
            plan,
            shared,
            index,
            epoll,
            timer,
            connections: Vec::new(),
            publishers: Vec::new(),
            subscribers: Vec::new(),
            ledger: Ledger::new(0, 0),
            open: Vec::new(),
            dirty: Vec::new(),
            latency: histogram(),
            lateness: histogram(),
            counted: Counted::default(),
            phase: Phase::Setup,
            schedule: None,
            recorded_from_ns: u64::MAX,
        })
    }

    /// Takes a connection over, with its place in the run.
    ///
    /// # Errors
    /// The kernel does not poll it.
    pub fn add(
        &mut self,
        opened: Opened,
        subscriber: Option<usize>,
        publisher: Option<usize>,
    ) -> Result<(), Errno> {
        let token = self.connections.len();
        let data = epoll::EventData::new_u64(token as u64);
        epoll::add(&self.epoll, &opened.socket, data, epoll::EventFlags::IN)?;
        if let Some(id) = publisher {
            self.publishers.push(Publisher {
                id,
                connection: token,
                quota: self.plan.quota(id),
                next: 0,
                base: 0,
                is_open: false,
            });
        }
        let party = self.plan.party_of(subscriber);
        let subscriber = subscriber.map(|id| {
            self.subscribers.push(id);
            self.subscribers.len() - 1
        });
        self.connections.push(Connection {
            socket: opened.socket,
            party,
            subscriber,
            carry: opened.rest,
            unit: Vec::new(),
            out: Vec::new(),
            sent: 0,
            is_dirty: false,
            is_blocked: false,
        });
        Ok(())
    }

    /// Turns until it is told to quit. A failure is told to the others and ends it too.
    pub fn run(mut self) -> Outcome {
        let lanes_each = self.plan.topology.lanes_each();
        self.ledger = Ledger::new(self.subscribers.len(), lanes_each);
        let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
        let counters = &self.shared.counters[self.index];
        counters.thread.store(thread, Ordering::Release);
        if let Err(reason) = self.turn_until_quit() {
            self.shared.fail(reason);
            self.count();
        }
        self.say_goodbye();
        Outcome {
            subscribers: self.subscribers,
            ledger: self.ledger,
            announced: self.counted.announced,
            latency: self.latency,
            lateness: self.lateness,
        }
    }

    fn turn_until_quit(&mut self) -> Result<(), String> {
        let payload_max = self.payload_max();
        // Half a buffer is the most that a connection keeps.
        let mut buffer = vec![0; 2 * (payload_max + 64)];
        let mut events = Vec::with_capacity(EVENTS);
        self.take_what_came_early()?;
        loop {
            let phase = self.shared.phase();
            if phase != self.phase {
                self.phase = phase;
                match phase {
                    Phase::Run => self.start(),
                    Phase::Quit => return Ok(()),
                    Phase::Setup | Phase::Drain => {}
                }
            }
            self.recorded_from_ns = self.shared.recorded_from_ns.load(Ordering::Acquire);
            self.publish();
            self.flush()?;
            self.count();
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            for event in &events {
                match event.data.u64() {
                    DOORBELL => {
                        self.shared.silence(self.index);
                        self.look_at_windows();
                    }
                    TIMER => {}
                    token => self.attend(token as usize, event.flags, &mut buffer)?,
                }
            }
        }
    }

    /// The most that a frame may carry. NATS puts many deliveries into one.
    fn payload_max(&self) -> usize {
        let parties = self.plan.parties.iter();
        let sizes = parties.map(|party| party.dialect.delivery_size());
        BUFFER_BYTES.max(4 * sizes.max().unwrap_or(0)) / 2
    }

    /// What a connection speaks.
    fn dialect(&self, at: usize) -> &'a Dialect {
        &self.plan.parties[self.connections[at].party].dialect
    }

    /// Bytes that came with the answer to a handshake do not make a socket readable.
    fn take_what_came_early(&mut self) -> Result<(), String> {
        for at in 0..self.connections.len() {
            let bytes = std::mem::take(&mut self.connections[at].carry);
            let used = self.take(at, &bytes, 0)?;
            self.connections[at].carry = bytes[used..].to_vec();
        }
        Ok(())
    }

    fn start(&mut self) {
        self.open = (0..self.publishers.len()).collect();
        for publisher in &mut self.publishers {
            publisher.is_open = true;
        }
        if let Pace::Rate(rate) = self.plan.pace {
            let start_ns = self.shared.started_ns.load(Ordering::Acquire);
            let each = self.plan.topology.subscribers_each as u64;
            self.schedule = Some(Schedule::new(start_ns, rate, each));
        }
    }

    /// Another thread may have taken the last delivery of a publication of ours.
    fn look_at_windows(&mut self) {
        if self.plan.threads > 1 && matches!(self.plan.pace, Pace::Window(_)) {
            for at in 0..self.publishers.len() {
                self.mark_open(at);
            }
        }
    }

    fn mark_open(&mut self, at: usize) {
        let publisher = &mut self.publishers[at];
        if !publisher.is_open {
            publisher.is_open = true;
            self.open.push(at);
        }
    }

    fn mark_dirty(&mut self, at: usize) {
        let connection = &mut self.connections[at];
        if !connection.is_dirty {
            connection.is_dirty = true;
            self.dirty.push(at);
        }
    }

    // ---------------------------------------------------------------------------------------------- in

    fn attend(
        &mut self,
        at: usize,
        flags: epoll::EventFlags,
        buffer: &mut [u8],
    ) -> Result<(), String> {
        if flags.contains(epoll::EventFlags::OUT) {
            self.mark_dirty(at);
        }
        // Errors and the end come out of the read.
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
        {
            self.receive(at, buffer)?;
        }
        Ok(())
    }

    fn receive(&mut self, at: usize, buffer: &mut [u8]) -> Result<(), String> {
        let connection = &mut self.connections[at];
        let kept = connection.carry.len();
        if kept > buffer.len() / 2 {
            return Err(format!("more than {kept} bytes without an end"));
        }
        buffer[..kept].copy_from_slice(&connection.carry);
        let size = match rustix::io::read(&connection.socket, &mut buffer[kept..]) {
            Ok(0) => return Err("the broker closed a connection without a word".to_owned()),
            Ok(size) => size,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(format!("a connection broke: {error}")),
        };
        connection.carry.clear();
        // One look at the clock for all that one read brought: it was there by now.
        let now_ns = match self.plan.pace {
            Pace::Rate(_) => self.shared.now_ns(),
            Pace::Window(_) => 0,
        };
        let filled = kept + size;
        let used = self.take(at, &buffer[..filled], now_ns)?;
        self.connections[at]
            .carry
            .extend_from_slice(&buffer[used..filled]);
        Ok(())
    }

    /// Takes all that is complete, and says how much that was.
    fn take(&mut self, at: usize, bytes: &[u8], now_ns: u64) -> Result<usize, String> {
        match self.dialect(at).carriage {
            Carriage::Stream => self.take_units(at, bytes, now_ns),
            Carriage::Text | Carriage::BinaryStream => self.take_frames(at, bytes, now_ns),
        }
    }

    fn take_frames(&mut self, at: usize, bytes: &[u8], now_ns: u64) -> Result<usize, String> {
        let payload_max = self.payload_max();
        let dialect = self.dialect(at);
        let is_text = dialect.carriage == Carriage::Text;
        let mut used = 0;
        while let Some(frame) = frame::read(&bytes[used..], payload_max)? {
            let payload = &bytes[used..][frame.payload.clone()];
            used += frame.payload.end;
            match frame.opcode {
                Opcode::Text | Opcode::Binary if is_text && frame.is_final => {
                    let incoming = dialect.read_text(payload);
                    self.hear(at, incoming, now_ns)?;
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation if is_text => {
                    return Err("the broker sends fragments, which are not read here".to_owned());
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    self.take_piece(at, payload, now_ns)?;
                }
                Opcode::Ping => {
                    frame::write(Opcode::Pong, payload, &mut self.connections[at].out);
                    self.mark_dirty(at);
                }
                Opcode::Pong => self.hear(at, Incoming::Ready, now_ns)?,
                Opcode::Close => {
                    let reason = frame::close_reason(payload);
                    return Err(format!("the broker closed a connection: {reason}"));
                }
            }
        }
        Ok(used)
    }

    /// Takes a piece of a stream that came in a frame.
    fn take_piece(&mut self, at: usize, piece: &[u8], now_ns: u64) -> Result<(), String> {
        let mut unit = std::mem::take(&mut self.connections[at].unit);
        if unit.is_empty() {
            let used = self.take_units(at, piece, now_ns)?;
            unit.extend_from_slice(&piece[used..]);
        } else {
            unit.extend_from_slice(piece);
            let used = self.take_units(at, &unit, now_ns)?;
            unit.drain(..used);
        }
        if unit.len() > self.payload_max() {
            return Err(format!("more than {} bytes without an end", unit.len()));
        }
        self.connections[at].unit = unit;
        Ok(())
    }

    fn take_units(&mut self, at: usize, bytes: &[u8], now_ns: u64) -> Result<usize, String> {
        let dialect = self.dialect(at);
        let mut used = 0;
        while used < bytes.len() {
            let Some((size, incoming)) = dialect.read_unit(&bytes[used..])? else {
                break;
            };
            used += size;
            self.hear(at, incoming, now_ns)?;
        }
        Ok(used)
    }

    #[inline]
    fn hear(&mut self, at: usize, incoming: Incoming, now_ns: u64) -> Result<(), String> {
        match incoming {
            Incoming::Delivery(stamp) => self.deliver(at, stamp, now_ns),
            Incoming::Ack => {
                self.counted.acks += 1;
                self.counted.is_new = true;
            }
            Incoming::Ready => self.counted.ready += 1,
            Incoming::Gap(count) => self.counted.announced += count,
            Incoming::Ping => {
                self.dialect(at).pong(&mut self.connections[at].out);
                self.mark_dirty(at);
            }
            Incoming::Refused(reason) => return Err(format!("the broker refuses: {reason}")),
            Incoming::Garbled => self.ledger.faults.stray += 1,
            Incoming::Other => {}
        }
        Ok(())
    }

    fn deliver(&mut self, at: usize, stamp: Stamp, now_ns: u64) {
        let topology = &self.plan.topology;
        let lanes_each = topology.lanes_each();
        let Some(subscriber) = self.connections[at].subscriber else {
            self.ledger.faults.stray += 1;
            return;
        };
        let first = topology.topic_of_subscriber(self.subscribers[subscriber]) * lanes_each;
        let lane = (stamp.lane as usize).wrapping_sub(first);
        if lane >= lanes_each {
            self.ledger.faults.stray += 1;
            return;
        }
        let next = self.ledger.next(subscriber, lane);
        if stamp.sequence > next {
            // What nobody published must not make all before it lost.
            let (publisher, n) = topology.publication(stamp.lane as usize, stamp.sequence);
            if n >= self.shared.published[publisher].load(Ordering::Acquire) {
                self.ledger.faults.stray += 1;
                return;
            }
        }
        self.counted.is_new = true;
        match self.ledger.hear(subscriber, lane, stamp.sequence) {
            Heard::New { skipped } => {
                self.counted.deliveries += 1;
                for sequence in stamp.sequence - skipped..=stamp.sequence {
                    self.settle(stamp.lane as usize, sequence);
                }
            }
            Heard::Late => self.counted.deliveries += 1,
            Heard::Again => return,
        }
        if stamp.due_ns >= self.recorded_from_ns {
            self.latency
                .saturating_record(now_ns.saturating_sub(stamp.due_ns));
        }
    }

    #[inline]
    fn settle(&mut self, lane: usize, sequence: u32) {
        if let Pace::Rate(_) = self.plan.pace {
            return;
        }
        let (publisher, n) = self.plan.topology.publication(lane, sequence);
        if !self.shared.settle(publisher, n) {
            return;
        }
        let owner = worker_of_publisher(self.plan, publisher);
        if owner == self.index {
            self.mark_open(self.own_number(publisher));
        } else {
            self.shared.wake(owner);
        }
    }

    /// A publisher of this worker by its number in the run. They were added in ascending order.
    fn own_number(&self, publisher: usize) -> usize {
        if self.plan.threads == 1 {
            return publisher;
        }
        self.publishers
            .binary_search_by_key(&publisher, |publisher| publisher.id)
            .expect("a worker has the publishers it owns")
    }

    // --------------------------------------------------------------------------------------------- out

    fn publish(&mut self) {
        match (self.plan.pace, self.schedule) {
            (Pace::Window(window), _) => {
                let mut open = std::mem::take(&mut self.open);
                for at in open.drain(..) {
                    self.publish_window(at, window as u64);
                }
                self.open = open;
            }
            (Pace::Rate(_), Some(schedule)) if self.phase == Phase::Run => {
                self.publish_due(schedule);
            }
            (Pace::Rate(_), _) => {}
        }
    }

    /// Closed loop: as much as the window allows.
    fn publish_window(&mut self, at: usize, window: u64) {
        let publisher = &mut self.publishers[at];
        publisher.is_open = false;
        while publisher.base < publisher.next
            && self.shared.is_settled(publisher.id, publisher.base)
        {
            publisher.base += 1;
        }
        if self.phase != Phase::Run {
            return;
        }
        let end = publisher.quota.min(publisher.base + window);
        let (id, connection, start) = (publisher.id, publisher.connection, publisher.next);
        if start >= end {
            return;
        }
        publisher.next = end;
        // Before the first of them can come back.
        self.shared.published[id].store(end, Ordering::Release);
        let subscribers = self.plan.topology.subscribers_each as u32;
        for n in start..end {
            self.shared.send(id, n, subscribers);
            self.write_publication(id, connection, n, 0);
        }
    }

    /// Open loop: all that is due by now; the timer waits for the next one.
    fn publish_due(&mut self, schedule: Schedule) {
        let publishers = self.plan.topology.publishers as u64;
        let now_ns = self.shared.now_ns();
        let mut next_ns = u64::MAX;
        for at in 0..self.publishers.len() {
            loop {
                let publisher = &mut self.publishers[at];
                let (id, n) = (publisher.id, publisher.next);
                let connection = publisher.connection;
                if n >= publisher.quota {
                    break;
                }
                let due_ns = schedule.due_ns(n * publishers + id as u64);
                if due_ns > now_ns {
                    next_ns = next_ns.min(due_ns);
                    break;
                }
                let target = &self.connections[connection];
                if target.out.len() - target.sent > BACKLOG_BYTES {
                    next_ns = next_ns.min(now_ns + BACKLOG_NS);
                    break;
                }
                publisher.next = n + 1;
                self.shared.published[id].store(n + 1, Ordering::Release);
                if due_ns >= self.recorded_from_ns {
                    self.lateness.saturating_record(now_ns - due_ns);
                }
                self.write_publication(id, connection, n, due_ns);
            }
        }
        self.set_timer((next_ns < u64::MAX).then(|| next_ns - now_ns));
    }

    fn write_publication(&mut self, publisher: usize, connection: usize, n: u64, due_ns: u64) {
        let (lane, sequence) = self.plan.topology.lane(publisher, n);
        let stamp = Stamp {
            lane: lane as u32,
            sequence,
            due_ns,
        };
        let topic = self.plan.topology.topic_of_lane(lane);
        let out = &mut self.connections[connection].out;
        self.plan.publishing().publish(topic, stamp, out);
        self.counted.publishes += 1;
        self.mark_dirty(connection);
    }

    /// epoll's own timeout may be rounded to milliseconds. Setting a timer also silences it.
    fn set_timer(&mut self, after_ns: Option<u64>) {
        let after = after_ns.map_or(Duration::ZERO, |ns| Duration::from_nanos(ns.max(1)));
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec {
                tv_sec: after.as_secs() as i64,
                tv_nsec: i64::from(after.subsec_nanos()),
            },
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time)
            .expect("the time is a valid one");
    }

    /// One write for each connection that has something.
    fn flush(&mut self) -> Result<(), String> {
        for index in 0..self.dirty.len() {
            let at = self.dirty[index];
            let connection = &mut self.connections[at];
            connection.is_dirty = false;
            connection
                .write()
                .map_err(|error| format!("a connection broke: {error}"))?;
            let must_wait = !connection.out.is_empty();
            if must_wait != connection.is_blocked {
                connection.is_blocked = must_wait;
                let mut flags = epoll::EventFlags::IN;
                flags.set(epoll::EventFlags::OUT, must_wait);
                let data = epoll::EventData::new_u64(at as u64);
                epoll::modify(&self.epoll, &connection.socket, data, flags)
                    .map_err(|error| format!("epoll: {error}"))?;
            }
        }
        self.dirty.clear();
        Ok(())
    }

    /// Tells the conductor what has come so far.
    fn count(&mut self) {
        let counters = &self.shared.counters[self.index];
        let counted = &mut self.counted;
        counters.ready.store(counted.ready, Ordering::Release);
        counters
            .publishes
            .store(counted.publishes, Ordering::Release);
        counters.acks.store(counted.acks, Ordering::Release);
        counters
            .lost
            .store(self.ledger.faults.lost, Ordering::Release);
        counters
            .deliveries
            .store(counted.deliveries, Ordering::Release);
        if counted.is_new {
            counted.is_new = false;
            counters
                .last_ns
                .store(self.shared.now_ns(), Ordering::Release);
        }
        counters.phase.store(self.phase as u8, Ordering::Release);
    }

    /// An orderly end, as far as it can be had without waiting.
    fn say_goodbye(&mut self) {
        let mut goodbye = Vec::new();
        frame::write(Opcode::Close, &1000u16.to_be_bytes(), &mut goodbye);
        for (at, connection) in self.connections.iter().enumerate() {
            if !connection.out.is_empty() || self.dialect(at).carriage == Carriage::Stream {
                continue;
            }
            let _ = rustix::io::write(&connection.socket, &goodbye);
        }
    }
}

impl Connection {
    fn write(&mut self) -> Result<(), Errno> {
        while self.sent < self.out.len() {
            match rustix::io::write(&self.socket, &self.out[self.sent..]) {
                Ok(size) => self.sent += size,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                // The read will tell why, by a close frame if there is one.
                Err(Errno::PIPE | Errno::CONNRESET) => self.sent = self.out.len(),
                Err(error) => return Err(error),
            }
        }
        // What was sent is dropped when it is all of it, or much.
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        } else if self.sent > BACKLOG_BYTES {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }
}

impl Outcome {
    /// What was wrong, given what was published: by publisher, how many. If the run broke off, what is on its way is
    /// not held to be lost.
    pub fn faults(mut self, plan: &Plan, published: &[u64], is_broken_off: bool) -> Faults {
        if !is_broken_off {
            let lanes_each = plan.topology.lanes_each();
            for (subscriber, &id) in self.subscribers.iter().enumerate() {
                let first = plan.topology.topic_of_subscriber(id) * lanes_each;
                for lane in 0..lanes_each {
                    let (publisher, _) = plan.topology.publication(first + lane, 0);
                    let sent = plan.topology.sent_on(first + lane, published[publisher]);
                    self.ledger.close(subscriber, lane, sent);
                }
            }
        }
        self.ledger.faults
    }
}
