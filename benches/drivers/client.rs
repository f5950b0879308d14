//! The other end: makes the connections, sends the messages of a round and waits until all have arrived.
//!
//! It runs on another core than the server and is never measured. It checks every message: a reader gets each one
//! of the round once, and nothing else.

use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::gate::Keeper;
use crate::scenario::{MESSAGE_BYTES, Scenario};

/// How long nothing may arrive while something is due.
const PATIENCE: Duration = Duration::from_secs(10);
const EVENTS_MAX: usize = 1024;

/// The clients of one server.
pub struct Client {
    scenario: Scenario,
    keeper: Keeper,
    sockets: Vec<TcpStream>,
    epoll: OwnedFd,
    /// What each reader got in this round.
    got: Vec<Vec<u8>>,
    round: u32,
}

impl Client {
    /// Connects, in order.
    ///
    /// # Errors
    /// There are not enough descriptors or ports, or no server.
    pub fn connect(scenario: Scenario, server: SocketAddr, keeper: Keeper) -> io::Result<Client> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let mut sockets = Vec::new();
        for number in 0..scenario.connections() {
            let socket = TcpStream::connect(server)?;
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(Duration::from_secs(10)))?;
            if number < scenario.readers() {
                let data = EventData::new_u64(number as u64);
                epoll::add(&epoll, &socket, data, EventFlags::IN)?;
            }
            sockets.push(socket);
        }
        Ok(Client {
            scenario,
            keeper,
            sockets,
            epoll,
            got: vec![Vec::new(); scenario.readers()],
            round: 0,
        })
    }

    /// One round.
    ///
    /// # Panics
    /// If a message is missing for ten seconds, or is not of this round.
    pub fn round(&mut self) {
        self.round += 1;
        let is_gated = matches!(self.scenario, Scenario::Echo { .. });
        for writer in self.scenario.writers() {
            let first = writer - self.scenario.writers().start;
            let burst = self.scenario.burst();
            let messages: Vec<u8> = (0..burst)
                .flat_map(|n| message(self.round, (first * burst + n) as u32))
                .collect();
            let sent = self.sockets[writer].write_all(&messages);
            sent.expect("the server takes what it is sent");
            if is_gated && writer == 0 {
                self.keeper.await_server();
            }
        }
        if is_gated {
            self.keeper.open();
        }
        let mut missing = self.scenario.readers();
        let mut events: Vec<Event> = Vec::with_capacity(EVENTS_MAX);
        let mut last_news = Instant::now();
        while missing > 0 {
            events.clear();
            let spare = rustix::buffer::spare_capacity(&mut events);
            // It does not sleep: the server would pay for waking it, and the faster it sends the more often.
            match epoll::wait(&self.epoll, spare, Some(&Timespec::default())) {
                Ok(0) => {
                    let is_late = last_news.elapsed() > PATIENCE;
                    assert!(!is_late, "{missing} readers have not got all of a round");
                    thread::yield_now();
                }
                Ok(_) => last_news = Instant::now(),
                Err(Errno::INTR) => {}
                Err(error) => panic!("no news: {error}"),
            }
            for event in &events {
                missing -= usize::from(self.read(event.data.u64() as usize));
            }
        }
        for reader in 0..self.got.len() {
            self.check(reader);
            self.got[reader].clear();
        }
    }

    /// Reads once; true if the reader has now got all that is due.
    fn read(&mut self, reader: usize) -> bool {
        let got = &mut self.got[reader];
        let due = self.scenario.due() * MESSAGE_BYTES;
        // Room for more than is due, so that too much is noticed.
        got.reserve(due + MESSAGE_BYTES - got.len());
        let spare = rustix::buffer::spare_capacity(got);
        match recv(&self.sockets[reader], spare, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => panic!("the server closed connection {reader}"),
            Ok(_) => assert!(got.len() <= due, "reader {reader} gets too much"),
            Err(Errno::AGAIN | Errno::INTR) => return false,
            Err(error) => panic!("reader {reader}: {error}"),
        }
        got.len() == due
    }

    fn check(&self, reader: usize) {
        let due = self.scenario.due();
        let (messages, rest) = self.got[reader].as_chunks::<MESSAGE_BYTES>();
        assert!(rest.is_empty() && messages.len() == due);
        // An echo comes in order and is the reader's own; publishers are not ordered among themselves.
        let (first, is_ordered) = match self.scenario {
            Scenario::Echo { burst, .. } => (reader * burst, true),
            Scenario::FanOut { .. } => (0, false),
        };
        let mut seen = vec![false; due];
        for (at, bytes) in messages.iter().enumerate() {
            let number = number(bytes);
            assert!(
                *bytes == message(self.round, number),
                "reader {reader} gets what nobody sent in this round"
            );
            let nth = (number as usize).wrapping_sub(first);
            let is_new = seen.get_mut(nth).map(|seen| !std::mem::replace(seen, true));
            assert_eq!(is_new, Some(true), "reader {reader}: doubled or misrouted");
            assert!(!is_ordered || nth == at, "reader {reader}: out of order");
        }
    }
}

fn message(round: u32, number: u32) -> [u8; MESSAGE_BYTES] {
    let mut bytes = [b'x'; MESSAGE_BYTES];
    bytes[..4].copy_from_slice(&round.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn number(message: &[u8; MESSAGE_BYTES]) -> u32 {
    let bytes = message[4..].first_chunk();
    u32::from_le_bytes(*bytes.expect("a message is longer"))
}
