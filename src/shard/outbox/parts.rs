//! The queue of an outbox. Nearly always it is empty or has one part, and then it needs no memory of its own.
//!
//! Invariant: `rest` is empty while there is no `first`.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::super::log::LogRange;

/// Something that waits.
#[derive(Debug)]
pub(super) enum Part {
    /// A range of this turn's log.
    Log { range: LogRange, deliveries: u32 },
    /// Frames that can't be dropped.
    Frames { bytes: Bytes, deliveries: u32 },
    /// A delivery that drop-oldest may drop.
    Droppable(Box<Droppable>),
    /// The newest delivery of a conflated topic, by its key in `SlowState::values`.
    Conflated { key: usize },
    /// Answers and other words for this session alone.
    Words { bytes: BytesMut, replies: bool },
}

/// A delivery that may be skipped, and the topic that the gap is then told of.
#[derive(Debug)]
pub(super) struct Droppable {
    pub(super) bytes: Bytes,
    pub(super) topic: Bytes,
}

/// What waits, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Parts {
    first: Option<Part>,
    rest: VecDeque<Part>,
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push_back(&mut self, part: Part) {
        match self.first {
            None => self.first = Some(part),
            Some(_) => self.rest.push_back(part),
        }
    }

    pub(super) fn push_front(&mut self, part: Part) {
        if let Some(second) = self.first.replace(part) {
            self.rest.push_front(second);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Part> {
        let first = self.first.take();
        if !self.rest.is_empty() {
            self.first = self.rest.pop_front();
        }
        first
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Part> {
        self.rest.back_mut().or(self.first.as_mut())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        self.first.iter_mut().chain(&mut self.rest)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Part) -> bool) {
        let is_first_kept = self.first.as_ref().is_none_or(&mut keep);
        self.rest.retain(keep);
        if !is_first_kept {
            self.first = self.rest.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        self.first = None;
        self.rest = VecDeque::new();
    }

    /// Gives back what the queue's memory is, once nothing is in it.
    pub(super) fn shrink(&mut self) {
        if self.rest.is_empty() && self.rest.capacity() > 0 {
            self.rest = VecDeque::new();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        usize::from(self.first.is_some()) + self.rest.len()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.first.iter().chain(&self.rest)
    }
}
