//! What came out: a table for people, JSON for programs.

use std::fs;
use std::io::{self, Write};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::{Value, json};

use crate::dialect::Protocol;
use crate::ledger::Faults;
use crate::options::Scenario;
use crate::topology::Topology;
use crate::usage::Spent;

/// A thread that is busy for more than this share of the time is at its end.
const BUSY: f64 = 0.9;

/// A run and what came out.
pub struct Report {
    /// As on the command line.
    pub scenario: Scenario,
    /// What the publishers spoke.
    pub protocol: Protocol,
    /// What the subscribers spoke, in turn.
    pub audience: Vec<Protocol>,
    /// Who published where.
    pub topology: Topology,
    /// The message's bytes.
    pub size: usize,
    /// Bytes of a publication on the wire.
    pub frame_bytes: usize,
    /// Bytes of a delivery in each of these, WebSocket header apart.
    pub delivery_bytes: Vec<usize>,
    /// Of the generator.
    pub threads: usize,
    /// While it was measured.
    pub measured: Measured,
    /// From the beginning to the end, as all that follows: publications.
    pub published: u64,
    /// Deliveries that they make.
    pub due: u64,
    /// Deliveries that came, each once.
    pub delivered: u64,
    /// Deliveries that the broker said it left out.
    pub announced: u64,
    /// Publications without an ack, where there are acks.
    pub acks_missing: u64,
    /// What was wrong.
    pub faults: Faults,
    /// From due to delivered, in the open loop.
    pub latency: Option<Latency>,
    /// From due to sent: what the generator itself adds.
    pub lateness: Option<Latency>,
    /// Of the broker.
    pub memory: Option<Memory>,
    /// Why the run broke off.
    pub failure: Option<String>,
}

/// What happened while it was measured.
#[derive(Default)]
pub struct Measured {
    /// How long that was.
    pub seconds: f64,
    /// Publications sent.
    pub publishes: u64,
    /// Acks received.
    pub acks: u64,
    /// Deliveries received.
    pub deliveries: u64,
    /// CPU time of the broker, if its process is known.
    pub broker: Option<Spent>,
    /// CPU time of the generator's threads.
    pub own: Vec<Duration>,
}

/// Percentiles in microseconds.
#[derive(Serialize)]
pub struct Latency {
    /// Deliveries.
    pub count: u64,
    /// Half are faster.
    pub p50: f64,
    /// And so on.
    pub p90: f64,
    /// One in a hundred is slower.
    pub p99: f64,
    /// One in a thousand is slower.
    pub p999: f64,
    /// The slowest.
    pub max: f64,
}

/// Resident memory of the broker.
pub struct Memory {
    /// Before the first connection.
    pub before_bytes: u64,
    /// With all connections, before the first publication.
    pub connected_bytes: u64,
    /// At the end.
    pub end_bytes: u64,
    /// How many connections.
    pub connections: u64,
}

impl Latency {
    /// Of a histogram in nanoseconds.
    pub fn of(histogram: &Histogram<u64>) -> Latency {
        let us = |ns: u64| (ns as f64 / 1e3 * 10.0).round() / 10.0;
        let at = |percentile| us(histogram.value_at_percentile(percentile));
        Latency {
            count: histogram.len(),
            p50: at(50.0),
            p90: at(90.0),
            p99: at(99.0),
            p999: at(99.9),
            max: us(histogram.max()),
        }
    }
}

impl Memory {
    /// Bytes that a connection added.
    fn per_connection(&self) -> f64 {
        self.connected_bytes.saturating_sub(self.before_bytes) as f64 / self.connections as f64
    }
}

impl Measured {
    fn per_second(&self, count: u64) -> f64 {
        if self.seconds > 0.0 {
            count as f64 / self.seconds
        } else {
            0.0
        }
    }

    /// The share of the time in which a thread was on a CPU.
    fn share(&self, spent: Duration) -> f64 {
        if self.seconds > 0.0 {
            spent.as_secs_f64() / self.seconds
        } else {
            0.0
        }
    }

    fn us_per_delivery(&self) -> Option<f64> {
        let spent = self.broker.as_ref()?;
        let us = (spent.processes + spent.softirqs).as_secs_f64() * 1e6;
        (self.deliveries > 0).then(|| us / self.deliveries as f64)
    }

