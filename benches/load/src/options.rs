//! The command line of `pubsub bench`.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};

use crate::cpus::Cpus;
use crate::dialect::Protocol;

/// What `--help` opens with.
pub const LONG_ABOUT: &str = "\
Load a broker, check every delivery, and say what one costs.

Each publication carries its number; each subscriber knows which one comes next. A delivery that
is lost, doubled or out of order is counted, and makes the exit code 1. Start the broker first.
With --pid its CPU time per delivery is measured, which says more than deliveries per second when
generator and broker share a machine.";

/// What `--help` ends with.
pub const EXAMPLES: &str = "\
Examples:
  pubsub bench fan-out --subscribers 1000 --window 64 --pid $(pidof -s pubsub)
  pubsub bench rooms --rooms 500 --members 10 --duration 10
  pubsub bench latency --rate 50000 --subscribers 100 --cpu 1
  pubsub bench idle --connections 10000 --pid $(pidof -s pubsub) --publish
  pubsub bench fan-out --protocol redis --url redis://127.0.0.1:6379 --json -
  pubsub bench fan-out --protocol clusterws --url ws://127.0.0.1:8000/clusterws
  pubsub bench fan-out --audience native=ws://127.0.0.1:8000/ \
      --audience redis=redis://127.0.0.1:6379

docs/benchmarking.md tells how to measure, and what the figures mean.";

/// All of it.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What to do.
    #[command(subcommand)]
    pub scenario: Scenario,

    /// The broker: ws://host:port/path, unix:/path, redis://host:port or nats://host:port; several take turns
    #[arg(
        long = "url",
        value_name = "URL",
        global = true,
        help_heading = "Broker"
    )]
    #[arg(default_value = "ws://127.0.0.1:8000/")]
    pub urls: Vec<String>,

    /// What the broker speaks
    #[arg(
        long,
        value_enum,
        default_value = "native",
        global = true,
        help_heading = "Broker"
    )]
    pub protocol: Protocol,

    /// Subscribers that speak another protocol than the publishers, or at another place; several take turns
    #[arg(
        long = "audience",
        value_name = "PROTOCOL=URL",
        global = true,
        help_heading = "Broker"
    )]
    pub audience: Vec<Audience>,

    /// The broker's process, to measure what it spends; several are added up
    #[arg(
        long = "pid",
        value_name = "PID",
        global = true,
        help_heading = "Broker"
    )]
    pub pids: Vec<u32>,

    /// The CPUs that the broker is pinned to: the time of their ksoftirqd is counted too
    #[arg(
        long = "core",
        value_name = "LIST",
        global = true,
        help_heading = "Broker"
    )]
    pub cores: Option<Cpus>,

    /// Topics are called PREFIX.000000 and so on; two generators at once need two prefixes
    #[arg(
        long = "topic",
        value_name = "PREFIX",
        default_value = "bench",
        global = true
    )]
    #[arg(help_heading = "Load")]
    pub topic: String,

    /// Bytes of each message (a JSON string); at least 32
    #[arg(
        long,
        value_name = "BYTES",
        default_value_t = 128,
        global = true,
        help_heading = "Load"
    )]
    pub size: usize,

    /// Publish so many messages in all, and end when they are delivered; instead of --duration
    #[arg(long, value_name = "N", global = true, help_heading = "Load")]
    #[arg(conflicts_with_all = ["duration", "warm_up"])]
    pub messages: Option<u64>,

    /// Seconds to measure
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 5.0,
        global = true,
        help_heading = "Load"
    )]
    pub duration: f64,

    /// Seconds to publish before measuring
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1.0,
        global = true,
        help_heading = "Load"
    )]
    pub warm_up: f64,

    /// Seconds without any progress after which what has not come is lost
    #[arg(long, value_name = "SECONDS", default_value_t = 5.0, global = true)]
    #[arg(help_heading = "Load")]
    pub patience: f64,

    /// Threads of the generator
    #[arg(
        long,
        value_name = "N",
        default_value_t = 1,
        global = true,
        help_heading = "Generator"
    )]
    pub threads: usize,

    /// CPUs for the generator, one for each thread in turn: 1 or 0,2-5
    #[arg(
        long = "cpu",
        value_name = "LIST",
        global = true,
        help_heading = "Generator"
    )]
    pub cpus: Option<Cpus>,

    /// Connections that are opened at once, so that no listen queue overflows
    #[arg(
        long,
        value_name = "N",
        default_value_t = 64,
        global = true,
        help_heading = "Generator"
    )]
    pub ramp: usize,

    /// Write the report as JSON to a file, or to standard output (-)
    #[arg(long, value_name = "FILE", global = true, help_heading = "Output")]
    pub json: Option<String>,
}

