//! What comes from an open session: its bytes into messages, these into commands.
//!
//! A turn takes no more from one session than its measure, and nothing while its answers are not read or a command of
//! it waits. What can't be taken is kept in the session's stall, and taken by a later turn.

use crate::address::SessionId;
use crate::error::{CloseReason, Code};
use crate::protocol::clusterws::{self, Decoded};
use crate::protocol::{Protocol, native, peer, resp};
use crate::ws::fragment::{self, Incoming, ReaderLimits};
use crate::ws::frame::Opcode;

use super::Shard;
use super::fault::Place;
use super::session::{Held, Session, Since};

/// Where a session's messages are cut out of its bytes.
enum Input {
    /// WebSocket.
    Frames(fragment::Reader),
    /// RESP.
    Commands(resp::reader::Reader),
    /// The peer protocol.
    Calls(peer::reader::Reader),
}

impl Input {
    fn take(session: &mut Session) -> Input {
        match (&mut session.resp, &mut session.peer) {
            (Some(resp), _) => Input::Commands(std::mem::take(&mut resp.reader)),
            (None, Some(peer)) => Input::Calls(std::mem::take(&mut peer.reader)),
            (None, None) => Input::Frames(std::mem::take(&mut session.reader)),
        }
    }

    fn give_back(self, session: &mut Session) {
        match (self, &mut session.resp) {
            (Input::Frames(reader), _) => session.reader = reader,
            (Input::Commands(reader), Some(resp)) => resp.reader = reader,
            // The session has ended.
            (Input::Commands(_), None) => {}
            (Input::Calls(reader), _) => {
                if let Some(peer) = &mut session.peer {
                    peer.reader = reader;
                }
            }
        }
    }

    fn is_in_message(&self) -> bool {
        match self {
            Input::Frames(reader) => reader.is_in_message(),
            Input::Commands(reader) => reader.is_in_command(),
            Input::Calls(reader) => reader.is_in_frame(),
        }
    }

    /// Gives back the memory of a message that was joined.
    fn release(&mut self) {
        match self {
            Input::Frames(reader) => {
                let limits = ReaderLimits {
                    message_bytes_max: 0,
                };
                let _ = reader.next(limits, &mut []);
            }
            Input::Commands(reader) => {
                let limits = resp::reader::ReaderLimits {
                    bulk_bytes_max: 0,
                    arguments_max: 0,
                    command_bytes_max: 0,
                    authenticated: false,
                };
                let _ = reader.next(limits, &[]);
            }
            Input::Calls(reader) => reader.release(),
        }
    }
}

/// What came of some bytes.
pub(super) enum Read {
    /// Nothing yet, or the session has ended.
    Part,
    /// A frame that is no message.
    Control,
    /// A message.
    Message,
}

