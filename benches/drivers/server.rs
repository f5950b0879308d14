//! A server of one engine: a pinned thread that serves until all its clients are gone.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use core_affinity::CoreId;
use pubsub::net::uring::features::{self, Features};
use socket2::SockRef;

use crate::gate::Gate;
use crate::scenario::Scenario;
use crate::{epoll, raw, seam, tokio_ring};

/// What moves the bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// The crate `io-uring` and nothing else.
    Raw,
    /// Tasks on tokio-uring.
    TokioUring,
    /// `epoll_wait`, `recv` and `send`, and nothing else.
    Epoll,
    /// The broker's io_uring driver.
    OurUring,
    /// The broker's epoll driver.
    OurEpoll,
}

impl Engine {
    const ALL: [Engine; 5] = [
        Engine::Raw,
        Engine::TokioUring,
        Engine::Epoll,
        Engine::OurUring,
        Engine::OurEpoll,
    ];

    /// Those that can run here. Says which can't, and why.
    pub fn available() -> Vec<Engine> {
        let refused = features::set_up(&Features::ALL).err();
        let mut engines = Engine::ALL.to_vec();
        if let Some(why) = refused {
            engines.retain(|engine| {
                let is_ring = !matches!(engine, Engine::Epoll | Engine::OurEpoll);
                if is_ring {
                    eprintln!("skipped: {}: {why}", engine.name());
                }
                !is_ring
            });
        }
        engines
    }

    /// How it is called in reports.
    pub fn name(self) -> &'static str {
        match self {
            Engine::Raw => "raw ring",
            Engine::TokioUring => "tokio-uring",
            Engine::Epoll => "raw epoll",
            Engine::OurUring => "our io_uring",
            Engine::OurEpoll => "our epoll",
        }
    }
}

/// A server that runs.
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// The number of its thread.
    pub thread: u32,
    handle: JoinHandle<()>,
}

impl Server {
    /// Starts one on a CPU, if there is one for it.
    ///
    /// # Errors
    /// There is no port or thread left.
    pub fn start(
        engine: Engine,
        scenario: Scenario,
        gate: Gate,
        cpu: Option<CoreId>,
    ) -> io::Result<Server> {
        let (address, serve): (_, Box<dyn FnOnce() + Send>) = match engine {
            Engine::Raw | Engine::TokioUring | Engine::Epoll => {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                // Accepted sockets inherit it.
                SockRef::from(&listener).set_tcp_nodelay(true)?;
                SockRef::from(&listener).listen(4096)?;
                let address = listener.local_addr()?;
                let serve = match engine {
                    Engine::Raw => raw::serve,
                    Engine::TokioUring => tokio_ring::serve,
                    Engine::Epoll | Engine::OurUring | Engine::OurEpoll => epoll::serve,
                };
                (address, Box::new(move || serve(listener, scenario, gate)))
            }
            Engine::OurUring | Engine::OurEpoll => {
                let (address, listening) = seam::listen();
                let serve = match engine {
                    Engine::OurUring => seam::serve_by_uring,
                    _ => seam::serve_by_epoll,
                };
                (address, Box::new(move || serve(listening, scenario, gate)))
            }
        };
        let (begun, beginning) = mpsc::channel();
        let handle = thread::Builder::new()
            .name(engine.name().to_owned())
            .spawn(move || {
                if let Some(cpu) = cpu {
                    assert!(core_affinity::set_for_current(cpu), "can't be pinned");
                }
                let _ = begun.send(rustix::thread::gettid());
                serve();
            })?;
        let thread = beginning.recv().map_err(io::Error::other)?;
        Ok(Server {
            address,
            thread: thread.as_raw_nonzero().get().unsigned_abs(),
            handle,
        })
    }

    /// Waits for its end, which comes when all its clients are gone.
    ///
    /// # Panics
    /// If it has panicked.
    pub fn join(self) {
        self.handle.join().expect("the server ended well");
    }
}

/// The connections of a scenario, in the order in which they are made.
///
/// # Panics
/// If there are too few descriptors.
pub fn accept_all(listener: &TcpListener, scenario: Scenario) -> Vec<TcpStream> {
    (0..scenario.connections())
        .map(|_| listener.accept().expect("everybody can be accepted").0)
        .collect()
}
