//! Where a broker listens: addresses as they are written, and what is spoken behind them. Pure: names are not
//! looked up here.
//!
//! Invariant: a host is an IP address or a plausible name, and is empty only in the short form `:8000`, which
//! [`Listener::expand`] takes apart before anybody binds.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;
use std::str::FromStr;

use crate::protocol::clusterws::Generation;

/// The longest path that fits a Unix socket address, its final zero not counted.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A host and a port.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct HostPort {
    /// An IP address (IPv6 without brackets) or a name.
    pub host: String,
    /// The port; 0 for any that is free.
    pub port: u16,
}

impl HostPort {
    /// Can only this machine reach it? A name is taken for local only if it is `localhost`.
    pub fn is_loopback(&self) -> bool {
        if self.host.eq_ignore_ascii_case("localhost") {
            return true;
        }
        self.host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.to_canonical().is_loopback())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<HostPort, String> {
        let Some((host, port)) = text.rsplit_once(':') else {
            return Err("wants host:port, such as 127.0.0.1:8000 or [::1]:8000".to_owned());
        };
        let port = match port.parse::<u16>() {
            Ok(number) if port.bytes().all(|byte| byte.is_ascii_digit()) => number,
            Ok(_) | Err(_) => return Err(format!("has no port from 0 to 65535: {port:?}")),
        };
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed
                .strip_suffix(']')
                .filter(|host| is_ipv6(host))
                .ok_or_else(|| "has no IPv6 address between the brackets".to_owned())?,
            None if host.contains(':') => {
                return Err(format!(
                    "wants brackets around an IPv6 address: [{host}]:{port}"
                ));
            }
            None if host.is_empty() || is_ipv4_or_name(host) => host,
            None => return Err(format!("has no valid host: {host:?}")),
        };
        Ok(HostPort {
            host: host.to_owned(),
            port,
        })
    }
}

/// With a zone (`fe80::1%eth0`) or without.
fn is_ipv6(host: &str) -> bool {
    let (address, zone) = host.split_once('%').unwrap_or((host, "lo"));
    let zone_is_plain = !zone.is_empty() && zone.bytes().all(|byte| byte.is_ascii_graphic());
    address.parse::<Ipv6Addr>().is_ok() && zone_is_plain && !zone.contains(['[', ']'])
}

/// A name whose last label is a number would be read as an IPv4 address in one of its old short forms.
fn is_ipv4_or_name(host: &str) -> bool {
    let last = host.rsplit('.').next().unwrap_or(host);
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return host.parse::<Ipv4Addr>().is_ok();
    }
    host.len() <= 253
        && host.split('.').all(|label| {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.bytes().all(plain)
        })
}

/// Where a client listener is.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum ListenAddr {
    /// TCP.
    Tcp {
        /// As in [`HostPort`].
        host: String,
        /// As in [`HostPort`].
        port: u16,
    },
    /// A Unix socket, by its path.
    Unix(PathBuf),
}

impl ListenAddr {
    /// Can only this machine reach it?
    pub fn is_loopback(&self) -> bool {
        match self {
            ListenAddr::Tcp { host, port } => HostPort {
                host: host.clone(),
                port: *port,
            }
            .is_loopback(),
            ListenAddr::Unix(_) => true,
        }
    }
}

impl ListenAddr {
    /// This address, or the two that its short form `:8000` stands for; and whether it is skipped on a machine
    /// without IPv6.
    pub fn expand(&self) -> Vec<(ListenAddr, bool)> {
        match self {
            ListenAddr::Tcp { host, port } if host.is_empty() => {
                let at = |host: &str| ListenAddr::Tcp {
                    host: host.to_owned(),
                    port: *port,
                };
                vec![(at("0.0.0.0"), false), (at("::"), true)]
            }
            ListenAddr::Tcp { .. } | ListenAddr::Unix(_) => vec![(self.clone(), false)],
        }
    }
}

