//! A kernel in memory that does to the driver whatever a kernel may, on purpose and by one seed.
//!
//! It has slots that are reused at once, a few provided buffers, peers that write, stall, end and reset, and it
//! delivers completions late and out of order (each operation's own stay in order), few at a time. It invents stale
//! ones and doubles finished ones. What a driver must never do is asserted where it would do it:
//! - nothing is pushed on a slot after its close, and the close only when nothing is under way there;
//! - at most one operation of each kind is under way on a slot;
//! - a buffer is given back once, and read only while it is lent.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::event::{EventfdFlags, eventfd};

use crate::shard::outbox::Chunks;

use super::kernel::{Completion, GENERATIONS, Kernel, Kind, Operation, Tag};

/// Bytes of a provided buffer.
pub const BUFFER_BYTES: usize = 16;
/// The completions that one enter hands out, as with deferred ones.
const PER_ENTER: usize = 20;
/// How often a receive repeats itself before others get their turn.
const RECEIVE_REPEATS: usize = 32;

/// How bad a kernel it is: chances in percent.
#[derive(Clone, Copy, Debug)]
pub struct Malice {
    /// Completions wait for a later enter.
    pub late: u8,
    /// Completions of different operations change places.
    pub reordered: u8,
    /// Completions of earlier connections and finished operations come again.
    pub stale: u8,
    /// Sends end before their end.
    pub short: u8,
    /// What may fail, does.
    pub failing: u8,
    /// A cancel comes too late, or something else comes first.
    pub racing: u8,
}

impl Malice {
    pub const NONE: Malice = Malice {
        late: 0,
        reordered: 0,
        stale: 0,
        short: 0,
        failing: 0,
        racing: 0,
    };
    pub const SOME: Malice = Malice {
        late: 20,
        reordered: 30,
        stale: 10,
        short: 20,
        failing: 10,
        racing: 40,
    };
}

/// A connection, as its peer sees it; it outlives its slots.
#[derive(Default, Debug)]
pub struct Peer {
    /// Written by the peer, not received.
    pub written: VecDeque<u8>,
    /// The peer will write no more.
    pub is_ended: bool,
    /// The peer reset it.
    pub is_reset: bool,
    /// All that was sent to the peer.
    pub read: Vec<u8>,
    /// What the peer takes before it stalls.
    pub window: usize,
    /// This side shut down writing; both directions.
    pub is_shut: bool,
    pub is_aborted: bool,
    /// Slots that refer to it, in whichever ring.
    references: usize,
    /// Times that the last reference went.
    pub closes: usize,
    /// The close was to be a reset.
    pub lingers_not: bool,
}

#[derive(Debug)]
struct Socket {
    peer: usize,
    receive: Option<Tag>,
    send: Option<(Tag, Chunks, usize)>,
}

/// The kernel.
pub struct Simulated {
    pub random: fastrand::Rng,
    pub malice: Malice,
    pub peers: Vec<Peer>,
    /// The time, which an idle wait moves.
    pub now_ms: Rc<Cell<u64>>,
    sockets: Vec<Option<Socket>>,
    /// Where slots whose last close was pushed are not yet given away again.
    closing: Vec<bool>,
    /// Pushed, and the last completion not reaped.
    under_way: BTreeMap<u32, Vec<Tag>>,
    listening: VecDeque<usize>,
    accept: Option<Tag>,
    is_dropped: bool,
    queue: VecDeque<(Tag, Operation)>,
    pending: VecDeque<Completion>,
    completions: VecDeque<Completion>,
    completions_max: usize,
    aside: VecDeque<Completion>,
    overflows: u64,
    buffers: Vec<[u8; BUFFER_BYTES]>,
    free: VecDeque<u16>,
    is_lent: Vec<bool>,
    finished: Vec<Tag>,
    /// Connections that a host holds, by its descriptor.
    held: BTreeMap<RawFd, usize>,
    /// Accepts that were armed, and waits that had to end by the clock.
    pub accepts_armed: usize,
    pub idle_waits: usize,
    pub enters: usize,
    pub gathers: Vec<Duration>,
}

