//! RESP over real sockets: pipelines however they are cut, answers in order across shards, broken bytes, and questions
//! about all shards.

mod common;

use std::collections::HashMap;
use std::net::{Shutdown, TcpListener};

use common::redis::{Value, command, command_of};
use common::{Broker, Client, DEADLINE, Redis, clients_by_shard, skip, wait_for};
use serde_json::json;

fn start(arguments: &[&str]) -> Broker {
    Broker::start(&[&["--resp", "127.0.0.1:0"], arguments].concat())
}

/// A client that lives on this shard. The kernel spreads connections by a hash, so this connects until it is there.
fn connect_on(broker: &Broker, shard: usize) -> Redis {
    let mut spare = Vec::new();
    for _ in 0..64 {
        let client = Redis::connect(broker);
        if broker.shard_at(&client.address()) == shard {
            return client;
        }
        spare.push(client);
    }
    panic!("{} connections, and none on shard {shard}", spare.len());
}

/// Everything that a RESP2 connection without subscriptions is answered, in forms that are easily cut wrong.
#[test]
fn pipelines_may_be_cut_anywhere() {
    let broker = start(&[]);
    let mut reader = Redis::connect_speaking(&broker, 3);
    reader.subscribe(b"cut");
    let pipeline: Vec<u8> = [
        &command(&[b"ECHO", b"\r\n*1\r\n$4\r\nQUIT\r\n"])[..],
        b"PING 'in a line'\r\n\r\n*0\r\n",
        &command(&[b"PUBLISH", b"cut", b"\x00\xff\r"]),
        &command(&[b"PING", b""]),
        b"echo \"\\x41\\r\"\n",
        &command(&[b"what", b"x"]),
        &command(&[b"UNSUBSCRIBE"]),
    ]
    .concat();
    let replies = [
        r"\r\n*1\r\n$4\r\nQUIT\r\n",
        "in a line",
        ":1",
        "",
        r"A\r",
        "-ERR unknown command 'what', with args beginning with: 'x' ",
        "*3 unsubscribe $-1 :0",
    ];
    let mut client = Redis::connect(&broker);
    let mut sent = broker.sum("received_bytes");
    // It has arrived and was read before the rest is sent.
    let mut send_alone = |client: &mut Redis, bytes: &[u8]| {
        client.send(bytes);
        sent += bytes.len() as u64;
        wait_for("bytes to arrive", || {
            (broker.sum("received_bytes") == sent).then_some(())
        });
    };
    let whole = 0..=pipeline.len();
    let cuts = whole.map(|cut| vec![&pipeline[..cut], &pipeline[cut..]]);
    let bytes = pipeline.chunks(1).collect();
    for pieces in cuts.chain([bytes]) {
        for piece in &pieces {
            send_alone(&mut client, piece);
        }
        for expected in replies {
            assert_eq!(client.reply().to_string(), expected, "{}", pieces[0].len());
        }
        let delivery = reader.delivery();
        assert_eq!(delivery.to_string(), r">3 message cut \x00\xff\r");
    }
}

