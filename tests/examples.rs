//! The programs of `examples/`, run as their first lines say: three clients that meet in one room.

mod common;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;

use common::{Broker, Browser, Client, Talker, missing_node, pair_on_two_shards, skip};
use serde_json::json;

#[test]
fn bot_terminal_and_browser_meet() {
    let name = "bot_terminal_and_browser_meet";
    if let Some(why) = missing_node(&example("node")) {
        return skip(name, &why);
    }
    let Some(mut browser) = Browser::start() else {
        return skip(name, "there is no Chromium");
    };
    let bot = build("bot");
    let broker = Broker::start(&[]);
    let url = format!("ws://{}/", broker.listen());
    // Whatever shards the three come to live on, somebody on either shard hears each of them.
    let (mut one, mut two) = pair_on_two_shards(&broker);
    one.subscribe("chat");
    two.subscribe("chat");
    let mut witnessed = |author: &str, text: &str| {
        for witness in [&mut one, &mut two] {
            let message = witness.delivery()["message"].clone();
            assert_eq!(message["name"], author, "{message}");
            let said = message["text"].as_str().expect("a text");
            assert!(said.contains(text), "{said:?} without {text:?}");
        }
    };

    let mut bot = Talker::start(Command::new(bot).env("PUBSUB_URL", &url));
    bot.expect("subscribed: chat.lobby");
    witnessed("bot", "!load");

    let mut node = Command::new("node");
    node.args([
        "chat.mjs",
        "--name",
        "ada",
        "--say",
        "hello from a terminal",
    ])
    .current_dir(example("node"))
    .env("PUBSUB_URL", &url);
    let mut node = Talker::start(&mut node);
    node.expect("subscribed: chat.lobby");
    bot.expect("received: ada: hello from a terminal");
    witnessed("ada", "hello from a terminal");

    let page = serve(example("browser").join("index.html"));
    browser.open(&format!(
        "{page}?url={url}&name=web&say=hello%20from%20a%20page"
    ));
    browser.wait_for("document.querySelector('#status').textContent === 'subscribed'");
    bot.expect("received: web: hello from a page");
    node.expect("received: web: hello from a page");
    witnessed("web", "hello from a page");

    // Somebody types in the terminal; the bot answers; everybody else reads both.
    node.say("!load");
    bot.expect("received: ada: !load");
    node.expect("received: bot: ");
    browser.wait_for(&shows("received: ada: !load"));
    browser.wait_for(&shows("received: bot: "));
    witnessed("ada", "!load");
    witnessed("bot", "");

    // And on the page.
    browser.fill("#text", "good bye");
    browser.click("#form button");
    browser.wait_for(&shows("received: web: good bye"));
    bot.expect("received: web: good bye");
    node.expect("received: web: good bye");
    witnessed("web", "good bye");
}

#[test]
fn a_program_with_the_broker_inside_is_a_chat_server() {
    let mut program = Command::new(build("embedded"));
    let mut program = Talker::start(program.env("PUBSUB_LISTEN", "127.0.0.1:0").arg("--once"));
    let line = program.expect("listening: ");
    let address = line.rsplit(' ').next().expect("an address");
    let mut enter = |name: &str, room: &str| {
        let client = Client::connect_to(address, &format!("/?name={name}&room={room}"));
        program.expect(&format!("{name} is in room {room}"));
        client
    };
    let event = |client: &mut Client| {
        let event = client.answer();
        (event["event"].clone(), event["data"].clone())
    };
    let mut ada = enter("ada", "1");
    assert_eq!(event(&mut ada), (json!("joined"), json!("ada")));
    let mut bob = enter("bob", "1");
    assert_eq!(event(&mut bob), (json!("joined"), json!("bob")));
    assert_eq!(event(&mut ada), (json!("joined"), json!("bob")));
    let mut eve = enter("eve", "2");
    assert_eq!(event(&mut eve), (json!("joined"), json!("eve")));

    ada.send_json(&json!({"type": "event", "event": "chat", "data": "hello"}));
    let said = json!({"name": "ada", "text": "hello"});
    assert_eq!(event(&mut bob), (json!("chat"), said));
    let who = json!({"event": "who"});
    assert_eq!(ada.request(who.clone())["data"], json!(["ada", "bob"]));
    assert_eq!(eve.request(who)["data"], json!(["eve"]));
    let refused = eve.request(json!({"event": "what"}));
    assert_eq!(refused["error"]["code"], "no_handler");
    drop(bob);
    assert_eq!(event(&mut ada), (json!("left"), json!("bob")));
    drop(ada);
    drop(eve);
    program.expect_end(vec!["bob has left", "ada has left", "eve has left"]);
}

