//! JSON text (RFC 8259), checked and cut into slices without building it.
//!
//! Knows no command and no message: it says whether bytes are JSON, where the members of an object stand, and
//! how a string is written and read.
//!
//! Invariants: no recursion, whatever the input nests; work is linear in the input; scanning allocates nothing;
//! what is accepted is accepted by every strict parser, duplicate keys and lone surrogate escapes apart, which
//! the grammar allows.

use std::fmt;

mod scan;
mod string;

pub use scan::{Kind, Member, Members, Span, validate, validate_grammar};
pub use string::{string_size, unescape, write_string};

pub(crate) use scan::string_end;
pub(crate) use string::unescape_loosely;

/// Not JSON, or deeper than [`crate::limits::JSON_DEPTH_MAX`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct JsonError {
    /// The byte at which it was noticed.
    pub at: usize,
    /// What is wrong there, as the end of a sentence.
    pub reason: &'static str,
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.reason, self.at)
    }
}

impl std::error::Error for JsonError {}
