//! Which browser pages may speak to this broker (RFC 6454; promises 22 and 23; DESIGN 5.2).
//!
//! A browser opens a WebSocket to any host for any page and sends its cookies along; all that tells a foreign
//! page from an own one is the `Origin` header, which a page cannot choose. Whoever is not a browser sends none
//! and passes: this check protects the users of browsers, it authenticates nobody. On a loopback listener a page
//! could still come under its own name, by pointing that name at 127.0.0.1 (DNS rebinding); so there the `Host`
//! has to be a loopback one, or one whose pages are allowed anyway.
//!
//! Behind a trusted proxy the host that pages were loaded from is the one that the proxy tells, and that takes the place
//! of `Host`. It also shows that the request came through the proxy, and not to this machine by a rebound name: no page
//! can add a header to a WebSocket. To a plain request it can, where a browser runs beside the broker; so there the
//! loopback name is still asked of `Host` itself, which no page can choose. A PROXY header shows it for any request.
//!
//! It knows no listener and no log; it returns sentences. Invariant: two origins are the same only if scheme,
//! host and port are equal after normalisation; what is not a well-formed ASCII origin equals none.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::forwarded::{Forwarded, Scheme};
use super::http::Request;

/// The longest part of a refused header that is repeated in a log.
const QUOTED_BYTES_MAX: usize = 128;

/// Which origins pass.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OriginRules {
    /// origins as configured, `*` = all; normalised by `OriginRules::new`
    pub allow: Vec<String>,
    /// this broker listens on loopback only
    pub loopback_only: bool,
    /// On a loopback listener, must `Host` be loopback too? Off for Unix sockets, which no browser reaches.
    pub host_check: bool,
}

impl Default for OriginRules {
    fn default() -> OriginRules {
        OriginRules {
            allow: Vec::new(),
            loopback_only: false,
            host_check: true,
        }
    }
}

impl OriginRules {
    /// Rules from the configured origins: `*`, `null`, or `scheme://host[:port]`, in any case, with or without
    /// the default port and a trailing slash.
    ///
    /// # Errors
    ///
    /// The sentence for the operator, if one of them is none of these.
    pub fn new(allow: &[String], loopback_only: bool) -> Result<OriginRules, String> {
        let normalise = |text: &String| match text.trim() {
            "*" => Ok("*".to_owned()),
            text if text.eq_ignore_ascii_case("null") => Ok("null".to_owned()),
            text => match Origin::parse(text.strip_suffix('/').unwrap_or(text).as_bytes()) {
                Some(origin) => Ok(origin.to_string()),
                None if !text.is_ascii() => Err(format!(
                    "{text:?} is not an origin: write its host in punycode (xn--...)"
                )),
                None => Err(format!(
                    "{text:?} is not an origin: write scheme://host[:port], null, or *"
                )),
            },
        };
        let allow = allow
            .iter()
            .map(normalise)
            .collect::<Result<Vec<String>, String>>()?;
        Ok(OriginRules {
            allow,
            loopback_only,
            ..OriginRules::default()
        })
    }

    fn allows(&self, origin: &str) -> bool {
        self.allow
            .iter()
            .any(|allowed| allowed == "*" || allowed == origin)
    }

    fn allows_all(&self) -> bool {
        self.allows("*")
    }
}

/// May this request be served, as far as `Origin` and `Host` go, and what trusted proxies say of it?
///
/// # Errors
///
/// The sentence for the log: what is refused, and which `--allow-origin` would allow it.
pub fn check(
    rules: &OriginRules,
    request: &Request<'_>,
    forwarded: &Forwarded,
) -> Result<(), String> {
    if rules.allows_all() {
        return Ok(());
    }
    let mut origins = request.values("origin");
    let value = origins.next();
    if origins.next().is_some() {
        return Err("several Origin headers, which no browser sends".to_owned());
    }
    let origin = value.and_then(Origin::parse);
    check_host(rules, request, forwarded, origin.as_ref())?;

    let Some(value) = value else { return Ok(()) };
    if value == b"null" {
        // Sandboxed frames, data: and file: pages of anyone are "null".
        if rules.allows("null") {
            return Ok(());
        }
        return Err("Origin null is not allowed; --allow-origin null would allow it".to_owned());
    }
    let Some(origin) = origin else {
        return Err(format!(
            "Origin {} is not scheme://host[:port] and can't be allowed but by --allow-origin '*'",
            quoted(value)
        ));
    };
    let name = origin.to_string();
    let is_loopback_page = rules.loopback_only
        && matches!(&origin.scheme[..], "http" | "https")
        && matches!(&origin.host[..], "localhost" | "127.0.0.1" | "[::1]");
    if rules.allows(&name) || is_loopback_page || origin.is_of_host(request, forwarded) {
        return Ok(());
    }
    Err(format!(
        "Origin {name} is not allowed; --allow-origin {name} would allow it"
    ))
}

