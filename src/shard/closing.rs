//! How sessions end.
//!
//! Two steps: *release* takes a session out of everything that others reach it by (topic tree, handlers,
//! pending requests), so nothing more is due to it; then either *close* says the last words and lets the outbox
//! run dry, or *finish* forgets it at once. Whatever deliveries are left in a released outbox when it is
//! forgotten have been announced by the end of the connection itself.

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::ws::close;

use super::fanout::mark_dirty;
use super::parcel::Key;
use super::session::State;
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
        let mut words = Vec::new();
        close::encode(code, text, &mut words);
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
        session.outbox.push_last(words);
        self.outbox_bytes = self.outbox_bytes + session.outbox.charged() - before;
        mark_dirty(session, &mut self.dirty);
        // A new state, a new clock: whatever deadline was set is stale.
        session.timer_ms = u64::MAX;
        self.update_reading(id);
        self.set_timer(id);
    }

    /// Ends a session that reads too slowly: what waits is given up, the close frame goes behind what is in flight.
    pub(super) fn close_slow(&mut self, id: SessionId) {
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
        for (filter, place) in subscriptions {
            let key = Key::Filter(self.subscriptions.filter(filter).clone());
            self.leave_group(filter, encoding, place);
            self.interest.remove(&key);
        }
        if let Some(stall) = stall {
            for (filter, _) in stall.subscribes {
                self.interest.remove(&Key::Filter(filter));
            }
        }
        self.release_requests(id);
        self.announce();
        true
    }

    /// Everything has gone out.
    pub(super) fn emptied(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if let State::Closing { .. } = session.state {
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
