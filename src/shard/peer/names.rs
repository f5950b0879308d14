//! Names: each peer has one, and each name one peer in the broker.
//!
//! Shard 0 is the *registrar*: it knows who has which name. A peer that comes has its shard *claim* the name; its end
//! *releases* it. If a name that is claimed is taken, its holder is *probed*: told PROBE, and if anything comes from it
//! within [`PEER_PROBE_MS`] it stays, and whoever claims the name is refused; if nothing comes, it is cut, and the name is
//! the first claimant's once it is released. A holder that is not even sent what it was told before is cut at once.
//!
//! Invariants: a name has one holder, until that one's own shard releases it; claims and releases of one session come in
//! order, so what is remembered of a name goes with its last session.

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};

use crate::address::{SessionId, ShardId};
use crate::error::{CloseReason, Code};
use crate::limits::{PEER_NAMES_LISTED_MAX, PEER_PROBE_MS};
use crate::message::Payload;
use crate::protocol::peer::{PeerCommand, PeerEvent, Watch, tag_ticket, ticket_tag};
use crate::protocol::{Command, Event};

use super::super::Shard;
use super::super::command::Wait;
use super::super::parcel::Key;
use super::super::session::Since;
use super::super::settings::AcceptPeers;
use super::enter::{DUPLICATE, NOT_LISTED, Refusal};
use super::{PeerParcel, REGISTRAR, goodbye};

/// What registrar and shards tell each other.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NameWord {
    /// To the registrar: this session of mine wants this name.
    Claim {
        name: Bytes,
        session: SessionId,
        is_in_process: bool,
    },
    /// To the registrar: it wants, or has, this name no more.
    Release { name: Bytes, session: SessionId },
    /// To the registrar: it is there, or it is not.
    Probed {
        name: Bytes,
        session: SessionId,
        is_there: bool,
    },
    /// From the registrar: the name is its own.
    Granted { name: Bytes, session: SessionId },
    /// From the registrar: it is not, since it is taken.
    Duplicate { session: SessionId },
    /// From the registrar: it is not, since it is none of those that may come in.
    NotListed { session: SessionId },
    /// From the registrar: see whether this session of yours is there.
    Probe { session: SessionId },
    /// From the registrar: it is not there, and somebody else wants its name.
    Replace { session: SessionId },
    /// From the registrar: a Link wants it cut.
    Cut { session: SessionId },
    /// To the registrar, of a Link: peers of this name may come in, or may not.
    List {
        name: Bytes,
        admitted: bool,
        caller: SessionId,
        ticket: u64,
    },
    /// To the registrar, of a Link: cut the peer of this name.
    CutNamed {
        name: Bytes,
        caller: SessionId,
        ticket: u64,
    },
    /// From the registrar: what your peer asked for is done, or why not.
    Done {
        caller: SessionId,
        ticket: u64,
        result: Result<(), (Code, &'static str)>,
    },
}

impl NameWord {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        match self {
            NameWord::Claim { name, .. }
            | NameWord::Release { name, .. }
            | NameWord::Probed { name, .. }
            | NameWord::List { name, .. }
            | NameWord::Granted { name, .. }
            | NameWord::CutNamed { name, .. } => name.len(),
            NameWord::Duplicate { .. }
            | NameWord::NotListed { .. }
            | NameWord::Probe { .. }
            | NameWord::Replace { .. }
            | NameWord::Cut { .. }
            | NameWord::Done { .. } => 0,
        }
    }
}

/// A session and its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    pub shard: ShardId,
    pub session: SessionId,
}

/// Who has a name, and who wants it.
#[derive(Debug)]
struct Holding {
    holder: Place,
    /// In the order in which they came. While there are any, the holder is probed.
    claimants: Vec<Place>,
}

/// Who has which name.
#[derive(Debug, Default)]
pub struct Registrar {
    names: HashMap<Bytes, Holding, RandomState>,
    /// Who may come in, where not everybody may.
    listed: HashSet<Bytes, RandomState>,
}

/// What the registrar says in answer.
type Words = Vec<(ShardId, NameWord)>;

impl Registrar {
    /// Who has this name.
    pub fn holder(&self, name: &Bytes) -> Option<Place> {
        Some(self.names.get(name)?.holder)
    }

