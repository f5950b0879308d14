//! HTTP/1.1, just enough: one request head in, one response out, then the connection is a WebSocket or ends.
//!
//! httparse does the grammar. Added here is what it lets pass and RFC 9112 forbids or we do not want: bare line
//! feeds, empty lines in front, two `Host` headers, a target that is neither a path nor a URL of this host; and
//! the bounds. It knows neither paths nor what upgrades mean. Invariants: a head is refused as soon as its bytes
//! cannot become a good one; nothing beyond `bytes_max` is looked at.

use std::borrow::Cow;

/// A request head, borrowed from the bytes that came.
#[derive(Debug)]
pub struct Request<'a> {
    /// As it came; methods are case-sensitive.
    pub method: &'a str,
    /// the path of the target, without query
    pub path: &'a str,
    /// What follows the first `?` of the target.
    pub query: Option<&'a str>,
    /// Names as they came, values without the white space around them.
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// bytes of the head, the blank line included
    pub head_size: usize,
    /// Is this HTTP/1.1? Else it is HTTP/1.0.
    pub http11: bool,
}

impl<'a> Request<'a> {
    /// The first value of this name in the query, percent-decoded (RFC 3986, 2.1) where it can be.
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, [u8]>> {
        let pairs = self.query?.split('&');
        let mut values = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let written = values.next()?;
        let decoded = written.contains('%').then(|| percent_decode(written));
        Some(match decoded.flatten() {
            Some(decoded) => Cow::Owned(decoded),
            None => Cow::Borrowed(written.as_bytes()),
        })
    }

    /// The value of the first header of this name, in any case.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.values(name).next()
    }

    /// The values of all headers of this name, in any case.
    pub fn values<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'a [u8]> + 'r {
        self.headers
            .iter()
            .filter(|h| h.0.eq_ignore_ascii_case(name))
            .map(|h| h.1)
    }

    /// The elements of a header that is a list (RFC 9110, 5.6.1): comma-separated, over one header or several,
    /// empty ones left out.
    pub fn elements<'r>(&'r self, name: &'r str) -> impl Iterator<Item = &'a [u8]> + 'r {
        self.values(name)
            .flat_map(|value| value.split(|&byte| byte == b','))
            .map(|element| element.trim_ascii())
            .filter(|element| !element.is_empty())
    }
}

/// The bytes of a percent-encoded text (RFC 3986, 2.1); nothing if two hexadecimal digits are missing behind a `%`.
pub fn percent_decode(written: &str) -> Option<Vec<u8>> {
    let mut bytes = written.bytes();
    let mut decoded = Vec::with_capacity(written.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                // Two digits of four bits fit a byte.
                (digit()? << 4 | digit()?) as u8
            }
            _ => byte,
        });
    }
    Some(decoded)
}

/// A request that is answered with a status and then ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    /// The HTTP status.
    pub status: u16,
    /// What was wrong: the body of the response and the sentence in the log.
    pub reason: &'static str,
}

/// Reads the head at the front of `bytes`. `None`: incomplete.
///
/// # Errors
///
/// 400 for what is not HTTP/1.x, 431 for a head above `bytes_max` or with more than `headers_max` headers (also
/// while it is incomplete), 505 for another version of HTTP.
pub fn parse_head(
    bytes: &[u8],
    bytes_max: usize,
    headers_max: usize,
) -> Result<Option<Request<'_>>, Reject> {
    let bytes = &bytes[..bytes.len().min(bytes_max)];
    // The preface of HTTP/2 (RFC 9113, 3.4) is made to look like a request; no other method begins like this.
    if bytes.starts_with(b"PRI ") {
        return Err(bad("HTTP/2 is not spoken here"));
    }
    // RFC 9112, 2.2 lets a server skip an empty line left over from the body before. Here nothing came before.
    if let Some(b'\r' | b'\n') = bytes.first() {
        return Err(bad("an empty line before the request line"));
    }

    let mut headers = vec![httparse::EMPTY_HEADER; headers_max];
    let mut parsed = httparse::Request::new(&mut headers);
    let status = parsed.parse(bytes);
    let head_size = match status {
        Ok(httparse::Status::Complete(size)) => size,
        Ok(httparse::Status::Partial) => bytes.len(),
        Err(error) => return Err(reject(error, bytes)),
    };
    // httparse takes a lone line feed for a line end; proxies before us may not, and then see other headers.
    let head = &bytes[..head_size];
    if memchr::memchr_iter(b'\n', head).any(|i| i == 0 || head[i - 1] != b'\r') {
        return Err(bad("a line feed without carriage return"));
    }
    let (Ok(httparse::Status::Complete(_)), Some(method), Some(target), Some(version)) =
        (status, parsed.method, parsed.path, parsed.version)
    else {
        if bytes.len() >= bytes_max {
            return Err(Reject {
                status: 431,
                reason: "the request head is too large",
            });
        }
        return Ok(None);
    };

    let headers = parsed.headers.iter().map(|h| (h.name, h.value)).collect();
    let mut request = Request {
        method,
        path: target,
        query: None,
        headers,
        head_size,
        http11: version == 1,
    };
    // RFC 9112, 3.2.
    if request.values("host").nth(1).is_some() {
        return Err(bad("two Host headers"));
    }
    let target = origin_form(target, request.header("host"))?;
    (request.path, request.query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    if request.path.is_empty() {
        request.path = "/";
    }
    Ok(Some(request))
}

