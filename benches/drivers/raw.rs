//! A ring as the broker's driver sets it up, and the plainest loop around it. Unsafe: entries of its queue point to
//! our memory.
//!
//! Multishot receives into the driver's own pool of buffers, one send per connection and turn, all of them begun by the
//! enter that waits; and a turn goes on collecting until the kernel has no more, because one enter hands out some twenty
//! completions and what arrived together is to be answered together. What a driver has to have besides (slots that are
//! used again, cancelling, floods, stale completions) is not here: this is the floor.

#![allow(
    unsafe_code,
    reason = "entries of the submission queue point to our memory"
)]

use std::net::TcpListener;
use std::os::fd::AsRawFd as _;

use bytes::Bytes;
use io_uring::types::Fixed;
use io_uring::{IoUring, cqueue, opcode, squeue};
use pubsub::net::uring::features::{self, Features};

use crate::gate::Gate;
use crate::scenario::Scenario;
use crate::server;
use crate::turn::Turn;

use buffers::{Buffers, GROUP};

#[path = "../../src/net/uring/buffers.rs"]
mod buffers;

/// As the driver has them.
const BUFFERS: u16 = 1024;
const BUFFER_BYTES: usize = 2048;
/// Enters of one turn that collect.
const PASSES_MAX: usize = 16;
/// Completions that the kernel runs in one enter; as many may mean that there are more.
const COMPLETIONS_PER_ENTER: usize = 20;
/// `IORING_ENTER_GETEVENTS`.
const ENTER_GETEVENTS: u32 = 1;
/// Of the number that comes back with a completion: it is a send's.
const SEND: u64 = 1 << 32;

struct Raw {
    ring: IoUring,
    buffers: Buffers,
    /// What the kernel sends, by connection.
    sends: Vec<Option<Bytes>>,
    /// Operations whose last completion has not come.
    under_way: usize,
    turn: Turn,
    open: usize,
}

/// Serves until all clients are gone.
pub fn serve(listener: TcpListener, scenario: Scenario, gate: Gate) {
    let sockets = server::accept_all(&listener, scenario);
    let (ring, _) = features::set_up(&Features::ALL).expect("there was one a moment ago");
    let descriptors: Vec<_> = sockets.iter().map(|socket| socket.as_raw_fd()).collect();
    let registered = ring.submitter().register_files(&descriptors);
    registered.expect("a table of descriptors");
    let mut buffers = Buffers::new(BUFFERS, BUFFER_BYTES);
    let registered = buffers.register(&ring.submitter());
    registered.expect("a ring of buffers");
    let mut raw = Raw {
        ring,
        buffers,
        sends: vec![None; sockets.len()],
        under_way: 0,
        turn: Turn::new(scenario, gate),
        open: sockets.len(),
    };
    for number in 0..sockets.len() {
        raw.receive(number);
    }
    while raw.under_way > 0 {
        raw.turn();
    }
}

impl Raw {
    fn turn(&mut self) {
        self.ring
            .submit_and_wait(1)
            .expect("the ring can be entered");
        for _ in 0..PASSES_MAX {
            let count = self.reap();
            if count < COMPLETIONS_PER_ENTER && !self.ring.submission().taskrun() {
                break;
            }
            self.collect();
        }
        for to in self.turn.end() {
            if self.open > 0
                && let Some(bytes) = self.turn.next_send(to)
            {
                self.send(to, bytes);
            }
        }
    }

    /// Has the kernel run what it deferred, and waits for nothing.
    fn collect(&mut self) {
        // SAFETY: no argument is passed along, and no entry begins.
        let entered = unsafe {
            let submitter = self.ring.submitter();
            submitter.enter::<libc::sigset_t>(0, 0, ENTER_GETEVENTS, None)
        };
        entered.expect("the ring can be entered");
    }

    fn reap(&mut self) -> usize {
        let completions: Vec<cqueue::Entry> = self.ring.completion().collect();
        for completion in &completions {
            let number = (completion.user_data() & !SEND) as usize;
            if completion.user_data() & SEND != 0 {
                self.sent(number);
            } else {
                self.received(number, completion);
            }
        }
        completions.len()
    }

    fn received(&mut self, from: usize, completion: &cqueue::Entry) {
        let is_over = !cqueue::more(completion.flags());
        self.under_way -= usize::from(is_over);
        if let Some(id) = cqueue::buffer_select(completion.flags())
            && self.buffers.take(id)
        {
            let size = completion.result().unsigned_abs() as usize;
            self.turn.receive(from, self.buffers.bytes(id, size));
            self.buffers.give_back(id);
        }
        let is_out_of_buffers = completion.result() == -libc::ENOBUFS;
        if is_over && (completion.result() > 0 || is_out_of_buffers) {
            self.receive(from);
        } else if is_over {
            self.open -= 1;
        }
    }

    fn sent(&mut self, to: usize) {
        // Short or failed: the client is gone, and the receive says so.
        self.sends[to] = None;
        self.under_way -= 1;
        self.turn.sent(to);
    }

    fn receive(&mut self, from: usize) {
        let entry = opcode::RecvMulti::new(Fixed(from as u32), GROUP).build();
        self.push(entry.user_data(from as u64));
    }

    fn send(&mut self, to: usize, bytes: Bytes) {
        let bytes = self.sends[to].insert(bytes);
        let entry = opcode::Send::new(Fixed(to as u32), bytes.as_ptr(), bytes.len() as u32)
            .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
            .build();
        self.push(entry.user_data(to as u64 | SEND));
    }

    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: a receive points to nothing but the pool, a send to bytes in `sends`, which are shared and so stay
        // where they are; both are kept until the last completion of all operations, see `serve` and `Drop`.
        let is_queued = unsafe { self.ring.submission().push(&entry).is_ok() };
        assert!(is_queued, "the queue has an entry for each connection");
        self.under_way += 1;
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if self.under_way > 0 {
            // A panic: what the kernel still uses must not be freed.
            std::process::abort();
        }
    }
}
