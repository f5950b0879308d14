//! Hosts: peers that are asked whether clients may come in, and hear of what they do.

use crate::address::ClientId;

/// What only a client has that a peer hosts, or has accepted.
#[derive(Debug)]
pub struct Hosted {
    /// The peer, for life.
    pub host: Option<ClientId>,
}
