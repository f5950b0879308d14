//! A command that is incomplete: the state machine of a reader, and what has come so far.

use super::arguments::OwnedArguments;
use super::inline::{Unbalanced, Words};
use super::number::parse_number;
use super::reader::{LINE_BYTES_MAX, ReaderLimits, Violation};
use crate::error::CloseReason;

/// A number of more digits is too large for anything; so many of a header are kept to be looked at.
pub(super) const NUMBER_BYTES_MAX: usize = 20;

/// The largest number of elements that is a number to Redis (`INT_MAX`).
const COUNT_MAX: i64 = i32::MAX as i64;

/// What a reader holds while a command is incomplete, and until the call after the one that lent it out.
#[derive(Debug, Default)]
pub(super) struct Pending {
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
    pub(super) arguments: OwnedArguments,
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
pub(super) enum Progress {
    /// All were taken, more is needed.
    More,
    /// No command, and nothing of the next one.
    Empty,
    /// A command.
    Whole,
}

impl Pending {
    /// Is there nothing to come any more?
    pub(super) fn is_whole(&self) -> bool {
        self.step == Step::Whole && self.skip == 0
    }

    /// The bytes that are held.
    pub(super) fn size(&self) -> usize {
        self.line.len() + self.arguments.size()
    }

    /// Goes through the input up to the end of the command.
    pub(super) fn advance(
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
                        // Its `\r`, and whatever comes after that.
                        self.skip = 2;
                        self.begin_array(limits)?;
                    }
                }
                Step::Size => {
                    let (taken, is_complete) = self
                        .take_line(rest, b'\r', NUMBER_BYTES_MAX + 1)
                        .ok_or(broken("too big bulk count string"))?;
                    position += taken;
                    if is_complete {
                        // Its `\r`, and whatever comes after that.
                        self.skip = 2;
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
                // The two bytes behind it; if it is empty, the end of its header comes before.
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
