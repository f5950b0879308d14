//! What a kernel can do, found out by asking it: set-up flags by trying, operations by the probe.
//!
//! `docs/io_uring.md` says which kernel version brings what. A missing *necessary* feature means no ring (the
//! epoll driver runs); every other one has a step down here. The only unsafe code queues an entry that does nothing.

#![allow(unsafe_code, reason = "queueing an entry is, whatever it points to")]

use std::fmt;
use std::io;

use io_uring::{IoUring, Probe, opcode};

/// Entries of the submission queue: a turn's sends go in batches of so many.
pub const SUBMISSIONS: u32 = 4096;
/// Entries of the completion queue: one per connection and its send, for half the connections of a full table.
pub const COMPLETIONS: u32 = 32_768;

/// How the kernel runs completions for us.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Taskrun {
    /// When it likes, by interrupting us (before 5.19).
    Eager,
    /// When we enter it for any reason (5.19).
    Cooperative,
    /// Only when we ask for completions (6.1).
    Deferred,
}

/// What is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    /// How completions run.
    pub taskrun: Taskrun,
    /// The submission queue needs no index array (6.6).
    pub no_sqarray: bool,
    /// Messages between rings (5.18): shards wake each other by them, else by an eventfd.
    pub messages: bool,
    /// Ordinary descriptors of direct ones (6.8): remote addresses are known.
    pub install: bool,
    /// Socket options of direct descriptors (6.7): a reset is a reset at once.
    pub socket_options: bool,
    /// A wait that goes on for a moment after the first completion (6.12): `--coalesce-us` has an effect.
    pub min_timeout: bool,
}

impl Features {
    /// The most that this build knows how to use.
    pub const ALL: Features = Features {
        taskrun: Taskrun::Deferred,
        no_sqarray: true,
        messages: true,
        install: true,
        socket_options: true,
        min_timeout: true,
    };

    /// Features by name, for `PUBSUB_URING_WITHOUT` and the tests that force each step down.
    pub fn without(mut self, name: &str) -> Option<Features> {
        match name {
            "deferred" => self.taskrun = self.taskrun.min(Taskrun::Cooperative),
            "cooperative" => self.taskrun = Taskrun::Eager,
            "no_sqarray" => self.no_sqarray = false,
            "messages" => self.messages = false,
            "install" => self.install = false,
            "socket_options" => self.socket_options = false,
            "min_timeout" => self.min_timeout = false,
            _ => return None,
        }
        Some(self)
    }
}

impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.taskrun {
            Taskrun::Eager => "eager completions",
            Taskrun::Cooperative => "cooperative completions",
            Taskrun::Deferred => "deferred completions",
        })?;
        for (has, name) in [
            (self.no_sqarray, "no index array"),
            (self.messages, "ring messages"),
            (self.install, "descriptor installs"),
            (self.socket_options, "socket options"),
            (self.min_timeout, "gathering waits"),
        ] {
            write!(f, ", {}{name}", if has { "" } else { "without " })?;
        }
        Ok(())
    }
}

/// Makes a ring with as many of the wanted features as the kernel has.
///
/// # Errors
/// A sentence: io_uring is refused here, or something necessary is missing.
pub fn set_up(wanted: &Features) -> Result<(IoUring, Features), String> {
    let (mut ring, mut features) = step_down(wanted, build).map_err(|error| refusal(&error))?;
    enter_once(&mut ring)
        .map_err(|error| format!("a ring can be had, but not used: {}", refusal(&error)))?;
    let mut probe = Probe::new();
    ring.submitter()
        .register_probe(&mut probe)
        .map_err(|error| format!("the kernel answers no probe: {error}"))?;
    for (code, name) in [
        (opcode::Accept::CODE, "accept"),
        (opcode::Recv::CODE, "recv"),
        (opcode::Send::CODE, "send"),
        (opcode::SendMsg::CODE, "sendmsg"),
        (opcode::Shutdown::CODE, "shutdown"),
        (opcode::AsyncCancel::CODE, "cancel"),
        (opcode::Close::CODE, "close"),
        (opcode::PollAdd::CODE, "poll"),
        // With SEND_ZC came multishot receives and the sending of descriptors between rings (6.0).
        (opcode::SendZc::CODE, "multishot recv"),
    ] {
        if !probe.is_supported(code) {
            return Err(format!("the kernel has no {name} (it is older than 6.0)"));
        }
    }
    if !ring.params().is_feature_ext_arg() || !ring.params().is_feature_nodrop() {
        return Err("the kernel's rings can't wait with a timeout, or lose completions".to_owned());
    }
    features.messages &= probe.is_supported(opcode::MsgRingData::CODE);
    features.install &= probe.is_supported(opcode::FixedFdInstall::CODE);
    // Socket commands have no probe of their own; FIXED_FD_INSTALL is one version younger.
    features.socket_options &= probe.is_supported(opcode::FixedFdInstall::CODE);
    features.min_timeout &= ring.params().is_feature_min_timeout();
    Ok((ring, features))
}