impl Simulated {
    pub fn new(seed: u64, malice: Malice, slots: usize, buffers: u16) -> Simulated {
        Simulated {
            random: fastrand::Rng::with_seed(seed),
            malice,
            peers: Vec::new(),
            now_ms: Rc::new(Cell::new(1_000)),
            sockets: (0..slots).map(|_| None).collect(),
            closing: vec![false; slots],
            under_way: BTreeMap::new(),
            listening: VecDeque::new(),
            accept: None,
            is_dropped: false,
            queue: VecDeque::new(),
            pending: VecDeque::new(),
            completions: VecDeque::new(),
            completions_max: 64,
            aside: VecDeque::new(),
            overflows: 0,
            buffers: vec![[0; BUFFER_BYTES]; usize::from(buffers)],
            free: (0..buffers).collect(),
            is_lent: vec![false; usize::from(buffers)],
            finished: Vec::new(),
            held: BTreeMap::new(),
            accepts_armed: 0,
            idle_waits: 0,
            enters: 0,
            gathers: Vec::new(),
        }
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.random.u8(..100) < percent
    }

    /// Somebody connects; gives the peer's number.
    pub fn connect(&mut self) -> usize {
        self.peers.push(Peer {
            window: 64,
            ..Peer::default()
        });
        self.listening.push_back(self.peers.len() - 1);
        self.peers.len() - 1
    }

    /// Who is at a slot.
    pub fn peer_at(&self, slot: u32) -> usize {
        self.sockets[slot as usize].as_ref().expect("a socket").peer
    }

    pub fn sockets_open(&self) -> usize {
        self.sockets.iter().flatten().count()
    }

    pub fn has_listener(&self) -> bool {
        !self.is_dropped
    }

    /// The accept that waits; what clients find who come too late.
    pub fn is_accepting(&self) -> bool {
        self.accept.is_some()
    }

    pub fn buffers_home(&self) -> bool {
        self.free.len() == self.buffers.len()
    }