impl fmt::Display for ListenAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddr::Tcp { host, port } => HostPort {
                host: host.clone(),
                port: *port,
            }
            .fmt(f),
            ListenAddr::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl FromStr for ListenAddr {
    type Err = String;

    fn from_str(text: &str) -> Result<ListenAddr, String> {
        let Some(path) = text.strip_prefix("unix:") else {
            return match text.parse::<HostPort>() {
                Ok(HostPort { host, port }) => Ok(ListenAddr::Tcp { host, port }),
                Err(reason) if text.contains(':') => Err(reason),
                Err(_) => Err(
                    "wants host:port, :port for all addresses, or unix:/path; such as 127.0.0.1:8000"
                        .to_owned(),
                ),
            };
        };
        if path.is_empty() || path.contains('\0') {
            return Err("wants a path after unix:".to_owned());
        }
        if path.len() > SOCKET_PATH_BYTES_MAX {
            return Err(format!(
                "has a path of {} bytes; a Unix socket's has at most {SOCKET_PATH_BYTES_MAX}",
                path.len()
            ));
        }
        Ok(ListenAddr::Unix(PathBuf::from(path)))
    }
}

/// Where ClusterWS is spoken unless a listener says otherwise (DESIGN 5.2).
pub const CLUSTERWS_PATH: &str = "/clusterws";

/// A port or socket for clients, and what is spoken there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listener {
    /// Where. The host is never empty.
    pub addr: ListenAddr,
    /// Is native JSON spoken?
    pub native: bool,
    /// The path of native JSON; `None` for `/` and every path that nothing else has.
    pub native_path: Option<String>,
    /// Is ClusterWS spoken?
    pub clusterws: bool,
    /// The path of ClusterWS.
    pub clusterws_path: String,
    /// The generation of its clients that say none by `?v=`.
    pub clusterws_generation: Generation,
    /// Are its clients told to speak binary, if they say nothing by `?binary=`?
    pub clusterws_binary: bool,
    /// Is plain HTTP answered (the console at `GET /`)?
    pub http: bool,
    /// Is `fromPeerServer` in a publication believed? Only where all clients are application servers.
    pub trust_peer_flag: bool,
    /// May clients handle events (`handle`)?
    pub client_services: bool,
    /// Is it skipped, with a log line, on a machine without IPv6?
    pub optional: bool,
}

impl Listener {
    /// A listener with the default settings.
    pub fn new(addr: ListenAddr) -> Listener {
        Listener {
            addr,
            native: true,
            native_path: None,
            clusterws: true,
            clusterws_path: CLUSTERWS_PATH.to_owned(),
            clusterws_generation: Generation::Three,
            clusterws_binary: false,
            http: true,
            trust_peer_flag: false,
            client_services: false,
            optional: false,
        }
    }

    /// The listeners of a broker that was told nothing: loopback, port 8000, IPv6 where there is IPv6.
    pub fn defaults() -> Vec<Listener> {
        Listener::loopback_pair(8000).into()
    }

    /// This listener, or the two that its short form `:8000` stands for: `0.0.0.0:8000`, and `[::]:8000` where
    /// there is IPv6.
    pub fn expand(self) -> Vec<Listener> {
        let at = |(addr, optional)| Listener {
            addr,
            optional: optional || self.optional,
            ..self.clone()
        };
        self.addr.expand().into_iter().map(at).collect()
    }

    fn loopback_pair(port: u16) -> [Listener; 2] {
        ["127.0.0.1", "::1"].map(|host| Listener {
            optional: host == "::1",
            ..Listener::new(ListenAddr::Tcp {
                host: host.to_owned(),
                port,
            })
        })
    }
}