/// The client of the peer protocol in Python, over TCP and over a Unix socket; with a key, and with a wrong one.
#[test]
fn an_application_server_in_python_answers() {
    if Command::new("python3").arg("--version").output().is_err() {
        return skip(
            "an_application_server_in_python_answers",
            "there is no python3",
        );
    }
    let directory = tempfile::tempdir().expect("a directory");
    let path = format!("unix:{}", directory.path().join("peers.sock").display());
    let arguments = [
        "--peers",
        "127.0.0.1:0",
        "--peers",
        &path,
        "--peer-key",
        "s3cret",
    ];
    let broker = Broker::start(&arguments);
    let python = |address: &str, key: &str| {
        let mut python = Command::new("python3");
        python.arg(example("python").join("peer.py")).arg(address);
        python.env("PUBSUB_PEER_KEY", key);
        python
    };
    for address in broker.peers.clone() {
        let mut server = Talker::start(&mut python(&address, "s3cret"));
        server.expect_lines(&[
            "ready",
            "answered: 6",
            "refused: failed",
            r#"received: chat.lobby {"name": "shop", "text": "open"}"#,
        ]);
        let mut client = Client::connect(&broker);
        let answer = client.request(json!({"event": "sum", "data": [20, 22]}));
        assert_eq!(answer["data"], 42, "{answer}");
        client.publish("chat.lobby", json!("hello"));
        server.expect(r#"received: chat.lobby "hello""#);
    }
    let refused = python(&broker.peers[0], "s3crex")
        .output()
        .expect("it runs");
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("not_allowed"), "{said}");
}

/// Does the page show a line that begins so?
fn shows(text: &str) -> String {
    format!(
        "Array.from(document.querySelectorAll('#log li')).some(line => line.textContent.startsWith('{text}'))"
    )
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name)
}

/// Builds an example, which `cargo test` has done already unless it was told to build one test only.
fn build(example: &str) -> PathBuf {
    // The folder of this build, which cargo may have been told on its command line: TARGET/PROFILE/deps/us.
    let us = std::env::current_exe().expect("a test has a path");
    let profile = us.ancestors().nth(2).expect("TARGET/PROFILE/deps/us");
    let target = profile.parent().expect("TARGET/PROFILE");
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--example", example, "--target-dir"])
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "{cargo:?}: {status}");
    profile.join("examples").join(example)
}

/// Serves one page to whoever asks, on a port of its own, and gives its URL: a page from the disk would have no origin.
fn serve(page: PathBuf) -> String {
    let page = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{page:?}: {error}"));
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // Each by itself: browsers open connections that they may need later.
            let page = page.clone();
            thread::spawn(move || answer(stream, &page));
        }
    });
    format!("http://{address}/")
}

fn answer(mut stream: TcpStream, page: &str) {
    let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
    let is_page = head.next().is_some_and(|line| line.starts_with("GET /?"));
    head.find(String::is_empty);
    let (status, body) = if is_page {
        ("200 OK", page)
    } else {
        ("404 Not Found", "")
    };
    // Nobody may be there any more to read it.
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    );
}
