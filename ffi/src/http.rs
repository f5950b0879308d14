//! Connections of the host's, on their way to the broker.
//!
//! A home of unsafe: its name is exported, and it takes what the caller points to and gives away.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::{BorrowedFd, FromRawFd as _, IntoRawFd as _, OwnedFd};

use crate::argument::bytes;
use crate::link::{linked, pubsub_link};
use crate::panic::boundary;
use crate::status::{Failure, pubsub_status};

/// Gives a connection to the broker: one that came with `PUBSUB_EV_HTTP`, or any stream socket that the host has accepted
/// itself. It is served as one that has just come to this listener (the event's `listener`; 0 for the first of the option
/// `listen`), the `size` bytes at `data` first: all that has been read and not answered, from the beginning of a request on.
/// What it asks for that is not the broker's comes back as an event.
///
/// On success the descriptor is the broker's, and nobody else may use or close it; on an error it is still yours. Only links
/// of the broker's own process: `PUBSUB_EINVAL`. `PUBSUB_EFULL`: try again. Any thread.
///
/// # Safety
/// `data` points to `size` bytes. `fd` is a descriptor of the caller's that nothing else in the process owns.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pubsub_link_adopt(
    link: *mut pubsub_link,
    listener: u32,
    fd: c_int,
    data: *const c_void,
    size: usize,
) -> pubsub_status {
    boundary(|| {
        let linked = linked(link)?;
        // SAFETY: the header asks for so many bytes.
        let data = unsafe { bytes(data, size, "data")? }.to_vec();
        let listener =
            u16::try_from(listener).map_err(|_| Failure::invalid("there is no such listener"))?;
        if fd < 0 {
            return Err(Failure::invalid("the descriptor is none"));
        }
        // SAFETY: for this question only; a number that is no descriptor is answered by an error.
        let asked = unsafe { BorrowedFd::borrow_raw(fd) };
        if !rustix::net::sockopt::socket_type(asked)
            .is_ok_and(|kind| kind == rustix::net::SocketType::STREAM)
        {
            return Err(Failure::invalid("the descriptor is no stream socket"));
        }
        // SAFETY: the header asks for a descriptor of the caller's, which is the broker's from now on. If it is not taken it
        // is given back below, open.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        linked
            .link
            .adopt(listener, socket, data)
            .map_err(|(error, socket)| {
                let _ = socket.into_raw_fd();
                Failure::from(error)
            })
    })
}
