//! A line: one connection, and what the kernel would not take or has not given whole.

use std::net::TcpStream;
use std::os::fd::OwnedFd;

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{SendFlags, send};

/// More than this is not kept for a subscriber that does not read.
const PENDING_SIZE_MAX: usize = 16 << 20;

/// A connection.
pub struct Line {
    /// Nonblocking.
    pub socket: TcpStream,
    /// Was it upgraded?
    pub is_open: bool,
    /// Nothing more is sent or read; it goes at the end of the round.
    pub is_dead: bool,
    /// The beginning of a frame.
    pub rest: Vec<u8>,
    /// What the socket buffer had no room for.
    pending: Vec<u8>,
    /// Topics, by id.
    pub topics: Vec<usize>,
}

impl Line {
    /// Of a socket that was just accepted.
    pub fn new(socket: TcpStream) -> Line {
        Line {
            socket,
            is_open: false,
            is_dead: false,
            rest: Vec::new(),
            pending: Vec::new(),
            topics: Vec::new(),
        }
    }

    /// Sends, now or as soon as there is room. False if the line has just died of it.
    #[inline]
    pub fn send(&mut self, at: usize, epoll: &OwnedFd, bytes: &[u8]) -> bool {
        if self.is_dead {
            return true;
        }
        if !self.pending.is_empty() {
            self.pending.extend_from_slice(bytes);
            self.is_dead = self.pending.len() > PENDING_SIZE_MAX;
            return !self.is_dead;
        }
        match self.offer(bytes) {
            Some(sent) if sent == bytes.len() => true,
            Some(sent) => {
                self.pending.extend_from_slice(&bytes[sent..]);
                self.watch(at, epoll, epoll::EventFlags::IN | epoll::EventFlags::OUT)
            }
            None => false,
        }
    }

    /// Sends what is pending, since there is room again. False if the line has just died of it.
    pub fn flush(&mut self, at: usize, epoll: &OwnedFd) -> bool {
        if self.is_dead {
            return true;
        }
        let pending = std::mem::take(&mut self.pending);
        match self.offer(&pending) {
            Some(sent) if sent == pending.len() => self.watch(at, epoll, epoll::EventFlags::IN),
            Some(sent) => {
                self.pending = pending;
                self.pending.drain(..sent);
                true
            }
            None => false,
        }
    }

    /// One `send(2)`: how much was taken, none if the line is dead now.
    #[inline]
    fn offer(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            match send(&self.socket, bytes, SendFlags::NOSIGNAL) {
                Ok(sent) => return Some(sent),
                Err(Errno::AGAIN) => return Some(0),
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.is_dead = true;
                    return None;
                }
            }
        }
    }

    fn watch(&mut self, at: usize, epoll: &OwnedFd, flags: epoll::EventFlags) -> bool {
        let data = epoll::EventData::new_u64(at as u64);
        self.is_dead = epoll::modify(epoll, &self.socket, data, flags).is_err();
        !self.is_dead
    }
}
