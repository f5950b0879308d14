//! Peers: application servers, and the Links of the broker's own process.
//!
//! A peer is a session that speaks the [peer protocol](crate::protocol::peer). What it has in common with other
//! sessions (subscriptions, publishing, requests, backpressure) it has from them. Its own are here: it has a name, which
//! is its alone in the broker (`names`); it may *host* clients (`hosting`): be asked whether they may come in and hear of
//! what they do; it puts clients into rooms and speaks to them (`rooms`); it accepts clients by tokens (`tokens`).
//!
//! Its life is that of other sessions: in its *handshake* it says HELLO, in *admission* it waits for its name, then it is
//! *open*. The topic rules do not apply to it: it holds the key.
//!
//! What one shard has to tell another about peers goes by `Shard::send_peer`, in order; a lane without room delays it,
//! and what it is about is bounded by the sessions.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::address::{ClientId, SessionId, ShardId, ShardSet};
use crate::error::{CloseReason, Code};
use crate::limits::PEER_FRAME_BYTES_SPARE;
use crate::message::Payload;
use crate::protocol::peer::call::{self, Bad};
use crate::protocol::peer::reader::{Reader, TooLong};
use crate::protocol::peer::{self, Audience, PeerCommand, PeerEvent, Watch};
use crate::protocol::{Event, Outcome, Tag};

use super::Shard;
use super::command::Wait;
use super::fault::Place;
use super::input::Read;
use super::parcel::{Key, Parcel};
use super::session::{Held, Since};
use super::settings::Acceptance;

mod admission;
mod broadcast;
mod emit;
mod enter;
mod feed;
mod hosting;
mod http;
mod names;
mod occupied;
mod rooms;
#[cfg(test)]
mod testing;
mod tokens;

pub use admission::Arriving;
pub use broadcast::Broadcast;
pub use emit::EmitLogs;
pub use feed::{Clog, Feeds};
pub use hosting::{HostParcel, Hosted, Hosting, Hosts, Word};
pub use names::NameWord;
pub use rooms::Rooms;
pub use tokens::{ShownId, TokenChange, TokenWord};

use names::Registrar;
use tokens::Tokens;

/// The shard that keeps what is one for the whole broker: who has which name.
const REGISTRAR: ShardId = ShardId(0);

/// What only a peer has.
#[derive(Debug)]
pub struct PeerSession {
    /// Bytes into frames.
    pub reader: Reader,
    /// Is it a Link of the broker's own process?
    pub is_in_process: bool,
    /// Its name; empty until its HELLO has come.
    pub name: Bytes,
    /// Is it in: has it said who it is, and been welcomed?
    pub is_welcome: bool,
    /// The clients that it has accepted and that are in, by their tokens.
    pub tokens: BTreeMap<Bytes, ClientId>,
    /// Since when it is asked whether it is there, because somebody else wants its name.
    pub probed: Since,
    /// What it watches.
    pub watch: Watch,
    /// What it has for the clients that it hosts.
    pub hosting: Hosting,
}

impl PeerSession {
    fn new(is_in_process: bool) -> PeerSession {
        PeerSession {
            reader: Reader::default(),
            is_in_process,
            name: Bytes::new(),
            is_welcome: false,
            tokens: BTreeMap::new(),
            probed: Since::NEVER,
            watch: Watch::default(),
            hosting: Hosting::default(),
        }
    }
}

/// Shards by the name of what they have.
pub type ShardsByName = HashMap<Bytes, ShardSet, RandomState>;

/// What a shard knows of the broker's peers.
#[derive(Debug, Default)]
pub struct Peers {
    /// Its own that have their names. In order, so that whatever is told to all of them is told alike in each run.
    names: BTreeMap<Bytes, SessionId>,
    /// Of these, those whose names the other shards have yet to hear of.
    entering: Vec<SessionId>,
    /// Those of other shards. There may be two at a time, while one takes the place of the other: the last is the one.
    remote_names: BTreeMap<Bytes, SmallVec<[ShardId; 1]>>,
    /// Where Links handle an event.
    pub(super) remote_masters: ShardsByName,
    /// Where peers from outside do.
    pub(super) remote_any_peers: ShardsByName,
    /// Used by [`REGISTRAR`] alone.
    registrar: Registrar,
    /// Likewise.
    tokens: Tokens,
    /// Has a token been accepted, where ids meant nothing before?
    pub has_tokens: bool,
    /// Words for other shards that wait, and for this one.
    outgoing: VecDeque<(ShardId, PeerParcel)>,
    /// For whom there are any.
    waited_for: ShardSet,
}

