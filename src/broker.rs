//! The broker: listeners, shards, threads and the mesh put together, and taken apart again.
//!
//! It starts everything or nothing: all addresses are bound before the first thread runs. It reads no command
//! line and handles no signal; `main` does that, and a host that embeds the broker does not.

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::address::ShardId;
use crate::config::{Config, Io, ListenAddr};
use crate::limits::{MIB, RING_BYTES_MAX, RING_ENTRIES_MAX};
use crate::mesh;
use crate::net::Driver as _;
use crate::net::affinity::{self, Facts, Plan};
use crate::net::control::{Control, ControlSender, Reply};
use crate::net::epoll::{Epoll, Waker};
use crate::net::event_loop::{EventLoop, Population};
use crate::net::listener::{self, Bound, Listening};
use crate::shard::Shard;
use crate::shard::auth::Access;
use crate::shard::settings::{Admission, ListenerSettings, Settings};
use crate::shard::slow::SlowRules;
use crate::ws::origin::OriginRules;

/// Words of the control plane that may wait for one shard.
const CONTROL_WORDS_MAX: usize = 1024;
/// How long a drain takes at most, besides what its spread asks for: the process is to be gone within 10 s.
const DRAIN_TIME: Duration = Duration::from_millis(9_500);
/// How much of it may pass until everything taken has been handed on.
const QUIESCE_TIME: Duration = Duration::from_secs(2);
/// Descriptors that are kept for everything that is no connection.
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
    /// Where operators will connect: bound, and the caller's to serve.
    pub admin: Option<TcpListener>,
    /// Which driver runs, and why.
    pub driver: &'static str,
    /// Where the shards run, and why.
    pub pinning: String,
    shards: Arc<[ControlSender]>,
    threads: Vec<JoinHandle<()>>,
    failures: Receiver<Failure>,
    sockets: Vec<PathBuf>,
}

impl Broker {
    /// Binds all addresses and starts all shards. When it returns, clients can connect.
    ///
    /// # Errors
    /// [`StartError`]; nothing runs and no address is bound then.
    pub fn start(config: &Config) -> Result<Broker, StartError> {
        if config.io == Io::Uring {
            return Err(StartError::Usage(
                "io: this build has no io_uring driver; use auto or epoll".to_owned(),
            ));
        }
        let plan = affinity::plan(
            config.shards,
            config.cores.as_deref(),
            false,
            &Facts::read(),
        )
        .map_err(StartError::Usage)?;
        let shards = plan.shards.len();
        let mut bindings = Bindings::new(shards);
        let settings = Arc::new(settings(config, &mut bindings, shards)?);
        let admin = config
            .admin
            .as_ref()
            .map(|at| {
                listener::bind_admin(&at.host, at.port).map_err(|error| cannot_listen(at, &error))
            })
            .transpose()?;
        let (failed, failures) = bounded(shards);
        let Bindings {
            listening,
            by_shard,
            sockets,
        } = bindings;
        let (senders, threads) = start_shards(&settings, &plan, by_shard, &failed)?;
        Ok(Broker {
            listening,
            admin,
            driver: "epoll",
            pinning: plan.reason,
            shards: senders,
            threads,
            failures,
            sockets,
        })
    }

    /// The way to the shards, for the admin listener.
    pub fn shards(&self) -> Arc<[ControlSender]> {
        self.shards.clone()
    }

