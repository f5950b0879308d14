//! What a native client hears: answers and deliveries, each compared with what must come.

use serde_json::Value;

use crate::client::{Client, ClientIndex};
use crate::names::{FILTERS, Filter, known};
use crate::native::Then;
use crate::oracle::{Kind, Moment};
use crate::stage::{Cue, Stage};

impl Client {
    pub fn hear_natively(&mut self, text: &[u8], stage: &mut Stage) {
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
                let context = known(field("context"), &FILTERS).map(Filter::Dotted);
                let (Some(number), Some(context)) = (value["message"]["n"].as_u64(), context)
                else {
                    return stage
                        .oracle
                        .violate(Kind::Content, format!("delivery {value}"));
                };
                let pad = field_size(&value["message"]["pad"]);
                let stay = self.stays.get(&context).copied();
                let oracle = &mut stage.oracle;
                oracle.deliver(index, number, field("topic"), context, pad, stay);
            }
            "gap" => {
                let count = value["count"].as_u64().unwrap_or(0);
                stage.oracle.gap(index, field("topic"), count);
            }
            "request" => self.hear_request(&value, stage),
            "event" if value["data"]["m"].is_u64() => {
                let number = value["data"]["m"].as_u64().unwrap_or(u64::MAX);
                stage.emissions.hear(index, number, &mut stage.oracle);
            }
            "event" => {
                let emitted = value["data"]["e"].as_u64();
                let emitted = emitted.and_then(|number| stage.emits.get_mut(number as usize));
                if let Some(emitted) = emitted
                    && emitted.service == field("event")
                {
                    emitted.came += 1;
                    if emitted.came == 1 {
                        let by = emitted.by;
                        return self.emit_back(by, field("from"), stage);
                    }
                }
                let text = format!("client {index}: a wrong or doubled event {value}");
                stage.oracle.violate(Kind::Twice, text);
            }
            "reply" => self.hear_reply(&value, stage),
            _ => self.hear_answer(&value, moment, stage),
        }
    }

    /// Now and then an event is answered by another, to whoever sent it and has words for it.
    fn emit_back(&mut self, by: ClientIndex, from: &str, stage: &mut Stage) {
        if !stage.hears_events.contains(&by) || !self.is_talking() || stage.rng.bool() {
            return;
        }
        let number = stage.backs.len();
        stage.backs.push(Some(by));
        let text = format!(
            r#"{{"type":"event","event":"back","data":{{"back":{number}}},"to":"{from}"}}"#
        );
        let mut out = Vec::new();
        self.say_in_frames(0x1, &text, stage, &mut out);
        self.write(&out, stage);
    }

    fn hear_request(&mut self, value: &Value, stage: &mut Stage) {
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
        self.native.asked.push_back((theirs, number));
    }

    fn hear_reply(&mut self, value: &Value, stage: &mut Stage) {
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

    fn hear_answer(&mut self, value: &Value, moment: Moment, stage: &mut Stage) {
        let field = |name: &str| value[name].as_str().unwrap_or("");
        let Some(expected) = self.native.expected.pop_front() else {
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
                self.stays.remove(&filter);
                stage.cues.push(Cue::Unsubscribed(filter));
            }
            Then::Published(number) => {
                stage.oracle.publications[number as usize].acked = Some(moment);
            }
            Then::Handles(service) => {
                if self.native.handles.contains(&service) && !stage.served.contains(&service) {
                    stage.served.push(service);
                }
            }
        }
    }
}

fn field_size(value: &Value) -> usize {
    value.as_str().map_or(0, str::len)
}
