//! The relay: rounds of one epoll.
//!
//! A round takes up to [`EVENTS_MAX`] ready connections and reads each of them once. What closes is let go at the end
//! of the round, so that a descriptor means the same connection in all of it.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};

use crate::Mode;
use crate::frame::{self, Frame};
use crate::line::Line;
use crate::topic::Topics;
use crate::upgrade;

/// Ready connections in a round.
const EVENTS_MAX: usize = 1024;
/// One read takes so much, and a frame may be so long.
const BUFFER_SIZE: usize = 256 * 1024;
/// What a publication begins with; its topic and `",` follow.
const PUBLISH: &[u8] = br#"{"type":"publish","topic":""#;
/// What a subscription begins with.
const SUBSCRIBE: &[u8] = br#"{"type":"subscribe","topic":""#;

/// All there is.
pub struct Relay {
    mode: Mode,
    listener: TcpListener,
    epoll: OwnedFd,
    /// By descriptor.
    lines: Vec<Option<Line>>,
    topics: Topics,
    /// Topics with a log, in this round.
    written: Vec<usize>,
    /// Lines that died in this round.
    dead: Vec<usize>,
}

impl Relay {
    /// On a listener.
    ///
    /// # Errors
    /// There is no epoll to be had.
    pub fn new(listener: TcpListener, mode: Mode) -> io::Result<Relay> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(listener.as_raw_fd() as u64);
        epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
        Ok(Relay {
            mode,
            listener,
            epoll,
            lines: Vec::new(),
            topics: Topics::default(),
            written: Vec::new(),
            dead: Vec::new(),
        })
    }

    /// Rounds without end.
    ///
    /// # Errors
    /// The epoll broke.
    pub fn run(mut self) -> io::Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                self.serve(event, &mut buffer);
            }
            for id in std::mem::take(&mut self.written) {
                self.send_log(id);
            }
            for at in std::mem::take(&mut self.dead) {
                self.let_go(at);
            }
        }
    }

    fn serve(&mut self, event: &epoll::Event, buffer: &mut [u8]) {
        let (at, flags) = (event.data.u64() as usize, event.flags);
        if at == self.listener.as_raw_fd() as usize {
            return self.accept();
        }
        if flags.contains(epoll::EventFlags::OUT)
            && let Some(line) = &mut self.lines[at]
            && !line.flush(at, &self.epoll)
        {
            self.dead.push(at);
        }
        // Errors and the end come out of the read.
        if flags.intersects(epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR)
            && !self.receive(at, buffer)
        {
            self.kill(at);
        }
    }

    fn accept(&mut self) {
        while let Ok((socket, _)) = self.listener.accept() {
            let at = socket.as_raw_fd() as usize;
            let data = epoll::EventData::new_u64(at as u64);
            let is_ready = socket.set_nonblocking(true).is_ok()
                && socket.set_nodelay(true).is_ok()
                && epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN).is_ok();
            if is_ready {
                let size = self.lines.len().max(at + 1);
                self.lines.resize_with(size, || None);
                self.lines[at] = Some(Line::new(socket));
            }
        }
    }

    /// One read, and all whole frames in it. False if the line is to be closed.
    #[inline]
    fn receive(&mut self, at: usize, buffer: &mut [u8]) -> bool {
        let Some(line) = self.lines[at].as_mut().filter(|line| !line.is_dead) else {
            return true;
        };
        let held = line.rest.len();
        buffer[..held].copy_from_slice(&line.rest);
        let end = match recv(&line.socket, &mut buffer[held..], RecvFlags::empty()) {
            Ok((0, _)) => return false,
            Ok((size, _)) => held + size,
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Err(_) => return false,
        };
        line.rest.clear();
        let mut done = 0;
        if !line.is_open {
            match upgrade::answer(&buffer[..end]) {
                Ok(Some((answer, size))) => {
                    line.is_open = true;
                    done = size;
                    if !line.send(at, &self.epoll, answer.as_bytes()) {
                        return false;
                    }
                }
                Ok(None) => {
                    line.rest.extend_from_slice(&buffer[..end]);
                    return true;
                }
                Err(()) => return false,
            }
        }
        loop {
            let bytes = &mut buffer[done..end];
            match frame::convert(bytes, BUFFER_SIZE) {
                Frame::Whole {
                    opcode,
                    start,
                    payload,
                    end,
                } => {
                    if !self.take(at, opcode, &bytes[start..end], payload - start) {
                        return false;
                    }
                    done += end;
                }
                Frame::Partial => break,
                Frame::Wrong => return false,
            }
        }
        if done < end
            && let Some(line) = &mut self.lines[at]
        {
            line.rest.extend_from_slice(&buffer[done..end]);
        }
        true
    }

    /// A frame, ready to be sent on; its payload begins at `header`. False if the line is to be closed.
    #[inline]
    fn take(&mut self, at: usize, opcode: u8, frame: &[u8], header: usize) -> bool {
        let payload = &frame[header..];
        match opcode {
            frame::TEXT => {
                if let Some(rest) = payload.strip_prefix(PUBLISH) {
                    if let Some(size) = rest.iter().position(|byte| *byte == b'"')
                        && rest.get(size + 1) == Some(&b',')
                        && let Some(id) = self.topics.find(&rest[..size])
                    {
                        self.publish(id, frame);
                    }
                } else if let Some(rest) = payload.strip_prefix(SUBSCRIBE)
                    && let Some(size) = rest.iter().position(|byte| *byte == b'"')
                {
                    self.subscribe(at, &rest[..size]);
                }
                true
            }
            frame::PING => self.say(at, &frame::encode(frame::PONG, payload)),
            // A close has no answer but the end of the connection; the rest is of no interest.
            frame::CLOSE => false,
            _ => true,
        }
    }

    #[inline]
    fn publish(&mut self, id: usize, frame: &[u8]) {
        let topic = self.topics.at(id);
        match self.mode {
            Mode::Joined => {
                if topic.log.is_empty() {
                    self.written.push(id);
                }
                topic.log.extend_from_slice(frame);
            }
            Mode::Plain => {
                deliver(
                    &topic.subscribers,
                    frame,
                    &mut self.lines,
                    &self.epoll,
                    &mut self.dead,
                );
            }
        }
    }

    fn send_log(&mut self, id: usize) {
        let topic = self.topics.at(id);
        deliver(
            &topic.subscribers,
            &topic.log,
            &mut self.lines,
            &self.epoll,
            &mut self.dead,
        );
        topic.log.clear();
    }

    fn subscribe(&mut self, at: usize, name: &[u8]) {
        let id = self.topics.enter(name);
        // What was published before goes to those who were there.
        self.send_log(id);
        self.written.retain(|written| *written != id);
        let Some(line) = &mut self.lines[at] else {
            return;
        };
        if !line.topics.contains(&id) {
            line.topics.push(id);
            self.topics.at(id).subscribers.push(at);
        }
    }

    fn say(&mut self, at: usize, bytes: &[u8]) -> bool {
        let line = self.lines[at].as_mut();
        line.is_none_or(|line| line.send(at, &self.epoll, bytes))
    }

    fn kill(&mut self, at: usize) {
        if let Some(line) = &mut self.lines[at] {
            line.is_dead = true;
            self.dead.push(at);
        }
    }

    fn let_go(&mut self, at: usize) {
        let topics = self.lines[at].take().map(|line| line.topics);
        for id in topics.unwrap_or_default() {
            let subscribers = &mut self.topics.at(id).subscribers;
            if let Some(place) = subscribers.iter().position(|other| *other == at) {
                subscribers.swap_remove(place);
            }
        }
    }
}

/// To each subscriber with one `send(2)`.
#[inline]
fn deliver(
    subscribers: &[usize],
    bytes: &[u8],
    lines: &mut [Option<Line>],
    epoll: &OwnedFd,
    dead: &mut Vec<usize>,
) {
    if bytes.is_empty() {
        return;
    }
    for &at in subscribers {
        if let Some(line) = &mut lines[at]
            && !line.send(at, epoll, bytes)
        {
            dead.push(at);
        }
    }
}
