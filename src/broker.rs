//! The broker: listeners, shards, threads and the mesh put together, and taken apart again.
//!
//! It starts everything or nothing: all addresses are bound before the first thread runs. It reads no command
//! line and handles no signal; `serve` does that, and a host that embeds the broker does not.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use crossbeam_utils::sync::WaitGroup;

use crate::accepted::{self, CHANGES_MAX, Keeper};
use crate::address::ShardId;
use crate::admin::{self, AdminHandle, AdminState, BrokerInfo, Key, Readiness};
use crate::config::{self, Config, Io, ListenAddr};
use crate::limits::{MIB, RING_BYTES_MAX, RING_ENTRIES_MAX};
use crate::mesh;
use crate::net::Driver;
use crate::net::affinity::{self, Facts, Plan};
use crate::net::clock::Clock;
use crate::net::control::{Control, ControlSender, Reply};
use crate::net::epoll::Epoll;
use crate::net::event_loop::EventLoop;
use crate::net::linked::Linked;
use crate::net::links::{Door, HostEnd, Roster};
use crate::net::listener::{self, Bound, Listening};
use crate::net::population::Population;
use crate::net::process::Process;
use crate::net::uring::features::Features;
use crate::net::uring::ring::RingFds;
use crate::net::uring::{UringDriver, Wanted};
use crate::net::waker::Waker;
use crate::protocol::clusterws::Dialect;
use crate::shard::auth::Access;
use crate::shard::fault::Fault;
use crate::shard::peer::TokenChange;
use crate::shard::settings::{AcceptPeers, Admission, ListenerSettings, Settings};
use crate::shard::slow::SlowRules;
use crate::shard::{Credentials, Shard};
use crate::topic::board::Board;
use crate::ws::origin::OriginRules;

mod log;

pub use log::Log;

/// Words of the control plane that may wait for one shard.
const CONTROL_WORDS_MAX: usize = 1024;
/// How long a drain takes at most, besides what its spread asks for: the process is to be gone within 10 s.
const DRAIN_TIME: Duration = Duration::from_millis(9_500);
/// How much of it may pass until everything taken has been handed on.
const QUIESCE_TIME: Duration = Duration::from_secs(2);
/// How long a shard's channel may stay full of others' words before a new word is given up.
const RELOAD_TIME: Duration = Duration::from_secs(2);
/// The longest table of direct descriptors of one ring.
const SLOTS_MAX: usize = 1 << 20;
/// Descriptors, or slots, that are kept for everything that is no connection, and to refuse one too many.
const DESCRIPTORS_RESERVED: usize = 64;