/// Is this an origin as browsers send it (RFC 6454, section 6.2), `null` among them, or `*`? A slash at the end, as
/// copied from an address bar, is let pass.
///
/// # Errors
/// What is wrong with it.
pub fn check_origin(text: &str) -> Result<(), String> {
    if text == "*" || text.eq_ignore_ascii_case("null") {
        return Ok(());
    }
    let wanted =
        || "wants scheme://host or scheme://host:port, such as https://example.com, or * for all";
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(wanted().to_owned());
    };
    let scheme_is_plain = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte));
    if !scheme_is_plain {
        return Err(wanted().to_owned());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    if let Some((origin, _)) = rest.split_once(['/', '?', '#']) {
        return Err(format!(
            "is more than an origin, which ends before the path: {scheme}://{origin}"
        ));
    }
    if !rest.is_ascii() {
        return Err("wants the host as browsers send it, in ASCII (xn--...)".to_owned());
    }
    if rest.contains('*') {
        return Err("wants each host by its name; only * alone stands for all".to_owned());
    }
    let (host, port) = match rest
        .rfind(':')
        .filter(|&colon| !rest[colon..].contains(']'))
    {
        Some(colon) => (&rest[..colon], Some(&rest[colon + 1..])),
        None => (rest, None),
    };
    let port_is_plain = port.is_none_or(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    let host_is_plain = match host.strip_prefix('[') {
        Some(bracketed) => bracketed
            .strip_suffix(']')
            .is_some_and(|host| host.parse::<Ipv6Addr>().is_ok()),
        None => is_ipv4_or_name(host),
    };
    if port_is_plain && host_is_plain {
        Ok(())
    } else {
        Err(wanted().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_back() {
        let check = |text: &str, loopback: bool| {
            let addr: ListenAddr = text.parse().unwrap_or_else(|why| panic!("{text}: {why}"));
            assert_eq!(addr.to_string(), text);
            assert_eq!(addr.is_loopback(), loopback, "{text}");
        };
        check("127.0.0.1:8000", true);
        check("127.8.9.1:0", true);
        check("[::1]:8000", true);
        check("[::ffff:127.0.0.1]:8000", true);
        check("localhost:8000", true);
        check("LocalHost:8000", true);
        check("unix:/run/pubsub.sock", true);
        check("unix:pubsub.sock", true);
        check(":8000", false);
        check("0.0.0.0:8000", false);
        check("[::]:8000", false);
        check("10.0.0.1:65535", false);
        check("[fe80::1%eth0]:8000", false);
        check("broker.example.com:8000", false);
        check("localhost.example.com:8000", false);
        check("a_b-c:1", false);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "8000",
            "localhost",
            "127.0.0.1:",
            "127.0.0.1:65536",
            "127.0.0.1:+1",
            "127.0.0.1:-1",
            "::1:8000",
            "[::1]",
            "[::1:8000",
            "[localhost]:8000",
            "[fe80::1%]:8000",
            "127.1:8000",
            "8000:8000",
            "1.2.3.4.5:80",
            "a..b:80",
            "a b:80",
            "http://localhost:8000",
            "unix:",
            "unix:a\0b",
        ] {
            assert!(text.parse::<ListenAddr>().is_err(), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(SOCKET_PATH_BYTES_MAX));
        assert!(long.parse::<ListenAddr>().is_err());
        assert!(long[..long.len() - 1].parse::<ListenAddr>().is_ok());
    }

    #[test]
    fn the_short_form_is_both_families() {
        let listener = Listener {
            http: false,
            ..Listener::new(":8000".parse().unwrap())
        };
        let all = listener.expand();
        let addresses: Vec<String> = all.iter().map(|one| one.addr.to_string()).collect();
        assert_eq!(addresses, ["0.0.0.0:8000", "[::]:8000"]);
        assert!(!all[0].optional && all[1].optional && !all[1].http);
        assert_eq!(
            Listener::new("a:1".parse().unwrap()).expand(),
            [Listener::new("a:1".parse().unwrap())]
        );
    }

    #[test]
    fn origins() {
        for origin in [
            "*",
            "null",
            "https://example.com",
            "https://example.com/",
            "http://localhost:3000",
            "http://127.0.0.1",
            "http://[::1]:8080",
            "https://xn--bcher-kva.example",
            "chrome-extension://abcdefghijklmnop",
            "HTTPS://Example.COM",
        ] {
            assert_eq!(check_origin(origin), Ok(()), "{origin}");
        }
        for origin in [
            "",
            "example.com",
            "https://",
            "https://example.com/x",
            "https://example.com//",
            "https://example.com?x",
            "https://user@example.com",
            "https://*.example.com",
            "https://bücher.example",
            "https://example.com:0",
            "https://example.com:",
            "https://example.com:99999",
            "https://example.com:+80",
            "https://[::1",
            "https://::1",
            "://example.com",
            "1http://example.com",
            "https://a,https://b",
        ] {
            assert!(check_origin(origin).is_err(), "{origin}");
        }
    }
}
