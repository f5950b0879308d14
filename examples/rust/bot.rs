//! A bot in the chat room: run it with `cargo run --example bot`, beside a broker (`cargo run --release`).
//!
//! It greets, prints what the others write, and answers `!load` with the load of its machine. It meets
//! `examples/node/chat.mjs` and `examples/browser/index.html` in the topic `chat.lobby`.
//!
//! `PUBSUB_URL` names the broker; with `--once` it ends after the first message of somebody else.

use std::error::Error;
use std::{env, fs};

use serde_json::{Value, json};
use tungstenite::Message;

const ROOM: &str = "chat.lobby";

fn main() -> Result<(), Box<dyn Error>> {
    let url = env::var("PUBSUB_URL").unwrap_or_else(|_| "ws://127.0.0.1:8000/".to_owned());
    let once = env::args().any(|argument| argument == "--once");

    let (mut socket, _response) = tungstenite::connect(&url)?;
    let subscribe = json!({ "type": "subscribe", "topic": ROOM });
    socket.send(Message::text(subscribe.to_string()))?;

    // Reading is also what answers the broker's pings.
    loop {
        let text = match socket.read()? {
            Message::Text(text) => text,
            Message::Close(frame) => return Err(format!("the broker closed: {frame:?}").into()),
            _ => continue,
        };
        let object: Value = serde_json::from_str(&text)?;
        let message = &object["message"];
        match object["type"].as_str() {
            // From its ack on the subscription holds: an answer to the greeting can't be missed.
            Some("ack") if object["action"] == "subscribe" => {
                println!("subscribed: {ROOM}");
                socket.send(say("hello, I know the load of this machine: !load"))?;
            }
            Some("publish") => {
                let word = |key: &str| message[key].as_str().unwrap_or("?");
                println!("received: {}: {}", word("name"), word("text"));
                if word("text") == "!load" {
                    socket.send(say(&load()))?;
                }
                if once {
                    socket.close(None)?;
                    // Until the broker has answered, so that what was just said is on its way.
                    while socket.read().is_ok() {}
                    return Ok(());
                }
            }
            Some("error") => return Err(text.as_str().into()),
            _ => {}
        }
    }
}

/// A message to the room. `echo: false`, since the bot knows what it said.
fn say(text: &str) -> Message {
    let message = json!({ "name": "bot", "text": text });
    let publish = json!({ "type": "publish", "topic": ROOM, "message": message, "echo": false });
    Message::text(publish.to_string())
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").map_or_else(
        |error| format!("I can't see it: {error}"),
        |averages| averages.trim().to_owned(),
    )
}
