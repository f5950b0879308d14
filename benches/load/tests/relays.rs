//! The generator against small brokers of every protocol, honest and dishonest ones.
//!
//! A relay here is a thread per connection and a table of subscribers behind a lock: enough to be right. On demand it
//! does one thing wrong, to one subscriber, once; the report must say just that.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::Value;
use tungstenite::{Message, WebSocket};

/// What a relay speaks.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Plain,
    Redis,
    Clusterws,
    Nats,
    NatsInFrames,
}

/// What it does to its first subscriber.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fault {
    None,
    Lose,
    Double,
    Swap,
    /// The delivery of another topic.
    Misroute,
    Garble,
    Close,
    Silence,
}

/// The delivery that goes wrong.
const WRONG: usize = 20;

struct Relay {
    kind: Kind,
    fault: Fault,
    topics: Mutex<HashMap<String, Vec<Subscriber>>>,
}

#[derive(Clone)]
struct Subscriber(Arc<Mutex<Line>>);

struct Line {
    stream: TcpStream,
    /// Has it answered a ping, where that is asked for?
    is_alive: bool,
    is_first: bool,
    delivered: usize,
    kept: Vec<u8>,
}

impl Relay {
    /// Starts one and gives its URL.
    fn start(kind: Kind, fault: Fault) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let relay = Arc::new(Relay {
            kind,
            fault,
            topics: Mutex::default(),
        });
        thread::spawn(move || {
            for stream in listener.incoming() {
                let relay = relay.clone();
                thread::spawn(move || relay.serve(stream.unwrap()));
            }
        });
        match kind {
            Kind::Plain | Kind::Clusterws | Kind::NatsInFrames => format!("ws://{address}/"),
            Kind::Redis => format!("redis://{address}"),
            Kind::Nats => format!("nats://{address}"),
        }
    }

    /// Until the client goes away, which is no error here.
    fn serve(&self, stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let line = Subscriber(Arc::new(Mutex::new(Line {
            stream: stream.try_clone().unwrap(),
            is_alive: false,
            is_first: false,
            delivered: 0,
            kept: Vec::new(),
        })));
        match self.kind {
            Kind::Plain => {
                let mut socket = tungstenite::accept(stream).unwrap();
                while let Ok(message) = socket.read() {
                    if let Message::Text(text) = message {
                        self.plain(&line, &text);
                    }
                }
            }
            Kind::Clusterws => {
                let mut socket = tungstenite::accept(stream).unwrap();
                let config = br##"{"#":["s","c",{"ping":20000,"binary":false}]}"##;
                line.say(&[framed(0x81, config), framed(0x82, b"9")].concat());
                while let Ok(message) = socket.read() {
                    match message {
                        Message::Text(text) => self.clusterws(&line, &text),
                        Message::Binary(bytes) if *bytes == *b"A" => {
                            line.0.lock().unwrap().is_alive = true;
                        }
                        _ => {}
                    }
                }
            }
            Kind::Redis => {
                let mut stream = BufReader::new(stream);
                while self.redis(&line, &mut stream).is_some() {}
            }
            Kind::Nats => {
                line.say(b"INFO {\"server_id\":\"relay\"}\r\n");
                let mut stream = BufReader::new(stream);
                while self.nats(&line, &mut stream).is_some() {}
            }
            Kind::NatsInFrames => {
                let socket = tungstenite::accept(stream).unwrap();
                line.say(&framed(0x82, b"INFO {\"server_id\":\"relay\"}\r\n"));
                let mut stream = BufReader::new(Unframed(socket, Vec::new()));
                while self.nats(&line, &mut stream).is_some() {}
            }
        }
    }

    fn plain(&self, line: &Subscriber, text: &str) {
        let object: Value = serde_json::from_str(text).unwrap();
        let topic = object["topic"].as_str().unwrap();
        if object["type"] == "subscribe" {
            self.subscribe(line, topic);
        } else {
            self.relay(topic, &framed(0x81, text.as_bytes()));
        }
    }

    fn clusterws(&self, line: &Subscriber, text: &str) {
        let message: Value = serde_json::from_str(text).unwrap();
        let [kind, name, channel] = [0, 1, 2].map(|at| message["#"][at].as_str());
        match (kind, name, channel) {
            (Some("s"), Some("s"), Some(channel)) => self.subscribe(line, channel),
            // Without a word for others than subscribers, and for those who are gone.
            (Some("p"), Some(channel), None) => {
                if line.0.lock().unwrap().is_alive && self.has(channel, line) {
                    self.relay(channel, &framed(0x81, text.as_bytes()));
                }
            }
            _ => panic!("{text}"),
        }
    }

    fn redis(&self, line: &Subscriber, stream: &mut impl BufRead) -> Option<()> {
        let count: usize = read_line(stream)?[1..].parse().unwrap();
        let words: Vec<String> = (0..count)
            .map(|_| {
                let size: usize = read_line(stream)?[1..].parse().unwrap();
                read_sized(stream, size)
            })
            .collect::<Option<_>>()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        match words[..] {
            ["HELLO", "3"] => line.say(b"%2\r\n+proto\r\n:3\r\n+modules\r\n*0\r\n"),
            ["SUBSCRIBE", topic] => {
                let size = topic.len();
                line.say(
                    format!("*3\r\n$9\r\nsubscribe\r\n${size}\r\n{topic}\r\n:1\r\n").as_bytes(),
                );
                self.subscribe(line, topic);
            }
            ["PUBLISH", topic, text] => {
                let (name, size) = (topic.len(), text.len());
                let unit =
                    format!("*3\r\n$7\r\nmessage\r\n${name}\r\n{topic}\r\n${size}\r\n{text}\r\n");
                let count = self.relay(topic, unit.as_bytes());
                line.say(format!(":{count}\r\n").as_bytes());
            }
            _ => line.say(b"-ERR unknown\r\n"),
        }
        Some(())
    }

    fn nats(&self, line: &Subscriber, stream: &mut impl BufRead) -> Option<()> {
        let wrap = |bytes: &[u8]| match self.kind {
            Kind::NatsInFrames => framed(0x82, bytes),
            _ => bytes.to_vec(),
        };
        let command = read_line(stream)?;
        let words: Vec<&str> = command.split(' ').collect();
        match words[..] {
            ["SUB", topic, "1"] => self.subscribe(line, topic),
            ["PUB", topic, size] => {
                let text = read_sized(stream, size.parse().unwrap())?;
                let unit = format!("MSG {topic} 1 {size}\r\n{text}\r\n");
                if self.kind == Kind::NatsInFrames {
                    // Units and frames need not fit.
                    let (one, two) = unit.as_bytes().split_at(unit.len() / 3);
                    self.relay(topic, &[wrap(one), wrap(two)].concat());
                } else {
                    self.relay(topic, unit.as_bytes());
                }
            }
            // A ping of its own must be answered, and must not be taken for the pong.
            ["PING"] => line.say(&wrap(b"PING\r\nPONG\r\n")),
            _ => {}
        }
        Some(())
    }

    fn subscribe(&self, line: &Subscriber, topic: &str) {
        let mut topics = self.topics.lock().unwrap();
        line.0.lock().unwrap().is_first = topics.is_empty();
        topics
            .entry(topic.to_owned())
            .or_default()
            .push(line.clone());
    }

    fn has(&self, topic: &str, line: &Subscriber) -> bool {
        let topics = self.topics.lock().unwrap();
        let mut subscribers = topics.get(topic).into_iter().flatten();
        subscribers.any(|subscriber| Arc::ptr_eq(&subscriber.0, &line.0))
    }

    fn relay(&self, topic: &str, unit: &[u8]) -> usize {
        let topics = self.topics.lock().unwrap();
        let subscribers = topics.get(topic).map_or(&[][..], Vec::as_slice);
        for subscriber in subscribers {
            subscriber.deliver(unit, self.fault);
        }
        subscribers.len()
    }
}

