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
use super::inline::{Unbalanced, Words};
use super::reply;
use crate::error::CloseReason;
use crate::limits::KIB;

/// The longest inline command, and the longest number of a header as it is written: Redis' `PROTO_INLINE_MAX_SIZE`.
pub const LINE_BYTES_MAX: usize = 64 * KIB;

/// A number of more digits is too large for anything; so many of a header are kept to be looked at.
const NUMBER_BYTES_MAX: usize = 20;

/// The largest number of elements that is a number to Redis (`INT_MAX`).
const COUNT_MAX: i64 = i32::MAX as i64;

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
            text.extend_from_slice(&[b',', b' ', b'g', b'o', b't', b' ', b'\'', byte, b'\'']);
        }
        reply::write_error(&text, out);
    }
}

/// Reads the commands of one client. Idle and between commands it holds no heap memory.
#[derive(Debug, Default)]
pub struct Reader {
    pending: Option<Box<Pending>>,
}

/// What a reader holds while a command is incomplete, and until the call after the one that lent it out.
#[derive(Debug, Default)]
struct Pending {
    step: Step,
    /// Bytes that come before `step` and mean nothing: the end of a line, or of an argument.
    skip: usize,
    /// The beginning of an inline command, or as much of a header's number as could be one.
    line: Vec<u8>,
    /// The bytes of that line, whether kept or not.
    line_size: usize,
    /// The arguments that are still to be completed.
    remaining: usize,
    /// What the limit of the command counts: of the arguments whose headers came, that of the next one included.
    size: usize,
    /// The arguments so far; the last may be incomplete.
    arguments: OwnedArguments,
}

/// What comes next.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Step {
    /// The first byte of a command.
    #[default]
    Begin,
    /// The rest of a line of words.
    Inline,
    /// The number of arguments, after its `*`.
    Count,
    /// The `$` of an argument.
    Dollar,
    /// The size of an argument, after its `$`.
    Size,
    /// So many bytes of an argument.
    Bulk(usize),
    /// Nothing: there was no command.
    Empty,
    /// Nothing: the command is complete.
    Whole,
}

/// What the bytes of a call came to.
#[derive(PartialEq, Eq, Debug)]
enum Progress {
    /// All were taken, more is needed.
    More,
    /// No command, and nothing of the next one.
    Empty,
    /// A command.
    Whole,
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
        self.pending
            .as_ref()
            .map_or(0, |pending| pending.line.len() + pending.arguments.size())
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

impl Pending {
    fn is_whole(&self) -> bool {
        self.step == Step::Whole && self.skip == 0
    }

    /// Goes through the input up to the end of the command.
    fn advance(
        &mut self,
        limits: ReaderLimits,
        input: &[u8],
    ) -> Result<(usize, Progress), Violation> {
        let mut position = 0;
        loop {
            let skipped = self.skip.min(input.len() - position);
            self.skip -= skipped;
            position += skipped;
            let rest = &input[position..];
            if self.skip > 0 {
                return Ok((position, Progress::More));
            }
            match self.step {
                Step::Empty => return Ok((position, Progress::Empty)),
                Step::Whole => return Ok((position, Progress::Whole)),
                _ if rest.is_empty() => return Ok((position, Progress::More)),
                Step::Begin if rest[0] == b'*' => {
                    self.skip = 1;
                    self.step = Step::Count;
                }
                Step::Begin => self.step = Step::Inline,
                Step::Dollar if rest[0] == b'$' => {
                    self.skip = 1;
                    self.step = Step::Size;
                }
                Step::Dollar => {
                    return Err(Violation {
                        found: Some(rest[0]),
                        ..broken("expected '$'")
                    });
                }
                Step::Inline => {
                    let (taken, is_complete) = self
                        .take_line(rest, b'\n', LINE_BYTES_MAX)
                        .ok_or(broken("too big inline request"))?;
                    position += taken;
                    if is_complete {
                        self.skip = 1;
                        self.split_line(limits)?;
                    }
                }
                Step::Count => {
                    let (taken, is_complete) = self
                        .take_line(rest, b'\r', NUMBER_BYTES_MAX + 1)
                        .ok_or(broken("too big mbulk count string"))?;
                    position += taken;
                    if is_complete {
                        self.skip = 1;
                        self.begin_array(limits)?;
                    }
                }
                Step::Size => {
                    let (taken, is_complete) = self
                        .take_line(rest, b'\r', NUMBER_BYTES_MAX + 1)
                        .ok_or(broken("too big bulk count string"))?;
                    position += taken;
                    if is_complete {
                        self.skip = 1;
                        self.begin_bulk(limits)?;
                    }
                }
                Step::Bulk(missing) => {
                    let taken = missing.min(rest.len());
                    self.take_bulk(limits, &rest[..taken], missing);
                    position += taken;
                }
            }
            if self.step == Step::Bulk(0) {
                self.arguments.end();
                self.remaining -= 1;
                // The two bytes behind an argument, behind the end of its header's line if it is empty.
                self.skip += 2;
                self.step = if self.remaining == 0 {
                    Step::Whole
                } else {
                    Step::Dollar
                };
            }
        }
    }

