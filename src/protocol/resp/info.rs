//! Facts for people and for the start of clients: the text of INFO, and the lines of CLIENT INFO and CLIENT LIST.
//!
//! Clients look for three lines before they are ready: `redis_version`, `loading:0` and `role:master`. The names of all
//! that Redis has, too, are its names; what is ours stands under `# Pubsub`, by the names of `/stats`.

use std::io::Write as _;

use super::Version;
use super::reply::REDIS_VERSION;
use super::request::Names;

/// What is told of the server. Totals are since its start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct ServerFacts<'a> {
    /// The process.
    pub process_id: u32,
    /// Another with each start; Redis has 40 hexadecimal digits.
    pub run_id: &'a str,
    /// Where RESP is listened for.
    pub tcp_port: u16,
    /// Seconds since the start.
    pub uptime_s: u64,
    /// Connections now, those of other protocols included.
    pub connections: u64,
    /// The most there may be.
    pub connections_max: u64,
    /// All of them so far.
    pub connections_total: u64,
    /// Connections that were refused for the limit, so far.
    pub rejected_total: u64,
    /// The memory of the process in bytes, if it is known.
    pub used_memory_bytes: Option<u64>,
    /// RESP commands so far.
    pub commands_total: u64,
    /// Channels that somebody subscribes to by their name, be it in another protocol.
    pub channels: u64,
    /// Different patterns.
    pub patterns: u64,
    /// Shard channels with a subscriber.
    pub shard_channels: u64,
    /// Threads, each with its own connections.
    pub shards: u64,
    /// Subscriptions of all protocols.
    pub subscriptions: u64,
    /// Publications so far.
    pub publishes: u64,
    /// Deliveries so far that were due: delivered or announced as missed, or still waiting.
    pub deliveries_due: u64,
    /// Deliveries that were sent.
    pub delivered: u64,
    /// Deliveries that were not, and that was told.
    pub announced: u64,
    /// Connections that were closed because they did not read.
    pub closed_slow: u64,
    /// What waits to be sent, in bytes.
    pub outbox_bytes: u64,
}

/// A section's name, as it is asked for in lower case and as it is written, and what writes its lines.
type Section = (
    &'static str,
    &'static str,
    fn(&ServerFacts<'_>, &mut Lines<'_>),
);

/// In the order in which they are told, whatever the order of asking.
const SECTIONS: [Section; 9] = [
    ("server", "Server", server),
    ("clients", "Clients", clients),
    ("memory", "Memory", memory),
    ("persistence", "Persistence", persistence),
    ("stats", "Stats", stats),
    ("replication", "Replication", replication),
    ("cluster", "Cluster", cluster),
    ("keyspace", "Keyspace", |_, _| {}),
    ("pubsub", "Pubsub", pubsub),
];

/// The text of INFO: all sections, or those that are named in any case, each once; unknown names count for nothing.
pub fn write_info(facts: &ServerFacts<'_>, names: Names<'_>, out: &mut Vec<u8>) {
    let is_named = |word: &str| {
        names
            .iter()
            .any(|name| name.eq_ignore_ascii_case(word.as_bytes()))
    };
    let is_all = names.is_empty() || ["all", "everything", "default"].into_iter().any(is_named);
    let start = out.len();
    for (word, title, write) in SECTIONS {
        if !is_all && !is_named(word) {
            continue;
        }
        if out.len() > start {
            out.extend_from_slice(b"\r\n");
        }
        let mut lines = Lines { out };
        lines.write(format_args!("# {title}"));
        write(facts, &mut lines);
    }
}

/// Lines that end as Redis ends them.
struct Lines<'a> {
    out: &'a mut Vec<u8>,
}

impl Lines<'_> {
    fn write(&mut self, line: std::fmt::Arguments<'_>) {
        write!(self.out, "{line}\r\n").expect("a Vec takes every write");
    }

    fn fact(&mut self, name: &str, value: impl std::fmt::Display) {
        self.write(format_args!("{name}:{value}"));
    }
}

fn server(facts: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("redis_version", REDIS_VERSION);
    lines.fact("redis_mode", "standalone");
    lines.fact("server_name", "pubsub");
    lines.fact("server_version", env!("CARGO_PKG_VERSION"));
    lines.fact("arch_bits", usize::BITS);
    lines.fact("process_id", facts.process_id);
    lines.fact("run_id", facts.run_id);
    lines.fact("tcp_port", facts.tcp_port);
    lines.fact("uptime_in_seconds", facts.uptime_s);
    lines.fact("uptime_in_days", facts.uptime_s / (24 * 3600));
}

fn clients(facts: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("connected_clients", facts.connections);
    lines.fact("maxclients", facts.connections_max);
    lines.fact("blocked_clients", 0);
}

fn memory(facts: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    if let Some(bytes) = facts.used_memory_bytes {
        lines.fact("used_memory", bytes);
        lines.fact("used_memory_rss", bytes);
    }
    lines.fact("maxmemory", 0);
    lines.fact("maxmemory_policy", "noeviction");
}