    fn own_share(&self) -> f64 {
        let busiest = self.own.iter().copied().max().unwrap_or_default();
        self.share(busiest)
    }

    fn broker_share(&self) -> Option<f64> {
        self.broker.as_ref().map(|spent| self.share(spent.busiest))
    }

    /// Did the generator's own speed decide? Unknown broker processes are given the benefit of the doubt.
    fn is_own_limit(&self) -> bool {
        self.own_share() > BUSY && self.broker_share().is_none_or(|share| share < BUSY)
    }
}

impl Report {
    /// Did everything that was due come, once and in order, or was its loss announced?
    pub fn is_right(&self) -> bool {
        let faults = &self.faults;
        self.failure.is_none()
            && faults.lost <= self.announced
            && faults.doubled + faults.inverted + faults.stray + self.acks_missing == 0
    }

    /// Writes the table, and JSON to a file or standard output (`-`), which then has it alone.
    ///
    /// # Errors
    /// It could not be written.
    pub fn print(&self, json: Option<&str>) -> io::Result<()> {
        let text = || format!("{:#}\n", self.json());
        match json {
            Some("-") => {
                io::stderr().write_all(self.table().as_bytes())?;
                io::stdout().write_all(text().as_bytes())
            }
            Some(file) => {
                io::stdout().write_all(self.table().as_bytes())?;
                fs::write(file, text())
            }
            None => io::stdout().write_all(self.table().as_bytes()),
        }
    }

