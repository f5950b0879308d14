//! From messages to effects: what a session's commands do.
//!
//! The commands of a connection take effect one after the other. One that can't yet is *stalled* with everything
//! behind it, and tried again each turn; the one exception is a run of subscribes, which wait together, so
//! that a thousand of them cost one wait and not a thousand.

use crate::address::SessionId;
use crate::error::{CloseReason, Code};
use crate::message::Origin;
use crate::protocol::{Action, Command, Event, Refusal, Tag, native};
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
        let limits = ReaderLimits {
            message_bytes_max: self.settings.limits.message_bytes_max,
        };
        let mut reader = std::mem::take(&mut session.reader);
        let mut offset = 0;
        let mut messages = 0;
        let mut completed = false;
        while offset < input.len()
            && messages < self.settings.limits.turn_messages_max
            && self.is_flowing(id)
        {
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
            // Only the turn's measure was full: the next turn goes on, without waiting for anything.
            self.has_leftovers |= stall.held.is_none() && stall.subscribes.is_empty();
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
        let limit = self.settings.limits.replies_bytes_max;
        self.sessions.find(id).is_some_and(|session| {
            session.is_open()
                && session.outbox.reply_bytes() < limit
                && session
                    .stall
                    .as_ref()
                    .is_none_or(|stall| stall.held.is_none())
        })
    }

    fn handle_message(&mut self, id: SessionId, incoming: Incoming<'_>) {
        match incoming {
            Incoming::Text(text) => self.handle_text(id, text),
            Incoming::Binary(_) => self.close(id, CloseReason::Unsupported),
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
                    if session.bad_texts >= self.settings.limits.bad_texts_max {
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
        } else if session.subscriptions.len() + waiting >= self.settings.limits.subscriptions_max
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
