//! The opening handshake (RFC 6455, 4.2): is this request an upgrade to WebSocket, and the 101 that accepts it.
//!
//! It decides nothing about who may come (that is [`origin`](super::origin) and the shard) nor which path or
//! subprotocol means what. Extensions are not answered, hence none is negotiated. Invariant: an
//! [`Upgrade`] comes only from a request that fulfils every point of section 4.2.1.

use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use tungstenite::handshake::derive_accept_key;

use super::http::{self, Reject, Request};

/// Subprotocols that are read of one request; a client that offers more is served with its first ones.
pub const SUBPROTOCOLS_MAX: usize = 16;

/// A request that asks for WebSocket correctly.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Upgrade {
    /// the value of Sec-WebSocket-Accept
    pub accept: String,
    /// The subprotocols that the client offers, its favourite first; at most [`SUBPROTOCOLS_MAX`].
    pub subprotocols: Vec<String>,
}

/// Ok(None): plain HTTP (no Upgrade: websocket asked).
///
/// # Errors
///
/// Asked wrongly: 405 for another method than GET, 426 for another version than 13 (the response carries
/// `Sec-WebSocket-Version: 13`) and where `Connection` does not name the upgrade, 400 for the rest.
pub fn upgrade(request: &Request<'_>) -> Result<Option<Upgrade>, Reject> {
    let names = |header: &str, token: &str| {
        request
            .elements(header)
            .any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
    };
    let bad = |reason| {
        Err(Reject {
            status: 400,
            reason,
        })
    };

    if !names("upgrade", "websocket") {
        return Ok(None);
    }
    if request.method != "GET" {
        return Err(Reject {
            status: 405,
            reason: "a WebSocket is opened by GET",
        });
    }
    if !request.http11 {
        return bad("a WebSocket is opened by HTTP/1.1");
    }
    if !names("connection", "upgrade") {
        // RFC 9110, 7.8 has us ignore the Upgrade then. A proxy that forwards one header and not the other is the
        // usual cause, and whoever set it up is helped by a refusal that says so.
        let reason = "Connection does not name Upgrade; a proxy may have dropped it";
        return Err(Reject {
            status: 426,
            reason,
        });
    }
    for name in ["host", "sec-websocket-key", "sec-websocket-version"] {
        if request.values(name).nth(1).is_some() {
            return bad("Host, Sec-WebSocket-Key or Sec-WebSocket-Version is there twice");
        }
    }
    if request.header("host").is_none_or(|host| host.is_empty()) {
        return bad("no Host");
    }
    if request.header("sec-websocket-version") != Some(b"13") {
        return Err(Reject {
            status: 426,
            reason: "the version of WebSocket is not 13",
        });
    }
    // What follows the head is read as frames; it shall not be a body to a proxy before us.
    let has_body = request.values("transfer-encoding").next().is_some()
        || request.values("content-length").any(|size| size != b"0");
    if has_body {
        return bad("a request for a WebSocket has no body");
    }
    let key = match request.header("sec-websocket-key") {
        Some(key) if is_key(key) => key,
        Some(_) => return bad("Sec-WebSocket-Key is not 16 bytes in base64"),
        None => return bad("no Sec-WebSocket-Key"),
    };
    let mut subprotocols = Vec::new();
    for element in request
        .elements("sec-websocket-protocol")
        .take(SUBPROTOCOLS_MAX)
    {
        match std::str::from_utf8(element) {
            Ok(name) if is_token(name) => subprotocols.push(name.to_owned()),
            _ => return bad("Sec-WebSocket-Protocol is not a list of tokens"),
        }
    }
    Ok(Some(Upgrade {
        accept: derive_accept_key(key),
        subprotocols,
    }))
}

