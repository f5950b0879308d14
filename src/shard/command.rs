//! From messages to effects: what a session's commands do.
//!
//! The commands of a connection take effect one after the other. One that can't yet is *stalled* with everything
//! behind it, and tried again each turn; the one exception is a run of subscribes, which wait together, so
//! that a thousand of them cost one wait and not a thousand.

use std::sync::Arc;

use crate::address::SessionId;
use crate::error::{CloseReason, Code};
use crate::message::{Message, Origin};
use crate::protocol::clusterws::{self, Decoded};
use crate::protocol::{Action, Command, Event, Protocol, Refusal, Tag, native, resp};
use crate::topic::Filter;
use crate::ws::fragment::{self, Incoming, ReaderLimits};
use crate::ws::frame::Opcode;

use super::fault::Place;
use super::parcel::Key;
use super::session::{Held, Session, Since};
use super::{Ending, Shard};

/// Where a session's messages are cut out of its bytes.
enum Input {
    /// WebSocket.
    Frames(fragment::Reader),
    /// RESP.
    Commands(resp::reader::Reader),
}

impl Input {
    fn take(session: &mut Session) -> Input {
        match &mut session.resp {
            Some(resp) => Input::Commands(std::mem::take(&mut resp.reader)),
            None => Input::Frames(std::mem::take(&mut session.reader)),
        }
    }

    fn give_back(self, session: &mut Session) {
        match (self, &mut session.resp) {
            (Input::Frames(reader), _) => session.reader = reader,
            (Input::Commands(reader), Some(resp)) => resp.reader = reader,
            // The session has ended.
            (Input::Commands(_), None) => {}
        }
    }

