//! Tokens as clients meet them: who is let in, as whom, for how long, and what becomes of those who guess.

mod common;

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use common::raw::upgrade_head;
use common::{Broker, Client, Raw, run, wait_for};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rustix::process::Signal;
use serde_json::{Value, json};

const SECRET: &str = "a secret of the tests, long enough for its hash";
const OTHER_SECRET: &str = "another secret of the tests, which is the new one";
const SECRET_FLAGS: [&str; 2] = ["--jwt-secret", SECRET];
const OPEN_RULES: &str = r#"
    [[access]]
    filter = "news"
    who = "anyone"
    publish = false

    [[access]]
    filter = "*"
    who = "authenticated"
"#;

/// Seconds since 1970, so many from now.
fn seconds(from_now: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    now.as_secs() as i64 + from_now
}

fn signed_with(secret: &str, claims: &Value) -> String {
    let key = EncodingKey::from_secret(secret.as_bytes());
    encode(&Header::default(), claims, &key).unwrap()
}

fn token(claims: Value) -> String {
    signed_with(SECRET, &claims)
}

/// A token of somebody with this name, for a minute.
fn of(name: &str) -> String {
    token(json!({"sub": name, "exp": seconds(60)}))
}

fn connect(broker: &Broker, token: &str) -> Client {
    Client::connect_to(broker.listen(), &format!("/?token={token}"))
}

/// What a handshake with this query and these header fields gets: the whole head.
fn knock(broker: &Broker, query: &str, headers: &[(&str, &str)]) -> String {
    let mut raw = Raw::connect(broker.listen());
    let head = upgrade_head(broker.listen(), headers);
    raw.send(head.replace("GET /", &format!("GET /{query}")).as_bytes());
    raw.head()
}

#[track_caller]
fn expect_status(broker: &Broker, query: &str, headers: &[(&str, &str)], status: u16) -> String {
    let head = knock(broker, query, headers);
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} ")),
        "{query} {headers:?}: {head}"
    );
    head
}

fn key(name: &str) -> Vec<u8> {
    fs::read(Path::new("tests/keys").join(name)).unwrap()
}

#[test]
fn tokens_of_each_algorithm_let_clients_in() {
    let broker = Broker::start(
        &[
            &SECRET_FLAGS[..],
            &["--jwt-key-file", "tests/keys/rsa.pub.pem"],
            &["--jwt-key-file", "tests/keys/ed25519.pub.pem"],
        ]
        .concat(),
    );
    let rsa = EncodingKey::from_rsa_pem(&key("rsa.key.pem")).unwrap();
    let ed25519 = EncodingKey::from_ed_pem(&key("ed25519.key.pem")).unwrap();
    let secret = EncodingKey::from_secret(SECRET.as_bytes());
    let claims = json!({"sub": "ann", "exp": seconds(60)});
    let mut clients = Vec::new();
    for (algorithm, key) in [
        (Algorithm::HS256, &secret),
        (Algorithm::RS256, &rsa),
        (Algorithm::EdDSA, &ed25519),
    ] {
        let token = encode(&Header::new(algorithm), &claims, key).unwrap();
        clients.push(connect(&broker, &token));
        let bearer = format!("Bearer {token}");
        expect_status(&broker, "", &[("Authorization", &bearer)], 101);
    }
    for client in &mut clients {
        client.subscribe("a");
    }
    clients[0].publish("a.b", json!(7));
    for client in &mut clients {
        assert_eq!(client.delivery()["message"], 7);
    }
}

#[test]
fn who_shows_nothing_or_something_wrong_stays_out() {
    let broker = Broker::start(&SECRET_FLAGS);
    let head = expect_status(&broker, "", &[], 401);
    assert!(head.contains("WWW-Authenticate: Bearer\r\n"), "{head}");
    let public = String::from_utf8(key("rsa.pub.pem")).unwrap();
    for (wrong, how) in [
        (token(json!({"sub": "ann", "exp": seconds(-1)})), "expired"),
        (token(json!({"sub": "ann", "nbf": seconds(60)})), "not yet"),
        (token(json!({"exp": seconds(60)})), "of nobody"),
        (
            signed_with(OTHER_SECRET, &json!({"sub": "ann"})),
            "by another",
        ),
        (
            signed_with(&public, &json!({"sub": "ann"})),
            "by a public key",
        ),
        ("eyJhbGciOiJub25lIn0.eyJzdWIiOiJhIn0.".to_owned(), "by none"),
        ("nonsense".to_owned(), "none"),
    ] {
        let head = expect_status(&broker, &format!("?token={wrong}"), &[], 401);
        assert!(head.contains("error=\"invalid_token\""), "{how}: {head}");
    }
    // The page needs no token, and says nothing.
    let mut raw = Raw::connect(broker.listen());
    raw.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", broker.listen()).as_bytes());
    assert!(raw.head().starts_with("HTTP/1.1 200 "));
    connect(&broker, &of("ann")).subscribe("a");
    assert_eq!(broker.sum("unauthenticated"), 7);
}