    /// Has it anything to do or to say?
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
            && self.pending.is_empty()
            && self.completions.is_empty()
            && self.aside.is_empty()
    }

    /// Is something under way that will never end by itself?
    pub fn is_under_way(&self, slot: u32) -> bool {
        self.under_way
            .get(&slot)
            .is_some_and(|tags| !tags.is_empty())
    }

    /// Makes a stale completion: of a generation before this one.
    pub fn invent(&mut self, kind: Kind, slot: u32, generation: u32) {
        let generation = (generation + GENERATIONS - 1) % GENERATIONS;
        let tag = Tag {
            kind,
            slot,
            generation,
        };
        let buffer = match kind {
            Kind::Receive => self.lend(b"stale"),
            _ => None,
        };
        let more = self.random.bool();
        self.pending.push_back(Completion {
            tag,
            result: if buffer.is_some() { 5 } else { 0 },
            more,
            buffer,
            unsent: None,
            descriptor: None,
        });
    }

    fn lend(&mut self, bytes: &[u8]) -> Option<u16> {
        let id = self.free.pop_front()?;
        self.buffers[usize::from(id)][..bytes.len()].copy_from_slice(bytes);
        Some(id)
    }

    fn say(&mut self, tag: Tag, result: i32) {
        self.pending.push_back(Completion {
            tag,
            result,
            more: false,
            buffer: None,
            unsent: None,
            descriptor: None,
        });
    }

    /// A host has a descriptor of this connection from now on.
    pub fn hold(&mut self, socket: &OwnedFd, peer: usize) {
        self.held.insert(socket.as_raw_fd(), peer);
        let peer = &mut self.peers[peer];
        // The slot may have been closed before anybody heard of the descriptor, which kept the connection.
        peer.closes -= usize::from(peer.references == 0);
        peer.references += 1;
    }

    /// It closes it.
    pub fn let_go(&mut self, socket: OwnedFd) {
        let peer = self.held.remove(&socket.as_raw_fd()).expect("it was held");
        let peer = &mut self.peers[peer];
        peer.references -= 1;
        peer.closes += usize::from(peer.references == 0);
    }

    fn free_slot(&mut self) -> Option<u32> {
        let free: Vec<usize> = (0..self.sockets.len())
            .filter(|&slot| self.sockets[slot].is_none())
            .collect();
        let slot = *free.get(self.random.usize(..free.len().max(1)))?;
        self.closing[slot] = false;
        Some(slot as u32)
    }

    fn put(&mut self, slot: u32, peer: usize) {
        self.peers[peer].references += 1;
        self.sockets[slot as usize] = Some(Socket {
            peer,
            receive: None,
            send: None,
        });
    }

    fn begin(&mut self, tag: Tag, operation: Operation) {
        let failing = self.malice.failing;
        match operation {
            Operation::Accept { .. } => {
                self.accepts_armed += 1;
                assert!(self.accept.is_none(), "one accept per listener");
                self.accept = Some(tag);
                self.run_accept();
            }
            Operation::Receive { slot } => {
                let is_empty = self.free.is_empty();
                let Some(socket) = self.sockets[slot as usize].as_mut() else {
                    return self.say(tag, -libc::EBADF);
                };
                // The buffer is chosen before the socket is looked at.
                if is_empty {
                    return self.say(tag, -libc::ENOBUFS);
                }
                socket.receive = Some(tag);
                self.run_receive(slot);
            }
            Operation::Send { slot, chunks } => {
                let socket = self.sockets[slot as usize].as_mut().expect("it is open");
                socket.send = Some((tag, chunks, 0));
                self.run_send(slot);
            }
            Operation::Cancel { tag: cancelled } => self.cancel(tag, cancelled),
            Operation::Shutdown { slot, both } => {
                let peer = self.peer_at(slot);
                let peer = &mut self.peers[peer];
                peer.is_shut = true;
                peer.is_aborted |= both;
                self.say(tag, 0);
                if both {
                    self.run_receive(slot);
                }
                self.run_send(slot);
            }
            Operation::Linger { slot } => {
                let fails = self.chance(failing);
                let peer = self.peer_at(slot);
                self.peers[peer].lingers_not = !fails;
                self.say(tag, if fails { -libc::EINVAL } else { 0 });
            }
            Operation::Close { slot } => {
                let socket = self.sockets[slot as usize].take().expect("closed once");
                assert!(socket.receive.is_none() && socket.send.is_none());
                let peer = &mut self.peers[socket.peer];
                peer.references -= 1;
                peer.closes += usize::from(peer.references == 0);
                self.say(tag, 0);
            }
            Operation::SendFd { slot, .. } => {
                let peer = self.peer_at(slot);
                let there = if self.chance(failing) {
                    None
                } else {
                    self.free_slot()
                };
                match there {
                    Some(there) => {
                        self.put(there, peer);
                        self.say(tag, there as i32);
                    }
                    None => self.say(tag, -libc::ENFILE),
                }
            }
            Operation::InstallFd { .. } => {
                // Any descriptor will do: whose it is the test knows.
                let descriptor = eventfd(0, EventfdFlags::CLOEXEC).ok();
                let descriptor = descriptor.filter(|_| !self.chance(failing));
                self.say(
                    tag,
                    if descriptor.is_some() {
                        0
                    } else {
                        -libc::EMFILE
                    },
                );
                let said = self.pending.back_mut().expect("just said");
                said.descriptor = descriptor;
            }
            Operation::AdoptFd { socket } => {
                let peer = self.held[&socket.as_raw_fd()];
                let there = self.free_slot().filter(|_| !self.chance(failing));
                if let Some(there) = there {
                    self.put(there, peer);
                }
                self.let_go(socket);
                self.say(tag, there.map_or(-libc::ENFILE, |there| there as i32));
            }
            Operation::Wake { .. } => {}
        }
    }

    /// A cancel finds its operation, or comes too late; its own completion comes before or after that one's.
    fn cancel(&mut self, tag: Tag, cancelled: Tag) {
        if self.chance(self.malice.racing) {
            // What was ready completes first.
            self.run_peers();
        }
        let at = self.pending.len();
        let is_found = match cancelled.kind {
            Kind::Accept => self.accept.take_if(|armed| *armed == cancelled).is_some(),
            Kind::Receive | Kind::Send => {
                let socket = self.sockets[cancelled.slot as usize].as_mut();
                match (cancelled.kind, socket) {
                    (Kind::Receive, Some(socket)) => socket
                        .receive
                        .take_if(|armed| *armed == cancelled)
                        .is_some(),
                    (_, Some(socket)) if socket.send.as_ref().is_some_and(|s| s.0 == cancelled) => {
                        self.end_send(cancelled.slot, -libc::ECANCELED);
                        self.say(tag, 0);
                        return;
                    }
                    _ => false,
                }
            }
            _ => unreachable!("nobody cancels a {:?}", cancelled.kind),
        };
        if is_found {
            self.say(cancelled, -libc::ECANCELED);
        }
        self.say(tag, if is_found { 0 } else { -libc::ENOENT });
        if is_found && self.random.bool() {
            self.pending.swap(at, at + 1);
        }
    }

    fn end_send(&mut self, slot: u32, error: i32) {
        let socket = self.sockets[slot as usize].as_mut().expect("it is open");
        let (tag, chunks, sent) = socket.send.take().expect("a send is under way");
        let is_short = sent < chunks.iter().map(|chunk| chunk.len()).sum();
        self.pending.push_back(Completion {
            tag,
            result: if sent > 0 { sent as i32 } else { error },
            more: false,
            buffer: None,
            unsent: is_short.then(|| Box::new(chunks)),
            descriptor: None,
        });
    }

    fn run_send(&mut self, slot: u32) {
        let is_short = self.chance(self.malice.short);
        let Some(socket) = self.sockets[slot as usize].as_mut() else {
            return;
        };
        let Some((_, chunks, sent)) = &mut socket.send else {
            return;
        };
        let peer = &mut self.peers[socket.peer];
        if peer.is_reset || peer.is_shut {
            return self.end_send(slot, -libc::EPIPE);
        }
        let rest: Vec<u8> = chunks.iter().flatten().skip(*sent).copied().collect();
        let mut size = rest.len().min(peer.window);
        if is_short {
            size = self.random.usize(0..=size);
        }
        peer.window -= size;
        peer.read.extend_from_slice(&rest[..size]);
        *sent += size;
        if size == rest.len() || (is_short && size > 0) {
            self.end_send(slot, 0);
        } else if is_short {
            self.end_send(slot, -libc::EINTR);
        }
    }

    fn run_receive(&mut self, slot: u32) {
        for _ in 0..RECEIVE_REPEATS {
            let Some(socket) = self.sockets[slot as usize].as_mut() else {
                return;
            };
            let Some(tag) = socket.receive else {
                return;
            };
            let peer = &mut self.peers[socket.peer];
            let end = if peer.is_reset {
                Some(-libc::ECONNRESET)
            } else if !peer.written.is_empty() {
                None
            } else if peer.is_ended || peer.is_aborted {
                Some(0)
            } else {
                return;
            };
            if let Some(result) = end {
                socket.receive = None;
                return self.say(tag, result);
            }
            let Some(id) = self.free.pop_front() else {
                socket.receive = None;
                return self.say(tag, -libc::ENOBUFS);
            };
            let mut size = peer.written.len().min(BUFFER_BYTES);
            if self.malice.short > 0 {
                size = self.random.usize(1..=size);
            }
            for (to, byte) in self.buffers[usize::from(id)]
                .iter_mut()
                .zip(peer.written.drain(..size))
            {
                *to = byte;
            }
            // Now and then a receive is over with its last bytes.
            let more = self.random.u8(..100) >= self.malice.short / 4;
            if !more {
                socket.receive = None;
            }
            self.pending.push_back(Completion {
                tag,
                result: size as i32,
                more,
                buffer: Some(id),
                unsent: None,
                descriptor: None,
            });
        }
    }

    fn run_accept(&mut self) {
        while let Some(tag) = self.accept
            && !self.listening.is_empty()
        {
            let Some(slot) = self.free_slot() else {
                self.accept = None;
                return self.say(tag, -libc::ENFILE);
            };
            let peer = self.listening.pop_front().expect("somebody waits");
            self.put(slot, peer);
            self.say(tag, slot as i32);
            self.pending.back_mut().expect("just said").more = true;
        }
    }

    /// Whatever the peers made ready.
    fn run_peers(&mut self) {
        self.run_accept();
        let mut slots: Vec<u32> = (0..self.sockets.len() as u32).collect();
        if self.malice.reordered > 0 {
            self.random.shuffle(&mut slots);
        }
        for slot in slots {
            self.run_receive(slot);
            let has_room = self.sockets[slot as usize]
                .as_ref()
                .is_some_and(|socket| socket.send.is_some());
            if has_room {
                self.run_send(slot);
            }
        }
    }

    /// Some of what is pending becomes visible: each operation's own completions in order.
    fn post(&mut self) {
        if self.chance(self.malice.stale)
            && let Some(tag) = self.random.choice(self.finished.clone())
        {
            // Of an operation that has ended: once more, unless it began anew.
            let is_under_way = self
                .under_way
                .get(&tag.slot)
                .is_some_and(|tags| tags.contains(&tag));
            if !is_under_way {
                let buffer = match tag.kind {
                    Kind::Receive => self.lend(b"doubled"),
                    _ => None,
                };
                self.pending.push_back(Completion {
                    tag,
                    result: if buffer.is_some() { 7 } else { 0 },
                    more: false,
                    buffer,
                    unsent: None,
                    descriptor: None,
                });
            }
        }
        for at in 1..self.pending.len() {
            if self.pending[at].tag != self.pending[at - 1].tag
                && self.chance(self.malice.reordered)
            {
                self.pending.swap(at, at - 1);
            }
        }
        let mut count = self.pending.len().min(PER_ENTER);
        if count > 0 && self.chance(self.malice.late) {
            count = self.random.usize(..count);
        }
        for completion in self.pending.drain(..count) {
            if self.completions.len() < self.completions_max && self.aside.is_empty() {
                self.completions.push_back(completion);
            } else {
                self.overflows += u64::from(self.aside.is_empty());
                self.aside.push_back(completion);
            }
        }
    }

    /// A completion queue of another size.
    pub fn set_completions_max(&mut self, completions_max: usize) {
        self.completions_max = completions_max;
    }
}