/// Why a broker did not start.
#[derive(Debug)]
pub enum StartError {
    /// The configuration can't be had here: an address in use, a CPU that is not there. A sentence.
    Usage(String),
    /// The machine failed.
    Internal(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StartError::Usage(reason) => f.write_str(reason),
            StartError::Internal(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for StartError {}

impl From<io::Error> for StartError {
    fn from(error: io::Error) -> StartError {
        StartError::Internal(error)
    }
}

/// How a shard's thread ended before it was told to.
#[derive(Debug)]
pub struct Failure {
    /// Which one.
    pub shard: ShardId,
    /// What it said.
    pub reason: String,
}

/// A running broker.
pub struct Broker {
    /// Where clients connect, in the order of the configuration.
    pub listening: Vec<Bound>,
    /// Where Redis clients connect, likewise.
    pub resp: Vec<Bound>,
    /// Where application servers connect, likewise.
    pub peers: Vec<Bound>,
    /// Where operators will connect: bound, and the caller's to serve.
    pub admin: Option<TcpListener>,
    /// Which driver runs, and why.
    pub driver: String,
    /// Where the shards run, and why.
    pub pinning: String,
    shards: Arc<[ControlSender]>,
    threads: Vec<JoinHandle<()>>,
    failures: Receiver<Failure>,
    sockets: Vec<PathBuf>,
    links: Links,
    log: Arc<Log>,
    process: Process,
    /// Dropped last: what was accepted in the last moments is written.
    keeper: Option<Keeper>,
}

/// What it takes to open a Link.
struct Links {
    /// By shard.
    doors: Vec<Door>,
    roster: Arc<Roster>,
    board: Option<Arc<Board>>,
    /// The index of the listener that they come to.
    listener: u16,
    /// How many were opened.
    opened: AtomicUsize,
    /// The longest payload that they may say.
    payload_bytes_max: usize,
}

impl Broker {
    /// Binds all addresses and starts all shards. When it returns, clients can connect.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs and no address is bound then.
    pub fn start(config: &Config) -> Result<Broker, StartError> {
        Broker::start_prepared(config, |_| {})
    }

    /// The same; `prepare` may change the settings of the shards before they start.
    ///
    /// # Errors
    /// As [`Broker::start`].
    pub fn start_prepared(
        config: &Config,
        prepare: impl FnOnce(&mut Settings),
    ) -> Result<Broker, StartError> {
        let plan = affinity::plan(
            config.shards,
            config.cores.as_deref(),
            config.embedded,
            &Facts::read(),
        )
        .map_err(StartError::Usage)?;
        let credentials = config
            .credentials(&|path| std::fs::read_to_string(path))
            .map_err(|error| StartError::Usage(error.to_string()))?;
        let accepted = match &config.accept_list {
            Some(path) => accepted::read(path).map_err(StartError::Usage)?,
            None => Vec::new(),
        };
        let shards = plan.shards.len();
        let mut bindings = Bindings::new(shards);
        let mut settings = settings(config, &mut bindings, shards)?;
        settings.accepted = accepted.clone();
        prepare(&mut settings);
        let settings = Arc::new(settings);
        let admin = config
            .admin
            .as_ref()
            .map(|at| {
                listener::bind_admin(&at.host, at.port).map_err(|error| cannot_listen(at, &error))
            })
            .transpose()?;
        let (failed, failures) = bounded(shards);
        let roster = Arc::<Roster>::default();
        let log = Arc::new(Log::default());
        let is_in_process = |listener: &ListenerSettings| listener.in_process;
        let listener = settings.listeners.iter().position(is_in_process);
        let listener = listener.expect("every broker has one for Links") as u16;
        let board = settings.board.clone();
        let payload_bytes_max = settings.server_limits.message_bytes_max;
        let Bindings {
            mut listening,
            by_shard,
            sockets,
        } = bindings;
        // They were bound behind those of the other clients, and these are all.
        let resp = count(&settings, |listener| listener.resp);
        let peers = count(&settings, |listener| listener.peers && !listener.in_process);
        let peers = listening.split_off(listening.len() - peers);
        let resp = listening.split_off(listening.len() - resp);
        let (keeping, changes) = bounded(CHANGES_MAX);
        let starting = Starting {
            settings,
            credentials: Arc::new(credentials),
            plan: &plan,
            coalesce_us: config.coalesce_us,
            failed,
            roster: roster.clone(),
            log: log.clone(),
            keeping: config.accept_list.is_some().then_some(keeping),
        };
        let (started, driver) = starting.start(config.io, by_shard)?;
        let mut broker = Broker {
            listening,
            resp,
            peers,
            admin,
            driver,
            pinning: plan.reason,
            shards: started.senders.into(),
            threads: started.threads,
            failures,
            sockets,
            links: Links {
                doors: started.doors,
                roster,
                listener,
                opened: AtomicUsize::new(0),
                payload_bytes_max,
                board,
            },
            log,
            process: Process::this(),
            keeper: None,
        };
        if let Some(path) = &config.accept_list {
            let has_ring = broker.driver.starts_with("io_uring");
            match Keeper::start(path, accepted, changes, has_ring) {
                Ok(keeper) => broker.keeper = Some(keeper),
                Err(error) => {
                    broker.stop();
                    let reason = format!("accept-list {}: {error}", path.display());
                    return Err(StartError::Usage(reason));
                }
            }
        }
        Ok(broker)
    }

    /// Serves operators on the admin listener, if the configuration has one, and it has not been taken.
    ///
    /// # Errors
    /// What the system says to one more listener or thread.
    pub fn serve_admin(
        &mut self,
        config: &Config,
        ready: &Arc<Readiness>,
    ) -> io::Result<Option<AdminHandle>> {
        let Some(listener) = self.admin.take() else {
            return Ok(None);
        };
        let state = AdminState {
            shards: self.shards(),
            ready: ready.clone(),
            key: config.admin_key.as_ref().map(|key| Key::new(key.reveal())),
            loopback: config.admin.as_ref().is_some_and(|at| at.is_loopback()),
            message_bytes_max: config.limits.message_bytes_max,
            info: BrokerInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                driver: self.driver.clone(),
                pinning: self.pinning.clone(),
            },
        };
        admin::start(listener, state).map(Some)
    }

    /// Opens a Link: a session of the peer protocol whose connection is in memory. Links are spread over the shards, one
    /// after the other; they count for no limit of connections. They end with the broker, and a drain leaves them to the
    /// last: with the end of the last shard's thread, or of the first that fails.
    ///
    /// # Errors
    /// If there is no descriptor left, or the broker has failed.
    pub fn open_link(&self) -> io::Result<HostEnd> {
        let gone = || io::Error::new(io::ErrorKind::NotConnected, "the broker is gone");
        let index = self.links.opened.fetch_add(1, Ordering::Relaxed) % self.shards.len();
        let (host, end) = self.links.doors[index].link()?;
        if !self.links.roster.add(&host) {
            return Err(gone());
        }
        let listener = self.links.listener;
        self.shards[index]
            .insist(Control::Link { end, listener }, RELOAD_TIME)
            .map_err(|_| gone())?;
        Ok(host)
    }

    /// The longest payload of a Link.
    pub fn payload_bytes_max(&self) -> usize {
        self.links.payload_bytes_max
    }

    /// What its threads say, for Links that watch it.
    pub fn log(&self) -> &Arc<Log> {
        &self.log
    }

    /// The way to the shards, for the admin listener.
    pub fn shards(&self) -> Arc<[ControlSender]> {
        self.shards.clone()
    }

    /// Where a publisher in this process sees whether anybody listens.
    pub fn board(&self) -> Option<&Arc<Board>> {
        self.links.board.as_ref()
    }

    /// Shards that ended by themselves arrive here. One is enough: a broker without one of its shards must go.
    pub fn failures(&self) -> &Receiver<Failure> {
        &self.failures
    }

    /// Has every shard believe these credentials from now on: whoever connects after this is asked for them. Sessions
    /// that are in stay in. False if a shard did not take the word in time, and goes on with what it has.
    pub fn reload(&self, credentials: &Arc<Credentials>) -> bool {
        let word = || Control::Reload {
            credentials: credentials.clone(),
        };
        let told = self
            .shards
            .iter()
            .map(|shard| shard.insist(word(), RELOAD_TIME));
        // All of them, also behind one that is stuck.
        told.filter(Result::is_err).count() == 0
    }

    /// Ends all sessions: no new clients; then either everything that was taken is handed on and all sessions get
    /// 1001 at once, or, with a `spread`, one after the other over that time. Returns when all are gone, at the
    /// latest after 9.5 s and the spread; `is_cancelled` is asked meanwhile, and ends it at once.
    pub fn drain(&self, spread: Duration, is_cancelled: &dyn Fn(Duration) -> bool) {
        let started = Instant::now();
        self.ask(QUIESCE_TIME, is_cancelled, |reply| Control::StopAccepting {
            reply,
        });
        if spread.is_zero()
            && !self.ask(QUIESCE_TIME, is_cancelled, |reply| Control::Quiesce {
                reply,
            })
        {
            tracing::warn!("some messages could not be handed on before the drain");
        }
        let spread_ms = spread.as_millis() as u64;
        let grace = DRAIN_TIME.saturating_sub(started.elapsed());
        self.ask(spread + grace, is_cancelled, |reply| Control::Close {
            spread_ms,
            reply,
        });
    }

    /// Sends a word to every shard and waits for all answers; false if some did not come in time.
    fn ask(
        &self,
        time: Duration,
        is_cancelled: &dyn Fn(Duration) -> bool,
        word: impl Fn(Reply<()>) -> Control,
    ) -> bool {
        let deadline = Instant::now() + time;
        let (answered, answers) = bounded::<()>(self.shards.len());
        for shard in self.shards.iter() {
            let answered = answered.clone();
            let word = word(Box::new(move |()| {
                let _ = answered.send(());
            }));
            let _ = shard.insist(word, deadline.saturating_duration_since(Instant::now()));
        }
        drop(answered);
        let mut left = self.shards.len();
        while left > 0 {
            match answers.recv_timeout(Duration::from_millis(10)) {
                Ok(()) => left -= 1,
                Err(RecvTimeoutError::Disconnected) => return false,
                Err(RecvTimeoutError::Timeout) => {
                    if Instant::now() >= deadline || is_cancelled(Duration::ZERO) {
                        return false;
                    }
                }
            }
        }
        true
    }

    /// Ends the shards' threads and gives the sockets' paths back. In a child process, which has none of the threads, it
    /// does nothing.
    pub fn stop(self) {
        if !self.process.is_this() {
            std::mem::forget(self);
            return;
        }
        for shard in self.shards.iter() {
            let _ = shard.insist(Control::Stop, DRAIN_TIME);
        }
        for thread in self.threads {
            let _ = thread.join();
        }
        for path in self.sockets {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What is bound so far.
struct Bindings {
    listening: Vec<Bound>,
    by_shard: Vec<Vec<Listening>>,
    sockets: Vec<PathBuf>,
}

impl Bindings {
    fn new(shards: usize) -> Bindings {
        Bindings {
            listening: Vec::new(),
            by_shard: (0..shards).map(|_| Vec::new()).collect(),
            sockets: Vec::new(),
        }
    }

    /// Binds one listener for all shards, and says where. None if it is one that a machine without IPv6 does
    /// without, and this is such a machine.
    fn bind_unless_skipped(
        &mut self,
        index: u16,
        addr: &ListenAddr,
        is_optional: bool,
    ) -> Result<Option<Bound>, StartError> {
        match self.bind(index, addr) {
            Ok(()) => {}
            Err(error) if is_optional && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::info!(%addr, %error, "skipped: there is no such address here");
                return Ok(None);
            }
            Err(error) => return Err(cannot_listen(addr, &error)),
        }
        Ok(self.listening.last().cloned())
    }

    /// Has the kernel look after the connections of the last listener: nothing else would tell that they are gone.
    fn keep_alive(&self) -> io::Result<()> {
        if let Some(Bound::Tcp(_)) = self.listening.last() {
            let sockets = self.by_shard.iter().filter_map(|of_shard| of_shard.last());
            sockets.into_iter().try_for_each(Listening::keep_alive)?;
        }
        Ok(())
    }

    /// Binds one listener for all shards.
    fn bind(&mut self, index: u16, addr: &ListenAddr) -> io::Result<()> {
        let bound = match addr {
            ListenAddr::Tcp { host, port } => {
                let (bound, sockets) = listener::bind_tcp(index, host, *port, self.by_shard.len())?;
                for (of_shard, socket) in self.by_shard.iter_mut().zip(sockets) {
                    of_shard.push(socket);
                }
                bound
            }
            ListenAddr::Unix(path) => {
                let (bound, socket) = listener::bind_unix(index, path)?;
                self.by_shard[0].push(socket);
                self.sockets.push(path.clone());
                bound
            }
        };
        self.listening.push(bound);
        Ok(())
    }
}

/// How many of the listeners are of a kind.
fn count(settings: &Settings, is_it: impl Fn(&&ListenerSettings) -> bool) -> usize {
    settings.listeners.iter().filter(is_it).count()
}

fn port_of(bound: &Bound) -> u16 {
    match bound {
        Bound::Tcp(address) => address.port(),
        Bound::Unix(_) => 0,
    }
}

fn cannot_listen(addr: &dyn fmt::Display, error: &io::Error) -> StartError {
    StartError::Usage(match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!("{addr}: address in use; another program listens there")
        }
        _ => format!("can't listen on {addr}: {error}"),
    })
}

/// The settings of the shards; binds the listeners on the way, because what can't be bound may be optional.
fn settings(
    config: &Config,
    bindings: &mut Bindings,
    shards: usize,
) -> Result<Settings, StartError> {
    let origins = |addr: &ListenAddr| -> Result<OriginRules, StartError> {
        let mut rules = OriginRules::new(&config.allow_origin, config.is_loopback_only())
            .map_err(StartError::Usage)?;
        rules.host_check = matches!(addr, ListenAddr::Tcp { .. });
        Ok(rules)
    };
    let mut listeners = Vec::new();
    for listener in &config.listeners {
        let index = listeners.len() as u16;
        let Some(bound) = bindings.bind_unless_skipped(index, &listener.addr, listener.optional)?
        else {
            continue;
        };
        let clusterws = Dialect {
            generation: listener.clusterws_generation,
            binary: listener.clusterws_binary,
        };
        listeners.push(ListenerSettings {
            resp: false,
            peers: false,
            in_process: false,
            address: bound.to_string(),
            port: port_of(&bound),
            native: listener.native,
            native_path: listener.native_path.clone(),
            clusterws: listener.clusterws.then_some(clusterws),
            clusterws_path: listener.clusterws_path.clone(),
            echo_path: None,
            http: listener.http,
            trust_peer_flag: listener.trust_peer_flag,
            client_services: listener.client_services,
            origins: origins(&listener.addr)?,
            dealt: matches!(listener.addr, ListenAddr::Unix(_)),
        });
    }
    for (addr, is_optional) in config.resp.iter().flat_map(ListenAddr::expand) {
        let index = listeners.len() as u16;
        if let Some(bound) = bindings.bind_unless_skipped(index, &addr, is_optional)? {
            bindings.keep_alive()?;
            listeners.push(ListenerSettings {
                resp: true,
                address: bound.to_string(),
                port: port_of(&bound),
                dealt: matches!(addr, ListenAddr::Unix(_)),
                ..ListenerSettings::default()
            });
        }
    }
    for (addr, is_optional) in config.peers.iter().flat_map(ListenAddr::expand) {
        let index = listeners.len() as u16;
        if let Some(bound) = bindings.bind_unless_skipped(index, &addr, is_optional)? {
            listeners.push(ListenerSettings {
                peers: true,
                address: bound.to_string(),
                port: port_of(&bound),
                dealt: matches!(addr, ListenAddr::Unix(_)),
                ..ListenerSettings::default()
            });
        }
    }
    // Not in the configuration: the Links of whoever started this broker.
    listeners.push(ListenerSettings {
        peers: true,
        in_process: true,
        address: "link".to_owned(),
        ..ListenerSettings::default()
    });
    let mut access = Access::new(config.access.clone());
    if config.has_authentication() {
        access = access.for_authenticated();
    }
    let mut limits = config.limits.clone();
    if limits.outbox_total_bytes_max == 0 {
        let memory = affinity::memory_bytes().unwrap_or(0) as usize;
        limits.outbox_total_bytes_max = (memory / 4).max(128 * MIB);
    }
    let mut broker = [0; 8];
    getrandom::fill(&mut broker[2..]).map_err(|error| io::Error::other(error.to_string()))?;
    let mut token_key = [0; 32];
    getrandom::fill(&mut token_key).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Settings {
        broker: u64::from_be_bytes(broker),
        process_id: std::process::id(),
        shards,
        echo_limits: limits.for_echo(),
        server_limits: limits.for_servers(&config.server_limits),
        limits,
        access,
        slow: SlowRules::new(config.slow.clone()),
        listeners,
        trusted: config.trust_proxy.clone(),
        admission: match config.admission {
            config::Admission::Open => Admission::Open,
            config::Admission::Host => Admission::Host,
        },
        is_embedded: config.embedded,
        accept_peers: match config.accept_peers {
            config::AcceptPeers::Any => AcceptPeers::Any,
            config::AcceptPeers::Listed => AcceptPeers::Listed,
        },
        accepted: Vec::new(),
        token_key,
        board: Some(Arc::default()),
        fault: Fault::new(config.fault),
    })
}

/// The ways to the shards, and their threads.
#[derive(Default)]
struct Started {
    senders: Vec<ControlSender>,
    doors: Vec<Door>,
    threads: Vec<JoinHandle<()>>,
}

/// What it takes to start the shards' threads. They share nothing but the rings, their wakers, and the count of
/// connections.
struct Starting<'a> {
    settings: Arc<Settings>,
    credentials: Arc<Credentials>,
    plan: &'a Plan,
    coalesce_us: u64,
    failed: Sender<Failure>,
    roster: Arc<Roster>,
    log: Arc<Log>,
    /// Where changes of the list of accepted tokens go, if it is kept.
    keeping: Option<Sender<TokenChange>>,
}