    /// Takes of a line what comes before `end`, and says how much that was and whether `end` is there. Of the line
    /// `kept_max` bytes are kept. `None`: it is too long.
    fn take_line(&mut self, rest: &[u8], end: u8, kept_max: usize) -> Option<(usize, bool)> {
        let found = memchr::memchr(end, rest);
        let taken = found.unwrap_or(rest.len());
        self.line_size += taken;
        if self.line_size > LINE_BYTES_MAX {
            return None;
        }
        let kept = taken.min(kept_max - self.line.len());
        self.line.extend_from_slice(&rest[..kept]);
        Some((taken, found.is_some()))
    }

    /// The line is complete but for its `\n`.
    fn split_line(&mut self, limits: ReaderLimits) -> Result<(), Violation> {
        let line = std::mem::take(&mut self.line);
        let mut words = Words::of(line.strip_suffix(b"\r").unwrap_or(&line));
        let mut count = 0;
        loop {
            let start = self.arguments.bytes.len();
            match words.next(&mut self.arguments.bytes) {
                Ok(true) => {}
                Ok(false) => break,
                Err(Unbalanced) => return Err(broken("unbalanced quotes in request")),
            }
            count += 1;
            self.check_count(limits, count)?;
            self.check_bulk(limits, self.arguments.bytes.len() - start)?;
            self.arguments.end();
        }
        self.step = if count == 0 { Step::Empty } else { Step::Whole };
        Ok(())
    }

    /// The number of arguments is complete.
    fn begin_array(&mut self, limits: ReaderLimits) -> Result<(), Violation> {
        let Some(count) = parse_number(&self.line).filter(|&count| count <= COUNT_MAX) else {
            return Err(broken("invalid multibulk length"));
        };
        self.end_number();
        match usize::try_from(count) {
            // What is below zero is the null array of old, no command.
            Ok(0) | Err(_) => self.step = Step::Empty,
            Ok(count) => {
                self.check_count(limits, count)?;
                self.remaining = count;
                self.step = Step::Dollar;
            }
        }
        Ok(())
    }

    /// The size of an argument is complete.
    fn begin_bulk(&mut self, limits: ReaderLimits) -> Result<(), Violation> {
        let Some(size) = parse_number(&self.line).and_then(|size| usize::try_from(size).ok())
        else {
            return Err(broken("invalid bulk length"));
        };
        self.end_number();
        self.check_bulk(limits, size)?;
        self.step = Step::Bulk(size);
        Ok(())
    }

    fn end_number(&mut self) {
        self.line.clear();
        self.line_size = 0;
    }

    /// May a command have so many arguments?
    fn check_count(&self, limits: ReaderLimits, count: usize) -> Result<(), Violation> {
        if count <= limits.arguments_max {
            return Ok(());
        }
        Err(too_big(if limits.authenticated {
            "invalid multibulk length"
        } else {
            "unauthenticated multibulk length"
        }))
    }

    /// May an argument be so large, and is there room in the command for it?
    fn check_bulk(&mut self, limits: ReaderLimits, size: usize) -> Result<(), Violation> {
        self.size = self
            .size
            .saturating_add(size)
            .saturating_add(OwnedArguments::ARGUMENT_BYTES);
        if size <= limits.bulk_bytes_max && self.size <= limits.command_bytes_max {
            return Ok(());
        }
        Err(too_big(if limits.authenticated {
            "invalid bulk length"
        } else {
            "unauthenticated bulk length"
        }))
    }

    /// Appends a piece of the argument, of which so many bytes were missing.
    fn take_bulk(&mut self, limits: ReaderLimits, piece: &[u8], missing: usize) {
        let bytes = &mut self.arguments.bytes;
        let missing = missing - piece.len();
        let size = bytes.len() + piece.len();
        if size > bytes.capacity() {
            // Doubled, so that bytes are moved a constant number of times; but never past what the command can still
            // become, so that a full one does not hold twice its limit.
            let size_max = if self.remaining == 1 {
                size + missing
            } else {
                limits.command_bytes_max
            };
            let capacity = (2 * bytes.capacity()).min(size_max).max(size);
            bytes.reserve_exact(capacity - bytes.len());
        }
        bytes.extend_from_slice(piece);
        self.step = Step::Bulk(missing);
    }
}

/// A number as Redis reads it (`string2ll`): decimal, without `+`, spaces or leading zeros, from -2^63 to 2^63 - 1.
pub(super) fn parse_number(text: &[u8]) -> Option<i64> {
    let (is_negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    match digits {
        [] => return None,
        [b'0', ..] if text.len() > 1 => return None,
        _ => {}
    }
    // Downwards, because there is one more number below zero than above.
    let mut number = 0_i64;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number
            .checked_mul(10)?
            .checked_sub(i64::from(byte - b'0'))?;
    }
    if is_negative {
        Some(number)
    } else {
        number.checked_neg()
    }
}

fn broken(detail: &'static str) -> Violation {
    Violation {
        reason: CloseReason::ProtocolError,
        detail,
        found: None,
    }
}

fn too_big(detail: &'static str) -> Violation {
    Violation {
        reason: CloseReason::TooBig,
        ..broken(detail)
    }
}
