//! The admin listener: HTTP for operators and their probes, on a thread of its own (DESIGN 5.1).
//!
//! It shares nothing with the shards: it asks them over the control plane and waits a bounded time. So it can be
//! slow, or besieged, and no client notices. It is the only room with `async`, which stops here.
//!
//! Everything is bounded: [`CONNECTIONS_MAX`] connections at once (more wait unaccepted), [`HEAD_TIME`] for a
//! request head and for a body, [`CONNECTION_TIME`] for a connection, two seconds for the shards.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

use crate::net::control::ControlSender;

mod ask;
mod body;
pub mod counters;
pub mod guard;
mod metrics;
mod readiness;
mod refusal;
mod routes;
pub mod views;

pub use guard::Key;
pub use readiness::{Phase, Readiness};

/// Connections at once: some probes, some scrapers, some publishers. More wait in the listener's backlog.
pub const CONNECTIONS_MAX: usize = 64;
/// From the first wait for a request to the end of its head; an idle connection ends by it too.
pub const HEAD_TIME: Duration = Duration::from_secs(10);
/// After this a connection ends with the request in progress: nobody keeps one of the few for ever.
pub const CONNECTION_TIME: Duration = Duration::from_secs(60);
/// What a request in progress may take once its connection is to end.
pub const GRACE_TIME: Duration = Duration::from_secs(5);
/// How long [`AdminHandle::stop`] waits for requests in progress.
pub const STOP_TIME: Duration = Duration::from_secs(1);
/// The request heads, and the piece of a body that is read at once.
const READ_BYTES_MAX: usize = 16 * 1024;

/// What the listener knows of the broker.
pub struct AdminState {
    /// The way to every shard, by index.
    pub shards: Arc<[ControlSender]>,
    /// What `/readyz` answers.
    pub ready: Arc<Readiness>,
    /// The key for `POST /publish`; with one set it is asked for everywhere, without one publishing is refused
    /// beyond loopback.
    pub key: Option<Key>,
    /// The listener is bound to a loopback address.
    pub loopback: bool,
    /// The largest payload that is published.
    pub message_bytes_max: usize,
    /// What runs.
    pub info: BrokerInfo,
}

/// What runs, in words for operators.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize)]
pub struct BrokerInfo {
    /// The build: version, perhaps commit.
    pub version: String,
    /// The I/O driver and why it was picked.
    pub driver: String,
    /// Which shard is pinned where, or why not.
    pub pinning: String,
}

/// The running listener. Dropping it stops it too.
#[derive(Debug)]
pub struct AdminHandle {
    address: SocketAddr,
    stop: Option<watch::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl AdminHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Closes the listener, gives the requests in progress [`STOP_TIME`], and joins the thread.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for AdminHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the admin thread panicked");
        }
    }
}

/// Serves `listener` on a new thread until the handle is stopped or dropped.
///
/// # Errors
/// What the system says to the listener's set-up or to a new thread.
pub fn start(listener: TcpListener, state: AdminState) -> io::Result<AdminHandle> {
    assert!(!state.shards.is_empty(), "a broker has a shard");
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .build()?;
    let listener = {
        let _context = runtime.enter();
        tokio::net::TcpListener::from_std(listener)?
    };
    let router = routes::router(state);
    let (stop, stopped) = watch::channel(());
    let thread = thread::Builder::new()
        .name("pubsub-admin".into())
        .spawn(move || runtime.block_on(accept(listener, router, stopped)))?;
    Ok(AdminHandle {
        address,
        stop: Some(stop),
        thread: Some(thread),
    })
}

/// Accepts until `stopped` loses its sender.
async fn accept(
    listener: tokio::net::TcpListener,
    router: Router,
    mut stopped: watch::Receiver<()>,
) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = async {
            // The semaphore is never closed.
            let slot = slots.clone().acquire_owned().await.ok();
            listener
                .accept()
                .await
                .map(|(stream, remote)| (slot, stream, remote))
        };
        let accepted = tokio::select! {
            accepted = accepted => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok((slot, stream, remote)) => {
                let service = router.clone().layer(Extension(routes::Remote(remote.ip())));
                tokio::spawn(serve(stream, service, slot, stopped.clone()));
            }
            Err(error) => {
                // Out of descriptors, as a rule. Those who are here go on; do not spin meanwhile.
                tracing::warn!(%error, "admin accept");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    // All slots free: all connections ended.
    let all = slots.acquire_many(CONNECTIONS_MAX as u32);
    drop(timeout(STOP_TIME, all).await);
}

/// One connection, to its end.
async fn serve(
    stream: TcpStream,
    router: Router,
    _slot: Option<OwnedSemaphorePermit>,
    mut stopped: watch::Receiver<()>,
) {
    // Refused only for a connection that is gone already.
    drop(stream.set_nodelay(true));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(READ_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    tokio::select! {
        // An error is the client's: it sent no HTTP, or went away.
        _ = connection.as_mut() => return,
        () = sleep(CONNECTION_TIME) => {}
        _ = stopped.changed() => {}
    }
    connection.as_mut().graceful_shutdown();
    drop(timeout(GRACE_TIME, connection).await);
}
