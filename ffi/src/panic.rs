//! The boundary that every function of the header runs in: no unwinding leaves it, and in a child process nothing enters.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;

use broker::net::process::Process;

use crate::status::pubsub_status::{self, PUBSUB_EFORK, PUBSUB_EPANIC, PUBSUB_OK};
use crate::status::{Failure, remember};

/// Runs a call; its failure is remembered for `pubsub_last_error`.
///
/// What a call shares with others is not broken by its panic: queues are changed by whole frames, and locks that were held
/// are taken again by the next.
pub fn boundary(call: impl FnOnce() -> Result<(), Failure>) -> pubsub_status {
    match caught(call) {
        Ok(()) => PUBSUB_OK,
        Err(failure) => failure.status,
    }
}

/// The same for a call that answers with a number of things: a negative one is a status.
pub fn counting(call: impl FnOnce() -> Result<i32, Failure>) -> i32 {
    match caught(call) {
        Ok(count) => count,
        Err(failure) => -(failure.status as i32),
    }
}

/// The same for a call that answers with a handle: none if it fails.
pub fn making<T>(call: impl FnOnce() -> Result<*mut T, Failure>) -> *mut T {
    caught(call).unwrap_or(std::ptr::null_mut())
}

fn caught<T>(call: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    let result = if is_child() {
        let why = "this process is a child of the one that the library works in";
        Err(Failure::new(PUBSUB_EFORK, why))
    } else {
        catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(|panic| {
            let failure = Failure::told(PUBSUB_EPANIC, text_of(panic.as_ref()));
            // Its own drop may panic; then there is nothing left to be saved but the host.
            std::mem::forget(panic);
            Err(failure)
        })
    };
    if let Err(failure) = &result {
        remember(failure);
    }
    result
}

/// What a panic said.
pub fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("a panic without words").to_owned()
}

/// The process that first had a broker or a link.
static PROCESS: OnceLock<Process> = OnceLock::new();

fn is_child() -> bool {
    PROCESS.get().is_some_and(|process| !process.is_this())
}

/// Before the first broker or link: a child of this process is known as one, and a panic is told to the log instead of
/// standard error.
pub fn prepare() {
    PROCESS.get_or_init(|| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("without words");
            let at = panic.location().map(ToString::to_string);
            tracing::error!(at, "panic: {text}");
        }));
        Process::this()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_unwinds() {
        assert_eq!(boundary(|| Ok(())), PUBSUB_OK);
        assert_eq!(boundary(|| panic!("on purpose")), PUBSUB_EPANIC);
        assert_eq!(counting(|| Ok(3)), 3);
        assert_eq!(counting(|| panic!("{} on purpose", 1)), -5);
        assert_eq!(counting(|| Err(Failure::invalid("no"))), -1);
        assert!(making::<u8>(|| panic!("on purpose")).is_null());
        assert!(making::<u8>(|| std::panic::panic_any(7)).is_null());
    }
}
