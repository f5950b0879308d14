//! Tokens: clients that a peer has accepted, and the ids that they show.
//!
//! A peer *accepts* a token, a name of its own for a client, and gets an id for it, or gives one. A client that connects
//! with that id (`?id=`) is let in, and is the token's client: the peer is told, and can speak to it by the token. Of two
//! clients with one id the newer stays. *Rejecting* the token ends its client, and lets nobody in by that id any more.
//! Whoever shows an id that nobody has accepted gets in for as long as it takes to tell it. Where peers can't come from
//! outside, ids mean nothing before a token has been accepted: they may be anything of an application's own.
//!
//! The registrar keeps the list, by the peers' names, so it outlives their connections; what changes of it is an effect,
//! so that the edge can keep it longer. A client that shows an id waits in admission for the registrar's word. It says when
//! it is open, and only then the peer is told: what the peer then says to it reaches it.
//!
//! Invariant: each token of each peer has one id, each id one token; both tables of the list have the same entries.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use crate::address::{ClientId, SessionId, ShardId};
use crate::error::{CloseReason, Code};
use crate::limits::{ACCEPTED_MAX, ACCEPTED_PER_PEER_MAX, NAME_BYTES_MAX};
use crate::message::Payload;
use crate::protocol::peer::{PeerCommand, PeerEvent, tag_ticket, ticket_tag};
use crate::protocol::{Command, Event};
use crate::ws::http::Request;

use super::super::command::Wait;
use super::super::handshake::Verdict;
use super::super::parcel::Key;
use super::super::session::State;
use super::super::settings::Acceptance;
use super::super::{Effect, Shard};
use super::names::Place;
use super::{PeerParcel, REGISTRAR};

/// The event that says to a client that its token is not, or no longer, accepted; as PubSub.js has it.
const TERMINATION: &[u8] = b"termination";
const TERMINATION_REASON: &[u8] = b"forced disconnection";
const TERMINATION_DATA: &[u8] = br#"{"data":"forced disconnection"}"#;
/// How many clients one word to a peer's shard names, so that it fits beside others.
const WORD_CLIENTS_MAX: usize = 256;

/// What registrar and shards tell each other of tokens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenWord {
    /// To the registrar: this peer accepts a token.
    Accept {
        peer: Bytes,
        token: Bytes,
        id: Option<Bytes>,
        caller: SessionId,
        ticket: u64,
    },
    /// To the registrar: it does no more.
    Reject {
        peer: Bytes,
        token: Bytes,
        caller: SessionId,
        ticket: u64,
    },
    /// From the registrar: the answer; of Accept with the id.
    Done {
        caller: SessionId,
        ticket: u64,
        result: Result<Bytes, (Code, &'static str)>,
    },
    /// To the registrar: a client shows this id.
    Show { id: Bytes, session: SessionId },
    /// From the registrar: it may come in, or may not.
    Shown { session: SessionId, is_known: bool },
    /// To the registrar: it is in.
    In { id: Bytes, session: SessionId },
    /// To the registrar: it has gone.
    Gone { id: Bytes, session: SessionId },
    /// From the registrar: end this client.
    Terminate { session: SessionId },
    /// From the registrar: clients of your peer that are in, by their tokens.
    Up {
        owner: SessionId,
        clients: Vec<(Bytes, ClientId)>,
    },
    /// From the registrar: one has gone.
    Down {
        owner: SessionId,
        token: Bytes,
        client: ClientId,
    },
    /// From the registrar: the token is accepted no more.
    Rejected { owner: SessionId, token: Bytes },
}

impl TokenWord {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        match self {
            TokenWord::Accept {
                peer, token, id, ..
            } => peer.len() + token.len() + id.as_ref().map_or(0, Bytes::len),
            TokenWord::Reject { peer, token, .. } => peer.len() + token.len(),
            TokenWord::Done { result, .. } => result.as_ref().map_or(0, Bytes::len),
            TokenWord::Show { id, .. } | TokenWord::In { id, .. } | TokenWord::Gone { id, .. } => {
                id.len()
            }
            TokenWord::Down { token, .. } | TokenWord::Rejected { token, .. } => token.len(),
            TokenWord::Up { clients, .. } => {
                let names = clients.iter().map(|(token, _)| token.len());
                names.sum::<usize>() + clients.len() * size_of::<(Bytes, ClientId)>()
            }
            TokenWord::Shown { .. } | TokenWord::Terminate { .. } => 0,
        }
    }
}

