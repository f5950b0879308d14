//! The simulated driver: [`Driver`] over the simulated network, for one shard.
//!
//! It never waits. It reads as a driver may: in pieces of any size, not every connection each turn, once more after it
//! was told to stop (a completion that was under way), and it repeats late news of connections that have gone.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use pubsub::address::{RemoteAddress, SessionId, ShardId};
use pubsub::net::{Buffer, Driver, Sending, Taken};
use pubsub::shard::outbox::Chunks;
use pubsub::shard::{Ending, Now};

use crate::network::{ConnectionId, Network, Read};

/// A connection between two drivers.
#[derive(Debug)]
pub struct SimSocket(ConnectionId);

struct Connection {
    id: ConnectionId,
    is_reading: bool,
    /// One more read may come although reading has stopped.
    is_late: bool,
    /// Its end was reported.
    has_ended: bool,
    /// What is left of the send under way.
    sending: Option<VecDeque<u8>>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    connection: Option<Connection>,
}

/// The driver of one shard.
pub struct SimDriver {
    shard: usize,
    network: Rc<RefCell<Network>>,
    slots: Vec<Slot>,
    arena: Vec<u8>,
    /// Let go, to be reported after so many turns.
    detached: Vec<(usize, SessionId, ConnectionId)>,
    /// Connections that are no more, for late news.
    gone: Vec<SessionId>,
    is_accepting: bool,
    /// Accepted when it was told to accept no more; it says so in its next turn.
    accepted_late: Vec<ConnectionId>,
    /// A planted bug: some sends are reported done before they are, and then once more.
    pub reports_sends_twice: bool,
    is_reported: Vec<SessionId>,
}

/// The most that a turn reads from one connection.
const CONNECTION_BYTES_MAX: usize = 64 * 1024;

impl SimDriver {
    pub fn new(shard: usize, network: Rc<RefCell<Network>>) -> SimDriver {
        SimDriver {
            shard,
            network,
            slots: Vec::new(),
            arena: Vec::new(),
            detached: Vec::new(),
            gone: Vec::new(),
            is_accepting: true,
            accepted_late: Vec::new(),
            reports_sends_twice: false,
            is_reported: Vec::new(),
        }
    }

    /// Would a driver that waits be woken by the network?
    pub fn is_ready(&self) -> bool {
        let network = self.network.borrow();
        !self.detached.is_empty()
            || !self.accepted_late.is_empty()
            || self.is_accepting && network.has_backlog(self.shard)
            || self
                .slots
                .iter()
                .filter_map(|slot| slot.connection.as_ref())
                .any(|connection| {
                    let id = connection.id;
                    !connection.has_ended
                        && (network.is_reset(id)
                            || connection.is_reading && network.server_can_read(id)
                            || connection
                                .sending
                                .as_ref()
                                .is_some_and(|rest| rest.is_empty() || network.server_room(id) > 0))
                })
    }

    /// Reads once more from every connection, also where reading was stopped.
    pub fn read_late(&mut self) {
        for slot in &mut self.slots {
            if let Some(connection) = &mut slot.connection {
                connection.is_late = true;
            }
        }
    }

    /// How many connections it holds.
    pub fn count(&self) -> usize {
        let held = self.slots.iter().filter(|slot| slot.connection.is_some());
        held.count() + self.detached.len()
    }

    fn find(&mut self, session: SessionId) -> Option<&mut Connection> {
        let slot = self.slots.get_mut(session.slot as usize)?;
        slot.connection
            .as_mut()
            .filter(|_| slot.generation == session.generation)
    }

    fn insert(&mut self, id: ConnectionId) -> SessionId {
        let free = self.slots.iter().position(|slot| slot.connection.is_none());
        let index = free.unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        self.slots[index].connection = Some(Connection {
            id,
            is_reading: true,
            is_late: false,
            has_ended: false,
            sending: None,
        });
        SessionId {
            slot: index as u32,
            generation: self.slots[index].generation,
        }
    }

    fn remove(&mut self, session: SessionId) -> Option<Connection> {
        self.find(session)?;
        let slot = &mut self.slots[session.slot as usize];
        slot.generation += 1;
        self.gone.push(session);
        slot.connection.take()
    }