impl Subscriber {
    fn say(&self, bytes: &[u8]) {
        let _ = self.0.lock().unwrap().stream.write_all(bytes);
    }

    fn deliver(&self, unit: &[u8], fault: Fault) {
        let mut line = self.0.lock().unwrap();
        line.delivered += 1;
        let mut unit = unit.to_vec();
        if line.is_first {
            let is_wrong = line.delivered == WRONG;
            match fault {
                Fault::Lose if is_wrong => return,
                Fault::Silence if line.delivered >= WRONG => return,
                Fault::Double if is_wrong => unit = [unit.clone(), unit].concat(),
                Fault::Swap if is_wrong => {
                    line.kept = unit;
                    return;
                }
                Fault::Swap => unit.extend(std::mem::take(&mut line.kept)),
                Fault::Misroute if is_wrong => restamp(&mut unit, b'O'),
                Fault::Garble if is_wrong => restamp(&mut unit, b'z'),
                Fault::Close if is_wrong => unit = framed(0x88, b"\x0f\xa8too slow"),
                _ => {}
            }
        }
        let _ = line.stream.write_all(&unit);
    }
}

/// Changes the first character of the stamp, and with it the lane.
fn restamp(unit: &mut [u8], letter: u8) {
    let mark = br#""message":""#;
    let at = unit.windows(mark.len()).position(|window| window == mark);
    unit[at.unwrap() + mark.len()] = letter;
}

