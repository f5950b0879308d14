//! What peers of the shard target say, and what they are told: each call has its answer, and each event is one.

use std::collections::HashMap;

use bytes::Bytes;
use pubsub::address::{Address, ClientId, ShardId};
use pubsub::message::Payload;
use pubsub::protocol::peer::call::Call;
use pubsub::protocol::peer::event::Told;
use pubsub::protocol::peer::reader::Reader;
use pubsub::protocol::peer::{
    Admitted, Audience, FilterKind, PeerPattern, Watch, read_event, write_call,
};
use pubsub::topic::Filter;

use super::received::{News, Received, Series, Speech};
use super::shards::World;

const NAMES: [&str; 8] = ["a", "a.b", "a.b.c", "x", "d.1", "c.1", "c.2", "a..b"];
const PATTERNS: [&str; 8] = ["*", "=a", "a.*", "[a-c]*", "d", "c.1", "=*.*", "a.b"];
const EVENTS: [&str; 4] = ["add", "log", "e", "none"];
const ROOMS: [&[u8]; 2] = [b"r", b"\xff"];
/// What a peer may watch; the first is nothing.
const MASKS: [u32; 8] = [0, 0x1, 0x2, 0x4, 0x8, 0x35, 0xc7, 0xff];

/// What a peer waits for.
#[derive(Debug)]
pub enum Waiting {
    /// A stay begins or ends, by its key.
    Stay(bool, String),
    /// The publish with this id.
    Publish(u64),
    /// An answer, which may not come before its time is over.
    Answer,
    /// Nothing but that it is done.
    Done,
}

/// What a peer has said and heard.
#[derive(Default, Debug)]
pub struct Calls {
    reader: Reader,
    next_ticket: u64,
    /// By ticket.
    pub waiting: HashMap<u64, Waiting>,
    pub is_welcome: bool,
    /// It has said BYE, or was told GOODBYE.
    pub is_over: bool,
}

impl Calls {
    fn ticket(&mut self, waiting: Waiting) -> u64 {
        self.next_ticket += 1;
        self.waiting.insert(self.next_ticket, waiting);
        self.next_ticket
    }

    /// Is everything that came an event, whole?
    pub fn is_between_frames(&self) -> bool {
        !self.reader.is_in_frame()
    }

    /// Is everything answered but what has a time of its own?
    pub fn is_answered(&self) -> bool {
        let mut waiting = self.waiting.values();
        !self.is_welcome || self.is_over || waiting.all(|one| matches!(one, Waiting::Answer))
    }

    /// A publication with a ticket, answered under this id.
    pub fn publication(&mut self, series: &Series, message: String, id: u64) -> Vec<u8> {
        let ticket = self.ticket(Waiting::Publish(id));
        let topic = super::received::topic_of(series);
        let payload = Payload::json(Bytes::from(message));
        written(&Call::Publish {
            ticket,
            topic: &topic,
            payload: &payload,
            echo: series.2,
        })
    }
}

/// The key of a stay, as [`super::received::filter_of`] reads it.
fn key(kind: FilterKind, written: &[u8]) -> String {
    let written = String::from_utf8_lossy(written);
    match kind {
        FilterKind::Dotted => format!("\"{written}\""),
        FilterKind::Exact => format!("subscribe {written}"),
        FilterKind::Glob => format!("psubscribe {written}"),
        FilterKind::Shard => format!("ssubscribe {written}"),
        FilterKind::Room => panic!("nobody subscribes to a room"),
    }
}

fn written(call: &Call<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_call(call, &mut bytes);
    bytes
}

impl Received {
    /// Takes the bytes of a peer's connection.
    pub fn take_events(&mut self, bytes: &[u8], news: &mut Vec<News>) {
        let Speech::Peer(calls) = &mut self.speech else {
            return;
        };
        let mut reader = std::mem::take(&mut calls.reader);
        let mut rest = bytes;
        while !rest.is_empty() {
            let (taken, frame) = reader.next(1 << 20, rest).expect("the size of a frame");
            if let Some(frame) = frame {
                self.hear(read_event(frame).expect("an event"), news);
            }
            rest = &rest[taken..];
        }
        if let Speech::Peer(calls) = &mut self.speech {
            calls.reader = reader;
        }
    }