    fn repeat_old_news(&mut self, taken: &mut Vec<Taken<SimSocket>>) {
        let network = &mut self.network.borrow_mut();
        if network.is_kind || self.gone.is_empty() || network.rng.u8(..) > 20 {
            return;
        }
        let session = self.gone[network.rng.usize(..self.gone.len())];
        taken.push(match network.rng.u8(..3) {
            0 => Taken::Sent { session },
            1 => Taken::Ended {
                session,
                ending: Ending::Failed,
            },
            _ => {
                let start = self.arena.len();
                self.arena.extend_from_slice(b"late");
                Taken::Received {
                    session,
                    buffer: Buffer { start, size: 4 },
                }
            }
        });
    }

    /// Looks after one connection.
    fn attend(&mut self, index: usize, taken: &mut Vec<Taken<SimSocket>>) {
        let slot = &mut self.slots[index];
        let session = SessionId {
            slot: index as u32,
            generation: slot.generation,
        };
        let Some(connection) = &mut slot.connection else {
            return;
        };
        if connection.has_ended {
            return;
        }
        let id = connection.id;
        let network = &mut *self.network.borrow_mut();
        if let Some(rest) = &mut connection.sending
            && !network.is_reset(id)
        {
            let size = network.server_room(id).min(rest.len());
            let size = network.some_of(size);
            let bytes: Vec<u8> = rest.drain(..size).collect();
            network.server_writes(id, &bytes);
            if rest.is_empty() {
                connection.sending = None;
                if !self.is_reported.contains(&session) {
                    taken.push(Taken::Sent { session });
                }
                self.is_reported.retain(|reported| *reported != session);
            } else if self.reports_sends_twice && !self.is_reported.contains(&session) {
                self.is_reported.push(session);
                taken.push(Taken::Sent { session });
            }
        }
        if connection.is_reading || std::mem::take(&mut connection.is_late) {
            let start = self.arena.len();
            let size = network.piece();
            if size == 0 {
                return;
            }
            match network.server_reads(id, size, &mut self.arena) {
                Read::Bytes => taken.push(Taken::Received {
                    session,
                    buffer: Buffer {
                        start,
                        size: self.arena.len() - start,
                    },
                }),
                Read::Nothing => {}
                Read::End => {
                    // A connection that is not read any more may still be written to.
                    connection.is_reading = false;
                    taken.push(Taken::Ended {
                        session,
                        ending: Ending::EndOfInput,
                    });
                }
                Read::Reset => {
                    connection.has_ended = true;
                    taken.push(Taken::Ended {
                        session,
                        ending: Ending::Failed,
                    });
                }
            }
        } else if network.is_reset(id) {
            connection.has_ended = true;
            taken.push(Taken::Ended {
                session,
                ending: Ending::Failed,
            });
        }
    }
}

impl Network {
    /// How much a read may take.
    fn piece(&mut self) -> usize {
        if self.is_kind {
            return CONNECTION_BYTES_MAX;
        }
        match self.rng.u8(..8) {
            0 => 0,
            1 => 1,
            2 => self.rng.usize(1..8),
            3 => self.rng.usize(1..200),
            _ => CONNECTION_BYTES_MAX,
        }
    }

    /// Part of what a socket would take.
    fn some_of(&mut self, size: usize) -> usize {
        if self.is_kind || size == 0 || self.rng.bool() {
            size
        } else {
            self.rng.usize(..=size)
        }
    }
}

impl Driver for SimDriver {
    type Socket = SimSocket;