/// The ring with the most features that the kernel does not refuse: an older one does not know a flag.
fn step_down<R>(
    wanted: &Features,
    mut build: impl FnMut(&Features) -> io::Result<R>,
) -> io::Result<(R, Features)> {
    let mut features = wanted.clone();
    loop {
        let error = match build(&features) {
            Ok(ring) => return Ok((ring, features)),
            Err(error) => error,
        };
        let is_unknown_flag = error.raw_os_error() == Some(libc::EINVAL);
        // One feature down, the newest first.
        if is_unknown_flag && features.no_sqarray {
            features.no_sqarray = false;
        } else if is_unknown_flag && features.taskrun != Taskrun::Eager {
            features.no_sqarray = wanted.no_sqarray;
            features.taskrun = match features.taskrun {
                Taskrun::Deferred => Taskrun::Cooperative,
                Taskrun::Cooperative | Taskrun::Eager => Taskrun::Eager,
            };
        } else {
            return Err(error);
        }
    }
}

/// Goes through the ring once with nothing to do: a filter may allow to set it up and refuse to enter it.
fn enter_once(ring: &mut IoUring) -> io::Result<()> {
    let nothing = opcode::Nop::new().build();
    // SAFETY: the entry points to nothing.
    let is_queued = unsafe { ring.submission().push(&nothing).is_ok() };
    debug_assert!(is_queued, "a new queue has room");
    ring.submit_and_wait(1)?;
    ring.completion().for_each(drop);
    Ok(())
}

fn build(features: &Features) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder.setup_cqsize(COMPLETIONS).setup_clamp();
    match features.taskrun {
        Taskrun::Eager => {}
        Taskrun::Cooperative => {
            builder
                .setup_submit_all()
                .setup_coop_taskrun()
                .setup_taskrun_flag();
        }
        Taskrun::Deferred => {
            builder
                .setup_submit_all()
                .setup_single_issuer()
                .setup_defer_taskrun()
                .setup_taskrun_flag();
        }
    }
    if features.no_sqarray {
        builder.setup_no_sqarray();
    }
    builder.build(SUBMISSIONS)
}

fn refusal(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "the kernel has no io_uring".to_owned(),
        Some(libc::EPERM | libc::EACCES) => {
            "io_uring is refused here (by a seccomp filter, such as a container's, or by kernel.io_uring_disabled)"
                .to_owned()
        }
        Some(libc::ENOMEM) => "not enough memory may be locked for a ring (RLIMIT_MEMLOCK)".to_owned(),
        _ => format!("no ring could be set up: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_without_a_flag_costs_one_feature() {
        // What each kernel refuses, and what is left of everything.
        let check = |name: &str, knows: &dyn Fn(&Features) -> bool, taskrun, no_sqarray| {
            let built = step_down(&Features::ALL, |features| {
                if knows(features) {
                    Ok(())
                } else {
                    Err(io::Error::from_raw_os_error(libc::EINVAL))
                }
            });
            let ((), features) = built.expect("something is left");
            let left = (features.taskrun, features.no_sqarray);
            assert_eq!(left, (taskrun, no_sqarray), "{name}");
        };
        check("6.6", &|_| true, Taskrun::Deferred, true);
        check("6.1", &|f| !f.no_sqarray, Taskrun::Deferred, false);
        check(
            "6.0",
            &|f| !f.no_sqarray && f.taskrun <= Taskrun::Cooperative,
            Taskrun::Cooperative,
            false,
        );
        check(
            "5.10",
            &|f| !f.no_sqarray && f.taskrun == Taskrun::Eager,
            Taskrun::Eager,
            false,
        );
    }

    #[test]
    fn a_refusal_is_final_and_says_why() {
        let check = |code: i32, part: &str| {
            let mut tries = 0;
            let error = step_down(&Features::ALL, |_| -> io::Result<()> {
                tries += 1;
                Err(io::Error::from_raw_os_error(code))
            })
            .expect_err("refused");
            assert!(
                refusal(&error).contains(part),
                "{code}: {}",
                refusal(&error)
            );
            tries
        };
        assert_eq!(check(libc::EPERM, "seccomp"), 1);
        assert_eq!(check(libc::EACCES, "seccomp"), 1);
        assert_eq!(check(libc::ENOSYS, "no io_uring"), 1);
        assert_eq!(check(libc::ENOMEM, "RLIMIT_MEMLOCK"), 1);
        assert_eq!(check(libc::EMFILE, "Too many open files"), 1);
        // Every combination was tried before it is given up.
        assert_eq!(check(libc::EINVAL, "Invalid argument"), 6);
    }

    #[test]
    fn features_go_by_name() {
        for name in [
            "deferred",
            "cooperative",
            "no_sqarray",
            "messages",
            "install",
            "socket_options",
            "min_timeout",
        ] {
            let without = Features::ALL.without(name).expect(name);
            assert_ne!(without, Features::ALL, "{name}");
            assert_ne!(without.to_string(), Features::ALL.to_string(), "{name}");
        }
        assert_eq!(Features::ALL.without("sqpoll"), None);
    }
}
