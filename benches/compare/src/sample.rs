//! A sample: one measurement of one contender, and the figures in it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::contender::Contender;
use crate::pipeline;
use crate::places::Places;
use crate::scenario::{Load, Point};
use crate::server::Server;

/// What is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Figure {
    /// Microseconds of the server's CPU time, its share of `ksoftirqd` included, for each delivery.
    CpuUs,
    /// Deliveries, or publications that nobody gets, a second.
    Rate,
    /// Half of the deliveries took fewer microseconds.
    P50Us,
    /// 99 of 100 took fewer microseconds.
    P99Us,
    /// Resident bytes that a connection adds to the empty server.
    ConnectionBytes,
    /// Nanoseconds of user CPU time for each publication.
    UserNs,
    /// Nanoseconds of CPU time, the kernel's included, for each publication.
    CpuNs,
}

impl Figure {
    /// In results.
    pub fn name(self) -> &'static str {
        match self {
            Figure::CpuUs => "cpu_us_per_delivery",
            Figure::Rate => "per_second",
            Figure::P50Us => "latency_p50_us",
            Figure::P99Us => "latency_p99_us",
            Figure::ConnectionBytes => "bytes_per_connection",
            Figure::UserNs => "user_ns_per_publish",
            Figure::CpuNs => "cpu_ns_per_publish",
        }
    }
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// [`Point::name`].
    pub point: String,
    /// Of whom.
    pub contender: Contender,
    /// From 0.
    pub round: usize,
    /// What came out; nothing if it failed.
    pub figures: BTreeMap<Figure, f64>,
    /// Was the generator busy all the time, and the server not? Then the rate is the generator's.
    pub is_generator_limit: bool,
    /// Why it does not count.
    pub failure: Option<String>,
    /// The generator's own words.
    pub report: Value,
}

/// How measurements are done.
pub struct Method<'a> {
    /// Where the programs are.
    pub places: &'a Places,
    /// To measure.
    pub seconds: f64,
    /// The server's, or the first of them.
    pub server_cpu: usize,
    /// The generator's.
    pub generator_cpu: usize,
    /// Is there a `ksoftirqd` to be seen?
    pub has_softirqs: bool,
}

impl Method<'_> {
    /// Starts a contender, loads it, ends it.
    pub fn measure(&self, point: &Point, contender: Contender, round: usize) -> Sample {
        let mut sample = Sample {
            point: point.name.clone(),
            contender,
            round,
            figures: BTreeMap::new(),
            is_generator_limit: false,
            failure: None,
            report: Value::Null,
        };
        let loaded = Server::start(contender, self.places, self.server_cpu)
            .and_then(|server| self.load(&server, point));
        match loaded {
            Ok(report) => sample.read(report),
            Err(reason) => sample.failure = Some(reason),
        }
        sample
    }

    fn load(&self, server: &Server, point: &Point) -> Result<Value, String> {
        let (warm_up, seconds) = (self.warm_up(), self.seconds);
        let timed = |words: &str| format!("{words} --duration {seconds} --warm-up {warm_up}");
        match &point.load {
            Load::Timed(words) => self.bench(server, server.address(), &timed(words), point),
            Load::Whole(words) => self.bench(server, server.address(), words, point),
            Load::Audience(words) => {
                let audience = server.audience().into_iter();
                let audience: Vec<String> = audience
                    .map(|(protocol, url)| format!(" --audience {protocol}={url}"))
                    .collect();
                let words = timed(words) + &audience.concat();
                self.bench(server, server.native_address(), &words, point)
            }
            Load::Nobody => pipeline::run(server, self),
        }
    }

    /// Seconds before a measurement: a quarter of it, and half a second is enough for everybody.
    pub fn warm_up(&self) -> f64 {
        (self.seconds / 4.0).min(0.5)
    }

    /// Runs the generator, and gives its report.
    fn bench(
        &self,
        server: &Server,
        (protocol, url): (&str, String),
        words: &str,
        point: &Point,
    ) -> Result<Value, String> {
        let mut command = Command::new(&self.places.generator);
        command.arg("bench").args(words.split(' '));
        command.args(["--protocol", protocol, "--url", &url, "--json", "-"]);
        command.args(["--pid", &server.pid().to_string()]);
        if self.has_softirqs {
            let cores: Vec<String> = server.cpus.iter().map(usize::to_string).collect();
            command.args(["--core", &cores.join(",")]);
        }
        if !point.is_generator_free {
            command.args(["--cpu", &self.generator_cpu.to_string()]);
        }
        let output = command
            .output()
            .map_err(|error| format!("the generator: {error}"))?;
        serde_json::from_slice(&output.stdout).map_err(|_| {
            let said = String::from_utf8_lossy(&output.stderr);
            said.lines()
                .last()
                .unwrap_or("the generator says nothing")
                .to_owned()
        })
    }
}

impl Sample {
    fn read(&mut self, report: Value) {
        let mut figure = |figure, value: &Value| {
            if let Some(number) = value.as_f64() {
                self.figures.insert(figure, number);
            }
        };
        let has_deliveries = report["measured"]["deliveries"].as_u64().unwrap_or(0) > 0;
        if has_deliveries {
            figure(Figure::CpuUs, &report["broker"]["cpu_us_per_delivery"]);
            figure(Figure::Rate, &report["measured"]["deliveries_per_second"]);
        }
        figure(Figure::P50Us, &report["latency_us"]["p50"]);
        figure(Figure::P99Us, &report["latency_us"]["p99"]);
        if report["scenario"] == "idle" {
            figure(
                Figure::ConnectionBytes,
                &report["memory"]["bytes_per_connection"],
            );
        }
        figure(Figure::UserNs, &report["user_ns_per_publish"]);
        figure(Figure::CpuNs, &report["cpu_ns_per_publish"]);
        if report["scenario"] == "nobody" {
            figure(Figure::Rate, &report["publishes_per_second"]);
        }
        self.is_generator_limit = report["generator"]["is_limit"] == true;
        if report["right"] != true {
            let told = report["failure"].as_str().map(str::to_owned);
            self.failure = Some(told.unwrap_or_else(|| {
                let count = |name: &str| format!("{} {name}", report[name]);
                ["lost", "doubled", "inverted", "stray"]
                    .map(count)
                    .join(", ")
            }));
            self.figures.clear();
        }
        self.report = report;
    }

    /// For the results. Of a report that was right, what says the same at each sample of a point is left out.
    pub fn json(&self) -> Value {
        const KEPT: [&str; 10] = [
            "right",
            "measured",
            "broker",
            "generator",
            "latency_us",
            "lateness_us",
            "memory",
            "delivery_bytes",
            "published",
            "delivered",
        ];
        let mut report = self.report.clone();
        if let (None, Some(members)) = (&self.failure, report.as_object_mut()) {
            members.retain(|name, value| KEPT.contains(&name.as_str()) && !value.is_null());
        }
        let figures: serde_json::Map<String, Value> = self
            .figures
            .iter()
            .map(|(figure, value)| (figure.name().to_owned(), json!(value)))
            .collect();
        json!({
            "point": self.point,
            "contender": self.contender.name(),
            "round": self.round,
            "figures": figures,
            "generator_is_limit": self.is_generator_limit,
            "failure": self.failure,
            "report": report,
        })
    }
}
