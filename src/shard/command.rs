//! From messages to effects: what a session's commands do.
//!
//! The commands of a connection take effect one after the other. One that can't yet is *stalled* with everything
//! behind it, and tried again each turn; the one exception is a run of subscribes, which wait together, so
//! that a thousand of them cost one wait and not a thousand.

use crate::address::SessionId;
use crate::error::{CloseReason, Code};
use crate::message::Origin;
use crate::protocol::{Action, Command, Event, Protocol, Refusal, Tag, native};
use crate::topic::Filter;
use crate::ws::fragment::{Incoming, ReaderLimits};
use crate::ws::frame::Opcode;

use super::Shard;
use super::parcel::Key;
use super::session::Held;

/// A command that can't take effect yet, given back.
pub(super) struct Wait(pub Box<Command>);

impl From<Command> for Wait {
    fn from(command: Command) -> Wait {
        Wait(Box::new(command))
    }
}

impl Shard {
    /// Reads the messages of an open, flowing session. What can't be taken now is kept in its stall.
    pub(super) fn read_messages(&mut self, id: SessionId, input: &mut [u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let limits = session.limits(&self.settings);
        let turn_messages_max = limits.turn_messages_max;
        let limits = ReaderLimits {
            message_bytes_max: limits.message_bytes_max,
        };
        let mut reader = std::mem::take(&mut session.reader);
        let mut offset = 0;
        let mut messages = 0;
        let mut completed = false;
        while offset < input.len() && messages < turn_messages_max && self.is_flowing(id) {
            match reader.next(limits, &mut input[offset..]) {
                Ok((taken, incoming)) => {
                    if let Some(incoming) = incoming {
                        messages += 1;
                        completed |= matches!(incoming, Incoming::Text(_) | Incoming::Binary(_));
                        self.handle_message(id, incoming);
                    }
                    offset += taken;
                }
                Err(violation) => {
                    self.close_with(
                        id,
                        violation.reason,
                        violation.reason.code(),
                        violation.detail.as_bytes(),
                    );
                }
            }
        }
        if completed && offset == input.len() {
            // Nothing more to read: what a joined message took is given back.
            let _ = reader.next(limits, &mut []);
        }
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        if completed {
            session.message_since_ms = None;
        }
        if reader.is_in_message() {
            session.message_since_ms.get_or_insert(now_ms);
        } else {
            session.message_since_ms = None;
        }
        session.reader = reader;
        if offset < input.len() {
            let stall = session.stall.get_or_insert_default();
            stall.bytes = input[offset..].to_vec();
            // If only the turn's measure was full, the next turn goes on without waiting for anything.
            self.has_leftovers |= session.has_leftovers(&self.settings);
        }
        if session.stall.is_some() {
            if !session.is_resuming {
                session.is_resuming = true;
                self.resuming.push(id);
            }
            self.update_reading(id);
        }
    }

    /// May another message of this session be taken now?
    fn is_flowing(&mut self, id: SessionId) -> bool {
        self.sessions.find(id).is_some_and(|session| {
            session.is_open()
                && session.outbox.reply_bytes() < session.limits(&self.settings).replies_bytes_max
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
                Protocol::Echo => self.tell_frame(id, Opcode::Text, text, true),
            },
            Incoming::Binary(bytes) => match session.protocol {
                Protocol::Native => self.close(id, CloseReason::Unsupported),
                Protocol::Echo => self.tell_frame(id, Opcode::Binary, bytes, true),
            },
            Incoming::Ping(payload) => self.tell_frame(id, Opcode::Pong, payload, true),
            Incoming::Pong(_) => {}
            Incoming::Close(code, _) => self.close_with(id, CloseReason::ClientClosed, code, b""),
        }
    }

    fn handle_text(&mut self, id: SessionId, text: &[u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let trusted = self.settings.listeners[usize::from(session.listener)].trust_peer_flag;
        self.stats.commands += 1;
        let held = match native::decode(text, &self.stamp, trusted) {
            Ok(command) => self
                .execute(id, command)
                .err()
                .map(|Wait(command)| Held::Command(command)),
            Err(refusal) => {
                if matches!(refusal.code, Code::BadJson | Code::BadType) {
                    if u32::from(session.bad_texts) >= session.limits(&self.settings).bad_texts_max
                    {
                        return self.close(id, CloseReason::BadPayload);
                    }
                    session.bad_texts = session.bad_texts.saturating_add(1);
                }
                let refusal = Box::new(refusal);
                self.refuse_command(id, refusal).err().map(Held::Refusal)
            }
        };
        if let Some(held) = held
            && let Some(session) = self.sessions.find(id)
        {
            self.stats.stalls += 1;
            session.stall.get_or_insert_default().held = Some(held);
        }
    }

    /// Answers a command with an error object, or gives it back while acks of earlier commands wait.
    fn refuse_command(&mut self, id: SessionId, refusal: Box<Refusal>) -> Result<(), Box<Refusal>> {
        if self.has_waiting_subscribes(id) {
            return Err(refusal);
        }
        self.stats.refusals += 1;
        self.tell(id, &Event::Refused(&refusal), true);
        Ok(())
    }

    fn has_waiting_subscribes(&mut self, id: SessionId) -> bool {
        self.sessions
            .find(id)
            .and_then(|session| session.stall.as_ref())
            .is_some_and(|stall| !stall.subscribes.is_empty())
    }

    /// Carries a command out, or gives it back if it must wait.
    fn execute(&mut self, id: SessionId, command: Command) -> Result<(), Wait> {
        match command {
            Command::Subscribe { filter, tag } => self.subscribe(id, filter, tag),
            command if self.has_waiting_subscribes(id) => Err(Wait::from(command)),
            Command::Unsubscribe { filter, tag } => {
                self.unsubscribe(id, &filter);
                let name = filter.written();
                self.tell(
                    id,
                    &Event::Ack {
                        action: Action::Unsubscribe,
                        name,
                        tag: tag.as_ref(),
                    },
                    true,
                );
                Ok(())
            }
            Command::Publish { message, tag } => self.publish(id, message, tag),
            Command::Emit { event, data } => self.emit(id, event, data),
            Command::Request {
                to,
                event,
                data,
                tag,
                timeout_ms,
            } => self.request(id, to, event, data, tag, timeout_ms),
            Command::Reply { number, outcome } => self.reply(id, number, outcome),
            Command::Handle { event, tag } => self.handle(id, event, tag),
            Command::Unhandle { event, tag } => {
                self.unhandle(id, &event);
                self.tell(
                    id,
                    &Event::Ack {
                        action: Action::Unhandle,
                        name: &event,
                        tag: tag.as_ref(),
                    },
                    true,
                );
                Ok(())
            }
            Command::Whoami { tag } => {
                let client = self.client_id(id);
                self.tell(
                    id,
                    &Event::Session {
                        client,
                        tag: tag.as_ref(),
                    },
                    true,
                );
                Ok(())
            }
            Command::Ping { tag } => {
                self.tell(id, &Event::Pong { tag: tag.as_ref() }, true);
                Ok(())
            }
        }
    }

    /// Subscribes, or lines up behind the subscribes of this session that wait for their interest to be known.
    fn subscribe(&mut self, id: SessionId, filter: Filter, tag: Option<Tag>) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let waiting = session
            .stall
            .as_ref()
            .map_or(0, |stall| stall.subscribes.len());
        let refused = if !self
            .settings
            .access
            .may_subscribe(&filter, session.identity.is_some())
        {
            Some((
                Code::NotAllowed,
                "the access rules do not allow this subscription",
            ))
        } else if session.subscriptions.len() + waiting
            >= session.limits(&self.settings).subscriptions_max
            && self
                .subscriptions
                .find(&filter)
                .is_none_or(|filter| !session.subscriptions.contains_key(&filter))
        {
            Some((
                Code::Limit,
                "this connection has as many subscriptions as it may have",
            ))
        } else {
            None
        };
        if let Some((code, reason)) = refused {
            if waiting > 0 {
                return Err(Wait::from(Command::Subscribe { filter, tag }));
            }
            self.tell_refused(
                id,
                Action::Subscribe,
                code,
                reason,
                Some(filter.written()),
                tag,
            );
            return Ok(());
        }
        // By itself, so that the subscription does not keep the message alive that it came in.
        let filter = filter.detached();
        self.interest.add(&Key::Filter(filter.clone()));
        self.announce();
        if waiting == 0 && self.interest.is_announced(&Key::Filter(filter.clone())) {
            self.activate(id, filter, tag);
        } else if let Some(session) = self.sessions.find(id) {
            self.stats.stalls += 1;
            session
                .stall
                .get_or_insert_default()
                .subscribes
                .push_back((filter, tag));
        }
        Ok(())
    }

    /// Every shard knows of the interest: the subscription is active as its ack enters the outbox.
    fn activate(&mut self, id: SessionId, filter: Filter, tag: Option<Tag>) {
        let number = self.subscriptions.insert_with(&filter, Default::default);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if session.subscriptions.contains_key(&number) {
            // Subscribed before: the interest was counted once too often.
            self.interest.remove(&Key::Filter(filter.clone()));
        } else {
            let place = self
                .subscriptions
                .value_mut(number)
                .add(session.encoding, id.slot);
            session.subscriptions.insert(number, place);
        }
        self.tell(
            id,
            &Event::Ack {
                action: Action::Subscribe,
                name: filter.written(),
                tag: tag.as_ref(),
            },
            true,
        );
    }

    /// Ends a subscription; nothing happens if there is none.
    fn unsubscribe(&mut self, id: SessionId, filter: &Filter) {
        let Some(number) = self.subscriptions.find(filter) else {
            return;
        };
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(place) = session.subscriptions.remove(&number) else {
            return;
        };
        session.outbox.forget_filter(number);
        let encoding = session.encoding;
        self.leave_group(number, encoding, place);
        self.interest.remove(&Key::Filter(filter.clone()));
        self.announce();
    }

    /// Publishes: to every interested shard, then here, then the ack.
    fn publish(
        &mut self,
        id: SessionId,
        mut message: crate::message::Message,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let Some(topic) = message.targets.topics.first().cloned() else {
            return Ok(());
        };
        if !self
            .settings
            .access
            .may_publish(&topic, session.identity.is_some())
        {
            let reason = "the access rules do not allow this publish";
            self.tell_refused(
                id,
                Action::Publish,
                Code::NotAllowed,
                reason,
                Some(topic.as_bytes()),
                tag,
            );
            return Ok(());
        }
        message.origin = Some(Origin {
            shard: self.id,
            session: id,
        });
        if let Err(message) = self.route(message) {
            return Err(Wait::from(Command::Publish {
                message: *message,
                tag,
            }));
        }
        self.stats.publishes += 1;
        self.tell(
            id,
            &Event::Ack {
                action: Action::Publish,
                name: topic.as_bytes(),
                tag: tag.as_ref(),
            },
            true,
        );
        Ok(())
    }

    /// Answers a command with an error object.
    pub(super) fn tell_refused(
        &mut self,
        id: SessionId,
        action: Action,
        code: Code,
        reason: &'static str,
        topic: Option<&bytes::Bytes>,
        tag: Option<Tag>,
    ) {
        self.stats.refusals += 1;
        let refusal = Refusal {
            action: Some(action.as_str().into()),
            code,
            reason: reason.into(),
            topic: topic.cloned(),
            tag,
        };
        self.tell(id, &Event::Refused(&refusal), true);
    }

    /// Tries what waits again. Called each turn, after the parcels and before the new bytes.
    pub fn resume(&mut self) {
        self.has_leftovers = false;
        self.announce();
        self.flush_deferred();
        for id in std::mem::take(&mut self.resuming) {
            self.resume_session(id);
        }
    }

    fn resume_session(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.is_resuming = false;
        if !session.is_open() {
            return;
        }
        while let Some(session) = self.sessions.find(id)
            && let Some(stall) = &mut session.stall
            && let Some((filter, _)) = stall.subscribes.front()
            && self.interest.is_announced(&Key::Filter(filter.clone()))
        {
            let (filter, tag) = stall
                .subscribes
                .pop_front()
                .expect("its front was just seen");
            self.activate(id, filter, tag);
        }
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        if let Some(stall) = &mut session.stall
            && stall.subscribes.is_empty()
            && let Some(held) = stall.held.take()
        {
            let held = match held {
                Held::Command(command) => self
                    .execute(id, *command)
                    .err()
                    .map(|Wait(command)| Held::Command(command)),
                Held::Refusal(refusal) => self.refuse_command(id, refusal).err().map(Held::Refusal),
            };
            if let Some(session) = self.sessions.find(id)
                && let Some(stall) = &mut session.stall
            {
                stall.held = held;
            }
        }
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        let Some(stall) = &mut session.stall else {
            return;
        };
        if stall.held.is_none() {
            let mut bytes = std::mem::take(&mut stall.bytes);
            if stall.is_empty() {
                session.stall = None;
            }
            if !bytes.is_empty() {
                self.read_messages(id, &mut bytes);
            }
        }
        if let Some(session) = self.sessions.find(id)
            && session.is_open()
            && session.stall.is_some()
            && !session.is_resuming
        {
            session.is_resuming = true;
            self.resuming.push(id);
        }
        self.update_reading(id);
        self.set_timer(id);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::address::ShardId;
    use crate::limits::{KIB, Limits, MIB};
    use crate::shard::auth::Access;
    use crate::shard::settings::{Admission, ListenerSettings, Settings};
    use crate::shard::slow::SlowRules;
    use crate::shard::{Effect, Now};
    use crate::ws::frame;
    use crate::ws::origin::OriginRules;

    const NOW: Now = Now { ms: 1, unix_ms: 1 };
    const ECHO_BYTES_MAX: usize = MIB;
    const NO_ORDERS: [bool; 0] = [];

    /// A shard alone, which echoes messages of at most a MiB on `/echo`.
    fn shard() -> Shard {
        let limits = Limits {
            outbox_total_bytes_max: usize::MAX,
            ..Limits::default()
        };
        let settings = Settings {
            broker: 1,
            shards: 1,
            echo_limits: Limits {
                message_bytes_max: ECHO_BYTES_MAX,
                outbox_bytes_max: 2 * ECHO_BYTES_MAX,
                outbox_bytes_soft: 2 * ECHO_BYTES_MAX,
                ..limits.clone()
            },
            limits,
            access: Access::new(Vec::new()),
            slow: SlowRules::default(),
            listeners: vec![ListenerSettings {
                native: true,
                native_path: None,
                echo_path: Some("/echo".to_owned()),
                http: false,
                trust_peer_flag: false,
                client_services: false,
                origins: OriginRules::new(&[], true).unwrap(),
                dealt: false,
            }],
            admission: Admission::Open,
        };
        let mut shard = Shard::new(ShardId(0), Arc::new(settings), NOW);
        shard.begin_turn(NOW);
        shard
    }

    fn connect(shard: &mut Shard, slot: u32, path: &str) -> SessionId {
        let id = SessionId {
            slot,
            generation: 0,
        };
        shard.accept(id, 0, "somewhere".into(), false);
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        shard.receive(id, &mut head.into_bytes());
        let response = read_all(shard, id);
        assert!(response.starts_with(b"HTTP/1.1 101 "), "{path}");
        id
    }

    /// One send, read at once; its bytes.
    fn read_one(shard: &mut Shard, id: SessionId) -> Option<Vec<u8>> {
        let chunks = shard.transmit(id)?;
        shard.sent(id);
        Some(chunks.concat())
    }

    fn read_all(shard: &mut Shard, id: SessionId) -> Vec<u8> {
        std::iter::from_fn(|| read_one(shard, id))
            .collect::<Vec<_>>()
            .concat()
    }

    /// As a client sends it, with a mask of zeros.
    fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = server_frame(first, payload);
        bytes[1] |= 0x80;
        let header_size = frame::header_size(payload.len());
        bytes.splice(header_size..header_size, [0; 4]);
        bytes
    }

    fn server_frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::encode_header(Opcode::Text, payload.len(), &mut bytes);
        bytes[0] = first;
        bytes.extend_from_slice(payload);
        bytes
    }

