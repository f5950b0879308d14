//! A client of any protocol, so that a test can go through all of them.

use serde_json::Value;

use super::client::parse;
use super::{Broker, Client, Clusterws, Redis};

/// What a speaker speaks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Protocol {
    /// Native JSON.
    Native,
    /// ClusterWS, at this path.
    Clusterws(&'static str),
    /// RESP of this version.
    Resp(u8),
}

impl Protocol {
    /// Everything that is spoken.
    pub const ALL: [Protocol; 7] = [
        Protocol::Native,
        Protocol::Clusterws("/clusterws"),
        Protocol::Clusterws("/clusterws?binary=1"),
        Protocol::Clusterws("/clusterws?v=1"),
        Protocol::Clusterws("/clusterws?v=0"),
        Protocol::Resp(2),
        Protocol::Resp(3),
    ];

    /// Is a publication relayed only if its sender subscribes to the channel?
    pub fn relays_for_subscribers_only(self) -> bool {
        matches!(self, Protocol::Clusterws(path) if !path.contains("v=0"))
    }
}

/// A connected client.
pub struct Speaker {
    /// What it speaks.
    pub protocol: Protocol,
    wire: Wire,
}

enum Wire {
    Native(Box<Client>),
    Clusterws(Box<Clusterws>),
    Resp(Box<Redis>),
}

impl Speaker {
    /// Connects to a broker that has a RESP listener as well.
    pub fn connect(broker: &Broker, protocol: Protocol) -> Speaker {
        let wire = match protocol {
            Protocol::Native => Wire::Native(Box::new(Client::connect(broker))),
            Protocol::Clusterws(path) => {
                Wire::Clusterws(Box::new(Clusterws::connect(broker, path)))
            }
            Protocol::Resp(version) => {
                Wire::Resp(Box::new(Redis::connect_speaking(broker, version)))
            }
        };
        Speaker { protocol, wire }
    }

    /// One that lives on this shard. The kernel spreads connections by a hash, so this connects until it is there.
    pub fn connect_on(broker: &Broker, shard: usize, protocol: Protocol) -> Speaker {
        // The others stay connected until then, or they would be drawn again and again.
        let mut spare = Vec::new();
        for _ in 0..64 {
            let speaker = Speaker::connect(broker, protocol);
            if broker.shard_at(&speaker.address()) == shard {
                return speaker;
            }
            spare.push(speaker);
        }
        panic!("{} connections, and none on shard {shard}", spare.len());
    }

    /// Its own end, as the broker sees it.
    pub fn address(&self) -> String {
        match &self.wire {
            Wire::Native(client) => client
                .stream()
                .local_addr()
                .expect("an address")
                .to_string(),
            Wire::Clusterws(client) => client.address(),
            Wire::Resp(client) => client.address(),
        }
    }

    /// Subscribes; it is active now.
    pub fn subscribe(&mut self, name: &str) {
        match &mut self.wire {
            Wire::Native(client) => client.subscribe(name),
            Wire::Clusterws(client) => client.subscribe(name),
            Wire::Resp(client) => client.subscribe(name.as_bytes()),
        }
    }

    /// Ends a subscription; it has ended now.
    pub fn unsubscribe(&mut self, name: &str) {
        match &mut self.wire {
            Wire::Native(client) => client.unsubscribe(name),
            Wire::Clusterws(client) => client.unsubscribe(name),
            Wire::Resp(client) => client.unsubscribe(name.as_bytes()),
        }
    }

    /// Publishes these bytes, which are JSON but for RESP. They have been handed on now; to how many, if that is told.
    pub fn publish(&mut self, name: &str, payload: &[u8]) -> Option<i64> {
        let text = || std::str::from_utf8(payload).expect("JSON is text");
        match &mut self.wire {
            Wire::Native(client) => {
                let message = text();
                client.send(format!(
                    r#"{{"type":"publish","topic":"{name}","message":{message}}}"#
                ));
                let answer = client.answer();
                assert_eq!(answer["type"], "ack", "{answer}");
                None
            }
            Wire::Clusterws(client) => {
                client.publish(name, text());
                None
            }
            Wire::Resp(client) => Some(client.publish(name.as_bytes(), payload)),
        }
    }

