//! A request and its reply between two peers of one process, beside the floor: threads that hand a wake-up on by eventfds
//! along the same four ways (asker, shard, answerer, shard, asker) and do nothing else.
//!
//! The shard is on the first CPU, both hosts are on the last, as the floor's threads are. Blocks of trips on io_uring, on
//! epoll and over the floor take turns, so that whatever else the machine does meets all three. The last column is what
//! a trip takes in floors.

use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use core_affinity::CoreId;
use rustix::event::{EventfdFlags, eventfd};

use pubsub::address::Address;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::message::Payload;
use pubsub::{Answer, Broker, Event, Link};

/// Trips of a block, and blocks of each kind.
const TRIPS: usize = 1000;
const BLOCKS: usize = 30;

fn cpus() -> (CoreId, CoreId) {
    let cpus = core_affinity::get_core_ids().unwrap_or_default();
    let at = |cpu: Option<&CoreId>| cpu.copied().unwrap_or(CoreId { id: 0 });
    (at(cpus.first()), at(cpus.last()))
}

/// A broker, one who asks, and one who answers on a thread of its own until the broker stops.
struct Office {
    broker: Broker,
    asker: Link,
    payload: Payload,
    to: Address,
}

impl Office {
    fn start<'scope>(io: Io, scope: &'scope thread::Scope<'scope, '_>) -> Office {
        let address = ListenAddr::Tcp {
            host: "127.0.0.1".to_owned(),
            port: 0,
        };
        let config = Config {
            listeners: vec![Listener::new(address)],
            shards: Some(1),
            cores: Some(vec![cpus().0.id]),
            io,
            ..Config::embedded()
        };
        let broker = Broker::start(&config).expect("a broker starts");
        let asker = Link::open(&broker, "asker").expect("a link opens");
        let answerer = Link::open(&broker, "answerer").expect("a link opens");
        answerer.handle("add", Answer::Wanted).expect("a call");
        assert!(matches!(answerer.next(None), Some(Event::Done { .. })));
        scope.spawn(move || {
            core_affinity::set_for_current(cpus().1);
            let sum = Payload::json(Bytes::from_static(b"9"));
            while let Some(event) = answerer.next(None) {
                if let Event::Request { request, .. } = event {
                    answerer.reply(request, sum.clone()).expect("there is room");
                }
            }
        });
        Office {
            broker,
            asker,
            payload: Payload::json(Bytes::from_static(b"[5,4]")),
            to: Address::Peer(Bytes::from_static(b"answerer")),
        }
    }

    fn go(&self) {
        let asked = self
            .asker
            .request(&self.to, "add", &self.payload, Duration::ZERO);
        let asked = asked.expect("there is room");
        match self.asker.next(None) {
            Some(Event::Done { ticket, .. }) if ticket == asked => {}
            other => panic!("{other:?}"),
        }
    }
}

fn wake(fd: &OwnedFd, value: u64) {
    rustix::io::write(fd, &value.to_ne_bytes()).expect("it is never full");
}

fn wait(fd: &OwnedFd) -> u64 {
    let mut value = [0; 8];
    rustix::io::read(fd, &mut value).expect("it blocks");
    u64::from_ne_bytes(value)
}

/// The four descriptors of the floor, in the order of the way.
type Floor = [OwnedFd; 4];

/// Hands wake-ups on along these ways in turn, until the last of them brings more than one at a time.
fn hand_on(cpu: CoreId, ways: &[(&OwnedFd, &OwnedFd)]) {
    core_affinity::set_for_current(cpu);
    let mut is_over = false;
    while !is_over {
        for (from, to) in ways {
            let value = wait(from);
            wake(to, value);
            is_over = value > 1;
        }
    }
}

fn block(times: &mut Vec<Duration>, trips: usize, go: &mut dyn FnMut()) {
    for _ in 0..trips {
        let begun = Instant::now();
        go();
        times.push(begun.elapsed());
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let is_bench = arguments.iter().any(|argument| argument == "--bench");
    let (trips, blocks) = if is_bench { (TRIPS, BLOCKS) } else { (10, 2) };
    let fd = || eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    let floor: Floor = [fd(), fd(), fd(), fd()];
    let (first, last) = cpus();
    thread::scope(|scope| {
        core_affinity::set_for_current(last);
        let [there, asked, answered, back] = &floor;
        scope.spawn(move || hand_on(first, &[(there, asked), (answered, back)]));
        scope.spawn(move || hand_on(last, &[(asked, answered)]));
        let offices = [Io::Auto, Io::Epoll].map(|io| Office::start(io, scope));
        let mut times: [Vec<Duration>; 3] = Default::default();
        let [uring, epoll, bare] = &mut times;
        for warm_up in 0..=blocks {
            block(uring, trips, &mut || offices[0].go());
            block(epoll, trips, &mut || offices[1].go());
            block(bare, trips, &mut || {
                wake(there, 1);
                wait(back);
            });
            if warm_up == 0 {
                for times in [&mut *uring, &mut *epoll, &mut *bare] {
                    times.clear();
                }
            }
        }
        println!("\na request and its reply, {} times each", bare.len());
        for times in [&mut *uring, epoll, bare] {
            times.sort_unstable();
        }
        let at = |times: &[Duration], part: f64| {
            times[((times.len() - 1) as f64 * part) as usize].as_nanos() as f64 / 1e3
        };
        let drivers = offices
            .each_ref()
            .map(|office| office.broker.driver.clone());
        let driver = |index: usize| drivers[index].split(' ').next().unwrap_or_default();
        for (what, times) in [
            (driver(0), &*uring),
            (driver(1), &*epoll),
            ("floor: eventfds", &*bare),
        ] {
            println!(
                "{what:16} p50 {:7.2} us   p99 {:7.2} us   p99.9 {:8.2} us   p50 {:4.2} x   p99 {:4.2} x",
                at(times, 0.5),
                at(times, 0.99),
                at(times, 0.999),
                at(times, 0.5) / at(bare, 0.5),
                at(times, 0.99) / at(bare, 0.99),
            );
        }
        for office in offices {
            office.broker.stop();
        }
        // More than one wake: it is over.
        wake(there, 2);
        wait(back);
    });
}
