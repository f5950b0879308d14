//! Native JSON (DESIGN 5.3). (stub)
use super::{Command, Event, Refusal};
use crate::message::Message;
use crate::topic::Topic;

/// A moment, written once per turn: `2018-02-16T00:31:37.123Z`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    pub unix_ms: u64,
    written: [u8; 24],
}

impl Stamp {
    pub fn new(_unix_ms: u64) -> Stamp {
        todo!()
    }
    pub fn as_bytes(&self) -> &[u8] {
        &self.written
    }
}

/// One text message (valid UTF-8) to a command. `trust_peer_flag`: keep `fromPeerServer`, else strip it.
pub fn decode(_text: &[u8], _stamp: &Stamp, _trust_peer_flag: bool) -> Result<Command, Refusal> {
    todo!()
}

/// The JSON text of an event (no WebSocket header).
pub fn encode(_event: &Event<'_>, _stamp: &Stamp, _out: &mut Vec<u8>) {
    todo!()
}

/// The JSON text of a delivery, for every subscriber of one filter.
pub fn encode_delivery(_message: &Message, _topic: &Topic, _context: &[u8], _out: &mut Vec<u8>) {
    todo!()
}
/// (stub)
pub fn delivery_size(_message: &Message, _topic: &Topic, _context: &[u8]) -> usize {
    todo!()
}
