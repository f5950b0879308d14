//! What a seed decides before anything happens: how many shards, how little room, how bad the weather.

use fastrand::Rng;

use pubsub::limits::Limits;

use crate::client::Protocol;
use crate::names::{FILTERS, PATTERNS, PLAIN, TOPICS};

/// What a seed decides before anything happens.
#[derive(Debug)]
pub struct Profile {
    pub shards: usize,
    pub ring_entries: usize,
    pub ring_bytes: usize,
    pub limits: Limits,
    /// Of RESP clients.
    pub server_limits: Limits,
    /// Of ten clients, so many speak RESP, and so many ClusterWS.
    pub resp: u8,
    pub clusterws: u8,
    /// And so many of all are peers.
    pub peers: u8,
    pub clients_max: usize,
    pub steps: usize,
    /// Per mille of the steps that are faults.
    pub faults: u32,
    pub buffer_bytes: usize,
    pub drains: bool,
    /// The shard that deals connections.
    pub dealer: usize,
    /// The filters that are subscribed to: where they are few, interest is often the first or the last.
    pub filters: Vec<&'static str>,
    /// The same for RESP.
    pub channels: Vec<&'static str>,
    pub patterns: Vec<&'static str>,
    /// Per mille of the steps that are ambushes.
    pub ambushes: u32,
}

impl Profile {
    /// Draws one; of at least so many shards.
    pub fn draw(rng: &mut Rng, shards_min: usize) -> Profile {
        let one_of = |rng: &mut Rng, choices: &[usize]| choices[rng.usize(..choices.len())];
        let outbox_bytes_max = one_of(rng, &[1 << 20, 1 << 20, 16 << 10, 3 << 10]);
        let mut limits = Limits {
            outbox_bytes_max,
            outbox_bytes_soft: outbox_bytes_max / 4,
            outbox_soft_ms: one_of(rng, &[500, 10_000]) as u64,
            outbox_total_bytes_max: one_of(rng, &[1 << 30, 1 << 30, 64 << 10]),
            replies_bytes_max: one_of(rng, &[64 << 10, 700]),
            requests_max: one_of(rng, &[1_000, 3]),
            request_timeout_ms: 5_000,
            clusterws_ping_interval_ms: one_of(rng, &[20_000, 20_000, 1_500]) as u64,
            turn_messages_max: one_of(rng, &[256, 4, 1]),
            ..Limits::default()
        };
        limits.connections_max = one_of(rng, &[1_000, 1_000, 1_000, 6]);
        let shards = one_of(rng, &[1, 2, 3, 3, 4]).max(shards_min);
        let server_bytes_max = one_of(rng, &[1 << 20, 1 << 20, 16 << 10, 3 << 10]);
        let server_limits = Limits {
            outbox_bytes_max: server_bytes_max,
            outbox_bytes_soft: server_bytes_max / 4,
            replies_bytes_max: one_of(rng, &[64 << 10, 700]),
            subscriptions_max: one_of(rng, &[1_000, 1_000, 5]),
            patterns_max: one_of(rng, &[100, 100, 2]),
            turn_messages_max: one_of(rng, &[256, 4, 1]),
            ..limits.clone()
        };
        let some_of = |rng: &mut Rng, all: &[&'static str]| {
            let mut some = all.to_vec();
            rng.shuffle(&mut some);
            some.truncate(one_of(rng, &[2, 4, all.len()]));
            some
        };
        let mixes = [(0, 0), (3, 0), (4, 2), (3, 3), (2, 5), (8, 0)];
        let (resp, clusterws) = mixes[rng.usize(..mixes.len())];
        let filters = some_of(rng, &FILTERS);
        let channels = some_of(rng, &[&TOPICS[..], &PLAIN[..]].concat());
        let patterns = some_of(rng, &PATTERNS);
        let profile = Profile {
            peers: 0,
            dealer: rng.usize(..shards),
            filters,
            channels,
            patterns,
            resp,
            clusterws,
            ambushes: one_of(rng, &[0, 10, 30]) as u32,
            shards,
            ring_entries: one_of(rng, &[1, 2, 4, 16, 4096]),
            ring_bytes: one_of(rng, &[500, 4 << 10, 1 << 20, 1 << 20]),
            limits,
            server_limits,
            clients_max: rng.usize(6..16),
            steps: rng.usize(500..3_000),
            faults: one_of(rng, &[0, 5, 20]) as u32,
            buffer_bytes: one_of(rng, &[1 << 20, 4 << 10, 300]),
            drains: rng.bool(),
        };
        // Behind all else, so that worlds without peers are as they were.
        let peers = one_of(rng, &[0, 0, 2, 4]) as u8;
        Profile { peers, ..profile }
    }

    /// Nothing is short and nothing goes wrong.
    pub fn fair(shards: usize) -> Profile {
        let limits = Limits {
            outbox_total_bytes_max: 1 << 30,
            ..Limits::default()
        };
        Profile {
            shards,
            ring_entries: 4096,
            ring_bytes: 1 << 20,
            server_limits: limits.clone(),
            limits,
            resp: 0,
            clusterws: 0,
            peers: 0,
            clients_max: 100,
            steps: 0,
            faults: 0,
            buffer_bytes: 1 << 20,
            drains: false,
            dealer: 0,
            filters: FILTERS.to_vec(),
            channels: TOPICS.to_vec(),
            patterns: PATTERNS.to_vec(),
            ambushes: 0,
        }
    }

    /// Is no reader of this protocol ever called slow here?
    pub fn is_generous_to(&self, protocol: Protocol) -> bool {
        let limits = match protocol {
            Protocol::Native | Protocol::Clusterws(_) => &self.limits,
            Protocol::Resp | Protocol::Peer => &self.server_limits,
        };
        limits.outbox_bytes_max == 1 << 20
            && limits.outbox_soft_ms == 10_000
            && self.limits.outbox_total_bytes_max == 1 << 30
    }
}
