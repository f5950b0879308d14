//! Dialing: an address, and a connection to it, looked up and made by a thread of its own, since both may take long.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::super::{LinkError, lock};
use crate::net::waker::Waker;

/// How long one address is tried.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// More addresses of one name are not tried in one go.
const ADDRESSES_MAX: usize = 8;

/// Where a broker listens for peers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Place {
    /// `unix:/path`
    Unix(PathBuf),
    /// `tcp://host:port`; an IPv6 address in brackets.
    Tcp { host: String, port: u16 },
}

impl Place {
    /// Reads a URL.
    ///
    /// # Errors
    /// [`LinkError::Invalid`].
    pub fn parse(url: &str) -> Result<Place, LinkError> {
        if let Some(path) = url.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err(LinkError::Invalid("unix: wants an absolute path behind it"));
            }
            return Ok(Place::Unix(path.into()));
        }
        let invalid = LinkError::Invalid("a broker's url is unix:/path or tcp://host:port");
        let Some(address) = url.strip_prefix("tcp://") else {
            return Err(invalid);
        };
        let address = address.strip_suffix('/').unwrap_or(address);
        let Some((host, port)) = address.rsplit_once(':') else {
            return Err(invalid);
        };
        let port = port.parse().ok().filter(|&port| port != 0);
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_host = match bare {
            Some(host) => host.parse::<std::net::Ipv6Addr>().is_ok(),
            None => !host.is_empty() && !host.contains([':', '/', '@', '[', ']']),
        };
        match port {
            Some(port) if is_host => Ok(Place::Tcp {
                host: bare.unwrap_or(host).to_owned(),
                port,
            }),
            _ => Err(invalid),
        }
    }

    /// Looks it up and connects. May take long.
    fn connect(&self) -> io::Result<OwnedFd> {
        match self {
            Place::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_nonblocking(true)?;
                Ok(stream.into())
            }
            Place::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::NotFound);
                for address in (host.as_str(), *port)
                    .to_socket_addrs()?
                    .take(ADDRESSES_MAX)
                {
                    match TcpStream::connect_timeout(&address, CONNECT_TIME) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            stream.set_nonblocking(true)?;
                            return Ok(stream.into());
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }
}

/// A connection that is being made.
#[derive(Debug)]
pub struct Dial {
    result: Arc<Mutex<Option<io::Result<OwnedFd>>>>,
    waker: Waker,
}

impl Dial {
    /// Begins to connect.
    ///
    /// # Errors
    /// If there is no thread or descriptor left.
    pub fn start(place: &Place) -> io::Result<Dial> {
        let dial = Dial {
            result: Arc::default(),
            waker: Waker::new()?,
        };
        let (result, waker, place) = (dial.result.clone(), dial.waker.clone(), place.clone());
        thread::Builder::new()
            .name("link-dial".to_owned())
            .spawn(move || {
                *lock(&result) = Some(place.connect());
                waker.wake();
            })?;
        Ok(dial)
    }

    /// Readable when there is a result.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.waker.fd()
    }

    /// What it came to, once.
    pub fn result(&self) -> Option<io::Result<OwnedFd>> {
        lock(&self.result).take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_places() {
        let tcp = |host: &str, port| {
            Some(Place::Tcp {
                host: host.to_owned(),
                port,
            })
        };
        for (url, place) in [
            (
                "unix:/run/hub.sock",
                Some(Place::Unix("/run/hub.sock".into())),
            ),
            ("tcp://hub:3001", tcp("hub", 3001)),
            ("tcp://127.0.0.1:1/", tcp("127.0.0.1", 1)),
            ("tcp://[::1]:3001", tcp("::1", 3001)),
            ("unix:hub.sock", None),
            ("unix:", None),
            ("tcp://hub", None),
            ("tcp://:3001", None),
            ("tcp://hub:0", None),
            ("tcp://hub:65536", None),
            ("tcp://::1:3001", None),
            ("tcp://key@hub:3001", None),
            ("tcp://hub/x:3001", None),
            ("tcp://[hub]:3001", None),
            ("ws://hub:3001", None),
            ("", None),
        ] {
            assert_eq!(Place::parse(url).ok(), place, "{url}");
        }
    }
}
