//! Every bound that a user can set, its default and its reason. What happens when one is reached is said at
//! each field; nothing in the broker is without a bound.

/// 1 KiB.
pub const KIB: usize = 1024;
/// 1 MiB.
pub const MIB: usize = 1024 * KIB;

/// The longest topic or filter of native JSON and Socket.IO, in bytes of UTF-8 (a filter's leading `=` not counted).
pub const TOPIC_BYTES_MAX: usize = 255;
/// The deepest topic: each level costs a look-up per publish.
pub const TOPIC_LEVELS_MAX: usize = 32;
/// The longest channel or room of the other protocols, any bytes.
pub const CHANNEL_BYTES_MAX: usize = 1024;
/// The longest event, service or peer name, in bytes.
pub const NAME_BYTES_MAX: usize = 255;
/// The rooms that one event may be for, and those that it may leave out: each is looked up on every shard.
pub const EMIT_ROOMS_MAX: usize = 1000;
/// The longest regular expression for peers' names, which are shorter: compiling it takes its time, by its length.
pub const PEER_REGEX_BYTES_MAX: usize = KIB;
/// The longest token (JWT). It comes in a request head, which is 8 KiB; and checking a signature reads all of it.
pub const TOKEN_BYTES_MAX: usize = 4 * KIB;
/// The filters of one list in a token: each is looked at for every subscription and publish of its session.
pub const TOKEN_FILTERS_MAX: usize = 100;
/// The keys that tokens are checked with: a token that names none (`kid`) may cost a signature check for each.
pub const TOKEN_KEYS_MAX: usize = 16;
/// The deepest JSON that is taken.
pub const JSON_DEPTH_MAX: usize = 64;
/// The entries of the ring between two shards.
pub const RING_ENTRIES_MAX: usize = 4096;
/// The bytes that may wait in the ring between two shards. An empty ring always takes one entry.
pub const RING_BYTES_MAX: usize = MIB;
/// The bytes of calls that may wait between a host and a shard: a shard that is busy for some milliseconds is to hold up
/// nobody who publishes at full speed, and what waits longer is to be felt. An empty buffer takes one call of any size,
/// so that the longest message always fits.
pub const LINK_CALLS_BYTES_MAX: usize = MIB;
/// The entries of the ring from a shard to a host. One is mostly all that a turn has for it, but may keep a piece of the
/// turn's log alive ([`LOG_SEGMENT_BYTES_MAX`]): 4 MiB in all, for a host that does not read.
pub const LINK_ENTRIES_MAX: usize = 256;
/// The bytes that may wait in that ring. Behind it is the session's outbox.
pub const LINK_BYTES_MAX: usize = MIB;
/// What one turn takes of all connections together, more or less: enough to join what came together, and not so much
/// that a reader who must read it all has no chance in between.
pub const TURN_BYTES_MAX: usize = 256 * KIB;
/// The largest piece of one turn's shared log: what a slow reader can pin with one small frame.
pub const LOG_SEGMENT_BYTES_MAX: usize = 16 * KIB;
/// The most that one send takes.
pub const SEND_BYTES_MAX: usize = 64 * KIB;
/// What an outbox charges for a queued reference beside its bytes: the entry that holds it.
pub const OUTBOX_ENTRY_BYTES: usize = 64;
/// The largest message that is echoed: conformance suites send 16 MiB, and want to find an end.
pub const ECHO_MESSAGE_BYTES_MAX: usize = 64 * MIB;
/// What may wait in the outbox of a session that is echoed: a message, and what was unread before it, fit always.
pub const ECHO_OUTBOX_BYTES_MAX: usize = 2 * ECHO_MESSAGE_BYTES_MAX;