    fn audience_names(&self) -> Vec<&'static str> {
        self.audience.iter().map(|of| of.name()).collect()
    }

    /// As they take turns, so many subscribers speak one as another, more or less.
    fn delivery_bytes_mean(&self) -> usize {
        let count = self.delivery_bytes.len().max(1);
        self.delivery_bytes.iter().sum::<usize>() / count
    }

    fn warning(&self) -> Option<String> {
        self.measured.is_own_limit().then(|| {
            let share = self.measured.own_share() * 100.0;
            let of = match self.measured.broker_share() {
                Some(share) => format!("the broker's busiest thread {:.0} %", share * 100.0),
                None => "that of the broker is not known (--pid)".to_owned(),
            };
            format!(
                "the generator was busy {share:.0} % of the time, {of}: rates show the generator's \
                 limit (--threads, --cpu)"
            )
        })
    }

    fn table(&self) -> String {
        let mut rows: Vec<(String, String)> = Vec::new();
        let mut row = |name: &str, value: String| rows.push((name.to_owned(), value));
        let measured = &self.measured;
        let (scenario, protocol) = (self.scenario.name(), self.protocol.name());
        row("scenario", format!("{scenario} over {protocol}"));
        if self.audience != [self.protocol] {
            row("audience", self.audience_names().join(", "));
        }
        row("connections", self.topology.connections().to_string());
        let sizes: Vec<String> = self.delivery_bytes.iter().map(usize::to_string).collect();
        row(
            "message",
            format!("{} bytes, {} delivered", self.size, sizes.join(", ")),
        );
        // The one publication of idle connections has no rate.
        if measured.publishes > 0 && !matches!(self.scenario, Scenario::Idle { .. }) {
            let rate = |count| format!("{}/s", thousands(measured.per_second(count) as u64));
            row("measured", format!("{:.3} s", measured.seconds));
            row("publishes", rate(measured.publishes));
            row("deliveries", rate(measured.deliveries));
            if self.protocol.has_acks() {
                row("acks", rate(measured.acks));
            }
            if let (Some(spent), Some(us)) = (&measured.broker, measured.us_per_delivery()) {
                let share = measured.share(spent.processes + spent.softirqs) * 100.0;
                row(
                    "broker's CPU",
                    format!("{us:.3} us per delivery, {share:.0} % of a core"),
                );
            }
            let own: Duration = measured.own.iter().sum();
            row(
                "generator's CPU",
                format!("{:.0} % of a core", measured.share(own) * 100.0),
            );
        }
        let percentiles = |latency: &Latency| {
            let Latency {
                p50,
                p90,
                p99,
                p999,
                max,
                ..
            } = latency;
            format!("p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max} us")
        };
        if let Some(latency) = &self.latency {
            row("latency", percentiles(latency));
        }
        if let Some(lateness) = &self.lateness {
            row("of that, unsent", percentiles(lateness));
        }
        if let Some(memory) = &self.memory {
            let kib = |bytes| format!("{} KiB", thousands(bytes / 1024));
            let each = memory.per_connection();
            row("memory before", kib(memory.before_bytes));
            row(
                "connected",
                format!(
                    "{}, {each:.0} bytes a connection",
                    kib(memory.connected_bytes)
                ),
            );
            row("at the end", kib(memory.end_bytes));
        }
        let faults = &self.faults;
        if self.due > 0 {
            row("due", thousands(self.due));
            row("delivered", thousands(self.delivered));
            row(
                "wrong",
                format!(
                    "{} lost, {} double, {} inverted, {} stray",
                    faults.lost, faults.doubled, faults.inverted, faults.stray
                ),
            );
        }
        if self.announced > 0 {
            row("announced", format!("{} of the lost", self.announced));
        }
        if self.acks_missing > 0 {
            row("acks missing", self.acks_missing.to_string());
        }
        if let Some(failure) = &self.failure {
            row("broken off", failure.clone());
        }
        if let Some(warning) = self.warning() {
            row("beware", warning);
        }
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        rows.iter()
            .map(|(name, value)| format!("{name:width$}  {value}\n"))
            .collect()
    }

    fn json(&self) -> Value {
        let measured = &self.measured;
        let rounded = |number: f64| (number * 1e4).round() / 1e4;
        let broker = measured.broker.as_ref().map(|spent| {
            json!({
                "cpu_seconds": spent.processes.as_secs_f64(),
                "ksoftirqd_seconds": spent.softirqs.as_secs_f64(),
                "cpu_us_per_delivery": measured.us_per_delivery().map(rounded),
                "busiest_thread_share": measured.broker_share().map(rounded),
            })
        });
        let memory = self.memory.as_ref().map(|memory| {
            json!({
                "before_bytes": memory.before_bytes,
                "connected_bytes": memory.connected_bytes,
                "end_bytes": memory.end_bytes,
                "bytes_per_connection": rounded(memory.per_connection()),
            })
        });
        let own: Duration = measured.own.iter().sum();
        json!({
            "scenario": self.scenario.name(),
            "protocol": self.protocol.name(),
            "audience": self.audience_names(),
            "topics": self.topology.topics,
            "publishers": self.topology.publishers,
            "subscribers": self.topology.subscribers(),
            "connections": self.topology.connections(),
            "message_bytes": self.size,
            "publication_bytes": self.frame_bytes,
            "delivery_bytes": self.delivery_bytes_mean(),
            "load": load(&self.scenario),
            "measured": {
                "seconds": rounded(measured.seconds),
                "publishes": measured.publishes,
                "acks": measured.acks,
                "deliveries": measured.deliveries,
                "publishes_per_second": rounded(measured.per_second(measured.publishes)),
                "acks_per_second": rounded(measured.per_second(measured.acks)),
                "deliveries_per_second": rounded(measured.per_second(measured.deliveries)),
            },
            "broker": broker,
            "generator": {
                "threads": self.threads,
                "cpu_seconds": own.as_secs_f64(),
                "busiest_thread_share": rounded(measured.own_share()),
                "is_limit": measured.is_own_limit(),
            },
            "latency_us": self.latency,
            "lateness_us": self.lateness,
            "memory": memory,
            "published": self.published,
            "due": self.due,
            "delivered": self.delivered,
            "lost": self.faults.lost,
            "doubled": self.faults.doubled,
            "inverted": self.faults.inverted,
            "stray": self.faults.stray,
            "announced": self.announced,
            "acks_missing": self.acks_missing,
            "failure": self.failure,
            "right": self.is_right(),
        })
    }
}

/// What of a scenario is not in its topology.
fn load(scenario: &Scenario) -> Value {
    match scenario {
        Scenario::FanOut { window, .. }
        | Scenario::Rooms { window, .. }
        | Scenario::Unique { window, .. } => json!({ "window": window }),
        Scenario::Idle { hold, .. } => json!({ "hold_seconds": hold }),
        Scenario::Latency { rate, .. } => json!({ "deliveries_per_second": rate }),
    }
}

