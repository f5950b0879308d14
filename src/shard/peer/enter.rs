//! How a peer comes in: it says its name and its key, and is welcomed once every shard knows it.

use crate::address::SessionId;

use super::super::Shard;

impl Shard {
    /// Did it come to a listener for peers?
    pub(in super::super) fn is_of_peers(&mut self, id: SessionId) -> bool {
        let session = self.sessions.find(id);
        session.is_some_and(|session| self.settings.listeners[usize::from(session.listener)].peers)
    }

    /// A connection has come to a listener for peers, or was dealt to this shard.
    pub(in super::super) fn enter_peer(&mut self, id: SessionId, was_dealt: bool) {
        let _ = (id, was_dealt);
    }
}
