//! The tools that come with Redis, `redis-cli` and `redis-benchmark`, and bare sockets as health checks are.
//!
//! `E2E_RESP=HOST:PORT` names another server, as in `redis_clients`.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use common::broker::{Finished, run_command, run_command_fed};
use common::resp::start_broker;
use common::{Client, DEADLINE, RespServer, Talker, skip};

/// Why the tools are not here, if so. `cargo xtask test --only setup` brings them.
fn missing_tools() -> Option<String> {
    ["redis-cli", "redis-benchmark"]
        .into_iter()
        .find(|tool| Command::new(tool).arg("--version").output().is_err())
        .map(|tool| format!("there is no {tool}"))
}

fn cli(server: &RespServer, arguments: &[&str]) -> Finished {
    let finished = run_command(server.tool("redis-cli").args(arguments));
    assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
    finished
}

#[test]
fn redis_cli_is_answered() {
    if let Some(why) = missing_tools() {
        return skip("redis_cli_is_answered", &why);
    }
    let server = RespServer::start(&[]);
    let check = |arguments: &str, expected: &str| {
        let words: Vec<&str> = arguments.split(' ').collect();
        assert_eq!(cli(&server, &words).stdout, expected, "{arguments}");
    };
    check("ping", "PONG\n");
    check("echo é", "é\n");
    check("-n 1 ping", "PONG\n");
    check("-r 3 -i 0 ping", "PONG\nPONG\nPONG\n");
    check("publish nobody x", "0\n");
    // As it would be shown in a terminal, in both versions of the protocol.
    for version in ["-2", "-3"] {
        let check = |arguments: &str, expected: &str| {
            check(&format!("{version} --no-raw {arguments}"), expected);
        };
        check("ping", "PONG\n");
        check("ping é", "\"\\xc3\\xa9\"\n");
        check("publish nobody x", "(integer) 0\n");
        check("spublish nobody x", "(integer) 0\n");
        check("client getname", "(nil)\n");
        check("get x", "(nil)\n");
        check("exists x", "(integer) 0\n");
        check("pubsub channels", "(empty array)\n");
        check("pubsub shardchannels", "(empty array)\n");
        check(
            "pubsub numsub a b",
            "1) \"a\"\n2) (integer) 0\n3) \"b\"\n4) (integer) 0\n",
        );
        check("pubsub numpat", "(integer) 0\n");
        check("select 1", "OK\n");
        check("client setname a-name", "OK\n");
        check("select 16", "(error) ERR DB index is out of range\n");
        let unknown = "(error) ERR unknown command 'foo', with args beginning with: 'bar' \n";
        check("foo bar", unknown);
        let arity = "(error) ERR wrong number of arguments for 'publish' command\n";
        check("publish x", arity);
    }
    let contains = |arguments: &str, expected: &[&str]| {
        let words: Vec<&str> = arguments.split(' ').collect();
        let stdout = cli(&server, &words).stdout;
        for part in expected {
            assert!(stdout.contains(part), "{part} in {stdout}");
        }
    };
    contains("info", &["redis_version:", "role:master", "loading:0"]);
    contains("-3 info server", &["redis_version:"]);
    contains("-3 client info", &["id=", "name=", "resp=3"]);
    contains("client list", &["id=", "addr="]);
    let hello = [
        "\"server\" => ",
        "\"proto\" => (integer) 3",
        "\"role\" => \"master\"",
    ];
    contains("-3 --no-raw hello 3", &hello);
    contains(
        "--no-raw hello 2",
        &["1) \"server\"\n", " 5) \"proto\"\n 6) (integer) 2\n"],
    );
    contains("--no-raw time", &["1) \"", "2) \""]);

    let mut failing = server.tool("redis-cli");
    let finished = run_command(failing.args(["-e", "foo"]));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    let url = format!("redis://{}/0", server.address());
    let finished = run_command(Command::new("redis-cli").args(["-u", &url, "ping"]));
    assert_eq!(finished.stdout, "PONG\n", "{finished:?}");
}