/// Subscribers of a kind.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Audience {
    /// What they speak.
    pub protocol: Protocol,
    /// Where.
    pub url: String,
}

impl FromStr for Audience {
    type Err = String;

    fn from_str(text: &str) -> Result<Audience, String> {
        let (protocol, url) = text
            .split_once('=')
            .ok_or("wants PROTOCOL=URL, such as redis=redis://127.0.0.1:6379")?;
        Ok(Audience {
            protocol: Protocol::from_str(protocol, false)?,
            url: url.to_owned(),
        })
    }
}

/// What to do.
#[derive(Subcommand, Clone, PartialEq, Eq, Debug)]
pub enum Scenario {
    /// Publishers and subscribers of one topic
    FanOut {
        /// Connections that publish
        #[arg(short, long, value_name = "N", default_value_t = 1)]
        publishers: usize,
        /// Connections that subscribe
        #[arg(short, long, value_name = "N", default_value_t = 100)]
        subscribers: usize,
        /// Publications of each publisher that are on their way at once
        #[arg(short, long, value_name = "N", default_value_t = 16)]
        window: usize,
    },
    /// Rooms in which every member publishes to all members
    Rooms {
        /// Rooms
        #[arg(short, long, value_name = "N", default_value_t = 100)]
        rooms: usize,
        /// Connections in each
        #[arg(short, long, value_name = "N", default_value_t = 10)]
        members: usize,
        /// Publications of each member that are on their way at once
        #[arg(short, long, value_name = "N", default_value_t = 1)]
        window: usize,
    },
    /// Many topics with one subscriber each; each publisher serves all of them
    Unique {
        /// Topics, and so subscribers
        #[arg(short, long, value_name = "N", default_value_t = 1000)]
        topics: usize,
        /// Connections that publish
        #[arg(short, long, value_name = "N", default_value_t = 1)]
        publishers: usize,
        /// Publications of each publisher that are on their way at once
        #[arg(short, long, value_name = "N", default_value_t = 64)]
        window: usize,
    },
    /// Connections that subscribe to one topic and wait: what does one cost in memory?
    Idle {
        /// Connections
        #[arg(short, long, value_name = "N", default_value_t = 1000)]
        connections: usize,
        /// At the end publish one message that all must get
        #[arg(long)]
        publish: bool,
        /// Seconds between the last subscription and the look at the memory
        #[arg(long, value_name = "SECONDS", default_value_t = 1)]
        hold: u64,
    },
    /// A fixed rate, whatever happens (open loop): how long do deliveries take?
    Latency {
        /// Deliveries a second
        #[arg(short, long, value_name = "N", default_value_t = 20_000)]
        rate: u64,
        /// Connections that publish, in turn
        #[arg(short, long, value_name = "N", default_value_t = 1)]
        publishers: usize,
        /// Connections that subscribe to the one topic
        #[arg(short, long, value_name = "N", default_value_t = 100)]
        subscribers: usize,
    },
}

impl Scenario {
    /// As the command line has it.
    pub fn name(&self) -> &'static str {
        match self {
            Scenario::FanOut { .. } => "fan-out",
            Scenario::Rooms { .. } => "rooms",
            Scenario::Unique { .. } => "unique",
            Scenario::Idle { .. } => "idle",
            Scenario::Latency { .. } => "latency",
        }
    }
}
