//! The simulated network: connections as pairs of byte queues, with as little kindness as TCP has.
//!
//! A byte that one side wrote is first in *sent* (that side's socket buffer), is moved by the world at some later
//! moment to *arrived* (the other side's), and is there until it is read. Both are bounded, so writers meet full
//! buffers. An end travels behind the bytes; a reset overtakes those that have not arrived.

use std::collections::VecDeque;

use fastrand::Rng;

/// The index of a connection.
pub type ConnectionId = usize;

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    sent: VecDeque<u8>,
    arrived: VecDeque<u8>,
    /// The writer will write no more.
    is_finished: bool,
}

/// What a reader gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Read {
    Bytes,
    Nothing,
    End,
    Reset,
}

#[derive(Debug)]
pub struct Connection {
    /// From the client.
    pub up: Pipe,
    /// To the client.
    pub down: Pipe,
    pub listener: u16,
    is_reset: bool,
    /// A driver has it, or had it.
    pub is_accepted: bool,
    client_is_gone: bool,
    server_is_gone: bool,
    /// What each buffer of the way down holds.
    pub buffer_bytes: usize,
}

/// All connections, the queues of the listeners, the clock, and who was woken.
pub struct Network {
    pub rng: Rng,
    pub now_ms: u64,
    connections: Vec<Connection>,
    /// By shard; nothing once its listeners are closed.
    backlog: Vec<Option<VecDeque<ConnectionId>>>,
    /// By shard.
    pub is_woken: Vec<bool>,
    /// Faults are over: reads take all there is, nothing comes late or twice.
    pub is_kind: bool,
    /// Rises whenever bytes move or somebody comes or goes: without it, nothing happened.
    pub progress: u64,
}

impl Network {
    pub fn new(seed: u64, shards: usize) -> Network {
        Network {
            rng: Rng::with_seed(seed),
            now_ms: 1_000,
            connections: Vec::new(),
            backlog: vec![Some(VecDeque::new()); shards],
            is_woken: vec![false; shards],
            is_kind: false,
            progress: 0,
        }
    }

    pub fn connect(&mut self, shard: usize, listener: u16, buffer_bytes: usize) -> ConnectionId {
        self.progress += 1;
        self.connections.push(Connection {
            up: Pipe::default(),
            down: Pipe::default(),
            listener,
            is_reset: false,
            is_accepted: false,
            client_is_gone: false,
            server_is_gone: false,
            buffer_bytes,
        });
        let id = self.connections.len() - 1;
        match &mut self.backlog[shard] {
            Some(backlog) => backlog.push_back(id),
            None => self.reset(id),
        }
        id
    }

    pub fn accept(&mut self, shard: usize) -> Option<ConnectionId> {
        self.progress += 1;
        let id = self.backlog[shard].as_mut()?.pop_front()?;
        self.connections[id].is_accepted = true;
        Some(id)
    }

    pub fn has_backlog(&self, shard: usize) -> bool {
        (self.backlog[shard].as_ref()).is_some_and(|backlog| !backlog.is_empty())
    }

    /// The listeners are closed: whoever was not accepted is reset, and whoever comes.
    pub fn stop_listening(&mut self, shard: usize) {
        for id in self.backlog[shard].take().into_iter().flatten() {
            self.reset(id);
        }
    }

    pub fn at(&self, id: ConnectionId) -> &Connection {
        &self.connections[id]
    }

    pub fn count(&self) -> usize {
        self.connections.len()
    }

    pub fn set_buffer_bytes(&mut self, bytes: usize) {
        for connection in &mut self.connections {
            connection.buffer_bytes = bytes;
        }
    }

    /// The network does its work: up to `bytes` of one direction of one connection arrive.
    pub fn carry(&mut self, id: ConnectionId, is_up: bool, bytes: usize) {
        let connection = &mut self.connections[id];
        if connection.is_reset {
            return;
        }
        let (pipe, is_gone, room) = if is_up {
            (&mut connection.up, connection.server_is_gone, usize::MAX)
        } else {
            let room = connection
                .buffer_bytes
                .saturating_sub(connection.down.arrived.len());
            (&mut connection.down, connection.client_is_gone, room)
        };
        let size = pipe.sent.len().min(bytes).min(room);
        if size == 0 {
            return;
        }
        self.progress += 1;
        if is_gone {
            // Bytes for nobody are answered by a reset.
            return self.reset(id);
        }
        pipe.arrived.extend(pipe.sent.drain(..size));
    }

