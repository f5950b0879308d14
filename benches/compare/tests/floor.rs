//! The floor relays what it should, in both modes: with clients by hand, and with the generator, which checks each
//! delivery.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use tungstenite::{Message, WebSocket};

const MODES: [&str; 2] = ["joined", "plain"];

/// Nothing here takes long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Floor {
    child: Child,
    address: SocketAddr,
}

impl Floor {
    fn start(mode: &str) -> Floor {
        let mut child = Command::new(env!("CARGO_BIN_EXE_floor"))
            .args(["--mode", mode])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap();
        Floor {
            address: address.parse().unwrap(),
            child,
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}/", self.address);
        Client(tungstenite::client(url, stream).unwrap().0)
    }

    /// With subscriptions that stand.
    fn subscribe(&self, topics: &[&str]) -> Client {
        let mut client = self.connect();
        for topic in topics {
            client.say(&format!(r#"{{"type":"subscribe","topic":"{topic}"}}"#));
        }
        client.barrier();
        client
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

struct Client(WebSocket<TcpStream>);

impl Client {
    fn say(&mut self, text: &str) {
        self.0.send(Message::text(text)).unwrap();
    }

    /// What comes next, pings apart.
    fn hear(&mut self) -> String {
        match self.0.read().unwrap() {
            Message::Text(text) => text.to_string(),
            other => panic!("{other:?}"),
        }
    }

    /// All that was said has been served, and nothing is on its way.
    fn barrier(&mut self) {
        self.0.send(Message::Ping("there?".into())).unwrap();
        let pong = self.0.read().unwrap();
        assert_eq!(pong, Message::Pong("there?".into()));
    }
}

fn publication(topic: &str, message: &str) -> String {
    format!(r#"{{"type":"publish","topic":"{topic}","message":"{message}"}}"#)
}

#[test]
fn frames_come_as_they_were_to_those_who_subscribe() {
    for mode in MODES {
        let floor = Floor::start(mode);
        let mut both = floor.subscribe(&["a", "b"]);
        let mut one = floor.subscribe(&["a"]);
        let mut publisher = floor.connect();
        let sizes = [0, 1, 90, 200, 70_000, 3];
        let texts = sizes.map(|size| publication("a", &"x".repeat(size)));
        for text in &texts {
            publisher.say(text);
            publisher.say(&publication("nobody", "lost"));
            publisher.say("no publication");
        }
        for text in &texts {
            assert_eq!(&both.hear(), text, "{mode}");
            assert_eq!(&one.hear(), text, "{mode}");
        }
        // A publisher that subscribes hears itself, and others do not hear what is not theirs.
        both.say(&publication("b", "own"));
        assert_eq!(both.hear(), publication("b", "own"), "{mode}");
        one.barrier();
        publisher.barrier();
    }
}

#[test]
fn those_who_leave_are_no_harm() {
    for mode in MODES {
        let floor = Floor::start(mode);
        let mut stays = floor.subscribe(&["a"]);
        let mut leaves = floor.subscribe(&["a"]);
        leaves.0.close(None).unwrap();
        while leaves.0.read().is_ok() {}
        drop(floor.subscribe(&["a"]));
        let mut publisher = floor.connect();
        for n in 0..100 {
            publisher.say(&publication("a", &n.to_string()));
        }
        for n in 0..100 {
            assert_eq!(stays.hear(), publication("a", &n.to_string()), "{mode}");
        }
    }
}

#[test]
fn what_a_socket_has_no_room_for_comes_later() {
    // More than loopback buffers, less than the floor keeps.
    const COUNT: usize = 200;
    for mode in MODES {
        let floor = Floor::start(mode);
        let mut slow = floor.subscribe(&["a"]);
        let mut publisher = floor.connect();
        let filler = "x".repeat(60_000);
        for n in 0..COUNT {
            publisher.say(&publication("a", &format!("{n} {filler}")));
        }
        publisher.barrier();
        for n in 0..COUNT {
            let expected = publication("a", &format!("{n} {filler}"));
            assert!(slow.hear() == expected, "{mode}: {n}");
        }
        slow.barrier();
    }
}

#[test]
fn the_generator_finds_nothing_wrong() {
    for mode in MODES {
        let floor = Floor::start(mode);
        for arguments in [
            "fan-out -p 3 -s 40 -w 16 --messages 1000",
            "rooms --rooms 20 --members 5 -w 2 --messages 2000",
            "unique --topics 50 -p 3 -w 16 --messages 1000",
            "idle --connections 200 --publish --hold 0",
        ] {
            let url = floor.address;
            let line = format!("bench {arguments} --protocol plain --url ws://{url}/");
            let matches = pubsub_load::command().get_matches_from(line.split(' '));
            let code = format!("{:?}", pubsub_load::run(&matches));
            let success = format!("{:?}", ExitCode::SUCCESS);
            assert_eq!(code, success, "{mode}: {arguments}");
        }
    }
}
