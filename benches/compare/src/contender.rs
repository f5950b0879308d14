//! Contenders: the broker in its variants, the floor, and the peers.

use std::path::Path;
use std::process::Command;

use clap::ValueEnum;

use crate::chart::Side;
use crate::places::Places;

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, ValueEnum)]
pub enum Contender {
    /// The broker on io_uring, one shard
    Uring,
    /// The broker on epoll, one shard
    Epoll,
    /// The broker on io_uring, two shards
    #[value(name = "uring-2")]
    UringTwo,
    /// The broker on io_uring, over RESP
    UringResp,
    /// The broker on epoll, over RESP
    EpollResp,
    /// The broker on io_uring, over ClusterWS
    UringClusterws,
    /// The broker on epoll, over ClusterWS
    EpollClusterws,
    /// The broker on io_uring, with a third of the subscribers over each protocol
    UringMixed,
    /// Another build of the broker (`--before`) on io_uring
    Before,
    /// The floor that joins what a round brings
    FloorJoined,
    /// The floor that sends each delivery by itself
    FloorPlain,
    /// Bun, whose WebSockets are uWebSockets'
    Bun,
    /// Redis: SUBSCRIBE and PUBLISH
    Redis,
    /// NATS over WebSocket
    Nats,
    /// NATS over TCP
    NatsTcp,
    /// Node.js with `ws`
    Node,
}

use Contender::*;

/// On the wire, and so in the generator's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// The broker's own.
    Native,
    /// Text frames, relayed as they came.
    Plain,
    /// RESP.
    Redis,
    /// ClusterWS.
    Clusterws,
    /// NATS over WebSocket.
    NatsWebSocket,
    /// NATS over TCP.
    NatsTcp,
}

/// Every contender with one shard or thread, in the protocol of its own.
pub const EVERYBODY: &[Contender] = &[
    Uring,
    Epoll,
    Before,
    FloorJoined,
    FloorPlain,
    Bun,
    Redis,
    Nats,
    NatsTcp,
    Node,
];

