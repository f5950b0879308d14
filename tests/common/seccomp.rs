//! A seccomp filter for a child process: the one unsafe thing that a test does, between fork and exec.
//!
//! It refuses the three system calls of io_uring with an error, as Docker's default profile does, or the one that makes
//! a ring as a machine without memory for it would.

#![allow(
    unsafe_code,
    reason = "a filter is installed in the child, before it becomes the broker"
)]

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// `io_uring_setup`, `io_uring_enter`, `io_uring_register`: the same numbers on every architecture.
pub const SETUP: u32 = 425;
pub const ENTER: u32 = 426;
pub const REGISTER: u32 = 427;

/// The command's process gets this error for these system calls.
pub fn refuse(command: &mut Command, calls: &[u32], error: i32) {
    let rule = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let is_equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let answer = libc::BPF_RET | libc::BPF_K;
    // The number of the call is the first word of what a filter sees.
    let mut filter = vec![rule(load, 0, 0, 0)];
    for &call in calls {
        filter.push(rule(is_equal, 0, 1, call));
        filter.push(rule(answer, 0, 0, libc::SECCOMP_RET_ERRNO | error as u32));
    }
    filter.push(rule(answer, 0, 0, libc::SECCOMP_RET_ALLOW));
    let install = move || {
        let program = libc::sock_fprog {
            len: filter.len() as u16,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: prctl reads `program`, whose filter lives in this closure; both are there until it returns.
        let results = unsafe {
            [
                libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
                libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program),
            ]
        };
        if results.contains(&-1) {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    };
    // SAFETY: between fork and exec only two system calls are made: no allocation, no lock.
    unsafe { command.pre_exec(install) };
}