    /// How many names there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    fn list(&mut self, name: Bytes, admitted: bool) -> Result<(), (Code, &'static str)> {
        if !admitted {
            self.listed.remove(&name);
        } else if self.listed.len() < PEER_NAMES_LISTED_MAX || self.listed.contains(&name) {
            self.listed.insert(name);
        } else {
            return Err((Code::Limit, "as many peers are named as may be"));
        }
        Ok(())
    }

    fn claim(&mut self, name: Bytes, claimant: Place) -> Words {
        let session = claimant.session;
        let Some(holding) = self.names.get_mut(&name) else {
            let holding = Holding {
                holder: claimant,
                claimants: Vec::new(),
            };
            self.names.insert(name.clone(), holding);
            return vec![(claimant.shard, NameWord::Granted { name, session })];
        };
        holding.claimants.push(claimant);
        if holding.claimants.len() > 1 {
            return Vec::new();
        }
        let Place { shard, session } = holding.holder;
        vec![(shard, NameWord::Probe { session })]
    }

    fn probed(&mut self, name: &Bytes, holder: Place, is_there: bool) -> Words {
        let holding = self.names.get_mut(name);
        let Some(holding) = holding.filter(|of_name| of_name.holder == holder) else {
            return Vec::new();
        };
        if !is_there {
            let is_wanted = !holding.claimants.is_empty();
            let Place { shard, session } = holder;
            let replace = is_wanted.then_some((shard, NameWord::Replace { session }));
            return replace.into_iter().collect();
        }
        duplicates(std::mem::take(&mut holding.claimants))
    }

    fn release(&mut self, name: &Bytes, who: Place) -> Words {
        let Some(holding) = self.names.get_mut(name) else {
            return Vec::new();
        };
        if holding.holder != who {
            holding.claimants.retain(|claimant| *claimant != who);
            return Vec::new();
        }
        if holding.claimants.is_empty() {
            self.names.remove(name);
            return Vec::new();
        }
        let next = holding.claimants.remove(0);
        holding.holder = next;
        let session = next.session;
        let name = name.clone();
        let mut words = vec![(next.shard, NameWord::Granted { name, session })];
        words.extend(duplicates(std::mem::take(&mut holding.claimants)));
        words
    }
}

fn duplicates(claimants: Vec<Place>) -> Words {
    let refused = |Place { shard, session }| (shard, NameWord::Duplicate { session });
    claimants.into_iter().map(refused).collect()
}

impl Shard {
    pub(super) fn take_name_word(&mut self, from: ShardId, word: NameWord) {
        let at = |session| Place {
            shard: from,
            session,
        };
        let registrar = &mut self.peers.registrar;
        let words = match word {
            NameWord::Claim {
                name,
                session,
                is_in_process,
            } => {
                let is_open = self.settings.accept_peers == AcceptPeers::Any;
                if is_open || is_in_process || registrar.listed.contains(&name) {
                    registrar.claim(name, at(session))
                } else {
                    vec![(from, NameWord::NotListed { session })]
                }
            }
            NameWord::Release { name, session } => registrar.release(&name, at(session)),
            NameWord::Probed {
                name,
                session,
                is_there,
            } => registrar.probed(&name, at(session), is_there),
            NameWord::Granted { name, session } => return self.granted(session, name),
            NameWord::Duplicate { session } => return self.refused(session, DUPLICATE),
            NameWord::NotListed { session } => return self.refused(session, NOT_LISTED),
            NameWord::Probe { session } => return self.probe(session),
            NameWord::Replace { session } => return self.replace(session),
            NameWord::Cut { session } => return self.cut(session),
            NameWord::List {
                name,
                admitted,
                caller,
                ticket,
            } => {
                let result = registrar.list(name, admitted);
                let done = NameWord::Done {
                    caller,
                    ticket,
                    result,
                };
                vec![(from, done)]
            }
            NameWord::CutNamed {
                name,
                caller,
                ticket,
            } => {
                let holder = registrar.names.get(&name).map(|holding| holding.holder);
                let result = holder
                    .map(drop)
                    .ok_or((Code::NoHandler, "no peer of this name is connected"));
                let cut = holder.map(|Place { shard, session }| (shard, NameWord::Cut { session }));
                let done = NameWord::Done {
                    caller,
                    ticket,
                    result,
                };
                cut.into_iter().chain([(from, done)]).collect()
            }
            NameWord::Done {
                caller,
                ticket,
                result,
            } => {
                let nothing = || Payload::binary(Bytes::new());
                let tag = ticket_tag(ticket);
                return self.done(caller, tag.as_ref(), result.map(|()| nothing()));
            }
        };
        for (to, word) in words {
            let granted = match &word {
                NameWord::Granted { name, session } => Some((name.clone(), *session)),
                _ => None,
            };
            self.send_peer(to, PeerParcel::Name(word));
            if let Some((name, session)) = granted {
                self.tell_clients_of(&name, Place { shard: to, session });
            }
        }
    }

    fn refused(&mut self, id: SessionId, refusal: Refusal) {
        // Unless it has gone meanwhile.
        if self.sessions.find(id).is_some_and(|one| !one.is_ending()) {
            self.turn_away(id, refusal);
        }
    }

    /// Somebody else wants this peer's name.
    fn probe(&mut self, id: SessionId) {
        let now_ms = self.now.ms;
        let Some(session) = self.sessions.find(id).filter(|one| !one.is_ending()) else {
            // It has been released, and the registrar will hear of it.
            return;
        };
        let is_stuck = |since_ms: u64| now_ms - since_ms >= PEER_PROBE_MS;
        if session.sending.ms().is_some_and(is_stuck) {
            return self.answer_probe(id, false);
        }
        if !session.is_open() || session.is_paused && session.stall.is_some() {
            // It has just come; or its own words wait here, so it is there, and could not be heard to say so.
            return self.answer_probe(id, true);
        }
        if let Some(peer) = &mut session.peer {
            peer.probed.begin(now_ms);
            self.tell(id, &Event::Peer(&PeerEvent::Probe), false);
            self.set_timer(id);
        }
    }

