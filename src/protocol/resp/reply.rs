//! Replies and pushes, from values to bytes.
//!
//! Invariant: a simple string or an error is one line, whatever a client put into it; all else carries its size.

use super::{Kind, Version};

/// The error for everything but a few commands, as long as no password was given.
pub const NOAUTH: &[u8] = b"NOAUTH Authentication required.";
/// The error for a HELLO that gives none then.
pub const NOAUTH_HELLO: &[u8] = b"NOAUTH HELLO must be called with the client already authenticated, otherwise the \
    HELLO AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the \
    same time";
/// The error for a password that is wrong, or a user that is not known.
pub const WRONGPASS: &[u8] = b"WRONGPASS invalid username-password pair or user is disabled.";
/// The error for an AUTH without a user where there is no password.
pub const NO_PASSWORD: &[u8] =
    b"ERR AUTH <password> called without any password configured for the default user. Are \
    you sure your configuration is correct?";

/// What we say we are: clients look at the version to learn what they may ask for.
pub const REDIS_VERSION: &str = "7.2.0";

/// A line: `+OK`. Line breaks in it become spaces.
pub fn write_simple(text: &[u8], out: &mut Vec<u8>) {
    write_line(b'+', text, out);
}

/// An error: `-ERR reason`. Line breaks in it become spaces.
pub fn write_error(text: &[u8], out: &mut Vec<u8>) {
    write_line(b'-', text, out);
}

/// `:1`
pub fn write_integer(number: i64, out: &mut Vec<u8>) {
    out.push(b':');
    if number < 0 {
        out.push(b'-');
    }
    write_decimal(number.unsigned_abs(), out);
    out.extend_from_slice(b"\r\n");
}

/// A bulk string: any bytes.
pub fn write_bulk(bytes: &[u8], out: &mut Vec<u8>) {
    write_header(b'$', bytes.len(), out);
    out.extend_from_slice(bytes);
    out.extend_from_slice(b"\r\n");
}

/// The bytes that [`write_bulk`] appends.
pub fn bulk_size(size: usize) -> usize {
    header_size(size) + size + 2
}

/// Nothing, where a bulk string could be.
pub fn write_null(version: Version, out: &mut Vec<u8>) {
    out.extend_from_slice(match version {
        Version::Two => b"$-1\r\n",
        Version::Three => b"_\r\n",
    });
}

/// The header of an array; as many values follow.
pub fn write_array(count: usize, out: &mut Vec<u8>) {
    write_header(b'*', count, out);
}

/// The header of a map; as many pairs of key and value follow. In RESP2 a flat array.
pub fn write_map(version: Version, count: usize, out: &mut Vec<u8>) {
    match version {
        Version::Two => write_header(b'*', 2 * count, out),
        Version::Three => write_header(b'%', count, out),
    }
}

/// The header of a push, which a client of RESP3 takes for no reply; as many values follow. In RESP2 an array.
pub fn write_push(version: Version, count: usize, out: &mut Vec<u8>) {
    write_header(push_type(version), count, out);
}

/// The bytes that one of the headers takes.
pub fn header_size(count: usize) -> usize {
    1 + decimal_size(count as u64) + 2
}

/// Text for people. In RESP2 a bulk string.
pub fn write_verbatim(version: Version, text: &[u8], out: &mut Vec<u8>) {
    /// What kind of text it is; the size counts it.
    const FORMAT: &[u8] = b"txt:";
    match version {
        Version::Two => write_bulk(text, out),
        Version::Three => {
            write_header(b'=', FORMAT.len() + text.len(), out);
            out.extend_from_slice(FORMAT);
            out.extend_from_slice(text);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Lines for people: an array of simple strings.
pub fn write_lines(lines: &[&str], out: &mut Vec<u8>) {
    write_array(lines.len(), out);
    for line in lines {
        write_simple(line.as_bytes(), out);
    }
}

/// The confirmation of one subscription that begins (`up`) or ends. `name` is the channel or pattern; nothing if all
/// were to end and there were none. `count` is what is left: of channels and patterns together, or of shard channels.
pub fn write_subscription(
    version: Version,
    kind: Kind,
    up: bool,
    name: Option<&[u8]>,
    count: usize,
    out: &mut Vec<u8>,
) {
    let word = if up {
        kind.subscribe_word()
    } else {
        kind.unsubscribe_word()
    };
    write_push(version, 3, out);
    write_bulk(word.as_bytes(), out);
    match name {
        Some(name) => write_bulk(name, out),
        None => write_null(version, out),
    }
    write_header(b':', count, out);
}

/// The answer to HELLO, in the version that is spoken from now on. `id` is the connection's number.
pub fn write_hello(version: Version, id: u64, out: &mut Vec<u8>) {
    write_map(version, 7, out);
    write_bulk(b"server", out);
    write_bulk(b"redis", out);
    write_bulk(b"version", out);
    write_bulk(REDIS_VERSION.as_bytes(), out);
    write_bulk(b"proto", out);
    write_count(version.number().into(), out);
    write_bulk(b"id", out);
    write_count(id, out);
    write_bulk(b"mode", out);
    write_bulk(b"standalone", out);
    write_bulk(b"role", out);
    write_bulk(b"master", out);
    write_bulk(b"modules", out);
    write_array(0, out);
}

/// The answer to PING. A subscriber in RESP2 sees nothing but arrays.
pub fn write_pong(version: Version, subscribed: bool, message: Option<&[u8]>, out: &mut Vec<u8>) {
    match (version, message) {
        (Version::Two, message) if subscribed => {
            write_array(2, out);
            write_bulk(b"pong", out);
            write_bulk(message.unwrap_or_default(), out);
        }
        (_, Some(message)) => write_bulk(message, out),
        (_, None) => write_simple(b"PONG", out),
    }
}

/// The answer to PUBSUB NUMSUB and SHARDNUMSUB: each name and its count, a flat array in both versions.
pub fn write_counts<'a>(counts: impl ExactSizeIterator<Item = (&'a [u8], u64)>, out: &mut Vec<u8>) {
    write_array(2 * counts.len(), out);
    for (name, count) in counts {
        write_bulk(name, out);
        write_count(count, out);
    }
}

/// The answer to TIME.
pub fn write_time(unix_us: u64, out: &mut Vec<u8>) {
    write_array(2, out);
    for number in [unix_us / 1_000_000, unix_us % 1_000_000] {
        write_header(b'$', decimal_size(number), out);
        write_decimal(number, out);
        out.extend_from_slice(b"\r\n");
    }
}

/// The first byte of a push.
pub(super) fn push_type(version: Version) -> u8 {
    match version {
        Version::Two => b'*',
        Version::Three => b'>',
    }
}

fn write_count(count: u64, out: &mut Vec<u8>) {
    out.push(b':');
    write_decimal(count, out);
    out.extend_from_slice(b"\r\n");
}

fn write_header(kind: u8, count: usize, out: &mut Vec<u8>) {
    out.push(kind);
    write_decimal(count as u64, out);
    out.extend_from_slice(b"\r\n");
}

fn write_line(kind: u8, text: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend(text.iter().map(|&byte| match byte {
        b'\r' | b'\n' => b' ',
        _ => byte,
    }));
    out.extend_from_slice(b"\r\n");
}

/// The digits of a number. `write!` takes three times as long.
fn write_decimal(mut number: u64, out: &mut Vec<u8>) {
    let mut digits = [0; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[start..]);
}

fn decimal_size(number: u64) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}
