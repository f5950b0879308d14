//! A peer: what it says, and what it must hear.
//!
//! It waits for no answer before it says more: the order of its calls is all that it relies upon.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde_json::{Value, json};

use pubsub::address::{Address, ClientId};
use pubsub::message::Payload;
use pubsub::protocol::Outcome;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::event::Told;
use pubsub::protocol::peer::{Audience, FilterKind, Watch, read_event, write_call};
use pubsub::topic::{Filter as RealFilter, Topic as RealTopic};

use crate::client::{Client, ClientIndex, End, Phase, Protocol};
use crate::emissions::{Emission, Room};
use crate::names::{FILTERS, Filter, PATTERNS, PLAIN, SHARDS, TOPICS, Topic, known};
use crate::native::SERVICES;
use crate::oracle::{Kind, Moment, Publication, Publisher};
use crate::profile::Profile;
use crate::stage::{Cue, Emitted, Request, Stage};

/// The rooms that a peer fills.
const ROOMS: usize = 2;

/// What only a peer has.
#[derive(Debug, Default)]
pub struct Peer {
    next_ticket: u64,
    /// By ticket.
    waiting: BTreeMap<u64, Waiting>,
    /// Who is in each of its rooms, by the order of its calls.
    members: [BTreeSet<ClientIndex>; ROOMS],
    subscriptions_max: usize,
    /// The clients that it hosts, by the bytes of their ids.
    hosted: BTreeMap<[u8; 15], ClientIndex>,
    /// The code of GOODBYE.
    pub goodbye: Option<String>,
}

/// What a call must come to.
#[derive(Debug)]
enum Waiting {
    /// Nothing but that it is done.
    Done,
    /// That, unless the client that it is about has gone.
    OfClient,
    /// Likewise: it is in this room, or is no more.
    Moved(usize, ClientIndex),
    Subscribed(usize),
    Unsubscribed(Filter, Option<usize>),
    Published(u64),
    Handles(&'static str),
    /// It watches from now on.
    Watches,
    /// An event for a service.
    Emitted(usize),
    /// One for clients.
    Emission(usize),
    /// The answer to a request.
    Answer(usize),
}

impl Peer {
    pub fn new(profile: &Profile) -> Peer {
        Peer {
            subscriptions_max: profile.server_limits.subscriptions_max,
            ..Peer::default()
        }
    }

    /// Has every call been answered, but requests, which have a time of their own?
    pub fn is_answered(&self) -> bool {
        let mut waiting = self.waiting.values();
        waiting.all(|waiting| matches!(waiting, Waiting::Answer(_)))
    }
}

fn json_of(value: &Value) -> Payload {
    Payload::json(Bytes::from(value.to_string()))
}

fn service_address(service: &'static str) -> Address {
    Address::Service(Bytes::from_static(service.as_bytes()))
}

impl Client {
    pub fn say_hello(&mut self, out: &mut Vec<u8>) {
        let name = format!("p{}", self.index);
        let hello = Call::Hello {
            name: name.as_bytes(),
            key: b"",
        };
        write_call(&hello, out);
    }

