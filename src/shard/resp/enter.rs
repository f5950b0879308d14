//! How a RESP connection comes in: at once on the shard that it stays on, or when it is known whose it is.
//!
//! Its client speaks first, and may take its time, so there is nothing to wait for, with one exception: a trusted proxy
//! may name its client by a PROXY header before the first byte.

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::protocol::Protocol;
use crate::protocol::resp::reply;

use super::super::handshake::deal;
use super::super::proxied::{Preface, counted};
use super::super::session::{Collected, State};
use super::super::{Effect, Shard};
use super::RespSession;

impl Shard {
    /// A connection has come to a RESP listener of this shard, or was dealt to this shard.
    pub(in super::super) fn enter_resp(&mut self, id: SessionId, was_dealt: bool) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if self.settings.trusted.trusts(&session.address) {
            // With its first bytes.
            return;
        }
        let is_dealt = self.settings.listeners[usize::from(session.listener)].dealt;
        if is_dealt && !was_dealt && self.settings.shards > 1 {
            let to = deal(&mut self.next_deal, self.settings.shards);
            if to != self.id {
                return self.hand_over(id, to, Vec::new());
            }
        }
        self.open_resp(id);
    }

    /// Opens it: its commands are taken from now on.
    pub(in super::super) fn open_resp(&mut self, id: SessionId) {
        let shards = self.settings.shards as u64;
        self.resp_clients += 1;
        let client = self.resp_clients * shards + self.id.index() as u64;
        let is_authenticated = !self.asks_for_password();
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        session.speak(Protocol::Resp);
        session.state = State::Open;
        session.timer_ms = u64::MAX;
        let resp = RespSession::new(client, now_ms, is_authenticated);
        session.resp = Some(Box::new(resp));
    }

    /// The first bytes of one that was not opened at once.
    pub(in super::super) fn receive_preface(&mut self, id: SessionId, bytes: &mut [u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let State::Handshake { head, dealt } = &mut session.state else {
            return;
        };
        let mut collected = head.take().map_or_else(Vec::new, |head| head.0);
        collected.extend_from_slice(bytes);
        let preface = match Preface::read(&self.settings.trusted, &session.address, &collected) {
            Ok(Some(preface)) => preface,
            Ok(None) => {
                *head = Some(Box::new(Collected(collected)));
                return;
            }
            Err((reject, log)) => {
                if let Some(log) = log {
                    tracing::warn!(address = %session.address, "{log}");
                }
                self.stats.handshakes_refused += 1;
                let mut words = Vec::new();
                reply::write_error(format!("ERR {}", reject.reason).as_bytes(), &mut words);
                return self.close_after(id, CloseReason::HandshakeRefused, &words);
            }
        };
        let is_dealt = self.settings.listeners[usize::from(session.listener)].dealt;
        if is_dealt && !*dealt && self.settings.shards > 1 {
            let to = deal(&mut self.next_deal, self.settings.shards);
            if to != self.id {
                return self.hand_over(id, to, collected);
            }
        }
        let mut rest = collected.split_off(preface.size);
        let seat = preface.client.and_then(|client| {
            session.address = client;
            counted(&self.settings, &session.address)
        });
        match seat {
            None => {
                self.open_resp(id);
                self.read_messages(id, &mut rest);
            }
            Some(ip) => {
                let response = Box::new(Collected(Vec::new()));
                session.state = State::Admission { response };
                if !rest.is_empty() {
                    session.stall.get_or_insert_default().bytes = rest;
                }
                self.effects.push(Effect::AskSeat {
                    session: id,
                    ip,
                    host: None,
                });
                self.update_reading(id);
            }
        }
    }
}
