//! Replies and pushes, from values to bytes.
//!
//! Invariant: a simple string or an error is one line, whatever a client put into it; all else carries its size.

use super::number::{decimal_size, write_decimal};
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

pub(super) fn write_header(kind: u8, count: usize, out: &mut Vec<u8>) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expected: &str, write: impl Fn(&mut Vec<u8>)) {
        let mut out = b"before".to_vec();
        write(&mut out);
        assert_eq!(out[6..].escape_ascii().to_string(), expected);
    }

    #[test]
    fn lines_stay_lines() {
        check(r"+OK\r\n", |out| write_simple(b"OK", out));
        check(r"-ERR a  b \r\n", |out| write_error(b"ERR a\r\nb\n", out));
        check(r"+\xff\x00\r\n", |out| write_simple(b"\xff\x00", out));
        check(r"*2\r\n+a\r\n+\r\n", |out| write_lines(&["a", ""], out));
    }

    #[test]
    fn values() {
        for (number, expected) in [
            (0, r":0\r\n"),
            (7, r":7\r\n"),
            (-10, r":-10\r\n"),
            (i64::MAX, r":9223372036854775807\r\n"),
            (i64::MIN, r":-9223372036854775808\r\n"),
        ] {
            check(expected, |out| write_integer(number, out));
        }
        check(r"$0\r\n\r\n", |out| write_bulk(b"", out));
        check(r"$3\r\n\r\n\xff\r\n", |out| write_bulk(b"\r\n\xff", out));
        check(r"*10\r\n", |out| write_array(10, out));
        check(r"*2\r\n$10\r\n1234567890\r\n$1\r\n7\r\n", |out| {
            write_time(1_234_567_890_000_007, out);
        });
    }

    #[test]
    fn versions_differ() {
        use Version::{Three, Two};
        check(r"$-1\r\n", |out| write_null(Two, out));
        check(r"_\r\n", |out| write_null(Three, out));
        check(r"*14\r\n", |out| write_map(Two, 7, out));
        check(r"%7\r\n", |out| write_map(Three, 7, out));
        check(r"*3\r\n", |out| write_push(Two, 3, out));
        check(r">3\r\n", |out| write_push(Three, 3, out));
        check(r"$2\r\nhi\r\n", |out| write_verbatim(Two, b"hi", out));
        check(r"=6\r\ntxt:hi\r\n", |out| write_verbatim(Three, b"hi", out));
        check(r"=4\r\ntxt:\r\n", |out| write_verbatim(Three, b"", out));
    }

    #[test]
    fn a_subscriber_of_the_old_version_is_ponged_by_arrays() {
        use Version::{Three, Two};
        for (version, subscribed, message, expected) in [
            (Two, false, None, r"+PONG\r\n"),
            (Two, false, Some(&b"x"[..]), r"$1\r\nx\r\n"),
            (Two, true, None, r"*2\r\n$4\r\npong\r\n$0\r\n\r\n"),
            (Two, true, Some(b"x"), r"*2\r\n$4\r\npong\r\n$1\r\nx\r\n"),
            (Three, true, None, r"+PONG\r\n"),
            (Three, true, Some(b"x"), r"$1\r\nx\r\n"),
        ] {
            check(expected, |out| {
                write_pong(version, subscribed, message, out)
            });
        }
    }

    #[test]
    fn sizes_are_known_before() {
        for size in [0, 1, 9, 10, 11, 99, 100, 999, 1000, 65_535, 99_999, 100_000] {
            let mut out = Vec::new();
            write_bulk(&vec![b'x'; size], &mut out);
            assert_eq!(bulk_size(size), out.len());
            out.clear();
            write_array(size, &mut out);
            assert_eq!(header_size(size), out.len());
        }
    }
}