impl Peers {
    /// What the shard of this number knows at its start.
    pub fn of(shard: ShardId, accepted: &[Acceptance]) -> Peers {
        let mut peers = Peers::default();
        if shard == REGISTRAR {
            peers.tokens.restore(accepted);
        }
        peers
    }

    /// Does anything wait for another turn?
    pub fn is_restless(&self) -> bool {
        !self.outgoing.is_empty() || !self.entering.is_empty() || self.tokens.has_answers()
    }

    /// How many have their names here.
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Their names.
    #[cfg(test)]
    pub fn names(&self) -> impl Iterator<Item = &Bytes> {
        self.names.keys()
    }

    /// Everything that is remembered of any peer.
    pub fn entries(&self) -> usize {
        self.names.len()
            + self.entering.len()
            + self.remote_names.len()
            + self.remote_masters.len()
            + self.remote_any_peers.len()
            + self.registrar.len()
            + self.tokens.clients()
            + self.outgoing.len()
    }
}

/// A word from one shard to another about peers and their clients.
#[derive(Debug)]
pub enum PeerParcel {
    /// About a name.
    Name(NameWord),
    /// An event for peers of the other shard.
    Broadcast(Broadcast),
    /// About a token.
    Token(TokenWord),
    /// About hosts and their clients.
    Host(HostParcel),
}

impl PeerParcel {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        let held = match self {
            PeerParcel::Name(word) => word.size(),
            PeerParcel::Broadcast(broadcast) => broadcast.size(),
            PeerParcel::Token(word) => word.size(),
            PeerParcel::Host(parcel) => parcel.size(),
        };
        size_of::<PeerParcel>() + held
    }
}

impl Shard {
    /// Carries out what only peers ask for.
    pub(super) fn carry_out_peer(
        &mut self,
        id: SessionId,
        command: PeerCommand,
    ) -> Result<(), Wait> {
        match command {
            PeerCommand::Hello { .. } => {
                self.break_off(id, "HELLO is said once");
                Ok(())
            }
            PeerCommand::EmitMany {
                to: Audience::Peers(pattern),
                event,
                data,
                volatile,
                tag,
            } => self.broadcast(id, pattern, event, data, volatile, tag),
            PeerCommand::EmitMany {
                to,
                event,
                data,
                volatile,
                tag,
            } => self.emit_many(id, to, event, data, volatile, tag),
            PeerCommand::Watch { mask, tag } => self.watch(id, mask, tag),
            PeerCommand::Admit { client, verdict } => self.host_admits(id, client, verdict),
            PeerCommand::Join { client, room, tag } => self.join_room(id, client, room, tag),
            PeerCommand::Leave { client, room, tag } => self.leave_room(id, client, room, tag),
            PeerCommand::Disconnect {
                client,
                code,
                reason,
                tag,
            } => self.disconnect_client(id, client, code, reason, tag),
            command @ (PeerCommand::Accept { .. } | PeerCommand::Reject { .. }) => {
                self.rule_token(id, command)
            }
            command @ (PeerCommand::AdmitPeer { .. } | PeerCommand::CutPeer { .. }) => {
                self.rule_peers(id, command)
            }
            // That something came has been noted.
            PeerCommand::Alive => Ok(()),
            PeerCommand::Bye => {
                self.close(id, CloseReason::ClientClosed);
                Ok(())
            }
        }
    }