    fn reset(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        connection.is_reset = true;
        connection.up.sent.clear();
        connection.down.sent.clear();
        self.progress += 1;
    }

    // ------------------------------------------------------------------------------------- the client's end

    pub fn client_writes(&mut self, id: ConnectionId, bytes: &[u8]) {
        let connection = &mut self.connections[id];
        if !connection.is_reset && !connection.up.is_finished {
            connection.up.sent.extend(bytes);
            self.progress += 1;
        }
    }

    pub fn client_reads(&mut self, id: ConnectionId, bytes_max: usize, into: &mut Vec<u8>) -> Read {
        let connection = &mut self.connections[id];
        let read = connection.down.read(connection.is_reset, bytes_max, into);
        self.progress += u64::from(read == Read::Bytes);
        read
    }

    /// Writes no more, and reads on.
    pub fn client_finishes(&mut self, id: ConnectionId) {
        self.connections[id].up.is_finished = true;
        self.progress += 1;
    }

    /// Goes away without a word.
    pub fn client_resets(&mut self, id: ConnectionId) {
        self.connections[id].client_is_gone = true;
        self.reset(id);
    }

    /// Closes the socket: what it was sent and did not read makes this a reset.
    pub fn client_closes(&mut self, id: ConnectionId) {
        let connection = &mut self.connections[id];
        connection.client_is_gone = true;
        connection.up.is_finished = true;
        self.progress += 1;
        if !connection.down.arrived.is_empty() {
            self.reset(id);
        }
    }

    // ------------------------------------------------------------------------------------- the server's end

    pub fn server_can_read(&self, id: ConnectionId) -> bool {
        let connection = &self.connections[id];
        connection.up.is_readable(connection.is_reset)
    }

    pub fn server_reads(&mut self, id: ConnectionId, bytes_max: usize, into: &mut Vec<u8>) -> Read {
        let connection = &mut self.connections[id];
        let read = connection.up.read(connection.is_reset, bytes_max, into);
        self.progress += u64::from(read != Read::Nothing);
        read
    }

    pub fn is_reset(&self, id: ConnectionId) -> bool {
        self.connections[id].is_reset
    }

    /// How many bytes the socket takes now.
    pub fn server_room(&self, id: ConnectionId) -> usize {
        let connection = &self.connections[id];
        connection
            .buffer_bytes
            .saturating_sub(connection.down.sent.len())
    }

    pub fn server_writes(&mut self, id: ConnectionId, bytes: &[u8]) {
        let connection = &mut self.connections[id];
        assert!(
            !connection.down.is_finished,
            "bytes are sent behind the end of a connection"
        );
        if !connection.is_reset {
            connection.down.sent.extend(bytes);
            self.progress += 1;
        }
    }

    pub fn server_finishes(&mut self, id: ConnectionId) {
        self.connections[id].down.is_finished = true;
        self.progress += 1;
    }

    /// Closes the socket: unread input makes this a reset.
    pub fn server_closes(&mut self, id: ConnectionId, reset: bool) {
        let connection = &mut self.connections[id];
        connection.server_is_gone = true;
        connection.down.is_finished = true;
        self.progress += 1;
        if reset || !connection.up.arrived.is_empty() {
            self.reset(id);
        }
    }

    /// One that was accepted and is not closed, if there is any: with a shard, or between two.
    pub fn held(&self) -> Option<ConnectionId> {
        (self.connections.iter())
            .position(|connection| connection.is_accepted && !connection.server_is_gone)
    }

    pub fn server_is_gone(&self, id: ConnectionId) -> bool {
        self.connections[id].server_is_gone
    }
}

impl Pipe {
    fn is_readable(&self, is_reset: bool) -> bool {
        !self.arrived.is_empty() || is_reset || self.is_finished && self.sent.is_empty()
    }

    fn read(&mut self, is_reset: bool, bytes_max: usize, into: &mut Vec<u8>) -> Read {
        if !self.arrived.is_empty() {
            let size = self.arrived.len().min(bytes_max);
            into.extend(self.arrived.drain(..size));
            Read::Bytes
        } else if is_reset {
            Read::Reset
        } else if self.is_finished && self.sent.is_empty() {
            Read::End
        } else {
            Read::Nothing
        }
    }
}
