//! Requests that wait for this Link's answer: each may be answered once, and over the connection that it came by.
//!
//! Hosts know them by numbers of the Link's own. The broker's may come a second time, after a reconnect say, and mean
//! something else then.

use std::time::{Duration, Instant};

use hashbrown::HashMap;

use super::RequestId;

/// Requests that wait.
#[derive(Debug)]
pub(super) struct Requests {
    waiting: HashMap<u64, Waiting>,
    last: u64,
    /// At so many, those whose time is over are looked for. A host that never answers costs no more than that.
    swept_at: usize,
}

#[derive(Debug)]
struct Waiting {
    /// The broker's number.
    number: u64,
    over: Instant,
}

const SWEPT_AT_MIN: usize = 1024;
/// An answer may still be in time for the broker, whose clock began later or earlier.
const GRACE: Duration = Duration::from_secs(1);

impl Requests {
    pub fn new() -> Requests {
        Requests {
            waiting: HashMap::new(),
            last: 0,
            swept_at: SWEPT_AT_MIN,
        }
    }

    /// A request has come, with the broker's number.
    pub fn add(&mut self, number: u64, timeout_ms: u32, now: Instant) -> RequestId {
        if self.waiting.len() >= self.swept_at {
            self.waiting.retain(|_, waiting| waiting.over > now);
            self.swept_at = SWEPT_AT_MIN.max(2 * self.waiting.len());
        }
        self.last += 1;
        let over = now + Duration::from_millis(timeout_ms.into()) + GRACE;
        self.waiting.insert(self.last, Waiting { number, over });
        RequestId(self.last)
    }

    /// The broker's number of one that waits.
    pub fn number(&self, request: RequestId) -> Option<u64> {
        self.waiting.get(&request.0).map(|waiting| waiting.number)
    }

    /// It was answered.
    pub fn remove(&mut self, request: RequestId) {
        self.waiting.remove(&request.0);
    }

    /// The connection is gone that they came by.
    pub fn clear(&mut self) {
        self.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once_and_never_in_the_place_of_another() {
        let now = Instant::now();
        let mut requests = Requests::new();
        let first = requests.add(7, 1000, now);
        assert_eq!(requests.number(first), Some(7));
        requests.remove(first);
        assert_eq!(requests.number(first), None);
        let second = requests.add(8, 1000, now);
        requests.clear();
        // Another connection, the same number of the broker's.
        let third = requests.add(8, 1000, now);
        assert_ne!(second, third);
        assert_eq!(requests.number(second), None);
        assert_eq!(requests.number(third), Some(8));
    }

    #[test]
    fn a_host_that_never_answers_costs_what_is_in_time() {
        let now = Instant::now();
        let mut requests = Requests::new();
        for at_ms in 0..100_000u64 {
            requests.add(at_ms, 100, now + Duration::from_millis(at_ms));
        }
        // 1.1 s of them are in time.
        assert!(
            requests.waiting.len() <= 2 * 1100,
            "{}",
            requests.waiting.len()
        );
    }
}
