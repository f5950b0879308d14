//! How sessions end.
//!
//! Two steps: *release* takes a session out of everything that others reach it by (topic tree, handlers,
//! pending requests), so nothing more is due to it; then either *close* says the last words and lets the outbox
//! run dry, or *finish* forgets it at once. Whatever deliveries are left in a released outbox when it is
//! forgotten have been announced by the end of the connection itself.

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::protocol::Protocol;
use crate::ws::close;

use super::fanout::mark_dirty;
use super::session::{Session, State};
use super::{Effect, Shard};

impl Shard {
    /// Ends a session orderly: its last words are a close frame with this reason.
    pub(super) fn close(&mut self, id: SessionId, reason: CloseReason) {
        self.close_with(id, reason, reason.code(), reason.as_str().as_bytes());
    }

    /// Ends a session orderly with a close frame of this code and text.
    pub(super) fn close_with(
        &mut self,
        id: SessionId,
        reason: CloseReason,
        code: Option<u16>,
        text: &[u8],
    ) {
        self.note_farewell(id, code, text);
        let is_resp = |session: &mut Session| session.protocol == Protocol::Resp;
        let words = if self.sessions.find(id).is_some_and(is_resp) {
            Shard::resp_words(reason, text)
        } else if self.is_peer(id) {
            self.peer_words(reason, text)
        } else {
            let mut words = Vec::new();
            close::encode(code, text, &mut words);
            words
        };
        self.close_after(id, reason, &words);
    }

    /// Ends a session orderly behind these last words.
    pub(super) fn close_after(&mut self, id: SessionId, reason: CloseReason, words: &[u8]) {
        if !self.release(id, reason) {
            return;
        }
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.state = State::Closing { since_ms: now_ms };
        let before = session.outbox.charged();
        if !words.is_empty() {
            session.outbox.push_last(words);
        }
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        mark_dirty(session, &mut self.dirty);
        // A new state, a new clock: whatever deadline was set is stale.
        session.timer_ms = u64::MAX;
        if session.outbox.is_empty() {
            self.emptied(id);
        }
        self.update_reading(id);
        self.set_timer(id);
    }

    /// Ends a session that reads too slowly: what waits is given up, the close frame goes behind what is in flight.
    pub(super) fn close_slow(&mut self, id: SessionId) {
        // Given up with the rest.
        self.take_run(id);
        let Some(session) = self
            .sessions
            .find(id)
            .filter(|session| !session.is_ending())
        else {
            return;
        };
        let before = session.outbox.charged();
        self.stats.announced += session.outbox.drop_waiting();
        self.outbox_bytes -= before - session.outbox.charged();
        self.stats.closed_slow += 1;
        self.close(id, CloseReason::TooSlow);
    }

    /// Takes a session out of everything that others reach it by; false if that was done before, or it is gone.
    pub(super) fn release(&mut self, id: SessionId, reason: CloseReason) -> bool {
        // What does not fit is announced by this end.
        self.take_run(id);
        let Some(session) = self
            .sessions
            .find(id)
            .filter(|session| !session.is_ending())
        else {
            return false;
        };
        let index = CloseReason::ALL
            .iter()
            .position(|other| *other == reason)
            .expect("ALL has every reason");
        self.stats.closed[index] += 1;
        let encoding = session.encoding;
        let subscriptions = std::mem::take(&mut session.subscriptions);
        let stall = session.stall.take();
        for (number, place) in subscriptions.iter() {
            let filter = self.subscriptions.filter(number).clone();
            self.leave_group(number, encoding, place);
            self.unwant(&filter);
        }
        if let Some(stall) = stall {
            if let Some(clog) = &stall.clog {
                self.feeds.leave(clog, stall.place);
            }
            for (filter, _) in stall.subscribes {
                self.unwant(&filter);
            }
        }
        self.release_requests(id);
        self.release_resp(id);
        self.release_peer(id, reason);
        self.rates.forget(id);
        self.announce();
        true
    }

    /// Everything has gone out.
    pub(super) fn emptied(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if let State::Closing { .. } = session.state {
            if session.is_input_ended {
                // Nobody is there to be waited for.
                return self.finish(id, false);
            }
            session.state = State::Discarding {
                since_ms: self.now.ms,
            };
            session.timer_ms = u64::MAX;
            self.effects.push(Effect::ShutdownWrite(id));
            self.set_timer(id);
        }
    }

