//! What a client hears: frames, answers, deliveries, and the end; each compared with what must come.

use serde_json::Value;

use crate::client::{Client, End, FILTERS, Phase, Then};
use crate::network::Read;
use crate::oracle::{Kind, Moment};
use crate::stage::{Cue, Stage};

impl Client {
    /// Reads, and thinks about what came. True if there was anything.
    pub fn read(&mut self, stage: &mut Stage, bytes_max: usize) -> bool {
        if self.phase == Phase::Ended || self.frozen_until > stage.moment {
            return false;
        }
        let before = self.inbox.len();
        let read =
            stage
                .network
                .borrow_mut()
                .client_reads(self.connection, bytes_max, &mut self.inbox);
        match read {
            Read::Nothing => false,
            Read::Bytes => {
                let new = self.inbox[before..].to_vec();
                stage.mix(&new);
                self.digest(stage);
                true
            }
            Read::End | Read::Reset => {
                let end = match (self.phase, self.got_close) {
                    (_, Some(code)) => End::Closed(code),
                    _ => End::Cut,
                };
                stage.network.borrow_mut().client_closes(self.connection);
                if read == Read::End && !self.inbox.is_empty() && !self.has_hung_up {
                    let text = format!(
                        "client {}: the end cuts {:?}",
                        self.index,
                        String::from_utf8_lossy(&self.inbox)
                    );
                    stage.oracle.violate(Kind::Ending, text);
                }
                self.over(end, stage);
                true
            }
        }
    }

    /// The connection is over for this client.
    pub fn over(&mut self, end: End, stage: &mut Stage) {
        let index = self.index;
        stage.now();
        stage.note(|| format!("client {index} ends: {end:?}"));
        self.leave_services(stage);
        self.phase = Phase::Ended;
        self.end.get_or_insert(end);
        self.ended_at_ms = stage.network.borrow().now_ms;
    }

    fn digest(&mut self, stage: &mut Stage) {
        let mut inbox = std::mem::take(&mut self.inbox);
        let mut offset = 0;
        if self.phase == Phase::Connecting {
            let Some(end) = inbox.windows(4).position(|four| four == b"\r\n\r\n") else {
                self.inbox = inbox;
                return;
            };
            if !inbox.starts_with(b"HTTP/1.1 101 ") {
                let status = std::str::from_utf8(&inbox[9..12]).unwrap_or("0");
                let status = status.parse().unwrap_or(0);
                stage.network.borrow_mut().client_closes(self.connection);
                return self.over(End::Refused(status), stage);
            }
            let index = self.index;
            stage.note(|| format!("client {index} is let in"));
            self.phase = Phase::Open;
            self.was_let_in = true;
            offset = end + 4;
        }
        while self.phase == Phase::Open
            && let Some((opcode, start, end)) = frame_at(&inbox[offset..])
        {
            let payload = inbox[offset + start..offset + end].to_vec();
            offset += end;
            if self.got_close.is_some() {
                let text = format!("client {}: a frame behind the close frame", self.index);
                stage.oracle.violate(Kind::Ending, text);
            }
            match opcode {
                0x1 => self.hear(&payload, stage),
                0x8 => self.hear_close(&payload, stage),
                0x9 => {
                    if !self.is_mute && self.closed.is_none() && !self.refuses_pings {
                        let mut pong = Vec::new();
                        self.frame(0xA, &payload, true, stage, &mut pong);
                        self.write(&pong, stage);
                    }
                }
                0xA => {
                    if self.pings.pop_front().as_ref() != Some(&payload) {
                        let text = format!("client {}: pong {payload:?}", self.index);
                        stage.oracle.violate(Kind::Answer, text);
                    }
                }
                _ => {
                    let text = format!("client {}: opcode {opcode}", self.index);
                    stage.oracle.violate(Kind::Content, text);
                }
            }
        }
        inbox.drain(..offset);
        self.inbox = inbox;
    }

