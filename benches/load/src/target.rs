//! Where the broker is: `ws://host:port/path`, `unix:/path`, `redis://host:port`, `nats://host:port`.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;

/// A place to connect to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// As given.
    url: String,
    /// What speaks there.
    pub scheme: Scheme,
    /// What the socket connects to.
    pub endpoint: Endpoint,
    /// The `Host` header of a handshake.
    pub host: String,
    /// The path of a handshake.
    pub path: String,
}

/// What speaks at a target, as far as its URL says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scheme {
    /// WebSocket.
    Ws,
    /// RESP.
    Redis,
    /// NATS.
    Nats,
    /// Whatever the protocol speaks without a URL scheme of its own.
    Unix,
}

/// What a socket connects to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Endpoint {
    /// TCP.
    Tcp(SocketAddr),
    /// A socket in the file system.
    Unix(PathBuf),
}

impl Target {
    /// Reads a URL and looks its host up.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(url: &str) -> Result<Target, String> {
        let fail = |reason: &str| Err(format!("{url}: {reason}"));
        if let Some(path) = url.strip_prefix("unix:") {
            if path.is_empty() {
                return fail("a path is missing");
            }
            return Ok(Target {
                url: url.to_owned(),
                scheme: Scheme::Unix,
                endpoint: Endpoint::Unix(PathBuf::from(path)),
                host: "localhost".to_owned(),
                path: "/".to_owned(),
            });
        }
        let (scheme, rest) = match url.split_once("://") {
            Some(("ws", rest)) => (Scheme::Ws, rest),
            Some(("redis", rest)) => (Scheme::Redis, rest),
            Some(("nats", rest)) => (Scheme::Nats, rest),
            Some(("wss" | "rediss" | "tls", _)) => return fail("TLS is not spoken here"),
            _ => return fail("not ws://, unix:, redis:// or nats://"),
        };
        let (host, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if host.contains('@') {
            return fail("a user or password in the URL is not supported");
        }
        let port = match scheme {
            Scheme::Ws | Scheme::Unix => 80,
            Scheme::Redis => 6379,
            Scheme::Nats => 4222,
        };
        let has_port = host.rsplit_once(':').is_some_and(|(name, port)| {
            // Not one of the colons of an IPv6 address.
            !name.is_empty() && !port.contains(']')
        });
        let address = if has_port {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        };
        let found = match address.to_socket_addrs() {
            Ok(mut found) => found.next(),
            Err(error) => return fail(&error.to_string()),
        };
        match found {
            Some(found) => Ok(Target {
                url: url.to_owned(),
                scheme,
                endpoint: Endpoint::Tcp(found),
                host: host.to_owned(),
                path: path.to_owned(),
            }),
            None => fail("no such host"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read() {
        let check = |url: &str, scheme, endpoint: &str, host: &str, path: &str| {
            let target = Target::parse(url).unwrap();
            let expected = match endpoint.strip_prefix('/') {
                Some(_) => Endpoint::Unix(PathBuf::from(endpoint)),
                None => Endpoint::Tcp(endpoint.parse().unwrap()),
            };
            assert_eq!(target.endpoint, expected, "{url}");
            assert_eq!(target.scheme, scheme);
            assert_eq!((&*target.host, &*target.path), (host, path), "{url}");
            assert_eq!(target.to_string(), url);
        };
        let ws = Scheme::Ws;
        check(
            "ws://127.0.0.1:8000/",
            ws,
            "127.0.0.1:8000",
            "127.0.0.1:8000",
            "/",
        );
        check("ws://127.0.0.1", ws, "127.0.0.1:80", "127.0.0.1", "/");
        check("ws://[::1]:9/a?b", ws, "[::1]:9", "[::1]:9", "/a?b");
        check("ws://[::1]/", ws, "[::1]:80", "[::1]", "/");
        check("unix:/tmp/x", Scheme::Unix, "/tmp/x", "localhost", "/");
        check(
            "redis://127.0.0.1",
            Scheme::Redis,
            "127.0.0.1:6379",
            "127.0.0.1",
            "/",
        );
        check(
            "nats://127.0.0.1:1",
            Scheme::Nats,
            "127.0.0.1:1",
            "127.0.0.1:1",
            "/",
        );
    }

    #[test]
    fn other_urls_are_refused() {
        for url in [
            "",
            "localhost:8000",
            "http://localhost/",
            "wss://localhost/",
            "unix:",
            "ws://",
            "ws://127.0.0.1:x/",
            "redis://:secret@127.0.0.1/",
        ] {
            let refusal = Target::parse(url).unwrap_err();
            assert!(refusal.starts_with(url), "{refusal}");
        }
    }
}
