//! The reader of one connection: from bytes, cut anywhere, to commands.
//!
//! A command is an array of bulk strings, `*2\r\n$4\r\nECHO\r\n$2\r\nhi\r\n`, or, for people, a line of words. The
//! plain version is a state machine that takes byte after byte and copies each argument to its place. Departures, and
//! what each buys:
//! - An array that is complete in the input is lent out as slices of the input. That is nearly every command, and it
//!   costs no copy and no memory. Whatever else comes, wrong or incomplete, is left to the machine, which looks at it a
//!   second time, once.
//! - The machine takes runs of bytes. What is incomplete is kept in one buffer, in which the arguments are joined
//!   without their headers; it exists from the first incomplete byte to the end of the command, so an idle connection
//!   holds a null pointer.
//!
//! The places where Redis itself is lax are kept: the byte after a `\r` and the two bytes after an argument may be any,
//! and an array of no or fewer elements is no command at all. Where its answer depends on how the bytes are cut, ours
//! does not: a line of 64 KiB is the longest, and of two errors the one that comes first counts.
//!
//! Invariants: the result does not depend on how the bytes are cut; `buffered_bytes <= command_bytes_max +
//! LINE_BYTES_MAX`; memory follows the bytes that came, never the sizes that a header declares, because an argument or
//! a command that would exceed a limit is refused by the header that says so.

use super::arguments::{Arguments, OwnedArguments};
use super::pending::{Pending, Progress};
use super::reply;
use crate::error::CloseReason;
use crate::limits::KIB;

/// The longest inline command, and the longest number of a header as it is written: Redis' `PROTO_INLINE_MAX_SIZE`.
pub const LINE_BYTES_MAX: usize = 64 * KIB;

/// Limits of a reader. They may change from call to call: who has given a password is allowed more.
#[derive(Clone, Copy, Debug)]
pub struct ReaderLimits {
    /// The largest argument, in bytes.
    pub bulk_bytes_max: usize,
    /// The arguments of a command, its name included.
    pub arguments_max: usize,
    /// The bytes of all its arguments, with [`OwnedArguments::ARGUMENT_BYTES`] more for each.
    pub command_bytes_max: usize,
    /// Changes what is said of a limit, not the limit.
    pub authenticated: bool,
}

/// Bytes against the protocol, or a command above a limit: the connection ends after the reply that says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// ProtocolError, or TooBig
    pub reason: CloseReason,
    /// What was wrong, for the log.
    pub detail: &'static str,
    /// What came instead of what `detail` says was expected.
    pub found: Option<u8>,
}

impl Violation {
    /// The error that Redis replies before it closes the connection.
    pub fn write_reply(self, out: &mut Vec<u8>) {
        let mut text = b"ERR Protocol error: ".to_vec();
        text.extend_from_slice(self.detail.as_bytes());
        if let Some(byte) = self.found {
            text.extend_from_slice(b", got '");
            text.extend_from_slice(&[byte, b'\'']);
        }
        reply::write_error(&text, out);
    }
}

/// Reads the commands of one client. Idle and between commands it holds no heap memory.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Option<Box<Pending>>,
}

impl Reader {
    /// Takes from the front of `input` and says how many bytes it took and which command they completed. `(n, None)`:
    /// all n = input.len() bytes were taken, more is needed. `(n, Some(..))`: call again with the rest, be it empty:
    /// the memory of a joined command is freed by the call that follows it.
    ///
    /// # Errors
    ///
    /// A [`Violation`] ends the connection; the reader is not to be used again.
    pub fn next<'a>(
        &'a mut self,
        limits: ReaderLimits,
        input: &'a [u8],
    ) -> Result<(usize, Option<Arguments<'a>>), Violation> {
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.is_whole())
        {
            self.pending = None;
        }
        let mut position = 0;
        loop {
            let rest = &input[position..];
            if self.pending.is_none() {
                if rest.is_empty() {
                    return Ok((position, None));
                }
                if let Some((size, arguments)) = lend(limits, rest) {
                    return Ok((position + size, Some(arguments)));
                }
            }
            let pending = self.pending.get_or_insert_default();
            let (taken, progress) = pending.advance(limits, rest)?;
            position += taken;
            match progress {
                Progress::More => return Ok((position, None)),
                Progress::Empty => self.pending = None,
                Progress::Whole => break,
            }
        }
        let arguments = self.pending.as_ref().map(|whole| whole.arguments.borrow());
        Ok((position, arguments))
    }

    /// Has a command begun that is not complete?
    pub fn is_in_command(&self) -> bool {
        self.pending
            .as_ref()
            .is_some_and(|pending| !pending.is_whole())
    }

    /// Bytes held for an incomplete command.
    pub fn buffered_bytes(&self) -> usize {
        self.pending.as_ref().map_or(0, |pending| pending.size())
    }
}

