//! A driver over the simulated kernel, and in place of the shard somebody who remembers: what each connection brought and
//! was given, and what the kernel must have of it in the end.

use std::cell::Cell;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::address::{SessionId, ShardId};
use crate::net::{Driver, Sending, Taken};
use crate::shard::outbox::Chunks;
use crate::shard::{Ending, Now};

use super::features::Features;
use super::simulated::{Malice, Peer, Simulated};
use super::{Direct, Receive, State, Uring};

/// Without waiting.
pub const NOW: Option<Duration> = Some(Duration::ZERO);

/// One that the shard has.
#[derive(Debug)]
pub struct Session {
    pub id: SessionId,
    pub peer: usize,
    pub is_sending: bool,
    pub is_ended: bool,
    pub is_shut: bool,
    pub is_reading: bool,
}

/// A driver, and a shard that does nothing but remember.
pub struct World {
    pub driver: Uring<Simulated>,
    pub now_ms: Rc<Cell<u64>>,
    pub sessions: Vec<Session>,
    pub leaving: Vec<(SessionId, usize)>,
    /// Those that the host has, and those on their way back by number.
    pub held: Vec<(usize, OwnedFd)>,
    pub adopting: HashMap<u32, usize>,
    pub adoptions: u32,
    /// What came from each peer, and what was given to be sent to it.
    pub received: Vec<Vec<u8>>,
    pub given: Vec<Vec<u8>>,
    /// What each peer wrote.
    pub written: Vec<Vec<u8>>,
    /// Peers whose connection failed on the way.
    pub failed: Vec<usize>,
    pub endings: Vec<(usize, Ending)>,
    pub accepted: usize,
}

impl World {
    pub fn new(seed: u64, malice: Malice, slots: usize, buffers: u16) -> World {
        World::with_coalesce(seed, malice, slots, buffers, Duration::ZERO)
    }

    pub fn with_coalesce(
        seed: u64,
        malice: Malice,
        slots: usize,
        buffers: u16,
        coalesce: Duration,
    ) -> World {
        let kernel = Simulated::new(seed, malice, slots, buffers);
        let now_ms = kernel.now_ms.clone();
        let time = now_ms.clone();
        let clock = Box::new(move || Now {
            ms: time.get(),
            unix_ms: 0,
        });
        World {
            driver: Uring::new(kernel, Features::ALL, &[3], coalesce, clock),
            now_ms,
            sessions: Vec::new(),
            leaving: Vec::new(),
            held: Vec::new(),
            adopting: HashMap::new(),
            adoptions: 0,
            received: Vec::new(),
            given: Vec::new(),
            written: Vec::new(),
            failed: Vec::new(),
            endings: Vec::new(),
            accepted: 0,
        }
    }

    pub fn kernel(&mut self) -> &mut Simulated {
        self.driver.kernel_mut()
    }

    pub fn peer(&mut self, peer: usize) -> &mut Peer {
        &mut self.driver.kernel_mut().peers[peer]
    }

    pub fn connect(&mut self) -> usize {
        self.received.push(Vec::new());
        self.given.push(Vec::new());
        self.written.push(Vec::new());
        self.kernel().connect()
    }

    /// The peer writes this many bytes, each other than its neighbours.
    pub fn write(&mut self, peer: usize, size: usize) {
        if self.peer(peer).is_ended {
            return;
        }
        for _ in 0..size {
            let byte = (self.written[peer].len() * 7 + peer) as u8;
            self.written[peer].push(byte);
            self.peer(peer).written.push_back(byte);
        }
    }

    pub fn chunks(&mut self, peer: usize, sizes: &[usize]) -> Chunks {
        sizes
            .iter()
            .map(|&size| {
                let start = self.given[peer].len();
                let bytes: Vec<u8> = (start..start + size)
                    .map(|at| (at * 13 + peer) as u8)
                    .collect();
                self.given[peer].extend_from_slice(&bytes);
                Bytes::from(bytes)
            })
            .collect()
    }

    pub fn send(&mut self, index: usize, sizes: &[usize]) {
        let Session { id, peer, .. } = self.sessions[index];
        let before = self.given[peer].len();
        let chunks = self.chunks(peer, sizes);
        match self.driver.send(id, chunks) {
            Sending::Pending => self.sessions[index].is_sending = true,
            Sending::Failed => self.given[peer].truncate(before),
            Sending::Done => panic!("a ring is never done at once"),
        }
    }

    pub fn at(&self, id: SessionId) -> Option<usize> {
        self.sessions.iter().position(|session| session.id == id)
    }

    /// One turn of the loop.
    pub fn turn(&mut self, wait: Option<Duration>) {
        let mut taken = Vec::new();
        self.driver.take(wait, &mut taken).unwrap();
        for taken in taken {
            self.took(taken);
        }
        for session in &self.sessions {
            let peer = session.peer;
            let (read, given) = (&self.driver.kernel.peers[peer].read, &self.given[peer]);
            assert!(
                given.starts_with(read),
                "what peer {peer} read is no prefix"
            );
            let (received, written) = (&self.received[peer], &self.written[peer]);
            assert!(
                written.starts_with(received),
                "what came from peer {peer} is no prefix"
            );
        }
    }