#[test]
fn redis_cli_is_fed() {
    if let Some(why) = missing_tools() {
        return skip("redis_cli_is_fed", &why);
    }
    let server = RespServer::start(&[]);
    let fed = |arguments: &[&str], input: &[u8]| {
        let finished = run_command_fed(server.tool("redis-cli").args(arguments), input);
        assert_eq!(finished.code, Some(0), "{arguments:?}: {finished:?}");
        finished.stdout
    };
    let typed = b"ping\n\npublish nobody x\necho \"a b\"\nget x\nquit\n";
    assert_eq!(fed(&[], typed), "PONG\n0\na b\n\n");
    assert_eq!(fed(&["-3"], typed), "PONG\n0\na b\n\n");
    assert_eq!(
        fed(&["-x", "echo"], b"the last argument"),
        "the last argument\n"
    );
    let commands = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$2\r\n\r\n\r\n".repeat(1000);
    let stdout = fed(&["--pipe"], &commands);
    assert!(stdout.ends_with("errors: 0, replies: 1000\n"), "{stdout}");
}

#[test]
fn redis_cli_subscribes() {
    if let Some(why) = missing_tools() {
        return skip("redis_cli_subscribes", &why);
    }
    let server = RespServer::start(&[]);
    let start = |arguments: &[&str]| Talker::start(server.tool("redis-cli").args(arguments));
    let publish = |command: &str, channel: &str, message: &str, count: &str| {
        let counted = cli(&server, &[command, channel, message]).stdout;
        assert_eq!(counted.trim_end(), count, "{channel}");
    };
    let mut plain = start(&["subscribe", "a", "b", "a"]);
    let confirmed = [
        "subscribe",
        "a",
        "1",
        "subscribe",
        "b",
        "2",
        "subscribe",
        "a",
        "2",
    ];
    plain.expect_lines(&confirmed);
    let mut pattern = start(&["-3", "psubscribe", "a*", "[bc]"]);
    pattern.expect_lines(&["psubscribe", "a*", "1", "psubscribe", "[bc]", "2"]);
    let mut shard = start(&["--csv", "ssubscribe", "a"]);
    shard.expect("Reading messages...");
    shard.expect_lines(&["\"ssubscribe\",\"a\",1"]);

    publish("publish", "a", "to both", "2");
    plain.expect_lines(&["message", "a", "to both"]);
    pattern.expect_lines(&["pmessage", "a*", "a", "to both"]);
    publish("publish", "abc", "é", "1");
    pattern.expect_lines(&["pmessage", "a*", "abc", "é"]);
    publish("spublish", "a", "to the shard channel", "1");
    shard.expect_lines(&["\"smessage\",\"a\",\"to the shard channel\""]);
    publish("spublish", "b", "to nobody", "0");
    publish("publish", "b", "again", "2");
    plain.expect_lines(&["message", "b", "again"]);
    pattern.expect_lines(&["pmessage", "[bc]", "b", "again"]);
}

#[test]
fn redis_benchmark_is_at_home() {
    if let Some(why) = missing_tools() {
        return skip("redis_benchmark_is_at_home", &why);
    }
    let server = RespServer::start(&[]);
    let bench = |arguments: &str, expected: &[&str]| {
        let mut command = server.tool("redis-benchmark");
        let finished = run_command(command.args(arguments.split(' ')));
        assert_eq!(finished.code, Some(0), "{arguments}: {finished:?}");
        for part in expected {
            assert!(finished.stdout.contains(part), "{part} in {finished:?}");
        }
    };
    let pings = ["PING_INLINE: ", "PING_MBULK: ", " requests per second"];
    bench("-t ping -n 20000 -c 20 -q", &pings);
    bench("-t ping -n 20000 -c 20 -P 16 -q", &pings);

    let subscribe = ["subscribe", "channel"];
    let mut subscribers: Vec<Talker> = (0..3)
        .map(|_| Talker::start(server.tool("redis-cli").args(subscribe)))
        .collect();
    for subscriber in &mut subscribers {
        subscriber.expect_lines(&["subscribe", "channel", "1"]);
    }
    let publishes = ["publish channel message: ", " requests per second"];
    bench("-n 2000 -c 10 -P 16 -q publish channel message", &publishes);
    bench(
        "-n 2000 -c 10 -P 16 -3 -q publish channel message",
        &publishes,
    );
    bench(
        "-n 2000 -c 10 -P 16 --threads 2 -q publish channel message",
        &publishes,
    );
    assert_eq!(cli(&server, &["publish", "channel", "end"]).stdout, "3\n");
    for subscriber in &mut subscribers {
        for _ in 0..6000 {
            subscriber.expect_lines(&["message", "channel", "message"]);
        }
        subscriber.expect_lines(&["message", "channel", "end"]);
    }
}