    fn is_in_message(&self) -> bool {
        match self {
            Input::Frames(reader) => reader.is_in_message(),
            Input::Commands(reader) => reader.is_in_command(),
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
        let waits_inside = stall.held.is_some() || !stall.subscribes.is_empty();
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
                Protocol::Resp => {}
            },
            Incoming::Binary(bytes) => match session.protocol {
                Protocol::Native => self.close(id, CloseReason::Unsupported),
                Protocol::Clusterws(dialect) => self.handle_clusterws(id, dialect, bytes, true),
                Protocol::Resp => {}
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

    /// Carries a command out, at once or when it can be.
    fn execute_or_hold(&mut self, id: SessionId, command: Command) {
        if let Err(Wait(command)) = self.execute(id, command) {
            self.hold(id, Held::Command(command));
        }
    }

    /// Keeps what must wait, and everything behind it.
    pub(super) fn hold(&mut self, id: SessionId, held: Held) {
        if let Some(session) = self.sessions.find(id) {
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

    pub(super) fn has_waiting_subscribes(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        session.is_some_and(|session| session.has_waiting_subscribes())
    }

    /// Carries a command out, or gives it back if it must wait.
    fn execute(&mut self, id: SessionId, command: Command) -> Result<(), Wait> {
        self.settings.fault.pass(Place::Shard);
        match command {
            Command::Subscribe { filter, tag } => self.subscribe(id, filter, tag),
            command if self.has_waiting_subscribes(id) => Err(Wait::from(command)),
            Command::Unsubscribe { filter, tag } => {
                self.unsubscribe(id, &filter);
                self.confirm(id, Action::Unsubscribe, &filter, tag.as_ref());
                Ok(())
            }
            Command::Publish { message, tag } => self.publish(id, message, tag),
            Command::Emit { to, event, data } => self.emit(id, to, event, data),
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
    pub(super) fn subscribe(
        &mut self,
        id: SessionId,
        filter: Filter,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
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
                .is_none_or(|filter| !session.subscriptions.contains(filter))
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
        // What was published before is for those who were there before.
        self.seal_run();
        if !self
            .sessions
            .find(id)
            .is_some_and(|session| session.is_open())
        {
            // It was there before, and could not take it.
            self.interest.remove(&Key::Filter(filter));
            self.announce();
            return;
        }
        let number = self.subscriptions.insert_with(&filter, Default::default);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if session.subscriptions.contains(number) {
            // Subscribed before: the interest was counted once too often.
            self.interest.remove(&Key::Filter(filter.clone()));
        } else {
            let place = self
                .subscriptions
                .value_mut(number)
                .add(session.encoding, id.slot);
            session.subscriptions.insert(number, place);
            if let Some(resp) = &mut session.resp {
                resp.counts.add(&filter);
            }
        }
        self.confirm(id, Action::Subscribe, &filter, tag.as_ref());
    }

    /// Tells a session that a subscription has begun or ended, if its protocol has words for it.
    pub(super) fn confirm(
        &mut self,
        id: SessionId,
        action: Action,
        filter: &Filter,
        tag: Option<&Tag>,
    ) {
        let is_resp = |session: &mut Session| session.protocol == Protocol::Resp;
        if self.sessions.find(id).is_some_and(is_resp) {
            return self.confirm_resp(id, action == Action::Subscribe, filter);
        }
        let name = filter.written();
        self.tell(id, &Event::Ack { action, name, tag }, true);
    }

    /// Ends a subscription; nothing happens if there is none.
    pub(super) fn unsubscribe(&mut self, id: SessionId, filter: &Filter) {
        let Some(number) = self.subscriptions.find(filter) else {
            return;
        };
        if !self.take_run(id) {
            return self.close_slow(id);
        }
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(place) = session.subscriptions.remove(number) else {
            return;
        };
        if let Some(resp) = &mut session.resp {
            resp.counts.remove(filter);
        }
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
        mut message: Arc<Message>,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let Some(session) = self.sessions.find(id) else {
            return Ok(());
        };
        let origin = Some(Origin {
            shard: self.id,
            session: id,
        });
        // Nobody else has it before it is routed.
        if let Some(message) = Arc::get_mut(&mut message) {
            message.origin = origin;
        }
        debug_assert_eq!(message.origin, origin);
        let Some(topic) = message.targets.topics.first() else {
            return Ok(());
        };
        if let Protocol::Clusterws(dialect) = session.protocol
            && dialect.relays_for_subscribers_only()
        {
            let channel = self.subscriptions.find_exact(topic.as_bytes());
            if !channel.is_some_and(|channel| session.subscriptions.contains(channel)) {
                // As the original: nothing is said.
                self.stats.refusals += 1;
                return Ok(());
            }
        }
        if !self
            .settings
            .access
            .may_publish(topic, session.identity.is_some())
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
        if !self.route(&message) {
            return Err(Wait::from(Command::Publish { message, tag }));
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
                Held::Arguments(arguments) => {
                    let has_waited = self.execute_arguments(id, &arguments.borrow()).is_ok();
                    (!has_waited).then_some(Held::Arguments(arguments))
                }
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
        {
            if session.is_input_ended && session.stall.is_none() {
                return self.ended(id, Ending::EndOfInput);
            }
            self.resume_later(id);
        }
        self.update_reading(id);
        self.set_timer(id);
    }
}

#[cfg(test)]
mod tests {
    use super::super::auth::{Access, AccessRule, Who as Whom};
    use super::super::testing::{House, brief, bytes, frame, publish};
    use crate::topic::Filter;
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
    fn acks_keep_their_order_while_subscribes_wait() {
        let mut house = House::new(2);
        let client = house.connect(0);
        house.fill(0, 1);
        for text in [
            command("subscribe", "a", 1),
            command("subscribe", "b", 2),
            command("subscribe", "a", 3),
            // Refused, and not before the others are acked.
            command("subscribe", "a..b", 4),
            command("publish", "b.c", 5).replace('}', r#","message":5}"#),
            command("unsubscribe", "zzz", 6),
            r#"{"type":"ping","id":7}"#.to_owned(),
            "nonsense".to_owned(),
            command("subscribe", "c", 8),
        ] {
            house.send(client, &text);
        }
        for _ in 0..3 {
            house.turn(0);
            assert_eq!(brief(&house.read(client)), [""; 0]);
        }
        assert!(house.is_paused(client) && house.shards[0].is_restless());
        house.unfill(0, 1);
        house.turn(0);
        house.settle();
        assert_eq!(
            brief(&house.read(client)),
            [
                "ack subscribe 1",
                "ack subscribe 2",
                "ack subscribe 3",
                "error subscribe bad_topic 4",
                "publish b 5",
                "ack publish 5",
                "ack unsubscribe 6",
                "pong 7",
                "error bad_json",
                "ack subscribe 8",
            ]
        );
        assert!(!house.is_paused(client));
        assert_eq!(house.session(client).subscriptions.len(), 3);
    }

    #[test]
    fn subscribes_wait_together_and_go_with_their_session() {
        let mut house = House::new(3);
        let client = house.connect(0);
        house.fill(0, 2);
        for id in 0..100 {
            house.send(client, &command("subscribe", &format!("t.{id}"), id));
        }
        house.turn(0);
        let stall = house.session(client).stall.as_ref().unwrap();
        assert_eq!((stall.subscribes.len(), stall.held.is_none()), (100, true));
        assert_eq!(house.shards[0].stats().subscriptions, 0);
        house.end(client, super::super::Ending::Failed);
        house.turn(0);
        house.unfill(0, 2);
        house.settle();
        house.check_empty(0);
        for shard in [1, 2] {
            assert!(house.shards[shard].remote_filters.is_empty());
        }
    }

    #[test]
    fn a_publish_waits_whole_for_the_one_lane_that_is_full() {
        let mut house = House::new(3);
        let (publisher, near) = (house.connect(0), house.connect(0));
        let (one, two) = (house.connect(1), house.connect(2));
        for client in [near, one, two] {
            house.subscribe(client, "a");
        }
        house.fill(0, 2);
        house.send(publisher, &command("publish", "b", 1));
        house.send(publisher, &command("publish", "a.x", 2));
        house.send(publisher, &command("publish", "b", 3));
        for _ in 0..5 {
            house.turn(0);
            house.turn(1);
            house.turn(2);
        }
        assert_eq!(brief(&house.read(publisher)), ["ack publish 1"]);
        for client in [near, one, two] {
            assert_eq!(
                house.read(client),
                [""; 0],
                "nobody has it before the last can"
            );
        }
        assert_eq!(house.shards[0].stats().deliveries_due, 0);
        assert!(house.is_paused(publisher));
        house.unfill(0, 2);
        house.settle();
        assert_eq!(
            brief(&house.read(publisher)),
            ["ack publish 2", "ack publish 3"]
        );
        for client in [near, one, two] {
            assert_eq!(brief(&house.read(client)), ["publish a 2"]);
        }
        assert!(!house.is_paused(publisher));
    }

    #[test]
    fn a_full_lane_costs_only_those_who_publish_into_it() {
        let mut house = House::new(3);
        let (stuck, free) = (house.connect(0), house.connect(0));
        let (one, two) = (house.connect(1), house.connect(2));
        house.subscribe(one, "one");
        house.subscribe(two, "two");
        house.fill(0, 2);
        house.send(stuck, &publish("two", 1));
        assert_eq!(brief(&house.ask(free, &publish("one", 1))), ["ack publish"]);
        assert_eq!(brief(&house.read(one)), ["publish one"]);
        assert!(house.is_paused(stuck) && !house.is_paused(free));
    }

    #[test]
    fn subscribing_twice_is_once_and_unsubscribing_nothing_is_acked() {
        let mut house = House::new(2);
        let (client, other) = (house.connect(0), house.connect(1));
        assert_eq!(
            brief(&house.ask(client, &command("unsubscribe", "a", 0))),
            ["ack unsubscribe 0"]
        );
        for id in 1..=3 {
            let told = house.ask(client, &command("subscribe", "a", id));
            assert_eq!(brief(&told), [format!("ack subscribe {id}")]);
        }
        assert_eq!(house.shards[0].stats().subscriptions, 1);
        house.ask(other, &publish("a", 1));
        assert_eq!(brief(&house.read(client)), ["publish a"]);
        for id in 4..=5 {
            let told = house.ask(client, &command("unsubscribe", "a", id));
            assert_eq!(brief(&told), [format!("ack unsubscribe {id}")]);
        }
        house.ask(other, &publish("a", 1));
        assert_eq!(house.read(client), [""; 0]);
        assert!(house.shards[1].remote_filters.is_empty());
    }

    #[test]
    fn an_echo_that_is_not_wanted_is_left_out() {
        let mut house = House::new(2);
        let (client, other) = (house.connect(0), house.connect(1));
        house.subscribe(client, "a");
        house.subscribe(other, "a");
        let silent = r#"{"type":"publish","topic":"a","echo":false,"message":1}"#;
        assert_eq!(brief(&house.ask(client, silent)), ["ack publish"]);
        assert_eq!(brief(&house.read(other)), ["publish a"]);
        // The session of the same number on the other shard is another one.
        assert_eq!(brief(&house.ask(other, silent)), ["ack publish"]);
        assert_eq!(brief(&house.read(client)), ["publish a"]);
    }

    #[test]
    fn rights_are_asked_before_anything_happens() {
        let mut house = House::with(2, |settings| {
            settings.access = Access::new(vec![AccessRule {
                filter: Filter::dotted(bytes("open")).unwrap(),
                who: Whom::Anyone,
                subscribe: true,
                publish: true,
            }]);
        });
        let client = house.connect(0);
        for (kind, topic, expected) in [
            ("subscribe", "open.a", "ack subscribe 1"),
            ("subscribe", "other", "error subscribe not_allowed 1"),
            ("subscribe", "*", "error subscribe not_allowed 1"),
            ("publish", "other", "error publish not_allowed 1"),
            ("publish", "open", "ack publish 1"),
        ] {
            let told = house.ask(client, &command(kind, topic, 1));
            assert_eq!(brief(&told), [expected], "{kind} {topic}");
        }
        assert_eq!(house.shards[0].stats().refusals, 3);
        assert_eq!(house.shards[0].stats().publishes, 1);
    }

    #[test]
    fn subscriptions_end_at_the_limit_also_while_they_wait() {
        let mut house = House::with(2, |settings| settings.limits.subscriptions_max = 2);
        let client = house.connect(0);
        house.fill(0, 1);
        for (id, topic) in ["a", "b", "c", "d"].iter().enumerate() {
            house.send(client, &command("subscribe", topic, id as u32));
        }
        house.turn(0);
        assert_eq!(house.read(client), [""; 0]);
        house.unfill(0, 1);
        house.settle();
        assert_eq!(
            brief(&house.read(client)),
            [
                "ack subscribe 0",
                "ack subscribe 1",
                "error subscribe limit 2",
                "error subscribe limit 3",
            ]
        );
        // What is there already is not one more.
        let told = house.ask(client, &command("subscribe", "a", 4));
        assert_eq!(brief(&told), ["ack subscribe 4"]);
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
