//! Listening sockets: bound once for the whole broker, one per shard and TCP address.
//!
//! Every shard has a socket of its own with SO_REUSEPORT, and the kernel spreads connections over them by the hash of
//! their addresses. The same option would let a second broker share the port in silence; so each address is
//! first bound without it, which fails if anybody listens there.
//! A Unix socket has one listener, on the first shard; its connections are dealt to all in turn.

use std::fmt;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, SockRef, Socket, TcpKeepalive, Type};

use crate::address::RemoteAddress;

/// Connections that wait to be accepted, per socket; the kernel cuts it to `somaxconn`.
const BACKLOG: i32 = 4096;

/// How long an address in use is tried again. The kernel takes a ring of a killed broker apart in the background, and
/// its listener goes last: some milliseconds after the process is gone.
const RELEASE_TIME: Duration = Duration::from_secs(1);

/// Where a listener really listens.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Bound {
    /// An address, the port never 0.
    Tcp(SocketAddr),
    /// A path.
    Unix(PathBuf),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Bound::Tcp(address) => address.fmt(f),
            Bound::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One listening socket of one shard.
#[derive(Debug)]
pub struct Listening {
    index: u16,
    socket: OwnedFd,
}

impl Listening {
    /// The index of its listener in the settings.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// The socket, non-blocking.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Has the kernel ask the clients of connections without traffic whether they are still there, so that dead ones
    /// are gone 45 s after their last byte (promise 26), as where the protocol has pings. Accepted sockets inherit it.
    ///
    /// # Errors
    /// If this is no TCP socket.
    pub fn keep_alive(&self) -> io::Result<()> {
        let keep_alive = TcpKeepalive::new()
            .with_time(Duration::from_secs(25))
            .with_interval(Duration::from_secs(5))
            .with_retries(4);
        SockRef::from(&self.socket).set_tcp_keepalive(&keep_alive)
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Listening> {
        Ok(Listening {
            index: self.index,
            socket: self.socket.try_clone()?,
        })
    }
}

/// Fills in the remote address of an accepted socket, for operators.
pub fn learn_remote(accepted: &OwnedFd, remote: &RemoteAddress) {
    let address = rustix::net::getpeername(accepted).ok().flatten();
    match address.map(SocketAddr::try_from) {
        Some(Ok(address)) => remote.learn_ip(address),
        Some(Err(_)) => remote.learn_unix(),
        None => {}
    }
}

/// Binds a TCP address for every shard. Port 0 takes a free one, the same for all.
///
/// # Errors
/// If somebody listens there already, or the address is not of this machine.
pub fn bind_tcp(
    index: u16,
    host: &str,
    port: u16,
    shards: usize,
) -> io::Result<(Bound, Vec<Listening>)> {
    let address = (host, port)
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the name has no address"))?;
    let address = probe(address)?;
    let bound = Bound::Tcp(address);
    let sockets = (0..shards)
        .map(|_| {
            let socket = tcp_socket(address)?;
            socket.set_reuse_port(true)?;
            // Accepted sockets inherit it: what a turn has joined need not wait for more.
            socket.set_tcp_nodelay(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok(Listening {
                index,
                socket: socket.into(),
            })
        })
        .collect::<io::Result<_>>()?;
    Ok((bound, sockets))
}

/// Listens for a moment where nobody else may: the address is free, and port 0 has a number.
fn probe(address: SocketAddr) -> io::Result<SocketAddr> {
    let deadline = Instant::now() + RELEASE_TIME;
    loop {
        let probe = tcp_socket(address)?;
        match probe.bind(&address.into()).and_then(|()| probe.listen(1)) {
            Ok(()) => return Ok(probe.local_addr()?.as_socket().unwrap_or(address)),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error),
        }
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.cloexec().nonblocking(),
        None,
    )?;
    // Closed connections of an earlier broker don't keep the port; a listener does.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Binds a Unix socket. A socket that nobody listens to any more is unlinked first.
///
/// # Errors
/// If somebody listens there, or the path is something else than a socket.
pub fn bind_unix(index: u16, path: &Path) -> io::Result<(Bound, Listening)> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is not a socket",
            ));
        }
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path)?
            }
            Err(error) => return Err(error),
        }
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.cloexec().nonblocking(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    socket.listen(BACKLOG)?;
    let bound = Bound::Unix(path.to_owned());
    Ok((
        bound,
        Listening {
            index,
            socket: socket.into(),
        },
    ))
}

/// Binds the admin listener.
///
/// # Errors
/// As [`bind_tcp`].
pub fn bind_admin(host: &str, port: u16) -> io::Result<std::net::TcpListener> {
    let (_, mut sockets) = bind_tcp(0, host, port, 1)?;
    let socket = sockets.pop().expect("one shard, one socket").socket;
    Ok(socket.into())
}
