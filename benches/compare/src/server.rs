//! A server: a contender that runs, on its CPUs, until it is dropped.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::contender::{Contender, Protocol};
use crate::places::Places;

/// A runtime may take its time to start on a busy machine.
const START_TIME: Duration = Duration::from_secs(20);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// Below the ports that clients get, so that no connection sits on one of ours, or connects to itself.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A running contender.
pub struct Server {
    child: Child,
    contender: Contender,
    /// On loopback.
    port: u16,
    /// The other one, of those that have two.
    spare_port: u16,
    /// Where it may run.
    pub cpus: Vec<usize>,
}

impl Server {
    /// Starts one and waits until it accepts.
    ///
    /// # Errors
    /// It ended, or does not accept; with the end of what it said.
    pub fn start(
        contender: Contender,
        places: &Places,
        first_cpu: usize,
    ) -> Result<Server, String> {
        let cpus = contender.cpus(first_cpu);
        let (port, spare_port) = (free_port()?, free_port()?);
        let mut command = contender.command(places, &cpus, port, spare_port);
        let log = places.cache.join(format!("{}.log", contender.name()));
        let output = |log: &PathBuf| -> std::io::Result<(File, File)> {
            let file = File::create(log)?;
            Ok((file.try_clone()?, file))
        };
        let (out, err) =
            output(&log).map_err(|error| format!("cannot write {}: {error}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::from(out))
            .stderr(Stdio::from(err));
        // A child has the affinity of the thread that starts it, so that thread is one of its own.
        let child = thread::scope(|scope| {
            let spawned = scope.spawn(|| {
                pin(&cpus)?;
                command
                    .spawn()
                    .map_err(|error| format!("{}: {error}", contender.name()))
            });
            spawned.join().expect("nothing in it panics")
        })?;
        let mut server = Server {
            child,
            contender,
            port,
            spare_port,
            cpus,
        };
        let began = Instant::now();
        let ports = match contender.has_resp_listener() {
            true => vec![port, spare_port],
            false => vec![port],
        };
        let accepts = |port: &u16| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_ok();
        while !ports.iter().all(accepts) {
            let ended = server.child.try_wait().ok().flatten();
            if ended.is_some() || began.elapsed() > START_TIME {
                let said = std::fs::read_to_string(&log).unwrap_or_default();
                let last: Vec<&str> = said.lines().rev().take(3).collect();
                let name = contender.name();
                return Err(format!("{name} does not accept connections: {last:?}"));
            }
            thread::sleep(LOOK);
        }
        Ok(server)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// As the generator wants it: protocol and URL.
    pub fn address(&self) -> (&'static str, String) {
        self.address_of(self.contender.protocol())
    }

    /// The same for its subscribers, in turn.
    pub fn audience(&self) -> Vec<(&'static str, String)> {
        let protocols = self.contender.audience().into_iter();
        protocols
            .map(|protocol| self.address_of(protocol))
            .collect()
    }

    /// Where it speaks native JSON, if it is the broker.
    pub fn native_address(&self) -> (&'static str, String) {
        self.address_of(Protocol::Native)
    }

    fn address_of(&self, protocol: Protocol) -> (&'static str, String) {
        let (name, scheme, path) = match protocol {
            Protocol::Native => ("native", "ws", "/"),
            Protocol::Plain => ("plain", "ws", "/"),
            Protocol::Redis => ("redis", "redis", ""),
            Protocol::Clusterws => ("clusterws", "ws", "/clusterws"),
            Protocol::NatsWebSocket => ("nats", "ws", "/"),
            Protocol::NatsTcp => ("nats", "nats", ""),
        };
        let port = self.port_of(protocol);
        (name, format!("{scheme}://127.0.0.1:{port}{path}"))
    }

    /// Where it speaks what it speaks.
    pub fn port(&self) -> u16 {
        self.port_of(self.contender.protocol())
    }

    fn port_of(&self, protocol: Protocol) -> u16 {
        match protocol == Protocol::Redis && self.contender.has_resp_listener() {
            true => self.spare_port,
            false => self.port,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Keeps the calling thread to these CPUs.
///
/// # Errors
/// The machine has no such CPU.
pub fn pin(cpus: &[usize]) -> Result<(), String> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu);
    }
    sched_setaffinity(None, &set).map_err(|error| format!("cannot pin to CPU {cpus:?}: {error}"))
}

/// One that nobody listens on. Each call looks at the next ones.
fn free_port() -> Result<u16, String> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let count = PORTS.end - PORTS.start;
    // Two runs at once begin at different places.
    let base = (std::process::id() % u32::from(count)) as u16;
    for _ in 0..count {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let offset = (u32::from(base) + u32::from(step)) % u32::from(count);
        let port = PORTS.start + offset as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no port is free".to_owned())
}