#[test]
fn lines_are_commands_as_well() {
    let broker = start(&[]);
    let mut client = Redis::connect(&broker);
    for (line, expected) in [
        ("PING\r\n", "+PONG"),
        ("ping\n", "+PONG"),
        ("  ECHO   spaced\t\r\n", "spaced"),
        ("\r\n\n  \nECHO after\r\n", "after"),
        ("ECHO \"a \\\"b\\\" \\x00\\n\"\r\n", r#"a \"b\" \x00\n"#),
        ("ECHO 'it''s'\r\n", ""),
    ] {
        client.send(line.as_bytes());
        if expected.is_empty() {
            client.expect_end("-ERR Protocol error: unbalanced quotes in request\r\n");
        } else {
            assert_eq!(client.reply().to_string(), expected, "{line:?}");
        }
    }
    // A line of 64 KiB is the longest, whether its end ever comes or not.
    let mut client = Redis::connect(&broker);
    let longest = format!("ECHO {}", "x".repeat((64 << 10) - 5));
    client.send(format!("{longest}\n").as_bytes());
    assert_eq!(client.reply().bytes().len(), longest.len() - 5);
    client.send(format!("{longest}x").as_bytes());
    client.expect_end("-ERR Protocol error: too big inline request\r\n");
}

#[test]
fn ten_thousand_publishes_are_answered_each_in_its_place() {
    const COUNT: usize = 10_000;
    let broker = start(&[]);
    let mut publisher = connect_on(&broker, 0);
    let mut far = [connect_on(&broker, 1), connect_on(&broker, 1)];
    let mut near = connect_on(&broker, 0);
    for reader in &mut far {
        reader.subscribe(b"far");
        reader.subscribe(b"both");
    }
    near.subscribe(b"near");
    near.subscribe(b"both");
    let channels = [("far", 2), ("nobody", 0), ("near", 1), ("both", 3)];
    let channel = |number: usize| channels[number % channels.len()];
    let pipeline = (0..COUNT).flat_map(|number| {
        let payload = number.to_string();
        command(&[b"PUBLISH", channel(number).0.as_bytes(), payload.as_bytes()])
    });
    let sending = publisher.send_beside(pipeline.collect());
    for number in 0..COUNT {
        let (name, count) = channel(number);
        assert_eq!(publisher.reply().integer(), count, "{number} to {name}");
    }
    assert!(sending.join().unwrap());
    let check = |reader: &mut Redis, names: [&str; 2]| {
        for number in (0..COUNT).filter(|number| names.contains(&channel(*number).0)) {
            let expected = format!("*3 message {} {number}", channel(number).0);
            assert_eq!(reader.delivery().to_string(), expected);
        }
        reader.expect_nothing();
    };
    for reader in &mut far {
        check(reader, ["far", "both"]);
    }
    check(&mut near, ["near", "both"]);
    broker.stats_at_rest();
}

#[test]
fn twenty_thousand_channels_are_one_command() {
    const COUNT: usize = 20_000;
    let broker = start(&[]);
    let (mut reader, mut publisher) = (connect_on(&broker, 0), connect_on(&broker, 1));
    let names: Vec<String> = (0..COUNT).map(|number| format!("room#{number}#")).collect();
    let words = std::iter::once("SUBSCRIBE").chain(names.iter().map(String::as_str));
    let words: Vec<&[u8]> = words.map(str::as_bytes).collect();
    let sending = reader.send_beside([command(&words), command_of("PING behind")].concat());
    for (index, name) in names.iter().enumerate() {
        let expected = format!("*3 subscribe {name} :{}", index + 1);
        assert_eq!(reader.reply().to_string(), expected);
    }
    assert_eq!(reader.reply().to_string(), "*2 pong behind");
    assert!(sending.join().unwrap());
    assert_eq!(broker.sum("subscriptions"), COUNT as u64);
    for number in [0, 1, COUNT / 2, COUNT - 1] {
        let name = &names[number];
        assert_eq!(publisher.publish(name.as_bytes(), b"x"), 1);
        let expected = format!("*3 message {name} x");
        assert_eq!(reader.delivery().to_string(), expected);
    }
    assert_eq!(publisher.publish(b"room#20000#", b"x"), 0);
    let channels = {
        publisher.say("PUBSUB CHANNELS");
        publisher.reply()
    };
    assert_eq!(channels.elements().len(), COUNT);
    reader.say("UNSUBSCRIBE");
    let mut left: Vec<&str> = names.iter().map(String::as_str).collect();
    left.sort_unstable();
    let mut ended = Vec::new();
    for count in (0..COUNT).rev() {
        let reply = reader.reply();
        let [word, name, told] = reply.elements() else {
            panic!("{reply}")
        };
        assert_eq!((word.text(), told.integer()), ("unsubscribe", count as i64));
        ended.push(name.text().to_owned());
    }
    ended.sort_unstable();
    assert_eq!(ended, left);
    assert_eq!(reader.ask("GET x"), "$-1", "it is no subscriber any more");
    assert_eq!(publisher.ask("PUBSUB CHANNELS"), "*0");
    assert_eq!(broker.sum("subscriptions"), 0);
}

/// What a connection says, and its last words.
const BROKEN: [(&str, &str); 15] = [
    ("*1\r\n$-1\r\n", "invalid bulk length"),
    ("*1\r\n$x\r\n", "invalid bulk length"),
    ("*1\r\n$04\r\nPING\r\n", "invalid bulk length"),
    (
        "*2\r\n$4\r\nECHO\r\n$9223372036854775807\r\n",
        "invalid bulk length",
    ),
    (
        "*2\r\n$4\r\nECHO\r\n$99999999999999999999\r\n",
        "invalid bulk length",
    ),
    ("*x\r\n", "invalid multibulk length"),
    ("*1x\r\n", "invalid multibulk length"),
    ("*2147483648\r\n", "invalid multibulk length"),
    ("*9223372036854775807\r\n", "invalid multibulk length"),
    ("*1048577\r\n", "invalid multibulk length"),
    ("*1\r\nPING\r\n", "expected '$', got 'P'"),
    ("*1\r\n*1\r\n$4\r\nPING\r\n", "expected '$', got '*'"),
    ("*2\r\n$4\r\nPING\r\n:1\r\n", "expected '$', got ':'"),
    ("ECHO \"x\r\n", "unbalanced quotes in request"),
    ("ECHO 'x'y\r\n", "unbalanced quotes in request"),
];

#[test]
fn broken_bytes_end_their_connection_and_no_other() {
    let broker = start(&[]);
    let (mut publisher, mut reader) = (connect_on(&broker, 0), connect_on(&broker, 1));
    reader.subscribe(b"t");
    for (number, (bytes, words)) in BROKEN.into_iter().enumerate() {
        let mut client = Redis::connect(&broker);
        // What came before is answered, what comes behind never happened.
        let before = command_of("PUBLISH t before");
        let behind = command_of("PUBLISH t behind");
        client.send(&[&before, bytes.as_bytes(), &behind].concat());
        assert_eq!(client.reply().to_string(), ":1");
        client.expect_end(&format!("-ERR Protocol error: {words}\r\n"));
        let number = number.to_string();
        assert_eq!(publisher.publish(b"t", number.as_bytes()), 1);
        for expected in ["before", &number] {
            let expected = format!("*3 message t {expected}");
            assert_eq!(reader.delivery().to_string(), expected, "{bytes:?}");
        }
    }
    assert_eq!(publisher.ask("PING"), "+PONG");
    reader.expect_nothing();
    let closed = &broker.stats()["closed"];
    assert_eq!(closed["internal error"], 0);
    assert_eq!(
        closed["protocol error"].as_u64().unwrap() + closed["message too big"].as_u64().unwrap(),
        BROKEN.len() as u64
    );
}

/// A page in a browser can make it send HTTP anywhere, with a body of its choice.
#[test]
fn http_is_closed_at_once_and_nothing_behind_it_happens() {
    let broker = start(&[]);
    let mut reader = Redis::connect(&broker);
    reader.subscribe(b"t");
    let body = "PUBLISH t x\r\n";
    let length = body.len();
    for (head, words) in [
        (
            format!("POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\n\r\n"),
            "",
        ),
        (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".to_owned(),
            "-ERR wrong number of arguments for 'get' command\r\n",
        ),
        (
            "PUT /x HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".to_owned(),
            "-ERR unknown command 'PUT', with args beginning with: '/x' 'HTTP/1.1' \r\n",
        ),
    ] {
        let mut client = Redis::connect(&broker);
        client.send(format!("{head}{body}").as_bytes());
        client.expect_end(words);
    }
    reader.expect_nothing();
    broker.log_line("HTTP at a RESP listener");
}

#[test]
fn quit_reset_and_unwanted_replies() {
    let broker = start(&[]);
    let (mut client, mut reader) = (connect_on(&broker, 0), connect_on(&broker, 1));
    reader.subscribe(b"t");
    // A reply that another shard has to be asked for is left out like any other.
    let lines = [
        "CLIENT REPLY SKIP",
        "PUBLISH t 1",
        "PUBLISH t 2",
        "CLIENT REPLY OFF",
        "PUBLISH t 3",
        "NONSENSE",
        "CLIENT REPLY ON",
    ];
    client.send(&lines.map(command_of).concat());
    assert_eq!(client.reply().to_string(), ":1");
    assert_eq!(client.reply().to_string(), "+OK");
    for number in 1..=3 {
        let expected = format!("*3 message t {number}");
        assert_eq!(reader.delivery().to_string(), expected);
    }

    client.ask("HELLO 3 SETNAME me");
    assert_eq!(client.ask("CLIENT GETNAME"), "me");
    assert_eq!(client.ask("SUBSCRIBE t"), ">3 subscribe t :1");
    assert_eq!(client.ask("PUBLISH t 4"), ":2");
    assert_eq!(client.delivery().to_string(), ">3 message t 4");
    assert_eq!(reader.delivery().to_string(), "*3 message t 4");
    assert_eq!(client.ask("RESET"), "+RESET");
    assert_eq!(client.ask("CLIENT GETNAME"), "$-1", "RESP2, and no name");
    assert_eq!(client.ask("PUBLISH t 5"), ":1");
    assert_eq!(reader.delivery().to_string(), "*3 message t 5");

    // It waits for its turn behind what other shards are asked.
    client.send(
        &["PUBLISH t 6", "QUIT", "PUBLISH t 7"]
            .map(command_of)
            .concat(),
    );
    client.expect_end(":1\r\n+OK\r\n");
    assert_eq!(reader.delivery().to_string(), "*3 message t 6");
    reader.expect_nothing();
    assert_eq!(reader.ask("QUIT"), "+OK");
    reader.expect_end("");
}

/// As `printf 'PING\r\n' | nc` does: the end comes with the commands.
#[test]
fn who_says_no_more_still_reads_what_it_asked_for() {
    let broker = start(&[]);
    let mut readers = [connect_on(&broker, 0), connect_on(&broker, 1)];
    for reader in &mut readers {
        reader.subscribe(b"t");
    }
    for number in 0..50 {
        let mut client = Redis::connect(&broker);
        client.send(format!("PING\r\nPUBLISH t {number}\r\nECHO {number}\r\n").as_bytes());
        client.socket().shutdown(Shutdown::Write).unwrap();
        let text = number.to_string();
        let size = text.len();
        client.expect_end(&format!("+PONG\r\n:2\r\n${size}\r\n{text}\r\n"));
        for reader in &mut readers {
            let expected = format!("*3 message t {number}");
            assert_eq!(reader.delivery().to_string(), expected);
        }
    }
}

/// The fields of a line of CLIENT LIST.
fn fields(line: &str) -> HashMap<&str, &str> {
    let fields = line.split(' ').map(|field| field.split_once('='));
    fields.map(|field| field.expect("name=value")).collect()
}

#[test]
fn clients_are_listed_on_all_shards() {
    let broker = start(&[]);
    let mut clients: Vec<Redis> = [0, 1, 0, 1]
        .map(|shard| connect_on(&broker, shard))
        .into_iter()
        .collect();
    // Those that were over are gone.
    wait_for("the other connections to go", || {
        (broker.sum("connections") == clients.len() as u64).then_some(())
    });
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(client.ask(&format!("CLIENT SETNAME c{number}")), "+OK");
    }
    clients[2].subscribe(b"a");
    assert_eq!(clients[2].ask("PSUBSCRIBE a* b*"), "*3 psubscribe a* :2");
    assert_eq!(clients[2].reply().to_string(), "*3 psubscribe b* :3");
    clients[3].ask("HELLO 3");
    clients[3].ask("SSUBSCRIBE s");
    // Others speak other protocols, and are no clients of Redis.
    let mut native = Client::connect(&broker);
    native.subscribe("a");

    let addresses: Vec<String> = clients.iter().map(Redis::address).collect();
    let ids: Vec<i64> = clients[..2]
        .iter_mut()
        .map(|client| {
            client.say("CLIENT ID");
            client.reply().integer()
        })
        .collect();
    assert_ne!(ids[0], ids[1]);
    let mut list = |line: &str| {
        clients[0].say(line);
        let list = clients[0].reply().text().to_owned();
        list.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let lines = list("CLIENT LIST");
    assert_eq!(lines.len(), 4, "{lines:#?}");
    for (number, address) in addresses.iter().enumerate() {
        let line = lines
            .iter()
            .find(|line| line.contains(&format!(" addr={address} ")));
        let line = fields(line.unwrap_or_else(|| panic!("{address} in {lines:#?}")));
        assert_eq!(line["name"], format!("c{number}"));
        assert_eq!(line["laddr"], broker.resp());
        let counts = [
            line["sub"],
            line["psub"],
            line["ssub"],
            line["resp"],
            line["flags"],
        ];
        let expected = match number {
            2 => ["1", "2", "0", "2", "P"],
            3 => ["0", "0", "1", "3", "P"],
            _ => ["0", "0", "0", "2", "N"],
        };
        assert_eq!(counts, expected, "{number}");
    }
    assert_eq!(list("CLIENT LIST TYPE pubsub").len(), 2);
    assert_eq!(list("CLIENT LIST TYPE normal").len(), 2);
    assert_eq!(list("CLIENT LIST TYPE replica").len(), 0);
    let asked = list(&format!("CLIENT LIST ID {} {}", ids[1], 1_u64 << 40));
    assert_eq!(fields(&asked[0])["name"], "c1");
    assert_eq!(asked.len(), 1);
}

#[test]
fn facts_are_those_of_all_shards() {
    let broker = start(&[]);
    let (mut one, mut two) = (connect_on(&broker, 0), connect_on(&broker, 1));
    wait_for("the other connections to go", || {
        (broker.sum("connections") == 2).then_some(())
    });
    for client in [&mut one, &mut two] {
        client.ask("HELLO 3");
        client.subscribe(b"on both");
        client.ask("PSUBSCRIBE p*");
        client.ask("SSUBSCRIBE s");
    }
    one.subscribe(b"on one");
    assert_eq!(two.publish(b"on both", b"x"), 2);
    one.say("INFO");
    let info = one.reply();
    let Value::Verbatim(_) = info else {
        panic!("{info}")
    };
    let text = info.text();
    let lines: HashMap<&str, &str> = text
        .split("\r\n")
        .filter_map(|l| l.split_once(':'))
        .collect();
    for (name, value) in [
        ("role", "master"),
        ("loading", "0"),
        ("connected_clients", "2"),
        ("pubsub_channels", "2"),
        ("pubsub_patterns", "1"),
        ("pubsubshard_channels", "1"),
        ("shards", "2"),
        ("subscriptions", "7"),
        ("publishes", "1"),
        ("deliveries_due", "2"),
    ] {
        assert_eq!(lines.get(name), Some(&value), "{name} in {text}");
    }
    assert_eq!(
        lines["tcp_port"],
        broker.resp().rsplit_once(':').expect("a port").1
    );
    // Under RESP2 the same is a bulk string, and a section is a part of it.
    let mut plain = Redis::connect(&broker);
    plain.say("INFO replication nonsense");
    let info = plain.reply();
    assert_eq!(
        info,
        Value::Bulk(b"# Replication\r\nrole:master\r\nconnected_slaves:0\r\n".to_vec())
    );
    assert_eq!(plain.ask("PUBSUB NUMSUB on"), "*2 on :0");
    plain.send(&command(&[b"PUBSUB", b"NUMSUB", b"on both", b"on one"]));
    let counts = plain.reply().to_string();
    assert_eq!(counts, "*4 on both :2 on one :1");
    assert_eq!(plain.ask("PUBSUB SHARDNUMSUB s"), "*2 s :2");
    assert_eq!(plain.ask("PUBSUB NUMPAT"), ":1");
    // An adapter asks this to know how many servers there are: subscribers of other protocols are none.
    let mut native = Client::connect(&broker);
    native.subscribe("on both");
    plain.send(&command(&[b"PUBSUB", b"NUMSUB", b"on both"]));
    assert_eq!(plain.reply().to_string(), "*2 on both :2");
    assert_eq!(plain.publish(b"on both", b"y"), 3);
    assert_eq!(native.delivery()["message"], json!("y"));
}

#[test]
fn an_address_of_ipv6_is_as_good() {
    if let Err(error) = TcpListener::bind("[::1]:0") {
        return skip("an_address_of_ipv6_is_as_good", &error.to_string());
    }
    let broker = Broker::start(&["--resp", "[::1]:0"]);
    assert!(broker.resp().starts_with("[::1]:"), "{}", broker.resp());
    let mut reader = Redis::connect(&broker);
    reader.subscribe(b"t");
    let mut client = Redis::connect(&broker);
    assert_eq!(client.publish(b"t", b"x"), 1);
    assert_eq!(reader.delivery().to_string(), "*3 message t x");
    client.say("CLIENT INFO");
    let line = client.reply().text().to_owned();
    assert_eq!(fields(line.trim_end())["addr"], client.address());
}

/// A Unix socket has one listener, on the first shard: its connections are dealt to all.
#[test]
fn a_unix_socket_is_as_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resp.sock");
    let resp = format!("unix:{}", path.display());
    let mut broker = Broker::start(&["--resp", &resp]);
    assert_eq!(broker.resp(), resp);
    let mut clients: Vec<Redis> = (0..4).map(|_| Redis::connect(&broker)).collect();
    for (number, client) in clients.iter_mut().enumerate() {
        client.subscribe(b"t");
        assert_eq!(
            client.ask(&format!("SUBSCRIBE {number}")),
            format!("*3 subscribe {number} :2")
        );
    }
    let by_shard: Vec<u64> = broker.stats()["shards"]
        .as_array()
        .expect("shards")
        .iter()
        .map(|shard| shard["connections"].as_u64().expect("connections"))
        .collect();
    assert_eq!(by_shard, [2, 2]);
    let mut native = clients_by_shard(&broker, 2, 1);
    for client in native.iter_mut().flatten() {
        client.publish("t", json!(1));
        for client in &mut clients {
            assert_eq!(client.delivery().to_string(), "*3 message t 1");
        }
    }
    let mut publisher = Redis::connect(&broker);
    for (number, client) in clients.iter_mut().enumerate() {
        let name = number.to_string();
        assert_eq!(publisher.publish(name.as_bytes(), b"x"), 1);
        let expected = format!("*3 message {name} x");
        assert_eq!(client.delivery().to_string(), expected);
    }
    assert_eq!(publisher.ask("QUIT"), "+OK");
    publisher.expect_end("");
    broker.terminate();
    for client in &mut clients {
        client.expect_end("");
    }
    assert_eq!(broker.wait_exit().code(), Some(0));
    assert!(!path.exists(), "its path is given back");
}