/// Path and query of a request target (RFC 9112, 3.2): as they are, `*`, or from a URL. The URL's authority would
/// overrule the Host header; so that all checks see one host, the two have to agree.
fn origin_form<'a>(target: &'a str, host: Option<&[u8]>) -> Result<&'a str, Reject> {
    if target.starts_with('/') || target == "*" {
        return Ok(target);
    }
    let Some((scheme, rest)) = target.split_once("://") else {
        return Err(bad("the target is neither a path nor a URL"));
    };
    if !["http", "https", "ws", "wss"]
        .iter()
        .any(|known| scheme.eq_ignore_ascii_case(known))
    {
        return Err(bad("the target is a URL of another scheme"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if !host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_bytes())) {
        return Err(bad(
            "the target is a URL of another host than the Host header",
        ));
    }
    Ok(path)
}

fn bad(reason: &'static str) -> Reject {
    Reject {
        status: 400,
        reason,
    }
}

fn reject(error: httparse::Error, bytes: &[u8]) -> Reject {
    match error {
        httparse::Error::TooManyHeaders => Reject {
            status: 431,
            reason: "too many headers",
        },
        httparse::Error::Version if names_other_version(bytes) => Reject {
            status: 505,
            reason: "only HTTP/1.1 is spoken here",
        },
        httparse::Error::Version => bad("not HTTP"),
        httparse::Error::Token => bad("the request line is broken"),
        httparse::Error::HeaderName => bad("a header name is broken"),
        httparse::Error::HeaderValue => bad("a header value is broken"),
        httparse::Error::NewLine | httparse::Error::Status => bad("a line end is broken"),
    }
}

/// Is the third word of the request line a well-formed version (RFC 9112, 2.3), as far as it came?
fn names_other_version(bytes: &[u8]) -> bool {
    let line = bytes
        .split(|&byte| byte == b'\r' || byte == b'\n')
        .next()
        .unwrap_or(bytes);
    let version = line.split(|&byte| byte == b' ').nth(2);
    match version.and_then(|version| version.strip_prefix(b"HTTP/")) {
        Some([major]) | Some([major, b'.']) => major.is_ascii_digit(),
        Some([major, b'.', minor]) => major.is_ascii_digit() && minor.is_ascii_digit(),
        _ => false,
    }
}

