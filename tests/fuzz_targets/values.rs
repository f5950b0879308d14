//! What a RESP client of the shard target received: values that have to be whole, and answers in the order of its
//! commands.
//!
//! Confirmations begin and end stays as acks do. A client that has said anything it likes knows nothing of its answers;
//! what is delivered to it has to make sense all the same.

use std::collections::VecDeque;

/// The answer to a command, as far as its client knows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// An error.
    Error,
    /// A subscription begins (`true`) or ends: a word and a name.
    Confirmation(bool, &'static str, String),
    /// The number of receivers of the publication with this id.
    Receivers(u64),
    /// A number.
    Integer,
    /// HELLO's, from which on pushes look like this.
    Hello(bool),
    /// As a connection that has just come.
    Reset,
    /// This text in a line or a bulk string, or at the end of an array.
    Text(&'static str),
    /// Anything but an error.
    Anything,
}

/// A value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    Line(String),
    Error(String),
    Integer(u64),
    Bulk(Vec<u8>),
    Null,
    Array(Vec<Value>),
    Push(Vec<Value>),
    Map(Vec<Value>),
}

/// What a client of RESP remembers.
#[derive(Default, Debug)]
pub struct Values {
    /// Of the commands that have no answer yet.
    pub expected: VecDeque<Answer>,
    /// It has said what it likes, or what it said may be refused: any answer will do.
    pub is_lenient: bool,
    /// Does it hear RESP3?
    is_three: bool,
}

/// What a value is about.
#[derive(PartialEq, Eq, Debug)]
pub enum Heard {
    /// A message by this subscription, to this topic.
    Delivery {
        stay: String,
        topic: String,
        message: Vec<u8>,
    },
    /// A subscription begins or ends.
    Stay(bool, String),
    /// All end.
    Reset,
    /// A publication was counted.
    Published(u64),
    Nothing,
}

impl Value {
    /// The first value and its size, if it is all there.
    pub fn parse(bytes: &[u8]) -> Option<(Value, usize)> {
        let end = bytes.windows(2).position(|two| two == b"\r\n")?;
        let line = String::from_utf8_lossy(&bytes[1..end]).into_owned();
        let start = end + 2;
        let number = || -> i64 {
            let number = line.parse();
            number.unwrap_or_else(|_| panic!("not a number: {:?}", bytes[..end].escape_ascii()))
        };
        Some(match bytes[0] {
            b'+' => (Value::Line(line), start),
            b'-' => (Value::Error(line), start),
            b':' => (Value::Integer(number() as u64), start),
            b'_' => (Value::Null, start),
            b'$' if line == "-1" => (Value::Null, start),
            b'$' | b'=' => {
                let size = number() as usize;
                let rest = bytes.get(start..start + size + 2)?;
                assert!(rest.ends_with(b"\r\n"), "a string of another size");
                (Value::Bulk(rest[..size].to_vec()), start + size + 2)
            }
            b'*' | b'>' | b'%' => {
                let count = number() as usize * if bytes[0] == b'%' { 2 } else { 1 };
                let (mut values, mut at) = (Vec::new(), start);
                for _ in 0..count {
                    let (value, size) = Value::parse(&bytes[at..])?;
                    values.push(value);
                    at += size;
                }
                let value = match bytes[0] {
                    b'*' => Value::Array(values),
                    b'>' => Value::Push(values),
                    _ => Value::Map(values),
                };
                (value, at)
            }
            _ => panic!("no value: {}", bytes[..end].escape_ascii()),
        })
    }

    fn text(&self) -> Option<String> {
        match self {
            // No two strings become one.
            Value::Bulk(bytes) => Some(match std::str::from_utf8(bytes) {
                Ok(text) => text.to_owned(),
                Err(_) => format!("\u{1}{}", bytes.escape_ascii()),
            }),
            _ => None,
        }
    }
}

