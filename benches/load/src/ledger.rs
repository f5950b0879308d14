//! The ledger: what each subscriber has heard of each lane, and what was wrong with it.
//!
//! A lane's publications are numbered from 0, and a subscriber that was there from the beginning hears each once, in
//! order. So one number per subscriber and lane, the next one due, tells everything as long as all goes well. When a
//! number is skipped, the skipped ones are remembered as missing: should one come late it was not lost but out of
//! order, and what comes without being due or missing is a double.
//!
//! Invariant: per subscriber and lane `heard + missing = next`, where `heard` counts each number once.

use std::collections::HashMap;
use std::ops::Range;

/// Runs of missing numbers that are remembered per subscriber and lane. Past it the oldest is forgotten: it stays
/// counted as lost, and if it comes after all it counts as a double. Wrong is wrong either way.
const MISSING_RUNS_MAX: usize = 1024;

/// What is known of all subscribers of a worker.
pub struct Ledger {
    lanes_each: usize,
    /// The next number due, by subscriber, then lane.
    next: Vec<u32>,
    /// Empty as long as nothing is wrong.
    missing: HashMap<usize, Vec<Range<u32>>>,
    /// The sums.
    pub faults: Faults,
}

/// What was wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Never heard.
    pub lost: u64,
    /// Heard again.
    pub doubled: u64,
    /// Heard after a later one.
    pub inverted: u64,
    /// Of a lane that this subscriber does not listen to, never published, or without a readable stamp.
    pub stray: u64,
}

impl Faults {
    /// Adds those of another.
    pub fn add(&mut self, other: Faults) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.inverted += other.inverted;
        self.stray += other.stray;
    }
}

/// What a delivery means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Heard {
    /// It was due. The number of those before it that are skipped, and now missing.
    New {
        /// 0 if all goes well.
        skipped: u32,
    },
    /// It was missing: out of order.
    Late,
    /// It was heard before.
    Again,
}

impl Ledger {
    /// For so many subscribers, each of which listens to so many lanes.
    pub fn new(subscribers: usize, lanes_each: usize) -> Ledger {
        Ledger {
            lanes_each,
            next: vec![0; subscribers * lanes_each],
            missing: HashMap::new(),
            faults: Faults::default(),
        }
    }

    /// The next number due.
    pub fn next(&self, subscriber: usize, lane: usize) -> u32 {
        self.next[subscriber * self.lanes_each + lane]
    }

    /// A subscriber heard number `sequence` of a lane.
    #[inline]
    pub fn hear(&mut self, subscriber: usize, lane: usize, sequence: u32) -> Heard {
        let index = subscriber * self.lanes_each + lane;
        let next = &mut self.next[index];
        if sequence == *next {
            *next = sequence.wrapping_add(1);
            return Heard::New { skipped: 0 };
        }
        self.hear_unexpected(index, sequence)
    }

    #[cold]
    fn hear_unexpected(&mut self, index: usize, sequence: u32) -> Heard {
        let next = self.next[index];
        if sequence > next {
            self.next[index] = sequence.wrapping_add(1);
            let runs = self.missing.entry(index).or_default();
            if runs.len() == MISSING_RUNS_MAX {
                runs.remove(0);
            }
            runs.push(next..sequence);
            let skipped = sequence - next;
            self.faults.lost += u64::from(skipped);
            return Heard::New { skipped };
        }
        let Some(runs) = self.missing.get_mut(&index) else {
            self.faults.doubled += 1;
            return Heard::Again;
        };
        let Some(at) = runs.iter().position(|run| run.contains(&sequence)) else {
            self.faults.doubled += 1;
            return Heard::Again;
        };
        let run = runs.remove(at);
        let rest = [run.start..sequence, sequence + 1..run.end];
        runs.splice(at..at, rest.into_iter().filter(|run| !run.is_empty()));
        self.faults.lost -= 1;
        self.faults.inverted += 1;
        Heard::Late
    }

