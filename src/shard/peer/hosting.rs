//! Hosts: peers that are asked whether clients may come in, and hear of what they do.

use bytes::Bytes;

use crate::address::{ClientId, SessionId, ShardId};
use crate::protocol::Tag;
use crate::protocol::peer::{Admitted, Watch};

use super::super::Shard;
use super::super::command::Wait;

/// What only a client has that a peer hosts, or has accepted.
#[derive(Default, Debug)]
pub struct Hosted {
    /// The peer, for life.
    pub host: Option<ClientId>,
    /// The id that it has shown, if it has.
    pub shown: Option<Box<super::ShownId>>,
}

/// A word from one shard to another about hosts and their clients.
#[derive(Debug)]
pub enum HostParcel {}

impl HostParcel {
    /// What it holds, in bytes.
    pub fn size(&self) -> usize {
        match *self {}
    }
}

impl Shard {
    /// From the answer on, this peer is told of this, and of nothing else.
    pub(super) fn watch(
        &mut self,
        id: SessionId,
        mask: Watch,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let _ = (id, mask, tag);
        Ok(())
    }

    /// A host's word on a client that wants to come in.
    pub(super) fn host_admits(
        &mut self,
        id: SessionId,
        client: ClientId,
        verdict: Admitted,
    ) -> Result<(), Wait> {
        let _ = (id, client, verdict);
        Ok(())
    }

    /// Closes a client's connection with this code and reason.
    pub(super) fn disconnect_client(
        &mut self,
        id: SessionId,
        client: ClientId,
        code: u16,
        reason: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let _ = (id, client, code, reason, tag);
        Ok(())
    }

    /// Takes another shard's word about hosts and their clients.
    pub(super) fn take_host_parcel(&mut self, from: ShardId, parcel: HostParcel) {
        let _ = from;
        match parcel {}
    }
}
