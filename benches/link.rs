//! A Link: what a call costs the thread that makes it, and how long a message takes to a shard and back.
//!
//! *Calls* are on one thread, so that they show instructions. *Publish* and *there and back* are two threads on a CPU
//! each, the shard on the first and the host on the last; the Links speak RESP, since the way is what is measured. Beside
//! the message there and back is the floor: two threads on the same CPUs that wake each other by eventfds and do
//! nothing else. A host sleeps in `poll` as one with an event loop would, so its wait and its reading of the
//! descriptor are two system calls more than the floor's. Percentiles of both follow at the end.

use std::hint::black_box;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use core_affinity::CoreId;
use criterion::{Criterion, Throughput, criterion_group};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};

use pubsub::broker::Broker;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::net::links::{CallError, HostEnd, Item, pair};
use pubsub::shard::settings::Settings;
use pubsub::topic::Topic;

const PAYLOAD: usize = 100;
/// Publications on their way in a sample of throughput.
const WINDOW: u64 = 256;
/// Messages there and back for the percentiles.
const TRIPS: usize = 50_000;
const TRIPS_OF_TEST: usize = 100;

fn calls(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("link/calls");
    let frame = [7; PAYLOAD];
    group.throughput(Throughput::Elements(1));
    let (host, mut far) = pair().expect("descriptors");
    let mut taken = Vec::new();
    // The other end is awake, as it is under load.
    let mut number = 0_u32;
    group.bench_function("call", |bencher| {
        bencher.iter(|| {
            host.call(|calls| calls.extend_from_slice(black_box(&frame)))
                .expect("there is room");
            number += 1;
            if number.is_multiple_of(1024) {
                taken.clear();
                far.take(&mut taken);
            }
        });
    });
    let bytes = Bytes::from_static(&[7; PAYLOAD]);
    group.bench_function("item", |bencher| {
        bencher.iter(|| {
            far.give(Item::Bytes(bytes.clone())).expect("there is room");
            host.next()
        });
    });
    group.finish();
}

/// A broker of one shard, pinned to the first CPU, whose Links speak RESP.
fn start(io: Io) -> Broker {
    let address = ListenAddr::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let config = Config {
        listeners: vec![Listener::new(address)],
        admin: None,
        cores: Some(vec![cpus().0.id]),
        io,
        ..Config::default()
    };
    let speak_resp = |settings: &mut Settings| {
        let links = settings.listeners.iter_mut();
        for listener in links.filter(|listener| listener.in_process) {
            (listener.peers, listener.resp) = (false, true);
        }
    };
    Broker::start_prepared(&config, speak_resp).expect("a broker starts")
}

/// Where the shard runs, and the host.
fn cpus() -> (CoreId, CoreId) {
    let cpus = core_affinity::get_core_ids().expect("there are CPUs");
    (cpus[0], cpus[cpus.len() - 1])
}

fn publish(channel: &str) -> String {
    let (size, payload) = (channel.len(), "x".repeat(PAYLOAD));
    format!("*3\r\n$7\r\nPUBLISH\r\n${size}\r\n{channel}\r\n${PAYLOAD}\r\n{payload}\r\n")
}

/// The host's end of a Link that subscribes.
struct Reader {
    end: HostEnd,
    /// Of one message.
    size: usize,
    /// Bytes that came of the next one.
    part: usize,
}

impl Reader {
    fn subscribed(broker: &Broker, channel: &str) -> Reader {
        let payload = "x".repeat(PAYLOAD);
        let size = channel.len();
        let message =
            format!("*3\r\n$7\r\nmessage\r\n${size}\r\n{channel}\r\n${PAYLOAD}\r\n{payload}\r\n");
        let command = format!("*2\r\n$9\r\nSUBSCRIBE\r\n${size}\r\n{channel}\r\n");
        let answer = format!("*3\r\n$9\r\nsubscribe\r\n${size}\r\n{channel}\r\n:1\r\n");
        let mut reader = Reader {
            end: broker.open_link().expect("a Link opens"),
            size: answer.len(),
            part: 0,
        };
        call(&reader.end, command.as_bytes());
        assert_eq!(reader.wait(), 1);
        reader.size = message.len();
        reader
    }

    /// Messages that are there.
    fn take(&mut self) -> u64 {
        while let Some(item) = self.end.next() {
            if let Item::Bytes(bytes) = item {
                self.part += bytes.len();
            }
        }
        let count = self.part / self.size;
        self.part %= self.size;
        count as u64
    }

    /// Messages that are there, or come next.
    fn wait(&mut self) -> u64 {
        loop {
            match self.take() {
                0 => sleep(&self.end),
                count => return count,
            }
        }
    }
}

fn sleep(end: &HostEnd) {
    end.settle();
    let mut fds = [PollFd::from_borrowed_fd(end.fd(), PollFlags::IN)];
    poll(&mut fds, None).expect("a descriptor can be polled");
}

fn call(end: &HostEnd, command: &[u8]) {
    while let Err(error) = end.call(|calls| calls.extend_from_slice(command)) {
        assert_eq!(error, CallError::Full);
        thread::yield_now();
    }
}

