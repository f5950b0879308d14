//! How a peer comes in: it says its name and its key, and is welcomed once every shard knows it.
//!
//! Its first call is HELLO. Nothing else is read before it, and nothing behind it until the peer is welcome: what comes
//! meanwhile waits, as that of a client whose admission is not decided. One that is refused is told why by GOODBYE.

use bytes::Bytes;

use crate::address::SessionId;
use crate::error::CloseReason;
use crate::limits::PEER_HELLO_BYTES_MAX;
use crate::protocol::peer::call::{self, Bad};
use crate::protocol::peer::reader::TooLong;
use crate::protocol::peer::{PeerCommand, PeerEvent, VERSION};
use crate::protocol::{Command, Event, Protocol};
use crate::secret::Secret;

use super::super::Shard;
use super::super::fault::Place;
use super::super::handshake::deal;
use super::super::parcel::Key;
use super::super::session::{Collected, State};
use super::names::NameWord;
use super::{PeerParcel, PeerSession, REGISTRAR, goodbye};

/// Why a peer is not let in, as GOODBYE says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Refusal {
    pub code: &'static str,
    pub reason: &'static str,
}

impl Refusal {
    const fn new(code: &'static str, reason: &'static str) -> Refusal {
        Refusal { code, reason }
    }
}

const NO_HELLO: Refusal = Refusal::new("bad_frame", "the first call is HELLO");
const OTHER_VERSION: Refusal = Refusal::new("version", "this broker speaks version 1");
const WRONG_KEY: Refusal = Refusal::new("not_allowed", "the key is not the broker's");
const GUESSING: Refusal = Refusal::new("busy", "too many wrong keys from this address");
const INTERNAL: Refusal = Refusal::new("internal", "internal error");
/// Another peer of this name is there.
pub(super) const DUPLICATE: Refusal =
    Refusal::new("duplicate", "another peer of this name is connected");
/// It is none of those that may come in.
pub(super) const NOT_LISTED: Refusal = Refusal::new("not_allowed", "this peer may not come in");
/// Words for whoever comes while the broker goes.
const GOING_AWAY: Refusal = Refusal::new("going_away", "going away");

impl Shard {
    /// Did it come to a listener for peers?
    pub(in super::super) fn is_of_peers(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        session.is_some_and(|session| self.settings.listeners[usize::from(session.listener)].peers)
    }

