//! A chat server that has the broker inside: run it with `cargo run --example embedded`.
//!
//! Browsers and other WebSocket clients connect to it as to the broker alone, `ws://127.0.0.1:8000/?name=ada&room=1`. The
//! program hears of each, puts it into its room, hands what it says (`chat`) to the others there, and answers who is
//! there (`who`). They speak native JSON:
//!
//! ```json
//! {"type":"event","event":"chat","data":"hello"}
//! {"type":"request","event":"who","id":1}
//! ```
//!
//! `PUBSUB_LISTEN` says where; with `--once` it ends when the last client has gone.

use std::collections::HashMap;
use std::error::Error;

use bytes::Bytes;
use pubsub::address::ClientId;
use pubsub::config::Listener;
use pubsub::link::Arrival;
use pubsub::message::Payload;
use pubsub::{Answer, Audience, Broker, Config, Event, Link, Watch};
use serde_json::{Value, json};

/// Somebody who is here.
struct Guest {
    name: String,
    room: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let listen = std::env::var("PUBSUB_LISTEN").unwrap_or_else(|_| "127.0.0.1:8000".to_owned());
    let once = std::env::args().any(|argument| argument == "--once");
    let config = Config {
        listeners: vec![Listener::new(listen.parse()?)],
        ..Config::embedded()
    };
    config.check()?;
    let broker = Broker::start(&config)?;
    let link = Link::open(&broker, "chat")?;
    let watched = Watch::CONNECT | Watch::DISCONNECT | Watch::EVENT;
    link.watch(watched, Answer::Unwanted)?;
    println!("listening: {}", broker.listening[0]);

    let mut guests: HashMap<ClientId, Guest> = HashMap::new();
    while let Some(event) = link.next(None) {
        match event {
            Event::Connect(arrival) => {
                let guest = Guest::of(&arrival);
                println!("{} is in room {}", guest.name, guest.room);
                // In this order: whoever joins hears of everything that is said from now on.
                link.join(arrival.client, &guest.room, Answer::Unwanted)?;
                say(&link, &guest, "joined", &json!(guest.name), None)?;
                guests.insert(arrival.client, guest);
            }
            Event::Event {
                client: Some(client),
                event,
                payload,
                ..
            } if event == "chat" => {
                // A client says what it likes; that it is JSON has been checked.
                let text: Value = serde_json::from_slice(payload.bytes())?;
                if let Some(guest) = guests.get(&client) {
                    let said = json!({ "name": guest.name, "text": text });
                    say(&link, guest, "chat", &said, Some(client))?;
                }
            }
            Event::Request {
                request,
                client,
                event,
                ..
            } => match guests.get(&client) {
                Some(guest) if event == "who" => {
                    let names = guests.values().filter(|other| other.room == guest.room);
                    let mut names: Vec<&str> = names.map(|guest| guest.name.as_str()).collect();
                    names.sort_unstable();
                    link.reply(request, payload(&json!(names)))?;
                }
                _ => link.reply_error(request, "no_handler", "this server answers `who`")?,
            },
            Event::Disconnect { client, .. } => {
                if let Some(guest) = guests.remove(&client) {
                    println!("{} has left", guest.name);
                    say(&link, &guest, "left", &json!(guest.name), None)?;
                }
                if once && guests.is_empty() {
                    break;
                }
            }
            _ => {}
        }
    }
    broker.stop();
    Ok(())
}

impl Guest {
    /// As it says in its query: `name=ada&room=1`.
    fn of(arrival: &Arrival) -> Guest {
        let query = String::from_utf8_lossy(&arrival.query);
        let field = |name: &str, default: &str| {
            let mut fields = query.split('&').filter_map(|field| field.split_once('='));
            let found = fields.find(|(field, _)| *field == name);
            found.map_or(default, |(_, value)| value).to_owned()
        };
        Guest {
            name: field("name", "somebody"),
            room: field("room", "lobby"),
        }
    }
}

/// An event for everybody in a guest's room, but for one.
fn say(
    link: &Link,
    guest: &Guest,
    event: &str,
    data: &Value,
    except: Option<ClientId>,
) -> Result<(), Box<dyn Error>> {
    let to = Audience::Clients {
        rooms: vec![Bytes::copy_from_slice(guest.room.as_bytes())],
        except_rooms: Vec::new(),
        except,
    };
    link.emit_many(&to, event, &payload(data), false, Answer::Unwanted)?;
    Ok(())
}

fn payload(data: &Value) -> Payload {
    Payload::json(data.to_string().into())
}