/// The longest message of the server class (RESP, peers, Links), as long as a payload of NATS.
pub const SERVER_MESSAGE_BYTES_MAX: usize = MIB;
/// What may wait for a connection of the server class, as Redis has it for its subscribers.
pub const SERVER_OUTBOX_BYTES_MAX: usize = 32 * MIB;
/// What may wait for it longer than [`SERVER_OUTBOX_SOFT_MS`].
pub const SERVER_OUTBOX_BYTES_SOFT: usize = 8 * MIB;
/// How long more than that may wait.
pub const SERVER_OUTBOX_SOFT_MS: u64 = 60_000;
/// Subscriptions of a connection of the server class: one for each room of a large application.
pub const SERVER_SUBSCRIPTIONS_MAX: usize = 1_000_000;
/// The rooms that one client may be in: as many as its subscriptions by default. Past it a JOIN is refused with `limit`.
pub const ROOMS_MAX: usize = 1_000;
/// Joins of one peer that other shards have not confirmed yet: each is remembered where it was asked for and where it is
/// carried out. The next one waits.
pub const JOINS_MAX: usize = 1_024;
/// What may wait for a peer before what clients send to it waits with them, their reading paused; they go on at half
/// of it. Less than [`SERVER_OUTBOX_BYTES_SOFT`], so that no client costs a peer its topics.
pub const FEED_BYTES_MAX: usize = MIB;
/// Events that it may handle: each call of a large application.
pub const SERVER_HANDLERS_MAX: usize = 10_000;
/// Arguments of a RESP command before its client has said who it is.
pub const RESP_ARGUMENTS_BEFORE_AUTH_MAX: usize = 10;
/// The longest of these arguments.
pub const RESP_BULK_BYTES_BEFORE_AUTH_MAX: usize = 16 * KIB;
/// Unread answers before a client has said who it is.
pub const RESP_REPLY_BYTES_BEFORE_AUTH_MAX: usize = KIB;
/// Arguments of a RESP command: as many as Redis takes.
pub const RESP_ARGUMENTS_MAX: usize = 1024 * 1024;
/// What the arguments of a RESP command may take together beside the largest: a client that comes back subscribes to all
/// its channels by one command, and there may be 100 000 of them.
pub const RESP_COMMAND_BYTES_SPARE: usize = 16 * MIB;
/// The same before its client has said who it is: every argument may be as long as one may be.
pub const RESP_COMMAND_BYTES_SPARE_BEFORE_AUTH: usize =
    RESP_ARGUMENTS_BEFORE_AUTH_MAX * RESP_BULK_BYTES_BEFORE_AUTH_MAX;
/// Answers of one RESP connection that wait for other shards; the next command waits for them.
pub const RESP_WAITING_MAX: usize = 1024;
/// What a client may say about itself (`CLIENT SETNAME`, `SETINFO`), in bytes of each.
pub const RESP_CLIENT_NAME_BYTES_MAX: usize = 255;

/// Plain HTTP connections that may wait for room in a Link's ring; one more is closed. They are given to a host only while
/// it is not behind, so these are what was on its way when it fell behind.
pub const HTTP_WAITING_MAX: usize = 1024;
/// What a frame of the peer protocol may have beside the payload of a message: names, rooms, numbers.
pub const PEER_FRAME_BYTES_SPARE: usize = 64 * KIB;
/// The longest first call (HELLO) of a peer: nobody knows yet who it is.
pub const PEER_HELLO_BYTES_MAX: usize = 2 * KIB;
/// The longest key of peers: a HELLO with the longest name has room for it.
pub const PEER_KEY_BYTES_MAX: usize = KIB;
/// How long a peer whose name somebody else wants may take to say that it is there, as PubSub.js has it.
pub const PEER_PROBE_MS: u64 = 2_000;
/// What a regular expression for peers' names may be compiled to: it is made for one event.
pub const PEER_REGEX_PROGRAM_BYTES_MAX: usize = 64 * KIB;
/// Names on the list of peers that may come in. The broker's own host makes it; it is no place for one per user.
pub const PEER_NAMES_LISTED_MAX: usize = 10_000;

/// Tokens that one peer may have accepted: one for each user of a large application. They are kept while it is away.
pub const ACCEPTED_PER_PEER_MAX: usize = 100_000;
/// Those of all peers together: names cost a peer nothing, and what it accepts under each is kept.
pub const ACCEPTED_MAX: usize = 500_000;

