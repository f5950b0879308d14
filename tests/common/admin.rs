//! One HTTP request over a TCP connection, read to its end: enough to ask the operators' listener, and to ask
//! the client listener for what is no WebSocket.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::DEADLINE;

/// A whole response.
#[derive(Debug)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Status line and header fields.
    pub head: String,
    /// The body, without chunks.
    pub body: String,
}

impl Response {
    /// The value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.head, name)
    }
}

/// The value of a header field in a head.
pub fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().skip(1).find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// GET.
pub fn get(address: &str, path: &str) -> Response {
    request(address, "GET", path, &[], "")
}

/// POST.
pub fn post(address: &str, path: &str, body: &str) -> Response {
    request(address, "POST", path, &[], body)
}

/// Any request with further header fields; the connection is closed after it.
pub fn request(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response {
    let mut stream = TcpStream::connect(address)
        .unwrap_or_else(|error| panic!("{method} {path}: connect {address}: {error}"));
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.set_write_timeout(Some(DEADLINE)).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n");
    if !body.is_empty() || method == "POST" {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut bytes = head.into_bytes();
    bytes.extend_from_slice(body.as_bytes());
    stream
        .write_all(&bytes)
        .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    let mut answer = Vec::new();
    stream
        .read_to_end(&mut answer)
        .unwrap_or_else(|error| panic!("{method} {path}: {error} after {answer:?}"));
    parse(&answer).unwrap_or_else(|| {
        panic!(
            "{method} {path}: not HTTP: {:?}",
            String::from_utf8_lossy(&answer)
        )
    })
}

/// A whole response from its bytes.
pub fn parse(bytes: &[u8]) -> Option<Response> {
    let head_size = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8(bytes[..head_size].to_vec()).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut body = bytes[head_size..].to_vec();
    if header(&head, "Transfer-Encoding").is_some_and(|coding| coding.contains("chunked")) {
        body = dechunk(&body)?;
    } else if let Some(length) = header(&head, "Content-Length") {
        assert_eq!(Ok(body.len()), length.parse(), "Content-Length of {head}");
    }
    Some(Response {
        status,
        head,
        body: String::from_utf8(body).ok()?,
    })
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(&rest[..line_end]).ok()?;
        let size = usize::from_str_radix(line.split(';').next()?.trim(), 16).ok()?;
        rest = &rest[line_end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size + 2..)?;
    }
}
