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
    #[allow(
        clippy::box_collection,
        reason = "a session that has none pays one word"
    )]
    rest: Option<Box<VecDeque<Part>>>,
}

impl Parts {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    pub(super) fn push_back(&mut self, part: Part) {
        match self.first {
            None => self.first = Some(part),
            Some(_) => self.rest.get_or_insert_default().push_back(part),
        }
    }

    pub(super) fn push_front(&mut self, part: Part) {
        if let Some(second) = self.first.replace(part) {
            self.rest.get_or_insert_default().push_front(second);
        }
    }

    pub(super) fn pop_front(&mut self) -> Option<Part> {
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front());
        std::mem::replace(&mut self.first, next)
    }

    pub(super) fn back_mut(&mut self) -> Option<&mut Part> {
        let last = self.rest.as_mut().and_then(|rest| rest.back_mut());
        last.or(self.first.as_mut())
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Part> {
        let rest = self.rest.iter_mut().flat_map(|rest| rest.iter_mut());
        self.first.iter_mut().chain(rest)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Part) -> bool) {
        let is_first_kept = self.first.as_ref().is_none_or(&mut keep);
        if let Some(rest) = &mut self.rest {
            rest.retain(keep);
        }
        if !is_first_kept {
            self.pop_front();
        }
    }

    pub(super) fn clear(&mut self) {
        *self = Parts::default();
    }

    /// Gives back the queue's memory, once nothing is in it.
    pub(super) fn shrink(&mut self) {
        if self.rest.as_ref().is_some_and(|rest| rest.is_empty()) {
            self.rest = None;
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.iter().count()
    }

    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &Part> {
        self.first
            .iter()
            .chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }
}