fn persistence(_: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("loading", 0);
    lines.fact("async_loading", 0);
}

fn stats(facts: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("total_connections_received", facts.connections_total);
    lines.fact("total_commands_processed", facts.commands_total);
    lines.fact("rejected_connections", facts.rejected_total);
    lines.fact("pubsub_channels", facts.channels);
    lines.fact("pubsub_patterns", facts.patterns);
    lines.fact("pubsubshard_channels", facts.shard_channels);
}

fn replication(_: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("role", "master");
    lines.fact("connected_slaves", 0);
}

fn cluster(_: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("cluster_enabled", 0);
}

fn pubsub(facts: &ServerFacts<'_>, lines: &mut Lines<'_>) {
    lines.fact("shards", facts.shards);
    lines.fact("subscriptions", facts.subscriptions);
    lines.fact("publishes", facts.publishes);
    lines.fact("deliveries_due", facts.deliveries_due);
    lines.fact("delivered", facts.delivered);
    lines.fact("announced", facts.announced);
    lines.fact("closed_slow", facts.closed_slow);
    lines.fact("outbox_bytes", facts.outbox_bytes);
}

/// What is told of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ClientFacts<'a> {
    /// The connection's number.
    pub id: u64,
    /// Theirs, `host:port`.
    pub address: &'a str,
    /// Ours, `host:port`.
    pub local_address: &'a str,
    /// As checked by [`super::decode`], or empty.
    pub name: &'a [u8],
    /// Seconds since it came.
    pub age_s: u64,
    /// Seconds since its last command.
    pub idle_s: u64,
    /// Its channels.
    pub channels: usize,
    /// Its patterns.
    pub patterns: usize,
    /// Its shard channels.
    pub shard_channels: usize,
    /// The bytes of a command that is incomplete.
    pub buffered_bytes: usize,
    /// The bytes that wait to be sent.
    pub outbox_bytes: usize,
    /// Its last command, as [`super::Request::name`] says it.
    pub command: &'a str,
    /// What it speaks.
    pub version: Version,
    /// As checked by [`super::decode`], or empty.
    pub library_name: &'a [u8],
    /// As checked by [`super::decode`], or empty.
    pub library_version: &'a [u8],
}

