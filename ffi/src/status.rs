//! Statuses, and the text of the last error of a thread.
//!
//! A home of unsafe: its names are exported, and it hands out a pointer to memory of the calling thread.
//!
//! The text lies in an array of the thread itself. A `String` there would have a destructor run at the end of a host's
//! thread, and as long as one waits, the library can't be unloaded.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};
use std::fmt::{self, Write as _};
use std::io;

use broker::broker::StartError;
use broker::error::Code;
use broker::link::LinkError;

/// How a call ended. The numbers never change, and none is used a second time.
///
/// `pubsub_last_error` says more, in a sentence.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub enum pubsub_status {
    /// It was done, or is under way.
    PUBSUB_OK = 0,
    /// An argument is wrong: a handle that is NULL, freed or of another kind, a pointer that is NULL, a name or number out
    /// of its range, a buffer that is too short. Nothing was done.
    PUBSUB_EINVAL = 1,
    /// A queue is full: what was said before waits to be taken. Nothing was done; the same call may be made later.
    PUBSUB_EFULL = 2,
    /// Another thread is draining this link; or, of a request: whoever handles it is behind.
    PUBSUB_EBUSY = 3,
    /// The broker has stopped, or has let this link go. No call will be made any more.
    PUBSUB_ESTOPPED = 4,
    /// A bug of the library was met, and contained.
    PUBSUB_EPANIC = 5,
    /// This process is a child (fork) of the one that called the library first. Nothing works here, and nothing was done.
    PUBSUB_EFORK = 6,
    /// The call does not fit what is: it was made twice, or too late.
    PUBSUB_ESTATE = 7,
    /// What was named is not there: an option, a listener, a request that waits, somebody who handles an event.
    PUBSUB_ENOTFOUND = 8,
    /// The time is over.
    PUBSUB_ETIMEOUT = 9,
    /// The broker does not let this link in: its name is taken, its key is wrong.
    PUBSUB_EREFUSED = 10,
    /// The configuration is none, or can't be had here: an address is in use, a file is not there.
    PUBSUB_ECONFIG = 11,
    /// The system had no descriptor, thread or memory left.
    PUBSUB_ESYSTEM = 12,
    /// The library failed.
    PUBSUB_EINTERNAL = 13,
    /// A call was refused, or a request was answered by an error, for a reason that is not one of these: see `error` and
    /// `reason` of the event.
    PUBSUB_EFAILED = 14,
    /// The rights do not cover this.
    PUBSUB_ENOTALLOWED = 15,
    /// It is larger than the limit, or one more than the limit.
    PUBSUB_ELIMIT = 16,
}

use pubsub_status::*;

impl pubsub_status {
    const ALL: [pubsub_status; 17] = [
        PUBSUB_OK,
        PUBSUB_EINVAL,
        PUBSUB_EFULL,
        PUBSUB_EBUSY,
        PUBSUB_ESTOPPED,
        PUBSUB_EPANIC,
        PUBSUB_EFORK,
        PUBSUB_ESTATE,
        PUBSUB_ENOTFOUND,
        PUBSUB_ETIMEOUT,
        PUBSUB_EREFUSED,
        PUBSUB_ECONFIG,
        PUBSUB_ESYSTEM,
        PUBSUB_EINTERNAL,
        PUBSUB_EFAILED,
        PUBSUB_ENOTALLOWED,
        PUBSUB_ELIMIT,
    ];

