//! Admission: a host is asked whether a client may come in.
//!
//! Nobody comes in unasked if the settings say so, or once any host of the broker has watched ADMIT: from then on it
//! stays so for the broker's life, on every shard, also when that host has gone (fail closed). Who can ask nobody is
//! refused at once; who gets no answer, by the handshake's deadline. Only the word of the host that was asked counts.
//!
//! Where nobody needs to be asked, the host of a client is told that it has come in, and of all that it does after that.
//! One that was asked, and watches CONNECT as well, is told when it has.

use std::sync::Arc;

use bytes::Bytes;

use crate::address::{ClientId, RemoteAddress, SessionId, ShardId};
use crate::protocol::peer::{Admitted, Arrival, PeerCommand, Watch};
use crate::protocol::{Command, Protocol};
use crate::ws::http::{self, Request};

use super::super::Shard;
use super::super::command::Wait;
use super::super::credentials::Identity;
use super::super::handshake::Verdict;
use super::super::session::State;
use super::super::settings::Admission;
use super::PeerParcel;
use super::hosting::{HostParcel, Word, is_hostable};

/// A client that comes in, or wants to: what its host is told of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Arriving {
    /// What it speaks.
    pub protocol: &'static str,
    /// The path of the request.
    pub path: String,
    /// Its query, undecoded.
    pub query: String,
    /// Its header fields, in order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// The remote address.
    pub address: String,
    /// Who it is by its token, if it showed one.
    pub user: Option<Box<str>>,
}

