//! A client of ClusterWS made of frames, of any generation.

use std::collections::VecDeque;

use super::raw::{BINARY, CLOSE, FIN, Frame, PING, PONG, TEXT, frame};
use super::{Broker, Raw};

/// A connected client that has read its configuration. It answers pings as it reads.
pub struct Clusterws {
    raw: Raw,
    /// The configuration message.
    pub config: String,
    /// The key of the envelope: `#` or `m`.
    key: char,
    /// The opcode of messages, both ways.
    opcode: u8,
    /// A channel that nobody else has, once it is needed: what comes back on it is an ack of all before.
    own: Option<String>,
    settled: u64,
    /// Messages that came meanwhile.
    kept: VecDeque<String>,
}

impl Clusterws {
    /// To the first listener, at this path with its query.
    pub fn connect(broker: &Broker, path: &str) -> Clusterws {
        Clusterws::over(Raw::upgrade_at(broker, path))
    }

    /// Over a connection that has shaken hands.
    pub fn over(mut raw: Raw) -> Clusterws {
        let first = raw.frame().expect("a configuration");
        let config = String::from_utf8(first.payload).expect("UTF-8");
        let opcode = match config.contains(r#""binary":true"#) {
            true => BINARY,
            false => TEXT,
        };
        assert_eq!(first.first, FIN | opcode, "{config}");
        Clusterws {
            raw,
            key: config.chars().nth(2).expect("a key"),
            config,
            opcode,
            own: None,
            settled: 0,
            kept: VecDeque::new(),
        }
    }

    /// The connection below.
    pub fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }

    /// Its own end, as the broker sees it.
    pub fn address(&self) -> String {
        let address = self.raw.stream().local_addr().expect("an address");
        address.to_string()
    }

    /// Sends this array in its envelope.
    pub fn say(&mut self, array: &str) {
        let text = format!(r#"{{"{}":{array}}}"#, self.key);
        self.send(&text);
    }

    /// Sends a text in a message's frame.
    pub fn send(&mut self, text: &str) {
        self.raw.send(&frame(FIN | self.opcode, text.as_bytes()));
    }

    /// The next message as it came, whatever it is, or the close frame.
    pub fn next(&mut self) -> Result<String, Option<u16>> {
        loop {
            let got = self.raw.frame().expect("a close frame before the end");
            if let Some(pong) = pong(&got) {
                self.raw.send(&pong);
                continue;
            }
            if got.first == FIN | CLOSE {
                return Err(got.close_code());
            }
            assert_eq!(got.first, FIN | self.opcode, "{got:?}");
            let text = String::from_utf8(got.payload).expect("UTF-8");
            assert!(
                self.opcode == TEXT || text.is_ascii(),
                "a client reads each byte as a character: {text}"
            );
            return Ok(text);
        }
    }

    /// The next message as it came.
    pub fn next_text(&mut self) -> String {
        if let Some(text) = self.kept.pop_front() {
            return text;
        }
        match self.next() {
            Ok(text) => text,
            Err(code) => panic!("closed ({code:?}) where a message was waited for"),
        }
    }

    /// Subscribes to a channel, a string as in JSON; it is active now.
    pub fn subscribe(&mut self, channel: &str) {
        self.say(&format!(r#"["s","s","{channel}"]"#));
        self.settle();
    }

    /// Ends a subscription.
    pub fn unsubscribe(&mut self, channel: &str) {
        self.say(&format!(r#"["s","u","{channel}"]"#));
        self.settle();
    }

    /// Publishes; it has been handed on now, or ignored.
    pub fn publish(&mut self, channel: &str, data: &str) {
        self.say(&format!(r#"["p","{channel}",{data}]"#));
        self.settle();
    }

    /// After this everything that it said has taken effect, and whatever was published and answered before is kept.
    pub fn settle(&mut self) {
        let own = match &self.own {
            Some(own) => own.clone(),
            None => {
                // Not a topic, so that no filter of dotted levels hears it.
                let own = format!("own..{}", self.address());
                self.say(&format!(r#"["s","s","{own}"]"#));
                self.own.insert(own).clone()
            }
        };
        self.settled += 1;
        let array = format!(r#"["p","{own}",{}]"#, self.settled);
        self.say(&array);
        let echo = format!(r#"{{"{}":{array}}}"#, self.key);
        loop {
            match self.next() {
                Ok(text) if text == echo => return,
                Ok(text) => self.kept.push_back(text),
                Err(code) => panic!("closed ({code:?}) where an echo was waited for"),
            }
        }
    }

    /// Takes what has been kept.
    pub fn take_kept(&mut self) -> Vec<String> {
        self.kept.drain(..).collect()
    }

    /// Everything that was published and answered before has been taken: nothing else is due.
    pub fn expect_nothing(&mut self) {
        self.settle();
        assert_eq!(self.take_kept(), [""; 0], "nothing was due");
    }

    /// Reads to the close frame; its code, and the messages before it.
    pub fn read_to_close(&mut self) -> (Vec<String>, Option<u16>) {
        let mut texts: Vec<String> = self.kept.drain(..).collect();
        loop {
            match self.next() {
                Ok(text) => texts.push(text),
                Err(code) => {
                    assert_eq!(self.raw.frame(), None, "after a close frame");
                    return (texts, code);
                }
            }
        }
    }

    /// It is closed with this code, without a message before.
    #[track_caller]
    pub fn expect_close(&mut self, code: u16) {
        assert_eq!(self.read_to_close(), (Vec::new(), Some(code)));
    }
}

/// The answer to a frame, if it is a ping of any generation.
pub fn pong(got: &Frame) -> Option<Vec<u8>> {
    let (first, payload): (u8, &[u8]) = match (got.first, &got.payload[..]) {
        (first, payload) if first == FIN | PING => (FIN | PONG, payload),
        (first, b"9") if first == FIN | BINARY => (first, b"A"),
        (first, b"#0") => (first, b"#1"),
        _ => return None,
    };
    Some(frame(first, payload))
}
