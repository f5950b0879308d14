//! What a shard counts, and how it is seen from outside.

use serde::Serialize;

use crate::error::CloseReason;

/// The counters and gauges of one shard. Counters only rise; `/stats` adds them up over the shards.
///
/// At rest `deliveries_due = delivered + announced`.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct ShardStats {
    /// The shard's index.
    pub shard: usize,
    /// Connections now.
    pub connections: u64,
    /// Sessions now that are through the handshake.
    pub sessions: u64,
    /// Peers now: application servers, and the Links of this process.
    pub peers: u64,
    /// Subscriptions now.
    pub subscriptions: u64,
    /// Connections accepted since the start.
    pub accepted: u64,
    /// Connections refused because there were too many.
    pub refused: u64,
    /// Handshakes refused with an HTTP status.
    pub handshakes_refused: u64,
    /// Tokens that were not believed.
    pub unauthenticated: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Bytes handed to the kernel.
    pub sent_bytes: u64,
    /// Sends started.
    pub sends: u64,
    /// Commands taken.
    pub commands: u64,
    /// Commands refused with an error object.
    pub refusals: u64,
    /// Publishes taken from this shard's clients.
    pub publishes: u64,
    /// Deliveries that subscribers of this shard were due.
    pub deliveries_due: u64,
    /// Deliveries handed to the kernel.
    pub delivered: u64,
    /// Deliveries that were not made, their readers having been told: by `gap`, by a close code, or by the end
    /// of the connection.
    pub announced: u64,
    /// Of these, skipped by drop-oldest or conflate.
    pub dropped: u64,
    /// Connections closed with 4008.
    pub closed_slow: u64,
    /// Connections ended, by reason (index as in [`CloseReason::ALL`]).
    pub closed: [u64; CloseReason::ALL.len()],
    /// Bytes that wait in outboxes now.
    pub outbox_bytes: u64,
    /// Requests that wait for an answer now.
    pub requests_pending: u64,
    /// Requests answered `no_handler`, `timeout` or `busy`, and events that nobody handled.
    pub requests_failed: u64,
    /// Volatile events that were dropped for peers and clients that were not ready.
    pub volatile_dropped: u64,
    /// Commands that had to wait because a ring to another shard was full.
    pub stalls: u64,
    /// Times a peer fell behind, so that what clients send to it waited.
    pub feeds_paused: u64,
    /// Commands that had to wait because their connection was faster than it may be.
    pub throttled: u64,
    /// Connections handed over to another shard.
    pub handed_over: u64,
    /// Parcels sent to other shards.
    pub forwarded: u64,
    /// Turns of the event loop.
    pub turns: u64,
    /// Times this shard woke another one.
    pub wakeups: u64,
    /// Completion queue overflows (0 without a ring).
    pub cq_overflow: u64,
}

/// One connection as `/stats?connections` lists it.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionView {
    /// The client id as `whoami` says it.
    pub id: String,
    /// The shard it lives on.
    pub shard: usize,
    /// The remote address.
    pub address: String,
    /// Bytes that wait in its outbox.
    pub outbox_bytes: u64,
    /// Its subscriptions.
    pub subscriptions: u64,
}
