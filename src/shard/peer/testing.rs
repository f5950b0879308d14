//! Peers of a house: what they say and hear, and what the tests of hosts and rooms say for them.

use bytes::Bytes;

use super::super::testing::{HEAD, House, LINKS, PEERS, Who};
use crate::address::ClientId;
use crate::message::Payload;
use crate::protocol::peer::call::Call;
use crate::protocol::peer::event::{Arrived, Told};
use crate::protocol::peer::{self, Admitted, Audience, Watch};

/// How many shards there are, which is the host's, and which the client's.
pub const PLACES: [(usize, usize, usize); 5] =
    [(1, 0, 0), (3, 0, 0), (3, 0, 1), (3, 1, 0), (3, 2, 1)];

impl House {
    /// A peer from outside that is welcome.
    pub fn connect_peer(&mut self, shard: usize, name: &str) -> Who {
        self.enter_peer(shard, PEERS, name)
    }

    /// A Link of this process that is welcome.
    pub fn connect_link(&mut self, shard: usize, name: &str) -> Who {
        self.enter_peer(shard, LINKS, name)
    }

    fn enter_peer(&mut self, shard: usize, listener: u16, name: &str) -> Who {
        let who = self.say_hello(shard, listener, name, "");
        self.settle();
        assert_eq!(self.told(who), ["welcome"], "{name}");
        who
    }

    /// A Link that watches this.
    pub fn host(&mut self, shard: usize, name: &str, mask: Watch) -> Who {
        let host = self.connect_link(shard, name);
        self.watch(host, mask);
        host
    }

    /// A peer watches this from now on.
    pub fn watch(&mut self, host: Who, mask: Watch) {
        let told = self.ask_peer(host, &Call::Watch { ticket: 7, mask });
        assert_eq!(told.last().map(String::as_str), Some("done 7"), "{told:?}");
    }

    /// A host's word on a client, and the turns that it takes.
    pub fn verdict(&mut self, host: Who, client: Who, verdict: Admitted) {
        let client = self.client_id(client);
        let verdict = &verdict;
        self.call(host, &Call::Admit { client, verdict });
        self.settle();
    }

    /// A peer that has said HELLO, for the next turn.
    pub fn say_hello(&mut self, shard: usize, listener: u16, name: &str, key: &str) -> Who {
        let who = self.accept(shard, listener, false);
        let (name, key) = (name.as_bytes(), key.as_bytes());
        self.call(who, &Call::Hello { name, key });
        who
    }

    /// A call of a peer, for the next turn.
    pub fn call(&mut self, who: Who, call: &Call<'_>) {
        let mut bytes = Vec::new();
        peer::write_call(call, &mut bytes);
        self.bytes(who, &bytes);
    }

    /// A call, its turn, and what the peer was told since.
    pub fn ask_peer(&mut self, who: Who, call: &Call<'_>) -> Vec<String> {
        self.call(who, call);
        self.settle();
        self.told(who)
    }

    /// What a peer was told, in short: the event, and what is in it.
    pub fn told(&mut self, who: Who) -> Vec<String> {
        let received = self.raw(who);
        let mut told = Vec::new();
        let mut rest = &received[..];
        while let Some((size, after)) = rest.split_first_chunk::<4>() {
            let size = u32::from_le_bytes(*size) as usize;
            let Some(frame) = after.get(..size) else {
                break;
            };
            told.push(in_short(&peer::read_event(frame).expect("an event")));
            rest = &after[size..];
        }
        self.unread(who, rest);
        told
    }
}

pub fn json(text: &'static str) -> Payload {
    Payload::json(Bytes::from_static(text.as_bytes()))
}

/// A client as the words of [`House::told`] name it.
pub fn at(who: Who) -> String {
    format!("{}:{}", who.shard, who.id.slot)
}

/// A client of ClusterWS.
pub fn clusterws(house: &mut House, shard: usize) -> Who {
    let who = house.accept(shard, 0, false);
    let head = HEAD.replace("GET / ", "GET /clusterws ");
    house.bytes(who, head.as_bytes());
    house.settle();
    house.head(who);
    house.read(who);
    who
}

