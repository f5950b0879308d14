//! Failures to say who one is, by address, so that nobody can go on guessing (promise 24). Pure: times are numbers of
//! a clock that never goes back, which is the caller's.

use std::net::IpAddr;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::address::network;

/// Failures within [`FAILURES_WINDOW_MS`] after which an address is not heard for [`BLOCK_MS`].
pub const FAILURES_MAX: u32 = 10;
/// How long a failure counts.
pub const FAILURES_WINDOW_MS: u64 = 60_000;
/// How long an address that guesses is not heard.
pub const BLOCK_MS: u64 = 5 * 60_000;
/// Addresses that are remembered; past it the one that failed longest ago is forgotten.
pub const ADDRESSES_MAX: usize = 1_024;

/// The failures of the last minutes, by address.
#[derive(Default, Debug)]
pub struct Failures {
    addresses: HashMap<IpAddr, Record, RandomState>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    count: u32,
    /// The first failure of the window, or the moment of the block.
    since_ms: u64,
}

impl Record {
    fn is_block(self) -> bool {
        self.count >= FAILURES_MAX
    }

    fn end_ms(self) -> u64 {
        self.since_ms
            + if self.is_block() {
                BLOCK_MS
            } else {
                FAILURES_WINDOW_MS
            }
    }
}

impl Failures {
    /// How long this address is still not heard, if it is not.
    pub fn blocked_ms(&self, address: IpAddr, now_ms: u64) -> Option<u64> {
        let record = self.addresses.get(&network(address))?;
        let rest_ms = record.end_ms().saturating_sub(now_ms);
        (record.is_block() && rest_ms > 0).then_some(rest_ms)
    }

    /// Counts a failure; true if it is the one that has the address not heard any more.
    pub fn add(&mut self, address: IpAddr, now_ms: u64) -> bool {
        let address = network(address);
        if self.addresses.len() >= ADDRESSES_MAX && !self.addresses.contains_key(&address) {
            self.addresses.retain(|_, record| record.end_ms() > now_ms);
            let records = self.addresses.iter();
            let oldest = records.min_by_key(|(address, record)| (record.since_ms, **address));
            if let Some((&oldest, _)) = oldest.filter(|_| self.addresses.len() >= ADDRESSES_MAX) {
                self.addresses.remove(&oldest);
            }
        }
        let fresh = Record {
            count: 0,
            since_ms: now_ms,
        };
        let record = self.addresses.entry(address).or_insert(fresh);
        if record.end_ms() <= now_ms {
            *record = fresh;
        }
        record.count = record.count.saturating_add(1);
        let is_last = record.count == FAILURES_MAX;
        if is_last {
            record.since_ms = now_ms;
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn ten_within_a_minute_block_for_five() {
        let guesser: IpAddr = "192.0.2.1".parse().unwrap();
        let mut failures = Failures::default();
        for second in 0..9 {
            assert!(!failures.add(guesser, 1_000 * second));
        }
        assert_eq!(failures.blocked_ms(guesser, 9_000), None);
        assert!(failures.add(guesser, 10_000), "the tenth");
        assert_eq!(failures.blocked_ms(guesser, 10_000), Some(BLOCK_MS));
        assert_eq!(failures.blocked_ms(guesser, 309_000), Some(1_000));
        // One that was under way does not make it longer.
        assert!(!failures.add(guesser, 20_000));
        assert_eq!(failures.blocked_ms(guesser, 310_000), None);
        let neighbour = "192.0.2.2".parse().unwrap();
        assert_eq!(failures.blocked_ms(neighbour, 10_000), None);
        assert!(!failures.add(guesser, 311_000));
        assert_eq!(
            failures.blocked_ms(guesser, 311_000),
            None,
            "the count is anew"
        );
    }

    #[test]
    fn slow_failures_do_not_add_up() {
        let mut failures = Failures::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        for minute in 0..30 {
            let now_ms = 60_000 * minute;
            failures.add(address, now_ms);
            assert_eq!(failures.blocked_ms(address, now_ms), None);
        }
    }

    #[test]
    fn a_whole_v6_network_is_one_and_the_table_is_bounded() {
        let mut failures = Failures::default();
        for host in 0..FAILURES_MAX {
            failures.add(format!("2001:db8::{host:x}").parse().unwrap(), 0);
        }
        let host = "2001:db8::ffff".parse().unwrap();
        assert!(failures.blocked_ms(host, 0).is_some());
        for index in 0..2 * ADDRESSES_MAX as u32 {
            failures.add(IpAddr::V4(Ipv4Addr::from_bits(index)), 0);
        }
        assert_eq!(failures.addresses.len(), ADDRESSES_MAX);
    }
}
