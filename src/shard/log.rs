//! The turn's logs: where deliveries are encoded once, for every subscriber of a group.
//!
//! A group (one filter, one encoding) appends to a log of its own, so what one subscriber of it gets in a turn is
//! one contiguous range, the cheapest thing to send. A log is at most [`LOG_SEGMENT_BYTES_MAX`] long (one
//! larger frame has a log to itself), because the slowest reader of any byte of it keeps all of it.
//! Logs grow while the turn routes, and are frozen when the first range of them is read; a turn later they
//! are forgotten here and live as long as the sends that refer to them.

use bytes::Bytes;

use crate::limits::LOG_SEGMENT_BYTES_MAX;

/// A range of bytes of one of this turn's logs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogRange {
    log: u32,
    start: u32,
    end: u32,
}

impl LogRange {
    /// Adds a range that follows directly; false if it does not.
    pub fn extend(&mut self, next: LogRange) -> bool {
        let touches = self.log == next.log && self.end == next.start;
        if touches {
            self.end = next.end;
        }
        touches
    }

    /// What of it comes after `end`, an end that it had earlier.
    pub fn after(self, end: u32) -> LogRange {
        debug_assert!((self.start..=self.end).contains(&end));
        LogRange { start: end, ..self }
    }

    /// Where it ends in its log.
    pub fn end(self) -> u32 {
        self.end
    }

    /// In bytes.
    pub fn size(self) -> usize {
        (self.end - self.start) as usize
    }
}

#[derive(Debug)]
enum Log {
    Growing(Vec<u8>),
    Frozen(Bytes),
}

/// The logs of one turn.
#[derive(Debug, Default)]
pub struct TurnLogs {
    logs: Vec<Log>,
    /// Rises by one each turn, so that a group knows whether its log is of this one.
    turn: u64,
}

/// The log that a group appends to, remembered by the group.
#[derive(Clone, Copy, Default, Debug)]
pub struct OpenLog {
    turn: u64,
    log: u32,
}

impl TurnLogs {
    /// Forgets the logs of the last turn.
    pub fn next_turn(&mut self) {
        self.logs.clear();
        self.turn += 1;
    }

    /// Appends what `write` writes, about `size` bytes, to the group's log.
    pub fn append(
        &mut self,
        open: &mut OpenLog,
        size: usize,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> LogRange {
        let fits = open.turn == self.turn
            && match self.logs.get(open.log as usize) {
                Some(Log::Growing(bytes)) => bytes.len() + size <= LOG_SEGMENT_BYTES_MAX,
                Some(Log::Frozen(_)) | None => false,
            };
        if !fits {
            *open = OpenLog {
                turn: self.turn,
                log: self.logs.len() as u32,
            };
            self.logs.push(Log::Growing(Vec::with_capacity(size)));
        }
        let Log::Growing(bytes) = &mut self.logs[open.log as usize] else {
            unreachable!("the open log was just found or made growing")
        };
        let start = bytes.len() as u32;
        write(bytes);
        LogRange {
            log: open.log,
            start,
            end: bytes.len() as u32,
        }
    }

    /// A range, shared: no bytes are copied.
    pub fn slice(&mut self, range: LogRange) -> Bytes {
        let log = &mut self.logs[range.log as usize];
        if let Log::Growing(bytes) = log {
            *log = Log::Frozen(Bytes::from(std::mem::take(bytes)));
        }
        match log {
            Log::Frozen(bytes) => bytes.slice(range.start as usize..range.end as usize),
            Log::Growing(_) => unreachable!("frozen above"),
        }
    }

    /// A copy of a range: for a reader who must not keep the rest of the log alive.
    pub fn copy(&self, range: LogRange) -> Bytes {
        let bytes: &[u8] = match &self.logs[range.log as usize] {
            Log::Growing(bytes) => bytes,
            Log::Frozen(bytes) => bytes,
        };
        Bytes::copy_from_slice(&bytes[range.start as usize..range.end as usize])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_group_s_frames_touch_and_segments_are_bounded() {
        let mut logs = TurnLogs::default();
        logs.next_turn();
        let (mut one, mut two) = (OpenLog::default(), OpenLog::default());
        let mut range = logs.append(&mut one, 2, |out| out.extend_from_slice(b"ab"));
        let other = logs.append(&mut two, 2, |out| out.extend_from_slice(b"xy"));
        let more = logs.append(&mut one, 2, |out| out.extend_from_slice(b"cd"));
        assert!(!range.extend(other));
        assert!(range.extend(more));
        assert_eq!(logs.copy(more), "cd");
        assert_eq!(logs.slice(range), "abcd");
        let big = logs.append(&mut two, LOG_SEGMENT_BYTES_MAX, |out| {
            out.resize(out.len() + LOG_SEGMENT_BYTES_MAX, 7)
        });
        assert_ne!(big.log, other.log);
        assert_eq!(big.size(), LOG_SEGMENT_BYTES_MAX);
        let after = logs.append(&mut one, 1, |out| out.push(b'e'));
        assert_ne!(after.log, range.log, "a frozen log grows no more");
        logs.next_turn();
        let next = logs.append(&mut one, 1, |out| out.push(b'f'));
        assert_eq!(logs.slice(next), "f");
    }

    proptest! {
        /// The twin keeps every range's bytes by themselves.
        #[test]
        fn a_range_is_what_was_written(
            steps in proptest::collection::vec((0..3_usize, 0..9_000_usize, 0..8_u8), 1..60),
        ) {
            let mut logs = TurnLogs::default();
            logs.next_turn();
            let mut open = [OpenLog::default(); 3];
            let mut twin: Vec<(LogRange, Vec<u8>)> = Vec::new();
            for (number, (group, size, what)) in steps.into_iter().enumerate() {
                let bytes = vec![number as u8; size];
                let range = logs.append(&mut open[group], size, |out| out.extend_from_slice(&bytes));
                prop_assert_eq!(range.size(), size);
                prop_assert!(range.end as usize <= LOG_SEGMENT_BYTES_MAX);
                twin.push((range, bytes));
                if what == 0 {
                    let (range, bytes) = &twin[number % twin.len()];
                    prop_assert!(logs.slice(*range) == bytes);
                }
                for (range, bytes) in &twin {
                    prop_assert!(logs.copy(*range) == bytes);
                }
                if what == 1 {
                    logs.next_turn();
                    twin.clear();
                }
            }
        }
    }
}
