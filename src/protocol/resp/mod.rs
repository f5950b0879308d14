//! RESP2 and RESP3, the protocol of Redis, as a server speaks it: bytes into requests, replies and deliveries into
//! bytes.
//!
//! What it says is what Redis 7 says, to the byte where a client could look: texts of errors, their order, what is an
//! array and what a map. The texts were observed at redis-server 7.0.15; what it answered stands in the tests.
//!
//! Knows no session: how many subscriptions there are, who has given a password and which version is spoken are
//! arguments. A channel, pattern or argument is any bytes, never text.
//!
//! Invariant: what comes is either a [`Request`] that follows every rule of its command, or an error with the text of
//! Redis; and no reply has more lines than its writer meant, whatever a client put into it.

mod arguments;
mod decode;
mod delivery;
pub mod info;
mod inline;
mod number;
mod pending;
pub mod reader;
pub mod reply;
pub mod request;
#[cfg(test)]
mod transcripts;

pub use arguments::{Arguments, OwnedArguments};
pub use decode::decode;
pub use delivery::{delivery_size, encode_delivery};
pub use request::Request;

/// The version of the protocol that a connection speaks: 2 until its HELLO says 3.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Version {
    /// RESP2: a subscriber may do little else, and a map is a flat array.
    Two,
    /// RESP3: maps, nulls, and pushes that a client can tell from replies.
    Three,
}

impl Version {
    /// Its number, as HELLO and CLIENT INFO say it.
    pub fn number(self) -> u8 {
        match self {
            Version::Two => 2,
            Version::Three => 3,
        }
    }
}

/// The three ways to subscribe.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// One channel: SUBSCRIBE, `message`.
    Channel,
    /// The channels that a glob matches: PSUBSCRIBE, `pmessage`.
    Pattern,
    /// One shard channel, of a name space of its own: SSUBSCRIBE, `smessage`.
    Shard,
}

/// The two name spaces of channels.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Space {
    /// PUBLISH, PUBSUB CHANNELS, PUBSUB NUMSUB.
    Channels,
    /// SPUBLISH, PUBSUB SHARDCHANNELS, PUBSUB SHARDNUMSUB.
    Shards,
}