    /// The orders about reading since the last call: does the driver read?
    fn reading_orders(shard: &mut Shard) -> Vec<bool> {
        let effects = shard.take_effects();
        let orders = effects.iter().filter_map(|effect| match effect {
            Effect::PauseReading(_) => Some(false),
            Effect::ResumeReading(_) => Some(true),
            _ => None,
        });
        orders.collect()
    }

    #[test]
    fn echo_sends_back_what_came() {
        let check = |frames: &[(u8, &[u8])], expected: &[(u8, &[u8])]| {
            let mut shard = shard();
            let id = connect(&mut shard, 0, "/echo");
            let bytes = |frames: &[(u8, &[u8])], one: fn(u8, &[u8]) -> Vec<u8>| {
                let frames = frames.iter().map(|(first, payload)| one(*first, payload));
                frames.collect::<Vec<_>>().concat()
            };
            shard.receive(id, &mut bytes(frames, client_frame));
            assert_eq!(read_all(&mut shard, id), bytes(expected, server_frame));
        };
        check(&[(0x81, b"text")], &[(0x81, b"text")]);
        check(&[(0x82, b"\xFF\x00")], &[(0x82, b"\xFF\x00")]);
        check(&[(0x81, b""), (0x82, b"")], &[(0x81, b""), (0x82, b"")]);
        check(
            &[(0x01, b"a"), (0x89, b"?"), (0x00, b""), (0x80, b"b")],
            &[(0x8A, b"?"), (0x81, b"ab")],
        );
        check(&[(0x82, &[7; 70_000])], &[(0x82, &[7; 70_000])]);
        check(&[(0x8A, b"")], &[]);
        check(&[(0x88, b"\x03\xE8")], &[(0x88, b"\x03\xE8")]);
        check(
            &[(0x81, b"\xFF")],
            &[(0x88, b"\x03\xEFtext that is not UTF-8")],
        );
    }

