//! `/metrics`: the counters of the shards as OpenMetrics text, one series a shard. Nothing is kept between
//! scrapes; the numbers live in the shards and nowhere else.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::counters::{COUNTERS, Counts, Kind};
use super::{BrokerInfo, Phase};
use crate::error::CloseReason;
use crate::shard::metrics::ShardStats;

/// The media type of the text (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What one scrape tells.
#[derive(Debug)]
pub struct Scrape {
    /// Every shard's numbers.
    pub shards: Vec<ShardStats>,
    /// The broker's phase.
    pub phase: Phase,
    /// What runs.
    pub info: BrokerInfo,
}

impl Scrape {
    /// The whole answer, `# EOF` included.
    ///
    /// # Errors
    /// Never in practice: the text grows in memory.
    pub fn encode(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::with_prefix("pubsub");
        registry.register_collector(Box::new(self));
        let mut out = String::new();
        text::encode(&mut out, &registry)?;
        Ok(out)
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let shards: Vec<(String, Counts)> = self
            .shards
            .iter()
            .map(|stats| (stats.shard.to_string(), Counts::from(stats)))
            .collect();

        let mut ready = encoder.encode_descriptor(
            "ready",
            "1 while the broker takes clients, 0 while it starts or drains.",
            None,
            MetricType::Gauge,
        )?;
        ready.encode_gauge(&i64::from(self.phase == Phase::Ready))?;
        let mut build = encoder.encode_descriptor(
            "build",
            "What runs: version, I/O driver, pinning.",
            None,
            MetricType::Info,
        )?;
        build.encode_info(&[
            ("version", self.info.version.as_str()),
            ("driver", self.info.driver.as_str()),
            ("pinning", self.info.pinning.as_str()),
        ])?;

        for (index, counter) in COUNTERS.iter().enumerate() {
            let kind = match counter.kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(counter.name, counter.help, None, kind)?;
            for (shard, counts) in &shards {
                let labels = [("shard", shard.as_str())];
                let mut series = metric.encode_family(&labels)?;
                match counter.kind {
                    Kind::Counter => {
                        series.encode_counter::<NoLabelSet, _, u64>(&counts.values[index], None)?;
                    }
                    Kind::Gauge => series.encode_gauge(&counts.values[index])?,
                }
            }
        }

        let mut closed = encoder.encode_descriptor(
            "closed",
            "Connections ended, by reason.",
            None,
            MetricType::Counter,
        )?;
        for (shard, counts) in &shards {
            for (reason, count) in CloseReason::ALL.iter().zip(&counts.closed) {
                let labels = [("shard", shard.as_str()), ("reason", reason.as_str())];
                closed
                    .encode_family(&labels)?
                    .encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_a_series_for_each_shard_and_reason() {
        let shards = (0..2)
            .map(|shard| ShardStats {
                shard,
                connections: 3 + shard as u64,
                publishes: 10,
                closed: std::array::from_fn(|index| index as u64),
                ..ShardStats::default()
            })
            .collect();
        let info = BrokerInfo {
            version: "0.1.0".into(),
            driver: "epoll (\"why\")".into(),
            pinning: "none".into(),
        };
        let text = Scrape {
            shards,
            phase: Phase::Ready,
            info,
        }
        .encode()
        .unwrap();
        let lines: Vec<&str> = text.lines().collect();
        for line in [
            "# TYPE pubsub_connections gauge",
            "pubsub_connections{shard=\"0\"} 3",
            "pubsub_connections{shard=\"1\"} 4",
            "# TYPE pubsub_publishes counter",
            "pubsub_publishes_total{shard=\"1\"} 10",
            "pubsub_closed_total{shard=\"0\",reason=\"protocol error\"} 3",
            "pubsub_ready 1",
            "pubsub_build_info{version=\"0.1.0\",driver=\"epoll (\\\"why\\\")\",pinning=\"none\"} 1",
            "# EOF",
        ] {
            assert!(lines.contains(&line), "{line} is missing in\n{text}");
        }
        assert_eq!(*lines.last().unwrap(), "# EOF");
        for line in lines.iter().filter(|line| !line.starts_with('#')) {
            assert!(line.starts_with("pubsub_"), "{line}");
        }
    }
}
