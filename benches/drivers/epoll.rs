//! An epoll loop as it is when written with care: level-triggered, all input of a turn before any output, one `send`
//! per connection and turn.

use std::net::{TcpListener, TcpStream};

use bytes::{Buf as _, Bytes};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::gate::Gate;
use crate::scenario::Scenario;
use crate::server;
use crate::turn::Turn;

const EVENTS_MAX: usize = 1024;
/// Passes over what is ready, until one brings nothing: as many as the broker's driver makes.
const PASSES_MAX: usize = 8;
const RECEIVE_BYTES: usize = 64 * 1024;

struct Loop {
    epoll: OwnedFd,
    sockets: Vec<TcpStream>,
    /// What a socket would not take at once.
    rest: Vec<Bytes>,
    /// Is it watched for room?
    is_full: Vec<bool>,
    turn: Turn,
    open: usize,
    buffer: Vec<u8>,
    events: Vec<Event>,
}

/// Serves until all clients are gone.
pub fn serve(listener: TcpListener, scenario: Scenario, gate: Gate) {
    let sockets = server::accept_all(&listener, scenario);
    let epoll = epoll::create(CreateFlags::CLOEXEC).expect("there is an epoll");
    for (number, socket) in sockets.iter().enumerate() {
        let data = EventData::new_u64(number as u64);
        epoll::add(&epoll, socket, data, EventFlags::IN).expect("it takes a socket");
    }
    let mut event_loop = Loop {
        epoll,
        rest: vec![Bytes::new(); sockets.len()],
        is_full: vec![false; sockets.len()],
        turn: Turn::new(scenario, gate),
        open: sockets.len(),
        buffer: vec![0; RECEIVE_BYTES],
        events: Vec::with_capacity(EVENTS_MAX),
        sockets,
    };
    while event_loop.open > 0 {
        event_loop.turn();
    }
}

impl Loop {
    fn turn(&mut self) {
        let mut wait = None;
        for _ in 0..PASSES_MAX {
            if self.pass(wait) == 0 {
                break;
            }
            wait = Some(Timespec::default());
        }
        for to in self.turn.end() {
            if let Some(bytes) = self.turn.next_send(to) {
                self.rest[to] = bytes;
                self.send(to);
            }
        }
    }

    fn pass(&mut self, wait: Option<Timespec>) -> usize {
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        let spare = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&self.epoll, spare, wait.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => panic!("epoll: {error}"),
        }
        for event in &events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            if flags.contains(EventFlags::OUT) {
                self.send(number);
            }
            if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
                self.receive(number);
            }
        }
        let count = events.len();
        self.events = events;
        count
    }

    fn receive(&mut self, number: usize) {
        let socket = &self.sockets[number];
        match recv(socket, &mut self.buffer[..], RecvFlags::DONTWAIT) {
            Ok((size, _)) if size > 0 => self.turn.receive(number, &self.buffer[..size]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Ok(_) | Err(_) => {
                epoll::delete(&self.epoll, socket).expect("it was added");
                self.open -= 1;
            }
        }
    }

    /// Goes on with the send under way.
    fn send(&mut self, to: usize) {
        let rest = &mut self.rest[to];
        while !rest.is_empty() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.sockets[to], rest, flags) {
                Ok(size) => rest.advance(size),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.watch_for_room(to, true),
                // The client is gone, and the next receive will say so.
                Err(_) => rest.clear(),
            }
        }
        self.watch_for_room(to, false);
        self.turn.sent(to);
    }

    fn watch_for_room(&mut self, of: usize, is_watched: bool) {
        if std::mem::replace(&mut self.is_full[of], is_watched) != is_watched {
            let mut flags = EventFlags::IN;
            flags.set(EventFlags::OUT, is_watched);
            let data = EventData::new_u64(of as u64);
            epoll::modify(&self.epoll, &self.sockets[of], data, flags).expect("it was added");
        }
    }
}
