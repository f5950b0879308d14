//! HTTP/1.1, just enough. (stub)

/// A request head, borrowed from the bytes that came.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: &'a str,
    /// the path of the target, without query
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub headers: Vec<(&'a str, &'a [u8])>,
    /// bytes of the head, the blank line included
    pub head_size: usize,
    pub http11: bool,
}

impl<'a> Request<'a> {
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        self.headers
            .iter()
            .find(|h| h.0.eq_ignore_ascii_case(name))
            .map(|h| h.1)
    }
}

/// A request that is answered with a status and then ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reject {
    pub status: u16,
    pub reason: &'static str,
}

/// None: incomplete. Err: 400 / 431 / 505 ...
pub fn parse_head(
    _bytes: &[u8],
    _bytes_max: usize,
    _headers_max: usize,
) -> Result<Option<Request<'_>>, Reject> {
    todo!()
}

/// A whole response with Content-Length, Connection: close, and a few fixed safety headers.
pub fn response(
    _status: u16,
    _content_type: &str,
    _extra_headers: &[(&str, &str)],
    _body: &[u8],
    _out: &mut Vec<u8>,
) {
    todo!()
}
impl Reject {
    /// (stub)
    pub fn new(status: u16, reason: &'static str) -> Reject {
        Reject { status, reason }
    }
}
/// (stub)
pub fn reject(_reject: &Reject, _out: &mut Vec<u8>) {
    todo!()
}
