//! The admin listener over real sockets, with shards that are threads on a channel: what each route answers, and
//! whom it refuses. The broker behind it is tested elsewhere.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use pubsub::admin::{
    self, AdminHandle, AdminState, BrokerInfo, CONNECTIONS_MAX, Key, Phase, Readiness,
};
use pubsub::error::Code;
use pubsub::net::control::{Control, ControlSender};
use pubsub::shard::metrics::{ConnectionView, ShardStats};
use serde_json::{Value, json};

/// How a fake shard behaves.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Shard {
    /// Answers at once.
    Well,
    /// Answers publishes with this code.
    Refuses(Code),
    /// Takes what is sent and keeps it, unanswered.
    Silent,
    /// Takes what is sent and drops it.
    Forgetful,
    /// Has ended.
    Gone,
    /// Its channel is full.
    Full,
}

/// Topic and payload of each publish, with the shard that took it.
type Published = Arc<Mutex<Vec<(usize, String, Vec<u8>)>>>;

struct Admin {
    handle: AdminHandle,
    ready: Arc<Readiness>,
    published: Published,
    /// What silent shards keep, and the channels of full ones.
    _kept: Receiver<Control>,
    _full: Vec<Receiver<Control>>,
    threads: Vec<JoinHandle<()>>,
}

struct Options {
    shards: Vec<Shard>,
    key: Option<&'static str>,
    loopback: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shards: vec![Shard::Well; 2],
            key: None,
            loopback: true,
        }
    }
}

fn start(options: Options) -> Admin {
    let published = Published::default();
    let (keep, kept) = unbounded();
    let mut threads = Vec::new();
    let mut full = Vec::new();
    let shards: Vec<ControlSender> = options
        .shards
        .iter()
        .enumerate()
        .map(|(index, behaviour)| {
            let (channel, receiver) = crossbeam_channel::bounded(16);
            match behaviour {
                Shard::Gone => drop(receiver),
                Shard::Full => {
                    while channel.try_send(Control::Stop).is_ok() {}
                    full.push(receiver);
                }
                Shard::Well | Shard::Refuses(_) | Shard::Silent | Shard::Forgetful => {
                    let (published, keep) = (published.clone(), keep.clone());
                    let behaviour = *behaviour;
                    threads.push(thread::spawn(move || {
                        run_shard(index, behaviour, &receiver, &published, &keep);
                    }));
                }
            }
            ControlSender {
                channel,
                wake: Box::new(|| ()),
            }
        })
        .collect();
    let ready = Arc::new(Readiness::default());
    let state = AdminState {
        shards: shards.into(),
        ready: ready.clone(),
        key: options.key.map(Key::new),
        loopback: options.loopback,
        message_bytes_max: 1_000,
        info: BrokerInfo {
            version: "0.0.0-test".into(),
            driver: "none".into(),
            pinning: "none".into(),
        },
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    Admin {
        handle: admin::start(listener, state).unwrap(),
        ready,
        published,
        _kept: kept,
        _full: full,
        threads,
    }
}

fn run_shard(
    index: usize,
    behaviour: Shard,
    receiver: &Receiver<Control>,
    published: &Published,
    keep: &Sender<Control>,
) {
    for control in receiver {
        match (behaviour, control) {
            (Shard::Silent, control) => drop(keep.send(control)),
            (Shard::Forgetful, control) => drop(control),
            (
                _,
                Control::Publish {
                    topic,
                    payload,
                    reply,
                },
            ) => {
                if let Shard::Refuses(code) = behaviour {
                    reply(Err(code));
                    continue;
                }
                let topic = String::from_utf8(topic.as_bytes().to_vec()).unwrap();
                published
                    .lock()
                    .unwrap()
                    .push((index, topic, payload.to_vec()));
                reply(Ok(()));
            }
            (_, Control::Stats { reply }) => reply(ShardStats {
                shard: index,
                connections: 12,
                subscriptions: 3,
                publishes: 10 + index as u64,
                closed_slow: 1,
                closed: std::array::from_fn(|reason| reason as u64),
                ..ShardStats::default()
            }),
            (_, Control::Connections { count, reply }) => {
                let view = |number: usize| ConnectionView {
                    id: format!("{index}-{number}"),
                    shard: index,
                    address: format!("127.0.0.1:{number}"),
                    outbox_bytes: 100 - number as u64,
                    subscriptions: 1,
                };
                reply((0..12).map(view).take(count).collect());
            }
            (_, control) => panic!("not asked by the admin listener: {}", name(&control)),
        }
    }
}

fn name(control: &Control) -> &'static str {
    match control {
        Control::Publish { .. } => "publish",
        Control::Stats { .. } => "stats",
        Control::Connections { .. } => "connections",
        Control::StopAccepting { .. } => "stop accepting",
        Control::Quiesce { .. } => "quiesce",
        Control::Close { .. } => "close",
        Control::Stop => "stop",
        #[allow(unreachable_patterns, reason = "words of other rooms may come")]
        _ => "another",
    }
}

