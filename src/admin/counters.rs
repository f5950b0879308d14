//! What a shard counts, as one table: names, meanings, and how to read them. `/stats` and `/metrics` are two
//! spellings of it. Knows no HTTP.
//!
//! Every number of [`ShardStats`] has a row here, under the name of its field; a test holds the two together.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use crate::error::CloseReason;
use crate::shard::metrics::ShardStats;

/// How a number behaves, in OpenMetrics' words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// One row.
#[derive(Debug)]
pub struct Counter {
    /// The key in `/stats`; in `/metrics` with `pubsub_` before it, and `_total` behind it if it is a counter.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// What it counts: a sentence for operators.
    pub help: &'static str,
    /// Its value in one shard.
    pub value: fn(&ShardStats) -> u64,
}

macro_rules! table {
    ($($kind:ident $name:ident $help:literal)*) => {
        &[$(Counter {
            name: stringify!($name),
            kind: Kind::$kind,
            help: $help,
            value: |stats| stats.$name,
        }),*]
    };
}

/// Every number but the ends of connections, which have a label more (see [`Counts::closed`]).
pub const COUNTERS: &[Counter] = table! {
    Gauge connections "Connections now."
    Gauge sessions "Sessions now that are through the handshake."
    Gauge peers "Peers now: application servers, and the Links of the broker's own process."
    Gauge subscriptions "Subscriptions now."
    Counter accepted "Connections accepted."
    Counter refused "Connections refused because there were too many."
    Counter handshakes_refused "Handshakes refused with an HTTP status."
    Counter unauthenticated "Tokens that were not believed."
    Counter received_bytes "Bytes received."
    Counter sent_bytes "Bytes handed to the kernel."
    Counter sends "Sends started."
    Counter commands "Commands taken."
    Counter refusals "Commands refused with an error object."
    Counter publishes "Publishes taken."
    Counter deliveries_due "Deliveries that subscribers were due; at rest delivered plus announced."
    Counter delivered "Deliveries handed to the kernel."
    Counter announced "Deliveries not made, their readers told: by a gap, a close code, or the end of the connection."
    Counter dropped "Deliveries skipped by drop-oldest or conflate."
    Counter closed_slow "Connections closed with 4008, too slow."
    Gauge outbox_bytes "Bytes that wait in outboxes now."
    Gauge requests_pending "Requests that wait for an answer now."
    Counter requests_failed "Requests answered no_handler, timeout or busy, and events that nobody handled."
    Counter volatile_dropped "Volatile events dropped for peers and clients that were not ready."
    Counter stalls "Commands that waited because a ring to another shard was full."
    Counter feeds_paused "Times an application server was behind, so that what clients send to it waited."
    Counter throttled "Commands that waited because their connection was faster than it may be."
    Counter handed_over "Connections handed over to another shard."
    Counter forwarded "Parcels sent to other shards."
    Counter turns "Turns of the event loop."
    Counter wakeups "Times a shard woke another one."
    Counter cq_overflow "Completion queue overflows."
};

/// The numbers of one shard, or of several added up.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Counts {
    /// In the order of [`COUNTERS`].
    pub values: [u64; COUNTERS.len()],
    /// Connections ended, in the order of [`CloseReason::ALL`].
    pub closed: [u64; CloseReason::ALL.len()],
}

impl Counts {
    /// Nothing counted.
    pub const ZERO: Counts = Counts {
        values: [0; COUNTERS.len()],
        closed: [0; CloseReason::ALL.len()],
    };

    /// Adds another's numbers.
    pub fn add(&mut self, other: &Counts) {
        let mine = self.values.iter_mut().chain(&mut self.closed);
        for (mine, others) in mine.zip(other.values.iter().chain(&other.closed)) {
            *mine = mine.saturating_add(*others);
        }
    }
}

impl From<&ShardStats> for Counts {
    fn from(stats: &ShardStats) -> Counts {
        Counts {
            values: std::array::from_fn(|index| (COUNTERS[index].value)(stats)),
            closed: stats.closed,
        }
    }
}

impl Serialize for Counts {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(COUNTERS.len() + 1))?;
        for (counter, value) in COUNTERS.iter().zip(&self.values) {
            map.serialize_entry(counter.name, value)?;
        }
        map.serialize_entry("closed", &ByReason(&self.closed))?;
        map.end()
    }
}

/// The ends of connections, keyed by reason.
struct ByReason<'a>(&'a [u64; CloseReason::ALL.len()]);

impl Serialize for ByReason<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let reasons = CloseReason::ALL.iter().map(|reason| reason.as_str());
        serializer.collect_map(reasons.zip(self.0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Every number of the shard distinct, so that a row that reads its neighbour is seen.
    fn numbered() -> (ShardStats, Value) {
        let mut stats = ShardStats {
            shard: 7,
            ..ShardStats::default()
        };
        let mut next = 100;
        let mut number = || {
            next += 1;
            next
        };
        macro_rules! fill { ($($field:ident)*) => { $(stats.$field = number();)* } }
        fill! { connections sessions subscriptions accepted refused handshakes_refused received_bytes sent_bytes
        sends commands refusals publishes deliveries_due delivered announced dropped closed_slow outbox_bytes
        requests_pending requests_failed peers volatile_dropped stalls handed_over forwarded turns wakeups cq_overflow }
        stats.closed = std::array::from_fn(|_| number());
        let value = serde_json::to_value(&stats).unwrap();
        (stats, value)
    }

    #[test]
    fn every_field_of_a_shard_has_its_row() {
        let (stats, fields) = numbered();
        let counts = serde_json::to_value(Counts::from(&stats)).unwrap();
        for (name, value) in fields.as_object().unwrap() {
            match name.as_str() {
                "shard" => assert_eq!(counts.get(name), None),
                "closed" => assert_eq!(
                    counts["closed"].as_object().unwrap().len(),
                    CloseReason::ALL.len()
                ),
                _ => assert_eq!(counts.get(name), Some(value), "{name} has no row"),
            }
        }
        assert_eq!(
            counts["closed"]["too slow"],
            fields["closed"][CloseReason::ALL
                .iter()
                .position(|reason| *reason == CloseReason::TooSlow)
                .unwrap()]
        );
    }

    #[test]
    fn counts_add_up_and_saturate() {
        let (stats, _) = numbered();
        let one = Counts::from(&stats);
        let mut sum = Counts::ZERO;
        sum.add(&one);
        assert_eq!(sum, one);
        sum.add(&one);
        assert_eq!(sum.values[0], 2 * one.values[0]);
        assert_eq!(sum.closed[3], 2 * one.closed[3]);
        sum.closed[3] = u64::MAX;
        sum.add(&one);
        assert_eq!(sum.closed[3], u64::MAX);
    }
}
