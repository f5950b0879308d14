//! From messages to effects: what a session's commands do.
//!
//! The commands of a connection take effect one after the other. One that can't yet is *stalled* with everything
//! behind it, and tried again each turn, or when its [rate](super::rate) allows it; the one exception is a run of
//! subscribes, which wait together, so that a thousand of them cost one wait and not a thousand.

use std::sync::Arc;

use crate::address::SessionId;
use crate::error::Code;
use crate::message::{Message, Origin};
use crate::protocol::peer::Watch;
use crate::protocol::{Action, Command, Event, Protocol, Refusal, Tag};
use crate::topic::Filter;

use super::fault::Place;
use super::parcel::Key;
use super::rate::Rated;
use super::session::{Held, Session, Since};
use super::{Ending, Shard};

/// A command that can't take effect yet, given back.
pub(super) struct Wait(pub Box<Command>);

impl From<Command> for Wait {
    fn from(command: Command) -> Wait {
        Wait(Box::new(command))
    }
}

impl Shard {
    /// Carries a command out, at once or when it can be.
    pub(super) fn execute_or_hold(&mut self, id: SessionId, command: Command) {
        if let Err(Wait(command)) = self.execute(id, command) {
            self.hold(id, Held::Command(command));
        }
    }

    /// Keeps what must wait, and everything behind it.
    pub(super) fn hold(&mut self, id: SessionId, held: Held) {
        if let Some(session) = self.sessions.find(id) {
            let stall = session.stall.get_or_insert_default();
            stall.held = Some(held);
            let is_throttled = stall.until != Since::NEVER && stall.clog.is_none();
            self.stats.stalls += u64::from(!is_throttled);
        }
    }

    /// Answers a command with an error object, or gives it back while acks of earlier commands wait.
    pub(super) fn refuse_command(
        &mut self,
        id: SessionId,
        refusal: Box<Refusal>,
    ) -> Result<(), Box<Refusal>> {
        if self.has_waiting_subscribes(id) {
            return Err(refusal);
        }
        self.stats.refusals += 1;
        self.tell(id, &Event::Refused(&refusal), true);
        Ok(())
    }

    pub(super) fn has_waiting_subscribes(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        session.is_some_and(|session| session.waiting_subscribes() > 0)
    }

    /// Carries a command out, or gives it back if it must wait.
    fn execute(&mut self, id: SessionId, command: Command) -> Result<(), Wait> {
        self.settings.fault.pass(Place::Shard);
        let rated = Rated::of(&command);
        if let Some(rated) = rated
            && !self.rate_allows(id, rated)
        {
            return Err(Wait::from(command));
        }
        self.carry_out(id, command)?;
        if let Some(rated) = rated {
            self.spend_rate(id, rated);
        }
        Ok(())
    }

    fn carry_out(&mut self, id: SessionId, command: Command) -> Result<(), Wait> {
        match command {
            Command::Subscribe { filter, tag } => self.subscribe(id, filter, tag),
            command if self.has_waiting_subscribes(id) => Err(Wait::from(command)),
            command @ Command::Unsubscribe { .. } if self.host_makes_wait(id, Watch::SUBSCRIBE) => {
                Err(Wait::from(command))
            }
            Command::Unsubscribe { filter, tag } => {
                self.unsubscribe(id, &filter);
                self.confirm(id, Action::Unsubscribe, &filter, tag.as_ref());
                Ok(())
            }
            Command::Publish { message, tag } => self.publish(id, message, tag),
            Command::Emit {
                to,
                event,
                data,
                volatile,
                tag,
            } => self.emit(id, to, event, data, volatile, tag),
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
            Command::Peer(command) => self.carry_out_peer(id, *command),
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
        let waiting = session.waiting_subscribes();
        let refused = if session.peer.is_none()
            && !self
                .settings
                .access
                .may_subscribe(&filter, session.identity.as_deref())
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
        if self.host_makes_wait(id, Watch::SUBSCRIBE) {
            return Err(Wait::from(Command::Subscribe { filter, tag }));
        }
        self.enlist(id, filter, tag);
        Ok(())
    }

    /// Subscribes a session that may. One that is closed already wants nothing more: with the first of many names its
    /// outbox may have been full.
    pub(super) fn enlist(&mut self, id: SessionId, filter: Filter, tag: Option<Tag>) {
        let Some(session) = self.sessions.find(id).filter(|session| session.is_open()) else {
            return;
        };
        let waiting = session.waiting_subscribes();
        // By itself, so that the subscription does not keep the message alive that it came in.
        let filter = filter.detached();
        self.want(&filter);
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
            self.unwant(&filter);
            self.announce();
            return;
        }
        let number = self.subscriptions.insert_with(&filter, Default::default);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if session.subscriptions.contains(number) {
            // Subscribed before: the interest was counted once too often.
            self.unwant(&filter);
        } else {
            let place = self
                .subscriptions
                .value_mut(number)
                .add(session.encoding, id.slot);
            session.subscriptions.insert(number, place);
            if let Some(resp) = &mut session.resp {
                resp.counts.add(&filter);
            }
            self.tell_host_of_filter(id, true, &filter);
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
        self.unwant(filter);
        self.announce();
        self.tell_host_of_filter(id, false, filter);
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
        if session.peer.is_none()
            && !self
                .settings
                .access
                .may_publish(topic, session.identity.as_deref())
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
        if self.host_makes_wait(id, Watch::PUBLISH) || !self.route(&message) {
            return Err(Wait::from(Command::Publish { message, tag }));
        }
        self.stats.publishes += 1;
        self.tell_host_of_publish(id, topic.as_bytes(), &message.payload);
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
        self.flush_peers();
        self.wake_waiting();
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
            self.leave_clog(id);
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
                Held::LastWords(reason, words) => self.end_resp(id, reason, words),
            };
            if let Some(session) = self.sessions.find(id)
                && let Some(stall) = &mut session.stall
            {
                if held.is_none() {
                    stall.place = 0;
                }
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
    use super::super::testing::{House, brief, bytes, publish};
    use crate::topic::Filter;

    fn command(kind: &str, topic: &str, id: u32) -> String {
        format!(r#"{{"type":"{kind}","topic":"{topic}","id":{id}}}"#)
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
}