#[test]
fn where_something_is_for_anyone_nobody_has_to_be_somebody() {
    let broker = Broker::start_with_config(OPEN_RULES, &SECRET_FLAGS);
    let mut nobody = Client::connect(&broker);
    let mut ann = connect(&broker, &of("ann"));
    nobody.subscribe("news.uk");
    for (client, may) in [(&mut nobody, false), (&mut ann, true)] {
        for command in [
            json!({"type": "subscribe", "topic": "chat"}),
            json!({"type": "publish", "topic": "chat", "message": 1}),
        ] {
            if may {
                client.command(command);
            } else {
                assert_eq!(client.refused(command), "not_allowed");
            }
        }
    }
    // The first rule speaks of reading only.
    let publish = json!({"type": "publish", "topic": "news.uk", "message": 1});
    assert_eq!(nobody.refused(publish), "not_allowed");
    ann.publish("news.uk", json!(2));
    assert_eq!(nobody.delivery()["message"], 2);
    expect_status(&broker, "?token=nonsense", &[], 401);
}

#[test]
fn the_lists_of_a_token_narrow_what_the_rules_allow() {
    let broker = Broker::start_with_config(OPEN_RULES, &SECRET_FLAGS);
    let claims = json!({
        "sub": "ann",
        "subscribe": ["chat.ann", "news"],
        "publish": ["=chat.*"],
    });
    let mut ann = connect(&broker, &token(claims));
    for (kind, topic, may) in [
        ("subscribe", "chat.ann.x", true),
        ("subscribe", "news.uk", true),
        ("subscribe", "chat", false),
        ("subscribe", "other", false),
        ("publish", "chat.bob", true),
        ("publish", "chat.bob.x", false),
        ("publish", "news", false),
    ] {
        let command = json!({"type": kind, "topic": topic, "message": 1});
        if may {
            ann.command(command);
        } else {
            assert_eq!(ann.refused(command), "not_allowed", "{kind} {topic}");
        }
    }
}

#[test]
fn a_session_ends_with_its_token_and_comes_back_with_another() {
    let broker = Broker::start(&SECRET_FLAGS);
    let mut ann = connect(&broker, &token(json!({"sub": "ann", "exp": seconds(2)})));
    let mut bob = connect(&broker, &of("bob"));
    for client in [&mut ann, &mut bob] {
        client.subscribe("a");
    }
    bob.publish("a", json!(1));
    assert_eq!(ann.delivery()["message"], 1);
    ann.expect_close(4010);
    let stats = broker.stats();
    assert_eq!(stats["closed"]["token expired"], 1);
    assert_eq!(bob.delivery()["message"], 1);
    connect(&broker, &of("ann")).subscribe("a");
}

#[test]
fn whoever_guesses_is_not_heard_for_five_minutes() {
    let broker = Broker::start(&SECRET_FLAGS);
    let mut ann = connect(&broker, &of("ann"));
    let wrong = signed_with(OTHER_SECRET, &json!({"sub": "ann"}));
    let wrong = format!("?token={wrong}");
    // Nothing of this is a guess.
    let expired = token(json!({"sub": "ann", "exp": seconds(-1)}));
    for _ in 0..10 {
        expect_status(&broker, &format!("?token={expired}"), &[], 401);
        expect_status(&broker, "", &[], 401);
    }
    let mut guesses = 0;
    let head = loop {
        let head = knock(&broker, &wrong, &[]);
        if !head.starts_with("HTTP/1.1 401 ") {
            break head;
        }
        guesses += 1;
        assert!(guesses < 1000, "nobody minds");
    };
    assert!(
        head.starts_with("HTTP/1.1 429 Too Many Requests\r\n"),
        "{head}"
    );
    assert!(guesses >= 10, "{guesses}");
    let rest = head.split("Retry-After: ").nth(1).expect("a time");
    let rest: u64 = rest.split("\r\n").next().unwrap().parse().unwrap();
    assert!((290..=300).contains(&rest), "{rest}");
    broker.log_line("not heard for five minutes address=127.0.0.1");
    // On the other shard as well, and whatever is shown.
    wait_for("both shards to have heard of it", || {
        let heads: Vec<String> = (0..20)
            .map(|_| knock(&broker, &format!("?token={}", of("bob")), &[]))
            .collect();
        heads
            .iter()
            .all(|head| head.starts_with("HTTP/1.1 429 "))
            .then_some(())
    });
    // Who is in is in.
    ann.subscribe("a");
}