    fn hear(&mut self, told: Told<'_>, news: &mut Vec<News>) {
        let Speech::Peer(calls) = &mut self.speech else {
            return;
        };
        match told {
            Told::Welcome { .. } => {
                assert!(!calls.is_welcome, "welcome twice");
                calls.is_welcome = true;
            }
            Told::Goodbye { .. } => calls.is_over = true,
            told => {
                assert!(calls.is_welcome, "{told:?} before WELCOME");
                self.hear_news(told, news);
            }
        }
    }

    fn hear_news(&mut self, told: Told<'_>, news: &mut Vec<News>) {
        let Speech::Peer(calls) = &mut self.speech else {
            return;
        };
        let mut answered = |ticket| {
            let waiting = calls.waiting.remove(&ticket);
            waiting.expect("a ticket is answered once")
        };
        match told {
            Told::Done { ticket, .. } => match answered(ticket) {
                Waiting::Stay(true, key) => self.begin_stay(&key),
                Waiting::Stay(false, key) => drop(self.stays.remove(&key)),
                Waiting::Publish(id) => news.push(News::Published(id)),
                Waiting::Answer | Waiting::Done => {}
            },
            Told::Failed { ticket, .. } => drop(answered(ticket)),
            Told::Message {
                topic,
                filter,
                context,
                payload,
            } => {
                self.deliveries += 1;
                let name = String::from_utf8_lossy(topic);
                let topic = match filter {
                    FilterKind::Shard => format!("shard {name}"),
                    _ => format!("\"{name}\""),
                };
                let message = String::from_utf8_lossy(payload.bytes);
                self.deliver(
                    &key(filter, context),
                    Some(&topic),
                    Some(&message),
                    &message,
                );
            }
            Told::Gap { count, .. } => self.gaps += count,
            Told::Request { number, .. } => news.push(News::Asked(number)),
            Told::Admit(arrived) => news.push(News::Arrived(arrived.client)),
            _ => {}
        }
    }
}

impl World {
    /// A peer comes, and says who it is.
    pub fn connect_peer(&mut self, index: usize, listener: u16) {
        if self.clients[index].is_some() {
            return;
        }
        self.connect(index, listener, false, Speech::Peer(Calls::default()));
        let name = format!("p{index}");
        self.call(index, |_| Call::Hello {
            name: name.as_bytes(),
            key: b"",
        });
    }

