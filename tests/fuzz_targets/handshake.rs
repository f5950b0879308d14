//! Request heads, upgrades and origins. The input: one byte for the bounds, one for the origin rules, then the
//! bytes of a connection.

use pubsub::ws::forwarded::Forwarded;
use pubsub::ws::handshake::{SUBPROTOCOLS_MAX, Upgrade, switching, upgrade};
use pubsub::ws::http::{Reject, Request, parse_head, reject_response};
use pubsub::ws::origin::{self, OriginRules};

use super::input::Input;

pub fn run(input: &[u8]) {
    let mut input = Input::new(input);
    let (bytes_max, headers_max) = [(8192, 64), (200, 64), (8192, 4)][input.below(3)];
    let rules = rules(input.below(6));
    let bytes = input.rest();
    let whole = parse_head(bytes, bytes_max, headers_max);
    check_prefixes(bytes, bytes_max, headers_max, &whole);
    match &whole {
        Ok(None) => assert!(bytes.len() < bytes_max, "a full head is still incomplete"),
        Ok(Some(request)) => {
            check_request(request, bytes, bytes_max, headers_max);
            check_origin(&rules, request);
            match upgrade(request) {
                Ok(None) => {}
                Ok(Some(upgrade)) => check_upgrade(request, &upgrade),
                Err(reject) => check_reject(reject),
            }
        }
        Err(reject) => check_reject(*reject),
    }
}

fn rules(choice: usize) -> OriginRules {
    let allow = ["https://a.example:8443", "null", "*"];
    let allow = match choice / 2 {
        0 => &allow[..0],
        1 => &allow[..2],
        _ => &allow[..],
    };
    let allow: Vec<String> = allow.iter().map(|origin| (*origin).to_owned()).collect();
    OriginRules::new(&allow, choice % 2 == 1).expect("they are origins")
}

/// More bytes only make a head complete or refused, and then it stays so.
fn check_prefixes(
    bytes: &[u8],
    bytes_max: usize,
    headers_max: usize,
    whole: &Result<Option<Request<'_>>, Reject>,
) {
    // All of a short input, some of a long one.
    let step = bytes.len() / 64 + 1;
    for size in (0..bytes.len()).step_by(step) {
        match (parse_head(&bytes[..size], bytes_max, headers_max), whole) {
            (Ok(None), _) => {}
            (Ok(Some(part)), Ok(Some(whole))) => {
                assert_eq!(part.head_size, whole.head_size);
                assert_eq!((part.method, part.path), (whole.method, whole.path));
                assert_eq!((part.query, &part.headers), (whole.query, &whole.headers));
            }
            (Err(_), Err(_)) => {}
            (part, whole) => panic!("{part:?} at {size}, then {whole:?}"),
        }
    }
}

fn check_request(request: &Request<'_>, bytes: &[u8], bytes_max: usize, headers_max: usize) {
    assert!(request.head_size <= bytes_max && request.headers.len() <= headers_max);
    assert!(bytes[..request.head_size].ends_with(b"\r\n\r\n"));
    assert!(request.path.starts_with('/') || request.path == "*");
    assert!(!request.path.contains('?'));
    let target = [request.method, request.path, request.query.unwrap_or("")];
    for part in target {
        assert!(!part.bytes().any(|byte| byte <= b' ' || byte == 0x7F));
    }
    for (name, value) in &request.headers {
        assert!(!name.is_empty() && !name.bytes().any(|byte| byte <= b' ' || byte == b':'));
        assert!(!value.iter().any(|byte| b"\r\n\0".contains(byte)));
        assert_eq!(value.trim_ascii(), *value);
    }
}

/// What passes is allowed by name, or of this host, or of this machine.
fn check_origin(rules: &OriginRules, request: &Request<'_>) {
    let lower = |name: &str| {
        let value = request.header(name)?;
        Some(String::from_utf8_lossy(value).to_ascii_lowercase())
    };
    match origin::check(rules, request, &Forwarded::default()) {
        Err(sentence) => {
            assert!(sentence.len() < 1000 && !sentence.contains(char::is_control));
            assert!(!rules.allow.iter().any(|allowed| allowed == "*"));
            if !rules.loopback_only {
                assert!(request.header("origin").is_some());
            }
        }
        Ok(()) if rules.allow.iter().any(|allowed| allowed == "*") => {}
        Ok(()) => {
            assert!(request.values("origin").count() <= 1);
            let host = lower("host").unwrap_or_default();
            let host = host.split(':').next().unwrap_or_default().to_owned();
            if let Some(origin) = lower("origin") {
                // Not the ports, and not the spelling of an address: the unit tests know these.
                let authority = origin.split("://").nth(1).unwrap_or(&origin);
                let name = authority.split(':').next().unwrap_or_default();
                let is_local = rules.loopback_only && ["localhost", "127.0.0.1"].contains(&name);
                let is_allowed = !rules.allow.is_empty() && ["null", "a.example"].contains(&name);
                let is_address = authority.starts_with('[');
                assert!(
                    is_local || is_allowed || is_address || name == host,
                    "{origin:?} passed at {host:?}"
                );
            }
        }
    }
}

fn check_upgrade(request: &Request<'_>, upgrade: &Upgrade) {
    assert!(request.method == "GET" && request.http11);
    assert_eq!(request.header("sec-websocket-version"), Some(&b"13"[..]));
    let key = request.header("sec-websocket-key").unwrap_or_default();
    assert_eq!((key.len(), upgrade.accept.len()), (24, 28));
    assert!(upgrade.subprotocols.len() <= SUBPROTOCOLS_MAX);
    let not_offered = "x y".to_owned();
    for chosen in [None, upgrade.subprotocols.last(), Some(&not_offered)] {
        let mut response = Vec::new();
        switching(upgrade, chosen.map(|name| &name[..]), &mut response);
        let (lines, body) = split_response(&response);
        let is_offered = chosen.is_some_and(|name| upgrade.subprotocols.contains(name));
        assert_eq!(lines.len(), 4 + usize::from(is_offered), "{lines:?}");
        assert_eq!(lines[0], "HTTP/1.1 101 Switching Protocols");
        assert!(body.is_empty());
    }
}

fn check_reject(reject: Reject) {
    assert!(matches!(reject.status, 400 | 405 | 426 | 431 | 505));
    let mut response = Vec::new();
    reject_response(reject, &mut response);
    let (lines, body) = split_response(&response);
    assert!(lines[0].starts_with(&format!("HTTP/1.1 {} ", reject.status)));
    assert!(lines.contains(&&*format!("Content-Length: {}", body.len())));
    assert!(lines.contains(&"Connection: close") || reject.status == 426);
}

/// The lines of a response's head, and its body.
fn split_response(response: &[u8]) -> (Vec<&str>, &str) {
    let text = std::str::from_utf8(response).expect("we answer in ASCII");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head ends");
    let lines: Vec<&str> = head.split("\r\n").collect();
    for line in &lines {
        assert!(!line.contains(['\r', '\n']));
    }
    (lines, body)
}
