//! Counted subscriptions: of all who want a channel on one Link the first subscribes and the last unsubscribes.

use bytes::Bytes;
use hashbrown::HashMap;

use super::Ticket;

/// How often each channel is wanted.
#[derive(Debug, Default)]
pub(super) struct Channels {
    counts: HashMap<Bytes, u64>,
    /// Those that were counted up and not answered yet.
    pending: HashMap<Ticket, Bytes>,
}

/// What a count down comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Down {
    /// Nobody wants it: unsubscribe.
    Last,
    /// Somebody does, or nobody did.
    Nothing,
}

impl Channels {
    /// One more wants it, and is answered by this ticket.
    pub fn up(&mut self, channel: &[u8], ticket: Ticket) {
        let channel = match self.counts.get_key_value(channel) {
            Some((channel, _)) => channel.clone(),
            None => Bytes::copy_from_slice(channel),
        };
        *self.counts.entry(channel.clone()).or_default() += 1;
        self.pending.insert(ticket, channel);
    }

    /// What [`Channels::down`] would come to.
    pub fn would_down(&self, channel: &[u8]) -> Down {
        match self.counts.get(channel) {
            Some(1) => Down::Last,
            Some(_) | None => Down::Nothing,
        }
    }

    /// One less wants it; nothing if none did.
    pub fn down(&mut self, channel: &[u8]) -> Down {
        let down = self.would_down(channel);
        match down {
            Down::Last => {
                self.counts.remove(channel);
            }
            Down::Nothing => {
                if let Some(count) = self.counts.get_mut(channel) {
                    *count -= 1;
                }
            }
        }
        down
    }

    /// A ticket was answered. If it was refused, who asked does not want the channel any more.
    pub fn answered(&mut self, ticket: Ticket, is_done: bool) {
        if !self.pending.is_empty()
            && let Some(channel) = self.pending.remove(&ticket)
            && !is_done
        {
            self.down(&channel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_those_who_want_a_channel_unsubscribes() {
        let mut channels = Channels::default();
        assert_eq!(channels.down(b"a"), Down::Nothing, "nobody did");
        channels.up(b"a", Ticket(1));
        channels.up(b"a", Ticket(2));
        channels.up(b"b", Ticket(3));
        assert_eq!(channels.down(b"a"), Down::Nothing);
        assert_eq!(channels.would_down(b"a"), Down::Last);
        assert_eq!(channels.down(b"a"), Down::Last);
        assert_eq!(channels.down(b"a"), Down::Nothing, "nobody does");
        assert_eq!(channels.down(b"b"), Down::Last);
    }

    #[test]
    fn who_was_refused_does_not_count() {
        let mut channels = Channels::default();
        channels.up(b"a", Ticket(1));
        channels.up(b"a", Ticket(2));
        channels.answered(Ticket(1), true);
        channels.answered(Ticket(2), false);
        channels.answered(Ticket(2), false);
        assert_eq!(channels.down(b"a"), Down::Last);
        assert!(channels.counts.is_empty() && channels.pending.is_empty());
    }
}
