//! Who a message can be for: a topic, a service, a peer, or one client.
//!
//! The four kinds are types, so no name or pattern that a client writes can reach the last three by accident.
//! A client id carries broker, shard and session, and is routed by these numbers, without interest tables.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;

use crate::limits::NAME_BYTES_MAX;
use crate::topic::Topic;

pub mod proxies;

/// The most shards of one broker; the width of [`ShardSet`].
pub const SHARDS_MAX: usize = 128;

/// The index of a shard in its broker, below [`SHARDS_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u8);

impl ShardId {
    /// As an index into per-shard tables.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of shards, one bit each.
///
/// In halves: a `u128` is aligned to 16 bytes, which costs every entry of the interest and every remote filter up to
/// 15 of them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default, Debug)]
pub struct ShardSet([u64; 2]);

impl ShardSet {
    /// No shard at all.
    pub const EMPTY: ShardSet = ShardSet([0; 2]);

    /// The shards `0..count`.
    pub fn first(count: usize) -> ShardSet {
        assert!(count <= SHARDS_MAX, "{count} shards do not fit a ShardSet");
        (0..count).map(|index| ShardId(index as u8)).collect()
    }

    /// Adds a shard; true if it was not there.
    pub fn insert(&mut self, shard: ShardId) -> bool {
        let before = *self;
        *self = ShardSet::of(self.bits() | 1 << shard.0);
        *self != before
    }

    /// Takes a shard out; true if it was there.
    pub fn remove(&mut self, shard: ShardId) -> bool {
        let before = *self;
        *self = ShardSet::of(self.bits() & !(1 << shard.0));
        *self != before
    }

    /// Is this shard in the set?
    pub fn contains(self, shard: ShardId) -> bool {
        self.bits() & (1 << shard.0) != 0
    }

    /// Are all shards of `other` in this set?
    pub fn is_superset(self, other: ShardSet) -> bool {
        other.bits() & !self.bits() == 0
    }

    /// The shards of either set.
    pub fn union(self, other: ShardSet) -> ShardSet {
        ShardSet::of(self.bits() | other.bits())
    }

    /// True if no shard is in the set.
    pub fn is_empty(self) -> bool {
        self == ShardSet::EMPTY
    }

    /// How many shards are in the set.
    pub fn len(self) -> usize {
        self.bits().count_ones() as usize
    }

    /// The shards in rising order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        let mut rest = self.bits();
        std::iter::from_fn(move || {
            (rest != 0).then(|| {
                let index = rest.trailing_zeros() as u8;
                rest &= rest - 1;
                ShardId(index)
            })
        })
    }

    fn bits(self) -> u128 {
        let [low, high] = self.0;
        u128::from(high) << 64 | u128::from(low)
    }

    fn of(bits: u128) -> ShardSet {
        ShardSet([bits as u64, (bits >> 64) as u64])
    }
}

impl FromIterator<ShardId> for ShardSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> ShardSet {
        let mut set = ShardSet::EMPTY;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

/// The slots from here on are those of Links, which have no connection of the driver's.
pub const LINK_SLOTS: u32 = 1 << 31;

/// A session within its shard: a slot, and the generation of that slot, so that a late word about an earlier
/// session of the same slot finds nobody.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId {
    /// The index in the shard's (and the driver's) table.
    pub slot: u32,
    /// How often the slot has been used before.
    pub generation: u32,
}

/// A client of any shard of any broker: what `whoami` answers and what `"to":"client:..."` names.
///
/// On the wire it is 20 characters of base64url: 6 bytes broker, 1 byte shard, 4 bytes slot, 4 bytes generation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ClientId {
    /// The broker, a random number below 2^48 drawn at its start.
    pub broker: u64,
    /// The shard that the session lives on.
    pub shard: ShardId,
    /// The session there.
    pub session: SessionId,
}

impl ClientId {
    /// The length of the written form, in bytes.
    pub const WRITTEN_SIZE: usize = 20;

    /// What the written form is made of.
    pub fn to_bytes(self) -> [u8; 15] {
        let mut raw = [0; 15];
        raw[..6].copy_from_slice(&self.broker.to_be_bytes()[2..]);
        raw[6] = self.shard.0;
        raw[7..11].copy_from_slice(&self.session.slot.to_be_bytes());
        raw[11..].copy_from_slice(&self.session.generation.to_be_bytes());
        raw
    }

    /// The client of these bytes; none if they name a shard that no broker has.
    pub fn from_bytes(raw: [u8; 15]) -> Option<ClientId> {
        if usize::from(raw[6]) >= SHARDS_MAX {
            return None;
        }
        let word = |at: usize| u32::from_be_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        Some(ClientId {
            broker: u64::from(word(0)) << 16 | u64::from(raw[4]) << 8 | u64::from(raw[5]),
            shard: ShardId(raw[6]),
            session: SessionId {
                slot: word(7),
                generation: word(11),
            },
        })
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.to_bytes()))
    }
}