    /// Something has come from a peer.
    pub(super) fn heard_from(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let peer = session.and_then(|session| session.peer.as_ref());
        if peer.is_some_and(|peer| peer.probed != Since::NEVER) {
            self.answer_probe(id, true);
        }
    }

    /// A peer that was asked has not answered in time.
    pub(in super::super) fn probe_late(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let has_said = session.is_some_and(|one| one.is_paused && one.stall.is_some());
        self.answer_probe(id, has_said);
    }

    fn answer_probe(&mut self, id: SessionId, is_there: bool) {
        let session = self.sessions.find(id);
        let Some(peer) = session.and_then(|session| session.peer.as_mut()) else {
            return;
        };
        peer.probed = Since::NEVER;
        let probed = NameWord::Probed {
            name: peer.name.clone(),
            session: id,
            is_there,
        };
        self.send_peer(REGISTRAR, PeerParcel::Name(probed));
    }

    /// A peer gives its name to another one.
    fn replace(&mut self, id: SessionId) {
        let is_stuck = self
            .sessions
            .find(id)
            .is_some_and(|session| session.outbox.is_in_flight());
        if self.sessions.find(id).is_none_or(|one| one.is_ending()) {
            return;
        }
        let words = goodbye(DUPLICATE.code, b"another peer has taken this name");
        self.close_after(id, CloseReason::PingTimeout, &words);
        if is_stuck {
            self.finish(id, true);
        }
    }

    /// A Link has a peer cut.
    fn cut(&mut self, id: SessionId) {
        let words = goodbye("cut", b"cut by the broker's host");
        self.close_after(id, CloseReason::Terminated, &words);
    }

    /// A session ends: its name is free.
    pub(super) fn release_name(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let Some(peer) = session.and_then(|session| session.peer.as_mut()) else {
            return;
        };
        let name = std::mem::take(&mut peer.name);
        if name.is_empty() {
            return;
        }
        if self.peers.names.get(&name) == Some(&id) {
            self.peers.names.remove(&name);
            self.peers.entering.retain(|entering| *entering != id);
            self.interest.remove(&Key::Peer(name.clone()));
            self.tell_peer(false, &name, None);
        }
        let release = NameWord::Release { name, session: id };
        self.send_peer(REGISTRAR, PeerParcel::Name(release));
    }

    /// A name of another shard's peer has come up or gone.
    pub(super) fn take_name_edge(&mut self, from: ShardId, name: Bytes, up: bool) {
        let shards = self.peers.remote_names.entry(name.clone()).or_default();
        let was_there = !shards.is_empty();
        shards.retain(|shard| *shard != from);
        if up {
            shards.push(from);
        }
        let is_there = !shards.is_empty();
        if !is_there {
            self.peers.remote_names.remove(&name);
        }
        if was_there != is_there && !self.peers.names.contains_key(&name) {
            self.tell_peer(is_there, &name, None);
        }
    }

    /// The shard of the peer of this name.
    pub(in super::super) fn shard_of_peer(&self, name: &Bytes) -> Option<ShardId> {
        if self.peers.names.contains_key(name) {
            return Some(self.id);
        }
        self.peers.remote_names.get(name)?.last().copied()
    }

    /// The peer of this name, if it is here.
    pub(in super::super) fn peer_named(&mut self, name: &Bytes) -> Option<SessionId> {
        let id = *self.peers.names.get(name)?;
        let session = self.sessions.find(id)?;
        session.is_open().then_some(id)
    }

    /// Tells those who watch it that a peer has come or gone.
    pub(super) fn tell_peer(&mut self, up: bool, name: &Bytes, itself: Option<SessionId>) {
        for id in self.watchers(Watch::PEER) {
            if Some(id) != itself {
                self.tell(id, &Event::Peer(&PeerEvent::Peer { up, name }), false);
            }
        }
    }

    /// What only a Link of the broker's own process may ask of the registrar: which peers may come in, and that one is
    /// cut.
    pub(super) fn rule_peers(&mut self, id: SessionId, command: PeerCommand) -> Result<(), Wait> {
        let (name, admitted, tag) = match &command {
            PeerCommand::AdmitPeer {
                name,
                admitted,
                tag,
            } => (name.clone(), Some(*admitted), tag),
            PeerCommand::CutPeer { name, tag } => (name.clone(), None, tag),
            _ => return Ok(()),
        };
        if !self.is_in_process(id) {
            let reason = "only the broker's own process may do this";
            self.done(id, tag.as_ref(), Err((Code::NotAllowed, reason)));
            return Ok(());
        }
        let (caller, ticket) = (id, tag_ticket(tag.as_ref()));
        let word = PeerParcel::Name(match admitted {
            Some(admitted) => NameWord::List {
                name,
                admitted,
                caller,
                ticket,
            },
            None => NameWord::CutNamed {
                name,
                caller,
                ticket,
            },
        });
        if !self.has_way(REGISTRAR, &word) {
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.push_peer(REGISTRAR, word);
        Ok(())
    }
}