impl Kernel for Simulated {
    fn push(&mut self, tag: Tag, operation: Operation) {
        let is_on_slot = !matches!(
            tag.kind,
            Kind::Accept | Kind::Cancel | Kind::AdoptFd | Kind::Waker | Kind::Wake | Kind::Woken
        );
        if is_on_slot {
            assert!(
                !self.closing[tag.slot as usize],
                "{tag:?} is pushed on a slot that is being closed"
            );
            let tags = self.under_way.entry(tag.slot).or_default();
            tags.retain(|other| other.generation == tag.generation || other.kind != Kind::Close);
            assert!(
                tags.iter().all(|other| other.kind != tag.kind),
                "a second {tag:?} beside {tags:?}"
            );
            if tag.kind == Kind::Close {
                assert!(tags.is_empty(), "closed while {tags:?} are under way");
                self.closing[tag.slot as usize] = true;
            }
            tags.push(tag);
        }
        self.queue.push_back((tag, operation));
    }

    fn enter(&mut self, wait: Option<Duration>, gather: Duration) -> io::Result<()> {
        self.enters += 1;
        self.gathers.push(gather);
        if self.aside.is_empty() {
            while let Some((tag, operation)) = self.queue.pop_front() {
                self.begin(tag, operation);
            }
        }
        self.run_peers();
        while self.completions.len() < self.completions_max
            && let Some(completion) = self.aside.pop_front()
        {
            self.completions.push_back(completion);
        }
        self.post();
        if self.completions.is_empty()
            && self.pending.is_empty()
            && let Some(wait) = wait
            && !wait.is_zero()
        {
            self.idle_waits += 1;
            self.now_ms.set(self.now_ms.get() + wait.as_millis() as u64);
        }
        Ok(())
    }

