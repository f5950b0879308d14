//! What a shard is told at its start and never changes.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use crate::address::proxies::TrustedProxies;
use crate::limits::Limits;
use crate::protocol::clusterws::Dialect;
use crate::topic::board::Board;
use crate::ws::origin::OriginRules;

use super::auth::Access;
use super::fault::Fault;
use super::slow::SlowRules;

/// One listener, as far as its connections behave differently. By default it is one for browsers that speaks
/// nothing.
#[derive(Clone, Default, Debug)]
pub struct ListenerSettings {
    /// Is RESP spoken here, and nothing else? Of what follows only `dealt` matters then.
    pub resp: bool,
    /// Do peers come here, and nobody else? Of what follows only `dealt` matters then.
    pub peers: bool,
    /// Are these the Links of the broker's own process? They need no key.
    pub in_process: bool,
    /// Where it listens, for clients that ask.
    pub address: String,
    /// Its port; 0 for a Unix socket.
    pub port: u16,
    /// Is the native protocol spoken here?
    pub native: bool,
    /// Its only path; `None`: `/` and any other path.
    pub native_path: Option<String>,
    /// What is spoken to ClusterWS clients that say nothing about it, if they are served.
    pub clusterws: Option<Dialect>,
    /// The path of ClusterWS.
    pub clusterws_path: String,
    /// The path whose messages are sent back as they came; before the paths of all protocols. No option
    /// reaches it: it is for conformance suites.
    pub echo_path: Option<String>,
    /// Does `GET /` answer with the console?
    pub http: bool,
    /// Do its clients count as dwsps peers, whose `fromPeerServer` is believed?
    pub trust_peer_flag: bool,
    /// May its clients handle services?
    pub client_services: bool,
    /// Which web pages may connect.
    pub origins: OriginRules,
    /// One shard accepts for all: a connection is dealt to the next shard in turn, before its first command.
    /// (TCP listeners exist on every shard and need no dealing.)
    pub dealt: bool,
}

/// Who decides whether a session is let in, once its handshake is complete.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    /// Nobody: it is let in.
    Open,
    /// The host, later, by `super::Shard::admit`; without its word the session is refused in time.
    Host,
}

/// Which peers may come in, of those that have the key.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptPeers {
    /// All.
    Any,
    /// Those that a Link of the broker's own process has named.
    Listed,
}

/// A token that a peer has accepted, and the id that its client shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Acceptance {
    /// The peer's name.
    pub peer: Bytes,
    /// Its name for the client.
    pub token: Bytes,
    /// What lets the client in.
    pub id: Bytes,
}

impl fmt::Debug for Acceptance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the id, which is a secret.
        write!(f, "Acceptance({:?} {:?})", self.peer, self.token)
    }
}

/// The settings of all shards of a broker.
#[derive(Clone, Debug)]
pub struct Settings {
    /// A random number below 2^48: part of every client id.
    pub broker: u64,
    /// The number of this process, for clients that ask.
    pub process_id: u32,
    /// How many shards there are.
    pub shards: usize,
    /// Bounds and timings: the broker's own, and those of sessions that have no class of their own
    /// (`Session::limits`). `outbox_total_bytes_max` is resolved (not 0).
    pub limits: Limits,
    /// Those of sessions that are echoed.
    pub echo_limits: Limits,
    /// Those of sessions that speak RESP.
    pub server_limits: Limits,
    /// Rights.
    pub access: Access,
    /// Slow-consumer policies.
    pub slow: SlowRules,
    /// By the listener's index.
    pub listeners: Vec<ListenerSettings>,
    /// Proxies whose word on who is behind them counts.
    pub trusted: TrustedProxies,
    /// Who lets sessions in.
    pub admission: Admission,
    /// Is the broker a part of another program?
    pub is_embedded: bool,
    /// Which peers may come in.
    pub accept_peers: AcceptPeers,
    /// The tokens that peers had accepted when the broker ended last.
    pub accepted: Vec<Acceptance>,
    /// What ids of accepted clients are made from; drawn at the broker's start.
    pub token_key: [u8; 32],
    /// Where the shards count what their sessions listen to, for publishers outside: in a broker that may have Links.
    pub board: Option<Arc<Board>>,
    /// The fault that tests plant.
    pub fault: Fault,
}

impl Settings {
    /// A broker of these limits that was told nothing else, and listens nowhere. All classes of sessions have the same
    /// limits.
    pub fn plain(shards: usize, limits: Limits) -> Settings {
        Settings {
            broker: 0,
            process_id: 0,
            shards,
            echo_limits: limits.clone(),
            server_limits: limits.clone(),
            limits,
            access: Access::default(),
            slow: SlowRules::default(),
            listeners: Vec::new(),
            trusted: TrustedProxies::default(),
            admission: Admission::Open,
            is_embedded: false,
            accept_peers: AcceptPeers::Any,
            accepted: Vec::new(),
            token_key: [0; 32],
            board: None,
            fault: Fault::default(),
        }
    }

    /// Do the ids that clients show mean something from the start? Where peers can come from outside, or tokens were
    /// accepted before.
    pub fn has_tokens(&self) -> bool {
        let mut listeners = self.listeners.iter();
        let from_outside = listeners.any(|listener| listener.peers && !listener.in_process);
        from_outside || !self.accepted.is_empty()
    }

    /// Does a peer's address decide anything? Then it has to be known before its first byte is looked at.
    pub fn addresses_matter(&self) -> bool {
        self.limits.per_address_max > 0 || self.trusted.has_networks()
    }
}
