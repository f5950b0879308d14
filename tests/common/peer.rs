//! A peer on the library's own codecs: what an application server says to the broker, frame by frame.

use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

use pubsub::address::ClientId;
use pubsub::message::Payload;
use pubsub::protocol::Outcome;
use pubsub::protocol::peer::call::{Call, write_call};
use pubsub::protocol::peer::event::{Told, read_event};
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Broker, DEADLINE};

/// A connection to a listener for peers.
pub struct Peer {
    socket: Socket,
    buffer: Vec<u8>,
    tickets: u64,
}

impl Peer {
    /// To the broker's first listener for peers, by this name; welcome.
    pub fn connect(broker: &Broker, name: &str) -> Peer {
        Peer::connect_to(&broker.peers[0], name)
    }

    /// The same to an address, or `unix:PATH`.
    pub fn connect_to(address: &str, name: &str) -> Peer {
        let mut peer = Peer::open(address);
        peer.hello(name, "");
        assert_eq!(peer.told(), "welcome", "{name}");
        peer
    }

    /// One that has said nothing.
    pub fn open(address: &str) -> Peer {
        let (domain, to) = match address.strip_prefix("unix:") {
            Some(path) => (Domain::UNIX, SockAddr::unix(path).expect("a path")),
            None => {
                let address: SocketAddr = address.parse().expect("an address");
                (Domain::for_address(address), address.into())
            }
        };
        let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
        socket
            .connect(&to)
            .unwrap_or_else(|error| panic!("connect {address}: {error}"));
        if domain != Domain::UNIX {
            socket.set_tcp_nodelay(true).expect("TCP_NODELAY");
        }
        socket.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        socket.set_write_timeout(Some(DEADLINE)).expect("a timeout");
        Peer {
            socket,
            buffer: Vec::new(),
            tickets: 0,
        }
    }

    /// Says who it is, by this key.
    pub fn hello(&mut self, name: &str, key: &str) {
        let (name, key) = (name.as_bytes(), key.as_bytes());
        self.call(&Call::Hello { name, key });
    }

    /// Makes a call.
    pub fn call(&mut self, call: &Call<'_>) {
        let mut bytes = Vec::new();
        write_call(call, &mut bytes);
        self.send(&bytes);
    }

    /// Sends bytes, whatever they are.
    pub fn send(&mut self, bytes: &[u8]) {
        (&self.socket).write_all(bytes).expect("the broker reads");
    }

    /// A ticket that was not used before.
    pub fn ticket(&mut self) -> u64 {
        self.tickets += 1;
        self.tickets
    }

    /// Makes a call with a ticket, and reads that it took effect.
    #[track_caller]
    pub fn done(&mut self, call: impl FnOnce(u64) -> Call<'static>) {
        let ticket = self.ticket();
        self.call(&call(ticket));
        assert_eq!(self.told(), format!("done {ticket}"));
    }

    /// From now on it handles this event.
    #[track_caller]
    pub fn handle(&mut self, event: &'static str) {
        let event = event.as_bytes();
        self.done(|ticket| Call::Handle { ticket, event });
    }

    /// Answers a request.
    pub fn reply(&mut self, number: u64, answer: &'static str) {
        let payload = Payload::json(bytes::Bytes::from_static(answer.as_bytes()));
        let outcome = &Outcome::Data(payload);
        self.call(&Call::Reply { number, outcome });
    }

    /// The next frame.
    pub fn frame(&mut self) -> Vec<u8> {
        self.try_frame()
            .expect("a frame, not the end of the connection")
    }

    /// The next frame, or the end of the connection.
    pub fn try_frame(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((size, rest)) = self.buffer.split_first_chunk::<4>()
                && let Some(frame) = rest.get(..u32::from_le_bytes(*size) as usize)
            {
                let frame = frame.to_vec();
                self.buffer.drain(..4 + frame.len());
                return Some(frame);
            }
            let mut piece = [0; 64 * 1024];
            match self.socket.read(&mut piece) {
                Ok(0) => return None,
                Ok(size) => self.buffer.extend_from_slice(&piece[..size]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("waited {DEADLINE:?} for a frame: {error}"),
            }
        }
    }

    /// The next event, in short.
    pub fn told(&mut self) -> String {
        in_short(&read_event(&self.frame()).expect("an event"))
    }

    /// The next event is a request for this event with this payload; its number.
    #[track_caller]
    pub fn asked(&mut self, expected: &str) -> u64 {
        let told = self.told();
        let (number, rest) = told
            .strip_prefix("request ")
            .and_then(|rest| rest.split_once(' '))
            .unwrap_or_else(|| panic!("no request: {told}"));
        assert_eq!(rest, expected);
        number.parse().expect("a number")
    }

    /// What it is told from here to the end of its connection.
    pub fn read_to_end(&mut self) -> Vec<String> {
        let mut told = Vec::new();
        while let Some(frame) = self.try_frame() {
            told.push(in_short(&read_event(&frame).expect("an event")));
        }
        told
    }
}

/// An event as a line: its kind, and what is in it.
pub fn in_short(told: &Told<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let who = |peer: &[u8], client: Option<ClientId>| match (peer, client) {
        (b"", None) => "nobody".to_owned(),
        (b"", Some(client)) => client.to_string(),
        (name, _) => text(name),
    };
    match *told {
        Told::Welcome { .. } => "welcome".to_owned(),
        Told::Done { ticket, payload } if payload.bytes.is_empty() => format!("done {ticket}"),
        Told::Done { ticket, payload } => format!("done {ticket} {}", text(payload.bytes)),
        Told::Failed { ticket, code, .. } => format!("failed {ticket} {}", text(code)),
        Told::Message { topic, payload, .. } => {
            format!("message {} {}", text(topic), text(payload.bytes))
        }
        Told::Event {
            client,
            peer,
            event,
            payload,
        } => {
            let [event, payload] = [event, payload.bytes].map(text);
            format!("event {event} {payload} from {}", who(peer, client))
        }
        Told::Request {
            number,
            client,
            peer,
            event,
            payload,
            ..
        } => {
            let [event, payload] = [event, payload.bytes].map(text);
            let from = who(peer, Some(client));
            format!("request {number} {event} {payload} from {from}")
        }
        Told::Peer { up, name } => {
            format!("peer {} {}", if up { "up" } else { "down" }, text(name))
        }
        Told::TokenUp { token, .. } => format!("token up {}", text(token)),
        Told::TokenDown { token, .. } => format!("token down {}", text(token)),
        Told::TokenRejected { token } => format!("token rejected {}", text(token)),
        Told::Probe => "probe".to_owned(),
        Told::Goodbye { code, reason } => format!("goodbye {} {}", text(code), text(reason)),
        ref other => format!("{other:?}"),
    }
}