    /// A connection has come to a listener for peers, or was dealt to this shard.
    pub(in super::super) fn enter_peer(&mut self, id: SessionId, was_dealt: bool) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let listener = &self.settings.listeners[usize::from(session.listener)];
        let is_in_process = listener.in_process;
        if listener.dealt && !was_dealt && self.settings.shards > 1 {
            let to = deal(&mut self.next_deal, self.settings.shards);
            if to != self.id {
                return self.hand_over(id, to, Vec::new());
            }
        }
        session.speak(Protocol::Peer);
        session.peer = Some(Box::new(PeerSession::new(is_in_process)));
    }

    /// Bytes of a peer that has not said who it is.
    pub(in super::super) fn receive_hello(&mut self, id: SessionId, bytes: &[u8]) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(peer) = &mut session.peer else {
            return;
        };
        let mut reader = std::mem::take(&mut peer.reader);
        let (fault, unix_ms) = (&self.settings.fault, self.now.unix_ms);
        let read = fault.contain(Place::Frame, || reader.next(PEER_HELLO_BYTES_MAX, bytes));
        let (taken, decoded) = match read {
            None => return self.turn_away(id, INTERNAL),
            Some(Err(TooLong)) => return self.turn_away(id, NO_HELLO),
            Some(Ok((_, None))) => {
                peer.reader = reader;
                return;
            }
            Some(Ok((taken, Some(frame)))) => {
                let decode = || call::decode(frame, unix_ms);
                match fault.contain(Place::Decode, decode) {
                    Some(decoded) => (taken, decoded),
                    None => return self.turn_away(id, INTERNAL),
                }
            }
        };
        reader.release();
        peer.reader = reader;
        self.stats.commands += 1;
        let hello = match decoded {
            Ok(Command::Peer(command)) => *command,
            Ok(_) | Err(Bad::Refused(_)) => return self.turn_away(id, NO_HELLO),
            Err(Bad::Malformed(sentence)) => {
                return self.turn_away(id, Refusal::new("bad_frame", sentence));
            }
        };
        let PeerCommand::Hello { version, name, key } = hello else {
            return self.turn_away(id, NO_HELLO);
        };
        if version != VERSION {
            return self.turn_away(id, OTHER_VERSION);
        }
        if let Err(refusal) = self.check_key(id, key.as_ref()) {
            return self.turn_away(id, refusal);
        }
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(peer) = &mut session.peer else {
            return;
        };
        peer.name = name.clone();
        let is_in_process = peer.is_in_process;
        session.state = State::Admission {
            response: Box::new(Collected(Vec::new())),
        };
        let stall = session.stall.get_or_insert_default();
        stall.bytes.extend_from_slice(&bytes[taken..]);
        let claim = NameWord::Claim {
            name,
            session: id,
            is_in_process,
        };
        self.send_peer(REGISTRAR, PeerParcel::Name(claim));
        self.update_reading(id);
    }

    /// Is this the key that is asked for?
    fn check_key(&mut self, id: SessionId, key: Option<&Secret>) -> Result<(), Refusal> {
        if self.is_in_process(id) {
            return Ok(());
        }
        let Some(own) = self.credentials.peer_key.clone() else {
            return Ok(());
        };
        if self.check_address(id).is_err() {
            return Err(GUESSING);
        }
        if key.is_some_and(|key| own.matches(key.reveal().as_bytes())) {
            return Ok(());
        }
        self.stats.unauthenticated += 1;
        if let Some(session) = self.sessions.find(id) {
            tracing::warn!(address = %session.address, "a peer with a wrong key");
        }
        self.count_failure(id);
        Err(WRONG_KEY)
    }

    /// Has a peer that is not in go, with GOODBYE.
    pub(super) fn turn_away(&mut self, id: SessionId, refusal: Refusal) {
        self.stats.handshakes_refused += 1;
        let words = goodbye(refusal.code, refusal.reason.as_bytes());
        self.close_after(id, CloseReason::HandshakeRefused, &words);
    }

    /// The registrar's word: this name is its own.
    pub(super) fn granted(&mut self, id: SessionId, name: Bytes) {
        let is_quiet = self.is_quiet || self.is_leaving;
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        if !matches!(session.state, State::Admission { .. }) {
            return;
        }
        if is_quiet {
            return self.turn_away(id, GOING_AWAY);
        }
        self.peers.names.insert(name.clone(), id);
        self.peers.entering.push(id);
        self.interest.add(&Key::Peer(name.clone()));
        self.announce();
        // Where its forerunner is still believed in, it has not gone for anybody.
        if !self.peers.remote_names.contains_key(&name) {
            self.tell_peer(true, &name, Some(id));
        }
    }

    /// Welcomes those whose names every shard knows.
    pub(super) fn welcome_known(&mut self) {
        for id in std::mem::take(&mut self.peers.entering) {
            let session = self.sessions.find(id);
            let Some(peer) = session.and_then(|session| session.peer.as_ref()) else {
                continue;
            };
            let name = Key::Peer(peer.name.clone());
            if self.interest.is_announced(&name) {
                self.welcome(id);
            } else {
                self.peers.entering.push(id);
            }
        }
    }

    fn welcome(&mut self, id: SessionId) {
        let (client, now_ms) = (self.client_id(id), self.now.ms);
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let (State::Admission { .. }, Some(peer)) = (&session.state, &mut session.peer) else {
            return;
        };
        peer.is_welcome = true;
        session.state = State::Open;
        session.heard(now_ms);
        session.timer_ms = u64::MAX;
        session.stall.take_if(|stall| stall.is_empty());
        self.tell(id, &Event::Peer(&PeerEvent::Welcome { client }), true);
        self.tell_tokens(id);
        // With the next turn: words of this one that wait are not to be overtaken.
        self.resume_later(id);
        self.update_reading(id);
        self.set_timer(id);
    }

    /// The words for a peer that is not let in, in place of a response.
    pub(in super::super) fn refuse_peer(&mut self, id: SessionId, code: &'static str, text: &[u8]) {
        let words = goodbye(code, text.trim_ascii_end());
        self.close_after(id, CloseReason::HandshakeRefused, &words);
    }
}
