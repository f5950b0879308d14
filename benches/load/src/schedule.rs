//! The open loop: when each publication is due, whatever happened to those before it.
//!
//! A generator that waits for an answer before it sends the next one stops asking just when the broker is slow, and
//! so its percentiles leave out what users would have met ("coordinated omission", Gil Tene). Here publication `k` is
//! due at `start + k / rate`. If it goes out late, for whatever reason, it still carries the moment it was due, and
//! latency counts from there.

const NS: u128 = 1_000_000_000;

/// Moments in nanoseconds of the run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Schedule {
    start_ns: u64,
    deliveries_per_second: u64,
    deliveries_each: u64,
}

impl Schedule {
    /// So many deliveries a second, where each publication makes `deliveries_each`, from `start_ns` on.
    pub fn new(start_ns: u64, deliveries_per_second: u64, deliveries_each: u64) -> Schedule {
        assert!(deliveries_per_second > 0 && deliveries_each > 0);
        Schedule {
            start_ns,
            deliveries_per_second,
            deliveries_each,
        }
    }

    /// When publication `k` of all publishers is due. In whole numbers, so that hours do not drift.
    pub fn due_ns(&self, k: u64) -> u64 {
        let after = u128::from(k) * u128::from(self.deliveries_each) * NS
            / u128::from(self.deliveries_per_second);
        self.start_ns.saturating_add(after as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publications_are_evenly_spaced() {
        let check = |rate, each, k, expected: u64| {
            assert_eq!(Schedule::new(500, rate, each).due_ns(k), 500 + expected);
        };
        check(1000, 1, 0, 0);
        check(1000, 1, 1, 1_000_000);
        check(1000, 10, 1, 10_000_000); // ten deliveries each: a tenth of the publications
        check(50_000, 100, 3, 6_000_000);
        check(3, 1, 1, 333_333_333);
        check(3, 1, 2, 666_666_666);
        check(3, 1, 3, 1_000_000_000); // thirds do not add up to less than a second
        check(1, 1, 7, 7_000_000_000);
    }

    #[test]
    fn a_day_does_not_drift() {
        let schedule = Schedule::new(0, 700_000, 7);
        let day = 86_400;
        assert_eq!(schedule.due_ns(day * 100_000), day * 1_000_000_000);
    }

    #[test]
    fn lateness_of_one_does_not_move_the_next() {
        // What a stalled broker would have hidden: 1 s of silence at 1 000/s is 1 000 late ones, not one.
        let schedule = Schedule::new(0, 1000, 1);
        let resumed_ns = 1_000_000_000;
        let mut late: Vec<u64> = (0..1000).map(|k| resumed_ns - schedule.due_ns(k)).collect();
        late.sort_unstable();
        assert_eq!((late[0], late[999]), (1_000_000, 1_000_000_000));
        assert_eq!(
            late[500], 501_000_000,
            "the median of that second is half of it"
        );
    }
}
