//! The boundary that every function of the header runs in: no unwinding leaves it, and in a child process nothing enters.
//!
//! A home of unsafe, for `pthread_atfork`.

#![allow(unsafe_code)]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::status::pubsub_status::{
    self, PUBSUB_EFORK, PUBSUB_EINTERNAL, PUBSUB_EPANIC, PUBSUB_OK,
};
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

static IS_CHILD: AtomicBool = AtomicBool::new(false);

/// Is this a child of the process that first had a broker or a link?
pub fn is_child() -> bool {
    // Set before the child has a second thread.
    IS_CHILD.load(Ordering::Relaxed)
}

/// Before the first broker or link: a panic is told to the log instead of standard error, and a child is known as one.
///
/// # Errors
/// The system has no memory left.
pub fn prepare() -> Result<(), Failure> {
    static ONCE: Once = Once::new();
    static IS_PREPARED: AtomicBool = AtomicBool::new(false);
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|panic| {
            let text = panic.payload_as_str().unwrap_or("without words");
            let at = panic.location().map(ToString::to_string);
            tracing::error!(at, "panic: {text}");
        }));
        // SAFETY: the function only stores to an atomic, which a child may do before anything else. It is forgotten by the C
        // library when this one is unloaded.
        let refused = unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
        IS_PREPARED.store(refused == 0, Ordering::Release);
    });
    if IS_PREPARED.load(Ordering::Acquire) {
        Ok(())
    } else {
        Err(Failure::new(
            PUBSUB_EINTERNAL,
            "there is no way to learn of a fork",
        ))
    }
}

extern "C" fn in_child() {
    IS_CHILD.store(true, Ordering::Relaxed);
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