impl Contender {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Uring => "uring",
            Epoll => "epoll",
            UringTwo => "uring-2",
            UringResp => "uring-resp",
            EpollResp => "epoll-resp",
            UringClusterws => "uring-clusterws",
            EpollClusterws => "epoll-clusterws",
            UringMixed => "uring-mixed",
            Before => "before",
            FloorJoined => "floor-joined",
            FloorPlain => "floor-plain",
            Bun => "bun",
            Redis => "redis",
            Nats => "nats",
            NatsTcp => "nats-tcp",
            Node => "node",
        }
    }

    /// In charts.
    pub fn side(self) -> Side {
        match self {
            Uring | Epoll | UringTwo | UringResp | EpollResp | UringClusterws | EpollClusterws
            | UringMixed | Before => Side::Ours,
            FloorJoined | FloorPlain => Side::Floor,
            Bun | Redis | Nats | NatsTcp | Node => Side::Peer,
        }
    }

    /// What it speaks; with its publishers, if its subscribers are of several kinds.
    pub fn protocol(self) -> Protocol {
        match self {
            Uring | Epoll | UringTwo | UringMixed | Before => Protocol::Native,
            UringResp | EpollResp | Redis => Protocol::Redis,
            UringClusterws | EpollClusterws => Protocol::Clusterws,
            FloorJoined | FloorPlain | Bun | Node => Protocol::Plain,
            Nats => Protocol::NatsWebSocket,
            NatsTcp => Protocol::NatsTcp,
        }
    }

    /// What it speaks with its subscribers, in turn.
    pub fn audience(self) -> Vec<Protocol> {
        match self {
            UringMixed => vec![Protocol::Native, Protocol::Redis, Protocol::Clusterws],
            _ => vec![self.protocol()],
        }
    }

    /// Does it listen for RESP on its spare port?
    pub fn has_resp_listener(self) -> bool {
        matches!(self, UringResp | EpollResp | UringMixed)
    }

    /// The CPUs that it gets, of those from `first` on.
    pub fn cpus(self, first: usize) -> Vec<usize> {
        match self {
            UringTwo => vec![first, first + 1],
            _ => vec![first],
        }
    }

    /// How it is started, to listen on `port` of loopback. `spare_port` is for those that cannot do with one.
    pub fn command(self, places: &Places, cpus: &[usize], port: u16, spare_port: u16) -> Command {
        let mut command = Command::new(self.program(places));
        let listen = format!("127.0.0.1:{port}");
        match self {
            Uring | Epoll | UringTwo | UringResp | EpollResp | UringClusterws | EpollClusterws
            | UringMixed | Before => {
                let is_epoll = matches!(self, Epoll | EpollResp | EpollClusterws);
                let io = if is_epoll { "epoll" } else { "uring" };
                let cores: Vec<String> = cpus.iter().map(usize::to_string).collect();
                command.args(["--io", io, "--shards", &cpus.len().to_string()]);
                command.args(["--cores", &cores.join(",")]);
                command.args(["--listen", &listen, "--admin", "off", "--log", "warn"]);
                // Other builds need not know of it.
                if self.has_resp_listener() {
                    command.args(["--resp", &format!("127.0.0.1:{spare_port}")]);
                }
            }
            FloorJoined => {
                command.args(["--mode", "joined", "--listen", &listen]);
            }
            FloorPlain => {
                command.args(["--mode", "plain", "--listen", &listen]);
            }
            Bun => {
                command.args(["relay.bun.js", &port.to_string()]);
                command.current_dir(&places.cache);
            }
            Node => {
                command.args(["relay.node.js", &port.to_string()]);
                command.current_dir(&places.cache);
            }
            Redis => {
                command.args(["redis.conf", "--port", &port.to_string()]);
                command.current_dir(&places.cache);
            }
            Nats | NatsTcp => {
                let (websocket, tcp) = match self {
                    Nats => (port, spare_port),
                    _ => (spare_port, port),
                };
                command.args(["-c", "nats.conf"]);
                command.env("PUBSUB_COMPARE_NATS_PORT", tcp.to_string());
                command.env("PUBSUB_COMPARE_NATS_WEBSOCKET_PORT", websocket.to_string());
                command.current_dir(&places.cache);
            }
        }
        command
    }

    /// What is missing for it, and what to do about it; none if it can be started.
    pub fn missing(self, places: &Places) -> Option<String> {
        let remedy = match self {
            Uring | Epoll | UringTwo | UringResp | EpollResp | UringClusterws | EpollClusterws
            | UringMixed => "cargo build --release, or --binary PATH",
            Before => "--before PATH",
            FloorJoined | FloorPlain => "cargo build --release -p pubsub-compare",
            Bun | Redis | Nats | NatsTcp => "pubsub-compare --install",
            Node => "install Node.js, then pubsub-compare --install",
        };
        let module = places.cache.join("node_modules/ws");
        let is_there = match self {
            Node => runs(&self.program(places)) && module.exists(),
            _ => runs(&self.program(places)),
        };
        (!is_there).then(|| format!("{} is not there: {remedy}", self.name()))
    }

    /// What it says of its version, for the record. The floor is of this commit.
    pub fn version(self, places: &Places) -> Option<String> {
        let output = Command::new(self.program(places))
            .arg("--version")
            .output()
            .ok()?;
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    }

    fn program(self, places: &Places) -> std::path::PathBuf {
        match self {
            Uring | Epoll | UringTwo | UringResp | EpollResp | UringClusterws | EpollClusterws
            | UringMixed => places.broker.clone(),
            Before => places.before.clone(),
            FloorJoined | FloorPlain => places.floor.clone(),
            Bun => places.bun(),
            Redis => "redis-server".into(),
            Nats | NatsTcp => "nats-server".into(),
            Node => "node".into(),
        }
    }
}

/// A path that exists, or a name that is found in `PATH`.
fn runs(program: &Path) -> bool {
    if program.components().count() > 1 {
        return program.is_file();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}