impl Values {
    /// What this value means, if it may come here. `is_subscribed`: is there any stay?
    pub fn hear(&mut self, value: &Value, is_subscribed: bool) -> Heard {
        let (elements, is_push) = match value {
            Value::Push(elements) => (&elements[..], true),
            // A subscriber of RESP2 gets no other arrays that begin like this; and others may.
            Value::Array(elements) if is_subscribed => (&elements[..], false),
            _ => (&[][..], false),
        };
        let texts: Vec<String> = elements.iter().filter_map(Value::text).collect();
        let words: Vec<&str> = texts.iter().map(String::as_str).collect();
        let delivery = match words[..] {
            ["message", topic, _] => Some((format!("subscribe {topic}"), format!("\"{topic}\""))),
            ["pmessage", glob, topic, _] => {
                Some((format!("psubscribe {glob}"), format!("\"{topic}\"")))
            }
            ["smessage", topic, _] => {
                Some((format!("ssubscribe {topic}"), format!("shard {topic}")))
            }
            _ => None,
        };
        if let Some((stay, topic)) = delivery {
            assert!(self.is_lenient || is_push == self.is_three, "{value:?}");
            let Some(Value::Bulk(message)) = elements.last() else {
                panic!("a message is a string: {value:?}");
            };
            let message = message.clone();
            return Heard::Delivery {
                stay,
                topic,
                message,
            };
        }
        self.hear_answer(value)
    }

    fn hear_answer(&mut self, value: &Value) -> Heard {
        if let Some(stay) = confirmation(value) {
            assert!(
                self.is_lenient || matches!(value, Value::Push(_)) == self.is_three,
                "{value:?}"
            );
            let (up, key) = stay;
            let (word, name) = key.split_once(' ').unwrap_or((&key, ""));
            if !self.is_lenient {
                let Some(Answer::Confirmation(wanted, kind, of)) = self.expected.pop_front() else {
                    panic!("nobody asked for {value:?}");
                };
                assert_eq!((wanted, kind, &of[..]), (up, word, name), "{value:?}");
            }
            return Heard::Stay(up, key);
        }
        if let Value::Error(text) = value {
            // The last words of one that came too late, or took too long.
            self.is_lenient |= text.starts_with("ERR max number of clients");
            self.is_lenient |=
                text.starts_with("NOAUTH") && self.expected.front() != Some(&Answer::Error);
        }
        if self.is_lenient {
            let is_reset = *value == Value::Line("RESET".to_owned());
            return if is_reset {
                Heard::Reset
            } else {
                Heard::Nothing
            };
        }
        let Some(answer) = self.expected.pop_front() else {
            panic!("nobody asked for {value:?}");
        };
        let is_right = match (&answer, value) {
            (Answer::Error, Value::Error(_)) => true,
            (Answer::Receivers(_) | Answer::Integer, Value::Integer(_)) => true,
            (Answer::Hello(three), Value::Map(_) | Value::Array(_)) => {
                self.is_three = *three;
                matches!(value, Value::Map(_)) == *three
            }
            (Answer::Reset, Value::Line(line)) => line == "RESET",
            (Answer::Text(text), Value::Line(line)) => line == text,
            (Answer::Text(text), Value::Bulk(bytes)) => bytes == text.as_bytes(),
            (Answer::Text(text), Value::Array(values)) => {
                values.last().and_then(Value::text).as_deref() == Some(text)
            }
            (Answer::Anything, value) => !matches!(value, Value::Error(_)),
            _ => false,
        };
        assert!(is_right, "{value:?} is no answer like {answer:?}");
        match answer {
            Answer::Receivers(id) => Heard::Published(id),
            Answer::Reset => {
                self.is_three = false;
                Heard::Reset
            }
            _ => Heard::Nothing,
        }
    }
}

/// Does a subscription begin or end here, and which? A word of the command that begins it, and a name.
fn confirmation(value: &Value) -> Option<(bool, String)> {
    let (Value::Push(elements) | Value::Array(elements)) = value else {
        return None;
    };
    let [word, name, Value::Integer(_)] = &elements[..] else {
        return None;
    };
    let word = word.text()?;
    let (kind, up) = match &word[..] {
        "subscribe" | "psubscribe" | "ssubscribe" => (word, true),
        "unsubscribe" | "punsubscribe" | "sunsubscribe" => (word.replacen("un", "", 1), false),
        _ => return None,
    };
    Some((up, format!("{kind} {}", name.text().unwrap_or_default())))
}