    /// Forgets a released session and closes its connection.
    pub(super) fn finish(&mut self, id: SessionId, reset: bool) {
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.stats.announced += session.outbox.deliveries();
        self.outbox_bytes -= session.outbox.charged();
        self.effects.push(Effect::Close { session: id, reset });
    }

    /// The outboxes together are above their bound: the largest are cut first. One that is cut already, and still
    /// holds what is in flight, is reset; otherwise those that are on their way out would push out the others.
    pub(super) fn cut_largest(&mut self, bytes_max: usize) {
        let mut sizes: Vec<_> = self
            .sessions
            .iter()
            .filter(|session| session.outbox.charged() > 0)
            .map(|session| (session.outbox.charged(), session.id, session.is_ending()))
            .collect();
        sizes.sort_unstable();
        // A tenth below, so that the next message does not start it again.
        let mut bytes = self.outbox_bytes;
        while bytes > bytes_max - bytes_max / 10
            && let Some((size, id, is_ending)) = sizes.pop()
        {
            // All of it counts as gone: what is in flight will be soon.
            bytes -= size;
            if is_ending {
                self.finish(id, true);
            } else {
                self.close_slow(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Ending;
    use super::super::testing::{House, Who, brief, frame, publish};
    use crate::limits::KIB;
    use crate::ws::frame::Opcode;

    /// A reader that has stopped to read, with a send in flight.
    fn stuck(house: &mut House, topic: &str) -> Who {
        let client = house.connect(0);
        house.subscribe(client, topic);
        house.stop_reading(client);
        house.bytes(client, &frame(Opcode::Ping, b""));
        house.turn(0);
        assert!(house.in_flight(client) > 0);
        client
    }

    #[test]
    fn last_words_then_shut_then_closed_by_whoever_is_first() {
        for (ending, expected) in [
            (Some(Ending::EndOfInput), Some(false)),
            (Some(Ending::Failed), Some(false)),
            (None, Some(false)),
        ] {
            let mut house = House::new(1);
            let client = house.connect(0);
            house.subscribe(client, "a");
            house.bytes(client, &frame(Opcode::Close, &[0x03, 0xe9]));
            house.turn(0);
            assert_eq!(house.read(client), ["close 1001 "]);
            assert!(house.is_shut(client) && house.closed(client).is_none());
            assert_eq!(house.shards[0].stats().subscriptions, 0);
            match ending {
                Some(ending) => {
                    house.end(client, ending);
                    house.turn(0);
                }
                None => {
                    house.pass(1_999);
                    house.turn(0);
                    assert_eq!(house.closed(client), None);
                    house.pass(1);
                    house.turn(0);
                }
            }
            assert_eq!(house.closed(client), expected);
            house.check_empty(0);
        }
    }

    #[test]
    fn last_words_that_nobody_reads_end_in_a_reset() {
        let mut house = House::new(1);
        let client = stuck(&mut house, "a");
        house.bytes(client, &frame(Opcode::Binary, b""));
        house.turn(0);
        // It may still read, though it writes no more.
        house.end(client, Ending::EndOfInput);
        house.turn(0);
        assert_eq!(house.closed(client), None);
        house.pass_to_deadline(0);
        assert_eq!(house.closed(client), Some(true));
        house.check_empty(0);
    }

    #[test]
    fn a_client_that_leaves_without_a_word_is_released_at_once() {
        for ending in [Ending::EndOfInput, Ending::Failed] {
            let mut house = House::new(2);
            let client = stuck(&mut house, "a");
            house.settle();
            assert!(!house.shards[1].remote_filters.is_empty());
            house.end(client, ending);
            house.settle();
            assert_eq!(house.closed(client), Some(false));
            house.check_empty(0);
            assert!(house.shards[1].remote_filters.is_empty());
            let reasons = house.shards[0].stats().closed;
            assert_eq!(reasons.iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn too_slow_drops_what_waits_and_announces_it() {
        let mut house = House::with(1, |settings| settings.limits.outbox_bytes_max = 100 * KIB);
        let (reader, publisher) = (stuck(&mut house, "a"), house.connect(0));
        let due = 12;
        for _ in 0..due {
            house.ask(publisher, &publish("a", 10 * KIB));
        }
        let stats = house.shards[0].stats();
        assert_eq!((stats.closed_slow, stats.delivered), (1, 0));
        // It was released with the one that did not fit: what came after was not due to it.
        assert_eq!(stats.deliveries_due, stats.announced);
        assert!(stats.deliveries_due < due);
        assert!(house.session(reader).outbox.charged() < KIB);
        house.read_on(reader);
        house.settle();
        assert_eq!(house.read(reader), ["pong ", "close 4008 too slow"]);
    }

    #[test]
    fn too_slow_by_time_above_the_soft_limit() {
        let mut house = House::new(1);
        let (reader, publisher) = (stuck(&mut house, "a"), house.connect(0));
        for _ in 0..5 {
            house.ask(publisher, &publish("a", 60 * KIB));
        }
        house.pass(9_999);
        house.turn(0);
        assert!(house.session(reader).is_open());
        // Below it for a moment: the clock starts again.
        for _ in 0..2 {
            house.gulp(reader);
            house.turn(0);
        }
        for _ in 0..2 {
            house.ask(publisher, &publish("a", 60 * KIB));
        }
        house.pass(9_999);
        house.turn(0);
        assert!(house.session(reader).is_open());
        house.pass(1);
        house.turn(0);
        let stats = house.shards[0].stats();
        assert_eq!(stats.closed_slow, 1);
        assert_eq!((stats.deliveries_due, stats.delivered), (7, 1));
        // The rest of the frame that has begun is not dropped.
        house.read_on(reader);
        house.settle();
        let told = house.read(reader);
        assert_eq!(told.last().unwrap(), "close 4008 too slow");
        assert_eq!(brief(&told)[..3], ["pong ", "publish a", "publish a"]);
        let stats = house.shards[0].stats();
        assert_eq!(stats.delivered, told.len() as u64 - 2);
        assert_eq!(stats.deliveries_due, stats.delivered + stats.announced);
    }

    #[test]
    fn the_largest_are_cut_first_and_nobody_for_them() {
        let mut house = House::with(1, |settings| {
            settings.limits.outbox_total_bytes_max = 400 * KIB;
        });
        let (small, large) = (stuck(&mut house, "small"), stuck(&mut house, "large"));
        let (middle, idle) = (stuck(&mut house, "middle"), house.connect(0));
        house.subscribe(idle, "idle");
        let publisher = house.connect(0);
        for (topic, count) in [("small", 1), ("middle", 2), ("large", 3)] {
            for _ in 0..count {
                house.ask(publisher, &publish(topic, 60 * KIB));
            }
        }
        house.ask(publisher, &publish("large", 60 * KIB));
        assert!(
            house.session(large).is_ending(),
            "seven of 60 KiB are too many"
        );
        for client in [small, middle, idle, publisher] {
            assert!(house.session(client).is_open());
        }
        house.ask(publisher, &publish("idle", 60 * KIB));
        assert_eq!(house.shards[0].stats().closed_slow, 1);
    }

    #[test]
    fn those_that_are_cut_already_push_nobody_out() {
        let mut house = House::with(1, |settings| {
            settings.limits.outbox_total_bytes_max = 300 * KIB;
        });
        let publisher = house.connect(0);
        // Their sends in flight stay charged after they are cut.
        let slow: Vec<_> = (0..6)
            .map(|_| {
                let client = house.connect(0);
                house.subscribe(client, "a");
                house.stop_reading(client);
                client
            })
            .collect();
        let fine: Vec<_> = (0..20).map(|_| house.connect(0)).collect();
        for client in &fine {
            house.subscribe(*client, "fine");
        }
        house.ask(publisher, &publish("a", 60 * KIB));
        for _ in 0..5 {
            house.ask(publisher, &publish("fine", KIB));
        }
        for client in fine {
            assert!(house.session(client).is_open());
            assert_eq!(house.read(client).len(), 5);
        }
        assert!(house.session(publisher).is_open());
        assert!(house.shards[0].outbox_bytes <= 300 * KIB);
        let reset = slow
            .iter()
            .filter(|client| house.closed(**client) == Some(true));
        assert!(reset.count() > 0);
    }
}