    /// Sends a publication and waits for nothing.
    pub fn send_publish(&mut self, name: &str, payload: &str) {
        match &mut self.wire {
            Wire::Native(client) => client.send(format!(
                r#"{{"type":"publish","topic":"{name}","message":{payload}}}"#
            )),
            Wire::Clusterws(client) => client.say(&format!(r#"["p","{name}",{payload}]"#)),
            Wire::Resp(client) => {
                let words = [b"PUBLISH", name.as_bytes(), payload.as_bytes()];
                client.send(&super::redis::command(&words));
            }
        }
    }

    /// Reads the answer to one that was sent so: an ack, a count, or one's own message.
    pub fn read_answer(&mut self) {
        match &mut self.wire {
            Wire::Native(client) => assert_eq!(client.answer()["type"], "ack"),
            Wire::Clusterws(client) => drop(client.next_text()),
            Wire::Resp(client) => drop(client.reply().integer()),
        }
    }

    /// The next delivery as it came; a timestamp in it is written as NOW.
    pub fn delivery_bytes(&mut self) -> Vec<u8> {
        match &mut self.wire {
            Wire::Native(client) => {
                let text = client.delivery_text();
                let stamp = parse(&text)["timestamp"].to_string();
                text.replacen(&stamp, "NOW", 1).into_bytes()
            }
            Wire::Clusterws(client) => client.next_text().into_bytes(),
            Wire::Resp(client) => client.delivery_bytes(),
        }
    }

    /// What was published with the next delivery, and to which name.
    pub fn delivery(&mut self) -> (String, Value) {
        match &mut self.wire {
            Wire::Native(client) => of_native(&client.delivery()),
            Wire::Clusterws(client) => of_clusterws(&client.next_text()),
            Wire::Resp(client) => of_resp(&client.delivery()),
        }
    }

    /// After this, whatever was published and answered before is kept.
    pub fn settle(&mut self) {
        match &mut self.wire {
            Wire::Native(client) => client.settle(),
            Wire::Clusterws(client) => client.settle(),
            Wire::Resp(client) => client.settle(),
        }
    }

    /// The deliveries that came while an answer was waited for.
    pub fn take_kept(&mut self) -> Vec<(String, Value)> {
        match &mut self.wire {
            Wire::Native(client) => client.take_kept().iter().map(of_native).collect(),
            Wire::Clusterws(client) => {
                let kept = client.take_kept();
                kept.iter().map(|text| of_clusterws(text)).collect()
            }
            Wire::Resp(client) => client.take_kept().iter().map(of_resp).collect(),
        }
    }

    /// Everything that was published and answered before has been taken: nothing else is due.
    pub fn expect_nothing(&mut self) {
        self.settle();
        assert_eq!(
            self.take_kept(),
            [],
            "nothing was due to {:?}",
            self.protocol
        );
    }
}

fn of_native(delivery: &Value) -> (String, Value) {
    let topic = delivery["topic"].as_str().expect("a topic");
    (topic.to_owned(), delivery["message"].clone())
}

fn of_clusterws(text: &str) -> (String, Value) {
    let message = parse(text);
    let array = message.get("#").or(message.get("m")).expect("an envelope");
    assert_eq!(array[0], "p", "{text}");
    let channel = array[1].as_str().expect("a channel");
    (channel.to_owned(), array[2].clone())
}

fn of_resp(delivery: &super::redis::Value) -> (String, Value) {
    let [.., channel, payload] = delivery.elements() else {
        panic!("{delivery}")
    };
    let payload = serde_json::from_slice(payload.bytes()).expect("JSON");
    (channel.text().to_owned(), payload)
}