    /// Tells a peer that a call with a ticket took effect, or did not.
    pub(super) fn done(
        &mut self,
        id: SessionId,
        tag: Option<&Tag>,
        result: Result<Payload, (Code, &'static str)>,
    ) {
        let outcome = match result {
            Ok(payload) => Outcome::Data(payload),
            Err((code, reason)) => {
                self.stats.refusals += 1;
                Outcome::refused(code, reason)
            }
        };
        let Some(tag) = tag else {
            return;
        };
        let done = PeerEvent::Done {
            tag,
            outcome: &outcome,
        };
        self.tell(id, &Event::Peer(&done), true);
    }

    /// Takes news of another shard's peers.
    pub(super) fn take_peer_edge(&mut self, from: ShardId, key: Key, up: bool) {
        match key {
            Key::Master(event) => edge(&mut self.peers.remote_masters, from, event, up),
            Key::AnyPeer(event) => edge(&mut self.peers.remote_any_peers, from, event, up),
            Key::Peer(name) => self.take_name_edge(from, name, up),
            Key::Tokens => self.peers.has_tokens = up,
            // The router's, and those of hosts.
            Key::Filter(_)
            | Key::Service(_)
            | Key::Host(..)
            | Key::HostEvent(..)
            | Key::Behind(..)
            | Key::Clogged(..) => {}
        }
    }

    /// Takes a word about peers.
    pub(super) fn take_peer_parcel(&mut self, from: ShardId, parcel: PeerParcel) {
        match parcel {
            PeerParcel::Name(word) => self.take_name_word(from, word),
            PeerParcel::Broadcast(broadcast) => self.take_broadcast(&broadcast),
            PeerParcel::Token(word) => self.take_token_word(from, word),
            PeerParcel::Host(parcel) => self.take_host_parcel(from, parcel),
        }
    }

    /// Sends a word about peers to another shard, or to this one, behind those before it: at the end of this turn if
    /// there is room.
    pub(super) fn send_peer(&mut self, to: ShardId, parcel: PeerParcel) {
        self.peers.waited_for.insert(to);
        self.peers.outgoing.push_back((to, parcel));
    }

    /// Do words for this shard wait, that nothing for the same peer may overtake?
    pub(super) fn has_words_for(&self, to: ShardId) -> bool {
        self.peers.waited_for.contains(to)
    }

    /// May a word of this size for this shard go at once, without overtaking another?
    pub(super) fn has_way(&mut self, to: ShardId, parcel: &PeerParcel) -> bool {
        if to == self.id {
            return true;
        }
        let size = size_of::<Parcel>() + parcel.size();
        !self.has_words_for(to) && self.lanes.to(to).has_room(size)
    }

    /// Sends a word that a call makes necessary. The caller asked [`Shard::has_way`] before.
    pub(super) fn push_peer(&mut self, to: ShardId, parcel: PeerParcel) {
        if to == self.id {
            return self.send_peer(to, parcel);
        }
        self.stats.forwarded += 1;
        self.lanes.to(to).push(Parcel::Peer(Box::new(parcel)));
    }

    /// Puts the words that wait on their lanes, as far as there is room, and welcomes those whose names are known.
    pub(super) fn flush_peers(&mut self) {
        self.flush_answers();
        let mut blocked = ShardSet::EMPTY;
        let mut kept = VecDeque::new();
        while let Some((to, word)) = self.peers.outgoing.pop_front() {
            if to == self.id {
                self.take_peer_parcel(to, word);
                continue;
            }
            let size = size_of::<Parcel>() + word.size();
            if !blocked.contains(to) && self.lanes.to(to).has_room(size) {
                self.stats.forwarded += 1;
                self.lanes.to(to).push(Parcel::Peer(Box::new(word)));
            } else {
                blocked.insert(to);
                kept.push_back((to, word));
            }
        }
        self.peers.outgoing = kept;
        self.peers.waited_for = blocked;
        self.welcome_known();
    }

    /// A peer that has been silent is asked whether it is there.
    pub(super) fn ping_peer(&mut self, id: SessionId) {
        self.tell(id, &Event::Peer(&PeerEvent::Probe), false);
    }

    pub(super) fn is_peer(&mut self, id: SessionId) -> bool {
        self.sessions
            .find(id)
            .is_some_and(|session| session.peer.is_some())
    }

    /// Is it a Link of the broker's own process?
    pub(super) fn is_in_process(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        let peer = session.and_then(|session| session.peer.as_ref());
        peer.is_some_and(|peer| peer.is_in_process)
    }

    /// The last words to a peer that ends for this reason.
    pub(super) fn peer_words(&mut self, reason: CloseReason, detail: &[u8]) -> Vec<u8> {
        goodbye_code(reason).map_or_else(Vec::new, |code| goodbye(code, detail))
    }

    /// A session ends: a peer, or a client that one hosts.
    pub(super) fn release_peer(&mut self, id: SessionId, reason: CloseReason) {
        let _ = reason;
        self.release_token(id);
        self.release_hosting(id);
        self.release_name(id);
    }

    /// Reads one call, and carries it out; the bytes that it took.
    pub(super) fn read_call(
        &mut self,
        id: SessionId,
        reader: &mut Reader,
        input: &[u8],
    ) -> (usize, Read) {
        let Some(session) = self.sessions.find(id) else {
            return (0, Read::Part);
        };
        let bytes_max = session.limits(&self.settings).message_bytes_max + PEER_FRAME_BYTES_SPARE;
        let fault = &self.settings.fault;
        match fault.contain(Place::Frame, move || reader.next(bytes_max, input)) {
            None => self.close(id, CloseReason::Internal),
            Some(Ok((taken, None))) => return (taken, Read::Part),
            Some(Ok((taken, Some(frame)))) => {
                self.stats.commands += 1;
                self.heard_from(id);
                let unix_ms = self.now.unix_ms;
                let decode = || call::decode(frame, unix_ms);
                match self.settings.fault.contain(Place::Decode, decode) {
                    None => self.close(id, CloseReason::Internal),
                    Some(Ok(command)) => self.execute_or_hold(id, command),
                    Some(Err(Bad::Refused(refusal))) => {
                        if let Err(refusal) = self.refuse_command(id, refusal) {
                            self.hold(id, Held::Refusal(refusal));
                        }
                    }
                    Some(Err(Bad::Malformed(sentence))) => self.break_off(id, sentence),
                }
                return (taken, Read::Message);
            }
            Some(Err(TooLong)) => self.close(id, CloseReason::TooBig),
        }
        (0, Read::Part)
    }

    /// Ends a peer that does not keep to the protocol, with this sentence.
    fn break_off(&mut self, id: SessionId, sentence: &'static str) {
        let reason = CloseReason::ProtocolError;
        self.close_with(id, reason, reason.code(), sentence.as_bytes());
    }

    /// The peers of this shard that watch this.
    fn watchers(&mut self, of: Watch) -> SmallVec<[SessionId; 8]> {
        let sessions = &self.sessions;
        let ids = self.peers.names.values().copied();
        ids.filter(|id| {
            let peer = sessions.peek(*id).and_then(|session| session.peer.as_ref());
            peer.is_some_and(|peer| peer.watch.has(of))
        })
        .collect()
    }
}

/// Takes the news that a shard has this, or has it no more.
fn edge(shards: &mut ShardsByName, from: ShardId, name: Bytes, up: bool) {
    if up {
        shards.entry(name).or_default().insert(from);
    } else if let Some(of_name) = shards.get_mut(&name) {
        of_name.remove(from);
        if of_name.is_empty() {
            shards.remove(&name);
        }
    }
}

/// GOODBYE, as last words.
fn goodbye(code: &'static str, reason: &[u8]) -> Vec<u8> {
    let goodbye = PeerEvent::Goodbye { code, reason };
    let mut words = Vec::new();
    peer::encode(&Event::Peer(&goodbye), &mut words);
    words
}

/// The word of GOODBYE for a reason; none where nobody is there to read it, or the peer itself has said it.
fn goodbye_code(reason: CloseReason) -> Option<&'static str> {
    match reason {
        CloseReason::ClientClosed | CloseReason::ConnectionLost => None,
        // Of clients.
        CloseReason::HostGone | CloseReason::Disconnected => None,
        CloseReason::GoingAway => Some("going_away"),
        CloseReason::ProtocolError | CloseReason::Unsupported | CloseReason::BadPayload => {
            Some("bad_frame")
        }
        CloseReason::HandshakeRefused | CloseReason::TokenExpired => Some("not_allowed"),
        CloseReason::TooLate | CloseReason::PingTimeout => Some("timeout"),
        CloseReason::TooBig => Some("too_large"),
        CloseReason::Internal => Some("internal"),
        CloseReason::TooSlow => Some("too_slow"),
        CloseReason::Terminated => Some("cut"),
    }
}

#[cfg(test)]
mod tests;