/// The defence against DNS rebinding, whether or not there is an Origin: a page at a name that points here asks
/// for its own origin, and a plain GET of the same origin carries no Origin header at all.
fn check_host(
    rules: &OriginRules,
    request: &Request<'_>,
    forwarded: &Forwarded,
    origin: Option<&Origin>,
) -> Result<(), String> {
    if !rules.loopback_only || !rules.host_check {
        return Ok(());
    }
    // Neither `Upgrade` nor any header of a WebSocket is a page's to write (Fetch, "forbidden request-header").
    let is_vouched_for = forwarded.host.is_some() && request.header("upgrade").is_some();
    if is_vouched_for || forwarded.is_relayed {
        return Ok(());
    }
    let Some(value) = request.header("host") else {
        return Err("no Host header, which has to be a loopback one here".to_owned());
    };
    let Some((host, port)) = parse_authority(value) else {
        return Err(format!("Host {} is malformed", quoted(value)));
    };
    if is_loopback(&host) {
        return Ok(());
    }
    // A proxy on this machine that passes on the name under which it is reached. Pages of an allowed origin may
    // speak to us, so its name cannot be an attacker's.
    let is_allowed_host = |allowed: &String| {
        Origin::parse(allowed.as_bytes())
            .is_some_and(|allowed| allowed.host == host && default_port(&allowed.scheme).is_some())
    };
    if rules.allow.iter().any(is_allowed_host) {
        return Ok(());
    }
    let name = match origin {
        Some(origin) if origin.host == host => origin.to_string(),
        _ => Origin {
            scheme: "http".to_owned(),
            host,
            port: port.or(Some(80)),
        }
        .to_string(),
    };
    Err(format!(
        "Host {} is not a loopback one, and this broker listens on loopback only; \
         --allow-origin {name} would allow it",
        quoted(value)
    ))
}

/// An origin (RFC 6454, 4): scheme and host in lower case, the port with its default filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Origin {
    scheme: String,
    host: String,
    /// `None`: the scheme has no default port and none was given.
    port: Option<u16>,
}

impl Origin {
    /// Reads a serialised origin (RFC 6454, 6.2): no user, no path, no trailing slash, ASCII only.
    fn parse(bytes: &[u8]) -> Option<Origin> {
        let text = std::str::from_utf8(bytes).ok()?;
        let (scheme, authority) = text.split_once("://")?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        if !is_scheme {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = parse_authority(authority.as_bytes())?;
        let port = port.or(default_port(&scheme));
        Some(Origin { scheme, host, port })
    }

    /// Is this an http(s) or ws(s) page of the host and port that the request names as ours? Without a port in
    /// `Host` that is the default one of the scheme that a trusted proxy tells, or else of the page's, since a proxy
    /// may have ended TLS before us.
    fn is_of_host(&self, request: &Request<'_>, forwarded: &Forwarded) -> bool {
        let own_port = default_port(&self.scheme);
        let default_port = forwarded.scheme.map(Scheme::default_port).or(own_port);
        let host = match &forwarded.host {
            Some(host) => Some(host.clone()),
            None => request.header("host").and_then(parse_authority),
        };
        host.is_some_and(|(host, port)| {
            own_port.is_some() && host == self.host && port.or(default_port) == self.port
        })
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme, self.host)?;
        match self.port {
            Some(port) if Some(port) != default_port(&self.scheme) => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// A host, and a port if one is named.
pub type Authority = (String, Option<u16>);

/// `host[:port]` of an Origin or Host header, the host in lower case and an IPv6 address in its shortest form.
/// A name that is not ASCII is refused: browsers send punycode.
pub(super) fn parse_authority(bytes: &[u8]) -> Option<Authority> {
    let text = std::str::from_utf8(bytes).ok()?;
    let host_size = match text.find(']') {
        Some(end) => end + 1,
        None => text.find(':').unwrap_or(text.len()),
    };
    let (host, rest) = text.split_at(host_size);
    let port = match rest.strip_prefix(':') {
        None if rest.is_empty() => None,
        None => return None,
        // FromStr takes a plus sign, too.
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok()?)
        }
        Some(_) => return None,
    };
    if let Some(address) = host.strip_prefix('[') {
        let address: Ipv6Addr = address.strip_suffix(']')?.parse().ok()?;
        return Some((format!("[{address}]"), port));
    }
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_name_byte) {
        return None;
    }
    Some((host.to_ascii_lowercase(), port))
}