/// Takes what the broker answers to a publisher.
fn discard(end: &HostEnd) {
    while end.next().is_some() {}
}

fn publishes(criterion: &mut Criterion) {
    core_affinity::set_for_current(cpus().1);
    let mut group = criterion.benchmark_group("link/publish");
    group.throughput(Throughput::Elements(1));
    let broker = start(Io::Auto);
    let mut reader = Reader::subscribed(&broker, "heard");
    let publisher = broker.open_link().expect("a Link opens");

    let board = broker.board().expect("every broker has one");
    let name = Bytes::from_static(b"unheard");
    group.bench_function("to nobody, the board says no", |bencher| {
        bencher.iter(|| {
            let topic = Topic::dotted(black_box(&name).clone()).expect("it is a topic");
            assert!(!board.may_match(&topic));
        });
    });
    for (what, channel) in [
        ("to nobody, by way of the shard", "unheard"),
        ("to a Link", "heard"),
    ] {
        let command = publish(channel);
        group.bench_function(what, |bencher| {
            bencher.iter_custom(|count| {
                let mut under_way = 0;
                let begun = Instant::now();
                for _ in 0..count {
                    call(&publisher, command.as_bytes());
                    under_way += 1;
                    if channel == "heard" && under_way >= WINDOW {
                        under_way -= reader.wait();
                    }
                    discard(&publisher);
                }
                while channel == "heard" && under_way > 0 {
                    under_way -= reader.wait();
                }
                begun.elapsed()
            });
        });
    }
    group.finish();
    broker.stop();
}

/// One message from a Link to the shard and back to another one.
struct Trip {
    broker: Broker,
    reader: Reader,
    publisher: HostEnd,
    command: String,
}

impl Trip {
    fn new(io: Io) -> Trip {
        let broker = start(io);
        Trip {
            reader: Reader::subscribed(&broker, "there"),
            publisher: broker.open_link().expect("a Link opens"),
            command: publish("there"),
            broker,
        }
    }

    fn go(&mut self) {
        call(&self.publisher, self.command.as_bytes());
        assert_eq!(self.reader.wait(), 1);
        discard(&self.publisher);
    }
}

/// Two threads that wake each other by eventfds: there and back once a call.
fn with_floor<R>(measure: impl FnOnce(&mut dyn FnMut()) -> R) -> R {
    let fd = || eventfd(0, EventfdFlags::CLOEXEC).expect("a descriptor");
    let (there, back) = (fd(), fd());
    let (there, back) = (&there, &back);
    let wake = |fd| rustix::io::write(fd, &1_u64.to_ne_bytes()).expect("it is never full");
    let wait = |fd| {
        let mut value = [0; 8];
        rustix::io::read(fd, &mut value).expect("it blocks");
        u64::from_ne_bytes(value)
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(cpus().0);
            // More than one wake: it is over.
            while wait(there) == 1 {
                wake(back);
            }
        });
        let measured = measure(&mut || {
            wake(there);
            wait(back);
        });
        let over = 2_u64.to_ne_bytes();
        rustix::io::write(there, &over).expect("it is never full");
        measured
    })
}

const DRIVERS: [(&str, Io); 2] = [
    ("io_uring, if there is one", Io::Auto),
    ("epoll", Io::Epoll),
];

fn trips(criterion: &mut Criterion) {
    core_affinity::set_for_current(cpus().1);
    let mut group = criterion.benchmark_group("link/there and back");
    for (driver, io) in DRIVERS {
        let mut trip = Trip::new(io);
        group.bench_function(driver, |bencher| bencher.iter(|| trip.go()));
        trip.broker.stop();
    }
    with_floor(|go| group.bench_function("floor: eventfds", |bencher| bencher.iter(&mut *go)));
    group.finish();
}

/// Half, nine of ten, 99 of 100 and so on took no longer than this.
fn percentiles(what: &str, count: usize, go: &mut dyn FnMut()) {
    let mut times: Vec<Duration> = (0..count)
        .map(|_| {
            let begun = Instant::now();
            go();
            begun.elapsed()
        })
        .collect();
    times.sort_unstable();
    let at = |part: f64| times[((count - 1) as f64 * part) as usize].as_nanos() as f64 / 1e3;
    println!(
        "{what:28} p50 {:7.2} us   p90 {:7.2} us   p99 {:7.2} us   p99.9 {:7.2} us",
        at(0.5),
        at(0.9),
        at(0.99),
        at(0.999)
    );
}

criterion_group!(benches, calls, publishes, trips);

fn main() {
    benches();
    let is_test = std::env::args().any(|argument| argument == "--test");
    let is_bench = std::env::args().any(|argument| argument == "--bench");
    let count = if is_test || !is_bench {
        TRIPS_OF_TEST
    } else {
        TRIPS
    };
    println!("\nthere and back, {count} times, one at a time");
    for (driver, io) in DRIVERS {
        let mut trip = Trip::new(io);
        percentiles(driver, count, &mut || trip.go());
        trip.broker.stop();
    }
    with_floor(|go| percentiles("floor: eventfds", count, go));
}