    fn text(self) -> &'static CStr {
        match self {
            PUBSUB_OK => c"ok",
            PUBSUB_EINVAL => c"an argument is wrong",
            PUBSUB_EFULL => c"a queue is full",
            PUBSUB_EBUSY => c"busy",
            PUBSUB_ESTOPPED => c"stopped",
            PUBSUB_EPANIC => c"a bug of the library was met",
            PUBSUB_EFORK => c"nothing works in a child process",
            PUBSUB_ESTATE => c"the call does not fit the state",
            PUBSUB_ENOTFOUND => c"not found",
            PUBSUB_ETIMEOUT => c"no answer in time",
            PUBSUB_EREFUSED => c"the broker does not let this link in",
            PUBSUB_ECONFIG => c"the configuration can't be had",
            PUBSUB_ESYSTEM => c"the system has nothing left",
            PUBSUB_EINTERNAL => c"the library failed",
            PUBSUB_EFAILED => c"failed",
            PUBSUB_ENOTALLOWED => c"not allowed",
            PUBSUB_ELIMIT => c"over the limit",
        }
    }

    /// What an answer's code comes to; handlers may have codes of their own.
    pub fn of_code(code: &[u8]) -> pubsub_status {
        let statuses = [
            (Code::NoHandler, PUBSUB_ENOTFOUND),
            (Code::Timeout, PUBSUB_ETIMEOUT),
            (Code::BadJson, PUBSUB_EINVAL),
            (Code::BadType, PUBSUB_EINVAL),
            (Code::BadTopic, PUBSUB_EINVAL),
            (Code::TooLarge, PUBSUB_ELIMIT),
            (Code::Limit, PUBSUB_ELIMIT),
            (Code::NotAllowed, PUBSUB_ENOTALLOWED),
            (Code::Busy, PUBSUB_EBUSY),
        ];
        let known = statuses
            .iter()
            .find(|(known, _)| code == known.as_str().as_bytes());
        known.map_or(PUBSUB_EFAILED, |(_, status)| *status)
    }
}

/// Why a call was not made: a status for programs, a sentence for persons.
#[derive(Debug)]
pub struct Failure {
    pub status: pubsub_status,
    reason: Reason,
}

/// Most reasons are known when the library is written, and cost nothing.
#[derive(Debug)]
enum Reason {
    Known(&'static str),
    Told(String),
}

impl Failure {
    pub fn new(status: pubsub_status, reason: &'static str) -> Failure {
        let reason = Reason::Known(reason);
        Failure { status, reason }
    }

    pub fn told(status: pubsub_status, reason: impl fmt::Display) -> Failure {
        let reason = Reason::Told(reason.to_string());
        Failure { status, reason }
    }

    pub fn invalid(reason: &'static str) -> Failure {
        Failure::new(PUBSUB_EINVAL, reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Known(text) => f.write_str(text),
            Reason::Told(text) => f.write_str(text),
        }
    }
}

impl From<LinkError> for Failure {
    fn from(error: LinkError) -> Failure {
        let status = match error {
            LinkError::Invalid(reason) => return Failure::invalid(reason),
            LinkError::Full => PUBSUB_EFULL,
            LinkError::Stopped => PUBSUB_ESTOPPED,
            LinkError::NoRequest => PUBSUB_ENOTFOUND,
            LinkError::Refused { .. } => PUBSUB_EREFUSED,
            LinkError::TimedOut => PUBSUB_ETIMEOUT,
            LinkError::Forked => PUBSUB_EFORK,
            // Its broker has ended a moment ago.
            LinkError::System(io::ErrorKind::NotConnected) => PUBSUB_ESTOPPED,
            LinkError::System(_) => PUBSUB_ESYSTEM,
        };
        Failure::told(status, error)
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Failure {
        let status = match error {
            StartError::Usage(_) => PUBSUB_ECONFIG,
            StartError::Internal(_) => PUBSUB_ESYSTEM,
        };
        Failure::told(status, error)
    }
}

/// The room for the text, its NUL included. Longer ones are cut.
const TEXT_SIZE: usize = 512;

thread_local! {
    /// The text of the last failure of this thread, ended by NUL.
    static LAST: UnsafeCell<[u8; TEXT_SIZE]> = const { UnsafeCell::new([0; TEXT_SIZE]) };
}

/// Keeps the text of a failure for `pubsub_last_error`.
pub fn remember(failure: &Failure) {
    LAST.with(|last| {
        // SAFETY: the cell is this thread's, no reference to its inside outlives a closure like this one, and writing a
        // failure's text does not come back here. C code reads by the pointer, but not while this thread is in here.
        let text = unsafe { &mut *last.get() };
        let mut room = Room { text, size: 0 };
        // A text that is cut is an error to `write!` only.
        let _ = write!(room, "{failure}");
        let size = room.size;
        text[size] = 0;
    });
}

/// The beginning of a text, as far as it fits, in whole characters and without NUL.
struct Room<'a> {
    text: &'a mut [u8; TEXT_SIZE],
    size: usize,
}

impl fmt::Write for Room<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars().map(|c| if c == '\0' { ' ' } else { c }) {
            let end = self.size + c.len_utf8();
            if end >= TEXT_SIZE {
                return Err(fmt::Error);
            }
            c.encode_utf8(&mut self.text[self.size..end]);
            self.size = end;
        }
        Ok(())
    }
}