impl Admin {
    fn address(&self) -> SocketAddr {
        self.handle.address()
    }

    fn get(&self, target: &str) -> Answer {
        self.ask(&format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    }

    fn post(&self, target: &str, headers: &str, body: &[u8]) -> Answer {
        let mut request = format!(
            "POST {target} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(body);
        self.ask_bytes(&request)
    }

    fn ask(&self, request: &str) -> Answer {
        self.ask_bytes(request.as_bytes())
    }

    fn ask_bytes(&self, request: &[u8]) -> Answer {
        let mut stream = TcpStream::connect(self.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    }

    fn published(&self) -> Vec<(usize, String, Vec<u8>)> {
        std::mem::take(&mut self.published.lock().unwrap())
    }

    fn stop(self) {
        self.handle.stop();
        for thread in self.threads {
            thread.join().unwrap();
        }
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Answer {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut answer = Answer {
            status: head[9..12].parse().unwrap(),
            head,
            body: Vec::new(),
        };
        let size = answer.header("content-length").unwrap_or("0");
        answer.body = vec![0; size.parse().unwrap()];
        stream.read_exact(&mut answer.body).unwrap();
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (field, value) = line.split_once(": ")?;
            field.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"));
        serde_json::from_slice(&self.body).unwrap()
    }

    fn code(&self) -> String {
        let error = &self.json()["error"];
        assert!(
            error["reason"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        error["code"].as_str().unwrap().to_owned()
    }
}

#[test]
fn probes() {
    let admin = start(Options::default());
    assert_eq!(admin.get("/healthz").status, 200);
    for (phase, status, text) in [
        (Phase::Starting, 503, "starting\n"),
        (Phase::Ready, 200, "ready\n"),
        (Phase::Draining, 503, "draining\n"),
    ] {
        admin.ready.set(phase);
        let answer = admin.get("/readyz");
        assert_eq!((answer.status, answer.text()), (status, text));
    }
    assert_eq!(admin.get("/healthz").status, 200, "draining is alive");
    admin.stop();
}

#[test]
fn stats_are_sums_shards_and_the_slowest() {
    let admin = start(Options::default());
    admin.ready.set(Phase::Ready);
    let answer = admin.get("/stats");
    assert_eq!(answer.status, 200);
    let stats = answer.json();
    for (name, expected) in [
        ("connections", 24),
        ("subscriptions", 6),
        ("publishes", 21),
        ("deliveries_due", 0),
        ("delivered", 0),
        ("announced", 0),
        ("dropped", 0),
        ("closed_slow", 2),
        ("outbox_bytes", 0),
        ("cq_overflow", 0),
    ] {
        assert_eq!(stats[name], json!(expected), "{name}");
    }
    assert_eq!(stats["state"], "ready");
    assert_eq!(stats["version"], "0.0.0-test");
    assert_eq!(stats["closed"]["protocol error"], 6);
    assert_eq!(stats["shards"].as_array().unwrap().len(), 2);
    assert_eq!(stats["shards"][1]["shard"], 1);
    assert_eq!(stats["shards"][1]["publishes"], 11);
    let slowest = stats["slowest"].as_array().unwrap();
    assert_eq!(slowest.len(), 10);
    assert_eq!(
        slowest[0],
        json!({"id": "0-0", "shard": 0, "address": "127.0.0.1:0", "outbox_bytes": 100, "subscriptions": 1})
    );
    assert_eq!(slowest[9]["outbox_bytes"], 96);

    for (target, count) in [
        ("/stats?connections", 24),
        ("/stats?connections=3", 3),
        ("/stats?connections=0", 0),
    ] {
        let list = admin.get(target).json();
        assert_eq!(list["total"], 24);
        assert_eq!(list["connections"].as_array().unwrap().len(), count);
    }
    admin.stop();
}

#[test]
fn metrics_are_openmetrics_text() {
    let admin = start(Options::default());
    let answer = admin.get("/metrics");
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    for line in [
        "pubsub_publishes_total{shard=\"1\"} 11",
        "pubsub_closed_total{shard=\"0\",reason=\"protocol error\"} 3",
        "pubsub_ready 0",
    ] {
        assert!(answer.text().lines().any(|found| found == line), "{line}");
    }
    assert!(answer.text().ends_with("# EOF\n"));
    admin.stop();
}

#[test]
fn a_shard_without_an_answer_fails_what_needs_it() {
    // The full and the ended are known at once; the silent one costs its two seconds, so it is asked once.
    for (ill, targets) in [
        (
            Shard::Gone,
            &["/healthz", "/metrics", "/stats", "/stats?connections"][..],
        ),
        (Shard::Full, &["/healthz", "/stats"]),
        (Shard::Forgetful, &["/healthz", "/stats?connections"]),
        (Shard::Silent, &["/healthz"]),
    ] {
        let admin = start(Options {
            shards: vec![Shard::Well, ill],
            ..Options::default()
        });
        for target in targets {
            let answer = admin.get(target);
            assert_eq!(answer.status, 503, "{ill:?} {target}");
            assert_eq!(answer.code(), "no_answer");
            let reason = answer.json()["error"]["reason"].to_string();
            assert!(reason.contains("shard 1"), "{reason}");
        }
        admin.ready.set(Phase::Ready);
        assert_eq!(admin.get("/readyz").status, 200);
        admin.stop();
    }
}

#[test]
fn a_publish_goes_to_the_shards_in_turn() {
    let admin = start(Options::default());
    for (target, body) in [
        ("/publish/news.uk", &b"{\"a\":1}"[..]),
        ("/publish/a%2Fb/c", b"text"),
        ("/publish/caf%C3%A9", b"\xff\x00"),
        ("/publish/a?query=ignored", b""),
        ("/publish/large", &[b'x'; 1_000]),
    ] {
        let answer = admin.post(target, "", body);
        assert_eq!(answer.status, 200, "{target}");
        assert_eq!(answer.json(), json!({"ok": true}));
    }
    let published = admin.published();
    let topics: Vec<_> = published
        .iter()
        .map(|(_, topic, _)| topic.as_str())
        .collect();
    assert_eq!(topics, ["news.uk", "a/b/c", "café", "a", "large"]);
    let shards: Vec<_> = published.iter().map(|(shard, ..)| *shard).collect();
    assert_eq!(shards, [0, 1, 0, 1, 0]);
    assert_eq!(published[0].2, b"{\"a\":1}");
    assert_eq!(published[2].2, b"\xff\x00");
    assert_eq!(published[4].2.len(), 1_000);
    admin.stop();
}

#[test]
fn refusals() {
    const KEY: Option<&str> = Some("secret");
    const RIGHT: &str = "Authorization: Bearer secret\r\n";
    let long = format!("/publish/{}", "x".repeat(256));
    // key, loopback, target, headers, body bytes, status, code
    let table = [
        (None, true, "/publish/a", "", 1, 200, ""),
        (None, true, "/publish/", "", 1, 400, "bad_topic"),
        (None, true, "/publish", "", 1, 400, "bad_topic"),
        (None, true, "/publish/a%zz", "", 1, 400, "bad_topic"),
        (None, true, "/publish/a%2", "", 1, 400, "bad_topic"),
        (None, true, "/publish/a..b", "", 1, 400, "bad_topic"),
        (None, true, "/publish/a.*", "", 1, 400, "bad_topic"),
        (None, true, "/publish/=a", "", 1, 400, "bad_topic"),
        (None, true, "/publish/$sys", "", 1, 400, "bad_topic"),
        (None, true, "/publish/a%00", "", 1, 400, "bad_topic"),
        (None, true, "/publish/%ff", "", 1, 400, "bad_topic"),
        (None, true, &long, "", 1, 400, "bad_topic"),
        (None, true, "/publish/a", "", 1_001, 413, "too_large"),
        (None, true, "/publish/a", "", 500_000, 413, "too_large"),
        // Web pages: a foreign one never, one of this machine as its native listener has it.
        (
            None,
            true,
            "/publish/a",
            "Origin: http://localhost:3000\r\n",
            1,
            200,
            "",
        ),
        (
            None,
            true,
            "/publish/a",
            "Origin: https://evil.example\r\n",
            1,
            403,
            "not_allowed",
        ),
        (
            None,
            true,
            "/publish/a",
            "Origin: null\r\n",
            1,
            403,
            "not_allowed",
        ),
        (
            None,
            true,
            "/publish/a",
            "Origin: http://localhost.evil.example\r\n",
            1,
            403,
            "not_allowed",
        ),
        (
            None,
            true,
            "/publish/a",
            "Origin: http://[::1]\r\nOrigin: http://evil.example\r\n",
            1,
            403,
            "not_allowed",
        ),
        // Beyond loopback: never without a key.
        (None, false, "/publish/a", "", 1, 403, "not_allowed"),
        (None, false, "/publish/a", RIGHT, 1, 403, "not_allowed"),
        (
            None,
            false,
            "/publish/a..b",
            "",
            500_000,
            403,
            "not_allowed",
        ),
        // With a key, everywhere.
        (KEY, false, "/publish/a", RIGHT, 1, 200, ""),
        (KEY, true, "/publish/a", RIGHT, 1, 200, ""),
        (
            KEY,
            true,
            "/publish/a",
            "authorization: bearer secret\r\n",
            1,
            200,
            "",
        ),
        (KEY, true, "/publish/a", "", 1, 401, "not_allowed"),
        (KEY, false, "/publish/a", "", 500_000, 401, "not_allowed"),
        (
            KEY,
            false,
            "/publish/a",
            "Authorization: Bearer secre\r\n",
            1,
            401,
            "not_allowed",
        ),
        (
            KEY,
            false,
            "/publish/a",
            "Authorization: Bearer secret2\r\n",
            1,
            401,
            "not_allowed",
        ),
        (
            KEY,
            false,
            "/publish/a",
            "Authorization: Bearer \r\n",
            1,
            401,
            "not_allowed",
        ),
        (
            KEY,
            false,
            "/publish/a",
            "Authorization: Basic c2VjcmV0\r\n",
            1,
            401,
            "not_allowed",
        ),
        (
            KEY,
            false,
            "/publish/a",
            "Authorization: Bearer secret\r\nOrigin: http://evil.example\r\n",
            1,
            403,
            "not_allowed",
        ),
        (KEY, false, "/publish/a..b", RIGHT, 1, 400, "bad_topic"),
        (KEY, false, "/publish/a", RIGHT, 1_001, 413, "too_large"),
    ];
    for (key, loopback, target, headers, size, status, code) in table {
        let admin = start(Options {
            key,
            loopback,
            ..Options::default()
        });
        let case = format!("key {key:?} loopback {loopback} {target} {headers:?} {size}");
        let answer = admin.post(target, headers, &vec![b'x'; size]);
        assert_eq!(answer.status, status, "{case}: {}", answer.text());
        assert_eq!(
            admin.published().len(),
            usize::from(status == 200),
            "{case}"
        );
        if status != 200 {
            assert_eq!(answer.code(), code, "{case}");
        }
        let challenge = answer.header("www-authenticate").is_some();
        assert_eq!(challenge, status == 401, "{case}");
        admin.stop();
    }
}

#[test]
fn what_shards_say_to_a_publish() {
    for (shard, status, code) in [
        (Shard::Refuses(Code::Busy), 503, "busy"),
        (Shard::Refuses(Code::TooLarge), 413, "too_large"),
        (Shard::Refuses(Code::NotAllowed), 403, "not_allowed"),
        (Shard::Full, 503, "busy"),
        (Shard::Gone, 503, "busy"),
        (Shard::Forgetful, 503, "timeout"),
        (Shard::Silent, 503, "timeout"),
    ] {
        let admin = start(Options {
            shards: vec![shard],
            ..Options::default()
        });
        let answer = admin.post("/publish/a", "", b"1");
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (status, code),
            "{shard:?}"
        );
        assert_eq!(answer.header("retry-after").is_some(), code == "busy");
        admin.stop();
    }
}

#[test]
fn the_other_routes_need_no_key_and_answer_no_other_name_on_loopback() {
    // loopback, request head without its end, status
    for (loopback, head, status) in [
        (true, "GET /stats HTTP/1.1\r\nHost: localhost:8001", 200),
        (true, "GET /stats HTTP/1.1\r\nHost: 127.0.0.1", 200),
        (true, "GET /stats HTTP/1.1\r\nHost: [::1]:8001", 200),
        (true, "GET /stats HTTP/1.1\r\nHost: rebound.example", 403),
        (true, "GET /stats HTTP/1.1\r\nHost: 10.0.0.1:8001", 403),
        (
            true,
            "GET /stats HTTP/1.1\r\nHost: localhost.evil.example",
            403,
        ),
        (true, "GET /healthz HTTP/1.1\r\nHost: rebound.example", 403),
        (
            true,
            "GET http://rebound.example/stats HTTP/1.1\r\nHost: localhost",
            403,
        ),
        (
            true,
            "GET http://localhost/stats HTTP/1.1\r\nHost: localhost",
            200,
        ),
        (
            true,
            "POST /publish/a HTTP/1.1\r\nContent-Length: 0\r\nHost: rebound.example",
            403,
        ),
        (true, "GET /nowhere HTTP/1.1\r\nHost: rebound.example", 403),
        (true, "GET /stats HTTP/1.1", 400),
        (
            true,
            "GET /stats HTTP/1.1\r\nHost: localhost\r\nHost: localhost",
            400,
        ),
        (true, "GET /stats HTTP/1.0", 200),
        (
            false,
            "GET /stats HTTP/1.1\r\nHost: broker.example:8001",
            200,
        ),
        (false, "GET /metrics HTTP/1.1\r\nHost: 10.0.0.1:8001", 200),
        (
            false,
            "GET /healthz HTTP/1.1\r\nHost: 10.0.0.1\r\nOrigin: http://evil.example",
            200,
        ),
        (false, "GET /stats HTTP/1.1", 400),
        (true, "GET / HTTP/1.1\r\nHost: localhost", 200),
        (
            true,
            "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close",
            200,
        ),
        (true, "GET /publish/a HTTP/1.1\r\nHost: localhost", 405),
        (
            true,
            "POST /stats HTTP/1.1\r\nContent-Length: 0\r\nHost: localhost",
            405,
        ),
        (true, "GET /nowhere HTTP/1.1\r\nHost: localhost", 404),
        (true, "GET /stats/ HTTP/1.1\r\nHost: localhost", 404),
        (true, "nonsense", 400),
    ] {
        let admin = start(Options {
            key: Some("secret"),
            loopback,
            ..Options::default()
        });
        let mut stream = TcpStream::connect(admin.address()).unwrap();
        stream
            .write_all(format!("{head}\r\n\r\n").as_bytes())
            .unwrap();
        let mut found = [0; 12];
        stream.read_exact(&mut found).unwrap();
        let found: u16 = std::str::from_utf8(&found[9..]).unwrap().parse().unwrap();
        assert_eq!(found, status, "loopback {loopback}: {head}");
        assert!(admin.published().is_empty());
        drop(stream);
        admin.stop();
    }
}

#[test]
fn guessing_the_key_is_answered_429_even_when_right_at_last() {
    let admin = start(Options {
        key: Some("secret"),
        ..Options::default()
    });
    for _ in 0..10 {
        let wrong = "Authorization: Bearer guess\r\n";
        assert_eq!(admin.post("/publish/a", wrong, b"1").status, 401);
    }
    let answer = admin.post("/publish/a", "Authorization: Bearer secret\r\n", b"1");
    assert_eq!(answer.status, 429);
    let seconds: u64 = answer.header("retry-after").unwrap().parse().unwrap();
    assert!((290..=301).contains(&seconds), "{seconds}");
    assert_eq!(admin.get("/stats").status, 200, "reading goes on");
    assert!(admin.published().is_empty());
    admin.stop();
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let admin = start(Options::default());
    let head = "POST /publish/a HTTP/1.1\r\nHost: localhost\r\n";
    for rest in [
        "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n",
        "Content-Length: 99999999999\r\n\r\n",
    ] {
        assert_eq!(admin.ask(&format!("{head}{rest}")).status, 413, "{rest}");
    }
    let chunks = format!("3e8\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(1_000));
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunks}");
    assert_eq!(admin.ask(&chunked).status, 413);
    admin.stop();
}

#[test]
fn one_connection_serves_many_requests() {
    let admin = start(Options::default());
    let mut stream = TcpStream::connect(admin.address()).unwrap();
    for _ in 0..3 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .unwrap();
        let answer = Answer::read(&mut stream);
        assert_eq!((answer.status, answer.text()), (200, "ok\n"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    }
    admin.stop();
}

#[test]
fn only_so_many_connections_are_served_at_once() {
    let admin = start(Options::default());
    let mut idle: Vec<TcpStream> = (0..CONNECTIONS_MAX)
        .map(|_| {
            let mut stream = TcpStream::connect(admin.address()).unwrap();
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            assert_eq!(Answer::read(&mut stream).status, 200);
            stream
        })
        .collect();
    let mut late = TcpStream::connect(admin.address()).unwrap();
    late.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    late.set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    assert!(late.read(&mut [0]).is_err(), "one more was served");
    idle.pop();
    late.set_read_timeout(Some(Duration::from_secs(20)))
        .unwrap();
    assert_eq!(Answer::read(&mut late).status, 200);
    admin.stop();
}

#[test]
fn stopping_closes_the_port_and_ends_what_hangs() {
    let admin = start(Options::default());
    let address = admin.address();
    let mut half = TcpStream::connect(address).unwrap();
    half.write_all(b"GET /stats HTTP/1.1\r\nHost: loc").unwrap();
    let began = Instant::now();
    admin.stop();
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "{:?}",
        began.elapsed()
    );
    assert!(TcpStream::connect(address).is_err());
    let mut rest = Vec::new();
    // An end or a reset, not silence.
    drop(half.read_to_end(&mut rest));
    // The port is free again.
    TcpListener::bind(address).unwrap();
}