    fn hear_close(&mut self, payload: &[u8], stage: &mut Stage) {
        let code = match payload {
            [high, low, ..] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        let index = self.index;
        stage.note(|| format!("client {index} hears close {code}"));
        self.got_close = Some(code);
        if self.closed.is_none() && !self.is_mute {
            let mut frames = Vec::new();
            self.frame(
                0x8,
                &payload[..payload.len().min(2)],
                true,
                stage,
                &mut frames,
            );
            self.write(&frames, stage);
        }
        // It says no more and waits for the end.
        self.closed.get_or_insert(code);
        stage.network.borrow_mut().client_finishes(self.connection);
    }

    fn hear(&mut self, text: &[u8], stage: &mut Stage) {
        let moment = stage.now();
        let index = self.index;
        stage.note(|| {
            let text = String::from_utf8_lossy(text);
            let text = text.chars().take(150).collect::<String>();
            format!("client {index} hears {text}")
        });
        let Ok(value) = serde_json::from_slice::<Value>(text) else {
            let text = format!("client {index}: {:?}", String::from_utf8_lossy(text));
            return stage.oracle.violate(Kind::Content, text);
        };
        let field = |name: &str| value[name].as_str().unwrap_or("");
        match field("type") {
            "publish" => {
                let known = FILTERS.iter().find(|filter| **filter == field("context"));
                let (Some(number), Some(&context)) = (value["message"]["n"].as_u64(), known) else {
                    return stage
                        .oracle
                        .violate(Kind::Content, format!("delivery {value}"));
                };
                let pad = field_size(&value["message"]["pad"]);
                let stay = self.stays.get(context).copied();
                let oracle = &mut stage.oracle;
                oracle.deliver(index, number, field("topic"), context, pad, stay);
            }
            "gap" => {
                let count = value["count"].as_u64().unwrap_or(0);
                stage.oracle.gap(index, field("topic"), count);
            }
            "request" => self.asked(&value, stage),
            "event" => {
                let emitted = value["data"]["e"].as_u64();
                let emitted = emitted.and_then(|number| stage.emits.get_mut(number as usize));
                if let Some(emitted) = emitted
                    && emitted.service == field("event")
                {
                    emitted.came += 1;
                    if emitted.came == 1 {
                        return;
                    }
                }
                let text = format!("client {index}: a wrong or doubled event {value}");
                stage.oracle.violate(Kind::Twice, text);
            }
            "reply" => self.answered(&value, stage),
            _ => self.acked(&value, moment, stage),
        }
    }

    fn asked(&mut self, value: &Value, stage: &mut Stage) {
        let number = value["data"]["r"].as_u64().unwrap_or(u64::MAX) as usize;
        let (Some(theirs), Some(request)) = (value["id"].as_u64(), stage.requests.get_mut(number))
        else {
            return stage
                .oracle
                .violate(Kind::Content, format!("request {value}"));
        };
        let is_for_me = match (request.to, request.service) {
            (Some(to), _) => to == self.index,
            (None, service) => service == value["event"].as_str(),
        };
        if !is_for_me || !request.asked.is_empty() {
            let text = format!("client {} is asked {value}: {request:?}", self.index);
            stage.oracle.violate(Kind::Twice, text);
        }
        request.asked.push(self.index);
        self.asked.push_back((theirs, number));
    }

    fn answered(&mut self, value: &Value, stage: &mut Stage) {
        let number = (value["id"].as_str())
            .and_then(|id| id.strip_prefix('r')?.parse::<usize>().ok())
            .unwrap_or(usize::MAX);
        let Some(request) = stage.requests.get_mut(number) else {
            return stage
                .oracle
                .violate(Kind::Content, format!("reply {value}"));
        };
        request.replies += 1;
        let error = &value["error"]["code"];
        let is_right = if error.is_null() {
            value["data"]["answer"].as_u64() == Some(number as u64) && !request.answered.is_empty()
        } else {
            if let Some(service) = request.service
                && error == "no_handler"
                && request.was_served
            {
                let text = format!("client {}: {value} to {request:?}", self.index);
                stage.unserved.push((service, text));
            }
            ["no_handler", "timeout", "busy", "mine"].contains(&error.as_str().unwrap_or(""))
        };
        if request.client != self.index || request.replies > 1 || !is_right {
            let text = format!("client {}: reply {value} to {request:?}", self.index);
            stage.oracle.violate(Kind::Answer, text);
        }
    }

    fn acked(&mut self, value: &Value, moment: Moment, stage: &mut Stage) {
        let field = |name: &str| value[name].as_str().unwrap_or("");
        let Some(expected) = self.expected.pop_front() else {
            let text = format!("client {}: nothing asked for {value}", self.index);
            return stage.oracle.violate(Kind::Answer, text);
        };
        let (action, name) = match expected.kind {
            "ack" if value["event"].is_string() => (field("action"), field("event")),
            "ack" => (field("action"), field("topic")),
            "error" => (field("code"), ""),
            _ => ("", ""),
        };
        let is_right = field("type") == expected.kind
            && action == expected.action
            && name == expected.name
            && value["id"].as_u64() == expected.id;
        if !is_right {
            let text = format!("client {}: {value} for {expected:?}", self.index);
            return stage.oracle.violate(Kind::Answer, text);
        }
        if expected.kind == "session" {
            stage
                .sessions
                .insert(field("session").to_owned(), self.index);
        }
        match expected.then {
            Then::Nothing => {}
            Then::Emitted(emit) => stage.emits[emit].is_done = true,
            Then::Subscribed(stay) => {
                let filter = stage.oracle.stays[stay].filter;
                stage.oracle.stays[stay].acked.get_or_insert(moment);
                self.stays.insert(filter, stay);
                stage.cues.push(Cue::Subscribed(filter));
            }
            Then::Unsubscribed(filter, stay) => {
                if let Some(stay) = stay {
                    stage.oracle.stays[stay].left_acked = Some(moment);
                }
                self.stays.remove(filter);
                stage.cues.push(Cue::Unsubscribed(filter));
            }
            Then::Published(number) => {
                stage.oracle.publications[number as usize].acked = Some(moment);
            }
            Then::Handles(service) => {
                if self.handles.contains(&service) && !stage.served.contains(&service) {
                    stage.served.push(service);
                }
            }
        }
    }
}

fn field_size(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}

/// The first whole frame of the broker's: opcode, and where its payload begins and ends.
fn frame_at(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let &[first, second, ..] = bytes else {
        return None;
    };
    assert!(first & 0xF0 == 0x80 && second & 0x80 == 0, "a broken frame");
    let (start, size) = match second {
        126 => (
            4,
            u16::from_be_bytes(bytes.get(2..4)?.try_into().unwrap()).into(),
        ),
        127 => (
            10,
            u64::from_be_bytes(bytes.get(2..10)?.try_into().unwrap()) as usize,
        ),
        size => (2, size.into()),
    };
    (bytes.len() >= start + size).then_some((first & 0x0F, start, start + size))
}