    /// A peer makes a call.
    pub fn call<'c>(&mut self, index: usize, call: impl FnOnce(&mut Calls) -> Call<'c>) {
        let client = self.clients[index].as_mut();
        let Some(Speech::Peer(calls)) = client.map(|client| &mut client.received.speech) else {
            return;
        };
        if !calls.is_over {
            let bytes = written(&call(calls));
            self.send(index, &bytes);
        }
    }

    /// What a peer watches.
    pub fn watch(&mut self, index: usize, mask: u32) {
        self.call(index, |calls| Call::Watch {
            ticket: calls.ticket(Waiting::Done),
            mask: Watch(mask),
        });
    }

    /// A host's word on the client that asked first.
    pub fn admit(&mut self, is_admitted: bool) {
        if let Some((index, number, client)) = self.asked.pop_front()
            && self.clients[index]
                .as_ref()
                .is_some_and(|peer| peer.number == number)
        {
            let verdict = if is_admitted {
                let user = Some(Bytes::from_static(b"somebody"));
                Admitted::Yes { user }
            } else {
                let reason = Bytes::from_static(b"no");
                Admitted::No { reason }
            };
            self.call(index, |_| Call::Admit {
                client,
                verdict: &verdict,
            });
        }
    }

    fn client_at(&self, index: usize) -> Option<ClientId> {
        let (shard, session) = self.clients[index].as_ref()?.place?;
        Some(ClientId {
            broker: self.settings.broker,
            shard: ShardId(shard as u8),
            session,
        })
    }

    /// One call of a peer: which one, and about what.
    pub fn say_peer(&mut self, index: usize, what: usize, which: usize) {
        let (name, room) = (NAMES[which], Bytes::from_static(ROOMS[which % 2]));
        let event = EVENTS[which % 4];
        let payload = Payload::json(Bytes::from_static(b"[1]"));
        let service = Address::Service(Bytes::from_static(event.as_bytes()));
        let client = self.client_at(which);
        match what {
            0..=2 => {
                let kind = [
                    FilterKind::Dotted,
                    FilterKind::Exact,
                    FilterKind::Glob,
                    FilterKind::Shard,
                ][(which + what) % 4];
                let text = if matches!(kind, FilterKind::Dotted | FilterKind::Glob) {
                    PATTERNS[which]
                } else {
                    name
                };
                // Where it is none it is refused.
                let text = if kind == FilterKind::Dotted {
                    text.trim_start_matches('[')
                } else {
                    text
                };
                let bytes = Bytes::from_static(text.as_bytes());
                let Ok(filter) = kind.filter(bytes) else {
                    return;
                };
                self.say_filter(index, what < 2, &filter);
            }
            3 => self.call(index, |calls| Call::Handle {
                ticket: calls.ticket(Waiting::Done),
                event: event.as_bytes(),
            }),
            4 => self.call(index, |calls| Call::Unhandle {
                ticket: calls.ticket(Waiting::Done),
                event: event.as_bytes(),
            }),
            5 => {
                let peer = Address::Peer(Bytes::from(format!("p{which}")));
                let to = client.map_or(service, Address::Client);
                let to = if which < 3 { &peer } else { &to };
                self.call(index, |calls| Call::Emit {
                    ticket: calls.ticket(Waiting::Done),
                    to,
                    event: event.as_bytes(),
                    payload: &payload,
                    volatile: which % 2 == 1,
                });
            }
            6 => {
                let any = Address::AnyPeer(Bytes::from_static(event.as_bytes()));
                let to = if which < 4 { &service } else { &any };
                self.call(index, |calls| Call::Request {
                    ticket: calls.ticket(Waiting::Answer),
                    to,
                    event: event.as_bytes(),
                    payload: &payload,
                    timeout_ms: 1 << (2 * which),
                });
            }
            7 => {
                let client = self.clients[index].as_mut();
                let number = client
                    .and_then(|client| client.asked.pop_front())
                    .unwrap_or(1);
                let outcome = pubsub::protocol::Outcome::Data(payload);
                self.call(index, |_| Call::Reply {
                    number,
                    outcome: &outcome,
                });
            }
            8 => self.watch(index, MASKS[which]),
            9 => self.admit(which > 0),
            10 | 11 => {
                let Some(client) = client else {
                    return;
                };
                self.call(index, |calls| {
                    let ticket = calls.ticket(Waiting::Done);
                    let room = ROOMS[which % 2];
                    match what {
                        10 => Call::Join {
                            ticket,
                            client,
                            room,
                        },
                        _ => Call::Leave {
                            ticket,
                            client,
                            room,
                        },
                    }
                });
            }
            12 => {
                let to = match which {
                    0..=3 => Audience::Clients {
                        rooms: vec![room],
                        except_rooms: if which < 2 {
                            vec![]
                        } else {
                            vec![Bytes::from_static(ROOMS[0])]
                        },
                        except: client,
                    },
                    4 | 5 => Audience::Clients {
                        rooms: vec![],
                        except_rooms: vec![],
                        except: client,
                    },
                    6 => Audience::Peers(PeerPattern::All),
                    _ => Audience::Peers(PeerPattern::Regex(Bytes::from_static(b"p[0-3]$"))),
                };
                self.call(index, |calls| Call::EmitMany {
                    ticket: calls.ticket(Waiting::Done),
                    to: &to,
                    event: event.as_bytes(),
                    payload: &payload,
                    volatile: which % 2 == 1,
                });
            }
            13 => {
                let Some(client) = client else {
                    return;
                };
                self.call(index, |calls| Call::Disconnect {
                    ticket: calls.ticket(Waiting::Done),
                    client,
                    code: 4000,
                    reason: b"enough",
                });
            }
            14 => self.call(index, |calls| {
                let ticket = calls.ticket(Waiting::Done);
                let token = name.as_bytes();
                match which {
                    0..=4 => Call::Accept {
                        ticket,
                        token,
                        id: token,
                    },
                    _ => Call::Reject { ticket, token },
                }
            }),
            _ if which == 0 => {
                self.call(index, |calls| {
                    calls.is_over = true;
                    Call::Bye
                });
                self.run_wild(index);
            }
            _ => self.call(index, |_| Call::Alive),
        }
    }

    fn say_filter(&mut self, index: usize, up: bool, filter: &Filter) {
        self.call(index, |calls| {
            let key = key(FilterKind::of(filter), filter.written());
            let ticket = calls.ticket(Waiting::Stay(up, key));
            match up {
                true => Call::Subscribe { ticket, filter },
                false => Call::Unsubscribe { ticket, filter },
            }
        });
    }
}
