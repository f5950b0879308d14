//! A ClusterWS client: what it says, and what it must hear.
//!
//! Nothing is acked. But the commands of a connection are carried out in their order, so what comes proves what was
//! said before: the client's own publication that comes back, all that it said before that; any message of a channel,
//! the subscription to it. (But for topics whose messages take the place of older ones, before others that wait.) From then on a stay is certain; until then what comes may come. A client subscribes again to
//! a channel that it has left only when it is certain of that, since messages do not say to which stay they belong.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::client::Client;
use crate::names::{Filter, PLAIN, Policy, TOPICS, Topic, known};
use crate::native::SERVICES;
use crate::oracle::{Kind, Moment, Publication, Publisher};
use crate::profile::Profile;
use crate::stage::{Cue, Emitted, Stage};

/// Everything in which clients differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dialect {
    pub path: &'static str,
    key: &'static str,
    is_binary: bool,
    ping: (u8, &'static [u8]),
    pong: (u8, &'static [u8]),
    /// Are publications relayed from whoever is not subscribed?
    relays_all: bool,
    /// Does it know a heartbeat of the client's own?
    has_own_heartbeat: bool,
}

const BINARY: u8 = 0x2;
const TEXT: u8 = 0x1;

const NPM: Dialect = Dialect {
    path: "/clusterws",
    key: "#",
    is_binary: false,
    ping: (BINARY, b"9"),
    pong: (BINARY, b"A"),
    relays_all: false,
    has_own_heartbeat: false,
};

const OLD: Dialect = Dialect {
    path: "/clusterws?v=1",
    ping: (TEXT, b"#0"),
    pong: (TEXT, b"#1"),
    has_own_heartbeat: true,
    ..NPM
};

pub const DIALECTS: [Dialect; 5] = [
    NPM,
    Dialect {
        path: "/clusterws?binary=1",
        is_binary: true,
        ..NPM
    },
    OLD,
    Dialect {
        path: "/clusterws?v=1&binary=1",
        is_binary: true,
        ping: (BINARY, b"#0"),
        pong: (BINARY, b"#1"),
        ..OLD
    },
    Dialect {
        path: "/clusterws?v=0",
        key: "m",
        relays_all: true,
        has_own_heartbeat: false,
        ..OLD
    },
];

/// What only a ClusterWS client has.
#[derive(Debug)]
pub struct Clusterws {
    pub dialect: Dialect,
    /// The interval of the pings, once it was told.
    interval_ms: u64,
    is_configured: bool,
    /// What it said that nothing has proved yet.
    unproved: VecDeque<Said>,
    /// Own heartbeats that wait for an answer.
    heartbeats: u32,
    connected_at_ms: u64,
    pub pings: u64,
    /// When the last ping came, if nothing has been late since.
    pub pinged_at_ms: Option<u64>,
}

#[derive(Debug)]
enum Said {
    Subscribed(Filter, usize),
    Unsubscribed(Filter, usize),
    /// `is_certain`: it will come back, whatever happens.
    Published {
        number: u64,
        is_certain: bool,
    },
    Emitted(usize),
}

impl Clusterws {
    pub fn new(dialect: Dialect, profile: &Profile, now_ms: u64) -> Clusterws {
        Clusterws {
            dialect,
            interval_ms: profile.limits.clusterws_ping_interval_ms,
            is_configured: false,
            unproved: VecDeque::new(),
            heartbeats: 0,
            connected_at_ms: now_ms,
            pings: 0,
            pinged_at_ms: None,
        }
    }

    /// Has everything come that is certain to come?
    pub fn is_answered(&self) -> bool {
        let is_certain =
            |said: &Said| matches!(said, Said::Published { is_certain, .. } if *is_certain);
        self.is_configured && self.heartbeats == 0 && !self.unproved.iter().any(is_certain)
    }

    /// Is the next ping too late?
    pub fn is_ping_late(&self, now_ms: u64) -> bool {
        self.pinged_at_ms
            .is_some_and(|at_ms| now_ms > at_ms + self.interval_ms)
    }
}

impl Client {
    pub fn act_by_clusterws(&mut self, profile: &Profile, stage: &mut Stage, out: &mut Vec<u8>) {
        let wanted: Vec<&'static str> = self.wanted.keys().map(|filter| filter.name()).collect();
        let any_wanted = |stage: &mut Stage| {
            (!wanted.is_empty()).then(|| wanted[stage.rng.usize(..wanted.len())])
        };
        match stage.rng.u8(..100) {
            0..=27 => {
                let room = profile.channels[stage.rng.usize(..profile.channels.len())];
                let proves = stage.rng.u8(..5) > 0;
                self.subscribe_to_room(room, proves, stage, out);
            }
            28..=40 => {
                if let Some(room) = any_wanted(stage) {
                    self.unsubscribe_from_room(room, stage, out);
                }
                let other = self.wanted.keys().next().map(|filter| filter.name());
                if let Some(room) = other.filter(|_| stage.rng.bool()) {
                    self.publish_to_room(room, stage, out);
                }
            }
            41..=72 => {
                let any = match stage.rng.u8(..8) {
                    0 => None,
                    _ => any_wanted(stage),
                };
                let room = any.unwrap_or_else(|| TOPICS[stage.rng.usize(..TOPICS.len())]);
                self.publish_to_room(room, stage, out);
            }
            73..=76 => {
                let payload = stage.rng.u8(..).to_string().into_bytes();
                self.frame(0x9, &payload, true, stage, out);
                self.pings.push_back(payload);
            }
            77..=86 => {
                let number = stage.emits.len();
                let service = SERVICES[stage.rng.usize(..SERVICES.len())];
                stage.emits.push(Emitted {
                    by: self.index,
                    service,
                    was_served: stage.served.contains(&service),
                    came: 0,
                    is_done: false,
                });
                self.say_to_room(json!(["e", service, { "e": number }]), stage, out);
                self.clusterws.unproved.push_back(Said::Emitted(number));
            }
            87..=89 if self.bad_texts < 8 => {
                self.bad_texts += 1;
                let texts = ["{", "[]", "{\"x\":[\"s\",\"s\",\"a\"]}", "8"];
                let text = texts[stage.rng.usize(..texts.len())];
                self.say_in_frames(TEXT, text, stage, out);
            }
            90..=92 => {
                // Nobody knows what this would be, and nobody minds.
                self.say_to_room(json!(["s", "x", "a"]), stage, out);
                self.say_to_room(json!(["z", "a", 1]), stage, out);
            }
            93 if self.clusterws.dialect.has_own_heartbeat => {
                self.say_in_frames(TEXT, "#4", stage, out);
                self.clusterws.heartbeats += 1;
            }
            _ => {
                // A burst to one room.
                if let Some(room) = any_wanted(stage) {
                    for _ in 0..stage.rng.usize(2..20) {
                        self.publish_to_room(room, stage, out);
                    }
                }
            }
        }
    }

    /// Subscribes to a room, unless it may still hear of it from before; and makes sure that it will know when it has.
    pub fn subscribe_to_room(
        &mut self,
        room: &'static str,
        proves: bool,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        let filter = Filter::Room(room);
        let is_wanted = self.wanted.contains_key(&filter);
        if !is_wanted && self.stays.contains_key(&filter) {
            return;
        }
        let sent = stage.now();
        let stay = self.begin_stay(filter, sent, stage);
        self.say_to_room(json!(["s", "s", room]), stage, out);
        if !is_wanted {
            self.stays.insert(filter, stay);
            let said = Said::Subscribed(filter, stay);
            self.clusterws.unproved.push_back(said);
        }
        if proves {
            self.publish_to_room(room, stage, out);
        }
    }

    fn unsubscribe_from_room(&mut self, room: &'static str, stage: &mut Stage, out: &mut Vec<u8>) {
        let sent = stage.now();
        let filter = Filter::Room(room);
        if let Some(stay) = self.end_stay(filter, sent, stage) {
            let said = Said::Unsubscribed(filter, stay);
            self.clusterws.unproved.push_back(said);
        }
        self.say_to_room(json!(["s", "u", room]), stage, out);
    }

    pub fn publish_to_room(&mut self, room: &'static str, stage: &mut Stage, out: &mut Vec<u8>) {
        let pad = stage.any_pad();
        let sent = stage.now();
        let (topic, filter) = (Topic::Name(room), Filter::Room(room));
        let comes_back = self.wanted.contains_key(&filter);
        let publisher = Publisher::Client(self.index);
        let number = stage.oracle.publish(Publication {
            is_refused: !comes_back && !self.clusterws.dialect.relays_all,
            ..Publication::new(publisher, topic, pad, sent)
        });
        let is_certain = comes_back && filter.policy(topic) == Policy::Close;
        self.clusterws
            .unproved
            .push_back(Said::Published { number, is_certain });
        let message: Value = serde_json::from_str(&stage.oracle.message(number)).unwrap();
        self.say_to_room(json!(["p", room, message]), stage, out);
    }

    /// Says something that will prove all that it has said so far.
    pub fn prove(&mut self, stage: &mut Stage, out: &mut Vec<u8>) {
        if !self.clusterws.unproved.is_empty() {
            self.subscribe_to_room(PLAIN[0], true, stage, out);
        }
    }

    fn say_to_room(&mut self, elements: Value, stage: &mut Stage, out: &mut Vec<u8>) {
        let text = format!(r#"{{"{}":{elements}}}"#, self.clusterws.dialect.key);
        let is_binary = self.clusterws.dialect.is_binary != (stage.rng.u8(..4) == 0);
        self.say_in_frames(if is_binary { BINARY } else { TEXT }, &text, stage, out);
    }

    // ---------------------------------------------------------------------------------------------- hears

    pub fn hear_clusterws(&mut self, opcode: u8, payload: &[u8], stage: &mut Stage) {
        let moment = stage.now();
        let index = self.index;
        stage.note(|| {
            let text: String = String::from_utf8_lossy(payload).chars().take(150).collect();
            format!("client {index} hears {text}")
        });
        let dialect = self.clusterws.dialect;
        let is_right = if (opcode, payload) == dialect.ping {
            self.hear_ping(stage)
        } else if (opcode, payload) == (TEXT, b"#3") && self.clusterws.heartbeats > 0 {
            self.clusterws.heartbeats -= 1;
            true
        } else {
            let is_framed = opcode == if dialect.is_binary { BINARY } else { TEXT };
            let is_ascii = payload.is_ascii() || !dialect.is_binary;
            let message: Value = serde_json::from_slice(payload).unwrap_or_default();
            let elements = message.as_object().filter(|envelope| envelope.len() == 1);
            let elements = elements.and_then(|envelope| envelope.get(dialect.key)?.as_array());
            let elements = elements.map_or(&[][..], |elements| &elements[..]);
            is_framed && is_ascii && self.hear_elements(elements, moment, stage)
        };
        if !is_right {
            let text = String::from_utf8_lossy(payload);
            let text = format!("client {index}, {dialect:?}: {text} in a frame of {opcode}");
            stage.oracle.violate(Kind::Content, text);
        }
    }

    fn hear_elements(&mut self, elements: &[Value], moment: Moment, stage: &mut Stage) -> bool {
        let [Value::String(kind), Value::String(name), data] = elements else {
            return false;
        };
        match (&kind[..], self.clusterws.is_configured) {
            ("s", false) => {
                self.clusterws.is_configured = true;
                let mut config = json!({ "ping": self.clusterws.interval_ms });
                if self.clusterws.dialect.key == "#" {
                    config["binary"] = self.clusterws.dialect.is_binary.into();
                }
                name == "c" && *data == config
            }
            ("p", true) => {
                let room = known(name, &TOPICS).or_else(|| known(name, &PLAIN));
                let (Some(room), Some(number)) = (room, data["n"].as_u64()) else {
                    return false;
                };
                let filter = Filter::Room(room);
                let stay = self.stays.get(&filter).copied();
                let pad = data["pad"].as_str().map_or(0, str::len);
                (stage.oracle).deliver(self.index, number, name, filter, pad, stay);
                // One that took the place of an older one has overtaken others.
                if filter.policy(Topic::Name(room)) != Policy::Conflate {
                    self.proved(number, stay, moment, stage);
                }
                true
            }
            ("e", true) if name == "#gap" => {
                let channel = data["channel"].as_str().unwrap_or_default();
                let count = data["count"].as_u64().unwrap_or_default();
                stage.oracle.gap(self.index, channel, count);
                true
            }
            ("e", true) if data["m"].is_u64() => {
                let number = data["m"].as_u64().unwrap_or(u64::MAX);
                stage.emissions.hear(self.index, number, &mut stage.oracle);
                true
            }
            ("e", true) => {
                let number = data["back"].as_u64().unwrap_or(u64::MAX) as usize;
                let back = stage.backs.get_mut(number);
                let is_mine = back.is_some_and(|back| std::mem::take(back) == Some(self.index));
                name == "back" && is_mine
            }
            (_, _) => false,
        }
    }

    /// A message of this stay came. What was said before has taken effect.
    fn proved(&mut self, number: u64, stay: Option<usize>, moment: Moment, stage: &mut Stage) {
        let proves = |said: &Said| match said {
            Said::Subscribed(_, begun) => Some(*begun) == stay,
            Said::Published { number: own, .. } => *own == number,
            Said::Unsubscribed(..) | Said::Emitted(_) => false,
        };
        let Some(last) = self.clusterws.unproved.iter().rposition(proves) else {
            return;
        };
        let proved: Vec<Said> = self.clusterws.unproved.drain(..=last).collect();
        for said in proved {
            match said {
                Said::Subscribed(filter, stay) => {
                    stage.oracle.stays[stay].acked.get_or_insert(moment);
                    stage.cues.push(Cue::Subscribed(filter));
                }
                Said::Unsubscribed(filter, stay) => {
                    stage.oracle.stays[stay].left_acked = Some(moment);
                    self.stays.remove(&filter);
                    stage.cues.push(Cue::Unsubscribed(filter));
                }
                Said::Published { number, .. } => {
                    stage.oracle.publications[number as usize].acked = Some(moment);
                }
                Said::Emitted(number) => stage.emits[number].is_done = true,
            }
        }
    }

    /// Pings come no sooner than told, but for a tenth, and no later where nothing else is late.
    fn hear_ping(&mut self, stage: &mut Stage) -> bool {
        let (now_ms, is_kind) = {
            let network = stage.network.borrow();
            (network.now_ms, network.is_kind)
        };
        let clusterws = &mut self.clusterws;
        clusterws.pings += 1;
        let is_late = is_kind && clusterws.is_ping_late(now_ms);
        clusterws.pinged_at_ms = is_kind.then_some(now_ms);
        let least_ms = clusterws.interval_ms - clusterws.interval_ms / 10;
        let is_early = clusterws.pings * least_ms > now_ms - clusterws.connected_at_ms;
        let (opcode, pong) = clusterws.dialect.pong;
        if !self.is_mute && self.closed.is_none() && !self.refuses_pings {
            let mut out = Vec::new();
            self.frame(opcode, pong, true, stage, &mut out);
            self.write(&out, stage);
        }
        self.clusterws.is_configured && !is_late && !is_early
    }
}
