//! What a Link hears: items of its carrier become events, and what the Link says to its own host comes between them.
//!
//! Invariant: the descriptor is readable while there is an event, and after the last one never again.

use std::collections::VecDeque;
use std::mem;
use std::os::fd::BorrowedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;

use super::calls::OWN_TICKETS;
use super::event::{self, Heard};
use super::frames::Frames;
use super::remote::DOWN;
use super::{Event, Inner, LinkError, Ticket, lock};
use crate::net::links::Item;
use crate::protocol::peer::call::{Call, write_call};
use crate::protocol::peer::event::read_event;

/// Events of a Link's own that may wait; past it [`LinkError::Full`].
const ASIDE_EVENTS_MAX: usize = 65_536;

/// Lines of the log that may wait; what comes while they do is counted, and told as one line.
const LOG_LINES_MAX: usize = 1024;

/// Events that no carrier brings.
#[derive(Debug, Default)]
pub(super) struct Aside {
    events: Mutex<VecDeque<Event>>,
    /// As long as `events`, to be asked without the lock.
    count: AtomicUsize,
    /// Lines of the log that found no room.
    lost_lines: AtomicUsize,
}

impl Aside {
    fn push(&self, event: Event) -> Result<(), LinkError> {
        let mut events = lock(&self.events);
        if events.len() >= ASIDE_EVENTS_MAX {
            return Err(LinkError::Full);
        }
        events.push_back(event);
        self.count.store(events.len(), Ordering::Release);
        Ok(())
    }

    fn pop(&self) -> Option<Event> {
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        let mut events = lock(&self.events);
        let event = events.pop_front();
        self.count.store(events.len(), Ordering::Release);
        event
    }
}

/// What has come and was not told yet. Its lock gives one thread at a time the turn.
#[derive(Debug, Default)]
pub(super) struct Intake {
    frames: Frames,
    is_over: bool,
}

impl Inner {
    /// Tells the host something that no carrier brings.
    pub fn say(&self, event: Event) -> Result<(), LinkError> {
        self.aside.push(event)?;
        // An eventfd: readable from now on. It fails only when it is full, and then it is readable already.
        let _ = rustix::io::write(self.carrier.fd(), &1u64.to_ne_bytes());
        Ok(())
    }

    /// Tells the host a line of the log.
    pub fn say_log(&self, level: u8, text: &str) {
        let lost = &self.aside.lost_lines;
        if self.aside.count.load(Ordering::Relaxed) >= LOG_LINES_MAX {
            lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let line = |level, text: &str| Event::Log {
            level,
            text: Bytes::copy_from_slice(text.as_bytes()),
        };
        let lost = lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = self.say(line(2, &format!("{lost} lines of the log were lost")));
        }
        // There is room for these two.
        let _ = self.say(line(level, text));
    }

    /// The next event, if there is one.
    pub fn hear(&self, intake: &mut Intake) -> Option<Event> {
        let mut is_settled = false;
        loop {
            if intake.is_over {
                silence(self.carrier.fd());
                return None;
            }
            if let Some(event) = self.aside.pop() {
                return Some(event);
            }
            match intake.frames.next(read) {
                Ok(Some(Some(heard))) => {
                    if let Some(event) = self.take(intake, heard) {
                        return Some(event);
                    }
                    continue;
                }
                Ok(Some(None)) | Err(_) => return self.end(intake, Some("bad_frame")),
                Ok(None) => {}
            }
            match self.carrier.next() {
                Some(Item::Bytes(chunk)) => intake.frames.push(chunk),
                Some(Item::Socket(connection)) => return Some(Event::Http(connection)),
                None if self.carrier.is_closed() => return self.end(intake, None),
                None if is_settled => return None,
                None => {
                    self.carrier.settle();
                    // Something may have been said aside before the descriptor was emptied.
                    is_settled = true;
                }
            }
        }
    }

    /// Keeps what is to be kept of it; the event, if the host is to know.
    fn take(&self, intake: &mut Intake, heard: Heard) -> Option<Event> {
        match heard {
            Heard::Request(number, mut request) => {
                if let Event::Request {
                    request: id,
                    timeout_ms,
                    ..
                } = &mut request
                {
                    *id = lock(&self.requests).add(number, *timeout_ms, Instant::now());
                }
                Some(request)
            }
            Heard::Welcome(client) => {
                *lock(&self.client) = Some(client);
                let is_remote = self.backlog.is_some();
                is_remote.then_some(Event::Up { client })
            }
            Heard::Probe => {
                // If there is no room for it, it is one of many calls, and each of them says the same.
                let _ = self.carrier.call(|out| write_call(&Call::Alive, out));
                None
            }
            Heard::Event(event) => {
                match &event {
                    Event::Done { ticket, .. } if !self.answered(*ticket, true) => return None,
                    Event::Failed { ticket, .. } if !self.answered(*ticket, false) => return None,
                    Event::Down { .. } => self.forget_connection(),
                    Event::Closed { .. } => self.is_last(intake),
                    _ => {}
                }
                Some(event)
            }
        }
    }

    /// A call was answered. Is the host to know?
    fn answered(&self, ticket: Ticket, is_done: bool) -> bool {
        if let Some(hearing) = &self.hearing {
            hearing.release(ticket);
        }
        lock(&self.channels).answered(ticket, is_done);
        ticket.0 < OWN_TICKETS
    }

    /// What the broker's numbers meant is gone with the connection.
    fn forget_connection(&self) {
        *lock(&self.client) = None;
        lock(&self.requests).clear();
    }

    /// Nothing comes behind the event that is about to be told.
    fn is_last(&self, intake: &mut Intake) {
        self.forget_connection();
        mem::take(&mut intake.frames);
        intake.is_over = true;
        self.is_over.store(true, Ordering::Relaxed);
    }

    /// The last event.
    fn end(&self, intake: &mut Intake, bad: Option<&'static str>) -> Option<Event> {
        self.is_last(intake);
        let closed = |code: &'static str, reason: &'static str| Event::Closed {
            code: Bytes::from_static(code.as_bytes()),
            reason: Bytes::from_static(reason.as_bytes()),
        };
        Some(match bad {
            Some(code) => closed(code, "the broker said what is no event"),
            None if self.is_leaving.load(Ordering::Relaxed) => {
                closed("closed", "the link was closed by its host")
            }
            None => Event::Stopped,
        })
    }
}

/// What a frame says; none if it is no event.
fn read(owner: &Bytes, frame: &[u8]) -> Option<Heard> {
    if frame.first() == Some(&DOWN) {
        let reason = owner.slice_ref(&frame[1..]);
        return Some(Heard::Event(Event::Down { reason }));
    }
    let told = read_event(frame).ok()?;
    Some(event::owned(owner, &told))
}

/// Empties a descriptor that nobody rings any more.
fn silence(fd: BorrowedFd<'_>) {
    let _ = rustix::io::read(fd, &mut [0; 8]);
}