/// The text is not 20 characters of base64url that name a possible shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotAClientId;

impl fmt::Display for NotAClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a client id")
    }
}

impl std::error::Error for NotAClientId {}

impl FromStr for ClientId {
    type Err = NotAClientId;

    fn from_str(text: &str) -> Result<ClientId, NotAClientId> {
        let mut raw = [0; 15];
        match URL_SAFE_NO_PAD.decode_slice(text, &mut raw) {
            Ok(15) => {}
            _ => return Err(NotAClientId),
        }
        ClientId::from_bytes(raw).ok_or(NotAClientId)
    }
}

/// The remote address of a connection, for operators: learned some time after it was accepted, or never.
///
/// Every connection has one for its whole life, so it is packed: one allocation of 48 bytes unless it is text. What a
/// proxy tells of its client takes the place of the proxy's own; it may lack the port, which is 0 then.
#[derive(Clone, Default, Debug)]
pub struct RemoteAddress(Arc<OnceLock<Remote>>);

#[derive(Debug)]
enum Remote {
    V4(SocketAddrV4),
    /// Without the flow label, which nobody writes.
    V6 {
        ip: [u8; 16],
        scope: u32,
        port: u16,
    },
    /// A Unix socket has no address that says anything.
    Unix,
    Text(Box<str>),
}

impl RemoteAddress {
    /// An address that is known.
    pub fn known(text: &str) -> RemoteAddress {
        let address = RemoteAddress::default();
        address.learn(text.into());
        address
    }

    /// An address that is known; the port may be 0 for one that nobody said.
    pub fn at(address: SocketAddr) -> RemoteAddress {
        let known = RemoteAddress::default();
        known.learn_ip(address);
        known
    }

    /// A Unix socket's.
    pub fn unix() -> RemoteAddress {
        let known = RemoteAddress::default();
        known.learn_unix();
        known
    }

    /// Now it is known, as text. The first word counts.
    pub fn learn(&self, text: Box<str>) {
        let _ = self.0.set(Remote::Text(text));
    }

    /// Now it is known. The first word counts.
    pub fn learn_ip(&self, address: SocketAddr) {
        let _ = self.0.set(match address {
            SocketAddr::V4(address) => Remote::V4(address),
            SocketAddr::V6(address) => Remote::V6 {
                ip: address.ip().octets(),
                scope: address.scope_id(),
                port: address.port(),
            },
        });
    }

    /// It is a Unix socket. The first word counts.
    pub fn learn_unix(&self) {
        let _ = self.0.set(Remote::Unix);
    }

    /// Has it been learned?
    pub fn is_known(&self) -> bool {
        self.0.get().is_some()
    }

    /// Is it known to be a Unix socket?
    pub fn is_unix(&self) -> bool {
        matches!(self.0.get(), Some(Remote::Unix))
    }

    /// The IP address, if it is known and there is one.
    pub fn ip(&self) -> Option<IpAddr> {
        match self.0.get()? {
            Remote::V4(address) => Some(IpAddr::V4(*address.ip())),
            Remote::V6 { ip, .. } => Some(IpAddr::V6((*ip).into())),
            Remote::Unix | Remote::Text(_) => None,
        }
    }
}

/// What counts as one address where addresses are counted: an IPv6 address is its /64, since who has one has them all.
pub fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(ip) => IpAddr::V4(ip),
        IpAddr::V6(ip) => IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() >> 64 << 64)),
    }
}

impl fmt::Display for RemoteAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get() {
            Some(Remote::V4(address)) if address.port() == 0 => address.ip().fmt(f),
            Some(Remote::V4(address)) => address.fmt(f),
            Some(&Remote::V6 { ip, port: 0, .. }) => Ipv6Addr::from(ip).fmt(f),
            Some(&Remote::V6 { ip, scope, port }) => {
                SocketAddrV6::new(ip.into(), port, 0, scope).fmt(f)
            }
            Some(Remote::Unix) => f.write_str("unix"),
            Some(Remote::Text(text)) => f.write_str(text),
            None => f.write_str("unknown"),
        }
    }
}

/// Where a command or a message goes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Address {
    /// Everybody whose filter matches.
    Topic(Topic),
    /// One session that handles this event; the sender's shard picks it.
    Service(Bytes),
    /// A Link of the broker's own process that handles this event.
    Master(Bytes),
    /// A peer from outside the broker's process that handles this event, not the sender itself.
    AnyPeer(Bytes),
    /// An application server, by the name it gave when it connected.
    Peer(Bytes),
    /// One client, by number.
    Client(ClientId),
    /// The client that the sender, a peer, has accepted by this token.
    Token(Bytes),
}