/// Why the last call of this thread that failed did: a sentence in UTF-8, at most 511 bytes; empty if none did.
///
/// The pointer holds for the life of the thread; the text, until the thread makes another call that fails. Any thread, of
/// its own calls only.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_last_error() -> *const c_char {
    LAST.with(|last| last.get().cast::<c_char>().cast_const())
}

/// What a status means, in a few words. For a number that is none, those of `PUBSUB_EINTERNAL`. Never freed; any thread.
#[unsafe(no_mangle)]
pub extern "C" fn pubsub_status_text(status: i32) -> *const c_char {
    let known = pubsub_status::ALL
        .into_iter()
        .find(|known| *known as i32 == status);
    known.unwrap_or(PUBSUB_EINTERNAL).text().as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last() -> String {
        // SAFETY: the pointer is of this thread, and to a text that ends.
        let text = unsafe { CStr::from_ptr(pubsub_last_error()) };
        text.to_str().unwrap().to_owned()
    }

    #[test]
    fn numbers_never_change() {
        for (index, status) in pubsub_status::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, index, "{status:?}");
        }
    }

    #[test]
    fn every_number_has_words() {
        // SAFETY: the pointer is to a constant.
        let text = |status| unsafe { CStr::from_ptr(pubsub_status_text(status)) };
        assert_eq!(text(0), c"ok");
        assert_eq!(text(4), c"stopped");
        for none in [-1, 17, i32::MAX, i32::MIN] {
            assert_eq!(text(none), text(PUBSUB_EINTERNAL as i32));
        }
    }

    #[test]
    fn the_last_error_is_of_the_thread_and_fits() {
        assert_eq!(last(), "");
        remember(&Failure::invalid("one"));
        assert_eq!(last(), "one");
        std::thread::spawn(|| assert_eq!(last(), ""))
            .join()
            .unwrap();
        remember(&Failure::told(PUBSUB_EINTERNAL, "a\0b"));
        assert_eq!(last(), "a b");
        // 511 bytes are no whole number of these characters.
        remember(&Failure::told(PUBSUB_EINTERNAL, "é".repeat(600)));
        assert_eq!(last(), "é".repeat(255));
        remember(&Failure::told(PUBSUB_EINTERNAL, "x".repeat(511)));
        assert_eq!(last(), "x".repeat(511));
    }

    #[test]
    fn codes_of_answers_have_a_status() {
        for (code, status) in [
            ("no_handler", PUBSUB_ENOTFOUND),
            ("timeout", PUBSUB_ETIMEOUT),
            ("not_allowed", PUBSUB_ENOTALLOWED),
            ("too_large", PUBSUB_ELIMIT),
            ("limit", PUBSUB_ELIMIT),
            ("bad_topic", PUBSUB_EINVAL),
            ("busy", PUBSUB_EBUSY),
            ("of a handler", PUBSUB_EFAILED),
            ("", PUBSUB_EFAILED),
        ] {
            assert_eq!(pubsub_status::of_code(code.as_bytes()), status, "{code}");
        }
    }
}
