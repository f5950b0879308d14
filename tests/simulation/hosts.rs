//! What peers that watch are told: of clients that come in and go, each to one host and to nobody else, and of other
//! peers.
//!
//! A peer that watches knows of everything that begins after it has read the answer. What began before it may be told of.

use std::collections::{BTreeMap, BTreeSet};

use crate::client::{Client, ClientIndex, Protocol};
use crate::oracle::{Kind, Moment, Oracle, Standing};
use crate::peer::is_hostable;

/// Everything that was told.
#[derive(Debug, Default)]
pub struct Hosts {
    /// Peers that watch, and when they read that they do.
    watching: BTreeMap<ClientIndex, Option<Moment>>,
    /// By client: its host.
    host_of: BTreeMap<ClientIndex, ClientIndex>,
    /// Clients that were said to have gone.
    gone: BTreeSet<ClientIndex>,
    /// By peer that watches, and peer: is it there?
    peers: BTreeMap<(ClientIndex, ClientIndex), bool>,
}

impl Hosts {
    /// A peer asks to be told from now on.
    pub fn watches(&mut self, peer: ClientIndex) {
        self.watching.insert(peer, None);
    }

    /// It is answered.
    pub fn is_watching(&mut self, peer: ClientIndex, moment: Moment) {
        self.watching.insert(peer, Some(moment));
    }

    /// A host is told that a client has come in; by the query of the client's request.
    pub fn connect(
        &mut self,
        host: ClientIndex,
        query: &[u8],
        oracle: &mut Oracle,
    ) -> Option<ClientIndex> {
        let query = std::str::from_utf8(query).unwrap_or_default();
        let mut fields = query.split('&');
        let client = fields.find_map(|field| field.strip_prefix("c=")?.parse::<usize>().ok());
        let Some(client) = client else {
            let text = format!("peer {host} hears of a client with {query}");
            oracle.violate(Kind::Content, text);
            return None;
        };
        if let Some(other) = self.host_of.insert(client, host) {
            let text = format!("client {client} is told to {host}, and was to {other}");
            oracle.violate(Kind::Twice, text);
        }
        Some(client)
    }

    /// It is told that a client has gone; none: one that it was not told of.
    pub fn disconnect(
        &mut self,
        host: ClientIndex,
        client: Option<ClientIndex>,
        oracle: &mut Oracle,
    ) {
        let is_known = client.is_some_and(|client| {
            self.host_of.get(&client) == Some(&host) && self.gone.insert(client)
        });
        if !is_known {
            let text = format!("peer {host} hears that client {client:?} has gone: {self:?}");
            oracle.violate(Kind::Twice, text);
        }
    }

    /// A peer is told that another has come or gone.
    pub fn peer(&mut self, watcher: ClientIndex, name: &[u8], up: bool, oracle: &mut Oracle) {
        let name = std::str::from_utf8(name).unwrap_or_default();
        let Some(peer) = name
            .strip_prefix('p')
            .and_then(|number| number.parse().ok())
        else {
            let text = format!("peer {watcher} hears of {name:?}");
            return oracle.violate(Kind::Content, text);
        };
        let before = self.peers.insert((watcher, peer), up);
        if peer == watcher || before == Some(up) {
            let text =
                format!("peer {watcher} hears that {name} is there: {up}, it was {before:?}");
            oracle.violate(Kind::Twice, text);
        }
    }

    /// May a client be closed because its host has gone?
    /// A host may not have read that it has gone itself.
    pub fn has_lost_its_host(&self, clients: &[Client], is_gone: impl Fn(&Client) -> bool) -> bool {
        let mut hosts = self.watching.keys().map(|host| &clients[*host]);
        hosts.any(|host| host.end.is_some() || host.closed.is_some() || is_gone(host))
    }

    /// What must have been told by now. `is_gone`: has the broker closed the connection of a client?
    pub fn reckon(
        &self,
        clients: &[Client],
        standings: &[Standing],
        is_gone: impl Fn(&Client) -> bool,
        oracle: &mut Oracle,
    ) {
        let is_open = |peer: ClientIndex| standings[peer] == Standing::Open;
        let all_are_open = self.watching.keys().all(|host| is_open(*host));
        let first = self.watching.values().flatten().min().copied();
        for client in clients.iter().filter(|client| client.was_let_in) {
            let index = client.index;
            match self.host_of.get(&index) {
                None if is_hostable(client.protocol)
                    && all_are_open
                    && first.is_some_and(|first| client.since > first) =>
                {
                    let text = format!("no host was told of client {index}: {self:?}");
                    oracle.violate(Kind::Missing, text);
                }
                Some(host) if is_open(*host) && is_gone(client) && !self.gone.contains(&index) => {
                    let text = format!("peer {host} was not told that client {index} has gone");
                    oracle.violate(Kind::Missing, text);
                }
                _ => {}
            }
            for (watcher, since) in &self.watching {
                let is_news = since.is_some_and(|since| client.since > since);
                if client.protocol != Protocol::Peer
                    || !is_open(*watcher)
                    || *watcher == index
                    || !is_news
                {
                    continue;
                }
                let told = self.peers.get(&(*watcher, index)).copied();
                // In between the broker may have given it up.
                let is_right = match (is_gone(client), standings[index]) {
                    (true, _) => told == Some(false),
                    (false, Standing::Open) => told == Some(true),
                    (false, Standing::Ended | Standing::CutOff) => told.is_some(),
                };
                if !is_right {
                    let text = format!("peer {watcher} was told of peer {index}: {told:?}");
                    oracle.violate(Kind::Missing, text);
                }
            }
        }
    }

    /// How many clients were told to hosts.
    pub fn sum(&self) -> u64 {
        self.host_of.len() as u64
    }
}
