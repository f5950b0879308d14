//! Threads of our own for what starts other threads or waits for them.
//!
//! A home of unsafe, for `pthread_create`.
//!
//! Two reasons to do such work on a thread made for it. It blocks every signal, and so do all threads that come of it: a
//! signal for the process is the host's, and runs its handler on a thread of the host. And what the standard library leaves
//! behind for the end of a thread, it leaves there: on a host's thread it would keep the library from being unloaded. So it
//! is not started by the standard library either.

#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::panic::text_of;
use crate::status::Failure;
use crate::status::pubsub_status::{PUBSUB_EPANIC, PUBSUB_ESYSTEM};

/// Runs this on a thread of its own, and waits for it.
///
/// # Errors
/// The system has no thread left; a panic; whatever `work` fails with.
pub fn apart<T: Send>(work: impl FnOnce() -> Result<T, Failure> + Send) -> Result<T, Failure> {
    let mut task = Task {
        work: Some(work),
        result: None,
    };
    let mut thread = MaybeUninit::uninit();
    let signals = block_signals();
    // SAFETY: `task` is not moved or touched until the thread is joined below, and `run` is made for its type; what is
    // borrowed in it is `Send`.
    let refused = unsafe {
        libc::pthread_create(
            thread.as_mut_ptr(),
            std::ptr::null(),
            entry(&task),
            (&raw mut task).cast(),
        )
    };
    unblock_signals(&signals);
    if refused != 0 {
        return Err(Failure::new(
            PUBSUB_ESYSTEM,
            "the system has no thread left",
        ));
    }
    // SAFETY: it was created, so there is a thread, which nobody else joins.
    let joined = unsafe { libc::pthread_join(thread.assume_init(), std::ptr::null_mut()) };
    assert_eq!(joined, 0, "a thread of ours can be joined once");
    task.result.expect("the thread ran to its end")
}

struct Task<T, F> {
    work: Option<F>,
    result: Option<Result<T, Failure>>,
}

/// The entry for tasks of this type.
fn entry<T, F>(_: &Task<T, F>) -> extern "C" fn(*mut c_void) -> *mut c_void
where
    F: FnOnce() -> Result<T, Failure>,
{
    run::<T, F>
}

extern "C" fn run<T, F>(task: *mut c_void) -> *mut c_void
where
    F: FnOnce() -> Result<T, Failure>,
{
    // SAFETY: `apart` gave it, waits for this thread, and touches nothing of it until then.
    let task = unsafe { &mut *task.cast::<Task<T, F>>() };
    if let Some(work) = task.work.take() {
        let result = catch_unwind(AssertUnwindSafe(work));
        task.result = Some(result.unwrap_or_else(|panic| {
            let failure = Failure::told(PUBSUB_EPANIC, text_of(panic.as_ref()));
            std::mem::forget(panic);
            Err(failure)
        }));
    }
    std::ptr::null_mut()
}

fn block_signals() -> libc::sigset_t {
    let (mut all, mut before) = (MaybeUninit::uninit(), MaybeUninit::uninit());
    // SAFETY: both sets are ours to be written; `sigfillset` fills the first before it is read.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        before.assume_init()
    }
}

fn unblock_signals(before: &libc::sigset_t) {
    // SAFETY: the set was written by `pthread_sigmask`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_apart_comes_back() {
        let text = "borrowed".to_owned();
        assert_eq!(apart(|| Ok(text.len())).unwrap(), 8);
        let failure = apart::<()>(|| Err(Failure::invalid("no"))).unwrap_err();
        assert_eq!(failure.to_string(), "no");
        let failure = apart::<()>(|| panic!("on purpose")).unwrap_err();
        assert_eq!(failure.status, PUBSUB_EPANIC);
        assert_eq!(failure.to_string(), "on purpose");
    }

    #[test]
    fn its_threads_take_no_signals_and_the_caller_does_as_before() {
        let blocked = || {
            let mut mask = MaybeUninit::uninit();
            // SAFETY: with no new set the mask is only read, into a set of ours.
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, std::ptr::null(), mask.as_mut_ptr());
                libc::sigismember(mask.as_ptr(), libc::SIGTERM) == 1
            }
        };
        let before = blocked();
        let (own, its_child) = apart(|| {
            let child = std::thread::spawn(blocked).join();
            Ok((blocked(), child.unwrap()))
        })
        .unwrap();
        assert!(own && its_child);
        assert_eq!(blocked(), before);
    }
}