/// Appends the 101 response (RFC 6455, 4.2.2). A subprotocol that was not offered is left out: browsers fail a
/// connection that answers one.
pub fn switching(upgrade: &Upgrade, subprotocol: Option<&str>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"HTTP/1.1 101 Switching Protocols\r\n");
    http::header_line("Upgrade", "websocket", out);
    http::header_line("Connection", "Upgrade", out);
    http::header_line("Sec-WebSocket-Accept", &upgrade.accept, out);
    if let Some(chosen) = upgrade
        .subprotocols
        .iter()
        .find(|&name| Some(&name[..]) == subprotocol)
    {
        http::header_line("Sec-WebSocket-Protocol", chosen, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Is this 16 bytes in base64 (RFC 6455, 4.1)?
fn is_key(key: &[u8]) -> bool {
    // Some clients draw 22 random letters instead of encoding 16 random bytes, so that bits of the last letter
    // are set which belong to no byte.
    const BASE64: GeneralPurpose = GeneralPurpose::new(
        &base64::alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
    );
    let mut decoded = [0; 18];
    key.len() == 24
        && BASE64
            .decode_slice(key, &mut decoded)
            .is_ok_and(|size| size == 16)
}

/// Is this a token (RFC 9110, 5.6.2)?
fn is_token(name: &str) -> bool {
    let is_token_byte =
        |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(is_token_byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn good() -> Vec<(&'static str, &'static str)> {
        vec![
            ("Host", "localhost:8000"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ]
    }

    fn ask(line: &str, headers: &[(&str, &str)]) -> Result<Option<Upgrade>, u16> {
        let mut head = format!("{line}\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        match http::parse_head(head.as_bytes(), 8192, 64) {
            Ok(request) => upgrade(&request.expect("complete")).map_err(|reject| reject.status),
            Err(reject) => Err(reject.status),
        }
    }

    /// The good request with these headers instead of, or beside, its own; an empty value takes one away.
    fn ask_with(changes: &[(&'static str, &'static str)]) -> Result<Option<Upgrade>, u16> {
        let mut headers = good();
        headers.retain(|(name, _)| !changes.iter().any(|change| change.0 == *name));
        headers.extend(changes.iter().filter(|change| !change.1.is_empty()));
        ask("GET /a?b HTTP/1.1", &headers)
    }

    #[test]
    fn the_example_of_the_rfc() {
        let upgrade = ask("GET /chat HTTP/1.1", &good()).unwrap().unwrap();
        assert_eq!(upgrade.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let mut out = Vec::new();
        switching(&upgrade, None, &mut out);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn upgrades() {
        let check = |changes: &[(&'static str, &'static str)]| {
            let upgrade = ask_with(changes).expect("accepted").expect("an upgrade");
            assert_eq!(upgrade.accept.len(), 28, "{changes:?}");
        };
        check(&[]);
        check(&[("Upgrade", "WebSocket")]);
        check(&[("Upgrade", "h2c, WEBSOCKET")]);
        check(&[("Connection", "keep-alive, Upgrade")]);
        check(&[("Connection", "keep-alive,upgrade")]);
        check(&[("Connection", "keep-alive"), ("Connection", "UPGRADE")]);
        check(&[("Content-Length", "0")]);
        check(&[(
            "Sec-WebSocket-Extensions",
            "permessage-deflate; client_max_window_bits",
        )]);
        check(&[("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==")]);
        check(&[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZR==")]);
        check(&[("Sec-WebSocket-Key", "+/+/+/+/+/+/+/+/+/+/+w==")]);
    }

    #[test]
    fn plain_http() {
        let check = |line: &str, headers: &[(&str, &str)]| {
            assert_eq!(ask(line, headers), Ok(None), "{line} {headers:?}");
        };
        check("GET / HTTP/1.1", &[("Host", "a")]);
        check("GET / HTTP/1.0", &[]);
        check(
            "POST /x HTTP/1.1",
            &[("Host", "a"), ("Content-Length", "5")],
        );
        check(
            "GET / HTTP/1.1",
            &[("Host", "a"), ("Connection", "Upgrade"), ("Upgrade", "h2c")],
        );
        check(
            "GET / HTTP/1.1",
            &[("Host", "a"), ("Connection", "Upgrade")],
        );
        check(
            "GET / HTTP/1.1",
            &[("Host", "a"), ("Upgrade", "websocketx")],
        );
        check(
            "GET / HTTP/1.1",
            &[("Host", "a"), ("Sec-WebSocket-Key", KEY)],
        );
    }

    #[test]
    fn asked_wrongly() {
        let check = |changes: &[(&'static str, &'static str)], status: u16| {
            assert_eq!(ask_with(changes), Err(status), "{changes:?}");
        };
        check(&[("Connection", "")], 426);
        check(&[("Connection", "keep-alive")], 426);
        check(&[("Connection", "close")], 426);
        check(&[("Sec-WebSocket-Version", "12")], 426);
        check(&[("Sec-WebSocket-Version", "8")], 426);
        check(&[("Sec-WebSocket-Version", "013")], 426);
        check(&[("Sec-WebSocket-Version", "13, 8")], 426);
        check(&[("Sec-WebSocket-Version", "")], 426);
        check(
            &[
                ("Sec-WebSocket-Version", "13"),
                ("Sec-WebSocket-Version", "13"),
            ],
            400,
        );
        check(&[("Host", "")], 400);
        check(&[("Host", "a"), ("Host", "a")], 400);
        check(&[("Sec-WebSocket-Key", "")], 400);
        check(
            &[("Sec-WebSocket-Key", KEY), ("sec-websocket-key", KEY)],
            400,
        );
        for key in [
            "x",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ==x",
            "dGhlIHNhbXBsZSBub25jZQ==, x",
            "dGhlIHNhbXBsZSBub25jZTE=",
            "dGhlIHNhbXBsZSBub25jZTEy",
            "dGhlIHNhbXBsZSBub25jZQ!!",
            "____IHNhbXBsZSBub25jZQ==",
            "dGhlIHNhbXBsZSBub25jZ\u{e9}==",
        ] {
            check(&[("Sec-WebSocket-Key", key)], 400);
        }
        check(&[("Content-Length", "1")], 400);
        check(&[("Content-Length", "x")], 400);
        check(&[("Content-Length", "0"), ("Content-Length", "7")], 400);
        check(&[("Transfer-Encoding", "chunked")], 400);
        check(&[("Transfer-Encoding", "identity")], 400);
        check(&[("Sec-WebSocket-Protocol", "a b")], 400);
        check(&[("Sec-WebSocket-Protocol", "ok, \u{e9}")], 400);
        assert_eq!(ask("GET / HTTP/1.0", &good()), Err(400));
        for method in ["POST", "HEAD", "PUT", "get"] {
            assert_eq!(ask(&format!("{method} / HTTP/1.1"), &good()), Err(405));
        }
        assert_eq!(ask("GET / HTTP/2.0", &good()), Err(505));
    }

    #[test]
    fn one_of_the_offered_subprotocols() {
        let check = |offer: &[(&'static str, &'static str)], chosen, expected: Option<&str>| {
            let upgrade = ask_with(offer).unwrap().unwrap();
            let mut out = Vec::new();
            switching(&upgrade, chosen, &mut out);
            let text = String::from_utf8(out).unwrap();
            let found = text
                .lines()
                .find_map(|line| line.strip_prefix("Sec-WebSocket-Protocol: "));
            assert_eq!(found, expected);
        };
        const NAME: &str = "Sec-WebSocket-Protocol";
        check(
            &[(NAME, "mqtt, rp.v1.json")],
            Some("rp.v1.json"),
            Some("rp.v1.json"),
        );
        check(&[(NAME, "mqtt"), (NAME, " x , y")], Some("y"), Some("y"));
        check(&[(NAME, "mqtt")], None, None);
        check(&[(NAME, "mqtt")], Some("MQTT"), None);
        check(&[(NAME, "mqtt")], Some("other"), None);
        check(&[], Some("mqtt"), None);
        check(&[(NAME, ",, ,")], Some(""), None);
        let many = "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q,r";
        assert_eq!(
            ask_with(&[(NAME, many)])
                .unwrap()
                .unwrap()
                .subprotocols
                .len(),
            SUBPROTOCOLS_MAX
        );
    }
}