/// The line of a connection in CLIENT INFO and CLIENT LIST, `\n` included. The fields are those of Redis 7.2, in its
/// order; what there is none of here is 0.
pub fn write_client(client: &ClientFacts<'_>, out: &mut Vec<u8>) {
    let is_subscribed = client.channels + client.patterns + client.shard_channels > 0;
    let mut write = |field: std::fmt::Arguments<'_>, word: &[u8]| {
        out.write_fmt(field).expect("a Vec takes every write");
        out.extend_from_slice(word);
    };
    write(
        format_args!(
            "id={} addr={} laddr={} fd=0 name=",
            client.id, client.address, client.local_address
        ),
        client.name,
    );
    write(
        format_args!(
            " age={} idle={} flags={} db=0 sub={} psub={} ssub={} multi=-1 qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 \
             rbs=0 rbp=0 obl={outbox} oll=0 omem={outbox} tot-mem={} events=r cmd={} user=default redir=-1 resp={} \
             lib-name=",
            client.age_s,
            client.idle_s,
            if is_subscribed { 'P' } else { 'N' },
            client.channels,
            client.patterns,
            client.shard_channels,
            client.buffered_bytes,
            client.buffered_bytes + client.outbox_bytes,
            client.command,
            client.version.number(),
            outbox = client.outbox_bytes,
        ),
        client.library_name,
    );
    write(format_args!(" lib-ver="), client.library_version);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: ServerFacts<'_> = ServerFacts {
        process_id: 11,
        run_id: "0123456789012345678901234567890123456789",
        tcp_port: 6379,
        uptime_s: 100_000,
        connections: 1,
        connections_max: 2,
        connections_total: 3,
        rejected_total: 4,
        used_memory_bytes: Some(5),
        commands_total: 6,
        channels: 7,
        patterns: 8,
        shard_channels: 9,
        shards: 10,
        subscriptions: 11,
        publishes: 12,
        deliveries_due: 13,
        delivered: 14,
        announced: 15,
        closed_slow: 16,
        outbox_bytes: 17,
    };

    fn info(facts: &ServerFacts<'_>, names: Names<'_>) -> String {
        let mut out = Vec::new();
        write_info(facts, names, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn sections_are_those_that_are_asked_for() {
        let check = |names: Names<'_>, expected: &str| {
            let text = info(&FACTS, names);
            let found: Vec<&str> = text
                .split("\r\n")
                .filter_map(|line| line.strip_prefix("# "))
                .collect();
            assert_eq!(found.join(" "), expected, "{names:?}");
        };
        let all = "Server Clients Memory Persistence Stats Replication Cluster Keyspace Pubsub";
        check(&[], all);
        check(&[b"all"], all);
        check(&[b"Everything"], all);
        check(&[b"DEFAULT", b"server"], all);
        check(&[b"nope", b"all"], all);
        check(&[b"replication"], "Replication");
        check(
            &[b"Replication", b"CLIENTS", b"clients"],
            "Clients Replication",
        );
        check(&[b"nope"], "");
        check(&[b"", b"serve", b"server "], "");
        assert_eq!(info(&FACTS, &[b"nope"]), "");
    }

    #[test]
    fn sections_are_written_as_redis_writes_them() {
        assert_eq!(
            info(&FACTS, &[b"stats", b"cluster", b"keyspace"]),
            "# Stats\r\ntotal_connections_received:3\r\ntotal_commands_processed:6\r\nrejected_connections:4\r\n\
             pubsub_channels:7\r\npubsub_patterns:8\r\npubsubshard_channels:9\r\n\r\n# Cluster\r\ncluster_enabled:0\r\n\
             \r\n# Keyspace\r\n"
        );
        assert_eq!(
            info(&FACTS, &[b"pubsub"]),
            "# Pubsub\r\nshards:10\r\nsubscriptions:11\r\npublishes:12\r\ndeliveries_due:13\r\ndelivered:14\r\n\
             announced:15\r\nclosed_slow:16\r\noutbox_bytes:17\r\n"
        );
        let unknown = ServerFacts {
            used_memory_bytes: None,
            ..FACTS
        };
        let lines = |facts| info(facts, &[b"memory"]).lines().count();
        assert_eq!((lines(&FACTS), lines(&unknown)), (5, 3));
    }

    /// What the ready checks of ioredis and of redis 2 and 3 for Node look at.
    #[test]
    fn clients_find_what_they_wait_for() {
        let text = info(&FACTS, &[]);
        let fact = |name: &str| {
            let mut lines = text.split("\r\n").filter_map(|line| line.split_once(':'));
            lines
                .find(|(found, _)| *found == name)
                .map(|(_, value)| value)
        };
        assert_eq!(fact("loading"), Some("0"));
        assert_eq!(fact("role"), Some("master"));
        assert_eq!(fact("redis_version"), Some("7.2.0"));
        assert_eq!(fact("uptime_in_days"), Some("1"));
        assert_eq!(fact("run_id"), Some(FACTS.run_id));
        assert!(text.split("\r\n").all(|line| !line.contains('\n')));
    }

    #[test]
    fn a_client_is_a_line_of_redis() {
        // As redis-server 7.0.15 wrote it; 7.2 has two fields more.
        let observed = "id=341 addr=127.0.0.1:37732 laddr=127.0.0.1:17379 fd=7 name=sub age=0 idle=0 flags=P db=0 \
                        sub=2 psub=1 ssub=0 multi=-1 qbuf=0 qbuf-free=20474 argv-mem=0 multi-mem=0 rbs=1024 rbp=0 \
                        obl=0 oll=0 omem=0 tot-mem=22376 events=r cmd=psubscribe user=default redir=-1 resp=2";
        let client = ClientFacts {
            id: 341,
            address: "127.0.0.1:37732",
            local_address: "127.0.0.1:17379",
            name: b"sub",
            age_s: 3,
            idle_s: 1,
            channels: 2,
            patterns: 1,
            shard_channels: 0,
            buffered_bytes: 5,
            outbox_bytes: 6,
            command: "psubscribe",
            version: Version::Two,
            library_name: b"ioredis",
            library_version: b"5.11.1",
        };
        let line = |client| {
            let mut out = b"before ".to_vec();
            write_client(client, &mut out);
            String::from_utf8(out[7..].to_vec()).unwrap()
        };
        assert_eq!(
            line(&client),
            "id=341 addr=127.0.0.1:37732 laddr=127.0.0.1:17379 fd=0 name=sub age=3 idle=1 flags=P db=0 sub=2 psub=1 \
             ssub=0 multi=-1 qbuf=5 qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=6 oll=0 omem=6 tot-mem=11 \
             events=r cmd=psubscribe user=default redir=-1 resp=2 lib-name=ioredis lib-ver=5.11.1\n"
        );
        let names = |line: &str| -> Vec<String> {
            line.split(' ')
                .map(|field| field.split_once('=').expect("a field").0.to_owned())
                .collect()
        };
        assert_eq!(
            names(&line(&client)),
            names(&format!("{observed} lib-name= lib-ver="))
        );
        let other = ClientFacts {
            channels: 0,
            patterns: 0,
            name: b"",
            version: Version::Three,
            library_version: b"",
            ..client
        };
        let line = line(&other);
        assert!(
            line.contains(" name= ") && line.contains(" flags=N ") && line.contains(" resp=3 ")
        );
        assert!(line.ends_with(" lib-name=ioredis lib-ver=\n"));
    }
}