/// The limits of one broker, as far as they are a session's own: of the sessions of one class. Sizes in bytes,
/// times in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Connections of the whole process; past it a new one gets 503 with Retry-After.
    pub connections_max: usize,
    /// Connections of one address (an IPv6 address stands for its /64) in the whole process; past it a new one gets 429
    /// with Retry-After. 0: any number, since behind a proxy that is not trusted all clients are one address.
    pub per_address_max: usize,
    /// A message; past it the connection is closed with 1009 before the message is buffered.
    pub message_bytes_max: usize,
    /// From a message's first fragment to its last; past it the connection is closed with 1008.
    pub message_ms_max: u64,
    /// What may wait in one outbox; past it the connection is closed with 4008.
    pub outbox_bytes_max: usize,
    /// What may wait in one outbox for [`Limits::outbox_soft_ms`]; then the connection is closed as at the hard
    /// limit. Deliveries of drop-oldest topics are skipped at once instead.
    pub outbox_bytes_soft: usize,
    /// How long an outbox may stay above the soft limit.
    pub outbox_soft_ms: u64,
    /// What may wait in all outboxes together; past it the largest are closed first. 0: a quarter of the memory.
    pub outbox_total_bytes_max: usize,
    /// Unread answers (acks, pongs, replies) at which the broker stops to read the connection.
    pub replies_bytes_max: usize,
    /// A request head; past it 431.
    pub handshake_bytes_max: usize,
    /// The header fields of a request head; past it 431.
    pub handshake_headers_max: usize,
    /// From accept to 101, waiting for admission included; past it 408.
    pub connect_timeout_ms: u64,
    /// Silence after which the broker sends a ping.
    pub ping_interval_ms: u64,
    /// Silence after that ping at which the connection is given up.
    pub ping_timeout_ms: u64,
    /// Subscriptions of a connection; past it `limit`.
    pub subscriptions_max: usize,
    /// Of these, patterns (RESP's PSUBSCRIBE), each of which costs every publication; past it an error.
    pub patterns_max: usize,
    /// Events that a connection may handle; past it `limit`.
    pub handlers_max: usize,
    /// Requests of a connection that wait for an answer; past it `busy`.
    pub requests_max: usize,
    /// The deadline of a request that names none, and the longest that one may name.
    pub request_timeout_ms: u64,
    /// Publishes of a connection in a second; past it the connection is not read until it may go on. 0: any number.
    pub publish_rate_max: u32,
    /// Publishes of a connection at once, after a rest. 0: those of a second.
    pub publish_burst_max: u32,
    /// Subscribes of a connection in a second; past it the connection is not read until it may go on. 0: any number.
    pub subscribe_rate_max: u32,
    /// Subscribes of a connection at once, after a rest. 0: those of a second.
    pub subscribe_burst_max: u32,
    /// Bad texts of a connection that are answered by an error; the next closes it with 1007.
    pub bad_texts_max: u32,
    /// The interval of the pings that ClusterWS clients wait for, and are told.
    pub clusterws_ping_interval_ms: u64,
    /// How long a closing connection may take to read what was sent; then it is reset.
    pub linger_ms: u64,
    /// How long input is discarded after the last byte went out, so that closing does not reset.
    pub discard_ms: u64,
    /// Bytes that a turn takes from one connection, so that a flood delays nobody.
    pub turn_bytes_max: usize,
    /// Messages that a turn takes from one connection.
    pub turn_messages_max: usize,
}

impl Limits {
    /// The limits of the server class by default: application servers, which have much to say and to hear.
    pub fn of_servers() -> Limits {
        Limits {
            message_bytes_max: SERVER_MESSAGE_BYTES_MAX,
            outbox_bytes_max: SERVER_OUTBOX_BYTES_MAX,
            outbox_bytes_soft: SERVER_OUTBOX_BYTES_SOFT,
            outbox_soft_ms: SERVER_OUTBOX_SOFT_MS,
            subscriptions_max: SERVER_SUBSCRIPTIONS_MAX,
            handlers_max: SERVER_HANDLERS_MAX,
            ..Limits::default()
        }
    }

    /// The server class in a broker of these limits: what is no class's own is the broker's.
    pub fn for_servers(&self, own: &Limits) -> Limits {
        Limits {
            message_bytes_max: own.message_bytes_max,
            outbox_bytes_max: own.outbox_bytes_max,
            outbox_bytes_soft: own.outbox_bytes_soft,
            outbox_soft_ms: own.outbox_soft_ms,
            subscriptions_max: own.subscriptions_max,
            handlers_max: own.handlers_max,
            ..self.clone()
        }
    }

    /// The same for sessions that are echoed: larger messages, and outboxes for them.
    pub fn for_echo(&self) -> Limits {
        Limits {
            message_bytes_max: ECHO_MESSAGE_BYTES_MAX,
            outbox_bytes_max: ECHO_OUTBOX_BYTES_MAX,
            // A reader of 64 MiB is not slow for needing its time.
            outbox_bytes_soft: ECHO_OUTBOX_BYTES_MAX,
            ..self.clone()
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 1_000_000,
            per_address_max: 0,
            message_bytes_max: 64 * KIB,
            message_ms_max: 30_000,
            outbox_bytes_max: MIB,
            outbox_bytes_soft: 256 * KIB,
            outbox_soft_ms: 10_000,
            outbox_total_bytes_max: 0,
            replies_bytes_max: 64 * KIB,
            handshake_bytes_max: 8 * KIB,
            handshake_headers_max: 64,
            connect_timeout_ms: 10_000,
            ping_interval_ms: 25_000,
            ping_timeout_ms: 20_000,
            subscriptions_max: 1_000,
            patterns_max: 100,
            handlers_max: 100,
            requests_max: 1_000,
            request_timeout_ms: 60_000,
            publish_rate_max: 0,
            publish_burst_max: 0,
            subscribe_rate_max: 0,
            subscribe_burst_max: 0,
            bad_texts_max: 10,
            clusterws_ping_interval_ms: 20_000,
            linger_ms: 5_000,
            discard_ms: 2_000,
            turn_bytes_max: 64 * KIB,
            turn_messages_max: 256,
        }
    }
}