    fn reap(&mut self, completions: &mut VecDeque<Completion>) {
        for completion in self.completions.drain(..) {
            if let Some(id) = completion.buffer {
                let is_lent = &mut self.is_lent[usize::from(id)];
                assert!(!*is_lent, "buffer {id} is lent twice");
                *is_lent = true;
            }
            if !completion.more
                && let Some(tags) = self.under_way.get_mut(&completion.tag.slot)
                && let Some(at) = tags.iter().position(|tag| *tag == completion.tag)
            {
                self.finished.push(tags.remove(at));
                if self.finished.len() > 64 {
                    self.finished.remove(0);
                }
            }
            completions.push_back(completion);
        }
    }

    fn has_deferred(&self) -> bool {
        !self.pending.is_empty() || !self.aside.is_empty()
    }

    fn buffer(&mut self, id: u16, size: usize) -> &mut [u8] {
        assert!(self.is_lent[usize::from(id)], "buffer {id} is the kernel's");
        &mut self.buffers[usize::from(id)][..size]
    }

    fn give_back(&mut self, id: u16) {
        let is_lent = &mut self.is_lent[usize::from(id)];
        assert!(*is_lent, "buffer {id} is given back and was not lent");
        *is_lent = false;
        // Whoever still reads it shall notice.
        self.buffers[usize::from(id)].fill(0xEE);
        self.free.push_back(id);
    }

    fn drop_listener(&mut self, listener: u16) {
        assert_eq!(listener, 0, "there is one listener");
        assert!(self.accept.is_none(), "its accept is still armed");
        self.is_dropped = true;
    }

    fn overflows(&self) -> u64 {
        self.overflows
    }
}