impl Arriving {
    fn new(
        protocol: Protocol,
        request: &Request<'_>,
        address: &RemoteAddress,
        user: Option<&Identity>,
    ) -> Arriving {
        let headers = request.headers.iter();
        Arriving {
            protocol: match protocol {
                Protocol::Native => "native",
                Protocol::Clusterws(_) => "clusterws",
                Protocol::Resp => "resp",
                Protocol::Peer => "peer",
                Protocol::Echo => "echo",
            },
            path: request.path.to_owned(),
            query: request.query.unwrap_or_default().to_owned(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
            address: address.to_string(),
            user: user.map(|user| user.name.clone()),
        }
    }

    /// In bytes.
    pub(super) fn size(&self) -> usize {
        let headers = self.headers.iter();
        size_of::<Arriving>()
            + self.path.len()
            + self.query.len()
            + self.address.len()
            + headers
                .map(|(name, value)| size_of::<(String, Vec<u8>)>() + name.len() + value.len())
                .sum::<usize>()
    }

    /// As the protocol says it.
    pub(super) fn with(&self, client: ClientId, tell: impl FnOnce(&Arrival<'_>)) {
        tell(&Arrival {
            client,
            protocol: self.protocol,
            path: self.path.as_bytes(),
            query: self.query.as_bytes(),
            headers: &self.headers,
            address: &self.address,
            user: self.user.as_deref(),
        });
    }
}

impl Shard {
    /// Does nobody come in unasked?
    pub(in super::super) fn must_ask(&self) -> bool {
        self.settings.admission == Admission::Host || self.hosts.is_closed
    }

    /// What a host is to be told of a session with this request, if there may be one.
    pub(in super::super) fn arriving(
        &self,
        protocol: Protocol,
        request: &Request<'_>,
        address: &RemoteAddress,
        user: Option<&Identity>,
    ) -> Option<Arc<Arriving>> {
        let is_told = is_hostable(protocol) && (self.must_ask() || self.hosts.is_any());
        is_told.then(|| Arc::new(Arriving::new(protocol, request, address, user)))
    }

    /// Asks a host about a session in admission, or refuses it if there is none.
    pub(in super::super) fn ask_host(&mut self, id: SessionId, arriving: Arc<Arriving>) {
        let Some(host) = self.give_to_host(id, Watch::ADMIT) else {
            return self.refuse_unasked(id);
        };
        let is_told_later = self.hosts.watches(host, Watch::CONNECT);
        if let Some(session) = self.sessions.find(id) {
            let hosted = session.hosted.get_or_insert_default();
            hosted.is_asked = true;
            hosted.arriving = is_told_later.then(|| arriving.clone());
        }
        self.tell_host(id, Word::Admit(arriving));
    }

    /// A session has a seat: it goes on to be asked about, or comes in.
    pub(in super::super) fn go_on(&mut self, id: SessionId, arriving: Option<Arc<Arriving>>) {
        let must_ask = self.must_ask();
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        match arriving {
            Some(arriving) if must_ask => self.ask_host(id, arriving),
            // There was no host yet when it came.
            None if must_ask && is_hostable(session.protocol) => self.refuse_unasked(id),
            Some(arriving) => {
                session.hosted.get_or_insert_default().arriving = Some(arriving);
                self.admit(id, Verdict::Admitted { identity: None });
            }
            None => self.admit(id, Verdict::Admitted { identity: None }),
        }
    }

    /// A session has come in: it gets its host, if it has none and there is one, and that is told.
    pub(in super::super) fn come_in(&mut self, id: SessionId) {
        let Some(session) = self.sessions.find(id) else {
            return;
        };
        let Some(hosted) = &mut session.hosted else {
            return;
        };
        let has_host = hosted.host.is_some();
        let Some(mut arriving) = hosted.arriving.take() else {
            return;
        };
        if let Some(identity) = &session.identity
            && arriving.user.is_none()
        {
            // As whom it was let in.
            Arc::make_mut(&mut arriving).user = Some(identity.name.clone());
        }
        if has_host || self.give_to_host(id, Watch::HOSTS).is_some() {
            self.tell_host(id, Word::Connect(arriving));
        } else if let Some(session) = self.sessions.find(id) {
            // It has gone meanwhile.
            session.hosted = None;
        }
    }

    /// There is nobody who could let it in.
    pub(super) fn refuse_unasked(&mut self, id: SessionId) {
        let mut answer = Vec::new();
        http::response(
            503,
            "text/plain",
            &[("Retry-After", "5")],
            b"nobody is there to let you in\n",
            &mut answer,
        );
        self.take_from_host(id);
        self.refuse(id, &answer);
    }

    /// A host's word on a client that wants to come in.
    pub(super) fn host_admits(
        &mut self,
        id: SessionId,
        client: ClientId,
        verdict: Admitted,
    ) -> Result<(), Wait> {
        if !self.is_of_this_broker(client) {
            return Ok(());
        }
        if client.shard == self.id {
            self.take_verdict((self.id, id), client.session, Some(verdict));
            return Ok(());
        }
        let parcel = PeerParcel::Host(HostParcel::Verdict {
            host: id,
            client: client.session,
            verdict: Some(verdict.clone()),
        });
        if !self.has_way(client.shard, &parcel) {
            let command = PeerCommand::Admit { client, verdict };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        self.push_peer(client.shard, parcel);
        Ok(())
    }

    /// Tells the shard of a client what came of the question to a host of this one.
    pub(super) fn send_verdict(
        &mut self,
        to: ShardId,
        host: SessionId,
        client: SessionId,
        verdict: Option<Admitted>,
    ) {
        if to == self.id {
            return self.take_verdict((to, host), client, verdict);
        }
        let parcel = HostParcel::Verdict {
            host,
            client,
            verdict,
        };
        self.send_peer(to, PeerParcel::Host(parcel));
    }

    /// The word of a host on a session of this shard. None: it can't be asked.
    pub(super) fn take_verdict(
        &mut self,
        host: (ShardId, SessionId),
        client: SessionId,
        verdict: Option<Admitted>,
    ) {
        if self.host_of(client) != Some(host) {
            return;
        }
        let Some(session) = self.sessions.find(client) else {
            return;
        };
        // It is asked once, and answers once.
        let hosted = session.hosted.as_mut();
        let is_asked = hosted.is_some_and(|hosted| std::mem::take(&mut hosted.is_asked));
        if !is_asked || !matches!(session.state, State::Admission { .. }) {
            return;
        }
        let verdict = match verdict {
            None => return self.refuse_unasked(client),
            Some(Admitted::No { reason }) => Verdict::Refused { reason },
            // Who it is by its token, it stays.
            Some(Admitted::Yes { .. }) if session.identity.is_some() => {
                Verdict::Admitted { identity: None }
            }
            Some(Admitted::Yes { user: None }) => Verdict::Admitted { identity: None },
            Some(Admitted::Yes { user: Some(user) }) => match std::str::from_utf8(&user) {
                Ok(user) => Verdict::Admitted {
                    identity: Some(Box::new(Identity::named(user))),
                },
                // Whoever that is, no rule can name it.
                Err(_) => Verdict::Refused {
                    reason: Bytes::from_static(b"the user is not UTF-8"),
                },
            },
        };
        if let Verdict::Refused { .. } = verdict {
            // It knows.
            self.take_from_host(client);
        }
        self.admit(client, verdict);
    }
}

#[cfg(test)]
mod tests;
