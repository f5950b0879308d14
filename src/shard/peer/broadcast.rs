//! Broadcast: an event from one peer to the others, by their names.
//!
//! The pattern is read once, on the sender's shard, and matched on each shard against its own peers.

use std::sync::Arc;

use bytes::Bytes;
use regex::bytes::{Regex, RegexBuilder};

use crate::address::{Sender, SessionId, ShardSet};
use crate::error::Code;
use crate::limits::PEER_REGEX_PROGRAM_BYTES_MAX;
use crate::message::Payload;
use crate::protocol::peer::{Audience, PeerCommand, PeerPattern};
use crate::protocol::{Command, Event, Tag};

use super::super::Shard;
use super::super::command::Wait;
use super::super::parcel::Parcel;
use super::PeerParcel;

/// An event for the peers of a shard that a pattern fits.
#[derive(Clone, Debug)]
pub struct Broadcast {
    to: Names,
    event: Bytes,
    data: Payload,
    /// Not told itself.
    from: Sender,
    volatile: bool,
}

impl Broadcast {
    /// What it holds, in bytes. The expression is shared.
    pub fn size(&self) -> usize {
        self.event.len() + self.data.bytes().len()
    }
}

/// Which names.
#[derive(Clone, Debug)]
enum Names {
    All,
    One(Bytes),
    Matching(Arc<Regex>),
}

impl Names {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with the expression.
    fn read(pattern: &PeerPattern) -> Result<Names, &'static str> {
        Ok(match pattern {
            PeerPattern::All => Names::All,
            PeerPattern::Name(name) => Names::One(name.clone()),
            PeerPattern::Regex(expression) => {
                let text =
                    std::str::from_utf8(expression).map_err(|_| "the expression is no text")?;
                // Without Unicode `\d` is ten digits and not six hundred; names are compared as bytes.
                let regex = RegexBuilder::new(text)
                    .unicode(false)
                    .size_limit(PEER_REGEX_PROGRAM_BYTES_MAX)
                    .dfa_size_limit(PEER_REGEX_PROGRAM_BYTES_MAX)
                    .build()
                    .map_err(|_| "the expression is none, or too large")?;
                Names::Matching(Arc::new(regex))
            }
        })
    }

    fn fits(&self, name: &[u8]) -> bool {
        match self {
            Names::All => true,
            Names::One(one) => one == name,
            Names::Matching(regex) => regex.is_match(name),
        }
    }
}

impl Shard {
    /// A peer's event for other peers.
    pub(super) fn broadcast(
        &mut self,
        id: SessionId,
        pattern: PeerPattern,
        event: Bytes,
        data: Payload,
        volatile: bool,
        tag: Option<Tag>,
    ) -> Result<(), Wait> {
        let to = match Names::read(&pattern) {
            Ok(to) => to,
            Err(reason) => {
                self.done(id, tag.as_ref(), Err((Code::BadType, reason)));
                return Ok(());
            }
        };
        let mut shards = ShardSet::EMPTY;
        for (name, of_name) in &self.peers.remote_names {
            if to.fits(name) {
                shards = shards.union(of_name.iter().copied().collect());
            }
        }
        let broadcast = Broadcast {
            to,
            event,
            data,
            from: self.sender(id),
            volatile,
        };
        let size = size_of::<Parcel>() + size_of::<PeerParcel>() + broadcast.size();
        if !self.have_room(shards, size) {
            let command = PeerCommand::EmitMany {
                to: Audience::Peers(pattern),
                event: broadcast.event,
                data: broadcast.data,
                volatile,
                tag,
            };
            return Err(Wait::from(Command::Peer(Box::new(command))));
        }
        for shard in shards.iter() {
            let parcel = PeerParcel::Broadcast(broadcast.clone());
            self.stats.forwarded += 1;
            self.lanes.to(shard).push(Parcel::Peer(Box::new(parcel)));
        }
        self.take_broadcast(&broadcast);
        self.done(id, tag.as_ref(), Ok(Payload::binary(Bytes::new())));
        Ok(())
    }

    /// Tells the peers of this shard.
    pub(super) fn take_broadcast(&mut self, broadcast: &Broadcast) {
        let names = self.peers.names.iter();
        let ids: Vec<_> = names
            .filter(|(name, _)| broadcast.to.fits(name))
            .map(|(_, id)| *id)
            .collect();
        let from = &broadcast.from;
        for id in ids {
            let is_welcome = self.sessions.find(id).is_some_and(|one| one.is_open());
            if !is_welcome || self.client_id(id) == from.client {
                continue;
            }
            if broadcast.volatile && self.is_behind(id) {
                self.stats.volatile_dropped += 1;
                continue;
            }
            let emitted = Event::Emitted {
                event: &broadcast.event,
                data: &broadcast.data,
                from: Some(from),
            };
            self.tell(id, &emitted, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_small_and_linear() {
        let regex = |text: &str| PeerPattern::Regex(Bytes::copy_from_slice(text.as_bytes()));
        for (text, name, fits) in [
            ("^calc-", "calc-1", true),
            ("^calc-", "a-calc-1", false),
            ("p2", "p20", true),
            (r"^p\d+$", "p20", true),
            ("^(?i)WEB", "web-3", true),
            ("é", "café", true),
            ("", "anybody", true),
            // Exponential where it is tried by backtracking.
            ("^(a+)+$", &"a".repeat(250), true),
            ("^(a+)+$", &format!("{}b", "a".repeat(250)), false),
        ] {
            let names = Names::read(&regex(text)).unwrap();
            assert_eq!(names.fits(name.as_bytes()), fits, "{text} {name}");
        }
        for text in ["(", "a{1000}{1000}", "(?<=a)b", r"(a)\1"] {
            assert!(Names::read(&regex(text)).is_err(), "{text}");
        }
    }
}