/// All that a client says before it hears anything arrives in one turn, in many pieces, while its connection is on the
/// way to another shard.
#[test]
fn what_is_said_at_once_is_not_lost_on_the_way_to_another_shard() {
    const COUNT: usize = 2_000;
    let folder = tempfile::tempdir().expect("a folder");
    let resp = format!("unix:{}", folder.path().join("resp.sock").display());
    let broker = Broker::start(&["--resp", &resp, "--shards", "3"]);
    let pipeline: Vec<u8> = (0..COUNT)
        .flat_map(|number| command(&[b"ECHO", number.to_string().as_bytes()]))
        .collect();
    for connection in 0..6 {
        let mut client = Redis::connect(&broker);
        let sending = client.send_beside(pipeline.clone());
        for number in 0..COUNT {
            let echo = client.reply().to_string();
            assert_eq!(echo, number.to_string(), "connection {connection}");
        }
        assert!(sending.join().unwrap());
    }
    // The same with an end right behind it.
    for _ in 0..6 {
        let mut client = Redis::connect(&broker);
        let sending = client.send_beside(pipeline.clone());
        assert!(sending.join().unwrap());
        client.socket().shutdown(Shutdown::Write).unwrap();
        for number in 0..COUNT {
            assert_eq!(client.reply().to_string(), number.to_string());
        }
        client.expect_end("");
    }
}

/// Who connects early and speaks late, as pools do, is not taken for somebody without a password.
#[test]
fn a_silent_client_is_kept_wherever_it_came_in() {
    let folder = tempfile::tempdir().expect("a folder");
    let resp = format!("unix:{}", folder.path().join("resp.sock").display());
    let broker = Broker::start(&["--resp", &resp, "--connect-timeout-ms", "300"]);
    let mut silent: Vec<Redis> = (0..4).map(|_| Redis::connect(&broker)).collect();
    // Long enough for a handshake to be too late.
    let mut stuck = common::Raw::connect(broker.listen());
    let answer = String::from_utf8(stuck.rest()).expect("text");
    assert!(
        answer.starts_with("HTTP/1.1 408 "),
        "{answer} within {DEADLINE:?}"
    );
    for client in &mut silent {
        assert_eq!(client.ask("PING"), "+PONG");
    }
}
