//! The connections of the whole process: how many there are, and of each address where that is bounded.
//!
//! Two counts that all shards share. That of all connections is one number. That of each address is a table behind a
//! lock, which only those who come and go touch, and only with `--max-per-ip`; so it is exact, whatever shards an
//! address is spread over. A connection's part in it is a [`Seat`], given back when that is dropped: however it ends.

use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::address::network;

/// The connections of the whole process, and how many there may be.
#[derive(Debug)]
pub struct Population {
    count: AtomicUsize,
    connections_max: usize,
    /// 0: any number.
    per_address_max: usize,
    /// Who has any; an IPv6 address counts as its /64.
    addresses: Mutex<HashMap<IpAddr, usize>>,
}

impl Population {
    /// Nobody yet.
    pub fn new(connections_max: usize) -> Population {
        Population {
            count: AtomicUsize::new(0),
            connections_max,
            per_address_max: 0,
            addresses: Mutex::default(),
        }
    }

    /// With at most this many of one address; 0 for any number.
    pub fn per_address(self, per_address_max: usize) -> Population {
        Population {
            per_address_max,
            ..self
        }
    }

    /// Is nobody connected to any shard, or on the way from one to another?
    pub fn is_empty(&self) -> bool {
        self.count.load(Ordering::Acquire) == 0
    }

    /// One more connection, which counts until it has left; false if it is one too many.
    pub fn enter(&self) -> bool {
        self.count.fetch_add(1, Ordering::Relaxed) < self.connections_max
    }

    /// One connection less.
    pub fn leave(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
    }

    /// One more connection of this address, if there may be one more.
    pub fn seat(self: &Arc<Self>, ip: IpAddr) -> Option<Seat> {
        let network = network(ip);
        let mut addresses = self.addresses();
        let count = addresses.entry(network).or_default();
        if self.per_address_max > 0 && *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Seat {
            population: self.clone(),
            network,
        })
    }

    /// Nothing in here can be left half done by a panic.
    fn addresses(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.addresses
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's part in the count of its address.
#[derive(Debug)]
pub struct Seat {
    population: Arc<Population>,
    network: IpAddr,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut addresses = self.population.addresses();
        if let Some(count) = addresses.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                addresses.remove(&self.network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn connections_up_to_the_bound() {
        let population = Population::new(2);
        assert!(population.is_empty());
        assert_eq!([(); 3].map(|()| population.enter()), [true, true, false]);
        // The one too many counts until it has left, too.
        population.leave();
        assert!(!population.enter() && !population.is_empty());
        (0..3).for_each(|_| population.leave());
        assert!(population.is_empty());
    }

    #[test]
    fn each_address_has_its_seats_and_gives_them_back() {
        let population = Arc::new(Population::new(100).per_address(2));
        let mut seats: Vec<Seat> = Vec::new();
        for (address, is_seated) in [
            ("192.0.2.1", true),
            ("::ffff:192.0.2.1", true),
            ("192.0.2.1", false),
            ("192.0.2.2", true),
            ("2001:db8::1", true),
            ("2001:db8::ffff", true),
            ("2001:db8:0:0:1::", false),
            ("2001:db8:0:1::", true),
        ] {
            let seat = population.seat(ip(address));
            assert_eq!(seat.is_some(), is_seated, "{address}");
            seats.extend(seat);
        }
        drop(seats.remove(0));
        let again = population.seat(ip("192.0.2.1"));
        assert!(again.is_some() && population.seat(ip("192.0.2.1")).is_none());
        drop((again, seats));
        assert!(population.addresses().is_empty(), "nothing is left of them");
    }

    #[test]
    fn without_a_bound_everybody_is_seated() {
        let population = Arc::new(Population::new(100));
        let seats: Vec<_> = (0..50).map(|_| population.seat(ip("::1"))).collect();
        assert!(seats.iter().all(Option::is_some));
    }

    #[test]
    fn many_threads_count_exactly() {
        const THREADS: usize = 4;
        let population = Arc::new(Population::new(100).per_address(THREADS / 2));
        let took = |_| {
            let population = population.clone();
            std::thread::spawn(move || {
                let mut most = 0;
                for _ in 0..2_000 {
                    let seat = population.seat(ip("192.0.2.1"));
                    most = most.max(population.addresses()[&ip("192.0.2.1")]);
                    drop(seat);
                }
                most
            })
        };
        // One is held all along, so there is always a count to look at.
        let _held = population.seat(ip("192.0.2.1"));
        let threads: Vec<_> = (0..THREADS).map(took).collect();
        for thread in threads {
            assert!(thread.join().expect("it counts") <= THREADS / 2);
        }
        assert_eq!(population.addresses()[&ip("192.0.2.1")], 1);
    }
}