/// A server's frame.
fn framed(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        size @ 0..126 => frame.push(size as u8),
        size => {
            frame.push(126);
            frame.extend_from_slice(&(size as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

/// The stream inside of binary messages.
struct Unframed(WebSocket<TcpStream>, Vec<u8>);

impl Read for Unframed {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        while self.1.is_empty() {
            match self.0.read() {
                Ok(Message::Binary(bytes)) => self.1 = bytes.to_vec(),
                Ok(_) => {}
                Err(_) => return Ok(0),
            }
        }
        let size = self.1.len().min(out.len());
        out[..size].copy_from_slice(&self.1[..size]);
        self.1.drain(..size);
        Ok(size)
    }
}

fn read_line(stream: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|size| *size > 0)?;
    Some(line.trim_end().to_owned())
}

fn read_sized(stream: &mut impl BufRead, size: usize) -> Option<String> {
    let mut bytes = vec![0; size + 2];
    stream.read_exact(&mut bytes).ok()?;
    bytes.truncate(size);
    String::from_utf8(bytes).ok()
}

/// Runs the generator, and gives its report and whether it ended well.
fn bench(kind: Kind, url: &str, arguments: &str) -> (Value, bool) {
    let protocol = match kind {
        Kind::Plain => "plain",
        Kind::Redis => "redis",
        Kind::Clusterws => "clusterws",
        Kind::Nats | Kind::NatsInFrames => "nats",
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().to_str().unwrap();
    let line = format!("bench {arguments} --url {url} --protocol {protocol} --json {path}");
    let matches = pubsub_load::command().get_matches_from(line.split_whitespace());
    let code = pubsub_load::run(&matches);
    let report = std::fs::read_to_string(path).unwrap();
    let is_success = format!("{code:?}") == format!("{:?}", std::process::ExitCode::SUCCESS);
    (serde_json::from_str(&report).unwrap(), is_success)
}

const KINDS: [Kind; 5] = [
    Kind::Plain,
    Kind::Redis,
    Kind::Clusterws,
    Kind::Nats,
    Kind::NatsInFrames,
];

#[test]
fn every_protocol_runs_every_scenario() {
    for kind in KINDS {
        for (arguments, subscribers, publishers, due) in [
            ("fan-out -p 2 -s 5 -w 8 --messages 60", 5, 2, 300),
            (
                "fan-out -p 2 -s 5 --messages 60 --threads 3 --size 3000",
                5,
                2,
                300,
            ),
            (
                "rooms --rooms 3 --members 4 -w 2 --messages 120 --threads 2",
                12,
                0,
                480,
            ),
            ("unique --topics 7 -p 2 -w 8 --messages 100", 7, 2, 100),
            ("idle --connections 6 --publish --hold 0", 6, 1, 6),
            ("idle --connections 6 --hold 0", 6, 0, 0),
            ("latency --rate 2000 -s 4 -p 3 --messages 50", 4, 3, 200),
        ] {
            let connections = match kind {
                // Nobody would hear itself and all topics.
                Kind::Clusterws if arguments.starts_with("unique") => continue,
                // The first subscribers publish.
                Kind::Clusterws => subscribers,
                _ => subscribers + publishers,
            };
            let url = Relay::start(kind, Fault::None);
            let (report, is_success) = bench(kind, &url, arguments);
            assert!(is_success, "{kind:?} {arguments}: {report:#}");
            assert_eq!(report["connections"], connections, "{kind:?} {arguments}");
            assert_eq!(report["due"], due, "{kind:?} {arguments}");
            assert_eq!(report["delivered"], due, "{kind:?} {arguments}");
            let acks = if kind == Kind::Redis {
                &report["published"]
            } else {
                &Value::from(0)
            };
            assert_eq!(&report["measured"]["acks"], acks, "{kind:?} {arguments}");
            if arguments.starts_with("latency") {
                assert_eq!(report["latency_us"]["count"], due);
            }
        }
    }
}

#[test]
fn a_server_that_does_not_greet_is_refused() {
    let url = Relay::start(Kind::NatsInFrames, Fault::None);
    let line = format!("bench fan-out --url {url} --protocol clusterws --messages 1");
    let matches = pubsub_load::command().get_matches_from(line.split_whitespace());
    let code = pubsub_load::run(&matches);
    assert_eq!(
        format!("{code:?}"),
        format!("{:?}", std::process::ExitCode::from(1))
    );
}

#[test]
fn every_fault_is_reported() {
    for kind in KINDS {
        for (fault, expected) in [
            (Fault::Lose, [1, 0, 0, 0]),
            (Fault::Double, [0, 1, 0, 0]),
            (Fault::Swap, [0, 0, 1, 0]),
            (Fault::Misroute, [1, 0, 0, 1]),
            (Fault::Garble, [1, 0, 0, 1]),
            (Fault::Silence, [31, 0, 0, 0]),
        ] {
            // What comes after a fault shows it at once; only silence must be waited for.
            let url = Relay::start(kind, fault);
            let arguments = "fan-out -s 3 -w 40 --messages 50 --patience 0.3";
            let (report, is_success) = bench(kind, &url, arguments);
            assert!(!is_success, "{kind:?} {fault:?}");
            let found = ["lost", "doubled", "inverted", "stray"].map(|name| &report[name]);
            assert_eq!(
                found,
                expected.map(Value::from).each_ref(),
                "{kind:?} {fault:?}: {report:#}"
            );
            assert_eq!(report["right"], false);
            assert_eq!(report["failure"].is_null(), fault != Fault::Silence);
        }
    }
}

#[test]
fn a_close_ends_the_run_and_is_told() {
    let url = Relay::start(Kind::Plain, Fault::Close);
    let (report, is_success) = bench(Kind::Plain, &url, "fan-out -s 3 --messages 100");
    assert!(!is_success);
    let reason = report["failure"].as_str().unwrap();
    assert!(reason.contains("4008 too slow"), "{reason}");
}