/// What changes of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TokenChange {
    /// This has come to it.
    Accepted(Acceptance),
    /// This is on it no more.
    Rejected { peer: Bytes, token: Bytes },
}

/// The id that a client has shown.
#[derive(Debug)]
pub struct ShownId {
    id: Bytes,
    /// Has the registrar been asked?
    is_asked: bool,
}

/// A token that a peer has accepted.
#[derive(Debug)]
struct Accepted {
    peer: Bytes,
    token: Bytes,
    /// Who has shown its id last, if it is not gone.
    client: Option<Place>,
    /// Is that one in?
    is_in: bool,
}

/// The tokens that peers have accepted.
#[derive(Default)]
pub struct Tokens {
    by_id: HashMap<Bytes, Accepted, RandomState>,
    /// The ids by peer and token. In order, as everything that is told one by one.
    by_peer: BTreeMap<Bytes, BTreeMap<Bytes, Bytes>>,
    /// Ids made so far.
    made: u64,
    /// May the list not change now?
    is_held: bool,
    /// Answers that wait until every shard knows that ids mean something.
    answers: VecDeque<(ShardId, TokenWord)>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The ids are secrets.
        write!(f, "Tokens({})", self.by_id.len())
    }
}

impl Tokens {
    /// A list as it was kept.
    pub fn restore(&mut self, list: &[Acceptance]) {
        for Acceptance { peer, token, id } in list {
            self.insert(peer.clone(), token.clone(), id.clone());
        }
    }

    /// Do answers wait?
    pub fn has_answers(&self) -> bool {
        !self.answers.is_empty()
    }

    /// How many have a client. Of the rest nothing is left of anybody.
    pub fn clients(&self) -> usize {
        let accepted = self.by_id.values();
        accepted.filter(|one| one.client.is_some()).count()
    }

    fn insert(&mut self, peer: Bytes, token: Bytes, id: Bytes) {
        let of_peer = self.by_peer.entry(peer.clone()).or_default();
        of_peer.insert(token.clone(), id.clone());
        let accepted = Accepted {
            peer,
            token,
            client: None,
            is_in: false,
        };
        self.by_id.insert(id, accepted);
    }

    fn remove(&mut self, peer: &Bytes, token: &Bytes) -> Option<Accepted> {
        let of_peer = self.by_peer.get_mut(peer)?;
        let id = of_peer.remove(token)?;
        if of_peer.is_empty() {
            self.by_peer.remove(peer);
        }
        self.by_id.remove(&id)
    }

    /// The id of a token, and whether it is new.
    fn accept(
        &mut self,
        peer: &Bytes,
        token: &Bytes,
        wanted: Option<Bytes>,
        key: &[u8; 32],
    ) -> Result<(Bytes, bool), (Code, &'static str)> {
        let of_peer = self.by_peer.get(peer);
        if let Some(id) = of_peer.and_then(|tokens| tokens.get(token)) {
            return match wanted {
                Some(wanted) if wanted != *id => {
                    Err((Code::NotAllowed, "this token is accepted with another id"))
                }
                _ => Ok((id.clone(), false)),
            };
        }
        let count = of_peer.map_or(0, BTreeMap::len);
        if count >= ACCEPTED_PER_PEER_MAX || self.by_id.len() >= ACCEPTED_MAX {
            return Err((Code::Limit, "as many tokens are accepted as may be"));
        }
        let id = match wanted {
            Some(id) if self.by_id.contains_key(&id) => {
                return Err((Code::NotAllowed, "this id is another token's"));
            }
            Some(id) => id,
            None => self.make_id(key),
        };
        self.insert(peer.clone(), token.clone(), id.clone());
        Ok((id, true))
    }

