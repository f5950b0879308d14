//! A simulated client: native JSON in masked frames, and what it expects back.
//!
//! A client knows what it sent and in which order; so each answer is compared with the one command that it must belong
//! to, and each delivery with the stays that this client has acks for.

use std::collections::{HashMap, VecDeque};

use crate::network::ConnectionId;
use crate::oracle::Moment;
use crate::stage::Stage;

pub type ClientIndex = usize;

pub const TOPICS: [&str; 10] = [
    "a", "a.b", "a.b.c", "a.x", "b", "b.c", "d", "d.x", "k", "k.x",
];
pub const FILTERS: [&str; 20] = [
    "a", "a.b", "a.b.c", "=a", "=a.b", "a.*", "=a.*", "*.b", "=*.b", "*", "=*", "b", "b.c", "d",
    "d.x", "d.*", "k", "=k.x", "*.x", "a.*.c",
];
pub const SERVICES: [&str; 3] = ["add", "mul", "rare"];

/// The answer that a command must get.
#[derive(Debug)]
pub struct Expected {
    /// As the answer has it: type, and action or code.
    pub kind: &'static str,
    pub action: &'static str,
    pub name: String,
    pub id: Option<u64>,
    pub then: Then,
}

/// What a right answer means.
#[derive(Debug)]
pub enum Then {
    Nothing,
    Subscribed(usize),
    Unsubscribed(&'static str, Option<usize>),
    Published(u64),
    Handles(&'static str),
    Emitted(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The 101 has not come.
    Connecting,
    Open,
    /// The connection is over.
    Ended,
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// With a close frame of this code from the broker (0: without one).
    Closed(u16),
    /// The handshake was refused.
    Refused(u16),
    /// Without a close frame.
    Cut,
    /// By this client.
    Own,
}

pub struct Client {
    pub index: ClientIndex,
    pub connection: ConnectionId,
    /// Where it connected, unless it was dealt from there.
    pub shard: Option<usize>,
    pub phase: Phase,
    /// The 101 has come, once.
    pub was_let_in: bool,
    pub end: Option<End>,
    /// Bytes read and not understood yet.
    pub inbox: Vec<u8>,
    pub expected: VecDeque<Expected>,
    pub pings: VecDeque<Vec<u8>>,
    /// The stays that this client has asked for and not left, in the order of its commands.
    pub wanted: HashMap<&'static str, usize>,
    /// Those that it has acks of.
    pub stays: HashMap<&'static str, usize>,
    /// The services that it handles by its commands.
    pub handles: Vec<&'static str>,
    /// Requests that it was asked: their number there, and the asker's.
    pub asked: VecDeque<(u64, usize)>,
    /// Does not read before this moment.
    pub frozen_until: Moment,
    /// The code of the close frame that it sent.
    pub closed: Option<u16>,
    /// When that was, and when the connection was over.
    pub closed_at_ms: u64,
    pub ended_at_ms: u64,
    pub got_close: Option<u16>,
    /// It stopped to read for long, or wrote half a frame and nothing more: it may be closed for it.
    pub is_faulty: bool,
    /// It is in the middle of a frame and will stay there.
    pub is_mute: bool,
    /// It has hung up in the middle of everything, but still reads.
    pub has_hung_up: bool,
    pub next_id: u64,
    pub bad_texts: u32,
    pub refuses_pings: bool,
}

const HEAD: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

impl Client {
    /// Connects and sends the request head.
    pub fn connect(
        index: ClientIndex,
        shard: usize,
        listener: u16,
        buffer_bytes: usize,
        stage: &mut Stage,
    ) -> Client {
        let connection = stage
            .network
            .borrow_mut()
            .connect(shard, listener, buffer_bytes);
        stage.note(|| format!("client {index} connects to shard {shard}, listener {listener}"));
        stage.network.borrow_mut().client_writes(connection, HEAD);
        Client {
            index,
            connection,
            shard: (listener == 0).then_some(shard),
            phase: Phase::Connecting,
            was_let_in: false,
            end: None,
            inbox: Vec::new(),
            expected: VecDeque::new(),
            pings: VecDeque::new(),
            wanted: HashMap::new(),
            stays: HashMap::new(),
            handles: Vec::new(),
            asked: VecDeque::new(),
            frozen_until: 0,
            closed: None,
            closed_at_ms: 0,
            ended_at_ms: 0,
            got_close: None,
            is_faulty: false,
            is_mute: false,
            has_hung_up: false,
            next_id: 0,
            bad_texts: 0,
            refuses_pings: false,
        }
    }

    /// Can it send commands that it expects to be carried out?
    pub fn is_talking(&self) -> bool {
        self.phase != Phase::Ended && self.closed.is_none() && !self.is_mute
    }

    /// Has it been answered all that it asked?
    pub fn is_answered(&self) -> bool {
        self.phase == Phase::Ended
            || self.is_mute
            || self.expected.is_empty()
                && self.pings.is_empty()
                && self.phase == Phase::Open
                && self.closed.is_none()
    }

    pub fn missing_answers(&self) -> String {
        format!(
            "client {} ({:?}) waits for {:?} and {} pongs",
            self.index,
            self.phase,
            self.expected.front(),
            self.pings.len()
        )
    }
}