impl Shard {
    /// Reads the messages of an open, flowing session. What can't be taken now is kept in its stall.
    pub(super) fn read_messages(&mut self, id: SessionId, input: &mut [u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let turn_messages_max = session.limits(&self.settings).turn_messages_max;
        let mut reader = Input::take(session);
        let mut offset = 0;
        let mut messages = 0;
        let mut completed = false;
        while offset < input.len()
            && messages < turn_messages_max
            && self.urgent.is_empty()
            && self.is_flowing(id)
        {
            let rest = &mut input[offset..];
            let (taken, read) = match &mut reader {
                Input::Frames(reader) => self.read_frame(id, reader, rest),
                Input::Commands(reader) => self.read_command(id, reader, rest),
                Input::Calls(reader) => self.read_call(id, reader, rest),
            };
            offset += taken;
            match read {
                Read::Part => {}
                Read::Control => messages += 1,
                Read::Message => {
                    messages += 1;
                    completed = true;
                }
            }
        }
        if completed && offset == input.len() {
            // Nothing more to read: what a joined message took is given back.
            reader.release();
        }
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        if completed {
            session.message = Since::NEVER;
        }
        if reader.is_in_message() {
            session.message.begin(now_ms);
        } else {
            session.message = Since::NEVER;
        }
        reader.give_back(session);
        if offset < input.len() {
            let stall = session.stall.get_or_insert_default();
            stall.bytes = input[offset..].to_vec();
        }
        if session.stall.is_some() {
            self.resume_later(id);
            self.update_reading(id);
        }
    }

    /// Reads one frame, and acts on it if it completes a message; the bytes that it took.
    fn read_frame(
        &mut self,
        id: SessionId,
        reader: &mut fragment::Reader,
        input: &mut [u8],
    ) -> (usize, Read) {
        let Some(session) = self.sessions.find(id) else {
            return (0, Read::Part);
        };
        let limits = ReaderLimits {
            message_bytes_max: session.limits(&self.settings).message_bytes_max,
        };
        let read = self
            .settings
            .fault
            .contain(Place::Frame, move || reader.next(limits, input));
        match read {
            None => self.close(id, CloseReason::Internal),
            Some(Ok((taken, None))) => return (taken, Read::Part),
            Some(Ok((taken, Some(incoming)))) => {
                let read = match incoming {
                    Incoming::Text(_) | Incoming::Binary(_) => Read::Message,
                    Incoming::Ping(_) | Incoming::Pong(_) | Incoming::Close(..) => Read::Control,
                };
                self.handle_message(id, incoming);
                return (taken, read);
            }
            Some(Err(violation)) => {
                self.close_with(
                    id,
                    violation.reason,
                    violation.reason.code(),
                    violation.detail.as_bytes(),
                );
            }
        }
        (0, Read::Part)
    }

    /// Puts a stalled session on the list of those to be tried again. One that only its own reader holds up waits for
    /// [`Shard::sent`] instead.
    pub(super) fn resume_later(&mut self, id: SessionId) {
        let is_flowing = self.is_flowing(id);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(stall) = &session.stall else {
            return;
        };
        // A command that waits for its rate has a deadline, and one that waits for a peer is woken: neither waits for
        // anything that a turn could bring.
        let waits_for_turns =
            stall.held.is_some() && stall.until == Since::NEVER && stall.clog.is_none();
        let waits_inside = waits_for_turns || !stall.subscribes.is_empty();
        if (is_flowing || waits_inside) && !session.is_resuming {
            session.is_resuming = true;
            self.resuming.push(id);
        }
        // Only the turn's measure was full: the next turn goes on, without waiting for anything.
        self.has_leftovers |= is_flowing && !stall.bytes.is_empty();
    }

    /// May another message of this session be taken now?
    fn is_flowing(&mut self, id: SessionId) -> bool {
        self.sessions.find(id).is_some_and(|session| {
            session.is_open()
                && session.outbox.reply_bytes() < session.replies_bytes_max(&self.settings)
                && session
                    .stall
                    .as_ref()
                    .is_none_or(|stall| stall.held.is_none())
        })
    }

    fn handle_message(&mut self, id: SessionId, incoming: Incoming<'_>) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        match incoming {
            Incoming::Text(text) => match session.protocol {
                Protocol::Native => self.handle_text(id, text),
                Protocol::Clusterws(dialect) => self.handle_clusterws(id, dialect, text, false),
                Protocol::Echo => self.tell_frame(id, Opcode::Text, text, true),
                // It has no frames.
                Protocol::Resp | Protocol::Peer => {}
            },
            Incoming::Binary(bytes) => match session.protocol {
                Protocol::Native => self.close(id, CloseReason::Unsupported),
                Protocol::Clusterws(dialect) => self.handle_clusterws(id, dialect, bytes, true),
                Protocol::Resp | Protocol::Peer => {}
                Protocol::Echo => self.tell_frame(id, Opcode::Binary, bytes, true),
            },
            Incoming::Ping(payload) => self.tell_frame(id, Opcode::Pong, payload, true),
            Incoming::Pong(_) => {}
            Incoming::Close(code, text) => {
                self.note_farewell(id, code, text);
                self.close_with(id, CloseReason::ClientClosed, code, b"");
            }
        }
    }

