//! What a client says: commands, at random or one by one, in masked frames.

use std::fmt::Write as _;

use crate::client::{Client, ClientIndex, End, Expected, SERVICES, TOPICS, Then};
use crate::oracle::{Moment, Publication, Publisher};
use crate::stage::{Emitted, Request, Stage};

impl Client {
    /// One command or another.
    pub fn act(&mut self, filters: &[&'static str], stage: &mut Stage, frames: &mut Vec<u8>) {
        match stage.rng.u8(..100) {
            0..=26 => {
                let filter = filters[stage.rng.usize(..filters.len())];
                self.subscribe(filter, stage, frames);
            }
            27..=42 => {
                let mut wanted: Vec<_> = self.wanted.keys().copied().collect();
                wanted.sort_unstable();
                let filter = if wanted.is_empty() || stage.rng.u8(..10) == 0 {
                    filters[stage.rng.usize(..filters.len())]
                } else {
                    wanted[stage.rng.usize(..wanted.len())]
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
                let id = self.expect("session", "", String::new(), Then::Nothing);
                self.say(&format!(r#"{{"type":"whoami","id":{id}}}"#), stage, frames);
            }
            80..=82 => {
                let service = SERVICES[stage.rng.usize(..SERVICES.len())];
                self.handle(service, stage, frames);
            }
            83 => {
                let service = SERVICES[2];
                let id = self.expect("ack", "unhandle", service.into(), Then::Nothing);
                self.handles.retain(|handled| *handled != service);
                stage.left_services.push(service);
                self.say(
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
        let stay = match self.wanted.get(filter) {
            Some(stay) => *stay,
            None => stage.oracle.stay(self.index, filter, sent),
        };
        self.wanted.insert(filter, stay);
        let id = self.expect("ack", "subscribe", filter.into(), Then::Subscribed(stay));
        let text = format!(r#"{{"type":"subscribe","topic":"{filter}","id":{id}}}"#);
        self.say(&text, stage, frames);
    }

    pub fn unsubscribe(&mut self, filter: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let sent = stage.now();
        let stay = self.wanted.remove(filter);
        if let Some(stay) = stay {
            stage.oracle.stays[stay].left = Some(sent);
        }
        let then = Then::Unsubscribed(filter, stay);
        let id = self.expect("ack", "unsubscribe", filter.into(), then);
        let text = format!(r#"{{"type":"unsubscribe","topic":"{filter}","id":{id}}}"#);
        self.say(&text, stage, frames);
    }

    pub fn publish(&mut self, topic: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let pad = match stage.rng.u8(..20) {
            0 => stage.rng.usize(..3_000),
            1..=4 => stage.rng.usize(..200),
            _ => 0,
        };
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
        let number = stage.oracle.publish(Publication {
            publisher: Publisher::Client(self.index),
            topic,
            echo,
            pad,
            sent,
            acked: None,
            is_refused: false,
        });
        let id = self.expect("ack", "publish", topic.into(), Then::Published(number));
        let mut text = format!(
            r#"{{"type":"publish","topic":"{topic}","id":{id},"message":{{"n":{number},"pad":"{}"}}"#,
            "x".repeat(pad)
        );
        if !echo {
            text.push_str(r#","echo":false"#);
        }
        text.push('}');
        self.say(&text, stage, frames);
    }

    pub fn handle(&mut self, service: &'static str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let id = self.expect("ack", "handle", service.into(), Then::Handles(service));
        if !self.handles.contains(&service) {
            self.handles.push(service);
        }
        if self.frozen_until == Moment::MAX {
            // It will not even hear what it is asked.
            stage.left_services.push(service);
        }
        let text = format!(r#"{{"type":"handle","event":"{service}","id":{id}}}"#);
        self.say(&text, stage, frames);
    }

    pub fn ask_for_pong(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let id = self.expect("pong", "", String::new(), Then::Nothing);
        self.say(&format!(r#"{{"type":"ping","id":{id}}}"#), stage, frames);
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
        self.say(&text, stage, frames);
    }

    fn emit(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let number = stage.emits.len();
        let service = SERVICES[stage.rng.usize(..SERVICES.len())];
        stage.emits.push(Emitted {
            service,
            was_served: stage.served.contains(&service),
            came: 0,
            is_done: false,
        });
        let text = format!(r#"{{"type":"event","event":"{service}","data":{{"e":{number}}}}}"#);
        self.say(&text, stage, frames);
        // Behind it something that is answered.
        let id = self.expect("pong", "", String::new(), Then::Emitted(number));
        self.say(&format!(r#"{{"type":"ping","id":{id}}}"#), stage, frames);
    }

    /// Answers what it was asked, once, twice, or with an error.
    pub fn reply(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let Some((theirs, number)) = self.asked.pop_front() else {
            return;
        };
        if stage.rng.u8(..5) == 0 {
            let text = format!(
                r#"{{"type":"reply","id":{theirs},"error":{{"code":"mine","reason":"no {number}"}}}}"#
            );
            self.say(&text, stage, frames);
            return;
        }
        stage.requests[number].answered.push(self.index);
        let text =
            format!(r#"{{"type":"reply","id":{theirs},"data":{{"answer":{number},"pad":"yy"}}}}"#);
        for _ in 0..stage.rng.usize(1..3) {
            self.say(&text, stage, frames);
        }
    }

    pub fn has_been_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    fn say_nonsense(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        if self.bad_texts == 8 {
            return;
        }
        match stage.rng.u8(..3) {
            0 => {
                self.bad_texts += 1;
                self.expected.push_back(Expected {
                    kind: "error",
                    action: "bad_json",
                    name: String::new(),
                    id: None,
                    then: Then::Nothing,
                });
                self.say("{\"type\":\"publish\",", stage, frames);
            }
            1 => {
                self.bad_texts += 1;
                let id = self.expect("error", "bad_type", String::new(), Then::Nothing);
                self.say(&format!(r#"{{"type":"shout","id":{id}}}"#), stage, frames);
            }
            _ => {
                let id = self.expect("error", "bad_topic", String::new(), Then::Nothing);
                let text = format!(r#"{{"type":"publish","topic":"a..b","message":1,"id":{id}}}"#);
                self.say(&text, stage, frames);
            }
        }
    }

    /// Sends a close frame and nothing more.
    pub fn close(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        let sent = stage.now();
        for stay in self.wanted.values() {
            stage.oracle.stays[*stay].left = Some(sent);
        }
        self.leave_services(stage);
        let code: u16 = if stage.rng.bool() { 1000 } else { 3001 };
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(b"bye");
        self.frame(0x8, &payload, true, stage, frames);
        self.closed = Some(code);
        self.closed_at_ms = stage.network.borrow().now_ms;
        let index = self.index;
        stage.note(|| format!("client {index} closes with {code}"));
    }

    /// Is gone without a word.
    pub fn vanish(&mut self, stage: &mut Stage) {
        self.leave_services(stage);
        stage.network.borrow_mut().client_resets(self.connection);
        self.over(End::Own, stage);
    }

    /// Half of a frame, and then nothing ever.
    pub fn fall_mute(&mut self, stage: &mut Stage, frames: &mut Vec<u8>) {
        self.leave_services(stage);
        frames.extend_from_slice(&[0x81, 0x85, 1, 2, 3, 4, 5]);
        self.is_mute = true;
        self.is_faulty = true;
    }

    /// Reads nothing more.
    pub fn stops_reading(&mut self, stage: &mut Stage) {
        self.frozen_until = Moment::MAX;
        self.is_faulty = true;
        self.leave_services(stage);
    }

    /// Requests for what it handles may fail from now on.
    pub fn leave_services(&mut self, stage: &mut Stage) {
        stage.left_services.extend(self.handles.iter().copied());
    }

    /// Closes its half of the connection without a close frame, and reads on.
    pub fn hang_up(&mut self, stage: &mut Stage) {
        self.leave_services(stage);
        self.is_faulty = true;
        self.is_mute = true;
        self.has_hung_up = true;
        stage.network.borrow_mut().client_finishes(self.connection);
    }

    fn expect(
        &mut self,
        kind: &'static str,
        action: &'static str,
        name: String,
        then: Then,
    ) -> u64 {
        self.next_id += 1;
        self.expected.push_back(Expected {
            kind,
            action,
            name,
            id: Some(self.next_id),
            then,
        });
        self.next_id
    }

    /// Appends a text message, now and then in fragments with a ping between them.
    fn say(&mut self, text: &str, stage: &mut Stage, frames: &mut Vec<u8>) {
        let index = self.index;
        stage.note(|| format!("client {index} says {}", &text[..text.len().min(120)]));
        let bytes = text.as_bytes();
        if stage.rng.u8(..12) > 0 || bytes.len() < 4 {
            return self.frame(0x1, bytes, true, stage, frames);
        }
        let cut = stage.rng.usize(1..bytes.len());
        self.frame(0x1, &bytes[..cut], false, stage, frames);
        if stage.rng.bool() {
            self.frame(0x9, b"between", true, stage, frames);
            self.pings.push_back(b"between".to_vec());
        }
        self.frame(0x0, &bytes[cut..], true, stage, frames);
    }

    pub fn frame(
        &self,
        opcode: u8,
        payload: &[u8],
        fin: bool,
        stage: &mut Stage,
        out: &mut Vec<u8>,
    ) {
        out.push(u8::from(fin) << 7 | opcode);
        match payload.len() {
            size @ 0..=125 => out.push(0x80 | size as u8),
            size => {
                out.push(0x80 | 126);
                out.extend_from_slice(&(size as u16).to_be_bytes());
            }
        }
        let mask = stage.rng.u32(..).to_be_bytes();
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m));
    }

    /// Hands commands to the network. From here on they may take effect at any moment.
    pub fn write(&mut self, frames: &[u8], stage: &mut Stage) {
        stage
            .network
            .borrow_mut()
            .client_writes(self.connection, frames);
    }
}