    fn take(
        &mut self,
        _wait: Option<Duration>,
        taken: &mut Vec<Taken<SimSocket>>,
    ) -> io::Result<()> {
        self.arena.clear();
        self.network.borrow_mut().is_woken[self.shard] = false;
        self.repeat_old_news(taken);
        let is_kind = self.network.borrow().is_kind;
        for (turns, session, id) in std::mem::take(&mut self.detached) {
            if turns > 0 && !is_kind {
                self.detached.push((turns - 1, session, id));
                continue;
            }
            // What the cancelled receive had taken already.
            let mut bytes = Vec::new();
            let mut network = self.network.borrow_mut();
            if network.rng.bool() {
                network.server_reads(id, 10, &mut bytes);
            }
            taken.push(Taken::Detached {
                session,
                socket: Some(SimSocket(id)),
                bytes,
            });
        }
        let mut accepted_now = std::mem::take(&mut self.accepted_late);
        while self.is_accepting && self.network.borrow().has_backlog(self.shard) {
            if !is_kind && self.network.borrow_mut().rng.u8(..3) == 0 {
                break;
            }
            let accepted = self.network.borrow_mut().accept(self.shard);
            accepted_now.extend(accepted);
        }
        for id in accepted_now {
            let session = self.insert(id);
            taken.push(Taken::Accepted {
                session,
                listener: self.network.borrow().at(id).listener,
                address: RemoteAddress::known("simulated"),
            });
        }
        let mut order: Vec<usize> = (0..self.slots.len()).collect();
        self.network.borrow_mut().rng.shuffle(&mut order);
        for index in order {
            self.attend(index, taken);
        }
        Ok(())
    }

    fn release(&mut self, _session: SessionId) {
        unreachable!("no host takes HTTP here");
    }

    fn adopt(&mut self, _number: u32, _socket: OwnedFd) {
        unreachable!("no host has connections here");
    }

    fn bytes(&mut self, buffer: Buffer) -> &mut [u8] {
        &mut self.arena[buffer.start..buffer.start + buffer.size]
    }

    fn send(&mut self, session: SessionId, chunks: Chunks) -> Sending {
        let network = self.network.clone();
        let Some(connection) = self.find(session) else {
            return Sending::Failed;
        };
        assert!(
            connection.sending.is_none(),
            "two sends of one connection are under way"
        );
        let network = &mut *network.borrow_mut();
        if network.is_reset(connection.id) {
            return Sending::Failed;
        }
        let mut bytes: Vec<u8> = chunks.concat();
        let size = network.server_room(connection.id).min(bytes.len());
        let size = network.some_of(size);
        let rest = bytes.split_off(size);
        network.server_writes(connection.id, &bytes);
        if rest.is_empty() && (network.is_kind || network.rng.u8(..4) > 0) {
            return Sending::Done;
        }
        // Also a send that is out may be told only later.
        connection.sending = Some(rest.into());
        Sending::Pending
    }

    fn submit(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn set_reading(&mut self, session: SessionId, reading: bool) {
        let network = self.network.clone();
        if let Some(connection) = self.find(session) {
            let network = &mut *network.borrow_mut();
            connection.is_late = connection.is_reading && !reading && network.rng.bool();
            connection.is_late &= !network.is_kind;
            connection.is_reading = reading;
        }
    }

    fn shutdown_write(&mut self, session: SessionId) {
        let network = self.network.clone();
        if let Some(connection) = self.find(session) {
            assert!(connection.sending.is_none(), "the end cuts a send off");
            network.borrow_mut().server_finishes(connection.id);
        }
    }

    fn close(&mut self, session: SessionId, reset: bool) {
        if let Some(connection) = self.remove(session) {
            let mut network = self.network.borrow_mut();
            network.server_closes(connection.id, reset);
        }
    }

    fn detach(&mut self, session: SessionId, _to: ShardId) {
        if let Some(connection) = self.remove(session) {
            let turns = self.network.borrow_mut().rng.usize(..3);
            self.detached.push((turns, session, connection.id));
        }
    }

    fn attach(&mut self, socket: SimSocket) -> Option<SessionId> {
        Some(self.insert(socket.0))
    }

    fn stop_accepting(&mut self) {
        self.is_accepting = false;
        let mut network = self.network.borrow_mut();
        if !network.is_kind && network.rng.bool() {
            self.accepted_late.extend(network.accept(self.shard));
        }
        network.stop_listening(self.shard);
    }

    fn wake(&mut self, shard: ShardId) {
        self.network.borrow_mut().is_woken[shard.index()] = true;
    }

    fn now(&self) -> Now {
        let ms = self.network.borrow().now_ms;
        Now {
            ms,
            unix_ms: 1_750_000_000_000 + ms,
        }
    }
}
