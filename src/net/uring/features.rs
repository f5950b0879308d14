//! What a kernel can do, found out by asking it: set-up flags by trying, operations by the probe.
//!
//! `docs/io_uring.md` says which kernel version brings what. A missing *necessary* feature means no ring (the
//! epoll driver runs); every other one has a step down here.

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
}

impl Features {
    /// The most that this build knows how to use.
    pub const ALL: Features = Features {
        taskrun: Taskrun::Deferred,
        no_sqarray: true,
        messages: true,
        install: true,
        socket_options: true,
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
    let mut features = wanted.clone();
    let ring = loop {
        match build(&features) {
            Ok(ring) => break ring,
            // An older kernel does not know a flag: one feature down, the newest first.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) && features.no_sqarray => {
                features.no_sqarray = false;
            }
            Err(error)
                if error.raw_os_error() == Some(libc::EINVAL)
                    && features.taskrun != Taskrun::Eager =>
            {
                features.no_sqarray = wanted.no_sqarray;
                features.taskrun = match features.taskrun {
                    Taskrun::Deferred => Taskrun::Cooperative,
                    Taskrun::Cooperative | Taskrun::Eager => Taskrun::Eager,
                };
            }
            Err(error) => return Err(refusal(&error)),
        }
    };
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
    Ok((ring, features))
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