#[test]
fn keys_are_read_again_and_who_is_in_stays_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secrets");
    let write = |text: &str| fs::write(&path, text).unwrap();
    write(SECRET);
    let broker = Broker::start(&["--jwt-secret-file", path.to_str().unwrap()]);
    let old = format!("?token={}", of("ann"));
    let new = signed_with(OTHER_SECRET, &json!({"sub": "bob"}));
    let new = format!("?token={new}");
    let mut ann = connect(&broker, &of("ann"));
    ann.subscribe("a");
    expect_status(&broker, &new, &[], 401);

    // Both.
    write(&format!("{OTHER_SECRET}\n{SECRET}\n"));
    broker.signal(Signal::HUP);
    broker.log_line("keys were read again keys=2");
    expect_status(&broker, &old, &[], 101);
    let mut bob = Client::connect_to(broker.listen(), &format!("/{new}"));

    // The new one alone.
    write(OTHER_SECRET);
    broker.signal(Signal::HUP);
    broker.log_line("keys were read again keys=1");
    expect_status(&broker, &old, &[], 401);
    expect_status(&broker, &new, &[], 101);
    bob.publish("a", json!(1));
    assert_eq!(ann.delivery()["message"], 1);

    // None: then those that were good stay good.
    write("\n");
    broker.signal(Signal::HUP);
    let line = broker.log_line("the keys stay as they were");
    assert!(
        line.contains("ERROR") && line.contains("has no secret"),
        "{line}"
    );
    expect_status(&broker, &new, &[], 101);
    fs::remove_file(&path).unwrap();
    broker.signal(Signal::HUP);
    broker.log_line("No such file");
    expect_status(&broker, &new, &[], 101);
    bob.publish("a", json!(2));
    assert_eq!(ann.delivery()["message"], 2);
}

#[test]
fn a_broker_without_keys_lives_through_a_hangup_and_a_drain_too() {
    let mut broker = Broker::start(&["--drain-delay", "60000"]);
    broker.signal(Signal::HUP);
    broker.log_line("nothing to read again");
    let mut client = Client::connect(&broker);
    broker.terminate();
    broker.log_line("draining");
    // No second signal.
    broker.signal(Signal::HUP);
    client.subscribe("a");
    broker.terminate();
    assert!(broker.wait_exit().success());
}

#[test]
fn issuer_audience_and_an_end_can_be_asked_for() {
    let flags = ["--jwt-issuer", "us", "--jwt-audience", "pubsub"];
    let broker =
        Broker::start(&[&SECRET_FLAGS[..], &flags[..], &["--jwt-require-exp"][..]].concat());
    let good = json!({"sub": "ann", "iss": "us", "aud": ["x", "pubsub"], "exp": seconds(60)});
    expect_status(
        &broker,
        &format!("?token={}", token(good.clone())),
        &[],
        101,
    );
    for claim in ["iss", "aud", "exp"] {
        let mut without = good.clone();
        without.as_object_mut().unwrap().remove(claim);
        let query = format!("?token={}", token(without));
        expect_status(&broker, &query, &[], 401);
    }
    for (claim, wrong) in [("iss", "them"), ("aud", "others")] {
        let mut other = good.clone();
        other[claim] = json!(wrong);
        expect_status(&broker, &format!("?token={}", token(other)), &[], 401);
    }
}

#[test]
fn whoever_asks_for_tokens_may_listen_to_the_world() {
    let refused = run(&["--listen", "0.0.0.0:0", "--admin", "off"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("--jwt-key-file"), "{refused:?}");
    // Not started: a test listens on loopback only. What would be is checked all the same.
    let checked = run(&[
        "check-config",
        "--listen",
        "0.0.0.0:0",
        "--jwt-key-file",
        "tests/keys/rsa.pub.pem",
    ]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let checked = run(&["check-config", "--jwt-secret", SECRET]);
    assert!(!checked.stdout.contains(SECRET), "{checked:?}");
    let refused = run(&["--jwt-key-file", "tests/keys/rsa.key.pem"]);
    assert_eq!(refused.code, Some(2));
    assert!(refused.stderr.contains("is a private key"), "{refused:?}");
}

#[test]
fn no_log_shows_a_token_or_a_secret() {
    let mut broker = Broker::start(&[&SECRET_FLAGS[..], &["--log", "trace"]].concat());
    let good = of("ann");
    connect(&broker, &good).subscribe("a");
    let bad = signed_with(OTHER_SECRET, &json!({"sub": "ann"}));
    expect_status(&broker, &format!("?token={bad}"), &[], 401);
    broker.log_line("the token's signature is wrong");
    broker.terminate();
    broker.wait_exit();
    let log = broker.log_text();
    for secret in [SECRET, &good, &bad] {
        assert!(!log.contains(secret), "{log}");
    }
}