/// Is this a name for this machine that no DNS server can give away? Addresses are not looked up, and browsers
/// resolve `localhost` by themselves.
fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host == "[::1]"
        || host
            .parse::<Ipv4Addr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Bytes of a stranger in a form that a log can bear.
fn quoted(bytes: &[u8]) -> String {
    format!(
        "\"{}\"",
        bytes[..bytes.len().min(QUOTED_BYTES_MAX)].escape_ascii()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ws::http::parse_head;

    fn rules(allow: &[&str], loopback_only: bool) -> OriginRules {
        let allow: Vec<String> = allow.iter().map(|&text| text.to_owned()).collect();
        OriginRules::new(&allow, loopback_only).expect("well-formed origins")
    }

    fn ask(rules: &OriginRules, host: &str, origins: &[&str]) -> Result<(), String> {
        let mut head = "GET / HTTP/1.1\r\n".to_owned();
        if !host.is_empty() {
            head.push_str(&format!("Host: {host}\r\n"));
        }
        for origin in origins {
            head.push_str(&format!("Origin: {origin}\r\n"));
        }
        head.push_str("\r\n");
        let request = parse_head(head.as_bytes(), 8192, 64).unwrap().unwrap();
        check(rules, &request, &Forwarded::default())
    }

    #[test]
    fn origins_on_a_public_listener() {
        let check = |allow: &[&str], host: &str, origin: &str, passes: bool| {
            let result = ask(&rules(allow, false), host, &[origin]);
            assert_eq!(
                result.is_ok(),
                passes,
                "{allow:?} {host} {origin}: {result:?}"
            );
        };
        let host = "example.com";
        // The same host and port.
        check(&[], host, "http://example.com", true);
        check(&[], host, "https://example.com", true);
        check(&[], host, "wss://example.com", true);
        check(&[], host, "HTTPS://Example.COM", true);
        check(&[], "EXAMPLE.com", "https://example.com", true);
        check(&[], host, "http://example.com:80", true);
        check(&[], host, "https://example.com:443", true);
        check(&[], "example.com:443", "https://example.com", true);
        check(&[], "example.com:8000", "http://example.com:8000", true);
        check(
            &[],
            "[2001:db8::1]:8000",
            "http://[2001:DB8:0::1]:8000",
            true,
        );
        check(
            &[],
            "xn--bcher-kva.example",
            "https://xn--bcher-kva.example",
            true,
        );
        check(&[], "192.0.2.1:8000", "http://192.0.2.1:8000", true);
        // Another port.
        check(&[], host, "http://example.com:8080", false);
        check(&[], host, "https://example.com:80", false);
        check(&[], "example.com:8000", "http://example.com", false);
        check(&[], "example.com:443", "http://example.com", false);
        check(&[], "example.com:8000", "http://example.com:8001", false);
        // Another host.
        check(&[], host, "http://evil-example.com", false);
        check(&[], host, "http://example.com.evil.com", false);
        check(&[], host, "http://evil.com", false);
        check(&[], host, "http://sub.example.com", false);
        check(&[], host, "http://example.co", false);
        check(&[], host, "http://example.com.", false);
        check(&[], host, "http://localhost", false);
        check(&[], "", "http://example.com", false);
        // Another scheme.
        check(&[], host, "ftp://example.com", false);
        check(&[], host, "chrome-extension://example.com", false);
        // Not an origin.
        check(&[], host, "null", false);
        check(&[], host, "", false);
        check(&[], host, "example.com", false);
        check(&[], host, "//example.com", false);
        check(&[], host, "://example.com", false);
        check(&[], host, "http:example.com", false);
        check(&[], host, "http://", false);
        check(&[], host, "http://user@example.com", false);
        check(&[], host, "http://example.com@evil.com", false);
        check(&[], host, "http://example.com:80@evil.com", false);
        check(&[], host, "http://example.com/", false);
        check(&[], host, "http://example.com/path", false);
        check(&[], host, "http://example.com?x", false);
        check(&[], host, "http://example.com#x", false);
        check(&[], host, "http://example.com\\evil.com", false);
        check(&[], host, "http://example.com:", false);
        check(&[], host, "http://example.com:+80", false);
        check(&[], host, "http://example.com:65616", false);
        check(&[], host, "http://example.com:80:80", false);
        check(&[], host, "http://example.com http://evil.com", false);
        check(&[], host, "http://example.com, http://evil.com", false);
        check(&[], host, "http://ex\u{e4}mple.com", false);
        check(&[], "ex\u{e4}mple.com", "http://ex\u{e4}mple.com", false);
        check(&[], "[::1", "http://[::1", false);
        check(&[], "[::1]x", "http://[::1]x", false);
        check(&[], "[x]", "http://[x]", false);
        // The allow list.
        let app = "https://app.example";
        check(&[app], host, "https://app.example", true);
        check(&[app], host, "https://app.example:443", true);
        check(&[app], host, "https://APP.example", true);
        check(
            &["HTTPS://App.Example:443/"],
            host,
            "https://app.example",
            true,
        );
        check(
            &["https://other.example", app],
            host,
            "https://app.example",
            true,
        );
        check(&[app], host, "http://example.com", true);
        check(&[app], host, "http://app.example", false);
        check(&[app], host, "https://app.example:8443", false);
        check(&[app], host, "https://sub.app.example", false);
        check(&[app], host, "https://evil-app.example", false);
        check(&[app], host, "wss://app.example", false);
        check(&[app], host, "null", false);
        check(&["null"], host, "null", true);
        check(&["null"], host, "NULL", false);
        check(&["null"], host, "https://app.example", false);
        check(
            &["chrome-extension://abcdef"],
            host,
            "chrome-extension://abcdef",
            true,
        );
        check(
            &["capacitor://localhost"],
            host,
            "capacitor://localhost",
            true,
        );
        check(&["capacitor://localhost"], host, "http://localhost", false);
        check(&["*"], host, "http://evil.com", true);
        check(&["*"], host, "null", true);
        check(&["*"], host, "rubbish", true);
    }

    #[test]
    fn origins_on_a_loopback_listener() {
        let check = |allow: &[&str], host: &str, origin: &str, passes: bool| {
            let result = ask(&rules(allow, true), host, &[origin]);
            assert_eq!(
                result.is_ok(),
                passes,
                "{allow:?} {host} {origin}: {result:?}"
            );
        };
        check(&[], "localhost:8000", "http://localhost:3000", true);
        check(&[], "127.0.0.1:8000", "http://localhost", true);
        check(&[], "[::1]:8000", "https://127.0.0.1:5173", true);
        check(&[], "localhost:8000", "http://[::1]:9", true);
        check(&[], "LocalHost", "http://LOCALHOST:1", true);
        check(&[], "127.0.0.2:8000", "http://127.0.0.2:8000", true);
        check(&[], "localhost:8000", "http://127.0.0.2:8000", false);
        check(&[], "localhost:8000", "ftp://localhost", false);
        check(&[], "localhost:8000", "http://localhost.evil.com", false);
        check(&[], "localhost:8000", "http://evil.com", false);
        check(&[], "localhost:8000", "null", false);
        check(
            &["https://app.example"],
            "localhost:8000",
            "https://app.example",
            true,
        );
        // Rebinding: the page and the Host agree, and neither is of this machine.
        check(&[], "evil.com:8000", "http://evil.com:8000", false);
        check(&[], "evil.com:8000", "http://localhost:8000", false);
        check(
            &["https://app.example"],
            "evil.com",
            "http://evil.com",
            false,
        );
        check(&["*"], "evil.com:8000", "http://evil.com:8000", true);
        // A proxy on the same machine.
        check(
            &["https://app.example"],
            "app.example",
            "https://app.example",
            true,
        );
        check(
            &["https://app.example"],
            "app.example",
            "https://evil.com",
            false,
        );
    }

    #[test]
    fn hosts_without_origin() {
        let check = |rules: &OriginRules, host: &str, passes: bool| {
            let result = ask(rules, host, &[]);
            assert_eq!(result.is_ok(), passes, "{host}: {result:?}");
        };
        let public = rules(&[], false);
        for host in ["example.com", "", "evil.com:1", "???"] {
            check(&public, host, true);
        }
        let loopback = rules(&[], true);
        for host in [
            "localhost",
            "localhost:1",
            "127.0.0.1:8000",
            "127.9.9.9",
            "[::1]",
            "[0::1]:8",
        ] {
            check(&loopback, host, true);
        }
        for host in [
            "",
            "evil.com",
            "localhost.evil.com",
            "evil.localhost.com",
            "127.0.0.1.evil.com",
            "128.0.0.1",
            "0.0.0.0",
            "[::2]",
            "[::ffff:127.0.0.1]",
            "u@localhost",
            "localhost:x",
            "localhost, evil.com",
        ] {
            check(&loopback, host, false);
        }
        check(&rules(&["*"], true), "evil.com", true);
        check(&rules(&["https://app.example"], true), "app.example", true);
        check(&rules(&["https://app.example"], true), "evil.com", false);
        let unix = OriginRules {
            host_check: false,
            ..loopback
        };
        for host in ["evil.com", "", "???"] {
            check(&unix, host, true);
        }
        assert!(ask(&unix, "a", &["http://b"]).is_err());
    }

    /// Behind a trusted proxy that tells this host and scheme.
    fn ask_behind(
        rules: &OriginRules,
        headers: &[&str],
        host: &str,
        scheme: Option<Scheme>,
    ) -> Result<(), String> {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
        let request = parse_head(head.as_bytes(), 8192, 64).unwrap().unwrap();
        let forwarded = Forwarded {
            client: None,
            host: parse_authority(host.as_bytes()),
            scheme,
            is_relayed: false,
        };
        check(rules, &request, &forwarded)
    }

    #[test]
    fn the_host_that_a_proxy_tells_takes_the_place_of_host() {
        let check = |host: &str, scheme, origin: &str, passes: bool| {
            let origin = format!("Origin: {origin}");
            let headers = ["Host: 127.0.0.1:8000", &origin];
            let result = ask_behind(&rules(&[], false), &headers, host, scheme);
            assert_eq!(result.is_ok(), passes, "{host} {scheme:?}: {result:?}");
        };
        let (http, https) = (Some(Scheme::Http), Some(Scheme::Https));
        check("a.example", None, "https://a.example", true);
        check("a.example", None, "http://a.example", true);
        check("a.example", https, "https://a.example", true);
        check("a.example", https, "https://a.example:443", true);
        check("a.example", http, "http://a.example", true);
        // A page of the other scheme is another origin, once the scheme is known.
        check("a.example", https, "http://a.example", false);
        check("a.example", http, "https://a.example", false);
        check("a.example:8443", https, "https://a.example:8443", true);
        check("a.example:8443", https, "https://a.example", false);
        check("a.example", https, "https://b.example", false);
        check("a.example", https, "http://127.0.0.1:8000", false);
        check("a.example", https, "ftp://a.example", false);
        // It told none, or rubbish: then Host counts.
        check("", None, "http://127.0.0.1:8000", true);
        check("a b", https, "https://127.0.0.1:8000", true);
        check("", None, "https://a.example", false);
        let at_default_port = ["Host: a.example", "Origin: http://a.example"];
        for (scheme, passes) in [(http, true), (https, false), (None, true)] {
            let result = ask_behind(&rules(&[], false), &at_default_port, "", scheme);
            assert_eq!(result.is_ok(), passes, "{scheme:?}");
        }
    }

    #[test]
    fn a_proxy_before_a_loopback_listener() {
        let loopback = rules(&[], true);
        let check = |headers: &[&str], host: &str, passes: bool| {
            let result = ask_behind(&loopback, headers, host, None);
            assert_eq!(result.is_ok(), passes, "{headers:?} {host}: {result:?}");
        };
        let (public, local) = ("Host: a.example", "Host: 127.0.0.1:8000");
        let (upgrade, page) = ("Upgrade: websocket", "Origin: https://a.example");
        check(&[public, upgrade, page], "a.example", true);
        check(&[local, upgrade, page], "a.example", true);
        check(&[public, upgrade], "a.example", true);
        check(&[upgrade], "a.example", true);
        check(
            &[public, upgrade, "Origin: https://b.example"],
            "a.example",
            false,
        );
        // Without the proxy's word it might be a rebound name.
        check(&[public, upgrade, page], "", false);
        // A page beside the broker may add headers to a plain request, but for Host.
        check(&[public], "a.example", false);
        check(&[public, page], "a.example", false);
        check(&["Host: evil.com:8000"], "localhost", false);
        check(&[local], "a.example", true);
        check(&[local, page], "a.example", true);

        // Behind a PROXY header everything has come through the proxy, and the Host is the one that the page asked for.
        let check = |headers: &[&str], passes: bool| {
            let head = format!("GET / HTTP/1.1\r\n{}\r\n\r\n", headers.join("\r\n"));
            let request = parse_head(head.as_bytes(), 8192, 64).unwrap().unwrap();
            let relayed = Forwarded {
                is_relayed: true,
                ..Forwarded::default()
            };
            let result = super::check(&loopback, &request, &relayed);
            assert_eq!(result.is_ok(), passes, "{headers:?}: {result:?}");
        };
        check(&[public], true);
        check(&[public, page], true);
        check(&[public, upgrade, page], true);
        check(&[public, "Origin: https://b.example"], false);
        check(&[local, page], false);
    }

    #[test]
    fn several_origins() {
        let both = ["http://example.com", "http://example.com"];
        assert!(ask(&rules(&[], false), "example.com", &both).is_err());
        assert!(ask(&rules(&["*"], false), "example.com", &both).is_ok());
    }

    #[test]
    fn refusals_name_the_option_that_would_allow() {
        let check = |loopback_only: bool, host: &str, origins: &[&str], option: &str| {
            let sentence = ask(&rules(&[], loopback_only), host, origins).expect_err("refused");
            let name = option.strip_prefix("--allow-origin ").expect("an option");
            assert!(
                sentence.contains(&format!("{option} would allow it")),
                "{sentence}"
            );
            let allowing = rules(&[name], loopback_only);
            assert_eq!(ask(&allowing, host, origins), Ok(()), "{option}");
        };
        check(false, "a", &["HTTP://B:80"], "--allow-origin http://b");
        check(
            false,
            "a",
            &["https://b:8443"],
            "--allow-origin https://b:8443",
        );
        check(false, "a", &["null"], "--allow-origin null");
        check(
            true,
            "app.example",
            &["https://app.example"],
            "--allow-origin https://app.example",
        );
        check(
            true,
            "app.example:81",
            &[],
            "--allow-origin http://app.example:81",
        );
        check(
            true,
            "app.example",
            &[],
            "--allow-origin http://app.example",
        );
        let long = format!("http://{}\u{e9}", "x".repeat(4000));
        let sentence = ask(&rules(&[], false), "a", &[&long]).expect_err("refused");
        assert!(sentence.is_ascii() && sentence.len() < 300, "{sentence}");
    }

    #[test]
    fn configured_origins() {
        let check = |text: &str, expected: Option<&str>| {
            let result = OriginRules::new(&[text.to_owned()], false);
            let allow = result.as_ref().ok().map(|rules| &rules.allow[0][..]);
            assert_eq!(allow, expected, "{text}: {result:?}");
        };
        check("*", Some("*"));
        check("null", Some("null"));
        check("https://Example.com", Some("https://example.com"));
        check("https://example.com:443/", Some("https://example.com"));
        check("http://example.com:443", Some("http://example.com:443"));
        check("http://[0:0::1]:80", Some("http://[::1]"));
        check("app://host:7", Some("app://host:7"));
        check("", None);
        check("example.com", None);
        check("https://", None);
        check("https://*.example.com", None);
        check("https://example.com/path", None);
        check("https://example.com//", None);
        check("https://u:p@example.com", None);
        check("https://example.com:99999", None);
        check("https://ex\u{e4}mple.com", None);
        let message = OriginRules::new(&["https://\u{e4}.com".to_owned()], false).unwrap_err();
        assert!(message.contains("punycode"), "{message}");
    }
}
