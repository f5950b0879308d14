//! What RESP and ClusterWS clients of the shard target say, and what they know of it: which answer a command must get, and
//! whether a publication is relayed.

use std::collections::BTreeSet;

use super::received::Speech;
use super::shards::{World, frame};
use super::values::Answer;

/// What a client knows from what it has said itself.
#[derive(Default, Debug)]
pub struct Known {
    /// It speaks RESP3.
    pub is_three: bool,
    /// It has given the password, or there is none.
    pub is_authenticated: bool,
    /// Words of RESP and names, or channels of ClusterWS.
    pub subscribed: BTreeSet<String>,
}

/// The password of brokers that have one.
pub const PASSWORD: &str = "sesame";

const NAMES: [&str; 8] = ["a", "a.b", "a.b.c", "x", "d.1", "c.1", "c.2", "a..b"];
const PATTERNS: [&str; 8] = ["*", "a*", "?", "[a-c]*", "d.[^2]", "c.?", "*.*", "\\a"];

/// How a publication leaves a client.
pub enum Way {
    /// By these bytes before and after the message, with a number.
    Numbered(Vec<u8>, Vec<u8>),
    /// Its message tells nobody anything, since it may be refused: all that is sent.
    Plain(Vec<u8>),
}

impl World {
    /// One command of a RESP client: which one, and with which name.
    pub fn say_resp(&mut self, index: usize, command: usize, name: usize) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        let Speech::Resp(values) = &mut client.received.speech else {
            return;
        };
        let known = &mut client.known;
        let kinds = ["subscribe", "psubscribe", "ssubscribe"];
        let (channel, pattern) = (NAMES[name % 8], PATTERNS[name % 8]);
        let name = if command % 3 == 1 { pattern } else { channel };
        let mut words = Vec::new();
        let may_say_anything = known.is_three || known.subscribed.is_empty();
        let answer = match command {
            0..=5 => {
                let (kind, up) = (kinds[command % 3], command < 3);
                let word = if up {
                    kind.to_owned()
                } else {
                    kind.replacen("sub", "unsub", 1)
                };
                words.extend([word, name.to_owned()]);
                if known.is_authenticated {
                    let key = format!("{kind} {name}");
                    if up {
                        known.subscribed.insert(key);
                    } else {
                        known.subscribed.remove(&key);
                    }
                }
                Answer::Confirmation(up, kind, name.to_owned())
            }
            6 | 7 => {
                let is_three = command == 6;
                words.extend(["HELLO", if is_three { "3" } else { "2" }].map(str::to_owned));
                if may_say_anything && known.is_authenticated {
                    known.is_three = is_three;
                }
                Answer::Hello(is_three)
            }
            8 => {
                words.push("RESET".to_owned());
                known.subscribed.clear();
                known.is_three = false;
                known.is_authenticated = !self.has_password;
                Answer::Reset
            }
            9 => {
                words.extend(["PING", "x"].map(str::to_owned));
                Answer::Text("x")
            }
            10 => {
                words.extend(["ECHO", "y"].map(str::to_owned));
                Answer::Text("y")
            }
            11 => {
                words.extend(["PUBSUB", "NUMPAT"].map(str::to_owned));
                Answer::Integer
            }
            12 => {
                words.extend(["PUBSUB", "CHANNELS", pattern].map(str::to_owned));
                Answer::Anything
            }
            13 => {
                words.extend(["AUTH", "default", PASSWORD].map(str::to_owned));
                known.is_authenticated |= may_say_anything;
                Answer::Text("OK")
            }
            14 if channel == "a" => {
                words.extend(["CLIENT", "LIST"].map(str::to_owned));
                Answer::Anything
            }
            14 => {
                words.extend(["PUBSUB", "NUMSUB", channel, "z"].map(str::to_owned));
                Answer::Anything
            }
            _ => {
                words.push("WHAT".to_owned());
                Answer::Error
            }
        };
        // What is allowed to whom, in the order in which it is asked.
        let is_allowed = match command {
            15.. => true,
            8 => true,
            0..=5 | 9 => known.is_authenticated,
            6 | 7 => known.is_authenticated && may_say_anything,
            13 => may_say_anything,
            _ => known.is_authenticated && may_say_anything,
        };
        values
            .expected
            .push_back(if is_allowed { answer } else { Answer::Error });
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        self.send(index, &command_of(&words));
    }

    /// A message of a ClusterWS client.
    pub fn say_clusterws(&mut self, index: usize, what: usize, name: usize) {
        let Some(client) = &mut self.clients[index] else {
            return;
        };
        let Speech::Clusterws(dialect, _) = client.received.speech else {
            return;
        };
        let name = NAMES[name % NAMES.len()];
        let array = match what {
            0..=2 => {
                client.known.subscribed.insert(name.to_owned());
                format!(r#"["s","s","{name}"]"#)
            }
            3 | 4 => {
                client.known.subscribed.remove(name);
                format!(r#"["s","u","{name}"]"#)
            }
            5 | 6 => r#"["e","add",{"x":1}]"#.to_owned(),
            7 => r#"["s","c",{}]"#.to_owned(),
            8 => return self.send(index, &frame(0x82, b"A")),
            _ => return self.send(index, &frame(0x81, b"#1")),
        };
        let text = format!("{{\"{}\":{array}}}", char::from(dialect.key()));
        let opcode = if what.is_multiple_of(2) { 0x81 } else { 0x82 };
        self.send(index, &frame(opcode, text.as_bytes()));
    }

    /// How a client publishes to a topic.
    pub fn way_of(&mut self, index: usize, topic: &str, is_shard: bool) -> Option<Way> {
        let client = self.clients[index].as_mut()?;
        let known = &client.known;
        match &mut client.received.speech {
            Speech::Native => None,
            Speech::Peer(_) => Some(Way::Numbered(Vec::new(), Vec::new())),
            Speech::Clusterws(dialect, _) => {
                let key = char::from(dialect.key());
                let is_relayed =
                    !dialect.relays_for_subscribers_only() || known.subscribed.contains(topic);
                let (before, after) = (format!(r#"{{"{key}":["p","{topic}","#), "]}");
                Some(if is_relayed {
                    Way::Numbered(before.into_bytes(), after.into())
                } else {
                    Way::Plain(frame(0x81, format!("{before}0{after}").as_bytes()))
                })
            }
            Speech::Resp(values) => {
                let word = if is_shard { "SPUBLISH" } else { "PUBLISH" };
                let may = known.is_authenticated && (known.is_three || known.subscribed.is_empty());
                if !may {
                    values.expected.push_back(Answer::Error);
                    return Some(Way::Plain(command_of(&[word, topic, "0"])));
                }
                let before = format!(
                    "*3\r\n${}\r\n{word}\r\n${}\r\n{topic}\r\n",
                    word.len(),
                    topic.len()
                );
                Some(Way::Numbered(before.into_bytes(), b"\r\n".into()))
            }
        }
    }
}

/// A command as clients write it.
fn command_of(words: &[&str]) -> Vec<u8> {
    let mut text = format!("*{}\r\n", words.len());
    for word in words {
        text += &format!("${}\r\n{word}\r\n", word.len());
    }
    text.into_bytes()
}
