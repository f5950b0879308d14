//! A message: what one publisher says once and any number of subscribers receive.
//!
//! The payload is opaque. It is checked where it enters and then passed on as the bytes that came; each
//! protocol writes its own envelope around it. A message is shared between shards by reference count and is
//! never changed after it was made.

use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::address::SessionId;
use crate::address::ShardId;
use crate::topic::Topic;

/// What the bytes of an argument are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// Valid JSON text.
    Json = 1,
    /// Valid UTF-8.
    Text,
    /// Any bytes.
    Binary,
}

impl Kind {
    /// JSON if the bytes are valid JSON text of allowed depth, else text if they are UTF-8, else binary: the
    /// rule for publishers that say nothing about their bytes (RESP, the admin listener).
    pub fn detect(bytes: &[u8]) -> Kind {
        if crate::protocol::json::validate(bytes).is_ok() {
            Kind::Json
        } else if simdutf8::basic::from_utf8(bytes).is_ok() {
            Kind::Text
        } else {
            Kind::Binary
        }
    }
}

/// The bytes of an argument, and what they are.
///
/// What untyped bytes are is found out when somebody asks, once for all who share them: a relay between Redis clients
/// never does. Several shards may find it out at once, and find the same; a `OnceLock`, which would have one of them wait,
/// costs a call for each payload whose kind is known.
#[derive(Debug)]
pub struct Payload {
    bytes: Bytes,
    /// A [`Kind`], or 0 as long as nobody has asked.
    kind: AtomicU8,
}

impl Payload {
    /// Bytes that are known to be valid JSON text.
    pub fn json(bytes: Bytes) -> Payload {
        Payload::of(Kind::Json, bytes)
    }

    /// Bytes that are known to be valid UTF-8.
    pub fn text(bytes: Bytes) -> Payload {
        Payload::of(Kind::Text, bytes)
    }

    /// Bytes that are to be taken for nothing else.
    pub fn binary(bytes: Bytes) -> Payload {
        Payload::of(Kind::Binary, bytes)
    }

    /// Bytes of a publisher that says nothing about them: [`Kind::detect`] decides.
    pub fn untyped(bytes: Bytes) -> Payload {
        Payload {
            bytes,
            kind: AtomicU8::new(0),
        }
    }

    fn of(kind: Kind, bytes: Bytes) -> Payload {
        Payload {
            bytes,
            kind: AtomicU8::new(kind as u8),
        }
    }

    /// What the bytes are.
    pub fn kind(&self) -> Kind {
        self.known_kind().unwrap_or_else(|| {
            let kind = Kind::detect(&self.bytes);
            self.kind.store(kind as u8, Ordering::Relaxed);
            kind
        })
    }

    /// What the bytes are, if somebody has said so or found out.
    pub fn known_kind(&self) -> Option<Kind> {
        // The bytes never change, so there is nothing that this would have to be in order with.
        let kind = self.kind.load(Ordering::Relaxed);
        let kinds = [Kind::Json, Kind::Text, Kind::Binary];
        kinds.into_iter().find(|known| kind == *known as u8)
    }

    /// The bytes, whatever they are.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Clone for Payload {
    fn clone(&self) -> Payload {
        Payload {
            bytes: self.bytes.clone(),
            kind: AtomicU8::new(self.kind.load(Ordering::Relaxed)),
        }
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Payload) -> bool {
        self.bytes == other.bytes && self.kind() == other.kind()
    }
}

impl Eq for Payload {}

/// For whom a message is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Targets {
    /// Topics: one delivery for each subscription that matches, with its context.
    pub topics: SmallVec<[Topic; 1]>,
    /// Rooms: one delivery for each session that is in any of them. Without topics and rooms: for every client.
    pub rooms: Vec<Bytes>,
    /// Rooms whose members get nothing of what goes to `rooms`.
    pub except: Vec<Bytes>,
}

/// What else the publisher asked for.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Flags {
    /// Leave the origin session out.
    pub not_to_origin: bool,
    /// May be dropped, uncounted as due, for a receiver that is not ready at once.
    pub volatile: bool,
    /// Each receiver is to answer.
    pub answer_wanted: bool,
}

/// The place of a message in its topic's history. Reserved: nothing numbers messages yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// Changes whenever the history starts anew.
    pub epoch: u64,
    /// Rises by one with each message of the topic.
    pub offset: u64,
}

/// The session that published.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Origin {
    /// Its shard.
    pub shard: ShardId,
    /// Its session there.
    pub session: SessionId,
}

/// One publication.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// For whom.
    pub targets: Targets,
    /// The event's name, where the publisher's protocol has one.
    pub event: Option<Bytes>,
    /// The argument.
    pub payload: Payload,
    /// Binary parts that `payload` refers to by placeholders.
    pub attachments: Vec<Bytes>,
    /// Who published; nobody for the admin listener.
    pub origin: Option<Origin>,
    /// What else was asked.
    pub flags: Flags,
    /// Reserved for history.
    pub position: Option<Position>,
    /// When the broker took it, in ms since 1970.
    pub unix_ms: u64,
    /// The native publisher's whole object without `context` and the closing brace, `timestamp` included, so
    /// that native subscribers get its every field; see [`crate::protocol::native`].
    pub envelope: Option<Bytes>,
}

impl Message {
    /// The bytes that this message holds, for the byte bounds of the rings.
    pub fn size(&self) -> usize {
        let name_size = |name: &Bytes| size_of::<Bytes>() + name.len();
        let names = |names: &[Bytes]| names.iter().map(name_size).sum::<usize>();
        size_of::<Message>()
            + self
                .targets
                .topics
                .iter()
                .map(|topic| topic.as_bytes().len())
                .sum::<usize>()
            + names(&self.targets.rooms)
            + names(&self.targets.except)
            + names(&self.attachments)
            + self.event.as_ref().map_or(0, Bytes::len)
            + self.payload.bytes().len()
            + self.envelope.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_untyped_bytes_are_is_found_out_and_what_is_said_is_kept() {
        let check = |bytes: &'static [u8], expected| {
            let bytes = Bytes::from_static(bytes);
            let payload = Payload::untyped(bytes.clone());
            let unasked = payload.clone();
            assert_eq!(unasked.known_kind(), None);
            for payload in [&payload, &payload, &unasked, &payload.clone()] {
                assert_eq!(payload.kind(), expected, "{bytes:?}");
                assert_eq!(payload.known_kind(), Some(expected));
            }
            assert_eq!(Payload::json(bytes.clone()).kind(), Kind::Json);
            assert_eq!(Payload::text(bytes.clone()).kind(), Kind::Text);
            assert_eq!(Payload::binary(bytes.clone()).clone().kind(), Kind::Binary);
        };
        check(b"{}", Kind::Json);
        check(b"{", Kind::Text);
        check(b"\xff", Kind::Binary);
    }
}