    pub fn act_as_peer(&mut self, profile: &Profile, stage: &mut Stage, out: &mut Vec<u8>) {
        match stage.rng.u8(..100) {
            0..=20 => {
                self.subscribe_as_peer(profile, stage, out);
            }
            21..=31 => self.unsubscribe_as_peer(stage, out),
            32..=52 => {
                let topic = any_topic(profile, stage);
                self.publish_as_peer(topic, stage, out);
            }
            53..=56 => {
                let service = SERVICES[stage.rng.usize(..SERVICES.len())];
                self.handle_as_peer(service, stage, out);
            }
            57 => {
                let service = SERVICES[2];
                self.native.handles.retain(|handled| *handled != service);
                stage.left_services.push(service);
                let event = service.as_bytes();
                self.call(Waiting::Done, stage, out, |ticket| Call::Unhandle {
                    ticket,
                    event,
                });
            }
            58..=63 => self.request_as_peer(stage, out),
            64..=66 => self.emit_to_service(stage, out),
            67..=69 => self.reply(stage, out),
            70..=79 => {
                if let Some((client, id)) = any_client(stage) {
                    let room = stage.rng.usize(..ROOMS);
                    self.join(client, id, room, stage, out);
                    // Without waiting for anything.
                    if stage.rng.u8(..4) > 0 {
                        self.emit_to_room(room, stage, out);
                    }
                }
            }
            80..=83 => {
                if let Some((client, id)) = any_client(stage) {
                    let room = stage.rng.usize(..ROOMS);
                    self.leave_room(client, id, room, stage, out);
                    if stage.rng.bool() {
                        self.emit_to_room(room, stage, out);
                    }
                }
            }
            84..=86 => self.emit_to_other_room(stage, out),
            87..=88 => {
                let room = stage.rng.usize(..ROOMS);
                self.emit_to_room(room, stage, out);
            }
            89..=90 => self.emit_to_all(stage, out),
            91..=93 => {
                if let Some((client, id)) = any_client(stage) {
                    self.emit_to_client(client, id, stage, out);
                    if stage.rng.u8(..5) == 0 {
                        self.disconnect(client, id, stage, out);
                    }
                }
            }
            94..=95 => write_call(&Call::Alive, out),
            _ => {
                // A burst to one topic.
                let topic = any_topic(profile, stage);
                for _ in 0..stage.rng.usize(2..20) {
                    self.publish_as_peer(topic, stage, out);
                }
            }
        }
    }

    /// Is told from now on of clients that come and go, and of other peers.
    pub fn watch(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        stage.hosts.watches(self.index);
        let mask = Watch(Watch::CONNECT.0 | Watch::DISCONNECT.0 | Watch::PEER.0);
        self.call(Waiting::Watches, stage, out, |ticket| Call::Watch {
            ticket,
            mask,
        });
    }

    fn call<'c>(
        &mut self,
        waiting: Waiting,
        stage: &mut Stage,
        out: &mut Vec<u8>,
        call: impl FnOnce(u64) -> Call<'c>,
    ) {
        self.peer.next_ticket += 1;
        let ticket = self.peer.next_ticket;
        let index = self.index;
        stage.note(|| format!("client {index} calls {ticket}: {waiting:?}"));
        self.peer.waiting.insert(ticket, waiting);
        write_call(&call(ticket), out);
    }

    // ------------------------------------------------------------------------------------- publish, subscribe