    /// An id that nobody can guess who does not know the key: 40 hexadecimal digits.
    fn make_id(&mut self, key: &[u8; 32]) -> Bytes {
        loop {
            self.made += 1;
            let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any length is a key");
            mac.update(&self.made.to_be_bytes());
            let digest = mac.finalize().into_bytes();
            let digit = |nibble: u8| char::from_digit(nibble.into(), 16).expect("below 16");
            let nibbles = digest[..20].iter().flat_map(|byte| [byte >> 4, byte & 15]);
            let id = Bytes::from(nibbles.map(digit).collect::<String>());
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }
}

impl Shard {
    /// A peer accepts a token, or rejects it. Its answer is the registrar's.
    pub(super) fn rule_token(&mut self, id: SessionId, command: PeerCommand) -> Result<(), Wait> {
        let session = self.sessions.find(id);
        let Some(peer) = session.and_then(|session| session.peer.as_ref()) else {
            return Ok(());
        };
        let (peer, caller) = (peer.name.clone(), id);
        let word = PeerParcel::Token(match &command {
            PeerCommand::Accept { token, id, tag } => TokenWord::Accept {
                peer,
                token: token.clone(),
                id: id.clone(),
                caller,
                ticket: tag_ticket(tag.as_ref()),
            },
            PeerCommand::Reject { token, tag } => TokenWord::Reject {
                peer,
                token: token.clone(),
                caller,
                ticket: tag_ticket(tag.as_ref()),
            },
            _ => return Ok(()),
        });
        if !self.has_way(REGISTRAR, &word) {
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.push_peer(REGISTRAR, word);
        Ok(())
    }

    /// Accept and reject no more, or again: what changed before is still to be written.
    pub fn hold_tokens(&mut self, is_held: bool) {
        self.peers.tokens.is_held = is_held;
    }

    pub(super) fn take_token_word(&mut self, from: ShardId, word: TokenWord) {
        let at = |session| Place {
            shard: from,
            session,
        };
        match word {
            TokenWord::Accept { caller, ticket, .. } | TokenWord::Reject { caller, ticket, .. }
                if self.peers.tokens.is_held =>
            {
                let result = Err((Code::Busy, "what was accepted before is not written yet"));
                self.send_token(
                    from,
                    TokenWord::Done {
                        caller,
                        ticket,
                        result,
                    },
                );
            }
            TokenWord::Accept {
                peer,
                token,
                id,
                caller,
                ticket,
            } => {
                let tokens = &mut self.peers.tokens;
                let result = tokens.accept(&peer, &token, id, &self.settings.token_key);
                if let Ok((id, true)) = &result {
                    let id = id.clone();
                    let accepted = Acceptance { peer, token, id };
                    let change = TokenChange::Accepted(accepted);
                    self.effects.push(Effect::Tokens(change));
                }
                let result = result.map(|(id, _)| id);
                let done = TokenWord::Done {
                    caller,
                    ticket,
                    result,
                };
                self.use_tokens();
                self.peers.tokens.answers.push_back((from, done));
                self.flush_answers();
            }
            TokenWord::Reject {
                peer,
                token,
                caller,
                ticket,
            } => {
                if let Some(accepted) = self.peers.tokens.remove(&peer, &token) {
                    self.terminate_client_of(&accepted);
                    let token = token.clone();
                    let change = TokenChange::Rejected { peer, token };
                    self.effects.push(Effect::Tokens(change));
                }
                self.send_token(
                    from,
                    TokenWord::Rejected {
                        owner: caller,
                        token,
                    },
                );
                self.send_token(
                    from,
                    TokenWord::Done {
                        caller,
                        ticket,
                        result: Ok(Bytes::new()),
                    },
                );
            }
            TokenWord::Done {
                caller,
                ticket,
                result,
            } => {
                let result = result.map(Payload::text);
                self.done(caller, ticket_tag(ticket).as_ref(), result);
            }
            TokenWord::Show { id, session } => self.show(&id, at(session)),
            TokenWord::Shown { session, is_known } => self.shown(session, is_known),
            TokenWord::In { id, session } => {
                let accepted = self.peers.tokens.by_id.get_mut(&id);
                let accepted = accepted.filter(|one| one.client == Some(at(session)));
                if let Some(accepted) = accepted {
                    accepted.is_in = true;
                    let (peer, token) = (accepted.peer.clone(), accepted.token.clone());
                    self.tell_owner(&peer, |shard, owner| TokenWord::Up {
                        owner,
                        clients: vec![(token, shard.client_at(at(session)))],
                    });
                }
            }
            TokenWord::Gone { id, session } => {
                let accepted = self.peers.tokens.by_id.get_mut(&id);
                let accepted = accepted.filter(|one| one.client == Some(at(session)));
                if let Some(accepted) = accepted {
                    accepted.client = None;
                    let was_in = std::mem::take(&mut accepted.is_in);
                    let (peer, token) = (accepted.peer.clone(), accepted.token.clone());
                    if was_in {
                        self.tell_owner_down(&peer, token, at(session));
                    }
                }
            }
            TokenWord::Terminate { session } => self.terminate(session),
            TokenWord::Up { owner, clients } => {
                for (token, client) in clients {
                    self.token_up(owner, token, client);
                }
            }
            TokenWord::Down {
                owner,
                token,
                client,
            } => self.token_down(owner, &token, client),
            TokenWord::Rejected { owner, token } => {
                let rejected = PeerEvent::TokenRejected { token: &token };
                self.tell(owner, &Event::Peer(&rejected), false);
            }
        }
    }

    /// From now on ids mean something on every shard.
    fn use_tokens(&mut self) {
        if !self.settings.has_tokens() && !self.peers.has_tokens {
            self.peers.has_tokens = true;
            self.interest.add(&Key::Tokens);
            self.announce();
        }
    }

    /// Answers those who have accepted something: who shows an id after that is looked for on every shard.
    pub(super) fn flush_answers(&mut self) {
        if self.settings.has_tokens() || self.interest.is_announced(&Key::Tokens) {
            while let Some((to, done)) = self.peers.tokens.answers.pop_front() {
                self.send_token(to, done);
            }
        }
    }

    fn send_token(&mut self, to: ShardId, word: TokenWord) {
        self.send_peer(to, PeerParcel::Token(word));
    }

    fn client_at(&self, place: Place) -> ClientId {
        ClientId {
            broker: self.settings.broker,
            shard: place.shard,
            session: place.session,
        }
    }

    /// Tells a peer something, if it is there.
    fn tell_owner(&mut self, peer: &Bytes, word: impl FnOnce(&Shard, SessionId) -> TokenWord) {
        if let Some(Place { shard, session }) = self.peers.registrar.holder(peer) {
            let word = word(self, session);
            self.send_token(shard, word);
        }
    }

    fn tell_owner_down(&mut self, peer: &Bytes, token: Bytes, client: Place) {
        self.tell_owner(peer, |shard, owner| TokenWord::Down {
            owner,
            token,
            client: shard.client_at(client),
        });
    }

    /// Ends the client that a token has.
    fn terminate_client_of(&mut self, accepted: &Accepted) {
        let Some(client @ Place { shard, session }) = accepted.client else {
            return;
        };
        self.send_token(shard, TokenWord::Terminate { session });
        if accepted.is_in {
            self.tell_owner_down(&accepted.peer, accepted.token.clone(), client);
        }
    }

    /// A client shows an id. It takes the place of one that has it.
    fn show(&mut self, id: &Bytes, client: Place) {
        let mut former = None;
        let accepted = self.peers.tokens.by_id.get_mut(id);
        let is_known = accepted.is_some();
        if let Some(accepted) = accepted {
            former = Some(Accepted {
                peer: accepted.peer.clone(),
                token: accepted.token.clone(),
                client: accepted.client.replace(client),
                is_in: std::mem::take(&mut accepted.is_in),
            });
        }
        if let Some(former) = former {
            self.terminate_client_of(&former);
        }
        let Place { shard, session } = client;
        self.send_token(shard, TokenWord::Shown { session, is_known });
    }

    /// A peer of this name has come: it is told which of its clients are there.
    pub(super) fn tell_clients_of(&mut self, peer: &Bytes, owner: Place) {
        let tokens = &self.peers.tokens;
        let Some(of_peer) = tokens.by_peer.get(peer) else {
            return;
        };
        let there: Vec<_> = of_peer
            .iter()
            .filter_map(|(token, id)| {
                let accepted = tokens.by_id.get(id).filter(|one| one.is_in)?;
                Some((token.clone(), self.client_at(accepted.client?)))
            })
            .collect();
        for clients in there.chunks(WORD_CLIENTS_MAX) {
            let up = TokenWord::Up {
                owner: owner.session,
                clients: clients.to_vec(),
            };
            self.send_token(owner.shard, up);
        }
    }

    /// A client of a peer of this shard is in.
    fn token_up(&mut self, owner: SessionId, token: Bytes, client: ClientId) {
        let session = self.sessions.find(owner);
        let Some(peer) = session.and_then(|session| session.peer.as_mut()) else {
            return;
        };
        peer.tokens.insert(token.clone(), client);
        if peer.is_welcome {
            let up = PeerEvent::TokenUp {
                token: &token,
                client,
            };
            self.tell(owner, &Event::Peer(&up), false);
        }
    }

    /// What has come for a peer before it was welcome.
    pub(super) fn tell_tokens(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let Some(peer) = session.and_then(|session| session.peer.as_ref()) else {
            return;
        };
        for (token, client) in peer.tokens.clone() {
            let up = PeerEvent::TokenUp {
                token: &token,
                client,
            };
            self.tell(id, &Event::Peer(&up), false);
        }
    }

    fn token_down(&mut self, owner: SessionId, token: &Bytes, client: ClientId) {
        let session = self.sessions.find(owner);
        let Some(peer) = session.and_then(|session| session.peer.as_mut()) else {
            return;
        };
        if peer.tokens.get(token) == Some(&client) {
            peer.tokens.remove(token);
        }
        if peer.is_welcome {
            let down = PeerEvent::TokenDown { token, client };
            self.tell(owner, &Event::Peer(&down), false);
        }
    }

    /// The client that a peer has accepted by this token, if it is in.
    pub(in super::super) fn client_of_token(
        &mut self,
        id: SessionId,
        token: &Bytes,
    ) -> Option<ClientId> {
        let peer = self.sessions.find(id)?.peer.as_ref()?;
        peer.tokens.get(token).copied()
    }

    /// Remembers the id that a request head shows, where ids mean something.
    pub(in super::super) fn note_id(&mut self, id: SessionId, request: &Request<'_>) {
        if !self.settings.has_tokens() && !self.peers.has_tokens {
            return;
        }
        let Some(shown) = request.query_value("id").filter(|shown| !shown.is_empty()) else {
            return;
        };
        // A longer one is nobody's, and no better than this one.
        let shown = &shown[..shown.len().min(NAME_BYTES_MAX + 1)];
        let id_shown = ShownId {
            id: Bytes::copy_from_slice(shown),
            is_asked: false,
        };
        if let Some(session) = self.sessions.find(id) {
            session.hosted.get_or_insert_default().shown = Some(Box::new(id_shown));
        }
    }

    /// Has this session an id to show that it has not shown?
    pub(in super::super) fn has_id_to_show(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        let hosted = session.and_then(|session| session.hosted.as_ref());
        let shown = hosted.and_then(|hosted| hosted.shown.as_ref());
        shown.is_some_and(|shown| !shown.is_asked)
    }

    /// Asks the registrar about the id that a session in admission shows.
    pub(in super::super) fn show_id(&mut self, id: SessionId) {
        let session = self.sessions.find(id);
        let hosted = session.and_then(|session| session.hosted.as_mut());
        if let Some(shown) = hosted.and_then(|hosted| hosted.shown.as_mut()) {
            shown.is_asked = true;
            let id_shown = shown.id.clone();
            self.send_token(
                REGISTRAR,
                TokenWord::Show {
                    id: id_shown,
                    session: id,
                },
            );
        }
    }

    /// The registrar's word on it.
    fn shown(&mut self, id: SessionId, is_known: bool) {
        let session = self.sessions.find(id);
        if !session.is_some_and(|session| matches!(session.state, State::Admission { .. })) {
            return;
        }
        if !is_known {
            // It is none of the registrar's, and its host, if it has one, has nothing of it.
            if let Some(hosted) = self.sessions.find(id).and_then(|one| one.hosted.as_mut()) {
                hosted.shown = None;
                hosted.arriving = None;
            }
        }
        self.admit(id, Verdict::Admitted { identity: None });
        if !is_known {
            self.terminate(id);
        } else if let Some(id_shown) = self.id_of(id) {
            self.send_token(
                REGISTRAR,
                TokenWord::In {
                    id: id_shown,
                    session: id,
                },
            );
        }
    }

    /// The id of a session that is open, or has been asked about.
    fn id_of(&mut self, id: SessionId) -> Option<Bytes> {
        let session = self.sessions.find(id).filter(|one| !one.is_ending())?;
        let shown = session.hosted.as_ref()?.shown.as_ref()?;
        shown.is_asked.then(|| shown.id.clone())
    }

    /// Ends a client that its peer does not, or no longer, accept.
    fn terminate(&mut self, id: SessionId) {
        if !self.sessions.find(id).is_some_and(|one| one.is_open()) {
            // It is still on its way in, if it is there at all.
            let reason = Bytes::from_static(TERMINATION_REASON);
            return self.admit(id, Verdict::Refused { reason });
        }
        let termination = Event::Emitted {
            event: TERMINATION,
            data: &Payload::json(Bytes::from_static(TERMINATION_DATA)),
            from: None,
        };
        self.tell(id, &termination, false);
        self.close(id, CloseReason::Terminated);
    }

    /// A session ends: a token has no client any more.
    pub(super) fn release_token(&mut self, id: SessionId) {
        if let Some(id_shown) = self.id_of(id) {
            let gone = TokenWord::Gone {
                id: id_shown,
                session: id,
            };
            self.send_token(REGISTRAR, gone);
        }
    }
}

#[cfg(test)]
mod tests;