    pub fn took(&mut self, taken: Taken<Direct>) {
        match taken {
            Taken::Accepted {
                session, listener, ..
            } => {
                assert_eq!(listener, 3, "the listener's index in the settings");
                self.accepted += 1;
                let peer = self.kernel().peer_at(session.slot);
                self.enter(session, peer);
            }
            Taken::Received { session, buffer } => {
                let bytes = self.driver.bytes(buffer).to_vec();
                let index = self.at(session).expect("received by a session");
                let peer = self.sessions[index].peer;
                self.received[peer].extend_from_slice(&bytes);
            }
            Taken::Sent { session } => {
                let index = self.at(session).expect("sent by a session");
                let session = &mut self.sessions[index];
                assert!(session.is_sending, "sent without a send");
                session.is_sending = false;
                let peer = session.peer;
                assert_eq!(self.driver.kernel.peers[peer].read, self.given[peer]);
            }
            Taken::Ended { session, ending } => {
                let index = self.at(session).expect("of a session");
                let peer = self.sessions[index].peer;
                let said = (peer, ending);
                assert!(!self.endings.contains(&said), "{said:?} is said twice");
                self.endings.push(said);
                self.sessions[index].is_ended = true;
                if matches!(ending, Ending::Failed) {
                    self.failed.push(peer);
                    self.close(index, false);
                }
            }
            Taken::Released {
                session,
                socket,
                bytes,
            } => {
                let at = self.leaving.iter().position(|(id, _)| *id == session);
                let (_, peer) = self.leaving.remove(at.expect("it was to leave"));
                let Some(socket) = socket else {
                    self.failed.push(peer);
                    return;
                };
                self.received[peer].extend_from_slice(&bytes);
                self.kernel().hold(&socket, peer);
                self.held.push((peer, socket));
            }
            Taken::Adopted { number, session } => {
                let peer = self.adopting.remove(&number).expect("it was given");
                match session {
                    Some(session) => self.enter(session, peer),
                    None => self.failed.push(peer),
                }
            }
            Taken::Detached {
                session,
                socket,
                bytes,
            } => {
                let at = self.leaving.iter().position(|(id, _)| *id == session);
                let (_, peer) = self.leaving.remove(at.expect("it was to leave"));
                let Some(socket) = socket else {
                    self.failed.push(peer);
                    return;
                };
                self.received[peer].extend_from_slice(&bytes);
                let session = self.driver.attach(socket).expect("it arrives");
                self.enter(session, peer);
            }
        }
    }

    pub fn enter(&mut self, id: SessionId, peer: usize) {
        assert!(self.at(id).is_none(), "{id:?} is there already");
        assert_eq!(self.kernel().peer_at(id.slot), peer);
        self.sessions.push(Session {
            id,
            peer,
            is_sending: false,
            is_ended: self.endings.contains(&(peer, Ending::EndOfInput)),
            is_shut: self.driver.kernel.peers[peer].is_shut,
            is_reading: true,
        });
        // Said once per session, and this is another one.
        self.endings.retain(|(other, _)| *other != peer);
    }

    pub fn close(&mut self, index: usize, reset: bool) {
        let session = self.sessions.swap_remove(index);
        self.driver.close(session.id, reset);
    }

    pub fn release(&mut self, index: usize) {
        let session = self.sessions.swap_remove(index);
        self.leaving.push((session.id, session.peer));
        self.driver.release(session.id);
    }

    /// The host gives a connection back.
    pub fn adopt(&mut self, index: usize) {
        let (peer, socket) = self.held.swap_remove(index);
        self.adoptions += 1;
        self.adopting.insert(self.adoptions, peer);
        self.driver.adopt(self.adoptions, socket);
    }

    pub fn detach(&mut self, index: usize) {
        let session = self.sessions.swap_remove(index);
        self.leaving.push((session.id, session.peer));
        self.driver.detach(session.id, ShardId(1));
    }

    pub fn set_reading(&mut self, index: usize, reading: bool) {
        self.sessions[index].is_reading = reading;
        self.driver.set_reading(self.sessions[index].id, reading);
    }

    /// Turns until the kernel has nothing left to say.
    pub fn settle(&mut self) {
        for _ in 0..100_000 {
            self.turn(NOW);
            let wants = !self.driver.rearm.is_empty() || !self.driver.hungry.is_empty();
            if !wants && self.driver.lent.is_empty() && self.kernel().is_idle() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Every connection that still is one got everything, and brought everything.
    pub fn check_complete(&mut self) {
        for session in &self.sessions {
            let peer = session.peer;
            assert_eq!(self.received[peer], self.written[peer], "peer {peer}");
            assert_eq!(self.driver.kernel.peers[peer].read, self.given[peer]);
            assert!(!session.is_sending, "the send to peer {peer} never ends");
        }
    }

    /// Ends everything; then nothing is left, and each connection was closed once.
    pub fn finish(mut self) {
        while !self.sessions.is_empty() {
            let reset = self.kernel().random.bool();
            self.close(0, reset);
        }
        self.driver.stop_accepting();
        for _ in 0..10 {
            self.settle();
            for (_, socket) in std::mem::take(&mut self.held) {
                self.kernel().let_go(socket);
            }
            while !self.sessions.is_empty() {
                // Accepted or arrived meanwhile.
                self.close(0, false);
            }
        }
        assert!(self.leaving.is_empty(), "{:?} never left", self.leaving);
        assert!(!self.kernel().has_listener(), "the listener is held");
        assert_eq!(self.kernel().sockets_open(), 0, "sockets are left");
        assert!(self.kernel().buffers_home(), "buffers are lost");
        let waiting = self.kernel().peers.len() - self.accepted;
        let closes = |peer: &&Peer| peer.closes == 1;
        let closed = self.driver.kernel.peers.iter().filter(closes).count();
        assert_eq!(closed + waiting, self.driver.kernel.peers.len());
        assert!(self.driver.nameless.is_empty(), "nobody asks for them");
        for slot in self.driver.slots.iter() {
            assert!(matches!(slot.state, State::Free), "{slot:?}");
            assert_eq!((slot.under_way, slot.receive), (0, Receive::Idle));
        }
    }
}