    fn handle_text(&mut self, id: SessionId, text: &[u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let trusted = self.settings.listeners[usize::from(session.listener)].trust_peer_flag;
        self.stats.commands += 1;
        let decoded = self
            .settings
            .fault
            .contain(Place::Decode, || native::decode(text, &self.stamp, trusted));
        let Some(decoded) = decoded else {
            return self.close(id, CloseReason::Internal);
        };
        match decoded {
            Ok(command) => self.execute_or_hold(id, command),
            Err(refusal) => {
                let is_bad = matches!(refusal.code, Code::BadJson | Code::BadType);
                if is_bad && !self.forgive_bad_text(id) {
                    return;
                }
                let refusal = Box::new(refusal);
                if let Err(refusal) = self.refuse_command(id, refusal) {
                    self.hold(id, Held::Refusal(refusal));
                }
            }
        }
    }

    fn handle_clusterws(
        &mut self,
        id: SessionId,
        dialect: clusterws::Dialect,
        bytes: &[u8],
        is_binary: bool,
    ) {
        let unix_ms = self.now.unix_ms;
        let decoded = self.settings.fault.contain(Place::Decode, || {
            clusterws::decode(bytes, is_binary, dialect, unix_ms)
        });
        match decoded {
            None => self.close(id, CloseReason::Internal),
            Some(Decoded::Command(command)) => {
                self.stats.commands += 1;
                self.execute_or_hold(id, command);
            }
            Some(Decoded::Ping) => self.tell_frame(id, Opcode::Text, clusterws::PONG, true),
            Some(Decoded::Pong | Decoded::Nothing) => {}
            // The original logs it and goes on; there are no words for an error.
            Some(Decoded::Bad { code, .. }) => {
                self.stats.commands += 1;
                self.stats.refusals += 1;
                if matches!(code, Code::BadJson | Code::BadType) {
                    self.forgive_bad_text(id);
                }
            }
        }
    }

    /// Counts a text that made no sense. One too many ends the session: false.
    fn forgive_bad_text(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.find(id) else {
            return false;
        };
        if session.bad_texts >= session.limits(&self.settings).bad_texts_max {
            self.close(id, CloseReason::BadPayload);
            return false;
        }
        session.bad_texts = session.bad_texts.saturating_add(1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{House, brief, frame};
    use crate::ws::frame::Opcode;

    fn command(kind: &str, topic: &str, id: u32) -> String {
        format!(r#"{{"type":"{kind}","topic":"{topic}","id":{id}}}"#)
    }

    #[test]
    fn a_flood_of_pings_that_nobody_reads_answers_to_costs_no_turns() {
        let mut house = House::new(2);
        let client = house.connect(0);
        house.stop_reading(client);
        let ping = frame(Opcode::Ping, &[b'x'; 100]);
        for _ in 0..10 {
            house.bytes(client, &ping.repeat(200));
            house.turn(0);
        }
        assert!(house.is_paused(client));
        house.settle();
        let shard = &house.shards[0];
        assert!(
            !shard.has_work() && !shard.is_restless(),
            "it waits for its reader, and for nothing else"
        );
        // Every answer comes as it reads on, and each time without another reason for a turn.
        house.read_on(client);
        house.settle();
        assert_eq!(house.read(client).len(), 2000);
        assert!(!house.is_paused(client));
    }

    #[test]
    fn reading_pauses_at_the_limit_of_replies_and_goes_on_at_half_of_it() {
        let mut house = House::with(1, |settings| settings.limits.replies_bytes_max = 1000);
        let client = house.connect(0);
        house.stop_reading(client);
        let ping = frame(Opcode::Ping, &[b'x'; 98]);
        for count in 1..=10 {
            assert!(!house.is_paused(client), "{count}");
            house.bytes(client, &ping);
            house.turn(0);
        }
        assert!(house.is_paused(client));
        // The first was in flight, nine hundred bytes wait behind it.
        house.gulp(client);
        house.turn(0);
        assert!(house.is_paused(client) && house.in_flight(client) == 900);
        house.gulp(client);
        house.turn(0);
        assert!(!house.is_paused(client));
        assert_eq!(house.read(client).len(), 10);
    }

    #[test]
    fn what_a_turn_does_not_take_is_taken_in_order_by_the_next() {
        let mut house = House::with(1, |settings| settings.limits.turn_messages_max = 3);
        let client = house.connect(0);
        let text = |id: u32| frame(Opcode::Text, command("unsubscribe", "a", id).as_bytes());
        let all: Vec<u8> = (0..10).flat_map(text).collect();
        house.bytes(client, &all);
        let mut told = Vec::new();
        for turn in 1..=4 {
            house.turn(0);
            told.extend(brief(&house.read(client)));
            assert_eq!(told.len(), (3 * turn).min(10));
            assert_eq!(house.shards[0].has_work(), turn < 4);
            assert_eq!(house.is_paused(client), turn < 4);
        }
        let expected: Vec<_> = (0..10).map(|id| format!("ack unsubscribe {id}")).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn bad_texts_end_at_the_limit_whatever_it_is() {
        for limit in [0, 1, 10, 255, 300] {
            let mut house = House::with(1, |settings| settings.limits.bad_texts_max = limit);
            let client = house.connect(0);
            for _ in 0..limit {
                let told = house.ask(client, "nonsense");
                assert_eq!(brief(&told), ["error bad_json"]);
            }
            // A refusal of another kind does not count, and a good text forgives nothing.
            let told = house.ask(client, &command("subscribe", "..", 1));
            assert_eq!(brief(&told), ["error subscribe bad_topic 1"]);
            let told = house.ask(client, r#"{"type":"what"}"#);
            assert_eq!(told, ["close 1007 bad payload"], "{limit}");
        }
    }

    #[test]
    fn nothing_behind_a_close_frame_is_read() {
        let mut house = House::new(1);
        let client = house.connect(0);
        let close = frame(Opcode::Close, &[0x03, 0xe8, b'x']);
        let text = frame(Opcode::Text, command("publish", "a", 1).as_bytes());
        house.bytes(client, &[text.clone(), close, text].concat());
        house.settle();
        assert_eq!(brief(&house.read(client)), ["ack publish 1", "close 1000 "]);
        assert_eq!(house.shards[0].stats().publishes, 1);
        assert!(house.is_shut(client));
    }

    #[test]
    fn binary_and_broken_frames_close_one_session() {
        for (bytes, expected) in [
            (frame(Opcode::Binary, b"x"), "close 1003"),
            (frame(Opcode::Text, b"\xff"), "close 1007"),
            (vec![0x81, 1, b'x'], "close 1002"),
            (
                vec![0x82, 0xff, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0],
                "close 1009",
            ),
        ] {
            let mut house = House::new(1);
            let (client, other) = (house.connect(0), house.connect(0));
            house.bytes(client, &bytes);
            house.settle();
            let told = house.read(client);
            assert!(told.len() == 1 && told[0].starts_with(expected), "{told:?}");
            house.subscribe(other, "a");
        }
    }
}