/// Appends a whole response with Content-Length, Connection: close, and a few fixed safety headers. An extra
/// header takes the place of ours of the same name. What a status may not go without comes by itself: 405 says
/// what is allowed, 426 to what one may upgrade, 503 when to come again.
pub fn response(
    status: u16,
    content_type: &str,
    extra_headers: &[(&str, &str)],
    body: &[u8],
    out: &mut Vec<u8>,
) {
    let by_status: &[(&str, &str)] = match status {
        // RFC 9110, 15.5.6.
        405 => &[("Allow", "GET")],
        // RFC 9110, 15.5.22 and 7.8; RFC 6455, 4.4.
        426 => &[
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Connection", "close, Upgrade"),
        ],
        503 => &[("Retry-After", "1")],
        _ => &[],
    };
    let content_length = body.len().to_string();
    let always = [
        ("Content-Type", content_type),
        ("Content-Length", &content_length),
        ("Connection", "close"),
        // A page of another site shall neither guess another type for this nor find it in a cache.
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ];

    out.extend_from_slice(format!("HTTP/1.1 {status} {}\r\n", reason_phrase(status)).as_bytes());
    let sources = [extra_headers, by_status, &always];
    for (i, source) in sources.iter().enumerate() {
        for (name, value) in *source {
            let is_named_before = sources[..i]
                .iter()
                .copied()
                .flatten()
                .any(|h| h.0.eq_ignore_ascii_case(name));
            if !is_named_before {
                header_line(name, value, out);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body);
}

/// Appends the response to a refused request: its reason as a line of text.
pub fn reject_response(reject: Reject, out: &mut Vec<u8>) {
    let body = format!("{}\n", reject.reason);
    response(
        reject.status,
        "text/plain; charset=utf-8",
        &[],
        body.as_bytes(),
        out,
    );
}

/// Appends a header. Neither part may hold a line end; nothing that a client sent comes here unchecked.
pub(super) fn header_line(name: &str, value: &str, out: &mut Vec<u8>) {
    debug_assert!(
        !name
            .bytes()
            .chain(value.bytes())
            .any(|byte| byte.is_ascii_control()),
        "a header is one line"
    );
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// The reason phrases of the statuses that this broker sends (RFC 9110, 15; RFC 6585).
fn reason_phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        413 => "Content Too Large",
        421 => "Misdirected Request",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // RFC 9112, 4: the phrase may be empty, the space before it may not be missing.
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: usize = 8 * 1024;
    const HEADERS_MAX: usize = 64;

    fn status(bytes: &[u8]) -> u16 {
        match parse_head(bytes, BYTES_MAX, HEADERS_MAX) {
            Ok(None) => 0,
            Ok(Some(_)) => 200,
            Err(reject) => reject.status,
        }
    }

    #[test]
    fn reads_a_head() {
        let bytes = b"GET /chat/x?a=1?b HTTP/1.1\r\nHost: h:1\r\nX:\r\nx: \t v w \r\n\r\nleft over";
        let request = parse_head(bytes, BYTES_MAX, HEADERS_MAX).unwrap().unwrap();
        assert_eq!(request.method, "GET");
        assert_eq!(request.path, "/chat/x");
        assert_eq!(request.query, Some("a=1?b"));
        assert!(request.http11);
        assert_eq!(&bytes[request.head_size..], b"left over");
        let expected: [(&str, &[u8]); 3] = [("Host", b"h:1"), ("X", b""), ("x", b"v w")];
        assert_eq!(request.headers, expected);
        assert_eq!(request.header("hOST"), Some(&b"h:1"[..]));
        assert_eq!(request.header("y"), None);
        assert_eq!(request.values("x").count(), 2);
        for size in 0..request.head_size {
            assert_eq!(status(&bytes[..size]), 0, "cut at {size}");
        }
    }

    #[test]
    fn query_values() {
        for (query, expected) in [
            (Some("token=a.b-c_d"), Some("a.b-c_d")),
            (Some("v=1&token=x&token=y"), Some("x")),
            (Some("token="), Some("")),
            (Some("token=a%2eb%3D"), Some("a.b=")),
            (Some("token=a=b"), Some("a=b")),
            (Some("token=a+b"), Some("a+b")),
            // As it is, then.
            (Some("token=a%2"), Some("a%2")),
            (Some("token"), None),
            (Some("tokens=a"), None),
            (Some("Token=a"), None),
            (Some(""), None),
            (None, None),
        ] {
            let request = Request {
                method: "GET",
                path: "/",
                query,
                headers: Vec::new(),
                head_size: 0,
                http11: true,
            };
            let found = request.query_value("token");
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{query:?}");
        }
    }

    #[test]
    fn percent_decoding() {
        for (written, expected) in [
            ("news.uk", Some("news.uk")),
            ("a%2fb", Some("a/b")),
            ("a/b%2F", Some("a/b/")),
            ("caf%C3%A9", Some("café")),
            ("a+b", Some("a+b")),
            ("%25", Some("%")),
            ("", Some("")),
            ("%", None),
            ("a%2", None),
            ("%zz", None),
            ("%+1", None),
        ] {
            let decoded = percent_decode(written);
            assert_eq!(decoded.as_deref(), expected.map(str::as_bytes), "{written}");
        }
    }

    #[test]
    fn elements_of_lists() {
        let bytes = b"GET / HTTP/1.1\r\nA: x, y ,,\tz\r\nB: no\r\na:\r\na: last\r\n\r\n";
        let request = parse_head(bytes, BYTES_MAX, HEADERS_MAX).unwrap().unwrap();
        let elements: Vec<&[u8]> = request.elements("a").collect();
        assert_eq!(elements, [&b"x"[..], b"y", b"z", b"last"]);
    }

    #[test]
    fn targets() {
        let check = |target: &str, expected: Result<(&str, Option<&str>), u16>| {
            let bytes = format!("GET {target} HTTP/1.1\r\nHost: Here.example:80\r\n\r\n");
            let result = parse_head(bytes.as_bytes(), BYTES_MAX, HEADERS_MAX)
                .map(|request| request.expect("complete"))
                .map(|request| (request.path, request.query))
                .map_err(|reject| reject.status);
            assert_eq!(result, expected, "{target}");
        };
        check("/", Ok(("/", None)));
        check("/?", Ok(("/", Some(""))));
        check("/a/b?token=x&y", Ok(("/a/b", Some("token=x&y"))));
        check("/a?u=http://other/", Ok(("/a", Some("u=http://other/"))));
        check("//other/x", Ok(("//other/x", None)));
        check("*", Ok(("*", None)));
        check("/%C3%A9", Ok(("/%C3%A9", None)));
        check("http://here.example:80", Ok(("/", None)));
        check("http://here.example:80/a?b", Ok(("/a", Some("b"))));
        check("WS://here.example:80?b", Ok(("/", Some("b"))));
        check("http://other.example:80/", Err(400));
        check("http://u@here.example:80/", Err(400));
        check("ftp://here.example:80/", Err(400));
        check("here.example:80", Err(400));
        check("a", Err(400));
        check("?a", Err(400));
        check("/a b", Err(400));
        check("", Err(400));
    }

    #[test]
    fn heads_that_pass_or_not() {
        let check = |bytes: &[u8], expected: u16| {
            assert_eq!(status(bytes), expected, "{}", bytes.escape_ascii());
        };
        check(b"GET / HTTP/1.1\r\n\r\n", 200);
        check(b"GET / HTTP/1.0\r\n\r\n", 200);
        check(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 200);
        check(b"GET / HTTP/1.1\r\nA: \xE9\r\n\r\n", 200);
        // Versions.
        check(b"GET / HTTP/2.0\r\n\r\n", 505);
        check(b"GET / HTTP/2", 505);
        check(b"GET / HTTP/0.9\r\n\r\n", 505);
        check(b"GET / HTTP/1.2\r\n\r\n", 505);
        check(b"GET / HTTP/11\r\n\r\n", 400);
        check(b"GET / HTTP/x.1\r\n\r\n", 400);
        check(b"GET / http/1.1\r\n\r\n", 400);
        check(b"GET / RTSP/1.0\r\n\r\n", 400);
        check(b"GET /\r\n\r\n", 400);
        // Line ends.
        check(b"GET / HTTP/1.1\n\n", 400);
        check(b"GET / HTTP/1.1\nHost: a\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\r\r\n\r\n", 400);
        check(b"\r\nGET / HTTP/1.1\r\n\r\n", 400);
        check(b"\nGET / HTTP/1.1\r\n\r\n", 400);
        // Headers.
        check(b"GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA: b\r\n\tc\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\n A: b\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA : b\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\n: b\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA: b\0c\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA: \x7F\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nA\0: b\r\n\r\n", 400);
        check(b"GET /\0 HTTP/1.1\r\n\r\n", 400);
        check(b"GET  / HTTP/1.1\r\n\r\n", 400);
        check(b" GET / HTTP/1.1\r\n\r\n", 400);
        check(b"G\xC3\xA9T / HTTP/1.1\r\n\r\n", 400);
        check(b"GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n", 400);
    }

    #[test]
    fn what_cannot_be_http_is_refused_at_once() {
        let check = |bytes: &[u8], needed: usize| {
            for size in 0..=bytes.len() {
                let expected = if size < needed { 0 } else { 400 };
                assert_eq!(
                    status(&bytes[..size]),
                    expected,
                    "{} at {size}",
                    bytes.escape_ascii()
                );
            }
        };
        // TLS, HTTP/2, MQTT, an inline Redis command, RESP, SSH, a WebSocket frame.
        check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03", 1);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 4);
        check(b"\x10\x0E\x00\x04MQTT", 1);
        check(b"PING\r\n", 5);
        check(b"*1\r\n$4\r\nPING\r\n", 3);
        check(b"SSH-2.0-OpenSSH_9.6\r\n", 20);
        check(b"\x81\x85\x37\xFA\x21\x3D", 1);
        check(b"{\"type\":", 1);
        check(b"\r", 1);
    }

    #[test]
    fn bounds() {
        let start = "GET / HTTP/1.1\r\n";
        let filled = |size: usize| {
            let value = "x".repeat(size - start.len() - "A: \r\n\r\n".len());
            format!("{start}A: {value}\r\n\r\n").into_bytes()
        };
        assert_eq!(status(&filled(BYTES_MAX)), 200);
        assert_eq!(status(&filled(BYTES_MAX + 1)), 431);
        assert_eq!(status(&filled(1024 * 1024)), 431);
        assert_eq!(status(&filled(BYTES_MAX)[..BYTES_MAX - 1]), 0);
        assert_eq!(status(&filled(BYTES_MAX + 1)[..BYTES_MAX]), 431);
        assert_eq!(status(&[b'A'; BYTES_MAX]), 431);
        assert_eq!(status(&[b'A'; BYTES_MAX - 1]), 0);
        // What follows the head does not count.
        let followed = [filled(100), vec![0; 2 * BYTES_MAX]].concat();
        assert_eq!(status(&followed), 200);

        let headers = |count: usize| format!("{start}{}\r\n", "A: b\r\n".repeat(count));
        assert_eq!(status(headers(HEADERS_MAX).as_bytes()), 200);
        assert_eq!(status(headers(HEADERS_MAX + 1).as_bytes()), 431);
        let endless = headers(HEADERS_MAX + 1);
        assert_eq!(status(&endless.as_bytes()[..endless.len() - 2]), 431);
    }

    #[test]
    fn responses() {
        let check = |status, extra: &[(&str, &str)], expected: &str| {
            let mut out = Vec::new();
            response(status, "text/plain", extra, b"body", &mut out);
            assert_eq!(
                std::str::from_utf8(&out).unwrap(),
                expected.replace('\n', "\r\n") + "body"
            );
        };
        let safety = "X-Content-Type-Options: nosniff\nCache-Control: no-store\n\n";
        let common = "Content-Type: text/plain\nContent-Length: 4\nConnection: close\n";
        check(200, &[], &format!("HTTP/1.1 200 OK\n{common}{safety}"));
        check(
            299,
            &[("A", "b")],
            &format!("HTTP/1.1 299 \nA: b\n{common}{safety}"),
        );
        check(
            426,
            &[],
            &format!(
                "HTTP/1.1 426 Upgrade Required\nUpgrade: websocket\nSec-WebSocket-Version: 13\n\
                 Connection: close, Upgrade\nContent-Type: text/plain\nContent-Length: 4\n{safety}"
            ),
        );
        check(
            503,
            &[("retry-after", "7"), ("cache-control", "max-age=1")],
            &format!(
                "HTTP/1.1 503 Service Unavailable\nretry-after: 7\ncache-control: max-age=1\n\
                 {common}X-Content-Type-Options: nosniff\n\n"
            ),
        );
    }

    #[test]
    fn every_refusal_has_a_phrase() {
        for status in [400, 403, 404, 405, 408, 413, 421, 426, 429, 431, 503, 505] {
            let mut out = Vec::new();
            reject_response(
                Reject {
                    status,
                    reason: "why",
                },
                &mut out,
            );
            let text = String::from_utf8(out).unwrap();
            assert!(text.starts_with(&format!("HTTP/1.1 {status} ")));
            assert!(!reason_phrase(status).is_empty());
            assert!(text.ends_with("\r\n\r\nwhy\n"));
            assert_eq!(text.contains("\r\nAllow: GET\r\n"), status == 405);
            assert_eq!(text.contains("\r\nRetry-After: 1\r\n"), status == 503);
            assert_eq!(
                text.contains("\r\nSec-WebSocket-Version: 13\r\n"),
                status == 426
            );
        }
    }
}