    #[test]
    fn each_protocol_has_its_limits() {
        let check = |path: &str, size: usize, is_too_big: bool| {
            let mut shard = shard();
            let id = connect(&mut shard, 0, path);
            shard.receive(id, &mut client_frame(0x81, &vec![b' '; size]));
            let answer = read_all(&mut shard, id);
            assert_eq!(
                answer.starts_with(b"\x88") && answer[2..4] == 1009_u16.to_be_bytes(),
                is_too_big,
                "{size} bytes at {path}"
            );
        };
        check("/", 64 * KIB, false);
        check("/", 64 * KIB + 1, true);
        check("/echo", 64 * KIB + 1, false);
        check("/echo", ECHO_BYTES_MAX, false);
        check("/echo", ECHO_BYTES_MAX + 1, true);
        check("/echo/", 64 * KIB + 1, true);
    }

    #[test]
    fn nothing_is_taken_before_an_echo_is_read() {
        let mut shard = shard();
        let id = connect(&mut shard, 0, "/echo");
        assert_eq!(reading_orders(&mut shard), NO_ORDERS);
        let message = client_frame(0x82, &vec![7; ECHO_BYTES_MAX]);
        for piece in message.chunks(64 * KIB) {
            assert_eq!(reading_orders(&mut shard), NO_ORDERS);
            shard.receive(id, &mut piece.to_vec());
        }
        assert_eq!(reading_orders(&mut shard), [false]);
        // What was taken before the pause took effect waits, and the shard does not turn for it.
        shard.receive(id, &mut client_frame(0x81, b"next"));
        shard.take_dirty();
        let mut left = frame::SERVER_HEADER_BYTES_MAX + ECHO_BYTES_MAX;
        while left >= 64 * KIB {
            shard.begin_turn(NOW);
            shard.resume();
            assert!(!shard.has_leftovers, "{left} bytes unread");
            assert_eq!(reading_orders(&mut shard), NO_ORDERS, "{left} bytes unread");
            left -= read_one(&mut shard, id)
                .expect("the rest of the echo")
                .len();
            shard.take_dirty();
        }
        // It is read but for a little: the next turn goes on.
        assert!(shard.has_work());
        shard.begin_turn(NOW);
        shard.resume();
        assert_eq!(reading_orders(&mut shard), [true]);
        let rest = read_all(&mut shard, id);
        assert!(rest.ends_with(&server_frame(0x81, b"next")));
        assert_eq!(shard.stats().outbox_bytes, 0);
        assert_eq!(shard.stats().closed_slow, 0);
    }

    #[test]
    fn an_echo_session_is_nobody_that_can_be_asked() {
        let mut shard = shard();
        let asker = connect(&mut shard, 0, "/");
        let echo = connect(&mut shard, 1, "/echo");
        let request = format!(
            r#"{{"type":"request","event":"e","data":1,"id":1,"to":"client:{}"}}"#,
            shard.client_id(echo)
        );
        shard.receive(asker, &mut client_frame(0x81, request.as_bytes()));
        let answer = read_all(&mut shard, asker);
        let answer = String::from_utf8_lossy(&answer[2..]);
        assert!(answer.contains("no_handler"), "{answer}");
        assert_eq!(read_all(&mut shard, echo), b"");
    }
}
