//! Why a call of a [`Link`](super::Link) was not made.

use std::fmt;
use std::io;

use crate::topic::TopicError;

/// Why a call was not made. Nothing was done then, and no event comes of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LinkError {
    /// The queue of calls is full: the broker is behind, or away. Later the same call may be made.
    Full,
    /// The broker has stopped, or has let this Link go; its last event says why. No call will be made any more.
    Stopped,
    /// The call can't be made as it is written: a sentence that says why.
    Invalid(&'static str),
    /// There is no such request: it was answered, its time is over, or its connection has gone.
    NoRequest,
    /// The broker does not let this Link in: its name is taken, its key is wrong. The code and the sentence of its
    /// `GOODBYE`.
    Refused {
        /// The word for programs.
        code: String,
        /// The sentence for persons.
        reason: String,
    },
    /// No answer in time.
    TimedOut,
    /// This process is a child of the one that opened the Link: only the parent's threads carry it.
    Forked,
    /// The system had no descriptor or no thread left.
    System(io::ErrorKind),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LinkError::Full => f.write_str("the queue of calls is full"),
            LinkError::Stopped => f.write_str("the broker has stopped, or has let this link go"),
            LinkError::Invalid(why) => f.write_str(why),
            LinkError::NoRequest => f.write_str("no such request waits for an answer"),
            LinkError::Refused { code, reason } => write!(f, "refused ({code}): {reason}"),
            LinkError::TimedOut => f.write_str("no answer in time"),
            LinkError::Forked => f.write_str("the link belongs to the parent of this process"),
            LinkError::System(kind) => kind.fmt(f),
        }
    }
}

impl std::error::Error for LinkError {}

impl From<TopicError> for LinkError {
    fn from(error: TopicError) -> LinkError {
        LinkError::Invalid(error.as_str())
    }
}

impl From<io::Error> for LinkError {
    fn from(error: io::Error) -> LinkError {
        LinkError::System(error.kind())
    }
}
