//! Deadlines: a heap of moments, each with what it is about.
//!
//! Nothing is ever taken out of the middle. Whoever set a deadline remembers it; one that fires and is not the
//! remembered one any more is stale and ignored by its owner. So a session costs one entry at rest, and the
//! bytes that keep it alive cost none.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// A heap of deadlines in ms of the broker's clock.
#[derive(Debug)]
pub struct Timers<T: Ord> {
    heap: BinaryHeap<Reverse<(u64, T)>>,
}

impl<T: Ord> Default for Timers<T> {
    fn default() -> Timers<T> {
        Timers {
            heap: BinaryHeap::new(),
        }
    }
}

impl<T: Ord> Timers<T> {
    /// At `at_ms`, think of `what`.
    pub fn set(&mut self, at_ms: u64, what: T) {
        self.heap.push(Reverse((at_ms, what)));
    }

    /// The earliest deadline.
    pub fn next_ms(&self) -> Option<u64> {
        self.heap.peek().map(|Reverse((at_ms, _))| *at_ms)
    }

    /// Takes one deadline that has come.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<(u64, T)> {
        if self.next_ms()? > now_ms {
            return None;
        }
        self.heap.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_come_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        for (at, what) in [(30, 'c'), (10, 'a'), (20, 'b')] {
            timers.set(at, what);
        }
        assert_eq!(timers.next_ms(), Some(10));
        assert_eq!(timers.pop_due(9), None);
        assert_eq!(timers.pop_due(20), Some((10, 'a')));
        assert_eq!(timers.pop_due(20), Some((20, 'b')));
        assert_eq!(timers.pop_due(29), None);
        assert_eq!(timers.pop_due(u64::MAX), Some((30, 'c')));
        assert_eq!(timers.next_ms(), None);
    }
}
