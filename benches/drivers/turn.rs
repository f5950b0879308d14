//! What the loops have in common: what came in a turn, and what each connection is to get for it.
//!
//! The raw ring, the raw epoll loop and our drivers do all of this in the same way, so that they differ by nothing but
//! how bytes come and go: what came in a turn is written once, each connection has at most one send under way, and what
//! waits for it meanwhile is joined to one.

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::gate::Gate;
use crate::scenario::{MESSAGE_BYTES, Scenario};

/// The bytes of all connections of an engine, by their numbers.
pub struct Turn {
    scenario: Scenario,
    gate: Gate,
    /// What was published in this turn.
    log: BytesMut,
    outboxes: Vec<Outbox>,
    /// Connections for which something waits that has not been asked for.
    dirty: Vec<usize>,
}

#[derive(Default)]
struct Outbox {
    waiting: SmallVec<[Bytes; 2]>,
    is_sending: bool,
}

impl Turn {
    /// Nothing came yet.
    pub fn new(scenario: Scenario, gate: Gate) -> Turn {
        let mut outboxes = Vec::new();
        outboxes.resize_with(scenario.readers(), Outbox::default);
        Turn {
            scenario,
            gate,
            log: BytesMut::new(),
            outboxes,
            dirty: Vec::new(),
        }
    }

    /// These bytes came from this connection.
    pub fn receive(&mut self, from: usize, bytes: &[u8]) {
        match self.scenario {
            Scenario::Echo { .. } => {
                if from == 0 {
                    assert_eq!(bytes.len(), self.scenario.burst() * MESSAGE_BYTES);
                    self.gate.pass();
                }
                self.wait(from, Bytes::copy_from_slice(bytes));
            }
            Scenario::FanOut { .. } => {
                // Or the halves of two publishers' messages would be mixed. On loopback a send this small comes whole.
                assert_eq!(bytes.len() % MESSAGE_BYTES, 0, "a message came in parts");
                self.log.extend_from_slice(bytes);
            }
        }
    }

    /// The turn has all its input: who is to be asked about now, each once.
    pub fn end(&mut self) -> Vec<usize> {
        if !self.log.is_empty() {
            let log = self.log.split().freeze();
            for to in 0..self.outboxes.len() {
                self.wait(to, log.clone());
            }
        }
        std::mem::take(&mut self.dirty)
    }

    /// All that waits for a connection, in one piece, unless a send to it is under way. It is under way from now on.
    pub fn next_send(&mut self, to: usize) -> Option<Bytes> {
        let outbox = &mut self.outboxes[to];
        if outbox.is_sending || outbox.waiting.is_empty() {
            return None;
        }
        outbox.is_sending = true;
        let waiting = std::mem::take(&mut outbox.waiting);
        match waiting.as_slice() {
            [one] => Some(one.clone()),
            many => Some(many.concat().into()),
        }
    }

    /// The send to this connection is done, all of it.
    pub fn sent(&mut self, to: usize) {
        let outbox = &mut self.outboxes[to];
        outbox.is_sending = false;
        if !outbox.waiting.is_empty() {
            self.dirty.push(to);
        }
    }

    fn wait(&mut self, to: usize, bytes: Bytes) {
        let outbox = &mut self.outboxes[to];
        if outbox.waiting.is_empty() && !outbox.is_sending {
            self.dirty.push(to);
        }
        outbox.waiting.push(bytes);
    }
}
