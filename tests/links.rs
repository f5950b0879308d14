//! Links of a broker in this process: sessions whose connections are in memory. They speak RESP here, so that nothing is
//! tried but the way: both drivers, several shards, floods in both directions, ends from either side.

mod common;

use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::DEADLINE;
use pubsub::broker::Broker;
use pubsub::config::{Config, Io, ListenAddr, Listener};
use pubsub::net::control::Control;
use pubsub::net::links::{CallError, HostEnd, Item};
use pubsub::shard::metrics::ShardStats;
use pubsub::shard::settings::Settings;
use pubsub::topic::Topic;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Two shards; the Links of this broker speak RESP.
fn start(io: Io) -> Broker {
    let address = ListenAddr::Tcp {
        host: "127.0.0.1".to_owned(),
        port: 0,
    };
    let config = Config {
        listeners: vec![Listener::new(address)],
        admin: None,
        shards: Some(2),
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

/// Runs on the driver that is found here, and on epoll.
fn with_each_driver(test: impl Fn(Broker)) {
    for io in [Io::Auto, Io::Epoll] {
        test(start(io));
    }
}

/// A host's thread, as it waits on the descriptor.
struct Host {
    end: HostEnd,
    text: Vec<u8>,
}

impl Host {
    fn open(broker: &Broker) -> Host {
        Host {
            end: broker.open_link().expect("a Link opens"),
            text: Vec::new(),
        }
    }

    fn say(&self, command: &str) {
        let deadline = Instant::now() + DEADLINE;
        while let Err(error) = self
            .end
            .call(|calls| calls.extend_from_slice(command.as_bytes()))
        {
            assert_eq!(error, CallError::Full);
            assert!(Instant::now() < deadline, "nobody takes it");
            std::thread::yield_now();
        }
    }

    /// Takes what is there; waits for something if there is nothing, or for the end.
    fn take(&mut self) {
        let before = self.text.len();
        let wait = Timespec::try_from(DEADLINE).expect("it is short");
        loop {
            while let Some(item) = self.end.next() {
                match item {
                    Item::Bytes(bytes) => self.text.extend_from_slice(&bytes),
                    Item::Socket(_) => panic!("no socket was sent"),
                }
            }
            if self.text.len() > before || self.end.is_closed() {
                return;
            }
            self.end.settle();
            let mut fds = [PollFd::from_borrowed_fd(self.end.fd(), PollFlags::IN)];
            let ready = poll(&mut fds, Some(&wait)).expect("a poll");
            assert_eq!(ready, 1, "nothing came; there was {:?}", self.text());
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).into_owned()
    }

    /// Waits for exactly this.
    fn hear(&mut self, expected: &str) {
        while self.text.len() < expected.len() && !self.end.is_closed() {
            self.take();
        }
        assert_eq!(self.text(), expected);
        self.text.clear();
    }
}

const PING: &str = "*1\r\n$4\r\nPING\r\n";

fn publish(channel: &str, text: &str) -> String {
    let (channel_size, size) = (channel.len(), text.len());
    format!("*3\r\n$7\r\nPUBLISH\r\n${channel_size}\r\n{channel}\r\n${size}\r\n{text}\r\n")
}

fn subscribe(host: &mut Host, channel: &str) {
    let size = channel.len();
    host.say(&format!(
        "*2\r\n$9\r\nSUBSCRIBE\r\n${size}\r\n{channel}\r\n"
    ));
    host.hear(&format!(
        "*3\r\n$9\r\nsubscribe\r\n${size}\r\n{channel}\r\n:1\r\n"
    ));
}

/// How many sessions the shards have.
fn sessions(broker: &Broker) -> u64 {
    let (tell, told) = mpsc::channel();
    for shard in broker.shards().iter() {
        let tell = tell.clone();
        let reply = Box::new(move |stats: ShardStats| {
            let _ = tell.send(stats.connections);
        });
        let word = Control::Stats { reply };
        shard.send(word).expect("the shard listens");
    }
    drop(tell);
    let shards = broker.shards().len();
    let counts = (0..shards).map(|_| told.recv_timeout(DEADLINE).expect("an answer"));
    counts.sum()
}

#[test]
fn links_on_all_shards_reach_each_other() {
    with_each_driver(|broker| {
        let mut hosts: Vec<_> = (0..5).map(|_| Host::open(&broker)).collect();
        for host in &mut hosts {
            host.say(PING);
            host.hear("+PONG\r\n");
        }
        let mut publisher = Host::open(&broker);
        for host in &mut hosts {
            subscribe(host, "news");
        }
        let board = broker.board().expect("every broker has one");
        let heard = |name: &'static str| {
            let topic = Topic::channel(name.into()).expect("it is a topic");
            board.may_match(&topic)
        };
        assert!(heard("news") && !heard("weather"));
        // At once after the last ack, on whatever shard: it is a barrier for Links, too.
        publisher.say(&publish("news", "x"));
        publisher.hear(":5\r\n");
        for host in &mut hosts {
            host.hear("*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$1\r\nx\r\n");
        }
        broker.stop();
        for host in &hosts {
            assert!(host.end.next().is_none() && host.end.is_closed());
        }
    });
}

#[test]
fn a_flood_comes_complete_and_in_order() {
    const COUNT: usize = 50_000;
    with_each_driver(|broker| {
        let mut reader = Host::open(&broker);
        subscribe(&mut reader, "flood");
        let mut writer = Host::open(&broker);
        let calls = writer.end.clone();
        let flooding = std::thread::spawn(move || {
            for number in 0..COUNT {
                let command = publish("flood", &format!("{number:06}"));
                while let Err(error) =
                    calls.call(|calls| calls.extend_from_slice(command.as_bytes()))
                {
                    assert_eq!(error, CallError::Full);
                    std::thread::yield_now();
                }
            }
        });
        let answers = std::thread::spawn(move || {
            writer.hear(&":1\r\n".repeat(COUNT));
            writer
        });
        let messages = (0..COUNT)
            .map(|number| format!("*3\r\n$7\r\nmessage\r\n$5\r\nflood\r\n$6\r\n{number:06}\r\n"));
        reader.hear(&messages.collect::<String>());
        flooding.join().expect("the flood is taken");
        answers.join().expect("each is answered");
        broker.stop();
    });
}

#[test]
fn what_a_host_said_before_it_went_counts() {
    with_each_driver(|broker| {
        let mut reader = Host::open(&broker);
        subscribe(&mut reader, "last");
        for _ in 0..20 {
            let writer = Host::open(&broker);
            writer.say(&publish("last", "word"));
            drop(writer);
            reader.hear("*3\r\n$7\r\nmessage\r\n$4\r\nlast\r\n$4\r\nword\r\n");
        }
        common::wait_for("the end of their sessions", || {
            (sessions(&broker) == 1).then_some(())
        });
        broker.stop();
    });
}

#[test]
fn a_session_that_ends_closes_its_link_behind_the_last_words() {
    with_each_driver(|broker| {
        let mut host = Host::open(&broker);
        host.say("*1\r\n$4\r\nQUIT\r\n");
        host.hear("+OK\r\n");
        host.take();
        assert!(host.end.is_closed());
        assert_eq!(host.end.call(|_| ()), Err(CallError::Closed));
        broker.stop();
    });
}

#[test]
fn a_shard_that_panics_ends_all_links() {
    with_each_driver(|broker| {
        let mut hosts: Vec<_> = (0..4).map(|_| Host::open(&broker)).collect();
        let reply = Box::new(|_| panic!("the test's own"));
        let word = Control::Stats { reply };
        broker.shards()[0].send(word).expect("the shard listens");
        for host in &mut hosts {
            host.take();
            assert!(host.text.is_empty() && host.end.is_closed());
        }
        let failure = broker.failures().recv_timeout(DEADLINE);
        assert_eq!(failure.expect("it is told").shard.index(), 0);
        assert!(broker.open_link().is_err());
        broker.stop();
    });
}

#[test]
fn a_drain_leaves_links_to_the_last() {
    with_each_driver(|broker| {
        let mut host = Host::open(&broker);
        host.say(PING);
        host.hear("+PONG\r\n");
        broker.drain(Duration::ZERO, &|_| false);
        assert!(host.end.next().is_none() && !host.end.is_closed());
        broker.stop();
        assert!(host.end.is_closed());
    });
}

#[test]
fn a_host_that_reads_nothing_holds_up_itself() {
    with_each_driver(|broker| {
        let mut reader = Host::open(&broker);
        subscribe(&mut reader, "much");
        let mut writer = Host::open(&broker);
        let text = "x".repeat(60_000);
        let expected = format!("*3\r\n$7\r\nmessage\r\n$4\r\nmuch\r\n$60000\r\n{text}\r\n");
        // More than the ring takes; what is behind it waits in the outbox.
        for _ in 0..100 {
            writer.say(&publish("much", &text));
            writer.hear(":1\r\n");
        }
        for _ in 0..100 {
            while reader.text.len() < expected.len() {
                reader.take();
            }
            let rest = reader.text.split_off(expected.len());
            assert!(reader.text == expected.as_bytes());
            reader.text = rest;
        }
        assert!(reader.text.is_empty());
        broker.stop();
    });
}