    pub fn subscribe_as_peer(
        &mut self,
        profile: &Profile,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) -> Filter {
        let one_of =
            |stage: &mut Stage, names: &[&'static str]| names[stage.rng.usize(..names.len())];
        let filter = match stage.rng.u8(..8) {
            0..=3 => Filter::Dotted(one_of(stage, &profile.filters)),
            4 | 5 => Filter::Channel(one_of(stage, &profile.channels)),
            6 => Filter::Pattern(one_of(stage, &profile.patterns)),
            _ => Filter::Shard(one_of(stage, &SHARDS)),
        };
        self.subscribe_to(filter, stage, out);
        filter
    }

    pub fn subscribe_to(&mut self, filter: Filter, stage: &mut Stage, out: &mut Vec<u8>) {
        let is_wanted = self.wanted.contains_key(&filter);
        if !is_wanted && self.wanted.len() >= self.peer.subscriptions_max {
            return;
        }
        let sent = stage.now();
        let stay = self.begin_stay(filter, sent, stage);
        let real = real_filter(filter);
        self.call(Waiting::Subscribed(stay), stage, out, |ticket| {
            Call::Subscribe {
                ticket,
                filter: &real,
            }
        });
    }

    fn unsubscribe_as_peer(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let wanted: Vec<Filter> = self.wanted.keys().copied().collect();
        if wanted.is_empty() {
            return;
        }
        let filter = wanted[stage.rng.usize(..wanted.len())];
        let sent = stage.now();
        let stay = self.end_stay(filter, sent, stage);
        let real = real_filter(filter);
        self.call(Waiting::Unsubscribed(filter, stay), stage, out, |ticket| {
            Call::Unsubscribe {
                ticket,
                filter: &real,
            }
        });
    }

    pub fn publish_as_peer(&mut self, topic: Topic, stage: &mut Stage, out: &mut Vec<u8>) {
        let (pad, echo) = (stage.any_pad(), stage.rng.u8(..4) > 0);
        let sent = stage.now();
        let publisher = Publisher::Client(self.index);
        let number = stage.oracle.publish(Publication {
            echo,
            ..Publication::new(publisher, topic, pad, sent)
        });
        let name = Bytes::from_static(topic.name().as_bytes());
        let real = match topic {
            Topic::Name(_) => RealTopic::channel(name),
            Topic::Shard(_) => RealTopic::shard(name),
        };
        let real = real.expect("a topic");
        let payload = Payload::json(Bytes::from(stage.oracle.message(number)));
        self.call(Waiting::Published(number), stage, out, |ticket| {
            Call::Publish {
                ticket,
                topic: &real,
                payload: &payload,
                echo,
            }
        });
    }

    // ------------------------------------------------------------------------------------- services

    pub fn handle_as_peer(&mut self, service: &'static str, stage: &mut Stage, out: &mut Vec<u8>) {
        if !self.native.handles.contains(&service) {
            self.native.handles.push(service);
        }
        if self.frozen_until == Moment::MAX {
            // It will not even hear what it is asked.
            stage.left_services.push(service);
        }
        let event = service.as_bytes();
        self.call(Waiting::Handles(service), stage, out, |ticket| {
            Call::Handle { ticket, event }
        });
    }

    fn request_as_peer(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let service = SERVICES[stage.rng.usize(..SERVICES.len())];
        let to = (stage.rng.u8(..4) == 0)
            .then(|| any_client(stage))
            .flatten();
        let timeout_ms = if stage.rng.u8(..4) == 0 {
            stage.rng.u32(1..2_000)
        } else {
            0
        };
        let number = stage.requests.len();
        stage.requests.push(Request {
            client: self.index,
            service: to.is_none().then_some(service),
            was_served: to.is_none() && stage.served.contains(&service),
            to: to.map(|(client, _)| client),
            replies: 0,
            asked: Vec::new(),
            answered: Vec::new(),
        });
        let address = to.map_or(service_address(service), |(_, id)| Address::Client(id));
        let payload = json_of(&json!({ "r": number }));
        self.call(Waiting::Answer(number), stage, out, |ticket| {
            Call::Request {
                ticket,
                to: &address,
                event: service.as_bytes(),
                payload: &payload,
                timeout_ms,
            }
        });
    }

    fn emit_to_service(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let number = stage.emits.len();
        let service = SERVICES[stage.rng.usize(..SERVICES.len())];
        stage.emits.push(Emitted {
            by: self.index,
            service,
            was_served: stage.served.contains(&service),
            came: 0,
            is_done: false,
        });
        let (to, payload) = (service_address(service), json_of(&json!({ "e": number })));
        self.call(Waiting::Emitted(number), stage, out, |ticket| Call::Emit {
            ticket,
            to: &to,
            event: service.as_bytes(),
            payload: &payload,
            volatile: false,
        });
    }

    /// Answers what it was asked, once, twice, or with an error.
    pub fn reply_as_peer(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let Some((theirs, number)) = self.native.asked.pop_front() else {
            return;
        };
        if stage.rng.u8(..5) == 0 {
            let outcome = Outcome::Failed {
                code: "mine".into(),
                reason: format!("no {number}").into(),
            };
            return write_call(
                &Call::Reply {
                    number: theirs,
                    outcome: &outcome,
                },
                out,
            );
        }
        stage.requests[number].answered.push(self.index);
        let outcome = Outcome::Data(json_of(&json!({ "answer": number, "pad": "yy" })));
        for _ in 0..stage.rng.usize(1..3) {
            write_call(
                &Call::Reply {
                    number: theirs,
                    outcome: &outcome,
                },
                out,
            );
        }
    }

    // ------------------------------------------------------------------------------------- clients

    fn room(&self, room: usize) -> Bytes {
        name_of((self.index, room))
    }

    pub fn join(
        &mut self,
        client: ClientIndex,
        id: ClientId,
        room: usize,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        self.peer.members[room].insert(client);
        let name = self.room(room);
        self.moves(room, client, true, stage);
        self.call(Waiting::Moved(room, client), stage, out, |ticket| {
            Call::Join {
                ticket,
                client: id,
                room: &name,
            }
        });
    }

    pub fn leave_room(
        &mut self,
        client: ClientIndex,
        id: ClientId,
        room: usize,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        self.peer.members[room].remove(&client);
        let name = self.room(room);
        self.moves(room, client, false, stage);
        self.call(Waiting::Moved(room, client), stage, out, |ticket| {
            Call::Leave {
                ticket,
                client: id,
                room: &name,
            }
        });
    }

    /// Others know from now on that it may be so.
    fn moves(&self, room: usize, client: ClientIndex, is_in: bool, stage: &mut Stage) {
        let ticket = self.peer.next_ticket + 1;
        let room = (self.index, room);
        stage.emissions.moves(room, client, is_in, ticket);
    }

    /// To a room that another peer fills.
    fn emit_to_other_room(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let room = stage.emissions.any_room(&mut stage.rng);
        if let Some(room) = room.filter(|room| room.0 != self.index) {
            self.emit_to_room_of(room, stage, out);
        }
    }

    pub fn emit_to_room_of(&mut self, room: Room, stage: &mut Stage, out: &mut Vec<u8>) {
        let (must, may) = stage.emissions.members(room);
        let number = stage.emissions.push(Emission {
            by: self.index,
            must,
            may,
            room: Some(room),
            is_for_all: false,
            left_out: None,
            is_counted: true,
            is_volatile: false,
            is_done: false,
            came: BTreeSet::new(),
        });
        let to = Audience::Clients {
            rooms: vec![name_of(room)],
            except_rooms: Vec::new(),
            except: None,
        };
        let payload = json_of(&json!({ "m": number }));
        self.call(Waiting::Emission(number), stage, out, |ticket| {
            Call::EmitMany {
                ticket,
                to: &to,
                event: b"many",
                payload: &payload,
                volatile: false,
            }
        });
    }

    /// To one room or both, now and then without those of the other, or without one client.
    pub fn emit_to_room(&mut self, room: usize, stage: &mut Stage, out: &mut Vec<u8>) {
        let mut rooms = vec![self.room(room)];
        let mut except_rooms = Vec::new();
        let mut must = self.peer.members[room].clone();
        let other = (room + 1) % ROOMS;
        match stage.rng.u8(..6) {
            0 => {
                rooms.push(self.room(other));
                must.extend(&self.peer.members[other]);
            }
            1 => {
                except_rooms.push(self.room(other));
                must.retain(|client| !self.peer.members[other].contains(client));
            }
            _ => {}
        }
        let except = (stage.rng.u8(..4) == 0)
            .then(|| any_client(stage))
            .flatten();
        if let Some((client, _)) = except {
            must.remove(&client);
        }
        let to = Audience::Clients {
            rooms,
            except_rooms,
            except: except.map(|(_, id)| id),
        };
        let volatile = stage.rng.u8(..6) == 0;
        self.emit_to_many(&to, must, None, volatile, stage, out);
    }

    /// To all of one room.
    pub fn emit_to_members(&mut self, room: usize, stage: &mut Stage, out: &mut Vec<u8>) {
        let to = Audience::Clients {
            rooms: vec![self.room(room)],
            except_rooms: Vec::new(),
            except: None,
        };
        let must = self.peer.members[room].clone();
        self.emit_to_many(&to, must, None, false, stage, out);
    }

    fn emit_to_all(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        let except = (stage.rng.u8(..4) == 0)
            .then(|| any_client(stage))
            .flatten();
        let left_out = except.map(|(client, _)| client);
        let must = stage
            .let_in
            .iter()
            .copied()
            .filter(|client| Some(*client) != left_out);
        let must = must.collect();
        let to = Audience::Clients {
            rooms: Vec::new(),
            except_rooms: Vec::new(),
            except: except.map(|(_, id)| id),
        };
        let volatile = stage.rng.u8(..6) == 0;
        self.emit_to_many(&to, must, Some(left_out), volatile, stage, out);
    }

    /// `all`: everybody may get it but this one.
    fn emit_to_many(
        &mut self,
        to: &Audience,
        must: BTreeSet<ClientIndex>,
        all: Option<Option<ClientIndex>>,
        volatile: bool,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        let number = stage.emissions.push(Emission {
            by: self.index,
            must,
            may: BTreeSet::new(),
            room: None,
            is_for_all: all.is_some(),
            left_out: all.flatten(),
            is_counted: true,
            is_volatile: volatile,
            is_done: false,
            came: BTreeSet::new(),
        });
        let payload = json_of(&json!({ "m": number, "pad": "x".repeat(stage.any_pad()) }));
        self.call(Waiting::Emission(number), stage, out, |ticket| {
            Call::EmitMany {
                ticket,
                to,
                event: b"many",
                payload: &payload,
                volatile,
            }
        });
    }

    pub fn emit_to_client(
        &mut self,
        client: ClientIndex,
        id: ClientId,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        let number = stage.emissions.push(Emission {
            by: self.index,
            must: BTreeSet::from([client]),
            may: BTreeSet::new(),
            room: None,
            is_for_all: false,
            left_out: None,
            is_counted: false,
            is_volatile: false,
            is_done: false,
            came: BTreeSet::new(),
        });
        let (to, payload) = (Address::Client(id), json_of(&json!({ "m": number })));
        self.call(Waiting::Emission(number), stage, out, |ticket| Call::Emit {
            ticket,
            to: &to,
            event: b"one",
            payload: &payload,
            volatile: false,
        });
    }

    pub fn disconnect(
        &mut self,
        client: ClientIndex,
        id: ClientId,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        if let Some(code) = stage.emissions.disconnect(self.index, client) {
            self.call(Waiting::OfClient, stage, out, |ticket| Call::Disconnect {
                ticket,
                client: id,
                code,
                reason: b"enough",
            });
        }
    }

    // ------------------------------------------------------------------------------------- hears

    pub fn digest_events(&mut self, stage: &mut Stage) {
        let inbox = std::mem::take(&mut self.inbox);
        let mut rest = &inbox[..];
        while self.phase != Phase::Ended
            && let Some((size, behind)) = rest.split_first_chunk()
            && let Some(frame) = behind.get(..u32::from_le_bytes(*size) as usize)
        {
            rest = &behind[frame.len()..];
            match read_event(frame) {
                Ok(told) => self.hear_event(&told, stage),
                Err(malformed) => {
                    let text = format!("client {}: {malformed:?}", self.index);
                    stage.oracle.violate(Kind::Content, text);
                }
            }
        }
        if self.phase != Phase::Ended {
            self.inbox = rest.to_vec();
        }
    }

    fn hear_event(&mut self, told: &Told<'_>, stage: &mut Stage) {
        let moment = stage.now();
        let index = self.index;
        stage.note(|| {
            let text: String = format!("{told:?}").chars().take(200).collect();
            format!("client {index} hears {text}")
        });
        if self.peer.goodbye.is_some() {
            let text = format!("client {index}: {told:?} behind GOODBYE");
            return stage.oracle.violate(Kind::Ending, text);
        }
        let value = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        match *told {
            Told::Welcome { .. } if self.phase == Phase::Connecting => {
                self.phase = Phase::Open;
                self.was_let_in = true;
            }
            Told::Goodbye { code, .. } => self.hear_goodbye(code, stage),
            Told::Probe if self.phase == Phase::Open => {
                if self.is_talking() && !self.refuses_pings {
                    let mut alive = Vec::new();
                    write_call(&Call::Alive, &mut alive);
                    self.write(&alive, stage);
                }
            }
            Told::Message {
                topic,
                filter,
                context,
                payload,
            } => {
                let message = value(payload.bytes);
                let topic = std::str::from_utf8(topic).unwrap_or_default();
                let filter = known_filter(filter, context);
                let (Some(filter), Some(number)) = (filter, message["n"].as_u64()) else {
                    let text = format!("client {index}: a delivery {told:?}");
                    return stage.oracle.violate(Kind::Content, text);
                };
                let pad = message["pad"].as_str().map_or(0, str::len);
                let stay = self.stays.get(&filter).copied();
                stage
                    .oracle
                    .deliver(index, number, topic, filter, pad, stay);
            }
            Told::Gap { topic, count } => {
                let topic = std::str::from_utf8(topic).unwrap_or_default();
                stage.oracle.gap(index, topic, count);
            }
            Told::Request {
                number,
                event,
                payload,
                ..
            } => self.hear_request_as_peer(number, event, &value(payload.bytes), stage),
            Told::Event { event, payload, .. } => {
                let is_right = self.hear_emitted(event, &value(payload.bytes), stage);
                if !is_right {
                    let text = format!("client {index}: a wrong or doubled event {told:?}");
                    stage.oracle.violate(Kind::Twice, text);
                }
            }
            Told::Connect(arrived) => {
                let client = stage.hosts.connect(index, arrived.query, &mut stage.oracle);
                let id = arrived.client.to_bytes();
                self.peer.hosted.extend(client.map(|client| (id, client)));
            }
            Told::Disconnect { client, .. } => {
                let client = self.peer.hosted.remove(&client.to_bytes());
                stage.hosts.disconnect(index, client, &mut stage.oracle);
            }
            Told::Peer { up, name } => stage.hosts.peer(index, name, up, &mut stage.oracle),
            Told::Done { ticket, payload } => {
                let is_right = match self.peer.waiting.remove(&ticket) {
                    Some(waiting) => {
                        self.is_done(ticket, waiting, &value(payload.bytes), moment, stage)
                    }
                    None => false,
                };
                if !is_right {
                    let text = format!("client {index}: {told:?}");
                    stage.oracle.violate(Kind::Answer, text);
                }
            }
            Told::Failed { ticket, code, .. } => {
                let code = std::str::from_utf8(code).unwrap_or_default();
                let is_right = match self.peer.waiting.remove(&ticket) {
                    Some(waiting) => self.may_fail(&waiting, code, stage),
                    None => false,
                };
                if !is_right {
                    let text = format!("client {index}: {told:?}");
                    stage.oracle.violate(Kind::Answer, text);
                }
            }
            _ => {
                let text = format!("client {index}: {told:?}");
                stage.oracle.violate(Kind::Content, text);
            }
        }
    }

    fn hear_goodbye(&mut self, code: &[u8], stage: &mut Stage) {
        let code = String::from_utf8_lossy(code).into_owned();
        if self.phase == Phase::Connecting {
            // As HTTP would say it.
            let status = match &code[..] {
                "busy" | "going_away" => 503,
                "timeout" => 408,
                _ => 0,
            };
            stage.network.borrow_mut().client_closes(self.connection);
            return self.over(End::Refused(status), stage);
        }
        self.peer.goodbye = Some(code);
        // It says no more and waits for the end.
        self.closed.get_or_insert(0);
        stage.network.borrow_mut().client_finishes(self.connection);
    }

    fn hear_request_as_peer(&mut self, theirs: u64, event: &[u8], data: &Value, stage: &mut Stage) {
        let number = data["r"].as_u64().unwrap_or(u64::MAX) as usize;
        let Some(request) = stage.requests.get_mut(number) else {
            let text = format!("client {}: a request {data}", self.index);
            return stage.oracle.violate(Kind::Content, text);
        };
        let is_for_me = request
            .service
            .is_some_and(|service| service.as_bytes() == event);
        if !is_for_me || !request.asked.is_empty() {
            let text = format!("client {} is asked {data}: {request:?}", self.index);
            stage.oracle.violate(Kind::Twice, text);
        }
        request.asked.push(self.index);
        self.native.asked.push_back((theirs, number));
    }

    fn hear_emitted(&mut self, event: &[u8], data: &Value, stage: &mut Stage) -> bool {
        if let Some(number) = data["back"].as_u64() {
            let back = stage.backs.get_mut(number as usize);
            return event == b"back"
                && back.is_some_and(|back| std::mem::take(back) == Some(self.index));
        }
        let number = data["e"].as_u64().unwrap_or(u64::MAX) as usize;
        let Some(emitted) = stage.emits.get_mut(number) else {
            return false;
        };
        emitted.came += 1;
        emitted.came == 1 && emitted.service.as_bytes() == event
    }

    fn is_done(
        &mut self,
        ticket: u64,
        waiting: Waiting,
        answer: &Value,
        moment: Moment,
        stage: &mut Stage,
    ) -> bool {
        match waiting {
            Waiting::Done | Waiting::OfClient => {}
            Waiting::Moved(room, client) => {
                let room = (self.index, room);
                stage.emissions.moved(room, client, ticket);
                stage.cues.push(Cue::Joined(room));
            }
            Waiting::Subscribed(stay) => {
                let filter = stage.oracle.stays[stay].filter;
                stage.oracle.stays[stay].acked.get_or_insert(moment);
                self.stays.insert(filter, stay);
                stage.cues.push(Cue::Subscribed(filter));
            }
            Waiting::Unsubscribed(filter, stay) => {
                if let Some(stay) = stay {
                    stage.oracle.stays[stay].left_acked = Some(moment);
                }
                self.stays.remove(&filter);
                stage.cues.push(Cue::Unsubscribed(filter));
            }
            Waiting::Published(number) => {
                stage.oracle.publications[number as usize].acked = Some(moment);
            }
            Waiting::Handles(service) => {
                if self.native.handles.contains(&service) && !stage.served.contains(&service) {
                    stage.served.push(service);
                }
            }
            Waiting::Watches => stage.hosts.is_watching(self.index, moment),
            Waiting::Emitted(number) => stage.emits[number].is_done = true,
            Waiting::Emission(number) => stage.emissions.done(number),
            Waiting::Answer(number) => {
                let request = &mut stage.requests[number];
                request.replies += 1;
                return request.replies == 1
                    && answer["answer"].as_u64() == Some(number as u64)
                    && !request.answered.is_empty();
            }
        }
        true
    }

    fn may_fail(&mut self, waiting: &Waiting, code: &str, stage: &mut Stage) -> bool {
        match *waiting {
            Waiting::OfClient | Waiting::Moved(..) => code == "no_handler",
            Waiting::Emitted(number) => {
                let emitted = &stage.emits[number];
                if emitted.was_served {
                    let text = format!("nobody handles {emitted:?}");
                    stage.unserved.push((emitted.service, text));
                }
                code == "no_handler"
            }
            Waiting::Answer(number) => {
                let request = &mut stage.requests[number];
                request.replies += 1;
                if let Some(service) = request.service
                    && code == "no_handler"
                    && request.was_served
                {
                    let text = format!("client {}: {code} to {request:?}", self.index);
                    stage.unserved.push((service, text));
                }
                let is_first = request.replies == 1;
                is_first && ["no_handler", "timeout", "busy", "mine"].contains(&code)
            }
            _ => false,
        }
    }
}

fn name_of((peer, room): Room) -> Bytes {
    Bytes::from(format!("p{peer}.{room}"))
}

/// A native client whose id is known.
pub fn any_client(stage: &mut Stage) -> Option<(ClientIndex, ClientId)> {
    let count = stage.sessions.len();
    let chosen = (count > 0).then(|| stage.rng.usize(..count))?;
    let (id, client) = stage.sessions.iter().nth(chosen)?;
    Some((*client, id.parse().ok()?))
}

fn any_topic(profile: &Profile, stage: &mut Stage) -> Topic {
    if stage.rng.u8(..6) == 0 {
        return Topic::Shard(SHARDS[stage.rng.usize(..SHARDS.len())]);
    }
    Topic::Name(profile.channels[stage.rng.usize(..profile.channels.len())])
}

fn real_filter(filter: Filter) -> RealFilter {
    let name = Bytes::from_static(filter.name().as_bytes());
    let filter = match filter {
        Filter::Dotted(_) => RealFilter::dotted(name),
        Filter::Room(_) | Filter::Channel(_) => RealFilter::exact(name),
        Filter::Pattern(_) => RealFilter::glob(name),
        Filter::Shard(_) => RealFilter::shard(name),
    };
    filter.expect("a filter")
}

/// The filter that was meant by one that came back.
fn known_filter(kind: FilterKind, written: &[u8]) -> Option<Filter> {
    let written = std::str::from_utf8(written).ok()?;
    match kind {
        FilterKind::Dotted => known(written, &FILTERS).map(Filter::Dotted),
        FilterKind::Exact => {
            let name = known(written, &TOPICS).or_else(|| known(written, &PLAIN));
            name.map(Filter::Channel)
        }
        FilterKind::Glob => known(written, &PATTERNS).map(Filter::Pattern),
        FilterKind::Shard => known(written, &SHARDS).map(Filter::Shard),
        FilterKind::Room => None,
    }
}

/// Can a peer emit to clients of this protocol, and put them into rooms?
pub fn is_hostable(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Native | Protocol::Clusterws(_))
}
