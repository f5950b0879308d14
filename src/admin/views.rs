//! `/stats`: what operators read as JSON. Knows no HTTP and asks nobody; it is given what the shards answered.

use serde::Serialize;

use super::counters::Counts;
use super::{BrokerInfo, Phase};
use crate::shard::metrics::{ConnectionView, ShardStats};

/// How many connections `slowest` names.
pub const SLOWEST_COUNT: usize = 10;

/// The answer to `GET /stats`: the sums over the shards, and each shard's own numbers under the same names.
#[derive(Debug, Serialize)]
pub struct StatsView {
    state: &'static str,
    #[serde(flatten)]
    info: BrokerInfo,
    uptime_ms: u64,
    #[serde(flatten)]
    sums: Counts,
    slowest: Vec<ConnectionView>,
    shards: Vec<ShardView>,
}

/// One element of `shards[]`.
#[derive(Debug, Serialize)]
struct ShardView {
    shard: usize,
    #[serde(flatten)]
    counts: Counts,
}

impl StatsView {
    /// Adds the shards up. `slowest` may hold more connections than are shown, in any order.
    pub fn new(
        phase: Phase,
        info: BrokerInfo,
        uptime_ms: u64,
        shards: &[ShardStats],
        slowest: Vec<ConnectionView>,
    ) -> StatsView {
        let shards: Vec<ShardView> = shards
            .iter()
            .map(|stats| ShardView {
                shard: stats.shard,
                counts: Counts::from(stats),
            })
            .collect();
        let mut sums = Counts::ZERO;
        for view in &shards {
            sums.add(&view.counts);
        }
        StatsView {
            state: phase.as_str(),
            info,
            uptime_ms,
            sums,
            slowest: most_waiting_first(slowest, SLOWEST_COUNT),
            shards,
        }
    }
}

/// The answer to `GET /stats?connections`.
#[derive(Debug, Serialize)]
pub struct ConnectionsView {
    /// Connections of the broker; more than are listed if the list was cut.
    pub total: u64,
    /// Those with the most bytes waiting first.
    pub connections: Vec<ConnectionView>,
}

impl ConnectionsView {
    /// Joins the lists of the shards.
    pub fn new(
        shards: &[ShardStats],
        connections: Vec<ConnectionView>,
        count: usize,
    ) -> ConnectionsView {
        ConnectionsView {
            total: shards.iter().map(|stats| stats.connections).sum(),
            connections: most_waiting_first(connections, count),
        }
    }
}

fn most_waiting_first(mut connections: Vec<ConnectionView>, count: usize) -> Vec<ConnectionView> {
    connections.sort_by_key(|view| (std::cmp::Reverse(view.outbox_bytes), view.shard));
    connections.truncate(count);
    connections
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn connection(shard: usize, outbox_bytes: u64) -> ConnectionView {
        ConnectionView {
            id: format!("client-{shard}-{outbox_bytes}"),
            shard,
            address: "127.0.0.1:1".into(),
            outbox_bytes,
            subscriptions: 2,
        }
    }

    #[test]
    fn sums_slowest_and_shards_stand_side_by_side() {
        let shards: Vec<ShardStats> = (0..3)
            .map(|shard| ShardStats {
                shard,
                publishes: 5,
                outbox_bytes: shard as u64,
                ..ShardStats::default()
            })
            .collect();
        let slowest = (0..3)
            .flat_map(|shard| (0..10).map(move |bytes| connection(shard, bytes * 3 + shard as u64)))
            .collect();
        let info = BrokerInfo {
            version: "1".into(),
            driver: "epoll".into(),
            pinning: "none".into(),
        };
        let view = StatsView::new(Phase::Draining, info, 12, &shards, slowest);
        let json = serde_json::to_value(&view).unwrap();
        assert_eq!(json["state"], "draining");
        assert_eq!(json["driver"], "epoll");
        assert_eq!(json["uptime_ms"], 12);
        assert_eq!(json["publishes"], 15);
        assert_eq!(json["outbox_bytes"], 3);
        assert_eq!(json["closed"]["too slow"], 0);
        assert_eq!(json["shards"][2]["shard"], 2);
        assert_eq!(json["shards"][2]["publishes"], 5);
        let bytes: Vec<u64> = json["slowest"]
            .as_array()
            .unwrap()
            .iter()
            .map(|view| view["outbox_bytes"].as_u64().unwrap())
            .collect();
        assert_eq!(bytes, (20..30).rev().collect::<Vec<u64>>());
    }

    #[test]
    fn a_cut_list_says_how_many_there_are() {
        let shards = [ShardStats {
            connections: 3,
            ..ShardStats::default()
        }];
        let listed = (1..=3).map(|bytes| connection(0, bytes)).collect();
        let view = serde_json::to_value(ConnectionsView::new(&shards, listed, 2)).unwrap();
        assert_eq!(view["total"], 3);
        assert_eq!(
            view["connections"],
            json!([
                {"id": "client-0-3", "shard": 0, "address": "127.0.0.1:1", "outbox_bytes": 3, "subscriptions": 2},
                {"id": "client-0-2", "shard": 0, "address": "127.0.0.1:1", "outbox_bytes": 2, "subscriptions": 2},
            ])
        );
    }
}
