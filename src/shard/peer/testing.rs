//! What the tests of hosts and rooms say for peers.

use bytes::Bytes;

use super::super::testing::{HEAD, House, Who};
use crate::address::ClientId;
use crate::message::Payload;
use crate::protocol::peer::Audience;
use crate::protocol::peer::call::Call;

/// How many shards there are, which is the host's, and which the client's.
pub const PLACES: [(usize, usize, usize); 5] =
    [(1, 0, 0), (3, 0, 0), (3, 0, 1), (3, 1, 0), (3, 2, 1)];

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
        assert_eq!(told, ["done 9"]);
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
