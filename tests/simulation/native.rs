//! What a native client says: commands in JSON, at random or one by one.

use std::collections::VecDeque;
use std::fmt::Write as _;

use crate::client::{Client, ClientIndex, Protocol};
use crate::names::{Filter, TOPICS, Topic};
use crate::oracle::{Moment, Publication, Publisher};
use crate::stage::{Emitted, Request, Stage};

pub const SERVICES: [&str; 3] = ["add", "mul", "rare"];

/// What only a native client has, and of it a peer what it takes to serve.
#[derive(Default)]
pub struct Native {
    pub expected: VecDeque<Expected>,
    /// The services that it handles by its commands.
    pub handles: Vec<&'static str>,
    /// Requests that it was asked: their number there, and the asker's.
    pub asked: VecDeque<(u64, usize)>,
    next_id: u64,
}

/// The answer that a command must get.
#[derive(Debug)]
pub struct Expected {
    /// As the answer has it: type, and action or code.
    pub kind: &'static str,
    pub action: &'static str,
    pub name: String,
    pub id: Option<u64>,
    pub then: Then,
}

/// What a right answer means.
#[derive(Debug)]
pub enum Then {
    Nothing,
    Subscribed(usize),
    Unsubscribed(Filter, Option<usize>),
    Published(u64),
    Handles(&'static str),
    Emitted(usize),
}

impl Client {
    /// One command or another.
    pub fn act_natively(
        &mut self,
        filters: &[&'static str],
        stage: &mut Stage,
        frames: &mut Vec<u8>,
    ) {
        match stage.rng.u8(..100) {
            0..=26 => {
                let filter = filters[stage.rng.usize(..filters.len())];
                self.subscribe(filter, stage, frames);
            }
            27..=42 => {
                let wanted: Vec<_> = self.wanted.keys().collect();
                let filter = if wanted.is_empty() || stage.rng.u8(..10) == 0 {
                    filters[stage.rng.usize(..filters.len())]
                } else {
                    wanted[stage.rng.usize(..wanted.len())].name()
                };
                self.unsubscribe(filter, stage, frames);
            }
            43..=74 => {
                let topic = TOPICS[stage.rng.usize(..TOPICS.len())];
                self.publish(topic, stage, frames);
            }
            75..=76 => self.ask_for_pong(stage, frames),
            77 => {
                let payload: Vec<u8> = (0..stage.rng.usize(..20)).map(|_| b'p').collect();
                self.frame(0x9, &payload, true, stage, frames);
                self.pings.push_back(payload);
            }
            78..=79 => {
                self.ask_who_it_is(stage, frames);
            }
            80..=82 => {
                let service = SERVICES[stage.rng.usize(..SERVICES.len())];
                self.handle(service, stage, frames);
            }
            83 => {
                let service = SERVICES[2];
                let id = self.expect("ack", "unhandle", service.into(), Then::Nothing);
                self.native.handles.retain(|handled| *handled != service);
                stage.left_services.push(service);
                self.say_in_frames(
                    0x1,
                    &format!(r#"{{"type":"unhandle","event":"{service}","id":{id}}}"#),
                    stage,
                    frames,
                );
            }
            84..=90 => self.request(stage, frames),
            91..=93 => self.emit(stage, frames),
            94..=96 => self.reply(stage, frames),
            97 => self.say_nonsense(stage, frames),
            _ => {
                // A burst to one topic.
                let topic = TOPICS[stage.rng.usize(..TOPICS.len())];
                for _ in 0..stage.rng.usize(2..20) {
                    self.publish(topic, stage, frames);
                }
            }
        }
    }

    pub fn subscribe(&mut self, filter: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let sent = stage.now();
        let stay = self.begin_stay(Filter::Dotted(filter), sent, stage);
        let id = self.expect("ack", "subscribe", filter.into(), Then::Subscribed(stay));
        let text = format!(r#"{{"type":"subscribe","topic":"{filter}","id":{id}}}"#);
        self.say_in_frames(0x1, &text, stage, frames);
    }

    pub fn unsubscribe(&mut self, filter: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let sent = stage.now();
        let stay = self.end_stay(Filter::Dotted(filter), sent, stage);
        let then = Then::Unsubscribed(Filter::Dotted(filter), stay);
        let id = self.expect("ack", "unsubscribe", filter.into(), then);
        let text = format!(r#"{{"type":"unsubscribe","topic":"{filter}","id":{id}}}"#);
        self.say_in_frames(0x1, &text, stage, frames);
    }

    pub fn publish(&mut self, topic: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let pad = stage.any_pad();
        self.publish_of(topic, pad, stage, frames);
    }

    /// Publishes a message with so many bytes that say nothing.
    pub fn publish_of(
        &mut self,
        topic: &'static str,
        pad: usize,
        stage: &mut Stage,
        frames: &mut Vec<u8>,
    ) {
        let sent = stage.now();
        let echo = stage.rng.u8(..4) > 0;
        let publisher = Publisher::Client(self.index);
        let number = stage.oracle.publish(Publication {
            echo,
            ..Publication::new(publisher, Topic::Name(topic), pad, sent)
        });
        let id = self.expect("ack", "publish", topic.into(), Then::Published(number));
        let message = stage.oracle.message(number);
        let mut text =
            format!(r#"{{"type":"publish","topic":"{topic}","id":{id},"message":{message}"#);
        if !echo {
            text.push_str(r#","echo":false"#);
        }
        text.push('}');
        self.say_in_frames(0x1, &text, stage, frames);
    }

    pub fn handle(&mut self, service: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let id = self.expect("ack", "handle", service.into(), Then::Handles(service));
        if !self.native.handles.contains(&service) {
            self.native.handles.push(service);
        }
        if self.frozen_until == Moment::MAX {
            // It will not even hear what it is asked.
            stage.left_services.push(service);
        }
        let text = format!(r#"{{"type":"handle","event":"{service}","id":{id}}}"#);
        self.say_in_frames(0x1, &text, stage, frames);
    }

    /// Its id, by which others can speak to it.
    pub fn ask_who_it_is(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let id = self.expect("session", "", String::new(), Then::Nothing);
        let text = format!(r#"{{"type":"whoami","id":{id}}}"#);
        self.say_in_frames(0x1, &text, stage, frames);
    }

    pub fn ask_for_pong(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let id = self.expect("pong", "", String::new(), Then::Nothing);
        self.say_in_frames(
            0x1,
            &format!(r#"{{"type":"ping","id":{id}}}"#),
            stage,
            frames,
        );
    }

    fn request(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let service = SERVICES[stage.rng.usize(..SERVICES.len())];
        let known: Vec<_> = stage.sessions.clone().into_iter().collect();
        let to = (stage.rng.u8(..4) == 0 && !known.is_empty())
            .then(|| known[stage.rng.usize(..known.len())].clone());
        let timeout_ms = (stage.rng.u8(..4) == 0).then(|| stage.rng.u32(1..2_000));
        self.ask(service, to, timeout_ms, stage, frames);
    }

    /// Asks whoever handles this, with the broker's own deadline.
    pub fn request_service(
        &mut self,
        service: &'static str,
        stage: &mut Stage,
        frames: &mut Vec<u8>,
    ) {
        self.ask(service, None, None, stage, frames);
    }

    fn ask(
        &mut self,
        service: &'static str,
        to: Option<(String, ClientIndex)>,
        timeout_ms: Option<u32>,
        stage: &mut Stage,
        frames: &mut Vec<u8>,
    ) {
        let number = stage.requests.len();
        let mut text = format!(
            r#"{{"type":"request","event":"{service}","id":"r{number}","data":{{"r":{number}}}"#
        );
        if let Some((session, _)) = &to {
            let _ = write!(text, r#","to":"client:{session}""#);
        }
        if let Some(timeout_ms) = timeout_ms {
            let _ = write!(text, r#","timeout":{timeout_ms}"#);
        }
        text.push('}');
        stage.requests.push(Request {
            client: self.index,
            service: to.is_none().then_some(service),
            was_served: to.is_none() && stage.served.contains(&service),
            to: to.map(|(_, client)| client),
            replies: 0,
            asked: Vec::new(),
            answered: Vec::new(),
        });
        self.say_in_frames(0x1, &text, stage, frames);
    }

    fn emit(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let number = stage.emits.len();
        let service = SERVICES[stage.rng.usize(..SERVICES.len())];
        stage.emits.push(Emitted {
            by: self.index,
            service,
            was_served: stage.served.contains(&service),
            came: 0,
            is_done: false,
        });
        let text = format!(r#"{{"type":"event","event":"{service}","data":{{"e":{number}}}}}"#);
        self.say_in_frames(0x1, &text, stage, frames);
        // Behind it something that is answered.
        let id = self.expect("pong", "", String::new(), Then::Emitted(number));
        self.say_in_frames(
            0x1,
            &format!(r#"{{"type":"ping","id":{id}}}"#),
            stage,
            frames,
        );
    }

    /// Answers what it was asked, once, twice, or with an error.
    pub fn reply(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        if self.protocol == Protocol::Peer {
            return self.reply_as_peer(stage, frames);
        }
        let Some((theirs, number)) = self.native.asked.pop_front() else {
            return;
        };
        if stage.rng.u8(..5) == 0 {
            let text = format!(
                r#"{{"type":"reply","id":{theirs},"error":{{"code":"mine","reason":"no {number}"}}}}"#
            );
            self.say_in_frames(0x1, &text, stage, frames);
            return;
        }
        stage.requests[number].answered.push(self.index);
        let text =
            format!(r#"{{"type":"reply","id":{theirs},"data":{{"answer":{number},"pad":"yy"}}}}"#);
        for _ in 0..stage.rng.usize(1..3) {
            self.say_in_frames(0x1, &text, stage, frames);
        }
    }

    pub fn has_been_asked(&self) -> bool {
        !self.native.asked.is_empty()
    }

    fn say_nonsense(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        if self.bad_texts == 8 {
            return;
        }
        match stage.rng.u8(..3) {
            0 => {
                self.bad_texts += 1;
                self.native.expected.push_back(Expected {
                    kind: "error",
                    action: "bad_json",
                    name: String::new(),
                    id: None,
                    then: Then::Nothing,
                });
                self.say_in_frames(0x1, "{\"type\":\"publish\",", stage, frames);
            }
            1 => {
                self.bad_texts += 1;
                let id = self.expect("error", "bad_type", String::new(), Then::Nothing);
                self.say_in_frames(
                    0x1,
                    &format!(r#"{{"type":"shout","id":{id}}}"#),
                    stage,
                    frames,
                );
            }
            _ => {
                let id = self.expect("error", "bad_topic", String::new(), Then::Nothing);
                let text = format!(r#"{{"type":"publish","topic":"a..b","message":1,"id":{id}}}"#);
                self.say_in_frames(0x1, &text, stage, frames);
            }
        }
    }

    /// Requests for what it handles may fail from now on.
    pub fn leave_services(&mut self, stage: &mut Stage) {
        stage
            .left_services
            .extend(self.native.handles.iter().copied());
    }

    fn expect(
        &mut self,
        kind: &'static str,
        action: &'static str,
        name: String,
        then: Then,
    ) -> u64 {
        self.native.next_id += 1;
        self.native.expected.push_back(Expected {
            kind,
            action,
            name,
            id: Some(self.native.next_id),
            then,
        });
        self.native.next_id
    }
}
