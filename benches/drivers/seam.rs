//! Our two drivers behind their seam, `net::Driver`, without a shard: the same turn as that of the loops beside them.
//!
//! The difference to the raw ring and to the raw epoll loop is what a driver costs for being one: slots and generations,
//! bounds of a turn, everything that may go wrong.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::time::Duration;

use pubsub::address::{SessionId, ShardId};
use pubsub::limits::Limits;
use pubsub::net::clock::Clock;
use pubsub::net::epoll::Epoll;
use pubsub::net::listener::{self, Bound, Listening};
use pubsub::net::uring::features::Features;
use pubsub::net::uring::{UringDriver, Wanted};
use pubsub::net::waker::Waker;
use pubsub::net::{Driver, Sending, Taken};

use crate::gate::Gate;
use crate::scenario::Scenario;
use crate::turn::Turn;

/// A listener as the broker makes it.
///
/// # Panics
/// If there is no port or descriptor left.
pub fn listen() -> (SocketAddr, Vec<Listening>) {
    match listener::bind_tcp(0, "127.0.0.1", 0, 1) {
        Ok((Bound::Tcp(address), listening)) => (address, listening),
        other => panic!("can't listen: {other:?}"),
    }
}

/// Serves by the io_uring driver until all clients are gone.
pub fn serve_by_uring(listening: Vec<Listening>, scenario: Scenario, gate: Gate) {
    let wanted = Wanted {
        features: Features::ALL,
        slots_max: scenario.connections() + 1,
        turn_bytes_max: Limits::default().turn_bytes_max,
        addresses_first: false,
        has_host: false,
        coalesce: Duration::ZERO,
    };
    let rings = Arc::new([AtomicI32::new(-1)]);
    let clock = Clock::start();
    let driver = UringDriver::start(ShardId(0), &wanted, wakers(), rings, listening, clock);
    serve(
        driver.expect("there was a ring a moment ago"),
        scenario,
        gate,
    );
}

/// Serves by the epoll driver until all clients are gone.
pub fn serve_by_epoll(listening: Vec<Listening>, scenario: Scenario, gate: Gate) {
    let turn_bytes_max = Limits::default().turn_bytes_max;
    let clock = Clock::start();
    let driver = Epoll::new(ShardId(0), wakers(), listening, turn_bytes_max, clock);
    serve(driver.expect("there is an epoll"), scenario, gate);
}

fn wakers() -> Arc<[Waker]> {
    Arc::new([Waker::new().expect("there is a descriptor")])
}

/// Who is who.
#[derive(Default)]
struct Sessions {
    /// By number of the connection, in the order in which they were accepted.
    accepted: Vec<SessionId>,
    /// By slot.
    numbers: Vec<usize>,
    ended: usize,
}

impl Sessions {
    fn accept(&mut self, session: SessionId) {
        let slot = session.slot as usize;
        self.numbers.resize(self.numbers.len().max(slot + 1), 0);
        self.numbers[slot] = self.accepted.len();
        self.accepted.push(session);
    }

    fn number(&self, session: SessionId) -> usize {
        self.numbers[session.slot as usize]
    }
}

fn serve<D: Driver>(mut driver: D, scenario: Scenario, gate: Gate) {
    let mut turn = Turn::new(scenario, gate);
    let mut sessions = Sessions::default();
    let mut taken = Vec::new();
    while sessions.ended < scenario.connections() {
        driver.take(None, &mut taken).expect("the driver works");
        for taken in taken.drain(..) {
            match taken {
                Taken::Accepted { session, .. } => sessions.accept(session),
                Taken::Received { session, buffer } => {
                    turn.receive(sessions.number(session), driver.bytes(buffer));
                }
                Taken::Sent { session } => turn.sent(sessions.number(session)),
                Taken::Ended { session, .. } => {
                    sessions.ended += 1;
                    driver.close(session, false);
                }
                Taken::Detached { .. } | Taken::Released { .. } | Taken::Adopted { .. } => {
                    unreachable!("nobody is let go")
                }
            }
        }
        for to in turn.end() {
            let Some(bytes) = turn.next_send(to) else {
                continue;
            };
            match driver.send(sessions.accepted[to], [bytes].into_iter().collect()) {
                Sending::Done => turn.sent(to),
                // A failed one is over as well, but its number says nothing more.
                Sending::Pending | Sending::Failed => {}
            }
        }
        driver.submit().expect("the driver works");
    }
}
