//! Rooms: sets of clients that peers fill, and speak to.

use bytes::Bytes;

use crate::address::{ClientId, SessionId};
use crate::message::Payload;
use crate::protocol::Tag;
use crate::protocol::peer::Audience;

use super::super::Shard;
use super::super::command::Wait;

impl Shard {
    /// From the answer on, this client is in this room.
    pub(super) fn join_room(
        &mut self,
        id: SessionId,
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let _ = (id, client, room, tag);
        Ok(())
    }

    /// It is not any more.
    pub(super) fn leave_room(
        &mut self,
        id: SessionId,
        client: ClientId,
        room: Bytes,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let _ = (id, client, room, tag);
        Ok(())
    }

    /// An event for many clients. (For peers: the caller.)
    pub(super) fn emit_many(
        &mut self,
        id: SessionId,
        to: Audience,
        event: Bytes,
        data: Payload,
        volatile: bool,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let _ = (id, to, event, data, volatile, tag);
        Ok(())
    }
}
