//! The clock of a shard's deadlines: the machine's, less the time in which the shard's thread did not run.
//!
//! A process that was stopped, a virtual machine that was paused, a thread that got no CPU: afterwards the machine's
//! clock has jumped past every deadline at once, though no client was late; what they sent meanwhile waits unread.
//! So a turn that begins much later than the loop asked to be woken counts as if it had begun then
//! (promise 27: timeouts count the server's own turns, not just the clock).
//!
//! Invariant: it never goes back, and between two turns it advances by at most the wait asked for and
//! `STALL_MS`.

use std::time::Duration;

use crate::shard::Now;

/// What a turn may be late by before it counts as a stall: more than any honest turn takes, less than any timeout
/// that an operator would set.
const STALL_MS: u64 = 500;

/// The clock of one event loop.
#[derive(Default, Debug)]
pub struct ShardClock {
    /// When the last turn began, by the machine.
    turn_ms: u64,
    /// All stalls so far.
    stalled_ms: u64,
}

impl ShardClock {
    /// A clock that was right at a moment of the driver's.
    pub fn starting(driver: Now) -> ShardClock {
        ShardClock {
            turn_ms: driver.ms,
            stalled_ms: 0,
        }
    }

    /// The shard's time at a moment of the driver's.
    pub fn at(&self, driver: Now) -> Now {
        Now {
            ms: driver.ms.saturating_sub(self.stalled_ms),
            unix_ms: driver.unix_ms,
        }
    }

    /// A turn begins, after a wait of at most `wait` (`None`: for ever, since nothing had a deadline).
    pub fn turn(&mut self, driver: Now, wait: Option<Duration>) -> Now {
        if let Some(wait) = wait {
            // A wait is rounded up to whole milliseconds by the kernel, too.
            let asked = u64::try_from(wait.as_millis()).map_or(u64::MAX, |ms| ms.saturating_add(1));
            let late_ms = (driver.ms - self.turn_ms).saturating_sub(asked);
            if late_ms > STALL_MS {
                self.stalled_ms += late_ms;
            }
        }
        self.turn_ms = driver.ms;
        self.at(driver)
    }

    /// All stalls so far, in milliseconds.
    pub fn stalled_ms(&self) -> u64 {
        self.stalled_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_taken_off_and_waits_are_not() {
        let mut clock = ShardClock::default();
        let mut check = |at_ms: u64, wait_ms: Option<u64>, expected: u64| {
            let now = Now {
                ms: at_ms,
                unix_ms: 7 + at_ms,
            };
            let turn = clock.turn(now, wait_ms.map(Duration::from_millis));
            assert_eq!((turn.ms, turn.unix_ms), (expected, 7 + at_ms), "at {at_ms}");
            assert_eq!(clock.at(now), turn);
        };
        check(100, Some(100), 100);
        // Nobody had a deadline.
        check(1_000_000, None, 1_000_000);
        check(1_020_000, Some(25_000), 1_020_000);
        check(1_045_000, Some(25_000), 1_045_000);
        // Late, as a busy machine is.
        check(1_045_500, Some(0), 1_045_500);
        // Stopped for 2.5 s at work, then in a wait of a second.
        check(1_048_000, Some(0), 1_045_501);
        check(1_051_500, Some(1_000), 1_046_502);
        check(1_052_000, Some(1_000), 1_047_002);
    }
}
