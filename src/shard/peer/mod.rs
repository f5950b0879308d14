//! Peers: application servers, and the Links of the broker's own process.
//!
//! A peer is a session that speaks the [peer protocol](crate::protocol::peer). What it has in common with other
//! sessions (subscriptions, publishing, requests, backpressure) it has from them. Its own are here: it has a name, which
//! is its alone in the broker (`names`); it may *host* clients (`hosting`): be asked whether they may come in and hear of
//! what they do; it puts clients into rooms and speaks to them (`rooms`); it accepts clients by tokens (`tokens`).

use bytes::Bytes;

use crate::address::{SessionId, ShardId};
use crate::error::CloseReason;
use crate::protocol::peer::reader::Reader;
use crate::protocol::peer::{PeerCommand, Watch};

use super::Shard;
use super::command::Wait;
use super::input::Read;
use super::parcel::Key;

mod enter;
mod feed;
mod hosting;
mod names;
mod rooms;
mod tokens;

pub use hosting::{HostParcel, Hosted};

/// What only a peer has.
#[derive(Debug)]
pub struct PeerSession {
    /// Bytes into frames.
    pub reader: Reader,
    /// Its name; empty until its HELLO is answered.
    pub name: Bytes,
    /// Is it in: has it said who it is, and been welcomed?
    pub is_welcome: bool,
    /// What it watches.
    pub watch: Watch,
}

/// A word from one shard to another about peers and their clients.
#[derive(Debug)]
pub enum PeerParcel {
    /// About hosts and their clients.
    Host(HostParcel),
}

impl PeerParcel {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        match self {
            PeerParcel::Host(parcel) => size_of::<PeerParcel>() + parcel.size(),
        }
    }
}

impl Shard {
    /// Carries out what only peers ask for.
    pub(super) fn carry_out_peer(
        &mut self,
        id: SessionId,
        command: PeerCommand,
    ) -> Result<(), Wait> {
        let _ = (id, command);
        Ok(())
    }

    /// Takes news of another shard's peers.
    pub(super) fn take_peer_edge(&mut self, from: ShardId, key: Key, up: bool) {
        let _ = (from, key, up);
    }

    /// Takes a word about peers.
    pub(super) fn take_peer_parcel(&mut self, from: ShardId, parcel: PeerParcel) {
        match parcel {
            PeerParcel::Host(parcel) => self.take_host_parcel(from, parcel),
        }
    }

    /// A peer that has been silent is asked whether it is there.
    pub(super) fn ping_peer(&mut self, id: SessionId) {
        let _ = id;
    }

    pub(super) fn is_peer(&mut self, id: SessionId) -> bool {
        self.sessions
            .find(id)
            .is_some_and(|session| session.peer.is_some())
    }

    /// The last words to a peer that ends for this reason.
    pub(super) fn peer_words(&mut self, reason: CloseReason, detail: &[u8]) -> Vec<u8> {
        let _ = (reason, detail);
        Vec::new()
    }

    /// A session ends: a peer, or a client that one hosts.
    pub(super) fn release_peer(&mut self, id: SessionId, reason: CloseReason) {
        let _ = (id, reason);
    }

    /// Reads one call, and carries it out; the bytes that it took.
    pub(super) fn read_call(
        &mut self,
        id: SessionId,
        reader: &mut Reader,
        input: &[u8],
    ) -> (usize, Read) {
        let _ = (id, reader, input);
        (0, Read::Part)
    }
}