    /// Shards that ended by themselves arrive here. One is enough: a broker without one of its shards must go.
    pub fn failures(&self) -> &Receiver<Failure> {
        &self.failures
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
        let (answered, answers) = bounded::<()>(self.shards.len());
        for shard in self.shards.iter() {
            let answered = answered.clone();
            let _ = shard.send(word(Box::new(move |()| {
                let _ = answered.send(());
            })));
        }
        drop(answered);
        let deadline = Instant::now() + time;
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

    /// Ends the shards' threads and gives the sockets' paths back.
    pub fn stop(self) {
        for shard in self.shards.iter() {
            let _ = shard.send(Control::Stop);
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
        match bindings.bind(listeners.len() as u16, &listener.addr) {
            Ok(()) => {}
            Err(error) if listener.optional && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::info!(addr = %listener.addr, %error, "skipped: there is no such address here");
                continue;
            }
            Err(error) => return Err(cannot_listen(&listener.addr, &error)),
        }
        listeners.push(ListenerSettings {
            native: listener.native,
            native_path: listener.native_path.clone(),
            http: listener.http,
            trust_peer_flag: listener.trust_peer_flag,
            client_services: listener.client_services,
            origins: origins(&listener.addr)?,
            dealt: matches!(listener.addr, ListenAddr::Unix(_)),
        });
    }
    let mut limits = config.limits.clone();
    if limits.outbox_total_bytes_max == 0 {
        let memory = affinity::memory_bytes().unwrap_or(0) as usize;
        limits.outbox_total_bytes_max = (memory / 4).max(128 * MIB);
    }
    let mut broker = [0; 8];
    getrandom::fill(&mut broker[2..]).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(Settings {
        broker: u64::from_be_bytes(broker),
        shards,
        limits,
        access: Access::new(config.access.clone()),
        slow: SlowRules::new(config.slow.clone()),
        listeners,
        admission: Admission::Open,
    })
}

/// The ways to the shards, and their threads.
type Started = (Arc<[ControlSender]>, Vec<JoinHandle<()>>);

/// Starts the threads. They share nothing but the rings, their wakers, and the count of connections.
fn start_shards(
    settings: &Arc<Settings>,
    plan: &Plan,
    by_shard: Vec<Vec<Listening>>,
    failed: &Sender<Failure>,
) -> Result<Started, StartError> {
    let shards = by_shard.len();
    let wakers: Arc<[Waker]> = (0..shards)
        .map(|_| Waker::new())
        .collect::<io::Result<_>>()?;
    let population = Arc::new(Population::new(
        settings.limits.connections_max.min(connections_possible()),
    ));
    let started = Instant::now();
    let mut senders = Vec::new();
    let mut threads = Vec::new();
    let ports = mesh::build(shards, RING_ENTRIES_MAX, RING_BYTES_MAX);
    for ((ports, listening), &cpu) in ports.into_iter().zip(by_shard).zip(&plan.shards) {
        let id = ports.shard();
        let (sender, control) = bounded(CONTROL_WORDS_MAX);
        let (bell, waker) = (ports.bell(), wakers[id.index()].clone());
        let wake = move || {
            if bell.ring() {
                waker.wake();
            }
        };
        senders.push(ControlSender {
            channel: sender,
            wake: Box::new(wake),
        });
        let (settings, wakers) = (settings.clone(), wakers.clone());
        let (population, failed) = (population.clone(), failed.clone());
        let (begun, beginning) = bounded(1);
        let thread = std::thread::Builder::new()
            .name(format!("shard-{id}"))
            .spawn(move || {
                if let Some(cpu) = cpu
                    && !affinity::pin_current_thread(cpu)
                {
                    tracing::warn!(shard = %id, cpu, "can't be pinned");
                }
                // On its own thread: a driver belongs to the thread that made it.
                let turn_bytes_max = settings.limits.turn_bytes_max;
                let driver = match Epoll::new(id, wakers, listening, turn_bytes_max, started) {
                    Ok(driver) => driver,
                    Err(error) => {
                        let _ = begun.send(Err(error));
                        return;
                    }
                };
                let _ = begun.send(Ok(()));
                let shard = Shard::new(id, settings, driver.now());
                let mut event_loop = EventLoop::new(shard, driver, ports, control, population);
                // The state of a shard that panicked is not to be trusted: its loop is never entered again.
                let reason = match catch_unwind(AssertUnwindSafe(|| event_loop.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "a panic".to_owned(),
                };
                let _ = failed.send(Failure { shard: id, reason });
            })?;
        threads.push(thread);
        beginning
            .recv()
            .map_err(|_| io::Error::other("a shard's thread ended at once"))??;
    }
    Ok((senders.into(), threads))
}

/// How many connections the descriptors of this process allow.
fn connections_possible() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let descriptors = limit.current.map_or(usize::MAX, |current| current as usize);
    descriptors.saturating_sub(DESCRIPTORS_RESERVED).max(1)
}
