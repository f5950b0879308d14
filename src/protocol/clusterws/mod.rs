//! ClusterWS: `{"#":[TYPE,NAME,DATA]}` in WebSocket messages, as its JavaScript clients 0.1.0 to 3.3.0 speak it.
//!
//! Types are `s` (`s/s` subscribe, `s/u` unsubscribe, `s/c` the configuration that the server sends first), `p`
//! (publish) and `e` (an event between one client and the application). There are no acks, no errors and no ids.
//! What a client generation changes is in its [`Dialect`], which the server has to know before the client says a
//! word. A channel is a name of any text, and matches exactly.
//!
//! Knows no session, no right and no frame; above all not whether a sender is subscribed to the channel that it
//! publishes to, which the original asks for. Data are checked and passed on as the bytes that came.
//!
//! Invariant: what a client with a binary dialect is sent is ASCII, for it reads each byte as a character.

mod array;
mod ascii;
mod decode;
mod delivery;
mod dialect;
mod encode;

pub use decode::{Decoded, decode};
pub use delivery::{delivery_size, encode_delivery};
pub use encode::{encode, encode_config};

/// Which clients: what their envelopes and heartbeats look like.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Generation {
    /// 0.1.0: the envelope's key is `m`, the heartbeat text.
    Zero,
    /// 1.0 to 2.2: the key is `#`, the heartbeat text, binary frames in binary mode (from 1.3 on).
    One,
    /// 3.0 to 3.3, all that npm still has: the key is `#`, the heartbeat one byte in a binary frame.
    Three,
}

/// Everything that changes the bytes for a client.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Dialect {
    /// The generation of the client.
    pub generation: Generation,
    /// `useBinary`, as the configuration message says: messages go as binary frames, both ways, and to the client
    /// in ASCII. What comes may be in either frame at any time: a client that reconnects sends its subscriptions
    /// before it has read the configuration.
    pub binary: bool,
}

/// What a client's [`Decoded::Ping`] is answered with, as text.
pub const PONG: &[u8] = b"#3";

impl Dialect {
    /// The dialect of a generation where the server is set to `use_binary`; [`Generation::Zero`] knows only text.
    pub fn new(generation: Generation, use_binary: bool) -> Dialect {
        let binary = match generation {
            Generation::Zero => false,
            Generation::One | Generation::Three => use_binary,
        };
        Dialect { generation, binary }
    }

    /// The key of the envelope.
    pub fn key(self) -> u8 {
        match self.generation {
            Generation::Zero => b'm',
            Generation::One | Generation::Three => b'#',
        }
    }

    /// The server's heartbeat; the client gives up after two intervals without.
    pub fn ping(self) -> &'static [u8] {
        match self.generation {
            Generation::Zero | Generation::One => b"#0",
            Generation::Three => b"9",
        }
    }

    /// Does [`Dialect::ping`] go in a binary frame? 3.x takes a `9` in a text frame for a message that is broken.
    pub fn is_ping_binary(self) -> bool {
        match self.generation {
            Generation::Zero | Generation::One => self.binary,
            Generation::Three => true,
        }
    }

    /// The client's answer to it.
    fn pong(self) -> &'static [u8] {
        match self.generation {
            Generation::Zero | Generation::One => b"#1",
            Generation::Three => b"A",
        }
    }

    /// The beginning of a message, up to its second element: `{"#":["p",`.
    fn open(self, kind: u8) -> [u8; OPEN_SIZE] {
        [
            b'{',
            b'"',
            self.key(),
            b'"',
            b':',
            b'[',
            b'"',
            kind,
            b'"',
            b',',
        ]
    }
}

const OPEN_SIZE: usize = 10;
/// The end of a message.
const CLOSE: &[u8] = b"]}";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dialects_differ_as_observed() {
        let check = |generation, use_binary, key, ping: &[u8], is_ping_binary, open: &str| {
            let dialect = Dialect::new(generation, use_binary);
            assert_eq!(dialect.key(), key);
            assert_eq!(dialect.ping(), ping);
            assert_eq!(dialect.is_ping_binary(), is_ping_binary, "{dialect:?}");
            assert_eq!(dialect.open(b'p'), open.as_bytes());
            let knows_binary = generation != Generation::Zero;
            assert_eq!(dialect.binary, use_binary && knows_binary);
        };
        for use_binary in [false, true] {
            check(
                Generation::Zero,
                use_binary,
                b'm',
                b"#0",
                false,
                r#"{"m":["p","#,
            );
            check(
                Generation::One,
                use_binary,
                b'#',
                b"#0",
                use_binary,
                r##"{"#":["p","##,
            );
            check(
                Generation::Three,
                use_binary,
                b'#',
                b"9",
                true,
                r##"{"#":["p","##,
            );
        }
    }
}