/// The command at the front of `input` and its size, if it is an array that is all there and within the limits.
fn lend(limits: ReaderLimits, input: &[u8]) -> Option<(usize, Arguments<'_>)> {
    let (count, mut position) = plain_header(input, b'*')?;
    if count == 0 || count > limits.arguments_max {
        return None;
    }
    let mut arguments = Arguments::default();
    let mut command_size = 0;
    for _ in 0..count {
        let (size, header_size) = plain_header(&input[position..], b'$')?;
        command_size += size + OwnedArguments::ARGUMENT_BYTES;
        if size > limits.bulk_bytes_max || command_size > limits.command_bytes_max {
            return None;
        }
        let start = position + header_size;
        position = start + size + 2;
        // With the two bytes after it.
        let argument = input.get(start..position)?;
        arguments.push(&argument[..size]);
    }
    Some((position, arguments))
}

/// The number of a header of this kind and the header's size, if it is all there and written as clients write it.
fn plain_header(bytes: &[u8], kind: u8) -> Option<(usize, usize)> {
    /// No sum of numbers and positions overflows.
    const DIGITS_MAX: usize = 9;
    let (&first, digits) = bytes.split_first()?;
    if first != kind {
        return None;
    }
    let mut number = 0;
    for (index, &byte) in digits.iter().enumerate().take(DIGITS_MAX + 1) {
        match byte {
            b'0'..=b'9' if index == 0 || number > 0 => {
                number = 10 * number + usize::from(byte - b'0');
            }
            b'\r' if index > 0 && digits.len() > index + 1 => return Some((number, index + 3)),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::pending::NUMBER_BYTES_MAX;
    use super::*;

    const LIMITS: ReaderLimits = ReaderLimits {
        bulk_bytes_max: 1000,
        arguments_max: 100,
        command_bytes_max: 2000,
        authenticated: true,
    };

    #[derive(Clone, PartialEq, Eq, Debug)]
    enum Seen {
        Command(Vec<Vec<u8>>),
        Violation(CloseReason, String),
    }

    /// Words between spaces.
    fn command(words: &str) -> Seen {
        Seen::Command(words.split(' ').map(|word| word.into()).collect())
    }

    fn broken(detail: &str) -> Seen {
        Seen::Violation(CloseReason::ProtocolError, detail.to_owned())
    }

    fn too_big(detail: &str) -> Seen {
        Seen::Violation(CloseReason::TooBig, detail.to_owned())
    }

    /// What a reader sees of these pieces, up to a violation.
    fn read(limits: ReaderLimits, pieces: &[&[u8]]) -> Vec<Seen> {
        let mut reader = Reader::default();
        let mut seen = Vec::new();
        for piece in pieces {
            let mut rest = *piece;
            loop {
                match reader.next(limits, rest) {
                    Ok((taken, None)) => {
                        assert_eq!(taken, rest.len(), "all taken when more is needed");
                        break;
                    }
                    Ok((taken, Some(arguments))) => {
                        assert!(!arguments.is_empty());
                        seen.push(Seen::Command(
                            arguments.iter().map(|word| word.into()).collect(),
                        ));
                        rest = &rest[taken..];
                    }
                    Err(violation) => {
                        let mut reply = Vec::new();
                        violation.write_reply(&mut reply);
                        let reply = reply.escape_ascii().to_string();
                        let detail = reply
                            .strip_prefix("-ERR Protocol error: ")
                            .and_then(|reply| reply.strip_suffix("\\r\\n"));
                        let detail = detail.expect("an error of Redis").replace("\\'", "'");
                        assert!(detail.starts_with(violation.detail));
                        seen.push(Seen::Violation(violation.reason, detail));
                        return seen;
                    }
                }
            }
            assert!(
                reader.buffered_bytes() <= limits.command_bytes_max.saturating_add(LINE_BYTES_MAX)
            );
        }
        seen
    }

    /// Whole, cut at every position, and byte by byte.
    #[track_caller]
    fn check(bytes: &[u8], expected: &[Seen]) {
        assert_eq!(read(LIMITS, &[bytes]), expected, "whole");
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            assert_eq!(read(LIMITS, &[left, right]), expected, "cut at {cut}");
        }
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        assert_eq!(read(LIMITS, &single), expected, "byte by byte");
    }

    #[test]
    fn commands() {
        check(b"", &[]);
        check(b"*1\r\n$4\r\nPING\r\n", &[command("PING")]);
        check(b"*2\r\n$4\r\nPING\r\n$0\r\n\r\n", &[command("PING ")]);
        check(b"*2\r\n$0\r\n\r\n$0\r\n\r\n", &[command(" ")]);
        check(
            b"*2\r\n$3\r\n\r\n*\r\n$2\r\n\xff\x00\r\n",
            &[Seen::Command(vec![b"\r\n*".into(), b"\xff\x00".into()])],
        );
        check(
            b"*1\r\n$1\r\na\r\n*0\r\n*-1\r\nb c\r\n\r\n\n*1\r\n$1\r\nd\r\ne\n",
            &[command("a"), command("b c"), command("d"), command("e")],
        );
        // More than are lent out without an allocation.
        check(
            format!("*9\r\n{}", "$1\r\nx\r\n".repeat(9)).as_bytes(),
            &[command("x x x x x x x x x")],
        );
        check(
            b"a \"b c\" 'd'\r\n'\xff'\n",
            &[
                Seen::Command(vec![b"a".into(), b"b c".into(), b"d".into()]),
                Seen::Command(vec![b"\xff".into()]),
            ],
        );
        // The byte behind a `\r` and the two behind an argument are nobody's business.
        check(
            b"*1\rx$1\ryazz*1\r\r$1\r\ra\0\0",
            &[command("a"), command("a")],
        );
    }

    #[test]
    fn violations_do_not_depend_on_cuts() {
        check(
            b"*1\r\n$1\r\na\r\n*x\r\n",
            &[command("a"), broken("invalid multibulk length")],
        );
        check(b"*1\n$1\r\n", &[broken("invalid multibulk length")]);
        check(
            b"*000000000000000000001\r",
            &[broken("invalid multibulk length")],
        );
        check(
            b"*2\r\n$1\r\na\r\n$-1\r\n",
            &[broken("invalid bulk length")],
        );
        check(
            b"*1\r\n$99999999999999999999\r\n",
            &[broken("invalid bulk length")],
        );
        check(b"*1\r\n:", &[broken("expected '$', got ':'")]);
        check(b"*1\r\n\n", &[broken("expected '$', got ' '")]);
        check(
            b"a\n'b'c\nd\n",
            &[command("a"), broken("unbalanced quotes in request")],
        );
    }

    #[test]
    fn limits_are_told_by_the_header() {
        check(b"*1\r\n$1001\r", &[too_big("invalid bulk length")]);
        check(
            b"*1\r\n$9223372036854775807\r",
            &[too_big("invalid bulk length")],
        );
        check(
            b"*1\r\n$9223372036854775808\r",
            &[broken("invalid bulk length")],
        );
        check(b"*101\r", &[too_big("invalid multibulk length")]);
        check(b"*2147483647\r", &[too_big("invalid multibulk length")]);
        check(b"*2147483648\r", &[broken("invalid multibulk length")]);
        // 1 000 and 8, 984 and 8: that is the limit of a command.
        let full = |last: usize| {
            let x = |size| "x".repeat(size);
            let header = format!("*2\r\n$1000\r\n{}\r\n${last}\r", x(1000));
            (format!("{header}\n{}\r\n", x(last)), header)
        };
        let (bytes, _) = full(984);
        let expected = command(&format!("{} {}", "x".repeat(1000), "x".repeat(984)));
        check(bytes.as_bytes(), &[expected]);
        let (_, header) = full(985);
        check(header.as_bytes(), &[too_big("invalid bulk length")]);
        // An inline command has the same limits once it is complete.
        let words = |count: usize, size: usize| {
            let words = vec!["x".repeat(size); count];
            words.join(" ")
        };
        for (count, size, expected) in [
            (100, 12, None),
            (101, 1, Some("invalid multibulk length")),
            (100, 13, Some("invalid bulk length")),
            (1, 1000, None),
            (1, 1001, Some("invalid bulk length")),
        ] {
            let line = words(count, size);
            let expected = expected.map_or(command(&line), too_big);
            check(format!("{line}\r\n").as_bytes(), &[expected]);
        }
    }

    #[test]
    fn the_unauthenticated_are_told_so() {
        let limits = ReaderLimits {
            bulk_bytes_max: 16 * KIB,
            arguments_max: 10,
            command_bytes_max: usize::MAX,
            authenticated: false,
        };
        for (bytes, expected) in [
            (&b"*11\r\n"[..], Some("unauthenticated multibulk length")),
            (b"*10\r\n", None),
            (b"*1\r\n$16385\r\n", Some("unauthenticated bulk length")),
            (b"*1\r\n$16384\r\n", None),
            (
                b"a b c d e f g h i j k\n",
                Some("unauthenticated multibulk length"),
            ),
        ] {
            let expected: Vec<Seen> = expected.into_iter().map(too_big).collect();
            assert_eq!(read(limits, &[bytes]), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn a_line_has_an_end() {
        let limits = ReaderLimits {
            bulk_bytes_max: usize::MAX,
            arguments_max: usize::MAX,
            command_bytes_max: usize::MAX,
            authenticated: true,
        };
        let check = |start: &[u8], fill: u8, size: usize, end: &[u8], expected: Option<Seen>| {
            let bytes = [start, &vec![fill; size], end].concat();
            let expected: Vec<Seen> = expected.into_iter().collect();
            for cut in [0, 1, size / 2, size, bytes.len() - 1, bytes.len()] {
                let (left, right) = bytes.split_at(cut);
                assert_eq!(
                    read(limits, &[left, right]),
                    expected,
                    "{size} cut at {cut}"
                );
            }
        };
        const MAX: usize = LINE_BYTES_MAX;
        let line = |size| Some(command(&"x".repeat(size)));
        check(b"", b'x', MAX, b"\n", line(MAX));
        check(b"", b'x', MAX - 1, b"\r\n", line(MAX - 1));
        check(b"", b'x', MAX, b"", None);
        check(
            b"",
            b'x',
            MAX + 1,
            b"",
            Some(broken("too big inline request")),
        );
        check(
            b"",
            b'x',
            MAX + 1,
            b"\n",
            Some(broken("too big inline request")),
        );
        check(b"", b' ', MAX, b"\n", None);
        check(b"*", b'1', MAX, b"", None);
        check(
            b"*",
            b'1',
            MAX,
            b"\r",
            Some(broken("invalid multibulk length")),
        );
        check(
            b"*",
            b'1',
            MAX + 1,
            b"",
            Some(broken("too big mbulk count string")),
        );
        check(b"*1\r\n$", b'1', MAX, b"", None);
        check(
            b"*1\r\n$",
            b'1',
            MAX,
            b"\r",
            Some(broken("invalid bulk length")),
        );
        check(
            b"*1\r\n$",
            b'1',
            MAX + 1,
            b"",
            Some(broken("too big bulk count string")),
        );
        // Of a number that can't be one only its size is kept.
        let mut reader = Reader::default();
        let bytes = [b"*", &vec![b'1'; MAX][..]].concat();
        assert_eq!(reader.next(limits, &bytes).unwrap().0, bytes.len());
        assert_eq!(reader.buffered_bytes(), NUMBER_BYTES_MAX + 1);
    }

    #[test]
    fn a_whole_command_is_lent_from_the_input() {
        let mut reader = Reader::default();
        let input = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$5\r\nhello\r\n*1\r\n";
        let (taken, arguments) = reader.next(LIMITS, input).expect("no violation");
        let arguments = arguments.expect("a command");
        assert_eq!(
            arguments.get(2).map(<[u8]>::as_ptr),
            Some(input[28..].as_ptr())
        );
        assert_eq!(taken, 35);
        drop(arguments);
        assert!(reader.pending.is_none());
    }

    #[test]
    fn holds_no_memory_between_commands() {
        assert_eq!(size_of::<Reader>(), 8);
        let mut reader = Reader::default();
        let bytes = b"*2\r\n$1\r\na\r\n$2\r\nbc\r\nPING x\r\n*0\r\n\r\n*1\r\n$1\r\nz\r\n";
        for cut in 0..=bytes.len() {
            let (left, right) = bytes.split_at(cut);
            for piece in [left, right] {
                let mut rest = piece;
                while let (taken, Some(_)) = reader.next(LIMITS, rest).expect("no violation") {
                    rest = &rest[taken..];
                }
            }
            assert!(reader.pending.is_none(), "cut at {cut}");
        }
    }

    #[test]
    fn is_in_command_from_the_first_byte_to_the_last() {
        let mut reader = Reader::default();
        let mut feed = |bytes: &[u8]| {
            reader.next(LIMITS, bytes).expect("no violation");
            (reader.is_in_command(), reader.buffered_bytes())
        };
        assert_eq!(feed(b""), (false, 0));
        assert_eq!(feed(b"*"), (true, 0));
        assert_eq!(feed(b"2"), (true, 1));
        assert_eq!(feed(b"\r\n$3\r\nab"), (true, 2));
        assert_eq!(feed(b"c"), (true, 11));
        assert_eq!(feed(b"\r\n$1\r\nd\r"), (true, 20));
        // What is lent out is still held.
        assert_eq!(feed(b"\n"), (false, 20));
        assert_eq!(feed(b""), (false, 0));
        assert_eq!(feed(b"PI"), (true, 2));
        assert_eq!(feed(b"NG\r\n"), (false, 12));
        assert_eq!(feed(b"*0\r"), (true, 0));
        assert_eq!(feed(b"\n"), (false, 0));
        assert_eq!(feed(b"*1\r\n$1\r\nx\r\n"), (false, 0));
    }

    #[test]
    fn memory_follows_what_came() {
        let limits = ReaderLimits {
            bulk_bytes_max: 64 * KIB,
            arguments_max: 1 << 20,
            command_bytes_max: 64 * KIB,
            authenticated: true,
        };
        let capacity = |reader: &Reader| {
            reader
                .pending
                .as_ref()
                .map_or(0, |pending| pending.arguments.bytes.capacity())
        };
        let bytes = [b"*2\r\n$1\r\na\r\n$60000\r\n", &vec![b'x'; 60_000][..]].concat();
        let mut reader = Reader::default();
        reader.next(limits, &bytes[..30]).expect("no violation");
        assert!(capacity(&reader) <= 64);
        let mut received = 30;
        for piece in bytes[30..].chunks(7) {
            reader.next(limits, piece).expect("no violation");
            received += piece.len();
            assert!(
                capacity(&reader) <= 60_001.min(2 * received),
                "after {received}"
            );
        }
        assert_eq!(capacity(&reader), 60_001);

        // A declared number of arguments buys nothing, nor do arguments of no size.
        let mut reader = Reader::default();
        reader.next(limits, b"*1000000\r\n").expect("no violation");
        assert_eq!((reader.buffered_bytes(), capacity(&reader)), (0, 0));
        let empty = b"$0\r\n\r\n".repeat(8192);
        assert!(reader.next(limits, &empty).is_ok());
        assert_eq!(reader.buffered_bytes(), 64 * KIB);
        assert!(reader.next(limits, b"$0\r").is_err());
    }

    #[test]
    fn limits_may_change_between_commands() {
        let (mut limits, mut reader) = (LIMITS, Reader::default());
        limits.arguments_max = 1;
        let bytes = b"*1\r\n$1\r\na\r\n*2\r\n$1\r\nb\r\n$1\r\nc\r\n";
        let (taken, _) = reader.next(limits, bytes).expect("no violation");
        let (rest, arguments) = reader.next(LIMITS, &bytes[taken..]).expect("no violation");
        assert_eq!(
            (taken + rest, arguments.map(|found| found.len())),
            (bytes.len(), Some(2))
        );
        assert!(Reader::default().next(limits, &bytes[taken..]).is_err());
    }
}