    /// At the end: `sent` were published on this lane. What was due and did not come is lost.
    pub fn close(&mut self, subscriber: usize, lane: usize, sent: u32) {
        let next = self.next(subscriber, lane);
        self.faults.lost += u64::from(sent.saturating_sub(next));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The plain version: all that was heard.
    fn naive(heard: &[u32], sent: u32) -> Faults {
        let (mut seen, mut highest) = (BTreeSet::new(), None);
        let mut faults = Faults::default();
        for &sequence in heard {
            if !seen.insert(sequence) {
                faults.doubled += 1;
            } else if highest.is_some_and(|highest| sequence < highest) {
                faults.inverted += 1;
            }
            highest = highest.max(Some(sequence));
        }
        faults.lost = (0..sent)
            .filter(|sequence| !seen.contains(sequence))
            .count() as u64;
        faults
    }

    fn check(heard: &[u32], sent: u32, lost: u64, doubled: u64, inverted: u64) {
        let mut ledger = Ledger::new(3, 2);
        for &sequence in heard {
            ledger.hear(1, 1, sequence);
        }
        ledger.close(1, 1, sent);
        let expected = Faults {
            lost,
            doubled,
            inverted,
            stray: 0,
        };
        assert_eq!(ledger.faults, expected, "{heard:?} of {sent}");
        assert_eq!(naive(heard, sent), expected, "the twin, {heard:?}");
    }

    #[test]
    fn every_fault_is_found() {
        check(&[], 0, 0, 0, 0);
        check(&[0, 1, 2, 3], 4, 0, 0, 0);
        check(&[], 4, 4, 0, 0);
        check(&[0, 1], 4, 2, 0, 0); // the end is missing
        check(&[0, 1, 3], 4, 1, 0, 0); // a loss
        check(&[2, 3], 4, 2, 0, 0); // the beginning
        check(&[0, 1, 1, 2], 3, 0, 1, 0); // a double
        check(&[0, 0, 0], 1, 0, 2, 0);
        check(&[0, 2, 1, 3], 4, 0, 0, 1); // an inversion
        check(&[3, 2, 1, 0], 4, 0, 0, 3);
        check(&[0, 4, 2, 2, 1], 6, 2, 1, 2); // all of them
    }

    #[test]
    fn same_as_the_naive_twin_on_whatever_comes() {
        // A walk that jumps, falls back and repeats, without randomness.
        let mut state = 1u32;
        for _ in 0..300 {
            let heard: Vec<u32> = (0..30)
                .map(|at: u32| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (at + (state >> 29)).saturating_sub(state >> 27 & 3)
                })
                .collect();
            let mut ledger = Ledger::new(1, 1);
            for &sequence in &heard {
                ledger.hear(0, 0, sequence);
            }
            ledger.close(0, 0, 40);
            assert_eq!(ledger.faults, naive(&heard, 40), "{heard:?}");
        }
    }

    #[test]
    fn subscribers_and_lanes_are_apart() {
        let mut ledger = Ledger::new(2, 2);
        let new = Heard::New { skipped: 0 };
        assert_eq!(ledger.hear(0, 0, 0), new);
        assert_eq!(ledger.hear(0, 1, 0), new);
        assert_eq!(ledger.hear(1, 0, 0), new);
        assert_eq!(ledger.hear(1, 0, 2), Heard::New { skipped: 1 });
        assert_eq!(ledger.hear(1, 0, 1), Heard::Late);
        assert_eq!(ledger.hear(1, 0, 1), Heard::Again);
        assert_eq!((ledger.next(0, 0), ledger.next(1, 0)), (1, 3));
        assert_eq!(ledger.next(1, 1), 0);
    }

    #[test]
    fn memory_of_gaps_is_bounded() {
        let mut ledger = Ledger::new(1, 1);
        for sequence in (1..20_001).step_by(2) {
            ledger.hear(0, 0, sequence);
        }
        assert_eq!(ledger.faults.lost, 10_000);
        assert_eq!(ledger.missing[&0].len(), MISSING_RUNS_MAX);
        assert_eq!(ledger.hear(0, 0, 0), Heard::Again, "forgotten");
        assert_eq!(ledger.hear(0, 0, 19_998), Heard::Late, "remembered");
    }
}