/// All clients, or those of these rooms.
pub fn audience(rooms: &[&'static str]) -> Audience {
    Audience::Clients {
        rooms: rooms
            .iter()
            .map(|room| Bytes::from_static(room.as_bytes()))
            .collect(),
        except_rooms: Vec::new(),
        except: None,
    }
}

/// The same without those of these rooms, and without a client.
pub fn without(to: Audience, rooms: &[&'static str], client: Option<ClientId>) -> Audience {
    let Audience::Clients { rooms: of, .. } = to else {
        return to;
    };
    Audience::Clients {
        rooms: of,
        except_rooms: rooms
            .iter()
            .map(|room| Bytes::from_static(room.as_bytes()))
            .collect(),
        except: client,
    }
}

impl House {
    /// A peer puts a client into a room, with its next turn.
    pub fn join(&mut self, peer: Who, client: Who, room: &str, ticket: u64) {
        let (client, room) = (self.client_id(client), room.as_bytes());
        self.call(
            peer,
            &Call::Join {
                ticket,
                client,
                room,
            },
        );
    }

    /// And takes it out.
    pub fn leave(&mut self, peer: Who, client: Who, room: &str, ticket: u64) {
        let (client, room) = (self.client_id(client), room.as_bytes());
        self.call(
            peer,
            &Call::Leave {
                ticket,
                client,
                room,
            },
        );
    }

    /// A peer emits, with its next turn.
    pub fn emit(&mut self, peer: Who, to: &Audience, event: &str, ticket: u64) {
        self.emit_so(peer, to, event, ticket, false);
    }

    pub fn emit_so(&mut self, peer: Who, to: &Audience, event: &str, ticket: u64, volatile: bool) {
        let payload = &json("1");
        self.call(
            peer,
            &Call::EmitMany {
                ticket,
                to,
                event: event.as_bytes(),
                payload,
                volatile,
            },
        );
    }

    /// A peer closes a client's connection, with its next turn.
    pub fn disconnect(&mut self, peer: Who, client: Who, code: u16, reason: &str, ticket: u64) {
        let (client, reason) = (self.client_id(client), reason.as_bytes());
        self.call(
            peer,
            &Call::Disconnect {
                ticket,
                client,
                code,
                reason,
            },
        );
    }

    /// A peer handles an event from now on.
    pub fn handle(&mut self, peer: Who, event: &str) {
        let event = event.as_bytes();
        let told = self.ask_peer(peer, &Call::Handle { ticket: 9, event });
        assert!(told.iter().any(|one| one == "done 9"), "{told:?}");
    }

    /// The events that a native client was told of.
    pub fn events(&mut self, who: Who) -> Vec<String> {
        let told = self.read(who);
        let event = |text: &String| {
            let value: serde_json::Value = serde_json::from_str(text).ok()?;
            assert_eq!(value["data"], 1, "{text}");
            assert!(value.get("from").is_none(), "{text}");
            Some(value["event"].as_str()?.to_owned())
        };
        told.iter()
            .map(|text| event(text).unwrap_or_else(|| text.clone()))
            .collect()
    }
}

/// An event of a peer.
fn in_short(told: &Told<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let who = |peer: &[u8], client: Option<ClientId>| match (peer, client) {
        (b"", None) => "nobody".to_owned(),
        (b"", Some(client)) => format!("{}:{}", client.shard, client.session.slot),
        (name, _) => text(name),
    };
    match *told {
        Told::Welcome { .. } => "welcome".to_owned(),
        Told::Done { ticket, payload } if payload.bytes.is_empty() => format!("done {ticket}"),
        Told::Done { ticket, payload } => format!("done {ticket} {}", text(payload.bytes)),
        Told::Failed { ticket, code, .. } => format!("failed {ticket} {}", text(code)),
        Told::Message {
            topic,
            context,
            payload,
            ..
        } => {
            let [topic, context, payload] = [topic, context, payload.bytes].map(text);
            format!("message {topic} {context} {payload}")
        }
        Told::Gap { topic, count } => format!("gap {} {count}", text(topic)),
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
        Told::Admit(of) => format!("admit {}", arrived(&of)),
        Told::Connect(of) => format!("connect {}", arrived(&of)),
        Told::Disconnect {
            client,
            code,
            reason,
        } => format!(
            "disconnect {} {code} {}",
            who(b"", Some(client)),
            text(reason)
        ),
        Told::Subscribed { client, up, filter } => {
            let verb = if up { "subscribed" } else { "unsubscribed" };
            format!("{verb} {} {}", who(b"", Some(client)), text(filter))
        }
        Told::Published {
            client,
            topic,
            payload,
        } => {
            let [topic, payload] = [topic, payload.bytes].map(text);
            format!("published {} {topic} {payload}", who(b"", Some(client)))
        }
        Told::Occupied { up, filter } => {
            let verb = if up { "occupied" } else { "vacated" };
            format!("{verb} {}", text(filter))
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

/// A client that has come in, or wants to: where it is, what it speaks, its path and query, its headers' count, who it is.
fn arrived(of: &Arrived<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let ClientId { shard, session, .. } = of.client;
    let [protocol, path, query, user] = [of.protocol, of.path, of.query, of.user].map(text);
    let query = if query.is_empty() {
        query
    } else {
        format!("?{query}")
    };
    let user = if user.is_empty() {
        user
    } else {
        format!(" {user}")
    };
    format!("{shard}:{} {protocol} {path}{query}{user}", session.slot)
}