/// With a space between thousands.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            scenario: Scenario::FanOut {
                publishers: 1,
                subscribers: 10,
                window: 4,
            },
            protocol: Protocol::Native,
            audience: vec![Protocol::Native],
            topology: Topology::one_topic(1, 10),
            size: 64,
            frame_bytes: 100,
            delivery_bytes: vec![200],
            threads: 1,
            measured: Measured {
                seconds: 2.0,
                publishes: 100,
                acks: 100,
                deliveries: 1000,
                broker: Some(Spent {
                    processes: Duration::from_millis(3),
                    busiest: Duration::from_millis(2),
                    softirqs: Duration::from_millis(1),
                }),
                own: vec![Duration::from_millis(500)],
            },
            published: 100,
            due: 1000,
            delivered: 1000,
            announced: 0,
            acks_missing: 0,
            faults: Faults::default(),
            latency: None,
            lateness: None,
            memory: None,
            failure: None,
        }
    }

    #[test]
    fn figures_are_computed() {
        let json = report().json();
        assert_eq!(json["measured"]["deliveries_per_second"], 500.0);
        assert_eq!(json["broker"]["cpu_us_per_delivery"], 4.0);
        assert_eq!(json["generator"]["busiest_thread_share"], 0.25);
        assert_eq!(json["generator"]["is_limit"], false);
        assert_eq!(json["load"]["window"], 4);
        assert_eq!(json["right"], true);
        assert!(report().table().contains("4.000 us per delivery"));
    }

    #[test]
    fn an_audience_is_told() {
        let mut report = report();
        assert!(!report.table().contains("audience"));
        assert_eq!(report.json()["audience"], json!(["native"]));
        report.audience = vec![Protocol::Native, Protocol::Redis];
        report.delivery_bytes = vec![200, 151];
        assert!(report.table().contains("native, redis"));
        assert!(report.table().contains("64 bytes, 200, 151 delivered"));
        assert_eq!(report.json()["audience"], json!(["native", "redis"]));
        assert_eq!(report.json()["delivery_bytes"], 175);
    }

    #[test]
    fn each_fault_is_wrong() {
        let check = |break_it: fn(&mut Report), is_right| {
            let mut report = report();
            break_it(&mut report);
            assert_eq!(report.is_right(), is_right);
        };
        check(|_| {}, true);
        check(|report| report.faults.lost = 1, false);
        check(|report| report.faults.doubled = 1, false);
        check(|report| report.faults.inverted = 1, false);
        check(|report| report.faults.stray = 1, false);
        check(|report| report.acks_missing = 1, false);
        check(|report| report.failure = Some("gone".to_owned()), false);
        let announce = |report: &mut Report| (report.faults.lost, report.announced) = (3, 3);
        check(announce, true);
        check(
            |report| (report.faults.lost, report.announced) = (4, 3),
            false,
        );
    }

    #[test]
    fn a_generator_at_its_end_says_so() {
        let check = |own_ms, busiest_ms: Option<u64>, is_limit| {
            let mut report = report();
            report.measured.own = vec![Duration::from_millis(own_ms)];
            report.measured.broker = busiest_ms.map(|ms| Spent {
                busiest: Duration::from_millis(ms),
                ..Spent::default()
            });
            assert_eq!(report.warning().is_some(), is_limit);
            assert_eq!(report.table().contains("beware"), is_limit);
        };
        check(1900, Some(1000), true);
        check(1900, Some(1900), false); // both are: the broker is loaded
        check(1700, Some(1000), false);
        check(1900, None, true);
    }

    #[test]
    fn percentiles_are_in_microseconds() {
        let mut histogram = crate::worker::histogram();
        for ms in 1..=1000u64 {
            histogram.record(ms * 1_000_000).unwrap();
        }
        let latency = Latency::of(&histogram);
        let near = |value: f64, expected: f64| (value / expected - 1.0).abs() < 0.002;
        assert_eq!(latency.count, 1000);
        assert!(near(latency.p50, 500_000.0) && near(latency.p99, 990_000.0));
        assert!(near(latency.p999, 999_000.0) && near(latency.max, 1_000_000.0));
    }

    #[test]
    fn numbers_are_grouped() {
        for (number, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1 000"),
            (1234567, "1 234 567"),
        ] {
            assert_eq!(thousands(number), text);
        }
    }
}