/// Is this a name for an event, a service or a peer: text of 1 to [`NAME_BYTES_MAX`] bytes without control characters?
pub fn is_name(name: &[u8]) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len())
        && std::str::from_utf8(name).is_ok_and(|name| !name.contains(char::is_control))
}

/// Who asks, or says something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sender {
    /// The session.
    pub client: ClientId,
    /// Its name, if it is a peer.
    pub peer: Option<Bytes>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_ids_survive_the_wire() {
        for (broker, shard, slot, generation) in [
            (0, 0, 0, 0),
            (0xffff_ffff_ffff, 127, u32::MAX, u32::MAX),
            (0x0102_0304_0506, 7, 8, 9),
        ] {
            let id = ClientId {
                broker,
                shard: ShardId(shard),
                session: SessionId { slot, generation },
            };
            let text = id.to_string();
            assert_eq!(text.len(), ClientId::WRITTEN_SIZE);
            assert_eq!(text.parse(), Ok(id));
        }
        for text in [
            "",
            "x",
            "AAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAAAA",
            "AAAAAAAAAAAAAAAAAAA+",
            "ééééééééééé",
            // shard 128
            "AAAAAAAAgAAAAAAAAAAA",
        ] {
            assert_eq!(text.parse::<ClientId>(), Err(NotAClientId), "{text}");
        }
    }

    #[test]
    fn a_remote_address_is_small_and_says_what_was_learned() {
        // What `Arc` allocates: its two counts and the value. Each connection has one.
        let allocated = 2 * size_of::<usize>() + size_of::<OnceLock<Remote>>();
        assert!(allocated <= 48, "{allocated}");
        for text in [
            "127.0.0.1:1",
            "255.255.255.255:65535",
            "[::1]:80",
            "[2001:db8::7]:443",
            "[fe80::1%3]:9",
        ] {
            let address = RemoteAddress::default();
            let seen_by_another = address.clone();
            assert_eq!(seen_by_another.to_string(), "unknown");
            address.learn_ip(text.parse().expect("an address"));
            assert_eq!(seen_by_another.to_string(), text);
            let ip = text.parse::<SocketAddr>().expect("an address").ip();
            assert_eq!(seen_by_another.ip(), Some(ip));
            address.learn_unix();
            address.learn("later".into());
            assert_eq!(address.to_string(), text, "the first word counts");
        }
        let address = RemoteAddress::default();
        assert!(!address.is_known() && !address.is_unix());
        address.learn_unix();
        assert_eq!(address.to_string(), "unix");
        assert!(address.is_known() && address.is_unix() && address.ip().is_none());
        let text = RemoteAddress::known("tests:1");
        assert_eq!((text.to_string(), text.ip()), ("tests:1".to_owned(), None));
    }

    #[test]
    fn a_remote_address_may_lack_a_port() {
        for (address, text) in [
            ("192.0.2.1:0", "192.0.2.1"),
            ("192.0.2.1:7", "192.0.2.1:7"),
            ("[2001:db8::7]:0", "2001:db8::7"),
            ("[2001:db8::7]:7", "[2001:db8::7]:7"),
        ] {
            let address: SocketAddr = address.parse().expect("an address");
            let remote = RemoteAddress::at(address);
            assert_eq!(remote.to_string(), text);
            assert_eq!(remote.ip(), Some(address.ip()));
        }
    }

    #[test]
    fn a_whole_v6_network_counts_as_one_address() {
        for (ip, counts_as) in [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
            ("2001:db8:1:2::", "2001:db8:1:2::"),
            ("::1", "::"),
        ] {
            let ip: IpAddr = ip.parse().expect("an address");
            assert_eq!(network(ip).to_string(), counts_as, "{ip}");
        }
    }

    #[test]
    fn shard_sets_hold_what_was_put_in() {
        let mut set = ShardSet::EMPTY;
        assert!(set.insert(ShardId(127)) && set.insert(ShardId(0)) && !set.insert(ShardId(0)));
        assert_eq!(set.iter().collect::<Vec<_>>(), [ShardId(0), ShardId(127)]);
        assert!(ShardSet::first(128).is_superset(set) && !set.is_superset(ShardSet::first(2)));
        assert!(set.remove(ShardId(127)) && !set.remove(ShardId(127)));
        assert_eq!(set.len(), 1);
        assert_eq!(ShardSet::first(3).len(), 3);
    }

    #[test]
    fn names_are_bounded_text() {
        for (name, expected) in [
            ("a", true),
            ("", false),
            ("a b", true),
            ("é", true),
            ("a\n", false),
            ("\u{7f}", false),
            ("\u{85}", false),
        ] {
            assert_eq!(is_name(name.as_bytes()), expected, "{name:?}");
        }
        assert!(is_name(&[b'x'; 255]) && !is_name(&[b'x'; 256]) && !is_name(b"\xff"));
    }
}