#[test]
fn redis_cli_needs_the_password() {
    if let Some(why) = missing_tools() {
        return skip("redis_cli_needs_the_password", &why);
    }
    let password = ["--resp-password", "sesame"];
    let server = RespServer::of(start_broker("127.0.0.1:0", &password));
    let check = |arguments: &[&str], expected: &str| {
        let stdout = cli(&server, arguments).stdout;
        assert_eq!(stdout.trim_end(), expected, "{arguments:?}");
    };
    let refused = "NOAUTH Authentication required.";
    check(&["ping"], refused);
    check(&["publish", "a", "b"], refused);
    check(&["-a", "wrong", "ping"], refused);
    check(&["-a", "sesame", "ping"], "PONG");
    check(&["-3", "-a", "sesame", "publish", "a", "b"], "0");
    check(&["--user", "default", "--pass", "sesame", "ping"], "PONG");
    check(&["--user", "somebody", "--pass", "sesame", "ping"], refused);
    let mut by_environment = server.tool("redis-cli");
    by_environment.env("REDISCLI_AUTH", "sesame").arg("ping");
    assert_eq!(run_command(&mut by_environment).stdout, "PONG\n");
}

#[test]
fn redis_cli_and_a_native_client_meet() {
    if let Some(why) = missing_tools() {
        return skip("redis_cli_and_a_native_client_meet", &why);
    }
    let broker = start_broker("127.0.0.1:0", &[]);
    let mut native = Client::connect(&broker);
    native.subscribe("news");
    let listen = broker.listen().to_owned();
    let mut publisher = Client::connect_to(&listen, "/");
    let server = RespServer::of(broker);

    // As many as hear it; what it is, is found out.
    let mut check = |channel: &str, message: &str, expected: serde_json::Value| {
        let counted = cli(&server, &["publish", channel, message]).stdout;
        assert_eq!(counted, "1\n");
        let delivery = native.delivery();
        assert_eq!(delivery["message"], expected, "{delivery}");
        assert_eq!(
            (&delivery["topic"], &delivery["context"]),
            (&json!(channel), &json!("news"))
        );
    };
    check("news", r#"{"a": [1, null]}"#, json!({"a": [1, null]}));
    check("news.uk", "17", json!(17));
    check("news.uk.london", "just words, é", json!("just words, é"));
    let mut bytes = server.tool("redis-cli");
    let finished = run_command_fed(bytes.args(["-x", "publish", "news"]), &[0xff, 0, 0xfe]);
    assert_eq!(finished.stdout, "1\n");
    assert_eq!(native.delivery()["message"], json!({"$binary": "/wD+"}));

    // A channel is exactly its name; a pattern is a pattern.
    let mut channel = Talker::start(server.tool("redis-cli").args(["subscribe", "news"]));
    channel.expect_lines(&["subscribe", "news", "1"]);
    let mut pattern = Talker::start(server.tool("redis-cli").args(["-3", "psubscribe", "news*"]));
    pattern.expect_lines(&["psubscribe", "news*", "1"]);
    publisher.publish("news.uk", json!({"a": [1, null]}));
    publisher.publish("news", json!("é"));
    channel.expect_lines(&["message", "news", "\"é\""]);
    pattern.expect_lines(&["pmessage", "news*", "news.uk", r#"{"a":[1,null]}"#]);
    pattern.expect_lines(&["pmessage", "news*", "news", "\"é\""]);
}

#[test]
fn a_bare_socket_is_served() {
    let server = RespServer::start(&[]);
    // What is said, by pieces; what is heard, so much of it.
    let heard = |pieces: &[&[u8]], size: u64| {
        let mut socket = TcpStream::connect(server.address()).expect("it listens");
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        for piece in pieces {
            socket.write_all(piece).expect("it reads");
        }
        let mut heard = Vec::new();
        // What it did not read any more turns its end into a reset.
        let _ = socket.take(size).read_to_end(&mut heard);
        String::from_utf8(heard).expect("text")
    };
    let check = |pieces: &[&[u8]], expected: &str| {
        let size = expected.len() as u64;
        assert_eq!(heard(pieces, size), expected, "{pieces:?}");
    };
    check(&[b"PING\r\n"], "+PONG\r\n");
    check(&[b"PING\n"], "+PONG\r\n");
    check(&[b"\r\n\r\n  ping   x \r\n"], "$1\r\nx\r\n");
    check(&[b"ECHO \"a \\x41\\n\" \r\n"], "$4\r\na A\n\r\n");
    check(&[b"echo 'a \\' b'\r\nPING\r\n"], "$5\r\na ' b\r\n+PONG\r\n");
    check(
        &[b"SUBSCRIBE a\r\nPING\r\nUNSUBSCRIBE\r\nUNSUBSCRIBE\r\n"],
        "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n*2\r\n$4\r\npong\r\n$0\r\n\r\n\
         *3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
    );
    let one_by_one: Vec<&[u8]> = b"*2\r\n$4\r\nECHO\r\n$3\r\na\r\n\r\n*1\r\n$4\r\nPING\r\n"
        .chunks(1)
        .collect();
    check(&one_by_one, "$3\r\na\r\n\r\n+PONG\r\n");
    check(&[b"*0\r\n*-1\r\n*1\r\n$4\r\nPING\r\n"], "+PONG\r\n");

    // To the end of the connection.
    let ends = |bytes: &[u8], expected: &str| {
        assert_eq!(heard(&[bytes], u64::MAX), expected, "{bytes:?}");
    };
    ends(b"QUIT\r\nPING\r\n", "+OK\r\n");
    let wrong = |bytes: &[u8], reason: &str| {
        ends(bytes, &format!("-ERR Protocol error: {reason}\r\n"));
    };
    wrong(b"*1\r\n$x\r\n", "invalid bulk length");
    wrong(b"*1\r\n$-1\r\n", "invalid bulk length");
    wrong(b"*1\r\n$9223372036854775807\r\n", "invalid bulk length");
    wrong(b"*x\r\n", "invalid multibulk length");
    wrong(b"*2147483648\r\n", "invalid multibulk length");
    wrong(b"*1\r\n:1\r\n", "expected '$', got ':'");
    wrong(b"ECHO \"open\r\n", "unbalanced quotes in request");
}

#[test]
fn a_push_comes_before_the_reply_and_never_within() {
    let server = RespServer::start(&[]);
    let mut socket = TcpStream::connect(server.address()).expect("it listens");
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let said = "HELLO 3\r\nSUBSCRIBE c\r\nPUBLISH c x\r\nECHO e\r\nPUBLISH c y\r\nUNSUBSCRIBE c\r\n\
                PUBLISH c z\r\nUNSUBSCRIBE\r\nQUIT\r\n";
    socket.write_all(said.as_bytes()).unwrap();
    let mut heard = String::new();
    socket.read_to_string(&mut heard).expect("text, to its end");
    assert!(heard.starts_with("%7\r\n$6\r\nserver\r\n"), "{heard}");
    let expected = ">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n\
                    >3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nx\r\n:1\r\n\
                    $1\r\ne\r\n\
                    >3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\ny\r\n:1\r\n\
                    >3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n\
                    :0\r\n\
                    >3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n\
                    +OK\r\n";
    assert!(heard.ends_with(expected), "{heard}");
}