impl Starting<'_> {
    /// Starts all shards on the driver that was asked for; says which runs, and why.
    fn start(
        &self,
        io: Io,
        by_shard: Vec<Vec<Listening>>,
    ) -> Result<(Started, String), StartError> {
        let shards = by_shard.len();
        let wakers: Arc<[Waker]> = (0..shards)
            .map(|_| Waker::new())
            .collect::<io::Result<_>>()?;
        let clock = Clock::start();
        let why = match io {
            Io::Epoll => "it was asked for".to_owned(),
            Io::Auto | Io::Uring => {
                // Sockets of their own, so that epoll can have the others if there is no ring.
                let sockets = by_shard
                    .iter()
                    .map(|of_shard| of_shard.iter().map(Listening::try_clone).collect())
                    .collect::<io::Result<_>>()?;
                let wanted = wanted_features().map_err(StartError::Usage)?;
                match self.start_uring(wanted, sockets, &wakers, clock) {
                    Ok(started) => return Ok(started),
                    Err(reason) if io == Io::Uring => {
                        return Err(StartError::Usage(format!("io_uring: {reason}")));
                    }
                    Err(reason) => reason,
                }
            }
        };
        let connections = descriptors().saturating_sub(DESCRIPTORS_RESERVED).max(1);
        let turn_bytes_max = self.settings.limits.turn_bytes_max;
        let started = self.start_on(
            by_shard,
            &wakers,
            connections,
            move |own, wakers, listening| {
                Epoll::new(own, wakers, listening, turn_bytes_max, clock)
                    .map_err(|error| error.to_string())
            },
        );
        let started = started.map_err(|error| StartError::Internal(io::Error::other(error)))?;
        Ok((started, format!("epoll ({why})")))
    }

    fn start_uring(
        &self,
        features: Features,
        by_shard: Vec<Vec<Listening>>,
        wakers: &Arc<[Waker]>,
        clock: Clock,
    ) -> Result<(Started, String), String> {
        let shards = by_shard.len();
        let rings: RingFds = (0..shards).map(|_| AtomicI32::new(-1)).collect();
        // Each ring has a table of its own, as long as the descriptors that a process may have.
        let slots_max = descriptors().min(SLOTS_MAX);
        let connections = shards * slots_max.saturating_sub(DESCRIPTORS_RESERVED).max(1);
        let wanted = Wanted {
            features,
            slots_max,
            turn_bytes_max: self.settings.limits.turn_bytes_max,
            addresses_first: self.settings.addresses_matter(),
            has_host: self.settings.is_embedded,
            coalesce: Duration::from_micros(self.coalesce_us),
        };
        let (told, features) = bounded(shards);
        let started = self.start_on(
            by_shard,
            wakers,
            connections,
            move |own, wakers, listening| {
                let driver =
                    UringDriver::start(own, &wanted, wakers, rings.clone(), listening, clock)?;
                let _ = told.send(driver.features().clone());
                Ok(driver)
            },
        )?;
        let features = features
            .recv()
            .map_err(|_| "no shard has a ring".to_owned())?;
        Ok((started, format!("io_uring ({features})")))
    }

    /// Starts all shards on drivers that `make` makes, each on its own thread: a driver belongs to the thread that
    /// made it. None begins before all have one.
    fn start_on<D: Driver>(
        &self,
        by_shard: Vec<Vec<Listening>>,
        wakers: &Arc<[Waker]>,
        connections_possible: usize,
        make: impl Fn(ShardId, Arc<[Waker]>, Vec<Listening>) -> Result<D, String>
        + Clone
        + Send
        + 'static,
    ) -> Result<Started, String> {
        let shards = by_shard.len();
        let connections_max = self
            .settings
            .limits
            .connections_max
            .min(connections_possible);
        let population = Population::new(connections_max);
        let population = Arc::new(population.per_address(self.settings.limits.per_address_max));
        let turn_bytes_max = self.settings.limits.turn_bytes_max;
        let mut started = Started::default();
        let mut goes: Vec<Sender<()>> = Vec::new();
        let ended = WaitGroup::new();
        let ports = mesh::build(shards, RING_ENTRIES_MAX, RING_BYTES_MAX);
        for ((ports, listening), &cpu) in ports.into_iter().zip(by_shard).zip(&self.plan.shards) {
            let id = ports.shard();
            let (sender, control) = bounded(CONTROL_WORDS_MAX);
            let door = Door {
                bell: ports.bell(),
                waker: wakers[id.index()].clone(),
            };
            started.doors.push(door.clone());
            let wake = move || {
                if door.bell.ring() {
                    door.waker.wake();
                }
            };
            started.senders.push(ControlSender {
                channel: sender,
                wake: Box::new(wake),
            });
            let (settings, wakers) = (self.settings.clone(), wakers.clone());
            let credentials = self.credentials.clone();
            let (population, failed, make) =
                (population.clone(), self.failed.clone(), make.clone());
            let keeping = self.keeping.clone();
            let (ended, roster) = (ended.clone(), self.roster.clone());
            let logging = self.log.dispatch();
            let (begun, beginning) = bounded(1);
            let (go, gone) = bounded(1);
            let thread = std::thread::Builder::new()
                .name(format!("shard-{id}"))
                .spawn(move || {
                    let _logging = tracing::dispatcher::set_default(&logging);
                    if let Some(cpu) = cpu
                        && !affinity::pin_current_thread(cpu)
                    {
                        tracing::warn!(shard = %id, cpu, "can't be pinned");
                    }
                    let driver = match make(id, wakers, listening) {
                        Ok(driver) => driver,
                        Err(reason) => {
                            let _ = begun.send(Err(reason));
                            return;
                        }
                    };
                    let _ = begun.send(Ok(()));
                    if gone.recv().is_err() {
                        return;
                    }
                    let driver = Linked::new(driver, turn_bytes_max);
                    let mut shard = Shard::new(id, settings, driver.now());
                    shard.set_credentials(credentials);
                    let mut event_loop = EventLoop::new(shard, driver, ports, control, population);
                    if let Some(keeping) = keeping {
                        event_loop.keep_tokens(keeping);
                    }
                    // The state of a shard that panicked is not to be trusted: its loop is never entered again.
                    let reason = match catch_unwind(AssertUnwindSafe(|| event_loop.run())) {
                        Ok(Ok(())) => None,
                        Ok(Err(error)) => Some(error.to_string()),
                        Err(panic) => Some(format!("a panic: {}", panic_text(panic.as_ref()))),
                    };
                    if let Some(reason) = reason {
                        let _ = failed.send(Failure { shard: id, reason });
                    }
                    roster.end();
                    // Shards send to each other's rings by descriptor. None is closed while another shard may still
                    // do so: the number could be somebody else's by then.
                    ended.wait();
                    drop(event_loop);
                });
            started
                .threads
                .push(thread.map_err(|error| error.to_string())?);
            goes.push(go);
            beginning
                .recv()
                .unwrap_or_else(|_| Err("a shard's thread ended at once".to_owned()))?;
        }
        for go in goes {
            let _ = go.send(());
        }
        Ok(started)
    }
}

/// The features to use if the kernel has them: all, but those that `PUBSUB_URING_WITHOUT` names, to see what an
/// older kernel would do.
fn wanted_features() -> Result<Features, String> {
    let without = std::env::var("PUBSUB_URING_WITHOUT").unwrap_or_default();
    let names = without
        .split(',')
        .map(str::trim)
        .filter(|name| !name.is_empty());
    names.into_iter().try_fold(Features::ALL, |features, name| {
        features
            .without(name)
            .ok_or_else(|| format!("PUBSUB_URING_WITHOUT: no feature is named {name:?}"))
    })
}

/// How many descriptors this process may have.
fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.map_or(usize::MAX, |current| current as usize)
}

/// What a panic said.
fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "without words"
    }
}
